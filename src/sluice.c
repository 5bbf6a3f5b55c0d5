/* SPDX-License-Identifier: BSD-2-Clause */
/* The command `sluice`: options, and which command it is. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "addr.h"
#include "cmd.h"

#define TIMEOUT_S     10
#define TIMEOUT_S_MAX 3600

enum accepts {
	ACCEPTS_POOL = 0x01,
	ACCEPTS_PROTO = 0x02,
	ACCEPTS_CLIENT = 0x04,
	ACCEPTS_PORT = 0x08,
	ACCEPTS_FILE = 0x10,
};

struct command {
	const char *name;
	int (*fn)(const struct cmd *cmd);
	const char *help;
	unsigned accepts;
};

static const struct command commands[] = {
	{ "status", cmd_status, "what runs here, on which uplinks, with how many flows" },
	{ "pools", cmd_pools, "the pools, their addresses and counters" },
	{ "slices", cmd_slices, "the slices that this machine holds", ACCEPTS_POOL },
	{ "flows", cmd_flows, "the flows: inner end, destination, outer end, state",
	  ACCEPTS_POOL | ACCEPTS_PROTO | ACCEPTS_CLIENT | ACCEPTS_PORT },
	{ "drops", cmd_drops, "how many packets were dropped, and why" },
	{ "monitor", cmd_monitor, "events as they come" },
	{ "reload", cmd_reload, "have the configuration read anew" },
	{ "doctor", cmd_doctor, "check this machine and say what to do", ACCEPTS_FILE },
};

enum { OPT_POOL = 256, OPT_PROTO, OPT_CLIENT, OPT_PORT, OPT_SOCKET };

static const struct option options[] = {
	{ "socket", required_argument, NULL, OPT_SOCKET },
	{ "json", no_argument, NULL, 'j' },
	{ "no-header", no_argument, NULL, 'H' },
	{ "timeout", required_argument, NULL, 't' },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ "file", required_argument, NULL, 'f' },
	{ "pool", required_argument, NULL, OPT_POOL },
	{ "proto", required_argument, NULL, OPT_PROTO },
	{ "client", required_argument, NULL, OPT_CLIENT },
	{ "port", required_argument, NULL, OPT_PORT },
	{ 0 },
};

static const struct {
	int opt;
	unsigned accepts;
	const char *usage;
	const char *help;
} filters[] = {
	{ OPT_POOL, ACCEPTS_POOL, "--pool POOL", "only this pool's" },
	{ OPT_PROTO, ACCEPTS_PROTO, "--proto PROTO", "only tcp, udp or icmp" },
	{ OPT_CLIENT, ACCEPTS_CLIENT, "--client ADDRESS", "only this inner address or prefix" },
	{ OPT_PORT, ACCEPTS_PORT, "--port PORT", "only this inner or outer port" },
	{ 'f', ACCEPTS_FILE, "-f, --file FILE", "the configuration" },
};

#define N(array) (sizeof(array) / sizeof((array)[0]))

static void print_options(FILE *f)
{
	fputs("Options:\n"
	      "      --socket PATH      the daemon's socket (" CLIENT_SOCKET_DEFAULT ")\n"
	      "  -j, --json             JSON\n"
	      "  -H, --no-header        no header\n"
	      "  -t, --timeout SECONDS  how long to wait for the daemon; 0: for ever (10)\n"
	      "  -h, --help             this text\n"
	      "      --version          the version\n",
	      f);
}

static void print_help(FILE *f)
{
	fputs("Usage: sluice [OPTION...] COMMAND [OPTION...]\n\nCommands:\n", f);
	for (size_t i = 0; i < N(commands); i++)
		fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].help);
	fputc('\n', f);
	print_options(f);
	fputs("\n`sluice COMMAND --help` tells a command's own options. See sluice(8).\n", f);
}

static void print_command_help(const struct command *c)
{
	printf("Usage: sluice %s [OPTION...]: %s\n\n", c->name, c->help);
	for (size_t i = 0; i < N(filters); i++) {
		if (c->accepts & filters[i].accepts)
			printf("  %-22s %s\n", filters[i].usage, filters[i].help);
	}
	if (c->accepts)
		putchar('\n');
	print_options(stdout);
}

static int usage(void)
{
	fputs("`sluice --help` tells the commands and options.\n", stderr);
	return CMD_USAGE;
}

/* A decimal number within min and max; else says so and returns false. */
static bool number(const char *what, const char *text, long min, long max, long *ret)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(text, &end, 10);
	if (errno || end == text || *end || n < min || n > max) {
		cmd_say("%s: \"%s\" is not a number from %ld to %ld", what, text, min, max);
		return false;
	}
	*ret = n;
	return true;
}

static bool is_proto(const char *text)
{
	if (strcmp(text, "tcp") == 0 || strcmp(text, "udp") == 0 || strcmp(text, "icmp") == 0)
		return true;
	cmd_say("--proto: \"%s\" is not tcp, udp or icmp", text);
	return false;
}

static bool is_prefix(const char *text)
{
	char buf[PREFIX_STRLEN];
	struct prefix p;
	int r = prefix_parse(text, &p);

	if (r == -ERANGE)
		cmd_say("--client: \"%s\" has bits set behind its length; is %s meant?", text,
			prefix_format(&p, buf));
	else if (r < 0)
		cmd_say("--client: \"%s\" is not an address or prefix, such as 10.1.0.2 or "
			"10.1.0.0/16",
			text);
	return r == 0;
}

/* What getopt_long() did not like. argv is what it looked at. */
static bool complain(int opt, char **argv)
{
	const char *arg = argv[optind - 1];

	if (opt == ':')
		cmd_say("option %s needs a value", arg);
	else if (optopt && optopt < 256 && !(arg[0] == '-' && arg[1] == '-'))
		cmd_say("unknown option -%c", optopt);
	else
		cmd_say("unknown option %s, or a value that it does not take", arg);
	return false;
}

struct asked {
	struct cmd cmd;
	unsigned accepts; /* filters that were given */
	const char *name; /* of the last one */
	bool help;
	bool version;
};

/* Parse options up to the first word that is none, or (permute) all. False: said what is wrong. */
static bool parse(int argc, char **argv, bool permute, struct asked *a)
{
	const char *letters = permute ? ":jHt:hf:" : "+:jHt:hf:";
	long n;
	int opt;

	opterr = 0;
	optind = 0; /* begin anew */
	while ((opt = getopt_long(argc, argv, letters, options, NULL)) != -1) {
		for (size_t i = 0; i < N(filters); i++) {
			if (filters[i].opt == opt) {
				a->accepts |= filters[i].accepts;
				a->name = filters[i].usage;
			}
		}
		switch (opt) {
		case OPT_SOCKET:
			a->cmd.socket = optarg;
			break;
		case 'j':
			a->cmd.json = true;
			break;
		case 'H':
			a->cmd.header = false;
			break;
		case 't':
			if (!number("--timeout", optarg, 0, TIMEOUT_S_MAX, &n))
				return false;
			a->cmd.timeout_ms = (unsigned)n * 1000;
			break;
		case 'h':
			a->help = true;
			break;
		case 'V':
			a->version = true;
			break;
		case 'f':
			a->cmd.file = optarg;
			break;
		case OPT_POOL:
			a->cmd.pool = optarg;
			break;
		case OPT_PROTO:
			if (!is_proto(optarg))
				return false;
			a->cmd.proto = optarg;
			break;
		case OPT_CLIENT:
			if (!is_prefix(optarg))
				return false;
			a->cmd.client = optarg;
			break;
		case OPT_PORT:
			if (!number("--port", optarg, 1, 65535, &n))
				return false;
			a->cmd.port = (int)n;
			break;
		default:
			return complain(opt, argv);
		}
	}
	return true;
}

static const struct command *find(const char *name)
{
	for (size_t i = 0; i < N(commands); i++) {
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct asked a = { .cmd = { .header = true, .timeout_ms = TIMEOUT_S * 1000 } };
	const struct command *c = NULL;

	if (!parse(argc, argv, false, &a))
		return usage();
	if (optind < argc) {
		c = find(argv[optind]);
		if (!c) {
			cmd_say("unknown command \"%s\"", argv[optind]);
			return usage();
		}
		argc -= optind;
		argv += optind;
		if (!parse(argc, argv, true, &a))
			return usage();
	}
	if (a.version) {
		printf("sluice %s\n", SLUICE_VERSION);
		return cmd_flush() < 0 ? CMD_FAILED : CMD_OK;
	}
	if (a.help) {
		if (c)
			print_command_help(c);
		else
			print_help(stdout);
		return cmd_flush() < 0 ? CMD_FAILED : CMD_OK;
	}
	if (!c) {
		print_help(stderr);
		return CMD_USAGE;
	}
	if (optind < argc) {
		cmd_say("%s does not take \"%s\"", c->name, argv[optind]);
		return usage();
	}
	if (a.accepts & ~c->accepts) {
		cmd_say("%s does not take %s", c->name, a.name);
		return usage();
	}
	return c->fn(&a.cmd);
}
