/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ctnetlink: the kernel's connection tracking of one network namespace, by libnetfilter_conntrack over libmnl. Events, dumps, single look-ups, deletion. Both libraries' names
 * for conntrack appear here and nowhere else.
 *
 * Only entries whose source was translated (IPS_SRC_NAT, which a null binding that had to give way sets as well) are delivered: the kernel filters events
 * with a program on the socket, so that an ordinary connection costs the watcher nothing.
 *
 * Losing events is a state: when the kernel had no room (ENOBUFS) ctnl_read() says so once, counts it, and a dump finds what still exists. It says so when the kernel delivers
 * again: until then events are dropped in silence, and a dump begun earlier could miss an entry for good.
 *
 * With net.netfilter.nf_conntrack_events=2, which is the default, an entry that was made while nobody listened for events has none when it goes either: no CT_GONE.
 */
#ifndef CTNL_H
#define CTNL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ct.h"
#include "errtext.h"

struct ctnl;

struct ctnl_opts {
	uint32_t
		buffer; /* bytes of the event socket's receive buffer (SO_RCVBUFFORCE, or what is allowed without CAP_NET_ADMIN) */
	bool gone;      /* deliver CT_GONE too */
	bool deaf;      /* no events at all: only dumps, look-ups and changes */
};

/*
 * Opens sockets in the caller's network namespace; they stay there. Events flow from now on. -ENOENT: no ctnetlink in the kernel (module nf_conntrack_netlink). err is filled.
 */
int ctnl_open(const struct ctnl_opts *o, struct ctnl **ret, struct errtext *err);
void ctnl_close(struct ctnl *c); /* NULL is fine */

/*
 * Readable when there are events. Each event wakes who waits for it, and the waking costs ten times what reading it does: a reader that rests for 2 ms between reads takes 3 % of a core at 10,000
 * events a second, one that does not more than 10 %.
 */
int ctnl_fd(const struct ctnl *c);

typedef void ctnl_fn(void *arg, enum ct_verb verb, const struct ct_entry *e);
/*
 * Read at most max messages, and return how many (those that made no sense count too): max means there may be more. -ENOBUFS: events were lost, and the kernel delivers again;
 * what had arrived before was delivered, by this call too; what comes after is delivered by the next calls. -errno: the socket is no good any more. fn must not call ctnl_*.
 */
int ctnl_read(struct ctnl *c, unsigned max, ctnl_fn *fn, void *arg);

/*
 * Find what exists, a part at a time: begin, then call _dump_read() (whose descriptor may be polled) until it returns 0. Returns 1 when there is more to come;
 * -EINTR when the table changed so that the dump is not whole: begin again; -errno. Whatever else than 1 it returns, the dump is over. One dump at a time: -EBUSY.
 */
int ctnl_dump_begin(struct ctnl *c, struct errtext *err);
int ctnl_dump_fd(const struct ctnl *c);
int ctnl_dump_read(struct ctnl *c, unsigned max, ctnl_fn *fn, void *arg);

/*
 * The entry whose answers look like this, in this zone; or whose first packet did, from the other side: the kernel keeps both in one table, and NAT keeps off
 * either. Translated or not. -ENOENT: none.
 */
int ctnl_find(struct ctnl *c, enum sluice_l4 l4, uint16_t zone, const struct ct_tuple *reply,
	      struct ct_entry *ret);
/* Delete an entry, this very one: an id that is known must fit. -ENOENT: it is gone. -EBUSY: a flow table has it (IPS_OFFLOAD). */
int ctnl_delete(struct ctnl *c, const struct ct_entry *e);

/*
 * Make an untranslated entry for a local socket's tuple before the socket sends, so that NAT cannot take it meanwhile. It goes after timeout_s unless it is used. -EEXIST: one of its tuples is taken.
 */
int ctnl_reserve(struct ctnl *c, enum sluice_l4 l4, const struct ct_tuple *orig,
		 uint32_t timeout_s);

struct ctnl_stats {
	uint64_t events; /* delivered */
	uint64_t losses; /* times that the kernel had no room */
	uint64_t bad;    /* messages that made no sense */
	uint32_t
		buffer; /* what the kernel granted, bytes: twice what was asked for, to have room for its own needs (an event takes 1280) */
	bool off; /* net.netfilter.nf_conntrack_events was 0 in this namespace when it was opened: there are no events, the rest works */
};
struct ctnl_stats ctnl_stats(const struct ctnl *c);

#endif
