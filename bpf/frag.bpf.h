/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Datagrams in pieces. The first piece has the ports, is judged as any packet, and leaves in map "frags" what it was given, for the others. A piece that comes
 * before it is copied into map "frag_hold" and dropped; when the first has come, the program turns it into each of them in turn and sends them through itself
 * once more, behind the first. All is bounded: datagrams, pieces that wait, their bytes, and 15 seconds from the first piece that came.
 *
 * A row that is complete goes: identifications come again soon where much is sent, and what comes for it then is another datagram's. A first piece that is no
 * duplicate begins anew even before that.
 *
 * Another CPU may store a piece in the very moment in which the first is translated. Either it sees that and takes its piece back (frag_wait), or the first
 * one's CPU sees the piece (frag_settle): both write before they look.
 */
#ifndef FRAG_BPF_H
#define FRAG_BPF_H

#include "ident.bpf.h"
#include "rewrite.bpf.h"

#define FRAG_HELD_MAX 64   /* pieces of one datagram that wait: all of 64 KiB in Ethernet's size */
#define FRAG_UNKNOWN  1000 /* instead of a verdict */

struct frag_work {
	struct sluice_frag_hold_key key; /* .of is the key of frags */
	struct sluice_frag val;
	union sluice_addr addr; /* that the packet has now */
	__be32 id;              /* and what it is to be identified by */
	__u32 pad;
};

/* Used as the work row is, and like it not to be read after bpf_clone_redirect(). */
CPU_ROWS(frag_work, struct frag_work, 1);
CPU_ROWS(frag_in, struct sluice_frag_held, 1);
CPU_ROWS(frag_own, struct sluice_frag_held, 1);

struct sluice_frag_room {
	__u32 freed;    /* rows that were taken out, ever */
	__u32 futile_s; /* when a search for room found none: one in a second is enough then */
};
ROWS(frag_room, struct sluice_frag_room, 1, 0);

static __always_inline struct frag_work *frag_work_row(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&frag_work, &zero);
}

/* Which datagram is it? Whose source that is says the interface that it came by. */
static __always_inline void frag_key(struct sluice_frag_key *k, struct __sk_buff *skb,
				     const struct pkt *p, __u8 way)
{
	struct sluice_conf *c = conf_row();
	__u32 ifindex = skb->ingress_ifindex;
	__u16 *zone = NULL;

	if (way == SLUICE_FRAG_OUT && c && c->zones)
		zone = bpf_map_lookup_elem(&zones, &ifindex);
	k->src = p->src;
	k->dst = p->dst;
	k->id = p->frag_id;
	k->proto = p->v6 ? 0 : p->proto;
	k->way = way;
	k->zone = zone ? *zone : 0;
}

static __always_inline bool frag_over(__u32 since_s, __u32 now_s)
{
	return now_s - since_s > SLUICE_FRAG_S;
}

/* Counts stand in maps: the verifier would tell each number of a count of its own from all others. */
struct frag_sweep {
	struct sluice_frag_room *room;
	__u32 now_s;
};

static long frag_sweep_row(void *map, struct sluice_frag_key *key, struct sluice_frag *f,
			   struct frag_sweep *s)
{
	struct sluice_frag_key k = *key;

	if (frag_over(f->seen_s, s->now_s) && !bpf_map_delete_elem(map, &k))
		__sync_fetch_and_add(&s->room->freed, 1);
	return 0;
}

static __always_inline void frag_late(__u32 len)
{
	__u32 reason = SLUICE_DROP_frag_late;
	struct sluice_count *c = bpf_map_lookup_elem(&drops, &reason);

	if (!c)
		return;
	__sync_fetch_and_add(&c->packets, 1);
	__sync_fetch_and_add(&c->bytes, len);
}

static long frag_sweep_held(void *map, struct sluice_frag_hold_key *key, struct sluice_frag_held *h,
			    struct frag_sweep *s)
{
	struct sluice_frag_hold_key k = *key;

	if (!frag_over(h->seen_s, s->now_s))
		return 0;
	if (__sync_val_compare_and_swap(&h->live, 1, 0) == 1)
		frag_late(h->len);
	if (!bpf_map_delete_elem(map, &k))
		__sync_fetch_and_add(&s->room->freed, 1);
	return 0;
}

/* Take out what is over; wanted: somebody wants room. True: there is some now. The daemon's sweep does it as well. */
GLOBAL bool frag_sweep(__u32 now_s, bool wanted)
{
	struct frag_sweep s = { .now_s = now_s };
	__u32 zero = 0, freed;

	s.room = bpf_map_lookup_elem(&frag_room, &zero);
	if (!s.room || (wanted && s.room->futile_s == now_s))
		return false;
	freed = *(volatile __u32 *)&s.room->freed;
	bpf_for_each_map_elem(&frags, frag_sweep_row, &s, 0);
	bpf_for_each_map_elem(&frag_hold, frag_sweep_held, &s, 0);
	if (*(volatile __u32 *)&s.room->freed != freed)
		return true;
	if (wanted)
		s.room->futile_s = now_s;
	return false;
}

static __always_inline struct sluice_frag *frag_find(const struct frag_work *w, __u32 now_s)
{
	struct sluice_frag *f = bpf_map_lookup_elem(&frags, &w->key.of);

	if (!f || !frag_over(f->seen_s, now_s))
		return f;
	bpf_map_delete_elem(&frags, &w->key.of);
	return NULL;
}

/* NULL: no room. */
static __always_inline struct sluice_frag *frag_make(struct frag_work *w, __u32 state, __u32 now_s)
{
	struct sluice_frag *f = frag_find(w, now_s);
	int err;

	if (f)
		return f;
	__builtin_memset(&w->val, 0, sizeof(w->val));
	w->val.state = state;
	w->val.seen_s = now_s;
	err = bpf_map_update_elem(&frags, &w->key.of, &w->val, BPF_NOEXIST);
	if (err && err != -EEXIST && frag_sweep(now_s, true))
		bpf_map_update_elem(&frags, &w->key.of, &w->val, BPF_NOEXIST);
	return bpf_map_lookup_elem(&frags, &w->key.of);
}

/* The piece passes. If it was the last that was missing, the row goes. */
static __always_inline void frag_count(const struct frag_work *w, struct sluice_frag *f,
				       const struct pkt *p)
{
	__u32 unit = p->frag_at >> 8;
	__u64 bit = 1ULL << (unit & 63);

	if (!(__sync_fetch_and_or(&f->units[unit >> 6 & 3], bit) & bit))
		__sync_fetch_and_add(&f->bytes, p->frag_len);
	if (!p->frag_more)
		f->total = p->frag_at + p->frag_len;
	if (f->total && f->bytes >= f->total)
		bpf_map_delete_elem(&frags, &w->key.of);
}

/*
 * The first piece has been judged, and passes: note what it was given. w->addr: the address that it has now. Afterwards w->id is the datagram's
 * identification; keep_id: its own. False: there is no room.
 */
static __always_inline bool frag_begin(struct frag_work *w, struct __sk_buff *skb,
				       const struct pkt *p, __u8 way, __u32 slice, bool keep_id)
{
	struct sluice_slice *sl = slice_row(slice);
	struct sluice_frag *f;
	bool again;

	frag_key(&w->key.of, skb, p, way);
	f = sl ? frag_make(w, SLUICE_FRAG_BEGUN, p->now.s) : NULL;
	if (!f)
		return false;
	again = f->state == SLUICE_FRAG_READY && f->sport == p->sport && f->dport == p->dport;
	if (!again) {
		if (f->state >= SLUICE_FRAG_READY) {
			f->units[0] = f->units[1] = f->units[2] = f->units[3] = 0;
			f->bytes = 0;
			f->total = 0;
			f->seen_s = p->now.s;
		}
		f->id = keep_id ? p->frag_id : ident_new(skb, p, sl);
		f->sport = p->sport;
		f->dport = p->dport;
	}
	f->addr = w->addr;
	f->slice = slice;
	f->epoch = sl->epoch;
	w->id = f->id;
	__sync_lock_test_and_set(&f->state, SLUICE_FRAG_READY);
	frag_count(w, f, p);
	return true;
}

/* A first piece was dropped. The others need not wait then; what comes from outside gets no row for it. */
GLOBAL int frag_refuse(struct __sk_buff *skb, const struct pkt *p, __u8 way)
{
	struct frag_work *w = frag_work_row();
	struct sluice_frag *f;

	if (!p || !w)
		return 0;
	frag_key(&w->key.of, skb, p, way);
	/* Nor does a forged source. */
	if (way == SLUICE_FRAG_OUT && bpf_map_lookup_elem(&addrs, &w->key.of.src))
		return 0;
	f = way == SLUICE_FRAG_IN ? frag_find(w, now_get().s)
				  : frag_make(w, SLUICE_FRAG_REFUSED, now_get().s);
	if (f)
		__sync_lock_test_and_set(&f->state, SLUICE_FRAG_REFUSED);
	return 0;
}

static __always_inline int frag_rewrite(struct __sk_buff *skb, const struct pkt *p, bool source,
					const union sluice_addr *from, const union sluice_addr *to)
{
	__u32 off = p->l3_off;

	if (addr_eq(from, to))
		return 0;
	if (p->v6) {
		off += source ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr);
		return bpf_skb_store_bytes(skb, off, to, sizeof(*to), BPF_F_RECOMPUTE_CSUM);
	}
	off += source ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr);
	if (bpf_l3_csum_replace(skb, p->l3_off + offsetof(struct iphdr, check), from->w[3],
				to->w[3], sizeof(__be32)))
		return -1;
	return bpf_skb_store_bytes(skb, off, &to->w[3], sizeof(__be32), 0);
}

/* A later piece: do with it as was done with the first. A verdict, or FRAG_UNKNOWN: the first has not come. */
GLOBAL int frag_later(struct __sk_buff *skb, const struct pkt *p, __u8 way)
{
	struct frag_work *w = frag_work_row();
	struct sluice_slice *sl;
	struct sluice_frag *f;
	struct now now = now_get();
	bool out = way != SLUICE_FRAG_IN;
	__u32 state;

	if (!p || !w || p->bad == SLUICE_DROP_malformed)
		return FRAG_UNKNOWN;
	frag_key(&w->key.of, skb, p, way);
	f = frag_find(w, now.s);
	state = f ? *(volatile __u32 *)&f->state : SLUICE_FRAG_WAITING;
	if (!f || state < SLUICE_FRAG_READY)
		return FRAG_UNKNOWN;
	sl = slice_row(f->slice);
	if (state == SLUICE_FRAG_REFUSED || !sl || sl->state != SLUICE_SLICE_HELD ||
	    sl->epoch != f->epoch)
		return verdict_drop(skb, p, sl ? sl->pool : 0, SLUICE_DROP_fragment);
	if (slice_fenced(sl, now.ns))
		return verdict_drop(skb, p, sl->pool, SLUICE_DROP_fenced);
	w->addr = f->addr;
	w->id = f->id;
	frag_count(w, f, p);
	if (frag_rewrite(skb, p, out, out ? &p->src : &p->dst, &w->addr) ||
	    (out && ident_write(skb, p, w->id)))
		return verdict_drop(skb, p, sl->pool, SLUICE_DROP_rewrite);
	return out ? verdict_out(skb, sl->pool) : verdict_in(skb, sl->pool);
}

/* A later piece that is ours to judge, and whose first has not come: keep its bytes. The packet itself is dropped, which is not counted. */
GLOBAL int frag_wait(struct __sk_buff *skb, const struct pkt *p, __u8 way, __u32 pool)
{
	struct frag_work *w = frag_work_row();
	__u32 zero = 0, now_s = now_get().s, len = skb->len, n;
	struct sluice_frag_held *h = bpf_map_lookup_elem(&frag_in, &zero);
	struct sluice_frag *f;
	int err;

	if (!p || !w || !h)
		return VERDICT_DROP;
	frag_key(&w->key.of, skb, p, way);
	f = frag_make(w, SLUICE_FRAG_WAITING, now_s);
	if (!f)
		return verdict_drop(skb, p, pool, SLUICE_DROP_frag_full);
	n = __sync_fetch_and_add(&f->held, 1);
	h->seen_s = now_s;
	h->len = len;
	h->live = 1;
	len = LESS_ONE(len);
	if (n >= FRAG_HELD_MAX || len >= SLUICE_FRAG_LEN ||
	    bpf_skb_load_bytes(skb, 0, h->bytes, len + 1))
		return verdict_drop(skb, p, pool, SLUICE_DROP_frag_full);
	w->key.n = n;
	err = bpf_map_update_elem(&frag_hold, &w->key, h, BPF_ANY);
	if (err && frag_sweep(now_s, true))
		err = bpf_map_update_elem(&frag_hold, &w->key, h, BPF_ANY);
	if (err)
		return verdict_drop(skb, p, pool, SLUICE_DROP_frag_full);
	/* Has the first come meanwhile? Then nobody may be left who replays this one. */
	if (__sync_fetch_and_add(&f->state, 0) < SLUICE_FRAG_READY)
		return VERDICT_DROP;
	h = bpf_map_lookup_elem(&frag_hold, &w->key);
	if (!h || __sync_val_compare_and_swap(&h->live, 1, 0) != 1)
		return VERDICT_DROP;
	bpf_map_delete_elem(&frag_hold, &w->key);
	err = frag_later(skb, p, way);
	return err == FRAG_UNKNOWN ? verdict_drop(skb, p, pool, SLUICE_DROP_frag_late) : err;
}

struct frag_replay {
	struct __sk_buff *skb;
	struct sluice_frag_hold_key key;
	__u64 flags;
	__u32 ifindex, now_s, from;
};

static long frag_replay_one(__u32 i, struct frag_replay *r)
{
	struct sluice_frag *f = bpf_map_lookup_elem(&frags, &r->key.of);
	struct __sk_buff *skb = r->skb;
	struct sluice_frag_held *h;
	__u32 len;

	r->key.n = r->from + i;
	if (!f || r->key.n >= *(volatile __u32 *)&f->held)
		return 1;
	h = bpf_map_lookup_elem(&frag_hold, &r->key);
	if (!h || frag_over(h->seen_s, r->now_s) ||
	    __sync_val_compare_and_swap(&h->live, 1, 0) != 1)
		return 0;
	len = LESS_ONE(h->len);
	/* Another length in between: then nothing stays of a checksum over all bytes that the device has told. */
	if (len < SLUICE_FRAG_LEN && !bpf_skb_change_tail(skb, len + 2, 0) &&
	    !bpf_skb_change_tail(skb, len + 1, 0) &&
	    !bpf_skb_store_bytes(skb, 0, h->bytes, len + 1, BPF_F_INVALIDATE_HASH))
		bpf_clone_redirect(skb, r->ifindex, r->flags);
	bpf_map_delete_elem(&frag_hold, &r->key);
	return 0;
}

/*
 * A first piece that others wait for, still as it came: send a copy of it through the program, and then those. True: done, and the packet itself, which is
 * another one by now, is to be dropped. At egress the copies are judged before bpf_clone_redirect() returns, at ingress afterwards.
 */
GLOBAL bool frag_replay(struct __sk_buff *skb, const struct pkt *p, __u8 way)
{
	struct frag_replay r = { .skb = skb };
	struct sluice_frag *f;
	__u32 held;
	int err;

	if (!p)
		return false;
	frag_key(&r.key.of, skb, p, way);
	r.now_s = now_get().s;
	r.ifindex = skb->ifindex;
	r.flags = way == SLUICE_FRAG_IN ? BPF_F_INGRESS : 0;
	f = bpf_map_lookup_elem(&frags, &r.key.of);
	if (!f || frag_over(f->seen_s, r.now_s))
		return false;
	if (__sync_val_compare_and_swap(&f->state, SLUICE_FRAG_WAITING, SLUICE_FRAG_BEGUN) !=
	    SLUICE_FRAG_WAITING)
		return false;
	held = *(volatile __u32 *)&f->held;
	r.from = f->replayed;
	if (r.from == held || r.from >= FRAG_HELD_MAX)
		return false;
	f->replayed = held;
	err = bpf_clone_redirect(skb, r.ifindex, r.flags);
	/* Positive: it was dropped, at egress by ourselves perhaps. */
	if (err < 0 || (err && way == SLUICE_FRAG_IN))
		return false;
	bpf_loop(FRAG_HELD_MAX, frag_replay_one, &r, 0);
	return true;
}

/*
 * A first piece has been translated, or passes as it is. Others may have begun to wait for it meanwhile: the packet is turned into each of them for a moment. False: it
 * could not be turned back, and must be dropped. Nothing in per-CPU rows stays as it was.
 */
GLOBAL bool frag_settle(struct __sk_buff *skb, const struct pkt *p, __u8 way)
{
	struct frag_replay r = { .skb = skb };
	__u32 zero = 0, held, len = LESS_ONE(skb->len);
	struct sluice_frag_held *own = bpf_map_lookup_elem(&frag_own, &zero);
	struct sluice_frag *f;

	if (!p || !own)
		return true;
	frag_key(&r.key.of, skb, p, way);
	f = bpf_map_lookup_elem(&frags, &r.key.of);
	if (!f || __sync_fetch_and_add(&f->state, 0) != SLUICE_FRAG_READY)
		return true;
	held = *(volatile __u32 *)&f->held;
	r.from = f->replayed;
	if (r.from >= held || r.from >= FRAG_HELD_MAX || len >= SLUICE_FRAG_LEN ||
	    bpf_skb_load_bytes(skb, 0, own->bytes, len + 1))
		return true;
	f->replayed = held;
	r.now_s = now_get().s;
	r.ifindex = skb->ifindex;
	r.flags = way == SLUICE_FRAG_IN ? BPF_F_INGRESS : 0;
	bpf_loop(FRAG_HELD_MAX, frag_replay_one, &r, 0);
	return !bpf_skb_change_tail(skb, len + 2, 0) && !bpf_skb_change_tail(skb, len + 1, 0) &&
	       !bpf_skb_store_bytes(skb, 0, own->bytes, len + 1, 0);
}

/* What has just been given its shared source, or keeps it: its identification, and its row if it is a first piece. A verdict. */
GLOBAL int leave(struct __sk_buff *skb, const struct pkt *p, __u32 pool_row)
{
	struct frag_work *w = frag_work_row();
	struct sluice_pool *pool = pool_of(pool_row);
	struct sluice_addr_row *ar;
	struct sluice_slice *sl;
	__be16 port = 0;
	__u32 row, off;
	int err;

	if (!p || !w || !pool)
		return verdict_out(skb, pool_row);
	off = p->proto == IPPROTO_ICMP || p->proto == IPPROTO_ICMPV6
		      ? p->l4_off + offsetof(struct icmp_hdr, id)
		      : p->l4_off;
	err = bpf_skb_load_bytes(skb, off, &port, sizeof(port));
	if (p->v6) {
		err |= bpf_skb_load_bytes(skb, p->l3_off + offsetof(struct ipv6hdr, saddr),
					  &w->addr, sizeof(w->addr));
	} else {
		addr_set_v4(&w->addr, 0);
		err |= bpf_skb_load_bytes(skb, p->l3_off + offsetof(struct iphdr, saddr),
					  &w->addr.w[3], sizeof(__be32));
	}
	ar = err ? NULL : bpf_map_lookup_elem(&addrs, &w->addr);
	row = ar ? ar->base + (bpf_ntohs(port) >> (ar->shift & 15)) : 0;
	sl = ar ? slice_row(row) : NULL;
	if (!sl)
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_rewrite);
	if (p->frag) {
		if (!frag_begin(w, skb, p,
				skb->ingress_ifindex ? SLUICE_FRAG_OUT : SLUICE_FRAG_LOCAL, row,
				pool->id_mode == SLUICE_ID_KEEP))
			return verdict_drop(skb, p, pool_row, SLUICE_DROP_frag_full);
		err = ident_write(skb, p, w->id);
	} else if (pool->id_mode == SLUICE_ID_SLICE) {
		err = ident_write(skb, p, ident_new(skb, p, sl));
	} else if (pool->id_mode == SLUICE_ID_SET_DF) {
		err = ident_set_df(skb, p);
	}
	if (err)
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_rewrite);
	return verdict_out(skb, pool_row);
}

/* The same of a first piece that arrives, and goes to a client or a socket. */
GLOBAL int enter(struct __sk_buff *skb, const struct pkt *p, __u32 pool_row)
{
	struct frag_work *w = frag_work_row();
	struct sluice_addr_row *ar;
	int err;

	if (!p || !w)
		return verdict_in(skb, pool_row);
	w->addr = p->dst;
	ar = bpf_map_lookup_elem(&addrs, &w->addr);
	if (p->v6)
		err = bpf_skb_load_bytes(skb, p->l3_off + offsetof(struct ipv6hdr, daddr), &w->addr,
					 sizeof(w->addr));
	else
		err = bpf_skb_load_bytes(skb, p->l3_off + offsetof(struct iphdr, daddr),
					 &w->addr.w[3], sizeof(__be32));
	if (err || !ar)
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_rewrite);
	if (!frag_begin(w, skb, p, SLUICE_FRAG_IN,
			ar->base + (bpf_ntohs(p->dport) >> (ar->shift & 15)), true))
		return verdict_drop(skb, p, pool_row, SLUICE_DROP_frag_full);
	return verdict_in(skb, pool_row);
}

/* What a main program does last with a first piece. Returns its verdict. */
static __always_inline int frag_end(struct __sk_buff *skb, const struct pkt *p, __u8 way,
				    int verdict)
{
	if (verdict == VERDICT_DROP)
		frag_refuse(skb, p, way);
	else if (!frag_settle(skb, p, way))
		return verdict_drop(skb, p, 0, SLUICE_DROP_rewrite);
	return verdict;
}

/* Every packet that leaves with a shared source goes this way: a verdict. */
static __always_inline int leaves(struct __sk_buff *skb, const struct pkt *p, __u32 pool_row)
{
	return p->frag || !(p->v6 || p->df) ? leave(skb, p, pool_row) : verdict_out(skb, pool_row);
}

/* And every one that arrives and goes on. */
static __always_inline int enters(struct __sk_buff *skb, const struct pkt *p, __u32 pool_row)
{
	return p->frag ? enter(skb, p, pool_row) : verdict_in(skb, pool_row);
}

#endif
