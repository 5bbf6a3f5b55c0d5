/* SPDX-License-Identifier: BSD-2-Clause */
/* The text of metrics: its format, and what the daemon puts into it. */
#include <ftw.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "clock.h"
#include "exhaust.h"
#include "metrics_gather.h"

#define CONFIG                                                                                   \
	"machine = m uplinks = wan\n"                                                            \
	"pool a { addresses = 203.0.113.7 slice-size = 2048 slices = { 203.0.113.7:40960-43007 " \
	"} }\n"                                                                                  \
	"pool b { addresses = 203.0.113.8 tcp-mapping = endpoint-independent slices = { } }\n"

/* ---- the daemon's parts, as the gatherer asks them ---- */

struct dp {
	struct sluice_pool_stats pools[2];
	struct sluice_count drops[SLUICE_REASON_MAX];
	uint32_t used[SLUICE_L4_MAX]; /* in every slice */
};

struct lessor {
	struct lease_table *table;
};

struct watcher {
	struct watch_stats stats;
};

int plan_pool_row(const struct plan *p, const char *name)
{
	(void)p;
	return name[0] - 'a';
}

int plan_slice_row(const struct plan *p, const struct range *r)
{
	(void)p, (void)r;
	return 7;
}

int dp_pool_stats(const struct dp *dp, uint32_t row, struct sluice_pool_stats *ret)
{
	*ret = row < 2 ? dp->pools[row] : (struct sluice_pool_stats){ 0 };
	return 0;
}

int dp_drops(const struct dp *dp, struct sluice_count ret[SLUICE_REASON_MAX])
{
	memcpy(ret, dp->drops, sizeof(dp->drops));
	return 0;
}

void dp_slice_used(const struct dp *dp, uint32_t row, uint32_t ret[SLUICE_L4_MAX])
{
	assert_int_equal(row, 7);
	memcpy(ret, dp->used, sizeof(dp->used));
}

void dp_slice_leased(const struct dp *dp, uint32_t row, uint32_t ret[SLUICE_L4_MAX])
{
	(void)dp;
	assert_int_equal(row, 7);
	memset(ret, 0, SLUICE_L4_MAX * sizeof(*ret));
	ret[SLUICE_TCP] = 96;
}

const struct sluice_slice *dp_slice(const struct dp *dp, uint32_t row)
{
	static const struct sluice_slice slice = { .state = SLUICE_SLICE_HELD,
						   .first = 40960,
						   .last = 43007 };

	(void)dp;
	assert_int_equal(row, 7);
	return &slice;
}

static const char *const reasons[] = {
#define SLUICE_X(name, help) #name,
	SLUICE_REASONS(SLUICE_X)
#undef SLUICE_X
};

const char *dp_reason_name(uint32_t reason)
{
	return reasons[reason];
}

const struct lease_table *lessor_table(const struct lessor *l)
{
	return l->table;
}

struct watch_stats watch_stats(const struct watcher *w)
{
	return w->stats;
}

/* ---- reading a text ---- */

static char *finish(struct metrics_text *t)
{
	char *text;
	size_t len;

	assert_int_equal(metrics_text_finish(t, &text, &len), 0);
	assert_int_equal(strlen(text), len);
	metrics_text_free(t);
	return text;
}

/* Does the text have this line? */
static void assert_line(const char *text, const char *line)
{
	char whole[256];

	snprintf(whole, sizeof(whole), "\n%s\n", line);
	if (!strstr(text, whole))
		fail_msg("no line \"%s\" in\n%s", line, text);
}

static bool belongs(const char *line, const char *family)
{
	static const char *const suffixes[] = { "", "_bucket", "_sum", "_count" };
	size_t n = strcspn(line, "{ "), len = strlen(family);

	for (size_t i = 0; i < 4; i++)
		if (!strncmp(line, family, len) && n == len + strlen(suffixes[i]) &&
		    !strncmp(line + len, suffixes[i], strlen(suffixes[i])))
			return true;
	return false;
}

/*
 * As promtool would see it: HELP, TYPE, then samples of that family and no other, families sorted, no sample twice, counters called _total, each value a number.
 */
static void check_text(const char *text)
{
	char *copy = strdup(text), *lines[1024], *end;
	char family[128] = "", last[128] = "";
	size_t n = 0;

	assert_true(text[0] && text[strlen(text) - 1] == '\n');
	for (char *at = copy, *line; (line = strsep(&at, "\n")) && *line;)
		lines[n++] = line;
	for (size_t i = 0; i < n; i++) {
		const char *value = strrchr(lines[i], ' ') + 1;

		if (!strncmp(lines[i], "# HELP ", 7)) {
			assert_int_equal(sscanf(lines[i] + 7, "%127s", family), 1);
			assert_true(strcmp(last, family) < 0);
			strcpy(last, family);
			assert_false(strncmp(lines[i + 1], "# TYPE ", 7));
			assert_false(strncmp(lines[i + 1] + 7, family, strlen(family)));
			assert_int_equal(strlen(family) > 6 &&
						 !strcmp(family + strlen(family) - 6, "_total"),
					 !strcmp(strrchr(lines[i + 1], ' '), " counter"));
			assert_true(lines[++i + 1][0] != '#'); /* no family without samples */
			continue;
		}
		if (!belongs(lines[i], family))
			fail_msg("\"%s\" does not belong to %s", lines[i], family);
		strtod(value, &end);
		assert_true(*value && !*end);
		for (size_t k = 0; k < i; k++)
			if (!strncmp(lines[k], lines[i], (size_t)(value - lines[i])))
				fail_msg("twice: \"%s\"", lines[i]);
	}
	free(copy);
}

/* ---- the format ---- */

static void test_format(void **state)
{
	static const double bounds[] = { 0.001, 0.5 };
	static const uint64_t counts[] = { 3, 0, 2 };
	struct metrics_text *t = metrics_text_new();
	struct metric_family *b = metrics_text_family(t, "b_total", METRIC_COUNTER, "Bees."),
			     *a = metrics_text_family(t, "a", METRIC_GAUGE,
						      "One \\ two\nthree \"q\"");
	char *text;

	(void)state;
	metrics_text_family(t, "aa", METRIC_GAUGE, "Nothing.");
	metric_histogram(metrics_text_family(t, "c_seconds", METRIC_HISTOGRAM, "Time."),
			 METRIC_LABELS({ "of", "x" }), bounds, counts, 2, 12.25);
	metric_count(b, METRIC_LABELS({ "x", "q\"\\\nz" }, { "y", "" }), UINT64_MAX);
	metric_count(a, NULL, 0);
	metric_count(b, METRIC_LABELS({ "x", "\xc3\xa9{},=" }), 1);
	text = finish(t);
	assert_string_equal(text, "# HELP a One \\\\ two\\nthree \"q\"\n"
				  "# TYPE a gauge\n"
				  "a 0\n"
				  "# HELP b_total Bees.\n"
				  "# TYPE b_total counter\n"
				  "b_total{x=\"q\\\"\\\\\\nz\",y=\"\"} 18446744073709551615\n"
				  "b_total{x=\"\xc3\xa9{},=\"} 1\n"
				  "# HELP c_seconds Time.\n"
				  "# TYPE c_seconds histogram\n"
				  "c_seconds_bucket{of=\"x\",le=\"0.001\"} 3\n"
				  "c_seconds_bucket{of=\"x\",le=\"0.5\"} 3\n"
				  "c_seconds_bucket{of=\"x\",le=\"+Inf\"} 5\n"
				  "c_seconds_sum{of=\"x\"} 12.25\n"
				  "c_seconds_count{of=\"x\"} 5\n");
	check_text(text);
	free(text);
}

static void test_numbers(void **state)
{
	static const struct {
		double v;
		const char *text;
	} cases[] = {
		{ 0, "0" },
		{ 1.5, "1.5" },
		{ 0.1, "0.1" },
		{ 1e-9, "1e-09" },
		{ 123456789.125, "123456789.125" },
		{ 1.0 / 3, "0.3333333333333333" },
		{ INFINITY, "+Inf" },
		{ -INFINITY, "-Inf" },
		{ NAN, "NaN" },
		{ 1e300, "1e+300" },
	};
	char expected[80], *text;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct metrics_text *t = metrics_text_new();

		metric_value(metrics_text_family(t, "x", METRIC_GAUGE, "X"), NULL, cases[i].v);
		text = finish(t);
		snprintf(expected, sizeof(expected), "# HELP x X\n# TYPE x gauge\nx %s\n",
			 cases[i].text);
		assert_string_equal(text, expected);
		free(text);
	}
}

static void test_long(void **state)
{
	struct metrics_text *t = metrics_text_new();
	struct metric_family *f = metrics_text_family(t, "x", METRIC_GAUGE, "X");
	char value[2000], *text;

	(void)state;
	memset(value, 'v', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	for (int i = 0; i < 1000; i++)
		metric_count(f, METRIC_LABELS({ "l", value }), 1);
	text = finish(t);
	assert_int_equal(strlen(text), strlen("# HELP x X\n# TYPE x gauge\n") +
					       1000 * (strlen("x{l=\"\"} 1\n") + strlen(value)));
	free(text);
	t = metrics_text_new();
	text = finish(t);
	assert_string_equal(text, "");
	free(text);
}

/* ---- what the daemon says ---- */

static struct config *config;
static struct dp dp;
static struct lessor lessor;
static struct watcher watcher;
static struct collisions collisions;
static struct engine engine;
static struct hold holds[2];
static char dir[64], state_dir[80];
static struct store *store;

static struct range range(const char *text)
{
	struct range r;

	assert_int_equal(range_parse(text, &r), 0);
	return r;
}

static void lease(uint64_t id, enum sluice_lease_kind kind, const char *ports, bool ended)
{
	struct range r = range(ports);
	struct lease_request req = { .pool = "a",
				     .protos = LEASE_TCP | LEASE_UDP,
				     .kind = kind,
				     .ports = (uint32_t)r.last - r.first + 1,
				     .leases = 1,
				     .parity = -1 };
	struct lease *l = lease_grant(lessor.table, id, &req, &r, 1, 1);

	assert_non_null(l);
	if (ended)
		assert_int_equal(lease_release(lessor.table, l, LEASE_WHY_RELEASED, 2, 2), 0);
}

static int setup(void **state)
{
	struct lease_limits limits = { .leases = 10, .cool_down_s = 60 };
	struct lease_slice slice = { .pool = "a", .live = true };
	struct errtext err;

	(void)state;
	snprintf(dir, sizeof(dir), "%s/sluice-test-metrics.XXXXXX",
		 access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	if (!mkdtemp(dir))
		return -1;
	snprintf(state_dir, sizeof(state_dir), "%s/state", dir);
	if (config_parse("t.conf", CONFIG, strlen(CONFIG), &config, &err) < 0 ||
	    store_open(state_dir, "m", &store, &err) < 0)
		return -1;
	slice.ports = range("203.0.113.7:40960-43007");
	holds[0] = (struct hold){
		.pool = "a", .ports = slice.ports, .epoch = 1, .not_after_ns = 100 * NS_PER_S
	};
	holds[1] = (struct hold){ .pool = "a",
				  .ports = range("203.0.113.7:43008-45055"),
				  .epoch = 2,
				  .not_after_ns = 50 * NS_PER_S };
	lessor.table = lease_table_new(&limits);
	lease_slices_set(lessor.table, &slice, 1);
	lease(1, SLUICE_LEASE_SHARED, "203.0.113.7:40960-40963", false);
	lease(2, SLUICE_LEASE_EXCLUSIVE, "203.0.113.7:40964-40964", false);
	lease(3, SLUICE_LEASE_EXCLUSIVE, "203.0.113.7:40965-40966", true);
	engine = (struct engine){ .config = config,
				  .store = store,
				  .holds = { holds, 2 },
				  .dp = &dp,
				  .lessor = &lessor };
	engine.exhaust = exhaust_new();
	assert_non_null(engine.exhaust);
	dp.used[SLUICE_TCP] = 5;
	dp.used[SLUICE_ICMP] = 1;
	dp.pools[0].created[SLUICE_TCP] = 10;
	dp.pools[0].ended[SLUICE_TCP] = 4;
	dp.pools[0].ended[SLUICE_UDP] = 1;
	dp.pools[0].in = (struct sluice_count){ 21, 2100 };
	dp.pools[0].out = (struct sluice_count){ 22, 2200 };
	dp.pools[1].ended[SLUICE_ICMP] = 2;
	dp.drops[SLUICE_DROP_escape].packets = 33;
	collisions.told[0][1] = 44;
	collisions.told[3][0] = 45;
	watcher.stats.losses[1] = 55;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static int teardown(void **state)
{
	(void)state;
	exhaust_free(engine.exhaust);
	lease_table_free(lessor.table);
	store_close(store);
	config_free(config);
	return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static char *gather(const struct metrics_sources *s, uint64_t now_ns)
{
	struct metrics_text *t = metrics_text_new();
	char *text;

	metrics_gather(s, now_ns, t);
	text = finish(t);
	check_text(text);
	return text;
}

static const struct metrics_sources all = { &engine, NULL, &collisions, &watcher };

/* Pool a fills: 40 ports a second, in two slices of 2048 of which 96 are leased. Nothing is known before it was looked at. */
static void test_exhaustion(void **state)
{
	char *text = gather(&all, 20 * NS_PER_S);

	(void)state;
	assert_null(strstr(text, "\nsluice_pool_full_seconds{"));
	free(text);
	dp.pools[0].refused[SLUICE_TCP] = 3;
	exhaust_look(engine.exhaust, &engine, 20 * NS_PER_S);
	dp.used[SLUICE_TCP] = 105;
	exhaust_look(engine.exhaust, &engine, 25 * NS_PER_S);
	text = gather(&all, 25 * NS_PER_S);
	assert_line(text, "sluice_pool_full_seconds{pool=\"a\",proto=\"tcp\"} 92.35");
	assert_line(text, "sluice_pool_full_seconds{pool=\"a\",proto=\"udp\"} +Inf");
	assert_line(text, "sluice_pool_full_seconds{pool=\"b\",proto=\"tcp\"} +Inf");
	assert_line(text, "sluice_pool_refused_total{pool=\"a\",proto=\"tcp\"} 3");
	assert_null(strstr(text, "203.0.113"));
	free(text);
	dp.used[SLUICE_TCP] = 5;
}

static void test_names(void **state)
{
	static const char *const lines[] = {
		"# TYPE sluice_build_info gauge",
		"sluice_slices{pool=\"a\",state=\"held\"} 1",
		"sluice_slices{pool=\"a\",state=\"fenced\"} 1",
		"sluice_slices{pool=\"b\",state=\"held\"} 0",
		"sluice_slice_ports{pool=\"a\"} 4096",
		"sluice_slice_ports{pool=\"b\"} 0",
		"sluice_slice_ports_used{pool=\"a\",proto=\"tcp\",mode=\"overload\"} 10",
		"sluice_slice_ports_used{pool=\"a\",proto=\"udp\",mode=\"endpoint-independent\"} 0",
		"sluice_slice_ports_used{pool=\"a\",proto=\"icmp\",mode=\"endpoint-independent\"} "
		"2",
		"sluice_slice_ports_used{pool=\"a\",proto=\"tcp\",mode=\"lease\"} 5",
		"sluice_slice_ports_used{pool=\"a\",proto=\"udp\",mode=\"cooling\"} 2",
		"sluice_slice_ports_used{pool=\"b\",proto=\"tcp\",mode=\"endpoint-independent\"} 0",
		"sluice_slice_deadline_seconds{pool=\"a\"} 0",
		"sluice_slice_deadline_seconds{pool=\"b\"} +Inf",
		"sluice_leases{pool=\"a\",kind=\"shared\"} 1",
		"sluice_leases{pool=\"a\",kind=\"exclusive\"} 1",
		"sluice_leases{pool=\"b\",kind=\"shared\"} 0",
		"sluice_flows{pool=\"a\",proto=\"tcp\"} 6",
		"sluice_flows{pool=\"a\",proto=\"udp\"} 0", /* an end without its beginning */
		"sluice_flows_created_total{pool=\"a\",proto=\"tcp\"} 10",
		"sluice_flows_expired_total{reason=\"ended\"} 7",
		"sluice_packets_total{pool=\"a\",direction=\"in\"} 21",
		"sluice_packets_total{pool=\"a\",direction=\"out\"} 22",
		"sluice_bytes_total{pool=\"a\",direction=\"in\"} 2100",
		"sluice_bytes_total{pool=\"b\",direction=\"out\"} 0",
		"sluice_drops_total{reason=\"escape\"} 33",
		"sluice_drops_total{reason=\"no_flow\"} 0",
		"sluice_collisions_total{source=\"ctnetlink\",in_slice=\"true\"} 44",
		"sluice_collisions_total{source=\"dataplane\",in_slice=\"false\"} 45",
		"sluice_collisions_total{source=\"inventory\",in_slice=\"true\"} 0",
		"sluice_watch_losses_total{source=\"ctnetlink\"} 0",
		"sluice_watch_losses_total{source=\"netfilter\"} 55",
		"# TYPE sluice_store_commit_seconds histogram",
	};
	struct metrics_sources s = all;
	char *text;

	(void)state;
	s.store = store;
	text = gather(&s, 70 * NS_PER_S);
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		assert_line(text, lines[i]);
	assert_non_null(strstr(text, "\nsluice_build_info{version=\"" SLUICE_VERSION "\"} 1\n"));
	/* No addresses. */
	assert_null(strstr(text, "203.0.113"));
	free(text);

	text = gather(&s, NS_PER_S / 2 + 20 * NS_PER_S);
	assert_line(text, "sluice_slice_deadline_seconds{pool=\"a\"} 29.5");
	assert_line(text, "sluice_slices{pool=\"a\",state=\"held\"} 2");
	free(text);
}

/* Nothing but the watcher: none of the data plane's. */
static void test_watch_only(void **state)
{
	const struct metrics_sources s = { .store = store,
					   .collisions = &collisions,
					   .watcher = &watcher };
	char *text = gather(&s, 0);

	(void)state;
	assert_line(text, "sluice_collisions_total{source=\"ctnetlink\",in_slice=\"true\"} 44");
	assert_line(text, "sluice_watch_losses_total{source=\"netfilter\"} 55");
	assert_non_null(strstr(text, "sluice_build_info"));
	assert_non_null(strstr(text, "sluice_store_commit_seconds_count"));
	assert_null(strstr(text, "sluice_slice"));
	assert_null(strstr(text, "sluice_flows"));
	assert_null(strstr(text, "sluice_drops"));
	free(text);
}

static uint64_t commits(void)
{
	struct store_stats st = store_stats(store);
	uint64_t n = 0;

	for (size_t i = 0; i <= STORE_COMMIT_BOUNDS; i++)
		n += st.commits[i];
	return n;
}

/* Each transaction counts once, what fails or changes nothing does not. */
static void test_commits(void **state)
{
	struct store_host change = { "sysctl", "x", "0", "1" };
	const struct metrics_sources s = { .store = store, .collisions = &collisions };
	struct store_batch nothing = { 0 };
	uint64_t before = commits(), ns = store_stats(store).commit_ns;
	char *text, expected[64];
	struct errtext err;

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(store_host_add(store, &change, 1, &err), 0);
	assert_int_equal(commits(), before + 3);
	assert_true(store_stats(store).commit_ns > ns);
	assert_int_equal(store_commit(store, &nothing, &err), 0);
	assert_int_equal(commits(), before + 3);
	text = gather(&s, 0);
	snprintf(expected, sizeof(expected), "sluice_store_commit_seconds_count %u",
		 (unsigned)before + 3);
	assert_line(text, expected);
	snprintf(expected, sizeof(expected), "sluice_store_commit_seconds_bucket{le=\"+Inf\"} %u",
		 (unsigned)before + 3);
	assert_line(text, expected);
	assert_non_null(strstr(text, "_bucket{le=\"0.00025\"} "));
	/* Nothing is watched: there is nothing to lose. */
	assert_null(strstr(text, "watch_losses"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_format),  cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_long),    cmocka_unit_test(test_exhaustion),
		cmocka_unit_test(test_names),   cmocka_unit_test(test_watch_only),
		cmocka_unit_test(test_commits),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
