/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Asking sock_diag for one socket by its place (no NLM_F_DUMP), with IPv4 sockets:
 * - TCP finds connections in any state from SYN_SENT to TIME_WAIT, whose inode is 0 then; where there is none, the listener.
 * - UDP wants source and destination of the packet that would arrive: the other way round than TCP. Connected before bound, bound before wildcard; the wildcard address finds the wildcard socket.
 * - A socket that is bound to a device is not found without its number.
 * - SOCK_DESTROY takes the socket's own source and destination for both, ends it with ECONNABORTED, and compares the cookie.
 * - A socket's end is noticed in the group of its family and protocol, with its cookie; a TCP socket ends when TIME_WAIT begins, which has its cookie.
 */
#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <poll.h>

#include "fact.h"

#define FROM   "127.0.0.1"
#define TO     "127.0.0.2"
#define DEVICE "lo"

enum { ESTABLISHED = 1, SYN_SENT = 2, TIME_WAIT = 6, LISTENING = 10 };

static struct mnl_socket *nl;

struct place {
	const char *src, *dst;
	int sport, dport, ifindex;
};

/* 0 or -errno; *ret: the answer. */
static int ask(int type, int protocol, struct place p, __u64 cookie, struct inet_diag_msg *ret)
{
	char buf[8192] __attribute__((aligned(8)));
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct inet_diag_req_v2 *req;
	const struct nlmsgerr *e;

	nlh->nlmsg_type = (__u16)type;
	nlh->nlmsg_flags = NLM_F_REQUEST | (type == SOCK_DESTROY ? NLM_F_ACK : 0);
	req = mnl_nlmsg_put_extra_header(nlh, sizeof(*req));
	req->sdiag_family = AF_INET;
	req->sdiag_protocol = (__u8)protocol;
	req->idiag_states = ~0U;
	inet_pton(AF_INET, p.src, req->id.idiag_src);
	inet_pton(AF_INET, p.dst, req->id.idiag_dst);
	req->id.idiag_sport = htons((__u16)p.sport);
	req->id.idiag_dport = htons((__u16)p.dport);
	req->id.idiag_if = (__u32)p.ifindex;
	req->id.idiag_cookie[0] = (__u32)cookie;
	req->id.idiag_cookie[1] = (__u32)(cookie >> 32);
	MUST((int)mnl_socket_sendto(nl, nlh, nlh->nlmsg_len));
	MUST((int)mnl_socket_recvfrom(nl, buf, sizeof(buf)));
	if (nlh->nlmsg_type == NLMSG_ERROR) {
		e = mnl_nlmsg_get_payload(nlh);
		return e->error;
	}
	memcpy(ret, mnl_nlmsg_get_payload(nlh), sizeof(*ret));
	return 0;
}

static __u64 cookie_of(int fd)
{
	__u64 cookie = 0;
	socklen_t len = sizeof(cookie);

	MUST(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len));
	return cookie;
}

static __u64 cookie_in(const struct inet_diag_msg *m)
{
	return (__u64)m->id.idiag_cookie[1] << 32 | m->id.idiag_cookie[0];
}

/* Is it there, the socket that we mean? fd -1: nobody is. */
static void expect(const char *name, int protocol, struct place p, int fd, int state)
{
	struct inet_diag_msg m = { 0 };
	int r = ask(SOCK_DIAG_BY_FAMILY, protocol, p, ~0ULL, &m);

	if (fd < 0)
		fact_check(r == -ENOENT, name, "returned %d, state %d", r, m.idiag_state);
	else
		fact_check(!r && cookie_in(&m) == cookie_of(fd) && m.idiag_state == state, name,
			   "returned %d, state %d", r, m.idiag_state);
}

static void connect_to(int fd, const char *ip, int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((__u16)port) };

	inet_pton(AF_INET, ip, &a.sin_addr);
	MUST(connect(fd, (struct sockaddr *)&a, sizeof(a)));
}

static void tcp(void)
{
	struct place p = { FROM, TO, 41000, 8080, 0 };
	int l = fact_socket(SOCK_STREAM, TO, 8080), c = fact_socket(SOCK_STREAM, FROM, 41000), s;
	struct inet_diag_msg m = { 0 };
	int r = -1;

	MUST(listen(l, 1));
	connect_to(c, TO, 8080);
	expect("tcp_connection", IPPROTO_TCP, p, c, ESTABLISHED);
	expect("tcp_listener", IPPROTO_TCP, (struct place){ TO, FROM, 8080, 41001, 0 }, l,
	       LISTENING);
	s = MUST(accept(l, NULL, NULL));
	close(c);
	close(s);
	for (int i = 0; i < FACT_PATIENCE_MS && m.idiag_state != TIME_WAIT; i++) {
		r = ask(SOCK_DIAG_BY_FAMILY, IPPROTO_TCP, p, ~0ULL, &m);
		usleep(1000);
	}
	fact_check(!r && m.idiag_state == TIME_WAIT && !m.idiag_inode, "tcp_time_wait",
		   "returned %d, state %d, inode %u", r, m.idiag_state, m.idiag_inode);
	close(l);
}

static void udp(void)
{
	int con = fact_socket(SOCK_DGRAM, FROM, 42000),
	    wild = fact_socket(SOCK_DGRAM, "0.0.0.0", 42001);
	int bound = fact_socket(SOCK_DGRAM, FROM, 42002);

	connect_to(con, TO, 53);
	expect("udp_swapped", IPPROTO_UDP, (struct place){ TO, FROM, 53, 42000, 0 }, con,
	       ESTABLISHED);
	expect("udp_not_straight", IPPROTO_UDP, (struct place){ FROM, TO, 42000, 53, 0 }, -1, 0);
	expect("udp_other_peer", IPPROTO_UDP, (struct place){ TO, FROM, 54, 42000, 0 }, -1, 0);
	expect("udp_wildcard", IPPROTO_UDP, (struct place){ TO, FROM, 53, 42001, 0 }, wild, 7);
	expect("udp_by_wildcard", IPPROTO_UDP, (struct place){ TO, "0.0.0.0", 53, 42001, 0 }, wild,
	       7);
	expect("udp_not_by_wildcard", IPPROTO_UDP, (struct place){ TO, "0.0.0.0", 53, 42002, 0 },
	       -1, 0);
	expect("udp_bound", IPPROTO_UDP, (struct place){ TO, FROM, 53, 42002, 0 }, bound, 7);
	MUST(setsockopt(bound, SOL_SOCKET, SO_BINDTODEVICE, DEVICE, sizeof(DEVICE)));
	expect("device_not_without", IPPROTO_UDP, (struct place){ TO, FROM, 53, 42002, 0 }, -1, 0);
	expect("device_with", IPPROTO_UDP,
	       (struct place){ TO, FROM, 53, 42002, (int)if_nametoindex(DEVICE) }, bound, 7);
	close(con);
	close(wild);
	close(bound);
}

static void destroy(void)
{
	struct place p = { FROM, TO, 43000, 53, 0 };
	struct inet_diag_msg m;
	int fd = fact_socket(SOCK_DGRAM, FROM, 43000), r;
	char byte;

	connect_to(fd, TO, 53);
	r = ask(SOCK_DESTROY, IPPROTO_UDP, p, cookie_of(fd) + 1, &m);
	if (r == -EOPNOTSUPP) {
		fact_skip("destroy", "CONFIG_INET_DIAG_DESTROY is not set");
		close(fd);
		return;
	}
	fact_check(r == -ESTALE || r == -ENOENT, "destroy_cookie", "returned %d", r);
	r = ask(SOCK_DESTROY, IPPROTO_UDP, p, cookie_of(fd), &m);
	fact_check(!r, "destroy", "returned %d", r);
	r = (int)recv(fd, &byte, 1, MSG_DONTWAIT);
	fact_check(r < 0 && errno == ECONNABORTED, "destroy_aborts", "recv returned %d, %s", r,
		   strerror(errno));
	close(fd);
}

/* A notice that such a socket has ended. */
static bool noticed(struct mnl_socket *ends, __u64 cookie)
{
	struct pollfd p = { .fd = mnl_socket_get_fd(ends), .events = POLLIN };
	char buf[8192] __attribute__((aligned(8)));

	while (poll(&p, 1, FACT_PATIENCE_MS) == 1) {
		int len = MUST((int)mnl_socket_recvfrom(ends, buf, sizeof(buf)));
		const struct nlmsghdr *nlh = (struct nlmsghdr *)buf;

		if (mnl_nlmsg_ok(nlh, len) && nlh->nlmsg_type == SOCK_DIAG_BY_FAMILY &&
		    cookie_in(mnl_nlmsg_get_payload(nlh)) == cookie)
			return true;
	}
	return false;
}

static void ends(void)
{
	int groups[] = { SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET_UDP_DESTROY };
	struct mnl_socket *e = mnl_socket_open(NETLINK_SOCK_DIAG);
	int l = fact_socket(SOCK_STREAM, TO, 8081), c, s;
	struct inet_diag_msg m = { 0 };
	__u64 cookie;

	MUST(e ? 0 : -1);
	MUST(mnl_socket_bind(e, 0, MNL_SOCKET_AUTOPID));
	for (int i = 0; i < 2; i++)
		MUST(mnl_socket_setsockopt(e, NETLINK_ADD_MEMBERSHIP, &groups[i], sizeof(int)));
	s = fact_socket(SOCK_DGRAM, FROM, 44000);
	cookie = cookie_of(s);
	close(s);
	fact_check(noticed(e, cookie), "ends_udp", "no notice");

	MUST(listen(l, 1));
	c = fact_socket(SOCK_STREAM, FROM, 44001);
	connect_to(c, TO, 8081);
	s = MUST(accept(l, NULL, NULL));
	cookie = cookie_of(c);
	close(c);
	close(s);
	fact_check(noticed(e, cookie), "ends_time_wait", "no notice");
	ask(SOCK_DIAG_BY_FAMILY, IPPROTO_TCP, (struct place){ FROM, TO, 44001, 8081, 0 }, ~0ULL,
	    &m);
	fact_check(m.idiag_state == TIME_WAIT && cookie_in(&m) == cookie, "time_wait_cookie",
		   "state %d, the cookie is %s", m.idiag_state,
		   cookie_in(&m) == cookie ? "the same" : "another");
	close(l);
	mnl_socket_close(e);
}

int main(void)
{
	fact_init();
	nl = mnl_socket_open(NETLINK_SOCK_DIAG);
	MUST(nl ? 0 : -1);
	MUST(mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID));
	tcp();
	udp();
	destroy();
	ends();
	mnl_socket_close(nl);
	return fact_end();
}
