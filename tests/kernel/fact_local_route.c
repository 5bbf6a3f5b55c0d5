/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `ip route add local ADDRESS dev lo` makes a shared address usable: sockets bind to it and connect from it over
 * the uplink, without IP_FREEBIND or IP_TRANSPARENT, and answers reach them.
 *
 *   [edge: 192.0.2.1, shared 203.0.113.7 on lo] wan ---- net [origin: 192.0.2.2]
 */
#include "fact.h"

#define SHARED "203.0.113.7"

int main(void)
{
	int edge = fact_init(), origin = fact_netns_new();
	int listener, server, fd, rc;
	struct sockaddr_in peer;
	socklen_t len = sizeof(peer);
	char byte = 0;

	fact_veth(edge, "wan", origin, "net");
	fact_sh("ip addr add 192.0.2.1/24 dev wan");
	fact_netns_enter(origin);
	fact_sh("ip addr add 192.0.2.2/24 dev net && ip route add %s via 192.0.2.1", SHARED);
	listener = fact_listen("192.0.2.2", 80);

	fact_netns_enter(edge);
	fd = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	rc = fact_bind(fd, SHARED, 41000);
	fact_check(rc < 0 && errno == EADDRNOTAVAIL, "without_route_no_bind", "returned %d (%s)",
		   rc, strerror(errno));
	fact_sh("ip route add local %s dev lo", SHARED);
	rc = fact_bind(fd, SHARED, 41000);
	fact_check(rc == 0, "bind", "%s", strerror(errno));
	rc = fact_connect(fd, "192.0.2.2", 80);
	if (!fact_check(rc == 0, "connect", "%s", strerror(errno)))
		return fact_end();

	server = MUST(fact_accept(listener));
	MUST(getpeername(server, (struct sockaddr *)&peer, &len));
	fact_check(peer.sin_addr.s_addr == fact_addr(SHARED, 0).sin_addr.s_addr &&
			   ntohs(peer.sin_port) == 41000,
		   "source", "the server sees port %d and another address", ntohs(peer.sin_port));
	MUST((int)send(server, "y", 1, 0));
	fact_check(fact_wait(fd, POLLIN) && recv(fd, &byte, 1, 0) == 1 && byte == 'y', "answer",
		   "none arrived");
	return fact_end();
}
