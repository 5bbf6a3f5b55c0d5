/* SPDX-License-Identifier: BSD-2-Clause */
/* All links of a network namespace, as they were at one moment. */
#ifndef LINKS_H
#define LINKS_H

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

/* "lo, eth0, wan"; what has no room in buf becomes ", ...". size is at least 32. */
void links_names(const struct links *ls, char *buf, size_t size);

#endif
