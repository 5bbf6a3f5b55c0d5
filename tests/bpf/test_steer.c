/* SPDX-License-Identifier: BSD-2-Clause */
/* What sk_lookup lets through to which socket, with real sockets (see sockets.h), on loopback, from inside, and from an uplink. */
#include "sockets.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>

static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
static const char *const families[] = { SHARED_IP4, SHARED_IP6 };

static enum sluice_l4 l4_of_type(int type)
{
	return type == SOCK_STREAM ? SLUICE_TCP : SLUICE_UDP;
}

static const char *loopback_of(const char *ip)
{
	return strchr(ip, ':') ? "::1" : "127.0.0.1";
}

static struct dp *begin(void)
{
	struct dp *dp = open_scene();

	attach(dp, NULL);
	return dp;
}

/* A lease's socket stands elsewhere, under another port, and gets what arrives at the leased one, wherever that comes from. */
static void test_elsewhere(void **state)
{
	struct dp *dp = begin();

	(void)state;
	foreach (f, families) {
		foreach (t, types) {
			uint32_t slot = (uint32_t)(2 * f + t);
			uint16_t port = (uint16_t)(FIRST + 100 + slot);
			int fd = stand(types[t], loopback_of(families[f]), (uint16_t)(7000 + slot));

			lease_port(dp, families[f], port, l4_of_type(types[t]),
				   SLUICE_LEASE_EXCLUSIVE, slot + 1);
			/* Its place is still empty. */
			refused(types[t], ns_machine, families[f], port);
			steer_set(dp, slot, fd);
			assert_int_equal(dp_steer_cookie(dp, slot), cookie_of(fd));
			reaches(types[t], ns_machine, families[f], port, fd);
			reaches(types[t], ns_inside, families[f], port, fd);
			reaches(types[t], ns_outside, families[f], port, fd);
			/* It still has its own address. */
			reaches(types[t], ns_machine, loopback_of(families[f]),
				(uint16_t)(7000 + slot), fd);
			/* The port next to it, and the other protocol's, are not it. */
			refused(types[t], ns_machine, families[f], (uint16_t)(port + 10));
			refused(types[!t], ns_machine, families[f], port);
			/* Whoever stands at the leased port itself yields. */
			int own = stand(types[t], families[f], port);

			reaches(types[t], ns_inside, families[f], port, fd);
			assert_untouched(own);
			/* Closed: it has left its place, and what is bound to the port is reached. */
			close(fd);
			wait_for(!dp_steer_cookie(dp, slot));
			reaches(types[t], ns_inside, families[f], port, own);
			close(own);
			refused(types[t], ns_inside, families[f], port);
		}
	}
	must_close(dp);
}

/* One that can't take the packet, being of another family or protocol, is as good as none. */
static void test_unfit(void **state)
{
	struct dp *dp = begin();
	int v6 = stand(SOCK_STREAM, "::1", 7000), udp = stand(SOCK_DGRAM, "127.0.0.1", 7000);
	int own = stand(SOCK_STREAM, SHARED_IP4, FIRST + 1);

	(void)state;
	steer_set(dp, 0, v6);
	steer_set(dp, 1, udp);
	for (uint16_t i = 0; i < 2; i++)
		lease_port(dp, SHARED_IP4, (uint16_t)(FIRST + i), SLUICE_TCP,
			   SLUICE_LEASE_EXCLUSIVE, i + 1u);
	refused(SOCK_STREAM, ns_machine, SHARED_IP4, FIRST);
	reaches(SOCK_STREAM, ns_machine, SHARED_IP4, FIRST + 1, own);
	assert_untouched(v6);
	assert_untouched(udp);
	/* A number that no slot has. */
	lease_port(dp, SHARED_IP4, FIRST + 1, SLUICE_TCP, SLUICE_LEASE_EXCLUSIVE,
		   SLUICE_MAX_STEERED + 1);
	reaches(SOCK_STREAM, ns_machine, SHARED_IP4, FIRST + 1, own);
	close(v6);
	close(udp);
	close(own);
	must_close(dp);
}

/* Wildcard listeners, in every port range: reachable by the machine's own addresses, not by the shared ones. */
static void test_wildcard(void **state)
{
	static const uint16_t ports[] = { 22, FIRST - 1, FIRST, LAST, LAST + 1, 65535 };
	struct dp *dp = begin();

	(void)state;
	foreach (p, ports) {
		foreach (t, types) {
			/* For both families. */
			int fd = stand(types[t], "::", ports[p]);

			foreach (f, families) {
				refused(types[t], ns_machine, families[f], ports[p]);
				refused(types[t], ns_inside, families[f], ports[p]);
			}
			assert_untouched(fd);
			reaches(types[t], ns_machine, "::1", ports[p], fd);
			reaches(types[t], ns_inside, "10.1.0.1", ports[p], fd);
			reaches(types[t], ns_outside, "2001:db8:51::1", ports[p], fd);
			close(fd);
		}
	}
	must_close(dp);
}

/* Sockets at the shared address itself: leased or not. */
static void test_bound(void **state)
{
	struct dp *dp = begin();

	(void)state;
	foreach (f, families) {
		foreach (t, types) {
			int fd = stand(types[t], families[f], FIRST + 7);

			refused(types[t], ns_machine, families[f], FIRST + 7);
			refused(types[t], ns_inside, families[f], FIRST + 7);
			/* There the guard decides. */
			reaches(types[t], ns_outside, families[f], FIRST + 7, fd);

			lease_port(dp, families[f], FIRST + 7, l4_of_type(types[t]),
				   SLUICE_LEASE_EXCLUSIVE, 0);
			reaches(types[t], ns_machine, families[f], FIRST + 7, fd);
			reaches(types[t], ns_inside, families[f], FIRST + 7, fd);
			reaches(types[t], ns_outside, families[f], FIRST + 7, fd);

			/* Leased for connections: nothing listens there in TCP. */
			lease_port(dp, families[f], FIRST + 7, l4_of_type(types[t]),
				   SLUICE_LEASE_SHARED, 0);
			if (types[t] == SOCK_STREAM)
				refused(types[t], ns_inside, families[f], FIRST + 7);
			else
				reaches(types[t], ns_inside, families[f], FIRST + 7, fd);
			close(fd);
		}
	}
	must_close(dp);
}

/* Which interfaces are uplinks may change. */
static void test_uplinks(void **state)
{
	unsigned list[SLUICE_MAX_UPLINKS + 1], up = if_nametoindex("up0");
	struct errtext err = { "" };
	struct dp *dp = begin();
	int fd = stand(SOCK_DGRAM, SHARED_IP4, FIRST);

	(void)state;
	reaches(SOCK_DGRAM, ns_outside, SHARED_IP4, FIRST, fd);
	assert_int_equal(dp_socket_uplinks(dp, NULL, 0, &err), 0);
	refused(SOCK_DGRAM, ns_outside, SHARED_IP4, FIRST);
	for (unsigned i = 0; i <= SLUICE_MAX_UPLINKS; i++)
		list[i] = 1000 * i + 7;
	assert_int_equal(dp_socket_uplinks(dp, list, SLUICE_MAX_UPLINKS, &err), 0);
	refused(SOCK_DGRAM, ns_outside, SHARED_IP4, FIRST);
	assert_int_equal(dp_socket_uplinks(dp, list, SLUICE_MAX_UPLINKS + 1, &err), -ENOSPC);
	assert_non_null(strstr(err.s, "9 uplinks"));
	/* All others, at once. */
	for (unsigned i = 0; i < SLUICE_MAX_UPLINKS; i++)
		list[i] = 1000 * i + 8;
	list[3] = up;
	assert_int_equal(dp_socket_uplinks(dp, list, SLUICE_MAX_UPLINKS, &err), 0);
	reaches(SOCK_DGRAM, ns_outside, SHARED_IP4, FIRST, fd);
	refused(SOCK_DGRAM, ns_inside, SHARED_IP4, FIRST);
	close(fd);
	must_close(dp);
}

/* Connections that began before, and what replies to a socket's own, are not sk_lookup's. */
static void test_connected(void **state)
{
	union endpoint shared = endpoint(SHARED_IP4, FIRST + 3), peer, near;
	socklen_t len = sizeof(near);
	int far, local, listener, a;
	struct dp *dp = begin();
	char byte;

	(void)state;
	/* Unleased, connected, inside: the peer's datagram comes back. */
	far = socket_in(ns_inside, AF_INET, SOCK_DGRAM);
	peer = endpoint("10.1.0.2", 5000);
	assert_int_equal(bind(far, &peer.sa, sizeof(peer.v4)), 0);
	assert_int_equal(connect(far, &shared.sa, sizeof(shared.v4)), 0);
	local = stand(SOCK_DGRAM, SHARED_IP4, FIRST + 3);
	assert_int_equal(connect(local, &peer.sa, sizeof(peer.v4)), 0);
	assert_int_equal(send(local, "a", 1, 0), 1);
	assert_int_equal(recv(far, &byte, 1, 0), 1);
	assert_int_equal(send(far, "b", 1, 0), 1);
	assert_int_equal(recv(local, &byte, 1, 0), 1);
	close(far);
	close(local);

	/* A lease and its socket go, the connections that it accepted stay. */
	listener = stand(SOCK_STREAM, "127.0.0.1", 7000);
	lease_port(dp, SHARED_IP4, FIRST + 3, SLUICE_TCP, SLUICE_LEASE_EXCLUSIVE, 1);
	steer_set(dp, 0, listener);
	far = socket_in(ns_outside, AF_INET, SOCK_STREAM);
	assert_int_equal(connect(far, &shared.sa, sizeof(shared.v4)), 0);
	a = accept4(listener, &near.sa, &len, SOCK_CLOEXEC);
	assert_true(a >= 0);
	dp_steer_clear(dp, 0);
	close(listener);
	assert_int_equal(send(far, "c", 1, 0), 1);
	assert_int_equal(recv(a, &byte, 1, 0), 1);
	assert_int_equal(send(a, "d", 1, 0), 1);
	assert_int_equal(recv(far, &byte, 1, 0), 1);
	close(a);
	close(far);
	refused(SOCK_STREAM, ns_inside, SHARED_IP4, FIRST + 3);
	must_close(dp);
}

/* Asks sock_diag who would get what arrives at ip and port: 0, or an error. */
static int diag_ask(int type, const char *ip, uint16_t port)
{
	struct {
		struct nlmsghdr h;
		struct inet_diag_req_v2 r;
	} req = {
		.h = { .nlmsg_len = sizeof(req),
		       .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		       .nlmsg_flags = NLM_F_REQUEST },
		.r = { .sdiag_protocol = type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP,
		       .idiag_states = ~0U,
		       .id = { .idiag_sport = htons(port),
			       .idiag_cookie = { INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE } } },
	};
	union endpoint e = endpoint(ip, port);
	union {
		struct nlmsghdr h;
		char room[8192];
	} answer;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

	req.r.sdiag_family = (uint8_t)e.sa.sa_family;
	if (e.sa.sa_family == AF_INET)
		req.r.id.idiag_src[0] = e.v4.sin_addr.s_addr;
	else
		memcpy(req.r.id.idiag_src, &e.v6.sin6_addr, sizeof(req.r.id.idiag_src));
	/* The kernel takes the ends the other way round in UDP (udp_dump_one()). */
	if (type == SOCK_DGRAM) {
		memcpy(req.r.id.idiag_dst, req.r.id.idiag_src, sizeof(req.r.id.idiag_dst));
		memset(req.r.id.idiag_src, 0, sizeof(req.r.id.idiag_src));
		req.r.id.idiag_dport = req.r.id.idiag_sport;
		req.r.id.idiag_sport = 0;
	}
	if (send(fd, &req, sizeof(req), 0) != sizeof(req) ||
	    recv(fd, &answer, sizeof(answer), 0) < (ssize_t)sizeof(answer.h))
		die("sock_diag: %s", strerror(errno));
	close(fd);
	return answer.h.nlmsg_type == NLMSG_ERROR
		       ? ((struct nlmsgerr *)NLMSG_DATA(&answer.h))->error
		       : 0;
}

/* Questions are answered as ever: they have no interface. */
static void test_questions(void **state)
{
	struct dp *dp = begin();

	(void)state;
	foreach (f, families) {
		foreach (t, types) {
			int fd = stand(types[t], families[f], FIRST + 9);

			assert_int_equal(diag_ask(types[t], families[f], FIRST + 9), 0);
			refused(types[t], ns_machine, families[f], FIRST + 9);
			close(fd);
			assert_int_equal(diag_ask(types[t], families[f], FIRST + 9), -ENOENT);
		}
	}
	must_close(dp);
}

/* With the guard */

static uint64_t unsolicited(const struct dp *dp)
{
	struct sluice_count drops[SLUICE_REASON_MAX];

	assert_int_equal(dp_drops(dp, drops), 0);
	return drops[SLUICE_DROP_unsolicited].packets + drops[SLUICE_DROP_foreign].packets;
}

/* What comes from outside is met by silence, wherever a wildcard listener stands; a lease's socket is reached. */
static void test_guarded(void **state)
{
	static const uint16_t ports[] = { 22, FIRST - 1, FIRST, LAST, LAST + 1, 65535 };
	struct errtext err = { "" };
	struct dp *dp = begin();
	union sluice_addr a = addr_of(SHARED);
	struct sluice_addr_row row;
	const char *how;

	(void)state;
	if (dp_attach(dp, if_nametoindex("up0"), "up0", &how, &err))
		die("dp_attach: %s", err.s);
	map_get(dp->nat->maps.addrs, &a, &row);
	foreach (p, ports) {
		foreach (t, types) {
			union endpoint e = endpoint(SHARED_IP4, ports[p]);
			struct pollfd there = { .events = POLLIN };
			int fd = stand(types[t], "::", ports[p]);
			uint64_t before = unsolicited(dp);

			there.fd = socket_in(ns_outside, AF_INET, types[t] | SOCK_NONBLOCK);
			assert_int_equal(connect(there.fd, &e.sa, sizeof(e.v4)),
					 types[t] == SOCK_STREAM ? -1 : 0);
			if (types[t] == SOCK_DGRAM)
				assert_int_equal(send(there.fd, "x", 1, 0), 1);
			wait_for(unsolicited(dp) > before);
			assert_untouched(fd);
			assert_int_equal(poll(&there, 1, 0), 0);
			close(there.fd);
			close(fd);
		}
	}
	foreach (t, types) {
		uint32_t slot = (uint32_t)t;
		int fd = stand(types[t], "127.0.0.1", 7000);

		assert_int_equal(dp_lease_claim(dp, row.base + (FIRST >> row.shift),
						l4_of_type(types[t]), 1, 1),
				 0);
		lease_port(dp, SHARED_IP4, FIRST + 1, l4_of_type(types[t]), SLUICE_LEASE_EXCLUSIVE,
			   slot + 1);
		steer_set(dp, slot, fd);
		reaches(types[t], ns_outside, SHARED_IP4, FIRST + 1, fd);
		reaches(types[t], ns_inside, SHARED_IP4, FIRST + 1, fd);
		close(fd);
		fd = stand(types[t], SHARED_IP4, FIRST + 1);
		reaches(types[t], ns_outside, SHARED_IP4, FIRST + 1, fd);
		close(fd);
	}
	must_close(dp);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_teardown(fn, lab_clean)
	const struct CMUnitTest tests[] = {
		TEST(test_elsewhere), TEST(test_unfit),   TEST(test_wildcard),
		TEST(test_bound),     TEST(test_uplinks), TEST(test_connected),
		TEST(test_questions), TEST(test_guarded),
	};

	return cmocka_run_group_tests(tests, sockets_open, sockets_done);
}
