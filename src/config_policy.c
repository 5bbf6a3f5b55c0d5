/* SPDX-License-Identifier: BSD-2-Clause */
/* How a pool translates: mapping, filtering, limits, times, and what is changed in packets besides. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config_internal.h"

/* RFC 4787 REQ-5, RFC 5382 REQ-5, RFC 5508 REQ-2, RFC 7857 2. */
const struct sluice_timers config_timers_default = {
	.tcp_established = 7440,
	.tcp_opening = 240,
	.tcp_closing = 240,
	.tcp_time_wait = 120,
	.tcp_reset = 240,
	.udp = 300,
	.udp_short = 30,
	.icmp = 60,
};

/* With short-timers = true: below what the RFCs ask for, for pools where ports are scarcer than patience. */
static const struct sluice_timers timers_short = {
	.tcp_established = 1800,
	.tcp_opening = 30,
	.tcp_closing = 30,
	.tcp_time_wait = 60,
	.tcp_reset = 10,
	.udp = 60,
	.udp_short = 15,
	.icmp = 30,
};

static int read_choices(const struct conf_tree *t, const struct conf_section *s,
			struct config_pool *p, struct errtext *err)
{
	static const struct conf_choice mappings[] = {
		{ "overload", SLUICE_OVERLOAD },
		{ "endpoint-independent", SLUICE_EIM },
		{ NULL },
	};
	static const struct conf_choice filterings[] = {
		{ "endpoint-independent", SLUICE_FILTER_NONE },
		{ "address-dependent", SLUICE_FILTER_ADDRESS },
		{ "address-port-dependent", SLUICE_FILTER_PORT },
		{ NULL },
	};
	static const struct conf_choice unleased[] = {
		{ "allow", SLUICE_UNLEASED_ALLOW },
		{ "report", SLUICE_UNLEASED_REPORT },
		{ "deny", SLUICE_UNLEASED_DENY },
		{ NULL },
	};
	static const struct conf_choice pairings[] = {
		{ "paired", true },
		{ "arbitrary", false },
		{ NULL },
	};
	static const struct conf_choice ids[] = {
		{ "slice", SLUICE_ID_SLICE },
		{ "set-df", SLUICE_ID_SET_DF },
		{ "keep", SLUICE_ID_KEEP },
		{ NULL },
	};
	enum { TCP, UDP, FILTERING, TCP_FILTERING, UDP_FILTERING, UNLEASED, PAIRING, IDS, KEYS };
	static const struct {
		const char *key;
		const struct conf_choice *choices;
	} keys[KEYS] = {
		[TCP] = { "tcp-mapping", mappings },
		[UDP] = { "udp-mapping", mappings },
		[FILTERING] = { "filtering", filterings },
		[TCP_FILTERING] = { "tcp-filtering", filterings },
		[UDP_FILTERING] = { "udp-filtering", filterings },
		[UNLEASED] = { "unleased", unleased },
		[PAIRING] = { "pairing", pairings },
		[IDS] = { "ipv4-id", ids },
	};
	int v[KEYS] = {
		[TCP] = SLUICE_OVERLOAD,
		[UDP] = SLUICE_EIM,
		[FILTERING] = SLUICE_FILTER_ADDRESS,
		[UNLEASED] = SLUICE_UNLEASED_REPORT,
		[PAIRING] = true,
		[IDS] = SLUICE_ID_SLICE,
	};
	int rc;

	for (size_t i = 0; i < KEYS; i++) {
		struct conf_at a = conf_at(t, s, keys[i].key);

		rc = a.value ? conf_choose(&a, keys[i].choices, &v[i], err) : 0;
		if (rc)
			return rc;
		if (i == FILTERING)
			v[TCP_FILTERING] = v[UDP_FILTERING] = v[FILTERING];
	}
	p->mapping[SLUICE_TCP] = (enum sluice_mapping)v[TCP];
	p->mapping[SLUICE_UDP] = (enum sluice_mapping)v[UDP];
	p->mapping[SLUICE_ICMP] = SLUICE_EIM;
	p->filtering[SLUICE_TCP] = (enum sluice_filtering)v[TCP_FILTERING];
	p->filtering[SLUICE_UDP] = (enum sluice_filtering)v[UDP_FILTERING];
	p->filtering[SLUICE_ICMP] = SLUICE_FILTER_ADDRESS;
	p->unleased = (enum sluice_unleased)v[UNLEASED];
	p->paired = v[PAIRING];
	p->ipv4_id = (enum sluice_id_mode)v[IDS];
	return 0;
}

static int read_switches(const struct conf_tree *t, const struct conf_section *s,
			 struct config_pool *p, struct errtext *err)
{
	const struct {
		const char *key;
		bool fallback, *ret;
	} switches[] = {
		{ "hairpin", true, &p->hairpin },
		{ "inbound-refresh", false, &p->inbound_refresh },
		{ "short-timers", false, &p->short_timers },
	};
	int rc = 0;

	for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]) && !rc; i++) {
		struct conf_at a = conf_at(t, s, switches[i].key);

		*switches[i].ret = switches[i].fallback;
		if (a.value)
			rc = conf_bool(&a, switches[i].ret, err);
	}
	return rc;
}

static int read_limits(const struct conf_tree *t, const struct conf_section *s,
		       struct config_pool *p, struct errtext *err)
{
	const struct {
		const char *key;
		uint32_t min, max, *ret;
	} limits[] = {
		{ "ports-per-client", 0, UINT16_MAX, &p->ports_per_client },
		{ "states-per-client", 0, CONFIG_STATES_MAX, &p->states_per_client },
		{ "flows-per-second", 0, CONFIG_RATE_MAX, &p->flows_per_second },
		{ "flows-burst", 1, CONFIG_RATE_MAX, &p->flows_burst },
	};
	struct conf_at burst = conf_at(t, s, "flows-burst");
	int rc = 0;

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]) && !rc; i++) {
		struct conf_at a = conf_at(t, s, limits[i].key);

		*limits[i].ret = 0;
		if (a.value)
			rc = conf_uint(&a, limits[i].min, limits[i].max, limits[i].ret, err);
	}
	if (rc)
		return rc;
	if (burst.value && !p->flows_per_second)
		return CONF_BAD(&burst, err,
				"has no rate to go with; allowed is flows-burst beside "
				"flows-per-second = 1 to %d",
				CONFIG_RATE_MAX);
	if (burst.value && p->flows_burst > (uint64_t)p->flows_per_second * SLUICE_BURST_MAX_S)
		return CONF_BAD(&burst, err, "is more than %d seconds' worth; allowed are 1 to %u",
				SLUICE_BURST_MAX_S,
				p->flows_per_second < CONFIG_RATE_MAX / SLUICE_BURST_MAX_S
					? p->flows_per_second * SLUICE_BURST_MAX_S
					: CONFIG_RATE_MAX);
	if (!burst.value)
		p->flows_burst = p->flows_per_second;
	return 0;
}

static int read_timers(const struct conf_tree *t, const struct conf_section *s,
		       struct config_pool *p, struct errtext *err)
{
	struct sluice_timers *to = &p->timers;
	/* What the RFCs say that a time MUST NOT fall below. RFC 4787 REQ-5 lets well-known ports have less. */
	const struct {
		const char *key, *rule;
		uint32_t floor_s, *ret;
	} timers[] = {
		{ "tcp-established", "RFC 5382 REQ-5", 7440, &to->tcp_established },
		{ "tcp-opening", "RFC 5382 REQ-5", 240, &to->tcp_opening },
		{ "tcp-closing", "RFC 5382 REQ-5", 240, &to->tcp_closing },
		{ "tcp-time-wait", "RFC 6888 REQ-8", 120, &to->tcp_time_wait },
		{ "tcp-reset", "RFC 7857 2.1", 240, &to->tcp_reset },
		{ "udp-timeout", "RFC 4787 REQ-5", 120, &to->udp },
		{ "udp-short-timeout", NULL, 1, &to->udp_short },
		{ "icmp-timeout", "RFC 5508 REQ-2", 60, &to->icmp },
	};
	int rc;

	*to = p->short_timers ? timers_short : config_timers_default;
	p->udp_reuse_s = p->short_timers ? 0 : CONFIG_UDP_REUSE_S;
	for (size_t i = 0; i < sizeof(timers) / sizeof(timers[0]); i++) {
		struct conf_at a = conf_at(t, s, timers[i].key);

		if (!a.value)
			continue;
		rc = conf_uint(&a, 1, CONFIG_TIMER_MAX_S, timers[i].ret, err);
		if (rc)
			return rc;
		if (*timers[i].ret < timers[i].floor_s && !p->short_timers)
			return CONF_BAD(&a, err,
					"is shorter than %s demands; allowed are %u to %d seconds, "
					"or less with short-timers = true",
					timers[i].rule, timers[i].floor_s, CONFIG_TIMER_MAX_S);
	}
	return 0;
}

static int read_mss(const struct conf_tree *t, const struct conf_section *s, struct config_pool *p,
		    struct errtext *err)
{
	struct conf_at a = conf_at(t, s, "mss-clamp");
	uint32_t mss = 0;

	p->mss_clamp = 0;
	if (!a.value)
		return 0;
	if (!strcmp(a.value->s, "auto")) {
		p->mss_clamp = SLUICE_MSS_AUTO;
		return 0;
	}
	if (conf_uint(&a, 0, CONFIG_MSS_MAX, &mss, err) || (mss && mss < CONFIG_MSS_MIN))
		return CONF_BAD(&a, err,
				"is no maximum segment size; allowed are \"auto\" (what the "
				"uplink's MTU has room for), %d to %d, and 0 (left alone)",
				CONFIG_MSS_MIN, CONFIG_MSS_MAX);
	p->mss_clamp = (uint16_t)mss;
	return 0;
}

static int read_interfaces(const struct conf_tree *t, const struct conf_section *s,
			   const struct config *c, struct config_pool *p, struct errtext *err)
{
	const struct conf_key *key = conf_key(s, "interfaces");

	if (!key->line)
		return 0;
	if (!key->n_values)
		return conf_bad(t->path, key->line, key->name, "", err,
				"is empty; allowed are 1 to %d names of interfaces that clients "
				"come in by, or no such key, for all",
				CONFIG_INTERFACES_MAX);
	p->interfaces = calloc(key->n_values, sizeof(*p->interfaces));
	if (!p->interfaces)
		return conf_nomem(err);
	for (size_t i = 0; i < key->n_values; i++) {
		struct conf_at a = { t->path, key->name, key->values[i] };
		int rc = conf_ifname(&a, err);

		if (rc)
			return rc;
		for (size_t k = 0; k < p->n_interfaces; k++)
			if (!strcmp(p->interfaces[k], a.value->s))
				return CONF_BAD(&a, err,
						"is given twice, first in line %u; allowed is once",
						key->values[k]->line);
		for (size_t k = 0; k < c->n_uplinks; k++)
			if (!strcmp(c->uplinks[k], a.value->s))
				return CONF_BAD(&a, err,
						"is an uplink; allowed are interfaces that "
						"clients come in by");
		if (p->n_interfaces == CONFIG_INTERFACES_MAX)
			return CONF_BAD(&a, err, "is one interface too many; allowed are %d",
					CONFIG_INTERFACES_MAX);
		p->interfaces[p->n_interfaces] = strdup(a.value->s);
		if (!p->interfaces[p->n_interfaces])
			return conf_nomem(err);
		p->n_interfaces++;
	}
	return 0;
}

int conf_policy(const struct conf_tree *t, const struct conf_section *s, const struct config *c,
		struct config_pool *p, struct errtext *err)
{
	int rc;

	rc = read_choices(t, s, p, err);
	if (!rc)
		rc = read_switches(t, s, p, err);
	if (!rc)
		rc = read_limits(t, s, p, err);
	if (!rc)
		rc = read_timers(t, s, p, err);
	if (!rc)
		rc = read_mss(t, s, p, err);
	if (!rc)
		rc = read_interfaces(t, s, c, p, err);
	return rc;
}

static bool has_interface(const struct config_pool *p, const char *name)
{
	for (size_t i = 0; i < p->n_interfaces; i++)
		if (!strcmp(p->interfaces[i], name))
			return true;
	return false;
}

bool config_same_interfaces(const struct config_pool *a, const struct config_pool *b)
{
	if (a->n_interfaces != b->n_interfaces)
		return false;
	for (size_t i = 0; i < a->n_interfaces; i++)
		if (!has_interface(b, a->interfaces[i]))
			return false;
	return true;
}

int conf_interfaces(const struct conf_tree *t, const struct conf_section *const *sections,
		    const struct config *c, struct errtext *err)
{
	for (size_t i = 0; i < c->n_pools; i++) {
		const struct config_pool *p = &c->pools[i];

		for (size_t k = 0; k < i; k++) {
			if (config_same_interfaces(p, &c->pools[k]))
				continue;
			for (size_t n = 0; n < p->n_interfaces; n++) {
				struct conf_at a = {
					t->path, "interfaces",
					conf_key(sections[i], "interfaces")->values[n]
				};

				if (has_interface(&c->pools[k], p->interfaces[n]))
					return CONF_BAD(
						&a, err,
						"is one of pool \"%s\" as well, which has "
						"others; allowed are pools whose interfaces "
						"are all the same, or all different",
						c->pools[k].name);
			}
		}
	}
	return 0;
}

void conf_policy_done(struct config_pool *p)
{
	for (size_t i = 0; i < p->n_interfaces; i++)
		free(p->interfaces[i]);
	free(p->interfaces);
}
