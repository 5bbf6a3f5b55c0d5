/* SPDX-License-Identifier: BSD-2-Clause */
/* The store of leases: what goes in comes out, contradictions are refused. */
#include "store_lease_test.h"

static void assert_lease(const struct lease *got, const struct lease *want)
{
	struct lease w = *want;

	w.user = NULL;
	w.cool_ns = 0;
	assert_memory_equal(got, &w, sizeof(w)); /* both were zero before they were filled */
}

/* ---- good days ---- */

static void test_lease_round_trip(void **state)
{
	struct lease *full = &leases[1], *plain = &leases[2];
	struct store *s = open_ok();
	uint64_t next = load(s, 0), first = next;

	(void)state;
	assert_int_equal(n_loaded, 0);
	/* Ids begin with the time: if a store was lost, its ids were lower. */
	assert_true(next > 1700000000 && next < 4000000000);

	lease_fill(full, next++, 0, 65535);
	memset(full->pool, 'p', sizeof(full->pool) - 1);
	memset(full->holder.comm, '\xff',
	       sizeof(full->holder.comm) - 1); /* prctl() takes any bytes */
	memset(full->holder.cgroup, '/', sizeof(full->holder.cgroup) - 1);
	memset(full->name, 'n', sizeof(full->name) - 1);
	memset(full->labels, 'l', sizeof(full->labels) - 1);
	full->holder.uid = UINT32_MAX;
	full->holder.pid = UINT32_MAX;
	full->holder.started = INT64_MAX;
	full->protos = LEASE_TCP | LEASE_UDP;
	full->kind = SLUICE_LEASE_EXCLUSIVE;
	full->bound = LEASE_BOUND_CGROUP;
	full->ttl_s = LEASE_TTL_MAX;
	full->expires_ns = 123456789012345678;
	full->user = full;
	lease_fill(plain, next++, 7, 7);
	plain->ports.addr.b[15] = 8;
	plain->holder = (struct lease_holder){ 0 };
	memset(plain->name, 0, sizeof(plain->name));
	memset(plain->labels, 0, sizeof(plain->labels));
	change(LEASE_GRANTED, full);
	change(LEASE_GRANTED, plain);
	commit_ok(s, next);
	store_close(s);

	s = open_ok();
	assert_int_equal(load(s, 0), next);
	assert_int_equal(n_loaded, 2);
	assert_lease(&loaded[0], full);
	assert_lease(&loaded[1], plain);

	/* A renewal changes the deadline and nothing else. */
	full->expires_ns++;
	full->ttl_s--;
	strcpy(full->name, "another");
	change(LEASE_RENEWED, full);
	plain->expires_ns = SLUICE_NEVER - 1; /* as late as can be stored */
	change(LEASE_RENEWED, plain);
	commit_ok(s, 0);
	load(s, 0);
	memset(full->name, 'n', sizeof(full->name) - 1);
	assert_lease(&loaded[0], full);
	assert_true(loaded[1].expires_ns == INT64_MAX);

	/* Every way to end, and every lease has only one. */
	for (int why = LEASE_WHY_RELEASED; why <= LEASE_WHY_REVOKED; why++) {
		struct lease *l = &leases[10 + why];

		lease_fill(l, next++, 100 * why, 100 * why);
		l->expires_ns = 5;
		change(LEASE_GRANTED, l);
	}
	commit_ok(s, next);
	for (int why = LEASE_WHY_RELEASED; why <= LEASE_WHY_REVOKED; why++) {
		lease_end(&leases[10 + why], (enum lease_why)why, 1000 + why);
		change(LEASE_RELEASED, &leases[10 + why]);
	}
	lease_end(full, LEASE_WHY_EXPIRED, 1000);
	change(LEASE_RELEASED, full);
	commit_ok(s, 0);
	store_close(s);
	s = open_ok();
	assert_int_equal(load(s, 1000), next);
	assert_int_equal(n_loaded, 2 + LEASE_WHY_REVOKED);
	assert_true(loaded[0].id == plain->id && loaded[0].state == LEASE_ACTIVE);
	for (int why = LEASE_WHY_RELEASED; why <= LEASE_WHY_REVOKED; why++)
		assert_lease(&loaded[1 + LEASE_WHY_REVOKED - why], &leases[10 + why]);
	assert_lease(&loaded[1 + LEASE_WHY_REVOKED], full);
	/* Those that ended at the time, or later. */
	load(s, 1003);
	assert_int_equal(n_loaded, 1 + LEASE_WHY_REVOKED - 2);
	assert_int_equal(loaded[n_loaded - 1].why, 3);
	load(s, INT64_MAX);
	assert_int_equal(n_loaded, 1);
	store_close(s);
	assert_int_equal(sql("SELECT min(id) FROM lease_log"), first);
	assert_int_equal(sql("SELECT count(*) FROM lease_log WHERE why = 'process' AND kind ="
			     " 'shared' AND protos = 'udp'"),
			 1);
}

static int stop_at(const struct lease *l, void *arg)
{
	return l->id == *(uint64_t *)arg ? -ECANCELED : 0;
}

static void test_lease_load_stops(void **state)
{
	struct store *s = open_ok();
	uint64_t next = load(s, 0), stop, left = 1;

	(void)state;
	for (int i = 0; i < 2; i++) {
		lease_fill(&leases[i], next + (uint64_t)i, i, i);
		change(LEASE_GRANTED, &leases[i]);
	}
	commit_ok(s, next + 2);
	lease_end(&leases[1], LEASE_WHY_RELEASED, 9);
	change(LEASE_RELEASED, &leases[1]);
	commit_ok(s, 0);
	for (stop = next; stop < next + 2; stop++) {
		assert_int_equal(store_load_leases(s, 0, stop_at, &stop, &left, &err), -ECANCELED);
		assert_int_equal(left, 1);
		assert_false(store_must_reopen(s));
	}
	assert_int_equal(load(s, 0), next + 2);
	assert_int_equal(n_loaded, 2);
	store_close(s);
}

/* Several changes of one lease in one batch: each shows how it is at the end. */
static void test_lease_brief(void **state)
{
	struct store *s = open_ok();
	uint64_t next = load(s, 0);

	(void)state;
	for (int i = 0; i < 6; i++)
		lease_fill(&leases[i], next + (uint64_t)i, i, i);
	/* Granted and released; granted, renewed, released; granted and renewed. */
	lease_end(&leases[0], LEASE_WHY_RELEASED, 50);
	lease_end(&leases[1], LEASE_WHY_EXPIRED, 51);
	leases[2].expires_ns = 77;
	change(LEASE_GRANTED, &leases[0]);
	change(LEASE_GRANTED, &leases[1]);
	change(LEASE_RENEWED, &leases[1]);
	change(LEASE_GRANTED, &leases[2]);
	change(LEASE_RELEASED, &leases[1]);
	change(LEASE_RENEWED, &leases[2]);
	change(LEASE_GRANTED, &leases[3]);
	change(LEASE_RELEASED, &leases[0]);
	/* Ids that are passed over stay unused. */
	change(LEASE_GRANTED, &leases[5]);
	commit_ok(s, next + 6);
	assert_int_equal(load(s, 0), next + 6);
	assert_int_equal(n_loaded, 5);
	assert_lease(&loaded[0], &leases[2]);
	assert_lease(&loaded[1], &leases[3]);
	assert_lease(&loaded[2], &leases[5]);
	assert_lease(&loaded[3], &leases[1]);
	assert_lease(&loaded[4], &leases[0]);
	/* Renewed and released. */
	leases[2].expires_ns = 99;
	lease_end(&leases[2], LEASE_WHY_PROCESS, 60);
	change(LEASE_RENEWED, &leases[2]);
	change(LEASE_RELEASED, &leases[2]);
	commit_ok(s, 0);
	load(s, 60);
	assert_int_equal(n_loaded, 3);
	assert_lease(&loaded[2], &leases[2]);
	store_close(s);
}

/* A batch does all that it says, of holds and of leases, or nothing. */
static void test_lease_with_holds(void **state)
{
	struct store_batch b = { .now_ms = 1, .leases = changes };
	struct hold_table t = { 0 };
	struct hold_changes ch;
	struct store *s = open_ok();
	uint64_t next = load(s, 0);
	uint32_t epoch;
	struct conf c;

	(void)state;
	conf_init(&c, 6, 30);
	assert_int_equal(store_load_holds(s, &t, &epoch, &err), 0);
	assert_int_equal(hold_reconcile_local(&c.config, &t, epoch, S, &ch, &err), 0);
	b.holds = &ch;
	lease_fill(&leases[0], next, 2048, 2048);
	lease_fill(&leases[1], next + 1, 2049, 2049);
	change(LEASE_GRANTED, &leases[0]);
	change(LEASE_RELEASED, &leases[1]); /* never granted */
	b.n_leases = n_changes;
	b.next_lease = next + 1;
	assert_int_equal(store_commit(s, &b, &err), -ESTALE);
	assert_int_equal(loaded_mask(s, NULL), 0);
	assert_int_equal(load(s, 0), next);
	assert_int_equal(n_loaded, 0);
	b.n_leases = 1;
	assert_int_equal(store_commit(s, &b, &err), 0);
	assert_int_equal(loaded_mask(s, NULL), 6);
	assert_int_equal(load(s, 0), next + 1);
	assert_int_equal(n_loaded, 1);
	/* Now the other way: the holds are stale, the leases would be right. */
	n_changes = 0;
	change(LEASE_GRANTED, &leases[1]);
	b.next_lease = next + 2;
	assert_int_equal(store_commit(s, &b, &err), -ESTALE);
	assert_int_equal(load(s, 0), next + 1);
	assert_int_equal(n_loaded, 1);
	hold_changes_done(&ch);
	/* The counter alone is something to store; the same counter is not. */
	n_changes = 0;
	commit_ok(s, next + 40);
	commit_ok(s, next + 40);
	store_close(s);
	s = open_ok();
	assert_int_equal(load(s, 0), next + 40);
	store_close(s);
}

static void test_lease_stale(void **state)
{
	struct store *s = open_ok();
	uint64_t next = load(s, 0);
	struct lease *a = &leases[0], *b = &leases[1], *c = &leases[2];

	(void)state;
	lease_fill(a, next, 1, 1);
	lease_fill(b, next + 1, 2, 2);
	lease_fill(c, next + 2, 3, 3);
	change(LEASE_GRANTED, a);
	commit_ok(s, next + 1);

	/* Given before: active, or past. */
	change(LEASE_GRANTED, b);
	change(LEASE_GRANTED, a);
	commit_stale(s, next + 2, "given out before");
	change(LEASE_GRANTED, a);
	commit_stale(s, 0, "given out before");
	lease_end(a, LEASE_WHY_RELEASED, 5);
	change(LEASE_RELEASED, a);
	commit_ok(s, 0);
	change(LEASE_GRANTED, a);
	change(LEASE_RELEASED, a);
	commit_stale(s, next + 2, "given out before");
	/* Twice in one batch. */
	change(LEASE_GRANTED, b);
	change(LEASE_GRANTED, b);
	commit_stale(s, next + 2, "given out before");
	/* An id that the counter would give again; a counter that goes back. */
	change(LEASE_GRANTED, c);
	commit_stale(s, next + 2, "given out again");
	change(LEASE_GRANTED, b);
	commit_stale(s, 0, "given out again");
	change(LEASE_GRANTED, b);
	commit_stale(s, next, "can't become");
	/* What is not active can't go on or end. */
	change(LEASE_RENEWED, a);
	commit_stale(s, 0, "not active");
	change(LEASE_RELEASED, a);
	commit_stale(s, 0, "not active");
	change(LEASE_RENEWED, b);
	commit_stale(s, next + 2, "not active");
	lease_end(b, LEASE_WHY_RELEASED, 6);
	change(LEASE_RELEASED, b);
	commit_stale(s, next + 2, "not active");
	/* A record before its grant, twice, or not at all. */
	change(LEASE_RELEASED, b);
	change(LEASE_GRANTED, b);
	commit_stale(s, next + 2, "not active");
	change(LEASE_GRANTED, b);
	change(LEASE_RELEASED, b);
	change(LEASE_RELEASED, b);
	commit_stale(s, next + 2, "there already");
	change(LEASE_GRANTED, b);
	commit_stale(s, next + 2, "neither active nor past");
	lease_end(c, LEASE_WHY_RELEASED, 6);
	change(LEASE_GRANTED, b);
	change(LEASE_RELEASED, c);
	commit_stale(s, next + 3, "not active");

	/* Nothing of all this is there. */
	assert_int_equal(load(s, 0), next + 1);
	assert_int_equal(n_loaded, 1);
	assert_lease(&loaded[0], a);
	store_close(s);
	s = open_ok();
	assert_int_equal(load(s, 0), next + 1);
	assert_int_equal(n_loaded, 1);
	store_close(s);
}

/* Leases of an earlier boot end when the store is opened, once. */
static void test_lease_reboot(void **state)
{
	struct store *s = open_ok();
	uint64_t next = load(s, 0);
	int64_t before, after;

	(void)state;
	for (int i = 0; i < 3; i++) {
		lease_fill(&leases[i], next + (uint64_t)i, i, i);
		change(LEASE_GRANTED, &leases[i]);
	}
	commit_ok(s, next + 3);
	lease_end(&leases[1], LEASE_WHY_RELEASED, 9);
	change(LEASE_RELEASED, &leases[1]);
	commit_ok(s, 0);
	store_close(s);
	/* The same boot. */
	s = open_ok();
	load(s, 0);
	assert_int_equal(n_loaded, 3);
	assert_int_equal(loaded[1].state, LEASE_ACTIVE);
	store_close(s);

	sql("UPDATE meta SET boot_id = 'another'");
	before = clock_utc_ms();
	s = open_ok();
	after = clock_utc_ms();
	for (int again = 0; again < 2; again++) {
		/* The latest first, and none but these: the one that was released is older. */
		assert_int_equal(load(s, INT64_MAX), next + 3);
		assert_int_equal(n_loaded, 2);
		for (int i = 0; i < 2; i++) {
			struct lease *want = &leases[i ? 0 : 2];

			assert_true(loaded[i].ended_ms >= before && loaded[i].ended_ms <= after);
			lease_end(want, LEASE_WHY_REBOOT, loaded[i].ended_ms);
			assert_lease(&loaded[i], want);
		}
	}
	store_close(s);
	assert_int_equal(sql("SELECT count(*) FROM lease"), 0);
	assert_int_equal(sql("SELECT count(*) FROM lease_log WHERE why = 'reboot'"), 2);
	/* From the next opening on they are records like others. */
	s = open_ok();
	load(s, INT64_MAX);
	assert_int_equal(n_loaded, 0);
	load(s, before);
	assert_int_equal(n_loaded, 2);
	lease_fill(&leases[3], next + 3, 0, 0);
	change(LEASE_GRANTED, &leases[3]);
	commit_ok(s, next + 4);
	store_close(s);
	/* Once more, with one of the first boot among the records. */
	sql("UPDATE meta SET boot_id = 'a third'");
	s = open_ok();
	load(s, INT64_MAX);
	assert_int_equal(n_loaded, 1);
	assert_int_equal(loaded[0].id, next + 3);
	store_close(s);
}

/* ---- a store of schema 1 ---- */

static void test_lease_migration(void **state)
{
	const struct store_options o = store_defaults();
	uint32_t before, epoch;
	struct store *s;
	sqlite3 *db;

	(void)state;
	/* As version 0 wrote it: its tables, and rows that its statements made. */
	s = open_ok();
	tick_ok(s, 0x35);
	assert_int_equal(host_add(s, "sysctl", "net.ipv4.ip_forward", "0", "1", &err), 0);
	tick_ok(s, 0x31);
	loaded_mask(s, &before);
	store_close(s);
	{
		char name[400];

		snprintf(name, sizeof(name), "%s/old", dir);
		assert_int_equal(sqlite3_open(name, &db), SQLITE_OK);
		assert_int_equal(sqlite3_exec(db, o.migrations[0], NULL, NULL, NULL), SQLITE_OK);
		snprintf(name, sizeof(name), "ATTACH '%s' AS new", file);
		assert_int_equal(sqlite3_exec(db, name, NULL, NULL, NULL), SQLITE_OK);
		assert_int_equal(
			sqlite3_exec(db,
				     "DELETE FROM meta; INSERT INTO meta SELECT one, machine,"
				     " created_ms, boot_id, next_epoch FROM new.meta;"
				     "INSERT INTO hold_log SELECT * FROM new.hold_log;"
				     "INSERT INTO hold SELECT * FROM new.hold;"
				     "INSERT INTO host_change SELECT * FROM new.host_change;"
				     "DETACH new; PRAGMA application_id = 0x536c7563;"
				     "PRAGMA user_version = 1; PRAGMA journal_mode = WAL",
				     NULL, NULL, NULL),
			SQLITE_OK);
		sqlite3_close(db);
		snprintf(name, sizeof(name), "%s/old", dir);
		assert_int_equal(rename(name, file), 0);
	}
	assert_int_equal(sql("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'lease%'"), 0);

	s = open_ok();
	assert_int_equal(loaded_mask(s, &epoch), 0x31);
	assert_int_equal(epoch, before);
	assert_true(load(s, 0) > 1700000000);
	assert_int_equal(n_loaded, 0);
	lease_fill(&leases[0], load(s, 0), 5, 5);
	change(LEASE_GRANTED, &leases[0]);
	commit_ok(s, leases[0].id + 1);
	store_close(s);
	assert_int_equal(sql("PRAGMA user_version"), SCHEMA);
	assert_int_equal(sql("SELECT count(*) FROM hold_log"), 4);
	assert_int_equal(sql("SELECT count(*) FROM hold_log WHERE why = 'removed'"), 1);
	assert_int_equal(sql("SELECT count(*) FROM host_change WHERE now = '1'"), 1);
	assert_int_equal(sql("SELECT count(*) FROM meta WHERE machine = 'edge1' AND"
			     " created_ms > 1700000000000"),
			 1);
	s = open_ok();
	assert_int_equal(loaded_mask(s, NULL), 0x31);
	load(s, 0);
	assert_int_equal(n_loaded, 1);
	store_close(s);
}

/* ---- contradictions ---- */

static void test_lease_contradictions(void **state)
{
	static const char *const lies[] = {
		/* Port 10 has both protocols, 20 to 29 UDP, 25 TCP, address .8 has 10 too. */
		"UPDATE lease SET first = 10, last = 10 WHERE first = 25",
		"UPDATE lease SET first = 5, last = 12 WHERE first = 20",
		"UPDATE lease SET protos = 'udp' WHERE first = 25",
		"UPDATE lease SET protos = 'tcp+udp' WHERE first = 25",
		"UPDATE lease SET last = 65535 WHERE first = 10 AND protos = 'tcp+udp'",
		"UPDATE lease SET addr = (SELECT addr FROM lease WHERE first = 25)",
		"UPDATE meta SET next_lease = next_lease - 1",
		"UPDATE meta SET next_lease = 1",
		"UPDATE lease SET id = id + 100 WHERE first = 25",
		"UPDATE lease_log SET id = id + 100 WHERE id = (SELECT max(id) FROM lease_log)",
		("UPDATE lease_log SET id = (SELECT id FROM lease WHERE first = 25)"
		 " WHERE id = (SELECT max(id) FROM lease_log)"),
		"DROP TABLE lease",
		"DROP TABLE lease_log",
		"ALTER TABLE lease RENAME COLUMN last TO lost",
	};
	static const char *const crooked[] = {
		"UPDATE lease SET protos = 'sctp' WHERE first = 25",
		"UPDATE lease SET protos = '' WHERE first = 25",
		"UPDATE lease SET kind = 'Shared' WHERE first = 25",
		"UPDATE lease SET bound = 'thread' WHERE first = 25",
		"UPDATE lease SET pool = '' WHERE first = 25",
		"UPDATE lease SET pool = 'a-name-of-more-than-31-characters' WHERE first = 25",
		"UPDATE lease SET comm = 'sixteen letters!' WHERE first = 25",
		"UPDATE lease SET name = 'a' || char(0) || 'b' WHERE first = 25",
		"UPDATE lease SET uid = -1 WHERE first = 25",
		"UPDATE lease SET ttl_s = 4294967296 WHERE first = 25",
		"UPDATE lease SET expires_ns = -1 WHERE first = 25",
		"UPDATE lease_log SET why = 'bored'",
		"UPDATE lease_log SET why = ''",
	};
	struct store *s = open_ok();
	uint64_t next = load(s, 0), left = 1;
	size_t n;
	char *good;

	(void)state;
	tick_ok(s, 1);
	for (int i = 0; i < 5; i++)
		lease_fill(&leases[i], next + (uint64_t)i, 10, 10);
	leases[0].protos = LEASE_TCP | LEASE_UDP;
	leases[1].ports.first = 20;
	leases[1].ports.last = 29;
	leases[2].ports.first = leases[2].ports.last = 25;
	leases[2].protos = LEASE_TCP;
	leases[3].ports.addr.b[15] = 8;
	lease_end(&leases[4], LEASE_WHY_RELEASED, 50);
	for (int i = 0; i < 5; i++)
		change(LEASE_GRANTED, &leases[i]);
	change(LEASE_RELEASED, &leases[4]);
	commit_ok(s, next + 5);
	store_close(s);
	s = open_ok();
	load(s, 0);
	assert_int_equal(n_loaded, 5);
	store_close(s);
	good = file_read(&n);
	for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		sql(lies[i]);
		untouched_when_refused(MACHINE, EUCLEAN, file, "damaged");
		file_write(good, n);
	}
	/* These are found by loading. */
	for (size_t i = 0; i < sizeof(crooked) / sizeof(*crooked); i++) {
		sql(crooked[i]);
		s = open_ok();
		n_loaded = 0;
		if (store_load_leases(s, 0, keep, NULL, &left, &err) != -EUCLEAN)
			fail_msg("taken: %s", crooked[i]);
		assert_int_equal(left, 1);
		assert_true(store_must_reopen(s));
		store_close(s);
		file_write(good, n);
	}
	free(good);
	s = open_ok();
	load(s, 0);
	assert_int_equal(n_loaded, 5);
	store_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_lease_round_trip), TEST(test_lease_load_stops),
		TEST(test_lease_brief),      TEST(test_lease_with_holds),
		TEST(test_lease_stale),      TEST(test_lease_reboot),
		TEST(test_lease_migration),  TEST(test_lease_contradictions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
