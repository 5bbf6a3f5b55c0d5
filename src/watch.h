/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The watcher: sees conntrack rewrite a bound socket's source port, names the socket and what it ran into, and helps if it is told to. For each namespace it has two sources,
 * ctnetlink (ctnl.h) and the netfilter program (nfwatch.h), and an inventory of sockets; their observations are judged by collide.h and told once.
 *
 *	sources -> judge -> whose socket, whose tuple -> tell
 *
 * It programs nothing but itself. It works without any slice.
 */
#ifndef WATCH_H
#define WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "collision.h"
#include "errtext.h"

struct watch_opts {
	char *const *netns; /* names below /run/netns, paths, or "" for our own */
	size_t n_netns;
	uint32_t buffer;  /* see ctnl_opts */
	uint32_t sources; /* COLLISION_CTNETLINK, COLLISION_NETFILTER: those to use */
	bool heal;
	bool any_local; /* watch every local address of each namespace, not only those of watch_addrs() */
	/* A collision; c is the callee's only for the call. */
	void (*tell)(void *arg, const struct collision *c);
	void (*note)(void *arg, int priority, const char *event, const char *text);
	void *arg;
};

struct watcher;
struct config;

/* What the configuration says: netns (which stays the configuration's), buffer, sources and heal. The rest is zero. */
struct watch_opts watch_opts_of(const struct config *c);

/*
 * Entering namespaces needs CAP_SYS_ADMIN, and is done here and nowhere else: before privileges are dropped. A namespace that is not there is an error; a source that is not
 * there is noted, and the watcher goes on with the other one; without any it is an error. A namespace whose name goes away is let go of. 0 and *ret, or -errno with err filled.
 */
int watch_open(const struct watch_opts *o, struct watcher **ret, struct errtext *err);
void watch_close(struct watcher *w);

/* The addresses to watch, sorted (unless any_local), and the live slices for in_slice. Copied. */
int watch_addrs(struct watcher *w, const struct addr *addrs, size_t n, const struct range *slices,
		size_t n_slices);
/* What was told before the last start, the newest first: the dump that a start begins with does not tell it again. False: it takes no more. */
bool watch_told(struct watcher *w, const struct collision *c);
void watch_heal(struct watcher *w, bool heal);

int watch_fd(const struct watcher *w);                /* readable: call watch_ready() */
void watch_ready(struct watcher *w, uint64_t now_ns); /* a bounded amount of work */
void watch_tick(struct watcher *w, uint64_t now_ns, uint64_t *ret_next_ns);

struct watch_stats {
	uint64_t observed[2]; /* rewrites seen, by source: ctnetlink, netfilter */
	uint64_t told[2];     /* collisions, [1]: those whose wire port lies in a slice */
	uint64_t risks;
	uint64_t losses[2]; /* by source */
	uint64_t resyncs;   /* dumps begun since something was lost */
	uint64_t healed, heal_failed;
	uint64_t no_socket; /* rewrites whose socket was not found */
};
struct watch_stats watch_stats(const struct watcher *w);
/* The i-th name, as it was configured, of the namespaces that are still there; NULL: there are no more. */
const char *watch_netns(const struct watcher *w, size_t i);

#endif
