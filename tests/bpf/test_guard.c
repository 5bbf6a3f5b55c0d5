/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What may not happen: a packet that leaves with a shared source outside the live slices, traffic past a deadline, a flow that
 * outlives its slice's epoch, two users of one tuple.
 */
#include "flows.h"

#define FLOWS 8192

static void expect_own(const struct sluice_flow_key *key, struct sluice_flow *flow, void *arg)
{
	(void)key;
	(void)arg;
	assert_true(flow->flags & SLUICE_FLOW_OWN);
}

static void test_guard_rows(void **state)
{
	enum { PASS = -1 };
	struct spec q_shared = { .proto = P_UDP, .src = REMOTE, .dst = SHARED, .dport = FIRST };
	struct spec q_other = { .proto = P_UDP, .src = REMOTE, .dst = OTHER, .dport = FIRST };
	static struct frame quote_shared, quote_other;
	const struct {
		const char *name;
		uint32_t came_by;
		struct spec s;
		int want; /* a reason, or PASS: unchanged */
	} rows[] = {
		{ "tcp, first port of the slice",
		  MADE_HERE,
		  { .proto = P_TCP, .sport = FIRST, .flags = T_SYN },
		  PASS },
		{ "tcp, last port of the slice",
		  MADE_HERE,
		  { .proto = P_TCP, .sport = LAST, .flags = T_SYN },
		  PASS },
		{ "udp, inside", MADE_HERE, { .proto = P_UDP, .sport = FIRST + 1 }, PASS },
		{ "echo, inside",
		  MADE_HERE,
		  { .proto = P_ICMP, .type = 8, .sport = FIRST + 2 },
		  PASS },
		{ "tcp below",
		  MADE_HERE,
		  { .proto = P_TCP, .sport = FIRST - 1, .flags = T_SYN },
		  SLUICE_DROP_escape },
		{ "tcp above",
		  MADE_HERE,
		  { .proto = P_TCP, .sport = LAST + 1, .flags = T_ACK },
		  SLUICE_DROP_escape },
		{ "a reset from below",
		  MADE_HERE,
		  { .proto = P_TCP, .sport = 80, .flags = T_RST | T_ACK },
		  SLUICE_DROP_escape },
		{ "udp port 0", MADE_HERE, { .proto = P_UDP, .sport = 0 }, SLUICE_DROP_malformed },
		{ "udp port 65535",
		  MADE_HERE,
		  { .proto = P_UDP, .sport = 65535 },
		  SLUICE_DROP_escape },
		{ "udp without checksum, below",
		  MADE_HERE,
		  { .proto = P_UDP, .sport = FIRST - 1, .no_csum = true },
		  SLUICE_DROP_escape },
		{ "echo above",
		  MADE_HERE,
		  { .proto = P_ICMP, .type = 8, .sport = LAST + 1 },
		  SLUICE_DROP_escape },
		{ "behind ip options, below",
		  MADE_HERE,
		  { .proto = P_UDP, .sport = 5, .ip_words = 10 },
		  SLUICE_DROP_escape },
		{ "GRE", MADE_HERE, { .proto = 47, .payload = 30 }, SLUICE_DROP_proto },
		{ "first fragment",
		  MADE_HERE,
		  { .proto = P_UDP, .sport = LAST + 1, .frag = IP_MF, .payload = 8 },
		  SLUICE_DROP_escape },
		{ "later fragment",
		  MADE_HERE,
		  { .proto = P_UDP, .frag = 3, .payload = 8 },
		  SLUICE_DROP_fragment },
		{ "timestamp request",
		  MADE_HERE,
		  { .proto = P_ICMP, .type = 13, .payload = 12 },
		  SLUICE_DROP_icmp_type },
		{ "forwarded, inside the slice",
		  FORWARDED,
		  { .proto = P_TCP, .sport = FIRST, .flags = T_SYN },
		  SLUICE_DROP_spoof },
		{ "forwarded, outside",
		  FORWARDED,
		  { .proto = P_UDP, .sport = 53 },
		  SLUICE_DROP_spoof },
		{ "forwarded echo",
		  FORWARDED,
		  { .proto = P_ICMP, .type = 8, .sport = FIRST },
		  SLUICE_DROP_spoof },
		{ "forwarded echo reply",
		  FORWARDED,
		  { .proto = P_ICMP, .type = 0, .sport = FIRST },
		  SLUICE_DROP_spoof },
		{ "forwarded GRE", FORWARDED, { .proto = 47, .payload = 30 }, SLUICE_DROP_spoof },
		{ "forwarded fragment",
		  FORWARDED,
		  { .proto = P_UDP, .frag = 3, .payload = 8 },
		  SLUICE_DROP_spoof },
		{ "forwarded to a no-nat destination",
		  FORWARDED,
		  { .proto = P_UDP, .dst = NO_NAT, .sport = FIRST },
		  SLUICE_DROP_spoof },
		{ "forwarded ICMP error about a shared address",
		  FORWARDED,
		  { .proto = P_ICMP, .type = 3, .code = 1, .err = &quote_shared },
		  SLUICE_DROP_spoof },
		{ "forwarded ICMP error about another address",
		  FORWARDED,
		  { .proto = P_ICMP, .type = 3, .code = 1, .err = &quote_other },
		  SLUICE_DROP_spoof },
	};
	struct frame in;
	struct run r;
	struct bed b;
	size_t i;

	(void)state;
	frame_build(&quote_shared, &q_shared);
	frame_build(&quote_other, &q_other);
	bed_scene(&b, FLOWS, pool_default());
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct spec s = rows[i].s;

		s.src = SHARED;
		s.dst = s.dst ? s.dst : REMOTE;
		s.dport = 80;
		send_spec(&b, EGRESS, rows[i].came_by, &s, &in, &r);
		if (rows[i].want == PASS)
			expect_unchanged(rows[i].name, &in, &r);
		else
			expect_reason(rows[i].name, &in, &r, rows[i].want);
	}
	/* Marks of the sockets' tuples, and nothing that translates. */
	assert_int_equal(flows_each(b.nat->maps.fwd, expect_own, NULL), 2);
	assert_int_equal(flows_each(b.nat->maps.rev, expect_own, NULL), 3);
	bed_close(&b);
}

/* The machine's own ICMP errors carry no port to judge them by: none leaves with a shared source, whatever it quotes. */
static void test_own_icmp_errors(void **state)
{
	static const uint32_t about[] = { SHARED, OTHER, CLIENT, REMOTE2 };
	static const uint8_t types[] = { 3, 4, 5, 11, 12 };
	struct frame quote, in;
	struct run r;
	struct bed b;
	size_t i, k;

	(void)state;
	bed_scene(&b, FLOWS, pool_default());
	for (i = 0; i < sizeof(about) / sizeof(about[0]); i++) {
		for (k = 0; k < sizeof(types); k++) {
			struct spec q = {
				.proto = P_UDP, .src = REMOTE, .dst = about[i], .dport = FIRST
			};
			struct spec s = { .proto = P_ICMP,
					  .type = types[k],
					  .src = SHARED,
					  .dst = REMOTE,
					  .err = &quote };

			frame_build(&quote, &q);
			send_spec(&b, EGRESS, MADE_HERE, &s, &in, &r);
			if (r.verdict != VERDICT_DROP)
				die("ICMP type %u about %08x left with a shared source", types[k],
				    about[i]);
		}
	}
	bed_close(&b);
}

static void test_unleased_policy(void **state)
{
	static const struct {
		enum sluice_unleased policy;
		bool pass;
	} rows[] = { { SLUICE_UNLEASED_ALLOW, true },
		     { SLUICE_UNLEASED_REPORT, true },
		     { SLUICE_UNLEASED_DENY, false } };
	struct spec s = { .proto = P_TCP,
			  .src = SHARED,
			  .dst = REMOTE,
			  .sport = FIRST,
			  .dport = 80,
			  .flags = T_SYN };
	struct frame in;
	struct run r;
	struct bed b;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct sluice_pool p = pool_default();

		p.unleased = (uint8_t)rows[i].policy;
		bed_scene(&b, FLOWS, p);
		send_spec(&b, EGRESS, MADE_HERE, &s, &in, &r);
		if (rows[i].pass)
			expect_unchanged("unleased", &in, &r);
		else
			expect_reason("unleased", &in, &r, SLUICE_DROP_unleased);
		assert_int_equal(bed_stats(&b, 0).unleased,
				 rows[i].policy != SLUICE_UNLEASED_ALLOW);
		bed_close(&b);
	}
}

/* Past its deadline a slice carries nothing, in either direction; renewed, it goes on where it was. */
static void test_deadline(void **state)
{
	struct conn tcp = conn_of(P_TCP, CLIENT, 1000, REMOTE, 80);
	struct conn udp = conn_of(P_UDP, CLIENT, 1000, REMOTE, 443);
	struct conn echo = conn_of(P_ICMP, CLIENT, 1000, REMOTE, 0);
	struct spec sock = {
		.proto = P_UDP, .src = SHARED, .dst = REMOTE, .sport = FIRST, .dport = 9
	};
	struct spec stray = {
		.proto = P_UDP, .src = REMOTE, .dst = SHARED, .sport = 9, .dport = FIRST
	};
	struct frame in;
	struct run r;
	struct bed b;
	uint32_t row;
	int round;

	(void)state;
	row = bed_scene(&b, FLOWS, pool_default());
	conn_opens(&b, "tcp", &tcp);
	conn_sends(&b, "udp", &udp, 0);
	conn_sends(&b, "echo", &echo, 0);
	sock.sport = udp.port == FIRST ? FIRST + 1 : FIRST;
	for (round = 0; round < 2; round++) {
		struct conn fresh = conn_of(P_TCP, CLIENT2, (uint16_t)(1000 + round), REMOTE, 80);
		struct conn mapped = conn_of(P_UDP, CLIENT, 1000, REMOTE2, 443);

		mapped.outer = udp.outer;
		mapped.port = udp.port;
		send_spec(&b, EGRESS, MADE_HERE, &sock, &in, &r);
		expect_unchanged("socket before", &in, &r);

		slice_deadline(&b, row, round ? 1 : now_ns());
		conn_sends_dropped(&b, "tcp out", &tcp, T_ACK, SLUICE_DROP_fenced);
		conn_answers_dropped(&b, "tcp in", &tcp, T_ACK, SLUICE_DROP_fenced);
		conn_sends_dropped(&b, "udp out", &udp, 0, SLUICE_DROP_fenced);
		conn_answers_dropped(&b, "udp in", &udp, 0, SLUICE_DROP_fenced);
		conn_sends_dropped(&b, "echo out", &echo, 0, SLUICE_DROP_fenced);
		conn_answers_dropped(&b, "echo in", &echo, 0, SLUICE_DROP_fenced);
		conn_sends_dropped(&b, "mapped, elsewhere", &mapped, 0, SLUICE_DROP_fenced);
		conn_sends_dropped(&b, "new flow", &fresh, T_SYN, SLUICE_DROP_no_slice);
		send_spec(&b, EGRESS, MADE_HERE, &sock, &in, &r);
		expect_reason("socket", &in, &r, SLUICE_DROP_fenced);
		send_spec(&b, INGRESS, FORWARDED, &stray, &in, &r);
		expect_reason("to a socket", &in, &r, SLUICE_DROP_fenced);

		slice_deadline(&b, row, now_ns() + 3600000000000ULL);
		conn_sends_same(&b, "tcp renewed", &tcp, T_ACK);
		conn_answers(&b, "tcp renewed", &tcp, T_ACK);
		conn_sends_same(&b, "udp renewed", &udp, 0);
		conn_answers(&b, "udp renewed", &udp, 0);
		conn_sends_same(&b, "echo renewed", &echo, 0);
		conn_sends(&b, "new flow", &fresh, T_SYN);
	}
	bed_close(&b);
}

/* The moment itself: packets pass until the deadline, and not one does after it. */
static void test_deadline_to_the_moment(void **state)
{
	struct conn c = conn_of(P_UDP, CLIENT, 1000, REMOTE, 443);
	uint64_t end, before, after;
	uint32_t row, passed = 0, dropped = 0;
	struct spec out, back;
	struct frame in[2];
	struct run r;
	struct bed b;
	int i;

	(void)state;
	row = bed_scene(&b, FLOWS, pool_default());
	conn_sends(&b, "udp", &c, 0);
	out = conn_out(&c, 0);
	back = conn_in(&c, 0);
	frame_build(&in[0], &out);
	frame_build(&in[1], &back);
	end = now_ns() + 100000000;
	slice_deadline(&b, row, end);
	do {
		for (i = 0; i < 2; i++) {
			before = now_ns();
			if (bed_try(&b, i ? INGRESS : EGRESS, FORWARDED, &in[i], &r))
				die("test run failed");
			after = now_ns();
			if (r.verdict == VERDICT_PASS && before >= end)
				die("passed %llu ns after the deadline",
				    (unsigned long long)(before - end));
			if (r.verdict == VERDICT_DROP && after < end)
				die("dropped %llu ns before the deadline",
				    (unsigned long long)(end - after));
			passed += r.verdict == VERDICT_PASS;
			dropped += r.verdict == VERDICT_DROP;
		}
	} while (after < end + 50000000);
	assert_true(passed > 0 && dropped > 0);
	bed_close(&b);
}

/* With one of two slices fenced, new flows use the other, and only the other. */
static void test_deadline_of_one_slice(void **state)
{
	struct conn c;
	uint32_t row, i;
	struct bed b;

	(void)state;
	row = bed_scene(&b, FLOWS, pool_default());
	bed_slice(&b, SHARED, 2048, SLUICE_NEVER);
	slice_deadline(&b, row, now_ns());
	for (i = 0; i < 200; i++) {
		c = conn_of(i % 2 ? P_UDP : P_TCP, CLIENT + i, 1000, REMOTE, 80);
		conn_sends(&b, "in the live slice", &c, T_SYN);
		assert_true(c.port >= 2048 && c.port < 4096);
	}
	bed_close(&b);
}

/* A new epoch ends the flows of the one before; the client can begin anew at once. */
static void test_epoch(void **state)
{
	struct conn tcp = conn_of(P_TCP, CLIENT, 1000, REMOTE, 80);
	struct conn udp = conn_of(P_UDP, CLIENT, 1000, REMOTE, 443);
	struct sluice_pool p = pool_default();
	uint32_t row, k;
	struct bed b;

	(void)state;
	for (k = 0; k < 2; k++) {
		if (k)
			p.mapping[SLUICE_UDP] = SLUICE_OVERLOAD;
		row = bed_scene(&b, FLOWS, p);
		conn_opens(&b, "tcp", &tcp);
		conn_sends(&b, "udp", &udp, 0);
		conn_answers(&b, "udp", &udp, 0);
		slice_epoch(&b, row, 2);
		conn_answers_dropped(&b, "tcp in", &tcp, T_ACK, SLUICE_DROP_unsolicited);
		if (k)
			conn_answers_dropped(&b, "udp in", &udp, 0, SLUICE_DROP_unsolicited);
		conn_sends_dropped(&b, "tcp out", &tcp, T_ACK, SLUICE_DROP_no_flow);
		conn_opens(&b, "tcp anew", &tcp);
		conn_sends(&b, "udp anew", &udp, 0);
		conn_answers(&b, "udp anew", &udp, 0);
		bed_close(&b);
	}
}

/* A slice that is lost (state none) carries nothing, whatever its flows say. */
static void test_slice_lost(void **state)
{
	struct conn tcp = conn_of(P_TCP, CLIENT, 1000, REMOTE, 80);
	struct spec sock = { .proto = P_TCP,
			     .src = SHARED,
			     .dst = REMOTE,
			     .sport = FIRST,
			     .dport = 9,
			     .flags = T_SYN };
	struct sluice_slice s;
	struct frame in;
	struct run r;
	uint32_t row;
	struct bed b;

	(void)state;
	row = bed_scene(&b, FLOWS, pool_default());
	conn_opens(&b, "tcp", &tcp);
	map_get_row(b.nat->maps.slices, row, &s);
	s.state = SLUICE_SLICE_NONE;
	map_put_row(b.nat->maps.slices, row, &s);
	conn_answers_dropped(&b, "tcp in", &tcp, T_ACK, SLUICE_DROP_foreign);
	conn_sends_dropped(&b, "tcp out", &tcp, T_ACK, SLUICE_DROP_no_flow);
	conn_sends_dropped(&b, "syn out", &tcp, T_SYN, SLUICE_DROP_no_slice);
	send_spec(&b, EGRESS, MADE_HERE, &sock, &in, &r);
	expect_reason("socket", &in, &r, SLUICE_DROP_escape);
	bed_close(&b);
}

static int count_resolved(void *arg, void *data, size_t size)
{
	struct sluice_event *e = data, *last = arg;

	assert_true(size >= sizeof(*e));
	if (e->kind == SLUICE_EVENT_RESOLVED)
		*last = *e;
	return 0;
}

/*
 * A socket's packets on a tuple that NAT has: moved to another port of the slice, and the answers back, while NAT's own flow
 * goes on. The application sees nothing of it.
 */
static void resolve(enum sluice_mapping mapping, uint8_t proto, int open)
{
	struct conn nat = conn_of(proto, CLIENT, 1000, REMOTE, 80);
	struct conn sock, other;
	struct sluice_pool p = pool_default();
	struct sluice_event e = { 0 };
	struct spec s;
	struct frame in;
	struct view v;
	struct run r;
	struct bed b;
	char name[64];
	int i;

	snprintf(name, sizeof(name), "mapping %d, protocol %u", mapping, proto);
	for (i = 0; i < SLUICE_L4_MAX; i++)
		p.mapping[i] = (uint8_t)mapping;
	bed_scene(&b, FLOWS, p);
	if (open)
		conn_opens(&b, name, &nat);
	else
		conn_sends(&b, name, &nat, T_SYN);
	/* The socket: bound to the port that NAT has chosen, going to the same place. */
	sock = conn_of(proto, SHARED, nat.port, REMOTE, 80);
	for (i = 0; i < 4; i++) {
		s = conn_out(&sock, i ? T_ACK : T_SYN);
		send_spec(&b, EGRESS, MADE_HERE, &s, &in, &r);
		expect_rewritten(name, &in, &r, true, &v);
		if (v.src != SHARED || v.sport < FIRST || v.sport > LAST)
			die("%s: the socket came out as %08x:%u", name, v.src, v.sport);
		if (v.sport == nat.port)
			die("%s: two users of port %u", name, v.sport);
		if (i && v.sport != sock.port)
			die("%s: the socket's flow moved from %u to %u", name, sock.port, v.sport);
		sock.outer = v.src;
		sock.port = v.sport;
		conn_answers(&b, name, &sock, i ? T_ACK : T_SYN | T_ACK);
		conn_answers(&b, name, &nat, i ? T_ACK : T_SYN | T_ACK);
		conn_sends_same(&b, name, &nat, T_ACK);
	}
	assert_int_equal(bed_stats(&b, 0).resolved, 1);
	bed_events(&b, count_resolved, &e);
	if (ntohs(e.outer_port) != sock.port || ntohs(e.key.sport) != nat.port ||
	    ip_of(&e.key.src) != SHARED || ip_of(&e.key.dst) != REMOTE || e.key.proto != proto)
		die("%s: the event tells another story", name);
	/* A third user finds the port that the socket was moved to taken as well. */
	if (proto == P_TCP && mapping == SLUICE_OVERLOAD) {
		uint32_t k;

		for (k = 0; k < 2046; k++) {
			other = conn_of(proto, CLIENT2 + k, 1000, REMOTE, 80);
			conn_sends(&b, name, &other, T_SYN);
			assert_true(other.port != sock.port && other.port != nat.port);
		}
		other = conn_of(proto, CLIENT2 + k, 1000, REMOTE, 80);
		conn_sends_dropped(&b, name, &other, T_SYN, SLUICE_DROP_no_port);
		/* And a socket for which there is no port left is refused, not let through. */
		s = conn_out(&other, T_SYN);
		s.src = SHARED;
		s.sport = sock.port;
		send_spec(&b, EGRESS, MADE_HERE, &s, &in, &r);
		expect_reason(name, &in, &r, SLUICE_DROP_no_port);
	}
	bed_close(&b);
}

static void test_collision_resolved(void **state)
{
	(void)state;
	resolve(SLUICE_OVERLOAD, P_TCP, 0);
	resolve(SLUICE_OVERLOAD, P_TCP, 1);
	resolve(SLUICE_OVERLOAD, P_UDP, 0);
	resolve(SLUICE_EIM, P_TCP, 1);
	resolve(SLUICE_EIM, P_UDP, 0);
}

/* In overload mode a socket on NAT's port, but with another destination, collides with nobody and is left alone. */
static void test_no_collision_elsewhere(void **state)
{
	struct conn nat = conn_of(P_TCP, CLIENT, 1000, REMOTE, 80);
	struct spec s;
	struct frame in;
	struct run r;
	struct bed b;

	(void)state;
	bed_scene(&b, FLOWS, pool_default());
	conn_opens(&b, "tcp", &nat);
	s = conn_out(&nat, T_SYN);
	s.src = SHARED;
	s.sport = nat.port;
	s.dst = REMOTE2;
	send_spec(&b, EGRESS, MADE_HERE, &s, &in, &r);
	expect_unchanged("other address", &in, &r);
	s.dst = REMOTE;
	s.dport = 81;
	send_spec(&b, EGRESS, MADE_HERE, &s, &in, &r);
	expect_unchanged("other port", &in, &r);
	assert_int_equal(bed_stats(&b, 0).resolved, 0);
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_guard_rows),
		cmocka_unit_test(test_own_icmp_errors),
		cmocka_unit_test(test_unleased_policy),
		cmocka_unit_test(test_deadline),
		cmocka_unit_test(test_deadline_to_the_moment),
		cmocka_unit_test(test_deadline_of_one_slice),
		cmocka_unit_test(test_epoch),
		cmocka_unit_test(test_slice_lost),
		cmocka_unit_test(test_collision_resolved),
		cmocka_unit_test(test_no_collision_elsewhere),
	};

	return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
