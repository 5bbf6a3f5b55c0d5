/* SPDX-License-Identifier: BSD-2-Clause */
/* The hooks of "sluice exec": what a program meets that goes out through a lease. See exec_rig.h for the scene. */
#include "exec_rig.h"

#include <linux/if.h>
#include <pthread.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

#define NOWHERE "192.0.2.99" /* at first: no route leads there */

#define N(a) (sizeof(a) / sizeof((a)[0]))

/* As many connections to one place as the lease has ports, each from another one; then no more. */
static void fill(const char *ip, int *fds, unsigned ports)
{
	bool seen[4096] = { false };

	for (unsigned i = 0; i < ports; i++) {
		fds[i] = dial_tcp(ip);
		if (fds[i] < 0)
			die("connection %u to %s: %s", i, ip, strerror(-fds[i]));
		assert_leased(fds[i], SHARED, ports);
		assert_false(seen[port_of(fds[i]) - FIRST]);
		seen[port_of(fds[i]) - FIRST] = true;
	}
	assert_int_equal(dial_tcp(ip), -EADDRNOTAVAIL);
}

static void abort_all(int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sock_abort(fds[i]);
}

static void test_tcp_each_port_serves_each_destination(void **state)
{
	int fds[N_FAR][4], served;
	struct end peer;
	char ip[INET_ADDRSTRLEN];

	(void)state;
	for (int i = 0; i < N_FAR; i++)
		fill(far[i], fds[i], 4);
	/* The far end sees the same. */
	served = server_accept(rig.servers[0]);
	peer = end_get(served, true);
	assert_string_equal(inet_ntop(AF_INET, &peer.v4.sin_addr, ip, sizeof(ip)), SHARED);
	assert_in_range(ntohs(peer.v4.sin_port), FIRST, FIRST + 3);
	close(served);
	abort_all(fds[0], 3 * 4);
}

static void test_refused_socket_goes_on(void **state)
{
	int fds[4], fd = sock_new(AF_INET, SOCK_STREAM, 0);

	(void)state;
	fill(far[0], fds, 4);
	assert_int_equal(sock_connect(fd, far[0], PORT), -EADDRNOTAVAIL);
	assert_int_equal(port_of(fd), 0);
	assert_int_equal(sock_flag(fd, SO_REUSEADDR), 0);
	/* A port comes back, and the same socket gets it. */
	sock_abort(fds[2]);
	assert_int_equal(sock_connect(fd, far[0], PORT), 0);
	assert_leased(fd, SHARED, 4);
	sock_abort(fds[0]);
	sock_abort(fds[1]);
	sock_abort(fds[3]);
	sock_abort(fd);
}

static void test_failed_connections_hold_nothing(void **state)
{
	(void)state;
	/* Nobody listens there: a RST each time. More often than there are ports, and faster than claims lapse. */
	for (int i = 0; i < 40; i++)
		assert_int_equal(dial(AF_INET, SOCK_STREAM, far[0], PORT + 1), -ECONNREFUSED);
}

/* The hook has chosen a port, and the kernel does not get as far as to connect. */
static void test_abandoned_tuple_comes_back(void **state)
{
	struct timespec begun, end;
	int r;

	(void)state;
	lease(1);
	clock_gettime(CLOCK_MONOTONIC, &begun);
	assert_int_equal(dial_tcp(NOWHERE), -ENETUNREACH);
	assert_int_equal(setns(rig.far_ns, CLONE_NEWNET), 0);
	run("ip addr add " NOWHERE "/32 dev lo");
	assert_int_equal(setns(rig.near_ns, CLONE_NEWNET), 0);
	run("ip route add " NOWHERE " via 198.51.100.2");
	/* Kept for a second, as of one who is about to connect, if we are as quick as that. Then nobody listens there. */
	r = dial_tcp(NOWHERE);
	clock_gettime(CLOCK_MONOTONIC, &end);
	if ((end.tv_sec - begun.tv_sec) * 1000 + (end.tv_nsec - begun.tv_nsec) / 1000000 < 900)
		assert_int_equal(r, -EADDRNOTAVAIL);
	wait_for((r = dial_tcp(NOWHERE)) == -ECONNREFUSED);
	run("ip route del " NOWHERE);
}

/* TIME_WAIT stays at the end that closes first. */
static void time_wait_make(const char *ip, int server)
{
	int fd, served;
	char byte;

	servers_drain();
	fd = dial_tcp(ip);
	served = server_accept(server);
	assert_true(fd >= 0);
	shutdown(fd, SHUT_WR);
	assert_int_equal(recv(served, &byte, 1, 0), 0);
	close(served);
	assert_int_equal(recv(fd, &byte, 1, 0), 0);
	close(fd);
}

static void test_time_wait_holds_the_tuple(void **state)
{
	struct sluice_exec e = exec_row(SHARED, 1);
	int fd;

	(void)state;
	/* It lasts for a minute: a port of this test's own. */
	e.first = e.last = FIRST + 500;
	lease_set(&e);
	time_wait_make(far[0], rig.servers[0]);
	assert_int_equal(dial_tcp(far[0]), -EADDRNOTAVAIL);
	/* Not for other destinations. */
	fd = dial_tcp(far[1]);
	assert_int_equal(port_of(fd), FIRST + 500);
	sock_abort(fd);
	/* The kernel lets the next connection follow after a second, if it is told to. */
	put("/proc/sys/net/ipv4/tcp_tw_reuse", "1");
	wait_for((fd = dial_tcp(far[0])) >= 0);
	put("/proc/sys/net/ipv4/tcp_tw_reuse", "0");
	assert_int_equal(port_of(fd), FIRST + 500);
	sock_abort(fd);
}

#define THREADS 8
#define EACH    8
#define ROUNDS  40

static struct {
	pthread_barrier_t barrier;
	int fds[THREADS][EACH];
	unsigned refused[THREADS];
} crowd;

static void *crowd_thread(void *arg)
{
	size_t me = (size_t)(uintptr_t)arg;

	for (int round = 0; round < ROUNDS; round++) {
		pthread_barrier_wait(&crowd.barrier);
		for (int i = 0; i < EACH; i++) {
			crowd.fds[me][i] = dial_tcp(far[0]);
			crowd.refused[me] += crowd.fds[me][i] < 0;
		}
		pthread_barrier_wait(&crowd.barrier);
		/* Here the main thread looks at them. */
		pthread_barrier_wait(&crowd.barrier);
		for (int i = 0; i < EACH; i++)
			sock_abort(crowd.fds[me][i]);
	}
	return NULL;
}

static void test_crowd_fills_the_lease_exactly(void **state)
{
	unsigned refused = 0, twice = 0, strange = 0;
	pthread_t t[THREADS];

	(void)state;
	lease(THREADS * EACH);
	memset(crowd.refused, 0, sizeof(crowd.refused));
	pthread_barrier_init(&crowd.barrier, NULL, THREADS + 1);
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, crowd_thread, (void *)i), 0);
	for (int round = 0; round < ROUNDS; round++) {
		bool seen[THREADS * EACH] = { false };

		pthread_barrier_wait(&crowd.barrier);
		pthread_barrier_wait(&crowd.barrier);
		for (int i = 0; i < THREADS * EACH; i++) {
			int fd = crowd.fds[i / EACH][i % EACH];
			unsigned port = fd >= 0 ? port_of(fd) - FIRST : 0;

			if (fd < 0)
				continue;
			if (port >= THREADS * EACH) {
				strange++;
				continue;
			}
			twice += seen[port];
			seen[port] = true;
		}
		servers_drain();
		pthread_barrier_wait(&crowd.barrier);
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(t[i], NULL);
		refused += crowd.refused[i];
	}
	pthread_barrier_destroy(&crowd.barrier);
	if (refused || twice || strange)
		die("of %d connections %u were refused, %u on a port that was taken, %u outside",
		    ROUNDS * THREADS * EACH, refused, twice, strange);
}

/* UDP */

/* A datagram there, and an answer back. */
static void echo(int fd, int server)
{
	struct pollfd p = { .fd = server, .events = POLLIN };
	struct end from = { .len = sizeof(from.v6) };
	char buf[8];

	assert_int_equal(send(fd, "ping", 4, 0), 4);
	if (poll(&p, 1, PATIENCE_MS) != 1)
		die("the datagram did not arrive");
	assert_int_equal(recvfrom(server, buf, sizeof(buf), 0, &from.sa, &from.len), 4);
	assert_int_equal(ntohs(from.v4.sin_port), port_of(fd));
	assert_int_equal(sendto(server, "pong!", 5, 0, &from.sa, from.len), 5);
	p.fd = fd;
	if (poll(&p, 1, PATIENCE_MS) != 1)
		die("the answer did not arrive");
	assert_int_equal(recv(fd, buf, sizeof(buf), 0), 5);
}

static void test_udp_one_port_a_socket(void **state)
{
	bool seen[4] = { false };
	int fds[4];

	(void)state;
	for (int i = 0; i < 4; i++) {
		fds[i] = sock_new(AF_INET, SOCK_DGRAM, 0);
		/* These would let the kernel give a port out twice. */
		sock_flag_set(fds[i], SO_REUSEADDR, 1);
		sock_flag_set(fds[i], SO_REUSEPORT, 1);
		assert_int_equal(sock_connect(fds[i], far[i % N_FAR], PORT), 0);
		assert_leased(fds[i], SHARED, 4);
		assert_false(seen[port_of(fds[i]) - FIRST]);
		seen[port_of(fds[i]) - FIRST] = true;
		assert_int_equal(sock_flag(fds[i], SO_REUSEADDR), 1);
		assert_int_equal(sock_flag(fds[i], SO_REUSEPORT), 1);
		echo(fds[i], rig.udp[i % N_FAR]);
	}
	for (int i = 0; i < N_FAR; i++)
		assert_int_equal(dial(AF_INET, SOCK_DGRAM, far[i], PORT), -EADDRNOTAVAIL);
	int more = sock_new(AF_INET, SOCK_DGRAM, 0);

	sock_flag_set(more, SO_REUSEADDR, 1);
	sock_flag_set(more, SO_REUSEPORT, 1);
	assert_int_equal(sock_connect(more, far[0], PORT), -EADDRNOTAVAIL);
	close(more);
	/* It may change its destination, and keeps its port. */
	unsigned port = port_of(fds[0]);

	assert_int_equal(sock_connect(fds[0], far[1], PORT), 0);
	assert_int_equal(port_of(fds[0]), port);
	close(fds[0]);
	fds[0] = dial(AF_INET, SOCK_DGRAM, far[2], PORT);
	assert_leased(fds[0], SHARED, 4);
	assert_int_equal(port_of(fds[0]), port);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}

/* A datagram from a socket that nobody has bound, with a source by IP_PKTINFO if src is given. */
static int send_from(int fd, const char *src, const char *dst)
{
	struct end to = end_of(dst, PORT);
	struct in_pktinfo info = { 0 };
	struct iovec iov = { "x", 1 };
	union {
		char buf[CMSG_SPACE(sizeof(info))];
		struct cmsghdr h;
	} c = { .h = { .cmsg_len = CMSG_LEN(sizeof(info)),
		       .cmsg_level = IPPROTO_IP,
		       .cmsg_type = IP_PKTINFO } };
	struct msghdr m = {
		.msg_name = &to.sa, .msg_namelen = to.len, .msg_iov = &iov, .msg_iovlen = 1
	};

	if (src) {
		info.ipi_spec_dst = end_of(src, 0).v4.sin_addr;
		memcpy(CMSG_DATA(&c.h), &info, sizeof(info));
		m.msg_control = &c;
		m.msg_controllen = sizeof(c.buf);
	}
	return sendmsg(fd, &m, 0) < 0 ? -errno : 0;
}

static void test_udp_unconnected(void **state)
{
	int fd = sock_new(AF_INET, SOCK_DGRAM, 0), bound = sock_new(AF_INET, SOCK_DGRAM, 0);
	int six = sock_new(AF_INET6, SOCK_DGRAM, 0);
	struct end to6 = end_of(far6[0], PORT);

	(void)state;
	/* The uplink translates it. */
	assert_int_equal(send_from(fd, NULL, far[0]), 0);
	assert_int_equal(send_from(fd, NEAR, far[0]), 0);
	/* A shared source with a port that is not of the lease. */
	assert_int_equal(send_from(fd, SHARED, far[0]), -EADDRNOTAVAIL);
	assert_int_equal(send_from(fd, SHARED2, far[0]), -EADDRNOTAVAIL);
	assert_int_equal(send_from(fd, NULL, "10.9.0.9"), 0);
	assert_int_equal(sock_bind(bound, SHARED, FIRST + 1), 0);
	assert_int_equal(send_from(bound, NULL, far[0]), 0);
	assert_int_equal(send_from(bound, SHARED, far[0]), 0);
	assert_int_equal(send_from(bound, SHARED2, far[0]), -EADDRNOTAVAIL);
	/* No such lease for the other family. */
	assert_int_equal(sendto(six, "x", 1, 0, &to6.sa, to6.len), -1);
	assert_int_equal(errno, ENETUNREACH);
	close(fd);
	close(bound);
	close(six);
}

/* Families */

static void test_dual_stack_sockets(void **state)
{
	int fds[5];
	unsigned n = 0;

	(void)state;
	for (int i = 0; i < 4; i++) {
		fds[i] = dial(AF_INET6, SOCK_STREAM, "::ffff:198.51.100.10", PORT);
		assert_leased(fds[i], "::ffff:" SHARED, 4);
		for (int j = 0; j < i; j++)
			n += port_of(fds[i]) == port_of(fds[j]);
	}
	assert_int_equal(n, 0);
	assert_int_equal(dial(AF_INET6, SOCK_STREAM, "::ffff:198.51.100.10", PORT), -EADDRNOTAVAIL);
	assert_int_equal(dial_tcp(far[0]), -EADDRNOTAVAIL);
	fds[4] = dial_tcp(far[1]);
	assert_leased(fds[4], SHARED, 4);
	abort_all(fds, 5);

	fds[0] = dial(AF_INET6, SOCK_DGRAM, "::ffff:198.51.100.10", PORT);
	assert_leased(fds[0], "::ffff:" SHARED, 4);
	echo(fds[0], rig.udp[0]);
	/* An IPv4 address given to an IPv6 socket: the hook for IPv4 runs. */
	fds[1] = dial(AF_INET6, SOCK_DGRAM, far[1], PORT);
	assert_leased(fds[1], "::ffff:" SHARED, 4);
	echo(fds[1], rig.udp[1]);
	close(fds[0]);
	close(fds[1]);
}

static void test_family_without_a_lease(void **state)
{
	struct sluice_exec six = exec_row(SHARED6, 4);

	(void)state;
	assert_int_equal(dial(AF_INET6, SOCK_STREAM, far6[0], PORT), -ENETUNREACH);
	assert_int_equal(dial(AF_INET6, SOCK_DGRAM, far6[0], PORT), -ENETUNREACH);
	lease_set(&six);
	assert_int_equal(dial_tcp(far[0]), -ENETUNREACH);
	assert_int_equal(dial(AF_INET, SOCK_DGRAM, far[0], PORT), -ENETUNREACH);
	assert_int_equal(dial(AF_INET6, SOCK_STREAM, "::ffff:198.51.100.10", PORT), -ENETUNREACH);
}

static void test_ipv6_lease(void **state)
{
	struct sluice_exec six = exec_row(SHARED6, 4);
	struct end to = end_of(far6[0], PORT);
	int fds[N_FAR][4], fd;

	(void)state;
	lease_set(&six);
	for (int i = 0; i < N_FAR; i++) {
		for (int j = 0; j < 4; j++) {
			fds[i][j] = dial(AF_INET6, SOCK_STREAM, far6[i], PORT);
			assert_leased(fds[i][j], SHARED6, 4);
		}
		assert_int_equal(dial(AF_INET6, SOCK_STREAM, far6[i], PORT), -EADDRNOTAVAIL);
	}
	abort_all(fds[0], 3 * 4);
	fd = dial(AF_INET6, SOCK_DGRAM, far6[0], PORT);
	assert_leased(fd, SHARED6, 4);
	echo(fd, rig.udp[N_FAR]);
	for (int i = 0; i < 3; i++)
		fds[0][i] = dial(AF_INET6, SOCK_DGRAM, far6[0], PORT);
	fds[0][3] = sock_new(AF_INET6, SOCK_DGRAM, 0);
	assert_int_equal(sock_bind(fds[0][3], SHARED6, 0), -EADDRNOTAVAIL);
	close(fd);
	assert_int_equal(sock_bind(fds[0][3], SHARED6, 0), 0);
	for (int i = 0; i < 4; i++)
		close(fds[0][i]);
	/* What the lease can't serve is translated at the uplink, as IPv4 is: here it keeps its own address. */
	fd = sock_new(AF_INET6, SOCK_DGRAM, 0);
	assert_int_equal(sendto(fd, "x", 1, 0, &to.sa, to.len), 1);
	close(fd);
	fd = sock_new(AF_INET6, SOCK_STREAM, 0);
	assert_int_equal(sock_bind(fd, "::", 45000), 0);
	assert_int_equal(sock_connect(fd, far6[0], PORT), 0);
	abort_all(&fd, 1);
	six.protos = 0;
	lease_set(&six);
	assert_int_equal(dial(AF_INET6, SOCK_STREAM, far6[0], PORT), -EADDRNOTAVAIL);
	fd = dial(AF_INET6, SOCK_STREAM, "::1", PORT);
	assert_int_equal(fd, -ECONNREFUSED);
}

/* Binding by oneself */

static void test_bind_judged(void **state)
{
	static const struct {
		const char *ip;
		unsigned port;
		int r;
	} cases[] = {
		{ SHARED, FIRST, 0 },
		{ SHARED, FIRST + 3, 0 },
		{ SHARED, FIRST - 1, -EADDRNOTAVAIL },
		{ SHARED, FIRST + 4, -EADDRNOTAVAIL },
		{ SHARED2, FIRST, -EADDRNOTAVAIL },
		{ SHARED2, 0, -EADDRNOTAVAIL },
		{ "0.0.0.0", FIRST + 9, 0 },
		{ "0.0.0.0", 0, 0 },
		{ "127.0.0.1", FIRST, 0 },
		{ NEAR, 0, 0 },
		{ "10.9.0.1", FIRST + 9, 0 },
		{ "192.0.2.200", 0, -EADDRNOTAVAIL }, /* the kernel's: nobody's address */
		{ "::ffff:" SHARED, FIRST, 0 },
		{ "::ffff:" SHARED, FIRST + 4, -EADDRNOTAVAIL },
		{ "::ffff:" SHARED2, 0, -EADDRNOTAVAIL },
		{ SHARED6, FIRST, -EADDRNOTAVAIL },
		{ "::1", FIRST, 0 },
		{ "::", 0, 0 },
	};
	const int types[] = { SOCK_STREAM, SOCK_DGRAM };

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		for (size_t t = 0; t < N(types); t++) {
			int fd = sock_new(strchr(cases[i].ip, ':') ? AF_INET6 : AF_INET, types[t],
					  0);
			int r = sock_bind(fd, cases[i].ip, cases[i].port);

			if (r != cases[i].r)
				die("bind to %s:%u, type %d: %d, expected %d", cases[i].ip,
				    cases[i].port, types[t], r, cases[i].r);
			close(fd);
		}
	}
}

static void test_bind_without_a_port(void **state)
{
	bool seen[4];
	int fds[5], fd;
	unsigned port;

	(void)state;
	for (int t = 0; t < 2; t++) {
		int type = t ? SOCK_DGRAM : SOCK_STREAM;

		memset(seen, 0, sizeof(seen));
		for (int i = 0; i < 4; i++) {
			fds[i] = sock_new(AF_INET, type, 0);
			assert_int_equal(sock_bind(fds[i], SHARED, 0), 0);
			assert_leased(fds[i], SHARED, 4);
			assert_false(seen[port_of(fds[i]) - FIRST]);
			seen[port_of(fds[i]) - FIRST] = true;
		}
		fd = sock_new(AF_INET, type, 0);
		assert_int_equal(sock_bind(fd, SHARED, 0), -EADDRNOTAVAIL);
		close(fds[3]);
		assert_int_equal(sock_bind(fd, SHARED, 0), 0);
		fds[3] = fd;
		assert_int_equal(sock_connect(fd, far[0], PORT), 0);
		assert_leased(fd, SHARED, 4);
		for (int i = 0; i < 4; i++)
			sock_abort(fds[i]);
	}
	/* TCP: also where connections are on every port. UDP: only where nobody is. */
	fill(far[0], fds, 4);
	fd = sock_new(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(sock_bind(fd, SHARED, 0), 0);
	assert_int_equal(sock_connect(fd, far[1], PORT), 0);
	sock_abort(fd);
	abort_all(fds, 4);
	for (int i = 0; i < 4; i++)
		fds[i] = dial(AF_INET, SOCK_DGRAM, far[0], PORT);
	fd = sock_new(AF_INET, SOCK_DGRAM, 0);
	assert_int_equal(sock_bind(fd, SHARED, 0), -EADDRNOTAVAIL);
	/* A port is known to be free again when its socket is closed. */
	port = port_of(fds[2]);
	close(fds[2]);
	assert_int_equal(sock_bind(fd, SHARED, 0), 0);
	assert_int_equal(port_of(fd), port);
	close(fd);
	fds[2] = dial(AF_INET6, SOCK_DGRAM, "::ffff:198.51.100.10", PORT);
	assert_int_equal(port_of(fds[2]), port);
	close(fds[2]);
	fds[2] = sock_new(AF_INET6, SOCK_DGRAM, 0);
	assert_int_equal(sock_bind(fds[2], "::ffff:" SHARED, 0), 0);
	assert_int_equal(port_of(fds[2]), port);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}

/* The same name in another network namespace is another port. */
static void test_ports_of_other_namespaces(void **state)
{
	int fds[4], there, fd;

	(void)state;
	for (int i = 0; i < 4; i++)
		fds[i] = dial(AF_INET, SOCK_DGRAM, far[0], PORT);
	assert_int_equal(setns(rig.far_ns, CLONE_NEWNET), 0);
	run("ip route replace local " SHARED " dev lo");
	there = sock_new(AF_INET, SOCK_DGRAM, 0);
	assert_int_equal(sock_bind(there, SHARED, port_of(fds[0])), 0);
	close(there);
	run("ip route del local " SHARED " dev lo");
	assert_int_equal(setns(rig.near_ns, CLONE_NEWNET), 0);
	fd = sock_new(AF_INET, SOCK_DGRAM, 0);
	assert_int_equal(sock_bind(fd, SHARED, 0), -EADDRNOTAVAIL);
	close(fd);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}

static void test_bound_sockets_connect(void **state)
{
	int fds[4], fd = sock_new(AF_INET, SOCK_STREAM, 0);

	(void)state;
	/* In the lease: as the program says. The others keep off its port. */
	sock_flag_set(fd, SO_REUSEADDR, 1);
	assert_int_equal(sock_bind(fd, SHARED, FIRST + 2), 0);
	assert_int_equal(sock_connect(fd, far[0], PORT), 0);
	assert_int_equal(port_of(fd), FIRST + 2);
	for (int i = 0; i < 3; i++) {
		fds[i] = dial_tcp(far[0]);
		assert_leased(fds[i], SHARED, 4);
		assert_int_not_equal(port_of(fds[i]), FIRST + 2);
	}
	assert_int_equal(dial_tcp(far[0]), -EADDRNOTAVAIL);
	abort_all(fds, 3);
	sock_abort(fd);
	/* On a wildcard, or the machine's own address: the uplink's business. */
	fd = sock_new(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(sock_bind(fd, "0.0.0.0", 45000), 0);
	assert_int_equal(sock_connect(fd, far[0], PORT), 0);
	assert_own(fd);
	sock_abort(fd);
	fd = sock_new(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(sock_bind(fd, NEAR, 0), 0);
	assert_int_equal(sock_connect(fd, far[0], PORT), 0);
	assert_own(fd);
	sock_abort(fd);
}

static void test_listeners_of_the_lease(void **state)
{
	int fd = sock_new(AF_INET, SOCK_STREAM, 0), fds[3];

	(void)state;
	assert_int_equal(sock_bind(fd, SHARED, FIRST + 1), 0);
	assert_int_equal(listen(fd, 1), 0);
	for (int i = 0; i < 3; i++) {
		fds[i] = dial_tcp(far[0]);
		assert_leased(fds[i], SHARED, 4);
		assert_int_not_equal(port_of(fds[i]), FIRST + 1);
	}
	assert_int_equal(dial_tcp(far[0]), -EADDRNOTAVAIL);
	abort_all(fds, 3);
	close(fd);
}

/* Destinations that are not the lease's business */

static void test_left_alone(void **state)
{
	int server = sock_new(AF_INET, SOCK_STREAM, 0), fd;

	(void)state;
	assert_int_equal(sock_bind(server, "127.0.0.1", 0), 0);
	assert_int_equal(listen(server, 8), 0);
	fd = dial(AF_INET, SOCK_STREAM, "127.0.0.1", port_of(server));
	assert_string_equal(ip_of(fd), "127.0.0.1");
	close(fd);
	/* The unspecified address is the machine itself. */
	fd = dial(AF_INET, SOCK_STREAM, "0.0.0.0", port_of(server));
	assert_string_equal(ip_of(fd), "127.0.0.1");
	close(fd);
	fd = dial(AF_INET6, SOCK_STREAM, "::ffff:127.0.0.1", port_of(server));
	assert_string_equal(ip_of(fd), "::ffff:127.0.0.1");
	close(fd);
	close(server);
	/* Inner networks, the machine's own addresses, multicast. */
	fd = dial(AF_INET, SOCK_DGRAM, "10.9.0.7", 9);
	assert_string_equal(ip_of(fd), "10.9.0.1");
	close(fd);
	fd = dial(AF_INET6, SOCK_DGRAM, "2001:db8:9::7", 9);
	assert_string_equal(ip_of(fd), "2001:db8:9::1");
	close(fd);
	fd = dial(AF_INET, SOCK_DGRAM, NEAR, 9);
	assert_own(fd);
	close(fd);
	run("ip route add 224.0.0.0/4 dev near && ip route add 169.254.0.0/16 dev near");
	fd = dial(AF_INET, SOCK_DGRAM, "239.1.2.3", 9);
	assert_own(fd);
	close(fd);
	fd = dial(AF_INET, SOCK_DGRAM, "169.254.1.1", 9);
	assert_own(fd);
	close(fd);
	/* no-nat is the pool's. A more specific route wins. */
	lpm_set(rig.bpf->maps.no_nat, POOL, far[1], 128, 1);
	lpm_set(rig.bpf->maps.no_nat, POOL + 1, far[2], 128, 1);
	fd = dial_tcp(far[1]);
	assert_own(fd);
	sock_abort(fd);
	fd = dial_tcp(far[2]);
	assert_leased(fd, SHARED, 4);
	sock_abort(fd);
	lpm_set(rig.bpf->maps.onlink, 0, "198.51.100.0", 120, 0);
	fd = dial_tcp(far[0]);
	assert_own(fd);
	sock_abort(fd);
	lpm_set(rig.bpf->maps.onlink, 0, far[0], 128, 1);
	fd = dial_tcp(far[0]);
	assert_leased(fd, SHARED, 4);
	sock_abort(fd);
	lpm_set(rig.bpf->maps.onlink, 0, "198.51.100.0", 120, 1);
	struct sluice_lpm_key key = { .prefixlen = SLUICE_LPM_POOL_BITS + 128, .pool = POOL };

	key.addr = abi_addr(far[1]);
	assert_int_equal(bpf_map_delete_elem(bpf_map__fd(rig.bpf->maps.no_nat), &key), 0);
}

static void test_protocol_without_a_lease(void **state)
{
	struct sluice_exec udp = exec_row(SHARED, 4);
	int fd;

	(void)state;
	udp.protos = 1 << SLUICE_UDP;
	lease_set(&udp);
	/* Translated at the uplink. */
	fd = dial_tcp(far[0]);
	assert_own(fd);
	sock_abort(fd);
	fd = sock_new(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(sock_bind(fd, SHARED, 0), -EADDRNOTAVAIL);
	assert_int_equal(sock_bind(fd, SHARED, FIRST), -EADDRNOTAVAIL);
	close(fd);
	fd = dial(AF_INET, SOCK_DGRAM, far[0], PORT);
	assert_leased(fd, SHARED, 4);
	close(fd);
}

static void test_exclusive_lease(void **state)
{
	struct sluice_exec alone = exec_row(SHARED, 2);
	int fds[2];

	(void)state;
	alone.kind = SLUICE_LEASE_EXCLUSIVE;
	lease_set(&alone);
	for (int i = 0; i < 2; i++) {
		fds[i] = sock_new(AF_INET, SOCK_STREAM, 0);
		sock_flag_set(fds[i], SO_REUSEADDR, 1);
		assert_int_equal(sock_connect(fds[i], far[i], PORT), 0);
		assert_leased(fds[i], SHARED, 2);
		assert_int_equal(sock_flag(fds[i], SO_REUSEADDR), 1);
	}
	assert_int_not_equal(port_of(fds[0]), port_of(fds[1]));
	assert_int_equal(dial_tcp(far[2]), -EADDRNOTAVAIL);
	abort_all(fds, 2);
	fds[0] = dial_tcp(far[2]);
	assert_leased(fds[0], SHARED, 2);
	sock_abort(fds[0]);
	/* A connection in TIME_WAIT keeps its own tuple only. */
	alone.first = alone.last = FIRST + 510;
	lease_set(&alone);
	time_wait_make(far[0], rig.servers[0]);
	assert_int_equal(dial_tcp(far[0]), -EADDRNOTAVAIL);
	fds[0] = dial_tcp(far[1]);
	assert_int_equal(port_of(fds[0]), FIRST + 510);
	assert_int_equal(dial_tcp(far[2]), -EADDRNOTAVAIL);
	sock_abort(fds[0]);
}

/* Sockets of special kinds */

static void test_bound_to_a_device(void **state)
{
	int fds[4], fd = sock_new(AF_INET, SOCK_STREAM, 0);

	(void)state;
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "near", 4), 0);
	assert_int_equal(sock_connect(fd, far[0], PORT), 0);
	assert_leased(fd, SHARED, 4);
	/* It has its port for itself: nobody could see it on its tuple. */
	for (int i = 0; i < 3; i++) {
		fds[i] = dial_tcp(far[0]);
		assert_leased(fds[i], SHARED, 4);
		assert_int_not_equal(port_of(fds[i]), port_of(fd));
	}
	assert_int_equal(dial_tcp(far[0]), -EADDRNOTAVAIL);
	assert_int_equal(dial_tcp(far[1]) < 0, false);
	abort_all(fds, 3);
	sock_abort(fd);
	/* Not an uplink. */
	fd = sock_new(AF_INET, SOCK_DGRAM, 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "inner", 5), 0);
	assert_int_equal(sock_connect(fd, far[0], PORT), 0);
	assert_string_equal(ip_of(fd), "10.9.0.1");
	close(fd);
	/* An uplink, though the routing table would lead elsewhere. */
	fd = sock_new(AF_INET, SOCK_DGRAM, 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "near", 4), 0);
	assert_int_equal(sock_connect(fd, "10.9.0.7", PORT), 0);
	assert_leased(fd, SHARED, 4);
	close(fd);
}

static void test_mptcp(void **state)
{
	struct sluice_exec e = exec_row(SHARED, 4);
	int fds[4], fd;
	char byte;

	(void)state;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);
	if (fd < 0) {
		print_message("no MPTCP here: %s\n", strerror(errno));
		skip();
	}
	close(fd);
	/* The kernel makes and ends such connections by itself, so claims lapse only after a second: ports of this test's own. */
	e.first += 600;
	e.last += 600;
	lease_set(&e);
	for (int i = 0; i < 4; i++) {
		fds[i] = sock_new(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
		assert_int_equal(sock_connect(fds[i], far[0], PORT), 0);
		assert_string_equal(ip_of(fds[i]), SHARED);
		assert_in_range(port_of(fds[i]), e.first, e.last);
	}
	fd = sock_new(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
	assert_int_equal(sock_connect(fd, far[0], PORT), -EADDRNOTAVAIL);
	close(fd);
	int served = server_accept(rig.servers[0]);

	assert_int_equal(send(served, "x", 1, 0), 1);
	struct pollfd p[4] = { { fds[0], POLLIN, 0 },
			       { fds[1], POLLIN, 0 },
			       { fds[2], POLLIN, 0 },
			       { fds[3], POLLIN, 0 } };

	assert_int_equal(poll(p, 4, PATIENCE_MS), 1);
	for (int i = 0; i < 4; i++)
		if (p[i].revents)
			assert_int_equal(recv(fds[i], &byte, 1, 0), 1);
	close(served);
	abort_all(fds, 4);
	fd = sock_new(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
	assert_int_equal(sock_bind(fd, SHARED2, 0), -EADDRNOTAVAIL);
	assert_int_equal(sock_bind(fd, SHARED, 0), 0);
	assert_in_range(port_of(fd), e.first, e.last);
	close(fd);
}

static void test_fast_open(void **state)
{
	int fd = sock_new(AF_INET, SOCK_STREAM, 0);
	struct end to = end_of(far[0], PORT);

	(void)state;
	/* Without a cookie it is an ordinary connect() inside of sendto(). */
	assert_int_equal(sendto(fd, "x", 1, MSG_FASTOPEN, &to.sa, to.len), 1);
	assert_leased(fd, SHARED, 4);
	sock_abort(fd);
}

/* Whose processes */

/* Runs fn in a child, which exits with what it returns. */
static void in_child(bool (*fn)(void *arg), void *arg)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid)
		_exit(fn(arg) ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static bool child_dials(void *arg)
{
	int fd = dial_tcp(far[0]);
	bool good = fd >= 0 && !strcmp(ip_of(fd), arg);

	if (fd >= 0)
		sock_abort(fd);
	return good;
}

static bool child_dials_in(void *arg)
{
	char path[PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s/cgroup.procs", (const char *)arg);
	put(path, "0");
	return child_dials(strstr(arg, "/exec-") ? SHARED : NEAR);
}

static void test_children_and_nested_groups(void **state)
{
	char path[PATH_MAX], sub[PATH_MAX + 8], other[PATH_MAX + 8];

	(void)state;
	in_child(child_dials, SHARED);
	snprintf(path, sizeof(path), "%s%s", cgroups_root(rig.cgs),
		 cgroup_path(rig.cgs, LEASE, sub));
	snprintf(sub, sizeof(sub), "%s/a", path);
	assert_int_equal(mkdir(sub, 0755), 0);
	snprintf(other, sizeof(other), "%s/a/b", path);
	assert_int_equal(mkdir(other, 0755), 0);
	in_child(child_dials_in, sub);
	in_child(child_dials_in, other);
	rmdir(other);
	rmdir(sub);
	/* A group beside it, of nobody's lease. */
	snprintf(other, sizeof(other), "%s/other", cgroups_dir(rig.cgs));
	assert_int_equal(mkdir(other, 0755), 0);
	in_child(child_dials_in, other);
	rmdir(other);
}

static void test_socket_from_outside(void **state)
{
	int fd, ours;

	(void)state;
	ours = sock_new(AF_INET, SOCK_STREAM, 0);
	leave();
	fd = sock_new(AF_INET, SOCK_STREAM, 0);
	/* Ours, in the hands of a process that is not: the hooks run, and find no lease. */
	assert_int_equal(sock_connect(ours, far[0], PORT), 0);
	assert_own(ours);
	enter();
	/* The kernel goes by the group that a socket was made in. */
	assert_int_equal(sock_connect(fd, far[0], PORT), 0);
	assert_own(fd);
	sock_abort(fd);
	sock_abort(ours);
}

static void test_other_namespace(void **state)
{
	int fd, near = sock_new(AF_INET, SOCK_STREAM, 0);

	(void)state;
	/* From the far end's namespace, which is not the daemon's. */
	assert_int_equal(setns(rig.far_ns, CLONE_NEWNET), 0);
	fd = dial(AF_INET, SOCK_STREAM, far[0], PORT);
	assert_true(fd >= 0);
	assert_string_equal(ip_of(fd), far[0]);
	sock_abort(fd);
	/* The socket's namespace counts, not the process's. */
	assert_int_equal(sock_connect(near, far[0], PORT), 0);
	assert_leased(near, SHARED, 4);
	sock_abort(near);
	assert_int_equal(setns(rig.near_ns, CLONE_NEWNET), 0);
}

static void test_owners_are_noted(void **state)
{
	struct sluice_owner o;
	socklen_t len = sizeof(uint64_t);
	uint64_t cookie;
	int fds[3];

	(void)state;
	fds[0] = dial_tcp(far[0]);
	fds[1] = dial(AF_INET, SOCK_DGRAM, far[0], PORT);
	fds[2] = sock_new(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(sock_bind(fds[2], SHARED, 0), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(getsockopt(fds[i], SOL_SOCKET, SO_COOKIE, &cookie, &len), 0);
		assert_int_equal(
			bpf_map_lookup_elem(bpf_map__fd(rig.bpf->maps.owners), &cookie, &o), 0);
		assert_int_equal(o.pid, getpid());
		assert_int_equal(o.uid, 0);
		assert_int_equal(o.cgroup, rig.group);
		assert_string_equal(o.comm, program_invocation_short_name);
		/* Until it is closed. */
		sock_abort(fds[i]);
		assert_int_equal(
			bpf_map_lookup_elem(bpf_map__fd(rig.bpf->maps.owners), &cookie, &o),
			-ENOENT);
	}
}

static void test_lease_that_ended(void **state)
{
	struct sluice_exec ended = exec_row(SHARED, 4);
	int fd;

	(void)state;
	/* Its processes go on, but not to the outside. */
	ended.protos = 0;
	lease_set(&ended);
	assert_int_equal(dial_tcp(far[0]), -EADDRNOTAVAIL);
	assert_int_equal(dial(AF_INET, SOCK_DGRAM, far[0], PORT), -EADDRNOTAVAIL);
	assert_int_equal(dial(AF_INET6, SOCK_DGRAM, far6[0], PORT), -EADDRNOTAVAIL);
	fd = sock_new(AF_INET, SOCK_DGRAM, 0);
	assert_int_equal(send_from(fd, NULL, far[0]), -EADDRNOTAVAIL);
	assert_int_equal(send_from(fd, NULL, "10.9.0.9"), 0);
	close(fd);
	fd = sock_new(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(sock_bind(fd, SHARED, FIRST), -EADDRNOTAVAIL);
	assert_int_equal(sock_bind(fd, SHARED, 0), -EADDRNOTAVAIL);
	assert_int_equal(sock_bind(fd, "0.0.0.0", 45000), 0);
	assert_int_equal(sock_connect(fd, far[0], PORT), -EADDRNOTAVAIL);
	close(fd);
	/* No row, none of ours. */
	assert_int_equal(bpf_map_delete_elem(bpf_map__fd(rig.bpf->maps.execs), &rig.group), 0);
	fd = dial_tcp(far[0]);
	assert_own(fd);
	sock_abort(fd);
}

#define T(name) cmocka_unit_test_setup_teardown(name, test_begin, test_end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_tcp_each_port_serves_each_destination),
		T(test_refused_socket_goes_on),
		T(test_failed_connections_hold_nothing),
		T(test_abandoned_tuple_comes_back),
		T(test_time_wait_holds_the_tuple),
		T(test_crowd_fills_the_lease_exactly),
		T(test_udp_one_port_a_socket),
		T(test_udp_unconnected),
		T(test_dual_stack_sockets),
		T(test_family_without_a_lease),
		T(test_ipv6_lease),
		T(test_bind_judged),
		T(test_bind_without_a_port),
		T(test_ports_of_other_namespaces),
		T(test_bound_sockets_connect),
		T(test_listeners_of_the_lease),
		T(test_left_alone),
		T(test_protocol_without_a_lease),
		T(test_exclusive_lease),
		T(test_bound_to_a_device),
		T(test_mptcp),
		T(test_fast_open),
		T(test_children_and_nested_groups),
		T(test_socket_from_outside),
		T(test_other_namespace),
		T(test_owners_are_noted),
		T(test_lease_that_ended),
	};

	return cmocka_run_group_tests_name("exechooks", tests, rig_open, rig_close);
}
