/* SPDX-License-Identifier: BSD-2-Clause */
#include "rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bench/xdp.skel.h"
#include "die.h"

#define NETNS_DIR  "/run/netns/slab-bench-"
#define BATCH      64   /* as many as a NAPI poll takes */
#define STEP       7919 /* a prime: no two neighbours in memory follow each other */
#define ARRIVAL_NS 2000000000ULL
#define SEQ_OUT    0x10000
#define SEQ_IN     0x20000
#define TCP_SYN    0x02
#define TCP_ACK    0x10

struct port {
	unsigned ifindex;
	uint8_t mac[6];
};

struct edge {
	int ns;
	struct port lan, wan;
};

struct rig {
	struct bench_xdp_bpf *xdp;
	const struct edge_spec *specs;
	struct edge *edges;
	size_t n;
	uint32_t flows_max;
	struct bench_outer *outer; /* the map's memory */
	size_t outer_size;
	int n_cpus;
	struct bench_counts *per_cpu;
};

static int ns_open(const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), NETNS_DIR "%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die("%s: %m (start this through bench.sh)", path);
	return fd;
}

static void ns_enter(int fd)
{
	if (setns(fd, CLONE_NEWNET))
		die("setns: %m");
}

static struct port port_of(const char *ifname)
{
	struct ifreq req = { 0 };
	struct port port;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", ifname);
	port.ifindex = if_nametoindex(ifname);
	if (fd < 0 || !port.ifindex || ioctl(fd, SIOCGIFHWADDR, &req))
		die("interface %s: %m", ifname);
	memcpy(port.mac, req.ifr_hwaddr.sa_data, sizeof(port.mac));
	close(fd);
	return port;
}

/* The links live as long as this process, and go with it. */
static void attach(struct bpf_program *prog, unsigned ifindex)
{
	DECLARE_LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = XDP_FLAGS_DRV_MODE);

	if (bpf_link_create(bpf_program__fd(prog), (int)ifindex, BPF_XDP, &opts) < 0)
		die("attaching %s: %m", bpf_program__name(prog));
}

static void edge_open(struct rig *rig, size_t i, int out_ns)
{
	struct edge *e = &rig->edges[i];
	char name[IFNAMSIZ];

	e->ns = ns_open(rig->specs[i].name);
	ns_enter(e->ns);
	e->lan = port_of("lan");
	e->wan = port_of("wan");
	attach(rig->xdp->progs.pass, e->lan.ifindex);
	attach(rig->xdp->progs.pass, e->wan.ifindex);
	ns_enter(out_ns);
	snprintf(name, sizeof(name), "lan-%s", rig->specs[i].name);
	attach(rig->xdp->progs.sink, port_of(name).ifindex);
	snprintf(name, sizeof(name), "wan-%s", rig->specs[i].name);
	attach(rig->xdp->progs.sink, port_of(name).ifindex);
}

/* The last CPU that we may use: bench.sh puts the daemons on the first one. */
static void pin_to_cpu(void)
{
	cpu_set_t set;
	int last = 0;

	if (sched_getaffinity(0, sizeof(set), &set))
		die("sched_getaffinity: %m");
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &set))
			last = cpu;
	CPU_ZERO(&set);
	CPU_SET(last, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity: %m");
}

struct rig *rig_open(const struct edge_spec *specs, size_t n, uint32_t flows_max)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	int out_ns;

	if (!rig || !(rig->edges = calloc(n, sizeof(*rig->edges))))
		die("out of memory");
	rig->specs = specs;
	rig->n = n;
	rig->flows_max = flows_max;
	rig->n_cpus = libbpf_num_possible_cpus();
	rig->per_cpu = calloc((size_t)rig->n_cpus, sizeof(*rig->per_cpu));
	if (!rig->per_cpu)
		die("out of memory");
	pin_to_cpu();
	rig->xdp = bench_xdp_bpf__open();
	if (!rig->xdp)
		die("opening the BPF programs: %m");
	bpf_map__set_max_entries(rig->xdp->maps.outer_ends, (uint32_t)n * flows_max);
	if (bench_xdp_bpf__load(rig->xdp))
		die("loading the BPF programs: %m");
	rig->outer_size = n * flows_max * sizeof(*rig->outer);
	rig->outer = mmap(NULL, rig->outer_size, PROT_READ, MAP_SHARED,
			  bpf_map__fd(rig->xdp->maps.outer_ends), 0);
	if (rig->outer == MAP_FAILED)
		die("mmap: %m");
	out_ns = ns_open("out");
	for (size_t i = 0; i < n; i++)
		edge_open(rig, i, out_ns);
	close(out_ns);
	return rig;
}

void rig_close(struct rig *rig)
{
	if (!rig)
		return;
	munmap(rig->outer, rig->outer_size);
	bench_xdp_bpf__destroy(rig->xdp);
	for (size_t i = 0; i < rig->n; i++)
		close(rig->edges[i].ns);
	free(rig->edges);
	free(rig->per_cpu);
	free(rig);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* Sums over the CPUs; with clear, sets to zero. */
static struct bench_counts counts(struct rig *rig, bool clear)
{
	struct bench_counts *per_cpu = rig->per_cpu, sum = { 0 };
	int fd = bpf_map__fd(rig->xdp->maps.counts);
	uint32_t zero = 0;

	memset(per_cpu, 0, (size_t)rig->n_cpus * sizeof(*per_cpu));
	if (clear ? bpf_map_update_elem(fd, &zero, per_cpu, BPF_ANY)
		  : bpf_map_lookup_elem(fd, &zero, per_cpu))
		die("counters: %m");
	for (int cpu = 0; cpu < rig->n_cpus; cpu++)
		for (int i = 0; i < BENCH_FATE_MAX; i++)
			sum.n[i] += per_cpu[cpu].n[i];
	return sum;
}

static uint64_t counts_total(const struct bench_counts *c)
{
	uint64_t sum = 0;

	for (int i = 0; i < BENCH_FATE_MAX; i++)
		sum += c->n[i];
	return sum;
}

static uint32_t common_factor(uint32_t a, uint32_t b)
{
	while (b) {
		uint32_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

static uint32_t step_for(uint32_t count)
{
	uint32_t step = STEP % count;

	while (!step || common_factor(step, count) != 1)
		step++;
	return step;
}

static void aim(struct rig *rig, const struct volley *v)
{
	const struct edge_spec *spec = &rig->specs[v->edge];
	const struct edge *e = &rig->edges[v->edge];
	const struct port *port = v->dir == BENCH_OUT ? &e->lan : &e->wan;
	struct bench_gen *g = &rig->xdp->bss->gen_conf;
	struct bench_sink *s = &rig->xdp->bss->sink_conf;
	bool opens = v->tcp_flags & TCP_SYN, out = v->dir == BENCH_OUT;

	*g = (struct bench_gen){
		.first = v->first,
		.count = v->count,
		.step = v->in_order ? 1 : step_for(v->count),
		.row_base = (uint32_t)v->edge * rig->flows_max,
		.seq = (out ? SEQ_OUT : SEQ_IN) + !opens,
		.ack = v->tcp_flags & TCP_ACK ? (out ? SEQ_IN : SEQ_OUT) + 1 : 0,
		.proto = spec->proto,
		.dir = v->dir,
		.tcp_flags = v->tcp_flags,
		/* Any sender will do; it must only not be the edge itself. */
		.src_mac = { 2, 0, 0, 0, 0, 1 },
	};
	memcpy(g->dst_mac, port->mac, sizeof(g->dst_mac));
	*s = (struct bench_sink){
		.first_addr = spec->first_addr,
		.last_addr = spec->last_addr,
		.first_port = spec->first_port,
		.last_port = spec->last_port,
		.row_base = (uint32_t)v->edge * rig->flows_max,
		.flows = rig->flows_max,
		.proto = spec->proto,
		.dir = v->dir,
		.mode = v->mode,
	};
}

bool rig_fire(struct rig *rig, const struct volley *v, struct volley_result *ret)
{
	const struct edge *e = &rig->edges[v->edge];
	uint8_t frame[BENCH_FRAME_LEN] = { 0 };
	struct xdp_md ctx = {
		.data_end = sizeof(frame),
		.ingress_ifindex = v->dir == BENCH_OUT ? e->lan.ifindex : e->wan.ifindex,
	};
	DECLARE_LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame,
			    .data_size_in = sizeof(frame), .ctx_in = &ctx,
			    .ctx_size_in = sizeof(ctx), .repeat = (int)v->packets,
			    .flags = BPF_F_TEST_XDP_LIVE_FRAMES, .batch_size = BATCH);
	uint64_t begin_ns;

	ns_enter(e->ns);
	aim(rig, v);
	counts(rig, true);
	if (bpf_prog_test_run_opts(bpf_program__fd(rig->xdp->progs.gen), &opts))
		die("BPF_PROG_TEST_RUN on slab-bench-%s: %m", rig->specs[v->edge].name);
	ret->ns = opts.duration;
	/* The last ones may still be in a queue. */
	begin_ns = now_ns();
	do {
		ret->counts = counts(rig, false);
	} while (counts_total(&ret->counts) < v->packets && now_ns() - begin_ns < ARRIVAL_NS);
	return ret->counts.n[BENCH_FATE_right] == v->packets &&
	       counts_total(&ret->counts) == v->packets;
}

const char *rig_explain(const struct volley *v, const struct volley_result *r)
{
	static const char *const texts[] = {
#define BENCH_X(name, text) text,
		BENCH_FATES(BENCH_X)
#undef BENCH_X
	};
	static char buf[512];
	size_t at;

	at = (size_t)snprintf(buf, sizeof(buf), "of %u packets %s arrived %llu", v->packets,
			      v->dir == BENCH_OUT ? "out" : "in",
			      (unsigned long long)counts_total(&r->counts));
	for (int i = 0; i < BENCH_FATE_MAX; i++)
		if (r->counts.n[i] && at < sizeof(buf))
			at += (size_t)snprintf(buf + at, sizeof(buf) - at, ", %llu %s",
					       (unsigned long long)r->counts.n[i], texts[i]);
	return buf;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

uint32_t rig_shared_ends(const struct rig *rig, size_t edge, uint32_t count)
{
	const struct bench_outer *rows = rig->outer + edge * rig->flows_max;
	uint64_t *ends = calloc(count, sizeof(*ends));
	uint32_t shared = 0;

	if (!ends)
		die("out of memory");
	/* The remote ends differ in the address's low 16 bits only. */
	for (uint32_t i = 0; i < count; i++)
		ends[i] = (uint64_t)(bench_tuple(i).remote & 0xffff) << 48 |
			  (uint64_t)rows[i].addr << 16 | rows[i].port;
	qsort(ends, count, sizeof(*ends), by_value);
	for (uint32_t i = 1; i < count; i++)
		shared += ends[i] == ends[i - 1];
	free(ends);
	return shared;
}
