/* SPDX-License-Identifier: BSD-2-Clause */
/* What the kernel says about processes that this test makes. Needs no root. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "process.h"

/* Clock ticks since boot. */
static uint64_t ticks_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 100 + (uint64_t)t.tv_nsec / 10000000;
}

/* A child that waits until its pipe is closed, then exits with 0. */
struct child {
	pid_t pid;
	int hold;
};

static struct child child_start(const char *comm)
{
	int hold[2], ready[2];
	struct child c;
	char byte;

	assert_int_equal(pipe(hold), 0);
	assert_int_equal(pipe(ready), 0);
	c.pid = fork();
	assert_true(c.pid >= 0);
	if (!c.pid) {
		close(hold[1]);
		close(ready[0]);
		if (comm)
			prctl(PR_SET_NAME, comm);
		close(ready[1]);
		_exit(read(hold[0], &byte, 1) != 0);
	}
	close(hold[0]);
	close(ready[1]);
	/* The end of the pipe says that its name is set. */
	assert_int_equal(read(ready[0], &byte, 1), 0);
	close(ready[0]);
	c.hold = hold[1];
	return c;
}

/* Ends it, but leaves a zombie. */
static void child_end(const struct child *c)
{
	siginfo_t info;

	close(c->hold);
	assert_int_equal(waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOWAIT), 0);
}

static void child_reap(const struct child *c)
{
	assert_int_equal(waitpid(c->pid, NULL, 0), c->pid);
}

static bool readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1 && p.revents & POLLIN;
}

static void test_self(void **state)
{
	uint64_t before = ticks_now();
	char comm[16] = "", line[4096], want[4096] = "";
	struct lease_holder h;
	struct child c;
	FILE *f;

	(void)state;
	memset(&h, 0xff, sizeof(h));
	assert_int_equal(process_describe(getpid(), &h), 0);
	assert_int_equal(h.pid, getpid());
	assert_int_equal(h.uid, getuid());
	assert_true(h.started && h.started <= before);
	assert_int_equal(prctl(PR_GET_NAME, comm), 0);
	assert_string_equal(h.comm, comm);
	f = fopen("/proc/self/cgroup", "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, "0::", 3))
			snprintf(want, sizeof(want), "%.*s", (int)strcspn(line + 3, "\n"),
				 line + 3);
	fclose(f);
	assert_true(strlen(want) <= LEASE_CGROUP_MAX);
	assert_string_equal(h.cgroup, want);

	/* A child's time is its own. */
	before = ticks_now();
	c = child_start(NULL);
	assert_int_equal(process_describe(c.pid, &h), 0);
	assert_in_range(h.started, before, ticks_now());
	child_end(&c);
	child_reap(&c);
}

static void test_comm(void **state)
{
	static const struct {
		const char *set, *get;
	} list[] = {
		{ "plain", "plain" },
		{ ") S 1 (", ") S 1 (" },
		{ "a) R 7 8 9 10 1", "a) R 7 8 9 10 1" },
		{ "(", "(" },
		{ ")", ")" },
		{ "", "" },
		{ "a\nb\t\x1b\xc3\xa4\"", "a?b????\"" },
		{ "0123456789abcdefgh", "0123456789abcde" },
	};
	struct lease_holder h;
	struct child c;
	int fd;

	(void)state;
	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		uint64_t before = ticks_now();

		c = child_start(list[i].set);
		assert_int_equal(process_describe(c.pid, &h), 0);
		assert_string_equal(h.comm, list[i].get);
		assert_in_range(h.started, before, ticks_now());
		assert_int_equal(h.uid, getuid());
		fd = process_watch(&h);
		assert_true(fd >= 0);
		close(fd);
		child_end(&c);
		child_reap(&c);
	}
}

/* The real one of the three, which a program cannot choose by running something set-uid. */
static void test_real_uid(void **state)
{
	struct lease_holder h;
	struct child c;

	(void)state;
	if (geteuid())
		skip();
	assert_int_equal(setresuid(4711, 0, 0), 0);
	c = child_start(NULL);
	assert_int_equal(setresuid(0, 0, 0), 0);
	assert_int_equal(process_describe(c.pid, &h), 0);
	assert_int_equal(h.uid, 4711);
	child_end(&c);
	child_reap(&c);
}

static void test_watch(void **state)
{
	struct lease_holder h, other;
	struct child c = child_start(NULL);
	struct pollfd p;
	int fd;

	(void)state;
	assert_int_equal(process_describe(c.pid, &h), 0);
	fd = process_watch(&h);
	assert_true(fd >= 0);
	assert_false(readable(fd));

	/* The same pid with another start is another process. */
	other = h;
	other.started++;
	assert_int_equal(process_watch(&other), -ESRCH);
	other.started = h.started - 1;
	assert_int_equal(process_watch(&other), -ESRCH);

	close(c.hold);
	p = (struct pollfd){ .fd = fd, .events = POLLIN };
	assert_int_equal(poll(&p, 1, 10000), 1);
	child_reap(&c);
	close(fd);

	/* Nobody has the pid any more; the holder stays as it was. */
	assert_int_equal(process_watch(&h), -ESRCH);
	other = h;
	assert_int_equal(process_describe(c.pid, &h), -ESRCH);
	assert_memory_equal(&h, &other, sizeof(h));
}

/* Not waited for yet: it has ended, and the descriptor says so at once. */
static void test_zombie(void **state)
{
	struct child c = child_start("zombie");
	struct lease_holder h, z;
	int fd;

	(void)state;
	assert_int_equal(process_describe(c.pid, &h), 0);
	child_end(&c);
	assert_int_equal(process_describe(c.pid, &z), 0);
	assert_int_equal(z.started, h.started);
	fd = process_watch(&h);
	assert_true(fd >= 0);
	assert_true(readable(fd));
	close(fd);
	child_reap(&c);
}

static void test_no_pid(void **state)
{
	struct lease_holder h = { 0 };

	(void)state;
	assert_int_equal(process_describe(0, &h), -ESRCH);
	assert_int_equal(process_describe(-1, &h), -ESRCH);
	assert_int_equal(process_describe(INT32_MAX, &h), -ESRCH);
	assert_int_equal(process_watch(&h), -ESRCH);
	h.pid = INT32_MAX;
	assert_int_equal(process_watch(&h), -ESRCH);
	h.pid = UINT32_MAX;
	assert_int_equal(process_watch(&h), -ESRCH);
}

/* Many times over: no descriptor is left open. */
static void test_no_leak(void **state)
{
	struct lease_holder h, other;
	int first = dup(0), last, fd;

	(void)state;
	assert_true(first >= 0);
	close(first);
	assert_int_equal(process_describe(getpid(), &h), 0);
	other = h;
	other.started++;
	for (int i = 0; i < 100; i++) {
		assert_int_equal(process_describe(getpid(), &h), 0);
		assert_int_equal(process_watch(&other), -ESRCH);
		fd = process_watch(&h);
		assert_true(fd >= 0);
		close(fd);
	}
	last = dup(0);
	assert_int_equal(last, first);
	close(last);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_self),     cmocka_unit_test(test_comm),
		cmocka_unit_test(test_real_uid), cmocka_unit_test(test_watch),
		cmocka_unit_test(test_zombie),   cmocka_unit_test(test_no_pid),
		cmocka_unit_test(test_no_leak),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
