/* SPDX-License-Identifier: BSD-2-Clause */
/* `sluice collisions`, against a daemon in another process: what it asks, prints, and ends with. And what monitor makes of one. */
#include "cmd_test.h"
#include "fakelease.h"

static pid_t server;

static struct cmd ask(void)
{
	return (struct cmd){ .socket = fake_path, .timeout_ms = 20000, .header = true };
}

#define ROW                                                                                    \
	"\"id\":17,\"time\":\"2026-11-24T10:00:00.000Z\",\"kind\":\"rewrite\",\"netns\":\"\"," \
	"\"proto\":\"tcp\",\"src\":\"203.0.113.7\",\"bound\":\"203.0.113.7:41000\","           \
	"\"bound_port\":41000,\"wire\":\"203.0.113.7:60164\",\"wire_port\":60164,"             \
	"\"dst\":\"198.51.100.9:443\",\"dst_port\":443,\"in_slice\":false,"                    \
	"\"source\":\"ctnetlink\",\"resolved\":false,\"healed\":true,\"delay_us\":321,"        \
	"\"socket\":{\"pid\":4711,\"comm\":\"crawler\",\"uid\":1000,\"cgroup\":\"/\","         \
	"\"inode\":5,\"cookie\":77},\"owner\":{\"kind\":\"flow\",\"src\":\"10.1.0.2\","        \
	"\"sport\":5000,\"dst\":\"198.51.100.9\",\"dport\":443}"
#define ROW6                                                                                    \
	"\"id\":16,\"time\":\"2026-11-24T09:00:00.000Z\",\"kind\":\"risk\",\"netns\":\"blue\"," \
	"\"proto\":\"udp\",\"src\":\"2001:db8::7\",\"bound\":\"[2001:db8::7]:41000\","          \
	"\"bound_port\":41000,\"wire\":\"[2001:db8::7]:41000\",\"wire_port\":41000,"            \
	"\"dst\":\"[2001:db8:9::1]:53\",\"dst_port\":53,\"in_slice\":true,"                     \
	"\"source\":\"inventory\",\"resolved\":false,\"healed\":false,\"delay_us\":null,"       \
	"\"socket\":{\"pid\":0,\"comm\":\"\",\"uid\":1000,\"cgroup\":\"\",\"inode\":0,"         \
	"\"cookie\":0},\"owner\":null"

static void test_table(void **state)
{
	struct cmd cmd = ask();

	(void)state;
	FAKE_REPLIES("{\"collisions\":[{" ROW "}]}", "{\"collisions\":[{" ROW6 "}]}");
	assert_int_equal(run(cmd_collisions, &cmd), CMD_OK);
	assert_string_equal(fake->params, "{}");
	assert_string_equal(
		output,
		"TIME                     KIND    NETNS PROTO BOUND               WIRE             "
		"   DST                IN-SLICE SOURCE     PID COMMAND OWNER\n"
		"2026-11-24T10:00:00.000Z rewrite -     tcp   203.0.113.7:41000   203.0.113.7:60164"
		"   198.51.100.9:443   no       ctnetlink 4711 crawler flow 10.1.0.2:5000\n"
		"2026-11-24T09:00:00.000Z risk    blue  udp   [2001:db8::7]:41000 "
		"[2001:db8::7]:41000 [2001:db8:9::1]:53 yes      inventory    - -       -\n");
	/* A newer daemon may say less than we know. */
	FAKE_REPLIES("{\"collisions\":[{\"id\":1,\"owner\":7,\"in_slice\":3,\"socket\":[]}]}");
	cmd.header = false;
	assert_int_equal(run(cmd_collisions, &cmd), CMD_OK);
	assert_int_equal(strspn(output, "- \n"), strlen(output));
	assert_int_equal(output_has("-"), 12);
}

static void test_asks(void **state)
{
	struct cmd cmd = ask();
	json_t *root;

	(void)state;
	cmd.json = true;
	cmd.kind = "rewrite";
	cmd.proto = "udp";
	cmd.netns = "";
	cmd.in_slice = -1;
	cmd.since = "2026-11-24T12:30:00+02:00";
	cmd.limit = 5;
	FAKE_REPLIES("{\"collisions\":[{" ROW "},{" ROW6 "}]}");
	assert_int_equal(run(cmd_collisions, &cmd), CMD_OK);
	assert_string_equal(fake->params,
			    "{\"in_slice\":false,\"kind\":\"rewrite\",\"limit\":5,\"netns\":\"\","
			    "\"proto\":\"udp\",\"since\":\"2026-11-24T10:30:00.000Z\"}");
	root = json_loads(output, JSON_REJECT_DUPLICATES, NULL);
	assert_int_equal(json_array_size(json_object_get(root, "collisions")), 2);
	json_decref(root);
	cmd = ask();
	cmd.in_slice = 1;
	cmd.netns = "blue";
	FAKE_REPLIES("{\"collisions\":[]}");
	assert_int_equal(run(cmd_collisions, &cmd), CMD_OK);
	assert_string_equal(fake->params, "{\"in_slice\":true,\"netns\":\"blue\"}");
	assert_memory_equal(output, "TIME KIND ", 10);

	fake->calls = 0;
	cmd.since = "yesterday";
	assert_int_equal(run(cmd_collisions, &cmd), CMD_USAGE);
	assert_non_null(strstr(output, "--since: \"yesterday\" is no time"));
	cmd.since = "2026-11-24T12:30:00Z";
	cmd.follow = true;
	assert_int_equal(run(cmd_collisions, &cmd), CMD_USAGE);
	assert_non_null(strstr(output, "no --since"));
	assert_int_equal(fake->calls, 0);
	cmd = ask();
	fake_say("io.sluice.Denied", "{\"text\":\"because\"}", 1);
	assert_int_equal(run(cmd_collisions, &cmd), CMD_DENIED);
	assert_string_equal(output, "sluice: because\n");
}

#define EVENTS                                                                                \
	"{\"time\":\"T\",\"event\":\"subscribed\"}", "{\"event\":\"collision\"," ROW "}",     \
		"{\"time\":\"T\",\"event\":\"resolved\",\"kind\":\"rewrite\"}",               \
		"{\"time\":\"T\",\"event\":\"lease\"}", "{\"event\":\"collision\"," ROW6 "}", \
		"{\"time\":\"T\",\"event\":\"lost\",\"count\":9}",                            \
		"{\"event\":\"collision\"," ROW "}"

static void test_follow(void **state)
{
	static const struct {
		struct cmd cmd;
		unsigned v4, v6;
	} cases[] = {
		{ { .kind = NULL }, 2, 1 },
		{ { .kind = "rewrite" }, 2, 0 },
		{ { .kind = "risk" }, 0, 1 },
		{ { .proto = "tcp" }, 2, 0 },
		{ { .proto = "udp" }, 0, 1 },
		{ { .netns = "" }, 2, 0 },
		{ { .netns = "blue" }, 0, 1 },
		{ { .netns = "red" }, 0, 0 },
		{ { .in_slice = 1 }, 0, 1 },
		{ { .in_slice = -1 }, 2, 0 },
		{ { .limit = 1 }, 1, 0 },
		{ { .limit = 2 }, 1, 1 },
		{ { .limit = 3 }, 2, 1 },
		{ { .limit = 4 }, 2, 1 },
		{ { .limit = 1, .proto = "udp" }, 0, 1 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (int json = 0; json < 2; json++) {
			struct cmd cmd = cases[i].cmd;

			cmd.socket = fake_path;
			cmd.timeout_ms = 20000;
			cmd.follow = true;
			cmd.json = json;
			FAKE_REPLIES(EVENTS);
			assert_int_equal(run(cmd_collisions, &cmd), CMD_OK);
			assert_string_equal(fake->params, "{}");
			assert_int_equal(output_has("2026-11-24T10"), cases[i].v4);
			assert_int_equal(output_has("2026-11-24T09"), cases[i].v6);
			assert_int_equal(output_has("resolved\"}") + output_has("lease"), 0);
			if (!cmd.limit)
				assert_int_equal(
					output_has(json ? "\"count\":9" : "9 events were lost"), 1);
			for (char *line = output; json && *line;) {
				char *end = strchr(line, '\n');
				json_t *j;

				assert_non_null(end);
				*end = '\0';
				j = json_loads(line, 0, NULL);
				assert_non_null(j);
				json_decref(j);
				line = end + 1;
			}
		}
}

static void test_follow_lines(void **state)
{
	struct cmd cmd = ask();

	(void)state;
	cmd.follow = true;
	cmd.limit = 2;
	FAKE_REPLIES(EVENTS);
	assert_int_equal(run(cmd_collisions, &cmd), CMD_OK);
	assert_string_equal(
		output,
		"TIME                     KIND    NETNS    PROTO BOUND                 WIRE        "
		"  "
		"        DST                   IN-SLICE SOURCE        PID COMMAND         OWNER\n"
		"2026-11-24T10:00:00.000Z rewrite -        tcp   203.0.113.7:41000     "
		"203.0.113.7:60164     198.51.100.9:443      no       ctnetlink    4711 crawler    "
		" "
		"    flow 10.1.0.2:5000\n"
		"2026-11-24T09:00:00.000Z risk    blue     udp   [2001:db8::7]:41000   "
		"[2001:db8::7]:41000   [2001:db8:9::1]:53    yes      inventory       - -          "
		" "
		"    -\n");
	/* The daemon goes: that is no good end. */
	cmd.limit = 0;
	FAKE_REPLIES("{\"time\":\"T\",\"event\":\"subscribed\"}", "{}");
	fake->n_bytes = strlen(fake->bytes) + 1;
	assert_int_equal(run(cmd_collisions, &cmd), CMD_UNREACHABLE);
}

static void test_monitor(void **state)
{
	struct cmd cmd = ask();

	(void)state;
	FAKE_REPLIES("{\"event\":\"collision\"," ROW "}", "{\"event\":\"collision\"," ROW6 "}");
	assert_int_equal(run(cmd_monitor, &cmd), CMD_OK);
	assert_string_equal(
		output,
		"2026-11-24T10:00:00.000Z collision rewrite tcp 203.0.113.7:41000 -> "
		"198.51.100.9:443 as 203.0.113.7:60164 by crawler (pid 4711, uid 1000), escaped, "
		"healed, flow 10.1.0.2:5000\n"
		"2026-11-24T09:00:00.000Z collision risk udp [2001:db8::7]:41000 -> "
		"[2001:db8:9::1]:53 as [2001:db8::7]:41000 by  (pid 0, uid 1000), netns=blue\n");
}

static void test_status(void **state)
{
	struct cmd cmd = ask();

	(void)state;
	FAKE_REPLIES(
		"{\"machine\":\"edge1\",\"watch\":{\"namespaces\":[\"\",\"blue\"],\"told\":{"
		"\"ctnetlink\":{\"in_slice\":1,\"escaped\":2},\"dump\":{\"in_slice\":4,"
		"\"escaped\":8}},\"losses\":{\"ctnetlink\":16,\"netfilter\":32},\"healed\":5}}");
	assert_int_equal(run(cmd_status, &cmd), CMD_OK);
	assert_non_null(strstr(output,
			       "watch      2 namespaces, 15 collisions, 10 escaped, 5 healed; "
			       "events lost 48 times\n"));
	FAKE_REPLIES("{\"machine\":\"edge1\",\"watch\":null}");
	assert_int_equal(run(cmd_status, &cmd), CMD_OK);
	assert_null(strstr(output, "watch"));
}

static int setup(void **state)
{
	(void)state;
	if (fake_setup() < 0)
		return -1;
	server = fake_start();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_stop(server);
	free(output);
	return fake_teardown();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),   cmocka_unit_test(test_asks),
		cmocka_unit_test(test_follow),  cmocka_unit_test(test_follow_lines),
		cmocka_unit_test(test_monitor), cmocka_unit_test(test_status),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
