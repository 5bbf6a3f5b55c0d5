/* SPDX-License-Identifier: BSD-2-Clause */
#include "methods_collide.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "methods.h"
#include "store_collision.h"

#define PAGE_ROWS 64  /* read from the store, and kept, at once */
#define PAGE_LOOK 512 /* looked at by one call, with or without a match */

#define ENDPOINT_LEN (ADDR_STRLEN + 10)

static const char *proto_name(enum sluice_l4 l4)
{
	return l4 == SLUICE_UDP ? "udp" : "tcp";
}

/* ---- a collision as JSON ---- */

/* "192.0.2.1:80", "[2001:db8::1]:80". */
static const char *endpoint(const struct addr *a, uint16_t port, char buf[ENDPOINT_LEN])
{
	char text[ADDR_STRLEN];
	bool v4 = addr_is_v4(a);

	snprintf(buf, ENDPOINT_LEN, "%s%s%s:%u", v4 ? "" : "[", addr_format(a, text), v4 ? "" : "]",
		 port);
	return buf;
}

/* Names that other programs chose: JSON takes UTF-8 alone, and a row must not be lost for a name. */
static json_t *name_json(const char *s)
{
	json_t *text = json_string(s);
	char copy[256];
	size_t n;

	if (text)
		return text;
	for (n = 0; n < sizeof(copy) - 1 && s[n]; n++)
		copy[n] = (unsigned char)s[n] < 0x80 ? s[n] : '?';
	copy[n] = '\0';
	return json_string(copy);
}

static json_t *owner_json(const struct collision_owner *o)
{
	char src[ADDR_STRLEN], dst[ADDR_STRLEN];

	if (!o->kind[0])
		return json_null();
	return json_pack("{s:s, s:s, s:i, s:s, s:i}", "kind", o->kind, "src",
			 addr_format(&o->src, src), "sport", o->sport, "dst",
			 addr_format(&o->dst, dst), "dport", o->dport);
}

static json_t *collision_json(const struct collision *c, bool with_owner)
{
	char src[ADDR_STRLEN], bound[ENDPOINT_LEN], wire[ENDPOINT_LEN], dst[ENDPOINT_LEN];

	return json_pack(
		"{s:I, s:o, s:s, s:o, s:s, s:s, s:s, s:i, s:s, s:i, s:s, s:i, s:b, s:s, s:b, s:b, "
		"s:o, s:{s:I, s:o, s:I, s:o, s:I, s:I}, s:o}",
		"id", (json_int_t)c->id, "time", control_time(c->time_ms), "kind",
		collision_kind_name(c->kind), "netns", name_json(c->netns), "proto",
		proto_name(c->l4), "src", addr_format(&c->src, src), "bound",
		endpoint(&c->src, c->bound, bound), "bound_port", c->bound, "wire",
		endpoint(&c->src, c->wire, wire), "wire_port", c->wire, "dst",
		endpoint(&c->dst, c->dport, dst), "dst_port", c->dport, "in_slice", c->in_slice,
		"source", collision_source_name(c->source), "resolved", c->resolved, "healed",
		c->healed, "delay_us",
		c->delay_us == UINT32_MAX ? json_null() : json_integer(c->delay_us), "socket",
		"pid", (json_int_t)c->pid, "comm", name_json(c->comm), "uid", (json_int_t)c->uid,
		"cgroup", name_json(c->cgroup), "inode", (json_int_t)c->inode, "cookie",
		(json_int_t)c->cookie, "owner", with_owner ? owner_json(&c->owner) : json_null());
}

json_t *methods_collision_json(const struct collision *c)
{
	return collision_json(c, true);
}

json_t *methods_collision_event(const struct collision *c)
{
	json_t *j = methods_collision_json(c);

	if (j && json_object_set_new(j, "event", json_string("collision")) < 0) {
		json_decref(j);
		return NULL;
	}
	return j;
}

/* ---- listing them ---- */

/* The store is read in pages: others get their turn in between, and what is added meanwhile is newer than where a listing is. */
struct collisions_look {
	const struct methods *methods;
	struct store_collision_filter filter;
	char netns[COLLISION_NETNS_MAX];
	const char *source; /* NULL: any */
	bool strange;       /* the caller sees nothing of others */
	uint64_t left;      /* rows that may still be shown */
	json_t *rows;       /* of this page */
	size_t at;
	bool more; /* there are further pages */
};

static void look_free(void *state)
{
	struct collisions_look *k = state;

	if (!k)
		return;
	json_decref(k->rows);
	free(k);
}

static int row_add(const struct collision *c, void *arg)
{
	struct collisions_look *k = arg;
	json_t *row;

	if (k->source && strcmp(k->source, collision_source_name(c->source)) != 0)
		return 0;
	/* Flows are not for strangers, so neither is what the other user of the tuple is. */
	row = collision_json(c, !k->strange);
	return row && !json_array_append_new(k->rows, row) ? 0 : -ENOMEM;
}

static int page_read(struct collisions_look *k, struct errtext *err)
{
	struct store *store = k->methods->collisions->store;
	int r;

	json_array_clear(k->rows);
	k->at = 0;
	k->more = false;
	if (!store) /* for a moment: it is opened again */
		return 0;
	r = store_collisions_list(store, &k->filter, row_add, k, err);
	k->more = r > 0;
	return r < 0 ? r : 0;
}

static int collisions_next(void *state, json_t **ret)
{
	struct collisions_look *k = state;
	int r;

	if (k->left && k->at == json_array_size(k->rows) && k->more) {
		r = page_read(k, NULL);
		if (r)
			return r;
		if (!json_array_size(k->rows) && k->more)
			return -EAGAIN;
	}
	if (!k->left || k->at == json_array_size(k->rows))
		return 0;
	*ret = json_incref(json_array_get(k->rows, k->at++));
	k->left--;
	return 1;
}

static const struct control_rows collision_rows = { "collisions", collisions_next, look_free };

static uint32_t kind_bit(const char *name)
{
	for (enum collision_kind k = COLLISION_REWRITE; k <= COLLISION_RISK; k++)
		if (!strcmp(name, collision_kind_name(k)))
			return 1U << k;
	return 0;
}

static uint32_t proto_bit(const char *name)
{
	for (enum sluice_l4 l4 = SLUICE_TCP; l4 <= SLUICE_UDP; l4++)
		if (!strcmp(name, proto_name(l4)))
			return 1U << l4;
	return 0;
}

/* The name as the module has it, which outlives the call. NULL: it is none. */
static const char *source_find(const char *name)
{
	for (uint32_t bit = 1; *collision_source_name(bit); bit <<= 1)
		if (!strcmp(name, collision_source_name(bit)))
			return collision_source_name(bit);
	return NULL;
}

/* What the call asks for. 0; or 1: it has been answered. */
static int look_parse(struct control_call *call, struct collisions_look *k)
{
	const char *kind = NULL, *proto = NULL, *netns = NULL, *source = NULL, *since = NULL;
	const char *wrong = NULL;
	int64_t limit = INT64_MAX;
	bool in_slice = false;

	if (control_param_str(call, "kind", &kind) < 0 ||
	    control_param_str(call, "proto", &proto) < 0 ||
	    control_param_str(call, "netns", &netns) < 0 ||
	    control_param_str(call, "source", &source) < 0 ||
	    control_param_str(call, "since", &since) < 0 ||
	    control_param_bool(call, "in_slice", &in_slice) < 0 ||
	    control_param_int(call, "limit", 1, INT64_MAX, &limit) < 0)
		return 1;
	if (kind && !(k->filter.kinds = kind_bit(kind)))
		wrong = "kind";
	else if (proto && !(k->filter.protos = proto_bit(proto)))
		wrong = "proto";
	else if (netns && strlen(netns) >= sizeof(k->netns))
		wrong = "netns";
	else if (source && !(k->source = source_find(source)))
		wrong = "source";
	else if (since && methods_time_parse(since, &k->filter.since_ms) < 0)
		wrong = "since";
	if (wrong) {
		control_invalid(call, wrong);
		return 1;
	}
	if (netns) {
		memcpy(k->netns, netns, strlen(netns) + 1);
		k->filter.netns = k->netns;
	}
	if (json_is_boolean(json_object_get(control_call_params(call), "in_slice")))
		k->filter.in_slice = in_slice ? 1 : -1;
	k->left = (uint64_t)limit;
	return 0;
}

int methods_list_collisions(struct control_call *call, void *data)
{
	struct collisions_look *k = calloc(1, sizeof(*k));
	struct errtext err = { 0 };
	int r;

	if (!k)
		return -ENOMEM;
	k->methods = data;
	k->filter.max = PAGE_ROWS;
	k->filter.look = PAGE_LOOK;
	k->strange = !control_call_trusted(call);
	if (k->strange) {
		k->filter.by_uid = true;
		k->filter.uid = control_call_uid(call);
	}
	if (look_parse(call, k)) {
		look_free(k);
		return 0;
	}
	/* The first page now: what goes wrong can be said in words. */
	k->rows = json_array();
	r = k->rows ? page_read(k, &err) : -ENOMEM;
	if (!r)
		return control_stream(call, &collision_rows, k);
	look_free(k);
	return control_fail(call, "io.sluice.Failed", "%s", err.s[0] ? err.s : strerror(-r));
}
