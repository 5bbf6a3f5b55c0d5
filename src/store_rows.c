// SPDX-License-Identifier: BSD-2-Clause
/*
 * Points and failures for tests (fault.h), in every write transaction: "store.begin" before it, "store.commit" when all is
 * written and nothing committed, "store.committed" after it. fault_fails: "store.full" (the commit fails as on a full disk),
 * "store.io" (as on a broken one).
 */
#include "store_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "fault.h"

static const char *const stmt_sql[STMT_MAX] = {
	[STMT_BEGIN] = "BEGIN IMMEDIATE",
	[STMT_COMMIT] = "COMMIT",
	[STMT_ROLLBACK] = "ROLLBACK",
	[STMT_EPOCH] = "SELECT next_epoch FROM meta",
	[STMT_EPOCH_USE] = "UPDATE meta SET next_epoch = ?2 WHERE next_epoch <= ?1",
	[STMT_HOLDS] = "SELECT addr, first, last, pool, epoch, not_after_ns FROM hold",
	[STMT_HOLD_ADD] = "INSERT INTO hold (pool, addr, first, last, epoch, not_after_ns)"
			  " VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
	[STMT_HOLD_RENEW] = "UPDATE hold SET not_after_ns = ?2 WHERE epoch = ?1",
	[STMT_HOLD_RM] = "DELETE FROM hold WHERE epoch = ?1",
	[STMT_LOG_BEGIN] = "INSERT INTO hold_log (pool, addr, first, last, epoch, began_ms)"
			   " VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
	[STMT_LOG_END] = "UPDATE hold_log SET ended_ms = ?2, why = ?3"
			 " WHERE epoch = ?1 AND ended_ms IS NULL",
	/* A negative limit would mean none. */
	[STMT_LOG_TRIM] = "DELETE FROM hold_log WHERE epoch IN (SELECT epoch FROM hold_log"
			  " WHERE ended_ms IS NOT NULL ORDER BY ended_ms, epoch LIMIT max(0,"
			  " (SELECT count(*) FROM hold_log WHERE ended_ms IS NOT NULL) - ?1))",
	[STMT_HOST_ADD] = "INSERT INTO host_change (kind, key, was, now) VALUES (?1, ?2, ?3, ?4)"
			  " ON CONFLICT (kind, key) DO UPDATE SET now = excluded.now",
	[STMT_HOST_RM] = "DELETE FROM host_change WHERE kind = ?1 AND key = ?2",
	[STMT_HOST_LIST] = "SELECT kind, key, was, now FROM host_change ORDER BY seq DESC",
	[STMT_NEXT_LEASE_SET] = "UPDATE meta SET next_lease = ?1",
	[STMT_LEASE_ADD] =
		"INSERT INTO lease (id, " LEASE_FIELDS ") VALUES (?1, ?2, ?3, ?4, ?5, ?6,"
		" ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
	[STMT_LEASE_RENEW] = "UPDATE lease SET ttl_s = ?2, expires_ns = ?3 WHERE id = ?1",
	[STMT_LEASE_RM] = "DELETE FROM lease WHERE id = ?1",
	[STMT_LEASE_LOG] =
		"INSERT INTO lease_log (id, " LEASE_FIELDS ", ended_ms, why) VALUES (?1, ?2,"
		" ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,"
		" ?18, ?19, ?20)",
	[STMT_LEASES] = "SELECT id, " LEASE_FIELDS ", NULL, NULL FROM lease ORDER BY id",
	[STMT_COOLING] = "SELECT id, " LEASE_FIELDS ", ended_ms, why FROM lease_log WHERE"
			 " ended_ms >= ?1 OR ended_ms = ?2 AND why = ?3 ORDER BY id DESC",
	[STMT_TRIM_LOOK] =
		"SELECT max(id), count(*), min(created_ms >= ?2), sum(ended_ms < ?2) FROM"
		" (SELECT id, created_ms, ended_ms FROM lease_log WHERE id > ?1"
		" ORDER BY id LIMIT ?3)",
	[STMT_TRIM_OLD] = "DELETE FROM lease_log WHERE id > ?1 AND id <= ?2 AND ended_ms < ?3",
	[STMT_TRIM_FIRST] = "DELETE FROM lease_log WHERE id IN"
			    " (SELECT id FROM lease_log ORDER BY id LIMIT ?1)",
	[STMT_WHO_ACTIVE] = "SELECT id, " LEASE_FIELDS ", NULL, NULL FROM lease WHERE"
			    " addr = ?1 AND first <= ?2 AND last >= ?2"
			    " AND (?3 = 0 OR created_ms <= ?3) ORDER BY id DESC",
	[STMT_WHO_PART] = "SELECT max(id) FROM lease_log WHERE id < ?1",
	/* Of one part of the index. Each of the three is a search in it. */
	[STMT_WHO_LOG] = "SELECT id, " LEASE_FIELDS ", ended_ms, why FROM lease_log WHERE"
			 " (" LEASE_PLACE " = ?4 OR " LEASE_PLACE " BETWEEN ?5 AND ?6"
			 " OR " LEASE_PLACE " BETWEEN ?7 AND ?8)"
			 " AND addr = ?1 AND first <= ?2 AND last >= ?2"
			 " AND (?3 = 0 OR created_ms <= ?3 AND ended_ms >= ?3) ORDER BY id DESC",
	[STMT_WHO_HOLDS] =
		"SELECT l.addr, l.first, l.last, l.pool, l.epoch, h.not_after_ns, l.began_ms,"
		" l.ended_ms, l.why FROM hold_log l LEFT JOIN hold h USING (epoch) WHERE"
		" l.addr = ?1 AND l.first <= ?2 AND l.last >= ?2 AND (?3 = 0 OR"
		" l.began_ms <= ?3 AND coalesce(l.ended_ms, ?3) >= ?3)"
		" ORDER BY l.began_ms DESC, l.epoch DESC",
	[STMT_COLLISION_ADD] =
		"INSERT INTO collision (" COLLISION_FIELDS ") VALUES (?1, ?2, ?3, ?4,"
		" ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,"
		" ?19, ?20, ?21, ?22, ?23, ?24, ?25)",
	/* Ids have no gaps but those that somebody else made. */
	[STMT_COLLISION_TRIM] =
		"DELETE FROM collision WHERE id <= (SELECT max(id) FROM collision) - ?1",
	[STMT_COLLISIONS] = "SELECT id, (time_ms >= ?2 AND (?3 IS NULL OR kind = ?3) AND"
			    " (?4 IS NULL OR proto = ?4) AND (?5 IS NULL OR netns = ?5) AND"
			    " (?6 IS NULL OR in_slice = ?6) AND (?7 IS NULL OR uid = ?7)),"
			    " " COLLISION_FIELDS " FROM collision WHERE id < ?1 ORDER BY id DESC",
};

/* ---- errors ---- */

static int store_errno(sqlite3 *db, int rc)
{
	int sys = db ? sqlite3_system_errno(db) : 0;

	switch (rc & 0xff) {
	case SQLITE_FULL:
		return ENOSPC;
	case SQLITE_NOMEM:
		return ENOMEM;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return EBUSY;
	case SQLITE_READONLY:
		return EROFS;
	case SQLITE_NOTADB:
		return EMEDIUMTYPE;
	case SQLITE_CONSTRAINT:
		return ESTALE;
	case SQLITE_CORRUPT:
	case SQLITE_ERROR: /* our SQL is right: the schema is not */
	case SQLITE_SCHEMA:
		return EUCLEAN;
	case SQLITE_IOERR:
		if (rc == SQLITE_IOERR_NOMEM)
			return ENOMEM;
		return sys == ENOSPC || sys == EDQUOT || sys == EFBIG ? ENOSPC : EIO;
	case SQLITE_CANTOPEN:
		return sys ? sys : EIO;
	default:
		return EIO;
	}
}

static const char *store_advice(int e)
{
	switch (e) {
	case ENOSPC:
		return "; the disk, the quota or the process's file size limit is used up";
	case EUCLEAN:
		return "; it is damaged and is left as it is: move it away to begin anew";
	case EMEDIUMTYPE:
		return "; it is left as it is: move it away if it may go";
	case EBUSY:
		return "; another program is using the file";
	default:
		return "";
	}
}

int store_fail(struct store *s, int rc, const char *what, struct errtext *err)
{
	int e = store_errno(s->db, rc);

	if (e != ENOSPC && e != ENOMEM && e != EBUSY && e != ESTALE)
		s->broken = true;
	if ((rc & 0xff) == SQLITE_IOERR && rc != SQLITE_IOERR_NOMEM)
		s->broken = true;
	return errtext_set(err, e, "store %s: %s: %s%s", s->path, what,
			   rc == SQLITE_NOMEM || !s->db ? sqlite3_errstr(rc)
							: sqlite3_errmsg(s->db),
			   store_advice(e));
}

int store_usable(struct store *s, struct errtext *err)
{
	store_wait(s);
	if (!s->broken)
		return 0;
	return errtext_set(err, EIO, "store %s failed before and must be opened again", s->path);
}

bool store_must_reopen(struct store *s)
{
	return store_commit_done(s) && s->broken;
}

/* ---- statements ---- */

struct value store_deadline(uint64_t ns)
{
	if (ns == SLUICE_NEVER)
		return (struct value){ VALUE_NULL };
	return V_INT(ns > INT64_MAX ? INT64_MAX : ns);
}

int store_bind(sqlite3_stmt *st, const struct value *v, int n)
{
	int rc = SQLITE_OK;

	for (int i = 0; i < n && rc == SQLITE_OK; i++) {
		switch (v[i].type) {
		case VALUE_NULL:
			rc = sqlite3_bind_null(st, i + 1);
			break;
		case VALUE_INT:
			rc = sqlite3_bind_int64(st, i + 1, v[i].i);
			break;
		case VALUE_TEXT:
			rc = sqlite3_bind_text(st, i + 1, v[i].p, -1, SQLITE_STATIC);
			break;
		case VALUE_ADDR:
			rc = sqlite3_bind_blob(st, i + 1, v[i].p, sizeof(struct addr),
					       SQLITE_STATIC);
			break;
		}
	}
	return rc;
}

int store_exec(struct store *s, enum store_stmt which, const struct value *v, int n)
{
	sqlite3_stmt *st = s->stmt[which];
	int rc = store_bind(st, v, n), reset;

	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	reset = sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	return rc == SQLITE_DONE || rc == SQLITE_ROW ? reset : rc;
}

/* ---- transactions ---- */

int store_tx_begin(struct store *s, struct errtext *err)
{
	int rc, r = store_usable(s, err);

	if (r)
		return r;
	FAULT_POINT("store.begin");
	s->tx_began_ns = clock_boot_ns();
	rc = EXEC(s, STMT_BEGIN);
	return rc == SQLITE_OK ? 0 : store_fail(s, rc, "begin", err);
}

int store_tx_end(struct store *s, int r, struct errtext *err)
{
	int rc;

	if (!r) {
		FAULT_POINT("store.commit");
		if (fault_fails("store.full"))
			rc = SQLITE_FULL;
		else if (fault_fails("store.io"))
			rc = SQLITE_IOERR;
		else
			rc = EXEC(s, STMT_COMMIT);
		if (rc == SQLITE_OK) {
			FAULT_POINT("store.committed");
			store_stats_note(s, clock_boot_ns() - s->tx_began_ns);
			return 0;
		}
		r = store_fail(s, rc, "commit", err);
	}
	/* Some errors have rolled back already. */
	if (!sqlite3_get_autocommit(s->db) &&
	    (EXEC(s, STMT_ROLLBACK) != SQLITE_OK || !sqlite3_get_autocommit(s->db)))
		s->broken = true;
	return r;
}

/* ---- holds ---- */

static int stale(struct store *s, const struct hold *h, const char *what, struct errtext *err)
{
	char text[RANGE_STRLEN];

	return errtext_set(err, ESTALE, "store %s: %s %s, epoch %u", s->path, what,
			   range_format(&h->ports, text), h->epoch);
}

/* A statement that must touch exactly one row of this hold. */
static int exec_one(struct store *s, enum store_stmt which, const struct hold *h,
		    const struct value *v, int n, struct errtext *err)
{
	int rc = store_exec(s, which, v, n);

	if ((rc & 0xff) == SQLITE_CONSTRAINT)
		return stale(s, h, "has already what should begin:", err);
	if (rc != SQLITE_OK)
		return store_fail(s, rc, "write", err);
	if (sqlite3_changes(s->db) != 1)
		return stale(s, h, "does not have the hold", err);
	return 0;
}

#define EXEC_ONE(s, which, h, err, ...) exec_one(s, which, h, VALUES(__VA_ARGS__), err)

static int hold_write(struct store *s, const struct hold_change *c, int64_t now_ms,
		      struct errtext *err)
{
	const struct hold *h = &c->hold;
	int r;

	switch (c->verb) {
	case HOLD_BEGIN:
		r = EXEC_ONE(s, STMT_LOG_BEGIN, h, err, V_TEXT(h->pool), V_ADDR(&h->ports.addr),
			     V_INT(h->ports.first), V_INT(h->ports.last), V_INT(h->epoch),
			     V_INT(now_ms));
		if (r)
			return r;
		return EXEC_ONE(s, STMT_HOLD_ADD, h, err, V_TEXT(h->pool), V_ADDR(&h->ports.addr),
				V_INT(h->ports.first), V_INT(h->ports.last), V_INT(h->epoch),
				store_deadline(h->not_after_ns));
	case HOLD_RENEW:
		return EXEC_ONE(s, STMT_HOLD_RENEW, h, err, V_INT(h->epoch),
				store_deadline(h->not_after_ns));
	case HOLD_END:
		r = EXEC_ONE(s, STMT_HOLD_RM, h, err, V_INT(h->epoch));
		if (r)
			return r;
		return EXEC_ONE(s, STMT_LOG_END, h, err, V_INT(h->epoch), V_INT(now_ms),
				V_TEXT(hold_why_name(c->why)));
	case HOLD_KEEP:
		break;
	}
	return 0;
}

/* Take first_epoch to next_epoch - 1 out of the counter, in the transaction that gives them away. */
static int epochs_use(struct store *s, const struct hold_changes *c, struct errtext *err)
{
	int rc = EXEC(s, STMT_EPOCH_USE, V_INT(c->first_epoch), V_INT(c->next_epoch));

	if (rc != SQLITE_OK)
		return store_fail(s, rc, "write", err);
	if (sqlite3_changes(s->db) == 1)
		return 0;
	return errtext_set(err, ESTALE, "store %s: epochs from %u on were given out before",
			   s->path, c->first_epoch);
}

static int holds_write(struct store *s, const struct hold_changes *c, int64_t now_ms,
		       struct errtext *err)
{
	int rc, r = 0;

	if (c->count[HOLD_BEGIN])
		r = epochs_use(s, c, err);
	for (size_t i = 0; i < c->n && !r; i++)
		r = hold_write(s, &c->rows[i], now_ms, err);
	if (r || !c->count[HOLD_END])
		return r;
	rc = EXEC(s, STMT_LOG_TRIM, V_INT(s->log_max));
	return rc == SQLITE_OK ? 0 : store_fail(s, rc, "trim the records", err);
}

int store_commit(struct store *s, const struct store_batch *b, struct errtext *err)
{
	bool holds = b->holds && !hold_changes_empty(b->holds), leases = store_leases_changed(s, b);
	int r = store_usable(s, err);

	if (r || (!holds && !leases))
		return r;
	r = store_tx_begin(s, err);
	if (r)
		return r;
	if (holds)
		r = holds_write(s, b->holds, b->now_ms, err);
	if (!r && leases)
		r = store_leases_write(s, b, err);
	r = store_tx_end(s, r, err);
	if (!r && leases)
		store_leases_written(s, b);
	return r;
}

bool store_hold_read(sqlite3_stmt *st, struct hold *ret)
{
	const void *addr = sqlite3_column_blob(st, 0);
	const char *pool = (const char *)sqlite3_column_text(st, 3);
	int64_t first = sqlite3_column_int64(st, 1), last = sqlite3_column_int64(st, 2);
	int64_t epoch = sqlite3_column_int64(st, 4), not_after = sqlite3_column_int64(st, 5);

	if (!addr || sqlite3_column_bytes(st, 0) != sizeof(ret->ports.addr) || !pool ||
	    strlen(pool) >= sizeof(ret->pool) || first < 0 || first > UINT16_MAX || last < first ||
	    last > UINT16_MAX || epoch < 1 || epoch >= UINT32_MAX || not_after < 0)
		return false;
	*ret = (struct hold){
		.ports = { .first = (uint16_t)first, .last = (uint16_t)last },
		.epoch = (uint32_t)epoch,
		.not_after_ns = sqlite3_column_type(st, 5) == SQLITE_NULL ? SLUICE_NEVER
									  : (uint64_t)not_after,
	};
	memcpy(&ret->ports.addr, addr, sizeof(ret->ports.addr));
	memcpy(ret->pool, pool, strlen(pool) + 1);
	return true;
}

static int holds_read(struct store *s, struct hold **ret, size_t *ret_n)
{
	sqlite3_stmt *st = s->stmt[STMT_HOLDS];
	struct hold *rows = NULL, *more;
	size_t n = 0, max = 0;
	int rc, reset;

	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		if (n == max) {
			max = max ? 2 * max : 64;
			more = reallocarray(rows, max, sizeof(*rows));
			if (!more) {
				rc = SQLITE_NOMEM;
				break;
			}
			rows = more;
		}
		if (!store_hold_read(st, &rows[n++])) {
			rc = sqlite3_errcode(s->db) == SQLITE_NOMEM ? SQLITE_NOMEM : SQLITE_CORRUPT;
			break;
		}
	}
	reset = sqlite3_reset(st);
	if (rc == SQLITE_DONE)
		rc = reset;
	if (rc != SQLITE_OK) {
		free(rows);
		return rc;
	}
	*ret = rows;
	*ret_n = n;
	return SQLITE_OK;
}

static int epoch_read(struct store *s, int64_t *ret)
{
	sqlite3_stmt *st = s->stmt[STMT_EPOCH];
	int64_t epoch = 0;
	int rc = sqlite3_step(st), reset;

	if (rc == SQLITE_ROW)
		epoch = sqlite3_column_int64(st, 0);
	reset = sqlite3_reset(st);
	if (rc != SQLITE_ROW)
		return rc == SQLITE_DONE ? SQLITE_CORRUPT : rc;
	if (reset == SQLITE_OK && (epoch < 1 || epoch > UINT32_MAX))
		return SQLITE_CORRUPT;
	*ret = epoch;
	return reset;
}

int store_load_holds(struct store *s, struct hold_table *ret, uint32_t *ret_next_epoch,
		     struct errtext *err)
{
	struct hold *rows;
	int64_t epoch = 0;
	size_t n;
	int rc, r = store_usable(s, err);

	if (r)
		return r;
	rc = epoch_read(s, &epoch);
	if (rc == SQLITE_OK)
		rc = holds_read(s, &rows, &n);
	if (rc != SQLITE_OK)
		return store_fail(s, rc, "read the holds", err);
	if (hold_table_adopt(ret, rows, n)) {
		free(rows);
		return store_fail(s, SQLITE_CORRUPT, "holds that overlap", err);
	}
	*ret_next_epoch = (uint32_t)epoch;
	return 0;
}

/* ---- changes of the host ---- */

int store_host_add(struct store *s, const struct store_host *list, size_t n, struct errtext *err)
{
	int rc = SQLITE_OK, r = store_tx_begin(s, err);

	if (r)
		return r;
	for (size_t i = 0; i < n && rc == SQLITE_OK; i++)
		rc = EXEC(s, STMT_HOST_ADD, V_TEXT(list[i].kind), V_TEXT(list[i].key),
			  V_TEXT(list[i].was), V_TEXT(list[i].now));
	return store_tx_end(s, rc == SQLITE_OK ? 0 : store_fail(s, rc, "write", err), err);
}

int store_host_rm(struct store *s, const char *kind, const char *key, struct errtext *err)
{
	int rc, r = store_tx_begin(s, err);

	if (r)
		return r;
	rc = EXEC(s, STMT_HOST_RM, V_TEXT(kind), V_TEXT(key));
	return store_tx_end(s, rc == SQLITE_OK ? 0 : store_fail(s, rc, "write", err), err);
}

/* A column's text as a new string; NULL for SQL's NULL. */
static int column_dup(struct store *s, sqlite3_stmt *st, int col, char **ret)
{
	const unsigned char *text;

	*ret = NULL;
	if (sqlite3_column_type(st, col) == SQLITE_NULL)
		return SQLITE_OK;
	text = sqlite3_column_text(st, col);
	if (!text)
		return sqlite3_errcode(s->db) == SQLITE_NOMEM ? SQLITE_NOMEM : SQLITE_CORRUPT;
	*ret = strdup((const char *)text);
	return *ret ? SQLITE_OK : SQLITE_NOMEM;
}

static int host_read(struct store *s, sqlite3_stmt *st, struct store_host *h)
{
	int rc = column_dup(s, st, 0, &h->kind);

	if (rc == SQLITE_OK)
		rc = column_dup(s, st, 1, &h->key);
	if (rc == SQLITE_OK)
		rc = column_dup(s, st, 2, &h->was);
	if (rc == SQLITE_OK)
		rc = column_dup(s, st, 3, &h->now);
	return rc;
}

int store_host_list(struct store *s, struct store_host **ret, size_t *ret_n, struct errtext *err)
{
	sqlite3_stmt *st = s->stmt[STMT_HOST_LIST];
	struct store_host *list = NULL, *more;
	size_t n = 0;
	int rc, reset, r = store_usable(s, err);

	if (r)
		return r;
	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		more = reallocarray(list, n + 1, sizeof(*list));
		if (!more) {
			rc = SQLITE_NOMEM;
			break;
		}
		list = more;
		list[n] = (struct store_host){ 0 };
		rc = host_read(s, st, &list[n++]);
		if (rc != SQLITE_OK)
			break;
	}
	reset = sqlite3_reset(st);
	if (rc == SQLITE_DONE)
		rc = reset;
	if (rc != SQLITE_OK) {
		store_host_free(list, n);
		return store_fail(s, rc, "read the changes of the host", err);
	}
	*ret = list;
	*ret_n = n;
	return 0;
}

void store_host_free(struct store_host *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(list[i].kind);
		free(list[i].key);
		free(list[i].was);
		free(list[i].now);
	}
	free(list);
}

/* ---- the statements' life ---- */

int store_stmt_prepare(struct store *s)
{
	for (int i = 0; i < STMT_MAX; i++) {
		int rc = sqlite3_prepare_v3(s->db, stmt_sql[i], -1, SQLITE_PREPARE_PERSISTENT,
					    &s->stmt[i], NULL);

		if (rc != SQLITE_OK)
			return rc;
	}
	return SQLITE_OK;
}

void store_stmt_finalize(struct store *s)
{
	for (int i = 0; i < STMT_MAX; i++) {
		sqlite3_finalize(s->stmt[i]);
		s->stmt[i] = NULL;
	}
}
