/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the watcher lets the kernel choose: events carry the status of their entry, those of destruction too; a socket filter finds it by its attribute's number and loads it in host order; a
 * null binding that had to give way has IPS_SRC_NAT set, and one that did not has not. With a listener there when the entry was made, it has an event when it goes.
 */
#include "fact_ct.h"

#define FIND(type)                         \
	BPF_STMT(BPF_LDX | BPF_IMM, type), \
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, SKF_AD_OFF + SKF_AD_NLATTR)

int main(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_IMM, NLMSG_HDRLEN + sizeof(struct nfgenmsg)),
		FIND(CTA_STATUS),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 3, 0),
		BPF_STMT(BPF_MISC | BPF_TAX, 0),
		BPF_STMT(BPF_LD | BPF_W | BPF_IND, NLA_HDRLEN),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, IPS_SRC_NAT, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	struct sock_fprog prog = { .len = sizeof(code) / sizeof(*code), .filter = code };
	struct fact_ct c[3] = { 0 }, more;
	int all, some, n;

	if (!fact_ct_init("filter"))
		return fact_end();
	fact_socket(SOCK_DGRAM, FACT_ORIGIN, 9);
	all = fact_ct_open();
	some = fact_ct_open();
	MUST(setsockopt(some, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)));
	for (int i = 0; i < 2; i++) {
		fact_ct_join(i ? some : all, NFNLGRP_CONNTRACK_NEW);
		fact_ct_join(i ? some : all, NFNLGRP_CONNTRACK_DESTROY);
	}

	/* An ordinary socket, a client, and the socket that wants the client's tuple. */
	fact_ct_flow(FACT_SHARED, 42000);
	fact_ct_flow(FACT_CLIENT, 41000);
	fact_ct_flow(FACT_SHARED, 41000);
	for (n = 0; n < 3 && fact_ct_next(all, &c[n]); n++)
		;
	fact_check(n == 3 && c[0].sport == 42000 && c[1].sport == 41000 && c[2].sport == 41000,
		   "new_events", "%d events, of ports %u, %u, %u", n, c[0].sport, c[1].sport,
		   c[2].sport);
	fact_check(c[0].status >= 0 && !(c[0].status & IPS_SRC_NAT) && c[0].wire == 42000,
		   "kept_port_is_no_snat", "status %#llx, wire port %u", (long long)c[0].status,
		   c[0].wire);
	fact_check(c[1].status >= 0 && c[1].status & IPS_SRC_NAT, "client_is_snat", "status %#llx",
		   (long long)c[1].status);
	fact_check(c[2].status >= 0 && c[2].status & IPS_SRC_NAT && c[2].wire != 41000,
		   "null_binding_that_gave_way_is_snat", "status %#llx, wire port %u",
		   (long long)c[2].status, c[2].wire);
	memset(c, 0, sizeof(c));
	for (n = 0; n < 2 && fact_ct_next(some, &c[n]); n++)
		;
	fact_check(n == 2 && c[0].sport == 41000 && c[1].sport == 41000 &&
			   !fact_ct_next(some, &more) && errno == EAGAIN,
		   "filter_by_status", "%d events, of ports %u, %u", n, c[0].sport, c[1].sport);

	/* The whole table goes: the namespace's, that is. */
	fact_sh("conntrack -F >/dev/null 2>&1");
	memset(c, 0, sizeof(c));
	for (n = 0; n < 3 && fact_ct_next(all, &c[n]); n++)
		;
	fact_check(n == 3 && c[0].type == IPCTNL_MSG_CT_DELETE && c[0].status >= 0 &&
			   c[1].status >= 0 && c[2].status >= 0,
		   "destroy_tells_status", "%d events, the first of type %u, status %lld", n,
		   c[0].type, (long long)c[0].status);
	for (n = 0; n < 2 && fact_ct_next(some, &c[n]); n++)
		;
	fact_check(n == 2 && c[0].sport == 41000 && c[1].sport == 41000 &&
			   !fact_ct_next(some, &more),
		   "filter_of_destroy", "%d events, of ports %u, %u", n, c[0].sport, c[1].sport);
	return fact_end();
}
