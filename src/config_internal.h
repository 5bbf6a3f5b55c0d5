/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the parts of the configuration's reader share; see config.h for the manual. A file goes
 * through them in this order:
 *
 *   config_scan.c    the text itself: its syntax, where sections and keys begin, keys given twice
 *   config_read.c    libconfuse: which keys and sections exist; makes a tree of texts with lines
 *   config_value.c   one text to one value
 *   config.c         everything but what follows
 *   config_prefix.c  the pools' addresses, clients and no-nat
 *   config_policy.c  what a pool does with packets
 *   config_pool.c    the rest of the pools, and pools as a whole
 *   config_lease.c   the sections "access" and "leases"
 *   config_watch.c   the section "watch"
 *
 * The scan is there because libconfuse 3.3 counts comments as extra lines, closes sections at the end
 * of the file, skips stray characters in silence, lets the second of two values win, and expands the
 * environment.
 */
#ifndef CONFIG_INTERNAL_H
#define CONFIG_INTERNAL_H

#include "config.h"

#define CONF_FILE_MAX     (1u << 20)
#define CONF_TEXT_MAX     4096 /* bytes of one value */
#define CONF_SECTIONS_MAX (1 + 2 * SLUICE_MAX_POOLS)
#define CONF_KEYS_MAX     64 /* more than any section knows */

struct conf_scan_key {
	const char *name; /* in the scan's source, not terminated */
	size_t len;
	unsigned line;
};

struct conf_scan_section {
	struct conf_scan_key self;
	struct conf_scan_key keys[CONF_KEYS_MAX]; /* what goes beyond is not known to libconfuse */
	size_t n_keys;
};

struct conf_scan {
	char *source; /* terminated */
	char *text;   /* the same tokens on the same lines, and nothing else */
	struct conf_scan_section sections[CONF_SECTIONS_MAX]; /* 0: the top level */
	size_t n_sections;
};

struct conf_value {
	unsigned line;
	char s[];
};

struct conf_key {
	const char *name;
	unsigned line; /* 0: not in the file */
	struct conf_value **values;
	size_t n_values;
};

struct conf_section {
	const char *name;
	char *title;
	unsigned line;
	struct conf_key *keys; /* every key that the section may have */
	size_t n_keys;
};

struct conf_tree {
	char *path;
	struct conf_section *sections; /* 0: the top level; then as they come in the file */
	size_t n_sections;
};

/* Check the syntax of a text. Returns 0 or -errno with err filled. */
int conf_scan_new(const char *path, const char *text, size_t len, struct conf_scan **ret,
		  struct errtext *err);
void conf_scan_free(struct conf_scan *s);

/* Read a text into a tree. Returns 0 or -errno with err filled. */
int conf_tree_new(const char *path, const char *text, size_t len, struct conf_tree **ret,
		  struct errtext *err);
void conf_tree_free(struct conf_tree *t);
/* A key that the section's grammar has; never NULL. */
const struct conf_key *conf_key(const struct conf_section *s, const char *name);
/* The value of a key that takes one; NULL where the file does not have it. */
const struct conf_value *conf_one(const struct conf_section *s, const char *name);
/* The only section of that name, or NULL. */
const struct conf_section *conf_section(const struct conf_tree *t, const char *name);

/*
 * Fill err with: PATH:LINE: KEY "VALUE": ... Control characters are made visible, long values cut.
 * Returns -EINVAL.
 */
int conf_bad(const char *path, unsigned line, const char *key, const char *value,
	     struct errtext *err, const char *fmt, ...) __attribute__((format(printf, 6, 7)));
int conf_nomem(struct errtext *err);

/* What a value is read from, for messages. */
struct conf_at {
	const char *path;
	const char *key;
	const struct conf_value *value;
};

/* For a key that takes one value; .value is NULL where the file does not have it. */
struct conf_at conf_at(const struct conf_tree *t, const struct conf_section *s, const char *key);

/* conf_bad() for such a value. */
#define CONF_BAD(at, err, ...) \
	conf_bad((at)->path, (at)->value->line, (at)->key, (at)->value->s, err, __VA_ARGS__)

struct conf_choice {
	const char *name;
	int value;
	bool later; /* known, but this version does not have it */
};

int conf_uint(const struct conf_at *at, uint32_t min, uint32_t max, uint32_t *ret,
	      struct errtext *err);
/* choices ends with a row without a name. */
int conf_choose(const struct conf_at *at, const struct conf_choice *choices, int *ret,
		struct errtext *err);
int conf_bool(const struct conf_at *at, bool *ret, struct errtext *err);
int conf_name(const struct conf_at *at, char ret[CONFIG_NAME_MAX + 1], struct errtext *err);
/* An absolute path of at most max characters; *ret is replaced. */
int conf_path(const struct conf_at *at, size_t max, char **ret, struct errtext *err);
/* The name of a network interface, as the kernel would take it. */
int conf_ifname(const struct conf_at *at, struct errtext *err);
bool conf_name_ok(const char *s);
/* What conf_name_ok() allows, for messages. */
#define CONF_NAME_RULE \
	"allowed are 1 to 31 of the characters A-Z a-z 0-9 . _ -, the first a letter or digit"

/* Fill c->pools from the tree. On failure what was filled is config_free()'s. */
int conf_pools(const struct conf_tree *t, struct config *c, struct errtext *err);
void conf_pool_done(struct config_pool *p);
/* Of that: how one pool translates, its limits, times and interfaces. What was filled is conf_policy_done()'s, also on failure. */
int conf_policy(const struct conf_tree *t, const struct conf_section *s, const struct config *c,
		struct config_pool *p, struct errtext *err);
void conf_policy_done(struct config_pool *p);
/* May the pools' interfaces go together? */
int conf_interfaces(const struct conf_tree *t, const struct conf_section *const *sections,
		    const struct config *c, struct errtext *err);
/* Of that: addresses, clients and no-nat of all pools; sections are the pools' own, in order. */
int conf_prefixes(const struct conf_tree *t, const struct conf_section *const *sections,
		  struct config *c, struct errtext *err);

/* Fill c->access and c->leases, with or without their sections. On failure what was filled is config_free()'s. */
int conf_leases(const struct conf_tree *t, struct config *c, struct errtext *err);

/* Likewise c->watch. */
int conf_watch(const struct conf_tree *t, struct config *c, struct errtext *err);
void conf_watch_done(struct config *c);
int conf_watch_reloadable(const struct config *a, const struct config *b, struct errtext *err);

#endif
