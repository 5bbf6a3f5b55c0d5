/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The scene of the tests of the netfilter program that watches for rewrites: real sockets, a `type nat` chain and provoked collisions. A forwarded flow takes the tuple first, then a
 * socket that is bound to the shared address and that port connects.
 *
 *	client 10.1.0.2 .3, fd00:1::2 ---- lan [edge: the test] wan ---- origin 192.0.2.2, 2001:db8:2::2
 *	                                    shared 203.0.113.7, 2001:db8::7
 *
 * and a second machine, "other", whose every address is on its loopback.
 */
#ifndef NFWATCH_RIG_H
#define NFWATCH_RIG_H

#include "sockname.h"

#include <linux/netfilter/nf_conntrack_common.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <cap-ng.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack.h>

#include "addr.h"
#include "cgroup.h"
#include "nfwatch.h"

#define SERVICE  80
#define ZONED    5353 /* packets to this port are put into zone ZONE */
#define ZONE     7
#define HELPED   69 /* tftp */
#define NOBODY   "192.0.2.99"
#define NOBODY6  "2001:db8:2::99"
#define DECOY    "198.51.100.99" /* destination NAT leads to the origin */
#define RECORDS  64
#define COMM     "slab watched"
#define PATIENCE 10000

/* What there is of each family. */
struct side {
	int family;
	const char *shared, *client, *client2, *inner, *plain, *origin, *nobody;
};
static const struct side sides[] = {
	{ AF_INET, "203.0.113.7", "10.1.0.2", "10.1.0.3", "10.1.0.1", "192.0.2.1", "192.0.2.2",
	  NOBODY },
	{ AF_INET6, "2001:db8::7", "fd00:1::2", "fd00:1::3", "fd00:1::1", "2001:db8:2::1",
	  "2001:db8:2::2", NOBODY6 },
};
#define V4 (&sides[0])

static int edge, client, origin, other;
static int listeners[2], sinks[2]; /* the origin's, by side */
static struct nfwatch *watch;
static struct sluice_rewrite records[RECORDS];
static size_t n_records;
static struct cgroups *groups;
static uint64_t group;
static char home_procs[2 * PATH_MAX + 16];
static uint16_t next_port = 41000;

/* Namespaces */

static inline int netns_now(void)
{
	int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		die("the network namespace: %s", strerror(errno));
	return fd;
}

static inline void enter(int ns)
{
	if (setns(ns, CLONE_NEWNET))
		die("entering a network namespace: %s", strerror(errno));
}

static inline int netns_new(void)
{
	if (unshare(CLONE_NEWNET))
		die("a network namespace of our own: %s", strerror(errno));
	must_run("ip link set lo up");
	return netns_now();
}

static inline uint32_t netns_inode(int ns)
{
	struct stat st;

	assert_int_equal(fstat(ns, &st), 0);
	return (uint32_t)st.st_ino;
}

#define NAT_RULES                                                                                  \
	"table inet nat {"                                                                         \
	" ct helper tftp { type \"tftp\" protocol udp; };"                                         \
	" chain post { type nat hook postrouting priority srcnat;"                                 \
	"  ip saddr 10.1.0.0/24 snat ip to 203.0.113.7;"                                           \
	"  ip6 saddr fd00:1::/64 snat ip6 to 2001:db8::7; };"                                      \
	" chain out { type nat hook output priority -100; ip daddr " DECOY                         \
	"  dnat ip to 192.0.2.2; };"                                                               \
	" chain raw1 { type filter hook prerouting priority raw; udp dport 5353 ct zone set 7; };" \
	" chain raw2 { type filter hook output priority raw; udp dport 5353 ct zone set 7; };"     \
	" chain help { type filter hook output priority filter; udp dport 69"                      \
	"  ct helper set \"tftp\"; }; }"

/* A veth pair between the namespace ns and a new one. Ends there. */
static inline int netns_beside(int ns, const char *near, const char *far)
{
	int fresh = netns_new();

	must_run("ip link add %s type veth peer name %s netns /proc/%d/fd/%d", far, near,
		 (int)getpid(), ns);
	must_run("ip link set %s up", far);
	enter(ns);
	must_run("ip link set %s up", near);
	enter(fresh);
	return fresh;
}

static inline void name_from(const struct sockaddr_storage *ss, struct addr *ret,
			     uint16_t *ret_port)
{
	const struct sockaddr_in6 *sin6 = (const struct sockaddr_in6 *)ss;
	const struct sockaddr_in *sin = (const struct sockaddr_in *)ss;

	if (ss->ss_family == AF_INET) {
		*ret_port = ntohs(sin->sin_port);
		*ret = addr_from_v4(sin->sin_addr.s_addr);
	} else {
		*ret_port = ntohs(sin6->sin6_port);
		memcpy(ret->b, &sin6->sin6_addr, sizeof(ret->b));
	}
}

static inline int sock_bound(int family, int type, const char *ip, uint16_t port)
{
	int fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;
	struct sockaddr_storage ss;
	socklen_t len = sockaddr_of(family, ip, port, &ss);

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
	if (bind(fd, (struct sockaddr *)&ss, len))
		die("bind %s:%u: %s", ip, port, strerror(errno));
	return fd;
}

static inline void sock_connect(int fd, int family, const char *ip, uint16_t port)
{
	struct sockaddr_storage ss;
	socklen_t len = sockaddr_of(family, ip, port, &ss);

	if (connect(fd, (struct sockaddr *)&ss, len) && errno != EINPROGRESS)
		die("connect %s:%u: %s", ip, port, strerror(errno));
}

static inline void sock_send(int fd, int family, const char *ip, uint16_t port)
{
	struct sockaddr_storage ss;
	socklen_t len = sockaddr_of(family, ip, port, &ss);

	if (sendto(fd, "x", 1, 0, (struct sockaddr *)&ss, len) != 1)
		die("sendto %s:%u: %s", ip, port, strerror(errno));
}

static inline void readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (poll(&p, 1, PATIENCE) != 1)
		die("after ten seconds nothing has arrived");
}

/* What arrives at the origin: its source port on the wire. TCP: *ret_fd is the accepted connection. */
static inline uint16_t arrives(const struct side *s, int type, int *ret_fd)
{
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof(ss);
	struct addr from, shared = A(s->shared);
	uint16_t port;
	char byte;

	if (type == SOCK_STREAM) {
		readable(listeners[s - sides]);
		*ret_fd = accept4(listeners[s - sides], (struct sockaddr *)&ss, &len, SOCK_CLOEXEC);
		assert_true(*ret_fd >= 0);
	} else {
		readable(sinks[s - sides]);
		assert_int_equal(
			recvfrom(sinks[s - sides], &byte, 1, 0, (struct sockaddr *)&ss, &len), 1);
		*ret_fd = -1;
	}
	name_from(&ss, &from, &port);
	if (addr_cmp(&from, &shared))
		port = 0; /* not of a shared address */
	return port;
}

static inline void build_edge(void)
{
	edge = netns_new();
	client = netns_beside(edge, "lan", "eth");
	must_run("ip addr add 10.1.0.2/24 dev eth && ip addr add 10.1.0.3/24 dev eth && "
		 "ip route add default via 10.1.0.1");
	must_run("ip addr add fd00:1::2/64 dev eth nodad && ip addr add fd00:1::3/64 dev eth nodad "
		 "&& ip route add ::/0 via fd00:1::1 dev eth");
	origin = netns_beside(edge, "wan", "net");
	must_run("ip addr add 192.0.2.2/24 dev net && ip route add 203.0.113.7 via 192.0.2.1");
	must_run("ip addr add 2001:db8:2::2/64 dev net nodad && "
		 "ip route add 2001:db8::7 via 2001:db8:2::1");
	enter(edge);
	must_run("ip addr add 10.1.0.1/24 dev lan && ip addr add fd00:1::1/64 dev lan nodad");
	must_run("ip addr add 192.0.2.1/24 dev wan && ip addr add 2001:db8:2::1/64 dev wan nodad");
	must_run("ip addr add 203.0.113.7/32 dev lo && ip addr add 2001:db8::7/128 dev lo nodad");
	must_run("ip route add default via 192.0.2.2");
	must_run("ip neigh add " NOBODY " lladdr 02:00:00:00:00:99 dev wan && "
		 "ip neigh add " NOBODY6 " lladdr 02:00:00:00:00:99 dev wan");
	must_run("echo 1 > /proc/sys/net/ipv4/ip_forward && "
		 "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
	must_run("nft '" NAT_RULES "'");
	/* Then every entry has an extension, with or without a helper. */
	must_run("echo 1 > /proc/sys/net/netfilter/nf_conntrack_acct");
	enter(origin);
	for (size_t i = 0; i < 2; i++) {
		listeners[i] = sock_bound(sides[i].family, SOCK_STREAM, sides[i].origin, SERVICE);
		assert_int_equal(listen(listeners[i], 64), 0);
		sinks[i] = sock_bound(sides[i].family, SOCK_DGRAM, sides[i].origin, SERVICE);
	}
}

static inline void build_other(void)
{
	other = netns_new();
	must_run("for a in 10.1.0.2 10.1.0.3 203.0.113.7 192.0.2.2; do ip addr add $a/32 dev lo; "
		 "done");
	must_run("nft '" NAT_RULES "'");
}

/* A control group of our own, so that its id is not everybody's. */
static inline void group_enter(void)
{
	struct errtext err = { "" };
	char line[PATH_MAX], name[64];
	FILE *f;

	snprintf(name, sizeof(name), "slab-watch-%d", (int)getpid());
	if (cgroups_open(name, &groups, &err))
		die("a control group of our own: %s", err.s);
	f = fopen("/proc/self/cgroup", "r");
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (!strncmp(line, "0::", 3))
			snprintf(home_procs, sizeof(home_procs), "%s%s/cgroup.procs",
				 cgroups_root(groups), line + 3);
	}
	if (f)
		fclose(f);
	if (cgroup_make(groups, 1, &group, &err) || cgroup_move(groups, 1, getpid(), &err))
		die("a control group of our own: %s", err.s);
}

static inline int lab_up(void **state)
{
	struct errtext err = { "" };

	(void)state;
	need_root();
	if (run_command("nft --version >/dev/null"))
		die("there is no nft command");
	group_enter();
	prctl(PR_SET_NAME, COMM);
	build_edge();
	build_other();
	enter(edge);
	if (nfwatch_open(&watch, &err))
		die("nfwatch_open: %s", err.s);
	if (nfwatch_attach(watch, &err))
		die("nfwatch_attach: %s", err.s);
	return 0;
}

static inline int lab_down(void **state)
{
	struct errtext err = { "" };
	char path[PATH_MAX];

	(void)state;
	nfwatch_close(watch);
	run_command("echo %d > %s", (int)getpid(), home_procs);
	cgroup_rm(groups, 1, &err);
	snprintf(path, sizeof(path), "%s", cgroups_dir(groups));
	cgroups_close(groups);
	rmdir(path);
	return 0;
}

/* Records */

static inline void keep(void *arg, const struct sluice_rewrite *r)
{
	(void)arg;
	if (n_records < RECORDS)
		records[n_records] = *r;
	n_records++;
}

/* The program writes while the packet is sent: what there is to tell is there when the system call is over. */
static inline size_t told(void)
{
	n_records = 0;
	assert_true(nfwatch_read(watch, RECORDS, keep, NULL) >= 0);
	return n_records;
}

/* Each test begins with an empty ring, at the edge. */
static inline int at_edge(void **state)
{
	(void)state;
	enter(edge);
	while (told())
		;
	return 0;
}

/* The connection tracking entry with this original tuple, as ctnetlink has it. */
struct truth {
	bool found;
	struct addr reply_src, reply_dst;
	uint16_t reply_sport, reply_dport, zone;
	uint32_t status;
	bool helper;
};

static inline struct addr attr_addr(const struct nf_conntrack *ct, int family,
				    enum nf_conntrack_attr v4, enum nf_conntrack_attr v6)
{
	struct addr a;

	if (family == AF_INET)
		return addr_from_v4(nfct_get_attr_u32(ct, v4));
	memcpy(a.b, nfct_get_attr(ct, v6), sizeof(a.b));
	return a;
}

static inline int on_entry(enum nf_conntrack_msg_type type, struct nf_conntrack *ct, void *arg)
{
	struct truth *t = arg;
	int family = nfct_get_attr_u8(ct, ATTR_ORIG_L3PROTO);

	(void)type;
	t->found = true;
	t->reply_src = attr_addr(ct, family, ATTR_REPL_IPV4_SRC, ATTR_REPL_IPV6_SRC);
	t->reply_dst = attr_addr(ct, family, ATTR_REPL_IPV4_DST, ATTR_REPL_IPV6_DST);
	t->reply_sport = ntohs(nfct_get_attr_u16(ct, ATTR_REPL_PORT_SRC));
	t->reply_dport = ntohs(nfct_get_attr_u16(ct, ATTR_REPL_PORT_DST));
	t->zone = nfct_attr_is_set(ct, ATTR_ZONE) > 0 ? nfct_get_attr_u16(ct, ATTR_ZONE) : 0;
	t->status = nfct_get_attr_u32(ct, ATTR_STATUS);
	t->helper = nfct_attr_is_set(ct, ATTR_HELPER_NAME) > 0;
	return NFCT_CB_CONTINUE;
}

static inline struct truth ask(enum nf_conntrack_query query, int family, int type, const char *src,
			       uint16_t sport, const char *dst, uint16_t dport, uint16_t zone)
{
	struct nf_conntrack *ct = nfct_new();
	struct nfct_handle *h = nfct_open(CONNTRACK, 0);
	struct addr a = A(src), b = A(dst);
	struct truth t = { 0 };

	assert_non_null(ct);
	assert_non_null(h);
	nfct_set_attr_u8(ct, ATTR_L3PROTO, (uint8_t)family);
	nfct_set_attr_u8(ct, ATTR_L4PROTO, type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP);
	if (family == AF_INET) {
		nfct_set_attr_u32(ct, ATTR_IPV4_SRC, addr_v4(&a));
		nfct_set_attr_u32(ct, ATTR_IPV4_DST, addr_v4(&b));
	} else {
		nfct_set_attr(ct, ATTR_IPV6_SRC, a.b);
		nfct_set_attr(ct, ATTR_IPV6_DST, b.b);
	}
	nfct_set_attr_u16(ct, ATTR_PORT_SRC, htons(sport));
	nfct_set_attr_u16(ct, ATTR_PORT_DST, htons(dport));
	if (zone)
		nfct_set_attr_u16(ct, ATTR_ZONE, zone);
	nfct_callback_register(h, NFCT_T_ALL, on_entry, &t);
	if (!nfct_query(h, query, ct) && query == NFCT_Q_DESTROY)
		t.found = true;
	nfct_close(h);
	nfct_destroy(ct);
	return t;
}

/* Empties the namespace's table. */
static inline void forget_all(int family)
{
	struct nfct_handle *h = nfct_open(CONNTRACK, 0);

	assert_non_null(h);
	assert_int_equal(nfct_query(h, NFCT_Q_FLUSH, &family), 0);
	nfct_close(h);
}

/* Collisions */

/* A forwarded flow, translated to the shared address with its port kept. It is through when this returns. */
static inline int hold(const struct side *s, int type, uint16_t port, const char *to,
		       uint16_t dport)
{
	int fd, conn;

	enter(client);
	fd = sock_bound(s->family, type, s->client, port);
	sock_connect(fd, s->family, to, dport);
	if (type == SOCK_DGRAM)
		assert_int_equal(send(fd, "h", 1, 0), 1);
	enter(edge);
	if (!strcmp(to, s->origin) && dport == SERVICE) {
		assert_int_equal(arrives(s, type, &conn), port);
		if (conn >= 0)
			close(conn);
	} else {
		wait_for(ask(NFCT_Q_GET, s->family, type, s->client, port, to, dport,
			     dport == ZONED ? ZONE : 0)
				 .found);
	}
	assert_int_equal(told(), 0);
	return fd;
}

/* What the record must say besides what the socket knows itself. */
struct expect {
	const struct side *s;
	int type;
	int fd;
	const char *dst;
	uint16_t dport;
	uint32_t uid, pid;
	const char *comm;
	uint16_t zone;
	bool helper;
	uint64_t since_ns;
};

static inline struct expect expecting(const struct side *s, int type, int fd)
{
	return (struct expect){
		.s = s,
		.type = type,
		.fd = fd,
		.dst = s->origin,
		.dport = SERVICE,
		.pid = (uint32_t)getpid(),
		.comm = COMM,
	};
}

static inline void must_be(const struct sluice_rewrite *r, const struct expect *e, uint64_t cookie)
{
	struct addr src, dst = A(e->dst);
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof(ss);
	struct truth t;
	struct stat st;
	uint16_t sport;

	assert_int_equal(getsockname(e->fd, (struct sockaddr *)&ss, &len), 0);
	name_from(&ss, &src, &sport);
	assert_int_equal(fstat(e->fd, &st), 0);
	assert_memory_equal(r->src.b, src.b, sizeof(src.b));
	assert_int_equal(ntohs(r->sport), sport);
	assert_memory_equal(r->dst.b, dst.b, sizeof(dst.b));
	assert_int_equal(ntohs(r->dport), e->dport);
	assert_int_equal(r->cookie, cookie);
	assert_int_equal(r->inode, st.st_ino);
	assert_int_equal(r->cgroup, group);
	assert_int_equal(r->uid, e->uid);
	assert_int_equal(r->pid, e->pid);
	assert_string_equal(r->comm, e->comm);
	assert_int_equal(r->netns, netns_inode(edge));
	assert_int_equal(r->l4, e->type == SOCK_STREAM ? SLUICE_TCP : SLUICE_UDP);
	assert_int_equal(r->zone, e->zone);
	assert_int_equal(r->helper, e->helper);
	assert_int_equal(r->pad, 0);
	assert_in_range(r->time_ns, e->since_ns, now_ns());

	t = ask(NFCT_Q_GET, e->s->family, e->type, e->s->shared, sport, e->dst, e->dport, e->zone);
	assert_true(t.found);
	assert_memory_equal(r->reply_src.b, t.reply_src.b, sizeof(t.reply_src.b));
	assert_memory_equal(r->reply_dst.b, t.reply_dst.b, sizeof(t.reply_dst.b));
	assert_int_equal(ntohs(r->reply_sport), t.reply_sport);
	assert_int_equal(ntohs(r->reply_dport), t.reply_dport);
	assert_int_not_equal(t.reply_dport, sport);
	assert_int_equal(t.zone, e->zone);
	assert_int_equal(t.helper, e->helper);
	/* Told before it was entered. */
	assert_int_equal(r->status & (IPS_SRC_NAT | IPS_CONFIRMED), IPS_SRC_NAT);
	assert_int_equal(r->status & ~t.status, 0);
	assert_int_equal(t.status & (IPS_SRC_NAT | IPS_CONFIRMED), IPS_SRC_NAT | IPS_CONFIRMED);
}

/* Without such programs there is nothing to test: says so. */
static inline bool skip_all(void)
{
	struct errtext err = { "" };
	struct nfwatch *w = NULL;
	int r = nfwatch_open(&w, &err);

	nfwatch_close(w);
	if (r == -EOPNOTSUPP)
		printf("skip everything: %s\n", err.s);
	return r == -EOPNOTSUPP;
}

#define CASE(fn) cmocka_unit_test_setup(fn, at_edge)

#endif
