// SPDX-License-Identifier: BSD-2-Clause
/* The section "watch": where conntrack's rewrites are looked for, and whether they are mended. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "collision.h"
#include "config_internal.h"

#define BUFFER_MIN     65536U
#define BUFFER_MAX     1073741824U
#define DEFAULT_BUFFER 8388608U

#define HISTORY_MIN     1U
#define HISTORY_MAX     1000000U
#define DEFAULT_HISTORY 10000U

#define NETNS_LEN_MAX (COLLISION_NETNS_MAX - 1) /* it is part of what is told and kept */

/* A network namespace: "" (the daemon's own), a name as of ip-netns(8), or a path. */
static bool netns_ok(const char *s)
{
	if (strlen(s) > NETNS_LEN_MAX)
		return false;
	if (!*s || (s[0] == '/' && s[1]))
		return true;
	return !strpbrk(s, "/ ") && strcmp(s, ".") && strcmp(s, "..");
}

/* A name and the path that it stands for are one namespace. */
static const char *netns_plain(const char *s)
{
	static const char *const dirs[] = { "/run/netns/", "/var/run/netns/" };

	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++)
		if (!strncmp(s, dirs[i], strlen(dirs[i])) && netns_ok(s + strlen(dirs[i])))
			return s + strlen(dirs[i]);
	return s;
}

static int netns_add(struct config *c, const char *name, unsigned line, struct errtext *err)
{
	char *copy = strdup(name);

	if (!copy)
		return conf_nomem(err);
	c->watch.netns[c->watch.n_netns] = copy;
	c->watch.netns_lines[c->watch.n_netns++] = line;
	return 0;
}

static int read_netns(const struct conf_tree *t, const struct conf_key *key, struct config *c,
		      struct errtext *err)
{
	int r;

	for (size_t i = 0; i < key->n_values; i++) {
		struct conf_at a = { t->path, "netns", key->values[i] };

		if (!netns_ok(a.value->s))
			return CONF_BAD(
				&a, err,
				"cannot be a network namespace; allowed are \"\" (the daemon's "
				"own), a name and an absolute path, of at most %d characters",
				NETNS_LEN_MAX);
		for (size_t k = 0; k < c->watch.n_netns; k++)
			if (!strcmp(netns_plain(c->watch.netns[k]), netns_plain(a.value->s)))
				return CONF_BAD(&a, err,
						"is given twice, first in line %u; allowed is once",
						c->watch.netns_lines[k]);
		if (c->watch.n_netns == CONFIG_NETNS_MAX)
			return CONF_BAD(&a, err, "is one namespace too many; allowed are %d",
					CONFIG_NETNS_MAX);
		r = netns_add(c, a.value->s, a.value->line, err);
		if (r)
			return r;
	}
	return 0;
}

static int read_sources(const struct conf_tree *t, const struct conf_key *key, struct config *c,
			struct errtext *err)
{
	static const struct conf_choice choices[] = { { "ctnetlink", COLLISION_CTNETLINK },
						      { "netfilter", COLLISION_NETFILTER },
						      { NULL } };
	int bit, r;

	if (!key->n_values)
		return conf_bad(t->path, key->line, key->name, "", err,
				"is empty; allowed are \"ctnetlink\", \"netfilter\" and both, and "
				"netns = { } to watch nothing");
	c->watch.sources = 0;
	for (size_t i = 0; i < key->n_values; i++) {
		struct conf_at a = { t->path, key->name, key->values[i] };

		r = conf_choose(&a, choices, &bit, err);
		if (r)
			return r;
		if (c->watch.sources & (uint32_t)bit)
			return CONF_BAD(&a, err, "is given twice; allowed is once");
		c->watch.sources |= (uint32_t)bit;
	}
	return 0;
}

int conf_watch(const struct conf_tree *t, struct config *c, struct errtext *err)
{
	const struct conf_section *s = conf_section(t, "watch");
	const struct conf_key *netns = s ? conf_key(s, "netns") : NULL;
	const struct conf_key *sources;
	struct conf_at heal, buffer, history;
	int r;

	c->watch.on = s != NULL;
	c->watch.sources = COLLISION_CTNETLINK | COLLISION_NETFILTER;
	c->watch.buffer = DEFAULT_BUFFER;
	c->watch.history = DEFAULT_HISTORY;
	c->watch.netns = calloc(CONFIG_NETNS_MAX, sizeof(*c->watch.netns));
	c->watch.netns_lines = calloc(CONFIG_NETNS_MAX, sizeof(*c->watch.netns_lines));
	if (!c->watch.netns || !c->watch.netns_lines)
		return conf_nomem(err);
	/* An empty list is not the same as none: it turns watching off. */
	if (netns && netns->line)
		r = read_netns(t, netns, c, err);
	else
		r = netns_add(c, "", s ? s->line : 0, err);
	if (r || !s)
		return r;
	sources = conf_key(s, "sources");
	if (sources->line)
		r = read_sources(t, sources, c, err);
	heal = conf_at(t, s, "heal");
	buffer = conf_at(t, s, "buffer");
	history = conf_at(t, s, "history");
	if (!r && heal.value)
		r = conf_bool(&heal, &c->watch.heal, err);
	if (!r && buffer.value)
		r = conf_uint(&buffer, BUFFER_MIN, BUFFER_MAX, &c->watch.buffer, err);
	if (!r && history.value)
		r = conf_uint(&history, HISTORY_MIN, HISTORY_MAX, &c->watch.history, err);
	return r;
}

void conf_watch_done(struct config *c)
{
	for (size_t i = 0; i < c->watch.n_netns; i++)
		free(c->watch.netns[i]);
	free(c->watch.netns);
	free(c->watch.netns_lines);
}

/* A namespace of one list that the other does not have in its place. NULL: they are alike. */
static const char *differs(const struct config *a, const struct config *b)
{
	for (size_t i = 0; i < a->watch.n_netns || i < b->watch.n_netns; i++)
		if (i >= a->watch.n_netns || i >= b->watch.n_netns ||
		    strcmp(a->watch.netns[i], b->watch.netns[i]))
			return i < b->watch.n_netns ? b->watch.netns[i] : a->watch.netns[i];
	return NULL;
}

int conf_watch_reloadable(const struct config *a, const struct config *b, struct errtext *err)
{
	const char *name = differs(a, b);

	if (name)
		return errtext_set(
			err, EINVAL,
			"%s: watch netns \"%s\": which namespaces are watched cannot "
			"change while the daemon runs; allowed are the same ones, in the "
			"same order, or a restart",
			b->path, name);
	if (a->watch.sources != b->watch.sources)
		return errtext_set(
			err, EINVAL,
			"%s: watch sources: cannot change while the daemon runs; allowed are "
			"the same ones, or a restart",
			b->path);
	if (a->watch.buffer != b->watch.buffer)
		return errtext_set(err, EINVAL,
				   "%s: watch buffer \"%u\": cannot change while the daemon runs; "
				   "allowed is \"%u\", or a restart",
				   b->path, b->watch.buffer, a->watch.buffer);
	return 0;
}
