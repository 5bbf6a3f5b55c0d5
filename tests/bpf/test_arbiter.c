/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One user per outer tuple: real sockets behind a real uplink (wire.h) and NAT's flows, on a slice of 64 ports. Who comes first has the tuple, in every state
 * and of every kind that a sender can be; the other one is passed over, or moved, and works. See ARCHITECTURE.md, "The arbiter".
 */
#include <linux/version.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "wire.h"

/* Older headers have neither. */
#define MPTCP 262
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

#define BASE    4096
#define NPORTS  64
#define FLOWS   4096
#define WEB     80
#define ALIVE_S 60 /* all timers of pool_all(), but for established TCP */

static void wire_fresh(void)
{
	if (wire_fd >= 0)
		close(wire_fd);
	wire_fd = -1;
	if (unshare(CLONE_NEWNET))
		die("unshare: %s", strerror(errno));
	wire_up();
}

static uint32_t scene_sized(struct bed *b, enum sluice_mapping mapping, uint32_t flows)
{
	struct sluice_pool p = pool_all(mapping);
	uint32_t row;

	/* In a network namespace of its own each: what sockets leave behind outlives them. */
	wire_fresh();
	p.unleased = SLUICE_UNLEASED_ALLOW;
	bed_open(b, flows);
	bed_pool(b, 0, p);
	bed_addr(b, 0, SHARED, 6);
	bed_client(b, IP(10, 1, 0, 0), 16, 0);
	row = bed_slice(b, SHARED, BASE, SLUICE_NEVER);
	wire_attach(b, EGRESS);
	wire_attach(b, INGRESS);
	return row;
}

static uint32_t scene(struct bed *b, enum sluice_mapping mapping)
{
	return scene_sized(b, mapping, FLOWS);
}

static void scene_end(struct bed *b)
{
	wire_detach();
	bed_close(b);
	wire_flush();
}

static uint64_t port_bit(uint16_t port)
{
	if (port < BASE || port >= BASE + NPORTS)
		die("port %u is outside of the slice", port);
	return 1ULL << (port - BASE);
}

/* NAT */

static struct conn nat[NPORTS + 1];
static uint32_t nat_n;

/* Begins up to n flows of clients to one remote end, until there is no port. Returns their ports as bits, and leaves them in nat[]. */
static uint64_t fill(struct bed *b, const char *what, uint8_t proto, uint32_t dst, uint16_t dport,
		     uint32_t n)
{
	static uint32_t client;
	uint64_t got = 0, bit;
	struct frame in;
	struct spec s;
	struct view v;
	struct run r;

	for (nat_n = 0; nat_n < n; nat_n++) {
		struct conn *c = &nat[nat_n];

		*c = conn_of(proto, CLIENT + client++ % 60000, 1000, dst,
			     proto == P_ICMP ? 0 : dport);
		s = conn_out(c, T_SYN);
		send_spec(b, EGRESS, FORWARDED, &s, &in, &r);
		if (r.reason == SLUICE_DROP_no_port)
			break;
		expect_rewritten(what, &in, &r, true, &v);
		c->outer = v.src;
		c->port = v.sport;
		bit = port_bit(c->port);
		if (got & bit)
			die("%s: port %u twice", what, c->port);
		got |= bit;
	}
	return got;
}

static void expect_ports(const char *what, uint64_t got, uint64_t want)
{
	if (got != want)
		die("%s: NAT took %016llx, should have taken %016llx", what,
		    (unsigned long long)got, (unsigned long long)want);
}

/* Senders: each stands at a port of the shared address and sends to REMOTE port 80 */

static void tcp_answered(uint16_t port, struct frame *syn)
{
	struct view v;

	wire_expect("SYN", P_TCP, REMOTE, T_SYN, syn, &v);
	if (v.sport != port)
		die("the SYN left from %u, not %u", v.sport, port);
	wire_tcp(REMOTE, WEB, SHARED, v.sport, T_SYN | T_ACK, 1000, tcp_seq(syn) + 1);
}

static int tcp_connecting(uint16_t port)
{
	int fd = sock_at_port(0, SOCK_STREAM, SHARED, port);

	sock_connect(fd, REMOTE, WEB);
	return fd;
}

static int tcp_established(uint16_t port)
{
	struct frame syn;
	int fd;

	wire_flush();
	fd = tcp_connecting(port);
	tcp_answered(port, &syn);
	wire_wait(sock_writable(fd));
	return fd;
}

/* State of the TCP socket at a port of the shared address, by the kernel's numbers; 0: none. */
static unsigned tcp_state(uint16_t port)
{
	unsigned ip, at, state, found = 0;
	char line[256];
	FILE *f = fopen("/proc/thread-self/net/tcp", "r");

	if (!f)
		die("/proc/thread-self/net/tcp: %s", strerror(errno));
	while (!found && fgets(line, sizeof(line), f))
		if (sscanf(line, " %*u: %x:%x %*x:%*x %x", &ip, &at, &state) == 3 &&
		    ip == htonl(SHARED) && at == port)
			found = state;
	fclose(f);
	return found;
}

static int tcp_time_wait(uint16_t port)
{
	struct frame f;
	struct view v;

	close(tcp_established(port));
	wire_expect("FIN", P_TCP, REMOTE, T_FIN | T_ACK, &f, &v);
	wire_tcp(REMOTE, WEB, SHARED, port, T_FIN | T_ACK, 1001, tcp_seq(&f) + 1);
	wire_wait(tcp_state(port) == 6);
	return -1;
}

static int tcp_listening(uint16_t port)
{
	int fd = sock_at_port(0, SOCK_STREAM, SHARED, port);

	if (listen(fd, 8))
		die("listen: %s", strerror(errno));
	return fd;
}

static void to_device(int fd)
{
	if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "up0", 4))
		die("SO_BINDTODEVICE: %s", strerror(errno));
}

/* NAT asks at another device here (loopback), as if there were a second uplink: the kernel does not show it this socket. */
static int tcp_of_device(uint16_t port)
{
	int fd = sock_at_port(0, SOCK_STREAM, SHARED, port);

	to_device(fd);
	sock_connect(fd, REMOTE, WEB);
	return fd;
}

static int tcp_multipath(uint16_t port)
{
	struct sockaddr_in a = sock_addr(SHARED, port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, MPTCP);

	if (fd < 0) /* a kernel without: a plain one then */
		return tcp_connecting(port);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)))
		die("MPTCP bind: %s", strerror(errno));
	sock_connect(fd, REMOTE, WEB);
	return fd;
}

/* Two sockets of a SO_REUSEADDR group: the port is one, the tuples are two. The other one goes to REMOTE2. */
static int tcp_group_other = -1;

static int tcp_group(uint16_t port)
{
	tcp_group_other = sock_at_port(0, SOCK_STREAM, SHARED, port);
	sock_connect(tcp_group_other, REMOTE2, WEB);
	return tcp_connecting(port);
}

static void fd_send(int to, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	if (sendmsg(to, &m, 0) != 1)
		die("passing a socket: %s", strerror(errno));
}

static int fd_receive(int from)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = sizeof(control) };
	int fd = -1;

	if (recvmsg(from, &m, 0) == 1 && CMSG_FIRSTHDR(&m))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
	return fd;
}

/* Bound here, then handed to another process, in another network namespace, which connects it and has it alone. Closing what is returned ends that process. */
static int tcp_passed(uint16_t port)
{
	int pair[2], fd = sock_at_port(0, SOCK_STREAM, SHARED, port);
	struct sockaddr_in a = sock_addr(REMOTE, WEB);
	char byte = 0;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		die("socketpair: %s", strerror(errno));
	pid = fork();
	if (!pid) {
		close(pair[0]);
		close(fd);
		fd = fd_receive(pair[1]);
		if (fd < 0 || unshare(CLONE_NEWNET) ||
		    (connect(fd, (struct sockaddr *)&a, sizeof(a)) && errno != EINPROGRESS))
			_exit(1);
		if (write(pair[1], &byte, 1) != 1 || read(pair[1], &byte, 1))
			_exit(1);
		_exit(0);
	}
	close(pair[1]);
	fd_send(pair[0], fd);
	close(fd);
	if (read(pair[0], &byte, 1) != 1)
		die("the other process has failed");
	return pair[0];
}

/* Packets that root makes by hand: no socket stands at their tuple. */
static int raw_tcp(uint16_t port)
{
	struct spec s = { .proto = P_TCP,
			  .src = SHARED,
			  .dst = REMOTE,
			  .sport = port,
			  .dport = WEB,
			  .flags = T_SYN };
	struct sockaddr_in a = sock_addr(REMOTE, 0);
	int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	struct frame f;

	frame_build(&f, &s);
	if (fd < 0 ||
	    sendto(fd, f.b + ETH_LEN, f.len - ETH_LEN, 0, (struct sockaddr *)&a, sizeof(a)) < 0)
		die("raw socket: %s", strerror(errno));
	return fd;
}

static int udp_unconnected(uint16_t port)
{
	int fd = sock_at_port(0, SOCK_DGRAM, SHARED, port);

	sock_send(fd, REMOTE, WEB);
	return fd;
}

static void udp_first(int fd)
{
	sock_connect(fd, REMOTE, WEB);
	if (send(fd, "x", 1, 0) < 0 && errno != ENOBUFS)
		die("send: %s", strerror(errno));
}

static int udp_connected(uint16_t port)
{
	int fd = sock_at_port(0, SOCK_DGRAM, SHARED, port);

	udp_first(fd);
	return fd;
}

static int udp_of_device(uint16_t port)
{
	int fd = sock_at_port(0, SOCK_DGRAM, SHARED, port);

	to_device(fd);
	udp_first(fd);
	return fd;
}

static int udp_group_other = -1;

static int udp_group(uint16_t port)
{
	struct sockaddr_in a = sock_addr(SHARED, port);
	int fd[2], one = 1, i;

	for (i = 0; i < 2; i++) {
		fd[i] = sock_of(0, AF_INET, SOCK_DGRAM, 0);
		if (setsockopt(fd[i], SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) ||
		    bind(fd[i], (struct sockaddr *)&a, sizeof(a)))
			die("a group's socket: %s", strerror(errno));
	}
	sock_connect(fd[0], REMOTE2, WEB);
	if (send(fd[0], "x", 1, 0) < 0 && errno != ENOBUFS)
		die("send: %s", strerror(errno));
	udp_group_other = fd[0];
	udp_first(fd[1]);
	return fd[1];
}

static int ping(uint16_t id)
{
	const uint8_t echo[8] = { 8 };
	struct sockaddr_in a = sock_addr(SHARED, id);
	int fd;

	wire_sysctl("ipv4/ping_group_range", "0 0");
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_ICMP);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)))
		die("ping socket: %s", strerror(errno));
	a = sock_addr(REMOTE, 0);
	if (sendto(fd, echo, sizeof(echo), 0, (struct sockaddr *)&a, sizeof(a)) < 0 &&
	    errno != ENOBUFS)
		die("ping: %s", strerror(errno));
	return fd;
}

enum {
	EVERY = 1,    /* has its port for every remote end, whatever the mapping */
	OTHER2 = 2,   /* and the tuple to REMOTE2 */
	BLIND = 4,    /* the kernel's look-up does not show it */
	SENT = 8,     /* its first packet is on the wire */
	LINGERS = 16, /* the kernel keeps the connection after close() */
};

struct kind {
	const char *name;
	uint8_t proto;
	int (*make)(uint16_t port);
	int how;
	int answer; /* its first packet can be answered: this is read or, TCP, written to afterwards */
};

static const struct kind kinds[] = {
	{ "connecting", P_TCP, tcp_connecting, SENT, 1 },
	{ "established", P_TCP, tcp_established, LINGERS, 0 },
	{ "in TIME_WAIT", P_TCP, tcp_time_wait, LINGERS, 0 },
	{ "listening", P_TCP, tcp_listening, EVERY, 0 },
	{ "bound to a device", P_TCP, tcp_of_device, SENT | BLIND, 1 },
	{ "multipath", P_TCP, tcp_multipath, SENT, 1 },
	{ "a SO_REUSEADDR group", P_TCP, tcp_group, OTHER2, 0 },
	{ "passed to another process", P_TCP, tcp_passed, SENT, 0 },
	{ "raw", P_TCP, raw_tcp, SENT | BLIND, 0 },
	{ "unconnected", P_UDP, udp_unconnected, SENT | EVERY, 1 },
	{ "connected", P_UDP, udp_connected, SENT, 1 },
	{ "bound to a device", P_UDP, udp_of_device, SENT | BLIND, 1 },
	{ "a SO_REUSEPORT group", P_UDP, udp_group, OTHER2, 0 },
	{ "ping", P_ICMP, ping, SENT | BLIND, 1 },
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void kinds_close(int fds[KINDS])
{
	size_t i;

	for (i = 0; i < KINDS; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	close(tcp_group_other);
	close(udp_group_other);
	while (waitpid(-1, NULL, 0) > 0)
		;
}

static const uint8_t protos[] = { P_TCP, P_UDP, P_ICMP };

static uint64_t ports_of(uint8_t proto, int how)
{
	uint64_t bits = 0;
	size_t i;

	for (i = 0; i < KINDS; i++)
		if (kinds[i].proto == proto && (!how || (kinds[i].how & how)))
			bits |= 1ULL << i;
	return bits;
}

/* The socket was there first: NAT passes over its tuple, and in an endpoint-independent pool over its port, whatever remote end NAT's flow goes to. */
static void socket_first(enum sluice_mapping mapping)
{
	bool eim = mapping == SLUICE_EIM;
	int fds[KINDS];
	char name[80];
	struct bed b;
	size_t i, k;

	for (k = 0; k < 3; k++) {
		uint8_t p = protos[k];

		/* A listener has sent nothing, and is shown by the kernel alone. */
		uint64_t other = eim ? ports_of(p, 0) : ports_of(p, EVERY | OTHER2);

		scene(&b, mapping);
		for (i = 0; i < KINDS; i++) {
			fds[i] = -1;
			if (kinds[i].proto == p)
				fds[i] = kinds[i].make((uint16_t)(BASE + i));
		}
		assert_int_equal(bed_stats(&b, 0).resolved, 0);
		snprintf(name, sizeof(name), "mapping %d, protocol %u", mapping, p);
		/* Half of it each, where a port serves only one flow. */
		if (eim) {
			uint64_t got = fill(&b, name, p, REMOTE2, WEB, 25);

			expect_ports(name, got | fill(&b, name, p, REMOTE, WEB, NPORTS),
				     ~ports_of(p, 0));
		} else {
			expect_ports(name, fill(&b, name, p, REMOTE, WEB, NPORTS), ~ports_of(p, 0));
			expect_ports("another remote end", fill(&b, name, p, REMOTE2, WEB, NPORTS),
				     ~other);
		}
		assert_int_equal(bed_stats(&b, 0).resolved, 0);
		expect_counts(&b, name);
		kinds_close(fds);
		scene_end(&b);
	}
}

static void test_socket_first(void **state)
{
	(void)state;
	socket_first(SLUICE_OVERLOAD);
	socket_first(SLUICE_EIM);
}

/* A socket that is closed has given its port back, to the first flow that has no other, in a few seconds. What the kernel does not show keeps it for its time. */
static void closed(enum sluice_mapping mapping)
{
	uint64_t got, left, end;
	struct timespec nap = { .tv_nsec = 100000000 };
	int fds[KINDS];
	char name[80];
	struct bed b;
	size_t i, k;

	for (k = 0; k < 2; k++) {
		uint8_t p = protos[k];

		scene(&b, mapping);
		for (i = 0; i < KINDS; i++) {
			fds[i] = -1;
			if (kinds[i].proto == p)
				fds[i] = kinds[i].make((uint16_t)(BASE + i));
		}
		snprintf(name, sizeof(name), "closed: mapping %d, protocol %u", mapping, p);
		kinds_close(fds);
		/* Of several connections from one port, each has to run out. */
		left = ports_of(p, BLIND | LINGERS |
					   (mapping == SLUICE_EIM && p == P_TCP ? OTHER2 : 0));
		end = now_ns() + 10000000000ULL;
		for (got = 0; got != ~left && now_ns() < end;) {
			got |= fill(&b, name, p, REMOTE, WEB, NPORTS);
			nanosleep(&nap, NULL);
		}
		expect_ports(name, got, ~left);
		/* And when that is over too. */
		bed_age(&b, ALIVE_S + 10);
		bed_sweep(&b);
		expect_ports(name, fill(&b, name, p, REMOTE, WEB, NPORTS), ~ports_of(p, LINGERS));
		expect_counts(&b, name);
		scene_end(&b);
	}
}

static void test_closed(void **state)
{
	(void)state;
	need_uptime(200);
	closed(SLUICE_OVERLOAD);
}

static void test_closed_eim(void **state)
{
	(void)state;
	need_uptime(200);
	closed(SLUICE_EIM);
}

/* Whose packet it is: its socket has put that into the TTL. */
#define TTL_OF(f, v) ((f)->b[(v)->l3 + 8])

struct resolved {
	uint32_t n;
	struct sluice_event last;
};

static int see_event(void *arg, void *data, size_t size)
{
	struct resolved *r = arg;
	struct sluice_event *e = data;

	assert_true(size >= sizeof(*e));
	if (e->kind == SLUICE_EVENT_RESOLVED) {
		r->n++;
		r->last = *e;
	}
	return 0;
}

static const struct conn *nat_at(uint16_t port)
{
	uint32_t i;

	for (i = 0; i < nat_n; i++)
		if (nat[i].port == port)
			return &nat[i];
	return NULL;
}

/* The socket's first packet, moved, is on the wire. Returns its port there. */
static uint16_t moved(struct bed *b, const char *what, uint8_t proto, uint16_t port, uint64_t taken,
		      struct frame *ret)
{
	struct resolved seen = { 0 };
	const struct conn *c = nat_at(port);
	struct view v;

	wire_expect(what, proto, REMOTE, T_SYN, ret, &v);
	if (v.src != SHARED || !v.l3_good)
		die("%s: came out as %08x:%u", what, v.src, v.sport);
	if (port_bit(v.sport) & taken)
		die("%s: two users of port %u", what, v.sport);
	bed_events(b, see_event, &seen);
	if (!c || seen.n != 1 || bed_stats(b, 0).resolved != 1)
		die("%s: %u events", what, seen.n);
	assert_int_equal(ip_of(&seen.last.key.src), SHARED);
	assert_int_equal(ntohs(seen.last.key.sport), port);
	assert_int_equal(ntohs(seen.last.outer_port), v.sport);
	/* Who has the tuple. */
	assert_int_equal(ip_of(&seen.last.owner_src), c->src);
	assert_int_equal(ntohs(seen.last.owner_sport), c->sport);
	return v.sport;
}

/* The answer to the moved packet gets to the socket. */
static void answered(const char *what, const struct kind *k, int fd, uint16_t outer,
		     const struct frame *first)
{
	struct spec s = { .proto = k->proto,
			  .src = REMOTE,
			  .dst = SHARED,
			  .sport = k->proto == P_ICMP ? outer : WEB,
			  .dport = outer,
			  .payload = 4 };
	struct frame f;
	struct view v;

	if (k->proto == P_TCP) {
		wire_tcp(REMOTE, WEB, SHARED, outer, T_SYN | T_ACK, 1000, tcp_seq(first) + 1);
		wire_wait(sock_writable(fd));
		wire_expect(what, P_TCP, REMOTE, T_ACK, &f, &v);
		if (v.sport != outer)
			die("%s: goes on from port %u", what, v.sport);
		return;
	}
	frame_build(&f, &s);
	wire_send(&f);
	wire_wait(sock_readable(fd));
}

/* NAT was there first: the socket is moved, with its answers, while NAT's flow goes on. */
static void nat_first(enum sluice_mapping mapping)
{
	struct frame first;
	uint16_t port, outer;
	uint64_t taken;
	char name[80];
	struct bed b;
	size_t i;
	int fd;

	for (i = 0; i < KINDS; i++) {
		const struct kind *k = &kinds[i];

		if (!(k->how & SENT))
			continue;
		snprintf(name, sizeof(name), "mapping %d, protocol %u, %s", mapping, k->proto,
			 k->name);
		scene(&b, mapping);
		taken = fill(&b, name, k->proto, REMOTE, WEB, NPORTS - 4);
		port = nat[i].port;
		fd = k->make(port);
		outer = moved(&b, name, k->proto, port, taken, &first);
		if (k->answer)
			answered(name, k, fd, outer, &first);
		conn_answers(&b, name, nat_at(port), T_SYN | T_ACK);
		conn_sends_same(&b, name, nat_at(port), T_ACK);
		/* NAT does not get the port that the socket has now. */
		taken |= fill(&b, name, k->proto, REMOTE, WEB, NPORTS);
		if (taken & port_bit(outer))
			die("%s: NAT took port %u too", name, outer);
		close(fd);
		while (waitpid(-1, NULL, 0) > 0)
			;
		scene_end(&b);
	}
}

static void test_nat_first(void **state)
{
	(void)state;
	nat_first(SLUICE_OVERLOAD);
	nat_first(SLUICE_EIM);
}

/* Bound first, then NAT takes the port, which it cannot know of, then the socket connects. All of the slice is bound, so that it is any port that NAT takes. */
static void test_bound_before(void **state)
{
	const struct kind *k = &kinds[0];
	int fds[NPORTS], m, i;
	struct frame first;
	uint16_t outer;
	uint64_t taken;
	struct bed b;

	(void)state;
	for (m = 0; m < 2; m++) {
		scene(&b, m ? SLUICE_EIM : SLUICE_OVERLOAD);
		for (i = 0; i < NPORTS; i++)
			fds[i] = sock_at_port(0, SOCK_STREAM, SHARED, (uint16_t)(BASE + i));
		taken = fill(&b, "nat", P_TCP, REMOTE, WEB, NPORTS - 4);
		i = nat[11].port - BASE;
		sock_connect(fds[i], REMOTE, WEB);
		outer = moved(&b, "bound before", P_TCP, nat[11].port, taken, &first);
		answered("bound before", k, fds[i], outer, &first);
		for (i = 0; i < NPORTS; i++)
			close(fds[i]);
		scene_end(&b);
	}
}

/* Both ends open at once, with a socket on its own tuple and with one that is moved. */
static void test_simultaneous_open(void **state)
{
	struct frame first, f;
	uint64_t taken = 0;
	uint16_t port, outer;
	struct view v;
	struct bed b;
	int fd, m;

	(void)state;
	for (m = 0; m < 4; m++) {
		scene(&b, m & 1 ? SLUICE_EIM : SLUICE_OVERLOAD);
		port = outer = BASE + 9;
		if (m & 2) {
			taken = fill(&b, "nat", P_TCP, REMOTE, WEB, NPORTS - 4);
			port = nat[7].port;
		}
		fd = tcp_connecting(port);
		if (m & 2)
			outer = moved(&b, "simultaneous open", P_TCP, port, taken, &first);
		else
			wire_expect("SYN", P_TCP, REMOTE, T_SYN, &first, &v);
		wire_tcp(REMOTE, WEB, SHARED, outer, T_SYN, 1000, 0);
		wire_expect("SYN to a SYN", P_TCP, REMOTE, T_SYN | T_ACK, &f, &v);
		assert_int_equal(v.sport, outer);
		wire_tcp(REMOTE, WEB, SHARED, outer, T_SYN | T_ACK, 1000, tcp_seq(&first) + 1);
		wire_wait(sock_writable(fd));
		assert_int_equal(bed_stats(&b, 0).resolved, m & 2 ? 1 : 0);
		close(fd);
		scene_end(&b);
	}
}

/* A segment with the timestamp option, which lets a connection follow on one in TIME_WAIT. */
static void tcp_stamped(uint16_t port, uint8_t flags, uint32_t seq, uint32_t ack, uint32_t stamp)
{
	struct spec s = { .proto = P_TCP,
			  .src = REMOTE,
			  .dst = SHARED,
			  .sport = WEB,
			  .dport = port,
			  .flags = flags,
			  .tcp_words = 3 };
	struct frame f;
	struct view v;

	frame_build(&f, &s);
	frame_view(&f, &v);
	put32(f.b + v.l4 + 20, 0x0101080a);
	put32(f.b + v.l4 + 24, stamp);
	put32(f.b + v.l4 + 28, 0);
	tcp_numbers(&f, seq, ack);
	wire_send(&f);
}

/* A port again within its TIME_WAIT: NAT does not get the tuple meanwhile, and a socket that the kernel lets have it keeps its port. */
static void test_time_wait_reused(void **state)
{
	struct sockaddr_in to = sock_addr(REMOTE, WEB);
	uint64_t end = now_ns() + 10000000000ULL;
	struct timespec nap = { .tv_nsec = 50000000 };
	struct frame f;
	struct view v;
	struct bed b;
	int fd, r;

	(void)state;
	scene(&b, SLUICE_OVERLOAD);
	wire_sysctl("ipv4/tcp_tw_reuse", "1");
	fd = tcp_connecting(BASE + 33);
	wire_expect("SYN", P_TCP, REMOTE, T_SYN, &f, &v);
	tcp_stamped(v.sport, T_SYN | T_ACK, 1000, tcp_seq(&f) + 1, 1);
	wire_wait(sock_writable(fd));
	close(fd);
	wire_expect("FIN", P_TCP, REMOTE, T_FIN | T_ACK, &f, &v);
	tcp_stamped(v.sport, T_FIN | T_ACK, 1001, tcp_seq(&f) + 1, 2);
	wire_wait(tcp_state(BASE + 33) == 6);
	/* As good as closed to the mark: only the kernel's word keeps NAT off. */
	bed_age(&b, 10);
	expect_ports("TIME_WAIT", fill(&b, "nat", P_TCP, REMOTE, WEB, NPORTS),
		     ~port_bit(BASE + 33));
	wire_flush();
	fd = sock_at_port(0, SOCK_STREAM, SHARED, BASE + 33);
	/* Not within the same second. */
	while ((r = connect(fd, (struct sockaddr *)&to, sizeof(to))) && errno == EADDRNOTAVAIL &&
	       now_ns() < end)
		nanosleep(&nap, NULL);
	if (r && errno != EINPROGRESS)
		die("connecting out of TIME_WAIT: %s", strerror(errno));
	wire_expect("SYN out of TIME_WAIT", P_TCP, REMOTE, T_SYN, &f, &v);
	assert_int_equal(v.sport, BASE + 33);
	assert_int_equal(bed_stats(&b, 0).resolved, 0);
	close(fd);
	scene_end(&b);
}

/* Other network namespaces of this machine */

/* A socket of another namespace in which the shared address stands too, sends to REMOTE. True: a packet of it was on the wire within reach of a later one. */
static bool sends_from(int ns, int home, uint16_t port)
{
	struct sockaddr_in a = sock_addr(SHARED, port), to = sock_addr(REMOTE, WEB);
	int fd, ttl = 99, mark;
	struct frame f;
	struct view v;

	wire_flush();
	if (setns(ns, CLONE_NEWNET))
		die("setns: %s", strerror(errno));
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) ||
	    setsockopt(fd, IPPROTO_IP, IP_TTL, &ttl, sizeof(ttl)) ||
	    connect(fd, (struct sockaddr *)&to, sizeof(to)))
		die("a socket in the other namespace: %s", strerror(errno));
	if (send(fd, "x", 1, 0) < 0 && errno != ENOBUFS)
		die("send: %s", strerror(errno));
	if (setns(home, CLONE_NEWNET))
		die("setns: %s", strerror(errno));
	close(fd);
	/* What is sent after it comes after it. */
	mark = sock_at_port(0, SOCK_DGRAM, SHARED, BASE + 63);
	sock_send(mark, REMOTE, WEB);
	wire_expect("the later one", P_UDP, REMOTE, 0, &f, &v);
	close(mark);
	return TTL_OF(&f, &v) == ttl || TTL_OF(&f, &v) == ttl - 1;
}

static int ns_fd(void)
{
	int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		die("this namespace: %s", strerror(errno));
	return fd;
}

/* Packets that other namespaces send with a shared source never leave: what comes through the machine is forwarded, what comes by a macvlan is known by its socket. */
static void test_other_namespaces(void **state)
{
	int home, other, sk;
	struct sluice_conf conf;
	uint64_t spoofs, cookie;
	socklen_t len = sizeof(cookie);
	char cmd[160];
	struct bed b;

	(void)state;
	scene(&b, SLUICE_OVERLOAD);
	home = ns_fd();
	if (unshare(CLONE_NEWNET))
		die("unshare: %s", strerror(errno));
	other = ns_fd();
	wire_command("link set lo up");
	if (setns(home, CLONE_NEWNET))
		die("setns: %s", strerror(errno));
	snprintf(cmd, sizeof(cmd), "link add veth-in type veth peer name eth0 netns /proc/%d/fd/%d",
		 (int)getpid(), other);
	wire_command(cmd);
	wire_command("addr add 10.1.9.1/24 dev veth-in");
	wire_command("link set veth-in up");
	/* A martian by default: forwarded only if somebody has allowed that. */
	wire_sysctl("ipv4/conf/veth-in/accept_local", "1");
	wire_sysctl("ipv4/conf/veth-in/rp_filter", "0");
	wire_sysctl("ipv4/ip_forward", "1");
	setns(other, CLONE_NEWNET);
	wire_command("addr add 10.1.9.2/24 dev eth0");
	wire_command("link set eth0 up");
	wire_command("addr add 203.0.113.7/32 dev lo");
	wire_command("route add default via 10.1.9.1 src 203.0.113.7");
	setns(home, CLONE_NEWNET);

	map_get_row(b.nat->maps.conf, 0, &conf);
	sk = sock_of(0, AF_INET, SOCK_DGRAM, 0);
	assert_int_equal(getsockopt(sk, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len), 0);
	close(sk);
	conf.netns_cookie = cookie;
	map_put_row(b.nat->maps.conf, 0, &conf);

	if (sends_from(other, home, BASE + 5))
		die("forwarded, with a shared source, and it left");
	spoofs = bed_drops(&b, SLUICE_DROP_spoof).packets;
	assert_true(spoofs >= 1);

	/* A macvlan on the uplink: the frame goes out as if made here. */
	snprintf(cmd, sizeof(cmd),
		 "link add mac0 link up0 netns /proc/%d/fd/%d type macvlan mode bridge",
		 (int)getpid(), other);
	if (b.nat->kconfig->LINUX_KERNEL_VERSION >= KERNEL_VERSION(6, 15, 0)) {
		wire_command(cmd);
		setns(other, CLONE_NEWNET);
		wire_command("link set mac0 up");
		wire_command("neigh replace 10.9.0.1 lladdr " WIRE_MAC " dev mac0 nud permanent");
		wire_command("route replace default via 10.9.0.1 dev mac0 onlink src 203.0.113.7");
		setns(home, CLONE_NEWNET);
		if (sends_from(other, home, BASE + 6))
			die("out of another namespace, with a shared source, and it left");
		assert_true(bed_drops(&b, SLUICE_DROP_spoof).packets > spoofs);
	} else {
		print_message("macvlan: needs Linux 6.15\n");
	}
	scene_end(&b);
	close(other);
	close(home);
}

/* Marks and room */

/* An unconnected socket that sends to many remote ends takes no room in the tables for that. */
static void test_resolver(void **state)
{
	struct bed b;
	int fd, i, m;

	(void)state;
	for (m = 0; m < 2; m++) {
		scene(&b, m ? SLUICE_EIM : SLUICE_OVERLOAD);
		fd = sock_at_port(0, SOCK_DGRAM, SHARED, BASE + 2);
		for (i = 0; i < 500; i++)
			sock_send(fd, REMOTE + (uint32_t)i % 100, (uint16_t)(53 + i / 100));
		assert_int_equal(bed_stats(&b, 0).out.packets, 500);
		assert_int_equal(flows_count(b.nat->maps.rev), 0);
		assert_int_equal(flows_count(b.nat->maps.fwd), m ? 1 : 0);
		close(fd);
		scene_end(&b);
	}
}

/* A full table stops no socket that the kernel shows. What it does not show, NAT would not know of: that is refused. */
/* A port that no flow has, from this one on. */
static uint16_t port_unused(const struct bed *b, uint16_t from)
{
	struct sluice_flow_key k, *at = NULL;
	int fd = bpf_map__fd(b->nat->maps.rev);

	while (bpf_map_get_next_key(fd, at, &k) == 0) {
		at = &k;
		if (ntohs(k.dport) == from)
			return port_unused(b, (uint16_t)(from + 1));
	}
	assert_true(from < BASE + NPORTS);
	return from;
}

static void test_table_full(void **state)
{
	struct frame f, in;
	struct view v;
	struct spec s;
	struct run r;
	struct bed b;
	uint16_t port;
	uint32_t i;
	int fd, m;

	(void)state;
	for (m = 0; m < 2; m++) {
		scene_sized(&b, m ? SLUICE_EIM : SLUICE_OVERLOAD, 16);
		for (i = 0; i < 400; i++) {
			struct conn c = nth(P_TCP, i, REMOTE2 + i);

			s = conn_out(&c, T_SYN);
			send_spec(&b, EGRESS, FORWARDED, &s, &in, &r);
		}
		assert_true(bed_drops(&b, SLUICE_DROP_table_full).packets > 100);
		port = port_unused(&b, BASE);
		fd = tcp_connecting(port);
		wire_expect("in spite of a full table", P_TCP, REMOTE, T_SYN, &f, &v);
		assert_int_equal(v.sport, port);
		close(fd);
		i = (uint32_t)bed_drops(&b, SLUICE_DROP_table_full).packets;
		close(raw_tcp(port_unused(&b, (uint16_t)(port + 1))));
		assert_int_equal(bed_drops(&b, SLUICE_DROP_table_full).packets, i + 1);
		scene_end(&b);
	}
}

/* Leased sockets need no mark, and leave none. */
static void test_leased(void **state)
{
	struct frame f;
	struct view v;
	struct bed b;
	uint32_t row;
	int fd, m;

	(void)state;
	for (m = 0; m < 2; m++) {
		row = scene(&b, m ? SLUICE_EIM : SLUICE_OVERLOAD);
		bed_lease(&b, row, SLUICE_TCP, BASE + 7, 1, 0, 0);
		fd = tcp_connecting(BASE + 7);
		wire_expect("leased", P_TCP, REMOTE, T_SYN, &f, &v);
		assert_int_equal(v.sport, BASE + 7);
		assert_int_equal(flows_count(b.nat->maps.rev) + flows_count(b.nat->maps.fwd), 0);
		expect_ports("leased", fill(&b, "nat", P_TCP, REMOTE, WEB, NPORTS),
			     ~port_bit(BASE + 7));
		close(fd);
		scene_end(&b);
	}
}

/* At once, on two CPUs */

struct opener {
	int type;
	uint32_t dst;
	uint16_t order[NPORTS];
	int fds[NPORTS];
	atomic_uint *turn;
	const char *wrong;
};

/* Both count it up before each step, and so take it together. */
static void step(atomic_uint *turn, uint32_t i)
{
	uint32_t spin = 0;

	atomic_fetch_add(turn, 1);
	while (atomic_load(turn) < 2 * (i + 1) && ++spin < 100000)
		;
}

static void *opener_run(void *arg)
{
	struct opener *o = arg;
	struct sockaddr_in a = sock_addr(o->dst, WEB);
	uint32_t i;

	for (i = 0; i < NPORTS; i++) {
		struct sockaddr_in at = sock_addr(SHARED, (uint16_t)(BASE + o->order[i]));
		int fd = o->fds[o->order[i]];

		step(o->turn, i);
		/* A UDP socket that is bound would keep NAT off beforehand. */
		if (o->type == SOCK_DGRAM && bind(fd, (struct sockaddr *)&at, sizeof(at)))
			o->wrong = "bind failed";
		if (connect(fd, (struct sockaddr *)&a, sizeof(a)) && errno != EINPROGRESS)
			o->wrong = "connect failed";
		if (o->type == SOCK_DGRAM && send(fd, "x", 1, 0) < 0 && errno != ENOBUFS)
			o->wrong = "send failed";
	}
	return NULL;
}

struct race_sum {
	uint32_t own, moved, nat;
};

/* Every port of the slice has a socket and there are as many flows of clients: whoever gets through has a tuple of its own. */
static void race_round(struct bed *b, uint8_t proto, bool blind, uint32_t dst, uint32_t nat_dst,
		       uint64_t seed, struct race_sum *sum)
{
	struct opener o = { .type = proto == P_TCP ? SOCK_STREAM : SOCK_DGRAM, .dst = dst };
	static struct frame in[NPORTS];
	static struct run runs[NPORTS];
	__u64 sent = bed_stats(b, 0).out.packets;
	uint64_t users = 0, moved_ports = 0;
	atomic_uint turn = 0;
	uint32_t i, n_nat = 0, n_sock;
	pthread_t t;

	o.turn = &turn;
	for (i = 0; i < NPORTS; i++) {
		struct conn c =
			conn_of(proto, CLIENT + i, (uint16_t)(1000 + seed % 50000), nat_dst, WEB);
		struct spec s = conn_out(&c, T_SYN);
		int ttl = 64 + (int)i;

		frame_build(&in[i], &s);
		o.order[i] = (uint16_t)i;
		o.fds[i] = proto == P_TCP ? sock_at_port(0, o.type, SHARED, (uint16_t)(BASE + i))
					  : sock_of(0, AF_INET, o.type, 0);
		if (setsockopt(o.fds[i], IPPROTO_IP, IP_TTL, &ttl, sizeof(ttl)))
			die("IP_TTL: %s", strerror(errno));
		if (blind)
			to_device(o.fds[i]);
	}
	for (i = NPORTS - 1; i > 0; i--) {
		uint16_t k, tmp = o.order[i];

		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		k = (uint16_t)((seed >> 33) % (i + 1));
		o.order[i] = o.order[k];
		o.order[k] = tmp;
	}
	if (pthread_create(&t, NULL, opener_run, &o))
		die("pthread_create failed");
	for (i = 0; i < NPORTS; i++) {
		step(&turn, i);
		if (bed_try(b, EGRESS, FORWARDED, &in[i], &runs[i]))
			die("test run failed");
	}
	pthread_join(t, NULL);
	if (o.wrong)
		die("%s", o.wrong);
	for (i = 0; i < NPORTS; i++) {
		struct view v;

		if (runs[i].verdict == VERDICT_DROP)
			continue;
		frame_view(&runs[i].out, &v);
		if (users & port_bit(v.sport))
			die("two flows on port %u", v.sport);
		users |= port_bit(v.sport);
		n_nat++;
	}
	/* Those of sockets that were let through are all on the wire. */
	n_sock = (uint32_t)(bed_stats(b, 0).out.packets - sent) - n_nat;
	for (i = 0; i < n_sock; i++) {
		struct frame f;
		struct view v;

		wire_expect("a socket's packet", proto, dst, T_SYN, &f, &v);
		if (users & port_bit(v.sport))
			die("port %u has two users, one is the socket at %u", v.sport,
			    BASE + TTL_OF(&f, &v) - 64);
		users |= port_bit(v.sport);
		if (v.sport == BASE + TTL_OF(&f, &v) - 64) {
			sum->own++;
		} else {
			sum->moved++;
			moved_ports |= 1ULL << (TTL_OF(&f, &v) - 64);
		}
	}
	/* A port may stay empty whose socket was moved off while NAT gave it up for that socket. */
	if (~(users | moved_ports))
		die("ports %016llx have nobody, and somebody was refused",
		    (unsigned long long)~(users | moved_ports));
	sum->nat += n_nat;
	for (i = 0; i < NPORTS; i++)
		close(o.fds[i]);
	wire_flush();
}

/* blind: the kernel does not show NAT these sockets, so that nothing but the entry can decide. */
static void race(enum sluice_mapping mapping, uint8_t proto, bool blind, uint32_t rounds)
{
	struct race_sum sum = { 0 };
	bool eim = mapping == SLUICE_EIM;
	struct bed b;
	uint32_t i, row, k;

	row = scene(&b, mapping);
	for (i = 0; i < rounds; i++) {
		/* Overload: a remote end for each round. Else a port is one user's, whatever the remote ends are. */
		race_round(&b, proto, blind, IP(100, 64, 0, 1) + i,
			   eim ? IP(100, 65, 0, 1) + i : IP(100, 64, 0, 1) + i, i * 7919 + 1, &sum);
		if (!eim && i % 16)
			continue;
		expect_counts(&b, "race");
		bed_age(&b, 400);
		bed_sweep(&b);
		assert_int_equal(flows_count(b.nat->maps.fwd), 0);
		assert_int_equal(flows_count(b.nat->maps.rev), 0);
		for (k = 0; k < NPORTS; k++)
			assert_false(bed_port(&b, row, l4_of(proto), BASE + k).block->bits);
	}
	print_message(
		"mapping %d, protocol %u: %u sockets kept their port, %u were moved, %u flows\n",
		mapping, proto, sum.own, sum.moved, sum.nat);
	assert_true(sum.own > rounds && sum.nat > rounds && sum.moved > 0);
	scene_end(&b);
}

static void test_race(void **state)
{
	(void)state;
	need_uptime(500);
	race(SLUICE_OVERLOAD, P_TCP, false, 200);
	race(SLUICE_OVERLOAD, P_TCP, true, 200);
	race(SLUICE_OVERLOAD, P_UDP, false, 200);
	race(SLUICE_OVERLOAD, P_UDP, true, 200);
	race(SLUICE_EIM, P_UDP, false, 100);
	race(SLUICE_EIM, P_UDP, true, 100);
	race(SLUICE_EIM, P_TCP, false, 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_socket_first),     cmocka_unit_test(test_nat_first),
		cmocka_unit_test(test_bound_before),     cmocka_unit_test(test_simultaneous_open),
		cmocka_unit_test(test_time_wait_reused), cmocka_unit_test(test_closed),
		cmocka_unit_test(test_closed_eim),       cmocka_unit_test(test_other_namespaces),
		cmocka_unit_test(test_resolver),         cmocka_unit_test(test_table_full),
		cmocka_unit_test(test_leased),           cmocka_unit_test(test_race),
	};

	return cmocka_run_group_tests_name("arbiter", tests, wire_setup, NULL);
}
