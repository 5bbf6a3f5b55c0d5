/* SPDX-License-Identifier: BSD-2-Clause */
/* An ICMP error sent from a raw socket reaches the application whose packet it quotes. */
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/udp.h>

#include "fact.h"

static uint16_t checksum(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint32_t sum = 0;

	for (size_t i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)(p[i] << 8 | p[i + 1]);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

int main(void)
{
	struct __attribute__((packed)) {
		struct icmphdr icmp;
		struct iphdr ip;
		struct udphdr udp;
	} error = { 0 };
	struct sockaddr_in to = fact_addr("127.0.0.1", 0);
	int raw, got = 0;
	struct fact_udp udp;
	socklen_t len = sizeof(got);

	fact_init();
	udp = fact_udp_open();
	fact_udp_send(&udp, 1);
	raw = MUST(socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP));

	/* Destination unreachable, administratively prohibited: for the packet tx -> rx. */
	error.icmp.type = ICMP_DEST_UNREACH;
	error.icmp.code = ICMP_PKT_FILTERED;
	error.ip.version = 4;
	error.ip.ihl = 5;
	error.ip.tot_len = htons(sizeof(error.ip) + sizeof(error.udp) + 1);
	error.ip.ttl = 64;
	error.ip.protocol = IPPROTO_UDP;
	error.ip.saddr = error.ip.daddr = to.sin_addr.s_addr;
	error.ip.check = checksum(&error.ip, sizeof(error.ip));
	error.udp.source = htons(fact_port(udp.tx, false));
	error.udp.dest = htons(fact_port(udp.rx, false));
	error.udp.len = htons(sizeof(error.udp) + 1);
	error.icmp.checksum = checksum(&error, sizeof(error));
	MUST((int)sendto(raw, &error, sizeof(error), 0, (struct sockaddr *)&to, sizeof(to)));

	fact_check(fact_wait(udp.tx, POLLERR), "icmp_error_arrives", "the socket noticed nothing");
	MUST(getsockopt(udp.tx, SOL_SOCKET, SO_ERROR, &got, &len));
	fact_check(got == EHOSTUNREACH, "icmp_error_code", "the socket got %d (%s)", got,
		   strerror(got));
	return fact_end();
}
