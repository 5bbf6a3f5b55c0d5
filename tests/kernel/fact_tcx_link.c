/* SPDX-License-Identifier: BSD-2-Clause */
/* TCX links: pinned they outlive their descriptor, they are swapped at once, and die with the interface. */
#include "fact.h"

static void try_update(int link, int new_prog, int old_prog, int want, const char *name)
{
	LIBBPF_OPTS(bpf_link_update_opts, opts, .flags = BPF_F_REPLACE, .old_prog_fd = old_prog);
	int rc = bpf_link_update(link, new_prog, &opts);

	fact_check(rc == want, name, "returned %d (%s), expected %d", rc, strerror(-rc), want);
}

static void try_swap(struct fact_cells *cells, int a, int b)
{
	struct fact_udp udp = fact_udp_open();
	int link = fact_tcx(a, "lo", "tcx_create");

	if (link < 0)
		exit(fact_end());
	fact_udp_send(&udp, 3);
	fact_check(cells->c[0] == 3, "tcx_create", "%d of 3 packets seen", (int)cells->c[0]);

	MUST(bpf_obj_pin(link, FACT_BPFFS "/link"));
	close(link);
	fact_udp_send(&udp, 3);
	fact_check(cells->c[0] == 6, "tcx_pin_holds", "%d of 6 packets seen", (int)cells->c[0]);

	link = MUST(bpf_obj_get(FACT_BPFFS "/link"));
	try_update(link, b, a, 0, "tcx_replace");
	fact_udp_send(&udp, 3);
	fact_check(cells->c[0] == 6 && cells->c[1] == 3, "tcx_replaced",
		   "old program saw %d, new one %d", (int)cells->c[0], (int)cells->c[1]);
	try_update(link, b, a, -EPERM, "tcx_replace_wrong_old");

	MUST(unlink(FACT_BPFFS "/link"));
	close(link);
	fact_udp_send(&udp, 3);
	fact_check(cells->c[1] == 3, "tcx_unpin_detaches", "the program still saw %d packets",
		   (int)cells->c[1] - 3);
}

static void try_dead(int a, int b)
{
	int link;

	fact_sh("ip link add fact0 type veth peer name fact1");
	link = MUST(fact_tcx(a, "fact0", "tcx_dead"));
	MUST(bpf_obj_pin(link, FACT_BPFFS "/dead"));
	fact_sh("ip link del fact0");
	try_update(link, b, a, -ENOLINK, "tcx_dead");
	close(link);

	/* The way out: unlink the pin, attach to the new interface of that name, pin there. */
	fact_sh("ip link add fact0 type veth peer name fact1");
	MUST(unlink(FACT_BPFFS "/dead"));
	link = MUST(fact_tcx(b, "fact0", "tcx_attach_anew"));
	fact_check(!bpf_obj_pin(link, FACT_BPFFS "/dead"), "tcx_attach_anew", "pin: %s",
		   strerror(errno));
}

int main(void)
{
	struct fact_cells cells;
	int a, b;

	fact_init();
	cells = fact_cells_new();
	a = fact_counter(&cells, 0, -1);
	b = fact_counter(&cells, 1, -1);
	try_swap(&cells, a, b);
	try_dead(a, b);
	return fact_end();
}
