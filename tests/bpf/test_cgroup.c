/* SPDX-License-Identifier: BSD-2-Clause */
/* Control groups of "sluice exec", in the machine's own cgroup2, below a group of this test's own. */
#include "cgroup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cap-ng.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_MS 10000

static char base[64];

static struct cgroups *must_open(void)
{
	struct errtext err = { "" };
	struct cgroups *cgs = NULL;

	if (cgroups_open(base, &cgs, &err))
		fail_msg("%s", err.s);
	return cgs;
}

static uint64_t must_make(struct cgroups *cgs, uint64_t lease)
{
	struct errtext err = { "" };
	uint64_t id = 0;

	if (cgroup_make(cgs, lease, &id, &err))
		fail_msg("%s", err.s);
	return id;
}

static int move(struct cgroups *cgs, uint64_t lease, pid_t pid)
{
	struct errtext err = { "" };
	int r = cgroup_move(cgs, lease, pid, &err);

	assert_true(!r == !err.s[0]);
	return r;
}

static int rm(struct cgroups *cgs, uint64_t lease)
{
	struct errtext err = { "" };

	return cgroup_rm(cgs, lease, &err);
}

/* A process that waits to be killed. */
static pid_t sleeper(void)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* The process's line for cgroup2 in /proc/PID/cgroup. */
static void group_of(pid_t pid, char *ret, size_t size)
{
	char path[64], line[PATH_MAX];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
	f = fopen(path, "r");
	assert_non_null(f);
	ret[0] = '\0';
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (!strncmp(line, "0::", 3))
			snprintf(ret, size, "%s", line + 3);
	}
	fclose(f);
}

static int setup(void **state)
{
	(void)state;
	if (geteuid())
		fail_msg("this test makes control groups: run it as root");
	snprintf(base, sizeof(base), "slab-cgroup-%d/sub", (int)getpid());
	return 0;
}

static int teardown(void **state)
{
	struct cgroups *cgs = must_open();
	char parent[PATH_MAX];
	uint64_t lease;

	(void)state;
	while (cgroup_list(cgs, &lease, 1))
		if (rm(cgs, lease))
			break;
	snprintf(parent, sizeof(parent), "%s", cgroups_dir(cgs));
	cgroups_close(cgs);
	rmdir(parent);
	*strrchr(parent, '/') = '\0';
	rmdir(parent);
	return 0;
}

static void test_make_and_take_up(void **state)
{
	struct cgroups *cgs = must_open();
	char path[PATH_MAX], want[PATH_MAX];
	uint64_t ids[3], leases[4] = { 0 };
	struct stat st;

	(void)state;
	assert_int_equal(cgroups_level(cgs), 3);
	ids[0] = must_make(cgs, 7);
	ids[1] = must_make(cgs, 3);
	ids[2] = must_make(cgs, UINT64_MAX);
	assert_int_equal(must_make(cgs, 7), ids[0]);
	assert_int_equal(cgroup_id(cgs, 3), ids[1]);
	assert_int_equal(cgroup_id(cgs, 4), 0);
	snprintf(want, sizeof(want), "/%s/exec-7", base);
	assert_string_equal(cgroup_path(cgs, 7, path), want);
	snprintf(path, sizeof(path), "%s%s", cgroups_root(cgs), want);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_ino, ids[0]);
	/* Not a group of ours. */
	snprintf(path, sizeof(path), "%s/exec-7x", cgroups_dir(cgs));
	assert_int_equal(mkdir(path, 0755), 0);
	cgroups_close(cgs);

	cgs = must_open();
	assert_int_equal(cgroup_list(cgs, leases, 4), 3);
	assert_int_equal(leases[0], 3);
	assert_int_equal(leases[1], 7);
	assert_true(leases[2] == UINT64_MAX);
	assert_int_equal(cgroup_id(cgs, 7), ids[0]);
	assert_int_equal(cgroup_list(cgs, leases, 0), 3);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(rm(cgs, leases[i]), 0);
		assert_int_equal(rm(cgs, leases[i]), 0);
	}
	assert_int_equal(cgroup_list(cgs, leases, 4), 0);
	assert_int_equal(rmdir(path), 0);
	cgroups_close(cgs);
}

static void test_move(void **state)
{
	struct cgroups *cgs = must_open();
	char path[PATH_MAX], now[PATH_MAX];
	pid_t pid = sleeper(), gone = sleeper();

	(void)state;
	end(gone);
	must_make(cgs, 1);
	assert_int_equal(cgroup_populated(cgs, 1), 0);
	assert_int_equal(move(cgs, 1, pid), 0);
	group_of(pid, now, sizeof(now));
	assert_string_equal(now, cgroup_path(cgs, 1, path));
	assert_int_equal(cgroup_populated(cgs, 1), 1);
	assert_int_equal(rm(cgs, 1), -EBUSY);
	assert_int_equal(move(cgs, 1, gone), -ESRCH);
	assert_int_equal(move(cgs, 1, 0), -ESRCH);
	assert_int_equal(move(cgs, 1, -1), -ESRCH);
	assert_int_equal(move(cgs, 2, pid), -ENOENT);
	assert_int_equal(cgroup_populated(cgs, 2), -ENOENT);
	end(pid);
	assert_int_equal(cgroup_populated(cgs, 1), 0);
	assert_int_equal(rm(cgs, 1), 0);
	cgroups_close(cgs);
}

/* What the daemon is left with. */
static void only_daemon_capabilities(void)
{
	capng_clear(CAPNG_SELECT_BOTH);
	capng_updatev(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_BPF, CAP_NET_ADMIN,
		      CAP_PERFMON, CAP_NET_RAW, CAP_CHOWN, -1);
	if (capng_apply(CAPNG_SELECT_BOTH))
		_exit(2);
	capng_get_caps_process();
	if (capng_have_capability(CAPNG_EFFECTIVE, CAP_DAC_OVERRIDE) ||
	    capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_ADMIN))
		_exit(3);
}

static void test_with_the_daemons_capabilities(void **state)
{
	char now[PATH_MAX], want[PATH_MAX];
	pid_t user = sleeper(), mover;
	struct cgroups *cgs;
	int status;

	(void)state;
	end(user);
	/* Somebody else's process. */
	user = fork();
	if (!user) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (setgroups(0, NULL) || setgid(65534) || setuid(65534))
			_exit(1);
		for (;;)
			pause();
	}
	mover = fork();
	if (!mover) {
		struct errtext err = { "" };
		uint64_t id;
		int r;

		only_daemon_capabilities();
		r = cgroups_open(base, &cgs, &err);
		if (!r)
			r = cgroup_make(cgs, 5, &id, &err);
		if (!r)
			r = cgroup_move(cgs, 5, user, &err);
		if (r)
			fprintf(stderr, "%s\n", err.s);
		_exit(r ? 1 : 0);
	}
	assert_int_equal(waitpid(mover, &status, 0), mover);
	assert_int_equal(status, 0);
	cgs = must_open();
	group_of(user, now, sizeof(now));
	assert_string_equal(now, cgroup_path(cgs, 5, want));
	assert_int_equal(cgroup_populated(cgs, 5), 1);
	end(user);
	assert_int_equal(rm(cgs, 5), 0);
	cgroups_close(cgs);
}

struct seen {
	struct cgroups *cgs;
	uint64_t leases[8];
	int n, stop;
};

static int note(void *arg, uint64_t lease)
{
	struct seen *s = arg;

	assert_true(s->n < 8);
	s->leases[s->n++] = lease;
	/* What the daemon does. */
	assert_int_equal(rm(s->cgs, lease), 0);
	return s->stop;
}

static bool readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, PATIENCE_MS) == 1;
}

/* Until so many groups have been seen to be empty. */
static void wait_emptied(struct seen *s, int n)
{
	while (s->n < n) {
		if (!readable(cgroups_fd(s->cgs)))
			fail_msg("%d groups were seen to be empty, not %d", s->n, n);
		assert_int_equal(cgroups_emptied(s->cgs, note, s), 0);
	}
}

static void test_emptied(void **state)
{
	struct seen s = { .cgs = must_open() };
	pid_t pids[3];

	(void)state;
	for (int i = 0; i < 3; i++) {
		pids[i] = sleeper();
		must_make(s.cgs, (uint64_t)i + 1);
		assert_int_equal(move(s.cgs, (uint64_t)i + 1, pids[i]), 0);
	}
	/* Processes came; nobody left. */
	assert_true(readable(cgroups_fd(s.cgs)));
	assert_int_equal(cgroups_emptied(s.cgs, note, &s), 0);
	assert_int_equal(s.n, 0);
	end(pids[1]);
	wait_emptied(&s, 1);
	assert_int_equal(s.leases[0], 2);
	end(pids[0]);
	end(pids[2]);
	wait_emptied(&s, 3);
	assert_int_equal(s.leases[1] + s.leases[2], 1 + 3);
	/* All is read. Removal itself says something too. */
	assert_int_equal(cgroups_emptied(s.cgs, note, &s), 0);
	struct pollfd p = { .fd = cgroups_fd(s.cgs), .events = POLLIN };

	assert_int_equal(poll(&p, 1, 0), 0);
	assert_int_equal(s.n, 3);
	cgroups_close(s.cgs);
}

/* After a restart: the group is watched again, and one that has emptied meanwhile is found by looking. */
static void test_emptied_after_restart(void **state)
{
	struct seen s = { .cgs = must_open() };
	pid_t a = sleeper(), b = sleeper();

	(void)state;
	must_make(s.cgs, 1);
	must_make(s.cgs, 2);
	assert_int_equal(move(s.cgs, 1, a), 0);
	assert_int_equal(move(s.cgs, 2, b), 0);
	cgroups_close(s.cgs);
	end(a);
	s.cgs = must_open();
	assert_int_equal(cgroup_populated(s.cgs, 1), 0);
	assert_int_equal(cgroup_populated(s.cgs, 2), 1);
	assert_int_equal(rm(s.cgs, 1), 0);
	end(b);
	wait_emptied(&s, 1);
	assert_int_equal(s.leases[0], 2);
	cgroups_close(s.cgs);
}

static void test_callback_stops(void **state)
{
	struct seen s = { .cgs = must_open(), .stop = 42 };
	pid_t pids[2] = { sleeper(), sleeper() };

	(void)state;
	for (int i = 0; i < 2; i++) {
		must_make(s.cgs, (uint64_t)i + 1);
		assert_int_equal(move(s.cgs, (uint64_t)i + 1, pids[i]), 0);
	}
	end(pids[0]);
	end(pids[1]);
	/* The kernel tells of a group some ten milliseconds late if it changed just before. */
	for (int n = 0; n < 2; n = s.n) {
		int r = cgroups_emptied(s.cgs, note, &s);

		assert_int_equal(r, s.n > n ? 42 : 0);
		assert_in_range(s.n, n, n + 1);
		if (s.n == n)
			assert_true(readable(cgroups_fd(s.cgs)));
	}
	assert_int_equal(cgroups_emptied(s.cgs, note, &s), 0);
	cgroups_close(s.cgs);
}

/* Groups that the program made, and that somebody else removed ours under our hands. */
static void test_nested_and_removed(void **state)
{
	struct seen s = { .cgs = must_open() };
	char path[PATH_MAX], deep[PATH_MAX + 16], procs[PATH_MAX + 32], pid_text[16];
	pid_t pid = sleeper();
	int fd;

	(void)state;
	must_make(s.cgs, 9);
	snprintf(path, sizeof(path), "%s/exec-9", cgroups_dir(s.cgs));
	snprintf(deep, sizeof(deep), "%s/a", path);
	assert_int_equal(mkdir(deep, 0755), 0);
	snprintf(deep, sizeof(deep), "%s/a/b", path);
	assert_int_equal(mkdir(deep, 0755), 0);
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", deep);
	snprintf(pid_text, sizeof(pid_text), "%d", (int)pid);
	fd = open(procs, O_WRONLY);
	assert_int_equal(write(fd, pid_text, strlen(pid_text)), (ssize_t)strlen(pid_text));
	close(fd);
	assert_int_equal(cgroup_populated(s.cgs, 9), 1);
	assert_int_equal(rm(s.cgs, 9), -EBUSY);
	assert_int_equal(access(deep, F_OK), 0);
	end(pid);
	wait_emptied(&s, 1);
	assert_int_equal(access(path, F_OK), -1);

	must_make(s.cgs, 10);
	snprintf(path, sizeof(path), "%s/exec-10", cgroups_dir(s.cgs));
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(cgroup_populated(s.cgs, 10), -ENOENT);
	assert_int_equal(rm(s.cgs, 10), 0);
	assert_int_equal(cgroup_id(s.cgs, 10), 0);
	cgroups_close(s.cgs);
}

/* Runs in a child, with mounts of its own: what cgroups_open() says there. Returns whether it is r and has the text. */
static bool refused(const char *name, int r, const char *text)
{
	struct errtext err = { "" };
	struct cgroups *cgs = NULL;
	int got = cgroups_open(name, &cgs, &err);

	if (got == r && !cgs && strstr(err.s, text))
		return true;
	fprintf(stderr, "%d \"%s\", expected %d \"%s\"\n", got, err.s, r, text);
	return false;
}

static bool private_mounts(void)
{
	return !unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

static bool without_cgroup2(const char *root)
{
	return private_mounts() && !umount2(root, MNT_DETACH) &&
	       refused("x", -ENOTSUP, "mount -t cgroup2");
}

static bool read_only(const char *root)
{
	return private_mounts() &&
	       !mount("none", root, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) &&
	       refused("slab-none", -EROFS, "read-only");
}

/* As in a container: a control group namespace, and cgroup2 mounted in it. */
static bool in_namespace(const char *root)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/slab-cgroup-%d/cgroup.procs", root, (int)getppid());
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, "0", 1) != 1)
		return false;
	close(fd);
	return !unshare(CLONE_NEWCGROUP) && private_mounts() && !umount2(root, MNT_DETACH) &&
	       !mount("none", root, "cgroup2", 0, NULL) &&
	       refused("x", -ENOTSUP, "--cgroupns=host");
}

static bool as_somebody(const char *root)
{
	(void)root;
	return !setgroups(0, NULL) && !setgid(65534) && !setuid(65534) &&
	       refused("slab-none", -EACCES, "root");
}

static void test_refusals(void **state)
{
	bool (*const tries[])(const char *) = { without_cgroup2, read_only, in_namespace,
						as_somebody };
	struct cgroups *cgs = must_open();
	int status;

	(void)state;
	assert_true(refused("../x", -EINVAL, "\"../x\""));
	for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
		pid_t pid = fork();

		if (!pid)
			_exit(tries[i](cgroups_root(cgs)) ? 0 : 1);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (status)
			fail_msg("try %zu went wrong", i);
	}
	cgroups_close(cgs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_make_and_take_up),
		cmocka_unit_test(test_move),
		cmocka_unit_test(test_with_the_daemons_capabilities),
		cmocka_unit_test(test_emptied),
		cmocka_unit_test(test_emptied_after_restart),
		cmocka_unit_test(test_callback_stops),
		cmocka_unit_test(test_nested_and_removed),
		cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests_name("cgroup", tests, setup, teardown);
}
