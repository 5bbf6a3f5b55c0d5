/* SPDX-License-Identifier: BSD-2-Clause */
/* Good files, and what a running daemon may take over. Mistakes are in test_config_bad.c. */
#include "collision.h"
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MINIMAL "uplinks = wan\npool p { addresses = 203.0.113.7 }\n"
#define N(a)    (sizeof(a) / sizeof((a)[0]))

static struct config *parse(const char *text)
{
	struct errtext err = { "" };
	struct config *c = NULL;
	int r = config_parse("t.conf", text, strlen(text), &c, &err);

	if (r)
		fail_msg("%s", err.s);
	assert_string_equal(err.s, "");
	assert_non_null(c);
	return c;
}

static void assert_range(const struct range *r, const char *text)
{
	char buf[RANGE_STRLEN];

	assert_string_equal(range_format(r, buf), text);
}

static void assert_prefix(const struct prefix *p, const char *text)
{
	char buf[PREFIX_STRLEN];

	assert_string_equal(prefix_format(p, buf), text);
}

static void assert_addr(const struct addr *a, const char *text)
{
	char buf[ADDR_STRLEN];

	assert_string_equal(addr_format(a, buf), text);
}

static void test_defaults(void **state)
{
	struct config *c = parse(MINIMAL);
	const struct config_pool *p = &c->pools[0];
	char host[256] = "";

	(void)state;
	assert_int_equal(gethostname(host, sizeof(host) - 1), 0);
	host[strcspn(host, ".")] = '\0';
	assert_string_equal(c->machine, host);
	assert_string_equal(c->path, "t.conf");
	assert_string_equal(c->state_dir, "/var/lib/sluice");
	assert_string_equal(c->control, "/run/sluice/control.sock");
	assert_string_equal(c->bpffs, "/sys/fs/bpf/sluice");
	assert_int_equal(c->n_uplinks, 1);
	assert_string_equal(c->uplinks[0], "wan");
	assert_int_equal(c->max_flows, 262144);
	assert_int_equal(c->icmp_rate, 100);
	assert_true(c->set_sysctls);
	assert_true(c->set_routes);
	assert_int_equal(c->fleet.backend, CONFIG_BACKEND_LOCAL);
	assert_int_equal(c->fleet.ttl_s, 0);
	assert_null(c->access.group);
	assert_int_equal(c->access.leases_per_uid, 64);
	assert_int_equal(c->access.ports_per_uid, 0);
	assert_int_equal(c->access.leases_per_cgroup, 0);
	assert_int_equal(c->leases.cool_down_s, 60);
	assert_int_equal(c->leases.records_days, 30);
	assert_int_equal(c->leases.fair_percent, 10);
	assert_string_equal(c->leases.cgroup, "sluice");
	assert_int_equal(c->n_warnings, 0);

	assert_int_equal(c->n_pools, 1);
	assert_string_equal(p->name, "p");
	assert_int_equal(p->line, 2);
	assert_int_equal(p->slice_size, 2048);
	assert_int_equal(p->n_addresses, 1);
	assert_addr(&p->addresses[0], "203.0.113.7");
	assert_int_equal(p->n_slices, 31);
	assert_range(&p->slices[0], "203.0.113.7:2048-4095");
	assert_range(&p->slices[30], "203.0.113.7:63488-65535");
	assert_int_equal(p->n_clients, 0);
	assert_int_equal(p->n_no_nat, 0);
	assert_int_equal(p->n_tags, 0);
	assert_int_equal(p->mapping[SLUICE_TCP], SLUICE_OVERLOAD);
	assert_int_equal(p->mapping[SLUICE_UDP], SLUICE_EIM);
	assert_int_equal(p->mapping[SLUICE_ICMP], SLUICE_EIM);
	assert_int_equal(p->filtering[SLUICE_TCP], SLUICE_FILTER_ADDRESS);
	assert_int_equal(p->filtering[SLUICE_UDP], SLUICE_FILTER_ADDRESS);
	assert_int_equal(p->unleased, SLUICE_UNLEASED_REPORT);
	assert_int_equal(p->filtering[SLUICE_ICMP], SLUICE_FILTER_ADDRESS);
	assert_int_equal(p->ports_per_client, 0);
	assert_int_equal(p->states_per_client, 0);
	assert_int_equal(p->flows_per_second, 0);
	assert_int_equal(p->flows_burst, 0);
	assert_true(p->paired);
	assert_true(p->hairpin);
	assert_false(p->inbound_refresh);
	assert_false(p->short_timers);
	assert_int_equal(p->mss_clamp, 0);
	assert_int_equal(p->ipv4_id, SLUICE_ID_SLICE);
	assert_int_equal(p->n_interfaces, 0);
	assert_int_equal(p->timers.tcp_established, 7440);
	assert_int_equal(p->timers.tcp_opening, 240);
	assert_int_equal(p->timers.tcp_closing, 240);
	assert_int_equal(p->timers.tcp_time_wait, 120);
	assert_int_equal(p->timers.tcp_reset, 240);
	assert_int_equal(p->timers.udp, 300);
	assert_int_equal(p->timers.udp_short, 30);
	assert_int_equal(p->udp_reuse_s, 120);
	assert_int_equal(p->timers.icmp, 60);
	config_free(c);
}

/* Every key, each away from its default. */
static void test_everything(void **state)
{
	struct config *c = parse("machine = 'edge-1.x_Y'\n"
				 "state-dir = \"/a b/\\\"\\\\\"\n"
				 "control = /c\n"
				 "bpffs = '/d\\'e\\f'\n"
				 "uplinks = { wan0, \"wan1\", 'w-a.n_2', }\n"
				 "max-flows = 1024 icmp-rate = 0\n"
				 "host { sysctl = check routes = \"check\" }\n"
				 "fleet { backend = local ttl = 2 }\n"
				 "access { group = sluice leases-per-uid = 7 ports-per-uid = 8"
				 " leases-per-cgroup = 9 } leases { cool-down = 5 records = 6"
				 " fair-share = 11 cgroup = ._-aZ09 }\n"
				 "pool \"b\"\n"
				 "{\n"
				 "  slice-size = 64\n"
				 "  addresses = { 198.51.100.6/31, 192.0.2.9 }\n"
				 "  slices = { 198.51.100.7:1152-1215, 192.0.2.9:1024-1151 }\n"
				 "  clients = { 10.2.0.0/16, 10.1.0.0/16, 10.1.1.0/24 }\n"
				 "  no-nat = { 192.0.2.0/24 }\n"
				 "  no-nat += { 10.0.0.0/8 }\n"
				 "  tcp-mapping = endpoint-independent\n"
				 "  udp-mapping = overload\n"
				 "  filtering = endpoint-independent\n"
				 "  tcp-filtering = address-port-dependent\n"
				 "  pairing = arbitrary hairpin = off\n"
				 "  interfaces = { lan0, 'lan.7' }\n"
				 "  unleased = deny\n"
				 "  ports-per-client = 1000 states-per-client = 2000\n"
				 "  flows-per-second = 50 flows-burst = 200\n"
				 "  mss-clamp = 1360 ipv4-id = set-df\n"
				 "  tcp-established = 7441 tcp-opening = 241 tcp-closing = 242\n"
				 "  tcp-time-wait = 121 tcp-reset = 243 udp-timeout = 123\n"
				 "  udp-short-timeout = 7 icmp-timeout = 61 inbound-refresh = yes\n"
				 "  tags = { \"geo=DE\", \"class=x y\" }\n"
				 "}\n");
	const struct config_pool *p = &c->pools[0];

	(void)state;
	assert_string_equal(c->machine, "edge-1.x_Y");
	assert_string_equal(c->state_dir, "/a b/\"\\");
	assert_string_equal(c->control, "/c");
	assert_string_equal(c->bpffs, "/d'e\\f");
	assert_int_equal(c->n_uplinks, 3);
	assert_string_equal(c->uplinks[0], "wan0");
	assert_string_equal(c->uplinks[1], "wan1");
	assert_string_equal(c->uplinks[2], "w-a.n_2");
	assert_int_equal(c->max_flows, 1024);
	assert_int_equal(c->icmp_rate, 0);
	assert_false(c->set_sysctls);
	assert_false(c->set_routes);
	assert_int_equal(c->fleet.ttl_s, 2);
	assert_string_equal(c->access.group, "sluice");
	assert_int_equal(c->access.leases_per_uid, 7);
	assert_int_equal(c->access.ports_per_uid, 8);
	assert_int_equal(c->access.leases_per_cgroup, 9);
	assert_int_equal(c->leases.cool_down_s, 5);
	assert_int_equal(c->leases.records_days, 6);
	assert_int_equal(c->leases.fair_percent, 11);
	assert_string_equal(c->leases.cgroup, "._-aZ09");
	assert_int_equal(c->n_warnings, 0);

	assert_int_equal(p->line, 10);
	assert_int_equal(p->slice_size, 64);
	assert_int_equal(p->n_addresses, 3);
	assert_addr(&p->addresses[0], "192.0.2.9");
	assert_addr(&p->addresses[1], "198.51.100.6");
	assert_addr(&p->addresses[2], "198.51.100.7");
	assert_int_equal(p->n_slices, 3);
	assert_range(&p->slices[0], "192.0.2.9:1024-1087");
	assert_range(&p->slices[1], "192.0.2.9:1088-1151");
	assert_range(&p->slices[2], "198.51.100.7:1152-1215");
	assert_int_equal(p->n_clients, 3);
	assert_prefix(&p->clients[0], "10.1.0.0/16");
	assert_prefix(&p->clients[1], "10.1.1.0/24");
	assert_prefix(&p->clients[2], "10.2.0.0/16");
	assert_int_equal(p->n_no_nat, 2);
	assert_prefix(&p->no_nat[0], "10.0.0.0/8");
	assert_prefix(&p->no_nat[1], "192.0.2.0/24");
	assert_int_equal(p->mapping[SLUICE_TCP], SLUICE_EIM);
	assert_int_equal(p->mapping[SLUICE_UDP], SLUICE_OVERLOAD);
	assert_int_equal(p->mapping[SLUICE_ICMP], SLUICE_EIM);
	assert_int_equal(p->filtering[SLUICE_TCP], SLUICE_FILTER_PORT);
	assert_int_equal(p->filtering[SLUICE_UDP], SLUICE_FILTER_NONE);
	assert_int_equal(p->unleased, SLUICE_UNLEASED_DENY);
	assert_int_equal(p->ports_per_client, 1000);
	assert_int_equal(p->states_per_client, 2000);
	assert_int_equal(p->flows_per_second, 50);
	assert_int_equal(p->flows_burst, 200);
	assert_false(p->paired);
	assert_false(p->hairpin);
	assert_true(p->inbound_refresh);
	assert_int_equal(p->mss_clamp, 1360);
	assert_int_equal(p->ipv4_id, SLUICE_ID_SET_DF);
	assert_int_equal(p->n_interfaces, 2);
	assert_string_equal(p->interfaces[0], "lan0");
	assert_string_equal(p->interfaces[1], "lan.7");
	assert_int_equal(p->timers.tcp_established, 7441);
	assert_int_equal(p->timers.tcp_opening, 241);
	assert_int_equal(p->timers.tcp_closing, 242);
	assert_int_equal(p->timers.tcp_time_wait, 121);
	assert_int_equal(p->timers.tcp_reset, 243);
	assert_int_equal(p->timers.udp, 123);
	assert_int_equal(p->timers.udp_short, 7);
	assert_int_equal(p->timers.icmp, 61);
	assert_int_equal(p->n_tags, 2);
	assert_string_equal(p->tags[0], "geo=DE");
	assert_string_equal(p->tags[1], "class=x y");
	config_free(c);
}

/* Both families in one pool, and a pool of IPv6 alone. */
static void test_ipv6(void **state)
{
	struct config *c =
		parse("uplinks = wan\n"
		      "pool a { addresses = { 2001:db8:5::8/127, 203.0.113.7 }\n"
		      "  slices = { \"[2001:db8:5::9]:40960-45055\", 203.0.113.7:2048-4095 }\n"
		      "  clients = 10.0.0.0/8\n"
		      "  no-nat = { 2001:db8::/32, ::/0, 0.0.0.0/0 } }\n"
		      "pool b { addresses = 2001:db8:6::7 slice-size = 32768 }\n");
	const struct config_pool *a = &c->pools[0], *b = &c->pools[1];

	(void)state;
	assert_int_equal(a->n_addresses, 3);
	assert_addr(&a->addresses[0], "203.0.113.7");
	assert_addr(&a->addresses[1], "2001:db8:5::8");
	assert_addr(&a->addresses[2], "2001:db8:5::9");
	assert_int_equal(a->n_slices, 3);
	assert_range(&a->slices[0], "203.0.113.7:2048-4095");
	assert_range(&a->slices[1], "[2001:db8:5::9]:40960-43007");
	assert_range(&a->slices[2], "[2001:db8:5::9]:43008-45055");
	assert_int_equal(a->n_clients, 1);
	assert_int_equal(a->n_no_nat, 3);
	assert_prefix(&a->no_nat[0], "0.0.0.0/0");
	assert_prefix(&a->no_nat[1], "::/0");
	assert_prefix(&a->no_nat[2], "2001:db8::/32");
	assert_int_equal(b->n_slices, 1);
	assert_range(&b->slices[0], "[2001:db8:6::7]:32768-65535");
	config_free(c);
}

static const struct config_pool *policy(struct config **ret, const char *keys)
{
	char text[512];

	snprintf(text, sizeof(text), "uplinks = wan pool p { addresses = 192.0.2.1 %s }", keys);
	*ret = parse(text);
	return &(*ret)->pools[0];
}

static void test_policy(void **state)
{
	const struct config_pool *p;
	struct config *c;

	(void)state;
	/* A burst is a second's worth. */
	p = policy(&c, "flows-per-second = 9");
	assert_int_equal(p->flows_burst, 9);
	config_free(c);
	/* The short times, and one that is named; nothing is too short now. */
	p = policy(&c, "udp-timeout = 1 short-timers = true");
	assert_int_equal(p->timers.udp, 1);
	assert_int_equal(p->timers.tcp_established, 1800);
	assert_int_equal(p->timers.tcp_opening, 30);
	assert_int_equal(p->timers.tcp_closing, 30);
	assert_int_equal(p->timers.tcp_time_wait, 60);
	assert_int_equal(p->timers.tcp_reset, 10);
	assert_int_equal(p->timers.udp_short, 15);
	assert_int_equal(p->udp_reuse_s, 0);
	assert_int_equal(p->timers.icmp, 30);
	config_free(c);
	/* The shortest and the longest without it. */
	p = policy(&c,
		   "udp-timeout = 120 icmp-timeout = 60 tcp-established = 7440 tcp-time-wait = 120 "
		   "tcp-opening = 240 tcp-closing = 65535 tcp-reset = 240 udp-short-timeout = 1");
	assert_int_equal(p->timers.udp, 120);
	assert_int_equal(p->timers.tcp_closing, 65535);
	config_free(c);
	p = policy(&c, "mss-clamp = auto ipv4-id = keep udp-filtering = address-port-dependent");
	assert_int_equal(p->mss_clamp, SLUICE_MSS_AUTO);
	assert_int_equal(p->ipv4_id, SLUICE_ID_KEEP);
	assert_int_equal(p->filtering[SLUICE_UDP], SLUICE_FILTER_PORT);
	assert_int_equal(p->filtering[SLUICE_TCP], SLUICE_FILTER_ADDRESS);
	config_free(c);
	p = policy(&c,
		   "mss-clamp = 0 ipv4-id = slice ports-per-client = 65535 flows-per-second = 0");
	assert_int_equal(p->mss_clamp, 0);
	assert_int_equal(p->flows_burst, 0);
	config_free(c);
}

/* The same clients in pools whose interfaces differ, and pools that share theirs. */
static void test_interfaces(void **state)
{
	struct config *c = parse(
		"uplinks = wan\n"
		"pool a { addresses = 192.0.2.1 clients = 10.0.0.0/8 }\n"
		"pool b { addresses = 192.0.2.2 clients = 10.0.0.0/8 interfaces = { l1, l2 } }\n"
		"pool c { addresses = 192.0.2.3 clients = 10.1.0.0/16 interfaces = l3 }\n"
		"pool d { addresses = 192.0.2.4 clients = 11.0.0.0/8 interfaces = { l2, l1 } }\n");

	(void)state;
	assert_int_equal(c->pools[0].n_clients, 1);
	assert_int_equal(c->pools[1].n_clients, 1);
	assert_prefix(&c->pools[1].clients[0], "10.0.0.0/8");
	assert_prefix(&c->pools[2].clients[0], "10.1.0.0/16");
	assert_true(config_same_interfaces(&c->pools[1], &c->pools[3]));
	assert_false(config_same_interfaces(&c->pools[1], &c->pools[2]));
	assert_false(config_same_interfaces(&c->pools[0], &c->pools[2]));
	config_free(c);
}

static void test_values(void **state)
{
	static const struct {
		const char *text;
		enum sluice_filtering filtering;
		enum sluice_unleased unleased;
	} cases[] = {
		{ "filtering = address-port-dependent unleased = allow", SLUICE_FILTER_PORT,
		  SLUICE_UNLEASED_ALLOW },
		{ "filtering = address-dependent unleased = report", SLUICE_FILTER_ADDRESS,
		  SLUICE_UNLEASED_REPORT },
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		char text[256];
		struct config *c;

		snprintf(text, sizeof(text),
			 "uplinks = wan fleet { ttl = 86400 } max-flows = 16777216 "
			 "icmp-rate = 100000 pool p { addresses = 192.0.2.1 %s }",
			 cases[i].text);
		c = parse(text);
		assert_int_equal(c->pools[0].filtering[SLUICE_TCP], cases[i].filtering);
		assert_int_equal(c->pools[0].filtering[SLUICE_UDP], cases[i].filtering);
		assert_int_equal(c->pools[0].unleased, cases[i].unleased);
		assert_int_equal(c->fleet.ttl_s, 86400);
		assert_int_equal(c->max_flows, 16777216);
		assert_int_equal(c->icmp_rate, 100000);
		config_free(c);
	}
}

/* Without "slices" all whole slices from port 1024 on are held; with an empty list none. */
static void test_held(void **state)
{
	static const struct {
		const char *more;
		size_t n;
		unsigned first, last;
	} cases[] = {
		{ "slice-size = 64", 2 * 1008, 1024, 1087 },
		{ "slice-size = 1024", 2 * 63, 1024, 2047 },
		{ "slice-size = 2048", 2 * 31, 2048, 4095 },
		{ "slice-size = 32768", 2 * 1, 32768, 65535 },
		{ "slice-size = 64 slices = { }", 0, 0, 0 },
		{ "slices = { } slices += { '192.0.2.1:4096-6143' }", 1, 4096, 6143 },
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		char text[256];
		struct config *c;
		const struct config_pool *p;

		snprintf(text, sizeof(text),
			 "uplinks = wan pool p { addresses = { 192.0.2.1, 192.0.2.2 } %s }",
			 cases[i].more);
		c = parse(text);
		p = &c->pools[0];
		assert_int_equal(p->n_slices, cases[i].n);
		if (p->n_slices) {
			assert_addr(&p->slices[0].addr, "192.0.2.1");
			assert_int_equal(p->slices[0].first, cases[i].first);
			assert_int_equal(p->slices[0].last, cases[i].last);
		}
		if (p->n_slices > 1) {
			assert_addr(&p->slices[p->n_slices - 1].addr, "192.0.2.2");
			assert_int_equal(p->slices[p->n_slices - 1].last, 65535);
		}
		config_free(c);
	}
}

/* Comments of all kinds, and lines that end as on other systems, do not move the lines. */
static void test_text(void **state)
{
	struct config *c = parse("# \" ' { /* \r\n"
				 "/* one\n\n * \" ** { */uplinks = wan // } \"\n"
				 "######## ${HOME}\n"
				 "state-dir = /a//b#c\r\n"
				 "bpffs = \"/x#y//z/*w*/\"\t/***/\n"
				 "pool p{addresses={203.0.113.7 /*,*/}slices={}}\n"
				 "// \303\251 \001 the end");

	(void)state;
	assert_string_equal(c->state_dir, "/a//b");
	assert_string_equal(c->bpffs, "/x#y//z/*w*/");
	assert_int_equal(c->n_uplinks, 1);
	assert_string_equal(c->uplinks[0], "wan");
	assert_int_equal(c->pools[0].line, 8);
	assert_int_equal(c->pools[0].n_slices, 0);
	config_free(c);
}

/* The ends of what numbers of leases may be; 0 is no limit, or none. */
static void test_lease_limits(void **state)
{
	struct config *c =
		parse("access { leases-per-uid = 65536 ports-per-uid = 4194304"
		      " leases-per-cgroup = 65536 }"
		      "leases { cool-down = 3600 records = 3650 fair-share = 100 }" MINIMAL);

	(void)state;
	assert_int_equal(c->access.leases_per_uid, 65536);
	assert_int_equal(c->access.ports_per_uid, 4194304);
	assert_int_equal(c->access.leases_per_cgroup, 65536);
	assert_int_equal(c->leases.cool_down_s, 3600);
	assert_int_equal(c->leases.records_days, 3650);
	assert_int_equal(c->leases.fair_percent, 100);
	assert_int_equal(c->n_warnings, 0);
	config_free(c);
	c = parse("access { leases-per-uid = 0 } leases { cool-down = 0 records = 1 fair-share = 0 "
		  "}" MINIMAL);
	assert_int_equal(c->access.leases_per_uid, 0);
	assert_int_equal(c->leases.cool_down_s, 0);
	assert_int_equal(c->leases.records_days, 1);
	assert_int_equal(c->leases.fair_percent, 0);
	config_free(c);
}

/* What later versions act on is accepted, and said so, in the order of the file. */
static void test_warnings(void **state)
{
	static const char *const expected[] = {
		"t.conf:8: fleet endpoints: ",
		"t.conf:9: fleet key: ",
		"t.conf:3: proxy \"warp\": ",
		"t.conf:11: proxy \"x\": ",
	};
	struct config *c = parse("watch { netns = { \"\", blue, /run/netns/red }\n"
				 " heal = Yes }\n"
				 "proxy warp { interfaces = { lan }\n"
				 " pool = p }\n"
				 "metrics { listen = '[::1]:9469' } access {\n"
				 "leases-per-uid = 64 }\n"
				 "fleet {\n"
				 "endpoints = { 'https://192.0.2.7:2379' }\n"
				 "key = /k }\n"
				 "uplinks = wan pool p { addresses = 203.0.113.7 }\n"
				 "proxy x { interfaces = { lan } pool = p }\n");

	(void)state;
	assert_int_equal(c->n_warnings, N(expected));
	for (size_t i = 0; i < N(expected); i++) {
		assert_memory_equal(c->warnings[i], expected[i], strlen(expected[i]));
		assert_non_null(strstr(c->warnings[i], "this version does not act on it"));
	}
	config_free(c);
}

/* Where metrics are asked for. Without the section: nowhere. */
static void test_metrics(void **state)
{
	struct config *c = parse(MINIMAL);
	struct addr a;

	(void)state;
	assert_null(c->metrics.listen);
	config_free(c);

	c = parse(MINIMAL "\nmetrics { }");
	assert_string_equal(c->metrics.listen, "127.0.0.1:9469");
	assert_null(c->metrics.path);
	assert_int_equal(addr_parse("127.0.0.1", &a), 0);
	assert_memory_equal(&c->metrics.addr, &a, sizeof(a));
	assert_int_equal(c->metrics.port, 9469);
	assert_int_equal(c->n_warnings, 0);
	config_free(c);

	c = parse(MINIMAL "\nmetrics {\nlisten = '[::1]:81' }");
	assert_int_equal(addr_parse("::1", &a), 0);
	assert_memory_equal(&c->metrics.addr, &a, sizeof(a));
	assert_int_equal(c->metrics.port, 81);
	config_free(c);

	c = parse("metrics { listen = 'unix:/run/sluice/metrics.sock' }" MINIMAL);
	assert_string_equal(c->metrics.path, "/run/sluice/metrics.sock");
	assert_int_equal(c->n_warnings, 0);
	config_free(c);
}

/* Where collisions are looked for. Without the section: at home. */
static void test_watch(void **state)
{
	struct config *c = parse(MINIMAL);

	(void)state;
	assert_false(c->watch.on);
	assert_int_equal(c->watch.n_netns, 1);
	assert_string_equal(c->watch.netns[0], "");
	assert_int_equal(c->watch.netns_lines[0], 0);
	assert_false(c->watch.heal);
	assert_int_equal(c->watch.sources, COLLISION_CTNETLINK | COLLISION_NETFILTER);
	assert_int_equal(c->watch.buffer, 8388608);
	assert_int_equal(c->watch.history, 10000);
	config_free(c);

	c = parse("watch { heal = true }" MINIMAL);
	assert_true(c->watch.on);
	assert_true(c->watch.heal);
	assert_int_equal(c->watch.n_netns, 1);
	assert_string_equal(c->watch.netns[0], "");
	assert_int_equal(c->watch.netns_lines[0], 1);
	assert_int_equal(c->n_warnings, 0);
	config_free(c);

	c = parse("watch { netns = { } }" MINIMAL);
	assert_true(c->watch.on);
	assert_int_equal(c->watch.n_netns, 0);
	config_free(c);

	c = parse("\nwatch { netns = { blue, \"\",\n"
		  "/proc/1/ns/net, /run/netns/red }\n"
		  "buffer = 65536 history = 1 }\n" MINIMAL);
	assert_int_equal(c->watch.n_netns, 4);
	assert_string_equal(c->watch.netns[0], "blue");
	assert_string_equal(c->watch.netns[1], "");
	assert_string_equal(c->watch.netns[2], "/proc/1/ns/net");
	assert_string_equal(c->watch.netns[3], "/run/netns/red");
	assert_int_equal(c->watch.netns_lines[1], 2);
	assert_int_equal(c->watch.netns_lines[2], 3);
	assert_int_equal(c->watch.buffer, 65536);
	assert_int_equal(c->watch.history, 1);
	config_free(c);
	c = parse("watch { buffer = 1073741824 sources = ctnetlink history = 1000000 }" MINIMAL);
	assert_int_equal(c->watch.sources, COLLISION_CTNETLINK);
	assert_int_equal(c->watch.buffer, 1073741824);
	assert_int_equal(c->watch.history, 1000000);
	config_free(c);
}

/* The most that there may be, one more, and names as long as they can be told. */
static void test_watch_many(void **state)
{
	char text[1024], long_name[65] = "";
	struct errtext err = { "" };
	struct config *c = NULL;
	size_t n;

	(void)state;
	for (int many = 64; many <= 65; many++) {
		n = (size_t)sprintf(text, "watch { netns = { n0");
		for (int i = 1; i < many; i++)
			n += (size_t)sprintf(text + n, ", n%d", i);
		n += (size_t)sprintf(text + n, " } }\n" MINIMAL);
		if (many == 64) {
			c = parse(text);
			assert_int_equal(c->watch.n_netns, 64);
			assert_string_equal(c->watch.netns[63], "n63");
			config_free(c);
			continue;
		}
		assert_int_equal(config_parse("t.conf", text, n, &c, &err), -EINVAL);
		assert_non_null(strstr(err.s, "netns \"n64\""));
		assert_non_null(strstr(err.s, "allowed are 64"));
	}
	memset(long_name, 'x', 63);
	sprintf(text, "watch { netns = %s }" MINIMAL, long_name);
	c = parse(text);
	assert_string_equal(c->watch.netns[0], long_name);
	config_free(c);
	long_name[63] = 'x';
	n = (size_t)sprintf(text, "watch { netns = %s }" MINIMAL, long_name);
	assert_int_equal(config_parse("t.conf", text, n, &c, &err), -EINVAL);
	assert_non_null(strstr(err.s, "63 characters"));
}

/* A file without pools is read: it serves who only watches. */
static void test_no_pool(void **state)
{
	struct config *c = parse("uplinks = wan watch { netns = blue }");
	struct errtext err = { "" };

	(void)state;
	assert_int_equal(c->n_pools, 0);
	assert_int_equal(config_need_pools(c, &err), -EINVAL);
	assert_string_equal(err.s, "t.conf:1: pool \"\": no pool is given; allowed are 1 to 64, as "
				   "in pool \"default\" { ... }");
	config_free(c);
	c = parse(MINIMAL);
	err.s[0] = '\0';
	assert_int_equal(config_need_pools(c, &err), 0);
	assert_string_equal(err.s, "");
	config_free(c);
}

static void test_reloadable(void **state)
{
	static const struct {
		const char *text;
		const char *key; /* NULL: may be taken over */
	} cases[] = {
		{ "machine = a\n" MINIMAL, NULL },
		{ "machine = b\n" MINIMAL, "machine \"b\"" },
		{ "machine = a state-dir = /x\n" MINIMAL, "state-dir \"/x\"" },
		{ "machine = a control = /x\n" MINIMAL, "control \"/x\"" },
		{ "machine = a bpffs = /x\n" MINIMAL, "bpffs \"/x\"" },
		{ "machine = a leases { cgroup = slab }\n" MINIMAL, "leases cgroup \"slab\"" },
		{ "machine = a leases { cgroup = sluice cool-down = 1 records = 2 fair-share = 3 }"
		  "access { leases-per-uid = 1 ports-per-uid = 2 leases-per-cgroup = 3 }" MINIMAL,
		  NULL },
		{ "machine = a watch { netns = \"\" heal = true history = 5 }" MINIMAL, NULL },
		{ "machine = a watch { netns = { } }" MINIMAL, "watch netns \"\"" },
		{ "machine = a watch { netns = { \"\", blue } }" MINIMAL, "watch netns \"blue\"" },
		{ "machine = a watch { netns = blue }" MINIMAL, "watch netns \"blue\"" },
		{ "machine = a watch { sources = { netfilter, ctnetlink } }" MINIMAL, NULL },
		{ "machine = a watch { sources = netfilter }" MINIMAL, "watch sources: " },
		{ "machine = a watch { buffer = 65536 }" MINIMAL, "watch buffer \"65536\"" },
		{ "machine = a max-flows = 4096 icmp-rate = 5 uplinks = x host { sysctl = check }"
		  "pool q { addresses = 192.0.2.1 } fleet { ttl = 9 } access { group = g }",
		  NULL },
	};
	struct config *a = parse(cases[0].text);

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		struct config *b = parse(cases[i].text);
		struct errtext err = { "" };

		assert_int_equal(config_reloadable(a, b, &err), cases[i].key ? -EINVAL : 0);
		if (cases[i].key) {
			assert_memory_equal(err.s, "t.conf: ", 8);
			assert_memory_equal(err.s + 8, cases[i].key, strlen(cases[i].key));
			assert_int_equal(config_reloadable(a, b, NULL), -EINVAL);
		} else {
			assert_string_equal(err.s, "");
		}
		config_free(b);
	}
	config_free(a);
}

static void test_load(void **state)
{
	char dir[] = "/tmp/sluice-config-XXXXXX", path[64];
	struct config *untouched = (struct config *)(uintptr_t)0x5a5a5a5a, *c = untouched;
	struct errtext err = { "" };
	char *blanks;
	FILE *f;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/sluice.conf", dir);

	assert_int_equal(config_load(path, &c, &err), -ENOENT);
	assert_memory_equal(err.s, path, strlen(path));
	assert_non_null(strstr(err.s, strerror(ENOENT)));
	assert_int_equal(config_load(dir, &c, &err), -EISDIR);
	assert_non_null(strstr(err.s, strerror(EISDIR)));
	assert_ptr_equal(c, untouched);

	/* One byte more than there may be; then as many as there may be. */
	blanks = malloc(1 << 20);
	assert_non_null(blanks);
	memset(blanks, '\n', 1 << 20);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(blanks, 1, (1 << 20) + 1 - strlen(MINIMAL), f),
			 (1 << 20) + 1 - strlen(MINIMAL));
	free(blanks);
	fputs(MINIMAL, f);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(config_load(path, &c, &err), -EINVAL);
	assert_non_null(strstr(err.s, "too long"));
	assert_ptr_equal(c, untouched);
	assert_int_equal(truncate(path, 1 << 20), 0);
	assert_int_equal(config_load(path, &c, NULL), 0);
	assert_string_equal(c->path, path);
	config_free(c);
	unlink(path);
	rmdir(dir);
}

/* The largest file that makes sense: every pool, every address, every prefix. */
static void test_large(void **state)
{
	char *text = NULL;
	struct config *c;
	size_t size, addresses = 0, slices = 0, clients = 0;
	FILE *f = open_memstream(&text, &size);

	(void)state;
	assert_non_null(f);
	fputs("uplinks = wan\n", f);
	for (unsigned p = 64; p-- > 0;) {
		fprintf(f, "pool p%u { slice-size = 4096 addresses = {", p);
		for (unsigned i = 16; i-- > 0;)
			fprintf(f, "198.18.%u.%u,", p, i);
		fprintf(f, "}\nslices = {");
		for (unsigned i = 0; i < 8; i++)
			fprintf(f, "198.18.%u.%u:32768-36863,", p, i);
		fprintf(f, "}\nclients = {");
		for (unsigned i = 0; i < 64; i++)
			fprintf(f, "10.%u.%u.0/24,", i, p);
		fprintf(f, "}\nno-nat = {");
		for (unsigned i = 0; i < 64; i++)
			fprintf(f, "172.16.%u.0/24,", i);
		fprintf(f, "} }\n");
	}
	fclose(f);

	c = parse(text);
	assert_int_equal(c->n_pools, 64);
	for (size_t p = 0; p < c->n_pools; p++) {
		char name[8];

		snprintf(name, sizeof(name), "p%zu", 63 - p);
		assert_string_equal(c->pools[p].name, name);
		assert_int_equal(c->pools[p].line, 2 + 4 * p);
		addresses += c->pools[p].n_addresses;
		slices += c->pools[p].n_slices;
		clients += c->pools[p].n_clients;
		for (size_t i = 1; i < c->pools[p].n_addresses; i++)
			assert_true(addr_cmp(&c->pools[p].addresses[i - 1],
					     &c->pools[p].addresses[i]) < 0);
	}
	assert_int_equal(addresses, SLUICE_MAX_ADDRS);
	assert_int_equal(slices, 512);
	assert_int_equal(clients, SLUICE_MAX_PREFIXES);
	config_free(c);
	free(text);
}

/* The example that is installed. */
static void test_example(void **state)
{
	struct errtext err = { "" };
	struct config *c = NULL;

	(void)state;
	if (config_load("scripts/sluice.conf", &c, &err))
		fail_msg("%s", err.s);
	assert_int_equal(c->n_warnings, 0);
	assert_int_equal(c->pools[0].n_addresses, 3);
	assert_int_equal(c->pools[0].n_slices, 3);
	config_free(c);
}

/* Nothing is left of a failed reading that could disturb the next one. */
static void test_again(void **state)
{
	static const char *const bad[] = { "x = \"", "pool \"a\" { x = 1", "pool p { tags = { a",
					   "machine = a b = c", "pool p { } pool p { }" };

	(void)state;
	for (size_t i = 0; i < N(bad); i++) {
		struct config *c = NULL;
		struct errtext err;

		assert_int_equal(config_parse("t.conf", bad[i], strlen(bad[i]), &c, &err), -EINVAL);
		c = parse(MINIMAL);
		assert_int_equal(c->pools[0].line, 2);
		config_free(c);
	}
	config_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),     cmocka_unit_test(test_everything),
		cmocka_unit_test(test_values),       cmocka_unit_test(test_policy),
		cmocka_unit_test(test_interfaces),   cmocka_unit_test(test_ipv6),
		cmocka_unit_test(test_held),         cmocka_unit_test(test_text),
		cmocka_unit_test(test_lease_limits), cmocka_unit_test(test_warnings),
		cmocka_unit_test(test_no_pool),      cmocka_unit_test(test_metrics),
		cmocka_unit_test(test_watch),        cmocka_unit_test(test_watch_many),
		cmocka_unit_test(test_reloadable),   cmocka_unit_test(test_load),
		cmocka_unit_test(test_large),        cmocka_unit_test(test_example),
		cmocka_unit_test(test_again),
	};

	return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
