/* SPDX-License-Identifier: BSD-2-Clause */
/* The values of an mmapable array are the ones that programs see: no system call to publish a row. */
#include "fact.h"

int main(void)
{
	struct fact_cells cells;
	int prog;

	fact_init();
	cells = fact_cells_new();
	struct bpf_insn insns[] = {
		BPF_LD_MAP_VALUE(BPF_REG_1, cells.fd, 0),
		BPF_LDX_MEM(BPF_DW, BPF_REG_0, BPF_REG_1, 0),
		BPF_MOV64_REG(BPF_REG_2, BPF_REG_0),
		BPF_ALU64_IMM(BPF_ADD, BPF_REG_2, 1),
		BPF_STX_MEM(BPF_DW, BPF_REG_1, BPF_REG_2, 8),
		BPF_EXIT_INSN(),
	};
	prog = FACT_PROG(BPF_PROG_TYPE_SCHED_CLS, insns);

	for (int i = 1; i <= 3; i++) {
		int saw;

		cells.c[0] = (uint64_t)i * 100;
		saw = fact_run_tc(prog, NULL, 1);
		if (saw != i * 100 || cells.c[1] != (uint64_t)i * 100 + 1) {
			fact_check(false, "mmap_array",
				   "stored %d, the program saw %d; it stored %d, we saw %d",
				   i * 100, saw, saw + 1, (int)cells.c[1]);
			return fact_end();
		}
	}
	fact_check(true, "mmap_array", " ");
	return fact_end();
}
