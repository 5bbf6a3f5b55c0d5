/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What the kernel's socket tables know of a tuple, and of the socket that sent a packet. */
#ifndef SOCK_BPF_H
#define SOCK_BPF_H

#include "count.bpf.h"
#include "pkt.bpf.h"

#define AF_INET6 10
#define SOCK_RAW 3

/* The tuple of a rev key, as the lookups want it. Returns its size. */
static __always_inline __u32 sock_tuple(struct bpf_sock_tuple *t, const struct sluice_flow_key *rk)
{
	if (addr_is_v4(&rk->dst)) {
		t->ipv4.saddr = rk->src.w[3];
		t->ipv4.sport = rk->sport;
		t->ipv4.daddr = rk->dst.w[3];
		t->ipv4.dport = rk->dport;
		return sizeof(t->ipv4);
	}
	__builtin_memcpy(t->ipv6.saddr, &rk->src, sizeof(t->ipv6.saddr));
	__builtin_memcpy(t->ipv6.daddr, &rk->dst, sizeof(t->ipv6.daddr));
	t->ipv6.sport = rk->sport;
	t->ipv6.dport = rk->dport;
	return sizeof(t->ipv6);
}

/*
 * Does it stand at the local end of the key itself? What listens on a wildcard address does not, nor what an sk_lookup program has named.
 * An IPv6 socket at the mapped address has the IPv4 one as well. Volatile, since a field of a socket has to be read by an instruction of its own.
 */
static __always_inline bool sock_stands_at(const volatile struct bpf_sock *sk,
					   const struct sluice_flow_key *rk)
{
	__u32 port = sk->src_port, v4 = sk->src_ip4;
	__u32 a = sk->src_ip6[0], b = sk->src_ip6[1], c = sk->src_ip6[2], d = sk->src_ip6[3];

	if (port != bpf_ntohs(rk->dport))
		return false;
	if (addr_is_v4(&rk->dst))
		return v4 == rk->dst.w[3];
	return a == rk->dst.w[0] && b == rk->dst.w[1] && c == rk->dst.w[2] && d == rk->dst.w[3];
}

/* What sock_look() says. */
#define SOCK_THERE 1 /* a socket stands at the tuple */
#define SOCK_OPEN  2 /* and at those of all other remote ends: unconnected UDP */
#define SOCK_BOUND 4 /* but only for this device: who asks at another uplink is not shown it */

/*
 * Is there a socket of this machine at the tuple of a rev key? Only one that is bound to the shared address itself counts:
 * what listens on a wildcard address is not reachable through a shared one (invariant 7), so it takes nothing either.
 * TCP: connecting, connected, TIME_WAIT and listening sockets are seen, one that is only bound is not.
 */
GLOBAL int sock_look(struct __sk_buff *skb, const struct sluice_flow_key *rk)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	int found;
	__u32 len;

	if (!rk)
		return 0;
	len = sock_tuple(&t, rk);
	/*
	 * The two lookups give different kinds of pointer, and one load instruction may serve only one kind: the move keeps the compiler
	 * from sharing the tail.
	 */
	switch (rk->proto) {
	case IPPROTO_TCP:
		sk = bpf_skc_lookup_tcp(skb, &t, len, BPF_F_CURRENT_NETNS, 0);
		if (!sk)
			return 0;
		found = sock_stands_at(sk, rk);
		if (found && sk->bound_dev_if)
			found |= SOCK_BOUND;
		asm volatile("%0 = %0" : "+r"(found));
		bpf_sk_release(sk);
		return found;
	case IPPROTO_UDP:
		sk = bpf_sk_lookup_udp(skb, &t, len, BPF_F_CURRENT_NETNS, 0);
		if (!sk)
			return 0;
		found = sock_stands_at(sk, rk);
		if (found && sk->bound_dev_if)
			found |= SOCK_BOUND;
		if (found && !sk->dst_port)
			found |= SOCK_OPEN;
		bpf_sk_release(sk);
		return found;
	}
	return 0;
}

static __always_inline bool sock_at(struct __sk_buff *skb, const struct sluice_flow_key *rk)
{
	return sock_look(skb, rk);
}

/*
 * A listener answers all but a SYN with a RST, by which a stranger would know that it is there. So it gets nothing else, but for one case: while the kernel
 * sends SYN cookies, the ACK that completes a handshake finds only the listener. The kernel can tell it from any other by its number.
 */
static __always_inline bool listener_takes(struct __sk_buff *skb, const struct pkt *p,
					   struct bpf_sock *sk)
{
	struct {
		struct tcphdr tcp;
		struct ipv6hdr ip; /* room for both */
	} h;

	if (p->kind == PKT_ICMP_ERROR || tcp_opens(p))
		return true;
	if ((p->tcp & (SLUICE_TCP_SYN | SLUICE_TCP_RST | SLUICE_TCP_ACK)) != SLUICE_TCP_ACK)
		return false;
	if (bpf_skb_load_bytes(skb, p->l4_off, &h.tcp, sizeof(h.tcp)))
		return false;
	if (p->v6)
		return !bpf_skb_load_bytes(skb, p->l3_off, &h.ip, sizeof(struct ipv6hdr)) &&
		       !bpf_tcp_check_syncookie(sk, &h.ip, sizeof(struct ipv6hdr), &h.tcp,
						sizeof(h.tcp));
	return !bpf_skb_load_bytes(skb, p->l3_off, &h.ip, sizeof(struct iphdr)) &&
	       !bpf_tcp_check_syncookie(sk, &h.ip, sizeof(struct iphdr), &h.tcp, sizeof(h.tcp));
}

/* The socket that receives for a lease though it stands elsewhere: the kernel's lookup will find it, by our sk_lookup program. */
GLOBAL bool sock_steered(struct __sk_buff *skb, const struct pkt *p, __u32 slot)
{
	struct bpf_sock *sk;
	bool takes;

	if (!p)
		return false;
	sk = bpf_map_lookup_elem(&steered, &slot);
	if (!sk)
		return false;
	/* An IPv4 socket gets no IPv6. */
	takes = sk->protocol == p->proto && (!p->v6 || sk->family == AF_INET6);
	if (takes && p->proto == IPPROTO_TCP)
		takes = sk->state == BPF_TCP_LISTEN && listener_takes(skb, p, sk);
	bpf_sk_release(sk);
	return takes;
}

/* May what arrived go up to a socket that stands at the shared address itself? key: as of rev. */
GLOBAL bool sock_takes(struct __sk_buff *skb, const struct pkt *p,
		       const struct sluice_flow_key *key)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	bool takes;
	__u32 len;

	if (!p || !key)
		return false;
	if (key->proto != IPPROTO_TCP)
		return sock_at(skb, key);
	len = sock_tuple(&t, key);
	sk = bpf_skc_lookup_tcp(skb, &t, len, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	takes = sock_stands_at(sk, key);
	if (takes && sk->state == BPF_TCP_LISTEN)
		takes = listener_takes(skb, p, sk);
	bpf_sk_release(sk);
	return takes;
}

/*
 * Did the kernel itself make this packet, for a connection that no process has any more (an answer out of TIME_WAIT), or for none (a RST, a SYN cookie, a
 * tunnel)? Then there is nobody whose right to the port could be asked for. What a process sends always has its socket. RSTs, and before Linux 6.13 all answers
 * out of TIME_WAIT, are sent through a socket of the kernel's own: a raw one of TCP, root's; a process has one like that only if it may forge anything.
 */
static __always_inline bool sent_by_nobody(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk || sk->state == BPF_TCP_TIME_WAIT)
		return true;
	sk = bpf_sk_fullsock(sk);
	return sk && sk->type == SOCK_RAW && sk->protocol == IPPROTO_TCP &&
	       !bpf_get_socket_uid(skb);
}

/* The row of "sluice exec" that the packet's socket belongs to, or NULL. */
static __always_inline struct sluice_exec *exec_of(struct __sk_buff *skb,
						   const struct sluice_conf *c)
{
	__u64 id = bpf_skb_ancestor_cgroup_id(skb, c->exec_level);

	return id ? bpf_map_lookup_elem(&execs, &id) : NULL;
}

#endif
