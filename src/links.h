/* SPDX-License-Identifier: BSD-2-Clause */
/* All links of a network namespace, as they were at one moment. */
#ifndef LINKS_H
#define LINKS_H

#include <stdbool.h>
#include <stddef.h>

#include "netlink.h"

struct links {
	struct netlink_link *v; /* in the kernel's order */
	size_t n, cap;
};

/* Returns 0 and a list for links_done(), or -errno. */
int links_read(struct netlink *nl, struct links *ret);
void links_done(struct links *ls);

/* NULL when there is none. */
const struct netlink_link *links_find(const struct links *ls, const char *name);
const struct netlink_link *links_by_index(const struct links *ls, int ifindex);

/*
 * May an interface of this type be an uplink, and do its packets begin with the IP header? arptype: ARPHRD_. Ethernet: yes, and no; tun, WireGuard, PPP and IP tunnels:
 * yes, and yes. GRE without Ethernet is none: what it has received shows its outer header to whoever looks at it there. Loopback is none either.
 */
bool link_can_uplink(unsigned int arptype);
bool link_is_l3(unsigned int arptype);

/* "lo, eth0, wan"; what has no room in buf becomes ", ...". size is at least 32. */
void links_names(const struct links *ls, char *buf, size_t size);

#endif
