/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests of the store share. The store is compiled in with its crash points: this file includes its sources, so that
 * the archive's build of them, which has no points, stays out.
 */
#ifndef STORE_TEST_H
#define STORE_TEST_H

#ifndef SLUICE_FAULT
#define SLUICE_FAULT
#endif
#include "../../src/fault.c"
#include "../../src/store.c"
#include "../../src/store_collision.c"
#include "../../src/store_lease.c"
#include "../../src/store_rows.c"
#include "../../src/store_schema.c"
#include "../../src/store_thread.c"
#include "../../src/store_who.c"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/wait.h>

#include <cmocka.h>

#define MACHINE "edge1"
#define S       1000000000ULL

static char dir[256];  /* the state directory, not there when a test begins */
static char base[200]; /* its parent, ours alone */
static char file[300]; /* the database */
static struct errtext err;

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static inline void remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline int setup(void **state)
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

static inline int teardown(void **state)
{
	(void)state;
	unsetenv("SLUICE_CRASH_AT");
	unsetenv("SLUICE_FAIL_AT");
	remove_tree(base);
	return 0;
}

static inline struct store *open_ok(void)
{
	struct store *s = NULL;
	int r = store_open(dir, MACHINE, &s, &err);

	if (r)
		fail_msg("store_open: %s: %s", strerror(-r), err.s);
	return s;
}

/* Open, which must fail with e and a text that has all of the words; ret must stay as it was. */
static inline void open_refused(const char *machine, int e, const char *word1, const char *word2)
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

static inline int host_add(struct store *s, const char *kind, const char *key, const char *was,
			   const char *now, struct errtext *e)
{
	const struct store_host h = { (char *)kind, (char *)key, (char *)was, (char *)now };

	return store_host_add(s, &h, 1, e);
}

/* SQL behind the store's back. The first column of the first row, -1 without one. */
static inline int64_t sql(const char *text)
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

static inline char *file_read(size_t *ret_n)
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

static inline void file_write(const char *p, size_t n)
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

static inline void conf_init(struct conf *c, uint32_t mask, uint32_t ttl_s)
{
	*c = (struct conf){ 0 };
	c->config.pools = c->pools;
	c->config.n_pools = 2;
	c->config.fleet.ttl_s = ttl_s;
	strcpy(c->pools[0].name, "low");
	strcpy(c->pools[1].name, "high-with-a-long-name-of-31-cha"); /* CONFIG_NAME_MAX */
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

static inline uint32_t mask_of(const struct hold_table *t)
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
 * What a tick of the daemon does: load, decide, store, in one batch with the changes of leases in another one. 0 or what failed;
 * *ret_epoch is the highest epoch that was given out. All within one store, without asserts, so that children can run it too.
 */
static inline int tick_batch(struct store *s, uint32_t mask, uint32_t ttl_s, uint64_t now_ns,
			     const struct store_batch *leases, uint32_t *ret_epoch)
{
	struct store_batch b = *leases;
	struct hold_table t = { 0 };
	struct hold_changes ch = { 0 };
	uint32_t epoch;
	struct conf c;
	int r;

	b.now_ms = (int64_t)(now_ns / 1000000);
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

static inline int tick(struct store *s, uint32_t mask, uint32_t ttl_s, uint64_t now_ns,
		       uint32_t *ret_epoch)
{
	struct store_batch b = { 0 };

	return tick_batch(s, mask, ttl_s, now_ns, &b, ret_epoch);
}

static inline void tick_ok(struct store *s, uint32_t mask)
{
	int r = tick(s, mask, 0, S, NULL);

	if (r)
		fail_msg("tick: %s: %s", strerror(-r), err.s);
}

static inline uint32_t loaded_mask(struct store *s, uint32_t *ret_epoch)
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
static inline void prepare(uint32_t mask)
{
	struct store *s = open_ok();

	tick_ok(s, mask);
	store_close(s);
}

static inline unsigned long rnd(unsigned long below)
{
	static uint64_t seed = 0x2545f4914f6cdd1d;

	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned long)(seed >> 11) % below;
}

static inline pid_t child(void (*fn)(int fd), int *ret_fd)
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
static inline int reap(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status) ? -1 : 0;
}

/* For children: exit with a word. */
#define CHECK(cond)                                                                   \
	do {                                                                          \
		if (!(cond)) {                                                        \
			fprintf(stderr, "line %d: %s; %s\n", __LINE__, #cond, err.s); \
			_exit(1);                                                     \
		}                                                                     \
	} while (0)
static inline void untouched_when_refused(const char *machine, int e, const char *word1,
					  const char *word2)
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
/* Schemas to come: the first ones are as they are. */
#define SCHEMA 3 /* the newest */
static const char *const later[] = {
	NULL,
	NULL,
	NULL,
	"CREATE TABLE extra (id INTEGER PRIMARY KEY, epoch INTEGER REFERENCES hold_log (epoch)) "
	"STRICT;"
	"INSERT INTO extra SELECT NULL, epoch FROM hold;",
	"ALTER TABLE hold ADD COLUMN state TEXT NOT NULL DEFAULT 'held';"
	"UPDATE extra SET id = id + 100;",
	"INSERT INTO extra SELECT NULL, epoch FROM hold; INSERT INTO nowhere VALUES (1);",
};
#define LATER (sizeof(later) / sizeof(*later))

/* The first n of them. */
static inline struct store_options with_schema(size_t n, const char *list[LATER])
{
	struct store_options o = store_defaults();

	memcpy(list, later, sizeof(later));
	memcpy(list, o.migrations, SCHEMA * sizeof(*list));
	o.migrations = list;
	o.n_migrations = n;
	return o;
}

/* An active lease of one UDP port or some, as a process would have it. */
static inline void lease_fill(struct lease *l, uint64_t id, int first, int last)
{
	memset(l, 0, sizeof(*l)); /* the padding too: leases are compared as bytes */
	l->id = id;
	strcpy(l->pool, "low");
	l->ports.addr = (struct addr){ { [10] = 0xff, 0xff, 203, 0, 113, 7 } };
	l->ports.first = (uint16_t)first;
	l->ports.last = (uint16_t)last;
	l->protos = LEASE_UDP;
	l->kind = SLUICE_LEASE_SHARED;
	l->bound = LEASE_BOUND_PROCESS;
	l->holder.uid = 1000;
	l->holder.pid = 4242;
	l->holder.started = 987654321;
	strcpy(l->holder.comm, "crawler");
	strcpy(l->holder.cgroup, "/system.slice/crawler.service");
	strcpy(l->name, "fetch");
	strcpy(l->labels, "job=7 team=web");
	l->created_ms = 1764000000000;
	l->expires_ns = SLUICE_NEVER;
}

static inline void lease_end(struct lease *l, enum lease_why why, int64_t ended_ms)
{
	l->state = LEASE_COOLING;
	l->why = why;
	l->ended_ms = ended_ms;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
