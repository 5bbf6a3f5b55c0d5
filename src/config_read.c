/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libconfuse's part: which sections and keys there are. Every value stays a text; its line is noted
 * while libconfuse is there.
 */
#include <assert.h>
#include <confuse.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config_internal.h"

static int value_parsed(cfg_t *cfg, cfg_opt_t *opt, const char *text, void *result);

#define ONE(name)     CFG_PTR_CB(name, NULL, CFGF_NODEFAULT, value_parsed, free)
#define LIST(name)    CFG_PTR_LIST_CB(name, NULL, CFGF_NODEFAULT, value_parsed, free)
#define SECTION(name) CFG_SEC(#name, name##_keys, CFGF_MULTI)
#define SECTION_TITLED(name) \
	CFG_SEC(#name, name##_keys, CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES)

static cfg_opt_t pool_keys[] = {
	LIST("addresses"),
	ONE("slice-size"),
	LIST("slices"),
	LIST("clients"),
	LIST("no-nat"),
	LIST("interfaces"),
	ONE("tcp-mapping"),
	ONE("udp-mapping"),
	ONE("filtering"),
	ONE("tcp-filtering"),
	ONE("udp-filtering"),
	ONE("pairing"),
	ONE("hairpin"),
	ONE("unleased"),
	ONE("ports-per-client"),
	ONE("states-per-client"),
	ONE("flows-per-second"),
	ONE("flows-burst"),
	ONE("mss-clamp"),
	ONE("ipv4-id"),
	ONE("tcp-established"),
	ONE("tcp-opening"),
	ONE("tcp-closing"),
	ONE("tcp-time-wait"),
	ONE("tcp-reset"),
	ONE("udp-timeout"),
	ONE("udp-short-timeout"),
	ONE("icmp-timeout"),
	ONE("inbound-refresh"),
	ONE("short-timers"),
	LIST("tags"),
	CFG_END(),
};

static cfg_opt_t host_keys[] = { ONE("sysctl"), ONE("routes"), CFG_END() };
static cfg_opt_t watch_keys[] = { LIST("netns"), LIST("sources"), ONE("heal"),
				  ONE("buffer"), ONE("history"),  CFG_END() };
static cfg_opt_t fleet_keys[] = { ONE("backend"), ONE("ttl"),  LIST("endpoints"), ONE("prefix"),
				  ONE("ca"),      ONE("cert"), ONE("key"),        CFG_END() };
static cfg_opt_t proxy_keys[] = { ONE("pool"), LIST("interfaces"), CFG_END() };
static cfg_opt_t metrics_keys[] = { ONE("listen"), CFG_END() };
static cfg_opt_t access_keys[] = { ONE("group"), ONE("leases-per-uid"), ONE("ports-per-uid"),
				   ONE("leases-per-cgroup"), CFG_END() };
static cfg_opt_t leases_keys[] = { ONE("cool-down"), ONE("records"), ONE("fair-share"),
				   ONE("cgroup"), CFG_END() };

static cfg_opt_t top_keys[] = {
	ONE("machine"),  ONE("state-dir"), ONE("control"),        ONE("bpffs"),
	LIST("uplinks"), ONE("max-flows"), ONE("icmp-rate"),      SECTION(host),
	SECTION(watch),  SECTION(fleet),   SECTION_TITLED(pool),  SECTION(metrics),
	SECTION(access), SECTION(leases),  SECTION_TITLED(proxy), CFG_END(),
};

/*
 * libconfuse passes its error function no argument of ours. Its lexer is a set of globals anyway, so
 * one reading at a time is all there can be.
 */
static struct {
	const char *path;
	struct errtext *err;
	bool said; /* err is filled */
	bool nomem;
} reading;

/* Called for each value as it is read. */
static int value_parsed(cfg_t *cfg, cfg_opt_t *opt, const char *text, void *result)
{
	size_t size = strlen(text) + 1;
	struct conf_value *v;

	(void)opt;
	v = malloc(sizeof(*v) + size);
	if (!v) {
		reading.nomem = true;
		return -1;
	}
	v->line = (unsigned)cfg->line;
	memcpy(v->s, text, size);
	*(void **)result = v;
	return 0;
}

/* "machine, state-dir, ...": what could stand where an unknown name is, as far as there is room. */
static void list_known(const cfg_t *cfg, char *buf, size_t size)
{
	size_t n = 0;

	buf[0] = '\0';
	for (const cfg_opt_t *o = cfg->opts; o->name; o++) {
		size_t len = strlen(o->name);

		if (n + len + sizeof(", , ...") > size) {
			memcpy(buf + n, ", ...", sizeof(", ..."));
			return;
		}
		if (n) {
			memcpy(buf + n, ", ", 2);
			n += 2;
		}
		memcpy(buf + n, o->name, len + 1);
		n += len;
	}
}

/* What libconfuse can still complain about after the scan, in our form. */
static void confuse_error(cfg_t *cfg, const char *fmt, va_list ap)
{
	static const struct {
		const char *fmt, *key, *why;
	} said[] = {
		{ "found duplicate title '%s'", "section",
		  "this name was given to a section of the same kind before; allowed is each "
		  "name once" },
		{ "missing title for section '%s'", "section",
		  "has no name; write one after it, in quotes" },
		{ "missing opening brace for section '%s'", "section",
		  "takes no value and no name; allowed after it is only {" },
		{ "missing equal sign after option '%s'", "key",
		  "is no section; allowed after it is only =" },
		{ "attempt to append to non-list option '%s'", "key",
		  "takes one value; allowed after it is only =" },
		{ "unexpected token '%s'", "syntax",
		  "no list is possible here; allowed is one value" },
	};
	bool top = strcmp(cfg->name, "root") == 0;
	char text[384];

	reading.said = true;
	if (strcmp(fmt, "no such option '%s'") == 0) {
		list_known(cfg, text, sizeof(text));
		conf_bad(reading.path, (unsigned)cfg->line, "key", va_arg(ap, const char *),
			 reading.err, "is not known%s%s; allowed are %s", top ? "" : " in section ",
			 top ? "" : cfg->name, text);
		return;
	}
	for (size_t i = 0; i < sizeof(said) / sizeof(said[0]); i++) {
		if (strcmp(fmt, said[i].fmt))
			continue;
		conf_bad(reading.path, (unsigned)cfg->line, said[i].key, va_arg(ap, const char *),
			 reading.err, "%s", said[i].why);
		return;
	}
	vsnprintf(text, sizeof(text), fmt, ap);
	conf_bad(reading.path, (unsigned)cfg->line, "syntax", text, reading.err,
		 "is what the parser says; see the manual page for what is allowed");
}

/*
 * Move the values of one section out of libconfuse's hands. keys is the table that cfg was made from.
 */
static int take_section(cfg_t *cfg, const cfg_opt_t *keys, const struct conf_scan_section *scan,
			struct conf_section *sec)
{
	size_t n = 0;

	while (keys[n].name)
		n++;
	sec->line = scan->self.line;
	sec->keys = calloc(n + 1, sizeof(*sec->keys));
	if (!sec->keys)
		return -ENOMEM;
	if (cfg->title) {
		sec->title = strdup(cfg->title);
		if (!sec->title)
			return -ENOMEM;
	}

	for (size_t i = 0; i < n; i++) {
		struct conf_key *key = &sec->keys[sec->n_keys];
		cfg_opt_t *opt = &cfg->opts[i];

		if (opt->type != CFGT_PTR)
			continue;
		key->name = keys[i].name;
		for (size_t k = 0; k < scan->n_keys; k++)
			if (strlen(key->name) == scan->keys[k].len &&
			    !memcmp(key->name, scan->keys[k].name, scan->keys[k].len))
				key->line = scan->keys[k].line;
		sec->n_keys++;
		if (!opt->nvalues)
			continue;
		key->values = calloc(opt->nvalues, sizeof(*key->values));
		if (!key->values)
			return -ENOMEM;
		for (unsigned v = 0; v < opt->nvalues; v++) {
			key->values[key->n_values++] = opt->values[v]->ptr;
			opt->values[v]->ptr = NULL;
		}
	}
	return 0;
}

/*
 * The tree has the sections in the order of the file; libconfuse keeps those of one name in that
 * order.
 */
static int take(cfg_t *root, const struct conf_scan *scan, struct conf_tree *t)
{
	size_t n_opts = sizeof(top_keys) / sizeof(top_keys[0]) - 1;
	unsigned taken[sizeof(top_keys) / sizeof(top_keys[0])] = { 0 };
	int err;

	t->sections = calloc(scan->n_sections, sizeof(*t->sections));
	if (!t->sections)
		return -ENOMEM;
	t->sections[0].name = "";
	t->n_sections = 1;
	err = take_section(root, top_keys, &scan->sections[0], &t->sections[0]);

	for (size_t i = 1; i < scan->n_sections && !err; i++) {
		const struct conf_scan_key *self = &scan->sections[i].self;
		struct conf_section *sec = &t->sections[i];
		size_t o = 0;

		while (o < n_opts && (strlen(top_keys[o].name) != self->len ||
				      memcmp(top_keys[o].name, self->name, self->len)))
			o++;
		/* libconfuse knew the name, and made one section for each in the text. */
		assert(o < n_opts && taken[o] < root->opts[o].nvalues);
		sec->name = top_keys[o].name;
		t->n_sections++;
		err = take_section(root->opts[o].values[taken[o]++]->section, top_keys[o].subopts,
				   &scan->sections[i], sec);
	}
	return err;
}

/* A section without a name may come once. */
static int check_once(const struct conf_tree *t, struct errtext *err)
{
	for (size_t i = 1; i < t->n_sections; i++) {
		const struct conf_section *s = &t->sections[i], *first;

		if (s->title)
			continue;
		first = conf_section(t, s->name);
		if (first != s)
			return conf_bad(t->path, s->line, "section", s->name, err,
					"is given twice, first in line %u; allowed is once",
					first->line);
	}
	return 0;
}

int conf_tree_new(const char *path, const char *text, size_t len, struct conf_tree **ret,
		  struct errtext *err)
{
	struct conf_scan *scan = NULL;
	struct conf_tree *t = NULL;
	cfg_t *cfg = NULL;
	int r;

	r = conf_scan_new(path, text, len, &scan, err);
	if (r)
		return r;

	r = -ENOMEM;
	t = calloc(1, sizeof(*t));
	cfg = cfg_init(top_keys, CFGF_NONE);
	if (t)
		t->path = strdup(path);
	if (!t || !t->path || !cfg)
		goto out;

	reading.path = path;
	reading.err = err;
	reading.said = false;
	reading.nomem = false;
	cfg_set_error_function(cfg, confuse_error);
	if (cfg_parse_buf(cfg, scan->text) != CFG_SUCCESS) {
		r = reading.nomem ? -ENOMEM : -EINVAL;
		if (!reading.said)
			conf_bad(path, 1, "syntax", "", err,
				 "the file cannot be parsed; see the manual page for what is "
				 "allowed");
		goto out;
	}
	r = take(cfg, scan, t);
	if (!r)
		r = check_once(t, err);
	if (!r) {
		*ret = t;
		t = NULL;
	}
out:
	if (r == -ENOMEM)
		conf_nomem(err);
	if (cfg)
		cfg_free(cfg);
	reading.path = NULL;
	reading.err = NULL;
	conf_tree_free(t);
	conf_scan_free(scan);
	return r;
}

void conf_tree_free(struct conf_tree *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->n_sections; i++) {
		struct conf_section *s = &t->sections[i];

		for (size_t k = 0; k < s->n_keys; k++) {
			for (size_t v = 0; v < s->keys[k].n_values; v++)
				free(s->keys[k].values[v]);
			free(s->keys[k].values);
		}
		free(s->keys);
		free(s->title);
	}
	free(t->sections);
	free(t->path);
	free(t);
}

const struct conf_key *conf_key(const struct conf_section *s, const char *name)
{
	const struct conf_key *key = NULL;

	for (size_t i = 0; i < s->n_keys && !key; i++)
		if (strcmp(s->keys[i].name, name) == 0)
			key = &s->keys[i];
	assert(key);
	return key;
}

const struct conf_value *conf_one(const struct conf_section *s, const char *name)
{
	const struct conf_key *key = conf_key(s, name);

	return key->n_values ? key->values[0] : NULL;
}

struct conf_at conf_at(const struct conf_tree *t, const struct conf_section *s, const char *key)
{
	return (struct conf_at){ t->path, key, conf_one(s, key) };
}

const struct conf_section *conf_section(const struct conf_tree *t, const char *name)
{
	for (size_t i = 1; i < t->n_sections; i++)
		if (strcmp(t->sections[i].name, name) == 0)
			return &t->sections[i];
	return NULL;
}
