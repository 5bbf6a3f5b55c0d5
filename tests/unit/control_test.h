/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A control server with methods made for tests, and its peers, all in one process and one thread:
 * waiting for a peer's answer means to dispatch the server by hand.
 */
#ifndef CONTROL_TEST_H
#define CONTROL_TEST_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "control.h"
#include "varlink.h"

#define HANG_MS 20000 /* a test that waits so long has failed */

/* What the methods did. */
struct seen {
	unsigned calls;
	unsigned rows; /* handed out by all listings */
	unsigned open; /* states of listings that are not freed */
	unsigned fds;  /* calls that came with a descriptor */
};

struct rows_state {
	struct seen *seen;
	int64_t at, count, fail_at, gap, size;
	int64_t looked;
};

static inline int rows_next(void *state, json_t **ret)
{
	struct rows_state *w = state;
	char fill[4096];

	if (w->gap && ++w->looked % (w->gap + 1) != 0)
		return -EAGAIN;
	if (w->at == w->fail_at)
		return -EIO;
	if (w->at == w->count)
		return 0;
	memset(fill, 'x', sizeof(fill));
	*ret = json_pack("{s:I, s:s%}", "n", (json_int_t)w->at, "fill", fill, (size_t)w->size);
	if (!*ret)
		return -ENOMEM;
	w->at++;
	w->seen->rows++;
	return 1;
}

static inline void rows_free(void *state)
{
	struct rows_state *w = state;

	w->seen->open--;
	free(w);
}

static inline int method_list(struct control_call *call, void *data)
{
	static const struct control_rows rows = { "rows", rows_next, rows_free };
	struct seen *seen = data;
	struct rows_state *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->seen = seen;
	w->fail_at = -1;
	if (control_param_int(call, "count", 0, INT64_MAX, &w->count) < 0 ||
	    control_param_int(call, "fail_at", 0, INT64_MAX, &w->fail_at) < 0 ||
	    control_param_int(call, "gap", 0, INT64_MAX, &w->gap) < 0 ||
	    control_param_int(call, "size", 0, 4096, &w->size) < 0) {
		free(w);
		return 0;
	}
	seen->calls++;
	seen->open++;
	return control_stream(call, &rows, w);
}

static inline int method_echo(struct control_call *call, void *data)
{
	struct seen *seen = data;
	const char *text = "";
	int64_t n = 0;
	bool flag = false;

	if (control_param_int(call, "n", 0, 1000000, &n) < 0 ||
	    control_param_str(call, "text", &text) < 0 ||
	    control_param_bool(call, "flag", &flag) < 0)
		return 0;
	seen->calls++;
	return control_reply(
		call, json_pack("{s:I, s:s, s:b}", "n", (json_int_t)n, "text", text, "flag", flag));
}

static inline int method_who(struct control_call *call, void *data)
{
	(void)data;
	return control_reply(call,
			     json_pack("{s:i, s:i, s:i}", "uid", control_call_uid(call), "gid",
				       control_call_gid(call), "pid", control_call_pid(call)));
}

static inline int method_root(struct control_call *call, void *data)
{
	struct seen *seen = data;

	seen->calls++;
	return control_reply(call, json_object());
}

static inline int method_big(struct control_call *call, void *data)
{
	int64_t size = 0;
	json_t *reply;
	char *text;

	(void)data;
	if (control_param_int(call, "size", 0, 1 << 20, &size) < 0)
		return 0;
	text = malloc((size_t)size + 1);
	if (!text)
		return -ENOMEM;
	memset(text, 'x', (size_t)size);
	reply = json_pack("{s:s%}", "text", text, (size_t)size);
	free(text);
	return control_reply(call, reply);
}

static inline int method_io(struct control_call *call, void *data)
{
	(void)call;
	(void)data;
	return -EIO;
}

static inline int method_fail(struct control_call *call, void *data)
{
	(void)data;
	return control_fail(call, "io.test.Bad", "line %d: \"%s\" is bad", 7, "b\xff");
}

/* An answer that waits; fd: with a descriptor that is known by its size, n. fill: bytes more. */
static inline int method_held(struct control_call *call, void *data)
{
	struct seen *seen = data;
	int64_t n = 0, fill = 0;
	bool with_fd = false;
	json_t *reply;
	char *text;
	int fd = -1;

	if (control_param_int(call, "n", 0, 1000000, &n) < 0 ||
	    control_param_int(call, "fill", 0, 150000, &fill) < 0 ||
	    control_param_bool(call, "fd", &with_fd) < 0)
		return 0;
	seen->calls++;
	if (with_fd) {
		fd = memfd_create("test", MFD_CLOEXEC);
		if (fd < 0 || ftruncate(fd, n) < 0)
			return -errno;
	}
	text = malloc((size_t)fill + 1);
	if (!text) {
		close(fd);
		return -ENOMEM;
	}
	memset(text, 'x', (size_t)fill);
	reply = json_pack("{s:I, s:s%}", "n", (json_int_t)n, "fill", text, (size_t)fill);
	free(text);
	return control_reply_held(call, reply, fd);
}

/* Tells the size of the descriptor that came along; -1: none. */
static inline int method_take(struct control_call *call, void *data)
{
	struct seen *seen = data;
	int fd = control_call_fd(call);
	struct stat st = { .st_size = -1 };

	seen->calls++;
	seen->fds += fd >= 0;
	if (fd >= 0 && (fstat(fd, &st) < 0 || fcntl(fd, F_GETFD) != FD_CLOEXEC))
		return -errno;
	return control_reply(call, json_pack("{s:I}", "size", (json_int_t)st.st_size));
}

/* The pid that the caller's pidfd is of, and whether it has ended. */
static inline int method_pidfd(struct control_call *call, void *data)
{
	int fd = control_call_pidfd(call), pid = 0;
	char path[64], line[256];
	FILE *f;

	(void)data;
	if (fd < 0)
		return fd;
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "Pid: %d", &pid);
	if (f)
		fclose(f);
	close(fd);
	return control_reply(
		call, json_pack("{s:i, s:b}", "pid", pid, "trusted", control_call_trusted(call)));
}

static const struct control_method test_methods[] = {
	{ "Echo", method_echo, "n text flag", CONTROL_ANY },
	{ "Who", method_who, "", CONTROL_ANY },
	{ "List", method_list, "count fail_at gap size" },
	{ "Root", method_root, "", CONTROL_ROOT },
	{ "Big", method_big, "size" },
	{ "Io", method_io },
	{ "Fail", method_fail },
	{ "Monitor", control_monitor },
	{ "Held", method_held, "n fill fd", CONTROL_ANY },
	{ "Take", method_take, "", CONTROL_ANY | CONTROL_FD },
	{ "Pidfd", method_pidfd, "", CONTROL_ANY },
	{ "Later", NULL },
};

static inline unsigned open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* Some are closed by threads of the server. */
static inline void expect_fds(unsigned n)
{
	for (unsigned ms = 0; open_fds() != n; ms++) {
		if (ms == HANG_MS)
			fail_msg("%u descriptors are open, not %u", open_fds(), n);
		poll(NULL, 0, 1);
	}
}

static inline struct control *server_open(struct seen *seen, const char *path,
					  const struct control_limits *limits)
{
	struct control_options o = {
		.path = path,
		.interface = "io.test",
		.description = control_io_sluice,
		.methods = test_methods,
		.n_methods = sizeof(test_methods) / sizeof(test_methods[0]),
		.data = seen,
		.limits = limits,
	};
	struct control *s = NULL;
	struct errtext err = { 0 };

	if (control_open(&o, &s, &err) < 0)
		fail_msg("control_open: %s", err.s);
	return s;
}

/* Is there anything to do within ms? */
static inline bool server_ready(struct control *s, int ms)
{
	struct pollfd p = { .fd = control_fd(s), .events = POLLIN };

	return poll(&p, 1, ms) == 1;
}

/* Dispatch until the server has nothing left to do. */
static inline void settle(struct control *s)
{
	for (unsigned i = 0; server_ready(s, 0); i++) {
		assert_int_equal(control_dispatch(s), 0);
		assert_true(i < 1000000); /* else it spins */
	}
}

static inline int64_t stat_of(struct control *s, const char *name)
{
	json_t *stats = control_stats(s);
	json_t *v = json_object_get(stats, name);
	int64_t n = json_integer_value(v);

	assert_true(json_is_integer(v));
	json_decref(stats);
	return n;
}

/* ---- descriptors ---- */

/* Send bytes with n descriptors, all of them the same one. As sendmsg(). */
static inline ssize_t send_fds(int sock, const char *bytes, size_t len, int fd, unsigned n)
{
	union {
		char buf[CMSG_SPACE(253 * sizeof(int))];
		struct cmsghdr align;
	} u = { 0 };
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf };
	struct cmsghdr *c;

	mh.msg_controllen = CMSG_SPACE(n * sizeof(int));
	c = CMSG_FIRSTHDR(&mh);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	for (unsigned i = 0; i < n; i++)
		memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(int));
	return sendmsg(sock, &mh, MSG_NOSIGNAL);
}

static inline int send_fd(int sock, int fd)
{
	return send_fds(sock, "x", 1, fd, 1) == 1 ? 0 : -errno;
}

/* One recvmsg(); *ret_fd: the descriptor that came, -1: none. */
static inline ssize_t recv_bytes(int sock, char *buf, size_t len, int *ret_fd)
{
	union {
		char buf[CMSG_SPACE(8 * sizeof(int))];
		struct cmsghdr align;
	} u;
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct msghdr mh = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = u.buf,
		.msg_controllen = sizeof(u.buf),
	};
	ssize_t n = recvmsg(sock, &mh, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&mh) : NULL;

	*ret_fd = -1;
	if (c) {
		assert_int_equal(c->cmsg_type, SCM_RIGHTS);
		assert_int_equal(c->cmsg_len, CMSG_LEN(sizeof(int))); /* never two at once */
		memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
	}
	return n;
}

static inline int recv_fd(int sock)
{
	char c;
	int fd;

	assert_int_equal(recv_bytes(sock, &c, 1, &fd), 1);
	assert_true(fd >= 0);
	return fd;
}

/* ---- peers ---- */

struct peer {
	struct control *server;
	int fd;
	struct varlink_reader in;
};

static inline struct peer peer_of(struct control *s, int fd)
{
	struct peer p = { .server = s, .fd = fd };

	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	varlink_reader_init(&p.in, 1 << 20);
	return p;
}

static inline struct peer peer_new(struct control *s)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(control_adopt(s, fds[1]), 0);
	return peer_of(s, fds[0]);
}

static inline void peer_close(struct peer *p)
{
	close(p->fd);
	varlink_reader_done(&p->in);
}

static inline void peer_send_bytes(struct peer *p, const char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = send(p->fd, bytes, len, MSG_NOSIGNAL);

		if (n < 0) {
			assert_int_equal(errno, EAGAIN);
			assert_true(server_ready(p->server, HANG_MS));
			assert_int_equal(control_dispatch(p->server), 0);
			continue;
		}
		bytes += n;
		len -= (size_t)n;
	}
}

/* The text and its NUL. */
static inline void peer_send(struct peer *p, const char *text)
{
	peer_send_bytes(p, text, strlen(text) + 1);
}

/* Read what is there, without dispatching. False: the server has hung up. */
static inline bool peer_fill(struct peer *p)
{
	size_t room;
	char *buf;
	ssize_t n;

	assert_int_equal(varlink_reader_space(&p->in, &buf, &room), 0);
	n = recv(p->fd, buf, room, 0);
	if (n > 0)
		varlink_reader_fill(&p->in, (size_t)n);
	return n > 0 || (n < 0 && errno == EAGAIN);
}

/* The next reply; root NULL when the server has hung up. */
static inline struct varlink_reply peer_next(struct peer *p)
{
	struct varlink_reply reply = { 0 };
	const char *msg;
	size_t len;
	int r;

	while ((r = varlink_reader_next(&p->in, &msg, &len)) == 0) {
		struct pollfd fds[2] = { { .fd = p->fd, .events = POLLIN },
					 { .fd = control_fd(p->server), .events = POLLIN } };

		assert_true(poll(fds, 2, HANG_MS) > 0);
		if (fds[1].revents)
			assert_int_equal(control_dispatch(p->server), 0);
		if (fds[0].revents && !peer_fill(p) && !varlink_reader_ready(&p->in))
			return reply;
	}
	assert_int_equal(r, 1);
	assert_int_equal(varlink_reply_decode(msg, len, &reply, NULL), 0);
	return reply;
}

static inline void expect_reply(struct peer *p, const char *key, int64_t n)
{
	struct varlink_reply r = peer_next(p);

	assert_non_null(r.root);
	assert_null(r.error);
	assert_false(r.continues);
	if (key)
		assert_int_equal(json_integer_value(json_object_get(r.parameters, key)), n);
	varlink_reply_done(&r);
}

/* An error; key and value: a parameter that it has, or part of its text. */
static inline void expect_error(struct peer *p, const char *error, const char *key,
				const char *value)
{
	struct varlink_reply r = peer_next(p);

	assert_non_null(r.root);
	assert_non_null(r.error);
	assert_string_equal(r.error, error);
	assert_false(r.continues);
	if (key) {
		const char *text = json_string_value(json_object_get(r.parameters, key));

		assert_non_null(text);
		if (!strstr(text, value))
			fail_msg("%s: \"%s\" does not say \"%s\"", error, text, value);
	}
	varlink_reply_done(&r);
}

static inline void expect_closed(struct peer *p)
{
	struct varlink_reply r = peer_next(p);

	assert_null(r.root);
}

#endif
