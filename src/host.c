/* SPDX-License-Identifier: BSD-2-Clause */
#include "host.h"

#include <assert.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"
#include "hostfacts.h"
#include "links.h"
#include "netlink.h"
#include "onlink.h"
#include "sysctl.h"

struct watched {
	char name[IFNAMSIZ];
	int ifindex; /* 0: gone */
};

struct host_session {
	struct netlink *nl;
	struct netlink_monitor *monitor;
	struct watched watched[CONFIG_UPLINKS_MAX];
	size_t n_watched;
};

int host_open(struct host_session **ret, struct errtext *err)
{
	struct host_session *h = calloc(1, sizeof(*h));

	if (!h)
		return errtext_set(err, ENOMEM, "out of memory");
	int r = netlink_monitor_open(&h->monitor);

	if (r == 0)
		r = netlink_open(&h->nl);
	if (r < 0) {
		host_close(h);
		return errtext_set(err, -r, "netlink socket: %s", strerror(-r));
	}
	*ret = h;
	return 0;
}

void host_close(struct host_session *h)
{
	if (!h)
		return;
	netlink_monitor_close(h->monitor);
	netlink_close(h->nl);
	free(h);
}

static struct host_link host_link_from(const struct netlink_link *l)
{
	struct host_link link = {
		.ifindex = l->ifindex, .up = l->up, .arptype = l->arptype, .mtu = l->mtu
	};

	memcpy(link.name, l->name, sizeof(link.name));
	return link;
}

static int uplink_find(const struct links *ls, const char *name, struct host_link *ret,
		       struct errtext *err)
{
	const struct netlink_link *l = links_find(ls, name);
	char names[HOSTPLAN_LINKS_LEN];

	if (!l) {
		links_names(ls, names, sizeof(names));
		return errtext_set(err, ENODEV, "uplink \"%s\" does not exist; links here: %s",
				   name, names);
	}
	if (!link_can_uplink(l->arptype))
		return errtext_set(err, ENOTSUP,
				   "uplink \"%s\" is of link type %u: an uplink is an Ethernet "
				   "interface, or one without a link-layer header (tun, WireGuard, "
				   "PPP, ipip, sit, ip6tnl)",
				   name, l->arptype);
	*ret = host_link_from(l);
	return 0;
}

int host_links(struct host_session *h, char *const names[], size_t n, struct host_link ret[],
	       struct errtext *err)
{
	struct host_link found[CONFIG_UPLINKS_MAX];
	struct links ls;

	assert(n <= CONFIG_UPLINKS_MAX);
	int r = links_read(h->nl, &ls);

	if (r < 0)
		return errtext_set(err, -r, "the links can't be listed: %s", strerror(-r));
	for (size_t i = 0; r == 0 && i < n; i++)
		r = uplink_find(&ls, names[i], &found[i], err);
	links_done(&ls);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		h->watched[i].ifindex = found[i].ifindex;
		memcpy(h->watched[i].name, found[i].name, IFNAMSIZ);
		ret[i] = found[i];
	}
	h->n_watched = n;
	return 0;
}

static bool is_uplink(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_uplinks; i++)
		if (!strcmp(c->uplinks[i], name))
			return true;
	return false;
}

int host_inner(struct host_session *h, const struct config *c, struct host_link **ret,
	       size_t *ret_n, struct errtext *err)
{
	struct host_link *v;
	struct links ls;
	size_t n = 0;
	int r = links_read(h->nl, &ls);

	if (r < 0)
		return errtext_set(err, -r, "the links can't be listed: %s", strerror(-r));
	v = calloc(ls.n ?: 1, sizeof(*v));
	for (size_t i = 0; v && i < ls.n; i++) {
		const struct netlink_link *l = &ls.v[i];
		const struct netlink_link *m = l->master ? links_by_index(&ls, l->master) : NULL;

		/* A VRF leaves IP on its interfaces. */
		if (l->up && link_can_uplink(l->arptype) && !is_uplink(c, l->name) &&
		    (!m || !strcmp(m->kind, "vrf")))
			v[n++] = host_link_from(l);
	}
	links_done(&ls);
	if (!v)
		return errtext_set(err, ENOMEM, "out of memory");
	*ret = v;
	*ret_n = n;
	return 0;
}

int host_link_fd(const struct host_session *h)
{
	return netlink_monitor_fd(h->monitor);
}

/* Does the event concern an uplink? Then *ret is filled. */
static bool link_event(struct watched *w, enum netlink_event event, const struct netlink_link *l,
		       struct host_link_event *ret)
{
	bool same_name = !strcmp(w->name, l->name);

	if (event == NETLINK_LINK_NEW && same_name) {
		w->ifindex = l->ifindex;
		*ret = (struct host_link_event){ HOST_LINK_CHANGED, host_link_from(l) };
		return true;
	}
	/* Known by its number: deleted, or it has another name now. */
	if (w->ifindex == 0 || l->ifindex != w->ifindex)
		return false;
	w->ifindex = 0;
	*ret = (struct host_link_event){ .verb = HOST_LINK_GONE };
	memcpy(ret->link.name, w->name, IFNAMSIZ);
	return true;
}

int host_link_event(struct host_session *h, struct host_link_event *ret)
{
	enum netlink_event event;
	struct netlink_link l;
	int r;

	while ((r = netlink_monitor_read(h->monitor, &event, &l)) > 0) {
		if (event == NETLINK_LOST) {
			*ret = (struct host_link_event){ .verb = HOST_LINK_RESYNC };
			return 1;
		}
		for (size_t i = 0; i < h->n_watched; i++)
			if (link_event(&h->watched[i], event, &l, ret))
				return 1;
	}
	return r;
}

int host_check(struct host_session *h, const struct config *c, struct findings *out,
	       struct errtext *err)
{
	struct host_facts f;
	int r = hostfacts_read(h->nl, c, &f, err);

	if (r < 0)
		return r;
	hostplan_judge(&f, c, out);
	host_facts_done(&f);
	return 0;
}

/* What the kernel means by its answer to a route for IPv6. */
static const char *why_not6(int r)
{
	switch (r) {
	case -EACCES:
		return "IPv6 is disabled there (net.ipv6.conf.lo.disable_ipv6)";
	case -ENETDOWN:
		return "it is down";
	case -EAFNOSUPPORT:
	case -EOPNOTSUPP:
		return "this kernel has no IPv6";
	default:
		return strerror(-r);
	}
}

static int apply_route(struct host_session *h, const struct host_change *ch, struct errtext *err)
{
	struct addr a;
	int r = addr_parse(ch->key, &a);

	if (r == 0)
		r = netlink_local_add(h->nl, &a);
	if (r == 0 || r == -EEXIST)
		return 0;
	return errtext_set(err, -r, "local route for %s on lo can't be added: %s", ch->key,
			   addr_is_v4(&a) ? strerror(-r) : why_not6(r));
}

static int apply_sysctl(const struct host_change *ch, struct errtext *err)
{
	if (!strcmp(ch->was, ch->now))
		return 0;
	int r = sysctl_write(ch->key, ch->now);

	if (r < 0)
		return errtext_set(err, -r, "%s can't be set to %s: %s", ch->key, ch->now,
				   strerror(-r));
	return 0;
}

int host_apply(struct host_session *h, const struct host_change *changes, size_t n,
	       struct errtext *err)
{
	for (size_t i = 0; i < n; i++) {
		int r = !strcmp(changes[i].kind, HOST_KIND_ROUTE) ? apply_route(h, &changes[i], err)
								  : apply_sysctl(&changes[i], err);

		if (r < 0)
			return r;
	}
	return 0;
}

int host_plan(struct host_session *h, const struct config *c, struct host_change **ret,
	      size_t *ret_n, struct errtext *err)
{
	struct host_facts f;
	int r = hostfacts_read(h->nl, c, &f, err);

	if (r < 0)
		return r;
	r = hostplan_changes(&f, c, ret, ret_n);
	host_facts_done(&f);
	return r < 0 ? errtext_set(err, -r, "out of memory") : 0;
}

int host_prepare(struct host_session *h, const struct config *c, const struct host_recorder *rec,
		 struct errtext *err)
{
	struct host_change *changes;
	size_t n;
	int r = host_plan(h, c, &changes, &n, err);

	if (r < 0)
		return r;
	if (n)
		r = rec->record(rec->arg, changes, n, err);
	if (r == 0)
		r = host_apply(h, changes, n, err);
	free(changes);
	return r;
}

struct find_route {
	struct prefix dst;
	bool ours, others;
};

static int find_route(void *arg, const struct netlink_route *r)
{
	struct find_route *find = arg;

	if (r->type != RTN_LOCAL || r->dst.len != find->dst.len ||
	    addr_cmp(&r->dst.addr, &find->dst.addr))
		return 0;
	if (r->protocol == NETLINK_PROTO_SLUICE)
		find->ours = true;
	else
		find->others = true;
	return 0;
}

/* Removing names our protocol number, so the kernel touches nobody else's route. */
static int restore_route(struct host_session *h, const struct host_change *ch, struct findings *out)
{
	static const char id[] = "restore.route";
	struct find_route find = { .dst.len = 128 };
	int r = addr_parse(ch->key, &find.dst.addr);

	if (r == 0)
		r = netlink_local_rm(h->nl, &find.dst.addr);
	if (r == 0) {
		findings_add(out, id, FINDING_OK, NULL, "local route for %s removed", ch->key);
		return 0;
	}
	if (r != -ESRCH) {
		findings_add(out, id, FINDING_ERROR, NULL,
			     "local route for %s can't be removed: %s", ch->key, strerror(-r));
		return r;
	}
	r = (addr_is_v4(&find.dst.addr) ? netlink_routes : netlink_routes6)(h->nl, RT_TABLE_LOCAL,
									    find_route, &find);
	if (r == 0 && find.others)
		findings_add(out, id, FINDING_WARN, "remove it if nobody needs it",
			     "the local route for %s is somebody else's by now, and stays",
			     ch->key);
	return 0;
}

static int restore_sysctl(const struct host_change *ch, struct findings *out)
{
	static const char id[] = "restore.sysctl";
	bool keep = !strcmp(ch->was, ch->now);
	char value[SYSCTL_VAL_LEN];
	const char *all = strncmp(ch->key, "net.ipv6.", 9) ? "net.ipv4.ip_forward"
							   : "net.ipv6.conf.all.forwarding";
	int forward, r = sysctl_read(ch->key, value, sizeof(value));

	if (r == -ENOENT) /* its interface is gone, and the setting with it */
		return 0;
	if (r == 0 && !strcmp(value, ch->was))
		return 0;
	if (r == 0 && !keep && strcmp(value, ch->now)) {
		findings_add(out, id, FINDING_WARN, NULL,
			     "%s is %s: neither what it was (%s) nor what sluiced made of it (%s), "
			     "and stays",
			     ch->key, value, ch->was, ch->now);
		return 0;
	}
	/* Kept for when forwarding is taken back, which has happened by now unless somebody else needs it. */
	if (r == 0 && keep && (sysctl_read_int(all, &forward) < 0 || forward))
		return 0;
	if (r == 0)
		r = sysctl_write(ch->key, ch->was);
	if (r < 0) {
		findings_add(out, id, FINDING_ERROR, NULL, "%s can't be set back to %s: %s",
			     ch->key, ch->was, strerror(-r));
		return r;
	}
	findings_add(out, id, FINDING_OK, NULL, "%s set back to %s", ch->key, ch->was);
	return 0;
}

int host_restore(struct host_session *h, const struct host_change *changes, size_t n, bool done[],
		 struct findings *out)
{
	int first = 0;

	for (size_t i = 0; i < n; i++) {
		int r = !strcmp(changes[i].kind, HOST_KIND_ROUTE)
				? restore_route(h, &changes[i], out)
				: restore_sysctl(&changes[i], out);

		done[i] = r == 0;
		if (r < 0 && first == 0)
			first = r;
	}
	return first;
}

int host_src_towards(struct host_session *h, const struct addr *dst, struct addr *ret_src,
		     int *ret_ifindex)
{
	return netlink_route_get(h->nl, dst, ret_src, ret_ifindex);
}

struct chain_names {
	char *buf;
	size_t size, at, n;
};

static int chain_add(void *arg, const struct netlink_chain *c)
{
	struct chain_names *names = arg;

	names->n++;
	if (names->at < names->size)
		names->at += snprintf(names->buf + names->at, names->size - names->at, "%s%s %s %s",
				      names->at ? ", " : "", c->family, c->table, c->name);
	return 0;
}

int host_nat_chains(char *buf, size_t size, size_t *ret_n)
{
	struct chain_names names = { 0 };
	int r = -EAGAIN;

	for (int i = 0; r == -EAGAIN && i < NETLINK_TRIES; i++) {
		names = (struct chain_names){ .buf = buf, .size = size };
		buf[0] = '\0';
		r = netlink_nat_chains(chain_add, &names);
	}
	if (r == 0)
		*ret_n = names.n;
	return r;
}

int host_onlink(struct host_session *h, const unsigned *uplinks, size_t n_uplinks,
		struct plan_prefix **ret, size_t *ret_n, struct errtext *err)
{
	return onlink_read(h->nl, uplinks, n_uplinks, ret, ret_n, err);
}
