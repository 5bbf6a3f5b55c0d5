// SPDX-License-Identifier: BSD-2-Clause
/* Reading the plan back that the maps hold: what a restarted daemon begins with. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "dp_internal.h"
#include "nat.skel.h"

/* Pins can be written by root only, but a row that would lead out of its tables must not get any further. */
static bool slice_is_sound(const struct dp *dp, const struct sluice_slice *s)
{
	return s->pool < SLUICE_MAX_POOLS && dp->pools[s->pool].used && s->first <= s->last &&
	       !(dp_slice_ports(s) & (dp_slice_ports(s) - 1)) &&
	       dp_slice_ports(s) >= SLUICE_BLOCK_PORTS && s->block_base < SLUICE_MAX_BLOCKS &&
	       s->block_base % SLUICE_L4_MAX == 0 &&
	       s->block_base + plan_block_rows(dp_slice_ports(s)) <= SLUICE_MAX_BLOCKS;
}

static bool addr_is_sound(const struct sluice_addr_row *a)
{
	return a->pool < SLUICE_MAX_POOLS && a->shift >= 6 && a->shift < 16 &&
	       a->base < SLUICE_MAX_SLICES && a->base + (65536u >> a->shift) <= SLUICE_MAX_SLICES;
}

static int read_tables(struct dp *dp, struct plan *p, struct errtext *err)
{
	const struct {
		struct bpf_map *map;
		void *ret_list;
		size_t *ret_n;
		size_t stride;
	} list[] = {
		{ dp->nat->maps.addrs, &p->addrs, &p->n_addrs, sizeof(*p->addrs) },
		{ dp->nat->maps.no_nat, &p->no_nat, &p->n_no_nat, sizeof(*p->no_nat) },
		{ dp->nat->maps.clients, &p->clients, &p->n_clients, sizeof(*p->clients) },
	};

	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		struct dp_entries e;
		char *to;
		int r;

		r = dp_entries_read(list[i].map, &e, err);
		if (r)
			return r;
		assert(e.stride <= list[i].stride);
		to = calloc(e.n + 1, list[i].stride);
		if (!to) {
			dp_entries_done(&e);
			return errtext_set(err, ENOMEM, "out of memory");
		}
		for (size_t j = 0; j < e.n; j++)
			memcpy(to + j * list[i].stride, e.list + j * e.stride, e.stride);
		*(void **)list[i].ret_list = to;
		*list[i].ret_n = e.n;
		dp_entries_done(&e);
	}
	return 0;
}

static int read_rows(struct dp *dp, struct plan *p, struct errtext *err)
{
	for (uint32_t row = 0; row < SLUICE_MAX_SLICES; row++) {
		const struct sluice_slice *s = &dp->slices[row];

		if (dp_slice_held(s) && !slice_is_sound(dp, s))
			return errtext_set(err, EBADMSG,
					   "%s: row %u of map \"slices\" makes no sense: 'sluiced "
					   "--teardown' removes the data plane",
					   dp->dir, row);
		p->slices[row] = *s;
	}
	for (size_t i = 0; i < p->n_addrs; i++)
		if (!addr_is_sound(&p->addrs[i].row))
			return errtext_set(err, EBADMSG,
					   "%s: an entry of map \"addrs\" makes no sense: 'sluiced "
					   "--teardown' removes the data plane",
					   dp->dir);
	for (int row = 0; row < SLUICE_MAX_POOLS; row++) {
		struct sluice_pool *pool = &p->pools[row];

		if (!dp->pools[row].used)
			continue;
		if (plan_held_first(&dp->pools[row]) + (uint64_t)plan_held_count(&dp->pools[row]) >
		    2 * DP_HELD_HALF)
			return errtext_set(err, EBADMSG,
					   "%s: row %d of map \"pools\" makes no sense: 'sluiced "
					   "--teardown' removes the data plane",
					   dp->dir, row);
		*pool = dp->pools[row];
		pool->name[sizeof(pool->name) - 1] = '\0';
		memset(pool->mixed, 0, sizeof(pool->mixed));
	}
	return plan_index(p) ? errtext_set(err, ENOMEM, "out of memory") : 0;
}

/* What the sweep at the end of a publication would have done. */
static int remnants_clear(struct dp *dp, struct errtext *err)
{
	bool any = dp_any_remnant(dp);
	int r = 0;

	if (any)
		r = dp_grace(dp, err);
	if (!r)
		r = dp_clean(dp, any, err);
	for (uint32_t row = 0; !r && row < SLUICE_MAX_SLICES; row++)
		if (dp_slice_remnant(&dp->slices[row]))
			memset(&dp->slices[row], 0, sizeof(dp->slices[row]));
	return r;
}

int dp_read_plan(struct dp *dp, struct plan **ret, struct errtext *err)
{
	struct plan *p;
	int r;

	r = remnants_clear(dp, err);
	if (r)
		return r;
	p = plan_new(SLUICE_MAX_SLICES);
	if (!p)
		return errtext_set(err, ENOMEM, "out of memory");
	r = read_tables(dp, p, err);
	if (!r)
		r = read_rows(dp, p, err);
	if (r) {
		plan_free(p);
		return r;
	}
	*ret = p;
	return 0;
}
