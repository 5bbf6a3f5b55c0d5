/* SPDX-License-Identifier: BSD-2-Clause */
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "die.h"

#define SLABS_MAX 512

struct slab {
	char name[64];
	uint64_t objects, size;
};

struct slabs {
	struct slab v[SLABS_MAX];
	size_t n;
};

struct slabs *slabs_read(void)
{
	FILE *f = fopen("/proc/slabinfo", "re");
	struct slabs *s = calloc(1, sizeof(*s));
	unsigned long long objects, all, size;
	char line[512];

	if (!s)
		die("out of memory");
	if (!f) {
		free(s);
		return NULL;
	}
	while (s->n < SLABS_MAX && fgets(line, sizeof(line), f)) {
		struct slab *c = &s->v[s->n];

		if (sscanf(line, "%63s %llu %llu %llu", c->name, &objects, &all, &size) != 4)
			continue;
		c->objects = objects;
		c->size = size;
		s->n++;
	}
	fclose(f);
	return s;
}

void slabs_free(struct slabs *s)
{
	free(s);
}

static const struct slab *slab_find(const struct slabs *s, const char *name)
{
	for (size_t i = 0; i < s->n; i++)
		if (!strcmp(s->v[i].name, name))
			return &s->v[i];
	return NULL;
}

uint64_t slabs_grown(const struct slabs *before, const struct slabs *after, uint32_t flows)
{
	uint64_t bytes = 0, grown;
	const struct slab *was;

	for (size_t i = 0; i < after->n; i++) {
		was = slab_find(before, after->v[i].name);
		grown = after->v[i].objects - (was ? was->objects : 0);
		/* What shrank came out huge. */
		if (grown >= flows / 2 && grown < (uint64_t)flows * 16)
			bytes += grown * after->v[i].size;
	}
	return bytes;
}

static double sysctl_number(const char *path)
{
	FILE *f = fopen(path, "re");
	double v = 0;

	if (!f)
		return 0;
	if (fscanf(f, "%lf", &v) != 1)
		v = 0;
	fclose(f);
	return v;
}

double conntrack_array_bytes_per_flow(void)
{
	double buckets = sysctl_number("/proc/sys/net/netfilter/nf_conntrack_buckets");
	double max = sysctl_number("/proc/sys/net/netfilter/nf_conntrack_max");

	return max > 0 ? buckets * sizeof(void *) / max : 0;
}

/* All that one map takes, over its entries. */
static double map_bytes_per_entry(const char *maps, const char *name)
{
	unsigned long long memlock = 0, entries = 0;
	char path[256], line[256];
	FILE *f;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", maps, name);
	fd = bpf_obj_get(path);
	if (fd < 0)
		die("%s: %m", path);
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	if (!f)
		die("%s: %m", path);
	while (fgets(line, sizeof(line), f)) {
		sscanf(line, "memlock: %llu", &memlock);
		sscanf(line, "max_entries: %llu", &entries);
	}
	fclose(f);
	close(fd);
	if (!memlock || !entries)
		die("%s does not tell the size of map %s", path, name);
	return (double)memlock / (double)entries;
}

double tables_bytes_per_flow(const char *maps)
{
	return map_bytes_per_entry(maps, "fwd") + map_bytes_per_entry(maps, "rev");
}
