/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Detection: is a connection tracking entry a collision? Pure functions over what the sources saw, and the bounded memory that tells an observation from its repetition.
 *
 * A collision is an entry of a local socket whose source address was kept and whose source port was not: nobody asked for that, and the program does not know. Not
 * collisions: forwarded flows (their source is no address of ours), masquerading of unshared addresses (the source address changes), destination NAT alone, entries of helpers and what they
 * expect, other zones than the socket's default one.
 */
#ifndef COLLIDE_H
#define COLLIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ct.h"

/* The addresses that are watched, sorted by addr_cmp(), unique. */
/* v NULL: any address is. */
struct collide_addrs {
	const struct addr *v;
	size_t n;
};
bool collide_watched(const struct collide_addrs *a, const struct addr *addr);

enum collide_verdict {
	COLLIDE_NONE,
	COLLIDE_REWRITE, /* of a local socket, if there is one at orig: ask the inventory */
	COLLIDE_NAT, /* a translated flow that uses a watched address: another user of reply.dst:dport */
};
enum collide_verdict collide_judge(const struct ct_entry *e, const struct collide_addrs *watched);

/*
 * Translated flows by the outer port that they use, so that a socket which wants it can be warned: one counter a watched address, protocol and port.
 */
struct collide_ports;
int collide_ports_new(const struct collide_addrs *watched, struct collide_ports **ret);
void collide_ports_free(struct collide_ports *p);
void collide_ports_clear(struct collide_ports *p);
/* delta 1 or -1; never below 0. */
void collide_ports_add(struct collide_ports *p, enum sluice_l4 l4, const struct addr *a,
		       uint16_t port, int delta);
uint32_t collide_ports_get(const struct collide_ports *p, enum sluice_l4 l4, const struct addr *a,
			   uint16_t port);

/* The last COLLIDE_RECENT_MAX entries that were told, with which sources saw each: both sources and a resynchronising dump see one thing. */
#define COLLIDE_RECENT_MAX 65536
struct collide_recent;
int collide_recent_new(uint64_t key, struct collide_recent **ret);
void collide_recent_free(struct collide_recent *r);
/*
 * source: one bit. Returns the sources that had seen it before (0: it is new, tell it), and notes this one. An entry seen again by the same source later than
 * forget_ns after the first is another one (a tuple that is used again); with an id that is known on both sides the id decides.
 */
uint32_t collide_recent_see(struct collide_recent *r, uint32_t netns, const struct ct_entry *e,
			    uint32_t source, uint64_t now_ns, uint64_t forget_ns);

#endif
