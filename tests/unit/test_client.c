/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The client and the commands, against a server in another process: what they print, how they end,
 * and what they make of daemons that are gone, hang, or talk nonsense.
 */
#include "control_test.h"

#include "client.h"
#include "cmd_test.h"
#include "fakelease.h"

/* ---- servers ---- */

struct listing_state {
	int64_t at, count;
	bool flows;
};

static int listing_next(void *state, json_t **ret)
{
	struct listing_state *w = state;

	if (w->at == w->count)
		return 0;
	if (w->flows)
		*ret = json_pack("{s:s, s:s, s:{s:s, s:I, s:s, s:i}, s:{s:s, s:i}, s:s, s:i}",
				 "pool", "default", "proto", "tcp", "inner", "src", "10.1.0.2",
				 "sport", (json_int_t)(w->at + 1), "dst", "2001:db8::1", "dport",
				 80, "outer", "src", "203.0.113.7", "sport", 41000, "state",
				 "established", "expires_s", 7200);
	else
		*ret = json_pack("{s:s, s:s, s:i, s:i, s:s, s:i, s:n, s:{s:i, s:i, s:i}}", "pool",
				 "default", "address", "203.0.113.7", "first", 40960, "last", 43007,
				 "state", "held", "epoch", 3, "expires_s", "used", "tcp", 1, "udp",
				 2, "icmp", 3);
	w->at++;
	return *ret ? 1 : -ENOMEM;
}

static int list_rows(struct control_call *call, const char *key, int64_t count)
{
	static const struct control_rows flows = { "flows", listing_next, free };
	static const struct control_rows slices = { "slices", listing_next, free };
	struct listing_state *w = calloc(1, sizeof(*w));

	if (w) {
		w->count = count;
		w->flows = strcmp(key, "flows") == 0;
	}
	return control_stream(call, w && w->flows ? &flows : &slices, w);
}

/* As many rows as the port asked for. */
static int fake_flows(struct control_call *call, void *data)
{
	int64_t port = 0;

	(void)data;
	if (control_param_int(call, "port", 1, 65535, &port) < 0)
		return 0;
	return list_rows(call, "flows", port);
}

static int fake_slices(struct control_call *call, void *data)
{
	const char *pool = NULL;

	(void)data;
	if (control_param_str(call, "pool", &pool) < 0)
		return 0;
	if (pool)
		return control_error(call, "io.sluice.NoSuchPool",
				     json_pack("{s:s}", "pool", pool));
	return list_rows(call, "slices", 2);
}

static int fake_status(struct control_call *call, void *data)
{
	(void)data;
	return control_reply(call, json_pack("{s:s, s:s, s:n, s:i}", "machine", "edge1", "version",
					     "9.9", "deadline_s", "some_new_field", 1));
}

static int fake_reload(struct control_call *call, void *data)
{
	(void)data;
	return control_fail(call, "io.sluice.Denied", "only root may");
}

static const struct control_method fakes[] = {
	{ "GetStatus", fake_status },          { "ListFlows", fake_flows, "port" },
	{ "ListSlices", fake_slices, "pool" }, { "Reload", fake_reload },
	{ "Monitor", control_monitor },
};

static _Noreturn void serve(struct control *s)
{
	for (;;) {
		server_ready(s, -1);
		if (control_dispatch(s) < 0)
			_exit(1);
		/* Whoever monitors gets three events and is left. */
		if (control_monitored(s)) {
			for (int i = 0; i < 3; i++)
				control_publish(s, json_pack("{s:s, s:s, s:i, s:s}", "time", "now",
							     "event", "tick", "n", i, "reason",
							     "no_port"));
			while (server_ready(s, 0))
				control_dispatch(s);
			control_close(s);
			_exit(0);
		}
	}
}

/* The socket is there when this returns. */
static pid_t server_start(void)
{
	struct control_options o = {
		.path = fake_path,
		.interface = "io.sluice",
		.description = control_io_sluice,
		.methods = fakes,
		.n_methods = sizeof(fakes) / sizeof(fakes[0]),
	};
	struct control *s;
	struct errtext err;
	pid_t pid;

	assert_int_equal(control_open(&o, &s, &err), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		serve(s);
	/* Our copies of the descriptors go, the file stays. */
	{
		char aside[112];

		snprintf(aside, sizeof(aside), "%s.aside", fake_path);
		assert_int_equal(rename(fake_path, aside), 0);
		control_close(s);
		assert_int_equal(rename(aside, fake_path), 0);
	}
	return pid;
}

static void server_stop(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	unlink(fake_path);
}

/* ---- running a command ---- */

static struct cmd ask(void)
{
	return (struct cmd){ .socket = fake_path, .timeout_ms = HANG_MS, .header = true };
}

/* ---- tests ---- */

static void test_listing(void **state)
{
	pid_t pid = server_start();
	struct cmd cmd = ask();

	(void)state;
	assert_int_equal(run(cmd_slices, &cmd), CMD_OK);
	assert_string_equal(output,
			    "POOL    ADDRESS     FIRST  LAST STATE EPOCH EXPIRES TCP UDP ICMP\n"
			    "default 203.0.113.7 40960 43007 held      3       -   1   2    3\n"
			    "default 203.0.113.7 40960 43007 held      3       -   1   2    3\n");
	cmd.header = false;
	assert_int_equal(run(cmd_slices, &cmd), CMD_OK);
	assert_int_equal(output_has("\n"), 2);
	cmd.json = true;
	cmd.pool = "nope";
	assert_int_equal(run(cmd_slices, &cmd), CMD_FAILED);
	expect_output("sluice: there is no pool \"nope\"\n");

	/*
	 * Many rows, in several batches of the table: one header, columns that stay where they are.
	 */
	cmd = ask();
	cmd.port = 5000;
	assert_int_equal(run(cmd_flows, &cmd), CMD_OK);
	assert_int_equal(output_has("\n"), 5001);
	expect_output("default tcp   10.1.0.2:1 ");
	expect_output("default tcp   10.1.0.2:5000 [2001:db8::1]:80 203.0.113.7:41000 established  "
		      "  7200\n");
	assert_null(strstr(output + 1, "POOL"));
	server_stop(pid);
}

static void test_json(void **state)
{
	static const int counts[] = { 0, 1, 3000 };
	pid_t pid = server_start();
	struct cmd cmd = ask();
	json_t *root;

	(void)state;
	cmd.json = true;
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		cmd.port = counts[i];
		assert_int_equal(run(cmd_flows, &cmd), CMD_OK);
		root = json_loads(output, JSON_REJECT_DUPLICATES, NULL);
		assert_non_null(root);
		assert_int_equal(json_array_size(json_object_get(root, "flows")), counts[i]);
		json_decref(root);
	}
	assert_int_equal(run(cmd_status, &cmd), CMD_OK);
	root = json_loads(output, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(root, "machine")), "edge1");
	json_decref(root);
	/* Fields that are missing, and ones that are new, are no reason to fail. */
	cmd.json = false;
	assert_int_equal(run(cmd_status, &cmd), CMD_OK);
	expect_output("edge1");
	expect_output("9.9");
	server_stop(pid);
}

static void test_monitor(void **state)
{
	struct cmd cmd = ask();
	pid_t pid = server_start();

	(void)state;
	assert_int_equal(run(cmd_monitor, &cmd), CMD_UNREACHABLE); /* the daemon left */
	expect_output(" subscribed\n");
	expect_output("now tick n=0 reason=no_port\nnow tick n=1 reason=no_port\n"
		      "now tick n=2 reason=no_port\n");
	expect_output("has hung up");
	server_stop(pid);

	pid = server_start();
	cmd.json = true;
	assert_int_equal(run(cmd_monitor, &cmd), CMD_UNREACHABLE);
	expect_output("{\"time\":\"now\",\"event\":\"tick\",\"n\":2,\"reason\":\"no_port\"}\n");
	server_stop(pid);
}

static void test_ends(void **state)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct cmd cmd = ask();
	pid_t pid;
	int fd;

	(void)state;
	assert_int_equal(run(cmd_status, &cmd), CMD_UNREACHABLE);
	expect_output("cannot reach sluiced at ");
	expect_output("No such file or directory; is it running? (systemctl status sluiced)");

	pid = server_start();
	assert_int_equal(run(cmd_reload, &cmd), CMD_DENIED);
	expect_output("sluice: only root may\n");
	assert_int_equal(run(cmd_pools, &cmd), CMD_FAILED);
	expect_output("does not know io.sluice.ListPools");

	/* Stopped: it takes connections, and does not answer. */
	assert_int_equal(kill(pid, SIGSTOP), 0);
	cmd.timeout_ms = 20;
	assert_int_equal(run(cmd_status, &cmd), CMD_TIMED_OUT);
	expect_output("does not answer");
	server_stop(pid);

	/* The file is there, and nobody behind it. */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	strcpy(sa.sun_path, fake_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(run(cmd_status, &cmd), CMD_UNREACHABLE);
	expect_output("Connection refused");
	/* Somebody, who takes no more connections. */
	assert_int_equal(listen(fd, 0), 0);
	{
		int held = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		assert_int_equal(connect(held, (struct sockaddr *)&sa, sizeof(sa)), 0);
		assert_int_equal(run(cmd_status, &cmd), CMD_TIMED_OUT);
		expect_output("does not take the connection");
		close(held);
	}
	close(fd);
	assert_int_equal(unlink(fake_path), 0);
}

static void test_nonsense(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		enum cmd_exit code;
		const char *says;
	} rude[] = {
		{ "HTTP/1.1 400 Bad Request\r\n\r\n\0", 29, CMD_FAILED, "is not sluiced" },
		{ "{\"parameters\":[]}\0", 18, CMD_FAILED, "is not sluiced" },
		{ "{\"parameters\":{", 15, CMD_UNREACHABLE, "has hung up" },
		{ "", 0, CMD_UNREACHABLE, "has hung up" },
		{ "{\"error\":\"io.sluice.QuotaExceeded\",\"parameters\":{\"text\":\"full\"}}\0",
		  65, CMD_DENIED, "sluice: full" },
		{ "{\"error\":\"io.sluice.NoPorts\"}\0", 30, CMD_NO_PORTS, "io.sluice.NoPorts {}" },
		{ "{\"error\":\"io.sluice.Conflict\"}\0", 31, CMD_CONFLICT, "io.sluice.Conflict" },
	};
	struct cmd cmd = ask();

	(void)state;
	for (size_t i = 0; i < sizeof(rude) / sizeof(rude[0]); i++) {
		pid_t pid = fake_start();

		memcpy(fake->bytes, rude[i].bytes, rude[i].len);
		fake->n_bytes = rude[i].len;
		fake_be(FAKE_BYTES, 1);
		assert_int_equal(run(cmd_slices, &cmd), rude[i].code);
		expect_output(rude[i].says);
		/* No header of a table that never was. */
		assert_null(strstr(output, "POOL"));
		server_stop(pid);
	}
}

static void test_output_fails(void **state)
{
	pid_t pid = server_start();
	struct cmd cmd = ask();
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC), pipes[2], old;

	(void)state;
	if (full < 0) {
		server_stop(pid);
		skip();
	}
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	close(pipes[0]);
	signal(SIGPIPE, SIG_IGN);
	cmd.port = 3000;
	for (int i = 0; i < 4; i++) {
		cmd.json = i % 2;
		fflush(stdout);
		old = dup(1);
		dup2(i < 2 ? full : pipes[1], 1);
		/* A reader that has seen enough is no failure. */
		assert_int_equal(cmd_flows(&cmd), i < 2 ? CMD_FAILED : CMD_OK);
		fflush(stdout);
		dup2(old, 1);
		close(old);
		clearerr(stdout);
	}
	close(full);
	close(pipes[1]);
	server_stop(pid);
}

static int setup(void **state)
{
	(void)state;
	return fake_setup();
}

static int teardown(void **state)
{
	(void)state;
	free(output);
	return fake_teardown();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_listing),  cmocka_unit_test(test_json),
		cmocka_unit_test(test_monitor),  cmocka_unit_test(test_ends),
		cmocka_unit_test(test_nonsense), cmocka_unit_test(test_output_fails),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
