/* SPDX-License-Identifier: BSD-2-Clause */
/* A thread that does one job at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "worker.h"

static struct worker worker;
static struct errtext err;
static pthread_t owner;

struct job {
	int gate[2]; /* read one byte before it ends; -1: ends at once */
	int result;
	bool elsewhere; /* it ran in another thread than the owner's */
};

static int job_run(void *arg)
{
	struct job *j = arg;
	char c;

	j->elsewhere = !pthread_equal(pthread_self(), owner);
	if (j->gate[0] >= 0)
		assert_int_equal(read(j->gate[0], &c, 1), 1);
	return j->result;
}

static bool readable(int timeout_ms)
{
	struct pollfd p = { .fd = worker_fd(&worker), .events = POLLIN };

	return poll(&p, 1, timeout_ms) == 1;
}

static int setup(void **state)
{
	(void)state;
	owner = pthread_self();
	return worker_open(&worker, &err);
}

static int teardown(void **state)
{
	(void)state;
	worker_close(&worker);
	assert_int_equal(worker_fd(&worker), -1);
	worker_close(&worker);
	return 0;
}

static void test_rounds(void **state)
{
	(void)state;
	assert_false(worker_has_job(&worker));
	assert_true(worker_done(&worker));
	worker_wait(&worker);
	for (int i = 0; i < 100; i++) {
		struct job j = { .gate = { -1, -1 }, .result = i - 50 };

		worker_begin(&worker, job_run, &j);
		assert_true(worker_has_job(&worker));
		assert_true(readable(10000));
		assert_true(worker_done(&worker));
		assert_true(worker_has_job(&worker));
		assert_int_equal(worker_end(&worker), i - 50);
		assert_true(j.elsewhere);
		assert_false(worker_has_job(&worker));
		assert_false(readable(0));
	}
}

/* It goes on while the owner does, and is not done before it is. */
static void test_beside(void **state)
{
	struct job j = { .result = 7 };

	(void)state;
	assert_int_equal(pipe(j.gate), 0);
	worker_begin(&worker, job_run, &j);
	assert_false(worker_done(&worker));
	assert_false(readable(20));
	assert_int_equal(write(j.gate[1], "", 1), 1);
	worker_wait(&worker);
	assert_true(worker_done(&worker));
	assert_true(readable(0));
	assert_int_equal(worker_end(&worker), 7);
	close(j.gate[0]);
	close(j.gate[1]);
}

/* Closing waits for the job's end: what it works on may be freed then. */
static void test_close_waits(void **state)
{
	struct job j = { .result = 1 };

	(void)state;
	assert_int_equal(pipe(j.gate), 0);
	worker_begin(&worker, job_run, &j);
	assert_int_equal(write(j.gate[1], "", 1), 1);
	worker_close(&worker);
	assert_true(j.elsewhere);
	close(j.gate[0]);
	close(j.gate[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_rounds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_beside, setup, teardown),
		cmocka_unit_test_setup_teardown(test_close_waits, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
