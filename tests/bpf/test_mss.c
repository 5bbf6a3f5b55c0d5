/* SPDX-License-Identifier: BSD-2-Clause */
/* MSS clamping: which SYNs are changed, to what, wherever the option stands, and that nothing else is. */
#include <net/if.h>
#include <sched.h>

#include "flows.h"

#define SMALL_FLOWS 1024
#define MAX         1400
#define DEV_MTU     1450 /* of the device that stands for the uplink */
#define INNER_MTU   1380
#define LOCKED_MTU  1300

/* Options, as bytes; "M" stands for an MSS option of the value in question. */
struct layout {
	const char *name;
	uint8_t len; /* a multiple of four */
	uint8_t b[40];
	int8_t at[3]; /* where MSS options begin; -1: none */
};

#define MSS_AT(...)             \
	{                       \
		__VA_ARGS__, -1 \
	}

static const struct layout layouts[] = {
	{ "first", 4, { 2, 4, 0, 0 }, MSS_AT(0) },
	{ "behind one NOP", 8, { 1, 2, 4, 0, 0, 0 }, MSS_AT(1) },
	{ "behind two NOPs", 8, { 1, 1, 2, 4, 0, 0 }, MSS_AT(2) },
	{ "behind three NOPs", 8, { 1, 1, 1, 2, 4, 0, 0, 1 }, MSS_AT(3) },
	{ "as Linux has it",
	  20,
	  { 2, 4, 0, 0, 4, 2, 8, 10, 9, 9, 9, 9, 0, 0, 0, 0, 1, 3, 3, 7 },
	  MSS_AT(0) },
	{ "behind window scale", 8, { 3, 3, 7, 2, 4, 0, 0, 0 }, MSS_AT(3) },
	{ "at the very end", 40, { 254, 36, [36] = 2, 4 }, MSS_AT(36) },
	{ "behind NOPs, at the very end",
	  40,
	  { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
	    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4 },
	  MSS_AT(36) },
	{ "odd, last but one", 40, { 254, 35, [35] = 2, 4, 0, 0, 1 }, MSS_AT(35) },
	{ "twice", 12, { 2, 4, 0, 0, 1, 2, 4, 0, 0, 1, 1, 1 }, MSS_AT(0, 5) },
};

/* None of these is a segment size, or can be read. */
static const struct layout none[] = {
	{ "no options", 0, { 0 }, MSS_AT(-1) },
	{ "behind the end", 8, { 0, 2, 4, 0xff, 0xff }, MSS_AT(-1) },
	{ "of length 0", 8, { 2, 0, 2, 4, 0xff, 0xff }, MSS_AT(-1) },
	{ "of length 1", 8, { 2, 1, 2, 4, 0xff, 0xff }, MSS_AT(-1) },
	{ "of length 3", 8, { 2, 3, 0xff, 2, 3, 0xff, 1, 1 }, MSS_AT(-1) },
	{ "of length 6", 8, { 2, 6, 0xff, 0xff, 0xff, 0xff, 1, 1 }, MSS_AT(-1) },
	{ "cut short", 4, { 1, 2, 4, 0xff }, MSS_AT(-1) },
	{ "its length cut off", 4, { 1, 1, 1, 2 }, MSS_AT(-1) },
	{ "within another", 8, { 254, 8, 2, 4, 0xff, 0xff }, MSS_AT(-1) },
	{ "another that is longer than the header", 8, { 254, 9, 2, 4, 0xff, 0xff }, MSS_AT(-1) },
	{ "all NOPs",
	  40,
	  { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
	    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 },
	  MSS_AT(-1) },
};

/* A frame with these options, the MSS ones of this value, and a checksum that is wrong by s->csum_error. */
static void build(struct frame *f, const struct spec *s, const struct layout *l, uint16_t mss)
{
	struct spec with = *s;
	struct view v;
	uint8_t *tcp;
	uint16_t sum;
	int i;

	with.tcp_words = l->len / 4;
	frame_build(f, &with);
	frame_view(f, &v);
	tcp = f->b + v.l4;
	memcpy(tcp + 20, l->b, l->len);
	for (i = 0; i < 3 && l->at[i] >= 0; i++)
		put16(tcp + 20 + l->at[i] + 2, mss);
	put16(tcp + 16, 0);
	sum = (uint16_t)~words_fold(
		words_sum(tcp, v.end - v.l4, pseudo_sum(s->src, s->dst, P_TCP, v.end - v.l4)));
	put16(tcp + 16, s->csum_error ? words_fold((uint64_t)sum + s->csum_error) : sum);
}

static struct sluice_pool pool_mss(uint16_t mss)
{
	struct sluice_pool p = pool_default();

	p.mss = mss;
	return p;
}

struct way {
	const char *what;
	struct bed *bed;
	enum hook hook;
	uint32_t ifindex, came_by; /* 0: the harness' own */
};

/* As bed_run(), but by a device of our choice. */
static void way_run(const struct way *w, const struct frame *in, struct run *ret)
{
	struct __sk_buff ctx = { .ifindex = w->ifindex, .ingress_ifindex = w->came_by };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in->b, .data_size_in = in->len,
		    .data_out = ret->out.b, .data_size_out = sizeof(ret->out.b), .ctx_in = &ctx,
		    .ctx_size_in = sizeof(ctx));

	if (!w->ifindex) {
		bed_run(w->bed, w->hook, FORWARDED, in, ret);
		return;
	}
	if (bpf_prog_test_run_opts(hook_fd(w->bed, w->hook), &opts))
		die("%s: test run: %s", w->what, strerror(errno));
	ret->verdict = (int)opts.retval;
	ret->reason = NO_REASON;
	ret->out.len = opts.data_size_out;
}

/* A packet with segment size mss must come out translated, with size want, and with no other change. */
static void expect_mss(const struct way *w, const struct spec *s, const struct layout *l,
		       uint16_t mss, uint16_t want)
{
	struct frame in, like;
	const char *wrong;
	struct view v;
	struct run r;

	build(&in, s, l, mss);
	build(&like, s, l, want);
	way_run(w, &in, &r);
	if (r.verdict != VERDICT_PASS)
		die("%s, %s: dropped as %s", w->what, l->name, reason_name(r.reason));
	wrong = frame_rewritten(&like, &r.out, w->hook == EGRESS, &v);
	if (!wrong)
		return;
	frame_print(stderr, "in", &in);
	frame_print(stderr, "out", &r.out);
	die("%s, MSS option %s, %u, should become %u: %s", w->what, l->name, mss, want, wrong);
}

/* Both directions of a flow to be opened. */
static void expect_both(struct bed *b, const struct layout *l, uint16_t mss, uint16_t want,
			uint16_t csum_error)
{
	static uint16_t sport = 20000;
	struct conn c = conn_of(P_TCP, CLIENT, sport++, REMOTE, 443);
	struct way out = { "out", b, EGRESS, 0, 0 }, in = { "in", b, INGRESS, 0, 0 };
	struct spec s;

	conn_sends(b, "flow", &c, T_SYN);
	s = conn_out(&c, T_SYN);
	s.csum_error = csum_error;
	expect_mss(&out, &s, l, mss, want);
	s = conn_in(&c, T_SYN | T_ACK);
	s.csum_error = csum_error;
	expect_mss(&in, &s, l, mss, want);
}

/* Lowered wherever it stands, in SYN and SYN+ACK, and never raised. */
static void test_layouts(void **state)
{
	static const uint16_t sizes[][2] = {
		{ 0xffff, MAX },      { 1460, MAX }, { MAX + 1, MAX }, { MAX, MAX },
		{ MAX - 1, MAX - 1 }, { 536, 536 },  { 1, 1 },         { 0, 0 },
	};
	struct bed b;
	size_t i, k;

	(void)state;
	bed_scene(&b, SMALL_FLOWS, pool_mss(MAX));
	for (i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++)
		for (k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++)
			expect_both(&b, &layouts[i], sizes[k][0], sizes[k][1], 0);
	bed_close(&b);
}

/* What is wrong with a checksum stays exactly so. */
static void test_corrupt(void **state)
{
	static const uint16_t errors[] = { 1, 0x100, 0x1234, 0x8000, 0xfffe };
	struct bed b;
	size_t i, k;

	(void)state;
	bed_scene(&b, SMALL_FLOWS, pool_mss(MAX));
	for (i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++)
		for (k = 0; k < sizeof(errors) / sizeof(errors[0]); k++)
			expect_both(&b, &layouts[i], 1460, MAX, errors[k]);
	bed_close(&b);
}

/* Options that hold no segment size, or are nonsense, stay; and the walk ends. */
static void test_none(void **state)
{
	struct bed b;
	size_t i;

	(void)state;
	bed_scene(&b, SMALL_FLOWS, pool_mss(MAX));
	for (i = 0; i < sizeof(none) / sizeof(none[0]); i++)
		expect_both(&b, &none[i], 0, 0, 0);
	bed_close(&b);
}

/* Every pair of sizes that matters for the sum: old and new bytes in all combinations, at even and odd places. */
static void test_sums(void **state)
{
	static const uint16_t maxes[] = { 89, 255, 256, 511, 536, 0x1234, 0x7f80 };
	struct bed b;
	size_t i, k;
	uint32_t mss;

	(void)state;
	bed_scene(&b, SMALL_FLOWS, pool_mss(MAX));
	for (i = 0; i < sizeof(maxes) / sizeof(maxes[0]); i++) {
		struct sluice_pool p;

		map_get_row(b.nat->maps.pools, 0, &p);
		p.mss = maxes[i];
		map_put_row(b.nat->maps.pools, 0, &p);
		for (mss = 1; mss <= 0xffff; mss += 997)
			for (k = 0; k < 2; k++)
				expect_both(&b, &layouts[k], (uint16_t)mss,
					    mss > maxes[i] ? maxes[i] : (uint16_t)mss, 0);
	}
	bed_close(&b);
}

/* Not changed: what is no SYN, pools that do not ask for it, and packets that are not translated. */
static void test_left_alone(void **state)
{
	struct conn c = conn_of(P_TCP, CLIENT, 4000, REMOTE, 443);
	struct way out = { "out", NULL, EGRESS, 0, 0 }, in = { "in", NULL, INGRESS, 0, 0 };
	struct frame f;
	struct spec s;
	struct run r;
	struct bed b;

	(void)state;
	bed_scene(&b, SMALL_FLOWS, pool_mss(MAX));
	out.bed = in.bed = &b;
	conn_opens(&b, "flow", &c);
	s = conn_out(&c, T_ACK);
	expect_mss(&out, &s, &layouts[0], 1460, 1460);
	s = conn_in(&c, T_ACK);
	expect_mss(&in, &s, &layouts[0], 1460, 1460);
	s = conn_out(&c, T_SYN);
	s.dst = NO_NAT;
	build(&f, &s, &layouts[0], 1460);
	bed_run(&b, EGRESS, FORWARDED, &f, &r);
	expect_unchanged("no NAT", &f, &r);
	s.src = OTHER;
	s.dst = REMOTE;
	build(&f, &s, &layouts[0], 1460);
	bed_run(&b, EGRESS, FORWARDED, &f, &r);
	expect_unchanged("nobody's client", &f, &r);
	bed_close(&b);

	bed_scene(&b, SMALL_FLOWS, pool_default());
	expect_both(&b, &layouts[0], 1460, 1460, 0);
	expect_both(&b, &layouts[1], 0xffff, 0xffff, 0);
	bed_close(&b);
}

static void run_or_die(const char *cmd)
{
	if (system(cmd))
		die("%s: failed", cmd);
}

static uint32_t index_of(const char *name)
{
	uint32_t i = if_nametoindex(name);

	if (!i)
		die("no interface %s", name);
	return i;
}

/* What the two ways carry is found: the uplink's, the inner interface's, and that of a route. */
static void test_auto(void **state)
{
	struct conn c = conn_of(P_TCP, CLIENT, 4000, REMOTE, 443);
	struct way out = { "out", NULL, EGRESS, 0, 0 }, in = { "in", NULL, INGRESS, 0, 0 };
	struct bed b;
	struct spec s;
	char cmd[256];

	(void)state;
	need_root();
	if (unshare(CLONE_NEWNET))
		die("a network namespace: %s", strerror(errno));
	snprintf(cmd, sizeof(cmd),
		 "ip link add up0 mtu %d type veth peer name up1 && ip link set up0 up && "
		 "ip link set up1 up && ip link add in0 type veth peer name in1 && "
		 "ip link set in0 up && ip link set in1 up && ip link set lo up",
		 DEV_MTU);
	run_or_die(cmd);
	run_or_die("ip addr add 192.0.2.1/24 dev up0 && ip addr add 10.1.0.1/16 dev in0 && "
		   "sysctl -q -w net.ipv4.ip_forward=1");
	bed_scene(&b, SMALL_FLOWS, pool_mss(SLUICE_MSS_AUTO));
	out.bed = in.bed = &b;
	out.ifindex = in.ifindex = in.came_by = index_of("up0");
	out.came_by = index_of("in0");
	conn_sends(&b, "flow", &c, T_SYN);

	/* No route leads there: the device's MTU. */
	s = conn_out(&c, T_SYN);
	expect_mss(&out, &s, &layouts[0], 1460, DEV_MTU - 40);
	expect_mss(&out, &s, &layouts[0], DEV_MTU - 40, DEV_MTU - 40);
	expect_mss(&out, &s, &layouts[0], 1000, 1000);
	s = conn_in(&c, T_SYN | T_ACK);
	expect_mss(&in, &s, &layouts[0], 1460, DEV_MTU - 40);

	run_or_die("ip route add default via 192.0.2.2 dev up0");
	s = conn_out(&c, T_SYN);
	expect_mss(&out, &s, &layouts[3], 9000, DEV_MTU - 40);
	s = conn_in(&c, T_SYN | T_ACK);
	expect_mss(&in, &s, &layouts[3], 9000, DEV_MTU - 40);

	/* A route that is narrower than its device. */
	snprintf(cmd, sizeof(cmd), "ip route add 198.51.100.0/24 via 192.0.2.2 dev up0 mtu lock %d",
		 LOCKED_MTU);
	run_or_die(cmd);
	s = conn_out(&c, T_SYN);
	expect_mss(&out, &s, &layouts[1], 1460, LOCKED_MTU - 40);
	s = conn_in(&c, T_SYN | T_ACK);
	expect_mss(&in, &s, &layouts[1], 1460, LOCKED_MTU - 40);
	run_or_die("ip route del 198.51.100.0/24");

	/* An inner interface that is narrower than the uplink. */
	snprintf(cmd, sizeof(cmd), "ip link set in0 mtu %d", INNER_MTU);
	run_or_die(cmd);
	s = conn_out(&c, T_SYN);
	expect_mss(&out, &s, &layouts[0], 1460, INNER_MTU - 40);
	s = conn_in(&c, T_SYN | T_ACK);
	expect_mss(&in, &s, &layouts[0], 1460, INNER_MTU - 40);
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layouts),    cmocka_unit_test(test_corrupt),
		cmocka_unit_test(test_none),       cmocka_unit_test(test_sums),
		cmocka_unit_test(test_left_alone), cmocka_unit_test(test_auto),
	};

	return cmocka_run_group_tests_name("mss", tests, NULL, NULL);
}
