// SPDX-License-Identifier: BSD-2-Clause
/* Which ports a request would get: whether it makes sense, which pools may serve it, and why none does. lease_search.c searches. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lease_private.h"

/* Where to search */

/* The first member whose address is not below a, or with above set, above it. */
static uint32_t member_bound(const struct lease_table *t, const struct lease_pool *p,
			     const struct addr *a, bool above)
{
	uint32_t from = 0, to = p->n_members;

	while (from < to) {
		uint32_t mid = from + (to - from) / 2;
		int c = addr_cmp(&t->slices.home[p->member[mid]].addr, a);

		if (c < 0 || (above && c == 0))
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

/* Members of the family that is asked for. Of those of IPv6 some may lie below ::ffff:0:0, where no public address is: they are not found. */
static void family_bounds(const struct lease_search *s, struct lease_candidate *c)
{
	const struct addr first = addr_from_v4(0), last = addr_from_v4(UINT32_MAX);

	if (s->req->family == 4)
		c->from = member_bound(s->t, c->pool, &first, false);
	else
		c->from = member_bound(s->t, c->pool, &last, true);
	if (s->req->family == 4)
		c->to = member_bound(s->t, c->pool, &last, true);
}

static void candidate_add(struct lease_search *s, struct lease_pool *p)
{
	struct lease_candidate c = { .pool = p, .to = p ? p->n_members : 0 };

	if (!c.to)
		return;
	for (size_t i = 0; i < s->n_candidates; i++)
		if (s->candidate[i].pool == p)
			return;
	if (s->req->addr) {
		c.from = member_bound(s->t, p, s->req->addr, false);
		c.to = member_bound(s->t, p, s->req->addr, true);
	} else if (s->req->family) {
		family_bounds(s, &c);
	}
	c.max = lease_fair_max(s->t, p, s->req, s->req->leases);
	s->candidate[s->n_candidates++] = c;
}

/* The pools that are asked for. Any: beginning with that of a random slice. */
static void candidates_find(struct lease_search *s, uint64_t random)
{
	const struct lease_request *req = s->req;
	const struct lease_table *t = s->t;
	size_t first;

	if (req->pool) {
		candidate_add(s, lease_pool_find(t, req->pool));
	} else if (req->pools) {
		for (size_t i = 0; i < req->n_pools; i++)
			candidate_add(s, lease_pool_find(t, req->pools[i]));
	} else if (t->slices.n) {
		candidate_add(s, t->slices.home[lease_mix(~random) % t->slices.n].pool);
		for (first = 0; t->pools[first] != s->candidate[0].pool; first++)
			;
		for (size_t i = 1; i < t->n_pools; i++)
			candidate_add(s, t->pools[(first + i) % t->n_pools]);
	}
}

/* Drop the pools that do not have the address. */
static void candidates_trim(struct lease_search *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n_candidates; i++)
		if (s->candidate[i].from < s->candidate[i].to)
			s->candidate[n++] = s->candidate[i];
	s->n_candidates = n;
}

/* Errors */

static const char *pools_text(const struct lease_search *s, char *buf, size_t size)
{
	if (s->n_candidates == 1)
		snprintf(buf, size, "pool \"%s\"", s->candidate[0].pool->name);
	else
		snprintf(buf, size, "the %zu pools asked for", s->n_candidates);
	return buf;
}

static int no_pool(const struct lease_search *s, struct errtext *err)
{
	const struct lease_table *t = s->t;
	char names[ERRTEXT_LEN / 2] = "";
	size_t len = 0;

	for (size_t i = 0; i < t->n_pools && len < sizeof(names); i++)
		if (t->pools[i]->n_members)
			len += (size_t)snprintf(names + len, sizeof(names) - len, "%s\"%s\"",
						len ? ", " : "", t->pools[i]->name);
	if (!len)
		return errtext_set(err, ENOENT, "this machine has no slices");
	if (s->req->pool)
		return errtext_set(
			err, ENOENT,
			"no pool \"%.40s\" with slices on this machine; those that have some: %s",
			s->req->pool, names);
	return errtext_set(err, ENOENT,
			   "none of the %zu pools asked for has slices on this machine; those that "
			   "have some: %s",
			   s->req->n_pools, names);
}

/* Where a lease would begin in an empty slice, as an offset; LEASE_NOWHERE when it never fits. */
static uint32_t empty_fit(struct lease_search *s, const struct lease_home *h)
{
	uint32_t at = 0;

	if (h->ports < s->req->ports)
		return LEASE_NOWHERE;
	s->home = h;
	for (uint32_t w = 0; w < h->ports / LEASE_WORD_PORTS; w++) {
		uint64_t bits = lease_search_starts(s, w);

		if (bits) {
			at = w * LEASE_WORD_PORTS + (uint32_t)__builtin_ctzll(bits);
			return at <= h->ports - s->req->ports ? at : LEASE_NOWHERE;
		}
	}
	return LEASE_NOWHERE;
}

/* What the slices that were searched say about a request that found nothing. */
struct verdict {
	uint32_t slices;              /* with the port that was asked for */
	uint32_t could;               /* in which such a lease would fit, if it were empty */
	uint32_t live;                /* of these */
	uint32_t largest;             /* ports of the largest */
	uint64_t ports;               /* of the live ones that could */
	uint64_t free;                /* of these ports, not leased */
	const struct lease_home *one; /* the first live one that could */
	const struct lease_home *any; /* the first of all */
	const struct lease_home *big; /* the first that has ports enough, and the port */
};

static struct verdict judge(struct lease_search *s)
{
	struct verdict v = { 0 };

	for (size_t i = 0; i < s->n_candidates; i++) {
		struct lease_candidate *c = &s->candidate[i];

		for (uint32_t m = c->from; m < c->to; m++) {
			const struct lease_home *h = &s->t->slices.home[c->pool->member[m]];

			v.any = v.any ?: h;
			if (s->req->port && !lease_home_has(h, s->req->port))
				continue;
			v.slices++;
			v.largest = h->ports > v.largest ? h->ports : v.largest;
			if (!v.big && h->ports >= s->req->ports)
				v.big = h;
			if (empty_fit(s, h) == LEASE_NOWHERE)
				continue;
			v.could++;
			if (!h->live)
				continue;
			v.live++;
			v.ports += h->ports;
			v.free += h->free[s->req->protos];
			v.one = v.one ?: h;
		}
	}
	return v;
}

static const char *shape_text(const struct lease_request *req, char *buf, size_t size)
{
	int n = snprintf(buf, size, "%s%s", req->parity == 0 ? ", the first one even" : "",
			 req->parity == 1 ? ", the first one odd" : "");

	if (req->align > 1 && n >= 0 && (size_t)n < size)
		snprintf(buf + n, size - (size_t)n, ", the first one a multiple of %u", req->align);
	return buf;
}

/* No slice could ever serve it, whatever is free. */
static int never_fits(const struct lease_search *s, const struct verdict *v, struct errtext *err)
{
	const struct lease_request *req = s->req;
	char pools[CONFIG_NAME_MAX + 32], shape[96], range[RANGE_STRLEN];
	struct range r;

	pools_text(s, pools, sizeof(pools));
	if (!v->slices) {
		r.addr = v->any->addr;
		r.first = v->any->first;
		r.last = (uint16_t)(r.first + v->any->ports - 1);
		return errtext_set(
			err, ENOENT,
			"port %u is in none of this machine's slices of %s; one of them is %s",
			req->port, pools, range_format(&r, range));
	}
	if (req->ports > v->largest)
		return errtext_set(
			err, EINVAL,
			"ports %u: the largest slice of %s%s has %u, and a lease is of one slice",
			req->ports, pools, req->port ? " with that port" : "", v->largest);
	if (req->port)
		return errtext_set(err, EINVAL,
				   "%u ports from %u on reach beyond the slice, which ends at %u",
				   req->ports, req->port, v->big->first + v->big->ports - 1);
	return errtext_set(err, EINVAL, "no slice of %s could have %u ports in a row%s", pools,
			   req->ports, shape_text(req, shape, sizeof(shape)));
}

/* Who has the port that was asked for? */
static int port_taken(const struct lease_search *s, const struct lease_home *h, struct errtext *err)
{
	const struct lease_request *req = s->req;
	char addr[ADDR_STRLEN];

	addr_format(&h->addr, addr);
	for (uint32_t port = req->port; port < req->port + req->ports; port++) {
		for (unsigned l4 = 0; l4 < LEASE_L4; l4++) {
			const struct lease *l = req->protos >> l4 & 1
							? lease_at(s->t, &h->addr, (uint16_t)port,
								   (enum sluice_l4)l4)
							: NULL;

			if (l)
				return errtext_set(
					err, EADDRINUSE, "%s port %u of %s %s",
					lease_protos_name((uint8_t)(1U << l4)), port, addr,
					l->state == LEASE_ACTIVE
						? "is leased"
						: "was leased and is still cooling down");
		}
	}
	return errtext_set(err, EADDRINUSE,
			   "%s port %u of %s%s in use by NAT or by a socket without a lease",
			   lease_protos_name(req->protos), req->port, addr,
			   req->ports > 1 ? ", or one of those behind it, is" : " is");
}

static int no_ports(const struct lease_search *s, const struct verdict *v, struct errtext *err)
{
	const struct lease_request *req = s->req;
	char pools[CONFIG_NAME_MAX + 32], shape[96], what[ADDR_STRLEN + 16] = "", addr[ADDR_STRLEN];

	pools_text(s, pools, sizeof(pools));
	if (req->port)
		snprintf(what, sizeof(what), " from %u on", req->port);
	else if (req->addr)
		snprintf(what, sizeof(what), " on %s", addr_format(req->addr, addr));
	return errtext_set(
		err, ENOSPC,
		"%s has no room for %u lease%s of %u %s port%s%s%s: %llu of %llu ports are not "
		"leased, and "
		"those may be in use by NAT or by sockets without a lease, or lie scattered",
		pools, req->leases, req->leases > 1 ? "s" : "", req->ports,
		lease_protos_name(req->protos), req->ports > 1 ? "s in a row" : "", what,
		shape_text(req, shape, sizeof(shape)), (unsigned long long)v->free,
		(unsigned long long)v->ports);
}

/* Why the search found nothing: a request that can never be served, a fence, the fair share, or no ports. */
static int explain(struct lease_search *s, uint64_t random, struct errtext *err)
{
	struct lease_candidate *capped = NULL;
	char pools[CONFIG_NAME_MAX + 32];
	struct verdict v = judge(s);

	if (!v.could)
		return never_fits(s, &v, err);
	if (!v.live)
		return errtext_set(err, EKEYEXPIRED,
				   "%u slices of %s could serve this, and the deadline of all of "
				   "them has passed: the holds must be renewed first",
				   v.could, pools_text(s, pools, sizeof(pools)));
	for (size_t i = 0; i < s->n_candidates; i++) {
		struct lease_candidate *c = &s->candidate[i];

		if (!capped && c->max < s->req->leases)
			capped = c;
		c->max = s->req->leases;
	}
	/* Only where ports are left it is the share that stands in the way. */
	if (capped && lease_search_run(s, random))
		return lease_fair_error(s->t, capped->pool, s->req, err);
	if (s->req->port && s->req->leases == 1)
		return port_taken(s, v.one, err);
	return no_ports(s, &v, err);
}

/* The request by itself */

static int request_check(const struct lease_request *req, struct errtext *err)
{
	size_t name = req->name ? strlen(req->name) : 0;
	size_t labels = req->labels ? strlen(req->labels) : 0;

	if (!req->protos || req->protos >= LEASE_PROTOS)
		return errtext_set(err, EINVAL, "protocols 0x%x: tcp, udp, or both can be leased",
				   req->protos);
	if (req->ports < 1 || req->ports > CONFIG_SLICE_MAX)
		return errtext_set(err, EINVAL, "ports %u: 1 to %u", req->ports, CONFIG_SLICE_MAX);
	if (req->leases < 1 || req->leases > LEASE_AT_ONCE)
		return errtext_set(err, EINVAL, "leases %u: 1 to %u at once", req->leases,
				   LEASE_AT_ONCE);
	if (req->align > CONFIG_SLICE_MAX || (req->align & (req->align - 1)))
		return errtext_set(err, EINVAL, "align %u: a power of two up to %u", req->align,
				   CONFIG_SLICE_MAX);
	if (req->parity < -1 || req->parity > 1)
		return errtext_set(err, EINVAL, "parity %d: even (0), odd (1) or any (-1)",
				   req->parity);
	if (req->parity == 1 && req->align > 1)
		return errtext_set(err, EINVAL,
				   "align %u: a multiple of it is never odd, as parity asks",
				   req->align);
	if (req->port && req->align > 1 && req->port % req->align)
		return errtext_set(err, EINVAL, "port %u: not a multiple of %u, as align asks",
				   req->port, req->align);
	if (req->port && req->parity >= 0 && req->port % 2 != (unsigned)req->parity)
		return errtext_set(err, EINVAL, "port %u: not %s, as parity asks", req->port,
				   req->parity ? "odd" : "even");
	if (req->ttl_s > LEASE_TTL_MAX)
		return errtext_set(err, EINVAL, "ttl %u: up to %u seconds, or 0 for no limit",
				   req->ttl_s, LEASE_TTL_MAX);
	if (name > LEASE_NAME_MAX)
		return errtext_set(err, EINVAL, "name \"%.20s...\" has %zu characters: up to %u",
				   req->name, name, LEASE_NAME_MAX);
	if (labels > LEASE_LABELS_MAX)
		return errtext_set(err, EINVAL, "labels \"%.20s...\" have %zu characters: up to %u",
				   req->labels, labels, LEASE_LABELS_MAX);
	return 0;
}

/* Bits of a word that are multiples of align, or odd. */
static uint64_t start_pattern(uint32_t align, bool odd)
{
	uint64_t bits = 0;

	for (unsigned i = odd; i < LEASE_WORD_PORTS; i += odd ? 2 : align)
		bits |= 1ULL << i;
	return bits;
}

int lease_choose(const struct lease_table *t, const struct lease_request *req, uint64_t random,
		 lease_busy_fn *busy, void *busy_arg, struct range *ret, struct errtext *err)
{
	struct lease_window window; /* emptied for each slice, as far as it goes */
	struct range got[LEASE_AT_ONCE];
	struct lease_search s = {
		.t = t,
		.req = req,
		.busy = busy,
		.busy_arg = busy_arg,
		.candidate = t->slices.candidates,
		.got = got,
		.window = &window,
	};
	int r = request_check(req, err);

	if (r < 0)
		return r;
	s.align = req->parity == 0 && req->align < 2 ? 2 : req->align ?: 1;
	s.pattern = start_pattern(s.align, req->parity == 1);
	candidates_find(&s, random);
	if (!s.n_candidates)
		return no_pool(&s, err);
	candidates_trim(&s);
	if (!s.n_candidates) {
		char addr[ADDR_STRLEN];

		if (!req->addr)
			return errtext_set(err, ENOENT,
					   "the pools asked for have no IPv%d address here",
					   req->family);
		return errtext_set(err, ENOENT,
				   "this machine has no slice of address %s in the pools asked for",
				   addr_format(req->addr, addr));
	}
	r = lease_limits_check(t, req, err);
	if (r < 0)
		return r;
	if (!lease_search_run(&s, random))
		return explain(&s, random, err);
	memcpy(ret, got, s.n * sizeof(*ret));
	return 0;
}
