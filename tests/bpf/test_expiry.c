/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The life and death of flows: TCP's states and the idle time of each, in both mappings; dead flows are dead although
 * nobody has swept; the sweep takes out what is dead and only that. Time passes by setting the entries' times back.
 */
#include "flows.h"

#define FLOWS 4096

/* Short, all different, and far enough from each other for tests that take a second or two longer. */
static const struct sluice_timers short_timers = {
	.tcp_established = 75,
	.tcp_opening = 24,
	.tcp_closing = 36,
	.tcp_time_wait = 12,
	.tcp_reset = 18,
	.udp = 48,
	.udp_short = 16,
	.icmp = 30,
};

static struct sluice_pool pool_short(enum sluice_mapping mapping)
{
	struct sluice_pool p = pool_default();
	int i;

	for (i = 0; i < SLUICE_L4_MAX; i++)
		p.mapping[i] = (uint8_t)mapping;
	if (mapping == SLUICE_EIM)
		p.filtering[SLUICE_TCP] = SLUICE_FILTER_ADDRESS;
	p.timers = short_timers;
	return p;
}

/* Plays packets: capitals go out, small letters come in. S SYN (s: SYN+ACK), A data, F FIN, R RST, D datagram. */
static void play(struct bed *b, const char *name, struct conn *c, const char *script)
{
	const char *p;
	uint8_t flags = 0;

	for (p = script; *p; p++) {
		switch (*p | 0x20) {
		case 's':
			flags = *p == 'S' ? T_SYN : T_SYN | T_ACK;
			break;
		case 'a':
			flags = T_ACK;
			break;
		case 'f':
			flags = T_FIN | T_ACK;
			break;
		case 'r':
			flags = T_RST | T_ACK;
			break;
		default:
			break;
		}
		if (*p >= 'a')
			conn_answers(b, name, c, flags);
		else if (p == script)
			conn_sends(b, name, c, flags);
		else
			conn_sends_same(b, name, c, flags);
	}
}

static const struct life {
	const char *script;
	uint8_t proto;
	uint16_t dport;
	uint32_t timer;
} lives
	[] = {
		{ "S", P_TCP, 80, 24 },       { "Ss", P_TCP, 80, 24 },
		{ "SsA", P_TCP, 80, 75 },     { "SsAaAa", P_TCP, 80, 75 },
		{ "SsAF", P_TCP, 80, 75 }, /* half-closed connections may go on for as long as open ones */
		{ "SsAfAA", P_TCP, 80, 75 },  { "SsAFf", P_TCP, 80, 36 },
		{ "SsAfF", P_TCP, 80, 36 },   { "SsAFfA", P_TCP, 80, 12 },
		{ "SsAFafA", P_TCP, 80, 12 }, { "SsAfAFa", P_TCP, 80, 12 },
		{ "Sr", P_TCP, 80, 18 },      { "SsAR", P_TCP, 80, 18 },
		{ "SsAr", P_TCP, 80, 18 },    { "SsAFr", P_TCP, 80, 18 },
		{ "SsAra", P_TCP, 80, 75 }, /* whoever goes on talking has not been reset (RFC 6146 3.5.2.2) */
		{ "SsARA", P_TCP, 80, 75 },   { "D", P_UDP, 443, 48 },
		{ "Dd", P_UDP, 443, 48 },     { "D", P_UDP, 53, 16 },
		{ "D", P_UDP, 123, 16 },      { "D", P_ICMP, 0, 30 },
		{ "Dd", P_ICMP, 0, 30 },
	};

/*
 * In every state: a flow that has idled for less than its time is alive in both directions, one that has idled for longer is
 * dead in both although its entries are there.
 */
static void lives_in(enum sluice_mapping mapping)
{
	size_t i;

	need_uptime(100);
	for (i = 0; i < sizeof(lives) / sizeof(lives[0]); i++) {
		const struct life *l = &lives[i];
		struct conn c;
		struct bed b;
		char name[64];
		int what;

		bed_scene(&b, FLOWS, pool_short(mapping));
		for (what = 0; what < 4; what++) {
			bool dead = what & 1, out = what & 2;

			snprintf(name, sizeof(name), "%s to %u, %s, %s", l->script, l->dport,
				 dead ? "too old" : "young enough", out ? "outgoing" : "incoming");
			c = conn_of(l->proto, CLIENT, (uint16_t)(1000 + what), REMOTE, l->dport);
			play(&b, name, &c, l->script);
			bed_age(&b, dead ? l->timer + 1 : l->timer - 4);
			if (!out && dead)
				conn_answers_too_late(&b, name, &c, T_ACK);
			else if (!out)
				conn_answers(&b, name, &c, T_ACK);
			else if (!dead)
				conn_sends_same(&b, name, &c, T_ACK);
			else if (l->proto == P_TCP)
				conn_sends_dropped(&b, name, &c, T_ACK, SLUICE_DROP_no_flow);
		}
		bed_close(&b);
	}
}

static void test_lives_overload(void **state)
{
	(void)state;
	lives_in(SLUICE_OVERLOAD);
}

static void test_lives_eim(void **state)
{
	(void)state;
	lives_in(SLUICE_EIM);
}

static void age_port(const struct sluice_flow_key *key, struct sluice_flow *flow, void *arg)
{
	const struct conn *c = arg;

	(void)key;
	if (ntohs(flow->port) == c->port)
		flow->seen_s -= 150;
}

static void wait_next_second(void)
{
	struct timespec nap = { .tv_nsec = 20000000 };
	uint32_t s = now_s();

	while (now_s() == s)
		nanosleep(&nap, NULL);
}

/* UDP is kept alive by what the inner end sends, and not by what comes in (RFC 4787 REQ-6). */
static void test_udp_refresh(void **state)
{
	static const enum sluice_mapping mappings[] = { SLUICE_OVERLOAD, SLUICE_EIM };
	struct conn c;
	struct bed b;
	int i, k;

	(void)state;
	need_uptime(200);
	for (i = 0; i < 2; i++) {
		bed_scene(&b, FLOWS, pool_short(mappings[i]));
		c = conn_of(P_UDP, CLIENT, 1000, REMOTE, 443);
		conn_sends(&b, "udp", &c, 0);
		for (k = 0; k < 4; k++) {
			bed_age(&b, 30);
			conn_sends_same(&b, "kept alive by sending", &c, 0);
		}
		bed_age(&b, 30);
		conn_answers(&b, "still alive", &c, 0);
		bed_age(&b, 30);
		conn_answers_too_late(&b, "not kept alive by receiving", &c, 0);
		bed_close(&b);
	}
}

/* Where the pool says so, what comes in keeps it as well (RFC 4787 REQ-6 b). */
static void test_inbound_refresh(void **state)
{
	static const enum sluice_mapping mappings[] = { SLUICE_OVERLOAD, SLUICE_EIM };
	struct sluice_pool pool;
	struct conn c;
	struct bed b;
	int i, k;

	(void)state;
	need_uptime(300);
	for (i = 0; i < 2; i++) {
		pool = pool_short(mappings[i]);
		pool.inbound_refresh = 1;
		bed_scene(&b, FLOWS, pool);
		c = conn_of(P_UDP, CLIENT, 1000, REMOTE, 443);
		conn_sends(&b, "udp", &c, 0);
		for (k = 0; k < 4; k++) {
			bed_age(&b, 30);
			conn_answers(&b, "kept alive by receiving", &c, 0);
			bed_sweep(&b);
		}
		bed_age(&b, 30);
		conn_sends_same(&b, "still alive", &c, 0);
		bed_age(&b, 49);
		conn_answers_too_late(&b, "not for ever", &c, 0);
		bed_close(&b);
	}
}

/*
 * RFC 6888 REQ-8: a port of UDP is kept from others for a while after its mapping has ended, but not from the client that had it; when there is no other
 * left, all that rest are given with the next sweep.
 */
static void test_port_rests(void **state)
{
	struct sluice_pool pool = pool_short(SLUICE_EIM);
	struct conn c, mine;
	struct bed b;
	uint32_t i;

	(void)state;
	need_uptime(300);
	pool.reuse_s = 100;
	bed_open(&b, FLOWS);
	bed_pool(&b, 0, pool);
	bed_addr(&b, 0, SHARED, 6);
	bed_client(&b, IP(10, 1, 0, 0), 16, 0);
	bed_slice(&b, SHARED, 4096, SLUICE_NEVER);
	mine = conn_of(P_UDP, CLIENT, 1000, REMOTE, 443);
	conn_sends(&b, "first", &mine, 0);
	bed_age(&b, 60); /* 48, and 12 of the hundred */
	bed_sweep(&b);
	conn_answers_dropped(&b, "it has ended", &mine, 0, SLUICE_DROP_filtered);
	bed_age(&b, 80);
	bed_sweep(&b);
	for (i = 0; i < 63; i++) {
		c = conn_of(P_UDP, CLIENT + 1 + i, 1000, REMOTE, 443);
		conn_sends(&b, "others", &c, 0);
		if (c.port == mine.port)
			die("port %u serves another client %u seconds after its end", c.port, 92);
	}
	conn_sends_same(&b, "its client goes on", &mine, 0);
	conn_answers(&b, "its client goes on", &mine, 0);
	/* Now its time is over for good. */
	flows_each(b.nat->maps.fwd, age_port, &mine);
	flows_each(b.nat->maps.rev, age_port, &mine);
	bed_sweep(&b);
	c = conn_of(P_UDP, CLIENT + 200, 1000, REMOTE, 443);
	conn_sends(&b, "after its rest", &c, 0);
	assert_int_equal(c.port, mine.port);

	/* All rest, and one is needed. */
	bed_age(&b, 60);
	bed_sweep(&b);
	c = conn_of(P_UDP, CLIENT + 300, 1000, REMOTE, 443);
	conn_sends_dropped(&b, "all rest", &c, 0, SLUICE_DROP_no_port);
	bed_sweep(&b);
	wait_next_second();
	conn_sends(&b, "none rests any more", &c, 0);
	assert_int_equal(flows_count(b.nat->maps.fwd), 1);
	bed_close(&b);
}

/* A TCP connection in which only one end sends stays open, whichever end that is. */
static void test_tcp_refresh(void **state)
{
	static const enum sluice_mapping mappings[] = { SLUICE_OVERLOAD, SLUICE_EIM };
	struct conn c;
	struct bed b;
	int i, k;

	(void)state;
	need_uptime(300);
	for (i = 0; i < 2; i++) {
		bed_scene(&b, FLOWS, pool_short(mappings[i]));
		c = conn_of(P_TCP, CLIENT, 1000, REMOTE, 443);
		conn_opens(&b, "tcp", &c);
		for (k = 0; k < 3; k++) {
			bed_age(&b, 50);
			conn_answers(&b, "kept by receiving", &c, T_ACK);
			bed_sweep(&b);
		}
		for (k = 0; k < 3; k++) {
			bed_age(&b, 50);
			conn_sends_same(&b, "kept by sending", &c, T_ACK);
			bed_sweep(&b);
		}
		bed_close(&b);
	}
}

/*
 * A reset starts the time that a connection has left, however long it was idle before (else one forged packet would end it at
 * once); more of them do not prolong it.
 */
static void test_reset_starts_its_time(void **state)
{
	static const enum sluice_mapping mappings[] = { SLUICE_OVERLOAD, SLUICE_EIM };
	struct conn c;
	struct bed b;
	int i;

	(void)state;
	need_uptime(200);
	for (i = 0; i < 2; i++) {
		bed_scene(&b, FLOWS, pool_short(mappings[i]));
		c = conn_of(P_TCP, CLIENT, 1000, REMOTE, 443);
		conn_opens(&b, "tcp", &c);
		bed_age(&b, 60);
		conn_answers(&b, "reset", &c, T_RST | T_ACK);
		bed_age(&b, 10);
		conn_answers(&b, "it was forged: data", &c, T_ACK);
		bed_age(&b, 60);
		conn_answers(&b, "reset again", &c, T_RST | T_ACK);
		bed_age(&b, 10);
		conn_answers(&b, "and again", &c, T_RST);
		bed_age(&b, 10);
		conn_answers_too_late(&b, "too late", &c, T_ACK);
		bed_close(&b);
	}
}

/* A mapping lives by the longest of the times that it was used for: port 53 has a shorter one. */
static void test_longest_time_counts(void **state)
{
	struct conn dns = conn_of(P_UDP, CLIENT, 1000, REMOTE, 53), other = dns;
	struct bed b;
	int i;

	(void)state;
	need_uptime(100);
	for (i = 0; i < 2; i++) {
		other.dport = 443;
		other.dst = i ? REMOTE2 : REMOTE;
		bed_scene(&b, FLOWS, pool_short(SLUICE_EIM));
		conn_sends(&b, "dns", &dns, 0);
		conn_sends(&b, "other", &other, 0);
		assert_int_equal(dns.port, other.port);
		conn_sends_same(&b, "dns again", &dns, 0);
		bed_age(&b, 40);
		bed_sweep(&b);
		conn_answers(&b, "after the shorter time", &other, 0);
		conn_sends_same(&b, "after the shorter time", &other, 0);
		bed_age(&b, 49);
		conn_answers_too_late(&b, "after the longer one", &other, 0);
		bed_close(&b);
	}
}

/* A SYN on a connection that is over begins a new one, on the same port, that lives by a new one's time. */
static void test_tcp_begins_anew(void **state)
{
	static const enum sluice_mapping mappings[] = { SLUICE_OVERLOAD, SLUICE_EIM };
	static const char *const scripts[] = { "SsAFfA", "SsAR", "SsAr", "SsAFf" };
	struct conn c;
	struct bed b;
	size_t i, k;

	(void)state;
	need_uptime(100);
	for (i = 0; i < 2; i++) {
		bed_scene(&b, FLOWS, pool_short(mappings[i]));
		for (k = 0; k < sizeof(scripts) / sizeof(scripts[0]); k++) {
			c = conn_of(P_TCP, CLIENT, (uint16_t)(1000 + k), REMOTE, 443);
			play(&b, scripts[k], &c, scripts[k]);
			conn_sends_same(&b, scripts[k], &c, T_SYN);
			conn_answers(&b, scripts[k], &c, T_SYN | T_ACK);
			conn_sends_same(&b, scripts[k], &c, T_ACK);
			bed_age(&b, 60);
			conn_answers(&b, "is established", &c, T_ACK);
		}
		bed_close(&b);
	}
}

/* A full slice of dead flows is an empty slice: all its ports are given again, without a sweep. */
static void test_dead_ports_serve_again(void **state)
{
	static const enum sluice_mapping mappings[] = { SLUICE_OVERLOAD, SLUICE_EIM };
	struct conn c;
	struct bed b;
	uint32_t i, k, round;

	(void)state;
	need_uptime(200);
	for (k = 0; k < 2; k++) {
		bed_open(&b, FLOWS);
		bed_pool(&b, 0, pool_short(mappings[k]));
		bed_addr(&b, 0, SHARED, 6);
		bed_client(&b, IP(10, 1, 0, 0), 16, 0);
		bed_slice(&b, SHARED, 4096, SLUICE_NEVER);
		for (round = 0; round < 3; round++) {
			for (i = 0; i < 64; i++) {
				c = conn_of(P_TCP, CLIENT + 100 * round + i, 5, REMOTE, 80);
				conn_sends(&b, "a port is free", &c, T_SYN);
			}
			c = conn_of(P_TCP, CLIENT2 + 999, 5, REMOTE, 80);
			conn_sends_dropped(&b, "none is free", &c, T_SYN, SLUICE_DROP_no_port);
			bed_age(&b, 30);
			/* Endpoint-independent ports come free by the sweep alone. */
			if (mappings[k] == SLUICE_EIM)
				bed_sweep(&b);
			/* That there was no port is remembered for the rest of the second. */
			wait_next_second();
		}
		assert_true(flows_count(b.nat->maps.rev) <= 64);
		bed_close(&b);
	}
}

struct marked {
	uint16_t ports[64];
	uint32_t n;
};

static bool marked_has(const struct marked *m, uint16_t port)
{
	uint32_t i;

	for (i = 0; i < m->n; i++)
		if (m->ports[i] == port)
			return true;
	return false;
}

static void age_marked_fwd(const struct sluice_flow_key *key, struct sluice_flow *flow, void *arg)
{
	(void)key;
	if (marked_has(arg, ntohs(flow->port)))
		flow->seen_s -= 60;
}

static void age_marked_rev(const struct sluice_flow_key *key, struct sluice_flow *flow, void *arg)
{
	if (marked_has(arg, ntohs(key->dport)))
		flow->seen_s -= 60;
}

static uint32_t bits_used(struct bpf_map *m, uint32_t n, bool blocks)
{
	uint32_t i, sum = 0;

	for (i = 0; i < n; i++) {
		struct sluice_block row = { 0 };
		uint64_t word = 0;

		map_get_row(m, i, blocks ? (void *)&row : &word);
		sum += (uint32_t)__builtin_popcountll(blocks ? row.bits : word);
	}
	return sum;
}

/* The sweep takes out the flows that are dead and no other, gives their ports back, and counts right. */
static void sweep_in(enum sluice_mapping mapping, uint8_t proto, uint32_t l4)
{
	struct conn c[64];
	struct marked m = { .n = 0 };
	struct sluice_pool_stats st;
	struct sluice_sweep s;
	struct bed b;
	uint32_t i, each, nblocks = 3 * 2048 / 64;
	const uint64_t none = 0;
	char name[64];

	snprintf(name, sizeof(name), "protocol %u, mapping %d", proto, mapping);
	bed_scene(&b, FLOWS, pool_short(mapping));
	for (i = 0; i < 64; i++) {
		c[i] = conn_of(proto, CLIENT + i, 1000, REMOTE, proto == P_ICMP ? 0 : 80);
		conn_sends(&b, name, &c[i], T_SYN);
		if (i % 4 == 0)
			m.ports[m.n++] = c[i].port;
	}
	/* Endpoint-independent TCP has an entry more for each mapping, which lets the remote end in. */
	each = mapping == SLUICE_EIM && proto == P_TCP ? 2 : 1;
	s = bed_sweep(&b);
	if (s.seen != 64 * each || s.reclaimed != 0 || s.flows[l4] != 64)
		die("%s: all alive: seen %llu, reclaimed %llu, flows %llu", name, s.seen,
		    s.reclaimed, s.flows[l4]);
	assert_int_equal(bits_used(b.nat->maps.use_bits, nblocks, false), 64);
	flows_each(b.nat->maps.fwd, age_marked_fwd, &m);
	flows_each(b.nat->maps.rev, age_marked_rev, &m);
	s = bed_sweep(&b);
	if (s.seen != 64 * each || s.flows[l4] != 48 || s.reclaimed < 16)
		die("%s: 16 dead: seen %llu, reclaimed %llu, flows %llu", name, s.seen, s.reclaimed,
		    s.flows[l4]);
	/* Whoever reads the marks clears them. */
	for (i = 0; i < nblocks; i++)
		map_put_row(b.nat->maps.use_bits, i, &none);
	/* Such an entry goes after its mapping has: with the next sweep at the latest. */
	s = bed_sweep(&b);
	assert_int_equal(s.flows[l4], 48);
	assert_int_equal(bits_used(b.nat->maps.use_bits, nblocks, false), 48);
	assert_true(s.now_s >= now_s() - 5 && s.now_s <= now_s());
	assert_int_equal(flows_count(b.nat->maps.rev), 48 * each);
	assert_int_equal(flows_count(b.nat->maps.fwd), 48);
	st = bed_stats(&b, 0);
	assert_int_equal(st.created[l4], 64);
	assert_int_equal(st.ended[l4], 16);
	assert_int_equal(bits_used(b.nat->maps.blocks, nblocks, true),
			 mapping == SLUICE_EIM ? 48 : 0);
	for (i = 0; i < 64; i++) {
		if (i % 4 == 0) {
			conn_answers_dropped(&b, name, &c[i], T_ACK, SLUICE_DROP_unsolicited);
		} else {
			conn_answers(&b, name, &c[i], T_SYN | T_ACK);
			conn_sends_same(&b, name, &c[i], T_ACK);
		}
	}
	s = bed_sweep(&b);
	assert_int_equal(s.seen, 48 * each);
	assert_int_equal(s.reclaimed, 0);
	bed_close(&b);
}

static void test_sweep(void **state)
{
	(void)state;
	need_uptime(100);
	sweep_in(SLUICE_OVERLOAD, P_TCP, SLUICE_TCP);
	sweep_in(SLUICE_OVERLOAD, P_UDP, SLUICE_UDP);
	sweep_in(SLUICE_EIM, P_TCP, SLUICE_TCP);
	sweep_in(SLUICE_EIM, P_UDP, SLUICE_UDP);
	sweep_in(SLUICE_EIM, P_ICMP, SLUICE_ICMP);
}

/* An endpoint-independent mapping outlives the sessions that ended, as long as one of them is used. */
static void test_mapping_outlives_sessions(void **state)
{
	static const uint8_t protos[] = { P_TCP, P_UDP };
	struct conn c, d;
	struct bed b;
	int i;

	(void)state;
	need_uptime(300);
	for (i = 0; i < 2; i++) {
		bed_scene(&b, FLOWS, pool_short(SLUICE_EIM));
		c = conn_of(protos[i], CLIENT, 1000, REMOTE, 443);
		d = conn_of(protos[i], CLIENT, 1000, REMOTE2, 443);
		conn_opens(&b, "first", &c);
		bed_age(&b, 40);
		conn_opens(&b, "second", &d);
		assert_int_equal(c.port, d.port);
		bed_age(&b, 40); /* the first is too old now */
		bed_sweep(&b);
		conn_answers_dropped(&b, "the first is gone", &c, T_ACK, SLUICE_DROP_filtered);
		conn_answers(&b, "the second is not", &d, T_ACK);
		conn_sends_same(&b, "nor its port", &d, T_ACK);
		bed_age(&b, 90);
		bed_sweep(&b);
		conn_answers_dropped(&b, "all is gone", &d, T_ACK, SLUICE_DROP_unsolicited);
		bed_sweep(&b);
		assert_int_equal(flows_count(b.nat->maps.fwd), 0);
		assert_int_equal(flows_count(b.nat->maps.rev), 0);
		assert_int_equal(bits_used(b.nat->maps.blocks, 96, true), 0);
		bed_close(&b);
	}
}

/* While nobody sweeps and the table is full of dead flows, a new flow finds room all the same. */
static void test_room_without_daemon(void **state)
{
	struct sluice_conf conf;
	struct conn c;
	struct bed b;
	uint32_t i;

	(void)state;
	need_uptime(200);
	bed_scene(&b, 256, pool_short(SLUICE_OVERLOAD));
	for (i = 0; i < 256; i++) {
		c = conn_of(P_TCP, CLIENT, (uint16_t)(1000 + i), REMOTE + i, 80);
		conn_sends(&b, "fill", &c, T_SYN);
	}
	bed_age(&b, 60);
	map_get_row(b.nat->maps.conf, 0, &conf);
	conf.swept_s -= 60;
	map_put_row(b.nat->maps.conf, 0, &conf);
	c = conn_of(P_TCP, CLIENT2, 1, IP(198, 51, 101, 1), 80);
	/* The packet that finds the table full may be lost; the one after it must not be. */
	{
		struct spec s = conn_out(&c, T_SYN);
		struct frame in;
		struct run r;

		send_spec(&b, EGRESS, FORWARDED, &s, &in, &r);
		if (r.verdict == VERDICT_DROP)
			expect_reason("table full", &in, &r, SLUICE_DROP_table_full);
	}
	conn_sends(&b, "room again", &c, T_SYN);
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lives_overload),
		cmocka_unit_test(test_lives_eim),
		cmocka_unit_test(test_udp_refresh),
		cmocka_unit_test(test_inbound_refresh),
		cmocka_unit_test(test_port_rests),
		cmocka_unit_test(test_tcp_refresh),
		cmocka_unit_test(test_reset_starts_its_time),
		cmocka_unit_test(test_longest_time_counts),
		cmocka_unit_test(test_tcp_begins_anew),
		cmocka_unit_test(test_dead_ports_serve_again),
		cmocka_unit_test(test_sweep),
		cmocka_unit_test(test_mapping_outlives_sessions),
		cmocka_unit_test(test_room_without_daemon),
	};

	return cmocka_run_group_tests_name("expiry", tests, NULL, NULL);
}
