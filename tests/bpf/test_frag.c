/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Datagrams in pieces: in every order, both ways, with pieces that are missing, come twice or overlap; and the bounds of what is remembered.
 *
 * A piece that had to wait is sent through the program at a device. So this stands in a network namespace of its own, with the program at one end of a veth
 * pair; what leaves there is read at the other end.
 */
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include "flows.h"

#define PIECES    3
#define PIECE     600  /* bytes of all but the last */
#define DATA      1700 /* of a datagram, without its header */
#define MAX_FLOWS 8192
#define PATIENCE  5000 /* ms */

static const int orders[6][PIECES] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 },
				       { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };

static int wire = -1; /* what leaves from device "fa" */
static uint32_t fa;

static void sh(const char *cmd)
{
	if (system(cmd))
		die("\"%s\" failed", cmd);
}

static void wire_open(void)
{
	struct sockaddr_ll ll = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };

	if (wire >= 0)
		return;
	need_root();
	if (unshare(CLONE_NEWNET))
		die("unshare: %s", strerror(errno));
	sh("ip link add fa type veth peer name fb && ip link set fa up && ip link set fb up && "
	   "sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
	fa = if_nametoindex("fa");
	ll.sll_ifindex = (int)if_nametoindex("fb");
	wire = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
	if (wire < 0 || bind(wire, (struct sockaddr *)&ll, sizeof(ll)))
		die("packet socket: %s", strerror(errno));
}

/* The program at the device as well, so that what it sends there meets it again. */
static void attach(struct bed *b, enum hook hook)
{
	LIBBPF_OPTS(bpf_tc_hook, at, .ifindex = (int)fa,
		    .attach_point = hook == EGRESS ? BPF_TC_EGRESS : BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 1, .priority = 1, .prog_fd = hook_fd(b, hook));
	struct frame drain;
	int err = bpf_tc_hook_create(&at);

	if (err && err != -EEXIST)
		die("clsact: %s", strerror(-err));
	opts.flags = BPF_TC_F_REPLACE;
	err = bpf_tc_attach(&at, &opts);
	if (err)
		die("attach: %s", strerror(-err));
	while (recv(wire, drain.b, sizeof(drain.b), MSG_DONTWAIT) > 0)
		;
}

static void detach(enum hook hook)
{
	LIBBPF_OPTS(bpf_tc_hook, at, .ifindex = (int)fa,
		    .attach_point = hook == EGRESS ? BPF_TC_EGRESS : BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 1, .priority = 1);

	bpf_tc_detach(&at, &opts);
}

/* One piece at the device. Does not look at counters. */
static int run_at(struct bed *b, enum hook hook, uint32_t came_by, const struct frame *in,
		  struct frame *out)
{
	struct __sk_buff ctx = { .ifindex = fa, .ingress_ifindex = came_by };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in->b, .data_size_in = in->len,
		    .data_out = out->b, .data_size_out = sizeof(out->b), .ctx_in = &ctx,
		    .ctx_size_in = sizeof(ctx));

	if (bpf_prog_test_run_opts(hook_fd(b, hook), &opts))
		die("test run: %s", strerror(errno));
	out->len = opts.data_size_out;
	return (int)opts.retval;
}

/* Bytes at to at+len of a packet's IP payload as a piece of its own. */
static void cut(const struct frame *whole, struct frame *ret, uint32_t at, uint32_t len, bool more,
		uint16_t id)
{
	uint32_t l4 = ETH_LEN + 20;

	memset(ret, 0, sizeof(*ret));
	memcpy(ret->b, whole->b, l4);
	if (whole->len >= l4 + at + len)
		memcpy(ret->b + l4, whole->b + l4 + at, len);
	ret->len = l4 + len;
	put16(ret->b + ETH_LEN + 2, (uint16_t)(20 + len));
	put16(ret->b + ETH_LEN + 4, id);
	put16(ret->b + ETH_LEN + 6, (uint16_t)((more ? IP_MF : 0) | at / 8));
	frame_ip_csum(ret, ETH_LEN);
}

static void cut_all(const struct frame *whole, struct frame ret[PIECES], uint16_t id)
{
	uint32_t all = whole->len - ETH_LEN - 20, i;

	for (i = 0; i < PIECES; i++)
		cut(whole, &ret[i], i * PIECE, i == PIECES - 1 ? all - i * PIECE : PIECE,
		    i < PIECES - 1, id);
}

/* What the remote end would do: put pieces together, of one identification. */
struct joined {
	struct frame f;
	uint32_t have, total;
	uint16_t id;
	int pieces;
};

static void join(struct joined *j, const struct frame *piece)
{
	const uint8_t *ip = piece->b + ETH_LEN;
	uint32_t at = (get16(ip + 6) & 0x1fffu) * 8, len = get16(ip + 2) - 20u, l4 = ETH_LEN + 20;
	struct view v;

	frame_view(piece, &v);
	if (!v.ip4 || !v.l3_good)
		die("piece at %u: the IP checksum is wrong", at);
	if (j->pieces++ && j->id != get16(ip + 4))
		die("piece at %u: identification %04x, another has %04x", at, get16(ip + 4), j->id);
	j->id = get16(ip + 4);
	if (l4 + at + len > sizeof(j->f.b))
		die("piece at %u: %u bytes", at, len);
	if (!at || j->pieces == 1)
		memcpy(j->f.b, piece->b, l4);
	memcpy(j->f.b + l4 + at, ip + 20, len);
	j->have += len;
	if (!(get16(ip + 6) & IP_MF))
		j->total = at + len;
}

/* All there, and it is the packet that was sent, with nothing but its source (or destination) and the identification changed. */
static void expect_joined(const char *what, struct joined *j, const struct frame *whole,
			  bool source, struct view *ret)
{
	const char *wrong;

	if (j->pieces != PIECES || j->have != j->total)
		die("%s: %d pieces, %u bytes of %u", what, j->pieces, j->have, j->total);
	j->f.len = ETH_LEN + 20 + j->total;
	put16(j->f.b + ETH_LEN + 2, (uint16_t)(20 + j->total));
	put16(j->f.b + ETH_LEN + 4, get16(whole->b + ETH_LEN + 4));
	put16(j->f.b + ETH_LEN + 6, get16(whole->b + ETH_LEN + 6));
	frame_ip_csum(&j->f, ETH_LEN);
	wrong = frame_rewritten(whole, &j->f, source, ret);
	if (wrong)
		die("%s: %s", what, wrong);
	if (!ret->l4_good)
		die("%s: the transport checksum is wrong", what);
}

/* The next piece on the wire. */
static void wire_read(struct frame *ret)
{
	struct pollfd pfd = { .fd = wire, .events = POLLIN };
	ssize_t n;

	if (poll(&pfd, 1, PATIENCE) != 1)
		die("nothing on the wire");
	n = recv(wire, ret->b, sizeof(ret->b), 0);
	if (n < 0)
		die("recv: %s", strerror(errno));
	ret->len = (uint32_t)n;
}

static struct sluice_pool pool_ids(void)
{
	struct sluice_pool p = pool_default();

	p.id_mode = SLUICE_ID_SLICE;
	return p;
}

static uint64_t dropped(struct bed *b)
{
	struct sluice_count all[SLUICE_REASON_MAX];
	uint64_t n = 0;
	int i;

	bed_drops_all(b, all);
	for (i = 0; i < SLUICE_REASON_MAX; i++)
		n += all[i].packets;
	return n;
}

static void long_out(struct frame *f, uint8_t proto, uint16_t sport)
{
	struct spec s = { .proto = proto,
			  .src = CLIENT,
			  .dst = REMOTE,
			  .sport = sport,
			  .dport = proto == P_ICMP ? 0 : 443,
			  .flags = T_SYN,
			  .type = 8,
			  .payload = DATA };

	s.frag = 0x8000; /* no DF */
	frame_build(f, &s);
}

static void test_orders_out(void **state)
{
	static const uint8_t protos[] = { P_UDP, P_ICMP, P_TCP };
	struct frame whole, in[PIECES], out;
	struct sluice_pool_stats st;
	struct view v;
	struct bed b;
	uint16_t id = 7, sport = 30000;
	size_t k, o;
	int i;

	(void)state;
	wire_open();
	bed_scene(&b, MAX_FLOWS, pool_ids());
	attach(&b, EGRESS);
	for (k = 0; k < sizeof(protos); k++) {
		for (o = 0; o < 6; o++) {
			struct joined j = { 0 };
			int waiting = 0;

			long_out(&whole, protos[k], ++sport);
			cut_all(&whole, in, ++id);
			for (i = 0; i < PIECES; i++) {
				int which = orders[o][i];

				if (run_at(&b, EGRESS, FORWARDED, &in[which], &out) ==
				    VERDICT_PASS) {
					join(&j, &out);
					continue;
				}
				waiting++;
				if (which)
					continue;
				/* The first, and all that waited for it, have gone by the device. */
				for (; waiting; waiting--) {
					wire_read(&out);
					join(&j, &out);
				}
			}
			expect_joined("out", &j, &whole, true, &v);
			if (v.src != SHARED || v.sport < FIRST || v.sport > LAST)
				die("came out from %08x:%u", v.src, v.sport);
			if (j.id < FIRST || j.id > LAST)
				die("identification %u is not of the slice", j.id);
		}
	}
	detach(EGRESS);
	assert_int_equal(dropped(&b), 0);
	st = bed_stats(&b, 0);
	assert_int_equal(st.out.packets, sizeof(protos) * 6 * PIECES);
	bed_close(&b);
}

static bool in_reaches(struct bed *b, uint64_t n)
{
	struct timespec nap = { .tv_nsec = 1000000 };
	int i;

	for (i = 0; i < PATIENCE; i++) {
		if (bed_stats(b, 0).in.packets >= n)
			return true;
		nanosleep(&nap, NULL);
	}
	return false;
}

/* The answer comes in pieces. Those that were replayed go up the stack, and are counted; the rest is looked at. */
static void test_orders_in(void **state)
{
	static const uint8_t protos[] = { P_UDP, P_ICMP };
	struct frame whole, in[PIECES], out;
	uint64_t want = 0;
	struct view v;
	struct bed b;
	uint16_t id = 99;
	size_t k, o;
	int i;

	(void)state;
	wire_open();
	bed_scene(&b, MAX_FLOWS, pool_ids());
	attach(&b, INGRESS);
	for (k = 0; k < sizeof(protos); k++) {
		struct conn c =
			conn_of(protos[k], CLIENT, 5000, REMOTE, protos[k] == P_ICMP ? 0 : 53);
		struct spec s;

		conn_sends(&b, "flow", &c, 0);
		s = conn_in(&c, 0);
		s.payload = DATA;
		for (o = 0; o < 6; o++) {
			struct joined j = { 0 };

			frame_build(&whole, &s);
			cut_all(&whole, in, ++id);
			for (i = 0; i < PIECES; i++) {
				if (run_at(&b, INGRESS, FORWARDED, &in[orders[o][i]], &out) ==
				    VERDICT_PASS)
					join(&j, &out);
				/* What was sent through the device has to be there before the next piece comes. */
				if (!orders[o][i] && !in_reaches(&b, want + (uint64_t)i + 1))
					die("order %zu: %llu pieces came in", o,
					    (unsigned long long)(bed_stats(&b, 0).in.packets -
								 want));
			}
			want += PIECES;
			if (!in_reaches(&b, want))
				die("order %zu: a piece is missing", o);
			if (orders[o][0])
				continue;
			expect_joined("in", &j, &whole, false, &v);
			if (v.dst != CLIENT || v.dport != 5000 || j.id != id)
				die("restored to %08x:%u, identification %u", v.dst, v.dport, j.id);
		}
	}
	detach(INGRESS);
	assert_int_equal(dropped(&b), 0);
	assert_int_equal(bed_stats(&b, 0).in.packets, want);
	bed_close(&b);
}

static void expect_run(struct bed *b, const char *what, enum hook hook, uint32_t came_by,
		       const struct frame *in, int reason, struct frame *out)
{
	struct run r;

	bed_run(b, hook, came_by, in, &r);
	if (r.reason != reason)
		die("%s: %s, should be %s", what, reason_name(r.reason), reason_name(reason));
	if (out)
		*out = r.out;
}

/* One that waits: dropped, and not counted. */
static void expect_waits(struct bed *b, const char *what, enum hook hook, const struct frame *in)
{
	uint64_t before = dropped(b);
	struct run r;

	if (bed_try(b, hook, FORWARDED, in, &r) || r.verdict != VERDICT_DROP ||
	    dropped(b) != before)
		die("%s: verdict %d, %d counted", what, r.verdict, (int)(dropped(b) - before));
}

static uint16_t id_of(const struct frame *f)
{
	return get16(f->b + ETH_LEN + 4);
}

/* Twice the same piece, also the first: it stays one datagram. What comes after the whole is another one. */
static void test_duplicates(void **state)
{
	struct frame whole, in[PIECES], out;
	uint16_t id;
	struct bed b;

	(void)state;
	bed_scene(&b, MAX_FLOWS, pool_ids());
	long_out(&whole, P_UDP, 4000);
	cut_all(&whole, in, 1);
	expect_run(&b, "first", EGRESS, FORWARDED, &in[0], NO_REASON, &out);
	id = id_of(&out);
	expect_run(&b, "first again", EGRESS, FORWARDED, &in[0], NO_REASON, &out);
	assert_int_equal(id_of(&out), id);
	expect_run(&b, "second", EGRESS, FORWARDED, &in[1], NO_REASON, &out);
	assert_int_equal(id_of(&out), id);
	expect_run(&b, "second again", EGRESS, FORWARDED, &in[1], NO_REASON, &out);
	assert_int_equal(id_of(&out), id);
	expect_run(&b, "last", EGRESS, FORWARDED, &in[2], NO_REASON, &out);
	assert_int_equal(id_of(&out), id);
	/* It is complete. What comes for it now is taken for another's, and waits. */
	expect_waits(&b, "last again", EGRESS, &in[2]);
	/* The client counts round, and uses the identification again. */
	long_out(&whole, P_UDP, 4001);
	cut_all(&whole, in, 2);
	expect_run(&b, "another with the identification of an incomplete one", EGRESS, FORWARDED,
		   &in[0], NO_REASON, NULL);
	long_out(&whole, P_UDP, 4002);
	cut_all(&whole, in, 2);
	expect_run(&b, "another", EGRESS, FORWARDED, &in[0], NO_REASON, &out);
	if (id_of(&out) == id)
		die("another datagram has the same identification");
	id = id_of(&out);
	expect_run(&b, "its last", EGRESS, FORWARDED, &in[2], NO_REASON, &out);
	assert_int_equal(id_of(&out), id);
	bed_close(&b);
}

static uint32_t rows(struct bpf_map *m, size_t key_size)
{
	char key[64] = { 0 }, next[64];
	uint32_t n = 0;

	if (key_size > sizeof(key))
		die("key of %zu bytes", key_size);
	while (!bpf_map_get_next_key(bpf_map__fd(m), n ? key : NULL, next)) {
		memcpy(key, next, key_size);
		n++;
	}
	return n;
}

static uint32_t tracked(struct bed *b)
{
	return rows(b->nat->maps.frags, sizeof(struct sluice_frag_key));
}

static uint32_t held(struct bed *b)
{
	return rows(b->nat->maps.frag_hold, sizeof(struct sluice_frag_hold_key));
}

/* All of it is s seconds older. */
static void age(struct bed *b, uint32_t s)
{
	static struct sluice_frag_held h;
	struct sluice_frag_hold_key hk;
	struct sluice_frag_key k;
	struct sluice_frag f;
	void *prev = NULL;

	while (!bpf_map_get_next_key(bpf_map__fd(b->nat->maps.frags), prev, &k)) {
		map_get(b->nat->maps.frags, &k, &f);
		f.seen_s -= s;
		map_put(b->nat->maps.frags, &k, &f);
		prev = &k;
		if (tracked(b) == 1) /* it moves when it is written to */
			break;
	}
	prev = NULL;
	while (!bpf_map_get_next_key(bpf_map__fd(b->nat->maps.frag_hold), prev, &hk)) {
		map_get(b->nat->maps.frag_hold, &hk, &h);
		h.seen_s -= s;
		map_put(b->nat->maps.frag_hold, &hk, &h);
		prev = &hk;
		if (held(b) == 1)
			break;
	}
}

/* Pieces are stored while another CPU has the first under way: the row says so, and nobody waits any more. */
static void test_meanwhile(void **state)
{
	struct frame whole, in[PIECES], out;
	struct sluice_frag_key k;
	struct joined j = { 0 };
	struct sluice_frag f;
	struct view v;
	struct bed b;
	int i;

	(void)state;
	wire_open();
	bed_scene(&b, MAX_FLOWS, pool_ids());
	attach(&b, EGRESS);
	long_out(&whole, P_UDP, 4000);
	cut_all(&whole, in, 1);
	for (i = 1; i < PIECES; i++)
		assert_int_equal(run_at(&b, EGRESS, FORWARDED, &in[i], &out), VERDICT_DROP);
	assert_int_equal(bpf_map_get_next_key(bpf_map__fd(b.nat->maps.frags), NULL, &k), 0);
	map_get(b.nat->maps.frags, &k, &f);
	assert_int_equal(f.state, SLUICE_FRAG_WAITING);
	f.state = SLUICE_FRAG_BEGUN;
	map_put(b.nat->maps.frags, &k, &f);
	/* The packet is turned into them, and back. */
	assert_int_equal(run_at(&b, EGRESS, FORWARDED, &in[0], &out), VERDICT_PASS);
	join(&j, &out);
	for (i = 1; i < PIECES; i++) {
		wire_read(&out);
		join(&j, &out);
	}
	detach(EGRESS);
	expect_joined("meanwhile", &j, &whole, true, &v);
	assert_int_equal(held(&b), 0);
	assert_int_equal(tracked(&b), 0);
	bed_close(&b);
}

/* The first never comes: what waited is counted in the end, and nothing of it stays. */
static void test_first_is_lost(void **state)
{
	struct frame whole, in[PIECES];
	struct bed b;
	enum hook hook;

	(void)state;
	need_uptime(60);
	for (hook = EGRESS; hook <= INGRESS; hook++) {
		struct conn c = conn_of(P_UDP, CLIENT, 4000, REMOTE, 443);

		bed_scene(&b, MAX_FLOWS, pool_ids());
		conn_sends(&b, "flow", &c, 0);
		if (hook == EGRESS) {
			long_out(&whole, P_UDP, 4000);
		} else {
			struct spec s = conn_in(&c, 0);

			s.payload = DATA;
			frame_build(&whole, &s);
		}
		cut_all(&whole, in, 1);
		expect_waits(&b, "last", hook, &in[2]);
		bed_sweep(&b);
		assert_int_equal(tracked(&b), 1);
		assert_int_equal(held(&b), 1);
		age(&b, 14);
		bed_sweep(&b);
		assert_int_equal(held(&b), 1);
		age(&b, 2);
		bed_sweep(&b);
		assert_int_equal(tracked(&b), 0);
		assert_int_equal(held(&b), 0);
		assert_int_equal(bed_drops(&b, SLUICE_DROP_frag_late).packets, 1);
		assert_int_equal(bed_drops(&b, SLUICE_DROP_frag_late).bytes, in[2].len);
		/* And a first piece after that begins a datagram of its own, for which the old ones do not come back. */
		expect_run(&b, "first", hook, FORWARDED, &in[0], NO_REASON, NULL);
		/* Its row ends as well. */
		age(&b, 16);
		expect_waits(&b, "second, too late", hook, &in[1]);
		bed_close(&b);
	}
}

/* 1024 datagrams at a time. What is complete makes room for others; what is not, does not. */
static void test_tracker_full(void **state)
{
	struct frame whole, in[PIECES];
	struct bed b;
	uint32_t i;

	(void)state;
	bed_scene(&b, MAX_FLOWS, pool_ids());
	long_out(&whole, P_UDP, 4000);
	for (i = 0; i < 3 * SLUICE_MAX_FRAGS; i++) {
		cut_all(&whole, in, (uint16_t)i);
		expect_run(&b, "first", EGRESS, FORWARDED, &in[0], NO_REASON, NULL);
		expect_run(&b, "second", EGRESS, FORWARDED, &in[1], NO_REASON, NULL);
		expect_run(&b, "last", EGRESS, FORWARDED, &in[2], NO_REASON, NULL);
	}
	bed_close(&b);

	bed_scene(&b, MAX_FLOWS, pool_ids());
	for (i = 0; i < SLUICE_MAX_FRAGS; i++) {
		cut_all(&whole, in, (uint16_t)i);
		expect_run(&b, "first", EGRESS, FORWARDED, &in[0], NO_REASON, NULL);
	}
	cut_all(&whole, in, (uint16_t)i);
	expect_run(&b, "one more", EGRESS, FORWARDED, &in[0], SLUICE_DROP_frag_full, NULL);
	expect_run(&b, "its second", EGRESS, FORWARDED, &in[1], SLUICE_DROP_frag_full, NULL);
	/* Those that are there go on. */
	cut_all(&whole, in, 5);
	expect_run(&b, "second", EGRESS, FORWARDED, &in[1], NO_REASON, NULL);
	assert_int_equal(tracked(&b), SLUICE_MAX_FRAGS);
	bed_close(&b);
}

/* So many pieces wait, of one datagram and in all. */
static void test_held_full(void **state)
{
	struct frame whole, piece;
	struct bed b;
	uint32_t i;

	(void)state;
	bed_scene(&b, MAX_FLOWS, pool_ids());
	long_out(&whole, P_UDP, 4000);
	for (i = 0; i < 64; i++) {
		cut(&whole, &piece, 8 + 8 * i, 8, true, 1);
		expect_waits(&b, "one of 64", EGRESS, &piece);
	}
	cut(&whole, &piece, 8 + 8 * i, 8, true, 1);
	expect_run(&b, "one more", EGRESS, FORWARDED, &piece, SLUICE_DROP_frag_full, NULL);
	for (i = 0; i < SLUICE_MAX_HELD - 64; i++) {
		cut(&whole, &piece, 8, 8, true, (uint16_t)(2 + i));
		expect_waits(&b, "one of all", EGRESS, &piece);
	}
	cut(&whole, &piece, 8, 8, true, (uint16_t)(2 + i));
	expect_run(&b, "one more of all", EGRESS, FORWARDED, &piece, SLUICE_DROP_frag_full, NULL);
	assert_int_equal(held(&b), SLUICE_MAX_HELD);
	/* What needs not wait is not hurt. */
	cut(&whole, &piece, 0, PIECE, true, 60000);
	expect_run(&b, "first", EGRESS, FORWARDED, &piece, NO_REASON, NULL);
	bed_close(&b);
}

/* The first piece decides: what is dropped of a client or a socket takes the others with it. */
static void test_first_decides(void **state)
{
	struct frame whole, in[PIECES], out;
	struct sluice_pool pool = pool_ids();
	uint32_t row;
	struct bed b;
	struct spec s = { .proto = P_UDP,
			  .src = SHARED,
			  .dst = REMOTE,
			  .sport = FIRST + 5,
			  .dport = 443,
			  .payload = DATA,
			  .frag = 0x8000 };

	(void)state;
	pool.unleased = SLUICE_UNLEASED_ALLOW;
	row = bed_scene(&b, MAX_FLOWS, pool);
	/* A segment that opens nothing. */
	long_out(&whole, P_TCP, 4000);
	whole.b[ETH_LEN + 20 + 13] = T_ACK;
	cut_all(&whole, in, 1);
	expect_run(&b, "first of no flow", EGRESS, FORWARDED, &in[0], SLUICE_DROP_no_flow, NULL);
	expect_run(&b, "second", EGRESS, FORWARDED, &in[1], SLUICE_DROP_fragment, NULL);
	/* A socket's own: in order, or not at all. */
	frame_build(&whole, &s);
	cut_all(&whole, in, 2);
	expect_run(&b, "socket, second alone", EGRESS, MADE_HERE, &in[1], SLUICE_DROP_fragment,
		   NULL);
	expect_run(&b, "socket, first", EGRESS, MADE_HERE, &in[0], NO_REASON, &out);
	assert_int_equal(get32(out.b + ETH_LEN + 12), SHARED);
	assert_int_equal(get16(out.b + ETH_LEN + 20), FIRST + 5);
	assert_true(id_of(&out) >= FIRST && id_of(&out) <= LAST);
	expect_run(&b, "socket, second", EGRESS, MADE_HERE, &in[1], NO_REASON, NULL);
	/* A forwarded one with the same identification is another's. */
	expect_run(&b, "spoofed", EGRESS, FORWARDED, &in[2], SLUICE_DROP_spoof, NULL);
	s.sport = LAST + 5;
	frame_build(&whole, &s);
	cut_all(&whole, in, 3);
	expect_run(&b, "escape, first", EGRESS, MADE_HERE, &in[0], SLUICE_DROP_escape, NULL);
	expect_run(&b, "escape, second", EGRESS, MADE_HERE, &in[1], SLUICE_DROP_fragment, NULL);
	/* The deadline passes between two pieces. */
	long_out(&whole, P_UDP, 4000);
	cut_all(&whole, in, 4);
	expect_run(&b, "first", EGRESS, FORWARDED, &in[0], NO_REASON, NULL);
	slice_deadline(&b, row, now_ns());
	expect_run(&b, "second, fenced", EGRESS, FORWARDED, &in[1], SLUICE_DROP_fenced, NULL);
	slice_deadline(&b, row, SLUICE_NEVER);
	expect_run(&b, "second", EGRESS, FORWARDED, &in[1], NO_REASON, NULL);
	slice_epoch(&b, row, 9);
	expect_run(&b, "last, of a lost slice", EGRESS, FORWARDED, &in[2], SLUICE_DROP_fragment,
		   NULL);
	bed_close(&b);
}

/* Pieces that no sender makes are refused; those that overlap behind the header are for the end to judge. */
static void test_shapes(void **state)
{
	static const struct {
		const char *name;
		uint8_t proto;
		uint16_t at, len;
		bool more;
		int reason; /* NO_REASON: passes, behind its first piece */
	} shapes[] = {
		{ "tiny first, UDP", P_UDP, 0, 4, true, SLUICE_DROP_malformed },
		{ "tiny first, TCP", P_TCP, 0, 16, true, SLUICE_DROP_malformed },
		{ "first of 8, TCP", P_TCP, 0, 8, true, SLUICE_DROP_malformed },
		{ "TCP at 8 (RFC 3128)", P_TCP, 8, 16, true, SLUICE_DROP_malformed },
		{ "TCP at 16", P_TCP, 16, 16, true, SLUICE_DROP_malformed },
		{ "TCP at 24", P_TCP, 24, 16, true, NO_REASON },
		{ "UDP at 8", P_UDP, 8, 16, true, NO_REASON },
		{ "no multiple of eight", P_UDP, 600, 20, true, SLUICE_DROP_malformed },
		{ "empty", P_UDP, 600, 0, true, SLUICE_DROP_malformed },
		{ "beyond 64 KiB", P_UDP, 65528, 16, false, SLUICE_DROP_malformed },
		{ "up to 64 KiB", P_UDP, 65504, 8, false, NO_REASON },
		{ "overlap", P_UDP, 304, 600, true, NO_REASON },
		{ "teardrop", P_UDP, 24, 4, false, NO_REASON },
	};
	struct frame whole, first, piece;
	struct bed b;
	size_t i;

	(void)state;
	bed_scene(&b, MAX_FLOWS, pool_ids());
	for (i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		uint16_t id = (uint16_t)(100 + i);

		long_out(&whole, shapes[i].proto, (uint16_t)(4000 + i));
		if (shapes[i].at) {
			cut(&whole, &first, 0, PIECE, true, id);
			expect_run(&b, shapes[i].name, EGRESS, FORWARDED, &first, NO_REASON, NULL);
		}
		cut(&whole, &piece, shapes[i].at, shapes[i].len, shapes[i].more, id);
		expect_run(&b, shapes[i].name, EGRESS, FORWARDED, &piece, shapes[i].reason, NULL);
	}
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_orders_out),    cmocka_unit_test(test_orders_in),
		cmocka_unit_test(test_duplicates),    cmocka_unit_test(test_meanwhile),
		cmocka_unit_test(test_first_is_lost), cmocka_unit_test(test_tracker_full),
		cmocka_unit_test(test_held_full),     cmocka_unit_test(test_first_decides),
		cmocka_unit_test(test_shapes),
	};

	return cmocka_run_group_tests_name("frag", tests, NULL, NULL);
}
