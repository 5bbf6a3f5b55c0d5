/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Zones: pools that name their clients' interfaces have addresses of their own, which other pools' clients may have as well. A packet belongs to the zone of the interface that
 * it came in by. On the way back the routing table cannot know which client is meant, so what belongs to a zone is handed over to the one of its interfaces that a
 * route leads to the client by.
 */
#ifndef ZONE_BPF_H
#define ZONE_BPF_H

#include "mss.bpf.h"

#define ZONE_WAYS_MAX 64 /* interfaces of a pool; see CONFIG_INTERFACES_MAX */

static __always_inline __u16 zone_of(struct __sk_buff *skb)
{
	struct sluice_conf *c = conf_row();
	__u32 ifindex = skb->ingress_ifindex;
	__u16 *zone;

	if (!c || !c->zones)
		return SLUICE_ZONE_CLIENTS;
	zone = bpf_map_lookup_elem(&zones, &ifindex);
	return zone ? *zone : SLUICE_ZONE_CLIENTS;
}

static __always_inline bool zone_is_own(__u16 zone)
{
	return zone != SLUICE_ZONE_CLIENTS && zone != SLUICE_ZONE_LOCAL;
}

/* What comes from an interface without link-layer header gets one: a redirection takes nothing else. 0, or -1. */
static __always_inline int link_header(struct __sk_buff *skb)
{
	struct ethhdr eth = { .h_proto = skb->protocol };

	if (l3_off(skb))
		return 0;
	if (bpf_skb_change_head(skb, ETH_HLEN, 0))
		return -1;
	return bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) ? -1 : 0;
}

/* A router's duty, where the kernel does not see the packet as one that is forwarded. False: its time is over. */
static __always_inline bool hop(struct __sk_buff *skb, const struct pkt *p)
{
	__be16 was, now;
	__u32 off;
	__u8 ttl;

	if (p->v6) {
		off = p->l3_off + offsetof(struct ipv6hdr, hop_limit);
		if (bpf_skb_load_bytes(skb, off, &ttl, sizeof(ttl)) || ttl <= 1)
			return false;
		ttl--;
		return !bpf_skb_store_bytes(skb, off, &ttl, sizeof(ttl), BPF_F_RECOMPUTE_CSUM);
	}
	off = p->l3_off + offsetof(struct iphdr, ttl); /* with the protocol behind it */
	if (bpf_skb_load_bytes(skb, off, &was, sizeof(was)) || bpf_ntohs(was) >> 8 <= 1)
		return false;
	now = bpf_htons(bpf_ntohs(was) - 0x100);
	return !bpf_l3_csum_replace(skb, p->l3_off + offsetof(struct iphdr, check), was, now,
				    sizeof(now)) &&
	       !bpf_skb_store_bytes(skb, off, &now, sizeof(now), 0);
}

struct way_ctx {
	struct __sk_buff *skb;
	struct bpf_redir_neigh to;
	union sluice_addr inner;
	__u32 zone;
	__u32 ifindex; /* 0: not found yet */
};

static long way_try(__u32 i, struct way_ctx *w)
{
	struct bpf_fib_lookup fib = {};
	__u32 key = w->zone << 8 | i, *ifindex;
	long r;

	ifindex = bpf_map_lookup_elem(&zone_ways, &key);
	if (!ifindex)
		return 1;
	fib.ifindex = *ifindex;
	if (addr_is_v4(&w->inner)) {
		fib.family = MSS_AF_INET;
		fib.ipv4_dst = w->inner.w[3];
	} else {
		fib.family = MSS_AF_INET6;
		__builtin_memcpy(fib.ipv6_dst, &w->inner, sizeof(fib.ipv6_dst));
	}
	r = bpf_fib_lookup(w->skb, &fib, sizeof(fib), BPF_FIB_LOOKUP_OUTPUT);
	if (r != BPF_FIB_LKUP_RET_SUCCESS && r != BPF_FIB_LKUP_RET_NO_NEIGH)
		return 0;
	/* The next router, or the client itself. */
	w->to.nh_family = fib.family;
	__builtin_memcpy(w->to.ipv6_nh, fib.ipv6_dst, sizeof(w->to.ipv6_nh));
	w->ifindex = *ifindex;
	return 1;
}

/*
 * A packet that has been translated goes to a client of that zone. Returns a verdict, or a reason to drop it.
 */
GLOBAL int zone_back(struct __sk_buff *skb, const struct pkt *p, const union sluice_addr *inner,
		     __u32 zone)
{
	struct way_ctx w = { .skb = skb, .zone = zone };
	__u32 mtu = 0;

	if (!p || !inner)
		return SLUICE_DROP_rewrite;
	w.inner = *inner;
	bpf_loop(ZONE_WAYS_MAX, way_try, &w, 0);
	if (!w.ifindex || bpf_check_mtu(skb, w.ifindex, &mtu, 0, 0) || !hop(skb, p) ||
	    link_header(skb))
		return SLUICE_DROP_rewrite;
	return bpf_redirect_neigh(w.ifindex, &w.to, sizeof(w.to), 0);
}

#endif
