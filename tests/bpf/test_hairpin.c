/* SPDX-License-Identifier: BSD-2-Clause */
/* Hairpinning: clients reach each other by their outer ends, with their outer ends, and nothing else comes that way. */
#include <linux/pkt_cls.h>

#include "flows.h"

#define SMALL_FLOWS 1024
#define IP_8_CLIENT IP(8, 0, 1, 5)

enum at { INNER, LO };

static const struct sluice_pool *pool_hairpin(enum sluice_mapping mapping,
					      enum sluice_filtering filtering)
{
	static struct sluice_pool p;

	p = pool_with(mapping, filtering);
	p.hairpin = 1;
	return &p;
}

static void scene(struct bed *b, const struct sluice_pool *p)
{
	struct sluice_conf conf;

	bed_scene(b, SMALL_FLOWS, *p);
	map_get_row(b->nat->maps.conf, 0, &conf);
	conf.hairpin = 1;
	map_put_row(b->nat->maps.conf, 0, &conf);
}

static void run_at(struct bed *b, enum at at, const struct frame *in, struct run *r)
{
	struct __sk_buff ctx = { .ingress_ifindex = at == LO ? MADE_HERE : FORWARDED };
	struct bpf_program *prog = at == LO ? b->nat->progs.lo_egress : b->nat->progs.inner_ingress;
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in->b, .data_size_in = in->len,
		    .data_out = r->out.b, .data_size_out = sizeof(r->out.b), .ctx_in = &ctx,
		    .ctx_size_in = sizeof(ctx));
	struct sluice_count before[SLUICE_REASON_MAX], after[SLUICE_REASON_MAX];
	int i;

	bed_drops_all(b, before);
	if (bpf_prog_test_run_opts(bpf_program__fd(prog), &opts))
		die("test run: %s", strerror(errno));
	bed_drops_all(b, after);
	r->verdict = (int)opts.retval;
	r->out.len = opts.data_size_out;
	r->reason = NO_REASON;
	for (i = 0; i < SLUICE_REASON_MAX; i++)
		if (after[i].packets != before[i].packets)
			r->reason = i;
}

static struct spec udp_or_tcp(uint8_t proto, uint32_t src, uint16_t sport, uint32_t dst,
			      uint16_t dport, uint8_t flags)
{
	struct spec s = { .proto = proto, .src = src, .dst = dst, .sport = sport, .dport = dport };

	s.flags = flags;
	s.payload = 21;
	return s;
}

/* It must be let in again by lo, with these ends, and nothing else changed. Returns the source's port. */
static uint16_t expect_hairpin(const char *what, struct bed *b, enum at at, const struct spec *s,
			       uint32_t src, uint32_t dst, uint16_t dport)
{
	static const uint8_t lo_addr[6];
	struct frame in, like;
	struct spec want = *s;
	const char *wrong;
	struct view v;
	struct run r;

	frame_build(&in, s);
	run_at(b, at, &in, &r);
	if (r.verdict != TC_ACT_REDIRECT) {
		frame_print(stderr, "in", &in);
		die("%s: verdict %d, %s", what, r.verdict, reason_name(r.reason));
	}
	if (memcmp(r.out.b, lo_addr, sizeof(lo_addr)))
		die("%s: not for lo", what);
	/* As if it had come with the new destination, and had then been given its source; the error of its checksum is the same. */
	want.dst = dst;
	want.dport = dport;
	frame_build(&like, &want);
	memset(like.b, 0, sizeof(lo_addr));
	wrong = frame_rewritten(&like, &r.out, true, &v);
	if (wrong) {
		frame_print(stderr, "in", &in);
		frame_print(stderr, "out", &r.out);
		die("%s: %s", what, wrong);
	}
	if (v.src != src)
		die("%s: comes from %08x", what, v.src);
	return v.sport;
}

static void expect_alone(const char *what, struct bed *b, enum at at, const struct spec *s)
{
	struct frame in;
	struct run r;

	frame_build(&in, s);
	run_at(b, at, &in, &r);
	expect_unchanged(what, &in, &r);
}

static void expect_drop(const char *what, struct bed *b, const struct spec *s, int reason)
{
	struct frame in;
	struct run r;

	frame_build(&in, s);
	run_at(b, INNER, &in, &r);
	expect_reason(what, &in, &r, reason);
}

/* One client has an outer end; the other sends there, and is answered. */
static void test_client_to_client(void **state)
{
	static const struct {
		const char *name;
		uint8_t proto;
		uint16_t csum_error;
		bool no_csum;
	} rows[] = {
		{ "tcp", P_TCP, 0, false },
		{ "tcp, wrong checksum", P_TCP, 0x1234, false },
		{ "udp", P_UDP, 0, false },
		{ "udp, wrong checksum", P_UDP, 0xff, false },
		{ "udp, no checksum", P_UDP, 0, true },
	};
	struct bed b;
	size_t i;

	(void)state;
	scene(&b, pool_hairpin(SLUICE_EIM, SLUICE_FILTER_NONE));
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint16_t a_port = (uint16_t)(4000 + i), b_port = (uint16_t)(5000 + i), port;
		struct conn c = conn_of(rows[i].proto, CLIENT2, b_port, REMOTE, 80);
		struct spec s;

		conn_sends(&b, rows[i].name, &c, T_SYN);
		s = udp_or_tcp(rows[i].proto, CLIENT, a_port, SHARED, c.port, T_SYN);
		s.csum_error = rows[i].csum_error;
		s.no_csum = rows[i].no_csum;
		port = expect_hairpin(rows[i].name, &b, INNER, &s, SHARED, CLIENT2, b_port);
		if (port < FIRST || port > LAST || port == c.port)
			die("%s: comes from port %u", rows[i].name, port);
		s = udp_or_tcp(rows[i].proto, CLIENT2, b_port, SHARED, port, T_SYN | T_ACK);
		s.csum_error = rows[i].csum_error;
		s.no_csum = rows[i].no_csum;
		assert_int_equal(
			expect_hairpin(rows[i].name, &b, INNER, &s, SHARED, CLIENT, a_port),
			c.port);
		/* And on: the same ends. */
		s = udp_or_tcp(rows[i].proto, CLIENT, a_port, SHARED, c.port, T_ACK);
		assert_int_equal(
			expect_hairpin(rows[i].name, &b, INNER, &s, SHARED, CLIENT2, b_port), port);
	}
	bed_close(&b);
}

/* The filtering is that of any remote end: an outer end is let in where any other would be. */
static void test_filtered(void **state)
{
	struct conn c = conn_of(P_UDP, CLIENT2, 5000, REMOTE, 80);
	struct spec s, back;
	uint16_t port;
	struct bed b;

	(void)state;
	scene(&b, pool_hairpin(SLUICE_EIM, SLUICE_FILTER_ADDRESS));
	conn_sends(&b, "mapping", &c, 0);
	s = udp_or_tcp(P_UDP, CLIENT, 4000, SHARED, c.port, 0);
	expect_drop("nobody has asked for it", &b, &s, SLUICE_DROP_hairpin);
	back = udp_or_tcp(P_UDP, SHARED, FIRST + 9, SHARED, c.port, 0);
	expect_alone("a socket's, that nobody has asked for", &b, LO, &back);
	/* Both send, as who punches holes does: the one who is first is dropped, and is let in when the other has sent. */
	{
		struct conn a = conn_of(P_UDP, CLIENT, 4000, REMOTE2, 80);

		conn_sends(&b, "the other's mapping", &a, 0);
		port = a.port;
	}
	back = udp_or_tcp(P_UDP, CLIENT2, 5000, SHARED, port, 0);
	assert_int_equal(expect_hairpin("back", &b, INNER, &back, SHARED, CLIENT, 4000), c.port);
	assert_int_equal(expect_hairpin("now", &b, INNER, &s, SHARED, CLIENT2, 5000), port);
	bed_close(&b);

	/* Overload: an outer end is for its remote end alone. */
	scene(&b, pool_hairpin(SLUICE_OVERLOAD, SLUICE_FILTER_PORT));
	conn_sends(&b, "flow", &c, 0);
	expect_drop("an overload flow", &b, &s, SLUICE_DROP_hairpin);
	s.dport = FIRST + 1000;
	expect_drop("nobody's port", &b, &s, SLUICE_DROP_hairpin);
	bed_close(&b);
}

/* What is left to the kernel, as it was. */
static void test_left_alone(void **state)
{
	struct conn c = conn_of(P_UDP, CLIENT2, 5000, REMOTE, 80);
	struct sluice_pool off = *pool_hairpin(SLUICE_EIM, SLUICE_FILTER_NONE);
	struct sluice_conf conf;
	struct spec s, echo;
	struct bed b;

	(void)state;
	scene(&b, &off);
	conn_sends(&b, "mapping", &c, 0);
	s = udp_or_tcp(P_UDP, CLIENT, 4000, REMOTE, 80, 0);
	expect_alone("to the world", &b, INNER, &s);
	s = udp_or_tcp(P_UDP, CLIENT, 4000, CLIENT2, 5000, 0);
	expect_alone("to the other's inner end", &b, INNER, &s);
	s = udp_or_tcp(P_UDP, OTHER, 4000, SHARED, c.port, 0);
	expect_alone("of nobody's client", &b, INNER, &s);
	s = udp_or_tcp(P_UDP, CLIENT, 4000, SHARED, FIRST - 1, 0);
	expect_alone("to another machine's port", &b, INNER, &s);
	echo = (struct spec){
		.proto = P_ICMP, .src = CLIENT, .dst = SHARED, .sport = 9, .type = 8
	};
	expect_alone("an echo request", &b, INNER, &echo);
	s = udp_or_tcp(P_UDP, CLIENT, 4000, SHARED, c.port, 0);
	map_get_row(b.nat->maps.conf, 0, &conf);
	conf.hairpin = 0;
	map_put_row(b.nat->maps.conf, 0, &conf);
	expect_alone("no pool has it", &b, INNER, &s);
	conf.hairpin = 1;
	map_put_row(b.nat->maps.conf, 0, &conf);
	map_get_row(b.nat->maps.pools, 0, &off);
	off.hairpin = 0;
	map_put_row(b.nat->maps.pools, 0, &off);
	expect_alone("the pool does not have it", &b, INNER, &s);
	bed_close(&b);
}

/* A socket's answer to a client that has come by its shared address, which goes by lo. */
static void test_socket_answers(void **state)
{
	static const uint8_t protos[] = { P_TCP, P_UDP };
	struct bed b;
	size_t i;

	(void)state;
	scene(&b, pool_hairpin(SLUICE_OVERLOAD, SLUICE_FILTER_PORT));
	for (i = 0; i < 2; i++) {
		/* The flow is made by the client's packet, whether anybody is there to get it or not. */
		struct spec s = udp_or_tcp(protos[i], CLIENT, 4000, SHARED, FIRST + 7, T_SYN);
		struct conn c = conn_of(protos[i], CLIENT, 4000, SHARED, FIRST + 7);

		expect_drop("no socket", &b, &s, SLUICE_DROP_hairpin);
		conn_sends(&b, "same flow", &c, T_SYN);
		s = udp_or_tcp(protos[i], SHARED, FIRST + 7, SHARED, c.port, T_SYN | T_ACK);
		assert_int_equal(expect_hairpin("answer", &b, LO, &s, SHARED, CLIENT, 4000),
				 FIRST + 7);
		s.sport++;
		expect_alone("of another port", &b, LO, &s);
	}
	bed_close(&b);
}

/* An error about what came that way goes back that way; the quote is what was sent. */
static void test_error(void **state)
{
	struct conn c = conn_of(P_UDP, CLIENT2, 5000, REMOTE, 80);
	struct spec s,
		err = { .proto = P_ICMP, .src = CLIENT2, .dst = SHARED, .type = 3, .code = 3 };
	struct frame in, quoted;
	struct view v, q;
	struct run r;
	struct bed b;
	uint16_t port;

	(void)state;
	scene(&b, pool_hairpin(SLUICE_EIM, SLUICE_FILTER_NONE));
	conn_sends(&b, "mapping", &c, 0);
	s = udp_or_tcp(P_UDP, CLIENT, 4000, SHARED, c.port, 0);
	port = expect_hairpin("udp", &b, INNER, &s, SHARED, CLIENT2, 5000);
	s = udp_or_tcp(P_UDP, SHARED, port, CLIENT2, 5000, 0);
	frame_build(&quoted, &s);
	err.err = &quoted;
	frame_build(&in, &err);
	run_at(&b, INNER, &in, &r);
	if (r.verdict != TC_ACT_REDIRECT)
		die("error: verdict %d, %s", r.verdict, reason_name(r.reason));
	frame_view(&r.out, &v);
	assert_int_equal(v.src, SHARED);
	assert_int_equal(v.dst, CLIENT);
	assert_true(v.l3_good && v.l4_good);
	memcpy(quoted.b, r.out.b, ETH_LEN);
	memcpy(quoted.b + ETH_LEN, r.out.b + v.l4 + 8, quoted.len - ETH_LEN);
	frame_view(&quoted, &q);
	assert_true(q.ip4 && q.l3_good);
	assert_int_equal(q.src, CLIENT);
	assert_int_equal(q.sport, 4000);
	assert_int_equal(q.dst, SHARED);
	assert_int_equal(q.dport, c.port);
	/* About what nobody has sent, and what nobody has got. */
	s.sport = 1;
	frame_build(&quoted, &s);
	frame_build(&in, &err);
	run_at(&b, INNER, &in, &r);
	expect_reason("about nothing", &in, &r, SLUICE_DROP_hairpin);
	s.dport++;
	frame_build(&quoted, &s);
	frame_build(&in, &err);
	run_at(&b, INNER, &in, &r);
	expect_reason("to nobody", &in, &r, SLUICE_DROP_icmp_error);
	bed_close(&b);
}

/* An interface without link-layer header: lo gets one. As in test_links.c, 8.0.x.y stands for the type of the packet. */
static void test_bare(void **state)
{
	struct conn c = conn_of(P_UDP, CLIENT2, 5000, REMOTE, 80);
	uint32_t one = 1, test_run_ifindex = 1;
	struct sluice_conf conf;
	struct frame in, bare;
	struct spec s;
	struct view v;
	struct run r;
	struct bed b;

	(void)state;
	scene(&b, pool_hairpin(SLUICE_EIM, SLUICE_FILTER_NONE));
	bed_client(&b, IP_8_CLIENT, 32, 0);
	conn_sends(&b, "mapping", &c, 0);
	s = udp_or_tcp(P_UDP, IP_8_CLIENT, 4000, SHARED, c.port, 0);
	frame_build(&in, &s);
	bare.len = in.len - ETH_LEN;
	memcpy(bare.b, in.b + ETH_LEN, bare.len);
	map_get_row(b.nat->maps.conf, 0, &conf);
	conf.l3_links = 1;
	map_put_row(b.nat->maps.conf, 0, &conf);
	map_put(b.nat->maps.l3_links, &test_run_ifindex, &one);
	run_at(&b, INNER, &bare, &r);
	if (r.verdict != TC_ACT_REDIRECT)
		die("verdict %d, %s", r.verdict, reason_name(r.reason));
	assert_int_equal(r.out.len, in.len);
	frame_view(&r.out, &v);
	assert_int_equal(v.src, SHARED);
	assert_int_equal(v.dst, CLIENT2);
	assert_int_equal(v.dport, 5000);
	assert_true(v.l3_good && v.l4_good);
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_client_to_client),
		cmocka_unit_test(test_filtered),
		cmocka_unit_test(test_left_alone),
		cmocka_unit_test(test_socket_answers),
		cmocka_unit_test(test_error),
		cmocka_unit_test(test_bare),
	};

	return cmocka_run_group_tests_name("hairpin", tests, NULL, NULL);
}
