/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Before it happens: a socket and a translated flow that stand on one outer tuple. The table of sockets is a second old and a dump is no snapshot, so what looks like a risk is
 * told only when a second look, at both sides, confirms it.
 */
#include "watch_private.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"

#define FORGET_NS   (60 * NS_PER_S)
#define TELL_A_TURN 16 /* finding who has a socket takes its time */

static bool connected(const struct sockdiag_sock *s)
{
	return s->rport != 0;
}

/* A listener takes no outer tuple: what arrives for a translated flow never reaches it. What no process has sends no first packet. */
static bool wants_tuple(const struct sockdiag_sock *s)
{
	return s->inode && (s->l4 != SLUICE_TCP || s->state != TCP_LISTEN);
}

/* Of a socket that is bound only, the flow that came last: it lives longest. */
static void risk_add(struct watch_ns *ns, const struct sockdiag_sock *s,
		     const struct ct_tuple *reply, uint16_t zone)
{
	size_t i = 0;

	while (i < ns->n_risks && ns->risks[i].sock.cookie != s->cookie)
		i++;
	if (i == WATCH_RISKS_MAX)
		return;
	ns->risks[i] = (struct watch_risk){ *s, *reply, zone };
	ns->n_risks += i == ns->n_risks;
}

/*
 * The last flow with an outer port is remembered, since a dump is dear: it goes through the whole machine's table of buckets, of all namespaces, tens of milliseconds in which
 * nothing else is done. Where two share a place one is forgotten, and where the last has ended an earlier one is not known: then a dump tells.
 */
static struct watch_nat *nat_place(const struct watch_ns *ns, enum sluice_l4 l4,
				   const struct addr *a, uint16_t port)
{
	uint32_t h = port;

	for (size_t i = 0; i < sizeof(a->b); i++)
		h = h * 31 + a->b[i];
	return &ns->nats[(h + (l4 == SLUICE_UDP) * 0x8001U) % WATCH_NATS_MAX];
}

static bool nat_is(const struct watch_nat *n, const struct sockdiag_sock *s)
{
	return n->l4 == s->l4 && n->reply.dport == s->lport && !addr_cmp(&n->reply.dst, &s->local);
}

void watch_risk_flow(struct watch_ns *ns, const struct ct_entry *e)
{
	struct sockdiag_sock s;

	*nat_place(ns, e->l4, &e->reply.dst, e->reply.dport) =
		(struct watch_nat){ e->l4, e->zone, e->reply };
	if (inventory_port_used(ns->inventory, e->l4, &e->reply.dst, e->reply.dport, &e->reply.src,
				e->reply.sport, &s) &&
	    wants_tuple(&s))
		risk_add(ns, &s, &e->reply, e->zone);
}

/*
 * A socket is warned of once: of the one flow if it is connected, else of all that have its port. By cookie, as memory goes by ids where it knows them. Not after its tuple was
 * rewritten, which has been told.
 */
static bool told_already(struct watcher *w, const struct watch_ns *ns, const struct watch_risk *k)
{
	const struct sockdiag_sock *s = &k->sock;
	struct ct_entry own = { .l4 = s->l4,
				.orig = { s->local, k->reply.src, s->lport, k->reply.sport } };
	uint32_t inode = (uint32_t)ns->inode, before;

	if (connected(s))
		own.id = (uint32_t)s->cookie;
	before = collide_recent_see(w->recent, inode, &own, COLLISION_INVENTORY, w->now_ns,
				    FORGET_NS);
	if (connected(s))
		return before;
	own = (struct ct_entry){ .l4 = s->l4,
				 .orig = { .src = s->local, .sport = s->lport },
				 .id = (uint32_t)s->cookie };
	return collide_recent_see(w->recent, inode, &own, COLLISION_INVENTORY, w->now_ns,
				  FORGET_NS) ||
	       before & WATCH_SEEN_SOCKET;
}

/* Are both still there? */
static bool confirmed(struct watch_ns *ns, const struct watch_risk *k, struct ct_entry *flow)
{
	const struct sockdiag_sock *s = &k->sock;
	struct sockdiag_sock now;
	struct ct_entry other;
	struct ct_tuple own;

	if (!inventory_port_used(ns->inventory, s->l4, &s->local, s->lport, &k->reply.src,
				 k->reply.sport, &now) ||
	    now.cookie != s->cookie || !wants_tuple(&now))
		return false;
	if (ctnl_find(ns->ctnl, s->l4, k->zone, &k->reply, flow) < 0) {
		/* There are others with its port, it seems. */
		ns->look |=
			!connected(s) && collide_ports_get(ns->ports, s->l4, &s->local, s->lport);
		return false;
	}
	/* One that has an entry of its own is past it: that was made in time, or rewritten. */
	own = (struct ct_tuple){ now.local, now.remote, now.lport, now.rport };
	return !connected(&now) || ctnl_find(ns->ctnl, s->l4, k->zone, &own, &other) < 0;
}

static void risk_tell(struct watcher *w, struct watch_ns *ns, const struct watch_risk *k,
		      const struct ct_entry *flow)
{
	const struct sockdiag_sock *s = &k->sock;
	struct collision c = {
		.time_ms = clock_utc_ms(),
		.kind = COLLISION_RISK,
		.source = COLLISION_INVENTORY,
		.l4 = s->l4,
		.src = s->local,
		.dst = k->reply.src,
		.bound = s->lport,
		.wire = s->lport,
		.dport = k->reply.sport,
		.in_slice = watch_in_slice(w, &s->local, s->lport),
		.delay_us = UINT32_MAX,
	};

	snprintf(c.netns, sizeof(c.netns), "%s", ns->name);
	watch_victim(ns, s, 0, &c);
	watch_flow_is_owner(flow, &c);
	w->stats.risks++;
	w->opts.tell(w->opts.arg, &c);
}

/* A socket has appeared: does a translated flow use its port? */
static void on_fresh(void *arg, const struct sockdiag_sock *s)
{
	struct watch_ns *ns = arg;
	struct ct_tuple reply = { s->remote, s->local, s->rport, s->lport };
	const struct watch_nat *last;

	if (!wants_tuple(s) || !collide_ports_get(ns->ports, s->l4, &s->local, s->lport))
		return;
	last = nat_place(ns, s->l4, &s->local, s->lport);
	if (connected(s))
		risk_add(ns, s, &reply, 0);
	else if (nat_is(last, s))
		risk_add(ns, s, &last->reply, last->zone);
	else
		ns->look = true;
}

bool watch_risk_refresh(struct watcher *w, struct watch_ns *ns)
{
	struct collide_addrs a = watch_ports_of(w, ns);
	struct errtext err;

	/* Nothing can be said about ports before their flows are known, and the sockets shall be new then. */
	return ns->ctnl && a.n && ns->whole &&
	       inventory_refresh_begin(ns->inventory, a.v, a.n, &err) == 0;
}

void watch_risk_refreshed(struct watcher *w, struct watch_ns *ns, int run)
{
	size_t told = 0, left = 0;
	struct ct_entry flow;
	struct errtext err;

	if (inventory_refresh_end(ns->inventory, run, &err) < 0)
		return;
	for (size_t i = 0; i < ns->n_risks; i++) {
		if (told == TELL_A_TURN) {
			ns->risks[left++] = ns->risks[i];
		} else if (confirmed(ns, &ns->risks[i], &flow) &&
			   !told_already(w, ns, &ns->risks[i])) {
			risk_tell(w, ns, &ns->risks[i], &flow);
			told++;
		}
	}
	ns->n_risks = left;
	inventory_fresh(ns->inventory, on_fresh, ns);
	/* Flows that nobody tells of. */
	ns->look |= !ns->events;
}
