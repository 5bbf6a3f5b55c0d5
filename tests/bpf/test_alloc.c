/* SPDX-License-Identifier: BSD-2-Clause */
/* Ports: an allocation fails only when every port that could serve it is in use; where one is taken from can't be guessed. */
#include "flows.h"

#define PORTS 2048
#define FLOWS 16384

static struct conn conns[4 * PORTS];

struct seen_event {
	struct sluice_event e;
	uint32_t n;
};

static int keep_event(void *arg, void *data, size_t size)
{
	struct seen_event *s = arg;

	assert_true(size >= sizeof(s->e));
	memcpy(&s->e, data, sizeof(s->e));
	s->n++;
	return 0;
}

static void expect_no_port_event(struct bed *b, const char *name, const struct conn *c)
{
	struct spec s = conn_out(c, T_SYN);
	struct seen_event got = { 0 };
	struct frame in;
	uint32_t n;

	frame_build(&in, &s);
	n = in.len - ETH_LEN;
	n = n < SLUICE_EVENT_SNAP ? n : SLUICE_EVENT_SNAP;
	bed_events(b, keep_event, &got);
	if (got.n != 1)
		die("%s: %u events", name, got.n);
	assert_int_equal(got.e.kind, SLUICE_EVENT_DROP);
	assert_int_equal(got.e.reason, SLUICE_DROP_no_port);
	assert_int_equal(got.e.pool, 0);
	assert_int_equal(got.e.ifindex, FORWARDED);
	assert_int_equal(ip_of(&got.e.key.src), c->src);
	assert_int_equal(ip_of(&got.e.key.dst), c->dst);
	assert_int_equal(ntohs(got.e.key.sport), c->sport);
	assert_int_equal(ntohs(got.e.key.dport), c->dport);
	assert_int_equal(got.e.key.proto, c->proto);
	assert_int_equal(got.e.snap_len, n);
	assert_memory_equal(got.e.snap, in.b + ETH_LEN, n);
	assert_true(got.e.time_ns <= now_ns() && got.e.time_ns > now_ns() - 60000000000ULL);
}

static void kill_port_fwd(const struct sluice_flow_key *key, struct sluice_flow *flow, void *arg)
{
	(void)key;
	if (ntohs(flow->port) == *(uint16_t *)arg)
		flow->seen_s -= 70;
}

static void kill_port_rev(const struct sluice_flow_key *key, struct sluice_flow *flow, void *arg)
{
	(void)flow;
	if (ntohs(key->dport) == *(uint16_t *)arg)
		flow->seen_s -= 70;
}

/* One slice, one destination: every port is given, once; the next flow is refused; a port that comes free is found. */
static void fill(enum sluice_mapping mapping, uint8_t proto)
{
	static uint8_t used[65536];
	struct sluice_pool_stats st;
	struct conn extra, freed;
	struct bed b;
	uint32_t i, k;
	char name[64];

	snprintf(name, sizeof(name), "mapping %d, protocol %u", mapping, proto);
	memset(used, 0, sizeof(used));
	bed_scene(&b, FLOWS, pool_all(mapping));
	for (i = 0; i < PORTS; i++) {
		conns[i] = nth(proto, i, REMOTE);
		conn_sends(&b, name, &conns[i], T_SYN);
		if (conns[i].port < FIRST || conns[i].port > LAST || used[conns[i].port]++)
			die("%s: flow %u got port %u", name, i, conns[i].port);
	}
	st = bed_stats(&b, 0);
	assert_int_equal(st.created[l4_of(proto)], PORTS);
	assert_int_equal(st.refused[l4_of(proto)], 0);

	extra = nth(proto, PORTS, REMOTE);
	conn_sends_dropped(&b, name, &extra, T_SYN, SLUICE_DROP_no_port);
	expect_no_port_event(&b, name, &extra);
	for (i = 0; i < 50; i++) {
		extra = nth(proto, PORTS + 1 + i, REMOTE);
		conn_sends_dropped(&b, name, &extra, T_SYN, SLUICE_DROP_no_port);
	}
	st = bed_stats(&b, 0);
	assert_int_equal(st.refused[l4_of(proto)], 51);
	for (i = 0; i < PORTS; i++) {
		conn_answers(&b, name, &conns[i], T_SYN | T_ACK);
		conn_sends_same(&b, name, &conns[i], T_ACK);
	}
	assert_int_equal(flows_count(b.nat->maps.fwd), PORTS);

	/* Free one; the next flow gets precisely it. */
	for (k = 0; k < 20; k++) {
		freed = conns[k * 97];
		/* An established connection would live on for two hours: let it be reset first. */
		if (proto == P_TCP)
			conn_sends_same(&b, name, &freed, T_RST);
		flows_each(b.nat->maps.fwd, kill_port_fwd, &freed.port);
		flows_each(b.nat->maps.rev, kill_port_rev, &freed.port);
		bed_sweep(&b);
		extra = nth(proto, 3 * PORTS + k, REMOTE);
		conn_sends(&b, name, &extra, T_SYN);
		if (extra.port != freed.port)
			die("%s: %u came free, %u was given", name, freed.port, extra.port);
		conn_answers(&b, name, &extra, T_SYN | T_ACK);
		conns[k * 97] = extra;
	}

	/* Other destinations: in overload the whole slice again, else those who have a port. */
	memset(used, 0, sizeof(used));
	for (i = 0; i < PORTS; i++) {
		struct conn c = conns[i];

		c.dst = REMOTE2;
		conn_sends(&b, name, &c, T_SYN);
		if (used[c.port]++)
			die("%s: second destination: port %u twice", name, c.port);
		if (mapping == SLUICE_EIM && c.port != conns[i].port)
			die("%s: the mapping of port %u moved to %u", name, conns[i].port, c.port);
		conn_answers(&b, name, &c, T_SYN | T_ACK);
	}
	extra = nth(proto, 3 * PORTS + 100, REMOTE2);
	conn_sends_dropped(&b, name, &extra, T_SYN, SLUICE_DROP_no_port);
	bed_close(&b);
}

static void test_fill_overload(void **state)
{
	(void)state;
	need_uptime(75);
	fill(SLUICE_OVERLOAD, P_TCP);
	fill(SLUICE_OVERLOAD, P_UDP);
}

static void test_fill_eim(void **state)
{
	(void)state;
	need_uptime(75);
	fill(SLUICE_EIM, P_UDP);
	fill(SLUICE_EIM, P_TCP);
	fill(SLUICE_EIM, P_ICMP);
}

/*
 * Exact at the edge: in a full slice of 64 ports, one port after the other comes free, and every time the next flow finds it,
 * wherever its search begins.
 */
static void last_port(enum sluice_mapping mapping, uint8_t proto)
{
	struct conn c;
	struct bed b;
	uint32_t i, at;

	bed_open(&b, FLOWS);
	bed_pool(&b, 0, pool_all(mapping));
	bed_addr(&b, 0, SHARED, 6);
	bed_client(&b, IP(10, 1, 0, 0), 16, 0);
	bed_slice(&b, SHARED, 4096, SLUICE_NEVER);
	for (i = 0; i < 64; i++) {
		conns[i] = nth(proto, i, REMOTE);
		conn_sends(&b, "fill", &conns[i], T_SYN);
	}
	for (i = 0; i < 600; i++) {
		at = i * 29 % 64;
		flows_each(b.nat->maps.fwd, kill_port_fwd, &conns[at].port);
		flows_each(b.nat->maps.rev, kill_port_rev, &conns[at].port);
		bed_sweep(&b);
		c = nth(proto, 100 + i, REMOTE);
		conn_sends(&b, "the last port", &c, T_SYN);
		assert_int_equal(c.port, conns[at].port);
		conns[at] = c;
	}
	bed_close(&b);
}

static void test_last_port(void **state)
{
	(void)state;
	need_uptime(75);
	last_port(SLUICE_OVERLOAD, P_TCP);
	last_port(SLUICE_EIM, P_UDP);
}

/* The protocols have tables of their own: each fills the slice, whatever the others have. */
static void test_protocols_apart(void **state)
{
	static const uint8_t protos[] = { P_TCP, P_UDP, P_ICMP };
	struct conn c;
	struct bed b;
	uint32_t i, k;

	(void)state;
	bed_open(&b, FLOWS);
	bed_pool(&b, 0, pool_default());
	bed_addr(&b, 0, SHARED, 6);
	bed_client(&b, IP(10, 1, 0, 0), 16, 0);
	bed_slice(&b, SHARED, 4096, SLUICE_NEVER);
	for (k = 0; k < 3; k++) {
		for (i = 0; i < 64; i++) {
			c = nth(protos[k], i, REMOTE);
			conn_sends(&b, "64 ports", &c, T_SYN);
		}
		c = nth(protos[k], i, REMOTE);
		conn_sends_dropped(&b, "no 65th", &c, T_SYN, SLUICE_DROP_no_port);
	}
	bed_close(&b);
}

/* Several slices on several addresses: all of them fill before anybody is refused, and none beyond its edges. */
static void slices_fill(enum sluice_mapping mapping, uint8_t proto)
{
	static const struct {
		uint32_t ip;
		uint16_t first;
	} slices[] = { { SHARED, 4096 }, { SHARED, 4608 }, { SHARED, 65280 }, { SHARED2, 4096 } };
	static uint8_t used[4][256];
	struct conn c;
	struct bed b;
	uint32_t i, k;

	memset(used, 0, sizeof(used));
	bed_open(&b, FLOWS);
	bed_pool(&b, 0, pool_all(mapping));
	bed_addr(&b, 0, SHARED, 8);
	bed_addr(&b, 0, SHARED2, 8);
	bed_client(&b, IP(10, 1, 0, 0), 16, 0);
	for (k = 0; k < 4; k++)
		bed_slice(&b, slices[k].ip, slices[k].first, SLUICE_NEVER);
	for (i = 0; i < 1024; i++) {
		c = nth(proto, i, REMOTE);
		conn_sends(&b, "of 1024", &c, T_SYN);
		for (k = 0; k < 4; k++)
			if (c.outer == slices[k].ip && c.port >= slices[k].first &&
			    c.port - slices[k].first < 256)
				break;
		if (k == 4 || used[k][c.port - slices[k].first]++)
			die("flow %u got %08x:%u", i, c.outer, c.port);
		conns[i] = c;
	}
	c = nth(proto, i, REMOTE);
	conn_sends_dropped(&b, "the 1025th", &c, T_SYN, SLUICE_DROP_no_port);
	for (i = 0; i < 1024; i++)
		conn_answers(&b, "of 1024", &conns[i], T_SYN | T_ACK);
	bed_close(&b);
}

static void test_slices_fill(void **state)
{
	(void)state;
	slices_fill(SLUICE_OVERLOAD, P_TCP);
	slices_fill(SLUICE_EIM, P_UDP);
}

/*
 * RFC 6056: ports are spread over the first three quarters of the slice (the last one is for leases, while there is room) and do not follow each other. 512 of
 * 1536, counted in 12 parts: chi-square with 11 degrees of freedom lies above 100 less than once in 10^14 times.
 */
static void spread(enum sluice_mapping mapping, uint8_t proto, uint64_t secret)
{
	uint32_t part[16] = { 0 }, i, in_order = 0;
	double chi = 0;
	struct conn c;
	struct bed b;
	int last = 0;

	bed_secret = secret;
	bed_scene(&b, FLOWS, pool_all(mapping));
	bed_secret = 0;
	for (i = 0; i < 512; i++) {
		/* As alike as flows can be: one client, ports one after the other. */
		c = conn_of(proto, CLIENT, (uint16_t)(10000 + i), REMOTE, proto == P_ICMP ? 0 : 80);
		conn_sends(&b, "spread", &c, T_SYN);
		part[(c.port - FIRST) / 128]++;
		in_order += c.port == last + 1 || c.port == last - 1;
		last = c.port;
	}
	for (i = 0; i < 12; i++)
		chi += (part[i] - 512 / 12.0) * (part[i] - 512 / 12.0) / (512 / 12.0);
	if (part[12] + part[13] + part[14] + part[15])
		die("mapping %d: ports in the last quarter", mapping);
	if (chi > 100)
		die("mapping %d: chi-square %f", mapping, chi);
	/* By chance about 2 in 512 do. */
	if (in_order > 30)
		die("mapping %d: %u ports follow the one before", mapping, in_order);
	bed_close(&b);
}

static void test_spread(void **state)
{
	uint64_t i;

	(void)state;
	for (i = 0; i < 4; i++) {
		spread(SLUICE_OVERLOAD, P_TCP, i * 0x9e3779b97f4a7c15ULL);
		spread(SLUICE_EIM, P_UDP, i * 0x9e3779b97f4a7c15ULL);
	}
}

/* A block whose mode is "free" gives no port, and neither does one of the other mapping. */
static void test_block_modes(void **state)
{
	static const uint32_t modes[] = { SLUICE_BLOCK_FREE, SLUICE_BLOCK_OVERLOAD,
					  SLUICE_BLOCK_EIM };
	struct sluice_slice s;
	struct conn c;
	struct bed b;
	uint32_t row, i, m, eim;

	(void)state;
	for (eim = 0; eim < 2; eim++) {
		row = bed_scene(&b, FLOWS, pool_all(eim ? SLUICE_EIM : SLUICE_OVERLOAD));
		map_get_row(b.nat->maps.slices, row, &s);
		for (m = 0; m < 32; m++) {
			struct sluice_block block = { .mode = modes[m % 3] };

			map_put_row(b.nat->maps.blocks,
				    sluice_block_row(s.block_base, PORTS, SLUICE_UDP, m * 64),
				    &block);
		}
		for (i = 0; i < 32 / 3 * 64u + (eim ? 0 : 64); i++) {
			c = nth(P_UDP, i, REMOTE);
			conn_sends(&b, "a block of the right mode", &c, 0);
			assert_int_equal(modes[(c.port - FIRST) / 64 % 3],
					 eim ? SLUICE_BLOCK_EIM : SLUICE_BLOCK_OVERLOAD);
		}
		c = nth(P_UDP, i, REMOTE);
		conn_sends_dropped(&b, "no other block", &c, 0, SLUICE_DROP_no_port);
		bed_close(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fill_overload), cmocka_unit_test(test_fill_eim),
		cmocka_unit_test(test_last_port),     cmocka_unit_test(test_protocols_apart),
		cmocka_unit_test(test_slices_fill),   cmocka_unit_test(test_spread),
		cmocka_unit_test(test_block_modes),
	};

	return cmocka_run_group_tests_name("alloc", tests, NULL, NULL);
}
