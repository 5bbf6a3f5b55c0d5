/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a host needs so that shared addresses work on it, decided from facts that host.c has read:
 * no I/O here.
 *
 * - Every shared address has a `local` route on lo (table local), so that sockets can bind it and
 *   replies are taken in.
 * - With that route the kernel answers ARP requests for the address on every interface whose
 *   arp_ignore is 0, and puts it into its own ARP requests where arp_announce is not 2. Several
 *   machines share the address, so on an uplink either one moves the neighbours' traffic to the
 *   wrong machine. These two are set before a route is added.
 * - For IPv6 that route alone lets no socket bind: bind() asks whether the address is one of an interface, unless the socket has IPV6_FREEBIND or
 *   net.ipv6.ip_nonlocal_bind is 1. So that is set, where a shared address is not one of an interface. Neighbour discovery needs nothing: the kernel
 *   answers solicitations for addresses of the very interface only, and asks with a link-local source. No route and no address is possible where
 *   IPv6 is disabled, which is not ours to change.
 * - accept_local of lo, where a pool's clients reach each other by their shared addresses (hairpin): the data plane lets such packets, whose source is one of the host's own
 *   by then, come in by lo. Nothing else comes in there.
 * - ip_forward, when a pool has clients.
 * - rp_filter: loose (2) or off (0) always does. Strict (1) drops what arrives on an uplink from
 *   where the route back leads elsewhere. It does no harm on an uplink that the default route leads
 *   out of, and none on inner interfaces: clients' packets come in where the route back to them
 *   goes out.
 * - ip_local_port_range decides which ports of a slice a socket can be given by number 0. It is
 *   shared by all programs of the host, so it is reported and never changed.
 */
#ifndef HOSTPLAN_H
#define HOSTPLAN_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "addr.h"
#include "config.h"
#include "finding.h"
#include "sysctl.h"

#define HOSTPLAN_LINKS_LEN 200

/* A number that could not be read is -errno. */
struct host_conf {
	int all;   /* net.ipv4.conf.all.NAME; the larger one of the two counts */
	int iface; /* net.ipv4.conf.INTERFACE.NAME */
};

struct host_uplink {
	char name[IFNAMSIZ];
	int ifindex;   /* 0: does not exist, and the rest means nothing */
	bool up;       /* administratively */
	bool enslaved; /* part of a bridge, bond or team: IP is at home in the upper interface */
	unsigned int arptype; /* ARPHRD_ */
	uint32_t mtu;
	bool default_route; /* the best default route leads out of it, or does so among others */
	bool default_route6;
	int disable_ipv6;
	int forwarding;
	int accept_ra; /* of IPv6 */
	struct host_conf rp_filter;
	struct host_conf arp_ignore;
	struct host_conf arp_announce;
};

enum host_route {
	HOST_ROUTE_NONE,
	HOST_ROUTE_OURS,   /* a local route that carries our protocol number */
	HOST_ROUTE_OTHERS, /* some other local route or a configured address covers it */
	HOST_ROUTE_WRONG, /* table local has something else for it, a broadcast address for example */
};

struct host_addr {
	struct addr addr;
	enum host_route route;
	bool configured;    /* an address of an interface */
	char dev[IFNAMSIZ]; /* where the route leads, "" without one */
};

struct host_client {
	struct prefix prefix;
	bool routed; /* a route that overlaps it leads to something else than an uplink */
};

/* An Ethernet interface that is up and no uplink. */
struct host_inner {
	char name[IFNAMSIZ];
	struct host_conf arp_ignore;
};

struct host_facts {
	char links[HOSTPLAN_LINKS_LEN]; /* names of all links, for error texts; may be cut */
	bool lo_up;
	bool has_clients;  /* of IPv4 */
	bool has_clients6; /* and of IPv6 */
	int ip_forward;
	int lo_disable_ipv6;
	struct host_conf lo_accept_local;
	int nonlocal_bind6; /* net.ipv6.ip_nonlocal_bind; -ENOENT where there is no IPv6 */
	/*
	 * Writing ip_forward writes more than that: forwarding of every interface and of "default",
	 * and accept_redirects of "all", to the opposite. What would not come back by itself is
	 * kept: interfaces (or "default") that forward while ip_forward is 0, and the value of
	 * net.ipv4.conf.all.accept_redirects.
	 */
	char (*forwarding)[IFNAMSIZ];
	size_t n_forwarding;
	int accept_redirects;
	/* net.ipv6.conf.all.forwarding, and what forwards (or "default" does) while that is 0: likewise. */
	int forwarding6_all;
	char (*forwarding6)[IFNAMSIZ];
	size_t n_forwarding6;
	struct host_uplink uplinks[CONFIG_UPLINKS_MAX];
	size_t n_uplinks;
	struct host_inner *inner;
	size_t n_inner;
	struct host_addr *addrs; /* of all pools, sorted */
	size_t n_addrs;
	size_t n_addrs6; /* how many of them are IPv6 */
	struct host_client *clients;
	size_t n_clients;
	int port_lo, port_hi;          /* ip_local_port_range; port_lo -errno when unreadable */
	char reserved[SYSCTL_VAL_LEN]; /* ip_local_reserved_ports */
};

void host_facts_done(struct host_facts *f);

/* One thing that is changed on the host, in the words of the store (store_host_add()). */
#define HOST_KIND_ROUTE "route" /* key: the address; was: ""; now: "lo" */
#define HOST_KIND_SYSCTL \
	"sysctl" /* key as in sysctl.h; was == now: kept so while a wider setting changes */

struct host_change {
	char kind[8];
	char key[SYSCTL_KEY_LEN];
	char was[32];
	char now[32];
};

/* Fill *ret. -EINVAL for an unknown kind or a text that is too long for its place. */
int host_change_set(struct host_change *ret, const char *kind, const char *key, const char *was,
		    const char *now);

/*
 * The changes that the configuration allows and the facts ask for, in the order to make them; undo
 * them backwards. None when all is well. Free with free(). Returns 0 or -ENOMEM. What is wrong and
 * can't be changed is for hostplan_judge() to say.
 */
int hostplan_changes(const struct host_facts *f, const struct config *c, struct host_change **ret,
		     size_t *ret_n);

/*
 * Does the configuration still call for a change that was made earlier? If not (an address or an
 * uplink is gone), it is to be undone.
 */
bool hostplan_wanted(const struct host_change *change, const struct config *c);

/*
 * Say what is right and what is wrong. What sluiced would change by itself when it starts is a
 * warning, what somebody else must change an error. Ids: uplink, uplink.state, uplink.way_out, route.local,
 * route.clients, sysctl.ip_forward, sysctl.accept_local, sysctl.rp_filter, sysctl.arp_ignore, sysctl.arp_announce,
 * sysctl.port_range, sysctl.reserved_ports, ipv6, sysctl.ip_nonlocal_bind; the last two only where an address is IPv6.
 */
void hostplan_judge(const struct host_facts *f, const struct config *c, struct findings *out);

/*
 * How many ports of first to last are in a list such as "8080,9000-9010" (ip_local_reserved_ports).
 * -EINVAL for what is no such list.
 */
int hostplan_ports_in(const char *list, uint16_t first, uint16_t last, unsigned int *ret);

#endif
