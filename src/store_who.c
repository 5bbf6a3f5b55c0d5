// SPDX-License-Identifier: BSD-2-Clause
/* Who had this port? Three streams, each with the latest first, are merged: active leases, records of leases, holds. */
#include "store_private.h"

#include <errno.h>
#include <stdlib.h>

#define PART_IDS   1024 /* as LEASE_PLACE has it */
#define PART_WIDTH 262144L
#define CLASS      65536L
#define BLOCK      64

struct stream {
	sqlite3_stmt *st;
	bool more; /* it has a record */
	struct store_record record;
	struct lease lease;
	struct hold hold;
};

struct who {
	struct store *s;
	const struct addr *addr;
	uint16_t port;
	uint8_t protos;
	int64_t at_ms;
	uint64_t below; /* what has not been looked at of lease_log has ids below this */
	struct stream active, past, holds;
};

static int bad_row(struct who *w)
{
	return sqlite3_errcode(w->s->db) == SQLITE_NOMEM ? SQLITE_NOMEM : SQLITE_CORRUPT;
}

/* The next lease of the statement that was asked for. SQLITE_ROW, SQLITE_DONE, or what is wrong. */
static int lease_step(struct who *w, struct stream *in)
{
	int rc;

	while ((rc = sqlite3_step(in->st)) == SQLITE_ROW) {
		if (!store_lease_read(in->st, &in->lease))
			return bad_row(w);
		if (w->protos && !(w->protos & in->lease.protos))
			continue;
		in->record = (struct store_record){
			.lease = &in->lease,
			.began_ms = in->lease.created_ms,
			.ended_ms = in->lease.ended_ms,
			.why = lease_why_name(in->lease.why),
		};
		return rc;
	}
	return rc;
}

/* Turn to the next lower part of lease_log that has any records. SQLITE_ROW, SQLITE_DONE, or what is wrong. */
static int part_next(struct who *w)
{
	sqlite3_stmt *st = w->s->stmt[STMT_WHO_PART];
	int64_t part = -1, base, low = w->port < BLOCK ? 0 : w->port - BLOCK + 1;
	int rc = BIND(st, V_INT(w->below)), reset;

	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc == SQLITE_ROW && sqlite3_column_type(st, 0) != SQLITE_NULL)
		part = sqlite3_column_int64(st, 0) / PART_IDS;
	reset = sqlite3_reset(st);
	if (rc != SQLITE_ROW || reset != SQLITE_OK)
		return rc == SQLITE_ROW ? reset : rc == SQLITE_DONE ? SQLITE_CORRUPT : rc;
	if (part < 0)
		return SQLITE_DONE;
	w->below = (uint64_t)part * PART_IDS;
	base = part * PART_WIDTH;
	sqlite3_reset(w->past.st);
	rc = BIND(w->past.st, V_ADDR(w->addr), V_INT(w->port), V_INT(w->at_ms),
		  V_INT(base + w->port), V_INT(base + CLASS + low), V_INT(base + CLASS + w->port),
		  V_INT(base + 2 * CLASS), V_INT(base + 2 * CLASS + w->port));
	return rc == SQLITE_OK ? SQLITE_ROW : rc;
}

static int past_next(struct who *w)
{
	int rc = w->below == INT64_MAX ? SQLITE_DONE : lease_step(w, &w->past);

	while (rc == SQLITE_DONE) {
		rc = part_next(w);
		if (rc != SQLITE_ROW)
			return rc;
		rc = lease_step(w, &w->past);
	}
	return rc;
}

static int hold_next(struct who *w)
{
	struct stream *in = &w->holds;
	int rc = sqlite3_step(in->st);

	if (rc != SQLITE_ROW)
		return rc;
	if (!store_hold_read(in->st, &in->hold))
		return bad_row(w);
	in->record = (struct store_record){
		.hold = &in->hold,
		.began_ms = sqlite3_column_int64(in->st, 6),
		.ended_ms = sqlite3_column_int64(in->st, 7),
		.why = "",
	};
	if (sqlite3_column_type(in->st, 7) != SQLITE_NULL) {
		in->hold.not_after_ns = 0;
		in->record.why = (const char *)sqlite3_column_text(in->st, 8);
		if (!in->record.why)
			return bad_row(w);
	}
	return rc;
}

static int stream_next(struct who *w, struct stream *in)
{
	int rc = in == &w->active ? lease_step(w, in)
		 : in == &w->past ? past_next(w)
				  : hold_next(w);

	in->more = rc == SQLITE_ROW;
	return in->more || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* Among leases ids tell which is later, also where the clock was set back. */
static struct stream *stream_latest(struct who *w)
{
	struct stream *l = &w->active;

	if (!l->more || (w->past.more && w->past.lease.id > l->lease.id))
		l = &w->past;
	if (!l->more || (w->holds.more && w->holds.record.began_ms > l->record.began_ms))
		l = &w->holds;
	return l->more ? l : NULL;
}

static int who_run(struct who *w, size_t max, int (*fn)(const struct store_record *r, void *arg),
		   void *arg, int *ret_rc)
{
	struct stream *const all[] = { &w->active, &w->past, &w->holds };
	struct stream *in;
	int r = 0, rc = SQLITE_OK;

	for (size_t i = 0; i < 3 && rc == SQLITE_OK; i++)
		rc = stream_next(w, all[i]);
	while (rc == SQLITE_OK && !r && max && (in = stream_latest(w))) {
		r = fn(&in->record, arg);
		max--;
		if (!r && max)
			rc = stream_next(w, in);
	}
	*ret_rc = rc;
	return r;
}

int store_who(struct store *s, const struct addr *a, uint16_t port, uint8_t protos, int64_t at_ms,
	      size_t max, int (*fn)(const struct store_record *r, void *arg), void *arg,
	      struct errtext *err)
{
	struct who w = {
		.s = s,
		.addr = a,
		.port = port,
		.protos = protos,
		.at_ms = at_ms,
		.below = INT64_MAX,
		.active.st = s->stmt[STMT_WHO_ACTIVE],
		.past.st = s->stmt[STMT_WHO_LOG],
		.holds.st = s->stmt[STMT_WHO_HOLDS],
	};
	int rc, r = store_usable(s, err);

	if (r || !max)
		return r;
	rc = BIND(w.active.st, V_ADDR(a), V_INT(port), V_INT(at_ms));
	if (rc == SQLITE_OK)
		rc = BIND(w.holds.st, V_ADDR(a), V_INT(port), V_INT(at_ms));
	if (rc == SQLITE_OK)
		r = who_run(&w, max, fn, arg, &rc);
	for (size_t i = 0; i < 3; i++) {
		sqlite3_stmt *st = (sqlite3_stmt *[]){ w.active.st, w.past.st, w.holds.st }[i];

		sqlite3_reset(st);
		sqlite3_clear_bindings(st);
	}
	return r ? r : rc == SQLITE_OK ? 0 : store_fail(s, rc, "look for who had a port", err);
}
