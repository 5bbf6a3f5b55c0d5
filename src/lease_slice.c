// SPDX-License-Identifier: BSD-2-Clause
/* The slices and their pools: where each is, and how many ports are free. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lease_private.h"

void lease_slices_free(struct lease_slices *s)
{
	free(s->list);
	free(s->home);
	free(s->members);
	free(s->candidates);
	free(s->words);
}

long lease_slice_find(const struct lease_table *t, const struct addr *a, uint16_t port)
{
	const struct lease_home *home = t->slices.home;
	size_t from = 0, to = t->slices.n;

	/* The last one that does not begin behind the port. */
	while (from < to) {
		size_t mid = from + (to - from) / 2;
		int c = addr_cmp(&home[mid].addr, a);

		if (c < 0 || (c == 0 && home[mid].first <= port))
			from = mid + 1;
		else
			to = mid;
	}
	if (!from || addr_cmp(&home[from - 1].addr, a) ||
	    port - home[from - 1].first >= (long)home[from - 1].ports)
		return -1;
	return (long)from - 1;
}

static void open_set(struct lease_home *h, unsigned protos)
{
	uint64_t *word = &h->pool->open[protos][h->member / 64], bit = 1ULL << h->member % 64;

	if (h->live && h->free[protos])
		*word |= bit;
	else
		*word &= ~bit;
}

void lease_slice_changed(struct lease_home *h, const uint64_t was[LEASE_L4],
			 const uint64_t now[LEASE_L4])
{
	for (uint8_t protos = 1; protos < LEASE_PROTOS; protos++) {
		uint64_t before = 0, after = 0;

		for (unsigned l4 = 0; l4 < LEASE_L4; l4++) {
			if (protos >> l4 & 1) {
				before |= was[l4];
				after |= now[l4];
			}
		}
		if (before == after)
			continue;
		h->free[protos] += (uint32_t)__builtin_popcountll(before);
		h->free[protos] -= (uint32_t)__builtin_popcountll(after);
		if (h->live && lease_protos_count(protos) == 1) {
			uint64_t *pool_free = &h->pool->free[protos == LEASE_UDP];

			*pool_free += (uint64_t)__builtin_popcountll(before);
			*pool_free -= (uint64_t)__builtin_popcountll(after);
		}
		open_set(h, protos);
	}
}

void lease_slice_count(struct lease_home *h)
{
	if (h->live) {
		h->pool->total += h->ports;
		h->pool->free[SLUICE_TCP] += h->free[LEASE_TCP];
		h->pool->free[SLUICE_UDP] += h->free[LEASE_UDP];
	}
	for (unsigned protos = 1; protos < LEASE_PROTOS; protos++)
		open_set(h, protos);
}

static void pools_clear_totals(struct lease_table *t)
{
	for (size_t i = 0; i < t->n_pools; i++) {
		t->pools[i]->total = 0;
		memset(t->pools[i]->free, 0, sizeof(t->pools[i]->free));
	}
}

/* Is nothing different but who is live? */
static bool same_places(const struct lease_slices *s, const struct lease_slice *list, size_t n)
{
	if (s->n != n)
		return false;
	for (size_t i = 0; i < n; i++)
		if (addr_cmp(&s->list[i].ports.addr, &list[i].ports.addr) ||
		    s->list[i].ports.first != list[i].ports.first ||
		    s->list[i].ports.last != list[i].ports.last ||
		    strcmp(s->list[i].pool, list[i].pool) != 0)
			return false;
	return true;
}

static void set_live(struct lease_table *t, const struct lease_slice *list)
{
	pools_clear_totals(t);
	for (size_t i = 0; i < t->slices.n; i++) {
		t->slices.list[i].live = t->slices.home[i].live = list[i].live;
		lease_slice_count(&t->slices.home[i]);
	}
}

static size_t bitmap_words(size_t n)
{
	return (n + 63) / 64;
}

/* What callers promise. */
static void slices_check(const struct lease_slice *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct range *r = &list[i].ports;

		assert(r->first % LEASE_WORD_PORTS == 0 && r->last % LEASE_WORD_PORTS == 63);
		assert(r->first < r->last && list[i].pool[0]);
		if (i) {
			int c = addr_cmp(&list[i - 1].ports.addr, &r->addr);

			assert(c < 0 || (c == 0 && list[i - 1].ports.last < r->first));
		}
	}
}

/* All memory for new slices: *s, and the pools, which have no members of them yet. */
static int slices_alloc(struct lease_table *t, struct lease_slices *s,
			const struct lease_slice *list, size_t n)
{
	size_t words = 0;

	memset(s, 0, sizeof(*s));
	if (!n)
		return 0;
	for (size_t i = 0; i < n; i++) {
		words += LEASE_L4 * lease_range_ports(&list[i].ports) / LEASE_WORD_PORTS;
		if (!lease_pool_get(t, list[i].pool))
			return -ENOMEM;
	}
	words += (LEASE_PROTOS - 1) * (bitmap_words(n) + t->n_pools);
	s->list = t->realloc(NULL, n * sizeof(*s->list));
	s->home = t->realloc(NULL, n * sizeof(*s->home));
	s->members = t->realloc(NULL, n * sizeof(*s->members));
	s->candidates = t->realloc(NULL, t->n_pools * sizeof(*s->candidates));
	s->words = t->realloc(NULL, words * sizeof(*s->words));
	if (!s->list || !s->home || !s->members || !s->candidates || !s->words)
		return -ENOMEM;
	memcpy(s->list, list, n * sizeof(*s->list));
	memset(s->home, 0, n * sizeof(*s->home));
	memset(s->words, 0, words * sizeof(*s->words));
	s->n = n;
	return 0;
}

static uint64_t *homes_fill(struct lease_table *t)
{
	struct lease_slices *s = &t->slices;
	uint64_t *words = s->words;

	for (size_t i = 0; i < s->n; i++) {
		struct lease_home *h = &s->home[i];

		h->addr = s->list[i].ports.addr;
		h->first = s->list[i].ports.first;
		h->ports = lease_range_ports(&s->list[i].ports);
		h->live = s->list[i].live;
		h->pool = lease_pool_find(t, s->list[i].pool);
		h->member = h->pool->n_members++;
		for (unsigned l4 = 0; l4 < LEASE_L4; l4++) {
			h->used[l4] = words;
			words += h->ports / LEASE_WORD_PORTS;
		}
	}
	return words;
}

static void pools_fill(struct lease_table *t, uint64_t *words)
{
	struct lease_slices *s = &t->slices;
	uint32_t *members = s->members;

	for (size_t i = 0; i < t->n_pools; i++) {
		struct lease_pool *p = t->pools[i];

		p->member = members;
		members += p->n_members;
		for (unsigned protos = 1; protos < LEASE_PROTOS; protos++) {
			p->open[protos] = words;
			words += bitmap_words(p->n_members);
		}
	}
	for (size_t i = 0; i < s->n; i++)
		s->home[i].pool->member[s->home[i].member] = (uint32_t)i;
}

static void home_count_free(struct lease_home *h)
{
	for (unsigned protos = 1; protos < LEASE_PROTOS; protos++)
		h->free[protos] = h->ports;
	for (uint32_t w = 0; w < h->ports / LEASE_WORD_PORTS; w++) {
		uint64_t tcp = h->used[SLUICE_TCP][w], udp = h->used[SLUICE_UDP][w];

		h->free[LEASE_TCP] -= (uint32_t)__builtin_popcountll(tcp);
		h->free[LEASE_UDP] -= (uint32_t)__builtin_popcountll(udp);
		h->free[LEASE_TCP | LEASE_UDP] -= (uint32_t)__builtin_popcountll(tcp | udp);
	}
}

/* Which slice each lease is of now. */
static void leases_rehome(struct lease_table *t)
{
	uint64_t id = 0;

	t->foreign = 0;
	for (struct lease *l; (l = lease_next(t, id)); id = l->id) {
		struct lease_entry *e = lease_entry_of(l);
		long s = lease_slice_find(t, &l->ports.addr, l->ports.first);

		if (s >= 0 && (l->ports.last > t->slices.list[s].ports.last ||
			       t->slices.home[s].pool != e->pool))
			s = -1;
		e->home = (uint32_t)(s + 1);
		e->foreign_prev = e->foreign_next = 0;
		if (s < 0 && l->state == LEASE_ACTIVE)
			lease_store_foreign(t, e);
	}
}

int lease_slices_set(struct lease_table *t, const struct lease_slice *slices, size_t n)
{
	struct lease_slices s;

	slices_check(slices, n);
	if (same_places(&t->slices, slices, n)) {
		set_live(t, slices);
		return 0;
	}
	if (slices_alloc(t, &s, slices, n)) {
		lease_slices_free(&s);
		lease_pools_trim(t);
		return -ENOMEM;
	}
	lease_slices_free(&t->slices);
	t->slices = s;
	for (size_t i = 0; i < t->n_pools; i++)
		t->pools[i]->n_members = 0;
	pools_fill(t, homes_fill(t));
	lease_ports_rehome(t);
	pools_clear_totals(t);
	for (size_t i = 0; i < t->slices.n; i++) {
		home_count_free(&t->slices.home[i]);
		lease_slice_count(&t->slices.home[i]);
	}
	leases_rehome(t);
	lease_pools_trim(t);
	return 0;
}

const struct lease_slice *lease_slices(const struct lease_table *t, size_t *ret_n)
{
	*ret_n = t->slices.n;
	return t->slices.list;
}
