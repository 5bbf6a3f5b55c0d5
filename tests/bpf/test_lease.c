/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ports under lease: NAT never takes one, gives all others, and knows at once when one is free again; its own count of the flows on each port is
 * exact. The leases' side is played by harness.h, which has the daemon's half of the protocol.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "flows.h"

#define BASE   4096
#define NPORTS 64
#define FLOWS  4096

static uint32_t scene(struct bed *b, struct sluice_pool pool)
{
	bed_open(b, FLOWS);
	bed_pool(b, 0, pool);
	bed_addr(b, 0, SHARED, 6);
	bed_client(b, IP(10, 1, 0, 0), 16, 0);
	return bed_slice(b, SHARED, BASE, SLUICE_NEVER);
}

/* Sends new flows to dst until there is no port. Returns the ports they got as bits. from: which flows (nth()). */
static uint64_t fill_all(struct bed *b, const char *what, uint8_t proto, uint32_t dst,
			 uint32_t from)
{
	uint64_t got = 0, bit;
	struct frame in;
	struct spec s;
	struct view v;
	struct run r;
	uint32_t i;

	for (i = 0; i <= NPORTS; i++) {
		struct conn c = nth(proto, from + i, dst);

		s = conn_out(&c, T_SYN);
		send_spec(b, EGRESS, FORWARDED, &s, &in, &r);
		if (r.reason == SLUICE_DROP_no_port)
			break;
		expect_rewritten(what, &in, &r, true, &v);
		bit = 1ULL << (v.sport - BASE) % 64;
		if (v.sport < BASE || v.sport >= BASE + NPORTS || (got & bit))
			die("%s: port %u", what, v.sport);
		got |= bit;
	}
	return got;
}

static void expect_ports(const char *what, uint64_t got, uint64_t want)
{
	if (got != want)
		die("%s: ports %016llx given, should be %016llx", what, (unsigned long long)got,
		    (unsigned long long)want);
}

static void passes_over(enum sluice_mapping mapping, uint8_t proto)
{
	const uint64_t leased = 0x8000f00000000a01ULL;
	uint32_t row, l4 = l4_of(proto), i;
	struct port_at at;
	char name[64];
	struct conn c;
	struct bed b;

	snprintf(name, sizeof(name), "mapping %d, protocol %u", mapping, proto);
	row = scene(&b, pool_all(mapping));
	for (i = 0; i < NPORTS; i++) {
		at = bed_port(&b, row, l4, BASE + i);
		if (leased >> i & 1)
			assert_true(port_claim(&at, mapping == SLUICE_EIM));
	}
	expect_ports(name, fill_all(&b, name, proto, REMOTE, 0), ~leased);
	expect_counts(&b, name);
	/* What NAT has cannot be leased. */
	at = bed_port(&b, row, l4, BASE + 1);
	assert_false(port_claim(&at, mapping == SLUICE_EIM));
	/* Given back, a port is found at once, also by who was refused a moment ago; and no other one. */
	for (i = 0; i < NPORTS; i++) {
		if (!(leased >> i & 1))
			continue;
		c = nth(proto, 1000 + 2 * i, REMOTE);
		conn_sends_dropped(&b, name, &c, T_SYN, SLUICE_DROP_no_port);
		at = bed_port(&b, row, l4, BASE + i);
		port_unclaim(&at);
		conn_sends(&b, name, &c, T_SYN);
		if (c.port != BASE + i)
			die("%s: %u came free, %u was given", name, BASE + i, c.port);
		conn_answers(&b, name, &c, T_SYN | T_ACK);
		c = nth(proto, 1001 + 2 * i, REMOTE);
		conn_sends_dropped(&b, name, &c, T_SYN, SLUICE_DROP_no_port);
	}
	expect_counts(&b, name);
	bed_close(&b);
}

static void test_passed_over(void **state)
{
	(void)state;
	passes_over(SLUICE_OVERLOAD, P_TCP);
	passes_over(SLUICE_OVERLOAD, P_UDP);
	passes_over(SLUICE_EIM, P_TCP);
	passes_over(SLUICE_EIM, P_UDP);
}

/* Leases of one protocol take nothing from the others. */
static void test_protocols_apart(void **state)
{
	struct port_at at;
	struct bed b;
	uint32_t row, i;

	(void)state;
	row = scene(&b, pool_default());
	for (i = 0; i < NPORTS; i++) {
		at = bed_port(&b, row, SLUICE_TCP, BASE + i);
		assert_true(port_claim(&at, false));
	}
	expect_ports("tcp", fill_all(&b, "tcp", P_TCP, REMOTE, 0), 0);
	expect_ports("udp", fill_all(&b, "udp", P_UDP, REMOTE, 0), ~0ULL);
	expect_ports("icmp", fill_all(&b, "icmp", P_ICMP, REMOTE, 0), ~0ULL);
	bed_close(&b);
}

/* A socket on a tuple that NAT has is moved to another port, and that is no leased one either. */
static void moved_socket(enum sluice_mapping mapping, uint8_t proto)
{
	struct conn nat = conn_of(proto, CLIENT, 1000, REMOTE, 80);
	struct sluice_pool p = pool_all(mapping);
	struct port_at at;
	uint32_t row, i;
	struct frame in;
	struct spec s;
	struct view v;
	struct run r;
	struct bed b;

	p.unleased = SLUICE_UNLEASED_ALLOW;
	row = scene(&b, p);
	conn_sends(&b, "nat", &nat, T_SYN);
	for (i = 0; i < NPORTS; i++) {
		at = bed_port(&b, row, l4_of(proto), BASE + i);
		if (BASE + i != nat.port && i != 17 && i != 18)
			assert_true(port_claim(&at, mapping == SLUICE_EIM));
	}
	s = conn_out(&nat, T_SYN);
	s.src = SHARED;
	s.sport = nat.port;
	send_spec(&b, EGRESS, MADE_HERE, &s, &in, &r);
	expect_rewritten("the socket", &in, &r, true, &v);
	assert_true(v.sport != nat.port && (v.sport == BASE + 17 || v.sport == BASE + 18));
	expect_counts(&b, "moved");
	bed_close(&b);
}

static void test_moved_socket(void **state)
{
	(void)state;
	moved_socket(SLUICE_OVERLOAD, P_TCP);
	moved_socket(SLUICE_OVERLOAD, P_UDP);
	moved_socket(SLUICE_EIM, P_UDP);
	moved_socket(SLUICE_EIM, P_TCP);
}

/* The counts follow the flows: several to a port, ended by the sweep, by a packet that finds one dead, or refused half way. */
static void test_counts(void **state)
{
	static const uint8_t protos[] = { P_TCP, P_UDP };
	struct bed b;
	uint32_t i;

	(void)state;
	need_uptime(400);
	scene(&b, pool_all(SLUICE_OVERLOAD));
	for (i = 0; i < 2; i++) {
		fill_all(&b, "one", protos[i], REMOTE, 0);
		fill_all(&b, "two", protos[i], REMOTE2, 0);
		fill_all(&b, "three", protos[i], OTHER, 0);
	}
	assert_int_equal(expect_counts(&b, "full"), 6 * NPORTS);
	/* Dead, and the same clients come again. */
	bed_age(&b, 70);
	for (i = 0; i < 2; i++)
		fill_all(&b, "again", protos[i], REMOTE, 0);
	assert_int_equal(expect_counts(&b, "reborn"), 6 * NPORTS);
	bed_sweep(&b);
	assert_int_equal(expect_counts(&b, "swept"), 2 * NPORTS);
	bed_age(&b, 70);
	bed_sweep(&b);
	assert_int_equal(flows_count(b.nat->maps.rev), 0);
	assert_int_equal(expect_counts(&b, "empty"), 0);
	bed_close(&b);
}

/* A table without room: what a flow had taken when it was refused is given back. */
static void test_counts_table_full(void **state)
{
	enum { SMALL = 64 };
	struct frame in;
	struct spec s;
	struct run r;
	struct bed b;
	uint32_t i, refused = 0;

	(void)state;
	bed_open(&b, SMALL);
	bed_pool(&b, 0, pool_all(SLUICE_OVERLOAD));
	bed_addr(&b, 0, SHARED, 9);
	bed_client(&b, IP(10, 1, 0, 0), 16, 0);
	bed_slice(&b, SHARED, BASE, SLUICE_NEVER);
	for (i = 0; i < 4 * SMALL; i++) {
		struct conn c = nth(P_TCP, i, REMOTE);

		s = conn_out(&c, T_SYN);
		send_spec(&b, EGRESS, FORWARDED, &s, &in, &r);
		refused += r.reason == SLUICE_DROP_table_full;
	}
	assert_true(refused > SMALL);
	expect_counts(&b, "full table");
	bed_close(&b);
}

/* A slice that is lost: its flows go without touching the counts, which then belong to whoever has the rows next. */
static void test_counts_slice_lost(void **state)
{
	struct port_at at;
	struct bed b;
	uint32_t row;

	(void)state;
	row = scene(&b, pool_all(SLUICE_OVERLOAD));
	fill_all(&b, "before", P_TCP, REMOTE, 0);
	slice_epoch(&b, row, 2);
	/* What dp_publish() does. */
	at = bed_port(&b, row, SLUICE_TCP, BASE);
	memset(at.flows, 0, sizeof(struct sluice_port_flows));
	++*at.released;
	fill_all(&b, "after", P_TCP, REMOTE2, 500);
	assert_int_equal(expect_counts(&b, "two epochs"), NPORTS);
	bed_sweep(&b);
	assert_int_equal(flows_count(b.nat->maps.rev), NPORTS);
	assert_int_equal(expect_counts(&b, "swept"), NPORTS);
	bed_close(&b);
}

/* At no moment have a lease and NAT a port in common. */

struct nat_side {
	struct bed *bed;
	struct conn conn;
	struct sluice_flow_key fwd, rev; /* rev: without its port */
	bool eim;
	atomic_bool *stop;
	atomic_uint births;
	int err;
	const char *wrong;
};

static void flow_kill(struct bpf_map *m, const struct sluice_flow_key *key)
{
	struct sluice_flow f;

	if (bpf_map_lookup_elem(bpf_map__fd(m), key, &f))
		return;
	f.seen_s -= 100;
	bpf_map_update_elem(bpf_map__fd(m), key, &f, BPF_EXIST);
}

/* One flow that dies and is born again on another port, over and over. */
static void *nat_run(void *arg)
{
	struct nat_side *n = arg;
	struct spec s = conn_out(&n->conn, T_SYN);
	struct sluice_flow_key rev = n->rev;
	struct frame in;
	struct view v;
	struct run r;

	frame_build(&in, &s);
	while (!atomic_load(n->stop) && !n->err && !n->wrong) {
		n->err = bed_try(n->bed, EGRESS, FORWARDED, &in, &r);
		if (n->err)
			break;
		if (r.verdict == VERDICT_DROP) /* each port is in a claim at this moment */
			continue;
		n->wrong = frame_rewritten(&in, &r.out, true, &v);
		atomic_fetch_add(&n->births, 1);
		rev.dport = htons(v.sport);
		flow_kill(n->bed->nat->maps.fwd, &n->fwd);
		if (!n->eim)
			flow_kill(n->bed->nat->maps.rev, &rev);
	}
	return NULL;
}

/* Has this side's flow the port? */
static bool nat_has(const struct nat_side *n, uint16_t port)
{
	struct sluice_flow_key rev = n->rev;
	struct sluice_flow f;

	if (n->eim)
		return !bpf_map_lookup_elem(bpf_map__fd(n->bed->nat->maps.fwd), &n->fwd, &f) &&
		       ntohs(f.port) == port;
	rev.dport = htons(port);
	return !bpf_map_lookup_elem(bpf_map__fd(n->bed->nat->maps.rev), &rev, &f);
}

static void race(enum sluice_mapping mapping, uint8_t proto)
{
	enum { ENOUGH = 10000, CLAIMS = 60000 };
	uint32_t row, i, claims = 0, refused = 0, k;
	bool eim = mapping == SLUICE_EIM;
	struct port_at at[NPORTS];
	struct nat_side n[2];
	atomic_bool stop = false;
	uint16_t both = 0;
	pthread_t t[2];
	uint64_t end;
	struct bed b;

	row = scene(&b, pool_all(mapping));
	for (i = 0; i < NPORTS; i++)
		at[i] = bed_port(&b, row, l4_of(proto), BASE + i);
	/* Few ports, so that both sides meet often. */
	for (i = 6; i < NPORTS; i++)
		assert_true(port_claim(&at[i], eim));
	for (i = 0; i < 2; i++) {
		struct conn c = conn_of(proto, CLIENT + i, 1000, REMOTE + i, 80);

		n[i] = (struct nat_side){ .bed = &b, .conn = c, .eim = eim, .stop = &stop };
		n[i].fwd.src = addr_of(c.src);
		n[i].fwd.sport = htons(c.sport);
		n[i].fwd.proto = proto;
		if (!eim) {
			n[i].fwd.dst = addr_of(c.dst);
			n[i].fwd.dport = htons(c.dport);
		}
		n[i].rev.src = addr_of(c.dst);
		n[i].rev.sport = htons(c.dport);
		n[i].rev.dst = addr_of(SHARED);
		n[i].rev.proto = proto;
		if (pthread_create(&t[i], NULL, nat_run, &n[i]))
			die("pthread_create failed");
	}
	end = now_ns() + 90 * 1000000000ULL;
	for (i = 0; !both && now_ns() < end &&
		    (claims < CLAIMS || refused < ENOUGH / 10 ||
		     atomic_load(&n[0].births) < ENOUGH || atomic_load(&n[1].births) < ENOUGH);
	     i = (i + 1) % 6) {
		if (!port_claim(&at[i], eim)) {
			refused++;
			continue;
		}
		claims++;
		for (k = 0; k < 3; k++)
			if (nat_has(&n[0], (uint16_t)(BASE + i)) ||
			    nat_has(&n[1], (uint16_t)(BASE + i)))
				both = (uint16_t)(BASE + i);
		port_unclaim(&at[i]);
	}
	atomic_store(&stop, true);
	for (i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	for (i = 0; i < 2; i++) {
		if (n[i].err)
			die("test run: %s", strerror(-n[i].err));
		if (n[i].wrong)
			die("%s", n[i].wrong);
	}
	if (both)
		die("mapping %d, protocol %u: after %u claims, port %u is leased and NAT's",
		    mapping, proto, claims, both);
	if (now_ns() >= end)
		die("mapping %d: only %u claims, %u refused, %u and %u flows", mapping, claims,
		    refused, atomic_load(&n[0].births), atomic_load(&n[1].births));
	expect_counts(&b, "after the race");
	bed_age(&b, 100);
	bed_sweep(&b);
	assert_int_equal(expect_counts(&b, "at the end"), 0);
	for (i = 0; i < 6; i++)
		assert_true(port_claim(&at[i], eim));
	bed_close(&b);
}

static void test_race(void **state)
{
	(void)state;
	need_uptime(250);
	race(SLUICE_OVERLOAD, P_TCP);
	race(SLUICE_OVERLOAD, P_UDP);
	race(SLUICE_EIM, P_UDP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_passed_over),
		cmocka_unit_test(test_protocols_apart),
		cmocka_unit_test(test_moved_socket),
		cmocka_unit_test(test_counts),
		cmocka_unit_test(test_counts_table_full),
		cmocka_unit_test(test_counts_slice_lost),
		cmocka_unit_test(test_race),
	};

	return cmocka_run_group_tests_name("lease", tests, NULL, NULL);
}
