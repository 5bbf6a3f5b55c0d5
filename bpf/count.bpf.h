/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Verdicts, counters, events. Every way out of a program goes through verdict_pass() or verdict_drop(). */
#ifndef COUNT_BPF_H
#define COUNT_BPF_H

#include <linux/pkt_cls.h>

#include "work.bpf.h"

/*
 * Functions marked GLOBAL are verified once, by themselves, and not again for each call; in return they may not trust a
 * pointer to be there, and take no context in disguise. Without them the programs would be too large to verify.
 */
#define GLOBAL __noinline

/*
 * Functions that pass on a pointer to a key are verified with each call: before 6.2 a key of a map may not lie where the
 * verifier knows no more than that it is memory, which is all it knows of an argument of a GLOBAL function.
 */
#define KEYED static __noinline

/*
 * A size less one, for helpers that want a size that is known to be more than zero: below a bound, and plus one, it is. Verifiers before 6.8 learn nothing
 * from n != 0.
 */
#define LESS_ONE(n)                                 \
	({                                          \
		__u32 less_one_ = (n)-1;            \
		asm volatile("" : "+r"(less_one_)); \
		less_one_;                          \
	})

/* Pass to whatever else is attached (TCX_NEXT and TC_ACT_UNSPEC are both -1). */
#define VERDICT_PASS TC_ACT_UNSPEC
#define VERDICT_DROP TC_ACT_SHOT

static __always_inline struct now now_get(void)
{
	struct now now = { .ns = bpf_ktime_get_boot_ns() };

	now.s = now.ns / 1000000000ULL;
	return now;
}

static __always_inline struct sluice_pool_stats *pool_stats_of(__u32 pool)
{
	return bpf_map_lookup_elem(&pool_stats, &pool);
}

/* The inner end of the flow that has the tuple of the packet in hand; zero: not known. */
struct rival {
	union sluice_addr addr;
	__be16 port;
	__u16 pad[3];
};

CPU_ROWS(rivals, struct rival, 1);

static __always_inline struct rival *rival_row(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&rivals, &zero);
}

/* True if this CPU may send one more event of the row's kind in this second. */
static __always_inline bool event_allowed(__u32 row, __u32 now_s)
{
	struct sluice_event_stats *es = bpf_map_lookup_elem(&event_stats, &row);
	struct sluice_conf *c;
	__u32 zero = 0;

	c = bpf_map_lookup_elem(&conf, &zero);
	if (!es || !c)
		return false;
	if (es->window_s != now_s) {
		es->window_s = now_s;
		es->in_window = 0;
	}
	if (es->in_window >= c->event_rate) {
		es->limited++;
		return false;
	}
	es->in_window++;
	return true;
}

static __always_inline struct sluice_conf *conf_row(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&conf, &zero);
}

/* Where the packets of the interface begin that this one is at: behind an Ethernet header, or with IP. */
static __always_inline __u32 l3_off(struct __sk_buff *skb)
{
	struct sluice_conf *c = conf_row();
	__u32 ifindex = skb->ifindex;

	return c && c->l3_links && bpf_map_lookup_elem(&l3_links, &ifindex) ? 0 : ETH_HLEN;
}

/* Whose socket sent the packet? */
static __always_inline void event_owner(struct __sk_buff *skb, struct sluice_event *e)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	struct sluice_owner *o;

	if (!cookie)
		return;
	e->cookie = cookie;
	o = bpf_map_lookup_elem(&owners, &cookie);
	if (o)
		e->owner = *o;
	else
		e->owner.uid = bpf_get_socket_uid(skb);
}

/* row: of map event_stats: a kind, or SLUICE_EVENT_MAX + a reason to drop. */
GLOBAL int event_send(struct __sk_buff *skb, const struct pkt *p, __u32 row, __u32 pool)
{
	struct sluice_event_stats *es;
	struct now now = now_get();
	struct sluice_event *e;
	__u32 n;

	if (!p || !event_allowed(row, now.s))
		return 0;
	es = bpf_map_lookup_elem(&event_stats, &row);
	if (!es)
		return 0;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		es->lost++;
		return 0;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->time_ns = now.ns;
	e->kind = row < SLUICE_EVENT_MAX ? row : SLUICE_EVENT_DROP;
	e->reason = row < SLUICE_EVENT_MAX ? 0 : row - SLUICE_EVENT_MAX;
	e->ifindex = skb->ingress_ifindex;
	e->pool = pool;
	e->key.src = p->src;
	e->key.dst = p->dst;
	e->key.sport = p->sport;
	e->key.dport = p->dport;
	e->key.proto = p->proto;
	e->outer_port = p->moved;
	if (row == SLUICE_EVENT_RESOLVED) {
		const struct rival *rv = rival_row();

		if (rv) {
			e->owner_src = rv->addr;
			e->owner_sport = rv->port;
		}
	}
	if (!e->ifindex)
		event_owner(skb, e);
	n = p->len > p->l3_off ? p->len - p->l3_off : 0;
	if (n >= SLUICE_EVENT_SNAP)
		n = SLUICE_EVENT_SNAP;
	n = LESS_ONE(n);
	if (n < SLUICE_EVENT_SNAP && !bpf_skb_load_bytes(skb, p->l3_off, e->snap, n + 1))
		e->snap_len = n + 1;
	bpf_ringbuf_submit(e, 0);
	es->sent++;
	return 0;
}

/* Reasons that somebody may want to be told of; the rest can be caused at will from outside. */
static __always_inline bool reason_is_event(__u32 reason)
{
	switch (reason) {
	case SLUICE_DROP_escape:
	case SLUICE_DROP_spoof:
	case SLUICE_DROP_fenced:
	case SLUICE_DROP_no_port:
	case SLUICE_DROP_no_slice:
	case SLUICE_DROP_table_full:
	case SLUICE_DROP_client_ports:
	case SLUICE_DROP_client_states:
	case SLUICE_DROP_client_rate:
	case SLUICE_DROP_unleased:
		return true;
	}
	return false;
}

static __always_inline int verdict_drop(struct __sk_buff *skb, const struct pkt *p, __u32 pool,
					__u32 reason)
{
	struct sluice_count *c = bpf_map_lookup_elem(&drops, &reason);

	if (c) {
		c->packets++;
		c->bytes += skb->len;
	}
	if (reason_is_event(reason))
		event_send(skb, p, SLUICE_EVENT_MAX + reason, pool);
	return VERDICT_DROP;
}

static __always_inline int verdict_out(struct __sk_buff *skb, __u32 pool)
{
	struct sluice_pool_stats *st = pool_stats_of(pool);

	if (st) {
		st->out.packets += skb->gso_segs ?: 1;
		st->out.bytes += skb->len;
	}
	return VERDICT_PASS;
}

static __always_inline int verdict_in(struct __sk_buff *skb, __u32 pool)
{
	struct sluice_pool_stats *st = pool_stats_of(pool);

	if (st) {
		st->in.packets += skb->gso_segs ?: 1;
		st->in.bytes += skb->len;
	}
	return VERDICT_PASS;
}

#endif
