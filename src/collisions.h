/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Collisions on their way out: what the watcher saw and what the data plane resolved in one turn of the loop is stored in one transaction at its end, and told then: into the log at
 * a bounded rate, to whoever monitors, into the counters. Shared by the daemon and by --watch-only.
 */
#ifndef COLLISIONS_H
#define COLLISIONS_H

#include <stddef.h>
#include <stdint.h>

#include "collision.h"
#include "control.h"
#include "rate.h"
#include "store.h"

#define COLLISIONS_A_TURN 4096

struct collisions {
	struct store *store; /* both may change between turns; NULL: not there now */
	struct control *control;
	struct rate log_rate;
	uint64_t log_left_out; /* since the last line that was written */
	struct collision *v;   /* of this turn */
	size_t n, cap;
	uint64_t
		overflow; /* told by counters alone, since a turn had too many or there was no memory */
	uint64_t unstored; /* told, and not kept since the store failed */
	/* Since the start, by number of the source's bit, and whether the wire port lies in a slice of this machine. */
	uint64_t told[5][2];
};

void collisions_init(struct collisions *c, uint64_t now_ns);
void collisions_done(struct collisions *c);

/* Note one; id is given when it is stored. */
void collisions_add(struct collisions *c, const struct collision *one);
/* At the end of a turn: store, then tell. A store that fails is said in the log, and the collisions are told all the same. */
void collisions_settle(struct collisions *c, uint64_t now_ns);

#endif
