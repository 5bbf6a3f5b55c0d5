/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which process has a socket, asked of the kernel by a BPF iterator over open files (bpf/whose.bpf.c): every process of our pid namespace and those below it, whoever
 * they belong to. Needs CAP_BPF and CAP_PERFMON when it is opened, nothing later. procsock.h is what others should use.
 */
#ifndef WHOSE_H
#define WHOSE_H

#include <stdint.h>

#include "errtext.h"
#include "sluice_whose.h"

struct whose;

/* Those that are open at one time share one program; not for several threads. -EPERM: a capability is missing, the text says which; -ENOTSUP and others: the kernel cannot. */
int whose_open(struct whose **ret, struct errtext *err);
void whose_close(struct whose *w);

/*
 * The process that has the socket open: looked for in one process (pid), or in all (0), and then one of the control group `cgroup` is preferred to those
 * before it. 0; -ENOENT: nobody (there); -errno.
 */
int whose_find(struct whose *w, int32_t pid, uint64_t inode, uint64_t cgroup,
	       struct sluice_whose *ret);

#endif
