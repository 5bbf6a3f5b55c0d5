/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the daemon tells Prometheus: every number is one that somebody keeps anyway, counters and what the last sweep found, so that a scrape walks over no table of flows, sockets or
 * leases. No addresses, ports or processes in labels: their number is bounded by the pools.
 */
#ifndef METRICS_GATHER_H
#define METRICS_GATHER_H

#include "collisions.h"
#include "engine.h"
#include "metrics_text.h"
#include "store.h"
#include "watch.h"

struct metrics_sources {
	const struct engine
		*engine; /* NULL with --watch-only; its lessor and data plane are asked too */
	const struct store *store; /* NULL: there is none now */
	const struct collisions *collisions;
	const struct watcher *watcher; /* NULL: nothing is watched */
};

void metrics_gather(const struct metrics_sources *s, uint64_t now_ns, struct metrics_text *t);

#endif
