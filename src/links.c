/* SPDX-License-Identifier: BSD-2-Clause */
#include "links.h"

#include <errno.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void links_done(struct links *ls)
{
	free(ls->v);
	*ls = (struct links){ 0 };
}

static int links_add(void *arg, const struct netlink_link *l)
{
	struct links *ls = arg;

	if (ls->n == ls->cap) {
		size_t cap = ls->cap ? ls->cap * 2 : 16;
		struct netlink_link *v = reallocarray(ls->v, cap, sizeof(*v));

		if (!v)
			return -ENOMEM;
		ls->v = v;
		ls->cap = cap;
	}
	ls->v[ls->n++] = *l;
	return 0;
}

int links_read(struct netlink *nl, struct links *ret)
{
	struct links ls = { 0 };
	int r = -EAGAIN;

	for (int i = 0; r == -EAGAIN && i < NETLINK_TRIES; i++) {
		ls.n = 0;
		r = netlink_links(nl, links_add, &ls);
	}
	if (r < 0) {
		links_done(&ls);
		return r;
	}
	*ret = ls;
	return 0;
}

const struct netlink_link *links_find(const struct links *ls, const char *name)
{
	for (size_t i = 0; i < ls->n; i++)
		if (!strcmp(ls->v[i].name, name))
			return &ls->v[i];
	return NULL;
}

const struct netlink_link *links_by_index(const struct links *ls, int ifindex)
{
	for (size_t i = 0; i < ls->n; i++)
		if (ls->v[i].ifindex == ifindex)
			return &ls->v[i];
	return NULL;
}

bool link_is_l3(unsigned int arptype)
{
	switch (arptype) {
	case ARPHRD_NONE:
	case ARPHRD_PPP:
	case ARPHRD_RAWIP:
	case ARPHRD_TUNNEL:
	case ARPHRD_TUNNEL6:
	case ARPHRD_SIT:
		return true;
	}
	return false;
}

bool link_can_uplink(unsigned int arptype)
{
	return arptype == ARPHRD_ETHER || link_is_l3(arptype);
}

void links_names(const struct links *ls, char *buf, size_t size)
{
	size_t at = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < ls->n; i++) {
		if (at + IFNAMSIZ + 8 >= size) {
			snprintf(buf + at, size - at, ", ...");
			return;
		}
		at += snprintf(buf + at, size - at, "%s%s", at ? ", " : "", ls->v[i].name);
	}
}
