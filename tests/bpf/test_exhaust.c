/* SPDX-License-Identifier: BSD-2-Clause */
/* What the data plane keeps of exhaustion: which destinations found no port, and how many ports of a slice leases have. */
#include "dp_test.h"

#include "flows.h"

#define NPORTS 2048

/* A slice whose ports are leased but for the last `left` ones. */
static struct dp *open_narrow(uint32_t left, uint32_t *ret_row)
{
	struct dp *dp = must_open();
	struct scene s;
	struct plan *p;

	scene_default(&s);
	p = must_publish(dp, &s);
	*ret_row = p->held[0];
	plan_free(p);
	for (enum sluice_l4 l4 = SLUICE_TCP; l4 <= SLUICE_UDP; l4++)
		assert_int_equal(dp_lease_claim(dp, *ret_row, l4, 0, NPORTS - left), 0);
	return dp;
}

static void sends(struct bed *b, uint8_t proto, uint32_t n, uint32_t dst, uint32_t room)
{
	for (uint32_t i = 0; i < n; i++) {
		struct conn c = nth(proto, i, dst);

		if (i < room)
			conn_sends(b, "with room", &c, T_SYN);
		else
			conn_sends_dropped(b, "without", &c, T_SYN, SLUICE_DROP_no_port);
	}
}

/* Overload: each destination by itself. The hottest come first, and no more than are asked for. */
static void test_destinations(void **state)
{
	uint32_t row, leased[SLUICE_L4_MAX];
	struct dp *dp = open_narrow(4, &row);
	struct bed b = bed_of(dp);
	struct dp_hot hot[8];
	struct conn c;

	(void)state;
	assert_int_equal(dp_hottest(dp, hot, 8), 0);
	sends(&b, P_TCP, 6, REMOTE, 4);
	sends(&b, P_TCP, 4, REMOTE + 2, 4); /* full, and nothing was refused */
	sends(&b, P_TCP, 9, REMOTE2, 4);
	/* Another port is another destination. */
	c = conn_of(P_TCP, CLIENT, 999, REMOTE, 443);
	conn_sends(&b, "another port", &c, T_SYN);
	/* What belongs to no flow was refused none. */
	c = conn_of(P_TCP, CLIENT, 998, REMOTE, 80);
	conn_sends_dropped(&b, "no flow", &c, T_ACK, SLUICE_DROP_no_flow);

	assert_int_equal(dp_hottest(dp, hot, 8), 2);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(hot[i].pool, 0);
		assert_int_equal(hot[i].l4, SLUICE_TCP);
		assert_int_equal(hot[i].port, 80);
		assert_in_range(hot[i].tried_s, now_s() - 60, now_s());
	}
	assert_int_equal(hot[0].refused, 5);
	assert_int_equal(ntohl(addr_v4(&hot[0].dst)), REMOTE2);
	assert_int_equal(hot[1].refused, 2);
	assert_int_equal(ntohl(addr_v4(&hot[1].dst)), REMOTE);
	assert_int_equal(dp_hottest(dp, hot, 1), 1);
	assert_int_equal(hot[0].refused, 5);
	assert_int_equal(bed_stats(&b, 0).refused[SLUICE_TCP], 7);

	dp_slice_leased(dp, row, leased);
	assert_int_equal(leased[SLUICE_TCP], NPORTS - 4);
	assert_int_equal(leased[SLUICE_UDP], NPORTS - 4);
	assert_int_equal(leased[SLUICE_ICMP], 0);
	dp_lease_unclaim(dp, row, SLUICE_TCP, 10, 100);
	dp_slice_leased(dp, row, leased);
	assert_int_equal(leased[SLUICE_TCP], NPORTS - 104);
	/* Not held: nothing. */
	dp_slice_leased(dp, row + 1, leased);
	assert_int_equal(leased[SLUICE_TCP], 0);
	must_close(dp);
}

/* Endpoint-independent: whichever the destination, it is the pool that is full. */
static void test_anywhere(void **state)
{
	static const struct addr none;
	struct dp_hot hot[2];
	uint32_t row;
	struct dp *dp = open_narrow(4, &row);
	struct bed b = bed_of(dp);

	(void)state;
	sends(&b, P_UDP, 4, REMOTE, 4);
	for (uint32_t i = 0; i < 3; i++) {
		struct conn c = nth(P_UDP, 10 + i, REMOTE + i);

		conn_sends_dropped(&b, "without", &c, 0, SLUICE_DROP_no_port);
	}
	assert_int_equal(dp_hottest(dp, hot, 2), 1);
	assert_int_equal(hot[0].l4, SLUICE_UDP);
	assert_int_equal(hot[0].refused, 3);
	assert_int_equal(hot[0].port, 0);
	assert_int_equal(addr_cmp(&hot[0].dst, &none), 0);
	must_close(dp);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_destinations, lab_clean),
		cmocka_unit_test_teardown(test_anywhere, lab_clean),
	};

	return cmocka_run_group_tests(tests, lab_open, lab_clean);
}
