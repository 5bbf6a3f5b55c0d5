/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Taking and giving back. Whoever is in the group may lease; a lease is its user's and root's. Nothing is answered before it is on the disk: see
 * control_reply_held().
 */
#include "methods_lease.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "methods.h"
#include "open.h"

#define INVALID    "io.sluice.Invalid"
#define NO_LEASE   "io.sluice.NoSuchLease"
#define EXEC_PORTS 64 /* of "exec" when none are asked for: one block */

/* ---- as JSON ---- */

json_t *methods_holder_json(const struct lease_holder *h)
{
	return json_pack("{s:I, s:I, s:s, s:s}", "pid", (json_int_t)h->pid, "uid",
			 (json_int_t)h->uid, "comm", h->comm, "cgroup", h->cgroup);
}

json_t *methods_lease_json(const struct lessor *l, const struct lease *lease)
{
	char address[ADDR_STRLEN];

	return json_pack("{s:I, s:s, s:s, s:s, s:i, s:i, s:s, s:s, s:o, s:s, s:s, s:s, s:o, s:o, "
			 "s:b}",
			 "id", (json_int_t)lease->id, "pool", lease->pool, "proto",
			 lease_protos_name(lease->protos), "address",
			 addr_format(&lease->ports.addr, address), "first", lease->ports.first,
			 "last", lease->ports.last, "kind", lease_kind_name(lease->kind), "state",
			 lease->state == LEASE_ACTIVE ? "active" : "cooling", "holder",
			 methods_holder_json(&lease->holder), "until",
			 lease_bound_name(lease->bound), "name", lease->name, "labels",
			 lease->labels, "created", control_time(lease->created_ms), "expires_s",
			 methods_seconds_until(lease->state == LEASE_ACTIVE ? lease->expires_ns
									    : SLUICE_NEVER,
					       clock_boot_ns()),
			 "steered", (int)lessor_steered(l, lease));
}

json_t *methods_lease_event(const struct lessor *l, enum lease_verb verb, const struct lease *lease)
{
	static const char *const verbs[] = {
		[LEASE_GRANTED] = "granted",
		[LEASE_RENEWED] = "renewed",
		[LEASE_RELEASED] = "ended",
	};
	const char *why = verb == LEASE_RELEASED ? lease_why_name(lease->why) : "";
	char text[RANGE_STRLEN];

	return json_pack("{s:s, s:s, s:s, s:o, s:s+++++}", "event", "lease", "pool", lease->pool,
			 "proto", lease_protos_name(lease->protos), "lease",
			 methods_lease_json(l, lease), "text", verbs[verb], *why ? " (" : "", why,
			 *why ? ")" : "", " ", range_format(&lease->ports, text));
}

/* ---- errors ---- */

static int refuse(struct control_call *call, int r, const struct errtext *err)
{
	switch (r) {
	case -ENOSPC:
	case -ENOENT:
	case -EBUSY:
		return control_fail(call, "io.sluice.NoPorts", "%s", err->s);
	case -EDQUOT:
		return control_fail(call, "io.sluice.QuotaExceeded", "%s", err->s);
	case -EADDRINUSE:
		return control_fail(call, "io.sluice.Conflict", "%s", err->s);
	case -EKEYEXPIRED:
		return control_fail(call, "io.sluice.Fenced", "%s", err->s);
	case -EACCES:
		return control_fail(call, "io.sluice.Denied", "%s", err->s);
	case -EINVAL:
	case -ESRCH:
		return control_fail(call, INVALID, "%s", err->s);
	}
	return control_fail(call, "io.sluice.Failed", "%s", err->s[0] ? err->s : strerror(-r));
}

/* ---- parameters ---- */

/* One of a few words; NULL at the end of the list. -EINVAL: answered. */
static int param_word(struct control_call *call, const char *name, const char *const *words,
		      int *ret)
{
	const char *word = NULL;

	if (control_param_str(call, name, &word) < 0)
		return -EINVAL;
	if (!word)
		return 0;
	for (int i = 0; words[i]; i++) {
		if (!strcmp(words[i], word)) {
			*ret = i;
			return 0;
		}
	}
	control_invalid(call, name);
	return -EINVAL;
}

static int param_proto(struct control_call *call, uint8_t *ret)
{
	static const char *const words[] = { "tcp", "udp", "tcp+udp", NULL };
	static const uint8_t protos[] = { LEASE_TCP, LEASE_UDP, LEASE_TCP | LEASE_UDP };
	int i = -1;

	if (param_word(call, "proto", words, &i) < 0)
		return -EINVAL;
	if (i >= 0)
		*ret = protos[i];
	return 0;
}

static int param_u32(struct control_call *call, const char *name, uint32_t max, uint32_t *ret)
{
	int64_t v = *ret;

	if (control_param_int(call, name, 0, max, &v) < 0)
		return -EINVAL;
	*ret = (uint32_t)v;
	return 0;
}

/* A text for people: bounded, without control characters. */
static int param_label(struct control_call *call, const char *name, size_t max, const char **ret)
{
	if (control_param_str(call, name, ret) < 0)
		return -EINVAL;
	for (const char *p = *ret; p && *p; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f) {
			control_invalid(call, name);
			return -EINVAL;
		}
	}
	if (*ret && strlen(*ret) > max) {
		control_fail(call, INVALID, "%s: longer than %zu bytes", name, max);
		return -EINVAL;
	}
	return 0;
}

static bool has_tag(const struct config_pool *p, const char *tag)
{
	for (size_t i = 0; i < p->n_tags; i++)
		if (!strcmp(p->tags[i], tag))
			return true;
	return false;
}

/* The pools that have all tags. -EINVAL: answered. */
static int param_tags(struct control_call *call, const struct config *c,
		      const char *pools[SLUICE_MAX_POOLS], size_t *ret_n)
{
	json_t *tags = json_object_get(control_call_params(call), "tags"), *tag;
	size_t k;

	if (tags && !json_is_null(tags) && !json_is_array(tags)) {
		control_invalid(call, "tags");
		return -EINVAL;
	}
	for (size_t i = 0; i < c->n_pools; i++) {
		bool fits = true;

		json_array_foreach(tags, k, tag)
		{
			if (!json_is_string(tag)) {
				control_invalid(call, "tags");
				return -EINVAL;
			}
			fits &= has_tag(&c->pools[i], json_string_value(tag));
		}
		if (fits)
			pools[(*ret_n)++] = c->pools[i].name;
	}
	return 0;
}

struct asked {
	struct lease_request req;
	struct addr addr;
	const char *pools[SLUICE_MAX_POOLS];
};

/* Nobody who says nothing expects to get an IPv6 address or an IPv4 address by chance: IPv4, where the pools have some. */
static void family_default(const struct config *c, struct lease_request *req)
{
	for (size_t i = 0; !req->addr && i < c->n_pools; i++) {
		const struct config_pool *p = &c->pools[i];
		bool asked = req->pool && !strcmp(p->name, req->pool);

		for (size_t k = 0; !req->pool && k < req->n_pools; k++)
			asked |= !strcmp(p->name, req->pools[k]);
		for (size_t k = 0; asked && k < p->n_addresses; k++)
			if (addr_is_v4(&p->addresses[k]))
				req->family = 4;
	}
}

/* What Acquire and Exec have in common. -EINVAL: answered. */
static int param_where(struct control_call *call, const struct engine *e, struct asked *a)
{
	const char *address = NULL;
	bool exclusive = false;

	if (control_param_str(call, "pool", &a->req.pool) < 0 ||
	    param_tags(call, e->config, a->pools, &a->req.n_pools) < 0 ||
	    control_param_str(call, "address", &address) < 0 ||
	    control_param_bool(call, "exclusive", &exclusive) < 0 ||
	    param_u32(call, "ports", CONFIG_SLICE_MAX, &a->req.ports) < 0 ||
	    param_label(call, "name", LEASE_NAME_MAX, &a->req.name) < 0 ||
	    methods_check_pool(call, e, a->req.pool))
		return -EINVAL;
	if (address && addr_parse(address, &a->addr) < 0) {
		control_invalid(call, "address");
		return -EINVAL;
	}
	a->req.addr = address ? &a->addr : NULL;
	a->req.pools = a->pools;
	a->req.kind = exclusive ? SLUICE_LEASE_EXCLUSIVE : SLUICE_LEASE_SHARED;
	if (!a->req.ports)
		a->req.ports = 1;
	family_default(e->config, &a->req);
	/* A pool and tags: it must have them. */
	for (size_t i = 0; a->req.pool && i < a->req.n_pools; i++)
		if (!strcmp(a->pools[i], a->req.pool))
			return 0;
	if (a->req.pool) {
		control_fail(call, "io.sluice.NoPorts", "pool \"%s\" does not have all of the tags",
			     a->req.pool);
		return -EINVAL;
	}
	if (!a->req.n_pools) {
		control_fail(call, "io.sluice.NoPorts", "no pool has all of the tags");
		return -EINVAL;
	}
	return 0;
}

/* Who asks. -EINVAL: answered. */
static int caller(struct control_call *call, struct lessor *l, struct lease_holder *ret)
{
	pid_t pid = control_call_pid(call);
	int pidfd = lessor_knows(l, pid) ? -1 : control_call_pidfd(call);
	struct errtext err = { 0 };
	int r = lessor_holder(l, pid, control_call_uid(call), pidfd, ret, &err);

	if (r < 0)
		refuse(call, r, &err);
	return r < 0 ? -EINVAL : 0;
}

/* Another process of the caller's user. -EINVAL: answered. */
static int supervisor(struct control_call *call, struct lessor *l, struct lease_holder *ret)
{
	struct lease_holder h;
	struct errtext err = { 0 };
	uint32_t pid = 0;
	int r;

	if (param_u32(call, "pid", INT32_MAX, &pid) < 0)
		return -EINVAL;
	if (!pid) {
		control_invalid(call, "pid");
		return -EINVAL;
	}
	r = lessor_process(l, (pid_t)pid, &h, &err);
	if (!r && h.uid != control_call_uid(call) && control_call_uid(call))
		r = errtext_set(&err, EACCES, "process %u is of uid %u; you are uid %u", pid, h.uid,
				(unsigned)control_call_uid(call));
	if (r < 0) {
		refuse(call, r, &err);
		return -EINVAL;
	}
	h.uid = control_call_uid(call);
	*ret = h;
	return 0;
}

static int param_until(struct control_call *call, struct lessor *l, struct lease_request *req)
{
	static const char *const words[] = { "exit", "release", "pid", NULL };
	int until = 0;

	if (param_word(call, "until", words, &until) < 0)
		return -EINVAL;
	req->bound = until == 1 ? LEASE_BOUND_NOT : LEASE_BOUND_PROCESS;
	return until == 2 ? supervisor(call, l, &req->holder) : caller(call, l, &req->holder);
}

static int param_parity(struct control_call *call, int *ret)
{
	static const char *const words[] = { "even", "odd", NULL };

	return param_word(call, "parity", words, ret);
}

/* ---- methods ---- */

/* Grants for many leases at a time: texts that follow each other are most often the same. */
struct grant_texts {
	const struct lease *of;
	json_t *pool, *address;
};

static void grant_texts_take(struct grant_texts *t, const struct lease *lease)
{
	char address[ADDR_STRLEN];

	if (t->of && !addr_cmp(&t->of->ports.addr, &lease->ports.addr) &&
	    !strcmp(t->of->pool, lease->pool))
		return;
	json_decref(t->pool);
	json_decref(t->address);
	t->of = lease;
	t->pool = json_string(lease->pool);
	t->address = json_string(addr_format(&lease->ports.addr, address));
}

static json_t *grant_json(struct grant_texts *t, const struct lease *lease)
{
	grant_texts_take(t, lease);
	return json_pack("{s:I, s:O, s:O, s:i, s:i}", "id", (json_int_t)lease->id, "pool", t->pool,
			 "address", t->address, "first", lease->ports.first, "last",
			 lease->ports.last);
}

static json_t *acquired_json(const struct lessor *l, struct lease *const *leases, uint32_t n,
			     bool brief)
{
	struct grant_texts texts = { 0 };
	json_t *rows = json_array();

	for (uint32_t i = 0; rows && i < n; i++) {
		json_t *row =
			brief ? grant_json(&texts, leases[i]) : methods_lease_json(l, leases[i]);

		if (json_array_append_new(rows, row) < 0) {
			json_decref(rows);
			rows = NULL;
		}
	}
	json_decref(texts.pool);
	json_decref(texts.address);
	return json_pack("{s:o}", brief ? "grants" : "leases", rows);
}

int methods_acquire(struct control_call *call, void *data)
{
	const struct methods *m = data;
	struct lessor *l = m->engine->lessor;
	struct asked a = { .req = { .protos = LEASE_TCP, .leases = 1, .parity = -1 } };
	struct lease *leases[LEASE_AT_ONCE];
	struct errtext err = { 0 };
	uint32_t port = 0;
	bool brief = false;
	int r;

	if (param_where(call, m->engine, &a) < 0 || param_proto(call, &a.req.protos) < 0 ||
	    param_u32(call, "port", UINT16_MAX, &port) < 0 ||
	    param_u32(call, "leases", LEASE_AT_ONCE, &a.req.leases) < 0 ||
	    param_u32(call, "align", CONFIG_SLICE_MAX, &a.req.align) < 0 ||
	    param_parity(call, &a.req.parity) < 0 ||
	    param_u32(call, "ttl", LEASE_TTL_MAX, &a.req.ttl_s) < 0 ||
	    param_label(call, "labels", LEASE_LABELS_MAX, &a.req.labels) < 0 ||
	    control_param_bool(call, "brief", &brief) < 0 || param_until(call, l, &a.req) < 0)
		return 0;
	a.req.port = (uint16_t)port;
	if (!a.req.leases)
		a.req.leases = 1;
	r = lessor_acquire(l, &a.req, leases, &err);
	if (r < 0)
		return refuse(call, r, &err);
	return control_reply_held(call, acquired_json(l, leases, a.req.leases, brief), -1);
}

/* The active lease of that number, if it is the caller's. NULL: answered. */
static struct lease *lease_mine(struct control_call *call, struct lessor *l, int64_t id)
{
	struct lease *lease = lessor_find(l, (uint64_t)id);
	uid_t uid = control_call_uid(call);

	if (!lease) {
		control_error(call, NO_LEASE, json_pack("{s:I}", "id", (json_int_t)id));
	} else if (uid && uid != lease->holder.uid) {
		control_fail(call, "io.sluice.Denied", "lease %lld is of uid %u; you are uid %u",
			     (long long)id, lease->holder.uid, (unsigned)uid);
		lease = NULL;
	}
	return lease;
}

static struct lease *param_lease(struct control_call *call, struct lessor *l)
{
	int64_t id = 0;

	if (control_param_int(call, "id", 1, INT64_MAX, &id) < 0)
		return NULL;
	if (!id) {
		control_invalid(call, "id");
		return NULL;
	}
	return lease_mine(call, l, id);
}

int methods_renew(struct control_call *call, void *data)
{
	struct lessor *l = ((const struct methods *)data)->engine->lessor;
	struct errtext err = { 0 };
	uint32_t ttl_s = 0;
	struct lease *lease;
	int r;

	if (param_u32(call, "ttl", LEASE_TTL_MAX, &ttl_s) < 0)
		return 0;
	lease = param_lease(call, l);
	if (!lease)
		return 0;
	r = lessor_renew(l, lease, ttl_s, &err);
	if (r < 0)
		return refuse(call, r, &err);
	return control_reply_held(call, json_pack("{s:o}", "lease", methods_lease_json(l, lease)),
				  -1);
}

/* Give back a lease: its user, or root, who takes it away from somebody else. */
static int release_one(struct control_call *call, struct lessor *l, struct lease *lease,
		       struct errtext *err)
{
	bool own = control_call_uid(call) == lease->holder.uid;

	return lessor_release(l, lease, own ? LEASE_WHY_RELEASED : LEASE_WHY_REVOKED, err);
}

int methods_release(struct control_call *call, void *data)
{
	struct lessor *l = ((const struct methods *)data)->engine->lessor;
	json_t *ids = json_object_get(control_call_params(call), "ids"), *id;
	struct lease *leases[LEASE_AT_ONCE];
	struct errtext err = { 0 };
	size_t i, n = 0;
	int r = 0;

	if (!ids || json_is_null(ids)) {
		leases[0] = param_lease(call, l);
		n = leases[0] ? 1 : 0;
	} else if (!json_is_array(ids) || !json_array_size(ids) ||
		   json_array_size(ids) > LEASE_AT_ONCE) {
		return control_invalid(call, "ids");
	} else {
		json_array_foreach(ids, i, id)
		{
			if (!json_is_integer(id))
				return control_invalid(call, "ids");
			leases[n] = lease_mine(call, l, json_integer_value(id));
			if (!leases[n])
				return 0;
			n++;
		}
	}
	if (!n)
		return 0;
	for (i = 0; i < n && !r; i++)
		if (leases[i]->state == LEASE_ACTIVE) /* named twice */
			r = release_one(call, l, leases[i], &err);
	/* For want of memory some may have ended, and some not. */
	return r < 0 ? refuse(call, r, &err) : control_reply_held(call, json_object(), -1);
}

static int param_l4(struct control_call *call, const struct lease *lease, enum sluice_l4 *ret)
{
	uint8_t protos = lease->protos;

	if (param_proto(call, &protos) < 0)
		return -EINVAL;
	protos &= lease->protos;
	if (protos != LEASE_TCP && protos != LEASE_UDP) {
		control_invalid(call, "proto");
		return -EINVAL;
	}
	*ret = protos == LEASE_TCP ? SLUICE_TCP : SLUICE_UDP;
	return 0;
}

int methods_open(struct control_call *call, void *data)
{
	struct lessor *l = ((const struct methods *)data)->engine->lessor;
	struct lease *lease = param_lease(call, l);
	struct open_request req = { 0 };
	struct errtext err = { 0 };
	char address[ADDR_STRLEN];
	uint32_t want = 0;
	uint16_t port;
	int fd, r;

	if (!lease || param_l4(call, lease, &req.l4) < 0 ||
	    param_u32(call, "port", UINT16_MAX, &want) < 0 ||
	    control_param_bool(call, "listen", &req.listen) < 0 ||
	    control_param_bool(call, "nonblock", &req.nonblock) < 0 ||
	    control_param_bool(call, "reuseport", &req.reuseport) < 0)
		return 0;
	req.port = (uint16_t)want;
	r = open_socket(lease, &req, &fd, &port, &err);
	if (r < 0)
		return refuse(call, r, &err);
	/* Held also because the lease itself may still be on its way to the disk. */
	return control_reply_held(call,
				  json_pack("{s:s, s:i}", "address",
					    addr_format(&lease->ports.addr, address), "port", port),
				  fd);
}

int methods_register(struct control_call *call, void *data)
{
	struct lessor *l = ((const struct methods *)data)->engine->lessor;
	struct lease *lease = param_lease(call, l);
	struct errtext err = { 0 };
	enum sluice_l4 l4;
	int r;

	if (!lease)
		return 0;
	if (control_call_fd(call) < 0)
		return control_fail(call, INVALID,
				    "no socket came along: send its descriptor with the call "
				    "(SCM_RIGHTS)");
	r = lessor_steer(l, lease, control_call_fd(call), &l4, &err);
	if (r < 0)
		return refuse(call, r, &err);
	return control_reply_held(
		call, json_pack("{s:s}", "proto", lease_protos_name((uint8_t)(1U << l4))), -1);
}

int methods_exec(struct control_call *call, void *data)
{
	const struct methods *m = data;
	struct lessor *l = m->engine->lessor;
	struct asked a = { .req = { .protos = LEASE_TCP | LEASE_UDP,
				    .ports = EXEC_PORTS,
				    .leases = 1,
				    .parity = -1,
				    .bound = LEASE_BOUND_CGROUP } };
	json_t *id = json_object_get(control_call_params(call), "id");
	struct lease *lease = NULL;
	struct errtext err = { 0 };
	char path[PATH_MAX];
	bool given = id && !json_is_null(id);
	int r;

	/* Also for a lease that exists: it must be the process that called which is moved, not a later one with its pid. */
	if (caller(call, l, &a.req.holder) < 0)
		return 0;
	if (given) {
		lease = param_lease(call, l);
		if (!lease)
			return 0;
	} else if (param_where(call, m->engine, &a) < 0) {
		return 0;
	}
	r = engine_onlink(m->engine, &err);
	if (!r && !given)
		r = lessor_acquire(l, &a.req, &lease, &err);
	if (r < 0)
		return refuse(call, r, &err);
	r = lessor_exec(l, lease, control_call_pid(call), path, &err);
	if (r < 0) {
		struct errtext more = { 0 };

		if (!given)
			lessor_release(l, lease, LEASE_WHY_RELEASED, &more);
		return refuse(call, r, &err);
	}
	return control_reply_held(
		call,
		json_pack("{s:o, s:s}", "lease", methods_lease_json(l, lease), "cgroup", path), -1);
}
