/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the parts of the server share: control.c (connections: who may do how much, and when),
 * control_out.c (queues and events), control_call.c (calls and answers), control_listing.c (rows).
 * Nobody else includes it.
 */
#ifndef CONTROL_PRIV_H
#define CONTROL_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "control.h"
#include "control_socket.h"
#include "varlink.h"

#define CONTROL_FAILED      "io.sluice.Failed"
#define CONTROL_BAD_MESSAGE "io.sluice.BadMessage"
#define CONTROL_DENIED      "io.sluice.Denied"
#define CONTROL_QUOTA       "io.sluice.QuotaExceeded"

/* An encoded message. An event is shared by the queues of all clients that monitor. */
struct control_msg {
	unsigned refs;
	size_t len;
	char *text;
};

struct control_out {
	STAILQ_ENTRY(control_out) link;
	struct control_msg *msg;
	uint64_t lost; /* this is a notice that so many events were lost; 0: an ordinary message */
};
STAILQ_HEAD(control_outs, control_out);

/* The listing that a client is being sent. */
struct control_listing {
	const struct control_rows *rows; /* NULL: none */
	void *state;
	bool single; /* without `more` */
	char *text;  /* the reply in the making */
	size_t len, cap;
};

struct control_client {
	TAILQ_ENTRY(control_client) link;
	TAILQ_ENTRY(control_client) turn; /* in the queue of those that have something to do */
	bool queued;
	struct control *server;
	int fd;
	struct ucred cred;
	struct varlink_reader in;
	struct control_outs out;
	size_t out_bytes;
	size_t out_off; /* bytes of the first message that were sent */
	uint32_t events;
	uint64_t half_since_ms; /* when the message that is incomplete began; 0: there is none */
	bool eof;               /* it sends no more */
	bool gone;              /* it receives no more */
	bool closing;           /* ends when the queue is empty */
	bool monitor;
	uint64_t lost; /* events dropped since the last notice */
	struct control_listing listing;
};
TAILQ_HEAD(control_clients, control_client);

struct control {
	int epoll_fd;
	int timer_fd;
	uint64_t armed_ms; /* when the timer fires; 0: never; 1: at once; UINT64_MAX: not known */
	struct control_socket socket;
	uint64_t deaf_until_ms; /* out of descriptors: no connection is accepted before; 0: fine */
	struct control_limits limits;
	const char *interface;
	const char *description;
	const struct control_method *methods;
	size_t n_methods;
	void *data;
	struct control_clients clients;
	struct control_clients turns;
	unsigned n_clients;
	unsigned n_monitors;
	struct {
		uint64_t accepted;
		uint64_t refused; /* connections over a limit */
		uint64_t calls;
		uint64_t bad_messages; /* connections closed for one */
		uint64_t timeouts;     /* connections closed for half a message */
		uint64_t events_lost;
		uint64_t fds_refused; /* receipts with descriptors */
	} stats;
};

/* ---- control.c ---- */

/* Give the client a turn in this or one of the next dispatches. */
void control_client_enqueue(struct control_client *c);

/* ---- control_out.c ---- */

/* Queue text of len bytes (malloc()ed, taken; NULL is "no memory"). Without memory: give up. */
void control_client_send(struct control_client *c, char *text, size_t len);
/* The client begins to monitor: first is its first event (taken). */
void control_client_monitor(struct control_client *c, json_t *first);
/* Send what the socket takes now. */
void control_client_flush(struct control_client *c);
/* It receives nothing any more. What it has sent is still carried out. */
void control_client_gone(struct control_client *c);
/* Without memory for an answer there is nothing left to say: end the connection. */
void control_client_give_up(struct control_client *c);

/* ---- control_call.c ---- */

/* Carry out one message: afterwards it is answered, or a listing has begun. */
void control_call_run(struct control_client *c, const char *msg, size_t len);
/* Send an answer; params stay the caller's, NULL is "no memory". */
void control_client_reply(struct control_client *c, const char *error, json_t *params);
/* Send an error with a text, of which only what is UTF-8 arrives. */
void control_client_error(struct control_client *c, const char *error, const char *text);
/* Send io.sluice.Failed without needing JSON: text is a plain constant. */
void control_client_fail(struct control_client *c, const char *text);

/* ---- control_listing.c ---- */

/* Fetch up to *budget rows, less when the client's queue is full; counts down. */
void control_listing_run(struct control_client *c, unsigned *budget);
void control_listing_end(struct control_client *c);

#endif
