/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What sockets of this machine send: the guard, which sees to it that a shared address leaves with ports that the sender may use, and nothing else;
 * and the processes of "sluice exec", which leave by a shared address and in no other way.
 */
#ifndef GUARD_BPF_H
#define GUARD_BPF_H

#include "frag.bpf.h"
#include "icmp.bpf.h"
#include "own.bpf.h"

/*
 * What a port is leased for, or NULL: not leased, or the lease is over and the port cools down. Then *ret_kept still says that it is kept from NAT.
 */
static __always_inline struct sluice_lease *lease_of(const struct sluice_slice *sl,
						     const union sluice_addr *addr, __be16 port,
						     __u8 proto, bool *ret_kept)
{
	struct sluice_port_key k = { .addr = *addr, .port = port, .l4 = l4_index(proto) };
	struct sluice_block *b;
	__u32 bit = 0;

	*ret_kept = false;
	if (proto != IPPROTO_TCP && proto != IPPROTO_UDP)
		return NULL;
	b = block_of(sl, proto, port, &bit);
	if (!b || !port_leased(b, bit))
		return NULL;
	*ret_kept = true;
	return lease_row(&k);
}

/*
 * May the sender of this packet use its port? The lease's user and root may, and whatever runs under the "sluice exec" that the lease was taken for: it may have
 * changed its user.
 */
GLOBAL bool lease_permits(struct __sk_buff *skb, const struct pkt *p, __u32 slice)
{
	struct sluice_slice *sl = slice_row(slice);
	struct sluice_conf *c = conf_row();
	struct sluice_lease *l;
	struct sluice_exec *e;
	bool kept;
	__u32 uid;

	if (!p || !sl || !c)
		return false;
	l = lease_of(sl, &p->src, p->sport, p->proto, &kept);
	if (!kept)
		return false;
	if (sent_by_nobody(skb))
		return true;
	if (!l)
		return false;
	uid = bpf_get_socket_uid(skb);
	if (!uid || uid == l->uid)
		return true;
	e = c->execs ? exec_of(skb, c) : NULL;
	return e && e->lease == l->id;
}

extern int LINUX_KERNEL_VERSION __kconfig;

#define REPORT_AGAIN_S 60

/* Is this packet one to report? TCP: each that opens a connection. Others: one of a socket in a while. */
GLOBAL bool report_due(struct __sk_buff *skb, const struct pkt *p)
{
	__u32 *at_s, now_s;
	__u64 cookie;

	if (!p)
		return false;
	if (p->l4 == SLUICE_TCP)
		return tcp_opens(p);
	cookie = bpf_get_socket_cookie(skb);
	now_s = p->now.s;
	at_s = bpf_map_lookup_elem(&reported, &cookie);
	if (at_s && now_s - *at_s < REPORT_AGAIN_S)
		return false;
	bpf_map_update_elem(&reported, &cookie, &now_s, BPF_ANY);
	return true;
}

/*
 * The machine's own packets under "sluice exec" whose source is not shared: what its hooks could not give a port of the lease to. They never leave with the
 * machine's own address, but are translated as a client's would be, within the slice that the exec has. What is not for the world goes its way.
 */
static __always_inline bool exec_leaves_alone(const struct pkt *p, __u32 pool_row)
{
	__u8 top = p->v6 ? p->dst.b[0] : p->dst.b[12];

	if (p->v6 ? top == 0xff : (top >> 4 == 0xe || top == 127))
		return true;
	if (p->v6 && !p->dst.d[0] && p->dst.d[1] == bpf_cpu_to_be64(1))
		return true;
	if (!p->v6 && p->dst.w[3] == 0xffffffff)
		return true;
	return lpm_find(&no_nat, pool_row, &p->dst);
}

static __always_inline int from_exec(struct __sk_buff *skb, struct work *w,
				     const struct sluice_conf *c)
{
	struct pkt *p = &w->p;
	bool answers =
		p->bad == NOT_BAD && p->kind == PKT_DATA && p->l4 == SLUICE_TCP && !tcp_opens(p);
	struct sluice_exec *e = exec_of(skb, c);
	struct sluice_flow_key *fk = &w->key;
	struct sluice_slice *sl;
	struct sluice_flow *f;
	__u32 pool_row;
	int step;

	/* A translated connection may outlive its socket, and then its packets have no control group. */
	if (!e && !(answers && sent_by_nobody(skb)))
		return VERDICT_PASS;
	p->now = now_get();
	if (answers) {
		f = fwd_find(fk, p, SLUICE_ZONE_LOCAL, eim_first(p));
		if (!f)
			f = fwd_find(fk, p, SLUICE_ZONE_LOCAL, !eim_first(p));
		if (!f)
			return VERDICT_PASS;
		sl = slice_row(f->slice);
		pool_row = sl ? sl->pool : 0;
		if (e && !e->protos)
			return verdict_drop(skb, p, pool_row, SLUICE_DROP_unleased);
		step = flow_out(skb, p, fk, f);
		if (step == STEP_NONE || step == SLUICE_DROP_no_flow)
			return VERDICT_PASS;
		if (step == STEP_OK)
			return leaves(skb, p, pool_row);
		return verdict_drop(skb, p, pool_row, step);
	}
	if (!e)
		return VERDICT_PASS;
	pool_row = e->pool;
	if (exec_leaves_alone(p, pool_row))
		return VERDICT_PASS;
	/* No protocol: its lease has ended before its processes. */
	if (p->v6 == addr_is_v4(&e->addr) || !e->protos)
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_unleased);
	if (p->bad != NOT_BAD)
		return verdict_drop(skb, p, pool_row, p->bad);
	if (p->kind != PKT_DATA && p->kind != PKT_ECHO)
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_proto);
	sl = slice_row(e->slice);
	if (sl && sl->state == SLUICE_SLICE_HELD && slice_fenced(sl, p->now.ns))
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_fenced);
	step = flow_new(skb, p, SLUICE_ZONE_LOCAL, pool_row, e->slice);
	if (step != STEP_OK)
		return verdict_drop(skb, p, pool_row, step);
	return leaves(skb, p, pool_row);
}

/*
 * Was it made in another network namespace? Its socket stands in tables that nobody looks into here, and an answer would not find it (macvlan and ipvlan on the
 * uplink; through everything else such a packet comes as a forwarded one). What the kernel sends by itself goes through sockets that are not of any namespace.
 */
static __always_inline bool from_elsewhere(struct __sk_buff *skb, const struct sluice_conf *c)
{
	/* What the helper tells of a packet is new in that version. */
	if (LINUX_KERNEL_VERSION < KERNEL_VERSION(6, 15, 0))
		return false;
	return c->netns_cookie && !sent_by_nobody(skb) &&
	       bpf_get_netns_cookie(skb) != c->netns_cookie;
}

/* The guard: packets of this machine's own that have a shared source. */
static __always_inline int from_socket(struct __sk_buff *skb, struct work *w)
{
	struct pkt *p = &w->p;
	struct sluice_addr_row *ar = bpf_map_lookup_elem(&addrs, &p->src);
	struct sluice_conf *c = conf_row();
	struct sluice_flow_key *fk = &w->key;
	struct sluice_pool_stats *st;
	struct sluice_slice *sl;
	struct sluice_pool *pool;
	struct sluice_flow *f;
	__u32 row, pool_row;
	bool eim, mixed, deny;
	int step, own = OWN_NONE;

	if (p->bad == NOT_BAD && p->kind == PKT_ICMP_ERROR) {
		p->now = now_get();
		step = error_made_here(skb, p);
		if (step != VERDICT_OPEN)
			return step;
	}
	if (p->frag == FRAG_LATER) {
		step = frag_later(skb, p, SLUICE_FRAG_LOCAL);
		if (step != FRAG_UNKNOWN)
			return step;
	}
	if (!ar)
		return c && c->execs ? from_exec(skb, w, c) : VERDICT_PASS;
	pool_row = ar->pool;
	if (p->bad != NOT_BAD)
		return verdict_drop(skb, p, pool_row, p->bad);
	if (p->kind == PKT_ND)
		return VERDICT_PASS;
	if (c && from_elsewhere(skb, c))
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_spoof);
	if (p->kind != PKT_DATA && p->kind != PKT_ECHO)
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_escape);
	row = ar->base + (bpf_ntohs(p->sport) >> (ar->shift & 15));
	sl = slice_row(row);
	pool = pool_of(pool_row);
	if (!sl || !pool || sl->state != SLUICE_SLICE_HELD)
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_escape);
	p->now = now_get();
	if (slice_fenced(sl, p->now.ns))
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_fenced);
	st = pool_stats_of(pool_row);
	deny = pool->unleased == SLUICE_UNLEASED_DENY;
	/* To report, a connection is looked at when it opens. */
	if ((deny ||
	     (pool->unleased == SLUICE_UNLEASED_REPORT && (p->l4 != SLUICE_TCP || tcp_opens(p)))) &&
	    !lease_permits(skb, p, row)) {
		if (report_due(skb, p)) {
			if (st)
				st->unleased++;
			if (!deny)
				event_send(skb, p, SLUICE_EVENT_UNLEASED, pool_row);
		}
		if (deny)
			return verdict_drop(skb, p, pool_row, SLUICE_DROP_unleased);
	}
	eim = pool->mapping[p->l4 & 3] == SLUICE_EIM;
	mixed = pool->mixed[p->l4 & 3];
	if (!eim || mixed)
		own = own_found(p);
	if (own == OWN_GO)
		return leaves(skb, p, pool_row);
	/* Moved before? Then go on so. Or a mark of a port: then it is not changed. */
	f = fwd_find(fk, p, SLUICE_ZONE_LOCAL, eim);
	if (!f && mixed)
		f = fwd_find(fk, p, SLUICE_ZONE_LOCAL, !eim);
	step = f ? flow_out(skb, p, fk, f) : STEP_NONE;
	if (step == STEP_OK)
		return leaves(skb, p, pool_row);
	if (step != STEP_NONE)
		return verdict_drop(skb, p, pool_row, step);
	if (own == OWN_NONE)
		own = own_claim(skb, p, row, sl, eim, mixed);
	if (own == OWN_GO)
		return leaves(skb, p, pool_row);
	if (own == OWN_FULL)
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_table_full);
	step = flow_new(skb, p, SLUICE_ZONE_LOCAL, pool_row, row);
	/* NAT's entry may be gone by now: it gives way when it sees the socket. */
	if (step == SLUICE_DROP_no_port && own_claim(skb, p, row, sl, eim, mixed) == OWN_GO)
		return leaves(skb, p, pool_row);
	if (step != STEP_OK)
		return verdict_drop(skb, p, pool_row, step);
	f = fwd_find(fk, p, SLUICE_ZONE_LOCAL, eim);
	/* Another CPU has just marked the port for the same socket. */
	if (f && f->port == p->sport)
		return leaves(skb, p, pool_row);
	p->moved = f ? f->port : 0;
	if (st)
		st->resolved++;
	event_send(skb, p, SLUICE_EVENT_RESOLVED, pool_row);
	return leaves(skb, p, pool_row);
}

#endif
