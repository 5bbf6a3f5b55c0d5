/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which destinations leave by an uplink, according to the routing table: the contents of map "onlink". A program in a control group of
 * "sluice exec" goes out through its lease where a destination leaves by an uplink, and is left alone elsewhere.
 *
 * The kernel's own order is followed: the table local first, then main, and there the longest prefix with the lowest metric. Other tables
 * (policy routing) are not looked at. What no prefix covers counts as leaving by an uplink, so that a doubt never leads out with the machine's own
 * address; nor does a route with several next hops, one of which is an uplink.
 */
#ifndef ONLINK_H
#define ONLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "errtext.h"
#include "netlink.h"
#include "plan.h"

/* What counts of one route. */
struct onlink_route {
	struct prefix dst;
	uint32_t metric;
	bool local;  /* of the table local */
	bool uplink; /* leaves by one */
};

/*
 * Pure. Turn what the kernel says of a route, given the interfaces that are uplinks. False, with *ret untouched: it does not count (another table; a route that
 * sends the search on, "throw").
 */
bool onlink_route(const struct netlink_route *r, const unsigned *uplinks, size_t n_uplinks,
		  struct onlink_route *ret);

/*
 * Pure. From the routes of both families (sorted in place) to what map "onlink" shall hold: sorted by plan_prefix_cmp(), pool 0, value 0 or 1, and nothing that a
 * shorter prefix says already. *ret is for free(). -ENOSPC with a text when it is more than SLUICE_MAX_PREFIXES, -ENOMEM.
 */
int onlink_build(struct onlink_route *routes, size_t n, struct plan_prefix **ret, size_t *ret_n,
		 struct errtext *err);

/*
 * The same from the namespace's tables as they are now. n_uplinks 0 is fine: then nothing leaves by one. -EAGAIN when the tables change faster than they can be
 * read; others as of netlink.h and onlink_build().
 */
int onlink_read(struct netlink *nl, const unsigned *uplinks, size_t n_uplinks,
		struct plan_prefix **ret, size_t *ret_n, struct errtext *err);

#endif
