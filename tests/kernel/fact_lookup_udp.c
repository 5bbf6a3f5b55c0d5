/* SPDX-License-Identifier: BSD-2-Clause */
/* bpf_sk_lookup_udp() from TC sees an unconnected socket for any remote, a connected one only for its own. */
#include "fact_sk_lookup.h"

#define SHARED "203.0.113.7"
#define REMOTE "198.51.100.10"

int main(void)
{
	struct fact_lookup udp;
	int fd, got;

	fact_init();
	fact_sh("ip route add local %s dev lo", SHARED);
	fact_sh("ip link add void type veth peer name floor && ip link set void up");
	fact_sh("ip route add 198.51.100.0/24 dev void");
	udp = fact_lookup_new(BPF_FUNC_sk_lookup_udp);

	got = fact_lookup(&udp, SHARED, 41000, REMOTE, 53);
	fact_check(got == -1, "udp_nobody", "found a socket in state %d", got);
	fd = fact_socket(SOCK_DGRAM, SHARED, 41000);
	got = fact_lookup(&udp, SHARED, 41000, REMOTE, 53);
	fact_check(got != -1, "udp_unconnected_seen", "found none");

	MUST(fact_connect(fd, REMOTE, 53));
	got = fact_lookup(&udp, SHARED, 41000, REMOTE, 53);
	fact_check(got != -1, "udp_connected_seen", "found none");
	got = fact_lookup(&udp, SHARED, 41000, REMOTE, 54);
	fact_check(got == -1, "udp_other_port_unseen", "found a socket in state %d", got);
	got = fact_lookup(&udp, SHARED, 41000, "198.51.100.11", 53);
	fact_check(got == -1, "udp_other_remote_unseen", "found a socket in state %d", got);
	return fact_end();
}
