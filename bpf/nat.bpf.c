/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The uplink's TC programs, the only place where flows begin, and the sweep that ends them. See ARCHITECTURE.md,
 * "The data plane"; the map layouts are in sluice_abi.h.
 *
 *   uplink_egress    client packets: find or create the flow, put on the outer source
 *                    socket packets with a shared source: the guard
 *                    socket packets of "sluice exec" with another source: translate as well
 *   uplink_ingress   packets to a shared address: undo the translation, let through to sockets, or drop
 *   inner_ingress, lo_egress: hairpinning, see hairpin.bpf.h
 *   sweep            run by the daemon: take dead flows out, note which ports are in use
 */
#include "guard.bpf.h"
#include "hairpin.bpf.h"
#include "in.bpf.h"
#include "mss.bpf.h"
#include "out.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Forwarded packets. */
static __always_inline int from_client(struct __sk_buff *skb, struct work *w)
{
	struct pkt *p = &w->p;
	bool translatable = p->bad == NOT_BAD && (p->kind == PKT_DATA || p->kind == PKT_ECHO);
	struct sluice_flow *f;
	__u16 zone = zone_of(skb);
	__u32 *row, pool_row;
	int step;

	p->now = now_get();
	if (p->frag == FRAG_LATER) {
		step = frag_later(skb, p, SLUICE_FRAG_OUT);
		if (step != FRAG_UNKNOWN)
			return step;
	}
	if (p->bad == NOT_BAD && p->kind == PKT_ICMP_ERROR)
		return error_forwarded(skb, p);
	if (translatable) {
		f = fwd_find(&w->key, p, zone, eim_first(p));
		if (f) {
			struct sluice_slice *sl = slice_row(f->slice);

			pool_row = sl ? sl->pool : 0;
			step = flow_out(skb, p, &w->key, f);
			if (step == STEP_OK) {
				mss_of_pool(skb, p, &p->src, pool_row, false);
				return leaves(skb, p, pool_row);
			}
			if (step == STEP_PASS)
				return VERDICT_PASS;
			if (step != STEP_NONE)
				return verdict_drop(skb, p, pool_row, step);
		}
	}
	if (bpf_map_lookup_elem(&addrs, &p->src))
		return verdict_drop(skb, p, 0, SLUICE_DROP_spoof);
	row = lpm_find(&clients, zone, &p->src);
	if (!row)
		return VERDICT_PASS;
	pool_row = *row;
	if (lpm_find(&no_nat, pool_row, &p->dst))
		return VERDICT_PASS;
	if (p->frag == FRAG_LATER && p->bad == SLUICE_DROP_fragment)
		return frag_wait(skb, p, SLUICE_FRAG_OUT, pool_row);
	if (p->bad != NOT_BAD)
		return verdict_drop(skb, p, pool_row, p->bad);
	if (!translatable)
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_icmp_type);
	step = flow_new(skb, p, zone, pool_row, -1);
	if (step == STEP_PASS) /* no-nat has just been extended */
		return VERDICT_PASS;
	if (step != STEP_OK)
		return verdict_drop(skb, p, pool_row, step);
	mss_of_pool(skb, p, &p->src, pool_row, false);
	return leaves(skb, p, pool_row);
}

SEC("tc")
int uplink_egress(struct __sk_buff *skb)
{
	struct work *w = work_row();
	int verdict;
	__u8 way;

	if (!w)
		return VERDICT_DROP; /* there is one */
	switch (parse_skb(skb, l3_off(skb), &w->p)) {
	case PARSE_NOT_IP:
		return VERDICT_PASS;
	case PARSE_SHORT: /* no memory: what cannot be judged does not leave */
		return verdict_drop(skb, &w->p, 0, SLUICE_DROP_rewrite);
	}
	way = skb->ingress_ifindex ? SLUICE_FRAG_OUT : SLUICE_FRAG_LOCAL;
	if (w->p.frag == FRAG_FIRST && frag_replay(skb, &w->p, way))
		return VERDICT_DROP;
	verdict = way == SLUICE_FRAG_OUT ? from_client(skb, w) : from_socket(skb, w);
	return w->p.frag == FRAG_FIRST ? frag_end(skb, &w->p, way, verdict) : verdict;
}

static __always_inline int arrived(struct __sk_buff *skb)
{
	struct work *w = work_row();
	struct sluice_flow_key *key;
	struct sluice_addr_row *ar;
	struct sluice_slice *sl;
	struct sluice_pool *pool;
	struct sluice_lease *lease;
	struct sluice_block *b;
	struct sluice_flow *r;
	__u32 row, pool_row, bit = 0;
	struct pkt *p;
	bool kept;
	int step;

	if (!w)
		return VERDICT_DROP;
	p = &w->p;
	key = &w->key;
	switch (parse_skb(skb, l3_off(skb), p)) {
	case PARSE_NOT_IP:
		return VERDICT_PASS;
	case PARSE_SHORT:
		return verdict_drop(skb, p, 0, SLUICE_DROP_rewrite);
	}
	ar = bpf_map_lookup_elem(&addrs, &p->dst);
	if (!ar)
		return VERDICT_PASS;
	pool_row = ar->pool;
	if (p->frag == FRAG_LATER && p->bad == SLUICE_DROP_fragment) {
		step = frag_later(skb, p, SLUICE_FRAG_IN);
		return step == FRAG_UNKNOWN ? frag_wait(skb, p, SLUICE_FRAG_IN, pool_row) : step;
	}
	if (p->frag == FRAG_FIRST && frag_replay(skb, p, SLUICE_FRAG_IN)) {
		p->frag = FRAG_NONE;
		return VERDICT_DROP;
	}
	if (p->bad != NOT_BAD)
		return verdict_drop(skb, p, pool_row, p->bad);
	if (p->kind == PKT_ICMP_ERROR) {
		step = error_arrived(skb, p);
		if (step != STEP_OK)
			return verdict_drop(skb, p, pool_row, step);
	}
	if (p->kind == PKT_ND)
		return VERDICT_PASS; /* the kernel answers for no address that is only routed here */
	if (p->kind == PKT_ECHO)
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_unsolicited);
	row = ar->base + (bpf_ntohs(p->dport) >> (ar->shift & 15));
	sl = slice_row(row);
	pool = pool_of(pool_row);
	if (!sl || !pool || sl->state != SLUICE_SLICE_HELD)
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_foreign);
	p->now = now_get();
	if (slice_fenced(sl, p->now.ns))
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_fenced);
	r = rev_arrived(w, pool);
	if (r && (r->flags & SLUICE_FLOW_OWN)) {
		own_back(r, p);
		/* The kernel's look-ups do not know of sockets for pings. It answers nothing to a reply. */
		if (p->kind == PKT_ECHO_REPLY)
			return enters(skb, p, pool_row);
		r = NULL;
	} else if (p->kind == PKT_ICMP_ERROR) {
		if (r) {
			step = error_in(skb, p, r);
			if (step == STEP_OK && zone_is_own(r->zone)) {
				verdict_in(skb, pool_row);
				step = zone_back(skb, p, &r->addr, r->zone);
				if (step == TC_ACT_REDIRECT)
					return step;
			}
			return step == STEP_OK ? verdict_in(skb, pool_row)
					       : verdict_drop(skb, p, pool_row, step);
		}
	} else if (!r && p->l4 == SLUICE_TCP) {
		if (session_in(p, key, pool_row, p->now.s))
			r = bpf_map_lookup_elem(&rev, key);
	}
	if (r) {
		/* The other pieces would not know the way. */
		if (p->frag && zone_is_own(r->zone))
			return verdict_drop(skb, p, pool_row, SLUICE_DROP_fragment);
		step = flow_in(skb, p, key, r, p->now.s);
		if (step != STEP_OK)
			return verdict_drop(skb, p, pool_row, step);
		mss_of_pool(skb, p, &r->addr, pool_row, true);
		if (!zone_is_own(r->zone))
			return enters(skb, p, pool_row);
		verdict_in(skb, pool_row);
		step = zone_back(skb, p, &r->addr, r->zone);
		return step == TC_ACT_REDIRECT
			       ? step
			       : verdict_drop(skb, p, pool_row, SLUICE_DROP_rewrite);
	}
	if (sock_takes(skb, p, key))
		return enters(skb, p, pool_row);
	lease = lease_of(sl, &p->dst, p->dport, p->proto, &kept);
	if (lease && lease->steer && sock_steered(skb, p, lease->steer - 1))
		return enters(skb, p, pool_row);
	b = pool->mapping[p->l4 & 3] == SLUICE_EIM ? block_of(sl, p->proto, p->dport, &bit) : NULL;
	return verdict_drop(skb, p, pool_row,
			    b && (b->bits >> bit & 1) ? SLUICE_DROP_filtered
						      : SLUICE_DROP_unsolicited);
}

SEC("tc")
int uplink_ingress(struct __sk_buff *skb)
{
	int verdict = arrived(skb);
	struct work *w = work_row();

	return w && w->p.frag == FRAG_FIRST ? frag_end(skb, &w->p, SLUICE_FRAG_IN, verdict)
					    : verdict;
}

SEC("syscall")
int sweep(void *ctx)
{
	struct sweep s = { .now_s = now_get().s, .mark_use = true };
	struct sluice_sweep *out;
	struct sluice_conf *c;
	__u32 zero = 0;

	s.now_ms = s.now_s * 1000;
	out = bpf_map_lookup_elem(&sweep_out, &zero);
	c = bpf_map_lookup_elem(&conf, &zero);
	if (!out || !c)
		return 1;
	sweep_tables(&s);
	frag_sweep(s.now_s, false);
	out->now_s = s.now_s;
	out->seen = s.seen;
	out->reclaimed = s.reclaimed;
	for (int i = 0; i < 4; i++)
		out->flows[i] = s.flows[i];
	c->swept_s = s.now_s;
	return 0;
}
