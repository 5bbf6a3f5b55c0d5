/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The measuring rig: edges that differ in how they treat what they forward, each in a network namespace
 * that bench.sh has made, and frames that are put onto an edge's interface as if received there. One rig at a time, one
 * thread. What goes wrong with the rig itself ends the program; what goes wrong with packets is a result.
 */
#ifndef BENCH_RIG_H
#define BENCH_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frame.h"

enum edge_kind {
	EDGE_FORWARD,   /* routes, and nothing else */
	EDGE_CONNTRACK, /* with conntrack */
	EDGE_NFTABLES,  /* with SNAT by nftables */
	EDGE_SLUICE,
};

struct edge_spec {
	const char *
		name; /* namespace slab-bench-NAME; its far ends are lan-NAME and wan-NAME in slab-bench-out */
	const char *label; /* for people */
	enum edge_kind kind;
	uint8_t proto;                  /* IPPROTO_ */
	uint32_t first_addr, last_addr; /* of the outer end, host order */
	uint16_t first_port, last_port;
};

struct rig;

/* Pins the thread to one CPU. specs stay the caller's, and must live as long as the rig. */
struct rig *rig_open(const struct edge_spec *specs, size_t n, uint32_t flows_max);
void rig_close(struct rig *rig);

/* One volley: packets frames, going through the flows first to first + count - 1 again and again. */
struct volley {
	size_t edge;
	enum bench_dir dir;
	enum bench_sink_mode mode;
	uint32_t first, count;
	uint32_t packets;
	uint8_t tcp_flags; /* TCP: the header's flags byte */
	bool in_order;     /* one flow after the other, else jumping */
};

struct volley_result {
	double ns; /* for each packet */
	struct bench_counts counts;
};

/* Fire, and wait until everything has arrived, or does not come any more. True: every packet arrived, and right. */
bool rig_fire(struct rig *rig, const struct volley *v, struct volley_result *ret);
/* What a failed volley lacked, as a text. Valid until the next call. */
const char *rig_explain(const struct volley *v, const struct volley_result *r);

/* How many of the first count flows share their outer end with another one towards the same remote end. */
uint32_t rig_shared_ends(const struct rig *rig, size_t edge, uint32_t count);

#endif
