/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The endpoint that Prometheus asks: GET and HEAD of /metrics by HTTP, carried out by libmicrohttpd in the daemon's own loop. It has one descriptor for the loop, whether it
 * listens or not, and whatever the configuration says meanwhile.
 *
 * Nobody who asks can do more than keep others from asking, for as long as the limits say: connections are few, each is cut off at a fixed time after it began, and serves one request; the
 * texts are made once a second at most; and after each bit of work it rests for a few times as long, so that the rest of the daemon has most of the time.
 */
#ifndef METRICS_H
#define METRICS_H

#include <stdint.h>

#include "config.h"
#include "errtext.h"
#include "metrics_text.h"

/* The defaults are the product's; tests use others. */
struct metrics_limits {
	unsigned connections;        /* the next ones wait in the kernel's queue */
	unsigned connections_per_ip; /* the next ones are closed. Not of a Unix socket */
	unsigned connection_ms;      /* from its first to its last moment */
	unsigned fresh_ms;           /* a text is given out for so long */
	unsigned retry_ms;           /* metrics_start() failed: again after so long */
	unsigned memory;             /* bytes of a connection, its request included */
	unsigned rest;               /* times as long as the work took */
};

#define METRICS_LIMITS                                                              \
	{                                                                           \
		.connections = 16, .connections_per_ip = 8, .connection_ms = 5000,  \
		.fresh_ms = 1000, .retry_ms = 5000, .memory = 16 * 1024, .rest = 4, \
	}

struct metrics_opts {
	/* Write all families into t: while a client waits, in metrics_ready() and metrics_tick(). */
	void (*gather)(void *arg, uint64_t now_ns, struct metrics_text *t);
	/* Something that a person may want to know: see engine_note_fn. */
	void (*note)(void *arg, int priority, const char *event, const char *text);
	void *arg;
	const struct metrics_limits *limits; /* NULL: METRICS_LIMITS */
};

struct metrics;

/* 0 and *ret, which listens nowhere yet; or -errno with err filled. */
int metrics_open(const struct metrics_opts *o, struct metrics **ret, struct errtext *err);
void metrics_close(struct metrics *m); /* NULL is fine. */

/*
 * At a start: listen where the configuration says, if anywhere. What fails is noted and tried again later: traffic does not wait for it.
 */
void metrics_start(struct metrics *m, const struct config *c);

/*
 * At a reload, in two steps. metrics_prepare() opens what is new, and changes nothing of what there is; 0, or -errno with err filled. Then either metrics_commit(), which
 * cannot fail, or metrics_cancel().
 */
int metrics_prepare(struct metrics *m, const struct config *c, struct errtext *err);
void metrics_commit(struct metrics *m);
void metrics_cancel(struct metrics *m);

int metrics_fd(const struct metrics *m); /* readable: call metrics_ready() */
void metrics_ready(struct metrics *m, uint64_t now_ns);
/* What is due at now_ns (CLOCK_BOOTTIME). *ret_next_ns: when to call again, SLUICE_NEVER: not before metrics_ready(). */
void metrics_tick(struct metrics *m, uint64_t now_ns, uint64_t *ret_next_ns);

#endif
