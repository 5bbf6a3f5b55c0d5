/* SPDX-License-Identifier: BSD-2-Clause */
/* Sockets on a lease: those that the daemon makes, and the program's own. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static json_t *open_params(const struct sluice_lease *l, const struct sluice_socket_options *o)
{
	json_t *p = json_pack("{s:I}", "id", (json_int_t)l->id);
	const char *proto = o->proto == SLUICE_PROTO_TCP ? "tcp" : "udp";

	if (!p || (o->proto && json_object_set_new(p, "proto", json_string(proto)) < 0) ||
	    (o->port && json_object_set_new(p, "port", json_integer(o->port)) < 0) ||
	    (o->listen && json_object_set_new(p, "listen", json_true()) < 0) ||
	    (o->nonblock && json_object_set_new(p, "nonblock", json_true()) < 0) ||
	    (o->reuseport && json_object_set_new(p, "reuseport", json_true()) < 0)) {
		json_decref(p);
		return NULL;
	}
	return p;
}

static int open_socket(struct sluice *s, const struct sluice_lease *l,
		       const struct sluice_socket_options *o, int *ret_fd, struct errtext *err)
{
	/* What a broken connection took with it is closed: asking again does no harm. */
	struct call call = {
		.method = "Open", .flags = CALL_REPEAT, .send_fd = -1, .want_fd = true
	};
	json_t *reply;
	int r;

	if (o->proto && o->proto != SLUICE_PROTO_TCP && o->proto != SLUICE_PROTO_UDP)
		return errtext_set(err, EINVAL, "a socket has one protocol, TCP or UDP");
	call.params = open_params(l, o);
	r = handle_call(s, &call, &reply, ret_fd, err);
	if (r == 0)
		json_decref(reply);
	return r;
}

API int sluice_open(struct sluice *s, struct sluice_lease *l,
		    const struct sluice_socket_options *options)
{
	struct sluice_socket_options o = { 0 };
	struct errtext err = { 0 };
	int fd, r;

	if (options)
		o = *options;
	r = open_socket(s, l, &o, &fd, &err);
	return r < 0 ? handle_end(s, r, &err) : fd;
}

/* Until a connection is there, or has failed. */
static int wait_connected(int fd, uint64_t deadline_ns)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	int e = 0, ms = -1, r;
	socklen_t len = sizeof(e);

	do {
		if (deadline_ns != WIRE_NEVER) {
			uint64_t now_ns = wire_now_ns(), left_ms;

			if (now_ns >= deadline_ns)
				return -ETIMEDOUT;
			left_ms = (deadline_ns - now_ns + 999999) / 1000000;
			ms = left_ms > INT_MAX ? INT_MAX : (int)left_ms;
		}
		r = poll(&p, 1, ms);
		if (r < 0 && errno != EINTR)
			return -errno;
	} while (r <= 0);
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0)
		return -errno;
	return -e;
}

static int connect_socket(int fd, const struct sluice_lease *l, const struct sockaddr *to,
			  socklen_t to_len, uint64_t deadline_ns, struct errtext *err)
{
	int r = connect(fd, to, to_len) < 0 ? -errno : 0;

	if (r == -EINPROGRESS || r == -EINTR)
		r = wait_connected(fd, deadline_ns);
	if (r == -EADDRNOTAVAIL)
		return errtext_set(err, EADDRNOTAVAIL,
				   "lease %llu has no port left for this destination",
				   (unsigned long long)l->id);
	if (r < 0)
		return errtext_set(err, -r, "cannot connect: %s", strerror(-r));
	return 0;
}

API int sluice_open_connected(struct sluice *s, struct sluice_lease *l,
			      const struct sluice_socket_options *options,
			      const struct sockaddr *to, socklen_t to_len)
{
	unsigned timeout_ms = atomic_load(&s->timeout_ms);
	uint64_t deadline_ns =
		timeout_ms ? wire_now_ns() + (uint64_t)timeout_ms * 1000000 : WIRE_NEVER;
	struct sluice_socket_options o = { 0 };
	struct errtext err = { 0 };
	int fd, flags, r;

	if (options)
		o = *options;
	/* So that connecting can be given up in time. */
	o.nonblock = true;
	r = open_socket(s, l, &o, &fd, &err);
	if (r < 0)
		return handle_end(s, r, &err);
	r = connect_socket(fd, l, to, to_len, deadline_ns, &err);
	if (r == 0 && !(options && options->nonblock)) {
		flags = fcntl(fd, F_GETFL);
		if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
			r = -errno;
	}
	if (r < 0) {
		close(fd);
		return handle_end(s, r, &err);
	}
	return fd;
}

API int sluice_register(struct sluice *s, struct sluice_lease *l, int fd)
{
	struct call call = { .method = "Register", .flags = CALL_REPEAT, .send_fd = fd };
	struct errtext err = { 0 };
	json_t *reply;
	int r;

	if (fcntl(fd, F_GETFD) < 0) {
		errtext_set(&err, EBADF, "%d is no descriptor", fd);
		return handle_end(s, -EBADF, &err);
	}
	call.params = json_pack("{s:I}", "id", (json_int_t)l->id);
	r = handle_call(s, &call, &reply, NULL, &err);
	if (r == 0)
		json_decref(reply);
	return handle_end(s, r, &err);
}
