/* SPDX-License-Identifier: BSD-2-Clause */
/* When will it be full? */
#include "forecast.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "clock.h"

#define S(n) ((uint64_t)((n)*1e9) + NS_PER_S * 1000)

static void test_steady(void **state)
{
	struct forecast f = { 0 };
	double left_s = -1;

	(void)state;
	assert_false(forecast_full(&f, 2048, &left_s));
	for (unsigned i = 0; i <= 10; i++) {
		forecast_add(&f, S(i), 100 + i * 50);
		/* One look tells no rate, and one step not for long enough. */
		assert_int_equal(forecast_full(&f, 2048, &left_s), i >= 2);
	}
	/* 600 in use, 50 more a second, whatever the rate's memory is. */
	assert_true(left_s > 28.95 && left_s < 28.97);
	/* At other intervals the same. */
	f = (struct forecast){ 0 };
	for (unsigned i = 0; i < 100; i++)
		forecast_add(&f, S(i * 0.3 + (i % 7) * 0.01), 0);
	assert_false(forecast_full(&f, 1, &left_s));
}

static void test_full(void **state)
{
	struct forecast f = { 0 };
	double left_s = -1;

	(void)state;
	/* That it is full needs no rate. */
	forecast_add(&f, S(1), 2048);
	assert_true(forecast_full(&f, 2048, &left_s));
	assert_true(left_s == 0);
	left_s = -1;
	assert_true(forecast_full(&f, 2000, &left_s));
	assert_true(left_s == 0);
	assert_true(forecast_full(&(struct forecast){ .since_ns = 1, .at_ns = 1 }, 0, &left_s));
}

/* It stops filling, empties, fills again: what was, is forgotten. */
static void test_turns(void **state)
{
	struct forecast f = { 0 };
	double left_s = -7;
	unsigned i, used = 0;

	(void)state;
	for (i = 0; i < 20; i++)
		forecast_add(&f, S(i), used += 10);
	for (; i < 60; i++)
		forecast_add(&f, S(i), used -= 5);
	assert_false(forecast_full(&f, 1000, &left_s));
	assert_true(left_s == -7);
	for (; i < 100; i++)
		forecast_add(&f, S(i), used += 20);
	/* 800 in use, 20 a second: the rate before has less than a tenth of a weight left. */
	assert_true(forecast_full(&f, 1000, &left_s));
	assert_true(left_s > 9.5 && left_s < 11.5);
	/* Standing still, the rate dies away, and with it the forecast. */
	for (; i < 1000; i++)
		forecast_add(&f, S(i), used);
	assert_false(forecast_full(&f, 1000, &left_s));
}

static void test_odd(void **state)
{
	struct forecast f = { 0 };
	double left_s = 0;

	(void)state;
	/* Too far away to be told: 100,000 s. */
	for (unsigned i = 0; i < 50; i++)
		forecast_add(&f, S(i * 100), i);
	assert_false(forecast_full(&f, 1050, &left_s));
	assert_true(forecast_full(&f, 150, &left_s));
	/* A clock that stands still or goes back counts nothing. */
	f = (struct forecast){ 0 };
	forecast_add(&f, S(10), 0);
	forecast_add(&f, S(10), 500);
	forecast_add(&f, S(5), 900);
	assert_false(forecast_full(&f, 1000, &left_s));
	forecast_add(&f, S(20), 500);
	assert_true(forecast_full(&f, 1000, &left_s));
	assert_true(left_s > 9.99 && left_s < 10.01);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_steady),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_turns),
		cmocka_unit_test(test_odd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
