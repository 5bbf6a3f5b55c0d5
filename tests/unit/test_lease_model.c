/* SPDX-License-Identifier: BSD-2-Clause */
/* The lease table against a model of it: any sequence of steps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define MODEL_CHECK(x) assert_true(x)
#include "lease_steps.h"

#define STEPS 100000

static struct model model;

static void run(uint64_t seed, unsigned steps)
{
	model_new(&model, model_random);
	model.seed = seed;
	model_slices(&model);
	for (unsigned i = 0; i < steps; i++)
		model_step(&model);
	model_compare(&model);
}

/* LEASE_SEEDS="7 8 9" runs these. */
static void test_model(void **state)
{
	const char *seeds = getenv("LEASE_SEEDS") ?: "1 2";
	char *end;

	(void)state;
	for (;; seeds = end) {
		uint64_t seed = strtoull(seeds, &end, 0);

		if (end == seeds)
			break;
		print_message("seed %llu\n", (unsigned long long)seed);
		run(seed, STEPS);
		print_message("chosen %lu; refused: ENOSPC %lu, EADDRINUSE %lu, EDQUOT %lu, "
			      "EKEYEXPIRED %lu, ENOENT %lu, EINVAL %lu\n",
			      model.answers[0], model.answers[ENOSPC], model.answers[EADDRINUSE],
			      model.answers[EDQUOT], model.answers[EKEYEXPIRED],
			      model.answers[ENOENT], model.answers[EINVAL]);
		/* A run that never sees one of them tests less than it says. */
		assert_true(model.answers[0] && model.answers[ENOSPC] &&
			    model.answers[EADDRINUSE] && model.answers[EDQUOT] &&
			    model.answers[EKEYEXPIRED] && model.answers[ENOENT] &&
			    model.answers[EINVAL]);
		model_free(&model);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
