/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A socket's uid is that of its descriptor's inode: who made it at first, and after fchown() somebody else, also while it is bound. That is what
 * TC programs see (bpf_get_socket_uid).
 */
#include "fact.h"

#include <sys/stat.h>

int main(void)
{
	struct fact_cells cells;
	struct fact_udp u;
	struct stat st;
	int prog;

	fact_init();
	cells = fact_cells_new();
	{
		struct bpf_insn insns[] = {
			BPF_CALL_FUNC(BPF_FUNC_get_socket_uid),
			BPF_LD_MAP_VALUE(BPF_REG_1, cells.fd, 0),
			BPF_STX_MEM(BPF_DW, BPF_REG_1, BPF_REG_0, 0),
			BPF_MOV64_IMM(BPF_REG_0, -1),
			BPF_EXIT_INSN(),
		};

		prog = FACT_PROG(BPF_PROG_TYPE_SCHED_CLS, insns);
	}
	fact_clsact(prog, "lo");

	u = fact_udp_open();
	cells.c[0] = 99;
	fact_udp_send(&u, 1);
	fact_check(cells.c[0] == 0, "maker", "uid %llu", (unsigned long long)cells.c[0]);
	MUST(fchown(u.tx, 4711, (gid_t)-1));
	fact_udp_send(&u, 1);
	fact_check(cells.c[0] == 4711, "fchown", "uid %llu", (unsigned long long)cells.c[0]);
	MUST(fstat(u.tx, &st));
	fact_check(st.st_uid == 4711, "fstat", "uid %u", st.st_uid);

	/* Without CAP_CHOWN nobody gives a socket away, not even its owner. */
	MUST(setresuid(4711, 4711, 0));
	fact_check(fchown(u.tx, 4712, (gid_t)-1) < 0 && errno == EPERM, "not_by_owner", "%s",
		   strerror(errno));
	MUST(setresuid(0, 0, 0));
	return fact_end();
}
