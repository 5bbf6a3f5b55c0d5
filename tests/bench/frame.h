/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What the benchmark's XDP programs and its user space share: which flow is which, what the generator sends, and what
 * the sink counts. Numbers are in host order unless a type says otherwise.
 */
#ifndef BENCH_FRAME_H
#define BENCH_FRAME_H

#include <linux/types.h>

#define BENCH_FRAME_LEN 64 /* from the Ethernet header to the end, without FCS */
#define BENCH_MAGIC     0x5b0c4a11
#define BENCH_MAX_EDGES 8
#define BENCH_MAX_FLOWS 524288

/* RFC 2544's block for measuring stands for the Internet. */
#define BENCH_INNER_NET  0x0a010000u /* 10.1.0.0/16 */
#define BENCH_REMOTE_NET 0xc6120000u /* 198.18.0.0/15 */

/* A quarter of a slice of 2048 ports for each remote end: the search for a port is neither free nor the whole story. */
#define BENCH_FLOWS_PER_REMOTE 512
#define BENCH_INNER_HOSTS      16384
#define BENCH_INNER_PORT       10000
#define BENCH_REMOTE_PORT      4433

enum bench_dir {
	BENCH_OUT, /* from the client to the uplink */
	BENCH_IN,
	BENCH_DIRS,
};

struct bench_tuple {
	__u32 inner, remote;
	__u16 inner_port, remote_port;
};

/* Flow number i: every flow has an inner end of its own. */
static inline struct bench_tuple bench_tuple(__u32 i)
{
	struct bench_tuple t = {
		.inner = BENCH_INNER_NET + 256 + i % BENCH_INNER_HOSTS,
		.remote = BENCH_REMOTE_NET + 1 + i / BENCH_FLOWS_PER_REMOTE,
		.inner_port = BENCH_INNER_PORT + i / BENCH_INNER_HOSTS,
		.remote_port = BENCH_REMOTE_PORT,
	};

	return t;
}

/* The outer end of a flow, as the sink saw it. Row edge * flows_max + flow of map "outer_ends". */
struct bench_outer {
	__be32 addr;
	__be16 port;
	__u16 seen;
};

/* What to send: packets of flows first to first + count - 1, in an order that jumps through them by step. */
struct bench_gen {
	__u32 first, count;
	__u32 at, step; /* step: no common factor with count */
	__u32 row_base;
	__u32 seq, ack; /* TCP */
	__u8 proto;
	__u8 dir;
	__u8 tcp_flags;
	__u8 pad;
	__u8 dst_mac[6], src_mac[6];
};

enum bench_sink_mode {
	BENCH_COUNT,  /* the source lies in the range: what a timed run checks */
	BENCH_RECORD, /* everything is right; note the outer end */
	BENCH_CHECK,  /* everything is right; the outer end is the noted one */
};

struct bench_sink {
	__u32 first_addr, last_addr; /* of the outer end */
	__u16 first_port, last_port;
	__u32 row_base;
	__u32 flows; /* above: not ours */
	__u8 proto;
	__u8 dir;
	__u8 mode;
	__u8 pad;
};

/* What became of a packet of ours: X(name, text) */
#define BENCH_FATES(X)                                              \
	X(right, "right")                                           \
	X(outer, "with an outer end that is not the edge's")        \
	X(ends, "with another end than its flow has")               \
	X(moved, "with another outer end than its flow had before") \
	X(checksum, "with a wrong checksum")

enum bench_fate {
#define BENCH_X(name, text) BENCH_FATE_##name,
	BENCH_FATES(BENCH_X)
#undef BENCH_X
		BENCH_FATE_MAX,
};

struct bench_counts {
	__u64 n[BENCH_FATE_MAX];
};

#endif
