/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The benchmark's own programs, all XDP:
 *
 *   gen    run by BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES: each run makes one frame, which the kernel then
 *          takes as received on the edge's interface
 *   sink   on the far end of the edge's other interface: judges and drops what gen made, lets everything else pass
 *   pass   on the edge's interfaces: veth gives its receive queues to XDP only while a program is attached
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "frame.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct mark {
	__be32 magic;
	__be32 flow;
} __attribute__((packed));

struct udp_part {
	struct udphdr h;
	struct mark mark;
	__u8 pad[14];
} __attribute__((packed));

struct tcp_part {
	struct tcphdr h;
	struct mark mark;
	__u8 pad[2];
} __attribute__((packed));

struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	union {
		struct udp_part udp;
		struct tcp_part tcp;
		__u16 words[(BENCH_FRAME_LEN - sizeof(struct ethhdr) - sizeof(struct iphdr)) / 2];
	};
} __attribute__((packed));

_Static_assert(sizeof(struct frame) == BENCH_FRAME_LEN, "one frame");

struct bench_gen gen_conf;
struct bench_sink sink_conf;

/* User space sets the size. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bench_outer);
} outer_ends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bench_counts);
} counts SEC(".maps");

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static __always_inline __u32 ip_sum(const struct iphdr *ip)
{
	const __u16 *w = (const void *)ip;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += w[i];
	return sum;
}

static __always_inline __u32 l4_sum(const struct frame *f)
{
	const __u16 *addrs = (const void *)&f->ip.saddr;
	__u32 sum = addrs[0] + addrs[1] + addrs[2] + addrs[3] + bpf_htons(f->ip.protocol) +
		    bpf_htons(sizeof(f->words));

#pragma unroll
	for (int i = 0; i < (int)(sizeof(f->words) / 2); i++)
		sum += f->words[i];
	return sum;
}

SEC("xdp")
int gen(struct xdp_md *ctx)
{
	struct frame *f = (void *)(long)ctx->data;
	struct bench_gen *g = &gen_conf;
	__u32 i = g->first + g->at, row = g->row_base + i;
	struct bench_tuple t = bench_tuple(i);
	struct bench_outer *o;
	__be16 sport, dport;
	struct mark *mark;
	__u16 sum;

	if ((void *)(f + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	g->at += g->step;
	if (g->at >= g->count)
		g->at -= g->count;

	/* Frames come back as the last user left them: nothing of the old one may stay. */
	__builtin_memset(f, 0, sizeof(*f));
	__builtin_memcpy(f->eth.h_dest, g->dst_mac, ETH_ALEN);
	__builtin_memcpy(f->eth.h_source, g->src_mac, ETH_ALEN);
	f->eth.h_proto = bpf_htons(ETH_P_IP);
	f->ip.version = 4;
	f->ip.ihl = 5;
	f->ip.tot_len = bpf_htons(sizeof(*f) - sizeof(f->eth));
	f->ip.ttl = 64;
	f->ip.protocol = g->proto;
	if (g->dir == BENCH_OUT) {
		f->ip.saddr = bpf_htonl(t.inner);
		f->ip.daddr = bpf_htonl(t.remote);
		sport = bpf_htons(t.inner_port);
		dport = bpf_htons(t.remote_port);
	} else {
		o = bpf_map_lookup_elem(&outer_ends, &row);
		if (!o)
			return XDP_ABORTED;
		f->ip.saddr = bpf_htonl(t.remote);
		f->ip.daddr = o->addr;
		sport = bpf_htons(t.remote_port);
		dport = o->port;
	}
	f->ip.check = ~fold(ip_sum(&f->ip));
	if (g->proto == IPPROTO_TCP) {
		f->tcp.h.source = sport;
		f->tcp.h.dest = dport;
		f->tcp.h.seq = bpf_htonl(g->seq);
		f->tcp.h.ack_seq = bpf_htonl(g->ack);
		f->tcp.h.doff = sizeof(f->tcp.h) / 4;
		((__u8 *)&f->tcp.h)[13] = g->tcp_flags;
		f->tcp.h.window = bpf_htons(65535);
		mark = &f->tcp.mark;
	} else {
		f->udp.h.source = sport;
		f->udp.h.dest = dport;
		f->udp.h.len = bpf_htons(sizeof(f->udp));
		mark = &f->udp.mark;
	}
	mark->magic = bpf_htonl(BENCH_MAGIC);
	mark->flow = bpf_htonl(i);
	sum = ~fold(l4_sum(f));
	if (g->proto == IPPROTO_TCP)
		f->tcp.h.check = sum;
	else
		f->udp.h.check = sum ?: 0xffff;
	return XDP_PASS;
}

/* The part of the judgement that a timed run can afford. */
static __always_inline bool outer_end_ok(const struct bench_sink *s, __be32 addr, __be16 port)
{
	__u32 a = bpf_ntohl(addr);
	__u16 p = bpf_ntohs(port);

	return a >= s->first_addr && a <= s->last_addr && p >= s->first_port && p <= s->last_port;
}

static __always_inline enum bench_fate judge(const struct bench_sink *s, const struct frame *f,
					     const struct mark *mark, __be16 sport, __be16 dport)
{
	__u32 i = bpf_ntohl(mark->flow), row = s->row_base + i;
	struct bench_tuple t = bench_tuple(i);
	struct bench_outer *o;

	if (s->dir == BENCH_OUT) {
		if (!outer_end_ok(s, f->ip.saddr, sport))
			return BENCH_FATE_outer;
	} else if ((bpf_ntohl(f->ip.daddr) ^ BENCH_INNER_NET) >> 16) {
		return BENCH_FATE_ends;
	}
	if (s->mode == BENCH_COUNT)
		return BENCH_FATE_right;
	if (fold(ip_sum(&f->ip)) != 0xffff || fold(l4_sum(f)) != 0xffff)
		return BENCH_FATE_checksum;
	if (i >= s->flows)
		return BENCH_FATE_ends;
	if (s->dir == BENCH_IN) {
		if (f->ip.saddr != bpf_htonl(t.remote) || sport != bpf_htons(t.remote_port) ||
		    f->ip.daddr != bpf_htonl(t.inner) || dport != bpf_htons(t.inner_port))
			return BENCH_FATE_ends;
		return BENCH_FATE_right;
	}
	if (f->ip.daddr != bpf_htonl(t.remote) || dport != bpf_htons(t.remote_port))
		return BENCH_FATE_ends;
	o = bpf_map_lookup_elem(&outer_ends, &row);
	if (!o)
		return BENCH_FATE_ends;
	if (o->seen && (o->addr != f->ip.saddr || o->port != sport))
		return BENCH_FATE_moved;
	if (s->mode == BENCH_RECORD) {
		o->addr = f->ip.saddr;
		o->port = sport;
		o->seen = 1;
	}
	return o->seen ? BENCH_FATE_right : BENCH_FATE_moved;
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	struct frame *f = (void *)(long)ctx->data;
	struct bench_sink *s = &sink_conf;
	struct bench_counts *c;
	struct mark *mark;
	__u32 zero = 0, fate;

	if ((void *)(f + 1) > (void *)(long)ctx->data_end ||
	    f->eth.h_proto != bpf_htons(ETH_P_IP) || f->ip.ihl != 5 || f->ip.protocol != s->proto)
		return XDP_PASS;
	mark = s->proto == IPPROTO_TCP ? &f->tcp.mark : &f->udp.mark;
	if (mark->magic != bpf_htonl(BENCH_MAGIC))
		return XDP_PASS;
	/* Ports stand in the same place in TCP and UDP. */
	fate = judge(s, f, mark, f->udp.h.source, f->udp.h.dest);
	c = bpf_map_lookup_elem(&counts, &zero);
	if (c && fate < BENCH_FATE_MAX)
		c->n[fate]++;
	return XDP_DROP;
}

SEC("xdp")
int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}
