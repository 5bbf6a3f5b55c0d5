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

/* A claim on a tuple lapses when no socket is on it after this time: the kernel did not get as far as to enter it. */
#define CLAIM_NS 1000000000ULL

/*
 * Who is about to use a tuple (TCP on a shared lease), or has a port for itself (dst, dport zero). An LRU table: what is old is of no use any more, or only a
 * hint.
 */
struct claim {
	__u64 cookie;
	__u64 at_ns; /* 0: being removed */
};

HASH(exec_claims, BPF_MAP_TYPE_LRU_HASH, struct sluice_flow_key, struct claim, 65536, 0);

/* The claim on a port that a socket has. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sluice_flow_key);
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

/* What the lease can't serve: IPv4 is translated at the uplink, IPv6 must not leave with the machine's own address. */
static __always_inline int unserved(const union sluice_addr *dst)
{
	return addr_is_v4(dst) ? 1 : deny(EADDRNOTAVAIL);
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

/* Claims */

/*
 * Take a claim, or have it already. lapses: where no socket is to be seen on the tuple, an old claim is void, and one of those who see that
 * gets it.
 */
static bool claim_take(const struct sluice_flow_key *key, __u64 cookie, __u64 now_ns, bool lapses)
{
	struct claim new = { .cookie = cookie, .at_ns = now_ns }, *old;
	__u64 at_ns;

	if (!bpf_map_update_elem(&exec_claims, key, &new, BPF_NOEXIST))
		return true;
	old = bpf_map_lookup_elem(&exec_claims, key);
	/* Gone meanwhile? */
	if (!old)
		return !bpf_map_update_elem(&exec_claims, key, &new, BPF_NOEXIST);
	if (old->cookie == cookie)
		return true;
	at_ns = old->at_ns;
	if (!lapses || !at_ns || (__s64)(now_ns - at_ns) < (__s64)CLAIM_NS ||
	    __sync_val_compare_and_swap(&old->at_ns, at_ns, now_ns) != at_ns)
		return false;
	old->cookie = cookie;
	return true;
}

static void claim_drop(const struct sluice_flow_key *key, __u64 cookie)
{
	struct claim *c = bpf_map_lookup_elem(&exec_claims, key);
	__u64 at_ns;

	if (!c || c->cookie != cookie)
		return;
	/* Not if somebody takes it over just now. */
	at_ns = c->at_ns;
	if (at_ns && __sync_val_compare_and_swap(&c->at_ns, at_ns, 0) == at_ns)
		bpf_map_delete_elem(&exec_claims, key);
}

/*
 * Remember the claim on a port with its socket; sk: that, or the context of a hook that has one. Without memory for it the claim stays until it is the oldest.
 */
#define sock_remember(sk, claim)                                                                \
	({                                                                                      \
		struct sluice_flow_key *key_ =                                                  \
			bpf_sk_storage_get(&exec_socks, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE); \
                                                                                                \
		if (key_)                                                                       \
			*key_ = *(claim);                                                       \
	})

/* It is closed, or tries something else. */
#define sock_forget(sk, cookie)                                                              \
	({                                                                                   \
		struct sluice_flow_key *key_ = bpf_sk_storage_get(&exec_socks, sk, NULL, 0); \
                                                                                             \
		if (key_ && key_->proto) {                                                   \
			claim_drop(key_, cookie);                                            \
			key_->proto = 0;                                                     \
		}                                                                            \
	})

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
