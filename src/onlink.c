/* SPDX-License-Identifier: BSD-2-Clause */
#include "onlink.h"

#include <assert.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>

#define V4_BITS 96

/* All of IPv4. */
static const struct prefix v4_all = { .addr.b = { [10] = 0xff, [11] = 0xff }, .len = V4_BITS };

bool onlink_route(const struct netlink_route *r, const unsigned *uplinks, size_t n_uplinks,
		  struct onlink_route *ret)
{
	struct onlink_route o = { .dst = r->dst,
				  .metric = r->priority,
				  .local = r->table == RT_TABLE_LOCAL };

	if ((r->table != RT_TABLE_LOCAL && r->table != RT_TABLE_MAIN) || r->type == RTN_THROW)
		return false;
	/* What stays on the machine, and what the kernel refuses by itself, leaves by nothing. */
	if (r->type == RTN_UNICAST)
		for (size_t i = 0; i < r->n_oifs; i++)
			for (size_t j = 0; j < n_uplinks; j++)
				o.uplink |= (unsigned)r->oifs[i] == uplinks[j];
	*ret = o;
	return true;
}

static bool same_prefix(const struct prefix *a, const struct prefix *b)
{
	return a->len == b->len && !addr_cmp(&a->addr, &b->addr);
}

/* As the map sees it: bits, and no families. */
static bool holds(const struct prefix *outer, const struct prefix *inner)
{
	unsigned bytes = outer->len / 8, bits = outer->len % 8;

	return outer->len <= inner->len && !memcmp(outer->addr.b, inner->addr.b, bytes) &&
	       (!bits || !((outer->addr.b[bytes] ^ inner->addr.b[bytes]) >> (8 - bits)));
}

static bool is_v4(const struct onlink_route *r)
{
	return holds(&v4_all, &r->dst);
}

/* IPv4 first; by prefix, a shorter one before those that it holds; then as the kernel prefers. */
static int route_cmp(const void *a, const void *b)
{
	const struct onlink_route *x = a, *y = b;
	int order = addr_cmp(&x->dst.addr, &y->dst.addr);

	if (is_v4(x) != is_v4(y))
		return is_v4(x) ? -1 : 1;
	if (order)
		return order;
	if (x->dst.len != y->dst.len)
		return x->dst.len < y->dst.len ? -1 : 1;
	if (x->local != y->local)
		return x->local ? -1 : 1;
	return x->metric < y->metric ? -1 : x->metric > y->metric;
}

/*
 * One route for each prefix, the one that the kernel takes. Routes of IPv6 with several next hops may be listed as several routes of one metric: one of them at an
 * uplink is enough. Returns how many are left.
 */
static size_t unite(struct onlink_route *routes, size_t n)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		struct onlink_route *last = kept ? &routes[kept - 1] : NULL;

		if (!last || !same_prefix(&last->dst, &routes[i].dst))
			routes[kept++] = routes[i];
		else if (last->local == routes[i].local && last->metric == routes[i].metric)
			last->uplink |= routes[i].uplink;
	}
	return kept;
}

struct output {
	struct plan_prefix *list;
	size_t n, cap;
};

static int emit(struct output *out, const struct prefix *p, bool uplink, struct errtext *err)
{
	struct plan_prefix *to;

	if (out->n == SLUICE_MAX_PREFIXES)
		return errtext_set(
			err, ENOSPC,
			"more than %d prefixes of the routing table do not leave by an uplink",
			SLUICE_MAX_PREFIXES);
	if (out->n == out->cap) {
		size_t cap = out->cap ? out->cap * 2 : 64;
		struct plan_prefix *list = realloc(out->list, cap * sizeof(*list));

		if (!list)
			return errtext_set(err, ENOMEM, "out of memory");
		out->list = list;
		out->cap = cap;
	}
	to = &out->list[out->n++];
	memset(to, 0, sizeof(*to));
	to->key.prefixlen = SLUICE_LPM_POOL_BITS + p->len;
	memcpy(to->key.addr.b, p->addr.b, sizeof(p->addr.b));
	to->value = uplink;
	return 0;
}

/*
 * Walk down the prefixes of one family. A stack holds those around the present one, with what each of them says in the end: within a route of the table local
 * nothing else counts, since that table is asked first.
 */
static int walk(const struct onlink_route *routes, size_t n, struct output *out,
		struct errtext *err)
{
	const struct onlink_route *stack[129];
	size_t depth = 0;
	int r = 0;

	for (size_t i = 0; !r && i < n; i++) {
		const struct onlink_route *o = &routes[i];

		while (depth && !holds(&stack[depth - 1]->dst, &o->dst))
			depth--;
		if (depth && stack[depth - 1]->local)
			continue;
		/* Where nothing is known, an uplink is assumed. */
		if (o->uplink != (depth ? stack[depth - 1]->uplink : true))
			r = emit(out, &o->dst, o->uplink, err);
		assert(depth < sizeof(stack) / sizeof(stack[0]));
		stack[depth++] = o;
	}
	return r;
}

/*
 * For the kernel the families are two trees, in the map they are one. A prefix of IPv6 that holds all of IPv4, as the default route does, must not speak
 * for it. v4_n: what out has of IPv4.
 */
static int part_families(struct output *out, size_t v4_n, struct errtext *err)
{
	uint32_t value = 1;

	for (size_t i = 0; i < out->n; i++) {
		const struct sluice_lpm_key *k = &out->list[i].key;
		struct prefix p = { .len = (uint8_t)(k->prefixlen - SLUICE_LPM_POOL_BITS) };

		memcpy(p.addr.b, k->addr.b, sizeof(p.addr.b));
		if (i < v4_n && same_prefix(&p, &v4_all))
			return 0;
		/* The longest comes last. */
		if (i >= v4_n && holds(&p, &v4_all))
			value = out->list[i].value;
	}
	return value ? 0 : emit(out, &v4_all, true, err);
}

int onlink_build(struct onlink_route *routes, size_t n, struct plan_prefix **ret, size_t *ret_n,
		 struct errtext *err)
{
	struct output out = { 0 };
	size_t v4_routes = 0, v4_n;
	int r;

	if (n)
		qsort(routes, n, sizeof(*routes), route_cmp);
	n = unite(routes, n);
	while (v4_routes < n && is_v4(&routes[v4_routes]))
		v4_routes++;
	r = walk(routes, v4_routes, &out, err);
	v4_n = out.n;
	if (!r)
		r = walk(routes + v4_routes, n - v4_routes, &out, err);
	if (!r)
		r = part_families(&out, v4_n, err);
	if (r) {
		free(out.list);
		return r;
	}
	if (out.n)
		qsort(out.list, out.n, sizeof(*out.list), plan_prefix_cmp);
	*ret = out.list;
	*ret_n = out.n;
	return 0;
}

struct gather {
	const unsigned *uplinks;
	size_t n_uplinks;
	struct onlink_route *list;
	size_t n, cap;
};

static int gather_route(void *arg, const struct netlink_route *r)
{
	struct gather *g = arg;

	if (g->n == g->cap) {
		size_t cap = g->cap ? g->cap * 2 : 64;
		struct onlink_route *list = realloc(g->list, cap * sizeof(*list));

		if (!list)
			return -ENOMEM;
		g->list = list;
		g->cap = cap;
	}
	if (onlink_route(r, g->uplinks, g->n_uplinks, &g->list[g->n]))
		g->n++;
	return 0;
}

static int gather_all(struct netlink *nl, struct gather *g)
{
	static const uint32_t tables[] = { RT_TABLE_LOCAL, RT_TABLE_MAIN };
	int r = 0;

	g->n = 0;
	for (size_t i = 0; !r && i < sizeof(tables) / sizeof(tables[0]); i++) {
		r = netlink_routes(nl, tables[i], gather_route, g);
		if (!r)
			r = netlink_routes6(nl, tables[i], gather_route, g);
	}
	return r;
}

int onlink_read(struct netlink *nl, const unsigned *uplinks, size_t n_uplinks,
		struct plan_prefix **ret, size_t *ret_n, struct errtext *err)
{
	struct gather g = { .uplinks = uplinks, .n_uplinks = n_uplinks };
	int r = -EAGAIN;

	for (int i = 0; i < NETLINK_TRIES && r == -EAGAIN; i++)
		r = gather_all(nl, &g);
	if (r)
		errtext_set(err, -r, "reading the routing tables: %s", strerror(-r));
	else
		r = onlink_build(g.list, g.n, ret, ret_n, err);
	free(g.list);
	return r;
}
