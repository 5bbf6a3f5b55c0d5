// SPDX-License-Identifier: BSD-2-Clause
#include "hold.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

/* A slice that the configuration wants held. */
struct want {
	const char *pool;
	struct range ports;
};

static int place_cmp(const struct range *a, const struct range *b)
{
	int c = addr_cmp(&a->addr, &b->addr);

	return c ? c : (a->first > b->first) - (a->first < b->first);
}

static int want_cmp(const void *a, const void *b)
{
	return place_cmp(&((const struct want *)a)->ports, &((const struct want *)b)->ports);
}

static bool range_is_slice(const struct range *r)
{
	uint32_t size = (uint32_t)r->last - r->first + 1;

	return r->first <= r->last && !(size & (size - 1)) && !(r->first & (size - 1));
}

static bool hold_sound(const struct hold *h)
{
	size_t len = strnlen(h->pool, sizeof(h->pool));

	return len && len < sizeof(h->pool) && h->epoch && range_is_slice(&h->ports);
}

void hold_table_init(struct hold_table *t)
{
	*t = (struct hold_table){ 0 };
}

void hold_table_done(struct hold_table *t)
{
	free(t->rows);
	*t = (struct hold_table){ 0 };
}

static int hold_cmp(const void *a, const void *b)
{
	return place_cmp(&((const struct hold *)a)->ports, &((const struct hold *)b)->ports);
}

int hold_table_adopt(struct hold_table *t, struct hold *rows, size_t n)
{
	assert(!t->n && !t->rows);
	if (n)
		qsort(rows, n, sizeof(*rows), hold_cmp);
	for (size_t i = 0; i < n; i++) {
		if (!hold_sound(&rows[i]) ||
		    (i && range_overlaps(&rows[i - 1].ports, &rows[i].ports)))
			return -EINVAL;
	}
	t->rows = rows;
	t->n = n;
	return 0;
}

const struct hold *hold_table_find(const struct hold_table *t, const struct addr *a, uint16_t port)
{
	const struct range at = { .addr = *a, .first = port, .last = port };
	size_t lo = 0, hi = t->n;
	const struct hold *h;

	/* The last row that begins at or before port. */
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (place_cmp(&t->rows[mid].ports, &at) <= 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo)
		return NULL;
	h = &t->rows[lo - 1];
	return !addr_cmp(&h->ports.addr, a) && port <= h->ports.last ? h : NULL;
}

size_t hold_count(const struct hold_table *t, const char *pool)
{
	size_t n = 0;

	for (size_t i = 0; i < t->n; i++)
		n += !strcmp(t->rows[i].pool, pool);
	return n;
}

/* From a renewal to the deadline that it gives. */
static uint64_t hold_life_ns(uint32_t ttl_s)
{
	uint64_t ttl_ns = ttl_s * NS_PER_S;
	uint64_t margin_ns = ttl_ns / 100 * HOLD_DRIFT_PERCENT + HOLD_STOP_NS;

	return ttl_ns > margin_ns ? ttl_ns - margin_ns : 0;
}

uint64_t hold_deadline(uint64_t now_ns, uint32_t ttl_s)
{
	uint64_t life_ns = hold_life_ns(ttl_s);

	if (!ttl_s)
		return SLUICE_NEVER;
	return now_ns < SLUICE_NEVER - 1 - life_ns ? now_ns + life_ns : SLUICE_NEVER - 1;
}

uint64_t hold_next_renewal(const struct hold_table *t, uint32_t ttl_s)
{
	uint64_t life_ns = hold_life_ns(ttl_s), third_ns = ttl_s * NS_PER_S / 3;
	uint64_t next_ns = SLUICE_NEVER;

	for (size_t i = 0; i < t->n; i++) {
		uint64_t end_ns = t->rows[i].not_after_ns;

		if (!ttl_s && end_ns == SLUICE_NEVER)
			continue;
		if (!ttl_s || end_ns == SLUICE_NEVER || end_ns < life_ns)
			return 0;
		if (end_ns - life_ns + third_ns < next_ns)
			next_ns = end_ns - life_ns + third_ns;
	}
	return next_ns;
}

/* Every slice of the configuration, sorted. *ret is NULL when there is none. */
static int want_list(const struct config *config, struct want **ret, size_t *ret_n)
{
	struct want *list = NULL;
	size_t n = 0, k = 0;

	for (size_t i = 0; i < config->n_pools; i++)
		n += config->pools[i].n_slices;
	if (n) {
		list = calloc(n, sizeof(*list));
		if (!list)
			return -ENOMEM;
	}
	for (size_t i = 0; i < config->n_pools; i++) {
		const struct config_pool *pool = &config->pools[i];

		for (size_t j = 0; j < pool->n_slices; j++)
			list[k++] = (struct want){ pool->name, pool->slices[j] };
	}
	if (n)
		qsort(list, n, sizeof(*list), want_cmp);
	for (size_t i = 0; i < n; i++) {
		assert(range_is_slice(&list[i].ports));
		assert(!i || !range_overlaps(&list[i - 1].ports, &list[i].ports));
	}
	*ret = list;
	*ret_n = n;
	return 0;
}

static int changes_init(struct hold_changes *c, size_t n_rows, size_t n_after, uint32_t epoch)
{
	*c = (struct hold_changes){ .first_epoch = epoch, .next_epoch = epoch };
	c->rows = calloc(n_rows ? n_rows : 1, sizeof(*c->rows));
	c->after.rows = calloc(n_after ? n_after : 1, sizeof(*c->after.rows));
	if (!c->rows || !c->after.rows) {
		hold_changes_done(c);
		return -ENOMEM;
	}
	return 0;
}

static void changes_add(struct hold_changes *c, enum hold_verb verb, enum hold_why why,
			const struct hold *h)
{
	c->rows[c->n++] = (struct hold_change){ .verb = verb, .why = why, .hold = *h };
	c->count[verb]++;
	if (verb != HOLD_END)
		c->after.rows[c->after.n++] = *h;
}

static void changes_go_on(struct hold_changes *c, const struct hold *h, uint64_t not_after_ns)
{
	struct hold next = *h;

	next.not_after_ns = not_after_ns;
	changes_add(c, h->not_after_ns == not_after_ns ? HOLD_KEEP : HOLD_RENEW, HOLD_WHY_NONE,
		    &next);
}

static void changes_begin(struct hold_changes *c, const struct want *w, uint64_t not_after_ns)
{
	struct hold h = {
		.ports = w->ports,
		.epoch = c->next_epoch++,
		.not_after_ns = not_after_ns,
	};

	snprintf(h.pool, sizeof(h.pool), "%s", w->pool);
	changes_add(c, HOLD_BEGIN, HOLD_WHY_NONE, &h);
}

/* Why h ends. Of the sorted wanted slices only the one at i and the one before it can touch h. */
static enum hold_why end_reason(const struct hold *h, const struct want *want, size_t n, size_t i)
{
	if (i < n && range_overlaps(&want[i].ports, &h->ports))
		return want[i].ports.first == h->ports.first && want[i].ports.last == h->ports.last
			       ? HOLD_WHY_POOL
			       : HOLD_WHY_SIZE;
	if (i && range_overlaps(&want[i - 1].ports, &h->ports))
		return HOLD_WHY_SIZE;
	return HOLD_WHY_REMOVED;
}

/* Walk two sorted lists side by side. */
/* Walk two sorted lists side by side; add what ends, or all that does not. */
static void changes_merge(struct hold_changes *c, const struct hold_table *t,
			  const struct want *want, size_t n, uint64_t not_after_ns, bool ends)
{
	size_t i = 0, j = 0;

	while (i < n || j < t->n) {
		const struct hold *h = j < t->n ? &t->rows[j] : NULL;
		int order = !h ? -1 : i == n ? 1 : place_cmp(&want[i].ports, &h->ports);

		if (order < 0) {
			if (!ends)
				changes_begin(c, &want[i], not_after_ns);
			i++;
		} else if (!order && want[i].ports.last == h->ports.last &&
			   !strcmp(want[i].pool, h->pool)) {
			if (!ends)
				changes_go_on(c, h, not_after_ns);
			i++;
			j++;
		} else {
			if (ends)
				changes_add(c, HOLD_END, end_reason(h, want, n, i), h);
			j++;
		}
	}
}

int hold_reconcile_local(const struct config *config, const struct hold_table *t,
			 uint32_t next_epoch, uint64_t now_ns, struct hold_changes *ret,
			 struct errtext *err)
{
	struct hold_changes c;
	struct want *want;
	uint64_t not_after_ns;
	size_t n;
	int r;

	assert(next_epoch);
	r = want_list(config, &want, &n);
	if (r)
		return errtext_set(err, -r, "out of memory");
	r = changes_init(&c, n + t->n, n, next_epoch);
	if (!r) {
		not_after_ns = hold_deadline(now_ns, config->fleet.ttl_s);
		changes_merge(&c, t, want, n, not_after_ns, true);
		changes_merge(&c, t, want, n, not_after_ns, false);
	}
	free(want);
	if (r)
		return errtext_set(err, -r, "out of memory");
	if (c.count[HOLD_BEGIN] > UINT32_MAX - next_epoch) {
		hold_changes_done(&c);
		return errtext_set(err, EOVERFLOW,
				   "the epochs of this machine are used up (the next would be %u)",
				   next_epoch);
	}
	*ret = c;
	return 0;
}

int hold_renew(const struct hold_table *t, uint64_t now_ns, uint32_t ttl_s,
	       struct hold_changes *ret)
{
	struct hold_changes c;
	int r = changes_init(&c, t->n, t->n, 0);

	if (r)
		return r;
	for (size_t i = 0; i < t->n; i++)
		changes_go_on(&c, &t->rows[i], hold_deadline(now_ns, ttl_s));
	*ret = c;
	return 0;
}

bool hold_changes_empty(const struct hold_changes *c)
{
	return c->n == c->count[HOLD_KEEP];
}

void hold_apply(struct hold_table *t, struct hold_changes *c)
{
	assert(t->n == c->count[HOLD_KEEP] + c->count[HOLD_RENEW] + c->count[HOLD_END]);
	hold_table_done(t);
	*t = c->after;
	c->after = (struct hold_table){ 0 };
}

void hold_changes_done(struct hold_changes *c)
{
	free(c->rows);
	hold_table_done(&c->after);
	*c = (struct hold_changes){ 0 };
}

const char *hold_why_name(enum hold_why why)
{
	switch (why) {
	case HOLD_WHY_REMOVED:
		return "removed";
	case HOLD_WHY_POOL:
		return "pool";
	case HOLD_WHY_SIZE:
		return "size";
	case HOLD_WHY_NONE:
		break;
	}
	return "";
}
