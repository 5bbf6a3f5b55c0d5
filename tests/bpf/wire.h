/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Packets of real sockets: a network namespace of this test's own with an uplink whose other end is in the test's hands. The programs sit at the uplink as
 * clsact filters.
 *
 *     sockets ---- up0 (10.9.0.2/24, fd09::2/64; default routes) ---- wire0: frames are read and written raw
 *     local: 203.0.113.7 (shared), 2001:db8::cb00:7107 (shared too)
 */
#ifndef WIRE_H
#define WIRE_H

#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "flows.h"

#define OWN      IP(10, 9, 0, 2)
#define OWN6     "fd09::2"
#define SHARED6  "2001:db8::cb00:7107"
#define REMOTE6  "2001:db8::c633:640a"
#define UP_MAC   "02:00:00:00:00:01"
#define WIRE_MAC "02:00:00:00:00:02"

static int wire_fd = -1;

static inline void wire_command(const char *args)
{
	char cmd[200];

	snprintf(cmd, sizeof(cmd), "ip %s", args);
	if (system(cmd))
		die("%s failed", cmd);
}

static inline void wire_sysctl(const char *name, const char *value)
{
	char path[160];
	int fd;

	snprintf(path, sizeof(path), "/proc/sys/net/%s", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		die("%s: %s", path, strerror(errno));
	close(fd);
}

/* For cmocka_run_group_tests(). */
static inline int wire_setup(void **state)
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

static inline struct bpf_tc_hook wire_hook(enum bpf_tc_attach_point at)
{
	struct bpf_tc_hook hook;

	memset(&hook, 0, sizeof(hook)); /* libbpf looks at the padding too */
	hook.sz = sizeof(hook);
	hook.attach_point = at;
	hook.ifindex = (int)if_nametoindex("up0");
	return hook;
}

/* The bed's program into a hook. */
static inline void wire_attach(struct bed *b, enum hook at)
{
	struct bpf_tc_hook hook = wire_hook(at == EGRESS ? BPF_TC_EGRESS : BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = hook_fd(b, at));
	libbpf_print_fn_t print = libbpf_set_print(NULL); /* the clsact may be there */
	int err = bpf_tc_hook_create(&hook);

	libbpf_set_print(print);
	if (err && err != -EEXIST)
		die("clsact: %s", strerror(-err));
	err = bpf_tc_attach(&hook, &opts);
	if (err)
		die("attaching: %s", strerror(-err));
}

static inline void wire_detach(void)
{
	struct bpf_tc_hook hook = wire_hook(BPF_TC_EGRESS | BPF_TC_INGRESS);
	libbpf_print_fn_t print = libbpf_set_print(NULL); /* it may not be there */

	bpf_tc_hook_destroy(&hook);
	libbpf_set_print(print);
}

/* Reads what waits, and throws it away. */
static inline void wire_flush(void)
{
	struct frame f;

	while (recv(wire_fd, f.b, sizeof(f.b), MSG_DONTWAIT) > 0)
		;
}

/* Makes the wire, once. */
static inline void wire_up(void)
{
	struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };

	if (wire_fd >= 0) {
		/* What a test that failed has left. */
		wire_detach();
		wire_flush();
		return;
	}
	wire_command("link set lo up");
	wire_command("link add up0 address " UP_MAC " type veth peer name wire0 address " WIRE_MAC);
	wire_sysctl("ipv6/conf/up0/accept_dad", "0");
	wire_sysctl("ipv6/conf/wire0/disable_ipv6", "1");
	wire_sysctl("ipv4/conf/all/rp_filter", "0");
	wire_sysctl("ipv4/conf/default/rp_filter", "0");
	wire_command("link set up0 up");
	wire_command("link set wire0 up");
	wire_command("addr add 10.9.0.2/24 dev up0");
	wire_command("addr add " OWN6 "/64 dev up0 nodad");
	wire_command("neigh replace 10.9.0.1 lladdr " WIRE_MAC " dev up0 nud permanent");
	wire_command("neigh replace fd09::1 lladdr " WIRE_MAC " dev up0 nud permanent");
	wire_command("route add default via 10.9.0.1 dev up0");
	wire_command("-6 route add default via fd09::1 dev up0");
	wire_command("route add local 203.0.113.7/32 dev lo");
	wire_command("-6 route add local " SHARED6 "/128 dev lo");
	wire_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
	a.sll_ifindex = (int)if_nametoindex("wire0");
	if (wire_fd < 0 || bind(wire_fd, (struct sockaddr *)&a, sizeof(a)))
		die("packet socket: %s", strerror(errno));
}

/* The next frame that left by the uplink and that want says yes to, within ten seconds. */
static inline void wire_recv(const char *what, bool (*want)(const struct frame *f, void *arg),
			     void *arg, struct frame *ret)
{
	struct pollfd p = { .fd = wire_fd, .events = POLLIN };
	uint64_t end = now_ns() + 10000000000ULL;
	struct sockaddr_ll from;
	socklen_t len;
	ssize_t n;

	while (now_ns() < end) {
		if (poll(&p, 1, 100) != 1)
			continue;
		len = sizeof(from);
		n = recvfrom(wire_fd, ret->b, sizeof(ret->b), MSG_DONTWAIT,
			     (struct sockaddr *)&from, &len);
		if (n <= 0 || from.sll_pkttype == PACKET_OUTGOING)
			continue;
		ret->len = (uint32_t)n;
		if (want(ret, arg))
			return;
	}
	die("%s: nothing of that kind came out within ten seconds", what);
}

static inline void wire_send(const struct frame *f)
{
	if (send(wire_fd, f->b, f->len, 0) != (ssize_t)f->len)
		die("sending a frame: %s", strerror(errno));
}

struct wire_want {
	uint8_t proto;
	uint32_t dst;
	uint8_t flags; /* TCP: exactly these of SYN, ACK, FIN, RST */
};

static inline bool wire_wanted(const struct frame *f, void *arg)
{
	const struct wire_want *w = arg;
	struct view v;

	frame_view(f, &v);
	return v.ip4 && v.proto == w->proto && v.dst == w->dst &&
	       (v.proto != P_TCP || (v.flags & (T_SYN | T_ACK | T_FIN | T_RST)) == w->flags);
}

/* The next IPv4 packet of that kind on the wire. */
static inline void wire_expect(const char *what, uint8_t proto, uint32_t dst, uint8_t flags,
			       struct frame *ret, struct view *ret_view)
{
	struct wire_want w = { proto, dst, flags };

	wire_recv(what, wire_wanted, &w, ret);
	frame_view(ret, ret_view);
}

/* Sequence numbers of a TCP segment. */
static inline void tcp_numbers(struct frame *f, uint32_t seq, uint32_t ack)
{
	struct view v;
	uint8_t *p;

	frame_view(f, &v);
	p = f->b + v.l4;
	put32(p + 4, seq);
	put32(p + 8, ack);
	put16(p + 16, 0);
	put16(p + 16, (uint16_t)~words_fold(words_sum(
			      p, v.end - v.l4, pseudo_sum(v.src, v.dst, P_TCP, v.end - v.l4))));
}

static inline uint32_t tcp_seq(const struct frame *f)
{
	struct view v;

	frame_view(f, &v);
	return get32(f->b + v.l4 + 4);
}

/* The remote end sends a TCP segment. */
static inline void wire_tcp(uint32_t src, uint16_t sport, uint32_t dst, uint16_t dport,
			    uint8_t flags, uint32_t seq, uint32_t ack)
{
	struct spec s = { .proto = P_TCP,
			  .src = src,
			  .dst = dst,
			  .sport = sport,
			  .dport = dport,
			  .flags = flags };
	struct frame f;

	frame_build(&f, &s);
	tcp_numbers(&f, seq, ack);
	wire_send(&f);
}

/* Sockets */

static inline struct sockaddr_in sock_addr(uint32_t ip, uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(ip),
				 .sin_port = htons(port) };

	return a;
}

static inline struct sockaddr_in6 sock_addr6(const char *ip, uint16_t port)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(port) };

	inet_pton(AF_INET6, ip, &a.sin6_addr);
	return a;
}

/* A socket that a user made. Non-blocking. */
static inline int sock_of(uid_t uid, int family, int type, int proto)
{
	int fd, one = 1;

	if (seteuid(uid))
		die("seteuid: %s", strerror(errno));
	fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, proto);
	if (seteuid(0))
		die("seteuid: %s", strerror(errno));
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)))
		die("socket: %s", strerror(errno));
	return fd;
}

static inline int sock_at_port(uid_t uid, int type, uint32_t ip, uint16_t port)
{
	struct sockaddr_in a = sock_addr(ip, port);
	int fd = sock_of(uid, AF_INET, type, 0);

	if (bind(fd, (struct sockaddr *)&a, sizeof(a)))
		die("binding port %u: %s", port, strerror(errno));
	return fd;
}

static inline void sock_send(int fd, uint32_t ip, uint16_t port)
{
	struct sockaddr_in a = sock_addr(ip, port);

	/* What TC drops, the kernel reports as success or as ENOBUFS. */
	if (sendto(fd, "0123456789", 10, 0, (struct sockaddr *)&a, sizeof(a)) < 0 &&
	    errno != ENOBUFS)
		die("sendto: %s", strerror(errno));
}

static inline void sock_connect(int fd, uint32_t ip, uint16_t port)
{
	struct sockaddr_in a = sock_addr(ip, port);

	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) && errno != EINPROGRESS)
		die("connect: %s", strerror(errno));
}

static inline uint64_t sock_cookie(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len))
		die("SO_COOKIE: %s", strerror(errno));
	return cookie;
}

/* Waits for a condition for up to ten seconds. */
#define wire_wait(condition)                                                \
	do {                                                                \
		struct timespec nap_ = { .tv_nsec = 5000000 };              \
		int left_;                                                  \
                                                                            \
		for (left_ = 2000; left_ > 0 && !(condition); left_--)      \
			nanosleep(&nap_, NULL);                             \
		if (!left_)                                                 \
			die("after ten seconds still not: %s", #condition); \
	} while (0)

/* Is there something to read? */
static inline bool sock_readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1 && (p.revents & POLLIN);
}

static inline bool sock_writable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT) && !(p.revents & POLLERR);
}

#endif
