/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bpf_skc_lookup_tcp() from TC sees connecting, connected and listening sockets and TIME_WAIT; it does not see a
 * socket that is bound and no more. bpf_sk_lookup_tcp() does not see TIME_WAIT either.
 */
#include <netinet/tcp.h>

#include "fact_sk_lookup.h"

#define SHARED  "203.0.113.7"
#define NOWHERE "198.51.100.10"

int main(void)
{
	struct fact_lookup skc, sk;
	int listener, dialer, served, got;
	uint16_t port;
	char byte;

	fact_init();
	fact_sh("ip route add local %s dev lo", SHARED);
	/* Packets for NOWHERE leave and are never answered: the peer is down on the floor of our namespace. */
	fact_sh("ip link add void type veth peer name floor");
	fact_sh("ip link set void up && ip link set floor up");
	fact_sh("ip route add %s dev void && ip neigh add %s lladdr 02:00:00:00:00:01 dev void",
		NOWHERE, NOWHERE);
	skc = fact_lookup_new(BPF_FUNC_skc_lookup_tcp);
	sk = fact_lookup_new(BPF_FUNC_sk_lookup_tcp);

	dialer = fact_socket(SOCK_STREAM, SHARED, 41000);
	got = fact_lookup(&skc, SHARED, 41000, NOWHERE, 80);
	fact_check(got == -1, "bound_only_unseen", "found a socket in state %d", got);

	MUST(fcntl(dialer, F_SETFL, O_NONBLOCK));
	got = fact_connect(dialer, NOWHERE, 80);
	MUST(got < 0 && errno == EINPROGRESS ? 0 : -1);
	got = fact_lookup(&skc, SHARED, 41000, NOWHERE, 80);
	fact_check(got == TCP_SYN_SENT, "syn_sent_seen", "state %d", got);
	got = fact_lookup(&skc, SHARED, 41000, NOWHERE, 81);
	fact_check(got == -1, "other_remote_unseen", "found a socket in state %d", got);

	listener = fact_listen("127.0.0.1", 0);
	port = fact_port(listener, false);
	got = fact_lookup(&skc, "127.0.0.1", port, "127.0.0.1", 9);
	fact_check(got == TCP_LISTEN, "listener_seen", "state %d", got);

	dialer = fact_socket(SOCK_STREAM, SHARED, 41001);
	MUST(fact_connect(dialer, "127.0.0.1", port));
	served = MUST(fact_accept(listener));
	got = fact_lookup(&skc, SHARED, 41001, "127.0.0.1", port);
	fact_check(got == TCP_ESTABLISHED, "established_seen", "state %d", got);

	/* The end that closes first keeps the tuple in TIME_WAIT, once it has seen the other end's FIN. */
	close(dialer);
	MUST(fact_wait(served, POLLIN) && recv(served, &byte, 1, 0) == 0 ? 0 : -1);
	close(served);
	for (int ms = 0; ms < FACT_PATIENCE_MS; ms++) {
		got = fact_lookup(&skc, SHARED, 41001, "127.0.0.1", port);
		if (got == TCP_TIME_WAIT)
			break;
		poll(NULL, 0, 1);
	}
	fact_check(got == TCP_TIME_WAIT, "time_wait_seen", "state %d", got);
	got = fact_lookup(&sk, SHARED, 41001, "127.0.0.1", port);
	fact_check(got == -1, "time_wait_unseen_by_sk_lookup", "found a socket in state %d", got);
	return fact_end();
}
