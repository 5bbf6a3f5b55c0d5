/* SPDX-License-Identifier: BSD-2-Clause */
/* What libsluice bears: many threads, a daemon that talks nonsense or does not stop, and lack of memory. */
#include "libsluice_test.h"

/* ---- threads ---- */

#define THREADS 8

static struct sluice *shared;

static void *use_handle(void *data)
{
	int n = (int)(intptr_t)data;
	struct sluice_request req = { .ttl_s = 1, .renew = true };
	struct sluice_socket_options wrong = { .proto = 0xff };
	struct sluice_lease *l[3];
	char want[64];
	const char *said;

	for (int i = 0; i < 40; i++) {
		if (sluice_acquire_many(shared, &req, 3, l) < 0)
			return (void *)"acquire";
		if (sluice_renew(shared, l[n % 3], 0) < 0)
			return (void *)"renew";
		/* Each thread reads its own failure, whatever the others do. */
		if (n % 2) {
			if (sluice_open(shared, l[0], &wrong) != -EINVAL)
				return (void *)"open";
			snprintf(want, sizeof(want), "one protocol");
		} else {
			uint64_t id = 3900 + (unsigned)n;

			if (sluice_find(shared, id, &l[2]) != -ESTALE)
				return (void *)"find";
			snprintf(want, sizeof(want), "lease %d ", 3900 + n);
		}
		said = sluice_error(shared);
		sched_yield();
		if (!strstr(said, want))
			return (void *)"error text";
		if (sluice_release_many(shared, l, 3) < 0)
			return (void *)"release";
	}
	return NULL;
}

static void *fail_once(void *data)
{
	struct sluice_lease *l;

	(void)data;
	return (void *)(intptr_t)(sluice_find(shared, 0, &l) != -ESTALE);
}

static void test_threads(void **state)
{
	pthread_t threads[THREADS];
	void *said;

	(void)state;
	fake->next = 0;
	shared = open_handle();
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, use_handle, (void *)(intptr_t)i),
				 0);
	for (int i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], &said), 0);
		if (said)
			fail_msg("thread %d: %s: %s", i, (char *)said, sluice_error(shared));
	}
	for (unsigned i = 1; i <= fake->next; i++)
		assert_false(fake->leases[i].active);
	/* Threads that come and go leave no heap of texts behind. */
	for (int i = 0; i < 200; i++) {
		assert_int_equal(pthread_create(threads, NULL, fail_once, NULL), 0);
		assert_int_equal(pthread_join(threads[0], &said), 0);
		assert_null(said);
	}
	assert_in_range(shared->n_errors, 1, 40);
	sluice_close(shared);
}

/* ---- nonsense ---- */

static void answer_bytes(const char *bytes, size_t len)
{
	memcpy(fake->bytes, bytes, len);
	fake->n_bytes = len;
	fake_be(FAKE_BYTES, -1);
}

#define ROW                                                                                  \
	"\"pool\":\"p\",\"proto\":\"tcp\",\"address\":\"192.0.2.1\",\"first\":5,\"last\":6," \
	"\"kind\":\"shared\",\"state\":\"active\",\"expires_s\":9"

#define GRANT "\"last\":6,\"first\":5,\"pool\":\"p\",\"address\":\"192.0.2.1\""

static void test_nonsense(void **state)
{
	static const struct {
		const char *bytes;
		int err;
		const char *says;
	} answers[] = {
		{ "HTTP/1.1 400 Bad Request\r\n\r\n", EPROTO, "is not sluiced" },
		{ "{}", EPROTO, "makes no sense" },
		{ "[]", EPROTO, "is not sluiced" },
		{ "{\"parameters\":[]}", EPROTO, "is not sluiced" },
		{ "{\"continues\":true}", EPROTO, "more than it was asked for" },
		{ "{\"parameters\":{\"leases\":{}}}", EPROTO, "makes no sense" },
		{ "{\"parameters\":{\"leases\":[]}}", EPROTO, "makes no sense" },
		{ "{\"parameters\":{\"leases\":[{\"id\":0," ROW "}]}}", EPROTO, "no sense" },
		{ "{\"parameters\":{\"leases\":[{\"id\":-3," ROW "}]}}", EPROTO, "no sense" },
		{ "{\"parameters\":{\"leases\":[{" ROW "}]}}", EPROTO, "no sense" },
		{ "{\"parameters\":{\"leases\":[{\"id\":3," ROW "},{\"id\":4," ROW "}]}}", EPROTO,
		  "no sense" },
		{ "{\"parameters\":{\"leases\":[{\"id\":3," ROW "}]}}", 0, "" },
		{ "{\"parameters\":{\"grants\":{}}}", EPROTO, "makes no sense" },
		{ "{\"parameters\":{\"grants\":[]}}", EPROTO, "makes no sense" },
		{ "{\"parameters\":{\"grants\":[{\"id\":0," GRANT "}]}}", EPROTO, "no sense" },
		{ "{\"parameters\":{\"grants\":[{" GRANT "}]}}", EPROTO, "no sense" },
		{ "{\"parameters\":{\"grants\":[{\"id\":3," GRANT "},{\"id\":4," GRANT "}]}}",
		  EPROTO, "no sense" },
		{ "{\"parameters\":{\"grants\":[{\"id\":3," GRANT "}]}}", 0, "" },
	};
	static const char *const good[] = {
		"{\"parameters\":{\"leases\":[{\"id\":3," ROW "}]}}",
		"{\"parameters\":{\"grants\":[{\"id\":3," GRANT "}]}}",
	};
	/* Each one field, and a value that it must not have; the last four are not in a grant. */
	static const char *const wrong[][2] = {
		{ "\"p\"",
		  "\"ppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppp\"" },
		{ "\"p\"", "17" },
		{ "\"192.0.2.1\"", "\"192.0.2.\"" },
		{ "\"192.0.2.1\"",
		  "\"1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111\"" },
		{ ":5,", ":0," },
		{ ":5,", ":65536," },
		{ ":5,", ":7," },
		{ ":6,", ":4294967302," },
		{ "\"tcp\"", "\"sctp\"" },
		{ "\"shared\"", "null" },
		{ ":9", ":-1" },
		{ ":9", ":99999999999" },
	};
	struct sluice_request req = { 0 };
	struct sluice *s = open_handle();
	struct sluice_lease *l = NULL;
	unsigned fds = count_fds();

	(void)state;
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		size_t len = strlen(answers[i].bytes);

		answer_bytes(answers[i].bytes, len + 1);
		expect_error(s, sluice_acquire(s, &req, &l), answers[i].err, answers[i].says);
		/* Half an answer, whichever it is. */
		answer_bytes(answers[i].bytes, len);
		expect_error(s, sluice_acquire(s, &req, &l), ECONNRESET, "has hung up");
	}
	for (size_t i = 0, n = sizeof(wrong) / sizeof(wrong[0]); i < 2 * n - 4; i++) {
		const char *text_good = good[i / n], *at = strstr(text_good, wrong[i % n][0]);
		char text[600];

		assert_non_null(at);
		snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - text_good), text_good,
			 wrong[i % n][1], at + strlen(wrong[i % n][0]));
		answer_bytes(text, strlen(text) + 1);
		expect_error(s, sluice_acquire(s, &req, &l), EPROTO, "makes no sense");
	}
	/* A renewal that speaks of another lease. */
	answer_bytes("{\"parameters\":{\"lease\":{\"id\":4," ROW "}}}",
		     strlen("{\"parameters\":{\"lease\":{\"id\":4," ROW "}}}") + 1);
	expect_error(s, sluice_renew(s, l, 0), EPROTO, "makes no sense");
	fake_be(FAKE_FAIR, 0);
	sluice_acquire(s, &req, &l);
	assert_int_equal(count_fds(), fds);
	sluice_close(s);
}

/* What a grant does not say is what was asked for. */
static void test_grant(void **state)
{
	static const char granted[] = "{\"parameters\":{\"grants\":[{\"id\":3," GRANT "}]}}";
	struct sluice_request req = { .proto = SLUICE_PROTO_UDP, .exclusive = true, .ttl_s = 60 };
	struct sluice *s = open_handle();
	struct sluice_lease *l;

	(void)state;
	answer_bytes(granted, sizeof(granted));
	l = acquire_one(s, &req);
	assert_int_equal(sluice_lease_id(l), 3);
	assert_string_equal(sluice_lease_pool(l), "p");
	assert_string_equal(sluice_lease_address(l), "192.0.2.1");
	assert_int_equal(sluice_lease_first(l), 5);
	assert_int_equal(sluice_lease_last(l), 6);
	assert_int_equal(sluice_lease_proto(l), SLUICE_PROTO_UDP);
	assert_true(sluice_lease_exclusive(l));
	assert_in_range(sluice_lease_expires_s(l), 30, 60);
	req = (struct sluice_request){ 0 };
	answer_bytes(granted, sizeof(granted));
	l = acquire_one(s, &req);
	assert_int_equal(sluice_lease_proto(l), SLUICE_PROTO_TCP);
	assert_false(sluice_lease_exclusive(l));
	assert_int_equal(sluice_lease_expires_s(l), -1);
	fake_be(FAKE_FAIR, 0);
	sluice_close(s);
}

/* An answer without an end is not read for ever. */
static void test_flood(void **state)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct sluice_request req = { 0 };
	struct sluice_lease *l;
	struct sluice *s;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pid_t pid;

	(void)state;
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/flood", fake_dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 4), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		static char x[65536];

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		memset(x, 'x', sizeof(x));
		for (;;) {
			int c = accept(fd, NULL, NULL);

			while (send(c, x, sizeof(x), MSG_NOSIGNAL) > 0)
				;
			close(c);
		}
	}
	close(fd);
	assert_int_equal(sluice_connect(sa.sun_path, &s), 0);
	/* Sent before anything was asked: of no use, and left; on the next connection it comes after the question. */
	expect_error(s, sluice_acquire(s, &req, &l), EPROTO, "too long");
	sluice_close(s);
	fake_stop(pid);
	unlink(sa.sun_path);
}

static uint64_t seed;

static uint64_t draw(uint64_t n)
{
	seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (seed >> 33) % n;
}

static void test_fuzz(void **state)
{
	static const char *const goods[] = {
		"{\"parameters\":{\"leases\":[{\"id\":3," ROW "}]}}",
		"{\"parameters\":{\"lease\":{\"id\":3," ROW "}}}",
		"{\"error\":\"io.sluice.NoSuchLease\",\"parameters\":{\"id\":3}}",
		"{\"error\":\"io.sluice.NoPorts\",\"parameters\":{\"text\":\"no\"}}",
		"{\"parameters\":{\"address\":\"192.0.2.1\",\"port\":3}}",
	};
	static const char bits[] = "{}[]\",:0123456789-eE.\\u\0tfn\xff\x80 ";
	struct sluice_request req = { 0 };
	struct sluice *s = open_handle();
	unsigned fds = count_fds(), went_well = 0, failed = 0;

	(void)state;
	seed = 1;
	for (int i = 0; i < 400; i++) {
		const char *good = goods[draw(sizeof(goods) / sizeof(goods[0]))];
		struct sluice_lease *l = NULL, *ours;
		char text[512];
		size_t len = strlen(good) + 1;
		int r;

		memcpy(text, good, len);
		for (uint64_t n = draw(4); n > 0; n--) {
			size_t at = draw(len), end = at + draw(len - at);

			if (draw(4) == 0) {
				memmove(text + at, text + end, len - end);
				len -= end - at;
			} else {
				text[at] = bits[draw(sizeof(bits))];
			}
		}
		ours = acquire_one(s, &req);
		answer_bytes(text, len);
		switch (draw(4)) {
		case 0:
			r = sluice_acquire(s, &req, &l);
			break;
		case 1:
			r = sluice_renew(s, ours, 0);
			break;
		case 2:
			r = sluice_find(s, 3, &l);
			break;
		default:
			r = sluice_open(s, ours, NULL);
			assert_true(r < 0);
			break;
		}
		*(r == 0 ? &went_well : &failed) += 1;
		if (r < 0 && r != -EPROTO && r != -ECONNRESET && r != -ESTALE && r != -ENOSPC)
			fail_msg("%d for %.*s", r, (int)len, text);
		assert_int_equal(l != NULL, r == 0 && l != NULL);
		fake_be(FAKE_FAIR, 0);
		fake->next = 0;
		if (l)
			sluice_forget(s, l);
		sluice_forget(s, ours);
	}
	sluice_find(s, 1, &(struct sluice_lease *){ NULL });
	assert_int_equal(count_fds(), fds);
	assert_true(went_well > 5 && failed > 150);
	sluice_close(s);
}

/* ---- memory ---- */

static int allocations_left;

static void *scarce_malloc(size_t size)
{
	return allocations_left-- > 0 ? malloc(size) : NULL;
}

/* Fails every allocation of JSON once, first, second, third ... */
static void test_oom(void **state)
{
	struct sluice_request req = { .pool = "default", .tags = "a=b", .name = "n" };
	struct sluice *s = open_handle();
	struct sluice_lease *l = acquire_one(s, &req), *other;
	unsigned fds = count_fds(), failed = 0;
	json_malloc_t old_malloc;
	json_free_t old_free;

	(void)state;
	json_get_alloc_funcs(&old_malloc, &old_free);
	for (int what = 0; what < 5; what++) {
		for (int k = 0;; k++) {
			int r;

			fake->next = 100;
			allocations_left = k;
			json_set_alloc_funcs(scarce_malloc, free);
			switch (what) {
			case 0:
				r = sluice_acquire(s, &req, &other);
				break;
			case 1:
				r = sluice_renew(s, l, 5);
				break;
			case 2:
				r = sluice_find(s, sluice_lease_id(l), &other);
				break;
			case 3:
				r = sluice_open(s, l, NULL);
				break;
			default:
				r = sluice_release(s, l);
			}
			json_set_alloc_funcs(old_malloc, old_free);
			if (r >= 0) {
				if (what == 3)
					close(r);
				break;
			}
			failed++;
			if (r != -ENOMEM && r != -EPROTO)
				fail_msg("%d: %s", r, sluice_error(s));
			assert_true(strlen(sluice_error(s)) > 0);
			if (what == 4)
				assert_int_equal(sluice_find(s, 101, &l) == 0 ||
							 sluice_acquire(s, &req, &l) == 0,
						 true);
			sluice_renew(s, l, 0);
		}
	}
	assert_true(failed > 50);
	sluice_find(s, 101, &other);
	assert_int_equal(count_fds(), fds);
	sluice_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads), cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_grant),   cmocka_unit_test(test_flood),
		cmocka_unit_test(test_fuzz),    cmocka_unit_test(test_oom),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
