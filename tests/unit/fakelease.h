/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A daemon that only knows leases, in a process of its own, and that misbehaves on demand. What it holds and what it is to do lies in memory that it shares with the test, so that it
 * can be killed and started anew, and its leases go on.
 */
#ifndef FAKELEASE_H
#define FAKELEASE_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "varlink.h"

#define FAKE_LEASES 4096
#define FAKE_FIRST  40960

enum fake_mood {
	FAKE_FAIR,
	FAKE_BYTES,  /* answers with `bytes`, and hangs up */
	FAKE_ERROR,  /* answers with the error `error` and the parameters `error_params` */
	FAKE_DROP,   /* does it, and hangs up without an answer */
	FAKE_UNREAD, /* hangs up when something comes, without reading it */
	FAKE_HANG,   /* does it, and never answers */
	FAKE_FDS,    /* `fds` descriptors come with each answer */
};

struct fake {
	_Atomic int mood;
	_Atomic int mood_calls; /* how many calls it lasts; -1: all */
	_Atomic int connections, calls, acquires, renews, stale_renews, releases, opens, registers;
	_Atomic int fds;
	_Atomic int registered_port; /* of the last socket that was registered */
	char params[8192];           /* of the last call, keys sorted */
	char bytes[8192];
	size_t n_bytes;
	char error[128], error_params[256];
	/* Leases by id; id 0 never is. */
	struct {
		_Atomic int active;
		unsigned ports;
		int ttl;
	} leases[FAKE_LEASES];
	_Atomic unsigned next;
};

static struct fake *fake;
static char fake_dir[64], fake_path[96];
static pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;

static inline json_t *fake_lease(unsigned id)
{
	int ttl = fake->leases[id].ttl;
	unsigned first = FAKE_FIRST + id % 2048;

	return json_pack(
		"{s:i, s:s, s:s, s:s, s:i, s:i, s:s, s:s, s:{s:i, s:i, s:s, s:s}, s:s, s:s, "
		"s:s, s:s, s:o, s:b}",
		"id", (int)id, "pool", "default", "proto", id % 2 ? "udp" : "tcp+udp", "address",
		id % 2 ? "203.0.113.7" : "2001:db8::7", "first", (int)first, "last",
		(int)(first + fake->leases[id].ports - 1), "kind", id % 2 ? "exclusive" : "shared",
		"state", fake->leases[id].active ? "active" : "cooling", "holder", "pid", 1, "uid",
		0, "comm", "test", "cgroup", "/", "until", "process", "name", "", "labels", "",
		"created", "2026-11-24T10:00:00.000Z", "expires_s",
		ttl ? json_integer(ttl) : json_null(), "steered", false);
}

static inline json_t *fake_no_lease(json_int_t id, const char **error)
{
	*error = "io.sluice.NoSuchLease";
	return json_pack("{s:I}", "id", id);
}

static inline bool fake_has(json_int_t id)
{
	return id > 0 && id < FAKE_LEASES && fake->leases[id].active;
}

static inline json_t *fake_acquire(json_t *params)
{
	int n = 1, ports = 1, ttl = 0;
	json_t *rows = json_array();

	json_unpack(params, "{s?i, s?i, s?i}", "leases", &n, "ports", &ports, "ttl", &ttl);
	for (int i = 0; i < n; i++) {
		unsigned id = ++fake->next;

		fake->leases[id].active = 1;
		fake->leases[id].ports = (unsigned)ports;
		fake->leases[id].ttl = ttl;
		json_array_append_new(rows, fake_lease(id));
	}
	fake->acquires++;
	return json_pack("{s:o}", "leases", rows);
}

static inline json_t *fake_release(json_t *params, const char **error)
{
	json_t *ids = json_object_get(params, "ids"), *v;
	size_t i;

	fake->releases++;
	json_array_foreach(ids, i, v)
	{
		if (!fake_has(json_integer_value(v)))
			return fake_no_lease(json_integer_value(v), error);
	}
	json_array_foreach(ids, i, v)
	{
		fake->leases[json_integer_value(v)].active = 0;
	}
	return json_object();
}

/* Carry out a call: the answer's parameters. *fd: goes along. */
static inline json_t *fake_carry_out(const char *method, json_t *params, int came, int *fd,
				     const char **error)
{
	json_int_t id = json_integer_value(json_object_get(params, "id"));
	struct sockaddr_in in = { .sin_family = AF_INET };
	socklen_t len = sizeof(in);
	json_t *row = NULL;

	if (strcmp(method, "Acquire") == 0)
		return fake_acquire(params);
	if (strcmp(method, "Release") == 0)
		return fake_release(params, error);
	if (strcmp(method, "ListLeases") == 0) {
		if (id > 0 && id < FAKE_LEASES && fake->leases[id].ports)
			row = fake_lease((unsigned)id);
		return row ? json_pack("{s:[o]}", "leases", row) : json_pack("{s:[]}", "leases");
	}
	if (!fake_has(id)) {
		fake->stale_renews += strcmp(method, "Renew") == 0;
		return fake_no_lease(id, error);
	}
	if (strcmp(method, "Renew") == 0) {
		fake->renews++;
		json_unpack(params, "{s?i}", "ttl", &fake->leases[id].ttl);
		return json_pack("{s:o}", "lease", fake_lease((unsigned)id));
	}
	if (strcmp(method, "Open") == 0) {
		int nonblock = 0;

		fake->opens++;
		json_unpack(params, "{s?b}", "nonblock", &nonblock);
		in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		*fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (nonblock ? SOCK_NONBLOCK : 0),
			     0);
		if (bind(*fd, (struct sockaddr *)&in, len) < 0 ||
		    getsockname(*fd, (struct sockaddr *)&in, &len) < 0)
			abort();
		return json_pack("{s:s, s:i}", "address", "127.0.0.1", "port", ntohs(in.sin_port));
	}
	if (strcmp(method, "Register") == 0) {
		fake->registers++;
		if (came < 0 || getsockname(came, (struct sockaddr *)&in, &len) < 0)
			return *error = "io.sluice.Failed", json_object();
		fake->registered_port = ntohs(in.sin_port);
		return json_pack("{s:s}", "proto", "udp");
	}
	*error = VARLINK_METHOD_NOT_FOUND;
	return json_pack("{s:s}", "method", method);
}

static inline void fake_send(int sock, const char *text, size_t len, int fd, int n_fds)
{
	char control[CMSG_SPACE(64 * sizeof(int))] = { 0 };
	struct iovec iov = { .iov_base = (char *)text, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds > 0) {
		struct cmsghdr *c = (struct cmsghdr *)control;

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN((size_t)n_fds * sizeof(int));
		for (int i = 0; i < n_fds; i++)
			memcpy(CMSG_DATA(c) + (size_t)i * sizeof(int), &fd, sizeof(int));
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE((size_t)n_fds * sizeof(int));
	}
	(void)!sendmsg(sock, &msg, MSG_NOSIGNAL);
}

/* What it is to do with this call. */
static inline enum fake_mood fake_mood(void)
{
	enum fake_mood mood = (enum fake_mood)fake->mood;

	if (fake->mood_calls > 0 && --fake->mood_calls == 0)
		fake->mood = FAKE_FAIR;
	return mood;
}

/* Answer one call. False: hang up. */
static inline bool fake_answer(int sock, const char *msg, size_t len, int came)
{
	enum fake_mood mood = fake_mood();
	struct varlink_call call;
	const char *error = NULL;
	json_t *reply;
	char *text;
	int fd = -1;

	if (varlink_call_decode(msg, len, &call, NULL) < 0)
		abort();
	fake->calls++;
	text = json_dumps(call.parameters, JSON_COMPACT | JSON_SORT_KEYS);
	snprintf(fake->params, sizeof(fake->params), "%s", text);
	free(text);
	if (mood == FAKE_BYTES) {
		fake_send(sock, fake->bytes, fake->n_bytes, -1, 0);
		varlink_call_done(&call);
		return false;
	}
	if (mood == FAKE_ERROR) {
		error = fake->error;
		reply = json_loads(fake->error_params, 0, NULL);
	} else {
		reply = fake_carry_out(call.method + call.interface_len + 1, call.parameters, came,
				       &fd, &error);
	}
	if (varlink_reply_encode(error, reply, false, &text, &len) < 0)
		abort();
	if (mood == FAKE_FDS)
		fake_send(sock, text, len, fd >= 0 ? fd : sock, fake->fds);
	else if (mood == FAKE_FAIR || mood == FAKE_ERROR)
		fake_send(sock, text, len, fd, fd >= 0);
	if (fd >= 0)
		close(fd);
	free(text);
	json_decref(reply);
	varlink_call_done(&call);
	return mood != FAKE_DROP;
}

static inline int fake_receive(int sock, struct varlink_reader *in)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov;
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	char *buf;
	ssize_t n;
	int fd = -1;

	msg.msg_control = control;
	msg.msg_controllen = sizeof(control);
	if (varlink_reader_space(in, &buf, &iov.iov_len) < 0)
		abort();
	iov.iov_base = buf;
	n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	if (n <= 0)
		return -2;
	varlink_reader_fill(in, (size_t)n);
	if (CMSG_FIRSTHDR(&msg))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	return fd;
}

static inline void *fake_connection(void *data)
{
	int sock = (int)(intptr_t)data, came = -1;
	struct varlink_reader in;
	bool on = true;

	varlink_reader_init(&in, 1 << 20);
	while (on) {
		struct pollfd p = { .fd = sock, .events = POLLIN };
		const char *msg;
		size_t len;

		if (varlink_reader_next(&in, &msg, &len) == 1) {
			pthread_mutex_lock(&fake_lock);
			on = fake_answer(sock, msg, len, came);
			pthread_mutex_unlock(&fake_lock);
			if (came >= 0)
				close(came);
			came = -1;
			continue;
		}
		poll(&p, 1, -1);
		if (fake->mood == FAKE_UNREAD) {
			fake_mood();
			break;
		}
		came = fake_receive(sock, &in);
		on = came >= -1;
	}
	close(sock);
	varlink_reader_done(&in);
	return NULL;
}

/* The socket is there when this returns. */
static inline pid_t fake_start(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pid_t pid;

	strcpy(sa.sun_path, fake_path);
	unlink(fake_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 64), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;) {
			int sock = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
			pthread_t thread;

			fake->connections++;
			if (sock < 0 || pthread_create(&thread, NULL, fake_connection,
						       (void *)(intptr_t)sock) != 0)
				abort();
			pthread_detach(thread);
		}
	}
	close(fd);
	return pid;
}

static inline void fake_stop(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* The next calls, n of them (-1: all), are answered so. */
static inline void fake_be(enum fake_mood mood, int n)
{
	fake->mood_calls = n;
	fake->mood = (int)mood;
}

static inline void fake_say(const char *error, const char *params, int n)
{
	snprintf(fake->error, sizeof(fake->error), "%s", error);
	snprintf(fake->error_params, sizeof(fake->error_params), "%s", params);
	fake_be(FAKE_ERROR, n);
}

/* The next call is answered with these parameters: one reply each, all but the last of which say that more follow. */
static inline void fake_replies(const char *const *params, size_t n)
{
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		len += (size_t)snprintf(fake->bytes + len, sizeof(fake->bytes) - len,
					"{\"parameters\":%s%s}", params[i],
					i + 1 < n ? ",\"continues\":true" : "") +
		       1;
		assert_true(len <= sizeof(fake->bytes));
	}
	fake->n_bytes = len;
	fake_be(FAKE_BYTES, 1);
}

#define FAKE_REPLIES(...)                                  \
	fake_replies((const char *const[]){ __VA_ARGS__ }, \
		     sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *))

static inline int fake_setup(void)
{
	strcpy(fake_dir, "/tmp/sluice-test-XXXXXX");
	if (!mkdtemp(fake_dir))
		return -1;
	snprintf(fake_path, sizeof(fake_path), "%s/control.sock", fake_dir);
	fake = mmap(NULL, sizeof(*fake), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return fake == MAP_FAILED ? -1 : 0;
}

static inline int fake_teardown(void)
{
	munmap(fake, sizeof(*fake));
	unlink(fake_path);
	return rmdir(fake_dir);
}

#endif
