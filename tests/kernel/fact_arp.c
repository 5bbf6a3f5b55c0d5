/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * With the `local` route a machine answers ARP for the shared address, on every interface: two machines on one
 * link would both claim it. arp_ignore=1 ends that, and keeps the answers for the interface's own address.
 *
 *   [edge: 192.0.2.1, shared 203.0.113.7 on lo] wan ---- net [asker: 192.0.2.2]
 */
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <netinet/if_ether.h>

#include "fact.h"

#define SHARED "203.0.113.7"
#define OWN    "192.0.2.1"

static void ask(int fd, const char *target)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET,
				  .sll_protocol = htons(ETH_P_ARP),
				  .sll_ifindex = (int)if_nametoindex("net"),
				  .sll_halen = ETH_ALEN,
				  .sll_addr = { 255, 255, 255, 255, 255, 255 } };
	struct sockaddr_ll own = { 0 };
	socklen_t len = sizeof(own);
	struct sockaddr_in addr = fact_addr("192.0.2.2", 0);
	struct ether_arp arp = { 0 };

	MUST(getsockname(fd, (struct sockaddr *)&own, &len));
	arp.arp_hrd = htons(ARPHRD_ETHER);
	arp.arp_pro = htons(ETH_P_IP);
	arp.arp_hln = ETH_ALEN;
	arp.arp_pln = 4;
	arp.arp_op = htons(ARPOP_REQUEST);
	memcpy(arp.arp_sha, own.sll_addr, ETH_ALEN);
	memcpy(arp.arp_spa, &addr.sin_addr, 4);
	addr = fact_addr(target, 0);
	memcpy(arp.arp_tpa, &addr.sin_addr, 4);
	MUST((int)sendto(fd, &arp, sizeof(arp), 0, (struct sockaddr *)&to, sizeof(to)));
}

/* Ask for the shared address, then for the machine's own, whose answer ends the wait: they come in order. */
static bool shared_answered(int fd)
{
	struct in_addr shared = fact_addr(SHARED, 0).sin_addr, own = fact_addr(OWN, 0).sin_addr;
	bool seen = false;

	ask(fd, SHARED);
	ask(fd, OWN);
	for (;;) {
		struct ether_arp arp;

		if (!fact_wait(fd, POLLIN)) {
			fact_check(false, "own_address", "no answer for " OWN);
			exit(1);
		}
		if (recv(fd, &arp, sizeof(arp), 0) != sizeof(arp) ||
		    arp.arp_op != htons(ARPOP_REPLY))
			continue;
		if (!memcmp(arp.arp_spa, &shared, 4))
			seen = true;
		if (!memcmp(arp.arp_spa, &own, 4))
			return seen;
	}
}

int main(void)
{
	int edge = fact_init(), asker = fact_netns_new(), fd;
	struct sockaddr_ll ll = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ARP) };

	fact_veth(edge, "wan", asker, "net");
	fact_sh("ip addr add " OWN "/24 dev wan && ip route add local " SHARED " dev lo");
	fact_netns_enter(asker);
	fact_sh("ip addr add 192.0.2.2/24 dev net");
	fd = MUST(socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_ARP)));
	ll.sll_ifindex = (int)if_nametoindex("net");
	MUST(bind(fd, (struct sockaddr *)&ll, sizeof(ll)));

	fact_check(shared_answered(fd), "arp_answered", "no answer for " SHARED);
	fact_netns_enter(edge);
	fact_write("/proc/sys/net/ipv4/conf/wan/arp_ignore", "1");
	fact_netns_enter(asker);
	fact_check(!shared_answered(fd), "arp_ignore_silences",
		   SHARED " was answered with arp_ignore=1");
	return fact_end();
}
