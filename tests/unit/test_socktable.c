/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of sockets against a list that is searched from end to end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "socktable.h"

static const uint64_t key[2] = { 0x0123456789abcdefULL, 0xfedcba9876543210ULL };

static struct sockdiag_sock sock(uint32_t local, uint16_t lport, uint32_t remote, uint16_t rport,
				 uint64_t cookie)
{
	struct sockdiag_sock s = { .l4 = SLUICE_TCP, .lport = lport, .rport = rport };

	s.local = addr_from_v4(local);
	if (remote)
		s.remote = addr_from_v4(remote);
	s.cookie = cookie;
	return s;
}

static const struct sockdiag_sock *first(const struct socktable *t, const struct sockdiag_sock *s)
{
	size_t at = 0;

	return socktable_next(t, s->l4, &s->local, s->lport, s->rport ? &s->remote : NULL, s->rport,
			      &at);
}

static void test_places(void **state)
{
	struct socktable t;
	struct sockdiag_sock s, other;

	(void)state;
	srandom(1);
	socktable_init(&t, key, SOCKTABLE_MAX);
	for (uint32_t i = 0; i < 20000; i++) {
		s = sock(i % 7 + 1, (uint16_t)(1024 + i % 1000), i + 1, (uint16_t)(i % 5 + 1),
			 i + 1);
		assert_int_equal(socktable_add(&t, &s), 0);
	}
	/* Nothing is found before it is sealed. */
	assert_null(first(&t, &s));
	assert_false(socktable_has_cookie(&t, 1));
	assert_int_equal(socktable_seal(&t), 0);
	for (uint32_t i = 0; i < 20000; i++) {
		s = sock(i % 7 + 1, (uint16_t)(1024 + i % 1000), i + 1, (uint16_t)(i % 5 + 1), 0);
		assert_non_null(first(&t, &s));
		assert_int_equal(first(&t, &s)->cookie, i + 1);
		assert_true(socktable_has_cookie(&t, i + 1));
		/* Each part of a place counts. */
		other = s;
		other.l4 = SLUICE_UDP;
		assert_null(first(&t, &other));
		other = s;
		other.lport++;
		assert_null(first(&t, &other));
		other = s;
		other.rport++;
		assert_null(first(&t, &other));
		other = s;
		other.local = addr_from_v4(i % 7 + 20);
		assert_null(first(&t, &other));
		other = s;
		other.remote = addr_from_v4(i + 100000);
		assert_null(first(&t, &other));
	}
	assert_false(socktable_has_cookie(&t, 0));
	assert_false(socktable_has_cookie(&t, 20001));
	socktable_empty(&t);
	assert_int_equal(t.n, 0);
	assert_null(first(&t, &s));
	assert_false(socktable_has_cookie(&t, 1));
	socktable_done(&t);
}

/* Thousands on one place: some are found, and all by cookie, in no time. */
static void test_one_place(void **state)
{
	struct socktable t;
	struct sockdiag_sock s;
	size_t at = 0, n = 0;

	(void)state;
	socktable_init(&t, key, SOCKTABLE_MAX);
	for (uint32_t i = 0; i < 100000; i++) {
		s = sock(1, 80, 0, 0, i + 1);
		assert_int_equal(socktable_add(&t, &s), 0);
	}
	s = sock(1, 80, 2, 443, 100001);
	assert_int_equal(socktable_add(&t, &s), 0);
	assert_int_equal(socktable_seal(&t), 0);
	assert_int_equal(first(&t, &s)->cookie, 100001);
	while (socktable_next(&t, SLUICE_TCP, &s.local, 80, NULL, 0, &at))
		n++;
	assert_int_equal(n, 16);
	for (uint32_t i = 0; i < 100001; i++)
		assert_true(socktable_has_cookie(&t, i + 1));
	socktable_done(&t);
}

static void test_cut(void **state)
{
	struct socktable t;
	struct sockdiag_sock s;

	(void)state;
	socktable_init(&t, key, 100);
	for (uint32_t i = 0; i < 130; i++) {
		s = sock(1, (uint16_t)(i + 1), 0, 0, i + 1);
		assert_int_equal(socktable_add(&t, &s), 0);
	}
	assert_int_equal(t.n, 100);
	assert_int_equal(t.cut, 30);
	assert_int_equal(socktable_seal(&t), 0);
	assert_true(socktable_has_cookie(&t, 100));
	assert_false(socktable_has_cookie(&t, 101));
	socktable_empty(&t);
	assert_int_equal(t.cut, 0);
	socktable_done(&t);
}

/* The same places hash differently with another key: who chooses places cannot choose chains. */
static void test_key(void **state)
{
	static const uint64_t keys[][2] = { { 1, 2 }, { 1, 3 }, { 2, 2 }, { 0, 0 } };
	struct sockdiag_sock s = sock(1, 80, 2, 443, 1);
	uint64_t h[4];

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		h[i] = socktable_hash(keys[i], s.l4, &s.local, s.lport, &s.remote, s.rport);
		for (size_t j = 0; j < i; j++)
			assert_true(h[i] != h[j]);
	}
}

static void test_empty(void **state)
{
	struct sockdiag_sock s = sock(1, 80, 2, 443, 1);
	struct socktable t;

	(void)state;
	socktable_init(&t, key, 10);
	assert_null(first(&t, &s));
	assert_int_equal(socktable_seal(&t), 0);
	assert_null(first(&t, &s));
	assert_false(socktable_has_cookie(&t, 1));
	socktable_done(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_places), cmocka_unit_test(test_one_place),
		cmocka_unit_test(test_cut),    cmocka_unit_test(test_key),
		cmocka_unit_test(test_empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
