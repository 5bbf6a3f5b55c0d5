/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of stored leases share: changes, made by hand. */
#ifndef STORE_LEASE_TEST_H
#define STORE_LEASE_TEST_H

#include "clock.h"
#include "store_test.h"

static struct lease_change changes[64];
static struct lease leases[64];
static size_t n_changes;

static inline void change(enum lease_verb verb, struct lease *l)
{
	changes[n_changes++] = (struct lease_change){ .verb = verb, .lease = l };
}

static inline int commit(struct store *s, uint64_t next)
{
	struct store_batch b = {
		.now_ms = 1, .leases = changes, .n_leases = n_changes, .next_lease = next
	};

	n_changes = 0;
	err.s[0] = '\0';
	return store_commit(s, &b, &err);
}

static inline void commit_ok(struct store *s, uint64_t next)
{
	int r = commit(s, next);

	if (r)
		fail_msg("store_commit: %s: %s", strerror(-r), err.s);
}

static inline void commit_stale(struct store *s, uint64_t next, const char *word)
{
	assert_int_equal(commit(s, next), -ESTALE);
	if (!strstr(err.s, word))
		fail_msg("\"%s\" lacks \"%s\"", err.s, word);
	assert_false(store_must_reopen(s));
}

/* What store_load_leases() gives. */
static struct lease loaded[300];
static size_t n_loaded;

static inline int keep(const struct lease *l, void *arg)
{
	(void)arg;
	assert_true(n_loaded < 300);
	loaded[n_loaded++] = *l;
	return 0;
}

static inline uint64_t load(struct store *s, int64_t since_ms)
{
	uint64_t next = 0;
	int r;

	n_loaded = 0;
	r = store_load_leases(s, since_ms, keep, NULL, &next, &err);
	if (r)
		fail_msg("store_load_leases: %s: %s", strerror(-r), err.s);
	return next;
}

#endif
