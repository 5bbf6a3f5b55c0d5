/* SPDX-License-Identifier: BSD-2-Clause */
/* Maps "zones" and "zone_ways": the interfaces of pools that have their own. */
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#include "dp_internal.h"
#include "nat.skel.h"

struct pair {
	uint32_t key;
	uint32_t value;
};

struct table {
	struct bpf_map *map;
	size_t value_size;
	struct pair *want;
	size_t n;
};

static const struct pair *pair_find(const struct table *t, uint32_t key)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->want[i].key == key)
			return &t->want[i];
	return NULL;
}

/* First what is wanted, then away with the rest. What is there is not written anew: a packet might find it missing meanwhile. 0 or -errno. */
static int table_write(const struct table *t)
{
	int fd = bpf_map__fd(t->map);
	uint32_t key, next, *at = NULL, is;

	for (size_t i = 0; i < t->n; i++) {
		uint16_t half = (uint16_t)t->want[i].value;
		const void *value =
			t->value_size == sizeof(half) ? (const void *)&half : &t->want[i].value;

		if (!bpf_map_lookup_elem(fd, &t->want[i].key, &is) &&
		    !memcmp(&is, value, t->value_size))
			continue;
		if (bpf_map_update_elem(fd, &t->want[i].key, value, BPF_ANY))
			return -errno;
	}
	while (!bpf_map_get_next_key(fd, at, &next)) {
		if (!pair_find(t, next)) {
			bpf_map_delete_elem(fd, &next);
			at = NULL;
			continue;
		}
		key = next;
		at = &key;
	}
	return 0;
}

int dp_zones_set(struct dp *dp, const struct plan *plan, struct errtext *err)
{
	struct table zones = { .map = dp->nat->maps.zones, .value_size = sizeof(uint16_t) };
	struct table ways = { .map = dp->nat->maps.zone_ways, .value_size = sizeof(uint32_t) };
	int r = 0;

	zones.want = calloc(plan->n_zones ?: 1, sizeof(*zones.want));
	ways.want = calloc(plan->n_zones ?: 1, sizeof(*ways.want));
	if (!zones.want || !ways.want) {
		r = errtext_set(err, ENOMEM, "out of memory");
		goto out;
	}
	for (size_t i = 0; i < plan->n_zones; i++) {
		const struct plan_zone *z = &plan->zones[i];
		uint32_t ifindex = if_nametoindex(z->interface), nth = 0;

		if (!ifindex)
			continue;
		while (pair_find(&ways, (uint32_t)z->zone << 8 | nth))
			nth++;
		zones.want[zones.n++] = (struct pair){ ifindex, z->zone };
		ways.want[ways.n++] = (struct pair){ (uint32_t)z->zone << 8 | nth, ifindex };
	}
	r = table_write(&ways);
	if (!r)
		r = table_write(&zones);
	if (r) {
		errtext_set(err, -r, "writing the maps of zones: %s", dp_why(r));
		goto out;
	}
	__atomic_store_n(&dp->conf->zones, (uint32_t)zones.n, __ATOMIC_RELEASE);
out:
	free(zones.want);
	free(ways.want);
	return r;
}
