/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The hooks of "sluice exec": attached to the control group above those of the programs, they choose the source of what leaves by an uplink out of
 * the program's lease. Which lease that is says map "execs", by the control group of whoever calls; the kernel runs the hooks by the
 * control group that the *socket* was created in. So a socket that was made outside and handed in is left alone, and so is one of ours in
 * the hands of a process outside.
 *
 * What cannot be served here leaves with the machine's own address, and is translated at the uplink. It is of the family that the lease is of; of the other one, nothing leaves.
 *
 * A TCP connection on a shared lease takes any port whose 5-tuple is free. The kernel's tables say which are; between the hook and
 * the entry of the socket in these tables a claim keeps other threads off. On an exclusive lease it takes a port that no other socket has a claim
 * on. UDP takes a port that no other socket is bound to, and there the kernel's bind() is the arbiter: SO_REUSEADDR and SO_REUSEPORT are off meanwhile.
 */
#include "exec.bpf.h"

/* What a search for a port knows. A context cannot be kept in a map, so all of this stands on the stack. */
struct search {
	struct bpf_sock_addr *ctx;
	const struct sluice_exec *exec;
	struct sluice_port_key key;   /* the port that is tried */
	struct sluice_flow_key tuple; /* TCP: that of the connection */
	__u64 claim;                  /* on the tuple */
	__u32 start;
	__u32 n;
	long err;
	__u16 port;      /* what was found; 0: nothing */
	__u16 time_wait; /* a port where nothing but a TIME_WAIT is in the way */
	bool tcp;
	bool v6_socket;
	bool shared;
	bool ignore_claims;
};

static __always_inline __u16 search_port(const struct search *s, __u32 i)
{
	return s->exec->first + (s->start + i) % s->n;
}

/* Bind the socket; the errors are the kernel's. */
static long bind_to(struct search *s, __u16 port)
{
	if (s->v6_socket) {
		struct sockaddr_in6 sin6 = { .sin6_family = AF_INET6,
					     .sin6_port = bpf_htons(port) };

		__builtin_memcpy(&sin6.sin6_addr, &s->exec->addr, sizeof(sin6.sin6_addr));
		return bpf_bind(s->ctx, (struct sockaddr *)&sin6, sizeof(sin6));
	}
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = bpf_htons(port) };

	sin.sin_addr.s_addr = s->exec->addr.w[3];
	return bpf_bind(s->ctx, (struct sockaddr *)&sin, sizeof(sin));
}

/* Claim the port, or the tuple where those share a port. */
static __always_inline bool search_take(struct search *s)
{
	return s->shared ? claim_take(&s->tuple, &s->claim) : port_take(&s->key);
}

static __always_inline void search_drop(struct search *s)
{
	if (s->shared)
		claim_drop(&s->tuple, s->claim);
	else
		port_drop(&s->key);
}

/* Bind to a port that is claimed, by us if it is ours. Returns what the loop's callback returns: 1 ends the search. */
static long search_bind(struct search *s, __u16 port, bool ours)
{
	s->err = bind_to(s, port);
	if (!s->err) {
		s->port = port;
		return 1;
	}
	if (ours)
		search_drop(s);
	/* Some other socket has it. Everything else would be the same at the next port. */
	return s->err != -EADDRINUSE;
}

/* The state of the TCP socket at the tuple; 0: there is none. A listener that stands elsewhere is none; one at the very address and port is. */
static int tuple_state(struct search *s)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	union sluice_addr src;
	int state = 0;
	__u32 size;

	if (addr_is_v4(&s->tuple.dst)) {
		t.ipv4.saddr = s->tuple.dst.w[3];
		t.ipv4.sport = s->tuple.dport;
		t.ipv4.daddr = s->tuple.src.w[3];
		t.ipv4.dport = s->tuple.sport;
		size = sizeof(t.ipv4);
	} else {
		__builtin_memcpy(t.ipv6.saddr, &s->tuple.dst, sizeof(t.ipv6.saddr));
		t.ipv6.sport = s->tuple.dport;
		__builtin_memcpy(t.ipv6.daddr, &s->tuple.src, sizeof(t.ipv6.daddr));
		t.ipv6.dport = s->tuple.sport;
		size = sizeof(t.ipv6);
	}
	sk = bpf_skc_lookup_tcp(s->ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	/* An sk_lookup program may have named a socket at another port. */
	src = sock_src(sk);
	if (sk->src_port == bpf_ntohs(s->tuple.sport) && addr_equal(&src, &s->tuple.src))
		state = sk->state;
	bpf_sk_release(sk);
	return state;
}

static __always_inline void time_wait_note(struct search *s, __u16 port, int state)
{
	if (state == TCP_TIME_WAIT && !s->time_wait)
		s->time_wait = port;
}

/* Beside other sockets on the port, and beside what is in TIME_WAIT. Exclusive: other sockets would have a claim on the port. */
static long try_beside(__u32 i, struct search *s)
{
	__u16 port = search_port(s, i);
	int state;

	s->key.port = s->tuple.sport = bpf_htons(port);
	/* The first one is likely to be free; further on, who is turned away should not leave traces in the table of claims. */
	state = i ? tuple_state(s) : 0;
	if (state || !search_take(s)) {
		time_wait_note(s, port, state);
		return 0;
	}
	/* A socket gives up its claim when the kernel shows it: so this must be asked with the claim in hand. */
	state = tuple_state(s);
	if (state) {
		time_wait_note(s, port, state);
		search_drop(s);
		return 0;
	}
	return search_bind(s, port, true);
}

static long try_alone(__u32 i, struct search *s)
{
	__u16 port = search_port(s, i);

	bool ours;

	s->key.port = bpf_htons(port);
	ours = port_take(&s->key);
	return ours || s->ignore_claims ? search_bind(s, port, ours) : 0;
}

static __always_inline bool search_init(struct search *s, struct bpf_sock_addr *ctx,
					const struct sluice_exec *exec, __u32 proto)
{
	s->ctx = ctx;
	s->exec = exec;
	s->key = port_key(&exec->addr, proto, 0);
	s->n = (__u32)exec->last - exec->first + 1;
	s->tcp = proto == IPPROTO_TCP;
	s->v6_socket = ctx->family == AF_INET6;
	if (exec->last < exec->first)
		return false;
	s->start = bpf_get_prandom_u32() % s->n;
	return true;
}

/* SO_REUSEADDR and SO_REUSEPORT of a socket, to be put back. */
struct reuse {
	int addr, port;
};

static __always_inline int flag_get(struct bpf_sock_addr *ctx, int option)
{
	int v = 0;

	bpf_getsockopt(ctx, SOL_SOCKET, option, &v, sizeof(v));
	return v;
}

static __always_inline void flag_set(struct bpf_sock_addr *ctx, int option, int v)
{
	bpf_setsockopt(ctx, SOL_SOCKET, option, &v, sizeof(v));
}

/*
 * A port that has other sockets, or had them a minute ago, asks for SO_REUSEADDR, and that it stays on: the kernel looks at it again whenever another
 * socket is bound to the port.
 */
static __always_inline void connect_beside(struct search *s)
{
	int was = flag_get(s->ctx, SO_REUSEADDR);

	if (!was)
		flag_set(s->ctx, SO_REUSEADDR, 1);
	bpf_loop(s->n, try_beside, s, 0);
	/* With tcp_tw_reuse the kernel lets a connection follow on one in TIME_WAIT. It decides; here it is the last resort. */
	if (!s->port && s->time_wait && tw_reuse(s->ctx->sk)) {
		s->key.port = s->tuple.sport = bpf_htons(s->time_wait);
		if (search_take(s))
			search_bind(s, s->time_wait, true);
	}
	if (!s->port && !was)
		flag_set(s->ctx, SO_REUSEADDR, 0);
}

static __always_inline void connect_alone(struct search *s)
{
	int addr = flag_get(s->ctx, SO_REUSEADDR), port = flag_get(s->ctx, SO_REUSEPORT);

	if (addr)
		flag_set(s->ctx, SO_REUSEADDR, 0);
	if (port)
		flag_set(s->ctx, SO_REUSEPORT, 0);
	bpf_loop(s->n, try_alone, s, 0);
	if (!s->port) {
		/* Claims are a hint here, and may be of a socket that is gone; what bind() says is exact. */
		s->ignore_claims = true;
		bpf_loop(s->n, try_alone, s, 0);
	}
	if (addr)
		flag_set(s->ctx, SO_REUSEADDR, 1);
	if (port)
		flag_set(s->ctx, SO_REUSEPORT, 1);
}

static __always_inline int connect_from(struct bpf_sock_addr *ctx, const struct sluice_exec *exec,
					const union sluice_addr *dst, __u32 proto)
{
	/*
	 * A socket that is bound to a device has a port for itself: the kernel would let it have a tuple that another socket has which is not, and does not show it to
	 * a look-up that names no device.
	 */
	bool beside = proto == IPPROTO_TCP && !ctx->sk->bound_dev_if;
	struct search s = {};

	if (!search_init(&s, ctx, exec, proto))
		return deny(EADDRNOTAVAIL);
	s.shared = beside && exec->kind == SLUICE_LEASE_SHARED;
	s.tuple.src = exec->addr;
	s.tuple.dst = *dst;
	s.tuple.dport = (__be16)ctx->user_port;
	s.tuple.proto = proto;
	if (!s.shared)
		sock_forget(ctx->sk);
	if (beside)
		connect_beside(&s);
	if (!s.port && !s.shared)
		connect_alone(&s);
	if (!s.port)
		return deny(EADDRNOTAVAIL);
	/* A UDP socket stands on its port until it is closed. */
	if (!s.shared && s.tcp)
		sock_remember(ctx->sk, &s.key);
	owner_note(bpf_get_socket_cookie(ctx));
	return 1;
}

/* A connection from a socket that is bound to a port of the lease already: keep others off its tuple, if that is not taken. */
static __always_inline void connect_bound(struct bpf_sock_addr *ctx, const struct sluice_exec *exec,
					  const union sluice_addr *dst)
{
	struct sluice_flow_key key = {
		.src = exec->addr,
		.dst = *dst,
		.sport = bpf_htons(ctx->sk->src_port),
		.dport = (__be16)ctx->user_port,
		.proto = IPPROTO_TCP,
	};
	__u64 claim;

	claim_take(&key, &claim);
}

/* The lease that leads to a destination. NULL: *ret_answer is the hook's answer, whatever the protocol. */
static __always_inline const struct sluice_exec *exec_to(struct bpf_sock_addr *ctx,
							 const union sluice_addr *dst,
							 int *ret_answer)
{
	const struct sluice_exec *exec = exec_find(ctx);
	struct bpf_sock *sk = ctx->sk;

	*ret_answer = 1;
	if (!exec || !sk || !dst_leaves(sk, exec, dst))
		return NULL;
	if (exec->protos && addr_is_v4(dst) == addr_is_v4(&exec->addr))
		return exec;
	/* Without protocols, the lease has ended, and its processes go on. */
	*ret_answer = deny(exec->protos ? ENETUNREACH : EADDRNOTAVAIL);
	return NULL;
}

static __always_inline int connect_any(struct bpf_sock_addr *ctx, const union sluice_addr *dst)
{
	const struct sluice_exec *exec;
	struct bpf_sock *sk = ctx->sk;
	__u32 proto = ctx->protocol;
	int l4 = l4_of(proto), answer;
	union sluice_addr src;

	exec = exec_to(ctx, dst, &answer);
	if (!exec || !sk)
		return answer;
	if (l4 < 0 || !(exec->protos & 1 << l4))
		return 1;
	src = sock_src(sk);
	if (!addr_equal(&src, &exec->addr)) {
		if (sk->src_port || !addr_is_any(&src))
			return 1;
	} else if (sk->src_port) {
		if (proto == IPPROTO_TCP)
			connect_bound(ctx, exec, dst);
		return 1;
	}
	return connect_from(ctx, exec, dst, proto);
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	union sluice_addr dst = addr_of_v4(ctx->user_ip4);

	return connect_any(ctx, &dst);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	union sluice_addr dst = ADDR_FIELD(ctx, user_ip6);

	return connect_any(ctx, &dst);
}

/*
 * Unconnected UDP. The kernel has bound a port already, and no hook can change that. src: the source that the packet is to have; any: whichever
 * the kernel takes.
 */
static __always_inline int sendmsg_any(struct bpf_sock_addr *ctx, const union sluice_addr *dst,
				       const union sluice_addr *src)
{
	const struct sluice_exec *exec;
	struct bpf_sock *sk = ctx->sk;
	int answer;

	exec = exec_to(ctx, dst, &answer);
	if (!exec || !sk)
		return answer;
	if (ctx->protocol != IPPROTO_UDP)
		return 1;
	if (addr_equal(src, &exec->addr))
		return port_is_of(exec, SLUICE_UDP, sk->src_port) ? 1 : deny(EADDRNOTAVAIL);
	if (bpf_map_lookup_elem(&addrs, src))
		return deny(EADDRNOTAVAIL);
	return 1;
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	union sluice_addr dst = addr_of_v4(ctx->user_ip4), src = addr_of_v4(ctx->msg_src_ip4);

	return sendmsg_any(ctx, &dst, &src);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	union sluice_addr dst = ADDR_FIELD(ctx, user_ip6);
	union sluice_addr src = ADDR_FIELD(ctx, msg_src_ip6);

	return sendmsg_any(ctx, &dst, &src);
}

/* Is a socket waiting at the port for whoever comes: a listener, an unconnected UDP socket? On a wildcard address counts as well: bind() would fail. */
static bool port_waits(struct search *s)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	bool found = false;
	__u32 size;

	if (addr_is_v4(&s->key.addr)) {
		t.ipv4.daddr = s->key.addr.w[3];
		t.ipv4.dport = s->key.port;
		size = sizeof(t.ipv4);
	} else {
		__builtin_memcpy(t.ipv6.daddr, &s->key.addr, sizeof(t.ipv6.daddr));
		t.ipv6.dport = s->key.port;
		size = sizeof(t.ipv6);
	}
	sk = s->tcp ? bpf_sk_lookup_tcp(s->ctx, &t, size, BPF_F_CURRENT_NETNS, 0)
		    : bpf_sk_lookup_udp(s->ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (sk) {
		found = sk->src_port == bpf_ntohs(s->key.port);
		bpf_sk_release(sk);
	}
	return found;
}

static long try_name(__u32 i, struct search *s)
{
	__u16 port = search_port(s, i);

	s->key.port = bpf_htons(port);
	if (port_waits(s) || !port_take(&s->key))
		return 0;
	s->port = port;
	return 1;
}

/* bind() to the lease's address with port 0: name a port that no socket of ours is known to have. */
static __always_inline int bind_choose(struct bpf_sock_addr *ctx, const struct sluice_exec *exec,
				       __u32 proto)
{
	struct search s = {};

	if (!search_init(&s, ctx, exec, proto))
		return deny(EADDRNOTAVAIL);
	sock_forget(ctx->sk);
	bpf_loop(s.n, try_name, &s, 0);
	if (!s.port)
		return deny(EADDRNOTAVAIL);
	/* Beside the connections that connect() has put on the port. */
	if (proto == IPPROTO_TCP && exec->kind == SLUICE_LEASE_SHARED)
		flag_set(ctx, SO_REUSEADDR, 1);
	ctx->user_port = bpf_htons(s.port);
	sock_remember(ctx->sk, &s.key);
	return 1;
}

/* Is it the lease that a socket is bound to, with a protocol that has ports? False: *ret_answer is the hook's answer. */
static __always_inline bool binds_to(const struct sluice_exec *exec, const union sluice_addr *addr,
				     int l4, int *ret_answer)
{
	*ret_answer = 1;
	if (!exec)
		return false;
	if (addr_equal(addr, &exec->addr))
		return l4 >= 0;
	if (bpf_map_lookup_elem(&addrs, addr))
		*ret_answer = deny(EADDRNOTAVAIL);
	return false;
}

static __always_inline int bind_any(struct bpf_sock_addr *ctx, const union sluice_addr *addr)
{
	const struct sluice_exec *exec = exec_find(ctx);
	__u16 port = bpf_ntohs((__be16)ctx->user_port);
	__u32 proto = ctx->protocol;
	int l4 = l4_of(proto), answer;

	if (!ctx->sk)
		return 1;
	if (!binds_to(exec, addr, l4, &answer))
		return answer;
	if (!port && exec->protos & 1 << l4)
		return bind_choose(ctx, exec, proto);
	return port_is_of(exec, l4, port) ? 1 : deny(EADDRNOTAVAIL);
}

SEC("cgroup/bind4")
int bind4(struct bpf_sock_addr *ctx)
{
	union sluice_addr addr = addr_of_v4(ctx->user_ip4);

	return bind_any(ctx, &addr);
}

SEC("cgroup/bind6")
int bind6(struct bpf_sock_addr *ctx)
{
	union sluice_addr addr = ADDR_FIELD(ctx, user_ip6);

	return bind_any(ctx, &addr);
}

/* What was bound in fact, whoever changed it on the way, is judged once more, and noted. bpf_bind() does not come here. */
static __always_inline int post_bind_any(struct bpf_sock *ctx, const union sluice_addr *addr)
{
	const struct sluice_exec *exec = exec_find(ctx);
	int l4 = l4_of(ctx->protocol), answer;
	struct sluice_port_key key;

	if (!binds_to(exec, addr, l4, &answer))
		return answer;
	if (!port_is_of(exec, l4, ctx->src_port))
		return deny(EADDRNOTAVAIL);
	key = port_key(addr, ctx->protocol, (__u16)ctx->src_port);
	if (port_take(&key) && l4 == SLUICE_TCP)
		sock_remember(ctx, &key);
	owner_note(bpf_get_socket_cookie(ctx));
	return 1;
}

SEC("cgroup/post_bind4")
int exec_post_bind4(struct bpf_sock *ctx)
{
	union sluice_addr addr = addr_of_v4(ctx->src_ip4);

	return post_bind_any(ctx, &addr);
}

SEC("cgroup/post_bind6")
int exec_post_bind6(struct bpf_sock *ctx)
{
	union sluice_addr addr = ADDR_FIELD(ctx, src_ip6);

	return post_bind_any(ctx, &addr);
}

/* The connection is in the kernel's tables: whoever asks for its tuple finds it there. Comes for MPTCP's own sockets too. */
SEC("sockops")
int connecting(struct bpf_sock_ops *ctx)
{
	struct sluice_flow_key key = { .proto = IPPROTO_TCP };

	if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB)
		return 1;
	key.sport = bpf_htons(ctx->local_port);
	key.dport = bpf_htons(bpf_ntohl(ctx->remote_port));
	if (ctx->family == AF_INET) {
		key.src = addr_of_v4(ctx->local_ip4);
		key.dst = addr_of_v4(ctx->remote_ip4);
	} else {
		key.src = ADDR_FIELD(ctx, local_ip6);
		key.dst = ADDR_FIELD(ctx, remote_ip6);
	}
	claim_end(&key);
	return 1;
}

/*
 * The claim on a port ends with the socket, and so does what is remembered of its process: a program that makes many connections would push all others out of the table. (Also the
 * next one finds a row that is in the cache: half a microsecond of each connection.)
 */
SEC("cgroup/sock_release")
int sock_release(struct bpf_sock *ctx)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	const struct sluice_conf *c = conf_row();
	struct sluice_port_key key;
	union sluice_addr addr;
	__u16 port;

	bpf_map_delete_elem(&owners, &cookie);
	if (sock_forget(ctx) || ctx->protocol != IPPROTO_UDP || !c ||
	    bpf_get_netns_cookie(ctx) != c->netns_cookie)
		return 1;
	port = sock_bound(ctx, &addr);
	if (port) {
		key = port_key(&addr, IPPROTO_UDP, port);
		port_drop(&key);
	}
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
