/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What one client may have: ports, flows, and how fast it may begin them; and which shared address it keeps (RFC 6888 REQ-2, REQ-4, REQ-5). Only pools that
 * limit or pair their clients have rows here. An entry that was counted has SLUICE_FLOW_COUNTED, and whoever takes it out gives back what it was
 * counted for, however much later and under whichever configuration: a row says what there is, the pool what there may be.
 *
 * The word of a row pins it: it is removed by the sweep alone, when nothing refers to it. The tag guards against an element that was
 * removed, and filled again for another client, under our feet.
 */
#ifndef CLIENT_BPF_H
#define CLIENT_BPF_H

#include "count.bpf.h"

#define EEXIST 17

/* struct sluice_client, word. */
#define CLIENT_REFS       0x0fffffffULL
#define CLIENT_DEAD       CLIENT_REFS /* as many: claimed for removal */
#define CLIENT_PAIR_SHIFT 28
#define CLIENT_PAIR       (0xffffULL << CLIENT_PAIR_SHIFT)
#define CLIENT_TAG_SHIFT  44

/* What an entry is counted for. */
#define CLIENT_PORT  0x100
#define CLIENT_STATE 0x200
#define CLIENT_BEGIN 0x400 /* against the rate as well */
#define CLIENT_L4    0x003 /* enum sluice_l4 */

/* What client_charge() says besides a reason. */
#define CLIENT_COUNTED   (-1)
#define CLIENT_UNCOUNTED (-2)

#define CLIENT_TRIES 16 /* against other CPUs */

_Static_assert(SLUICE_MAX_SLICES < 0xffff, "the pair is 1 + a row");

static __always_inline __u64 client_tag(const struct sluice_client_key *k)
{
	__u32 h = (k->addr.w[0] ^ k->addr.w[1] * 3) + (k->addr.w[2] ^ k->addr.w[3] * 5) + k->zone;

	return (__u64)(h * 2654435761U >> 12) << CLIENT_TAG_SHIFT;
}

static __always_inline bool client_tag_is(__u64 word, __u64 tag)
{
	return word >> CLIENT_TAG_SHIFT == tag >> CLIENT_TAG_SHIFT;
}

static __always_inline void client_key(struct sluice_client_key *k, const union sluice_addr *addr,
				       __u16 zone)
{
	__builtin_memset(k, 0, sizeof(*k));
	k->addr = *addr;
	k->zone = zone;
}

static __always_inline bool client_limits(const struct sluice_pool *pool)
{
	return pool->pairing || pool->client_states || pool->client_rate ||
	       *(const __u64 *)pool->client_ports;
}

/* Take one more of n. False: the limit is reached. Never more than it, whatever other CPUs do. */
static __always_inline bool client_take(__u32 *n, __u32 limit)
{
	if (__sync_fetch_and_add(n, 1) < limit || !limit)
		return true;
	__sync_fetch_and_add(n, -1);
	return false;
}

static __always_inline void client_put(__u32 *n)
{
	if (*(volatile __u32 *)n)
		__sync_fetch_and_add(n, -1);
}

/*
 * May a flow begin now? A bucket of tokens, each for a thousandth of a flow. The clocks of CPUs may be a millisecond apart: time does not go back here.
 */
static __always_inline bool client_token(struct sluice_client *c, const struct sluice_pool *pool,
					 __u32 now_ms)
{
	__u64 most = (__u64)pool->client_burst * 1000, was, left;
	__u32 at_ms, i;

	for (i = 0; i < CLIENT_TRIES; i++) {
		was = *(volatile __u64 *)&c->bucket;
		at_ms = was >> 32;
		left = (__u32)was;
		if ((__s32)(now_ms - at_ms) > 0)
			left += (__u64)(now_ms - at_ms) * pool->client_rate;
		else
			now_ms = at_ms;
		if (left > most)
			left = most;
		if (left < 1000)
			return false;
		left -= 1000;
		if (__sync_val_compare_and_swap(&c->bucket, was, (__u64)now_ms << 32 | left) == was)
			return true;
	}
	return false;
}

/* Refer to a client's row, which is made if need be. A client without flows has no pair. NULL: no room. */
static __always_inline struct sluice_client *client_hold(struct work *w,
							 const struct sluice_pool *pool,
							 __u32 now_ms)
{
	__u64 tag = client_tag(&w->client), was, to;
	struct sluice_client *c;
	int i, err;

	for (i = 0; i < CLIENT_TRIES; i++) {
		c = bpf_map_lookup_elem(&client_state, &w->client);
		if (!c) {
			__builtin_memset(&w->fresh, 0, sizeof(w->fresh));
			w->fresh.word = tag;
			if (pool->client_rate)
				w->fresh.bucket =
					(__u64)now_ms << 32 | (__u64)pool->client_burst * 1000;
			err = bpf_map_update_elem(&client_state, &w->client, &w->fresh,
						  BPF_NOEXIST);
			if (err && err != -EEXIST)
				return NULL;
			continue;
		}
		was = *(volatile __u64 *)&c->word;
		if (!client_tag_is(was, tag) || (was & CLIENT_REFS) >= CLIENT_DEAD - 1)
			continue;
		to = (was & CLIENT_REFS ? was : was & ~CLIENT_PAIR) + 1;
		if (__sync_val_compare_and_swap(&c->word, was, to) != was)
			continue;
		w->pair = (to & CLIENT_PAIR) >> CLIENT_PAIR_SHIFT;
		return c;
	}
	return NULL;
}

/*
 * Count a flow, session or mapping for its client, before it is made. what: CLIENT_ bits, with the protocol. Returns CLIENT_COUNTED: the entry gets
 * SLUICE_FLOW_COUNTED, or client_release() undoes it; CLIENT_UNCOUNTED; or the reason to refuse it. Leaves the client and its pair in the work row.
 */
GLOBAL int client_charge(const union sluice_addr *addr, __u16 zone, __u32 pool_row, __u32 what,
			 __u64 now_ns)
{
	struct sluice_pool *pool = bpf_map_lookup_elem(&pools, &pool_row);
	__u32 now_ms = now_ns / 1000000, l4 = what & CLIENT_L4;
	struct sluice_pool_stats *st;
	struct work *w = work_row();
	struct sluice_client *c;
	int reason;

	if (!addr || !w)
		return CLIENT_UNCOUNTED;
	w->pair = 0;
	if (!pool || zone == SLUICE_ZONE_LOCAL || !client_limits(pool))
		return CLIENT_UNCOUNTED;
	client_key(&w->client, addr, zone);
	c = client_hold(w, pool, now_ms);
	if (!c)
		return SLUICE_DROP_table_full;
	if (pool->pairing != SLUICE_PAIRING_PAIRED)
		w->pair = 0;
	reason = SLUICE_DROP_client_ports;
	if ((what & CLIENT_PORT) && !client_take(&c->ports[l4], pool->client_ports[l4]))
		goto unhold;
	reason = SLUICE_DROP_client_states;
	if ((what & CLIENT_STATE) && !client_take(&c->states, pool->client_states))
		goto unport;
	reason = SLUICE_DROP_client_rate;
	if (!(what & CLIENT_BEGIN) || !pool->client_rate || client_token(c, pool, now_ms))
		return CLIENT_COUNTED;
	if (what & CLIENT_STATE)
		client_put(&c->states);
unport:
	if (what & CLIENT_PORT)
		client_put(&c->ports[l4]);
unhold:
	__sync_fetch_and_add(&c->word, -1);
	st = pool_stats_of(pool_row);
	if (st)
		st->limited++;
	return reason;
}

/* Give back what client_charge() took for an entry. It refers to the row, so the row is there. */
static __always_inline void client_release(const struct sluice_client_key *k, __u32 what)
{
	struct sluice_client *c = bpf_map_lookup_elem(&client_state, k);
	__u64 word;

	if (!c)
		return;
	word = *(volatile __u64 *)&c->word;
	if (!client_tag_is(word, client_tag(k)) || !(word & CLIENT_REFS) ||
	    (word & CLIENT_REFS) == CLIENT_DEAD)
		return;
	if (what & CLIENT_PORT)
		client_put(&c->ports[what & CLIENT_L4]);
	if (what & CLIENT_STATE)
		client_put(&c->states);
	__sync_fetch_and_add(&c->word, -1);
}

/* The client in the work row has got its address: base is its first row. */
static __always_inline void client_pair(struct work *w, __u32 base)
{
	struct sluice_client *c = bpf_map_lookup_elem(&client_state, &w->client);
	__u64 pair = (__u64)(base + 1) << CLIENT_PAIR_SHIFT, was;
	int i;

	for (i = 0; c && i < CLIENT_TRIES; i++) {
		was = *(volatile __u64 *)&c->word;
		/* Another CPU, with another first flow of the same client, may have been faster: then that one counts. */
		if ((was & CLIENT_PAIR) >> CLIENT_PAIR_SHIFT != w->pair)
			return;
		if (__sync_val_compare_and_swap(&c->word, was, (was & ~CLIENT_PAIR) | pair) == was)
			return;
	}
}

/* For the sweep: take a row out that nothing refers to, once its bucket must be full again. */
static __always_inline void client_sweep(struct sluice_client_key *k, struct sluice_client *c,
					 __u32 now_ms)
{
	__u64 word = *(volatile __u64 *)&c->word;

	if (word & CLIENT_REFS)
		return;
	if (c->bucket && (__s32)(now_ms - (__u32)(c->bucket >> 32)) < SLUICE_BURST_MAX_S * 1000)
		return;
	if (__sync_val_compare_and_swap(&c->word, word, word | CLIENT_DEAD) == word)
		bpf_map_delete_elem(&client_state, k);
}

#endif
