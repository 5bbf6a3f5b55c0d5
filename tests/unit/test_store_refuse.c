/* SPDX-License-Identifier: BSD-2-Clause */
/* What the store refuses and leaves alone: foreign, damaged and newer files, places that are read-only or full. */
#include "store_test.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

#define CHILD_SKIP 77 /* exit code of a child that may not mount */

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
	untouched_when_refused(MACHINE, EPROTONOSUPPORT, "schema 99", "up to 3");
	sql("PRAGMA user_version = 0");
	untouched_when_refused(MACHINE, EUCLEAN, "damaged", "schema 0");
	sql("PRAGMA user_version = -1");
	untouched_when_refused(MACHINE, EUCLEAN, "damaged", "schema -1");
	sql("PRAGMA user_version = 3");
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
	char name[sizeof(file)], *log;
	struct store *s;
	struct stat st;
	size_t n;

	(void)state;
	/* A store with an unfinished log, as kill -9 leaves it. */
	s = open_ok();
	tick_ok(s, 3);
	strcpy(name, file);
	strcat(file, "-wal");
	log = file_read(&n);
	store_close(s);
	file_write(log, n);
	free(log);
	strcpy(file, name);
	assert_true(n > 0);
	/* A refused store keeps its log. */
	untouched_when_refused("edge2", EREMOTE, "edge1", "edge2");
	strcat(name, "-wal");
	assert_int_equal(stat(name, &st), 0);
	assert_int_equal(st.st_size, n);
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
	for (size_t at = 0; at < n; at += at < 120 ? 1 : 1 + rnd(119)) {
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

/* A page of a table that opening does not read otherwise. */
static void test_damaged_page(void **state)
{
	struct store *s = open_ok();
	int64_t page;
	size_t n;
	char *p;

	(void)state;
	assert_int_equal(host_add(s, "sysctl", "a", "0", "1", &err), 0);
	store_close(s);
	page = sql("SELECT rootpage FROM sqlite_schema WHERE name = 'host_change'");
	p = file_read(&n);
	memset(p + (page - 1) * 4096 + 8, 0xff, 8);
	file_write(p, n);
	free(p);
	untouched_when_refused(MACHINE, EUCLEAN, "damaged", file);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_not_a_store),    TEST(test_newer_schema), TEST(test_other_machine),
		TEST(test_newer_with_log), TEST(test_read_only),    TEST(test_read_only_mount),
		TEST(test_contradictions), TEST(test_bad_rows),     TEST(test_flipped_bytes),
		TEST(test_damaged_page),   TEST(test_cut_short),    TEST(test_full_disk),
		TEST(test_file_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
