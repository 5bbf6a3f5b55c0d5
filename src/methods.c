/* SPDX-License-Identifier: BSD-2-Clause */
#include "methods.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "methods_collide.h"
#include "methods_exhaust.h"
#include "methods_lease.h"

#define FLOWS_AT_ONCE 64  /* read from the table by one call */
#define FLOWS_IN_VAIN 512 /* looked at without a match before others get a turn */

static const char *mapping_name(enum sluice_mapping m)
{
	return m == SLUICE_EIM ? "endpoint-independent" : "overload";
}

static const char *filtering_name(enum sluice_filtering f)
{
	switch (f) {
	case SLUICE_FILTER_ADDRESS:
		return "address-dependent";
	case SLUICE_FILTER_NONE:
		return "endpoint-independent";
	case SLUICE_FILTER_PORT:
		return "address-port-dependent";
	}
	return "";
}

static const char *unleased_name(enum sluice_unleased u)
{
	switch (u) {
	case SLUICE_UNLEASED_ALLOW:
		return "allow";
	case SLUICE_UNLEASED_REPORT:
		return "report";
	case SLUICE_UNLEASED_DENY:
		return "deny";
	}
	return "";
}

static json_t *counts(const uint64_t n[SLUICE_L4_MAX])
{
	return json_pack("{s:I, s:I, s:I}", "tcp", (json_int_t)n[SLUICE_TCP], "udp",
			 (json_int_t)n[SLUICE_UDP], "icmp", (json_int_t)n[SLUICE_ICMP]);
}

static json_t *strings(char *const *v, size_t n)
{
	json_t *a = json_array();

	for (size_t i = 0; a && i < n; i++)
		if (json_array_append_new(a, json_string(v[i])) < 0) {
			json_decref(a);
			return NULL;
		}
	return a;
}

json_t *methods_seconds_until(uint64_t at_ns, uint64_t now_ns)
{
	if (at_ns == SLUICE_NEVER)
		return json_null();
	return json_integer(at_ns > now_ns ? (json_int_t)((at_ns - now_ns) / NS_PER_S) : 0);
}

static json_t *lease_counts(const struct engine *e)
{
	struct lessor_stats st = lessor_stats(e->lessor);
	struct lease_counts n;

	lease_count(lessor_table(e->lessor), NULL, &n);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "active", (json_int_t)n.active,
			 "cooling", (json_int_t)n.cooling, "granted", (json_int_t)st.granted,
			 "ended", (json_int_t)st.ended, "refused", (json_int_t)st.refused, "in_use",
			 (json_int_t)st.in_use, "repaired", (json_int_t)st.repaired);
}

static int get_status(struct control_call *call, void *data)
{
	const struct methods *m = data;
	const struct engine *e = m->engine;
	uint64_t now_ns = clock_boot_ns(), first_ns = SLUICE_NEVER;
	json_t *uplinks = json_array();

	for (size_t i = 0; i < e->n_uplinks; i++) {
		const struct engine_uplink *u = &e->uplinks[i];

		json_array_append_new(uplinks,
				      json_pack("{s:s, s:I, s:s, s:s, s:s}", "name", u->name,
						"ifindex", (json_int_t)u->ifindex, "state",
						!u->ifindex ? "missing"
						: u->up     ? "up"
							    : "down",
						"ingress", u->how, "egress", u->how));
	}
	for (size_t i = 0; i < e->holds.n; i++)
		if (e->holds.rows[i].not_after_ns < first_ns)
			first_ns = e->holds.rows[i].not_after_ns;
	return control_reply(
		call,
		json_pack("{s:s, s:s, s:s, s:o, s:I, s:o, s:I, s:I, s:o, s:o, s:o, s:o, s:o, "
			  "s:o, s:o, s:{s:s, s:i}}",
			  "machine", e->config->machine, "version", SLUICE_VERSION, "backend",
			  "local", "started", control_time(e->started_ms), "uptime_s",
			  (json_int_t)((now_ns - e->started_ns) / NS_PER_S), "uplinks", uplinks,
			  "pools", (json_int_t)e->config->n_pools, "slices_held",
			  (json_int_t)e->holds.n, "flows", counts((const uint64_t *)e->swept.flows),
			  "deadline_s", methods_seconds_until(first_ns, now_ns), "last_sweep_s",
			  e->swept_ns
				  ? json_integer((json_int_t)((now_ns - e->swept_ns) / NS_PER_S))
				  : json_null(),
			  "warnings", strings(e->config->warnings, e->config->n_warnings), "leases",
			  lease_counts(e), "watch", methods_watch_json(m->watcher, m->collisions),
			  "control", control_stats(m->control), "store", "path",
			  e->config->state_dir, "schema", (int)store_defaults().n_migrations));
}

/* Rows that are made from a counter: pools, drops. */
struct rows {
	const struct engine *engine;
	size_t at;
	char pool[CONFIG_NAME_MAX + 1]; /* "" for all */
	struct sluice_count drops[SLUICE_REASON_MAX];
};

static struct rows *rows_new(const struct engine *e)
{
	struct rows *r = calloc(1, sizeof(*r));

	if (r)
		r->engine = e;
	return r;
}

static json_t *prefixes(const struct prefix *v, size_t n)
{
	char text[PREFIX_STRLEN];
	json_t *a = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, json_string(prefix_format(&v[i], text)));
	return a;
}

static int pools_next(void *state, json_t **ret)
{
	struct rows *r = state;
	const struct engine *e = r->engine;
	struct sluice_pool_stats st = { 0 };
	const struct config_pool *p;
	uint64_t live[SLUICE_L4_MAX];
	char text[ADDR_STRLEN];
	json_t *addresses;
	int row, err;

	if (r->at >= e->config->n_pools)
		return 0;
	p = &e->config->pools[r->at++];
	row = plan_pool_row(e->plan, p->name);
	if (row < 0)
		return row;
	err = dp_pool_stats(e->dp, (uint32_t)row, &st);
	if (err < 0)
		return err;
	/* Read one CPU after the other, a flow's end can be seen without its beginning. */
	for (int i = 0; i < SLUICE_L4_MAX; i++)
		live[i] = st.created[i] > st.ended[i] ? st.created[i] - st.ended[i] : 0;
	addresses = json_array();
	for (size_t i = 0; i < p->n_addresses; i++)
		json_array_append_new(addresses, json_string(addr_format(&p->addresses[i], text)));
	*ret = json_pack(
		"{s:s, s:o, s:I, s:I, s:o, s:o, s:s, s:s, s:s, s:s, s:o, s:o, s:{s:I, s:I}, "
		"s:{s:I, s:I},"
		" s:o, s:o, s:I, s:I}",
		"name", p->name, "addresses", addresses, "slice_size", (json_int_t)p->slice_size,
		"slices", (json_int_t)hold_count(&e->holds, p->name), "clients",
		prefixes(p->clients, p->n_clients), "no_nat", prefixes(p->no_nat, p->n_no_nat),
		"tcp_mapping", mapping_name(p->mapping[SLUICE_TCP]), "udp_mapping",
		mapping_name(p->mapping[SLUICE_UDP]), "filtering",
		filtering_name(p->filtering[SLUICE_UDP]), "unleased", unleased_name(p->unleased),
		"tags", strings(p->tags, p->n_tags), "flows", counts(live), "packets", "in",
		(json_int_t)st.in.packets, "out", (json_int_t)st.out.packets, "bytes", "in",
		(json_int_t)st.in.bytes, "out", (json_int_t)st.out.bytes, "created",
		counts((const uint64_t *)st.created), "refused",
		counts((const uint64_t *)st.refused), "resolved", (json_int_t)st.resolved,
		"unleased_seen", (json_int_t)st.unleased);
	return *ret ? 1 : -ENOMEM;
}

static int slices_next(void *state, json_t **ret)
{
	struct rows *r = state;
	const struct engine *e = r->engine;
	uint64_t now_ns = clock_boot_ns();
	uint32_t used[SLUICE_L4_MAX];
	char address[ADDR_STRLEN];
	const struct hold *h;
	int row;

	do {
		if (r->at >= e->holds.n)
			return 0;
		h = &e->holds.rows[r->at++];
	} while (r->pool[0] && strcmp(r->pool, h->pool));
	row = plan_slice_row(e->plan, &h->ports);
	if (row < 0)
		return row;
	dp_slice_used(e->dp, (uint32_t)row, used);
	*ret = json_pack("{s:s, s:s, s:i, s:i, s:s, s:I, s:o, s:{s:I, s:I, s:I}}", "pool", h->pool,
			 "address", addr_format(&h->ports.addr, address), "first", h->ports.first,
			 "last", h->ports.last, "state", hold_live(h, now_ns) ? "held" : "fenced",
			 "epoch", (json_int_t)h->epoch, "expires_s",
			 methods_seconds_until(h->not_after_ns, now_ns), "used", "tcp",
			 (json_int_t)used[SLUICE_TCP], "udp", (json_int_t)used[SLUICE_UDP], "icmp",
			 (json_int_t)used[SLUICE_ICMP]);
	return *ret ? 1 : -ENOMEM;
}

static int drops_next(void *state, json_t **ret)
{
	struct rows *r = state;
	uint32_t i = (uint32_t)r->at;

	if (i >= SLUICE_REASON_MAX)
		return 0;
	r->at++;
	*ret = json_pack("{s:s, s:I, s:I, s:s}", "reason", dp_reason_name(i), "packets",
			 (json_int_t)r->drops[i].packets, "bytes", (json_int_t)r->drops[i].bytes,
			 "help", dp_reason_help(i));
	return *ret ? 1 : -ENOMEM;
}

static const struct control_rows pool_rows = { "pools", pools_next, free };
static const struct control_rows slice_rows = { "slices", slices_next, free };
static const struct control_rows drop_rows = { "drops", drops_next, free };

int methods_check_pool(struct control_call *call, const struct engine *e, const char *pool)
{
	for (size_t i = 0; pool && i < e->config->n_pools; i++)
		if (!strcmp(e->config->pools[i].name, pool))
			return 0;
	if (!pool)
		return 0;
	control_error(call, "io.sluice.NoSuchPool", json_pack("{s:s}", "pool", pool));
	return 1;
}

static int list_pools(struct control_call *call, void *data)
{
	return control_stream(call, &pool_rows, rows_new(((struct methods *)data)->engine));
}

static int list_slices(struct control_call *call, void *data)
{
	const struct methods *m = data;
	const char *pool = NULL;
	struct rows *r;

	if (control_param_str(call, "pool", &pool) < 0 || methods_check_pool(call, m->engine, pool))
		return 0;
	r = rows_new(m->engine);
	if (r && pool)
		memcpy(r->pool, pool,
		       strlen(pool) + 1); /* as long as a pool's name, for it is one */
	return control_stream(call, &slice_rows, r);
}

static int list_drops(struct control_call *call, void *data)
{
	const struct methods *m = data;
	struct rows *r = rows_new(m->engine);
	int err;

	if (!r)
		return -ENOMEM;
	err = dp_drops(m->engine->dp, r->drops);
	if (err < 0) {
		free(r);
		return err;
	}
	return control_stream(call, &drop_rows, r);
}

struct walk {
	const struct engine *engine;
	struct dp_flow_cursor *cursor;
	struct dp_flow flows[FLOWS_AT_ONCE];
	size_t n, at;
	int pool_row;      /* -1: all */
	const char *proto; /* dp_proto_name(); NULL: all */
	bool by_client;
	struct prefix client;
	uint16_t port; /* 0: all */
};

static void walk_free(void *state)
{
	struct walk *w = state;

	if (!w)
		return;
	dp_flow_cursor_free(w->cursor);
	free(w);
}

static bool walk_matches(const struct walk *w, const struct dp_flow *f)
{
	if (w->pool_row >= 0 && f->pool != (uint32_t)w->pool_row)
		return false;
	/* By name: ICMPv6 goes by that of ICMP. */
	if (w->proto && strcmp(dp_proto_name(f->proto), w->proto))
		return false;
	if (w->by_client && !prefix_contains(&w->client, &f->inner))
		return false;
	return !w->port || f->inner_port == w->port || f->outer_port == w->port;
}

static json_t *flow_json(const struct walk *w, const struct dp_flow *f)
{
	static const struct addr none;
	char inner[ADDR_STRLEN], outer[ADDR_STRLEN], remote[ADDR_STRLEN];
	bool any = !addr_cmp(&f->remote, &none);

	return json_pack("{s:s, s:s, s:{s:s, s:i, s:o, s:o}, s:{s:s, s:i}, s:s, s:I, s:b}", "pool",
			 dp_pool(w->engine->dp, f->pool)->name, "proto", dp_proto_name(f->proto),
			 "inner", "src", addr_format(&f->inner, inner), "sport", f->inner_port,
			 "dst", any ? json_null() : json_string(addr_format(&f->remote, remote)),
			 "dport", any ? json_null() : json_integer(f->remote_port), "outer", "src",
			 addr_format(&f->outer, outer), "sport", f->outer_port, "state",
			 dp_flow_state_name(f->state), "expires_s", (json_int_t)f->expires_s,
			 "local", f->local);
}

static int flows_next(void *state, json_t **ret)
{
	struct walk *w = state;

	for (size_t looked_at = 0; looked_at < FLOWS_IN_VAIN; looked_at++) {
		const struct dp_flow *f;

		if (w->at == w->n) {
			int n = dp_flows_next(w->engine->dp, w->cursor, w->flows, FLOWS_AT_ONCE);

			if (n <= 0)
				return n;
			w->n = (size_t)n;
			w->at = 0;
		}
		f = &w->flows[w->at++];
		if (walk_matches(w, f)) {
			*ret = flow_json(w, f);
			return *ret ? 1 : -ENOMEM;
		}
	}
	return -EAGAIN;
}

static const struct control_rows flow_rows = { "flows", flows_next, walk_free };

static int list_flows(struct control_call *call, void *data)
{
	const struct methods *m = data;
	const char *pool = NULL, *proto = NULL, *client = NULL;
	struct walk want = { .engine = m->engine, .pool_row = -1 }, *w;
	int64_t port = 0;

	if (control_param_str(call, "pool", &pool) < 0 ||
	    control_param_str(call, "proto", &proto) < 0 ||
	    control_param_str(call, "client", &client) < 0 ||
	    control_param_int(call, "port", 1, 65535, &port) < 0 ||
	    methods_check_pool(call, m->engine, pool))
		return 0;
	if (pool)
		want.pool_row = plan_pool_row(m->engine->plan, pool);
	if (proto) {
		static const int protos[SLUICE_L4_MAX] = { IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP };

		for (int i = 0; i < SLUICE_L4_MAX; i++)
			if (!strcmp(proto, dp_proto_name((uint8_t)protos[i])))
				want.proto = dp_proto_name((uint8_t)protos[i]);
		if (!want.proto)
			return control_invalid(call, "proto");
	}
	if (client) {
		if (prefix_parse(client, &want.client) < 0)
			return control_invalid(call, "client");
		want.by_client = true;
	}
	want.port = (uint16_t)port;
	want.cursor = dp_flow_cursor_new();
	w = want.cursor ? malloc(sizeof(*w)) : NULL;
	if (!w) {
		dp_flow_cursor_free(want.cursor);
		return -ENOMEM;
	}
	*w = want;
	return control_stream(call, &flow_rows, w);
}

static int reload(struct control_call *call, void *data)
{
	const struct methods *m = data;
	struct errtext err = { 0 };

	if (m->reload(m->reload_arg, &err) < 0)
		return control_fail(call, "io.sluice.BadConfig", "%s", err.s);
	return control_reply(call, json_object());
}

const struct control_method methods_table[] = {
	{ .name = "GetStatus", .fn = get_status, .flags = CONTROL_ANY },
	{ .name = "ListPools", .fn = list_pools, .flags = CONTROL_ANY },
	{ .name = "ListSlices", .fn = list_slices, .params = "pool", .flags = CONTROL_ANY },
	{ .name = "ListFlows", .fn = list_flows, .params = "pool proto client port" },
	{ .name = "ListDrops", .fn = list_drops, .flags = CONTROL_ANY },
	{ .name = "Acquire",
	  .fn = methods_acquire,
	  .params =
		  "pool tags address proto exclusive port ports leases align parity ttl until pid "
		  "name labels brief" },
	{ .name = "Renew", .fn = methods_renew, .params = "id ttl" },
	{ .name = "Release", .fn = methods_release, .params = "id ids" },
	{ .name = "Open", .fn = methods_open, .params = "id proto port listen nonblock reuseport" },
	{ .name = "Register", .fn = methods_register, .params = "id", .flags = CONTROL_FD },
	{ .name = "Exec",
	  .fn = methods_exec,
	  .params = "pool tags address exclusive ports name id" },
	{ .name = "ListLeases",
	  .fn = methods_list_leases,
	  .params = "pool proto port uid state id",
	  .flags = CONTROL_ANY },
	METHODS_LIST_COLLISIONS,
	METHODS_LIST_EXHAUSTION,
	{ .name = "ListSockets",
	  .fn = methods_list_sockets,
	  .params = "pool proto port",
	  .flags = CONTROL_ANY },
	{ .name = "Who",
	  .fn = methods_who,
	  .params = "address port proto at",
	  .flags = CONTROL_ANY },
	{ .name = "Monitor", .fn = control_monitor },
	{ .name = "Reload", .fn = reload, .flags = CONTROL_ROOT },
};
const size_t methods_table_len = sizeof(methods_table) / sizeof(methods_table[0]);
