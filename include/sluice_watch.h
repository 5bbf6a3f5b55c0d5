/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What bpf/watch.bpf.c (a netfilter program after srcnat) tells the daemon: a rewrite of a local socket's source port, at the moment when it happens. Addresses are v4-mapped, ports in
 * network order, times CLOCK_BOOTTIME.
 */
#ifndef SLUICE_WATCH_H
#define SLUICE_WATCH_H

#include <linux/types.h>

#include "sluice_abi.h"

/* Record of the ring buffer "rewrites". */
struct sluice_rewrite {
	__u64 time_ns;
	__u64 cookie; /* of the socket; 0: none was given to it yet (SO_COOKIE, sock_diag and some programs do) */
	__u64 inode;                /* of the socket; 0: no process has it */
	__u64 cgroup;               /* id in cgroup2 */
	union sluice_addr src, dst; /* original tuple */
	union sluice_addr reply_src, reply_dst;
	__be16 sport, dport, reply_sport, reply_dport;
	__u32 status; /* IPS_*, before the entry is confirmed: IPS_CONFIRMED is not set */
	__u32 netns;  /* inode of the network namespace */
	__u32 uid;    /* of the socket */
	__u32 pid; /* of the process that was sending (thread group, as the initial pid namespace has it); 0: the kernel itself (a retransmission), or in doubt: a hint that wants checking */
	__u16 zone;
	__u8 l4;     /* enum sluice_l4 */
	__u8 helper; /* see struct ct_entry */
	__u32 pad;
	char comm[16]; /* of the thread that was sending; "" when pid is 0 */
};

/* Per-CPU row of map "watch_stats". */
struct sluice_watch_stats {
	__u64 seen; /* first packets of connections of local sockets, TCP and UDP */
	__u64 sent; /* rewrites told */
	__u64 lost; /* the ring was full */
};

#endif
