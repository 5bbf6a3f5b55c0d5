/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The parts of exec.bpf.c: whose socket it is, where a destination lies, and claims on ports and tuples. */
#ifndef EXEC_BPF_H
#define EXEC_BPF_H

#include <asm/socket.h>
#include <linux/errno.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/socket.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#include "maps.bpf.h"

#define AF_INET  2
#define AF_INET6 10

#define TCP_TIME_WAIT 6

/* A claim on a tuple lapses when no socket is on it after this time: the kernel did not get as far as to enter it. In units of 2^20 ns, as the clock of claims. */
#define CLAIM_TICKS 954
#define CLAIM_SLACK 64

/*
 * Claims on tuples: who is about to use one (TCP on a shared lease). One word for each, at the place that the tuple's hash names: the rest of the hash, and in the low bits
 * the time. Two tuples may fall on one word. Then the later claim takes the place of the earlier, which ends it a little early: the kernel still lets only one socket have the tuple, but
 * would tell the other EADDRNOTAVAIL.
 */
#define CLAIM_WORDS 65536
#define CLAIM_TIME  0xffffffULL
#define CLAIM_USED  (1ULL << 63) /* no claim is 0 */

__u64 exec_claims[CLAIM_WORDS];

/*
 * Claims on ports: a bit for each, 64 ports to a row, by the first of them. What is old is forgotten: only bind() knows for certain. A bit is set by whoever is the
 * first on the port, and cleared when that socket is closed.
 */
HASH(exec_ports, BPF_MAP_TYPE_LRU_HASH, struct sluice_port_key, __u64, 16384, 0);

/* The claim on a port that a socket has; not of UDP sockets that are bound to it. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sluice_port_key);
} exec_socks SEC(".maps");

/* Answers */

static __always_inline int deny(int err)
{
	bpf_set_retval(-err);
	return 0;
}

static __always_inline bool addr_is_v4(const union sluice_addr *a)
{
	return !a->d[0] && a->w[2] == bpf_htonl(0xffff);
}

/* Addresses */

static __always_inline union sluice_addr addr_of_v4(__be32 v4)
{
	return (union sluice_addr){ .w = { 0, 0, bpf_htonl(0xffff), v4 } };
}

static __always_inline bool addr_equal(const union sluice_addr *a, const union sluice_addr *b)
{
	return a->d[0] == b->d[0] && a->d[1] == b->d[1];
}

/* Addresses that never leave a link, or the machine; multicast. */
static __always_inline bool addr_stays(const union sluice_addr *a)
{
	__u32 v4 = bpf_ntohl(a->w[3]), top = bpf_ntohl(a->w[0]);

	if (addr_is_v4(a))
		return v4 >> 24 == 127 || v4 >> 28 == 14 || v4 >> 16 == 0xa9fe || !v4 || v4 == ~0U;
	return top >> 24 == 0xff || top >> 22 == 0xfe80 >> 6 || (!a->d[0] && !a->w[2] && v4 <= 1);
}

/* Reads 32 bits of a context or a socket: the compiler must not join two reads, nor compute an address in a socket; the verifier allows neither. */
#define FIELD(sk, field)                                          \
	({                                                        \
		__u32 v_ = *(const volatile __u32 *)&(sk)->field; \
                                                                  \
		asm volatile("%0 = %0" : "+r"(v_));               \
		v_;                                               \
	})

/* An IPv6 address. */
#define ADDR_FIELD(from, field)                                                    \
	((union sluice_addr){ .w = { FIELD(from, field[0]), FIELD(from, field[1]), \
				     FIELD(from, field[2]), FIELD(from, field[3]) } })

/* The address that a socket is bound to. What sock_common has is enough. */
static __always_inline union sluice_addr sock_src(const struct bpf_sock *sk)
{
	if (FIELD(sk, family) == AF_INET)
		return addr_of_v4(FIELD(sk, src_ip4));
	return ADDR_FIELD(sk, src_ip6);
}

/* "0.0.0.0", "::", and "::ffff:0.0.0.0". */
static __always_inline bool addr_is_any(const union sluice_addr *a)
{
	return !a->d[0] && !a->w[3] && (!a->w[2] || addr_is_v4(a));
}

/* Leases */

static __always_inline int l4_of(__u32 proto)
{
	return proto == IPPROTO_TCP ? SLUICE_TCP : proto == IPPROTO_UDP ? SLUICE_UDP : -1;
}

static __always_inline bool port_is_of(const struct sluice_exec *exec, int l4, __u32 port)
{
	return exec->protos & 1 << l4 && port >= exec->first && port <= exec->last;
}

/* The lease of the calling process; NULL: it is none of ours, or in another network namespace. ctx: of either kind of hook. */
#define exec_find(ctx)                                                          \
	({                                                                      \
		const struct sluice_conf *c_ = conf_row();                      \
                                                                                \
		c_ && c_->execs &&bpf_get_netns_cookie(ctx) == c_->netns_cookie \
			? exec_row(c_->exec_level)                              \
			: NULL;                                                 \
	})

static __always_inline const struct sluice_conf *conf_row(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&conf, &zero);
}

static __always_inline const struct sluice_exec *exec_row(__u32 level)
{
	__u64 id = bpf_get_current_ancestor_cgroup_id(level);

	return bpf_map_lookup_elem(&execs, &id);
}

/* Is this the way out through an uplink? A device that the socket is bound to decides, else the routing table as the daemon has seen it. */
static __always_inline bool dst_leaves(const struct bpf_sock *sk, const struct sluice_exec *exec,
				       const union sluice_addr *dst)
{
	struct sluice_lpm_key key = { .prefixlen = SLUICE_LPM_POOL_BITS + 128, .pool = exec->pool };
	__u32 dev = sk->bound_dev_if, *value;

	if (addr_stays(dst))
		return false;
	key.addr = *dst;
	if (bpf_map_lookup_elem(&no_nat, &key))
		return false;
	if (dev)
		return bpf_map_lookup_elem(&uplinks, &dev);
	key.pool = 0;
	value = bpf_map_lookup_elem(&onlink, &key);
	return !value || *value;
}

/* Verified once and not at each call, as in count.bpf.h: else the programs would be too large to verify. */
#define GLOBAL __noinline

/* Claims on tuples */

static __always_inline __u64 claim_hash(const struct sluice_flow_key *key)
{
	const __u64 ports = (__u64)key->sport << 16 | key->dport;
	const __u64 words[] = { key->src.d[0], key->src.d[1], key->dst.d[0], key->dst.d[1], ports };
	__u64 h = secret[0];

	for (int i = 0; i < 5; i++) {
		h = (h ^ words[i]) * 0x9e3779b97f4a7c15ULL;
		h ^= h >> 32;
	}
	h = (h ^ secret[1]) * 0xbf58476d1ce4e5b9ULL;
	return (h ^ h >> 29) | CLAIM_USED;
}

static __always_inline __u64 claim_now(void)
{
	return bpf_ktime_get_coarse_ns() >> 20 & CLAIM_TIME;
}

/* Are these claims on the same tuple? */
static __always_inline bool claim_same(__u64 a, __u64 b)
{
	return !((a ^ b) & ~CLAIM_TIME);
}

/* How often to try for a word that others write to at this very moment. */
#define CLAIM_TRIES 2

/* Take a claim. False: another socket has it. *ret: for claim_drop(). */
GLOBAL bool claim_take(const struct sluice_flow_key *key, __u64 *ret)
{
	__u64 hash, new, was, age;
	volatile __u64 *word;

	if (!key || !ret)
		return false;
	hash = claim_hash(key);
	new = (hash & ~CLAIM_TIME) | claim_now();
	word = &exec_claims[hash % CLAIM_WORDS];
	for (int i = 0; i < CLAIM_TRIES; i++) {
		was = *word;
		/* Another CPU may have read the clock later than we and claimed first. */
		age = new - was + CLAIM_SLACK;
		if (claim_same(was, new) && (age & CLAIM_TIME) < CLAIM_TICKS + CLAIM_SLACK)
			return false;
		if (__sync_val_compare_and_swap(word, was, new) == was) {
			*ret = new;
			return true;
		}
	}
	/* The kernel decides without us. */
	*ret = 0;
	return true;
}

GLOBAL int claim_drop(const struct sluice_flow_key *key, __u64 claim)
{
	if (!key)
		return 0;
	__sync_val_compare_and_swap(&exec_claims[claim_hash(key) % CLAIM_WORDS], claim, 0);
	return 0;
}

/* Whoever has it. */
static __always_inline void claim_end(const struct sluice_flow_key *key)
{
	__u64 hash = claim_hash(key);
	volatile __u64 *word = &exec_claims[hash % CLAIM_WORDS];
	__u64 was = *word;

	if (claim_same(was, hash))
		__sync_val_compare_and_swap(word, was, 0);
}

/* Claims on ports */

static __always_inline struct sluice_port_key port_key(const union sluice_addr *addr, __u32 proto,
						       __u16 port)
{
	return (struct sluice_port_key){ .addr = *addr,
					 .port = bpf_htons(port),
					 .l4 = (__u8)l4_of(proto) };
}

/* The row of a port, and its bit there. */
static __always_inline __u64 *port_row(const struct sluice_port_key *port, bool make,
				       __u64 *ret_bit)
{
	struct sluice_port_key key = *port;
	__u16 n = bpf_ntohs(port->port);
	__u64 zero = 0, *row;

	*ret_bit = 1ULL << n % SLUICE_BLOCK_PORTS;
	key.port = bpf_htons(n - n % SLUICE_BLOCK_PORTS);
	row = bpf_map_lookup_elem(&exec_ports, &key);
	if (row || !make)
		return row;
	bpf_map_update_elem(&exec_ports, &key, &zero, BPF_NOEXIST);
	return bpf_map_lookup_elem(&exec_ports, &key);
}

/* Take a claim. False: somebody has it. */
GLOBAL bool port_take(const struct sluice_port_key *port)
{
	__u64 bit, *row;

	if (!port)
		return false;
	row = port_row(port, true, &bit);
	return !row || !(__sync_fetch_and_or(row, bit) & bit);
}

GLOBAL int port_drop(const struct sluice_port_key *port)
{
	__u64 bit, *row;

	if (!port)
		return 0;
	row = port_row(port, false, &bit);
	if (row)
		__sync_fetch_and_and(row, ~bit);
	return 0;
}

/*
 * Remember the claim on a port with its socket; sk: that, or the context of a hook that has one. Without memory for it the claim stays until it is the oldest.
 */
#define sock_remember(sk, claim)                                                                \
	({                                                                                      \
		struct sluice_port_key *port_ =                                                 \
			bpf_sk_storage_get(&exec_socks, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE); \
                                                                                                \
		if (port_)                                                                      \
			*port_ = *(claim);                                                      \
	})

/* It is closed, or tries something else. Was there a claim? */
#define sock_forget(sk)                                                                       \
	({                                                                                    \
		struct sluice_port_key *port_ = bpf_sk_storage_get(&exec_socks, sk, NULL, 0); \
		bool had_ = port_ && port_->port;                                             \
                                                                                              \
		if (had_) {                                                                   \
			port_drop(port_);                                                     \
			port_->port = 0;                                                      \
		}                                                                             \
		had_;                                                                         \
	})

/* What a socket is bound to. In sock_release the context is the socket itself, but its fields are not to be read there in the common way. */
struct sock___sluice {
	struct {
		__be32 skc_rcv_saddr;
		struct in6_addr skc_v6_rcv_saddr;
		__u16 skc_num;
	} __sk_common;
} __attribute__((preserve_access_index));

static __always_inline __u16 sock_bound(struct bpf_sock *ctx, union sluice_addr *ret)
{
	const struct sock___sluice *sk = (void *)ctx;
	__u16 port = BPF_CORE_READ(sk, __sk_common.skc_num);

	if (port && ctx->family == AF_INET)
		*ret = addr_of_v4(BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
	else if (port)
		BPF_CORE_READ_INTO(ret, sk, __sk_common.skc_v6_rcv_saddr);
	return port;
}

static __always_inline void owner_note(__u64 cookie)
{
	struct sluice_owner o = {
		.cgroup = bpf_get_current_cgroup_id(),
		.pid = bpf_get_current_pid_tgid() >> 32,
		.uid = (__u32)bpf_get_current_uid_gid(),
	};

	bpf_get_current_comm(o.comm, sizeof(o.comm));
	bpf_map_update_elem(&owners, &cookie, &o, BPF_ANY);
}

/* The network namespace's tcp_tw_reuse: may a connection follow on one in TIME_WAIT, to other machines too? */
struct net___sluice {
	struct {
		__u8 sysctl_tcp_tw_reuse;
	} ipv4;
} __attribute__((preserve_access_index));

struct tcp_sock___sluice {
	struct {
		struct {
			struct {
				struct {
					struct {
						struct net___sluice *net;
					} skc_net;
				} __sk_common;
			} sk;
		} icsk_inet;
	} inet_conn;
} __attribute__((preserve_access_index));

static __always_inline bool tw_reuse(struct bpf_sock *sk)
{
	struct tcp_sock___sluice *tp = sk ? (void *)bpf_skc_to_tcp_sock(sk) : NULL;

	return tp &&
	       tp->inet_conn.icsk_inet.sk.__sk_common.skc_net.net->ipv4.sysctl_tcp_tw_reuse == 1;
}

#endif
