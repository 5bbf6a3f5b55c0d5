// SPDX-License-Identifier: BSD-2-Clause
/* What the netfilter program keeps to itself, and how its ring, its namespaces and its capabilities are dealt with. */
#include "nfwatch_rig.h"

#include <netinet/udp.h>

/* Nothing to tell */

/* Counts what the program saw while something was done, and that it told nothing. */
#define silent(first_packets, what)                                                 \
	do {                                                                        \
		uint64_t seen_ = nfwatch_stats(watch).seen;                         \
                                                                                    \
		what;                                                               \
		assert_int_equal(told(), 0);                                        \
		assert_int_equal(nfwatch_stats(watch).seen - seen_, first_packets); \
	} while (0)

/* Open a connection or send a datagram in a namespace; the port that the origin saw, 0 when it is no shared address's. */
static uint16_t dial(int ns, const struct side *s, int type, const char *from, uint16_t port,
		     const char *to)
{
	int fd, conn;

	enter(ns);
	fd = sock_bound(s->family, type, from, port);
	sock_connect(fd, s->family, to, SERVICE);
	if (type == SOCK_DGRAM)
		assert_int_equal(send(fd, "x", 1, 0), 1);
	enter(edge);
	port = arrives(s, type, &conn);
	if (conn >= 0)
		close(conn);
	close(fd);
	return port;
}

static void test_plain(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2; i++) {
		const struct side *s = &sides[i];

		for (int type = SOCK_STREAM; type <= SOCK_DGRAM; type++) {
			uint16_t port = next_port++;

			silent(1, assert_int_equal(dial(edge, s, type, s->shared, port, s->origin),
						   port));
			silent(1, dial(edge, s, type, s->plain, next_port++, s->origin));
		}
	}
}

/* Forwarded flows are nobody's here, even when they are rewritten. */
static void test_forwarded(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2; i++) {
		const struct side *s = &sides[i];

		for (int type = SOCK_STREAM; type <= SOCK_DGRAM; type++) {
			uint16_t port = next_port++, wire;

			silent(0, assert_int_equal(
					  dial(client, s, type, s->client, port, s->origin), port));
			silent(0, wire = dial(client, s, type, s->client2, port, s->origin));
			assert_int_not_equal(wire, 0);
			assert_int_not_equal(wire, port);
		}
	}
}

/* A local socket whose address is translated: a rule wants that, and the port comes with it. */
static void test_masqueraded(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2; i++) {
		const struct side *s = &sides[i];

		for (int type = SOCK_STREAM; type <= SOCK_DGRAM; type++) {
			uint16_t port = next_port++, wire;
			int holder = hold(s, type, port, s->origin, SERVICE);

			silent(1, wire = dial(edge, s, type, s->inner, port, s->origin));
			assert_int_not_equal(wire, 0);
			assert_int_not_equal(wire, port);
			close(holder);
		}
	}
}

static void test_dnat(void **state)
{
	uint16_t port = next_port++;

	(void)state;
	silent(1, assert_int_equal(dial(edge, V4, SOCK_STREAM, V4->shared, port, DECOY), port));
	port = next_port++;
	silent(1, assert_int_equal(dial(edge, V4, SOCK_DGRAM, V4->shared, port, DECOY), port));
}

/* Whoever makes up his own packets has no port that could be taken from him. */
static void raw_sends(int raw, uint16_t port, uint16_t *ret_wire)
{
	struct udphdr udp = { .source = htons(port), .dest = htons(SERVICE), .len = htons(9) };
	char packet[sizeof(udp) + 1] = { 0 };
	struct sockaddr_storage ss;
	socklen_t len = sockaddr_of(AF_INET, V4->origin, 0, &ss);
	int conn;

	memcpy(packet, &udp, sizeof(udp));
	assert_int_equal(sendto(raw, packet, sizeof(packet), 0, (struct sockaddr *)&ss, len),
			 sizeof(packet));
	*ret_wire = arrives(V4, SOCK_DGRAM, &conn);
}

static void test_raw(void **state)
{
	uint16_t port = next_port++, wire;
	int holder = hold(V4, SOCK_DGRAM, port, V4->origin, SERVICE);
	int raw = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_UDP);
	struct sockaddr_storage ss;
	socklen_t len = sockaddr_of(AF_INET, V4->shared, 0, &ss);

	(void)state;
	assert_true(raw >= 0);
	assert_int_equal(bind(raw, (struct sockaddr *)&ss, len), 0);
	silent(1, raw_sends(raw, port, &wire));
	assert_int_not_equal(wire, 0);
	assert_int_not_equal(wire, port);
	close(raw);
	close(holder);
}

/* A service at the shared address answers. */
static void answers(const struct side *s, int type)
{
	uint16_t port = next_port++;
	int service = sock_bound(s->family, type, s->shared, port), fd, conn = -1;
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	char byte;

	if (type == SOCK_STREAM)
		assert_int_equal(listen(service, 4), 0);
	enter(origin);
	fd = sock_bound(s->family, type, s->origin, next_port++);
	sock_connect(fd, s->family, s->shared, port);
	if (type == SOCK_DGRAM)
		assert_int_equal(send(fd, "q", 1, 0), 1);
	enter(edge);
	readable(service);
	if (type == SOCK_STREAM) {
		conn = accept4(service, NULL, NULL, SOCK_CLOEXEC);
		assert_int_equal(send(conn, "a", 1, 0), 1);
	} else {
		assert_int_equal(recvfrom(service, &byte, 1, 0, (struct sockaddr *)&ss, &len), 1);
		assert_int_equal(sendto(service, "a", 1, 0, (struct sockaddr *)&ss, len), 1);
	}
	readable(fd);
	close(service);
	close(fd);
	if (conn >= 0)
		close(conn);
}

static void test_replies(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2; i++) {
		silent(0, answers(&sides[i], SOCK_STREAM));
		silent(0, answers(&sides[i], SOCK_DGRAM));
	}
}

/* The watcher */

/* The other machine collides on its loopback: 10.1.0.2 is translated to the shared address, then comes the shared address itself. */
static void collide_other(uint16_t first, unsigned n, int sink)
{
	for (uint16_t port = first; n--; port++) {
		int holder = sock_bound(AF_INET, SOCK_DGRAM, V4->client, port);
		int fd = sock_bound(AF_INET, SOCK_DGRAM, V4->shared, port);

		sock_send(holder, AF_INET, V4->origin, SERVICE);
		sock_send(fd, AF_INET, V4->origin, SERVICE);
		close(holder);
		close(fd);
		while (recv(sink, &(char){ 0 }, 1, 0) == 1)
			;
	}
}

static void test_namespaces(void **state)
{
	uint16_t port = next_port++;
	int holder = hold(V4, SOCK_DGRAM, port, V4->origin, SERVICE), fd, sink, conn;
	struct errtext err = { "" };

	(void)state;
	/* Not yet watched. */
	enter(other);
	sink = sock_bound(AF_INET, SOCK_DGRAM, V4->origin, SERVICE);
	collide_other(20000, 1, sink);
	assert_int_equal(told(), 0);
	assert_int_equal(nfwatch_attach(watch, &err), 0);
	/* A second time means nothing. */
	assert_int_equal(nfwatch_attach(watch, &err), 0);

	enter(edge);
	fd = sock_bound(AF_INET, SOCK_DGRAM, V4->shared, port);
	sock_send(fd, AF_INET, V4->origin, SERVICE);
	enter(other);
	collide_other(port, 1, sink);
	assert_int_equal(told(), 2);
	assert_int_equal(records[0].netns, netns_inode(edge));
	assert_int_equal(records[1].netns, netns_inode(other));
	assert_int_equal(records[0].sport, records[1].sport);
	assert_memory_equal(&records[0].src, &records[1].src, sizeof(records[0].src));
	enter(edge);
	arrives(V4, SOCK_DGRAM, &conn);
	close(sink);
	close(fd);
	close(holder);
}

/* The descriptor is readable as long as there is something, and no more is handed over than was asked for. */
static void test_read(void **state)
{
	struct pollfd p = { .fd = nfwatch_fd(watch), .events = POLLIN };
	int sink;

	(void)state;
	assert_int_equal(poll(&p, 1, 0), 0);
	enter(other);
	sink = sock_bound(AF_INET, SOCK_DGRAM, V4->origin, SERVICE);
	collide_other(21000, 5, sink);
	n_records = 0;
	for (int want = 2; want; want--) {
		assert_int_equal(poll(&p, 1, PATIENCE), 1);
		assert_int_equal(nfwatch_read(watch, 2, keep, NULL), 2);
	}
	assert_int_equal(poll(&p, 1, PATIENCE), 1);
	assert_int_equal(nfwatch_read(watch, 0, keep, NULL), 0);
	assert_int_equal(nfwatch_read(watch, 2, keep, NULL), 1);
	assert_int_equal(nfwatch_read(watch, 2, keep, NULL), 0);
	assert_int_equal(poll(&p, 1, 0), 0);
	for (uint16_t i = 0; i < 5; i++)
		assert_int_equal(ntohs(records[i].sport), 21000 + i);
	close(sink);
}

/* More than the ring holds: what is not told is counted, and afterwards all is as before. */
static void test_full(void **state)
{
	enum {
		N = 8000,
		FIRST_PORT = 22000,
	};
	struct sluice_watch_stats before = nfwatch_stats(watch), after;
	size_t n = 0;
	int sink, r;

	(void)state;
	enter(other);
	sink = sock_bound(AF_INET, SOCK_DGRAM, V4->origin, SERVICE);
	/* Small tables are not to overflow. */
	for (unsigned i = 0; i < N; i += 500) {
		collide_other((uint16_t)(FIRST_PORT + i), 500, sink);
		forget_all(AF_INET);
	}
	after = nfwatch_stats(watch);
	assert_int_equal(after.seen - before.seen, 2 * N);
	assert_int_not_equal(after.lost - before.lost, 0);
	assert_int_equal(after.sent - before.sent + after.lost - before.lost, N);
	do {
		n_records = 0;
		r = nfwatch_read(watch, RECORDS, keep, NULL);
		assert_in_range(r, 0, RECORDS);
		assert_int_equal(r, n_records);
		for (size_t i = 0; i < n_records; i++)
			assert_int_equal(ntohs(records[i].sport), FIRST_PORT + n + i);
		n += n_records;
	} while (r);
	assert_int_equal(n, after.sent - before.sent);
	collide_other(FIRST_PORT + N, 1, sink);
	assert_int_equal(told(), 1);
	close(sink);
}

/* A second watcher finds another priority, sees the same, and leaves without a trace. */
static void test_two_watchers(void **state)
{
	struct nfwatch *mine = watch, *second;
	struct errtext err = { "" };
	int sink;

	(void)state;
	enter(other);
	sink = sock_bound(AF_INET, SOCK_DGRAM, V4->origin, SERVICE);
	assert_int_equal(nfwatch_open(&second, &err), 0);
	if (nfwatch_attach(second, &err))
		die("%s", err.s);
	collide_other(31000, 1, sink);
	assert_int_equal(told(), 1);
	watch = second;
	assert_int_equal(told(), 1);
	watch = mine;
	nfwatch_close(second);
	collide_other(31001, 1, sink);
	assert_int_equal(told(), 1);
	close(sink);
	nfwatch_close(NULL);
}

/* Without what it takes it says what that is. */
static void test_capabilities(void **state)
{
	static const capng_type_t sets = CAPNG_EFFECTIVE | CAPNG_PERMITTED;
	static const int caps[] = { CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN };
	static const char *const names[] = { "CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN" };

	(void)state;
	for (size_t i = 0; i <= 3; i++) {
		pid_t pid = fork();
		int status;

		assert_true(pid >= 0);
		if (!pid) {
			struct nfwatch *w = NULL;
			struct errtext err = { "" };
			int r;

			capng_clear(CAPNG_SELECT_BOTH);
			for (size_t c = 0; c < 3; c++)
				if (c != i)
					capng_update(CAPNG_ADD, sets, (unsigned)caps[c]);
			if (capng_apply(CAPNG_SELECT_CAPS))
				_exit(3);
			r = nfwatch_open(&w, &err);
			if (i == 3 ? !r : r == -EPERM && !w && strstr(err.s, names[i]))
				_exit(0);
			fprintf(stderr, "# without %s: %d %s\n", i < 3 ? names[i] : "nothing", r,
				err.s);
			_exit(1);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_plain), CASE(test_forwarded),    CASE(test_masqueraded),  CASE(test_dnat),
		CASE(test_raw),   CASE(test_replies),      CASE(test_namespaces),   CASE(test_read),
		CASE(test_full),  CASE(test_two_watchers), CASE(test_capabilities),
	};

	return skip_all() ? 0 : cmocka_run_group_tests(tests, lab_up, lab_down);
}
