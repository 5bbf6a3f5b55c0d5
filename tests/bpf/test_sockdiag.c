/* SPDX-License-Identifier: BSD-2-Clause */
/* The kernel's socket tables as sockdiag reads them, against sockets that the test made and knows all about (own_sockets.h). */
#include "own_sockets.h"

#include "sockdiag.h"

#define SOCKS 256

static struct sockdiag *diag;

static int net_open(void **state)
{
	struct errtext err = { "" };

	(void)state;
	own_net();
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

/* Addresses */

/* What getsockname() and getpeername() say, in our form. */
static void name_of(int fd, bool peer, struct addr *ret, uint16_t *ret_port)
{
	struct sockaddr_storage ss = { 0 };
	struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)&ss;
	struct sockaddr_in *sin = (struct sockaddr_in *)&ss;
	socklen_t len = sizeof(ss);

	*ret = (struct addr){ 0 };
	*ret_port = 0;
	if ((peer ? getpeername : getsockname)(fd, (struct sockaddr *)&ss, &len))
		return;
	if (ss.ss_family == AF_INET) {
		*ret_port = ntohs(sin->sin_port);
		if (sin->sin_addr.s_addr)
			*ret = addr_from_v4(sin->sin_addr.s_addr);
	} else {
		*ret_port = ntohs(sin6->sin6_port);
		memcpy(ret->b, &sin6->sin6_addr, sizeof(ret->b));
	}
}

/* Sockets */

static void pair_close(const struct pair *p)
{
	close(p->c);
	close(p->s);
}

/* Send until nothing goes any more: a FIN then has to wait behind it. */
static void fill(int fd)
{
	static char block[65536];
	int idle = 0;

	for (; idle < 20; idle++) {
		while (send(fd, block, sizeof(block), MSG_NOSIGNAL) > 0)
			idle = 0;
		assert_int_equal(errno, EAGAIN);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
}

/* What a dump said */

struct seen {
	struct sockdiag_sock list[SOCKS];
	size_t n;
};

static int note(const struct sockdiag_sock *s, void *arg)
{
	struct seen *seen = arg;

	assert_in_range(seen->n, 0, SOCKS - 1);
	seen->list[seen->n++] = *s;
	return 0;
}

static void dump(enum sluice_l4 l4, const struct addr *addrs, size_t n, struct seen *ret)
{
	struct errtext err = { "" };

	ret->n = 0;
	if (sockdiag_dump(diag, l4, addrs, n, note, ret, &err))
		die("sockdiag_dump: %s", err.s);
	for (size_t i = 0; i < ret->n; i++)
		assert_int_equal(ret->list[i].l4, l4);
}

static struct seen all(enum sluice_l4 l4)
{
	struct seen seen;

	dump(l4, NULL, 0, &seen);
	return seen;
}

static const struct sockdiag_sock *by_cookie(const struct seen *seen, uint64_t cookie)
{
	for (size_t i = 0; i < seen->n; i++)
		if (seen->list[i].cookie == cookie)
			return &seen->list[i];
	return NULL;
}

/* It is there once, and everything is as the socket itself says. */
static struct sockdiag_sock must_see(enum sluice_l4 l4, int fd, uint8_t state)
{
	struct seen seen = all(l4);
	const struct sockdiag_sock *s = by_cookie(&seen, cookie_of(fd));
	struct addr local, remote;
	uint16_t lport, rport;
	struct stat st;
	size_t n = 0;

	if (!s)
		die("a socket that should be in state %u is missing", state);
	for (size_t i = 0; i < seen.n; i++)
		n += seen.list[i].cookie == s->cookie;
	assert_int_equal(n, 1);
	name_of(fd, false, &local, &lport);
	name_of(fd, true, &remote, &rport);
	assert_int_equal(s->state, state);
	assert_memory_equal(&s->local, &local, sizeof(local));
	assert_int_equal(s->lport, lport);
	/* Of a connection that has no peer any more getpeername() does not tell. */
	if (rport || !s->rport) {
		assert_memory_equal(&s->remote, &remote, sizeof(remote));
		assert_int_equal(s->rport, rport);
	}
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(s->inode, st.st_ino);
	assert_int_equal(s->uid, st.st_uid);
	return *s;
}

static bool sees_none(enum sluice_l4 l4)
{
	return !all(l4).n;
}

/* Resets instead of TIME_WAIT, so that the next test finds nothing. */
static void hard_close(int fd)
{
	struct linger l = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	close(fd);
}

static void hard_close_pair(const struct pair *p)
{
	hard_close(p->c);
	hard_close(p->s);
}

/* The tests */

static void test_empty(void **state)
{
	(void)state;
	assert_true(sees_none(SLUICE_TCP));
	assert_true(sees_none(SLUICE_UDP));
}

static void test_established(void **state)
{
	struct addr v6 = A(V6);
	struct sockdiag_sock s;
	struct pair p;

	(void)state;
	p = pair_new(AF_INET, V4, 41000, V4B, 8080);
	s = must_see(SLUICE_TCP, p.c, TCP_ESTABLISHED);
	assert_int_equal(s.lport, 41000);
	assert_int_equal(s.rport, 8080);
	must_see(SLUICE_TCP, p.s, TCP_ESTABLISHED);
	assert_int_equal(all(SLUICE_TCP).n, 2);
	hard_close_pair(&p);
	wait_for(sees_none(SLUICE_TCP));

	p = pair_new(AF_INET6, V6, 41000, V6B, 8080);
	s = must_see(SLUICE_TCP, p.c, TCP_ESTABLISHED);
	assert_int_equal(addr_cmp(&s.local, &v6), 0);
	must_see(SLUICE_TCP, p.s, TCP_ESTABLISHED);
	hard_close_pair(&p);
	wait_for(sees_none(SLUICE_TCP));
}

static void test_opening(void **state)
{
	int fd = sock_bound(AF_INET, SOCK_STREAM, V4, 41001), l, c, secs = 30;
	struct addr addr = A(V4B);
	struct seen seen;

	(void)state;
	sock_connect(fd, AF_INET, DEAD, 80);
	must_see(SLUICE_TCP, fd, TCP_SYN_SENT);
	close(fd);

	/* Its own end is open; the listener waits for data before it makes a socket. */
	l = listener(AF_INET, V4B, 8080);
	assert_int_equal(setsockopt(l, IPPROTO_TCP, TCP_DEFER_ACCEPT, &secs, sizeof(secs)), 0);
	must_see(SLUICE_TCP, l, TCP_LISTEN);
	c = sock_bound(AF_INET, SOCK_STREAM, V4, 41002);
	sock_connect(c, AF_INET, V4B, 8080);
	wait_for(tcp_state(c) == TCP_ESTABLISHED);
	dump(SLUICE_TCP, &addr, 1, &seen);
	assert_int_equal(seen.n, 2);
	for (size_t i = 0; i < seen.n; i++) {
		assert_int_equal(seen.list[i].lport, 8080);
		if (seen.list[i].state == TCP_LISTEN)
			continue;
		assert_int_equal(seen.list[i].state, TCP_SYN_RECV);
		assert_int_equal(seen.list[i].rport, 41002);
		assert_int_equal(seen.list[i].inode, 0);
	}
	assert_int_not_equal(seen.list[0].state, seen.list[1].state);
	hard_close(c);
	close(l);
	wait_for(sees_none(SLUICE_TCP));
}

static void test_closing(void **state)
{
	struct pair p;

	(void)state;
	p = pair_new(AF_INET, V4, 41003, V4B, 8080);
	shutdown(p.c, SHUT_WR);
	wait_for(tcp_state(p.c) == TCP_FIN_WAIT2);
	must_see(SLUICE_TCP, p.c, TCP_FIN_WAIT2);
	must_see(SLUICE_TCP, p.s, TCP_CLOSE_WAIT);
	fill(p.s);
	shutdown(p.s, SHUT_WR);
	must_see(SLUICE_TCP, p.s, TCP_LAST_ACK);
	hard_close_pair(&p);

	p = pair_new(AF_INET, V4, 41004, V4B, 8080);
	fill(p.c);
	shutdown(p.c, SHUT_WR);
	must_see(SLUICE_TCP, p.c, TCP_FIN_WAIT1);
	shutdown(p.s, SHUT_WR);
	wait_for(tcp_state(p.c) == TCP_CLOSING);
	must_see(SLUICE_TCP, p.c, TCP_CLOSING);
	hard_close_pair(&p);
	wait_for(sees_none(SLUICE_TCP));
}

/* No process has it, but the port is used all the same. */
static bool sees_time_wait(uint16_t lport)
{
	struct addr addr = A(V4), peer = A(V4B);
	struct seen seen;

	dump(SLUICE_TCP, &addr, 1, &seen);
	for (size_t i = 0; i < seen.n; i++)
		if (seen.list[i].lport == lport && seen.list[i].state == TCP_TIME_WAIT)
			return !seen.list[i].inode && seen.list[i].rport == 8080 &&
			       !addr_cmp(&seen.list[i].remote, &peer);
	return false;
}

static void test_time_wait(void **state)
{
	struct pair p = pair_new(AF_INET, V4, 41005, V4B, 8080);

	(void)state;
	pair_close(&p);
	wait_for(sees_time_wait(41005));
	assert_false(sees_time_wait(41006));
	/* It would stay for a minute. */
	assert_int_equal(all(SLUICE_TCP).n, 1);
}

static void test_bound_only(void **state)
{
	struct addr addrs[2] = { A(V4), A(V6) };
	int one, two, fresh, fd;
	struct seen seen;

	(void)state;
	if (!sockdiag_sees_bound(diag)) {
		print_message("this kernel has no BOUND_INACTIVE (6.8 on)\n");
		skip();
	}
	one = sock_bound(AF_INET, SOCK_STREAM, V4, 42000);
	two = sock_bound(AF_INET6, SOCK_STREAM, V6, 42001);
	must_see(SLUICE_TCP, one, BOUND);
	must_see(SLUICE_TCP, two, BOUND);
	dump(SLUICE_TCP, addrs, 2, &seen);
	assert_non_null(by_cookie(&seen, cookie_of(one)));
	assert_non_null(by_cookie(&seen, cookie_of(two)));

	/* Without a bind() there is nothing to see; nor with one that left the port open. */
	fresh = sock_new(AF_INET, SOCK_STREAM);
	fd = sock_new(AF_INET, SOCK_STREAM);
	assert_int_equal(
		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &(int){ 1 }, sizeof(int)), 0);
	assert_int_equal(bind(fd,
			      (struct sockaddr *)&(struct sockaddr_in){
				      .sin_family = AF_INET,
				      .sin_addr.s_addr = addr_v4(&addrs[0]),
			      },
			      sizeof(struct sockaddr_in)),
			 0);
	seen = all(SLUICE_TCP);
	assert_null(by_cookie(&seen, cookie_of(fresh)));
	assert_null(by_cookie(&seen, cookie_of(fd)));

	/* The same socket, listening. */
	assert_int_equal(listen(one, 1), 0);
	must_see(SLUICE_TCP, one, TCP_LISTEN);
	close(one);
	close(two);
	close(fresh);
	close(fd);
}

static void test_udp(void **state)
{
	struct addr addrs[2] = { A(V4), A(V6) };
	int un, con, six, wild, wild6;
	struct sockdiag_sock s;
	struct seen seen;

	(void)state;
	un = sock_bound(AF_INET, SOCK_DGRAM, V4, 43000);
	con = sock_bound(AF_INET, SOCK_DGRAM, V4, 43001);
	sock_connect(con, AF_INET, V4B, 53);
	six = sock_bound(AF_INET6, SOCK_DGRAM, V6, 43002);
	wild = sock_bound(AF_INET, SOCK_DGRAM, "*", 43003);
	wild6 = sock_bound(AF_INET6, SOCK_DGRAM, "*", 43004);
	s = must_see(SLUICE_UDP, un, TCP_CLOSE);
	assert_int_equal(s.rport, 0);
	s = must_see(SLUICE_UDP, con, TCP_ESTABLISHED);
	assert_int_equal(s.rport, 53);
	must_see(SLUICE_UDP, six, TCP_CLOSE);
	must_see(SLUICE_UDP, wild, TCP_CLOSE);
	must_see(SLUICE_UDP, wild6, TCP_CLOSE);
	assert_int_equal(all(SLUICE_UDP).n, 5);
	assert_true(sees_none(SLUICE_TCP));

	dump(SLUICE_UDP, addrs, 2, &seen);
	assert_int_equal(seen.n, 3);
	assert_non_null(by_cookie(&seen, cookie_of(un)));
	assert_non_null(by_cookie(&seen, cookie_of(con)));
	assert_non_null(by_cookie(&seen, cookie_of(six)));
	close(un);
	close(con);
	close(six);
	close(wild);
	close(wild6);
	assert_true(sees_none(SLUICE_UDP));
}

/* IPv6 sockets that talk IPv4. */
static void test_v4_mapped(void **state)
{
	struct addr v4 = A(V4), v6 = A(V6);
	int udp = sock_bound(AF_INET6, SOCK_DGRAM, V4, 44000);
	int l = listener(AF_INET6, V4, 44000);
	struct sockdiag_sock s;
	struct seen seen;

	(void)state;
	s = must_see(SLUICE_UDP, udp, TCP_CLOSE);
	assert_memory_equal(&s.local, &v4, sizeof(v4));
	s = must_see(SLUICE_TCP, l, TCP_LISTEN);
	assert_memory_equal(&s.local, &v4, sizeof(v4));
	dump(SLUICE_UDP, &v4, 1, &seen);
	assert_int_equal(seen.n, 1);
	dump(SLUICE_TCP, &v4, 1, &seen);
	assert_int_equal(seen.n, 1);
	dump(SLUICE_TCP, &v6, 1, &seen);
	assert_int_equal(seen.n, 0);
	close(udp);
	close(l);
}

static void test_wildcard(void **state)
{
	struct addr addrs[] = { A(V4), A(V4B), A(V6), A("0.0.0.0") };
	int four = listener(AF_INET, "*", 45000), six, only;
	struct sockdiag_sock s;
	struct seen seen;

	(void)state;
	six = listener(AF_INET6, "*", 45001);
	only = sock_bound(AF_INET6, SOCK_STREAM, "*", 45002);
	assert_int_equal(setsockopt(only, IPPROTO_IPV6, IPV6_V6ONLY, &(int){ 1 }, sizeof(int)), -1);
	close(only);
	only = sock_new(AF_INET6, SOCK_STREAM);
	assert_int_equal(setsockopt(only, IPPROTO_IPV6, IPV6_V6ONLY, &(int){ 1 }, sizeof(int)), 0);
	assert_int_equal(bind(only,
			      (struct sockaddr *)&(struct sockaddr_in6){
				      .sin6_family = AF_INET6,
				      .sin6_port = htons(45002),
			      },
			      sizeof(struct sockaddr_in6)),
			 0);
	assert_int_equal(listen(only, 1), 0);
	s = must_see(SLUICE_TCP, four, TCP_LISTEN);
	assert_memory_equal(&s.local, &(struct addr){ 0 }, sizeof(s.local));
	s = must_see(SLUICE_TCP, six, TCP_LISTEN);
	assert_false(s.v6only);
	s = must_see(SLUICE_TCP, only, TCP_LISTEN);
	assert_true(s.v6only);
	dump(SLUICE_TCP, addrs, 3, &seen);
	assert_null(by_cookie(&seen, cookie_of(four)));
	assert_null(by_cookie(&seen, cookie_of(six)));
	assert_null(by_cookie(&seen, cookie_of(only)));
	close(four);
	close(six);
	close(only);
}

static void test_particulars(void **state)
{
	int udp = sock_bound(AF_INET, SOCK_DGRAM, V4, 46000), tcp;
	uint64_t cgroup;
	struct sockdiag_sock s;

	(void)state;
	s = must_see(SLUICE_UDP, udp, TCP_CLOSE);
	assert_int_equal(s.ifindex, 0);
	assert_int_equal(setsockopt(udp, SOL_SOCKET, SO_BINDTODEVICE, "dead0", 5), 0);
	s = must_see(SLUICE_UDP, udp, TCP_CLOSE);
	assert_int_equal(s.ifindex, if_nametoindex("dead0"));
	cgroup = s.cgroup;
	assert_int_not_equal(cgroup, 0);

	/* The owner is the descriptor's, whoever made it. */
	assert_int_equal(fchown(udp, 4711, (gid_t)-1), 0);
	s = must_see(SLUICE_UDP, udp, TCP_CLOSE);
	assert_int_equal(s.uid, 4711);

	/* All sockets of a process are of one control group. */
	tcp = listener(AF_INET, V4, 46001);
	s = must_see(SLUICE_TCP, tcp, TCP_LISTEN);
	assert_int_equal(s.cgroup, cgroup);

	/* Made under another uid. */
	close(tcp);
	assert_int_equal(seteuid(4712), 0);
	tcp = listener(AF_INET, V4, 46002);
	assert_int_equal(seteuid(0), 0);
	s = must_see(SLUICE_TCP, tcp, TCP_LISTEN);
	assert_int_equal(s.uid, 4712);
	close(tcp);
	close(udp);
}

/* The kernel chooses among few addresses, we among many; both exactly. */
static void test_filter(void **state)
{
	enum {
		N = 200,
	};
	static struct addr addrs[N];
	int fds[N];
	struct seen seen;

	(void)state;
	must_run("ip route add local 198.18.0.0/16 dev lo && ip route add local 2001:db8:1::/64 "
		 "dev lo");
	for (int i = 0; i < N; i++) {
		char text[ADDR_STRLEN];

		snprintf(text, sizeof(text), i % 2 ? "198.18.7.%d" : "2001:db8:1::%x", i + 1);
		addrs[i] = A(text);
		fds[i] = listener(i % 2 ? AF_INET : AF_INET6, text, 47000);
	}
	for (size_t n = 1; n <= N;
	     n += n < 5 || (n > 60 && n < 70) || (n > 125 && n < 131) ? 1 : 5) {
		for (size_t from = 0; from + n <= N && from < 10 * n; from += n) {
			dump(SLUICE_TCP, addrs + from, n, &seen);
			assert_int_equal(seen.n, n);
			for (size_t i = 0; i < n; i++)
				assert_non_null(by_cookie(&seen, cookie_of(fds[from + i])));
		}
	}
	for (int i = 0; i < N; i++)
		close(fds[i]);
	dump(SLUICE_TCP, addrs, N, &seen);
	assert_int_equal(seen.n, 0);
}

struct stopper {
	size_t calls, at;
};

static int stop_at(const struct sockdiag_sock *s, void *arg)
{
	struct stopper *st = arg;

	(void)s;
	return ++st->calls == st->at ? -4711 : 0;
}

/* Stopping does not disturb the next dump. Enough sockets for several answers of the kernel. */
static void test_stop(void **state)
{
	enum {
		N = 5000,
	};
	static int fds[N];
	struct errtext err = { "" };
	struct stopper st;

	(void)state;
	for (int i = 0; i < N; i++)
		fds[i] = sock_bound(AF_INET, SOCK_DGRAM, V4, (uint16_t)(20000 + i));
	for (size_t at = 1; at <= N; at += 1237) {
		st = (struct stopper){ .at = at };
		assert_int_equal(sockdiag_dump(diag, SLUICE_UDP, NULL, 0, stop_at, &st, &err),
				 -4711);
		assert_int_equal(st.calls, at);
	}
	st = (struct stopper){ 0 };
	assert_int_equal(sockdiag_dump(diag, SLUICE_UDP, NULL, 0, stop_at, &st, &err), 0);
	assert_int_equal(st.calls, N);
	for (int i = 0; i < N; i++)
		close(fds[i]);
	assert_true(sees_none(SLUICE_UDP));
}

/* It stays in the namespace in which it was opened. */
static void test_namespace(void **state)
{
	int udp = sock_bound(AF_INET, SOCK_DGRAM, V4, 48000);
	int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	struct errtext err = { "" };
	struct sockdiag *other;
	struct stopper st = { 0 };

	(void)state;
	assert_true(home >= 0);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	must_see(SLUICE_UDP, udp, TCP_CLOSE);
	assert_int_equal(sockdiag_open(&other, &err), 0);
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	assert_int_equal(sockdiag_dump(other, SLUICE_UDP, NULL, 0, stop_at, &st, &err), 0);
	assert_int_equal(st.calls, 0);
	assert_int_equal(sockdiag_sees_bound(other), sockdiag_sees_bound(diag));
	sockdiag_close(other);
	close(home);
	close(udp);
}

static void test_names(void **state)
{
	(void)state;
	assert_string_equal(sockdiag_state_name(TCP_ESTABLISHED), "established");
	assert_string_equal(sockdiag_state_name(TCP_TIME_WAIT), "time-wait");
	assert_string_equal(sockdiag_state_name(TCP_LISTEN), "listening");
	assert_string_equal(sockdiag_state_name(BOUND), "bound");
	assert_string_equal(sockdiag_state_name(0), "unknown");
	assert_string_equal(sockdiag_state_name(255), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_established),
		cmocka_unit_test(test_opening),
		cmocka_unit_test(test_closing),
		cmocka_unit_test(test_bound_only),
		cmocka_unit_test(test_udp),
		cmocka_unit_test(test_v4_mapped),
		cmocka_unit_test(test_wildcard),
		cmocka_unit_test(test_particulars),
		cmocka_unit_test(test_filter),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_namespace),
		cmocka_unit_test(test_names),
		/* Last: it leaves a socket that nobody can close. */
		cmocka_unit_test(test_time_wait),
	};

	return cmocka_run_group_tests(tests, net_open, net_close);
}
