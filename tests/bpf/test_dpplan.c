/* SPDX-License-Identifier: BSD-2-Clause */
/* Plans carried out on living flows, random ones, one that is cut short by a kill, and changes of mapping that drain. */
#include "dp_test.h"

/* Plans and flows */

static void test_survives(void **state)
{
	struct conn tcp = conn_of(P_TCP, CLIENT, 5555, REMOTE, 80);
	struct conn udp = conn_of(P_UDP, CLIENT, 6666, REMOTE, 4000);
	struct dp_flow_cursor *c;
	struct dp_flow flows[4];
	struct plan *p, *again;
	struct scene s;
	struct bed b;
	struct dp *dp;

	(void)state;
	dp = must_open();
	scene_default(&s);
	p = must_publish(dp, &s);
	b = bed_of(dp);
	conn_opens(&b, "tcp", &tcp);
	conn_sends(&b, "udp", &udp, 0);
	must_close(dp);

	dp = must_open();
	b = bed_of(dp);
	again = must_read(dp);
	assert_memory_equal(again->slices, p->slices, p->n_rows * sizeof(*p->slices));
	assert_int_equal(again->n_addrs, 1);
	assert_memory_equal(again->addrs, p->addrs, sizeof(*p->addrs));
	assert_int_equal(again->n_held, 1);
	assert_memory_equal(again->held, p->held, sizeof(*p->held));
	assert_memory_equal(again->pools, p->pools, sizeof(p->pools));
	assert_int_equal(again->n_clients, 1);
	assert_memory_equal(again->clients, p->clients, sizeof(*p->clients));
	assert_int_equal(again->n_no_nat, 1);
	assert_memory_equal(again->no_nat, p->no_nat, sizeof(*p->no_nat));
	plan_free(again);
	plan_free(p);

	publish(dp, &s);
	conn_sends_same(&b, "tcp again", &tcp, T_ACK);
	conn_answers(&b, "tcp again", &tcp, T_ACK);
	conn_sends_same(&b, "udp again", &udp, 0);
	c = dp_flow_cursor_new();
	assert_int_equal(dp_flows_next(dp, c, flows, 4), 2);
	dp_flow_cursor_free(c);
	must_close(dp);
}

/* The bit of a UDP mapping's port. */
static bool port_bit(const struct dp *dp, uint32_t row, uint32_t l4, uint16_t port)
{
	const struct sluice_slice *s = dp_slice(dp, row);
	uint32_t off = (uint32_t)port - s->first;
	uint32_t block = sluice_block_row(s->block_base, 2048, l4, off);

	return dp->blocks[block].bits >> off % SLUICE_BLOCK_PORTS & 1;
}

static uint32_t count_bits(const struct dp *dp)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < SLUICE_MAX_BLOCKS; i++)
		n += (uint32_t)__builtin_popcountll(dp->blocks[i].bits);
	return n;
}

static void test_slice_given_up(void **state)
{
	struct conn kept = conn_of(P_UDP, CLIENT, 1111, REMOTE, 80), lost[2];
	struct plan *p;
	struct scene s;
	uint32_t rows[2], half;
	struct bed b;
	struct dp *dp;

	(void)state;
	dp = must_open();
	scene_default(&s);
	scene_hold(&s, "default", SHARED, FIRST + 2048, 2048, 2);
	p = must_publish(dp, &s);
	rows[0] = (uint32_t)plan_slice_row(p, &s.rows[0].ports);
	rows[1] = (uint32_t)plan_slice_row(p, &s.rows[1].ports);
	plan_free(p);
	b = bed_of(dp);

	/* One slice is fenced while a client finds its port, so each has flows. */
	dp_renew(dp, &rows[1], 1, 1);
	conn_sends(&b, "kept", &kept, 0);
	assert_in_range(kept.port, FIRST, FIRST + 2047);
	dp_renew(dp, &rows[1], 1, SLUICE_NEVER);
	dp_renew(dp, &rows[0], 1, 1);
	lost[0] = conn_of(P_UDP, CLIENT2, 2222, REMOTE, 80);
	lost[1] = conn_of(P_TCP, CLIENT2, 3333, REMOTE, 80);
	conn_sends(&b, "lost", &lost[0], 0);
	conn_opens(&b, "lost", &lost[1]);
	assert_in_range(lost[0].port, FIRST + 2048, FIRST + 4095);
	assert_in_range(lost[1].port, FIRST + 2048, FIRST + 4095);
	dp_renew(dp, &rows[0], 1, SLUICE_NEVER);
	conn_sends_same(&b, "kept", &kept, 0);
	assert_int_equal(count_bits(dp), 2);

	s.holds.n = 1;
	publish(dp, &s);
	assert_int_equal(dp_slice(dp, rows[1])->state, SLUICE_SLICE_NONE);
	assert_int_equal(dp_slice(dp, rows[1])->epoch, 0);
	conn_sends_same(&b, "kept", &kept, 0);
	conn_answers(&b, "kept", &kept, 0);
	conn_answers_dropped(&b, "lost", &lost[0], 0, SLUICE_DROP_foreign);
	conn_answers_dropped(&b, "lost", &lost[1], T_ACK, SLUICE_DROP_foreign);
	/* Nothing is left of the flows: one mapping and its session are all that there is. */
	assert_int_equal(flows_count(dp->nat->maps.fwd), 1);
	assert_int_equal(flows_count(dp->nat->maps.rev), 1);

	/* Won again: with no port in use. */
	scene_hold(&s, "default", SHARED, FIRST + 2048, 2048, 3);
	half = plan_held_first(dp_pool(dp, 0));
	p = must_publish(dp, &s);
	assert_int_equal(plan_slice_row(p, &s.rows[1].ports), rows[1]);
	plan_free(p);
	/* The lists were not changed where programs may be reading them. */
	assert_int_equal(plan_held_first(dp_pool(dp, 0)), half ? 0 : DP_HELD_HALF);
	assert_int_equal(count_bits(dp), 1);
	assert_true(port_bit(dp, rows[0], SLUICE_UDP, kept.port));
	conn_sends_same(&b, "kept", &kept, 0);
	conn_sends_dropped(&b, "lost", &lost[1], T_ACK, SLUICE_DROP_no_flow);

	/* Another epoch without a pause: the flows of the last one end. */
	dp_renew(dp, &rows[0], 1, 1);
	conn_sends(&b, "lost", &lost[0], 0);
	dp_renew(dp, &rows[0], 1, SLUICE_NEVER);
	assert_true(port_bit(dp, rows[1], SLUICE_UDP, lost[0].port));
	s.rows[1].epoch = 4;
	publish(dp, &s);
	assert_int_equal(dp_slice(dp, rows[1])->epoch, 4);
	assert_int_equal(dp_slice(dp, rows[1])->state, SLUICE_SLICE_HELD);
	assert_int_equal(count_bits(dp), 1);
	assert_int_equal(flows_count(dp->nat->maps.fwd), 1);
	conn_sends_same(&b, "kept", &kept, 0);
	must_close(dp);
}

static bool port_claimed(const struct dp *dp, uint32_t row, uint32_t l4, uint16_t port)
{
	const struct sluice_slice *s = dp_slice(dp, row);
	uint32_t off = (uint32_t)port - s->first;

	return dp->blocks[sluice_block_row(s->block_base, 2048, l4, off)].leased >>
		       off % SLUICE_BLOCK_PORTS &
	       1;
}

/*
 * What is leased stays leased as long as the slice goes on, through publications, restarts and changes of mapping; and it is forgotten with the slice, as are the
 * counts of flows.
 */
static void test_leased_ports(void **state)
{
	struct conn c[100], mapped;
	struct scene s;
	struct plan *p;
	uint32_t row, i;
	uint16_t port;
	struct bed b;
	struct dp *dp;

	(void)state;
	need_uptime(300);
	dp = must_open();
	scene_default(&s);
	p = must_publish(dp, &s);
	row = p->held[0];
	plan_free(p);
	b = bed_of(dp);
	for (i = 0; i < 100; i++) {
		c[i] = conn_of(P_TCP, CLIENT, (uint16_t)(1000 + i), REMOTE, 80);
		conn_sends(&b, "tcp", &c[i], T_SYN);
	}
	assert_int_equal(expect_counts(&b, "opened"), 100);
	for (port = FIRST; port <= LAST; port++) {
		bool used = false;

		for (i = 0; i < 100; i++)
			used |= c[i].port == port;
		assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, port - FIRST, 1),
				 used ? -EBUSY : 0);
	}
	s.pools[0].unleased = SLUICE_UNLEASED_DENY;
	publish(dp, &s);
	must_close(dp);
	dp = must_open();
	b = bed_of(dp);
	s.pools[0].mapping[SLUICE_TCP] = SLUICE_EIM;
	publish(dp, &s);
	assert_int_equal(expect_counts(&b, "taken over"), 100);
	for (port = FIRST; port <= LAST; port++) {
		bool used = false;

		for (i = 0; i < 100; i++)
			used |= c[i].port == port;
		assert_true(port_claimed(dp, row, SLUICE_TCP, port) != used);
	}
	mapped = conn_of(P_TCP, CLIENT2, 1, REMOTE2, 80);
	conn_sends_dropped(&b, "all others are leased", &mapped, T_SYN, SLUICE_DROP_no_port);

	/* Drained: the blocks change their mode, and the leases do not notice. */
	bed_age(&b, 250);
	for (i = 0; i < 3; i++)
		must_sweep(dp);
	assert_int_equal(dp_pool(dp, 0)->mixed[SLUICE_TCP], 0);
	assert_int_equal(expect_counts(&b, "drained"), 0);
	for (i = 0; i < 100; i++) {
		mapped = conn_of(P_TCP, CLIENT2, (uint16_t)(1 + i), REMOTE2, 80);
		conn_sends(&b, "mapped", &mapped, T_SYN);
		assert_false(port_claimed(dp, row, SLUICE_TCP, mapped.port));
	}
	mapped = conn_of(P_TCP, CLIENT2, 200, REMOTE2, 80);
	conn_sends_dropped(&b, "no port left", &mapped, T_SYN, SLUICE_DROP_no_port);

	/* Lost, with overload flows on it, and won again. */
	s.pools[0].mapping[SLUICE_TCP] = SLUICE_OVERLOAD;
	publish(dp, &s);
	bed_age(&b, 250);
	for (i = 0; i < 3; i++)
		must_sweep(dp);
	for (i = 0; i < 100; i++)
		conn_sends(&b, "overload", &c[i], T_SYN);
	assert_int_equal(expect_counts(&b, "overload again"), 100);
	s.rows[0].epoch = 2;
	publish(dp, &s);
	assert_int_equal(flows_count(dp->nat->maps.rev), 0);
	assert_int_equal(expect_counts(&b, "won again"), 0);
	for (port = FIRST; port <= LAST; port++)
		assert_false(port_claimed(dp, row, SLUICE_TCP, port));
	/* At once, though all ports were in use a moment ago. */
	for (i = 0; i < 100; i++)
		conn_sends(&b, "won again", &c[i], T_SYN);
	assert_int_equal(expect_counts(&b, "won again"), 100);
	must_close(dp);
}

static void test_tables(void **state)
{
	struct conn c = conn_of(P_UDP, CLIENT, 1111, REMOTE, 80);
	struct conn spared = conn_of(P_UDP, CLIENT, 1113, NO_NAT, 80);
	struct conn other = conn_of(P_UDP, OTHER, 1111, REMOTE, 80);
	struct config_pool *p;
	struct frame in;
	struct scene s;
	struct spec spec;
	struct run r;
	struct bed b;
	struct dp *dp;

	(void)state;
	dp = must_open();
	scene_default(&s);
	publish(dp, &s);
	b = bed_of(dp);
	conn_sends(&b, "client", &c, 0);
	spec = conn_out(&spared, 0);
	send_spec(&b, EGRESS, FORWARDED, &spec, &in, &r);
	expect_unchanged("no-nat", &in, &r);
	spec = conn_out(&other, 0);
	send_spec(&b, EGRESS, FORWARDED, &spec, &in, &r);
	expect_unchanged("nobody's client", &in, &r);

	/* Another pool with another address for the other client; no-nat is gone. */
	p = scene_pool(&s, "second", 256);
	s.addrs[1][p->n_addresses++] = scene_addr(SHARED2);
	s.clients[1][p->n_clients++] = scene_prefix("172.16.0.0/12");
	s.pools[0].n_no_nat = 0;
	scene_hold(&s, "second", SHARED2, 2048, 256, 2);
	publish(dp, &s);
	conn_sends_same(&b, "client", &c, 0);
	conn_sends(&b, "no-nat", &spared, 0);
	conn_sends(&b, "second pool", &other, 0);
	assert_int_equal(other.outer, SHARED2);
	assert_in_range(other.port, 2048, 2048 + 255);

	/* The first pool's client goes over to the second, then the first pool goes. */
	s.pools[0].clients[0] = scene_prefix("10.9.0.0/16");
	s.clients[1][p->n_clients++] = scene_prefix("10.1.0.0/16");
	publish(dp, &s);
	conn_sends_same(&b, "client keeps its flow", &c, 0);
	c = conn_of(P_UDP, CLIENT, 1112, REMOTE, 80);
	conn_sends(&b, "client's next flow", &c, 0);
	assert_int_equal(c.outer, SHARED2);

	s.pools[0] = s.pools[1];
	s.config.n_pools = 1;
	s.rows[0] = s.rows[1];
	s.holds.n = 1;
	publish(dp, &s);
	conn_sends_same(&b, "second pool", &other, 0);
	conn_sends_same(&b, "second pool", &c, 0);
	spec = (struct spec){ .proto = P_UDP,
			      .src = REMOTE,
			      .dst = SHARED,
			      .sport = 80,
			      .dport = FIRST,
			      .payload = 8 };
	send_spec(&b, INGRESS, FORWARDED, &spec, &in, &r);
	expect_unchanged("no longer a shared address", &in, &r);
	must_close(dp);
}

static void test_counters_of_a_name(void **state)
{
	struct conn c = conn_of(P_UDP, CLIENT, 1111, REMOTE, 80);
	struct sluice_pool_stats st;
	struct plan *p;
	struct scene s;
	struct bed b;
	struct dp *dp;
	int row;

	(void)state;
	dp = must_open();
	scene_default(&s);
	publish(dp, &s);
	b = bed_of(dp);
	conn_sends(&b, "c", &c, 0);
	conn_answers(&b, "c", &c, 0);
	assert_int_equal(dp_pool_stats(dp, 0, &st), 0);
	assert_int_equal(st.out.packets, 1);
	assert_int_equal(st.in.packets, 1);
	assert_int_equal(st.created[SLUICE_UDP], 1);
	publish(dp, &s);
	assert_int_equal(dp_pool_stats(dp, 0, &st), 0);
	assert_int_equal(st.out.packets, 1);

	/* Twice another name, so that row 0 is used again. */
	strcpy(s.pools[0].name, "second");
	strcpy(s.rows[0].pool, "second");
	s.rows[0].epoch++;
	publish(dp, &s);
	strcpy(s.pools[0].name, "third");
	strcpy(s.rows[0].pool, "third");
	s.rows[0].epoch++;
	p = must_publish(dp, &s);
	row = plan_pool_row(p, "third");
	plan_free(p);
	assert_int_equal(row, 0);
	assert_int_equal(dp_pool_stats(dp, 0, &st), 0);
	assert_int_equal(st.out.packets, 0);
	assert_int_equal(st.created[SLUICE_UDP], 0);
	must_close(dp);
}

static void test_deadline(void **state)
{
	struct conn c = conn_of(P_UDP, CLIENT, 1111, REMOTE, 80);
	struct scene s;
	struct plan *p;
	struct bed b;
	struct dp *dp;
	uint32_t row;

	(void)state;
	dp = must_open();
	scene_default(&s);
	p = must_publish(dp, &s);
	row = p->held[0];
	plan_free(p);
	b = bed_of(dp);
	conn_sends(&b, "before", &c, 0);
	dp_renew(dp, &row, 1, now_ns());
	conn_sends_dropped(&b, "after", &c, 0, SLUICE_DROP_fenced);
	dp_renew(dp, &row, 1, now_ns() + 3600ULL * 1000000000);
	conn_sends_same(&b, "renewed", &c, 0);
	/* A plan brings deadlines as well. */
	s.rows[0].not_after_ns = now_ns();
	publish(dp, &s);
	conn_sends_dropped(&b, "published", &c, 0, SLUICE_DROP_fenced);
	must_close(dp);
}

/* Random plans: what is read back is what was published, whatever was there before. */

static uint64_t seed;

static uint32_t rnd(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)((seed >> 32) % n);
}

static void scene_random(struct scene *s, uint32_t *epoch)
{
	static const uint32_t sizes[] = { 64, 1024, 2048 };
	char name[16], text[32];

	memset(s, 0, sizeof(*s));
	s->config.pools = s->pools;
	s->holds.rows = s->rows;
	for (uint32_t i = 0; i < SCENE_POOLS; i++) {
		struct config_pool *p;
		size_t k = s->config.n_pools;

		if (!rnd(4))
			continue;
		snprintf(name, sizeof(name), "pool%u", i + 4 * rnd(2));
		p = scene_pool(s, name, sizes[rnd(3)]);
		p->mapping[SLUICE_TCP] = rnd(2) ? SLUICE_EIM : SLUICE_OVERLOAD;
		p->mapping[SLUICE_UDP] = rnd(2) ? SLUICE_EIM : SLUICE_OVERLOAD;
		p->filtering[SLUICE_TCP] = (enum sluice_filtering)rnd(3);
		p->filtering[SLUICE_UDP] = (enum sluice_filtering)rnd(3);
		for (uint32_t a = 0; a < 3; a++)
			if (rnd(3))
				s->addrs[k][p->n_addresses++] = scene_addr(SHARED + 4 * i + a);
		snprintf(text, sizeof(text), "10.%u.0.0/16", i);
		if (rnd(3))
			s->clients[k][p->n_clients++] = scene_prefix(text);
		snprintf(text, sizeof(text), "192.0.%u.0/24", rnd(3));
		if (rnd(3))
			s->no_nat[k][p->n_no_nat++] = scene_prefix(text);
		for (size_t a = 0; a < p->n_addresses; a++)
			for (uint32_t h = 0; h < 3; h++)
				if (rnd(2))
					scene_hold(s, name, ntohl(addr_v4(&p->addresses[a])),
						   (8 + h) * 2048, p->slice_size,
						   rnd(8) ? 1 + *epoch / 8 : ++*epoch + 8);
	}
}

static void expect_plan(struct dp *dp, const struct plan *p)
{
	struct plan *is = must_read(dp);

	for (uint32_t row = 0; row < SLUICE_MAX_SLICES; row++)
		assert_memory_equal(plan_slice(is, row), plan_slice(p, row),
				    sizeof(struct sluice_slice));
	assert_int_equal(is->n_addrs, p->n_addrs);
	assert_memory_equal(is->addrs, p->addrs, p->n_addrs * sizeof(*p->addrs));
	assert_memory_equal(is->pools, p->pools, sizeof(p->pools));
	assert_int_equal(is->n_held, p->n_held);
	assert_memory_equal(is->held, p->held, p->n_held * sizeof(*p->held));
	assert_int_equal(is->n_clients, p->n_clients);
	assert_memory_equal(is->clients, p->clients, p->n_clients * sizeof(*p->clients));
	assert_int_equal(is->n_no_nat, p->n_no_nat);
	assert_memory_equal(is->no_nat, p->no_nat, p->n_no_nat * sizeof(*p->no_nat));
	plan_free(is);

	/* What a plan does not show: the lists that the programs walk, and the blocks. */
	for (uint32_t pool = 0; pool < SLUICE_MAX_POOLS; pool++) {
		const struct sluice_pool *row = dp_pool(dp, pool);

		for (uint32_t i = 0; i < plan_held_count(row); i++) {
			uint32_t slice = *dp_held_row(dp, plan_held_first(row) + i);

			assert_int_equal(dp_slice(dp, slice)->state, SLUICE_SLICE_HELD);
			assert_int_equal(dp_slice(dp, slice)->pool, pool);
		}
		for (uint32_t l4 = 0; l4 < SLUICE_L4_MAX; l4++)
			assert_int_equal(row->mixed[l4], 0); /* there are no flows */
	}
	for (size_t i = 0; i < p->n_held; i++) {
		const struct sluice_slice *s = &p->slices[p->held[i]];
		uint32_t n = (uint32_t)s->last - s->first + 1;

		for (uint32_t l4 = 0; l4 < SLUICE_L4_MAX; l4++)
			for (uint32_t off = 0; off < n; off += SLUICE_BLOCK_PORTS) {
				uint32_t at = sluice_block_row(s->block_base, n, l4, off);

				assert_int_equal(dp->blocks[at].mode,
						 p->pools[s->pool].mapping[l4] == SLUICE_EIM
							 ? SLUICE_BLOCK_EIM
							 : SLUICE_BLOCK_OVERLOAD);
			}
	}
}

static void test_random_plans(void **state)
{
	uint32_t epoch = 1;
	struct plan *p;
	struct scene s;
	struct dp *dp;

	(void)state;
	seed = 0x9e3779b97f4a7c15;
	dp = must_open();
	for (int i = 0; i < 100; i++) {
		scene_random(&s, &epoch);
		p = must_publish(dp, &s);
		expect_plan(dp, p);
		plan_free(p);
		if (!rnd(20)) {
			must_close(dp);
			dp = must_open();
		}
	}
	must_close(dp);
}

/* Opens, publishes, closes, over and over, until it is killed. */
static void churn(uint64_t from)
{
	uint32_t epoch = 1;
	struct scene s;
	struct dp *dp;

	seed = from;
	for (;;) {
		dp = must_open();
		for (int i = 0; i < 3; i++) {
			scene_random(&s, &epoch);
			publish(dp, &s);
		}
		must_close(dp);
	}
}

static void test_killed(void **state)
{
	uint64_t mine = 0xd1b54a32d192ed03;
	struct timespec nap = { 0 };
	uint32_t epoch = 1000;
	struct plan *p;
	struct scene s;
	struct dp *dp;

	(void)state;
	for (int i = 0; i < 15; i++) {
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (!pid)
			churn(mine + (uint64_t)i);
		seed = mine;
		nap.tv_nsec = 1000000 + rnd(600) * 1000000L;
		mine = seed;
		nanosleep(&nap, NULL);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);

		dp = must_open();
		seed = mine + 77;
		scene_random(&s, &epoch);
		p = must_publish(dp, &s);
		expect_plan(dp, p);
		plan_free(p);
		must_close(dp);
	}
}

/* Changes of mapping */

static uint32_t block_mode_of(const struct dp *dp, uint32_t row, uint32_t l4, uint16_t port)
{
	const struct sluice_slice *s = dp_slice(dp, row);

	return dp->blocks[sluice_block_row(s->block_base, 2048, l4, (uint32_t)port - s->first)]
		.mode;
}

static void drain(enum sluice_mapping from, enum sluice_mapping to)
{
	const uint32_t old_mode = from == SLUICE_EIM ? SLUICE_BLOCK_EIM : SLUICE_BLOCK_OVERLOAD;
	const uint32_t new_mode = to == SLUICE_EIM ? SLUICE_BLOCK_EIM : SLUICE_BLOCK_OVERLOAD;
	struct conn old = conn_of(P_UDP, CLIENT, 1111, REMOTE, 80), next;
	uint32_t row, ago = 301;
	struct scene s;
	struct plan *p;
	struct bed b;
	struct dp *dp;

	need_uptime(400);
	dp = must_open();
	scene_default(&s);
	s.pools[0].mapping[SLUICE_UDP] = from;
	p = must_publish(dp, &s);
	row = p->held[0];
	plan_free(p);
	b = bed_of(dp);
	conn_sends(&b, "old", &old, 0);
	assert_int_equal(block_mode_of(dp, row, SLUICE_UDP, old.port), old_mode);
	assert_int_equal(dp_pool(dp, 0)->mixed[SLUICE_UDP], 0);
	assert_int_equal(dp->conf->eim_first[SLUICE_UDP], from == SLUICE_EIM);

	s.pools[0].mapping[SLUICE_UDP] = to;
	publish(dp, &s);
	assert_int_equal(dp_pool(dp, 0)->mapping[SLUICE_UDP], to);
	assert_int_equal(dp_pool(dp, 0)->mixed[SLUICE_UDP], 1);
	assert_int_equal(dp_pool(dp, 0)->mixed[SLUICE_TCP], 0);
	/* While it drains, a flow's own 5-tuple wins over a mapping of the same inner end. */
	assert_int_equal(dp->conf->eim_first[SLUICE_UDP], 0);
	/* The used block is closed, all others are open already. */
	for (uint32_t port = FIRST; port <= LAST; port += SLUICE_BLOCK_PORTS)
		assert_int_equal(block_mode_of(dp, row, SLUICE_UDP, (uint16_t)port),
				 port / SLUICE_BLOCK_PORTS == old.port / SLUICE_BLOCK_PORTS
					 ? SLUICE_BLOCK_FREE
					 : new_mode);
	conn_sends_same(&b, "old, draining", &old, 0);
	conn_answers(&b, "old, draining", &old, 0);
	for (uint16_t i = 0; i < 100; i++) {
		next = conn_of(P_UDP, CLIENT2, (uint16_t)(2000 + i), REMOTE, 80);
		conn_sends(&b, "new", &next, 0);
		assert_int_not_equal(next.port / SLUICE_BLOCK_PORTS, old.port / SLUICE_BLOCK_PORTS);
		conn_answers(&b, "new", &next, 0);
	}

	/* It goes on after a restart, and stays closed as long as it is used. */
	must_close(dp);
	dp = must_open();
	b = bed_of(dp);
	plan_free(must_read(dp));
	for (int i = 0; i < 3; i++)
		must_sweep(dp);
	assert_int_equal(block_mode_of(dp, row, SLUICE_UDP, old.port), SLUICE_BLOCK_FREE);
	assert_int_equal(dp_pool(dp, 0)->mixed[SLUICE_UDP], 1);
	conn_sends_same(&b, "old, after a restart", &old, 0);

	/* And when nothing uses it any more it opens. */
	bed_age(&b, ago + SLUICE_GRACE_S);
	must_sweep(dp);
	must_sweep(dp);
	must_sweep(dp);
	assert_int_equal(block_mode_of(dp, row, SLUICE_UDP, old.port), new_mode);
	assert_int_equal(dp_pool(dp, 0)->mixed[SLUICE_UDP], 0);
	assert_int_equal(dp->conf->eim_first[SLUICE_UDP], to == SLUICE_EIM);
	assert_int_equal(count_bits(dp), 0);
	conn_sends(&b, "anew", &old, 0);
	must_close(dp);
}

static void test_drain_to_overload(void **state)
{
	(void)state;
	drain(SLUICE_EIM, SLUICE_OVERLOAD);
}

static void test_drain_to_eim(void **state)
{
	(void)state;
	drain(SLUICE_OVERLOAD, SLUICE_EIM);
}

/* A change and its reversal, before anything is drained. */
static void test_change_of_mind(void **state)
{
	struct conn c = conn_of(P_UDP, CLIENT, 1111, REMOTE, 80);
	struct scene s;
	struct bed b;
	struct dp *dp;

	(void)state;
	dp = must_open();
	scene_default(&s);
	publish(dp, &s);
	b = bed_of(dp);
	conn_sends(&b, "c", &c, 0);
	s.pools[0].mapping[SLUICE_UDP] = SLUICE_OVERLOAD;
	publish(dp, &s);
	conn_sends_same(&b, "changed", &c, 0);
	s.pools[0].mapping[SLUICE_UDP] = SLUICE_EIM;
	publish(dp, &s);
	conn_sends_same(&b, "changed back", &c, 0);
	conn_answers(&b, "changed back", &c, 0);
	must_close(dp);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_survives, lab_clean),
		cmocka_unit_test_teardown(test_slice_given_up, lab_clean),
		cmocka_unit_test_teardown(test_leased_ports, lab_clean),
		cmocka_unit_test_teardown(test_tables, lab_clean),
		cmocka_unit_test_teardown(test_counters_of_a_name, lab_clean),
		cmocka_unit_test_teardown(test_deadline, lab_clean),
		cmocka_unit_test_teardown(test_random_plans, lab_clean),
		cmocka_unit_test_teardown(test_killed, lab_clean),
		cmocka_unit_test_teardown(test_drain_to_overload, lab_clean),
		cmocka_unit_test_teardown(test_drain_to_eim, lab_clean),
		cmocka_unit_test_teardown(test_change_of_mind, lab_clean),
	};

	return cmocka_run_group_tests(tests, lab_open, lab_clean);
}
