/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sockets made for holders of leases, in a network namespace of our own with two shared addresses, and servers on the loopback. What they can do is
 * tried, and looked at from outside with sockdiag.
 */
#include "dp_test.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "open.h"
#include "sockdiag.h"

#define V4       "203.0.113.7"
#define V6       "2001:db8::7"
#define UID      4711
#define RANGE    "/proc/sys/net/ipv4/ip_local_port_range"
#define RESERVED "/proc/sys/net/ipv4/ip_local_reserved_ports"

static struct sockdiag *diag;

static void set(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die("%s: %s", path, strerror(errno));
	close(fd);
}

static int net_open(void **state)
{
	struct errtext err = { "" };

	(void)state;
	need_root();
	if (unshare(CLONE_NEWNET))
		die("a network namespace of our own: %s", strerror(errno));
	must_run("ip link set lo up");
	must_run("ip route add local " V4 " dev lo && ip route add local " V6 " dev lo");
	if (sockdiag_open(&diag, &err))
		die("sockdiag_open: %s", err.s);
	return 0;
}

static int net_close(void **state)
{
	(void)state;
	sockdiag_close(diag);
	return 0;
}

static int sysctls_reset(void **state)
{
	(void)state;
	set(RANGE, "32768 60999");
	set(RESERVED, "\n");
	return 0;
}

/* Leases and sockets */

static struct lease lease_of(const char *ip, uint16_t first, uint16_t n, uint8_t protos,
			     enum sluice_lease_kind kind)
{
	struct lease l = { .id = 1, .protos = protos, .kind = kind, .holder.uid = UID };

	if (addr_parse(ip, &l.ports.addr))
		die("%s is no address", ip);
	l.ports.first = first;
	l.ports.last = (uint16_t)(first + n - 1);
	return l;
}

static int must_get(const struct lease *l, const struct open_request *req, uint16_t *ret_port)
{
	struct errtext err = { "" };
	int fd = -1;

	if (open_socket(l, req, &fd, ret_port, &err))
		die("open_socket: %s", err.s);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(!!(fcntl(fd, F_GETFL) & O_NONBLOCK), req->nonblock);
	return fd;
}

/* Refused with this error and words; nothing is left open. */
static void refused(const struct lease *l, const struct open_request *req, int r, const char *words)
{
	struct errtext err = { "" };
	uint16_t port = 7;
	int fd = -7, got, before = dup(0), after;

	close(before);
	got = open_socket(l, req, &fd, &port, &err);
	if (got != r)
		die("%d (\"%s\"), not %d", got, err.s, r);
	if (!strstr(err.s, words))
		die("\"%s\" is not in \"%s\"", words, err.s);
	assert_int_equal(fd, -7);
	assert_int_equal(port, 7);
	after = dup(0);
	close(after);
	assert_int_equal(before, after);
}

static socklen_t sockaddr_of(const char *ip, uint16_t port, struct sockaddr_storage *ret)
{
	struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)ret;
	struct sockaddr_in *sin = (struct sockaddr_in *)ret;

	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, ip, &sin->sin_addr) == 1) {
		sin->sin_family = AF_INET;
		sin->sin_port = htons(port);
		return sizeof(*sin);
	}
	assert_int_equal(inet_pton(AF_INET6, ip, &sin6->sin6_addr), 1);
	sin6->sin6_family = AF_INET6;
	sin6->sin6_port = htons(port);
	return sizeof(*sin6);
}

static int try_connect(int fd, const char *ip, uint16_t port)
{
	struct sockaddr_storage ss;
	socklen_t len = sockaddr_of(ip, port, &ss);

	return connect(fd, (struct sockaddr *)&ss, len) ? -errno : 0;
}

static uint16_t port_of(int fd)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);

	assert_int_equal(getsockname(fd, (struct sockaddr *)&ss, &len), 0);
	return ntohs(ss.ss_family == AF_INET ? ((struct sockaddr_in *)&ss)->sin_port
					     : ((struct sockaddr_in6 *)&ss)->sin6_port);
}

static int server(const char *ip, uint16_t port)
{
	struct sockaddr_storage ss;
	socklen_t len = sockaddr_of(ip, port, &ss);
	int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&ss, len), 0);
	assert_int_equal(listen(fd, 64), 0);
	return fd;
}

/* What the kernel says of a socket. */
struct look {
	uint64_t cookie;
	struct sockdiag_sock s;
	bool found;
};

static int look_at(const struct sockdiag_sock *s, void *arg)
{
	struct look *k = arg;

	if (s->cookie != k->cookie)
		return 0;
	k->s = *s;
	k->found = true;
	return 0;
}

static struct sockdiag_sock must_see(enum sluice_l4 l4, int fd)
{
	struct errtext err = { "" };
	struct look k = { 0 };
	socklen_t len = sizeof(k.cookie);

	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &k.cookie, &len), 0);
	if (sockdiag_dump(diag, l4, NULL, 0, look_at, &k, &err))
		die("sockdiag_dump: %s", err.s);
	if (!k.found)
		die("the kernel does not list the socket");
	return k.s;
}

/* Exclusive */

static void exclusive(const char *ip, enum sluice_l4 l4)
{
	struct lease l = lease_of(ip, 41000, 3, (uint8_t)(1U << l4), SLUICE_LEASE_EXCLUSIVE);
	struct open_request req = { .l4 = l4, .nonblock = l4 == SLUICE_UDP };
	struct sockdiag_sock s;
	uint16_t port;
	int fds[3];

	for (int i = 0; i < 3; i++) {
		fds[i] = must_get(&l, &req, &port);
		assert_int_equal(port, 41000 + i);
		assert_int_equal(port_of(fds[i]), port);
		if (l4 == SLUICE_TCP && !sockdiag_sees_bound(diag))
			continue;
		s = must_see(l4, fds[i]);
		assert_int_equal(addr_cmp(&s.local, &l.ports.addr), 0);
		assert_int_equal(s.lport, port);
		assert_int_equal(s.uid, UID);
	}
	refused(&l, &req, -EADDRINUSE, "every port");
	req.port = 41001;
	refused(&l, &req, -EADDRINUSE, "port 41001");
	close(fds[1]);
	close(must_get(&l, &req, &port));
	assert_int_equal(port, 41001);
	req.port = 0;
	fds[1] = must_get(&l, &req, &port);
	assert_int_equal(port, 41001);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
}

static void test_exclusive(void **state)
{
	(void)state;
	exclusive(V4, SLUICE_UDP);
	exclusive(V6, SLUICE_UDP);
	exclusive(V4, SLUICE_TCP);
	exclusive(V6, SLUICE_TCP);
}

/* A port is taken by somebody who asked nobody. */
static void test_passes_over(void **state)
{
	struct lease l = lease_of(V4, 41010, 3, LEASE_TCP | LEASE_UDP, SLUICE_LEASE_EXCLUSIVE);
	struct open_request req = { .l4 = SLUICE_TCP, .listen = true };
	int squatter = server("0.0.0.0", 41010), fd;
	uint16_t port;

	(void)state;
	fd = must_get(&l, &req, &port);
	assert_int_equal(port, 41011);
	close(fd);
	/* The other protocol's port of the same number is another port. */
	req = (struct open_request){ .l4 = SLUICE_UDP };
	fd = must_get(&l, &req, &port);
	assert_int_equal(port, 41010);
	close(fd);
	close(squatter);
}

static void listening(const char *ip)
{
	struct lease l = lease_of(ip, 41020, 2, LEASE_TCP, SLUICE_LEASE_EXCLUSIVE);
	struct open_request req = { .l4 = SLUICE_TCP, .listen = true };
	int one, two, c, s, is;
	socklen_t len = sizeof(is);
	uint16_t port;

	one = must_get(&l, &req, &port);
	assert_int_equal(port, 41020);
	assert_int_equal(getsockopt(one, SOL_SOCKET, SO_ACCEPTCONN, &is, &len), 0);
	assert_int_equal(is, 1);
	two = must_get(&l, &req, &port);
	assert_int_equal(port, 41021);
	refused(&l, &req, -EADDRINUSE, "every port");

	c = socket(strchr(ip, ':') ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(try_connect(c, ip, 41020), 0);
	s = accept4(one, NULL, NULL, SOCK_CLOEXEC);
	assert_true(s >= 0);
	/* The server closes first: its end goes into TIME_WAIT, on the lease's port. */
	close(s);
	assert_int_equal(read(c, &is, 1), 0);
	close(c);
	close(one);
	one = must_get(&l, &req, &port);
	assert_int_equal(port, 41020);
	close(one);
	req.port = 41020;
	one = must_get(&l, &req, &port);
	close(one);
	close(two);
}

static void test_listening(void **state)
{
	(void)state;
	listening(V4);
	listening(V6);
}

/* A socket that is only bound has its port, also for one that would listen. */
static void test_bound_is_bound(void **state)
{
	struct lease l = lease_of(V4, 41030, 1, LEASE_TCP, SLUICE_LEASE_EXCLUSIVE);
	struct open_request req = { .l4 = SLUICE_TCP }, on = { .l4 = SLUICE_TCP, .listen = true };
	uint16_t port;
	int fd = must_get(&l, &req, &port);

	(void)state;
	refused(&l, &on, -EADDRINUSE, "every port");
	on.port = 41030;
	refused(&l, &on, -EADDRINUSE, "41030");
	assert_int_equal(listen(fd, 1), 0);
	refused(&l, &on, -EADDRINUSE, "41030");
	close(fd);
}

static void test_reuseport(void **state)
{
	static const enum sluice_l4 l4s[] = { SLUICE_TCP, SLUICE_UDP };
	struct lease l = lease_of(V4, 41040, 2, LEASE_TCP | LEASE_UDP, SLUICE_LEASE_EXCLUSIVE);
	uint16_t port;
	int fds[3];

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct open_request req = { .l4 = l4s[i],
					    .reuseport = true,
					    .listen = l4s[i] == SLUICE_TCP,
					    .port = 41041 };
		struct open_request alone = req;

		for (int k = 0; k < 3; k++) {
			fds[k] = must_get(&l, &req, &port);
			assert_int_equal(port, 41041);
		}
		alone.reuseport = false;
		refused(&l, &alone, -EADDRINUSE, "41041");
		for (int k = 0; k < 3; k++)
			close(fds[k]);
	}
}

/* Shared */

/* Four ports, five destinations: twenty connections, and not one more to any of them. */
static void shared(const char *ip, const char *const to[5])
{
	struct lease l = lease_of(ip, 41100, 4, LEASE_TCP, SLUICE_LEASE_SHARED);
	struct open_request req = { .l4 = SLUICE_TCP };
	int servers[5], fds[5][4], extra;
	unsigned seen[5] = { 0 };
	struct sockdiag_sock s;
	uint16_t port;

	for (int d = 0; d < 5; d++)
		servers[d] = server(to[d], 8080);
	for (int i = 0; i < 4; i++) {
		for (int d = 0; d < 5; d++) {
			fds[d][i] = must_get(&l, &req, &port);
			assert_int_equal(port, 0);
			assert_int_equal(port_of(fds[d][i]), 0);
			assert_int_equal(try_connect(fds[d][i], to[d], 8080), 0);
			port = port_of(fds[d][i]);
			assert_in_range(port, 41100, 41103);
			assert_false(seen[d] & 1U << (port - 41100));
			seen[d] |= 1U << (port - 41100);
			s = must_see(SLUICE_TCP, fds[d][i]);
			assert_int_equal(addr_cmp(&s.local, &l.ports.addr), 0);
			assert_int_equal(s.uid, UID);
		}
	}
	for (int d = 0; d < 5; d++) {
		extra = must_get(&l, &req, &port);
		assert_int_equal(try_connect(extra, to[d], 8080), -EADDRNOTAVAIL);
		close(extra);
	}
	/* One that ends makes room for one. */
	close(fds[2][1]);
	close(servers[2]);
	for (int d = 0; d < 5; d++)
		for (int i = 0; i < 4; i++)
			if (d != 2 || i != 1)
				close(fds[d][i]);
	for (int d = 0; d < 5; d++)
		if (d != 2)
			close(servers[d]);
}

static bool has_range_option(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), r;
	uint32_t v;
	socklen_t len = sizeof(v);

	r = getsockopt(fd, IPPROTO_IP, 51, &v, &len);
	close(fd);
	return !r;
}

#define NEED_RANGE_OPTION()                                                       \
	do {                                                                      \
		if (!has_range_option()) {                                        \
			print_message("no IP_LOCAL_PORT_RANGE (Linux 6.3 on)\n"); \
			skip();                                                   \
		}                                                                 \
	} while (0)

static void test_shared(void **state)
{
	static const char *const to4[5] = { "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4",
					    "127.0.0.5" };
	static const char *const to6[5] = { "2001:db8::11", "2001:db8::12", "2001:db8::13",
					    "2001:db8::14", "2001:db8::15" };

	(void)state;
	NEED_RANGE_OPTION();
	shared(V4, to4);
	for (int i = 0; i < 5; i++)
		must_run("ip addr add %s/128 dev lo nodad", to6[i]);
	shared(V6, to6);
}

static void test_shared_one_port(void **state)
{
	struct lease l = lease_of(V4, 41200, 1, LEASE_TCP, SLUICE_LEASE_SHARED);
	struct open_request req = { .l4 = SLUICE_TCP };
	int a = server("127.0.0.1", 8081), b = server("127.0.0.2", 8081), one, two, three;
	uint16_t port;

	(void)state;
	NEED_RANGE_OPTION();
	one = must_get(&l, &req, &port);
	two = must_get(&l, &req, &port);
	three = must_get(&l, &req, &port);
	assert_int_equal(try_connect(one, "127.0.0.1", 8081), 0);
	assert_int_equal(try_connect(two, "127.0.0.2", 8081), 0);
	assert_int_equal(try_connect(three, "127.0.0.2", 8081), -EADDRNOTAVAIL);
	assert_int_equal(port_of(one), 41200);
	assert_int_equal(port_of(two), 41200);
	close(one);
	close(two);
	close(three);
	close(a);
	close(b);
}

/* By number: many sockets on one port, each destination once; along with those that let the kernel choose. */
static void test_shared_by_number(void **state)
{
	struct lease l = lease_of(V4, 41210, 2, LEASE_TCP, SLUICE_LEASE_SHARED);
	struct open_request req = { .l4 = SLUICE_TCP, .port = 41211 }, any = { .l4 = SLUICE_TCP };
	int a = server("127.0.0.1", 8082), b = server("127.0.0.2", 8082), fds[4];
	uint16_t port;

	(void)state;
	if (has_range_option()) {
		for (int i = 0; i < 2; i++) {
			fds[i] = must_get(&l, &any, &port);
			assert_int_equal(try_connect(fds[i], "127.0.0.2", 8082), 0);
		}
	} else {
		fds[0] = dup(a);
		fds[1] = dup(a);
	}
	fds[2] = must_get(&l, &req, &port);
	assert_int_equal(port, 41211);
	fds[3] = must_get(&l, &req, &port);
	assert_int_equal(port, 41211);
	assert_int_equal(try_connect(fds[2], "127.0.0.1", 8082), 0);
	assert_int_equal(try_connect(fds[3], "127.0.0.1", 8082), -EADDRNOTAVAIL);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	close(a);
	close(b);
}

/* UDP has no ports that are shared: each socket has one of its own. */
/* Somebody who has the port alone. */
static int listener(const char *ip, uint16_t port)
{
	struct lease l = lease_of(ip, port, 1, LEASE_TCP, SLUICE_LEASE_EXCLUSIVE);
	struct open_request req = { .l4 = SLUICE_TCP, .listen = true };

	return must_get(&l, &req, &port);
}

/* As on a kernel without IP_LOCAL_PORT_RANGE: one port a socket, each time the next one, and as many destinations on each as there are. */
static void without_range(const char *ip, const char *to, const char *to_other)
{
	struct lease l = lease_of(ip, 41230, 4, LEASE_TCP, SLUICE_LEASE_SHARED);
	struct open_request req = { .l4 = SLUICE_TCP };
	int a = server(to, 8084), b = server(to_other, 8084), squatter;
	unsigned seen = 0;
	uint16_t port;
	int fds[6];

	squatter = listener(ip, 41232);
	for (int i = 0; i < 6; i++) {
		fds[i] = must_get(&l, &req, &port);
		assert_int_equal(port_of(fds[i]), port);
		assert_in_range(port, 41230, 41233);
		assert_int_not_equal(port, 41232);
		seen |= 1U << (port - 41230);
		assert_int_equal(try_connect(fds[i], i < 3 ? to : to_other, 8084), 0);
	}
	assert_int_equal(seen, 0xb);
	for (int i = 0; i < 6; i++)
		close(fds[i]);
	close(squatter);
	close(a);
	close(b);
	l = lease_of(ip, 41240, 1, LEASE_TCP, SLUICE_LEASE_SHARED);
	squatter = listener(ip, 41240);
	refused(&l, &req, -EADDRINUSE, "every port of the lease");
	close(squatter);
}

static void test_shared_without_range(void **state)
{
	(void)state;
	must_run("ip addr replace 2001:db8::21/128 dev lo nodad && ip addr replace "
		 "2001:db8::22/128 dev lo nodad");
	open_by_number = true;
	without_range(V4, "127.0.0.1", "127.0.0.2");
	without_range(V6, "2001:db8::21", "2001:db8::22");
	open_by_number = false;
}

/* What is only bound is found by binding, whatever its options are. */
static void bound(const char *ip)
{
	struct lease l = lease_of(ip, 41250, 3, LEASE_TCP, SLUICE_LEASE_EXCLUSIVE), other = l;
	struct open_request req = { .l4 = SLUICE_TCP, .port = 41252 };
	uint16_t port;
	int fd;

	other.ports.first = other.ports.last = 41251;
	assert_false(open_bound(&l));
	fd = must_get(&l, &req, &port);
	assert_true(open_bound(&l));
	assert_false(open_bound(&other));
	close(fd);
	assert_false(open_bound(&l));
	l.kind = SLUICE_LEASE_SHARED;
	fd = must_get(&l, &req, &port);
	assert_true(open_bound(&l));
	close(fd);
	assert_false(open_bound(&l));
}

static void test_found_by_binding(void **state)
{
	(void)state;
	bound(V4);
	bound(V6);
}

static void test_shared_udp(void **state)
{
	struct lease l = lease_of(V4, 41220, 2, LEASE_UDP, SLUICE_LEASE_SHARED);
	struct open_request req = { .l4 = SLUICE_UDP };
	uint16_t one, two;
	int a, b;

	(void)state;
	a = must_get(&l, &req, &one);
	b = must_get(&l, &req, &two);
	assert_int_equal(one, 41220);
	assert_int_equal(two, 41221);
	refused(&l, &req, -EADDRINUSE, "every port");
	close(a);
	close(b);
}

static void test_sysctls(void **state)
{
	struct lease out = lease_of(V4, 20000, 8, LEASE_TCP, SLUICE_LEASE_SHARED);
	struct lease part = lease_of(V4, 40998, 4, LEASE_TCP, SLUICE_LEASE_SHARED);
	struct lease six = lease_of(V6, 20000, 8, LEASE_TCP, SLUICE_LEASE_SHARED);
	struct open_request req = { .l4 = SLUICE_TCP };
	int a = server("0.0.0.0", 8083), fd;
	uint16_t port;

	(void)state;
	NEED_RANGE_OPTION();
	refused(&out, &req, -EADDRNOTAVAIL, "ip_local_port_range=\"20000 60999\"");
	refused(&six, &req, -EADDRNOTAVAIL, "ip_local_port_range=\"20000 60999\"");
	set(RANGE, "41000 45000");
	refused(&part, &req, -EADDRNOTAVAIL, "ip_local_port_range=\"40998 45000\"");
	set(RANGE, "30000 40999");
	refused(&part, &req, -EADDRNOTAVAIL, "ip_local_port_range=\"30000 41001\"");
	/* What the text says is what helps. */
	set(RANGE, "30000 41001");
	fd = must_get(&part, &req, &port);
	assert_int_equal(try_connect(fd, "127.0.0.1", 8083), 0);
	assert_in_range(port_of(fd), 40998, 41001);
	close(fd);

	/* A port by its number needs no range. */
	req.port = 20003;
	close(must_get(&out, &req, &port));
	req.port = 0;

	set(RESERVED, "22,40990-41005,50000");
	refused(&part, &req, -EADDRNOTAVAIL, "ip_local_reserved_ports");
	/* Some of them: the others are used (for a destination that nothing in TIME_WAIT has had). */
	set(RESERVED, "40998,41000-41001");
	fd = must_get(&part, &req, &port);
	assert_int_equal(try_connect(fd, "127.0.0.2", 8083), 0);
	assert_int_equal(port_of(fd), 40999);
	close(fd);
	close(a);
}

static void test_refused(void **state)
{
	struct lease tcp = lease_of(V4, 41300, 4, LEASE_TCP, SLUICE_LEASE_SHARED);
	struct lease udp = lease_of(V4, 41300, 4, LEASE_UDP, SLUICE_LEASE_EXCLUSIVE);
	struct lease far = lease_of("198.51.100.1", 41300, 4, LEASE_UDP, SLUICE_LEASE_EXCLUSIVE);
	struct open_request req = { .l4 = SLUICE_UDP };

	(void)state;
	refused(&tcp, &req, -EINVAL, "the lease is for tcp, not for udp");
	refused(&far, &req, -EADDRNOTAVAIL, "local 198.51.100.1 dev lo");
	req.listen = true;
	refused(&udp, &req, -EINVAL, "listen");
	req = (struct open_request){ .l4 = SLUICE_TCP, .listen = true };
	refused(&tcp, &req, -EINVAL, "exclusive");
	refused(&udp, &req, -EINVAL, "the lease is for udp, not for tcp");
	req = (struct open_request){ .l4 = SLUICE_TCP, .reuseport = true };
	refused(&tcp, &req, -EINVAL, "reuseport");
	req = (struct open_request){ .l4 = SLUICE_ICMP };
	refused(&udp, &req, -EINVAL, "TCP and UDP");
	req = (struct open_request){ .l4 = SLUICE_UDP, .port = 41299 };
	refused(&udp, &req, -EINVAL, "41300-41303");
	req.port = 41304;
	refused(&udp, &req, -EINVAL, "41300-41303");
}

/* Handed over */

static void send_fd(int to, int fd)
{
	char control[CMSG_SPACE(sizeof(fd))] = { 0 }, byte = 'x';
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	assert_int_equal(sendmsg(to, &m, 0), 1);
}

static int recv_fd(int from)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 }, byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	int fd;

	if (recvmsg(from, &m, MSG_CMSG_CLOEXEC) != 1 || !(c = CMSG_FIRSTHDR(&m)))
		return -1;
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

/* A program without any right: what it can do with a socket that it is given. Returns an exit code. */
static int sandboxed(int from)
{
	struct sockaddr_storage ss;
	socklen_t len = sockaddr_of("127.0.0.1", 8084, &ss);
	int fd;

	if (setresgid(UID, UID, UID) || setresuid(UID, UID, UID))
		return 1;
	fd = recv_fd(from);
	if (fd < 0)
		return 2;
	if (connect(fd, (struct sockaddr *)&ss, len))
		return 3;
	if (write(fd, "hello", 5) != 5)
		return 4;
	return 0;
}

static void test_handed_over(void **state)
{
	struct lease l = lease_of(V4, 41400, 4, LEASE_TCP, SLUICE_LEASE_SHARED);
	struct open_request req = { .l4 = SLUICE_TCP };
	int pair[2], srv = server("127.0.0.1", 8084), fd, conn, status;
	struct sockaddr_in peer;
	socklen_t len = sizeof(peer);
	char said[6] = "";
	uint16_t port;
	pid_t pid;

	(void)state;
	NEED_RANGE_OPTION();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		_exit(sandboxed(pair[1]));
	fd = must_get(&l, &req, &port);
	send_fd(pair[0], fd);
	close(fd);
	assert_int_equal(poll(&(struct pollfd){ .fd = srv, .events = POLLIN }, 1, 10000), 1);
	conn = accept4(srv, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC);
	assert_true(conn >= 0);
	assert_int_equal(peer.sin_addr.s_addr, addr_v4(&l.ports.addr));
	assert_in_range(ntohs(peer.sin_port), 41400, 41403);
	assert_int_equal(recv(conn, said, 5, MSG_WAITALL), 5);
	assert_string_equal(said, "hello");
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	close(conn);
	close(srv);
	close(pair[0]);
	close(pair[1]);
}

/* Sockets of others */

static void check_refused(const struct lease *l, int fd, const char *words)
{
	struct errtext err = { "" };
	enum sluice_l4 l4 = SLUICE_ICMP;
	int r = open_check(l, fd, &l4, &err);

	if (r != -EINVAL)
		die("%d, not -EINVAL, for \"%s\"", r, words);
	if (!strstr(err.s, words))
		die("\"%s\" is not in \"%s\"", words, err.s);
	assert_int_equal(l4, SLUICE_ICMP);
	close(fd);
}

static void check_accepted(const struct lease *l, int fd, enum sluice_l4 want)
{
	struct errtext err = { "" };
	enum sluice_l4 l4 = SLUICE_ICMP;

	if (open_check(l, fd, &l4, &err))
		die("open_check: %s", err.s);
	assert_int_equal(l4, want);
	close(fd);
}

static int made(int family, int type, int proto)
{
	int fd = socket(family, type | SOCK_CLOEXEC, proto);

	if (fd < 0)
		die("socket(%d, %d, %d): %s", family, type, proto, strerror(errno));
	return fd;
}

static int udp_bound(const char *ip)
{
	struct sockaddr_storage ss;
	socklen_t len = sockaddr_of(ip, 0, &ss);
	int fd = made(ss.ss_family, SOCK_DGRAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&ss, len), 0);
	return fd;
}

static int only_v6(int type)
{
	int fd = made(AF_INET6, type, 0), one = 1;
	struct sockaddr_in6 any = { .sin6_family = AF_INET6 };

	assert_int_equal(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&any, sizeof(any)), 0);
	if (type == SOCK_STREAM)
		assert_int_equal(listen(fd, 1), 0);
	return fd;
}

static void test_check(void **state)
{
	struct lease both = lease_of(V4, 41500, 4, LEASE_TCP | LEASE_UDP, SLUICE_LEASE_EXCLUSIVE);
	struct lease tcp = lease_of(V4, 41500, 4, LEASE_TCP, SLUICE_LEASE_EXCLUSIVE);
	struct lease udp = lease_of(V4, 41500, 4, LEASE_UDP, SLUICE_LEASE_EXCLUSIVE);
	struct lease six = lease_of(V6, 41500, 4, LEASE_TCP | LEASE_UDP, SLUICE_LEASE_EXCLUSIVE);
	int fd, home;

	(void)state;
	check_accepted(&both, server("127.0.0.1", 8090), SLUICE_TCP);
	check_accepted(&both, server("0.0.0.0", 8090), SLUICE_TCP);
	check_accepted(&both, server("::", 8090), SLUICE_TCP);
	check_accepted(&six, server("::", 8090), SLUICE_TCP);
	check_accepted(&both, udp_bound("127.0.0.1"), SLUICE_UDP);
	check_accepted(&six, udp_bound("::1"), SLUICE_UDP);
	check_accepted(&six, only_v6(SOCK_STREAM), SLUICE_TCP);

	check_refused(&tcp, udp_bound("127.0.0.1"), "udp socket, and the lease is for tcp");
	check_refused(&udp, server("127.0.0.1", 8090), "tcp socket, and the lease is for udp");
	check_refused(&six, server("127.0.0.1", 8090), "IPv4 socket");
	check_refused(&both, only_v6(SOCK_STREAM), "IPV6_V6ONLY");
	check_refused(&both, only_v6(SOCK_DGRAM), "IPV6_V6ONLY");
	check_refused(&both, made(AF_INET, SOCK_STREAM, 0), "does not listen");
	check_refused(&both, made(AF_INET, SOCK_DGRAM, 0), "not bound");
	fd = udp_bound("127.0.0.1");
	assert_int_equal(try_connect(fd, "127.0.0.1", 53), 0);
	check_refused(&both, fd, "connected UDP");
	check_refused(&both, made(AF_INET, SOCK_RAW, IPPROTO_UDP), "a raw socket");
	check_refused(&both, made(AF_INET6, SOCK_RAW, IPPROTO_UDP), "a raw socket");
	check_refused(&both, made(AF_UNIX, SOCK_STREAM, 0), "a Unix socket");
	check_refused(&both, made(AF_NETLINK, SOCK_RAW, 0), "a netlink socket");
	check_refused(&both, open("/dev/null", O_RDONLY | O_CLOEXEC), "no socket");
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 262);
	if (fd >= 0)
		check_refused(&both, fd, "an MPTCP socket");
	else
		print_message("this kernel has no MPTCP: not tried\n");

	/* Of another network namespace. */
	home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_true(home >= 0);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	must_run("ip link set lo up");
	fd = server("127.0.0.1", 8090);
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	close(home);
	check_refused(&both, fd, "another network namespace");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exclusive),
		cmocka_unit_test(test_passes_over),
		cmocka_unit_test(test_listening),
		cmocka_unit_test(test_bound_is_bound),
		cmocka_unit_test(test_reuseport),
		cmocka_unit_test(test_shared),
		cmocka_unit_test(test_shared_one_port),
		cmocka_unit_test(test_shared_by_number),
		cmocka_unit_test(test_shared_without_range),
		cmocka_unit_test(test_found_by_binding),
		cmocka_unit_test(test_shared_udp),
		cmocka_unit_test_setup_teardown(test_sysctls, sysctls_reset, sysctls_reset),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_handed_over),
		cmocka_unit_test(test_check),
	};

	return cmocka_run_group_tests(tests, net_open, net_close);
}
