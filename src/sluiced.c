/* SPDX-License-Identifier: BSD-2-Clause */
/* sluiced: what it is started for. The daemon itself is daemon.c; without slices, watchonly.c. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "config.h"
#include "control.h"
#include "daemon.h"
#include "host.h"
#include "log.h"
#include "watchonly.h"

#define EXIT_USAGE  1
#define EXIT_FAILED 2

/* What --teardown has to say. */
static void on_note(void *arg, int priority, const char *event, const char *text)
{
	(void)arg;
	(void)event;
	log_msg(priority, "%s", text);
}

/* -n: read and judge the configuration, and whether its uplinks and its group are there; touch nothing. */
static int check_main(const char *path, bool watch_only)
{
	struct host_link links[CONFIG_UPLINKS_MAX];
	struct host_session *host = NULL;
	struct config *c = NULL;
	struct errtext err = { 0 };
	int ret;

	ret = config_load(path, &c, &err);
	if (!ret && !watch_only)
		ret = config_need_pools(c, &err);
	if (!ret)
		ret = control_check(NULL, c->access.group, &err);
	if (!ret && !watch_only)
		ret = host_open(&host, &err);
	if (!ret && !watch_only) {
		ret = host_links(host, c->uplinks, c->n_uplinks, links, &err);
		if (ret < 0)
			config_blame_uplink(c, &err);
	}
	for (size_t i = 0; c && i < c->n_warnings; i++)
		fprintf(stderr, "%s\n", c->warnings[i]);
	if (ret < 0)
		fprintf(stderr, "%s\n", err.s);
	else if (watch_only)
		printf("%s: ok: %zu namespaces to watch\n", path, c->watch.n_netns);
	else
		printf("%s: ok: %zu pools, %zu uplinks\n", path, c->n_pools, c->n_uplinks);
	host_close(host);
	config_free(c);
	return ret < 0 ? EXIT_FAILED : EXIT_SUCCESS;
}

static int teardown_main(const char *path)
{
	struct errtext err = { 0 };

	if (engine_teardown(path, on_note, NULL, &err) < 0) {
		log_err("%s", err.s);
		return EXIT_FAILED;
	}
	return EXIT_SUCCESS;
}

static const char usage[] =
	"Usage: sluiced [-f FILE] [-d] [-v] [--no-tcx]\n"
	"       sluiced --watch-only [-f FILE] [-d] [-v]\n"
	"       sluiced -n [--watch-only] [-f FILE]\n"
	"       sluiced --teardown [-f FILE]\n"
	"\n"
	"The daemon of Sluice: holds slices of shared addresses' ports and carries traffic through "
	"them.\n"
	"\n"
	"  -f, --config FILE  configuration (default " CONFIG_PATH_DEFAULT ")\n"
	"  -n, --check        read and judge the configuration, change nothing\n"
	"  -d, --debug        log to stderr\n"
	"  -v, --verbose      log more\n"
	"      --watch-only   hold and program nothing, only watch conntrack rewrite sockets' "
	"ports\n"
	"      --no-tcx       attach by clsact even where the kernel has TCX\n"
	"      --teardown     take programs, pins, routes and changed settings off this host; ends "
	"all flows\n"
	"      --help, --version\n"
	"\n"
	"SIGHUP reloads the configuration. SIGTERM stops the daemon; traffic goes on.\n";

int main(int argc, char **argv)
{
	enum { OPT_TEARDOWN = 256, OPT_HELP, OPT_VERSION, OPT_NO_TCX, OPT_WATCH_ONLY };
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'f' },
		{ "check", no_argument, NULL, 'n' },
		{ "debug", no_argument, NULL, 'd' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "watch-only", no_argument, NULL, OPT_WATCH_ONLY },
		{ "no-tcx", no_argument, NULL, OPT_NO_TCX },
		{ "teardown", no_argument, NULL, OPT_TEARDOWN },
		{ "help", no_argument, NULL, OPT_HELP },
		{ "version", no_argument, NULL, OPT_VERSION },
		{ 0 },
	};
	struct engine_opts opts = { .config_path = CONFIG_PATH_DEFAULT };
	bool check = false, debug = false, verbose = false, teardown = false, watch_only = false;
	int opt;

	while ((opt = getopt_long(argc, argv, "f:ndv", options, NULL)) != -1) {
		switch (opt) {
		case 'f':
			opts.config_path = optarg;
			break;
		case 'n':
			check = true;
			break;
		case 'd':
			debug = true;
			break;
		case 'v':
			verbose = true;
			break;
		case OPT_NO_TCX:
			opts.force_clsact = true;
			break;
		case OPT_WATCH_ONLY:
			watch_only = true;
			break;
		case OPT_TEARDOWN:
			teardown = true;
			break;
		case OPT_HELP:
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		case OPT_VERSION:
			puts("sluiced " SLUICE_VERSION);
			return EXIT_SUCCESS;
		default:
			fputs("Try sluiced --help.\n", stderr);
			return EXIT_USAGE;
		}
	}
	if (optind < argc || (teardown && (check || watch_only))) {
		fputs(optind < argc ? "sluiced takes no arguments. Try sluiced --help.\n"
				    : "--teardown excludes -n and --watch-only. Try "
				      "sluiced --help.\n",
		      stderr);
		return EXIT_USAGE;
	}
	if (check)
		return check_main(opts.config_path, watch_only);
	log_open("sluiced", debug || teardown, verbose);
	if (watch_only)
		return watchonly_main(opts.config_path);
	return teardown ? teardown_main(opts.config_path) : daemon_run(&opts);
}
