/* SPDX-License-Identifier: BSD-2-Clause */
/* Collisions over the control socket: what a row looks like, who sees which, filters, long listings. */
#include "control_test.h"

#include <ftw.h>

#include "clock.h"
#include "methods.h"
#include "methods_collide.h"
#include "store_collision.h"

static char base[64], dir[80];
static struct store *store;
static struct collisions collisions;
static struct methods methods;
static struct control *server;

/* The watcher, as methods_watch_json() asks it. */
struct watcher {
	struct watch_stats stats;
	const char *netns[3];
};

struct watch_stats watch_stats(const struct watcher *w)
{
	return w->stats;
}

const char *watch_netns(const struct watcher *w, size_t i)
{
	return w->netns[i];
}

static const struct control_method table[] = { METHODS_LIST_COLLISIONS };

static int setup(void **state)
{
	struct control_options o = {
		.interface = "io.sluice",
		.description = control_io_sluice,
		.methods = table,
		.n_methods = 1,
		.data = &methods,
		.open = true,
	};
	struct errtext err;

	(void)state;
	snprintf(base, sizeof(base), "%s/sluice-test-collide.XXXXXX",
		 access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	if (!mkdtemp(base))
		return -1;
	snprintf(dir, sizeof(dir), "%s/state", base);
	if (store_open(dir, "edge1", &store, &err) < 0 || control_open(&o, &server, &err) < 0)
		return -1;
	collisions_init(&collisions, clock_boot_ns());
	collisions.store = store;
	methods.collisions = &collisions;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static int teardown(void **state)
{
	(void)state;
	control_close(server);
	collisions_done(&collisions);
	store_close(store);
	return nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static struct addr addr(const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse(text, &a), 0);
	return a;
}

static void add(struct collision *c)
{
	struct errtext err;

	if (store_collisions_add(store, c, 1, &err) < 0)
		fail_msg("%s", err.s);
}

static struct collision sample(void)
{
	return (struct collision){
		.time_ms = 1764000000123,
		.kind = COLLISION_REWRITE,
		.source = COLLISION_CTNETLINK,
		.netns = "blue",
		.l4 = SLUICE_TCP,
		.src = addr("203.0.113.7"),
		.dst = addr("198.51.100.9"),
		.bound = 41000,
		.wire = 60164,
		.dport = 443,
		.delay_us = 321,
		.pid = 4711,
		.uid = 1000,
		.inode = 5,
		.cookie = 77,
		.comm = "crawler",
		.cgroup = "/system.slice/crawler.service",
		.owner = { "flow", addr("10.1.0.2"), addr("198.51.100.9"), 5000, 443 },
	};
}

static void expect_json(json_t *got, const char *want)
{
	char *text = json_dumps(got, JSON_COMPACT);

	assert_string_equal(text, want);
	free(text);
	json_decref(got);
}

static void test_row(void **state)
{
	struct collision c = sample();
	json_t *j, *row;

	(void)state;
	c.id = 17;
	expect_json(methods_collision_json(&c),
		    "{\"id\":17,\"time\":\"2025-11-24T16:00:00.123Z\",\"kind\":\"rewrite\","
		    "\"netns\":\"blue\",\"proto\":\"tcp\",\"src\":\"203.0.113.7\","
		    "\"bound\":\"203.0.113.7:41000\",\"bound_port\":41000,"
		    "\"wire\":\"203.0.113.7:60164\",\"wire_port\":60164,"
		    "\"dst\":\"198.51.100.9:443\",\"dst_port\":443,\"in_slice\":false,"
		    "\"source\":\"ctnetlink\",\"resolved\":false,\"healed\":false,\"delay_us\":321,"
		    "\"socket\":{\"pid\":4711,\"comm\":\"crawler\",\"uid\":1000,"
		    "\"cgroup\":\"/system.slice/crawler.service\",\"inode\":5,\"cookie\":77},"
		    "\"owner\":{\"kind\":\"flow\",\"src\":\"10.1.0.2\",\"sport\":5000,"
		    "\"dst\":\"198.51.100.9\",\"dport\":443}}");
	j = methods_collision_event(&c);
	assert_string_equal(json_string_value(json_object_get(j, "event")), "collision");
	json_object_del(j, "event");
	row = methods_collision_json(&c);
	assert_true(json_equal(j, row));
	json_decref(row);
	json_decref(j);

	/* Little is known; IPv6; names that are no UTF-8. */
	c = (struct collision){ .kind = COLLISION_RISK,
				.source = COLLISION_INVENTORY,
				.l4 = SLUICE_UDP,
				.src = addr("2001:db8::7"),
				.dst = addr("2001:db8:9::1"),
				.bound = 41000,
				.wire = 41000,
				.dport = 53,
				.in_slice = true,
				.resolved = true,
				.healed = true,
				.delay_us = UINT32_MAX };
	strcpy(c.comm, "b\xff"
		       "d");
	strcpy(c.cgroup, "/\xc3\xa9\x80");
	expect_json(
		methods_collision_json(&c),
		"{\"id\":0,\"time\":\"1970-01-01T00:00:00.000Z\",\"kind\":\"risk\",\"netns\":\"\","
		"\"proto\":\"udp\",\"src\":\"2001:db8::7\",\"bound\":\"[2001:db8::7]:41000\","
		"\"bound_port\":41000,\"wire\":\"[2001:db8::7]:41000\",\"wire_port\":41000,"
		"\"dst\":\"[2001:db8:9::1]:53\",\"dst_port\":53,\"in_slice\":true,"
		"\"source\":\"inventory\",\"resolved\":true,\"healed\":true,\"delay_us\":null,"
		"\"socket\":{\"pid\":0,\"comm\":\"b?d\",\"uid\":0,\"cgroup\":\"/\?\?\?\","
		"\"inode\":0,\"cookie\":0},\"owner\":null}");
}

static void test_watch(void **state)
{
	struct watcher w = { .stats = { .observed = { 1, 2 },
					.told = { 3, 4 },
					.risks = 5,
					.losses = { 6, 7 },
					.resyncs = 8,
					.healed = 9,
					.heal_failed = 10,
					.no_socket = 11 },
			     .netns = { "", "\xff" } };

	(void)state;
	assert_true(json_is_null(methods_watch_json(NULL, &collisions)));
	collisions.told[0][0] = 12;
	collisions.told[4][1] = 13;
	collisions.unstored = 14;
	collisions.overflow = 15;
	expect_json(methods_watch_json(&w, &collisions),
		    "{\"namespaces\":[\"\",\"?\"],\"observed\":{\"ctnetlink\":1,\"netfilter\":2},"
		    "\"told\":{\"ctnetlink\":{\"in_slice\":0,\"escaped\":12},"
		    "\"netfilter\":{\"in_slice\":0,\"escaped\":0},"
		    "\"dump\":{\"in_slice\":0,\"escaped\":0},"
		    "\"dataplane\":{\"in_slice\":0,\"escaped\":0},"
		    "\"inventory\":{\"in_slice\":13,\"escaped\":0}},\"risks\":5,"
		    "\"losses\":{\"ctnetlink\":6,\"netfilter\":7},\"resyncs\":8,\"healed\":9,"
		    "\"heal_failed\":10,\"no_socket\":11,\"unstored\":14,\"overflow\":15}");
}

/* The ids of a listing, as "3 2 1"; how many replies it took. Or an error: its name and parameters. */
static char listed[65536];

static unsigned list(struct peer *p, const char *parameters, bool more)
{
	unsigned replies = 0;
	bool on = true;
	char call[512];
	size_t n = 0;

	snprintf(call, sizeof(call),
		 "{\"method\":\"io.sluice.ListCollisions\",\"parameters\":%s,\"more\":%s}",
		 parameters, more ? "true" : "false");
	peer_send(p, call);
	listed[0] = '\0';
	while (on) {
		struct varlink_reply r = peer_next(p);
		json_t *row, *rows;
		size_t i;

		assert_non_null(r.root);
		replies++;
		if (r.error) {
			char *text = json_dumps(r.parameters, JSON_COMPACT);

			snprintf(listed, sizeof(listed), "%s %s", r.error, text);
			free(text);
			varlink_reply_done(&r);
			break;
		}
		rows = json_object_get(r.parameters, "collisions");
		assert_true(json_is_array(rows));
		json_array_foreach(rows, i, row)
		{
			n += (size_t)snprintf(listed + n, sizeof(listed) - n,
					      n ? " %" JSON_INTEGER_FORMAT
						: "%" JSON_INTEGER_FORMAT,
					      json_integer_value(json_object_get(row, "id")));
		}
		on = r.continues;
		varlink_reply_done(&r);
	}
	return replies;
}

static void expect_listed(struct peer *p, const char *parameters, const char *want)
{
	list(p, parameters, true);
	if (strcmp(listed, want) != 0)
		fail_msg("%s: \"%s\", wanted \"%s\"", parameters, listed, want);
}

/* Four that differ in everything that can be asked for. */
static void add_four(void)
{
	struct collision c = sample();

	add(&c);
	c.kind = COLLISION_RISK;
	c.source = COLLISION_INVENTORY;
	c.time_ms += 1000;
	add(&c);
	c.l4 = SLUICE_UDP;
	c.netns[0] = '\0';
	c.source = COLLISION_DATAPLANE;
	c.time_ms += 1000;
	c.uid = 61234;
	add(&c);
	c.kind = COLLISION_REWRITE;
	c.in_slice = true;
	c.source = COLLISION_DUMP | COLLISION_INVENTORY;
	c.time_ms += 1000;
	add(&c);
}

static void test_filters(void **state)
{
	static const struct {
		const char *params, *want;
	} cases[] = {
		{ "{}", "4 3 2 1" },
		{ "{\"kind\":null,\"limit\":null,\"in_slice\":null}", "4 3 2 1" },
		{ "{\"kind\":\"rewrite\"}", "4 1" },
		{ "{\"kind\":\"risk\"}", "3 2" },
		{ "{\"proto\":\"tcp\"}", "2 1" },
		{ "{\"proto\":\"udp\"}", "4 3" },
		{ "{\"netns\":\"\"}", "4 3" },
		{ "{\"netns\":\"blue\"}", "2 1" },
		{ "{\"netns\":\"elsewhere\"}", "" },
		{ "{\"in_slice\":true}", "4" },
		{ "{\"in_slice\":false}", "3 2 1" },
		{ "{\"source\":\"inventory\"}", "2" },
		{ "{\"source\":\"dump\"}", "4" },
		{ "{\"since\":\"2025-11-24T16:00:01.123Z\"}", "4 3 2" },
		{ "{\"since\":\"2025-11-24T18:00:01.124+02:00\"}", "4 3" },
		{ "{\"since\":\"2026-01-01T00:00:00Z\"}", "" },
		{ "{\"since\":\"1969-01-01T00:00:00Z\"}", "4 3 2 1" },
		{ "{\"limit\":1}", "4" },
		{ "{\"limit\":2,\"proto\":\"tcp\",\"kind\":\"rewrite\"}", "1" },
#define INVALID(name) "org.varlink.service.InvalidParameter {\"parameter\":\"" name "\"}"
		{ "{\"kind\":\"fate\"}", INVALID("kind") },
		{ "{\"kind\":\"\"}", INVALID("kind") },
		{ "{\"proto\":\"icmp\"}", INVALID("proto") },
		{ "{\"source\":\"hearsay\"}", INVALID("source") },
		{ "{\"source\":\"\"}", INVALID("source") },
		{ "{\"since\":\"yesterday\"}", INVALID("since") },
		{ "{\"in_slice\":1}", INVALID("in_slice") },
		{ "{\"limit\":0}", INVALID("limit") },
		{ "{\"uid\":0}", INVALID("uid") },
		{ "{\"netns\":"
		  "\"0123456789012345678901234567890123456789012345678901234567890123\"}",
		  INVALID("netns") },
	};
	struct peer p = peer_new(server);

	(void)state;
	add_four();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect_listed(&p, cases[i].params, cases[i].want);
	peer_close(&p);
}

/* Everybody sees what hit his own sockets, and nothing of whom they ran into. */
static void test_strangers(void **state)
{
	struct varlink_reply r;
	struct peer p;
	json_t *row;
	int fds[2];

	(void)state;
	if (geteuid() != 0)
		skip();
	add_four();
	assert_int_equal(seteuid(61234), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(control_adopt(server, fds[1]), 0);
	p = peer_of(server, fds[0]);
	expect_listed(&p, "{}", "4 3");
	expect_listed(&p, "{\"netns\":\"blue\"}", "");
	peer_send(&p, "{\"method\":\"io.sluice.ListCollisions\",\"parameters\":{\"limit\":1}}");
	r = peer_next(&p);
	row = json_array_get(json_object_get(r.parameters, "collisions"), 0);
	assert_true(json_is_null(json_object_get(row, "owner")));
	assert_int_equal(json_integer_value(json_object_get(row, "id")), 4);
	varlink_reply_done(&r);
	peer_close(&p);
}

/* A long history comes in many replies, whole, though rows that nobody asked for lie in between, and new ones come. */
static void test_long(void **state)
{
	static struct collision many[3000];
	struct collision one = sample();
	struct errtext err;
	unsigned replies;
	struct peer p = peer_new(server);
	const char *at;

	(void)state;
	for (size_t i = 0; i < 3000; i++) {
		many[i] = sample();
		/* Two in the oldest part, nothing for long before. */
		if (i == 3 || i == 7)
			many[i].l4 = SLUICE_UDP;
	}
	assert_int_equal(store_collisions_add(store, many, 3000, &err), 0);
	expect_listed(&p, "{\"proto\":\"udp\"}", "8 4");
	expect_listed(&p, "{\"proto\":\"udp\",\"limit\":1}", "8");
	expect_listed(&p, "{\"limit\":70,\"in_slice\":true}", "");
	replies = list(&p, "{}", true);
	assert_true(replies > 10);
	at = listed;
	for (long id = 3000; id > 0; id--) {
		char *end;

		assert_int_equal(strtol(at, &end, 10), id);
		at = end;
	}
	assert_string_equal(at, "");
	/* Without `more`: what fits. */
	list(&p, "{}", false);
	assert_memory_equal(listed, "org.varlink.service.ExpectedMore", 32);
	list(&p, "{\"limit\":3}", false);
	assert_string_equal(listed, "3000 2999 2998");
	/* While one is read, others are stored. */
	peer_send(&p, "{\"method\":\"io.sluice.ListCollisions\",\"more\":true}");
	assert_int_equal(control_dispatch(server), 0);
	add(&one);
	for (bool on = true; on;) {
		struct varlink_reply r = peer_next(&p);

		assert_non_null(r.root);
		assert_null(r.error);
		on = r.continues;
		varlink_reply_done(&r);
	}
	peer_close(&p);
}

/* A store that is being opened anew has no rows. */
static void test_no_store(void **state)
{
	struct peer p = peer_new(server);

	(void)state;
	add_four();
	collisions.store = NULL;
	expect_listed(&p, "{}", "");
	collisions.store = store;
	expect_listed(&p, "{}", "4 3 2 1");
	peer_close(&p);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_row),       TEST(test_watch), TEST(test_filters),
		TEST(test_strangers), TEST(test_long),  TEST(test_no_store),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
