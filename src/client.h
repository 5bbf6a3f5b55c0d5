/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A client of the control socket: blocking, with a time limit, one call at a time. Answers are read
 * as they come and handed on one by one, so a listing is never held.
 */
#ifndef CLIENT_H
#define CLIENT_H

#include <jansson.h>
#include <stdbool.h>

#include "errtext.h"

#define CLIENT_SOCKET_DEFAULT "/run/sluice/control.sock"
#define CLIENT_REPLY_MAX      (1024 * 1024) /* bytes of a reply that we read */

struct client;

/*
 * Connect. timeout_ms: how long to wait for the daemon to take the connection, a call, or to send
 * the next piece of an answer; 0: for ever. 0; -ETIMEDOUT; -EACCES; -ENOENT, -ECONNREFUSED and
 * others when nobody is there. err says what to do about it.
 */
int client_open(const char *path, unsigned timeout_ms, struct client **ret, struct errtext *err);
void client_close(struct client *c);

/*
 * Call a method ("io.sluice.GetStatus") that has one answer. Takes the reference of params (NULL:
 * none). 0: *ret is the answer's parameters, a new reference. -EREMOTEIO: the answer is an error,
 * whose name client_error() tells and err explains. -ETIMEDOUT, -ECONNRESET (it hung up), -EPROTO
 * (what it sent is no answer), -ENOMEM, or what the system said. After a failure other than
 * -EREMOTEIO the connection is of no more use.
 */
int client_call(struct client *c, const char *method, json_t *params, json_t **ret,
		struct errtext *err);

/*
 * The same with `more`: each() gets every answer's parameters (not its own reference) and returns
 * 0, or a negative value to stop, which is then returned. patient: once the first answer is there,
 * wait for further ones without a time limit.
 */
int client_call_more(struct client *c, const char *method, json_t *params, bool patient,
		     int (*each)(json_t *params, void *data), void *data, struct errtext *err);

/* The name of the last error reply; "" when there was none. The client's, until its next call. */
const char *client_error(const struct client *c);

#endif
