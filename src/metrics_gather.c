/* SPDX-License-Identifier: BSD-2-Clause */
#include "metrics_gather.h"

#include <math.h>
#include <string.h>

#include "clock.h"
#include "exhaust.h"

/* Families that have samples of each pool. */
struct pool_families {
	struct metric_family *slices, *ports, *used, *deadline, *leases, *flows, *created, *packets,
		*bytes;
};

/* A pool's slices, added up. */
struct pool_slices {
	uint64_t held, fenced, ports, used[SLUICE_L4_MAX];
	uint64_t first_ns; /* deadline */
};

static struct pool_slices add_slices(const struct engine *e, const char *pool, uint64_t now_ns)
{
	struct pool_slices sum = { .first_ns = SLUICE_NEVER };

	for (size_t i = 0; i < e->holds.n; i++) {
		const struct hold *h = &e->holds.rows[i];
		uint32_t used[SLUICE_L4_MAX];
		int row;

		if (strcmp(h->pool, pool) != 0)
			continue;
		sum.held += hold_live(h, now_ns);
		sum.fenced += !hold_live(h, now_ns);
		sum.ports += (uint64_t)h->ports.last - h->ports.first + 1;
		if (h->not_after_ns < sum.first_ns)
			sum.first_ns = h->not_after_ns;
		row = plan_slice_row(e->plan, &h->ports);
		if (row < 0)
			continue;
		dp_slice_used(e->dp, (uint32_t)row, used);
		for (int l4 = 0; l4 < SLUICE_L4_MAX; l4++)
			sum.used[l4] += used[l4];
	}
	return sum;
}

static double seconds_left(uint64_t at_ns, uint64_t now_ns)
{
	if (at_ns == SLUICE_NEVER)
		return INFINITY;
	return at_ns > now_ns ? (double)(at_ns - now_ns) / NS_PER_S : 0;
}

static void add_used(struct metric_family *f, const char *pool, const char *proto, const char *mode,
		     uint64_t n)
{
	metric_count(f, METRIC_LABELS({ "pool", pool }, { "proto", proto }, { "mode", mode }), n);
}

static void pool_slices(const struct pool_families *f, const struct engine *e,
			const struct config_pool *p, uint64_t now_ns)
{
	struct pool_slices sum = add_slices(e, p->name, now_ns);
	struct lease_counts leases;

	lease_count(lessor_table(e->lessor), p->name, &leases);
	metric_count(f->slices, METRIC_LABELS({ "pool", p->name }, { "state", "held" }), sum.held);
	metric_count(f->slices, METRIC_LABELS({ "pool", p->name }, { "state", "fenced" }),
		     sum.fenced);
	metric_count(f->ports, METRIC_LABELS({ "pool", p->name }), sum.ports);
	for (int l4 = 0; l4 < SLUICE_L4_MAX; l4++) {
		add_used(f->used, p->name, dp_l4_name((enum sluice_l4)l4),
			 p->mapping[l4] == SLUICE_EIM ? "endpoint-independent" : "overload",
			 sum.used[l4]);
		if (l4 == SLUICE_ICMP)
			continue;
		add_used(f->used, p->name, dp_l4_name((enum sluice_l4)l4), "lease",
			 leases.ports[l4]);
		add_used(f->used, p->name, dp_l4_name((enum sluice_l4)l4), "cooling",
			 leases.cooling_ports[l4]);
	}
	metric_value(f->deadline, METRIC_LABELS({ "pool", p->name }),
		     seconds_left(sum.first_ns, now_ns));
	for (int kind = 0; kind < 2; kind++)
		metric_count(
			f->leases,
			METRIC_LABELS({ "pool", p->name },
				      { "kind", lease_kind_name((enum sluice_lease_kind)kind) }),
			leases.by_kind[kind]);
}

static void pool_traffic(const struct pool_families *f, const char *pool,
			 const struct sluice_pool_stats *st)
{
	const struct {
		const char *name;
		const struct sluice_count *n;
	} directions[] = { { "in", &st->in }, { "out", &st->out } };

	for (int l4 = 0; l4 < SLUICE_L4_MAX; l4++) {
		const struct metric_label labels[] = { { "pool", pool },
						       { "proto", dp_l4_name((enum sluice_l4)l4) },
						       { NULL, NULL } };

		/* Read one CPU after the other, a flow's end can be seen without its beginning. */
		metric_count(f->flows, labels,
			     st->created[l4] > st->ended[l4] ? st->created[l4] - st->ended[l4] : 0);
		metric_count(f->created, labels, st->created[l4]);
	}
	for (int i = 0; i < 2; i++) {
		const struct metric_label labels[] = { { "pool", pool },
						       { "direction", directions[i].name },
						       { NULL, NULL } };

		metric_count(f->packets, labels, directions[i].n->packets);
		metric_count(f->bytes, labels, directions[i].n->bytes);
	}
}

static void gather_pools(const struct engine *e, uint64_t now_ns, struct metrics_text *t)
{
	struct pool_families f = {
		.slices = metrics_text_family(
			t, "sluice_slices", METRIC_GAUGE,
			"Slices that this machine holds; fenced: past their deadline."),
		.ports = metrics_text_family(t, "sluice_slice_ports", METRIC_GAUGE,
					     "Ports of the slices, for each protocol."),
		.used = metrics_text_family(
			t, "sluice_slice_ports_used", METRIC_GAUGE,
			"Ports in use: by flows and by sockets without a lease, as the last sweep "
			"found them (overload, endpoint-independent), leased (lease), or resting "
			"after a lease (cooling)."),
		.deadline = metrics_text_family(
			t, "sluice_slice_deadline_seconds", METRIC_GAUGE,
			"Time until the first of the pool's slices ends if it is not renewed."),
		.leases = metrics_text_family(t, "sluice_leases", METRIC_GAUGE, "Active leases."),
		.flows = metrics_text_family(t, "sluice_flows", METRIC_GAUGE, "Translated flows."),
		.created = metrics_text_family(t, "sluice_flows_created_total", METRIC_COUNTER,
					       "Flows that began."),
		.packets = metrics_text_family(
			t, "sluice_packets_total", METRIC_COUNTER,
			"Packets with a shared address that passed an uplink, translated or a "
			"socket's."),
		.bytes = metrics_text_family(t, "sluice_bytes_total", METRIC_COUNTER,
					     "Bytes of these packets."),
	};
	struct metric_family *expired = metrics_text_family(
		t, "sluice_flows_expired_total", METRIC_COUNTER,
		"Flows that ended; ended: by their idle time, closed and reset ones among them.");
	struct sluice_pool_stats st;
	uint64_t ended = 0;

	for (size_t i = 0; i < e->config->n_pools; i++) {
		const struct config_pool *p = &e->config->pools[i];
		int row = plan_pool_row(e->plan, p->name);

		pool_slices(&f, e, p, now_ns);
		if (row < 0 || dp_pool_stats(e->dp, (uint32_t)row, &st) < 0)
			continue;
		pool_traffic(&f, p->name, &st);
	}
	/* Pools that are gone too: it must not go down with them. */
	for (uint32_t row = 0; row < SLUICE_MAX_POOLS; row++) {
		if (dp_pool_stats(e->dp, row, &st) < 0)
			continue;
		for (int l4 = 0; l4 < SLUICE_L4_MAX; l4++)
			ended += st.ended[l4];
	}
	metric_count(expired, METRIC_LABELS({ "reason", "ended" }), ended);
}

/* Without addresses: the destinations are told by ListExhaustion alone. */
static void gather_exhaustion(const struct engine *e, struct metrics_text *t)
{
	struct metric_family *full = metrics_text_family(
		t, "sluice_pool_full_seconds", METRIC_GAUGE,
		"Until all ports of a pool that are not leased are in use, if it goes on filling; "
		"+Inf: not in sight.");
	struct metric_family *refused =
		metrics_text_family(t, "sluice_pool_refused_total", METRIC_COUNTER,
				    "Flows that found no port or no room.");

	for (size_t i = 0; i < e->config->n_pools; i++) {
		const char *pool = e->config->pools[i].name;
		int row = plan_pool_row(e->plan, pool);

		for (int l4 = 0; row >= 0 && l4 < SLUICE_L4_MAX; l4++) {
			const struct exhaust_state *s =
				exhaust_pool(e->exhaust, (uint32_t)row, (enum sluice_l4)l4);
			const struct metric_label labels[] = { { "pool", pool },
							       { "proto",
								 dp_l4_name((enum sluice_l4)l4) },
							       { NULL, NULL } };
			double left_s;

			if (!s)
				continue;
			left_s = exhaust_left_s(&s->forecast, &s->now);
			metric_value(full, labels, left_s < 0 ? INFINITY : left_s);
			metric_count(refused, labels, s->refused);
		}
	}
}

static void gather_drops(const struct dp *dp, struct metrics_text *t)
{
	struct metric_family *f =
		metrics_text_family(t, "sluice_drops_total", METRIC_COUNTER, "Dropped packets.");
	struct sluice_count drops[SLUICE_REASON_MAX];

	if (dp_drops(dp, drops) < 0)
		return;
	for (uint32_t i = 0; i < SLUICE_REASON_MAX; i++)
		metric_count(f, METRIC_LABELS({ "reason", dp_reason_name(i) }), drops[i].packets);
}

static void gather_collisions(const struct collisions *c, const struct watcher *w,
			      struct metrics_text *t)
{
	static const char *const in_slice[] = { "false", "true" };
	struct metric_family *f = metrics_text_family(
		t, "sluice_collisions_total", METRIC_COUNTER,
		"Collisions told, by who saw it first, and whether the port that the packets have "
		"lies in a slice of this machine.");

	for (size_t i = 0; i < sizeof(c->told) / sizeof(c->told[0]); i++)
		for (int k = 0; k < 2; k++)
			metric_count(f,
				     METRIC_LABELS({ "source", collision_source_name(1U << i) },
						   { "in_slice", in_slice[k] }),
				     c->told[i][k]);
	f = metrics_text_family(t, "sluice_watch_losses_total", METRIC_COUNTER,
				"Losses of events, after each of which conntrack's table is read.");
	if (!w)
		return;
	for (int i = 0; i < 2; i++)
		metric_count(f, METRIC_LABELS({ "source", collision_source_name(1U << i) }),
			     watch_stats(w).losses[i]);
}

static void gather_store(const struct store *s, struct metrics_text *t)
{
	struct metric_family *f =
		metrics_text_family(t, "sluice_store_commit_seconds", METRIC_HISTOGRAM,
				    "How long it took until a transaction was on the disk.");
	struct store_stats st = store_stats(s);
	double bounds[STORE_COMMIT_BOUNDS];

	for (size_t i = 0; i < STORE_COMMIT_BOUNDS; i++)
		bounds[i] = store_commit_bounds_us[i] / 1e6;
	metric_histogram(f, NULL, bounds, st.commits, STORE_COMMIT_BOUNDS,
			 (double)st.commit_ns / NS_PER_S);
}

void metrics_gather(const struct metrics_sources *s, uint64_t now_ns, struct metrics_text *t)
{
	struct metric_family *f =
		metrics_text_family(t, "sluice_build_info", METRIC_GAUGE, "Always 1.");

	metric_count(f, METRIC_LABELS({ "version", SLUICE_VERSION }), 1);
	if (s->engine) {
		gather_pools(s->engine, now_ns, t);
		gather_exhaustion(s->engine, t);
		gather_drops(s->engine->dp, t);
	}
	gather_collisions(s->collisions, s->watcher, t);
	if (s->store)
		gather_store(s->store, t);
}
