// SPDX-License-Identifier: BSD-2-Clause
/* The store of leases: a batch of changes in, the active and the cooling ones out, old records forgotten. */
#include "store_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"

#define TRIM_ROWS 1000 /* of a call, which must not keep the daemon for long */

int store_lease_begin(struct store *s, struct errtext *err)
{
	int64_t next = 0;
	int rc = store_db_int(s->db, "SELECT next_lease FROM meta", &next);

	if (rc != SQLITE_OK)
		return store_fail(s, rc, "read", err);
	s->next_lease = (uint64_t)next;
	s->log_n = -1;
	return 0;
}

/* ---- writing ---- */

bool store_leases_changed(const struct store *s, const struct store_batch *b)
{
	return b->n_leases || (b->next_lease && b->next_lease != s->next_lease);
}

static int lease_stale(struct store *s, uint64_t id, const char *what, struct errtext *err)
{
	return errtext_set(err, ESTALE, "store %s: lease %" PRIu64 " %s", s->path, id, what);
}

#define LEASE_VALUES(l)                                                                       \
	V_INT((l)->id), V_TEXT((l)->pool), V_ADDR(&(l)->ports.addr), V_INT((l)->ports.first), \
		V_INT((l)->ports.last), V_TEXT(lease_protos_name((l)->protos)),               \
		V_TEXT(lease_kind_name((l)->kind)), V_TEXT(lease_bound_name((l)->bound)),     \
		V_INT((l)->holder.uid), V_INT((l)->holder.pid), V_INT((l)->holder.started),   \
		V_TEXT((l)->holder.comm), V_TEXT((l)->holder.cgroup), V_TEXT((l)->name),      \
		V_TEXT((l)->labels), V_INT((l)->created_ms), V_INT((l)->ttl_s),               \
		store_deadline((l)->expires_ns)

/* A new row: to begin with, or for the record. */
static int row_add(struct store *s, const struct lease *l, bool past, struct errtext *err)
{
	int rc = past ? EXEC(s, STMT_LEASE_LOG, LEASE_VALUES(l), V_INT(l->ended_ms),
			     V_TEXT(lease_why_name(l->why)))
		      : EXEC(s, STMT_LEASE_ADD, LEASE_VALUES(l));

	if ((rc & 0xff) == SQLITE_CONSTRAINT)
		return lease_stale(s, l->id, "is there already", err);
	if (rc != SQLITE_OK)
		return store_fail(s, rc, "write", err);
	s->log_change += past;
	return 0;
}

/* A statement that must touch the row of this active lease. */
static int row_touch(struct store *s, enum store_stmt which, const struct lease *l,
		     const struct value *v, int n, struct errtext *err)
{
	int rc = store_exec(s, which, v, n);

	if (rc != SQLITE_OK)
		return store_fail(s, rc, "write", err);
	if (sqlite3_changes(s->db) != 1)
		return lease_stale(s, l->id, "is not active in it", err);
	return 0;
}

/* Leases that a batch both grants and ends: all that is written of them is the record. */
struct brief {
	uint64_t *ids; /* rising, as they are given out */
	size_t n;
	size_t ended;
};

static int id_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static bool is_brief(const struct brief *b, uint64_t id)
{
	return b->n && bsearch(&id, b->ids, b->n, sizeof(id), id_compare);
}

static int change_write(struct store *s, const struct lease_change *c, struct brief *brief,
			struct errtext *err)
{
	const struct lease *l = c->lease;
	int r = 0;

	switch (c->verb) {
	case LEASE_GRANTED:
		/* A change shows the lease as it is at the end of the batch. */
		if (l->state == LEASE_ACTIVE)
			return row_add(s, l, false, err);
		brief->ids[brief->n++] = l->id;
		return 0;
	case LEASE_RENEWED:
		if (is_brief(brief, l->id))
			return 0;
		return row_touch(
			s, STMT_LEASE_RENEW, l,
			VALUES(V_INT(l->id), V_INT(l->ttl_s), store_deadline(l->expires_ns)), err);
	case LEASE_RELEASED:
		if (is_brief(brief, l->id))
			brief->ended++;
		else
			r = row_touch(s, STMT_LEASE_RM, l, VALUES(V_INT(l->id)), err);
		return r ? r : row_add(s, l, true, err);
	}
	return 0;
}

static int changes_write(struct store *s, const struct store_batch *b, uint64_t counter,
			 struct brief *brief, struct errtext *err)
{
	uint64_t next = s->next_lease;
	int r = 0;

	for (size_t i = 0; i < b->n_leases && !r; i++) {
		const struct lease_change *c = &b->leases[i];

		if (c->verb == LEASE_GRANTED) {
			if (c->lease->id < next)
				return lease_stale(s, c->lease->id, "was given out before", err);
			if (c->lease->id >= counter)
				return lease_stale(s, c->lease->id, "would be given out again",
						   err);
			next = c->lease->id + 1;
		}
		r = change_write(s, c, brief, err);
	}
	if (!r && brief->ended != brief->n)
		return errtext_set(err, ESTALE,
				   "store %s: %zu leases would be neither active nor past", s->path,
				   brief->n - brief->ended);
	return r;
}

int store_leases_write(struct store *s, const struct store_batch *b, struct errtext *err)
{
	uint64_t counter = b->next_lease ? b->next_lease : s->next_lease;
	struct brief brief = { 0 };
	int rc, r;

	FAULT_POINT("store.leases");
	if (fault_fails("store.leases"))
		return store_fail(s, SQLITE_FULL, "write", err);
	s->log_change = 0;
	if (counter < s->next_lease)
		return errtext_set(err, ESTALE,
				   "store %s: the next lease is %" PRIu64
				   ", it can't become %" PRIu64,
				   s->path, s->next_lease, counter);
	if (counter != s->next_lease) {
		rc = EXEC(s, STMT_NEXT_LEASE_SET, V_INT(counter));
		if (rc != SQLITE_OK)
			return store_fail(s, rc, "write", err);
	}
	brief.ids = calloc(b->n_leases + 1, sizeof(*brief.ids));
	if (!brief.ids)
		return errtext_set(err, ENOMEM, "out of memory");
	r = changes_write(s, b, counter, &brief, err);
	free(brief.ids);
	return r;
}

void store_leases_written(struct store *s, const struct store_batch *b)
{
	if (b->next_lease)
		s->next_lease = b->next_lease;
	if (s->log_n >= 0)
		s->log_n += s->log_change;
}

/* ---- reading ---- */

/* The text of a column into an array. False when there is none, or it is too long. */
static bool column_copy(sqlite3_stmt *st, int col, char *ret, size_t size)
{
	const unsigned char *text = sqlite3_column_text(st, col);
	size_t n = (size_t)sqlite3_column_bytes(st, col);

	if (!text || n >= size || memchr(text, '\0', n))
		return false;
	memcpy(ret, text, n + 1);
	return true;
}

/* A number that fits. */
static bool column_int(sqlite3_stmt *st, int col, int64_t min, int64_t max, int64_t *ret)
{
	*ret = sqlite3_column_int64(st, col);
	return *ret >= min && *ret <= max && sqlite3_column_type(st, col) == SQLITE_INTEGER;
}

/* Which of 0 to max has this word? -1: none. */
#define WORD(name_fn, max, word)                         \
	({                                               \
		int found_ = -1;                         \
		for (int w_ = 0; w_ <= (int)(max); w_++) \
			if (!strcmp(name_fn(w_), word))  \
				found_ = w_;             \
		found_;                                  \
	})

static bool words_read(sqlite3_stmt *st, struct lease *l)
{
	char protos[16], kind[16], bound[16];
	int p, k, b;

	if (!column_copy(st, 5, protos, sizeof(protos)) ||
	    !column_copy(st, 6, kind, sizeof(kind)) || !column_copy(st, 7, bound, sizeof(bound)))
		return false;
	p = !strcmp(protos, "tcp")       ? LEASE_TCP
	    : !strcmp(protos, "udp")     ? LEASE_UDP
	    : !strcmp(protos, "tcp+udp") ? LEASE_TCP | LEASE_UDP
					 : 0;
	k = WORD(lease_kind_name, SLUICE_LEASE_EXCLUSIVE, kind);
	b = WORD(lease_bound_name, LEASE_BOUND_CGROUP, bound);
	if (p <= 0 || k < 0 || b < 0)
		return false;
	l->protos = (uint8_t)p;
	l->kind = (enum sluice_lease_kind)k;
	l->bound = (enum lease_bound)b;
	return true;
}

bool store_lease_read(sqlite3_stmt *st, struct lease *ret)
{
	int64_t id, first, last, uid, pid, started, created, ttl, expires = 0, ended;
	const void *addr = sqlite3_column_blob(st, 2);
	struct lease l = { 0 };
	char why[16];

	if (!addr || sqlite3_column_bytes(st, 2) != sizeof(l.ports.addr))
		return false;
	memcpy(&l.ports.addr, addr, sizeof(l.ports.addr));
	if (!column_int(st, 0, 1, INT64_MAX, &id) || !column_int(st, 3, 0, UINT16_MAX, &first) ||
	    !column_int(st, 4, first, UINT16_MAX, &last) || !words_read(st, &l) ||
	    !column_int(st, 8, 0, UINT32_MAX, &uid) || !column_int(st, 9, 0, UINT32_MAX, &pid) ||
	    !column_int(st, 10, 0, INT64_MAX, &started) ||
	    !column_int(st, 15, INT64_MIN, INT64_MAX, &created) ||
	    !column_int(st, 16, 0, UINT32_MAX, &ttl) ||
	    (sqlite3_column_type(st, 17) != SQLITE_NULL &&
	     !column_int(st, 17, 0, INT64_MAX, &expires)))
		return false;
	if (!column_copy(st, 1, l.pool, sizeof(l.pool)) || !l.pool[0] ||
	    !column_copy(st, 11, l.holder.comm, sizeof(l.holder.comm)) ||
	    !column_copy(st, 12, l.holder.cgroup, sizeof(l.holder.cgroup)) ||
	    !column_copy(st, 13, l.name, sizeof(l.name)) ||
	    !column_copy(st, 14, l.labels, sizeof(l.labels)))
		return false;
	if (sqlite3_column_type(st, 18) != SQLITE_NULL) {
		if (!column_int(st, 18, INT64_MIN, INT64_MAX, &ended) ||
		    !column_copy(st, 19, why, sizeof(why)) || lease_why_parse(why, &l.why) ||
		    l.why == LEASE_WHY_NONE)
			return false;
		l.state = LEASE_COOLING;
		l.ended_ms = ended;
	}
	l.id = (uint64_t)id;
	l.ports.first = (uint16_t)first;
	l.ports.last = (uint16_t)last;
	l.holder.uid = (uint32_t)uid;
	l.holder.pid = (uint32_t)pid;
	l.holder.started = (uint64_t)started;
	l.created_ms = created;
	l.ttl_s = (uint32_t)ttl;
	l.expires_ns =
		sqlite3_column_type(st, 17) == SQLITE_NULL ? SLUICE_NEVER : (uint64_t)expires;
	*ret = l;
	return true;
}

/* Every row of a statement whose values are bound. */
static int leases_read(struct store *s, enum store_stmt which,
		       int (*fn)(const struct lease *l, void *arg), void *arg, struct errtext *err)
{
	sqlite3_stmt *st = s->stmt[which];
	int rc, reset, r = 0;
	struct lease l;

	while (!r && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		if (!store_lease_read(st, &l)) {
			rc = sqlite3_errcode(s->db) == SQLITE_NOMEM ? SQLITE_NOMEM : SQLITE_CORRUPT;
			break;
		}
		r = fn(&l, arg);
	}
	reset = sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	if (r)
		return r;
	if (rc == SQLITE_DONE)
		rc = reset;
	return rc == SQLITE_OK ? 0 : store_fail(s, rc, "read the leases", err);
}

int store_load_leases(struct store *s, int64_t cooling_since_ms,
		      int (*fn)(const struct lease *l, void *arg), void *arg, uint64_t *ret_next,
		      struct errtext *err)
{
	int rc, r = store_usable(s, err);

	if (!r)
		r = leases_read(s, STMT_LEASES, fn, arg, err);
	if (r)
		return r;
	rc = BIND(s->stmt[STMT_COOLING], V_INT(cooling_since_ms), V_INT(s->reboot_ms),
		  V_TEXT(lease_why_name(LEASE_WHY_REBOOT)));
	if (rc != SQLITE_OK)
		return store_fail(s, rc, "read the leases", err);
	r = leases_read(s, STMT_COOLING, fn, arg, err);
	if (!r)
		*ret_next = s->next_lease;
	return r;
}

/* ---- forgetting ---- */

/* What the next TRIM_ROWS records after trim_after are like. */
struct look {
	int64_t end;   /* the last one's id */
	int64_t n;     /* how many there are */
	bool young;    /* none of them began before the time, nor will those that follow */
	int64_t n_old; /* that ended before it */
};

static int trim_look(struct store *s, int64_t before_ms, struct look *ret)
{
	sqlite3_stmt *st = s->stmt[STMT_TRIM_LOOK];
	int rc = BIND(st, V_INT(s->trim_after), V_INT(before_ms), V_INT(TRIM_ROWS)), reset;

	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc == SQLITE_ROW)
		*ret = (struct look){
			.end = sqlite3_column_int64(st, 0),
			.n = sqlite3_column_int64(st, 1),
			.young = sqlite3_column_int(st, 2),
			.n_old = sqlite3_column_int64(st, 3),
		};
	reset = sqlite3_reset(st);
	return rc == SQLITE_ROW ? reset : rc == SQLITE_DONE ? SQLITE_CORRUPT : rc;
}

/* In a transaction. *excess is how many records there are too many, before and after. */
static int trim_write(struct store *s, int64_t before_ms, const struct look *look, int64_t *excess)
{
	int rc = SQLITE_OK, n;

	if (look->n_old) {
		rc = EXEC(s, STMT_TRIM_OLD, V_INT(s->trim_after), V_INT(look->end),
			  V_INT(before_ms));
		n = rc == SQLITE_OK ? sqlite3_changes(s->db) : 0;
		s->log_change -= n;
		*excess -= n;
	}
	if (rc == SQLITE_OK && *excess > 0) {
		rc = EXEC(s, STMT_TRIM_FIRST, V_INT(*excess < TRIM_ROWS ? *excess : TRIM_ROWS));
		n = rc == SQLITE_OK ? sqlite3_changes(s->db) : 0;
		s->log_change -= n;
		*excess -= n;
	}
	return rc;
}

int store_lease_trim(struct store *s, int64_t before_ms, struct errtext *err)
{
	struct look look = { 0 };
	int64_t excess;
	int rc = SQLITE_OK, r = store_usable(s, err);

	if (r)
		return r;
	if (s->log_n < 0)
		rc = store_db_int(s->db, "SELECT count(*) FROM lease_log", &s->log_n);
	if (rc == SQLITE_OK)
		rc = trim_look(s, before_ms, &look);
	if (rc != SQLITE_OK)
		return store_fail(s, rc, "look for old records", err);
	excess = s->log_n - s->lease_log_max;
	if (look.n_old || excess > 0) {
		r = store_tx_begin(s, err);
		if (r)
			return r;
		s->log_change = 0;
		rc = trim_write(s, before_ms, &look, &excess);
		r = store_tx_end(
			s, rc == SQLITE_OK ? 0 : store_fail(s, rc, "trim the records", err), err);
		if (r)
			return r;
		s->log_n += s->log_change;
	}
	/* At the end of what may be old: from the beginning the next time. */
	s->trim_after = look.n < TRIM_ROWS || look.young ? 0 : (uint64_t)look.end;
	return s->trim_after || excess > 0;
}
