/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What leaves a control group of "sluice exec" with the machine's own address is translated at the uplink, or dropped; everybody else is left alone.
 * Real sockets of this process, which goes into a group of its own and out again; see wire.h.
 */
#include <netinet/ip_icmp.h>
#include <signal.h>

#include "wire.h"

#define FLOWS 1024
#define LEASE 91
#define LASTP (FIRST + 63) /* of the lease */

static char group[256];    /* directory of our control group */
static char group_in[280]; /* and of one below it */
static char group_was[512];
static uint32_t group_level;
static uint64_t group_id;

static void group_enter(const char *dir)
{
	char path[600], text[32];
	int fd;

	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	snprintf(text, sizeof(text), "%d", getpid());
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die("%s: %s", path, strerror(errno));
	close(fd);
}

/* Where cgroup2 is, where we are in it, and a group for the test. */
static int group_setup(void **state)
{
	char line[512], dir[200] = "", type[32], path[300] = "/";
	struct stat st;
	FILE *f;

	if (wire_setup(state))
		return -1;
	f = fopen("/proc/self/mounts", "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %199s %31s", dir, type) == 2 && !strcmp(type, "cgroup2"))
			break;
	if (f)
		fclose(f);
	if (strcmp(type, "cgroup2")) {
		print_error("no cgroup2 is mounted\n");
		return -1;
	}
	f = fopen("/proc/self/cgroup", "re");
	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "0::%299s", path);
	if (f)
		fclose(f);
	snprintf(group_was, sizeof(group_was), "%s%s", dir, path);
	snprintf(group, sizeof(group), "%s/slab-bpf-%d", dir, getpid());
	snprintf(group_in, sizeof(group_in), "%s/in", group);
	if (mkdir(group, 0755) || mkdir(group_in, 0755) || stat(group, &st)) {
		print_error("%s: %s\n", group, strerror(errno));
		return -1;
	}
	group_id = st.st_ino;
	group_level = 1;
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	group_enter(group_was);
	rmdir(group_in);
	rmdir(group);
	return 0;
}

static uint32_t scene(struct bed *b, enum sluice_mapping mapping)
{
	struct sluice_exec e = { .lease = LEASE,
				 .addr = addr_of(SHARED),
				 .first = FIRST,
				 .last = LASTP,
				 .protos = 1 << SLUICE_TCP | 1 << SLUICE_UDP };
	struct sluice_pool p = pool_default();
	struct sluice_conf c;
	uint32_t row, i;
	int l4;

	wire_up();
	p.unleased = SLUICE_UNLEASED_DENY;
	for (l4 = 0; l4 < SLUICE_ICMP; l4++)
		p.mapping[l4] = (uint8_t)mapping;
	row = bed_scene(b, FLOWS, p);
	for (i = FIRST; i <= LASTP; i++) {
		bed_lease(b, row, SLUICE_TCP, (uint16_t)i, LEASE, 1000, 0);
		bed_lease(b, row, SLUICE_UDP, (uint16_t)i, LEASE, 1000, 0);
	}
	e.slice = row;
	map_put(b->nat->maps.execs, &group_id, &e);
	map_get_row(b->nat->maps.conf, 0, &c);
	c.exec_level = group_level;
	c.execs = 1;
	map_put_row(b->nat->maps.conf, 0, &c);
	wire_attach(b, EGRESS);
	wire_attach(b, INGRESS);
	return row;
}

static void scene_end(struct bed *b)
{
	wire_detach();
	bed_close(b);
	wire_flush();
}

/* A socket of this process, made inside the group or outside of it. */
static int sock_in(const char *dir, int family, int type, int proto)
{
	int fd;

	group_enter(dir);
	fd = sock_of(0, family, type, proto);
	group_enter(group_was);
	return fd;
}

static void expect_translated(const char *what, const struct view *v)
{
	if (v->src != SHARED || v->sport <= LASTP || v->sport > LAST)
		die("%s: left as %08x:%u", what, v->src, v->sport);
}

static void udp_out_and_back(const char *dir, enum sluice_mapping mapping)
{
	struct spec s = { .proto = P_UDP, .src = REMOTE, .sport = 9, .payload = 5 };
	char buf[64];
	struct frame f;
	struct view v;
	struct bed b;
	uint16_t port = 0;
	int fd, i;

	scene(&b, mapping);
	fd = sock_in(dir, AF_INET, SOCK_DGRAM, 0);
	for (i = 0; i < 3; i++) {
		sock_send(fd, REMOTE, 9);
		wire_expect("udp", P_UDP, REMOTE, 0, &f, &v);
		expect_translated("udp", &v);
		assert_true(!i || v.sport == port);
		port = v.sport;
		s.dst = v.src;
		s.dport = v.sport;
		frame_build(&f, &s);
		wire_send(&f);
		wire_wait(sock_readable(fd));
		assert_int_equal(recv(fd, buf, sizeof(buf), 0), 5);
	}
	close(fd);
	assert_int_equal(expect_counts(&b, "udp"), mapping == SLUICE_OVERLOAD);
	scene_end(&b);
}

static void test_udp(void **state)
{
	(void)state;
	udp_out_and_back(group, SLUICE_EIM);
	udp_out_and_back(group, SLUICE_OVERLOAD);
	/* A group below the exec's is within it. */
	udp_out_and_back(group_in, SLUICE_EIM);
}

/* A connection from its SYN to the answers that the kernel gives when the process has forgotten it. */
static void tcp_life(enum sluice_mapping mapping)
{
	uint16_t port;
	uint32_t seq;
	struct frame f;
	struct view v;
	struct bed b;
	int fd;

	scene(&b, mapping);
	fd = sock_in(group, AF_INET, SOCK_STREAM, 0);
	sock_connect(fd, REMOTE, 80);
	wire_expect("SYN", P_TCP, REMOTE, T_SYN, &f, &v);
	expect_translated("SYN", &v);
	port = v.sport;
	seq = tcp_seq(&f);
	wire_tcp(REMOTE, 80, SHARED, port, T_SYN | T_ACK, 5000, seq + 1);
	wire_expect("ACK", P_TCP, REMOTE, T_ACK, &f, &v);
	assert_true(v.src == SHARED && v.sport == port);
	wire_wait(sock_writable(fd));
	assert_int_equal(send(fd, "x", 1, 0), 1);
	wire_expect("data", P_TCP, REMOTE, T_ACK, &f, &v);
	assert_true(v.src == SHARED && v.sport == port);
	wire_tcp(REMOTE, 80, SHARED, port, T_ACK, 5001, seq + 2);
	close(fd);
	wire_expect("FIN", P_TCP, REMOTE, T_FIN | T_ACK, &f, &v);
	assert_true(v.src == SHARED && v.sport == port);
	wire_tcp(REMOTE, 80, SHARED, port, T_FIN | T_ACK, 5001, seq + 3);
	wire_expect("last ACK", P_TCP, REMOTE, T_ACK, &f, &v);
	assert_true(v.src == SHARED && v.sport == port);
	wire_tcp(REMOTE, 80, SHARED, port, T_FIN | T_ACK, 5001, seq + 3);
	wire_expect("ACK out of TIME_WAIT", P_TCP, REMOTE, T_ACK, &f, &v);
	if (v.src != SHARED || v.sport != port)
		die("out of TIME_WAIT, it left as %08x:%u", v.src, v.sport);
	scene_end(&b);
}

static void test_tcp(void **state)
{
	(void)state;
	tcp_life(SLUICE_OVERLOAD);
	tcp_life(SLUICE_EIM);
}

static void test_echo(void **state)
{
	struct icmphdr icmp = { .type = ICMP_ECHO, .un.echo.id = htons(7) };
	struct sockaddr_in a = sock_addr(REMOTE, 0);
	struct spec s = { .proto = P_ICMP, .src = REMOTE, .dst = SHARED, .payload = 4 };
	char buf[128];
	struct frame f;
	struct view v;
	struct bed b;
	int fd;

	(void)state;
	scene(&b, SLUICE_OVERLOAD);
	fd = sock_in(group, AF_INET, SOCK_RAW, IPPROTO_ICMP);
	icmp.checksum = (uint16_t)~htons(words_fold(words_sum((uint8_t *)&icmp, sizeof(icmp), 0)));
	assert_int_equal(sendto(fd, &icmp, sizeof(icmp), 0, (struct sockaddr *)&a, sizeof(a)),
			 sizeof(icmp));
	wire_expect("echo", P_ICMP, REMOTE, 0, &f, &v);
	assert_true(v.src == SHARED && v.sport >= FIRST && v.sport <= LAST && v.l4_good);
	s.sport = v.sport;
	frame_build(&f, &s);
	wire_send(&f);
	wire_wait(sock_readable(fd));
	assert_true(recv(fd, buf, sizeof(buf), 0) > 20);
	close(fd);
	scene_end(&b);
}

static void expect_own(const char *what, uint8_t proto, uint32_t dst, uint8_t flags)
{
	struct frame f;
	struct view v;

	wire_expect(what, proto, dst, flags, &f, &v);
	if (v.src != OWN)
		die("%s: left as %08x", what, v.src);
}

/* What is not for the world, what answers, and who is not in the group. */
static void test_left_alone(void **state)
{
	struct ip_mreqn out = { .imr_ifindex = 0 };
	struct sockaddr_in a = sock_addr(OWN, 8080);
	struct sluice_conf c;
	struct bed b;
	int fd, on = 1;

	(void)state;
	scene(&b, SLUICE_OVERLOAD);
	out.imr_ifindex = (int)if_nametoindex("up0");
	fd = sock_in(group, AF_INET, SOCK_DGRAM, 0);
	sock_send(fd, NO_NAT, 9);
	expect_own("no-nat", P_UDP, NO_NAT, 0);
	setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &out, sizeof(out));
	sock_send(fd, IP(224, 0, 0, 251), 5353);
	expect_own("multicast", P_UDP, IP(224, 0, 0, 251), 0);
	setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "up0", 4);
	sock_send(fd, IP(255, 255, 255, 255), 9);
	expect_own("broadcast", P_UDP, IP(255, 255, 255, 255), 0);
	close(fd);

	fd = sock_in(group, AF_INET, SOCK_STREAM, 0);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 5))
		die("listening on %08x: %s", OWN, strerror(errno));
	wire_tcp(REMOTE, 7100, OWN, 8080, T_SYN, 1, 0);
	expect_own("a server's answer", P_TCP, REMOTE, T_SYN | T_ACK);
	close(fd);

	fd = sock_of(0, AF_INET, SOCK_DGRAM, 0);
	sock_send(fd, REMOTE, 9);
	expect_own("somebody else's", P_UDP, REMOTE, 0);
	close(fd);
	fd = sock_of(0, AF_INET, SOCK_STREAM, 0);
	sock_connect(fd, REMOTE, 81);
	expect_own("somebody else's", P_TCP, REMOTE, T_SYN);
	close(fd);
	assert_int_equal(flows_count(b.nat->maps.fwd), 0);

	/* No execs at all: nobody looks. */
	map_get_row(b.nat->maps.conf, 0, &c);
	c.execs = 0;
	map_put_row(b.nat->maps.conf, 0, &c);
	fd = sock_in(group, AF_INET, SOCK_DGRAM, 0);
	sock_send(fd, REMOTE2, 9);
	expect_own("without execs", P_UDP, REMOTE2, 0);
	close(fd);
	scene_end(&b);
}

static void expect_dropped(struct bed *b, const char *what, int reason, int fd, void *addr,
			   socklen_t len)
{
	__u64 n = bed_drops(b, (uint32_t)reason).packets;

	if (sendto(fd, "0123456789", 10, 0, addr, len) < 0 && errno != ENOBUFS)
		die("%s: sendto: %s", what, strerror(errno));
	if (bed_drops(b, (uint32_t)reason).packets != n + 1)
		die("%s: not dropped as %s", what, reason_name(reason));
}

/* What can't be translated does not leave. */
static void test_no_other_way(void **state)
{
	struct sockaddr_in to = sock_addr(REMOTE, 9);
	struct sockaddr_in6 to6 = sock_addr6(REMOTE6, 9);
	struct sluice_exec e;
	struct sluice_slice s;
	int udp, gre, udp6, on = 1;
	struct frame f;
	struct view v;
	struct bed b;
	uint32_t row;
	__u64 n;

	(void)state;
	row = scene(&b, SLUICE_OVERLOAD);
	udp = sock_in(group, AF_INET, SOCK_DGRAM, 0);
	gre = sock_in(group, AF_INET, SOCK_RAW, 47);
	udp6 = sock_in(group, AF_INET6, SOCK_DGRAM, 0);
	expect_dropped(&b, "GRE", SLUICE_DROP_proto, gre, &to, sizeof(to));
	expect_dropped(&b, "IPv6", SLUICE_DROP_unleased, udp6, &to6, sizeof(to6));
	/* What leaves in pieces leaves translated as well. */
	memset(&f, 0, sizeof(f));
	n = bed_stats(&b, 0).out.packets;
	on = IP_PMTUDISC_DONT;
	setsockopt(udp, IPPROTO_IP, IP_MTU_DISCOVER, &on, sizeof(on));
	if (sendto(udp, f.b, 1800, 0, (struct sockaddr *)&to, sizeof(to)) < 0)
		die("sendto: %s", strerror(errno));
	assert_int_equal(bed_stats(&b, 0).out.packets, n + 2);
	assert_int_equal(bed_drops(&b, SLUICE_DROP_fragment).packets, 0);

	slice_deadline(&b, row, 1);
	expect_dropped(&b, "fenced", SLUICE_DROP_fenced, udp, &to, sizeof(to));
	slice_deadline(&b, row, SLUICE_NEVER);
	map_get_row(b.nat->maps.slices, row, &s);
	s.state = SLUICE_SLICE_NONE;
	map_put_row(b.nat->maps.slices, row, &s);
	expect_dropped(&b, "not held", SLUICE_DROP_no_slice, udp, &to, sizeof(to));
	s.state = SLUICE_SLICE_HELD;
	map_put_row(b.nat->maps.slices, row, &s);
	sock_send(udp, REMOTE, 9);
	wire_expect("held again", P_UDP, REMOTE, 0, &f, &v);
	expect_translated("held again", &v);

	/* The lease has ended, the processes have not. */
	map_get(b.nat->maps.execs, &group_id, &e);
	e.protos = 0;
	map_put(b.nat->maps.execs, &group_id, &e);
	expect_dropped(&b, "no lease", SLUICE_DROP_unleased, udp, &to, sizeof(to));
	close(udp);
	close(gre);
	close(udp6);
	scene_end(&b);
}

/* The guard lets the group's sockets use the lease's ports, whatever user they have become, and no ports but those. */
static void test_guard(void **state)
{
	struct sockaddr_in to = sock_addr(REMOTE, 9);
	struct frame f;
	struct view v;
	struct bed b;
	int fd;

	(void)state;
	scene(&b, SLUICE_OVERLOAD);
	group_enter(group);
	fd = sock_at_port(33, SOCK_DGRAM, SHARED, FIRST + 5);
	group_enter(group_was);
	sock_send(fd, REMOTE, 9);
	wire_expect("of the lease", P_UDP, REMOTE, 0, &f, &v);
	assert_true(v.src == SHARED && v.sport == FIRST + 5);
	close(fd);
	fd = sock_at_port(33, SOCK_DGRAM, SHARED, FIRST + 5);
	expect_dropped(&b, "another group", SLUICE_DROP_unleased, fd, &to, sizeof(to));
	close(fd);
	group_enter(group);
	fd = sock_at_port(33, SOCK_DGRAM, SHARED, LASTP + 1);
	group_enter(group_was);
	expect_dropped(&b, "another port", SLUICE_DROP_unleased, fd, &to, sizeof(to));
	close(fd);
	scene_end(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_udp),          cmocka_unit_test(test_tcp),
		cmocka_unit_test(test_echo),         cmocka_unit_test(test_left_alone),
		cmocka_unit_test(test_no_other_way), cmocka_unit_test(test_guard),
	};

	return cmocka_run_group_tests_name("exec", tests, group_setup, group_teardown);
}
