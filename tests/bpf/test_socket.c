/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sockets and NAT on one slice: real sockets in a network namespace of this test's own, packets by BPF_PROG_TEST_RUN. The
 * shared address and the remote one are both local there, on lo, so that connections stand with nobody's help:
 *
 *     203.0.113.7:PORT (shared, slice 4096-4159)  ---- lo ----  198.51.100.10:80 (a listener of this test)
 *     and to 198.51.100.11 packets leave and are lost: a socket connecting to it stays in SYN_SENT
 */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include "flows.h"

#define BASE    4096
#define NPORTS  64
#define SYN_TO  REMOTE2
#define BACKLOG 16

static int listener = -1;

static void ip_command(const char *args)
{
	char cmd[160];

	snprintf(cmd, sizeof(cmd), "ip %s", args);
	if (system(cmd))
		die("%s failed", cmd);
}

static struct sockaddr_in addr_in(uint32_t ip, uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(ip),
				 .sin_port = htons(port) };

	return a;
}

static int sock_bound(int type, uint32_t ip, uint16_t port)
{
	struct sockaddr_in a = addr_in(ip, port);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0), one = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(fd, (struct sockaddr *)&a, sizeof(a)))
		die("binding %08x:%u: %s", ip, port, strerror(errno));
	return fd;
}

static int sock_listening(uint32_t ip, uint16_t port)
{
	int fd = sock_bound(SOCK_STREAM, ip, port);

	if (listen(fd, BACKLOG))
		die("listen: %s", strerror(errno));
	return fd;
}

static int sock6_bound(int type, const char *ip, uint16_t port)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int fd = socket(AF_INET6, type | SOCK_CLOEXEC, 0), zero = 0;

	inet_pton(AF_INET6, ip, &a.sin6_addr);
	if (fd < 0 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero)) ||
	    bind(fd, (struct sockaddr *)&a, sizeof(a)) ||
	    (type == SOCK_STREAM && listen(fd, BACKLOG)))
		die("binding [%s]:%u: %s", ip, port, strerror(errno));
	return fd;
}

/* A TCP or UDP socket bound to a port of the slice and connected. TCP to SYN_TO stays connecting. */
static int sock_connected(int type, uint16_t port, uint32_t dst, uint16_t dport)
{
	struct sockaddr_in a = addr_in(dst, dport);
	int fd = sock_bound(type, SHARED, port);

	if (dst == SYN_TO)
		fcntl(fd, F_SETFL, O_NONBLOCK);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) && errno != EINPROGRESS)
		die("connecting from port %u: %s", port, strerror(errno));
	return fd;
}

static int accept_one(void)
{
	struct pollfd p = { .fd = listener, .events = POLLIN };
	int fd;

	if (poll(&p, 1, 10000) != 1)
		die("no connection came");
	fd = accept(listener, NULL, NULL);
	if (fd < 0)
		die("accept: %s", strerror(errno));
	return fd;
}

/* Waits until a TCP socket on a port of the shared address is in a state (the kernel's number for it). */
static void wait_state(uint16_t port, unsigned int state)
{
	struct timespec nap = { .tv_nsec = 5000000 };
	uint64_t end = now_ns() + 10000000000ULL;
	unsigned int local_ip, local_port, st;
	char line[256];
	bool found = false;
	FILE *f;

	while (!found) {
		f = fopen("/proc/thread-self/net/tcp", "r");
		if (!f)
			die("/proc/thread-self/net/tcp: %s", strerror(errno));
		while (!found && fgets(line, sizeof(line), f))
			found = sscanf(line, " %*u: %x:%x %*x:%*x %x", &local_ip, &local_port,
				       &st) == 3 &&
				local_ip == htonl(SHARED) && local_port == port && st == state;
		fclose(f);
		if (!found && now_ns() > end)
			die("port %u did not get to state %u", port, state);
		if (!found)
			nanosleep(&nap, NULL);
	}
}

/* Leaves a connection from that port in TIME_WAIT. */
static void sock_time_wait(uint16_t port)
{
	int fd = sock_connected(SOCK_STREAM, port, REMOTE, 80), peer = accept_one();

	shutdown(fd, SHUT_WR);
	wait_state(port, 5); /* FIN_WAIT2: the other end has our FIN */
	close(peer);
	close(fd);
	wait_state(port, 6);
}

static int group_setup(void **state)
{
	(void)state;
	if (geteuid() != 0) {
		print_error("this test makes a network namespace: run it as root\n");
		return -1;
	}
	if (unshare(CLONE_NEWNET)) {
		print_error("unshare: %s\n", strerror(errno));
		return -1;
	}
	return 0;
}

static void scene(struct bed *b, enum sluice_mapping mapping)
{
	static bool ready;
	struct sluice_pool p = pool_default();
	int i;

	if (!ready) {
		ip_command("link set lo up");
		ip_command("route add local 203.0.113.7/32 dev lo");
		ip_command("route add local 198.51.100.10/32 dev lo");
		ip_command("route add 198.51.100.11/32 dev lo src 203.0.113.7");
		listener = sock_listening(REMOTE, 80);
		ready = true;
	}
	for (i = 0; i < SLUICE_L4_MAX; i++)
		p.mapping[i] = (uint8_t)mapping;
	p.unleased = SLUICE_UNLEASED_ALLOW;
	bed_open(b, 4096);
	bed_pool(b, 0, p);
	bed_addr(b, 0, SHARED, 6);
	bed_client(b, IP(10, 1, 0, 0), 16, 0);
	bed_slice(b, SHARED, BASE, SLUICE_NEVER);
}

/*
 * Sends new flows to one destination until there is no port. Returns the ports they got as bits; each once.
 */
static uint64_t fill_all(struct bed *b, const char *what, uint8_t proto, uint32_t dst,
			 uint16_t dport)
{
	uint64_t got = 0;
	struct spec s;
	struct frame in;
	struct view v;
	struct run r;
	uint32_t i;

	for (i = 0; i <= NPORTS; i++) {
		struct conn c = conn_of(proto, CLIENT + i, 1000, dst, dport);

		s = conn_out(&c, T_SYN);
		send_spec(b, EGRESS, FORWARDED, &s, &in, &r);
		if (r.reason == SLUICE_DROP_no_port)
			break;
		expect_rewritten(what, &in, &r, true, &v);
		if (v.src != SHARED || v.sport < BASE || v.sport >= BASE + NPORTS)
			die("%s: came out with port %u", what, v.sport);
		if (got >> (v.sport - BASE) & 1)
			die("%s: port %u twice", what, v.sport);
		got |= 1ULL << (v.sport - BASE);
	}
	return got;
}

static void expect_all_but(const char *what, uint64_t got, const uint16_t *taken, uint32_t n)
{
	uint64_t want = ~0ULL;
	uint32_t i;

	for (i = 0; i < n; i++)
		want &= ~(1ULL << (taken[i] - BASE));
	if (got != want)
		die("%s: ports %016llx given, should be %016llx", what, (unsigned long long)got,
		    (unsigned long long)want);
}

/* NAT gives every port of the slice but those whose tuple a socket has, in whatever state of its life that is. */
static void test_nat_passes_over_tcp(void **state)
{
	static const uint16_t to_remote[] = { BASE + 3, BASE + 4, BASE + 5 };
	static const uint16_t to_lost[] = { BASE + 7, BASE + 5 };
	static const uint16_t to_other[] = { BASE + 5 };
	static const enum sluice_mapping mappings[] = { SLUICE_OVERLOAD, SLUICE_EIM };
	int connected, peer, listening, connecting, wild;
	struct bed b;
	int i;

	(void)state;
	scene(&b, SLUICE_OVERLOAD);
	bed_close(&b);
	sock_time_wait(BASE + 3);
	connected = sock_connected(SOCK_STREAM, BASE + 4, REMOTE, 80);
	peer = accept_one();
	listening = sock_listening(SHARED, BASE + 5);
	connecting = sock_connected(SOCK_STREAM, BASE + 7, SYN_TO, 80);
	wild = sock_listening(INADDR_ANY, BASE + 9); /* takes nothing: nobody can reach it there */
	for (i = 0; i < 2; i++) {
		scene(&b, mappings[i]);
		expect_all_but("established, TIME_WAIT, listening",
			       fill_all(&b, "tcp", P_TCP, REMOTE, 80), to_remote, 3);
		/* Endpoint-independent ports are given for all destinations: one bed for each. */
		if (mappings[i] == SLUICE_EIM) {
			bed_close(&b);
			scene(&b, mappings[i]);
		}
		expect_all_but("connecting, listening", fill_all(&b, "tcp", P_TCP, SYN_TO, 80),
			       to_lost, 2);
		if (mappings[i] == SLUICE_EIM) {
			bed_close(&b);
			scene(&b, mappings[i]);
		}
		expect_all_but("another destination", fill_all(&b, "tcp", P_TCP, REMOTE, 8080),
			       to_other, 1);
		bed_close(&b);
	}
	close(connected);
	close(peer);
	close(listening);
	close(connecting);
	close(wild);
}

static void test_nat_passes_over_udp(void **state)
{
	static const uint16_t to_remote[] = { BASE + 20, BASE + 21 };
	static const uint16_t to_other[] = { BASE + 20 };
	static const enum sluice_mapping mappings[] = { SLUICE_OVERLOAD, SLUICE_EIM };
	int unconnected = -1, connected = -1, wild = -1;
	struct bed b;
	int i;

	(void)state;
	for (i = 0; i < 2; i++) {
		scene(&b, mappings[i]);
		unconnected = sock_bound(SOCK_DGRAM, SHARED, BASE + 20);
		connected = sock_connected(SOCK_DGRAM, BASE + 21, REMOTE, 53);
		wild = sock_bound(SOCK_DGRAM, INADDR_ANY, BASE + 22);
		expect_all_but("udp sockets", fill_all(&b, "udp", P_UDP, REMOTE, 53), to_remote, 2);
		if (mappings[i] == SLUICE_OVERLOAD)
			expect_all_but("another destination",
				       fill_all(&b, "udp", P_UDP, REMOTE, 54), to_other, 1);
		close(unconnected);
		close(connected);
		close(wild);
		bed_close(&b);
	}
}

/* A port that a socket has given up is NAT's to give, to the first who asks in the next second at the latest. */
static void test_closed_socket_frees_port(void **state)
{
	struct timespec nap = { .tv_nsec = 20000000 };
	struct conn c = conn_of(P_TCP, CLIENT2 + 500, 1000, REMOTE, 81);
	static const uint16_t taken[] = { BASE + 30 };
	uint32_t s;
	struct bed b;
	int fd;

	(void)state;
	scene(&b, SLUICE_OVERLOAD);
	fd = sock_listening(SHARED, BASE + 30);
	expect_all_but("one listener", fill_all(&b, "tcp", P_TCP, REMOTE, 81), taken, 1);
	close(fd);
	for (s = now_s(); now_s() == s;)
		nanosleep(&nap, NULL);
	conn_sends(&b, "the freed port", &c, T_SYN);
	assert_int_equal(c.port, BASE + 30);
	bed_close(&b);
}

static void expect_up(struct bed *b, const char *what, const struct spec *s)
{
	struct frame in;
	struct run r;

	send_spec(b, INGRESS, FORWARDED, s, &in, &r);
	expect_unchanged(what, &in, &r);
}

static void expect_silence(struct bed *b, const char *what, const struct spec *s, int reason)
{
	struct frame in;
	struct run r;

	send_spec(b, INGRESS, FORWARDED, s, &in, &r);
	expect_reason(what, &in, &r, reason);
}

/* What arrives for the slice reaches sockets that are bound to the shared address, and no others (invariant 7). */
static void test_arriving(void **state)
{
	static const enum sluice_mapping mappings[] = { SLUICE_OVERLOAD, SLUICE_EIM };
	struct spec tcp = { .proto = P_TCP, .src = REMOTE, .dst = SHARED };
	struct spec udp = { .proto = P_UDP, .src = REMOTE, .dst = SHARED };
	int fds[16], n = 0, i;
	struct bed b;

	(void)state;
	for (i = 0; i < 2; i++) {
		scene(&b, mappings[i]);
		n = 0;
		fds[n++] = sock_connected(SOCK_STREAM, BASE + 40, REMOTE, 80);
		fds[n++] = accept_one();
		fds[n++] = sock_listening(SHARED, BASE + 41);
		fds[n++] = sock_listening(INADDR_ANY, BASE + 42);
		fds[n++] = sock6_bound(SOCK_STREAM, "::", BASE + 43);
		fds[n++] = sock6_bound(SOCK_STREAM, "::ffff:203.0.113.7", BASE + 44);
		fds[n++] = sock_connected(SOCK_STREAM, BASE + 45, SYN_TO, 80);
		fds[n++] = sock_listening(SHARED, BASE + NPORTS);
		fds[n++] = sock_bound(SOCK_DGRAM, SHARED, BASE + 41);
		fds[n++] = sock_bound(SOCK_DGRAM, INADDR_ANY, BASE + 42);
		fds[n++] = sock6_bound(SOCK_DGRAM, "::", BASE + 43);
		fds[n++] = sock_connected(SOCK_DGRAM, BASE + 45, REMOTE, 53);

		tcp.flags = T_ACK;
		tcp.sport = 80;
		tcp.dport = BASE + 40;
		expect_up(&b, "to a connection", &tcp);
		tcp.flags = T_SYN | T_ACK;
		tcp.dport = BASE + 45;
		tcp.src = SYN_TO;
		expect_up(&b, "to a connecting socket", &tcp);
		tcp.src = REMOTE;
		expect_silence(&b, "to a connecting socket, from elsewhere", &tcp,
			       SLUICE_DROP_unsolicited);
		tcp.flags = T_SYN;
		tcp.sport = 5555;
		tcp.dport = BASE + 41;
		expect_up(&b, "to a listener on the shared address", &tcp);
		tcp.dport = BASE + 44;
		expect_up(&b, "to a listener on the mapped address", &tcp);
		tcp.dport = BASE + 40;
		expect_silence(&b, "to a connected socket's port, from elsewhere", &tcp,
			       SLUICE_DROP_unsolicited);
		tcp.dport = BASE + 42;
		expect_silence(&b, "to a wildcard listener", &tcp, SLUICE_DROP_unsolicited);
		tcp.dport = BASE + 43;
		expect_silence(&b, "to an IPv6 wildcard listener", &tcp, SLUICE_DROP_unsolicited);
		tcp.dport = BASE + NPORTS;
		expect_silence(&b, "to a listener outside the slices", &tcp, SLUICE_DROP_foreign);

		udp.sport = 53;
		udp.dport = BASE + 41;
		expect_up(&b, "to a bound udp socket", &udp);
		udp.dport = BASE + 45;
		expect_up(&b, "to a connected udp socket", &udp);
		udp.sport = 54;
		expect_silence(&b, "to a connected udp socket, from elsewhere", &udp,
			       SLUICE_DROP_unsolicited);
		udp.dport = BASE + 42;
		expect_silence(&b, "to a wildcard udp socket", &udp, SLUICE_DROP_unsolicited);
		udp.dport = BASE + 43;
		expect_silence(&b, "to an IPv6 wildcard udp socket", &udp, SLUICE_DROP_unsolicited);
		while (n)
			close(fds[--n]);
		bed_close(&b);
	}
}

/*
 * The collision of design.md: NAT has the tuple, then a socket that was bound to the port all the while (which no lookup shows)
 * connects to the same place. Its packets leave by another port, and the answers come back to it, while NAT's flow goes on.
 */
static void test_socket_on_a_tuple_of_nat(void **state)
{
	struct sockaddr_in a = addr_in(SYN_TO, 80);
	struct conn nat[NPORTS], sock, *hit = NULL;
	int bound = sock_bound(SOCK_STREAM, SHARED, BASE + 50), n;
	struct spec s;
	struct frame in;
	struct view v;
	struct run r;
	struct bed b;

	(void)state;
	/* Until NAT gives the socket's port, and not as the last one: there must be room for the socket. */
	while (!hit) {
		scene(&b, SLUICE_OVERLOAD);
		for (n = 0; n < NPORTS - 1 && !hit; n++) {
			nat[n] = conn_of(P_TCP, CLIENT + (uint32_t)n, 1000, SYN_TO, 80);
			conn_sends(&b, "nat", &nat[n], T_SYN);
			if (nat[n].port == BASE + 50)
				hit = &nat[n];
		}
		if (!hit)
			bed_close(&b);
	}
	fcntl(bound, F_SETFL, O_NONBLOCK);
	if (connect(bound, (struct sockaddr *)&a, sizeof(a)) && errno != EINPROGRESS)
		die("connect: %s", strerror(errno));
	sock = conn_of(P_TCP, SHARED, BASE + 50, SYN_TO, 80);
	s = conn_out(&sock, T_SYN);
	send_spec(&b, EGRESS, MADE_HERE, &s, &in, &r);
	expect_rewritten("the socket's SYN", &in, &r, true, &v);
	assert_true(v.src == SHARED && v.sport >= BASE && v.sport < BASE + NPORTS);
	sock.outer = v.src;
	sock.port = v.sport;
	while (n--)
		if (nat[n].port == sock.port)
			die("port %u has two users", sock.port);
	conn_answers(&b, "to the socket", &sock, T_SYN | T_ACK);
	conn_answers(&b, "to NAT's flow", hit, T_SYN | T_ACK);
	conn_sends_same(&b, "NAT's flow", hit, T_ACK);
	assert_int_equal(bed_stats(&b, 0).resolved, 1);
	close(bound);
	bed_close(&b);
}

/* A socket that was there first keeps its tuple: its packets leave as they are, NAT takes none of its ports. */
static void test_socket_first(void **state)
{
	struct conn sock = conn_of(P_TCP, SHARED, BASE + 55, REMOTE, 80);
	static const uint16_t taken[] = { BASE + 55 };
	struct spec s;
	struct frame in;
	struct run r;
	struct bed b;
	int fd, peer;

	(void)state;
	scene(&b, SLUICE_OVERLOAD);
	/* Not port 80, towards which earlier tests have left connections in TIME_WAIT. */
	fd = sock_listening(REMOTE, 82);
	peer = sock_connected(SOCK_STREAM, BASE + 55, REMOTE, 82);
	sock.dport = 82;
	expect_all_but("to the socket's destination", fill_all(&b, "tcp", P_TCP, REMOTE, 82), taken,
		       1);
	s = conn_out(&sock, T_ACK);
	send_spec(&b, EGRESS, MADE_HERE, &s, &in, &r);
	expect_unchanged("the socket's packet", &in, &r);
	sock.outer = SHARED;
	sock.port = BASE + 55;
	s = conn_in(&sock, T_ACK);
	expect_up(&b, "the answer", &s);
	assert_int_equal(bed_stats(&b, 0).resolved, 0);
	close(peer);
	close(fd);
	bed_close(&b);
}

/* A TCP packet from a stranger, of each kind but the one that opens: a listener would answer every one of them. */
static void expect_no_probe(struct bed *b, const char *what, struct spec tcp)
{
	static const uint8_t probes[] = { T_ACK,         T_FIN | T_ACK, T_RST,        T_RST | T_ACK,
					  T_SYN | T_ACK, T_FIN,         T_ACK | T_PSH };
	struct frame in;
	struct run r;
	size_t i;

	for (i = 0; i < sizeof(probes); i++) {
		tcp.flags = probes[i];
		send_spec(b, INGRESS, FORWARDED, &tcp, &in, &r);
		if (r.verdict != VERDICT_DROP || r.reason != SLUICE_DROP_unsolicited)
			die("%s: a packet with flags %02x is %s", what, probes[i],
			    reason_name(r.reason));
	}
}

/* A listener on the shared address is found by who opens a connection, not by who looks for listeners. */
static void test_probes(void **state)
{
	struct spec tcp = { .proto = P_TCP, .src = REMOTE, .dst = SHARED, .sport = 5555 };
	int fd, conn, peer;
	struct bed b;

	(void)state;
	scene(&b, SLUICE_OVERLOAD);
	fd = sock_listening(SHARED, BASE + 31);
	conn = sock_connected(SOCK_STREAM, BASE + 32, REMOTE, 80);
	peer = accept_one();
	tcp.dport = BASE + 31;
	expect_no_probe(&b, "a listener", tcp);
	tcp.flags = T_SYN;
	expect_up(&b, "SYN", &tcp);
	/* A connection's own packets are not touched by that. */
	tcp.sport = 80;
	tcp.dport = BASE + 32;
	tcp.flags = T_FIN | T_ACK;
	expect_up(&b, "FIN", &tcp);
	tcp.flags = T_RST;
	expect_up(&b, "RST", &tcp);
	tcp.sport = 81;
	expect_no_probe(&b, "a connection's port", tcp);
	close(fd);
	close(conn);
	close(peer);
	bed_close(&b);
}

static void steer_put(struct bed *b, uint32_t slot, int fd)
{
	uint64_t value = (uint64_t)fd;

	map_put(b->nat->maps.steered, &slot, &value);
}

static bool steer_empty(struct bed *b, uint32_t slot)
{
	uint64_t cookie;

	return bpf_map_lookup_elem(bpf_map__fd(b->nat->maps.steered), &slot, &cookie) != 0;
}

/*
 * A leased port with a socket that stands elsewhere: what that can take goes up, and what would make it answer to a stranger does not. The kernel gives it to the
 * socket by the sk_lookup program, which is not here.
 */
static void test_steered(void **state)
{
	struct spec tcp = { .proto = P_TCP, .src = REMOTE, .dst = SHARED, .sport = 5555 };
	struct spec udp = { .proto = P_UDP, .src = REMOTE, .dst = SHARED, .sport = 53 };
	struct spec q = { .proto = P_UDP, .src = SHARED, .dst = REMOTE, .dport = 53 };
	struct spec error = { .proto = P_ICMP, .type = 3, .code = 3, .dst = SHARED };
	struct sluice_port_key key = { .addr = addr_of(SHARED), .l4 = SLUICE_TCP };
	static struct frame quote;
	struct timespec nap = { .tv_nsec = 5000000 };
	uint32_t row = 0, k;
	struct sluice_addr_row ar;
	int listening, wild, datagrams;
	struct bed b;

	(void)state;
	for (k = 0; k < 2; k++) {
		scene(&b, k ? SLUICE_EIM : SLUICE_OVERLOAD);
		ar = bed_addr_row(&b, SHARED);
		row = ar.base + BASE / NPORTS;
		listening = sock_listening(IP(127, 0, 0, 1), 9000);
		wild = sock_listening(INADDR_ANY, BASE + 35);
		datagrams = sock_bound(SOCK_DGRAM, INADDR_ANY, 9001);
		bed_lease(&b, row, SLUICE_TCP, BASE + 33, 1, 1000, 6);
		bed_lease(&b, row, SLUICE_TCP, BASE + 34, 1, 1000, 7);
		bed_lease(&b, row, SLUICE_TCP, BASE + 35, 1, 1000, 0);
		bed_lease(&b, row, SLUICE_UDP, BASE + 33, 1, 1000, 7);

		tcp.flags = T_SYN;
		tcp.dport = BASE + 33;
		udp.dport = BASE + 33;
		expect_silence(&b, "nobody in the slot", &tcp, SLUICE_DROP_unsolicited);
		expect_silence(&b, "nobody in the slot", &udp, SLUICE_DROP_unsolicited);
		steer_put(&b, 5, listening);
		steer_put(&b, 6, datagrams);
		expect_up(&b, "SYN to the steered listener", &tcp);
		expect_up(&b, "to the steered datagram socket", &udp);
		expect_no_probe(&b, "the steered listener", tcp);
		/* An ICMP error about what the datagram socket has sent. */
		q.sport = BASE + 33;
		frame_build(&quote, &q);
		error.src = REMOTE2;
		error.err = &quote;
		expect_up(&b, "ICMP error", &error);

		tcp.dport = BASE + 34;
		expect_silence(&b, "a socket of another protocol", &tcp, SLUICE_DROP_unsolicited);
		tcp.dport = BASE + 35;
		expect_silence(&b, "leased, but not steered", &tcp, SLUICE_DROP_unsolicited);
		tcp.dport = BASE + 36;
		expect_silence(&b, "not leased", &tcp, SLUICE_DROP_unsolicited);

		/* The lease is over, the port cools down. */
		key.port = htons(BASE + 33);
		assert_int_equal(bpf_map_delete_elem(bpf_map__fd(b.nat->maps.leases), &key), 0);
		tcp.dport = BASE + 33;
		expect_silence(&b, "cooling", &tcp, SLUICE_DROP_unsolicited);
		/* The socket is closed. */
		close(datagrams);
		while (!steer_empty(&b, 6))
			nanosleep(&nap, NULL);
		expect_silence(&b, "closed", &udp, SLUICE_DROP_unsolicited);
		close(listening);
		close(wild);
		bed_close(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nat_passes_over_tcp),
		cmocka_unit_test(test_nat_passes_over_udp),
		cmocka_unit_test(test_closed_socket_frees_port),
		cmocka_unit_test(test_arriving),
		cmocka_unit_test(test_probes),
		cmocka_unit_test(test_steered),
		cmocka_unit_test(test_socket_on_a_tuple_of_nat),
		cmocka_unit_test(test_socket_first),
	};

	return cmocka_run_group_tests_name("socket", tests, group_setup, NULL);
}
