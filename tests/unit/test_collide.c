/* SPDX-License-Identifier: BSD-2-Clause */
/* What is a collision, and what was told already. */
#include <linux/netfilter/nf_conntrack_common.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "collide.h"
#include "collision.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))
#define S    1000000000ULL

static uint64_t rnd(uint64_t below)
{
	static uint64_t seed = 0x9e3779b97f4a7c15;

	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed >> 11) % below;
}

static struct addr addr(const char *text)
{
	struct addr a;

	if (addr_parse(text, &a))
		fail_msg("%s", text);
	return a;
}

static int compare(const void *a, const void *b)
{
	return addr_cmp(a, b);
}

/* ---- judging ---- */

/* 203.0.113.7, 203.0.113.8 and 2001:db8::7 are watched; 192.0.2.1 and 10.0.0.1 are local and are not, 10.1.0.0/16 are clients. */
static struct addr watched_v[3];
static const struct collide_addrs watched = { watched_v, N(watched_v) };

static int setup(void **state)
{
	(void)state;
	watched_v[0] = addr("203.0.113.7");
	watched_v[1] = addr("2001:db8::7");
	watched_v[2] = addr("203.0.113.8");
	qsort(watched_v, N(watched_v), sizeof(watched_v[0]), compare);
	return 0;
}

struct end {
	const char *addr;
	uint16_t port;
};

static const struct judged {
	const char *what;
	enum sluice_l4 l4;
	struct end src, dst;             /* as it was sent */
	struct end reply_src, reply_dst; /* as the answer comes */
	enum collide_verdict verdict;
	uint32_t status;
	uint16_t zone;
	bool helper;
} judged[] = {
#define SNAT IPS_SRC_NAT
#define DNAT IPS_DST_NAT
	/* A local socket on a shared address. */
	{ "TCP",
	  SLUICE_TCP,
	  { "203.0.113.7", 41000 },
	  { "198.51.100.9", 443 },
	  { "198.51.100.9", 443 },
	  { "203.0.113.7", 60164 },
	  COLLIDE_REWRITE,
	  SNAT },
	{ "UDP",
	  SLUICE_UDP,
	  { "203.0.113.8", 41000 },
	  { "198.51.100.9", 53 },
	  { "198.51.100.9", 53 },
	  { "203.0.113.8", 1024 },
	  COLLIDE_REWRITE,
	  SNAT },
	{ "TCP, IPv6",
	  SLUICE_TCP,
	  { "2001:db8::7", 41000 },
	  { "2001:db8:9::1", 443 },
	  { "2001:db8:9::1", 443 },
	  { "2001:db8::7", 65535 },
	  COLLIDE_REWRITE,
	  SNAT },
	{ "UDP, IPv6",
	  SLUICE_UDP,
	  { "2001:db8::7", 1 },
	  { "2001:db8:9::1", 443 },
	  { "2001:db8:9::1", 443 },
	  { "2001:db8::7", 2 },
	  COLLIDE_REWRITE,
	  SNAT },
	{ "seen late: the connection is confirmed, answered, assured",
	  SLUICE_TCP,
	  { "203.0.113.7", 41000 },
	  { "198.51.100.9", 443 },
	  { "198.51.100.9", 443 },
	  { "203.0.113.7", 60164 },
	  COLLIDE_REWRITE,
	  SNAT | IPS_SRC_NAT_DONE | IPS_DST_NAT_DONE | IPS_CONFIRMED | IPS_SEEN_REPLY |
		  IPS_ASSURED },
	{ "a source that says nothing about the status",
	  SLUICE_TCP,
	  { "203.0.113.7", 41000 },
	  { "198.51.100.9", 443 },
	  { "198.51.100.9", 443 },
	  { "203.0.113.7", 60164 },
	  COLLIDE_REWRITE },
	{ "the same port",
	  SLUICE_TCP,
	  { "203.0.113.7", 41000 },
	  { "198.51.100.9", 443 },
	  { "198.51.100.9", 443 },
	  { "203.0.113.7", 41000 },
	  COLLIDE_NONE },
	{ "the same port, though something claims SNAT",
	  SLUICE_UDP,
	  { "203.0.113.7", 41000 },
	  { "198.51.100.9", 443 },
	  { "198.51.100.9", 443 },
	  { "203.0.113.7", 41000 },
	  COLLIDE_NONE,
	  SNAT },
	{ "a rewrite on an address that nobody shares",
	  SLUICE_TCP,
	  { "192.0.2.1", 41000 },
	  { "198.51.100.9", 443 },
	  { "198.51.100.9", 443 },
	  { "192.0.2.1", 60164 },
	  COLLIDE_NONE,
	  SNAT },

	/* Forwarded. */
	{ "SNAT to a shared address",
	  SLUICE_TCP,
	  { "10.1.0.2", 5000 },
	  { "198.51.100.9", 443 },
	  { "198.51.100.9", 443 },
	  { "203.0.113.7", 41000 },
	  COLLIDE_NAT,
	  SNAT },
	{ "SNAT that keeps the port",
	  SLUICE_UDP,
	  { "10.1.0.2", 41000 },
	  { "198.51.100.9", 443 },
	  { "198.51.100.9", 443 },
	  { "203.0.113.7", 41000 },
	  COLLIDE_NAT,
	  SNAT },
	{ "SNAT, IPv6",
	  SLUICE_UDP,
	  { "fd00::2", 5000 },
	  { "2001:db8:9::1", 443 },
	  { "2001:db8:9::1", 443 },
	  { "2001:db8::7", 41000 },
	  COLLIDE_NAT,
	  SNAT },
	{ "SNAT to another address",
	  SLUICE_TCP,
	  { "10.1.0.2", 5000 },
	  { "198.51.100.9", 443 },
	  { "198.51.100.9", 443 },
	  { "192.0.2.1", 41000 },
	  COLLIDE_NONE,
	  SNAT },
	{ "not translated",
	  SLUICE_TCP,
	  { "10.1.0.2", 5000 },
	  { "10.2.0.9", 443 },
	  { "10.2.0.9", 443 },
	  { "10.1.0.2", 5000 },
	  COLLIDE_NONE },
	{ "SNAT of a connection with a helper",
	  SLUICE_TCP,
	  { "10.1.0.2", 5000 },
	  { "198.51.100.9", 21 },
	  { "198.51.100.9", 21 },
	  { "203.0.113.7", 41000 },
	  COLLIDE_NAT,
	  SNAT,
	  .helper = true },
	{ "SNAT in a zone: the wire has none",
	  SLUICE_TCP,
	  { "10.1.0.2", 5000 },
	  { "198.51.100.9", 443 },
	  { "198.51.100.9", 443 },
	  { "203.0.113.7", 41000 },
	  COLLIDE_NAT,
	  SNAT,
	  .zone = 7 },

	/* The machine's own packets, masqueraded. */
	{ "local, masqueraded to an address that is not watched",
	  SLUICE_TCP,
	  { "10.0.0.1", 5000 },
	  { "198.51.100.9", 443 },
	  { "198.51.100.9", 443 },
	  { "192.0.2.1", 5000 },
	  COLLIDE_NONE,
	  SNAT },
	{ "local, masqueraded to a shared one",
	  SLUICE_TCP,
	  { "10.0.0.1", 5000 },
	  { "198.51.100.9", 443 },
	  { "198.51.100.9", 443 },
	  { "203.0.113.7", 5000 },
	  COLLIDE_NAT,
	  SNAT },
	{ "from one shared address to another",
	  SLUICE_TCP,
	  { "203.0.113.7", 41000 },
	  { "198.51.100.9", 443 },
	  { "198.51.100.9", 443 },
	  { "203.0.113.8", 41001 },
	  COLLIDE_NAT,
	  SNAT },
	{ "from a shared address to one that is not",
	  SLUICE_TCP,
	  { "203.0.113.7", 41000 },
	  { "198.51.100.9", 443 },
	  { "198.51.100.9", 443 },
	  { "192.0.2.1", 41001 },
	  COLLIDE_NONE,
	  SNAT },

	/* Destination NAT. */
	{ "DNAT alone, of a local socket",
	  SLUICE_TCP,
	  { "203.0.113.7", 41000 },
	  { "198.51.100.9", 443 },
	  { "10.2.0.9", 8443 },
	  { "203.0.113.7", 41000 },
	  COLLIDE_NONE,
	  DNAT },
	{ "DNAT and a rewritten port",
	  SLUICE_TCP,
	  { "203.0.113.7", 41000 },
	  { "198.51.100.9", 443 },
	  { "10.2.0.9", 8443 },
	  { "203.0.113.7", 60164 },
	  COLLIDE_REWRITE,
	  SNAT | DNAT },
	{ "DNAT of what comes in for a shared address",
	  SLUICE_TCP,
	  { "198.51.100.9", 5000 },
	  { "203.0.113.7", 80 },
	  { "10.2.0.9", 8080 },
	  { "198.51.100.9", 5000 },
	  COLLIDE_NONE,
	  DNAT },
	{ "comes in for a shared address",
	  SLUICE_TCP,
	  { "198.51.100.9", 5000 },
	  { "203.0.113.7", 80 },
	  { "203.0.113.7", 80 },
	  { "198.51.100.9", 5000 },
	  COLLIDE_NONE },
	{ "comes in, and its source port is rewritten",
	  SLUICE_TCP,
	  { "198.51.100.9", 5000 },
	  { "203.0.113.7", 80 },
	  { "203.0.113.7", 80 },
	  { "198.51.100.9", 5001 },
	  COLLIDE_NONE,
	  SNAT },
	{ "hairpin: a client by way of the shared address",
	  SLUICE_TCP,
	  { "10.1.0.2", 5000 },
	  { "203.0.113.7", 80 },
	  { "10.2.0.9", 8080 },
	  { "203.0.113.7", 41000 },
	  COLLIDE_NAT,
	  SNAT | DNAT },
	{ "hairpin of a local socket",
	  SLUICE_TCP,
	  { "203.0.113.7", 41000 },
	  { "203.0.113.7", 80 },
	  { "10.2.0.9", 8080 },
	  { "203.0.113.7", 41000 },
	  COLLIDE_NONE,
	  DNAT },
	{ "hairpin of a local socket, rewritten",
	  SLUICE_TCP,
	  { "203.0.113.7", 41000 },
	  { "203.0.113.7", 80 },
	  { "10.2.0.9", 8080 },
	  { "203.0.113.7", 41001 },
	  COLLIDE_REWRITE,
	  SNAT | DNAT },
	{ "over the loopback interface, rewritten",
	  SLUICE_UDP,
	  { "203.0.113.7", 41000 },
	  { "203.0.113.7", 53 },
	  { "203.0.113.7", 53 },
	  { "203.0.113.7", 41001 },
	  COLLIDE_REWRITE,
	  SNAT },

	/* Wanted by somebody. */
	{ "in a zone",
	  SLUICE_TCP,
	  { "203.0.113.7", 41000 },
	  { "198.51.100.9", 443 },
	  { "198.51.100.9", 443 },
	  { "203.0.113.7", 60164 },
	  COLLIDE_NONE,
	  SNAT,
	  .zone = 1 },
	{ "with a helper",
	  SLUICE_TCP,
	  { "203.0.113.7", 41000 },
	  { "198.51.100.9", 21 },
	  { "198.51.100.9", 21 },
	  { "203.0.113.7", 60164 },
	  COLLIDE_NONE,
	  SNAT,
	  .helper = true },
	{ "expected by a helper",
	  SLUICE_TCP,
	  { "203.0.113.7", 20 },
	  { "198.51.100.9", 5000 },
	  { "198.51.100.9", 5000 },
	  { "203.0.113.7", 60164 },
	  COLLIDE_NONE,
	  SNAT | IPS_EXPECTED },

	/* Never comes; but a record of it must not be taken for something else. */
	{ "ICMP",
	  SLUICE_ICMP,
	  { "203.0.113.7", 41000 },
	  { "198.51.100.9", 0 },
	  { "198.51.100.9", 0 },
	  { "203.0.113.7", 60164 },
	  COLLIDE_NONE,
	  SNAT },
	{ "ICMP of a client",
	  SLUICE_ICMP,
	  { "10.1.0.2", 41000 },
	  { "198.51.100.9", 0 },
	  { "198.51.100.9", 0 },
	  { "203.0.113.7", 60164 },
	  COLLIDE_NONE,
	  SNAT },
};

static struct ct_entry entry_of(const struct judged *j)
{
	return (struct ct_entry){
		.l4 = j->l4,
		.orig = { addr(j->src.addr), addr(j->dst.addr), j->src.port, j->dst.port },
		.reply = { addr(j->reply_src.addr), addr(j->reply_dst.addr), j->reply_src.port,
			   j->reply_dst.port },
		.status = j->status,
		.zone = j->zone,
		.helper = j->helper,
	};
}

static void test_judge(void **state)
{
	const struct collide_addrs none = { watched_v, 0 };

	(void)state;
	for (size_t i = 0; i < N(judged); i++) {
		struct ct_entry e = entry_of(&judged[i]);
		enum collide_verdict v = collide_judge(&e, &watched);

		if (v != judged[i].verdict)
			fail_msg("%s: %d, wanted %d", judged[i].what, v, judged[i].verdict);
		assert_int_equal(collide_judge(&e, &none), COLLIDE_NONE);
	}
}

/* The same rules as sentences, without a sorted list; over tuples that have much in common. */
static enum collide_verdict plainly(const struct ct_entry *e, bool any)
{
	bool shared_wire = any, moved, new_port;

	for (size_t i = 0; i < N(watched_v); i++)
		shared_wire |= !memcmp(&e->reply.dst, &watched_v[i], sizeof(struct addr));
	moved = memcmp(&e->orig.src, &e->reply.dst, sizeof(struct addr)) != 0;
	new_port = e->orig.sport != e->reply.dport;
	if (e->l4 == SLUICE_ICMP || !shared_wire)
		return COLLIDE_NONE;
	if (moved)
		return COLLIDE_NAT;
	if (new_port && e->zone == 0 && !e->helper && !(e->status & IPS_EXPECTED))
		return COLLIDE_REWRITE;
	return COLLIDE_NONE;
}

static void test_judge_any(void **state)
{
	const struct collide_addrs all = { NULL, 0 };
	static const char *const texts[] = { "203.0.113.7", "203.0.113.8", "2001:db8::7",
					     "203.0.113.6", "192.0.2.1",   "2001:db8::8" };
	unsigned seen[3] = { 0 };
	struct addr addrs[N(texts)];

	(void)state;
	for (size_t i = 0; i < N(texts); i++)
		addrs[i] = addr(texts[i]);
	for (int run = 0; run < 200000; run++) {
		struct ct_entry e = {
			.l4 = (enum sluice_l4)rnd(3),
			.orig = { addrs[rnd(N(addrs))], addrs[rnd(N(addrs))], (uint16_t)rnd(3),
				  (uint16_t)rnd(3) },
			.reply = { addrs[rnd(N(addrs))], addrs[rnd(N(addrs))], (uint16_t)rnd(3),
				   (uint16_t)rnd(3) },
			.status = (uint32_t)rnd(1 << 16),
			.id = (uint32_t)rnd(2),
			.zone = (uint16_t)(rnd(4) == 0),
			.helper = rnd(4) == 0,
		};
		enum collide_verdict v = collide_judge(&e, &watched);

		assert_int_equal(v, plainly(&e, false));
		assert_int_equal(collide_judge(&e, &all), plainly(&e, true));
		seen[v]++;
	}
	assert_true(seen[0] > 1000 && seen[1] > 1000 && seen[2] > 1000);
}

static void test_watched(void **state)
{
	struct addr list[64], a = { { 0 } };
	struct collide_addrs set = { list, 0 };

	(void)state;
	assert_false(collide_watched(&set, &a));
	set.v = NULL; /* any */
	assert_true(collide_watched(&set, &a));
	set.v = list;
	for (size_t i = 0; i < N(list); i++)
		list[i] = (struct addr){ { [15] = (uint8_t)(2 * i + 1) } };
	for (set.n = 0; set.n <= N(list); set.n++)
		for (unsigned b = 0; b < 256; b++) {
			a.b[15] = (uint8_t)b;
			assert_int_equal(collide_watched(&set, &a), b % 2 && b / 2 < set.n);
		}
}

/* ---- ports ---- */

static void test_ports(void **state)
{
	const struct addr other = addr("192.0.2.1");
	const uint16_t ports[] = { 0, 1, 1024, 65535 };
	struct collide_addrs copy = { malloc(sizeof(watched_v)), N(watched_v) };
	struct collide_ports *p = NULL;

	(void)state;
	memcpy((void *)(uintptr_t)copy.v, watched_v, sizeof(watched_v));
	assert_int_equal(collide_ports_new(&copy, &p), 0);
	free((void *)(uintptr_t)copy.v);
	/* Each has a counter of its own. */
	for (int round = 0; round < 2; round++) {
		unsigned n = 0;

		for (size_t a = 0; a < N(watched_v); a++)
			for (int l4 = SLUICE_TCP; l4 <= SLUICE_UDP; l4++)
				for (size_t i = 0; i < N(ports); i++, n++)
					for (unsigned k = 0; k < n; k++)
						collide_ports_add(p, (enum sluice_l4)l4,
								  &watched_v[a], ports[i], 1);
		n = 0;
		for (size_t a = 0; a < N(watched_v); a++)
			for (int l4 = SLUICE_TCP; l4 <= SLUICE_UDP; l4++)
				for (size_t i = 0; i < N(ports); i++, n++)
					assert_int_equal(collide_ports_get(p, (enum sluice_l4)l4,
									   &watched_v[a], ports[i]),
							 n);
		collide_ports_clear(p);
		for (unsigned port = 0; port < 65536; port++)
			assert_int_equal(
				collide_ports_get(p, SLUICE_UDP, &watched_v[2], (uint16_t)port), 0);
	}

	/* Not below 0, nor elsewhere. */
	collide_ports_add(p, SLUICE_TCP, &watched_v[0], 5, -1);
	assert_int_equal(collide_ports_get(p, SLUICE_TCP, &watched_v[0], 5), 0);
	collide_ports_add(p, SLUICE_TCP, &watched_v[0], 5, 1);
	collide_ports_add(p, SLUICE_TCP, &watched_v[0], 5, 1);
	collide_ports_add(p, SLUICE_TCP, &watched_v[0], 5, -1);
	assert_int_equal(collide_ports_get(p, SLUICE_TCP, &watched_v[0], 5), 1);
	collide_ports_add(p, SLUICE_TCP, &other, 5, 1);
	assert_int_equal(collide_ports_get(p, SLUICE_TCP, &other, 5), 0);
	collide_ports_add(p, SLUICE_ICMP, &watched_v[0], 5, 1);
	assert_int_equal(collide_ports_get(p, SLUICE_ICMP, &watched_v[0], 5), 0);
	assert_int_equal(collide_ports_get(p, SLUICE_UDP, &watched_v[0], 5), 0);
	collide_ports_free(p);

	/* Nothing is watched. */
	copy = (struct collide_addrs){ NULL, 0 };
	assert_int_equal(collide_ports_new(&copy, &p), 0);
	collide_ports_add(p, SLUICE_TCP, &other, 5, 1);
	assert_int_equal(collide_ports_get(p, SLUICE_TCP, &other, 5), 0);
	collide_ports_clear(p);
	collide_ports_free(p);
	collide_ports_free(NULL);
}

/* ---- what was told ---- */

#define A      1U
#define B      2U
#define C      0x80000000U
#define FORGET (30 * S)

static struct collide_recent *recent;

static int recent_setup(void **state)
{
	(void)state;
	return collide_recent_new(4711, &recent);
}

static int recent_teardown(void **state)
{
	(void)state;
	collide_recent_free(recent);
	return 0;
}

static uint32_t see(const struct ct_entry *e, uint32_t source, uint64_t now_ns)
{
	return collide_recent_see(recent, 1, e, source, now_ns, FORGET);
}

/* The n-th of many. */
static struct ct_entry nth(uint32_t n)
{
	struct ct_entry e = entry_of(&judged[0]);

	e.orig.dport = e.reply.sport = (uint16_t)n;
	memcpy(e.orig.dst.b + 12, &n, sizeof(n));
	memcpy(e.reply.src.b + 12, &n, sizeof(n));
	return e;
}

/* Two sources and a dump see one thing, in any order, with or without the kernel's id. */
static void test_recent_sources(void **state)
{
	static const uint32_t orders[][3] = { { A, B, C }, { A, C, B }, { B, A, C },
					      { B, C, A }, { C, A, B }, { C, B, A } };

	(void)state;
	for (uint32_t i = 0; i < N(orders); i++)
		for (uint32_t ids = 0; ids < 8; ids++) {
			struct ct_entry e = nth(8 * i + ids);
			uint32_t had = 0;

			/* A later source may come late: a resynchronisation does. */
			for (uint32_t k = 0; k < 3; k++) {
				e.id = ids >> k & 1 ? 77 : 0;
				assert_int_equal(see(&e, orders[i][k], k * 100 * S), had);
				had |= orders[i][k];
			}
			e.id = 0;
			assert_int_equal(see(&e, orders[i][0], 2), had);
		}
}

/* Whatever of an entry differs: another one. The status may differ. */
static void test_recent_differs(void **state)
{
	struct ct_entry base = entry_of(&judged[0]), e;

	(void)state;
	assert_int_equal(see(&base, A, 0), 0);
#define DIFFERENT(change)                           \
	do {                                        \
		e = base;                           \
		change;                             \
		assert_int_equal(see(&e, A, 1), 0); \
		assert_int_equal(see(&e, B, 1), A); \
	} while (0)
	DIFFERENT(e.l4 = SLUICE_UDP);
	DIFFERENT(e.zone = 1);
	DIFFERENT(e.orig.sport++);
	DIFFERENT(e.orig.dport++);
	DIFFERENT(e.orig.src.b[0]++);
	DIFFERENT(e.orig.dst.b[15]++);
	DIFFERENT(e.reply.sport++);
	DIFFERENT(e.reply.dport++);
	DIFFERENT(e.reply.src.b[7]++);
	DIFFERENT(e.reply.dst.b[8]++);
	assert_int_equal(collide_recent_see(recent, 2, &base, A, 1, FORGET), 0);
	assert_int_equal(collide_recent_see(recent, 2, &base, B, 1, FORGET), A);
	e = base;
	e.status ^= IPS_ASSURED;
	e.helper = true;
	assert_int_equal(see(&e, A, 1), A);
}

static void test_recent_forgets(void **state)
{
	struct ct_entry e = nth(1);

	(void)state;
	/* Without ids: the same source, later than that after the first. */
	assert_int_equal(see(&e, A, 5 * S), 0);
	assert_int_equal(see(&e, A, 5 * S + FORGET), A);
	assert_int_equal(see(&e, A, 4 * S), A); /* clocks of two sources */
	assert_int_equal(see(&e, A, 5 * S + FORGET + 1), 0);
	assert_int_equal(see(&e, B, 6 * S + FORGET), A);
	assert_int_equal(see(&e, A, 5 * S + 2 * FORGET + 1), A | B);
	assert_int_equal(see(&e, B, 5 * S + 2 * FORGET + 2), 0);
	assert_int_equal(see(&e, A, 5 * S + 2 * FORGET + 3), B);

	/* Ids decide, at once and for ever. */
	e = nth(2);
	e.id = 10;
	assert_int_equal(see(&e, A, 0), 0);
	assert_int_equal(see(&e, A, 1000 * FORGET), A);
	e.id = 11;
	assert_int_equal(see(&e, A, 1000 * FORGET), 0);
	assert_int_equal(see(&e, A, 1000 * FORGET), A);
	assert_int_equal(see(&e, B, 1000 * FORGET), A);
	e.id = 10;
	assert_int_equal(see(&e, C, 1000 * FORGET), 0);

	/* An id that comes with the second source is learned. */
	e = nth(3);
	assert_int_equal(see(&e, A, 0), 0);
	e.id = 5;
	assert_int_equal(see(&e, B, 0), A);
	e.id = 6;
	assert_int_equal(see(&e, B, 1), 0);
	e.id = 0;
	assert_int_equal(see(&e, A, 2), B);
}

/* As many as there is room for; then the one that was told first makes room. */
static void test_recent_bounded(void **state)
{
	struct ct_entry e;

	(void)state;
	for (uint32_t i = 0; i < COLLIDE_RECENT_MAX; i++) {
		e = nth(i);
		assert_int_equal(see(&e, A, i), 0);
	}
	for (uint32_t i = 0; i < COLLIDE_RECENT_MAX; i++) {
		e = nth(i);
		assert_int_equal(see(&e, B, i), A);
	}
	/* Number 0 is told anew: now number 1 is the oldest. */
	e = nth(0);
	assert_int_equal(see(&e, A, 2 * FORGET), 0);
	for (uint32_t i = 0; i < 1000; i++) {
		e = nth(COLLIDE_RECENT_MAX + i);
		assert_int_equal(see(&e, A, 2 * FORGET), 0);
	}
	e = nth(0);
	assert_int_equal(see(&e, C, 2 * FORGET), A);
	e = nth(1001);
	assert_int_equal(see(&e, C, 2 * FORGET), A | B);
	e = nth(1000);
	assert_int_equal(see(&e, C, 2 * FORGET), 0);
	e = nth(1002); /* the oldest but one a moment ago, and its place was not needed */
	assert_int_equal(see(&e, C, 2 * FORGET), A | B);
}

/* Against a list that is searched from end to end. */
static void test_recent_any(void **state)
{
	static struct {
		struct ct_entry e;
		uint32_t netns, sources;
		uint64_t first_ns;
	} list[4096];
	size_t n = 0;
	unsigned known = 0, another = 0;

	(void)state;
	for (unsigned step = 0; step < 60000; step++) {
		uint64_t now_ns = step * (S / 100), before = 0;
		struct ct_entry e = nth((uint32_t)rnd(300));
		uint32_t netns = (uint32_t)rnd(3), source = 1U << rnd(3);
		size_t i;

		e.id = (uint32_t)rnd(3) * (uint32_t)rnd(2);
		for (i = 0; i < n; i++)
			if (list[i].netns == netns && ct_same(&list[i].e, &e))
				break;
		if (i < n) {
			bool ids = e.id && list[i].e.id;

			if (ids ? e.id == list[i].e.id
				: !(list[i].sources & source && now_ns - list[i].first_ns > FORGET))
				before = list[i].sources;
		}
		if (before) {
			list[i].sources |= source;
			if (!list[i].e.id)
				list[i].e.id = e.id;
			known++;
		} else {
			another += i < n;
			assert_true(i < N(list));
			list[i].e = e;
			list[i].netns = netns;
			list[i].sources = source;
			list[i].first_ns = now_ns;
			n += i == n;
		}
		assert_int_equal(collide_recent_see(recent, netns, &e, source, now_ns, FORGET),
				 before);
	}
	assert_true(known > 1000 && another > 1000);
}

/*
 * Whoever sends packets chooses tuples. Those that fall together under one key (in twice as many buckets as there are entries, as here) are apart
 * under another one, which nobody outside knows.
 */
static void test_adversary(void **state)
{
	const uint64_t key = 1, other = 2, mask = 2 * COLLIDE_RECENT_MAX - 1;
	uint64_t places[24];
	unsigned same = 0;
	size_t n = 0;

	(void)state;
	for (uint32_t i = 0; n < N(places); i++) {
		struct ct_entry e = nth(i);

		if ((ct_hash(&e, key) & mask) != 5)
			continue;
		places[n] = ct_hash(&e, other) & mask;
		for (size_t k = 0; k < n; k++)
			same += places[k] == places[n];
		n++;
	}
	assert_true(same <= 1);
}

/* ---- names ---- */

static void test_names(void **state)
{
	(void)state;
	assert_string_equal(collision_source_name(COLLISION_CTNETLINK), "ctnetlink");
	assert_string_equal(collision_source_name(COLLISION_NETFILTER | COLLISION_DUMP),
			    "netfilter");
	assert_string_equal(collision_source_name(COLLISION_DUMP), "dump");
	assert_string_equal(collision_source_name(COLLISION_DATAPLANE), "dataplane");
	assert_string_equal(collision_source_name(COLLISION_INVENTORY), "inventory");
	assert_string_equal(collision_source_name(0), "");
	assert_string_equal(collision_source_name(32), "");
	assert_string_equal(collision_kind_name(COLLISION_REWRITE), "rewrite");
	assert_string_equal(collision_kind_name(COLLISION_RISK), "risk");
}

#define RECENT(test) cmocka_unit_test_setup_teardown(test, recent_setup, recent_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_judge),   cmocka_unit_test(test_judge_any),
		cmocka_unit_test(test_watched), cmocka_unit_test(test_ports),
		RECENT(test_recent_sources),    RECENT(test_recent_differs),
		RECENT(test_recent_forgets),    RECENT(test_recent_bounded),
		RECENT(test_recent_any),        cmocka_unit_test(test_adversary),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
