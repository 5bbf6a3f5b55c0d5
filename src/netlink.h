/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Links, routes and NAT chains of one network namespace, by netlink: the one place that knows
 * libnl. Sockets stay in the namespace that the calling thread was in when they were opened.
 * Functions return 0 or -errno as the kernel gave it; a dump that the kernel reports as interrupted
 * gives -EAGAIN after the callbacks have run: start over.
 */
#ifndef NETLINK_H
#define NETLINK_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "addr.h"

/* Of routes that sluice adds ("ip route show table local proto 86"). Nothing else is known to use it. */
#define NETLINK_PROTO_SLUICE 86
/* The kernel gives every namespace's loopback interface this number. */
#define NETLINK_LO 1
/* How often to start over before a table that goes on changing is given up. */
#define NETLINK_TRIES 8

struct netlink;

int netlink_open(struct netlink **ret);
void netlink_close(struct netlink *nl); /* NULL is fine */

struct netlink_link {
	char name[IFNAMSIZ];
	int ifindex;
	bool up;              /* IFF_UP */
	bool arp;             /* not IFF_NOARP */
	unsigned int arptype; /* ARPHRD_ */
	uint32_t mtu;
	int master;    /* ifindex of the bridge, bond or VRF that it belongs to; 0: none */
	char kind[16]; /* "bridge", "vrf", "veth"; "" for a device of hardware */
};

/* A callback that returns other than 0 ends the walk, and that is what the walk returns. */
typedef int netlink_link_fn(void *arg, const struct netlink_link *l);
int netlink_links(struct netlink *nl, netlink_link_fn *fn, void *arg);

#define NETLINK_OIFS_MAX 16

struct netlink_route {
	struct prefix dst;
	uint32_t table;
	uint8_t type; /* RTN_ */
	uint8_t protocol;
	uint32_t priority; /* metric */
	int oifs[NETLINK_OIFS_MAX];
	size_t n_oifs; /* further next hops are left out */
};

/* The IPv4 routes of one table (RT_TABLE_), or of all of them when it is 0; the IPv6 routes. Where the kernel has no IPv6 there are none. */
typedef int netlink_route_fn(void *arg, const struct netlink_route *r);
int netlink_routes(struct netlink *nl, uint32_t table, netlink_route_fn *fn, void *arg);
int netlink_routes6(struct netlink *nl, uint32_t table, netlink_route_fn *fn, void *arg);

/*
 * Add or remove a `local` route of ours on lo. -EEXIST and -ESRCH say that there is nothing to do. For IPv6, adding takes a lo that is up (-ENETDOWN) and on
 * which IPv6 is not disabled (-EACCES).
 */
int netlink_local_add(struct netlink *nl, const struct addr *a);
int netlink_local_rm(struct netlink *nl, const struct addr *a);

/*
 * Which way a packet to dst (IPv4) goes, and with what source address if the sender names none.
 * -ENETUNREACH and its like when there is no way.
 */
int netlink_route_get(struct netlink *nl, const struct addr *dst, struct addr *ret_src,
		      int *ret_ifindex);

struct netlink_chain {
	const char *family; /* "ip", "ip6", "inet" */
	const char *table;
	const char *name;
	uint32_t hook; /* NF_INET_ */
};

/*
 * The base chains of type nat, iptables-nft's among them. -EPERM without CAP_NET_ADMIN;
 * -EOPNOTSUPP, -EINVAL or -EPROTONOSUPPORT where the kernel has no nf_tables.
 */
typedef int netlink_chain_fn(void *arg, const struct netlink_chain *c);
int netlink_nat_chains(netlink_chain_fn *fn, void *arg);

/* Link events. Open before the first netlink_links(), so that no change falls in between. */
struct netlink_monitor;

enum netlink_event {
	NETLINK_LINK_NEW, /* new, or something about it changed */
	NETLINK_LINK_DEL,
	NETLINK_LOST, /* the kernel dropped events: look at all links again */
};

int netlink_monitor_open(struct netlink_monitor **ret);
void netlink_monitor_close(struct netlink_monitor *m);
int netlink_monitor_fd(const struct netlink_monitor *m); /* poll for reading */
/*
 * The next event. Returns 1 with *ret_event (and *ret_link except for NETLINK_LOST) set, 0 when there
 * is none, -errno.
 */
int netlink_monitor_read(struct netlink_monitor *m, enum netlink_event *ret_event,
			 struct netlink_link *ret_link);

#endif
