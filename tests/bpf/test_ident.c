/* SPDX-License-Identifier: BSD-2-Clause */
/* Identifications of what leaves from a shared address: whose they are, that they do not come again soon, and what a pool may choose instead. */
#include "flows.h"

#define MAX_FLOWS 8192

static uint16_t id_of(const struct frame *f)
{
	return get16(f->b + ETH_LEN + 4);
}

static uint16_t field_of(const struct frame *f)
{
	return get16(f->b + ETH_LEN + 6);
}

/* Sends, and checks that nothing changed but the source and, perhaps, the identification and DF. */
static uint16_t sends(struct bed *b, uint32_t came_by, const struct spec *s, struct frame *out)
{
	struct frame in;
	const char *wrong;
	struct view v;
	struct run r;

	frame_build(&in, s);
	bed_run(b, EGRESS, came_by, &in, &r);
	if (r.verdict != VERDICT_PASS)
		die("dropped as %s", reason_name(r.reason));
	*out = r.out;
	frame_view(out, &v);
	if (!v.l3_good || !v.l4_good)
		die("a checksum is wrong");
	put16(r.out.b + ETH_LEN + 4, id_of(&in));
	put16(r.out.b + ETH_LEN + 6, field_of(&in));
	frame_ip_csum(&r.out, ETH_LEN);
	wrong = frame_rewritten(&in, &r.out, true, &v);
	if (wrong)
		die("%s", wrong);
	return id_of(out);
}

static struct spec plain(uint32_t src, uint16_t sport, uint32_t dst)
{
	struct spec s = { .proto = P_UDP,
			  .src = src,
			  .dst = dst,
			  .sport = sport,
			  .dport = 443,
			  .payload = 20,
			  .frag = 0x8000 }; /* neither DF nor anything that matters */

	return s;
}

static struct sluice_pool pool_id(enum sluice_id_mode mode)
{
	struct sluice_pool p = pool_default();

	p.id_mode = (uint8_t)mode;
	p.unleased = SLUICE_UNLEASED_ALLOW;
	return p;
}

/* All of a slice's are used before one comes again, whoever sends: clients and a socket. */
static void test_slice(void **state)
{
	static uint8_t seen[65536];
	struct frame out;
	struct spec s;
	struct bed b;
	uint32_t i, n = LAST - FIRST + 1;
	uint16_t id;

	(void)state;
	memset(seen, 0, sizeof(seen));
	bed_scene(&b, MAX_FLOWS, pool_id(SLUICE_ID_SLICE));
	for (i = 0; i < 2 * n; i++) {
		s = i % 3 == 2 ? plain(SHARED, FIRST + 9, REMOTE)
			       : plain(CLIENT + i % 3, 5000, REMOTE);
		id = sends(&b, i % 3 == 2 ? MADE_HERE : FORWARDED, &s, &out);
		if (id < FIRST || id > LAST)
			die("identification %u is not of the slice", id);
		if (seen[id]++ != i / n)
			die("identification %u came again after less than %u packets", id, n);
		assert_int_equal(field_of(&out), 0x8000);
	}
	/* Twice round within two minutes: at least the second time is counted. */
	assert_true(bed_stats(&b, 0).id_wraps >= 1 && bed_stats(&b, 0).id_wraps <= 2);
	/* Another destination has a counter of its own: the first does not notice. */
	s = plain(CLIENT, 5000, REMOTE);
	id = sends(&b, FORWARDED, &s, &out);
	s = plain(CLIENT, 5000, REMOTE2);
	sends(&b, FORWARDED, &s, &out);
	s = plain(CLIENT, 5000, REMOTE);
	i = sends(&b, FORWARDED, &s, &out);
	if (i != id + 1u && !(id == LAST && i == FIRST))
		die("identification %u after %u", i, id);
	/* With DF it means nothing, and stays. */
	s.frag = 0;
	assert_int_equal(sends(&b, FORWARDED, &s, &out), 0x4321);
	assert_int_equal(field_of(&out), IP_DF);
	/* Outside of the translation nothing is touched. */
	s = plain(OTHER, 5000, REMOTE);
	{
		struct frame in;
		struct run r;

		send_spec(&b, EGRESS, FORWARDED, &s, &in, &r);
		expect_unchanged("nobody's client", &in, &r);
	}
	bed_close(&b);
}

/* Another machine's slice of the same address has others. */
static void test_two_slices(void **state)
{
	uint16_t first[2] = { FIRST, 2048 };
	struct frame out;
	struct spec s;
	struct bed b;
	uint32_t i, k;

	(void)state;
	for (k = 0; k < 2; k++) {
		bed_open(&b, MAX_FLOWS);
		bed_pool(&b, 0, pool_id(SLUICE_ID_SLICE));
		bed_addr(&b, 0, SHARED, 11);
		bed_client(&b, IP(10, 1, 0, 0), 16, 0);
		bed_slice(&b, SHARED, first[k], SLUICE_NEVER);
		for (i = 0; i < 100; i++) {
			uint16_t id;

			s = plain(CLIENT + i % 5, 5000, REMOTE);
			id = sends(&b, FORWARDED, &s, &out);
			if (id < first[k] || id > first[k] + 2047)
				die("identification %u of the slice at %u", id, first[k]);
		}
		bed_close(&b);
	}
}

static void test_modes(void **state)
{
	struct frame out;
	struct spec s;
	struct bed b;

	(void)state;
	bed_scene(&b, MAX_FLOWS, pool_id(SLUICE_ID_KEEP));
	s = plain(CLIENT, 5000, REMOTE);
	assert_int_equal(sends(&b, FORWARDED, &s, &out), 0x4321);
	assert_int_equal(field_of(&out), 0x8000);
	bed_close(&b);

	bed_scene(&b, MAX_FLOWS, pool_id(SLUICE_ID_SET_DF));
	assert_int_equal(sends(&b, FORWARDED, &s, &out), 0x4321);
	assert_int_equal(field_of(&out), 0x8000 | IP_DF);
	s = plain(SHARED, FIRST + 3, REMOTE);
	sends(&b, MADE_HERE, &s, &out);
	assert_int_equal(field_of(&out), 0x8000 | IP_DF);
	/* A fragment can't be forbidden to be one: it gets the slice's identification instead. */
	s = plain(CLIENT, 5000, REMOTE);
	s.frag = IP_MF;
	s.payload = 40;
	{
		struct frame in;
		struct run r;

		send_spec(&b, EGRESS, FORWARDED, &s, &in, &r);
		assert_int_equal(r.verdict, VERDICT_PASS);
		assert_int_equal(field_of(&r.out), IP_MF);
		assert_true(id_of(&r.out) >= FIRST && id_of(&r.out) <= LAST);
	}
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slice),
		cmocka_unit_test(test_two_slices),
		cmocka_unit_test(test_modes),
	};

	return cmocka_run_group_tests_name("ident", tests, NULL, NULL);
}
