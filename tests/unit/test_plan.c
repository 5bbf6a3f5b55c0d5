/* SPDX-License-Identifier: BSD-2-Clause */
/* Single facts of the plan; random sequences are in test_plan_walk.c. */
#include "plan_test.h"

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
	pool->filtering[SLUICE_UDP] = SLUICE_FILTER_NONE;
	pool->unleased = SLUICE_UNLEASED_DENY;
	pool->timers.udp = 123;
	pool->ports_per_client = 1000;
	pool->udp_reuse_s = 119;
	pool->states_per_client = 2000;
	pool->flows_per_second = 30;
	pool->flows_burst = 40;
	pool->mss_clamp = 1360;
	pool->ipv4_id = SLUICE_ID_SET_DF;
	pool->hairpin = true;
	pool->inbound_refresh = true;
	pool->paired = true;
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
	assert_int_equal(row->timers.udp, 123);
	assert_int_equal(row->timers.udp_short, 30);
	assert_int_equal(row->timers.icmp, 60);
	for (int l4 = 0; l4 < SLUICE_L4_MAX; l4++)
		assert_int_equal(row->client_ports[l4], 1000);
	assert_int_equal(row->client_states, 2000);
	assert_int_equal(row->reuse_s, 119);
	assert_int_equal(row->client_rate, 30);
	assert_int_equal(row->client_burst, 40);
	assert_int_equal(row->mss, 1360);
	assert_int_equal(row->id_mode, SLUICE_ID_SET_DF);
	assert_int_equal(row->hairpin, 1);
	assert_int_equal(row->inbound_refresh, 1);
	/* A single address needs no pairing; two of a family do. */
	assert_int_equal(row->pairing, SLUICE_PAIRING_ARBITRARY);
	plan_free(p);
	pool_addrs(pool, 2, 1);
	p = world_plan(&w, NULL);
	assert_int_equal(p->pools[0].pairing, SLUICE_PAIRING_PAIRED);
	plan_free(p);
	pool->paired = false;
	p = world_plan(&w, NULL);
	assert_int_equal(p->pools[0].pairing, SLUICE_PAIRING_ARBITRARY);
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

static uint32_t zone_of_client(const struct plan *p, const char *pool)
{
	for (size_t i = 0; i < p->n_clients; i++)
		if ((int)p->clients[i].value == plan_pool_row(p, pool))
			return p->clients[i].key.pool;
	fail_msg("pool %s has no clients", pool);
	return 0;
}

static uint32_t zone_of_interface(const struct plan *p, const char *name)
{
	for (size_t i = 0; i < p->n_zones; i++)
		if (!strcmp(p->zones[i].interface, name))
			return p->zones[i].zone;
	return 0;
}

/* Zones: one for each set of interfaces, with a number that stays whatever happens to the others. */
static void test_zones(void **state)
{
	char l1[] = "l1", l2[] = "l2", l3[] = "l3", l4[] = "l4";
	char *one[] = { l1, l2 }, *other[] = { l2, l1 }, *two[] = { l3 }, *three[] = { l4 };
	static const char *const names[] = { "a", "b", "c", "d" };
	static struct world w, v;
	struct plan *p, *q;
	uint32_t zone_b, zone_d;

	(void)state;
	world_init(&w);
	for (uint32_t i = 0; i < 4; i++) {
		struct config_pool *pool = world_pool(&w, names[i], 2048);

		pool_addrs(pool, 1 + i, 1);
		pool_prefix(&pool->clients, &pool->n_clients, i == 2 ? "11.0.0.0/8" : "10.0.0.0/8");
		pool->interfaces = i == 1 ? one : i == 2 ? other : two;
		pool->n_interfaces = i == 0 ? 0 : i == 3 ? 1 : 2;
	}
	p = world_plan(&w, NULL);
	assert_int_equal(p->n_clients, 4);
	zone_b = zone_of_client(p, "b");
	zone_d = zone_of_client(p, "d");
	assert_int_equal(zone_of_client(p, "a"), 0);
	assert_int_equal(zone_of_client(p, "c"), zone_b);
	assert_int_not_equal(zone_b, 0);
	assert_int_not_equal(zone_d, 0);
	assert_int_not_equal(zone_b, zone_d);
	assert_int_equal(p->n_zones, 3);
	assert_int_equal(zone_of_interface(p, "l1"), zone_b);
	assert_int_equal(zone_of_interface(p, "l2"), zone_b);
	assert_int_equal(zone_of_interface(p, "l3"), zone_d);
	/* Without b and c, and d with other interfaces: its number stays. A new pool does not get the one of b at once. */
	world_init(&v);
	for (uint32_t i = 0; i < 2; i++) {
		struct config_pool *pool = world_pool(&v, i ? "d" : "e", 2048);

		pool_addrs(pool, 4 + i, 1);
		pool_prefix(&pool->clients, &pool->n_clients, "10.0.0.0/8");
		pool->interfaces = i ? three : one;
		pool->n_interfaces = i ? 1 : 2;
	}
	q = world_plan(&v, p);
	assert_int_equal(zone_of_client(q, "d"), zone_d);
	assert_int_equal(zone_of_interface(q, "l4"), zone_d);
	assert_int_equal(zone_of_interface(q, "l3"), 0);
	assert_int_not_equal(zone_of_client(q, "e"), zone_b);
	assert_int_not_equal(zone_of_client(q, "e"), zone_d);
	assert_int_not_equal(zone_of_client(q, "e"), 0);
	plan_free(p);
	plan_free(q);
	world_done(&w);
	world_done(&v);
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
		cmocka_unit_test(test_zones),
		cmocka_unit_test(test_pool_rows),
		cmocka_unit_test(test_epochs),
		cmocka_unit_test(test_reuse_when_full),
		cmocka_unit_test(test_blocks_when_full),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_bad_holds),
		cmocka_unit_test(test_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
