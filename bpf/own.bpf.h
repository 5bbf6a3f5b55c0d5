/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Marks of the sockets' own flows: what NAT's entries are to it, these are to the sockets that keep their tuple. Whoever makes the entry first, by the same
 * atomic insert (overload) or the same bit (endpoint-independent), has the tuple; see ARCHITECTURE.md, "The arbiter".
 *
 * A port under lease needs none: NAT keeps off it.
 */
#ifndef OWN_BPF_H
#define OWN_BPF_H

#include "out.bpf.h"

enum own {
	OWN_NONE,  /* nobody has the tuple */
	OWN_GO,    /* the socket may use it */
	OWN_TAKEN, /* somebody else has it */
	OWN_FULL,  /* no room for a mark, and without one NAT would not know */
};

static __always_inline void own_rev_key(struct sluice_flow_key *rk, const struct pkt *p)
{
	__builtin_memset(rk, 0, sizeof(*rk));
	rk->src = p->dst;
	rk->sport = p->dport;
	rk->dst = p->src;
	rk->dport = p->sport;
	rk->proto = p->proto;
}

/* Remember for the report whose flow is in the way. f: its rev entry, or NULL. */
static __always_inline void rival_note(const struct sluice_flow *f)
{
	struct rival *rv = rival_row();

	if (!rv)
		return;
	__builtin_memset(rv, 0, sizeof(*rv));
	if (f) {
		rv->addr = f->addr;
		rv->port = f->port;
	}
}

/* Whose is the tuple by rev? A mark notes the packet. */
GLOBAL int own_found(const struct pkt *p)
{
	struct sluice_flow_key rk;
	struct sluice_flow *r;

	if (!p)
		return OWN_NONE;
	own_rev_key(&rk, p);
	r = bpf_map_lookup_elem(&rev, &rk);
	/* With grace, as NAT looks at ours. A mapping's sessions are not asked: the port's bit says whose it is. */
	if (!r || (r->flags & (SLUICE_FLOW_EIM | SLUICE_FLOW_PERMIT)) ||
	    !rev_alive(&rk, r, p->now.s, SLUICE_GRACE_S))
		return OWN_NONE;
	if (!(r->flags & SLUICE_FLOW_OWN)) {
		rival_note(r);
		return OWN_TAKEN;
	}
	if (p->l4 == SLUICE_TCP) {
		if (tcp_opens(p) && tcp_over(sluice_tcp_state(r->tcp_out, r->tcp))) {
			r->tcp_out = 0;
			r->tcp = 0;
		}
		tcp_note(&r->tcp_out, r->tcp, p->tcp);
	}
	if (r->seen_s != p->now.s)
		r->seen_s = p->now.s;
	return OWN_GO;
}

/* Has an endpoint-independent mapping the port, in a block that is NAT's? */
static __always_inline bool own_bit_taken(const struct pkt *p, const struct sluice_slice *sl)
{
	__u32 bit = 0;
	struct sluice_block *b = block_of(sl, p->proto, p->sport, &bit);

	if (!b || !(b->bits >> (bit & 63) & 1))
		return false;
	rival_note(NULL);
	return true;
}

/* Begins nothing that would have to be kept: an answer to what nobody has asked for. */
static __always_inline bool own_ends(const struct pkt *p)
{
	return p->l4 == SLUICE_TCP && (p->tcp & SLUICE_TCP_RST);
}

/* Would NAT, asking the kernel, not be shown this sender? seen: what sock_look() said. */
static __always_inline bool own_blind(int seen)
{
	return !(seen & SOCK_THERE) || (seen & SOCK_BOUND);
}

static __always_inline void own_val(struct sluice_flow *val, const struct pkt *p, __u32 row,
				    const struct sluice_slice *sl, const struct sluice_pool *pool)
{
	__builtin_memset(val, 0, sizeof(*val));
	val->port = p->sport;
	val->rport = p->dport;
	val->slice = row;
	val->epoch = sl->epoch;
	val->seen_s = p->now.s;
	val->timeout_s = idle_timeout_s(p, &pool->timers);
	val->flags = SLUICE_FLOW_LOCAL | SLUICE_FLOW_OWN;
}

/* Overload: mark the tuple as the socket's, if it is still nobody's. */
GLOBAL int own_mark(struct __sk_buff *skb, const struct pkt *p, __u32 row)
{
	struct sluice_slice *sl = slice_row(row);
	__u32 bit = 0, zero = 0;
	struct alloc *a = bpf_map_lookup_elem(&scratch, &zero);
	struct sluice_pool *pool;
	struct sluice_block *b;
	struct sluice_flow *r;
	int seen, i;
	int err;

	if (!p || !sl || !a)
		return OWN_FULL;
	pool = pool_of(sl->pool);
	b = block_of(sl, p->proto, p->sport, &bit);
	if (!pool || !b)
		return OWN_FULL;
	if (own_ends(p) || port_leased(b, bit))
		return OWN_GO;
	own_rev_key(&a->rk, p);
	seen = sock_look(skb, &a->rk);
	/* One mark for each remote end of a resolver would fill the table; the kernel shows such a socket to whoever asks for its port. */
	if (seen == (SOCK_THERE | SOCK_OPEN))
		return OWN_GO;
	own_val(&a->val, p, row, sl, pool);
	a->val.addr = p->src;
	a->val.zone = SLUICE_ZONE_LOCAL;
	a->val.tcp_out = p->tcp;
	if (own_blind(seen))
		a->val.flags |= SLUICE_FLOW_BLIND;
	for (i = 0; i < 2; i++) {
		err = bpf_map_update_elem(&rev, &a->rk, &a->val, BPF_NOEXIST);
		if (!err)
			return OWN_GO;
		if (err != -EEXIST)
			return own_blind(seen) ? OWN_FULL : OWN_GO;
		seen = own_found(p);
		if (seen != OWN_NONE)
			return seen;
		/* Dead. */
		r = bpf_map_lookup_elem(&rev, &a->rk);
		if (r)
			rev_reclaim(&a->rk, r);
	}
	rival_note(NULL);
	return OWN_TAKEN;
}

/* Endpoint-independent: the port's bit, and a mapping of the port to itself that keeps it. */
GLOBAL int own_mark_eim(struct __sk_buff *skb, const struct pkt *p, __u32 row)
{
	struct sluice_slice *sl = slice_row(row);
	__u32 bit = 0, zero = 0;
	struct alloc *a = bpf_map_lookup_elem(&scratch, &zero);
	struct sluice_pool *pool;
	struct sluice_block *b;
	struct sluice_flow *f;
	__u64 mask;
	int seen;
	int err;

	if (!p || !sl || !a)
		return OWN_FULL;
	pool = pool_of(sl->pool);
	b = block_of(sl, p->proto, p->sport, &bit);
	if (!pool || !b)
		return OWN_FULL;
	mask = 1ULL << (bit & 63);
	/* A block that drains gives nothing to NAT, and its bits are cleared in the end. */
	if (own_ends(p) || port_leased(b, bit) || b->mode != SLUICE_BLOCK_EIM)
		return b->bits & mask ? OWN_TAKEN : OWN_GO;
	own_rev_key(&a->rk, p);
	if (__sync_fetch_and_or(&b->bits, mask) & mask) {
		/* Whose it is tells the session with this remote end, if there is one. */
		if (eim_session_masked(p->l4))
			rev_key_mask(&a->rk, pool->filtering[p->l4 & 3]);
		f = bpf_map_lookup_elem(&rev, &a->rk);
		rival_note(f);
		return OWN_TAKEN;
	}
	seen = sock_look(skb, &a->rk);
	own_val(&a->val, p, row, sl, pool);
	/* There is no room for an IPv6 remote end, to ask the kernel with. */
	a->val.flags |= SLUICE_FLOW_EIM | (p->v6 || own_blind(seen) ? SLUICE_FLOW_BLIND : 0);
	if (!p->v6)
		a->val.last_v4[3] = p->dst.w[3];
	fwd_key(&a->fk, p, SLUICE_ZONE_LOCAL, true);
	/* A lease that came in between has the port. */
	err = port_leased(b, bit) ? 0 : bpf_map_update_elem(&fwd, &a->fk, &a->val, BPF_NOEXIST);
	f = bpf_map_lookup_elem(&fwd, &a->fk);
	if (!f || f->port != p->sport || !(f->flags & SLUICE_FLOW_OWN)) {
		__sync_fetch_and_and(&b->bits, ~mask);
		if (f) /* another CPU has moved the same socket's packet: it found our bit */
			return OWN_TAKEN;
		return err && own_blind(seen) ? OWN_FULL : OWN_GO;
	}
	session_out(p, f, SLUICE_ZONE_LOCAL);
	return OWN_GO;
}

/* mixed: flows of the other mapping may be there as well. Those of rev have been asked for. */
static __always_inline int own_claim(struct __sk_buff *skb, const struct pkt *p, __u32 row,
				     const struct sluice_slice *sl, bool eim, bool mixed)
{
	if (eim)
		return own_mark_eim(skb, p, row);
	return mixed && own_bit_taken(p, sl) ? OWN_TAKEN : own_mark(skb, p, row);
}

#endif
