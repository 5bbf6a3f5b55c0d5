/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which process has a socket. There are two ways to ask. The BPF iterator (whose.h) sees the files of all processes and needs CAP_BPF and CAP_PERFMON. Where it cannot be had, the
 * links in /proc/PID/fd are read, and those of other users' processes are only readable with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH; of what we may not read, nothing is said.
 *
 * Several processes may have one socket (fork, SCM_RIGHTS): any is an answer. Asked are, in this order, the process that the caller suspects, the one that was the
 * answer before, the one that had another socket of the same control group, the processes of the socket's control group, all. What is kept is only a suspicion as well:
 * nothing is answered that was not seen in this call.
 */
#ifndef PROCSOCK_H
#define PROCSOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "errtext.h"

struct procsock;

struct procsock_owner {
	int32_t pid; /* 0: nobody, or nobody that we may see */
	/* Of the process's first thread: threads may have names of their own. Printable ASCII. */
	char comm[16];
	/* Path in cgroup2, of the process; without one, of the socket, which stays in the group that its maker was in. Printable; "": not known. */
	char cgroup[256];
};

/*
 * 0; -ENOMEM. When the iterator cannot be had, *why says so and which capability it would take; else it is "". With bpf false /proc is read in any case.
 */
int procsock_open(bool bpf, struct procsock **ret, struct errtext *why);
void procsock_close(struct procsock *p);
/* Is it the iterator? */
bool procsock_by_bpf(const struct procsock *p);

/*
 * inode 0: a socket that no process has; it costs nothing. cgroup as sock_diag tells it, 0: not known. hint_pid 0: none. A look-up
 * is bounded by 65,536 descriptors in /proc, two million by the iterator (a second, about).
 */
void procsock_find(struct procsock *p, uint64_t inode, uint64_t cgroup, int32_t hint_pid,
		   struct procsock_owner *ret);

struct procsock_stats {
	uint64_t lookups;
	uint64_t passes; /* those that had to go through all processes */
};
struct procsock_stats procsock_stats(const struct procsock *p);

#endif
