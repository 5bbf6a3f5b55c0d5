/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The daemon: one epoll loop in one thread; leases are committed by another one (store_thread.c). It starts the engine, opens the control socket last, and then lets each
 * source of events be dealt with by the module that owns it. When the engine says that its memory and the maps may differ
 * (-EIO), everything is closed and started again; pins and traffic do not notice.
 */
#include "daemon.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "cgroup.h"
#include "clock.h"
#include "collisions.h"
#include "config.h"
#include "control.h"
#include "engine.h"
#include "events.h"
#include "fault.h"
#include "log.h"
#include "loop.h"
#include "methods.h"
#include "methods_lease.h"
#include "metrics.h"
#include "metrics_gather.h"
#include "privs.h"
#include "watch.h"

#define EXIT_FAILED    2
#define SAY_AGAIN_NS   (10000 * NS_PER_MS)
#define GATHER_MS      1
#define GATHER_CHANGES 256

enum source {
	SOURCE_SIGNAL,
	SOURCE_CONTROL,
	SOURCE_LINKS,
	SOURCE_EVENTS,
	SOURCE_ENDED,
	SOURCE_STORED,
	SOURCE_WATCH,
	SOURCE_METRICS,
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
	struct watcher *
		watcher; /* outlives the engine: entering namespaces takes a right that is gone later. NULL: nothing is watched */
	struct collisions collisions;
	struct metrics *metrics; /* outlives the engine, and keeps its socket */
	int epoll_fd;
	int signal_fd;
	uint64_t full_said_ns; /* when a failed commit was last logged */
	uint64_t seal;         /* of the answers that wait for the commit under way */
	uint64_t stored;       /* seal of those that a reload has had stored; 0: there was none */
	enum outcome outcome;
};

/* What the engine has to say: into the log, and to whoever monitors. */
static void on_note(void *arg, int priority, const char *event, const char *text)
{
	const struct daemon *d = arg;

	loop_note(d->control, priority, event, text);
}

/* A lease changed. */
static void on_lease(void *arg, enum lease_verb verb, const struct lease *lease)
{
	const struct daemon *d = arg;

	if (d->control && control_monitored(d->control))
		control_publish(d->control, methods_lease_event(d->engine->lessor, verb, lease));
}

/* The watcher or the data plane found one. */
static void on_collision(void *arg, const struct collision *c)
{
	struct daemon *d = arg;

	collisions_add(&d->collisions, c);
}

/* Somebody asks for metrics. */
static void on_gather(void *arg, uint64_t now_ns, struct metrics_text *t)
{
	const struct daemon *d = arg;
	const struct metrics_sources s = { .engine = d->engine,
					   .store = d->engine->store,
					   .collisions = &d->collisions,
					   .watcher = d->watcher };

	metrics_gather(&s, now_ns, t);
}

/* The watcher looks at the addresses of the pools, and knows what is ours of their ports. */
static int tell_watcher(struct daemon *d, struct errtext *err)
{
	const struct config *c = d->engine->config;
	const struct hold_table *h = &d->engine->holds;
	struct range *slices;
	struct addr *addrs;
	size_t n = 0;
	int r;

	if (!d->watcher)
		return 0;
	for (size_t i = 0; i < c->n_pools; i++)
		n += c->pools[i].n_addresses;
	addrs = calloc(n, sizeof(*addrs));
	slices = calloc(h->n ? h->n : 1, sizeof(*slices));
	if (!addrs || !slices) {
		free(addrs);
		free(slices);
		return errtext_set(err, ENOMEM, "out of memory");
	}
	n = 0;
	for (size_t i = 0; i < c->n_pools; i++)
		for (size_t k = 0; k < c->pools[i].n_addresses; k++)
			addrs[n++] = c->pools[i].addresses[k];
	qsort(addrs, n, sizeof(*addrs), addr_order);
	for (size_t i = 0; i < h->n; i++)
		slices[i] = h->rows[i].ports;
	r = watch_addrs(d->watcher, addrs, n, slices, h->n);
	free(addrs);
	free(slices);
	watch_heal(d->watcher, c->watch.heal);
	return r < 0 ? errtext_set(err, -r, "watch: %s", strerror(-r)) : 0;
}

static int reload(void *arg, struct errtext *err)
{
	struct daemon *d = arg;
	const struct config *c;
	struct errtext group_err = { 0 };
	int ret = engine_reload(d->engine, err);

	if (!lessor_committing(d->engine->lessor) && !lessor_dirty(d->engine->lessor))
		d->stored = control_seal(d->control);
	if (ret == -EIO)
		d->outcome = RESTART;
	if (ret < 0) {
		metrics_cancel(d->metrics);
		return ret;
	}
	metrics_commit(d->metrics);
	c = d->engine->config;
	rate_set(&d->events.icmp_rate, c->icmp_rate, c->icmp_rate);
	if (control_set_group(d->control, c->access.group, &group_err) < 0)
		on_note(d, LOG_ERR, "config", group_err.s);
	if (tell_watcher(d, &group_err) < 0)
		on_note(d, LOG_ERR, "watch", group_err.s);
	return 0;
}

/* A configuration is good only if the control socket can be what it says, and at a reload the metrics' too. The control socket is ours already then. */
static int judge(void *arg, const struct config *c, struct errtext *err)
{
	struct daemon *d = arg;
	int ret = control_check(d->control ? NULL : c->control, c->access.group, err);

	return ret < 0 || !d->control ? ret : metrics_prepare(d->metrics, c, err);
}

/*
 * Make the control group of "exec", while we may: the root of cgroup2 is read-only for whoever lacks CAP_DAC_OVERRIDE, what is below our own group is not. What
 * goes wrong here is told by the engine, which meets it again.
 */
static void prepare_cgroup(const struct config *c)
{
	struct cgroups *cgroups = NULL;
	struct errtext err;

	cgroups_open(c->leases.cgroup, &cgroups, &err);
	cgroups_close(cgroups);
}

/*
 * Open the watcher while we may enter namespaces. Where the configuration names none itself, a machine without connection tracking is no reason not to start.
 */
static int prepare_watch(struct daemon *d, const struct config *c, struct errtext *err)
{
	struct watch_opts wo = watch_opts_of(c);
	int r;

	wo.tell = on_collision;
	wo.note = on_note;
	wo.arg = d;
	r = wo.n_netns ? watch_open(&wo, &d->watcher, err) : 0;
	if (r < 0 && !c->watch.on) {
		log_notice("conntrack is not watched: %s", err->s);
		r = 0;
	}
	return r;
}

/* What takes rights that are gone later. *ret: the configuration that it was done for (config_free()). */
static int prepare(struct daemon *d, const char *config_path, struct config **ret,
		   struct errtext *err)
{
	struct config *c = NULL;
	int r = config_load(config_path, &c, err);

	if (r < 0)
		return r;
	prepare_cgroup(c);
	privs_files();
	r = prepare_watch(d, c, err);
	if (r < 0) {
		config_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

static void stop(struct daemon *d)
{
	/* Listings hold cursors into the data plane: the socket goes first. */
	control_close(d->control);
	d->control = NULL;
	d->collisions.control = NULL;
	d->collisions.store = NULL;
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
	d->methods = (struct methods){ .engine = d->engine,
				       .reload = reload,
				       .reload_arg = d,
				       .collisions = &d->collisions,
				       .watcher = d->watcher };
	d->collisions.store = d->engine->store;
	if ((d->watcher && (ret = loop_recall(&d->collisions, d->watcher, err)) < 0) ||
	    (ret = tell_watcher(d, err)) < 0)
		return ret;
	ret = control_open(&co, &d->control, err);
	if (ret < 0)
		return ret;
	d->methods.control = d->control;
	d->events.control = d->control;
	d->events.collisions = &d->collisions;
	d->collisions.control = d->control;
	metrics_start(d->metrics, d->engine->config);
	d->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (d->epoll_fd < 0)
		return errtext_set(err, errno, "epoll_create1: %m");
	if ((ret = loop_add(d->epoll_fd, d->signal_fd, SOURCE_SIGNAL)) < 0 ||
	    (ret = loop_add(d->epoll_fd, control_fd(d->control), SOURCE_CONTROL)) < 0 ||
	    (ret = loop_add(d->epoll_fd, engine_links_fd(d->engine), SOURCE_LINKS)) < 0 ||
	    (ret = loop_add(d->epoll_fd, dp_events_fd(d->engine->dp), SOURCE_EVENTS)) < 0 ||
	    (ret = loop_add(d->epoll_fd, lessor_fd(d->engine->lessor), SOURCE_ENDED)) < 0 ||
	    (ret = loop_add(d->epoll_fd, store_commit_fd(d->engine->store), SOURCE_STORED)) < 0 ||
	    (ret = loop_add(d->epoll_fd, metrics_fd(d->metrics), SOURCE_METRICS)) < 0 ||
	    (d->watcher && (ret = loop_add(d->epoll_fd, watch_fd(d->watcher), SOURCE_WATCH)) < 0))
		return errtext_set(err, -ret, "epoll_ctl: %s", strerror(-ret));
	FAULT_POINT("sluiced.started");
	log_notice("sluiced %s on machine %s: %zu slices held, control socket %s", SLUICE_VERSION,
		   d->engine->config->machine, d->engine->holds.n, d->engine->config->control);
	return 0;
}

static void on_signal(struct daemon *d)
{
	int signo = loop_signal(d->signal_fd);
	struct errtext err = { 0 };

	if (signo && signo != SIGHUP)
		d->outcome = STOP;
	else if (signo && reload(d, &err) < 0)
		on_note(d, LOG_ERR, "reload", err.s);
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
	case SOURCE_STORED:
		break; /* settle() comes after every turn */
	case SOURCE_WATCH:
		watch_ready(d->watcher, clock_boot_ns());
		break;
	case SOURCE_METRICS:
		metrics_ready(d->metrics, clock_boot_ns());
		break;
	}
	return ret;
}

/* What could not be stored has not happened, and whoever waits for an answer is told so. */
static void settle_undone(struct daemon *d, const struct errtext *why)
{
	/* A full disk is the same news for every caller. */
	if (clock_boot_ns() - d->full_said_ns > SAY_AGAIN_NS) {
		on_note(d, LOG_ERR, "store", why->s);
		d->full_said_ns = clock_boot_ns();
	}
	control_settle(d->control, false, why->s);
}

/*
 * What the turn did to leases goes to the disk in one transaction, and then the answers leave. The next turn goes on meanwhile; its own transaction
 * begins when this one has ended. wait: bring everything to its end.
 */
static int settle(struct daemon *d, bool wait, struct errtext *err)
{
	struct lessor *l = d->engine->lessor;
	struct errtext why;
	uint64_t seal;
	bool ended;
	int ret = 0;

	/* In a reload, which has to have everything stored before. */
	if (lessor_undone(l, &why)) {
		settle_undone(d, &why);
		d->stored = 0;
		return 0;
	}
	if (d->stored)
		control_settle_sealed(d->control, d->stored);
	d->stored = 0;
	do {
		ended = lessor_committing(l);
		seal = d->seal;
		if (ended) {
			if (!wait && !lessor_commit_done(l))
				return 0;
			ret = lessor_commit_end(l, err);
			ended = !ret;
		}
		if (!ret && lessor_dirty(l)) {
			ret = lessor_commit_begin(l, err);
			d->seal = control_seal(d->control);
		}
		/* After the disk has something to do: it takes a while, since those who are answered run at once. */
		if (ended)
			control_settle_sealed(d->control, seal);
	} while (!ret && wait && lessor_committing(l));
	if (ret == -EIO)
		control_settle(d->control, false, err->s);
	else if (lessor_undone(l, &why))
		settle_undone(d, &why);
	else if (!lessor_committing(l) && control_holding(d->control))
		control_settle(d->control, true, NULL); /* nothing of theirs had to be stored */
	return ret == -EIO ? ret : 0;
}

/*
 * Calls are cheapest by the dozen: while a commit is under way, let them come together until it has ended, or for GATHER_MS. Few changes wait for the calls that came meanwhile, and go to
 * the disk with theirs: a call that had to wait for one commit shall not have to wait for another one that carries little. Many are on their way before those calls are looked at, for both take
 * long then, and go on at once.
 */
static int gather(struct daemon *d, struct errtext *err)
{
	struct pollfd p = { .fd = store_commit_fd(d->engine->store), .events = POLLIN };

	if (!lessor_committing(d->engine->lessor))
		return 0;
	poll(&p, 1, GATHER_MS);
	return lessor_waiting(d->engine->lessor) < GATHER_CHANGES ? 0 : settle(d, false, err);
}

/* Until told to stop, or until something is wrong that only a new start mends. */
static enum outcome run(struct daemon *d, struct errtext *err)
{
	struct epoll_event evs[8];
	uint64_t next_ns, other_ns, now_ns;
	int n;

	d->outcome = GO_ON;
	while (d->outcome == GO_ON) {
		now_ns = clock_boot_ns();
		if (engine_tick(d->engine, now_ns, &next_ns, err) < 0)
			return RESTART;
		if (d->watcher) {
			watch_tick(d->watcher, now_ns, &other_ns);
			if (other_ns < next_ns)
				next_ns = other_ns;
		}
		metrics_tick(d->metrics, now_ns, &other_ns);
		if (other_ns < next_ns)
			next_ns = other_ns;
		if (gather(d, err) < 0)
			return RESTART;
		now_ns = clock_boot_ns();
		/* Rounded up, or the last millisecond would be spent spinning. */
		n = epoll_wait(d->epoll_fd, evs, 8,
			       next_ns > now_ns ? (int)((next_ns - now_ns) / NS_PER_MS) + 1 : 0);
		for (int i = 0; i < n && d->outcome == GO_ON; i++)
			if (handle(d, evs[i].data.u32, err) < 0)
				return RESTART;
		if (settle(d, d->outcome == STOP || lessor_quiet_wanted(d->engine->lessor), err) <
		    0)
			return RESTART;
		collisions_settle(&d->collisions, clock_boot_ns());
	}
	return d->outcome;
}

int daemon_run(const struct engine_opts *base)
{
	struct daemon d = { .epoll_fd = -1,
			    .signal_fd = -1,
			    .events = { .icmp_fd = -1, .icmp6_fd = -1 } };
	struct engine_opts opts = *base;
	struct metrics_opts metrics_opts = { .gather = on_gather, .note = on_note, .arg = &d };
	struct errtext err = { 0 };
	enum outcome outcome;
	int ret;

	d.signal_fd = loop_signals();
	if (d.signal_fd < 0) {
		log_err("signalfd: %s", strerror(-d.signal_fd));
		return EXIT_FAILED;
	}
	opts.note = on_note;
	opts.note_arg = &d;
	opts.tell = on_lease;
	opts.judge = judge;
	opts.judge_arg = &d;
	collisions_init(&d.collisions, clock_boot_ns());
	if (prepare(&d, opts.config_path, &opts.config, &err) < 0 ||
	    metrics_open(&metrics_opts, &d.metrics, &err) < 0) {
		log_err("%s", err.s);
		config_free(opts.config);
		watch_close(d.watcher);
		close(d.signal_fd);
		return EXIT_FAILED;
	}
	if (privs_drop(false) < 0)
		log_warn("capabilities could not be dropped");
	do {
		ret = start(&d, &opts, &err);
		opts.config = NULL; /* it was the engine's; who starts anew reads it anew */
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
	watch_close(d.watcher);
	metrics_close(d.metrics);
	collisions_done(&d.collisions);
	close(d.signal_fd);
	if (!ret)
		log_notice("stopped; traffic goes on until the slices' deadlines");
	return ret < 0 ? EXIT_FAILED : EXIT_SUCCESS;
}
