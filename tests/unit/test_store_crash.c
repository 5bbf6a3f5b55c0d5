/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The store in bad moments: killed or without power at every stage, and each single operation on a file or allocation failing.
 * Whatever happens, afterwards there is the state before a commit or the one after it, what was acknowledged stays, and no
 * epoch is given out twice.
 */
#include "store_test.h"

#include <dirent.h>

#include "faultvfs.h"

/* ---- crashes ---- */

/* The states that a run goes through: step i leads from masks[i] to masks[i + 1]. */
static const uint32_t masks[] = { 0, 0x0000000f, 0x80000035, 0x0000003a, 0, 0x00ff00ff };
#define STEPS (sizeof(masks) / sizeof(*masks) - 1)

/*
 * The leases of step k (from 1): it grants ports 10 k and 10 k + 1, and 10 k + 2 only to release it at once; it renews 10 (k - 1) and
 * releases 10 (k - 1) + 1. All in one batch with the step's holds.
 */
#define LEASES_MAX 1200

static struct lease_list {
	struct lease l[LEASES_MAX];
	size_t n;
	uint64_t next;
} have, step_leases;

static int have_add(const struct lease *l, void *arg)
{
	(void)arg;
	if (have.n == LEASES_MAX)
		return -ERANGE;
	have.l[have.n++] = *l;
	return 0;
}

static int have_load(struct store *s)
{
	have.n = 0;
	return store_load_leases(s, 0, have_add, NULL, &have.next, &err);
}

static struct lease *have_port(size_t port)
{
	for (size_t i = 0; i < have.n; i++)
		if (have.l[i].ports.first == port)
			return &have.l[i];
	return NULL;
}

static int step_store(struct store *s, size_t k, uint32_t mask, uint32_t *ret_epoch)
{
	struct lease_change ch[6];
	struct store_batch b = { .leases = ch };
	int r = have_load(s);

	if (r)
		return r;
	for (size_t i = 0; i < 3; i++) {
		struct lease *l = &step_leases.l[i];

		lease_fill(l, have.next++, (int)(10 * k + i), (int)(10 * k + i));
		ch[b.n_leases++] = (struct lease_change){ .verb = LEASE_GRANTED, .lease = l };
	}
	lease_end(&step_leases.l[2], LEASE_WHY_RELEASED, (int64_t)k);
	ch[b.n_leases++] =
		(struct lease_change){ .verb = LEASE_RELEASED, .lease = &step_leases.l[2] };
	if (k > 1) {
		struct lease *renew = have_port(10 * (k - 1)), *end = have_port(10 * (k - 1) + 1);

		if (!renew || !end)
			return -ENOENT;
		renew->expires_ns = 1000 * k;
		lease_end(end, LEASE_WHY_EXPIRED, (int64_t)k);
		ch[b.n_leases++] = (struct lease_change){ .verb = LEASE_RENEWED, .lease = renew };
		ch[b.n_leases++] = (struct lease_change){ .verb = LEASE_RELEASED, .lease = end };
	}
	b.next_lease = have.next;
	return tick_batch(s, mask, 30, S, &b, ret_epoch);
}

/* Are the leases exactly those after step k? */
static void check_step_leases(struct store *s, size_t k)
{
	size_t n = 0;

	assert_int_equal(have_load(s), 0);
	for (size_t i = 1; i <= k; i++) {
		for (size_t kind = 0; kind < 3; kind++, n++) {
			const struct lease *l = have_port(10 * i + kind);

			assert_non_null(l);
			assert_int_equal(l->id, have.next - 3 * (k - i + 1) + kind);
			assert_int_equal(l->expires_ns,
					 kind == 0 && i < k ? 1000 * (i + 1) : SLUICE_NEVER);
			assert_int_equal(l->state, kind == 0 || (kind == 1 && i == k)
							   ? LEASE_ACTIVE
							   : LEASE_COOLING);
			assert_int_equal(l->ended_ms, l->state == LEASE_ACTIVE ? 0
						      : kind == 1              ? i + 1
									       : i);
		}
	}
	assert_int_equal(have.n, n);
}

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
		if (step_store(s, i + 1, masks[i + 1], &a.epoch))
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
	check_step_leases(s, step);
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
	uint64_t hash; /* of the last one */
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

/* FNV-1a, over names and contents. */
static uint64_t hash_bytes(uint64_t h, const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		h = (h ^ ((const unsigned char *)p)[i]) * 0x100000001b3;
	return h;
}

static uint64_t hash_dir(uint64_t h, const char *path)
{
	static char buf[1 << 20];
	DIR *d = opendir(path);
	struct dirent *e;

	assert_non_null(d);
	while ((e = readdir(d))) {
		int fd = openat(dirfd(d), e->d_name, O_RDONLY);
		ssize_t n = e->d_name[0] == '.' ? 0 : read(fd, buf, sizeof(buf));

		close(fd);
		assert_true(n >= 0 && (size_t)n < sizeof(buf));
		h = hash_bytes(h, e->d_name, strlen(e->d_name) + 1);
		h = hash_bytes(h, buf, (size_t)n);
	}
	closedir(d);
	return h;
}

/* Copy what is on the disk, unless it is as it was the last time. */
static void moment_keep(void)
{
	bool named = !access(file, F_OK), cut = moments.durable[0];
	char to[300], path[300], copy[320];
	uint64_t h = 0xcbf29ce484222325;

	h = hash_bytes(h, &moments.now, sizeof(moments.now));
	h = hash_bytes(h, &named, sizeof(named));
	h = hash_dir(h, cut ? moments.durable : dir);
	if (h == moments.hash)
		return;
	moments.hash = h;
	assert_true(moments.n < MOMENTS_MAX);
	snprintf(to, sizeof(to), "%s/%u", moments.dir, moments.n);
	assert_int_equal(mkdir(to, 0700), 0);
	moments.acks[moments.n++] = moments.now;
	if (!cut) {
		copy_all(dir, to, NULL);
		return;
	}
	copy_all(moments.durable, to, "sluice.db.new");
	snprintf(path, sizeof(path), "%s/sluice.db.new", moments.durable);
	snprintf(copy, sizeof(copy), "%s/sluice.db", to);
	if (named && access(copy, F_OK))
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
		assert_int_equal(step_store(s, i + 1, masks[i + 1], &moments.now.epoch), 0);
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
	assert_true(before > (power_cut ? 10 : 50) && (after || power_cut));
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
		r = step_store(s, step + 1, masks[step + 1], NULL);
		if (!r) {
			step++;
			continue;
		}
		assert_failure(r);
		if (store_must_reopen(s)) {
			assert_int_equal(tick(s, masks[step + 1], 30, S, NULL), -EIO);
			assert_int_equal(have_load(s), -EIO);
			assert_int_equal(store_lease_trim(s, 1, &err), -EIO);
			assert_int_equal(host_add(s, "k", "k", NULL, NULL, &err), -EIO);
			*ret_unsure = true;
			break;
		}
		faultvfs_arm(FAULTVFS_NONE, 0, false);
		assert_int_equal(loaded_mask(s, NULL), masks[step]);
		check_step_leases(s, step);
		assert_int_equal(step_store(s, step + 1, masks[step + 1], NULL), 0);
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

/* Open with the at-th allocation failing. True while there are that many; *ret_r is what opening gave. */
static bool open_without_memory(unsigned long at, bool from_then_on, uint32_t mask, int *ret_r)
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
		/* Some failures only make it slower. */
		assert_int_equal(loaded_mask(s, NULL), mask);
		store_close(s);
	}
	*ret_r = r;
	return memory.hit;
}

/* Every allocation at first, then fewer and fewer: most of them are made while SQL is compiled. */
static unsigned long memory_stride(unsigned long at)
{
	return 1 + at / 300;
}

/* A new store is made whole or not at all. */
static void test_no_memory_to_create(void **state)
{
	unsigned long at = 1, failed = 0;
	int r;

	(void)state;
	for (; open_without_memory(at, at % 8 == 0, 0, &r); at += memory_stride(at)) {
		if (access(file, F_OK)) {
			failed++;
			assert_int_equal(r, -ENOMEM);
			continue;
		}
		store_close(open_ok());
		if (r)
			break; /* it was whole and had its name: from here on it is a matter of opening */
		unlink(file);
	}
	assert_true(failed > 500);
}

static void test_no_memory_to_open(void **state)
{
	unsigned long at, failed = 0;
	size_t n, n_after;
	char *before, *after;
	int r;

	(void)state;
	prepare(0x35);
	before = file_read(&n);
	for (at = 1; open_without_memory(at, at % 8 == 0, 0x35, &r); at += memory_stride(at))
		failed += r != 0;
	assert_true(failed > 500);
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
	size_t step = 1;

	(void)state;
	assert_int_equal(step_store(s, step, mask, NULL), 0);
	for (int from_then_on = 0; from_then_on < 2; from_then_on++) {
		for (unsigned long at = 1;; at++) {
			int r;

			loaded_mask(s, &epoch);
			memory_arm(at, from_then_on);
			r = step_store(s, step + 1, other, NULL);
			memory.at = 0;
			assert_false(store_must_reopen(s));
			if (r) {
				assert_int_equal(r, -ENOMEM);
				failed++;
				assert_int_equal(loaded_mask(s, &after), mask);
				assert_int_equal(epoch, after);
				check_step_leases(s, step);
				continue;
			}
			check_step_leases(s, ++step);
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
	check_step_leases(s, step);
	store_close(s);
}

static int count_record(const struct store_record *r, void *arg)
{
	(void)r;
	++*(int *)arg;
	return 0;
}

/* Questions: answered right, or not at all; and the next one is. */
static void test_no_memory_to_read(void **state)
{
	const struct addr a = { { [10] = 0xff, 0xff, 203, 0, 113, 7 } };
	struct store *s = open_ok();
	unsigned long failed = 0;
	bool hit = true;

	(void)state;
	for (size_t k = 1; k <= 3; k++)
		assert_int_equal(step_store(s, k, 1, NULL), 0);
	for (unsigned long at = 1; hit; at++) {
		int r, n = 0;

		memory_arm(at, at % 4 == 0);
		r = have_load(s);
		if (!r)
			r = store_who(s, &a, 12, 0, 0, 9, count_record, &n, &err);
		if (!r)
			r = store_lease_trim(s, 1, &err); /* nothing is as old */
		hit = memory.hit;
		memory.at = 0;
		assert_false(store_must_reopen(s));
		if (r) {
			assert_int_equal(r, -ENOMEM);
			failed++;
			check_step_leases(s, 3);
			n = 0;
			assert_int_equal(store_who(s, &a, 12, 0, 0, 9, count_record, &n, &err), 0);
		}
		assert_int_equal(n, 2); /* the hold, and a lease */
	}
	assert_true(failed > 10);
	/* What was counted meanwhile is right. */
	assert_int_equal(s->log_n, 5);
	assert_int_equal(store_lease_trim(s, 3, &err), 0);
	assert_int_equal(have_load(s), 0);
	for (size_t i = 0; i < have.n; i++)
		assert_true(have.l[i].state == LEASE_ACTIVE || have.l[i].ended_ms >= 3);
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

/* ---- a crash while an older schema is led up ---- */

static void migrate_all(void)
{
	const char *list[LATER];
	struct store_options o = with_schema(SCHEMA + 2, list);
	struct store *s = NULL;

	o.vfs = "faulty";
	assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), 0);
	moments.now.step = 1;
	store_close(s);
}

static void migration_crash(bool power_cut)
{
	const char *list[LATER];
	struct store_options o = with_schema(SCHEMA + 2, list);
	unsigned old = 0, new = 0;
	struct store *s;

	prepare(0x35);
	moments_record(migrate_all, power_cut);
	for (unsigned i = 0; i < moments.n; i++) {
		moment_restore(i);
		/* All of it or nothing; either goes on. */
		if (sql("PRAGMA user_version") == SCHEMA) {
			old++;
			assert_int_equal(moments.acks[i].step, 0);
			store_close(open_ok());
		} else {
			new ++;
			assert_int_equal(sql("PRAGMA user_version"), SCHEMA + 2);
			assert_int_equal(sql("SELECT count(*) FROM extra WHERE id > 100"), 4);
		}
		assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), 0);
		assert_int_equal(loaded_mask(s, NULL), 0x35);
		store_close(s);
		assert_int_equal(sql("SELECT count(*) FROM extra WHERE id > 100"), 4);
	}
	assert_true(old && new);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_kill_at_points),
		TEST(test_kill_at_moments),
		TEST(test_power_cut),
		TEST(test_fail_at_operations),
		TEST(test_no_memory_to_create),
		TEST(test_no_memory_to_open),
		TEST(test_no_memory_to_commit),
		TEST(test_no_memory_to_read),
		TEST(test_injected),
		TEST(test_fault_names),
		TEST(test_migration_killed),
		TEST(test_migration_power_cut),
	};

	memory_config();
	faultvfs_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
