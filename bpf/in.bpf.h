/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Packets as they come: taken apart, and, for who sends to a shared address, given back their inner destination. */
#ifndef IN_BPF_H
#define IN_BPF_H

#include "icmp.bpf.h"
#include "work.bpf.h"

/* A function of its own for the stack's sake: its frame is gone when the search for a port needs the room. */
static __noinline int parse_skb(struct __sk_buff *skb, __u32 l3_off, struct pkt *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 n = skb->len;
	int ret;

	ret = parse(data, end, skb->len, l3_off, skb->protocol, skb->gso_size, p);
	if (ret != PARSE_SHORT)
		return ret;
	if (n > PULL_LEN)
		n = PULL_LEN;
	if (bpf_skb_pull_data(skb, n))
		return PARSE_SHORT;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	return parse(data, end, skb->len, l3_off, skb->protocol, skb->gso_size, p);
}

/*
 * A remote end opens a connection to an endpoint-independent TCP mapping: if the filtering lets it in, begin the session.
 * True: it is there.
 */
KEYED bool session_in(const struct pkt *p, const struct sluice_flow_key *key, __u32 pool_row,
		      __u32 now_s)
{
	struct sluice_pool *pool = pool_of(pool_row);
	struct work *w = work_row();
	struct sluice_flow *r, *f;
	int charge;

	if (!pool || !p || !key || !w || pool->mapping[SLUICE_TCP] != SLUICE_EIM ||
	    pool->filtering[SLUICE_TCP] == SLUICE_FILTER_PORT || !tcp_opens(p))
		return false;
	w->rk = *key;
	rev_key_mask(&w->rk, pool->filtering[SLUICE_TCP]);
	r = bpf_map_lookup_elem(&rev, &w->rk);
	if (!r || !(r->flags & SLUICE_FLOW_PERMIT) || !rev_alive(&w->rk, r, now_s, 0))
		return false;
	w->val = *r;
	w->val.flags &= ~SLUICE_FLOW_PERMIT;
	w->val.rport = p->sport;
	w->val.seen_s = now_s;
	w->val.tcp = 0;
	w->val.tcp_out = 0;
	fwd_key_of(&w->fk, key, &w->val);
	f = bpf_map_lookup_elem(&fwd, &w->fk);
	if (!f)
		return false;
	/* How fast strangers knock is not the client's doing. */
	charge = client_charge(&w->val.addr, w->val.zone, pool_row, CLIENT_STATE | SLUICE_TCP,
			       p->now.ns);
	if (charge >= 0)
		return false;
	if (charge == CLIENT_COUNTED)
		w->val.flags |= SLUICE_FLOW_COUNTED;
	if (bpf_map_update_elem(&rev, key, &w->val, BPF_NOEXIST)) {
		if (charge == CLIENT_COUNTED)
			client_release(&w->client, CLIENT_STATE | SLUICE_TCP);
		return false;
	}
	__sync_fetch_and_add(&f->sessions, 1);
	count_created(pool_row, SLUICE_TCP);
	return true;
}

/* Something other than TCP came in, and the pool lets that keep a flow (RFC 4787 REQ-6). */
static __always_inline void refresh_in(struct work *w, const struct sluice_flow_key *rk,
				       struct sluice_flow *r, __u32 now_s)
{
	struct sluice_slice *sl = slice_row(r->slice);
	struct sluice_pool *pool = sl ? pool_of(sl->pool) : NULL;
	struct sluice_flow *f;

	if (!pool || !pool->inbound_refresh)
		return;
	fwd_key_of(&w->fk, rk, r);
	f = bpf_map_lookup_elem(&fwd, &w->fk);
	if (!f || !same_flow(f, rk->dport, r))
		return;
	seen_catch_up(f, now_s);
	seen_catch_up(r, now_s);
}

/* Undo the translation. Returns STEP_OK or a reason. */
KEYED int flow_in(struct __sk_buff *skb, const struct pkt *p, const struct sluice_flow_key *rk,
		  struct sluice_flow *r, __u32 now_s)
{
	struct work *w = work_row();
	union sluice_addr inner;
	struct sluice_flow *f;
	__be16 port;
	__u8 peer;

	if (!p || !rk || !r || !w)
		return SLUICE_DROP_rewrite;
	port = r->port;
	peer = r->tcp_out;
	inner = r->addr;
	if (p->l4 == SLUICE_TCP) {
		if (!(r->flags & SLUICE_FLOW_EIM) &&
		    ((r->tcp | p->tcp) & (SLUICE_TCP_FIN | SLUICE_TCP_RST))) {
			fwd_key_of(&w->fk, rk, r);
			f = bpf_map_lookup_elem(&fwd, &w->fk);
			if (f && !same_flow(f, rk->dport, r))
				f = NULL;
			peer = f ? f->tcp : 0;
			/* It is passed on, for the client to judge; here nothing has happened. */
			if (f && tcp_stray_reset(p, f))
				goto rewrite;
		}
		/* The first RST starts the transitory time (RFC 6146 3.5.2.2); others must not prolong it (RFC 7857 2). */
		if (!(p->tcp & r->tcp & SLUICE_TCP_RST) && r->seen_s != now_s)
			r->seen_s = now_s;
		tcp_note(&r->tcp, peer, p->tcp);
	} else {
		refresh_in(w, rk, r, now_s);
	}
rewrite:
	return rewrite_dst(skb, p, &inner, port) ? SLUICE_DROP_rewrite : STEP_OK;
}

/* What a remote end sends on a tuple that is a socket's own: noted, for the mark lives as the connection does. */
static __always_inline void own_back(struct sluice_flow *r, const struct pkt *p)
{
	if (p->kind != PKT_DATA || p->l4 != SLUICE_TCP)
		return;
	if (!(p->tcp & r->tcp & SLUICE_TCP_RST) && r->seen_s != p->now.s)
		r->seen_s = p->now.s;
	tcp_note(&r->tcp, r->tcp_out, p->tcp);
}

/* Looks for w->key. */
static __always_inline struct sluice_flow *rev_find(struct work *w, bool eim, __u8 filtering)
{
	struct sluice_flow *r;

	w->masked = w->key;
	if (eim && eim_session_masked(w->p.l4))
		rev_key_mask(&w->masked, filtering);
	r = bpf_map_lookup_elem(&rev, &w->masked);
	if (!r || (r->flags & SLUICE_FLOW_PERMIT) || !rev_alive(&w->masked, r, w->p.now.s, 0))
		return NULL;
	return r;
}

/* The entry of a packet that came for a shared address; w->key is made here. */
static __always_inline struct sluice_flow *rev_arrived(struct work *w,
						       const struct sluice_pool *pool)
{
	struct sluice_flow_key *key = &w->key;
	const struct pkt *p = &w->p;
	bool eim = pool->mapping[p->l4 & 3] == SLUICE_EIM;
	__u8 filtering = pool->filtering[p->l4 & 3];
	struct sluice_flow *r;

	__builtin_memset(key, 0, sizeof(*key));
	key->src = p->src;
	key->sport = p->sport;
	key->dst = p->dst;
	key->dport = p->dport;
	key->proto = p->proto;
	r = rev_find(w, eim, filtering);
	if (!r && pool->mixed[p->l4 & 3])
		r = rev_find(w, !eim, filtering);
	return r;
}

#endif
