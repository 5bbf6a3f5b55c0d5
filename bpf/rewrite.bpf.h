/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Changing a packet under TC. Only the kernel's checksum helpers are right for packets whose checksum is still to be
 * filled in (CHECKSUM_PARTIAL) and for GSO; they add differences, so a wrong checksum stays exactly as wrong.
 */
#ifndef REWRITE_BPF_H
#define REWRITE_BPF_H

#include <stddef.h>

#include "pkt.bpf.h"

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

static __always_inline __u32 icmp_id_off(const struct pkt *p)
{
	return p->l4_off + offsetof(struct icmp_hdr, id);
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
		/* Source ports stand in the same place in TCP and UDP. */
		.port_off = p->proto == IPPROTO_ICMP ? icmp_id_off(p) : p->l4_off,
	};

	return p->v6 ? -1 : rewrite_v4(skb, p, &r);
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
		.port_off = p->proto == IPPROTO_ICMP ? icmp_id_off(p) : p->l4_off + 2,
	};

	return p->v6 ? -1 : rewrite_v4(skb, p, &r);
}

#endif
