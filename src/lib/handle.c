/* SPDX-License-Identifier: BSD-2-Clause */
/* The handle: connecting, calls, errors' texts. */
#include "internal.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SOCKET_DEFAULT "/run/sluice/control.sock"
#define INTERFACE      "io.sluice."
#define ERRORS_FEW     16

API const char *sluice_version(void)
{
	return SLUICE_VERSION;
}

/* ---- errors' texts: one for each thread that had a failure ---- */

static struct error_slot *slot_find(const struct sluice *s, pid_t tid)
{
	struct error_slot *slot;

	LIST_FOREACH(slot, &s->errors, link)
	{
		if (slot->tid == tid)
			return slot;
	}
	return NULL;
}

/* Threads come and go: what was said to those that have ended is forgotten. Nobody else's text may go, since it may be being read. */
static void slots_sweep(struct sluice *s)
{
	struct error_slot *slot, *next;

	for (slot = LIST_FIRST(&s->errors); slot; slot = next) {
		next = LIST_NEXT(slot, link);
		if (syscall(SYS_tgkill, getpid(), slot->tid, 0) < 0 && errno == ESRCH) {
			LIST_REMOVE(slot, link);
			free(slot);
			s->n_errors--;
		}
	}
	s->sweep_errors_at = s->n_errors * 2 > ERRORS_FEW ? s->n_errors * 2 : ERRORS_FEW;
}

static struct error_slot *slot_get(struct sluice *s)
{
	pid_t tid = gettid();
	struct error_slot *slot = slot_find(s, tid);

	if (slot)
		return slot;
	if (s->n_errors >= s->sweep_errors_at)
		slots_sweep(s);
	slot = calloc(1, sizeof(*slot));
	if (!slot)
		return NULL;
	slot->tid = tid;
	LIST_INSERT_HEAD(&s->errors, slot, link);
	s->n_errors++;
	return slot;
}

int handle_end(struct sluice *s, int r, const struct errtext *err)
{
	struct error_slot *slot;

	if (r >= 0)
		return r;
	pthread_mutex_lock(&s->lock);
	slot = slot_get(s);
	if (slot)
		strcpy(slot->text, err->s[0] ? err->s : strerror(-r));
	pthread_mutex_unlock(&s->lock);
	return r;
}

API const char *sluice_error(const struct sluice *s)
{
	/* The lock is no part of what a caller sees as constant. */
	struct sluice *mutable = (struct sluice *)s;
	const struct error_slot *slot;

	if (!s)
		return "out of memory";
	pthread_mutex_lock(&mutable->lock);
	slot = slot_find(s, gettid());
	pthread_mutex_unlock(&mutable->lock);
	return slot ? slot->text : "nothing has failed, or memory lacked to say what";
}

/* ---- calls ---- */

static const struct {
	const char *name;
	int err;
	const char *parameter; /* its value completes the text; NULL: the daemon gives a text */
	const char *format;
} errors[] = {
	{ "io.sluice.NoPorts", ENOSPC },
	{ "io.sluice.Fenced", ENOSPC },
	{ "io.sluice.QuotaExceeded", EDQUOT },
	{ "io.sluice.Conflict", EADDRINUSE },
	{ "io.sluice.Denied", EACCES },
	{ "io.sluice.Failed", EIO },
	{ "io.sluice.BadMessage", EPROTO },
	{ "io.sluice.NoSuchLease", ESTALE },
	{ "io.sluice.NoSuchPool", EINVAL, "pool", "there is no pool \"%s\"" },
	{ VARLINK_INVALID_PARAMETER, EINVAL, "parameter",
	  "sluiced does not accept the value of \"%s\"" },
	{ VARLINK_PERMISSION_DENIED, EACCES },
	{ VARLINK_METHOD_NOT_FOUND, EOPNOTSUPP, "method",
	  "sluiced does not know %s: it is of another version" },
	{ VARLINK_NOT_IMPLEMENTED, EOPNOTSUPP, "method", "this sluiced cannot do %s" },
	{ VARLINK_INTERFACE_NOT_FOUND, EPROTO, "interface",
	  "what answers is not sluiced: it lacks %s" },
};

/* -errno for an error reply, and its meaning in words. */
static int say_error(const struct varlink_reply *reply, uint64_t *ret_id, struct errtext *err)
{
	const char *text = json_string_value(json_object_get(reply->parameters, "text"));
	json_t *id = json_object_get(reply->parameters, "id"), *v;
	const char *format = NULL;
	int e = EPROTO;

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		if (strcmp(reply->error, errors[i].name) != 0)
			continue;
		e = errors[i].err;
		v = errors[i].parameter ? json_object_get(reply->parameters, errors[i].parameter)
					: NULL;
		if (!text && json_is_string(v)) {
			format = errors[i].format;
			text = json_string_value(v);
		}
		break;
	}
	if (json_is_integer(id) && json_integer_value(id) > 0)
		*ret_id = (uint64_t)json_integer_value(id);
	if (e == ESTALE && *ret_id)
		return errtext_set(err, e, "lease %llu has ended, or never was",
				   (unsigned long long)*ret_id);
	if (format) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		return errtext_set(err, e, format, text);
#pragma GCC diagnostic pop
	}
	return errtext_set(err, e, "%s", text ? text : reply->error);
}

static void deadline_spec(uint64_t ns, struct timespec *ret)
{
	ret->tv_sec = (time_t)(ns / 1000000000);
	ret->tv_nsec = (long)(ns % 1000000000);
}

/* Wait for the turn of this call. */
static int lock_calls(struct sluice *s, uint64_t deadline_ns)
{
	struct timespec ts;

	if (deadline_ns == WIRE_NEVER)
		return -pthread_mutex_lock(&s->calls);
	deadline_spec(deadline_ns, &ts);
	return -pthread_mutex_clocklock(&s->calls, CLOCK_MONOTONIC, &ts);
}

/*
 * Send, receive; when a restart of the daemon has broken the connection, a second time on a new one, unless the call may have been carried out and must not be twice.
 */
static int exchange(struct sluice *s, struct call *call, const char *text, size_t len,
		    const struct wire_patience *p, struct varlink_reply *ret, int *ret_fd,
		    struct errtext *err)
{
	bool unread;
	int r;

	for (unsigned tries = 1;; tries++) {
		if (s->wire.fd >= 0 && wire_stale(&s->wire))
			wire_close(&s->wire);
		r = s->wire.fd < 0 ? wire_connect(&s->wire, s->path, p, err) : 0;
		if (r < 0)
			return r;
		r = wire_call(&s->wire, s->path, text, len, call->send_fd, p, ret, ret_fd, &unread,
			      err);
		if (r == 0)
			return 0;
		wire_close(&s->wire);
		if (r != -ECONNRESET || tries == 2 || !(unread || (call->flags & CALL_REPEAT)))
			return r;
		call->repeated |= !unread;
	}
}

int handle_call(struct sluice *s, struct call *call, json_t **ret, int *ret_fd, struct errtext *err)
{
	unsigned timeout_ms = atomic_load(&s->timeout_ms);
	struct wire_patience p = { .deadline_ns = WIRE_NEVER, .wake_fd = -1 };
	struct varlink_reply reply;
	char method[64], *text;
	int fd = -1, r;
	size_t len;

	if (!call->params)
		return errtext_set(err, ENOMEM, "out of memory");
	snprintf(method, sizeof(method), INTERFACE "%s", call->method);
	r = varlink_call_encode(method, call->params, false, false, &text, &len);
	json_decref(call->params);
	/* The name is ours; all that can lack is memory. */
	if (r < 0)
		return errtext_set(err, ENOMEM, "out of memory");
	if (call->flags & CALL_BACKGROUND) {
		p.wake_fd = s->wake_fd;
		timeout_ms = timeout_ms && timeout_ms < TIMEOUT_MS ? timeout_ms : TIMEOUT_MS;
	}
	if (timeout_ms)
		p.deadline_ns = wire_now_ns() + (uint64_t)timeout_ms * 1000000;
	r = lock_calls(s, p.deadline_ns);
	if (r == 0) {
		r = exchange(s, call, text, len, &p, &reply, &fd, err);
		pthread_mutex_unlock(&s->calls);
	} else {
		errtext_set(err, -r, "other threads' calls took too long");
	}
	free(text);
	if (r < 0)
		return r;
	if (reply.error)
		r = say_error(&reply, &call->error_id, err);
	else if (call->want_fd != (fd >= 0))
		r = errtext_set(err, EPROTO, "sluiced at %s sent %s", s->path,
				fd >= 0 ? "a descriptor that nobody asked for"
					: "no socket with its answer");
	else
		*ret = json_incref(reply.parameters);
	if (r < 0 && fd >= 0)
		close(fd);
	else if (r == 0 && call->want_fd)
		*ret_fd = fd;
	varlink_reply_done(&reply);
	return r;
}

/* ---- the handle ---- */

static int handle_new(const char *path, struct sluice **ret)
{
	struct sluice *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;

	if (!s)
		return -ENOMEM;
	s->path = strdup(path);
	if (!s->path || pthread_condattr_init(&attr) != 0) {
		free(s->path);
		free(s);
		return -ENOMEM;
	}
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->renew_cond, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&s->calls, NULL);
	pthread_mutex_init(&s->lock, NULL);
	atomic_init(&s->timeout_ms, TIMEOUT_MS);
	wire_init(&s->wire);
	LIST_INIT(&s->errors);
	s->sweep_errors_at = ERRORS_FEW;
	TAILQ_INIT(&s->leases);
	s->wake_fd = -1;
	*ret = s;
	return 0;
}

API int sluice_connect(const char *path, struct sluice **ret)
{
	struct wire_patience p = { .wake_fd = -1 };
	struct errtext err = { 0 };
	int r;

	if (!path)
		path = secure_getenv("SLUICE_SOCKET");
	if (!path || !*path)
		path = SOCKET_DEFAULT;
	*ret = NULL;
	r = handle_new(path, ret);
	if (r < 0)
		return r;
	p.deadline_ns = wire_now_ns() + TIMEOUT_MS * 1000000ULL;
	return handle_end(*ret, wire_connect(&(*ret)->wire, path, &p, &err), &err);
}

API void sluice_set_timeout(struct sluice *s, unsigned timeout_ms)
{
	atomic_store(&s->timeout_ms, timeout_ms);
}

API void sluice_close(struct sluice *s)
{
	struct sluice_lease *l;
	struct error_slot *slot;

	if (!s)
		return;
	renew_close(s);
	while ((l = TAILQ_FIRST(&s->leases))) {
		TAILQ_REMOVE(&s->leases, l, link);
		lease_unref(l);
	}
	while ((slot = LIST_FIRST(&s->errors))) {
		LIST_REMOVE(slot, link);
		free(slot);
	}
	wire_close(&s->wire);
	pthread_cond_destroy(&s->renew_cond);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->calls);
	free(s->path);
	free(s);
}
