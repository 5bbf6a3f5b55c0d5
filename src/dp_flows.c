// SPDX-License-Identifier: BSD-2-Clause
/* Sweeping, and reading back: flows, counters, events. */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "clock.h"
#include "dp_internal.h"
#include "nat.skel.h"

/* Sweeping */

int dp_sweep(struct dp *dp, struct sluice_sweep *ret, struct errtext *err)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts);
	uint64_t *spare = dp->use_before;
	int r;

	memset(dp->use_bits, 0, SLUICE_MAX_BLOCKS * sizeof(*dp->use_bits));
	r = bpf_prog_test_run_opts(bpf_program__fd(dp->nat->progs.sweep), &opts);
	if (r)
		return errtext_set(err, errno, "sweeping: %s", dp_why(-errno));
	if (opts.retval)
		return errtext_set(err, EIO, "sweeping: the program returned %d", (int)opts.retval);
	dp->use_before = dp->use;
	dp->use = spare;
	memcpy(dp->use, dp->use_bits, SLUICE_MAX_BLOCKS * sizeof(*dp->use));
	dp->n_sweeps++;
	dp_drain(dp);
	if (ret)
		*ret = *dp->sweep_out;
	return 0;
}

static uint64_t block_used(const struct dp *dp, uint32_t block)
{
	return dp->use[block];
}

static uint64_t block_leased(const struct dp *dp, uint32_t block)
{
	return __atomic_load_n(&dp->blocks[block].leased, __ATOMIC_RELAXED);
}

/* The ports of a held slice that have their bit set in word(), by protocol. */
static void ports_count(const struct dp *dp, uint32_t row,
			uint64_t (*word)(const struct dp *dp, uint32_t block),
			uint32_t ret[SLUICE_L4_MAX])
{
	const struct sluice_slice *s = dp_slice(dp, row);
	uint32_t nports = (uint32_t)s->last - s->first + 1;

	for (uint32_t l4 = 0; l4 < SLUICE_L4_MAX; l4++) {
		ret[l4] = 0;
		if (s->state != SLUICE_SLICE_HELD)
			continue;
		for (uint32_t off = 0; off < nports; off += SLUICE_BLOCK_PORTS)
			ret[l4] += (uint32_t)__builtin_popcountll(
				word(dp, sluice_block_row(s->block_base, nports, l4, off)));
	}
}

void dp_slice_used(const struct dp *dp, uint32_t row, uint32_t ret[SLUICE_L4_MAX])
{
	ports_count(dp, row, block_used, ret);
}

void dp_slice_leased(const struct dp *dp, uint32_t row, uint32_t ret[SLUICE_L4_MAX])
{
	ports_count(dp, row, block_leased, ret);
}

const struct sluice_pool *dp_pool(const struct dp *dp, uint32_t row)
{
	assert(row < SLUICE_MAX_POOLS);
	return &dp->pools[row];
}

const struct sluice_slice *dp_slice(const struct dp *dp, uint32_t row)
{
	assert(row < SLUICE_MAX_SLICES);
	return &dp->slices[row];
}

/* Flows */

/* Entries that one call to the kernel gets; a call returns whole hash buckets. */
#define BATCH 1024

struct dp_flow_cursor {
	struct sluice_flow_key *keys;
	struct sluice_flow *values;
	uint32_t size; /* entries that these have room for */
	uint32_t n;    /* entries that are there ... */
	uint32_t next; /* ... and the first that is not delivered yet */
	uint8_t token[sizeof(struct sluice_flow_key)]; /* where the kernel goes on */
	bool begun, ended;
};

static int cursor_size(struct dp_flow_cursor *c, uint32_t size)
{
	struct sluice_flow_key *keys = calloc(size, sizeof(*keys));
	struct sluice_flow *values = calloc(size, sizeof(*values));

	if (!keys || !values) {
		free(keys);
		free(values);
		return -ENOMEM;
	}
	free(c->keys);
	free(c->values);
	c->keys = keys;
	c->values = values;
	c->size = size;
	return 0;
}

struct dp_flow_cursor *dp_flow_cursor_new(void)
{
	struct dp_flow_cursor *c = calloc(1, sizeof(*c));

	if (c && cursor_size(c, BATCH)) {
		free(c);
		return NULL;
	}
	return c;
}

void dp_flow_cursor_free(struct dp_flow_cursor *c)
{
	if (!c)
		return;
	free(c->keys);
	free(c->values);
	free(c);
}

static int cursor_fill(struct dp *dp, struct dp_flow_cursor *c)
{
	uint8_t token[sizeof(c->token)];
	uint32_t n;
	int r;

	for (;;) {
		n = c->size;
		r = bpf_map_lookup_batch(bpf_map__fd(dp->nat->maps.rev), c->begun ? c->token : NULL,
					 token, c->keys, c->values, &n, NULL);
		if (r == -ENOSPC && !n) {
			/* A bucket with more entries than we have room for. */
			if (c->size > dp->max_flows)
				return -ENOSPC;
			r = cursor_size(c, 2 * c->size);
			if (r)
				return r;
			continue;
		}
		if (r && r != -ENOENT && r != -ENOSPC)
			return r;
		memcpy(c->token, token, sizeof(token));
		c->begun = true;
		c->ended = r == -ENOENT;
		c->n = n;
		c->next = 0;
		return 0;
	}
}

static struct addr addr_from_abi(const union sluice_addr *a)
{
	struct addr ret;

	memcpy(&ret, a, sizeof(ret));
	return ret;
}

/* Join a rev entry with its fwd entry. False: it is no flow, or a dead one. */
static bool flow_read(struct dp *dp, const struct sluice_flow_key *rk, const struct sluice_flow *r,
		      uint64_t now_s, struct dp_flow *ret)
{
	bool eim = r->flags & SLUICE_FLOW_EIM;
	struct sluice_flow_key fk = { 0 };
	const struct sluice_slice *s;
	struct sluice_flow f;
	bool have_f;
	uint64_t ends_s;

	if ((r->flags & (SLUICE_FLOW_PERMIT | SLUICE_FLOW_OWN)) || r->seen_s == SLUICE_DEAD ||
	    r->slice >= SLUICE_MAX_SLICES)
		return false;
	s = dp_slice(dp, r->slice);
	if (s->state != SLUICE_SLICE_HELD || s->epoch != r->epoch)
		return false;
	fk.src = r->addr;
	fk.sport = r->port;
	if (!eim) {
		fk.dst = rk->src;
		fk.dport = rk->sport;
	}
	fk.proto = rk->proto;
	fk.zone = r->zone;
	have_f = !bpf_map_lookup_elem(bpf_map__fd(dp->nat->maps.fwd), &fk, &f) &&
		 f.port == rk->dport && f.slice == r->slice && f.epoch == r->epoch;
	ends_s = sluice_flow_ends_s(rk->proto, r, have_f ? &f : NULL, &dp->pools[s->pool].timers);
	if (ends_s < now_s)
		return false;
	*ret = (struct dp_flow){
		.pool = s->pool,
		.slice = r->slice,
		.proto = rk->proto,
		.local = r->flags & SLUICE_FLOW_LOCAL,
		.eim = eim,
		.inner = addr_from_abi(&r->addr),
		.outer = addr_from_abi(&rk->dst),
		.remote = addr_from_abi(&rk->src),
		.inner_port = ntohs(r->port),
		.outer_port = ntohs(rk->dport),
		.remote_port = ntohs(rk->sport ? rk->sport : r->rport),
		.state = sluice_flow_state(rk->proto, r, have_f ? &f : NULL),
		.expires_s = (uint32_t)(ends_s - now_s),
	};
	return true;
}

int dp_flows_next(struct dp *dp, struct dp_flow_cursor *c, struct dp_flow *ret, size_t n)
{
	uint64_t now_s;
	size_t got = 0;
	int r;

	now_s = clock_boot_ns() / NS_PER_S;
	while (got < n) {
		if (c->next < c->n) {
			got += flow_read(dp, &c->keys[c->next], &c->values[c->next], now_s,
					 &ret[got]);
			c->next++;
			continue;
		}
		if (c->ended)
			break;
		r = cursor_fill(dp, c);
		if (r)
			return r;
	}
	return (int)got;
}

const char *dp_proto_name(uint8_t proto)
{
	switch (proto) {
	case IPPROTO_TCP:
		return dp_l4_name(SLUICE_TCP);
	case IPPROTO_UDP:
		return dp_l4_name(SLUICE_UDP);
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return dp_l4_name(SLUICE_ICMP);
	}
	return "other";
}

const char *dp_flow_state_name(enum sluice_flow_state state)
{
#define SLUICE_X(name, text) text,
	static const char *const names[] = { SLUICE_STATES(SLUICE_X) };
#undef SLUICE_X

	return (size_t)state < sizeof(names) / sizeof(names[0]) ? names[state] : "unknown";
}

/* Counters */

/* Add up the 64-bit words of a per-CPU row. */
static int cpu_sum(const struct dp *dp, const struct bpf_map *map, uint32_t row, void *ret,
		   size_t size)
{
	size_t words = size / sizeof(uint64_t);
	uint64_t *values = calloc((size_t)dp->n_cpus, size);
	uint64_t *sum = ret;
	int r = 0;

	assert(size % sizeof(uint64_t) == 0 && bpf_map__value_size(map) == size);
	if (!values)
		return -ENOMEM;
	if (bpf_map_lookup_elem(bpf_map__fd(map), &row, values)) {
		r = -errno;
	} else {
		memset(sum, 0, size);
		for (size_t cpu = 0; cpu < (size_t)dp->n_cpus; cpu++)
			for (size_t i = 0; i < words; i++)
				sum[i] += values[cpu * words + i];
	}
	free(values);
	return r;
}

int dp_drops(const struct dp *dp, struct sluice_count ret[SLUICE_REASON_MAX])
{
	int r = 0;

	for (uint32_t i = 0; !r && i < SLUICE_REASON_MAX; i++)
		r = cpu_sum(dp, dp->nat->maps.drops, i, &ret[i], sizeof(ret[i]));
	return r;
}

int dp_pool_stats(const struct dp *dp, uint32_t pool, struct sluice_pool_stats *ret)
{
	assert(pool < SLUICE_MAX_POOLS);
	return cpu_sum(dp, dp->nat->maps.pool_stats, pool, ret, sizeof(*ret));
}

int dp_event_stats(const struct dp *dp, struct sluice_event_stats ret[SLUICE_EVENT_ROWS])
{
	int r = 0;

	for (uint32_t i = 0; !r && i < SLUICE_EVENT_ROWS; i++) {
		r = cpu_sum(dp, dp->nat->maps.event_stats, i, &ret[i], sizeof(ret[i]));
		/* The window's two halves were added up as one word: they mean nothing outside of their CPU. */
		ret[i].window_s = 0;
		ret[i].in_window = 0;
	}
	return r;
}

static int hotter(const void *a, const void *b)
{
	const struct dp_hot *x = a, *y = b;

	return (x->refused < y->refused) - (x->refused > y->refused);
}

int dp_hottest(const struct dp *dp, struct dp_hot *ret, size_t n)
{
	struct sluice_full_key *keys = calloc(SLUICE_MAX_HOT, sizeof(*keys));
	struct sluice_hot *values = calloc(SLUICE_MAX_HOT, sizeof(*values));
	struct dp_hot *all = calloc(SLUICE_MAX_HOT, sizeof(*all));
	uint32_t token, count = SLUICE_MAX_HOT;
	int r = -ENOMEM;

	if (keys && values && all)
		r = bpf_map_lookup_batch(bpf_map__fd(dp->nat->maps.hot), NULL, &token, keys, values,
					 &count, NULL);
	/* It has been read to its end, or what came meanwhile has no room: the one is as good as the other. */
	if (!r || r == -ENOENT || (r == -ENOSPC && count)) {
		for (uint32_t i = 0; i < count; i++)
			all[i] = (struct dp_hot){
				.pool = keys[i].slice % SLUICE_MAX_POOLS,
				.l4 = keys[i].l4 % SLUICE_L4_MAX,
				.dst = addr_from_abi(&keys[i].dst),
				.port = ntohs(keys[i].dport),
				.refused = values[i].refused,
				.tried_s = values[i].tried_s,
			};
		qsort(all, count, sizeof(*all), hotter);
		r = (int)(count < n ? count : n);
		memcpy(ret, all, (size_t)r * sizeof(*ret));
	}
	free(keys);
	free(values);
	free(all);
	return r;
}

struct reason {
	const char *name;
	const char *help;
};

static const struct reason reasons[] = {
#define SLUICE_X(name, help) { #name, help },
	SLUICE_REASONS(SLUICE_X)
#undef SLUICE_X
};

const char *dp_reason_name(uint32_t reason)
{
	assert(reason < SLUICE_REASON_MAX);
	return reasons[reason].name;
}

const char *dp_reason_help(uint32_t reason)
{
	assert(reason < SLUICE_REASON_MAX);
	return reasons[reason].help;
}

/* Events */

/* Ends the walk when enough was handed over: what libbpf gets back comes out of ring_buffer__consume(). */
#define ENOUGH (-ECANCELED)

static int event_arrives(void *ctx, void *data, size_t size)
{
	struct dp *dp = ctx;

	if (size >= sizeof(struct sluice_event) && dp->poll.fn) {
		dp->poll.fn(data, dp->poll.arg);
		dp->poll.n++;
	}
	return dp->poll.n >= dp->poll.max ? ENOUGH : 0;
}

int dp_events_open(struct dp *dp, struct errtext *err)
{
	dp->ring = ring_buffer__new(bpf_map__fd(dp->nat->maps.events), event_arrives, dp, NULL);
	if (!dp->ring)
		return errtext_set(err, errno, "opening the event ring: %s", dp_why(-errno));
	return 0;
}

int dp_events_fd(const struct dp *dp)
{
	return ring_buffer__epoll_fd(dp->ring);
}

int dp_events_poll(struct dp *dp, void (*fn)(const struct sluice_event *e, void *arg), void *arg,
		   size_t max)
{
	int r;

	dp->poll.fn = fn;
	dp->poll.arg = arg;
	dp->poll.n = 0;
	dp->poll.max = max;
	if (!max)
		return 0;
	r = ring_buffer__consume(dp->ring);
	if (r < 0 && r != ENOUGH)
		return r;
	return (int)dp->poll.n;
}
