// SPDX-License-Identifier: BSD-2-Clause
/* Counts by pool, by uid, by control group and by uid in a pool; and the limits on them. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lease_private.h"

/* Pools: some dozens. */

struct lease_pool *lease_pool_find(const struct lease_table *t, const char *name)
{
	for (size_t i = 0; i < t->n_pools; i++)
		if (!strcmp(t->pools[i]->name, name))
			return t->pools[i];
	return NULL;
}

struct lease_pool *lease_pool_get(struct lease_table *t, const char *name)
{
	struct lease_pool *p = lease_pool_find(t, name), **more;

	if (p)
		return p;
	more = t->realloc(t->pools, (t->n_pools + 1) * sizeof(struct lease_pool *));
	if (!more)
		return NULL;
	t->pools = more;
	p = t->realloc(NULL, sizeof(*p));
	if (!p)
		return NULL;
	memset(p, 0, sizeof(*p));
	memcpy(p->name, name, strnlen(name, CONFIG_NAME_MAX));
	t->pools[t->n_pools++] = p;
	return p;
}

void lease_pools_trim(struct lease_table *t)
{
	size_t n = 0;

	for (size_t i = 0; i < t->n_pools; i++) {
		if (t->pools[i]->refs || t->pools[i]->n_members)
			t->pools[n++] = t->pools[i];
		else
			free(t->pools[i]);
	}
	t->n_pools = n;
}

/* Tallies. */

static uint64_t tally_hash(enum lease_tally_kind kind, uint32_t uid, const struct lease_pool *pool,
			   const char *name)
{
	uint64_t h = lease_mix((uint64_t)kind << 32 | uid) ^ (uintptr_t)pool, word;

	for (size_t left = strlen(name); left;) {
		size_t part = left < sizeof(word) ? left : sizeof(word);

		word = 0;
		memcpy(&word, name, part);
		h = lease_mix(h ^ word);
		name += part;
		left -= part;
	}
	return lease_mix(h);
}

static struct lease_tally *tally_find(const struct lease_table *t, enum lease_tally_kind kind,
				      uint32_t uid, const struct lease_pool *pool, const char *name)
{
	uint64_t hash = tally_hash(kind, uid, pool, name);
	struct lease_node *n = lease_hash_chain(&t->tallies, hash);

	for (; n; n = n->next) {
		struct lease_tally *y = (struct lease_tally *)n;

		if (n->hash == hash && y->kind == kind && y->uid == uid && y->pool == pool &&
		    !strcmp(y->name, name))
			return y;
	}
	return NULL;
}

static struct lease_tally *tally_get(struct lease_table *t, enum lease_tally_kind kind,
				     uint32_t uid, const struct lease_pool *pool, const char *name)
{
	struct lease_tally *y = tally_find(t, kind, uid, pool, name);
	size_t len = strlen(name) + 1;

	if (y)
		return y;
	y = lease_hash_add(&t->tallies, tally_hash(kind, uid, pool, name), sizeof(*y) + len,
			   t->realloc);
	if (!y)
		return NULL;
	y->kind = kind;
	y->uid = uid;
	y->pool = pool;
	memcpy(y->name, name, len);
	return y;
}

static void tally_trim(struct lease_table *t, struct lease_tally *y)
{
	if (y && !y->refs)
		lease_hash_rm(&t->tallies, &y->node);
}

static bool cgroup_counts(const char *cgroup)
{
	return cgroup[0] && strcmp(cgroup, "/") != 0;
}

static void tallies_trim(struct lease_table *t, struct lease_entry *e)
{
	tally_trim(t, e->uid);
	tally_trim(t, e->cgroup);
	tally_trim(t, e->share);
	if (e->pool && !e->pool->refs && !e->pool->n_members)
		lease_pools_trim(t);
}

int lease_tally_reserve(struct lease_table *t, struct lease_entry *e)
{
	const struct lease_holder *holder = &e->lease.holder;

	e->uid = e->cgroup = e->share = NULL;
	e->pool = lease_pool_get(t, e->lease.pool);
	if (!e->pool)
		return -ENOMEM;
	e->uid = tally_get(t, LEASE_TALLY_UID, holder->uid, NULL, "");
	e->share = tally_get(t, LEASE_TALLY_SHARE, holder->uid, e->pool, "");
	if (cgroup_counts(holder->cgroup))
		e->cgroup = tally_get(t, LEASE_TALLY_CGROUP, 0, NULL, holder->cgroup);
	if (!e->uid || !e->share || (!e->cgroup && cgroup_counts(holder->cgroup))) {
		tallies_trim(t, e);
		return -ENOMEM;
	}
	e->pool->refs++;
	e->uid->refs++;
	e->share->refs++;
	if (e->cgroup)
		e->cgroup->refs++;
	return 0;
}

void lease_tally_drop(struct lease_table *t, struct lease_entry *e)
{
	e->pool->refs--;
	e->uid->refs--;
	e->share->refs--;
	if (e->cgroup)
		e->cgroup->refs--;
	tallies_trim(t, e);
}

/* sign is 1 or -1; unsigned arithmetic does the rest. */
static void counts_add(struct lease_counts *c, const struct lease *l, int sign)
{
	uint64_t ports = (uint64_t)sign * lease_range_ports(&l->ports);
	bool active = l->state == LEASE_ACTIVE;

	if (active) {
		c->active += (size_t)sign;
		c->by_kind[l->kind] += (size_t)sign;
	} else {
		c->cooling += (size_t)sign;
	}
	for (unsigned l4 = 0; l4 < LEASE_L4; l4++)
		if (l->protos >> l4 & 1)
			(active ? c->ports : c->cooling_ports)[l4] += ports;
}

static void tally_count(struct lease_table *t, const struct lease_entry *e, int sign)
{
	const struct lease *l = &e->lease;
	uint64_t ports = (uint64_t)sign * lease_range_ports(&l->ports);

	counts_add(&t->counts, l, sign);
	counts_add(&e->pool->counts, l, sign);
	for (unsigned l4 = 0; l4 < LEASE_L4; l4++) {
		bool had = e->share->ports[l4];

		if (!(l->protos >> l4 & 1))
			continue;
		e->share->ports[l4] += ports;
		e->pool->uids[l4] += (uint32_t) !!e->share->ports[l4] - had;
	}
	if (l->state != LEASE_ACTIVE)
		return;
	e->uid->leases += (uint32_t)sign;
	e->uid->active += ports * lease_protos_count(l->protos);
	if (e->cgroup)
		e->cgroup->leases += (uint32_t)sign;
}

void lease_tally_add(struct lease_table *t, const struct lease_entry *e)
{
	tally_count(t, e, 1);
}

void lease_tally_sub(struct lease_table *t, const struct lease_entry *e)
{
	tally_count(t, e, -1);
}

void lease_counts_free(struct lease_table *t)
{
	lease_hash_free(&t->tallies);
	for (size_t i = 0; i < t->n_pools; i++)
		free(t->pools[i]);
	free(t->pools);
}

void lease_count(const struct lease_table *t, const char *pool, struct lease_counts *ret)
{
	const struct lease_pool *p = pool ? lease_pool_find(t, pool) : NULL;

	if (!pool)
		*ret = t->counts;
	else if (p)
		*ret = p->counts;
	else
		memset(ret, 0, sizeof(*ret));
}

/* Limits. */

static int limit_error(struct errtext *err, const char *who, uint64_t has, const char *what,
		       uint64_t more, uint64_t limit, const char *key)
{
	return errtext_set(err, EDQUOT,
			   "%s has %llu %s and asked for %llu more: the limit is %llu (%s)", who,
			   (unsigned long long)has, what, (unsigned long long)more,
			   (unsigned long long)limit, key);
}

int lease_limits_check(const struct lease_table *t, const struct lease_request *req,
		       struct errtext *err)
{
	const struct lease_limits *max = &t->limits;
	uint64_t ports = (uint64_t)req->leases * req->ports * lease_protos_count(req->protos);
	const char *cgroup = req->holder.cgroup;
	char who[LEASE_CGROUP_MAX + 32];
	const struct lease_tally *y;

	if (t->n + req->leases > max->leases)
		return limit_error(err, "this machine", t->n, "leases, cooling ones included,",
				   req->leases, max->leases, "of the machine");
	if (req->holder.uid && (max->uid_leases || max->uid_ports)) {
		uint64_t leases, active;

		y = tally_find(t, LEASE_TALLY_UID, req->holder.uid, NULL, "");
		leases = y ? y->leases : 0;
		active = y ? y->active : 0;
		snprintf(who, sizeof(who), "uid %u", req->holder.uid);
		if (max->uid_leases && leases + req->leases > max->uid_leases)
			return limit_error(err, who, leases, "leases", req->leases, max->uid_leases,
					   "leases-per-uid");
		if (max->uid_ports && active + ports > max->uid_ports)
			return limit_error(err, who, active, "ports", ports, max->uid_ports,
					   "ports-per-uid");
	}
	if (max->cgroup_leases && cgroup_counts(cgroup)) {
		uint64_t leases;

		y = tally_find(t, LEASE_TALLY_CGROUP, 0, NULL, cgroup);
		leases = y ? y->leases : 0;
		snprintf(who, sizeof(who), "control group %s", cgroup);
		if (leases + req->leases > max->cgroup_leases)
			return limit_error(err, who, leases, "leases", req->leases,
					   max->cgroup_leases, "leases-per-cgroup");
	}
	return 0;
}

/* The fair share of the holder, for one protocol. */
struct fair {
	uint64_t has;   /* ports, cooling ones included */
	uint64_t share; /* that it may have once the pool is nearly used up */
	uint64_t users; /* uids, the holder included */
	uint32_t max;   /* leases that it may have more */
};

static struct fair fair_of(const struct lease_table *t, const struct lease_pool *p,
			   const struct lease_request *req, unsigned l4)
{
	const struct lease_tally *y = tally_find(t, LEASE_TALLY_SHARE, req->holder.uid, p, "");
	uint64_t keep = (p->total * t->limits.fair_percent + 99) / 100, plenty, within;
	struct fair f = { .has = y ? y->ports[l4] : 0 };

	f.users = p->uids[l4] + !f.has;
	f.share = (p->total + f.users - 1) / f.users;
	/* So many leave the pool enough free ports; with so many the holder has its share. */
	plenty = p->free[l4] > keep ? (p->free[l4] - keep) / req->ports : 0;
	within = f.share > f.has ? (f.share - f.has) / req->ports : 0;
	plenty = plenty > within ? plenty : within;
	f.max = plenty < LEASE_AT_ONCE ? (uint32_t)plenty : LEASE_AT_ONCE;
	return f;
}

uint32_t lease_fair_max(const struct lease_table *t, const struct lease_pool *p,
			const struct lease_request *req, uint32_t max)
{
	if (!t->limits.fair_percent || !req->holder.uid)
		return max;
	for (unsigned l4 = 0; l4 < LEASE_L4; l4++) {
		if (req->protos >> l4 & 1) {
			struct fair f = fair_of(t, p, req, l4);

			max = f.max < max ? f.max : max;
		}
	}
	return max;
}

int lease_fair_error(const struct lease_table *t, const struct lease_pool *p,
		     const struct lease_request *req, struct errtext *err)
{
	unsigned l4 = req->protos & LEASE_TCP ? SLUICE_TCP : SLUICE_UDP;
	struct fair f = fair_of(t, p, req, l4);

	if (req->protos == (LEASE_TCP | LEASE_UDP)) {
		struct fair udp = fair_of(t, p, req, SLUICE_UDP);

		if (udp.max < f.max) {
			f = udp;
			l4 = SLUICE_UDP;
		}
	}
	return errtext_set(err, EDQUOT,
			   "less than %u %% of the %llu %s ports of pool \"%s\" would be free, so "
			   "that each of its %llu users may have "
			   "%llu (fair-share); uid %u has %llu, cooling ones included, and asked "
			   "for %llu more",
			   t->limits.fair_percent, (unsigned long long)p->total,
			   lease_protos_name((uint8_t)(1U << l4)), p->name,
			   (unsigned long long)f.users, (unsigned long long)f.share,
			   req->holder.uid, (unsigned long long)f.has,
			   (unsigned long long)req->leases * req->ports);
}
