/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sockets that a test made and knows all about: in a network namespace of its own, in which there are no others, with two shared addresses of each family, and an interface
 * without anybody behind it.
 */
#ifndef OWN_SOCKETS_H
#define OWN_SOCKETS_H

#include "sockname.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

#define V4    "203.0.113.7"
#define V4B   "203.0.113.8"
#define V6    "2001:db8::7"
#define V6B   "2001:db8::8"
#define DEAD  "192.0.2.99" /* routed to the interface that swallows everything */
#define BOUND 13

static inline void own_net(void)
{
	need_root();
	if (unshare(CLONE_NEWNET))
		die("a network namespace of our own: %s", strerror(errno));
	must_run("ip link set lo up && ip link add dead0 type veth peer name dead1");
	must_run("ip link set dead0 up && ip link set dead1 up");
	must_run("ip route add local " V4 " dev lo && ip route add local " V4B " dev lo");
	must_run("ip addr add " V6 "/128 dev lo nodad && ip addr add " V6B "/128 dev lo nodad");
	must_run("ip addr add 192.0.2.1/24 dev dead0");
	must_run("ip neigh add " DEAD " lladdr 02:00:00:00:00:99 dev dead0");
}

/* Sockets */

static inline int sock_new(int family, int type)
{
	int fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;

	assert_true(fd >= 0);
	if (type == SOCK_STREAM)
		assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
	/* Some bind to more addresses than there are; for IPv6 a local route does not do. */
	if (family == AF_INET6)
		assert_int_equal(setsockopt(fd, IPPROTO_IPV6, IPV6_FREEBIND, &one, sizeof(one)), 0);
	return fd;
}

static inline void sock_bind(int fd, int family, const char *ip, uint16_t port)
{
	struct sockaddr_storage ss;
	socklen_t len = sockaddr_of(family, ip, port, &ss);

	if (bind(fd, (struct sockaddr *)&ss, len))
		die("bind %s:%u: %s", ip, port, strerror(errno));
}

static inline int sock_bound(int family, int type, const char *ip, uint16_t port)
{
	int fd = sock_new(family, type);

	sock_bind(fd, family, ip, port);
	return fd;
}

static inline void sock_connect(int fd, int family, const char *ip, uint16_t port)
{
	struct sockaddr_storage ss;
	socklen_t len = sockaddr_of(family, ip, port, &ss);

	if (connect(fd, (struct sockaddr *)&ss, len) && errno != EINPROGRESS)
		die("connect %s:%u: %s", ip, port, strerror(errno));
}

static inline int listener(int family, const char *ip, uint16_t port)
{
	int fd = sock_bound(family, SOCK_STREAM, ip, port);

	assert_int_equal(listen(fd, 64), 0);
	return fd;
}

static inline uint8_t tcp_state(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
	return info.tcpi_state;
}

/* A connection from port cport of the first address to port sport of the second. */
struct pair {
	int c, s;
};

static inline struct pair pair_new(int family, const char *from, uint16_t cport, const char *to,
				   uint16_t sport)
{
	int l = listener(family, to, sport);
	struct pair p = { .c = sock_bound(family, SOCK_STREAM, from, cport), .s = -1 };

	sock_connect(p.c, family, to, sport);
	wait_for((p.s = accept4(l, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0);
	wait_for(tcp_state(p.c) == TCP_ESTABLISHED);
	close(l);
	return p;
}

#endif
