/* SPDX-License-Identifier: BSD-2-Clause */
#include "addr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#define N(a) (sizeof(a) / sizeof((a)[0]))

static void test_addresses(void **state)
{
	static const struct {
		const char *text, *back; /* NULL: refused */
	} cases[] = {
		{ "192.0.2.1", "192.0.2.1" },
		{ "0.0.0.0", "0.0.0.0" },
		{ "255.255.255.255", "255.255.255.255" },
		{ "2001:db8::7", "2001:db8::7" },
		{ "2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1" },
		{ "2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1" },
		{ "::", "::" },
		{ "::1", "::1" },
		{ "", NULL },
		{ "192.0.2", NULL },
		{ "192.0.2.256", NULL },
		{ "192.0.2.01", NULL },
		{ "192.0.2.1 ", NULL },
		{ " 192.0.2.1", NULL },
		{ "0xc0000201", NULL },
		{ "localhost", NULL },
		{ "fe80::1%lo", NULL },
		{ "::ffff:192.0.2.1", NULL },
		{ "[::1]", NULL },
		{ "2001:db8::7::1", NULL },
	};
	struct addr untouched, a;
	char buf[ADDR_STRLEN];

	(void)state;
	memset(&untouched, 0xa5, sizeof(untouched));
	for (size_t i = 0; i < N(cases); i++) {
		a = untouched;
		if (!cases[i].back) {
			assert_int_equal(addr_parse(cases[i].text, &a), -EINVAL);
			assert_memory_equal(&a, &untouched, sizeof(a));
			continue;
		}
		assert_int_equal(addr_parse(cases[i].text, &a), 0);
		assert_string_equal(addr_format(&a, buf), cases[i].back);
		assert_ptr_equal(addr_format(&a, buf), buf);
		assert_int_equal(addr_is_v4(&a), strchr(cases[i].text, ':') == NULL);
	}
}

static void test_v4(void **state)
{
	struct addr a = addr_from_v4(htonl(0xc0000201)), b, c;
	static const uint8_t mapped[16] = {
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1
	};

	(void)state;
	assert_memory_equal(a.b, mapped, 16);
	assert_true(addr_is_v4(&a));
	assert_int_equal(addr_v4(&a), htonl(0xc0000201));
	assert_int_equal(addr_parse("192.0.2.1", &b), 0);
	assert_int_equal(addr_cmp(&a, &b), 0);
	assert_int_equal(addr_parse("192.0.2.2", &c), 0);
	assert_true(addr_cmp(&a, &c) < 0);
	assert_true(addr_cmp(&c, &a) > 0);
	assert_int_equal(addr_parse("::1", &c), 0);
	assert_false(addr_is_v4(&c));
}

static void test_prefixes(void **state)
{
	static const struct {
		const char *text;
		int err;
		const char *back;
		unsigned len;
	} cases[] = {
		{ "10.1.0.0/16", 0, "10.1.0.0/16", 112 },
		{ "10.1.2.3", 0, "10.1.2.3/32", 128 },
		{ "0.0.0.0/0", 0, "0.0.0.0/0", 96 },
		{ "10.0.0.0/7", 0, "10.0.0.0/7", 103 },
		{ "2001:db8::/32", 0, "2001:db8::/32", 32 },
		{ "::/0", 0, "::/0", 0 },
		{ "2001:db8::1", 0, "2001:db8::1/128", 128 },
		{ "10.1.2.3/16", -ERANGE, "10.1.0.0/16", 112 },
		{ "10.1.0.1/31", -ERANGE, "10.1.0.0/31", 127 },
		{ "11.0.0.0/7", -ERANGE, "10.0.0.0/7", 103 },
		{ "128.0.0.0/0", -ERANGE, "0.0.0.0/0", 96 },
		{ "2001:db8::1/64", -ERANGE, "2001:db8::/64", 64 },
		{ "::fffe:0:0/95", 0, "::fffe:0:0/95", 95 },
		{ "10.1.0.0/33", -EINVAL, NULL, 0 },
		{ "10.1.0.0/", -EINVAL, NULL, 0 },
		{ "10.1.0.0/016", -EINVAL, NULL, 0 },
		{ "10.1.0.0/+16", -EINVAL, NULL, 0 },
		{ "10.1.0.0/-1", -EINVAL, NULL, 0 },
		{ "10.1.0.0/16 ", -EINVAL, NULL, 0 },
		{ "10.1.0.0/16/16", -EINVAL, NULL, 0 },
		{ "10.1.0.0/4294967312", -EINVAL, NULL, 0 },
		{ "2001:db8::/129", -EINVAL, NULL, 0 },
		{ "/16", -EINVAL, NULL, 0 },
		{ "", -EINVAL, NULL, 0 },
		{ "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/8", -EINVAL, NULL,
		  0 },
	};
	struct prefix untouched, p;
	char buf[PREFIX_STRLEN];

	(void)state;
	memset(&untouched, 0xa5, sizeof(untouched));
	for (size_t i = 0; i < N(cases); i++) {
		p = untouched;
		assert_int_equal(prefix_parse(cases[i].text, &p), cases[i].err);
		if (!cases[i].back) {
			assert_memory_equal(&p, &untouched, sizeof(p));
			continue;
		}
		assert_int_equal(p.len, cases[i].len);
		assert_string_equal(prefix_format(&p, buf), cases[i].back);
	}
}

static void test_contains(void **state)
{
	static const struct {
		const char *a,
			*b; /* the first contains the second, or they have nothing in common */
		bool yes;
	} cases[] = {
		{ "10.0.0.0/8", "10.255.255.255", true },
		{ "10.0.0.0/8", "11.0.0.0", false },
		{ "10.0.0.0/9", "10.127.0.0/16", true },
		{ "10.0.0.0/9", "10.128.0.0/16", false },
		{ "0.0.0.0/0", "255.0.0.0/8", true },
		{ "10.1.2.3", "10.1.2.3", true },
		{ "10.1.2.3", "10.1.2.2", false },
		{ "::/0", "2001:db8::/32", true },
		{ "::/0", "10.0.0.0/8", false }, /* v4-mapped is only how it is stored */
		{ "0.0.0.0/0", "2001:db8::/32", false },
		{ "2001:db8::/33", "2001:db8:7fff::1", true },
		{ "2001:db8::/33", "2001:db8:8000::1", false },
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		struct prefix a, b;

		assert_int_equal(prefix_parse(cases[i].a, &a), 0);
		assert_int_equal(prefix_parse(cases[i].b, &b), 0);
		assert_int_equal(prefix_contains(&a, &b.addr), cases[i].yes);
		assert_int_equal(prefix_overlaps(&a, &b), cases[i].yes);
		assert_int_equal(prefix_overlaps(&b, &a), cases[i].yes);
	}
}

static void test_ranges(void **state)
{
	static const struct {
		const char *text;
		bool ok;
		unsigned first, last;
	} cases[] = {
		{ "203.0.113.7:40960-43007", true, 40960, 43007 },
		{ "203.0.113.7:0-65535", true, 0, 65535 },
		{ "203.0.113.7:80-80", true, 80, 80 },
		{ "[2001:db8::7]:40960-43007", true, 40960, 43007 },
		{ "203.0.113.7:43007-40960", false, 0, 0 },
		{ "203.0.113.7:40960", false, 0, 0 },
		{ "203.0.113.7:40960-", false, 0, 0 },
		{ "203.0.113.7:-43007", false, 0, 0 },
		{ "203.0.113.7:40960-65536", false, 0, 0 },
		{ "203.0.113.7:040960-43007", false, 0, 0 },
		{ "203.0.113.7:40960-43007 ", false, 0, 0 },
		{ "203.0.113.7:40960 - 43007", false, 0, 0 },
		{ "203.0.113.7:40960--43007", false, 0, 0 },
		{ "203.0.113.7", false, 0, 0 },
		{ "203.0.113.0/24:40960-43007", false, 0, 0 },
		{ "[203.0.113.7]:40960-43007", false, 0, 0 },
		{ "2001:db8::7:40960-43007", false, 0, 0 },
		{ "[2001:db8::7:40960-43007", false, 0, 0 },
		{ "[2001:db8::7]40960-43007", false, 0, 0 },
		{ ":40960-43007", false, 0, 0 },
		{ "[", false, 0, 0 },
		{ "[]", false, 0, 0 },
		{ "", false, 0, 0 },
	};
	struct range untouched, r;
	char buf[RANGE_STRLEN];

	(void)state;
	memset(&untouched, 0xa5, sizeof(untouched));
	for (size_t i = 0; i < N(cases); i++) {
		r = untouched;
		assert_int_equal(range_parse(cases[i].text, &r), cases[i].ok ? 0 : -EINVAL);
		if (!cases[i].ok) {
			assert_memory_equal(&r, &untouched, sizeof(r));
			continue;
		}
		assert_int_equal(r.first, cases[i].first);
		assert_int_equal(r.last, cases[i].last);
		assert_string_equal(range_format(&r, buf), cases[i].text);
	}
}

static void test_range_overlaps(void **state)
{
	static const struct {
		const char *a, *b;
		bool yes;
	} cases[] = {
		{ "192.0.2.1:1024-2047", "192.0.2.1:2047-2048", true },
		{ "192.0.2.1:1024-2047", "192.0.2.1:2048-4095", false },
		{ "192.0.2.1:1024-4095", "192.0.2.1:2048-2049", true },
		{ "192.0.2.1:1024-2047", "192.0.2.2:1024-2047", false },
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		struct range a, b;

		assert_int_equal(range_parse(cases[i].a, &a), 0);
		assert_int_equal(range_parse(cases[i].b, &b), 0);
		assert_int_equal(range_overlaps(&a, &b), cases[i].yes);
		assert_int_equal(range_overlaps(&b, &a), cases[i].yes);
	}
}

static void test_range_contains(void **state)
{
	static const struct {
		const char *range, *addr;
		uint16_t port;
		bool yes;
	} cases[] = {
		{ "192.0.2.1:1024-2047", "192.0.2.1", 1024, true },
		{ "192.0.2.1:1024-2047", "192.0.2.1", 2047, true },
		{ "192.0.2.1:1024-2047", "192.0.2.1", 1023, false },
		{ "192.0.2.1:1024-2047", "192.0.2.1", 2048, false },
		{ "192.0.2.1:1024-2047", "192.0.2.2", 1024, false },
		{ "[2001:db8::1]:65535-65535", "2001:db8::1", 65535, true },
		{ "[2001:db8::1]:65535-65535", "2001:db8::1", 0, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct range r;
		struct addr a;

		assert_int_equal(range_parse(cases[i].range, &r), 0);
		assert_int_equal(addr_parse(cases[i].addr, &a), 0);
		assert_int_equal(range_contains(&r, &a, cases[i].port), cases[i].yes);
	}
}

/* The longest texts fit their buffers. */
static void test_longest(void **state)
{
	struct prefix p;
	struct range r;
	char buf[RANGE_STRLEN], again[PREFIX_STRLEN];

	(void)state;
	memset(&r.addr, 0xfd, sizeof(r.addr));
	r.first = r.last = 65535;
	assert_string_equal(range_format(&r, buf),
			    "[fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd]:65535-65535");
	p.addr = r.addr;
	p.len = 128;
	assert_string_equal(prefix_format(&p, again),
			    "fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd/128");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses),      cmocka_unit_test(test_v4),
		cmocka_unit_test(test_prefixes),       cmocka_unit_test(test_contains),
		cmocka_unit_test(test_ranges),         cmocka_unit_test(test_range_overlaps),
		cmocka_unit_test(test_range_contains), cmocka_unit_test(test_longest),
	};

	return cmocka_run_group_tests_name("addr", tests, NULL, NULL);
}
