/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Identifications of datagrams that leave from a shared address. Several machines share it, and each of them, and each client behind it, counts by itself;
 * the remote end would put pieces together that do not belong together. So they are divided among the slices exactly as the ports are (RFC 6864, RFC 7857 10).
 */
#ifndef IDENT_BPF_H
#define IDENT_BPF_H

#include "alloc.bpf.h"

/* A datagram's pieces may be under way for so long (RFC 6864 3.1); identifications should not come again within it. */
#define IDENT_LIFE_S 120

/*
 * The next one of n, a power of two, for the packet's destination and protocol: 0 to n - 1. A packet that will be cut into segments, which count on from
 * it, gets as many in a row.
 */
static __always_inline __u32 ident_next(const struct pkt *p, __u32 n, __u32 segs,
					struct sluice_pool_stats *st)
{
	/* Not the hash that a port's search begins with. */
	__u64 h = keyed_hash(p->dst.d[0], p->dst.d[1], 0x6964656e74000000ULL | p->proto);
	__u32 row = h % SLUICE_IDS, at, last_s;
	struct sluice_ident *id = bpf_map_lookup_elem(&idents, &row);

	if (!id)
		return 0;
	h >>= 32;
	at = __sync_fetch_and_add(&id->next, segs) + h;
	if (segs > 1 && (at & (n - 1)) + segs > n) {
		/* They would reach into the next slice's: once more, behind the end. */
		at = __sync_fetch_and_add(&id->next, segs) + h;
		if ((at & (n - 1)) + segs > n)
			at &= ~(n - 1);
	}
	if ((at ^ (at + segs)) & ~(n - 1)) {
		last_s = id->wrapped_s;
		id->wrapped_s = p->now.s;
		if (last_s && p->now.s - last_s < IDENT_LIFE_S && st)
			st->id_wraps++;
	}
	return at & (n - 1);
}

/* An identification for the packet, as pkt.frag_id has it. */
static __always_inline __be32 ident_new(struct __sk_buff *skb, const struct pkt *p,
					const struct sluice_slice *sl)
{
	__u32 n = sl->last - sl->first + 1, segs = skb->gso_segs ?: 1;

	/* IPv6 has 32 bits, and wraps are not worth counting. */
	if (p->v6)
		return bpf_htonl(((__u32)sl->first << 16) + ident_next(p, n << 16, segs, NULL));
	return bpf_htonl((sl->first + ident_next(p, n, segs, pool_stats_of(sl->pool))) << 16);
}

/* Give the packet an identification. 0, or -1: it must be dropped. */
static __always_inline int ident_write(struct __sk_buff *skb, const struct pkt *p, __be32 id)
{
	__be16 was16 = *(__be16 *)&p->frag_id, id16 = *(__be16 *)&id;

	if (id == p->frag_id)
		return 0;
	if (p->v6)
		return bpf_skb_store_bytes(skb, p->frag_hdr + offsetof(struct frag_hdr, id), &id,
					   sizeof(id), BPF_F_RECOMPUTE_CSUM)
			       ? -1
			       : 0;
	if (bpf_l3_csum_replace(skb, p->l3_off + offsetof(struct iphdr, check), was16, id16,
				sizeof(id16)) ||
	    bpf_skb_store_bytes(skb, p->l3_off + offsetof(struct iphdr, id), &id16, sizeof(id16),
				0))
		return -1;
	return 0;
}

/* IPv4, no fragment: forbid that it becomes one, and its identification means nothing any more. */
static __always_inline int ident_set_df(struct __sk_buff *skb, const struct pkt *p)
{
	__be16 field = bpf_htons(IP_DONT);

	/* Nothing else is set but the reserved bit, which stays as it is. */
	if (bpf_skb_load_bytes(skb, p->l3_off + offsetof(struct iphdr, frag_off), &field,
			       sizeof(field)))
		return -1;
	if (bpf_l3_csum_replace(skb, p->l3_off + offsetof(struct iphdr, check), field,
				field | bpf_htons(IP_DONT), sizeof(field)))
		return -1;
	field |= bpf_htons(IP_DONT);
	return bpf_skb_store_bytes(skb, p->l3_off + offsetof(struct iphdr, frag_off), &field,
				   sizeof(field), 0)
		       ? -1
		       : 0;
}

#endif
