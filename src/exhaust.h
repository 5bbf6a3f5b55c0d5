/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Exhaustion as an event: how full each pool and slice is, when it will be, which flows were refused and towards where. Brought up to date after each sweep; what
 * it has to say is told as it happens, and read by ListExhaustion and the metrics.
 *
 * With overloading a port serves any number of destinations, so that a pool whose ports are all in use refuses nothing yet: it is the moment from which on some
 * destination may find none. Endpoint-independent mappings, and sockets, have a port for themselves.
 */
#ifndef EXHAUST_H
#define EXHAUST_H

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"
#include "forecast.h"

#define EXHAUST_NEAR_PERCENT 90
#define EXHAUST_OVER_PERCENT 80 /* below this it is over */
#define EXHAUST_QUIET_S      60 /* refusals are told that often; so long without one, and it is over */

/* Ports of a pool or a slice for one protocol. */
struct exhaust_ports {
	uint32_t ports;  /* of slices whose deadline has not passed */
	uint32_t leased; /* of these: leased or cooling, so not for NAT */
	uint32_t used;   /* by flows and by sockets without a lease, in the last sweep */
};

enum exhaust_turn {
	EXHAUST_NONE,     /* nothing new */
	EXHAUST_NEAR,     /* came near */
	EXHAUST_REFUSING, /* refuses flows */
	EXHAUST_OVER,     /* neither any more */
	EXHAUST_TURNS,
};

/* What was told of a pool's protocol. Starts zeroed ({0}). */
struct exhaust_state {
	struct exhaust_ports now;
	struct forecast forecast;
	bool counted;        /* refused is known */
	uint64_t refused;    /* flows for which there was no port or no room, ever */
	uint64_t refused_ns; /* when the last one was noticed; 0: not since it was over */
	uint64_t told_ns;    /* when refusals were last told; 0: likewise */
	bool near;
};

/* Take up how it is at now_ns, and decide what there is to tell. Pure. */
enum exhaust_turn exhaust_judge(struct exhaust_state *s, uint64_t now_ns,
				const struct exhaust_ports *now, uint64_t refused);
/* "near", "refusing", "over"; "" for EXHAUST_NONE. */
const char *exhaust_turn_name(enum exhaust_turn t);

/* Seconds until all ports that are not leased are in use; -1: not in sight. */
double exhaust_left_s(const struct forecast *f, const struct exhaust_ports *p);

/* Destinations that ListExhaustion tells. */
#define EXHAUST_HOTTEST 32

struct exhaust;

/* NULL without memory. */
struct exhaust *exhaust_new(void);
void exhaust_free(struct exhaust *x); /* NULL is fine */

/* After a sweep: look at all pools and slices of e, and tell what is new by e->note ("exhaustion"). */
void exhaust_look(struct exhaust *x, const struct engine *e, uint64_t now_ns);

/* A pool's protocol as it was last looked at; NULL before that. row: the data plane's. */
const struct exhaust_state *exhaust_pool(const struct exhaust *x, uint32_t row, enum sluice_l4 l4);
/* The same for a slice, with the forecast in *ret. */
struct exhaust_ports exhaust_slice(const struct exhaust *x, const struct engine *e, uint32_t row,
				   enum sluice_l4 l4, struct forecast *ret);

#endif
