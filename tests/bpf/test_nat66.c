/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Translation of IPv6 (NAT66): what comes out is what went in but for address, port and checksum, both ways, and the rules are those of IPv4. Addresses are 2001:db8:: and an
 * IPv4 address (packet.h).
 */
#include "flows.h"

#define FLOWS  8192
#define E_NEXT (ETH_LEN + 6)
#define E_LEN  (ETH_LEN + 4)
#define E_SRC  (ETH_LEN + 8)
#define E_DST  (ETH_LEN + 24)
#define E_L4   (ETH_LEN + 40)

/* What frame_build6() makes of an address. */
static union sluice_addr addr6_of(uint32_t ip)
{
	union sluice_addr a = { .w = { htonl(0x20010db8), 0, 0, htonl(ip) } };

	return a;
}

/* What a frame of IPv6 has, read from the RFCs with plain loops. */
struct view6 {
	uint8_t proto;
	uint32_t l4, end;
	uint32_t port; /* offset of the port (or id) at the end that is asked for */
	uint32_t sum;  /* offset of the checksum */
	uint32_t resid;
	bool none; /* UDP without checksum */
};

static struct view6 view6_of(const struct frame *f, bool source)
{
	struct view6 v = { .proto = f->b[E_NEXT], .l4 = E_L4 };
	uint32_t n;

	v.end = E_L4 + get16(f->b + E_LEN);
	while (v.proto == 0 || v.proto == P_DSTOPTS) {
		v.proto = f->b[v.l4];
		v.l4 += 8 + f->b[v.l4 + 1] * 8u;
	}
	n = v.end - v.l4;
	v.sum = v.l4 + (v.proto == P_TCP ? 16 : v.proto == P_UDP ? 6 : 2);
	v.port = v.l4 + (v.proto == P_ICMP6 ? 4 : source ? 0 : 2);
	v.none = v.proto == P_UDP && !get16(f->b + v.sum);
	v.resid = words_fold(words_sum(f->b + v.l4, n,
				       words_sum(f->b + E_SRC, 32, (uint64_t)n + v.proto))) %
		  0xffff;
	return v;
}

/* Builds a frame with a right checksum, but for what the spec adds to it; ext: so many extension headers of 16 bytes before the transport header. */
static void build6(struct frame *f, const struct spec *s, uint32_t ext)
{
	struct view6 v;
	uint32_t i;
	uint16_t sum;

	frame_build6(f, s, 0);
	for (i = 0; i < ext; i++) {
		memmove(f->b + E_L4 + 16, f->b + E_L4, f->len - E_L4);
		memset(f->b + E_L4, 0, 16);
		f->b[E_L4] = f->b[E_NEXT];
		f->b[E_L4 + 1] = 1;
		f->b[E_L4 + 2] = 1; /* PadN */
		f->b[E_L4 + 3] = 12;
		f->b[E_NEXT] = i == ext - 1 ? 0 : P_DSTOPTS;
		f->len += 16;
		put16(f->b + E_LEN, (uint16_t)(f->len - E_L4));
	}
	v = view6_of(f, true);
	if (s->no_csum) {
		put16(f->b + v.sum, 0);
		return;
	}
	put16(f->b + v.sum, 0);
	v = view6_of(f, true);
	sum = (uint16_t)~v.resid;
	put16(f->b + v.sum, words_fold((uint64_t)(sum ? sum : 0xffff) + s->csum_error));
}

static uint32_t ip6_at(const struct frame *f, uint32_t at, const char *what)
{
	if (get32(f->b + at) != 0x20010db8 || get32(f->b + at + 4) || get32(f->b + at + 8))
		die("%s: not one of our addresses", what);
	return get32(f->b + at + 12);
}

/* It passed, changed at one end only, and its checksum is as right or wrong as it was. *ret_ip, *ret_port: what that end is now. */
static void expect_rewritten6(const char *what, const struct frame *in, const struct run *r,
			      bool source, uint32_t *ret_ip, uint16_t *ret_port)
{
	struct view6 a = view6_of(in, source), b;
	struct frame want = *in;
	uint32_t at = source ? E_SRC : E_DST;

	if (r->verdict != VERDICT_PASS) {
		frame_print(stderr, "in", in);
		die("%s: dropped as %s, should be translated", what, reason_name(r->reason));
	}
	b = view6_of(&r->out, source);
	memcpy(want.b + at, r->out.b + at, 16);
	memcpy(want.b + a.port, r->out.b + a.port, 2);
	memcpy(want.b + a.sum, r->out.b + a.sum, 2);
	if (!frame_equal(&want, &r->out) || a.none != b.none || (!a.none && a.resid != b.resid)) {
		frame_print(stderr, "in", in);
		frame_print(stderr, "out", &r->out);
		die("%s: %s", what,
		    a.none != b.none     ? "a checksum came or went"
		    : a.resid != b.resid ? "the checksum's error changed"
					 : "bytes changed that translation has no business with");
	}
	*ret_ip = ip6_at(&r->out, at, what);
	*ret_port = get16(r->out.b + a.port);
}

static void expect(struct bed *b, const char *what, enum hook hook, uint32_t came_by,
		   const struct spec *s, int reason)
{
	struct frame in;
	struct run r;

	build6(&in, s, 0);
	bed_run(b, hook, came_by, &in, &r);
	if (reason == NO_REASON)
		expect_unchanged(what, &in, &r);
	else
		expect_reason(what, &in, &r, reason);
}

static uint32_t scene(struct bed *b, struct sluice_pool pool)
{
	struct sluice_lpm_key net = { .prefixlen = SLUICE_LPM_POOL_BITS + 112 };
	uint32_t zero = 0, one = 1;

	bed_open(b, FLOWS);
	bed_pool(b, 0, pool);
	bed_addr_any(b, 0, addr6_of(SHARED), 11);
	net.addr = addr6_of(IP(10, 1, 0, 0));
	map_put(b->nat->maps.clients, &net, &zero);
	net.addr = addr6_of(IP(192, 0, 2, 0));
	net.prefixlen += 8;
	map_put(b->nat->maps.no_nat, &net, &one);
	return bed_slice_any(b, addr6_of(SHARED), FIRST, SLUICE_NEVER);
}

/* A flow as its client sees it. */
struct conn6 {
	uint8_t proto;
	uint32_t src, dst;
	uint16_t sport, dport;
	uint16_t port; /* outer */
	uint32_t ext;
	uint16_t csum_error;
	bool no_csum;
};

static struct conn6 conn6_of(uint8_t proto, uint32_t src, uint16_t sport, uint32_t dst,
			     uint16_t dport)
{
	return (struct conn6){
		.proto = proto, .src = src, .dst = dst, .sport = sport, .dport = dport
	};
}

static struct spec spec_out(const struct conn6 *c, uint8_t flags)
{
	return (struct spec){ .proto = c->proto,
			      .src = c->src,
			      .dst = c->dst,
			      .sport = c->sport,
			      .dport = c->dport,
			      .flags = flags,
			      .type = 128,
			      .payload = 13,
			      .csum_error = c->csum_error,
			      .no_csum = c->no_csum };
}

static struct spec spec_in(const struct conn6 *c, uint8_t flags)
{
	return (struct spec){ .proto = c->proto,
			      .src = c->dst,
			      .dst = SHARED,
			      .sport = c->proto == P_ICMP6 ? c->port : c->dport,
			      .dport = c->port,
			      .flags = flags,
			      .type = 129,
			      .payload = 10,
			      .csum_error = c->csum_error,
			      .no_csum = c->no_csum };
}

static void sends(struct bed *b, const char *what, struct conn6 *c, uint8_t flags)
{
	struct spec s = spec_out(c, flags);
	struct frame in;
	struct run r;
	uint32_t ip;

	build6(&in, &s, c->ext);
	bed_run(b, EGRESS, FORWARDED, &in, &r);
	expect_rewritten6(what, &in, &r, true, &ip, &c->port);
	if (ip != SHARED || c->port < FIRST || c->port > LAST)
		die("%s: came out as %08x:%u", what, ip, c->port);
}

static void sends_same(struct bed *b, const char *what, const struct conn6 *c, uint8_t flags)
{
	struct conn6 again = *c;

	sends(b, what, &again, flags);
	if (again.port != c->port)
		die("%s: moved from port %u to %u", what, c->port, again.port);
}

static void answers(struct bed *b, const char *what, const struct conn6 *c, uint8_t flags)
{
	struct spec s = spec_in(c, flags);
	struct frame in;
	struct run r;
	uint32_t ip;
	uint16_t port;

	build6(&in, &s, c->ext);
	bed_run(b, INGRESS, FORWARDED, &in, &r);
	expect_rewritten6(what, &in, &r, false, &ip, &port);
	if (ip != c->src || port != c->sport)
		die("%s: restored to %08x:%u", what, ip, port);
}

static void sends_dropped(struct bed *b, const char *what, const struct conn6 *c, uint8_t flags,
			  int reason)
{
	struct spec s = spec_out(c, flags);

	expect(b, what, EGRESS, FORWARDED, &s, reason);
}

static void answers_dropped(struct bed *b, const char *what, const struct conn6 *c, uint8_t flags,
			    int reason)
{
	struct spec s = spec_in(c, flags);

	expect(b, what, INGRESS, FORWARDED, &s, reason);
}

static const uint8_t protos[] = { P_TCP, P_UDP, P_ICMP6 };

static const char *proto_name(uint8_t proto)
{
	return proto == P_TCP ? "tcp" : proto == P_UDP ? "udp" : "icmp6";
}

static void test_shapes(void **state)
{
	static const uint16_t errors[] = { 0, 1, 0x8000, 0xfffe };
	enum sluice_mapping m;
	uint32_t ext, i, k, n = 0;
	struct conn6 c;
	struct bed b;

	(void)state;
	for (m = SLUICE_OVERLOAD; m <= SLUICE_EIM; m++) {
		scene(&b, pool_all(m));
		for (k = 0; k < sizeof(protos); k++) {
			for (ext = 0; ext <= 4; ext++) {
				for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
					c = conn6_of(protos[k], CLIENT, (uint16_t)(1000 + n++),
						     REMOTE, 80);
					c.ext = ext;
					c.csum_error = errors[i];
					sends(&b, proto_name(protos[k]), &c, T_SYN);
					answers(&b, proto_name(protos[k]), &c, T_SYN | T_ACK);
					sends_same(&b, proto_name(protos[k]), &c, T_ACK);
				}
			}
		}
		c = conn6_of(P_UDP, CLIENT, (uint16_t)(1000 + n++), REMOTE, 80);
		c.no_csum = true;
		sends(&b, "udp without checksum", &c, 0);
		answers(&b, "udp without checksum", &c, 0);
		bed_close(&b);
	}
}

/* A UDP checksum that comes out as zero is written as 0xffff: zero says that there is none. */
static void test_checksum_never_zero(void **state)
{
	struct conn6 c = conn6_of(P_UDP, CLIENT, 1000, REMOTE, 80);
	struct spec s;
	struct frame in;
	struct view6 v;
	struct run r;
	struct bed b;

	(void)state;
	scene(&b, pool_all(SLUICE_EIM));
	sends(&b, "first", &c, 0);
	s = spec_in(&c, 0);
	build6(&in, &s, 0);
	bed_run(&b, INGRESS, FORWARDED, &in, &r);
	v = view6_of(&r.out, false);
	/* Make the answer's payload such that its sum, with the client's address, is zero. */
	put16(in.b + v.l4 + 8,
	      words_fold((uint64_t)get16(in.b + v.l4 + 8) + get16(r.out.b + v.sum)));
	put16(in.b + v.sum, 0);
	put16(in.b + v.sum, (uint16_t)~view6_of(&in, false).resid);
	assert_int_equal(view6_of(&in, false).resid, 0);
	bed_run(&b, INGRESS, FORWARDED, &in, &r);
	assert_int_equal(r.verdict, VERDICT_PASS);
	assert_int_equal(get16(r.out.b + v.sum), 0xffff);
	assert_int_equal(view6_of(&r.out, false).resid, 0);
	bed_close(&b);
}

static void test_mappings(void **state)
{
	struct conn6 a, c;
	struct bed b;
	uint32_t k;

	(void)state;
	/* Endpoint-independent: one port for all remote ends; in comes who was sent to. */
	scene(&b, pool_with(SLUICE_EIM, SLUICE_FILTER_ADDRESS));
	for (k = 0; k < sizeof(protos); k++) {
		a = conn6_of(protos[k], CLIENT, 1000, REMOTE, 80);
		sends(&b, proto_name(protos[k]), &a, T_SYN);
		c = a;
		c.dst = REMOTE2;
		answers_dropped(&b, "not sent to", &c, T_SYN, SLUICE_DROP_filtered);
		sends_same(&b, "to another", &c, T_SYN);
		answers(&b, "sent to", &c, T_SYN | T_ACK);
		c = conn6_of(protos[k], CLIENT2, 1000, REMOTE, 80);
		sends(&b, "another client", &c, T_SYN);
		assert_int_not_equal(c.port, a.port);
	}
	bed_close(&b);

	/* Overload: as many flows to each remote end as there are ports, exactly, each told from the others. */
	scene(&b, pool_all(SLUICE_OVERLOAD));
	for (k = 0; k < 2 * 2048; k++) {
		a = conn6_of(P_UDP, CLIENT, (uint16_t)(1000 + k % 2048), REMOTE + k / 2048, 80);
		sends(&b, "overload", &a, 0);
		answers(&b, "overload", &a, 0);
	}
	assert_int_equal(expect_counts(&b, "overload"), 2 * 2048);
	a = conn6_of(P_UDP, CLIENT, 5000, REMOTE, 80);
	sends_dropped(&b, "one too many", &a, 0, SLUICE_DROP_no_port);
	a.dst = REMOTE + 2;
	sends(&b, "elsewhere", &a, 0);
	bed_close(&b);
}

static void test_left_alone(void **state)
{
	static const struct {
		const char *name;
		struct spec s;
		int want;
	} rows[] = {
		{ "nobody's client",
		  { .proto = P_UDP, .src = OTHER, .dst = REMOTE, .sport = 9 },
		  NO_REASON },
		{ "no-nat",
		  { .proto = P_UDP, .src = CLIENT, .dst = NO_NAT, .sport = 9 },
		  NO_REASON },
		{ "GRE",
		  { .proto = 47, .src = CLIENT, .dst = REMOTE, .payload = 20 },
		  SLUICE_DROP_proto },
		{ "ICMP of IPv4",
		  { .proto = P_ICMP, .src = CLIENT, .dst = REMOTE, .type = 8 },
		  SLUICE_DROP_proto },
		{ "echo reply",
		  { .proto = P_ICMP6, .src = CLIENT, .dst = REMOTE, .type = 129 },
		  SLUICE_DROP_icmp_type },
		{ "listener report",
		  { .proto = P_ICMP6, .src = CLIENT, .dst = REMOTE, .type = 143 },
		  SLUICE_DROP_icmp_type },
		{ "in the middle",
		  { .proto = P_TCP, .src = CLIENT, .dst = REMOTE, .sport = 9, .flags = T_ACK },
		  SLUICE_DROP_no_flow },
		{ "spoofed",
		  { .proto = P_UDP, .src = SHARED, .dst = REMOTE, .sport = 9 },
		  SLUICE_DROP_spoof },
	};
	struct conn6 c;
	struct bed b;
	size_t i;

	(void)state;
	scene(&b, pool_all(SLUICE_OVERLOAD));
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct spec s = rows[i].s;

		s.dport = s.proto == P_ICMP6 ? 0 : 80;
		expect(&b, rows[i].name, EGRESS, FORWARDED, &s, rows[i].want);
	}
	/* Each family by its own slices. */
	c = conn6_of(P_UDP, CLIENT, 1000, REMOTE, 80);
	sends(&b, "IPv6", &c, 0);
	c.port++;
	answers_dropped(&b, "nobody's port", &c, 0, SLUICE_DROP_unsolicited);
	c.port = FIRST - 1;
	answers_dropped(&b, "nobody's slice", &c, 0, SLUICE_DROP_foreign);
	bed_client(&b, IP(10, 1, 0, 0), 16, 0);
	{
		struct conn v4 = conn_of(P_UDP, CLIENT, 1000, REMOTE, 80);

		conn_sends_dropped(&b, "IPv4 by an IPv6 slice", &v4, 0, SLUICE_DROP_no_slice);
	}
	bed_close(&b);
}

static void test_ends(void **state)
{
	enum sluice_mapping m;
	struct conn6 c[sizeof(protos)];
	struct bed b;
	uint32_t k;

	(void)state;
	need_uptime(400);
	for (m = SLUICE_OVERLOAD; m <= SLUICE_EIM; m++) {
		scene(&b, pool_all(m));
		for (k = 0; k < sizeof(protos); k++) {
			c[k] = conn6_of(protos[k], CLIENT, 1000, REMOTE, 80);
			sends(&b, "begins", &c[k], T_SYN);
		}
		bed_age(&b, 50);
		assert_int_equal(bed_sweep(&b).reclaimed, 0);
		for (k = 0; k < sizeof(protos); k++)
			answers(&b, "alive", &c[k], T_SYN | T_ACK);
		bed_age(&b, 70);
		/* TCP was answered 70 s ago, and opening lasts 60. */
		assert_true(bed_sweep(&b).reclaimed >= sizeof(protos));
		assert_int_equal(flows_count(b.nat->maps.rev), 0);
		assert_int_equal(flows_count(b.nat->maps.fwd), 0);
		expect_counts(&b, "swept");
		for (k = 0; k < sizeof(protos); k++)
			answers_dropped(&b, "over", &c[k], T_ACK, SLUICE_DROP_unsolicited);
		bed_close(&b);
	}
}

/* A socket at the shared address sends. True: with its own port. *ret_port: the port that its packet left with. */
static bool socket_sends(struct bed *b, const char *what, uint8_t proto, uint16_t port,
			 uint32_t dst, uint16_t *ret_port)
{
	struct spec s = { .proto = proto,
			  .src = SHARED,
			  .dst = dst,
			  .sport = port,
			  .dport = proto == P_ICMP6 ? 0 : 80,
			  .type = 128,
			  .flags = T_SYN,
			  .payload = 4 };
	struct frame in;
	struct run r;
	uint32_t ip;

	build6(&in, &s, 0);
	bed_run(b, EGRESS, MADE_HERE, &in, &r);
	expect_rewritten6(what, &in, &r, true, &ip, ret_port);
	if (ip != SHARED)
		die("%s: left with another address", what);
	return *ret_port == port;
}

/* Sockets and clients never have one outer tuple. */
static void test_arbiter(void **state)
{
	static const uint16_t own = FIRST + 77;
	enum sluice_mapping m;
	struct conn6 c;
	struct bed b;
	uint32_t k, i, hits;
	uint16_t port;

	(void)state;
	for (m = SLUICE_OVERLOAD; m <= SLUICE_EIM; m++) {
		for (k = 0; k < sizeof(protos); k++) {
			const char *name = proto_name(protos[k]);

			scene(&b, pool_all(m));
			/* The socket first: NAT keeps off its tuple, though it fills all others. */
			assert_true(socket_sends(&b, name, protos[k], own, REMOTE, &port));
			for (i = 0; i < 2047; i++) {
				c = conn6_of(protos[k], CLIENT, (uint16_t)(1000 + i), REMOTE, 80);
				sends(&b, name, &c, T_SYN);
				if (c.port == own)
					die("%s: NAT took the socket's port", name);
			}
			c = conn6_of(protos[k], CLIENT, 5000, REMOTE, 80);
			sends_dropped(&b, name, &c, T_SYN, SLUICE_DROP_no_port);
			assert_true(socket_sends(&b, name, protos[k], own, REMOTE, &port));
			bed_close(&b);

			/* NAT first: the socket's packets go by another port, and the answers come back to it. */
			scene(&b, pool_all(m));
			c = conn6_of(protos[k], CLIENT, 1000, REMOTE, 80);
			sends(&b, name, &c, T_SYN);
			assert_false(socket_sends(&b, name, protos[k], c.port, REMOTE, &port));
			assert_int_equal(bed_stats(&b, 0).resolved, 1);
			hits = c.port;
			c.src = SHARED;
			c.sport = (uint16_t)hits;
			c.port = port;
			answers(&b, name, &c, T_SYN | T_ACK);
			bed_close(&b);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shapes),   cmocka_unit_test(test_checksum_never_zero),
		cmocka_unit_test(test_mappings), cmocka_unit_test(test_left_alone),
		cmocka_unit_test(test_ends),     cmocka_unit_test(test_arbiter),
	};

	return cmocka_run_group_tests_name("nat66", tests, NULL, NULL);
}
