/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Collisions in the store: a history of the newest ones. It needs nothing else of the store, so that a daemon without slices keeps one too.
 * Errors are as store.h has them, -EIO among them when the store must be opened again.
 */
#ifndef STORE_COLLISION_H
#define STORE_COLLISION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "collision.h"
#include "errtext.h"
#include "store.h"

/*
 * All of list are stored in one transaction, which is durable when this returns 0; then each has its id: counting up, never used again. The oldest
 * go: 10,000 are kept, or as many as store_collisions_keep() said last (1 at least).
 */
int store_collisions_add(struct store *s, struct collision *list, size_t n, struct errtext *err);
void store_collisions_keep(struct store *s, uint32_t max);

/* Which ones. All zero: all. */
struct store_collision_filter {
	int64_t since_ms;   /* 0: any time */
	uint64_t before_id; /* 0: from the newest on */
	uint32_t kinds;     /* bits 1 << enum collision_kind; 0: any */
	uint32_t protos;    /* bits 1 << enum sluice_l4; 0: any */
	const char *netns;  /* NULL: any; "": our own */
	int in_slice; /* 1: those whose wire port is in a slice, -1: those that escaped; 0: either */
	bool by_uid;
	uint32_t uid; /* by_uid: of this user's sockets */
	size_t max;   /* so many are told at most; 0: no limit */
	size_t look;  /* so many are looked at at most; 0: no limit */
};

/*
 * Calls fn for each, the newest first; it must not use the store, and returns 0 to go on, -errno to stop. 0: that was all; 1: there may be more, and
 * f->before_id is where to go on; -errno. A row that is no collision is refused with -EUCLEAN, and its id named; the store goes on all the same, since
 * nothing rests on its history.
 */
int store_collisions_list(struct store *s, struct store_collision_filter *f,
			  int (*fn)(const struct collision *c, void *arg), void *arg,
			  struct errtext *err);

#endif
