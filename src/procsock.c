// SPDX-License-Identifier: BSD-2-Clause
/* See procsock.h. */
#include "procsock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "process.h"
#include "whose.h"

/* Inode numbers and ids of control groups count up: no hash is needed. Powers of two. */
#define KEPT_SOCKS  4096
#define KEPT_GROUPS 256

/* So long an absence is believed: nobody has it, or we may not see who. */
#define NOBODY_NS (1000 * NS_PER_MS)

/* Descriptors that one look-up in /proc goes through, and directories that the search for a control group does. */
#define FDS_MAX    65536
#define GROUPS_MAX 65536

struct kept_sock {
	uint64_t inode;
	uint64_t until_ns; /* pid 0: when to look again */
	int32_t pid;       /* 0: nobody */
	int32_t fd;
};

struct kept_group {
	uint64_t id;
	int32_t pid;    /* had a socket of this group; 0: not known */
	char path[256]; /* "": not known */
};

struct procsock {
	struct whose *whose; /* NULL: read /proc */
	char root[PATH_MAX]; /* where cgroup2 is mounted; "": nowhere */
	struct procsock_stats stats;
	struct kept_sock socks[KEPT_SOCKS];
	struct kept_group groups[KEPT_GROUPS];
};

/* What is looked for, and what was found. */
struct search {
	struct procsock *p;
	uint64_t inode, cgroup;
	char link[32]; /* "socket:[INODE]" */
	uint32_t looked;
	int32_t pid, fd; /* found */
	char comm[16];   /* "": not told */
	uint64_t group;  /* of the process; 0: not told */
};

static void printable_copy(char *to, size_t size, const char *from)
{
	size_t i = 0;

	for (; i < size - 1 && from[i]; i++)
		to[i] = from[i] >= ' ' && from[i] <= '~' ? from[i] : '?';
	to[i] = '\0';
}

/* Looking into one process */

/* Entries of a directory of /proc that are numbers. -1: it has no more. */
static int64_t number_next(DIR *d)
{
	const struct dirent *e;

	while ((e = readdir(d))) {
		char *end;
		long n = strtol(e->d_name, &end, 10);

		if (!*end && end != e->d_name && n >= 0 && n <= INT32_MAX)
			return n;
	}
	return -1;
}

static bool link_is(struct search *s, int dir, const char *name)
{
	char text[sizeof(s->link) + 1];
	ssize_t len = readlinkat(dir, name, text, sizeof(text));

	return len == (ssize_t)strlen(s->link) && !memcmp(text, s->link, (size_t)len);
}

/* A directory of links, /proc/PID/fd or /proc/PID/task/TID/fd. *ret_any: it had any. */
static bool links_search(struct search *s, int32_t pid, const char *path, bool *ret_any)
{
	DIR *d = opendir(path);
	int64_t fd;

	while (d && s->looked < FDS_MAX && (fd = number_next(d)) >= 0) {
		char name[16];

		snprintf(name, sizeof(name), "%d", (int)fd);
		s->looked++;
		*ret_any = true;
		if (!link_is(s, dirfd(d), name))
			continue;
		s->pid = pid;
		s->fd = (int32_t)fd;
		closedir(d);
		return true;
	}
	if (d)
		closedir(d);
	return false;
}

/* fd: where it was the last time; -1: not known. */
static bool proc_search(struct search *s, int32_t pid, int32_t fd)
{
	char path[64];
	bool any = false;
	int64_t tid;
	DIR *d;

	if (fd >= 0) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, (int)fd);
		if (link_is(s, AT_FDCWD, path)) {
			s->pid = pid;
			s->fd = fd;
			return true;
		}
	}
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	if (links_search(s, pid, path, &any))
		return true;
	if (any)
		return false;
	/* It has none, or its first thread has ended while others go on. */
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	while (d && !s->pid && !any && s->looked < FDS_MAX && (tid = number_next(d)) >= 0) {
		if (tid == pid)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%d/fd", (int)pid, (int)tid);
		links_search(s, pid, path, &any);
	}
	if (d)
		closedir(d);
	return s->pid;
}

/* pid 0: all. A failure is the same as finding nothing. */
static bool bpf_search(struct search *s, int32_t pid)
{
	struct sluice_whose w;

	if (whose_find(s->p->whose, pid, s->inode, s->cgroup, &w))
		return false;
	s->pid = (int32_t)w.pid;
	s->fd = (int32_t)w.fd;
	s->group = w.cgroup;
	memcpy(s->comm, w.comm, sizeof(s->comm));
	s->comm[sizeof(s->comm) - 1] = '\0';
	return true;
}

static bool process_search(struct search *s, int32_t pid, int32_t fd)
{
	if (pid <= 0)
		return false;
	return s->p->whose ? bpf_search(s, pid) : proc_search(s, pid, fd);
}

/* Control groups */

static void root_find(struct procsock *p)
{
	FILE *f = setmntent("/proc/self/mounts", "r");
	const struct mntent *m;

	while (f && (m = getmntent(f))) {
		if (strcmp(m->mnt_type, "cgroup2") || strlen(m->mnt_dir) >= sizeof(p->root))
			continue;
		strcpy(p->root, strcmp(m->mnt_dir, "/") ? m->mnt_dir : "");
		break;
	}
	if (f)
		endmntent(f);
}

/* Is it (still) the path of that group? Inode numbers in cgroup2 are ids, on machines of 64 bits. */
static bool path_is(const struct procsock *p, const char *path, uint64_t id)
{
	char full[PATH_MAX + 256];
	struct stat st;

	snprintf(full, sizeof(full), "%s%s", p->root, path);
	return !stat(full, &st) && st.st_ino == id;
}

/*
 * In and below the directory that fd is, which is the callee's; its path is in buf, of len characters. open_by_handle_at() would find the group at once, but it needs CAP_DAC_READ_SEARCH. Returns
 * whether it was found, and then buf has its path.
 */
static bool walk(int fd, char *buf, size_t len, uint64_t id, uint32_t *looked)
{
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;
	bool found = false;

	while (d && !found && (e = readdir(d))) {
		size_t n = strlen(e->d_name);

		if (e->d_type != DT_DIR || e->d_name[0] == '.' || len + n + 1 >= 256)
			continue;
		if (++*looked > GROUPS_MAX)
			break;
		buf[len] = '/';
		memcpy(buf + len + 1, e->d_name, n + 1);
		found = e->d_ino == id ||
			walk(openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), buf,
			     len + 1 + n, id, looked);
	}
	if (d)
		closedir(d);
	else if (fd >= 0)
		close(fd);
	if (!found)
		buf[len] = '\0';
	return found;
}

static struct kept_group *group_kept(struct procsock *p, uint64_t id)
{
	struct kept_group *g = &p->groups[id % KEPT_GROUPS];

	if (g->id != id)
		*g = (struct kept_group){ .id = id };
	return g;
}

/* Its path, kept or found now; suspect is tried before the search. "": there is none. */
static const char *group_path(struct procsock *p, uint64_t id, const char *suspect)
{
	struct kept_group *g = group_kept(p, id);
	uint32_t looked = 0;

	if (id == 1)
		return "/";
	if (*g->path && path_is(p, g->path, id))
		return g->path;
	g->path[0] = '\0';
	if (*suspect == '/' && strlen(suspect) < sizeof(g->path) && path_is(p, suspect, id))
		strcpy(g->path, suspect);
	else
		walk(open(p->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC), g->path, 0, id, &looked);
	return g->path;
}

/* The processes of the socket's group. */
static bool group_search(struct search *s)
{
	char file[PATH_MAX + 300], line[32];
	const char *path;
	FILE *f;

	if (!s->cgroup || !*s->p->root)
		return false;
	path = group_path(s->p, s->cgroup, "");
	if (!*path)
		return false;
	snprintf(file, sizeof(file), "%s%s/cgroup.procs", s->p->root, path);
	f = fopen(file, "re");
	while (f && !s->pid && s->looked < FDS_MAX && fgets(line, sizeof(line), f))
		proc_search(s, (int32_t)strtol(line, NULL, 10), -1);
	if (f)
		fclose(f);
	return s->pid;
}

/* Looking into all */

static bool all_search(struct search *s)
{
	int64_t pid;
	DIR *d;

	s->p->stats.passes++;
	if (s->p->whose)
		return bpf_search(s, 0);
	d = opendir("/proc");
	while (d && !s->pid && s->looked < FDS_MAX && (pid = number_next(d)) >= 0)
		proc_search(s, (int32_t)pid, -1);
	if (d)
		closedir(d);
	return s->pid;
}

/* Who it is */

static void describe(struct search *s, struct procsock_owner *ret)
{
	struct lease_holder h = { .comm = "" };
	struct procsock_owner o = { .pid = s->pid };
	struct kept_group *g;

	/* The iterator told everything but the path. */
	if (s->pid && !*s->comm)
		process_describe(s->pid, &h);
	if (s->pid && *s->comm && s->group) {
		g = group_kept(s->p, s->group);
		if (!*g->path)
			process_describe(s->pid, &h);
	}
	printable_copy(o.comm, sizeof(o.comm), *s->comm ? s->comm : h.comm);
	if (s->pid && !s->group)
		printable_copy(o.cgroup, sizeof(o.cgroup), h.cgroup);
	else if (*s->p->root && (s->group || s->cgroup))
		printable_copy(o.cgroup, sizeof(o.cgroup),
			       group_path(s->p, s->group ? s->group : s->cgroup, h.cgroup));
	*ret = o;
}

static void search(struct search *s, int32_t hint_pid)
{
	struct procsock *p = s->p;
	struct kept_sock *k = &p->socks[s->inode % KEPT_SOCKS];
	struct kept_group *g = group_kept(p, s->cgroup);
	bool kept = k->inode == s->inode;
	uint64_t now = clock_boot_ns();

	if (process_search(s, hint_pid, kept && k->pid == hint_pid ? k->fd : -1))
		goto found;
	if (kept && !k->pid && now < k->until_ns)
		return;
	if (kept && k->pid != hint_pid && process_search(s, k->pid, k->fd))
		goto found;
	if (s->cgroup && g->pid != hint_pid && process_search(s, g->pid, -1))
		goto found;
	if ((!p->whose && group_search(s)) || all_search(s))
		goto found;
	*k = (struct kept_sock){ .inode = s->inode, .until_ns = now + NOBODY_NS };
	return;
found:
	*k = (struct kept_sock){ .inode = s->inode, .pid = s->pid, .fd = s->fd };
	/* group_search() may have taken the place for another group. */
	if (s->cgroup)
		group_kept(p, s->cgroup)->pid = s->pid;
}

void procsock_find(struct procsock *p, uint64_t inode, uint64_t cgroup, int32_t hint_pid,
		   struct procsock_owner *ret)
{
	struct search s = { .p = p, .inode = inode, .cgroup = cgroup };

	p->stats.lookups++;
	snprintf(s.link, sizeof(s.link), "socket:[%llu]", (unsigned long long)inode);
	if (inode)
		search(&s, hint_pid);
	describe(&s, ret);
}

/* Opening */

int procsock_open(bool bpf, struct procsock **ret, struct errtext *why)
{
	struct procsock *p = calloc(1, sizeof(*p));

	if (!p)
		return errtext_set(why, ENOMEM, "out of memory");
	why->s[0] = '\0';
	if (bpf)
		whose_open(&p->whose, why);
	root_find(p);
	*ret = p;
	return 0;
}

void procsock_close(struct procsock *p)
{
	if (!p)
		return;
	whose_close(p->whose);
	free(p);
}

bool procsock_by_bpf(const struct procsock *p)
{
	return p->whose;
}

struct procsock_stats procsock_stats(const struct procsock *p)
{
	return p->stats;
}
