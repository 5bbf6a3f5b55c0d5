/* SPDX-License-Identifier: BSD-2-Clause */
/* The commands about leases, against a daemon in another process: what they ask, print, and end with. */
#include "cmd_test.h"
#include "fakelease.h"

static pid_t server;

static struct cmd ask(void)
{
	return (struct cmd){ .socket = fake_path, .timeout_ms = 20000, .header = true };
}

#define HOLDER "\"holder\":{\"pid\":4711,\"uid\":1000,\"comm\":\"crawler\",\"cgroup\":\"/\"}"
#define LEASE                                                                                      \
	"{\"id\":17,\"pool\":\"default\",\"proto\":\"tcp\",\"address\":\"203.0.113.7\",\"first\":" \
	"41000,\"last\":41063,\"kind\":\"shared\",\"state\":\"active\"," HOLDER                    \
	",\"until\":\"process\",\"name\":\"fetch\",\"labels\":\"\",\"created\":\"t\","             \
	"\"expires_s\":29,\"steered\":false}"
#define LEASE6                                                                                \
	"{\"id\":18,\"pool\":\"default\",\"proto\":\"udp\",\"address\":\"2001:db8::7\","      \
	"\"first\":41000,\"last\":41000,\"kind\":\"exclusive\",\"state\":\"cooling\"," HOLDER \
	",\"name\":\"\",\"expires_s\":null}"

static void test_leases(void **state)
{
	struct cmd cmd = ask();

	(void)state;
	FAKE_REPLIES("{\"leases\":[" LEASE "," LEASE6 "]}");
	cmd.pool = "default";
	cmd.proto = "tcp";
	cmd.port = 41000;
	cmd.by_uid = true;
	cmd.state = "active";
	assert_int_equal(run(cmd_leases, &cmd), CMD_OK);
	assert_string_equal(fake->params, "{\"pool\":\"default\",\"port\":41000,\"proto\":\"tcp\","
					  "\"state\":\"active\",\"uid\":0}");
	assert_string_equal(
		output,
		"ID POOL    PROTO PORTS                   KIND      STATE   EXPIRES  UID  PID "
		"COMMAND NAME\n"
		"17 default tcp   203.0.113.7:41000-41063 shared    active       29 1000 4711 "
		"crawler fetch\n"
		"18 default udp   [2001:db8::7]:41000     exclusive cooling       - 1000 4711 "
		"crawler -\n");
}

static void test_acquire(void **state)
{
	struct cmd cmd = ask();
	json_t *root;

	(void)state;
	assert_int_equal(run(cmd_acquire, &cmd), CMD_OK);
	/* The command ends at once: what is bound to it would as well. */
	assert_string_equal(fake->params, "{\"until\":\"release\"}");
	expect_output("ID POOL ");
	cmd = ask();
	cmd.json = true;
	cmd.pool = "default";
	cmd.proto = "tcp+udp";
	cmd.port = 41000;
	cmd.request = (struct cmd_request){ .tags = { "a=b", "c=d" },
					    .n_tags = 2,
					    .address = "203.0.113.7",
					    .exclusive = true,
					    .count = 4,
					    .leases = 2,
					    .align = 8,
					    .parity = "odd",
					    .ttl_s = 60,
					    .until = "pid",
					    .pid = 99,
					    .name = "n",
					    .labels = "x=y" };
	assert_int_equal(run(cmd_acquire, &cmd), CMD_OK);
	assert_string_equal(
		fake->params,
		"{\"address\":\"203.0.113.7\",\"align\":8,\"exclusive\":true,\"labels\":\"x=y\","
		"\"leases\":2,\"name\":\"n\",\"parity\":\"odd\",\"pid\":99,\"pool\":\"default\","
		"\"port\":41000,\"ports\":4,\"proto\":\"tcp+udp\",\"tags\":[\"a=b\",\"c=d\"],"
		"\"ttl\":60,\"until\":\"pid\"}");
	root = json_loads(output, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(root);
	assert_int_equal(json_array_size(json_object_get(root, "leases")), 2);
	json_decref(root);
}

static void test_renew_release(void **state)
{
	struct cmd cmd = ask();
	char *words[] = { (char[]){ "1" }, (char[]){ "2" }, (char[]){ "3" }, NULL };
	json_t *root;

	(void)state;
	fake->next = 0;
	for (int i = 0; i < 3; i++)
		assert_int_equal(run(cmd_acquire, &cmd), CMD_OK);
	cmd.operands = words;
	cmd.n_operands = 1;
	assert_int_equal(run(cmd_renew, &cmd), CMD_OK);
	assert_string_equal(fake->params, "{\"id\":1}");
	expect_output(" 1 default udp   203.0.113.7:40961 exclusive active ");
	cmd.request.ttl_s = 40;
	cmd.json = true;
	assert_int_equal(run(cmd_renew, &cmd), CMD_OK);
	root = json_loads(output, JSON_REJECT_DUPLICATES, NULL);
	assert_int_equal(json_integer_value(json_object_get(
				 json_array_get(json_object_get(root, "leases"), 0), "expires_s")),
			 40);
	json_decref(root);
	cmd.n_operands = 3;
	assert_int_equal(run(cmd_release, &cmd), CMD_OK);
	assert_string_equal(fake->params, "{\"ids\":[1,2,3]}");
	assert_string_equal(output, "{}\n");
	assert_int_equal(run(cmd_release, &cmd), CMD_FAILED);
	expect_output("sluice: lease 1 has ended, or never was\n");
	words[1] = (char[]){ "x2" };
	assert_int_equal(run(cmd_release, &cmd), CMD_USAGE);
	expect_output("\"x2\" is not the number of a lease");
	words[0] = (char[]){ "0" };
	assert_int_equal(run(cmd_renew, &cmd), CMD_USAGE);
}

static void test_ends(void **state)
{
	static const struct {
		const char *error;
		enum cmd_exit code;
	} ends[] = {
		{ "io.sluice.NoPorts", CMD_NO_PORTS },  { "io.sluice.Fenced", CMD_NO_PORTS },
		{ "io.sluice.Denied", CMD_DENIED },     { "io.sluice.QuotaExceeded", CMD_DENIED },
		{ "io.sluice.Conflict", CMD_CONFLICT }, { "io.sluice.NoSuchLease", CMD_FAILED },
		{ "io.sluice.NoSuchPool", CMD_FAILED }, { "io.sluice.Failed", CMD_FAILED },
	};
	struct cmd cmd = ask();

	(void)state;
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		fake_say(ends[i].error, "{\"text\":\"because\"}", 1);
		assert_int_equal(run(cmd_acquire, &cmd), ends[i].code);
		assert_string_equal(output, "sluice: because\n");
	}
	fake_be(FAKE_DROP, 1);
	assert_int_equal(run(cmd_acquire, &cmd), CMD_UNREACHABLE);
	fake_be(FAKE_HANG, 1);
	cmd.timeout_ms = 20;
	assert_int_equal(run(cmd_acquire, &cmd), CMD_TIMED_OUT);
}

static void test_sockets(void **state)
{
	struct cmd cmd = ask();

	(void)state;
	FAKE_REPLIES(
		"{\"sockets\":[{\"proto\":\"tcp\",\"local\":\"203.0.113.7\",\"lport\":41000,"
		"\"remote\":\"198.51.100.10\",\"rport\":80,\"state\":\"established\",\"uid\":1000,"
		"\"pid\":4711,\"comm\":\"curl\",\"cgroup\":null,\"inode\":9,\"pool\":\"default\","
		"\"lease\":17},{\"proto\":\"udp\",\"local\":\"203.0.113.7\",\"lport\":41001,"
		"\"remote\":null,\"rport\":null,\"state\":\"bound\",\"uid\":0,\"pid\":null,"
		"\"comm\":"
		"null,\"cgroup\":null,\"inode\":9,\"pool\":\"default\",\"lease\":null}]}");
	assert_int_equal(run(cmd_sockets, &cmd), CMD_OK);
	assert_string_equal(
		output,
		"PROTO LOCAL             REMOTE           STATE       LEASE  UID  PID COMMAND\n"
		"tcp   203.0.113.7:41000 198.51.100.10:80 established    17 1000 4711 curl\n"
		"udp   203.0.113.7:41001 *                bound           -    0    - -\n");
}

static void test_who(void **state)
{
	struct cmd cmd = ask();
	char *words[] = { (char[]){ "203.0.113.7:41000" }, NULL };

	(void)state;
	cmd.operands = words;
	cmd.n_operands = 1;
	cmd.proto = "tcp";
	cmd.at = "2026-11-24T12:30:00+02:00";
	FAKE_REPLIES(
		"{\"records\":[{\"what\":\"lease\",\"pool\":\"default\",\"address\":\"203.0.113."
		"7\","
		"\"first\":41000,\"last\":41063,\"proto\":\"tcp\",\"id\":17," HOLDER
		",\"name\":\"fetch\",\"began\":\"B\",\"ended\":\"E\",\"why\":\"released\"},{"
		"\"what\":"
		"\"slice\",\"pool\":\"default\",\"address\":\"203.0.113.7\",\"first\":40960,"
		"\"last\":"
		"43007,\"proto\":null,\"id\":null,\"holder\":null,\"name\":null,\"began\":\"A\","
		"\"ended\":null,\"why\":\"\"}]}");
	assert_int_equal(run(cmd_who, &cmd), CMD_OK);
	assert_string_equal(fake->params,
			    "{\"address\":\"203.0.113.7\",\"at\":\"2026-11-24T10:30:00.000Z\","
			    "\"port\":41000,\"proto\":\"tcp\"}");
	assert_string_equal(output, "WHAT  PORTS                   PROTO ID BEGAN ENDED WHY       "
				    "UID  PID COMMAND NAME\n"
				    "lease 203.0.113.7:41000-41063 tcp   17 B     E     released "
				    "1000 4711 crawler fetch\n"
				    "slice 203.0.113.7:40960-43007 -      - A     -     -          "
				    " -    - -       -\n");
	cmd.at = "yesterday";
	assert_int_equal(run(cmd_who, &cmd), CMD_USAGE);
	expect_output("\"yesterday\" is no time");
	words[0] = (char[]){ "203.0.113.7" };
	assert_int_equal(run(cmd_who, &cmd), CMD_USAGE);
	expect_output("is not ADDRESS:PORT");
}

static void test_parsing(void **state)
{
	static const struct {
		const char *text, *address; /* NULL: it is none */
		int port;
	} endpoints[] = {
		{ "203.0.113.7:1", "203.0.113.7", 1 },
		{ "[2001:DB8::7]:65535", "2001:db8::7", 65535 },
		{ "2001:db8::7:41000" },
		{ "203.0.113.7:0" },
		{ "203.0.113.7:65536" },
		{ "203.0.113.7:+1" },
		{ "203.0.113.7:1 " },
		{ ":1" },
		{ "[]:1" },
		{ "[2001:db8::7:1" },
		{ "[11111111111111111111111111111111111111111111111111111111111]:1" },
		{ "example.org:80" },
		{ "" },
	};
	static const struct {
		const char *text, *utc;
	} times[] = {
		{ "2026-11-24T10:00:00Z", "2026-11-24T10:00:00.000Z" },
		{ "2026-11-24 10:00:00z", "2026-11-24T10:00:00.000Z" },
		{ "2026-11-24 10:00:00 +00:30", "2026-11-24T09:30:00.000Z" },
		{ "2026-01-01T00:30:00.25+01:00", "2025-12-31T23:30:00.250Z" },
		{ "2024-02-29T23:59:59.9999-05:00", "2024-03-01T04:59:59.999Z" },
		{ "2026-11-24T10:00:00" },
		{ "2026-11-24T10:00:00.Z" },
		{ "2026-11-24T10:00:00+1:00" },
		{ "2026-11-24T10:00:00+01:00x" },
		{ "2026-11-24T10:00Z" },
		{ "2026-11-31T10:00:00Z" },
		{ "2026-02-29T10:00:00Z" },
		{ "1066-10-14T10:00:00Z" },
		{ "26-11-24T10:00:00Z" },
		{ "" },
	};
	char address[ADDR_STRLEN], utc[CMD_TIME_LEN];
	int port;

	(void)state;
	for (size_t i = 0; i < sizeof(endpoints) / sizeof(endpoints[0]); i++) {
		bool is = cmd_parse_endpoint(endpoints[i].text, address, &port);

		if (is != (endpoints[i].address != NULL))
			fail_msg("%s", endpoints[i].text);
		if (!is)
			continue;
		assert_string_equal(address, endpoints[i].address);
		assert_int_equal(port, endpoints[i].port);
	}
	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		bool is = cmd_parse_time(times[i].text, utc);

		if (is != (times[i].utc != NULL))
			fail_msg("%s", times[i].text);
		if (is)
			assert_string_equal(utc, times[i].utc);
	}
}

static void test_monitor(void **state)
{
	struct cmd cmd = ask();

	(void)state;
	FAKE_REPLIES("{\"time\":\"T\",\"event\":\"lease\",\"pool\":\"default\",\"proto\":\"tcp\","
		     "\"lease\":" LEASE ",\"text\":\"granted 203.0.113.7:41000-41063\"}");
	assert_int_equal(run(cmd_monitor, &cmd), CMD_OK);
	assert_string_equal(output,
			    "T lease granted 203.0.113.7:41000-41063 tcp shared, lease 17 of "
			    "pool default, crawler (pid 4711, uid 1000), fetch\n");
	FAKE_REPLIES("{\"time\":\"T\",\"event\":\"unleased\",\"pool\":\"default\"," HOLDER "}");
	assert_int_equal(run(cmd_monitor, &cmd), CMD_OK);
	assert_string_equal(output, "T unleased pool=default by crawler (pid 4711, uid 1000)\n");
}

/* In a process of its own, since it becomes the program. */
static char **exec_words;

static int exec_child(const struct cmd *cmd)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct cmd copy = *cmd;

		copy.operands = exec_words;
		_exit(cmd_exec(&copy));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void test_exec(void **state)
{
	char *look[] = { (char[]){ "sh" }, (char[]){ "-c" },
			 (char[]){ "ls -l /proc/self/fd; exit 17" }, NULL };
	char *none[] = { (char[]){ "/nonexistent/program" }, NULL };
	char *dir[] = { (char[]){ "/" }, NULL };
	struct cmd cmd = ask();

	(void)state;
	cmd.pool = "default";
	cmd.request.count = 4;
	exec_words = look;
	FAKE_REPLIES("{\"lease\":" LEASE ",\"cgroup\":\"/sluice/17\"}");
	assert_int_equal(run(exec_child, &cmd), 17);
	assert_string_equal(fake->params, "{\"pool\":\"default\",\"ports\":4}");
	/* Nothing of ours is open in there. */
	assert_null(strstr(output, "socket:"));
	cmd.request.id = 17;
	cmd.request.count = 0;
	cmd.pool = NULL;
	exec_words = none;
	FAKE_REPLIES("{\"lease\":" LEASE ",\"cgroup\":\"/sluice/17\"}");
	assert_int_equal(run(exec_child, &cmd), 127);
	assert_string_equal(fake->params, "{\"id\":17}");
	expect_output("sluice: /nonexistent/program: No such file or directory\n");
	exec_words = dir;
	FAKE_REPLIES("{\"lease\":" LEASE ",\"cgroup\":\"/sluice/17\"}");
	assert_int_equal(run(exec_child, &cmd), 126);
	/* Refused: the program does not run. */
	exec_words = look;
	fake_say("io.sluice.NoPorts", "{\"text\":\"used up\"}", 1);
	assert_int_equal(run(exec_child, &cmd), 125);
	assert_string_equal(output, "sluice: used up\n");
	cmd.socket = "/nonexistent/socket";
	assert_int_equal(run(exec_child, &cmd), 125);
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
	free(output);
	fake_stop(server);
	return fake_teardown();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_leases),        cmocka_unit_test(test_acquire),
		cmocka_unit_test(test_renew_release), cmocka_unit_test(test_ends),
		cmocka_unit_test(test_sockets),       cmocka_unit_test(test_who),
		cmocka_unit_test(test_parsing),       cmocka_unit_test(test_monitor),
		cmocka_unit_test(test_exec),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
