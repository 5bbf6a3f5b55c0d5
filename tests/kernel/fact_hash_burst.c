/* SPDX-License-Identifier: BSD-2-Clause */
/* A preallocated hash map takes 500,000 inserts back to back, from a program, up to its last entry. */
#include "fact.h"

#define ENTRIES 500000

int main(void)
{
	struct fact_cells cells;
	int map, prog;

	fact_init();
	cells = fact_cells_new();
	/* As large as a flow: 40 bytes of key, 40 of value. */
	map = MUST(bpf_map_create(BPF_MAP_TYPE_HASH, "burst", 40, 40, ENTRIES, NULL));

	/* c[0] counts runs and is the key; c[1] counts refusals; c[2] keeps the last one's code. */
	struct bpf_insn insns[] = {
		BPF_LD_MAP_VALUE(BPF_REG_6, cells.fd, 0),
		BPF_LDX_MEM(BPF_DW, BPF_REG_1, BPF_REG_6, 0),
		BPF_ALU64_IMM(BPF_ADD, BPF_REG_1, 1),
		BPF_STX_MEM(BPF_DW, BPF_REG_6, BPF_REG_1, 0),
		BPF_STX_MEM(BPF_DW, BPF_REG_10, BPF_REG_1, -40),
		BPF_ST_MEM(BPF_DW, BPF_REG_10, -32, 0),
		BPF_ST_MEM(BPF_DW, BPF_REG_10, -24, 0),
		BPF_ST_MEM(BPF_DW, BPF_REG_10, -16, 0),
		BPF_ST_MEM(BPF_DW, BPF_REG_10, -8, 0),
		BPF_LD_MAP_FD(BPF_REG_1, map),
		BPF_MOV64_REG(BPF_REG_2, BPF_REG_10),
		BPF_ALU64_IMM(BPF_ADD, BPF_REG_2, -40),
		BPF_MOV64_REG(BPF_REG_3, BPF_REG_2),
		BPF_MOV64_IMM(BPF_REG_4, BPF_NOEXIST),
		BPF_CALL_FUNC(BPF_FUNC_map_update_elem),
		BPF_JMP_IMM(BPF_JEQ, BPF_REG_0, 0, 4),
		BPF_STX_MEM(BPF_DW, BPF_REG_6, BPF_REG_0, 16),
		BPF_LDX_MEM(BPF_DW, BPF_REG_1, BPF_REG_6, 8),
		BPF_ALU64_IMM(BPF_ADD, BPF_REG_1, 1),
		BPF_STX_MEM(BPF_DW, BPF_REG_6, BPF_REG_1, 8),
		BPF_MOV64_IMM(BPF_REG_0, 0),
		BPF_EXIT_INSN(),
	};
	prog = FACT_PROG(BPF_PROG_TYPE_SCHED_CLS, insns);

	fact_run_tc(prog, NULL, ENTRIES);
	fact_check(cells.c[0] == ENTRIES && cells.c[1] == 0, "hash_burst",
		   "%lld of %lld inserts refused, the last with %lld", (long long)cells.c[1],
		   (long long)cells.c[0], (long long)cells.c[2]);
	fact_run_tc(prog, NULL, 1);
	fact_check(cells.c[1] == 1 && (int32_t)cells.c[2] == -E2BIG, "hash_full",
		   "one more gave %d, expected %d", (int32_t)cells.c[2], -E2BIG);

	/* An existing key is told apart from a full map: NOEXIST is the arbiter of a flow. */
	cells.c[0] = 0;
	fact_run_tc(prog, NULL, 1);
	fact_check((int32_t)cells.c[2] == -EEXIST, "hash_noexist", "gave %d, expected %d",
		   (int32_t)cells.c[2], -EEXIST);
	return fact_end();
}
