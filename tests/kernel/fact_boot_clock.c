/* SPDX-License-Identifier: BSD-2-Clause */
/* bpf_ktime_get_boot_ns() is CLOCK_BOOTTIME: a deadline that we compute means the same to a program. */
#include <time.h>

#include "fact.h"

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int main(void)
{
	struct fact_cells cells;
	uint64_t before, after;
	int prog;

	fact_init();
	cells = fact_cells_new();
	struct bpf_insn insns[] = {
		BPF_CALL_FUNC(BPF_FUNC_ktime_get_boot_ns),
		BPF_LD_MAP_VALUE(BPF_REG_1, cells.fd, 0),
		BPF_STX_MEM(BPF_DW, BPF_REG_1, BPF_REG_0, 0),
		BPF_MOV64_IMM(BPF_REG_0, 0),
		BPF_EXIT_INSN(),
	};
	prog = FACT_PROG(BPF_PROG_TYPE_SCHED_CLS, insns);

	before = now_ns();
	fact_run_tc(prog, NULL, 1);
	after = now_ns();
	fact_check(before <= cells.c[0] && cells.c[0] <= after, "boot_clock",
		   "%llu is not between %llu and %llu", (unsigned long long)cells.c[0],
		   (unsigned long long)before, (unsigned long long)after);
	return fact_end();
}
