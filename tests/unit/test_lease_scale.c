/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * As many leases as a machine may have, on as many ports: in, out, and the search for the last free port. Rates by processor time are printed, not judged; with sanitizers
 * they are a few times lower than those of the daemon.
 */
#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "lease.h"

#define LEASES      SLUICE_MAX_LEASED
#define SLICE_PORTS 2048
#define SLICES      (LEASES / SLICE_PORTS)
#define PER_ADDR    16
#define BATCH       256

static const struct lease_limits limits = { .leases = LEASES, .cool_down_s = 60 };
static struct lease_slice slices[SLICES];
static uint64_t id = 1;

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void print_rate(const char *what, unsigned n, double begin_s)
{
	print_message("%-44s %10.0f a second\n", what, n / (now_s() - begin_s));
}

static uint64_t nobody(void *arg, size_t slice, enum sluice_l4 l4, uint16_t first)
{
	(void)arg, (void)slice, (void)l4, (void)first;
	return 0;
}

static struct lease_table *table_new(void)
{
	struct lease_table *t = lease_table_new(&limits);

	assert_non_null(t);
	for (size_t i = 0; i < SLICES; i++) {
		strcpy(slices[i].pool, i % 3 ? "alpha" : "beta");
		slices[i].ports.addr = addr_from_v4(htobe32(0xcb007100 + (uint32_t)i / PER_ADDR));
		slices[i].ports.first = (uint16_t)(32768 + i % PER_ADDR * SLICE_PORTS);
		slices[i].ports.last = (uint16_t)(slices[i].ports.first + SLICE_PORTS - 1);
		slices[i].live = true;
	}
	assert_int_equal(lease_slices_set(t, slices, SLICES), 0);
	return t;
}

static const struct lease_request one = {
	.protos = LEASE_TCP,
	.ports = 1,
	.leases = 1,
	.parity = -1,
	.ttl_s = 3600,
	.holder = { .uid = 1000, .pid = 4711, .comm = "crawler", .cgroup = "/system.slice/x" },
	.name = "crawl",
};

static struct lease *take(struct lease_table *t, uint64_t random)
{
	struct errtext err = { "" };
	struct lease *l;
	struct range r;

	if (lease_choose(t, &one, random, nobody, NULL, &r, &err))
		fail_msg("%s", err.s);
	l = lease_grant(t, id, &one, &r, id, 0);
	id++;
	assert_non_null(l);
	return l;
}

static void give(struct lease_table *t, struct lease *l, uint64_t now_ns)
{
	assert_int_equal(lease_release(t, l, LEASE_WHY_RELEASED, now_ns, 0), 0);
}

static void cool_all(struct lease_table *t)
{
	struct lease *l;

	lease_keep(t);
	while ((l = lease_cooled(t, SLUICE_NEVER)))
		lease_free(t, l);
}

static void test_scale(void **state)
{
	struct lease_table *t = table_new();
	struct lease **all = calloc(LEASES, sizeof(*all));
	struct errtext err;
	struct lease_counts c;
	struct range r;
	double begin;
	unsigned n;

	(void)state;
	assert_non_null(all);
	begin = now_s();
	for (n = 0; n < LEASES; n++) {
		all[n] = take(t, n);
		if (n % BATCH == BATCH - 1)
			lease_keep(t);
	}
	print_rate("grants, from empty to the last port", n, begin);
	lease_count(t, NULL, &c);
	assert_int_equal(c.active, LEASES);
	assert_int_equal(c.ports[SLUICE_TCP], LEASES);

	/* Full: in TCP only. The machine's limit is met first. */
	assert_int_equal(lease_choose(t, &one, 1, nobody, NULL, &r, &err), -EDQUOT);
	lease_limits_set(t, &(struct lease_limits){ .leases = 2 * LEASES, .cool_down_s = 60 });
	begin = now_s();
	for (n = 0; n < 10000; n++)
		assert_int_equal(lease_choose(t, &one, n, nobody, NULL, &r, &err), -ENOSPC);
	print_rate("refusals when full", n, begin);

	/* One port at a time becomes free, and is found whatever the search begins with. */
	begin = now_s();
	for (n = 0; n < 10000; n++) {
		unsigned i = n * 7919 % LEASES;
		struct range was = all[i]->ports;

		give(t, all[i], n);
		cool_all(t);
		all[i] = take(t, n);
		assert_memory_equal(&all[i]->ports, &was, sizeof(was));
	}
	lease_keep(t);
	print_rate("releases and grants of the last free port", n, begin);

	/* No two neighbours: half of all ports are free, and no pair of ports is. */
	for (n = 0; n < LEASES; n++)
		if (all[n]->ports.first % 2)
			give(t, all[n], n);
	cool_all(t);
	{
		struct lease_request pair = one;

		pair.ports = 2;
		begin = now_s();
		for (n = 0; n < 20; n++)
			assert_int_equal(lease_choose(t, &pair, n, nobody, NULL, &r, &err),
					 -ENOSPC);
		print_rate("refusals, every second port free", n, begin);
	}
	begin = now_s();
	for (n = 0; n < LEASES / 2; n++) {
		take(t, n);
		if (n % BATCH == BATCH - 1)
			lease_keep(t);
	}
	print_rate("grants from half full on", n, begin);
	free(all);

	/* A walk, then out, the longest held first. */
	begin = now_s();
	n = 0;
	for (struct lease *l = lease_next(t, 0); l; l = lease_next(t, l->id))
		n++;
	assert_int_equal(n, LEASES);
	print_rate("leases in a walk by id", n, begin);
	begin = now_s();
	for (n = 0; n < LEASES; n++) {
		give(t, lease_next(t, 0), n);
		cool_all(t);
	}
	print_rate("releases, all of them", n, begin);
	assert_null(lease_next(t, 0));
	lease_count(t, NULL, &c);
	assert_int_equal(c.active + c.cooling, 0);
	lease_table_free(t);
}

static void test_churn(void **state)
{
	enum { STANDING = 100000, PAIRS = 200000 };
	struct lease_table *t = table_new();
	static struct lease *some[STANDING];
	double begin;
	unsigned n;

	(void)state;
	lease_limits_set(t, &(struct lease_limits){ .leases = LEASES });
	for (n = 0; n < STANDING; n++)
		some[n] = take(t, n);
	lease_keep(t);
	begin = now_s();
	for (n = 0; n < PAIRS; n++) {
		unsigned i = (unsigned)(n * 2654435761U % STANDING);

		give(t, some[i], n);
		some[i] = take(t, n);
		if (n % BATCH == BATCH - 1)
			cool_all(t);
	}
	print_rate("releases and grants among 100,000", n, begin);
	lease_table_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scale),
		cmocka_unit_test(test_churn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
