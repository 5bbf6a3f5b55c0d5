/* SPDX-License-Identifier: BSD-2-Clause */
/* Which entries are the same, and how they are spread over a table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "ct.h"

#define KEY 0x0123456789abcdefULL

static struct ct_entry sample(void)
{
	struct ct_entry e = {
		.l4 = SLUICE_UDP,
		.orig = { .sport = 41000, .dport = 53 },
		.reply = { .sport = 53, .dport = 41777 },
		.status = 0x19e,
		.id = 4711,
		.zone = 3,
	};

	for (unsigned i = 0; i < 16; i++) {
		e.orig.src.b[i] = (uint8_t)(i + 1);
		e.orig.dst.b[i] = (uint8_t)(i + 20);
		e.reply.src.b[i] = (uint8_t)(i + 40);
		e.reply.dst.b[i] = (uint8_t)(i + 60);
	}
	return e;
}

/* Everything that tells two entries apart, one bit of it changed. */
#define BITS (4 * 128 + 4 * 16 + 16 + 1)

static struct ct_entry flipped(unsigned bit)
{
	struct ct_entry e = sample();
	struct addr *addrs[] = { &e.orig.src, &e.orig.dst, &e.reply.src, &e.reply.dst };
	uint16_t *ports[] = { &e.orig.sport, &e.orig.dport, &e.reply.sport, &e.reply.dport,
			      &e.zone };

	if (bit < 4 * 128)
		addrs[bit / 128]->b[bit % 128 / 8] ^= (uint8_t)(1U << bit % 8);
	else if (bit < BITS - 1)
		*ports[(bit - 4 * 128) / 16] ^= (uint16_t)(1U << bit % 16);
	else
		e.l4 = SLUICE_TCP;
	return e;
}

static void test_same(void **state)
{
	struct ct_entry a = sample(), b = sample();

	(void)state;
	assert_true(ct_same(&a, &b));
	/* Not every source knows these. */
	b.id = 0;
	b.status = 0;
	b.helper = true;
	assert_true(ct_same(&a, &b));
	assert_true(ct_hash(&a, KEY) == ct_hash(&b, KEY));
	for (unsigned bit = 0; bit < BITS; bit++) {
		b = flipped(bit);
		assert_false(ct_same(&a, &b));
		assert_false(ct_same(&b, &a));
	}
}

/* What there is of padding is not looked at. */
static void test_padding(void **state)
{
	struct ct_entry a, b, s = sample();

	(void)state;
	memset(&a, 0, sizeof(a));
	memset(&b, 0xff, sizeof(b));
	for (int i = 0; i < 2; i++) {
		struct ct_entry *e = i ? &b : &a;

		e->l4 = s.l4;
		e->zone = s.zone;
		memcpy(&e->orig, &s.orig, sizeof(s.orig));
		memcpy(&e->reply, &s.reply, sizeof(s.reply));
	}
	assert_true(ct_same(&a, &b));
	assert_true(ct_hash(&a, KEY) == ct_hash(&b, KEY));
}

/* One bit of an entry, or of the key, changes about half of the hash's, and each of them now and then. */
static void test_avalanche(void **state)
{
	struct ct_entry a = sample(), b;
	uint64_t h = ct_hash(&a, KEY), other, changed = 0;
	unsigned sum = 0, n;

	(void)state;
	for (unsigned bit = 0; bit < BITS + 64; bit++) {
		b = bit < BITS ? flipped(bit) : a;
		other = ct_hash(&b, bit < BITS ? KEY : KEY ^ 1ULL << (bit - BITS));
		n = (unsigned)__builtin_popcountll(h ^ other);
		assert_in_range(n, 8, 56);
		sum += n;
		changed |= h ^ other;
	}
	assert_true(changed == UINT64_MAX);
	assert_in_range(sum / (BITS + 64), 30, 34);
}

/* Both ends of the hash serve as a bucket's number: ports that follow each other fill a table as chance would. */
static void test_spread(void **state)
{
	enum {
		N = 4096,
	};
	static unsigned low[N], high[N];
	unsigned empty[2] = { 0 };
	struct ct_entry e = sample();

	(void)state;
	for (unsigned i = 0; i < N; i++) {
		e.orig.sport = (uint16_t)(40000 + i);
		low[ct_hash(&e, KEY) % N]++;
		high[ct_hash(&e, KEY) >> 52]++;
	}
	for (unsigned i = 0; i < N; i++) {
		empty[0] += !low[i];
		empty[1] += !high[i];
		assert_true(low[i] < 16 && high[i] < 16);
	}
	/* N / e */
	assert_in_range(empty[0], 1400, 1620);
	assert_in_range(empty[1], 1400, 1620);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same),
		cmocka_unit_test(test_padding),
		cmocka_unit_test(test_avalanche),
		cmocka_unit_test(test_spread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
