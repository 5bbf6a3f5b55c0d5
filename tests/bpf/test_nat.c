/* SPDX-License-Identifier: BSD-2-Clause */
/* Translation: what comes out, what comes back, which flows share a port, and who may answer. */
#include "flows.h"

#define SMALL_FLOWS 8192

/* A packet of every shape goes out translated, with nothing else changed, and its answer of the same shape comes back. */
static void test_shapes(void **state)
{
	static const struct {
		const char *name;
		struct spec s;
	} rows[] = {
		{ "tcp syn", { .proto = P_TCP, .flags = T_SYN } },
		{ "tcp syn with options", { .proto = P_TCP, .flags = T_SYN, .tcp_words = 5 } },
		{ "tcp all option space", { .proto = P_TCP, .flags = T_SYN, .tcp_words = 10 } },
		{ "tcp data", { .proto = P_TCP, .flags = T_SYN | T_PSH, .payload = 1000 } },
		{ "tcp odd length", { .proto = P_TCP, .flags = T_SYN, .payload = 333 } },
		{ "tcp behind ip options", { .proto = P_TCP, .flags = T_SYN, .ip_words = 3 } },
		{ "tcp behind most ip options",
		  { .proto = P_TCP, .flags = T_SYN, .ip_words = 10 } },
		{ "udp empty", { .proto = P_UDP } },
		{ "udp", { .proto = P_UDP, .payload = 64 } },
		{ "udp one byte", { .proto = P_UDP, .payload = 1 } },
		{ "udp long", { .proto = P_UDP, .payload = 1472 } },
		{ "udp without checksum", { .proto = P_UDP, .payload = 20, .no_csum = true } },
		{ "udp behind ip options", { .proto = P_UDP, .payload = 7, .ip_words = 10 } },
		{ "udp without DF", { .proto = P_UDP, .payload = 7, .frag = 0x8000 } },
		{ "echo", { .proto = P_ICMP, .payload = 56 } },
		{ "echo empty", { .proto = P_ICMP } },
		{ "echo odd length", { .proto = P_ICMP, .payload = 31 } },
		{ "echo behind ip options", { .proto = P_ICMP, .payload = 8, .ip_words = 10 } },
		{ "tcp with a wrong checksum",
		  { .proto = P_TCP, .flags = T_SYN, .csum_error = 0x1234 } },
		{ "udp with a wrong checksum",
		  { .proto = P_UDP, .payload = 9, .csum_error = 0xfffe } },
		{ "echo with a wrong checksum",
		  { .proto = P_ICMP, .payload = 9, .csum_error = 1 } },
	};
	struct frame in;
	struct view v;
	struct run r;
	struct bed b;
	size_t i;

	(void)state;
	bed_scene(&b, SMALL_FLOWS, pool_default());
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct spec s = rows[i].s;
		uint16_t sport = (uint16_t)(30000 + i), dport = s.proto == P_ICMP ? 0 : 443, outer;

		s.src = CLIENT;
		s.dst = REMOTE;
		s.sport = sport;
		s.dport = dport;
		s.type = 8;
		send_spec(&b, EGRESS, FORWARDED, &s, &in, &r);
		expect_rewritten(rows[i].name, &in, &r, true, &v);
		if (v.src != SHARED || v.sport < FIRST || v.sport > LAST)
			die("%s: came out from %08x:%u", rows[i].name, v.src, v.sport);
		if (v.l4_sum && v.l4_good != !s.csum_error)
			die("%s: checksum %s", rows[i].name, v.l4_good ? "mended" : "broken");
		outer = v.sport;

		s.src = REMOTE;
		s.dst = SHARED;
		s.sport = s.proto == P_ICMP ? outer : dport;
		s.dport = outer;
		s.type = 0;
		if (s.flags & T_SYN)
			s.flags |= T_ACK;
		send_spec(&b, INGRESS, FORWARDED, &s, &in, &r);
		expect_rewritten(rows[i].name, &in, &r, false, &v);
		if (v.dst != CLIENT || v.dport != sport)
			die("%s: came back to %08x:%u", rows[i].name, v.dst, v.dport);
	}
	bed_close(&b);
}

/* The IP header's own checksum, when wrong, stays as wrong as it was. */
static void test_bad_ip_checksum(void **state)
{
	struct conn c = conn_of(P_UDP, CLIENT, 5000, REMOTE, 53);
	struct spec s = conn_out(&c, 0);
	struct frame in;
	struct view v;
	struct run r;
	struct bed b;

	(void)state;
	bed_scene(&b, SMALL_FLOWS, pool_default());
	frame_build(&in, &s);
	in.b[ETH_LEN + 10] ^= 0x55;
	bed_run(&b, EGRESS, FORWARDED, &in, &r);
	if (r.verdict == VERDICT_DROP)
		expect_reason("bad IP checksum", &in, &r, SLUICE_DROP_malformed);
	else {
		expect_rewritten("bad IP checksum", &in, &r, true, &v);
		assert_true(v.src == SHARED && !v.l3_good && v.l4_good);
	}
	bed_close(&b);
}

/* Translation may make a UDP checksum's value 0, which would mean "none": it has to be sent as 0xffff. */
static void test_udp_checksum_never_becomes_zero(void **state)
{
	struct conn c = conn_of(P_UDP, CLIENT, 5000, REMOTE, 53);
	struct frame in;
	struct view v;
	struct run r;
	struct bed b;
	uint32_t word, zeros = 0;

	(void)state;
	bed_scene(&b, SMALL_FLOWS, pool_default());
	conn_sends(&b, "udp", &c, 0);
	/* One payload word takes all values, and so does the translated checksum. */
	for (word = 0; word < 0x10000; word += 1) {
		struct spec s = conn_out(&c, 0);
		uint64_t sum;

		s.payload = 2;
		frame_build(&in, &s);
		put16(in.b + in.len - 2, (uint16_t)word);
		put16(in.b + in.len - 4, 0);
		sum = pseudo_sum(SHARED, REMOTE, P_UDP, 10) + c.port + 53 + 10 + word;
		if (words_fold(sum) != 0xffff && word % 4096)
			continue;
		zeros += words_fold(sum) == 0xffff;
		sum = pseudo_sum(CLIENT, REMOTE, P_UDP, 10) + 5000 + 53 + 10 + word;
		put16(in.b + in.len - 4, (uint16_t)~words_fold(sum) ?: 0xffff);
		bed_run(&b, EGRESS, FORWARDED, &in, &r);
		expect_rewritten("udp", &in, &r, true, &v);
		if (!v.l4_good)
			die("payload word %04x: the checksum is wrong", word);
	}
	assert_true(zeros > 0);
	bed_close(&b);
}

/* A flow keeps its port, in all its states, and many flows at once do. */
static void test_flow_keeps_port(void **state)
{
	static const uint8_t protos[] = { P_TCP, P_UDP, P_ICMP };
	struct conn c[60];
	struct bed b;
	int i, round;

	(void)state;
	bed_scene(&b, SMALL_FLOWS, pool_default());
	for (i = 0; i < 60; i++) {
		uint8_t proto = protos[i % 3];

		c[i] = conn_of(proto, CLIENT + (uint32_t)i / 3, 1234, REMOTE,
			       proto == P_ICMP ? 0 : 80);
		conn_sends(&b, "first", &c[i], T_SYN);
	}
	for (round = 0; round < 5; round++) {
		for (i = 59; i >= 0; i--) {
			conn_answers(&b, "answer", &c[i], T_ACK | (round ? 0 : T_SYN));
			conn_sends_same(&b, "again", &c[i], T_ACK);
		}
	}
	bed_close(&b);
}

/* The parts of two clients' flows to one destination never coincide, in no protocol. */
static void test_no_two_flows_share(void **state)
{
	static const uint8_t protos[] = { P_TCP, P_UDP, P_ICMP };
	static uint8_t used[65536];
	struct bed b;
	uint32_t i, k;

	(void)state;
	bed_scene(&b, SMALL_FLOWS, pool_default());
	for (k = 0; k < 3; k++) {
		memset(used, 0, sizeof(used));
		for (i = 0; i < 500; i++) {
			struct conn c = conn_of(protos[k], CLIENT + i, 777, REMOTE,
						protos[k] == P_ICMP ? 0 : 80);

			conn_sends(&b, "new flow", &c, T_SYN);
			if (used[c.port]++)
				die("protocol %u: port %u given twice", protos[k], c.port);
		}
	}
	bed_close(&b);
}

/* Overload: with a slice of 64 ports, 64 flows go to each of three destinations and to two ports of one of them. */
static void test_overload_reuses_ports(void **state)
{
	static const struct {
		uint32_t dst;
		uint16_t dport;
	} to[] = { { REMOTE, 80 }, { REMOTE2, 80 }, { REMOTE, 443 }, { IP(198, 51, 100, 12), 1 } };
	struct bed b;
	uint32_t i, k;

	(void)state;
	bed_open(&b, SMALL_FLOWS);
	bed_pool(&b, 0, pool_default());
	bed_addr(&b, 0, SHARED, 6);
	bed_client(&b, IP(10, 1, 0, 0), 16, 0);
	bed_slice(&b, SHARED, 4096, SLUICE_NEVER);
	for (k = 0; k < 4; k++) {
		uint64_t used = 0;

		for (i = 0; i < 64; i++) {
			struct conn c = conn_of(P_TCP, CLIENT + i, 777, to[k].dst, to[k].dport);

			conn_sends(&b, "new flow", &c, T_SYN);
			if (c.port < 4096 || c.port > 4159 || used >> (c.port - 4096) & 1)
				die("port %u", c.port);
			used |= 1ULL << (c.port - 4096);
			conn_answers(&b, "answer", &c, T_SYN | T_ACK);
		}
	}
	bed_close(&b);
}

/* Endpoint-independent mapping: one inner port is one outer port, whatever the destination (RFC 4787 REQ-1). */
static void test_eim_keeps_port_for_all(void **state)
{
	static const uint8_t protos[] = { P_TCP, P_UDP, P_ICMP };
	struct conn c, d;
	struct bed b;
	uint32_t i, k;

	(void)state;
	bed_scene(&b, SMALL_FLOWS, pool_with(SLUICE_EIM, SLUICE_FILTER_ADDRESS));
	for (k = 0; k < 3; k++) {
		uint16_t dport = protos[k] == P_ICMP ? 0 : 80;

		c = conn_of(protos[k], CLIENT, 4000, REMOTE, dport);
		conn_sends(&b, "first", &c, T_SYN);
		for (i = 0; i < 50; i++) {
			d = conn_of(protos[k], CLIENT, 4000, REMOTE2 + i,
				    dport ? (uint16_t)(dport + i) : 0);
			conn_sends(&b, "another destination", &d, T_SYN);
			if (d.port != c.port)
				die("protocol %u: port %u, and %u to another destination",
				    protos[k], c.port, d.port);
			conn_answers(&b, "answer", &d, T_SYN | T_ACK);
		}
		d = conn_of(protos[k], CLIENT, 4001, REMOTE, dport);
		conn_sends(&b, "another inner port", &d, T_SYN);
		if (d.port == c.port)
			die("protocol %u: two inner ports on port %u", protos[k], c.port);
		d = conn_of(protos[k], CLIENT2, 4000, REMOTE, dport);
		conn_sends(&b, "another client", &d, T_SYN);
		if (d.port == c.port)
			die("protocol %u: two clients on port %u", protos[k], c.port);
	}
	bed_close(&b);
}

/* Who may answer, for every mapping and filtering. */
static void test_filtering(void **state)
{
	enum { IN, FILTERED };
	static const struct {
		const char *name;
		uint8_t proto;
		enum sluice_mapping mapping;
		enum sluice_filtering filtering;
		int same, other_port, other_address; /* what becomes of a packet from there */
	} rows[] = {
		{ "udp eim address", P_UDP, SLUICE_EIM, SLUICE_FILTER_ADDRESS, IN, IN, FILTERED },
		{ "udp eim none", P_UDP, SLUICE_EIM, SLUICE_FILTER_NONE, IN, IN, IN },
		{ "udp eim port", P_UDP, SLUICE_EIM, SLUICE_FILTER_PORT, IN, FILTERED, FILTERED },
		{ "tcp eim address", P_TCP, SLUICE_EIM, SLUICE_FILTER_ADDRESS, IN, IN, FILTERED },
		{ "tcp eim none", P_TCP, SLUICE_EIM, SLUICE_FILTER_NONE, IN, IN, IN },
		{ "tcp eim port", P_TCP, SLUICE_EIM, SLUICE_FILTER_PORT, IN, FILTERED, FILTERED },
		{ "udp overload", P_UDP, SLUICE_OVERLOAD, SLUICE_FILTER_PORT, IN, FILTERED,
		  FILTERED },
		{ "tcp overload", P_TCP, SLUICE_OVERLOAD, SLUICE_FILTER_PORT, IN, FILTERED,
		  FILTERED },
	};
	size_t i;
	int k;

	(void)state;
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const int want[] = { rows[i].same, rows[i].other_port, rows[i].other_address };
		/* Overload: nobody else is known at that port, so it is as unused as any other for them. */
		int reason = rows[i].mapping == SLUICE_EIM ? SLUICE_DROP_filtered
							   : SLUICE_DROP_unsolicited;
		struct conn c = conn_of(rows[i].proto, CLIENT, 4000, REMOTE, 80);
		struct bed b;

		bed_scene(&b, SMALL_FLOWS, pool_with(rows[i].mapping, rows[i].filtering));
		conn_sends(&b, rows[i].name, &c, T_SYN);
		for (k = 0; k < 3; k++) {
			struct conn d = c;

			d.dport += k == 1;
			d.dst += k == 2;
			if (want[k] == IN)
				conn_answers(&b, rows[i].name, &d, T_SYN | (k ? 0 : T_ACK));
			else
				conn_answers_dropped(&b, rows[i].name, &d, T_SYN, reason);
		}
		bed_close(&b);
	}
}

/* Several pools: each client's packets leave from its own pool's address, also where the pools' numbers are not 0. */
static void test_two_pools(void **state)
{
	struct conn c = conn_of(P_TCP, CLIENT, 1000, REMOTE, 80);
	struct conn d = conn_of(P_TCP, IP(10, 2, 0, 5), 1000, REMOTE, 80);
	struct conn e = conn_of(P_TCP, IP(10, 1, 7, 7), 1000, REMOTE, 80);
	struct sluice_pool_stats st;
	struct bed b;

	(void)state;
	bed_open(&b, SMALL_FLOWS);
	bed_pool(&b, 3, pool_default());
	bed_addr(&b, 3, SHARED, 11);
	bed_slice(&b, SHARED, FIRST, SLUICE_NEVER);
	bed_pool(&b, 5, pool_with(SLUICE_EIM, SLUICE_FILTER_ADDRESS));
	bed_addr(&b, 5, SHARED2, 10);
	bed_slice(&b, SHARED2, 2048, SLUICE_NEVER);
	bed_client(&b, IP(10, 1, 0, 0), 16, 3);
	bed_client(&b, IP(10, 2, 0, 0), 16, 5);
	bed_client(&b, IP(10, 1, 7, 0), 24, 5);
	conn_sends(&b, "pool 3", &c, T_SYN);
	conn_sends(&b, "pool 5", &d, T_SYN);
	conn_sends(&b, "pool 5, by the longer prefix", &e, T_SYN);
	assert_true(c.outer == SHARED && c.port >= FIRST && c.port <= LAST);
	assert_true(d.outer == SHARED2 && d.port >= 2048 && d.port <= 3071);
	assert_true(e.outer == SHARED2 && e.port >= 2048 && e.port <= 3071 && e.port != d.port);
	conn_answers(&b, "pool 5", &e, T_SYN | T_ACK);
	st = bed_stats(&b, 3);
	assert_int_equal(st.created[SLUICE_TCP], 1);
	assert_int_equal(st.out.packets, 1);
	assert_int_equal(st.in.packets, 0);
	st = bed_stats(&b, 5);
	assert_int_equal(st.created[SLUICE_TCP], 2);
	assert_int_equal(st.out.packets, 2);
	assert_int_equal(st.in.packets, 1);
	assert_int_equal(st.refused[SLUICE_TCP], 0);
	bed_close(&b);
}

/* A client keeps one shared address for all its flows, in all protocols, while there is room (RFC 4787 REQ-2). */
static void test_client_keeps_address(void **state)
{
	static const uint8_t protos[] = { P_TCP, P_UDP, P_ICMP };
	uint32_t i, k, first, on_second = 0;
	struct conn c;
	struct bed b;

	(void)state;
	bed_scene(&b, SMALL_FLOWS, pool_default());
	bed_addr(&b, 0, SHARED2, 11);
	bed_slice(&b, SHARED2, FIRST, SLUICE_NEVER);
	bed_slice(&b, SHARED, 2048, SLUICE_NEVER);
	bed_slice(&b, SHARED2, 2048, SLUICE_NEVER);
	for (i = 0; i < 64; i++) {
		first = 0;
		for (k = 0; k < 24; k++) {
			c = conn_of(protos[k % 3], CLIENT + i, (uint16_t)(1000 + k / 3),
				    REMOTE + k % 5, k % 3 == 2 ? 0 : 80);
			conn_sends(&b, "one client", &c, T_SYN);
			if (first && first != c.outer)
				die("client %u came out from two addresses", i);
			first = c.outer;
		}
		on_second += first == SHARED2;
	}
	/* And the clients are spread over the addresses: all 64 on one happens once in 2^63 times. */
	assert_true(on_second > 0 && on_second < 64);
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shapes),
		cmocka_unit_test(test_bad_ip_checksum),
		cmocka_unit_test(test_udp_checksum_never_becomes_zero),
		cmocka_unit_test(test_flow_keeps_port),
		cmocka_unit_test(test_no_two_flows_share),
		cmocka_unit_test(test_overload_reuses_ports),
		cmocka_unit_test(test_eim_keeps_port_for_all),
		cmocka_unit_test(test_filtering),
		cmocka_unit_test(test_two_pools),
		cmocka_unit_test(test_client_keeps_address),
	};

	return cmocka_run_group_tests_name("nat", tests, NULL, NULL);
}
