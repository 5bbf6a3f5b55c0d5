/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line of `sluice`: what is understood, and what is refused with which words. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "options.h"

#define WORDS_MAX 24

static struct options o;
static char *words[WORDS_MAX + 1];
static char line[512], said[1024];

/* Parse a command line whose words are separated by single blanks; what is said on stderr goes to `said`. */
static enum options_what parse(const char *text)
{
	char path[] = "/tmp/sluice-test-XXXXXX";
	enum options_what what;
	int n = 0, fd, old;
	ssize_t len;

	snprintf(line, sizeof(line), "sluice %s", text);
	for (char *w = strtok(line, " "); w; w = strtok(NULL, " ")) {
		assert_true(n < WORDS_MAX);
		words[n++] = w;
	}
	words[n] = NULL;
	fd = mkstemp(path);
	assert_true(fd >= 0);
	unlink(path);
	old = dup(2);
	dup2(fd, 2);
	what = options_parse(n, words, &o);
	dup2(old, 2);
	close(old);
	len = pread(fd, said, sizeof(said) - 1, 0);
	assert_true(len >= 0);
	said[len] = '\0';
	close(fd);
	return what;
}

static void expect_run(const char *text, const char *command)
{
	if (parse(text) != OPTIONS_RUN)
		fail_msg("%s: %s", text, said);
	assert_string_equal(o.command->name, command);
	assert_string_equal(said, "");
}

static void test_listings(void **state)
{
	(void)state;
	expect_run("flows --pool p --proto icmp --client 10.1.0.0/16 --port 65535", "flows");
	assert_string_equal(o.cmd.pool, "p");
	assert_string_equal(o.cmd.proto, "icmp");
	assert_string_equal(o.cmd.client, "10.1.0.0/16");
	assert_int_equal(o.cmd.port, 65535);
	assert_false(o.cmd.by_uid);
	assert_true(o.cmd.header);
	assert_int_equal(o.cmd.timeout_ms, 10000);

	/* Options stand on either side. */
	expect_run("-jH --socket /s -t 0 --proto udp leases --state cooling --uid root", "leases");
	assert_true(o.cmd.json);
	assert_false(o.cmd.header);
	assert_string_equal(o.cmd.socket, "/s");
	assert_int_equal(o.cmd.timeout_ms, 0);
	assert_string_equal(o.cmd.state, "cooling");
	assert_true(o.cmd.by_uid);
	assert_int_equal(o.cmd.uid, 0);
	expect_run("leases --uid 4294967294", "leases");
	assert_int_equal(o.cmd.uid, 4294967294U);
	expect_run("who 203.0.113.7:41000 --proto tcp --at now", "who");
	assert_string_equal(o.cmd.operands[0], "203.0.113.7:41000");
	assert_int_equal(o.cmd.n_operands, 1);
	expect_run("doctor -f /etc/x", "doctor");
	assert_string_equal(o.cmd.file, "/etc/x");
}

static void test_collisions(void **state)
{
	(void)state;
	expect_run("collisions", "collisions");
	assert_null(o.cmd.kind);
	assert_null(o.cmd.netns);
	assert_null(o.cmd.since);
	assert_int_equal(o.cmd.in_slice, 0);
	assert_int_equal(o.cmd.limit, 0);
	assert_false(o.cmd.follow);
	expect_run("collisions --kind risk --proto udp --netns= --escaped --since T --limit 7 "
		   "--follow -j",
		   "collisions");
	assert_string_equal(o.cmd.kind, "risk");
	assert_string_equal(o.cmd.proto, "udp");
	assert_string_equal(o.cmd.netns, "");
	assert_int_equal(o.cmd.in_slice, -1);
	assert_string_equal(o.cmd.since, "T");
	assert_int_equal(o.cmd.limit, 7);
	assert_true(o.cmd.follow);
	expect_run("collisions --in-slice --in-slice --netns blue", "collisions");
	assert_int_equal(o.cmd.in_slice, 1);
	assert_string_equal(o.cmd.netns, "blue");
}

static void test_acquire(void **state)
{
	const struct cmd_request *r = &o.cmd.request;

	(void)state;
	expect_run("acquire", "acquire");
	assert_null(r->until);
	assert_null(r->labels);
	assert_int_equal(r->count + r->leases + r->align + r->pid + r->ttl_s, 0);
	expect_run("acquire --tag geo=DE --tag class=warp --address 2001:db8::7 --proto tcp+udp "
		   "--exclusive",
		   "acquire");
	assert_int_equal(r->n_tags, 2);
	assert_string_equal(r->tags[1], "class=warp");
	assert_string_equal(r->address, "2001:db8::7");
	assert_string_equal(o.cmd.proto, "tcp+udp");
	assert_true(r->exclusive);
	expect_run("acquire --count 64 --leases 256 --port 41000 --align 64 --parity even --ttl 30",
		   "acquire");
	assert_int_equal(r->count, 64);
	assert_int_equal(r->leases, 256);
	assert_int_equal(r->align, 64);
	assert_string_equal(r->parity, "even");
	assert_int_equal(r->ttl_s, 30);
	expect_run("acquire --until 4711 --name n --label a=b --label c=", "acquire");
	assert_string_equal(r->until, "pid");
	assert_int_equal(r->pid, 4711);
	assert_string_equal(r->name, "n");
	assert_string_equal(r->labels, "a=b c=");
	expect_run("acquire --until release", "acquire");
	assert_string_equal(r->until, "release");
	expect_run("renew --ttl 5 17", "renew");
	assert_string_equal(o.cmd.operands[0], "17");
	expect_run("release 1 2 3", "release");
	assert_int_equal(o.cmd.n_operands, 3);
}

static void test_exec(void **state)
{
	(void)state;
	expect_run("exec --pool p curl -j --help -- x", "exec");
	assert_int_equal(o.cmd.n_operands, 5);
	assert_string_equal(o.cmd.operands[0], "curl");
	assert_string_equal(o.cmd.operands[1], "-j");
	assert_string_equal(o.cmd.operands[3], "--");
	assert_null(o.cmd.operands[5]);
	assert_false(o.cmd.json);
	expect_run("exec --count 3 --exclusive -- -prog --pool q", "exec");
	assert_string_equal(o.cmd.operands[0], "-prog");
	assert_int_equal(o.cmd.n_operands, 3);
	assert_null(o.cmd.pool);
	expect_run("exec --id 17 -- true", "exec");
	assert_int_equal(o.cmd.request.id, 17);
}

static void test_other_ends(void **state)
{
	(void)state;
	assert_int_equal(parse(""), OPTIONS_NOTHING);
	assert_int_equal(parse("--version"), OPTIONS_VERSION);
	assert_int_equal(parse("-h"), OPTIONS_HELP);
	assert_null(o.command);
	/* Help does not ask whether all the rest is there. */
	assert_int_equal(parse("release --help"), OPTIONS_HELP);
	assert_string_equal(o.command->name, "release");
	assert_int_equal(parse("exec -h"), OPTIONS_HELP);
}

static void test_refused(void **state)
{
	static const struct {
		const char *line, *says;
	} bad[] = {
		{ "nope", "unknown command \"nope\"" },
		{ "--nope", "unknown option --nope" },
		{ "-x", "unknown option -x" },
		{ "flows --port", "option --port needs a value" },
		{ "flows --port 0", "--port: \"0\" is not a number from 1 to 65535" },
		{ "flows --port 1x", "--port: \"1x\"" },
		{ "flows --client 10.1.0.1/16", "is 10.1.0.0/16 meant?" },
		{ "flows --client ten", "is not an address or prefix" },
		{ "flows --proto sctp", "--proto: \"sctp\" is not tcp, udp or icmp" },
		{ "leases --proto icmp", "--proto: \"icmp\" is not tcp or udp" },
		{ "leases --proto tc", "--proto: \"tc\"" },
		{ "acquire --proto tcp|udp", "is not tcp, udp or tcp+udp" },
		{ "collisions --kind fate", "--kind: \"fate\" is not rewrite or risk" },
		{ "collisions --proto icmp", "--proto: \"icmp\" is not tcp or udp" },
		{ "collisions --in-slice --escaped", "--in-slice and --escaped exclude" },
		{ "collisions --escaped --in-slice", "--in-slice and --escaped exclude" },
		{ "collisions --limit 0", "--limit: \"0\" is not a number from 1 to" },
		{ "collisions --netns \xff", "--netns: the value is not UTF-8" },
		{ "collisions --pool p", "collisions does not take --pool" },
		{ "drops --follow", "drops does not take --follow" },
		{ "leases --state old", "--state: \"old\" is not active or cooling" },
		{ "leases --uid nobody-at-all", "no user \"nobody-at-all\"" },
		{ "leases --uid 4294967295", "--uid: \"4294967295\"" },
		{ "leases --tag a=b", "leases does not take --tag KEY=VALUE" },
		{ "slices --exclusive", "slices does not take --exclusive" },
		{ "status more", "status does not take \"more\"" },
		{ "renew 1 2", "renew does not take \"2\"" },
		{ "renew", "renew needs ID" },
		{ "release", "release needs ID..." },
		{ "exec --pool p", "exec needs [--] PROGRAM" },
		{ "exec --id 0 true", "\"0\" is not the number of a lease" },
		{ "exec --id 3 --pool p true", "--id names a lease that exists" },
		{ "exec --ttl 3 true", "exec does not take --ttl" },
		{ "acquire --count 0", "--count: \"0\"" },
		{ "acquire --leases 257", "--leases: \"257\" is not a number from 1 to 256" },
		{ "acquire --parity 1", "--parity: \"1\" is not even or odd" },
		{ "acquire --ttl -1", "--ttl: \"-1\"" },
		{ "acquire --until tomorrow", "--until: \"tomorrow\"" },
		{ "acquire --until 0", "--until: \"0\"" },
		{ "acquire --tag geo", "--tag: \"geo\" is not KEY=VALUE" },
		{ "acquire --label =x", "--label: \"=x\" is not KEY=VALUE" },
		{ "acquire --name \xff", "--name: the value is not UTF-8" },
		{ "acquire --address host", "--address: \"host\" is not an address" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (parse(bad[i].line) != OPTIONS_WRONG)
			fail_msg("%s: taken", bad[i].line);
		if (strncmp(said, "sluice: ", 8) != 0 || !strstr(said, bad[i].says))
			fail_msg("%s: %s", bad[i].line, said);
	}
	/* Who is to say how exec failed? */
	parse("exec --ttl 3 true");
	assert_true(o.command->runs);
}

static void test_too_many(void **state)
{
	char text[512] = "acquire";

	(void)state;
	for (int i = 0; i < 8; i++)
		strcat(text, " --label 123456789012345=1234567890123456789");
	assert_int_equal(parse(text), OPTIONS_WRONG);
	assert_non_null(strstr(said, "at most 255 bytes"));
	assert_int_equal(strlen(o.labels), 7 * 36 - 1);
}

static void test_help(void **state)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	(void)state;
	options_help(f, NULL);
	assert_int_equal(parse("acquire -h"), OPTIONS_HELP);
	options_help(f, o.command);
	assert_int_equal(parse("leases -h"), OPTIONS_HELP);
	options_help(f, o.command);
	fclose(f);
	assert_non_null(strstr(text, "  exec       run a program"));
	assert_non_null(strstr(text, "  --proto PROTO          tcp, udp or tcp+udp (tcp)\n"));
	assert_non_null(strstr(text, "  --proto PROTO          only tcp or udp\n"));
	assert_non_null(strstr(text, "  --pool POOL            only this pool's\n"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_listings),   cmocka_unit_test(test_collisions),
		cmocka_unit_test(test_acquire),    cmocka_unit_test(test_exec),
		cmocka_unit_test(test_other_ends), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_too_many),   cmocka_unit_test(test_help),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
