/* SPDX-License-Identifier: BSD-2-Clause */
/* When is there something to tell of a pool that fills? */
#include "exhaust.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "clock.h"

#define AT(s) (NS_PER_S * (1000 + (s)))

/* 1000 ports, 200 of them leased: 800 are NAT's. */
static enum exhaust_turn step(struct exhaust_state *s, uint64_t at_s, uint32_t used,
			      uint64_t refused)
{
	return exhaust_judge(s, AT(at_s), &(struct exhaust_ports){ 1000, 200, used }, refused);
}

static void test_near(void **state)
{
	static const struct {
		uint32_t used;
		enum exhaust_turn turn;
	} steps[] = {
		{ 0, EXHAUST_NONE },   { 719, EXHAUST_NONE }, { 720, EXHAUST_NEAR },
		{ 800, EXHAUST_NONE },                        /* told already */
		{ 720, EXHAUST_NONE }, { 700, EXHAUST_NONE }, /* between the two marks nothing changes */
		{ 720, EXHAUST_NONE }, { 639, EXHAUST_OVER }, { 700, EXHAUST_NONE },
		{ 720, EXHAUST_NEAR }, { 0, EXHAUST_OVER },   { 0, EXHAUST_NONE },
	};
	struct exhaust_state s = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		assert_int_equal(step(&s, i, steps[i].used, 0), steps[i].turn);
	/* All ports leased: nothing can fill. */
	s = (struct exhaust_state){ 0 };
	assert_int_equal(exhaust_judge(&s, AT(0), &(struct exhaust_ports){ 64, 64, 0 }, 0),
			 EXHAUST_NONE);
	assert_true(exhaust_left_s(&s.forecast, &s.now) == -1);
	/* Full from the first look on. */
	s = (struct exhaust_state){ 0 };
	assert_int_equal(step(&s, 0, 800, 0), EXHAUST_NEAR);
	assert_true(exhaust_left_s(&s.forecast, &s.now) == 0);
}

static void test_refusing(void **state)
{
	struct exhaust_state s = { 0 };

	(void)state;
	/* What was refused before this daemon came is no news. */
	assert_int_equal(step(&s, 0, 10, 500), EXHAUST_NONE);
	assert_int_equal(step(&s, 1, 10, 501), EXHAUST_REFUSING);
	for (uint64_t i = 2; i < 61; i++)
		assert_int_equal(step(&s, i, 10, 500 + i), EXHAUST_NONE);
	assert_int_equal(step(&s, 61, 10, 561), EXHAUST_REFUSING);
	for (uint64_t i = 62; i < 121; i++)
		assert_int_equal(step(&s, i, 10, 561), EXHAUST_NONE);
	assert_int_equal(step(&s, 121, 10, 561), EXHAUST_OVER);
	assert_int_equal(step(&s, 122, 10, 561), EXHAUST_NONE);
	assert_int_equal(step(&s, 123, 10, 562), EXHAUST_REFUSING);
}

/* Near and refusing at once are told as the worse, and are over when both are. */
static void test_both(void **state)
{
	struct exhaust_state s = { 0 };

	(void)state;
	assert_int_equal(step(&s, 0, 0, 0), EXHAUST_NONE);
	assert_int_equal(step(&s, 1, 800, 7), EXHAUST_REFUSING);
	assert_int_equal(step(&s, 2, 800, 7), EXHAUST_NONE);
	assert_int_equal(step(&s, 3, 100, 7), EXHAUST_NONE);
	assert_int_equal(step(&s, 61, 100, 7), EXHAUST_OVER);
	assert_int_equal(step(&s, 62, 720, 7), EXHAUST_NEAR);
	assert_int_equal(step(&s, 63, 720, 8), EXHAUST_REFUSING);
	assert_int_equal(step(&s, 124, 720, 8), EXHAUST_NONE);
	assert_int_equal(step(&s, 125, 100, 8), EXHAUST_OVER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_near),
		cmocka_unit_test(test_refusing),
		cmocka_unit_test(test_both),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
