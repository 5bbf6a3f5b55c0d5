/* SPDX-License-Identifier: BSD-2-Clause */
/* The sections about leases: who may have how many ("access"), and what becomes of them ("leases"). */
#include <stdlib.h>
#include <string.h>

#include "config_internal.h"

#define GROUP_MAX 31

#define LEASES_MAX 65536U
#define PORTS_MAX  4194304U /* as many as all pools can hold, in both protocols */

#define DEFAULT_LEASES_PER_UID 64
#define DEFAULT_COOL_DOWN_S    60
#define DEFAULT_RECORDS_DAYS   30
#define DEFAULT_FAIR_PERCENT   10
#define DEFAULT_CGROUP         "sluice"
#define CGROUP_MAX             64

struct number {
	const char *key;
	uint32_t min, max;
	uint32_t *ret;
};

static int read_numbers(const struct conf_tree *t, const struct conf_section *s,
			const struct number *list, size_t n, struct errtext *err)
{
	int r = 0;

	for (size_t i = 0; i < n && !r; i++) {
		struct conf_at a = conf_at(t, s, list[i].key);

		if (a.value)
			r = conf_uint(&a, list[i].min, list[i].max, list[i].ret, err);
	}
	return r;
}

static int read_access(const struct conf_tree *t, const struct conf_section *s, struct config *c,
		       struct errtext *err)
{
	const struct number numbers[] = {
		{ "leases-per-uid", 0, LEASES_MAX, &c->access.leases_per_uid },
		{ "ports-per-uid", 0, PORTS_MAX, &c->access.ports_per_uid },
		{ "leases-per-cgroup", 0, LEASES_MAX, &c->access.leases_per_cgroup },
	};
	struct conf_at group = conf_at(t, s, "group");

	if (group.value) {
		/* Whether the group exists is asked when the socket is made. */
		const char *g = group.value->s;

		if (!*g || strlen(g) > GROUP_MAX || *g == '-' || strpbrk(g, ":,/ "))
			return CONF_BAD(
				&group, err,
				"cannot be the name of a group; allowed are 1 to %d characters "
				"without blanks, comma, / and :",
				GROUP_MAX);
		c->access.group = strdup(g);
		if (!c->access.group)
			return conf_nomem(err);
	}
	return read_numbers(t, s, numbers, sizeof(numbers) / sizeof(numbers[0]), err);
}

/* A directory of its own below the root of cgroup2. */
static bool cgroup_ok(const char *s)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789._-";
	size_t n = strspn(s, allowed);

	return n && n <= CGROUP_MAX && !s[n] && strcmp(s, ".") && strcmp(s, "..");
}

static int read_leases(const struct conf_tree *t, const struct conf_section *s, struct config *c,
		       struct errtext *err)
{
	const struct number numbers[] = {
		{ "cool-down", 0, 3600, &c->leases.cool_down_s },
		{ "records", 1, 3650, &c->leases.records_days },
		{ "fair-share", 0, 100, &c->leases.fair_percent },
	};
	struct conf_at cgroup = conf_at(t, s, "cgroup");

	if (cgroup.value) {
		if (!cgroup_ok(cgroup.value->s))
			return CONF_BAD(
				&cgroup, err,
				"cannot be the name of a control group; allowed are 1 to %d of "
				"the characters A-Z a-z 0-9 . _ -, but not . and ..",
				CGROUP_MAX);
		free(c->leases.cgroup);
		c->leases.cgroup = strdup(cgroup.value->s);
		if (!c->leases.cgroup)
			return conf_nomem(err);
	}
	return read_numbers(t, s, numbers, sizeof(numbers) / sizeof(numbers[0]), err);
}

int conf_leases(const struct conf_tree *t, struct config *c, struct errtext *err)
{
	const struct conf_section *access = conf_section(t, "access"),
				  *leases = conf_section(t, "leases");
	int r = 0;

	c->access.leases_per_uid = DEFAULT_LEASES_PER_UID;
	c->leases.cool_down_s = DEFAULT_COOL_DOWN_S;
	c->leases.records_days = DEFAULT_RECORDS_DAYS;
	c->leases.fair_percent = DEFAULT_FAIR_PERCENT;
	c->leases.cgroup = strdup(DEFAULT_CGROUP);
	if (!c->leases.cgroup)
		return conf_nomem(err);
	if (access)
		r = read_access(t, access, c, err);
	if (!r && leases)
		r = read_leases(t, leases, c, err);
	return r;
}
