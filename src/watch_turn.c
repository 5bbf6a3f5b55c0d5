/* SPDX-License-Identifier: BSD-2-Clause */
/* The watcher's turns: reading the sources, a bounded time each, and dumps. */
#include "watch_private.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <syslog.h>

#include "clock.h"

#define TURN_NS \
	(5 * NS_PER_MS) /* one source's, when it has more to say; finding owners takes most of it */
#define REFRESH_NS NS_PER_S       /* listing the sockets on watched addresses */
#define LOCATE_NS  (5 * NS_PER_S) /* reading local addresses, and what names mean */
#define FDS_A_TURN 64
#define REST_NS    (2 * NS_PER_MS)
#define RETRY_NS   (20 * NS_PER_MS) /* between two dumps at least */

/* How many times as long as it took we wait with doing it again. */
#define REFRESH_PAUSE 49 /* 2 % of the time */
#define LOOK_PAUSE    99
#define AGAIN_PAUSE   1

#define SAY_NS (10 * NS_PER_S) /* between two lines about losses */

static void events_wake(const struct watcher *w, const struct watch_ns *ns, bool wakes)
{
	struct epoll_event ev = { .events = wakes ? EPOLLIN : 0,
				  .data.u64 = WATCH_FD(WATCH_EVENTS, (size_t)(ns - w->ns)) };

	if (epoll_ctl(w->epoll_fd, EPOLL_CTL_MOD, ctnl_fd(ns->ctnl), &ev) < 0)
		watch_say(w, LOG_ERR, "epoll_ctl: %m");
}

static bool time_is_up(const struct watcher *w)
{
	return clock_boot_ns() - w->now_ns > TURN_NS;
}

static void keep_event(void *arg, enum ct_verb verb, const struct ct_entry *e)
{
	struct watcher *w = arg;

	assert(w->n_events < WATCH_BATCH);
	w->events[w->n_events++] = (struct watch_event){ verb, *e };
}

/* ---- the program's ring ---- */

static void rewrite_arrives(void *arg, const struct sluice_rewrite *r)
{
	watch_rewrite(arg, r);
}

/* What it has no time for wakes us again. */
static void rewrites_read(struct watcher *w)
{
	struct sluice_watch_stats st;
	int r;

	do
		r = nfwatch_read(w->nf, WATCH_BATCH, rewrite_arrives, w);
	while (r == WATCH_BATCH && !time_is_up(w));
	if (r < 0)
		watch_say(w, LOG_ERR, "ring of rewrites: %s", strerror(-r));
	st = nfwatch_stats(w->nf);
	if (st.lost == w->nf_lost)
		return;
	w->stats.losses[1] += st.lost - w->nf_lost;
	w->nf_lost = st.lost;
	/* Conntrack knows what the ring had no room for. */
	for (size_t i = 0; i < w->n_ns; i++)
		w->ns[i].again = w->ns[i].lossy = true;
}

/*
 * What was kept becomes known. A rewrite's record is written before its entry is in the table: read in the other order, both are there, and the record, which knows more,
 * is first.
 */
static void events_judge(struct watcher *w, struct watch_ns *ns)
{
	if (w->nf && w->n_events)
		rewrites_read(w);
	for (size_t i = 0; i < w->n_events; i++)
		watch_entry(w, ns, w->events[i].verb, &w->events[i].entry);
	w->n_events = 0;
}

/* ---- conntrack's events ---- */

/*
 * Being woken costs more than reading: for each event alone it would take several times the CPU. So after a reading the socket stays alone for REST_NS, and what has come by then is read at once.
 * An event that comes after a pause is not delayed. until_ns 0: no rest.
 */
static void events_rest(struct watcher *w, struct watch_ns *ns, uint64_t until_ns)
{
	bool rests = ns->rests_ns;

	ns->rests_ns = until_ns;
	if (rests != (until_ns != 0))
		events_wake(w, ns, !until_ns);
}

static void events_lost(struct watcher *w, struct watch_ns *ns)
{
	w->stats.losses[0]++;
	ns->again = true;
	ns->lossy = true;
	if (ns->say_ns > w->now_ns)
		return;
	ns->say_ns = w->now_ns + SAY_NS;
	watch_say(w, LOG_WARNING,
		  "namespace \"%s\": conntrack's events came faster than they could be read, and "
		  "some were lost: looking at the whole table",
		  ns->name);
}

/* What is left when the time is up waits for the next turn, which comes at once: no descriptor tells of what has been received already. */
static void events_turn(struct watcher *w, struct watch_ns *ns)
{
	unsigned n = 0;
	int r;

	if (!ns->events)
		return;
	do {
		r = ctnl_read(ns->ctnl, WATCH_BATCH, keep_event, w);
		if (r == -ENOBUFS) {
			events_lost(w, ns);
			r = 0;
		}
		events_judge(w, ns);
		n += r > 0 ? (unsigned)r : 0;
	} while (r == WATCH_BATCH && !time_is_up(w));
	if (r < 0) {
		ns->events = false;
		ns->rests_ns = 0;
		epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, ctnl_fd(ns->ctnl), NULL);
		watch_say(w, LOG_ERR, "namespace \"%s\": conntrack's events have ended: %s",
			  ns->name, strerror(-r));
		return;
	}
	events_rest(w, ns, r == WATCH_BATCH ? w->now_ns : n ? w->now_ns + REST_NS : 0);
}

/* ---- dumps ---- */

/* When the next dump may begin. UINT64_MAX: none is wanted. */
static uint64_t dump_due_ns(const struct watch_ns *ns)
{
	uint64_t pause_ns;

	if (ns->dumping || !ns->ctnl || (!ns->again && !ns->look))
		return UINT64_MAX;
	if (!ns->dump_end_ns)
		return 0;
	pause_ns = (ns->again ? AGAIN_PAUSE : LOOK_PAUSE) * ns->dump_ns;
	return ns->dump_end_ns + (pause_ns > RETRY_NS ? pause_ns : RETRY_NS);
}

static void dump_end(struct watch_ns *ns)
{
	ns->dumping = false;
	ns->dump_end_ns = clock_boot_ns();
	ns->dump_ns = ns->dump_end_ns - ns->dump_ns;
	collide_ports_free(ns->next);
	ns->next = NULL;
}

/* It is made again, later. */
static void dump_fail(struct watcher *w, struct watch_ns *ns, int r)
{
	dump_end(ns);
	ns->again = true;
	if (r != -EINTR && !ns->dump_failed) {
		ns->dump_failed = true;
		watch_say(w, LOG_WARNING, "namespace \"%s\": reading conntrack's table: %s",
			  ns->name, strerror(-r));
	}
}

static void dump_begin(struct watcher *w, struct watch_ns *ns)
{
	struct collide_addrs a = watch_ports_of(w, ns);
	struct errtext err;
	int r;

	if (dump_due_ns(ns) > w->now_ns)
		return;
	w->stats.resyncs += ns->lossy;
	ns->dumping = true;
	ns->again = ns->look = false;
	ns->dump_ns = clock_boot_ns();
	r = collide_ports_new(&a, &ns->next);
	if (!r)
		r = ctnl_dump_begin(ns->ctnl, &err);
	if (r < 0)
		dump_fail(w, ns, r);
}

/* The kernel has the next part ready whenever it is asked, so nothing wakes us; what is left is for the next turn. */
static void dump_turn(struct watcher *w, struct watch_ns *ns)
{
	int r;

	do {
		r = ctnl_dump_read(ns->ctnl, WATCH_BATCH, keep_event, w);
		events_judge(w, ns);
	} while (r == 1 && !time_is_up(w));
	if (r == 1)
		return;
	if (r < 0) {
		dump_fail(w, ns, r);
		return;
	}
	/* Not when the addresses have changed meanwhile. */
	if (ns->next) {
		collide_ports_free(ns->ports);
		ns->ports = ns->next;
		ns->next = NULL;
		ns->whole = true;
	}
	ns->dump_failed = false;
	/* What was lost while it ran has asked for another one. */
	ns->lossy = ns->again;
	dump_end(ns);
}

/* ---- the turn ---- */

static void notices_read(struct watcher *w, struct watch_ns *ns)
{
	int r = ns->inventory ? inventory_read(ns->inventory) : 0;

	if (r < 0 && !ns->notices_failed) {
		ns->notices_failed = true;
		watch_say(w, LOG_WARNING, "namespace \"%s\": notices of sockets that end: %s",
			  ns->name, strerror(-r));
	}
}

void watch_ready(struct watcher *w, uint64_t now_ns)
{
	struct epoll_event ev[FDS_A_TURN];
	int n = epoll_wait(w->epoll_fd, ev, FDS_A_TURN, 0);

	/* Sockets that are gone first: what is looked up below must not be answered from old memory. */
	static const enum watch_source order[] = { WATCH_SOCKETS, WATCH_REWRITES, WATCH_EVENTS };

	for (size_t k = 0; k < sizeof(order) / sizeof(order[0]); k++)
		for (int i = 0; i < n; i++) {
			struct watch_ns *ns = &w->ns[(uint32_t)ev[i].data.u64];

			/* Sockets have been listed: watch_tick(), which comes next, sees to that. */
			if (ev[i].data.u64 >> 32 != order[k])
				continue;
			w->now_ns = k ? clock_boot_ns() : now_ns;
			switch (order[k]) {
			case WATCH_SOCKETS:
				notices_read(w, ns);
				break;
			case WATCH_REWRITES:
				rewrites_read(w);
				break;
			case WATCH_EVENTS:
				events_turn(w, ns);
				break;
			case WATCH_LISTED:
				break;
			}
		}
}

/* In the thread. */
static int list_sockets(void *arg)
{
	struct watcher *w = arg;

	for (size_t i = 0; i < w->n_ns; i++)
		if (w->ns[i].listing)
			w->ns[i].listed = inventory_refresh_run(w->ns[i].inventory);
	return 0;
}

static void refresh(struct watcher *w)
{
	bool any = false;

	w->refresh_begin_ns = clock_boot_ns();
	w->refresh_ns = w->refresh_begin_ns + REFRESH_NS;
	for (size_t i = 0; i < w->n_ns; i++) {
		struct watch_ns *ns = &w->ns[i];

		ns->listing = ns->inventory && watch_risk_refresh(w, ns);
		any |= ns->listing;
	}
	if (any)
		worker_begin(&w->lister, list_sockets, w);
}

/* Listing sockets takes its time where there are many. */
static void refreshed(struct watcher *w)
{
	uint64_t pause_ns;

	worker_end(&w->lister);
	w->now_ns = clock_boot_ns();
	pause_ns = (w->now_ns - w->refresh_begin_ns) * REFRESH_PAUSE;
	w->refresh_ns = w->now_ns + (pause_ns > REFRESH_NS ? pause_ns : REFRESH_NS);
	for (size_t i = 0; i < w->n_ns; i++) {
		struct watch_ns *ns = &w->ns[i];

		if (ns->listing) {
			ns->listing = false;
			watch_risk_refreshed(w, ns, ns->listed);
		}
	}
}

void watch_listing_drop(struct watcher *w)
{
	if (!worker_has_job(&w->lister))
		return;
	worker_end(&w->lister);
	for (size_t i = 0; i < w->n_ns; i++)
		w->ns[i].listing = false;
}

static void locate(struct watcher *w)
{
	w->locate_ns = w->now_ns + LOCATE_NS;
	for (size_t i = 0; i < w->n_ns; i++) {
		watch_ns_check(w, &w->ns[i]);
		if (w->opts.any_local && !w->ns[i].gone)
			watch_ns_locate(w, &w->ns[i]);
	}
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

void watch_tick(struct watcher *w, uint64_t now_ns, uint64_t *ret_next_ns)
{
	w->now_ns = now_ns;
	if (w->locate_ns <= now_ns)
		locate(w);
	for (size_t i = 0; i < w->n_ns; i++)
		if (w->ns[i].rests_ns && w->ns[i].rests_ns <= now_ns) {
			w->now_ns = clock_boot_ns();
			events_turn(w, &w->ns[i]);
		}
	if (worker_has_job(&w->lister) && worker_done(&w->lister))
		refreshed(w);
	if (!worker_has_job(&w->lister) && w->refresh_ns <= now_ns)
		refresh(w);
	*ret_next_ns = w->locate_ns;
	if (!worker_has_job(&w->lister))
		*ret_next_ns = earlier(w->refresh_ns, *ret_next_ns);
	for (size_t i = 0; i < w->n_ns; i++) {
		struct watch_ns *ns = &w->ns[i];

		w->now_ns = clock_boot_ns();
		dump_begin(w, ns);
		if (ns->dumping)
			dump_turn(w, ns);
		*ret_next_ns =
			earlier(*ret_next_ns, ns->dumping ? now_ns + NS_PER_MS : dump_due_ns(ns));
		if (ns->rests_ns)
			*ret_next_ns = earlier(*ret_next_ns, ns->rests_ns);
	}
}
