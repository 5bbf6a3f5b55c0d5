/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What the kernel's socket tables know of a tuple. */
#ifndef SOCK_BPF_H
#define SOCK_BPF_H

#include "pkt.bpf.h"

/*
 * Is there a socket of this machine at the tuple of a rev key? Only one that is bound to the shared address itself counts:
 * what listens on a wildcard address is not reachable through a shared one (invariant 7), so it takes nothing either.
 * TCP: connecting, connected, TIME_WAIT and listening sockets are seen, one that is only bound is not.
 */
GLOBAL bool sock_at(struct __sk_buff *skb, const struct sluice_flow_key *rk)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	bool found;

	if (!rk)
		return false;
	t.ipv4.saddr = rk->src.w[3];
	t.ipv4.sport = rk->sport;
	t.ipv4.daddr = rk->dst.w[3];
	t.ipv4.dport = rk->dport;
	/*
	 * The two lookups give different kinds of pointer, and one load instruction may serve only one kind: the move keeps the compiler
	 * from sharing the tail. An sk_lookup program may have named a socket that stands elsewhere, so the port is compared too.
	 */
	switch (rk->proto) {
	case IPPROTO_TCP:
		sk = bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);
		if (!sk)
			return false;
		found = sk->src_ip4 == t.ipv4.daddr && sk->src_port == bpf_ntohs(t.ipv4.dport);
		asm volatile("%0 = %0" : "+r"(found));
		bpf_sk_release(sk);
		return found;
	case IPPROTO_UDP:
		sk = bpf_sk_lookup_udp(skb, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);
		if (!sk)
			return false;
		found = sk->src_ip4 == t.ipv4.daddr && sk->src_port == bpf_ntohs(t.ipv4.dport);
		bpf_sk_release(sk);
		return found;
	}
	return false;
}

#endif
