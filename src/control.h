/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control socket's server: Varlink on a Unix stream socket, for a daemon with one thread and
 * one epoll loop.
 *
 * The server has one file descriptor for the daemon's loop (an epoll instance with the listening
 * socket, the clients and a timer inside). When it is readable, call control_dispatch(), which does
 * a bounded amount of work and returns; what is left to do keeps the descriptor readable. Nothing
 * else is needed: no time-outs and no list of descriptors.
 *
 *	static int get_status(struct control_call *call, void *data)
 *	{
 *		struct daemon *d = data;
 *
 *		return control_reply(call, json_pack("{s:s, s:i}", "machine", d->machine,
 *						     "slices_held", d->held));
 *	}
 *
 *	static int reload(struct control_call *call, void *data)
 *	{
 *		struct errtext err = { 0 };
 *
 *		if (daemon_reload(data, &err) < 0)
 *			return control_fail(call, "io.sluice.BadConfig", "%s", err.s);
 *		return control_reply(call, json_object());
 *	}
 *
 *	static int flows_next(void *state, json_t **ret)	// a row, the end, or not yet
 *	{
 *		struct walk *w = state;
 *		unsigned looked_at = 0;
 *
 *		while (walk_step(w)) {
 *			if (walk_matches(w)) {
 *				*ret = json_pack("{s:s, ...}", ...);
 *				return *ret ? 1 : -ENOMEM;
 *			}
 *			if (++looked_at == 256)
 *				return -EAGAIN;		// let the loop do something else
 *		}
 *		return 0;
 *	}
 *	static const struct control_rows flow_rows = { "flows", flows_next, walk_free };
 *
 *	static int list_flows(struct control_call *call, void *data)
 *	{
 *		const char *pool = NULL;
 *		int64_t port = 0;
 *
 *		if (control_param_str(call, "pool", &pool) < 0 ||
 *		    control_param_int(call, "port", 1, 65535, &port) < 0)
 *			return 0;			// has been answered
 *		if (pool && !known(data, pool))
 *			return control_error(call, "io.sluice.NoSuchPool",
 *					     json_pack("{s:s}", "pool", pool));
 *		return control_stream(call, &flow_rows, walk_new(data, pool, port));
 *	}
 *
 *	static const struct control_method methods[] = {
 *		{ "GetStatus", get_status },
 *		{ "ListFlows", list_flows, "pool proto client port" },
 *		{ "Monitor", control_monitor },
 *		{ "Reload", reload, NULL, CONTROL_ROOT },
 *	};
 *
 * A method answers exactly once, before it returns. Only rows have a state that outlives the
 * method; it is freed at the end of the listing, on any error, and when the client goes. A listing
 * spans many turns of the daemon's loop, so its state must bear that what it walks over changes
 * meanwhile.
 *
 * Listings. A method that lists gives rows; the server packs them into replies {"flows":[...]} of
 * some 32 KiB, asks for rows only while the client keeps up, and so never holds a listing in
 * memory. Called with `more` it sends as many replies as it takes (the last one may have no rows).
 * Without `more` it sends one, if the whole listing fits into CONTROL_SINGLE_MAX, else the error
 * org.varlink.service.ExpectedMore: a listing is never cut off in silence. Varlink leaves both to
 * the server; a script with a small listing is spared the loop, and nothing is lost by it.
 *
 * Order. The calls of a connection are answered in the order they came, one after the other. A
 * oneway call is carried out and gets no answer, not even an error.
 *
 * What a hostile client can do is bounded by struct control_limits. A message that is no Varlink
 * call is answered by io.sluice.BadMessage, and its connection closed.
 *
 * Descriptors. A client may send one along with a call to a method with CONTROL_FD, which asks for it
 * by control_call_fd(); it is open during the call. A descriptor belongs to the message that the last
 * byte of the read that brought it is in, since the kernel glues what was sent before in front of it, but
 * nothing behind it: so a client sends a call that a descriptor goes with by a sendmsg() of its own, and
 * may pipeline any other calls before and after. What comes to other methods, and more than one with a
 * message, every one of them, is closed and counted. The other way, an answer of control_reply_held()
 * takes a descriptor along; it is sent by a sendmsg() of its own, so the same rule tells a client which answer
 * that is, however it reads. A client that does not read what it was sent gets no more of them.
 *
 * Answers that must not leave before something is on the disk: control_reply_held(). One dispatch carries
 * out the calls of all clients, and many of one that pipelines; then the daemon writes down what they did,
 * at once, and settles:
 *
 *	r = control_dispatch(d->control);
 *	if (control_holding(d->control)) {
 *		ok = commit(d, &err) == 0;
 *		control_settle(d->control, ok, err.s);
 *	}
 *
 * Or it goes on with the next dispatch meanwhile: control_seal() when the writing begins, and control_settle_sealed() when it has gone
 * well, let those answers leave that were there at the beginning.
 *
 * Rights. Everybody who gets through to the socket may call methods with CONTROL_ANY and those of
 * org.varlink.service; root and the group of the options may call all but CONTROL_ROOT, Monitor among them. What a
 * client is, is decided when it connects, and anew when the group changes.
 */
#ifndef CONTROL_H
#define CONTROL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "errtext.h"

struct control;      /* the server */
struct control_call; /* a call that is being answered */

/* Limits. The defaults are the product's; tests use others. */
struct control_limits {
	size_t message_max;        /* bytes of a call */
	size_t reply_max;          /* bytes of a reply; what is longer becomes an error */
	size_t queue_max;          /* bytes of events that wait for a monitoring client */
	size_t queue_low;          /* with more than this waiting, a client gets nothing new */
	unsigned fds;              /* descriptors that wait likewise, or were sent and not read */
	unsigned clients;          /* connections */
	unsigned clients_root;     /* connections on top of these, for uid 0 only */
	unsigned clients_uid;      /* connections of one uid; does not apply to uid 0 */
	unsigned clients_others;   /* of `clients`, those of neither root nor the group */
	unsigned half_message_ms;  /* time from the first byte of a call to its last */
	unsigned calls_a_turn;     /* calls of one client before another one's turn */
	unsigned rows_a_turn;      /* rows likewise */
	unsigned turns_a_dispatch; /* turns before the daemon's loop goes on */
	unsigned dispatch_ms;      /* likewise: no turn begins after so long */
};

#define CONTROL_LIMITS                                                                             \
	{                                                                                          \
		.message_max = 64 * 1024, .reply_max = 512 * 1024, .queue_max = 256 * 1024,        \
		.queue_low = 64 * 1024, .fds = 16, .clients = 64, .clients_root = 8,               \
		.clients_uid = 16, .clients_others = 32, .half_message_ms = 10000,                 \
		.calls_a_turn = 32, .rows_a_turn = 128, .turns_a_dispatch = 128, .dispatch_ms = 5, \
	}

#define CONTROL_BATCH_BYTES (32 * 1024) /* rows are sent when this much has come together */
#define CONTROL_SINGLE_MAX  (64 * 1024) /* bytes of a listing that was called without `more` */

enum control_flags {
	CONTROL_ROOT = 0x01, /* only for uid 0; others get io.sluice.Denied */
	CONTROL_ANY = 0x02,  /* for everybody who can connect, not only root and the group */
	CONTROL_FD = 0x04,   /* a descriptor may come along: control_call_fd() */
};

struct control_method {
	const char *name; /* without the interface */
	/*
	 * Answers the call and returns 0. A negative errno answers io.sluice.Failed with its text,
	 * if nothing was answered yet. NULL: the call gets MethodNotImplemented.
	 */
	int (*fn)(struct control_call *call, void *data);
	const char *params; /* names, separated by spaces; others get InvalidParameter */
	unsigned flags;
};

struct control_options {
	const char *path;      /* of the socket; NULL: no listening socket, see control_adopt() */
	const char *group;     /* who may call all but CONTROL_ROOT, besides root; NULL: nobody */
	bool open;             /* everybody may connect, for CONTROL_ANY methods */
	const char *interface; /* "io.sluice" */
	const char *description;
	const struct control_method *methods;
	size_t n_methods;
	void *data;                          /* for the methods */
	const struct control_limits *limits; /* NULL: CONTROL_LIMITS */
};

/* The text of src/io.sluice.varlink, for control_options.description. */
extern const char control_io_sluice[];

/*
 * Start. The socket's mode is 0666 when it is open, else 0660 with a group, else 0600. Its directory is made (0755) if it is
 * missing. A socket file that nobody listens on is replaced. 0; -EADDRINUSE when somebody listens;
 * -EINVAL for an unknown group; -ENAMETOOLONG; -EEXIST when something other than a socket is in the
 * way; or what the system said. err has it in words. The strings and methods of the options must
 * outlive the server, except path, group and limits, which are copied.
 */
int control_open(const struct control_options *options, struct control **ret, struct errtext *err);
/*
 * Would control_open() with this path and group go well, as far as can be told without making anything? path NULL: only
 * the group is looked at. Errors as above.
 */
int control_check(const char *path, const char *group, struct errtext *err);
/* Disconnects everybody; removes the socket file if it is still ours. NULL is fine. */
void control_close(struct control *c);

/* For the daemon's loop: wait for EPOLLIN, then control_dispatch(). */
int control_fd(const struct control *c);
/* Do what is due, never wait. 0, or -errno when the server itself is broken, never for a client. */
int control_dispatch(struct control *c);

/*
 * After a reload: change the group (NULL: none). Clients that were in the old one and are not in the new one lose their
 * rights, and their connection if they monitor. On failure nothing is changed.
 */
int control_set_group(struct control *c, const char *group, struct errtext *err);

/*
 * Take a connected stream socket as a client. Takes ownership of fd in any case. 0; -EMFILE when a
 * limit refused it (the peer was told); -errno.
 */
int control_adopt(struct control *c, int fd);

/* {"clients": 1, "monitors": 0, ...} for GetStatus. A new reference, NULL without memory. */
json_t *control_stats(const struct control *c);

/*
 * Send an event to every monitoring client: an object with "event"; "time" is added if it is not
 * there. Takes the reference; NULL is ignored. A client that is slow loses the oldest events of its
 * queue and is told how many in their place: {"event": "lost", "count": N}.
 */
void control_publish(struct control *c, json_t *event);
/* Does anybody monitor? So that events which nobody wants need not be made. */
bool control_monitored(const struct control *c);

/* ---- for methods ---- */

/* Who called, as of connect() (SO_PEERCRED). */
uid_t control_call_uid(const struct control_call *call);
gid_t control_call_gid(const struct control_call *call);
pid_t control_call_pid(const struct control_call *call);
bool control_call_more(const struct control_call *call);
/* The parameters, an object; the call's. */
json_t *control_call_params(const struct control_call *call);

/*
 * One parameter. Absent or null: 0, and *ret is untouched, so set the default first. Of the wrong
 * type or out of range: answers InvalidParameter and returns -EINVAL; the method then returns 0.
 * Strings are the call's.
 */
int control_param_str(struct control_call *call, const char *name, const char **ret);
int control_param_int(struct control_call *call, const char *name, int64_t min, int64_t max,
		      int64_t *ret);
int control_param_bool(struct control_call *call, const char *name, bool *ret);
/* Answer InvalidParameter for a value that the method itself finds wrong. Returns 0. */
int control_invalid(struct control_call *call, const char *name);

/*
 * Is the caller root, or in the group of the options (its primary or a supplementary one at connect(),
 * SO_PEERGROUPS), or the user that the server runs as?
 */
bool control_call_trusted(const struct control_call *call);
/*
 * The descriptor that the client sent along with this call (method with CONTROL_FD), -1: none, or more than one. The call's:
 * dup() it to keep it. It may be anything; its owner may still have it too.
 */
int control_call_fd(const struct control_call *call);
/*
 * A pidfd of the process that connected (SO_PEERPIDFD, kernel 6.5 on), the method's to close. When
 * that process has ended: a descriptor that says so (it is readable), or -ESRCH. -errno. An older
 * kernel tells only its pid, which may be another process's by now.
 */
int control_call_pidfd(const struct control_call *call);

/*
 * Queue an answer that does not leave, nor what comes after it for that client, until control_settle(). params as in
 * control_reply(). fd: a descriptor that goes along, with the answer's first byte; taken in any case, -1: none. Of a oneway
 * call, and of a client that has gone, answer and descriptor are dropped. Any number of answers may wait, as far
 * as a client's queue goes. What still waits at control_close() never leaves.
 */
int control_reply_held(struct control_call *call, json_t *params, int fd);
/*
 * All answers that wait leave, at once (ok); or io.sluice.Failed with text takes the place of each, and their descriptors are
 * closed. Clients go on with what they sent meanwhile in the next dispatch.
 */
void control_settle(struct control *c, bool ok, const char *text);
/*
 * Seal the answers that wait now, and all before: control_settle_sealed() with what this returns lets them leave, and not those that were queued
 * since.
 */
uint64_t control_seal(struct control *c);
void control_settle_sealed(struct control *c, uint64_t seal);
/* Is there an answer that waits? */
bool control_holding(const struct control *c);

/*
 * Answers. All return 0, so that a method can end with one. The reference is taken; NULL means that
 * making it failed for want of memory, and is answered so. For an empty answer use json_object().
 */
int control_reply(struct control_call *call, json_t *params);
int control_error(struct control_call *call, const char *error, json_t *params);
/* An error with {"text": ...}, a sentence that a person can act on. */
int control_fail(struct control_call *call, const char *error, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

struct control_rows {
	const char *key; /* of the array in the replies */
	/*
	 * 1 and a new reference in *ret: a row. 0: the end. -EAGAIN: none found yet, ask again;
	 * return so after a few hundred entries looked at in vain. Other -errno: the listing ends
	 * with io.sluice.Failed.
	 */
	int (*next)(void *state, json_t **ret);
	void (*free)(void *state);
};

/* Answer with rows. rows->free gets state in any case; a NULL state is "no memory". Returns 0. */
int control_stream(struct control_call *call, const struct control_rows *rows, void *state);

/*
 * The method Monitor, ready for the table: the client gets an event "subscribed" at once and then
 * all that is published. Needs `more`.
 */
int control_monitor(struct control_call *call, void *data);

/* "2025-03-01T12:00:00.000Z" as a new JSON string; clock_utc_ms() gives such a number. NULL without memory. */
json_t *control_time(int64_t utc_ms);

#endif
