/* SPDX-License-Identifier: BSD-2-Clause */
/* Whose sockets are those that this test makes and gives away? Asked in both ways; the BPF iterator needs CAP_BPF and CAP_PERFMON, /proc no right at all for processes of our own. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <netinet/in.h>

#include <cmocka.h>

#include "process.h"
#include "procsock.h"

static struct procsock *procs;

static int open_way(void **state, bool bpf)
{
	struct errtext why = { "" };

	(void)state;
	assert_int_equal(procsock_open(bpf, &procs, &why), 0);
	assert_int_equal(procsock_by_bpf(procs), bpf && !*why.s);
	if (*why.s)
		print_message("the iterator cannot be had: %s\n", why.s);
	return 0;
}

static int open_proc(void **state)
{
	return open_way(state, false);
}

static int open_bpf(void **state)
{
	return open_way(state, true);
}

static int close_way(void **state)
{
	(void)state;
	procsock_close(procs);
	procs = NULL;
	return 0;
}

/* Without the iterator, /proc is asked in its place, and every test must come out the same. */
static uint64_t inode_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

static int udp(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	return fd;
}

static struct procsock_owner owner(uint64_t inode, int32_t hint)
{
	struct procsock_owner o;

	memset(&o, 0xee, sizeof(o));
	procsock_find(procs, inode, 0, hint, &o);
	return o;
}

static uint64_t passes(void)
{
	return procsock_stats(procs).passes;
}

/* A child that has our descriptors, and waits until its pipe is closed. */
struct child {
	pid_t pid;
	int hold;
	int talk; /* a socket to it: it takes a descriptor, and says so */
};

static void fd_give(int via, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	assert_int_equal(sendmsg(via, &msg, 0), 1);
}

static bool fd_take(int via)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };

	return recvmsg(via, &msg, 0) == 1 && CMSG_FIRSTHDR(&msg) && write(via, "y", 1) == 1;
}

/* close_fd: what it does not keep of ours; -1: keeps all. */
static struct child child_start(const char *comm, int close_fd)
{
	int hold[2], talk[2];
	struct child c;
	char byte;

	assert_int_equal(pipe(hold), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, talk), 0);
	c.pid = fork();
	assert_true(c.pid >= 0);
	if (!c.pid) {
		close(hold[1]);
		close(talk[0]);
		if (close_fd >= 0)
			close(close_fd);
		prctl(PR_SET_NAME, comm);
		if (write(talk[1], "r", 1) != 1)
			_exit(1);
		while (fd_take(talk[1]))
			;
		_exit(read(hold[0], &byte, 1) != 0);
	}
	close(hold[0]);
	close(talk[1]);
	assert_int_equal(read(talk[0], &byte, 1), 1);
	c.hold = hold[1];
	c.talk = talk[0];
	return c;
}

static void child_give(const struct child *c, int fd)
{
	char byte;

	fd_give(c->talk, fd);
	assert_int_equal(read(c->talk, &byte, 1), 1);
}

static void child_end(const struct child *c)
{
	int status;

	close(c->talk);
	close(c->hold);
	assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
	assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
}

/* The tests */

static void test_own(void **state)
{
	int fd = udp();
	struct lease_holder me;
	struct procsock_owner o;

	(void)state;
	assert_int_equal(process_describe(getpid(), &me), 0);
	o = owner(inode_of(fd), 0);
	assert_int_equal(o.pid, getpid());
	assert_string_equal(o.comm, me.comm);
	assert_string_equal(o.cgroup, me.cgroup);
	close(fd);
}

static void test_nobody(void **state)
{
	struct procsock_owner o;
	int fd = udp();
	uint64_t inode = inode_of(fd), before;

	(void)state;
	o = owner(0, getpid());
	assert_int_equal(o.pid, 0);
	assert_string_equal(o.comm, "");
	assert_string_equal(o.cgroup, "");
	close(fd);
	o = owner(inode, 0);
	assert_int_equal(o.pid, 0);
	assert_string_equal(o.comm, "");
	/* It is not looked for again at once. */
	before = passes();
	assert_int_equal(owner(inode, 0).pid, 0);
	assert_int_equal(passes(), before);
}

/* A file of another kind has a number as well. */
static void test_other_files(void **state)
{
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(owner(inode_of(fds[0]), getpid()).pid, 0);
	close(fds[0]);
	close(fds[1]);
}

static void test_forked(void **state)
{
	int fd = udp();
	uint64_t inode = inode_of(fd);
	struct child c = child_start("heir", -1);
	struct procsock_owner o;

	(void)state;
	/* Both have it: the one that is suspected is right. */
	assert_int_equal(owner(inode, c.pid).pid, c.pid);
	assert_int_equal(owner(inode, getpid()).pid, getpid());
	close(fd);
	o = owner(inode, getpid());
	assert_int_equal(o.pid, c.pid);
	assert_string_equal(o.comm, "heir");
	child_end(&c);
	assert_int_equal(owner(inode, 0).pid, 0);
}

static void test_passed(void **state)
{
	struct child c = child_start("taker", -1);
	int fd = udp();
	uint64_t inode = inode_of(fd);
	struct procsock_owner o;

	(void)state;
	assert_int_equal(owner(inode, 0).pid, getpid());
	assert_int_equal(owner(inode, c.pid).pid, getpid());
	child_give(&c, fd);
	assert_int_equal(owner(inode, c.pid).pid, c.pid);
	close(fd);
	/* What is kept says that it is ours; it is not believed. */
	o = owner(inode, 0);
	assert_int_equal(o.pid, c.pid);
	assert_string_equal(o.comm, "taker");
	child_end(&c);
}

/* The second look-up does not go through all processes, nor that of a socket of the same group. */
static void test_kept(void **state)
{
	int fd = udp(), other = udp();
	struct procsock_owner o;
	uint64_t before;

	(void)state;
	procsock_find(procs, inode_of(fd), 1, 0, &o);
	assert_int_equal(o.pid, getpid());
	before = passes();
	procsock_find(procs, inode_of(fd), 1, 0, &o);
	assert_int_equal(o.pid, getpid());
	procsock_find(procs, inode_of(other), 1, 0, &o);
	assert_int_equal(o.pid, getpid());
	procsock_find(procs, inode_of(other), 1, 1, &o);
	assert_int_equal(o.pid, getpid());
	assert_int_equal(passes(), before);
	close(fd);
	close(other);
}

static void *thread_named(void *arg)
{
	int *to = arg;
	char byte;

	prctl(PR_SET_NAME, "worker");
	to[2] = udp();
	if (write(to[1], "r", 1) == 1 && read(to[0], &byte, 1))
		return NULL;
	return NULL;
}

/* A socket that a thread with a name of its own has made is the process's. */
static void test_threads(void **state)
{
	struct lease_holder me;
	struct procsock_owner o;
	int down[2], up[2], arg[3];
	pthread_t t;
	char byte;

	(void)state;
	assert_int_equal(pipe(down), 0);
	assert_int_equal(pipe(up), 0);
	arg[0] = down[0];
	arg[1] = up[1];
	assert_int_equal(pthread_create(&t, NULL, thread_named, arg), 0);
	assert_int_equal(read(up[0], &byte, 1), 1);
	assert_int_equal(process_describe(getpid(), &me), 0);
	o = owner(inode_of(arg[2]), 0);
	assert_int_equal(o.pid, getpid());
	assert_string_equal(o.comm, me.comm);
	assert_string_not_equal(o.comm, "worker");
	close(down[1]);
	pthread_join(t, NULL);
	close(down[0]);
	close(up[0]);
	close(up[1]);
	close(arg[2]);
}

static void *thread_waits(void *arg)
{
	char byte;

	_exit(read(*(int *)arg, &byte, 1) != 0);
}

/* Its first thread has ended, the others go on: what /proc/PID/fd shows is nothing then. */
static void test_headless(void **state)
{
	int hold[2], fd = udp(), status;
	uint64_t inode = inode_of(fd);
	struct timespec nap = { .tv_nsec = 2000000 };
	char path[64], text[256] = "";
	pthread_t t;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(hold), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		close(hold[1]);
		prctl(PR_SET_NAME, "headless");
		if (pthread_create(&t, NULL, thread_waits, &hold[0]))
			_exit(1);
		syscall(SYS_exit, 0);
	}
	close(hold[0]);
	close(fd);
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	for (int i = 0; i < 5000 && !strstr(text, ") Z "); i++) {
		FILE *f = fopen(path, "r");

		assert_non_null(f);
		assert_non_null(fgets(text, sizeof(text), f));
		fclose(f);
		nanosleep(&nap, NULL);
	}
	assert_non_null(strstr(text, ") Z "));
	assert_int_equal(owner(inode, 0).pid, pid);
	assert_int_equal(owner(inode, pid).pid, pid);
	close(hold[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
}

static void test_text(void **state)
{
	int fd = udp();
	struct child c = child_start("a\nb\033\377", -1);
	struct procsock_owner o;

	(void)state;
	o = owner(inode_of(fd), c.pid);
	assert_int_equal(o.pid, c.pid);
	assert_string_equal(o.comm, "a?b??");
	child_end(&c);
	close(fd);
}

/* Hints may be anything. */
static void test_hints(void **state)
{
	static const int32_t hints[] = { -1, INT32_MIN, INT32_MAX, 1 };
	int fd = udp();

	(void)state;
	for (size_t i = 0; i < sizeof(hints) / sizeof(hints[0]); i++)
		assert_int_equal(owner(inode_of(fd), hints[i]).pid, getpid());
	close(fd);
}

/* A group that does not exist is looked for, and is no obstacle. */
static void test_no_group(void **state)
{
	struct procsock_owner o;
	int fd = udp();
	uint64_t inode = inode_of(fd);

	(void)state;
	procsock_find(procs, inode, UINT64_MAX - 1, 0, &o);
	assert_int_equal(o.pid, getpid());
	assert_string_not_equal(o.cgroup, "");
	close(fd);
	procsock_find(procs, inode, UINT64_MAX - 1, 0, &o);
	assert_int_equal(o.pid, 0);
	assert_string_equal(o.cgroup, "");
	/* The root of cgroup2, of a socket that nobody has. */
	procsock_find(procs, 0, 1, 0, &o);
	if (*o.cgroup)
		assert_string_equal(o.cgroup, "/");
}

/* Several are open at one time. */
static void test_two(void **state)
{
	struct errtext why = { "" };
	struct procsock *one, *two;
	struct procsock_owner o;
	int fd = udp();

	(void)state;
	assert_int_equal(procsock_open(true, &one, &why), 0);
	assert_int_equal(procsock_open(true, &two, &why), 0);
	procsock_close(one);
	procsock_find(two, inode_of(fd), 0, 0, &o);
	assert_int_equal(o.pid, getpid());
	procsock_close(two);
	assert_int_equal(procsock_open(true, &one, &why), 0);
	procsock_find(one, inode_of(fd), 0, 0, &o);
	assert_int_equal(o.pid, getpid());
	procsock_close(one);
	close(fd);
}

static void test_without_rights(void **state)
{
	struct errtext why = { "" };
	struct procsock *p;
	int status;
	pid_t pid;

	(void)state;
	if (geteuid()) {
		print_message("we have no rights anyhow\n");
		skip();
	}
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		if (setuid(65534) || procsock_open(true, &p, &why))
			_exit(2);
		_exit(procsock_by_bpf(p) || !strstr(why.s, "CAP_"));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

#define BOTH(f)                                         \
	{ #f "_proc", f, open_proc, close_way, NULL },  \
	{                                               \
#f "_bpf", f, open_bpf, close_way, NULL \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_own),
		BOTH(test_nobody),
		BOTH(test_other_files),
		BOTH(test_forked),
		BOTH(test_passed),
		BOTH(test_kept),
		BOTH(test_threads),
		BOTH(test_headless),
		BOTH(test_text),
		BOTH(test_hints),
		BOTH(test_no_group),
		cmocka_unit_test(test_two),
		cmocka_unit_test(test_without_rights),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
