/* SPDX-License-Identifier: BSD-2-Clause */
/* See exhaust.h. */
#include "exhaust.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "clock.h"

struct pool {
	char name[CONFIG_NAME_MAX +
		  1]; /* "": the row is nobody's; a row may go over to another pool */
	struct exhaust_state l4[SLUICE_L4_MAX];
};

struct slice {
	uint32_t epoch; /* of the forecasts */
	struct forecast l4[SLUICE_L4_MAX];
};

struct exhaust {
	struct pool pools[SLUICE_MAX_POOLS];
	struct slice slices[SLUICE_MAX_SLICES];
};

/* ---- what there is to tell ---- */

static uint32_t room(const struct exhaust_ports *p)
{
	return p->ports - p->leased;
}

/* How full, in percent of what NAT can have. Without any room there is nothing to fill. */
static uint32_t percent(const struct exhaust_ports *p)
{
	return room(p) ? (uint32_t)((uint64_t)p->used * 100 / room(p)) : 0;
}

double exhaust_left_s(const struct forecast *f, const struct exhaust_ports *p)
{
	double left_s;

	return room(p) && forecast_full(f, room(p), &left_s) ? left_s : -1;
}

const char *exhaust_turn_name(enum exhaust_turn t)
{
	static const char *const names[EXHAUST_TURNS] = { "", "near", "refusing", "over" };

	return names[t];
}

enum exhaust_turn exhaust_judge(struct exhaust_state *s, uint64_t now_ns,
				const struct exhaust_ports *now, uint64_t refused)
{
	const uint64_t quiet_ns = EXHAUST_QUIET_S * NS_PER_S;
	bool refuses = s->counted && refused > s->refused, was = s->near || s->refused_ns;

	s->now = *now;
	forecast_add(&s->forecast, now_ns, now->used);
	s->counted = true;
	s->refused = refused;
	if (refuses)
		s->refused_ns = now_ns;
	else if (s->refused_ns && now_ns - s->refused_ns >= quiet_ns)
		s->refused_ns = s->told_ns = 0;
	if (refuses && (!s->told_ns || now_ns - s->told_ns >= quiet_ns)) {
		s->told_ns = now_ns;
		s->near |= percent(now) >= EXHAUST_NEAR_PERCENT;
		return EXHAUST_REFUSING;
	}
	if (s->near && percent(now) < EXHAUST_OVER_PERCENT)
		s->near = false;
	if (!s->near && percent(now) >= EXHAUST_NEAR_PERCENT) {
		s->near = true;
		return EXHAUST_NEAR;
	}
	return was && !s->near && !s->refused_ns ? EXHAUST_OVER : EXHAUST_NONE;
}

/* ---- looking ---- */

struct exhaust *exhaust_new(void)
{
	return calloc(1, sizeof(struct exhaust));
}

void exhaust_free(struct exhaust *x)
{
	free(x);
}

struct exhaust_ports exhaust_slice(const struct exhaust *x, const struct engine *e, uint32_t row,
				   enum sluice_l4 l4, struct forecast *ret)
{
	const struct sluice_slice *s = dp_slice(e->dp, row);
	uint32_t used[SLUICE_L4_MAX], leased[SLUICE_L4_MAX];

	dp_slice_used(e->dp, row, used);
	dp_slice_leased(e->dp, row, leased);
	*ret = x->slices[row].l4[l4];
	return (struct exhaust_ports){
		.ports = s->state == SLUICE_SLICE_HELD ? (uint32_t)s->last - s->first + 1 : 0,
		.leased = leased[l4],
		.used = used[l4],
	};
}

static void slice_look(struct exhaust *x, const struct engine *e, uint32_t row, uint64_t now_ns,
		       struct exhaust_ports sum[SLUICE_L4_MAX])
{
	const struct sluice_slice *s = dp_slice(e->dp, row);
	uint32_t used[SLUICE_L4_MAX], leased[SLUICE_L4_MAX];
	struct slice *mine = &x->slices[row];

	if (s->state != SLUICE_SLICE_HELD)
		return;
	if (mine->epoch != s->epoch)
		*mine = (struct slice){ .epoch = s->epoch };
	dp_slice_used(e->dp, row, used);
	dp_slice_leased(e->dp, row, leased);
	for (int l4 = 0; l4 < SLUICE_L4_MAX; l4++) {
		forecast_add(&mine->l4[l4], now_ns, used[l4]);
		sum[l4].ports += (uint32_t)s->last - s->first + 1;
		sum[l4].leased += leased[l4];
		sum[l4].used += used[l4];
	}
}

static void tell(const struct engine *e, const char *pool, int l4, const struct exhaust_state *s,
		 enum exhaust_turn turn, uint64_t refused_before)
{
	double left_s = exhaust_left_s(&s->forecast, &s->now);
	char text[256], when[64] = "";

	if (left_s > 0)
		snprintf(when, sizeof(when), ", all of them in about %.0f s if it goes on", left_s);
	switch (turn) {
	case EXHAUST_NEAR:
		snprintf(text, sizeof(text),
			 "near: pool \"%s\" has %u of %u ports for %s in use (%u %%)%s", pool,
			 s->now.used, room(&s->now), dp_l4_name((enum sluice_l4)l4),
			 percent(&s->now), when);
		break;
	case EXHAUST_REFUSING:
		snprintf(text, sizeof(text),
			 "refusing: pool \"%s\" had no port or no room for %llu new flows of %s; "
			 "%u of "
			 "%u ports are in use: see \"sluice exhaustion\"",
			 pool, (unsigned long long)(s->refused - refused_before),
			 dp_l4_name((enum sluice_l4)l4), s->now.used, room(&s->now));
		break;
	default:
		snprintf(text, sizeof(text),
			 "over: pool \"%s\" has ports for %s again, %u of %u are in use", pool,
			 dp_l4_name((enum sluice_l4)l4), s->now.used, room(&s->now));
	}
	e->note(e->note_arg, turn == EXHAUST_OVER ? LOG_NOTICE : LOG_WARNING, "exhaustion", text);
}

static void pool_look(struct exhaust *x, const struct engine *e, const char *name, uint64_t now_ns)
{
	struct exhaust_ports sum[SLUICE_L4_MAX] = { 0 };
	int row = plan_pool_row(e->plan, name), slice;
	struct sluice_pool_stats st;
	struct pool *p;

	if (row < 0 || dp_pool_stats(e->dp, (uint32_t)row, &st) < 0)
		return;
	p = &x->pools[row];
	if (strcmp(p->name, name) != 0) {
		*p = (struct pool){ 0 };
		snprintf(p->name, sizeof(p->name), "%s", name);
	}
	for (size_t i = 0; i < e->holds.n; i++) {
		const struct hold *h = &e->holds.rows[i];

		if (strcmp(h->pool, name) != 0 || !hold_live(h, now_ns))
			continue;
		slice = plan_slice_row(e->plan, &h->ports);
		if (slice >= 0)
			slice_look(x, e, (uint32_t)slice, now_ns, sum);
	}
	for (int l4 = 0; l4 < SLUICE_L4_MAX; l4++) {
		struct exhaust_state *s = &p->l4[l4];
		uint64_t before = s->refused;
		enum exhaust_turn turn = exhaust_judge(s, now_ns, &sum[l4], st.refused[l4]);

		if (turn != EXHAUST_NONE)
			tell(e, name, l4, s, turn, before);
	}
}

void exhaust_look(struct exhaust *x, const struct engine *e, uint64_t now_ns)
{
	for (size_t i = 0; i < e->config->n_pools; i++)
		pool_look(x, e, e->config->pools[i].name, now_ns);
}

const struct exhaust_state *exhaust_pool(const struct exhaust *x, uint32_t row, enum sluice_l4 l4)
{
	return x->pools[row].name[0] ? &x->pools[row].l4[l4] : NULL;
}
