/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Holds: which slices this machine may send from, each with its epoch and its deadline. Deciding is pure: no I/O, the time
 * is an argument. hold_reconcile_local() and hold_renew() only compute a change set; the caller stores it (store_commit())
 * and then makes it true with hold_apply(), the one mutator of the table, which cannot fail:
 *
 *	now = boot time, read first
 *	hold_renew(&table, now, ttl_s, &changes)  ->  store_commit()  ->  hold_apply(&table, &changes)  ->  publish
 *
 * When storing fails, hold_changes_done() forgets the change set and nothing has happened.
 */
#ifndef HOLD_H
#define HOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "addr.h"
#include "config.h"
#include "errtext.h"
#include "sluice_abi.h"

struct hold {
	char pool[CONFIG_NAME_MAX + 1];
	struct range ports; /* one slice */
	uint32_t epoch;     /* fencing token, unique and rising over the machine's life, never 0 */
	uint64_t not_after_ns; /* CLOCK_BOOTTIME; SLUICE_NEVER without a deadline */
};

/* Sorted by address, then port; no two overlap. All zero is an empty table. Read the rows freely, never write them. */
struct hold_table {
	struct hold *rows;
	size_t n;
};

/* What is taken off a deadline: clocks may differ by 1 % of the time to live, and stopping takes time. */
#define HOLD_DRIFT_PERCENT 1
#define HOLD_STOP_NS       250000000ULL

enum hold_verb {
	HOLD_BEGIN, /* new, with an epoch that nobody had before */
	HOLD_KEEP,  /* goes on, and nothing about it changes */
	HOLD_RENEW, /* goes on with another deadline */
	HOLD_END,
};

enum hold_why {
	HOLD_WHY_NONE,    /* it does not end */
	HOLD_WHY_REMOVED, /* the configuration no longer names its ports */
	HOLD_WHY_POOL,    /* the slice belongs to another pool now */
	HOLD_WHY_SIZE,    /* its ports are cut into slices of another size now */
};

struct hold_change {
	enum hold_verb verb;
	enum hold_why why; /* for HOLD_END */
	struct hold hold;  /* HOLD_END: as it was; else as it will be */
};

/*
 * A change set. First the rows of HOLD_END, then all others, each part sorted by address and port: whoever acts on them in
 * this order never has two holds on one port. What a store writes, in one transaction, is every row but those of HOLD_KEEP,
 * and next_epoch.
 */
struct hold_changes {
	struct hold_change *rows;
	size_t n;
	size_t count[HOLD_END + 1]; /* rows by verb */
	uint32_t first_epoch;       /* the counter that this was computed from ... */
	uint32_t next_epoch;        /* ... and after it; the epochs of HOLD_BEGIN lie between */
	struct hold_table after;    /* the table that hold_apply() leads to */
};

void hold_table_init(struct hold_table *t);
void hold_table_done(struct hold_table *t);

/*
 * Make n rows, from malloc(), the content of an empty table, which then owns them; it sorts them first. Returns 0, or -EINVAL
 * and leaves rows with the caller when two overlap or one is no hold (pool name, epoch 0, a range that is no slice).
 */
int hold_table_adopt(struct hold_table *t, struct hold *rows, size_t n);

/* The hold that port (host order) of address a lies in, live or not; NULL without one. Valid until hold_apply(). */
const struct hold *hold_table_find(const struct hold_table *t, const struct addr *a, uint16_t port);

/* Holds of the pool of this name. */
size_t hold_count(const struct hold_table *t, const char *pool);

/* May packets leave with this hold at now_ns? Not from the deadline on. */
static inline bool hold_live(const struct hold *h, uint64_t now_ns)
{
	return h->not_after_ns == SLUICE_NEVER || now_ns < h->not_after_ns;
}

/* The deadline of a hold that is begun or renewed at now_ns: SLUICE_NEVER when ttl_s is 0. */
uint64_t hold_deadline(uint64_t now_ns, uint32_t ttl_s);

/*
 * What has to change so that the table holds exactly what the configuration names (the local backend, where this machine
 * alone decides). next_epoch is the store's counter. A slice that goes on keeps its epoch; one whose pool or size changed
 * ends and begins anew; so does one that was taken out and put back. Every hold gets the deadline that
 * config->fleet.ttl_s gives from now_ns (CLOCK_BOOTTIME, read before the change set is stored).
 *
 * Returns 0 and a change set (hold_changes_done() or hold_apply()); -EOVERFLOW when the epochs are used up, with a text;
 * -ENOMEM.
 */
int hold_reconcile_local(const struct config *config, const struct hold_table *t,
			 uint32_t next_epoch, uint64_t now_ns, struct hold_changes *ret,
			 struct errtext *err);

/*
 * New deadlines for every hold: now_ns + ttl_s, less 1 % and a stop margin of 250 ms; now_ns is the time from *before*
 * anything else of the renewal was done. SLUICE_NEVER when ttl_s is 0. Returns 0 or -ENOMEM.
 */
int hold_renew(const struct hold_table *t, uint64_t now_ns, uint32_t ttl_s,
	       struct hold_changes *ret);

/*
 * When the next renewal is due, in the time of the deadlines: a third of ttl_s after the last one. 0 (at once) when a hold's
 * deadline does not fit ttl_s; SLUICE_NEVER when no hold needs renewing.
 */
uint64_t hold_next_renewal(const struct hold_table *t, uint32_t ttl_s);

/* Nothing to store and nothing to publish? */
bool hold_changes_empty(const struct hold_changes *c);

/*
 * Make a change set true that was computed from this very table and has been stored. Cannot fail. c's rows stay for the
 * publisher; c->after is moved into the table. hold_changes_done() afterwards.
 */
void hold_apply(struct hold_table *t, struct hold_changes *c);

void hold_changes_done(struct hold_changes *c);

/* "removed", "pool", "size": for records; "" for HOLD_WHY_NONE. */
const char *hold_why_name(enum hold_why why);

#endif
