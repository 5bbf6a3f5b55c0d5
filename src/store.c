// SPDX-License-Identifier: BSD-2-Clause
/* Opening the store. Point for tests (fault.h): "store.create", when a new file is complete but does not have its name yet. */
#include "store_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "fault.h"

#define STORE_FILE "sluice.db"
#define STORE_NEW  "sluice.db.new"
#define STORE_LOCK "lock"

/*
 * What a checkpoint leaves of the write-ahead log: more than SQLite lets it grow (1000 pages, its default) and the transaction that goes
 * beyond, so that the file is written over and not made longer, which makes syncing it cheaper. Logs of 200 to 16000 pages were tried with
 * 64 grants and releases a transaction: none was clearly better than 1000, and without checkpoints p50 was half as long again.
 */
#define STORE_WAL_BYTES "8388608"

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

static int db_ready(struct store *s, struct errtext *err)
{
	char mode[16];
	int rc = store_db_text(s->db, "PRAGMA journal_mode = WAL", mode, sizeof(mode));

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
	int64_t now_ms = clock_utc_ms();
	char boot[64], sql[64];
	int rc, r;

	store_boot_id(boot);
	snprintf(sql, sizeof(sql), "PRAGMA application_id = %d", STORE_APP_ID);
	rc = store_db_run(s->db, "BEGIN IMMEDIATE", NULL, 0);
	if (rc != SQLITE_OK)
		return store_fail(s, rc, "create", err);
	r = store_migrate(s, 0, o, err);
	if (r)
		return r;
	rc = store_db_run(s->db, sql, NULL, 0);
	if (rc == SQLITE_OK)
		rc = store_db_run(s->db, "UPDATE meta SET machine = ?1, created_ms = ?2", machine,
				  now_ms);
	if (rc == SQLITE_OK)
		rc = store_db_run(s->db, "UPDATE meta SET boot_id = ?1, next_epoch = ?2", boot,
				  epoch_start(now_ms));
	if (rc == SQLITE_OK)
		rc = store_db_run(s->db, "COMMIT", NULL, 0);
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
		r = store_accept(s, machine, o, err);
	if (!r)
		r = db_ready(s, err);
	if (!r)
		r = store_lease_begin(s, err);
	if (!r)
		r = worker_open(&s->worker, err);
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
	s->worker.fd = -1;
	s->log_max = o->log_max;
	s->lease_log_max = o->lease_log_max;
	s->collision_max = o->collision_max;
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
	worker_close(&s->worker);
	store_stmt_finalize(s);
	db_close(s);
	fd_close(&s->lock_fd);
	free(s->path);
	free(s);
}
