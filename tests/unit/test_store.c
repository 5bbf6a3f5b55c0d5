/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The store, with its crash points compiled in: this file includes its sources, so that the archive's build of them, which has
 * no points, stays out.
 */
#ifndef SLUICE_FAULT
#define SLUICE_FAULT
#endif
#include "../../src/fault.c"
#include "../../src/store.c"
#include "../../src/store_rows.c"

#include <dirent.h>
#include <ftw.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "faultvfs.h"

#define MACHINE "edge1"
#define S       1000000000ULL

/* ---- helpers ---- */

static char dir[256];  /* the state directory, not there when a test begins */
static char base[200]; /* its parent, ours alone */
static char file[300]; /* the database */
static struct errtext err;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static void remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int setup(void **state)
{
	(void)state;
	/* In memory where possible: these tests sync thousands of times. */
	snprintf(base, sizeof(base), "%s/sluice-test-store.XXXXXX",
		 access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	if (!mkdtemp(base))
		return -1;
	snprintf(dir, sizeof(dir), "%s/state", base);
	snprintf(file, sizeof(file), "%s/sluice.db", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	faultvfs_arm(FAULTVFS_NONE, 0, false);
	faultvfs.durable_dir = NULL;
	faultvfs.moment = NULL;
	unsetenv("SLUICE_CRASH_AT");
	unsetenv("SLUICE_FAIL_AT");
	remove_tree(base);
	return 0;
}

static struct store *open_ok(void)
{
	struct store *s = NULL;
	int r = store_open(dir, MACHINE, &s, &err);

	if (r)
		fail_msg("store_open: %s: %s", strerror(-r), err.s);
	return s;
}

/* Open, which must fail with e and a text that has all of the words; ret must stay as it was. */
static void open_refused(const char *machine, int e, const char *word1, const char *word2)
{
	struct store *s = (struct store *)&err;
	int r;

	err.s[0] = '\0';
	r = store_open(dir, machine, &s, &err);
	if (r != -e || !strstr(err.s, word1) || !strstr(err.s, word2))
		fail_msg("got %d (%s), text \"%s\"; wanted %d (%s) with \"%s\", \"%s\"", r,
			 strerror(-r), err.s, -e, strerror(e), word1, word2);
	assert_ptr_equal(s, &err);
	assert_null(strchr(err.s, '\n'));
}

/* SQL behind the store's back. The first column of the first row, -1 without one. */
static int64_t sql(const char *text)
{
	sqlite3_stmt *st = NULL;
	int64_t v = -1;
	sqlite3 *db;
	int rc;

	assert_int_equal(sqlite3_open_v2(file, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
	rc = sqlite3_prepare_v2(db, text, -1, &st, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc != SQLITE_ROW && rc != SQLITE_DONE)
		fail_msg("%s: %s", text, sqlite3_errmsg(db));
	if (rc == SQLITE_ROW)
		v = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	sqlite3_close(db);
	return v;
}

static char *file_read(size_t *ret_n)
{
	struct stat st;
	int fd = open(file, O_RDONLY);
	char *p;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	p = malloc((size_t)st.st_size + 1);
	assert_int_equal(read(fd, p, (size_t)st.st_size), st.st_size);
	close(fd);
	*ret_n = (size_t)st.st_size;
	return p;
}

static void file_write(const char *p, size_t n)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, n), n);
	close(fd);
}

/* The configuration that wants slice i of the address for every bit i of mask, in one of two pools. */
struct conf {
	struct config config;
	struct config_pool pools[2];
	struct range slices[2][32];
};

static void conf_init(struct conf *c, uint32_t mask, uint32_t ttl_s)
{
	*c = (struct conf){ 0 };
	c->config.pools = c->pools;
	c->config.n_pools = 2;
	c->config.fleet.ttl_s = ttl_s;
	strcpy(c->pools[0].name, "low");
	strcpy(c->pools[1].name, "high-with-a-long-name-of-31-char");
	c->pools[1].name[CONFIG_NAME_MAX] = '\0';
	for (int i = 0; i < 32; i++) {
		struct config_pool *p = &c->pools[i >= 16];

		p->slices = c->slices[i >= 16];
		if (mask >> i & 1)
			p->slices[p->n_slices++] =
				(struct range){ { { [10] = 0xff, 0xff, 203, 0, 113, 7 } },
						(uint16_t)(2048 * i),
						(uint16_t)(2048 * i + 2047) };
	}
}

static uint32_t mask_of(const struct hold_table *t)
{
	uint32_t mask = 0;

	for (size_t i = 0; i < t->n; i++) {
		const struct hold *h = &t->rows[i];
		unsigned bit = h->ports.first / 2048U;

		assert_int_equal(h->ports.last - h->ports.first, 2047);
		assert_string_equal(h->pool, bit < 16 ? "low" : "high-with-a-long-name-of-31-cha");
		mask |= 1U << bit;
	}
	return mask;
}

/*
 * What a tick of the daemon does: load, decide, store. 0 or what failed; *ret_epoch is the highest epoch that was given out.
 * All within one store, without asserts, so that children can run it too.
 */
static int tick(struct store *s, uint32_t mask, uint32_t ttl_s, uint64_t now_ns,
		uint32_t *ret_epoch)
{
	struct store_batch b = { .now_ms = (int64_t)(now_ns / 1000000) };
	struct hold_table t = { 0 };
	struct hold_changes ch = { 0 };
	uint32_t epoch;
	struct conf c;
	int r;

	conf_init(&c, mask, ttl_s);
	r = store_load_holds(s, &t, &epoch, &err);
	if (r)
		return r;
	r = hold_reconcile_local(&c.config, &t, epoch, now_ns, &ch, &err);
	b.holds = &ch;
	if (!r)
		r = store_commit(s, &b, &err);
	if (!r && ret_epoch)
		*ret_epoch = ch.next_epoch - 1;
	hold_changes_done(&ch);
	hold_table_done(&t);
	return r;
}

static void tick_ok(struct store *s, uint32_t mask)
{
	int r = tick(s, mask, 0, S, NULL);

	if (r)
		fail_msg("tick: %s: %s", strerror(-r), err.s);
}

static uint32_t loaded_mask(struct store *s, uint32_t *ret_epoch)
{
	struct hold_table t = { 0 };
	uint32_t epoch, mask;
	int r = store_load_holds(s, &t, &epoch, &err);

	if (r)
		fail_msg("store_load_holds: %s: %s", strerror(-r), err.s);
	mask = mask_of(&t);
	for (size_t i = 0; i < t.n; i++)
		assert_true(t.rows[i].epoch < epoch);
	hold_table_done(&t);
	if (ret_epoch)
		*ret_epoch = epoch;
	return mask;
}

/* Make a store with these slices and close it. */
static void prepare(uint32_t mask)
{
	struct store *s = open_ok();

	tick_ok(s, mask);
	store_close(s);
}

static unsigned long rnd(unsigned long below)
{
	static uint64_t seed = 0x2545f4914f6cdd1d;

	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned long)(seed >> 11) % below;
}

/* ---- what it is for ---- */

static void test_create(void **state)
{
	mode_t mask = umask(0);
	uint32_t first, again;
	struct store *s;
	struct stat st;

	(void)state;
	s = open_ok();
	umask(mask);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(loaded_mask(s, &first), 0);
	assert_true(first >= 1);
	assert_false(store_must_reopen(s));
	store_close(s);
	assert_int_equal(sql("PRAGMA user_version"), 1);
	assert_int_equal(sql("PRAGMA application_id"), STORE_APP_ID);

	s = open_ok();
	assert_int_equal(loaded_mask(s, &again), 0);
	assert_int_equal(first, again);
	/* The log of a store that is in use is as private as the store. */
	tick_ok(s, 1);
	strcat(file, "-wal");
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	store_close(s);
	store_close(NULL);
	assert_int_equal(epoch_start(-5), 1);
	assert_int_equal(epoch_start(0), 1);
	assert_int_equal(epoch_start(1764000000123), 1764000000);
	assert_true(epoch_start(INT64_MAX) < UINT32_MAX);
}

static void test_parent_missing(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "%s/no/state", base);
	open_refused(MACHINE, ENOENT, dir, "No such file");
	snprintf(dir, sizeof(dir), "%s/plain", base);
	snprintf(file, sizeof(file), "%s/plain", base);
	file_write("x", 1);
	open_refused(MACHINE, ENOTDIR, dir, "Not a directory");
}

static void test_settings(void **state)
{
	struct store *s = open_ok();
	int64_t v;
	char text[16];

	(void)state;
	assert_int_equal(db_text(s->db, "PRAGMA journal_mode", text, sizeof(text)), SQLITE_OK);
	assert_string_equal(text, "wal");
	assert_int_equal(db_int(s->db, "PRAGMA synchronous", &v), SQLITE_OK);
	assert_int_equal(v, 2);
	assert_int_equal(db_int(s->db, "PRAGMA foreign_keys", &v), SQLITE_OK);
	assert_int_equal(v, 1);
	assert_int_equal(db_int(s->db, "PRAGMA busy_timeout", &v), SQLITE_OK);
	assert_int_equal(v, STORE_BUSY_MS);
	/* A hold without its record can't be. */
	assert_int_equal(db_run(s->db,
				"INSERT INTO hold VALUES (zeroblob(16), 0, 1023, 'p', 1, NULL)",
				NULL, 0),
			 SQLITE_CONSTRAINT_FOREIGNKEY);
	store_close(s);
}

static void test_round_trip(void **state)
{
	struct hold_table t = { 0 };
	struct store *s = open_ok();
	uint32_t before, epoch;

	(void)state;
	loaded_mask(s, &before);
	assert_int_equal(tick(s, 0x800000f1, 30, 100 * S, NULL), 0);
	store_close(s);

	s = open_ok();
	assert_int_equal(store_load_holds(s, &t, &epoch, &err), 0);
	assert_int_equal(mask_of(&t), 0x800000f1);
	assert_int_equal(epoch, before + 6);
	for (size_t i = 0; i < t.n; i++) {
		assert_int_equal(t.rows[i].epoch, before + i);
		assert_true(t.rows[i].not_after_ns == hold_deadline(100 * S, 30));
	}
	hold_table_done(&t);

	/* Renewed, and renewed without a deadline. */
	assert_int_equal(tick(s, 0x800000f1, 30, 110 * S, NULL), 0);
	assert_int_equal(store_load_holds(s, &t, &epoch, &err), 0);
	assert_true(t.rows[3].not_after_ns == hold_deadline(110 * S, 30));
	hold_table_done(&t);
	assert_int_equal(tick(s, 0x800000f1, 0, 111 * S, NULL), 0);
	store_close(s);
	s = open_ok();
	assert_int_equal(store_load_holds(s, &t, &epoch, &err), 0);
	assert_true(t.rows[3].not_after_ns == SLUICE_NEVER);
	assert_int_equal(epoch, before + 6);
	hold_table_done(&t);

	/* Out and in again. */
	tick_ok(s, 0x800000f0);
	tick_ok(s, 0x800000f1);
	assert_int_equal(loaded_mask(s, &epoch), 0x800000f1);
	assert_int_equal(epoch, before + 7);
	store_close(s);
	assert_int_equal(sql("SELECT epoch FROM hold WHERE first = 0"), before + 6);
	assert_int_equal(sql("SELECT max(last) FROM hold"), 65535);
}

static void test_log(void **state)
{
	struct store_options o = store_defaults();
	struct store *s = NULL;
	uint32_t last = 0;

	(void)state;
	o.log_max = 10;
	assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), 0);
	assert_int_equal(tick(s, 1, 0, 5 * S, NULL), 0); /* this one is held all the time */
	for (int i = 0; i < 40; i++)
		assert_int_equal(tick(s, i % 2 ? 1 : 7, 0, (10 + (uint64_t)i) * S, &last), 0);
	store_close(s);
	assert_int_equal(sql("SELECT count(*) FROM hold_log WHERE ended_ms IS NOT NULL"), 10);
	assert_int_equal(sql("SELECT count(*) FROM hold_log WHERE ended_ms IS NULL"), 1);
	assert_int_equal(sql("SELECT count(*) FROM hold_log WHERE why = 'removed'"), 10);
	/* The latest are the ones that stayed. */
	assert_int_equal(sql("SELECT min(ended_ms) FROM hold_log"), 41000);
	assert_int_equal(sql("SELECT max(ended_ms) FROM hold_log"), 49000);
	assert_int_equal(sql("SELECT max(epoch) FROM hold_log"), last);
	assert_int_equal(sql("SELECT began_ms FROM hold_log WHERE ended_ms IS NULL"), 5000);
	assert_int_equal(sql("SELECT began_ms FROM hold_log WHERE ended_ms = 49000"), 48000);
	prepare(1);
}

/* A change set is good once, and only for the store that it was computed from. */
static void test_stale(void **state)
{
	struct hold_table t = { 0 };
	struct hold_changes ch, renewal, end;
	struct store_batch b = { .now_ms = 1 };
	struct store *s = open_ok();
	uint32_t epoch, after;
	struct conf c;

	(void)state;
	conf_init(&c, 6, 30);
	assert_int_equal(store_load_holds(s, &t, &epoch, &err), 0);
	assert_int_equal(hold_reconcile_local(&c.config, &t, epoch, S, &ch, &err), 0);
	b.holds = &ch;
	assert_int_equal(store_commit(s, &b, &err), 0);
	assert_int_equal(store_commit(s, &b, &err), -ESTALE);
	assert_non_null(strstr(err.s, "given out before"));
	/* With a counter that lies about it, the records tell. */
	ch.first_epoch = epoch + 2;
	ch.next_epoch = epoch + 4;
	assert_int_equal(store_commit(s, &b, &err), -ESTALE);
	assert_false(store_must_reopen(s));
	assert_int_equal(loaded_mask(s, &after), 6);
	assert_int_equal(after, epoch + 2);
	hold_apply(&t, &ch);
	hold_changes_done(&ch);

	assert_int_equal(hold_renew(&t, 5 * S, 30, &renewal), 0);
	conf_init(&c, 0, 0);
	assert_int_equal(hold_reconcile_local(&c.config, &t, after, S, &end, &err), 0);
	b.holds = &end;
	assert_int_equal(store_commit(s, &b, &err), 0);
	assert_int_equal(store_commit(s, &b, &err), -ESTALE);
	assert_non_null(strstr(err.s, "203.0.113.7:2048-4095"));
	b.holds = &renewal;
	assert_int_equal(store_commit(s, &b, &err), -ESTALE);
	assert_int_equal(loaded_mask(s, &after), 0);
	hold_changes_done(&renewal);
	hold_changes_done(&end);
	hold_table_done(&t);

	/* Epochs may be passed over, never gone back to. */
	conf_init(&c, 1, 0);
	assert_int_equal(hold_reconcile_local(&c.config, &t, after + 100, S, &ch, &err), 0);
	b.holds = &ch;
	assert_int_equal(store_commit(s, &b, &err), 0);
	hold_changes_done(&ch);
	assert_int_equal(loaded_mask(s, &epoch), 1);
	assert_int_equal(epoch, after + 101);
	/* Nothing to do is nothing done. */
	b.holds = NULL;
	assert_int_equal(store_commit(s, &b, &err), 0);
	store_close(s);
}

static void test_host(void **state)
{
	struct store_host *list = NULL;
	struct store *s = open_ok();
	size_t n;

	(void)state;
	assert_int_equal(store_host_list(s, &list, &n, &err), 0);
	assert_int_equal(n, 0);
	store_host_free(list, n);
	assert_int_equal(store_host_add(s, "sysctl", "a", "0", "1", &err), 0);
	assert_int_equal(store_host_add(s, "route", "a", NULL, "local 203.0.113.7", &err), 0);
	assert_int_equal(store_host_add(s, "sysctl", "b", "", NULL, &err), 0);
	/* The value that was found first is the one to go back to. */
	assert_int_equal(store_host_add(s, "sysctl", "a", "1", "2", &err), 0);
	store_close(s);

	s = open_ok();
	assert_int_equal(store_host_list(s, &list, &n, &err), 0);
	assert_int_equal(n, 3);
	assert_string_equal(list[0].kind, "sysctl");
	assert_string_equal(list[0].key, "b");
	assert_string_equal(list[0].was, "");
	assert_null(list[0].now);
	assert_string_equal(list[1].kind, "route");
	assert_null(list[1].was);
	assert_string_equal(list[1].now, "local 203.0.113.7");
	assert_string_equal(list[2].was, "0");
	assert_string_equal(list[2].now, "2");
	store_host_free(list, n);
	assert_int_equal(store_host_rm(s, "sysctl", "b", &err), 0);
	assert_int_equal(store_host_rm(s, "sysctl", "b", &err), 0);
	assert_int_equal(store_host_list(s, &list, &n, &err), 0);
	assert_int_equal(n, 2);
	assert_string_equal(list[0].kind, "route");
	store_host_free(list, n);
	store_close(s);
}

static void test_reboot(void **state)
{
	struct hold_table t = { 0 };
	struct store *s = open_ok();
	uint32_t epoch;

	(void)state;
	assert_int_equal(tick(s, 3, 30, 100 * S, NULL), 0);
	store_close(s);
	sql("UPDATE hold SET not_after_ns = NULL WHERE first = 0");
	sql("UPDATE meta SET boot_id = 'another'");
	s = open_ok();
	assert_int_equal(store_load_holds(s, &t, &epoch, &err), 0);
	assert_int_equal(t.n, 2);
	assert_true(t.rows[0].not_after_ns == SLUICE_NEVER);
	assert_true(t.rows[1].not_after_ns == 0);
	assert_true(hold_next_renewal(&t, 30) == 0);
	hold_table_done(&t);
	store_close(s);
	assert_int_equal(sql("SELECT boot_id = 'another' FROM meta"), 0);
}

/* ---- one process at a time ---- */

static pid_t child(void (*fn)(int fd), int *ret_fd)
{
	int p[2];
	pid_t pid;

	assert_int_equal(pipe(p), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		close(p[0]);
		fn(p[1]);
		_exit(0);
	}
	close(p[1]);
	*ret_fd = p[0];
	return pid;
}

/* Returns the signal that ended it, 0 for exit 0, -1 for another exit. */
static int reap(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status) ? -1 : 0;
}

static void child_holds(int fd)
{
	struct store *s;

	if (store_open(dir, MACHINE, &s, &err) || tick(s, 5, 0, S, NULL))
		_exit(1);
	if (write(fd, "x", 1) != 1)
		_exit(1);
	pause();
}

static void test_lock(void **state)
{
	struct store *s;
	char word[32];
	pid_t pid;
	int fd;

	(void)state;
	pid = child(child_holds, &fd);
	assert_int_equal(read(fd, word, 1), 1);
	snprintf(word, sizeof(word), "process %d", pid);
	open_refused(MACHINE, EBUSY, dir, word);
	kill(pid, SIGKILL);
	assert_int_equal(reap(pid), SIGKILL);
	close(fd);
	s = open_ok();
	assert_int_equal(loaded_mask(s, NULL), 5);
	/* Not even this process itself, and whatever the file says. */
	snprintf(word, sizeof(word), "process %d", getpid());
	open_refused(MACHINE, EBUSY, dir, word);
	snprintf(file, sizeof(file), "%s/lock", dir);
	file_write("1; rm -rf\n", 10);
	open_refused(MACHINE, EBUSY, dir, "another process");
	file_write("", 0);
	open_refused(MACHINE, EBUSY, dir, "another process");
	store_close(s);
	store_close(open_ok());
}

/* Somebody has the file open with the sqlite3 command and writes. */
static void test_busy(void **state)
{
	struct store_options o = store_defaults();
	struct store *s = NULL;
	sqlite3 *db;

	(void)state;
	o.busy_ms = 1;
	assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), 0);
	tick_ok(s, 3);
	assert_int_equal(sqlite3_open(file, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(tick(s, 7, 0, S, NULL), -EBUSY);
	assert_non_null(strstr(err.s, "another program"));
	assert_int_equal(store_host_add(s, "k", "k", NULL, NULL, &err), -EBUSY);
	assert_false(store_must_reopen(s));
	assert_int_equal(loaded_mask(s, NULL), 3);
	sqlite3_close(db);
	tick_ok(s, 7);
	store_close(s);
}

/* ---- what is refused, and left alone ---- */

static void untouched_when_refused(const char *machine, int e, const char *word1, const char *word2)
{
	size_t n, n_after;
	char *before = file_read(&n), *after;

	open_refused(machine, e, word1, word2);
	open_refused(machine, e, word1, word2); /* asking twice makes no difference */
	after = file_read(&n_after);
	assert_int_equal(n, n_after);
	assert_memory_equal(before, after, n);
	free(before);
	free(after);
}

static void test_not_a_store(void **state)
{
	static const char text[] =
		"machine = \"edge1\"\nThis is a text of some length, no database.\n";
	char page[8192] = { 0 };
	size_t n;
	char *p;

	(void)state;
	assert_int_equal(mkdir(dir, 0700), 0);
	file_write(text, sizeof(text) - 1);
	untouched_when_refused(MACHINE, EMEDIUMTYPE, file, "not a database");
	file_write(page, sizeof(page));
	untouched_when_refused(MACHINE, EMEDIUMTYPE, file, "not a database");
	file_write("", 0);
	untouched_when_refused(MACHINE, EUCLEAN, file, "empty");
	unlink(file);

	/* A database, but not ours. */
	{
		sqlite3 *db;

		assert_int_equal(sqlite3_open(file, &db), SQLITE_OK);
		assert_int_equal(sqlite3_exec(db, "CREATE TABLE meta (machine)", NULL, NULL, NULL),
				 SQLITE_OK);
		sqlite3_close(db);
	}
	untouched_when_refused(MACHINE, EMEDIUMTYPE, file, "another program");
	unlink(file);
	prepare(3);
	sql("PRAGMA application_id = 7");
	untouched_when_refused(MACHINE, EMEDIUMTYPE, "0x7", "0x536c7563");
	sql("PRAGMA application_id = 0x536c7563");
	prepare(3);

	/* Not a file at all. */
	p = file_read(&n);
	free(p);
	unlink(file);
	assert_int_equal(symlink("/etc/hostname", file), 0);
	open_refused(MACHINE, EMEDIUMTYPE, file, "regular file");
	unlink(file);
	assert_int_equal(mkdir(file, 0700), 0);
	open_refused(MACHINE, EMEDIUMTYPE, file, "regular file");
	assert_int_equal(rmdir(file), 0);

	/* The database is gone, its log is not: what is in it must not be lost unnoticed. */
	strcat(file, "-wal");
	file_write("something", 9);
	open_refused(MACHINE, EUCLEAN, "missing", "-wal");
	unlink(file);
	store_close(open_ok());
}

static void test_newer_schema(void **state)
{
	(void)state;
	prepare(3);
	sql("PRAGMA user_version = 99");
	untouched_when_refused(MACHINE, EPROTONOSUPPORT, "schema 99", "up to 1");
	sql("PRAGMA user_version = 0");
	untouched_when_refused(MACHINE, EUCLEAN, "damaged", "schema 0");
	sql("PRAGMA user_version = -1");
	untouched_when_refused(MACHINE, EUCLEAN, "damaged", "schema -1");
	sql("PRAGMA user_version = 1");
	prepare(3);
}

static void test_other_machine(void **state)
{
	(void)state;
	prepare(3);
	untouched_when_refused("edge2", EREMOTE, "\"edge1\"", "\"edge2\"");
	prepare(3);
}

static void test_newer_with_log(void **state)
{
	struct store *s;
	char wal[320], shm[320], keep[320];
	struct stat before, after;

	(void)state;
	/* A store with an unfinished log, as kill -9 leaves it. */
	s = open_ok();
	tick_ok(s, 3);
	snprintf(wal, sizeof(wal), "%s-wal", file);
	snprintf(shm, sizeof(shm), "%s-shm", file);
	snprintf(keep, sizeof(keep), "%s/keep", base);
	faultvfs_copy(wal, keep);
	store_close(s);
	rename(keep, wal);
	assert_int_equal(stat(wal, &before), 0);
	assert_true(before.st_size > 0);
	/* A refused store keeps its log. */
	untouched_when_refused("edge2", EREMOTE, "edge1", "edge2");
	assert_int_equal(stat(wal, &after), 0);
	assert_int_equal(after.st_size, before.st_size);
	s = open_ok();
	assert_int_equal(loaded_mask(s, NULL), 3);
	store_close(s);
}

static void test_read_only(void **state)
{
	(void)state;
	prepare(3);
	chmod(file, 0400);
	untouched_when_refused(MACHINE, EACCES, file, geteuid() ? "denied" : "read-only");
	chmod(file, 0600);
	chmod(dir, 0500);
	open_refused(MACHINE, EACCES, dir, geteuid() ? "denied" : "read-only");
	chmod(dir, 0700);
	prepare(3);
}

static int own_mounts(const char *options)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -1;
	return mount("sluice-test", dir, "tmpfs", 0, options);
}

/* Exit codes of children that try things in their own mounts. */
#define CHILD_SKIP 77
#define CHECK(cond)                                                                   \
	do {                                                                          \
		if (!(cond)) {                                                        \
			fprintf(stderr, "line %d: %s; %s\n", __LINE__, #cond, err.s); \
			_exit(1);                                                     \
		}                                                                     \
	} while (0)

static void run_child(void (*fn)(int fd))
{
	int fd, status;
	pid_t pid = child(fn, &fd);

	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(fd);
	if (WIFEXITED(status) && WEXITSTATUS(status) == CHILD_SKIP) {
		print_message("needs root and mount namespaces\n");
		skip();
	}
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void child_read_only_mount(int fd)
{
	struct store *s;

	(void)fd;
	if (own_mounts("size=4m"))
		_exit(CHILD_SKIP);
	CHECK(!store_open(dir, MACHINE, &s, &err) && !tick(s, 3, 0, S, NULL));
	store_close(s);
	CHECK(!mount(NULL, dir, NULL, MS_REMOUNT | MS_RDONLY, NULL));
	CHECK(store_open(dir, MACHINE, &s, &err) == -EROFS && strstr(err.s, "Read-only"));
	CHECK(!mount(NULL, dir, NULL, MS_REMOUNT, NULL));
	CHECK(!store_open(dir, MACHINE, &s, &err) && loaded_mask(s, NULL) == 3);
	store_close(s);
}

static void test_read_only_mount(void **state)
{
	(void)state;
	assert_int_equal(mkdir(dir, 0700), 0);
	run_child(child_read_only_mount);
}

static void test_contradictions(void **state)
{
	static const char *const lies[] = {
		"UPDATE hold SET pool = 'high' WHERE first = 2048",
		"UPDATE hold_log SET last = last + 1 WHERE first = 2048",
		"UPDATE hold SET epoch = epoch + 77 WHERE first = 2048",
		"UPDATE meta SET next_epoch = next_epoch - 1",
		"DELETE FROM hold WHERE first = 2048",
		"DELETE FROM hold_log WHERE first = 2048",
		"UPDATE hold_log SET ended_ms = 5 WHERE first = 2048",
		"UPDATE hold SET addr = zeroblob(16) WHERE first = 2048",
		"DROP TABLE hold",
		"DELETE FROM meta",
		"ALTER TABLE hold RENAME COLUMN first TO fjrst",
	};
	size_t n;
	char *good;

	(void)state;
	prepare(6);
	good = file_read(&n);
	for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		sql(lies[i]);
		untouched_when_refused(MACHINE, EUCLEAN, file, "damaged");
		file_write(good, n);
	}
	free(good);
	prepare(6);
}

/* Rows that are records of each other but no holds: overlapping, crooked. */
static void test_bad_rows(void **state)
{
	struct hold_table t = { 0 };
	struct store *s;
	uint32_t epoch = 7;

	(void)state;
	prepare(6);
	sql("UPDATE hold SET last = 8191 WHERE first = 2048");
	sql("UPDATE hold_log SET last = 8191 WHERE first = 2048");
	s = open_ok();
	assert_int_equal(store_load_holds(s, &t, &epoch, &err), -EUCLEAN);
	assert_int_equal(epoch, 7);
	assert_null(t.rows);
	assert_true(store_must_reopen(s));
	store_close(s);
}

/* What a good store holds, to compare a damaged one with. */
struct content {
	struct hold_table t;
	uint32_t epoch;
};

static struct content content_load(void)
{
	struct content c = { 0 };
	struct store *s = open_ok();

	assert_int_equal(store_load_holds(s, &c.t, &c.epoch, &err), 0);
	store_close(s);
	return c;
}

/*
 * Put n damaged bytes in place of the file and open it: it must be refused and left alone (true), or the damage must not
 * matter. Deadlines are not compared: starting renews them.
 */
static bool refuses_damaged(const char *damaged, size_t n, const struct content *want)
{
	struct hold_table t = { 0 };
	struct store *s = NULL;
	uint32_t epoch = 0;
	size_t n_after;
	char *after;
	int r;

	file_write(damaged, n);
	r = store_open(dir, MACHINE, &s, &err);
	if (!r) {
		r = store_load_holds(s, &t, &epoch, &err);
		store_close(s);
	}
	if (r) {
		if (r != -EUCLEAN && r != -EMEDIUMTYPE && r != -EPROTONOSUPPORT && r != -EREMOTE)
			fail_msg("%s: %s", strerror(-r), err.s);
		after = file_read(&n_after);
		assert_int_equal(n, n_after);
		assert_memory_equal(damaged, after, n);
		free(after);
		return true;
	}
	assert_int_equal(t.n, want->t.n);
	for (size_t i = 0; i < t.n; i++) {
		assert_string_equal(t.rows[i].pool, want->t.rows[i].pool);
		assert_memory_equal(&t.rows[i].ports, &want->t.rows[i].ports,
				    sizeof(t.rows[i].ports));
		assert_int_equal(t.rows[i].epoch, want->t.rows[i].epoch);
	}
	assert_true(epoch >= want->epoch);
	hold_table_done(&t);
	return false;
}

/* Any one byte changed. */
static void test_flipped_bytes(void **state)
{
	size_t n, refused = 0, tries = 0;
	struct content want;
	char *good;

	(void)state;
	prepare(0x0f0ff0ff);
	prepare(0xf00ff0f1);
	want = content_load();
	good = file_read(&n);
	/* All of the header, the rest here and there. */
	for (size_t at = 0; at < n; at += at < 120 ? 1 : 1 + rnd(79)) {
		char was = good[at];

		good[at] = (char)(was ^ (int)(1 + rnd(255)));
		refused += refuses_damaged(good, n, &want);
		tries++;
		good[at] = was;
	}
	print_message("%zu single bytes changed: %zu refused, the others did not matter\n", tries,
		      refused);
	assert_true(refused > tries / 20);
	assert_false(refuses_damaged(good, n, &want));
	free(good);
	hold_table_done(&want.t);
}

static void test_cut_short(void **state)
{
	size_t n, refused = 0, tries = 0;
	struct content want;
	char *good;

	(void)state;
	prepare(0x0f0ff0ff);
	want = content_load();
	good = file_read(&n);
	for (size_t len = 1; len < n; len += len % 4096 == 4095 ? 1 : rnd(1000) + 1) {
		refused += refuses_damaged(good, len, &want);
		tries++;
	}
	/* Only empty space at the very end can go. */
	assert_true(tries > 30 && refused > tries * 8 / 10);
	for (size_t len = 4096; len < n; len += 4096)
		assert_true(refuses_damaged(good, len, &want));
	assert_false(refuses_damaged(good, n, &want));
	free(good);
	hold_table_done(&want.t);
}

/* ---- a full disk ---- */

static void child_full_disk(int fd)
{
	char filler[300], block[4096] = { 1 };
	uint32_t mask = 3, seen = 0;
	struct store *s;
	int out, r;

	(void)fd;
	if (own_mounts("size=400k"))
		_exit(CHILD_SKIP);
	/* Full from the start: no store, and nothing half made. */
	snprintf(filler, sizeof(filler), "%s/filler", dir);
	out = open(filler, O_WRONLY | O_CREAT, 0600);
	while (write(out, block, sizeof(block)) > 0)
		;
	CHECK(store_open(dir, MACHINE, &s, &err) == -ENOSPC && strstr(err.s, "disk"));
	CHECK(access(file, F_OK));
	CHECK(!ftruncate(out, 0));
	CHECK(!store_open(dir, MACHINE, &s, &err) && !tick(s, mask, 0, S, NULL));
	/* Filled while it is in use. */
	while (write(out, block, sizeof(block)) > 0)
		;
	for (uint32_t i = 0;; i++) {
		r = tick(s, i % 2 ? 0x0000fff0 : 0xffff0003, 0, S, NULL);
		if (r)
			break;
		mask = i % 2 ? 0x0000fff0 : 0xffff0003;
		CHECK(i < 100000);
	}
	CHECK(r == -ENOSPC);
	if (!store_must_reopen(s))
		CHECK(loaded_mask(s, NULL) == mask);
	store_close(s);
	/* It may be opened on a full disk, or not for lack of space; it is never spoilt. */
	r = store_open(dir, MACHINE, &s, &err);
	CHECK(!r || r == -ENOSPC);
	if (!r) {
		CHECK(loaded_mask(s, &seen) == mask);
		r = tick(s, 0x55555555, 0, S, NULL);
		CHECK(!r || r == -ENOSPC);
		if (!r)
			mask = 0x55555555;
		store_close(s);
	}
	CHECK(!ftruncate(out, 0));
	CHECK(!store_open(dir, MACHINE, &s, &err) && loaded_mask(s, NULL) == mask);
	CHECK(!tick(s, 0xff, 0, S, NULL) && loaded_mask(s, NULL) == 0xff);
	store_close(s);
}

static void test_full_disk(void **state)
{
	(void)state;
	assert_int_equal(mkdir(dir, 0700), 0);
	run_child(child_full_disk);
}

/* Without root: the limit on a file's size does it. */
static void child_file_limit(int fd)
{
	struct rlimit limit, small;
	uint32_t mask = 3;
	struct store *s;
	int r;

	(void)fd;
	signal(SIGXFSZ, SIG_IGN);
	CHECK(!getrlimit(RLIMIT_FSIZE, &limit));
	small = limit;
	small.rlim_cur = 16384;
	CHECK(!setrlimit(RLIMIT_FSIZE, &small));
	r = store_open(dir, MACHINE, &s, &err);
	CHECK((r == -ENOSPC || r == -EIO) && access(file, F_OK));
	CHECK(!setrlimit(RLIMIT_FSIZE, &limit));
	CHECK(!store_open(dir, MACHINE, &s, &err) && !tick(s, mask, 0, S, NULL));
	small.rlim_cur = 200000;
	CHECK(!setrlimit(RLIMIT_FSIZE, &small));
	for (uint32_t i = 0;; i++) {
		r = tick(s, i % 2 ? 0x0000fff0 : 0xffff0003, 0, S, NULL);
		if (r)
			break;
		mask = i % 2 ? 0x0000fff0 : 0xffff0003;
		CHECK(i < 1000);
	}
	CHECK(r == -ENOSPC || r == -EIO);
	if (store_must_reopen(s)) {
		CHECK(tick(s, 1, 0, S, NULL) == -EIO && strstr(err.s, "opened again"));
	} else {
		CHECK(loaded_mask(s, NULL) == mask);
	}
	CHECK(!setrlimit(RLIMIT_FSIZE, &limit));
	store_close(s);
	CHECK(!store_open(dir, MACHINE, &s, &err) && loaded_mask(s, NULL) == mask);
	CHECK(!tick(s, 0xff, 0, S, NULL) && loaded_mask(s, NULL) == 0xff);
	store_close(s);
}

static void test_file_limit(void **state)
{
	(void)state;
	run_child(child_file_limit);
}

/* ---- crashes ---- */

/* The states that a run goes through: step i leads from masks[i] to masks[i + 1]. */
static const uint32_t masks[] = { 0, 0x0000000f, 0x80000035, 0x0000003a, 0, 0x00ff00ff };
#define STEPS (sizeof(masks) / sizeof(*masks) - 1)

static size_t step_of(uint32_t mask, size_t after)
{
	for (size_t i = after; i <= STEPS; i++)
		if (masks[i] == mask)
			return i;
	fail_msg("the holds %#x are of no state", mask);
	return 0;
}

struct ack {
	size_t step;
	uint32_t epoch; /* the highest that this step or an earlier one gave out */
};

/* Run through all steps and acknowledge each one when it is stored. */
static void child_steps(int fd)
{
	struct ack a = { 0 };
	struct store *s;

	if (store_open(dir, MACHINE, &s, &err))
		_exit(1);
	for (size_t i = 0; i < STEPS; i++) {
		a.step = i + 1;
		if (tick(s, masks[i + 1], 30, S, &a.epoch))
			_exit(1);
		if (write(fd, &a, sizeof(a)) != sizeof(a))
			_exit(1);
	}
	store_close(s);
}

/*
 * After a crash: what was acknowledged is there, at most the one step more that was under way, and no epoch comes twice.
 * Returns the step that the store is at.
 */
static size_t check_after_crash(const struct ack *last)
{
	struct store *s = open_ok();
	uint32_t epoch, next;
	size_t step = step_of(loaded_mask(s, &epoch), last->step);

	assert_true(step <= last->step + 1);
	assert_true(epoch > last->epoch);
	tick_ok(s, ~masks[step]);
	assert_int_equal(loaded_mask(s, &next), ~masks[step]);
	assert_true(next > epoch);
	store_close(s);
	/* Epochs follow each other without a gap or a repetition. */
	assert_int_equal(sql("SELECT count(*) = max(epoch) - min(epoch) + 1 FROM hold_log"), 1);
	return step;
}

static struct ack last_ack(int fd)
{
	struct ack a, last = { 0 };

	while (read(fd, &a, sizeof(a)) == sizeof(a))
		last = a;
	close(fd);
	return last;
}

static void test_kill_at_points(void **state)
{
	static const char *const points[] = { "store.begin", "store.commit", "store.committed" };
	struct ack last;
	char at[64];
	size_t step;
	pid_t pid;
	int fd;

	(void)state;
	for (size_t p = 0; p < 3; p++) {
		for (size_t n = 1; n <= STEPS + 1; n++) {
			snprintf(at, sizeof(at), "%s:%zu", points[p], n);
			setenv("SLUICE_CRASH_AT", at, 1);
			pid = child(child_steps, &fd);
			last = last_ack(fd);
			assert_int_equal(reap(pid), n > STEPS ? 0 : SIGKILL);
			unsetenv("SLUICE_CRASH_AT");
			assert_int_equal(last.step, n - 1);
			step = check_after_crash(&last);
			if (n <= STEPS)
				assert_int_equal(step, p == 2 ? n : n - 1);
			remove_tree(dir);
		}
	}
	setenv("SLUICE_CRASH_AT", "store.create", 1);
	pid = child(child_steps, &fd);
	last = last_ack(fd);
	assert_int_equal(reap(pid), SIGKILL);
	unsetenv("SLUICE_CRASH_AT");
	assert_int_not_equal(access(file, F_OK), 0);
	check_after_crash(&last);
}

/*
 * Now at every single moment at which the files change. Only one run is made; at each operation on a file, and half-way through
 * each write, what is on the disk is copied: that is what a kill at this moment would leave. A power cut leaves less: of
 * every file only what was synced last (names are durable: the store syncs the directory).
 */
#define MOMENTS_MAX 1000

static struct {
	char dir[220];     /* holds one directory per moment */
	char durable[220]; /* "" : no power cut */
	struct ack acks[MOMENTS_MAX];
	unsigned n;
	struct ack now;
} moments;

static void copy_all(const char *from, const char *to, const char *except)
{
	char path[600], copy[600];
	struct dirent *e;
	DIR *d = opendir(from);

	assert_non_null(d);
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.' || (except && !strcmp(e->d_name, except)))
			continue;
		snprintf(path, sizeof(path), "%s/%s", from, e->d_name);
		snprintf(copy, sizeof(copy), "%s/%s", to, e->d_name);
		faultvfs_copy(path, copy);
	}
	closedir(d);
}

static void moment_keep(void)
{
	char to[300], path[300], copy[320];

	assert_true(moments.n < MOMENTS_MAX);
	snprintf(to, sizeof(to), "%s/%u", moments.dir, moments.n);
	assert_int_equal(mkdir(to, 0700), 0);
	moments.acks[moments.n++] = moments.now;
	if (!moments.durable[0]) {
		copy_all(dir, to, NULL);
		return;
	}
	copy_all(moments.durable, to, "sluice.db.new");
	snprintf(path, sizeof(path), "%s/sluice.db.new", moments.durable);
	snprintf(copy, sizeof(copy), "%s/sluice.db", to);
	if (!access(file, F_OK) && access(copy, F_OK))
		faultvfs_copy(path, copy); /* synced under its first name */
}

/* Run fn with every moment kept. */
static void moments_record(void (*fn)(void), bool power_cut)
{
	memset(&moments, 0, sizeof(moments));
	snprintf(moments.dir, sizeof(moments.dir), "%s/moments", base);
	assert_int_equal(mkdir(moments.dir, 0700), 0);
	if (power_cut) {
		snprintf(moments.durable, sizeof(moments.durable), "%s/durable", base);
		assert_int_equal(mkdir(moments.durable, 0700), 0);
		if (!access(dir, F_OK))
			copy_all(dir, moments.durable, NULL);
		faultvfs.durable_dir = moments.durable;
	}
	faultvfs.moment = moment_keep;
	fn();
	faultvfs.moment = NULL;
	faultvfs.durable_dir = NULL;
}

/* Put moment i in place of the state directory. */
static void moment_restore(unsigned i)
{
	char from[300];

	remove_tree(dir);
	snprintf(from, sizeof(from), "%s/%u", moments.dir, i);
	assert_int_equal(rename(from, dir), 0);
}

static void all_steps(void)
{
	struct store_options o = store_defaults();
	struct store *s = NULL;

	o.vfs = "faulty";
	assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), 0);
	for (size_t i = 0; i < STEPS; i++) {
		assert_int_equal(tick(s, masks[i + 1], 30, S, &moments.now.epoch), 0);
		moments.now.step = i + 1;
	}
	store_close(s);
}

static void crash_at_moments(bool power_cut)
{
	size_t before = 0, after = 0;

	moments_record(all_steps, power_cut);
	for (unsigned i = 0; i < moments.n; i++) {
		size_t step;

		moment_restore(i);
		step = check_after_crash(&moments.acks[i]);
		before += step == moments.acks[i].step;
		after += step != moments.acks[i].step;
	}
	print_message("%u moments: %zu as acknowledged, %zu one step further\n", moments.n, before,
		      after);
	/* A power cut takes what is not synced, and nothing comes between syncing and acknowledging. */
	assert_true(before > 50 && (after || power_cut));
}

static void test_kill_at_moments(void **state)
{
	(void)state;
	crash_at_moments(false);
}

static void test_power_cut(void **state)
{
	(void)state;
	crash_at_moments(true);
}

/* ---- failures ---- */

static void assert_failure(int r)
{
	if (r != -EIO && r != -ENOSPC && r != -ENOMEM)
		fail_msg("%d (%s): %s", r, strerror(-r), err.s);
}

/*
 * Run through all steps while something fails at the armed moment. After a failed commit the store shows the state before and
 * goes on, or asks to be opened again. Returns the last step that was stored for sure.
 */
static size_t steps_with_failure(bool *ret_unsure)
{
	struct store_options o = store_defaults();
	struct store *s = NULL;
	size_t step = 0;
	int r;

	o.vfs = "faulty";
	*ret_unsure = false;
	r = store_open_with(dir, MACHINE, &o, &s, &err);
	if (r) {
		assert_failure(r);
		assert_null(s);
		return 0;
	}
	while (step < STEPS) {
		r = tick(s, masks[step + 1], 30, S, NULL);
		if (!r) {
			step++;
			continue;
		}
		assert_failure(r);
		if (store_must_reopen(s)) {
			assert_int_equal(tick(s, masks[step + 1], 30, S, NULL), -EIO);
			assert_int_equal(store_host_add(s, "k", "k", NULL, NULL, &err), -EIO);
			*ret_unsure = true;
			break;
		}
		faultvfs_arm(FAULTVFS_NONE, 0, false);
		assert_int_equal(loaded_mask(s, NULL), masks[step]);
		assert_int_equal(tick(s, masks[step + 1], 30, S, NULL), 0);
		step++;
	}
	store_close(s);
	return step;
}

static void test_fail_at_operations(void **state)
{
	static const enum faultvfs_kind kinds[] = { FAULTVFS_IOERR, FAULTVFS_FULL };
	unsigned long at, hits, runs = 0;
	bool unsure;
	size_t step, now;

	(void)state;
	for (int k = 0; k < 2; k++) {
		for (int from_then_on = 0; from_then_on < 2 - k; from_then_on++) {
			for (at = 1;; at++) {
				faultvfs_arm(kinds[k], at, from_then_on);
				step = steps_with_failure(&unsure);
				/* steps_with_failure() may have disarmed it, after a hit */
				hits = faultvfs.hits + (faultvfs.kind == FAULTVFS_NONE);
				faultvfs_arm(FAULTVFS_NONE, 0, false);
				now = check_after_crash(&(struct ack){ .step = step });
				assert_true(now == step || unsure);
				remove_tree(dir);
				runs++;
				if (!hits)
					break;
			}
			assert_int_equal(step, STEPS);
			assert_true(at > 50);
		}
	}
	print_message("%lu runs, each with another operation that failed\n", runs);
}

/* The k-th allocation inside SQLite fails. */
static struct {
	sqlite3_mem_methods real;
	unsigned long at; /* 0: none fails */
	unsigned long count;
	bool from_then_on;
	bool hit;
} memory;

static bool memory_fails(void)
{
	memory.count++;
	if (!memory.at || memory.count < memory.at ||
	    (memory.count > memory.at && !memory.from_then_on))
		return false;
	memory.hit = true;
	return true;
}

static void *memory_malloc(int n)
{
	return memory_fails() ? NULL : memory.real.xMalloc(n);
}

static void *memory_realloc(void *p, int n)
{
	return memory_fails() ? NULL : memory.real.xRealloc(p, n);
}

static void memory_config(void)
{
	sqlite3_mem_methods mine;

	if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &memory.real) != SQLITE_OK)
		abort();
	mine = memory.real;
	mine.xMalloc = memory_malloc;
	mine.xRealloc = memory_realloc;
	if (sqlite3_config(SQLITE_CONFIG_MALLOC, &mine) != SQLITE_OK)
		abort();
}

/* The at-th allocation inside SQLite fails, or all from it on. at 0: none. */
static void memory_arm(unsigned long at, bool from_then_on)
{
	memory.at = at;
	memory.from_then_on = from_then_on;
	memory.count = 0;
	memory.hit = false;
}

/* Open with the at-th allocation failing. True while there are that many. */
static bool open_without_memory(unsigned long at, bool from_then_on, uint32_t mask)
{
	struct store *s = NULL;
	int r;

	memory_arm(at, from_then_on);
	r = store_open(dir, MACHINE, &s, &err);
	memory.at = 0;
	if (r) {
		assert_int_equal(r, -ENOMEM);
		assert_null(s);
	} else {
		assert_int_equal(loaded_mask(s, NULL), mask);
		store_close(s);
	}
	return memory.count >= at;
}

/* A new store is made whole or not at all. From when it has its name, it is a matter of opening. */
static void test_no_memory_to_create(void **state)
{
	unsigned long at = 1;

	(void)state;
	while (open_without_memory(at, at % 8 == 0, 0) && access(file, F_OK))
		at++;
	assert_int_equal(access(file, F_OK), 0);
	store_close(open_ok());
	print_message("%lu allocations failed, each in its turn\n", at);
	assert_true(at > 100);
}

static void test_no_memory_to_open(void **state)
{
	size_t n, n_after;
	char *before, *after;

	(void)state;
	prepare(0x35);
	before = file_read(&n);
	for (unsigned long at = 1; open_without_memory(at, at % 8 == 0, 0x35); at++)
		;
	after = file_read(&n_after);
	assert_int_equal(n, n_after);
	assert_memory_equal(before, after, n);
	free(before);
	free(after);
}

/* The store works on after each failure. */
static void test_no_memory_to_commit(void **state)
{
	uint32_t mask = 0x0f, other = 0xf3, epoch, after, x;
	struct store *s = open_ok();
	unsigned long failed = 0;

	(void)state;
	tick_ok(s, mask);
	for (int from_then_on = 0; from_then_on < 2; from_then_on++) {
		for (unsigned long at = 1;; at++) {
			int r;

			loaded_mask(s, &epoch);
			memory_arm(at, from_then_on);
			r = tick(s, other, 30, S, NULL);
			memory.at = 0;
			assert_false(store_must_reopen(s));
			if (r) {
				assert_int_equal(r, -ENOMEM);
				failed++;
				assert_int_equal(loaded_mask(s, &after), mask);
				assert_int_equal(epoch, after);
				continue;
			}
			x = mask;
			mask = other;
			other = x;
			assert_int_equal(loaded_mask(s, NULL), mask);
			if (!memory.hit)
				break;
		}
	}
	store_close(s);
	assert_true(failed > 20);
	s = open_ok();
	assert_int_equal(loaded_mask(s, NULL), mask);
	store_close(s);
}

/* What the daemon's tests use. */
static void test_injected(void **state)
{
	struct store *s = open_ok();

	(void)state;
	tick_ok(s, 1);
	setenv("SLUICE_FAIL_AT", "store.full", 1);
	assert_int_equal(tick(s, 3, 0, S, NULL), -ENOSPC);
	assert_false(store_must_reopen(s));
	assert_int_equal(loaded_mask(s, NULL), 1);
	tick_ok(s, 3);
	setenv("SLUICE_FAIL_AT", "store.io:2", 1);
	tick_ok(s, 7);
	assert_int_equal(tick(s, 15, 0, S, NULL), -EIO);
	assert_true(store_must_reopen(s));
	assert_int_equal(tick(s, 15, 0, S, NULL), -EIO);
	assert_non_null(strstr(err.s, "opened again"));
	unsetenv("SLUICE_FAIL_AT");
	store_close(s);
	s = open_ok();
	assert_int_equal(loaded_mask(s, NULL), 7);
	store_close(s);
}

static void child_bad_fault(int fd)
{
	(void)fd;
	close(STDERR_FILENO);
	FAULT_POINT("x");
}

static void test_fault_names(void **state)
{
	static const char *const bad[] = {
		"x:", "x:0", "x:-1", "x:2x", "x: 2", "y:x", "x:99999999999999999999"
	};
	int fd;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		setenv("SLUICE_CRASH_AT", bad[i], 1);
		assert_int_equal(reap(child(child_bad_fault, &fd)), SIGABRT);
		close(fd);
	}
	setenv("SLUICE_CRASH_AT", "xx", 1);
	assert_int_equal(reap(child(child_bad_fault, &fd)), 0);
	close(fd);
	setenv("SLUICE_CRASH_AT", "x", 1);
	assert_int_equal(reap(child(child_bad_fault, &fd)), SIGKILL);
	close(fd);
}

/* ---- migrations ---- */

static const char *const later[] = {
	NULL, /* schema 1, filled in */
	"CREATE TABLE lease (id INTEGER PRIMARY KEY, epoch INTEGER REFERENCES hold_log (epoch)) "
	"STRICT;"
	"INSERT INTO lease SELECT NULL, epoch FROM hold;",
	"ALTER TABLE hold ADD COLUMN state TEXT NOT NULL DEFAULT 'held';"
	"UPDATE lease SET id = id + 100;",
	"INSERT INTO lease SELECT NULL, epoch FROM hold; INSERT INTO nowhere VALUES (1);",
};

static struct store_options with_schema(size_t n, const char *list[4])
{
	struct store_options o = store_defaults();

	memcpy(list, later, sizeof(later));
	list[0] = o.migrations[0];
	o.migrations = list;
	o.n_migrations = n;
	return o;
}

static void test_migration(void **state)
{
	const char *list[4];
	struct store_options o = with_schema(3, list);
	struct store *s = NULL;
	uint32_t before, after;

	(void)state;
	s = open_ok();
	tick_ok(s, 0x35);
	loaded_mask(s, &before);
	store_close(s);

	assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), 0);
	assert_int_equal(loaded_mask(s, &after), 0x35);
	assert_int_equal(before, after);
	tick_ok(s, 0x31);
	store_close(s);
	assert_int_equal(sql("PRAGMA user_version"), 3);
	assert_int_equal(sql("SELECT count(*) FROM lease WHERE id > 100"), 4);
	assert_int_equal(sql("SELECT count(*) FROM hold WHERE state = 'held'"), 3);
	assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), 0);
	store_close(s);
	/* The way back is closed. */
	untouched_when_refused(MACHINE, EPROTONOSUPPORT, "schema 3", "up to 1");

	/* A new store goes the same way. */
	remove_tree(dir);
	assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), 0);
	tick_ok(s, 3);
	store_close(s);
	assert_int_equal(sql("PRAGMA user_version"), 3);
	assert_int_equal(sql("SELECT count(*) FROM hold WHERE state = 'held'"), 2);
}

static void test_migration_fails(void **state)
{
	const char *list[4];
	struct store_options o = with_schema(4, list);
	struct store *s = NULL;
	char *before, *after;
	size_t n, n_after;

	(void)state;
	prepare(0x35);
	before = file_read(&n);
	assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), -EUCLEAN);
	assert_non_null(strstr(err.s, "from schema 3 to 4"));
	assert_non_null(strstr(err.s, "nowhere"));
	after = file_read(&n_after);
	assert_int_equal(n, n_after);
	assert_memory_equal(before, after, n);
	free(before);
	free(after);
	/* One that would break a foreign key. */
	list[1] = "DELETE FROM hold_log";
	o.n_migrations = 2;
	assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), -EUCLEAN);
	s = open_ok();
	assert_int_equal(loaded_mask(s, NULL), 0x35);
	store_close(s);
	/* Nor is a new store half made. */
	remove_tree(dir);
	o = with_schema(4, list);
	assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), -EUCLEAN);
	assert_int_not_equal(access(file, F_OK), 0);
}

static void migrate_all(void)
{
	const char *list[4];
	struct store_options o = with_schema(3, list);
	struct store *s = NULL;

	o.vfs = "faulty";
	assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), 0);
	store_close(s);
}

static void migration_crash(bool power_cut)
{
	const char *list[4];
	struct store_options o = with_schema(3, list);
	unsigned old = 0, new = 0;
	struct store *s;

	prepare(0x35);
	moments_record(migrate_all, power_cut);
	for (unsigned i = 0; i < moments.n; i++) {
		moment_restore(i);
		/* All of it or nothing; either goes on. */
		if (sql("PRAGMA user_version") == 1) {
			old++;
			store_close(open_ok());
		} else {
			new ++;
			assert_int_equal(sql("PRAGMA user_version"), 3);
			assert_int_equal(sql("SELECT count(*) FROM lease WHERE id > 100"), 4);
		}
		assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), 0);
		assert_int_equal(loaded_mask(s, NULL), 0x35);
		store_close(s);
		assert_int_equal(sql("SELECT count(*) FROM lease WHERE id > 100"), 4);
	}
	assert_true(old > 10 && new > 3);
}

static void test_migration_killed(void **state)
{
	(void)state;
	migration_crash(false);
}

static void test_migration_power_cut(void **state)
{
	(void)state;
	migration_crash(true);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_create),
		TEST(test_parent_missing),
		TEST(test_settings),
		TEST(test_round_trip),
		TEST(test_log),
		TEST(test_stale),
		TEST(test_host),
		TEST(test_reboot),
		TEST(test_lock),
		TEST(test_busy),
		TEST(test_not_a_store),
		TEST(test_newer_schema),
		TEST(test_newer_with_log),
		TEST(test_other_machine),
		TEST(test_read_only),
		TEST(test_read_only_mount),
		TEST(test_contradictions),
		TEST(test_bad_rows),
		TEST(test_flipped_bytes),
		TEST(test_cut_short),
		TEST(test_full_disk),
		TEST(test_file_limit),
		TEST(test_kill_at_points),
		TEST(test_kill_at_moments),
		TEST(test_power_cut),
		TEST(test_fail_at_operations),
		TEST(test_no_memory_to_create),
		TEST(test_no_memory_to_open),
		TEST(test_no_memory_to_commit),
		TEST(test_injected),
		TEST(test_fault_names),
		TEST(test_migration),
		TEST(test_migration_fails),
		TEST(test_migration_killed),
		TEST(test_migration_power_cut),
	};

	memory_config();
	faultvfs_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
