/* SPDX-License-Identifier: BSD-2-Clause */
/* See methods_exhaust.h. */
#include "methods_exhaust.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "exhaust.h"

#define FLOWS_AT_ONCE 256
#define FLOWS_IN_VAIN 4096 /* looked at before others get a turn */

/* The destinations that were refused most; how many flows each has takes a walk over all of them. */
struct hottest {
	struct dp_hot v[EXHAUST_HOTTEST];
	uint32_t flows[EXHAUST_HOTTEST];
	size_t n;
};

struct listing {
	const struct engine *engine;
	char pool[CONFIG_NAME_MAX + 1]; /* "": all */
	size_t pools, slices, l4;       /* the next to be listed */
	struct hottest hot;
	size_t hot_at;
	bool counted;
	struct dp_flow_cursor *cursor;
};

static void listing_free(void *state)
{
	struct listing *k = state;

	if (!k)
		return;
	dp_flow_cursor_free(k->cursor);
	free(k);
}

static bool asked_for(const struct listing *k, const char *pool)
{
	return !k->pool[0] || !strcmp(k->pool, pool);
}

/* null: not in sight. */
static json_t *left(const struct forecast *f, const struct exhaust_ports *p)
{
	double left_s = exhaust_left_s(f, p);
	json_int_t whole = (json_int_t)left_s;

	/* Rounded up: 0 is kept for what is full. */
	return left_s < 0 ? json_null() : json_integer(whole + (whole < left_s));
}

static json_t *row_of(const char *pool, size_t l4, const char *what, const struct exhaust_ports *p,
		      const struct forecast *f)
{
	return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:o}", "pool", pool, "proto",
			 dp_l4_name((enum sluice_l4)l4), "what", what, "ports",
			 (json_int_t)p->ports, "leased", (json_int_t)p->leased, "used",
			 (json_int_t)p->used, "full_s", left(f, p));
}

static int next_pool(struct listing *k, json_t **ret)
{
	const struct engine *e = k->engine;

	for (; k->pools < e->config->n_pools; k->pools++, k->l4 = 0) {
		const char *name = e->config->pools[k->pools].name;
		int row = plan_pool_row(e->plan, name);
		const struct exhaust_state *s;

		if (row < 0 || !asked_for(k, name) || k->l4 == SLUICE_L4_MAX)
			continue;
		s = exhaust_pool(e->exhaust, (uint32_t)row, (enum sluice_l4)k->l4);
		if (!s)
			continue;
		*ret = row_of(name, k->l4++, "pool", &s->now, &s->forecast);
		if (*ret && json_object_set_new(*ret, "refused",
						json_integer((json_int_t)s->refused)) < 0) {
			json_decref(*ret);
			*ret = NULL;
		}
		return *ret ? 1 : -ENOMEM;
	}
	return 0;
}

static int next_slice(struct listing *k, json_t **ret)
{
	const struct engine *e = k->engine;

	for (; k->slices < e->holds.n; k->slices++, k->l4 = 0) {
		const struct hold *h = &e->holds.rows[k->slices];
		int row = plan_slice_row(e->plan, &h->ports);
		char address[ADDR_STRLEN];
		struct exhaust_ports p;
		struct forecast f;

		if (row < 0 || !asked_for(k, h->pool) || k->l4 == SLUICE_L4_MAX)
			continue;
		p = exhaust_slice(e->exhaust, e, (uint32_t)row, (enum sluice_l4)k->l4, &f);
		*ret = row_of(h->pool, k->l4++, "slice", &p, &f);
		if (*ret &&
		    (json_object_set_new(*ret, "address",
					 json_string(addr_format(&h->ports.addr, address))) < 0 ||
		     json_object_set_new(*ret, "first", json_integer(h->ports.first)) < 0 ||
		     json_object_set_new(*ret, "last", json_integer(h->ports.last)) < 0)) {
			json_decref(*ret);
			*ret = NULL;
		}
		return *ret ? 1 : -ENOMEM;
	}
	return 0;
}

static bool hot_is(const struct dp_hot *h, const struct dp_flow *f)
{
	return h->pool == f->pool &&
	       !strcmp(dp_l4_name((enum sluice_l4)h->l4), dp_proto_name(f->proto)) && !f->eim &&
	       h->port == f->remote_port && !addr_cmp(&h->dst, &f->remote);
}

/* Count the flows to the hottest destinations, some of them at a time. 0 when all are, -EAGAIN or another -errno. */
static int count_flows(struct listing *k)
{
	struct dp_flow flows[FLOWS_AT_ONCE];
	int n;

	for (size_t seen = 0; seen < FLOWS_IN_VAIN; seen += (size_t)n) {
		n = dp_flows_next(k->engine->dp, k->cursor, flows, FLOWS_AT_ONCE);
		if (n < 0)
			return n;
		if (!n) {
			k->counted = true;
			return 0;
		}
		for (int i = 0; i < n; i++)
			for (size_t j = 0; j < k->hot.n; j++)
				k->hot.flows[j] += hot_is(&k->hot.v[j], &flows[i]);
	}
	return -EAGAIN;
}

static int next_destination(struct listing *k, json_t **ret)
{
	uint64_t now_s = clock_boot_ns() / NS_PER_S;

	for (; k->hot_at < k->hot.n; k->hot_at++) {
		const struct dp_hot *h = &k->hot.v[k->hot_at];
		const struct exhaust_state *s =
			exhaust_pool(k->engine->exhaust, h->pool, (enum sluice_l4)h->l4);
		const char *pool = dp_pool(k->engine->dp, h->pool)->name;
		static const struct addr none;
		char address[ADDR_STRLEN];
		int r;

		if (!s || !asked_for(k, pool))
			continue;
		if (!k->counted && (r = count_flows(k)) < 0)
			return r;
		/* An endpoint-independent mapping is for every destination: the pool's ports are counted then. */
		bool any = !addr_cmp(&h->dst, &none);

		*ret = json_pack(
			"{s:s, s:s, s:s, s:I, s:I, s:I, s:o, s:o, s:I, s:I}", "pool", pool, "proto",
			dp_l4_name((enum sluice_l4)h->l4), "what", "destination", "ports",
			(json_int_t)s->now.ports, "leased", (json_int_t)s->now.leased, "used",
			(json_int_t)(any ? s->now.used : k->hot.flows[k->hot_at]), "destination",
			any ? json_null() : json_string(addr_format(&h->dst, address)), "port",
			any ? json_null() : json_integer(h->port), "refused",
			(json_int_t)h->refused, "refused_ago_s",
			(json_int_t)(now_s > h->tried_s ? now_s - h->tried_s : 0));
		k->hot_at++;
		return *ret ? 1 : -ENOMEM;
	}
	return 0;
}

static int listing_next(void *state, json_t **ret)
{
	struct listing *k = state;
	int r = next_pool(k, ret);

	if (!r)
		r = next_slice(k, ret);
	return r ?: next_destination(k, ret);
}

static const struct control_rows listing_rows = { "exhaustion", listing_next, listing_free };

int methods_list_exhaustion(struct control_call *call, void *data)
{
	const struct methods *m = data;
	const char *pool = NULL;
	struct listing *k;
	int r;

	if (control_param_str(call, "pool", &pool) < 0 || methods_check_pool(call, m->engine, pool))
		return 0;
	k = calloc(1, sizeof(*k));
	if (!k)
		return -ENOMEM;
	k->engine = m->engine;
	if (pool)
		strncpy(k->pool, pool, sizeof(k->pool) - 1);
	k->cursor = dp_flow_cursor_new();
	r = k->cursor ? dp_hottest(m->engine->dp, k->hot.v, EXHAUST_HOTTEST) : -ENOMEM;
	if (r < 0) {
		listing_free(k);
		return r;
	}
	k->hot.n = (size_t)r;
	return control_stream(call, &listing_rows, k);
}
