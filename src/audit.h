/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The audit: are a running daemon's leases in the store as they are in its table? The table is right: it is what was answered. A difference that was
 * seen three times in a row is put right in the store, and told.
 *
 * Nobody else writes the file, normally. So the whole of it is compared when another process has committed to it, when the last comparison found something, and
 * every ten minutes all the same. A turn compares a bounded number of leases.
 */
#ifndef AUDIT_H
#define AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lease.h"
#include "store_audit.h"

#define AUDIT_LOOK_NS     5000000000ULL   /* between looks */
#define AUDIT_WHOLE_NS    600000000000ULL /* a look compares everything after this, in any case */
#define AUDIT_PAGE        256             /* rows a turn */
#define AUDIT_AFTER       3   /* times that a difference is seen before it is repaired */
#define AUDIT_DIFFERENCES 256 /* that are counted at a time; those beyond come later */

enum audit_how {
	AUDIT_SAME,
	AUDIT_MISSING, /* active, and the store lacks it */
	AUDIT_WRONG,   /* active, and the store says something else of it */
	AUDIT_ENDED,   /* it has ended, and goes on in the store */
	AUDIT_UNKNOWN, /* the store has it, and the table never had */
};

struct audit_difference {
	uint64_t id;
	enum audit_how how;
	unsigned seen; /* times in a row */
	bool now;      /* in this comparison */
};

/* All zero to begin with, and nothing to free. */
struct audit {
	bool walking;      /* a comparison is under way */
	bool found;        /* and has found something */
	bool clean;        /* the last one found nothing, at .version */
	bool failing;      /* said so */
	uint64_t at;       /* ids up to this one are compared */
	uint64_t began_ns; /* the last look */
	uint64_t whole_ns; /* the last comparison of everything */
	int64_t version;   /* of the store, when it began: of this very opening of it */
	uint64_t repaired; /* since the start */
	size_t n;
	struct audit_difference differences[AUDIT_DIFFERENCES];
};

/* Something to tell: an event's name and a text, as in lessor_note_fn. */
typedef void audit_note_fn(void *arg, int priority, const char *event, const char *text);

/*
 * A turn, at now_ns. Every change of the table must be in the store (no journal, nothing on its way there). Returns when to call again. What can't be read or repaired is
 * told once, and tried again; see also store_must_reopen().
 */
uint64_t audit_turn(struct audit *a, struct store *s, const struct lease_table *t, uint64_t now_ns,
		    audit_note_fn *note, void *arg);

#endif
