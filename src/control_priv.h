/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the parts of the server share: control.c (connections: who may do how much, and when),
 * control_peer.c (who they are, and how many there may be), control_fd.c (descriptors that come in), control_out.c
 * (queues and events), control_call.c (calls and answers), control_listing.c (rows).
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
	int fd;        /* goes along with the first byte; -1: none, or gone */
	bool event;    /* may be dropped to make room for a later one */
	uint64_t
		held; /* waits for control_settle(), with all that is behind it: control.seal of then; 0: does not */
};
STAILQ_HEAD(control_outs, control_out);

/*
 * Descriptors that came in. One read brings those of one sendmsg() at most, and ends within the bytes of that
 * sendmsg(): the kernel glues what was sent before in front of them, but nothing behind them. So they belong to the message that
 * the read's last byte is in. A message with more than one keeps none of them.
 */
struct control_in {
	int fd;    /* -1: there were too many */
	size_t at; /* bytes that were not handed out yet when it came: where the read ended */
};

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
	bool trusted; /* root, or in the group */
	struct varlink_reader in;
	bool in_more;             /* the last read filled all the room it had */
	struct control_in fds[2]; /* at most one message is half there, and one behind it */
	unsigned n_fds;
	struct control_outs out;
	size_t out_bytes;
	size_t out_off;                   /* bytes of the first message that were sent */
	unsigned n_held;                  /* answers in the queue that wait for control_settle() */
	TAILQ_ENTRY(control_client) hold; /* in the list of those that have some */
	unsigned out_fds;                 /* descriptors in the queue */
	unsigned fds_away; /* descriptors sent since all that was sent had been read */
	bool fds_wait;     /* no more of them before that is so again */
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
	bool dispatching;
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
	struct control_clients holds; /* who has answers that wait */
	uint64_t seal;                /* counts control_seal(), from 1 on */
	char *group;                  /* NULL: none */
	gid_t gid;                    /* its */
	unsigned n_clients;
	unsigned n_untrusted;
	unsigned n_monitors;
	struct {
		uint64_t accepted;
		uint64_t refused; /* connections over a limit */
		uint64_t calls;
		uint64_t bad_messages; /* connections closed for one */
		uint64_t timeouts;     /* connections closed for half a message */
		uint64_t events_lost;
		uint64_t fds_refused; /* messages with descriptors that were not wanted */
	} stats;
};

/* ---- control.c ---- */

/* Give the client a turn in this or one of the next dispatches. */
void control_client_enqueue(struct control_client *c);
/* After something has changed: send, wait, or end (c may be freed). again: it has more to do. */
void control_client_go_on(struct control_client *c, bool again);

/* ---- control_peer.c ---- */

/* Is the client root, the server's own user, or in the server's group? From what the kernel says of its connect(). */
bool control_peer_trusted(const struct control *s, int fd, uid_t uid, gid_t gid);
/* Is there room for one more like this? If not, why. */
bool control_peer_admit(const struct control *s, uid_t uid, bool trusted, char *why, size_t size);
/* Tell a peer why, as far as that is possible without waiting, and hang up. */
void control_peer_refuse(struct control *s, int fd, const char *why);

/* ---- control_fd.c ---- */

/* Close a descriptor that a stranger made, without waiting: it may stay open for a while. */
void control_fd_discard(int fd);
/* Are there so many of them that cannot be closed that there must not be more? */
bool control_fd_stuck(void);
/* Close a connection, with what is left in it. */
void control_fd_hang_up(int sock);
/* One recvmsg() into buf; descriptors that came are noted. Returns as recv(). */
ssize_t control_fd_receive(struct control_client *c, char *buf, size_t len);
/* A message of len bytes (with its NUL) is handed out: which descriptor is its? -1: none. The caller's. */
int control_fd_take(struct control_client *c, size_t len);
/* Close a descriptor that nobody asked for, and count it. -1 is fine. */
void control_fd_refuse(struct control_client *c, int fd);
/* Refuse all that wait for their message. */
void control_fd_drop(struct control_client *c);

/* ---- control_out.c ---- */

/* Queue text of len bytes (malloc()ed, taken; NULL is "no memory"). Without memory: give up. */
void control_client_send(struct control_client *c, char *text, size_t len);
/* The same for an answer that waits for control_settle(), with a descriptor (taken; -1: none). */
void control_client_hold(struct control_client *c, char *text, size_t len, int fd);
/* Nothing more is to be queued for now, but for what has to be. */
bool control_client_full(const struct control_client *c);
/* Is there something that only the socket keeps from being sent? */
bool control_client_sending(const struct control_client *c);
/* The client begins to monitor: first is its first event (taken). */
void control_client_monitor(struct control_client *c, json_t *first);
/* Send what the socket takes now. */
void control_client_flush(struct control_client *c);
/* It receives nothing any more. What it has sent is still carried out. */
void control_client_gone(struct control_client *c);
/* Without memory for an answer there is nothing left to say: end the connection. */
void control_client_give_up(struct control_client *c);

/* ---- control_call.c ---- */

struct control_call {
	struct control_client *client;
	struct varlink_call msg;
	int fd; /* came along; -1: none */
	bool answered;
};

/* Carry out one message: afterwards it is answered, or a listing has begun. Takes fd, -1: none. */
void control_call_run(struct control_client *c, const char *msg, size_t len, int fd);
/* A text as JSON: what is not UTF-8 is made plain ASCII. NULL without memory. */
json_t *control_text(const char *text);
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
