/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Finding a port. Exact: it fails only when every port that could serve has been looked at and is taken.
 * Overload: the rev entry, inserted with BPF_NOEXIST, is the arbiter between CPUs. Endpoint-independent: a bit of
 * the block's word, set by compare-and-swap. In both, the tuple is claimed first and the kernel asked for a socket afterwards: a socket
 * that connects meanwhile either is seen here, or finds our claim in the guard. Ports under lease are passed over; who is first is settled as struct
 * sluice_block says.
 */
#ifndef ALLOC_BPF_H
#define ALLOC_BPF_H

#include "flow.bpf.h"
#include "sock.bpf.h"

enum alloc_result {
	ALLOC_FULL,
	ALLOC_OK,
	ALLOC_TABLE,
	ALLOC_NO_SLICE,
};

/*
 * Too large for the 512 bytes of stack that all frames of a program share, so it stands in a per-CPU row. TC programs run
 * with bottom halves off: nothing else uses the row meanwhile.
 */
struct alloc {
	struct sluice_flow_key fk; /* the inner end's */
	struct sluice_flow_key rk;
	struct sluice_flow val;
	struct sluice_flow_key own_key, own_rev; /* EIM: of a socket's own mark */
	struct sluice_full_key full_key;
	struct sluice_full full_val;
	__u64 now_ns;
	__u64 skip; /* EIM: ports of this block that a socket has */
	__u32 now_s;
	__u32 start;       /* random: where in a slice to begin */
	__u32 slice_start; /* which slice to begin with */
	__u32 held_base, held_n;
	__u32 first, nports, block_base;
	__u32 block, visited; /* EIM */
	__u32 result, fence;
	__u32 pair; /* 1 + first row of the only address to look at; 0: all */
	int charge; /* what client_charge() said */
	__u16 pool;
	__u8 l4;
	__u8 eim;
};

CPU_ROWS(scratch, struct alloc, 1);

/* What the loops' callbacks get: a context cannot be kept in a map. */
struct alloc_loop {
	struct __sk_buff *skb;
	struct alloc *a;
};

#define SIP_ROUND(v0, v1, v2, v3)                \
	do {                                     \
		v0 += v1;                        \
		v1 = (v1 << 13 | v1 >> 51) ^ v0; \
		v0 = v0 << 32 | v0 >> 32;        \
		v2 += v3;                        \
		v3 = (v3 << 16 | v3 >> 48) ^ v2; \
		v0 += v3;                        \
		v3 = (v3 << 21 | v3 >> 43) ^ v0; \
		v2 += v1;                        \
		v1 = (v1 << 17 | v1 >> 47) ^ v2; \
		v2 = v2 << 32 | v2 >> 32;        \
	} while (0)

/* SipHash-1-3 (Aumasson, Bernstein 2012) of three words, keyed by the load's secret. */
GLOBAL __u64 keyed_hash(__u64 a, __u64 b, __u64 c)
{
	__u64 k0 = secret[0], k1 = secret[1];
	__u64 v0 = k0 ^ 0x736f6d6570736575ULL, v1 = k1 ^ 0x646f72616e646f6dULL;
	__u64 v2 = k0 ^ 0x6c7967656e657261ULL, v3 = k1 ^ 0x7465646279746573ULL;
	const __u64 end = 24ULL << 56;

	v3 ^= a;
	SIP_ROUND(v0, v1, v2, v3);
	v0 ^= a;
	v3 ^= b;
	SIP_ROUND(v0, v1, v2, v3);
	v0 ^= b;
	v3 ^= c;
	SIP_ROUND(v0, v1, v2, v3);
	v0 ^= c;
	v3 ^= end;
	SIP_ROUND(v0, v1, v2, v3);
	v0 ^= end;
	v2 ^= 0xff;
	SIP_ROUND(v0, v1, v2, v3);
	SIP_ROUND(v0, v1, v2, v3);
	SIP_ROUND(v0, v1, v2, v3);
	return v0 ^ v1 ^ v2 ^ v3;
}

static __always_inline __u32 lowest_bit(__u64 w)
{
	__u32 n = 0;

	if (!(w & 0xffffffffULL)) {
		n += 32;
		w >>= 32;
	}
	if (!(w & 0xffff)) {
		n += 16;
		w >>= 16;
	}
	if (!(w & 0xff)) {
		n += 8;
		w >>= 8;
	}
	if (!(w & 0xf)) {
		n += 4;
		w >>= 4;
	}
	if (!(w & 3)) {
		n += 2;
		w >>= 2;
	}
	return n + !(w & 1);
}

/* With full ordering, which only the form of the instruction that fetches the old value has: the move keeps it from being optimized away. */
static __always_inline void port_count_get(__u32 *n)
{
	__u32 was = __sync_fetch_and_add(n, 1);

	asm volatile("%0 = %0" : "+r"(was));
}

/*
 * The i-th of n places to look at: from start on round the first three quarters, then the last one from its beginning. NAT would otherwise be spread over all
 * of a slice, and a lease of some ports in a row would hardly ever fit. When the rest is in use, NAT takes the last quarter as well.
 */
static __always_inline __u32 visit(__u32 start, __u32 i, __u32 n)
{
	__u32 most = n - n / 4;

	return i < most ? (start % most + i) % most : i;
}

/*
 * Is a mark that looks alive of a socket that is no more? TCP and UDP sockets that the kernel shows are asked for there. Not at once: a mark is made before its
 * socket's first packet is out.
 */
static __always_inline bool own_stale(struct __sk_buff *skb, const struct sluice_flow_key *rk,
				      const struct sluice_flow *own, __u32 now_s)
{
	if ((own->flags & (SLUICE_FLOW_OWN | SLUICE_FLOW_BLIND)) != SLUICE_FLOW_OWN)
		return false;
	return (__s32)(now_s - own->seen_s) > SLUICE_GRACE_S && !sock_at(skb, rk);
}

static long try_overload(__u32 i, struct alloc_loop *l)
{
	struct alloc *a = l->a;
	__u32 off = visit(a->start, i, a->nports);
	__u32 row = sluice_block_row(a->block_base, a->nports, a->l4, off), *n;
	struct sluice_block *b = bpf_map_lookup_elem(&blocks, &row);
	struct sluice_flow *r;
	int err;

	if (!b || b->mode != SLUICE_BLOCK_OVERLOAD || port_leased(b, off % SLUICE_BLOCK_PORTS))
		return 0;
	a->rk.dport = bpf_htons(a->first + off);
	r = bpf_map_lookup_elem(&rev, &a->rk);
	/* With grace: where it ends just now, another CPU may still be sending on it. */
	if (r && ((rev_alive(&a->rk, r, a->now_s, SLUICE_GRACE_S) &&
		   !own_stale(l->skb, &a->rk, r, a->now_s)) ||
		  !rev_reclaim(&a->rk, r)))
		return 0;
	n = port_count(a->block_base, a->nports, a->l4, off);
	if (n) {
		port_count_get(n);
		if (port_leased(b, off % SLUICE_BLOCK_PORTS))
			goto taken;
	}
	err = bpf_map_update_elem(&rev, &a->rk, &a->val, BPF_NOEXIST);
	if (err == -EEXIST)
		goto taken;
	if (err) {
		port_count_put(n);
		a->result = ALLOC_TABLE;
		return 1;
	}
	/* The entry is to be seen by all before the sockets are looked at. What counts is that this is an atomic operation in full order. */
	port_count_get(&a->fence);
	if (sock_at(l->skb, &a->rk)) {
		bpf_map_delete_elem(&rev, &a->rk);
		goto taken;
	}
	a->result = ALLOC_OK;
	return 1;
taken:
	port_count_put(n);
	return 0;
}

/* One attempt in the current block; on to the next block when it has nothing left. */
static long try_eim(__u32 i, struct alloc_loop *l)
{
	struct alloc *a = l->a;
	__u32 nblocks = a->nports / SLUICE_BLOCK_PORTS, rot = a->start % SLUICE_BLOCK_PORTS, bit;
	__u32 row =
		sluice_block_row(a->block_base, a->nports, a->l4, a->block * SLUICE_BLOCK_PORTS);
	struct sluice_block *b = bpf_map_lookup_elem(&blocks, &row);
	__u64 bits, unused;

	if (!b)
		return 1;
	bits = *(volatile __u64 *)&b->bits;
	unused =
		b->mode == SLUICE_BLOCK_EIM ? ~(bits | a->skip | *(volatile __u64 *)&b->leased) : 0;
	if (!unused) {
		a->visited++;
		a->block = visit(a->start / SLUICE_BLOCK_PORTS, a->visited, nblocks);
		a->skip = 0;
		return a->visited >= nblocks;
	}
	unused = rot ? unused >> rot | unused << (SLUICE_BLOCK_PORTS - rot) : unused;
	bit = (lowest_bit(unused) + rot) % SLUICE_BLOCK_PORTS;
	if (__sync_val_compare_and_swap(&b->bits, bits, bits | 1ULL << bit) != bits)
		return 0;
	if (port_leased(b, bit)) {
		__sync_fetch_and_and(&b->bits, ~(1ULL << bit));
		return 0;
	}
	a->rk.dport = bpf_htons(a->first + a->block * SLUICE_BLOCK_PORTS + bit);
	if (sock_at(l->skb, &a->rk)) {
		__sync_fetch_and_and(&b->bits, ~(1ULL << bit));
		a->skip |= 1ULL << bit;
		return 0;
	}
	a->result = ALLOC_OK;
	return 1;
}

/* A port whose bit a socket has that is no more. */
static long try_eim_own(__u32 i, struct alloc_loop *l)
{
	struct alloc *a = l->a;
	__u32 off = visit(a->start, i, a->nports), bit = off % SLUICE_BLOCK_PORTS;
	__u32 row = sluice_block_row(a->block_base, a->nports, a->l4, off);
	struct sluice_block *b = bpf_map_lookup_elem(&blocks, &row);
	struct sluice_flow *f, *r;

	if (!b || b->mode != SLUICE_BLOCK_EIM || port_leased(b, bit) || !(b->bits >> bit & 1))
		return 0;
	__builtin_memset(&a->own_key, 0, sizeof(a->own_key));
	a->own_key.src = a->rk.dst;
	a->own_key.sport = bpf_htons(a->first + off);
	a->own_key.proto = a->rk.proto;
	a->own_key.zone = SLUICE_ZONE_LOCAL;
	f = bpf_map_lookup_elem(&fwd, &a->own_key);
	if (!f || f->port != a->own_key.sport || f->sessions > 1)
		return 0;
	/* The remote end that it was last seen to send to. */
	a->own_rev = a->rk;
	addr_set_v4(&a->own_rev.src, f->last_v4[3]);
	a->own_rev.sport = f->rport;
	a->own_rev.dport = a->own_key.sport;
	if (!own_stale(l->skb, &a->own_rev, f, a->now_s))
		return 0;
	r = f->sessions ? bpf_map_lookup_elem(&rev, &a->own_rev) : NULL;
	if (r && (r->flags & SLUICE_FLOW_OWN))
		rev_reclaim(&a->own_rev, r);
	if (f->sessions || !mapping_reclaim(&a->own_key, f))
		return 0;
	if (__sync_fetch_and_or(&b->bits, 1ULL << bit) >> bit & 1)
		return 0;
	a->rk.dport = a->own_key.sport;
	if (port_leased(b, bit) || sock_at(l->skb, &a->rk)) {
		__sync_fetch_and_and(&b->bits, ~(1ULL << bit));
		return 0;
	}
	a->result = ALLOC_OK;
	return 1;
}

/* The first row of the slice's address. */
static __always_inline __u32 slice_base(const struct sluice_slice *sl, __u32 row)
{
	return row - sl->first / ((__u32)sl->last - sl->first + 1);
}

/* Look through one slice. Leaves the outer end in a->rk.dst, dport and the slice in a->val. */
static __noinline int alloc_slice(struct alloc_loop *l, __u32 row)
{
	struct sluice_slice *sl = slice_row(row);
	struct alloc *a = l->a;
	struct sluice_full *fv;
	__u32 *rel;

	if (!sl || sl->state != SLUICE_SLICE_HELD || sl->pool != a->pool ||
	    slice_fenced(sl, a->now_ns) || addr_is_v4(&sl->addr) != addr_is_v4(&a->rk.src))
		return 0;
	if (a->pair && slice_base(sl, row) != a->pair - 1)
		return 0;
	rel = bpf_map_lookup_elem(&released, &row);
	if (!rel)
		return 0;
	if (a->result == ALLOC_NO_SLICE)
		a->result = ALLOC_FULL;
	a->first = sl->first;
	a->nports = sl->last - sl->first + 1;
	a->block_base = sl->block_base;
	a->rk.dst = sl->addr;
	a->val.slice = row;
	a->val.epoch = sl->epoch;
	if (a->eim) {
		a->block = visit(a->start / SLUICE_BLOCK_PORTS, 0, a->nports / SLUICE_BLOCK_PORTS);
		a->visited = 0;
		a->skip = 0;
		/* Room for every port that a socket may have, and for swaps lost to other CPUs. */
		bpf_loop(2 * a->nports + 1024, try_eim, l, 0);
		if (a->result != ALLOC_FULL)
			return 0;
		/* The sweep will not let ports rest here. */
		if (a->l4 == SLUICE_UDP && sl->pressed_s != a->now_s)
			sl->pressed_s = a->now_s;
	}
	/* Endpoint-independent: no destination. */
	__builtin_memset(&a->full_key, 0, sizeof(a->full_key));
	if (!a->eim) {
		a->full_key.dst = a->rk.src;
		a->full_key.dport = a->rk.sport;
	}
	a->full_key.l4 = a->l4;
	a->full_key.slice = row;
	a->full_val.released = *(volatile __u32 *)rel;
	a->full_val.at_s = a->now_s;
	fv = bpf_map_lookup_elem(&full, &a->full_key);
	if (fv && fv->released == a->full_val.released && fv->at_s == a->full_val.at_s)
		return 0;
	if (a->eim)
		bpf_loop(a->nports, try_eim_own, l, 0);
	else
		bpf_loop(a->nports, try_overload, l, 0);
	if (a->result == ALLOC_FULL)
		bpf_map_update_elem(&full, &a->full_key, &a->full_val, BPF_ANY);
	return 0;
}

static long try_slice(__u32 i, struct alloc_loop *l)
{
	struct alloc *a = l->a;
	__u32 at = a->held_base + (a->slice_start + i) % a->held_n, *row;

	row = bpf_map_lookup_elem(&held, &at);
	if (row)
		alloc_slice(l, *row);
	return a->result == ALLOC_OK || a->result == ALLOC_TABLE;
}

#endif
