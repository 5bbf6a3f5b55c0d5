// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the netfilter program tells of a rewrite, compared with what everybody else knows: the sockets' own names, the process, the far end, and the connection tracking
 * entry.
 */
#include "nfwatch_rig.h"

#include <pthread.h>
#include <sys/resource.h>

/* The whole case of one family and protocol: who holds, who collides, what is told, what is not. */
static void collide(const struct side *s, int type)
{
	uint16_t port = next_port++, wire;
	struct sluice_watch_stats before, after;
	int holder = hold(s, type, port, s->origin, SERVICE), conn;
	int fd = sock_bound(s->family, type, s->shared, port);
	struct expect e = expecting(s, type, fd);
	uint64_t cookie = cookie_of(fd);

	before = nfwatch_stats(watch);
	e.since_ns = now_ns();
	sock_connect(fd, s->family, s->origin, SERVICE);
	if (type == SOCK_DGRAM)
		assert_int_equal(send(fd, "x", 1, 0), 1);
	assert_int_equal(told(), 1);
	must_be(&records[0], &e, cookie);
	wire = arrives(s, type, &conn);
	assert_int_equal(ntohs(records[0].reply_dport), wire);

	/* It is told once: not with the second datagram, nor with what follows the handshake. */
	wait_for(send(fd, "y", 1, 0) == 1);
	if (conn >= 0)
		assert_int_equal(recv(conn, &(char){ 0 }, 1, 0), 1);
	else
		assert_int_equal(arrives(s, type, &conn), wire);
	assert_int_equal(told(), 0);
	after = nfwatch_stats(watch);
	assert_int_equal(after.seen - before.seen, 1);
	assert_int_equal(after.sent - before.sent, 1);
	assert_int_equal(after.lost - before.lost, 0);
	close(fd);
	close(holder);
	if (conn >= 0)
		close(conn);
}

static void test_tcp4(void **state)
{
	(void)state;
	collide(V4, SOCK_STREAM);
}

static void test_tcp6(void **state)
{
	(void)state;
	collide(&sides[1], SOCK_STREAM);
}

static void test_udp4(void **state)
{
	(void)state;
	collide(V4, SOCK_DGRAM);
}

static void test_udp6(void **state)
{
	(void)state;
	collide(&sides[1], SOCK_DGRAM);
}

/* sendto() of a socket that is not connected: each destination is a connection of its own. */
static void test_unconnected(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2; i++) {
		const struct side *s = &sides[i];
		uint16_t port = next_port++;
		int holder = hold(s, SOCK_DGRAM, port, s->origin, SERVICE), conn;
		int fd = sock_bound(s->family, SOCK_DGRAM, s->shared, port);
		struct expect e = expecting(s, SOCK_DGRAM, fd);
		uint64_t cookie = cookie_of(fd);

		/* Nobody else has this one's tuple. */
		sock_send(fd, s->family, s->nobody, SERVICE);
		assert_int_equal(told(), 0);
		sock_send(fd, s->family, s->origin, SERVICE);
		assert_int_equal(told(), 1);
		must_be(&records[0], &e, cookie);
		assert_int_equal(ntohs(records[0].reply_dport), arrives(s, SOCK_DGRAM, &conn));
		sock_send(fd, s->family, s->origin, SERVICE);
		arrives(s, SOCK_DGRAM, &conn);
		assert_int_equal(told(), 0);
		close(fd);
		close(holder);
	}
}

/* A socket of the wildcard address, of either family, that the routing gave the shared one. */
static void test_mapped(void **state)
{
	uint16_t port = next_port++;
	int holder = hold(V4, SOCK_DGRAM, port, V4->origin, SERVICE), conn;
	int fd = sock_bound(AF_INET6, SOCK_DGRAM, V4->shared, port);
	struct expect e = expecting(V4, SOCK_DGRAM, fd);
	uint64_t cookie = cookie_of(fd);

	(void)state;
	sock_send(fd, AF_INET6, V4->origin, SERVICE);
	assert_int_equal(told(), 1);
	must_be(&records[0], &e, cookie);
	arrives(V4, SOCK_DGRAM, &conn);
	close(fd);
	close(holder);
}

/* A cookie is given on demand; nobody has asked for this socket's, or another program of this machine has. */
static void test_no_cookie(void **state)
{
	uint16_t port = next_port++;
	int holder = hold(V4, SOCK_DGRAM, port, V4->origin, SERVICE), conn;
	int fd = sock_bound(AF_INET, SOCK_DGRAM, V4->shared, port);

	(void)state;
	sock_send(fd, AF_INET, V4->origin, SERVICE);
	assert_int_equal(told(), 1);
	if (records[0].cookie)
		assert_int_equal(records[0].cookie, cookie_of(fd));
	arrives(V4, SOCK_DGRAM, &conn);
	close(fd);
	close(holder);
}

/* The owner is the descriptor's, whoever made it. */
static void test_uid(void **state)
{
	uint16_t port = next_port++;
	int holder = hold(V4, SOCK_DGRAM, port, V4->origin, SERVICE), conn;
	int fd = sock_bound(AF_INET, SOCK_DGRAM, V4->shared, port);
	struct expect e = expecting(V4, SOCK_DGRAM, fd);
	uint64_t cookie = cookie_of(fd);

	(void)state;
	assert_int_equal(fchown(fd, 4711, (gid_t)-1), 0);
	e.uid = 4711;
	sock_send(fd, AF_INET, V4->origin, SERVICE);
	assert_int_equal(told(), 1);
	must_be(&records[0], &e, cookie);
	arrives(V4, SOCK_DGRAM, &conn);
	close(fd);
	close(holder);
}

static void test_zone(void **state)
{
	uint16_t port = next_port++;
	int holder = hold(V4, SOCK_DGRAM, port, V4->origin, ZONED);
	int fd = sock_bound(AF_INET, SOCK_DGRAM, V4->shared, port);
	struct expect e = expecting(V4, SOCK_DGRAM, fd);
	uint64_t cookie = cookie_of(fd);

	(void)state;
	e.dport = ZONED;
	e.zone = ZONE;
	sock_send(fd, AF_INET, V4->origin, ZONED);
	assert_int_equal(told(), 1);
	must_be(&records[0], &e, cookie);
	close(fd);
	close(holder);
}

static void test_helper(void **state)
{
	uint16_t port = next_port++;
	int holder = hold(V4, SOCK_DGRAM, port, V4->origin, HELPED);
	int fd = sock_bound(AF_INET, SOCK_DGRAM, V4->shared, port);
	struct expect e = expecting(V4, SOCK_DGRAM, fd);
	uint64_t cookie = cookie_of(fd);

	(void)state;
	e.dport = HELPED;
	e.helper = true;
	sock_send(fd, AF_INET, V4->origin, HELPED);
	assert_int_equal(told(), 1);
	must_be(&records[0], &e, cookie);
	close(fd);
	close(holder);
}

/* Who sends */

/* Another process sends, with the descriptor that it inherited. */
static void test_child(void **state)
{
	(void)state;
	for (int type = SOCK_STREAM; type <= SOCK_DGRAM; type++) {
		uint16_t port = next_port++;
		int holder = hold(V4, type, port, V4->origin, SERVICE), conn, status;
		int fd = sock_bound(AF_INET, type, V4->shared, port);
		struct expect e = expecting(V4, type, fd);
		uint64_t cookie = cookie_of(fd);
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (!pid) {
			struct sockaddr_storage ss;
			socklen_t len = sockaddr_of(AF_INET, V4->origin, SERVICE, &ss);

			prctl(PR_SET_NAME, "slab child");
			connect(fd, (struct sockaddr *)&ss, len);
			_exit(type == SOCK_DGRAM && send(fd, "x", 1, 0) != 1);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		e.pid = (uint32_t)pid;
		e.comm = "slab child";
		assert_int_equal(told(), 1);
		must_be(&records[0], &e, cookie);
		arrives(V4, type, &conn);
		if (conn >= 0)
			close(conn);
		close(fd);
		close(holder);
	}
}

/* A thread sends: the process is told, by the name of its thread. */
static void *thread_sends(void *arg)
{
	const int *fd = arg;

	prctl(PR_SET_NAME, "slab thread");
	sock_send(*fd, AF_INET, V4->origin, SERVICE);
	return NULL;
}

static void test_thread(void **state)
{
	uint16_t port = next_port++;
	int holder = hold(V4, SOCK_DGRAM, port, V4->origin, SERVICE), conn;
	int fd = sock_bound(AF_INET, SOCK_DGRAM, V4->shared, port);
	struct expect e = expecting(V4, SOCK_DGRAM, fd);
	uint64_t cookie = cookie_of(fd);
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, thread_sends, &fd), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	e.comm = "slab thread";
	assert_int_equal(told(), 1);
	must_be(&records[0], &e, cookie);
	arrives(V4, SOCK_DGRAM, &conn);
	close(fd);
	close(holder);
}

/* A UDP socket among many descriptors is found; beyond the program's patience it is nobody's. A TCP socket is its sender's in any case. */
static void test_high_fd(void **state)
{
	static const struct {
		int type, fd;
		bool found;
	} cases[] = {
		{ SOCK_DGRAM, 63, true },     { SOCK_DGRAM, 64, true },
		{ SOCK_DGRAM, 5000, true },   { SOCK_DGRAM, 16383, true },
		{ SOCK_DGRAM, 16384, false }, { SOCK_STREAM, 16384, true },
	};
	struct rlimit old, lim;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	lim = old;
	lim.rlim_cur = 20000;
	if (lim.rlim_max < lim.rlim_cur)
		lim.rlim_max = lim.rlim_cur;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &lim), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint16_t port = next_port++;
		int holder = hold(V4, cases[i].type, port, V4->origin, SERVICE), conn;
		int low = sock_bound(AF_INET, cases[i].type, V4->shared, port), fd = cases[i].fd;
		struct expect e = expecting(V4, cases[i].type, fd);
		uint64_t cookie = cookie_of(low);

		assert_int_equal(dup2(low, fd), fd);
		close(low);
		sock_connect(fd, AF_INET, V4->origin, SERVICE);
		if (cases[i].type == SOCK_DGRAM)
			assert_int_equal(send(fd, "x", 1, 0), 1);
		assert_int_equal(told(), 1);
		if (!cases[i].found) {
			e.pid = 0;
			e.comm = "";
		}
		must_be(&records[0], &e, cookie);
		arrives(V4, cases[i].type, &conn);
		if (conn >= 0)
			close(conn);
		close(fd);
		close(holder);
	}
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
}

/*
 * A SYN that is sent again is nothing new, unless its entry has gone meanwhile. The kernel sends it by itself, from a timer that interrupts whatever runs:
 * this test, which keeps the timer's CPU busy, and has the socket open, but does not send.
 */
static void test_retransmission(void **state)
{
	uint16_t port = next_port++;
	int holder = hold(V4, SOCK_STREAM, port, NOBODY, SERVICE);
	int fd = sock_bound(AF_INET, SOCK_STREAM, V4->shared, port);
	struct expect e = expecting(V4, SOCK_STREAM, fd);
	uint64_t cookie = cookie_of(fd), deadline;
	cpu_set_t old, one;

	(void)state;
	e.dst = NOBODY;
	assert_int_equal(sched_getaffinity(0, sizeof(old), &old), 0);
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	sock_connect(fd, AF_INET, NOBODY, SERVICE);
	assert_int_equal(told(), 1);
	must_be(&records[0], &e, cookie);
	assert_true(ask(NFCT_Q_DESTROY, AF_INET, SOCK_STREAM, V4->shared, port, NOBODY, SERVICE, 0)
			    .found);

	deadline = now_ns() + 10000000000;
	while (!told() && now_ns() < deadline)
		;
	assert_int_equal(sched_setaffinity(0, sizeof(old), &old), 0);
	assert_int_equal(n_records, 1);
	e.pid = 0;
	e.comm = "";
	must_be(&records[0], &e, cookie);
	close(fd);
	close(holder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_tcp4),        CASE(test_tcp6),
		CASE(test_udp4),        CASE(test_udp6),
		CASE(test_unconnected), CASE(test_mapped),
		CASE(test_no_cookie),   CASE(test_uid),
		CASE(test_zone),        CASE(test_helper),
		CASE(test_child),       CASE(test_thread),
		CASE(test_high_fd),     CASE(test_retransmission),
	};

	return skip_all() ? 0 : cmocka_run_group_tests(tests, lab_up, lab_down);
}
