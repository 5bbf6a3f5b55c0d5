/* SPDX-License-Identifier: BSD-2-Clause */
#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hold.h"

#define S 1000000000ULL

#define POOLS      3
#define SLICES_MAX 64

/* A configuration as the parser would give it: only what hold.c looks at. */
struct conf {
	struct config config;
	struct config_pool pools[POOLS];
	struct range slices[POOLS][SLICES_MAX];
};

static void conf_init(struct conf *c, uint32_t ttl_s)
{
	static const char *const names[POOLS] = { "alpha", "beta",
						  "a.pool-name_of-31-characters..." };

	*c = (struct conf){ 0 };
	c->config.pools = c->pools;
	c->config.n_pools = POOLS;
	c->config.fleet.ttl_s = ttl_s;
	for (int i = 0; i < POOLS; i++) {
		snprintf(c->pools[i].name, sizeof(c->pools[i].name), "%s", names[i]);
		c->pools[i].slices = c->slices[i];
	}
}

static struct addr ip(unsigned last)
{
	return addr_from_v4(htobe32(0xcb007100 + last)); /* 203.0.113.x */
}

static void conf_add(struct conf *c, int pool, unsigned last, unsigned first, unsigned ports)
{
	struct config_pool *p = &c->pools[pool];

	assert_true(p->n_slices < SLICES_MAX);
	p->slices[p->n_slices++] =
		(struct range){ ip(last), (uint16_t)first, (uint16_t)(first + ports - 1) };
}

static void reconcile(struct conf *c, const struct hold_table *t, uint32_t epoch, uint64_t now_ns,
		      struct hold_changes *ret)
{
	struct errtext err = { "" };

	assert_int_equal(hold_reconcile_local(&c->config, t, epoch, now_ns, ret, &err), 0);
}

/* Reconcile and apply; returns the next epoch. */
static uint32_t settle(struct conf *c, struct hold_table *t, uint32_t epoch)
{
	struct hold_changes ch;

	reconcile(c, t, epoch, 0, &ch);
	hold_apply(t, &ch);
	epoch = ch.next_epoch;
	hold_changes_done(&ch);
	return epoch;
}

static struct hold sample(unsigned last, unsigned first, unsigned end, uint32_t epoch)
{
	return (struct hold){ .pool = "alpha",
			      .ports = { ip(last), (uint16_t)first, (uint16_t)end },
			      .epoch = epoch,
			      .not_after_ns = SLUICE_NEVER };
}

static int adopt(const struct hold *rows, size_t n, struct hold_table *t)
{
	struct hold *copy = calloc(n, sizeof(*rows));
	int r;

	memcpy(copy, rows, n * sizeof(*rows));
	hold_table_init(t);
	r = hold_table_adopt(t, copy, n);
	if (r)
		free(copy);
	return r;
}

static void test_adopt(void **state)
{
	const struct hold good[] = { sample(8, 1024, 2047, 3), sample(7, 4096, 6143, 2),
				     sample(7, 2048, 4095, 9) };
	const struct hold cut = sample(7, 2048, 4000, 1), shifted = sample(7, 1000, 2023, 1),
			  unborn = sample(7, 2048, 4095, 0);
	struct hold bad[2] = { good[1], sample(7, 4096, 4159, 5) };
	struct hold nameless = good[0], endless = good[0];
	struct hold_table t;

	(void)state;
	assert_int_equal(adopt(good, 3, &t), 0);
	assert_int_equal(t.n, 3);
	assert_int_equal(t.rows[0].epoch, 9);
	assert_int_equal(t.rows[1].epoch, 2);
	assert_int_equal(t.rows[2].epoch, 3);
	hold_table_done(&t);
	assert_int_equal(adopt(good, 0, &t), 0);
	hold_table_done(&t);

	assert_int_equal(adopt(bad, 2, &t), -EINVAL);
	bad[1] = bad[0];
	assert_int_equal(adopt(bad, 2, &t), -EINVAL);
	assert_int_equal(adopt(&cut, 1, &t), -EINVAL);
	assert_int_equal(adopt(&shifted, 1, &t), -EINVAL);
	assert_int_equal(adopt(&unborn, 1, &t), -EINVAL);
	nameless.pool[0] = '\0';
	assert_int_equal(adopt(&nameless, 1, &t), -EINVAL);
	memset(endless.pool, 'x', sizeof(endless.pool));
	assert_int_equal(adopt(&endless, 1, &t), -EINVAL);
	assert_null(t.rows);
}

static void test_find_and_count(void **state)
{
	const struct hold rows[] = { sample(7, 2048, 4095, 1), sample(7, 8192, 10239, 2),
				     sample(9, 0, 65535, 3) };
	static const struct {
		unsigned last, port;
		uint32_t epoch;
	} cases[] = { { 7, 2047, 0 },  { 7, 2048, 1 },  { 7, 4095, 1 },  { 7, 4096, 0 },
		      { 7, 8191, 0 },  { 7, 8192, 2 },  { 7, 10239, 2 }, { 7, 10240, 0 },
		      { 7, 65535, 0 }, { 6, 2048, 0 },  { 8, 0, 0 },     { 8, 65535, 0 },
		      { 9, 0, 3 },     { 9, 65535, 3 }, { 10, 5000, 0 } };
	struct hold_table t, none;
	struct addr v6;

	(void)state;
	assert_int_equal(addr_parse("2001:db8::7", &v6), 0);
	assert_int_equal(adopt(rows, 3, &t), 0);
	hold_table_init(&none);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct addr a = ip(cases[i].last);
		const struct hold *h = hold_table_find(&t, &a, (uint16_t)cases[i].port);

		assert_int_equal(h ? h->epoch : 0, cases[i].epoch);
		assert_null(hold_table_find(&none, &a, (uint16_t)cases[i].port));
	}
	assert_null(hold_table_find(&t, &v6, 2048));
	assert_int_equal(hold_count(&t, "alpha"), 3);
	assert_int_equal(hold_count(&t, "alph"), 0);
	hold_table_done(&t);
}

static void test_deadline(void **state)
{
	struct hold h = sample(7, 2048, 4095, 1);

	(void)state;
	assert_true(hold_deadline(5 * S, 0) == SLUICE_NEVER);
	assert_true(hold_deadline(100 * S, 30) == 129 * S + 450000000);
	assert_true(hold_deadline(0, 2) == S + 730000000);
	assert_true(hold_deadline(0, 86400) == 86400 * S - 864 * S - 250000000);
	/* A finite deadline never turns into none. */
	assert_true(hold_deadline(SLUICE_NEVER - 1, 30) == SLUICE_NEVER - 1);
	assert_true(hold_deadline(0, UINT32_MAX) < SLUICE_NEVER);

	assert_true(hold_live(&h, SLUICE_NEVER - 1));
	h.not_after_ns = 7 * S;
	assert_true(hold_live(&h, 7 * S - 1));
	assert_false(hold_live(&h, 7 * S));
	h.not_after_ns = 0;
	assert_false(hold_live(&h, 0));
}

static void test_renewal(void **state)
{
	struct hold rows[] = { sample(7, 2048, 4095, 1), sample(7, 8192, 10239, 2) };
	struct hold_changes ch;
	struct hold_table t;

	(void)state;
	hold_table_init(&t);
	assert_true(hold_next_renewal(&t, 0) == SLUICE_NEVER);
	assert_true(hold_next_renewal(&t, 30) == SLUICE_NEVER);

	assert_int_equal(adopt(rows, 2, &t), 0);
	assert_true(hold_next_renewal(&t, 0) == SLUICE_NEVER);
	assert_true(hold_next_renewal(&t, 30) == 0); /* without a deadline it can't stay */

	assert_int_equal(hold_renew(&t, 100 * S, 30, &ch), 0);
	assert_int_equal(ch.count[HOLD_RENEW], 2);
	assert_false(hold_changes_empty(&ch));
	assert_true(t.rows[0].not_after_ns == SLUICE_NEVER); /* deciding changes nothing */
	hold_apply(&t, &ch);
	hold_changes_done(&ch);
	assert_true(t.rows[0].not_after_ns == 129 * S + 450000000);
	assert_true(t.rows[1].not_after_ns == 129 * S + 450000000);
	assert_int_equal(t.rows[0].epoch, 1);
	assert_int_equal(t.rows[1].epoch, 2);
	assert_true(hold_next_renewal(&t, 30) == 110 * S);
	assert_true(hold_next_renewal(&t, 0) == 0);
	/* The renewal is due while the hold still lives, for every allowed time to live. */
	for (uint32_t ttl_s = 2; ttl_s <= 86400; ttl_s++) {
		t.rows[0].not_after_ns = t.rows[1].not_after_ns = hold_deadline(500 * S, ttl_s);
		assert_true(hold_next_renewal(&t, ttl_s) == 500 * S + ttl_s * S / 3);
		assert_true(hold_live(&t.rows[0], hold_next_renewal(&t, ttl_s) + S / 2));
	}
	/* The earliest counts; one that has never been renewed is due. */
	t.rows[0].not_after_ns = hold_deadline(400 * S, 30);
	t.rows[1].not_after_ns = hold_deadline(300 * S, 30);
	assert_true(hold_next_renewal(&t, 30) == 310 * S);
	t.rows[0].not_after_ns = 0;
	assert_true(hold_next_renewal(&t, 30) == 0);

	assert_int_equal(hold_renew(&t, 300 * S, 30, &ch), 0);
	assert_int_equal(ch.count[HOLD_RENEW], 1);
	assert_int_equal(ch.count[HOLD_KEEP], 1); /* it had this deadline */
	hold_changes_done(&ch);
	hold_table_done(&t);
}

static void test_reconcile_cases(void **state)
{
	struct hold_changes ch;
	struct hold_table t;
	struct conf c;
	uint32_t epoch = 40;

	(void)state;
	hold_table_init(&t);

	/* First start: all begin, in the order of their places, whatever the order of the pools. */
	conf_init(&c, 0);
	conf_add(&c, 0, 9, 2048, 2048);
	conf_add(&c, 1, 7, 4096, 2048);
	conf_add(&c, 1, 7, 6144, 2048);
	reconcile(&c, &t, epoch, 5 * S, &ch);
	assert_int_equal(ch.n, 3);
	assert_int_equal(ch.count[HOLD_BEGIN], 3);
	assert_int_equal(ch.first_epoch, 40);
	assert_int_equal(ch.next_epoch, 43);
	assert_string_equal(ch.rows[0].hold.pool, "beta");
	assert_int_equal(ch.rows[0].hold.epoch, 40);
	assert_int_equal(ch.rows[2].hold.epoch, 42);
	assert_true(ch.rows[2].hold.not_after_ns == SLUICE_NEVER);
	assert_int_equal(t.n, 0);
	hold_apply(&t, &ch);
	epoch = ch.next_epoch;
	hold_changes_done(&ch);
	assert_int_equal(hold_count(&t, "alpha"), 1);
	assert_int_equal(hold_count(&t, "beta"), 2);

	/* The same again: nothing to do. */
	reconcile(&c, &t, epoch, 6 * S, &ch);
	assert_true(hold_changes_empty(&ch));
	assert_int_equal(ch.count[HOLD_KEEP], 3);
	assert_int_equal(ch.next_epoch, 43);
	hold_changes_done(&ch);

	/* A time to live comes: all go on with a deadline. */
	c.config.fleet.ttl_s = 30;
	reconcile(&c, &t, epoch, 100 * S, &ch);
	assert_int_equal(ch.count[HOLD_RENEW], 3);
	assert_int_equal(ch.next_epoch, 43);
	assert_true(ch.rows[1].hold.not_after_ns == 129 * S + 450000000);
	hold_changes_done(&ch);

	/* One taken out, one to another pool, one cut smaller. */
	conf_init(&c, 0);
	conf_add(&c, 2, 7, 4096, 2048);
	conf_add(&c, 1, 7, 7168, 1024);
	reconcile(&c, &t, epoch, 0, &ch);
	assert_int_equal(ch.n, 5);
	for (int i = 0; i < 3; i++)
		assert_int_equal(ch.rows[i].verb, HOLD_END);
	assert_int_equal(ch.rows[0].why, HOLD_WHY_POOL);
	assert_int_equal(ch.rows[0].hold.epoch, 40);
	assert_int_equal(ch.rows[1].why, HOLD_WHY_SIZE);
	assert_int_equal(ch.rows[2].why, HOLD_WHY_REMOVED);
	assert_int_equal(ch.rows[3].verb, HOLD_BEGIN);
	assert_int_equal(ch.rows[3].hold.epoch, 43);
	assert_string_equal(ch.rows[3].hold.pool, "a.pool-name_of-31-characters...");
	assert_int_equal(ch.rows[4].hold.epoch, 44);
	hold_apply(&t, &ch);
	epoch = ch.next_epoch;
	hold_changes_done(&ch);

	/* Back again: never with an old epoch. */
	conf_init(&c, 0);
	conf_add(&c, 0, 9, 2048, 2048);
	conf_add(&c, 1, 7, 4096, 4096);
	reconcile(&c, &t, epoch, 0, &ch);
	assert_int_equal(ch.count[HOLD_END], 2);
	assert_int_equal(ch.rows[0].why, HOLD_WHY_SIZE);
	assert_int_equal(ch.rows[1].why, HOLD_WHY_SIZE);
	assert_int_equal(ch.rows[2].hold.epoch, 45);
	assert_int_equal(ch.rows[3].hold.epoch, 46);
	hold_apply(&t, &ch);
	epoch = ch.next_epoch;
	hold_changes_done(&ch);

	/* Everything taken out. */
	conf_init(&c, 0);
	epoch = settle(&c, &t, epoch);
	assert_int_equal(t.n, 0);
	assert_int_equal(epoch, 47);
	hold_table_done(&t);
}

static void test_epochs_used_up(void **state)
{
	struct errtext err = { "" };
	struct hold_changes ch, untouched;
	struct hold_table t;
	struct conf c;

	(void)state;
	hold_table_init(&t);
	conf_init(&c, 0);
	conf_add(&c, 0, 7, 2048, 2048);
	assert_int_equal(settle(&c, &t, UINT32_MAX - 1), UINT32_MAX);
	assert_int_equal(t.rows[0].epoch, UINT32_MAX - 1);
	/* What is held can be held on to; nothing new can begin. */
	assert_int_equal(settle(&c, &t, UINT32_MAX), UINT32_MAX);
	conf_add(&c, 0, 7, 4096, 2048);
	memset(&ch, 0x5a, sizeof(ch));
	untouched = ch;
	assert_int_equal(hold_reconcile_local(&c.config, &t, UINT32_MAX, 0, &ch, &err), -EOVERFLOW);
	assert_non_null(strstr(err.s, "used up"));
	assert_memory_equal(&ch, &untouched, sizeof(ch));
	assert_int_equal(t.n, 1);
	hold_table_done(&t);
}

static void test_why_names(void **state)
{
	(void)state;
	assert_string_equal(hold_why_name(HOLD_WHY_REMOVED), "removed");
	assert_string_equal(hold_why_name(HOLD_WHY_POOL), "pool");
	assert_string_equal(hold_why_name(HOLD_WHY_SIZE), "size");
	assert_string_equal(hold_why_name(HOLD_WHY_NONE), "");
}

/* ---- against a model: what every single unit of 64 ports belongs to ---- */

#define ADDRS      4
#define UNITS      16
#define UNIT_PORTS 64
#define BASE       4096

struct unit {
	int pool; /* -1: nobody wants or holds it */
	unsigned start, len;
	uint32_t epoch;
};

struct model {
	struct unit want[ADDRS][UNITS];
	struct unit have[ADDRS][UNITS];
};

static uint64_t seed = 0x9e3779b97f4a7c15;

static unsigned rnd(unsigned below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned)((seed >> 11) % below);
}

static bool same_slice(const struct unit *a, const struct unit *b)
{
	return a->pool == b->pool && a->start == b->start && a->len == b->len;
}

/* Give one address another pool, slice size and choice of slices, or only toggle one slice. */
static void want_change(struct model *m)
{
	unsigned a = rnd(ADDRS), len = 1U << rnd(4), bit = rnd(UNITS);
	struct unit *row = m->want[a];
	int pool = (int)rnd(POOLS);
	unsigned mask = rnd(4) ? rnd(1U << UNITS) : 0;

	if (rnd(2)) {
		struct unit u = row[bit];

		for (unsigned i = 0; u.pool >= 0 && i < u.len; i++)
			row[u.start + i].pool = -1;
		if (u.pool >= 0 && rnd(2))
			for (unsigned i = 0; i < u.len; i++)
				row[u.start + i].pool = pool;
		return;
	}
	for (unsigned i = 0; i < UNITS; i++)
		row[i] = (struct unit){ mask >> (i / len) & 1 ? pool : -1, i / len * len, len, 0 };
}

static void want_conf(const struct model *m, struct conf *c, uint32_t ttl_s)
{
	conf_init(c, ttl_s);
	for (unsigned a = 0; a < ADDRS; a++)
		for (unsigned i = 0; i < UNITS; i++) {
			const struct unit *u = &m->want[a][i];

			if (u->pool >= 0 && u->start == i)
				conf_add(c, u->pool, a, BASE + i * UNIT_PORTS, u->len * UNIT_PORTS);
		}
}

static enum hold_why model_why(const struct model *m, unsigned a, const struct unit *old)
{
	const struct unit *u = &m->want[a][old->start];

	if (u->pool >= 0 && u->start == old->start && u->len == old->len)
		return HOLD_WHY_POOL;
	for (unsigned i = 0; i < old->len; i++)
		if (m->want[a][old->start + i].pool >= 0)
			return HOLD_WHY_SIZE;
	return HOLD_WHY_REMOVED;
}

/* Every row of the change set is right, and how many there must be. */
static void check_changes(const struct model *m, const struct conf *c,
			  const struct hold_changes *ch, uint64_t not_after_ns)
{
	size_t ends = 0, begins = 0, go_on = 0;

	for (unsigned a = 0; a < ADDRS; a++)
		for (unsigned i = 0; i < UNITS; i++) {
			const struct unit *w = &m->want[a][i], *h = &m->have[a][i];
			bool same = w->pool >= 0 && h->pool >= 0 && same_slice(w, h);

			go_on += same && w->start == i;
			begins += !same && w->pool >= 0 && w->start == i;
			ends += !same && h->pool >= 0 && h->start == i;
		}
	assert_int_equal(ch->count[HOLD_END], ends);
	assert_int_equal(ch->count[HOLD_BEGIN], begins);
	assert_int_equal(ch->count[HOLD_KEEP] + ch->count[HOLD_RENEW], go_on);
	assert_int_equal(ch->n, ends + begins + go_on);
	assert_int_equal(ch->next_epoch - ch->first_epoch, begins);

	begins = 0;
	for (size_t k = 0; k < ch->n; k++) {
		const struct hold_change *r = &ch->rows[k];
		unsigned a = r->hold.ports.addr.b[15];
		unsigned i = (r->hold.ports.first - BASE) / UNIT_PORTS;
		const struct unit *u = r->verb == HOLD_END ? &m->have[a][i] : &m->want[a][i];

		assert_int_equal(r->verb == HOLD_END, k < ends);
		if (k && k != ends)
			assert_true(memcmp(&r->hold.ports.addr, &r[-1].hold.ports.addr, 16) > 0 ||
				    (a == r[-1].hold.ports.addr.b[15] &&
				     r->hold.ports.first > r[-1].hold.ports.last));
		assert_true(u->pool >= 0);
		assert_string_equal(r->hold.pool, c->pools[u->pool].name);
		assert_int_equal(u->start, i);
		assert_int_equal(r->hold.ports.last - r->hold.ports.first + 1U,
				 u->len * UNIT_PORTS);
		if (r->verb == HOLD_BEGIN)
			assert_int_equal(r->hold.epoch, ch->first_epoch + begins++);
		else
			assert_int_equal(r->hold.epoch, m->have[a][i].epoch);
		if (r->verb == HOLD_END)
			assert_int_equal(r->why, model_why(m, a, u));
		else
			assert_true(r->why == HOLD_WHY_NONE &&
				    r->hold.not_after_ns == not_after_ns);
	}
}

/* The model's own view after the change: what is wanted, with the epochs that the rows gave. */
static void model_take(struct model *m, const struct hold_changes *ch)
{
	for (size_t k = 0; k < ch->n; k++) {
		const struct hold *h = &ch->rows[k].hold;
		unsigned a = h->ports.addr.b[15], i = (h->ports.first - BASE) / UNIT_PORTS;

		if (ch->rows[k].verb != HOLD_END)
			m->want[a][i].epoch = h->epoch;
	}
	memcpy(m->have, m->want, sizeof(m->have));
	for (unsigned a = 0; a < ADDRS; a++)
		for (unsigned i = 0; i < UNITS; i++)
			if (m->have[a][i].pool >= 0)
				m->have[a][i].epoch = m->have[a][m->have[a][i].start].epoch;
}

static void check_table(const struct model *m, const struct conf *c, const struct hold_table *t)
{
	size_t n[POOLS] = { 0 };

	for (unsigned a = 0; a < ADDRS; a++)
		for (unsigned i = 0; i < UNITS; i++) {
			const struct unit *u = &m->have[a][i];
			struct addr addr = ip(a);
			const struct hold *h = hold_table_find(
				t, &addr, (uint16_t)(BASE + i * UNIT_PORTS + rnd(UNIT_PORTS)));

			assert_int_equal(!h, u->pool < 0);
			if (!h)
				continue;
			n[u->pool] += u->start == i;
			assert_int_equal(h->epoch, u->epoch);
			assert_string_equal(h->pool, c->pools[u->pool].name);
			assert_int_equal(h->ports.first, BASE + u->start * UNIT_PORTS);
		}
	for (int p = 0; p < POOLS; p++)
		assert_int_equal(hold_count(t, c->pools[p].name), n[p]);
	assert_int_equal(t->n, n[0] + n[1] + n[2]);
}

/* What a restart does: the rows come back from the store, in any order. */
static void reload(struct hold_table *t)
{
	struct hold_table again;
	struct hold *rows = calloc(t->n + 1, sizeof(*rows));

	memcpy(rows, t->rows, t->n * sizeof(*rows));
	for (size_t i = 1; i < t->n; i++) {
		size_t j = rnd((unsigned)i + 1);
		struct hold x = rows[i];

		rows[i] = rows[j];
		rows[j] = x;
	}
	hold_table_init(&again);
	assert_int_equal(hold_table_adopt(&again, rows, t->n), 0);
	hold_table_done(t);
	*t = again;
}

static void test_model(void **state)
{
	static const uint32_t ttls[] = { 0, 2, 30, 86400 };
	static struct model m;
	size_t verbs[HOLD_END + 1] = { 0 }, whys[HOLD_WHY_SIZE + 1] = { 0 };
	struct hold_table t;
	uint64_t now_ns = S;
	uint32_t epoch = 1, ttl_s = 0;
	static struct conf c;

	(void)state;
	hold_table_init(&t);
	for (unsigned a = 0; a < ADDRS; a++)
		for (unsigned i = 0; i < UNITS; i++)
			m.want[a][i] = m.have[a][i] = (struct unit){ -1, 0, 0, 0 };

	for (int step = 0; step < 100000; step++) {
		struct hold_changes ch;

		if (rnd(8))
			want_change(&m);
		if (!rnd(16))
			ttl_s = ttls[rnd(4)];
		now_ns += rnd(3) * S;
		want_conf(&m, &c, ttl_s);
		reconcile(&c, &t, epoch, now_ns, &ch);
		check_changes(&m, &c, &ch, hold_deadline(now_ns, ttl_s));
		if (rnd(8)) {
			for (size_t k = 0; k < ch.n; k++) {
				verbs[ch.rows[k].verb]++;
				whys[ch.rows[k].why]++;
			}
			model_take(&m, &ch);
			hold_apply(&t, &ch);
			epoch = ch.next_epoch;
		} /* else it could not be stored, and nothing has happened */
		hold_changes_done(&ch);
		check_table(&m, &c, &t);
		if (!rnd(16))
			reload(&t);
	}
	hold_table_done(&t);
	/* The walk has been everywhere. */
	for (int v = 0; v <= HOLD_END; v++)
		assert_true(verbs[v] > 1000);
	for (int w = 0; w <= HOLD_WHY_SIZE; w++)
		assert_true(whys[w] > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_adopt),           cmocka_unit_test(test_find_and_count),
		cmocka_unit_test(test_deadline),        cmocka_unit_test(test_renewal),
		cmocka_unit_test(test_reconcile_cases), cmocka_unit_test(test_epochs_used_up),
		cmocka_unit_test(test_why_names),       cmocka_unit_test(test_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
