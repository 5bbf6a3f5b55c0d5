/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What the TC programs keep beside the 512 bytes of stack that all frames of a program share: one row for each CPU. They run with bottom
 * halves off, so nothing else uses the row meanwhile. But for the same reason nothing that "sweep" reaches may use it (it can be interrupted by them), and
 * nothing may be read from it after bpf_clone_redirect(), which runs them anew.
 */
#ifndef WORK_BPF_H
#define WORK_BPF_H

#include "maps_nat.bpf.h"
#include "pkt.bpf.h"

struct work {
	struct pkt p;
	struct sluice_flow_key
		key; /* main programs: the packet's, of fwd at egress and of rev at ingress */
	struct sluice_flow_key masked; /* rev_find(): the same as the filtering wants it */
	struct sluice_flow_key rk;     /* session_out(), session_in() */
	struct sluice_flow val;
	struct sluice_flow_key fk;       /* session_in(), flow_in() */
	struct sluice_client_key client; /* client_charge() */
	struct sluice_client fresh;
	__u8 opts[40]; /* tcp_syn_scale() */
	__u32 pair;    /* 1 + first row of the address that this client has; 0: any */
};

CPU_ROWS(work, struct work, 1);

static __always_inline struct work *work_row(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&work, &zero);
}

#endif
