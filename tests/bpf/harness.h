/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The test bed of the data plane: the real programs, without pins, on map rows that the test writes itself, run on one
 * packet at a time by BPF_PROG_TEST_RUN. A struct bed is opened for each test. Every failure here ends the test with a
 * text that says what the kernel refused. Addresses and ports are in host order, times in whole seconds of CLOCK_BOOTTIME.
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cmocka.h>

#include "nat.skel.h"
#include "packet.h"
#include "sluice_abi.h"

#define VERDICT_PASS (-1)
#define VERDICT_DROP 2
#define NO_REASON    (-1)
#define HELD         (-2) /* a piece of a datagram that waits, or was replayed: dropped, and not counted */
#define MADE_HERE    0 /* ingress_ifindex of a packet that a socket of this machine sent */
#define FORWARDED    7 /* and of one that came in by some interface */
#define LAB_CPUS     64

/* The scene of most tests. */
#define SHARED  IP(203, 0, 113, 7)
#define SHARED2 IP(203, 0, 113, 8)
#define CLIENT  IP(10, 1, 0, 5)
#define CLIENT2 IP(10, 1, 0, 6)
#define REMOTE  IP(198, 51, 100, 10)
#define REMOTE2 IP(198, 51, 100, 11)
#define NO_NAT  IP(192, 0, 2, 9)
#define OTHER   IP(172, 16, 9, 9) /* nobody's client */
#define FIRST   40960
#define LAST    43007

struct bed {
	struct nat_bpf *nat;
	uint32_t next_slice; /* rows given out so far */
	uint32_t next_block;
	uint32_t next_held;
	int cpus;
	/* Mapped when they are first asked for. */
	struct sluice_block *blocks;
	struct sluice_port_flows *port_flows;
	uint64_t *released; /* rows of four bytes, eight apart */
};

/* Added to the secret that the next bed_open() loads with. */
static uint64_t bed_secret __attribute__((unused));

enum hook {
	EGRESS,
	INGRESS,
};

/* What a packet met. */
struct run {
	int verdict;
	int reason; /* enum sluice_reason, or NO_REASON when no counter moved */
	struct frame out;
};

#define die(...)                                                   \
	do {                                                       \
		print_error(__VA_ARGS__);                          \
		print_error("\n");                                 \
		fail();                                            \
		abort(); /* not reached: fail() leaves the test */ \
	} while (0)

static inline void need_root(void)
{
	if (geteuid() != 0)
		die("this test loads BPF programs: run it as root");
}

static inline const char *reason_name(int reason)
{
#define SLUICE_X(name, help) #name,
	static const char *const names[] = { SLUICE_REASONS(SLUICE_X) };
#undef SLUICE_X

	if (reason == HELD)
		return "held";
	return reason >= 0 && reason < SLUICE_REASON_MAX ? names[reason] : "none";
}

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static inline uint32_t now_s(void)
{
	return (uint32_t)(now_ns() / 1000000000);
}

static inline union sluice_addr addr_of(uint32_t ip)
{
	union sluice_addr a = { .w = { 0, 0, htonl(0xffff), htonl(ip) } };

	return a;
}

static inline uint32_t ip_of(const union sluice_addr *a)
{
	return ntohl(a->w[3]);
}

/* Maps */

static inline void map_put(struct bpf_map *m, const void *key, const void *value)
{
	if (bpf_map_update_elem(bpf_map__fd(m), key, value, BPF_ANY))
		die("map %s: update: %s", bpf_map__name(m), strerror(errno));
}

static inline void map_get(struct bpf_map *m, const void *key, void *value)
{
	if (bpf_map_lookup_elem(bpf_map__fd(m), key, value))
		die("map %s: lookup: %s", bpf_map__name(m), strerror(errno));
}

static inline void map_put_row(struct bpf_map *m, uint32_t row, const void *value)
{
	map_put(m, &row, value);
}

static inline void map_get_row(struct bpf_map *m, uint32_t row, void *value)
{
	map_get(m, &row, value);
}

/* Opens and loads the programs with flow tables of max_flows rows. */
static inline void bed_open(struct bed *b, uint32_t max_flows)
{
	struct sluice_conf conf = { .abi = SLUICE_ABI, .max_flows = max_flows };
	int err;

	need_root();
	memset(b, 0, sizeof(*b));
	b->cpus = libbpf_num_possible_cpus();
	if (b->cpus < 1 || b->cpus > LAB_CPUS)
		die("%d possible CPUs, these tests know up to %d", b->cpus, LAB_CPUS);
	b->nat = nat_bpf__open();
	if (!b->nat)
		die("opening the skeleton: %s", strerror(errno));
	/* A given secret, so that a failure comes again; test_alloc.c tries others. */
	b->nat->rodata->secret[0] = 0x0123456789abcdefULL + bed_secret;
	b->nat->rodata->secret[1] = 0xfedcba9876543210ULL;
	bpf_map__set_max_entries(b->nat->maps.fwd, max_flows);
	bpf_map__set_max_entries(b->nat->maps.rev, max_flows);
	bpf_map__set_max_entries(b->nat->maps.client_state, max_flows);
	err = nat_bpf__load(b->nat);
	if (err)
		die("loading the programs: %s", strerror(-err));
	conf.event_rate = 1000000;
	conf.swept_s = now_s();
	/* The hint that pool_default() asks for; to tests of other mappings it is a wrong one, which must not matter. */
	conf.eim_first[SLUICE_UDP] = conf.eim_first[SLUICE_ICMP] = 1;
	map_put_row(b->nat->maps.conf, 0, &conf);
}

static inline size_t map_bytes(struct bpf_map *m)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t n = ((size_t)bpf_map__value_size(m) + 7) / 8 * 8 * bpf_map__max_entries(m);

	return (n + page - 1) / page * page;
}

static inline void bed_close(struct bed *b)
{
	/* A mapping would keep the map. */
	if (b->blocks)
		munmap(b->blocks, map_bytes(b->nat->maps.blocks));
	if (b->port_flows)
		munmap(b->port_flows, map_bytes(b->nat->maps.port_flows));
	if (b->released)
		munmap(b->released, map_bytes(b->nat->maps.released));
	b->blocks = NULL;
	b->port_flows = NULL;
	b->released = NULL;
	nat_bpf__destroy(b->nat);
	b->nat = NULL;
}

/* Rows */

static inline void put_lpm(struct bpf_map *m, uint32_t pool, uint32_t ip, uint32_t len,
			   uint32_t value)
{
	struct sluice_lpm_key key = {
		.prefixlen = SLUICE_LPM_POOL_BITS + 96 + len,
		.pool = pool,
		.addr = addr_of(ip),
	};

	if (bpf_map__value_size(m) != sizeof(value))
		die("map %s: values of %u bytes", bpf_map__name(m), bpf_map__value_size(m));
	map_put(m, &key, &value);
}

static inline void bed_client(struct bed *b, uint32_t ip, uint32_t len, uint32_t pool)
{
	put_lpm(b->nat->maps.clients, 0, ip, len, pool);
}

static inline void bed_no_nat(struct bed *b, uint32_t ip, uint32_t len, uint32_t pool)
{
	put_lpm(b->nat->maps.no_nat, pool, ip, len, 1);
}

static inline uint32_t fresh_of(const struct sluice_timers *t)
{
	const uint32_t all[] = { t->tcp_established, t->tcp_opening, t->tcp_closing,
				 t->tcp_time_wait,   t->tcp_reset,   t->udp,
				 t->udp_short,       t->icmp };
	uint32_t least = all[0], i;

	for (i = 1; i < sizeof(all) / sizeof(all[0]); i++)
		least = all[i] < least ? all[i] : least;
	return least;
}

/* A pool as interfaces.md has it by default: TCP overload, UDP endpoint-independent, ICMP likewise. */
static inline struct sluice_pool pool_default(void)
{
	struct sluice_pool p = {
		.name = "default",
		.mapping = { SLUICE_OVERLOAD, SLUICE_EIM, SLUICE_EIM },
		.filtering = { SLUICE_FILTER_PORT, SLUICE_FILTER_ADDRESS, SLUICE_FILTER_ADDRESS },
		.unleased = SLUICE_UNLEASED_REPORT,
		.used = 1,
		.timers = { 7440, 240, 240, 120, 240, 300, 30, 60 },
	};

	return p;
}

/* Adds pool number row, still without slices. Call bed_slice() for its slices before another pool's. */
static inline void bed_pool(struct bed *b, uint32_t row, struct sluice_pool p)
{
	p.held = (uint64_t)b->next_held << 32;
	map_put_row(b->nat->maps.pools, row, &p);
}

/* Makes a a shared address of a pool, all rows empty. shift: log2 of the slice size. Returns its first row. */
static inline uint32_t bed_addr_any(struct bed *b, uint32_t pool, union sluice_addr a,
				    uint32_t shift)
{
	struct sluice_addr_row row = { .base = b->next_slice,
				       .pool = (uint16_t)pool,
				       .shift = (uint8_t)shift };
	uint32_t i, n = 65536u >> shift;

	for (i = 0; i < n; i++) {
		struct sluice_slice s = {
			.addr = a,
			.first = (uint16_t)(i << shift),
			.last = (uint16_t)((i << shift) + (1u << shift) - 1),
			.pool = (uint16_t)pool,
			.state = SLUICE_SLICE_NONE,
		};

		map_put_row(b->nat->maps.slices, row.base + i, &s);
	}
	b->next_slice += n;
	map_put(b->nat->maps.addrs, &a, &row);
	return row.base;
}

static inline uint32_t bed_addr(struct bed *b, uint32_t pool, uint32_t ip, uint32_t shift)
{
	return bed_addr_any(b, pool, addr_of(ip), shift);
}

static inline struct sluice_addr_row bed_addr_row(struct bed *b, uint32_t ip)
{
	union sluice_addr a = addr_of(ip);
	struct sluice_addr_row row;

	map_get(b->nat->maps.addrs, &a, &row);
	return row;
}

/* Holds the slice of a shared address that begins at port first. Returns its row. */
static inline uint32_t bed_slice_any(struct bed *b, union sluice_addr addr, uint16_t first,
				     uint64_t not_after_ns)
{
	struct sluice_addr_row a;
	struct sluice_slice s;
	struct sluice_pool p;
	uint32_t row, nports, l4, i;

	map_get(b->nat->maps.addrs, &addr, &a);
	row = a.base + (first >> a.shift);
	nports = 1u << a.shift;
	map_get_row(b->nat->maps.pools, a.pool, &p);
	map_get_row(b->nat->maps.slices, row, &s);
	s.not_after_ns = not_after_ns;
	s.epoch = 1;
	s.block_base = b->next_block;
	s.fresh_s = (uint16_t)fresh_of(&p.timers);
	s.state = SLUICE_SLICE_HELD;
	for (l4 = 0; l4 < SLUICE_L4_MAX; l4++) {
		struct sluice_block block = {
			.mode = p.mapping[l4] == SLUICE_EIM ? SLUICE_BLOCK_EIM
							    : SLUICE_BLOCK_OVERLOAD,
		};

		for (i = 0; i < nports; i += SLUICE_BLOCK_PORTS)
			map_put_row(b->nat->maps.blocks,
				    sluice_block_row(s.block_base, nports, l4, i), &block);
	}
	b->next_block += SLUICE_L4_MAX * (nports / SLUICE_BLOCK_PORTS);
	map_put_row(b->nat->maps.slices, row, &s);
	map_put_row(b->nat->maps.held, b->next_held++, &row);
	p.held++;
	map_put_row(b->nat->maps.pools, a.pool, &p);
	return row;
}

static inline uint32_t bed_slice(struct bed *b, uint32_t ip, uint16_t first, uint64_t not_after_ns)
{
	return bed_slice_any(b, addr_of(ip), first, not_after_ns);
}

static inline void slice_deadline(struct bed *b, uint32_t row, uint64_t not_after_ns)
{
	struct sluice_slice s;

	map_get_row(b->nat->maps.slices, row, &s);
	s.not_after_ns = not_after_ns;
	map_put_row(b->nat->maps.slices, row, &s);
}

static inline void slice_epoch(struct bed *b, uint32_t row, uint32_t epoch)
{
	struct sluice_slice s;

	map_get_row(b->nat->maps.slices, row, &s);
	s.epoch = epoch;
	map_put_row(b->nat->maps.slices, row, &s);
}

/* The scene that most tests play in: one pool, one slice of 2048, clients 10.1.0.0/16. Returns the slice's row. */
static inline uint32_t bed_scene(struct bed *b, uint32_t max_flows, struct sluice_pool pool)
{
	bed_open(b, max_flows);
	bed_pool(b, 0, pool);
	bed_addr(b, 0, SHARED, 11);
	bed_client(b, IP(10, 1, 0, 0), 16, 0);
	bed_no_nat(b, IP(192, 0, 2, 0), 24, 0);
	return bed_slice(b, SHARED, FIRST, SLUICE_NEVER);
}

/* Leases */

static inline void *map_mmap(struct bpf_map *m)
{
	void *p = mmap(NULL, map_bytes(m), PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(m), 0);

	if (p == MAP_FAILED)
		die("map %s: mmap: %s", bpf_map__name(m), strerror(errno));
	return p;
}

/* Rows that the daemon has mapped, and so the bed. */
static inline void bed_mmap(struct bed *b)
{
	if (b->blocks)
		return;
	b->blocks = map_mmap(b->nat->maps.blocks);
	b->port_flows = map_mmap(b->nat->maps.port_flows);
	b->released = map_mmap(b->nat->maps.released);
}

/* Where a port of a held slice is kept: its block, its bit there, and its count of overload flows. */
struct port_at {
	struct sluice_block *block;
	uint64_t bit;
	uint32_t *flows; /* NULL for ICMP */
	uint32_t *released;
};

static inline struct port_at bed_port(struct bed *b, uint32_t slice, uint32_t l4, uint32_t port)
{
	struct port_at at = { 0 };
	struct sluice_slice s;
	uint32_t nports, off;

	bed_mmap(b);
	map_get_row(b->nat->maps.slices, slice, &s);
	nports = (uint32_t)s.last - s.first + 1;
	off = port - s.first;
	if (port < s.first || port > s.last)
		die("port %u is not in slice %u", port, slice);
	at.block = &b->blocks[sluice_block_row(s.block_base, nports, l4, off)];
	at.bit = 1ULL << off % SLUICE_BLOCK_PORTS;
	if (l4 != SLUICE_ICMP)
		at.flows = &b->port_flows[sluice_port_flows_row(s.block_base, nports, l4, off)]
				    .flows[off % SLUICE_BLOCK_PORTS];
	at.released = (uint32_t *)&b->released[slice];
	return at;
}

/* The daemon's half of the protocol that struct sluice_block describes. False: NAT has the port. */
static inline bool port_claim(const struct port_at *at, bool eim)
{
	__atomic_fetch_or(&at->block->leased, at->bit, __ATOMIC_SEQ_CST);
	if (eim ? !(__atomic_load_n(&at->block->bits, __ATOMIC_SEQ_CST) & at->bit)
		: !__atomic_load_n(at->flows, __ATOMIC_SEQ_CST))
		return true;
	__atomic_fetch_and(&at->block->leased, ~at->bit, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(at->released, 1, __ATOMIC_SEQ_CST);
	return false;
}

static inline void port_unclaim(const struct port_at *at)
{
	__atomic_fetch_and(&at->block->leased, ~at->bit, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(at->released, 1, __ATOMIC_SEQ_CST);
}

/* A port under lease: kept from NAT, and entered. steer: 1 + slot, 0: none. */
static inline void bed_lease(struct bed *b, uint32_t slice, uint32_t l4, uint16_t port, uint64_t id,
			     uint32_t uid, uint32_t steer)
{
	struct port_at at = bed_port(b, slice, l4, port);
	struct sluice_port_key key = { .port = htons(port), .l4 = (uint8_t)l4 };
	struct sluice_lease lease = { .id = id, .uid = uid, .steer = steer };
	struct sluice_slice s;

	map_get_row(b->nat->maps.slices, slice, &s);
	key.addr = s.addr;
	__atomic_fetch_or(&at.block->leased, at.bit, __ATOMIC_SEQ_CST);
	map_put(b->nat->maps.leases, &key, &lease);
}

/* Counters */

/* All rows of the drop counters, summed over the CPUs. One system call, since this is done for every packet. */
static inline void bed_drops_all(struct bed *b, struct sluice_count ret[SLUICE_REASON_MAX])
{
	struct sluice_count rows[SLUICE_REASON_MAX * LAB_CPUS];
	uint32_t keys[SLUICE_REASON_MAX], next, n = SLUICE_REASON_MAX, i, cpu;

	if (bpf_map_lookup_batch(bpf_map__fd(b->nat->maps.drops), NULL, &next, keys, rows, &n,
				 NULL) &&
	    errno != ENOENT)
		die("map drops: batch lookup: %s", strerror(errno));
	if (n != SLUICE_REASON_MAX)
		die("map drops: %u rows", n);
	memset(ret, 0, sizeof(*ret) * SLUICE_REASON_MAX);
	for (i = 0; i < n; i++) {
		for (cpu = 0; cpu < (uint32_t)b->cpus; cpu++) {
			ret[keys[i]].packets += rows[i * (uint32_t)b->cpus + cpu].packets;
			ret[keys[i]].bytes += rows[i * (uint32_t)b->cpus + cpu].bytes;
		}
	}
}

static inline struct sluice_count bed_drops(struct bed *b, uint32_t reason)
{
	struct sluice_count all[SLUICE_REASON_MAX];

	bed_drops_all(b, all);
	return all[reason];
}

static inline struct sluice_pool_stats bed_stats(struct bed *b, uint32_t pool)
{
	static struct sluice_pool_stats rows[LAB_CPUS];
	struct sluice_pool_stats sum = { 0 };
	__u64 *to = (__u64 *)&sum;
	size_t i, n = sizeof(sum) / sizeof(*to);
	int cpu;

	map_get_row(b->nat->maps.pool_stats, pool, rows);
	for (cpu = 0; cpu < b->cpus; cpu++)
		for (i = 0; i < n; i++)
			to[i] += ((__u64 *)&rows[cpu])[i];
	return sum;
}

/* Running */

static inline int hook_fd(struct bed *b, enum hook hook)
{
	return bpf_program__fd(hook == EGRESS ? b->nat->progs.uplink_egress
					      : b->nat->progs.uplink_ingress);
}

/*
 * Runs a program on a frame, without looking at the counters. Returns 0, or -errno for a frame that the kernel does not
 * take for a test: shorter than its Ethernet header and the fixed part of the IP header that its ether type promises.
 */
static inline int bed_try(struct bed *b, enum hook hook, uint32_t came_by, const struct frame *in,
			  struct run *ret)
{
	struct __sk_buff ctx = { .ingress_ifindex = came_by };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in->b, .data_size_in = in->len,
		    .data_out = ret->out.b, .data_size_out = sizeof(ret->out.b), .ctx_in = &ctx,
		    .ctx_size_in = sizeof(ctx));

	if (bpf_prog_test_run_opts(hook_fd(b, hook), &opts))
		return -errno;
	ret->verdict = (int)opts.retval;
	ret->reason = NO_REASON;
	ret->out.len = opts.data_size_out;
	return 0;
}

static inline bool frame_in_pieces(const struct frame *f)
{
	uint16_t ether;
	uint32_t l3 = frame_l3(f, &ether);
	struct view v;

	frame_view(f, &v);
	return v.frag || (ether == E_IP6 && f->len > l3 + 40);
}

/* Runs a program on a frame and says which drop counter moved. More than one, or a wrong amount, fails the test. */
static inline int bed_try_count(struct bed *b, enum hook hook, uint32_t came_by,
				const struct frame *in, struct run *ret)
{
	struct sluice_count before[SLUICE_REASON_MAX], after[SLUICE_REASON_MAX];
	__u64 packets, bytes;
	uint32_t i;
	int err;

	bed_drops_all(b, before);
	err = bed_try(b, hook, came_by, in, ret);
	if (err)
		return err;
	bed_drops_all(b, after);
	for (i = 0; i < SLUICE_REASON_MAX; i++) {
		packets = after[i].packets - before[i].packets;
		bytes = after[i].bytes - before[i].bytes;
		/* What had waited in vain, and was in the way of this one. */
		if ((!packets && !bytes) || i == SLUICE_DROP_frag_late)
			continue;
		if (ret->reason != NO_REASON)
			die("one packet counted as %s and as %s", reason_name(ret->reason),
			    reason_name((int)i));
		if (packets != 1 || bytes != in->len)
			die("a packet of %u bytes counted as %llu with %llu of %s", in->len,
			    packets, bytes, reason_name((int)i));
		ret->reason = (int)i;
	}
	if (ret->verdict == VERDICT_DROP && ret->reason == NO_REASON && frame_in_pieces(in))
		ret->reason = HELD;
	if ((ret->verdict == VERDICT_DROP) != (ret->reason != NO_REASON))
		die("verdict %d, counted as %s", ret->verdict, reason_name(ret->reason));
	if (ret->verdict != VERDICT_DROP && ret->verdict != VERDICT_PASS)
		die("verdict %d", ret->verdict);
	return 0;
}

static inline void bed_run(struct bed *b, enum hook hook, uint32_t came_by, const struct frame *in,
			   struct run *ret)
{
	int err = bed_try_count(b, hook, came_by, in, ret);

	if (err)
		die("test run: %s", strerror(-err));
}

/* Runs the sweep program; returns its row of results. */
static inline struct sluice_sweep bed_sweep(struct bed *b)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts);
	struct sluice_sweep s;

	if (bpf_prog_test_run_opts(bpf_program__fd(b->nat->progs.sweep), &opts))
		die("sweep: %s", strerror(errno));
	if (opts.retval)
		die("sweep returned %d", (int)opts.retval);
	map_get_row(b->nat->maps.sweep_out, 0, &s);
	return s;
}

/* Events */

/* Calls fn(arg, event, size) for each record in the ring. Returns how many there were. */
static inline int bed_events(struct bed *b, ring_buffer_sample_fn fn, void *arg)
{
	struct ring_buffer *ring =
		ring_buffer__new(bpf_map__fd(b->nat->maps.events), fn, arg, NULL);
	int n;

	if (!ring)
		die("opening the ring buffer: %s", strerror(errno));
	n = ring_buffer__consume(ring);
	ring_buffer__free(ring);
	if (n < 0)
		die("reading the ring buffer: %s", strerror(-n));
	return n;
}

/* Flow tables */

typedef void (*flow_fn)(const struct sluice_flow_key *key, struct sluice_flow *flow, void *arg);

/*
 * Calls fn with every entry of fwd or rev and writes back what fn changed. Returns how many there were. The keys are read
 * first: a hash that is written to moves its entries about, and a walk would see them again.
 */
static inline uint32_t flows_each(struct bpf_map *m, flow_fn fn, void *arg)
{
	struct sluice_flow_key *keys, *prev = NULL;
	struct sluice_flow flow, was;
	uint32_t n = 0, i;

	keys = calloc(bpf_map__max_entries(m), sizeof(*keys));
	if (!keys)
		die("out of memory");
	while (n < bpf_map__max_entries(m) && !bpf_map_get_next_key(bpf_map__fd(m), prev, &keys[n]))
		prev = &keys[n++];
	for (i = 0; fn && i < n; i++) {
		map_get(m, &keys[i], &flow);
		was = flow;
		fn(&keys[i], &flow, arg);
		if (memcmp(&was, &flow, sizeof(flow)))
			map_put(m, &keys[i], &flow);
	}
	free(keys);
	return n;
}

static inline uint32_t flows_count(struct bpf_map *m)
{
	return flows_each(m, NULL, NULL);
}

static inline void flow_age(const struct sluice_flow_key *key, struct sluice_flow *flow, void *arg)
{
	(void)key;
	flow->seen_s -= *(uint32_t *)arg;
}

/* Makes every entry of both tables look as if its last packet were s seconds older. */
static inline void bed_age(struct bed *b, uint32_t s)
{
	flows_each(b->nat->maps.fwd, flow_age, &s);
	flows_each(b->nat->maps.rev, flow_age, &s);
}

struct count_walk {
	struct bed *bed;
	uint32_t *counts; /* by row of port_flows and port */
};

static inline void count_flow(const struct sluice_flow_key *key, struct sluice_flow *flow,
			      void *arg)
{
	struct count_walk *w = arg;
	struct sluice_slice s;
	uint32_t nports, off, l4 = key->proto == P_TCP ? SLUICE_TCP : SLUICE_UDP;

	if ((flow->flags & (SLUICE_FLOW_EIM | SLUICE_FLOW_PERMIT | SLUICE_FLOW_OWN)) ||
	    key->proto == P_ICMP)
		return;
	map_get_row(w->bed->nat->maps.slices, flow->slice, &s);
	if (s.state != SLUICE_SLICE_HELD || s.epoch != flow->epoch)
		return;
	nports = (uint32_t)s.last - s.first + 1;
	off = ntohs(key->dport) - s.first;
	w->counts[sluice_port_flows_row(s.block_base, nports, l4, off) * SLUICE_BLOCK_PORTS +
		  off % SLUICE_BLOCK_PORTS]++;
}

/* Every count of map port_flows is the number of overload flows that rev has on the port. Returns how many there are in all. */
static inline uint32_t expect_counts(struct bed *b, const char *what)
{
	uint32_t n = bpf_map__max_entries(b->nat->maps.port_flows), total = 0, i, k;
	struct count_walk w = { b, calloc((size_t)n * SLUICE_BLOCK_PORTS, sizeof(uint32_t)) };

	if (!w.counts)
		die("out of memory");
	bed_mmap(b);
	flows_each(b->nat->maps.rev, count_flow, &w);
	for (i = 0; i < n; i++) {
		for (k = 0; k < SLUICE_BLOCK_PORTS; k++) {
			uint32_t want = w.counts[i * SLUICE_BLOCK_PORTS + k];

			if (b->port_flows[i].flows[k] != want)
				die("%s: row %u, port %u of 64: %u flows counted, there are %u",
				    what, i, k, b->port_flows[i].flows[k], want);
			total += want;
		}
	}
	free(w.counts);
	return total;
}

/*
 * Tests set times back with bed_age(), and no time lies before the machine's start. So they use short timers, and this
 * waits for the machine to be old enough, which it always is but for the first minute after booting.
 */
static inline void need_uptime(uint32_t s)
{
	struct timespec nap = { .tv_nsec = 100000000 };

	while (now_s() <= s)
		nanosleep(&nap, NULL);
}

#endif
