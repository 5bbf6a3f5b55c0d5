/* SPDX-License-Identifier: BSD-2-Clause */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "addr.h"

#define TIMEOUT_S     10
#define TIMEOUT_S_MAX 3600
#define AT_ONCE_MAX   256
#define N(array)      (sizeof(array) / sizeof((array)[0]))

enum accepts {
	POOL = 1 << 0,
	PROTO = 1 << 1,
	CLIENT = 1 << 2,
	PORT = 1 << 3,
	CONFIG = 1 << 4,
	STATE = 1 << 5,
	UID = 1 << 6,
	AT = 1 << 7,
	TAG = 1 << 8,
	ADDRESS = 1 << 9,
	EXCLUSIVE = 1 << 10,
	COUNT = 1 << 11,
	LEASES = 1 << 12,
	ALIGN = 1 << 13,
	PARITY = 1 << 14,
	TTL = 1 << 15,
	UNTIL = 1 << 16,
	NAME = 1 << 17,
	LABEL = 1 << 18,
	ID = 1 << 19,
	KIND = 1 << 20,
	NETNS = 1 << 21,
	WHITHER = 1 << 22,
	SINCE = 1 << 23,
	LIMIT = 1 << 24,
	FOLLOW = 1 << 25,
};

#define WHERE (POOL | TAG | ADDRESS)

static const struct options_command commands[] = {
	{ "status", cmd_status, "what runs here, on which uplinks, with how many flows" },
	{ "pools", cmd_pools, "the pools, their addresses and counters" },
	{ "slices", cmd_slices, "the slices that this machine holds", POOL },
	{ "leases", cmd_leases, "the leases: which ports, whose, until when",
	  POOL | PROTO | PORT | UID | STATE, "tcp|udp" },
	{ "flows", cmd_flows, "the flows: inner end, destination, outer end, state",
	  POOL | PROTO | CLIENT | PORT, "tcp|udp|icmp" },
	{ "sockets", cmd_sockets, "local sockets on shared addresses", POOL | PROTO | PORT,
	  "tcp|udp" },
	{ "collisions", cmd_collisions, "sockets whose port another user of the address has",
	  KIND | PROTO | NETNS | WHITHER | SINCE | LIMIT | FOLLOW, "tcp|udp" },
	{ "drops", cmd_drops, "how many packets were dropped, and why" },
	{ "exhaustion", cmd_exhaustion,
	  "how full pools and slices are, when they will be, who found no port", POOL },
	{ "acquire", cmd_acquire, "take ports, and print the lease",
	  WHERE | PROTO | PORT | EXCLUSIVE | COUNT | LEASES | ALIGN | PARITY | TTL | UNTIL | NAME |
		  LABEL,
	  "tcp|udp|tcp+udp", .takes = true },
	{ "renew", cmd_renew, "begin a lease's time anew", TTL, .operands = "ID", .min = 1,
	  .max = 1, .takes = true },
	{ "release", cmd_release, "give leases back", .operands = "ID...", .min = 1, .max = -1 },
	{ "exec", cmd_exec, "run a program that goes out through a lease",
	  WHERE | EXCLUSIVE | COUNT | NAME | ID, .operands = "[--] PROGRAM [ARGUMENT...]", .min = 1,
	  .max = -1, .takes = true, .runs = true },
	{ "who", cmd_who, "who had a port", PROTO | AT, "tcp|udp", "ADDRESS:PORT", 1, 1 },
	{ "monitor", cmd_monitor, "events as they come" },
	{ "reload", cmd_reload, "have the configuration read anew" },
	{ "doctor", cmd_doctor, "check this machine and say what to do", CONFIG },
};

enum {
	OPT_SOCKET = 256,
	OPT_POOL,
	OPT_PROTO,
	OPT_CLIENT,
	OPT_PORT,
	OPT_STATE,
	OPT_UID,
	OPT_AT,
	OPT_TAG,
	OPT_ADDRESS,
	OPT_EXCLUSIVE,
	OPT_COUNT,
	OPT_LEASES,
	OPT_ALIGN,
	OPT_PARITY,
	OPT_TTL,
	OPT_UNTIL,
	OPT_NAME,
	OPT_LABEL,
	OPT_ID,
	OPT_KIND,
	OPT_NETNS,
	OPT_IN_SLICE,
	OPT_ESCAPED,
	OPT_SINCE,
	OPT_LIMIT,
	OPT_FOLLOW,
};

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
	{ "state", required_argument, NULL, OPT_STATE },
	{ "uid", required_argument, NULL, OPT_UID },
	{ "at", required_argument, NULL, OPT_AT },
	{ "tag", required_argument, NULL, OPT_TAG },
	{ "address", required_argument, NULL, OPT_ADDRESS },
	{ "exclusive", no_argument, NULL, OPT_EXCLUSIVE },
	{ "count", required_argument, NULL, OPT_COUNT },
	{ "leases", required_argument, NULL, OPT_LEASES },
	{ "align", required_argument, NULL, OPT_ALIGN },
	{ "parity", required_argument, NULL, OPT_PARITY },
	{ "ttl", required_argument, NULL, OPT_TTL },
	{ "until", required_argument, NULL, OPT_UNTIL },
	{ "name", required_argument, NULL, OPT_NAME },
	{ "label", required_argument, NULL, OPT_LABEL },
	{ "id", required_argument, NULL, OPT_ID },
	{ "kind", required_argument, NULL, OPT_KIND },
	{ "netns", required_argument, NULL, OPT_NETNS },
	{ "in-slice", no_argument, NULL, OPT_IN_SLICE },
	{ "escaped", no_argument, NULL, OPT_ESCAPED },
	{ "since", required_argument, NULL, OPT_SINCE },
	{ "limit", required_argument, NULL, OPT_LIMIT },
	{ "follow", no_argument, NULL, OPT_FOLLOW },
	{ 0 },
};

/* Those that belong to some commands only. In listings they filter; with leases they say what is wanted. */
static const struct {
	int opt;
	unsigned accepts;
	const char *usage;
	const char *filters;
	const char *takes; /* NULL: the same */
} owned[] = {
	{ OPT_POOL, POOL, "--pool POOL", "only this pool's", "of this pool (any)" },
	{ OPT_TAG, TAG, "--tag KEY=VALUE", NULL, "of pools that have this tag; again for more" },
	{ OPT_ADDRESS, ADDRESS, "--address ADDRESS", NULL, "on this shared address (any)" },
	{ OPT_PROTO, PROTO, "--proto PROTO", "" } /* its help depends on the command */,
	{ OPT_EXCLUSIVE, EXCLUSIVE, "--exclusive", NULL,
	  "for every destination: listeners, unconnected UDP" },
	{ OPT_CLIENT, CLIENT, "--client ADDRESS", "only this inner address or prefix" },
	{ OPT_PORT, PORT, "--port PORT", "only this port (of a flow: inner or outer)",
	  "this port, or none" },
	{ OPT_COUNT, COUNT, "--count N", NULL, "so many contiguous ports (1)" },
	{ OPT_LEASES, LEASES, "--leases N", NULL, "so many leases, all or none (1)" },
	{ OPT_ALIGN, ALIGN, "--align N", NULL,
	  "the first port is a multiple of N, a power of two" },
	{ OPT_PARITY, PARITY, "--parity even|odd", NULL, "of the first port" },
	{ OPT_TTL, TTL, "--ttl SECONDS", NULL, "until it ends, unless renewed" },
	{ OPT_UNTIL, UNTIL, "--until release|PID", NULL,
	  "what else ends it: nothing (default), or the end of process PID" },
	{ OPT_UID, UID, "--uid USER", "only this user's, by name or number" },
	{ OPT_STATE, STATE, "--state STATE", "only active or cooling ones" },
	{ OPT_AT, AT, "--at TIME", "only who had it then, such as 2026-11-24T10:00:00Z" },
	{ OPT_NAME, NAME, "--name TEXT", NULL, "for people: `sluice leases` shows it" },
	{ OPT_LABEL, LABEL, "--label KEY=VALUE", NULL, "likewise, for programs; again for more" },
	{ OPT_ID, ID, "--id ID", NULL, "through this lease, instead of a new one" },
	{ OPT_KIND, KIND, "--kind rewrite|risk", "only what happened, or what is about to" },
	{ OPT_NETNS, NETNS, "--netns NAME", "only in this namespace; \"\": the daemon's own" },
	{ OPT_IN_SLICE, WHITHER, "--in-slice", "only those whose wire port this machine holds" },
	{ OPT_ESCAPED, WHITHER, "--escaped", "only those whose wire port it does not hold" },
	{ OPT_SINCE, SINCE, "--since TIME", "not before, such as 2026-11-24T10:00:00Z" },
	{ OPT_LIMIT, LIMIT, "--limit N", "at most so many, the latest" },
	{ OPT_FOLLOW, FOLLOW, "--follow", "those that come from now on, until interrupted" },
	{ 'f', CONFIG, "-f, --file FILE", "the configuration" },
};

/* ---- help ---- */

static void print_common(FILE *f)
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

/* "tcp, udp or icmp" out of "tcp|udp|icmp". */
static const char *list_words(const char *words, char buf[64])
{
	const char *last = strrchr(words, '|');
	size_t n = 0;

	for (const char *p = words; *p && n < 56; p++) {
		if (*p != '|')
			buf[n++] = *p;
		else
			n = (size_t)(stpcpy(buf + n, p == last ? " or " : ", ") - buf);
	}
	buf[n] = '\0';
	return buf;
}

static void print_command(FILE *f, const struct options_command *c)
{
	char words[64];

	fprintf(f, "Usage: sluice %s [OPTION...]%s%s: %s\n\n", c->name, c->operands ? " " : "",
		c->operands ? c->operands : "", c->help);
	for (size_t i = 0; i < N(owned); i++) {
		const char *help = owned[i].filters;

		if (!(c->accepts & owned[i].accepts))
			continue;
		if (owned[i].takes && (c->takes || !help))
			help = owned[i].takes;
		fprintf(f, "  %-22s ", owned[i].usage);
		if (owned[i].opt == OPT_PROTO)
			fprintf(f, "%s%s%s\n", c->takes ? "" : "only ",
				list_words(c->protos, words), c->takes ? " (tcp)" : "");
		else
			fprintf(f, "%s\n", help);
	}
	if (c->accepts)
		fputc('\n', f);
	print_common(f);
}

void options_help(FILE *f, const struct options_command *c)
{
	if (c) {
		print_command(f, c);
		return;
	}
	fputs("Usage: sluice [OPTION...] COMMAND [OPTION...]\n\nCommands:\n", f);
	for (size_t i = 0; i < N(commands); i++)
		fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].help);
	fputc('\n', f);
	print_common(f);
	fputs("\n`sluice COMMAND --help` tells a command's own options. See sluice(8).\n", f);
}

/* ---- values. Each says what is wrong and returns false ---- */

/* A decimal number within min and max. */
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

static bool number_int(const char *what, const char *text, long min, long max, int *ret)
{
	long n;

	if (!number(what, text, min, max, &n))
		return false;
	*ret = (int)n;
	return true;
}

/* One of the words of "a|b|c". */
static bool word(const char *what, const char *text, const char *words)
{
	size_t len = strlen(text);
	char buf[64];

	for (const char *p = words; len > 0 && !strchr(text, '|') && p; p = strchr(p, '|')) {
		p += *p == '|';
		if (strncmp(p, text, len) == 0 && (p[len] == '|' || p[len] == '\0'))
			return true;
	}
	cmd_say("%s: \"%s\" is not %s", what, text, list_words(words, buf));
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

static bool is_address(const char *text)
{
	struct addr a;

	if (addr_parse(text, &a) == 0)
		return true;
	cmd_say("--address: \"%s\" is not an address", text);
	return false;
}

static bool is_text(const char *what, const char *text)
{
	json_t *s = json_string(text);

	json_decref(s);
	if (!s)
		cmd_say("%s: the value is not UTF-8", what);
	return s != NULL;
}

/* KEY=VALUE, one word. */
static bool is_pair(const char *what, const char *text)
{
	if (strchr(text, '=') && *text != '=' && !text[strcspn(text, " \t\n")])
		return is_text(what, text);
	cmd_say("%s: \"%s\" is not KEY=VALUE without blanks", what, text);
	return false;
}

static bool is_user(const char *text, struct cmd *cmd)
{
	struct passwd *pw = getpwnam(text);
	long n;

	if (pw) {
		cmd->uid = pw->pw_uid;
	} else if (*text >= '0' && *text <= '9') {
		if (!number("--uid", text, 0, UINT_MAX - 1L, &n))
			return false;
		cmd->uid = (unsigned)n;
	} else {
		cmd_say("--uid: there is no user \"%s\"", text);
		return false;
	}
	cmd->by_uid = true;
	return true;
}

static bool add_tag(const char *text, struct cmd_request *req)
{
	if (!is_pair("--tag", text))
		return false;
	if (req->n_tags == CMD_TAGS_MAX) {
		cmd_say("--tag: at most %d", CMD_TAGS_MAX);
		return false;
	}
	req->tags[req->n_tags++] = text;
	return true;
}

static bool add_label(const char *text, struct options *o)
{
	size_t n = strlen(o->labels), len = strlen(text);

	if (!is_pair("--label", text))
		return false;
	if (n + len + 2 > sizeof(o->labels)) {
		cmd_say("--label: all of them have at most %zu bytes", sizeof(o->labels) - 1);
		return false;
	}
	if (n > 0)
		o->labels[n++] = ' ';
	memcpy(o->labels + n, text, len + 1);
	o->cmd.request.labels = o->labels;
	return true;
}

static bool set_until(const char *text, struct cmd_request *req)
{
	if (strcmp(text, "release") == 0 || strcmp(text, "exit") == 0) {
		req->until = text;
		return true;
	}
	req->until = "pid";
	if (*text >= '0' && *text <= '9')
		return number_int("--until", text, 1, INT_MAX, &req->pid);
	cmd_say("--until: \"%s\" is not release, exit, or the number of a process", text);
	return false;
}

static bool set_whither(int in_slice, struct cmd *cmd)
{
	if (cmd->in_slice == -in_slice) {
		cmd_say("--in-slice and --escaped exclude each other");
		return false;
	}
	cmd->in_slice = in_slice;
	return true;
}

/* ---- parsing ---- */

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

/* An option of some commands. */
static bool take_owned(int opt, const char *arg, struct options *o)
{
	struct cmd_request *req = &o->cmd.request;

	switch (opt) {
	case 'f':
		o->cmd.file = arg;
		return true;
	case OPT_POOL:
		o->cmd.pool = arg;
		return is_text("--pool", arg);
	case OPT_PROTO:
		o->cmd.proto = arg; /* judged when the command is known */
		return true;
	case OPT_CLIENT:
		o->cmd.client = arg;
		return is_prefix(arg);
	case OPT_PORT:
		return number_int("--port", arg, 1, 65535, &o->cmd.port);
	case OPT_STATE:
		o->cmd.state = arg;
		return word("--state", arg, "active|cooling");
	case OPT_UID:
		return is_user(arg, &o->cmd);
	case OPT_AT:
		o->cmd.at = arg;
		return true;
	case OPT_KIND:
		o->cmd.kind = arg;
		return word("--kind", arg, "rewrite|risk");
	case OPT_NETNS:
		o->cmd.netns = arg;
		return is_text("--netns", arg);
	case OPT_IN_SLICE:
		return set_whither(1, &o->cmd);
	case OPT_ESCAPED:
		return set_whither(-1, &o->cmd);
	case OPT_SINCE:
		o->cmd.since = arg;
		return true;
	case OPT_LIMIT:
		return number("--limit", arg, 1, INT_MAX, &o->cmd.limit);
	case OPT_FOLLOW:
		return o->cmd.follow = true;
	case OPT_TAG:
		return add_tag(arg, req);
	case OPT_ADDRESS:
		req->address = arg;
		return is_address(arg);
	case OPT_EXCLUSIVE:
		req->exclusive = true;
		return true;
	case OPT_COUNT:
		return number_int("--count", arg, 1, 65536, &req->count);
	case OPT_LEASES:
		return number_int("--leases", arg, 1, AT_ONCE_MAX, &req->leases);
	case OPT_ALIGN:
		return number_int("--align", arg, 1, 65536, &req->align);
	case OPT_PARITY:
		req->parity = arg;
		return word("--parity", arg, "even|odd");
	case OPT_TTL:
		return number("--ttl", arg, 1, INT_MAX, &req->ttl_s);
	case OPT_UNTIL:
		return set_until(arg, req);
	case OPT_NAME:
		req->name = arg;
		return is_text("--name", arg);
	case OPT_LABEL:
		return add_label(arg, o);
	default:
		return cmd_lease_id(arg, &req->id);
	}
}

/* Parse options up to the first word that is none, or (permute) all. False: said what is wrong. */
static bool parse(int argc, char **argv, bool permute, struct options *o)
{
	const char *letters = permute ? ":jHt:hf:" : "+:jHt:hf:";
	long n;
	int opt;

	opterr = 0;
	optind = 0; /* begin anew */
	while ((opt = getopt_long(argc, argv, letters, options, NULL)) != -1) {
		for (size_t i = 0; i < N(owned); i++) {
			if (owned[i].opt == opt) {
				o->given |= owned[i].accepts;
				o->last = owned[i].usage;
			}
		}
		switch (opt) {
		case OPT_SOCKET:
			o->cmd.socket = optarg;
			break;
		case 'j':
			o->cmd.json = true;
			break;
		case 'H':
			o->cmd.header = false;
			break;
		case 't':
			if (!number("--timeout", optarg, 0, TIMEOUT_S_MAX, &n))
				return false;
			o->cmd.timeout_ms = (unsigned)n * 1000;
			break;
		case 'h':
			o->help = true;
			break;
		case 'V':
			o->version = true;
			break;
		case ':':
		case '?':
			return complain(opt, argv);
		default:
			if (!take_owned(opt, optarg, o))
				return false;
		}
	}
	return true;
}

static const struct options_command *find(const char *name)
{
	for (size_t i = 0; i < N(commands); i++) {
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	}
	return NULL;
}

/* Do command, options and operands fit together? */
static bool check(const struct options *o)
{
	const struct options_command *c = o->command;

	if (o->given & ~c->accepts) {
		cmd_say("%s does not take %s", c->name, o->last);
		return false;
	}
	if (o->cmd.proto && !word("--proto", o->cmd.proto, c->protos))
		return false;
	if (c->max >= 0 && o->cmd.n_operands > c->max) {
		cmd_say("%s does not take \"%s\"", c->name, o->cmd.operands[c->max]);
		return false;
	}
	if (o->cmd.n_operands < c->min) {
		cmd_say("%s needs %s", c->name, c->operands);
		return false;
	}
	if (o->cmd.request.id && (o->given & ~ID)) {
		cmd_say("--id names a lease that exists: it goes with no other choice");
		return false;
	}
	return true;
}

enum options_what options_parse(int argc, char **argv, struct options *ret)
{
	struct options *o = ret;

	*o = (struct options){ .cmd = { .header = true, .timeout_ms = TIMEOUT_S * 1000 } };
	if (!parse(argc, argv, false, o))
		return OPTIONS_WRONG;
	if (optind < argc) {
		o->command = find(argv[optind]);
		if (!o->command) {
			cmd_say("unknown command \"%s\"", argv[optind]);
			return OPTIONS_WRONG;
		}
		argc -= optind;
		argv += optind;
		if (!parse(argc, argv, !o->command->runs, o))
			return OPTIONS_WRONG;
	}
	if (o->version)
		return OPTIONS_VERSION;
	if (o->help)
		return OPTIONS_HELP;
	if (!o->command)
		return OPTIONS_NOTHING;
	o->cmd.operands = argv + optind;
	o->cmd.n_operands = argc - optind;
	return check(o) ? OPTIONS_RUN : OPTIONS_WRONG;
}
