// SPDX-License-Identifier: BSD-2-Clause
/* See socktable.h. The indexes are at most half full. */
#include "socktable.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Of sockets on one place, as thousands can be that only bind, no more are found: the index would be one long chain. */
#define PLACE_MAX 16

/* Two words into one; both halves of the product of what is not known count. */
static uint64_t mix(uint64_t a, uint64_t b)
{
	unsigned __int128 p = (unsigned __int128)a * b;

	return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static uint64_t addr_mix(uint64_t h, const struct addr *a, uint64_t key)
{
	uint64_t w[2];

	memcpy(w, a->b, sizeof(w));
	return mix(h ^ w[0] ^ key, w[1] ^ key ^ 0x9e3779b97f4a7c15ULL);
}

uint64_t socktable_hash(const uint64_t key[2], enum sluice_l4 l4, const struct addr *local,
			uint16_t lport, const struct addr *remote, uint16_t rport)
{
	uint64_t ports = (uint64_t)l4 << 32 | (uint64_t)lport << 16 | rport;
	uint64_t h = mix(ports ^ key[0], key[1] | 1);

	h = addr_mix(h, local, key[1]);
	h = addr_mix(h, remote, key[0]);
	return mix(h ^ key[1], key[0] ^ 0xd6e8feb86659fd93ULL);
}

static uint64_t cookie_hash(const struct socktable *t, uint64_t cookie)
{
	return mix(cookie ^ t->key[0], t->key[1] | 1);
}

void socktable_init(struct socktable *t, const uint64_t key[2], size_t max)
{
	*t = (struct socktable){ .max = max, .key = { key[0], key[1] } };
}

void socktable_done(struct socktable *t)
{
	free(t->list);
	free(t->by_place);
	free(t->by_cookie);
	*t = (struct socktable){ 0 };
}

static void indexes_free(struct socktable *t)
{
	free(t->by_place);
	free(t->by_cookie);
	t->by_place = t->by_cookie = NULL;
	t->mask = 0;
}

void socktable_empty(struct socktable *t)
{
	indexes_free(t);
	t->n = 0;
	t->cut = 0;
}

int socktable_add(struct socktable *t, const struct sockdiag_sock *s)
{
	if (t->n == t->max) {
		t->cut++;
		return 0;
	}
	if (t->n == t->cap) {
		size_t cap = t->cap ? t->cap * 2 : 256;
		struct sockdiag_sock *list = realloc(t->list, cap * sizeof(*list));

		if (!list)
			return -ENOMEM;
		t->list = list;
		t->cap = cap;
	}
	t->list[t->n++] = *s;
	return 0;
}

static bool same_place(const struct sockdiag_sock *a, const struct sockdiag_sock *b)
{
	return a->l4 == b->l4 && a->lport == b->lport && a->rport == b->rport &&
	       !addr_cmp(&a->local, &b->local) && !addr_cmp(&a->remote, &b->remote);
}

static void place_put(struct socktable *t, size_t i)
{
	const struct sockdiag_sock *s = &t->list[i];
	size_t at =
		socktable_hash(t->key, s->l4, &s->local, s->lport, &s->remote, s->rport) & t->mask;
	unsigned same = 0;

	for (; t->by_place[at]; at = (at + 1) & t->mask)
		if (same_place(s, &t->list[t->by_place[at] - 1]) && ++same == PLACE_MAX)
			return;
	t->by_place[at] = (uint32_t)i + 1;
}

static void cookie_put(struct socktable *t, size_t i)
{
	size_t at = cookie_hash(t, t->list[i].cookie) & t->mask;

	while (t->by_cookie[at])
		at = (at + 1) & t->mask;
	t->by_cookie[at] = (uint32_t)i + 1;
}

int socktable_seal(struct socktable *t)
{
	size_t size = 16;

	while (size < 2 * t->n)
		size *= 2;
	indexes_free(t);
	t->by_place = calloc(size, sizeof(*t->by_place));
	t->by_cookie = calloc(size, sizeof(*t->by_cookie));
	if (!t->by_place || !t->by_cookie) {
		socktable_empty(t);
		return -ENOMEM;
	}
	t->mask = size - 1;
	for (size_t i = 0; i < t->n; i++) {
		place_put(t, i);
		cookie_put(t, i);
	}
	return 0;
}

const struct sockdiag_sock *socktable_next(const struct socktable *t, enum sluice_l4 l4,
					   const struct addr *local, uint16_t lport,
					   const struct addr *remote, uint16_t rport, size_t *at)
{
	struct sockdiag_sock place = { .l4 = l4, .local = *local, .lport = lport };
	size_t start;

	if (!t->by_place)
		return NULL;
	if (remote) {
		place.remote = *remote;
		place.rport = rport;
	}
	start = socktable_hash(t->key, l4, local, lport, &place.remote, place.rport);
	for (; t->by_place[(start + *at) & t->mask]; (*at)++) {
		const struct sockdiag_sock *s = &t->list[t->by_place[(start + *at) & t->mask] - 1];

		if (same_place(s, &place)) {
			(*at)++;
			return s;
		}
	}
	return NULL;
}

bool socktable_has_cookie(const struct socktable *t, uint64_t cookie)
{
	if (!t->by_cookie)
		return false;
	for (size_t at = cookie_hash(t, cookie) & t->mask; t->by_cookie[at];
	     at = (at + 1) & t->mask)
		if (t->list[t->by_cookie[at] - 1].cookie == cookie)
			return true;
	return false;
}
