/* SPDX-License-Identifier: BSD-2-Clause */
/* Records of leases: they answer who had a port, and are forgotten. */
#include "store_lease_test.h"

/* ---- who had this port? ---- */

/* What a query gives: "id" of leases, "e" and the epoch of holds, with a "*" when it goes on. */
static char answers[4096];

static int answer(const struct store_record *r, void *arg)
{
	size_t at = strlen(answers);

	(void)arg;
	assert_true(!r->lease != !r->hold);
	assert_true(r->ended_ms ? r->why[0] != '\0' : r->why[0] == '\0');
	if (r->lease) {
		assert_int_equal(r->began_ms, r->lease->created_ms);
		assert_int_equal(r->ended_ms, r->lease->ended_ms);
		assert_string_equal(r->why, lease_why_name(r->lease->why));
	}
	snprintf(answers + at, sizeof(answers) - at, "%s%s%llu%s", at ? " " : "",
		 r->hold ? "e" : "", r->lease ? (unsigned long long)r->lease->id : r->hold->epoch,
		 r->ended_ms ? "" : "*");
	return 0;
}

static const char *who(struct store *s, const char *addr, uint16_t port, uint8_t protos,
		       int64_t at_ms, size_t max)
{
	struct addr a;
	int r;

	answers[0] = '\0';
	assert_int_equal(addr_parse(addr, &a), 0);
	r = store_who(s, &a, port, protos, at_ms, max, answer, NULL, &err);
	if (r)
		fail_msg("store_who: %s: %s", strerror(-r), err.s);
	return answers;
}

static int no_more(const struct store_record *r, void *arg)
{
	(void)r;
	++*(int *)arg;
	return -ECANCELED;
}

static void test_who(void **state)
{
	static const struct {
		uint16_t first, last;
		uint8_t protos;
		int began, ended; /* 0: goes on */
	} had[] = {
		[1] = { 100, 100, LEASE_UDP, 1000, 2000 },
		[2] = { 100, 100, LEASE_TCP, 1500, 0 },
		[3] = { 64, 127, LEASE_UDP, 2500, 3000 },
		[4] = { 128, 128, LEASE_UDP, 2600, 2700 },
		[5] = { 0, 4095, LEASE_UDP, 3500, 4000 },
		[6] = { 101, 101, LEASE_UDP, 4500, 5000 },
		[7] = { 37, 100, LEASE_TCP | LEASE_UDP, 5500, 6000 },
		[8] = { 36, 100, LEASE_UDP, 6500, 7000 },
		[9] = { 100, 65535, LEASE_UDP, 7500, 8000 },
		[10] = { 65535, 65535, LEASE_UDP, 8500, 9000 },
		[11] = { 100, 101, LEASE_UDP, 9500, 0 },
		[12] = { 0, 0, LEASE_UDP, 9600, 9700 },
		[13] = { 0, 63, LEASE_UDP, 9800, 9900 },
	};
	struct store *s = open_ok();
	struct addr a;
	int calls = 0;

	(void)state;
	/* Low ids, so that the texts can be written down. */
	store_close(s);
	sql("UPDATE meta SET next_lease = 1, next_epoch = 1");
	s = open_ok();
	for (size_t i = 1; i < sizeof(had) / sizeof(*had); i++) {
		lease_fill(&leases[i], i, had[i].first, had[i].last);
		leases[i].protos = had[i].protos;
		leases[i].created_ms = had[i].began;
		if (had[i].ended)
			lease_end(&leases[i], LEASE_WHY_RELEASED, had[i].ended);
		change(LEASE_GRANTED, &leases[i]);
		if (had[i].ended)
			change(LEASE_RELEASED, &leases[i]);
	}
	commit_ok(s, 14);
	assert_string_equal(who(s, "203.0.113.7", 100, 0, 0, 99), "11* 9 8 7 5 3 2* 1");
	assert_string_equal(who(s, "203.0.113.7", 100, LEASE_TCP, 0, 99), "7 2*");
	assert_string_equal(who(s, "203.0.113.7", 100, LEASE_UDP, 0, 99), "11* 9 8 7 5 3 1");
	assert_string_equal(who(s, "203.0.113.7", 101, 0, 0, 99), "11* 9 6 5 3");
	assert_string_equal(who(s, "203.0.113.7", 127, 0, 0, 99), "9 5 3");
	assert_string_equal(who(s, "203.0.113.7", 128, 0, 0, 99), "9 5 4");
	assert_string_equal(who(s, "203.0.113.7", 64, 0, 0, 99), "8 7 5 3");
	assert_string_equal(who(s, "203.0.113.7", 63, 0, 0, 99), "13 8 7 5");
	assert_string_equal(who(s, "203.0.113.7", 36, 0, 0, 99), "13 8 5");
	assert_string_equal(who(s, "203.0.113.7", 35, 0, 0, 99), "13 5");
	assert_string_equal(who(s, "203.0.113.7", 0, 0, 0, 99), "13 12 5");
	assert_string_equal(who(s, "203.0.113.7", 65535, 0, 0, 99), "10 9");
	assert_string_equal(who(s, "203.0.113.7", 65534, 0, 0, 99), "9");
	assert_string_equal(who(s, "203.0.113.8", 100, 0, 0, 99), "");
	assert_string_equal(who(s, "2001:db8::1", 100, 0, 0, 99), "");
	/* Bounded. */
	assert_string_equal(who(s, "203.0.113.7", 100, 0, 0, 4), "11* 9 8 7");
	assert_string_equal(who(s, "203.0.113.7", 100, 0, 0, 8), "11* 9 8 7 5 3 2* 1");
	assert_string_equal(who(s, "203.0.113.7", 100, 0, 0, 0), "");
	assert_string_equal(who(s, "203.0.113.7", 100, LEASE_TCP, 0, 1), "7");
	/* At a time: both ends belong to it. */
	assert_string_equal(who(s, "203.0.113.7", 100, 0, 999, 99), "");
	assert_string_equal(who(s, "203.0.113.7", 100, 0, 1000, 99), "1");
	assert_string_equal(who(s, "203.0.113.7", 100, 0, 2000, 99), "2* 1");
	assert_string_equal(who(s, "203.0.113.7", 100, 0, 2001, 99), "2*");
	assert_string_equal(who(s, "203.0.113.7", 100, 0, 5500, 99), "7 2*");
	assert_string_equal(who(s, "203.0.113.7", 100, LEASE_UDP, 3999, 99), "5");
	assert_string_equal(who(s, "203.0.113.7", 100, 0, 1LL << 50, 99), "11* 2*");
	/* Stopped by the one who asks; afterwards all is as before. */
	assert_int_equal(addr_parse("203.0.113.7", &a), 0);
	assert_int_equal(store_who(s, &a, 100, 0, 0, 9, no_more, &calls, &err), -ECANCELED);
	assert_int_equal(calls, 1);
	lease_end(&leases[11], LEASE_WHY_EXPIRED, 9999);
	change(LEASE_RELEASED, &leases[11]);
	commit_ok(s, 0);
	/* Holds: 8000 ms in slice 0, and again from 10000 ms on. */
	assert_int_equal(tick(s, 1, 30, 1400 * S / 1000, NULL), 0);
	assert_int_equal(tick(s, 0, 30, 8000 * S / 1000, NULL), 0);
	assert_int_equal(tick(s, 3, 30, 10 * S, NULL), 0);
	assert_string_equal(who(s, "203.0.113.7", 100, 0, 0, 99), "e2* 11 9 8 7 5 3 2* e1 1");
	assert_string_equal(who(s, "203.0.113.7", 100, LEASE_TCP, 0, 99), "e2* 7 2* e1");
	assert_string_equal(who(s, "203.0.113.7", 100, 0, 8000, 99), "9 2* e1");
	assert_string_equal(who(s, "203.0.113.7", 100, 0, 8001, 99), "2*");
	assert_string_equal(who(s, "203.0.113.7", 100, 0, 10000, 99), "e2* 2*");
	assert_string_equal(who(s, "203.0.113.7", 100, 0, 0, 1), "e2*");
	assert_string_equal(who(s, "203.0.113.7", 2048, 0, 0, 99), "e3* 9 5");
	assert_string_equal(who(s, "203.0.113.7", 4096, 0, 0, 99), "9");
	store_close(s);
}

/* Many records, over many parts of the index, with other ports between. */
static void test_who_many(void **state)
{
	struct store_batch b = { .now_ms = 1 };
	struct lease_change *list = calloc(2 * 5000, sizeof(*list));
	struct lease *l = calloc(5000, sizeof(*l));
	struct store *s = open_ok();
	uint64_t next = load(s, 0);
	char want[4096] = "";

	(void)state;
	for (size_t i = 0; i < 5000; i++) {
		uint16_t first = i % 500 == 7 ? 30000 : (uint16_t)(1024 + rnd(28000));

		lease_fill(&l[i], next + i, first, first);
		/* On a second address too. */
		l[i].ports.addr.b[15] = i % 1000 == 7 ? 7 : 8;
		l[i].created_ms = (int64_t)i;
		lease_end(&l[i], LEASE_WHY_RELEASED, (int64_t)i + 1);
		list[2 * i] = (struct lease_change){ LEASE_GRANTED, &l[i], 0, 0 };
		list[2 * i + 1] = (struct lease_change){ LEASE_RELEASED, &l[i], 0, 0 };
	}
	b.leases = list;
	b.n_leases = 2 * 5000;
	b.next_lease = next + 5000;
	assert_int_equal(store_commit(s, &b, &err), 0);
	for (size_t i = 5000; i-- > 0;)
		if (i % 1000 == 7)
			snprintf(want + strlen(want), sizeof(want) - strlen(want), "%s%llu",
				 *want ? " " : "", (unsigned long long)l[i].id);
	assert_string_equal(who(s, "203.0.113.7", 30000, 0, 0, 99), want);
	/* With a gap of several parts. */
	assert_int_equal(
		store_db_run(s->db,
			     "DELETE FROM lease_log WHERE id BETWEEN (SELECT min(id) +"
			     " 100 FROM lease_log) AND (SELECT min(id) + 4900 FROM lease_log)",
			     NULL, 0),
		SQLITE_OK);
	snprintf(want, sizeof(want), "%llu", (unsigned long long)l[7].id);
	assert_string_equal(who(s, "203.0.113.7", 30000, 0, 0, 99), want);
	store_close(s);
	free(list);
	free(l);
}

/* No question about a port may read all records. */
static void test_who_plan(void **state)
{
	static const enum store_stmt asked[] = { STMT_WHO_LOG, STMT_WHO_PART, STMT_WHO_HOLDS,
						 STMT_TRIM_OLD };
	struct store *s = open_ok();
	sqlite3_stmt *st;
	char text[4096];

	(void)state;
	for (size_t i = 0; i < sizeof(asked) / sizeof(*asked); i++) {
		int by_port = 0, rows = 0;

		snprintf(text, sizeof(text), "EXPLAIN QUERY PLAN %s",
			 sqlite3_sql(s->stmt[asked[i]]));
		assert_int_equal(sqlite3_prepare_v2(s->db, text, -1, &st, NULL), SQLITE_OK);
		while (sqlite3_step(st) == SQLITE_ROW) {
			const char *plan = (const char *)sqlite3_column_text(st, 3);

			if (strstr(plan, "SCAN"))
				fail_msg("%s: %s", text, plan);
			by_port += strstr(plan, "INDEX lease_log_ports (<expr>") != NULL;
			rows++;
		}
		sqlite3_finalize(st);
		assert_true(rows > 0);
		assert_int_equal(by_port, asked[i] == STMT_WHO_LOG ? 3 : 0);
	}
	store_close(s);
}

/* ---- forgetting ---- */

/* Records next to next + n - 1, i began at i and ended at i + 10. */
static void records(struct store *s, uint64_t next, size_t n)
{
	struct lease_change *list = calloc(2 * n, sizeof(*list));
	struct lease *l = calloc(n, sizeof(*l));
	struct store_batch b = {
		.now_ms = 1, .leases = list, .n_leases = 2 * n, .next_lease = next + n
	};

	for (size_t i = 0; i < n; i++) {
		lease_fill(&l[i], next + i, (int)(i % 60000), (int)(i % 60000));
		l[i].created_ms = (int64_t)i;
		lease_end(&l[i], LEASE_WHY_RELEASED, (int64_t)i + 10);
		list[2 * i] = (struct lease_change){ LEASE_GRANTED, &l[i], 0, 0 };
		list[2 * i + 1] = (struct lease_change){ LEASE_RELEASED, &l[i], 0, 0 };
	}
	assert_int_equal(store_commit(s, &b, &err), 0);
	free(list);
	free(l);
}

static int64_t count(struct store *s, const char *what)
{
	char text[200];
	int64_t n = -1;

	snprintf(text, sizeof(text), "SELECT %s FROM lease_log", what);
	assert_int_equal(store_db_int(s->db, text, &n), SQLITE_OK);
	return n;
}

/* Until nothing is left to look at. Returns how often that had to be called again. */
static int trim_all(struct store *s, int64_t before_ms)
{
	int r, again = 0;

	while ((r = store_lease_trim(s, before_ms, &err)) == 1 && again < 20)
		again++;
	assert_int_equal(r, 0);
	return again;
}

static void test_trim_age(void **state)
{
	struct store *s = open_ok();
	uint64_t next = load(s, 0);
	int calls = 1;

	(void)state;
	assert_int_equal(store_lease_trim(s, 1000000, &err), 0);
	records(s, next, 5000);
	next += 5000;
	/* An old one that goes on, and one that ended late: neither is in the way. */
	lease_fill(&leases[0], next, 1, 1);
	leases[0].created_ms = 0;
	change(LEASE_GRANTED, &leases[0]);
	commit_ok(s, next + 1);
	assert_int_equal(store_db_run(s->db,
				      "UPDATE lease_log SET ended_ms = 9999 WHERE created_ms = 3",
				      NULL, 0),
			 SQLITE_OK);
	trim_all(s, 10);
	assert_int_equal(count(s, "count(*)"), 5000);
	trim_all(s, 11);
	assert_int_equal(count(s, "min(ended_ms)"), 11);
	/* A bounded number each time. */
	assert_int_equal(store_lease_trim(s, 3000, &err), 1);
	assert_int_equal(count(s, "count(*)"), 5000 - TRIM_ROWS);
	calls += trim_all(s, 3000);
	assert_in_range(calls, 3, 5);
	assert_int_equal(count(s, "count(*)"), 5000 - 2990 + 1);
	assert_int_equal(count(s, "min(ended_ms)"), 3000);
	assert_int_equal(count(s, "min(created_ms)"), 3);
	trim_all(s, 3000);
	assert_int_equal(count(s, "count(*)"), 5000 - 2990 + 1);
	trim_all(s, 100000);
	assert_int_equal(count(s, "count(*)"), 0);
	load(s, 0);
	assert_int_equal(n_loaded, 1);
	store_close(s);
}

static void test_trim_many(void **state)
{
	struct store_options o = store_defaults();
	struct store *s = NULL;
	uint64_t next;

	(void)state;
	assert_int_equal(o.lease_log_max, 1000000);
	o.lease_log_max = 500;
	assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), 0);
	next = load(s, 0);
	records(s, next, 500);
	assert_int_equal(store_lease_trim(s, 0, &err), 0);
	assert_int_equal(count(s, "count(*)"), 500);
	/* What is added is counted without counting anew. */
	records(s, next + 500, 3000);
	assert_int_equal(store_lease_trim(s, 0, &err), 1);
	assert_int_equal(count(s, "count(*)"), 3500 - TRIM_ROWS);
	trim_all(s, 0);
	assert_int_equal(count(s, "count(*)"), 500);
	assert_int_equal(count(s, "min(id)"), next + 3000);
	/* A batch that fails adds nothing to the count. */
	lease_fill(&leases[0], next + 3500, 1, 1);
	lease_end(&leases[0], LEASE_WHY_RELEASED, 5);
	change(LEASE_GRANTED, &leases[0]);
	change(LEASE_RELEASED, &leases[0]);
	change(LEASE_RELEASED, &leases[0]);
	commit_stale(s, next + 3501, "there already");
	assert_int_equal(store_lease_trim(s, 0, &err), 0);
	assert_int_equal(s->log_n, 500);
	/* Both ways at once. */
	records(s, next + 3500, 100);
	trim_all(s, 60);
	assert_int_equal(count(s, "count(*)"), s->log_n);
	assert_int_equal(count(s, "count(*)"), 500);
	assert_int_equal(count(s, "min(ended_ms)"), 60);
	store_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_who),      TEST(test_who_many),  TEST(test_who_plan),
		TEST(test_trim_age), TEST(test_trim_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
