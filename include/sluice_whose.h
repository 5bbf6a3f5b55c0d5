/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What the iterator over open files (bpf/whose.bpf.c) says about one: a socket that was asked for, and who has it. */
#ifndef SLUICE_WHOSE_H
#define SLUICE_WHOSE_H

#include <linux/types.h>

struct sluice_whose {
	__u64 cgroup; /* of the process; 0: not known */
	__u32 pid;    /* of the process, as the reader's pid namespace numbers it */
	__u32 fd;
	char comm[16]; /* of its first thread: what /proc/PID/comm says */
};

_Static_assert(sizeof(struct sluice_whose) == 32, "written by BPF");

#endif
