// SPDX-License-Identifier: BSD-2-Clause
#include "plan.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLICE_PORTS_ALL 65536u
#define PLAN_V4_BITS    96 /* what a v4-mapped address has in front */

/* What building needs beside the plan. */
struct build {
	const struct config *config;
	const struct plan *prev; /* or NULL */
	struct plan *plan;
	const struct config_pool **pool_of;           /* by index in plan->addrs */
	uint64_t row_taken[SLUICE_MAX_SLICES / 64];   /* in the region of an address */
	uint64_t row_ends[SLUICE_MAX_SLICES / 64];    /* held in prev */
	uint64_t block_taken[SLUICE_MAX_BLOCKS / 64]; /* by a slice of the plan */
	uint64_t block_ends[SLUICE_MAX_BLOCKS / 64];  /* by a slice of prev */
	uint32_t blocks_from[2][16];        /* by spare and shift: nothing is free before it */
	uint16_t zone_of[SLUICE_MAX_POOLS]; /* by pool of the configuration */
};

static bool bits_any(const uint64_t *map, uint32_t from, uint32_t n)
{
	for (uint32_t i = from; i < from + n; i++)
		if (map[i / 64] >> i % 64 & 1)
			return true;
	return false;
}

static void bits_set(uint64_t *map, uint32_t from, uint32_t n)
{
	for (uint32_t i = from; i < from + n; i++)
		map[i / 64] |= 1ULL << i % 64;
}

static union sluice_addr addr_to_abi(const struct addr *a)
{
	union sluice_addr ret;

	static_assert(sizeof(ret) == sizeof(*a), "both are 16 bytes, v4-mapped");
	memcpy(&ret, a, sizeof(ret));
	return ret;
}

static int plan_addr_cmp(const void *a, const void *b)
{
	const struct plan_addr *x = a, *y = b;

	return memcmp(&x->addr, &y->addr, sizeof(x->addr));
}

int plan_prefix_cmp(const void *a, const void *b)
{
	const struct plan_prefix *x = a, *y = b;

	return memcmp(&x->key, &y->key, sizeof(x->key));
}

static const struct plan_addr *plan_find_addr(const struct plan *p, const union sluice_addr *a)
{
	struct plan_addr key = { .addr = *a };

	if (!p || !p->n_addrs)
		return NULL;
	return bsearch(&key, p->addrs, p->n_addrs, sizeof(key), plan_addr_cmp);
}

static uint32_t slice_shift(uint32_t nports)
{
	return (uint32_t)__builtin_ctz(nports);
}

static uint32_t region_rows(uint32_t shift)
{
	return SLICE_PORTS_ALL >> shift;
}

/* The shortest timer: what was seen less long ago than that has not ended. */
static uint32_t timers_least(const struct sluice_timers *t)
{
	const uint32_t all[] = { t->tcp_established, t->tcp_opening, t->tcp_closing,
				 t->tcp_time_wait,   t->tcp_reset,   t->udp,
				 t->udp_short,       t->icmp };
	uint32_t least = all[0];

	for (size_t i = 1; i < sizeof(all) / sizeof(all[0]); i++)
		least = all[i] < least ? all[i] : least;
	return least;
}

/* Pools */

static int pools_free_row(const struct build *b)
{
	for (int row = 0; row < SLUICE_MAX_POOLS; row++)
		if (!b->plan->pools[row].used && !(b->prev && b->prev->pools[row].used))
			return row;
	return -ENOSPC;
}

static bool several_of_a_family(const struct config_pool *pool)
{
	size_t n_v4 = 0;

	for (size_t i = 0; i < pool->n_addresses; i++)
		n_v4 += addr_is_v4(&pool->addresses[i]);
	return n_v4 > 1 || pool->n_addresses - n_v4 > 1;
}

static void pool_fill(struct sluice_pool *to, const struct config_pool *from)
{
	static_assert(sizeof(to->name) >= sizeof(from->name), "names fit");
	memset(to->name, 0, sizeof(to->name));
	memcpy(to->name, from->name, strnlen(from->name, sizeof(from->name) - 1));
	for (int l4 = 0; l4 < SLUICE_L4_MAX; l4++) {
		to->mapping[l4] = l4 == SLUICE_ICMP ? SLUICE_EIM : (uint8_t)from->mapping[l4];
		/* Also where the mapping is overload: its last endpoint-independent flows may still drain. */
		to->filtering[l4] =
			l4 == SLUICE_ICMP ? SLUICE_FILTER_ADDRESS : (uint8_t)from->filtering[l4];
		to->client_ports[l4] = (uint16_t)from->ports_per_client;
	}
	to->unleased = (uint8_t)from->unleased;
	to->timers = from->timers;
	to->reuse_s = from->udp_reuse_s;
	to->mss = from->mss_clamp;
	to->client_states = from->states_per_client;
	to->client_rate = from->flows_per_second;
	to->client_burst = from->flows_burst;
	to->id_mode = (uint8_t)from->ipv4_id;
	/* One address is a pair for everybody. */
	to->pairing = from->paired && several_of_a_family(from) ? SLUICE_PAIRING_PAIRED
								: SLUICE_PAIRING_ARBITRARY;
	to->hairpin = from->hairpin;
	to->inbound_refresh = from->inbound_refresh;
	to->used = 1;
}

static int build_pools(struct build *b, struct errtext *err)
{
	const struct config *c = b->config;

	/* Those that go on first: a new one must not get their row. */
	for (size_t i = 0; i < c->n_pools; i++) {
		int row = b->prev ? plan_pool_row(b->prev, c->pools[i].name) : -ENOENT;

		if (row >= 0)
			pool_fill(&b->plan->pools[row], &c->pools[i]);
	}
	for (size_t i = 0; i < c->n_pools; i++) {
		int row = plan_pool_row(b->plan, c->pools[i].name);

		if (row >= 0)
			continue;
		row = pools_free_row(b);
		if (row < 0)
			return errtext_set(err, ENOSPC,
					   "pool \"%s\": at most %d pools fit, counting those that "
					   "this change takes away",
					   c->pools[i].name, SLUICE_MAX_POOLS);
		pool_fill(&b->plan->pools[row], &c->pools[i]);
	}
	return 0;
}

/* Addresses and the rows of their slices */

static int build_addrs(struct build *b, struct errtext *err)
{
	struct plan *p = b->plan;
	size_t n = 0;

	for (size_t i = 0; i < b->config->n_pools; i++)
		n += b->config->pools[i].n_addresses;
	if (n > SLUICE_MAX_ADDRS)
		return errtext_set(err, ENOSPC, "%zu shared addresses: at most %d fit", n,
				   SLUICE_MAX_ADDRS);
	p->addrs = calloc(n ? n : 1, sizeof(*p->addrs));
	b->pool_of = calloc(n ? n : 1, sizeof(const struct config_pool *));
	if (!p->addrs || !b->pool_of)
		return errtext_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < b->config->n_pools; i++) {
		const struct config_pool *pool = &b->config->pools[i];
		int row = plan_pool_row(p, pool->name);

		assert(row >= 0);
		for (size_t j = 0; j < pool->n_addresses; j++) {
			struct plan_addr *a = &p->addrs[p->n_addrs++];

			a->addr = addr_to_abi(&pool->addresses[j]);
			a->row.pool = (uint16_t)row;
			a->row.shift = (uint8_t)slice_shift(pool->slice_size);
		}
	}
	qsort(p->addrs, p->n_addrs, sizeof(*p->addrs), plan_addr_cmp);
	for (size_t i = 1; i < p->n_addrs; i++)
		assert(plan_addr_cmp(&p->addrs[i - 1], &p->addrs[i])); /* config_load() saw to it */
	for (size_t i = 0; i < b->config->n_pools; i++) {
		const struct config_pool *pool = &b->config->pools[i];

		for (size_t j = 0; j < pool->n_addresses; j++) {
			union sluice_addr a = addr_to_abi(&pool->addresses[j]);

			b->pool_of[plan_find_addr(p, &a) - p->addrs] = pool;
		}
	}
	return 0;
}

/* The holds on one address: they are sorted, so this is a part of the table. */
static const struct hold *holds_of(const struct hold_table *t, const union sluice_addr *a,
				   size_t *ret_n)
{
	size_t lo = 0, hi = t->n, end;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (memcmp(&t->rows[mid].ports.addr, a, sizeof(*a)) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (end = lo; end < t->n && !memcmp(&t->rows[end].ports.addr, a, sizeof(*a));)
		end++;
	*ret_n = end - lo;
	return t->n ? t->rows + lo : NULL;
}

/* Is it the very same slice, in the same pool, under whatever epoch? */
static bool slice_same(const struct sluice_slice *was, const struct sluice_slice *is)
{
	return was->state == SLUICE_SLICE_HELD &&
	       !memcmp(&was->addr, &is->addr, sizeof(is->addr)) && was->first == is->first &&
	       was->last == is->last && was->pool == is->pool;
}

/* May the holds of a live in a region that begins at base, with what prev has in these rows? */
static bool region_sound(const struct build *b, const struct plan_addr *a, uint32_t base,
			 const struct hold *holds, size_t n)
{
	for (size_t i = 0; b->prev && i < n; i++) {
		const struct sluice_slice *s =
			plan_slice(b->prev, base + (holds[i].ports.first >> a->row.shift));
		const struct sluice_slice want = {
			.addr = a->addr,
			.first = holds[i].ports.first,
			.last = holds[i].ports.last,
			.pool = a->row.pool,
		};

		if (s->state != SLUICE_SLICE_HELD || holds[i].epoch > s->epoch)
			continue;
		if (holds[i].epoch < s->epoch || !slice_same(s, &want))
			return false;
	}
	return true;
}

/*
 * First fit, at multiples of the size, which keeps room for large regions together. spare: leave
 * out rows that prev holds.
 */
static int region_find(const struct build *b, const struct plan_addr *a, const struct hold *holds,
		       size_t n, bool spare)
{
	uint32_t rows = region_rows(a->row.shift);

	for (uint32_t base = 0; base + rows <= SLUICE_MAX_SLICES; base += rows) {
		if (bits_any(b->row_taken, base, rows))
			continue;
		if (spare ? !bits_any(b->row_ends, base, rows) : region_sound(b, a, base, holds, n))
			return (int)base;
	}
	return -ENOSPC;
}

static void region_take(struct build *b, struct plan_addr *a, uint32_t base)
{
	uint32_t rows = region_rows(a->row.shift);

	assert(!bits_any(b->row_taken, base, rows));
	bits_set(b->row_taken, base, rows);
	a->row.base = base;
}

static int rows_alloc(struct plan *p, uint32_t n_rows)
{
	p->slices = calloc(n_rows ? n_rows : 1, sizeof(*p->slices));
	if (!p->slices)
		return -ENOMEM;
	p->n_rows = n_rows;
	return 0;
}

/* The rows of every address, none of them held yet. */
static int build_rows(struct build *b, struct errtext *err)
{
	struct plan *p = b->plan;
	uint32_t n_rows = 0;

	for (size_t i = 0; i < p->n_addrs; i++) {
		uint32_t end = p->addrs[i].row.base + region_rows(p->addrs[i].row.shift);

		n_rows = end > n_rows ? end : n_rows;
	}
	free(p->slices);
	p->slices = NULL;
	p->n_rows = 0;
	if (rows_alloc(p, n_rows))
		return errtext_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < p->n_addrs; i++) {
		const struct plan_addr *a = &p->addrs[i];

		for (uint32_t j = 0; j < region_rows(a->row.shift); j++) {
			struct sluice_slice *s = &p->slices[a->row.base + j];

			s->addr = a->addr;
			s->first = (uint16_t)(j << a->row.shift);
			s->last = (uint16_t)(s->first + (1u << a->row.shift) - 1);
			s->pool = a->row.pool;
		}
	}
	return 0;
}

static int build_regions(struct build *b, const struct hold_table *holds, struct errtext *err)
{
	struct plan *p = b->plan;
	bool placed[SLUICE_MAX_ADDRS] = { false };
	const struct hold *h;
	size_t n, total = 0;

	for (size_t i = 0; b->prev && i < b->prev->n_held; i++)
		bits_set(b->row_ends, b->prev->held[i], 1);
	for (size_t i = 0; i < p->n_addrs; i++) {
		struct plan_addr *a = &p->addrs[i];
		const struct plan_addr *was = plan_find_addr(b->prev, &a->addr);

		total += region_rows(a->row.shift);
		if (!was || was->row.shift != a->row.shift || was->row.pool != a->row.pool)
			continue;
		h = holds_of(holds, &a->addr, &n);
		if (!region_sound(b, a, was->row.base, h, n))
			continue;
		region_take(b, a, was->row.base);
		placed[i] = true;
	}
	for (size_t i = 0; i < p->n_addrs; i++) {
		struct plan_addr *a = &p->addrs[i];
		int base;

		if (placed[i])
			continue;
		h = holds_of(holds, &a->addr, &n);
		base = region_find(b, a, h, n, true);
		if (base < 0)
			base = region_find(b, a, h, n, false);
		if (base < 0)
			return errtext_set(
				err, ENOSPC,
				"pool \"%s\": no room for its addresses: all shared "
				"addresses together have %zu slices, at most %d fit: use fewer "
				"addresses or a larger slice-size",
				p->pools[a->row.pool].name, total, SLUICE_MAX_SLICES);
		region_take(b, a, (uint32_t)base);
	}
	return 0;
}

/* Holds and their blocks */

static void blocks_mark(uint64_t *map, const struct sluice_slice *s)
{
	uint32_t n = plan_block_rows((uint32_t)s->last - s->first + 1);

	/* What sluice_port_flows_row() counts on. */
	static_assert(SLUICE_L4_MAX == 3 && SLUICE_MAX_BLOCKS % 3 == 0, "three protocols");
	assert(s->block_base + n <= SLUICE_MAX_BLOCKS && s->block_base % SLUICE_L4_MAX == 0);
	bits_set(map, s->block_base, n);
}

/*
 * First fit, at multiples of the size. spare: leave out what prev's slices have. Blocks are only
 * ever taken meanwhile, so each size can go on where its last search ended.
 */
static int blocks_find(struct build *b, uint32_t shift, bool spare)
{
	uint32_t n = plan_block_rows(1u << shift);
	uint32_t *base = &b->blocks_from[spare][shift];

	for (; *base + n <= SLUICE_MAX_BLOCKS; *base += n)
		if (!bits_any(b->block_taken, *base, n) &&
		    !(spare && bits_any(b->block_ends, *base, n)))
			return (int)*base;
	return -ENOSPC;
}

/* The plan's row for a hold, or -EINVAL with the reason. */
static int hold_row(const struct build *b, const struct hold *h, struct errtext *err)
{
	union sluice_addr addr = addr_to_abi(&h->ports.addr);
	const struct plan_addr *a = plan_find_addr(b->plan, &addr);
	uint32_t nports = (uint32_t)h->ports.last - h->ports.first + 1;
	char text[RANGE_STRLEN];
	int row;

	range_format(&h->ports, text);
	if (!a || strcmp(b->plan->pools[a->row.pool].name, h->pool))
		return errtext_set(err, EINVAL, "hold of %s: the address is not one of pool \"%s\"",
				   text, h->pool);
	row = plan_slice_row(b->plan, &h->ports);
	if (row < 0)
		return errtext_set(err, EINVAL,
				   "hold of %s: %u ports, the slices of pool \"%s\" have %u", text,
				   nports, h->pool, b->pool_of[a - b->plan->addrs]->slice_size);
	if (b->plan->slices[row].state == SLUICE_SLICE_HELD)
		return errtext_set(err, EINVAL, "hold of %s: held twice", text);
	return row;
}

static bool slice_keeps_blocks(const struct build *b, uint32_t row)
{
	return b->prev && slice_same(plan_slice(b->prev, row), &b->plan->slices[row]);
}

static int build_holds(struct build *b, const struct hold_table *holds, struct errtext *err)
{
	struct plan *p = b->plan;

	for (size_t i = 0; b->prev && i < b->prev->n_held; i++)
		blocks_mark(b->block_ends, &b->prev->slices[b->prev->held[i]]);
	for (size_t i = 0; i < holds->n; i++) {
		const struct hold *h = &holds->rows[i];
		struct sluice_slice *s;
		int row = hold_row(b, h, err);

		if (row < 0)
			return row;
		s = &p->slices[row];
		s->state = SLUICE_SLICE_HELD;
		s->epoch = h->epoch;
		s->not_after_ns = h->not_after_ns;
		s->fresh_s = (uint16_t)timers_least(&p->pools[s->pool].timers);
		if (!slice_keeps_blocks(b, (uint32_t)row))
			continue;
		s->block_base = b->prev->slices[row].block_base;
		blocks_mark(b->block_taken, s);
	}
	return 0;
}

static int build_blocks(struct build *b, struct errtext *err)
{
	struct plan *p = b->plan;

	for (size_t i = 0; i < p->n_held; i++) {
		struct sluice_slice *s = &p->slices[p->held[i]];
		uint32_t shift = slice_shift((uint32_t)s->last - s->first + 1);
		int base;

		if (slice_keeps_blocks(b, p->held[i]))
			continue;
		base = blocks_find(b, shift, true);
		if (base < 0)
			base = blocks_find(b, shift, false);
		if (base < 0)
			return errtext_set(err, ENOSPC,
					   "pool \"%s\": no room for the ports of its slices: %d "
					   "blocks of %d ports fit, for all protocols together: "
					   "hold fewer slices",
					   p->pools[s->pool].name, SLUICE_MAX_BLOCKS,
					   SLUICE_BLOCK_PORTS);
		s->block_base = (uint32_t)base;
		blocks_mark(b->block_taken, s);
	}
	return 0;
}

/* Zones */

/* The zone that prev has for the clients of a pool's row; 0: none. */
static uint16_t zone_before(const struct plan *prev, uint32_t row)
{
	for (size_t i = 0; prev && i < prev->n_clients; i++)
		if (prev->clients[i].value == row)
			return (uint16_t)prev->clients[i].key.pool;
	return 0;
}

static bool zone_free(const struct plan *p, const struct plan *prev, uint16_t zone)
{
	for (size_t i = 0; i < p->n_zones; i++)
		if (p->zones[i].zone == zone)
			return false;
	for (size_t i = 0; prev && i < prev->n_clients; i++)
		if (prev->clients[i].key.pool == zone)
			return false;
	return true;
}

/*
 * The number of the zone that clients of a pool come from. It is part of their flows' keys, so it stays while a pool that has it stays with
 * clients and interfaces, whichever these are.
 */
static uint16_t zone_choose(const struct build *b, size_t pool)
{
	const struct config_pool *pools = b->config->pools;
	uint16_t zone = 0;

	if (!pools[pool].n_interfaces)
		return 0;
	for (size_t i = 0; i < pool; i++)
		if (config_same_interfaces(&pools[i], &pools[pool]))
			return b->zone_of[i];
	for (size_t i = pool; i < b->config->n_pools && !zone; i++) {
		int row = plan_pool_row(b->plan, pools[i].name);

		assert(row >= 0);
		if (!config_same_interfaces(&pools[i], &pools[pool]))
			continue;
		zone = zone_before(b->prev, (uint32_t)row);
		/* Two pools that had one zone may part. */
		if (zone && !zone_free(b->plan, NULL, zone))
			zone = 0;
	}
	if (!zone)
		for (zone = 1; !zone_free(b->plan, b->prev, zone);)
			zone++;
	return zone;
}

static int build_zones(struct build *b, struct errtext *err)
{
	struct plan *p = b->plan;
	size_t n = 0;

	for (size_t i = 0; i < b->config->n_pools; i++)
		n += b->config->pools[i].n_interfaces;
	p->zones = calloc(n ? n : 1, sizeof(*p->zones));
	if (!p->zones)
		return errtext_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < b->config->n_pools; i++) {
		const struct config_pool *pool = &b->config->pools[i];
		uint16_t zone = zone_choose(b, i);
		bool known = !zone;

		b->zone_of[i] = zone;
		for (size_t k = 0; k < i; k++)
			known |= b->zone_of[k] == zone;
		if (known)
			continue;
		for (size_t k = 0; k < pool->n_interfaces; k++) {
			struct plan_zone *z = &p->zones[p->n_zones++];

			z->zone = zone;
			snprintf(z->interface, sizeof(z->interface), "%s", pool->interfaces[k]);
		}
	}
	if (p->n_zones > SLUICE_MAX_ZONES)
		return errtext_set(err, ENOSPC, "%zu interfaces of pools: at most %d fit",
				   p->n_zones, SLUICE_MAX_ZONES);
	return 0;
}

/* Prefixes */

static struct plan_prefix prefix_entry(uint32_t pool, const struct prefix *p, uint32_t value)
{
	struct plan_prefix e = { .value = value };

	e.key.prefixlen = SLUICE_LPM_POOL_BITS + p->len;
	e.key.pool = pool;
	e.key.addr = addr_to_abi(&p->addr);
	return e;
}

static const struct addr v4_mapped = { .b = { [10] = 0xff, [11] = 0xff } };

/* To the map IPv4 is a part of IPv6, ::ffff:0:0/96. A prefix of IPv6 that holds that part must leave it out. */
static bool prefix_holds_v4(const struct prefix *p)
{
	unsigned bit;

	for (bit = 0; bit < p->len && bit < PLAN_V4_BITS; bit++)
		if ((p->addr.b[bit / 8] ^ v4_mapped.b[bit / 8]) >> (7 - bit % 8) & 1)
			return false;
	return p->len < PLAN_V4_BITS;
}

/* The entries for a prefix: itself, or what is left of it without IPv4: its other halves, all the way down. Returns how many; to NULL: only that. */
static size_t prefix_entries(struct plan_prefix *to, uint32_t pool, const struct prefix *p)
{
	size_t n = 0;

	if (!prefix_holds_v4(p)) {
		if (to)
			*to = prefix_entry(pool, p, 1);
		return 1;
	}
	for (unsigned bit = p->len; bit < PLAN_V4_BITS; bit++, n++) {
		struct prefix half = { .len = (uint8_t)(bit + 1) };

		for (unsigned i = 0; i <= bit; i++)
			half.addr.b[i / 8] |= v4_mapped.b[i / 8] & 0x80 >> i % 8;
		half.addr.b[bit / 8] ^= 0x80 >> bit % 8;
		if (to)
			to[n] = prefix_entry(pool, &half, 1);
	}
	return n;
}

/* Sort, and drop what stands there twice. */
static size_t prefixes_settle(struct plan_prefix *list, size_t n)
{
	size_t kept = 0;

	if (n)
		qsort(list, n, sizeof(*list), plan_prefix_cmp);
	for (size_t i = 0; i < n; i++)
		if (!kept || plan_prefix_cmp(&list[kept - 1], &list[i]))
			list[kept++] = list[i];
	return kept;
}

static int build_prefixes(struct build *b, struct errtext *err)
{
	struct plan *p = b->plan;
	size_t n_clients = 0, n_no_nat = 0;

	for (size_t i = 0; i < b->config->n_pools; i++) {
		n_clients += b->config->pools[i].n_clients;
		for (size_t j = 0; j < b->config->pools[i].n_no_nat; j++)
			n_no_nat += prefix_entries(NULL, 0, &b->config->pools[i].no_nat[j]);
	}
	p->clients = calloc(n_clients ? n_clients : 1, sizeof(*p->clients));
	p->no_nat = calloc(n_no_nat ? n_no_nat : 1, sizeof(*p->no_nat));
	if (!p->clients || !p->no_nat)
		return errtext_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < b->config->n_pools; i++) {
		const struct config_pool *pool = &b->config->pools[i];
		int row = plan_pool_row(p, pool->name);

		assert(row >= 0);
		for (size_t j = 0; j < pool->n_clients; j++)
			p->clients[p->n_clients++] =
				prefix_entry(b->zone_of[i], &pool->clients[j], (uint32_t)row);
		for (size_t j = 0; j < pool->n_no_nat; j++)
			p->n_no_nat += prefix_entries(&p->no_nat[p->n_no_nat], (uint32_t)row,
						      &pool->no_nat[j]);
	}
	p->n_clients = prefixes_settle(p->clients, p->n_clients);
	p->n_no_nat = prefixes_settle(p->no_nat, p->n_no_nat);
	if (p->n_clients > SLUICE_MAX_PREFIXES)
		return errtext_set(err, ENOSPC, "%zu prefixes in \"clients\": at most %d fit",
				   p->n_clients, SLUICE_MAX_PREFIXES);
	if (p->n_no_nat > SLUICE_MAX_PREFIXES)
		return errtext_set(err, ENOSPC, "%zu prefixes in \"no-nat\": at most %d fit",
				   p->n_no_nat, SLUICE_MAX_PREFIXES);
	return 0;
}

int plan_build(const struct config *c, const struct hold_table *holds, const struct plan *prev,
	       struct plan **ret, struct errtext *err)
{
	struct build *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return errtext_set(err, ENOMEM, "out of memory");
	b->config = c;
	b->prev = prev;
	b->plan = plan_new(0);
	r = b->plan ? 0 : errtext_set(err, ENOMEM, "out of memory");
	if (!r)
		r = build_pools(b, err);
	if (!r)
		r = build_addrs(b, err);
	if (!r)
		r = build_regions(b, holds, err);
	if (!r)
		r = build_rows(b, err);
	if (!r)
		r = build_holds(b, holds, err);
	if (!r && plan_index(b->plan))
		r = errtext_set(err, ENOMEM, "out of memory");
	if (!r)
		r = build_blocks(b, err);
	if (!r)
		r = build_zones(b, err);
	if (!r)
		r = build_prefixes(b, err);
	if (!r)
		*ret = b->plan;
	else
		plan_free(b->plan);
	free(b->pool_of);
	free(b);
	return r;
}

/* Plans */

struct plan *plan_new(uint32_t n_rows)
{
	struct plan *p = calloc(1, sizeof(*p));

	if (p && rows_alloc(p, n_rows)) {
		free(p);
		return NULL;
	}
	return p;
}

void plan_free(struct plan *p)
{
	if (!p)
		return;
	free(p->addrs);
	free(p->slices);
	free(p->held);
	free(p->clients);
	free(p->no_nat);
	free(p->zones);
	free(p);
}

int plan_index(struct plan *p)
{
	uint32_t count[SLUICE_MAX_POOLS] = { 0 }, at[SLUICE_MAX_POOLS], n = 0;
	uint32_t *held;

	for (uint32_t row = 0; row < p->n_rows; row++)
		if (p->slices[row].state == SLUICE_SLICE_HELD)
			count[p->slices[row].pool]++;
	for (int pool = 0; pool < SLUICE_MAX_POOLS; pool++) {
		at[pool] = n;
		n += count[pool];
	}
	held = calloc(n ? n : 1, sizeof(*held));
	if (!held)
		return -ENOMEM;
	for (uint32_t row = 0; row < p->n_rows; row++)
		if (p->slices[row].state == SLUICE_SLICE_HELD)
			held[at[p->slices[row].pool]++] = row;
	for (int pool = 0; pool < SLUICE_MAX_POOLS; pool++)
		p->pools[pool].held =
			count[pool] ? (uint64_t)(at[pool] - count[pool]) << 32 | count[pool] : 0;
	free(p->held);
	p->held = held;
	p->n_held = n;
	return 0;
}

const struct sluice_slice *plan_slice(const struct plan *p, uint32_t row)
{
	static const struct sluice_slice none;

	assert(row < SLUICE_MAX_SLICES);
	return row < p->n_rows ? &p->slices[row] : &none;
}

int plan_pool_row(const struct plan *p, const char *name)
{
	for (int row = 0; row < SLUICE_MAX_POOLS; row++)
		if (p->pools[row].used &&
		    !strncmp(p->pools[row].name, name, sizeof(p->pools[row].name)))
			return row;
	return -ENOENT;
}

int plan_slice_row(const struct plan *p, const struct range *r)
{
	union sluice_addr addr = addr_to_abi(&r->addr);
	const struct plan_addr *a = plan_find_addr(p, &addr);
	uint32_t row;

	if (!a)
		return -ENOENT;
	row = a->row.base + ((uint32_t)r->first >> a->row.shift);
	if (p->slices[row].first != r->first || p->slices[row].last != r->last)
		return -ENOENT;
	return (int)row;
}
