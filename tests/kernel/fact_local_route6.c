/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For IPv6 `ip route add local ADDRESS dev lo` takes packets in, but does not let sockets bind: that takes IPV6_FREEBIND, for which no capability is
 * needed, or net.ipv6.ip_nonlocal_bind. Everything else works then.
 */
#include "fact.h"

#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif

#define SHARED "2001:db8::7"

static struct sockaddr_in6 addr6(const char *ip, uint16_t port)
{
	struct sockaddr_in6 sin6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };

	inet_pton(AF_INET6, ip, &sin6.sin6_addr);
	return sin6;
}

static int bind6(int fd, const char *ip, uint16_t port)
{
	struct sockaddr_in6 sin6 = addr6(ip, port);

	return bind(fd, (struct sockaddr *)&sin6, sizeof(sin6));
}

static int socket6(int type, bool freebind)
{
	int fd = MUST(socket(AF_INET6, type | SOCK_CLOEXEC, 0)), one = 1;

	if (freebind)
		MUST(setsockopt(fd, IPPROTO_IPV6, IPV6_FREEBIND, &one, sizeof(one)));
	return fd;
}

int main(void)
{
	struct sockaddr_in6 to = addr6(SHARED, 41000), peer;
	socklen_t len = sizeof(peer);
	int fd, listener, server, rc;

	fact_init();
	fact_sh("ip route add local " SHARED " dev lo");
	rc = bind6(socket6(SOCK_STREAM, false), SHARED, 41000);
	fact_check(rc < 0 && errno == EADDRNOTAVAIL, "no_bind_by_route_alone", "returned %d (%s)",
		   rc, strerror(errno));

	MUST(setresuid(65534, 65534, 0));
	listener = socket6(SOCK_STREAM, true);
	rc = bind6(listener, SHARED, 41000);
	fact_check(rc == 0, "freebind_without_capability", "%s", strerror(errno));
	MUST(setresuid(0, 0, 0));
	MUST(listen(listener, 8));
	fd = socket6(SOCK_STREAM, true);
	rc = bind6(fd, SHARED, 41001);
	if (!rc)
		rc = connect(fd, (struct sockaddr *)&to, sizeof(to));
	fact_check(rc == 0, "connect", "%s", strerror(errno));
	server = rc ? -1 : fact_accept(listener);
	fact_check(server >= 0 && !getpeername(server, (struct sockaddr *)&peer, &len) &&
			   !memcmp(&peer.sin6_addr, &to.sin6_addr, sizeof(peer.sin6_addr)) &&
			   peer.sin6_port == htons(41001),
		   "from_shared_address", "the server saw another peer, or none");

	fact_write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1");
	rc = bind6(socket6(SOCK_DGRAM, false), SHARED, 41002);
	fact_check(rc == 0, "nonlocal_bind", "%s", strerror(errno));
	return fact_end();
}
