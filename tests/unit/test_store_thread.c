/* SPDX-License-Identifier: BSD-2-Clause */
/* The store: commits that go on while the caller does. */
#include "store_lease_test.h"

#include <poll.h>
#include <sched.h>

static struct store_batch batch;

static void begin(struct store *s, uint64_t next)
{
	batch = (struct store_batch){
		.now_ms = 1, .leases = changes, .n_leases = n_changes, .next_lease = next
	};
	store_commit_begin(s, &batch);
}

static bool readable(struct store *s, int timeout_ms)
{
	struct pollfd p = { .fd = store_commit_fd(s), .events = POLLIN };

	return poll(&p, 1, timeout_ms) == 1;
}

/* One after the other; each says so on the descriptor, once. */
static void test_rounds(void **state)
{
	struct store *s = open_ok();
	uint64_t next = load(s, 0);

	(void)state;
	assert_true(store_commit_done(s));
	assert_false(readable(s, 0));
	for (int i = 0; i < 50; i++) {
		n_changes = 0;
		lease_fill(&leases[i], next++, 1000 + i, 1000 + i);
		change(LEASE_GRANTED, &leases[i]);
		begin(s, next);
		assert_true(readable(s, 10000));
		assert_true(store_commit_done(s));
		assert_int_equal(store_commit_end(s, &err), 0);
		assert_false(readable(s, 0));
	}
	store_close(s);
	s = open_ok();
	assert_int_equal(load(s, 0), next);
	assert_int_equal(n_loaded, 50);
	store_close(s);
}

/* Whoever else uses the store meanwhile finds the whole of it. */
static void test_waits(void **state)
{
	struct store *s = open_ok();
	uint64_t next = load(s, 0), was = next;

	(void)state;
	for (int i = 0; i < 50; i++) {
		n_changes = 0;
		lease_fill(&leases[0], next++, 1000 + i, 1000 + i);
		change(LEASE_GRANTED, &leases[0]);
		begin(s, next);
		switch (i % 3) {
		case 0:
			assert_int_equal(load(s, 0), next);
			assert_int_equal(n_loaded, next - was);
			break;
		case 1:
			assert_int_equal(host_add(s, "sysctl", "key", "0", "1", &err), 0);
			break;
		case 2:
			assert_int_equal(store_lease_trim(s, 0, &err), 0);
			break;
		}
		assert_true(store_commit_done(s));
		assert_int_equal(store_commit_end(s, &err), 0);
	}
	store_close(s);
}

/* What it came to is said at the end, and not before; afterwards all is as after store_commit(). */
static void test_failures(void **state)
{
	struct store *s = open_ok();
	uint64_t next = load(s, 0);

	(void)state;
	n_changes = 0;
	lease_fill(&leases[0], next, 1000, 1000);
	change(LEASE_GRANTED, &leases[0]);
	setenv("SLUICE_FAIL_AT", "store.full", 1);
	begin(s, next + 1);
	assert_int_equal(store_commit_end(s, &err), -ENOSPC);
	assert_non_null(strstr(err.s, "commit"));
	assert_false(store_must_reopen(s));
	assert_int_equal(load(s, 0), next);
	assert_int_equal(n_loaded, 0);
	unsetenv("SLUICE_FAIL_AT");
	begin(s, next + 1);
	assert_int_equal(store_commit_end(s, &err), 0);
	begin(s, next + 2);
	assert_int_equal(store_commit_end(s, &err), -ESTALE);
	assert_int_equal(load(s, 0), next + 1);
	assert_int_equal(n_loaded, 1);
	n_changes = 0;
	lease_end(&leases[0], LEASE_WHY_RELEASED, 1000);
	change(LEASE_RELEASED, &leases[0]);
	setenv("SLUICE_FAIL_AT", "store.io", 1);
	begin(s, 0);
	while (!store_commit_done(s))
		sched_yield();
	assert_true(store_must_reopen(s));
	assert_int_equal(store_commit_end(s, &err), -EIO);
	unsetenv("SLUICE_FAIL_AT");
	begin(s, 0);
	assert_int_equal(store_commit_end(s, &err), -EIO);
	assert_non_null(strstr(err.s, "opened again"));
	store_close(s);
}

/* Closing lets it come to its end. */
static void test_close(void **state)
{
	struct store *s = open_ok();
	uint64_t next = load(s, 0);

	(void)state;
	for (int i = 0; i < 20; i++) {
		n_changes = 0;
		lease_fill(&leases[0], next++, 1000 + i, 1000 + i);
		change(LEASE_GRANTED, &leases[0]);
		begin(s, next);
		store_close(s);
		s = open_ok();
		assert_int_equal(load(s, 0), next);
		assert_int_equal(n_loaded, i + 1);
	}
	store_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_rounds),
		TEST(test_waits),
		TEST(test_failures),
		TEST(test_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
