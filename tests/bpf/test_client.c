/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What one client may have: ports, flows, flows a second, and one shared address. Refused beyond that, for the right reason; and whatever
 * becomes of its flows, in the end nothing is counted.
 */
#include "flows.h"

#define FLOWS 4096

static struct sluice_client_key client_key_of(uint32_t ip, uint16_t zone)
{
	struct sluice_client_key k = { .addr = addr_of(ip), .zone = zone };

	return k;
}

/* Nothing ends by itself, and everything when time is set back a little. */
static struct sluice_pool pool_short(struct sluice_pool p)
{
	p.timers = (struct sluice_timers){ 60, 60, 60, 60, 60, 60, 60, 60 };
	return p;
}

static uint32_t refs(const struct sluice_client *c)
{
	return (uint32_t)(c->word & 0x0fffffff);
}

/* What is counted for a client; all zero where it has no row. */
static struct sluice_client client_of(struct bed *b, uint32_t ip)
{
	struct sluice_client_key k = client_key_of(ip, 0);
	struct sluice_client c;

	memset(&c, 0, sizeof(c));
	if (bpf_map_lookup_elem(bpf_map__fd(b->nat->maps.client_state), &k, &c) && errno != ENOENT)
		die("looking for a client: %s", strerror(errno));
	return c;
}

static void expect_client(struct bed *b, const char *what, uint32_t ip, uint32_t l4, uint32_t ports,
			  uint32_t states, uint32_t entries)
{
	struct sluice_client c = client_of(b, ip);

	if (c.ports[l4] != ports || c.states != states || refs(&c) != entries)
		die("%s: %u ports, %u states, %u entries counted, should be %u, %u, %u", what,
		    c.ports[l4], c.states, refs(&c), ports, states, entries);
}

/* Neither rows nor anything in them: every flow has ended. */
static void expect_nobody(struct bed *b, const char *what)
{
	struct sluice_client_key k, next;
	struct sluice_client c;
	int fd = bpf_map__fd(b->nat->maps.client_state);

	if (!bpf_map_get_next_key(fd, NULL, &next)) {
		k = next;
		map_get(b->nat->maps.client_state, &k, &c);
		die("%s: a client is left with %u, %u, %u ports, %u states, %u entries", what,
		    c.ports[0], c.ports[1], c.ports[2], c.states, refs(&c));
	}
}

static void end_all(struct bed *b)
{
	bed_age(b, 120);
	bed_sweep(b);
	bed_sweep(b);
}

/* Each mode and protocol: so many ports and no more, another client is not concerned, and what ends makes room. */
static void test_ports(void **state)
{
	static const uint8_t protos[] = { P_TCP, P_UDP, P_ICMP };
	static const enum sluice_mapping mappings[] = { SLUICE_OVERLOAD, SLUICE_EIM };
	struct sluice_pool pool;
	struct conn c, other;
	struct bed b;
	size_t m, i;
	uint32_t n;

	(void)state;
	for (m = 0; m < 2; m++) {
		for (i = 0; i < 3; i++) {
			if (protos[i] == P_ICMP && mappings[m] == SLUICE_OVERLOAD)
				continue; /* always endpoint-independent */
			pool = pool_short(pool_with(mappings[m], SLUICE_FILTER_ADDRESS));
			pool.client_ports[l4_of(protos[i])] = 5;
			bed_scene(&b, FLOWS, pool);
			for (n = 0; n < 5; n++) {
				c = conn_of(protos[i], CLIENT, (uint16_t)(1000 + n), REMOTE, 80);
				conn_sends(&b, "within the limit", &c, T_SYN);
			}
			c.sport = 2000;
			conn_sends_dropped(&b, "beyond the limit", &c, T_SYN,
					   SLUICE_DROP_client_ports);
			expect_client(&b, "full", CLIENT, l4_of(protos[i]), 5, 5,
				      mappings[m] == SLUICE_EIM ? 10 : 5);
			other = conn_of(protos[i], CLIENT + 1, 1000, REMOTE, 80);
			conn_sends(&b, "another client", &other, T_SYN);
			/* The ones that are there go on; those of a mapping may begin another session. */
			c.sport = 1000;
			conn_sends(&b, "one that is there", &c, T_SYN);
			if (mappings[m] == SLUICE_EIM) {
				c.dst = REMOTE + 9;
				conn_sends(&b, "another session", &c, T_SYN);
				expect_client(&b, "session", CLIENT, l4_of(protos[i]), 5, 6, 11);
			}
			end_all(&b);
			expect_nobody(&b, "ended");
			c = conn_of(protos[i], CLIENT, 2000, REMOTE, 80);
			conn_sends(&b, "again", &c, T_SYN);
			bed_close(&b);
		}
	}
}

static void test_states(void **state)
{
	struct sluice_pool pool = pool_short(pool_default());
	struct conn c;
	struct bed b;
	uint32_t n;

	(void)state;
	pool.client_states = 6;
	bed_scene(&b, FLOWS, pool);
	for (n = 0; n < 3; n++) {
		c = conn_of(P_TCP, CLIENT, (uint16_t)(1000 + n), REMOTE, 80);
		conn_sends(&b, "TCP", &c, T_SYN);
		c = conn_of(P_UDP, CLIENT, 1000, REMOTE + n, 80);
		conn_sends(&b, "UDP", &c, 0);
	}
	/* All protocols together, and sessions of a mapping one by one. */
	c = conn_of(P_TCP, CLIENT, 2000, REMOTE, 80);
	conn_sends_dropped(&b, "TCP beyond", &c, T_SYN, SLUICE_DROP_client_states);
	c = conn_of(P_UDP, CLIENT, 1000, REMOTE + 9, 80);
	conn_sends_dropped(&b, "session beyond", &c, 0, SLUICE_DROP_client_states);
	/* A new mapping whose session is refused does not keep its port. */
	c = conn_of(P_UDP, CLIENT, 3000, REMOTE, 80);
	conn_sends_dropped(&b, "mapping beyond", &c, 0, SLUICE_DROP_client_states);
	expect_client(&b, "UDP ports", CLIENT, SLUICE_UDP, 1, 6, 7);
	expect_client(&b, "TCP ports", CLIENT, SLUICE_TCP, 3, 6, 7);
	end_all(&b);
	expect_nobody(&b, "ended");
	bed_close(&b);
}

static uint64_t limited_of(struct bed *b)
{
	struct sluice_pool_stats st[256];
	uint64_t n = 0;
	uint32_t zero = 0;
	int i;

	if (bpf_map_lookup_elem(bpf_map__fd(b->nat->maps.pool_stats), &zero, st))
		die("reading pool_stats: %s", strerror(errno));
	for (i = 0; i < libbpf_num_possible_cpus(); i++)
		n += st[i].limited;
	return n;
}

/* A burst, then nothing; a while later as many as the rate gives. Stray segments cost nothing. */
static void test_rate(void **state)
{
	struct sluice_client_key k = client_key_of(CLIENT, 0);
	struct sluice_pool pool = pool_short(pool_default());
	struct sluice_client row;
	struct conn c;
	struct bed b;
	uint32_t n;

	(void)state;
	pool.client_rate = 1; /* slow: the test itself takes less than a second */
	pool.client_burst = 20;
	bed_scene(&b, FLOWS, pool);
	for (n = 0; n < 50; n++) {
		c = conn_of(P_TCP, CLIENT, (uint16_t)(5000 + n), REMOTE, 80);
		conn_sends_dropped(&b, "stray", &c, T_ACK, SLUICE_DROP_no_flow);
	}
	for (n = 0; n < 20; n++) {
		c = conn_of(n % 2 ? P_TCP : P_UDP, CLIENT, (uint16_t)(1000 + n), REMOTE, 80);
		conn_sends(&b, "burst", &c, T_SYN);
	}
	row = client_of(&b, CLIENT);
	row.bucket &= ~0xffffffffULL; /* whatever a slow test was given meanwhile */
	map_put(b.nat->maps.client_state, &k, &row);
	c.sport = 2000;
	conn_sends_dropped(&b, "after the burst", &c, T_SYN, SLUICE_DROP_client_rate);
	c.proto = P_UDP;
	conn_sends_dropped(&b, "after the burst, UDP", &c, 0, SLUICE_DROP_client_rate);
	if (limited_of(&b) != 2)
		die("%llu refused by limits, should be 2", (unsigned long long)limited_of(&b));
	/* What goes on is not new. */
	c = conn_of(P_UDP, CLIENT, 1000, REMOTE, 80);
	conn_sends(&b, "goes on", &c, 0);
	expect_client(&b, "after the burst", CLIENT, SLUICE_UDP, 10, 20, 30);
	/* Three seconds ago, and half a second: three flows. */
	row = client_of(&b, CLIENT);
	row.bucket = ((row.bucket >> 32) - 3500) << 32;
	map_put(b.nat->maps.client_state, &k, &row);
	for (n = 0; n < 3; n++) {
		c = conn_of(P_TCP, CLIENT, (uint16_t)(6000 + n), REMOTE, 80);
		conn_sends(&b, "three seconds later", &c, T_SYN);
	}
	/* A long time gives a burst, not more. */
	row = client_of(&b, CLIENT);
	row.bucket = ((row.bucket >> 32) - 100000000) << 32;
	map_put(b.nat->maps.client_state, &k, &row);
	for (n = 0; n < 20; n++) {
		c = conn_of(P_TCP, CLIENT, (uint16_t)(7000 + n), REMOTE, 80);
		conn_sends(&b, "a day later", &c, T_SYN);
	}
	row = client_of(&b, CLIENT);
	if ((uint32_t)row.bucket >= 1000)
		die("%u thousandths of a flow are left of a burst", (uint32_t)row.bucket);
	/* Whose bucket is not full again is remembered although it has nothing. */
	end_all(&b);
	expect_client(&b, "remembered", CLIENT, SLUICE_TCP, 0, 0, 0);
	row = client_of(&b, CLIENT);
	if (!row.word)
		die("a client's rate was forgotten at once");
	row.bucket -= 61000ULL << 32;
	map_put(b.nat->maps.client_state, &k, &row);
	bed_sweep(&b);
	expect_nobody(&b, "a minute later");
	bed_close(&b);
}

/* A pool of two addresses with one slice of 64 ports each. */
static void two_addresses(struct bed *b, uint8_t pairing)
{
	struct sluice_pool pool = pool_short(pool_default());

	pool.pairing = pairing;
	bed_open(b, FLOWS);
	bed_pool(b, 0, pool);
	bed_addr(b, 0, SHARED, 6);
	bed_addr(b, 0, SHARED2, 6);
	bed_slice(b, SHARED, 40960, SLUICE_NEVER);
	bed_slice(b, SHARED2, 40960, SLUICE_NEVER);
	bed_client(b, CLIENT & 0xffff0000, 16, 0);
}

/* Whose address is full is refused, though the other has ports; when it has no flow left it may have the other. */
static void test_paired(void **state)
{
	uint32_t n, outer, at_other = 0, at_pair = 0;
	struct conn mine, c;
	struct bed b;

	(void)state;
	two_addresses(&b, SLUICE_PAIRING_PAIRED);
	mine = conn_of(P_UDP, CLIENT, 1000, REMOTE, 80);
	conn_sends(&b, "first", &mine, 0);
	outer = mine.outer;
	/* Others take what is left there. */
	for (n = 1; n < 4096 && at_pair < 63; n++) {
		c = conn_of(P_UDP, CLIENT + n, 1000, REMOTE, 80);
		conn_sends(&b, "others", &c, 0);
		if (c.outer == outer)
			at_pair++;
		else if (++at_other == 64)
			break;
	}
	if (at_pair < 63)
		die("only %u others have the client's address", at_pair);
	c = conn_of(P_UDP, CLIENT, 1001, REMOTE, 80);
	conn_sends_dropped(&b, "address is full", &c, 0, SLUICE_DROP_no_port);
	expect_client(&b, "address is full", CLIENT, SLUICE_UDP, 1, 1, 2);
	/* Of another protocol there are ports at the same address. */
	c = conn_of(P_TCP, CLIENT, 1001, REMOTE, 80);
	conn_sends(&b, "TCP", &c, T_SYN);
	if (c.outer != outer)
		die("TCP came out with another address than UDP");
	bed_close(&b);

	two_addresses(&b, SLUICE_PAIRING_ARBITRARY);
	for (n = 0; n < 128; n++) {
		c = conn_of(P_UDP, CLIENT, (uint16_t)(1000 + n), REMOTE, 80);
		conn_sends(&b, "arbitrary", &c, 0);
	}
	expect_nobody(&b, "arbitrary");
	bed_close(&b);
}

/* A client whose address is full when its flows have ended gets the other one; one whose address is lost does so as well. */
static void test_pair_ends(void **state)
{
	struct sluice_slice s;
	struct conn mine, c;
	struct bed b;
	uint32_t n, outer;

	(void)state;
	two_addresses(&b, SLUICE_PAIRING_PAIRED);
	mine = conn_of(P_UDP, CLIENT, 1000, REMOTE, 80);
	conn_sends(&b, "first", &mine, 0);
	outer = mine.outer;
	for (n = 0; n < 64; n++) { /* one client, until its address has no more */
		struct spec spec;
		struct frame in;
		struct run r;

		c = conn_of(P_UDP, CLIENT, (uint16_t)(2000 + n), REMOTE, 80);
		spec = conn_out(&c, 0);
		send_spec(&b, EGRESS, FORWARDED, &spec, &in, &r);
		if (n < 63 && r.verdict != VERDICT_PASS)
			die("flow %u was dropped as %s", n, reason_name(r.reason));
		if (n == 63)
			expect_reason("the address's last port", &in, &r, SLUICE_DROP_no_port);
	}
	expect_client(&b, "64", CLIENT, SLUICE_UDP, 64, 64, 128);
	end_all(&b);
	expect_nobody(&b, "ended");

	conn_sends(&b, "anew", &mine, 0);
	outer = mine.outer;
	n = bed_addr_row(&b, outer).base + (40960 >> 6);
	map_get_row(b.nat->maps.slices, n, &s);
	s.state = SLUICE_SLICE_NONE;
	map_put_row(b.nat->maps.slices, n, &s);
	c = conn_of(P_UDP, CLIENT, 5000, REMOTE, 80);
	conn_sends(&b, "the address is lost", &c, 0);
	if (c.outer == outer)
		die("came out with an address that is lost");
	/* The lost one's flow is taken out, and given back. */
	bed_sweep(&b);
	bed_sweep(&b);
	expect_client(&b, "lost flows are swept", CLIENT, SLUICE_UDP, 1, 1, 2);
	c.sport = 5001;
	conn_sends(&b, "the new address", &c, 0);
	if (c.outer == outer)
		die("came out with an address that is lost");
	end_all(&b);
	expect_nobody(&b, "ended again");
	bed_close(&b);
}

/* Limits that come, change and go while flows are there: what was not counted is not given back. */
static void test_change(void **state)
{
	struct sluice_pool pool = pool_short(pool_default());
	struct conn c;
	struct bed b;
	uint32_t n;

	(void)state;
	bed_scene(&b, FLOWS, pool);
	for (n = 0; n < 10; n++) {
		c = conn_of(n & 1 ? P_TCP : P_UDP, CLIENT, (uint16_t)(1000 + n), REMOTE, 80);
		conn_sends(&b, "no limits", &c, T_SYN);
	}
	expect_nobody(&b, "no limits");
	map_get_row(b.nat->maps.pools, 0, &pool);
	pool.client_states = 3;
	map_put_row(b.nat->maps.pools, 0, &pool);
	for (n = 0; n < 3; n++) {
		c = conn_of(P_TCP, CLIENT, (uint16_t)(2000 + n), REMOTE, 80);
		conn_sends(&b, "limits", &c, T_SYN);
	}
	c.sport = 3000;
	conn_sends_dropped(&b, "beyond", &c, T_SYN, SLUICE_DROP_client_states);
	pool.client_states = 0;
	map_put_row(b.nat->maps.pools, 0, &pool);
	conn_sends(&b, "no limits again", &c, T_SYN);
	expect_client(&b, "no limits again", CLIENT, SLUICE_TCP, 3, 3, 3);
	end_all(&b);
	expect_nobody(&b, "ended");
	bed_close(&b);
}

/* The tables full, and the slice full: what could not be made is not counted. */
static void test_failures(void **state)
{
	struct sluice_pool pool = pool_short(pool_default());
	struct sluice_client c1;
	struct conn c;
	struct bed b;
	uint32_t n, made = 0;

	(void)state;
	pool.client_states = 100000;
	bed_scene(&b, 128, pool);
	for (n = 0; n < 2000; n++) {
		struct spec spec;
		struct frame in;
		struct run r;

		c = conn_of(n & 1 ? P_TCP : P_UDP, CLIENT, (uint16_t)(1000 + n), REMOTE, 80);
		spec = conn_out(&c, T_SYN);
		send_spec(&b, EGRESS, FORWARDED, &spec, &in, &r);
		made += r.verdict == VERDICT_PASS;
		if (r.verdict != VERDICT_PASS)
			expect_reason("full", &in, &r, SLUICE_DROP_table_full);
	}
	c1 = client_of(&b, CLIENT);
	if (c1.states != made || c1.ports[0] + c1.ports[1] != made || made < 64 || made > 400)
		die("%u flows, %u states and %u ports counted", made, c1.states,
		    c1.ports[0] + c1.ports[1]);
	end_all(&b);
	expect_nobody(&b, "ended");
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ports),     cmocka_unit_test(test_states),
		cmocka_unit_test(test_rate),      cmocka_unit_test(test_paired),
		cmocka_unit_test(test_pair_ends), cmocka_unit_test(test_change),
		cmocka_unit_test(test_failures),
	};

	return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}
