/* SPDX-License-Identifier: BSD-2-Clause */
/* The guard looks at who sends: the lease's user, root, somebody else, nobody. Real sockets, see wire.h. */
#include "socket.skel.h"
#include "wire.h"

#define FLOWS   1024
#define LEASED  (FIRST + 10) /* to user 1000 */
#define COOLING (FIRST + 11) /* its lease is over */
#define NOBODY  (FIRST + 12) /* not leased */
#define LEASE   77
#define USER    1000
#define OTHERS  1001

struct seen {
	uint32_t unleased, drops;
	struct sluice_event last;
};

static int see_event(void *arg, void *data, size_t size)
{
	struct sluice_event *e = data;
	struct seen *s = arg;

	assert_true(size >= sizeof(*e));
	if (e->kind == SLUICE_EVENT_UNLEASED)
		s->unleased++;
	else if (e->kind == SLUICE_EVENT_DROP)
		s->drops++;
	else
		return 0;
	s->last = *e;
	return 0;
}

static uint32_t scene(struct bed *b, enum sluice_unleased policy)
{
	struct sluice_pool p = pool_default();
	struct port_at at;
	uint32_t row;

	wire_up();
	p.unleased = (uint8_t)policy;
	row = bed_scene(b, FLOWS, p);
	bed_lease(b, row, SLUICE_TCP, LEASED, LEASE, USER, 0);
	bed_lease(b, row, SLUICE_UDP, LEASED, LEASE, USER, 0);
	at = bed_port(b, row, SLUICE_TCP, COOLING);
	assert_true(port_claim(&at, false));
	at = bed_port(b, row, SLUICE_UDP, COOLING);
	assert_true(port_claim(&at, true));
	wire_attach(b, EGRESS);
	return row;
}

static void scene_end(struct bed *b)
{
	wire_detach();
	bed_close(b);
	wire_flush();
}

/* Sends the first packet of a socket, and says whether it left: what came of it is known when the call returns. */
static bool first_packet(struct bed *b, int type, uid_t uid, uint16_t port, struct seen *ret)
{
	__u64 passed = bed_stats(b, 0).out.packets,
	      dropped = bed_drops(b, SLUICE_DROP_unleased).packets;
	int fd = sock_at_port(uid, type, SHARED, port);

	memset(ret, 0, sizeof(*ret));
	if (type == SOCK_STREAM)
		sock_connect(fd, REMOTE, 80);
	else
		sock_send(fd, REMOTE, 9);
	passed = bed_stats(b, 0).out.packets - passed;
	dropped = bed_drops(b, SLUICE_DROP_unleased).packets - dropped;
	if (passed + dropped != 1)
		die("one packet, and %llu passed, %llu were dropped", passed, dropped);
	bed_events(b, see_event, ret);
	if (ret->unleased + ret->drops && ret->last.cookie != sock_cookie(fd))
		die("the event names another socket");
	close(fd);
	return passed;
}

static void test_who_may(void **state)
{
	static const struct {
		uint16_t port;
		uid_t uid;
		bool may;
	} rows[] = {
		{ LEASED, USER, true },     { LEASED, 0, true },      { LEASED, OTHERS, false },
		{ LEASED, 65534, false },   { COOLING, USER, false }, { COOLING, 0, false },
		{ COOLING, OTHERS, false }, { NOBODY, USER, false },  { NOBODY, 0, false },
	};
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
	struct seen got;
	struct bed b;
	size_t i, k;
	bool left;

	(void)state;
	for (k = 0; k < 2; k++) {
		scene(&b, SLUICE_UNLEASED_DENY);
		for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
			left = first_packet(&b, types[k], rows[i].uid, rows[i].port, &got);
			if (left != rows[i].may || got.unleased || got.drops != !rows[i].may)
				die("deny, row %zu, type %d: %s, %u events", i, types[k],
				    left ? "left" : "dropped", got.drops);
			if (!left && (got.last.owner.uid != rows[i].uid || got.last.owner.pid))
				die("row %zu: the event says uid %u", i, got.last.owner.uid);
		}
		scene_end(&b);
		scene(&b, SLUICE_UNLEASED_REPORT);
		for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
			left = first_packet(&b, types[k], rows[i].uid, rows[i].port, &got);
			if (!left || got.drops || got.unleased != !rows[i].may)
				die("report, row %zu, type %d: %s, %u events", i, types[k],
				    left ? "left" : "dropped", got.unleased);
		}
		assert_int_equal(bed_stats(&b, 0).unleased, 7);
		scene_end(&b);
		scene(&b, SLUICE_UNLEASED_ALLOW);
		for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
			left = first_packet(&b, types[k], rows[i].uid, rows[i].port, &got);
			assert_true(left && !got.drops && !got.unleased);
		}
		assert_int_equal(bed_stats(&b, 0).unleased, 0);
		scene_end(&b);
	}
}

/* A socket that goes on sending is reported once in a while, not for each datagram; and by the name of who bound it. */
static void test_reported_once(void **state)
{
	struct sluice_owner who = { .cgroup = 4711, .pid = 1234, .uid = OTHERS, .comm = "crawler" };
	struct seen got = { 0 };
	uint64_t cookie;
	struct bed b;
	int fd[2], i;
	uint32_t s;

	(void)state;
	need_uptime(70);
	scene(&b, SLUICE_UNLEASED_REPORT);
	for (i = 0; i < 2; i++)
		fd[i] = sock_at_port(OTHERS, SOCK_DGRAM, SHARED, (uint16_t)(NOBODY + i));
	cookie = sock_cookie(fd[1]);
	map_put(b.nat->maps.owners, &cookie, &who);
	for (i = 0; i < 20; i++)
		sock_send(fd[0], REMOTE, (uint16_t)(9 + i));
	bed_events(&b, see_event, &got);
	assert_int_equal(got.unleased, 1);
	assert_int_equal(got.last.cookie, sock_cookie(fd[0]));
	assert_int_equal(got.last.owner.pid, 0);
	assert_int_equal(got.last.owner.uid, OTHERS);
	assert_int_equal(ntohs(got.last.key.sport), NOBODY);
	assert_int_equal(got.last.pool, 0);
	for (i = 0; i < 20; i++)
		sock_send(fd[1], REMOTE, 9);
	bed_events(&b, see_event, &got);
	assert_int_equal(got.unleased, 2);
	assert_int_equal(got.last.cookie, cookie);
	assert_memory_equal(&got.last.owner, &who, sizeof(who));
	assert_int_equal(bed_stats(&b, 0).unleased, 2);
	/* A minute later, again. */
	s = now_s() - 61;
	map_put(b.nat->maps.reported, &cookie, &s);
	for (i = 0; i < 20; i++)
		sock_send(fd[1], REMOTE, 9);
	bed_events(&b, see_event, &got);
	assert_int_equal(got.unleased, 3);
	assert_int_equal(bed_stats(&b, 0).out.packets, 60);
	close(fd[0]);
	close(fd[1]);
	scene_end(&b);
}

/* Other drops of a socket's packets name it as well. */
static void test_drops_name_socket(void **state)
{
	struct sluice_owner who = { .pid = 99, .uid = 5, .comm = "dig" };
	struct seen got = { 0 };
	uint64_t cookie;
	struct bed b;
	int fd;

	(void)state;
	scene(&b, SLUICE_UNLEASED_ALLOW);
	fd = sock_at_port(0, SOCK_DGRAM, SHARED, FIRST - 1);
	cookie = sock_cookie(fd);
	map_put(b.nat->maps.owners, &cookie, &who);
	sock_send(fd, REMOTE, 9);
	assert_int_equal(bed_drops(&b, SLUICE_DROP_escape).packets, 1);
	bed_events(&b, see_event, &got);
	assert_int_equal(got.drops, 1);
	assert_int_equal(got.last.reason, SLUICE_DROP_escape);
	assert_int_equal(got.last.cookie, cookie);
	assert_memory_equal(&got.last.owner, &who, sizeof(who));
	close(fd);
	scene_end(&b);
}

static int listening(uid_t uid, uint16_t port)
{
	int fd = sock_at_port(uid, SOCK_STREAM, SHARED, port);

	if (listen(fd, 16))
		die("listen: %s", strerror(errno));
	return fd;
}

/* What the kernel sends for a listener is the listener's. */
static void test_syn_ack(void **state)
{
	__u64 dropped;
	struct frame f;
	struct view v;
	struct bed b;
	int fd;

	(void)state;
	scene(&b, SLUICE_UNLEASED_DENY);
	fd = listening(USER, LEASED);
	wire_tcp(REMOTE, 7001, SHARED, LEASED, T_SYN, 1000, 0);
	wire_expect("SYN+ACK", P_TCP, REMOTE, T_SYN | T_ACK, &f, &v);
	assert_int_equal(v.sport, LEASED);
	close(fd);
	fd = listening(OTHERS, LEASED);
	dropped = bed_drops(&b, SLUICE_DROP_unleased).packets;
	wire_tcp(REMOTE, 7002, SHARED, LEASED, T_SYN, 1000, 0);
	wire_wait(bed_drops(&b, SLUICE_DROP_unleased).packets > dropped);
	close(fd);
	scene_end(&b);
}

/* What it sends for nobody, on a leased port, leaves: a RST, and the answers of a connection in TIME_WAIT. */
static void test_sent_by_nobody(void **state)
{
	uint32_t seq;
	struct frame f;
	struct view v;
	struct bed b;
	int fd;

	(void)state;
	scene(&b, SLUICE_UNLEASED_DENY);
	wire_tcp(REMOTE, 7003, SHARED, LEASED + 0, T_SYN, 1000, 0);
	wire_expect("RST", P_TCP, REMOTE, T_RST | T_ACK, &f, &v);
	assert_int_equal(v.sport, LEASED);
	wire_tcp(REMOTE, 7005, SHARED, COOLING, T_ACK, 1000, 77);
	wire_expect("RST from a port that cools down", P_TCP, REMOTE, T_RST, &f, &v);
	assert_int_equal(v.sport, COOLING);

	fd = sock_at_port(USER, SOCK_STREAM, SHARED, LEASED);
	sock_connect(fd, REMOTE, 7004);
	wire_expect("SYN", P_TCP, REMOTE, T_SYN, &f, &v);
	assert_int_equal(v.sport, LEASED);
	seq = tcp_seq(&f);
	wire_tcp(REMOTE, 7004, SHARED, LEASED, T_SYN | T_ACK, 5000, seq + 1);
	wire_expect("ACK", P_TCP, REMOTE, T_ACK, &f, &v);
	close(fd);
	wire_expect("FIN", P_TCP, REMOTE, T_FIN | T_ACK, &f, &v);
	wire_tcp(REMOTE, 7004, SHARED, LEASED, T_FIN | T_ACK, 5001, seq + 2);
	wire_expect("the last ACK", P_TCP, REMOTE, T_ACK, &f, &v);
	/* It is in TIME_WAIT now, and has no socket: the other end has missed the ACK. */
	wire_tcp(REMOTE, 7004, SHARED, LEASED, T_FIN | T_ACK, 5001, seq + 2);
	wire_expect("the ACK again", P_TCP, REMOTE, T_ACK, &f, &v);
	assert_int_equal(v.sport, LEASED);
	assert_int_equal(bed_drops(&b, SLUICE_DROP_unleased).packets, 0);
	scene_end(&b);
}

/*
 * SYN cookies: the ACK that completes a handshake finds nothing but the listener. It passes when its number is right, and a guess does not.
 */
static void test_syn_cookie(void **state)
{
	struct pollfd p = { .events = POLLIN };
	struct frame f;
	struct view v;
	struct bed b;
	uint32_t seq;
	__u64 n;

	(void)state;
	scene(&b, SLUICE_UNLEASED_DENY);
	wire_attach(&b, INGRESS);
	wire_sysctl("ipv4/tcp_syncookies", "2");
	p.fd = listening(USER, LEASED);
	wire_tcp(REMOTE, 7010, SHARED, LEASED, T_SYN, 1000, 0);
	wire_expect("SYN+ACK with a cookie", P_TCP, REMOTE, T_SYN | T_ACK, &f, &v);
	seq = tcp_seq(&f);
	n = bed_drops(&b, SLUICE_DROP_unsolicited).packets;
	wire_tcp(REMOTE, 7010, SHARED, LEASED, T_ACK, 1001, seq + 1001);
	wire_tcp(REMOTE, 7011, SHARED, LEASED, T_ACK, 1001, seq + 1);
	wire_tcp(REMOTE, 7010, SHARED, LEASED, T_ACK | T_RST, 1001, seq + 1);
	wire_wait(bed_drops(&b, SLUICE_DROP_unsolicited).packets == n + 3);
	wire_tcp(REMOTE, 7010, SHARED, LEASED, T_ACK, 1001, seq + 1);
	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_int_equal(bed_drops(&b, SLUICE_DROP_unsolicited).packets, n + 3);
	close(p.fd);
	wire_sysctl("ipv4/tcp_syncookies", "1");
	scene_end(&b);
}

/* The sk_lookup program, on the bed's maps. */
static struct socket_bpf *steer_open(struct bed *b, struct bpf_link **ret_link)
{
	struct socket_bpf *s = socket_bpf__open();
	struct bpf_map *map, *have;
	uint32_t up = if_nametoindex("up0"), zero = 0;
	struct bpf_program *prog;
	int netns;

	if (!s)
		die("opening the skeleton: %s", strerror(errno));
	bpf_object__for_each_program(prog, s->obj)
		bpf_program__set_autoload(prog, prog == s->progs.steer);
	bpf_object__for_each_map(map, s->obj)
	{
		have = bpf_object__find_map_by_name(b->nat->obj, bpf_map__name(map));
		if (have && !bpf_map__is_internal(map) && bpf_map__reuse_fd(map, bpf_map__fd(have)))
			die("map %s: %s", bpf_map__name(map), strerror(errno));
	}
	if (socket_bpf__load(s))
		die("loading the programs: %s", strerror(errno));
	map_put(b->nat->maps.uplinks, &up, &zero);
	netns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	*ret_link = bpf_program__attach_netns(s->progs.steer, netns);
	close(netns);
	if (!*ret_link)
		die("attaching to the namespace: %s", strerror(errno));
	return s;
}

/* The whole way of a connection to a listener that stands elsewhere: in at the uplink, to the socket, and out through the guard; with and without SYN cookies. */
static void test_steered_connection(void **state)
{
	struct pollfd p = { .events = POLLIN };
	uint64_t listener;
	uint32_t slot = 3, seq, round;
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	struct socket_bpf *s;
	struct bpf_link *link;
	struct frame f;
	struct view v;
	struct bed b;
	int conn, wild;
	__u64 n;

	(void)state;
	for (round = 0; round < 2; round++) {
		uint16_t from = (uint16_t)(7020 + round);
		uint32_t row = scene(&b, SLUICE_UNLEASED_DENY);

		wire_attach(&b, INGRESS);
		s = steer_open(&b, &link);
		wire_sysctl("ipv4/tcp_syncookies", round ? "2" : "1");
		bed_lease(&b, row, SLUICE_TCP, LEASED, LEASE, USER, slot + 1);
		wild = sock_at_port(USER, SOCK_STREAM, INADDR_ANY, LEASED);
		assert_int_equal(listen(wild, 5), 0);
		p.fd = sock_at_port(USER, SOCK_STREAM, IP(127, 0, 0, 1), 9000);
		assert_int_equal(listen(p.fd, 5), 0);
		listener = (uint64_t)p.fd;
		map_put(b.nat->maps.steered, &slot, &listener);

		wire_tcp(REMOTE, from, SHARED, LEASED, T_SYN, 1000, 0);
		wire_expect("SYN+ACK", P_TCP, REMOTE, T_SYN | T_ACK, &f, &v);
		assert_true(v.src == SHARED && v.sport == LEASED);
		seq = tcp_seq(&f);
		n = bed_drops(&b, SLUICE_DROP_unsolicited).packets;
		wire_tcp(REMOTE2, from, SHARED, LEASED, T_ACK, 1001, seq + 1);
		wire_wait(bed_drops(&b, SLUICE_DROP_unsolicited).packets == n + 1);
		wire_tcp(REMOTE, from, SHARED, LEASED, T_ACK, 1001, seq + 1);
		assert_int_equal(poll(&p, 1, 10000), 1);
		conn = accept(p.fd, NULL, NULL);
		assert_true(conn >= 0 && !getsockname(conn, (struct sockaddr *)&a, &len));
		assert_int_equal(ntohl(a.sin_addr.s_addr), SHARED);
		assert_int_equal(ntohs(a.sin_port), LEASED);
		assert_int_equal(send(conn, "x", 1, 0), 1);
		wire_expect("data", P_TCP, REMOTE, T_ACK, &f, &v);
		assert_true(v.src == SHARED && v.sport == LEASED);
		assert_false(sock_readable(wild));
		assert_int_equal(bed_drops(&b, SLUICE_DROP_unleased).packets, 0);
		close(conn);
		close(p.fd);
		close(wild);
		bpf_link__destroy(link);
		socket_bpf__destroy(s);
		wire_sysctl("ipv4/tcp_syncookies", "1");
		scene_end(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_may),
		cmocka_unit_test(test_reported_once),
		cmocka_unit_test(test_drops_name_socket),
		cmocka_unit_test(test_syn_ack),
		cmocka_unit_test(test_sent_by_nobody),
		cmocka_unit_test(test_syn_cookie),
		cmocka_unit_test(test_steered_connection),
	};

	return cmocka_run_group_tests_name("sender", tests, wire_setup, NULL);
}
