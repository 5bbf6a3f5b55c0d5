/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The daemon: one thread, one epoll loop. It starts the engine, opens the control socket last, and then lets each
 * source of events be dealt with by the module that owns it. When the engine says that its memory and the maps may differ
 * (-EIO), everything is closed and started again; pins and traffic do not notice.
 */
#include <cap-ng.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "cgroup.h"
#include "clock.h"
#include "control.h"
#include "engine.h"
#include "events.h"
#include "fault.h"
#include "host.h"
#include "log.h"
#include "methods.h"
#include "methods_lease.h"

#define EXIT_USAGE   1
#define EXIT_FAILED  2
#define FILES_MAX    65536
#define SAY_AGAIN_NS (10000 * NS_PER_MS)

enum source {
	SOURCE_SIGNAL,
	SOURCE_CONTROL,
	SOURCE_LINKS,
	SOURCE_EVENTS,
	SOURCE_ENDED,
};

enum outcome {
	GO_ON,
	STOP,
	RESTART,
};

struct daemon {
	struct engine *engine;
	struct control *control;
	struct events events;
	struct methods methods;
	int epoll_fd;
	int signal_fd;
	uint64_t full_said_ns; /* when a failed commit was last logged */
	enum outcome outcome;
};

/* What the engine has to say: into the log, and to whoever monitors. */
static void on_note(void *arg, int priority, const char *event, const char *text)
{
	struct daemon *d = arg;

	log_msg(priority, "%s", text);
	if (d && d->control && control_monitored(d->control))
		control_publish(d->control, json_pack("{s:s, s:s}", "event", event, "text", text));
}

/* A lease changed. */
static void on_lease(void *arg, enum lease_verb verb, const struct lease *lease)
{
	const struct daemon *d = arg;

	if (d->control && control_monitored(d->control))
		control_publish(d->control, methods_lease_event(d->engine->lessor, verb, lease));
}

static int reload(void *arg, struct errtext *err)
{
	struct daemon *d = arg;
	const struct config *c;
	struct errtext group_err = { 0 };
	int ret = engine_reload(d->engine, err);

	if (ret == -EIO)
		d->outcome = RESTART;
	if (ret < 0)
		return ret;
	c = d->engine->config;
	rate_set(&d->events.icmp_rate, c->icmp_rate, c->icmp_rate);
	if (control_set_group(d->control, c->access.group, &group_err) < 0)
		on_note(d, LOG_ERR, "config", group_err.s);
	return 0;
}

/* A configuration is good only if the control socket can be what it says. At a reload the socket is ours already. */
static int judge(void *arg, const struct config *c, struct errtext *err)
{
	const struct daemon *d = arg;

	return control_check(d->control ? NULL : c->control, c->access.group, err);
}

static int watch(const struct daemon *d, int fd, enum source source)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u32 = source };

	return epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

/*
 * Keep what the daemon needs from here on: CAP_BPF and CAP_PERFMON to load programs and run the sweep, CAP_NET_ADMIN to
 * attach them and for routes and settings, CAP_NET_RAW to answer clients, CAP_CHOWN for the control socket's group.
 */
static int drop_capabilities(void)
{
	capng_clear(CAPNG_SELECT_BOTH);
	if (capng_updatev(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_BOUNDING_SET,
			  CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_NET_RAW, CAP_CHOWN, -1) < 0)
		return -EPERM;
	return capng_apply(CAPNG_SELECT_BOTH) < 0 ? -EPERM : 0;
}

/*
 * Make the control group of "exec", while we may: the root of cgroup2 is read-only for whoever lacks CAP_DAC_OVERRIDE, what is below our own group is not. What
 * goes wrong here is told by the engine, which meets it again.
 */
static void prepare_cgroup(const char *config_path)
{
	struct cgroups *cgroups = NULL;
	struct config *c = NULL;
	struct errtext err;

	if (!config_load(config_path, &c, &err))
		cgroups_open(c->leases.cgroup, &cgroups, &err);
	cgroups_close(cgroups);
	config_free(c);
}

/*
 * A descriptor for each client, for each process that holds a lease, and for what clients send along: the usual 1024 are few. At the limit the kernel would drop descriptors that
 * clients send inside our recvmsg(), and closing them there can block.
 */
static void prepare_files(void)
{
	struct rlimit lim = { FILES_MAX, FILES_MAX };

	if (setrlimit(RLIMIT_NOFILE, &lim) == 0 || getrlimit(RLIMIT_NOFILE, &lim) < 0)
		return;
	lim.rlim_cur = lim.rlim_max;
	setrlimit(RLIMIT_NOFILE, &lim);
}

static void stop(struct daemon *d)
{
	/* Listings hold cursors into the data plane: the socket goes first. */
	control_close(d->control);
	d->control = NULL;
	events_done(&d->events);
	engine_close(d->engine);
	d->engine = NULL;
	if (d->epoll_fd >= 0)
		close(d->epoll_fd);
	d->epoll_fd = -1;
}

static int start(struct daemon *d, const struct engine_opts *opts, struct errtext *err)
{
	struct control_options co = {
		.interface = "io.sluice",
		.open = true,
		.description = control_io_sluice,
		.methods = methods_table,
		.n_methods = methods_table_len,
		.data = &d->methods,
	};
	int ret = engine_open(opts, &d->engine, err);

	if (ret < 0)
		return ret;
	if (events_init(&d->events, d->engine->config->icmp_rate, clock_boot_ns()) < 0)
		log_warn("no raw socket (CAP_NET_RAW): clients whose flow is refused get no ICMP "
			 "answer");
	co.path = d->engine->config->control;
	co.group = d->engine->config->access.group;
	d->methods = (struct methods){ .engine = d->engine, .reload = reload, .reload_arg = d };
	ret = control_open(&co, &d->control, err);
	if (ret < 0)
		return ret;
	d->methods.control = d->control;
	d->events.control = d->control;
	d->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (d->epoll_fd < 0)
		return errtext_set(err, errno, "epoll_create1: %m");
	if ((ret = watch(d, d->signal_fd, SOURCE_SIGNAL)) < 0 ||
	    (ret = watch(d, control_fd(d->control), SOURCE_CONTROL)) < 0 ||
	    (ret = watch(d, engine_links_fd(d->engine), SOURCE_LINKS)) < 0 ||
	    (ret = watch(d, dp_events_fd(d->engine->dp), SOURCE_EVENTS)) < 0 ||
	    (ret = watch(d, lessor_fd(d->engine->lessor), SOURCE_ENDED)) < 0)
		return errtext_set(err, -ret, "epoll_ctl: %s", strerror(-ret));
	FAULT_POINT("sluiced.started");
	log_notice("sluiced %s on machine %s: %zu slices held, control socket %s", SLUICE_VERSION,
		   d->engine->config->machine, d->engine->holds.n, d->engine->config->control);
	return 0;
}

static void on_signal(struct daemon *d)
{
	struct signalfd_siginfo info;
	struct errtext err = { 0 };

	if (read(d->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo != SIGHUP) {
		d->outcome = STOP;
	} else if (reload(d, &err) < 0) {
		on_note(d, LOG_ERR, "reload", err.s);
	}
}

static int handle(struct daemon *d, enum source source, struct errtext *err)
{
	int ret = 0;

	switch (source) {
	case SOURCE_SIGNAL:
		on_signal(d);
		break;
	case SOURCE_CONTROL:
		ret = control_dispatch(d->control);
		if (ret < 0)
			errtext_set(err, -ret, "control socket: %s", strerror(-ret));
		break;
	case SOURCE_LINKS:
		engine_links(d->engine);
		break;
	case SOURCE_EVENTS:
		ret = events_poll(&d->events, d->engine);
		if (ret < 0)
			errtext_set(err, -ret, "event ring: %s", strerror(-ret));
		break;
	case SOURCE_ENDED:
		lessor_ended(d->engine->lessor);
		break;
	}
	return ret;
}

/*
 * What the turn did to leases goes to the disk in one transaction, and then the answers leave. If it can't be stored, nothing has happened, and the callers are told so.
 */
static int settle(struct daemon *d, struct errtext *err)
{
	int ret = engine_commit(d->engine, err);

	/* A full disk is the same news for every caller. */
	if (ret < 0 && ret != -EIO && clock_boot_ns() - d->full_said_ns > SAY_AGAIN_NS) {
		on_note(d, LOG_ERR, "store", err->s);
		d->full_said_ns = clock_boot_ns();
	}
	if (control_holding(d->control))
		control_settle(d->control, ret == 0, err->s);
	return ret == -EIO ? ret : 0;
}

/* Until told to stop, or until something is wrong that only a new start mends. */
static enum outcome run(struct daemon *d, struct errtext *err)
{
	struct epoll_event evs[8];
	uint64_t next_ns, now_ns;
	int n;

	d->outcome = GO_ON;
	while (d->outcome == GO_ON) {
		now_ns = clock_boot_ns();
		if (engine_tick(d->engine, now_ns, &next_ns, err) < 0)
			return RESTART;
		now_ns = clock_boot_ns();
		/* Rounded up, or the last millisecond would be spent spinning. */
		n = epoll_wait(d->epoll_fd, evs, 8,
			       next_ns > now_ns ? (int)((next_ns - now_ns) / NS_PER_MS) + 1 : 0);
		for (int i = 0; i < n && d->outcome == GO_ON; i++)
			if (handle(d, evs[i].data.u32, err) < 0)
				return RESTART;
		if (settle(d, err) < 0)
			return RESTART;
	}
	return d->outcome;
}

static int daemon_main(const struct engine_opts *base)
{
	struct daemon d = { .epoll_fd = -1, .signal_fd = -1, .events.icmp_fd = -1 };
	struct engine_opts opts = *base;
	struct errtext err = { 0 };
	enum outcome outcome;
	sigset_t mask;
	int ret;

	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGHUP);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	signal(SIGPIPE, SIG_IGN);
	d.signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (d.signal_fd < 0) {
		log_err("signalfd: %m");
		return EXIT_FAILED;
	}
	opts.note = on_note;
	opts.note_arg = &d;
	opts.tell = on_lease;
	opts.judge = judge;
	opts.judge_arg = &d;
	prepare_cgroup(opts.config_path);
	prepare_files();
	if (drop_capabilities() < 0)
		log_warn("capabilities could not be dropped");
	do {
		ret = start(&d, &opts, &err);
		if (ret < 0) {
			log_err("%s", err.s);
			outcome = STOP;
		} else {
			outcome = run(&d, &err);
		}
		if (outcome == RESTART)
			log_err("%s; starting anew from the store and the maps",
				err.s[0] ? err.s : "lost track");
		stop(&d);
	} while (outcome == RESTART);
	close(d.signal_fd);
	if (!ret)
		log_notice("stopped; traffic goes on until the slices' deadlines");
	return ret < 0 ? EXIT_FAILED : EXIT_SUCCESS;
}

/* -n: read and judge the configuration, and whether its uplinks and its group are there; touch nothing. */
static int check_main(const char *path)
{
	struct host_link links[CONFIG_UPLINKS_MAX];
	struct host_session *host = NULL;
	struct config *c = NULL;
	struct errtext err = { 0 };
	int ret;

	ret = config_load(path, &c, &err);
	if (!ret)
		ret = control_check(NULL, c->access.group, &err);
	if (!ret)
		ret = host_open(&host, &err);
	if (!ret) {
		ret = host_links(host, c->uplinks, c->n_uplinks, links, &err);
		if (ret < 0)
			config_blame_uplink(c, &err);
	}
	for (size_t i = 0; c && i < c->n_warnings; i++)
		fprintf(stderr, "%s\n", c->warnings[i]);
	if (ret < 0)
		fprintf(stderr, "%s\n", err.s);
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
	"       sluiced -n [-f FILE]\n"
	"       sluiced --teardown [-f FILE]\n"
	"\n"
	"The daemon of Sluice: holds slices of shared addresses' ports and carries traffic through "
	"them.\n"
	"\n"
	"  -f, --config FILE  configuration (default " CONFIG_PATH_DEFAULT ")\n"
	"  -n, --check        read and judge the configuration, change nothing\n"
	"  -d, --debug        log to stderr\n"
	"  -v, --verbose      log more\n"
	"      --no-tcx       attach by clsact even where the kernel has TCX\n"
	"      --teardown     take programs, pins, routes and changed settings off this host; ends "
	"all flows\n"
	"      --help, --version\n"
	"\n"
	"SIGHUP reloads the configuration. SIGTERM stops the daemon; traffic goes on.\n";

int main(int argc, char **argv)
{
	enum { OPT_TEARDOWN = 256, OPT_HELP, OPT_VERSION, OPT_NO_TCX };
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'f' },
		{ "check", no_argument, NULL, 'n' },
		{ "debug", no_argument, NULL, 'd' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "no-tcx", no_argument, NULL, OPT_NO_TCX },
		{ "teardown", no_argument, NULL, OPT_TEARDOWN },
		{ "help", no_argument, NULL, OPT_HELP },
		{ "version", no_argument, NULL, OPT_VERSION },
		{ 0 },
	};
	struct engine_opts opts = { .config_path = CONFIG_PATH_DEFAULT };
	bool check = false, debug = false, verbose = false, teardown = false;
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
	if (optind < argc || (check && teardown)) {
		fputs(optind < argc ? "sluiced takes no arguments. Try sluiced --help.\n"
				    : "-n and --teardown exclude each other. Try sluiced --help.\n",
		      stderr);
		return EXIT_USAGE;
	}
	if (check)
		return check_main(opts.config_path);
	log_open("sluiced", debug || teardown, verbose);
	return teardown ? teardown_main(opts.config_path) : daemon_main(&opts);
}
