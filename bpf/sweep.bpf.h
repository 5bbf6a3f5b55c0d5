/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Taking dead flows out. The daemon runs the sweep program every second or so; if nobody has swept for a while and the
 * tables are full, the packet that found no room sweeps.
 */
#ifndef SWEEP_BPF_H
#define SWEEP_BPF_H

#include "flow.bpf.h"

#define SWEEP_STALE_S 10

struct sweep {
	__u64 seen, reclaimed, flows[4];
	__u32 now_s;
	__u32 now_ms;
	bool mark_use;
};

static __always_inline void use_mark(const struct sluice_flow *f, __u8 proto, __be16 port)
{
	struct sluice_slice *sl = slice_of(f);
	int l4 = l4_index(proto);
	__u32 off, row;
	__u64 *bits;

	if (!sl || l4 < 0)
		return;
	off = bpf_ntohs(port) - sl->first;
	row = sluice_block_row(sl->block_base, sl->last - sl->first + 1, l4, off);
	bits = bpf_map_lookup_elem(&use_bits, &row);
	if (bits)
		__sync_fetch_and_or(bits, 1ULL << off % SLUICE_BLOCK_PORTS);
}

static long sweep_rev(void *map, struct sluice_flow_key *rk, struct sluice_flow *r, struct sweep *s)
{
	struct sluice_flow_key k = *rk;
	int l4;

	s->seen++;
	if (r->seen_s == SLUICE_DEAD)
		return 0;
	if (rev_alive(&k, r, s->now_s, SLUICE_GRACE_S)) {
		l4 = l4_index(k.proto);
		if (!(r->flags & SLUICE_FLOW_PERMIT) && l4 >= 0) {
			s->flows[l4 & 3] += !(r->flags & SLUICE_FLOW_OWN);
			if (s->mark_use)
				use_mark(r, k.proto, k.dport);
		}
	} else if (rev_reclaim(&k, r)) {
		s->reclaimed++;
	}
	return 0;
}

static long sweep_fwd(void *map, struct sluice_flow_key *fk, struct sluice_flow *f, struct sweep *s)
{
	struct sluice_flow_key k = *fk;

	if (f->seen_s == SLUICE_DEAD)
		return 0;
	if (fwd_alive(&k, f, s->now_s, SLUICE_GRACE_S)) {
		/* A mapping keeps its port also while it has no session. */
		if (s->mark_use && (f->flags & SLUICE_FLOW_EIM))
			use_mark(f, k.proto, f->port);
	} else if (!mapping_rests(f, k.proto, s->now_s) && fwd_reclaim(&k, f)) {
		s->reclaimed++;
	}
	return 0;
}

static long sweep_client(void *map, struct sluice_client_key *key, struct sluice_client *c,
			 struct sweep *s)
{
	struct sluice_client_key k = *key;

	client_sweep(&k, c, s->now_ms);
	return 0;
}

static __always_inline void sweep_tables(struct sweep *s)
{
	/* Sessions before their mappings: a TCP mapping lives while it has one. */
	bpf_for_each_map_elem(&rev, sweep_rev, s, 0);
	bpf_for_each_map_elem(&fwd, sweep_fwd, s, 0);
	bpf_for_each_map_elem(&client_state, sweep_client, s, 0);
}

/* True if this packet is the one that sweeps in the daemon's absence. */
GLOBAL bool sweep_in_absence(__u32 now_s)
{
	struct sweep s = { .now_s = now_s, .now_ms = now_s * 1000 };
	struct sluice_conf *c;
	__u32 zero = 0, swept_s;

	c = bpf_map_lookup_elem(&conf, &zero);
	if (!c)
		return false;
	swept_s = *(volatile __u32 *)&c->swept_s;
	if (now_s - swept_s < SWEEP_STALE_S ||
	    __sync_val_compare_and_swap(&c->swept_s, swept_s, now_s) != swept_s)
		return false;
	sweep_tables(&s);
	return true;
}

#endif
