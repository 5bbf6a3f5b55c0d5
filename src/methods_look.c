/* SPDX-License-Identifier: BSD-2-Clause */
/* Looking at leases, sockets and records. Others than root and the group see only their own. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "methods.h"
#include "methods_lease.h"
#include "sockdiag.h"

#define IN_VAIN     512 /* looked at without a match before others get a turn */
#define SOCKETS_MAX 65536
#define RECORDS_MAX 1000

/* What a listing may show, and what it was asked for. */
struct look {
	const struct engine *engine;
	char pool[CONFIG_NAME_MAX + 1]; /* "": all */
	uint8_t protos;                 /* 0: all */
	uint16_t port;
	int64_t uid;    /* -1: all */
	int state;      /* -1: all */
	uint64_t id;    /* only this one; 0: all */
	uint64_t after; /* leases: the last one shown */
	json_t *rows;   /* sockets, records: made at once */
	size_t at;
};

static void look_free(void *state)
{
	struct look *k = state;

	if (!k)
		return;
	json_decref(k->rows);
	free(k);
}

/* A look with the filters that listings share. NULL: answered. */
static struct look *look_new(struct control_call *call, const struct engine *e)
{
	static const char *const names[] = { "tcp", "udp" };
	const char *pool = NULL, *proto = NULL;
	int64_t port = 0;
	struct look *k;

	if (control_param_str(call, "pool", &pool) < 0 ||
	    control_param_str(call, "proto", &proto) < 0 ||
	    control_param_int(call, "port", 1, UINT16_MAX, &port) < 0 ||
	    methods_check_pool(call, e, pool))
		return NULL;
	k = calloc(1, sizeof(*k));
	if (!k) {
		control_reply(call, NULL);
		return NULL;
	}
	k->engine = e;
	k->port = (uint16_t)port;
	k->state = -1;
	/* Strangers see what is theirs. */
	k->uid = control_call_trusted(call) ? -1 : (int64_t)control_call_uid(call);
	if (pool)
		memcpy(k->pool, pool, strlen(pool) + 1);
	for (int i = 0; proto && i < 2; i++)
		if (!strcmp(proto, names[i]))
			k->protos = (uint8_t)(1U << i);
	if (proto && !k->protos) {
		look_free(k);
		control_invalid(call, "proto");
		return NULL;
	}
	return k;
}

/* ---- leases ---- */

static bool lease_shown(const struct look *k, const struct lease *l)
{
	return (!k->pool[0] || !strcmp(k->pool, l->pool)) &&
	       (!k->protos || (k->protos & l->protos)) &&
	       (!k->port || (l->ports.first <= k->port && k->port <= l->ports.last)) &&
	       (k->uid < 0 || k->uid == (int64_t)l->holder.uid) &&
	       (k->state < 0 || k->state == (int)l->state) && (!k->id || k->id == l->id);
}

static int leases_next(void *state, json_t **ret)
{
	struct look *k = state;
	const struct lessor *l = k->engine->lessor;
	const struct lease *lease;

	for (int i = 0; i < IN_VAIN; i++) {
		lease = lease_next(lessor_table(l), k->after);
		if (!lease)
			return 0;
		k->after = lease->id;
		if (lease_shown(k, lease)) {
			*ret = methods_lease_json(l, lease);
			return *ret ? 1 : -ENOMEM;
		}
	}
	return -EAGAIN;
}

static const struct control_rows lease_rows = { "leases", leases_next, look_free };

int methods_list_leases(struct control_call *call, void *data)
{
	struct look *k = look_new(call, ((const struct methods *)data)->engine);
	const char *state = NULL;
	int64_t uid = -1, id = 0;

	if (!k)
		return 0;
	if (control_param_str(call, "state", &state) < 0 ||
	    control_param_int(call, "uid", 0, UINT32_MAX, &uid) < 0 ||
	    control_param_int(call, "id", 1, INT64_MAX, &id) < 0) {
		look_free(k);
		return 0;
	}
	if (state && strcmp(state, "active") != 0 && strcmp(state, "cooling") != 0) {
		look_free(k);
		return control_invalid(call, "state");
	}
	if (state)
		k->state = !strcmp(state, "active") ? LEASE_ACTIVE : LEASE_COOLING;
	if (uid >= 0 && k->uid >= 0 && uid != k->uid) {
		look_free(k);
		return control_fail(call, "io.sluice.Denied",
				    "only root and the group may look at other users' leases");
	}
	if (uid >= 0)
		k->uid = uid;
	k->id = (uint64_t)id;
	return control_stream(call, &lease_rows, k);
}

/* ---- rows made at once ---- */

static int rows_next(void *state, json_t **ret)
{
	struct look *k = state;
	json_t *row = json_array_get(k->rows, k->at);

	if (!row)
		return 0;
	k->at++;
	*ret = json_incref(row);
	return 1;
}

/* ---- sockets ---- */

static const struct config_pool *pool_of(const struct config *c, const struct addr *a)
{
	for (size_t i = 0; i < c->n_pools; i++)
		for (size_t n = 0; n < c->pools[i].n_addresses; n++)
			if (!addr_cmp(&c->pools[i].addresses[n], a))
				return &c->pools[i];
	return NULL;
}

static json_t *socket_json(const struct look *k, const struct sockdiag_sock *s,
			   const struct config_pool *pool, const struct lease *lease)
{
	static const struct addr none;
	bool connected = addr_cmp(&s->remote, &none) != 0;
	char local[ADDR_STRLEN], remote[ADDR_STRLEN];
	struct sluice_owner owner;
	bool known = dp_owner(k->engine->dp, s->cookie, &owner);

	/* A socket that was made here is whose the lease is. */
	if (known && lease && owner.pid == (uint32_t)getpid()) {
		owner.pid = lease->holder.pid;
		memcpy(owner.comm, lease->holder.comm, sizeof(owner.comm));
	}

	return json_pack("{s:s, s:s, s:i, s:o, s:o, s:s, s:I, s:o, s:o, s:I, s:s, s:o}", "proto",
			 s->l4 == SLUICE_TCP ? "tcp" : "udp", "local",
			 addr_format(&s->local, local), "lport", s->lport, "remote",
			 connected ? json_string(addr_format(&s->remote, remote)) : json_null(),
			 "rport", connected ? json_integer(s->rport) : json_null(), "state",
			 sockdiag_state_name(s->state), "uid", (json_int_t)s->uid, "pid",
			 known ? json_integer(owner.pid) : json_null(), "comm",
			 known ? json_string(owner.comm) : json_null(), "inode",
			 (json_int_t)s->inode, "pool", pool->name, "lease",
			 lease ? json_integer((json_int_t)lease->id) : json_null());
}

static int sockets_add(const struct sockdiag_sock *s, void *arg)
{
	struct look *k = arg;
	const struct config_pool *pool = pool_of(k->engine->config, &s->local);
	const struct lease *lease;
	json_t *row;

	if (!pool || (k->pool[0] && strcmp(k->pool, pool->name) != 0) ||
	    (k->port && k->port != s->lport) || (k->uid >= 0 && k->uid != (int64_t)s->uid))
		return 0;
	if (json_array_size(k->rows) >= SOCKETS_MAX)
		return -E2BIG;
	lease = lease_at(lessor_table(k->engine->lessor), &s->local, s->lport, s->l4);
	row = socket_json(k, s, pool, lease && lease->state == LEASE_ACTIVE ? lease : NULL);
	return row && !json_array_append_new(k->rows, row) ? 0 : -ENOMEM;
}

static const struct control_rows socket_rows = { "sockets", rows_next, look_free };

int methods_list_sockets(struct control_call *call, void *data)
{
	const struct methods *m = data;
	struct look *k = look_new(call, m->engine);
	struct errtext err = { 0 };
	int r = 0;

	if (!k)
		return 0;
	k->rows = json_array();
	for (enum sluice_l4 l4 = SLUICE_TCP; l4 <= SLUICE_UDP && !r; l4++)
		if (!k->protos || (k->protos & 1U << l4))
			r = lessor_sockets(m->engine->lessor, l4, sockets_add, k, &err);
	if (!r && k->rows)
		return control_stream(call, &socket_rows, k);
	look_free(k);
	if (r == -E2BIG)
		return control_fail(call, "io.sluice.Failed",
				    "more than %d sockets: ask for one protocol, pool or port",
				    SOCKETS_MAX);
	if (r == -EINTR)
		return control_fail(call, "io.sluice.Failed",
				    "the socket tables change too fast: ask again");
	return control_fail(call, "io.sluice.Failed", "%s", err.s[0] ? err.s : strerror(ENOMEM));
}

/* ---- who ---- */

int methods_time_parse(const char *s, int64_t *ret_ms)
{
	int64_t ms = 0, zone_s = 0, scale = 100;
	int hours, minutes, n = 0;
	struct tm tm = { 0 };
	const char *p = strptime(s, "%Y-%m-%d", &tm);

	if (!p || (*p != 'T' && *p != 't' && *p != ' '))
		return -EINVAL;
	p = strptime(p + 1, "%H:%M:%S", &tm);
	if (!p)
		return -EINVAL;
	if (*p == '.') {
		if (p[1] < '0' || p[1] > '9')
			return -EINVAL;
		for (p++; *p >= '0' && *p <= '9'; p++, scale /= 10)
			ms += (*p - '0') * scale;
	}
	if (*p == '+' || *p == '-') {
		if (sscanf(p + 1, "%2d:%2d%n", &hours, &minutes, &n) != 2 || n != 5 || hours > 23 ||
		    minutes > 59 || p[1 + n])
			return -EINVAL;
		zone_s = (hours * 60 + minutes) * 60 * (*p == '-' ? -1 : 1);
	} else if ((*p != 'Z' && *p != 'z') || p[1]) {
		return -EINVAL;
	}
	*ret_ms = ((int64_t)timegm(&tm) - zone_s) * 1000 + ms;
	return 0;
}

static json_t *when_json(int64_t ms)
{
	return ms ? control_time(ms) : json_null();
}

static int record_add(const struct store_record *r, void *arg)
{
	struct look *k = arg;
	const struct range *ports = r->lease ? &r->lease->ports : &r->hold->ports;
	char address[ADDR_STRLEN];
	json_t *row;

	if (k->uid >= 0 && (!r->lease || k->uid != (int64_t)r->lease->holder.uid))
		return 0;
	row = json_pack("{s:s, s:s, s:s, s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "what",
			r->lease ? "lease" : "slice", "pool",
			r->lease ? r->lease->pool : r->hold->pool, "address",
			addr_format(&ports->addr, address), "first", ports->first, "last",
			ports->last, "proto",
			r->lease ? json_string(lease_protos_name(r->lease->protos)) : json_null(),
			"id", r->lease ? json_integer((json_int_t)r->lease->id) : json_null(),
			"holder", r->lease ? methods_holder_json(&r->lease->holder) : json_null(),
			"name", r->lease ? json_string(r->lease->name) : json_null(), "began",
			when_json(r->began_ms), "ended", when_json(r->ended_ms), "why", r->why);
	return row && !json_array_append_new(k->rows, row) ? 0 : -ENOMEM;
}

static const struct control_rows record_rows = { "records", rows_next, look_free };

int methods_who(struct control_call *call, void *data)
{
	const struct methods *m = data;
	struct look *k = look_new(call, m->engine);
	const char *address = NULL, *at = NULL;
	struct errtext err = { 0 };
	const char *wrong = NULL;
	int64_t at_ms = 0;
	struct addr a;
	int r;

	if (!k)
		return 0;
	if (control_param_str(call, "address", &address) < 0 ||
	    control_param_str(call, "at", &at) < 0) {
		look_free(k);
		return 0;
	}
	if (!address || addr_parse(address, &a) < 0)
		wrong = "address";
	else if (!k->port)
		wrong = "port";
	else if (at && methods_time_parse(at, &at_ms) < 0)
		wrong = "at";
	if (wrong) {
		look_free(k);
		return control_invalid(call, wrong);
	}
	k->rows = json_array();
	r = k->rows ? store_who(m->engine->store, &a, k->port, k->protos, at_ms, RECORDS_MAX,
				record_add, k, &err)
		    : -ENOMEM;
	if (!r)
		return control_stream(call, &record_rows, k);
	look_free(k);
	return control_fail(call, "io.sluice.Failed", "%s", err.s[0] ? err.s : strerror(-r));
}
