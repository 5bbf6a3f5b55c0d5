/* SPDX-License-Identifier: BSD-2-Clause */
#include "wire.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS       1000000ULL
#define CONNECT_STEP_NS (20 * NS_PER_MS)
#define FRESH_NS        (10 * NS_PER_MS)
#define FDS_MAX         4 /* one is right; what does not fit here the kernel closes */

uint64_t wire_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

void wire_init(struct wire *w)
{
	w->fd = -1;
	varlink_reader_init(&w->in, WIRE_REPLY_MAX);
}

void wire_close(struct wire *w)
{
	if (w->fd >= 0)
		close(w->fd);
	w->fd = -1;
	w->used_ns = 0;
	varlink_reader_done(&w->in);
}

/*
 * Wait for events on fd (-1: only let time pass), at most until until_ns. 0: go on; -ETIMEDOUT: the deadline of p has passed; -ECANCELED.
 */
static int wait_for(int fd, short events, const struct wire_patience *p, uint64_t until_ns)
{
	struct pollfd fds[2] = { { .fd = fd, .events = events },
				 { .fd = p->wake_fd, .events = POLLIN } };
	uint64_t now_ns = wire_now_ns(), end_ns;
	int ms = -1;

	if (now_ns >= p->deadline_ns)
		return -ETIMEDOUT;
	end_ns = until_ns < p->deadline_ns ? until_ns : p->deadline_ns;
	if (end_ns != WIRE_NEVER) {
		uint64_t left_ms =
			end_ns > now_ns ? (end_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS : 0;

		ms = left_ms > INT_MAX ? INT_MAX : (int)left_ms;
	}
	/* Interrupted or in vain: the caller tries, and comes back. */
	if (poll(fds, 2, ms) < 0 && errno != EINTR)
		return -errno;
	return fds[1].revents ? -ECANCELED : 0;
}

static int say_unreachable(const char *path, int e, struct errtext *err)
{
	if (e == ETIMEDOUT)
		return errtext_set(
			err, e,
			"sluiced at %s does not take the connection: it hangs or is stopped", path);
	if (e == EACCES || e == EPERM)
		return errtext_set(
			err, EACCES,
			"may not use %s: %s; root may, and the members of the group that "
			"access.group names",
			path, strerror(e));
	return errtext_set(err, e, "cannot reach sluiced at %s: %s", path, strerror(e));
}

int wire_connect(struct wire *w, const char *path, const struct wire_patience *p,
		 struct errtext *err)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int r;

	assert(w->fd < 0);
	if (strlen(path) >= sizeof(sa.sun_path))
		return errtext_set(err, ENAMETOOLONG,
				   "the socket's path is longer than %zu bytes: %s",
				   sizeof(sa.sun_path) - 1, path);
	strcpy(sa.sun_path, path);
	w->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (w->fd < 0)
		return errtext_set(err, errno, "cannot make a socket: %s", strerror(errno));
	for (;;) {
		if (connect(w->fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
			return 0;
		r = -errno;
		/* A backlog that is full: no event tells when that changes. */
		if (r == -EAGAIN)
			r = wait_for(-1, 0, p, wire_now_ns() + CONNECT_STEP_NS);
		else if (r == -EINTR)
			r = 0;
		if (r < 0) {
			wire_close(w);
			return say_unreachable(path, -r, err);
		}
	}
}

bool wire_stale(const struct wire *w)
{
	char c;
	ssize_t n;

	if (w->in.end > w->in.begin)
		return true;
	/* Of a daemon that has hung up since, sending tells. */
	if (wire_now_ns() - w->used_ns < FRESH_NS)
		return false;
	n = recv(w->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);
	return n >= 0 || (errno != EAGAIN && errno != EINTR);
}

static ssize_t send_some(int sock, const char *text, size_t len, int fd)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { .iov_base = (char *)text, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		struct cmsghdr *c = &control.header;

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control.room);
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* -EPIPE: the daemon has hung up; it may have said why. */
static int send_all(struct wire *w, const char *text, size_t len, int fd,
		    const struct wire_patience *p)
{
	size_t off = 0;
	int r;

	while (off < len) {
		ssize_t n = send_some(w->fd, text + off, len - off, off == 0 ? fd : -1);

		if (n >= 0) {
			off += (size_t)n;
		} else if (errno == EAGAIN) {
			r = wait_for(w->fd, POLLOUT, p, WIRE_NEVER);
			if (r < 0)
				return r;
		} else if (errno == ECONNRESET || errno == EPIPE) {
			return -EPIPE;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

/* Descriptors that came along with an answer. */
struct arrived {
	int fd; /* the first one; others are closed. -1: none */
	unsigned count;
	bool lost; /* there were some that this process has no room for */
};

static void take_fds(struct msghdr *msg, struct arrived *a)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int got;

			memcpy(&got, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (++a->count == 1)
				a->fd = got;
			else
				close(got);
		}
	}
	a->lost |= (msg->msg_flags & MSG_CTRUNC) != 0;
}

/* Bytes into the reader. 1; 0 at the end; -errno. */
static int receive_some(struct wire *w, struct arrived *a)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov;
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control.room),
	};
	ssize_t n;
	char *buf;
	int r;

	r = varlink_reader_space(&w->in, &buf, &iov.iov_len);
	if (r < 0)
		return r;
	iov.iov_base = buf;
	n = recvmsg(w->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n < 0)
		return -errno;
	take_fds(&msg, a);
	varlink_reader_fill(&w->in, (size_t)n);
	return n > 0;
}

/* Errors as wire_call(), but for -EMSGSIZE: too long. */
static int receive(struct wire *w, const struct wire_patience *p, const char **ret_msg,
		   size_t *ret_len, struct arrived *a, bool *ret_unread)
{
	int r;

	while ((r = varlink_reader_next(&w->in, ret_msg, ret_len)) == 0) {
		r = wait_for(w->fd, POLLIN, p, WIRE_NEVER);
		if (r < 0)
			return r;
		r = receive_some(w, a);
		if (r == 0)
			return -ECONNRESET;
		if (r == -ECONNRESET) {
			/* The kernel says so instead of "end" when data was left unread: our call, since nothing else is under way. */
			*ret_unread = true;
			return r;
		}
		if (r < 0 && r != -EAGAIN && r != -EINTR)
			return r;
	}
	return r < 0 ? r : 0;
}

static int say_lost(const char *path, int r, struct errtext *err)
{
	switch (r) {
	case -ETIMEDOUT:
		return errtext_set(err, ETIMEDOUT,
				   "sluiced at %s does not answer: it hangs or is stopped", path);
	case -ECONNRESET:
		return errtext_set(err, ECONNRESET, "sluiced at %s has hung up", path);
	case -EMSGSIZE:
		return errtext_set(err, EPROTO, "the answer of sluiced at %s is too long", path);
	}
	return errtext_set(err, -r, "connection to %s: %s", path, strerror(-r));
}

int wire_call(struct wire *w, const char *path, const char *text, size_t len, int fd,
	      const struct wire_patience *p, struct varlink_reply *ret, int *ret_fd,
	      bool *ret_unread, struct errtext *err)
{
	struct errtext why = { 0 };
	struct varlink_reply reply;
	struct arrived a = { .fd = -1 };
	const char *msg;
	size_t msg_len;
	int sent, r;

	*ret_unread = false;
	sent = send_all(w, text, len, fd, p);
	if (sent < 0 && sent != -EPIPE)
		return say_lost(path, sent, err);
	r = receive(w, p, &msg, &msg_len, &a, ret_unread);
	if (r == -ECONNRESET && sent == -EPIPE)
		*ret_unread = true;
	if (r < 0) {
		say_lost(path, r, err);
		r = r == -EMSGSIZE ? -EPROTO : r;
		goto fail;
	}
	r = varlink_reply_decode(msg, msg_len, &reply, &why);
	if (r < 0) {
		r = r == -EBADMSG ? -EPROTO : r;
		errtext_set(err, -r, "what answers at %s is not sluiced: %s", path, why.s);
		goto fail;
	}
	if (a.count > 1 || reply.continues)
		r = errtext_set(err, EPROTO, "sluiced at %s sent more than it was asked for", path);
	else if (a.lost)
		r = errtext_set(err, EMFILE, "no room for the socket that sluiced sent: %s",
				strerror(EMFILE));
	if (r < 0) {
		varlink_reply_done(&reply);
		goto fail;
	}
	*ret = reply;
	*ret_fd = a.fd;
	w->used_ns = wire_now_ns();
	return 0;
fail:
	if (a.fd >= 0)
		close(a.fd);
	return r;
}
