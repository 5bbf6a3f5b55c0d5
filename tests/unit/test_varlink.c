/* SPDX-License-Identifier: BSD-2-Clause */
/* Framing and decoding of Varlink messages. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "varlink.h"

static void feed(struct varlink_reader *r, const char *bytes, size_t len)
{
	while (len > 0) {
		char *buf;
		size_t room;

		assert_int_equal(varlink_reader_space(r, &buf, &room), 0);
		assert_true(room > 0);
		if (room > len)
			room = len;
		memcpy(buf, bytes, room);
		varlink_reader_fill(r, room);
		bytes += room;
		len -= room;
	}
}

static void expect(struct varlink_reader *r, const char *text)
{
	const char *msg;
	size_t len;

	assert_true(varlink_reader_ready(r));
	assert_int_equal(varlink_reader_next(r, &msg, &len), 1);
	assert_int_equal(len, strlen(text));
	assert_memory_equal(msg, text, len);
}

static void test_frames(void **state)
{
	static const char bytes[] = "{}\0\0{\"a\":1}\0{\"half";
	struct varlink_reader r;
	const char *msg;
	size_t len;

	(void)state;
	varlink_reader_init(&r, 100);
	assert_false(varlink_reader_ready(&r));
	assert_false(varlink_reader_half(&r));
	feed(&r, bytes, sizeof(bytes) - 1);
	expect(&r, "{}");
	expect(&r, "");
	assert_false(varlink_reader_half(&r));
	expect(&r, "{\"a\":1}");
	assert_int_equal(varlink_reader_next(&r, &msg, &len), 0);
	assert_true(varlink_reader_half(&r));
	feed(&r, "\":2}", 5);
	assert_false(varlink_reader_half(&r));
	expect(&r, "{\"half\":2}");
	assert_int_equal(varlink_reader_next(&r, &msg, &len), 0);
	assert_null(r.buf); /* an idle connection holds no memory */
	varlink_reader_done(&r);
}

/* Take what is there; *at is where in the original bytes the next message begins. */
static void take(struct varlink_reader *r, const char **at)
{
	while (varlink_reader_ready(r)) {
		const char *text = *at;

		expect(r, text);
		*at += strlen(text) + 1;
	}
}

/* However the bytes are cut, the messages are the same. */
static void test_frames_cut(void **state)
{
	static const char bytes[] = "first\0second one\0\0and a third\0";
	size_t total = sizeof(bytes) - 1;

	(void)state;
	for (size_t a = 0; a <= total; a++) {
		for (size_t b = a; b <= total; b++) {
			struct varlink_reader r;
			const char *at = bytes;

			varlink_reader_init(&r, sizeof(bytes));
			feed(&r, bytes, a);
			take(&r, &at);
			feed(&r, bytes + a, b - a);
			take(&r, &at);
			feed(&r, bytes + b, total - b);
			take(&r, &at);
			assert_ptr_equal(at, bytes + total);
			varlink_reader_done(&r);
		}
	}
}

/*
 * The limit is exact: max bytes and a NUL pass, one more is refused, and no more is ever buffered.
 */
static void test_frames_limit(void **state)
{
	const size_t max = 70000;
	char *text = malloc(max + 1);
	struct varlink_reader r;
	const char *msg;
	char *buf;
	size_t len;

	(void)state;
	memset(text, 'x', max);
	text[max] = '\0';
	varlink_reader_init(&r, max);
	feed(&r, text, max + 1);
	expect(&r, text);
	assert_int_equal(varlink_reader_next(&r, &msg, &len), 0);

	/* The same behind another message, so that it has to be moved to the front. */
	feed(&r, "{}", 3);
	feed(&r, text, max - 2);
	expect(&r, "{}");
	feed(&r, text + max - 2, 3);
	expect(&r, text);

	text[max] = 'x';
	feed(&r, text, max + 1);
	assert_true(varlink_reader_ready(&r));
	assert_int_equal(varlink_reader_next(&r, &msg, &len), -EMSGSIZE);
	assert_int_equal(varlink_reader_space(&r, &buf, &len), -ENOBUFS);
	assert_int_equal(r.cap, max + 1);
	varlink_reader_done(&r);
	free(text);
}

static int decode(const char *text, struct varlink_call *c, struct errtext *err)
{
	/* A copy of exactly this length: the sanitizer sees a read beyond the end. */
	size_t len = strlen(text);
	char *copy = malloc(len ? len : 1);
	int r;

	memcpy(copy, text, len);
	r = varlink_call_decode(copy, len, c, err);
	free(copy);
	return r;
}

static void test_call(void **state)
{
	struct varlink_call c;

	(void)state;
	assert_int_equal(decode("{\"method\":\"io.sluice.ListFlows\",\"parameters\":{\"port\":80},"
				"\"more\":true,\"com.example\":{\"x\":[]}}",
				&c, NULL),
			 0);
	assert_string_equal(c.method, "io.sluice.ListFlows");
	assert_int_equal(c.interface_len, strlen("io.sluice"));
	assert_int_equal(json_integer_value(json_object_get(c.parameters, "port")), 80);
	assert_true(c.more);
	assert_false(c.oneway);
	assert_false(c.upgrade);
	varlink_call_done(&c);

	assert_int_equal(decode("{\"method\":\"nodot\",\"parameters\":null,\"oneway\":true,"
				"\"more\":null,\"upgrade\":false}",
				&c, NULL),
			 0);
	assert_int_equal(c.interface_len, 0);
	assert_int_equal(json_object_size(c.parameters), 0);
	assert_true(c.oneway);
	assert_false(c.more);
	varlink_call_done(&c);
}

static void test_call_refused(void **state)
{
	static const struct {
		const char *text;
		const char *says;
	} bad[] = {
		{ "", "not JSON" },
		{ "{", "not JSON" },
		{ "{}}", "not JSON" },
		{ "{} {}", "not JSON" },
		{ "[1]", "object" },
		{ "1", "not JSON" },
		{ "{}", "method" },
		{ "{\"method\":null}", "method" },
		{ "{\"method\":\"\"}", "method" },
		{ "{\"method\":1}", "\"method\" must be a string" },
		{ "{\"method\":\"a.B\",\"method\":\"a.B\"}", "duplicate" },
		{ "{\"method\":\"a.B\",\"parameters\":[]}", "\"parameters\" must be an object" },
		{ "{\"method\":\"a.B\",\"parameters\":\"x\"}", "\"parameters\" must be an object" },
		{ "{\"method\":\"a.B\",\"more\":1}", "\"more\" must be true or false" },
		{ "{\"method\":\"a.B\",\"oneway\":\"true\"}", "\"oneway\" must be true or false" },
		{ "{\"method\":\"a.B\",\"upgrade\":{}}", "\"upgrade\" must be true or false" },
		{ "{\"method\":\"a.B\xff\"}", "not JSON" },
		{ "{\"method\":\"a.B\\u0000\"}", "not JSON" },
		{ "{\"method\":\"a.B\",\"parameters\":{\"n\":99999999999999999999}}", "not JSON" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct varlink_call c = { .more = true };
		struct errtext err = { 0 };

		assert_int_equal(decode(bad[i].text, &c, &err), -EBADMSG);
		if (!strstr(err.s, bad[i].says))
			fail_msg("\"%s\": \"%s\" does not say \"%s\"", bad[i].text, err.s,
				 bad[i].says);
		assert_null(c.root); /* untouched */
		assert_true(c.more);
	}
}

static void test_depth(void **state)
{
	char text[4096];
	struct varlink_call c;
	struct errtext err;

	(void)state;
	for (int depth = 1; depth <= 1000; depth++) {
		size_t n = (size_t)sprintf(text, "{\"method\":\"a.B\",\"parameters\":{\"x\":");
		int inner = depth - 2;

		if (inner < 0)
			continue;
		memset(text + n, '[', (size_t)inner);
		n += (size_t)inner;
		n += (size_t)sprintf(text + n, inner ? "" : "0");
		memset(text + n, ']', (size_t)inner);
		strcpy(text + n + inner, "}}");
		if (depth <= VARLINK_DEPTH_MAX) {
			assert_int_equal(decode(text, &c, &err), 0);
			varlink_call_done(&c);
		} else {
			assert_int_equal(decode(text, &c, &err), -EBADMSG);
			assert_non_null(strstr(err.s, "deeper"));
		}
	}
	/* Brackets in strings are no depth, and an escaped quote does not end a string. */
	assert_int_equal(
		decode("{\"method\":\"a.B\",\"parameters\":{\"x\":\"\\\"[[[[[[[[[[[[[[[[[[[[[\"}}",
		       &c, &err),
		0);
	varlink_call_done(&c);
	assert_int_equal(decode("{\"method\":\"a.B\\", &c, &err), -EBADMSG);
}

static void test_reply(void **state)
{
	struct varlink_reply r;
	struct errtext err;
	const char *text = "{\"parameters\":{\"a\":1},\"continues\":true}";

	(void)state;
	assert_int_equal(varlink_reply_decode(text, strlen(text), &r, &err), 0);
	assert_null(r.error);
	assert_true(r.continues);
	assert_int_equal(json_integer_value(json_object_get(r.parameters, "a")), 1);
	varlink_reply_done(&r);

	text = "{\"error\":\"io.sluice.Denied\"}";
	assert_int_equal(varlink_reply_decode(text, strlen(text), &r, &err), 0);
	assert_string_equal(r.error, "io.sluice.Denied");
	assert_false(r.continues);
	assert_true(json_is_object(r.parameters));
	varlink_reply_done(&r);

	text = "{\"error\":7}";
	assert_int_equal(varlink_reply_decode(text, strlen(text), &r, &err), -EBADMSG);
	text = "{\"continues\":7}";
	assert_int_equal(varlink_reply_decode(text, strlen(text), &r, &err), -EBADMSG);
}

static void test_encode(void **state)
{
	json_t *params = json_pack("{s:s}", "x", "\xc3\xa4");
	struct varlink_reply reply;
	struct varlink_call call;
	size_t len;
	char *text;

	(void)state;
	assert_int_equal(varlink_call_encode("a.B", params, true, false, &text, &len), 0);
	assert_string_equal(
		text, "{\"method\":\"a.B\",\"parameters\":{\"x\":\"\xc3\xa4\"},\"more\":true}");
	assert_int_equal(len, strlen(text) + 1);
	assert_int_equal(varlink_call_decode(text, len - 1, &call, NULL), 0);
	assert_true(json_equal(call.parameters, params));
	varlink_call_done(&call);
	free(text);

	assert_int_equal(varlink_call_encode("a.B", NULL, false, true, &text, &len), 0);
	assert_string_equal(text, "{\"method\":\"a.B\",\"oneway\":true}");
	free(text);

	assert_int_equal(varlink_reply_encode("a.E", params, true, &text, &len), 0);
	assert_int_equal(varlink_reply_decode(text, len - 1, &reply, NULL), 0);
	assert_string_equal(reply.error, "a.E");
	assert_true(reply.continues);
	assert_true(json_equal(reply.parameters, params));
	varlink_reply_done(&reply);
	free(text);

	assert_int_equal(varlink_call_encode("\xff", NULL, false, false, &text, &len), -EINVAL);
	json_decref(params);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames),       cmocka_unit_test(test_frames_cut),
		cmocka_unit_test(test_frames_limit), cmocka_unit_test(test_call),
		cmocka_unit_test(test_call_refused), cmocka_unit_test(test_depth),
		cmocka_unit_test(test_reply),        cmocka_unit_test(test_encode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
