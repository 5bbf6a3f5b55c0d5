/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The flow tables: keys, life and death. An entry is taken out by whoever turns its seen_s into SLUICE_DEAD by
 * compare-and-swap, and by nobody else. That word also guards against the tables' reuse of elements: an entry
 * that was removed and filled again under our feet has another time in it, and the swap fails.
 */
#ifndef FLOW_BPF_H
#define FLOW_BPF_H

#include "client.bpf.h"
#include "sluice_flow.h"

#define PRESSED_S 10 /* for so long after a port was missing none rests */

static __always_inline struct sluice_pool *pool_of(__u32 row)
{
	return bpf_map_lookup_elem(&pools, &row);
}

static __always_inline struct sluice_slice *slice_row(__u32 row)
{
	return bpf_map_lookup_elem(&slices, &row);
}

/* The slice that a flow lives in, or NULL if this machine has lost it since (then the flow is dead). */
static __always_inline struct sluice_slice *slice_of(const struct sluice_flow *f)
{
	struct sluice_slice *sl = slice_row(f->slice);

	if (!sl || sl->state != SLUICE_SLICE_HELD || sl->epoch != f->epoch)
		return NULL;
	return sl;
}

static __always_inline bool slice_fenced(const struct sluice_slice *sl, __u64 now_ns)
{
	return now_ns >= *(volatile __u64 *)&sl->not_after_ns;
}

/* The inner end's key. eim: the mapping's, with no remote end. */
static __always_inline void fwd_key(struct sluice_flow_key *k, const struct pkt *p, __u16 zone,
				    bool eim)
{
	__builtin_memset(k, 0, sizeof(*k));
	k->src = p->src;
	k->sport = p->sport;
	if (!eim) {
		k->dst = p->dst;
		k->dport = p->dport;
	}
	k->proto = p->proto;
	k->zone = zone;
}

/* The key of the fwd entry that belongs to a rev entry. */
static __always_inline void fwd_key_of(struct sluice_flow_key *k, const struct sluice_flow_key *rk,
				       const struct sluice_flow *r)
{
	__builtin_memset(k, 0, sizeof(*k));
	k->src = r->addr;
	k->sport = r->port;
	if (!(r->flags & SLUICE_FLOW_EIM)) {
		k->dst = rk->src;
		k->dport = rk->sport;
	}
	k->proto = rk->proto;
	k->zone = r->zone;
}

/* Blank out of a rev key what the filtering does not look at. TCP sessions are always told apart. */
static __always_inline void rev_key_mask(struct sluice_flow_key *k, __u8 filtering)
{
	if (filtering != SLUICE_FILTER_PORT)
		k->sport = 0;
	if (filtering == SLUICE_FILTER_NONE) {
		k->src.d[0] = 0;
		k->src.d[1] = 0;
	}
}

static __always_inline bool eim_session_masked(__u8 l4)
{
	return l4 != SLUICE_TCP;
}

/* fwd and rev entries that are one flow, or a mapping and its session. */
static __always_inline bool same_flow(const struct sluice_flow *f, __be16 outer_port,
				      const struct sluice_flow *r)
{
	return f->port == outer_port && f->slice == r->slice && f->epoch == r->epoch;
}

static __always_inline bool fresh(const struct sluice_flow *f, const struct sluice_slice *sl,
				  __u32 now_s)
{
	return now_s - f->seen_s <= sl->fresh_s;
}

/* Bring an entry's time up to its peer's, so that it is found alive by itself for a while. */
static __always_inline void seen_catch_up(struct sluice_flow *r, __u32 seen_s)
{
	__u32 was_s = r->seen_s;

	if (was_s != SLUICE_DEAD && seen_s != SLUICE_DEAD && was_s != seen_s)
		__sync_val_compare_and_swap(&r->seen_s, was_s, seen_s);
}

KEYED bool rev_alive(const struct sluice_flow_key *rk, struct sluice_flow *r, __u32 now_s,
		     __u32 grace_s)
{
	struct sluice_flow_key fk;
	struct sluice_slice *sl;
	struct sluice_flow *f;
	struct sluice_pool *pool;

	if (!rk || !r || r->seen_s == SLUICE_DEAD)
		return false;
	sl = slice_of(r);
	if (!sl)
		return false;
	if (!(r->flags & SLUICE_FLOW_PERMIT) && fresh(r, sl, now_s))
		return true;
	/* UDP and ICMP: seen_s may lag behind the fwd entry's, but never leads it. */
	if (!(r->flags & SLUICE_FLOW_PERMIT) && rk->proto != IPPROTO_TCP &&
	    sluice_not_over((__u64)r->seen_s + r->timeout_s, 0, now_s))
		return true;
	pool = pool_of(sl->pool);
	if (!pool)
		return false;
	f = NULL;
	/* A socket's own mark has nothing beside it. */
	if (!(r->flags & SLUICE_FLOW_OWN)) {
		fwd_key_of(&fk, rk, r);
		f = bpf_map_lookup_elem(&fwd, &fk);
	}
	if (f && !same_flow(f, rk->dport, r))
		f = NULL;
	if (r->flags & SLUICE_FLOW_PERMIT)
		return f && f->seen_s != SLUICE_DEAD &&
		       sluice_not_over(sluice_mapping_ends_s(rk->proto, f), grace_s, now_s);
	if (f && rk->proto != IPPROTO_TCP && !(r->flags & SLUICE_FLOW_EIM))
		seen_catch_up(r, f->seen_s);
	return sluice_not_over(sluice_flow_ends_s(rk->proto, r, f, &pool->timers), grace_s, now_s);
}

static __always_inline void count_ended(const struct sluice_flow *f, __u8 proto)
{
	struct sluice_slice *sl = slice_row(f->slice);
	__u32 row = f->slice, *rel = bpf_map_lookup_elem(&released, &row);
	int l4 = l4_index(proto);
	struct sluice_pool_stats *st;

	if (rel)
		__sync_fetch_and_add(rel, 1);
	st = sl ? pool_stats_of(sl->pool) : NULL;
	if (st && l4 >= 0 && !(f->flags & SLUICE_FLOW_OWN))
		st->ended[l4 & 3]++;
}

/* Where the overload flows on a port are counted. NULL: not at all (ICMP). */
static __always_inline __u32 *port_count(__u32 block_base, __u32 nports, int l4, __u32 off)
{
	struct sluice_port_flows *pf;
	__u32 row;

	if (l4 != SLUICE_TCP && l4 != SLUICE_UDP)
		return NULL;
	row = sluice_port_flows_row(block_base, nports, l4, off);
	pf = bpf_map_lookup_elem(&port_flows, &row);
	return pf ? &pf->flows[off % SLUICE_BLOCK_PORTS] : NULL;
}

/*
 * The same for an entry of rev. NULL also where the slice is lost: when one begins anew, its counts begin at zero, and flows of the one before must not be
 * taken off them. Whoever found the slice live here is waited for before that (dp_publish.c).
 */
static __always_inline __u32 *port_count_of(const struct sluice_flow_key *rk,
					    const struct sluice_flow *r)
{
	struct sluice_slice *sl = slice_of(r);

	if (!sl)
		return NULL;
	return port_count(sl->block_base, sl->last - sl->first + 1, l4_index(rk->proto),
			  bpf_ntohs(rk->dport) - sl->first);
}

static __always_inline void port_count_put(__u32 *n)
{
	/* Zero: of an epoch that was closed, and opened again after a daemon was killed in between. */
	if (n && *(volatile __u32 *)n)
		__sync_fetch_and_add(n, -1);
}

/* Is a port of the block kept from NAT? */
static __always_inline bool port_leased(const struct sluice_block *b, __u32 bit)
{
	return *(volatile __u64 *)&b->leased >> (bit & 63) & 1;
}

/* Take a rev entry out, and its flow with it. False: somebody else has. */
KEYED bool rev_reclaim(const struct sluice_flow_key *rk, struct sluice_flow *r)
{
	union { /* one after the other: the stack is short */
		struct sluice_flow_key fk;
		struct sluice_client_key client;
	} k;
	struct sluice_flow *f;
	__u32 seen_s, *n = NULL;

	if (!rk || !r)
		return false;
	seen_s = r->seen_s;
	if (seen_s == SLUICE_DEAD ||
	    __sync_val_compare_and_swap(&r->seen_s, seen_s, SLUICE_DEAD) != seen_s)
		return false;
	if (!(r->flags & SLUICE_FLOW_PERMIT)) {
		fwd_key_of(&k.fk, rk, r);
		f = bpf_map_lookup_elem(&fwd, &k.fk);
		if (f && same_flow(f, rk->dport, r)) {
			if (r->flags & SLUICE_FLOW_EIM)
				__sync_fetch_and_add(&f->sessions, -1);
			else
				bpf_map_delete_elem(&fwd, &k.fk);
		}
		if (r->flags & SLUICE_FLOW_COUNTED) {
			client_key(&k.client, &r->addr, r->zone);
			client_release(&k.client,
				       (l4_index(rk->proto) & CLIENT_L4) | CLIENT_STATE |
					       (r->flags & SLUICE_FLOW_EIM ? 0 : CLIENT_PORT));
		}
		count_ended(r, rk->proto);
		if (!sluice_flow_both(r))
			n = port_count_of(rk, r);
	}
	bpf_map_delete_elem(&rev, rk);
	port_count_put(n);
	return true;
}

static __always_inline struct sluice_block *block_of(const struct sluice_slice *sl, __u8 proto,
						     __be16 port_be, __u32 *ret_bit)
{
	__u32 off = bpf_ntohs(port_be) - sl->first, row;
	int l4 = l4_index(proto);

	if (l4 < 0)
		return NULL;
	*ret_bit = off % SLUICE_BLOCK_PORTS;
	row = sluice_block_row(sl->block_base, sl->last - sl->first + 1, l4, off);
	return bpf_map_lookup_elem(&blocks, &row);
}

/*
 * Does a mapping of UDP that has ended still keep its port from others? The client that had it goes on with it. Not where ports are needed, nor
 * in a block that drains.
 */
GLOBAL bool mapping_rests(const struct sluice_flow *f, __u8 proto, __u32 now_s)
{
	__u32 bit = 0, zero = 0;
	struct sluice_pool *pool;
	struct sluice_slice *sl;
	struct sluice_block *b;
	struct sluice_conf *c;

	if (!f || proto != IPPROTO_UDP || f->seen_s == SLUICE_DEAD ||
	    (f->flags & (SLUICE_FLOW_EIM | SLUICE_FLOW_OWN)) != SLUICE_FLOW_EIM)
		return false;
	sl = slice_of(f);
	c = bpf_map_lookup_elem(&conf, &zero);
	if (!sl || !c)
		return false;
	pool = pool_of(sl->pool);
	if (!pool || !pool->reuse_s || now_s - *(volatile __u32 *)&sl->pressed_s < PRESSED_S ||
	    now_s - *(volatile __u32 *)&c->pressed_s < PRESSED_S)
		return false;
	b = block_of(sl, proto, f->port, &bit);
	return b && b->mode == SLUICE_BLOCK_EIM &&
	       sluice_not_over(sluice_mapping_ends_s(proto, f), pool->reuse_s, now_s);
}

/* Take a mapping out and give its port back. Its sessions, if any, are as dead as it is. */
KEYED bool mapping_reclaim(const struct sluice_flow_key *fk, struct sluice_flow *f)
{
	struct sluice_client_key client;
	struct sluice_slice *sl;
	struct sluice_block *b;
	__u32 seen_s, bit;

	if (!fk || !f)
		return false;
	seen_s = f->seen_s;
	if (seen_s == SLUICE_DEAD ||
	    __sync_val_compare_and_swap(&f->seen_s, seen_s, SLUICE_DEAD) != seen_s)
		return false;
	sl = slice_of(f);
	b = sl ? block_of(sl, fk->proto, f->port, &bit) : NULL;
	if (f->flags & SLUICE_FLOW_COUNTED) {
		client_key(&client, &fk->src, fk->zone);
		client_release(&client, (l4_index(fk->proto) & CLIENT_L4) | CLIENT_PORT);
	}
	bpf_map_delete_elem(&fwd, fk);
	if (b)
		__sync_fetch_and_and(&b->bits, ~(1ULL << bit));
	return true;
}

static __always_inline void rev_key_of(struct sluice_flow_key *rk, const struct sluice_flow_key *fk,
				       const struct sluice_flow *f, const struct sluice_slice *sl)
{
	__builtin_memset(rk, 0, sizeof(*rk));
	rk->src = fk->dst;
	rk->sport = fk->dport;
	rk->dst = sl->addr;
	rk->dport = f->port;
	rk->proto = fk->proto;
}

/* The rev entry of an overload flow, or NULL. */
static __always_inline struct sluice_flow *rev_of(const struct sluice_flow_key *fk,
						  const struct sluice_flow *f,
						  const struct sluice_slice *sl)
{
	struct sluice_flow_key rk;
	struct sluice_flow *r;

	rev_key_of(&rk, fk, f, sl);
	r = bpf_map_lookup_elem(&rev, &rk);
	return r && same_flow(f, rk.dport, r) ? r : NULL;
}

KEYED bool fwd_alive(const struct sluice_flow_key *fk, const struct sluice_flow *f, __u32 now_s,
		     __u32 grace_s)
{
	struct sluice_slice *sl;
	struct sluice_pool *pool;
	struct sluice_flow *r;

	if (!fk || !f)
		return false;
	sl = slice_of(f);
	if (!sl || f->seen_s == SLUICE_DEAD)
		return false;
	if (fresh(f, sl, now_s))
		return true;
	/* Of UDP, ICMP and mappings, what the inner end sent decides alone. */
	if (fk->proto != IPPROTO_TCP || (f->flags & SLUICE_FLOW_EIM))
		return sluice_not_over(sluice_mapping_ends_s(fk->proto, f), grace_s, now_s);
	r = rev_of(fk, f, sl);
	pool = pool_of(sl->pool);
	if (!r || !pool || r->seen_s == SLUICE_DEAD)
		return false;
	return sluice_not_over(sluice_flow_ends_s(fk->proto, r, f, &pool->timers), grace_s, now_s);
}

/* Take out whatever this fwd entry stands for. False: somebody else is at it. */
KEYED bool fwd_reclaim(const struct sluice_flow_key *fk, struct sluice_flow *f)
{
	struct sluice_slice *sl;
	struct sluice_flow_key rk;
	struct sluice_flow *r;
	__u32 seen_s;

	if (!fk || !f)
		return false;
	if (f->flags & SLUICE_FLOW_EIM)
		return mapping_reclaim(fk, f);
	sl = slice_row(f->slice);
	if (sl) {
		rev_key_of(&rk, fk, f, sl);
		r = bpf_map_lookup_elem(&rev, &rk);
		if (r && same_flow(f, rk.dport, r))
			return rev_reclaim(&rk, r);
	}
	/* An orphan: its slice's row serves another address now. */
	seen_s = f->seen_s;
	if (seen_s == SLUICE_DEAD ||
	    __sync_val_compare_and_swap(&f->seen_s, seen_s, SLUICE_DEAD) != seen_s)
		return false;
	bpf_map_delete_elem(&fwd, fk);
	return true;
}

/*
 * Note what TCP flags one direction sends. peer: what the other one has sent. A packet without SYN, FIN or RST after both
 * FINs is taken for the acknowledgement that ends the connection. A RST counts only until its sender goes on talking (RFC 6146 3.5.2.2, state
 * TRANS); which ones are looked at at all see tcp.bpf.h.
 */
static __always_inline void tcp_note(__u8 *own, __u8 peer, __u8 flags)
{
	__u8 bits = (*own & ~SLUICE_TCP_RST) | flags;

	if ((*own & peer & SLUICE_TCP_FIN) &&
	    !(flags & (SLUICE_TCP_FIN | SLUICE_TCP_SYN | SLUICE_TCP_RST)))
		bits |= SLUICE_TCP_LAST;
	if (bits != *own)
		*own = bits;
}

/* May a SYN begin anew on a flow in this state? */
static __always_inline bool tcp_over(enum sluice_flow_state state)
{
	return state == SLUICE_STATE_CLOSING || state == SLUICE_STATE_TIME_WAIT ||
	       state == SLUICE_STATE_RESET;
}

static __always_inline __u16 idle_timeout_s(const struct pkt *p, const struct sluice_timers *t)
{
	switch (p->l4) {
	case SLUICE_TCP:
		return t->tcp_opening;
	case SLUICE_UDP:
		return p->dport == bpf_htons(53) || p->dport == bpf_htons(123) ? t->udp_short
									       : t->udp;
	}
	return t->icmp;
}

#endif
