// SPDX-License-Identifier: BSD-2-Clause
/*
 * The search for free ports.
 *
 * Each lease begins at a place of its own: a member of the pool, a port in it. From there on the search goes over every member that has a free port
 * and comes round to where it began, so it finds a place if there is one. Several leases of several ports each may get into each other's way,
 * though: two pairs at random in four free ports leave no room where two pairs fit. So when that falls short, the leases
 * are packed: going upwards and taking each first fit gives the most places that there are.
 *
 * While a search for several leases goes on, the places that it has chosen are marked in the slices' words, and only there.
 */
#include <assert.h>
#include <string.h>

#include "lease_private.h"

/* One slice */

static void home_open(struct lease_search *s, const struct lease_home *h)
{
	s->home = h;
	memset(s->window->known, 0,
	       (h->ports / LEASE_WORD_PORTS + 63) / 64 * sizeof(s->window->known[0]));
}

static uint64_t word_leased(const struct lease_search *s, uint32_t w)
{
	uint64_t leased = 0;

	for (unsigned l4 = 0; l4 < LEASE_L4; l4++)
		if (s->req->protos >> l4 & 1)
			leased |= s->home->used[l4][w];
	return leased;
}

/* The ports of word w that are taken. Whether NAT or a socket has one is asked once, and not for words that are full anyway. */
static uint64_t word_taken(struct lease_search *s, uint32_t w)
{
	const struct lease_home *h = s->home;
	uint64_t taken;

	if (s->window->known[w / 64] >> w % 64 & 1)
		return s->window->words[w];
	taken = word_leased(s, w);
	for (unsigned l4 = 0; l4 < LEASE_L4 && s->busy && taken != ~0ULL; l4++)
		if (s->req->protos >> l4 & 1)
			taken |= s->busy(s->busy_arg, (size_t)(h - s->t->slices.home),
					 (enum sluice_l4)l4,
					 (uint16_t)(h->first + w * LEASE_WORD_PORTS));
	s->window->words[w] = taken;
	s->window->known[w / 64] |= 1ULL << w % 64;
	return taken;
}

/* The ports of word w that a lease may begin with. */
uint64_t lease_search_starts(const struct lease_search *s, uint32_t w)
{
	uint32_t port = s->home->first + w * LEASE_WORD_PORTS, want = s->req->port;

	if (s->align > LEASE_WORD_PORTS && port % s->align)
		return 0;
	if (want)
		return port <= want && want < port + LEASE_WORD_PORTS
			       ? 1ULL << (want - port) & s->pattern
			       : 0;
	return s->pattern;
}

/* The ports of a word from which n free ones in a row go up, n up to 64; next is the word behind it. */
static uint64_t runs(uint64_t taken, uint64_t next, uint32_t n)
{
	unsigned __int128 free = ~((unsigned __int128)next << 64 | taken);

	for (uint32_t have = 1; have < n;) {
		uint32_t more = have < n - have ? have : n - have;

		free &= free >> more;
		have += more;
	}
	return (uint64_t)free;
}

/* Offsets in the slice: the first port in [from, to) that may be the first of a lease, and is free, as are those behind it, up to 64. */
static uint32_t start_find(struct lease_search *s, uint32_t from, uint32_t to)
{
	uint32_t n = s->req->ports < LEASE_WORD_PORTS ? s->req->ports : LEASE_WORD_PORTS;
	uint32_t words = s->home->ports / LEASE_WORD_PORTS;

	for (uint32_t w = from / LEASE_WORD_PORTS; w * LEASE_WORD_PORTS < to; w++) {
		bool last = n == 1 || w + 1 == words;
		uint64_t bits = lease_search_starts(s, w);

		if (!bits)
			continue;
		if (w == from / LEASE_WORD_PORTS)
			bits &= ~0ULL << from % LEASE_WORD_PORTS;
		bits &= runs(word_leased(s, w), last ? ~0ULL : word_leased(s, w + 1), n);
		if (bits)
			bits &= runs(word_taken(s, w), last ? ~0ULL : word_taken(s, w + 1), n);
		if (bits) {
			uint32_t at = w * LEASE_WORD_PORTS + (uint32_t)__builtin_ctzll(bits);

			return at < to ? at : LEASE_NOWHERE;
		}
	}
	return LEASE_NOWHERE;
}

/* The first port in [from, to) that is taken, else to. */
static uint32_t taken_find(struct lease_search *s, uint32_t from, uint32_t to)
{
	for (uint32_t w = from / LEASE_WORD_PORTS; w * LEASE_WORD_PORTS < to; w++) {
		uint64_t bits = word_taken(s, w);

		if (w == from / LEASE_WORD_PORTS)
			bits &= ~0ULL << from % LEASE_WORD_PORTS;
		if (bits) {
			uint32_t at = w * LEASE_WORD_PORTS + (uint32_t)__builtin_ctzll(bits);

			return at < to ? at : to;
		}
	}
	return to;
}

/* The first place for a lease that begins in [from, to). */
static uint32_t fit_find(struct lease_search *s, uint32_t from, uint32_t to)
{
	uint32_t ports = s->req->ports, at;

	if (s->home->ports < ports)
		return LEASE_NOWHERE;
	if (to > s->home->ports - ports + 1)
		to = s->home->ports - ports + 1;
	while (from < to && (at = start_find(s, from, to)) != LEASE_NOWHERE) {
		if (ports <= LEASE_WORD_PORTS)
			return at;
		from = taken_find(s, at + LEASE_WORD_PORTS, at + ports);
		if (from == at + ports)
			return at;
		from++;
	}
	return LEASE_NOWHERE;
}

/* Several leases */

static void mark(const struct lease_search *s, const struct range *r, bool set)
{
	const struct lease_home *h = &s->t->slices.home[lease_slice_find(s->t, &r->addr, r->first)];
	unsigned base = h->first / LEASE_WORD_PORTS;

	for (unsigned w = r->first / LEASE_WORD_PORTS; w <= r->last / LEASE_WORD_PORTS; w++) {
		for (unsigned l4 = 0; l4 < LEASE_L4; l4++) {
			if (!(s->req->protos >> l4 & 1))
				continue;
			assert(!(h->used[l4][w - base] & lease_word_mask(r, w)) == set);
			h->used[l4][w - base] ^= lease_word_mask(r, w);
		}
	}
}

static void take(struct lease_search *s, struct lease_candidate *c, uint32_t at)
{
	struct range *r = &s->got[s->n++];

	r->addr = s->home->addr;
	r->first = (uint16_t)(s->home->first + at);
	r->last = (uint16_t)(r->first + s->req->ports - 1);
	c->taken++;
	if (s->req->leases > 1)
		mark(s, r, true);
}

static void give_back(struct lease_search *s)
{
	while (s->n) {
		s->n--;
		if (s->req->leases > 1)
			mark(s, &s->got[s->n], false);
	}
	for (size_t i = 0; i < s->n_candidates; i++)
		s->candidate[i].taken = 0;
}

/* The first member in [from, to) that is live and may have room, else to. */
static uint32_t member_find(const struct lease_search *s, const struct lease_pool *p, uint32_t from,
			    uint32_t to)
{
	const uint64_t *open = p->open[s->req->protos];

	while (from < to) {
		uint64_t bits = open[from / 64] >> from % 64;
		const struct lease_home *h;

		if (!bits) {
			from = (from / 64 + 1) * 64;
			continue;
		}
		from += (uint32_t)__builtin_ctzll(bits);
		if (from >= to)
			break;
		h = &s->t->slices.home[p->member[from]];
		if (h->free[s->req->protos] >= s->req->ports &&
		    (!s->req->port || lease_home_has(h, s->req->port)))
			return from;
		from++;
	}
	return to;
}

static bool place_in(struct lease_search *s, struct lease_candidate *c, uint32_t member,
		     uint64_t key)
{
	const struct lease_home *h = &s->t->slices.home[c->pool->member[member]];
	uint32_t begin = (uint32_t)(lease_mix(key ^ member) % h->ports), at;

	home_open(s, h);
	at = fit_find(s, begin, h->ports);
	if (at == LEASE_NOWHERE)
		at = fit_find(s, 0, begin);
	if (at == LEASE_NOWHERE)
		return false;
	take(s, c, at);
	return true;
}

/* One lease anywhere in the pool, from a random place on. */
static bool place_one(struct lease_search *s, struct lease_candidate *c, uint64_t key)
{
	uint32_t begin = c->from + (uint32_t)(key % (c->to - c->from)), m;

	for (m = begin; (m = member_find(s, c->pool, m, c->to)) < c->to; m++)
		if (place_in(s, c, m, key))
			return true;
	for (m = c->from; (m = member_find(s, c->pool, m, begin)) < begin; m++)
		if (place_in(s, c, m, key))
			return true;
	return false;
}

static bool place_all(struct lease_search *s, uint64_t random)
{
	while (s->n < s->req->leases) {
		uint64_t key = lease_mix(random + (s->n + 1) * 0x9e3779b97f4a7c15ULL);
		bool done = false;

		for (size_t i = 0; i < s->n_candidates && !done; i++) {
			struct lease_candidate *c = &s->candidate[i];

			done = c->taken < c->max && place_one(s, c, key);
		}
		if (!done)
			return false;
	}
	return true;
}

/* As many as fit, from the bottom up. */
static bool pack_all(struct lease_search *s)
{
	for (size_t i = 0; i < s->n_candidates; i++) {
		struct lease_candidate *c = &s->candidate[i];

		for (uint32_t m = c->from; (m = member_find(s, c->pool, m, c->to)) < c->to; m++) {
			uint32_t at = 0;

			home_open(s, &s->t->slices.home[c->pool->member[m]]);
			while (s->n < s->req->leases && c->taken < c->max &&
			       (at = fit_find(s, at, s->home->ports)) != LEASE_NOWHERE) {
				take(s, c, at);
				at += s->req->ports;
			}
		}
	}
	return s->n == s->req->leases;
}

bool lease_search_run(struct lease_search *s, uint64_t random)
{
	bool found = place_all(s, random);

	if (!found && s->req->leases > 1 && s->req->ports > 1) {
		give_back(s);
		found = pack_all(s);
	}
	if (found && s->req->leases > 1)
		for (uint32_t i = 0; i < s->n; i++)
			mark(s, &s->got[i], false);
	if (!found)
		give_back(s);
	return found;
}
