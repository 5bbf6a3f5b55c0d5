/* SPDX-License-Identifier: BSD-2-Clause */
/* The audit: somebody changes the store behind a running daemon's back. Seen twice, it stays; seen three times, it is put right and told. */
#include "../../src/store_audit.c"
#include "audit.h"
#include "store_test.h"

static struct lease_table *table;
static struct store *st;
static struct audit audit;
static uint64_t now_ns, next_id;
static unsigned n_repaired, n_failed;
static char said[ERRTEXT_LEN]; /* the last one */

static int begin(void **state)
{
	const struct lease_limits limits = { .leases = 10000, .cool_down_s = 60 };
	const struct lease_slice slice = {
		.pool = "low",
		.ports = { { { [10] = 0xff, 0xff, 203, 0, 113, 7 } }, 1024, 1024 + 8191 },
		.live = true,
	};

	if (setup(state))
		return -1;
	table = lease_table_new(&limits);
	assert_int_equal(lease_slices_set(table, &slice, 1), 0);
	st = open_ok();
	next_id = st->next_lease;
	memset(&audit, 0, sizeof(audit));
	now_ns = 1000 * S;
	n_repaired = n_failed = 0;
	said[0] = '\0';
	return 0;
}

static int end(void **state)
{
	store_close(st);
	st = NULL;
	lease_table_free(table);
	return teardown(state);
}

static void note(void *arg, int priority, const char *event, const char *text)
{
	assert_ptr_equal(arg, &audit);
	assert_true(priority < 5);
	if (!strcmp(event, "repaired"))
		n_repaired++;
	else if (!strcmp(event, "store"))
		n_failed++;
	else
		fail_msg("event %s: %s", event, text);
	snprintf(said, sizeof(said), "%s", text);
}

/* What the lessor does with a turn's changes. */
static void keep(void)
{
	struct store_batch b = { .now_ms = 1, .next_lease = next_id };

	b.leases = lease_journal(table, &b.n_leases);
	if (store_commit(st, &b, &err))
		fail_msg("%s", err.s);
	lease_keep(table);
}

/* n leases of a port each, in the table and in the store. */
static uint64_t grant(int n)
{
	struct lease_request req = {
		.pool = "low",
		.protos = LEASE_UDP,
		.kind = SLUICE_LEASE_EXCLUSIVE,
		.ports = 1,
		.leases = 1,
		.parity = -1,
		.ttl_s = 600,
		.holder = { 1000, 4711, 99, "echo", "/system.slice/echo.service" },
		.name = "one",
		.labels = "team=net",
	};
	uint64_t first = next_id;

	for (int i = 0; i < n; i++) {
		struct range r;

		if (lease_choose(table, &req, next_id, NULL, NULL, &r, &err))
			fail_msg("%s", err.s);
		assert_non_null(lease_grant(table, next_id++, &req, &r, now_ns, 1764000000000));
	}
	keep();
	return first;
}

/* One look: as many turns as it takes. Returns how many. */
static int look(void)
{
	uint64_t next_ns, at = 0;
	int n = 0;

	now_ns += AUDIT_LOOK_NS;
	do {
		next_ns = audit_turn(&audit, st, table, now_ns, note, &audit);
		assert_true(next_ns >= now_ns);
		assert_true(!audit.walking || audit.at > at); /* it goes on */
		at = audit.at;
		n++;
	} while (audit.walking);
	assert_int_equal(next_ns, now_ns + AUDIT_LOOK_NS);
	return n;
}

/* SQL with an id in it. */
static int64_t sqlf(const char *fmt, uint64_t id)
{
	char text[512];

	snprintf(text, sizeof(text), fmt, (unsigned long long)id);
	return sql(text);
}

/* Nothing is done at two looks, everything at the third: n repairs, the last one told with a word. */
static void repaired_at_third(unsigned n, const char *word)
{
	int64_t version;

	n_repaired = 0;
	for (int i = 0; i < 2; i++) {
		version = sql("SELECT total_changes() + (SELECT count(*) FROM lease) * 1000 +"
			      " (SELECT count(*) FROM lease_log)");
		look();
		assert_int_equal(n_repaired, 0);
		assert_int_equal(
			sql("SELECT total_changes() + (SELECT count(*) FROM lease) * 1000 +"
			    " (SELECT count(*) FROM lease_log)"),
			version);
	}
	look();
	assert_int_equal(n_repaired, n);
	if (!strstr(said, word))
		fail_msg("\"%s\" lacks \"%s\"", said, word);
	for (int i = 0; i < 4; i++)
		look();
	assert_int_equal(n_repaired, n);
	assert_int_equal(n_failed, 0);
	assert_true(audit.clean);
	assert_int_equal(audit.n, 0);
}

/* The store is as the table is, and is accepted when it is opened anew. */
static size_t n_stored;

static int stored_one(const struct lease *l, void *arg)
{
	const struct lease *want = lease_find(table, l->id);

	(void)arg;
	assert_non_null(want);
	assert_int_equal(want->state, LEASE_ACTIVE);
	assert_string_equal(l->pool, want->pool);
	assert_memory_equal(&l->ports, &want->ports, sizeof(l->ports));
	assert_int_equal(l->protos, want->protos);
	assert_int_equal(l->kind, want->kind);
	assert_int_equal(l->bound, want->bound);
	assert_memory_equal(&l->holder, &want->holder, sizeof(l->holder));
	assert_string_equal(l->name, want->name);
	assert_string_equal(l->labels, want->labels);
	assert_int_equal(l->created_ms, want->created_ms);
	assert_int_equal(l->ttl_s, want->ttl_s);
	assert_int_equal(l->expires_ns, want->expires_ns);
	n_stored++;
	return 0;
}

static void agrees(void)
{
	struct lease_counts c;
	uint64_t next;

	store_close(st);
	st = open_ok();
	audit.clean = false; /* versions are of one connection */
	n_stored = 0;
	assert_int_equal(store_load_leases(st, INT64_MAX, stored_one, NULL, &next, &err), 0);
	lease_count(table, NULL, &c);
	assert_int_equal(n_stored, c.active);
	assert_int_equal(next, next_id);
}

static void test_missing(void **state)
{
	uint64_t id = grant(5);

	(void)state;
	look();
	sqlf("DELETE FROM lease WHERE id = %llu", id);
	sqlf("DELETE FROM lease WHERE id = %llu", id + 2);
	sqlf("DELETE FROM lease WHERE id = %llu", id + 4);
	repaired_at_third(3, "the store lacked it");
	assert_non_null(strstr(said, "203.0.113.7:"));
	assert_int_equal(audit.repaired, 3);
	agrees();
}

/* One that was ended in the store alone goes on, and has no record. */
static void test_missing_recorded(void **state)
{
	uint64_t id = grant(3);

	(void)state;
	sqlf("INSERT INTO lease_log SELECT id, 5, 'released', pool, addr, first, last, protos, "
	     "kind,"
	     " bound, uid, pid, started, comm, cgroup, name, labels, created_ms, ttl_s, expires_ns"
	     " FROM lease WHERE id = %llu",
	     id + 1);
	sqlf("DELETE FROM lease WHERE id = %llu", id + 1);
	repaired_at_third(1, "the store lacked it");
	assert_int_equal(sql("SELECT count(*) FROM lease_log"), 0);
	agrees();
	/* Both at once: the store would be refused at the next start. */
	sqlf("INSERT INTO lease_log SELECT id, 5, 'released', pool, addr, first, last, protos, "
	     "kind,"
	     " bound, uid, pid, started, comm, cgroup, name, labels, created_ms, ttl_s, expires_ns"
	     " FROM lease WHERE id = %llu",
	     id);
	repaired_at_third(1, "another one");
	assert_int_equal(sql("SELECT count(*) FROM lease_log"), 0);
	agrees();
}

static void test_wrong(void **state)
{
	static const char *const changes[] = {
		"pool = 'high'",
		"addr = x'00000000000000000000ffffcb007108'",
		"first = first - 1",
		"last = last + 1",
		"protos = 'tcp'",
		"kind = 'shared'",
		"bound = 'process'",
		"uid = 0",
		"pid = 1",
		"started = 100",
		"comm = 'init'",
		"cgroup = '/'",
		"name = ''",
		"labels = 'team=none'",
		"created_ms = created_ms + 1",
		"ttl_s = 601",
		"expires_ns = NULL",
		"expires_ns = expires_ns + 1",
		/* No leases at all. */
		"protos = 'icmp'",
		"first = 0",
		"ttl_s = 100000000",
		"pool = ''",
	};
	uint64_t id = grant(3);

	(void)state;
	for (size_t i = 0; i < sizeof(changes) / sizeof(*changes); i++) {
		char text[200];

		snprintf(text, sizeof(text), "UPDATE lease SET %s WHERE id = %%llu", changes[i]);
		sqlf(text, id + 1);
		repaired_at_third(1, "was another one in the store");
		agrees();
	}
	assert_int_equal(audit.repaired, sizeof(changes) / sizeof(*changes));
}

/* A released one comes back in the store: with its record, and with the record gone. */
static void test_ended(void **state)
{
	uint64_t id = grant(4);

	(void)state;
	sql("CREATE TABLE kept AS SELECT * FROM lease");
	for (int i = 1; i < 3; i++)
		assert_int_equal(lease_release(table, lease_find(table, id + (uint64_t)i),
					       LEASE_WHY_RELEASED, now_ns, 1764000005000),
				 0);
	keep();
	sqlf("INSERT INTO lease SELECT * FROM kept WHERE id = %llu", id + 1);
	sqlf("INSERT INTO lease SELECT * FROM kept WHERE id = %llu", id + 2);
	sqlf("DELETE FROM lease_log WHERE id = %llu", id + 2);
	sql("DROP TABLE kept");
	repaired_at_third(2, "went on in the store");
	assert_int_equal(sql("SELECT count(*) FROM lease_log WHERE why = 'released' AND"
			     " ended_ms = 1764000005000"),
			 2);
	agrees();
}

/* Rows of somebody's own making. */
static void test_unknown(void **state)
{
	static const char *const ids[] = { "1", "%1$llu + 1000", "9223372036854775807" };
	uint64_t id = grant(3);
	char text[400];

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		snprintf(text, sizeof(text),
			 "INSERT INTO lease SELECT %s, pool, addr, 7, 7, protos, kind, bound, uid, "
			 "pid,"
			 " started, comm, cgroup, name, labels, created_ms, ttl_s, expires_ns"
			 " FROM lease WHERE id = %%1$llu",
			 ids[i]);
		sqlf(text, id);
	}
	sqlf("INSERT INTO lease SELECT 2, pool, addr, 8, 8, 'nothing', kind, bound, uid, pid,"
	     " started, comm, cgroup, name, labels, created_ms, ttl_s, expires_ns"
	     " FROM lease WHERE id = %llu",
	     id);
	repaired_at_third(4, "nobody has it");
	/* What was given out, and is a lease, has a record. */
	assert_int_equal(sql("SELECT count(*) FROM lease_log"), 1);
	assert_int_equal(sql("SELECT id = 1 AND why = 'revoked' AND first = 7 FROM lease_log"), 1);
	agrees();
}

/* Three times in a row: one that goes away in between begins anew. */
static void test_in_a_row(void **state)
{
	uint64_t id = grant(2);

	(void)state;
	for (int i = 0; i < 5; i++) {
		sqlf("UPDATE lease SET uid = 1 WHERE id = %llu", id);
		look();
		look();
		sqlf("UPDATE lease SET uid = 1000 WHERE id = %llu", id);
		look();
	}
	/* Another difference of the same lease is not the same difference. */
	sqlf("UPDATE lease SET uid = 1 WHERE id = %llu", id);
	look();
	look();
	sqlf("DELETE FROM lease WHERE id = %llu", id);
	look();
	look();
	assert_int_equal(n_repaired, 0);
	look();
	assert_int_equal(n_repaired, 1);
	agrees();
}

/* What this daemon itself commits is no reason to compare; what another process commits is, and so is time. */
static void test_when(void **state)
{
	uint64_t id = grant(2);
	char text[100];

	(void)state;
	look();
	assert_true(audit.clean);
	/* Through the store's own connection: nothing tells that it happened. */
	snprintf(text, sizeof(text), "DELETE FROM lease WHERE id = %llu", (unsigned long long)id);
	assert_int_equal(store_db_run(st->db, text, NULL, 0), SQLITE_OK);
	for (int i = 0; i < 10; i++)
		look();
	assert_int_equal(n_repaired, 0);
	assert_true(audit.clean);
	now_ns += AUDIT_WHOLE_NS;
	repaired_at_third(1, "the store lacked it");
	/* Changes of the table's own, meanwhile. */
	assert_int_equal(lease_renew(table, lease_find(table, id), 700, now_ns), 0);
	grant(3);
	now_ns += AUDIT_WHOLE_NS;
	for (int i = 0; i < 4; i++)
		look();
	assert_int_equal(n_repaired, 1);
	agrees();
}

/* More than fits a turn, and more differences than are counted at a time. */
static void test_pages(void **state)
{
	const int n = 3 * AUDIT_PAGE + 17;
	uint64_t id = grant(n);

	(void)state;
	assert_int_equal(look(), 4);
	sql("CREATE TABLE kept AS SELECT * FROM lease");
	sql("DELETE FROM lease"); /* all of them: the table is longer */
	for (int i = 0; i < 30; i++)
		look();
	assert_int_equal(n_repaired, n);
	assert_true(audit.clean);
	agrees();
	n_repaired = 0;
	/* The store is longer, with gaps here and there. */
	for (uint64_t i = id; i < id + (uint64_t)n; i += 3)
		assert_int_equal(lease_release(table, lease_find(table, i), LEASE_WHY_EXPIRED,
					       now_ns, 1764000005000),
				 0);
	keep();
	sql("INSERT INTO lease SELECT * FROM kept WHERE NOT EXISTS (SELECT 1 FROM lease WHERE id = "
	    "kept.id)");
	sql("INSERT INTO lease SELECT id + 10000000, pool, addr, first, last, protos, kind, bound, "
	    "uid, pid,"
	    " started, comm, cgroup, name, labels, created_ms, ttl_s, expires_ns FROM kept");
	sql("DROP TABLE kept");
	for (int i = 0; i < 30; i++)
		look();
	assert_int_equal(n_repaired, (n + 2) / 3 + n);
	assert_true(audit.clean);
	agrees();
}

/* A repair that can't be stored is told once, and done later. */
static void test_full(void **state)
{
	uint64_t id = grant(2);

	(void)state;
	sqlf("DELETE FROM lease WHERE id = %llu", id);
	look();
	look();
	for (int i = 0; i < 5; i++) {
		/* Another text begins to count anew. */
		setenv("SLUICE_FAIL_AT", i & 1 ? "store.full:1" : "store.full:01", 1);
		look();
	}
	assert_int_equal(n_repaired, 0);
	assert_int_equal(n_failed, 1);
	assert_non_null(strstr(said, "the disk"));
	assert_int_equal(sql("SELECT count(*) FROM lease"), 1);
	unsetenv("SLUICE_FAIL_AT");
	look();
	assert_int_equal(n_repaired, 1);
	assert_int_equal(n_failed, 1);
	agrees();
}

static void test_unreadable(void **state)
{
	grant(2);
	(void)state;
	look();
	sql("ALTER TABLE lease RENAME TO lost");
	for (int i = 0; i < 5; i++)
		look();
	assert_int_equal(n_failed, 1);
	assert_int_equal(n_repaired, 0);
	assert_non_null(strstr(said, "read the leases"));
	/* The daemon goes on with the store opened anew, which says what is wrong with it. */
	assert_true(store_must_reopen(st));
	sql("ALTER TABLE lost RENAME TO lease");
}

int main(void)
{
#define AUDIT(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		AUDIT(test_missing), AUDIT(test_missing_recorded),
		AUDIT(test_wrong),   AUDIT(test_ended),
		AUDIT(test_unknown), AUDIT(test_in_a_row),
		AUDIT(test_when),    AUDIT(test_pages),
		AUDIT(test_full),    AUDIT(test_unreadable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
