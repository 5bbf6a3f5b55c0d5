/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The methods of io.sluice: what the engine knows, as JSON. Those about leases act on the engine's lessor; what they did is committed, and their answers leave, at the
 * end of the turn (daemon.c). Reload acts through its callback.
 */
#ifndef METHODS_H
#define METHODS_H

#include "collisions.h"
#include "control.h"
#include "engine.h"
#include "watch.h"

struct methods {
	struct engine *engine;   /* NULL with --watch-only */
	struct control *control; /* for its own counters */
	struct collisions *collisions;
	struct watcher *watcher; /* NULL: nothing is watched */
	/* Reload the configuration: 0, or -errno with err filled. */
	int (*reload)(void *arg, struct errtext *err);
	void *reload_arg;
};

/* 0 when the pool exists or none is named; 1 when the call has been answered with NoSuchPool. */
int methods_check_pool(struct control_call *call, const struct engine *e, const char *pool);
/* Seconds until a deadline, null without one, never below 0. */
json_t *methods_seconds_until(uint64_t at_ns, uint64_t now_ns);
/* RFC 3339, into ms since 1970. 0 or -EINVAL. */
int methods_time_parse(const char *s, int64_t *ret_ms);

/* For control_options; data is a struct methods that outlives the server. */
extern const struct control_method methods_table[];
extern const size_t methods_table_len;

#endif
