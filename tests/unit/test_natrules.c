/* SPDX-License-Identifier: BSD-2-Clause */
/* Source NAT rules as libnftables prints them, and what doctor says of them. The rules are parsed by the real nftables of this machine: loaded in a namespace of their own. */
#include "natflows.h"
#include "natrules.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <nftables/libnftables.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char CONF[] = "machine = \"edge1\"\n"
			   "uplinks = { \"wan\" }\n"
			   "pool \"default\" {\n"
			   "  addresses = { \"203.0.113.7\" }\n"
			   "  slices = { \"203.0.113.7:40960-43007\" }\n"
			   "  clients = { \"10.1.0.0/16\" }\n"
			   "}\n";

static struct config *config;

/* Rules of a chain, between "table ip nat { chain post { type nat hook postrouting priority srcnat;" and its end. */
static struct natrules *rules_of(const char *rules)
{
	struct natrules *r = malloc(sizeof(*r));
	struct nft_ctx *nft = nft_ctx_new(NFT_CTX_DEFAULT);
	struct errtext err = { 0 };
	char text[2048];

	assert_non_null(r);
	assert_non_null(nft);
	snprintf(
		text, sizeof(text),
		"flush ruleset\n"
		"table ip nat {\n"
		" map m { type ipv4_addr : ipv4_addr; elements = { 10.0.0.1 : 203.0.113.7 } }\n"
		" set s { type ipv4_addr; flags interval; elements = { 10.9.0.0/16, 192.0.2.1 } }\n"
		" chain post { type nat hook postrouting priority srcnat; policy accept;\n%s\n "
		"}\n}\n",
		rules);
	if (nft_run_cmd_from_buffer(nft, text))
		fail_msg("nftables refused: %s", text);
	nft_ctx_free(nft);
	if (natrules_read(r, &err) < 0)
		fail_msg("%s", err.s);
	return r;
}

/* Ids of what is found, separated by spaces, in the order of finding. */
static const char *ids_of(const char *rules, char *buf, size_t size)
{
	struct natrules *r = rules_of(rules);
	struct findings fs = { 0 };
	size_t at = 0;

	natrules_judge(r, config, 32768, 60999, &fs);
	assert_int_equal(fs.err, 0);
	buf[0] = '\0';
	for (size_t i = 0; i < fs.n; i++)
		at += (size_t)snprintf(buf + at, size - at, "%s%s", i ? " " : "", fs.v[i].id);
	findings_done(&fs);
	free(r);
	return buf;
}

static void test_judged(void **state)
{
	static const struct {
		const char *rules, *ids;
	} cases[] = {
		/* nothing */
		{ "", "" },
		{ "ip saddr 10.1.0.0/16 accept", "" },
		/* the collision of the lab */
		{ "ip saddr 10.2.0.0/16 oifname \"wan\" ip protocol tcp snat to "
		  "203.0.113.7:40960-43007",
		  "nat.slices" },
		{ "ip saddr 10.2.0.0/16 oifname \"wan\" snat to 203.0.113.7", "nat.slices" },
		{ "ip saddr 10.2.0.0/16 oifname \"wan\" snat to 203.0.113.1-203.0.113.9",
		  "nat.slices" },
		{ "ip saddr 10.2.0.0/16 oifname \"wan\" ip protocol tcp snat to 203.0.113.7:43007",
		  "nat.slices" },
		/* beside the slice, but nobody else's either */
		{ "ip saddr 10.2.0.0/16 oifname \"wan\" ip protocol tcp snat to "
		  "203.0.113.7:1024-40959",
		  "nat.slices" },
		{ "ip saddr 10.2.0.0/16 oifname \"wan\" ip protocol tcp snat to "
		  "203.0.113.8:1024-2047",
		  "" },
		/* clients of the pool, and sockets */
		{ "ip saddr 10.1.2.0/24 oifname \"wan\" ip protocol tcp snat to "
		  "203.0.113.8:1024-2047",
		  "nat.clients" },
		{ "oifname \"wan\" ip protocol tcp snat to 203.0.113.8:1024-2047",
		  "nat.clients nat.sockets" },
		{ "oifname \"w*\" ip protocol tcp snat to 203.0.113.8:1024-2047",
		  "nat.clients nat.sockets" },
		{ "oifname { \"wan\", \"x\" } ip protocol tcp snat to 203.0.113.8:1024-2047",
		  "nat.clients nat.sockets" },
		{ "oifname \"lan\" ip protocol tcp snat to 203.0.113.8:1024-2047", "" },
		{ "ip saddr 203.0.113.0/24 oifname \"wan\" ip protocol tcp snat to "
		  "203.0.113.8:1024-2047",
		  "nat.sockets" },
		/* named sets */
		{ "ip saddr @s oifname \"wan\" ip protocol tcp snat to 203.0.113.8:1024-2047", "" },
		{ "ip saddr != @s oifname \"wan\" ip protocol tcp snat to 203.0.113.8:1024-2047",
		  "nat.clients nat.sockets" },
		/* masquerade */
		{ "ip saddr 10.2.0.0/16 oifname \"wan\" masquerade", "nat.ephemeral" },
		{ "ip saddr 10.2.0.0/16 oifname \"wan\" ip protocol tcp masquerade to :1024-32767",
		  "" },
		{ "ip saddr 10.2.0.0/16 oifname \"wan\" ip protocol tcp masquerade to :60999",
		  "nat.ephemeral" },
		{ "ip saddr { 10.1.0.0/24, 10.2.0.0/16 } oifname \"wan\" masquerade",
		  "nat.clients nat.ephemeral" },
		/* an address that the rule looks up is not known: the sockets' own may be it */
		{ "ip saddr 10.2.0.0/16 snat to ip saddr map @m", "nat.ephemeral" },
		/* several */
		{ "ip saddr 10.2.0.0/16 masquerade\nip saddr 10.3.0.0/16 oifname \"wan\" snat to "
		  "203.0.113.7",
		  "nat.ephemeral nat.slices" },
	};
	char ids[256];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		ids_of(cases[i].rules, ids, sizeof(ids));
		if (strcmp(ids, cases[i].ids))
			fail_msg("%s\ngives \"%s\", not \"%s\"", cases[i].rules, ids, cases[i].ids);
	}
}

static void load(const char *ruleset)
{
	struct nft_ctx *nft = nft_ctx_new(NFT_CTX_DEFAULT);

	assert_non_null(nft);
	assert_int_equal(nft_run_cmd_from_buffer(nft, ruleset), 0);
	nft_ctx_free(nft);
}

/* Chains that never translate a source, and those that are jumped to; both families. */
static void test_chains(void **state)
{
	struct natrules *r = malloc(sizeof(*r));
	struct errtext err;

	(void)state;
	assert_non_null(r);
	load("flush ruleset\n"
	     "table inet n {\n"
	     " chain post { type nat hook postrouting priority srcnat;\n  jump more\n"
	     "  meta nfproto ipv6 oifname \"wan\" masquerade\n  snat ip6 to 2001:db8::1\n }\n"
	     " chain more {\n  ip saddr 10.2.0.0/16 snat ip to 203.0.113.7\n }\n"
	     " chain pre { type nat hook prerouting priority dstnat;\n  tcp dport 80 dnat ip to "
	     "10.1.0.2:8080\n }\n"
	     "}\n");
	assert_int_equal(natrules_read(r, &err), 0);
	assert_int_equal(r->n, 3);
	for (size_t i = 0; i < r->n; i++) {
		const struct natrule *k = &r->v[i];

		if (k->kind == NATRULE_MASQUERADE) {
			assert_false(k->v4);
			assert_true(k->v6);
			assert_int_equal(k->n_oif, 1);
			assert_string_equal(k->oif[0], "wan");
		} else if (k->v4) {
			assert_false(k->v6);
			assert_non_null(strstr(k->where, "inet n more handle "));
			assert_true(k->known);
			assert_int_equal(k->n_src, 1);
		} else {
			assert_true(k->v6);
			assert_true(k->known);
			assert_false(k->ports);
		}
	}
	load("flush ruleset\n");
	assert_int_equal(natrules_read(r, &err), 0);
	assert_int_equal(r->n, 0);
	free(r);
}

static void test_garbage(void **state)
{
	static const char *const bad[] = { "", "{", "[]", "{\"nftables\": 1}", "nothing" };
	static const char *const odd[] = {
		"{\"nftables\": []}",
		"{\"nftables\": [1, null, {\"rule\": 2}, {\"rule\": {\"family\": \"ip\"}}]}",
		"{\"nftables\": "
		"[{\"chain\":{\"family\":\"ip\",\"table\":\"t\",\"name\":\"c\"}},{\"rule\":{"
		"\"family\":\"ip\","
		"\"table\":\"t\",\"chain\":\"c\",\"expr\":[{\"match\":7},{\"match\":{\"op\":\"==\","
		"\"left\":1,\"right\":{}}},"
		"{\"snat\":{\"addr\":{\"range\":[1,2]},\"port\":{\"range\":[70000,1]}}}]}}]}",
	};
	struct natrules *r = malloc(sizeof(*r));
	struct errtext err;

	(void)state;
	assert_non_null(r);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(natrules_parse(bad[i], strlen(bad[i]), r, &err), -EINVAL);
	for (size_t i = 0; i < sizeof(odd) / sizeof(*odd); i++)
		assert_int_equal(natrules_parse(odd[i], strlen(odd[i]), r, &err), 0);
	/* What is not understood narrows nothing. */
	assert_int_equal(r->n, 1);
	assert_false(r->v[0].known);
	assert_false(r->v[0].ports);
	assert_int_equal(r->v[0].n_src, 0);
	free(r);
}

/* What stands in the table. */
static struct ct_entry entry(const char *src, uint16_t sport, const char *outer, uint16_t port)
{
	struct ct_entry e = { .l4 = SLUICE_TCP,
			      .orig.sport = sport,
			      .orig.dport = 80,
			      .reply.sport = 80,
			      .reply.dport = port };

	assert_int_equal(addr_parse(src, &e.orig.src), 0);
	assert_int_equal(addr_parse("198.51.100.10", &e.orig.dst), 0);
	assert_int_equal(addr_parse(outer, &e.reply.dst), 0);
	e.reply.src = e.orig.dst;
	return e;
}

static void test_flows(void **state)
{
	const struct ct_entry entries[] = {
		entry("10.2.0.1", 5000, "203.0.113.7", 41000),     /* of a slice */
		entry("10.2.0.1", 5001, "203.0.113.7", 1024),      /* beside */
		entry("10.2.0.1", 5002, "203.0.113.8", 41000),     /* another address */
		entry("203.0.113.7", 41000, "203.0.113.7", 41000), /* as it was */
		entry("203.0.113.7", 41000, "203.0.113.7", 2609),
		entry("203.0.113.8", 41000, "203.0.113.8", 2609),
	};
	struct findings fs = { 0 };
	struct natflows n = { 0 };

	(void)state;
	natflows_judge(&n, &fs);
	assert_int_equal(fs.n, 0);
	for (size_t i = 0; i < sizeof(entries) / sizeof(*entries); i++)
		natflows_count(&n, config, &entries[i]);
	assert_int_equal(n.flows, 2);
	assert_int_equal(n.in_slices, 1);
	assert_int_equal(n.rewritten, 1);
	natflows_judge(&n, &fs);
	assert_int_equal(fs.n, 2);
	assert_string_equal(fs.v[0].id, "nat.rewritten");
	assert_int_equal(fs.v[0].severity, FINDING_ERROR);
	assert_non_null(
		strstr(fs.v[0].text,
		       "203.0.113.7:41000 to 198.51.100.10:80, which leaves from port 2609"));
	assert_string_equal(fs.v[1].id, "nat.flows");
	assert_int_equal(fs.v[1].severity, FINDING_WARN);
	findings_done(&fs);
}

static int setup(void **state)
{
	struct errtext err = { 0 };

	(void)state;
	if (unshare(CLONE_NEWNET) < 0 ||
	    config_parse("t.conf", CONF, strlen(CONF), &config, &err) < 0) {
		fprintf(stderr, "%s\n", err.s);
		return -1;
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	config_free(config);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_judged),
		cmocka_unit_test(test_chains),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_flows),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
