// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * The watcher's eye in the packet path: a netfilter program at POSTROUTING after srcnat, where a connection's first packet has its translation and its entry
 * is not yet in the table.
 *
 *	watch    tells of each connection that a local socket opens and whose source port was changed while its address was kept
 *
 * What is a first packet. The entry is new (IP_CT_NEW), and not yet confirmed: the hook that confirms it is the last one of all. A retransmission, or the second
 * datagram of a one-way flow, finds a confirmed entry and is nothing. When the entry is gone meanwhile (deleted, timed out, or the first packet was dropped before it was
 * confirmed) the retransmission makes another entry and is told like any first packet.
 *
 * Whose packet. skb->sk must be a full socket of this very namespace, whose port and protocol are those of the original tuple: so the outer packet of a tunnel is not laid at
 * the door of the socket that sent the inner one, and a raw socket, which made up its ports, is left alone.
 *
 * Who sends. A TCP socket sends in process context only while the process owns its lock, and never from a softirq then: sk_lock.owned tells the two apart without fail.
 * UDP sends without the lock; what its sender surely has is the socket among its descriptors, so they are searched, the first SEARCH_FDS of them. Either way the sender
 * is a user process. What is in doubt is 0.
 *
 * The kernel's types are named here with no more than the fields that are used; libbpf finds where these are in the running kernel, or in its nf_conntrack module. The entry is
 * read with bpf_probe_read_kernel(): skb->_nfct is a number to the verifier, and the type that it points to may be a module's.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "sluice_watch.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RING_BYTES (1 << 20)

#define NF_ACCEPT 1

#define CT_INFO       7UL /* bits of skb->_nfct */
#define IP_CT_NEW     2
#define IPS_CONFIRMED 8

#define TCP_TIME_WAIT    6
#define TCP_NEW_SYN_RECV 12

#define AF_INET6   10
#define PF_KTHREAD 0x00200000

#define FDS_A_TURN 32
#define SEARCH_FDS 16384

#define __kernel_type __attribute__((preserve_access_index))

struct ns_common {
	unsigned int inum;
} __kernel_type;

struct net {
	struct ns_common ns;
} __kernel_type;

struct possible_net {
	struct net *net;
} __kernel_type;

struct inode {
	unsigned long i_ino;
} __kernel_type;

struct file {
	struct inode *f_inode;
} __kernel_type;

struct socket {
	struct file *file;
} __kernel_type;

struct kernfs_node {
	__u64 id;
} __kernel_type;

struct cgroup {
	struct kernfs_node *kn;
} __kernel_type;

struct sock_common {
	__u16 skc_num;
	volatile unsigned char skc_state;
	struct possible_net skc_net;
	struct {
		__s64 counter;
	} __kernel_type skc_cookie;
} __kernel_type;

struct sock {
	struct sock_common __sk_common;
	struct {
		int owned;
	} __kernel_type sk_lock;
	struct {
		struct cgroup *cgroup;
	} __kernel_type sk_cgrp_data;
	struct {
		unsigned int val;
	} __kernel_type sk_uid;
	__u16 sk_protocol;
	struct socket *sk_socket;
} __kernel_type;

struct sk_buff {
	struct sock *sk;
	unsigned long _nfct;
} __kernel_type;

struct nf_hook_state {
	struct net *net;
} __kernel_type;

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
} __kernel_type;

struct files_struct {
	struct fdtable *fdt;
} __kernel_type;

struct task_struct {
	unsigned int flags;
	void *mm;
	int tgid;
	char comm[16];
	struct files_struct *files;
} __kernel_type;

/* Of connection tracking. */
union nf_inet_addr {
	__u32 all[4];
} __kernel_type;

struct nf_conntrack_tuple {
	struct {
		union nf_inet_addr u3;
		union {
			__be16 all;
		} __kernel_type u;
		__u16 l3num;
	} __kernel_type src;
	struct {
		union nf_inet_addr u3;
		union {
			__be16 all;
		} __kernel_type u;
		__u8 protonum;
	} __kernel_type dst;
} __kernel_type;

struct nf_conntrack_tuple_hash {
	struct nf_conntrack_tuple tuple;
} __kernel_type;

struct nf_conntrack_zone {
	__u16 id;
} __kernel_type;

enum nf_ct_ext_id {
	NF_CT_EXT_HELPER,
};

struct nf_ct_ext {
	__u8 offset[1];
} __kernel_type;

/* Its type is the module's alone, which takes CAP_SYS_ADMIN to look at; this has been its first field ever since there are helpers. */
struct nf_conn_help {
	void *helper;
};

struct nf_conn {
	struct nf_conntrack_zone zone;
	struct nf_conntrack_tuple_hash tuplehash[2];
	unsigned long status;
	struct nf_ct_ext *ext;
} __kernel_type;

/* What the program is called with; the verifier gives both pointers their types. */
struct bpf_nf_ctx {
	const struct nf_hook_state *state;
	struct sk_buff *skb;
};

/* All namespaces' records. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} rewrites SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sluice_watch_stats);
} watch_stats SEC(".maps");

/* A field of the entry; 0 when it can't be read. */
#define ct_read(to, field) bpf_core_read(&(to), sizeof(to), &(field))

/* Netfilter programs may be preempted and moved to another CPU. */
static __always_inline void count(__u64 *counter)
{
	__sync_fetch_and_add(counter, 1);
}

static __always_inline bool full_socket(const struct sock *sk)
{
	__u8 state = sk->__sk_common.skc_state;

	return state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV;
}

/* Search of a process's descriptors. */
struct search {
	struct file **fds;
	struct file *file;
	__u32 n;
	bool found;
};

static long search_turn(__u32 turn, struct search *s)
{
	struct file *fds[FDS_A_TURN];
	__u32 from = turn * FDS_A_TURN;

	/* The kernel's tables have multiples of 64 places. */
	if (from >= s->n || bpf_probe_read_kernel(fds, sizeof(fds), s->fds + from))
		return 1;
	for (int i = 0; i < FDS_A_TURN; i++) {
		if (fds[i] == s->file) {
			s->found = true;
			return 1;
		}
	}
	return 0;
}

static __always_inline bool has_open(struct task_struct *task, struct file *file)
{
	struct search s = { .file = file };

	if (!file || !task->files)
		return false;
	s.fds = task->files->fdt->fd;
	s.n = task->files->fdt->max_fds;
	bpf_loop(SEARCH_FDS / FDS_A_TURN, search_turn, &s, 0);
	return s.found;
}

static __always_inline void tell_sender(struct sluice_rewrite *r, const struct sock *sk,
					struct file *file)
{
	struct task_struct *task = bpf_get_current_task_btf();

	r->pid = 0;
	__builtin_memset(r->comm, 0, sizeof(r->comm));
	if (!task->mm || task->flags & PF_KTHREAD)
		return;
	if (r->l4 == SLUICE_TCP ? !sk->sk_lock.owned : !has_open(task, file))
		return;
	r->pid = (__u32)task->tgid;
	bpf_core_read(r->comm, sizeof(r->comm), &task->comm);
}

static __always_inline void tell_socket(struct sluice_rewrite *r, const struct sock *sk)
{
	struct socket *socket = sk->sk_socket;
	struct file *file = socket ? socket->file : NULL;

	r->cookie = (__u64)sk->__sk_common.skc_cookie.counter;
	r->inode = file ? file->f_inode->i_ino : 0;
	r->uid = sk->sk_uid.val;
	r->cgroup = 0;
	if (bpf_core_field_exists(sk->sk_cgrp_data.cgroup))
		r->cgroup = sk->sk_cgrp_data.cgroup->kn->id;
	tell_sender(r, sk, file);
}

static __always_inline void copy_addr(union sluice_addr *to, const union nf_inet_addr *from,
				      bool ip6)
{
	if (ip6) {
		bpf_probe_read_kernel(to, sizeof(*to), from);
		return;
	}
	to->d[0] = 0;
	to->w[2] = bpf_htonl(0xffff);
	bpf_probe_read_kernel(&to->w[3], sizeof(to->w[3]), from);
}

#define tuple_addr(to, addr) copy_addr(to, __builtin_preserve_access_index(&(addr)), ip6)

static __always_inline void tell_tuples(struct sluice_rewrite *r, struct nf_conn *ct, bool ip6)
{
	tuple_addr(&r->dst, ct->tuplehash[0].tuple.dst.u3);
	tuple_addr(&r->reply_src, ct->tuplehash[1].tuple.src.u3);
	ct_read(r->dport, ct->tuplehash[0].tuple.dst.u.all);
	ct_read(r->reply_sport, ct->tuplehash[1].tuple.src.u.all);
}

static __always_inline bool has_helper(struct nf_conn *ct)
{
	struct nf_ct_ext *ext = NULL;
	struct nf_conn_help *help;
	void *helper = NULL;
	__u8 offset = 0;

	ct_read(ext, ct->ext);
	if (!ext)
		return false;
	bpf_probe_read_kernel(&offset, sizeof(offset),
			      (void *)__builtin_preserve_access_index(&ext->offset) +
				      bpf_core_enum_value(enum nf_ct_ext_id, NF_CT_EXT_HELPER));
	help = (void *)ext + offset;
	bpf_probe_read_kernel(&helper, sizeof(helper), &help->helper);
	return offset && helper;
}

SEC("netfilter")
int watch(struct bpf_nf_ctx *ctx)
{
	struct nf_conn *ct = (void *)(ctx->skb->_nfct & ~CT_INFO);
	struct sock *sk = ctx->skb->sk;
	struct sluice_watch_stats *stats;
	union sluice_addr src, out;
	struct sluice_rewrite *r;
	__be16 sport, wire;
	__u32 zero = 0;
	unsigned long status;
	__u16 proto, l3num;
	__u8 protonum;
	bool ip6;

	if ((ctx->skb->_nfct & CT_INFO) != IP_CT_NEW || !sk || !full_socket(sk))
		return NF_ACCEPT;
	proto = sk->sk_protocol;
	if ((proto != IPPROTO_TCP && proto != IPPROTO_UDP) ||
	    sk->__sk_common.skc_net.net != ctx->state->net)
		return NF_ACCEPT;
	ct_read(status, ct->status);
	if (status & IPS_CONFIRMED)
		return NF_ACCEPT;
	stats = bpf_map_lookup_elem(&watch_stats, &zero);
	if (!stats)
		return NF_ACCEPT;
	count(&stats->seen);

	ct_read(sport, ct->tuplehash[0].tuple.src.u.all);
	ct_read(wire, ct->tuplehash[1].tuple.dst.u.all);
	if (sport == wire || sport != bpf_htons(sk->__sk_common.skc_num))
		return NF_ACCEPT;
	ct_read(protonum, ct->tuplehash[0].tuple.dst.protonum);
	if (protonum != proto)
		return NF_ACCEPT;

	ct_read(l3num, ct->tuplehash[0].tuple.src.l3num);
	ip6 = l3num == AF_INET6;
	tuple_addr(&src, ct->tuplehash[0].tuple.src.u3);
	tuple_addr(&out, ct->tuplehash[1].tuple.dst.u3);
	/* A rule that changes the address changes the port as it likes: that is no accident. */
	if (src.d[0] != out.d[0] || src.d[1] != out.d[1])
		return NF_ACCEPT;

	r = bpf_ringbuf_reserve(&rewrites, sizeof(*r), 0);
	if (!r) {
		count(&stats->lost);
		return NF_ACCEPT;
	}
	tell_tuples(r, ct, ip6);
	r->src = src;
	r->reply_dst = out;
	r->time_ns = bpf_ktime_get_boot_ns();
	r->sport = sport;
	r->reply_dport = wire;
	r->status = (__u32)status;
	r->netns = ctx->state->net->ns.inum;
	r->zone = 0;
	if (bpf_core_field_exists(ct->zone))
		ct_read(r->zone, ct->zone.id);
	r->l4 = proto == IPPROTO_TCP ? SLUICE_TCP : SLUICE_UDP;
	r->helper = has_helper(ct);
	r->pad = 0;
	tell_socket(r, sk);
	bpf_ringbuf_submit(r, 0);
	count(&stats->sent);
	return NF_ACCEPT;
}
