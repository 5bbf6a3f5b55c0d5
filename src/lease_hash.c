// SPDX-License-Identifier: BSD-2-Clause
/* The hash table of blocks and of tallies. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lease_private.h"

#define BITS_MIN 6

static void node_put(struct lease_hash *h, struct lease_node *n)
{
	struct lease_node **bucket = &h->bucket[n->hash >> (64 - h->bits)];

	n->next = *bucket;
	*bucket = n;
}

/* Long chains are slow, nothing worse: only the first array must be had. */
static int hash_grow(struct lease_hash *h, void *(*realloc_fn)(void *old, size_t size))
{
	struct lease_hash more = { .n = h->n, .bits = h->bits ? h->bits + 1 : BITS_MIN };
	size_t n_old = lease_hash_buckets(h);
	struct lease_node *next;

	if (h->n < n_old)
		return 0;
	more.bucket = realloc_fn(NULL, sizeof(struct lease_node *) << more.bits);
	if (!more.bucket)
		return h->bucket ? 0 : -ENOMEM;
	memset(more.bucket, 0, sizeof(struct lease_node *) << more.bits);
	for (size_t i = 0; i < n_old; i++) {
		for (struct lease_node *n = h->bucket[i]; n; n = next) {
			next = n->next;
			node_put(&more, n);
		}
	}
	free(h->bucket);
	*h = more;
	return 0;
}

void *lease_hash_add(struct lease_hash *h, uint64_t hash, size_t size,
		     void *(*realloc_fn)(void *old, size_t size))
{
	struct lease_node *n;

	if (hash_grow(h, realloc_fn))
		return NULL;
	n = realloc_fn(NULL, size);
	if (!n)
		return NULL;
	memset(n, 0, size);
	n->hash = hash;
	node_put(h, n);
	h->n++;
	return n;
}

void lease_hash_rm(struct lease_hash *h, struct lease_node *n)
{
	struct lease_node **at = &h->bucket[n->hash >> (64 - h->bits)];

	while (*at != n)
		at = &(*at)->next;
	*at = n->next;
	free(n);
	h->n--;
}

void lease_hash_free(struct lease_hash *h)
{
	struct lease_node *next;

	for (size_t i = 0; i < lease_hash_buckets(h); i++) {
		for (struct lease_node *n = h->bucket[i]; n; n = next) {
			next = n->next;
			free(n);
		}
	}
	free(h->bucket);
}
