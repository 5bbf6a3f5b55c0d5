// SPDX-License-Identifier: BSD-2-Clause
/*
 * Carrying a plan out. What is there is read from the maps themselves, never from memory, so a
 * publication that was cut off is simply done again. The stages, between which programs that are
 * under way are waited for (dp_grace()):
 *
 *	end	slices that are given up, or get another epoch, are closed; pools whose mapping changes are marked mixed
 *	fill	new rows are written where nobody looks yet: pools, slices with their blocks, the spare half of "held"
 *	live	new slices are opened, the lists of held slices are exchanged
 *	switch	addresses and prefixes are entered, then those that are gone are taken out
 *	clean	flows of closed slices are swept away, rows that are unused now are cleared
 *
 * A closed slice keeps its epoch in its row until its flows are swept away: state NONE with an
 * epoch means that this is still to be done.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "dp_internal.h"
#include "fault.h"
#include "nat.skel.h"

#define store(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)

/* Store the four bytes of one policy as one word. */
static bool store4(uint8_t to[4], const uint8_t from[4])
{
	uint32_t was, now;

	memcpy(&was, to, sizeof(was));
	memcpy(&now, from, sizeof(now));
	if (was == now)
		return false;
	store((uint32_t *)(void *)to, now);
	return true;
}

static_assert(offsetof(struct sluice_pool, mapping) % 4 == 0 &&
		      offsetof(struct sluice_pool, filtering) % 4 == 0,
	      "policies are words");

/* Does the slice in the map go on as it is, but for its deadline? */
static bool slice_goes_on(const struct sluice_slice *is, const struct sluice_slice *next)
{
	return dp_slice_held(is) && dp_slice_held(next) && is->epoch == next->epoch &&
	       !memcmp(&is->addr, &next->addr, sizeof(is->addr)) && is->first == next->first &&
	       is->last == next->last && is->pool == next->pool &&
	       is->block_base == next->block_base;
}

static uint32_t block_mode(const struct sluice_pool *pool, uint32_t l4)
{
	return pool->mapping[l4] == SLUICE_EIM ? SLUICE_BLOCK_EIM : SLUICE_BLOCK_OVERLOAD;
}

static bool pool_is_mixed(const struct sluice_pool *pool)
{
	for (int l4 = 0; l4 < SLUICE_L4_MAX; l4++)
		if (pool->mixed[l4])
			return true;
	return false;
}

static bool any_mixed(const struct dp *dp)
{
	for (int row = 0; row < SLUICE_MAX_POOLS; row++)
		if (pool_is_mixed(&dp->pools[row]))
			return true;
	return false;
}

static_assert(offsetof(struct plan_addr, row) == sizeof(union sluice_addr), "key, then value");
static_assert(offsetof(struct plan_prefix, value) == sizeof(struct sluice_lpm_key),
	      "key, then value");

/* Stage: end */

static bool slices_end(struct dp *dp, const struct plan *next)
{
	bool any = false;

	for (uint32_t row = 0; row < SLUICE_MAX_SLICES; row++) {
		struct sluice_slice *s = &dp->slices[row];

		if (!dp_slice_held(s) || slice_goes_on(s, plan_slice(next, row)))
			continue;
		store(&s->state, SLUICE_SLICE_NONE);
		any = true;
	}
	return any;
}

static bool pool_goes_on(const struct sluice_pool *is, const struct sluice_pool *next)
{
	return is->used && next->used && !strncmp(is->name, next->name, sizeof(is->name));
}

static bool pools_mix(struct dp *dp, const struct plan *next)
{
	bool any = false;

	for (int row = 0; row < SLUICE_MAX_POOLS; row++) {
		struct sluice_pool *is = &dp->pools[row];

		if (!pool_goes_on(is, &next->pools[row]))
			continue;
		for (int l4 = 0; l4 < SLUICE_L4_MAX; l4++) {
			if (is->mapping[l4] == next->pools[row].mapping[l4])
				continue;
			store(&is->mixed[l4], 1);
			any = true;
		}
	}
	return any;
}

/* Stage: fill */

static int pool_stats_clear(struct dp *dp, uint32_t row, struct errtext *err)
{
	void *zero = calloc((size_t)dp->n_cpus, sizeof(struct sluice_pool_stats));
	int r = 0;

	static_assert(sizeof(struct sluice_pool_stats) % 8 == 0, "rows of per-CPU values");
	if (!zero)
		return errtext_set(err, ENOMEM, "out of memory");
	if (bpf_map_update_elem(bpf_map__fd(dp->nat->maps.pool_stats), &row, zero, BPF_ANY))
		r = errtext_set(err, errno, "writing map \"pool_stats\": %s", dp_why(-errno));
	free(zero);
	return r;
}

/* What each packet reads for itself: one word at a time is enough. True if something changed. */
static bool policy_store(struct sluice_pool *is, const struct sluice_pool *to)
{
	bool same = is->mss == to->mss && is->client_states == to->client_states &&
		    is->client_rate == to->client_rate && is->client_burst == to->client_burst &&
		    is->id_mode == to->id_mode && is->pairing == to->pairing &&
		    is->hairpin == to->hairpin && is->inbound_refresh == to->inbound_refresh &&
		    is->reuse_s == to->reuse_s &&
		    !memcmp(is->client_ports, to->client_ports, sizeof(is->client_ports));

	if (is->unleased != to->unleased)
		store(&is->unleased, to->unleased);
	if (same)
		return false;
	store(&is->mss, to->mss);
	for (int l4 = 0; l4 < SLUICE_L4_MAX; l4++)
		store(&is->client_ports[l4], to->client_ports[l4]);
	store(&is->client_states, to->client_states);
	store(&is->client_rate, to->client_rate);
	store(&is->client_burst, to->client_burst);
	store(&is->id_mode, to->id_mode);
	store(&is->pairing, to->pairing);
	store(&is->hairpin, to->hairpin);
	store(&is->inbound_refresh, to->inbound_refresh);
	store(&is->reuse_s, to->reuse_s);
	return true;
}

/* Rows of pools. A new one has no slices yet, so nobody looks at it. */
static int pools_fill(struct dp *dp, const struct plan *next, bool *changed, struct errtext *err)
{
	for (uint32_t row = 0; row < SLUICE_MAX_POOLS; row++) {
		struct sluice_pool *is = &dp->pools[row];
		const struct sluice_pool *to = &next->pools[row];
		int r;

		if (!to->used)
			continue;
		if (!pool_goes_on(is, to)) {
			/* Counters belong to the name. */
			r = pool_stats_clear(dp, row, err);
			if (r)
				return r;
			*is = *to;
			is->held = 0;
			*changed = true;
			continue;
		}
		*changed |= store4(is->mapping, to->mapping);
		*changed |= store4(is->filtering, to->filtering);
		*changed |= policy_store(is, to);
		if (memcmp(&is->timers, &to->timers, sizeof(is->timers))) {
			uint32_t *t = (uint32_t *)&is->timers;
			const uint32_t *v = (const uint32_t *)&to->timers;

			for (size_t i = 0; i < sizeof(is->timers) / sizeof(*t); i++)
				store(&t[i], v[i]);
			*changed = true;
		}
	}
	return 0;
}

/* Which key the programs try first: see struct sluice_conf. */
static void first_keys_set(struct dp *dp)
{
	for (int l4 = 0; l4 < SLUICE_L4_MAX; l4++) {
		unsigned used = 0, eim = 0;
		bool mixed = false;

		for (int row = 0; row < SLUICE_MAX_POOLS; row++) {
			const struct sluice_pool *pool = &dp->pools[row];

			if (!pool->used)
				continue;
			used++;
			eim += pool->mapping[l4] == SLUICE_EIM;
			mixed |= pool->mixed[l4];
		}
		store(&dp->conf->eim_first[l4], !mixed && 2 * eim > used);
	}
}

/* Close the blocks that still have the old mode. In a mixed pool only: nowhere else is one wrong. */
static void blocks_close(struct dp *dp, const struct sluice_slice *s)
{
	const struct sluice_pool *pool = &dp->pools[s->pool];

	for (uint32_t l4 = 0; l4 < SLUICE_L4_MAX; l4++) {
		if (!pool->mixed[l4])
			continue;
		for (uint32_t off = 0; off < dp_slice_ports(s); off += SLUICE_BLOCK_PORTS) {
			struct sluice_block *b = &dp->blocks[sluice_block_row(
				s->block_base, dp_slice_ports(s), l4, off)];

			if (b->mode != block_mode(pool, l4))
				store(&b->mode, SLUICE_BLOCK_FREE);
		}
	}
}

/*
 * No port is used or leased. Flows of whoever had these blocks before may still be there; their slice is closed, and no program that found it open
 * runs any more, so they are not taken off the counts when they go (port_count_of() in flow.bpf.h).
 */
static void blocks_init(struct dp *dp, const struct sluice_slice *s)
{
	const struct sluice_pool *pool = &dp->pools[s->pool];

	for (uint32_t l4 = 0; l4 < SLUICE_L4_MAX; l4++)
		for (uint32_t off = 0; off < dp_slice_ports(s); off += SLUICE_BLOCK_PORTS) {
			dp->blocks[sluice_block_row(s->block_base, dp_slice_ports(s), l4, off)] =
				(struct sluice_block){ .mode = block_mode(pool, l4) };
			if (l4 != SLUICE_ICMP)
				memset(&dp->port_flows[sluice_port_flows_row(
					       s->block_base, dp_slice_ports(s), l4, off)],
				       0, sizeof(struct sluice_port_flows));
		}
}

/* Rows of slices. The new ones stay closed for now. */
static bool slices_fill(struct dp *dp, const struct plan *next)
{
	struct sluice_slice closed;
	bool any = false;

	for (size_t i = 0; i < next->n_held; i++) {
		struct sluice_slice *is = &dp->slices[next->held[i]];
		const struct sluice_slice *to = &next->slices[next->held[i]];

		if (slice_goes_on(is, to)) {
			if (is->not_after_ns != to->not_after_ns)
				store(&is->not_after_ns, to->not_after_ns);
			if (is->fresh_s != to->fresh_s)
				store(&is->fresh_s, to->fresh_s);
			blocks_close(dp, is);
			continue;
		}
		assert(to->block_base + plan_block_rows(dp_slice_ports(to)) <= SLUICE_MAX_BLOCKS &&
		       to->block_base % SLUICE_L4_MAX == 0);
		closed = *to;
		closed.state = SLUICE_SLICE_NONE;
		*is = closed;
		blocks_init(dp, is);
		dp_released_bump(dp, next->held[i]);
		any = true;
	}
	return any;
}

/* The half of "held" that is in use. A pool without slices says nothing. */
static uint32_t held_half(const struct dp *dp)
{
	for (int row = 0; row < SLUICE_MAX_POOLS; row++)
		if (plan_held_count(&dp->pools[row]))
			return plan_held_first(&dp->pools[row]) >= DP_HELD_HALF ? DP_HELD_HALF : 0;
	return 0;
}

static bool held_differs(const struct dp *dp, const struct plan *next)
{
	for (int row = 0; row < SLUICE_MAX_POOLS; row++) {
		uint32_t n = plan_held_count(&next->pools[row]);
		uint32_t is = plan_held_first(&dp->pools[row]);
		uint32_t to = plan_held_first(&next->pools[row]);

		if (plan_held_count(&dp->pools[row]) != n)
			return true;
		for (uint32_t i = 0; i < n; i++)
			if (*dp_held_row(dp, is + i) != next->held[to + i])
				return true;
	}
	return false;
}

/* Stage: live */

static void slices_open(struct dp *dp, const struct plan *next)
{
	for (size_t i = 0; i < next->n_held; i++) {
		struct sluice_slice *s = &dp->slices[next->held[i]];

		if (!dp_slice_held(s))
			store(&s->state, SLUICE_SLICE_HELD);
	}
}

static void held_exchange(struct dp *dp, const struct plan *next, uint32_t half)
{
	for (int row = 0; row < SLUICE_MAX_POOLS; row++) {
		uint64_t word = next->pools[row].held;

		store(&dp->pools[row].held, word ? word + ((uint64_t)half << 32) : 0);
	}
}

/* Stage: switch */

static int tables_switch(struct dp *dp, const struct plan *next, bool *changed, struct errtext *err)
{
	const struct {
		struct bpf_map *map;
		const void *want;
		size_t n, stride;
	} list[] = {
		{ dp->nat->maps.addrs, next->addrs, next->n_addrs, sizeof(*next->addrs) },
		/* Before clients: nobody is translated towards a destination that is left alone. */
		{ dp->nat->maps.no_nat, next->no_nat, next->n_no_nat, sizeof(*next->no_nat) },
		{ dp->nat->maps.clients, next->clients, next->n_clients, sizeof(*next->clients) },
	};
	enum {
		N = sizeof(list) / sizeof(list[0]),
	};
	struct dp_entries e[N] = { 0 };
	int r = 0;

	for (int i = 0; !r && i < N; i++)
		r = dp_entries_read(list[i].map, &e[i], err);
	for (int i = 0; !r && i < N; i++) {
		assert(e[i].stride <= list[i].stride);
		/* A table may be full of what is on its way out. */
		if (e[i].n + list[i].n > bpf_map__max_entries(list[i].map))
			r = dp_entries_remove(&e[i], list[i].want, list[i].n, list[i].stride,
					      changed, err);
		if (!r)
			r = dp_entries_put(&e[i], list[i].want, list[i].n, list[i].stride, changed,
					   err);
	}
	FAULT_POINT("dp.publish.switched");
	for (int i = N - 1; !r && i >= 0; i--)
		r = dp_entries_remove(&e[i], list[i].want, list[i].n, list[i].stride, changed, err);
	for (int i = 0; i < N; i++)
		dp_entries_done(&e[i]);
	return r;
}

/* Stage: clean */

bool dp_any_remnant(const struct dp *dp)
{
	for (uint32_t row = 0; row < SLUICE_MAX_SLICES; row++)
		if (dp_slice_remnant(&dp->slices[row]))
			return true;
	return false;
}

static void rows_clear(struct dp *dp, const struct plan *next)
{
	for (uint32_t row = 0; row < SLUICE_MAX_SLICES; row++) {
		struct sluice_slice *is = &dp->slices[row];
		const struct sluice_slice *to = plan_slice(next, row);

		if (!dp_slice_held(to) && memcmp(is, to, sizeof(*is)))
			*is = *to;
	}
	for (int row = 0; row < SLUICE_MAX_POOLS; row++)
		if (dp->pools[row].used && !next->pools[row].used)
			memset(&dp->pools[row], 0, sizeof(dp->pools[row]));
}

/*
 * Open the blocks of a slice that nothing uses any more. Returns how many are left. Two sweeps have
 * to agree: a walk over a hash table that is being written can miss an entry.
 */
static uint32_t slice_drain(struct dp *dp, const struct sluice_slice *s, uint32_t l4)
{
	uint32_t left = 0;

	for (uint32_t off = 0; off < dp_slice_ports(s); off += SLUICE_BLOCK_PORTS) {
		uint32_t row = sluice_block_row(s->block_base, dp_slice_ports(s), l4, off);
		struct sluice_block *b = &dp->blocks[row];

		if (b->mode != SLUICE_BLOCK_FREE)
			continue;
		if (dp->use[row] | dp->use_before[row]) {
			left++;
			continue;
		}
		/* Leased ports stay so. */
		store(&b->bits, 0);
		store(&b->mode, block_mode(&dp->pools[s->pool], l4));
	}
	return left;
}

void dp_drain(struct dp *dp)
{
	uint32_t left[SLUICE_MAX_POOLS][SLUICE_L4_MAX] = { 0 };

	if (dp->n_sweeps < 2 || !any_mixed(dp))
		return;
	for (uint32_t row = 0; row < SLUICE_MAX_SLICES; row++) {
		const struct sluice_slice *s = &dp->slices[row];

		for (uint32_t l4 = 0; dp_slice_held(s) && l4 < SLUICE_L4_MAX; l4++)
			if (dp->pools[s->pool].mixed[l4])
				left[s->pool][l4] += slice_drain(dp, s, l4);
	}
	for (int row = 0; row < SLUICE_MAX_POOLS; row++)
		for (int l4 = 0; l4 < SLUICE_L4_MAX; l4++)
			if (dp->pools[row].mixed[l4] && !left[row][l4])
				store(&dp->pools[row].mixed[l4], 0);
	first_keys_set(dp);
}

/* Sweep, and forget what was seen before the last changes. */
int dp_clean(struct dp *dp, bool ended, struct errtext *err)
{
	bool mixed = any_mixed(dp);
	int r = 0;

	dp->n_sweeps = 0;
	if (mixed || ended)
		r = dp_sweep(dp, NULL, err);
	if (!r && mixed)
		r = dp_sweep(dp, NULL, err);
	return r;
}

int dp_publish(struct dp *dp, const struct plan *next, struct errtext *err)
{
	uint32_t half = held_half(dp) ? 0 : DP_HELD_HALF;
	bool ended, mixed, lists, opened, filled = false, switched = false;
	int r = 0;

	ended = slices_end(dp, next);
	mixed = pools_mix(dp, next);
	if (mixed)
		first_keys_set(dp);
	if (ended || mixed)
		r = dp_grace(dp, err);
	FAULT_POINT("dp.publish.ended");

	if (!r)
		r = pools_fill(dp, next, &filled, err);
	if (r)
		return r;
	opened = slices_fill(dp, next);
	lists = held_differs(dp, next);
	if (lists)
		for (size_t i = 0; i < next->n_held; i++)
			*dp_held_row(dp, half + (uint32_t)i) = next->held[i];
	if (filled || opened || lists || mixed)
		r = dp_grace(dp, err);
	if (r)
		return r;
	FAULT_POINT("dp.publish.filled");

	slices_open(dp, next);
	if (lists)
		held_exchange(dp, next, half);
	FAULT_POINT("dp.publish.live");

	r = tables_switch(dp, next, &switched, err);
	if (!r && (lists || switched))
		r = dp_grace(dp, err);
	if (!r)
		r = dp_clean(dp, ended || dp_any_remnant(dp), err);
	if (!r) {
		rows_clear(dp, next);
		first_keys_set(dp);
	}
	return r;
}

void dp_renew(struct dp *dp, const uint32_t *rows, size_t n_rows, uint64_t not_after_ns)
{
	for (size_t i = 0; i < n_rows; i++) {
		assert(rows[i] < SLUICE_MAX_SLICES);
		store(&dp->slices[rows[i]].not_after_ns, not_after_ns);
	}
}
