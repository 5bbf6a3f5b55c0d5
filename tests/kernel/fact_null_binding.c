/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The collision that this project is about, with real packets. A `type nat` chain is all it takes: a packet of a
 * local socket matches no rule of it and still gets a null binding, address kept, port free. When a forwarded flow
 * holds the socket's tuple, conntrack rewrites the source port of the socket's packets. The other order is harmless:
 * the forwarded flow takes another port of its range.
 *
 *   [client 10.1.0.2] eth ---- lan [edge 192.0.2.1] wan ---- net [origin 192.0.2.2]
 *                                   shared 203.0.113.7:40960-43007
 */
#include "fact.h"

#define SHARED "203.0.113.7"
#define ORIGIN "192.0.2.2"

static int edge, client, origin, listener;

static void build(void)
{
	edge = fact_init();
	client = fact_netns_new();
	origin = fact_netns_new();
	fact_veth(edge, "lan", client, "eth");
	fact_sh("ip addr add 10.1.0.1/24 dev lan");
	fact_veth(edge, "wan", origin, "net");
	fact_sh("ip addr add 192.0.2.1/24 dev wan && ip route add local " SHARED " dev lo");
	fact_write("/proc/sys/net/ipv4/ip_forward", "1");
	fact_sh("nft 'table ip nat { chain post { type nat hook postrouting priority srcnat; "
		"ip saddr 10.1.0.0/24 ip protocol tcp snat to " SHARED ":40960-43007; }; }'");
	fact_netns_enter(client);
	fact_sh("ip addr add 10.1.0.2/24 dev eth && ip route add default via 10.1.0.1");
	fact_netns_enter(origin);
	fact_sh("ip addr add " ORIGIN "/24 dev net && ip route add " SHARED " via 192.0.2.1");
	listener = fact_listen(ORIGIN, 80);
}

/*
 * Connect from ip:port in a namespace to the origin. Returns the source port that the origin saw on the wire, and
 * the two ends.
 */
static int dial(int netns, const char *ip, uint16_t port, int *ret_fd, int *ret_server)
{
	fact_netns_enter(netns);
	*ret_fd = fact_socket(SOCK_STREAM, ip, port);
	MUST(fact_connect(*ret_fd, ORIGIN, 80));
	*ret_server = MUST(fact_accept(listener));
	return fact_port(*ret_server, true);
}

static bool talks(int fd, int server)
{
	char byte = 0;

	return send(fd, "q", 1, 0) == 1 && fact_wait(server, POLLIN) &&
	       recv(server, &byte, 1, 0) == 1 && byte == 'q' && send(server, "a", 1, 0) == 1 &&
	       fact_wait(fd, POLLIN) && recv(fd, &byte, 1, 0) == 1 && byte == 'a';
}

int main(void)
{
	int flow, flow_server, sock, sock_server, wire;

	if (geteuid() == 0 && system("nft --version >/dev/null 2>&1")) {
		fact_skip("null_binding", "there is no nft command");
		return fact_end();
	}
	build();

	/* The forwarded flow first, then the socket: the one order that bites. */
	wire = dial(client, "10.1.0.2", 41000, &flow, &flow_server);
	fact_check(wire == 41000, "flow_keeps_its_port", "on the wire it has %d", wire);
	wire = dial(edge, SHARED, 41000, &sock, &sock_server);
	fact_check(wire != 41000 && wire >= 1024, "socket_rewritten",
		   "bound 41000, on the wire it has %d", wire);
	fact_check(fact_port(sock, false) == 41000, "socket_not_told",
		   "getsockname says %d, bound 41000", fact_port(sock, false));
	printf("# the socket is bound to 41000 and the origin sees %d\n", wire);
	fact_check(talks(flow, flow_server), "flow_unhurt", "the forwarded flow is stuck");

	/* The socket first: conntrack knows its tuple, and the flow gets another port of the range. */
	wire = dial(edge, SHARED, 42000, &sock, &sock_server);
	fact_check(wire == 42000, "socket_first_keeps_its_port", "on the wire it has %d", wire);
	wire = dial(client, "10.1.0.2", 42000, &flow, &flow_server);
	fact_check(wire != 42000 && wire >= 40960 && wire <= 43007, "flow_takes_another",
		   "on the wire it has %d", wire);
	fact_check(talks(sock, sock_server) && talks(flow, flow_server), "both_talk",
		   "one of the two is stuck");
	return fact_end();
}
