// SPDX-License-Identifier: BSD-2-Clause
/* Where leases are kept: slots, the hash of ids, the order of ids, and the heaps of those that expire or cool down. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lease_private.h"

#define CAP_MIN 256

int lease_store_new(struct lease_table *t)
{
	t->order = t->realloc(NULL, sizeof(*t->order));
	if (!t->order)
		return -ENOMEM;
	memset(t->order, 0, sizeof(*t->order));
	return 0;
}

void lease_store_free(struct lease_table *t)
{
	for (size_t i = 0; i < t->n_chunks; i++)
		free(t->chunk[i]);
	free(t->chunk);
	free(t->ids);
	if (t->order)
		free(t->order->item);
	free(t->order);
	free(t->expiry.item);
	free(t->cooling.item);
	free(t->heap_at);
}

/* The hash of ids: open addressing, linear probing, never more than half full. */

static size_t id_place(const struct lease_table *t, uint64_t id)
{
	return (size_t)(lease_mix(id) >> (64 - t->ids_bits));
}

static void id_put(struct lease_table *t, uint64_t id, uint32_t slot)
{
	size_t mask = (1UL << t->ids_bits) - 1, i = id_place(t, id);

	while (t->ids[i].id)
		i = (i + 1) & mask;
	t->ids[i] = (struct lease_id){ .id = id, .slot = slot };
}

static struct lease_id *id_find(const struct lease_table *t, uint64_t id)
{
	size_t mask, i;

	if (!t->ids_bits || !id)
		return NULL;
	mask = (1UL << t->ids_bits) - 1;
	for (i = id_place(t, id); t->ids[i].id; i = (i + 1) & mask)
		if (t->ids[i].id == id)
			return &t->ids[i];
	return NULL;
}

/* Those behind the gap move up, unless they would come before their place. */
static void id_rm(struct lease_table *t, uint64_t id)
{
	size_t mask = (1UL << t->ids_bits) - 1;
	struct lease_id *found = id_find(t, id);
	size_t gap;

	assert(found);
	gap = (size_t)(found - t->ids);
	for (size_t i = (gap + 1) & mask; t->ids[i].id; i = (i + 1) & mask) {
		size_t want = id_place(t, t->ids[i].id);

		if (((i - want) & mask) < ((i - gap) & mask))
			continue;
		t->ids[gap] = t->ids[i];
		gap = i;
	}
	t->ids[gap] = (struct lease_id){ 0 };
}

static int ids_grow(struct lease_table *t, size_t cap)
{
	unsigned bits = (unsigned)__builtin_ctzl(cap) + 1;
	struct lease_id *old = t->ids;
	size_t n_old = old ? 1UL << t->ids_bits : 0;

	if (old && t->ids_bits >= bits)
		return 0;
	t->ids = t->realloc(NULL, sizeof(*t->ids) << bits);
	if (!t->ids) {
		t->ids = old;
		return -ENOMEM;
	}
	memset(t->ids, 0, sizeof(*t->ids) << bits);
	t->ids_bits = bits;
	for (size_t i = 0; i < n_old; i++)
		if (old[i].id)
			id_put(t, old[i].id, old[i].slot);
	free(old);
	return 0;
}

struct lease *lease_find(const struct lease_table *t, uint64_t id)
{
	const struct lease_id *found = id_find(t, id);

	return found ? &lease_slot(t, found->slot)->lease : NULL;
}

/* The order of ids. */

static int id_cmp(const void *a, const void *b)
{
	const struct lease_id *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

static void order_compact(struct lease_order *o)
{
	size_t n = 0;

	for (size_t i = o->first; i < o->n; i++)
		if (o->item[i].slot)
			o->item[n++] = o->item[i];
	o->first = 0;
	o->n = n;
	o->holes = 0;
}

static void order_sort(struct lease_order *o)
{
	if (!o->unsorted)
		return;
	order_compact(o);
	qsort(o->item, o->n, sizeof(*o->item), id_cmp);
	o->unsorted = false;
}

/* The first place with an id of at least this. */
static size_t order_at(const struct lease_order *o, uint64_t id)
{
	size_t from = o->first, to = o->n;

	while (from < to) {
		size_t mid = from + (to - from) / 2;

		if (o->item[mid].id < id)
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

/* There are twice as many places as leases, so that a full array has something to compact. */
static void order_add(struct lease_order *o, uint64_t id, uint32_t slot)
{
	if (o->n == o->cap)
		order_compact(o);
	assert(o->n < o->cap);
	if (o->n > o->first && id <= o->item[o->n - 1].id)
		o->unsorted = true;
	o->item[o->n++] = (struct lease_id){ .id = id, .slot = slot };
}

static void order_rm(struct lease_order *o, uint64_t id)
{
	size_t i;

	order_sort(o);
	i = order_at(o, id);
	assert(i < o->n && o->item[i].id == id && o->item[i].slot);
	o->item[i].slot = 0;
	o->holes++;
	for (; o->n > o->first && !o->item[o->n - 1].slot; o->n--)
		o->holes--;
	for (; o->first < o->n && !o->item[o->first].slot; o->first++)
		o->holes--;
	if (o->first == o->n)
		o->first = o->n = 0;
	if (o->holes > CAP_MIN && o->holes > (o->n - o->first) / 2)
		order_compact(o);
}

struct lease *lease_next(const struct lease_table *t, uint64_t after)
{
	struct lease_order *o = t->order;

	if (after == UINT64_MAX)
		return NULL;
	order_sort(o);
	for (size_t i = order_at(o, after + 1); i < o->n; i++)
		if (o->item[i].slot)
			return &lease_slot(t, o->item[i].slot)->lease;
	return NULL;
}

/* The heaps. A lease is in one of them at most. */

static bool due_before(const struct lease_due *a, const struct lease_due *b)
{
	return a->key != b->key ? a->key < b->key : a->id < b->id;
}

static void heap_set(struct lease_table *t, struct lease_heap *h, size_t i,
		     const struct lease_due *d)
{
	h->item[i] = *d;
	t->heap_at[d->slot] = (uint32_t)i + 1;
}

/* Put d where there is a gap at i. */
static void heap_settle(struct lease_table *t, struct lease_heap *h, size_t i, struct lease_due d)
{
	while (i && due_before(&d, &h->item[(i - 1) / 2])) {
		heap_set(t, h, i, &h->item[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	for (size_t child; (child = 2 * i + 1) < h->n; i = child) {
		if (child + 1 < h->n && due_before(&h->item[child + 1], &h->item[child]))
			child++;
		if (!due_before(&h->item[child], &d))
			break;
		heap_set(t, h, i, &h->item[child]);
	}
	heap_set(t, h, i, &d);
}

static struct lease_heap *heap_of(struct lease_table *t, const struct lease_entry *e)
{
	return e->lease.state == LEASE_COOLING ? &t->cooling : &t->expiry;
}

void lease_store_undue(struct lease_table *t, struct lease_entry *e)
{
	struct lease_heap *h = heap_of(t, e);
	size_t at = t->heap_at[e->slot];

	if (!at)
		return;
	t->heap_at[e->slot] = 0;
	h->n--;
	if (at - 1 < h->n)
		heap_settle(t, h, at - 1, h->item[h->n]);
}

void lease_store_due(struct lease_table *t, struct lease_entry *e)
{
	const struct lease *l = &e->lease;
	struct lease_heap *h = heap_of(t, e);
	struct lease_due d = { .id = l->id, .slot = e->slot };

	d.key = l->state == LEASE_COOLING ? l->cool_ns : l->expires_ns;
	if (d.key == SLUICE_NEVER && l->state == LEASE_ACTIVE)
		lease_store_undue(t, e);
	else
		heap_settle(t, h, t->heap_at[e->slot] ? t->heap_at[e->slot] - 1 : h->n++, d);
}

struct lease *lease_expired(const struct lease_table *t, uint64_t now_ns)
{
	return t->expiry.n && t->expiry.item[0].key <= now_ns
		       ? &lease_slot(t, t->expiry.item[0].slot)->lease
		       : NULL;
}

uint64_t lease_next_expiry(const struct lease_table *t)
{
	return t->expiry.n ? t->expiry.item[0].key : SLUICE_NEVER;
}

struct lease *lease_cooled(const struct lease_table *t, uint64_t now_ns)
{
	return t->cooling.n && t->cooling.item[0].key <= now_ns
		       ? &lease_slot(t, t->cooling.item[0].slot)->lease
		       : NULL;
}

uint64_t lease_next_cooled(const struct lease_table *t)
{
	return t->cooling.n ? t->cooling.item[0].key : SLUICE_NEVER;
}

/* Foreign leases: a list. */

void lease_store_foreign(struct lease_table *t, struct lease_entry *e)
{
	e->foreign_prev = 0;
	e->foreign_next = t->foreign;
	if (t->foreign)
		lease_slot(t, t->foreign)->foreign_prev = e->slot;
	t->foreign = e->slot;
}

void lease_store_unforeign(struct lease_table *t, struct lease_entry *e)
{
	if (e->foreign_prev)
		lease_slot(t, e->foreign_prev)->foreign_next = e->foreign_next;
	else
		t->foreign = e->foreign_next;
	if (e->foreign_next)
		lease_slot(t, e->foreign_next)->foreign_prev = e->foreign_prev;
	e->foreign_prev = e->foreign_next = 0;
}

struct lease *lease_foreign(const struct lease_table *t)
{
	return t->foreign ? &lease_slot(t, t->foreign)->lease : NULL;
}

/* Slots. */

static int array_grow(struct lease_table *t, void *array, size_t size)
{
	void **p = array, *more = t->realloc(*p, size);

	if (!more)
		return -ENOMEM;
	*p = more;
	return 0;
}

/* An array that could be grown stays so when a later one can't: cap tells what all of them have room for. */
static int store_grow(struct lease_table *t)
{
	size_t cap = t->cap ? t->cap * 2 : CAP_MIN, had = t->cap;

	if (array_grow(t, &t->order->item, 2 * cap * sizeof(*t->order->item)) ||
	    array_grow(t, &t->expiry.item, cap * sizeof(*t->expiry.item)) ||
	    array_grow(t, &t->cooling.item, cap * sizeof(*t->cooling.item)) ||
	    array_grow(t, &t->heap_at, (cap + 1) * sizeof(*t->heap_at)) || ids_grow(t, cap))
		return -ENOMEM;
	if (!had)
		memset(t->heap_at, 0, (cap + 1) * sizeof(*t->heap_at));
	else
		memset(t->heap_at + had + 1, 0, (cap - had) * sizeof(*t->heap_at));
	t->order->cap = 2 * cap;
	t->cap = cap;
	return 0;
}

static int chunk_add(struct lease_table *t)
{
	struct lease_entry *c;

	if (t->n_chunks == t->chunks_cap) {
		size_t cap = t->chunks_cap ? t->chunks_cap * 2 : 16;

		if (array_grow(t, &t->chunk, cap * sizeof(*t->chunk)))
			return -ENOMEM;
		t->chunks_cap = cap;
	}
	c = t->realloc(NULL, LEASE_CHUNK * sizeof(*c));
	if (!c)
		return -ENOMEM;
	t->chunk[t->n_chunks] = c;
	for (uint32_t i = LEASE_CHUNK; i-- > 0;) {
		c[i].slot = (uint32_t)t->n_chunks * LEASE_CHUNK + i + 1;
		c[i].foreign_next = t->free_slot;
		t->free_slot = c[i].slot;
	}
	t->n_chunks++;
	return 0;
}

int lease_store_reserve(struct lease_table *t)
{
	if (t->n == t->cap && store_grow(t))
		return -ENOMEM;
	return t->free_slot ? 0 : chunk_add(t);
}

struct lease_entry *lease_store_add(struct lease_table *t, const struct lease *l)
{
	uint32_t slot = t->free_slot;
	struct lease_entry *e;

	assert(slot && t->n < t->cap);
	e = lease_slot(t, slot);
	t->free_slot = e->foreign_next;
	memset(e, 0, sizeof(*e));
	e->lease = *l;
	e->slot = slot;
	t->heap_at[slot] = 0;
	id_put(t, l->id, slot);
	order_add(t->order, l->id, slot);
	t->n++;
	return e;
}

void lease_store_rm(struct lease_table *t, struct lease_entry *e)
{
	assert(!t->heap_at[e->slot]);
	id_rm(t, e->lease.id);
	order_rm(t->order, e->lease.id);
	/* Who still has a pointer to it shall notice. */
	e->lease.id = 0;
	e->foreign_next = t->free_slot;
	t->free_slot = e->slot;
	t->n--;
}
