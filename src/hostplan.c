/* SPDX-License-Identifier: BSD-2-Clause */
#include "hostplan.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "links.h"

#define KEY_FORWARD   "net.ipv4.ip_forward"
#define KEY_REDIRECTS "net.ipv4.conf.all.accept_redirects"
#define KEY_ACCEPT    "net.ipv4.conf.lo.accept_local"
#define KEY_FORWARD6  "net.ipv6.conf.all.forwarding"
#define KEY_NONLOCAL6 "net.ipv6.ip_nonlocal_bind"

void host_facts_done(struct host_facts *f)
{
	free(f->forwarding);
	free(f->forwarding6);
	free(f->inner);
	free(f->addrs);
	free(f->clients);
	*f = (struct host_facts){ 0 };
}

static bool fits(size_t size, const char *s)
{
	return strlen(s) < size;
}

int host_change_set(struct host_change *ret, const char *kind, const char *key, const char *was,
		    const char *now)
{
	if (strcmp(kind, HOST_KIND_ROUTE) && strcmp(kind, HOST_KIND_SYSCTL))
		return -EINVAL;
	if (!fits(sizeof(ret->key), key) || !fits(sizeof(ret->was), was) ||
	    !fits(sizeof(ret->now), now))
		return -EINVAL;
	*ret = (struct host_change){ 0 };
	strcpy(ret->kind, kind);
	strcpy(ret->key, key);
	strcpy(ret->was, was);
	strcpy(ret->now, now);
	return 0;
}

/*
 * The per-interface settings of an uplink. good() is given what counts, the larger one of "all" and
 * the interface (IN_DEV_MAXCONF in the kernel), so a setting can be made good on the interface
 * unless "all" is above it.
 */
struct conf_rule {
	const char *id;
	const char *name;
	size_t offset;
	int want;
	bool (*good)(const struct host_uplink *u, int value);
	const char *why;
};

/* Nobody asks by ARP there. */
static bool no_arp(const struct host_uplink *u)
{
	return u && link_is_l3(u->arptype);
}

static bool arp_ignore_good(const struct host_uplink *u, int v)
{
	if (no_arp(u))
		return true;
	/* 4 to 7 are reserved, and the kernel takes them for 0. */
	return v == 1 || v == 2 || v == 3 || v == 8;
}

static bool arp_announce_good(const struct host_uplink *u, int v)
{
	if (no_arp(u))
		return true;
	/* 1 still announces a shared address that lies in the uplink's own subnet; above 2 counts as 0. */
	return v == 2;
}

static bool rp_filter_good(const struct host_uplink *u, int v)
{
	return v != 1 || u->default_route;
}

static const struct conf_rule conf_rules[] = {
	{ "sysctl.arp_ignore", "arp_ignore", offsetof(struct host_uplink, arp_ignore), 1,
	  arp_ignore_good,
	  "it answers ARP for shared addresses and takes the other machines' packets" },
	{ "sysctl.arp_announce", "arp_announce", offsetof(struct host_uplink, arp_announce), 2,
	  arp_announce_good,
	  "its ARP requests can carry a shared address and move the gateway's neighbour entry" },
	{ "sysctl.rp_filter", "rp_filter", offsetof(struct host_uplink, rp_filter), 2,
	  rp_filter_good,
	  "strict, and the default route does not lead out here: packets from afar are dropped" },
};
#define N_CONF_RULES (sizeof(conf_rules) / sizeof(conf_rules[0]))

enum conf_state { CONF_GOOD, CONF_FIXABLE, CONF_BAD, CONF_UNREADABLE };

static enum conf_state conf_state(const struct conf_rule *r, const struct host_uplink *u,
				  int *ret_value)
{
	const struct host_conf *v = (const void *)((const char *)u + r->offset);

	if (v->all < 0 || v->iface < 0) {
		*ret_value = v->all < 0 ? v->all : v->iface;
		return CONF_UNREADABLE;
	}
	*ret_value = v->all > v->iface ? v->all : v->iface;
	if (r->good(u, *ret_value))
		return CONF_GOOD;
	return r->good(u, v->all > r->want ? v->all : r->want) ? CONF_FIXABLE : CONF_BAD;
}

/* Most that can be asked for, besides a change for each address and each forwarding interface. */
#define CHANGES_FIXED (CONFIG_UPLINKS_MAX * (N_CONF_RULES + 2) + 5)

struct changes {
	struct host_change *v;
	size_t n;
};

static void changes_add(struct changes *cs, const char *kind, const char *key, const char *was,
			const char *now)
{
	/* Keys and values come from tables here and from interface names: they fit. */
	if (host_change_set(&cs->v[cs->n], kind, key, was, now) == 0)
		cs->n++;
}

static void changes_add_int(struct changes *cs, const char *key, int was, int now)
{
	char a[16], b[16];

	snprintf(a, sizeof(a), "%d", was);
	snprintf(b, sizeof(b), "%d", now);
	changes_add(cs, HOST_KIND_SYSCTL, key, a, b);
}

static void plan_uplinks(const struct host_facts *f, struct changes *cs)
{
	char key[SYSCTL_KEY_LEN];

	for (size_t i = 0; i < f->n_uplinks; i++) {
		const struct host_uplink *u = &f->uplinks[i];

		for (size_t j = 0; u->ifindex && j < N_CONF_RULES; j++) {
			const struct conf_rule *r = &conf_rules[j];
			const struct host_conf *v = (const void *)((const char *)u + r->offset);
			int value;

			if (conf_state(r, u, &value) == CONF_FIXABLE)
				changes_add_int(cs, sysctl_conf_key(u->name, r->name, key),
						v->iface, r->want);
		}
	}
}

static void plan_forwarding(const struct host_facts *f, struct changes *cs)
{
	char key[SYSCTL_KEY_LEN];

	if (!f->has_clients)
		return;
	if (f->ip_forward == 0) {
		for (size_t i = 0; i < f->n_forwarding; i++)
			changes_add_int(cs, sysctl_conf_key(f->forwarding[i], "forwarding", key), 1,
					1);
		if (f->accept_redirects >= 0)
			changes_add_int(cs, KEY_REDIRECTS, f->accept_redirects,
					f->accept_redirects);
		changes_add_int(cs, KEY_FORWARD, 0, 1);
		return;
	}
	for (size_t i = 0; i < f->n_uplinks; i++)
		if (f->uplinks[i].ifindex && f->uplinks[i].forwarding == 0)
			changes_add_int(cs, sysctl_conf_key(f->uplinks[i].name, "forwarding", key),
					0, 1);
}

static bool has_hairpin(const struct config *c)
{
	for (size_t i = 0; i < c->n_pools; i++)
		if (c->pools[i].hairpin && c->pools[i].n_clients)
			return true;
	return false;
}

/* Does lo let in what has a source of the host's own? 0, 1, or -errno. */
static int accepts_local(const struct host_facts *f)
{
	if (f->lo_accept_local.all < 0 || f->lo_accept_local.iface < 0)
		return f->lo_accept_local.all < 0 ? f->lo_accept_local.all
						  : f->lo_accept_local.iface;
	return f->lo_accept_local.all || f->lo_accept_local.iface;
}

/*
 * IPv6 asks "all" alone whether to forward. A host that forwards takes no routes from router advertisements any more, and forgets those it has, but where accept_ra
 * is 2: so that goes first, on the uplinks that take them now.
 */
static void plan_forwarding6(const struct host_facts *f, struct changes *cs)
{
	char key[SYSCTL_KEY_LEN];

	if (!f->has_clients6 || f->forwarding6_all != 0)
		return;
	for (size_t i = 0; i < f->n_uplinks; i++)
		if (f->uplinks[i].ifindex && f->uplinks[i].accept_ra == 1)
			changes_add_int(cs, sysctl_conf6_key(f->uplinks[i].name, "accept_ra", key),
					1, 2);
	for (size_t i = 0; i < f->n_forwarding6; i++)
		changes_add_int(cs, sysctl_conf6_key(f->forwarding6[i], "forwarding", key), 1, 1);
	changes_add_int(cs, KEY_FORWARD6, 0, 1);
}

/* The first IPv6 address that sockets can't bind without net.ipv6.ip_nonlocal_bind; NULL: none. */
static const struct host_addr *nonlocal6(const struct host_facts *f)
{
	for (size_t i = 0; i < f->n_addrs; i++)
		if (!addr_is_v4(&f->addrs[i].addr) && !f->addrs[i].configured)
			return &f->addrs[i];
	return NULL;
}

int hostplan_changes(const struct host_facts *f, const struct config *c, struct host_change **ret,
		     size_t *ret_n)
{
	struct changes cs = { 0 };
	char text[ADDR_STRLEN];

	cs.v = calloc(CHANGES_FIXED + f->n_forwarding + f->n_forwarding6 + f->n_addrs,
		      sizeof(*cs.v));
	if (!cs.v)
		return -ENOMEM;
	if (c->set_sysctls) {
		plan_uplinks(f, &cs);
		plan_forwarding(f, &cs);
		plan_forwarding6(f, &cs);
		if (has_hairpin(c) && accepts_local(f) == 0)
			changes_add_int(&cs, KEY_ACCEPT, 0, 1);
		if (f->nonlocal_bind6 == 0 && nonlocal6(f))
			changes_add_int(&cs, KEY_NONLOCAL6, 0, 1);
	}
	/* Last, so that no address is there before ARP is silent about it. */
	if (c->set_routes)
		for (size_t i = 0; i < f->n_addrs; i++)
			if (f->addrs[i].route == HOST_ROUTE_NONE)
				changes_add(&cs, HOST_KIND_ROUTE,
					    addr_format(&f->addrs[i].addr, text), "", "lo");
	*ret = cs.v;
	*ret_n = cs.n;
	return 0;
}

static bool route_wanted(const char *key, const struct config *c)
{
	struct addr a;

	if (addr_parse(key, &a) < 0)
		return false;
	for (size_t i = 0; i < c->n_pools; i++)
		for (size_t j = 0; j < c->pools[i].n_addresses; j++)
			if (addr_cmp(&c->pools[i].addresses[j], &a) == 0)
				return true;
	return false;
}

static bool has_ipv6(const struct config *c)
{
	for (size_t i = 0; i < c->n_pools; i++)
		for (size_t j = 0; j < c->pools[i].n_addresses; j++)
			if (!addr_is_v4(&c->pools[i].addresses[j]))
				return true;
	return false;
}

/* Has a pool clients of the family? */
static bool has_clients(const struct config *c, bool v4)
{
	for (size_t i = 0; i < c->n_pools; i++)
		for (size_t j = 0; j < c->pools[i].n_clients; j++)
			if (addr_is_v4(&c->pools[i].clients[j].addr) == v4)
				return true;
	return false;
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && !strcmp(s + n - m, end);
}

bool hostplan_wanted(const struct host_change *change, const struct config *c)
{
	char key[SYSCTL_KEY_LEN];

	if (!strcmp(change->kind, HOST_KIND_ROUTE))
		return route_wanted(change->key, c);
	if (!strcmp(change->key, KEY_NONLOCAL6))
		return has_ipv6(c);
	if (!strcmp(change->key, KEY_ACCEPT))
		return has_hairpin(c);
	if (!strcmp(change->key, KEY_FORWARD) || !strcmp(change->key, KEY_REDIRECTS) ||
	    ends_with(change->key, ".forwarding"))
		return has_clients(c, strncmp(change->key, "net.ipv6.", 9) != 0);
	if (ends_with(change->key, ".accept_ra")) {
		for (size_t i = 0; i < c->n_uplinks; i++)
			if (!strcmp(change->key, sysctl_conf6_key(c->uplinks[i], "accept_ra", key)))
				return has_clients(c, false);
		return false;
	}
	for (size_t i = 0; i < c->n_uplinks; i++)
		for (size_t j = 0; j < N_CONF_RULES; j++)
			if (!strcmp(change->key,
				    sysctl_conf_key(c->uplinks[i], conf_rules[j].name, key)))
				return true;
	return false;
}

static void judge_uplink(const struct host_facts *f, const struct host_uplink *u,
			 struct findings *out)
{
	if (!u->ifindex) {
		findings_add(out, "uplink", FINDING_ERROR, "correct uplinks in the configuration",
			     "uplink \"%s\" does not exist; links here: %s", u->name, f->links);
		return;
	}
	if (!link_can_uplink(u->arptype))
		findings_add(out, "uplink", FINDING_ERROR,
			     "name an Ethernet interface, or one without a link-layer header",
			     "uplink %s is of link type %u, which can't be one", u->name,
			     u->arptype);
	else if (u->enslaved)
		findings_add(
			out, "uplink", FINDING_WARN, "name the bridge or bond that it belongs to",
			"uplink %s is part of another interface, where its IP packets are handled",
			u->name);
	else
		findings_add(out, "uplink", FINDING_OK, NULL, "uplink %s %s, MTU %u", u->name,
			     link_is_l3(u->arptype) ? "has no link-layer header" : "is Ethernet",
			     u->mtu);
	if (!u->up)
		findings_add(out, "uplink.state", FINDING_WARN, "ip link set it up",
			     "uplink %s is down", u->name);
}

static void judge_conf(const struct host_uplink *u, const struct conf_rule *r, bool set,
		       struct findings *out)
{
	char key[SYSCTL_KEY_LEN], advice[FINDING_TEXT_LEN];
	int value;

	sysctl_conf_key(u->name, r->name, key);
	switch (conf_state(r, u, &value)) {
	case CONF_GOOD:
		findings_add(out, r->id, FINDING_OK, NULL, "%s counts as %d", key, value);
		return;
	case CONF_UNREADABLE:
		findings_add(out, r->id, FINDING_WARN, NULL, "%s can't be read: %s", key,
			     strerror(-value));
		return;
	case CONF_FIXABLE:
		if (set)
			snprintf(advice, sizeof(advice), "sluiced sets it to %d when it starts",
				 r->want);
		else
			snprintf(advice, sizeof(advice), "sysctl -w %s=%d", key, r->want);
		findings_add(out, r->id, set ? FINDING_WARN : FINDING_ERROR, advice,
			     "%s counts as %d: %s", key, value, r->why);
		return;
	case CONF_BAD:
		snprintf(advice, sizeof(advice),
			 "set net.ipv4.conf.all.%s to 0, or to %d for all interfaces", r->name,
			 r->want);
		findings_add(out, r->id, FINDING_ERROR, advice,
			     "%s counts as %d, which comes from net.ipv4.conf.all: %s", key, value,
			     r->why);
		return;
	}
}

static void judge_forwarding(const struct host_facts *f, bool set, struct findings *out)
{
	static const char id[] = "sysctl.ip_forward";
	enum severity bad = set ? FINDING_WARN : FINDING_ERROR;
	char key[SYSCTL_KEY_LEN], advice[FINDING_TEXT_LEN];

	if (!f->has_clients) {
		findings_add(out, id, FINDING_OK, NULL,
			     "no pool has clients: " KEY_FORWARD " is not needed");
		return;
	}
	if (f->ip_forward < 0) {
		findings_add(out, id, FINDING_WARN, NULL, KEY_FORWARD " can't be read: %s",
			     strerror(-f->ip_forward));
		return;
	}
	if (f->ip_forward == 0) {
		findings_add(out, id, bad,
			     set ? "sluiced sets it to 1 when it starts"
				 : "sysctl -w " KEY_FORWARD "=1",
			     KEY_FORWARD " is 0: packets of clients are not forwarded");
		return;
	}
	findings_add(out, id, FINDING_OK, NULL, KEY_FORWARD " is %d", f->ip_forward);
	for (size_t i = 0; i < f->n_uplinks; i++) {
		const struct host_uplink *u = &f->uplinks[i];

		if (!u->ifindex || u->forwarding != 0)
			continue;
		sysctl_conf_key(u->name, "forwarding", key);
		snprintf(advice, sizeof(advice), "sysctl -w %s=1", key);
		findings_add(out, id, bad, set ? "sluiced sets it to 1 when it starts" : advice,
			     "%s is 0: replies to clients are not forwarded", key);
	}
}

static void judge_hairpin(const struct host_facts *f, const struct config *c, struct findings *out)
{
	static const char id[] = "sysctl.accept_local";
	int on = accepts_local(f);

	if (!has_hairpin(c))
		return;
	if (on < 0)
		findings_add(out, id, FINDING_WARN, NULL, KEY_ACCEPT " can't be read: %s",
			     strerror(-on));
	else if (!on)
		findings_add(out, id, c->set_sysctls ? FINDING_WARN : FINDING_ERROR,
			     c->set_sysctls ? "sluiced sets it to 1 when it starts"
					    : "sysctl -w " KEY_ACCEPT "=1",
			     KEY_ACCEPT " is 0: clients don't reach each other, nor this host's "
					"sockets, by shared addresses (hairpin)");
	else
		findings_add(out, id, FINDING_OK, NULL, KEY_ACCEPT " counts as 1");
}

static const char *uplink_or_null(const struct host_facts *f, const char *name)
{
	for (size_t i = 0; i < f->n_uplinks; i++)
		if (!strcmp(f->uplinks[i].name, name))
			return f->uplinks[i].name;
	return NULL;
}

static void judge_addrs(const struct host_facts *f, bool set, struct findings *out)
{
	static const char id[] = "route.local";
	size_t n_none = 0, n_good = 0;
	const struct host_addr *none = NULL;
	char text[ADDR_STRLEN], advice[FINDING_TEXT_LEN];

	if (!f->lo_up)
		findings_add(out, id, FINDING_WARN, "ip link set lo up",
			     "lo is down: programs of this host can't reach its own addresses");
	for (size_t i = 0; i < f->n_addrs; i++) {
		const struct host_addr *a = &f->addrs[i];

		addr_format(&a->addr, text);
		if (a->route == HOST_ROUTE_NONE) {
			none = none ? none : a;
			n_none++;
		} else if (a->route == HOST_ROUTE_WRONG) {
			findings_add(out, id, FINDING_ERROR,
				     "see: ip route show table local; take the other route away",
				     "%s is something else than a host here, on %s", text, a->dev);
		} else if (uplink_or_null(f, a->dev)) {
			findings_add(out, id, FINDING_WARN,
				     "take it off the interface, unless no other machine shares it",
				     "shared address %s is configured on uplink %s, which answers "
				     "%s for it",
				     text, a->dev,
				     addr_is_v4(&a->addr) ? "ARP" : "neighbour solicitations");
		} else {
			n_good++;
		}
	}
	if (none) {
		addr_format(&none->addr, text);
		snprintf(advice, sizeof(advice), "ip route add local %s dev lo", text);
		findings_add(out, id, set ? FINDING_WARN : FINDING_ERROR,
			     set ? "sluiced adds it when it starts or reloads" : advice,
			     "%zu of %zu shared addresses have no local route, the first is %s",
			     n_none, f->n_addrs, text);
	}
	if (n_good)
		findings_add(out, id, FINDING_OK, NULL,
			     "%zu of %zu shared addresses have a local route", n_good, f->n_addrs);
}

static void judge_nonlocal6(const struct host_facts *f, bool set, struct findings *out)
{
	static const char id[] = "sysctl.ip_nonlocal_bind";
	const struct host_addr *a = nonlocal6(f);
	char text[ADDR_STRLEN];

	if (!a)
		findings_add(out, id, FINDING_OK, NULL,
			     "every IPv6 shared address is one of an interface: " KEY_NONLOCAL6
			     " is not needed");
	else if (f->nonlocal_bind6 < 0)
		findings_add(out, id, FINDING_WARN, NULL, KEY_NONLOCAL6 " can't be read: %s",
			     strerror(-f->nonlocal_bind6));
	else if (f->nonlocal_bind6 == 0)
		findings_add(out, id, set ? FINDING_WARN : FINDING_ERROR,
			     set ? "sluiced sets it to 1 when it starts"
				 : "sysctl -w " KEY_NONLOCAL6 "=1",
			     KEY_NONLOCAL6 " is 0: only programs that set IPV6_FREEBIND can bind "
					   "%s, a local route is not enough",
			     addr_format(&a->addr, text));
	else
		findings_add(out, id, FINDING_OK, NULL, KEY_NONLOCAL6 " is %d", f->nonlocal_bind6);
}

/* On some uplinks IPv6 may be off for good reason, but not on all of them. */
static void judge_uplinks6(const struct host_facts *f, struct findings *out)
{
	size_t n_on = 0, n_off = 0;
	char key[SYSCTL_KEY_LEN], advice[FINDING_TEXT_LEN];

	for (size_t i = 0; i < f->n_uplinks; i++) {
		n_off += f->uplinks[i].ifindex && f->uplinks[i].disable_ipv6 == 1;
		n_on += f->uplinks[i].ifindex && f->uplinks[i].disable_ipv6 != 1;
	}
	for (size_t i = 0; n_off && i < f->n_uplinks; i++) {
		const struct host_uplink *u = &f->uplinks[i];

		if (!u->ifindex || u->disable_ipv6 != 1)
			continue;
		snprintf(advice, sizeof(advice), "sysctl -w %s=0",
			 sysctl_conf6_key(u->name, "disable_ipv6", key));
		findings_add(out, "ipv6", n_on ? FINDING_INFO : FINDING_ERROR, advice,
			     "IPv6 is disabled on uplink %s: nothing leaves there from an IPv6 "
			     "shared address",
			     u->name);
	}
	if (!n_on)
		return;
	for (size_t i = 0; i < f->n_uplinks; i++)
		if (f->uplinks[i].default_route6)
			return;
	findings_add(out, "uplink.way_out", FINDING_WARN,
		     "give the host an IPv6 default route out of an uplink, or see that its routes "
		     "are meant so",
		     "no IPv6 default route leads out of an uplink");
}

static void judge_forwarding6(const struct host_facts *f, bool set, struct findings *out)
{
	static const char id[] = "sysctl.ipv6_forwarding";
	char key[SYSCTL_KEY_LEN], advice[FINDING_TEXT_LEN];

	if (!f->has_clients6)
		return;
	if (f->forwarding6_all < 0) {
		findings_add(out, id, FINDING_WARN, NULL, KEY_FORWARD6 " can't be read: %s",
			     strerror(-f->forwarding6_all));
		return;
	}
	if (f->forwarding6_all == 0) {
		findings_add(out, id, set ? FINDING_WARN : FINDING_ERROR,
			     set ? "sluiced sets it to 1 when it starts"
				 : "sysctl -w " KEY_FORWARD6 "=1",
			     KEY_FORWARD6 " is 0: IPv6 packets of clients are not forwarded");
		return;
	}
	findings_add(out, id, FINDING_OK, NULL, KEY_FORWARD6 " is %d", f->forwarding6_all);
	for (size_t i = 0; i < f->n_uplinks; i++) {
		if (!f->uplinks[i].ifindex || f->uplinks[i].accept_ra != 1)
			continue;
		sysctl_conf6_key(f->uplinks[i].name, "accept_ra", key);
		snprintf(advice, sizeof(advice),
			 "sysctl -w %s=2, if routers tell this host its routes", key);
		findings_add(out, id, FINDING_INFO, advice,
			     "%s is 1: a host that forwards takes no routes from router "
			     "advertisements then",
			     key);
	}
}

static void judge_ipv6(const struct host_facts *f, bool set, struct findings *out)
{
	static const char id[] = "ipv6";

	if (!f->n_addrs6)
		return;
	if (f->nonlocal_bind6 == -ENOENT) {
		findings_add(out, id, FINDING_ERROR,
			     "load the module ipv6, or boot without ipv6.disable=1",
			     "the kernel has no IPv6 here, and %zu shared addresses are IPv6",
			     f->n_addrs6);
		return;
	}
	if (f->lo_disable_ipv6 == 1)
		findings_add(out, id, FINDING_ERROR, "sysctl -w net.ipv6.conf.lo.disable_ipv6=0",
			     "IPv6 is disabled on lo: IPv6 shared addresses can't have local "
			     "routes");
	judge_nonlocal6(f, set, out);
	judge_forwarding6(f, set, out);
	judge_uplinks6(f, out);
}

static void judge_clients(const struct host_facts *f, struct findings *out)
{
	size_t n = 0;
	const struct host_client *first = NULL;
	char text[PREFIX_STRLEN];

	for (size_t i = 0; i < f->n_clients; i++) {
		if (f->clients[i].routed)
			continue;
		first = first ? first : &f->clients[i];
		n++;
	}
	if (first)
		findings_add(out, "route.clients", FINDING_WARN,
			     "bring their interface up, or add a route",
			     "%zu of %zu client prefixes have no route but by an uplink, the first "
			     "is %s",
			     n, f->n_clients, prefix_format(&first->prefix, text));
	else if (f->n_clients)
		findings_add(out, "route.clients", FINDING_OK, NULL,
			     "every client prefix has a route");
}

static void judge_inner(const struct host_facts *f, struct findings *out)
{
	char names[FINDING_TEXT_LEN / 2] = "";
	size_t at = 0, n = 0;

	for (size_t i = 0; i < f->n_inner; i++) {
		const struct host_conf *v = &f->inner[i].arp_ignore;

		if (v->all < 0 || v->iface < 0 ||
		    arp_ignore_good(NULL, v->all > v->iface ? v->all : v->iface))
			continue;
		n++;
		if (at + IFNAMSIZ + 8 < sizeof(names))
			at += snprintf(names + at, sizeof(names) - at, "%s%s", at ? ", " : "",
				       f->inner[i].name);
		else if (names[at - 1] != '.')
			at += snprintf(names + at, sizeof(names) - at, " ...");
	}
	if (n)
		findings_add(
			out, "sysctl.arp_ignore", FINDING_INFO,
			"set arp_ignore to 1 where another machine of the fleet is on the link",
			"%zu interfaces that are no uplinks answer ARP for shared addresses: %s", n,
			names);
}

static void judge_port_range(const struct host_facts *f, const struct config_pool *p,
			     struct findings *out)
{
	static const char id[] = "sysctl.port_range";
	size_t n_whole = 0, n_rest = 0;
	const struct range *whole = NULL, *rest = NULL;
	char text[RANGE_STRLEN];

	for (size_t i = 0; i < p->n_slices; i++) {
		const struct range *s = &p->slices[i];

		if (s->first >= f->port_lo && s->last <= f->port_hi) {
			whole = whole ? whole : s;
			n_whole++;
		} else {
			rest = rest ? rest : s;
			n_rest++;
		}
	}
	if (whole)
		findings_add(
			out, id, FINDING_INFO,
			"the range serves all programs: sluiced reports it and never changes it",
			"pool %s: %zu of %zu slices lie in ip_local_port_range %d-%d (the first: "
			"%s), "
			"so a program that binds the address with port 0 can be given their ports",
			p->name, n_whole, p->n_slices, f->port_lo, f->port_hi,
			range_format(whole, text));
	if (rest)
		findings_add(
			out, id, FINDING_WARN,
			"widen net.ipv4.ip_local_port_range if sockets are to use these slices",
			"pool %s: %zu of %zu slices are not wholly in ip_local_port_range %d-%d "
			"(the "
			"first: %s): the kernel gives sockets no port outside it",
			p->name, n_rest, p->n_slices, f->port_lo, f->port_hi,
			range_format(rest, text));
}

static void judge_reserved(const struct host_facts *f, const struct config_pool *p,
			   struct findings *out)
{
	unsigned int sum = 0, n;

	for (size_t i = 0; i < p->n_slices; i++) {
		if (hostplan_ports_in(f->reserved, p->slices[i].first, p->slices[i].last, &n) < 0)
			return;
		sum += n;
	}
	if (sum)
		findings_add(
			out, "sysctl.reserved_ports", FINDING_INFO,
			"reserving ports keeps sockets with a lease away from them, too",
			"pool %s: %u ports of its slices are in net.ipv4.ip_local_reserved_ports",
			p->name, sum);
}

/* What leaves by an interface that is no uplink is neither translated nor guarded. */
static void judge_way_out(const struct host_facts *f, struct findings *out)
{
	for (size_t i = 0; i < f->n_uplinks; i++)
		if (f->uplinks[i].default_route)
			return;
	findings_add(out, "uplink.way_out", FINDING_WARN,
		     "name every interface that leads out in uplinks, or see that its routes are "
		     "meant so",
		     "no default route leads out of an uplink: what leaves by another interface is "
		     "neither "
		     "translated nor guarded");
}

void hostplan_judge(const struct host_facts *f, const struct config *c, struct findings *out)
{
	for (size_t i = 0; i < f->n_uplinks; i++) {
		judge_uplink(f, &f->uplinks[i], out);
		for (size_t j = 0; f->uplinks[i].ifindex && j < N_CONF_RULES; j++)
			judge_conf(&f->uplinks[i], &conf_rules[j], c->set_sysctls, out);
	}
	judge_way_out(f, out);
	judge_inner(f, out);
	judge_forwarding(f, c->set_sysctls, out);
	judge_hairpin(f, c, out);
	judge_addrs(f, c->set_routes, out);
	judge_ipv6(f, c->set_sysctls, out);
	judge_clients(f, out);
	if (f->port_lo < 0)
		findings_add(out, "sysctl.port_range", FINDING_WARN, NULL,
			     "net.ipv4.ip_local_port_range can't be read: %s",
			     strerror(-f->port_lo));
	for (size_t i = 0; f->port_lo >= 0 && i < c->n_pools; i++)
		judge_port_range(f, &c->pools[i], out);
	for (size_t i = 0; i < c->n_pools; i++)
		judge_reserved(f, &c->pools[i], out);
}

/* A port number at *s; moves *s behind it. */
static int parse_port(const char **s, unsigned long *ret)
{
	char *end;

	if (**s < '0' || **s > '9')
		return -EINVAL;
	*ret = strtoul(*s, &end, 10);
	*s = end;
	return *ret <= UINT16_MAX ? 0 : -EINVAL;
}

int hostplan_ports_in(const char *list, uint16_t first, uint16_t last, unsigned int *ret)
{
	unsigned int n = 0;

	for (const char *s = list; *s; s += *s == ',') {
		unsigned long lo, hi;

		if (parse_port(&s, &lo) < 0)
			return -EINVAL;
		hi = lo;
		if (*s == '-' && (s++, parse_port(&s, &hi) < 0))
			return -EINVAL;
		if (hi < lo || (*s && *s != ','))
			return -EINVAL;
		lo = lo < first ? first : lo;
		hi = hi > last ? last : hi;
		if (lo <= hi)
			n += hi - lo + 1;
	}
	*ret = n;
	return 0;
}
