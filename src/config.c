/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "config_internal.h"

#define DEFAULT_STATE_DIR "/var/lib/sluice"
#define DEFAULT_CONTROL   "/run/sluice/control.sock"
#define DEFAULT_BPFFS     "/sys/fs/bpf/sluice"
#define DEFAULT_MAX_FLOWS 262144
#define DEFAULT_ICMP_RATE 100
#define DEFAULT_METRICS   "127.0.0.1:9469"

#define MAX_FLOWS_MIN 1024
#define MAX_FLOWS_MAX 16777216
#define ICMP_RATE_MAX 100000
#define TTL_MIN       2
#define TTL_MAX       86400
/* Longer than any path in use, and with room for the names of files below it. */
#define DIR_MAX_LEN      (PATH_MAX - 256)
#define SUN_PATH_MAX     (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)
#define METRICS_PATH_MAX (SUN_PATH_MAX - 4) /* and with room for the name that it is made under */

struct reader {
	const struct conf_tree *tree;
	struct config *c;
	struct errtext *err;
};

/* Note that something is accepted, and has no effect. */
static int warn(const struct reader *r, unsigned line, const char *what)
{
	struct config *c = r->c;
	char **w;

	w = reallocarray(c->warnings, c->n_warnings + 1, sizeof(*w));
	if (!w)
		return conf_nomem(r->err);
	c->warnings = w;
	if (asprintf(&w[c->n_warnings], "%s:%u: %s: this version does not act on it", r->tree->path,
		     line, what) < 0)
		return conf_nomem(r->err);
	c->n_warnings++;
	return 0;
}

static int read_machine(const struct reader *r)
{
	struct conf_at a = conf_at(r->tree, &r->tree->sections[0], "machine");
	char host[HOST_NAME_MAX + 1] = "";

	if (a.value)
		return conf_name(&a, r->c->machine, r->err);
	if (gethostname(host, sizeof(host) - 1))
		host[0] = '\0';
	host[strcspn(host, ".")] = '\0';
	if (!conf_name_ok(host))
		return conf_bad(r->tree->path, 1, "machine", host, r->err,
				"is missing, and this host name cannot serve; " CONF_NAME_RULE);
	strcpy(r->c->machine, host);
	return 0;
}

static int read_paths(const struct reader *r)
{
	const struct conf_section *top = &r->tree->sections[0];
	struct {
		const char *key, *fallback;
		size_t max;
		char **ret;
	} paths[] = {
		{ "state-dir", DEFAULT_STATE_DIR, DIR_MAX_LEN, &r->c->state_dir },
		{ "control", DEFAULT_CONTROL, SUN_PATH_MAX, &r->c->control },
		{ "bpffs", DEFAULT_BPFFS, DIR_MAX_LEN, &r->c->bpffs },
	};
	int err;

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		struct conf_at a = conf_at(r->tree, top, paths[i].key);

		if (a.value) {
			err = conf_path(&a, paths[i].max, paths[i].ret, r->err);
			if (err)
				return err;
			if (!strcmp(a.key, "control") && a.value->s[strlen(a.value->s) - 1] == '/')
				return CONF_BAD(&a, r->err,
						"is a directory; allowed is the path of a socket");
			continue;
		}
		*paths[i].ret = strdup(paths[i].fallback);
		if (!*paths[i].ret)
			return conf_nomem(r->err);
	}
	return 0;
}

/* Uplinks are needed where pools are; a file for "--watch-only" has neither. */
static bool has_pools(const struct conf_tree *t)
{
	for (size_t i = 1; i < t->n_sections; i++)
		if (!strcmp(t->sections[i].name, "pool"))
			return true;
	return false;
}

static int read_uplinks(const struct reader *r)
{
	const struct conf_key *key = conf_key(&r->tree->sections[0], "uplinks");
	struct config *c = r->c;
	int err;

	if (!key->n_values && !key->line && !has_pools(r->tree))
		return 0;
	if (!key->n_values)
		return conf_bad(r->tree->path, key->line ? key->line : 1, "uplinks", "", r->err,
				"no uplink is given; allowed are 1 to %d interfaces, as in "
				"uplinks = { \"eth0\" }",
				CONFIG_UPLINKS_MAX);
	for (size_t i = 0; i < key->n_values; i++) {
		struct conf_at a = { r->tree->path, key->name, key->values[i] };

		err = conf_ifname(&a, r->err);
		if (err)
			return err;
		for (size_t k = 0; k < c->n_uplinks; k++)
			if (!strcmp(c->uplinks[k], a.value->s))
				return CONF_BAD(&a, r->err,
						"is given twice, first in line %u; allowed is once",
						key->values[k]->line);
		if (c->n_uplinks == CONFIG_UPLINKS_MAX)
			return CONF_BAD(&a, r->err, "is one uplink too many; allowed are %d",
					CONFIG_UPLINKS_MAX);
		c->uplinks[c->n_uplinks] = strdup(a.value->s);
		if (!c->uplinks[c->n_uplinks])
			return conf_nomem(r->err);
		c->uplink_lines[c->n_uplinks++] = a.value->line;
	}
	return 0;
}

static int read_numbers(const struct reader *r)
{
	const struct conf_section *top = &r->tree->sections[0];
	struct conf_at flows = conf_at(r->tree, top, "max-flows"),
		       rate = conf_at(r->tree, top, "icmp-rate");
	int err = 0;

	r->c->max_flows = DEFAULT_MAX_FLOWS;
	r->c->icmp_rate = DEFAULT_ICMP_RATE;
	if (flows.value)
		err = conf_uint(&flows, MAX_FLOWS_MIN, MAX_FLOWS_MAX, &r->c->max_flows, r->err);
	if (!err && rate.value)
		err = conf_uint(&rate, 0, ICMP_RATE_MAX, &r->c->icmp_rate, r->err);
	return err;
}

static int read_host(const struct reader *r)
{
	static const struct conf_choice modes[] = { { "set", true }, { "check", false }, { NULL } };
	const struct conf_section *s = conf_section(r->tree, "host");
	struct {
		const char *key;
		bool *ret;
	} switches[] = { { "sysctl", &r->c->set_sysctls }, { "routes", &r->c->set_routes } };
	int err, set;

	for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++) {
		struct conf_at a = { NULL };

		set = true;
		if (s)
			a = conf_at(r->tree, s, switches[i].key);
		err = a.value ? conf_choose(&a, modes, &set, r->err) : 0;
		if (err)
			return err;
		*switches[i].ret = set;
	}
	return 0;
}

static int read_fleet(const struct reader *r)
{
	static const struct conf_choice backends[] = {
		{ "local", CONFIG_BACKEND_LOCAL },
		{ "etcd", 0, .later = true },
		{ NULL },
	};
	static const char *const etcd_keys[] = { "endpoints", "prefix", "ca", "cert", "key" };
	const struct conf_section *s = conf_section(r->tree, "fleet");
	int backend = CONFIG_BACKEND_LOCAL, err = 0;
	struct conf_at a;
	uint32_t ttl_s;

	r->c->fleet.backend = CONFIG_BACKEND_LOCAL;
	if (!s)
		return 0;
	a = conf_at(r->tree, s, "backend");
	if (a.value)
		err = conf_choose(&a, backends, &backend, r->err);
	if (err)
		return err;
	r->c->fleet.backend = (enum config_backend)backend;

	a = conf_at(r->tree, s, "ttl");
	if (a.value) {
		if (conf_uint(&a, 0, TTL_MAX, &ttl_s, r->err) || (ttl_s > 0 && ttl_s < TTL_MIN))
			return CONF_BAD(
				&a, r->err,
				"is no time to live in seconds; allowed are 0 (holds do not "
				"end) and %d to %d",
				TTL_MIN, TTL_MAX);
		r->c->fleet.ttl_s = ttl_s;
	}

	for (size_t i = 0; i < sizeof(etcd_keys) / sizeof(etcd_keys[0]) && !err; i++) {
		unsigned line = conf_key(s, etcd_keys[i])->line;
		char what[32];

		snprintf(what, sizeof(what), "fleet %s", etcd_keys[i]);
		if (line)
			err = warn(r, line, what);
	}
	return err;
}

/* Where a text says to listen; false: it says nothing. */
static bool parse_listen(const char *s, struct config_metrics *ret)
{
	static const char scheme[] = "unix:";
	const char *colon = strrchr(s, ':');
	char text[RANGE_STRLEN + 8];
	struct range range;
	size_t len;

	ret->path = NULL;
	if (!strncmp(s, scheme, strlen(scheme))) {
		ret->path = s + strlen(scheme);
		len = strlen(ret->path);
		return ret->path[0] == '/' && ret->path[len - 1] != '/' && len <= METRICS_PATH_MAX;
	}
	/* ADDRESS:PORT is half of a range: let that parser say whether it is right. */
	if (!colon || strlen(s) >= RANGE_STRLEN)
		return false;
	snprintf(text, sizeof(text), "%s-65535", s);
	if (range_parse(text, &range) || !range.first)
		return false;
	ret->addr = range.addr;
	ret->port = range.first;
	return true;
}

static int read_metrics(const struct reader *r)
{
	const struct conf_section *s = conf_section(r->tree, "metrics");
	struct config_metrics *m = &r->c->metrics;
	struct conf_at a;

	if (!s)
		return 0;
	a = conf_at(r->tree, s, "listen");
	m->line = a.value ? a.value->line : s->line;
	m->listen = strdup(a.value ? a.value->s : DEFAULT_METRICS);
	if (!m->listen)
		return conf_nomem(r->err);
	if (!parse_listen(m->listen, m))
		return CONF_BAD(&a, r->err,
				"is no place to listen at; allowed are ADDRESS:PORT, "
				"[ADDRESS]:PORT and "
				"unix:PATH, with an absolute path of at most %zu bytes",
				METRICS_PATH_MAX);
	if (m->path && !strcmp(m->path, r->c->control))
		return CONF_BAD(&a, r->err,
				"is the control socket; allowed is any other place to listen at");
	return 0;
}

static int read_proxy(const struct reader *r, const struct conf_section *s)
{
	const struct conf_key *ifs = conf_key(s, "interfaces");
	struct conf_at pool = conf_at(r->tree, s, "pool");
	char what[CONFIG_NAME_MAX + 16];
	bool found = false;
	int err;

	if (!conf_name_ok(s->title))
		return conf_bad(r->tree->path, s->line, "proxy", s->title, r->err,
				"is no name; " CONF_NAME_RULE);
	if (!pool.value)
		return conf_bad(r->tree->path, s->line, "proxy", s->title, r->err,
				"has no pool; allowed is pool = \"NAME\" of a pool in this file");
	for (size_t i = 0; i < r->c->n_pools && !found; i++)
		found = !strcmp(r->c->pools[i].name, pool.value->s);
	if (!found)
		return CONF_BAD(&pool, r->err,
				"is no pool in this file; allowed are the names of pools");
	if (!ifs->n_values)
		return conf_bad(r->tree->path, ifs->line ? ifs->line : s->line, "interfaces", "",
				r->err, "is empty; allowed are names of interfaces");
	for (size_t i = 0; i < ifs->n_values; i++) {
		struct conf_at a = { r->tree->path, "interfaces", ifs->values[i] };

		err = conf_ifname(&a, r->err);
		if (err)
			return err;
	}
	snprintf(what, sizeof(what), "proxy \"%s\"", s->title);
	return warn(r, s->line, what);
}

/* In the order of the file, so that the warnings come in that order too. */
static int read_proxies(const struct reader *r)
{
	int err = 0;

	for (size_t i = 1; i < r->tree->n_sections && !err; i++)
		if (!strcmp(r->tree->sections[i].name, "proxy"))
			err = read_proxy(r, &r->tree->sections[i]);
	return err;
}

int config_parse(const char *path, const char *text, size_t len, struct config **ret,
		 struct errtext *err)
{
	struct conf_tree *tree = NULL;
	struct reader r = { .err = err };
	int rc;

	rc = conf_tree_new(path, text, len, &tree, err);
	if (rc)
		return rc;
	r.tree = tree;
	r.c = calloc(1, sizeof(*r.c));
	if (r.c)
		r.c->path = strdup(path);
	rc = r.c && r.c->path ? 0 : conf_nomem(err);
	if (!rc)
		rc = read_machine(&r);
	if (!rc)
		rc = read_paths(&r);
	if (!rc)
		rc = read_uplinks(&r);
	if (!rc)
		rc = read_numbers(&r);
	if (!rc)
		rc = read_host(&r);
	if (!rc)
		rc = read_fleet(&r);
	if (!rc)
		rc = conf_pools(tree, r.c, err);
	if (!rc)
		rc = conf_leases(tree, r.c, err);
	if (!rc)
		rc = conf_watch(tree, r.c, err);
	if (!rc)
		rc = read_metrics(&r);
	if (!rc)
		rc = read_proxies(&r);

	conf_tree_free(tree);
	if (rc) {
		config_free(r.c);
		return rc;
	}
	*ret = r.c;
	return 0;
}

int config_load(const char *path, struct config **ret, struct errtext *err)
{
	size_t len = 0, size = CONF_FILE_MAX + 1;
	ssize_t n = 1;
	char *text;
	int fd, rc;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errtext_set(err, errno, "%s: %m", path);
	text = malloc(size);
	if (!text) {
		close(fd);
		return conf_nomem(err);
	}
	while (n && len < size) {
		n = read(fd, text + len, size - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break;
		len += (size_t)n;
	}
	if (n < 0)
		rc = errtext_set(err, errno, "%s: %m", path);
	else
		rc = config_parse(path, text, len, ret, err);
	close(fd);
	free(text);
	return rc;
}

void config_free(struct config *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n_pools; i++)
		conf_pool_done(&c->pools[i]);
	for (size_t i = 0; i < c->n_uplinks; i++)
		free(c->uplinks[i]);
	for (size_t i = 0; i < c->n_warnings; i++)
		free(c->warnings[i]);
	conf_watch_done(c);
	free(c->pools);
	free(c->warnings);
	free(c->access.group);
	free(c->metrics.listen);
	free(c->leases.cgroup);
	free(c->state_dir);
	free(c->control);
	free(c->bpffs);
	free(c->path);
	free(c);
}

void config_blame_uplink(const struct config *c, struct errtext *err)
{
	char quoted[64];

	for (size_t i = 0; i < c->n_uplinks; i++) {
		snprintf(quoted, sizeof(quoted), "\"%s\"", c->uplinks[i]);
		if (!strstr(err->s, quoted))
			continue;
		errtext_prefix(err, "%s:%u: ", c->path, c->uplink_lines[i]);
		return;
	}
}

int config_reloadable(const struct config *a, const struct config *b, struct errtext *err)
{
	const struct {
		const char *key, *from, *to;
	} fixed[] = {
		{ "machine", a->machine, b->machine },
		{ "state-dir", a->state_dir, b->state_dir },
		{ "control", a->control, b->control },
		{ "bpffs", a->bpffs, b->bpffs },
		{ "leases cgroup", a->leases.cgroup, b->leases.cgroup },
	};

	for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
		if (strcmp(fixed[i].from, fixed[i].to))
			return errtext_set(
				err, EINVAL,
				"%s: %s \"%.150s\": cannot change while the daemon runs; "
				"allowed is \"%.150s\", or a restart",
				b->path, fixed[i].key, fixed[i].to, fixed[i].from);
	return conf_watch_reloadable(a, b, err);
}
