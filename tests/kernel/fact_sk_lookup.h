/* SPDX-License-Identifier: BSD-2-Clause */
/* A TC program that asks the kernel for the socket of one tuple, as NAT does before it takes that tuple. */
#ifndef FACT_SK_LOOKUP_H
#define FACT_SK_LOOKUP_H

#include <stddef.h>

#include "fact.h"

struct fact_lookup {
	struct fact_cells cells;
	int prog;
};

/* func: BPF_FUNC_skc_lookup_tcp or BPF_FUNC_sk_lookup_udp, or any helper of that form. */
static inline struct fact_lookup fact_lookup_new(int func)
{
	struct fact_lookup l = { .cells = fact_cells_new() };

	/* c[0..1] is the tuple; c[4] is set when a socket was found, c[5] is its state, c[6] its port. */
	struct bpf_insn insns[] = {
		BPF_LD_MAP_VALUE(BPF_REG_7, l.cells.fd, 0),
		BPF_LDX_MEM(BPF_DW, BPF_REG_2, BPF_REG_7, 0),
		BPF_STX_MEM(BPF_DW, BPF_REG_10, BPF_REG_2, -16),
		BPF_LDX_MEM(BPF_DW, BPF_REG_2, BPF_REG_7, 8),
		BPF_STX_MEM(BPF_DW, BPF_REG_10, BPF_REG_2, -8),
		BPF_MOV64_REG(BPF_REG_2, BPF_REG_10),
		BPF_ALU64_IMM(BPF_ADD, BPF_REG_2, -16),
		BPF_MOV64_IMM(BPF_REG_3, 12),
		BPF_MOV64_IMM(BPF_REG_4, BPF_F_CURRENT_NETNS),
		BPF_MOV64_IMM(BPF_REG_5, 0),
		BPF_CALL_FUNC(func),
		BPF_JMP_IMM(BPF_JEQ, BPF_REG_0, 0, 7),
		BPF_ST_MEM(BPF_DW, BPF_REG_7, 32, 1),
		BPF_LDX_MEM(BPF_W, BPF_REG_1, BPF_REG_0, offsetof(struct bpf_sock, state)),
		BPF_STX_MEM(BPF_DW, BPF_REG_7, BPF_REG_1, 40),
		BPF_LDX_MEM(BPF_W, BPF_REG_1, BPF_REG_0, offsetof(struct bpf_sock, src_port)),
		BPF_STX_MEM(BPF_DW, BPF_REG_7, BPF_REG_1, 48),
		BPF_MOV64_REG(BPF_REG_1, BPF_REG_0),
		BPF_CALL_FUNC(BPF_FUNC_sk_release),
		BPF_MOV64_IMM(BPF_REG_0, 0),
		BPF_EXIT_INSN(),
	};
	l.prog = FACT_PROG(BPF_PROG_TYPE_SCHED_CLS, insns);
	return l;
}

/* The state of the socket local:lport that talks to remote:rport, as the helper sees it; -1: none. */
static inline int fact_lookup(const struct fact_lookup *l, const char *local, uint16_t lport,
			      const char *remote, uint16_t rport)
{
	struct {
		uint32_t saddr, daddr;
		uint16_t sport, dport;
		uint32_t pad;
	} tuple = { .sport = htons(rport), .dport = htons(lport) };
	uint64_t words[2];

	tuple.saddr = fact_addr(remote, 0).sin_addr.s_addr;
	tuple.daddr = fact_addr(local, 0).sin_addr.s_addr;
	memcpy(words, &tuple, sizeof(words));
	l->cells.c[0] = words[0];
	l->cells.c[1] = words[1];
	l->cells.c[4] = 0;
	fact_run_tc(l->prog, NULL, 1);
	if (!l->cells.c[4])
		return -1;
	if (l->cells.c[6] != lport) {
		fact_check(false, "lookup_port", "asked for port %d, got a socket on %d", lport,
			   (int)l->cells.c[6]);
		exit(1);
	}
	return (int)l->cells.c[5];
}

#endif
