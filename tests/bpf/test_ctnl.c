/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ctnetlink against the real conntrack of a namespace of our own, with flows over the loopback: what a local socket sends there passes POSTROUTING with its
 * `type nat` chain like everything else. Clients of 10.9.0.0/24 and fd00:9::/64 are translated to the shared address, and keep their port where they can.
 */
#include "dp_test.h"

#include <linux/filter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "ctnl.h"

#define SHARED4 "203.0.113.7"
#define CLIENT4 "10.9.0.2"
#define OTHER4  "10.9.0.3"
#define ORIGIN4 "192.0.2.2"
#define SHARED6 "2001:db8::7"
#define CLIENT6 "fd00:9::2"
#define ORIGIN6 "2001:db8:2::2"
#define SEEN    8192

static const char rules[] =
	"nft '"
	"table inet t {"
	"  ct helper tftp { type \"tftp\" protocol udp; };"
	"  chain raw { type filter hook output priority raw;"
	"    udp dport 1007 ct zone set 7;"
	"    udp dport 1008 ct original zone set 8;"
	"    udp dport 1009 ct reply zone set 9; };"
	"  chain out { type filter hook output priority filter;"
	"    udp dport 69 ct helper set \"tftp\"; };"
	"  chain post { type nat hook postrouting priority srcnat;"
	"    ip saddr 10.9.0.0/24 snat ip to " SHARED4 ";"
	"    ip6 saddr fd00:9::/64 snat ip6 to " SHARED6 "; };"
	"  chain pre { type nat hook output priority -100;"
	"    ip daddr " ORIGIN4 " udp dport 1010 dnat ip to " ORIGIN4 ":1011; };"
	"}'";

static struct ctnl *ct;

static int net_open(void **state)
{
	(void)state;
	need_root();
	if (unshare(CLONE_NEWNET))
		die("a network namespace of our own: %s", strerror(errno));
	/* Where it is a module: nft asks for the helper alone, not for its NAT. */
	must_run("modprobe -q nf_nat_tftp 2>/dev/null || true");
	must_run("ip link set lo up && sysctl -qw net.netfilter.nf_conntrack_events=1");
	must_run("ip addr add " SHARED4 " dev lo && ip addr add " CLIENT4 " dev lo && "
		 "ip addr add " OTHER4 " dev lo && ip addr add " ORIGIN4 " dev lo");
	must_run("ip addr add " SHARED6 " dev lo && ip addr add " CLIENT6 " dev lo && "
		 "ip addr add " ORIGIN6 " dev lo");
	if (run_command("%s", rules))
		die("nft did not take the rules");
	return 0;
}

static int ct_open_with(uint32_t buffer, bool gone)
{
	struct ctnl_opts o = { .buffer = buffer, .gone = gone };
	struct errtext err = { "" };
	int r = ctnl_open(&o, &ct, &err);

	if (r)
		die("ctnl_open: %s", err.s);
	return 0;
}

static int ct_open(void **state)
{
	(void)state;
	return ct_open_with(8 << 20, true);
}

/* Everything in the table goes, so that tests can use the same ports. */
static int ct_close(void **state)
{
	(void)state;
	ctnl_close(ct);
	ct = NULL;
	must_run("conntrack -F >/dev/null 2>&1");
	return 0;
}

/* What was seen */

static struct seen {
	struct {
		enum ct_verb verb;
		struct ct_entry e;
	} v[SEEN];
	size_t n;
} seen;

static void note(void *arg, enum ct_verb verb, const struct ct_entry *e)
{
	struct seen *s = arg;

	assert_in_range(s->n, 0, SEEN - 1);
	s->v[s->n].verb = verb;
	s->v[s->n++].e = *e;
}

static void read_all(void)
{
	int r;

	do
		r = ctnl_read(ct, 100, note, &seen);
	while (r == 100);
	if (r < 0)
		die("ctnl_read: %s", strerror(-r));
}

static void dump_all(void)
{
	struct errtext err = { "" };
	int r = ctnl_dump_begin(ct, &err);

	if (r)
		die("ctnl_dump_begin: %s", err.s);
	while ((r = ctnl_dump_read(ct, 7, note, &seen)) == 1)
		;
	if (r)
		die("ctnl_dump_read: %s", strerror(-r));
}

static struct addr A(const char *text) {
	struct addr a;

	if (addr_parse(text, &a))
		die("%s is no address", text);
	return a;
}

static struct ct_tuple
T(const char *src, uint16_t sport, const char *dst, uint16_t dport) {
	return (struct ct_tuple){ .src = A(src), .dst = A(dst), .sport = sport, .dport = dport };
}

static bool
tuple_is(const struct ct_tuple *t, const struct ct_tuple *want)
{
	return !addr_cmp(&t->src, &want->src) && !addr_cmp(&t->dst, &want->dst) &&
	       t->sport == want->sport && t->dport == want->dport;
}

/* How many of a verb with this original tuple; the last of them. */
static size_t count(enum ct_verb verb, struct ct_tuple orig, struct ct_entry *ret)
{
	size_t n = 0;

	for (size_t i = 0; i < seen.n; i++) {
		if (seen.v[i].verb != verb || !tuple_is(&seen.v[i].e.orig, &orig))
			continue;
		n++;
		if (ret)
			*ret = seen.v[i].e;
	}
	return n;
}

/* Events are there before the system call that caused them returns. */
static struct ct_entry must_see(enum ct_verb verb, struct ct_tuple orig)
{
	struct ct_entry e;
	size_t n;

	read_all();
	n = count(verb, orig, &e);
	if (n != 1)
		die("seen %zu times: verb %d, port %u", n, (int)verb, orig.sport);
	return e;
}

/* Sockets */

static socklen_t sockaddr_of(const char *ip, uint16_t port, struct sockaddr_storage *ret)
{
	struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)ret;
	struct sockaddr_in *sin = (struct sockaddr_in *)ret;
	struct addr a = A(ip);

	memset(ret, 0, sizeof(*ret));
	if (addr_is_v4(&a)) {
		sin->sin_family = AF_INET;
		sin->sin_port = htons(port);
		sin->sin_addr.s_addr = addr_v4(&a);
		return sizeof(*sin);
	}
	sin6->sin6_family = AF_INET6;
	sin6->sin6_port = htons(port);
	memcpy(&sin6->sin6_addr, a.b, sizeof(a.b));
	return sizeof(*sin6);
}

static int bound(int type, const char *ip, uint16_t port)
{
	struct sockaddr_storage ss;
	socklen_t len = sockaddr_of(ip, port, &ss);
	int fd = socket(ss.ss_family, type | SOCK_CLOEXEC, 0), one = 1;

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
	/* The address may still be checked for duplicates. */
	if (ss.ss_family == AF_INET6)
		assert_int_equal(setsockopt(fd, IPPROTO_IPV6, IPV6_FREEBIND, &one, sizeof(one)), 0);
	if (bind(fd, (struct sockaddr *)&ss, len))
		die("bind %s:%u: %s", ip, port, strerror(errno));
	return fd;
}

static void udp_to(int fd, const char *ip, uint16_t port, const void *data, size_t len)
{
	struct sockaddr_storage ss;
	socklen_t slen = sockaddr_of(ip, port, &ss);

	if (sendto(fd, data, len, 0, (struct sockaddr *)&ss, slen) < 0)
		die("sendto %s:%u: %s", ip, port, strerror(errno));
}

/* One datagram: one connection. */
static void udp(const char *src, uint16_t sport, const char *dst, uint16_t dport)
{
	int fd = bound(SOCK_DGRAM, src, sport);

	udp_to(fd, dst, dport, "x", 1);
	close(fd);
}

/* From here the datagrams are dropped where they arrive, without an answer that would be an event. */
static int sink(const char *ip, uint16_t port)
{
	return bound(SOCK_DGRAM, ip, port);
}

/* Events */

static void test_new(void **state)
{
	struct ct_tuple want = T(ORIGIN4, 9, SHARED4, 41000);
	int rx = sink(ORIGIN4, 9);
	struct ct_entry e;

	(void)state;
	/* Not translated: no matter to us. */
	udp(SHARED4, 42000, ORIGIN4, 9);
	udp(ORIGIN4, 42001, ORIGIN4, 9);
	read_all();
	assert_int_equal(seen.n, 0);
	assert_int_equal(ctnl_stats(ct).events, 0);

	/* A client, and the socket that wants its tuple. */
	udp(CLIENT4, 41000, ORIGIN4, 9);
	e = must_see(CT_NEW, T(CLIENT4, 41000, ORIGIN4, 9));
	assert_int_equal(e.l4, SLUICE_UDP);
	assert_true(tuple_is(&e.reply, &want));
	assert_true(e.status & IPS_SRC_NAT);
	assert_int_not_equal(e.id, 0);
	assert_int_equal(e.zone, 0);
	assert_false(e.helper);
	udp(SHARED4, 41000, ORIGIN4, 9);
	e = must_see(CT_NEW, T(SHARED4, 41000, ORIGIN4, 9));
	assert_int_equal(addr_cmp(&e.reply.dst, &want.dst), 0);
	assert_int_not_equal(e.reply.dport, 41000);
	assert_true(e.reply.dport >= 1024);
	assert_true(e.status & IPS_SRC_NAT);
	assert_int_equal(seen.n, 2);
	assert_int_equal(ctnl_stats(ct).events, 2);
	assert_int_equal(ctnl_stats(ct).losses, 0);
	assert_int_equal(ctnl_stats(ct).bad, 0);

	/* Later packets are no news. */
	udp(CLIENT4, 41000, ORIGIN4, 9);
	udp(SHARED4, 41000, ORIGIN4, 9);
	read_all();
	assert_int_equal(seen.n, 2);
	close(rx);
}

static void test_tcp(void **state)
{
	int l = bound(SOCK_STREAM, ORIGIN4, 80), c, s;
	struct sockaddr_storage ss;
	socklen_t len = sockaddr_of(ORIGIN4, 80, &ss);
	struct ct_tuple want = T(ORIGIN4, 80, SHARED4, 41000);
	struct ct_entry e;

	(void)state;
	assert_int_equal(listen(l, 8), 0);
	c = bound(SOCK_STREAM, CLIENT4, 41000);
	assert_int_equal(connect(c, (struct sockaddr *)&ss, len), 0);
	e = must_see(CT_NEW, T(CLIENT4, 41000, ORIGIN4, 80));
	assert_int_equal(e.l4, SLUICE_TCP);
	assert_true(tuple_is(&e.reply, &want));

	s = bound(SOCK_STREAM, SHARED4, 41000);
	assert_int_equal(connect(s, (struct sockaddr *)&ss, len), 0);
	e = must_see(CT_NEW, T(SHARED4, 41000, ORIGIN4, 80));
	assert_int_not_equal(e.reply.dport, 41000);
	assert_int_equal(seen.n, 2);
	close(c);
	close(s);
	close(l);
}

static void test_ipv6(void **state)
{
	struct ct_tuple orig = T(CLIENT6, 41000, ORIGIN6, 9);
	struct ct_tuple want = T(ORIGIN6, 9, SHARED6, 41000);
	int rx = sink(ORIGIN6, 9);
	struct ct_entry e, f;

	(void)state;
	udp(SHARED6, 42000, ORIGIN6, 9);
	read_all();
	assert_int_equal(seen.n, 0);
	udp(CLIENT6, 41000, ORIGIN6, 9);
	e = must_see(CT_NEW, orig);
	assert_true(tuple_is(&e.reply, &want));
	udp(SHARED6, 41000, ORIGIN6, 9);
	e = must_see(CT_NEW, T(SHARED6, 41000, ORIGIN6, 9));
	assert_int_not_equal(e.reply.dport, 41000);
	dump_all();
	assert_int_equal(count(CT_FOUND, orig, &e), 1);
	assert_int_equal(ctnl_find(ct, SLUICE_UDP, 0, &want, &f), 0);
	assert_true(ct_same(&e, &f));
	assert_int_equal(ctnl_delete(ct, &f), 0);
	assert_int_equal(ctnl_find(ct, SLUICE_UDP, 0, &want, &f), -ENOENT);
	must_see(CT_GONE, orig);
	close(rx);
}

/* Neither ICMP nor what was translated at its destination only. */
static void test_others(void **state)
{
	int rx = sink(ORIGIN4, 1011);

	(void)state;
	must_run("ping -c 1 -W 1 -I " CLIENT4 " " ORIGIN4 " >/dev/null");
	udp(SHARED4, 42000, ORIGIN4, 1010);
	read_all();
	dump_all();
	assert_int_equal(seen.n, 0);
	/* Both ends. */
	udp(CLIENT4, 41000, ORIGIN4, 1010);
	must_see(CT_NEW, T(CLIENT4, 41000, ORIGIN4, 1010));
	close(rx);
}

static void test_gone(void **state)
{
	struct ct_tuple client = T(CLIENT4, 41000, ORIGIN4, 9);
	int rx = sink(ORIGIN4, 9);
	struct ct_entry made, gone;

	(void)state;
	udp(SHARED4, 42000, ORIGIN4, 9);
	udp(CLIENT4, 41000, ORIGIN4, 9);
	made = must_see(CT_NEW, client);
	must_run("conntrack -F >/dev/null 2>&1");
	gone = must_see(CT_GONE, client);
	assert_true(ct_same(&made, &gone));
	assert_int_equal(made.id, gone.id);
	assert_int_equal(seen.n, 2);

	/* Not asked for: not delivered. */
	ctnl_close(ct);
	seen.n = 0;
	ct_open_with(8 << 20, false);
	udp(CLIENT4, 41000, ORIGIN4, 9);
	must_run("conntrack -F >/dev/null 2>&1");
	must_see(CT_NEW, client);
	assert_int_equal(seen.n, 1);
	close(rx);
}

/* A part at a time, and nothing twice. */
static void test_bounded(void **state)
{
	int rx = sink(ORIGIN4, 9);
	size_t before;

	(void)state;
	for (uint16_t i = 0; i < 100; i++)
		udp(CLIENT4, (uint16_t)(41000 + i), ORIGIN4, 9);
	for (int i = 0; i < 9; i++) {
		before = seen.n;
		assert_int_equal(ctnl_read(ct, 11, note, &seen), 11);
		assert_int_equal(seen.n, before + 11);
	}
	assert_int_equal(ctnl_read(ct, 11, note, &seen), 1);
	assert_int_equal(ctnl_read(ct, 11, note, &seen), 0);
	for (uint16_t i = 0; i < 100; i++) {
		assert_int_equal(seen.v[i].e.orig.sport, 41000 + i);
		assert_int_equal(count(CT_NEW, T(CLIENT4, (uint16_t)(41000 + i), ORIGIN4, 9), NULL),
				 1);
	}
	close(rx);
}

/* The descriptor is readable when there is something, and not otherwise. */
static void test_poll(void **state)
{
	struct pollfd p = { .fd = ctnl_fd(ct), .events = POLLIN };
	int rx = sink(ORIGIN4, 9);

	(void)state;
	udp(SHARED4, 42000, ORIGIN4, 9);
	assert_int_equal(poll(&p, 1, 0), 0);
	udp(CLIENT4, 41000, ORIGIN4, 9);
	assert_int_equal(poll(&p, 1, 0), 1);
	read_all();
	assert_int_equal(poll(&p, 1, 0), 0);
	close(rx);
}

/* Losing */

static void test_loss(void **state)
{
	enum {
		N = 2000,
	};
	struct pollfd p = { .events = POLLIN };
	int rx = sink(ORIGIN4, 9), r, told = 0;
	size_t events, found = 0;

	(void)state;
	ctnl_close(ct);
	ct_open_with(4096, true);
	p.fd = ctnl_fd(ct);
	assert_in_range(ctnl_stats(ct).buffer, 4096, 65536);
	for (unsigned i = 0; i < N; i++)
		udp(CLIENT4, (uint16_t)(20000 + i), ORIGIN4, 9);
	assert_int_equal(poll(&p, 1, 0), 1);
	/* What had arrived comes first; the loss is told once. */
	while ((r = ctnl_read(ct, 3, note, &seen)) == 3 || r == -ENOBUFS)
		if (r == -ENOBUFS)
			told++;
	assert_int_equal(told, 1);
	assert_int_equal(ctnl_stats(ct).losses, 1);
	events = seen.n;
	assert_in_range(events, 1, N - 1);
	assert_int_equal(ctnl_stats(ct).events, events);
	assert_int_equal(poll(&p, 1, 0), 0);

	/* A dump finds the rest. */
	dump_all();
	for (size_t i = events; i < seen.n; i++)
		found += seen.v[i].verb == CT_FOUND;
	assert_int_equal(found, N);

	/* And events flow again. */
	udp(CLIENT4, 41000, ORIGIN4, 9);
	must_see(CT_NEW, T(CLIENT4, 41000, ORIGIN4, 9));
	assert_int_equal(ctnl_stats(ct).losses, 1);
	close(rx);
}

/* What comes after the loss was told is delivered, even if nobody waited for an empty queue. */
static void test_loss_told_in_time(void **state)
{
	int rx = sink(ORIGIN4, 9), r;
	uint16_t port = 20000;

	(void)state;
	ctnl_close(ct);
	ct_open_with(4096, false);
	for (int i = 0; i < 500; i++)
		udp(CLIENT4, port++, ORIGIN4, 9);
	/* Between any two reads something happens. */
	while ((r = ctnl_read(ct, 1, note, &seen)) == 1)
		udp(CLIENT4, port++, ORIGIN4, 9);
	assert_int_equal(r, -ENOBUFS);
	seen.n = 0;
	udp(CLIENT4, 41000, ORIGIN4, 9);
	must_see(CT_NEW, T(CLIENT4, 41000, ORIGIN4, 9));
	close(rx);
}

/* Nobody but the kernel is believed. */
static void test_forged(void **state)
{
	static const struct {
		struct nlmsghdr h;
		uint8_t body[4];
		struct {
			uint16_t len, type;
			uint32_t value;
		} status __attribute__((packed));
	} forged = {
		.h = { .nlmsg_len = 28, .nlmsg_type = 0x100 },
		.body = { AF_INET },
		.status = { 8, 3, 0xffffffff },
	};
	struct sockaddr_nl to = { .nl_family = AF_NETLINK };
	socklen_t len = sizeof(to);
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	struct sock_fprog all = {
		.len = 1, .filter = &(struct sock_filter)BPF_STMT(BPF_RET | BPF_K, UINT32_MAX)
	};

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(getsockname(ctnl_fd(ct), (struct sockaddr *)&to, &len), 0);
	to.nl_groups = 0;
	/* The filter has no tuple to find in it. */
	assert_int_equal(sendto(fd, &forged, 28, 0, (struct sockaddr *)&to, sizeof(to)), 28);
	assert_int_equal(ctnl_read(ct, 10, note, &seen), 0);
	assert_int_equal(ctnl_stats(ct).bad, 0);
	assert_int_equal(setsockopt(ctnl_fd(ct), SOL_SOCKET, SO_ATTACH_FILTER, &all, sizeof(all)),
			 0);
	assert_int_equal(sendto(fd, &forged, 28, 0, (struct sockaddr *)&to, sizeof(to)), 28);
	assert_int_equal(ctnl_read(ct, 10, note, &seen), 0);
	assert_int_equal(ctnl_stats(ct).bad, 1);
	assert_int_equal(seen.n, 0);
	close(fd);
}

/* Dumps */

static void test_dump(void **state)
{
	enum {
		N = 3000, /* some answers of the kernel */
	};
	int rx = sink(ORIGIN4, 9), calls = 0, r;
	struct errtext err = { "" };
	struct ct_entry e;

	(void)state;
	dump_all();
	assert_int_equal(seen.n, 0);
	for (unsigned i = 0; i < N; i++)
		udp(CLIENT4, (uint16_t)(20000 + i), ORIGIN4, 9);
	for (uint16_t i = 0; i < 100; i++)
		udp(SHARED4, (uint16_t)(50000 + i), ORIGIN4, 9);
	udp(SHARED4, 20000, ORIGIN4, 9);
	assert_int_equal(ctnl_dump_begin(ct, &err), 0);
	assert_int_equal(ctnl_dump_begin(ct, &err), -EBUSY);
	assert_non_null(strstr(err.s, "running"));
	do {
		size_t before = seen.n;

		r = ctnl_dump_read(ct, 100, note, &seen);
		assert_true(seen.n - before <= 100);
		calls++;
	} while (r == 1);
	assert_int_equal(r, 0);
	assert_true(calls > N / 100);
	assert_int_equal(seen.n, N + 1);
	for (unsigned i = 0; i < N; i += 100)
		assert_int_equal(count(CT_FOUND, T(CLIENT4, (uint16_t)(20000 + i), ORIGIN4, 9), &e),
				 1);
	assert_int_equal(count(CT_FOUND, T(SHARED4, 20000, ORIGIN4, 9), &e), 1);
	assert_int_not_equal(e.reply.dport, 20000);
	assert_int_not_equal(e.id, 0);
	/* Dumps are no events, and leave them alone. */
	assert_int_equal(ctnl_stats(ct).events, 0);
	seen.n = 0;
	read_all();
	assert_int_equal(seen.n, N + 1);
	close(rx);
}

/* Finding and deleting */

static void test_find(void **state)
{
	struct ct_tuple reply = T(ORIGIN4, 9, SHARED4, 41000), want;
	int rx = sink(ORIGIN4, 9);
	struct ct_entry e, kept = { .id = 4711 };

	(void)state;
	assert_int_equal(ctnl_find(ct, SLUICE_UDP, 0, &reply, &kept), -ENOENT);
	assert_int_equal(kept.id, 4711);
	udp(CLIENT4, 41000, ORIGIN4, 9);
	assert_int_equal(ctnl_find(ct, SLUICE_UDP, 0, &reply, &e), 0);
	want = T(CLIENT4, 41000, ORIGIN4, 9);
	assert_true(tuple_is(&e.orig, &want));
	assert_true(tuple_is(&e.reply, &reply));
	assert_int_equal(e.l4, SLUICE_UDP);
	kept = must_see(CT_NEW, want);
	assert_true(ct_same(&e, &kept));
	assert_int_equal(e.id, kept.id);
	assert_int_equal(ctnl_find(ct, SLUICE_TCP, 0, &reply, &e), -ENOENT);
	assert_int_equal(ctnl_find(ct, SLUICE_UDP, 7, &reply, &e), -ENOENT);

	/* Untranslated ones too; and from the other side. */
	udp(SHARED4, 42000, ORIGIN4, 9);
	reply = T(ORIGIN4, 9, SHARED4, 42000);
	assert_int_equal(ctnl_find(ct, SLUICE_UDP, 0, &reply, &e), 0);
	assert_int_equal(e.status & IPS_NAT_MASK, 0);
	reply = T(SHARED4, 42000, ORIGIN4, 9);
	assert_int_equal(ctnl_find(ct, SLUICE_UDP, 0, &reply, &e), 0);
	assert_true(tuple_is(&e.orig, &reply));
	close(rx);
}

static void test_delete(void **state)
{
	struct ct_tuple client = T(CLIENT4, 41000, ORIGIN4, 9);
	struct ct_tuple socket = T(SHARED4, 41000, ORIGIN4, 9);
	struct ct_tuple reply = T(ORIGIN4, 9, SHARED4, 41000);
	int rx = sink(ORIGIN4, 9);
	struct ct_entry e, again, other;

	(void)state;
	udp(CLIENT4, 41000, ORIGIN4, 9);
	udp(SHARED4, 41000, ORIGIN4, 9);
	e = must_see(CT_NEW, client);
	other = e;
	other.id ^= 1;
	assert_int_equal(ctnl_delete(ct, &other), -ENOENT);
	assert_int_equal(ctnl_find(ct, SLUICE_UDP, 0, &reply, &again), 0);
	assert_int_equal(ctnl_delete(ct, &e), 0);
	assert_int_equal(ctnl_delete(ct, &e), -ENOENT);
	assert_int_equal(ctnl_find(ct, SLUICE_UDP, 0, &reply, &again), -ENOENT);
	must_see(CT_GONE, client);

	/* The same tuples again are another entry, which the old id does not delete. Without an id any is. */
	udp(CLIENT4, 41000, ORIGIN4, 9);
	assert_int_equal(ctnl_find(ct, SLUICE_UDP, 0, &reply, &again), 0);
	assert_true(ct_same(&again, &e));
	if (again.id != e.id)
		assert_int_equal(ctnl_delete(ct, &e), -ENOENT);
	again.id = 0;
	assert_int_equal(ctnl_delete(ct, &again), 0);
	assert_int_equal(ctnl_find(ct, SLUICE_UDP, 0, &reply, &again), -ENOENT);
	/* The socket's own was left alone. */
	e = must_see(CT_NEW, socket);
	assert_int_equal(ctnl_delete(ct, &e), 0);
	close(rx);
}

static void test_zones(void **state)
{
	static const struct {
		uint16_t port, zone, reply_zone;
	} cases[] = { { 1007, 7, 7 }, { 1008, 8, 0 }, { 1009, 9, 9 } };

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		uint16_t port = cases[i].port;
		struct ct_tuple reply = T(ORIGIN4, port, SHARED4, 41000);
		int rx = sink(ORIGIN4, port);
		struct ct_entry e, f;

		udp(CLIENT4, 41000, ORIGIN4, port);
		e = must_see(CT_NEW, T(CLIENT4, 41000, ORIGIN4, port));
		assert_int_equal(e.zone, cases[i].zone);
		assert_int_equal(ctnl_find(ct, SLUICE_UDP, cases[i].reply_zone ? 0 : 8, &reply, &f),
				 -ENOENT);
		assert_int_equal(ctnl_find(ct, SLUICE_UDP, cases[i].reply_zone, &reply, &f), 0);
		assert_true(ct_same(&e, &f));
		assert_int_equal(ctnl_delete(ct, &e), 0);
		assert_int_equal(ctnl_find(ct, SLUICE_UDP, cases[i].reply_zone, &reply, &f),
				 -ENOENT);
		close(rx);
	}
}

/* A TFTP server answers from a port of its own: a connection that the helper expects. */
static void test_helper(void **state)
{
	static const char request[] = "\0\1file\0octet";
	int rx = sink(ORIGIN4, 69), c = bound(SOCK_DGRAM, CLIENT4, 41000), s;
	struct ct_tuple reply;
	struct ct_entry e;

	(void)state;
	udp_to(c, ORIGIN4, 69, request, sizeof(request));
	e = must_see(CT_NEW, T(CLIENT4, 41000, ORIGIN4, 69));
	assert_true(e.helper);
	assert_false(e.status & IPS_EXPECTED);
	s = bound(SOCK_DGRAM, ORIGIN4, 5000);
	udp_to(s, SHARED4, 41000, "\0\3\0\1data", 8);
	/* To the client as if it had come from the server; seen from the wire it is the shared address that was sent to. */
	reply = T(CLIENT4, 41000, ORIGIN4, 5000);
	assert_int_equal(ctnl_find(ct, SLUICE_UDP, 0, &reply, &e), 0);
	assert_true(e.status & IPS_EXPECTED);
	assert_true(e.helper);
	assert_int_equal(ctnl_delete(ct, &e), 0);
	close(s);
	close(c);
	close(rx);
}

/* Made ahead: NAT keeps off, the socket uses it, its packets keep their port. */
static void test_reserve(void **state)
{
	struct ct_tuple orig = T(SHARED4, 41000, ORIGIN4, 80), udp_orig;
	int l = bound(SOCK_STREAM, ORIGIN4, 80), c, s;
	struct sockaddr_storage ss;
	struct sockaddr_in from;
	socklen_t len = sockaddr_of(ORIGIN4, 80, &ss), from_len = sizeof(from);
	struct ct_entry e;

	(void)state;
	assert_int_equal(listen(l, 8), 0);
	assert_int_equal(ctnl_reserve(ct, SLUICE_TCP, &orig, 30), 0);
	assert_int_equal(ctnl_reserve(ct, SLUICE_TCP, &orig, 30), -EEXIST);
	c = bound(SOCK_STREAM, CLIENT4, 41000);
	assert_int_equal(connect(c, (struct sockaddr *)&ss, len), 0);
	e = must_see(CT_NEW, T(CLIENT4, 41000, ORIGIN4, 80));
	assert_int_not_equal(e.reply.dport, 41000);
	close(accept(l, NULL, NULL));
	s = bound(SOCK_STREAM, SHARED4, 41000);
	assert_int_equal(connect(s, (struct sockaddr *)&ss, len), 0);
	close(c);
	c = accept(l, (struct sockaddr *)&from, &from_len);
	assert_true(c >= 0);
	assert_int_equal(ntohs(from.sin_port), 41000);
	read_all();
	assert_int_equal(count(CT_NEW, orig, NULL), 0);
	close(s);
	close(c);
	close(l);

	/* What the client has cannot be reserved. */
	l = sink(ORIGIN4, 9);
	udp(CLIENT4, 41000, ORIGIN4, 9);
	udp_orig = T(SHARED4, 41000, ORIGIN4, 9);
	assert_int_equal(ctnl_reserve(ct, SLUICE_UDP, &udp_orig, 30), -EEXIST);
	udp_orig.sport = 41001;
	assert_int_equal(ctnl_reserve(ct, SLUICE_UDP, &udp_orig, 30), 0);
	udp_orig = T(SHARED6, 41000, ORIGIN6, 9);
	assert_int_equal(ctnl_reserve(ct, SLUICE_UDP, &udp_orig, 30), 0);
	assert_int_equal(ctnl_reserve(ct, SLUICE_UDP, &udp_orig, 30), -EEXIST);
	close(l);
}

/* Opening */

/* It stays in the namespace in which it was opened. */
static void test_namespace(void **state)
{
	int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), rx = sink(ORIGIN4, 9);
	struct ct_tuple reply = T(ORIGIN4, 9, SHARED4, 41000);
	struct errtext err = { "" };
	struct ctnl *mine = ct;
	struct ct_entry e;

	(void)state;
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	must_run("sysctl -qw net.netfilter.nf_conntrack_events=0");
	assert_int_equal(ctnl_open(&(struct ctnl_opts){ .buffer = 65536 }, &ct, &err), 0);
	assert_true(ctnl_stats(ct).off);
	assert_false(ctnl_stats(mine).off);
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	udp(CLIENT4, 41000, ORIGIN4, 9);
	read_all();
	dump_all();
	assert_int_equal(seen.n, 0);
	assert_int_equal(ctnl_find(ct, SLUICE_UDP, 0, &reply, &e), -ENOENT);
	ctnl_close(ct);
	ct = mine;
	must_see(CT_NEW, T(CLIENT4, 41000, ORIGIN4, 9));
	close(home);
	close(rx);
}

/* Without privileges it says what is missing. */
static void test_refused(void **state)
{
	struct ctnl *c = (struct ctnl *)&state;
	struct errtext err = { "" };
	int r;

	(void)state;
	assert_int_equal(seteuid(65534), 0);
	r = ctnl_open(&(struct ctnl_opts){ .buffer = 65536 }, &c, &err);
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(r, -EPERM);
	assert_non_null(strstr(err.s, "CAP_NET_ADMIN"));
	assert_ptr_equal(c, &state);
}

static int each_open(void **state)
{
	seen.n = 0;
	return ct_open(state);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, each_open, ct_close)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_new),     CASE(test_tcp),       CASE(test_ipv6),
		CASE(test_others),  CASE(test_gone),      CASE(test_bounded),
		CASE(test_poll),    CASE(test_loss),      CASE(test_loss_told_in_time),
		CASE(test_forged),  CASE(test_dump),      CASE(test_find),
		CASE(test_delete),  CASE(test_zones),     CASE(test_helper),
		CASE(test_reserve), CASE(test_namespace), CASE(test_refused),
	};

	return cmocka_run_group_tests(tests, net_open, NULL);
}
