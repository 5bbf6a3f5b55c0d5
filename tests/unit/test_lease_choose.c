/* SPDX-License-Identifier: BSD-2-Clause */
/* Which ports a request gets, or what it is told: case by case. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lease.h"

#define KEYS     50 /* random keys that each case is tried with, at least */
#define KEYS_MAX 20000

static struct lease_table *t;
static uint64_t id;
/* What NAT has: ports of 203.0.113.7, by protocol. */
static uint64_t nat[2][1024];
static unsigned asked;

static const struct lease_limits no_limits = { .leases = 100000, .cool_down_s = 60 };

static struct range ranges(const char *text)
{
	struct range r;

	if (range_parse(text, &r))
		fail_msg("%s", text);
	return r;
}

static void slices_set(size_t n, const char *const (*list)[3])
{
	struct lease_slice s[16] = { 0 };

	for (size_t i = 0; i < n; i++) {
		strcpy(s[i].pool, list[i][0]);
		s[i].ports = ranges(list[i][1]);
		s[i].live = !list[i][2];
	}
	assert_int_equal(lease_slices_set(t, s, n), 0);
}

/* Pool a: an address with slices of 64, 128 and 256 ports, and another one; pool b: one slice and IPv6; pool c: fenced. */
static int setup(void **state)
{
	static const char *const list[][3] = {
		{ "c", "192.0.2.1:40960-41983", "fenced" }, { "a", "203.0.113.7:40960-41023" },
		{ "a", "203.0.113.7:41088-41215" },         { "a", "203.0.113.7:41216-41471" },
		{ "a", "203.0.113.8:40960-41023" },         { "b", "203.0.113.9:50048-50111" },
		{ "b", "[2001:db8::7]:50048-50111" },
	};

	(void)state;
	t = lease_table_new(&no_limits);
	assert_non_null(t);
	slices_set(sizeof(list) / sizeof(list[0]), list);
	memset(nat, 0, sizeof(nat));
	asked = 0;
	id = 1;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	lease_table_free(t);
	return 0;
}

static uint64_t busy(void *arg, size_t slice, enum sluice_l4 l4, uint16_t first)
{
	size_t n;
	const struct lease_slice *s = &lease_slices(t, &n)[slice];

	(void)arg;
	assert_true(slice < n && first >= s->ports.first && first <= s->ports.last);
	asked++;
	return s->ports.addr.b[15] == 7 && addr_is_v4(&s->ports.addr) ? nat[l4][first / 64] : 0;
}

static void nat_takes(enum sluice_l4 l4, uint16_t first, uint16_t last)
{
	for (unsigned p = first; p <= last; p++)
		nat[l4][p / 64] |= 1ULL << p % 64;
}

static struct lease_request tcp(uint32_t ports)
{
	return (struct lease_request){
		.protos = LEASE_TCP,
		.ports = ports,
		.leases = 1,
		.parity = -1,
		.holder = { .uid = 1000, .cgroup = "/user.slice" },
	};
}

static void grant(const struct lease_request *req, const struct range *r)
{
	assert_non_null(lease_grant(t, id++, req, r, 0, 0));
	lease_keep(t);
}

/* Take the ports of "address:first-last" as one lease. */
static struct lease *take(const char *text, uint8_t protos, uint32_t uid)
{
	struct range r = ranges(text), got;
	struct lease_request req = tcp((uint32_t)r.last - r.first + 1);
	struct errtext err = { "" };
	struct lease *l;

	req.protos = protos;
	req.holder.uid = uid;
	req.addr = &r.addr;
	req.port = r.first;
	if (lease_choose(t, &req, 1, NULL, NULL, &got, &err))
		fail_msg("%s: %s", text, err.s);
	assert_memory_equal(&got, &r, sizeof(r));
	l = lease_grant(t, id++, &req, &got, 0, 0);
	assert_non_null(l);
	lease_keep(t);
	return l;
}

/* What is found with each of many keys is one of the ranges, and each of them is found. */
static void found(const struct lease_request *req, const char *const *list, size_t n)
{
	unsigned seen[16] = { 0 };
	size_t n_seen = 0;

	for (uint64_t key = 0; key < KEYS || (n_seen < n && key < KEYS_MAX); key++) {
		struct errtext err = { "" };
		struct range got[LEASE_AT_ONCE];
		size_t k;

		if (lease_choose(t, req, key, busy, NULL, got, &err))
			fail_msg("key %llu: %s", (unsigned long long)key, err.s);
		for (k = 0; k < n; k++) {
			struct range r = ranges(list[k]);

			if (!memcmp(&r, &got[0], sizeof(r)))
				break;
		}
		if (k == n) {
			char text[RANGE_STRLEN];

			fail_msg("%s", range_format(&got[0], text));
		}
		n_seen += !seen[k]++;
	}
	for (size_t k = 0; k < n; k++)
		if (!seen[k])
			fail_msg("%s was never chosen", list[k]);
}
#define FOUND(req, ...)                                    \
	found((req), (const char *const[]){ __VA_ARGS__ }, \
	      sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(const char *))

/* Refused, with these words in the text; ret is left alone. */
static void refused(const struct lease_request *req, int want, const char *const *words, size_t n)
{
	for (uint64_t key = 0; key < 5; key++) {
		struct range got[LEASE_AT_ONCE], was[LEASE_AT_ONCE];
		struct errtext err = { "" };
		int r;

		memset(got, 0xa5, sizeof(got));
		memset(was, 0xa5, sizeof(was));
		r = lease_choose(t, req, key, busy, NULL, got, &err);
		if (r != -want)
			fail_msg("%d, not %d: %s", r, -want, err.s);
		for (size_t i = 0; i < n; i++)
			if (!strstr(err.s, words[i]))
				fail_msg("\"%s\" is not in: %s", words[i], err.s);
		assert_memory_equal(got, was, sizeof(got));
		/* Without anybody to read the text. */
		assert_int_equal(lease_choose(t, req, key, busy, NULL, got, NULL), -want);
	}
}
#define REFUSED(req, want, ...)                                      \
	refused((req), (want), (const char *const[]){ __VA_ARGS__ }, \
		sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(const char *))

static void test_request(void **state)
{
	char longer[400];
	struct lease_request req;

	(void)state;
	memset(longer, 'x', sizeof(longer));
	longer[399] = 0;
	req = tcp(1), req.protos = 0;
	REFUSED(&req, EINVAL, "protocols 0x0", "tcp, udp, or both");
	req = tcp(1), req.protos = 1 << SLUICE_ICMP;
	REFUSED(&req, EINVAL, "protocols 0x4");
	req = tcp(0);
	REFUSED(&req, EINVAL, "ports 0", "1 to 32768");
	req = tcp(32769);
	REFUSED(&req, EINVAL, "ports 32769");
	req = tcp(UINT32_MAX);
	REFUSED(&req, EINVAL, "ports 4294967295");
	req = tcp(1), req.leases = 0;
	REFUSED(&req, EINVAL, "leases 0", "1 to 256");
	req = tcp(1), req.leases = 257;
	REFUSED(&req, EINVAL, "leases 257");
	req = tcp(1), req.align = 12;
	REFUSED(&req, EINVAL, "align 12", "power of two");
	req = tcp(1), req.align = 65536;
	REFUSED(&req, EINVAL, "align 65536", "32768");
	req = tcp(1), req.parity = 2;
	REFUSED(&req, EINVAL, "parity 2");
	req = tcp(1), req.parity = -2;
	REFUSED(&req, EINVAL, "parity -2");
	req = tcp(1), req.parity = 1, req.align = 2;
	REFUSED(&req, EINVAL, "align 2", "never odd");
	req = tcp(1), req.port = 40962, req.align = 4;
	REFUSED(&req, EINVAL, "port 40962", "multiple of 4");
	req = tcp(1), req.port = 40962, req.parity = 1;
	REFUSED(&req, EINVAL, "port 40962", "not odd");
	req = tcp(1), req.port = 40963, req.parity = 0;
	REFUSED(&req, EINVAL, "port 40963", "not even");
	req = tcp(1), req.ttl_s = LEASE_TTL_MAX + 1;
	REFUSED(&req, EINVAL, "ttl 2592001", "2592000");
	req = tcp(1), req.name = longer + 399 - LEASE_NAME_MAX - 1;
	REFUSED(&req, EINVAL, "name \"xxxx", "64 characters", "63");
	req = tcp(1), req.labels = longer + 399 - LEASE_LABELS_MAX - 1;
	REFUSED(&req, EINVAL, "labels \"xxxx", "256 characters", "255");
	/* The longest that there may be. */
	req = tcp(1), req.name = longer + 399 - LEASE_NAME_MAX;
	req.labels = longer + 399 - LEASE_LABELS_MAX, req.ttl_s = LEASE_TTL_MAX;
	req.pool = "b", req.port = 50050;
	FOUND(&req, "203.0.113.9:50050-50050", "[2001:db8::7]:50050-50050");
}

static void test_where(void **state)
{
	static const char *const b_then_a[] = { "nothing", "b", "a", "b" };
	static const char *const nothing[] = { "x", "y" };
	struct lease_request req = tcp(64);
	struct addr a;

	(void)state;
	req.ports = 256;
	FOUND(&req, "203.0.113.7:41216-41471");
	req.ports = 64, req.pool = "b";
	FOUND(&req, "203.0.113.9:50048-50111", "[2001:db8::7]:50048-50111");
	req.pool = "x";
	REFUSED(&req, ENOENT, "\"x\"", "\"a\"", "\"b\"", "\"c\"");
	req.pool = NULL, req.pools = nothing, req.n_pools = 2;
	REFUSED(&req, ENOENT, "none of the 2 pools", "\"a\"");
	req.n_pools = 0;
	REFUSED(&req, ENOENT, "none of the 0 pools");
	/* In this order. */
	req.pools = b_then_a, req.n_pools = 4;
	FOUND(&req, "203.0.113.9:50048-50111", "[2001:db8::7]:50048-50111");
	take("203.0.113.9:50050-50050", LEASE_TCP, 1);
	take("[2001:db8::7]:50111-50111", LEASE_TCP, 1);
	req.align = 64;
	FOUND(&req, "203.0.113.7:40960-41023", "203.0.113.7:41088-41151", "203.0.113.7:41152-41215",
	      "203.0.113.7:41216-41279", "203.0.113.7:41280-41343", "203.0.113.7:41344-41407",
	      "203.0.113.7:41408-41471", "203.0.113.8:40960-41023");
	/* The address alone. */
	req.pools = NULL, req.n_pools = 0;
	assert_int_equal(addr_parse("203.0.113.8", &a), 0);
	req.addr = &a;
	FOUND(&req, "203.0.113.8:40960-41023");
	assert_int_equal(addr_parse("2001:db8::7", &a), 0);
	req.ports = 63, req.align = 0;
	FOUND(&req, "[2001:db8::7]:50048-50110");
	req.pool = "a";
	REFUSED(&req, ENOENT, "2001:db8::7");
	req.pool = NULL;
	assert_int_equal(addr_parse("203.0.113.99", &a), 0);
	REFUSED(&req, ENOENT, "203.0.113.99");
	/* No slice at all. */
	assert_int_equal(lease_slices_set(t, NULL, 0), 0);
	req = tcp(1);
	REFUSED(&req, ENOENT, "no slices");
}

static void test_fenced(void **state)
{
	static const char *const both[] = { "c", "b" };
	static const char *const list[][3] = {
		{ "a", "203.0.113.7:40960-41087", "fenced" },
		{ "a", "203.0.113.8:40960-41023" },
	};
	struct lease_request req = tcp(64);

	(void)state;
	req.pool = "c";
	REFUSED(&req, EKEYEXPIRED, "pool \"c\"", "deadline");
	req.ports = 2000;
	REFUSED(&req, EINVAL, "ports 2000", "1024");
	req.ports = 64;
	req.pool = NULL, req.pools = both, req.n_pools = 2;
	FOUND(&req, "203.0.113.9:50048-50111", "[2001:db8::7]:50048-50111");
	/* The only one that is large enough is not live, the other one is. */
	slices_set(2, list);
	req = tcp(65);
	REFUSED(&req, EKEYEXPIRED, "deadline");
	req = tcp(64);
	FOUND(&req, "203.0.113.8:40960-41023");
	take("203.0.113.8:40960-40960", LEASE_TCP, 1);
	REFUSED(&req, ENOSPC, "pool \"a\"", "63 of 64");
}

static void test_port(void **state)
{
	struct lease_request req = tcp(1);
	struct range got[LEASE_AT_ONCE];
	struct errtext err;
	struct lease *l;

	(void)state;
	req.pool = "a";
	req.port = 40961;
	FOUND(&req, "203.0.113.7:40961-40961", "203.0.113.8:40961-40961");
	l = take("203.0.113.7:40961-40961", LEASE_TCP, 1);
	FOUND(&req, "203.0.113.8:40961-40961");
	/* Several leases of the same port are of several addresses. */
	req.leases = 2;
	REFUSED(&req, ENOSPC, "2 leases", "40961");
	req.port = 40962;
	assert_int_equal(lease_choose(t, &req, 1, busy, NULL, got, &err), 0);
	assert_true(addr_cmp(&got[0].addr, &got[1].addr) && got[0].first == 40962 &&
		    got[1].first == 40962);
	req.leases = 1, req.port = 40961;
	req.addr = &l->ports.addr;
	REFUSED(&req, EADDRINUSE, "tcp port 40961", "203.0.113.7", "is leased");
	req.protos = LEASE_TCP | LEASE_UDP;
	REFUSED(&req, EADDRINUSE, "tcp port 40961", "is leased");
	req.protos = LEASE_UDP;
	FOUND(&req, "203.0.113.7:40961-40961");
	/* A block that runs into it. */
	req = tcp(5), req.port = 40958 + 2, req.addr = &l->ports.addr;
	REFUSED(&req, EADDRINUSE, "tcp port 40961");
	assert_int_equal(lease_release(t, l, LEASE_WHY_RELEASED, 0, 0), 0);
	REFUSED(&req, EADDRINUSE, "tcp port 40961", "cooling down");
	lease_keep(t);
	lease_free(t, l);
	FOUND(&req, "203.0.113.7:40960-40964");
	nat_takes(SLUICE_TCP, 40964, 40964);
	req.addr = &got[0].addr;
	assert_int_equal(addr_parse("203.0.113.7", &got[0].addr), 0);
	REFUSED(&req, EADDRINUSE, "tcp port 40960", "NAT");
	req.ports = 4;
	FOUND(&req, "203.0.113.7:40960-40963");
	/* Beyond the slice, although the next slice goes on there; and outside of all. */
	req.port = 41200, req.ports = 20;
	REFUSED(&req, EINVAL, "20 ports from 41200", "ends at 41215");
	req.port = 41040, req.ports = 1;
	REFUSED(&req, ENOENT, "port 41040", "203.0.113.7:40960-41023");
	req.port = 80;
	REFUSED(&req, ENOENT, "port 80");
	req.port = 65535;
	REFUSED(&req, ENOENT, "port 65535");
	req.port = 41000, req.ports = 300;
	REFUSED(&req, EINVAL, "ports 300", "with that port", "64");
}

static void test_shape(void **state)
{
	struct lease_request req = tcp(300);

	(void)state;
	req.pool = "a";
	REFUSED(&req, EINVAL, "ports 300", "256");
	req.ports = 256;
	FOUND(&req, "203.0.113.7:41216-41471");
	req.align = 512;
	REFUSED(&req, EINVAL, "256 ports in a row", "multiple of 512");
	req.ports = 128, req.align = 256;
	FOUND(&req, "203.0.113.7:41216-41343");
	req.align = 8192;
	REFUSED(&req, EINVAL, "multiple of 8192");
	req.ports = 1;
	FOUND(&req, "203.0.113.7:40960-40960", "203.0.113.8:40960-40960");
	req.align = 0, req.parity = 1, req.ports = 255;
	FOUND(&req, "203.0.113.7:41217-41471");
	req.parity = 1, req.ports = 256;
	REFUSED(&req, EINVAL, "odd");
	req.parity = 0;
	FOUND(&req, "203.0.113.7:41216-41471");
}

/* The same numbers in both protocols; NAT is asked about both. */
static void test_both(void **state)
{
	struct lease_request req = tcp(2);

	(void)state;
	req.protos = LEASE_TCP | LEASE_UDP;
	req.pool = "b";
	take("203.0.113.9:50048-50079", LEASE_TCP, 1);
	take("203.0.113.9:50081-50111", LEASE_UDP, 1);
	take("[2001:db8::7]:50048-50109", LEASE_TCP | LEASE_UDP, 1);
	FOUND(&req, "[2001:db8::7]:50110-50111");
	req.ports = 1;
	FOUND(&req, "203.0.113.9:50080-50080", "[2001:db8::7]:50110-50110",
	      "[2001:db8::7]:50111-50111");
	req.ports = 3;
	REFUSED(&req, ENOSPC, "3 tcp+udp ports in a row", "3 of 128");
	req.protos = LEASE_UDP, req.ports = 33;
	FOUND(&req, "203.0.113.9:50048-50080");
	req.protos = LEASE_TCP | LEASE_UDP, req.pool = "a", req.ports = 255;
	nat_takes(SLUICE_UDP, 41216, 41216);
	FOUND(&req, "203.0.113.7:41217-41471");
	nat_takes(SLUICE_TCP, 41471, 41471);
	REFUSED(&req, ENOSPC, "255 tcp+udp ports in a row");
	req.protos = LEASE_UDP;
	FOUND(&req, "203.0.113.7:41217-41471");
}

/* Everything but certain holes is taken: what is found where, and what is not. */
static void test_fragments(void **state)
{
	static const struct {
		uint32_t ports, align;
		int parity;
		uint32_t first[4]; /* in 41216-41471; none: no ports */
	} cases[] = {
		/* The holes: 41221, 41231-41232, 41276-41285, 41344-41407. */
		{ 64, 0, -1, { 41344 } },
		{ 63, 0, -1, { 41344, 41345 } },
		{ 63, 2, -1, { 41344 } },
		{ 63, 0, 1, { 41345 } },
		{ 62, 0, 0, { 41344, 41346 } },
		{ 62, 4, -1, { 41344 } },
		{ 32, 32, -1, { 41344, 41376 } },
		{ 16, 16, -1, { 41344, 41360, 41376, 41392 } },
		{ 1, 64, -1, { 41280, 41344 } },
		{ 6, 64, -1, { 41280, 41344 } },
		{ 7, 64, -1, { 41344 } },
		{ 1, 128, -1, { 41344 } },
		{ 65, 0, -1, { 0 } },
		{ 64, 0, 1, { 0 } },
		{ 1, 256, -1, { 0 } },
	};
	static const char *const taken[] = {
		"203.0.113.7:41216-41220", "203.0.113.7:41222-41230", "203.0.113.7:41233-41275",
		"203.0.113.7:41286-41343", "203.0.113.7:41408-41471",
	};
	static const char *const only[][3] = { { "a", "203.0.113.7:41216-41471" } };

	(void)state;
	slices_set(1, only);
	for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++)
		take(taken[i], LEASE_TCP, 1);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct lease_request req = tcp(cases[i].ports);
		const char *list[4];
		char text[4][RANGE_STRLEN];
		size_t n = 0;

		req.align = cases[i].align;
		req.parity = cases[i].parity;
		for (; n < 4 && cases[i].first[n]; n++) {
			snprintf(text[n], sizeof(text[n]), "203.0.113.7:%u-%u", cases[i].first[n],
				 cases[i].first[n] + cases[i].ports - 1);
			list[n] = text[n];
		}
		if (n)
			found(&req, list, n);
		else
			REFUSED(&req, ENOSPC, "pool \"a\"", "room");
	}
	/* Odd ones, one after the other, until there is none: 1 + 1 + 5 + 32. */
	{
		struct lease_request req = tcp(1);
		struct range got;

		req.parity = 1;
		for (unsigned i = 0; i < 39; i++) {
			assert_int_equal(lease_choose(t, &req, i, busy, NULL, &got, NULL), 0);
			assert_int_equal(got.first % 2, 1);
			grant(&req, &got);
		}
		REFUSED(&req, ENOSPC, "the first one odd", "38 of 256");
	}
}

/* Every alignment and size: a slice holds exactly as many as fit, then none. */
static void test_to_the_last_port(void **state)
{
	static const char *const only[][3] = { { "a", "203.0.113.7:32768-36863" } };

	(void)state;
	for (uint32_t align = 1; align <= 4096; align *= 2) {
		for (uint32_t ports = align > 8 ? align / 8 : 1; ports <= 4096; ports *= 3) {
			struct lease_request req = tcp(ports);
			/* Blocks that begin at multiples of align; the last may be cut short. */
			uint32_t step = (ports + align - 1) / align * align;
			uint32_t want = (4096 - ports) / step + 1, n = 0;
			struct range got[LEASE_AT_ONCE];
			struct errtext err;

			lease_table_free(t);
			t = lease_table_new(&no_limits);
			slices_set(1, only);
			req.align = align;
			req.protos = (uint8_t)(1 + (ports + align) % 3);
			/* By dozens, where blocks placed at random never lie badly for others. */
			for (; n < want && ports <= align; n += req.leases) {
				req.leases = want - n < 12 ? want - n : 12;
				assert_int_equal(lease_choose(t, &req, n, busy, NULL, got, &err),
						 0);
				for (uint32_t i = 0; i < req.leases; i++)
					grant(&req, &got[i]);
			}
			req.leases = 1;
			if (ports <= align)
				REFUSED(&req, ENOSPC, "pool \"a\"");
			/* All at once they fit however unlucky the places would be. */
			lease_table_free(t);
			t = lease_table_new(&no_limits);
			slices_set(1, only);
			if (want > LEASE_AT_ONCE)
				continue;
			req.leases = want;
			for (uint64_t key = 0; key < 4; key++)
				assert_int_equal(lease_choose(t, &req, key, busy, NULL, got, &err),
						 0);
			if (want < LEASE_AT_ONCE) {
				req.leases = want + 1;
				REFUSED(&req, ENOSPC, "pool \"a\"");
			}
		}
	}
}

/* Leases of one request: apart from each other, over slices and pools, all or none. */
static void test_several(void **state)
{
	struct lease_request req = tcp(32);
	struct range got[LEASE_AT_ONCE];

	(void)state;
	req.pool = "b";
	req.leases = 4;
	for (uint64_t key = 0; key < KEYS; key++) {
		assert_int_equal(lease_choose(t, &req, key, busy, NULL, got, NULL), 0);
		for (int i = 0; i < 4; i++)
			for (int k = 0; k < i; k++)
				assert_false(range_overlaps(&got[i], &got[k]));
	}
	req.leases = 5;
	REFUSED(&req, ENOSPC, "5 leases of 32 tcp ports in a row", "128 of 128");
	req.pool = NULL;
	req.pools = (const char *const[]){ "b", "a" };
	req.n_pools = 2;
	assert_int_equal(lease_choose(t, &req, 1, busy, NULL, got, NULL), 0);
	/* Nothing of a search stays behind. */
	req = tcp(64), req.pool = "b";
	FOUND(&req, "203.0.113.9:50048-50111", "[2001:db8::7]:50048-50111");
	/* Two pairs in four ports, whatever the key. */
	take("203.0.113.9:50048-50107", LEASE_TCP, 1);
	take("[2001:db8::7]:50048-50111", LEASE_TCP, 1);
	req = tcp(2), req.pool = "b", req.leases = 2;
	for (uint64_t key = 0; key < KEYS; key++)
		assert_int_equal(lease_choose(t, &req, key, busy, NULL, got, NULL), 0);
	nat_takes(SLUICE_TCP, 40960, 41471);
	req = tcp(1), req.pool = "a", req.leases = 64;
	assert_int_equal(lease_choose(t, &req, 1, busy, NULL, got, NULL), 0);
	req.leases = 65;
	REFUSED(&req, ENOSPC, "65 leases", "512 of 512");
}

static void test_random(void **state)
{
	static const char *const only[][3] = { { "a", "203.0.113.7:32768-36863" } };
	struct lease_request req = tcp(1);
	struct range got[LEASE_AT_ONCE], again;
	unsigned low = 0, seen[64] = { 0 }, in_order = 0;

	(void)state;
	slices_set(1, only);
	for (uint64_t key = 0; key < 6400; key++) {
		assert_int_equal(lease_choose(t, &req, key, busy, NULL, got, NULL), 0);
		assert_int_equal(lease_choose(t, &req, key, busy, NULL, &again, NULL), 0);
		assert_memory_equal(&again, &got[0], sizeof(again));
		low += got[0].first < 32768 + 2048;
		seen[(got[0].first - 32768) / 64]++;
	}
	/* Evenly: 3200 and 100 are expected; that far off it would be once in many million builds of other constants. */
	assert_in_range(low, 2950, 3450);
	for (int i = 0; i < 64; i++)
		assert_in_range(seen[i], 40, 170);
	req.leases = 200;
	assert_int_equal(lease_choose(t, &req, 7, busy, NULL, got, NULL), 0);
	for (int i = 1; i < 200; i++)
		in_order += got[i].first == got[i - 1].first + 1;
	assert_true(in_order < 10);
}

/* NAT is not asked about ports that leases have, nor more than the search needs. */
static void test_asks(void **state)
{
	struct lease_request req = tcp(1);
	struct range got;
	struct lease *l;

	(void)state;
	req.pool = "a";
	assert_int_equal(lease_choose(t, &req, 1, busy, NULL, &got, NULL), 0);
	assert_int_equal(asked, 1);
	asked = 0;
	req.protos = LEASE_TCP | LEASE_UDP;
	assert_int_equal(lease_choose(t, &req, 1, busy, NULL, &got, NULL), 0);
	assert_int_equal(asked, 2);
	take("203.0.113.7:40960-41023", LEASE_TCP, 1);
	take("203.0.113.7:41088-41215", LEASE_TCP, 1);
	take("203.0.113.7:41216-41470", LEASE_TCP, 1);
	take("203.0.113.8:40960-41023", LEASE_TCP, 1);
	asked = 0;
	req.protos = LEASE_TCP;
	assert_int_equal(lease_choose(t, &req, 5, busy, NULL, &got, NULL), 0);
	assert_int_equal(got.first, 41471);
	assert_true(asked <= 2);
	l = take("203.0.113.7:41471-41471", LEASE_TCP, 1);
	asked = 0;
	assert_int_equal(lease_choose(t, &req, 5, busy, NULL, &got, NULL), -ENOSPC);
	req.port = 41471;
	assert_int_equal(lease_choose(t, &req, 5, busy, NULL, &got, NULL), -EADDRINUSE);
	assert_int_equal(asked, 0);
	assert_ptr_equal(lease_at(t, &l->ports.addr, 41471, SLUICE_TCP), l);
}

/* A family: never the other one, from whatever pool. */
static void test_family(void **state)
{
	struct lease_request req = tcp(1);
	struct errtext err;
	struct range got;

	(void)state;
	req.pool = "b";
	for (uint64_t key = 0; key < KEYS; key++) {
		req.family = 4;
		assert_int_equal(lease_choose(t, &req, key, busy, NULL, &got, NULL), 0);
		assert_true(addr_is_v4(&got.addr));
		req.family = 6;
		assert_int_equal(lease_choose(t, &req, key, busy, NULL, &got, NULL), 0);
		assert_false(addr_is_v4(&got.addr));
	}
	req.pool = NULL;
	assert_int_equal(lease_choose(t, &req, 1, busy, NULL, &got, NULL), 0);
	assert_false(addr_is_v4(&got.addr));
	req.pool = "a";
	assert_int_equal(lease_choose(t, &req, 1, busy, NULL, &got, &err), -ENOENT);
	assert_non_null(strstr(err.s, "IPv6"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_family, setup, teardown),
		cmocka_unit_test_setup_teardown(test_request, setup, teardown),
		cmocka_unit_test_setup_teardown(test_where, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fenced, setup, teardown),
		cmocka_unit_test_setup_teardown(test_port, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shape, setup, teardown),
		cmocka_unit_test_setup_teardown(test_both, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fragments, setup, teardown),
		cmocka_unit_test_setup_teardown(test_to_the_last_port, setup, teardown),
		cmocka_unit_test_setup_teardown(test_several, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random, setup, teardown),
		cmocka_unit_test_setup_teardown(test_asks, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
