/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What control.c (connections: who may do how much, and when) and control_call.c (calls: what is
 * asked and answered) share. Nobody else includes it.
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

/* Queue text of len bytes (malloc()ed, taken). A client that there is no memory for is given up. */
void control_client_send(struct control_client *c, char *text, size_t len);
/* The client begins to monitor: first is its first event (taken). */
void control_client_monitor(struct control_client *c, json_t *first);

/* ---- control_call.c ---- */

/* Carry out one message: afterwards it is answered, or a listing has begun. */
void control_call_run(struct control_client *c, const char *msg, size_t len);
/* Send an error that no call asked for. */
void control_client_error(struct control_client *c, const char *error, const char *text);
/* Fetch up to *budget rows, less when the client's queue is full; counts down. */
void control_listing_run(struct control_client *c, unsigned *budget);
void control_listing_end(struct control_client *c);

#endif
