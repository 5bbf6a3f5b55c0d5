/* SPDX-License-Identifier: BSD-2-Clause */
/* The control server: listings and events, for clients quick and slow. */
#include "control_test.h"

#define FAILED "io.sluice.Failed"

/* ---- listings ---- */

/* Read a listing; each row's number must follow the last one's. Returns the number of replies. */
static unsigned read_listing(struct peer *p, int64_t count)
{
	unsigned replies = 0;
	int64_t n = 0;
	bool more = true;

	while (more) {
		struct varlink_reply r = peer_next(p);
		json_t *rows, *row;
		size_t i;

		assert_non_null(r.root);
		assert_null(r.error);
		rows = json_object_get(r.parameters, "rows");
		assert_true(json_is_array(rows));
		json_array_foreach(rows, i, row)
		{
			assert_int_equal(json_integer_value(json_object_get(row, "n")), n);
			n++;
		}
		replies++;
		more = r.continues;
		varlink_reply_done(&r);
	}
	assert_int_equal(n, count);
	return replies;
}

/* 100,000 rows for a client that does not read: the server stops asking for rows, until it does. */
static void test_slow_reader(void **state)
{
	const unsigned total = 100000;
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer slow = peer_new(s), other = peer_new(s);
	unsigned stopped_at;

	(void)state;
	peer_send(&slow, "{\"method\":\"io.test.List\",\"more\":true,"
			 "\"parameters\":{\"count\":100000,\"size\":80}}");
	settle(s);
	stopped_at = seen.rows;
	/* 64 KiB in the queue, a batch, and what the kernel takes (its default is 208 KiB). */
	assert_true(stopped_at > 100);
	assert_true(stopped_at * 80 < 1024 * 1024);
	peer_send(&other, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":2}}");
	expect_reply(&other, "n", 2);
	settle(s);
	assert_int_equal(seen.rows, stopped_at);
	/* Others' listings run meanwhile. */
	peer_send(&other,
		  "{\"method\":\"io.test.List\",\"more\":true,\"parameters\":{\"count\":5000}}");
	read_listing(&other, 5000);
	assert_int_equal(seen.rows, stopped_at + 5000);

	assert_true(read_listing(&slow, total) > 100);
	assert_int_equal(seen.rows, total + 5000);
	assert_int_equal(seen.open, 0);
	peer_close(&slow);
	peer_close(&other);
	control_close(s);
}

/* Three listings and a caller at once: turns are taken, nobody waits for another one's end. */
static void test_fair(void **state)
{
	struct control_limits limits = CONTROL_LIMITS;
	struct seen seen = { 0 };
	struct control *s;
	struct peer p[4];
	unsigned before;

	(void)state;
	limits.turns_a_dispatch = 1;
	s = server_open(&seen, NULL, &limits);
	for (int i = 0; i < 4; i++)
		p[i] = peer_new(s);
	/* A listing that finds nothing for very long. */
	for (int i = 0; i < 3; i++)
		peer_send(&p[i], "{\"method\":\"io.test.List\",\"more\":true,"
				 "\"parameters\":{\"count\":3,\"gap\":1000}}");
	for (int i = 0; i < 100; i++)
		assert_int_equal(control_dispatch(s), 0);
	before = seen.rows;
	assert_true(server_ready(s, 0));
	peer_send(&p[3], "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":2}}");
	for (int i = 0; i < 8; i++)
		assert_int_equal(control_dispatch(s), 0);
	assert_true(peer_fill(&p[3]));
	assert_true(varlink_reader_ready(&p[3].in));
	assert_int_equal(seen.rows, before);
	for (int i = 0; i < 3; i++)
		assert_int_equal(read_listing(&p[i], 3), 1);
	for (int i = 0; i < 4; i++)
		peer_close(&p[i]);
	control_close(s);
}

static void test_single_listing(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p = peer_new(s);

	(void)state;
	peer_send(&p, "{\"method\":\"io.test.List\"}");
	assert_int_equal(read_listing(&p, 0), 1);
	peer_send(&p, "{\"method\":\"io.test.List\",\"more\":true}");
	assert_int_equal(read_listing(&p, 0), 1);
	peer_send(&p, "{\"method\":\"io.test.List\",\"parameters\":{\"count\":500,\"size\":80,"
		      "\"gap\":3}}");
	assert_int_equal(read_listing(&p, 500), 1);
	peer_send(&p, "{\"method\":\"io.test.List\",\"parameters\":{\"count\":1000,\"size\":80}}");
	expect_error(&p, "org.varlink.service.ExpectedMore", NULL, NULL);
	assert_int_equal(seen.open, 0);
	/* A call for an endless listing costs no more than one for a long one. */
	seen.rows = 0;
	peer_send(&p, "{\"method\":\"io.test.List\",\"parameters\":{\"count\":1000000000}}");
	expect_error(&p, "org.varlink.service.ExpectedMore", NULL, NULL);
	assert_true(seen.rows < 10000);
	peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":2}}");
	expect_reply(&p, "n", 2);
	peer_close(&p);
	control_close(s);
}

static void test_listing_fails(void **state)
{
	struct control_limits limits = CONTROL_LIMITS;
	struct seen seen = { 0 };
	struct control *s;
	struct peer p;
	struct varlink_reply r;

	(void)state;
	limits.reply_max = 2048;
	s = server_open(&seen, NULL, &limits);
	p = peer_new(s);
	peer_send(&p, "{\"method\":\"io.test.List\",\"parameters\":{\"count\":5,\"fail_at\":3}}");
	expect_error(&p, FAILED, "text", strerror(EIO));
	peer_send(&p, "{\"method\":\"io.test.List\",\"more\":true,"
		      "\"parameters\":{\"count\":50,\"fail_at\":30,\"size\":100}}");
	/*
	 * Rows come first, in replies that keep to the limit; then the error, and the call is over.
	 */
	for (bool over = false; !over;) {
		r = peer_next(&p);
		if (r.error)
			assert_string_equal(r.error, FAILED);
		else
			assert_true(r.continues);
		over = r.error;
		varlink_reply_done(&r);
	}
	peer_send(&p, "{\"method\":\"io.test.List\",\"more\":true,"
		      "\"parameters\":{\"count\":50,\"size\":2100}}");
	expect_error(&p, FAILED, "text", "row is too long");
	assert_int_equal(seen.open, 0);

	/* The client goes in the middle. */
	peer_send(&p, "{\"method\":\"io.test.List\",\"more\":true,"
		      "\"parameters\":{\"count\":1000000,\"size\":100}}");
	r = peer_next(&p);
	varlink_reply_done(&r);
	assert_int_equal(seen.open, 1);
	peer_close(&p);
	settle(s);
	assert_int_equal(seen.open, 0);
	assert_int_equal(stat_of(s, "clients"), 0);
	control_close(s);
}

/* ---- events ---- */

static void test_monitor(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer a = peer_new(s), b = peer_new(s);
	struct varlink_reply r;
	const char *time;

	(void)state;
	control_publish(s, json_pack("{s:s}", "event", "nobody")); /* is not queued up */
	assert_false(control_monitored(s));
	peer_send(&a, "{\"method\":\"io.test.Monitor\"}");
	expect_error(&a, "org.varlink.service.ExpectedMore", NULL, NULL);
	for (int i = 0; i < 2; i++) {
		struct peer *p = i ? &b : &a;

		peer_send(p, "{\"method\":\"io.test.Monitor\",\"more\":true}");
		r = peer_next(p);
		assert_true(r.continues);
		assert_string_equal(json_string_value(json_object_get(r.parameters, "event")),
				    "subscribed");
		varlink_reply_done(&r);
	}
	assert_true(control_monitored(s));
	control_publish(s, json_pack("{s:s, s:i}", "event", "x", "n", 1));
	control_publish(s, json_pack("{s:s, s:s}", "event", "y", "time", "then"));
	for (int i = 0; i < 2; i++) {
		struct peer *p = i ? &b : &a;

		r = peer_next(p);
		assert_string_equal(json_string_value(json_object_get(r.parameters, "event")), "x");
		assert_int_equal(json_integer_value(json_object_get(r.parameters, "n")), 1);
		time = json_string_value(json_object_get(r.parameters, "time"));
		assert_int_equal(strlen(time), strlen("2025-01-01T00:00:00.000Z"));
		varlink_reply_done(&r);
		r = peer_next(p);
		assert_string_equal(json_string_value(json_object_get(r.parameters, "time")),
				    "then");
		varlink_reply_done(&r);
	}
	peer_close(&a);
	settle(s);
	assert_int_equal(stat_of(s, "monitors"), 1);
	peer_close(&b);
	settle(s);
	assert_false(control_monitored(s));
	control_close(s);
}

/*
 * Whatever a slow client gets, the events are in order, none comes twice, and every gap is told
 * with its size, at its place. The other client, which reads, loses nothing.
 */
static void test_monitor_overflow(void **state)
{
	struct control_limits limits = CONTROL_LIMITS;
	struct seen seen = { 0 };
	struct control *s;
	struct peer slow, quick;
	struct varlink_reply r;
	int64_t next = 0, lost = 0;
	const int64_t total = 5000;

	(void)state;
	limits.queue_max = 20000;
	s = server_open(&seen, NULL, &limits);
	slow = peer_new(s);
	quick = peer_new(s);
	peer_send(&slow, "{\"method\":\"io.test.Monitor\",\"more\":true}");
	peer_send(&quick, "{\"method\":\"io.test.Monitor\",\"more\":true}");
	r = peer_next(&slow);
	varlink_reply_done(&r);
	r = peer_next(&quick);
	varlink_reply_done(&r);
	for (int64_t i = 0; i < total; i++) {
		control_publish(s, json_pack("{s:s, s:I}", "event", "tick", "n", (json_int_t)i));
		/* Now and then the slow one reads a little, so that there are several gaps. */
		if (i % 1000 == 999) {
			for (int k = 0; k < 300; k++) {
				const char *event;

				r = peer_next(&slow);
				event = json_string_value(json_object_get(r.parameters, "event"));
				if (strcmp(event, "lost") == 0) {
					json_int_t n = json_integer_value(
						json_object_get(r.parameters, "count"));

					assert_true(n > 0);
					lost += n;
					next += n;
				} else {
					assert_int_equal(json_integer_value(json_object_get(
								 r.parameters, "n")),
							 next);
					next++;
				}
				varlink_reply_done(&r);
			}
		}
		r = peer_next(&quick);
		assert_int_equal(json_integer_value(json_object_get(r.parameters, "n")), i);
		varlink_reply_done(&r);
	}
	while (next < total) {
		const char *event;

		r = peer_next(&slow);
		event = json_string_value(json_object_get(r.parameters, "event"));
		if (strcmp(event, "lost") == 0) {
			json_int_t n = json_integer_value(json_object_get(r.parameters, "count"));

			assert_true(n > 0);
			lost += n;
			next += n;
		} else {
			assert_int_equal(json_integer_value(json_object_get(r.parameters, "n")),
					 next);
			next++;
		}
		varlink_reply_done(&r);
	}
	assert_true(lost > 1000);
	assert_int_equal(stat_of(s, "events_lost"), lost);
	peer_close(&slow);
	peer_close(&quick);
	control_close(s);
}

/* An event that was dropped behind one that is half sent is told, though no other event follows. */
static void test_monitor_lost_last(void **state)
{
	struct control_limits limits = CONTROL_LIMITS;
	struct seen seen = { 0 };
	struct control *s;
	struct peer p;
	struct varlink_reply r;
	char *text = malloc(150001);
	int64_t got = 0;

	(void)state;
	limits.queue_max = 200000;
	s = server_open(&seen, NULL, &limits);
	p = peer_new(s);
	peer_send(&p, "{\"method\":\"io.test.Monitor\",\"more\":true}");
	r = peer_next(&p);
	varlink_reply_done(&r);
	memset(text, 'x', 150000);
	text[150000] = '\0';
	/* More than the socket takes, in pieces that it takes in part. */
	for (int i = 0; i < 4; i++) {
		control_publish(s, json_pack("{s:s, s:i, s:s, s:i}", "event", "big", "first", i,
					     "text", text, "last", i));
		settle(s);
	}
	free(text);
	assert_true(stat_of(s, "events_lost") > 0);
	for (;;) {
		const char *event;

		r = peer_next(&p);
		event = json_string_value(json_object_get(r.parameters, "event"));
		if (strcmp(event, "lost") == 0)
			break;
		assert_string_equal(event, "big");
		assert_true(json_equal(json_object_get(r.parameters, "first"),
				       json_object_get(r.parameters, "last")));
		got++;
		varlink_reply_done(&r);
	}
	assert_int_equal(json_integer_value(json_object_get(r.parameters, "count")), 4 - got);
	varlink_reply_done(&r);
	peer_close(&p);
	control_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slow_reader),       cmocka_unit_test(test_fair),
		cmocka_unit_test(test_single_listing),    cmocka_unit_test(test_listing_fails),
		cmocka_unit_test(test_monitor),           cmocka_unit_test(test_monitor_overflow),
		cmocka_unit_test(test_monitor_lost_last),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
