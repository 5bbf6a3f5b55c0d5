/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The loader: pins that outlive it, what it refuses, and the reading back of flows, counters and events. Plans have a test of their own
 * (test_dpplan.c), and so have hooks (test_dphooks.c).
 */
#include "dp_test.h"

#include <poll.h>

#include <cap-ng.h>

/* Pins */

static void test_pins(void **state)
{
	struct dp_opts opts = lab_opts();
	struct errtext err = { "" };
	struct bpf_map *map;
	struct dp *dp;

	(void)state;
	dp = must_open();
	assert_true(dp_created(dp));
	assert_int_equal(dp_max_flows(dp), FLOWS);
	assert_int_equal(bpf_map__max_entries(dp->nat->maps.fwd), FLOWS);
	assert_int_equal(bpf_map__max_entries(dp->nat->maps.rev), FLOWS);
	bpf_object__for_each_map(map, dp->nat->obj) assert_int_equal(
		lab_has("maps/%s", bpf_map__name(map)), !bpf_map__is_internal(map));
	assert_false(lab_has("maps-new"));
	assert_int_equal(dp->conf->abi, SLUICE_ABI);
	assert_int_equal(dp->conf->event_rate, 1000000);
	open_refused(&opts, -EBUSY, lab_dir);
	must_close(dp);

	/* The tables keep their size, the rate of events is new. */
	opts.max_flows = 2 * FLOWS;
	opts.event_rate = 7;
	if (dp_open(&opts, &dp, &err))
		die("dp_open: %s", err.s);
	lab_dp = dp;
	assert_false(dp_created(dp));
	assert_int_equal(dp_max_flows(dp), FLOWS);
	assert_int_equal(dp->conf->max_flows, FLOWS);
	assert_int_equal(dp->conf->event_rate, 7);
	must_close(dp);

	assert_int_equal(dp_teardown(lab_dir, NULL, 0, &err), 0);
	assert_false(lab_has("."));
	assert_int_equal(dp_teardown(lab_dir, NULL, 0, &err), 0);
}

/* The keys that searches for ports are hidden behind differ from load to load. */
static void test_secret(void **state)
{
	uint64_t first[2];
	struct dp *dp;

	(void)state;
	dp = must_open();
	memcpy(first, dp->nat->rodata->secret, sizeof(first));
	assert_true(first[0] && first[1]);
	must_close(dp);
	dp = must_open();
	assert_memory_not_equal(first, dp->nat->rodata->secret, sizeof(first));
	must_close(dp);
}

static void patch_abi(uint32_t abi)
{
	struct sluice_conf conf;
	char path[DP_PATH_MAX];
	uint32_t zero = 0;
	int fd = bpf_obj_get(dp_path(path, "%s/maps/conf", lab_dir));

	assert_true(fd >= 0);
	assert_int_equal(bpf_map_lookup_elem(fd, &zero, &conf), 0);
	conf.abi = abi;
	assert_int_equal(bpf_map_update_elem(fd, &zero, &conf, BPF_ANY), 0);
	close(fd);
}

static void test_other_abi(void **state)
{
	struct dp_opts opts = lab_opts();

	(void)state;
	must_close(must_open());
	patch_abi(4711);
	open_refused(&opts, -EPROTONOSUPPORT, "ABI 4711, this sluiced has 4");
	open_refused(&opts, -EPROTONOSUPPORT, "'sluiced --teardown'");
	patch_abi(SLUICE_ABI);
	must_close(must_open());
}

static void test_other_layout(void **state)
{
	struct dp_opts opts = lab_opts();
	char path[DP_PATH_MAX], away[DP_PATH_MAX];
	int fd;

	(void)state;
	must_close(must_open());
	dp_path(path, "%s/maps/slices", lab_dir);
	dp_path(away, "%s/away", lab_dir);
	assert_int_equal(rename(path, away), 0);
	open_refused(&opts, -EPROTONOSUPPORT, "slices is missing");

	fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "other", 4, 24, 1, NULL);
	assert_true(fd >= 0);
	assert_int_equal(bpf_obj_pin(fd, path), 0);
	open_refused(&opts, -EPROTONOSUPPORT, "value 24");
	close(fd);

	assert_int_equal(rename(away, path), 0);
	must_close(must_open());

	/* Something that is no data plane at all. */
	dp_path(path, "%s/maps/conf", lab_dir);
	assert_int_equal(unlink(path), 0);
	open_refused(&opts, -EPROTONOSUPPORT, "no data plane of ours");
}

static void test_other_places(void **state)
{
	struct dp_opts opts = lab_opts();
	char path[DP_PATH_MAX];
	struct errtext err;
	struct dp *dp;

	(void)state;
	opts.dir = "/dev/shm/slab-dp/x";
	open_refused(&opts, -ENOENT, "mount -t bpf bpf /sys/fs/bpf");
	assert_int_equal(access("/dev/shm/slab-dp", F_OK), -1);
	opts.dir = "slab-dp";
	open_refused(&opts, -EINVAL, "absolute");

	/* Directories in between are made. */
	opts.dir = dp_path(path, "%s/a/b", lab_dir);
	assert_int_equal(dp_open(&opts, &dp, &err), 0);
	dp_close(dp);
	assert_int_equal(dp_teardown(path, NULL, 0, &err), 0);
	assert_int_equal(rmdir(dp_path(path, "%s/a", lab_dir)), 0);
}

static void test_too_large(void **state)
{
	struct dp_opts opts = lab_opts();

	(void)state;
	opts.max_flows = UINT32_MAX;
	/* The map is named, in the words of libbpf. */
	open_refused(&opts, -E2BIG, "libbpf: map '");
	assert_false(lab_has("maps"));
	assert_false(lab_has("maps-new"));
}

static void no_capabilities(void)
{
	struct dp_opts opts = lab_opts();
	struct errtext err = { "" };
	struct dp *dp;

	capng_clear(CAPNG_SELECT_BOTH);
	if (capng_apply(CAPNG_SELECT_BOTH))
		_exit(2);
	if (dp_open(&opts, &dp, &err) != -EPERM)
		_exit(3);
	_exit(strstr(err.s, "CAP_BPF") ? 0 : 4);
}

static void test_no_capabilities(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		no_capabilities();
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* Killed between pinning and renaming: some of the maps are there under the name for unfinished ones. */
static void test_half_pinned(void **state)
{
	char from[DP_PATH_MAX], to[DP_PATH_MAX];
	struct dp *dp;
	int fd;

	(void)state;
	must_close(must_open());
	dp_path(from, "%s/maps", lab_dir);
	dp_path(to, "%s/maps-new", lab_dir);
	assert_int_equal(rename(from, to), 0);
	assert_int_equal(unlink(dp_path(from, "%s/rev", to)), 0);
	must_close(must_open());
	assert_true(lab_has("maps/rev"));
	assert_false(lab_has("maps-new"));

	/* And with whole ones beside them, which count. */
	assert_int_equal(mkdir(to, 0700), 0);
	fd = bpf_obj_get(dp_path(from, "%s/maps/conf", lab_dir));
	assert_true(fd >= 0);
	assert_int_equal(bpf_obj_pin(fd, dp_path(from, "%s/conf", to)), 0);
	close(fd);
	dp = must_open();
	assert_false(dp_created(dp));
	assert_false(lab_has("maps-new"));
	must_close(dp);
}

/* Reading */

#define LISTED 2000

static void test_listing(void **state)
{
	static bool seen[LISTED];
	struct dp_flow_cursor *c;
	struct dp_flow f[7];
	struct scene s;
	struct bed b;
	struct dp *dp;
	int n, total = 0;

	(void)state;
	dp = must_open();
	scene_default(&s);
	publish(dp, &s);
	b = bed_of(dp);
	c = dp_flow_cursor_new();
	assert_non_null(c);
	assert_int_equal(dp_flows_next(dp, c, f, 7), 0);
	dp_flow_cursor_free(c);

	for (uint16_t i = 0; i < LISTED; i++) {
		struct conn conn = conn_of(P_TCP, CLIENT, (uint16_t)(10000 + i), REMOTE, 80);

		conn_sends(&b, "syn", &conn, T_SYN);
	}
	c = dp_flow_cursor_new();
	assert_non_null(c);
	memset(seen, 0, sizeof(seen));
	while ((n = dp_flows_next(dp, c, f, 7)) > 0) {
		assert_true(n <= 7);
		for (int i = 0; i < n; i++) {
			int at = f[i].inner_port - 10000;

			assert_in_range(at, 0, LISTED - 1);
			assert_false(seen[at]);
			seen[at] = true;
			assert_int_equal(f[i].proto, P_TCP);
			assert_in_range(f[i].outer_port, FIRST, LAST);
			assert_int_equal(f[i].state, SLUICE_STATE_OPENING);
		}
		total += n;
	}
	assert_int_equal(n, 0);
	assert_int_equal(total, LISTED);
	assert_int_equal(dp_flows_next(dp, c, f, 7), 0);
	dp_flow_cursor_free(c);
	must_close(dp);
}

static struct dp_flow only_flow(struct dp *dp)
{
	struct dp_flow_cursor *c = dp_flow_cursor_new();
	struct dp_flow f[2];

	assert_non_null(c);
	assert_int_equal(dp_flows_next(dp, c, f, 2), 1);
	dp_flow_cursor_free(c);
	return f[0];
}

static void expect_addr(const struct addr *a, uint32_t ip)
{
	struct addr want = scene_addr(ip);

	assert_memory_equal(a, &want, sizeof(want));
}

static void test_one_flow(void **state)
{
	struct conn tcp = conn_of(P_TCP, CLIENT, 5555, REMOTE, 443);
	struct conn udp = conn_of(P_UDP, CLIENT, 6666, REMOTE, 53);
	struct dp_flow f;
	struct scene s;
	struct bed b;
	struct dp *dp;

	(void)state;
	dp = must_open();
	scene_default(&s);
	publish(dp, &s);
	b = bed_of(dp);
	conn_opens(&b, "tcp", &tcp);
	f = only_flow(dp);
	assert_int_equal(f.pool, 0);
	assert_int_equal(f.proto, P_TCP);
	assert_false(f.local);
	assert_false(f.eim);
	expect_addr(&f.inner, CLIENT);
	expect_addr(&f.outer, SHARED);
	expect_addr(&f.remote, REMOTE);
	assert_int_equal(f.inner_port, 5555);
	assert_int_equal(f.remote_port, 443);
	assert_int_equal(f.outer_port, tcp.port);
	assert_string_equal(dp_flow_state_name(f.state), "established");
	assert_in_range(f.expires_s, 7430, 7440);

	/* Dead, if not swept: not listed. */
	s.rows[0].epoch++;
	publish(dp, &s);
	conn_sends(&b, "udp", &udp, 0);
	f = only_flow(dp);
	assert_int_equal(f.proto, P_UDP);
	assert_true(f.eim);
	expect_addr(&f.remote, REMOTE);
	/* The filtering does not tell remote ports apart; this is the first one. */
	assert_int_equal(f.remote_port, 53);
	assert_string_equal(dp_flow_state_name(f.state), "active");
	assert_in_range(f.expires_s, 20, 30);
	must_close(dp);
}

static void test_use(void **state)
{
	uint32_t used[SLUICE_L4_MAX], row;
	struct sluice_sweep sw;
	struct plan *p;
	struct scene s;
	struct bed b;
	struct dp *dp;

	(void)state;
	dp = must_open();
	scene_default(&s);
	p = must_publish(dp, &s);
	row = p->held[0];
	plan_free(p);
	b = bed_of(dp);
	dp_slice_used(dp, row, used);
	assert_int_equal(used[SLUICE_UDP], 0);
	for (uint16_t i = 0; i < 150; i++) {
		struct conn c = conn_of(P_UDP, CLIENT, (uint16_t)(2000 + i), REMOTE, 80);

		conn_sends(&b, "udp", &c, 0);
		if (i < 20) {
			c = conn_of(P_TCP, CLIENT, (uint16_t)(2000 + i), REMOTE, 80);
			conn_sends(&b, "tcp", &c, T_SYN);
		}
	}
	sw = must_sweep(dp);
	assert_int_equal(sw.flows[SLUICE_UDP], 150);
	assert_int_equal(sw.flows[SLUICE_TCP], 20);
	dp_slice_used(dp, row, used);
	assert_int_equal(used[SLUICE_UDP], 150);
	assert_int_equal(used[SLUICE_TCP], 20);
	assert_int_equal(used[SLUICE_ICMP], 0);
	dp_slice_used(dp, row + 1, used);
	assert_int_equal(used[SLUICE_UDP], 0);
	assert_in_range(dp->conf->swept_s, now_s() - 10, now_s());
	must_close(dp);
}

static void count_event(const struct sluice_event *e, void *arg)
{
	assert_int_equal(e->kind, SLUICE_EVENT_DROP);
	assert_int_equal(e->reason, SLUICE_DROP_escape);
	++*(int *)arg;
}

static bool events_wait(const struct dp *dp)
{
	struct pollfd p = { .fd = dp_events_fd(dp), .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

static void test_counters_and_events(void **state)
{
	struct spec escape = {
		.proto = P_UDP, .src = SHARED, .dst = REMOTE, .sport = 9, .dport = 9, .payload = 8
	};
	struct sluice_event_stats es[SLUICE_EVENT_ROWS];
	struct sluice_count drops[SLUICE_REASON_MAX];
	const int row = SLUICE_EVENT_MAX + SLUICE_DROP_escape;
	struct frame in;
	struct scene s;
	struct run r;
	struct bed b;
	struct dp *dp;
	int n = 0;

	(void)state;
	dp = must_open();
	scene_default(&s);
	publish(dp, &s);
	b = bed_of(dp);
	assert_false(events_wait(dp));
	for (int i = 0; i < 5; i++) {
		send_spec(&b, EGRESS, MADE_HERE, &escape, &in, &r);
		assert_int_equal(r.verdict, VERDICT_DROP);
	}
	assert_int_equal(dp_drops(dp, drops), 0);
	for (uint32_t i = 0; i < SLUICE_REASON_MAX; i++)
		assert_int_equal(drops[i].packets, i == SLUICE_DROP_escape ? 5 : 0);
	assert_int_equal(drops[SLUICE_DROP_escape].bytes, 5 * in.len);
	assert_string_equal(dp_reason_name(SLUICE_DROP_escape), "escape");
	assert_non_null(strstr(dp_reason_help(SLUICE_DROP_escape), "slices"));
	assert_int_equal(dp_event_stats(dp, es), 0);
	assert_int_equal(es[row].sent, 5);
	assert_int_equal(es[row].in_window, 0);

	/* In portions. */
	assert_true(events_wait(dp));
	assert_int_equal(dp_events_poll(dp, count_event, &n, 2), 2);
	assert_int_equal(n, 2);
	assert_true(events_wait(dp));
	assert_int_equal(dp_events_poll(dp, count_event, &n, 0), 0);

	/* What waits is still there for the next daemon. */
	must_close(dp);
	dp = must_open();
	assert_true(events_wait(dp));
	assert_int_equal(dp_events_poll(dp, count_event, &n, 100), 3);
	assert_int_equal(n, 5);
	assert_int_equal(dp_events_poll(dp, count_event, &n, 100), 0);
	assert_false(events_wait(dp));
	must_close(dp);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_pins, lab_clean),
		cmocka_unit_test_teardown(test_secret, lab_clean),
		cmocka_unit_test_teardown(test_other_abi, lab_clean),
		cmocka_unit_test_teardown(test_other_layout, lab_clean),
		cmocka_unit_test_teardown(test_other_places, lab_clean),
		cmocka_unit_test_teardown(test_too_large, lab_clean),
		cmocka_unit_test_teardown(test_no_capabilities, lab_clean),
		cmocka_unit_test_teardown(test_half_pinned, lab_clean),
		cmocka_unit_test_teardown(test_listing, lab_clean),
		cmocka_unit_test_teardown(test_one_flow, lab_clean),
		cmocka_unit_test_teardown(test_use, lab_clean),
		cmocka_unit_test_teardown(test_counters_and_events, lab_clean),
	};

	return cmocka_run_group_tests(tests, lab_open, lab_clean);
}
