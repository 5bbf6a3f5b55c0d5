/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whatever a stranger sends to the control socket, in whatever pieces: the decoder, and a real
 * server behind a socket pair. The first byte of the input says how the rest is cut, and whether
 * the client reads, half closes or goes. Some pieces bring descriptors along, and some answers.
 *
 * Checked besides memory: every byte that the server sends belongs to a well-formed reply; nobody
 * else's connection is touched; nothing is left over when the client is gone; the server comes to
 * rest.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control.h"
#include "varlink.h"

#define must(x)                                                                 \
	do {                                                                    \
		if (!(x)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); \
			abort();                                                \
		}                                                               \
	} while (0)

static unsigned open_states;
static struct control *server;
static int witness; /* a client that does nothing, and must never notice anything */
static bool disk_full;

struct rows {
	int64_t at, count;
};

static int rows_next(void *state, json_t **ret)
{
	struct rows *w = state;

	if (w->at >= w->count)
		return 0;
	if (w->at++ % 7 == 6)
		return -EAGAIN;
	if (w->at == 1000)
		return -EIO;
	*ret = json_pack("{s:I}", "n", (json_int_t)w->at);
	return *ret ? 1 : -ENOMEM;
}

static void rows_free(void *state)
{
	open_states--;
	free(state);
}

static const struct control_rows rows = { "rows", rows_next, rows_free };

static int method_list(struct control_call *call, void *data)
{
	struct rows *w = calloc(1, sizeof(*w));

	(void)data;
	must(w);
	w->count = 20;
	if (control_param_int(call, "count", 0, 2000, &w->count) < 0) {
		free(w);
		return 0;
	}
	open_states++;
	return control_stream(call, &rows, w);
}

static int method_echo(struct control_call *call, void *data)
{
	const char *text = NULL;
	bool flag = false;

	(void)data;
	if (control_param_str(call, "text", &text) < 0 ||
	    control_param_bool(call, "flag", &flag) < 0)
		return 0;
	if (flag)
		return -EIO;
	return control_reply(call, json_pack("{s:s?}", "text", text));
}

static int method_fail(struct control_call *call, void *data)
{
	const char *text = "";

	(void)data;
	if (control_param_str(call, "text", &text) < 0)
		return 0;
	return control_fail(call, "io.sluice.NoSuchPool", "%s", text);
}

static int method_held(struct control_call *call, void *data)
{
	bool flag = false;

	(void)data;
	if (control_param_bool(call, "flag", &flag) < 0)
		return 0;
	return control_reply_held(call, json_object(), flag ? dup(witness) : -1);
}

static int method_take(struct control_call *call, void *data)
{
	(void)data;
	if (control_call_fd(call) >= 0)
		must(fcntl(control_call_fd(call), F_GETFD) == FD_CLOEXEC);
	return control_reply(call, json_object());
}

static const struct control_method methods[] = {
	{ "ListFlows", method_list, "count" },
	{ "Echo", method_echo, "text flag" },
	{ "Fail", method_fail, "text" },
	{ "Monitor", control_monitor },
	{ "Reload", method_fail, "text", CONTROL_ROOT },
	{ "Later", NULL },
	{ "Held", method_held, "flag", CONTROL_ANY },
	{ "Take", method_take, "", CONTROL_ANY | CONTROL_FD },
};

static void settle(void)
{
	struct pollfd p = { .fd = control_fd(server), .events = POLLIN };

	for (unsigned i = 0; poll(&p, 1, 0) == 1; i++) {
		must(control_dispatch(server) == 0);
		if (control_holding(server))
			control_settle(server, !disk_full, "the disk is full");
		must(i < 100000);
	}
}

static void prepare(void)
{
	struct control_limits limits = CONTROL_LIMITS;
	struct control_options o = {
		.interface = "io.sluice",
		.description = control_io_sluice,
		.methods = methods,
		.n_methods = sizeof(methods) / sizeof(methods[0]),
		.limits = &limits,
	};
	int fds[2];

	if (server)
		return;
	limits.message_max = 2048; /* within the fuzzer's reach */
	limits.reply_max = 16384;
	limits.queue_max = 4096;
	must(control_open(&o, &server, NULL) == 0);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
	must(control_adopt(server, fds[1]) == 0);
	witness = fds[0];
}

static unsigned open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	must(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* As send(), with n descriptors. */
static ssize_t send_fds(int sock, const uint8_t *bytes, size_t len, unsigned n)
{
	union {
		char buf[CMSG_SPACE(4 * sizeof(int))];
		struct cmsghdr align;
	} u = { 0 };
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;

	if (n > 0) {
		mh.msg_control = u.buf;
		mh.msg_controllen = CMSG_SPACE(n * sizeof(int));
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n * sizeof(int));
		for (unsigned i = 0; i < n; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &witness, sizeof(int));
	}
	return sendmsg(sock, &mh, MSG_NOSIGNAL);
}

/* Read what is there. False: the server has hung up. */
static bool drain(int fd, struct varlink_reader *in)
{
	const char *msg;
	size_t len, room;
	char *buf;
	ssize_t n;

	for (;;) {
		must(varlink_reader_space(in, &buf, &room) == 0);
		n = recv(fd, buf, room, 0);
		if (n <= 0)
			return n < 0 && errno == EAGAIN;
		varlink_reader_fill(in, (size_t)n);
		while (varlink_reader_next(in, &msg, &len) == 1) {
			struct varlink_reply reply;

			must(varlink_reply_decode(msg, len, &reply, NULL) == 0);
			varlink_reply_done(&reply);
		}
	}
}

/* The decoders alone: what they take, they can write again. */
static void decode(const uint8_t *data, size_t size)
{
	struct varlink_reply reply;
	struct varlink_call call;
	struct errtext err;
	size_t len;
	char *text;

	if (varlink_call_decode((const char *)data, size, &call, &err) == 0) {
		must(varlink_call_encode(call.method, call.parameters, call.more, call.oneway,
					 &text, &len) == 0);
		free(text);
		varlink_call_done(&call);
	}
	if (varlink_reply_decode((const char *)data, size, &reply, &err) == 0) {
		must(varlink_reply_encode(reply.error, reply.parameters, reply.continues, &text,
					  &len) == 0);
		free(text);
		varlink_reply_done(&reply);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct varlink_reader in;
	size_t piece, off = 0;
	unsigned before;
	uint8_t how;
	int fds[2];
	bool up = true;
	char c;

	if (size == 0 || size > 65536)
		return 0;
	how = *data++;
	size--;
	decode(data, size);
	prepare();
	before = open_fds();
	disk_full = how & 1;
	varlink_reader_init(&in, 1 << 20);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
	must(control_adopt(server, fds[1]) == 0);
	piece = how & 0x0f ? (how & 0x0f) * 13U : size + 1;
	while (off < size) {
		ssize_t n = send_fds(fds[0], data + off, size - off < piece ? size - off : piece,
				     data[off] % 5);

		if (n <= 0)
			break;
		off += (size_t)n;
		if (how & 0x10)
			control_publish(server, json_pack("{s:s}", "event", "x"));
		if (how & 0x20)
			settle();
		if (how & 0x40)
			up = drain(fds[0], &in) && up;
	}
	if (how & 0x80) {
		shutdown(fds[0], SHUT_WR);
		settle();
	} else if (how & 0x20) {
		settle();
	}
	if (how & 0x10)
		for (int i = 0; i < 100; i++)
			control_publish(server, json_pack("{s:s, s:s}", "event", "y", "text",
							  "long enough "
							  "to fill a queue"));
	for (int i = 0; i < 100 && (how & 0x40) && up; i++) {
		settle();
		up = drain(fds[0], &in);
	}
	close(fds[0]);
	settle();
	varlink_reader_done(&in);
	must(open_states == 0);
	must(!control_holding(server));
	/* Some are closed by threads. */
	for (int i = 0; open_fds() != before; i++) {
		must(i < 10000);
		poll(NULL, 0, 1);
	}
	must(!control_monitored(server));
	must(recv(witness, &c, 1, 0) < 0 && errno == EAGAIN);
	return 0;
}
