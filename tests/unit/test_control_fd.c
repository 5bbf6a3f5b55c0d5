/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control server: descriptors that go along with calls and answers. Theirs are told apart by their
 * size.
 */
#include "control_test.h"

#include <linux/fuse.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

static const char echo[] = "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":2}}";
static const char take[] = "{\"method\":\"io.test.Take\"}";

static int sized(int64_t size)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	return fd;
}

static int64_t size_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_size;
}

/* Send bytes along with a descriptor of that size. */
static void send_sized(struct peer *p, const char *bytes, size_t len, int64_t size)
{
	int fd = sized(size);

	assert_int_equal(send_fds(p->fd, bytes, len, fd, 1), len);
	close(fd);
}

/* ---- in ---- */

/* Whatever is sent before and after, and however it is read: the descriptor is its call's. */
static void test_in(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p = peer_new(s);
	unsigned before = open_fds();

	(void)state;
	peer_send(&p, take);
	expect_reply(&p, "size", -1);
	send_sized(&p, take, sizeof(take), 7);
	expect_reply(&p, "size", 7);

	/* Pipelined; the server reads some of them at once. */
	for (int i = 0; i < 10; i++) {
		peer_send(&p, echo);
		peer_send(&p, take);
		send_sized(&p, take, sizeof(take), 100 + i);
		if (i % 3)
			peer_send(&p, take);
		if (i % 3 == 2)
			peer_send(&p, echo);
	}
	for (int i = 0; i < 10; i++) {
		expect_reply(&p, "n", 2);
		expect_reply(&p, "size", -1);
		expect_reply(&p, "size", 100 + i);
		if (i % 3)
			expect_reply(&p, "size", -1);
		if (i % 3 == 2)
			expect_reply(&p, "n", 2);
	}

	/* With the first part of a call, a middle one, or the last one. */
	for (size_t at = 0; at < sizeof(take); at += 6) {
		peer_send_bytes(&p, take, at);
		settle(s);
		send_sized(&p, take + at, 1, (int64_t)at);
		settle(s);
		if (at + 1 < sizeof(take))
			peer_send_bytes(&p, take + at + 1, sizeof(take) - at - 1);
		expect_reply(&p, "size", (int64_t)at);
	}
	send_sized(&p, take + sizeof(take) - 1, 1, 5); /* a NUL of its own is no call */
	expect_error(&p, "io.sluice.BadMessage", NULL, NULL);
	expect_closed(&p);
	assert_int_equal(stat_of(s, "fds_refused"), 1);
	peer_close(&p);
	settle(s);
	expect_fds(before - 2);
	control_close(s);
}

/* Two in one sendmsg() are nobody's; nor are several that come with parts of one call. */
static void test_too_many(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p = peer_new(s);
	unsigned before = open_fds();
	int64_t refused = 0;

	(void)state;
	for (unsigned n = 2; n <= 253; n = n < 16 ? n + 1 : n + 79) {
		peer_send(&p, echo);
		assert_int_equal(send_fds(p.fd, take, sizeof(take), p.fd, n), sizeof(take));
		expect_reply(&p, "n", 2);
		expect_reply(&p, "size", -1);
		assert_int_equal(stat_of(s, "fds_refused"), ++refused);
		expect_fds(before);
	}
	for (unsigned parts = 2; parts < 6; parts++) {
		for (unsigned i = 0; i < parts; i++) {
			send_sized(&p, take + i, 1, i);
			if (parts % 2)
				settle(s);
		}
		peer_send(&p, take + parts);
		expect_reply(&p, "size", -1);
		refused += parts;
		assert_int_equal(stat_of(s, "fds_refused"), refused);
		expect_fds(before);
	}
	send_sized(&p, take, sizeof(take), 9);
	expect_reply(&p, "size", 9);
	peer_close(&p);
	control_close(s);
}

/* Where nobody asks for it, it is closed and counted. */
static void test_refused(void **state)
{
	static const char *const calls[] = {
		echo,
		"{\"method\":\"org.varlink.service.GetInfo\"}",
		"{\"method\":\"io.test.Nothing\"}",
		"{\"method\":\"io.test.Later\"}",
		"{\"method\":\"io.test.Take\",\"parameters\":{\"x\":1}}",
		"{\"method\":\"io.test.Root\",\"parameters\":{\"x\":1}}",
		"{\"method\":\"io.test.List\",\"more\":true}",
		"garbage",
	};
	const size_t n = sizeof(calls) / sizeof(calls[0]);
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p = peer_new(s);
	unsigned before = open_fds();

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		send_sized(&p, echo, sizeof(echo), 1);
		expect_reply(&p, "n", 2);
	}
	assert_int_equal(stat_of(s, "fds_refused"), 1000);
	expect_fds(before);
	for (size_t i = 0; i < n; i++) {
		struct varlink_reply r;

		send_sized(&p, calls[i], strlen(calls[i]) + 1, 1);
		r = peer_next(&p);
		assert_non_null(r.root);
		varlink_reply_done(&r);
		assert_int_equal(stat_of(s, "fds_refused"), 1000 + i + 1);
	}
	expect_closed(&p);
	peer_close(&p);
	settle(s);
	assert_int_equal(seen.fds, 0);
	expect_fds(before - 2);
	control_close(s);
}

/* What comes with half a call, or is never read, is gone with its sender. */
static void test_hangup(void **state)
{
	static const char monitor[] = "{\"method\":\"io.test.Monitor\",\"more\":true}";
	struct control_limits limits = CONTROL_LIMITS;
	struct seen seen = { 0 };
	struct control *s;
	unsigned before;

	(void)state;
	limits.half_message_ms = 50;
	s = server_open(&seen, NULL, &limits);
	before = open_fds();
	for (int how = 0; how < 6; how++) {
		struct peer p = peer_new(s);

		if (how == 0) {
			send_sized(&p, take, 5, 1);
			settle(s);
			expect_fds(before + 3);
		} else if (how == 1) {
			send_sized(&p, take, 5, 1);
			send_sized(&p, take + 5, 5, 1);
			settle(s);
		} else if (how == 2) {
			send_sized(&p, take, 5, 1);
			expect_error(&p, "io.sluice.BadMessage", "text", "in time");
			expect_closed(&p);
		} else if (how == 3) {
			/* Behind garbage: nobody reads it. */
			peer_send(&p, "garbage");
			send_sized(&p, take, sizeof(take), 1);
			send_sized(&p, take, sizeof(take), 1);
			settle(s);
			expect_error(&p, "io.sluice.BadMessage", NULL, NULL);
			expect_closed(&p);
		} else if (how == 4) {
			peer_send_bytes(&p, monitor, sizeof(monitor));
			send_sized(&p, take, sizeof(take), 1);
			settle(s);
		} else {
			send_sized(&p, take, sizeof(take), 1);
			send_sized(&p, take, sizeof(take), 1);
			send_sized(&p, take, 5, 1);
		}
		peer_close(&p);
		settle(s);
		assert_int_equal(stat_of(s, "clients"), 0);
		expect_fds(before);
	}
	{
		struct peer p = peer_new(s);

		send_sized(&p, take, 5, 1);
		settle(s);
		control_close(s);
		peer_close(&p);
	}
	expect_fds(before - 2); /* epoll, timer */
}

/* Without room for one more descriptor the call comes without it, and the others go on. */
static void test_no_room(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p = peer_new(s), other = peer_new(s);
	struct rlimit old, tight;
	int fd;

	(void)state;
	fd = sized(3);
	assert_int_equal(send_fds(p.fd, take, sizeof(take), fd, 1), sizeof(take));
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	tight = old;
	tight.rlim_cur = 3;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
	expect_reply(&p, "size", -1);
	peer_send(&other, echo);
	expect_reply(&other, "n", 2);
	assert_int_equal(stat_of(s, "fds_refused"), 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(send_fds(p.fd, take, sizeof(take), fd, 1), sizeof(take));
	expect_reply(&p, "size", 3);
	close(fd);
	peer_close(&p);
	peer_close(&other);
	control_close(s);
}

/* A TCP socket with unsent data whose close() waits for an hour. */
static int lingering(int listener)
{
	static const struct linger linger = { .l_onoff = 1, .l_linger = 3600 };
	struct sockaddr_in sa;
	socklen_t len = sizeof(sa);
	char data[65536] = { 0 };
	struct pollfd p = { .events = POLLOUT };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&sa, &len), 0);
	assert_true(connect(fd, (struct sockaddr *)&sa, len) == 0 || errno == EINPROGRESS);
	p.fd = fd;
	assert_int_equal(poll(&p, 1, HANG_MS), 1);
	/* More than a peer that never reads takes. */
	while (send(fd, data, sizeof(data), MSG_NOSIGNAL) > 0)
		;
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
	return fd;
}

/*
 * Whoever closes such a socket last waits. The server does not, wherever it meets one: with a call, with one that does
 * not want it, too many of them, behind garbage, with half a call, on a connection that is refused.
 */
static void test_linger(void **state)
{
	struct control_limits limits = CONTROL_LIMITS;
	struct sockaddr_in sa = { .sin_family = AF_INET };
	struct seen seen = { 0 };
	struct control *s;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(listener, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(listener, 16), 0);
	limits.clients = 1;
	limits.clients_root = 0;
	s = server_open(&seen, NULL, &limits);
	alarm(HANG_MS / 1000);
	for (int how = 0; how < 6; how++) {
		int fds[2], fd = lingering(listener);
		struct peer p;

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
		if (how == 3)
			assert_int_equal(send(fds[0], "garbage", 8, 0), 8);
		/* The server reads as far as the first descriptor; the others stay in the socket. */
		for (int i = 0; how == 3 && i < 3; i++)
			assert_int_equal(send_fds(fds[0], take, sizeof(take), fd, 1), sizeof(take));
		if (how == 4)
			assert_int_equal(send_fds(fds[0], take, 4, fd, 1), 4);
		else if (how == 1)
			assert_int_equal(send_fds(fds[0], echo, sizeof(echo), fd, 1), sizeof(echo));
		else
			assert_int_equal(send_fds(fds[0], take, sizeof(take), fd, how == 2 ? 2 : 1),
					 sizeof(take));
		close(fd);
		if (how == 5) {
			struct peer only = peer_new(s);

			assert_int_equal(control_adopt(s, fds[1]), -EMFILE);
			peer_close(&only);
		} else {
			assert_int_equal(control_adopt(s, fds[1]), 0);
		}
		settle(s);
		p = peer_of(s, fds[0]);
		peer_close(&p);
		settle(s);
		assert_int_equal(stat_of(s, "clients"), 0);
	}
	alarm(0);
	close(listener);
	control_close(s);
}

/* ---- a file server that does not answer ---- */

/* Serve a file system that is one file, which can be opened, and whose close() is never answered. Never returns. */
static void serve_file(int fuse)
{
	static char buf[65536 + 4096];
	const struct fuse_in_header *in = (const void *)buf;

	while (read(fuse, buf, sizeof(buf)) > 0) {
		struct {
			struct fuse_out_header head;
			union {
				struct fuse_init_out init;
				struct fuse_open_out open;
			};
		} out = { .head.unique = in->unique };

		if (in->opcode == FUSE_INIT) {
			out.init = (struct fuse_init_out){
				.major = FUSE_KERNEL_VERSION,
				.minor = FUSE_KERNEL_MINOR_VERSION,
				.max_write = 65536,
			};
			out.head.len = sizeof(out.head) + sizeof(out.init);
		} else if (in->opcode == FUSE_OPEN) {
			out.head.len = sizeof(out.head) + sizeof(out.open);
		} else if (in->opcode == FUSE_FLUSH) {
			continue;
		} else {
			out.head.len = sizeof(out.head);
			out.head.error = -ENOSYS;
		}
		if (in->opcode != FUSE_FORGET)
			(void)!write(fuse, &out, out.head.len);
	}
	_exit(0);
}

/* Mount it at path, a file. Returns the server's pid, 0 when that is not possible here. */
static pid_t mount_file(const char *path)
{
	int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	char options[128];
	pid_t pid;

	if (fuse < 0 || unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		close(fuse);
		return 0;
	}
	snprintf(options, sizeof(options), "fd=%d,rootmode=100644,user_id=0,group_id=0", fuse);
	if (mount("test", path, "fuse", MS_NOSUID | MS_NODEV, options) < 0) {
		close(fuse);
		return 0;
	}
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		serve_file(fuse);
	close(fuse);
	return pid;
}

/*
 * Files that cannot be closed, since their server does not answer: strangers are not listened to any more, root is, and the
 * server never waits. Afterwards all is well again.
 */
static void test_file_server(void **state)
{
	char path[] = "/tmp/sluice-test-XXXXXX";
	struct seen seen = { 0 };
	struct control *s;
	struct peer root, stranger, bad;
	struct varlink_reply r;
	pid_t server = 0, sender;
	unsigned before;
	int fds[2];

	(void)state;
	if (geteuid() == 0) {
		close(mkstemp(path));
		server = mount_file(path);
	}
	if (!server) {
		unlink(path);
		skip();
	}
	s = server_open(&seen, NULL, NULL);
	root = peer_new(s);
	bad = peer_new(s);
	assert_int_equal(seteuid(1000), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(control_adopt(s, fds[1]), 0);
	stranger = peer_of(s, fds[0]);
	before = open_fds();
	/* Whoever has opened it cannot close it either: so not in this process. */
	sender = fork();
	assert_true(sender >= 0);
	if (sender == 0) {
		int fd = open(path, O_RDWR | O_CLOEXEC);

		for (int i = 0; fd >= 0 && i < 20; i++)
			send_fds(bad.fd, i % 2 ? take : echo, i % 2 ? sizeof(take) : sizeof(echo),
				 fd, 1 + (unsigned)i % 3);
		_exit(0);
	}
	alarm(HANG_MS / 1000);
	for (int i = 0; i < 20; i++) {
		r = peer_next(&bad);
		assert_non_null(r.root);
		varlink_reply_done(&r);
	}
	assert_true(open_fds() > before);
	/* At first it may be that it only takes a moment. */
	do {
		peer_send(&stranger, echo);
		r = peer_next(&stranger);
		if (!r.error)
			varlink_reply_done(&r);
	} while (!r.error);
	assert_string_equal(r.error, "io.sluice.QuotaExceeded");
	varlink_reply_done(&r);
	expect_closed(&stranger);
	peer_send(&root, echo);
	expect_reply(&root, "n", 2);
	/* Without its server the file system ends. */
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	waitpid(sender, NULL, 0);
	expect_fds(before - 1);
	alarm(0);
	peer_close(&stranger);
	peer_close(&root);
	peer_close(&bad);
	control_close(s);
	umount2(path, MNT_DETACH);
	unlink(path);
}

/* ---- out ---- */

/* The next answer, with the descriptor that came with it: that of a read whose last byte is in it. */
static struct varlink_reply next_with_fd(struct peer *p, int *ret_fd)
{
	static int fd = -1;
	static size_t at;
	struct varlink_reply reply = { 0 };
	const char *msg;
	size_t len;
	int r;

	while ((r = varlink_reader_next(&p->in, &msg, &len)) == 0) {
		struct pollfd fds[2] = { { .fd = p->fd, .events = POLLIN },
					 { .fd = control_fd(p->server), .events = POLLIN } };
		size_t room;
		char *buf;
		ssize_t n;
		int got;

		assert_true(poll(fds, 2, HANG_MS) > 0);
		if (fds[1].revents)
			assert_int_equal(control_dispatch(p->server), 0);
		control_settle(p->server, true, NULL);
		assert_int_equal(varlink_reader_space(&p->in, &buf, &room), 0);
		n = recv_bytes(p->fd, buf, room, &got);
		if (n <= 0)
			continue;
		varlink_reader_fill(&p->in, (size_t)n);
		if (got < 0)
			continue;
		assert_int_equal(fd, -1); /* one for a message */
		fd = got;
		at = p->in.end - p->in.begin;
	}
	assert_int_equal(r, 1);
	assert_int_equal(varlink_reply_decode(msg, len, &reply, NULL), 0);
	*ret_fd = -1;
	if (fd >= 0 && at <= len + 1) {
		*ret_fd = fd;
		fd = -1;
	} else if (fd >= 0) {
		at -= len + 1;
	}
	return reply;
}

/* Among others, each answer brings its own. */
static void test_out(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p = peer_new(s);
	unsigned before = open_fds();
	const int total = 100;

	(void)state;
	for (int i = 0; i < total; i++) {
		char text[128];

		snprintf(text, sizeof(text),
			 "{\"method\":\"io.test.%s\",\"parameters\":{\"n\":%d%s}}",
			 i % 4 == 3 ? "Echo" : "Held", i, i % 4 < 2 ? ",\"fd\":true" : "");
		if (i % 4 == 3)
			snprintf(text, sizeof(text),
				 "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":%d}}", i);
		peer_send(&p, text);
	}
	for (int i = 0; i < total; i++) {
		int fd;
		struct varlink_reply r = next_with_fd(&p, &fd);

		assert_null(r.error);
		assert_int_equal(json_integer_value(json_object_get(r.parameters, "n")), i);
		assert_int_equal(fd >= 0, i % 4 < 2);
		if (fd >= 0) {
			assert_int_equal(size_of(fd), i);
			close(fd);
		}
		varlink_reply_done(&r);
	}
	expect_fds(before);
	peer_close(&p);
	control_close(s);
}

/* An answer that the socket takes in pieces, or at first not at all, brings its descriptor once. */
static void test_pieces(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	unsigned before = open_fds();
	int small = 1, fds[2];
	struct peer p;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	assert_int_equal(control_adopt(s, fds[1]), 0);
	p = peer_of(s, fds[0]);
	/* The first one fills the socket, so that of the second one not a byte is taken at first. */
	for (int i = 0; i < 4; i++) {
		char text[128];

		snprintf(text, sizeof(text),
			 "{\"method\":\"io.test.Held\",\"parameters\":{\"n\":%d,\"fill\":20000,"
			 "\"fd\":%s}}",
			 i, i % 2 ? "true" : "false");
		peer_send(&p, text);
	}
	settle(s);
	control_settle(s, true, NULL);
	settle(s);
	expect_fds(before + 2 + 2);
	for (int i = 0; i < 4; i++) {
		int fd;
		struct varlink_reply r = next_with_fd(&p, &fd);

		assert_int_equal(json_integer_value(json_object_get(r.parameters, "n")), i);
		assert_int_equal(fd >= 0, i % 2);
		if (fd >= 0) {
			assert_int_equal(size_of(fd), i);
			close(fd);
		}
		varlink_reply_done(&r);
	}
	expect_fds(before + 2);
	peer_close(&p);
	control_close(s);
}

static const char with_fd[] = "{\"method\":\"io.test.Held\",\"parameters\":{\"fd\":true}}";

/* Carry out what has been sent, until nothing more happens. */
static void settle_all(struct control *s)
{
	do {
		control_settle(s, true, NULL);
		settle(s);
	} while (control_holding(s));
}

/*
 * Descriptors that nobody reads are under way on root's account. A client that does not read gets some, and no more until it
 * reads; meanwhile the server rests, and others are served.
 */
static void test_deaf(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer deaf = peer_new(s), other = peer_new(s);
	unsigned before = open_fds();
	const unsigned total = 200;
	int fd;

	(void)state;
	for (unsigned i = 0; i < total; i++)
		peer_send(&deaf, with_fd);
	settle_all(s);
	/* 16 have left, 16 wait. */
	assert_int_equal(seen.calls, 32);
	expect_fds(before + 16);
	assert_false(server_ready(s, 0));
	for (unsigned i = 0; i < 100; i++) {
		struct varlink_reply r;

		peer_send(&other, with_fd);
		r = next_with_fd(&other, &fd);
		assert_true(fd >= 0);
		close(fd);
		varlink_reply_done(&r);
	}
	for (unsigned i = 0; i < total; i++) {
		struct varlink_reply r = next_with_fd(&deaf, &fd);

		assert_true(fd >= 0);
		close(fd);
		varlink_reply_done(&r);
		/* By the bye: half of it is read in one go, half with the server coming to rest each time. */
		if (i > total / 2)
			settle_all(s);
	}
	assert_int_equal(seen.calls, total + 100);
	expect_fds(before);
	/* One that waits so, and goes. */
	for (unsigned i = 0; i < 50; i++)
		peer_send(&deaf, with_fd);
	settle_all(s);
	peer_close(&deaf);
	peer_close(&other);
	settle(s);
	assert_int_equal(stat_of(s, "clients"), 0);
	expect_fds(before - 4);
	control_close(s);
}

/* In a process of its own, for the limit counts all of a user's: more under way than the kernel allows. */
static void too_many_under_way(void)
{
	struct control_limits limits = CONTROL_LIMITS;
	struct seen seen = { 0 };
	struct rlimit tight = { 64, 64 };
	struct control *s;
	struct peer p;
	unsigned refused = 0, passed = 0;
	int fd;

	if (geteuid() == 0)
		assert_int_equal(setresuid(61234, 61234, 61234), 0);
	limits.fds = 1000;
	s = server_open(&seen, NULL, &limits);
	p = peer_new(s);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
	for (unsigned i = 0; i < 200; i++) {
		peer_send(&p, with_fd);
		settle_all(s);
	}
	for (unsigned i = 0; i < 200; i++) {
		struct varlink_reply r = next_with_fd(&p, &fd);

		if (r.error) {
			assert_string_equal(r.error, "io.sluice.QuotaExceeded");
			assert_int_equal(fd, -1);
			refused++;
		} else {
			assert_true(fd >= 0);
			close(fd);
			passed++;
		}
		varlink_reply_done(&r);
	}
	assert_true(passed > 50);
	assert_true(refused > 50);
	peer_close(&p);
	control_close(s);
}

static void test_under_way(void **state)
{
	pid_t child = fork();
	int status;

	(void)state;
	assert_true(child >= 0);
	if (child == 0) {
		too_many_under_way();
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* What the last test left to the threads is closed. */
static int at_rest(void **state)
{
	static unsigned rest;

	(void)state;
	if (!rest)
		rest = open_fds();
	expect_fds(rest);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_in, at_rest),
		cmocka_unit_test_setup(test_too_many, at_rest),
		cmocka_unit_test_setup(test_refused, at_rest),
		cmocka_unit_test_setup(test_hangup, at_rest),
		cmocka_unit_test_setup(test_no_room, at_rest),
		cmocka_unit_test_setup(test_linger, at_rest),
		cmocka_unit_test_setup(test_out, at_rest),
		cmocka_unit_test_setup(test_pieces, at_rest),
		cmocka_unit_test_setup(test_deaf, at_rest),
		cmocka_unit_test_setup(test_under_way, at_rest),
		cmocka_unit_test_setup(test_file_server, at_rest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
