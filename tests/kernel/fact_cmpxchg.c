/* SPDX-License-Identifier: BSD-2-Clause */
/* A 32-bit compare-and-swap on a hash map's value: how a flow is claimed for removal by exactly one. */
#include "fact.h"

int main(void)
{
	uint32_t key = 7, value[2] = { 5, 0xabcd };
	int map, prog, first, second;

	fact_init();
	map = MUST(bpf_map_create(BPF_MAP_TYPE_HASH, "claim", 4, 8, 16, NULL));
	MUST(bpf_map_update_elem(map, &key, value, BPF_ANY));

	/* if (*value == 5) *value = ~0; returns what was there */
	struct bpf_insn insns[] = {
		BPF_ST_MEM(BPF_W, BPF_REG_10, -4, 7),
		BPF_LD_MAP_FD(BPF_REG_1, map),
		BPF_MOV64_REG(BPF_REG_2, BPF_REG_10),
		BPF_ALU64_IMM(BPF_ADD, BPF_REG_2, -4),
		BPF_CALL_FUNC(BPF_FUNC_map_lookup_elem),
		BPF_JMP_IMM(BPF_JNE, BPF_REG_0, 0, 2),
		BPF_MOV64_IMM(BPF_REG_0, 1234),
		BPF_EXIT_INSN(),
		BPF_MOV64_REG(BPF_REG_1, BPF_REG_0),
		BPF_MOV64_IMM(BPF_REG_0, 5),
		BPF_MOV64_IMM(BPF_REG_2, -1),
		BPF_ATOMIC_OP(BPF_W, BPF_CMPXCHG, BPF_REG_1, BPF_REG_2, 0),
		BPF_EXIT_INSN(),
	};
	prog = FACT_PROG(BPF_PROG_TYPE_SCHED_CLS, insns);

	first = fact_run_tc(prog, NULL, 1);
	MUST(bpf_map_lookup_elem(map, &key, value));
	fact_check(first == 5 && value[0] == UINT32_MAX && value[1] == 0xabcd, "cmpxchg_swaps",
		   "returned %d, left %#x and %#x beside it", first, value[0], value[1]);

	value[0] = 6;
	MUST(bpf_map_update_elem(map, &key, value, BPF_ANY));
	second = fact_run_tc(prog, NULL, 1);
	MUST(bpf_map_lookup_elem(map, &key, value));
	fact_check(second == 6 && value[0] == 6, "cmpxchg_refuses", "returned %d, left %#x", second,
		   value[0]);
	return fact_end();
}
