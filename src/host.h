/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host that shared addresses live on: finding the uplinks and hearing of their changes, and
 * preparing routes and sysctls (hostplan.h says which and why). Only what the configuration allows
 * is changed, every change is told to a recorder before it is made, and host_restore() takes it
 * back, also after a crash at any point.
 *
 * A session belongs to the network namespace that the thread was in at host_open(). The sysctls are
 * those of the namespace that the calling thread is in, so use it from there.
 *
 * Crash points (fault.h): host.apply and host.restore, before each change and each undoing.
 */
#ifndef HOST_H
#define HOST_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "addr.h"
#include "config.h"
#include "errtext.h"
#include "finding.h"
#include "hostplan.h"
#include "plan.h"

struct host_session;

/* Needs no privileges; only changes do. */
int host_open(struct host_session **ret, struct errtext *err);
void host_close(struct host_session *h); /* NULL is fine */

struct host_link {
	char name[IFNAMSIZ];
	int ifindex;
	bool up;
	unsigned int arptype; /* ARPHRD_, one that link_can_uplink() */
	uint32_t mtu;
};

/*
 * Find the uplinks: ret[i] is names[i], n at most CONFIG_UPLINKS_MAX. An uplink that is down is
 * fine. Returns 0, -ENODEV for a name that no link has (the text lists those there are), -ENOTSUP
 * for one of a type that can't be, other -errno. On success host_link_event() reports about these
 * names from now on.
 */
int host_links(struct host_session *h, char *const names[], size_t n, struct host_link ret[],
	       struct errtext *err);

enum host_link_verb {
	HOST_LINK_CHANGED, /* appeared, or something about it changed: compare, the ifindex above all */
	HOST_LINK_GONE,   /* deleted, renamed or moved away; only name is set */
	HOST_LINK_RESYNC, /* events were lost: call host_links() again; nothing is set */
};

struct host_link_event {
	enum host_link_verb verb;
	struct host_link link;
};

/* Readable when host_link_event() may have something. Stays the session's. */
/*
 * Interfaces that clients may come in by: all that are up, but uplinks of c, lo, and parts of others. *ret is to be freed. Returns 0 or -errno.
 */
int host_inner(struct host_session *h, const struct config *c, struct host_link **ret,
	       size_t *ret_n, struct errtext *err);

int host_link_fd(const struct host_session *h);
/* The next event about an uplink. Never blocks. Returns 1 with *ret set, 0 when there is none left, or -errno. */
int host_link_event(struct host_session *h, struct host_link_event *ret);

/*
 * What host_prepare() would change now, in the order to do it; none when all is well. Free with
 * free(). Returns 0 or -errno.
 */
int host_plan(struct host_session *h, const struct config *c, struct host_change **ret,
	      size_t *ret_n, struct errtext *err);

/*
 * Is told of all changes before the first one is made; returns 0, or -errno (and fills err) and
 * then none is made. What it is told may be the same as what it has from an earlier run that was
 * cut short: it keeps the older "was".
 */
struct host_recorder {
	int (*record)(void *arg, const struct host_change *changes, size_t n, struct errtext *err);
	void *arg;
};

/*
 * Bring the host into the state that the configuration asks for, as far as it allows to. Does
 * nothing where all is well, so it can be called again at any time (at start, on reload, when an
 * uplink has appeared again). Returns 0 or -errno with a text that names what could not be changed;
 * changes made before that stay, and are recorded.
 */
int host_prepare(struct host_session *h, const struct config *c, const struct host_recorder *rec,
		 struct errtext *err);
/* The changing half of host_prepare(): changes from host_plan() that have been recorded. */
int host_apply(struct host_session *h, const struct host_change *changes, size_t n,
	       struct errtext *err);

/*
 * Undo changes in the order given, which is the latest first (as store_host_list() has them). What
 * is already as it was is fine, so a restore that was cut short can be repeated. What somebody has
 * changed since is left alone and reported (restore.sysctl, restore.route: warn). done[i] is set to
 * whether the record of changes[i] can be forgotten. Returns 0, or the first -errno when something
 * could not be undone, which is reported as an error.
 */
int host_restore(struct host_session *h, const struct host_change *changes, size_t n, bool done[],
		 struct findings *out);

/* hostplan_judge() of the facts, and no change. Returns 0 or -errno when facts could not be read. */
int host_check(struct host_session *h, const struct config *c, struct findings *out,
	       struct errtext *err);

/* Which destinations leave by an uplink: onlink_read(). */
int host_onlink(struct host_session *h, const unsigned *uplinks, size_t n_uplinks,
		struct plan_prefix **ret, size_t *ret_n, struct errtext *err);

/*
 * The source address that the kernel takes towards dst (IPv4) by itself, and the interface.
 * -ENETUNREACH, -EHOSTUNREACH and the like when there is no way.
 */
int host_src_towards(struct host_session *h, const struct addr *dst, struct addr *ret_src,
		     int *ret_ifindex);

/*
 * Do chains of type nat exist in the namespace (nf_tables, including what iptables-nft made)?
 * Writes their names to buf, "inet nat postrouting" and so on, cut to size, and their number to
 * *ret_n. -EPERM without CAP_NET_ADMIN, other -errno where the kernel has no nf_tables.
 */
int host_nat_chains(char *buf, size_t size, size_t *ret_n);

#endif
