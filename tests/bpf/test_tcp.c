/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TCP as its RFCs have it, through NAT: which RST ends a connection, simultaneous open, a peer that has forgotten, half-closed connections, a port that
 * is used again after TIME_WAIT. Times are set back as in test_expiry.c.
 */
#include "flows.h"

#define FLOWS  4096
#define ACKED  0xfffffff0u /* so that windows wrap around */
#define WINDOW 1000

/* Far apart: what is in state "reset" dies within 30 seconds, what is established does not. */
static struct sluice_pool pool_short(enum sluice_mapping mapping)
{
	struct sluice_pool p = pool_default();
	int i;

	for (i = 0; i < SLUICE_L4_MAX; i++)
		p.mapping[i] = (uint8_t)mapping;
	p.timers = (struct sluice_timers){
		.tcp_established = 75,
		.tcp_opening = 24,
		.tcp_closing = 24,
		.tcp_time_wait = 12,
		.tcp_reset = 18,
		.udp = 60,
		.udp_short = 60,
		.icmp = 60,
	};
	return p;
}

/* The client acknowledges up to ack and has room for window more, as it stands in the header. */
static void client_acks(struct bed *b, const char *what, const struct conn *c, uint32_t ack,
			uint16_t window)
{
	struct spec s = conn_out(c, T_ACK);
	struct frame in;
	struct view v;
	struct run r;

	s.ack = ack;
	s.window = window;
	send_spec(b, EGRESS, FORWARDED, &s, &in, &r);
	expect_rewritten(what, &in, &r, true, &v);
}

static void client_syn(struct bed *b, struct conn *c, uint8_t scale)
{
	struct spec s = conn_out(c, T_SYN);
	struct frame in;
	struct view v;
	struct run r;

	s.tcp_words = scale ? 3 : 0;
	s.scale = scale;
	send_spec(b, EGRESS, FORWARDED, &s, &in, &r);
	expect_rewritten("SYN", &in, &r, true, &v);
	c->outer = v.src;
	c->port = v.sport;
}

/* Every RST is passed on: the client's stack knows better. */
static void remote_resets(struct bed *b, const char *what, const struct conn *c, uint32_t seq)
{
	struct spec s = conn_in(c, T_RST);
	struct frame in;
	struct view v;
	struct run r;

	s.seq = seq;
	send_spec(b, INGRESS, FORWARDED, &s, &in, &r);
	expect_rewritten(what, &in, &r, false, &v);
}

static const struct reset {
	const char *name;
	uint8_t scale;
	uint32_t seq; /* beyond what was acknowledged */
	bool believed;
} resets[] = {
	{ "next byte", 0, 0, true },
	{ "end of the window", 0, WINDOW, true },
	{ "beyond the window", 0, WINDOW + 1, false },
	{ "before the window", 0, 0xffffffffu, false },
	{ "half way round", 0, 0x80000000u, false },
	{ "scaled window", 1 + 7, WINDOW << 7, true },
	{ "beyond the scaled window", 1 + 7, (WINDOW << 7) + 1, false },
	{ "scale of nothing", 1, WINDOW + 1, false },
	{ "scale that is too large", 1 + 15, (WINDOW << 14) + 1, false },
	{ "largest scale", 1 + 15, WINDOW << 14, true },
};

static void test_reset_window(void **state)
{
	struct conn c;
	struct bed b;
	size_t i;

	(void)state;
	need_uptime(200);
	bed_scene(&b, FLOWS, pool_short(SLUICE_OVERLOAD));
	for (i = 0; i < sizeof(resets) / sizeof(resets[0]); i++) {
		const struct reset *t = &resets[i];

		c = conn_of(P_TCP, CLIENT, (uint16_t)(1000 + i), REMOTE, 443);
		client_syn(&b, &c, t->scale);
		conn_answers(&b, t->name, &c, T_SYN | T_ACK);
		client_acks(&b, t->name, &c, ACKED, WINDOW);
		/* Of a segment that was overtaken: the window does not go back. */
		client_acks(&b, t->name, &c, ACKED - 5000, 1);
		remote_resets(&b, t->name, &c, ACKED + t->seq);
		bed_age(&b, 30);
		if (t->believed)
			conn_answers_too_late(&b, t->name, &c, T_ACK);
		else
			conn_answers(&b, t->name, &c, T_ACK);
	}
	bed_close(&b);
}

/* The window moves with what the client acknowledges; a RST that is not believed does not keep a flow alive either. */
static void test_reset_moves(void **state)
{
	struct conn c = conn_of(P_TCP, CLIENT, 1000, REMOTE, 443);
	struct bed b;

	(void)state;
	need_uptime(200);
	bed_scene(&b, FLOWS, pool_short(SLUICE_OVERLOAD));
	conn_opens(&b, "open", &c);
	client_acks(&b, "ack", &c, 50000, WINDOW);
	client_acks(&b, "ack", &c, 60000, WINDOW);
	remote_resets(&b, "of the old window", &c, 50000);
	bed_age(&b, 30);
	conn_answers(&b, "goes on", &c, T_ACK);
	bed_age(&b, 60);
	remote_resets(&b, "stray", &c, 50000);
	bed_age(&b, 20);
	conn_answers_too_late(&b, "was not prolonged", &c, T_ACK);

	/* The tuple's next connection has a window of its own. Before its first ACK any RST is for it: it is a refusal. */
	conn_sends(&b, "anew", &c, T_SYN);
	remote_resets(&b, "refused", &c, 1);
	bed_age(&b, 20);
	conn_answers_too_late(&b, "refused", &c, T_ACK);
	/* The client's own RST is believed. */
	conn_opens(&b, "again", &c);
	conn_sends_same(&b, "client resets", &c, T_RST);
	bed_age(&b, 30);
	conn_answers_too_late(&b, "client has reset", &c, T_ACK);
	bed_close(&b);
}

static void expect_established(struct bed *b, const char *what, const struct conn *c)
{
	bed_age(b, 50);
	conn_answers(b, what, c, T_ACK);
	bed_age(b, 50);
	conn_sends_same(b, what, c, T_ACK);
}

/* RFC 5382 REQ-2, RFC 9293 3.5: both send a SYN, then both SYN and ACK. */
static void test_simultaneous_open(void **state)
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
		conn_sends(&b, "SYN out", &c, T_SYN);
		conn_answers(&b, "SYN in", &c, T_SYN);
		conn_sends_same(&b, "SYN, ACK out", &c, T_SYN | T_ACK);
		conn_answers(&b, "SYN, ACK in", &c, T_SYN | T_ACK);
		expect_established(&b, "open", &c);

		/* The remote end's SYN and ACK comes first. */
		c.sport = 1001;
		conn_sends(&b, "SYN out", &c, T_SYN);
		conn_answers(&b, "SYN in", &c, T_SYN);
		conn_answers(&b, "SYN, ACK in", &c, T_SYN | T_ACK);
		conn_sends_same(&b, "SYN, ACK out", &c, T_SYN | T_ACK);
		expect_established(&b, "open", &c);
		bed_close(&b);
	}
}

/* RFC 9293 3.5.1: one end has crashed and begins again from the same port, or is sent what it knows nothing of. */
static void test_half_open(void **state)
{
	static const enum sluice_mapping mappings[] = { SLUICE_OVERLOAD, SLUICE_EIM };
	struct conn c;
	struct bed b;
	int i;

	(void)state;
	need_uptime(300);
	for (i = 0; i < 2; i++) {
		bed_scene(&b, FLOWS, pool_short(mappings[i]));
		c = conn_of(P_TCP, CLIENT, 1000, REMOTE, 443);
		conn_opens(&b, "open", &c);
		conn_sends_same(&b, "the client has crashed: SYN", &c, T_SYN);
		conn_answers(&b, "what the remote end knows", &c, T_ACK);
		conn_sends_same(&b, "RST", &c, T_RST);
		conn_sends_same(&b, "SYN again", &c, T_SYN);
		conn_answers(&b, "SYN, ACK", &c, T_SYN | T_ACK);
		conn_sends_same(&b, "ACK", &c, T_ACK);
		expect_established(&b, "open again", &c);

		conn_sends_same(&b, "the remote end has crashed: data", &c, T_ACK);
		conn_answers(&b, "RST", &c, T_RST);
		conn_sends_same(&b, "SYN at once", &c, T_SYN);
		conn_answers(&b, "SYN, ACK", &c, T_SYN | T_ACK);
		conn_sends_same(&b, "ACK", &c, T_ACK);
		expect_established(&b, "open once more", &c);
		bed_close(&b);
	}
}

/* One direction is closed, the other goes on for longer than a closing connection may live. */
static void test_half_close(void **state)
{
	static const enum sluice_mapping mappings[] = { SLUICE_OVERLOAD, SLUICE_EIM };
	struct conn c;
	struct bed b;
	int i, k, n;

	(void)state;
	need_uptime(400);
	for (i = 0; i < 2; i++) {
		bed_scene(&b, FLOWS, pool_short(mappings[i]));
		for (k = 0; k < 2; k++) {
			c = conn_of(P_TCP, CLIENT, (uint16_t)(1000 + k), REMOTE, 443);
			conn_opens(&b, "open", &c);
			if (k)
				conn_sends_same(&b, "client's FIN", &c, T_FIN | T_ACK);
			else
				conn_answers(&b, "remote end's FIN", &c, T_FIN | T_ACK);
			for (n = 0; n < 3; n++) {
				bed_age(&b, 50);
				if (k)
					conn_answers(&b, "data in", &c, T_ACK);
				else
					conn_sends_same(&b, "data out", &c, T_ACK);
			}
			if (k)
				conn_answers(&b, "remote end's FIN", &c, T_FIN | T_ACK);
			else
				conn_sends_same(&b, "client's FIN", &c, T_FIN | T_ACK);
			bed_age(&b, 25);
			conn_answers_too_late(&b, "closed", &c, T_ACK);
		}
		bed_close(&b);
	}
}

/*
 * In TIME_WAIT the port serves other destinations at once, another client's flow to the same one does not get it, and the client that had it may
 * open it anew (RFC 6888 REQ-8, RFC 6191).
 */
static void test_time_wait(void **state)
{
	struct conn c, other;
	struct bed b;
	int n;

	(void)state;
	need_uptime(100);
	bed_open(&b, FLOWS);
	bed_pool(&b, 0, pool_short(SLUICE_OVERLOAD));
	bed_addr(&b, 0, SHARED, 6);
	bed_client(&b, IP(10, 1, 0, 0), 16, 0);
	bed_slice(&b, SHARED, 4096, SLUICE_NEVER);
	for (n = 0; n < 64; n++) {
		c = conn_of(P_TCP, CLIENT, (uint16_t)(1000 + n), REMOTE, 443);
		conn_opens(&b, "open", &c);
		conn_sends_same(&b, "FIN", &c, T_FIN | T_ACK);
		conn_answers(&b, "FIN", &c, T_FIN | T_ACK);
		conn_sends_same(&b, "last ACK", &c, T_ACK);
	}
	other = conn_of(P_TCP, CLIENT2, 1000, REMOTE, 443);
	conn_sends_dropped(&b, "the same destination", &other, T_SYN, SLUICE_DROP_no_port);
	other.dst = REMOTE2;
	conn_sends(&b, "another destination", &other, T_SYN);
	conn_opens(&b, "the same client", &c);
	expect_established(&b, "open again", &c);
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reset_window),      cmocka_unit_test(test_reset_moves),
		cmocka_unit_test(test_simultaneous_open), cmocka_unit_test(test_half_open),
		cmocka_unit_test(test_half_close),        cmocka_unit_test(test_time_wait),
	};

	return cmocka_run_group_tests_name("tcp", tests, NULL, NULL);
}
