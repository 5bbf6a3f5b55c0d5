/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sock_diag lists TCP sockets that are only bound when it is asked for state 13 (BOUND_INACTIVE, kernel 6.8 on), and calls their state CLOSE (7).
 * Bits of states that a kernel does not know are ignored. A port that connect() is yet to choose is not there.
 */
#include "fact.h"

#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>

#define BOUND  13
#define CLOSED 7

/* The state that the socket on this local port is listed with; 0: it is not listed; -errno. */
static int state_of(uint16_t port, uint32_t states)
{
	static char buf[65536];
	struct mnl_socket *nl = mnl_socket_open(NETLINK_SOCK_DIAG);
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct inet_diag_req_v2 *req;
	int state = 0;

	MUST(nl ? 0 : -1);
	MUST(mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID));
	nlh->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	req = mnl_nlmsg_put_extra_header(nlh, sizeof(*req));
	req->sdiag_family = AF_INET;
	req->sdiag_protocol = IPPROTO_TCP;
	req->idiag_states = states;
	MUST((int)mnl_socket_sendto(nl, nlh, nlh->nlmsg_len));
	for (bool more = true; more;) {
		int len = MUST((int)mnl_socket_recvfrom(nl, buf, sizeof(buf)));

		for (nlh = (struct nlmsghdr *)buf; mnl_nlmsg_ok(nlh, len);
		     nlh = mnl_nlmsg_next(nlh, &len)) {
			const struct inet_diag_msg *m = mnl_nlmsg_get_payload(nlh);

			if (nlh->nlmsg_type == NLMSG_ERROR)
				state = ((struct nlmsgerr *)mnl_nlmsg_get_payload(nlh))->error;
			if (nlh->nlmsg_type == NLMSG_ERROR || nlh->nlmsg_type == NLMSG_DONE) {
				more = false;
				break;
			}
			if (m->id.idiag_sport == htons(port))
				state = m->idiag_state;
		}
	}
	mnl_socket_close(nl);
	return state;
}

int main(void)
{
	int fd, one = 1, state;

	fact_init();
	fd = fact_socket(SOCK_STREAM, "127.0.0.1", 41000);
	state = state_of(41000, ~(1U << BOUND));
	fact_check(state == 0, "not_without_the_bit", "listed with state %d", state);
	state = state_of(41000, 1U << 31);
	fact_check(state == 0, "unknown_bits_ignored", "returned %d", state);
	state = state_of(41000, 1U << BOUND);
	if (state) {
		fact_check(state == CLOSED, "bound", "listed with state %d", state);
		MUST(listen(fd, 1));
		state = state_of(41000, 1U << BOUND);
		fact_check(state == 0, "listener_is_not", "listed with state %d", state);
	} else {
		fact_skip("bound", "this kernel lists no sockets that are only bound (6.8 on)");
	}

	fd = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	MUST(setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)));
	MUST(fact_bind(fd, "127.0.0.1", 0));
	state = state_of(0, ~0U);
	fact_check(state == 0, "no_port_yet", "listed with state %d", state);
	return fact_end();
}
