/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * IP_LOCAL_PORT_RANGE keeps connect() within a slice, many destinations on one port; but outside of
 * net.ipv4.ip_local_port_range it is ignored in silence, and a range partly outside is clipped.
 */
#include "fact.h"

#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif
#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

/* Connect from a port that the kernel picks in first to last. Returns it, or -errno. */
static int dial(uint16_t first, uint16_t last, uint16_t to)
{
	int fd = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), one = 1;
	uint32_t range = (uint32_t)last << 16 | first;

	MUST(setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)));
	if (setsockopt(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, &range, sizeof(range)))
		return -errno;
	MUST(fact_bind(fd, "127.0.0.1", 0));
	if (fact_connect(fd, "127.0.0.1", to))
		return -errno;
	return fact_port(fd, false);
}

int main(void)
{
	uint16_t one, two;
	int got, inside = 0;

	fact_init();
	one = fact_port(fact_listen("127.0.0.1", 0), false);
	two = fact_port(fact_listen("127.0.0.1", 0), false);
	fact_write("/proc/sys/net/ipv4/ip_local_port_range", "40000 49999");
	if (dial(41000, 41000, one) == -ENOPROTOOPT) {
		fact_skip("port_range", "this kernel has no IP_LOCAL_PORT_RANGE (6.3 on)");
		return fact_end();
	}

	for (int i = 0; i < 7; i++) {
		got = dial(41000, 41007, one);
		inside += got >= 41000 && got <= 41007;
	}
	fact_check(inside == 7, "range_kept", "%d of 7 ports lie in 41000-41007", inside);
	got = dial(41000, 41007, one);
	fact_check(got == -EADDRNOTAVAIL, "range_used_up", "returned %d, expected %d", got,
		   -EADDRNOTAVAIL);
	got = dial(41000, 41007, two);
	fact_check(got >= 41000 && got <= 41007, "range_again_per_destination", "returned %d", got);

	got = dial(20000, 20007, one);
	fact_check(got >= 40000 && got <= 49999, "range_outside_ignored",
		   "returned %d, expected a port of the sysctl's range", got);
	inside = 0;
	for (int i = 0; i < 4; i++) {
		got = dial(39990, 40003, two);
		inside += got >= 40000 && got <= 40003;
	}
	fact_check(inside == 4, "range_clipped", "%d of 4 ports lie in 40000-40003", inside);
	return fact_end();
}
