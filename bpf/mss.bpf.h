/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The largest segment that the two ends of a translated connection may send each other, lowered in their SYNs to what the way through this machine carries:
 * where ICMP errors are lost, nothing else tells them. A value that is small enough stays, none is put in, and the checksum keeps the error that it came with.
 */
#ifndef MSS_BPF_H
#define MSS_BPF_H

#include "flow.bpf.h"

#define MSS_KIND_END 0
#define MSS_KIND_NOP 1
#define MSS_KIND_MSS 2
#define MSS_LEN      4
#define MSS_OPTS_MAX 40
#define MSS_AF_INET  2
#define MSS_AF_INET6 10
#define MSS_ASK_LEN  0xffff /* longer than any MTU, so that the look-up says what that is */
#define MSS_LEAST    88     /* the kernel's own sockets take no less for real (TCP_MIN_MSS) */
#define MSS_HDRS_V4  (sizeof(struct iphdr) + sizeof(struct tcphdr))
#define MSS_HDRS_V6  (sizeof(struct ipv6hdr) + sizeof(struct tcphdr))

/*
 * MTU of the way to an address, which is the route's or what the kernel has learnt of the path. ifindex: the interface that it leaves by; 0: by the routes for
 * what comes in here. 0: there is no such way.
 */
static __noinline __u32 mss_path_mtu(struct __sk_buff *skb, const union sluice_addr *to,
				     __u32 ifindex)
{
	struct bpf_fib_lookup fib = { .l4_protocol = IPPROTO_TCP, .tot_len = MSS_ASK_LEN };
	__u32 flags = ifindex ? BPF_FIB_LOOKUP_OUTPUT : 0;

	fib.ifindex = ifindex ?: skb->ifindex;
	if (addr_is_v4(to)) {
		fib.family = MSS_AF_INET;
		fib.ipv4_dst = to->w[3];
	} else {
		fib.family = MSS_AF_INET6;
		__builtin_memcpy(fib.ipv6_dst, to, sizeof(fib.ipv6_dst));
	}
	if (bpf_fib_lookup(skb, &fib, sizeof(fib), flags) != BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return 0;
	return fib.mtu_result;
}

struct mss_walk {
	struct __sk_buff *skb;
	__u32 sum_off;  /* of the checksum */
	__u32 opts_off; /* of the first option */
	__u32 len;      /* of all options */
	__u32 at;
	__u32 max;
	__u8 opts[MSS_OPTS_MAX];
};

/* One option. 1: enough. */
static long mss_step(__u32 i, struct mss_walk *w)
{
	__u32 at = w->at, len, was, now;
	__be16 old, new;

	if (at >= MSS_OPTS_MAX || at >= w->len || w->opts[at] == MSS_KIND_END)
		return 1;
	if (w->opts[at] == MSS_KIND_NOP) {
		w->at = at + 1;
		return 0;
	}
	if (at + 1 >= MSS_OPTS_MAX || at + 1 >= w->len)
		return 1;
	len = w->opts[at + 1];
	if (len < 2 || at + len > w->len)
		return 1;
	w->at = at + len;
	if (w->opts[at] != MSS_KIND_MSS || len != MSS_LEN || at + 3 >= MSS_OPTS_MAX)
		return 0;
	was = w->opts[at + 2] << 8 | w->opts[at + 3];
	now = w->max;
	if (was <= now)
		return 0;
	old = bpf_htons(was);
	new = bpf_htons(now);
	if (bpf_skb_store_bytes(w->skb, w->opts_off + at + 2, &new, sizeof(new), 0))
		return 1;
	/* At an odd place its bytes belong to two words of the sum, each in the other half. */
	if (at & 1) {
		old = __builtin_bswap16(old);
		new = __builtin_bswap16(new);
	}
	bpf_l4_csum_replace(w->skb, w->sum_off, old, new, sizeof(new));
	return 0;
}

/*
 * Lower the segment size in a SYN or SYN+ACK that has been translated. mss: as in the pool; SLUICE_MSS_AUTO: what both ways carry. inner: the client's address.
 */
GLOBAL int mss_clamp(struct __sk_buff *skb, const struct pkt *p, const union sluice_addr *inner,
		     __u32 mss, bool incoming)
{
	struct mss_walk w = { .skb = skb, .max = mss };
	__u32 mtu, hdrs, way, len;
	__u8 doff;

	if (!p || !inner)
		return 0;
	if (mss == SLUICE_MSS_AUTO) {
		hdrs = p->v6 ? MSS_HDRS_V6 : MSS_HDRS_V4;
		mtu = mss_path_mtu(skb, incoming ? &p->src : &p->dst, skb->ifindex);
		if (!mtu && bpf_check_mtu(skb, 0, &mtu, 0, 0) < 0)
			return 0;
		/* A client's packet has just come by the interface that leads back to it. */
		way = mss_path_mtu(skb, inner, incoming ? 0 : skb->ingress_ifindex);
		if (way && way < mtu)
			mtu = way;
		if (mtu < hdrs + MSS_LEAST)
			return 0;
		w.max = mtu - hdrs;
	}
	if (bpf_skb_load_bytes(skb, p->l4_off + 12, &doff, sizeof(doff)))
		return 0;
	len = (doff >> 4) * 4 - sizeof(struct tcphdr);
	if (len < MSS_LEN || len > MSS_OPTS_MAX)
		return 0;
	w.sum_off = p->l4_off + offsetof(struct tcphdr, check);
	w.opts_off = p->l4_off + sizeof(struct tcphdr);
	w.len = len;
	if (bpf_skb_load_bytes(skb, w.opts_off, w.opts, len))
		return 0;
	bpf_loop(MSS_OPTS_MAX, mss_step, &w, 0);
	return 0;
}

/* The hook: for every translated packet of a pool's clients, after the translation. */
static __always_inline void mss_of_pool(struct __sk_buff *skb, const struct pkt *p,
					const union sluice_addr *inner, __u32 pool_row,
					bool incoming)
{
	struct sluice_pool *pool;

	if (p->kind != PKT_DATA || p->l4 != SLUICE_TCP || !(p->tcp & SLUICE_TCP_SYN))
		return;
	pool = pool_of(pool_row);
	if (pool && pool->mss)
		mss_clamp(skb, p, inner, pool->mss, incoming);
}

#endif
