/* SPDX-License-Identifier: BSD-2-Clause */
#include "client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "varlink.h"

struct client {
	int fd;
	struct varlink_reader in;
	char *error; /* of the last error reply */
	char *path;  /* for messages */
};

/* For sending, receiving and connecting; 0: no limit. */
static int set_timeout(int fd, unsigned ms)
{
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000 };

	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) < 0)
		return -errno;
	return 0;
}

static int say_unreachable(const char *path, int e, struct errtext *err)
{
	if (e == EAGAIN || e == EINPROGRESS)
		return errtext_set(
			err, ETIMEDOUT,
			"sluiced at %s does not take the connection: it hangs or is stopped", path);
	if (e == EACCES || e == EPERM)
		return errtext_set(
			err, EACCES,
			"may not use %s: %s; root may, and the members of the group that "
			"access.group names",
			path, strerror(e));
	return errtext_set(err, e,
			   "cannot reach sluiced at %s: %s; is it running? "
			   "(systemctl status sluiced)",
			   path, strerror(e));
}

int client_open(const char *path, unsigned timeout_ms, struct client **ret, struct errtext *err)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct client *c;
	int r;

	if (strlen(path) >= sizeof(sa.sun_path))
		return errtext_set(err, ENAMETOOLONG,
				   "the socket's path is longer than %zu bytes: %s",
				   sizeof(sa.sun_path) - 1, path);
	strcpy(sa.sun_path, path);
	c = calloc(1, sizeof(*c));
	if (!c || !(c->path = strdup(path))) {
		free(c);
		return errtext_set(err, ENOMEM, "out of memory");
	}
	varlink_reader_init(&c->in, CLIENT_REPLY_MAX);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	r = c->fd < 0 ? -errno : set_timeout(c->fd, timeout_ms);
	if (r < 0) {
		errtext_set(err, -r, "cannot make a socket: %s", strerror(-r));
	} else if (connect(c->fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		r = say_unreachable(path, errno, err);
	}
	if (r < 0) {
		client_close(c);
		return r;
	}
	*ret = c;
	return 0;
}

void client_close(struct client *c)
{
	if (!c)
		return;
	if (c->fd >= 0)
		close(c->fd);
	varlink_reader_done(&c->in);
	free(c->error);
	free(c->path);
	free(c);
}

const char *client_error(const struct client *c)
{
	return c->error ? c->error : "";
}

static int say_lost(const struct client *c, int e, struct errtext *err)
{
	if (e == EAGAIN)
		return errtext_set(err, ETIMEDOUT,
				   "sluiced at %s does not answer: it hangs or is "
				   "stopped",
				   c->path);
	if (e == EPIPE || e == ECONNRESET)
		return errtext_set(err, ECONNRESET, "sluiced at %s has hung up", c->path);
	return errtext_set(err, e, "connection to %s: %s", c->path, strerror(e));
}

static int send_call(struct client *c, const char *method, json_t *params, bool more,
		     struct errtext *err)
{
	size_t len, off = 0;
	char *text;
	int r;

	r = varlink_call_encode(method, params, more, false, &text, &len);
	if (r < 0)
		return errtext_set(err, -r, "cannot encode the call: %s", strerror(-r));
	while (off < len) {
		ssize_t n = send(c->fd, text + off, len - off, MSG_NOSIGNAL);

		if (n >= 0) {
			off += (size_t)n;
		} else if (errno == EPIPE || errno == ECONNRESET) {
			/* It may have said why before it hung up: read that. */
			break;
		} else if (errno != EINTR) {
			r = say_lost(c, errno, err);
			break;
		}
	}
	free(text);
	return r;
}

/* Wait for the next reply. */
static int receive(struct client *c, struct varlink_reply *ret, struct errtext *err)
{
	struct errtext why = { 0 };
	const char *msg;
	size_t len;
	char *buf;
	ssize_t n;
	int r;

	for (;;) {
		r = varlink_reader_next(&c->in, &msg, &len);
		if (r > 0)
			break;
		if (r == -EMSGSIZE)
			return errtext_set(err, EPROTO, "the answer of sluiced at %s is too long",
					   c->path);
		r = varlink_reader_space(&c->in, &buf, &len);
		if (r < 0)
			return errtext_set(err, -r, "cannot receive: %s", strerror(-r));
		n = recv(c->fd, buf, len, 0);
		if (n == 0)
			return say_lost(c, ECONNRESET, err);
		if (n > 0)
			varlink_reader_fill(&c->in, (size_t)n);
		else if (errno != EINTR)
			return say_lost(c, errno, err);
	}
	r = varlink_reply_decode(msg, len, ret, &why);
	if (r == -EBADMSG)
		return errtext_set(err, EPROTO, "what answers at %s is not sluiced: %s", c->path,
				   why.s);
	if (r < 0)
		return errtext_set(err, -r, "%s", why.s);
	return 0;
}

/* Errors whose parameters say it all, put into words. */
static const struct {
	const char *error;
	const char *parameter;
	const char *format;
} sayings[] = {
	{ "io.sluice.NoSuchPool", "pool", "there is no pool \"%s\"" },
	{ "io.sluice.NoSuchLease", "id", "lease %s has ended, or never was" },
	{ VARLINK_INVALID_PARAMETER, "parameter", "sluiced does not accept the value of \"%s\"" },
	{ VARLINK_METHOD_NOT_FOUND, "method",
	  "sluiced does not know %s: it is of another version" },
	{ VARLINK_INTERFACE_NOT_FOUND, "interface", "what answers is not sluiced: it lacks %s" },
	{ VARLINK_NOT_IMPLEMENTED, "method", "this sluiced cannot do %s" },
};

/* Say what an error reply means: by its text, where it has one, else its name and parameters. */
static int say_error(struct client *c, const struct varlink_reply *reply, struct errtext *err)
{
	const char *text = json_string_value(json_object_get(reply->parameters, "text"));
	char *params;

	free(c->error);
	c->error = strdup(reply->error);
	if (text)
		return errtext_set(err, EREMOTEIO, "%s", text);
	for (size_t i = 0; i < sizeof(sayings) / sizeof(sayings[0]); i++) {
		json_t *v = json_object_get(reply->parameters, sayings[i].parameter);
		const char *said = json_string_value(v);
		char number[32];

		if (json_is_integer(v)) {
			snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT,
				 json_integer_value(v));
			said = number;
		}
		if (strcmp(reply->error, sayings[i].error) == 0 && said)
			return errtext_set(err, EREMOTEIO, sayings[i].format, said);
	}
	params = json_dumps(reply->parameters, JSON_COMPACT);
	errtext_set(err, EREMOTEIO, "%s %s", reply->error, params ? params : "");
	free(params);
	return -EREMOTEIO;
}

/* Send the call; each() gets the answers. Takes params. */
static int call(struct client *c, const char *method, json_t *params, bool more, bool patient,
		int (*each)(json_t *params, void *data), void *data, struct errtext *err)
{
	struct varlink_reply reply;
	bool last = false;
	int r;

	free(c->error);
	c->error = NULL;
	r = send_call(c, method, params, more, err);
	json_decref(params);
	while (r == 0 && !last) {
		r = receive(c, &reply, err);
		if (r < 0)
			return r;
		last = !reply.continues;
		if (reply.error)
			r = say_error(c, &reply, err);
		else
			r = each(reply.parameters, data);
		varlink_reply_done(&reply);
		if (r == 0 && patient) {
			r = set_timeout(c->fd, 0);
			patient = false;
		}
	}
	return r;
}

static int keep(json_t *params, void *data)
{
	json_t **kept = data;

	json_decref(*kept);
	*kept = json_incref(params);
	return 0;
}

int client_call(struct client *c, const char *method, json_t *params, json_t **ret,
		struct errtext *err)
{
	json_t *kept = NULL;
	int r = call(c, method, params, false, false, keep, &kept, err);

	if (r < 0) {
		json_decref(kept);
		return r;
	}
	*ret = kept;
	return 0;
}

int client_call_more(struct client *c, const char *method, json_t *params, bool patient,
		     int (*each)(json_t *params, void *data), void *data, struct errtext *err)
{
	return call(c, method, params, true, patient, each, data, err);
}
