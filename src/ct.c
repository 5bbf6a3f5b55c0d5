// SPDX-License-Identifier: BSD-2-Clause
/* See ct.h. */
#include "ct.h"

#include <string.h>

static bool tuple_same(const struct ct_tuple *a, const struct ct_tuple *b)
{
	return a->sport == b->sport && a->dport == b->dport && !addr_cmp(&a->src, &b->src) &&
	       !addr_cmp(&a->dst, &b->dst);
}

bool ct_same(const struct ct_entry *a, const struct ct_entry *b)
{
	return a->l4 == b->l4 && a->zone == b->zone && tuple_same(&a->orig, &b->orig) &&
	       tuple_same(&a->reply, &b->reply);
}

/* SipHash-1-3 (Aumasson, Bernstein 2012), word by word. */
struct sip {
	uint64_t v[4];
};

static uint64_t rotate(uint64_t x, unsigned by)
{
	return x << by | x >> (64 - by);
}

static void sip_round(struct sip *s)
{
	uint64_t *v = s->v;

	v[0] += v[1];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[0] = rotate(v[0], 32);
	v[2] += v[3];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[2] = rotate(v[2], 32);
}

static void sip_word(struct sip *s, uint64_t word)
{
	s->v[3] ^= word;
	sip_round(s);
	s->v[0] ^= word;
}

static void sip_addr(struct sip *s, const struct addr *a)
{
	uint64_t half[2];

	memcpy(half, a->b, sizeof(half));
	sip_word(s, half[0]);
	sip_word(s, half[1]);
}

uint64_t ct_hash(const struct ct_entry *e, uint64_t key)
{
	const struct ct_tuple *const tuples[] = { &e->orig, &e->reply };
	/* The key has 64 bits, SipHash takes 128: the other half is made from the first. */
	const uint64_t other = rotate(key, 32) ^ 0x9e3779b97f4a7c15ULL;
	struct sip s = { {
		key ^ 0x736f6d6570736575ULL,
		other ^ 0x646f72616e646f6dULL,
		key ^ 0x6c7967656e657261ULL,
		other ^ 0x7465646279746573ULL,
	} };

	for (size_t i = 0; i < 2; i++) {
		sip_addr(&s, &tuples[i]->src);
		sip_addr(&s, &tuples[i]->dst);
	}
	sip_word(&s, (uint64_t)e->orig.sport << 48 | (uint64_t)e->orig.dport << 32 |
			     (uint64_t)e->reply.sport << 16 | e->reply.dport);
	/* All entries are of one length, so it need not be hashed. */
	sip_word(&s, (uint64_t)e->zone << 8 | (uint64_t)e->l4);
	s.v[2] ^= 0xff;
	sip_round(&s);
	sip_round(&s);
	sip_round(&s);
	return s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3];
}
