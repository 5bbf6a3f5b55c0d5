// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Hooks of sockets that concern the whole network namespace:
 *   steer        sk_lookup: which socket gets what arrives for a shared address
 *   post_bind4   at the root control group: who binds to a shared address
 *   post_bind6
 *
 * What steer does. The kernel asks it before it gives a TCP SYN to a listener, or a datagram to a UDP socket that is not connected; never for connections. A
 * listener on a wildcard address must not be reached through a shared one. What arrives by an uplink has been judged at TC ingress, which drops in silence
 * what no socket bound to the very address waits for. Elsewhere (loopback, the inner side) there is no judge but this program, and its "no" is a RST or an
 * ICMP error: only leased ports pass, whoever may use them. The port may be leased and only a wildcard listener have it: this hook can't tell, since
 * it runs before the kernel looks for the socket. So those inside, who reach that listener by the machine's own address anyway, reach it here as well, on
 * this one port; from outside nobody does.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>

#include "maps.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define AF_INET 2

#define PASS_BIND 1

/* A context's field may be read once only and as it is: the compiler must neither combine loads nor come back for another. */
#define field(f) (*(volatile typeof(f) *)&(f))

static __always_inline union sluice_addr mapped(__be32 ip)
{
	union sluice_addr a = { .w = { 0, 0, bpf_htonl(0xffff), ip } };

	return a;
}

/* Give the packet to the socket in a slot. False: there is none, or it can't have it (another family or protocol). */
static __always_inline bool steer_to(struct bpf_sk_lookup *ctx, __u32 slot)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&steered, &slot);
	bool done;

	if (!sk)
		return false;
	done = !bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);
	return done;
}

/*
 * A lease for connected sockets has no listeners. In UDP, where no port is shared, an unconnected socket may well stand on one that was leased
 * like this.
 */
static __always_inline bool listens(const struct sluice_lease *l, __u8 l4)
{
	return l->kind == SLUICE_LEASE_EXCLUSIVE || l4 == SLUICE_UDP;
}

SEC("sk_lookup")
int steer(struct bpf_sk_lookup *ctx)
{
	__u32 family = field(ctx->family), proto = field(ctx->protocol);
	__u32 ifindex = field(ctx->ingress_ifindex);
	struct sluice_port_key key = {};
	struct sluice_lease *l;

	/* Without an interface it is no packet, but a question of another program (of "exec", at each connect()) or of sock_diag: what stands there is the answer. */
	if (!ifindex)
		return SK_PASS;
	if (family == AF_INET) {
		key.addr = mapped(field(ctx->local_ip4));
	} else {
		key.addr.w[0] = field(ctx->local_ip6[0]);
		key.addr.w[1] = field(ctx->local_ip6[1]);
		key.addr.w[2] = field(ctx->local_ip6[2]);
		key.addr.w[3] = field(ctx->local_ip6[3]);
	}
	if (!bpf_map_lookup_elem(&addrs, &key.addr))
		return SK_PASS;
	key.port = bpf_htons((__u16)field(ctx->local_port));
	key.l4 = proto == IPPROTO_TCP ? SLUICE_TCP : SLUICE_UDP;
	l = lease_row(&key);
	if (l && l->steer && steer_to(ctx, l->steer - 1))
		return SK_PASS;
	if (bpf_map_lookup_elem(&uplinks, &ifindex))
		return SK_PASS;
	return l && listens(l, key.l4) ? SK_PASS : SK_DROP;
}

/* Remember who bound a socket, if it is at a shared address of the daemon's namespace. Never refuses. */
static __always_inline int note(struct bpf_sock *sk, const union sluice_addr *addr)
{
	struct sluice_owner o = {};
	struct sluice_conf *c;
	__u32 zero = 0;
	__u64 cookie;

	c = bpf_map_lookup_elem(&conf, &zero);
	if (!c || c->netns_cookie != bpf_get_netns_cookie(sk) || !bpf_map_lookup_elem(&addrs, addr))
		return PASS_BIND;
	cookie = bpf_get_socket_cookie(sk);
	o.cgroup = bpf_get_current_cgroup_id();
	o.pid = bpf_get_current_pid_tgid() >> 32;
	o.uid = (__u32)bpf_get_current_uid_gid();
	bpf_get_current_comm(o.comm, sizeof(o.comm));
	bpf_map_update_elem(&owners, &cookie, &o, BPF_ANY);
	return PASS_BIND;
}

SEC("cgroup/post_bind4")
int post_bind4(struct bpf_sock *sk)
{
	union sluice_addr addr = mapped(field(sk->src_ip4));

	return note(sk, &addr);
}

/* Of an IPv6 socket, whose IPv4 addresses are mapped. */
SEC("cgroup/post_bind6")
int post_bind6(struct bpf_sock *sk)
{
	union sluice_addr addr = {};

	addr.w[0] = field(sk->src_ip6[0]);
	addr.w[1] = field(sk->src_ip6[1]);
	addr.w[2] = field(sk->src_ip6[2]);
	addr.w[3] = field(sk->src_ip6[3]);
	return note(sk, &addr);
}
