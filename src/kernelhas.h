/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What newer kernels have and this one may lack, none of which sluice cannot do without: for each there is another way, which is taken by the module
 * that needs it. Here it is found out and told, for "sluice doctor".
 */
#ifndef KERNELHAS_H
#define KERNELHAS_H

#include "finding.h"

enum kernel_feature {
	KERNEL_NETFILTER,  /* BPF programs in netfilter's hooks, 6.4 */
	KERNEL_PORT_RANGE, /* IP_LOCAL_PORT_RANGE, 6.3 */
	KERNEL_BOUND,      /* sock_diag lists TCP sockets that are only bound, 6.8 */
	KERNEL_PEERPIDFD,  /* SO_PEERPIDFD, 6.5 */
	KERNEL_FEATURES,
};

struct kernel_has {
	int has[KERNEL_FEATURES]; /* 1; 0: lacking; -errno: could not be found out */
};

/* Tries each. Leaves nothing behind. Netfilter programs take CAP_BPF and CAP_NET_ADMIN to try: -EPERM without. */
void kernel_has_read(struct kernel_has *ret);

/* Ids kernel.netfilter, kernel.port_range, kernel.bound and kernel.peerpidfd: what is there, and what is done instead of what is not. */
void kernel_has_judge(const struct kernel_has *k, struct findings *out);

#endif
