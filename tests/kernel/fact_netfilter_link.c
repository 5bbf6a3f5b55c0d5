/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Links of netfilter programs: in the namespace of whoever makes them, one program for each priority, gone with their descriptor, and never at the place where conntrack confirms. A
 * link keeps its namespace.
 */
#include "fact_netfilter.h"

#include <limits.h>

static int counter(const struct fact_cells *cells, int cell)
{
	struct bpf_insn insns[] = {
		BPF_LD_MAP_VALUE(BPF_REG_1, cells->fd, cell * 8),
		BPF_MOV64_IMM(BPF_REG_2, 1),
		BPF_ATOMIC_OP(BPF_DW, BPF_ADD, BPF_REG_1, BPF_REG_2, 0),
		BPF_MOV64_IMM(BPF_REG_0, NF_ACCEPT),
		BPF_EXIT_INSN(),
	};

	return FACT_NETFILTER(insns);
}

static void refused(int prog, int32_t priority, int want, const char *name)
{
	int link = fact_netfilter_link(prog, priority);

	fact_check(link < 0 && errno == want, name, "returned %d: %s", link, strerror(errno));
	if (link >= 0)
		close(link);
}

/* A namespace whose only holder is the link. With it goes the veth pair that has one end in there. */
static void keeps_namespace(int home, int prog)
{
	int fd = fact_netns_new(), link = MUST(fact_netfilter_link(prog, 101)), ms = 0;

	fact_veth(home, "fact0", fd, "fact1");
	close(fd);
	/* One that nothing keeps is gone by then: they go in the order in which they were left. */
	fd = fact_netns_new();
	fact_veth(home, "fact2", fd, "fact3");
	close(fd);
	while (if_nametoindex("fact2") && ms++ < FACT_PATIENCE_MS)
		poll(NULL, 0, 1);
	fact_check(if_nametoindex("fact0") && !if_nametoindex("fact2"), "keeps_namespace",
		   "fact0 %u, fact2 %u", if_nametoindex("fact0"), if_nametoindex("fact2"));
	close(link);
	for (ms = 0; if_nametoindex("fact0") && ms < FACT_PATIENCE_MS; ms++)
		poll(NULL, 0, 1);
	fact_check(!if_nametoindex("fact0"), "lets_namespace_go", "it is still there");
}

int main(void)
{
	int home = fact_init(), a, b, link, other, elsewhere;
	struct fact_cells cells;
	struct fact_udp udp;

	fact_netfilter_need();
	cells = fact_cells_new();
	a = counter(&cells, 0);
	b = counter(&cells, 1);
	udp = fact_udp_open();

	link = fact_netfilter_link(a, 101);
	if (!fact_check(link >= 0, "create", "%s", strerror(errno)))
		return fact_end();
	fact_udp_send(&udp, 3);
	fact_check(cells.c[0] == 3, "runs", "%d of 3 packets seen", (int)cells.c[0]);

	refused(b, 101, EBUSY, "priority_taken");
	refused(b, INT_MAX, ERANGE, "not_last");
	other = MUST(fact_netfilter_link(b, 102));
	fact_udp_send(&udp, 3);
	fact_check(cells.c[0] == 6 && cells.c[1] == 3, "two_programs", "saw %d and %d",
		   (int)cells.c[0], (int)cells.c[1]);

	elsewhere = fact_netns_new();
	{
		struct fact_udp far = fact_udp_open();

		fact_udp_send(&far, 3);
		fact_check(cells.c[0] == 6, "own_namespace_only", "another's packets were seen");
		close(MUST(fact_netfilter_link(a, 101)));
	}
	fact_netns_enter(home);
	close(elsewhere);

	close(link);
	fact_udp_send(&udp, 3);
	fact_check(cells.c[0] == 6 && cells.c[1] == 6, "close_detaches", "saw %d and %d",
		   (int)cells.c[0], (int)cells.c[1]);
	close(other);
	keeps_namespace(home, a);
	return fact_end();
}
