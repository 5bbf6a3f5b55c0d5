// SPDX-License-Identifier: BSD-2-Clause
#include "plan.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Building configurations and holds by hand */

#define WORLD_POOLS 5
#define WORLD_ADDRS 6
#define WORLD_HOLDS 4096

struct world {
	struct config config;
	struct config_pool pools[SLUICE_MAX_POOLS + 1];
	struct hold_table holds;
	struct hold rows[WORLD_HOLDS];
};

static struct addr test_addr(uint32_t n)
{
	struct addr a;
	char text[ADDR_STRLEN];

	snprintf(text, sizeof(text), "203.%u.%u.%u", n >> 16 & 255, n >> 8 & 255, n & 255);
	assert_int_equal(addr_parse(text, &a), 0);
	return a;
}

static void world_init(struct world *w)
{
	memset(w, 0, sizeof(*w));
	w->config.pools = w->pools;
	w->holds.rows = w->rows;
}

static void world_done(struct world *w)
{
	for (size_t i = 0; i < w->config.n_pools; i++) {
		free(w->pools[i].addresses);
		free(w->pools[i].clients);
		free(w->pools[i].no_nat);
	}
}

static struct config_pool *world_pool(struct world *w, const char *name, uint32_t slice_size)
{
	struct config_pool *p = &w->pools[w->config.n_pools++];

	snprintf(p->name, sizeof(p->name), "%s", name);
	p->slice_size = slice_size;
	p->mapping[SLUICE_TCP] = SLUICE_OVERLOAD;
	p->mapping[SLUICE_UDP] = SLUICE_EIM;
	p->mapping[SLUICE_ICMP] = SLUICE_EIM;
	p->filtering = SLUICE_FILTER_ADDRESS;
	p->unleased = SLUICE_UNLEASED_REPORT;
	return p;
}

static void pool_addrs(struct config_pool *p, uint32_t first, uint32_t n)
{
	p->addresses = realloc(p->addresses, (p->n_addresses + n) * sizeof(*p->addresses));
	assert_non_null(p->addresses);
	for (uint32_t i = 0; i < n; i++)
		p->addresses[p->n_addresses++] = test_addr(first + i);
}

static void pool_prefix(struct prefix **list, size_t *n, const char *text)
{
	*list = realloc(*list, (*n + 1) * sizeof(**list));
	assert_non_null(*list);
	assert_int_equal(prefix_parse(text, &(*list)[(*n)++]), 0);
}

/* Added in any order; world_sort() before use. */
static struct hold *world_hold(struct world *w, const char *pool, uint32_t addr, uint32_t first,
			       uint32_t nports, uint32_t epoch)
{
	struct hold *h = &w->rows[w->holds.n++];

	assert_true(w->holds.n <= WORLD_HOLDS);
	memset(h, 0, sizeof(*h));
	snprintf(h->pool, sizeof(h->pool), "%s", pool);
	h->ports.addr = test_addr(addr);
	h->ports.first = (uint16_t)first;
	h->ports.last = (uint16_t)(first + nports - 1);
	h->epoch = epoch;
	h->not_after_ns = SLUICE_NEVER;
	return h;
}

static int hold_order(const void *a, const void *b)
{
	const struct hold *x = a, *y = b;
	int c = addr_cmp(&x->ports.addr, &y->ports.addr);

	return c ? c : (int)x->ports.first - (int)y->ports.first;
}

static void world_sort(struct world *w)
{
	qsort(w->rows, w->holds.n, sizeof(w->rows[0]), hold_order);
}

static struct plan *world_plan(struct world *w, const struct plan *prev)
{
	struct plan *p = NULL;
	struct errtext err = { "" };

	world_sort(w);
	if (plan_build(&w->config, &w->holds, prev, &p, &err))
		fail_msg("plan_build: %s", err.s);
	return p;
}

/* The failure and its text. */
static void world_refused(struct world *w, const struct plan *prev, int r, const char *text)
{
	struct plan *p = NULL;
	struct errtext err = { "" };

	world_sort(w);
	assert_int_equal(plan_build(&w->config, &w->holds, prev, &p, &err), r);
	assert_null(p);
	if (!strstr(err.s, text))
		fail_msg("\"%s\" is not in \"%s\"", text, err.s);
}

static const struct plan_addr *addr_of(const struct plan *p, uint32_t n)
{
	struct addr a = test_addr(n);

	for (size_t i = 0; i < p->n_addrs; i++)
		if (!memcmp(&p->addrs[i].addr, &a, sizeof(a)))
			return &p->addrs[i];
	return NULL;
}

static uint32_t row_of(const struct plan *p, uint32_t addr, uint32_t port)
{
	const struct plan_addr *a = addr_of(p, addr);

	assert_non_null(a);
	return a->row.base + (port >> a->row.shift);
}

/* Single facts */

static void test_rows(void **state)
{
	static struct world w;
	struct config_pool *pool;
	struct hold *h;
	struct plan *p;
	const struct sluice_slice *s;
	uint32_t row;

	(void)state;
	world_init(&w);
	pool = world_pool(&w, "default", 2048);
	pool_addrs(pool, 7, 1);
	h = world_hold(&w, "default", 7, 40960, 2048, 5);
	h->not_after_ns = 123456789;
	p = world_plan(&w, NULL);

	assert_int_equal(p->n_addrs, 1);
	assert_int_equal(p->addrs[0].row.shift, 11);
	assert_int_equal(p->addrs[0].row.pool, 0);
	row = row_of(p, 7, 41000);
	assert_int_equal(plan_slice_row(p, &h->ports), row);
	s = &p->slices[row];
	assert_int_equal(s->state, SLUICE_SLICE_HELD);
	assert_memory_equal(&s->addr, &h->ports.addr, 16);
	assert_int_equal(s->first, 40960);
	assert_int_equal(s->last, 43007);
	assert_int_equal(s->epoch, 5);
	assert_int_equal(s->not_after_ns, 123456789);
	assert_int_equal(s->fresh_s, 30);
	assert_int_equal(s->pool, 0);

	/* A neighbour: described, and not held. */
	s = &p->slices[row + 1];
	assert_int_equal(s->state, SLUICE_SLICE_NONE);
	assert_int_equal(s->first, 43008);
	assert_int_equal(s->last, 45055);
	assert_int_equal(s->epoch, 0);
	assert_int_equal(p->slices[row_of(p, 7, 65535)].last, 65535);

	assert_int_equal(p->n_held, 1);
	assert_int_equal(p->held[0], row);
	assert_int_equal(plan_held_first(&p->pools[0]), 0);
	assert_int_equal(plan_held_count(&p->pools[0]), 1);
	plan_free(p);
	world_done(&w);
}

static void test_policy(void **state)
{
	static struct world w;
	struct config_pool *pool;
	struct sluice_pool *row;
	struct plan *p;

	(void)state;
	world_init(&w);
	pool = world_pool(&w, "p", 64);
	pool_addrs(pool, 1, 1);
	pool->filtering = SLUICE_FILTER_NONE;
	pool->unleased = SLUICE_UNLEASED_DENY;
	p = world_plan(&w, NULL);
	row = &p->pools[plan_pool_row(p, "p")];

	assert_int_equal(row->used, 1);
	assert_int_equal(row->unleased, SLUICE_UNLEASED_DENY);
	assert_int_equal(row->mapping[SLUICE_TCP], SLUICE_OVERLOAD);
	assert_int_equal(row->mapping[SLUICE_UDP], SLUICE_EIM);
	assert_int_equal(row->mapping[SLUICE_ICMP], SLUICE_EIM);
	assert_int_equal(row->filtering[SLUICE_UDP], SLUICE_FILTER_NONE);
	/* RFC 5508: not by the pool's choice. */
	assert_int_equal(row->filtering[SLUICE_ICMP], SLUICE_FILTER_ADDRESS);
	assert_int_equal(row->timers.tcp_established, 7440);
	assert_int_equal(row->timers.tcp_opening, 240);
	assert_int_equal(row->timers.tcp_closing, 240);
	assert_int_equal(row->timers.tcp_time_wait, 120);
	assert_int_equal(row->timers.tcp_reset, 240);
	assert_int_equal(row->timers.udp, 300);
	assert_int_equal(row->timers.udp_short, 30);
	assert_int_equal(row->timers.icmp, 60);
	plan_free(p);

	pool->mapping[SLUICE_ICMP] = SLUICE_OVERLOAD;
	p = world_plan(&w, NULL);
	assert_int_equal(p->pools[0].mapping[SLUICE_ICMP], SLUICE_EIM);
	assert_int_equal(plan_pool_row(p, "q"), -ENOENT);
	plan_free(p);
	world_done(&w);
}

static void test_prefixes(void **state)
{
	static struct world w;
	struct config_pool *a, *b;
	struct addr at;
	struct plan *p;

	(void)state;
	world_init(&w);
	a = world_pool(&w, "a", 2048);
	b = world_pool(&w, "b", 2048);
	pool_addrs(a, 1, 1);
	pool_addrs(b, 2, 1);
	pool_prefix(&a->clients, &a->n_clients, "10.1.0.0/16");
	pool_prefix(&b->clients, &b->n_clients, "10.2.3.4");
	pool_prefix(&b->no_nat, &b->n_no_nat, "192.0.2.0/24");
	pool_prefix(&b->no_nat, &b->n_no_nat, "192.0.2.0/24");
	p = world_plan(&w, NULL);

	assert_int_equal(p->n_clients, 2);
	assert_int_equal(p->clients[0].key.prefixlen, 32 + 96 + 16);
	assert_int_equal(p->clients[0].key.pool, 0);
	addr_parse("10.1.0.0", &at);
	assert_memory_equal(&p->clients[0].key.addr, &at, 16);
	assert_int_equal(p->clients[0].value, plan_pool_row(p, "a"));
	assert_int_equal(p->clients[1].key.prefixlen, 32 + 128);
	assert_int_equal(p->clients[1].value, plan_pool_row(p, "b"));

	assert_int_equal(p->n_no_nat, 1);
	assert_int_equal(p->no_nat[0].key.prefixlen, 32 + 96 + 24);
	assert_int_equal(p->no_nat[0].key.pool, plan_pool_row(p, "b"));
	assert_int_equal(p->no_nat[0].value, 1);
	plan_free(p);
	world_done(&w);
}

/* What the data plane would find: the longest prefix that holds the address. */
static bool no_nat_holds(const struct plan *p, const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse(text, &a), 0);
	for (size_t i = 0; i < p->n_no_nat; i++) {
		uint32_t len = p->no_nat[i].key.prefixlen - SLUICE_LPM_POOL_BITS;
		const uint8_t *b = (const uint8_t *)&p->no_nat[i].key.addr;
		bool holds = true;

		for (uint32_t bit = 0; bit < len; bit++)
			holds = holds && !((a.b[bit / 8] ^ b[bit / 8]) >> (7 - bit % 8) & 1);
		if (holds)
			return true;
	}
	return false;
}

/* To the map IPv4 is a part of IPv6: a short prefix of IPv6 must not speak for it. */
static void test_prefixes6(void **state)
{
	static const struct {
		const char *prefix;
		size_t entries;
		const char *in, *out;
	} cases[] = {
		{ "2001:db8::/32", 1, "2001:db8:ffff::1", "2001:db9::1" },
		{ "::/0", 96, "2001:db8::1", "192.0.2.1" },
		{ "::/0", 96, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "255.255.255.255" },
		{ "::/0", 96, "::1", "0.0.0.0" },
		{ "::/0", 96, "::fffe:ffff:ffff", "127.0.0.1" },
		{ "::/95", 1, "::1:2:3", "192.0.2.1" },
		{ "::fffe:0:0/95", 1, "::fffe:ffff:ffff", "192.0.2.1" },
		{ "::/80", 16, "::7fff:1:1", "10.0.0.1" },
		{ "0.0.0.0/0", 1, "192.0.2.1", "2001:db8::1" },
	};
	static struct world w;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct config_pool *a;
		struct plan *p;

		world_init(&w);
		a = world_pool(&w, "a", 2048);
		pool_addrs(a, 1, 1);
		pool_prefix(&a->no_nat, &a->n_no_nat, cases[i].prefix);
		p = world_plan(&w, NULL);
		assert_int_equal(p->n_no_nat, cases[i].entries);
		assert_true(no_nat_holds(p, cases[i].in));
		assert_false(no_nat_holds(p, cases[i].out));
		plan_free(p);
		world_done(&w);
	}
}

static void test_pool_rows(void **state)
{
	static struct world w;
	struct plan *p1, *p2, *p3;
	int a, b;

	(void)state;
	world_init(&w);
	pool_addrs(world_pool(&w, "a", 2048), 1, 1);
	pool_addrs(world_pool(&w, "b", 2048), 2, 1);
	p1 = world_plan(&w, NULL);
	a = plan_pool_row(p1, "a");
	b = plan_pool_row(p1, "b");
	world_done(&w);

	/* "a" goes, "c" comes and stands first: it gets neither row. */
	world_init(&w);
	pool_addrs(world_pool(&w, "c", 2048), 3, 1);
	pool_addrs(world_pool(&w, "b", 2048), 2, 1);
	p2 = world_plan(&w, p1);
	assert_int_equal(plan_pool_row(p2, "b"), b);
	assert_int_not_equal(plan_pool_row(p2, "c"), a);
	assert_int_not_equal(plan_pool_row(p2, "c"), b);

	/* Once more, and a's row is free. */
	pool_addrs(world_pool(&w, "d", 2048), 4, 1);
	p3 = world_plan(&w, p2);
	assert_int_equal(plan_pool_row(p3, "d"), a);
	plan_free(p1);
	plan_free(p2);
	plan_free(p3);
	world_done(&w);
}

static void test_epochs(void **state)
{
	static struct world w;
	struct hold *h;
	struct plan *p1, *p2;
	uint32_t row;

	(void)state;
	world_init(&w);
	pool_addrs(world_pool(&w, "a", 2048), 1, 2);
	h = world_hold(&w, "a", 1, 4096, 2048, 5);
	world_hold(&w, "a", 2, 4096, 2048, 6);
	p1 = world_plan(&w, NULL);
	row = row_of(p1, 1, 4096);

	/* A later epoch: the same row and blocks. */
	h->epoch = 7;
	p2 = world_plan(&w, p1);
	assert_int_equal(row_of(p2, 1, 4096), row);
	assert_int_equal(p2->slices[row].epoch, 7);
	assert_int_equal(p2->slices[row].block_base, p1->slices[row].block_base);
	plan_free(p2);

	/* An earlier one, as after the loss of the store: flows of the row could not be told apart, so it moves. */
	h->epoch = 3;
	p2 = world_plan(&w, p1);
	assert_int_not_equal(row_of(p2, 1, 4096), row);
	assert_int_equal(row_of(p2, 2, 4096), row_of(p1, 2, 4096));
	assert_int_not_equal(p2->slices[row_of(p2, 1, 4096)].block_base,
			     p1->slices[row].block_base);
	plan_free(p2);
	plan_free(p1);
	world_done(&w);
}

/* Slices of the smallest size take 1024 rows an address: with 16 addresses there is no spare room at all. */
static void test_reuse_when_full(void **state)
{
	static struct world w;
	struct plan *p1, *p2;
	struct hold *h;

	(void)state;
	world_init(&w);
	pool_addrs(world_pool(&w, "a", 64), 1, 16);
	h = world_hold(&w, "a", 1, 4096, 64, 5);
	p1 = world_plan(&w, NULL);
	world_done(&w);

	world_init(&w);
	pool_addrs(world_pool(&w, "b", 64), 101, 16);
	h = world_hold(&w, "b", 101, 4096, 64, 5);
	for (uint32_t i = 1; i < 16; i++)
		world_hold(&w, "b", 101 + i, 4096, 64, 5);
	world_refused(&w, p1, -ENOSPC, "16384");
	/* One address holds nothing at that port: it may have the rows. */
	world_sort(&w);
	assert_ptr_equal(h, &w.rows[0]);
	h->ports.first += 64;
	h->ports.last += 64;
	for (uint32_t i = 1; i < 16; i++)
		w.rows[i].epoch = 6;
	p2 = world_plan(&w, p1);
	assert_int_equal(p2->n_held, 16);
	plan_free(p2);
	plan_free(p1);
	world_done(&w);
}

static void test_blocks_when_full(void **state)
{
	static struct world w;
	struct plan *p1, *p2;

	(void)state;
	/* 32 slices of 32768 ports are 1536 blocks each: half of the table; 64 are all of it. */
	world_init(&w);
	pool_addrs(world_pool(&w, "a", 32768), 1, 64);
	for (uint32_t i = 0; i < 64; i++)
		world_hold(&w, "a", 1 + i, 32768, 32768, 1 + i);
	p1 = world_plan(&w, NULL);
	world_done(&w);

	world_init(&w);
	pool_addrs(world_pool(&w, "b", 2048), 1, 64);
	for (uint32_t i = 0; i < 1024; i++)
		world_hold(&w, "b", 1 + i / 16, 32768 + 2048 * (i % 16), 2048, 100 + i);
	p2 = world_plan(&w, p1);
	assert_int_equal(p2->n_held, 1024);
	plan_free(p1);

	world_hold(&w, "b", 1, 4096, 2048, 5000);
	world_refused(&w, p2, -ENOSPC, "98304 blocks");
	plan_free(p2);
	world_done(&w);
}

static void test_limits(void **state)
{
	static struct world w;
	struct config_pool *p;
	char text[64];

	(void)state;
	world_init(&w);
	pool_addrs(world_pool(&w, "big", 32768), 1, SLUICE_MAX_ADDRS + 1);
	world_refused(&w, NULL, -ENOSPC, "at most 1024");
	world_done(&w);

	world_init(&w);
	pool_addrs(world_pool(&w, "fine", 64), 1, 17);
	world_refused(&w, NULL, -ENOSPC, "17408 slices, at most 16384");
	world_done(&w);

	world_init(&w);
	for (int i = 0; i <= SLUICE_MAX_POOLS; i++) {
		snprintf(text, sizeof(text), "p%d", i);
		pool_addrs(world_pool(&w, text, 2048), 1 + (uint32_t)i, 1);
	}
	world_refused(&w, NULL, -ENOSPC, "at most 64 pools");
	world_done(&w);

	world_init(&w);
	p = world_pool(&w, "a", 2048);
	pool_addrs(p, 1, 1);
	for (int i = 0; i <= SLUICE_MAX_PREFIXES; i++) {
		snprintf(text, sizeof(text), "10.%d.%d.0/24", i >> 8, i & 255);
		pool_prefix(&p->clients, &p->n_clients, text);
	}
	world_refused(&w, NULL, -ENOSPC, "4097 prefixes in \"clients\": at most 4096");
	p->n_clients--;
	pool_prefix(&p->no_nat, &p->n_no_nat, "192.0.2.0/24");
	plan_free(world_plan(&w, NULL));
	for (int i = 0; i < SLUICE_MAX_PREFIXES; i++) {
		snprintf(text, sizeof(text), "11.%d.%d.0/24", i >> 8, i & 255);
		pool_prefix(&p->no_nat, &p->n_no_nat, text);
	}
	world_refused(&w, NULL, -ENOSPC, "4097 prefixes in \"no-nat\": at most 4096");
	world_done(&w);
}

static void test_bad_holds(void **state)
{
	static struct world w;

	(void)state;
	world_init(&w);
	pool_addrs(world_pool(&w, "a", 2048), 1, 1);
	pool_addrs(world_pool(&w, "b", 2048), 2, 1);

	world_hold(&w, "b", 1, 4096, 2048, 1);
	world_refused(&w, NULL, -EINVAL, "203.0.0.1:4096-6143");
	w.holds.n = 0;
	world_hold(&w, "a", 3, 4096, 2048, 1);
	world_refused(&w, NULL, -EINVAL, "not one of pool \"a\"");
	w.holds.n = 0;
	world_hold(&w, "a", 1, 4096, 1024, 1);
	world_refused(&w, NULL, -EINVAL, "1024 ports, the slices of pool \"a\" have 2048");
	w.holds.n = 0;
	world_hold(&w, "a", 1, 4096, 2048, 1);
	world_hold(&w, "a", 1, 4096, 2048, 1);
	world_refused(&w, NULL, -EINVAL, "held twice");
	world_done(&w);
}

/* Properties, over random sequences */

static uint64_t seed;

static uint32_t rnd(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)((seed >> 32) % n);
}

/* What the random walk changes: a pool for each address, a size for each pool, and some slices. */
struct walk {
	bool used[WORLD_POOLS];
	unsigned name[WORLD_POOLS]; /* renamed now and then */
	uint32_t size[WORLD_POOLS];
	int pool_of[WORLD_ADDRS]; /* or -1 */
	struct {
		uint32_t addr, first, epoch;
	} held[64];
	size_t n_held;
	uint32_t epoch;
	bool rising; /* epochs, as those of a store that was not lost */
};

static void walk_drop(struct walk *k, uint32_t addr)
{
	size_t kept = 0;

	for (size_t i = 0; i < k->n_held; i++)
		if (k->held[i].addr != addr)
			k->held[kept++] = k->held[i];
	k->n_held = kept;
}

static uint32_t walk_epoch(struct walk *k)
{
	return k->rising ? ++k->epoch : 1 + rnd(6);
}

static void walk_step(struct walk *k)
{
	static const uint32_t sizes[] = { 64, 256, 2048, 4096, 32768 };
	uint32_t pool = rnd(WORLD_POOLS), addr = rnd(WORLD_ADDRS), size;

	switch (rnd(12)) {
	case 0: /* a pool comes or goes */
		k->used[pool] = !k->used[pool];
		if (k->used[pool])
			k->name[pool] += rnd(2);
		for (uint32_t a = 0; a < WORLD_ADDRS; a++)
			if (!k->used[pool] && k->pool_of[a] == (int)pool) {
				k->pool_of[a] = -1;
				walk_drop(k, a);
			}
		return;
	case 1: /* another slice size */
		k->size[pool] = sizes[rnd(sizeof(sizes) / sizeof(sizes[0]))];
		for (uint32_t a = 0; a < WORLD_ADDRS; a++)
			if (k->pool_of[a] == (int)pool)
				walk_drop(k, a);
		return;
	case 2: /* an address goes to another pool, or away */
		k->pool_of[addr] = k->used[pool] && rnd(4) ? (int)pool : -1;
		walk_drop(k, addr);
		return;
	case 3: /* a hold is lost and won again */
		if (k->n_held)
			k->held[rnd((uint32_t)k->n_held)].epoch = walk_epoch(k);
		return;
	case 4:
	case 5: /* a hold ends */
		if (k->n_held) {
			size_t i = rnd((uint32_t)k->n_held);

			k->held[i] = k->held[--k->n_held];
		}
		return;
	}
	if (k->pool_of[addr] < 0 || k->n_held == sizeof(k->held) / sizeof(k->held[0]))
		return;
	size = k->size[k->pool_of[addr]];
	k->held[k->n_held].addr = addr;
	k->held[k->n_held].first = rnd(65536 / size) * size;
	for (size_t i = 0; i < k->n_held; i++)
		if (k->held[i].addr == addr && k->held[i].first == k->held[k->n_held].first)
			return;
	k->held[k->n_held++].epoch = walk_epoch(k);
}

static void walk_world(const struct walk *k, struct world *w)
{
	char name[32];

	w->holds.n = 0;
	world_done(w);
	w->config.n_pools = 0;
	memset(w->pools, 0, sizeof(w->pools[0]) * WORLD_POOLS);
	for (uint32_t i = 0; i < WORLD_POOLS; i++) {
		struct config_pool *p;

		if (!k->used[i])
			continue;
		snprintf(name, sizeof(name), "p%u-%u", i, k->name[i]);
		p = world_pool(w, name, k->size[i]);
		for (uint32_t a = 0; a < WORLD_ADDRS; a++)
			if (k->pool_of[a] == (int)i)
				pool_addrs(p, a, 1);
		for (size_t h = 0; h < k->n_held; h++)
			if (k->pool_of[k->held[h].addr] == (int)i)
				world_hold(w, name, k->held[h].addr, k->held[h].first, k->size[i],
					   k->held[h].epoch);
	}
	assert_int_equal(w->holds.n, k->n_held);
}

static bool same_slice(const struct sluice_slice *a, const struct sluice_slice *b)
{
	return !memcmp(&a->addr, &b->addr, sizeof(a->addr)) && a->first == b->first &&
	       a->last == b->last && a->pool == b->pool;
}

static bool blocks_overlap(const struct sluice_slice *a, const struct sluice_slice *b)
{
	uint32_t na = plan_block_rows((uint32_t)a->last - a->first + 1);
	uint32_t nb = plan_block_rows((uint32_t)b->last - b->first + 1);

	return a->block_base < b->block_base + nb && b->block_base < a->block_base + na;
}

/* The plan by itself. */
static void check_plan(const struct world *w, const struct plan *p)
{
	uint32_t at = 0;

	for (size_t i = 0; i < p->n_addrs; i++) {
		const struct sluice_addr_row *a = &p->addrs[i].row;

		assert_true(a->base + (65536u >> a->shift) <= SLUICE_MAX_SLICES);
		assert_true(p->pools[a->pool].used);
		for (size_t j = 0; j < i; j++) {
			const struct sluice_addr_row *b = &p->addrs[j].row;

			assert_true(a->base >= b->base + (65536u >> b->shift) ||
				    b->base >= a->base + (65536u >> a->shift));
		}
	}
	assert_int_equal(p->n_held, w->holds.n);
	for (size_t i = 0; i < w->holds.n; i++) {
		const struct hold *h = &w->rows[i];
		int row = plan_slice_row(p, &h->ports);
		const struct sluice_slice *s;

		assert_true(row >= 0);
		s = &p->slices[row];
		assert_int_equal(s->state, SLUICE_SLICE_HELD);
		assert_int_equal(s->epoch, h->epoch);
		assert_memory_equal(&s->addr, &h->ports.addr, 16);
		assert_int_equal(s->first, h->ports.first);
		assert_int_equal(s->last, h->ports.last);
		assert_string_equal(p->pools[s->pool].name, h->pool);
	}
	for (size_t i = 0; i < p->n_held; i++)
		for (size_t j = 0; j < i; j++)
			assert_false(
				blocks_overlap(&p->slices[p->held[i]], &p->slices[p->held[j]]));
	for (uint32_t pool = 0; pool < SLUICE_MAX_POOLS; pool++) {
		for (uint32_t i = 0; i < plan_held_count(&p->pools[pool]); i++)
			assert_int_equal(
				p->slices[p->held[plan_held_first(&p->pools[pool]) + i]].pool,
				pool);
		at += plan_held_count(&p->pools[pool]);
	}
	assert_int_equal(at, p->n_held);
}

/* Can a held slice of this address not stay where it was, since a flow there might be taken for its own? */
static bool must_move(const struct plan *was, const struct plan_addr *a, const struct plan *p)
{
	const struct plan_addr *now = NULL;

	for (size_t i = 0; i < p->n_addrs; i++)
		if (!memcmp(&p->addrs[i].addr, &a->addr, sizeof(a->addr)))
			now = &p->addrs[i];
	assert_non_null(now);
	for (uint32_t i = 0; i < 65536u >> a->row.shift; i++) {
		const struct sluice_slice *old = plan_slice(was, a->row.base + i);
		const struct sluice_slice *new = &p->slices[now->row.base + i];

		if (old->state && new->state &&new->epoch < old->epoch)
			return true;
	}
	return false;
}

/* The step from one plan to the next. */
static void check_step(const struct plan *was, const struct plan *p, bool rising)
{
	for (uint32_t row = 0; row < SLUICE_MAX_POOLS; row++) {
		int now = was->pools[row].used ? plan_pool_row(p, was->pools[row].name) : -ENOENT;

		if (now >= 0)
			assert_int_equal(now, row);
		else if (was->pools[row].used)
			assert_false(p->pools[row].used);
	}
	for (size_t i = 0; i < was->n_addrs; i++)
		for (size_t j = 0; j < p->n_addrs; j++) {
			const struct plan_addr *a = &was->addrs[i], *b = &p->addrs[j];

			if (memcmp(&a->addr, &b->addr, sizeof(a->addr)) ||
			    a->row.pool != b->row.pool || a->row.shift != b->row.shift)
				continue;
			if (rising || !must_move(was, a, p))
				assert_int_equal(a->row.base, b->row.base);
			else
				assert_int_not_equal(a->row.base, b->row.base);
		}
	/* Here there is always room enough for new regions beside what is just given up. */
	for (size_t i = 0; i < p->n_addrs; i++) {
		const struct sluice_addr_row *b = &p->addrs[i].row;
		bool stays = false;

		for (size_t j = 0; j < was->n_addrs; j++)
			stays |= !memcmp(&was->addrs[j], &p->addrs[i], sizeof(p->addrs[i]));
		for (uint32_t k = 0; !stays && k < 65536u >> b->shift; k++)
			assert_int_equal(plan_slice(was, b->base + k)->state, SLUICE_SLICE_NONE);
	}
	for (size_t i = 0; i < p->n_held; i++) {
		const struct sluice_slice *s = &p->slices[p->held[i]];
		const struct sluice_slice *old = plan_slice(was, p->held[i]);

		if (old->state == SLUICE_SLICE_HELD) {
			/* Here there is always room enough: a row passes on to nobody but the same slice. */
			assert_true(same_slice(old, s));
			assert_true(s->epoch >= old->epoch);
			assert_int_equal(s->block_base, old->block_base);
		}
		for (size_t j = 0; j < was->n_held; j++)
			if (was->held[j] != p->held[i])
				assert_false(blocks_overlap(s, &was->slices[was->held[j]]));
	}
}

static void walk(uint64_t from, bool rising, int steps)
{
	static struct world w;
	struct walk k = { .rising = rising };
	struct plan *was = NULL, *p;
	size_t most = 0;

	seed = from;
	world_init(&w);
	for (int i = 0; i < WORLD_POOLS; i++)
		k.size[i] = 2048;
	for (int i = 0; i < WORLD_ADDRS; i++)
		k.pool_of[i] = -1;
	for (int step = 0; step < steps; step++) {
		walk_step(&k);
		while (!rnd(4))
			walk_step(&k);
		walk_world(&k, &w);
		p = world_plan(&w, was);
		check_plan(&w, p);
		if (was)
			check_step(was, p, rising);
		most = k.n_held > most ? k.n_held : most;
		plan_free(was);
		was = p;
	}
	assert_true(most > 5); /* the walk went somewhere */
	plan_free(was);
	world_done(&w);
}

static void test_walk_rising(void **state)
{
	(void)state;
	walk(0x9e3779b97f4a7c15, true, 10000);
}

static void test_walk_any(void **state)
{
	(void)state;
	walk(0xd1b54a32d192ed03, false, 10000);
}

/* Building again changes nothing, and a plan indexes itself the same way. */
static void test_again(void **state)
{
	static struct world w;
	struct plan *p1, *p2;
	uint32_t *held;

	(void)state;
	world_init(&w);
	pool_addrs(world_pool(&w, "a", 2048), 1, 3);
	pool_addrs(world_pool(&w, "b", 256), 9, 2);
	world_hold(&w, "a", 2, 4096, 2048, 1);
	world_hold(&w, "b", 9, 4096, 256, 2);
	world_hold(&w, "a", 1, 8192, 2048, 3);
	p1 = world_plan(&w, NULL);
	p2 = world_plan(&w, p1);
	assert_memory_equal(p1->pools, p2->pools, sizeof(p1->pools));
	assert_int_equal(p1->n_rows, p2->n_rows);
	assert_memory_equal(p1->slices, p2->slices, p1->n_rows * sizeof(*p1->slices));
	assert_memory_equal(p1->addrs, p2->addrs, p1->n_addrs * sizeof(*p1->addrs));
	assert_memory_equal(p1->held, p2->held, 3 * sizeof(*p1->held));
	held = p2->held;
	p2->held = NULL;
	assert_int_equal(plan_index(p2), 0);
	assert_memory_equal(p2->held, held, 3 * sizeof(*held));
	free(held);
	plan_free(p1);
	plan_free(p2);
	world_done(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_policy),
		cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_prefixes6),
		cmocka_unit_test(test_pool_rows),
		cmocka_unit_test(test_epochs),
		cmocka_unit_test(test_reuse_when_full),
		cmocka_unit_test(test_blocks_when_full),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_bad_holds),
		cmocka_unit_test(test_again),
		cmocka_unit_test(test_walk_rising),
		cmocka_unit_test(test_walk_any),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
