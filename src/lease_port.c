// SPDX-License-Identifier: BSD-2-Clause
/*
 * Ports: blocks say who has each, wherever it lies, and outlive the slices; the slices' words say which are free. A block lies in one
 * slice or in none, because slices begin and end at multiples of 64.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lease_private.h"

#define BLOCKS_BITS_MIN 6

static uint64_t block_hash(const struct addr *a, unsigned word)
{
	uint64_t half[2];

	static_assert(sizeof(half) == sizeof(*a), "an address is two words");
	memcpy(half, a, sizeof(half));
	return lease_mix(half[0] ^ lease_mix(half[1] ^ word));
}

static struct lease_block *block_find(const struct lease_table *t, const struct addr *a,
				      unsigned word)
{
	struct lease_block *b;

	if (!t->blocks)
		return NULL;
	b = t->blocks[block_hash(a, word) >> (64 - t->blocks_bits)];
	while (b && (b->word != word || addr_cmp(&b->addr, a)))
		b = b->next;
	return b;
}

/* Long chains are slow, nothing worse: only the first array must be had. */
static int blocks_grow(struct lease_table *t)
{
	unsigned bits = t->blocks_bits ? t->blocks_bits + 1 : BLOCKS_BITS_MIN;
	size_t n_old = t->blocks ? 1UL << t->blocks_bits : 0;
	struct lease_block **more, *next;

	if (t->n_blocks < n_old)
		return 0;
	more = t->realloc(NULL, sizeof(struct lease_block *) << bits);
	if (!more)
		return t->blocks ? 0 : -ENOMEM;
	memset(more, 0, sizeof(struct lease_block *) << bits);
	for (size_t i = 0; i < n_old; i++) {
		for (struct lease_block *b = t->blocks[i]; b; b = next) {
			uint64_t to = block_hash(&b->addr, b->word) >> (64 - bits);

			next = b->next;
			b->next = more[to];
			more[to] = b;
		}
	}
	free(t->blocks);
	t->blocks = more;
	t->blocks_bits = bits;
	return 0;
}

static int block_add(struct lease_table *t, const struct addr *a, unsigned word)
{
	struct lease_block *b, **bucket;

	if (blocks_grow(t))
		return -ENOMEM;
	b = t->realloc(NULL, sizeof(*b));
	if (!b)
		return -ENOMEM;
	memset(b, 0, sizeof(*b));
	b->addr = *a;
	b->word = (uint16_t)word;
	b->home = (uint32_t)(lease_slice_find(t, a, (uint16_t)(word * LEASE_WORD_PORTS)) + 1);
	bucket = &t->blocks[block_hash(a, word) >> (64 - t->blocks_bits)];
	b->next = *bucket;
	*bucket = b;
	t->n_blocks++;
	return 0;
}

void lease_ports_free(struct lease_table *t)
{
	size_t n = t->blocks ? 1UL << t->blocks_bits : 0;
	struct lease_block *next;

	for (size_t i = 0; i < n; i++) {
		for (struct lease_block *b = t->blocks[i]; b; b = next) {
			next = b->next;
			free(b);
		}
	}
	free(t->blocks);
}

int lease_ports_reserve(struct lease_table *t, const struct range *r)
{
	for (unsigned w = r->first / LEASE_WORD_PORTS; w <= r->last / LEASE_WORD_PORTS; w++)
		if (!block_find(t, &r->addr, w) && block_add(t, &r->addr, w))
			return -ENOMEM;
	return 0;
}

bool lease_ports_taken(const struct lease_table *t, const struct range *r, uint8_t protos)
{
	for (unsigned w = r->first / LEASE_WORD_PORTS; w <= r->last / LEASE_WORD_PORTS; w++) {
		const struct lease_block *b = block_find(t, &r->addr, w);

		for (unsigned l4 = 0; b && l4 < LEASE_L4; l4++)
			if (protos >> l4 & 1 && b->bits[l4] & lease_word_mask(r, w))
				return true;
	}
	return false;
}

static void block_put(struct lease_table *t, struct lease_block *b, uint64_t mask, uint8_t protos,
		      uint32_t slot)
{
	uint64_t was[LEASE_L4];

	memcpy(was, b->bits, sizeof(was));
	for (unsigned l4 = 0; l4 < LEASE_L4; l4++) {
		if (!(protos >> l4 & 1))
			continue;
		assert((b->bits[l4] & mask) == (slot ? 0 : mask));
		b->bits[l4] ^= mask;
		for (uint64_t m = mask; m; m &= m - 1)
			b->slot[l4][__builtin_ctzll(m)] = slot;
	}
	if (b->home) {
		struct lease_home *h = &t->slices.home[b->home - 1];
		unsigned w = b->word - h->first / LEASE_WORD_PORTS;

		for (unsigned l4 = 0; l4 < LEASE_L4; l4++)
			h->used[l4][w] = b->bits[l4];
		lease_slice_changed(h, was, b->bits);
	}
}

static void ports_put(struct lease_table *t, const struct lease *l, uint32_t slot)
{
	const struct range *r = &l->ports;

	for (unsigned w = r->first / LEASE_WORD_PORTS; w <= r->last / LEASE_WORD_PORTS; w++) {
		struct lease_block *b = block_find(t, &r->addr, w);

		assert(b);
		block_put(t, b, lease_word_mask(r, w), l->protos, slot);
	}
}

void lease_ports_set(struct lease_table *t, const struct lease_entry *e)
{
	ports_put(t, &e->lease, e->slot);
}

void lease_ports_clear(struct lease_table *t, const struct lease_entry *e)
{
	ports_put(t, &e->lease, 0);
}

void lease_ports_rehome(struct lease_table *t)
{
	size_t n = t->blocks ? 1UL << t->blocks_bits : 0;

	for (size_t i = 0; i < n; i++) {
		for (struct lease_block **at = &t->blocks[i], *b; (b = *at);) {
			long s = lease_slice_find(t, &b->addr,
						  (uint16_t)(b->word * LEASE_WORD_PORTS));

			b->home = (uint32_t)(s + 1);
			if (s < 0 && !b->bits[SLUICE_TCP] && !b->bits[SLUICE_UDP]) {
				*at = b->next;
				free(b);
				t->n_blocks--;
				continue;
			}
			for (unsigned l4 = 0; s >= 0 && l4 < LEASE_L4; l4++) {
				struct lease_home *h = &t->slices.home[s];

				h->used[l4][b->word - h->first / LEASE_WORD_PORTS] = b->bits[l4];
			}
			at = &b->next;
		}
	}
}

struct lease *lease_at(const struct lease_table *t, const struct addr *a, uint16_t port,
		       enum sluice_l4 l4)
{
	const struct lease_block *b = block_find(t, a, port / LEASE_WORD_PORTS);
	uint32_t slot = b && l4 < LEASE_L4 ? b->slot[l4][port % LEASE_WORD_PORTS] : 0;

	return slot ? &lease_slot(t, slot)->lease : NULL;
}
