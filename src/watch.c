/* SPDX-License-Identifier: BSD-2-Clause */
/* The watcher: from what the sources saw to what is told. */
#include "watch_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <syslog.h>
#include <unistd.h>

#include "clock.h"
#include "config.h"

#define SOURCES (COLLISION_CTNETLINK | COLLISION_NETFILTER | COLLISION_DUMP)

#define FORGET_NS       (5 * NS_PER_S) /* a tuple that is rewritten again after this is told again */
#define RESERVE_S       30             /* a healed socket's tuple is kept for its next try */
#define TOLD_BEFORE_MAX (COLLIDE_RECENT_MAX / 2) /* are looked at; the rest is for what comes */

void watch_say(const struct watcher *w, int priority, const char *fmt, ...)
{
	char text[ERRTEXT_LEN];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	w->opts.note(w->opts.arg, priority, "watch", text);
}

static const struct addr no_addr;

struct collide_addrs watch_addrs_of(const struct watcher *w)
{
	if (w->opts.any_local)
		return (struct collide_addrs){ NULL, 0 };
	/* NULL would be "any". */
	return (struct collide_addrs){ w->addrs ? w->addrs : &no_addr, w->n_addrs };
}

struct collide_addrs watch_ports_of(const struct watcher *w, const struct watch_ns *ns)
{
	if (w->opts.any_local)
		return (struct collide_addrs){ ns->locals, ns->n_locals };
	return (struct collide_addrs){ w->addrs, w->n_addrs };
}

bool watch_in_slice(const struct watcher *w, const struct addr *a, uint16_t port)
{
	for (size_t i = 0; i < w->n_slices; i++)
		if (range_contains(&w->slices[i], a, port))
			return true;
	return false;
}

/* ---- what is told ---- */

void watch_victim(struct watch_ns *ns, const struct sockdiag_sock *s, int32_t hint,
		  struct collision *c)
{
	struct inventory_sock who;

	inventory_owner(ns->inventory, s, hint, &who);
	c->pid = who.pid;
	c->uid = s->uid;
	c->inode = s->inode;
	c->cookie = s->cookie;
	snprintf(c->comm, sizeof(c->comm), "%s", who.comm);
	snprintf(c->cgroup, sizeof(c->cgroup), "%s", who.cgroup);
}

void watch_flow_is_owner(const struct ct_entry *e, struct collision *c)
{
	bool moved = addr_cmp(&e->orig.src, &e->reply.dst) || e->orig.sport != e->reply.dport;

	snprintf(c->owner.kind, sizeof(c->owner.kind), "%s", moved ? "flow" : "socket");
	c->owner.src = e->orig.src;
	c->owner.sport = e->orig.sport;
	c->owner.dst = e->orig.dst;
	c->owner.dport = e->orig.dport;
}

/* Who has the tuple that the socket wanted? */
static bool owner_find(struct watch_ns *ns, const struct ct_entry *e, struct collision *c)
{
	struct ct_tuple reply = { .src = e->reply.src,
				  .dst = e->orig.src,
				  .sport = e->reply.sport,
				  .dport = e->orig.sport };
	struct ct_entry other;

	if (!ns->ctnl || ctnl_find(ns->ctnl, e->l4, e->zone, &reply, &other) < 0)
		return false;
	watch_flow_is_owner(&other, c);
	return true;
}

/*
 * The program is told at once, and what it does next starts afresh: without the wrong entry, and, where the flow it ran into has ended, with an entry of its own that NAT
 * cannot take from it. While that flow goes on, no other port than the rewritten one is free for this one; the program has to choose another.
 *
 * The socket goes first: the RST of a connection that is open passes through the entry that its peer knows, and no packet of it makes another entry afterwards.
 */
static void heal(struct watcher *w, struct watch_ns *ns, const struct ct_entry *e,
		 const struct sockdiag_sock *s, struct collision *c)
{
	const char *what = "aborting the socket";
	int r = ns->ctnl ? inventory_destroy(ns->inventory, s) : -EOPNOTSUPP;

	/* Whoever had it has closed it meanwhile: nobody is left to be helped. */
	if (r == -ENOENT)
		return;
	if (!r) {
		what = "deleting conntrack's entry";
		r = ctnl_delete(ns->ctnl, e);
	}
	if (r < 0 && r != -ENOENT) {
		w->stats.heal_failed++;
		watch_say(w, LOG_WARNING, "could not heal a collision: %s: %s", what, strerror(-r));
		return;
	}
	c->healed = true;
	w->stats.healed++;
	if (!*c->owner.kind)
		ctnl_reserve(ns->ctnl, e->l4, &e->orig, RESERVE_S);
}

/* The entry of this socket's own tuple, as recent memory keeps it: whoever rewrites it, into what. */
static struct ct_entry own_tuple(const struct ct_entry *e)
{
	return (struct ct_entry){ .l4 = e->l4, .orig = e->orig };
}

static void tell_rewrite(struct watcher *w, struct watch_ns *ns, const struct ct_entry *e,
			 uint32_t source, const struct sockdiag_sock *s, int32_t hint,
			 uint32_t delay_us)
{
	struct ct_entry own = own_tuple(e);
	struct collision c = {
		.time_ms = clock_utc_ms(),
		.kind = COLLISION_REWRITE,
		.source = source,
		.l4 = e->l4,
		.src = e->orig.src,
		.dst = e->orig.dst,
		.bound = e->orig.sport,
		.wire = e->reply.dport,
		.dport = e->orig.dport,
		.in_slice = watch_in_slice(w, &e->reply.dst, e->reply.dport),
		.delay_us = delay_us,
	};

	snprintf(c.netns, sizeof(c.netns), "%s", ns->name);
	watch_victim(ns, s, hint, &c);
	owner_find(ns, e, &c);
	collide_recent_see(w->recent, (uint32_t)ns->inode, &own, WATCH_SEEN_SOCKET, w->now_ns,
			   FORGET_NS);
	w->stats.told[c.in_slice]++;
	/* Where the wire port is ours too, the answers come here, and the connection works. */
	if (w->opts.heal && s->inode && !c.in_slice)
		heal(w, ns, e, s, &c);
	w->opts.tell(w->opts.arg, &c);
}

/* ---- what was observed ---- */

static struct addr addr_of(const union sluice_addr *a)
{
	struct addr r;

	memcpy(r.b, a->b, sizeof(r.b));
	return r;
}

void watch_rewrite(struct watcher *w, const struct sluice_rewrite *r)
{
	struct ct_entry e = {
		.l4 = r->l4,
		.orig = { addr_of(&r->src), addr_of(&r->dst), ntohs(r->sport), ntohs(r->dport) },
		.reply = { addr_of(&r->reply_src), addr_of(&r->reply_dst), ntohs(r->reply_sport),
			   ntohs(r->reply_dport) },
		.status = r->status,
		.zone = r->zone,
		.helper = r->helper,
	};
	struct sockdiag_sock s = {
		.l4 = r->l4,
		.local = e.orig.src,
		.remote = e.orig.dst,
		.lport = e.orig.sport,
		.rport = e.orig.dport,
		.uid = r->uid,
		.inode = r->inode,
		.cookie = r->cookie,
		.cgroup = r->cgroup,
	};
	struct collide_addrs watched;
	struct watch_ns *ns = NULL;
	struct sockdiag_sock known;
	uint64_t now_ns;

	for (size_t i = 0; i < w->n_ns && !ns; i++)
		if (w->ns[i].inode == r->netns && w->ns[i].inventory)
			ns = &w->ns[i];
	if (!ns)
		return;
	watched = watch_addrs_of(w);
	if (collide_judge(&e, &watched) != COLLIDE_REWRITE)
		return;
	w->stats.observed[1]++;
	if (collide_recent_see(w->recent, (uint32_t)ns->inode, &e, COLLISION_NETFILTER, w->now_ns,
			       FORGET_NS) &
	    SOURCES)
		return;
	/* Aborting takes the cookie, which nobody may have asked the kernel for yet, and the device that it is bound to. */
	if ((!s.cookie || w->opts.heal) && !inventory_find(ns->inventory, e.l4, &e.orig, &known) &&
	    known.inode == s.inode) {
		s.cookie = known.cookie;
		s.remote = known.remote;
		s.rport = known.rport;
		s.local = known.local;
		s.ifindex = known.ifindex;
	}
	now_ns = clock_boot_ns();
	tell_rewrite(w, ns, &e, COLLISION_NETFILTER, &s, (int32_t)r->pid,
		     now_ns > r->time_ns ? (uint32_t)((now_ns - r->time_ns) / 1000) : 0);
}

static void on_rewritten_entry(struct watcher *w, struct watch_ns *ns, enum ct_verb verb,
			       const struct ct_entry *e)
{
	uint32_t source = verb == CT_NEW ? COLLISION_CTNETLINK : COLLISION_DUMP, before;
	uint32_t inode = (uint32_t)ns->inode;
	struct sockdiag_sock s;

	if (verb == CT_GONE)
		return;
	if (verb == CT_NEW)
		w->stats.observed[0]++;
	before = collide_recent_see(w->recent, inode, e, verb == CT_NEW ? source : WATCH_SEEN_FOUND,
				    w->now_ns, FORGET_NS);
	/* An event is news, whatever was told before the start, and whatever a dump has found and not told. */
	if (verb == CT_NEW ? before & SOURCES : before)
		return;
	if (inventory_find(ns->inventory, e->l4, &e->orig, &s) < 0) {
		w->stats.no_socket += verb == CT_NEW;
		return;
	}
	/* An old entry, and nobody has the socket any more: telling helps nobody. */
	if (verb == CT_FOUND && !s.inode)
		return;
	if (verb == CT_FOUND)
		collide_recent_see(w->recent, inode, e, source, w->now_ns, FORGET_NS);
	tell_rewrite(w, ns, e, source, &s, 0, UINT32_MAX);
}

void watch_entry(struct watcher *w, struct watch_ns *ns, enum ct_verb verb,
		 const struct ct_entry *e)
{
	struct collide_addrs watched = watch_addrs_of(w);

	switch (collide_judge(e, &watched)) {
	case COLLIDE_REWRITE:
		on_rewritten_entry(w, ns, verb, e);
		break;
	case COLLIDE_NAT:
		/*
		 * The dump that is running counts what it finds; an entry that has come since it began may be behind it. One too many makes a look at what is no risk, one
		 * too few would miss one.
		 */
		if (ns->next && verb != CT_GONE)
			collide_ports_add(ns->next, e->l4, &e->reply.dst, e->reply.dport, 1);
		if (verb != CT_FOUND)
			collide_ports_add(ns->ports, e->l4, &e->reply.dst, e->reply.dport,
					  verb == CT_NEW ? 1 : -1);
		if (verb != CT_GONE)
			watch_risk_flow(ns, e);
		break;
	case COLLIDE_NONE:
		break;
	}
}

/* ---- open, close, settings ---- */

struct watch_opts watch_opts_of(const struct config *c)
{
	return (struct watch_opts){ .netns = c->watch.netns,
				    .n_netns = c->watch.n_netns,
				    .buffer = c->watch.buffer,
				    .sources = c->watch.sources,
				    .heal = c->watch.heal };
}

int watch_open(const struct watch_opts *o, struct watcher **ret, struct errtext *err)
{
	struct watcher *w = calloc(1, sizeof(*w));
	uint64_t key = 0;
	int r;

	if (!w)
		return errtext_set(err, ENOMEM, "out of memory");
	w->opts = *o;
	w->lister.fd = -1;
	w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (w->epoll_fd < 0) {
		r = errtext_set(err, errno, "epoll_create1: %m");
		goto fail;
	}
	if (getrandom(&key, sizeof(key), 0) != sizeof(key)) {
		r = errtext_set(err, errno, "getrandom: %m");
		goto fail;
	}
	r = collide_recent_new(key, &w->recent);
	if (r < 0) {
		errtext_set(err, -r, "out of memory");
		goto fail;
	}
	r = worker_open(&w->lister, err);
	if (!r)
		r = watch_ns_open(w, err);
	w->opts.netns = NULL; /* the caller's */
	if (r < 0)
		goto fail;
	*ret = w;
	return 0;
fail:
	watch_close(w);
	return r;
}

void watch_close(struct watcher *w)
{
	if (!w)
		return;
	watch_ns_close(w);
	worker_close(&w->lister);
	collide_recent_free(w->recent);
	free(w->addrs);
	free(w->slices);
	if (w->epoll_fd >= 0)
		close(w->epoll_fd);
	free(w);
}

int watch_addrs(struct watcher *w, const struct addr *addrs, size_t n, const struct range *slices,
		size_t n_slices)
{
	bool same = n == w->n_addrs && (!n || !memcmp(addrs, w->addrs, n * sizeof(*addrs)));
	struct range *s = calloc(n_slices ? n_slices : 1, sizeof(*s));
	struct addr *a = calloc(n ? n : 1, sizeof(*a));
	int r = 0;

	if (!s || !a) {
		free(s);
		free(a);
		return -ENOMEM;
	}
	if (n)
		memcpy(a, addrs, n * sizeof(*a));
	if (n_slices)
		memcpy(s, slices, n_slices * sizeof(*s));
	free(w->addrs);
	free(w->slices);
	w->addrs = a;
	w->n_addrs = n;
	w->slices = s;
	w->n_slices = n_slices;
	for (size_t i = 0; i < w->n_ns && !same && !w->opts.any_local && !r; i++)
		r = w->ns[i].gone ? 0 : watch_ns_ports(w, &w->ns[i]);
	return r;
}

bool watch_told(struct watcher *w, const struct collision *c)
{
	struct ct_entry e = {
		.l4 = c->l4,
		.orig = { c->src, c->dst, c->bound, c->dport },
		.reply = { c->dst, c->src, c->dport, c->wire },
	};

	if (w->n_told_before == TOLD_BEFORE_MAX)
		return false;
	w->n_told_before++;
	if (c->kind != COLLISION_REWRITE || c->source == COLLISION_DATAPLANE)
		return true;
	for (size_t i = 0; i < w->n_ns; i++)
		if (!strcmp(w->ns[i].name, c->netns))
			collide_recent_see(w->recent, (uint32_t)w->ns[i].inode, &e,
					   WATCH_SEEN_BEFORE, w->now_ns, FORGET_NS);
	return true;
}

void watch_heal(struct watcher *w, bool on)
{
	w->opts.heal = on;
}

int watch_fd(const struct watcher *w)
{
	return w->epoll_fd;
}

struct watch_stats watch_stats(const struct watcher *w)
{
	return w->stats;
}

const char *watch_netns(const struct watcher *w, size_t i)
{
	for (size_t k = 0; k < w->n_ns; k++)
		if (!w->ns[k].gone && !i--)
			return w->ns[k].name;
	return NULL;
}
