/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Flows on their way out: found, or begun, and the packet translated. For clients' packets and for sockets' alike. */
#ifndef OUT_BPF_H
#define OUT_BPF_H

#include "alloc.bpf.h"
#include "rewrite.bpf.h"
#include "sweep.bpf.h"
#include "tcp.bpf.h"

/* What a step says besides a reason to drop. */
#define STEP_OK   (-1)
#define STEP_NONE (-2) /* no flow there */
#define STEP_PASS (-3) /* not to be translated */

static __always_inline bool inner_is(const struct sluice_flow *r, const struct pkt *p, __u16 zone)
{
	return addr_eq(&r->addr, &p->src) && r->port == p->sport && r->zone == zone;
}

static __always_inline void count_created(__u32 pool, __u8 l4)
{
	struct sluice_pool_stats *st = pool_stats_of(pool);

	if (st)
		st->created[l4 & 3]++;
}

/*
 * Endpoint-independent TCP: let remote ends in that the filtering allows. The entry lives as its mapping does. Turns the session's key
 * and value into the entry's own.
 */
KEYED int permit_add(struct sluice_flow_key *rk, struct sluice_flow *val, __u8 filtering)
{
	struct sluice_flow *r;

	if (!rk || !val)
		return -1;
	rev_key_mask(rk, filtering);
	val->flags &= ~SLUICE_FLOW_COUNTED;
	val->flags |= SLUICE_FLOW_PERMIT;
	r = bpf_map_lookup_elem(&rev, rk);
	if (r && (r->flags & SLUICE_FLOW_PERMIT) && addr_eq(&r->addr, &val->addr) &&
	    r->port == val->port && r->epoch == val->epoch)
		return 0;
	/* Of a mapping that had the port before: dead, or this port would not be ours. */
	return bpf_map_update_elem(&rev, rk, val, BPF_ANY);
}

static __always_inline __u32 *lpm_find(void *map, __u32 pool, const union sluice_addr *addr)
{
	struct sluice_lpm_key k = {
		.prefixlen = SLUICE_LPM_POOL_BITS + 128,
		.pool = pool,
		.addr = *addr,
	};

	return bpf_map_lookup_elem(map, &k);
}

/*
 * A packet of a mapping goes out: find or begin the session with its remote end. Returns STEP_OK, STEP_PASS or a reason.
 */
GLOBAL int session_out(const struct pkt *p, struct sluice_flow *f, __u16 zone)
{
	struct work *w = work_row();
	struct sluice_flow_key *rk;
	struct sluice_flow *val, *r;
	struct sluice_pool *pool;
	struct sluice_slice *sl;
	__u8 filtering;
	__u16 idle_s;
	int err, charge = CLIENT_UNCOUNTED;

	if (!p || !f || !w)
		return SLUICE_DROP_rewrite;
	rk = &w->rk;
	val = &w->val;
	sl = slice_of(f);
	pool = sl ? pool_of(sl->pool) : NULL;
	if (!pool)
		return SLUICE_DROP_no_slice;
	filtering = pool->filtering[p->l4 & 3];
	idle_s = idle_timeout_s(p, &pool->timers);
	if (f->timeout_s < idle_s)
		f->timeout_s = idle_s;
	if (f->flags & SLUICE_FLOW_OWN) {
		if (!p->v6 && f->last_v4[3] != p->dst.w[3])
			f->last_v4[3] = p->dst.w[3];
		if (f->rport != p->dport)
			f->rport = p->dport;
		/* What it gets is the kernel's to decide, and its time is the mapping's. */
		if (p->l4 == SLUICE_UDP)
			return STEP_OK;
	}
	__builtin_memset(rk, 0, sizeof(*rk));
	rk->src = p->dst;
	rk->sport = p->dport;
	rk->dst = sl->addr;
	rk->dport = f->port;
	rk->proto = p->proto;
	if (eim_session_masked(p->l4))
		rev_key_mask(rk, filtering);
	r = bpf_map_lookup_elem(&rev, rk);
	if (r && inner_is(r, p, zone) && r->epoch == f->epoch && rev_alive(rk, r, p->now.s, 0)) {
		if (p->l4 == SLUICE_TCP) {
			if (tcp_opens(p) && tcp_over(sluice_tcp_state(r->tcp_out, r->tcp))) {
				r->tcp_out = 0;
				r->tcp = 0;
			}
			tcp_note(&r->tcp_out, r->tcp, p->tcp);
		}
		if (r->timeout_s < idle_s)
			r->timeout_s = idle_s;
		if (r->seen_s != p->now.s)
			r->seen_s = p->now.s;
		return STEP_OK;
	}
	if (zone != SLUICE_ZONE_LOCAL && lpm_find(&no_nat, sl->pool, &p->dst))
		return STEP_PASS;
	if (p->l4 == SLUICE_TCP && !tcp_opens(p) && !(f->flags & SLUICE_FLOW_OWN))
		return SLUICE_DROP_no_flow;
	if (r)
		rev_reclaim(rk, r);
	if (!(f->flags & SLUICE_FLOW_OWN))
		charge =
			client_charge(&p->src, zone, sl->pool,
				      CLIENT_STATE | CLIENT_BEGIN | (p->l4 & CLIENT_L4), p->now.ns);
	if (charge >= 0)
		return charge;
	__builtin_memset(val, 0, sizeof(*val));
	val->addr = p->src;
	val->port = p->sport;
	val->rport = p->dport;
	val->slice = f->slice;
	val->epoch = f->epoch;
	val->seen_s = p->now.s;
	val->timeout_s = idle_s;
	val->zone = zone;
	val->tcp_out = p->tcp;
	val->flags = SLUICE_FLOW_EIM | (f->flags & SLUICE_FLOW_OWN) |
		     (zone == SLUICE_ZONE_LOCAL ? SLUICE_FLOW_LOCAL : 0);
	if (charge == CLIENT_COUNTED)
		val->flags |= SLUICE_FLOW_COUNTED;
	err = bpf_map_update_elem(&rev, rk, val, BPF_NOEXIST);
	if (err && charge == CLIENT_COUNTED)
		client_release(&w->client, CLIENT_STATE | (p->l4 & CLIENT_L4));
	if (err == -EEXIST)
		return STEP_OK; /* another CPU has just begun the same session */
	/* A socket has its port already. */
	if (err)
		return f->flags & SLUICE_FLOW_OWN ? STEP_OK : SLUICE_DROP_table_full;
	__sync_fetch_and_add(&f->sessions, 1);
	if (f->flags & SLUICE_FLOW_OWN)
		return STEP_OK;
	count_created(sl->pool, p->l4);
	if (p->l4 == SLUICE_TCP && filtering != SLUICE_FILTER_PORT &&
	    permit_add(rk, val, filtering))
		return SLUICE_DROP_table_full;
	return STEP_OK;
}

/*
 * Translate a packet by its fwd entry. Returns STEP_OK when the packet has its outer source, STEP_NONE when the entry
 * turned out dead and is gone, STEP_PASS for an endpoint-independent mapping's packet to a no-nat destination, or a reason.
 */
KEYED int flow_out(struct __sk_buff *skb, const struct pkt *p, const struct sluice_flow_key *fk,
		   struct sluice_flow *f)
{
	union sluice_addr outer;
	struct sluice_slice *sl;
	struct sluice_flow *r;
	__be16 port;
	int step;

	if (!p || !fk || !f)
		return SLUICE_DROP_rewrite;
	sl = slice_of(f);
	port = f->port;
	if (sl && slice_fenced(sl, p->now.ns))
		return SLUICE_DROP_fenced;
	if (!sl || (!fwd_alive(fk, f, p->now.s, 0) && !mapping_rests(f, fk->proto, p->now.s))) {
		fwd_reclaim(fk, f);
		return STEP_NONE;
	}
	outer = sl->addr;
	if (f->flags & SLUICE_FLOW_EIM) {
		step = session_out(p, f, fk->zone);
		if (step != STEP_OK)
			return step;
	} else if (p->l4 == SLUICE_TCP) {
		r = NULL;
		if (tcp_opens(p) || (f->tcp & SLUICE_TCP_FIN))
			r = rev_of(fk, f, sl);
		if (r && tcp_opens(p) && tcp_over(sluice_tcp_state(f->tcp, r->tcp))) {
			r->tcp = 0;
			f->tcp = 0;
		}
		tcp_note(&f->tcp, r ? r->tcp : 0, p->tcp);
		tcp_expect(skb, p, f);
	}
	if (f->seen_s != p->now.s)
		f->seen_s = p->now.s;
	return rewrite_src(skb, p, &outer, port) ? SLUICE_DROP_rewrite : STEP_OK;
}

/* What a new entry of fwd, with its rev entry in overload mode, is counted for. */
static __always_inline __u32 client_what(const struct alloc *a, __u8 l4)
{
	return CLIENT_PORT | (a->eim ? 0 : CLIENT_STATE) | (l4 & CLIENT_L4);
}

static __always_inline int client_undo(struct work *w, const struct alloc *a, const struct pkt *p)
{
	if (a->charge == CLIENT_COUNTED)
		client_release(&w->client, client_what(a, p->l4));
	return CLIENT_UNCOUNTED;
}

/*
 * Begin a flow, or for an endpoint-independent pool a mapping: allocate the outer end and enter it. only_row: the one slice to look in (a
 * socket keeps its address), or -1 for all of the pool's. Afterwards the fwd entry is there: STEP_OK, or a reason.
 */
static __always_inline int flow_enter(struct __sk_buff *skb, const struct pkt *p, struct alloc *a,
				      struct work *w, const struct sluice_pool *pool,
				      __u32 pool_row, __u32 only_row)
{
	struct alloc_loop l = { .skb = skb, .a = a };
	struct sluice_block *b;
	struct sluice_slice *sl;
	__u64 held_word;
	__u32 bit, *count;
	int err;

	held_word = *(volatile __u64 *)&pool->held;
	a->held_base = held_word >> 32;
	a->held_n = (__u32)held_word;
	a->pool = pool_row;
	a->l4 = p->l4;
	a->now_ns = p->now.ns;
	a->now_s = p->now.s;
	a->result = ALLOC_NO_SLICE;
	__builtin_memset(&a->rk, 0, sizeof(a->rk));
	__builtin_memset(&a->val, 0, sizeof(a->val));
	a->rk.src = p->dst;
	a->rk.sport = p->dport;
	a->rk.proto = p->proto;
	a->val.addr = p->src;
	a->val.port = p->sport;
	a->val.rport = p->dport;
	a->val.seen_s = p->now.s;
	a->val.timeout_s = idle_timeout_s(p, &pool->timers);
	a->val.zone = a->fk.zone;
	a->val.flags = a->fk.zone == SLUICE_ZONE_LOCAL ? SLUICE_FLOW_LOCAL : 0;
	if (a->charge == CLIENT_COUNTED)
		a->val.flags |= SLUICE_FLOW_COUNTED;
	if (only_row != -1U) {
		a->start = keyed_hash(p->src.d[0] ^ p->src.d[1], (__u64)p->sport << 32 | p->dport,
				      p->now.ns);
		alloc_slice(&l, only_row);
	} else if (a->held_n) {
		/* The slice by the client, so that a client keeps its address; the port by everything. */
		a->slice_start = keyed_hash(p->src.d[0], p->src.d[1], a->fk.zone);
		a->start = keyed_hash(p->src.d[0] ^ p->src.d[1], p->dst.d[0] ^ p->dst.d[1],
				      p->now.ns ^ ((__u64)p->sport << 48));
		bpf_loop(a->held_n, try_slice, &l, 0);
		/* The address that the client had is no longer here: its flows are at an end, or another pool's. */
		if (a->pair && a->result == ALLOC_NO_SLICE) {
			a->pair = 0;
			bpf_loop(a->held_n, try_slice, &l, 0);
		}
	}
	switch (a->result) {
	case ALLOC_FULL:
		return SLUICE_DROP_no_port;
	case ALLOC_TABLE:
		return SLUICE_DROP_table_full;
	case ALLOC_NO_SLICE:
		return SLUICE_DROP_no_slice;
	}
	if (a->charge == CLIENT_COUNTED && !a->pair && pool->pairing == SLUICE_PAIRING_PAIRED) {
		sl = slice_row(a->val.slice);
		if (sl)
			client_pair(w, slice_base(sl, a->val.slice));
	}
	/* From here the value is the fwd entry's. */
	a->val.addr.d[0] = 0;
	a->val.addr.d[1] = 0;
	a->val.port = a->rk.dport;
	a->val.zone = 0;
	a->val.tcp = a->eim ? 0 : p->tcp;
	if (a->eim)
		a->val.flags |= SLUICE_FLOW_EIM;
	err = bpf_map_update_elem(&fwd, &a->fk, &a->val, BPF_NOEXIST);
	if (!err) {
		if (!a->eim)
			count_created(pool_row, p->l4);
		return STEP_OK;
	}
	/* Give the outer end back: another CPU was faster with the same flow, or there is no room. */
	a->charge = client_undo(w, a, p);
	if (a->eim) {
		sl = slice_row(a->val.slice);
		b = sl ? block_of(sl, p->proto, a->rk.dport, &bit) : NULL;
		if (b)
			__sync_fetch_and_and(&b->bits, ~(1ULL << bit));
	} else {
		count = port_count_of(&a->rk, &a->val);
		bpf_map_delete_elem(&rev, &a->rk);
		port_count_put(count);
	}
	return err == -EEXIST ? STEP_OK : SLUICE_DROP_table_full;
}

static __noinline int flow_begin(struct __sk_buff *skb, const struct pkt *p, struct alloc *a,
				 __u32 pool_row, __u32 only_row)
{
	struct sluice_pool *pool = pool_of(pool_row);
	struct work *w = work_row();
	int step;

	if (!pool || !w)
		return SLUICE_DROP_no_slice;
	if (p->l4 == SLUICE_TCP && !tcp_opens(p))
		return SLUICE_DROP_no_flow;
	a->eim = pool->mapping[p->l4 & 3] == SLUICE_EIM;
	/* A mapping's sessions are counted one by one. */
	a->charge = client_charge(&p->src, a->fk.zone, pool_row,
				  client_what(a, p->l4) | (a->eim ? 0 : CLIENT_BEGIN), p->now.ns);
	if (a->charge >= 0)
		return a->charge;
	a->pair = a->charge == CLIENT_COUNTED ? w->pair : 0;
	step = flow_enter(skb, p, a, w, pool, pool_row, only_row);
	if (step != STEP_OK)
		client_undo(w, a, p);
	return step;
}

static __always_inline struct sluice_flow *fwd_find(struct sluice_flow_key *fk, const struct pkt *p,
						    __u16 zone, bool eim)
{
	fwd_key(fk, p, zone, eim);
	return bpf_map_lookup_elem(&fwd, fk);
}

/* Which key is the likelier one. */
static __always_inline bool eim_first(const struct pkt *p)
{
	__u32 zero = 0;
	struct sluice_conf *c = bpf_map_lookup_elem(&conf, &zero);

	return c && c->eim_first[p->l4 & 3];
}

/* A flow found no port. Towards where is kept for whoever asks; one of two first ones at the same time may go uncounted. */
KEYED int hot_note(struct alloc *a, __u32 pool_row)
{
	struct sluice_hot *h, first = { .refused = 1, .tried_s = a->now_s };

	__builtin_memset(&a->full_key, 0, sizeof(a->full_key));
	if (!a->eim) {
		a->full_key.dst = a->rk.src;
		a->full_key.dport = a->rk.sport;
	}
	a->full_key.l4 = a->l4;
	a->full_key.slice = pool_row;
	h = bpf_map_lookup_elem(&hot, &a->full_key);
	if (!h)
		return bpf_map_update_elem(&hot, &a->full_key, &first, BPF_NOEXIST);
	__sync_fetch_and_add(&h->refused, 1);
	h->tried_s = a->now_s;
	return 0;
}

/* A flow table is full: the sweep will not let mappings rest in it. */
static __always_inline void pressed(const struct pkt *p)
{
	struct sluice_conf *c = conf_row();

	if (c && c->pressed_s != p->now.s)
		c->pressed_s = p->now.s;
}

/*
 * A packet without a live flow: look under the pool's policy, else begin a flow. Afterwards the packet is translated
 * (STEP_OK), or the reason says why not.
 */
GLOBAL int flow_new(struct __sk_buff *skb, const struct pkt *p, __u16 zone, __u32 pool_row,
		    __u32 only_row)
{
	struct sluice_pool *pool = pool_of(pool_row);
	__u32 zero = 0;
	struct alloc *a = bpf_map_lookup_elem(&scratch, &zero);
	struct sluice_pool_stats *st = pool_stats_of(pool_row);
	struct sluice_flow *f;
	bool eim;
	int step;

	if (!pool || !p || !a)
		return SLUICE_DROP_no_slice;
	eim = pool->mapping[p->l4 & 3] == SLUICE_EIM;
	if (pool->mixed[p->l4 & 3]) {
		f = fwd_find(&a->fk, p, zone, !eim);
		step = f ? flow_out(skb, p, &a->fk, f) : STEP_NONE;
		if (step != STEP_NONE)
			return step;
	}
	f = fwd_find(&a->fk, p, zone, eim);
	step = f ? flow_out(skb, p, &a->fk, f) : STEP_NONE;
	if (step != STEP_NONE)
		return step;
	step = flow_begin(skb, p, a, pool_row, only_row);
	if ((step == SLUICE_DROP_no_port || step == SLUICE_DROP_table_full) &&
	    sweep_in_absence(p->now.s))
		step = flow_begin(skb, p, a, pool_row, only_row);
	if (step == STEP_OK) {
		f = bpf_map_lookup_elem(&fwd, &a->fk);
		step = f ? flow_out(skb, p, &a->fk, f) : STEP_NONE;
		if (step == STEP_NONE)
			step = SLUICE_DROP_table_full;
		/* A mapping whose first session found no room would keep its port for nothing. */
		if (step >= 0 && f && (f->flags & SLUICE_FLOW_EIM) && !f->sessions)
			mapping_reclaim(&a->fk, f);
	}
	if (step == SLUICE_DROP_table_full)
		pressed(p);
	/* What belongs to no flow, and begins none, was not refused one. */
	if (step >= 0 && step != SLUICE_DROP_no_flow && st)
		st->refused[p->l4 & 3]++;
	if (step == SLUICE_DROP_no_port)
		hot_note(a, pool_row);
	return step;
}

#endif
