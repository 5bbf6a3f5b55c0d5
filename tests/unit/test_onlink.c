/* SPDX-License-Identifier: BSD-2-Clause */
/* Which destinations leave by an uplink: cases by hand, and random tables against the kernel's rules, spelled out. */
#include "onlink.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <endian.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N(a)  (sizeof(a) / sizeof((a)[0]))
#define WAN   2
#define WAN2  3
#define INNER 4

static const unsigned uplinks[] = { WAN, WAN2 };

/* "::ffff:0.0.0.0/96" and the like are written as IPv4: "0.0.0.0/0". */
static struct prefix prefix(const char *text)
{
	struct prefix p;

	if (prefix_parse(text, &p))
		fail_msg("%s is no prefix", text);
	return p;
}

struct line {
	const char *dst;
	uint32_t table;
	uint8_t type;
	int oif, oif2;
	uint32_t metric;
};

static size_t routes_of(const struct line *lines, size_t n, struct onlink_route *ret)
{
	size_t kept = 0;

	for (size_t i = 0; i < n && lines[i].dst; i++) {
		struct netlink_route r = { .dst = prefix(lines[i].dst),
					   .table = lines[i].table,
					   .type = lines[i].type,
					   .priority = lines[i].metric,
					   .oifs = { lines[i].oif, lines[i].oif2 },
					   .n_oifs = (size_t)(lines[i].oif > 0) +
						     (lines[i].oif2 > 0) };

		if (onlink_route(&r, uplinks, N(uplinks), &ret[kept]))
			kept++;
	}
	return kept;
}

static void build(struct onlink_route *routes, size_t n, struct plan_prefix **ret, size_t *ret_n)
{
	struct errtext err = { "" };
	int r = onlink_build(routes, n, ret, ret_n, &err);

	if (r)
		fail_msg("%d: %s", r, err.s);
}

/* As text, one "PREFIX=VALUE" after the other. */
static void check(const char *what, const struct line *lines, size_t n, const char *expected)
{
	struct onlink_route routes[32];
	struct plan_prefix *list;
	char text[2048] = "", buf[PREFIX_STRLEN];
	size_t len = 0, got;

	build(routes, routes_of(lines, n, routes), &list, &got);
	for (size_t i = 0; i < got; i++) {
		struct prefix p;

		assert_int_equal(list[i].key.pool, 0);
		if (i)
			assert_true(plan_prefix_cmp(&list[i - 1], &list[i]) < 0);
		memcpy(p.addr.b, list[i].key.addr.b, 16);
		p.len = (uint8_t)(list[i].key.prefixlen - SLUICE_LPM_POOL_BITS);
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s=%u", i ? " " : "",
					prefix_format(&p, buf), list[i].value);
	}
	free(list);
	if (strcmp(text, expected))
		fail_msg("%s: \"%s\", expected \"%s\"", what, text, expected);
}

#define L(dst, ...)              \
	{                        \
		dst, __VA_ARGS__ \
	}
#define MAIN  RT_TABLE_MAIN
#define LOCAL RT_TABLE_LOCAL
#define UNI   RTN_UNICAST

static void test_cases(void **state)
{
	static const struct {
		const char *what, *expected;
		struct line lines[8];
	} cases[] = {
		{ "nothing", "", { { NULL } } },
		{ "an edge machine",
		  "127.0.0.0/8=0 10.9.0.0/24=0 198.51.100.1/32=0 203.0.113.7/32=0",
		  { L("0.0.0.0/0", MAIN, UNI, WAN), L("198.51.100.0/24", MAIN, UNI, WAN),
		    L("10.9.0.0/24", MAIN, UNI, INNER), L("127.0.0.0/8", LOCAL, RTN_LOCAL, 1),
		    L("198.51.100.1/32", LOCAL, RTN_LOCAL, WAN),
		    L("203.0.113.7/32", LOCAL, RTN_LOCAL, 1) } },
		{ "default elsewhere",
		  "0.0.0.0/0=0 198.51.100.0/24=1",
		  { L("0.0.0.0/0", MAIN, UNI, INNER), L("198.51.100.0/24", MAIN, UNI, WAN) } },
		{ "one in another",
		  "10.0.0.0/8=0 10.1.0.0/16=1 10.1.2.0/24=0",
		  { L("10.1.2.0/24", MAIN, UNI, INNER), L("10.1.0.0/16", MAIN, UNI, WAN),
		    L("10.1.3.0/24", MAIN, UNI, WAN), L("10.1.2.64/26", MAIN, UNI, INNER),
		    L("10.0.0.0/8", MAIN, UNI, INNER) } },
		{ "the local table is asked first",
		  "10.0.0.0/8=0",
		  { L("10.0.0.0/8", LOCAL, RTN_LOCAL, 1), L("10.1.0.0/16", MAIN, UNI, WAN),
		    L("10.0.0.0/8", MAIN, UNI, WAN) } },
		{ "the lowest metric",
		  "10.0.0.0/8=0",
		  { L("10.0.0.0/8", MAIN, UNI, WAN, 0, 200),
		    L("10.0.0.0/8", MAIN, UNI, INNER, 0, 100),
		    L("11.0.0.0/8", MAIN, UNI, WAN, 0, 100),
		    L("11.0.0.0/8", MAIN, UNI, INNER, 0, 200) } },
		{ "several next hops",
		  "12.0.0.0/8=0",
		  { L("10.0.0.0/8", MAIN, UNI, INNER, WAN2), L("11.0.0.0/8", MAIN, UNI, WAN, WAN2),
		    L("12.0.0.0/8", MAIN, UNI, INNER, 9), L("13.0.0.0/8", MAIN, UNI, INNER, 0, 5),
		    L("13.0.0.0/8", MAIN, UNI, WAN, 0, 5) } },
		{ "what the kernel refuses",
		  "10.0.0.0/8=0 11.0.0.0/8=0 12.0.0.0/8=0",
		  { L("10.0.0.0/8", MAIN, RTN_UNREACHABLE), L("11.0.0.0/8", MAIN, RTN_BLACKHOLE),
		    L("12.0.0.0/8", MAIN, RTN_PROHIBIT), L("13.0.0.0/8", MAIN, RTN_THROW),
		    L("14.0.0.0/8", 100, UNI, INNER) } },
		{ "IPv6",
		  "fd00::/8=0 fe80::/64=0",
		  { L("::/0", MAIN, UNI, WAN), L("2001:db8::/32", MAIN, UNI, WAN),
		    L("fd00::/8", MAIN, UNI, INNER), L("fe80::/64", MAIN, UNI, INNER) } },
		{ "no IPv6 to the outside",
		  "::/0=0 0.0.0.0/0=1 10.0.0.0/8=0",
		  { L("::/0", MAIN, UNI, INNER), L("0.0.0.0/0", MAIN, UNI, WAN),
		    L("10.0.0.0/8", MAIN, UNI, INNER) } },
		{ "nothing to the outside",
		  "::/0=0 0.0.0.0/0=0",
		  { L("::/0", MAIN, UNI, INNER), L("0.0.0.0/0", MAIN, UNI, INNER) } },
		{ "an unreachable default of IPv6, and no IPv4",
		  "::/0=0 0.0.0.0/0=1",
		  { L("::/0", MAIN, RTN_UNREACHABLE, 1) } },
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++)
		check(cases[i].what, cases[i].lines, N(cases[i].lines), cases[i].expected);
}

/* What the map says: the longest prefix, by bits. */
static bool bits_match(const struct prefix *p, const struct addr *a)
{
	for (unsigned bit = 0; bit < p->len; bit++)
		if ((p->addr.b[bit / 8] ^ a->b[bit / 8]) & 0x80 >> bit % 8)
			return false;
	return true;
}

static bool map_says(const struct plan_prefix *list, size_t n, const struct addr *a)
{
	uint32_t value = 1;
	int best = -1;

	for (size_t i = 0; i < n; i++) {
		struct prefix p = { .len = (uint8_t)(list[i].key.prefixlen -
						     SLUICE_LPM_POOL_BITS) };

		memcpy(p.addr.b, list[i].key.addr.b, 16);
		if (bits_match(&p, a) && (int)p.len > best) {
			best = p.len;
			value = list[i].value;
		}
	}
	return value;
}

/* What the kernel does: the local table, then main; of each the longest prefix, of that the lowest metric. */
static bool kernel_says(const struct onlink_route *routes, size_t n, const struct addr *a)
{
	const struct onlink_route *best = NULL;
	bool uplink = false;

	for (int local = 1; local >= 0 && !best; local--)
		for (size_t i = 0; i < n; i++) {
			const struct onlink_route *r = &routes[i];
			bool v4 = r->dst.len >= 96 && addr_is_v4(&r->dst.addr);

			if (r->local != (bool)local || v4 != addr_is_v4(a) ||
			    !prefix_contains(&r->dst, a))
				continue;
			if (!best || r->dst.len > best->dst.len ||
			    (r->dst.len == best->dst.len && r->metric < best->metric))
				best = r;
		}
	if (!best)
		return true;
	for (size_t i = 0; i < n; i++)
		uplink |= routes[i].local == best->local && routes[i].metric == best->metric &&
			  routes[i].dst.len == best->dst.len && routes[i].uplink &&
			  !addr_cmp(&routes[i].dst.addr, &best->dst.addr);
	return uplink;
}

static uint64_t seed = 42;

static uint32_t draw(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 16) % below;
}

/* Few different bits, so that prefixes lie within each other. */
static struct addr draw_addr(void)
{
	struct addr a = { { 0 } };

	if (draw(2)) {
		a.b[10] = a.b[11] = 0xff;
		a.b[12] = (uint8_t)(draw(2) * 0x80 + draw(4));
		a.b[15] = (uint8_t)draw(2);
	} else {
		a.b[0] = (uint8_t)(draw(2) * 0x20);
		a.b[1] = (uint8_t)(draw(2));
		a.b[15] = (uint8_t)draw(2);
	}
	return a;
}

static struct prefix draw_prefix(void)
{
	static const uint8_t lens4[] = { 96, 96, 97, 100, 103, 104, 120, 127, 128 };
	static const uint8_t lens6[] = { 0, 0, 2, 3, 8, 15, 16, 80, 96, 127, 128 };
	struct prefix p = { .addr = draw_addr() };

	p.len = addr_is_v4(&p.addr) ? lens4[draw(N(lens4))] : lens6[draw(N(lens6))];
	for (unsigned bit = p.len; bit < 128; bit++)
		p.addr.b[bit / 8] &= (uint8_t) ~(0x80 >> bit % 8);
	return p;
}

static void test_random_tables(void **state)
{
	struct onlink_route routes[24], sorted[24];
	struct plan_prefix *list;

	(void)state;
	for (int round = 0; round < 3000; round++) {
		size_t n = draw(N(routes) + 1), got;

		for (size_t i = 0; i < n; i++) {
			routes[i] = (struct onlink_route){ .dst = draw_prefix(),
							   .metric = draw(3),
							   .uplink = draw(2) };
			if (!draw(4)) {
				routes[i].local = true;
				routes[i].uplink = false;
			}
		}
		memcpy(sorted, routes, sizeof(routes));
		build(sorted, n, &list, &got);
		assert_true(got <= n + 1);
		for (int i = 0; i < 40; i++) {
			struct addr a = draw_addr();
			char buf[ADDR_STRLEN];

			if (map_says(list, got, &a) != kernel_says(routes, n, &a))
				fail_msg("round %d, %s: %d", round, addr_format(&a, buf),
					 map_says(list, got, &a));
		}
		/* Nothing that a shorter prefix says already. The default route of IPv4 may stand beside that of IPv6. */
		for (size_t i = 0; i < got; i++) {
			struct plan_prefix gone = list[i];
			struct addr a;

			memcpy(a.b, gone.key.addr.b, 16);
			if (gone.key.prefixlen == SLUICE_LPM_POOL_BITS + 96 && addr_is_v4(&a))
				continue;
			/* Sorted by length first. */
			assert_int_not_equal(map_says(list, i, &a), gone.value);
		}
		free(list);
	}
}

static void test_full(void **state)
{
	size_t n = SLUICE_MAX_PREFIXES + 1, got = 7;
	struct onlink_route *routes = calloc(n, sizeof(*routes));
	struct plan_prefix *list = NULL;
	struct errtext err = { "" };

	(void)state;
	assert_non_null(routes);
	for (size_t i = 0; i < n; i++)
		routes[i].dst =
			(struct prefix){ .addr = addr_from_v4(htobe32(0x0a000000 + (uint32_t)i)),
					 .len = 128 };
	assert_int_equal(onlink_build(routes, n, &list, &got, &err), -ENOSPC);
	assert_non_null(strstr(err.s, "4096"));
	assert_null(list);
	assert_int_equal(got, 7);
	build(routes, n - 1, &list, &got);
	assert_int_equal(got, n - 1);
	free(list);
	/* What leaves by an uplink takes no room. */
	for (size_t i = 0; i < n; i++)
		routes[i].uplink = i;
	build(routes, n, &list, &got);
	assert_int_equal(got, 1);
	free(list);
	free(routes);
}

/* This machine's own tables, whatever they are: loopback stays, and nothing is refused. */
static void test_read(void **state)
{
	struct addr lo = addr_from_v4(htobe32(0x7f000001));
	struct plan_prefix *list;
	struct errtext err = { "" };
	struct netlink *nl;
	size_t n;

	(void)state;
	assert_int_equal(netlink_open(&nl), 0);
	if (onlink_read(nl, uplinks, N(uplinks), &list, &n, &err))
		fail_msg("%s", err.s);
	netlink_close(nl);
	assert_false(map_says(list, n, &lo));
	free(list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases),
		cmocka_unit_test(test_random_tables),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
