// SPDX-License-Identifier: BSD-2-Clause
/*
 * Ports: blocks say who has each, wherever it lies, and outlive the slices; the slices' words say which are free. A block lies in one
 * slice or in none, because slices begin and end at multiples of 64.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lease_private.h"

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
	struct lease_node *n = lease_hash_chain(&t->blocks, block_hash(a, word));

	for (; n; n = n->next) {
		struct lease_block *b = (struct lease_block *)n;

		if (b->word == word && !addr_cmp(&b->addr, a))
			return b;
	}
	return NULL;
}

static int block_add(struct lease_table *t, const struct addr *a, unsigned word)
{
	struct lease_block *b =
		lease_hash_add(&t->blocks, block_hash(a, word), sizeof(*b), t->realloc);

	if (!b)
		return -ENOMEM;
	b->addr = *a;
	b->word = (uint16_t)word;
	b->home = (uint32_t)(lease_slice_find(t, a, (uint16_t)(word * LEASE_WORD_PORTS)) + 1);
	return 0;
}

void lease_ports_free(struct lease_table *t)
{
	lease_hash_free(&t->blocks);
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
	for (size_t i = 0; i < lease_hash_buckets(&t->blocks); i++) {
		for (struct lease_node *n = t->blocks.bucket[i], *next; n; n = next) {
			struct lease_block *b = (struct lease_block *)n;
			long s = lease_slice_find(t, &b->addr,
						  (uint16_t)(b->word * LEASE_WORD_PORTS));

			next = n->next;
			b->home = (uint32_t)(s + 1);
			if (s < 0 && !b->bits[SLUICE_TCP] && !b->bits[SLUICE_UDP]) {
				lease_hash_rm(&t->blocks, n);
				continue;
			}
			for (unsigned l4 = 0; s >= 0 && l4 < LEASE_L4; l4++) {
				struct lease_home *h = &t->slices.home[s];

				h->used[l4][b->word - h->first / LEASE_WORD_PORTS] = b->bits[l4];
			}
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
