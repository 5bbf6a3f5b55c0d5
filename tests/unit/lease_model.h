/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A model of the lease table: an array of leases, looked through from one end to the other for every question. The steps are in lease_steps.h;
 * what happens in them comes from model->pick(), so that both a random generator and a fuzzer can drive it. The includer
 * defines MODEL_CHECK(condition), which does not return when the condition is false.
 *
 * The world: four addresses, of which eight blocks of 64 ports each may be in slices; three pools, four uids, three control groups.
 */
#ifndef LEASE_MODEL_H
#define LEASE_MODEL_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lease_private.h"

#define MODEL_ADDRS  4
#define MODEL_CELLS  8
#define MODEL_BASE   40960U
#define MODEL_PORTS  (MODEL_CELLS * 64)
#define MODEL_LEASES 300
#define MODEL_S      1000000000ULL

static const char *const model_pools[] = { "alpha", "beta", "gamma" };
static const char *const model_cgroups[] = { "", "/", "/user.slice", "/system.slice/x.service" };

struct model {
	struct lease_table *t;
	/* A number below n; all that happens comes from here. */
	uint32_t (*pick)(struct model *m, uint32_t n);
	uint64_t seed; /* the generator's */
	const uint8_t *bytes;
	size_t n_bytes; /* the fuzzer's */

	struct lease_limits limits;
	struct addr addr[MODEL_ADDRS];
	struct lease_slice slice[MODEL_ADDRS * MODEL_CELLS];
	size_t n_slices;
	uint64_t busy[LEASE_L4][MODEL_ADDRS][MODEL_CELLS];
	uint64_t now_ns;
	int64_t now_ms;
	uint64_t next_id;

	struct lease lease[MODEL_LEASES + LEASE_AT_ONCE];
	size_t n;
	/* As of the last lease_keep(). */
	struct lease kept[MODEL_LEASES + LEASE_AT_ONCE];
	size_t n_kept;
	uint64_t kept_id;
	size_t changes;

	/* What the last request found, to say how the time was spent. */
	unsigned long answers[256];
};

static inline uint32_t model_random(struct model *m, uint32_t n)
{
	m->seed += 0x9e3779b97f4a7c15ULL;
	return (uint32_t)((lease_mix(m->seed) >> 32) % n);
}

static inline void model_new(struct model *m, uint32_t (*pick)(struct model *m, uint32_t n))
{
	static const char *const addrs[MODEL_ADDRS] = { "198.51.100.7", "203.0.113.7",
							"203.0.113.8", "2001:db8::7" };

	memset(m, 0, sizeof(*m));
	m->pick = pick;
	m->now_ns = 1000 * MODEL_S;
	m->now_ms = 1700000000000;
	m->next_id = m->kept_id = 1;
	m->limits.leases = MODEL_LEASES;
	m->limits.cool_down_s = 60;
	for (int i = 0; i < MODEL_ADDRS; i++)
		MODEL_CHECK(!addr_parse(addrs[i], &m->addr[i]));
	/* As struct lease_slice must be sorted. */
	for (int i = 1; i < MODEL_ADDRS; i++)
		for (int j = i; j && addr_cmp(&m->addr[j - 1], &m->addr[j]) > 0; j--) {
			struct addr a = m->addr[j];

			m->addr[j] = m->addr[j - 1];
			m->addr[j - 1] = a;
		}
	m->t = lease_table_new(&m->limits);
	MODEL_CHECK(m->t);
}

static inline void model_free(struct model *m)
{
	lease_table_free(m->t);
}

static inline int model_addr(const struct model *m, const struct addr *a)
{
	for (int i = 0; i < MODEL_ADDRS; i++)
		if (!addr_cmp(&m->addr[i], a))
			return i;
	return -1;
}

static inline uint32_t model_size(const struct range *r)
{
	return (uint32_t)r->last - r->first + 1;
}

static inline struct lease *model_find(struct model *m, uint64_t id)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->lease[i].id == id)
			return &m->lease[i];
	return NULL;
}

/* Who has each port, 0: nobody. */
struct model_map {
	uint64_t id[LEASE_L4][MODEL_ADDRS][MODEL_PORTS];
};

static inline void model_map(const struct model *m, struct model_map *map)
{
	memset(map, 0, sizeof(*map));
	for (size_t i = 0; i < m->n; i++) {
		const struct lease *l = &m->lease[i];
		int a = model_addr(m, &l->ports.addr);

		for (unsigned l4 = 0; l4 < LEASE_L4; l4++) {
			if (!(l->protos >> l4 & 1))
				continue;
			for (uint32_t p = l->ports.first; p <= l->ports.last; p++) {
				MODEL_CHECK(!map->id[l4][a][p - MODEL_BASE]);
				map->id[l4][a][p - MODEL_BASE] = l->id;
			}
		}
	}
}

static inline bool model_same(const struct lease *a, const struct lease *b)
{
	return a->id == b->id && !strcmp(a->pool, b->pool) &&
	       !addr_cmp(&a->ports.addr, &b->ports.addr) && a->ports.first == b->ports.first &&
	       a->ports.last == b->ports.last && a->protos == b->protos && a->kind == b->kind &&
	       a->state == b->state && a->bound == b->bound && a->holder.uid == b->holder.uid &&
	       a->holder.pid == b->holder.pid && a->holder.started == b->holder.started &&
	       !strcmp(a->holder.comm, b->holder.comm) &&
	       !strcmp(a->holder.cgroup, b->holder.cgroup) && !strcmp(a->name, b->name) &&
	       !strcmp(a->labels, b->labels) && a->created_ms == b->created_ms &&
	       a->ttl_s == b->ttl_s && a->expires_ns == b->expires_ns &&
	       a->ended_ms == b->ended_ms && a->why == b->why && a->cool_ns == b->cool_ns &&
	       a->user == b->user;
}

/* The slice that has all ports of a lease and is of its pool. */
static inline const struct lease_slice *model_home(const struct model *m, const struct lease *l)
{
	for (size_t i = 0; i < m->n_slices; i++) {
		const struct range *r = &m->slice[i].ports;

		if (!addr_cmp(&r->addr, &l->ports.addr) && r->first <= l->ports.first &&
		    r->last >= l->ports.last && !strcmp(m->slice[i].pool, l->pool))
			return &m->slice[i];
	}
	return NULL;
}

static inline void model_count(const struct model *m, const char *pool, struct lease_counts *c)
{
	memset(c, 0, sizeof(*c));
	for (size_t i = 0; i < m->n; i++) {
		const struct lease *l = &m->lease[i];
		bool active = l->state == LEASE_ACTIVE;

		if (pool && strcmp(l->pool, pool) != 0)
			continue;
		c->active += active;
		c->cooling += !active;
		if (active)
			c->by_kind[l->kind]++;
		for (unsigned l4 = 0; l4 < LEASE_L4; l4++)
			if (l->protos >> l4 & 1)
				(active ? c->ports : c->cooling_ports)[l4] += model_size(&l->ports);
	}
}

static inline bool model_counts_same(const struct lease_counts *a, const struct lease_counts *b)
{
	return a->active == b->active && a->cooling == b->cooling &&
	       !memcmp(a->by_kind, b->by_kind, sizeof(a->by_kind)) &&
	       !memcmp(a->ports, b->ports, sizeof(a->ports)) &&
	       !memcmp(a->cooling_ports, b->cooling_ports, sizeof(a->cooling_ports));
}

/* How many tallies there should be: uids, control groups, uids in pools. */
static inline size_t model_tallies(const struct model *m)
{
	size_t n = 0;

	for (size_t i = 0; i < m->n; i++) {
		const struct lease *l = &m->lease[i];
		bool uid = true, cgroup = strlen(l->holder.cgroup) > 1, share = true;

		for (size_t j = 0; j < i; j++) {
			const struct lease *k = &m->lease[j];

			if (!strcmp(k->holder.cgroup, l->holder.cgroup))
				cgroup = false;
			if (k->holder.uid != l->holder.uid)
				continue;
			uid = false;
			if (!strcmp(k->pool, l->pool))
				share = false;
		}
		n += (size_t)uid + cgroup + share;
	}
	return n;
}

/* What the table keeps about a pool: ports of live slices, those of them that no lease has, and which slices are worth a look. */
static inline void model_compare_pool(const struct model *m, const char *name,
				      const struct model_map *map)
{
	const struct lease_pool *p = lease_pool_find(m->t, name);
	uint64_t total = 0, free[LEASE_L4] = { 0 };
	uint32_t members = 0;

	for (size_t i = 0; i < m->n_slices; i++) {
		const struct range *r = &m->slice[i].ports;
		int a = model_addr(m, &r->addr);
		bool open[LEASE_PROTOS] = { false };

		if (strcmp(m->slice[i].pool, name) != 0)
			continue;
		MODEL_CHECK(p && members < p->n_members && p->member[members] == i);
		for (uint32_t q = r->first - MODEL_BASE; q <= r->last - MODEL_BASE; q++) {
			bool tcp = !map->id[SLUICE_TCP][a][q], udp = !map->id[SLUICE_UDP][a][q];

			if (!m->slice[i].live)
				continue;
			total++;
			free[SLUICE_TCP] += tcp;
			free[SLUICE_UDP] += udp;
			open[LEASE_TCP] |= tcp;
			open[LEASE_UDP] |= udp;
			open[LEASE_TCP | LEASE_UDP] |= tcp && udp;
		}
		for (unsigned protos = 1; protos < LEASE_PROTOS; protos++)
			MODEL_CHECK((p->open[protos][0] >> members & 1) == open[protos]);
		members++;
	}
	if (!p)
		return;
	MODEL_CHECK(p->n_members == members && p->total == total);
	MODEL_CHECK(p->free[SLUICE_TCP] == free[SLUICE_TCP]);
	MODEL_CHECK(p->free[SLUICE_UDP] == free[SLUICE_UDP]);
}

/* Everything that can be asked, and what the table keeps about its slices. */
static inline void model_compare(struct model *m)
{
	static struct model_map map;
	struct lease_counts want, got;
	uint64_t id = 0, expiry = SLUICE_NEVER, cooled = SLUICE_NEVER;
	size_t seen = 0, foreign = 0, n;
	const struct lease_slice *list = lease_slices(m->t, &n);
	struct lease *l;

	MODEL_CHECK(n == m->n_slices);
	for (size_t i = 0; i < n; i++)
		MODEL_CHECK(list[i].live == m->slice[i].live);
	model_map(m, &map);
	for (; (l = lease_next(m->t, id)); id = l->id, seen++) {
		struct lease *mine = model_find(m, l->id);

		MODEL_CHECK(l->id > id && mine && model_same(l, mine));
		MODEL_CHECK(lease_find(m->t, l->id) == l);
		if (l->state == LEASE_ACTIVE && l->expires_ns < expiry)
			expiry = l->expires_ns;
		if (l->state == LEASE_COOLING && l->cool_ns < cooled)
			cooled = l->cool_ns;
		foreign += l->state == LEASE_ACTIVE && !model_home(m, l);
	}
	MODEL_CHECK(seen == m->n);
	MODEL_CHECK(lease_next_expiry(m->t) == expiry && lease_next_cooled(m->t) == cooled);
	l = lease_foreign(m->t);
	MODEL_CHECK(!l == !foreign);
	MODEL_CHECK(!l || (l->state == LEASE_ACTIVE && !model_home(m, l)));
	for (size_t i = 0; i < 4; i++) {
		const char *pool = i < 3 ? model_pools[i] : NULL;

		model_count(m, pool, &want);
		lease_count(m->t, pool, &got);
		MODEL_CHECK(model_counts_same(&want, &got));
		if (pool)
			model_compare_pool(m, pool, &map);
	}
	for (unsigned l4 = 0; l4 < LEASE_L4; l4++)
		for (int a = 0; a < MODEL_ADDRS; a++)
			for (uint32_t p = 0; p < MODEL_PORTS; p++) {
				l = lease_at(m->t, &m->addr[a], (uint16_t)(MODEL_BASE + p),
					     (enum sluice_l4)l4);
				MODEL_CHECK((l ? l->id : 0) == map.id[l4][a][p]);
			}
	MODEL_CHECK(m->t->tallies.n == model_tallies(m));
	for (size_t i = 0; i < n; i++) {
		const struct lease_home *h = &m->t->slices.home[i];
		uint32_t free[LEASE_PROTOS] = { 0 };
		int a = model_addr(m, &h->addr);

		for (uint32_t p = 0; p < h->ports; p++) {
			bool used[LEASE_L4];

			for (unsigned l4 = 0; l4 < LEASE_L4; l4++) {
				used[l4] = map.id[l4][a][h->first - MODEL_BASE + p];
				MODEL_CHECK((h->used[l4][p / 64] >> p % 64 & 1) == used[l4]);
			}
			free[LEASE_TCP] += !used[SLUICE_TCP];
			free[LEASE_UDP] += !used[SLUICE_UDP];
			free[LEASE_TCP | LEASE_UDP] += !used[SLUICE_TCP] && !used[SLUICE_UDP];
		}
		for (unsigned protos = 1; protos < LEASE_PROTOS; protos++)
			MODEL_CHECK(h->free[protos] == free[protos]);
	}
}

/* Choosing, by looking at everything */

static inline uint64_t model_busy(void *arg, size_t slice, enum sluice_l4 l4, uint16_t first)
{
	const struct model *m = arg;

	MODEL_CHECK(slice < m->n_slices && l4 < SLUICE_ICMP && first % 64 == 0);
	MODEL_CHECK(first >= m->slice[slice].ports.first && first <= m->slice[slice].ports.last);
	return m->busy[l4][model_addr(m, &m->slice[slice].ports.addr)][(first - MODEL_BASE) / 64];
}

static inline bool model_begins(const struct lease_request *req, uint32_t port)
{
	return (!req->port || port == req->port) && (req->align < 2 || port % req->align == 0) &&
	       (req->parity < 0 || port % 2 == (unsigned)req->parity);
}

/* The most leases that fit into a slice, as it is or (map NULL) if it were empty: dynamic programming over its ports. */
static inline uint32_t model_most(const struct model *m, const struct lease_request *req,
				  const struct lease_slice *s, const struct model_map *map)
{
	uint32_t n = model_size(&s->ports), most[MODEL_PORTS + 1] = { 0 }, run = 0;
	int a = model_addr(m, &s->ports.addr);

	for (uint32_t end = 1; end <= n; end++) {
		uint32_t port = s->ports.first + end - 1, p = port - MODEL_BASE;
		bool taken = false;

		for (unsigned l4 = 0; map && l4 < LEASE_L4; l4++)
			if (req->protos >> l4 & 1)
				taken |= map->id[l4][a][p] || m->busy[l4][a][p / 64] >> p % 64 & 1;
		run = taken ? 0 : run + 1;
		most[end] = most[end - 1];
		if (run >= req->ports && model_begins(req, port + 1 - req->ports) &&
		    most[end - req->ports] + 1 > most[end])
			most[end] = most[end - req->ports] + 1;
	}
	return most[n];
}

/* Would m more leases leave the pool as the fair share wants it? */
static inline bool model_fair(const struct model *m, const struct lease_request *req,
			      const char *pool, const struct model_map *map, uint64_t more)
{
	for (unsigned l4 = 0; l4 < LEASE_L4; l4++) {
		uint64_t total = 0, free = 0, has = 0, users = 1;
		bool seen[8] = { false };

		if (!(req->protos >> l4 & 1))
			continue;
		for (size_t i = 0; i < m->n_slices; i++) {
			const struct range *r = &m->slice[i].ports;

			if (!m->slice[i].live || strcmp(m->slice[i].pool, pool) != 0)
				continue;
			total += model_size(r);
			for (uint32_t p = r->first; p <= r->last; p++)
				free += !map->id[l4][model_addr(m, &r->addr)][p - MODEL_BASE];
		}
		for (size_t i = 0; i < m->n; i++) {
			const struct lease *l = &m->lease[i];

			if (strcmp(l->pool, pool) != 0 || !(l->protos >> l4 & 1))
				continue;
			if (l->holder.uid == req->holder.uid) {
				has += model_size(&l->ports);
			} else if (!seen[l->holder.uid % 8]) {
				seen[l->holder.uid % 8] = true;
				users++;
			}
		}
		if (((int64_t)free - (int64_t)(more * req->ports)) * 100 <
			    (int64_t)(total * m->limits.fair_percent) &&
		    has + more * req->ports > (total + users - 1) / users)
			return false;
	}
	return true;
}

static inline bool model_pool_asked(const struct lease_request *req, const char *pool)
{
	if (req->pool)
		return !strcmp(req->pool, pool);
	for (size_t i = 0; i < req->n_pools; i++)
		if (!strcmp(req->pools[i], pool))
			return true;
	return !req->pools;
}

static inline int model_limits(const struct model *m, const struct lease_request *req)
{
	uint64_t uid = 0, ports = 0, cgroup = 0;

	for (size_t i = 0; i < m->n; i++) {
		const struct lease *l = &m->lease[i];

		if (l->state != LEASE_ACTIVE)
			continue;
		cgroup += !strcmp(l->holder.cgroup, req->holder.cgroup);
		if (l->holder.uid != req->holder.uid)
			continue;
		uid++;
		ports += (uint64_t)model_size(&l->ports) * (l->protos == 3 ? 2 : 1);
	}
	if (m->n + req->leases > m->limits.leases)
		return -EDQUOT;
	if (req->holder.uid && m->limits.uid_leases && uid + req->leases > m->limits.uid_leases)
		return -EDQUOT;
	if (req->holder.uid && m->limits.uid_ports &&
	    ports + (uint64_t)req->ports * req->leases * (req->protos == 3 ? 2 : 1) >
		    m->limits.uid_ports)
		return -EDQUOT;
	if (m->limits.cgroup_leases && strlen(req->holder.cgroup) > 1 &&
	    cgroup + req->leases > m->limits.cgroup_leases)
		return -EDQUOT;
	return 0;
}

/* What lease_choose() must answer. The request makes sense by itself. */
static inline int model_expect(const struct model *m, const struct lease_request *req,
			       const struct model_map *map)
{
	size_t pools = 0, with_addr = 0, with_port = 0, could = 0, live = 0, fit = 0, fair_fit = 0;
	bool capped = false;
	int r;

	for (size_t i = 0; i < 3; i++) {
		size_t here = 0, most = 0, cap = 0;

		for (size_t k = 0; k < m->n_slices; k++) {
			const struct lease_slice *s = &m->slice[k];

			if (strcmp(s->pool, model_pools[i]) != 0 || !model_pool_asked(req, s->pool))
				continue;
			pools++;
			if (req->addr && addr_cmp(req->addr, &s->ports.addr) != 0)
				continue;
			here++;
			with_port += !req->port ||
				     (req->port >= s->ports.first && req->port <= s->ports.last);
			if (!model_most(m, req, s, NULL))
				continue;
			could++;
			if (!s->live)
				continue;
			live++;
			most += model_most(m, req, s, map);
		}
		if (!here)
			continue;
		with_addr++;
		for (cap = req->leases; cap && req->holder.uid && m->limits.fair_percent; cap--)
			if (model_fair(m, req, model_pools[i], map, cap))
				break;
		capped |= cap < req->leases;
		fit += most;
		fair_fit += most < cap ? most : cap;
	}
	if (!pools || !with_addr)
		return -ENOENT;
	r = model_limits(m, req);
	if (r < 0)
		return r;
	if (fair_fit >= req->leases)
		return 0;
	if (!could)
		return with_port ? -EINVAL : -ENOENT;
	if (!live)
		return -EKEYEXPIRED;
	if (capped && fit >= req->leases)
		return -EDQUOT;
	return req->port && req->leases == 1 ? -EADDRINUSE : -ENOSPC;
}

/* Are these ranges what was asked for, free, and apart? */
static inline void model_judge(const struct model *m, const struct lease_request *req,
			       const struct model_map *map, const struct range *got)
{
	uint32_t in_pool[3] = { 0 };

	for (uint32_t i = 0; i < req->leases; i++) {
		const struct lease_slice *s = NULL;
		int a = model_addr(m, &got[i].addr);

		for (size_t k = 0; k < m->n_slices; k++)
			if (!addr_cmp(&m->slice[k].ports.addr, &got[i].addr) &&
			    m->slice[k].ports.first <= got[i].first &&
			    m->slice[k].ports.last >= got[i].last)
				s = &m->slice[k];
		MODEL_CHECK(s && s->live && model_pool_asked(req, s->pool));
		MODEL_CHECK(got[i].first <= got[i].last && model_size(&got[i]) == req->ports);
		MODEL_CHECK(model_begins(req, got[i].first));
		MODEL_CHECK(!req->addr || !addr_cmp(req->addr, &got[i].addr));
		for (unsigned l4 = 0; l4 < LEASE_L4; l4++) {
			if (!(req->protos >> l4 & 1))
				continue;
			for (uint32_t p = got[i].first - MODEL_BASE; p <= got[i].last - MODEL_BASE;
			     p++)
				MODEL_CHECK(!map->id[l4][a][p] &&
					    !(m->busy[l4][a][p / 64] >> p % 64 & 1));
		}
		for (uint32_t k = 0; k < i; k++)
			MODEL_CHECK(!range_overlaps(&got[i], &got[k]));
		for (size_t k = 0; k < 3; k++)
			in_pool[k] += !strcmp(model_pools[k], s->pool);
	}
	for (size_t k = 0; k < 3 && req->holder.uid && m->limits.fair_percent; k++)
		MODEL_CHECK(!in_pool[k] || model_fair(m, req, model_pools[k], map, in_pool[k]));
}

#endif
