/* SPDX-License-Identifier: BSD-2-Clause */
/* What source NAT rules can do to slices, clients and sockets. See natrules.h. */
#include "natrules.h"

#include <stdio.h>
#include <string.h>

/* What conntrack draws from when it has to give a port way, and no rule says otherwise (net/netfilter/nf_nat_core.c). */
#define DRAWN_FIRST 1024
#define DRAWN_LAST  65535

static const char *ports_text(const struct natrule *r, char buf[48])
{
	if (!r->ports)
		snprintf(buf, 48, "any port");
	else if (r->from == r->to)
		snprintf(buf, 48, "port %u", r->from);
	else
		snprintf(buf, 48, "ports %u-%u", r->from, r->to);
	return buf;
}

static bool translates_to(const struct natrule *r, const struct addr *a)
{
	return r->known && addr_cmp(&r->first, a) <= 0 && addr_cmp(a, &r->last) <= 0;
}

static bool ports_meet(const struct natrule *r, uint16_t first, uint16_t last)
{
	uint16_t from = r->ports ? r->from : DRAWN_FIRST, to = r->ports ? r->to : DRAWN_LAST;

	return from <= last && first <= to;
}

static bool leaves_by_uplink(const struct natrule *r, const struct config *c)
{
	if (!r->n_oif)
		return true;
	for (size_t i = 0; i < r->n_oif; i++) {
		size_t len = strlen(r->oif[i]);

		for (size_t k = 0; k < c->n_uplinks; k++)
			if (!strcmp(r->oif[i], c->uplinks[k]) ||
			    (len && r->oif[i][len - 1] == '*' &&
			     !strncmp(r->oif[i], c->uplinks[k], len - 1)))
				return true;
	}
	return false;
}

static bool family_fits(const struct natrule *r, const struct addr *a)
{
	return addr_is_v4(a) ? r->v4 : r->v6;
}

static bool catches(const struct natrule *r, const struct prefix *p)
{
	if (!family_fits(r, &p->addr))
		return false;
	for (size_t i = 0; i < r->n_src; i++)
		if (prefix_overlaps(&r->src[i], p))
			return true;
	return !r->n_src;
}

static void judge_slices(const struct natrule *r, const struct config_pool *pool,
			 struct findings *out)
{
	char ports[48], range[RANGE_STRLEN], addr[ADDR_STRLEN];

	for (size_t i = 0; i < pool->n_slices; i++) {
		const struct range *s = &pool->slices[i];

		if (!translates_to(r, &s->addr) || !ports_meet(r, s->first, s->last))
			continue;
		findings_add(out, "nat.slices", FINDING_WARN,
			     "take the rule out and name its sources in the pool's clients; or let "
			     "it translate to ports "
			     "outside of every slice",
			     "rule %s translates to %s, %s: conntrack gives out ports of slice %s "
			     "of pool \"%s\" without "
			     "knowing who has them, and rewrites the packets of sockets that it "
			     "runs into",
			     r->where, addr_format(&s->addr, addr), ports_text(r, ports),
			     range_format(s, range), pool->name);
		return;
	}
	for (size_t i = 0; i < pool->n_addresses; i++) {
		if (!translates_to(r, &pool->addresses[i]))
			continue;
		findings_add(out, "nat.slices", FINDING_WARN,
			     "take the rule out and name its sources in the pool's clients",
			     "rule %s translates to %s, %s: none of them is of a slice of this "
			     "machine, so the guard drops "
			     "these packets (escape)",
			     r->where, addr_format(&pool->addresses[i], addr),
			     ports_text(r, ports));
		return;
	}
}

static void judge_pool(const struct natrule *r, const struct config *c,
		       const struct config_pool *pool, struct findings *out)
{
	char text[PREFIX_STRLEN], addr[ADDR_STRLEN];

	judge_slices(r, pool, out);
	if (!leaves_by_uplink(r, c))
		return;
	for (size_t i = 0; i < pool->n_clients; i++) {
		if (!catches(r, &pool->clients[i]))
			continue;
		findings_add(out, "nat.clients", FINDING_WARN,
			     "let the rule leave these sources alone",
			     "rule %s catches clients of pool \"%s\" (%s) as well: they are "
			     "translated before sluice sees "
			     "them, and leave with another address than the pool's",
			     r->where, pool->name, prefix_format(&pool->clients[i], text));
		break;
	}
	for (size_t i = 0; i < pool->n_addresses; i++) {
		const struct prefix host = { pool->addresses[i], 128 };

		if (!catches(r, &host) || translates_to(r, &host.addr))
			continue;
		findings_add(out, "nat.sockets", FINDING_WARN,
			     "put before it a rule that accepts packets from the pools' addresses",
			     "rule %s catches what this machine's sockets send from %s of pool "
			     "\"%s\": they would leave with "
			     "another address",
			     r->where, addr_format(&host.addr, addr), pool->name);
		break;
	}
}

static bool of_a_pool(const struct natrule *r, const struct config *c)
{
	for (size_t i = 0; c && i < c->n_pools; i++)
		for (size_t k = 0; k < c->pools[i].n_addresses; k++)
			if (translates_to(r, &c->pools[i].addresses[k]))
				return true;
	return false;
}

void natrules_judge(const struct natrules *rules, const struct config *c, uint16_t first,
		    uint16_t last, struct findings *out)
{
	size_t unreadable = 0;
	char ports[48];

	for (size_t i = 0; i < rules->n; i++) {
		const struct natrule *r = &rules->v[i];

		if (r->kind == NATRULE_UNREADABLE) {
			unreadable++;
			continue;
		}
		for (size_t k = 0; c && k < c->n_pools; k++)
			judge_pool(r, c, &c->pools[k], out);
		if (last && r->v4 && !of_a_pool(r, c) && ports_meet(r, first, last))
			findings_add(
				out, "nat.ephemeral", FINDING_INFO,
				"let it translate to ports outside of net.ipv4.ip_local_port_range",
				"rule %s translates to %s of an address that sockets of this "
				"machine may use too: those to "
				"which the kernel gives ports (%u-%u) can be rewritten when they "
				"meet a translated flow",
				r->where, ports_text(r, ports), first, last);
	}
	if (unreadable)
		findings_add(out, "nat.unreadable", FINDING_INFO,
			     "read them with iptables-save -t nat",
			     "%zu NAT rules use extensions of iptables that nftables does not show",
			     unreadable);
	if (rules->left_out)
		findings_add(out, "nat.unreadable", FINDING_INFO, NULL,
			     "%zu further rules of source NAT were not looked at", rules->left_out);
}
