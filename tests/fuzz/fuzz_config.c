/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Any text is read without harm; what is refused is refused with a line; what is accepted keeps the
 * promises of config.h.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PATH "fuzz.conf"

#define REQUIRE(what)                                                              \
	do {                                                                       \
		if (!(what)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
			abort();                                                   \
		}                                                                  \
	} while (0)

static void check_refused(const uint8_t *data, size_t size, const struct errtext *err)
{
	unsigned line = 0, lines = 1;

	for (size_t i = 0; i < size; i++)
		lines += data[i] == '\n';
	REQUIRE(sscanf(err->s, PATH ":%u: ", &line) == 1);
	REQUIRE(line >= 1 && line <= lines);
	for (const char *s = err->s; *s; s++)
		REQUIRE(*s >= ' ' && *s < 0x7f);
}

static void check_pool(const struct config_pool *p)
{
	uint32_t size = p->slice_size;
	bool v4 = false;

	REQUIRE(p->name[0] && strlen(p->name) <= CONFIG_NAME_MAX);
	REQUIRE(size >= CONFIG_SLICE_MIN && size <= CONFIG_SLICE_MAX && !(size & (size - 1)));
	REQUIRE(p->n_addresses >= 1 && p->n_addresses <= SLUICE_MAX_ADDRS);
	for (size_t i = 0; i < p->n_addresses; i++) {
		v4 |= addr_is_v4(&p->addresses[i]);
		REQUIRE(!i || addr_cmp(&p->addresses[i - 1], &p->addresses[i]) < 0);
		for (size_t k = 0; k < p->n_clients; k++)
			REQUIRE(!prefix_contains(&p->clients[k], &p->addresses[i]));
	}
	for (size_t i = 0; i < p->n_clients; i++)
		REQUIRE(v4 && addr_is_v4(&p->clients[i].addr));
	for (size_t i = 0, a = 0; i < p->n_slices; i++) {
		const struct range *r = &p->slices[i];

		REQUIRE(r->first >= CONFIG_PORT_MIN && r->first % size == 0);
		REQUIRE(r->last == r->first + size - 1);
		REQUIRE(!i || !range_overlaps(r - 1, r));
		/* Both are sorted. */
		while (a < p->n_addresses && addr_cmp(&p->addresses[a], &r->addr))
			a++;
		REQUIRE(a < p->n_addresses);
	}
	for (size_t i = 0; i < p->n_tags; i++)
		REQUIRE(strchr(p->tags[i], '='));
}

static void check_accepted(const struct config *c)
{
	size_t addresses = 0, rows = 0, blocks = 0;

	REQUIRE(c->machine[0] && c->state_dir[0] == '/' && c->control[0] == '/');
	REQUIRE(c->bpffs[0] == '/');
	/* A file that only watches has neither. */
	REQUIRE(c->n_uplinks <= CONFIG_UPLINKS_MAX && (c->n_uplinks >= 1 || !c->n_pools));
	REQUIRE(c->n_pools <= SLUICE_MAX_POOLS && c->watch.n_netns <= CONFIG_NETNS_MAX);
	REQUIRE(c->max_flows >= 1024 && c->max_flows <= 16777216 && c->icmp_rate <= 100000);
	REQUIRE(c->fleet.ttl_s != 1 && c->fleet.ttl_s <= 86400);
	for (size_t i = 0; i < c->n_pools; i++) {
		const struct config_pool *p = &c->pools[i];

		check_pool(p);
		addresses += p->n_addresses;
		rows += p->n_addresses * (65536 / p->slice_size);
		blocks += p->n_slices * 3 * (p->slice_size / SLUICE_BLOCK_PORTS);
		for (size_t k = 0; k < i; k++)
			REQUIRE(strcmp(c->pools[k].name, p->name));
	}
	REQUIRE(addresses <= SLUICE_MAX_ADDRS);
	REQUIRE(rows <= SLUICE_MAX_SLICES);
	REQUIRE(blocks <= SLUICE_MAX_BLOCKS);
	REQUIRE(config_reloadable(c, c, NULL) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config *c = NULL;
	struct errtext err = { "" };

	if (config_parse(PATH, (const char *)data, size, &c, &err)) {
		REQUIRE(!c);
		check_refused(data, size, &err);
		return 0;
	}
	REQUIRE(!err.s[0]);
	check_accepted(c);
	config_free(c);
	return 0;
}
