// SPDX-License-Identifier: BSD-2-Clause
/* See process.h. A directory /proc/PID that is open stays the same process's, also when the pid is given to another one. */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel's files that are read here are shorter; "cgroup" ends with the line we want. */
#define FILE_MAX 16384

/* As much of a file as fits, with a NUL behind it. 0 or -errno. */
static int file_read(int dir, const char *name, char buf[FILE_MAX])
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC), r = 0;
	size_t len = 0;
	ssize_t n;

	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	while (len < FILE_MAX - 1) {
		n = read(fd, buf + len, FILE_MAX - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			r = -errno;
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	buf[len] = '\0';
	close(fd);
	return r;
}

static int dir_open(pid_t pid)
{
	char path[32];
	int fd;

	if (pid <= 0)
		return -ESRCH;
	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	return fd;
}

/* What programs choose, and people read. */
static void printable_copy(char *to, const char *from, size_t len)
{
	for (size_t i = 0; i < len; i++)
		to[i] = from[i] >= ' ' && from[i] <= '~' ? from[i] : '?';
	to[len] = '\0';
}

/* "PID (COMM) STATE ..." Nothing is escaped in COMM, so it ends with the last parenthesis. Cuts text up. */
static int stat_parse(char *text, struct lease_holder *ret)
{
	char *open = strchr(text, '('), *end = strrchr(text, ')'), *save = NULL, *word, *rest;
	uint64_t started;
	size_t len;

	if (!open || !end || end < open)
		return -EBADMSG;
	/* Field 22; the first one after COMM is field 3. */
	word = strtok_r(end + 1, " \n", &save);
	for (int field = 3; word && field < 22; field++)
		word = strtok_r(NULL, " \n", &save);
	if (!word || *word < '0' || *word > '9')
		return -EBADMSG;
	started = strtoull(word, &rest, 10);
	if (*rest)
		return -EBADMSG;
	len = (size_t)(end - open - 1);
	if (len >= sizeof(ret->comm))
		len = sizeof(ret->comm) - 1;
	printable_copy(ret->comm, open + 1, len);
	ret->started = started;
	return 0;
}

/* The rest of the line that begins with this; NULL: there is none. */
static const char *line_after(const char *text, const char *begin)
{
	for (; text; text = strchr(text, '\n'), text = text ? text + 1 : NULL)
		if (!strncmp(text, begin, strlen(begin)))
			return text + strlen(begin);
	return NULL;
}

static int status_parse(const char *text, struct lease_holder *ret)
{
	const char *uid = line_after(text, "Uid:\t");
	unsigned n;

	if (!uid || sscanf(uid, "%u", &n) != 1)
		return -EBADMSG;
	ret->uid = n;
	return 0;
}

/* A machine without cgroup2 has no such line: "". */
static void cgroup_parse(const char *text, struct lease_holder *ret)
{
	const char *path = line_after(text, "0::");
	size_t len = path ? strcspn(path, "\n") : 0;

	if (len > LEASE_CGROUP_MAX) {
		path += len - LEASE_CGROUP_MAX;
		len = LEASE_CGROUP_MAX;
	}
	printable_copy(ret->cgroup, path, len);
}

int process_describe(pid_t pid, struct lease_holder *ret)
{
	struct lease_holder h = { .pid = (uint32_t)pid };
	char text[FILE_MAX];
	int dir = dir_open(pid), r;

	if (dir < 0)
		return dir;
	r = file_read(dir, "stat", text);
	if (!r)
		r = stat_parse(text, &h);
	if (!r)
		r = file_read(dir, "status", text);
	if (!r)
		r = status_parse(text, &h);
	if (!r)
		r = file_read(dir, "cgroup", text);
	if (!r)
		cgroup_parse(text, &h);
	close(dir);
	if (!r)
		*ret = h;
	return r;
}

int process_watch(const struct lease_holder *h)
{
	char text[FILE_MAX];
	struct lease_holder now;
	int fd, dir, r;

	if (!h->pid || h->pid > INT32_MAX)
		return -ESRCH;
	fd = (int)syscall(SYS_pidfd_open, (pid_t)h->pid, 0);
	if (fd < 0)
		return -errno;
	/*
	 * Only now: the process that has the pid at this moment is the one that had it when the descriptor was made, or it began later,
	 * and then it is not the holder, which was there before.
	 */
	dir = dir_open((pid_t)h->pid);
	r = dir < 0 ? dir : file_read(dir, "stat", text);
	if (!r)
		r = stat_parse(text, &now);
	if (!r && now.started != h->started)
		r = -ESRCH;
	if (dir >= 0)
		close(dir);
	if (!r)
		return fd;
	close(fd);
	return r;
}
