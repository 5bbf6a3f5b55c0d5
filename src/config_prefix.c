/* SPDX-License-Identifier: BSD-2-Clause */
/* The pools' addresses, clients and no-nat: each by itself, then against all others of the file. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config_internal.h"

enum kind {
	ADDRESSES,
	CLIENTS,
	NO_NAT,
	KINDS,
};

static const char *const key_names[KINDS] = { "addresses", "clients", "no-nat" };

/* One value of these keys. */
struct item {
	struct prefix prefix;
	const struct conf_value *value;
	enum kind kind;
	uint16_t pool;
};

struct reader {
	const struct conf_tree *tree;
	struct config *c;
	struct item *items;
	size_t n_items;
	size_t n_kind[KINDS]; /* addresses, not prefixes, of the first */
	struct errtext *err;
};

#define BAD(r, it, ...)                                                                     \
	conf_bad((r)->tree->path, (it)->value->line, key_names[(it)->kind], (it)->value->s, \
		 (r)->err, __VA_ARGS__)

/* Shared addresses must be unicast addresses that other hosts can answer to. */
static const char *unusable(const struct prefix *p)
{
	static const struct {
		const char *prefix, *what;
	} ranges[] = {
		{ "0.0.0.0/8", "a zero address" },
		{ "127.0.0.0/8", "a loopback address" },
		{ "224.0.0.0/4", "a multicast address" },
		{ "255.255.255.255", "the broadcast address" },
		{ "::", "a zero address" },
		{ "::1", "a loopback address" },
		{ "ff00::/8", "a multicast address" },
		{ "fe80::/10", "a link-local address" },
		{ "::/8", "a reserved address" },
	};

	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		struct prefix range;
		int err = prefix_parse(ranges[i].prefix, &range);

		assert(!err);
		if (!err && prefix_overlaps(p, &range))
			return ranges[i].what;
	}
	return NULL;
}

static int check_address(struct reader *r, const struct item *it)
{
	const char *what = unusable(&it->prefix);
	unsigned host_bits = 128u - it->prefix.len;
	uint64_t n = host_bits < 32 ? 1ull << host_bits : UINT32_MAX;

	if (what)
		return BAD(r, it, "is or contains %s; allowed are unicast addresses", what);
	if (r->n_kind[ADDRESSES] + n > SLUICE_MAX_ADDRS)
		return BAD(r, it, "makes %llu shared addresses in all; allowed in one file are %d",
			   (unsigned long long)(r->n_kind[ADDRESSES] + n), SLUICE_MAX_ADDRS);
	r->n_kind[ADDRESSES] += n - 1;
	return 0;
}

static int read_item(struct reader *r, struct item *it)
{
	char fixed[PREFIX_STRLEN];
	int err;

	err = prefix_parse(it->value->s, &it->prefix);
	if (err == -ERANGE)
		return BAD(r, it, "has bits set after its length; allowed is %s",
			   prefix_format(&it->prefix, fixed));
	if (err)
		return BAD(
			r, it,
			"is neither an address nor a prefix; allowed are forms such as 192.0.2.1, "
			"192.0.2.0/24 and 2001:db8::/32");
	err = it->kind == ADDRESSES ? check_address(r, it) : 0;
	if (err)
		return err;
	if (++r->n_kind[it->kind] > SLUICE_MAX_PREFIXES)
		return BAD(r, it, "is one prefix too many; allowed in one file are %d for %s",
			   SLUICE_MAX_PREFIXES, key_names[it->kind]);
	return 0;
}

/*
 * addresses and clients first, no-nat last and pool by pool; then by address, what contains before
 * what is contained, and equal ones as in the file.
 */
static int item_cmp(const void *va, const void *vb)
{
	const struct item *a = va, *b = vb;
	int d;

	if ((a->kind == NO_NAT) != (b->kind == NO_NAT))
		return a->kind == NO_NAT ? 1 : -1;
	if (a->kind == NO_NAT && a->pool != b->pool)
		return a->pool < b->pool ? -1 : 1;
	d = addr_is_v4(&b->prefix.addr) - addr_is_v4(&a->prefix.addr);
	if (!d)
		d = addr_cmp(&a->prefix.addr, &b->prefix.addr);
	if (!d)
		d = a->prefix.len - b->prefix.len;
	if (!d)
		d = (a->value->line > b->value->line) - (a->value->line < b->value->line);
	return d;
}

/* May one item overlap another? NULL, or what would be allowed. */
static const char *forbidden(const struct item *a, const struct item *b)
{
	if (a->kind == ADDRESSES && b->kind == ADDRESSES)
		return "allowed is each shared address once in the file";
	if (a->kind != b->kind)
		return "allowed are clients that are no shared addresses";
	if (a->pool != b->pool)
		return "allowed is one pool for each client, or pools with other interfaces";
	if (a->prefix.len == b->prefix.len)
		return "allowed is once";
	return NULL;
}

/* The first pool with the interfaces of this one. */
static size_t first_alike(const struct config *c, size_t pool)
{
	size_t i = 0;

	while (!config_same_interfaces(&c->pools[i], &c->pools[pool]))
		i++;
	return i;
}

static int check_pair(const struct reader *r, const struct item *a, const struct item *b)
{
	const char *rule = forbidden(a, b);

	if (!rule)
		return 0;
	if (a->value->line > b->value->line) { /* complain about the later one */
		const struct item *swap = a;

		a = b;
		b = swap;
	}
	return BAD(r, b, "overlaps %s \"%s\" of pool \"%s\" in line %u; %s", key_names[a->kind],
		   a->value->s, r->c->pools[a->pool].name, a->value->line, rule);
}

/*
 * Prefixes either contain one another or have nothing in common, so in sorted order a stack of those
 * that contain the current one is enough. Whatever may lie within something is of the same pool as
 * that, so the top stands for all. Clients are looked at with those of pools with the same interfaces
 * alone: the ones of "pool", which is the first of them.
 */
static int check_overlaps_of(const struct reader *r, size_t pool)
{
	const struct item **stack;
	size_t depth = 0;
	int err = 0;

	stack = calloc(r->n_items + 1, sizeof(*stack));
	if (!stack)
		return conf_nomem(r->err);
	for (size_t i = 0; i < r->n_items && !err; i++) {
		const struct item *it = &r->items[i];

		if (it->kind == CLIENTS && first_alike(r->c, it->pool) != pool)
			continue;
		while (depth && (stack[depth - 1]->kind == NO_NAT
					 ? it->kind != NO_NAT || stack[depth - 1]->pool != it->pool
					 : it->kind == NO_NAT))
			depth--;
		while (depth && !prefix_contains(&stack[depth - 1]->prefix, &it->prefix.addr))
			depth--;
		if (depth)
			err = check_pair(r, stack[depth - 1], it);
		stack[depth++] = it;
	}
	free(stack);
	return err;
}

static int check_overlaps(const struct reader *r)
{
	int err = 0;

	for (size_t i = 0; i < r->c->n_pools && !err; i++)
		if (first_alike(r->c, i) == i)
			err = check_overlaps_of(r, i);
	return err;
}

static struct addr addr_next(struct addr a)
{
	for (int i = 15; i >= 0 && ++a.b[i] == 0; i--)
		;
	return a;
}

/* Room in the pools for what the items hold. */
static int make_room(struct reader *r)
{
	for (size_t i = 0; i < r->n_items; i++) {
		struct config_pool *p = &r->c->pools[r->items[i].pool];

		if (r->items[i].kind == ADDRESSES)
			p->n_addresses += (size_t)1 << (128 - r->items[i].prefix.len);
		else if (r->items[i].kind == CLIENTS)
			p->n_clients++;
		else
			p->n_no_nat++;
	}
	for (size_t i = 0; i < r->c->n_pools; i++) {
		struct config_pool *p = &r->c->pools[i];

		p->addresses = calloc(p->n_addresses + 1, sizeof(*p->addresses));
		p->clients = calloc(p->n_clients + 1, sizeof(*p->clients));
		p->no_nat = calloc(p->n_no_nat + 1, sizeof(*p->no_nat));
		if (!p->addresses || !p->clients || !p->no_nat)
			return conf_nomem(r->err);
		p->n_addresses = 0;
		p->n_clients = 0;
		p->n_no_nat = 0;
	}
	return 0;
}

/* Give the pools what the sorted items hold; so the pools' arrays are sorted. */
static int fill(struct reader *r)
{
	int err = make_room(r);

	if (err)
		return err;
	for (size_t i = 0; i < r->n_items; i++) {
		const struct item *it = &r->items[i];
		struct config_pool *p = &r->c->pools[it->pool];
		struct addr a = it->prefix.addr;

		if (it->kind == ADDRESSES) {
			for (uint32_t n = 1u << (128 - it->prefix.len); n; n--, a = addr_next(a))
				p->addresses[p->n_addresses++] = a;
		} else if (it->kind == CLIENTS) {
			p->clients[p->n_clients++] = it->prefix;
		} else {
			p->no_nat[p->n_no_nat++] = it->prefix;
		}
	}
	return 0;
}

static int read_items(struct reader *r, const struct conf_section *const *sections)
{
	size_t n = 0;
	int err;

	for (size_t p = 0; p < r->c->n_pools; p++)
		for (size_t k = 0; k < KINDS; k++)
			n += conf_key(sections[p], key_names[k])->n_values;
	r->items = calloc(n + 1, sizeof(*r->items));
	if (!r->items)
		return conf_nomem(r->err);

	for (size_t p = 0; p < r->c->n_pools; p++) {
		for (size_t k = 0; k < KINDS; k++) {
			const struct conf_key *key = conf_key(sections[p], key_names[k]);

			for (size_t v = 0; v < key->n_values; v++) {
				struct item *it = &r->items[r->n_items++];

				it->value = key->values[v];
				it->kind = (enum kind)k;
				it->pool = (uint16_t)p;
				err = read_item(r, it);
				if (err)
					return err;
			}
		}
	}
	return 0;
}

int conf_prefixes(const struct conf_tree *t, const struct conf_section *const *sections,
		  struct config *c, struct errtext *err)
{
	struct reader r = { .tree = t, .c = c, .err = err };
	int rc;

	rc = read_items(&r, sections);
	if (!rc) {
		qsort(r.items, r.n_items, sizeof(*r.items), item_cmp);
		rc = check_overlaps(&r);
	}
	if (!rc)
		rc = fill(&r);
	free(r.items);
	return rc;
}
