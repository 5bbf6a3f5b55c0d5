/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of the plan share: configurations and holds, built by hand. */
#ifndef PLAN_TEST_H
#define PLAN_TEST_H

#include "plan.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WORLD_POOLS 5
#define WORLD_ADDRS 6
#define WORLD_HOLDS 4096

struct world {
	struct config config;
	struct config_pool pools[SLUICE_MAX_POOLS + 1];
	struct hold_table holds;
	struct hold rows[WORLD_HOLDS];
};

static inline struct addr test_addr(uint32_t n)
{
	struct addr a;
	char text[ADDR_STRLEN];

	snprintf(text, sizeof(text), "203.%u.%u.%u", n >> 16 & 255, n >> 8 & 255, n & 255);
	assert_int_equal(addr_parse(text, &a), 0);
	return a;
}

static inline void world_init(struct world *w)
{
	memset(w, 0, sizeof(*w));
	w->config.pools = w->pools;
	w->holds.rows = w->rows;
}

static inline void world_done(struct world *w)
{
	for (size_t i = 0; i < w->config.n_pools; i++) {
		free(w->pools[i].addresses);
		free(w->pools[i].clients);
		free(w->pools[i].no_nat);
	}
}

static inline struct config_pool *world_pool(struct world *w, const char *name, uint32_t slice_size)
{
	struct config_pool *p = &w->pools[w->config.n_pools++];

	snprintf(p->name, sizeof(p->name), "%.*s", CONFIG_NAME_MAX, name);
	p->slice_size = slice_size;
	p->mapping[SLUICE_TCP] = SLUICE_OVERLOAD;
	p->mapping[SLUICE_UDP] = SLUICE_EIM;
	p->mapping[SLUICE_ICMP] = SLUICE_EIM;
	for (int l4 = 0; l4 < SLUICE_L4_MAX; l4++)
		p->filtering[l4] = SLUICE_FILTER_ADDRESS;
	p->timers = config_timers_default;
	p->unleased = SLUICE_UNLEASED_REPORT;
	return p;
}

static inline void pool_addrs(struct config_pool *p, uint32_t first, uint32_t n)
{
	p->addresses = realloc(p->addresses, (p->n_addresses + n) * sizeof(*p->addresses));
	assert_non_null(p->addresses);
	for (uint32_t i = 0; i < n; i++)
		p->addresses[p->n_addresses++] = test_addr(first + i);
}

static inline void pool_prefix(struct prefix **list, size_t *n, const char *text)
{
	*list = realloc(*list, (*n + 1) * sizeof(**list));
	assert_non_null(*list);
	assert_int_equal(prefix_parse(text, &(*list)[(*n)++]), 0);
}

/* Added in any order; world_sort() before use. */
static inline struct hold *world_hold(struct world *w, const char *pool, uint32_t addr,
				      uint32_t first, uint32_t nports, uint32_t epoch)
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

static inline int hold_order(const void *a, const void *b)
{
	const struct hold *x = a, *y = b;
	int c = addr_cmp(&x->ports.addr, &y->ports.addr);

	return c ? c : (int)x->ports.first - (int)y->ports.first;
}

static inline void world_sort(struct world *w)
{
	qsort(w->rows, w->holds.n, sizeof(w->rows[0]), hold_order);
}

static inline struct plan *world_plan(struct world *w, const struct plan *prev)
{
	struct plan *p = NULL;
	struct errtext err = { "" };

	world_sort(w);
	if (plan_build(&w->config, &w->holds, prev, &p, &err))
		fail_msg("plan_build: %s", err.s);
	return p;
}

/* The failure and its text. */
static inline void world_refused(struct world *w, const struct plan *prev, int r, const char *text)
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

static inline uint32_t row_of(const struct plan *p, uint32_t addr, uint32_t port)
{
	const struct plan_addr *a = addr_of(p, addr);

	assert_non_null(a);
	return a->row.base + (port >> a->row.shift);
}

#endif
