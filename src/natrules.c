/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading. What is judged of it stands in natjudge.c. */
#include "natrules.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <nftables/libnftables.h>

/* ---- prefixes, named sets ---- */

static int prefix_of(json_t *j, struct prefix *ret)
{
	json_t *p = json_object_get(j, "prefix");
	const char *text = json_string_value(p ? json_object_get(p, "addr") : j);
	char buf[PREFIX_STRLEN];

	if (!text)
		return -EINVAL;
	if (p)
		snprintf(buf, sizeof(buf), "%s/%lld", text,
			 (long long)json_integer_value(json_object_get(p, "len")));
	else
		snprintf(buf, sizeof(buf), "%s", text);
	return prefix_parse(buf, ret) == -EINVAL ? -EINVAL : 0;
}

/* Elements of a set that the rule names ("@clients"), or NULL. */
static json_t *set_elements(json_t *all, const char *family, const char *table, const char *name)
{
	json_t *o, *set;
	size_t i;

	json_array_foreach(all, i, o)
	{
		const char *f, *t, *n;

		set = json_object_get(o, "set");
		if (json_unpack(set, "{s:s, s:s, s:s}", "family", &f, "table", &t, "name", &n) ==
			    0 &&
		    !strcmp(f, family) && !strcmp(t, table) && !strcmp(n, name))
			return json_object_get(set, "elem");
	}
	return NULL;
}

struct reading {
	json_t *all;
	const char *family, *table;
	struct natrule rule;
};

/* The right side of a match, as a list of JSON values; NULL: one value, or not understood. *ret_one is it. */
static json_t *values_of(const struct reading *r, json_t *right, json_t **ret_one)
{
	const char *text = json_string_value(right);

	*ret_one = NULL;
	if (text && text[0] == '@')
		return set_elements(r->all, r->family, r->table, text + 1);
	if (json_is_object(right) && json_object_get(right, "set"))
		return json_object_get(right, "set");
	*ret_one = right;
	return NULL;
}

/* A set's element may carry a comment or a counter around its value. */
static json_t *element_value(json_t *e)
{
	json_t *elem = json_object_get(e, "elem"), *val = json_object_get(elem, "val");

	return val ? val : e;
}

/* Narrow the rule to these sources. Anything among them that is not understood: not narrowed. */
static void sources_set(struct reading *r, json_t *right)
{
	json_t *one, *list = values_of(r, right, &one);
	size_t n = list ? json_array_size(list) : one ? 1 : 0;

	if (r->rule.n_src || !n || n > NATRULE_LIST_MAX)
		return;
	for (size_t i = 0; i < n; i++)
		if (prefix_of(list ? element_value(json_array_get(list, i)) : one,
			      &r->rule.src[i]) < 0)
			return;
	r->rule.n_src = n;
}

static void interfaces_set(struct reading *r, json_t *right)
{
	json_t *one, *list = values_of(r, right, &one);
	size_t n = list ? json_array_size(list) : one ? 1 : 0;

	if (r->rule.n_oif || !n || n > NATRULE_LIST_MAX)
		return;
	for (size_t i = 0; i < n; i++) {
		const char *name =
			json_string_value(list ? element_value(json_array_get(list, i)) : one);

		if (!name)
			return;
		snprintf(r->rule.oif[i], sizeof(r->rule.oif[i]), "%s", name);
	}
	r->rule.n_oif = n;
}

static void match_read(struct reading *r, json_t *match)
{
	json_t *left, *right;
	const char *op, *key = NULL, *field = NULL, *text;

	if (json_unpack(match, "{s:s, s:o, s:o}", "op", &op, "left", &left, "right", &right) < 0 ||
	    (strcmp(op, "==") && strcmp(op, "in")))
		return;
	json_unpack(left, "{s:{s:s}}", "payload", "field", &field);
	json_unpack(left, "{s:{s:s}}", "meta", "key", &key);
	text = json_string_value(right);
	if (field && !strcmp(field, "saddr"))
		sources_set(r, right);
	if (key && (!strcmp(key, "oifname") || !strcmp(key, "oif")))
		interfaces_set(r, right);
	if (key && !strcmp(key, "nfproto") && text) {
		r->rule.v4 &= !strcmp(text, "ipv4");
		r->rule.v6 &= !strcmp(text, "ipv6");
	}
}

/* ---- the target ---- */

static void target_addr(struct natrule *t, json_t *addr)
{
	json_t *range = json_object_get(addr, "range");
	struct prefix p;

	if (json_is_array(range)) {
		const char *a = json_string_value(json_array_get(range, 0));
		const char *b = json_string_value(json_array_get(range, 1));

		t->known = a && b && !addr_parse(a, &t->first) && !addr_parse(b, &t->last);
	} else if (!prefix_of(addr, &p)) {
		t->known = true;
		t->first = t->last = p.addr;
		for (unsigned bit = p.len; bit < 128; bit++)
			t->last.b[bit / 8] |= (uint8_t)(0x80 >> bit % 8);
	}
	if (t->known) {
		t->v4 = addr_is_v4(&t->first);
		t->v6 = !t->v4;
	}
}

static void target_ports(struct natrule *t, json_t *port)
{
	json_int_t from = 0, to = 0;

	if (json_is_integer(port))
		from = to = json_integer_value(port);
	else if (json_unpack(port, "{s:[I, I]}", "range", &from, &to) < 0)
		return;
	if (from < 1 || to > UINT16_MAX || from > to)
		return;
	t->ports = true;
	t->from = (uint16_t)from;
	t->to = (uint16_t)to;
}

/* Is this expression one that translates a source? Then the rule knows to what. */
static bool target_read(struct reading *r, json_t *expr)
{
	json_t *snat = json_object_get(expr, "snat"), *masq = json_object_get(expr, "masquerade");
	const char *family = json_string_value(json_object_get(snat, "family"));

	if (snat) {
		r->rule.kind = NATRULE_SNAT;
		if (family) {
			r->rule.v4 &= !strcmp(family, "ip");
			r->rule.v6 &= !strcmp(family, "ip6");
		}
		target_addr(&r->rule, json_object_get(snat, "addr"));
		target_ports(&r->rule, json_object_get(snat, "port"));
	} else if (masq) {
		r->rule.kind = NATRULE_MASQUERADE;
		target_ports(&r->rule, json_object_get(masq, "port"));
	} else if (json_object_get(expr, "xt")) {
		r->rule.kind = NATRULE_UNREADABLE;
	} else {
		return false;
	}
	return true;
}

/* ---- rules and chains ---- */

/* May source NAT happen in this chain? In base chains of type nat at postrouting or input; a chain without a hook may be jumped to from there. */
static bool chain_translates(json_t *all, const char *family, const char *table, const char *name)
{
	json_t *o;
	size_t i;

	json_array_foreach(all, i, o)
	{
		json_t *c = json_object_get(o, "chain");
		const char *f, *t, *n, *type, *hook;

		if (json_unpack(c, "{s:s, s:s, s:s}", "family", &f, "table", &t, "name", &n) < 0 ||
		    strcmp(f, family) || strcmp(t, table) || strcmp(n, name))
			continue;
		if (json_unpack(c, "{s:s, s:s}", "type", &type, "hook", &hook) < 0)
			return true;
		return !strcmp(type, "nat") &&
		       (!strcmp(hook, "postrouting") || !strcmp(hook, "input"));
	}
	return false;
}

static void rule_read(json_t *all, json_t *rule, struct natrules *ret)
{
	struct reading r = { .all = all };
	json_t *exprs, *e;
	const char *chain;
	json_int_t handle = 0;
	bool found = false;
	size_t i;

	if (json_unpack(rule, "{s:s, s:s, s:s, s:o, s?I}", "family", &r.family, "table", &r.table,
			"chain", &chain, "expr", &exprs, "handle", &handle) < 0)
		return;
	if (!chain_translates(all, r.family, r.table, chain))
		return;
	r.rule.v4 = strcmp(r.family, "ip6") != 0;
	r.rule.v6 = strcmp(r.family, "ip") != 0;
	snprintf(r.rule.where, sizeof(r.rule.where), "%s %s %s handle %lld", r.family, r.table,
		 chain, (long long)handle);
	json_array_foreach(exprs, i, e)
	{
		json_t *match = json_object_get(e, "match");

		if (match)
			match_read(&r, match);
		else
			found |= target_read(&r, e);
	}
	if (!found)
		return;
	if (ret->n < NATRULES_MAX)
		ret->v[ret->n++] = r.rule;
	else
		ret->left_out++;
}

int natrules_parse(const char *json, size_t len, struct natrules *ret, struct errtext *err)
{
	json_error_t why;
	json_t *doc = json_loadb(json, len, 0, &why), *all, *o;
	size_t i;

	if (!doc)
		return errtext_set(err, EINVAL, "nftables' rules: line %d: %s", why.line, why.text);
	all = json_object_get(doc, "nftables");
	if (!json_is_array(all)) {
		json_decref(doc);
		return errtext_set(
			err, EINVAL,
			"nftables' rules: no list \"nftables\" in what libnftables gave");
	}
	ret->n = ret->left_out = 0;
	json_array_foreach(all, i, o)
	{
		json_t *rule = json_object_get(o, "rule");

		if (rule)
			rule_read(all, rule, ret);
	}
	json_decref(doc);
	return 0;
}

int natrules_read(struct natrules *ret, struct errtext *err)
{
	struct nft_ctx *nft = nft_ctx_new(NFT_CTX_DEFAULT);
	const char *out, *wrong;
	int r;

	if (!nft)
		return errtext_set(err, ENOMEM, "out of memory");
	nft_ctx_output_set_flags(nft, NFT_CTX_OUTPUT_JSON | NFT_CTX_OUTPUT_HANDLE);
	errno = 0;
	if (nft_ctx_buffer_output(nft) || nft_ctx_buffer_error(nft)) {
		r = errtext_set(err, ENOMEM, "out of memory");
	} else if (nft_run_cmd_from_buffer(nft, "list ruleset") == 0) {
		out = nft_ctx_get_output_buffer(nft);
		r = natrules_parse(out, strlen(out), ret, err);
	} else {
		wrong = nft_ctx_get_error_buffer(nft);
		r = errtext_set(err, strstr(wrong, "not permitted") ? EPERM : EOPNOTSUPP,
				"nftables' rules: %.*s", (int)strcspn(wrong, "\n"), wrong);
	}
	nft_ctx_free(nft);
	return r;
}
