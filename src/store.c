// SPDX-License-Identifier: BSD-2-Clause
/* Opening the store. Point for tests (fault.h): "store.create", when a new file is complete but does not have its name yet. */
#include "store_private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fault.h"

#define STORE_FILE      "sluice.db"
#define STORE_NEW       "sluice.db.new"
#define STORE_LOCK      "lock"
#define STORE_APP_ID    0x536c7563 /* "Sluc", in the file's header */
#define STORE_LOG_MAX   100000
#define STORE_BUSY_MS   2000
#define STORE_WAL_BYTES "4194304" /* what a checkpoint leaves of the write-ahead log */

/*
 * Schema 1. hold repeats what hold_log says about a running hold: each proves the other on opening. Addresses are 16 bytes,
 * deadlines CLOCK_BOOTTIME of the boot in meta.boot_id (NULL: none), times of day UTC in ms.
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
};

/* True when the records agree: every hold has its open log entry, of the same content, and no others are open. */
static const char store_agrees[] =
	"SELECT (SELECT count(*) FROM hold) = (SELECT count(*) FROM hold_log WHERE"
	" ended_ms IS NULL)"
	" AND NOT EXISTS (SELECT 1 FROM hold h LEFT JOIN hold_log l ON l.epoch = h.epoch"
	"  WHERE l.epoch IS NULL OR l.ended_ms IS NOT NULL OR l.pool <> h.pool"
	"  OR l.addr <> h.addr OR l.first <> h.first OR l.last <> h.last)"
	" AND (SELECT next_epoch FROM meta) > (SELECT coalesce(max(epoch), 0) FROM hold_log)";

struct store_options store_defaults(void)
{
	return (struct store_options){
		.migrations = store_migrations,
		.n_migrations = sizeof(store_migrations) / sizeof(*store_migrations),
		.log_max = STORE_LOG_MAX,
		.busy_ms = STORE_BUSY_MS,
	};
}

static void fd_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
#define autoclose __attribute__((cleanup(fd_close)))

/* ---- the directory and its lock ---- */

/* Root may write to anything; a mode that says read-only is respected all the same. */
static int check_writable(int dir_fd, const char *name, const char *path, struct errtext *err)
{
	struct stat st;

	if (faccessat(dir_fd, name, R_OK | W_OK, AT_EACCESS) || fstatat(dir_fd, name, &st, 0))
		return errtext_set(err, errno, "store: %s can't be read and written: %s", path,
				   strerror(errno));
	if (!(st.st_mode & S_IWUSR))
		return errtext_set(err, EACCES, "store: %s is read-only (mode %04o)", path,
				   st.st_mode & 07777);
	return 0;
}

static int dir_open(const char *dir, int *ret_fd, struct errtext *err)
{
	bool made = !mkdir(dir, 0700);
	autoclose int parent = -1;
	int fd, r;

	if (!made && errno != EEXIST)
		return errtext_set(err, errno, "state directory %s can't be made: %s", dir,
				   strerror(errno));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errtext_set(err, errno, "state directory %s: %s", dir, strerror(errno));
	r = check_writable(fd, ".", dir, err);
	/* The name must be as durable as what is in it. */
	if (!r && made) {
		parent = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (parent < 0 || fsync(parent))
			r = errtext_set(err, errno, "state directory %s: parent: %s", dir,
					strerror(errno));
	}
	if (r)
		close(fd);
	else
		*ret_fd = fd;
	return r;
}

static int lock_take(int dir_fd, const char *dir, int *ret_fd, struct errtext *err)
{
	int fd = openat(dir_fd, STORE_LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	char pid[16] = "";
	ssize_t n;
	int e;

	if (fd < 0)
		return errtext_set(err, errno, "store: %s/" STORE_LOCK ": %s", dir,
				   strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		e = errno;
		n = e == EWOULDBLOCK ? pread(fd, pid, sizeof(pid) - 1, 0) : 0;
		close(fd);
		if (e != EWOULDBLOCK)
			return errtext_set(err, e, "store: %s/" STORE_LOCK ": %s", dir,
					   strerror(e));
		pid[n > 0 ? n : 0] = '\0';
		if (!pid[0] || pid[strspn(pid, "0123456789")] != '\n')
			return errtext_set(err, EBUSY,
					   "state directory %s is in use by another process", dir);
		pid[strcspn(pid, "\n")] = '\0';
		return errtext_set(err, EBUSY, "state directory %s is in use by process %s", dir,
				   pid);
	}
	/* The pid is a courtesy. If it can't be written, the lock holds nevertheless. */
	if (ftruncate(fd, 0) || dprintf(fd, "%d\n", getpid()) < 0)
		errno = 0;
	*ret_fd = fd;
	return 0;
}

/* ---- the file ---- */

/* Is there a store? Anything but a whole regular file or nothing at all is refused. */
static int file_find(struct store *s, int dir_fd, bool *ret_exists, struct errtext *err)
{
	struct stat st;
	int r;

	if (fstatat(dir_fd, STORE_FILE, &st, AT_SYMLINK_NOFOLLOW)) {
		if (errno != ENOENT)
			return errtext_set(err, errno, "store %s: %s", s->path, strerror(errno));
		if (!fstatat(dir_fd, STORE_FILE "-wal", &st, AT_SYMLINK_NOFOLLOW) && st.st_size)
			return errtext_set(err, EUCLEAN,
					   "store %s is missing, but its log %s-wal is there: move"
					   " that away to begin anew",
					   s->path, s->path);
		*ret_exists = false;
		return 0;
	}
	if (!S_ISREG(st.st_mode))
		return errtext_set(err, EMEDIUMTYPE, "store %s is not a regular file", s->path);
	/* A new file gets its name when it is complete, so this was cut off, and its epochs are lost. */
	if (!st.st_size)
		return errtext_set(err, EUCLEAN,
				   "store %s is damaged: it is empty; move it away to begin anew",
				   s->path);
	r = check_writable(dir_fd, STORE_FILE, s->path, err);
	if (!r)
		*ret_exists = true;
	return r;
}

static int db_open(struct store *s, const char *path, const struct store_options *o,
		   struct errtext *err)
{
	int rc = sqlite3_open_v2(path, &s->db,
				 SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX |
					 SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_EXRESCODE,
				 o->vfs);

	if (rc != SQLITE_OK)
		return store_fail(s, rc, "open", err);
	sqlite3_busy_timeout(s->db, (int)o->busy_ms);
	sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(s->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	/* Until the file is found good, closing must not touch it. */
	sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	rc = sqlite3_exec(s->db,
			  "PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;"
			  "PRAGMA cell_size_check = ON; PRAGMA foreign_keys = OFF;",
			  NULL, NULL, NULL);
	return rc == SQLITE_OK ? 0 : store_fail(s, rc, "read", err);
}

static void db_close(struct store *s)
{
	if (s->broken && s->db)
		sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_close(s->db);
	s->db = NULL;
}

/* The first column of the first row, for what is asked once. */
static int db_int(sqlite3 *db, const char *sql, int64_t *ret)
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

static int db_text(sqlite3 *db, const char *sql, char *ret, size_t size)
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

/* Run one text of SQL with a text bound to ?1 and a number to ?2, where it has them. */
static int db_run(sqlite3 *db, const char *sql, const char *text, int64_t number)
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

static void boot_id(char ret[64])
{
	autoclose int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, ret, 63);

	ret[n > 0 ? n : 0] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
}

/* Lead from schema `from` to the newest. In a transaction of the caller's. */
static int migrate(struct store *s, size_t from, const struct store_options *o, struct errtext *err)
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
	rc = db_int(s->db, "SELECT count(*) FROM pragma_foreign_key_check", &bad);
	if (rc == SQLITE_OK && bad)
		rc = SQLITE_CORRUPT;
	snprintf(sql, sizeof(sql), "PRAGMA user_version = %zu", o->n_migrations);
	if (rc == SQLITE_OK)
		rc = db_run(s->db, sql, NULL, 0);
	return rc == SQLITE_OK ? 0 : store_fail(s, rc, "migrate", err);
}

/* What the header says this is. */
static int check_header(struct store *s, const struct store_options *o, int64_t *ret_version,
			struct errtext *err)
{
	int64_t app, version;
	int rc = db_int(s->db, "PRAGMA application_id", &app);

	if (rc == SQLITE_OK)
		rc = db_int(s->db, "PRAGMA user_version", &version);
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
	int rc = db_text(s->db, "PRAGMA quick_check(1)", text, sizeof(text));
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
	int rc = db_text(s->db, "SELECT machine FROM meta", owner, sizeof(owner));

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

/* Deadlines of another boot count another clock: whatever they say, they have passed. */
static int check_boot(struct store *s, struct errtext *err)
{
	char then[64], now[64];
	int rc = db_text(s->db, "SELECT boot_id FROM meta", then, sizeof(then));

	boot_id(now);
	if (rc == SQLITE_OK && *now && !strcmp(then, now))
		return 0;
	if (rc == SQLITE_OK)
		rc = db_run(s->db,
			    "UPDATE hold SET not_after_ns = 0 WHERE not_after_ns IS NOT NULL", NULL,
			    0);
	if (rc == SQLITE_OK)
		rc = db_run(s->db, "UPDATE meta SET boot_id = ?1", now, 0);
	return rc == SQLITE_OK ? 0 : store_fail(s, rc, "write", err);
}

static int check_records(struct store *s, struct errtext *err)
{
	int64_t good;
	int rc = db_int(s->db, store_agrees, &good);

	if (rc != SQLITE_OK)
		return store_fail(s, rc, "check", err);
	if (good)
		return 0;
	return errtext_set(err, EUCLEAN,
			   "store %s is damaged: its records of holds contradict each other; it is"
			   " left as it is: move it away to begin anew",
			   s->path);
}

/* Everything that may write happens in one transaction, and is rolled back when the store is refused. */
static int db_accept(struct store *s, const char *machine, const struct store_options *o,
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
	rc = db_run(s->db, "BEGIN IMMEDIATE", NULL, 0);
	if (rc != SQLITE_OK)
		return store_fail(s, rc, "begin", err);
	if (version < (int64_t)o->n_migrations)
		r = migrate(s, (size_t)version, o, err);
	if (!r)
		r = check_records(s, err);
	if (!r)
		r = check_boot(s, err);
	if (r) {
		db_run(s->db, "ROLLBACK", NULL, 0);
		return r;
	}
	rc = db_run(s->db, "COMMIT", NULL, 0);
	return rc == SQLITE_OK ? 0 : store_fail(s, rc, "commit", err);
}

static int db_ready(struct store *s, struct errtext *err)
{
	char mode[16];
	int rc = db_text(s->db, "PRAGMA journal_mode = WAL", mode, sizeof(mode));

	if (rc == SQLITE_OK && strcmp(mode, "wal"))
		return errtext_set(err, EOPNOTSUPP,
				   "store %s: the file system does not allow a write-ahead log",
				   s->path);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(s->db,
				  "PRAGMA foreign_keys = ON;"
				  "PRAGMA journal_size_limit = " STORE_WAL_BYTES ";",
				  NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = store_stmt_prepare(s);
	if (rc != SQLITE_OK)
		return store_fail(s, rc, "prepare", err);
	sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
	return 0;
}

/*
 * The first epoch of a new store is the time, in seconds: if a store was lost, its epochs were lower, unless the machine
 * began more than one hold a second. A clock that is far off changes no more than where the count begins.
 */
static int64_t epoch_start(int64_t now_ms)
{
	int64_t s = now_ms / 1000;

	return s < 1 ? 1 : s > 3000000000 ? 3000000000 : s;
}

static int db_fill(struct store *s, const char *machine, const struct store_options *o,
		   struct errtext *err)
{
	struct timespec now;
	char boot[64], sql[64];
	int64_t now_ms;
	int rc, r;

	clock_gettime(CLOCK_REALTIME, &now);
	now_ms = now.tv_sec * 1000LL + now.tv_nsec / 1000000;
	boot_id(boot);
	snprintf(sql, sizeof(sql), "PRAGMA application_id = %d", STORE_APP_ID);
	rc = db_run(s->db, "BEGIN IMMEDIATE", NULL, 0);
	if (rc != SQLITE_OK)
		return store_fail(s, rc, "create", err);
	r = migrate(s, 0, o, err);
	if (r)
		return r;
	rc = db_run(s->db, sql, NULL, 0);
	if (rc == SQLITE_OK)
		rc = db_run(s->db, "UPDATE meta SET machine = ?1, created_ms = ?2", machine,
			    now_ms);
	if (rc == SQLITE_OK)
		rc = db_run(s->db, "UPDATE meta SET boot_id = ?1, next_epoch = ?2", boot,
			    epoch_start(now_ms));
	if (rc == SQLITE_OK)
		rc = db_run(s->db, "COMMIT", NULL, 0);
	return rc == SQLITE_OK ? 0 : store_fail(s, rc, "create", err);
}

/* Made under another name, so that a crash leaves a whole store or none. The lock keeps other daemons out. */
static int file_create(struct store *s, int dir_fd, const char *dir, const char *machine,
		       const struct store_options *o, struct errtext *err)
{
	char *path;
	int fd, r;

	if (asprintf(&path, "%s/" STORE_NEW, dir) < 0)
		return errtext_set(err, ENOMEM, "out of memory");
	unlinkat(dir_fd, STORE_NEW "-journal", 0);
	unlinkat(dir_fd, STORE_NEW, 0);
	fd = openat(dir_fd, STORE_NEW, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		r = errtext_set(err, errno, "store: %s: %s", path, strerror(errno));
		free(path);
		return r;
	}
	close(fd);
	r = db_open(s, path, o, err);
	if (!r)
		r = db_fill(s, machine, o, err);
	db_close(s);
	if (!r) {
		FAULT_POINT("store.create");
		if (renameat(dir_fd, STORE_NEW, dir_fd, STORE_FILE) || fsync(dir_fd))
			r = errtext_set(err, errno, "store %s: %s", s->path, strerror(errno));
	}
	if (r)
		unlinkat(dir_fd, STORE_NEW, 0);
	free(path);
	return r;
}

static int store_open_in(struct store *s, const char *dir, const char *machine,
			 const struct store_options *o, struct errtext *err)
{
	autoclose int dir_fd = -1;
	bool exists = false;
	int r;

	r = dir_open(dir, &dir_fd, err);
	if (!r)
		r = lock_take(dir_fd, dir, &s->lock_fd, err);
	if (!r)
		r = file_find(s, dir_fd, &exists, err);
	if (!r && !exists)
		r = file_create(s, dir_fd, dir, machine, o, err);
	if (!r)
		r = db_open(s, s->path, o, err);
	if (!r)
		r = db_accept(s, machine, o, err);
	if (!r)
		r = db_ready(s, err);
	return r;
}

int store_open_with(const char *dir, const char *machine, const struct store_options *o,
		    struct store **ret, struct errtext *err)
{
	struct store *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return errtext_set(err, ENOMEM, "out of memory");
	s->lock_fd = -1;
	s->log_max = o->log_max;
	if (asprintf(&s->path, "%s/" STORE_FILE, dir) < 0) {
		free(s);
		return errtext_set(err, ENOMEM, "out of memory");
	}
	r = store_open_in(s, dir, machine, o, err);
	if (r)
		store_close(s);
	else
		*ret = s;
	return r;
}

int store_open(const char *dir, const char *machine, struct store **ret, struct errtext *err)
{
	const struct store_options o = store_defaults();

	return store_open_with(dir, machine, &o, ret, err);
}

void store_close(struct store *s)
{
	if (!s)
		return;
	store_stmt_finalize(s);
	db_close(s);
	fd_close(&s->lock_fd);
	free(s->path);
	free(s);
}
