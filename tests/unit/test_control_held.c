/* SPDX-License-Identifier: BSD-2-Clause */
/* The control server: answers that wait until what they say is on the disk. */
#include "control_test.h"

#define FAILED "io.sluice.Failed"

/* Is an answer there, without the server doing anything? */
static bool has_answer(struct peer *p)
{
	struct pollfd fd = { .fd = p->fd, .events = POLLIN };

	while (!varlink_reader_ready(&p->in) && poll(&fd, 1, 0) == 1)
		assert_true(peer_fill(p));
	return varlink_reader_ready(&p->in);
}

static void send_held(struct peer *p, int n, int fill, bool fd)
{
	char text[128];

	snprintf(text, sizeof(text),
		 "{\"method\":\"io.test.Held\",\"parameters\":{\"n\":%d,\"fill\":%d,\"fd\":%s}}", n,
		 fill, fd ? "true" : "false");
	peer_send(p, text);
}

/* What is in front of a waiting answer leaves; what is behind it waits with it; then all comes in order. */
static void test_order(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p = peer_new(s), other = peer_new(s);
	struct varlink_reply r;

	(void)state;
	assert_false(control_holding(s));
	peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":1}}");
	send_held(&p, 2, 0, false);
	peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":3}}");
	send_held(&p, 4, 10, false);
	peer_send(&p, "{\"method\":\"io.test.List\",\"more\":true,\"parameters\":{\"count\":5}}");
	peer_send(&p, "{\"method\":\"io.test.Nothing\"}");
	send_held(&p, 6, 0, false);
	peer_send(&p, "{\"method\":\"io.test.Monitor\",\"more\":true}");
	settle(s);
	assert_true(control_holding(s));
	assert_int_equal(seen.calls, 6);
	assert_int_equal(stat_of(s, "monitors"), 1);
	control_publish(s, json_pack("{s:s}", "event", "first"));
	settle(s);
	expect_reply(&p, "n", 1);
	assert_false(has_answer(&p));
	/* Nobody else waits. */
	peer_send(&other, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":9}}");
	expect_reply(&other, "n", 9);
	assert_false(has_answer(&p));

	control_settle(s, true, NULL);
	assert_false(control_holding(s));
	/* They have left at once. */
	assert_true(has_answer(&p));
	expect_reply(&p, "n", 2);
	expect_reply(&p, "n", 3);
	expect_reply(&p, "n", 4);
	r = peer_next(&p);
	assert_int_equal(json_array_size(json_object_get(r.parameters, "rows")), 5);
	varlink_reply_done(&r);
	expect_error(&p, "org.varlink.service.MethodNotFound", "method", "io.test.Nothing");
	expect_reply(&p, "n", 6);
	for (int i = 0; i < 2; i++) {
		r = peer_next(&p);
		assert_true(r.continues);
		assert_string_equal(json_string_value(json_object_get(r.parameters, "event")),
				    i ? "first" : "subscribed");
		varlink_reply_done(&r);
	}
	peer_close(&p);
	peer_close(&other);
	settle(s);
	assert_int_equal(stat_of(s, "clients"), 0);
	control_close(s);
}

/* Each waiting answer becomes an error, and nothing else does; descriptors stay with nobody. */
static void test_failure(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p = peer_new(s), q = peer_new(s);
	unsigned before = open_fds();

	(void)state;
	for (int i = 0; i < 3; i++) {
		send_held(&p, 1, 1000, true);
		peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":2}}");
		send_held(&q, 3, 0, false);
	}
	settle(s);
	expect_fds(before + 3);
	control_settle(s, false, "the disk is \xff full");
	expect_fds(before);
	for (int i = 0; i < 3; i++) {
		expect_error(&p, FAILED, "text", "the disk is ? full");
		expect_reply(&p, "n", 2);
		expect_error(&q, FAILED, "text", "the disk is ? full");
	}
	/* The next one is none the worse. */
	send_held(&p, 7, 0, false);
	settle(s);
	control_settle(s, true, NULL);
	expect_reply(&p, "n", 7);
	peer_close(&p);
	peer_close(&q);
	control_close(s);
}

/* What was there when it was sealed leaves, and nothing that came later: neither of the same client nor of another one. */
static void test_sealed(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p = peer_new(s), q = peer_new(s), idle = peer_new(s);
	unsigned before = open_fds();
	uint64_t seal;

	(void)state;
	send_held(&p, 1, 0, true);
	peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":2}}");
	settle(s);
	seal = control_seal(s);
	send_held(&p, 3, 0, true);
	peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":4}}");
	send_held(&q, 5, 0, false);
	settle(s);
	assert_false(has_answer(&p));
	expect_fds(before + 2);
	control_settle_sealed(s, seal);
	expect_reply(&p, "n", 1);
	expect_reply(&p, "n", 2);
	assert_false(has_answer(&p));
	assert_false(has_answer(&q));
	assert_true(control_holding(s));
	/* Twice is no more than once. */
	control_settle_sealed(s, seal);
	assert_false(has_answer(&p));
	seal = control_seal(s);
	send_held(&idle, 6, 0, false);
	settle(s);
	control_settle_sealed(s, seal);
	expect_reply(&p, "n", 3);
	expect_reply(&p, "n", 4);
	expect_reply(&q, "n", 5);
	assert_false(has_answer(&idle));
	/* A failure is everybody's, sealed or not. */
	send_held(&p, 7, 0, true);
	settle(s);
	seal = control_seal(s);
	send_held(&q, 8, 0, false);
	settle(s);
	control_settle(s, false, "no");
	expect_error(&idle, FAILED, "text", "no");
	expect_error(&p, FAILED, "text", "no");
	expect_error(&q, FAILED, "text", "no");
	assert_false(control_holding(s));
	/* Who goes takes his answers along. */
	send_held(&p, 9, 0, true);
	send_held(&q, 10, 0, false);
	settle(s);
	seal = control_seal(s);
	peer_close(&p);
	settle(s);
	control_settle_sealed(s, seal);
	expect_reply(&q, "n", 10);
	assert_false(control_holding(s));
	peer_close(&q);
	peer_close(&idle);
	control_close(s);
}

/* One transaction serves many: a dispatch takes in a call from each of 64 clients. */
static void test_group(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p[64];

	(void)state;
	if (geteuid() != 0) {
		control_close(s);
		skip(); /* not so many of one uid */
	}
	for (int i = 0; i < 64; i++)
		p[i] = peer_new(s);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 64; i++)
			send_held(&p[i], i, 0, false);
		/* As far as its time goes, on a machine that is slow; but far more than one at a time. */
		for (int i = 0; seen.calls < 64; i++) {
			assert_true(i < 8);
			assert_int_equal(control_dispatch(s), 0);
		}
		seen.calls = 0;
		control_settle(s, true, NULL);
		for (int i = 0; i < 64; i++) {
			assert_true(has_answer(&p[i]));
			expect_reply(&p[i], "n", i);
		}
	}
	for (int i = 0; i < 64; i++)
		peer_close(&p[i]);
	control_close(s);
}

/* A client that pipelines: many calls a dispatch, all answered, in order, however they are settled. */
static void test_pipeline(void **state)
{
	const int total = 1000;
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p = peer_new(s);
	int answered = 0, settled = 0;

	(void)state;
	for (int i = 0; i < total; i++)
		send_held(&p, i, 0, i % 100 == 50);
	while (answered < total) {
		assert_true(server_ready(s, HANG_MS));
		assert_int_equal(control_dispatch(s), 0);
		if (control_holding(s))
			control_settle(s, ++settled % 3 != 0, "no");
		while (has_answer(&p)) {
			struct varlink_reply r = peer_next(&p);

			if (r.error)
				assert_string_equal(r.error, FAILED);
			else
				assert_int_equal(
					json_integer_value(json_object_get(r.parameters, "n")),
					answered);
			varlink_reply_done(&r);
			answered++;
		}
	}
	assert_int_equal(seen.calls, total);
	assert_true(settled * 16 < total);
	peer_close(&p);
	control_close(s);
}

/* Clients that go while their answers wait, in all ways, and the server's own end. */
static void test_gone(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	unsigned before = open_fds();

	(void)state;
	for (int how = 0; how < 6; how++) {
		struct peer p = peer_new(s);

		for (int i = 0; i < 5; i++)
			send_held(&p, i, 100, true);
		if (how & 1)
			peer_send(&p, "{\"method\":\"io.test.Monitor\",\"more\":true}");
		if (how < 2) {
			settle(s);
			assert_true(control_holding(s));
			peer_close(&p);
			settle(s);
		} else if (how < 4) {
			settle(s);
			peer_close(&p);
			control_settle(s, how == 2, "no");
			settle(s);
		} else {
			peer_close(&p);
			settle(s);
		}
		assert_false(control_holding(s));
		assert_int_equal(stat_of(s, "clients"), 0);
		assert_int_equal(stat_of(s, "monitors"), 0);
		expect_fds(before);
		control_settle(s, true, NULL);
	}
	/* A client that only says no more waits for its answers. */
	{
		struct peer p = peer_new(s);

		send_held(&p, 1, 0, false);
		shutdown(p.fd, SHUT_WR);
		settle(s);
		assert_int_equal(stat_of(s, "clients"), 1);
		control_settle(s, true, NULL);
		assert_int_equal(stat_of(s, "clients"), 0);
		expect_reply(&p, "n", 1);
		expect_closed(&p);
		peer_close(&p);
	}
	/* Nor does garbage behind it overtake it. */
	{
		struct peer p = peer_new(s);

		send_held(&p, 1, 0, true);
		peer_send(&p, "garbage");
		settle(s);
		assert_false(has_answer(&p));
		control_settle(s, false, "no");
		expect_error(&p, FAILED, "text", "no");
		expect_error(&p, "io.sluice.BadMessage", NULL, NULL);
		expect_closed(&p);
		peer_close(&p);
	}
	{
		struct peer p = peer_new(s);

		send_held(&p, 1, 0, true);
		settle(s);
		control_close(s);
		assert_false(peer_fill(&p));
		assert_false(varlink_reader_ready(&p.in));
		peer_close(&p);
	}
	expect_fds(before - 2); /* epoll, timer */
}

static void test_oneway(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p = peer_new(s);
	unsigned before = open_fds();

	(void)state;
	peer_send(&p, "{\"method\":\"io.test.Held\",\"oneway\":true,\"parameters\":{\"fd\":true}}");
	settle(s);
	assert_int_equal(seen.calls, 1);
	assert_false(control_holding(s));
	expect_fds(before);
	peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":3}}");
	expect_reply(&p, "n", 3);
	peer_close(&p);
	control_close(s);
}

/* What waits is bounded, by bytes and by descriptors: then the client's calls wait; and the server does not spin. */
static void test_limits(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	unsigned before;

	(void)state;
	for (int fds = 0; fds < 2; fds++) {
		struct peer p = peer_new(s);
		int answered = 0;

		before = open_fds();
		seen.calls = 0;
		for (int i = 0; i < 100; i++)
			send_held(&p, i, fds ? 0 : 10000, fds);
		settle(s); /* comes to rest */
		if (fds) {
			assert_int_equal(seen.calls, 16);
			expect_fds(before + 16);
		} else {
			assert_int_equal(seen.calls, 7); /* the first one beyond 64 KiB */
		}
		control_settle(s, true, NULL);
		while (answered < 100) {
			if (!has_answer(&p)) {
				settle(s);
				control_settle(s, true, NULL);
				continue;
			}
			expect_reply(&p, "n", answered++);
		}
		assert_int_equal(seen.calls, 100);
		expect_fds(before);
		peer_close(&p);
		settle(s);
	}
	control_close(s);
}

/* Events that wait behind an answer may be lost, and are told of in their place; the answers never are. */
static void test_monitor(void **state)
{
	struct control_limits limits = CONTROL_LIMITS;
	struct seen seen = { 0 };
	struct control *s;
	struct peer p;
	struct varlink_reply r;
	int64_t next = 0;

	(void)state;
	limits.queue_max = 20000;
	s = server_open(&seen, NULL, &limits);
	p = peer_new(s);
	send_held(&p, 1, 5000, false);
	peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":2}}");
	send_held(&p, 3, 5000, false);
	peer_send(&p, "{\"method\":\"io.test.Monitor\",\"more\":true}");
	settle(s);
	for (int i = 0; i < 1000; i++) {
		control_publish(s, json_pack("{s:s, s:i}", "event", "tick", "n", i));
		if (i % 10 == 0)
			settle(s);
	}
	control_settle(s, true, NULL);
	expect_reply(&p, "n", 1);
	expect_reply(&p, "n", 2);
	expect_reply(&p, "n", 3);
	r = peer_next(&p);
	assert_string_equal(json_string_value(json_object_get(r.parameters, "event")),
			    "subscribed");
	varlink_reply_done(&r);
	r = peer_next(&p);
	assert_string_equal(json_string_value(json_object_get(r.parameters, "event")), "lost");
	next = json_integer_value(json_object_get(r.parameters, "count"));
	assert_true(next > 800);
	assert_int_equal(next, stat_of(s, "events_lost"));
	varlink_reply_done(&r);
	for (; next < 1000; next++) {
		r = peer_next(&p);
		assert_int_equal(json_integer_value(json_object_get(r.parameters, "n")), next);
		varlink_reply_done(&r);
	}
	peer_close(&p);
	control_close(s);
}

/* ---- faults ---- */

static unsigned until_failure; /* allocations that succeed before one fails */

static void *failing_malloc(size_t size)
{
	if (until_failure > 0 && --until_failure == 0)
		return NULL;
	return malloc(size);
}

/* The k-th allocation of JSON fails: in the call, its answer, or the error that takes the answer's place. */
static void test_no_memory(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	unsigned before = open_fds();
	bool failed = true;

	(void)state;
	for (unsigned k = 1; failed; k++) {
		for (int ok = 0; ok < 2; ok++) {
			struct peer p = peer_new(s), q = peer_new(s);

			assert_true(k < 10000);
			send_held(&p, 1, 0, true);
			send_held(&p, 2, 0, false);
			send_held(&q, 3, 0, true);
			until_failure = k;
			json_set_alloc_funcs(failing_malloc, free);
			settle(s);
			control_settle(s, ok, "no");
			failed = until_failure == 0;
			until_failure = 0;
			json_set_alloc_funcs(malloc, free);
			assert_false(control_holding(s));
			peer_close(&p);
			peer_close(&q);
			settle(s);
			assert_int_equal(stat_of(s, "clients"), 0);
			expect_fds(before);
		}
	}
	control_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),    cmocka_unit_test(test_failure),
		cmocka_unit_test(test_group),    cmocka_unit_test(test_sealed),
		cmocka_unit_test(test_pipeline), cmocka_unit_test(test_gone),
		cmocka_unit_test(test_oneway),   cmocka_unit_test(test_limits),
		cmocka_unit_test(test_monitor),  cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
