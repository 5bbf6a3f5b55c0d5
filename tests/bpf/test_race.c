/* SPDX-License-Identifier: BSD-2-Clause */
/* Two CPUs at once: no tuple gets two users, no flow two tuples, nothing leaks, and a live flow is never evicted. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "flows.h"

#define PORTS 2048
#define FLOWS 16384

static void pin(uint32_t nth_cpu)
{
	cpu_set_t have, want;
	int cpu;

	CPU_ZERO(&want);
	if (sched_getaffinity(getpid(), sizeof(have), &have))
		return;
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &have) && !nth_cpu--)
			CPU_SET(cpu, &want);
	if (CPU_COUNT(&want))
		sched_setaffinity(0, sizeof(want), &want);
}

static bool two_cpus(void)
{
	cpu_set_t have;

	return !sched_getaffinity(getpid(), sizeof(have), &have) && CPU_COUNT(&have) > 1;
}

struct side {
	struct bed *bed;
	uint32_t cpu;
	const struct frame *in;
	uint16_t *ports; /* out; 0: refused */
	uint32_t n;
	int err; /* out */
	const char *wrong;
	atomic_uint *turn; /* both sides count it up before each packet, and so run it together */
};

static void *side_run(void *arg)
{
	struct side *s = arg;
	struct view v;
	struct run r;
	uint32_t i;

	pin(s->cpu);
	for (i = 0; i < s->n; i++) {
		uint32_t spin = 0;

		atomic_fetch_add(s->turn, 1);
		while (atomic_load(s->turn) < 2 * (i + 1) && ++spin < 1000000)
			;
		s->err = bed_try(s->bed, EGRESS, FORWARDED, &s->in[i], &r);
		if (s->err)
			break;
		s->ports[i] = 0;
		if (r.verdict == VERDICT_DROP)
			continue;
		s->wrong = frame_rewritten(&s->in[i], &r.out, true, &v);
		if (s->wrong)
			break;
		s->ports[i] = v.sport;
	}
	atomic_fetch_add(s->turn, 2 * s->n); /* whoever ends early lets the other go on */
	return NULL;
}

/* Runs two lists of frames side by side. */
static void run_both(struct bed *b, const struct frame *in[2], uint16_t *ports[2], uint32_t n)
{
	atomic_uint turn = 0;
	struct side s[2];
	pthread_t t[2];
	int i;

	for (i = 0; i < 2; i++) {
		s[i] = (struct side){ .bed = b,
				      .cpu = (uint32_t)i,
				      .in = in[i],
				      .ports = ports[i],
				      .n = n,
				      .turn = &turn };
		if (pthread_create(&t[i], NULL, side_run, &s[i]))
			die("pthread_create failed");
	}
	for (i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	for (i = 0; i < 2; i++) {
		if (s[i].err)
			die("test run: %s", strerror(-s[i].err));
		if (s[i].wrong)
			die("CPU %d: %s", i, s[i].wrong);
	}
}

#define RACE 1100

static struct frame race_in[2][RACE];
static uint16_t race_ports[2][RACE];

static uint32_t count_bits(struct bed *b, uint32_t l4, uint32_t row)
{
	struct sluice_slice s;
	struct sluice_block block;
	uint32_t i, n = 0;

	map_get_row(b->nat->maps.slices, row, &s);
	for (i = 0; i < PORTS; i += 64) {
		map_get_row(b->nat->maps.blocks, sluice_block_row(s.block_base, PORTS, l4, i),
			    &block);
		n += (uint32_t)__builtin_popcountll(block.bits);
	}
	return n;
}

static void race(enum sluice_mapping mapping, uint8_t proto, bool same_flows)
{
	const struct frame *in[2] = { race_in[0], race_in[1] };
	uint16_t *ports[2] = { race_ports[0], race_ports[1] };
	static uint8_t used[65536];
	uint32_t side, i, given = 0, row;
	struct bed b;
	char name[80];

	snprintf(name, sizeof(name), "mapping %d, protocol %u, %s flows", mapping, proto,
		 same_flows ? "the same" : "different");
	memset(used, 0, sizeof(used));
	row = bed_scene(&b, FLOWS, pool_all(mapping));
	for (side = 0; side < 2; side++) {
		for (i = 0; i < RACE; i++) {
			struct conn c = nth(proto, same_flows ? i : 2 * i + side, REMOTE);
			struct spec s = conn_out(&c, T_SYN);

			frame_build(&race_in[side][i], &s);
		}
	}
	run_both(&b, in, ports, RACE);
	for (i = 0; i < RACE; i++) {
		if (same_flows) {
			if (!ports[0][i] || ports[0][i] != ports[1][i])
				die("%s: flow %u came out on %u and on %u", name, i, ports[0][i],
				    ports[1][i]);
		}
		for (side = 0; side < (same_flows ? 1 : 2); side++) {
			if (!ports[side][i])
				continue;
			given++;
			if (used[ports[side][i]]++)
				die("%s: port %u has two users", name, ports[side][i]);
		}
	}
	if (given != (same_flows ? RACE : PORTS))
		die("%s: %u flows got a port", name, given);
	assert_int_equal(flows_count(b.nat->maps.fwd), given);
	assert_int_equal(flows_count(b.nat->maps.rev), given);
	assert_int_equal(bed_stats(&b, 0).created[l4_of(proto)], given);
	assert_int_equal(expect_counts(&b, name), mapping == SLUICE_EIM ? 0 : given);
	if (mapping == SLUICE_EIM)
		assert_int_equal(count_bits(&b, l4_of(proto), row), given);
	bed_close(&b);
}

static void test_two_cpus(void **state)
{
	int round;

	(void)state;
	if (!two_cpus()) {
		print_message("needs two CPUs\n");
		skip();
	}
	for (round = 0; round < 4; round++) {
		race(SLUICE_OVERLOAD, P_TCP, false);
		race(SLUICE_OVERLOAD, P_TCP, true);
		race(SLUICE_EIM, P_UDP, false);
		race(SLUICE_EIM, P_UDP, true);
	}
}

/*
 * Flows that are used all the time keep their port and are nobody else's, while on the other CPU short-lived ones fill the
 * slice and die, and the sweep runs.
 */
struct churn {
	struct bed *bed;
	uint32_t cpu;
	atomic_bool *stop;
	atomic_uint given;
	int err;         /* out */
	uint16_t stolen; /* out: a port that a steady flow has */
	const uint16_t *steady;
	uint32_t nsteady;
};

static void *churn_run(void *arg)
{
	struct churn *c = arg;
	uint32_t i, k;
	struct run r;

	pin(c->cpu);
	for (i = 0; !atomic_load(c->stop) && !c->stolen && !c->err; i++) {
		struct conn conn = conn_of(P_TCP, CLIENT2 + 1000 + i / 50000,
					   (uint16_t)(1 + i % 50000), REMOTE, 80);
		struct spec s = conn_out(&conn, T_SYN);
		struct frame in;
		struct view v;

		if (i % 512 == 0) {
			LIBBPF_OPTS(bpf_test_run_opts, opts);

			c->err = bpf_prog_test_run_opts(bpf_program__fd(c->bed->nat->progs.sweep),
							&opts);
		}
		frame_build(&in, &s);
		c->err = c->err ? c->err : bed_try(c->bed, EGRESS, FORWARDED, &in, &r);
		if (c->err || r.verdict == VERDICT_DROP)
			continue;
		atomic_fetch_add(&c->given, 1);
		frame_view(&r.out, &v);
		for (k = 0; k < c->nsteady; k++)
			if (c->steady[k] == v.sport)
				c->stolen = v.sport;
	}
	return NULL;
}

static void test_churn(void **state)
{
	enum { STEADY = 40, OTHERS = 128 - STEADY };
	static struct frame in[2][STEADY];
	struct sluice_pool p = pool_all(SLUICE_OVERLOAD);
	uint16_t ports[STEADY];
	struct conn c[STEADY];
	atomic_bool stop = false;
	struct churn ch = { .cpu = 1, .stop = &stop, .steady = ports, .nsteady = STEADY };
	uint64_t end, last, worst = 0;
	const char *wrong = NULL;
	struct spec s;
	struct view v;
	struct run r;
	struct bed b;
	pthread_t t;
	uint32_t i;
	int err = 0;

	(void)state;
	if (!two_cpus()) {
		print_message("needs two CPUs\n");
		skip();
	}
	p.timers = (struct sluice_timers){ 60, 1, 1, 1, 1, 2, 2, 2 };
	bed_open(&b, 1024);
	bed_pool(&b, 0, p);
	bed_addr(&b, 0, SHARED, 7);
	bed_client(&b, IP(10, 1, 0, 0), 16, 0);
	bed_slice(&b, SHARED, 4096, SLUICE_NEVER);
	for (i = 0; i < STEADY; i++) {
		c[i] = nth(P_TCP, i, REMOTE);
		conn_opens(&b, "steady", &c[i]);
		ports[i] = c[i].port;
		s = conn_out(&c[i], T_ACK);
		frame_build(&in[0][i], &s);
		s = conn_in(&c[i], T_ACK);
		frame_build(&in[1][i], &s);
	}
	ch.bed = &b;
	if (pthread_create(&t, NULL, churn_run, &ch))
		die("pthread_create failed");
	pin(0);
	/* Until the other ports have been given two and a half times: dead flows do go. */
	end = now_ns() + 120 * 1000000000ULL;
	last = now_ns();
	for (i = 0; atomic_load(&ch.given) <= OTHERS * 5 / 2 && !wrong && !err;
	     i = (i + 1) % STEADY) {
		if (now_ns() > end) {
			wrong = "dead flows keep their ports";
			break;
		}
		worst = now_ns() - last > worst ? now_ns() - last : worst;
		last = now_ns();
		err = bed_try(&b, EGRESS, FORWARDED, &in[0][i], &r);
		if (err)
			break;
		if (r.verdict != VERDICT_PASS)
			wrong = "a steady flow was dropped going out";
		else if (!(wrong = frame_rewritten(&in[0][i], &r.out, true, &v)) &&
			 v.sport != ports[i])
			wrong = "a steady flow moved";
		if (wrong)
			break;
		err = bed_try(&b, INGRESS, FORWARDED, &in[1][i], &r);
		if (err)
			break;
		if (r.verdict != VERDICT_PASS)
			wrong = "a steady flow was dropped coming in";
		else if (!(wrong = frame_rewritten(&in[1][i], &r.out, false, &v)) &&
			 (v.dst != c[i].src || v.dport != c[i].sport))
			wrong = "an answer went to somebody else";
	}
	atomic_store(&stop, true);
	pthread_join(t, NULL);
	if (err || ch.err)
		die("test run failed");
	if (ch.stolen)
		die("port %u has two users", ch.stolen);
	if (wrong)
		die("%s (longest pause %llu ms)", wrong, (unsigned long long)(worst / 1000000));
	expect_counts(&b, "after the churn");
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_cpus),
		cmocka_unit_test(test_churn),
	};

	return cmocka_run_group_tests_name("race", tests, NULL, NULL);
}
