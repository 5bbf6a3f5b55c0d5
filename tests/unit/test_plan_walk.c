/* SPDX-License-Identifier: BSD-2-Clause */
/* Properties of the plan, over random sequences. */
#include "plan_test.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_walk_rising),
		cmocka_unit_test(test_walk_any),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
