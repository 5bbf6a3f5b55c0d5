/* SPDX-License-Identifier: BSD-2-Clause */
#include "watchonly.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "clock.h"
#include "collisions.h"
#include "config.h"
#include "control.h"
#include "fault.h"
#include "log.h"
#include "loop.h"
#include "methods.h"
#include "methods_collide.h"
#include "metrics.h"
#include "metrics_gather.h"
#include "privs.h"
#include "store.h"
#include "store_collision.h"
#include "watch.h"

#define EXIT_FAILED 2

enum source {
	SOURCE_SIGNAL,
	SOURCE_CONTROL,
	SOURCE_WATCH,
	SOURCE_METRICS,
};

struct watchonly {
	const char *config_path;
	struct config *config;
	struct store *store;
	struct control *control;
	struct watcher *watcher;
	struct collisions collisions;
	struct metrics *metrics;
	struct methods methods;
	int64_t started_ms;
	uint64_t started_ns;
	int signal_fd;
	int epoll_fd;
	bool stop;
};

static void on_note(void *arg, int priority, const char *event, const char *text)
{
	const struct watchonly *d = arg;

	loop_note(d->control, priority, event, text);
}

static void on_collision(void *arg, const struct collision *c)
{
	struct watchonly *d = arg;

	collisions_add(&d->collisions, c);
}

/* Somebody asks for metrics. */
static void on_gather(void *arg, uint64_t now_ns, struct metrics_text *t)
{
	const struct watchonly *d = arg;
	const struct metrics_sources s = { .store = d->store,
					   .collisions = &d->collisions,
					   .watcher = d->watcher };

	metrics_gather(&s, now_ns, t);
}

/* As the daemon's, with nothing held. */
static int get_status(struct control_call *call, void *data)
{
	const struct methods *m = data;
	const struct watchonly *d = m->reload_arg;

	return control_reply(
		call,
		json_pack("{s:s, s:s, s:s, s:o, s:I, s:[], s:i, s:i, s:{s:i, s:i, s:i}, s:n, s:n, "
			  "s:[], s:o, s:o, "
			  "s:{s:s, s:i}}",
			  "machine", d->config->machine, "version", SLUICE_VERSION, "backend",
			  "watch-only", "started", control_time(d->started_ms), "uptime_s",
			  (json_int_t)((clock_boot_ns() - d->started_ns) / NS_PER_S), "uplinks",
			  "pools", 0, "slices_held", 0, "flows", "tcp", 0, "udp", 0, "icmp", 0,
			  "deadline_s", "last_sweep_s", "warnings", "watch",
			  methods_watch_json(d->watcher, &d->collisions), "control",
			  control_stats(d->control), "store", "path", d->config->state_dir,
			  "schema", (int)store_defaults().n_migrations));
}

static const struct control_method table[] = {
	{ .name = "GetStatus", .fn = get_status, .flags = CONTROL_ANY },
	METHODS_LIST_COLLISIONS,
	{ .name = "Monitor", .fn = control_monitor },
};

/* What may change while it runs; the rest needs a restart. */
static void reload(struct watchonly *d)
{
	struct config *c = NULL;
	struct errtext err;

	if (config_load(d->config_path, &c, &err) < 0 ||
	    config_reloadable(d->config, c, &err) < 0 || metrics_prepare(d->metrics, c, &err) < 0 ||
	    control_set_group(d->control, c->access.group, &err) < 0) {
		on_note(d, LOG_ERR, "reload", err.s);
		metrics_cancel(d->metrics);
		config_free(c);
		return;
	}
	config_free(d->config);
	d->config = c;
	metrics_commit(d->metrics);
	watch_heal(d->watcher, c->watch.heal);
	store_collisions_keep(d->store, c->watch.history);
	log_notice("reloaded %s", d->config_path);
}

static void on_signal(struct watchonly *d)
{
	int signo = loop_signal(d->signal_fd);

	if (signo == SIGHUP)
		reload(d);
	else if (signo)
		d->stop = true;
}

static int start(struct watchonly *d, struct errtext *err)
{
	struct control_options co = {
		.interface = "io.sluice",
		.open = true,
		.description = control_io_sluice,
		.methods = table,
		.n_methods = sizeof(table) / sizeof(*table),
		.data = &d->methods,
	};
	struct metrics_opts mo = { .gather = on_gather, .note = on_note, .arg = d };
	struct watch_opts wo;
	int r;

	d->signal_fd = loop_signals();
	if (d->signal_fd < 0)
		return errtext_set(err, -d->signal_fd, "signalfd: %s", strerror(-d->signal_fd));
	d->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (d->epoll_fd < 0)
		return errtext_set(err, errno, "epoll_create1: %m");
	r = config_load(d->config_path, &d->config, err);
	if (r < 0)
		return r;
	if (!d->config->watch.n_netns)
		return errtext_set(err, EINVAL,
				   "%s: watch { netns = { } } names no namespace to watch; \"\" is "
				   "the daemon's own",
				   d->config_path);
	wo = watch_opts_of(d->config);
	wo.any_local = true;
	wo.tell = on_collision;
	wo.note = on_note;
	wo.arg = d;
	r = watch_open(&wo, &d->watcher, err);
	if (r < 0)
		return r;
	privs_files();
	if (privs_drop(true) < 0)
		log_warn("capabilities could not be dropped");
	r = store_open(d->config->state_dir, d->config->machine, &d->store, err);
	if (r < 0)
		return r;
	d->collisions.store = d->store;
	r = loop_recall(&d->collisions, d->watcher, err);
	if (r < 0)
		return r;
	store_collisions_keep(d->store, d->config->watch.history);
	co.path = d->config->control;
	co.group = d->config->access.group;
	d->methods = (struct methods){ .collisions = &d->collisions,
				       .watcher = d->watcher,
				       .reload_arg = d };
	r = control_open(&co, &d->control, err);
	if (r < 0)
		return r;
	d->methods.control = d->control;
	d->collisions.control = d->control;
	r = metrics_open(&mo, &d->metrics, err);
	if (r < 0)
		return r;
	metrics_start(d->metrics, d->config);
	if ((r = loop_add(d->epoll_fd, d->signal_fd, SOURCE_SIGNAL)) < 0 ||
	    (r = loop_add(d->epoll_fd, control_fd(d->control), SOURCE_CONTROL)) < 0 ||
	    (r = loop_add(d->epoll_fd, watch_fd(d->watcher), SOURCE_WATCH)) < 0 ||
	    (r = loop_add(d->epoll_fd, metrics_fd(d->metrics), SOURCE_METRICS)) < 0)
		return errtext_set(err, -r, "epoll_ctl: %s", strerror(-r));
	for (size_t i = 0; i < d->config->n_warnings; i++)
		log_warn("%s", d->config->warnings[i]);
	FAULT_POINT("sluiced.started");
	log_notice("sluiced %s on machine %s only watches: %zu namespaces, control socket %s",
		   SLUICE_VERSION, d->config->machine, d->config->watch.n_netns,
		   d->config->control);
	return 0;
}

static int run(struct watchonly *d, struct errtext *err)
{
	struct epoll_event ev[4];
	uint64_t now_ns, next_ns, metrics_ns;
	int n, r = 0;

	while (!d->stop && !r) {
		now_ns = clock_boot_ns();
		watch_tick(d->watcher, now_ns, &next_ns);
		metrics_tick(d->metrics, now_ns, &metrics_ns);
		if (metrics_ns < next_ns)
			next_ns = metrics_ns;
		n = epoll_wait(d->epoll_fd, ev, 4,
			       next_ns > now_ns ? (int)((next_ns - now_ns) / NS_PER_MS) + 1 : 0);
		for (int i = 0; i < n && !r; i++) {
			switch ((enum source)ev[i].data.u32) {
			case SOURCE_SIGNAL:
				on_signal(d);
				break;
			case SOURCE_CONTROL:
				r = control_dispatch(d->control);
				break;
			case SOURCE_WATCH:
				watch_ready(d->watcher, clock_boot_ns());
				break;
			case SOURCE_METRICS:
				metrics_ready(d->metrics, clock_boot_ns());
				break;
			}
		}
		collisions_settle(&d->collisions, clock_boot_ns());
		/* A store that broke is opened again, now and then: what it has on the disk is whole. */
		if (store_must_reopen(d->store)) {
			struct errtext why;

			store_close(d->store);
			d->store = NULL;
			d->collisions.store = NULL;
			r = store_open(d->config->state_dir, d->config->machine, &d->store, &why);
			if (r < 0)
				*err = why;
			else
				store_collisions_keep(d->store, d->config->watch.history);
			d->collisions.store = d->store;
		}
	}
	if (r < 0 && !err->s[0])
		errtext_set(err, -r, "control socket: %s", strerror(-r));
	return r;
}

int watchonly_main(const char *config_path)
{
	struct watchonly d = { .config_path = config_path,
			       .signal_fd = -1,
			       .epoll_fd = -1,
			       .started_ms = clock_utc_ms(),
			       .started_ns = clock_boot_ns() };
	struct errtext err = { 0 };
	int r;

	collisions_init(&d.collisions, d.started_ns);
	r = start(&d, &err);
	if (!r)
		r = run(&d, &err);
	if (r < 0)
		log_err("%s", err.s);
	control_close(d.control);
	metrics_close(d.metrics);
	watch_close(d.watcher);
	store_close(d.store);
	collisions_done(&d.collisions);
	config_free(d.config);
	if (d.signal_fd >= 0)
		close(d.signal_fd);
	if (d.epoll_fd >= 0)
		close(d.epoll_fd);
	if (!r)
		log_notice("stopped");
	return r < 0 ? EXIT_FAILED : EXIT_SUCCESS;
}
