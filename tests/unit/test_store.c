/* SPDX-License-Identifier: BSD-2-Clause */
/* The store in good days: what goes in comes out, one process at a time, older schemas are led up. */
#include "store_test.h"

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
	assert_int_equal(sql("PRAGMA user_version"), SCHEMA);
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
	assert_int_equal(store_db_text(s->db, "PRAGMA journal_mode", text, sizeof(text)),
			 SQLITE_OK);
	assert_string_equal(text, "wal");
	assert_int_equal(store_db_int(s->db, "PRAGMA synchronous", &v), SQLITE_OK);
	assert_int_equal(v, 2);
	assert_int_equal(store_db_int(s->db, "PRAGMA foreign_keys", &v), SQLITE_OK);
	assert_int_equal(v, 1);
	assert_int_equal(store_db_int(s->db, "PRAGMA busy_timeout", &v), SQLITE_OK);
	assert_int_equal(v, STORE_BUSY_MS);
	/* A hold without its record can't be. */
	assert_int_equal(
		store_db_run(s->db, "INSERT INTO hold VALUES (zeroblob(16), 0, 1023, 'p', 1, NULL)",
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
	for (int i = 0; i < 40; i++) {
		assert_int_equal(tick(s, i % 2 ? 1 : 7, 0, (10 + (uint64_t)i) * S, &last), 0);
		if (i == 9) /* as many as may be */
			assert_int_equal(sql("SELECT count(*) FROM hold_log WHERE why = 'removed'"),
					 10);
	}
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
	assert_int_equal(host_add(s, "sysctl", "a", "0", "1", &err), 0);
	assert_int_equal(host_add(s, "route", "a", NULL, "local 203.0.113.7", &err), 0);
	assert_int_equal(host_add(s, "sysctl", "b", "", NULL, &err), 0);
	/* The value that was found first is the one to go back to. */
	assert_int_equal(host_add(s, "sysctl", "a", "1", "2", &err), 0);
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
	assert_int_equal(host_add(s, "k", "k", NULL, NULL, &err), -EBUSY);
	assert_false(store_must_reopen(s));
	assert_int_equal(loaded_mask(s, NULL), 3);
	sqlite3_close(db);
	tick_ok(s, 7);
	store_close(s);
}

/* ---- migrations ---- */

static void test_migration(void **state)
{
	const char *list[LATER];
	struct store_options o = with_schema(SCHEMA + 2, list);
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
	assert_int_equal(sql("PRAGMA user_version"), SCHEMA + 2);
	assert_int_equal(sql("SELECT count(*) FROM extra WHERE id > 100"), 4);
	assert_int_equal(sql("SELECT count(*) FROM hold WHERE state = 'held'"), 3);
	assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), 0);
	store_close(s);
	/* The way back is closed. */
	untouched_when_refused(MACHINE, EPROTONOSUPPORT, "schema 5", "up to 3");

	/* A new store goes the same way. */
	remove_tree(dir);
	assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), 0);
	tick_ok(s, 3);
	store_close(s);
	assert_int_equal(sql("PRAGMA user_version"), SCHEMA + 2);
	assert_int_equal(sql("SELECT count(*) FROM hold WHERE state = 'held'"), 2);
}

static void test_migration_fails(void **state)
{
	const char *list[LATER];
	struct store_options o = with_schema(SCHEMA + 3, list);
	struct store *s = NULL;
	char *before, *after;
	size_t n, n_after;

	(void)state;
	prepare(0x35);
	before = file_read(&n);
	assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), -EUCLEAN);
	assert_non_null(strstr(err.s, "from schema 5 to 6"));
	assert_non_null(strstr(err.s, "nowhere"));
	after = file_read(&n_after);
	assert_int_equal(n, n_after);
	assert_memory_equal(before, after, n);
	free(before);
	free(after);
	/* One that would break a foreign key. */
	list[SCHEMA] = "DELETE FROM hold_log";
	o.n_migrations = SCHEMA + 1;
	assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), -EUCLEAN);
	s = open_ok();
	assert_int_equal(loaded_mask(s, NULL), 0x35);
	store_close(s);
	/* Nor is a new store half made. */
	remove_tree(dir);
	o = with_schema(SCHEMA + 3, list);
	assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), -EUCLEAN);
	assert_int_not_equal(access(file, F_OK), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_create),    TEST(test_parent_missing),
		TEST(test_settings),  TEST(test_round_trip),
		TEST(test_log),       TEST(test_stale),
		TEST(test_host),      TEST(test_reboot),
		TEST(test_lock),      TEST(test_busy),
		TEST(test_migration), TEST(test_migration_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
