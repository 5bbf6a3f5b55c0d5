/* SPDX-License-Identifier: BSD-2-Clause */
/* The history of collisions: in and out, filters, pages, ids, trimming, full and broken disks, damaged rows. */
#include "store_test.h"

#include "faultvfs.h"

#define MANY 300

static struct addr v4(uint8_t last)
{
	return (struct addr){ { [10] = 0xff, 0xff, 203, 0, 113, last } };
}

static struct addr v6(uint8_t last)
{
	return (struct addr){ { 0x20, 1, 0xd, 0xb8, [15] = last } };
}

/* As full of it as can be, or as empty. */
static void fill(struct collision *c, unsigned n)
{
	memset(c, 0, sizeof(*c)); /* the padding too: compared as bytes */
	c->time_ms = 1764000000000 + n;
	c->kind = n % 3 ? COLLISION_REWRITE : COLLISION_RISK;
	c->source = 1U << n % 5;
	c->l4 = n % 2 ? SLUICE_UDP : SLUICE_TCP;
	c->src = n % 2 ? v6((uint8_t)n) : v4((uint8_t)n);
	c->dst = n % 2 ? v6(200) : v4(200);
	c->bound = (uint16_t)(n % 7 ? 40000 + n : 65535);
	c->wire = (uint16_t)(1024 + n);
	c->dport = 443;
	c->in_slice = n % 4 == 1;
	c->resolved = n % 5 == 2;
	c->healed = n % 6 == 3;
	c->delay_us = n % 3 ? n : UINT32_MAX;
	c->uid = n % 3 ? 1000 + n % 2 : UINT32_MAX;
	snprintf(c->netns, sizeof(c->netns), "%s", n % 2 ? "" : "/run/netns/blue");
	if (n % 8 == 0)
		return;
	c->pid = INT32_MAX;
	c->inode = UINT64_MAX - n;
	c->cookie = 1ULL << 63;
	memset(c->comm, 'c', sizeof(c->comm) - 1);
	memset(c->cgroup, 0xc4, sizeof(c->cgroup) - 1); /* no UTF-8 */
	strcpy(c->owner.kind, "flow");
	c->owner.src = v4(1);
	c->owner.dst = v6(2);
	c->owner.sport = 65535;
	c->owner.dport = 53;
}

static void add(struct store *s, unsigned from, size_t n)
{
	struct collision *list = calloc(n, sizeof(*list));
	int r;

	assert_non_null(list);
	for (size_t i = 0; i < n; i++)
		fill(&list[i], from + (unsigned)i);
	r = store_collisions_add(s, list, n, &err);
	if (r)
		fail_msg("%s", err.s);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(list[i].id, from + i);
	free(list);
}

/* What a listing told. */
struct heard {
	struct collision list[1024];
	size_t n;
	size_t stop_at;
};
static struct heard heard;

static int hear(const struct collision *c, void *arg)
{
	struct heard *h = arg;

	assert_true(h->n < sizeof(h->list) / sizeof(h->list[0]));
	h->list[h->n++] = *c;
	return h->n == h->stop_at ? -ECANCELED : 0;
}

static size_t list(struct store *s, const struct store_collision_filter *f)
{
	struct store_collision_filter copy = *f;
	int r;

	heard.n = heard.stop_at = 0;
	r = store_collisions_list(s, &copy, hear, &heard, &err);
	if (r)
		fail_msg("%d: %s", r, err.s);
	assert_memory_equal(&copy, f, sizeof(copy));
	return heard.n;
}

static void check_row(const struct collision *got, unsigned n)
{
	struct collision c;

	fill(&c, n);
	c.id = n;
	assert_memory_equal(got, &c, sizeof(c));
}

/* All of it comes back, the newest first, also after a restart. Numbers are ids: they count from 1. */
static void test_in_and_out(void **state)
{
	struct store_collision_filter any = { 0 };
	struct store *s = open_ok();

	(void)state;
	assert_int_equal(list(s, &any), 0);
	assert_int_equal(store_collisions_add(s, NULL, 0, &err), 0);
	add(s, 1, 1);
	add(s, 2, MANY);
	for (int run = 0; run < 2; run++) {
		assert_int_equal(list(s, &any), MANY + 1);
		for (unsigned i = 0; i <= MANY; i++)
			check_row(&heard.list[i], MANY + 1 - i);
		store_close(s);
		s = open_ok();
	}
	add(s, MANY + 2, 1);
	assert_int_equal(list(s, &any), MANY + 2);

	/* The listener stops it, and what it was told stands. */
	heard.n = 0;
	heard.stop_at = 3;
	assert_int_equal(store_collisions_list(s, &any, hear, &heard, &err), -ECANCELED);
	assert_int_equal(heard.n, 3);
	assert_int_equal(any.before_id, 0);
	store_close(s);
}

/* Pages apart. */
static bool wanted(const struct store_collision_filter *f, const struct collision *c)
{
	if (c->time_ms < f->since_ms)
		return false;
	if ((f->kinds && !(f->kinds >> c->kind & 1)) || (f->protos && !(f->protos >> c->l4 & 1)))
		return false;
	if (f->netns && strcmp(f->netns, c->netns) != 0)
		return false;
	return (!f->in_slice || (f->in_slice > 0) == c->in_slice) &&
	       (!f->by_uid || f->uid == c->uid);
}

/* Any filters, in pages of any size: each page goes on where the last one ended. */
static void test_filters(void **state)
{
	static const char *const netns[] = { NULL, "", "/run/netns/blue", "elsewhere" };
	static const uint32_t uids[] = { 1000, 1001, UINT32_MAX, 7 };
	unsigned told = 0, pages = 0;
	struct store *s = open_ok();

	(void)state;
	add(s, 1, MANY);
	for (int run = 0; run < 400; run++) {
		struct store_collision_filter f = { 0 };
		unsigned at = MANY;
		int more;

		if (rnd(3) == 0)
			f.since_ms = 1764000000000 + (int64_t)rnd(MANY + 10);
		if (rnd(3) == 0)
			f.before_id = rnd(MANY + 10);
		f.kinds = (uint32_t)rnd(4);
		f.protos = (uint32_t)rnd(4);
		f.in_slice = (int)rnd(3) - 1;
		f.netns = netns[rnd(4)];
		f.by_uid = rnd(2);
		f.uid = uids[rnd(4)];
		f.max = rnd(20);
		f.look = rnd(40);
		if (f.before_id && f.before_id <= MANY)
			at = (unsigned)f.before_id - 1;
		do {
			uint64_t before = f.before_id;
			size_t n;

			heard.n = heard.stop_at = 0;
			more = store_collisions_list(s, &f, hear, &heard, &err);
			assert_true(more == 0 || more == 1);
			assert_true(!more || f.max || f.look);
			n = heard.n;

			assert_true(!f.max || n <= f.max);
			assert_true(!f.look || n <= f.look);
			for (size_t i = 0; i < n; i++, told++) {
				struct collision c = { 0 };

				for (; at; at--) {
					fill(&c, at);
					c.id = at;
					if (wanted(&f, &c))
						break;
				}
				assert_memory_equal(&heard.list[i], &c, sizeof(c));
				at--;
			}
			pages++;
			assert_int_equal(more, f.before_id != before);
			assert_true(!more || !before || f.before_id < before);
		} while (more);
		for (; at; at--) {
			struct collision c;

			fill(&c, at);
			c.id = at;
			assert_false(wanted(&f, &c));
		}
	}
	assert_true(told > 2000 && pages > 2000);
	store_close(s);
}

/* The newest are kept; ids go on counting, whatever has gone. */
static void test_trim(void **state)
{
	struct store_collision_filter any = { 0 };
	struct store_options o = store_defaults();
	struct store *s = NULL;

	(void)state;
	assert_int_equal(o.collision_max, 10000);
	o.collision_max = 50;
	assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), 0);
	add(s, 1, 50);
	assert_int_equal(list(s, &any), 50);
	add(s, 51, 1);
	assert_int_equal(list(s, &any), 50);
	check_row(&heard.list[49], 2);
	add(s, 52, 120); /* more at once than are kept */
	assert_int_equal(list(s, &any), 50);
	check_row(&heard.list[0], 171);
	check_row(&heard.list[49], 122);
	store_collisions_keep(s, 60);
	add(s, 172, 20);
	assert_int_equal(list(s, &any), 60);
	store_collisions_keep(s, 1);
	assert_int_equal(list(s, &any), 60);
	add(s, 192, 1);
	assert_int_equal(list(s, &any), 1);
	check_row(&heard.list[0], 192);
	store_close(s);

	assert_int_equal(sql("DELETE FROM collision"), -1);
	s = open_ok();
	add(s, 193, 2);
	store_close(s);
}

/* A store of the schema before has no collisions yet; all else stays. */
static void test_older_schema(void **state)
{
	struct store_collision_filter any = { 0 };
	struct store *s;

	(void)state;
	prepare(5);
	sql("DROP TABLE collision");
	sql("PRAGMA user_version = 2");
	s = open_ok();
	assert_int_equal(loaded_mask(s, NULL), 5);
	assert_int_equal(list(s, &any), 0);
	add(s, 1, 3);
	store_close(s);
	assert_int_equal(sql("PRAGMA user_version"), SCHEMA);
}

/* Rows that are none are refused where they are met; nothing else suffers. */
static void test_damaged_rows(void **state)
{
	static const char *const damage[] = {
		"kind = 'fate'",
		"source = 'hearsay'",
		"source = 'dump '",
		"proto = 'icmp'",
		"netns = '0123456789012345678901234567890123456789012345678901234567890123'",
		"delay_us = -1",
		"delay_us = 4294967295",
		"pid = -1",
		"pid = 2147483648",
		"uid = -1",
		"uid = 4294967296",
		"comm = '0123456789012345'",
		"comm = 'a' || char(0) || 'b'",
		"cgroup = hex(zeroblob(128))",
		"owner = 'somebody else'",
	};
	struct store_collision_filter f = { 0 };
	struct store *s = open_ok();
	char text[256];

	(void)state;
	add(s, 1, 9);
	for (size_t i = 0; i < sizeof(damage) / sizeof(damage[0]); i++) {
		snprintf(text, sizeof(text), "UPDATE collision SET %s WHERE id = 5", damage[i]);
		sql("CREATE TABLE was AS SELECT * FROM collision WHERE id = 5");
		sql(text);
		heard.n = heard.stop_at = 0;
		if (store_collisions_list(s, &f, hear, &heard, &err) != -EUCLEAN)
			fail_msg("%s: it was taken", damage[i]);
		assert_non_null(strstr(err.s, "collision 5 is damaged"));
		assert_int_equal(heard.n, 4);
		assert_int_equal(f.before_id, 0);
		assert_false(store_must_reopen(s));
		f.before_id = 5;
		assert_int_equal(list(s, &f), 4);
		f.before_id = 0;
		sql("DELETE FROM collision WHERE id = 5");
		sql("INSERT INTO collision SELECT * FROM was");
		sql("DROP TABLE was");
		assert_int_equal(list(s, &f), 9);
		check_row(&heard.list[4], 5);
	}
	add(s, 10, 1);
	store_close(s);
}

/* What the table itself forbids makes a store damaged as a whole, like anything else in it that can't be. */
static void test_damaged_store(void **state)
{
	static const char *const damage[] = { "wire = 65536", "bound = -1",  "src = x'00'",
					      "in_slice = 2", "healed = -1", "dport = 99999" };
	char text[256];
	sqlite3 *db;

	(void)state;
	for (size_t i = 0; i < sizeof(damage) / sizeof(damage[0]); i++) {
		struct store *s = open_ok();

		add(s, 1, 2);
		store_close(s);
		snprintf(text, sizeof(text),
			 "PRAGMA ignore_check_constraints = ON; UPDATE collision SET %s",
			 damage[i]);
		assert_int_equal(sqlite3_open(file, &db), SQLITE_OK);
		assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
		sqlite3_close(db);
		untouched_when_refused(MACHINE, EUCLEAN, "damaged", "CHECK");
		remove_tree(dir);
	}
}

/*
 * Each operation fails in turn, the disk being full or broken: a call that says so has stored nothing, and one that does not has stored
 * everything; ids stay in order. A full disk is no reason to open the store anew.
 */
static void test_disk(void **state)
{
	static const enum faultvfs_kind kinds[] = { FAULTVFS_FULL, FAULTVFS_IOERR };
	struct store_collision_filter any = { 0 };
	struct store_options o = store_defaults();
	struct collision more[40];
	unsigned failed[2] = { 0 }; /* ENOSPC, EIO */

	(void)state;
	o.vfs = "faulty";
	o.collision_max = 30;
	for (int k = 0; k < 2; k++) {
		unsigned long hits = 1;

		for (unsigned long at = 1; hits; at++) {
			struct store *s = NULL;
			size_t n;
			int r;

			assert_int_equal(store_open_with(dir, MACHINE, &o, &s, &err), 0);
			add(s, 1, 20);
			for (unsigned i = 0; i < 40; i++)
				fill(&more[i], 21 + i);
			faultvfs_arm(kinds[k], at, false);
			r = store_collisions_add(s, more, 40, &err);
			hits = faultvfs.hits;
			faultvfs_arm(FAULTVFS_NONE, 0, false);
			if (r) {
				failed[r == -EIO]++;
				assert_true(r == -ENOSPC || r == -EIO);
				assert_int_equal(more[0].id, 0);
				assert_true(r != -ENOSPC || !store_must_reopen(s));
				if (store_must_reopen(s)) {
					assert_int_equal(store_collisions_add(s, more, 1, &err),
							 -EIO);
					assert_int_equal(
						store_collisions_list(s, &any, hear, &heard, &err),
						-EIO);
				} else {
					assert_int_equal(list(s, &any), 20);
					add(s, 21, 1);
				}
			}
			store_close(s);
			s = open_ok();
			n = list(s, &any);
			/* After a broken write nobody knows until the file is read again: all, or nothing. */
			if (n == 30)
				check_row(&heard.list[29], 31);
			else
				assert_true(r && (n == 20 || n == 21));
			check_row(&heard.list[0], n == 30 ? 60 : (unsigned)n);
			store_close(s);
			remove_tree(dir);
		}
	}
	assert_true(failed[0] >= 1 && failed[1] >= 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_in_and_out),   TEST(test_filters),      TEST(test_trim),
		TEST(test_older_schema), TEST(test_damaged_rows), TEST(test_damaged_store),
		TEST(test_disk),
	};

	faultvfs_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
