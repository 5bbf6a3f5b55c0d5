/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hostile input: 100,000 packets, valid ones, damaged ones and noise, each through both programs, as forwarded and as made
 * here, on a machine with a pool and on one with none. model.h says of each what may come of it.
 *   SLUICE_SEED=N     other packets (the seed is printed)
 *   SLUICE_PACKETS=N  more or fewer of them
 */
#include "flows.h"
#include "model.h"

static uint64_t rnd_state;

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t rnd64(void)
{
	uint64_t z = rnd_state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

static uint32_t rnd(uint32_t n)
{
	return (uint32_t)(rnd64() % n);
}

/* Ends that recent packets came out with, so that some answers are right. */
static struct conn recent[512];
static uint32_t nrecent;

static uint16_t some_port(void)
{
	static const uint16_t ports[] = { 53,    80,    443,   123,   1,     0,
					  65535, 40959, 40960, 43007, 43008, 2047 };

	switch (rnd(4)) {
	case 0:
		return ports[rnd(sizeof(ports) / sizeof(ports[0]))];
	case 1:
		return (uint16_t)rnd(65536);
	case 2:
		return (uint16_t)(40960 + rnd(2048));
	default:
		return (uint16_t)(1024 + rnd(6));
	}
}

static uint32_t some_ip(void)
{
	switch (rnd(10)) {
	case 0:
	case 1:
	case 2:
		return CLIENT + rnd(8);
	case 3:
	case 4:
	case 5:
		return REMOTE + rnd(6);
	case 6:
		return SHARED;
	case 7:
		return SHARED2;
	case 8:
		return rnd(2) ? NO_NAT : OTHER;
	default:
		return (uint32_t)rnd64();
	}
}

static uint8_t some_flags(void)
{
	static const uint8_t flags[] = {
		T_SYN,         T_SYN,         T_SYN | T_ACK, T_ACK,
		T_ACK | T_PSH, T_FIN | T_ACK, T_RST,         T_RST | T_ACK
	};

	return rnd(8) ? flags[rnd(sizeof(flags))] : (uint8_t)rnd(256);
}

static uint8_t some_proto(void)
{
	static const uint8_t odd[] = { 0, 2, 4, 41, 47, 50, 51, 58, 89, 132, 255 };
	static const uint8_t even[] = { P_TCP, P_UDP, P_UDP, P_ICMP };

	return rnd(12) ? even[rnd(sizeof(even))] : odd[rnd(sizeof(odd))];
}

static void some_spec(struct spec *s)
{
	static const uint16_t frags[] = { 0,   0x8000,      IP_MF,  1,
					  185, IP_MF | 185, 0x1fff, IP_DF | IP_MF };
	static const uint8_t types[] = { 8, 8, 8, 0, 0, 3, 11, 12, 4, 5, 13, 17, 30 };

	memset(s, 0, sizeof(*s));
	s->proto = some_proto();
	s->src = some_ip();
	s->dst = some_ip();
	s->sport = some_port();
	s->dport = some_port();
	if (rnd(3) == 0) { /* a client as it should be */
		s->src = CLIENT + rnd(8);
		s->dst = REMOTE + rnd(6);
		s->sport = (uint16_t)(1024 + rnd(6));
		s->dport = rnd(2) ? 80 : 443;
	} else if (nrecent && rnd(2)) { /* an answer, or a socket on a port that NAT has */
		struct conn *c = &recent[rnd(nrecent)];

		s->proto = c->proto;
		s->src = c->dst;
		s->dst = c->outer;
		s->sport = s->proto == P_ICMP ? c->port : c->dport;
		s->dport = c->port;
		s->type = 0;
		if (rnd(3) == 0) {
			s->src = c->outer;
			s->dst = c->dst;
			s->sport = c->port;
			s->dport = c->dport;
			s->type = 8;
		} else if (rnd(4) == 0) {
			s->sport = s->proto == P_ICMP ? s->sport : some_port();
			s->src = REMOTE + rnd(6);
		}
		s->flags = some_flags();
		s->payload = (uint16_t)rnd(100);
		return;
	}
	s->flags = some_flags();
	s->type = types[rnd(sizeof(types))];
	s->code = rnd(4) ? 0 : (uint8_t)rnd(256);
	s->ip_words = rnd(4) ? 0 : (uint8_t)rnd(11);
	s->tcp_words = (uint8_t)rnd(11);
	s->frag = rnd(8) ? 0 : frags[rnd(sizeof(frags) / sizeof(frags[0]))];
	s->payload = (uint16_t)(rnd(20) ? rnd(200) : rnd(1400));
	s->vlan = rnd(40) ? 0 : (uint16_t)(1 + rnd(4094));
	s->csum_error = rnd(10) ? 0 : (uint16_t)rnd(65536);
	s->no_csum = rnd(5) == 0;
}

/* A quoted packet for an ICMP error, cut somewhere. */
static void some_quote(struct frame *f)
{
	struct spec s;

	some_spec(&s);
	s.vlan = 0;
	frame_build(f, &s);
	f->len = ETH_LEN + rnd(f->len - ETH_LEN < 120 ? f->len - ETH_LEN + 1 : 120);
}

static void some_ip6(struct frame *f)
{
	static const uint8_t exts[] = { 0, 0, 43, P_FRAGMENT, 51, P_DSTOPTS, 135 };
	struct spec s;

	some_spec(&s);
	s.payload %= 1000;
	frame_build6(f, &s, exts[rnd(sizeof(exts))]);
}

static void some_noise(struct frame *f)
{
	static const uint16_t types[] = {
		E_IP4, E_IP4, E_IP4, E_IP6, E_ARP, E_VLAN, 0x8847, 0x0600
	};
	uint32_t i;

	memset(f, 0, sizeof(*f));
	f->len = ETH_LEN + rnd(200);
	for (i = 0; i < f->len; i++)
		f->b[i] = (uint8_t)rnd64();
	put16(f->b + 12,
	      rnd(10) ? types[rnd(sizeof(types) / sizeof(types[0]))] : (uint16_t)rnd64());
	if (rnd(2)) {
		f->b[ETH_LEN] = (uint8_t)(0x40 | rnd(16));
		put32(f->b + ETH_LEN + 12, some_ip());
		put32(f->b + ETH_LEN + 16, some_ip());
		f->b[ETH_LEN + 9] = some_proto();
		if (rnd(2))
			put16(f->b + ETH_LEN + 2, (uint16_t)(f->len - ETH_LEN));
	}
}

static void damage(struct frame *f)
{
	uint8_t *ip = f->b + ETH_LEN, *l4 = ip + (ip[0] & 15) * 4;
	uint32_t at = rnd(80);

	switch (rnd(14)) {
	case 0:
		ip[at] ^= (uint8_t)(1 << rnd(8));
		break;
	case 1:
		ip[at] = (uint8_t)rnd64();
		break;
	case 2:
		ip[0] = (uint8_t)(0x40 | rnd(16));
		break;
	case 3:
		ip[0] = (uint8_t)rnd64();
		break;
	case 4:
		put16(ip + 2, (uint16_t)rnd64());
		break;
	case 5:
		put16(ip + 2, (uint16_t)(get16(ip + 2) + rnd(64) - 32));
		break;
	case 6:
		put16(ip + 6, (uint16_t)rnd64());
		break;
	case 7:
		f->len = ETH_LEN + rnd(f->len - ETH_LEN + 1);
		break;
	case 8:
		f->len += rnd(60);
		break;
	case 9:
		l4[12] = (uint8_t)(rnd(16) << 4);
		break;
	case 10:
		put16(l4 + 4, (uint16_t)(rnd(2) ? rnd(65536) : get16(l4 + 4) + rnd(16) - 8));
		break;
	case 11:
		ip[9] = some_proto();
		break;
	case 12:
		put16(ip + 10, (uint16_t)rnd64());
		break;
	default:
		put16(l4 + (ip[9] == P_TCP ? 16 : ip[9] == P_UDP ? 6 : 2), (uint16_t)rnd64());
		break;
	}
}

static void some_frame(struct frame *f)
{
	struct frame quote;
	struct spec s;
	uint32_t n, before;

	switch (rnd(16)) {
	case 0:
		some_noise(f);
		return;
	case 1:
		some_ip6(f);
		break;
	default:
		some_spec(&s);
		if (s.proto == P_ICMP && s.type != 8 && s.type != 0 && rnd(4)) {
			some_quote(&quote);
			s.err = &quote;
		}
		frame_build(f, &s);
		break;
	}
	if (rnd(2))
		return;
	before = f->len;
	for (n = 1 + rnd(3); n; n--)
		damage(f);
	if (f->len > before) /* what was added is not all zero */
		for (n = before; n < f->len; n++)
			f->b[n] = (uint8_t)rnd64();
	if (rnd(2) && get16(f->b + 12) == E_IP4 && f->len >= ETH_LEN + 60)
		frame_ip_csum(f, ETH_LEN);
}

static uint64_t number_from_env(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s && *s ? strtoull(s, NULL, 0) : otherwise;
}

static void complain(const char *where, uint64_t n, const struct frame *in, const struct run *r,
		     const char *wrong)
{
	frame_print(stderr, "in", in);
	if (r->verdict == VERDICT_PASS)
		frame_print(stderr, "out", &r->out);
	die("packet %llu, %s: %s (%s)", (unsigned long long)n, where, wrong,
	    r->verdict == VERDICT_PASS ? "passed" : reason_name(r->reason));
}

struct coverage {
	uint32_t sent, not_taken;
	uint32_t out, in, resolved;
	uint32_t errors[3]; /* ICMP errors translated, by way */
	uint32_t drops[SLUICE_REASON_MAX];
};

static void remember(const struct frame *in, const struct run *r)
{
	struct view v, out;
	struct conn *c;

	frame_view(in, &v);
	frame_view(&r->out, &out);
	c = &recent[nrecent < 512 ? nrecent++ : rnd(512)];
	*c = conn_of(v.proto, v.src, v.sport, v.dst, v.dport);
	c->outer = out.src;
	c->port = out.sport;
}

static void hostile(struct sluice_pool p, uint64_t packets)
{
	static const struct {
		const char *name;
		enum hook hook;
		uint32_t came_by;
	} ways[] = { { "egress, forwarded", EGRESS, FORWARDED },
		     { "egress, made here", EGRESS, MADE_HERE },
		     { "ingress", INGRESS, FORWARDED } };
	static struct model m;
	uint64_t seed = number_from_env("SLUICE_SEED", 20240607), i;
	struct coverage cov = { 0 };
	struct bed b, bare;
	struct frame in;
	uint32_t rows[2], port, l4;
	const char *wrong;
	struct run r;
	struct view v;
	int k, err;

	memset(&m, 0, sizeof(m));
	m.slices[0] = (struct model_slice){ SHARED, FIRST, LAST };
	m.slices[1] = (struct model_slice){ SHARED2, 2048, 3071 };
	m.nslices = 2;
	m.client_net = IP(10, 1, 0, 0);
	m.client_mask = 0xffff0000;
	m.no_nat_net = IP(192, 0, 2, 0);
	m.no_nat_mask = 0xffffff00;
	m.eim[P_TCP] = p.mapping[SLUICE_TCP] == SLUICE_EIM;
	m.eim[P_UDP] = p.mapping[SLUICE_UDP] == SLUICE_EIM;
	m.eim[P_ICMP] = p.mapping[SLUICE_ICMP] == SLUICE_EIM;
	nrecent = 0;
	print_message("SLUICE_SEED=%llu SLUICE_PACKETS=%llu\n", (unsigned long long)seed,
		      (unsigned long long)packets);
	rnd_state = seed;
	/* No flow ends while this runs. */
	p.timers = (struct sluice_timers){ 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999 };
	rows[0] = bed_scene(&b, 65536, p);
	bed_addr(&b, 0, SHARED2, 10);
	rows[1] = bed_slice(&b, SHARED2, 2048, SLUICE_NEVER);
	m.leases = true;
	for (k = 0; k < 2; k++)
		for (port = m.slices[k].first; port <= m.slices[k].last; port++)
			for (l4 = SLUICE_TCP; l4 <= SLUICE_UDP; l4++)
				if (model_leased(&m, l4 == SLUICE_TCP ? P_TCP : P_UDP, port))
					bed_lease(&b, rows[k], l4, (uint16_t)port, port, 1000, 0);
	bed_open(&bare, 1024);
	for (i = 0; i < packets; i++) {
		some_frame(&in);
		for (k = 0; k < 3; k++) {
			err = bed_try(&bare, ways[k].hook, ways[k].came_by, &in, &r);
			if (err == -EINVAL && in.len < ETH_LEN + 40) {
				cov.not_taken++;
				break;
			}
			if (err)
				die("test run: %s", strerror(-err));
			wrong = model_unchanged(&in, &r);
			if (wrong)
				complain("without a pool", i, &in, &r, wrong);

			bed_run(&b, ways[k].hook, ways[k].came_by, &in, &r);
			wrong = k < 2 ? model_egress(&m, ways[k].came_by, &in, &r)
				      : model_ingress(&m, &in, &r);
			if (wrong)
				complain(ways[k].name, i, &in, &r, wrong);
			cov.sent++;
			if (r.verdict == VERDICT_DROP) {
				cov.drops[r.reason]++;
			} else if (!frame_equal(&in, &r.out)) {
				frame_view(&in, &v);
				if (model_error(&v)) {
					cov.errors[k]++;
					continue;
				}
				cov.out += k == 0;
				cov.resolved += k == 1;
				cov.in += k == 2;
				if (k == 0)
					remember(&in, &r);
			}
		}
	}
	for (k = 0; k < SLUICE_REASON_MAX; k++)
		assert_int_equal(bed_drops(&bare, (uint32_t)k).packets, 0);
	assert_int_equal(flows_count(bare.nat->maps.fwd) + flows_count(bare.nat->maps.rev), 0);
	print_message("%u runs; %u frames the kernel does not take; translated %u out, %u in, %u "
		      "of sockets\n",
		      cov.sent, cov.not_taken, cov.out, cov.in, cov.resolved);
	print_message("ICMP errors translated: %u of others, %u of this machine, %u in\n",
		      cov.errors[0], cov.errors[1], cov.errors[2]);
	for (k = 0; k < SLUICE_REASON_MAX; k++)
		print_message("  %-12s %u\n", reason_name(k), cov.drops[k]);

	/* The packets must have been worth it. */
	if (packets >= 100000) {
		static const int met[] = { SLUICE_DROP_escape,      SLUICE_DROP_spoof,
					   SLUICE_DROP_unsolicited, SLUICE_DROP_foreign,
					   SLUICE_DROP_filtered,    SLUICE_DROP_fragment,
					   SLUICE_DROP_malformed,   SLUICE_DROP_proto,
					   SLUICE_DROP_icmp_type,   SLUICE_DROP_no_flow };

		for (k = 0; k < (int)(sizeof(met) / sizeof(met[0])); k++)
			if (cov.drops[met[k]] < 100)
				die("too few packets met %s", reason_name(met[k]));
		assert_true(cov.out > 5000 && cov.in > 5000 && cov.resolved > 500);
		assert_true(cov.not_taken < packets / 10);
	}
	expect_counts(&b, "after all that");
	bed_close(&bare);
	bed_close(&b);
}

static void test_hostile(void **state)
{
	(void)state;
	hostile(pool_default(), number_from_env("SLUICE_PACKETS", 100000));
}

/* The same with every protocol mapped the other way. */
static void test_hostile_other_mappings(void **state)
{
	struct sluice_pool p = pool_default();

	(void)state;
	p.mapping[SLUICE_TCP] = SLUICE_EIM;
	p.filtering[SLUICE_TCP] = SLUICE_FILTER_ADDRESS;
	p.mapping[SLUICE_UDP] = p.mapping[SLUICE_ICMP] = SLUICE_OVERLOAD;
	hostile(p, number_from_env("SLUICE_PACKETS", 100000));
}

/*
 * IPv6 packets with v4-mapped addresses, which must not be on any wire, are not taken for the IPv4 packets whose addresses
 * they spell.
 */
static void test_mapped_ip6(void **state)
{
	static const enum hook hooks[] = { EGRESS, EGRESS, INGRESS };
	static const uint32_t came_by[] = { FORWARDED, MADE_HERE, FORWARDED };
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	struct conn c = conn_of(P_TCP, CLIENT, 1000, REMOTE, 80);
	struct spec s;
	struct frame in;
	struct run r;
	struct bed b;
	int i, k;

	(void)state;
	bed_scene(&b, 1024, pool_default());
	conn_opens(&b, "tcp", &c);
	for (i = 0; i < 3; i++) {
		for (k = 0; k < 4; k++) {
			s = i == 2 ? conn_in(&c, T_RST | T_ACK)
				   : conn_out(&c, k & 1 ? T_RST : T_SYN);
			if (i == 1) {
				s.src = SHARED;
				s.sport = k & 2 ? c.port : FIRST - 1;
			} else if (i == 0 && k & 2) {
				s.sport++;
			}
			frame_build6(&in, &s, 0);
			memcpy(in.b + ETH_LEN + 8, mapped, 12);
			memcpy(in.b + ETH_LEN + 24, mapped, 12);
			bed_run(&b, hooks[i], came_by[i], &in, &r);
			if (r.verdict == VERDICT_PASS)
				expect_unchanged("v4-mapped IPv6", &in, &r);
			else
				expect_reason("v4-mapped IPv6", &in, &r, SLUICE_DROP_malformed);
		}
	}
	assert_int_equal(flows_count(b.nat->maps.fwd), 1);
	assert_int_equal(flows_count(b.nat->maps.rev), 1);
	/* The connection was not reset by any of them: it still lives by the time of an open one. */
	bed_age(&b, now_s() > 300 ? 250 : 0);
	conn_answers(&b, "tcp", &c, T_ACK);
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_hostile_other_mappings),
		cmocka_unit_test(test_mapped_ip6),
	};

	return cmocka_run_group_tests_name("hostile", tests, NULL, NULL);
}
