/* SPDX-License-Identifier: BSD-2-Clause */
/* What lies below IP: VLAN tags that are still in the frame, and interfaces whose packets begin with the IP header. */
#include "flows.h"

#define SMALL_FLOWS 1024
#define E_QINQ      0x88a8

/*
 * A test run takes the first 14 bytes for an Ethernet header, and the type of the packet from there. Of a packet without one, that is the first half of the
 * source address: 8.0.x.y is IPv4's type.
 */
#define CLIENT_8 IP(8, 0, 1, 5)
#define REMOTE_8 IP(8, 0, 9, 9)
#define SHARED_8 IP(8, 0, 113, 7)

static const struct {
	const char *name;
	struct spec s;
} shapes[] = {
	{ "tcp", { .proto = P_TCP, .flags = T_SYN, .payload = 40 } },
	{ "tcp with options", { .proto = P_TCP, .flags = T_SYN, .tcp_words = 10 } },
	{ "udp", { .proto = P_UDP, .payload = 99 } },
	{ "udp without checksum", { .proto = P_UDP, .payload = 20, .no_csum = true } },
	{ "udp behind ip options", { .proto = P_UDP, .payload = 7, .ip_words = 10 } },
	{ "udp with a wrong checksum", { .proto = P_UDP, .payload = 9, .csum_error = 0x1234 } },
	{ "echo", { .proto = P_ICMP, .payload = 31 } },
};
#define N_SHAPES (sizeof(shapes) / sizeof(shapes[0]))

static void bed_scene_8(struct bed *b)
{
	uint32_t one = 1, test_run_ifindex = 1;
	struct sluice_conf conf;

	bed_open(b, SMALL_FLOWS);
	map_get_row(b->nat->maps.conf, 0, &conf);
	conf.l3_links = 1;
	map_put_row(b->nat->maps.conf, 0, &conf);
	map_put(b->nat->maps.l3_links, &test_run_ifindex, &one);
	bed_pool(b, 0, pool_default());
	bed_addr(b, 0, SHARED_8, 11);
	bed_client(b, IP(8, 0, 1, 0), 24, 0);
	bed_no_nat(b, NO_NAT, 32, 0);
	bed_slice(b, SHARED_8, FIRST, SLUICE_NEVER);
}

/* Runs the packet of a frame without its Ethernet header; *ret_out has the header again, for the reader. */
static int run_bare(struct bed *b, enum hook hook, uint32_t came_by, const struct frame *in,
		    struct frame *ret_out)
{
	struct __sk_buff ctx = { .ingress_ifindex = came_by };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in->b + ETH_LEN,
		    .data_size_in = in->len - ETH_LEN, .data_out = ret_out->b + ETH_LEN,
		    .data_size_out = sizeof(ret_out->b) - ETH_LEN, .ctx_in = &ctx,
		    .ctx_size_in = sizeof(ctx));
	memcpy(ret_out->b, in->b, ETH_LEN);
	if (bpf_prog_test_run_opts(hook_fd(b, hook), &opts))
		die("test run: %s", strerror(errno));
	ret_out->len = opts.data_size_out + ETH_LEN;
	return (int)opts.retval;
}

static void expect_bare(const char *what, struct bed *b, enum hook hook, const struct spec *s,
			struct view *ret)
{
	struct frame in, out;
	const char *wrong;

	frame_build(&in, s);
	if (run_bare(b, hook, FORWARDED, &in, &out) != VERDICT_PASS)
		die("%s: dropped", what);
	wrong = frame_rewritten(&in, &out, hook == EGRESS, ret);
	if (!wrong)
		return;
	frame_print(stderr, "in", &in);
	frame_print(stderr, "out", &out);
	die("%s: %s", what, wrong);
}

/* Without a header, packets are translated and restored as with one. */
static void test_bare(void **state)
{
	struct bed b;
	size_t i;

	(void)state;
	bed_scene_8(&b);
	for (i = 0; i < N_SHAPES; i++) {
		struct spec s = shapes[i].s;
		uint16_t sport = (uint16_t)(30000 + i), dport = s.proto == P_ICMP ? 0 : 443, outer;
		struct view v;

		s.src = CLIENT_8;
		s.dst = REMOTE_8;
		s.sport = sport;
		s.dport = dport;
		s.type = 8;
		expect_bare(shapes[i].name, &b, EGRESS, &s, &v);
		if (v.src != SHARED_8 || v.sport < FIRST || v.sport > LAST)
			die("%s: came out from %08x:%u", shapes[i].name, v.src, v.sport);
		outer = v.sport;
		s.src = REMOTE_8;
		s.dst = SHARED_8;
		s.sport = s.proto == P_ICMP ? outer : dport;
		s.dport = outer;
		s.type = 0;
		if (s.flags & T_SYN)
			s.flags |= T_ACK;
		expect_bare(shapes[i].name, &b, INGRESS, &s, &v);
		if (v.dst != CLIENT_8 || v.dport != sport)
			die("%s: came back to %08x:%u", shapes[i].name, v.dst, v.dport);
	}
	bed_close(&b);
}

/* What may not pass does not, and what is not ours is left alone. */
static void test_bare_guard(void **state)
{
	struct spec s = { .proto = P_UDP, .src = SHARED_8, .dst = REMOTE_8, .payload = 10 };
	struct frame in, out;
	struct bed b;

	(void)state;
	bed_scene_8(&b);
	s.sport = FIRST - 1;
	s.dport = 53;
	frame_build(&in, &s);
	assert_int_equal(run_bare(&b, EGRESS, MADE_HERE, &in, &out), VERDICT_DROP);
	assert_int_equal(bed_drops(&b, SLUICE_DROP_escape).packets, 1);
	assert_int_equal(run_bare(&b, EGRESS, FORWARDED, &in, &out), VERDICT_DROP);
	assert_int_equal(bed_drops(&b, SLUICE_DROP_spoof).packets, 1);
	s.src = REMOTE_8;
	s.dst = SHARED_8;
	frame_build(&in, &s);
	assert_int_equal(run_bare(&b, INGRESS, FORWARDED, &in, &out), VERDICT_DROP);
	assert_int_equal(bed_drops(&b, SLUICE_DROP_foreign).packets, 1);
	s.dport = FIRST;
	frame_build(&in, &s);
	assert_int_equal(run_bare(&b, INGRESS, FORWARDED, &in, &out), VERDICT_DROP);
	assert_int_equal(bed_drops(&b, SLUICE_DROP_unsolicited).packets, 1);
	s.src = CLIENT_8;
	s.dst = NO_NAT;
	frame_build(&in, &s);
	assert_int_equal(run_bare(&b, EGRESS, FORWARDED, &in, &out), VERDICT_PASS);
	assert_true(frame_equal(&in, &out));
	s.src = REMOTE_8;
	s.dst = CLIENT_8;
	frame_build(&in, &s);
	assert_int_equal(run_bare(&b, INGRESS, FORWARDED, &in, &out), VERDICT_PASS);
	assert_true(frame_equal(&in, &out));
	bed_close(&b);
}

/* A frame that has its tags in line, as devices that do not take them out have them: n of them, the outer one a service tag. */
static void frame_tag(struct frame *f, int n)
{
	int i;

	for (i = 0; i < n; i++) {
		memmove(f->b + 16, f->b + 12, f->len - 12);
		f->len += 4;
		put16(f->b + 12, i ? E_QINQ : E_VLAN);
		put16(f->b + 14, (uint16_t)(0x6000 | (100 + i)));
	}
}

/* Tagged packets are translated and restored, and keep their tags. */
static void test_tags(void **state)
{
	struct bed b;
	size_t i;
	int n;

	(void)state;
	bed_scene(&b, SMALL_FLOWS, pool_default());
	for (n = 1; n <= 2; n++) {
		for (i = 0; i < N_SHAPES; i++) {
			struct spec s = shapes[i].s;
			uint16_t sport = (uint16_t)(30000 + n * 100 + i), outer;
			struct frame in;
			struct view v;
			struct run r;

			s.src = CLIENT;
			s.dst = REMOTE;
			s.sport = sport;
			s.dport = s.proto == P_ICMP ? 0 : 443;
			s.type = 8;
			frame_build(&in, &s);
			frame_tag(&in, n);
			bed_run(&b, EGRESS, FORWARDED, &in, &r);
			expect_rewritten(shapes[i].name, &in, &r, true, &v);
			assert_int_equal(v.src, SHARED);
			assert_true(v.sport >= FIRST && v.sport <= LAST);
			outer = v.sport;
			s.sport = s.proto == P_ICMP ? outer : s.dport;
			s.src = REMOTE;
			s.dst = SHARED;
			s.dport = outer;
			s.type = 0;
			if (s.flags & T_SYN)
				s.flags |= T_ACK;
			frame_build(&in, &s);
			frame_tag(&in, n);
			bed_run(&b, INGRESS, FORWARDED, &in, &r);
			expect_rewritten(shapes[i].name, &in, &r, false, &v);
			assert_int_equal(v.dst, CLIENT);
			assert_int_equal(v.dport, sport);
		}
	}
	bed_close(&b);
}

/* Nor does a tag hide anything from the guard. */
static void test_tags_guard(void **state)
{
	struct spec s = { .proto = P_UDP, .src = SHARED, .dst = REMOTE, .payload = 30 };
	struct frame in;
	struct run r;
	struct bed b;
	int n;

	(void)state;
	bed_scene(&b, SMALL_FLOWS, pool_default());
	s.sport = FIRST - 1;
	s.dport = 53;
	for (n = 1; n <= 2; n++) {
		frame_build(&in, &s);
		frame_tag(&in, n);
		bed_run(&b, EGRESS, MADE_HERE, &in, &r);
		expect_reason("a socket's, tagged", &in, &r, SLUICE_DROP_escape);
		bed_run(&b, EGRESS, FORWARDED, &in, &r);
		expect_reason("forwarded, tagged", &in, &r, SLUICE_DROP_spoof);
	}
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bare),
		cmocka_unit_test(test_bare_guard),
		cmocka_unit_test(test_tags),
		cmocka_unit_test(test_tags_guard),
	};

	return cmocka_run_group_tests_name("links", tests, NULL, NULL);
}
