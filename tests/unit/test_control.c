/* SPDX-License-Identifier: BSD-2-Clause */
/* The control server: calls, their order, and what they cannot do. */
#include "control_test.h"

#define BAD_MESSAGE "io.sluice.BadMessage"
#define FAILED      "io.sluice.Failed"

static void test_service(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p = peer_new(s);
	struct varlink_reply r;
	json_t *v;

	(void)state;
	peer_send(&p, "{\"method\":\"org.varlink.service.GetInfo\"}");
	r = peer_next(&p);
	assert_string_equal(json_string_value(json_object_get(r.parameters, "product")), "sluiced");
	assert_string_equal(json_string_value(json_object_get(r.parameters, "version")),
			    SLUICE_VERSION);
	v = json_object_get(r.parameters, "interfaces");
	assert_int_equal(json_array_size(v), 2);
	assert_string_equal(json_string_value(json_array_get(v, 0)), "org.varlink.service");
	assert_string_equal(json_string_value(json_array_get(v, 1)), "io.test");
	varlink_reply_done(&r);

	for (int i = 0; i < 2; i++) {
		peer_send(&p, i ? "{\"method\":\"org.varlink.service.GetInterfaceDescription\","
				  "\"parameters\":{\"interface\":\"org.varlink.service\"}}"
				: "{\"method\":\"org.varlink.service.GetInterfaceDescription\","
				  "\"parameters\":{\"interface\":\"io.test\"}}");
		r = peer_next(&p);
		v = json_object_get(r.parameters, "description");
		assert_non_null(strstr(json_string_value(v), i ? "interface org.varlink.service\n"
							       : "interface io.sluice\n"));
		varlink_reply_done(&r);
	}
	peer_send(&p, "{\"method\":\"org.varlink.service.GetInterfaceDescription\","
		      "\"parameters\":{\"interface\":\"io.nobody\"}}");
	expect_error(&p, "org.varlink.service.InterfaceNotFound", "interface", "io.nobody");
	peer_send(&p, "{\"method\":\"org.varlink.service.GetInterfaceDescription\"}");
	expect_error(&p, "org.varlink.service.InvalidParameter", "parameter", "interface");
	peer_send(&p, "{\"method\":\"org.varlink.service.GetInfo\",\"parameters\":{\"x\":1}}");
	expect_error(&p, "org.varlink.service.InvalidParameter", "parameter", "x");
	peer_send(&p, "{\"method\":\"org.varlink.service.Nothing\"}");
	expect_error(&p, "org.varlink.service.MethodNotFound", "method",
		     "org.varlink.service.Nothing");
	peer_close(&p);
	control_close(s);
}

static void test_calls(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p = peer_new(s);
	struct varlink_reply r;

	(void)state;
	peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":5,\"text\":\"\\u00e4\","
		      "\"flag\":true}}");
	r = peer_next(&p);
	assert_int_equal(json_integer_value(json_object_get(r.parameters, "n")), 5);
	assert_string_equal(json_string_value(json_object_get(r.parameters, "text")), "\xc3\xa4");
	assert_true(json_is_true(json_object_get(r.parameters, "flag")));
	varlink_reply_done(&r);
	/* null is absent */
	peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":null}}");
	expect_reply(&p, "n", 0);

	peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":\"5\"}}");
	expect_error(&p, "org.varlink.service.InvalidParameter", "parameter", "n");
	peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":-1}}");
	expect_error(&p, "org.varlink.service.InvalidParameter", "parameter", "n");
	peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":1000001}}");
	expect_error(&p, "org.varlink.service.InvalidParameter", "parameter", "n");
	peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"text\":[]}}");
	expect_error(&p, "org.varlink.service.InvalidParameter", "parameter", "text");
	peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"flag\":0}}");
	expect_error(&p, "org.varlink.service.InvalidParameter", "parameter", "flag");
	peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"tex\":\"a\"}}");
	expect_error(&p, "org.varlink.service.InvalidParameter", "parameter", "tex");
	peer_send(&p, "{\"method\":\"io.test.Who\",\"parameters\":{\"\":1}}");
	expect_error(&p, "org.varlink.service.InvalidParameter", "parameter", "");
	peer_send(&p, "{\"method\":\"io.test.Echo\",\"upgrade\":true}");
	expect_error(&p, "org.varlink.service.InvalidParameter", "parameter", "upgrade");
	assert_int_equal(seen.calls, 2);

	peer_send(&p, "{\"method\":\"io.test.Nothing\"}");
	expect_error(&p, "org.varlink.service.MethodNotFound", "method", "io.test.Nothing");
	peer_send(&p, "{\"method\":\"io.test.echo\"}");
	expect_error(&p, "org.varlink.service.MethodNotFound", "method", "io.test.echo");
	peer_send(&p, "{\"method\":\"Echo\"}");
	expect_error(&p, "org.varlink.service.MethodNotFound", "method", "Echo");
	peer_send(&p, "{\"method\":\".Echo\"}");
	expect_error(&p, "org.varlink.service.MethodNotFound", "method", ".Echo");
	peer_send(&p, "{\"method\":\"io.test.\"}");
	expect_error(&p, "org.varlink.service.MethodNotFound", "method", "io.test.");
	peer_send(&p, "{\"method\":\"io.tes.Echo\"}");
	expect_error(&p, "org.varlink.service.InterfaceNotFound", "interface", "io.tes");
	peer_send(&p, "{\"method\":\"io.test.x.Echo\"}");
	expect_error(&p, "org.varlink.service.InterfaceNotFound", "interface", "io.test.x");
	peer_send(&p, "{\"method\":\"io.test.Later\"}");
	expect_error(&p, "org.varlink.service.MethodNotImplemented", "method", "io.test.Later");
	peer_send(&p, "{\"method\":\"io.test.Io\"}");
	expect_error(&p, FAILED, "text", strerror(EIO));
	/* What is not UTF-8 does not spoil the answer. */
	peer_send(&p, "{\"method\":\"io.test.Fail\"}");
	expect_error(&p, "io.test.Bad", "text", "line 7: \"b?\" is bad");
	peer_close(&p);
	control_close(s);
}

/*
 * Many calls in one write, of all kinds: answered in their order. oneway is carried out in silence.
 */
static void test_pipeline(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p = peer_new(s);
	struct varlink_reply r;
	size_t len = 0;
	char *bytes;

	(void)state;
	bytes = malloc(60 * 1024);
	for (int i = 0; i < 200; i++) {
		len += (size_t)sprintf(bytes + len,
				       "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":%d}%s}",
				       i, i % 4 == 1 ? ",\"oneway\":true" : "") +
		       1;
		if (i % 4 == 2)
			len += (size_t)sprintf(bytes + len, "{\"method\":\"io.test.Nothing\","
							    "\"oneway\":true}") +
			       1;
		if (i % 4 == 3)
			len += (size_t)sprintf(bytes + len,
					       "{\"method\":\"io.test.List\",\"more\":true,"
					       "\"parameters\":{\"count\":%d}}",
					       i) +
			       1;
	}
	peer_send_bytes(&p, bytes, len);
	free(bytes);
	for (int i = 0; i < 200; i++) {
		if (i % 4 != 1)
			expect_reply(&p, "n", i);
		if (i % 4 != 3)
			continue;
		r = peer_next(&p);
		assert_int_equal(json_array_size(json_object_get(r.parameters, "rows")), i);
		assert_false(r.continues);
		varlink_reply_done(&r);
	}
	/* 200 of Echo, 50 of List */
	assert_int_equal(seen.calls, 250);
	assert_int_equal(stat_of(s, "calls"), 300);

	/* A oneway listing or Monitor must not begin to send. */
	peer_send(&p, "{\"method\":\"io.test.List\",\"more\":true,\"oneway\":true,"
		      "\"parameters\":{\"count\":9}}");
	peer_send(&p, "{\"method\":\"io.test.Monitor\",\"more\":true,\"oneway\":true}");
	peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":1}}");
	expect_reply(&p, "n", 1);
	assert_int_equal(seen.open, 0);
	assert_int_equal(stat_of(s, "monitors"), 0);
	peer_close(&p);
	settle(s);
	assert_int_equal(stat_of(s, "clients"), 0);
	control_close(s);
}

/* A byte at a time; and a peer that shuts its side down is still answered. */
static void test_trickle(void **state)
{
	static const char call[] = "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":3}}";
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p = peer_new(s);

	(void)state;
	for (size_t i = 0; i < sizeof(call); i++) {
		peer_send_bytes(&p, call + i, 1);
		settle(s);
		assert_int_equal(seen.calls, i == sizeof(call) - 1);
	}
	expect_reply(&p, "n", 3);
	peer_send(&p, call);
	peer_send(&p, "{\"method\":\"io.test.List\",\"more\":true,\"parameters\":{\"count\":2}}");
	peer_send_bytes(&p, "{\"method\":\"io.", 12);
	shutdown(p.fd, SHUT_WR);
	expect_reply(&p, "n", 3);
	expect_reply(&p, NULL, 0);
	expect_closed(&p);
	settle(s);
	assert_int_equal(stat_of(s, "clients"), 0);
	assert_int_equal(stat_of(s, "bad_messages"), 0);
	peer_close(&p);
	control_close(s);
}

/* What a peer sent and did not wait for is carried out. */
static void test_hangup(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct peer p = peer_new(s);

		for (int k = 0; k < 20; k++)
			peer_send(&p, i == 2 ? "{\"method\":\"io.test.List\",\"more\":true,"
					       "\"parameters\":{\"count\":9}}"
				      : i    ? "{\"method\":\"io.test.Echo\",\"oneway\":true}"
					     : "{\"method\":\"io.test.Echo\"}");
		peer_close(&p);
		settle(s);
		assert_int_equal(seen.calls, 20);
		assert_int_equal(stat_of(s, "clients"), 0);
		assert_int_equal(seen.open, 0);
		seen.calls = 0;
	}
	control_close(s);
}

/* A message that does not end in time costs its sender the connection, and nobody else. */
static void test_half_message(void **state)
{
	struct control_limits limits = CONTROL_LIMITS;
	struct seen seen = { 0 };
	struct control *s;
	struct peer idle, half, drip, slow;

	(void)state;
	limits.half_message_ms = 50;
	s = server_open(&seen, NULL, &limits);
	idle = peer_new(s);
	half = peer_new(s);
	drip = peer_new(s);
	peer_send(&idle, "{\"method\":\"io.test.Echo\"}");
	expect_reply(&idle, "n", 0);
	peer_send_bytes(&half, "{\"method\"", 9);
	expect_error(&half, BAD_MESSAGE, "text", "in time");
	expect_closed(&half);
	/* More bytes of the same message win no time. */
	for (unsigned i = 0; stat_of(s, "timeouts") < 2; i++) {
		struct pollfd p = { .fd = control_fd(s), .events = POLLIN };

		if (stat_of(s, "clients") == 2)
			send(drip.fd, " ", 1, MSG_NOSIGNAL);
		poll(&p, 1, 1);
		assert_int_equal(control_dispatch(s), 0);
		assert_true(i < HANG_MS);
	}
	expect_error(&drip, BAD_MESSAGE, "text", "in time");
	expect_closed(&drip);
	/*
	 * Nor is what waits its turn behind a listing that takes long. Three time limits pass, as
	 * other half messages show.
	 */
	slow = peer_new(s);
	peer_send(&slow, "{\"method\":\"io.test.List\",\"more\":true,"
			 "\"parameters\":{\"count\":1,\"gap\":1000000000}}");
	peer_send_bytes(&slow, "{\"method\"", 9);
	for (int i = 0; i < 3; i++) {
		struct peer clock = peer_new(s);

		peer_send_bytes(&clock, "{", 1);
		expect_error(&clock, BAD_MESSAGE, "text", "in time");
		peer_close(&clock);
	}
	assert_true(peer_fill(&slow));
	assert_false(varlink_reader_half(&slow.in));
	assert_false(varlink_reader_ready(&slow.in));
	assert_int_equal(seen.open, 1);
	peer_close(&slow);
	/* Silence is no half message. */
	peer_send(&idle, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":2}}");
	expect_reply(&idle, "n", 2);
	settle(s);
	assert_int_equal(stat_of(s, "clients"), 1);
	peer_close(&half);
	peer_close(&drip);
	peer_close(&idle);
	control_close(s);
}

static void test_garbage(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
	} bad[] = {
		{ "", 1 },
		{ "GET / HTTP/1.1\r\n\r\n\0", 19 },
		{ "{}\0", 3 },
		{ "[]\0", 3 },
		{ "\xff\xfe\0", 3 },
		{ "{\"method\":\"io.test.Echo\",\"parameters\":1}\0", 42 },
		{ "{\"method\":\"io.test.Echo\",\"method\":\"io.test.Echo\"}\0", 51 },
	};
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer good = peer_new(s);
	char *deep = malloc(60000);

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct peer p = peer_new(s);

		peer_send_bytes(&p, bad[i].bytes, bad[i].len);
		/* What follows is not looked at. */
		peer_send(&p, "{\"method\":\"io.test.Echo\"}");
		expect_error(&p, BAD_MESSAGE, NULL, NULL);
		expect_closed(&p);
		peer_close(&p);
	}
	memset(deep, '[', 59999);
	deep[59999] = '\0';
	{
		struct peer p = peer_new(s);

		peer_send(&p, deep);
		expect_error(&p, BAD_MESSAGE, "text", "deeper");
		expect_closed(&p);
		peer_close(&p);
	}
	free(deep);
	assert_int_equal(seen.calls, 0);
	assert_int_equal(stat_of(s, "bad_messages"), 8);
	peer_send(&good, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":2}}");
	expect_reply(&good, "n", 2);
	peer_close(&good);
	control_close(s);
}

/* The longest call passes; one byte more, or a flood without an end, does not. */
static void test_long_message(void **state)
{
	static const char head[] = "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":4}";
	const size_t max = 64 * 1024;
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p = peer_new(s), q;
	char *text = malloc(max + 2);

	(void)state;
	memset(text, ' ', max);
	memcpy(text, head, sizeof(head) - 1);
	text[max - 1] = '}';
	text[max] = '\0';
	peer_send(&p, text);
	expect_reply(&p, "n", 4);

	text[max - 1] = ' ';
	text[max] = '}';
	text[max + 1] = '\0';
	peer_send(&p, text);
	expect_error(&p, BAD_MESSAGE, "text", "too long");
	expect_closed(&p);

	q = peer_new(s);
	for (int i = 0; i < 100; i++)
		send(q.fd, text, max, MSG_NOSIGNAL);
	settle(s);
	expect_error(&q, BAD_MESSAGE, "text", "too long");
	expect_closed(&q);
	assert_int_equal(stat_of(s, "clients"), 0);
	peer_close(&p);
	peer_close(&q);
	free(text);
	control_close(s);
}

static void test_long_answer(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p = peer_new(s);

	(void)state;
	peer_send(&p, "{\"method\":\"io.test.Big\",\"parameters\":{\"size\":520000}}");
	expect_reply(&p, NULL, 0);
	peer_send(&p, "{\"method\":\"io.test.Big\",\"parameters\":{\"size\":530000}}");
	expect_error(&p, FAILED, "text", "too long");
	peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":2}}");
	expect_reply(&p, "n", 2);
	peer_close(&p);
	control_close(s);
}

/*
 * A client that calls and never reads makes the server stop reading: its calls wait in its own
 * socket.
 */
static void test_unread_answers(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p = peer_new(s), other = peer_new(s);
	static const char call[] = "{\"method\":\"io.test.Big\",\"parameters\":{\"size\":10000}}";
	unsigned sent = 0;

	(void)state;
	/* As many as its socket takes; few of them can have been answered. */
	for (; sent < 20000 && send(p.fd, call, sizeof(call), MSG_NOSIGNAL) == sizeof(call); sent++)
		settle(s);
	assert_true(sent < 20000);
	assert_true(stat_of(s, "calls") < 200);
	peer_send(&other, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":2}}");
	expect_reply(&other, "n", 2);
	/* Nothing is lost: once it reads, all are answered. The last one may have been cut. */
	for (unsigned i = 0; i < sent; i++)
		expect_reply(&p, NULL, 0);
	peer_close(&p);
	peer_close(&other);
	settle(s);
	assert_int_equal(stat_of(s, "clients"), 0);
	control_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_service),     cmocka_unit_test(test_calls),
		cmocka_unit_test(test_pipeline),    cmocka_unit_test(test_trickle),
		cmocka_unit_test(test_hangup),      cmocka_unit_test(test_half_message),
		cmocka_unit_test(test_garbage),     cmocka_unit_test(test_long_message),
		cmocka_unit_test(test_long_answer), cmocka_unit_test(test_unread_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
