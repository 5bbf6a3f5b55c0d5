/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The uplink's TC programs, the only place where flows begin, and the sweep that ends them. See ARCHITECTURE.md,
 * "The data plane"; the map layouts are in sluice_abi.h.
 *
 *   uplink_egress    client packets: find or create the flow, put on the outer source
 *                    socket packets with a shared source: the guard
 *                    socket packets of "sluice exec" with another source: translate as well
 *   uplink_ingress   packets to a shared address: undo the translation, let through to sockets, or drop
 *   l3_egress, l3_ingress: the same for uplinks without a link-layer header (tun, WireGuard)
 *   sweep            run by the daemon: take dead flows out, note which ports are in use
 */
#include "guard.bpf.h"
#include "mss.bpf.h"
#include "out.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

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

/* Forwarded packets. */
static __always_inline int from_client(struct __sk_buff *skb, struct work *w)
{
	struct pkt *p = &w->p;
	bool translatable = p->bad == NOT_BAD && (p->kind == PKT_DATA || p->kind == PKT_ECHO);
	struct sluice_flow *f;
	__u32 *row, pool_row;
	int step;

	p->now = now_get();
	if (p->bad == NOT_BAD && p->kind == PKT_ICMP_ERROR)
		return error_forwarded(skb, p);
	if (translatable) {
		f = fwd_find(&w->key, p, SLUICE_ZONE_CLIENTS, eim_first(p));
		if (f) {
			struct sluice_slice *sl = slice_row(f->slice);

			pool_row = sl ? sl->pool : 0;
			step = flow_out(skb, p, &w->key, f);
			if (step == STEP_OK) {
				mss_of_pool(skb, p, &p->src, pool_row, false);
				return verdict_out(skb, pool_row);
			}
			if (step == STEP_PASS)
				return VERDICT_PASS;
			if (step != STEP_NONE)
				return verdict_drop(skb, p, pool_row, step);
		}
	}
	if (bpf_map_lookup_elem(&addrs, &p->src))
		return verdict_drop(skb, p, 0, SLUICE_DROP_spoof);
	row = lpm_find(&clients, 0, &p->src);
	if (!row)
		return VERDICT_PASS;
	pool_row = *row;
	if (lpm_find(&no_nat, pool_row, &p->dst))
		return VERDICT_PASS;
	if (p->bad != NOT_BAD)
		return verdict_drop(skb, p, pool_row, p->bad);
	if (!translatable)
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_icmp_type);
	step = flow_new(skb, p, SLUICE_ZONE_CLIENTS, pool_row, -1);
	if (step == STEP_PASS) /* no-nat has just been extended */
		return VERDICT_PASS;
	if (step != STEP_OK)
		return verdict_drop(skb, p, pool_row, step);
	mss_of_pool(skb, p, &p->src, pool_row, false);
	return verdict_out(skb, pool_row);
}

/* l3_off: where IP begins in the packets of this kind of interface, a constant. */
static __always_inline int egress(struct __sk_buff *skb, __u32 l3_off)
{
	struct work *w = work_row();

	if (!w)
		return VERDICT_DROP; /* there is one */
	switch (parse_skb(skb, l3_off, &w->p)) {
	case PARSE_NOT_IP:
		return VERDICT_PASS;
	case PARSE_SHORT: /* no memory: what cannot be judged does not leave */
		return verdict_drop(skb, &w->p, 0, SLUICE_DROP_rewrite);
	}
	return skb->ingress_ifindex ? from_client(skb, w) : from_socket(skb, w);
}

SEC("tc")
int uplink_egress(struct __sk_buff *skb)
{
	return egress(skb, ETH_HLEN);
}

/* The same for an uplink whose packets have no link-layer header. */
SEC("tc")
int l3_egress(struct __sk_buff *skb)
{
	return egress(skb, 0);
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
	charge = client_charge(&w->val.addr, w->val.zone, pool_row, CLIENT_STATE | SLUICE_TCP, p->now.ns);
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
		if (!(r->flags & SLUICE_FLOW_EIM) && (r->tcp & SLUICE_TCP_FIN)) {
			fwd_key_of(&w->fk, rk, r);
			f = bpf_map_lookup_elem(&fwd, &w->fk);
			peer = f ? f->tcp : 0;
		}
		/* The first RST starts the transitory time (RFC 6146 3.5.2.2); others must not prolong it (RFC 7857 2). */
		if (!(p->tcp & r->tcp & SLUICE_TCP_RST) && r->seen_s != now_s)
			r->seen_s = now_s;
		tcp_note(&r->tcp, peer, p->tcp);
	}
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

static __always_inline int ingress(struct __sk_buff *skb, __u32 l3_off)
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
	__u8 filtering;
	bool eim, kept;
	int step;

	if (!w)
		return VERDICT_DROP;
	p = &w->p;
	key = &w->key;
	switch (parse_skb(skb, l3_off, p)) {
	case PARSE_NOT_IP:
		return VERDICT_PASS;
	case PARSE_SHORT:
		return verdict_drop(skb, p, 0, SLUICE_DROP_rewrite);
	}
	ar = bpf_map_lookup_elem(&addrs, &p->dst);
	if (!ar)
		return VERDICT_PASS;
	pool_row = ar->pool;
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
	__builtin_memset(key, 0, sizeof(*key));
	key->src = p->src;
	key->sport = p->sport;
	key->dst = p->dst;
	key->dport = p->dport;
	key->proto = p->proto;
	eim = pool->mapping[p->l4 & 3] == SLUICE_EIM;
	filtering = pool->filtering[p->l4 & 3];
	r = rev_find(w, eim, filtering);
	if (!r && pool->mixed[p->l4 & 3])
		r = rev_find(w, !eim, filtering);
	if (r && (r->flags & SLUICE_FLOW_OWN)) {
		own_back(r, p);
		/* The kernel's look-ups do not know of sockets for pings. It answers nothing to a reply. */
		if (p->kind == PKT_ECHO_REPLY)
			return verdict_in(skb, pool_row);
		r = NULL;
	} else if (p->kind == PKT_ICMP_ERROR) {
		if (r) {
			step = error_in(skb, p, r);
			return step == STEP_OK ? verdict_in(skb, pool_row)
					       : verdict_drop(skb, p, pool_row, step);
		}
	} else if (!r && p->l4 == SLUICE_TCP) {
		if (session_in(p, key, pool_row, p->now.s))
			r = bpf_map_lookup_elem(&rev, key);
	}
	if (r) {
		step = flow_in(skb, p, key, r, p->now.s);
		if (step != STEP_OK)
			return verdict_drop(skb, p, pool_row, step);
		mss_of_pool(skb, p, &r->addr, pool_row, true);
		return verdict_in(skb, pool_row);
	}
	if (sock_takes(skb, p, key))
		return verdict_in(skb, pool_row);
	lease = lease_of(sl, &p->dst, p->dport, p->proto, &kept);
	if (lease && lease->steer && sock_steered(skb, p, lease->steer - 1))
		return verdict_in(skb, pool_row);
	b = eim ? block_of(sl, p->proto, p->dport, &bit) : NULL;
	return verdict_drop(skb, p, pool_row,
			    b && (b->bits >> bit & 1) ? SLUICE_DROP_filtered
						      : SLUICE_DROP_unsolicited);
}

SEC("tc")
int uplink_ingress(struct __sk_buff *skb)
{
	return ingress(skb, ETH_HLEN);
}

SEC("tc")
int l3_ingress(struct __sk_buff *skb)
{
	return ingress(skb, 0);
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
	out->now_s = s.now_s;
	out->seen = s.seen;
	out->reclaimed = s.reclaimed;
	for (int i = 0; i < 4; i++)
		out->flows[i] = s.flows[i];
	c->swept_s = s.now_s;
	return 0;
}
