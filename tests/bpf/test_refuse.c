/* SPDX-License-Identifier: BSD-2-Clause */
/* What is left alone, and what is refused: each packet passes as it was, or is dropped for its reason; full tables. */
#include "flows.h"

#define SMALL_FLOWS 8192

/* What is none of our business passes and is not changed in one bit, in both directions. */
static void test_left_alone(void **state)
{
	static const struct {
		const char *name;
		enum hook hook;
		uint32_t came_by;
		struct spec s;
	} rows[] = {
		{ "client to a no-nat destination",
		  EGRESS,
		  FORWARDED,
		  { .proto = P_TCP, .src = CLIENT, .dst = NO_NAT, .flags = T_SYN } },
		{ "client's ping to a no-nat destination",
		  EGRESS,
		  FORWARDED,
		  { .proto = P_ICMP, .type = 8, .src = CLIENT, .dst = NO_NAT } },
		{ "client's fragment to a no-nat destination",
		  EGRESS,
		  FORWARDED,
		  { .proto = P_UDP, .src = CLIENT, .dst = NO_NAT, .frag = IP_MF } },
		{ "client's ESP to a no-nat destination",
		  EGRESS,
		  FORWARDED,
		  { .proto = 50, .src = CLIENT, .dst = NO_NAT, .payload = 40 } },
		{ "somebody who is no client",
		  EGRESS,
		  FORWARDED,
		  { .proto = P_TCP, .src = OTHER, .dst = REMOTE, .flags = T_SYN } },
		{ "a fragment of somebody who is no client",
		  EGRESS,
		  FORWARDED,
		  { .proto = P_UDP, .src = OTHER, .dst = REMOTE, .frag = 100, .payload = 99 } },
		{ "GRE of somebody who is no client",
		  EGRESS,
		  FORWARDED,
		  { .proto = 47, .src = OTHER, .dst = REMOTE, .payload = 40 } },
		{ "a socket on another address",
		  EGRESS,
		  MADE_HERE,
		  { .proto = P_UDP, .src = OTHER, .dst = REMOTE, .payload = 40 } },
		{ "arriving for another address",
		  INGRESS,
		  FORWARDED,
		  { .proto = P_TCP, .src = REMOTE, .dst = OTHER, .flags = T_SYN } },
		{ "a fragment arriving for another address",
		  INGRESS,
		  FORWARDED,
		  { .proto = P_UDP, .src = REMOTE, .dst = OTHER, .frag = IP_MF } },
		{ "GRE arriving for another address",
		  INGRESS,
		  FORWARDED,
		  { .proto = 47, .src = REMOTE, .dst = OTHER, .payload = 40 } },
		{ "arriving from a shared address for another",
		  INGRESS,
		  FORWARDED,
		  { .proto = P_UDP, .src = SHARED, .dst = OTHER, .payload = 40 } },
	};
	struct frame in;
	struct run r;
	struct bed b;
	size_t i;

	(void)state;
	bed_scene(&b, SMALL_FLOWS, pool_default());
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct spec s = rows[i].s;

		s.sport = 2222;
		s.dport = 80;
		send_spec(&b, rows[i].hook, rows[i].came_by, &s, &in, &r);
		expect_unchanged(rows[i].name, &in, &r);
	}
	assert_int_equal(flows_count(b.nat->maps.fwd), 0);
	assert_int_equal(flows_count(b.nat->maps.rev), 0);
	bed_close(&b);
}

/* A mapping serves all destinations but those that are left alone (found by test_hostile). */
static void test_no_nat_of_a_mapping(void **state)
{
	static const uint8_t protos[] = { P_TCP, P_UDP, P_ICMP };
	struct conn c;
	struct spec s;
	struct frame in;
	struct run r;
	struct bed b;
	int i;

	(void)state;
	bed_scene(&b, SMALL_FLOWS, pool_with(SLUICE_EIM, SLUICE_FILTER_ADDRESS));
	for (i = 0; i < 3; i++) {
		c = conn_of(protos[i], CLIENT, 4000, REMOTE, protos[i] == P_ICMP ? 0 : 80);
		conn_sends(&b, "mapped", &c, T_SYN);
		s = conn_out(&c, T_SYN);
		s.dst = NO_NAT;
		send_spec(&b, EGRESS, FORWARDED, &s, &in, &r);
		expect_unchanged("to a no-nat destination", &in, &r);
		conn_sends_same(&b, "mapped", &c, T_ACK);
	}
	bed_close(&b);
}

/* Not IPv4: ARP, IPv6 with and without extension headers, a type nobody knows. */
static void test_not_ipv4(void **state)
{
	static const enum hook hooks[] = { EGRESS, INGRESS };
	struct spec s = { .proto = P_UDP, .src = CLIENT, .dst = REMOTE, .payload = 30 };
	struct frame in;
	struct run r;
	struct bed b;
	int i;

	(void)state;
	bed_scene(&b, SMALL_FLOWS, pool_default());
	for (i = 0; i < 2; i++) {
		frame_build(&in, &s);
		put16(in.b + 12, E_ARP);
		bed_run(&b, hooks[i], FORWARDED, &in, &r);
		expect_unchanged("arp", &in, &r);
		in.len = ETH_LEN;
		bed_run(&b, hooks[i], FORWARDED, &in, &r);
		expect_unchanged("arp without a body", &in, &r);
		put16(in.b + 12, 0x88cc);
		bed_run(&b, hooks[i], MADE_HERE, &in, &r);
		expect_unchanged("lldp", &in, &r);
		frame_build6(&in, &s, 0);
		bed_run(&b, hooks[i], FORWARDED, &in, &r);
		expect_unchanged("ipv6", &in, &r);
		frame_build6(&in, &s, P_DSTOPTS);
		bed_run(&b, hooks[i], FORWARDED, &in, &r);
		expect_unchanged("ipv6 with options", &in, &r);
		frame_build6(&in, &s, P_FRAGMENT);
		bed_run(&b, hooks[i], FORWARDED, &in, &r);
		expect_unchanged("ipv6 fragment", &in, &r);
	}
	bed_close(&b);
}

/* What a client may not send, and what may not arrive: dropped, each for its reason. */
static void test_refused(void **state)
{
	struct spec quoted = { .proto = P_UDP, .src = SHARED, .dst = REMOTE, .sport = FIRST };
	static struct frame err;
	const struct {
		const char *name;
		enum hook hook;
		struct spec s;
		int reason;
	} rows[] = {
		{ "client's GRE",
		  EGRESS,
		  { .proto = 47, .src = CLIENT, .dst = REMOTE, .payload = 40 },
		  SLUICE_DROP_proto },
		{ "client's SCTP",
		  EGRESS,
		  { .proto = 132, .src = CLIENT, .dst = REMOTE, .payload = 40 },
		  SLUICE_DROP_proto },
		{ "client's first fragment of a SYN with FIN",
		  EGRESS,
		  { .proto = P_TCP,
		    .src = CLIENT,
		    .dst = REMOTE,
		    .flags = T_SYN | T_FIN,
		    .frag = IP_MF,
		    .payload = 20 },
		  SLUICE_DROP_malformed },
		{ "client's later fragment",
		  EGRESS,
		  { .proto = P_UDP, .src = CLIENT, .dst = REMOTE, .frag = 6, .payload = 48 },
		  HELD },
		{ "client's timestamp request",
		  EGRESS,
		  { .proto = P_ICMP, .type = 13, .src = CLIENT, .dst = REMOTE, .payload = 12 },
		  SLUICE_DROP_icmp_type },
		{ "client's SYN with FIN",
		  EGRESS,
		  { .proto = P_TCP, .src = CLIENT, .dst = REMOTE, .flags = T_SYN | T_FIN },
		  SLUICE_DROP_malformed },
		{ "arriving GRE",
		  INGRESS,
		  { .proto = 47, .src = REMOTE, .dst = SHARED, .payload = 40 },
		  SLUICE_DROP_proto },
		{ "arriving first fragment",
		  INGRESS,
		  { .proto = P_UDP, .src = REMOTE, .dst = SHARED, .frag = IP_MF, .dport = FIRST },
		  SLUICE_DROP_unsolicited },
		{ "arriving later fragment",
		  INGRESS,
		  { .proto = P_UDP, .src = REMOTE, .dst = SHARED, .frag = 9, .payload = 40 },
		  HELD },
		{ "arriving address mask request",
		  INGRESS,
		  { .proto = P_ICMP, .type = 17, .src = REMOTE, .dst = SHARED },
		  SLUICE_DROP_icmp_type },
		{ "arriving unsolicited tcp",
		  INGRESS,
		  { .proto = P_TCP,
		    .src = REMOTE,
		    .dst = SHARED,
		    .flags = T_SYN,
		    .dport = FIRST + 9 },
		  SLUICE_DROP_unsolicited },
		{ "arriving unsolicited udp",
		  INGRESS,
		  { .proto = P_UDP, .src = REMOTE, .dst = SHARED, .dport = LAST },
		  SLUICE_DROP_unsolicited },
		{ "arriving unsolicited echo reply",
		  INGRESS,
		  { .proto = P_ICMP, .type = 0, .src = REMOTE, .dst = SHARED, .sport = FIRST + 1 },
		  SLUICE_DROP_unsolicited },
		{ "arriving for another machine's slice below",
		  INGRESS,
		  { .proto = P_TCP,
		    .src = REMOTE,
		    .dst = SHARED,
		    .flags = T_SYN,
		    .dport = FIRST - 1 },
		  SLUICE_DROP_foreign },
		{ "arriving for another machine's slice above",
		  INGRESS,
		  { .proto = P_UDP, .src = REMOTE, .dst = SHARED, .dport = LAST + 1 },
		  SLUICE_DROP_foreign },
		{ "arriving for port 1",
		  INGRESS,
		  { .proto = P_UDP, .src = REMOTE, .dst = SHARED, .dport = 1 },
		  SLUICE_DROP_foreign },
		{ "arriving for port 0",
		  INGRESS,
		  { .proto = P_UDP, .src = REMOTE, .dst = SHARED, .dport = 0 },
		  SLUICE_DROP_malformed },
		{ "arriving for port 65535",
		  INGRESS,
		  { .proto = P_UDP, .src = REMOTE, .dst = SHARED, .dport = 65535 },
		  SLUICE_DROP_foreign },
		{ "arriving echo reply for another machine",
		  INGRESS,
		  { .proto = P_ICMP, .type = 0, .src = REMOTE, .dst = SHARED, .sport = 100 },
		  SLUICE_DROP_foreign },
		{ "arriving error about no flow",
		  INGRESS,
		  { .proto = P_ICMP,
		    .type = 3,
		    .code = 3,
		    .src = REMOTE,
		    .dst = SHARED,
		    .err = &err },
		  SLUICE_DROP_unsolicited },
	};
	struct frame in;
	struct run r;
	struct bed b;
	size_t i;

	(void)state;
	frame_build(&err, &quoted);
	bed_scene(&b, SMALL_FLOWS, pool_default());
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct spec s = rows[i].s;

		s.sport = s.sport ? s.sport : 5555;
		if (rows[i].hook == EGRESS)
			s.dport = 80;
		send_spec(&b, rows[i].hook, FORWARDED, &s, &in, &r);
		expect_reason(rows[i].name, &in, &r, rows[i].reason);
	}
	assert_int_equal(flows_count(b.nat->maps.fwd), 0);
	assert_int_equal(flows_count(b.nat->maps.rev), 0);
	bed_close(&b);
}

/* The flow table full: new flows are refused with that reason, old ones go on (invariant 4). */
static void test_table_full(void **state)
{
	enum { ROOM = 128 };
	struct conn c[ROOM];
	struct conn one_more = conn_of(P_TCP, CLIENT2, 999, REMOTE, 80);
	uint32_t i, n = 0;
	struct bed b;

	(void)state;
	bed_scene(&b, ROOM, pool_default());
	for (i = 0; i < ROOM; i++) {
		c[i] = conn_of(P_TCP, CLIENT, (uint16_t)(1000 + i), REMOTE, 80);
		conn_sends(&b, "while there is room", &c[i], T_SYN);
		n++;
	}
	conn_sends_dropped(&b, "no room", &one_more, T_SYN, SLUICE_DROP_table_full);
	for (i = 0; i < n; i++) {
		conn_answers(&b, "old flow", &c[i], T_SYN | T_ACK);
		conn_sends_same(&b, "old flow", &c[i], T_ACK);
	}
	assert_int_equal(flows_count(b.nat->maps.fwd), ROOM);
	assert_int_equal(flows_count(b.nat->maps.rev), ROOM);
	bed_close(&b);
}

/* The same for mappings: one for which no session finds room is taken back, and its port with it. */
static void test_table_full_of_sessions(void **state)
{
	enum { ROOM = 128 };
	struct conn c = conn_of(P_UDP, CLIENT, 1000, REMOTE, 443), d;
	struct sluice_block block;
	struct sluice_slice sl;
	uint32_t i, row, used = 0;
	struct bed b;

	(void)state;
	row = bed_scene(&b, ROOM, pool_default());
	for (i = 0; i < ROOM; i++) {
		d = c;
		d.dst += i;
		conn_sends(&b, "a session while there is room", &d, 0);
	}
	d = c;
	d.dst += i;
	conn_sends_dropped(&b, "no room for a session", &d, 0, SLUICE_DROP_table_full);
	d = conn_of(P_UDP, CLIENT2, 1000, REMOTE, 443);
	for (i = 0; i < 3; i++)
		conn_sends_dropped(&b, "no room for a mapping's session", &d, 0,
				   SLUICE_DROP_table_full);
	assert_int_equal(flows_count(b.nat->maps.fwd), 1);
	assert_int_equal(flows_count(b.nat->maps.rev), ROOM);
	map_get_row(b.nat->maps.slices, row, &sl);
	for (i = 0; i < 2048; i += SLUICE_BLOCK_PORTS) {
		map_get_row(b.nat->maps.blocks,
			    sluice_block_row(sl.block_base, 2048, SLUICE_UDP, i), &block);
		used += (uint32_t)__builtin_popcountll(block.bits);
	}
	assert_int_equal(used, 1);
	assert_true(bed_stats(&b, 0).refused[SLUICE_UDP] >= 3);
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_left_alone), cmocka_unit_test(test_no_nat_of_a_mapping),
		cmocka_unit_test(test_not_ipv4),   cmocka_unit_test(test_refused),
		cmocka_unit_test(test_table_full), cmocka_unit_test(test_table_full_of_sessions),
	};

	return cmocka_run_group_tests_name("refuse", tests, NULL, NULL);
}
