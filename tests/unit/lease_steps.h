/* SPDX-License-Identifier: BSD-2-Clause */
/* One step of any kind at a time, made in the lease table and in its model (lease_model.h), and compared. */
#ifndef LEASE_STEPS_H
#define LEASE_STEPS_H

#include "lease_model.h"

static inline void model_lease_init(struct model *m, struct lease *l, uint64_t id,
				    const struct lease_request *req, const struct range *ports)
{
	memset(l, 0, sizeof(*l));
	l->id = id;
	for (size_t i = 0; i < m->n_slices; i++)
		if (range_overlaps(&m->slice[i].ports, ports))
			strcpy(l->pool, m->slice[i].pool);
	l->ports = *ports;
	l->protos = req->protos;
	l->kind = req->kind;
	l->bound = req->bound;
	l->holder = req->holder;
	strcpy(l->name, req->name ? req->name : "");
	strcpy(l->labels, req->labels ? req->labels : "");
	l->created_ms = m->now_ms;
	l->ttl_s = req->ttl_s;
	l->expires_ns = req->ttl_s ? m->now_ns + req->ttl_s * MODEL_S : SLUICE_NEVER;
}

static inline void model_grant(struct model *m)
{
	static struct model_map map;
	static const uint32_t sizes[] = { 1, 1, 1, 1, 2, 2, 3, 4, 8, 17, 64, 70, 128, 256, 257 };
	static const uint32_t aligns[] = { 0, 0, 0, 1, 2, 4, 16, 64, 128, 256, 1024 };
	const char *pools[4];
	struct range got[LEASE_AT_ONCE];
	struct errtext err = { "" };
	struct lease_request req = { .parity = -1, .leases = 1 };
	uint64_t key = m->pick(m, 1 << 16);
	int want, r;

	req.protos = (uint8_t)(1 + m->pick(m, 3));
	req.kind = m->pick(m, 2) ? SLUICE_LEASE_EXCLUSIVE : SLUICE_LEASE_SHARED;
	req.ports = sizes[m->pick(m, 15)];
	if (!m->pick(m, 3))
		req.leases = 1 + m->pick(m, m->pick(m, 4) ? 4 : 40);
	req.align = aligns[m->pick(m, 11)];
	if (!m->pick(m, 3))
		req.parity = req.align > 1 ? 0 : (int)m->pick(m, 2);
	if (!m->pick(m, 4))
		req.addr = &m->addr[m->pick(m, MODEL_ADDRS)];
	if (!m->pick(m, 6)) {
		req.port = (uint16_t)(MODEL_BASE + m->pick(m, MODEL_PORTS + 1));
		if (req.align > 1)
			req.port = (uint16_t)(req.port / req.align * req.align);
		if (req.parity >= 0)
			req.port = (uint16_t)(req.port / 2 * 2 + (unsigned)req.parity);
	}
	switch (m->pick(m, 4)) {
	case 0:
		req.pool = m->pick(m, 20) ? model_pools[m->pick(m, 3)] : "delta";
		break;
	case 1:
		req.n_pools = m->pick(m, 4);
		for (size_t i = 0; i < req.n_pools; i++)
			pools[i] = model_pools[m->pick(m, 3)];
		req.pools = pools;
		break;
	}
	req.holder.uid = m->pick(m, 4);
	req.holder.pid = m->pick(m, 1000);
	strcpy(req.holder.comm, "echo");
	strcpy(req.holder.cgroup, model_cgroups[m->pick(m, 4)]);
	req.name = m->pick(m, 2) ? "web" : NULL;
	req.labels = m->pick(m, 2) ? "a=1 b=2" : NULL;
	req.ttl_s = m->pick(m, 3) ? m->pick(m, 300) : 0;
	req.bound = m->pick(m, 2) ? LEASE_BOUND_PROCESS : LEASE_BOUND_NOT;

	model_map(m, &map);
	want = model_expect(m, &req, &map);
	r = lease_choose(m->t, &req, key, model_busy, m, got, &err);
	if (r != want)
		fprintf(stderr, "lease_choose: %d, expected %d (%s)\n", r, want, err.s);
	MODEL_CHECK(r == want);
	m->answers[-r & 255]++;
	MODEL_CHECK(!r == !err.s[0]);
	if (r < 0)
		return;
	model_judge(m, &req, &map, got);
	{
		struct range again[LEASE_AT_ONCE];

		MODEL_CHECK(!lease_choose(m->t, &req, key, model_busy, m, again, &err));
		for (uint32_t i = 0; i < req.leases; i++)
			MODEL_CHECK(!addr_cmp(&again[i].addr, &got[i].addr) &&
				    again[i].first == got[i].first);
	}
	for (uint32_t i = 0; i < req.leases; i++) {
		struct lease *l =
			lease_grant(m->t, m->next_id, &req, &got[i], m->now_ns, m->now_ms);

		MODEL_CHECK(l);
		model_lease_init(m, &m->lease[m->n], m->next_id++, &req, &got[i]);
		m->lease[m->n].user = l->user = (void *)(uintptr_t)m->pick(m, 100);
		MODEL_CHECK(model_same(l, &m->lease[m->n]));
		m->n++;
		m->changes++;
	}
}

static inline void model_keep(struct model *m)
{
	size_t n;

	lease_journal(m->t, &n);
	MODEL_CHECK(n == m->changes);
	lease_keep(m->t);
	lease_journal(m->t, &n);
	MODEL_CHECK(!n);
	memcpy(m->kept, m->lease, m->n * sizeof(m->lease[0]));
	m->n_kept = m->n;
	m->kept_id = m->next_id;
	m->changes = 0;
}

static inline void model_undo(struct model *m)
{
	const struct lease_change *j;
	size_t n;

	j = lease_journal(m->t, &n);
	MODEL_CHECK(n == m->changes);
	for (size_t i = 0; i < n; i++)
		MODEL_CHECK(lease_find(m->t, j[i].lease->id) == j[i].lease);
	lease_undo(m->t);
	lease_journal(m->t, &n);
	MODEL_CHECK(!n);
	memcpy(m->lease, m->kept, m->n_kept * sizeof(m->lease[0]));
	m->n = m->n_kept;
	if (m->pick(m, 2))
		m->next_id = m->kept_id;
	m->changes = 0;
	model_compare(m);
}

/* One of them, active ones preferred. */
static inline struct lease *model_any(struct model *m)
{
	size_t i;

	if (!m->n)
		return NULL;
	i = m->pick(m, (uint32_t)m->n);
	return &m->lease[i];
}

static inline void model_renew(struct model *m)
{
	struct lease *mine = model_any(m), *l;
	uint32_t ttl_s = m->pick(m, 3) ? m->pick(m, 400) : m->pick(m, 2) * (LEASE_TTL_MAX + 1);
	bool good;

	if (!mine)
		return;
	l = lease_find(m->t, mine->id);
	good = mine->state == LEASE_ACTIVE && (ttl_s || mine->ttl_s) && ttl_s <= LEASE_TTL_MAX;
	MODEL_CHECK(lease_renew(m->t, l, ttl_s, m->now_ns) == (good ? 0 : -EINVAL));
	if (!good)
		return;
	mine->ttl_s = ttl_s ? ttl_s : mine->ttl_s;
	mine->expires_ns = m->now_ns + mine->ttl_s * MODEL_S;
	m->changes++;
}

static inline void model_release_of(struct model *m, struct lease *mine, enum lease_why why)
{
	struct lease *l = lease_find(m->t, mine->id);
	bool good = mine->state == LEASE_ACTIVE;

	MODEL_CHECK(lease_release(m->t, l, why, m->now_ns, m->now_ms) == (good ? 0 : -EINVAL));
	if (!good)
		return;
	mine->state = LEASE_COOLING;
	mine->ended_ms = m->now_ms;
	mine->why = why;
	mine->cool_ns = m->now_ns + m->limits.cool_down_s * MODEL_S;
	m->changes++;
}

static inline void model_expire(struct model *m)
{
	struct lease *l;

	while ((l = lease_expired(m->t, m->now_ns))) {
		for (size_t i = 0; i < m->n; i++)
			MODEL_CHECK(m->lease[i].state != LEASE_ACTIVE ||
				    m->lease[i].expires_ns >= l->expires_ns);
		MODEL_CHECK(l->expires_ns <= m->now_ns);
		model_release_of(m, model_find(m, l->id), LEASE_WHY_EXPIRED);
	}
	for (size_t i = 0; i < m->n; i++)
		MODEL_CHECK(m->lease[i].state != LEASE_ACTIVE ||
			    m->lease[i].expires_ns > m->now_ns);
}

static inline void model_cool(struct model *m)
{
	struct lease *l, *mine;

	model_keep(m);
	while ((l = lease_cooled(m->t, m->now_ns))) {
		for (size_t i = 0; i < m->n; i++)
			MODEL_CHECK(m->lease[i].state != LEASE_COOLING ||
				    m->lease[i].cool_ns >= l->cool_ns);
		MODEL_CHECK(l->state == LEASE_COOLING && l->cool_ns <= m->now_ns);
		mine = model_find(m, l->id);
		if (!m->pick(m, 4)) {
			mine->cool_ns = m->now_ns + (1 + m->pick(m, 30)) * MODEL_S;
			lease_cool_on(m->t, l, mine->cool_ns);
		} else {
			lease_free(m->t, l);
			*mine = m->lease[--m->n];
		}
	}
	for (size_t i = 0; i < m->n; i++)
		MODEL_CHECK(m->lease[i].state != LEASE_COOLING || m->lease[i].cool_ns > m->now_ns);
	model_keep(m);
}

/* Some or all slices are cut anew, change their pool, come, go, or only their deadlines. */
static inline void model_slices(struct model *m)
{
	bool only_live = m->pick(m, 2) && m->n_slices;

	if (!only_live)
		m->n_slices = 0;
	for (int a = 0; a < MODEL_ADDRS && !only_live; a++) {
		for (uint32_t cell = 0; cell < MODEL_CELLS;) {
			uint32_t size = 1U << m->pick(m, 3);
			struct lease_slice *s = &m->slice[m->n_slices];

			if (cell % size)
				size = 1;
			if (m->pick(m, 4)) {
				memset(s, 0, sizeof(*s));
				/* Mostly an address is of one pool, as the configuration has it. */
				strcpy(s->pool, model_pools[m->pick(m, 8) ? (uint32_t)a % 3
									  : m->pick(m, 3)]);
				s->ports.addr = m->addr[a];
				s->ports.first = (uint16_t)(MODEL_BASE + cell * 64);
				s->ports.last = (uint16_t)(s->ports.first + size * 64 - 1);
				m->n_slices++;
			}
			cell += size;
		}
	}
	for (size_t i = 0; i < m->n_slices; i++)
		m->slice[i].live = m->pick(m, 8);
	MODEL_CHECK(!lease_slices_set(m->t, m->slice, m->n_slices));
}

static inline void model_limits_change(struct model *m)
{
	m->limits.leases = m->pick(m, 4) ? MODEL_LEASES : m->pick(m, MODEL_LEASES);
	m->limits.uid_leases = m->pick(m, 2) ? 0 : m->pick(m, 60);
	m->limits.uid_ports = m->pick(m, 2) ? 0 : m->pick(m, 500);
	m->limits.cgroup_leases = m->pick(m, 2) ? 0 : m->pick(m, 60);
	m->limits.fair_percent = m->pick(m, 2) ? m->pick(m, 101) : 0;
	m->limits.cool_down_s = m->pick(m, 3) * 30;
	lease_limits_set(m->t, &m->limits);
}

static inline void model_adopt(struct model *m)
{
	static struct model_map map;
	struct lease l = { .id = 1 + m->pick(m, (uint32_t)m->next_id + 10), .ttl_s = 30 };
	uint32_t first = m->pick(m, MODEL_PORTS), n = 1 + m->pick(m, m->pick(m, 8) ? 3 : 200);
	bool clash;
	int r;

	if (m->n >= MODEL_LEASES)
		return;
	model_keep(m);
	if (first + n > MODEL_PORTS)
		n = MODEL_PORTS - first;
	strcpy(l.pool, model_pools[m->pick(m, 3)]);
	l.ports.addr = m->addr[m->pick(m, MODEL_ADDRS)];
	l.ports.first = (uint16_t)(MODEL_BASE + first);
	l.ports.last = (uint16_t)(l.ports.first + n - 1);
	l.protos = (uint8_t)(1 + m->pick(m, 3));
	l.holder.uid = m->pick(m, 4);
	strcpy(l.holder.cgroup, model_cgroups[m->pick(m, 4)]);
	l.created_ms = m->now_ms;
	l.expires_ns = m->now_ns + m->pick(m, 60) * MODEL_S;
	if (m->pick(m, 2)) {
		l.state = LEASE_COOLING;
		l.why = LEASE_WHY_REBOOT;
		l.ended_ms = m->now_ms;
	}
	model_map(m, &map);
	clash = model_find(m, l.id);
	for (unsigned l4 = 0; l4 < LEASE_L4; l4++)
		for (uint32_t p = first; l.protos >> l4 & 1 && p < first + n; p++)
			clash |= map.id[l4][model_addr(m, &l.ports.addr)][p] != 0;
	r = lease_adopt(m->t, &l);
	MODEL_CHECK(r == (clash ? -EEXIST : 0));
	if (r < 0)
		return;
	m->lease[m->n++] = l;
	if (l.id >= m->next_id)
		m->next_id = l.id + 1;
	model_keep(m);
}

static inline void model_busy_change(struct model *m)
{
	uint64_t *w = &m->busy[m->pick(m, 2)][m->pick(m, MODEL_ADDRS)][m->pick(m, MODEL_CELLS)];

	switch (m->pick(m, 4)) {
	case 0:
		*w = 0;
		break;
	case 1:
		*w = ~0ULL;
		break;
	default:
		*w ^= 1ULL << m->pick(m, 64);
	}
}

static inline void model_step(struct model *m)
{
	uint32_t what = m->pick(m, 100);
	struct lease *l;

	if (what < 45) {
		model_grant(m);
	} else if (what < 65) {
		l = model_any(m);
		if (l)
			model_release_of(m, l, LEASE_WHY_RELEASED);
	} else if (what < 72) {
		model_renew(m);
	} else if (what < 77) {
		model_keep(m);
	} else if (what < 80) {
		model_undo(m);
	} else if (what < 84) {
		m->now_ns += m->pick(m, 30) * MODEL_S;
		m->now_ms += 1000;
		model_expire(m);
	} else if (what < 88) {
		model_cool(m);
	} else if (what < 91) {
		model_adopt(m);
	} else if (what < 96) {
		model_busy_change(m);
	} else if (what < 98) {
		if (!m->pick(m, 4))
			model_slices(m);
	} else if (what < 99) {
		if (!m->pick(m, 4))
			model_limits_change(m);
	} else {
		model_compare(m);
	}
}

#endif
