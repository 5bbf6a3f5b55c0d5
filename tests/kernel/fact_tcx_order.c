/* SPDX-License-Identifier: BSD-2-Clause */
/* TCX programs run before clsact; -1 lets the later ones run, 0 ends the chain. */
#include "fact.h"

int main(void)
{
	struct fact_cells cells;
	struct fact_udp udp;
	int go_on, stop, link;

	fact_init();
	cells = fact_cells_new();
	udp = fact_udp_open();
	go_on = fact_counter(&cells, 0, -1);
	stop = fact_counter(&cells, 1, 0);

	fact_clsact(fact_counter(&cells, 2, 0), "lo");
	link = fact_tcx(go_on, "lo", "tcx_order");
	if (link < 0)
		return fact_end();

	fact_udp_send(&udp, 4);
	fact_check(cells.c[0] == 4 && cells.c[2] == 4, "tcx_minus_one_continues",
		   "TCX saw %d and clsact %d of 4 packets", (int)cells.c[0], (int)cells.c[2]);

	MUST(bpf_link_update(link, stop, NULL));
	fact_udp_send(&udp, 4);
	fact_check(cells.c[1] == 4 && cells.c[2] == 4, "tcx_zero_ends",
		   "TCX saw %d of 4 packets and clsact %d, expected none", (int)cells.c[1],
		   (int)cells.c[2] - 4);
	return fact_end();
}
