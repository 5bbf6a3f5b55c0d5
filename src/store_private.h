/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the parts of the store share: store.c opens and creates the file, store_schema.c knows what is in it and checks it,
 * store_rows.c has the statements, transactions, holds and changes of the host, store_lease.c the leases, store_who.c the
 * question who had a port, store_collision.c the collisions, store_thread.c commits that go on while the caller does, store_stats.c
 * how long they take.
 */
#ifndef STORE_PRIVATE_H
#define STORE_PRIVATE_H

#include <sqlite3.h>

#include "store.h"
#include "worker.h"

#define STORE_APP_ID 0x536c7563 /* "Sluc", in the file's header */

/* A lease's columns but its id, in the order of store_lease_read() and of what is bound. */
#define LEASE_FIELDS                                                                      \
	"pool, addr, first, last, protos, kind, bound, uid, pid, started, comm, cgroup, " \
	"name, labels, created_ms, ttl_s, expires_ns"

/* A collision's columns but its id, in the order of what is bound and read. */
#define COLLISION_FIELDS                                                                \
	"time_ms, kind, source, netns, proto, src, bound, wire, dst, dport, in_slice, " \
	"resolved, healed, delay_us, pid, uid, inode, cookie, comm, cgroup, owner, "    \
	"owner_src, owner_sport, owner_dst, owner_dport"

/*
 * Where a record is in the index by port: part (1024 ids), then class, then first port. Class 0 is single ports, 1 blocks of up to 64,
 * 2 longer ones: who covers port p has, by class, a first port of p, p - 63 to p, 0 to p. The schema has this text: it stays.
 */
#define LEASE_PLACE "(id >> 10) * 262144 + ((last > first) + (last - first >= 64)) * 65536 + first"

enum store_stmt {
	STMT_BEGIN,
	STMT_COMMIT,
	STMT_ROLLBACK,
	STMT_EPOCH,
	STMT_EPOCH_USE,
	STMT_HOLDS,
	STMT_HOLD_ADD,
	STMT_HOLD_RENEW,
	STMT_HOLD_RM,
	STMT_LOG_BEGIN,
	STMT_LOG_END,
	STMT_LOG_TRIM,
	STMT_HOST_ADD,
	STMT_HOST_RM,
	STMT_HOST_LIST,
	STMT_NEXT_LEASE_SET,
	STMT_LEASE_ADD,
	STMT_LEASE_RENEW,
	STMT_LEASE_RM,
	STMT_LEASE_LOG,
	STMT_LEASES,
	STMT_COOLING,
	STMT_TRIM_LOOK,
	STMT_TRIM_OLD,
	STMT_TRIM_FIRST,
	STMT_WHO_ACTIVE,
	STMT_WHO_PART,
	STMT_WHO_LOG,
	STMT_WHO_HOLDS,
	STMT_COLLISION_ADD,
	STMT_COLLISION_TRIM,
	STMT_COLLISIONS,
	STMT_MAX,
};

struct store {
	sqlite3 *db;
	sqlite3_stmt *stmt[STMT_MAX];
	char *path;  /* of the database */
	int lock_fd; /* -1: not locked */
	uint32_t log_max;
	uint32_t lease_log_max;
	uint32_t collision_max;
	bool broken;
	/*
	 * The thread that commits. It has the store from store_commit_begin() until the commit's end; who else wants it waits for that. So whatever is in here belongs to
	 * one thread at a time, and needs no lock of its own.
	 */
	struct worker worker;
	const struct store_batch *committing;
	struct errtext commit_err;
	struct store_stats stats; /* atomics: see store_stats.c */
	uint64_t tx_began_ns;
	/* Of leases. */
	uint64_t next_lease; /* as it is in meta */
	int64_t reboot_ms;   /* opening ended all leases, then; 0: it did not */
	int64_t log_n;       /* rows of lease_log; -1: nobody has counted yet */
	int64_t log_change;  /* of log_n by the transaction under way */
	uint64_t trim_after; /* ids up to this one have been looked at */
};

/*
 * Turn an SQLite code into -errno and a text. What a roll-back does not mend makes the store broken: after an I/O error the
 * memory's and the disk's idea of the file may differ.
 */
int store_fail(struct store *s, int rc, const char *what, struct errtext *err);
int store_usable(struct store *s, struct errtext *err);
/* A transaction has reached the disk. */
void store_stats_note(struct store *s, uint64_t took_ns);

/* ---- store_thread.c ---- */

/* Until the thread does not have the store. Returns at once in the thread itself. */
void store_wait(struct store *s);

/* ---- store_schema.c ---- */

/* For what is asked or done once: the first column of the first row. These return SQLite codes. */
int store_db_int(sqlite3 *db, const char *sql, int64_t *ret);
int store_db_text(sqlite3 *db, const char *sql, char *ret, size_t size);
/* Run one text of SQL with a text bound to ?1 and a number to ?2, where it has them. */
int store_db_run(sqlite3 *db, const char *sql, const char *text, int64_t number);

void store_boot_id(char ret[64]); /* "" when the kernel does not say */

/* Lead from schema `from` to the newest. In a transaction of the caller's. */
int store_migrate(struct store *s, size_t from, const struct store_options *o, struct errtext *err);
/*
 * Is this a good store of machine's? Leads it to the newest schema and this boot. Everything that may write happens in one
 * transaction, and is rolled back when the store is refused.
 */
int store_accept(struct store *s, const char *machine, const struct store_options *o,
		 struct errtext *err);

/* ---- store_rows.c ---- */

/* Prepare every statement. Returns an SQLite code. The second undoes it, also after a failure. */
int store_stmt_prepare(struct store *s);
void store_stmt_finalize(struct store *s);

struct value {
	enum { VALUE_NULL, VALUE_INT, VALUE_TEXT, VALUE_ADDR } type;
	int64_t i;
	const void *p;
};

#define V_INT(v)  ((struct value){ VALUE_INT, .i = (int64_t)(v) })
#define V_TEXT(v) ((struct value){ (v) ? VALUE_TEXT : VALUE_NULL, .p = (v) })
#define V_ADDR(v) ((struct value){ VALUE_ADDR, .p = (v) })
struct value store_deadline(uint64_t ns); /* SLUICE_NEVER is NULL */

/* Bind, without stepping. What is bound must live until the statement is reset. Returns an SQLite code. */
int store_bind(sqlite3_stmt *st, const struct value *v, int n);
/* Bind, step once, reset. Returns SQLITE_OK or what went wrong. */
int store_exec(struct store *s, enum store_stmt which, const struct value *v, int n);

#define VALUES(...)                            \
	(const struct value[]){ __VA_ARGS__ }, \
		sizeof((const struct value[]){ __VA_ARGS__ }) / sizeof(struct value)
#define EXEC(s, which, ...) store_exec(s, which, VALUES(__VA_ARGS__))
#define BIND(st, ...)       store_bind(st, VALUES(__VA_ARGS__))

int store_tx_begin(struct store *s, struct errtext *err);
/* Commit if r is 0, else roll back. Returns r or why the commit failed. */
int store_tx_end(struct store *s, int r, struct errtext *err);

/* A row that begins with the columns of STMT_HOLDS. False when it is no hold. */
bool store_hold_read(sqlite3_stmt *st, struct hold *ret);

/* ---- store_lease.c ---- */

/* After opening: what is kept in memory. */
int store_lease_begin(struct store *s, struct errtext *err);
/* Has the batch anything to say about leases? */
bool store_leases_changed(const struct store *s, const struct store_batch *b);
/* Inside a transaction. The second when it is committed. */
int store_leases_write(struct store *s, const struct store_batch *b, struct errtext *err);
void store_leases_written(struct store *s, const struct store_batch *b);
/* A row of id, LEASE_FIELDS, ended_ms, why. False when it is no lease. */
bool store_lease_read(sqlite3_stmt *st, struct lease *ret);

#endif
