/* SPDX-License-Identifier: BSD-2-Clause */
/* The pools: policy, slices, and what must hold for all of them together. */
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config_internal.h"

#define DEFAULT_SLICE_SIZE 2048

struct reader {
	const struct conf_tree *tree;
	struct config *c;
	uint32_t rows;   /* of the data plane's table of slices, for the pools so far */
	uint32_t blocks; /* likewise, of its blocks */
	struct errtext *err;
};

static int read_size(const struct reader *r, const struct conf_section *s, struct config_pool *p)
{
	struct conf_at a = conf_at(r->tree, s, "slice-size");
	uint32_t size = DEFAULT_SLICE_SIZE;

	if (a.value && (conf_uint(&a, CONFIG_SLICE_MIN, CONFIG_SLICE_MAX, &size, r->err) ||
			(size & (size - 1))))
		return CONF_BAD(&a, r->err,
				"cannot be a slice's size; allowed are powers of two from %d to %d",
				CONFIG_SLICE_MIN, CONFIG_SLICE_MAX);
	p->slice_size = size;
	return 0;
}

static bool tag_ok(const char *s)
{
	size_t n = 0;

	while (isalnum((unsigned char)s[n]) || (s[n] && strchr("._-", s[n])))
		n++;
	return n && s[n] == '=' && s[n + 1];
}

static int read_tags(const struct reader *r, const struct conf_section *s, struct config_pool *p)
{
	const struct conf_key *key = conf_key(s, "tags");

	p->tags = calloc(key->n_values + 1, sizeof(*p->tags));
	if (!p->tags)
		return conf_nomem(r->err);
	for (size_t i = 0; i < key->n_values; i++) {
		struct conf_at a = { r->tree->path, "tags", key->values[i] };

		if (!tag_ok(a.value->s))
			return CONF_BAD(&a, r->err,
					"is no tag; allowed are \"key=value\", the key of letters, "
					"digits, . _ "
					"and -");
		p->tags[p->n_tags] = strdup(a.value->s);
		if (!p->tags[p->n_tags])
			return conf_nomem(r->err);
		p->n_tags++;
	}
	return 0;
}

static int read_policy(const struct reader *r, const struct conf_section *s, struct config_pool *p)
{
	int err;

	if (!conf_name_ok(s->title))
		return conf_bad(r->tree->path, s->line, "pool", s->title, r->err,
				"is no name; " CONF_NAME_RULE);
	strcpy(p->name, s->title);
	p->line = s->line;
	err = read_size(r, s, p);
	if (!err)
		err = conf_policy(r->tree, s, r->c, p, r->err);
	if (!err)
		err = read_tags(r, s, p);
	return err;
}

static bool has_family(const struct config_pool *p, bool v4)
{
	for (size_t i = 0; i < p->n_addresses; i++)
		if (addr_is_v4(&p->addresses[i]) == v4)
			return true;
	return false;
}

/* What is IPv4 inside is IPv4 outside, and so with IPv6. */
static int check_clients(struct reader *r, const struct conf_section *s,
			 const struct config_pool *p)
{
	const struct conf_key *key = conf_key(s, "clients");

	for (size_t i = 0; i < key->n_values; i++) {
		const struct conf_value *v = key->values[i];
		struct prefix prefix;
		const char *name;
		int err = prefix_parse(v->s, &prefix);

		assert(!err); /* it has been read before */
		if (err || has_family(p, addr_is_v4(&prefix.addr)))
			continue;
		name = addr_is_v4(&prefix.addr) ? "IPv4" : "IPv6";
		return conf_bad(r->tree->path, v->line, key->name, v->s, r->err,
				"is %s, and the pool has no %s address to translate it to; "
				"allowed are clients in pools that have one",
				name, name);
	}
	return 0;
}

/* Has the pool addresses, and are there rows for all their slices? */
static int check_rows(struct reader *r, const struct conf_section *s, const struct config_pool *p)
{
	const struct conf_key *key = conf_key(s, "addresses");
	struct conf_at a = conf_at(r->tree, s, "slice-size");

	if (!p->n_addresses)
		return conf_bad(r->tree->path, key->line ? key->line : s->line, "pool", p->name,
				r->err, "has no addresses; allowed are 1 to %d", SLUICE_MAX_ADDRS);
	r->rows += (uint32_t)p->n_addresses * ((UINT16_MAX + 1) / p->slice_size);
	if (r->rows <= SLUICE_MAX_SLICES)
		return 0;
	if (!a.value)
		a = (struct conf_at){ r->tree->path, key->name, key->values[key->n_values - 1] };
	return CONF_BAD(
		&a, r->err,
		"cuts the addresses so far into %u slices; allowed in one file are %d: give fewer "
		"addresses or a larger slice-size",
		r->rows, SLUICE_MAX_SLICES);
}

/* Are there blocks for n more held slices? */
static int add_blocks(struct reader *r, const struct conf_at *a, const struct config_pool *p,
		      uint32_t n)
{
	r->blocks += n * SLUICE_L4_MAX * (p->slice_size / SLUICE_BLOCK_PORTS);
	if (r->blocks <= SLUICE_MAX_BLOCKS)
		return 0;
	return CONF_BAD(
		a, r->err,
		"makes %u held ports in all; allowed in one file are %d: name fewer in slices",
		r->blocks / SLUICE_L4_MAX * SLUICE_BLOCK_PORTS,
		SLUICE_MAX_BLOCKS / SLUICE_L4_MAX * SLUICE_BLOCK_PORTS);
}

/* The first whole slice of an address. */
static uint32_t first_slice(uint32_t size)
{
	return size > CONFIG_PORT_MIN ? size : CONFIG_PORT_MIN;
}

/* Without the key every slice of every address is held. */
static int hold_all(struct reader *r, const struct conf_section *s, struct config_pool *p)
{
	const struct conf_key *key = conf_key(s, "addresses");
	struct conf_at a = { r->tree->path, key->name, key->values[key->n_values - 1] };
	uint32_t size = p->slice_size, first = first_slice(size);
	uint32_t each = (UINT16_MAX + 1 - first) / size;
	int err;

	err = add_blocks(r, &a, p, each * (uint32_t)p->n_addresses);
	if (err)
		return err;
	p->slices = calloc(each * p->n_addresses, sizeof(*p->slices));
	if (!p->slices)
		return conf_nomem(r->err);
	for (size_t i = 0; i < p->n_addresses; i++)
		for (uint32_t port = first; port <= UINT16_MAX; port += size)
			p->slices[p->n_slices++] = (struct range){
				.addr = p->addresses[i],
				.first = (uint16_t)port,
				.last = (uint16_t)(port + size - 1),
			};
	return 0;
}

static int read_range(const struct reader *r, const struct conf_at *a, const struct config_pool *p,
		      struct range *ret)
{
	uint32_t size = p->slice_size;
	char text[RANGE_STRLEN];
	struct range s, whole;

	if (range_parse(a->value->s, &s))
		return CONF_BAD(
			a, r->err,
			"is no range of ports; allowed are forms such as 203.0.113.7:40960-43007 "
			"and [2001:db8::7]:40960-43007");
	if (!bsearch(&s.addr, p->addresses, p->n_addresses, sizeof(s.addr), addr_order))
		return CONF_BAD(
			a, r->err,
			"is on an address that is not the pool's; allowed are slices of addresses "
			"that pool \"%s\" lists",
			p->name);
	if (s.first < CONFIG_PORT_MIN)
		return CONF_BAD(a, r->err, "has ports below %d; allowed are %u to %d",
				CONFIG_PORT_MIN, first_slice(size), UINT16_MAX);

	whole = s;
	whole.first = (uint16_t)(s.first / size * size);
	whole.last = (uint16_t)(s.last / size * size + size - 1);
	if (whole.first == s.first && whole.last == s.last) {
		*ret = s;
		return 0;
	}
	if (whole.first < CONFIG_PORT_MIN) {
		whole.first = (uint16_t)first_slice(size);
		if (whole.last < whole.first)
			whole.last = (uint16_t)(whole.first + size - 1);
	}
	return CONF_BAD(
		a, r->err,
		"does not begin and end with a slice of %u ports; allowed is for example %s", size,
		range_format(&whole, text));
}

/* A held slice, and where the file names it. */
struct held {
	struct range range;
	const struct conf_value *value;
};

static int held_cmp(const void *va, const void *vb)
{
	const struct held *a = va, *b = vb;
	int d = addr_cmp(&a->range.addr, &b->range.addr);

	if (!d)
		d = a->range.first - b->range.first;
	if (!d)
		d = (a->value->line > b->value->line) - (a->value->line < b->value->line);
	return d;
}

/* Sort the slices, check that none is there twice, and give them to the pool. */
static int hold(struct reader *r, struct config_pool *p, struct held *held, size_t n)
{
	p->slices = calloc(n + 1, sizeof(*p->slices));
	if (!p->slices)
		return conf_nomem(r->err);
	qsort(held, n, sizeof(*held), held_cmp);
	for (size_t i = 0; i < n; i++) {
		struct conf_at a = { r->tree->path, "slices", held[i].value };

		if (i && range_overlaps(&held[i].range, &held[i - 1].range))
			return CONF_BAD(
				&a, r->err,
				"overlaps slices \"%s\" in line %u; allowed is each slice once",
				held[i - 1].value->s, held[i - 1].value->line);
		p->slices[p->n_slices++] = held[i].range;
	}
	return 0;
}

static int read_slices(struct reader *r, const struct conf_section *s, struct config_pool *p)
{
	const struct conf_key *key = conf_key(s, "slices");
	uint32_t size = p->slice_size;
	struct range *ranges;
	struct held *held;
	size_t n = 0;
	int err = 0;

	if (!key->line)
		return hold_all(r, s, p);
	ranges = calloc(key->n_values + 1, sizeof(*ranges));
	if (!ranges)
		return conf_nomem(r->err);
	for (size_t i = 0; i < key->n_values && !err; i++) {
		struct conf_at a = { r->tree->path, key->name, key->values[i] };
		uint32_t whole;

		err = read_range(r, &a, p, &ranges[i]);
		if (err)
			break;
		whole = (uint32_t)(ranges[i].last - ranges[i].first + 1) / size;
		err = add_blocks(r, &a, p, whole);
		n += whole;
	}
	held = err ? NULL : calloc(n + 1, sizeof(*held));
	if (held) {
		n = 0;
		for (size_t i = 0; i < key->n_values; i++)
			for (uint32_t port = ranges[i].first; port < ranges[i].last; port += size)
				held[n++] = (struct held){
					.range.addr = ranges[i].addr,
					.range.first = (uint16_t)port,
					.range.last = (uint16_t)(port + size - 1),
					.value = key->values[i],
				};
		err = hold(r, p, held, n);
	} else if (!err) {
		err = conf_nomem(r->err);
	}
	free(held);
	free(ranges);
	return err;
}

int conf_pools(const struct conf_tree *t, struct config *c, struct errtext *err)
{
	const struct conf_section *sections[SLUICE_MAX_POOLS];
	struct reader r = { .tree = t, .c = c, .err = err };
	int rc = 0;

	c->pools = calloc(SLUICE_MAX_POOLS, sizeof(*c->pools));
	if (!c->pools)
		return conf_nomem(err);
	for (size_t i = 1; i < t->n_sections && !rc; i++) {
		const struct conf_section *s = &t->sections[i];

		if (strcmp(s->name, "pool"))
			continue;
		if (c->n_pools == SLUICE_MAX_POOLS)
			return conf_bad(t->path, s->line, "pool", s->title, err,
					"is one pool too many; allowed are %d", SLUICE_MAX_POOLS);
		sections[c->n_pools] = s;
		rc = read_policy(&r, s, &c->pools[c->n_pools++]);
	}
	if (rc)
		return rc;

	rc = conf_interfaces(t, sections, c, err);
	if (!rc)
		rc = conf_prefixes(t, sections, c, err);
	for (size_t i = 0; i < c->n_pools && !rc; i++)
		rc = check_rows(&r, sections[i], &c->pools[i]);
	for (size_t i = 0; i < c->n_pools && !rc; i++)
		rc = check_clients(&r, sections[i], &c->pools[i]);
	for (size_t i = 0; i < c->n_pools && !rc; i++)
		rc = read_slices(&r, sections[i], &c->pools[i]);
	return rc;
}

int config_need_pools(const struct config *c, struct errtext *err)
{
	if (c->n_pools)
		return 0;
	return conf_bad(c->path, 1, "pool", "", err,
			"no pool is given; allowed are 1 to %d, as in pool \"default\" { ... }",
			SLUICE_MAX_POOLS);
}

void conf_pool_done(struct config_pool *p)
{
	for (size_t i = 0; i < p->n_tags; i++)
		free(p->tags[i]);
	free(p->tags);
	free(p->addresses);
	free(p->slices);
	free(p->clients);
	free(p->no_nat);
	conf_policy_done(p);
}
