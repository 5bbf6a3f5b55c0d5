/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control groups of "sluice exec": one for each lease, all below one of ours.
 *
 *	CGROUP2/NAME			leases.cgroup of the configuration; the hooks are attached here
 *	CGROUP2/NAME/exec-ID		the processes that go out through lease ID
 *	CGROUP2/NAME/exec-ID/...	whatever groups these processes make for themselves
 *
 * Groups outlive the daemon. No capability is needed: what counts are the permissions of the directories, and the processes that are moved may be
 * anybody's.
 */
#ifndef CGROUP_H
#define CGROUP_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "errtext.h"

#define CGROUP_MAX 4096 /* groups of ours at a time */

struct cgroups;

/*
 * Find cgroup2, make the group `name` there (may have several parts, "a/b"), and take up the groups that an earlier daemon left below it. Returns 0 and *ret
 * (cgroups_close()), or with err filled: -ENOTSUP where cgroup2 is not mounted, or only a part of it is to be seen (a container); -EINVAL for a bad name;
 * -EACCES and -EROFS when groups can't be made; -errno.
 */
int cgroups_open(const char *name, struct cgroups **ret, struct errtext *err);
/* The groups stay. NULL is fine. */
void cgroups_close(struct cgroups *cgs);

const char *cgroups_root(const struct cgroups *cgs); /* directory of the cgroup2 root */
const char *cgroups_dir(const struct cgroups *cgs);  /* directory above the groups */
uint32_t cgroups_level(const struct cgroups *cgs);   /* depth of the groups; the root's is 0 */

/* The group of a lease, made if it is not there. *ret_id: the kernel's id, the key of map "execs". -ENOSPC when there are CGROUP_MAX. */
int cgroup_make(struct cgroups *cgs, uint64_t lease, uint64_t *ret_id, struct errtext *err);
/* The id of a lease's group that is there; 0: none. */
uint64_t cgroup_id(const struct cgroups *cgs, uint64_t lease);
/* Its path below the cgroup2 root, "/sluice/exec-7", as in /proc/PID/cgroup. Returns buf. */
char *cgroup_path(const struct cgroups *cgs, uint64_t lease, char buf[PATH_MAX]);
/* Move a process with all of its threads. -ESRCH when it has ended, -ENOENT when the lease has no group. */
int cgroup_move(struct cgroups *cgs, uint64_t lease, pid_t pid, struct errtext *err);
/* Is a process in it, or in a group below it? 1, 0, -errno. */
int cgroup_populated(const struct cgroups *cgs, uint64_t lease);
/* Remove the group and the empty groups below it. 0 also when it is not there; -EBUSY while it is populated. */
int cgroup_rm(struct cgroups *cgs, uint64_t lease, struct errtext *err);

/* The leases that have groups, after cgroups_open() those of an earlier daemon: at most n into ret, in order. Returns how many there are. */
size_t cgroup_list(const struct cgroups *cgs, uint64_t *ret, size_t n);

/*
 * Readable when processes of some group have come or gone, until cgroups_emptied() has read all of it. Not announced are groups that were empty before
 * cgroups_open() (look at each with cgroup_populated()), and what somebody else removes. -1 where the kernel gives no inotify: look at all now and then.
 */
int cgroups_fd(const struct cgroups *cgs);
/*
 * Calls fn for each group that has changed and is empty now; fn may remove it, and may make others. Never blocks. Stops at the first fn that returns other than
 * 0, and returns that; the others are left for the next call.
 */
int cgroups_emptied(struct cgroups *cgs, int (*fn)(void *arg, uint64_t lease), void *arg);

/*
 * Pure: where in the text of /proc/self/mounts cgroup2 is mounted first. Returns 0 with the path, its escapes (\040) resolved, or -ENOENT; -ENAMETOOLONG.
 */
int cgroup_parse_mounts(const char *text, char ret[PATH_MAX]);
/* Pure: the lease that a directory's name stands for: 0 and *ret, or -EINVAL. */
int cgroup_parse_name(const char *name, uint64_t *ret);
/* Pure: is it a path for cgroups_open(): relative, no empty parts, "." or ".."? *ret_depth: its parts. 0 or -EINVAL. */
int cgroup_parse_base(const char *name, uint32_t *ret_depth);

#endif
