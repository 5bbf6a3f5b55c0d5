/* SPDX-License-Identifier: BSD-2-Clause */
/* Without TCX: clsact holds a program by itself, handle and priority name it, and replacing keeps counting. */
#include "fact.h"

int main(void)
{
	struct fact_cells cells;
	struct fact_udp udp;
	int a, b;

	fact_init();
	cells = fact_cells_new();
	udp = fact_udp_open();
	a = fact_counter(&cells, 0, 0);
	b = fact_counter(&cells, 1, 0);

	fact_clsact(a, "lo");
	close(a);
	fact_udp_send(&udp, 3);
	fact_check(cells.c[0] == 3, "clsact_attach", "%d of 3 packets seen", (int)cells.c[0]);

	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)if_nametoindex("lo"),
		    .attach_point = BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = b, .handle = 1, .priority = 1);
	int rc = bpf_tc_attach(&hook, &opts);

	fact_check(rc == -EEXIST, "clsact_taken", "a second attach returned %d, expected -EEXIST",
		   rc);
	opts.prog_id = 0;
	opts.flags = BPF_TC_F_REPLACE;
	rc = bpf_tc_attach(&hook, &opts);
	fact_check(rc == 0, "clsact_replace", "returned %d (%s)", rc, strerror(-rc));
	fact_udp_send(&udp, 3);
	fact_check(cells.c[0] == 3 && cells.c[1] == 3, "clsact_replaced",
		   "old program saw %d, new one %d", (int)cells.c[0], (int)cells.c[1]);
	return fact_end();
}
