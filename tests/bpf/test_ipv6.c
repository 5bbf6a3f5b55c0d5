/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A shared IPv6 address serves sockets: the guard, what arrives, steering, neighbour discovery. Clients' IPv4 never goes by way of an IPv6 slice; their IPv6
 * is in test_nat66.c. Addresses are 2001:db8:: and an IPv4 address (packet.h).
 */
#include "wire.h"

#define FLOWS    1024
#define USER     1000
#define OTHERS   1001
#define FREEBIND 78 /* IPV6_FREEBIND */
#define E_NEXT   (ETH_LEN + 6)
#define E_HOPS   (ETH_LEN + 7)
#define E_L4     (ETH_LEN + 40)

static union sluice_addr addr6_of(uint32_t ip)
{
	union sluice_addr a = { .w = { htonl(0x20010db8), 0, 0, htonl(ip) } };

	return a;
}

static uint32_t scene(struct bed *b, enum sluice_unleased policy)
{
	struct sluice_pool p = pool_default();

	wire_up();
	p.unleased = (uint8_t)policy;
	bed_open(b, FLOWS);
	bed_pool(b, 0, p);
	bed_addr_any(b, 0, addr6_of(SHARED), 11);
	return bed_slice_any(b, addr6_of(SHARED), FIRST, SLUICE_NEVER);
}

static void expect(struct bed *b, const char *what, enum hook hook, uint32_t came_by,
		   const struct frame *in, int reason)
{
	struct run r;

	bed_run(b, hook, came_by, in, &r);
	if (reason == NO_REASON)
		expect_unchanged(what, in, &r);
	else
		expect_reason(what, in, &r, reason);
}

static void test_guard(void **state)
{
	static const struct {
		const char *name;
		struct spec s;
		uint8_t ext;
		int want;
	} rows[] = {
		{ "tcp", { .proto = P_TCP, .sport = FIRST, .flags = T_SYN }, 0, NO_REASON },
		{ "udp", { .proto = P_UDP, .sport = LAST }, 0, NO_REASON },
		{ "tcp below",
		  { .proto = P_TCP, .sport = FIRST - 1, .flags = T_ACK },
		  0,
		  SLUICE_DROP_escape },
		{ "udp above", { .proto = P_UDP, .sport = LAST + 1 }, 0, SLUICE_DROP_escape },
		{ "behind options", { .proto = P_UDP, .sport = FIRST }, P_DSTOPTS, NO_REASON },
		{ "below, behind options",
		  { .proto = P_UDP, .sport = 9 },
		  P_DSTOPTS,
		  SLUICE_DROP_escape },
		/* One that is the only piece is no fragment (RFC 6946). */
		{ "atomic fragment", { .proto = P_UDP, .sport = FIRST }, P_FRAGMENT, NO_REASON },
		{ "atomic fragment below",
		  { .proto = P_UDP, .sport = 9 },
		  P_FRAGMENT,
		  SLUICE_DROP_escape },
		{ "routing header", { .proto = P_UDP, .sport = FIRST }, 43, SLUICE_DROP_proto },
		{ "GRE", { .proto = 47, .payload = 20 }, 0, SLUICE_DROP_proto },
		{ "ICMP of IPv4",
		  { .proto = P_ICMP, .type = 8, .sport = FIRST },
		  0,
		  SLUICE_DROP_proto },
		{ "echo", { .proto = P_ICMP6, .type = 128, .sport = FIRST }, 0, NO_REASON },
		{ "echo, not ours",
		  { .proto = P_ICMP6, .type = 128, .sport = 1 },
		  0,
		  SLUICE_DROP_escape },
		{ "echo reply",
		  { .proto = P_ICMP6, .type = 129, .sport = FIRST },
		  0,
		  SLUICE_DROP_escape },
		{ "error", { .proto = P_ICMP6, .type = 1, .payload = 60 }, 0, SLUICE_DROP_escape },
		{ "too big",
		  { .proto = P_ICMP6, .type = 2, .payload = 60 },
		  0,
		  SLUICE_DROP_escape },
		{ "multicast listener report",
		  { .proto = P_ICMP6, .type = 143 },
		  0,
		  SLUICE_DROP_icmp_type },
		{ "from far, a neighbour solicitation",
		  { .proto = P_ICMP6, .type = 135 },
		  0,
		  SLUICE_DROP_icmp_type },
	};
	struct frame in;
	struct bed b;
	size_t i;
	uint8_t type;

	(void)state;
	scene(&b, SLUICE_UNLEASED_ALLOW);
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct spec s = rows[i].s;

		s.src = SHARED;
		s.dst = REMOTE;
		s.dport = 80;
		frame_build6(&in, &s, rows[i].ext);
		expect(&b, rows[i].name, EGRESS, MADE_HERE, &in, rows[i].want);
		expect(&b, rows[i].name, EGRESS, FORWARDED, &in, SLUICE_DROP_spoof);
		/* Nobody's business with another source. */
		s.src = OTHER;
		frame_build6(&in, &s, rows[i].ext);
		expect(&b, rows[i].name, EGRESS, MADE_HERE, &in, NO_REASON);
		expect(&b, rows[i].name, EGRESS, FORWARDED, &in, NO_REASON);
	}
	for (type = 133; type <= 137; type++) {
		struct spec s = {
			.proto = P_ICMP6, .type = type, .src = SHARED, .dst = REMOTE, .payload = 16
		};

		frame_build6(&in, &s, 0);
		in.b[E_HOPS] = 255;
		expect(&b, "neighbour discovery", EGRESS, MADE_HERE, &in, NO_REASON);
		s.src = REMOTE;
		s.dst = SHARED;
		frame_build6(&in, &s, 0);
		in.b[E_HOPS] = 255;
		expect(&b, "neighbour discovery", INGRESS, FORWARDED, &in, NO_REASON);
	}
	bed_close(&b);
}

/* Chains of extension headers: n of them, each of so many bytes. */
static void chain(struct frame *f, const struct spec *s, uint32_t n, uint32_t bytes)
{
	uint32_t i, old;
	uint8_t next;

	frame_build6(f, s, 0);
	for (i = 0; i < n; i++) {
		old = f->len - E_L4;
		next = f->b[E_NEXT];
		memmove(f->b + E_L4 + bytes, f->b + E_L4, old);
		memset(f->b + E_L4, 0, bytes);
		f->b[E_L4] = next;
		f->b[E_L4 + 1] = (uint8_t)(bytes / 8 - 1);
		f->b[E_NEXT] = i == n - 1 ? 0 : P_DSTOPTS; /* hop-by-hop options come first */
		f->len += bytes;
		put16(f->b + ETH_LEN + 4, (uint16_t)(f->len - E_L4));
	}
}

static void test_extension_headers(void **state)
{
	static const struct {
		uint32_t n, bytes;
		int inside, outside;
	} rows[] = {
		{ 1, 8, NO_REASON, SLUICE_DROP_escape },
		{ 2, 24, NO_REASON, SLUICE_DROP_escape },
		{ 4, 32, NO_REASON, SLUICE_DROP_escape },
		{ 1, 128, NO_REASON, SLUICE_DROP_escape },
		{ 1, 136, SLUICE_DROP_proto, SLUICE_DROP_proto },
		{ 5, 8, SLUICE_DROP_proto, SLUICE_DROP_proto },
		{ 4, 40, SLUICE_DROP_proto, SLUICE_DROP_proto },
	};
	struct spec s = { .proto = P_TCP, .src = SHARED, .dst = REMOTE, .flags = T_SYN };
	struct frame in, cut;
	struct bed b;
	size_t i;

	(void)state;
	scene(&b, SLUICE_UNLEASED_ALLOW);
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		s.sport = FIRST;
		s.dport = 80;
		chain(&in, &s, rows[i].n, rows[i].bytes);
		expect(&b, "in the slice", EGRESS, MADE_HERE, &in, rows[i].inside);
		s.sport = 80;
		chain(&in, &s, rows[i].n, rows[i].bytes);
		expect(&b, "outside", EGRESS, MADE_HERE, &in, rows[i].outside);
	}
	/* Longer than the packet; and a packet that ends within. */
	s.sport = FIRST;
	chain(&in, &s, 1, 16);
	in.b[E_L4 + 1] = 30;
	expect(&b, "too long a header", EGRESS, MADE_HERE, &in, SLUICE_DROP_malformed);
	chain(&in, &s, 2, 24);
	for (i = 0; i < 48 + 20; i++) {
		cut = in;
		cut.len = (uint32_t)(E_L4 + i);
		put16(cut.b + ETH_LEN + 4, (uint16_t)i);
		expect(&b, "cut", EGRESS, MADE_HERE, &cut, SLUICE_DROP_malformed);
	}
	bed_close(&b);
}

static int sock6_at(uid_t uid, int type, const char *ip, uint16_t port)
{
	struct sockaddr_in6 a = sock_addr6(ip, port);
	int fd = sock_of(uid, AF_INET6, type, 0), one = 1;

	if (setsockopt(fd, IPPROTO_IPV6, FREEBIND, &one, sizeof(one)) ||
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)) ||
	    bind(fd, (struct sockaddr *)&a, sizeof(a)) || (type == SOCK_STREAM && listen(fd, 5)))
		die("binding [%s]:%u: %s", ip, port, strerror(errno));
	return fd;
}

static void arrives(struct bed *b, const char *what, uint8_t proto, uint16_t port, uint8_t flags,
		    int reason)
{
	struct spec s = { .proto = proto,
			  .src = REMOTE,
			  .dst = SHARED,
			  .sport = 5555,
			  .dport = port,
			  .flags = flags };
	struct frame in;

	frame_build6(&in, &s, 0);
	expect(b, what, INGRESS, FORWARDED, &in, reason);
}

static void listener_arrives(struct bed *b, const char *what, uint16_t port)
{
	static const uint8_t probes[] = { T_ACK, T_FIN | T_ACK, T_RST, T_SYN | T_ACK };
	size_t i;

	arrives(b, what, P_TCP, port, T_SYN, NO_REASON);
	for (i = 0; i < sizeof(probes); i++)
		arrives(b, what, P_TCP, port, probes[i], SLUICE_DROP_unsolicited);
}

static void test_arriving(void **state)
{
	static const uint8_t errors[] = { 1, 2, 3, 4 };
	struct spec q = { .proto = P_UDP, .src = SHARED, .dst = REMOTE2, .dport = 53 };
	struct spec e = { .proto = P_ICMP6, .src = REMOTE, .dst = SHARED };
	int fds[8], n = 0;
	struct frame in, quote;
	uint32_t row, slot;
	uint64_t value;
	struct bed b;
	size_t i;

	(void)state;
	row = scene(&b, SLUICE_UNLEASED_ALLOW);
	fds[n++] = sock6_at(0, SOCK_STREAM, SHARED6, FIRST);
	fds[n++] = sock6_at(0, SOCK_STREAM, "::", FIRST + 1);
	fds[n++] = sock6_at(0, SOCK_DGRAM, SHARED6, FIRST + 2);
	fds[n++] = sock6_at(0, SOCK_DGRAM, "::", FIRST + 3);
	fds[n++] = sock6_at(0, SOCK_STREAM, "::1", 9000);
	fds[n++] = sock6_at(0, SOCK_DGRAM, "::1", 9000);
	fds[n++] = sock6_at(0, SOCK_STREAM, SHARED6, LAST + 1);
	listener_arrives(&b, "a listener", FIRST);
	arrives(&b, "a wildcard listener", P_TCP, FIRST + 1, T_SYN, SLUICE_DROP_unsolicited);
	arrives(&b, "nobody", P_TCP, FIRST + 9, T_SYN, SLUICE_DROP_unsolicited);
	arrives(&b, "outside the slices", P_TCP, LAST + 1, T_SYN, SLUICE_DROP_foreign);
	arrives(&b, "a datagram socket", P_UDP, FIRST + 2, 0, NO_REASON);
	arrives(&b, "a wildcard datagram socket", P_UDP, FIRST + 3, 0, SLUICE_DROP_unsolicited);
	arrives(&b, "nobody", P_UDP, FIRST, 0, SLUICE_DROP_unsolicited);
	arrives(&b, "GRE", 47, 0, 0, SLUICE_DROP_proto);

	/* Steered to [::1]:9000. */
	bed_lease(&b, row, SLUICE_TCP, FIRST + 5, 1, USER, 1);
	bed_lease(&b, row, SLUICE_UDP, FIRST + 5, 1, USER, 2);
	arrives(&b, "nobody in the slot", P_TCP, FIRST + 5, T_SYN, SLUICE_DROP_unsolicited);
	for (slot = 0; slot < 2; slot++) {
		value = (uint64_t)fds[4 + slot];
		map_put(b.nat->maps.steered, &slot, &value);
	}
	listener_arrives(&b, "a steered listener", FIRST + 5);
	arrives(&b, "a steered datagram socket", P_UDP, FIRST + 5, 0, NO_REASON);
	fds[n++] = sock_at_port(0, SOCK_DGRAM, IP(127, 0, 0, 1), 9002);
	value = (uint64_t)fds[n - 1];
	slot = 1;
	map_put(b.nat->maps.steered, &slot, &value);
	arrives(&b, "a steered IPv4 socket", P_UDP, FIRST + 5, 0, SLUICE_DROP_unsolicited);

	/* Errors about what a socket of ours sent, and about what none did. */
	for (i = 0; i < sizeof(errors); i++) {
		e.type = errors[i];
		e.err = &quote;
		q.sport = FIRST + 2;
		frame_build6(&quote, &q, 0);
		frame_build6(&in, &e, 0);
		expect(&b, "error", INGRESS, FORWARDED, &in, NO_REASON);
		q.sport = FIRST + 4;
		frame_build6(&quote, &q, 0);
		frame_build6(&in, &e, 0);
		expect(&b, "error about nobody", INGRESS, FORWARDED, &in, SLUICE_DROP_unsolicited);
		q.sport = FIRST + 2;
		q.src = OTHER;
		frame_build6(&quote, &q, 0);
		frame_build6(&in, &e, 0);
		expect(&b, "error about somebody else", INGRESS, FORWARDED, &in,
		       SLUICE_DROP_malformed);
		q.src = SHARED;
	}
	e.err = NULL;
	e.type = 128;
	frame_build6(&in, &e, 0);
	expect(&b, "echo", INGRESS, FORWARDED, &in, SLUICE_DROP_unsolicited);
	e.type = 129;
	e.sport = FIRST;
	frame_build6(&in, &e, 0);
	expect(&b, "echo reply", INGRESS, FORWARDED, &in, SLUICE_DROP_unsolicited);
	while (n--)
		close(fds[n]);
	bed_close(&b);
}

/* By user, with real packets. */
static void test_who_may(void **state)
{
	static const struct {
		uint16_t port;
		uid_t uid;
		bool may;
	} rows[] = {
		{ FIRST + 10, USER, true },
		{ FIRST + 10, 0, true },
		{ FIRST + 10, OTHERS, false },
		{ FIRST + 11, USER, false },
	};
	struct sockaddr_in6 to = sock_addr6(REMOTE6, 9);
	__u64 passed, dropped;
	struct bed b;
	uint32_t row;
	size_t i;
	int fd, k;

	(void)state;
	row = scene(&b, SLUICE_UNLEASED_DENY);
	bed_lease(&b, row, SLUICE_TCP, FIRST + 10, 1, USER, 0);
	bed_lease(&b, row, SLUICE_UDP, FIRST + 10, 1, USER, 0);
	wire_attach(&b, EGRESS);
	for (k = 0; k < 2; k++) {
		for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
			struct sockaddr_in6 a = sock_addr6(SHARED6, rows[i].port);
			int one = 1;

			passed = bed_stats(&b, 0).out.packets;
			dropped = bed_drops(&b, SLUICE_DROP_unleased).packets;
			fd = sock_of(rows[i].uid, AF_INET6, k ? SOCK_DGRAM : SOCK_STREAM, 0);
			setsockopt(fd, IPPROTO_IPV6, FREEBIND, &one, sizeof(one));
			if (bind(fd, (struct sockaddr *)&a, sizeof(a)))
				die("bind: %s", strerror(errno));
			if (connect(fd, (struct sockaddr *)&to, sizeof(to)) && errno != EINPROGRESS)
				die("connect: %s", strerror(errno));
			if (k && send(fd, "x", 1, 0) < 0 && errno != ENOBUFS)
				die("send: %s", strerror(errno));
			passed = bed_stats(&b, 0).out.packets - passed;
			dropped = bed_drops(&b, SLUICE_DROP_unleased).packets - dropped;
			if (passed != rows[i].may || dropped != !rows[i].may)
				die("type %d, row %zu: %llu passed, %llu dropped", k, i, passed,
				    dropped);
			close(fd);
		}
	}
	wire_detach();
	bed_close(&b);
	wire_flush();
}

/* A pool with addresses of both families: clients' IPv4 goes by IPv4 slices alone. */
static void test_clients(void **state)
{
	struct conn c;
	struct bed b;
	uint32_t i;

	(void)state;
	scene(&b, SLUICE_UNLEASED_ALLOW);
	bed_client(&b, IP(10, 1, 0, 0), 16, 0);
	c = conn_of(P_UDP, CLIENT, 1000, REMOTE, 80);
	conn_sends_dropped(&b, "no IPv4 slice", &c, 0, SLUICE_DROP_no_slice);
	bed_addr(&b, 0, SHARED, 11);
	bed_slice(&b, SHARED, FIRST, SLUICE_NEVER);
	for (i = 0; i < 100; i++) {
		c = conn_of(i % 2 ? P_UDP : P_TCP, CLIENT + i, 1000, REMOTE, 80);
		conn_sends(&b, "both families", &c, T_SYN);
	}
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_guard),    cmocka_unit_test(test_extension_headers),
		cmocka_unit_test(test_arriving), cmocka_unit_test(test_who_may),
		cmocka_unit_test(test_clients),
	};

	return cmocka_run_group_tests_name("ipv6", tests, wire_setup, NULL);
}
