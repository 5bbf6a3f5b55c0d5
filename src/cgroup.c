/* SPDX-License-Identifier: BSD-2-Clause */
#include "cgroup.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX     "exec-"
#define NAME_LEN   (sizeof(PREFIX) + 20)
#define BASE_MAX   256 /* characters of the configured name */
#define MOUNTS     "/proc/self/mounts"
#define MOUNTS_MAX (4 << 20)

struct group {
	uint64_t lease;
	uint64_t id;
	int wd;       /* inotify watch of its cgroup.events; -1 */
	bool changed; /* since it was last looked at */
};

struct cgroups {
	char root[PATH_MAX];
	char dir[PATH_MAX];
	uint32_t level;
	int inotify_fd;
	struct group *list; /* sorted by lease */
	size_t n, cap;
};

/* Texts */

/* The mount's path in place of \ooo, which stands for blanks, tabs, newlines and backslashes (fs/proc_namespace.c). */
static int unescape(const char *s, size_t len, char ret[PATH_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		char c = s[i];

		if (n + 1 >= PATH_MAX)
			return -ENAMETOOLONG;
		if (c == '\\' && len - i >= 4 && s[i + 1] >= '0' && s[i + 1] <= '3' &&
		    s[i + 2] >= '0' && s[i + 2] <= '7' && s[i + 3] >= '0' && s[i + 3] <= '7') {
			c = (char)((s[i + 1] - '0') << 6 | (s[i + 2] - '0') << 3 |
				   (s[i + 3] - '0'));
			i += 3;
		}
		ret[n++] = c;
	}
	ret[n] = '\0';
	return 0;
}

int cgroup_parse_mounts(const char *text, char ret[PATH_MAX])
{
	for (const char *line = text; *line;) {
		const char *end = strchrnul(line, '\n');
		/* device, path, type, options, ... with one blank between them */
		const char *path = memchr(line, ' ', (size_t)(end - line));
		const char *type = path ? memchr(path + 1, ' ', (size_t)(end - path - 1)) : NULL;

		if (type && !strncmp(type, " cgroup2 ", 9))
			return unescape(path + 1, (size_t)(type - path - 1), ret);
		line = *end ? end + 1 : end;
	}
	return -ENOENT;
}

int cgroup_parse_name(const char *name, uint64_t *ret)
{
	const char *digits = name + strlen(PREFIX);
	uint64_t lease = 0;

	if (strncmp(name, PREFIX, strlen(PREFIX)) || *digits < '1' || *digits > '9')
		return -EINVAL;
	for (const char *c = digits; *c; c++) {
		if (*c < '0' || *c > '9' || __builtin_mul_overflow(lease, 10, &lease) ||
		    __builtin_add_overflow(lease, (uint64_t)(*c - '0'), &lease))
			return -EINVAL;
	}
	*ret = lease;
	return 0;
}

int cgroup_parse_base(const char *name, uint32_t *ret_depth)
{
	uint32_t depth = 0;

	if (strlen(name) > BASE_MAX || strpbrk(name, "\n\r\t"))
		return -EINVAL;
	for (const char *part = name;; part++) {
		size_t len = strcspn(part, "/");

		if (!len || len > NAME_MAX || (len == 1 && *part == '.') ||
		    (len == 2 && !strncmp(part, "..", 2)))
			return -EINVAL;
		depth++;
		part += len;
		if (!*part)
			break;
	}
	*ret_depth = depth;
	return 0;
}

/* Files */

/* The whole of a file of /proc, which tells no size. *ret is for free(). */
static int read_all(const char *path, size_t max, char **ret)
{
	size_t n = 0, cap = 65536;
	char *buf = malloc(cap);
	ssize_t got = 0;
	int r = 0, fd;

	if (!buf)
		return -ENOMEM;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		r = -errno;
	while (!r && (got = read(fd, buf + n, cap - n - 1)) > 0) {
		char *more;

		n += (size_t)got;
		if (n + 1 < cap)
			continue;
		more = cap < max ? realloc(buf, cap * 2) : NULL;
		if (!more) {
			r = cap < max ? -ENOMEM : -EFBIG;
		} else {
			buf = more;
			cap *= 2;
		}
	}
	if (!r && got < 0)
		r = -errno;
	if (fd >= 0)
		close(fd);
	if (r) {
		free(buf);
		return r;
	}
	buf[n] = '\0';
	*ret = buf;
	return 0;
}

/*
 * The id that the kernel's BPF helpers use. The file handle of a directory in cgroup2 is just that (kernfs_encode_fh()); on machines of 64 bits so is its inode
 * number.
 */
static int dir_id(const char *path, uint64_t *ret)
{
	union {
		struct file_handle h;
		char space[sizeof(struct file_handle) + sizeof(uint64_t)];
	} u = { .h = { .handle_bytes = sizeof(uint64_t) } };
	struct stat st;
	int mount_id;

	if (!name_to_handle_at(AT_FDCWD, path, &u.h, &mount_id, 0) &&
	    u.h.handle_bytes == sizeof(uint64_t)) {
		memcpy(ret, u.h.f_handle, sizeof(*ret));
		return 0;
	}
	if (errno != EOPNOTSUPP && errno != EOVERFLOW && errno != EPERM && errno != ENOSYS)
		return -errno;
	/* A system-call filter may forbid the former. */
	if (sizeof(st.st_ino) < sizeof(*ret))
		return -EOPNOTSUPP;
	if (stat(path, &st))
		return -errno;
	*ret = st.st_ino;
	return 0;
}

static int dir_make(const char *path, struct errtext *err)
{
	if (!mkdir(path, 0755) || errno == EEXIST)
		return 0;
	switch (errno) {
	case EACCES:
	case EPERM:
		return errtext_set(err, EACCES,
				   "%s: control groups can't be made here: sluiced must run as "
				   "root, outside of a "
				   "container that has them read-only",
				   path);
	case EROFS:
		return errtext_set(
			err, EROFS,
			"%s: cgroup2 is mounted read-only (in a container?): mount it writable, "
			"or run sluiced on the host",
			path);
	case EAGAIN:
		return errtext_set(
			err, EAGAIN,
			"%s: the kernel's limit of control groups is reached: see "
			"cgroup.max.descendants and cgroup.max.depth in the groups above",
			path);
	default:
		return errtext_set(err, errno, "%s: making the control group: %s", path,
				   strerror(errno));
	}
}

/* The group's directory, or a file in it ("": none). Returns buf. */
static char *group_path(const struct cgroups *cgs, uint64_t lease, const char *file,
			char buf[PATH_MAX])
{
	int n = snprintf(buf, PATH_MAX, "%s/" PREFIX "%llu%s%s", cgs->dir,
			 (unsigned long long)lease, *file ? "/" : "", file);

	/* cgroups_open() left room. */
	assert(n > 0 && n < PATH_MAX);
	(void)n;
	return buf;
}

/* The table */

/* Where the lease's group is, or would be. */
static size_t group_at(const struct cgroups *cgs, uint64_t lease)
{
	size_t lo = 0, hi = cgs->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (cgs->list[mid].lease < lease)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static struct group *group_find(const struct cgroups *cgs, uint64_t lease)
{
	size_t at = group_at(cgs, lease);

	return at < cgs->n && cgs->list[at].lease == lease ? &cgs->list[at] : NULL;
}

static int group_enter(struct cgroups *cgs, uint64_t lease, struct errtext *err)
{
	char path[PATH_MAX];
	struct group g = { .lease = lease, .wd = -1 };
	size_t at = group_at(cgs, lease);
	int r;

	if (cgs->n == CGROUP_MAX)
		return errtext_set(err, ENOSPC, "%s: has %d control groups already, no more fit",
				   cgs->dir, CGROUP_MAX);
	if (cgs->n == cgs->cap) {
		size_t cap = cgs->cap ? cgs->cap * 2 : 16;
		struct group *list = realloc(cgs->list, cap * sizeof(*list));

		if (!list)
			return errtext_set(err, ENOMEM, "out of memory");
		cgs->list = list;
		cgs->cap = cap;
	}
	r = dir_id(group_path(cgs, lease, "", path), &g.id);
	if (r)
		return errtext_set(err, -r, "%s: asking for its id: %s", path, strerror(-r));
	if (cgs->inotify_fd >= 0)
		g.wd = inotify_add_watch(cgs->inotify_fd,
					 group_path(cgs, lease, "cgroup.events", path), IN_MODIFY);
	if (cgs->inotify_fd >= 0 && g.wd < 0)
		return errtext_set(err, errno, "%s: watching: %s%s", path, strerror(errno),
				   errno == ENOSPC ? " (raise fs.inotify.max_user_watches)" : "");
	memmove(&cgs->list[at + 1], &cgs->list[at], (cgs->n - at) * sizeof(*cgs->list));
	cgs->list[at] = g;
	cgs->n++;
	return 0;
}

static void group_leave(struct cgroups *cgs, struct group *g)
{
	size_t at = (size_t)(g - cgs->list);

	/* The watch went with the file. */
	memmove(g, g + 1, (cgs->n - at - 1) * sizeof(*g));
	cgs->n--;
}

/* Opening */

static int root_find(struct cgroups *cgs, struct errtext *err)
{
	char *text;
	uint64_t id;
	int r = read_all(MOUNTS, MOUNTS_MAX, &text);

	if (r)
		return errtext_set(err, -r, MOUNTS ": %s", strerror(-r));
	r = cgroup_parse_mounts(text, cgs->root);
	free(text);
	if (r)
		return errtext_set(
			err, ENOTSUP,
			"cgroup2 is not mounted: 'mount -t cgroup2 none /sys/fs/cgroup', or "
			"start the system with systemd.unified_cgroup_hierarchy=1");
	r = dir_id(cgs->root, &id);
	if (r)
		return errtext_set(err, -r, "%s: asking for its id: %s", cgs->root, strerror(-r));
	/* The root's inode has number 1 (cgroup_setup_root()). BPF counts levels from there, and we can't if we are further down. */
	if ((uint32_t)id != 1)
		return errtext_set(
			err, ENOTSUP,
			"%s is not the root of cgroup2 but a part of it (in a container?): run "
			"sluiced in the host's cgroup namespace (docker: --cgroupns=host)",
			cgs->root);
	return 0;
}

static int base_make(struct cgroups *cgs, const char *name, struct errtext *err)
{
	int n = snprintf(cgs->dir, sizeof(cgs->dir), "%s/%s",
			 strcmp(cgs->root, "/") ? cgs->root : "", name);
	size_t at = strlen(cgs->dir) - strlen(name);

	if (n < 0 || (size_t)n + NAME_LEN + sizeof("/cgroup.events") > sizeof(cgs->dir))
		return errtext_set(err, ENAMETOOLONG, "%s/%s: too long", cgs->root, name);
	for (;;) {
		size_t len = strcspn(cgs->dir + at, "/");
		char c = cgs->dir[at + len];
		int r;

		cgs->dir[at + len] = '\0';
		r = dir_make(cgs->dir, err);
		cgs->dir[at + len] = c;
		if (r || !c)
			return r;
		at += len + 1;
	}
}

/* Take up what is there. */
static int groups_read(struct cgroups *cgs, struct errtext *err)
{
	DIR *d = opendir(cgs->dir);
	struct dirent *e;
	uint64_t lease;
	int r = 0;

	if (!d)
		return errtext_set(err, errno, "%s: %s", cgs->dir, strerror(errno));
	while (!r && (e = readdir(d)))
		if (e->d_type == DT_DIR && !cgroup_parse_name(e->d_name, &lease))
			r = group_enter(cgs, lease, err);
	closedir(d);
	return r;
}

int cgroups_open(const char *name, struct cgroups **ret, struct errtext *err)
{
	struct cgroups *cgs;
	uint32_t depth;
	int r;

	if (cgroup_parse_base(name, &depth))
		return errtext_set(
			err, EINVAL,
			"control group \"%s\": must be a path below the root of cgroup2, as in "
			"\"sluice\" "
			"or \"system.slice/sluice\", without \".\" and \"..\", of %d characters at "
			"most",
			name, BASE_MAX);
	cgs = calloc(1, sizeof(*cgs));
	if (!cgs)
		return errtext_set(err, ENOMEM, "out of memory");
	cgs->level = depth + 1;
	cgs->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	r = root_find(cgs, err);
	if (!r)
		r = base_make(cgs, name, err);
	if (!r)
		r = groups_read(cgs, err);
	if (r) {
		cgroups_close(cgs);
		return r;
	}
	*ret = cgs;
	return 0;
}

void cgroups_close(struct cgroups *cgs)
{
	if (!cgs)
		return;
	if (cgs->inotify_fd >= 0)
		close(cgs->inotify_fd);
	free(cgs->list);
	free(cgs);
}

const char *cgroups_root(const struct cgroups *cgs)
{
	return cgs->root;
}

const char *cgroups_dir(const struct cgroups *cgs)
{
	return cgs->dir;
}

uint32_t cgroups_level(const struct cgroups *cgs)
{
	return cgs->level;
}

int cgroups_fd(const struct cgroups *cgs)
{
	return cgs->inotify_fd;
}

/* Groups */

int cgroup_make(struct cgroups *cgs, uint64_t lease, uint64_t *ret_id, struct errtext *err)
{
	const struct group *g = group_find(cgs, lease);
	char path[PATH_MAX];
	int r;

	if (g) {
		*ret_id = g->id;
		return 0;
	}
	r = dir_make(group_path(cgs, lease, "", path), err);
	if (r)
		return r;
	r = group_enter(cgs, lease, err);
	if (r) {
		(void)rmdir(path);
		return r;
	}
	*ret_id = group_find(cgs, lease)->id;
	return 0;
}

uint64_t cgroup_id(const struct cgroups *cgs, uint64_t lease)
{
	const struct group *g = group_find(cgs, lease);

	return g ? g->id : 0;
}

char *cgroup_path(const struct cgroups *cgs, uint64_t lease, char buf[PATH_MAX])
{
	size_t root = strcmp(cgs->root, "/") ? strlen(cgs->root) : 0;
	char path[PATH_MAX];

	group_path(cgs, lease, "", path);
	return strcpy(buf, path + root);
}

int cgroup_move(struct cgroups *cgs, uint64_t lease, pid_t pid, struct errtext *err)
{
	char path[PATH_MAX], text[16];
	int fd, n, r = 0;

	if (!group_find(cgs, lease))
		return errtext_set(err, ENOENT, "lease %llu has no control group",
				   (unsigned long long)lease);
	/* 0 would be ourselves. */
	if (pid <= 0)
		return errtext_set(err, ESRCH, "there is no process %d", (int)pid);
	n = snprintf(text, sizeof(text), "%d", (int)pid);
	fd = open(group_path(cgs, lease, "cgroup.procs", path), O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errtext_set(err, errno, "%s: %s", path, strerror(errno));
	if (write(fd, text, (size_t)n) != n)
		r = errno == ESRCH ? errtext_set(err, ESRCH, "there is no process %d", (int)pid)
				   : errtext_set(err, errno, "%s: moving process %d: %s", path,
						 (int)pid, strerror(errno));
	close(fd);
	return r;
}

int cgroup_populated(const struct cgroups *cgs, uint64_t lease)
{
	char path[PATH_MAX], text[256];
	const char *at;
	ssize_t n;
	int fd;

	fd = open(group_path(cgs, lease, "cgroup.events", path), O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n < 0)
		return -EIO;
	text[n] = '\0';
	at = strstr(text, "populated ");
	if (!at)
		return -EIO;
	return at[strlen("populated ")] == '1';
}

/* Errors show when the group itself is to go. */
static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)ftw;
	if (type == FTW_DP)
		(void)rmdir(path);
	return 0;
}

int cgroup_rm(struct cgroups *cgs, uint64_t lease, struct errtext *err)
{
	struct group *g = group_find(cgs, lease);
	char path[PATH_MAX];

	group_path(cgs, lease, "", path);
	if (rmdir(path) && errno == EBUSY && cgroup_populated(cgs, lease) == 0)
		(void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	if (!access(path, F_OK) && rmdir(path) && errno != ENOENT)
		return errtext_set(err, errno, "%s: removing the control group: %s", path,
				   errno == EBUSY ? "there are processes in it" : strerror(errno));
	if (g)
		group_leave(cgs, g);
	return 0;
}

size_t cgroup_list(const struct cgroups *cgs, uint64_t *ret, size_t n)
{
	for (size_t i = 0; i < n && i < cgs->n; i++)
		ret[i] = cgs->list[i].lease;
	return cgs->n;
}

/* What inotify has to say, as marks in the table. */
static int events_read(struct cgroups *cgs)
{
	_Alignas(struct inotify_event) char buf[16384];
	ssize_t n;

	if (cgs->inotify_fd < 0)
		return 0;
	while ((n = read(cgs->inotify_fd, buf, sizeof(buf))) > 0) {
		const struct inotify_event *e;

		for (char *at = buf; at < buf + n; at += sizeof(*e) + e->len) {
			e = (const struct inotify_event *)(void *)at;
			for (size_t i = 0; i < cgs->n; i++)
				if (cgs->list[i].wd == e->wd || e->mask & IN_Q_OVERFLOW)
					cgs->list[i].changed = true;
		}
	}
	return n < 0 && errno != EAGAIN && errno != EINTR ? -errno : 0;
}

int cgroups_emptied(struct cgroups *cgs, int (*fn)(void *arg, uint64_t lease), void *arg)
{
	int r = events_read(cgs);

	/* fn may change the table, so each look begins behind the lease of the last one. */
	for (uint64_t after = 0; !r;) {
		size_t at = group_at(cgs, after + 1);
		int populated;

		while (at < cgs->n && !cgs->list[at].changed)
			at++;
		if (at == cgs->n)
			break;
		after = cgs->list[at].lease;
		cgs->list[at].changed = false;
		populated = cgroup_populated(cgs, after);
		/* Or somebody else has removed it. */
		if (!populated || populated == -ENOENT)
			r = fn(arg, after);
		if (after == UINT64_MAX)
			break;
	}
	return r;
}
