/* SPDX-License-Identifier: BSD-2-Clause */
#include "icmp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rate.h"

#define N(a)  (sizeof(a) / sizeof((a)[0]))
#define GUARD 0xa5

/* The checksum again, written differently: over the words in network order, as the sum that must come out as 0xffff. */
static uint16_t ones_sum(const uint8_t *p, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum += i % 2 ? p[i] : p[i] * 256u;
	while (sum > 0xffff)
		sum = sum % 65536 + sum / 65536;
	return (uint16_t)sum;
}

struct sample {
	uint8_t b[256];
	size_t len;
};

static void set16(uint8_t *p, unsigned int v)
{
	p[0] = v >> 8 & 0xff;
	p[1] = v & 0xff;
}

static void sample_seal(struct sample *s)
{
	size_t ihl = (s->b[0] & 0xf) * 4u;

	set16(s->b + 10, 0);
	set16(s->b + 10, ~ones_sum(s->b, ihl) & 0xffffu);
}

/* A packet of proto from 10.1.0.2 to 198.51.100.10, optlen bytes of options and data bytes of data. */
static struct sample sample_new(uint8_t proto, const uint8_t *opt, size_t optlen, size_t data)
{
	struct sample s = { .len = 20 + optlen + data };

	s.b[0] = (uint8_t)(0x40 | (5 + optlen / 4));
	set16(s.b + 2, (unsigned int)s.len);
	set16(s.b + 4, 0x1234);
	s.b[8] = 63;
	s.b[9] = proto;
	memcpy(s.b + 12, (uint8_t[]){ 10, 1, 0, 2, 198, 51, 100, 10 }, 8);
	if (optlen)
		memcpy(s.b + 20, opt, optlen);
	for (size_t i = 0; i < data; i++)
		s.b[20 + optlen + i] = (uint8_t)(i * 7 + 1);
	sample_seal(&s);
	return s;
}

struct result {
	int r;
	size_t len;
	uint32_t dst_be;
	uint8_t buf[ICMP_MSG_MAX];
};

/* The snapshot goes into memory of exactly its size, so that reading beyond it is seen. */
static struct result build(const uint8_t *snap, size_t len)
{
	uint8_t *exact = malloc(len ? len : 1);
	struct result res = { .len = 12345, .dst_be = 0xdeadbeef };

	assert_non_null(exact);
	memcpy(exact, snap, len);
	memset(res.buf, GUARD, sizeof(res.buf));
	res.r = icmp_unreachable_build(exact, len, res.buf, &res.len, &res.dst_be);
	free(exact);
	return res;
}

static void refused(const uint8_t *snap, size_t len)
{
	struct result res = build(snap, len);

	assert_int_equal(res.r, -EINVAL);
	assert_int_equal(res.len, 12345);
	assert_int_equal(res.dst_be, 0xdeadbeef);
	for (size_t i = 0; i < sizeof(res.buf); i++)
		assert_int_equal(res.buf[i], GUARD);
}

static void answered(const uint8_t *snap, size_t len, size_t quote)
{
	struct result res = build(snap, len);

	assert_int_equal(res.r, 0);
	assert_int_equal(res.len, 8 + quote);
	assert_int_equal(res.buf[0], 3);
	assert_int_equal(res.buf[1], 13);
	assert_int_equal(ones_sum(res.buf, res.len), 0xffff);
	assert_memory_equal(res.buf + 4, ((uint8_t[]){ 0, 0, 0, 0 }), 4);
	assert_memory_equal(res.buf + 8, snap, quote);
	assert_memory_equal(&res.dst_be, snap + 12, 4);
	for (size_t i = res.len; i < sizeof(res.buf); i++)
		assert_int_equal(res.buf[i], GUARD);
}

static void test_quote(void **state)
{
	static const struct {
		size_t data, snap, quote; /* quote 0: refused */
	} cases[] = {
		{ 40, 60, 60 },   /* all of it */
		{ 40, 48, 48 },   /* what there is */
		{ 40, 28, 28 },   /* the least: header and 8 bytes */
		{ 40, 27, 0 },    /* too little to tell whose packet it was */
		{ 40, 20, 0 },    /* header only, though the packet has more */
		{ 8, 28, 28 },    /* a short packet */
		{ 3, 23, 23 },    /* shorter than 8 bytes of data: all of it, an odd number */
		{ 3, 22, 0 },     /* shorter, and not all there */
		{ 0, 20, 20 },    /* a bare header */
		{ 3, 60, 23 },    /* the rest is padding of the link */
		{ 76, 96, 96 },   /* the most */
		{ 77, 97, 96 },   /* one more */
		{ 200, 220, 96 }, /* many more */
		{ 200, 96, 96 },  /* what an event brings */
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		struct sample s = sample_new(IPPROTO_UDP, NULL, 0, cases[i].data);

		if (cases[i].quote)
			answered(s.b, cases[i].snap, cases[i].quote);
		else
			refused(s.b, cases[i].snap);
	}
}

/* A message whose every byte was worked out by hand. */
static void test_known_bytes(void **state)
{
	static const uint8_t snap[28] = {
		0x45, 0x00, 0x00, 0x1c, 0x00, 0x01, 0x00, 0x00, 0x40, 0x11, 0x00, 0x00, 10, 1,
		0,    2,    198,  51,   100,  10,   0x9c, 0x40, 0x00, 0x35, 0x00, 0x08, 0,  0,
	};
	/*
	 * Header: 4500+001c+0001+0000+4011+0a01+0002+c633+640a = 1b96e, fold b96f, so the checksum is 4690.
	 * Message: 030d + header with checksum (ffff) + 9c40+0035+0008 = 19f89 -> 9f8a, so 6075.
	 */
	uint8_t sealed[28], buf[ICMP_MSG_MAX];
	uint32_t dst;
	size_t len;

	(void)state;
	memcpy(sealed, snap, sizeof(snap));
	sealed[10] = 0x46;
	sealed[11] = 0x90;
	assert_int_equal(icmp_unreachable_build(sealed, sizeof(sealed), buf, &len, &dst), 0);
	assert_int_equal(len, 36);
	assert_memory_equal(buf, ((uint8_t[]){ 3, 13, 0x60, 0x75, 0, 0, 0, 0 }), 8);
	assert_memory_equal(buf + 8, sealed, 28);
	assert_int_equal(dst, inet_addr("10.1.0.2"));
}

static void test_bad_headers(void **state)
{
	struct sample good = sample_new(IPPROTO_TCP, NULL, 0, 40), s;

	(void)state;
	answered(good.b, good.len, 60);
	for (size_t len = 0; len < 28; len++)
		refused(good.b, len);
	for (unsigned int version = 0; version < 16; version++) {
		s = good;
		s.b[0] = (uint8_t)(version << 4 | 5);
		sample_seal(&s);
		if (version != 4)
			refused(s.b, s.len);
	}
	for (unsigned int ihl = 0; ihl < 5; ihl++) {
		s = good;
		s.b[0] = (uint8_t)(0x40 | ihl);
		sample_seal(&s);
		refused(s.b, s.len);
	}
	/* A total length that does not even cover the header. */
	for (unsigned int total = 0; total < 20; total++) {
		s = good;
		set16(s.b + 2, total);
		sample_seal(&s);
		refused(s.b, s.len);
	}
	/* Every single wrong bit of the header shows. */
	for (size_t bit = 0; bit < 20 * 8; bit++) {
		s = good;
		s.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
		refused(s.b, s.len);
	}
}

static void test_fragments(void **state)
{
	static const struct {
		unsigned int frag;
		bool fine;
	} cases[] = {
		{ 0x0000, true },  { 0x4000, true },  { 0x2000, true },
		{ 0x0001, false }, { 0x2001, false }, { 0x1fff, false },
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		struct sample s = sample_new(IPPROTO_UDP, NULL, 0, 40);

		set16(s.b + 6, cases[i].frag);
		sample_seal(&s);
		if (cases[i].fine)
			answered(s.b, s.len, s.len);
		else
			refused(s.b, s.len);
	}
}

static void test_addresses(void **state)
{
	static const struct {
		const char *addr;
		bool src_fine, dst_fine;
	} cases[] = {
		{ "10.1.0.2", true, true },          { "203.0.113.7", true, true },
		{ "223.255.255.255", true, true },   { "1.0.0.0", true, true },
		{ "126.255.255.255", true, true },   { "128.0.0.0", true, true },
		{ "0.0.0.0", false, false },         { "0.1.2.3", false, false },
		{ "127.0.0.1", false, false },       { "127.255.255.255", false, false },
		{ "224.0.0.1", false, false },       { "239.255.255.255", false, false },
		{ "240.0.0.1", false, true }, /* reserved, but no group: its sender is told */
		{ "255.255.255.255", false, false },
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		struct sample src = sample_new(IPPROTO_UDP, NULL, 0, 40), dst = src;
		uint32_t a = inet_addr(cases[i].addr);

		memcpy(src.b + 12, &a, 4);
		sample_seal(&src);
		memcpy(dst.b + 16, &a, 4);
		sample_seal(&dst);
		if (cases[i].src_fine)
			answered(src.b, src.len, src.len);
		else
			refused(src.b, src.len);
		if (cases[i].dst_fine)
			answered(dst.b, dst.len, dst.len);
		else
			refused(dst.b, dst.len);
	}
}

static void test_icmp_inside(void **state)
{
	static const uint8_t fine[] = { 0, 8, 13, 14, 15, 16, 17, 18 };

	(void)state;
	for (unsigned int type = 0; type < 256; type++) {
		struct sample s = sample_new(IPPROTO_ICMP, NULL, 0, 40);

		s.b[20] = (uint8_t)type;
		if (memchr(fine, (int)type, sizeof(fine)))
			answered(s.b, s.len, s.len);
		else
			refused(s.b, s.len);
		/* An echo that ends before its header does. */
		s.len = 27;
		set16(s.b + 2, 27);
		sample_seal(&s);
		refused(s.b, s.len);
	}
}

static void test_options(void **state)
{
	static const struct {
		uint8_t opt[40];
		size_t len;
		bool fine;
	} cases[] = {
		{ { 1, 1, 1, 1 }, 4, true },
		{ { 0, 0xff, 0xff, 0xff }, 4, true }, /* the end, and filling */
		{ { 0x94, 4, 0, 0 }, 4, true },       /* router alert */
		{ { 7, 7, 4, 0, 0, 0, 0, 0 }, 8, true },
		{ { 1, 1, 1, 0x94 }, 4, false }, /* cut before its length */
		{ { 0x94, 5, 0, 0 }, 4, false }, /* longer than there is room */
		{ { 0x94, 0, 0, 0 }, 4, false }, /* lengths that lead nowhere */
		{ { 0x94, 1, 0, 0 }, 4, false },
		{ { 131, 7, 4, 1, 2, 3, 4, 0 }, 8, false }, /* loose source route */
		{ { 137, 7, 4, 1, 2, 3, 4, 0 }, 8, false }, /* strict source route */
		{ { 1, 131, 7, 4, 1, 2, 3, 4 }, 8, false },
		{ { 0, 131, 7, 4, 1, 2, 3, 4 }, 8, true }, /* behind the end it is none */
		{ { 1 }, 40, true },
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		struct sample s = sample_new(IPPROTO_UDP, cases[i].opt, cases[i].len, 16);
		size_t least = 20 + cases[i].len + 8;

		if (!cases[i].fine) {
			refused(s.b, s.len);
			continue;
		}
		answered(s.b, s.len, s.len);
		answered(s.b, least, least);
		refused(s.b, least - 1);
		/* The header says there are options, the snapshot ends in them. */
		refused(s.b, 20 + cases[i].len - 1);
	}
}

/* IPv6: a packet of proto from 2001:db8:1::2 to 2001:db8:3::10, behind extension headers. */
static struct sample sample6_new(uint8_t proto, const uint8_t *ext, size_t extlen, uint8_t first,
				 size_t data)
{
	struct sample s = { .len = 40 + extlen + data };

	s.b[0] = 0x60;
	set16(s.b + 4, (unsigned int)(extlen + data));
	s.b[6] = extlen ? first : proto;
	s.b[7] = 63;
	memcpy(s.b + 8, (uint8_t[]){ 0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2 }, 16);
	memcpy(s.b + 24, (uint8_t[]){ 0x20, 1, 0xd, 0xb8, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10 },
	       16);
	if (extlen)
		memcpy(s.b + 40, ext, extlen);
	for (size_t i = 0; i < data; i++)
		s.b[40 + extlen + i] = (uint8_t)(i * 5 + 1);
	return s;
}

/* quote 0: must be refused. */
static void judged6(const uint8_t *snap, size_t len, size_t quote)
{
	uint8_t *exact = malloc(len ? len : 1);
	uint8_t buf[ICMP_MSG_MAX], dst[16];
	size_t n = 12345, i;
	int r;

	assert_non_null(exact);
	memcpy(exact, snap, len);
	memset(buf, GUARD, sizeof(buf));
	memset(dst, GUARD, sizeof(dst));
	r = icmp6_unreachable_build(exact, len, buf, &n, dst);
	free(exact);
	if (!quote) {
		assert_int_equal(r, -EINVAL);
		assert_int_equal(n, 12345);
		for (i = 0; i < sizeof(buf); i++)
			assert_int_equal(buf[i], GUARD);
		for (i = 0; i < sizeof(dst); i++)
			assert_int_equal(dst[i], GUARD);
		return;
	}
	assert_int_equal(r, 0);
	assert_int_equal(n, 8 + quote);
	assert_memory_equal(buf, ((uint8_t[]){ 1, 1, 0, 0, 0, 0, 0, 0 }), 8);
	assert_memory_equal(buf + 8, snap, quote);
	assert_memory_equal(dst, snap + 8, 16);
	for (i = n; i < sizeof(buf); i++)
		assert_int_equal(buf[i], GUARD);
}

static void test_quote6(void **state)
{
	static const struct {
		size_t data, snap, quote;
	} cases[] = {
		{ 40, 80, 80 },   /* all of it */
		{ 40, 48, 48 },   /* the least */
		{ 40, 47, 0 },    /* too little to tell whose packet it was */
		{ 40, 40, 0 },    /* header only, though the packet has more */
		{ 40, 39, 0 },    /* not even that */
		{ 0, 40, 40 },    /* a bare header */
		{ 3, 43, 43 },    /* a short packet */
		{ 3, 42, 0 },     /* not all of it */
		{ 3, 80, 43 },    /* the rest is padding of the link */
		{ 56, 96, 96 },   /* the most */
		{ 200, 240, 96 }, /* more */
	};
	struct sample s;

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		s = sample6_new(IPPROTO_UDP, NULL, 0, 0, cases[i].data);
		judged6(s.b, cases[i].snap, cases[i].quote);
	}
	s = sample6_new(IPPROTO_TCP, NULL, 0, 0, 40);
	for (size_t i = 0; i < 48; i++)
		judged6(s.b, i, 0);
	for (unsigned int version = 0; version < 16; version++) {
		s.b[0] = (uint8_t)(version << 4);
		judged6(s.b, s.len, version == 6 ? 80 : 0);
	}
}

static void test_addresses6(void **state)
{
	static const struct {
		const char *addr;
		bool fine;
	} cases[] = {
		{ "2001:db8::1", true }, { "fd00::1", true },
		{ "64:ff9b::1", true },  { "::", false },
		{ "::1", false },        { "ff02::1", false },
		{ "fe80::1", false },    { "::ffff:10.1.0.2", false },
		{ "febf::1", false },
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		struct sample src = sample6_new(IPPROTO_UDP, NULL, 0, 0, 40), dst = src;

		assert_int_equal(inet_pton(AF_INET6, cases[i].addr, src.b + 8), 1);
		assert_int_equal(inet_pton(AF_INET6, cases[i].addr, dst.b + 24), 1);
		judged6(src.b, src.len, cases[i].fine ? 80 : 0);
		judged6(dst.b, dst.len, cases[i].fine ? 80 : 0);
	}
}

static void test_inside6(void **state)
{
	static const struct {
		uint8_t ext[24];
		size_t len;
		uint8_t first;
		bool fine;
	} cases[] = {
		{ { 17, 0, 1, 4 }, 8, 0, true },    /* hop-by-hop options */
		{ { 17, 1, 1, 12 }, 16, 60, true }, /* destination options */
		{ { 60, 0, 0, 0, 0, 0, 0, 0, 17, 0 }, 16, 0, true },
		{ { 17, 0, 0, 0, 1, 2, 3, 4 }, 8, 44, true },  /* whole, by its fragment header */
		{ { 17, 0, 0, 1, 1, 2, 3, 4 }, 8, 44, true },  /* a first piece */
		{ { 17, 0, 0, 8, 1, 2, 3, 4 }, 8, 44, false }, /* a later one */
		{ { 17, 0, 1, 0, 1, 2, 3, 4 }, 8, 44, false },
		{ { 17, 0, 4, 1 }, 8, 43, false },   /* routing header */
		{ { 17, 200, 0, 0 }, 8, 60, false }, /* longer than the packet */
		{ { 59, 0, 0, 0 }, 8, 60, false },   /* nothing behind it */
		{ { 17, 0, 0, 0 }, 8, 51, false },   /* AH */
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		struct sample s =
			sample6_new(IPPROTO_UDP, cases[i].ext, cases[i].len, cases[i].first, 20);

		judged6(s.b, s.len, cases[i].fine ? s.len : 0);
		judged6(s.b, 40 + cases[i].len + 7, 0);
		judged6(s.b, 40 + cases[i].len - 1, 0);
	}
	for (unsigned int type = 0; type < 256; type++) {
		struct sample s = sample6_new(IPPROTO_ICMPV6, NULL, 0, 0, 20);

		s.b[40] = (uint8_t)type;
		judged6(s.b, s.len, type == 128 || type == 129 ? 60 : 0);
		s.len = 47;
		set16(s.b + 4, 7);
		judged6(s.b, s.len, 0);
	}
}

static void test_rate(void **state)
{
	const uint64_t s = 1000000000;
	struct rate r;
	unsigned int n;

	(void)state;
	/* The burst at once, then nothing until a token's time is over, to the nanosecond. */
	rate_init(&r, 100, 3, 5 * s);
	for (n = 0; rate_take(&r, 5 * s); n++)
		assert_in_range(n, 0, 3);
	assert_int_equal(n, 3);
	assert_int_equal(r.refused, 1);
	assert_false(rate_take(&r, 5 * s + s / 100 - 1));
	assert_true(rate_take(&r, 5 * s + s / 100));
	assert_false(rate_take(&r, 5 * s + s / 100));
	assert_int_equal(r.refused, 3);

	/* No drift where the rate does not divide a second, however often it is asked. */
	rate_init(&r, 7, 1, 0);
	n = 0;
	for (uint64_t t = 0; t <= 100 * s; t += 99991)
		n += rate_take(&r, t);
	assert_in_range(n, 700, 701);

	/* A long pause fills up to the burst, not beyond, and does not overflow. */
	rate_init(&r, UINT32_MAX, 5, 0);
	while (rate_take(&r, 0))
		;
	for (n = 0; rate_take(&r, UINT64_MAX); n++)
		assert_in_range(n, 0, 5);
	assert_int_equal(n, 5);

	/* Backwards: nothing earned, and nothing twice when it comes forward again. */
	rate_init(&r, 1, 1, 10 * s);
	assert_true(rate_take(&r, 10 * s));
	assert_false(rate_take(&r, 3 * s));
	assert_false(rate_take(&r, 10 * s + s / 2));
	assert_false(rate_take(&r, 4 * s));
	assert_true(rate_take(&r, 11 * s));

	/* None at all. */
	rate_init(&r, 0, 10, 0);
	assert_false(rate_take(&r, 0));
	assert_false(rate_take(&r, 1000 * s));
	assert_int_equal(r.refused, 2);

	/* A new rate keeps what fits, and the count. */
	rate_init(&r, 10, 10, 0);
	rate_set(&r, 10, 2);
	assert_true(rate_take(&r, 0));
	assert_true(rate_take(&r, 0));
	assert_false(rate_take(&r, 0));
	rate_set(&r, 1, 0);
	assert_false(rate_take(&r, s - 1));
	assert_true(rate_take(&r, s));
	assert_false(rate_take(&r, s));
	assert_int_equal(r.refused, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_quote),       cmocka_unit_test(test_known_bytes),
		cmocka_unit_test(test_bad_headers), cmocka_unit_test(test_fragments),
		cmocka_unit_test(test_addresses),   cmocka_unit_test(test_icmp_inside),
		cmocka_unit_test(test_options),     cmocka_unit_test(test_quote6),
		cmocka_unit_test(test_addresses6),  cmocka_unit_test(test_inside6),
		cmocka_unit_test(test_rate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
