// SPDX-License-Identifier: BSD-2-Clause
/* What is in the file: the tables, how an older schema becomes the newest, and whether what is there can be trusted. */
#include "store_private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"

#define STORE_LOG_MAX       100000
#define STORE_LEASE_LOG_MAX 1000000
#define STORE_COLLISION_MAX 10000
#define STORE_BUSY_MS       2000

/*
 * What a lease and its record have in common. Words, not numbers: for a person with sqlite3, and so that an enum may change.
 */
#define LEASE_COLUMNS                                                   \
	"  pool TEXT NOT NULL,"                                         \
	"  addr BLOB NOT NULL CHECK (length(addr) = 16),"               \
	"  first INTEGER NOT NULL CHECK (first BETWEEN 0 AND 65535),"   \
	"  last INTEGER NOT NULL CHECK (last BETWEEN first AND 65535)," \
	"  protos TEXT NOT NULL,"                                       \
	"  kind TEXT NOT NULL,"                                         \
	"  bound TEXT NOT NULL,"                                        \
	"  uid INTEGER NOT NULL,"                                       \
	"  pid INTEGER NOT NULL,"                                       \
	"  started INTEGER NOT NULL,"                                   \
	"  comm TEXT NOT NULL,"                                         \
	"  cgroup TEXT NOT NULL,"                                       \
	"  name TEXT NOT NULL,"                                         \
	"  labels TEXT NOT NULL,"                                       \
	"  created_ms INTEGER NOT NULL,"                                \
	"  ttl_s INTEGER NOT NULL,"                                     \
	"  expires_ns INTEGER"

/*
 * Schema 1. hold repeats what hold_log says about a running hold: each proves the other on opening. Addresses are 16 bytes,
 * deadlines CLOCK_BOOTTIME of the boot in meta.boot_id (NULL: none), times of day UTC in ms.
 *
 * Schema 2. lease has the active leases; one that ends moves to lease_log. protos is "tcp", "udp" or "tcp+udp", the other words are
 * those of lease_why_name() and its like. started (of the process) is in clock ticks since boot, expires_ns is NULL without a
 * time limit. Both tables grow at their end, where ids rise, so that a transaction of many changes writes few pages. So does
 * the index for "who had this port": an index by port alone would touch a page for every change. It has a part for every 1024 ids, in
 * which single ports, blocks of up to 64 and longer ones are apart (LEASE_PLACE in store_private.h). Nothing is indexed by time. As
 * with epochs, the first id is the time in seconds.
 *
 * Schema 3. collision has the newest ones that were told. Its ids are never used again, whatever is deleted. wire is what the network sees,
 * owner the other user of it (kind '': not known); delay_us is NULL when it is not known. inode and cookie are as the kernel's 64 bits.
 */
static const char *const store_migrations[] = {
	"CREATE TABLE meta ("
	"  one INTEGER PRIMARY KEY CHECK (one = 1),"
	"  machine TEXT NOT NULL,"
	"  created_ms INTEGER NOT NULL,"
	"  boot_id TEXT NOT NULL,"
	"  next_epoch INTEGER NOT NULL CHECK (next_epoch BETWEEN 1 AND 4294967295)"
	") STRICT;"
	"INSERT INTO meta VALUES (1, '', 0, '', 1);"
	"CREATE TABLE hold_log ("
	"  epoch INTEGER PRIMARY KEY,"
	"  pool TEXT NOT NULL,"
	"  addr BLOB NOT NULL CHECK (length(addr) = 16),"
	"  first INTEGER NOT NULL,"
	"  last INTEGER NOT NULL,"
	"  began_ms INTEGER NOT NULL,"
	"  ended_ms INTEGER,"
	"  why TEXT"
	") STRICT;"
	"CREATE INDEX hold_log_ended ON hold_log (ended_ms) WHERE ended_ms IS NOT NULL;"
	"CREATE INDEX hold_log_ports ON hold_log (addr, first);"
	"CREATE TABLE hold ("
	"  addr BLOB NOT NULL CHECK (length(addr) = 16),"
	"  first INTEGER NOT NULL CHECK (first BETWEEN 0 AND 65535),"
	"  last INTEGER NOT NULL CHECK (last BETWEEN first AND 65535),"
	"  pool TEXT NOT NULL,"
	"  epoch INTEGER NOT NULL UNIQUE REFERENCES hold_log (epoch),"
	"  not_after_ns INTEGER,"
	"  PRIMARY KEY (addr, first)"
	") STRICT, WITHOUT ROWID;"
	"CREATE TABLE host_change ("
	"  seq INTEGER PRIMARY KEY,"
	"  kind TEXT NOT NULL,"
	"  key TEXT NOT NULL,"
	"  was TEXT,"
	"  now TEXT,"
	"  UNIQUE (kind, key)"
	") STRICT;",
	"ALTER TABLE meta ADD COLUMN next_lease INTEGER NOT NULL DEFAULT 1"
	"  CHECK (next_lease BETWEEN 1 AND 9007199254740991);"
	"UPDATE meta SET next_lease = max(1, CAST(strftime('%s', 'now') AS INTEGER));"
	"CREATE TABLE lease ("
	"  id INTEGER PRIMARY KEY CHECK (id >= 1)," LEASE_COLUMNS ") STRICT;"
	"CREATE TABLE lease_log ("
	"  id INTEGER PRIMARY KEY CHECK (id >= 1),"
	"  ended_ms INTEGER NOT NULL,"
	"  why TEXT NOT NULL," LEASE_COLUMNS ") STRICT;"
	"CREATE INDEX lease_log_ports ON lease_log (" LEASE_PLACE ");",
	"CREATE TABLE collision ("
	"  id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id >= 1),"
	"  time_ms INTEGER NOT NULL,"
	"  kind TEXT NOT NULL,"
	"  source TEXT NOT NULL,"
	"  netns TEXT NOT NULL,"
	"  proto TEXT NOT NULL,"
	"  src BLOB NOT NULL CHECK (length(src) = 16),"
	"  bound INTEGER NOT NULL CHECK (bound BETWEEN 0 AND 65535),"
	"  wire INTEGER NOT NULL CHECK (wire BETWEEN 0 AND 65535),"
	"  dst BLOB NOT NULL CHECK (length(dst) = 16),"
	"  dport INTEGER NOT NULL CHECK (dport BETWEEN 0 AND 65535),"
	"  in_slice INTEGER NOT NULL CHECK (in_slice IN (0, 1)),"
	"  resolved INTEGER NOT NULL CHECK (resolved IN (0, 1)),"
	"  healed INTEGER NOT NULL CHECK (healed IN (0, 1)),"
	"  delay_us INTEGER,"
	"  pid INTEGER NOT NULL,"
	"  uid INTEGER NOT NULL,"
	"  inode INTEGER NOT NULL,"
	"  cookie INTEGER NOT NULL,"
	"  comm TEXT NOT NULL,"
	"  cgroup TEXT NOT NULL,"
	"  owner TEXT NOT NULL,"
	"  owner_src BLOB NOT NULL CHECK (length(owner_src) = 16),"
	"  owner_sport INTEGER NOT NULL CHECK (owner_sport BETWEEN 0 AND 65535),"
	"  owner_dst BLOB NOT NULL CHECK (length(owner_dst) = 16),"
	"  owner_dport INTEGER NOT NULL CHECK (owner_dport BETWEEN 0 AND 65535)"
	") STRICT;",
};

/* True when the records agree: every hold has its open log entry, of the same content, and no others are open. */
static const char holds_agree[] =
	"SELECT (SELECT count(*) FROM hold) = (SELECT count(*) FROM hold_log WHERE"
	" ended_ms IS NULL)"
	" AND NOT EXISTS (SELECT 1 FROM hold h LEFT JOIN hold_log l ON l.epoch = h.epoch"
	"  WHERE l.epoch IS NULL OR l.ended_ms IS NOT NULL OR l.pool <> h.pool"
	"  OR l.addr <> h.addr OR l.first <> h.first OR l.last <> h.last)"
	" AND (SELECT next_epoch FROM meta) > (SELECT coalesce(max(epoch), 0) FROM hold_log)";

/*
 * Likewise of leases: no two active ones on one port, all ids given out, none both active and past. Sorted by the first port,
 * an overlap is one of neighbours.
 */
#define APART(proto)                                                                 \
	"SELECT NOT EXISTS (SELECT 1 FROM (SELECT first <= lag(last) OVER"           \
	" (PARTITION BY addr ORDER BY first) AS overlaps FROM lease WHERE protos IN" \
	" ('tcp+udp', '" proto "')) WHERE overlaps)"
static const char *const leases_agree[] = {
	APART("tcp"),
	APART("udp"),
	("SELECT next_lease > max(coalesce((SELECT max(id) FROM lease), 0),"
	 " coalesce((SELECT max(id) FROM lease_log), 0)) FROM meta"),
	"SELECT NOT EXISTS (SELECT 1 FROM lease CROSS JOIN lease_log USING (id))",
};

/* A new boot: no process of the old one is left. */
static const char leases_end[] =
	"INSERT INTO lease_log SELECT id, ?2, ?1, pool, addr, first, last, protos, kind, bound,"
	" uid, pid, started, comm, cgroup, name, labels, created_ms, ttl_s, expires_ns FROM lease";

struct store_options store_defaults(void)
{
	return (struct store_options){
		.migrations = store_migrations,
		.n_migrations = sizeof(store_migrations) / sizeof(*store_migrations),
		.log_max = STORE_LOG_MAX,
		.lease_log_max = STORE_LEASE_LOG_MAX,
		.collision_max = STORE_COLLISION_MAX,
		.busy_ms = STORE_BUSY_MS,
	};
}

/* ---- what is asked or done once ---- */

int store_db_int(sqlite3 *db, const char *sql, int64_t *ret)
{
	sqlite3_stmt *st;
	int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);

	if (rc != SQLITE_OK)
		return rc;
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW) {
		*ret = sqlite3_column_int64(st, 0);
		return sqlite3_finalize(st);
	}
	sqlite3_finalize(st);
	return rc == SQLITE_DONE ? SQLITE_CORRUPT : rc;
}

int store_db_text(sqlite3 *db, const char *sql, char *ret, size_t size)
{
	const unsigned char *text;
	sqlite3_stmt *st;
	int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);

	if (rc != SQLITE_OK)
		return rc;
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW) {
		text = sqlite3_column_text(st, 0);
		if (text) {
			snprintf(ret, size, "%s", (const char *)text);
			return sqlite3_finalize(st);
		}
		rc = sqlite3_errcode(db) == SQLITE_NOMEM ? SQLITE_NOMEM : SQLITE_CORRUPT;
	}
	sqlite3_finalize(st);
	return rc == SQLITE_DONE ? SQLITE_CORRUPT : rc;
}

int store_db_run(sqlite3 *db, const char *sql, const char *text, int64_t number)
{
	sqlite3_stmt *st;
	int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);

	if (rc != SQLITE_OK)
		return rc;
	if (sqlite3_bind_parameter_count(st) >= 1)
		rc = sqlite3_bind_text(st, 1, text, -1, SQLITE_STATIC);
	if (rc == SQLITE_OK && sqlite3_bind_parameter_count(st) >= 2)
		rc = sqlite3_bind_int64(st, 2, number);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc == SQLITE_DONE || rc == SQLITE_ROW)
		return sqlite3_finalize(st);
	sqlite3_finalize(st);
	return rc;
}

/* ---- schema, contents ---- */

void store_boot_id(char ret[64])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, ret, 63);

	if (fd >= 0)
		close(fd);
	ret[n > 0 ? n : 0] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
}

int store_migrate(struct store *s, size_t from, const struct store_options *o, struct errtext *err)
{
	char what[96], sql[64];
	int64_t bad = 0;
	int rc;

	for (size_t i = from; i < o->n_migrations; i++) {
		rc = sqlite3_exec(s->db, o->migrations[i], NULL, NULL, NULL);
		if (rc != SQLITE_OK) {
			snprintf(what, sizeof(what), "migrate from schema %zu to %zu", i, i + 1);
			return store_fail(s, rc, what, err);
		}
	}
	rc = store_db_int(s->db, "SELECT count(*) FROM pragma_foreign_key_check", &bad);
	if (rc == SQLITE_OK && bad)
		rc = SQLITE_CORRUPT;
	snprintf(sql, sizeof(sql), "PRAGMA user_version = %zu", o->n_migrations);
	if (rc == SQLITE_OK)
		rc = store_db_run(s->db, sql, NULL, 0);
	return rc == SQLITE_OK ? 0 : store_fail(s, rc, "migrate", err);
}

/* What the header says this is. */
static int check_header(struct store *s, const struct store_options *o, int64_t *ret_version,
			struct errtext *err)
{
	int64_t app, version;
	int rc = store_db_int(s->db, "PRAGMA application_id", &app);

	if (rc == SQLITE_OK)
		rc = store_db_int(s->db, "PRAGMA user_version", &version);
	if (rc != SQLITE_OK)
		return store_fail(s, rc, "read", err);
	if (app != STORE_APP_ID)
		return errtext_set(
			err, EMEDIUMTYPE,
			"store %s is another program's database (application id %#" PRIx64
			", should be %#x); it is left as it is",
			s->path, (uint64_t)app & UINT32_MAX, STORE_APP_ID);
	if (version > (int64_t)o->n_migrations)
		return errtext_set(err, EPROTONOSUPPORT,
				   "store %s was written by a newer version: it has schema %" PRId64
				   ", this version knows schemas up to %zu",
				   s->path, version, o->n_migrations);
	if (version < 1)
		return errtext_set(err, EUCLEAN, "store %s is damaged: schema %" PRId64, s->path,
				   version);
	*ret_version = version;
	return 0;
}

static int check_pages(struct store *s, struct errtext *err)
{
	static const char tag[] = "error code=";
	char text[256];
	int rc = store_db_text(s->db, "PRAGMA quick_check(1)", text, sizeof(text));
	const char *code = rc == SQLITE_OK ? strstr(text, tag) : NULL;

	/* A page that could not be read is no damage. The check only says so in its text. */
	if (code) {
		rc = atoi(code + strlen(tag));
		if ((rc & 0xff) == SQLITE_CORRUPT)
			rc = SQLITE_OK;
	}
	if (rc != SQLITE_OK)
		return store_fail(s, rc, "check", err);
	if (!strcmp(text, "ok"))
		return 0;
	for (char *p = text; *p; p++)
		if (*p == '\n')
			*p = ' ';
	return errtext_set(
		err, EUCLEAN,
		"store %s is damaged (%s); it is left as it is: move it away to begin anew",
		s->path, text);
}

static int check_machine(struct store *s, const char *machine, struct errtext *err)
{
	char owner[128];
	int rc = store_db_text(s->db, "SELECT machine FROM meta", owner, sizeof(owner));

	if (rc != SQLITE_OK)
		return store_fail(s, rc, "read", err);
	if (!strcmp(owner, machine))
		return 0;
	return errtext_set(
		err, EREMOTE,
		"store %s belongs to machine \"%s\", but this is \"%s\": two machines must"
		" not hold the same slices",
		s->path, owner, machine);
}

/* Deadlines of another boot count another clock: whatever they say, they have passed. Leases end. */
static int check_boot(struct store *s, struct errtext *err)
{
	char then[64], now[64];
	int64_t n = 0;
	int rc = store_db_text(s->db, "SELECT boot_id FROM meta", then, sizeof(then));

	store_boot_id(now);
	if (rc == SQLITE_OK && *now && !strcmp(then, now))
		return 0;
	if (rc == SQLITE_OK)
		rc = store_db_run(s->db,
				  "UPDATE hold SET not_after_ns = 0 WHERE not_after_ns IS NOT NULL",
				  NULL, 0);
	if (rc == SQLITE_OK)
		rc = store_db_int(s->db, "SELECT count(*) FROM lease", &n);
	if (rc == SQLITE_OK && n) {
		s->reboot_ms = clock_utc_ms();
		rc = store_db_run(s->db, leases_end, lease_why_name(LEASE_WHY_REBOOT),
				  s->reboot_ms);
	}
	if (rc == SQLITE_OK && n)
		rc = store_db_run(s->db, "DELETE FROM lease", NULL, 0);
	if (rc == SQLITE_OK)
		rc = store_db_run(s->db, "UPDATE meta SET boot_id = ?1", now, 0);
	return rc == SQLITE_OK ? 0 : store_fail(s, rc, "write", err);
}

static int check_records(struct store *s, const char *agree, const char *of, struct errtext *err)
{
	int64_t good;
	int rc = store_db_int(s->db, agree, &good);

	if (rc != SQLITE_OK)
		return store_fail(s, rc, "check", err);
	if (good)
		return 0;
	return errtext_set(err, EUCLEAN,
			   "store %s is damaged: its records of %s contradict each other; it is"
			   " left as it is: move it away to begin anew",
			   s->path, of);
}

static int check_leases(struct store *s, struct errtext *err)
{
	int64_t any;
	int rc = store_db_int(s->db,
			      "SELECT EXISTS (SELECT 1 FROM lease) OR EXISTS"
			      " (SELECT 1 FROM lease_log)",
			      &any),
	    r = 0;

	if (rc != SQLITE_OK)
		return store_fail(s, rc, "check", err);
	for (size_t i = 0; any && !r && i < sizeof(leases_agree) / sizeof(*leases_agree); i++)
		r = check_records(s, leases_agree[i], "leases", err);
	return r;
}

int store_accept(struct store *s, const char *machine, const struct store_options *o,
		 struct errtext *err)
{
	int64_t version = 0;
	int rc, r = check_header(s, o, &version, err);

	if (!r)
		r = check_pages(s, err);
	if (!r)
		r = check_machine(s, machine, err);
	if (r)
		return r;
	rc = store_db_run(s->db, "BEGIN IMMEDIATE", NULL, 0);
	if (rc != SQLITE_OK)
		return store_fail(s, rc, "begin", err);
	if (version < (int64_t)o->n_migrations)
		r = store_migrate(s, (size_t)version, o, err);
	if (!r)
		r = check_records(s, holds_agree, "holds", err);
	if (!r)
		r = check_leases(s, err);
	if (!r)
		r = check_boot(s, err);
	if (r) {
		store_db_run(s->db, "ROLLBACK", NULL, 0);
		return r;
	}
	rc = store_db_run(s->db, "COMMIT", NULL, 0);
	return rc == SQLITE_OK ? 0 : store_fail(s, rc, "commit", err);
}
