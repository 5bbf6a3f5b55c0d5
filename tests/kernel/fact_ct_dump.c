/* SPDX-License-Identifier: BSD-2-Clause */
/* A dump of connection tracking can be asked for by status (kernel 5.15 on), and sends nothing else then. */
#include "fact_ct.h"

int main(void)
{
	struct {
		struct nlmsghdr h;
		struct nfgenmsg g;
		struct {
			struct nlattr a;
			uint32_t be;
		} status, mask;
	} ask = {
		.h = { .nlmsg_len = sizeof(ask),
		       .nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET,
		       .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
		       .nlmsg_seq = 1 },
		.status = { { 8, CTA_STATUS }, htonl(IPS_SRC_NAT) },
		.mask = { { 8, CTA_STATUS_MASK }, htonl(IPS_SRC_NAT) },
	};
	static uint8_t buf[65536] __attribute__((aligned(8)));
	unsigned translated = 0, others = 0;
	bool done = false;
	int fd;

	if (!fact_ct_init("dump"))
		return fact_end();
	fact_socket(SOCK_DGRAM, FACT_ORIGIN, 9);
	for (uint16_t i = 0; i < 50; i++) {
		fact_ct_flow(FACT_SHARED, (uint16_t)(42000 + i));
		fact_ct_flow(FACT_CLIENT, (uint16_t)(41000 + i));
	}
	fact_ct_flow(FACT_SHARED, 41000);
	fd = fact_ct_open();
	MUST((int)send(fd, &ask, sizeof(ask), 0));
	while (!done) {
		ssize_t got = MUST((int)recv(fd, buf, sizeof(buf), 0));

		for (size_t at = 0; at + sizeof(struct nlmsghdr) <= (size_t)got;) {
			static struct fact_ct_msg m;
			struct nlmsghdr h;

			memcpy(&h, buf + at, sizeof(h));
			memcpy(&m, buf + at, h.nlmsg_len < sizeof(m) ? h.nlmsg_len : sizeof(m));
			at += NLMSG_ALIGN(h.nlmsg_len);
			if (h.nlmsg_type == NLMSG_DONE || h.nlmsg_type == NLMSG_ERROR)
				done = true;
			else if (fact_ct_read(&m, h.nlmsg_len).status & IPS_SRC_NAT)
				translated++;
			else
				others++;
		}
	}
	if (translated == 51 && others >= 50) {
		fact_skip("dump_by_status", "this kernel sends all (5.15 on it chooses)");
		return fact_end();
	}
	fact_check(translated == 51 && !others, "dump_by_status",
		   "%u translated entries, not 51, and %u others", translated, others);
	return fact_end();
}
