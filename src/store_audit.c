// SPDX-License-Identifier: BSD-2-Clause
/* Leases as they are in the file, and their repair. Asked for seldom: the statements live as long as a call. */
#include "store_audit.h"

#include <errno.h>

#include "store_private.h"

static const char page_sql[] =
	"SELECT id, " LEASE_FIELDS ", NULL, NULL,"
	" EXISTS (SELECT 1 FROM lease_log r WHERE r.id = lease.id) FROM lease"
	" WHERE id > ?1 ORDER BY id LIMIT ?2";
#define COLUMN_RECORD 20 /* of page_sql: there is a record as well */

static const char row_sql[] =
	"INSERT OR REPLACE INTO lease (id, " LEASE_FIELDS ") VALUES (?1, ?2, ?3, ?4, ?5, ?6,"
	" ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";
static const char row_rm_sql[] = "DELETE FROM lease WHERE id = ?1";
static const char record_sql[] =
	"INSERT OR IGNORE INTO lease_log (id, " LEASE_FIELDS ", ended_ms, why) VALUES (?1, ?2,"
	" ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)";
static const char record_rm_sql[] = "DELETE FROM lease_log WHERE id = ?1";

int store_version(struct store *s, int64_t *ret, struct errtext *err)
{
	int rc, r = store_usable(s, err);

	if (r)
		return r;
	rc = store_db_int(s->db, "PRAGMA data_version", ret);
	return rc == SQLITE_OK ? 0 : store_fail(s, rc, "read", err);
}

/* What lease_adopt() would refuse at the next start is no lease either. */
static bool row_good(sqlite3_stmt *st, struct lease *ret)
{
	return store_lease_read(st, ret) && ret->ports.first && ret->ttl_s <= LEASE_TTL_MAX &&
	       !sqlite3_column_int(st, COLUMN_RECORD);
}

int store_lease_page(struct store *s, uint64_t after, size_t max, struct store_row *ret,
		     size_t *ret_n, struct errtext *err)
{
	int rc, end, r = store_usable(s, err);
	sqlite3_stmt *st = NULL;
	size_t n = 0;

	if (r)
		return r;
	rc = sqlite3_prepare_v2(s->db, page_sql, -1, &st, NULL);
	if (rc == SQLITE_OK)
		rc = BIND(st, V_INT(after), V_INT(max));
	while (rc == SQLITE_OK && n < max) {
		rc = sqlite3_step(st);
		if (rc != SQLITE_ROW)
			break;
		rc = SQLITE_OK;
		ret[n].id = (uint64_t)sqlite3_column_int64(st, 0);
		ret[n].good = row_good(st, &ret[n].lease);
		if (!ret[n].good && sqlite3_errcode(s->db) == SQLITE_NOMEM)
			rc = SQLITE_NOMEM;
		n++;
	}
	end = sqlite3_finalize(st);
	if (rc == SQLITE_DONE)
		rc = end;
	if (rc != SQLITE_OK)
		return store_fail(s, rc, "read the leases", err);
	*ret_n = n;
	return 0;
}

static int run(struct store *s, const char *sql, const struct value *v, int n)
{
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(s->db, sql, -1, &st, NULL), end;

	if (rc == SQLITE_OK)
		rc = store_bind(st, v, n);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	end = sqlite3_finalize(st);
	return rc == SQLITE_DONE ? end : rc;
}

#define RUN(s, sql, ...) run(s, sql, VALUES(__VA_ARGS__))

#define LEASE_VALUES(l)                                                                       \
	V_INT((l)->id), V_TEXT((l)->pool), V_ADDR(&(l)->ports.addr), V_INT((l)->ports.first), \
		V_INT((l)->ports.last), V_TEXT(lease_protos_name((l)->protos)),               \
		V_TEXT(lease_kind_name((l)->kind)), V_TEXT(lease_bound_name((l)->bound)),     \
		V_INT((l)->holder.uid), V_INT((l)->holder.pid), V_INT((l)->holder.started),   \
		V_TEXT((l)->holder.comm), V_TEXT((l)->holder.cgroup), V_TEXT((l)->name),      \
		V_TEXT((l)->labels), V_INT((l)->created_ms), V_INT((l)->ttl_s),               \
		store_deadline((l)->expires_ns)

static int repair_one(struct store *s, const struct store_repair *p)
{
	const struct lease *l = p->lease;
	int rc;

	if (l && l->state == LEASE_ACTIVE) {
		rc = RUN(s, record_rm_sql, V_INT(p->id));
		if (rc == SQLITE_OK) {
			s->log_change -= sqlite3_changes(s->db);
			rc = RUN(s, row_sql, LEASE_VALUES(l));
		}
		return rc;
	}
	rc = RUN(s, row_rm_sql, V_INT(p->id));
	/* A record of an id that will be given out would make the file a contradiction. */
	if (rc != SQLITE_OK || !l || p->id >= s->next_lease)
		return rc;
	rc = RUN(s, record_sql, LEASE_VALUES(l), V_INT(l->ended_ms),
		 V_TEXT(lease_why_name(l->why)));
	if (rc == SQLITE_OK)
		s->log_change += sqlite3_changes(s->db);
	return rc;
}

int store_lease_repair(struct store *s, const struct store_repair *list, size_t n,
		       struct errtext *err)
{
	int rc = SQLITE_OK, r;

	if (!n)
		return store_usable(s, err);
	r = store_tx_begin(s, err);
	if (r)
		return r;
	s->log_change = 0;
	for (size_t i = 0; i < n && rc == SQLITE_OK; i++)
		rc = repair_one(s, &list[i]);
	r = store_tx_end(s, rc == SQLITE_OK ? 0 : store_fail(s, rc, "repair the leases", err), err);
	if (!r && s->log_n >= 0)
		s->log_n += s->log_change;
	return r;
}
