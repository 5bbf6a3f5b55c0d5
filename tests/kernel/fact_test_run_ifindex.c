/* SPDX-License-Identifier: BSD-2-Clause */
/* BPF_PROG_TEST_RUN of a TC program takes ingress_ifindex from the context: forwarded packets can be told. */
#include <stddef.h>

#include "fact.h"

int main(void)
{
	struct __sk_buff ctx = { 0 };
	int prog, saw;

	fact_init();
	struct bpf_insn insns[] = {
		BPF_LDX_MEM(BPF_W, BPF_REG_0, BPF_REG_1,
			    offsetof(struct __sk_buff, ingress_ifindex)),
		BPF_EXIT_INSN(),
	};
	prog = FACT_PROG(BPF_PROG_TYPE_SCHED_CLS, insns);

	saw = fact_run_tc(prog, &ctx, 1);
	fact_check(saw == 0, "ingress_ifindex_zero", "the program saw %d", saw);
	ctx.ingress_ifindex = 4242;
	saw = fact_run_tc(prog, &ctx, 1);
	fact_check(saw == 4242, "ingress_ifindex_given", "gave 4242, the program saw %d", saw);
	return fact_end();
}
