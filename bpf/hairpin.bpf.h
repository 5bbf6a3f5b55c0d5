/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Hairpinning (RFC 4787 REQ-9, RFC 5382 REQ-8, RFC 5508 REQ-7): a client that sends to the outer end of another client, or of a leased socket of this machine, reaches it, and is
 * seen there by its own outer end.
 *
 *   inner_ingress   at the interfaces that clients come in by: what is for a shared address gets its outer source, as at the uplink's egress, and then its inner
 *                   destination, as at the uplink's ingress
 *   lo_egress       what a socket answers, from one shared address to another: the second half of that
 *
 * What has been translated here has a source that is the machine's own, and is let in again by lo, which is told to accept that (accept_local): from there the kernel routes,
 * filters and delivers it like anything else.
 */
#ifndef HAIRPIN_BPF_H
#define HAIRPIN_BPF_H

#include "guard.bpf.h"
#include "in.bpf.h"
#include "zone.bpf.h"

#define HAIRPIN_LO   1    /* the same in every network namespace */
#define HAIRPIN_OPEN (-2) /* nobody is there */

static __always_inline int to_lo(struct __sk_buff *skb)
{
	__u8 lo_addr[ETH_ALEN] = {};

	if (link_header(skb) || bpf_skb_store_bytes(skb, 0, lo_addr, ETH_ALEN, 0))
		return VERDICT_DROP;
	return bpf_redirect(HAIRPIN_LO, BPF_F_INGRESS);
}

/* The way in, for a packet that has its outer source. Returns the verdict or HAIRPIN_OPEN. */
static __always_inline int hairpin_in(struct __sk_buff *skb, struct work *w, bool to_sockets)
{
	struct sluice_flow_key *key = &w->key;
	struct sluice_addr_row *ar;
	struct sluice_slice *sl;
	struct sluice_pool *pool;
	struct sluice_lease *lease;
	struct sluice_flow *r;
	struct pkt *p = &w->p;
	__u32 row, pool_row;
	bool kept;
	int step;

	if (p->bad != NOT_BAD || p->kind == PKT_ND || p->kind == PKT_ECHO)
		return HAIRPIN_OPEN;
	ar = bpf_map_lookup_elem(&addrs, &p->dst);
	if (!ar)
		return HAIRPIN_OPEN;
	if (p->kind == PKT_ICMP_ERROR) {
		step = error_arrived(skb, p);
		if (step != STEP_OK)
			return verdict_drop(skb, p, ar->pool, step);
	}
	pool_row = ar->pool;
	row = ar->base + (bpf_ntohs(p->dport) >> (ar->shift & 15));
	sl = slice_row(row);
	pool = pool_of(pool_row);
	if (!sl || !pool || sl->state != SLUICE_SLICE_HELD)
		return HAIRPIN_OPEN;
	p->now = now_get();
	if (slice_fenced(sl, p->now.ns))
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_fenced);
	r = rev_arrived(w, pool);
	if (r && (r->flags & SLUICE_FLOW_OWN)) {
		own_back(r, p);
		r = NULL;
	} else if (r && p->kind == PKT_ICMP_ERROR) {
		step = error_in(skb, p, r);
		if (step != STEP_OK)
			return verdict_drop(skb, p, pool_row, step);
		verdict_in(skb, pool_row);
		return to_lo(skb);
	} else if (!r && p->l4 == SLUICE_TCP && p->kind == PKT_DATA) {
		if (session_in(p, key, pool_row, p->now.s))
			r = bpf_map_lookup_elem(&rev, key);
	}
	if (r) {
		step = flow_in(skb, p, key, r, p->now.s);
		if (step != STEP_OK)
			return verdict_drop(skb, p, pool_row, step);
		verdict_in(skb, pool_row);
		if (zone_is_own(r->zone)) {
			step = zone_back(skb, p, &r->addr, r->zone);
			return step == TC_ACT_REDIRECT ? step : VERDICT_DROP;
		}
		return to_lo(skb);
	}
	if (!to_sockets)
		return HAIRPIN_OPEN;
	lease = lease_of(sl, &p->dst, p->dport, p->proto, &kept);
	if (sock_takes(skb, p, key) ||
	    (lease && lease->steer && sock_steered(skb, p, lease->steer - 1))) {
		verdict_in(skb, pool_row);
		return to_lo(skb);
	}
	return HAIRPIN_OPEN;
}

/* From a client to a shared address. */
SEC("tc")
int inner_ingress(struct __sk_buff *skb)
{
	struct work *w = work_row();
	struct sluice_addr_row *ar;
	struct sluice_slice *sl;
	struct sluice_pool *pool;
	struct sluice_conf *c = conf_row();
	struct sluice_flow *f;
	__u32 *row, pool_row;
	struct pkt *p;
	__u16 zone;
	int step;

	/* A tag that the device has taken out: the packet comes to the VLAN's own interface. */
	if (!w || !c || !c->hairpin || skb->vlan_present)
		return VERDICT_PASS;
	p = &w->p;
	if (parse_skb(skb, l3_off(skb), p) != PARSE_OK)
		return VERDICT_PASS;
	ar = bpf_map_lookup_elem(&addrs, &p->dst);
	if (!ar || p->bad != NOT_BAD ||
	    (p->kind != PKT_DATA && p->kind != PKT_ECHO_REPLY && p->kind != PKT_ICMP_ERROR))
		return VERDICT_PASS;
	zone = zone_of(skb);
	row = lpm_find(&clients, zone, &p->src);
	if (!row)
		return VERDICT_PASS;
	pool_row = *row;
	pool = pool_of(pool_row);
	if (!pool || !pool->hairpin || lpm_find(&no_nat, pool_row, &p->dst))
		return VERDICT_PASS;
	if (p->frag)
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_fragment);
	p->now = now_get();
	if (p->kind == PKT_ICMP_ERROR) {
		/* About a packet that came to the client through here, or it tells nothing that anybody may know. */
		step = error_out(skb, p);
		if (step != STEP_OK)
			return verdict_drop(skb, p, pool_row,
					    step == STEP_NONE ? SLUICE_DROP_icmp_error : step);
	} else if (p->kind == PKT_ECHO_REPLY) {
		return VERDICT_PASS;
	} else {
		/* Ports of another machine's: a matter of the network between the two. */
		sl = slice_row(ar->base + (bpf_ntohs(p->dport) >> (ar->shift & 15)));
		if (!sl || sl->state != SLUICE_SLICE_HELD)
			return VERDICT_PASS;
		f = fwd_find(&w->key, p, zone, eim_first(p));
		step = f ? flow_out(skb, p, &w->key, f) : STEP_NONE;
		if (step == STEP_NONE)
			step = flow_new(skb, p, zone, pool_row, -1);
		if (step == STEP_PASS)
			return VERDICT_PASS;
		if (step != STEP_OK)
			return verdict_drop(skb, p, pool_row, step);
	}
	verdict_out(skb, pool_row);
	if (parse_skb(skb, l3_off(skb), p) != PARSE_OK)
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_rewrite);
	step = hairpin_in(skb, w, true);
	return step == HAIRPIN_OPEN ? verdict_drop(skb, p, pool_row, SLUICE_DROP_hairpin) : step;
}

/* From a socket, or from the kernel itself about a packet between two clients. */
SEC("tc")
int lo_egress(struct __sk_buff *skb)
{
	struct sluice_conf *c = conf_row();
	struct work *w = work_row();
	struct pkt *p;
	int step;

	if (!w || !c || !c->hairpin)
		return VERDICT_PASS;
	p = &w->p;
	if (parse_skb(skb, ETH_HLEN, p) != PARSE_OK || p->bad != NOT_BAD ||
	    !bpf_map_lookup_elem(&addrs, &p->dst))
		return VERDICT_PASS;
	if (p->kind == PKT_ICMP_ERROR) {
		p->now = now_get();
		if (error_out(skb, p) != STEP_OK)
			return VERDICT_PASS;
		if (parse_skb(skb, ETH_HLEN, p) != PARSE_OK)
			return VERDICT_DROP;
	} else if (!bpf_map_lookup_elem(&addrs, &p->src)) {
		return VERDICT_PASS;
	}
	step = hairpin_in(skb, w, false);
	return step == HAIRPIN_OPEN ? VERDICT_PASS : step;
}

#endif
