/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The store: STATE_DIR/sluice.db, an SQLite database (WAL, synchronous FULL). What a call has returned 0 for is on the disk.
 * SQLite appears in store*.c and nowhere else. One process at a time: STATE_DIR/lock is held by flock() while a store is open.
 *
 * A store that can't be trusted is refused and left as it is, never written to. The errors of store_open(), each with a text:
 *
 *	-EBUSY		another process has the state directory (its pid is named)
 *	-EACCES, -EROFS	directory or file can't be written, or is marked read-only
 *	-ENOSPC		the disk is full
 *	-EUCLEAN	damaged: cut short, pages that don't fit together, records that contradict each other
 *	-EMEDIUMTYPE	not a database, or another program's
 *	-EPROTONOSUPPORT  written by a newer version; both versions are named
 *	-EREMOTE	belongs to another machine
 *	others		what the system said
 *
 * After any error of store_commit(), store_host_add() or store_host_rm() nothing of that call is in the store as this process
 * sees it. (Only a crash right after the error may show it complete: the last write may have reached the disk all the same.)
 * After -ENOSPC, -ENOMEM, -EBUSY and -ESTALE the store goes on working. After others it may not: then
 * store_must_reopen() is true, every call returns -EIO, and the way on is store_close() and store_open().
 */
#ifndef STORE_H
#define STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "errtext.h"
#include "hold.h"
#include "lease.h"

struct store;

/*
 * Open the store in dir, creating both (0700, 0600) where they are missing; the parent of dir must exist. machine owns a
 * new store, and must be the owner of an old one. Deadlines from before the last boot are set to 0: they count another clock;
 * leases from before it end, with LEASE_WHY_REBOOT: their processes are gone.
 */
int store_open(const char *dir, const char *machine, struct store **ret, struct errtext *err);
void store_close(struct store *s); /* NULL is fine */

bool store_must_reopen(struct store *s);

/* The holds, and the first epoch that was never given out. *ret must be an empty table; hold_table_done() it. */
int store_load_holds(struct store *s, struct hold_table *ret, uint32_t *ret_next_epoch,
		     struct errtext *err);

/* One tick's writes. All of it is stored, or nothing. */
struct store_batch {
	const struct hold_changes *holds; /* NULL: none */
	int64_t now_ms;                   /* UTC, for the records of who held what when */
	/* The lease table's journal. What it grants has rising ids, from the counter that the store has to below next_lease. */
	const struct lease_change *leases;
	size_t n_leases;
	uint64_t next_lease; /* the counter afterwards; 0: as it was. It never goes back. */
};

/*
 * Returns 0 when the batch is on the disk (at once when it changes nothing). -ESTALE: the change set was not computed from
 * what the store holds, or its epochs or lease ids were given out before.
 */
int store_commit(struct store *s, const struct store_batch *b, struct errtext *err);

/*
 * The same in a thread of the store's, so that the caller can go on meanwhile; one at a time. b, and what it points to, must stay as they are
 * until store_commit_end(), which waits for the end and says what came of it; store_commit_done(): without waiting, has it come to its end?
 * store_commit_fd() is readable from then until store_commit_end(). Every other call of the store waits for that end first, and then finds what
 * the commit has left; but store_must_reopen() does not: what goes wrong in a thread shows when it has ended.
 */
void store_commit_begin(struct store *s, const struct store_batch *b);
bool store_commit_done(struct store *s);
int store_commit_end(struct store *s, struct errtext *err);
int store_commit_fd(const struct store *s);

/* Transactions that reached the disk since store_open(), by how long they took. May be asked at any time, also while a commit is under way. */
#define STORE_COMMIT_BOUNDS 13
extern const uint32_t store_commit_bounds_us[STORE_COMMIT_BOUNDS];
struct store_stats {
	uint64_t commits[STORE_COMMIT_BOUNDS + 1]; /* up to that bound; the last: longer */
	uint64_t commit_ns;                        /* of all together */
};
struct store_stats store_stats(const struct store *s);

/*
 * The leases: every active one, then those that ended at cooling_since_ms (UTC) or later, as COOLING, cool_ns 0, the latest
 * grant first: of records that share a port (the cool-down was shorter once) the first one counts. fn is called for each, with
 * one that is its own only for the call; it returns 0, or -errno to stop. When opening has ended leases because the machine
 * was started anew, they come as COOLING whatever cooling_since_ms is. *ret_next: the first id that was never given out.
 */
int store_load_leases(struct store *s, int64_t cooling_since_ms,
		      int (*fn)(const struct lease *l, void *arg), void *arg, uint64_t *ret_next,
		      struct errtext *err);

/*
 * Who had this port (host order)? Calls fn for every record of a lease or of a hold that covers the port, what began latest
 * first; those that began after at_ms or ended before it are left out (at_ms 0: all). protos, of leases: any of these (0: all). At
 * most max records. fn must not use the store; it returns 0 to go on, -errno to stop. 0, fn's -errno, or what went wrong.
 */
struct store_record {
	const struct lease *lease; /* NULL: a hold */
	const struct hold *hold;   /* NULL: a lease */
	int64_t began_ms;
	int64_t ended_ms; /* 0: goes on */
	const char *why;  /* "" while it goes on */
};
int store_who(struct store *s, const struct addr *a, uint16_t port, uint8_t protos, int64_t at_ms,
	      size_t max, int (*fn)(const struct store_record *r, void *arg), void *arg,
	      struct errtext *err);

/*
 * Forget records of leases that ended before before_ms (UTC), and the oldest beyond lease_log_max; a bounded number a call. 1 when
 * there may be more: call again, with other work in between. 0 when all is looked at. -errno.
 */
int store_lease_trim(struct store *s, int64_t before_ms, struct errtext *err);

/*
 * What sluiced has changed on this host, for --teardown: kind and key name the thing ("sysctl", "net.ipv4.ip_forward"),
 * was is how it was found (NULL: it did not exist), now is what was made of it (NULL: removed). Store first, then make the
 * change. A second change of the same thing keeps the first was.
 */
struct store_host {
	char *kind;
	char *key;
	char *was;
	char *now;
};

/* All of them in one transaction, which is durable when this returns 0. */
int store_host_add(struct store *s, const struct store_host *list, size_t n, struct errtext *err);
/* Forget one, after it was undone. 0 also when it is not there. */
int store_host_rm(struct store *s, const char *kind, const char *key, struct errtext *err);
/* All of them, the latest first: the order in which to undo them. Free with store_host_free(). */
int store_host_list(struct store *s, struct store_host **ret, size_t *ret_n, struct errtext *err);
void store_host_free(struct store_host *list, size_t n);

/* For tests, and for whoever must open a store differently. */
struct store_options {
	const char *const *migrations; /* [i] is the SQL that leads from schema i to i + 1 */
	size_t n_migrations;           /* = the newest schema */
	const char *vfs;        /* SQLite's name of the file system layer; NULL: the default */
	uint32_t log_max;       /* records of ended holds that are kept, the oldest go */
	uint32_t lease_log_max; /* likewise of leases */
	uint32_t collision_max; /* likewise of collisions; 1 at least */
	uint32_t busy_ms; /* how long a write waits for another process (sqlite3 on the file) */
};

/* What store_open() uses. */
struct store_options store_defaults(void);
int store_open_with(const char *dir, const char *machine, const struct store_options *o,
		    struct store **ret, struct errtext *err);

#endif
