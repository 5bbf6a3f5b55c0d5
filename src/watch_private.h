/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the watcher's parts share: watch.c (from an observation to what is told), watch_turn.c (reading the sources), watch_ns.c (namespaces and their sources), watch_risk.c
 * (before it happens).
 */
#ifndef WATCH_PRIVATE_H
#define WATCH_PRIVATE_H

#include <sys/types.h>

#include "collide.h"
#include "ctnl.h"
#include "inventory.h"
#include "netlink.h"
#include "nfwatch.h"
#include "watch.h"
#include "worker.h"

#define WATCH_BATCH     32    /* of observations: the clock is looked at in between */
#define WATCH_RISKS_MAX 256   /* looked at a second time in one refresh */
#define WATCH_ADDRS_MAX 4096  /* local addresses of a namespace */
#define WATCH_NATS_MAX  65536 /* translated flows that are remembered, the last of each place */

/* Bits for collide_recent_see() that are no source. */
#define WATCH_SEEN_BEFORE (1U << 31) /* told before this start */
#define WATCH_SEEN_SOCKET \
	(1U << 30) /* of a socket's own tuple: rewritten, so that it is no risk any more */
#define WATCH_SEEN_FOUND (1U << 29) /* by a dump, which need not have told it */

/* A socket and a translated flow that seem to want one tuple; told when a second look confirms it. */
struct watch_risk {
	struct sockdiag_sock sock;
	struct ct_tuple reply; /* of the flow */
	uint16_t zone;
};

/* A translated flow, to ask conntrack for later. */
struct watch_nat {
	enum sluice_l4 l4;
	uint16_t zone;
	struct ct_tuple reply;
};

/* What a descriptor of the watcher's epoll set is: kind, and index of the namespace. */
enum watch_source { WATCH_EVENTS, WATCH_SOCKETS, WATCH_REWRITES, WATCH_LISTED };
#define WATCH_FD(source, ns) ((uint64_t)(source) << 32 | (ns))

/* One network namespace. */
struct watch_ns {
	char name[COLLISION_NETNS_MAX];
	ino_t inode;
	bool gone;                   /* its name means it no more: nothing below is there */
	struct ctnl *ctnl;           /* NULL: no ctnetlink */
	bool events;                 /* it tells of events */
	bool netfilter;              /* the program is attached */
	struct inventory *inventory; /* NULL: gone */
	struct netlink *netlink;     /* for local addresses; only with any_local */
	struct addr *locals;         /* of the namespace, sorted; only with any_local */
	size_t n_locals;
	struct collide_ports *ports; /* of translated flows */
	struct collide_ports *next;  /* being filled by a dump; NULL: it counts for nothing */
	struct watch_nat *nats;      /* by outer port and address, see watch_risk.c */
	bool whole;                  /* a dump has filled ports */
	bool dumping;
	bool lossy;           /* events were lost, and no dump has made up for it */
	bool again;           /* a dump has to be made */
	bool look;            /* a dump would be good to have */
	uint64_t dump_ns;     /* when the last one began; when it has ended: how long it took */
	uint64_t dump_end_ns; /* of the last one */
	uint64_t rests_ns;    /* its events wait until then; 0: they wake us */
	uint64_t say_ns;      /* not before this is a loss said again */
	bool dump_failed;     /* and that was said */
	bool notices_failed;
	bool listing; /* its sockets are being listed, in the thread */
	int listed;   /* what came of it */
	struct watch_risk risks[WATCH_RISKS_MAX];
	size_t n_risks;
};

/* An event of ctnetlink, kept until the program's records that come before it have been read. */
struct watch_event {
	enum ct_verb verb;
	struct ct_entry entry;
};

struct watcher {
	struct watch_opts opts;
	int epoll_fd;
	struct nfwatch *nf; /* NULL: this source is not there */
	bool nf_tried;
	bool noted; /* what the inventory has to say of itself */
	struct watch_ns *ns;
	size_t n_ns;
	struct addr *addrs;
	size_t n_addrs;
	struct range *slices;
	size_t n_slices;
	struct collide_recent *recent;
	size_t n_told_before;
	uint64_t now_ns;           /* of this turn */
	struct worker lister;      /* lists sockets */
	uint64_t refresh_begin_ns; /* when they were listed last */
	uint64_t refresh_ns;       /* when they are next */
	uint64_t locate_ns;        /* when names and local addresses are looked at next */
	uint64_t nf_lost;          /* of the ring, as far as it has been noted */
	struct watch_event events[WATCH_BATCH];
	size_t n_events;
	struct watch_stats stats;
};

void watch_say(const struct watcher *w, int priority, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- watch.c ---- */

/* Which addresses are watched in a namespace. */
struct collide_addrs watch_addrs_of(const struct watcher *w);
/* The addresses for which outer ports are counted and sockets are listed: as above, but never "any". */
struct collide_addrs watch_ports_of(const struct watcher *w, const struct watch_ns *ns);
bool watch_in_slice(const struct watcher *w, const struct addr *a, uint16_t port);
/* Fill in who has the socket. hint: see inventory_owner(). */
void watch_victim(struct watch_ns *ns, const struct sockdiag_sock *s, int32_t hint,
		  struct collision *c);
void watch_flow_is_owner(const struct ct_entry *e, struct collision *c);
/* What conntrack has said. */
void watch_entry(struct watcher *w, struct watch_ns *ns, enum ct_verb verb,
		 const struct ct_entry *e);
/* What the program after srcnat has said. */
void watch_rewrite(struct watcher *w, const struct sluice_rewrite *r);

/* ---- watch_ns.c ---- */

/* Enter the namespaces and open what can be opened there. */
int watch_ns_open(struct watcher *w, struct errtext *err);
void watch_ns_close(struct watcher *w);
/* Does its name still mean this namespace? If not let go of it, so that it can end. */
void watch_ns_check(struct watcher *w, struct watch_ns *ns);
/* Read the local addresses anew. 0 or -errno. */
int watch_ns_locate(struct watcher *w, struct watch_ns *ns);
/* The counters of outer ports, empty, for the addresses that are watched now; a dump fills them. 0 or -ENOMEM. */
int watch_ns_ports(struct watcher *w, struct watch_ns *ns);

/* ---- watch_risk.c ---- */

/* A translated flow has appeared, or was found. */
void watch_risk_flow(struct watch_ns *ns, const struct ct_entry *e);
/* Shall the sockets be listed anew? Then inventory_refresh_run() comes next, and after it _refreshed(), with what that returned: it looks at those that are new. */
bool watch_risk_refresh(struct watcher *w, struct watch_ns *ns);
void watch_risk_refreshed(struct watcher *w, struct watch_ns *ns, int run);

/* ---- watch_turn.c ---- */

/* Wait for the list of sockets that is being made, if one is, and forget it: a namespace goes. */
void watch_listing_drop(struct watcher *w);

#endif
