/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine: one machine's holds, carried from the configuration through the store into the data plane. It owns
 * what the daemon knows of holds, and alone calls dp_publish(); leases are its lessor's (lessor.h), which commits them itself. Everything goes one way:
 *
 *	configuration -> holds (decide) -> store (persist) -> data plane, hooks, host (act)
 *
 * A step that fails before the store has been written changes nothing. One that fails afterwards makes the engine's memory and
 * the maps differ; then -EIO is returned, and the one way on is engine_close() and engine_open(), which
 * reads everything back from the store and the maps. The data plane goes on meanwhile.
 *
 * Read the fields freely; only engine.c writes them.
 */
#ifndef ENGINE_H
#define ENGINE_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "dp.h"
#include "errtext.h"
#include "hold.h"
#include "host.h"
#include "lessor.h"
#include "plan.h"
#include "store.h"

struct exhaust;

struct engine_uplink {
	char name[IFNAMSIZ];
	unsigned ifindex; /* 0: it is not there */
	bool up;
	const char *how; /* "tcx", "clsact", "none" */
};

/* Something happened that a person may want to know: for the log and for `sluice monitor`. text is one line. */
typedef void engine_note_fn(void *arg, int priority, const char *event, const char *text);

/*
 * What the engine itself can't judge of a configuration. Asked at start and at a reload, before anything on this host is
 * changed; what it refuses is refused. 0, or -errno with err filled.
 */
typedef int engine_judge_fn(void *arg, const struct config *c, struct errtext *err);

struct engine {
	char *config_path;
	struct config *config;
	struct store *store;
	struct hold_table holds;
	uint32_t next_epoch;
	struct dp *dp;
	struct plan *plan;
	struct lessor *lessor;
	struct exhaust *exhaust;
	struct host_session *host;
	struct engine_uplink uplinks[CONFIG_UPLINKS_MAX];
	size_t n_uplinks;
	struct sluice_sweep swept; /* what the last sweep found */
	uint64_t swept_ns;         /* when; 0: never */
	uint64_t sweep_took_ns;
	uint64_t started_ns;  /* CLOCK_BOOTTIME */
	int64_t started_ms;   /* UTC */
	uint64_t hooked_ns;   /* when the uplinks were last looked after */
	uint64_t onlink_ns;   /* when the routes were last looked at for "exec"; 0: never */
	bool hooks_failing;   /* said so in the log */
	bool onlink_failing;  /* likewise */
	bool inner_failing;   /* likewise: hairpinning and zones */
	bool renewal_failing; /* likewise */
	engine_note_fn *note;
	void *note_arg;
	lessor_tell_fn *tell;
	engine_judge_fn *judge;
	void *judge_arg;
};

struct engine_opts {
	const char *config_path;
	/* What was read of it already, and the engine's from engine_open() on; NULL: engine_open() reads it. */
	struct config *config;
	bool force_clsact; /* for tests */
	engine_note_fn *note;
	void *note_arg;       /* of note and tell */
	lessor_tell_fn *tell; /* a lease changed, and that is on the disk */
	engine_judge_fn *judge;
	void *judge_arg;
};

/*
 * Start-up: read the configuration, open the store, decide the holds and store them, open or create the data plane,
 * publish, hook the uplinks, prepare the host. Returns 0 and *ret (engine_close()), or -errno with err filled; what was done
 * until then stays and is taken over by the next start.
 */
int engine_open(const struct engine_opts *opts, struct engine **ret, struct errtext *err);
/* Pins, hooks, routes and traffic stay as they are. NULL is fine. */
void engine_close(struct engine *e);

/*
 * Read the configuration anew and go over to it. Returns 0; -EINVAL and others with err filled when it was refused: then
 * the old one goes on; -EIO as above.
 */
int engine_reload(struct engine *e, struct errtext *err);

/* See which destinations leave by an uplink now, before the first process goes out through a lease. */
int engine_onlink(struct engine *e, struct errtext *err);

/*
 * What is due at now_ns: renew deadlines, sweep. *ret_next_ns: when to call again. Returns 0 or -EIO with err filled.
 */
int engine_tick(struct engine *e, uint64_t now_ns, uint64_t *ret_next_ns, struct errtext *err);

/* Readable when links have changed; then call engine_links(). */
int engine_links_fd(const struct engine *e);
/* Look at what happened to the uplinks, and hook those that came (back). Failures are noted, not returned. */
void engine_links(struct engine *e);

/*
 * Undo everything on this host: routes, settings, hooks, pins; then no slice is held any more. The store stays, and goes on
 * counting its epochs. Not while a daemon runs.
 */
int engine_teardown(const char *config_path, engine_note_fn *note, void *note_arg,
		    struct errtext *err);

#endif
