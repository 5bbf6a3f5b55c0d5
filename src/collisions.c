/* SPDX-License-Identifier: BSD-2-Clause */
#include "collisions.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "addr.h"
#include "log.h"
#include "methods_collide.h"
#include "store_collision.h"

#define LOG_PER_S 5
#define LOG_BURST 20

void collisions_init(struct collisions *c, uint64_t now_ns)
{
	memset(c, 0, sizeof(*c));
	rate_init(&c->log_rate, LOG_PER_S, LOG_BURST, now_ns);
}

void collisions_done(struct collisions *c)
{
	free(c->v);
	memset(c, 0, sizeof(*c));
}

void collisions_add(struct collisions *c, const struct collision *one)
{
	unsigned bit = (unsigned)__builtin_ctz(one->source | 1U << 4);

	c->told[bit][one->in_slice]++;
	if (c->n == c->cap) {
		size_t cap = c->cap ? c->cap * 2 : 64;
		struct collision *v =
			c->cap < COLLISIONS_A_TURN ? realloc(c->v, cap * sizeof(*v)) : NULL;

		if (!v) {
			c->overflow++;
			return;
		}
		c->v = v;
		c->cap = cap;
	}
	c->v[c->n++] = *one;
}

/* " (pid N, uid N)", and what else is known of the victim. */
static const char *victim_text(const struct collision *c, char *buf, size_t size)
{
	if (c->pid)
		snprintf(buf, size, "%s (pid %" PRId32 ", uid %" PRIu32 ")", c->comm, c->pid,
			 c->uid);
	else
		snprintf(buf, size, "a socket of uid %" PRIu32, c->uid);
	return buf;
}

static void write_log(struct collisions *all, const struct collision *c, uint64_t now_ns)
{
	char src[ADDR_STRLEN], dst[ADDR_STRLEN], who[96], more[64] = "";

	/* The data plane's are logged with its other events. */
	if (c->source == COLLISION_DATAPLANE)
		return;
	if (!rate_take(&all->log_rate, now_ns)) {
		all->log_left_out++;
		return;
	}
	if (all->log_left_out)
		snprintf(more, sizeof(more), " (and %" PRIu64 " collisions that were not logged)",
			 all->log_left_out);
	all->log_left_out = 0;
	addr_format(&c->src, src);
	addr_format(&c->dst, dst);
	victim_text(c, who, sizeof(who));
	if (c->kind == COLLISION_RISK)
		log_warn("%s%s%s has %s port %u of %s, which a translated flow to %s:%u uses as "
			 "well: when both send to one "
			 "place, one of them is rewritten%s",
			 c->netns, *c->netns ? ": " : "", who, c->l4 == SLUICE_TCP ? "tcp" : "udp",
			 c->bound, src, dst, c->dport, more);
	else
		log_warn("%s%s%s is bound to %s port %u of %s, but conntrack sends its packets to "
			 "%s:%u from port %u%s%s%s",
			 c->netns, *c->netns ? ": " : "", who, c->l4 == SLUICE_TCP ? "tcp" : "udp",
			 c->bound, src, dst, c->dport, c->wire,
			 c->in_slice ? "" : ", which is not ours",
			 c->healed ? "; the entry was deleted and the socket aborted" : "", more);
}

void collisions_settle(struct collisions *c, uint64_t now_ns)
{
	struct errtext err;

	if (!c->n)
		return;
	if (!c->store || store_collisions_add(c->store, c->v, c->n, &err) < 0) {
		if (c->store && !c->unstored)
			log_err("collisions are told, but not kept: %s", err.s);
		c->unstored += c->n;
	}
	for (size_t i = 0; i < c->n; i++) {
		write_log(c, &c->v[i], now_ns);
		if (c->control && control_monitored(c->control))
			control_publish(c->control, methods_collision_event(&c->v[i]));
	}
	c->n = 0;
}
