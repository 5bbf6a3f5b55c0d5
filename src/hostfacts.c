/* SPDX-License-Identifier: BSD-2-Clause */
#include "hostfacts.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "links.h"
#include "sysctl.h"

static int read_int(const char *key)
{
	int v, r = sysctl_read_int(key, &v);

	return r < 0 ? r : v;
}

static int conf_int(const char *ifname, const char *name)
{
	char key[SYSCTL_KEY_LEN];

	return read_int(sysctl_conf_key(ifname, name, key));
}

static struct host_conf conf_both(const char *ifname, const char *name)
{
	return (struct host_conf){ .all = conf_int("all", name), .iface = conf_int(ifname, name) };
}

static int conf6_int(const char *ifname, const char *name)
{
	char key[SYSCTL_KEY_LEN];

	return read_int(sysctl_conf6_key(ifname, name, key));
}

static bool facts_is_uplink(const struct host_facts *f, int ifindex)
{
	for (size_t i = 0; i < f->n_uplinks; i++)
		if (f->uplinks[i].ifindex == ifindex)
			return true;
	return false;
}

static void facts_uplink(struct host_facts *f, const struct links *ls, const char *name)
{
	struct host_uplink *u = &f->uplinks[f->n_uplinks++];
	const struct netlink_link *l = links_find(ls, name), *master;

	snprintf(u->name, sizeof(u->name), "%s", name);
	if (!l)
		return;
	master = l->master ? links_by_index(ls, l->master) : NULL;
	u->ifindex = l->ifindex;
	u->up = l->up;
	/* A VRF leaves IP on the interface. */
	u->enslaved = master && strcmp(master->kind, "vrf");
	u->arptype = l->arptype;
	u->mtu = l->mtu;
	u->forwarding = conf_int(name, "forwarding");
	u->accept_ra = conf6_int(name, "accept_ra");
	u->rp_filter = conf_both(name, "rp_filter");
	u->arp_ignore = conf_both(name, "arp_ignore");
	u->arp_announce = conf_both(name, "arp_announce");
	u->disable_ipv6 = conf6_int(name, "disable_ipv6");
}

static int facts_links(struct host_facts *f, const struct links *ls, const struct config *c)
{
	const struct netlink_link *lo = links_by_index(ls, NETLINK_LO);

	f->lo_up = lo && lo->up;
	links_names(ls, f->links, sizeof(f->links));
	for (size_t i = 0; i < c->n_uplinks; i++)
		facts_uplink(f, ls, c->uplinks[i]);
	f->inner = calloc(ls->n + 1, sizeof(*f->inner));
	f->forwarding = calloc(ls->n + 1, sizeof(*f->forwarding));
	f->forwarding6 = calloc(ls->n + 1, sizeof(*f->forwarding6));
	if (!f->inner || !f->forwarding || !f->forwarding6)
		return -ENOMEM;
	for (size_t i = 0; i < ls->n; i++) {
		const struct netlink_link *l = &ls->v[i];
		struct host_inner *in = &f->inner[f->n_inner];

		if (!l->up || !l->arp || l->arptype != ARPHRD_ETHER || l->master ||
		    facts_is_uplink(f, l->ifindex))
			continue;
		memcpy(in->name, l->name, sizeof(in->name));
		in->arp_ignore = conf_both(l->name, "arp_ignore");
		f->n_inner++;
	}
	for (size_t i = 0; i <= ls->n; i++) {
		const char *name = i < ls->n ? ls->v[i].name : "default";

		if (f->ip_forward == 0 && conf_int(name, "forwarding") == 1)
			snprintf(f->forwarding[f->n_forwarding++], IFNAMSIZ, "%s", name);
		if (f->forwarding6_all == 0 && conf6_int(name, "forwarding") == 1)
			snprintf(f->forwarding6[f->n_forwarding6++], IFNAMSIZ, "%s", name);
	}
	return 0;
}

static int compare_addrs(const void *a, const void *b)
{
	const struct host_addr *x = a, *y = b;

	return addr_cmp(&x->addr, &y->addr);
}

static int facts_pools(struct host_facts *f, const struct config *c)
{
	size_t n_addrs = 0, n_clients = 0;

	for (size_t i = 0; i < c->n_pools; i++) {
		n_addrs += c->pools[i].n_addresses;
		n_clients += c->pools[i].n_clients;
	}
	f->addrs = calloc(n_addrs + 1, sizeof(*f->addrs));
	f->clients = calloc(n_clients + 1, sizeof(*f->clients));
	if (!f->addrs || !f->clients)
		return -ENOMEM;
	for (size_t i = 0; i < c->n_pools; i++) {
		const struct config_pool *p = &c->pools[i];

		for (size_t j = 0; j < p->n_addresses; j++) {
			f->addrs[f->n_addrs++].addr = p->addresses[j];
			f->n_addrs6 += !addr_is_v4(&p->addresses[j]);
		}
		for (size_t j = 0; j < p->n_clients; j++) {
			if (addr_is_v4(&p->clients[j].addr))
				f->has_clients = true;
			else
				f->has_clients6 = true;
			f->clients[f->n_clients++].prefix = p->clients[j];
		}
	}
	qsort(f->addrs, f->n_addrs, sizeof(*f->addrs), compare_addrs);
	return 0;
}

/* The route that a host's packet to the address would take in table local: longest prefix, then lowest metric. */
struct best {
	uint8_t len;
	uint32_t priority;
	bool any;
};

struct routes_walk {
	struct host_facts *f;
	const struct links *links;
	struct best *best; /* for each address */
	struct best def;   /* default route of table main, of the family that is walked */
	bool v6;
};

static void walk_local(struct routes_walk *w, const struct netlink_route *r)
{
	for (size_t i = 0; i < w->f->n_addrs; i++) {
		struct host_addr *a = &w->f->addrs[i];
		struct best *b = &w->best[i];
		const struct netlink_link *l;

		if (!prefix_contains(&r->dst, &a->addr))
			continue;
		if (b->any &&
		    (b->len > r->dst.len || (b->len == r->dst.len && b->priority <= r->priority)))
			continue;
		*b = (struct best){ r->dst.len, r->priority, true };
		a->route = r->type != RTN_LOCAL                  ? HOST_ROUTE_WRONG
			   : r->protocol == NETLINK_PROTO_SLUICE ? HOST_ROUTE_OURS
								 : HOST_ROUTE_OTHERS;
		a->configured = r->type == RTN_LOCAL && r->protocol == RTPROT_KERNEL;
		l = r->n_oifs ? links_by_index(w->links, r->oifs[0]) : NULL;
		snprintf(a->dev, sizeof(a->dev), "%s", l ? l->name : "");
	}
}

static void walk_default(struct routes_walk *w, const struct netlink_route *r)
{
	if (w->def.any && w->def.priority < r->priority)
		return;
	for (size_t i = 0; i < w->f->n_uplinks; i++) {
		struct host_uplink *u = &w->f->uplinks[i];

		bool *to = w->v6 ? &u->default_route6 : &u->default_route;

		*to = false;
		for (size_t j = 0; j < r->n_oifs; j++)
			if (r->oifs[j] == u->ifindex)
				*to = true;
	}
	w->def = (struct best){ .priority = r->priority, .any = true };
}

static void walk_clients(struct routes_walk *w, const struct netlink_route *r)
{
	bool inner = false;

	for (size_t i = 0; i < r->n_oifs; i++)
		inner = inner || !facts_is_uplink(w->f, r->oifs[i]);
	for (size_t i = 0; inner && i < w->f->n_clients; i++) {
		struct host_client *cl = &w->f->clients[i];

		if (!cl->routed)
			cl->routed = prefix_overlaps(&cl->prefix, &r->dst);
	}
}

static int walk_route(void *arg, const struct netlink_route *r)
{
	struct routes_walk *w = arg;
	const uint8_t all = w->v6 ? 0 : 96;

	if (r->table == RT_TABLE_LOCAL)
		walk_local(w, r);
	else if (r->type != RTN_UNICAST)
		return 0;
	else if (r->dst.len > all)
		walk_clients(w, r);
	else if (r->table == RT_TABLE_MAIN)
		walk_default(w, r);
	return 0;
}

static int facts_routes(struct netlink *nl, struct host_facts *f, const struct links *ls)
{
	struct routes_walk w = { .f = f, .links = ls };
	int r = -EAGAIN;

	w.best = calloc(f->n_addrs + 1, sizeof(*w.best));
	if (!w.best)
		return -ENOMEM;
	for (int i = 0; r == -EAGAIN && i < NETLINK_TRIES; i++) {
		memset(w.best, 0, f->n_addrs * sizeof(*w.best));
		w.def = (struct best){ 0 };
		for (size_t j = 0; j < f->n_addrs; j++) {
			f->addrs[j].route = HOST_ROUTE_NONE;
			f->addrs[j].configured = false;
			f->addrs[j].dev[0] = '\0';
		}
		for (size_t j = 0; j < f->n_clients; j++)
			f->clients[j].routed = false;
		w.v6 = false;
		r = netlink_routes(nl, RT_TABLE_UNSPEC, walk_route, &w);
		if (r || !f->n_addrs6)
			continue;
		w.v6 = true;
		w.def = (struct best){ 0 };
		r = netlink_routes6(nl, RT_TABLE_UNSPEC, walk_route, &w);
	}
	free(w.best);
	return r;
}

static void facts_ports(struct host_facts *f)
{
	char text[SYSCTL_VAL_LEN];
	int r = sysctl_read("net.ipv4.ip_local_port_range", text, sizeof(text));

	if (r < 0)
		f->port_lo = r;
	else if (sscanf(text, "%d %d", &f->port_lo, &f->port_hi) != 2)
		f->port_lo = -ERANGE;
	if (sysctl_read("net.ipv4.ip_local_reserved_ports", f->reserved, sizeof(f->reserved)) < 0)
		f->reserved[0] = '\0';
}

int hostfacts_read(struct netlink *nl, const struct config *c, struct host_facts *ret,
		   struct errtext *err)
{
	struct host_facts f = { 0 };
	struct links ls;
	int r = links_read(nl, &ls);

	if (r < 0)
		return errtext_set(err, -r, "the links can't be listed: %s", strerror(-r));
	f.ip_forward = read_int("net.ipv4.ip_forward");
	f.forwarding6_all = read_int("net.ipv6.conf.all.forwarding");
	f.accept_redirects = conf_int("all", "accept_redirects");
	f.lo_disable_ipv6 = conf6_int("lo", "disable_ipv6");
	f.lo_accept_local = conf_both("lo", "accept_local");
	f.nonlocal_bind6 = read_int("net.ipv6.ip_nonlocal_bind");
	facts_ports(&f);
	r = facts_links(&f, &ls, c);
	if (r == 0)
		r = facts_pools(&f, c);
	if (r == 0)
		r = facts_routes(nl, &f, &ls);
	links_done(&ls);
	if (r < 0) {
		host_facts_done(&f);
		return errtext_set(err, -r, "the routes can't be listed: %s", strerror(-r));
	}
	*ret = f;
	return 0;
}
