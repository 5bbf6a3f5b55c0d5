/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The benchmark: what a packet costs on edges that forward, with conntrack, with nftables SNAT, and with sluice. It is
 * started by bench.sh, which makes the edges. README.md says what is measured and how.
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "die.h"
#include "memory.h"
#include "report.h"
#include "rig.h"

#define SIZES_MAX  8
#define CHUNKS_MIN 5
#define CHUNK_MAX  20000
#define WARM_MAX   50000
#define TCP_SYN    0x02
#define TCP_ACK    0x10

#define IP(a, b, c, d) ((uint32_t)(a) << 24 | (b) << 16 | (c) << 8 | (d))

/* Addresses and ports as in bench.sh. What is not translated keeps its inner end. */
#define INNER .first_addr = IP(10, 1, 0, 0), .last_addr = IP(10, 1, 255, 255), .last_port = 65535
#define ONE   .first_addr = IP(203, 0, 113, 7), .last_addr = IP(203, 0, 113, 7)
#define SLICE ONE, .first_port = 40960, .last_port = 43007
#define SIXTEEN                                                                                  \
	.first_addr = IP(203, 0, 113, 16), .last_addr = IP(203, 0, 113, 31), .first_port = 2048, \
	.last_port = 65535

static const struct edge_spec edges[] = {
	{ "plain", "forwarding", EDGE_FORWARD, IPPROTO_UDP, INNER },
	{ "ct", "conntrack", EDGE_CONNTRACK, IPPROTO_UDP, INNER },
	{ "nft", "nftables SNAT", EDGE_NFTABLES, IPPROTO_UDP, SLICE },
	{ "over", "sluice overload", EDGE_SLUICE, IPPROTO_UDP, SLICE },
	{ "eim", "sluice endpoint-independent", EDGE_SLUICE, IPPROTO_UDP, SIXTEEN },
	{ "tplain", "forwarding", EDGE_FORWARD, IPPROTO_TCP, INNER },
	{ "tnft", "nftables SNAT", EDGE_NFTABLES, IPPROTO_TCP, SLICE },
	{ "tover", "sluice overload", EDGE_SLUICE, IPPROTO_TCP, SLICE },
};
#define N_EDGES (sizeof(edges) / sizeof(edges[0]))
_Static_assert(N_EDGES <= BENCH_MAX_EDGES, "edges");

struct bench {
	struct rig *rig;
	struct report *report;
	uint32_t sizes[SIZES_MAX]; /* rising */
	size_t n_sizes;
	uint32_t packets, repeat;
	uint32_t flows[N_EDGES]; /* made so far */
	bool broken[N_EDGES];    /* it lost flows or packets: nothing more is measured there */
	uint64_t slab_bytes[N_EDGES], slab_flows[N_EDGES];
};

void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("bench: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(2);
}

static bool is_tcp(size_t edge)
{
	return edges[edge].proto == IPPROTO_TCP;
}

/* Fire; when that fails, note why in the series and give the edge up. */
static bool fire(struct bench *b, const struct volley *v, struct series *s, double *ret_ns)
{
	struct volley_result res;

	if (!rig_fire(b->rig, v, &res)) {
		series_fail(s, rig_explain(v, &res));
		b->broken[v->edge] = true;
		return false;
	}
	if (ret_ns)
		*ret_ns = res.ns;
	return true;
}

/* Make some more flows on an edge. With a series, note what it cost. */
static void begin_flows(struct bench *b, size_t edge, uint32_t count, struct series *s)
{
	bool timed = s->what == SERIES_NEW;
	struct volley v = {
		.edge = edge,
		.dir = BENCH_OUT,
		.mode = BENCH_COUNT,
		.first = b->flows[edge],
		.count = count,
		.packets = count,
		.tcp_flags = is_tcp(edge) ? TCP_SYN : 0,
		.in_order = true,
	};
	struct slabs *before = timed ? slabs_read() : NULL, *after;
	double ns;

	if (fire(b, &v, s, &ns)) {
		if (timed)
			series_add(s, ns);
		b->flows[edge] += count;
		after = before ? slabs_read() : NULL;
		if (after) {
			b->slab_bytes[edge] += slabs_grown(before, after, count);
			b->slab_flows[edge] += count;
		}
		slabs_free(after);
	}
	slabs_free(before);
}

/*
 * Every flow sends and is answered, and every packet is looked at closely. TCP: the rest of the handshake. The outer ends that were
 * seen are where answers go from now on.
 */
static void answer_flows(struct bench *b, size_t edge, uint32_t from, uint32_t to, struct series *s)
{
	struct volley v = {
		.edge = edge,
		.mode = BENCH_RECORD,
		.first = from,
		.count = to - from,
		.packets = to - from,
		.tcp_flags = is_tcp(edge) ? TCP_SYN : 0,
	};
	char why[128];
	uint32_t shared;

	if (!fire(b, &v, s, NULL))
		return;
	v.mode = BENCH_CHECK;
	v.dir = BENCH_IN;
	v.tcp_flags = is_tcp(edge) ? TCP_SYN | TCP_ACK : 0;
	if (!fire(b, &v, s, NULL))
		return;
	v.dir = BENCH_OUT;
	v.tcp_flags = is_tcp(edge) ? TCP_ACK : 0;
	if (!fire(b, &v, s, NULL))
		return;
	shared = rig_shared_ends(b->rig, edge, to);
	if (shared) {
		snprintf(why, sizeof(why), "%u flows share their outer end with another one",
			 shared);
		series_fail(s, why);
		b->broken[edge] = true;
	}
}

/* Bring every edge from one number of flows to the next, taking turns. */
static void grow(struct bench *b, uint32_t from, uint32_t to)
{
	uint32_t chunks = from ? (to - from + CHUNK_MAX - 1) / CHUNK_MAX : 1, upto;
	struct series *s;

	if (from && chunks < CHUNKS_MIN)
		chunks = CHUNKS_MIN;
	for (uint32_t c = 1; c <= chunks; c++) {
		upto = from + (uint32_t)((uint64_t)(to - from) * c / chunks);
		for (size_t e = 0; e < N_EDGES; e++) {
			/* The first few are not worth a measure, and plain forwarding knows no flows. */
			bool timed = from && edges[e].kind != EDGE_FORWARD;

			s = report_series(b->report, e, timed ? SERIES_NEW : SERIES_OUT, to);
			if (!b->broken[e])
				begin_flows(b, e, upto - b->flows[e], s);
		}
	}
	for (size_t e = 0; e < N_EDGES; e++)
		if (!b->broken[e])
			answer_flows(b, e, from, to, report_series(b->report, e, SERIES_OUT, to));
}

static void sample(struct bench *b, size_t edge, enum bench_dir dir, uint32_t flows)
{
	struct series *s =
		report_series(b->report, edge, dir == BENCH_OUT ? SERIES_OUT : SERIES_IN, flows);
	struct volley v = {
		.edge = edge,
		.dir = dir,
		.mode = BENCH_COUNT,
		.count = flows,
		.packets = flows,
		.tcp_flags = is_tcp(edge) ? TCP_ACK : 0,
	};
	double ns;

	if (b->broken[edge]) {
		series_fail(s, "this edge had failed before");
		return;
	}
	/* What can fit into the caches is there, as it would be if this edge were alone. */
	if (flows <= WARM_MAX && !fire(b, &v, s, NULL))
		return;
	v.packets = b->packets;
	if (fire(b, &v, s, &ns))
		series_add(s, ns);
}

/* After the samples: does every flow still have the translation that it had before? */
static void check_flows(struct bench *b, size_t edge, uint32_t flows)
{
	for (int dir = 0; dir < BENCH_DIRS && !b->broken[edge]; dir++) {
		struct volley v = {
			.edge = edge,
			.dir = dir,
			.mode = BENCH_CHECK,
			.count = flows,
			.packets = flows,
			.tcp_flags = is_tcp(edge) ? TCP_ACK : 0,
		};

		fire(b, &v,
		     report_series(b->report, edge, dir == BENCH_OUT ? SERIES_OUT : SERIES_IN,
				   flows),
		     NULL);
	}
}

static void measure(struct bench *b, uint32_t from, uint32_t flows)
{
	fprintf(stderr, "%u flows: beginning them", flows);
	grow(b, from, flows);
	for (uint32_t rep = 0; rep < b->repeat; rep++) {
		fprintf(stderr, "%s%u", rep ? ", " : "; sample ", rep + 1);
		for (int dir = 0; dir < BENCH_DIRS; dir++)
			for (size_t e = 0; e < N_EDGES; e++)
				sample(b, e, dir, flows);
	}
	for (size_t e = 0; e < N_EDGES; e++)
		check_flows(b, e, flows);
	fprintf(stderr, "\n");
}

static void measure_memory(struct bench *b)
{
	char maps[128];

	for (size_t e = 0; e < N_EDGES; e++) {
		if (edges[e].kind == EDGE_SLUICE) {
			snprintf(maps, sizeof(maps), "/sys/fs/bpf/slab-bench-%s/maps",
				 edges[e].name);
			report_memory(b->report, e, tables_bytes_per_flow(maps));
		} else if (b->slab_bytes[e]) {
			report_memory(b->report, e,
				      (double)b->slab_bytes[e] / (double)b->slab_flows[e] +
					      conntrack_array_bytes_per_flow());
		}
	}
}

static uint32_t parse_number(const char *what, const char *text, char **ret_end, uint32_t min,
			     uint32_t max)
{
	unsigned long v;

	errno = 0;
	v = strtoul(text, ret_end, 10);
	if (errno || *ret_end == text || v < min || v > max)
		die("%s: \"%s\" is not a number from %u to %u", what, text, min, max);
	return (uint32_t)v;
}

static uint32_t parse_whole(const char *what, const char *text, uint32_t min, uint32_t max)
{
	char *end;
	uint32_t v = parse_number(what, text, &end, min, max);

	if (*end)
		die("%s: \"%s\" is not a number", what, text);
	return v;
}

/* "1000,40000": rising. */
static void parse_sizes(struct bench *b, const char *text)
{
	uint32_t least = 100;
	char *end;

	for (b->n_sizes = 0;; text = end + 1) {
		if (b->n_sizes == SIZES_MAX)
			die("--flows: at most %d numbers", SIZES_MAX);
		least = parse_number("--flows", text, &end, least, BENCH_MAX_FLOWS);
		b->sizes[b->n_sizes++] = least++;
		if (!*end)
			return;
		if (*end != ',')
			die("--flows: \"%s\" is not a list of rising numbers with commas", text);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "flows", required_argument, NULL, 'f' },
		{ "packets", required_argument, NULL, 'p' },
		{ "repeat", required_argument, NULL, 'r' },
		{ "json", required_argument, NULL, 'j' },
		{ 0 },
	};
	struct bench b = { .packets = 100000, .repeat = 5 };
	const char *json = NULL;
	struct utsname un;
	size_t failures;
	int opt;

	parse_sizes(&b, "1000,40000,200000,500000");
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'f':
			parse_sizes(&b, optarg);
			break;
		case 'p':
			b.packets = parse_whole("--packets", optarg, 1000, 100000000);
			break;
		case 'r':
			b.repeat = parse_whole("--repeat", optarg, 1, REPORT_SAMPLES_MAX);
			break;
		case 'j':
			json = optarg;
			break;
		default:
			die("usage: bench [--flows N,N...] [--packets N] [--repeat N] [--json "
			    "FILE]");
		}
	}
	b.report = report_new(edges, N_EDGES);
	b.rig = rig_open(edges, N_EDGES, b.sizes[b.n_sizes - 1]);
	for (size_t i = 0; i < b.n_sizes; i++)
		measure(&b, i ? b.sizes[i - 1] : 0, b.sizes[i]);
	measure_memory(&b);

	uname(&un);
	printf("Linux %s, one CPU, frames of %d bytes, %u samples of %u packets\n", un.release,
	       BENCH_FRAME_LEN, b.repeat, b.packets);
	report_print(b.report);
	if (json)
		report_write_json(b.report, json);
	fflush(stdout);
	failures = report_failures(b.report);
	rig_close(b.rig);
	report_free(b.report);
	return failures ? 1 : 0;
}
