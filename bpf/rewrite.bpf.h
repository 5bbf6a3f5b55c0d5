/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Changing a packet under TC. Only the kernel's checksum helpers are right for packets whose checksum is still to be
 * filled in (CHECKSUM_PARTIAL) and for GSO; they add differences, so a wrong checksum stays exactly as wrong.
 */
#ifndef REWRITE_BPF_H
#define REWRITE_BPF_H

#include <stddef.h>

#include "count.bpf.h"

struct rewrite {
	__be32 old_addr, new_addr;
	__be16 old_port, new_port;
	__u32 addr_off; /* from the packet's start */
	__u32 port_off;
};

GLOBAL int rewrite_v4(struct __sk_buff *skb, const struct pkt *p, const struct rewrite *r)
{
	__u32 l4_sum, flags = 0;
	bool pseudo = true; /* the checksum covers the addresses */

	if (!p || !r)
		return -1;
	switch (p->proto) {
	case IPPROTO_TCP:
		l4_sum = p->l4_off + offsetof(struct tcphdr, check);
		break;
	case IPPROTO_UDP:
		l4_sum = p->l4_off + offsetof(struct udphdr, check);
		flags = BPF_F_MARK_MANGLED_0; /* zero means none: leave it, and never make one */
		break;
	default:
		l4_sum = p->l4_off + offsetof(struct icmp_hdr, checksum);
		pseudo = false;
		break;
	}
	if (r->old_port != r->new_port) {
		if (bpf_l4_csum_replace(skb, l4_sum, r->old_port, r->new_port,
					flags | sizeof(__be16)) ||
		    bpf_skb_store_bytes(skb, r->port_off, &r->new_port, sizeof(__be16), 0))
			return -1;
	}
	if (r->old_addr == r->new_addr)
		return 0;
	if (pseudo && bpf_l4_csum_replace(skb, l4_sum, r->old_addr, r->new_addr,
					  flags | BPF_F_PSEUDO_HDR | sizeof(__be32)))
		return -1;
	if (bpf_l3_csum_replace(skb, p->l3_off + offsetof(struct iphdr, check), r->old_addr,
				r->new_addr, sizeof(__be32)) ||
	    bpf_skb_store_bytes(skb, r->addr_off, &r->new_addr, sizeof(__be32), 0))
		return -1;
	return 0;
}

/* Where the port stands: in the same place in TCP and UDP. Of an echo, its id. */
static __always_inline __u32 port_off(const struct pkt *p, bool source)
{
	if (p->l4 == SLUICE_ICMP)
		return p->l4_off + offsetof(struct icmp_hdr, id);
	return p->l4_off + (source ? 0 : sizeof(__be16));
}

/*
 * The same of IPv6. No header has a checksum, and every transport's covers the addresses; that of UDP may be missing (RFC 6936), and then it stays so.
 *
 * What a network card has summed up of the whole packet (CHECKSUM_COMPLETE) does not change, since the two changes cancel each other. The helper takes
 * them for IPv4's, where the header's checksum makes a third one, and subtracts; storing the address with BPF_F_RECOMPUTE_CSUM adds the same again. (The flag that says
 * IPv6 is newer than the kernels we run on.)
 */
GLOBAL int rewrite_v6(struct __sk_buff *skb, const struct pkt *p, const union sluice_addr *addr,
		      __be16 port, bool source)
{
	__u32 l4_sum, addr_off, flags = 0;
	union sluice_addr was, is;
	__be16 old_port;
	__s64 diff;

	if (!p || !addr)
		return -1;
	was = source ? p->src : p->dst;
	is = *addr;
	old_port = source ? p->sport : p->dport;
	addr_off = p->l3_off +
		   (source ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr));
	switch (p->proto) {
	case IPPROTO_TCP:
		l4_sum = p->l4_off + offsetof(struct tcphdr, check);
		break;
	case IPPROTO_UDP:
		l4_sum = p->l4_off + offsetof(struct udphdr, check);
		flags = BPF_F_MARK_MANGLED_0;
		break;
	default:
		l4_sum = p->l4_off + offsetof(struct icmp_hdr, checksum);
		break;
	}
	if (old_port != port) {
		if (bpf_l4_csum_replace(skb, l4_sum, old_port, port, flags | sizeof(__be16)) ||
		    bpf_skb_store_bytes(skb, port_off(p, source), &port, sizeof(port), 0))
			return -1;
	}
	if (addr_eq(&was, &is))
		return 0;
	diff = bpf_csum_diff(was.w, sizeof(was), is.w, sizeof(is), 0);
	if (diff < 0 || bpf_l4_csum_replace(skb, l4_sum, 0, diff, flags | BPF_F_PSEUDO_HDR) ||
	    bpf_skb_store_bytes(skb, addr_off, &is, sizeof(is), BPF_F_RECOMPUTE_CSUM))
		return -1;
	return 0;
}

/* Give the packet another source. 0, or -1: it may be half changed and must be dropped. */
static __always_inline int rewrite_src(struct __sk_buff *skb, const struct pkt *p,
				       const union sluice_addr *addr, __be16 port)
{
	struct rewrite r = {
		.old_addr = p->src.w[3],
		.new_addr = addr->w[3],
		.old_port = p->sport,
		.new_port = port,
		.addr_off = p->l3_off + offsetof(struct iphdr, saddr),
		.port_off = port_off(p, true),
	};

	return p->v6 ? rewrite_v6(skb, p, addr, port, true) : rewrite_v4(skb, p, &r);
}

static __always_inline int rewrite_dst(struct __sk_buff *skb, const struct pkt *p,
				       const union sluice_addr *addr, __be16 port)
{
	struct rewrite r = {
		.old_addr = p->dst.w[3],
		.new_addr = addr->w[3],
		.old_port = p->dport,
		.new_port = port,
		.addr_off = p->l3_off + offsetof(struct iphdr, daddr),
		.port_off = port_off(p, false),
	};

	return p->v6 ? rewrite_v6(skb, p, addr, port, false) : rewrite_v4(skb, p, &r);
}

#endif
