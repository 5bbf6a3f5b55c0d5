/* SPDX-License-Identifier: BSD-2-Clause */
#include "engine.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "clock.h"
#include "exhaust.h"
#include "fault.h"
#include "finding.h"
#include "store_collision.h"

#define SWEEP_NS    NS_PER_S
#define SWEEP_SHARE 20 /* at most a twentieth of the time goes into sweeping */
#define RETRY_NS    NS_PER_S
#define HOOKS_NS    (5 * NS_PER_S) /* somebody may have taken the programs off */
#define ONLINK_NS   (5 * NS_PER_S) /* routes change */
#define EVENTS_MIN  100 /* events a second of one kind and CPU, whatever icmp-rate says */

__attribute__((format(printf, 4, 5))) static void note(const struct engine *e, int priority,
						       const char *event, const char *fmt, ...)
{
	char text[ERRTEXT_LEN];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	e->note(e->note_arg, priority, event, text);
}

/* ---- the host: routes and settings, recorded in the store before they are changed ---- */

static int host_record(void *arg, const struct host_change *changes, size_t n, struct errtext *err)
{
	struct engine *e = arg;
	struct store_host *list = calloc(n ?: 1, sizeof(*list));
	int ret;

	if (!list)
		return errtext_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++)
		list[i] = (struct store_host){ .kind = (char *)changes[i].kind,
					       .key = (char *)changes[i].key,
					       .was = (char *)changes[i].was,
					       .now = (char *)changes[i].now };
	ret = store_host_add(e->store, list, n, err);
	free(list);
	if (!ret)
		FAULT_POINT("engine.host.recorded");
	return ret;
}

/* Undo what the store says was changed and the configuration (NULL: none) does not call for. */
static int host_undo(struct engine *e, const struct config *c, struct errtext *err)
{
	struct store_host *list = NULL;
	struct host_change *changes = NULL;
	struct findings found = { 0 };
	bool *done = NULL;
	size_t n = 0, m = 0;
	int ret, ret2;

	ret = store_host_list(e->store, &list, &n, err);
	if (ret < 0 || !n)
		goto out;
	changes = calloc(n, sizeof(*changes));
	done = calloc(n, sizeof(*done));
	if (!changes || !done) {
		ret = errtext_set(err, ENOMEM, "out of memory");
		goto out;
	}
	for (size_t i = 0; i < n; i++) {
		ret = host_change_set(&changes[m], list[i].kind, list[i].key, list[i].was ?: "",
				      list[i].now ?: "");
		if (ret < 0) {
			errtext_set(err, EINVAL,
				    "the store's record of a host change \"%s\" \"%s\" is not of "
				    "this version",
				    list[i].kind, list[i].key);
			goto out;
		}
		if (!c || !hostplan_wanted(&changes[m], c))
			m++;
	}
	ret = host_restore(e->host, changes, m, done, &found);
	for (size_t i = 0; i < found.n; i++)
		if (found.v[i].severity >= FINDING_WARN)
			note(e, found.v[i].severity == FINDING_WARN ? LOG_WARNING : LOG_ERR, "host",
			     "%s", found.v[i].text);
	if (ret < 0)
		errtext_set(err, -ret, "some of the host's settings could not be put back");
	for (size_t i = 0; i < m; i++) {
		if (!done[i])
			continue;
		ret2 = store_host_rm(e->store, changes[i].kind, changes[i].key, err);
		if (ret2 < 0)
			ret = ret2;
	}
out:
	findings_done(&found);
	free(changes);
	free(done);
	store_host_free(list, n);
	return ret;
}

/* ---- uplinks ---- */

static struct engine_uplink *uplink_find(struct engine *e, const char *name)
{
	for (size_t i = 0; i < e->n_uplinks; i++)
		if (!strcmp(e->uplinks[i].name, name))
			return &e->uplinks[i];
	return NULL;
}

/* Put the programs on an uplink that is there. */
static int uplink_hook(struct engine *e, struct engine_uplink *u, unsigned ifindex, bool up,
		       struct errtext *err)
{
	const char *how;
	int ret = dp_attach(e->dp, ifindex, u->name, &how, err);

	if (ret < 0)
		return ret;
	if (u->ifindex != ifindex)
		note(e, LOG_NOTICE, "uplink", "uplink %s (ifindex %u): programs attached by %s",
		     u->name, ifindex, how);
	u->ifindex = ifindex;
	u->up = up;
	u->how = how;
	return 0;
}

static int hooks_of_sockets(struct engine *e, struct errtext *err)
{
	struct dp_socket_opts opts = { 0 };
	int ret;

	lessor_cgroups(e->lessor, &opts.cgroup, &opts.exec_cgroup, &opts.exec_level);
	ret = dp_socket_attach(e->dp, &opts, err);
	if (!ret || !opts.exec_cgroup)
		return ret;
	/* Everything else works without the hooks of "exec", which an older kernel may not take. */
	if (lessor_no_exec(e->lessor, err->s))
		note(e, LOG_WARNING, "hooks", "no exec: %s", err->s);
	opts.exec_cgroup = NULL;
	return dp_socket_attach(e->dp, &opts, err);
}

struct stale {
	struct engine *e;
	const struct config *c;
	char name[IFNAMSIZ];
};

static int stale_find(const char *ifname, void *arg)
{
	struct stale *s = arg;

	for (size_t i = 0; i < s->c->n_uplinks; i++)
		if (!strcmp(s->c->uplinks[i], ifname))
			return 0;
	snprintf(s->name, sizeof(s->name), "%s", ifname);
	return 1;
}

/* Interfaces of uplinks that are there. */
static size_t uplinks_there(const struct engine *e, unsigned ret[CONFIG_UPLINKS_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < e->n_uplinks; i++)
		if (e->uplinks[i].ifindex)
			ret[n++] = e->uplinks[i].ifindex;
	return n;
}

/* What arrives by an uplink has passed the guard: the hooks of sockets must know which ones are. */
static int uplinks_tell(struct engine *e, struct errtext *err)
{
	unsigned there[CONFIG_UPLINKS_MAX];
	size_t n = uplinks_there(e, there);

	e->onlink_ns = 0;
	return dp_socket_uplinks(e->dp, there, n, err);
}

/* Hook the uplinks of c, and unhook what is hooked besides. All of them must exist. */
static int uplinks_set(struct engine *e, const struct config *c, const struct host_link links[],
		       struct errtext *err)
{
	struct engine_uplink next[CONFIG_UPLINKS_MAX] = { 0 };
	struct stale s = { .e = e, .c = c };
	int ret;

	for (size_t i = 0; i < c->n_uplinks; i++) {
		const struct engine_uplink *old = uplink_find(e, c->uplinks[i]);

		if (old)
			next[i] = *old;
		snprintf(next[i].name, sizeof(next[i].name), "%s", c->uplinks[i]);
		next[i].how = old ? old->how : "none";
		ret = uplink_hook(e, &next[i], (unsigned)links[i].ifindex, links[i].up, err);
		if (ret < 0)
			return ret;
	}
	while (dp_attached(e->dp, stale_find, &s) == 1) {
		ret = dp_detach(e->dp, s.name, err);
		if (ret < 0)
			return ret;
		note(e, LOG_NOTICE, "uplink", "%s is no uplink any more: programs detached",
		     s.name);
	}
	memcpy(e->uplinks, next, sizeof(next));
	e->n_uplinks = c->n_uplinks;
	return uplinks_tell(e, err);
}

static bool hairpin_wanted(const struct config *c)
{
	for (size_t i = 0; i < c->n_pools; i++)
		if (c->pools[i].hairpin && c->pools[i].n_clients)
			return true;
	return false;
}

static int inner_set(struct engine *e, struct errtext *err)
{
	struct host_link *links = NULL;
	struct dp_inner *v = NULL;
	size_t n = 0;
	int ret = 0;

	if (hairpin_wanted(e->config))
		ret = host_inner(e->host, e->config, &links, &n, err);
	if (!ret) {
		v = calloc(n ?: 1, sizeof(*v));
		if (!v)
			ret = errtext_set(err, ENOMEM, "out of memory");
	}
	for (size_t i = 0; !ret && i < n; i++) {
		v[i].ifindex = (unsigned)links[i].ifindex;
		memcpy(v[i].name, links[i].name, sizeof(v[i].name));
	}
	if (!ret)
		ret = dp_inner_set(e->dp, v, n, err);
	free(links);
	free(v);
	return ret;
}

/* Interfaces that clients come in by: they come and go, and nothing but hairpinning and the pools that name them hangs on them. */
static void inner_look_after(struct engine *e)
{
	struct errtext err = { 0 };
	int ret = dp_zones_set(e->dp, e->plan, &err);

	if (!ret)
		ret = inner_set(e, &err);
	if (ret < 0 && !e->inner_failing)
		note(e, ret == -EOPNOTSUPP ? LOG_NOTICE : LOG_ERR, "hooks", "%s", err.s);
	e->inner_failing = ret < 0;
}

static int host_ready(struct engine *e, const struct config *c, struct errtext *err)
{
	const struct host_recorder rec = { host_record, e };
	int ret = host_prepare(e->host, c, &rec, err);

	if (ret < 0)
		return ret;
	return host_undo(e, c, err);
}

static void uplink_gone(struct engine *e, struct engine_uplink *u)
{
	if (!u->ifindex)
		return;
	note(e, LOG_WARNING, "uplink", "uplink %s is gone; its flows wait", u->name);
	u->ifindex = 0;
	u->up = false;
	u->how = "none";
}

/* An uplink that is there gets its programs; and the host its settings, where the interface is a new one or that failed earlier. */
static int uplink_settle(struct engine *e, struct engine_uplink *u, unsigned ifindex, bool up,
			 struct errtext *err)
{
	bool came = u->ifindex != ifindex;
	int ret = uplink_hook(e, u, ifindex, up, err);

	if (!ret && (came || e->hooks_failing))
		ret = uplinks_tell(e, err);
	if (!ret && (came || e->hooks_failing))
		ret = host_ready(e, e->config, err);
	return ret;
}

static void uplink_changed(struct engine *e, struct engine_uplink *u, unsigned ifindex, bool up)
{
	struct errtext err = { 0 };

	if (u->ifindex == ifindex) {
		u->up = up;
		return;
	}
	if (uplink_settle(e, u, ifindex, up, &err) < 0) {
		note(e, LOG_ERR, "uplink", "uplink %s: %s", u->name, err.s);
		e->hooks_failing = true;
	}
}

/*
 * See that every uplink has its programs. They are exchanged for themselves, which no packet notices; whatever took them off (a
 * deleted qdisc, a detached link), or an attempt that failed earlier, is made good.
 */
static void uplinks_look_after(struct engine *e)
{
	struct errtext err = { 0 };
	bool failing = false;

	for (size_t i = 0; i < e->n_uplinks; i++) {
		struct engine_uplink *u = &e->uplinks[i];
		unsigned ifindex = if_nametoindex(u->name);

		if (ifindex && uplink_settle(e, u, ifindex, u->up, &err) < 0) {
			if (!e->hooks_failing)
				note(e, LOG_ERR, "uplink", "uplink %s: %s", u->name, err.s);
			failing = true;
		}
	}
	if (!dp_socket_attached(e->dp) && hooks_of_sockets(e, &err) < 0) {
		if (!e->hooks_failing)
			note(e, LOG_ERR, "hooks", "%s", err.s);
		failing = true;
	}
	e->hooks_failing = failing;
}

int engine_links_fd(const struct engine *e)
{
	return host_link_fd(e->host);
}

void engine_links(struct engine *e)
{
	struct host_link_event ev;
	struct engine_uplink *u;
	unsigned ifindex;

	while (host_link_event(e->host, &ev) == 1) {
		switch (ev.verb) {
		case HOST_LINK_CHANGED:
			u = uplink_find(e, ev.link.name);
			if (u)
				uplink_changed(e, u, (unsigned)ev.link.ifindex, ev.link.up);
			break;
		case HOST_LINK_GONE:
			u = uplink_find(e, ev.link.name);
			if (u)
				uplink_gone(e, u);
			break;
		case HOST_LINK_RESYNC:
			/* One by one: those that are there must be hooked though others are missing. */
			for (size_t i = 0; i < e->n_uplinks; i++) {
				u = &e->uplinks[i];
				ifindex = if_nametoindex(u->name);
				if (ifindex)
					uplink_changed(e, u, ifindex, u->up);
				else
					uplink_gone(e, u);
			}
			break;
		}
	}
}

/* ---- holds ---- */

/*
 * Go over to c: decide, persist, publish. Nothing has happened if it fails before it has persisted; -EIO afterwards. c stays the
 * caller's.
 */
static int holds_set(struct engine *e, const struct config *c, struct errtext *err)
{
	struct hold_changes changes;
	struct store_batch batch = { .holds = &changes, .now_ms = clock_utc_ms() };
	struct plan *next = NULL;
	int ret;

	ret = hold_reconcile_local(c, &e->holds, e->next_epoch, clock_boot_ns(), &changes, err);
	if (ret < 0)
		return ret;
	ret = plan_build(c, &changes.after, e->plan, &next, err);
	if (ret < 0)
		goto out;
	FAULT_POINT("engine.decided");
	ret = store_commit(e->store, &batch, err);
	if (ret < 0) {
		if (store_must_reopen(e->store))
			ret = -EIO;
		goto out;
	}
	FAULT_POINT("engine.persisted");
	/* Before the clients that they belong to. */
	if (dp_zones_set(e->dp, next, err) < 0) {
		ret = -EIO;
		goto out;
	}
	for (size_t i = 0; i < changes.n; i++) {
		const struct hold_change *h = &changes.rows[i];
		char text[RANGE_STRLEN];

		if (h->verb == HOLD_BEGIN)
			note(e, LOG_NOTICE, "hold", "slice %s of pool %s begins, epoch %u",
			     range_format(&h->hold.ports, text), h->hold.pool, h->hold.epoch);
		else if (h->verb == HOLD_END)
			note(e, LOG_NOTICE, "hold", "slice %s of pool %s ends: %s",
			     range_format(&h->hold.ports, text), h->hold.pool,
			     hold_why_name(h->why));
	}
	hold_apply(&e->holds, &changes);
	e->next_epoch = changes.next_epoch;
	if (dp_publish(e->dp, next, err) < 0) {
		ret = -EIO;
		goto out;
	}
	FAULT_POINT("engine.published");
	plan_free(e->plan);
	e->plan = next;
	next = NULL;
out:
	plan_free(next);
	hold_changes_done(&changes);
	return ret;
}

static int renew(struct engine *e, uint64_t now_ns, struct errtext *err)
{
	struct store_batch batch = { .now_ms = clock_utc_ms() };
	struct hold_changes changes;
	uint32_t *rows = NULL;
	int ret, row;

	ret = hold_renew(&e->holds, now_ns, e->config->fleet.ttl_s, &changes);
	if (ret < 0)
		return errtext_set(err, -ret, "out of memory");
	batch.holds = &changes;
	rows = calloc(changes.n ?: 1, sizeof(*rows));
	if (!rows) {
		ret = errtext_set(err, ENOMEM, "out of memory");
		goto out;
	}
	ret = store_commit(e->store, &batch, err);
	if (ret < 0)
		goto out;
	hold_apply(&e->holds, &changes);
	for (size_t i = 0; i < e->holds.n; i++) {
		row = plan_slice_row(e->plan, &e->holds.rows[i].ports);
		if (row >= 0) {
			e->plan->slices[row].not_after_ns = e->holds.rows[i].not_after_ns;
			rows[0] = (uint32_t)row;
			dp_renew(e->dp, rows, 1, e->holds.rows[i].not_after_ns);
		}
	}
out:
	free(rows);
	hold_changes_done(&changes);
	return ret;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* ---- leases ---- */

int engine_onlink(struct engine *e, struct errtext *err)
{
	unsigned there[CONFIG_UPLINKS_MAX];
	size_t n = uplinks_there(e, there), n_list;
	struct plan_prefix *list;
	int ret;

	if (e->onlink_ns && clock_boot_ns() - e->onlink_ns < ONLINK_NS)
		return 0;
	ret = host_onlink(e->host, there, n, &list, &n_list, err);
	if (ret < 0)
		return ret;
	ret = dp_exec_onlink(e->dp, list, n_list, err);
	free(list);
	if (!ret)
		e->onlink_ns = clock_boot_ns();
	return ret;
}

/* While processes go out through leases, the data plane must know when routes change. */
static void onlink_look_after(struct engine *e)
{
	struct errtext err = { 0 };
	int ret = engine_onlink(e, &err);

	if (ret < 0 && !e->onlink_failing)
		note(e, LOG_ERR, "hooks", "which destinations leave by an uplink: %s", err.s);
	e->onlink_failing = ret < 0;
}

int engine_tick(struct engine *e, uint64_t now_ns, uint64_t *ret_next_ns, struct errtext *err)
{
	uint64_t renew_ns = hold_next_renewal(&e->holds, e->config->fleet.ttl_s), sweep_ns;
	int ret;

	if (store_must_reopen(e->store)) {
		errtext_set(err, EIO, "the store in %s must be opened again", e->config->state_dir);
		return -EIO;
	}
	if (renew_ns <= now_ns) {
		ret = renew(e, now_ns, err);
		/* The data plane fences the slices by itself if this goes on. */
		if (ret < 0 && !e->renewal_failing)
			note(e, LOG_ERR, "renewal", "deadlines can't be renewed: %s", err->s);
		else if (!ret && e->renewal_failing)
			note(e, LOG_NOTICE, "renewal", "deadlines are renewed again");
		e->renewal_failing = ret < 0;
		renew_ns = ret < 0 ? now_ns + RETRY_NS
				   : hold_next_renewal(&e->holds, e->config->fleet.ttl_s);
	}
	sweep_ns = e->swept_ns + SWEEP_NS + e->sweep_took_ns * SWEEP_SHARE;
	if (!e->swept_ns || sweep_ns <= now_ns) {
		ret = dp_sweep(e->dp, &e->swept, err);
		if (ret < 0)
			return -EIO;
		e->swept_ns = now_ns;
		e->sweep_took_ns = clock_boot_ns() - now_ns;
		sweep_ns = now_ns + SWEEP_NS + e->sweep_took_ns * SWEEP_SHARE;
		exhaust_look(e->exhaust, e, now_ns);
	}
	if (e->hooked_ns + HOOKS_NS <= now_ns) {
		uplinks_look_after(e);
		inner_look_after(e);
		e->hooked_ns = now_ns;
		if (lessor_execs(e->lessor))
			onlink_look_after(e);
	}
	lessor_tick(e->lessor, &e->holds, now_ns, ret_next_ns);
	*ret_next_ns = earlier(*ret_next_ns, earlier(renew_ns, sweep_ns));
	return 0;
}

/* ---- start, reload, end ---- */

static uint32_t event_rate(const struct config *c)
{
	return c->icmp_rate > EVENTS_MIN ? c->icmp_rate : EVENTS_MIN;
}

static void say_warnings(const struct engine *e, const struct config *c)
{
	for (size_t i = 0; i < c->n_warnings; i++)
		note(e, LOG_WARNING, "config", "%s", c->warnings[i]);
	if (dp_max_flows(e->dp) != c->max_flows)
		note(e, LOG_WARNING, "config",
		     "%s: max-flows \"%u\": the tables that are loaded have room for %u; it takes "
		     "effect after sluiced --teardown",
		     c->path, c->max_flows, dp_max_flows(e->dp));
}

/* All uplinks of c, which from now on are those whose events we hear. */
static int links_find(struct engine *e, const struct config *c, struct host_link links[],
		      struct errtext *err)
{
	int ret = host_links(e->host, c->uplinks, c->n_uplinks, links, err);

	if (ret < 0)
		config_blame_uplink(c, err);
	return ret;
}

int engine_open(const struct engine_opts *opts, struct engine **ret, struct errtext *err)
{
	struct host_link links[CONFIG_UPLINKS_MAX];
	struct dp_opts dpo = { .force_clsact = opts->force_clsact };
	struct lessor_opts lo;
	struct engine *e = calloc(1, sizeof(*e));
	int r;

	if (!e) {
		config_free(opts->config);
		return errtext_set(err, ENOMEM, "out of memory");
	}
	e->config = opts->config;
	e->note = opts->note;
	e->note_arg = opts->note_arg;
	e->tell = opts->tell;
	e->judge = opts->judge;
	e->judge_arg = opts->judge_arg;
	e->started_ns = clock_boot_ns();
	e->started_ms = clock_utc_ms();
	e->config_path = strdup(opts->config_path);
	e->exhaust = exhaust_new();
	if (!e->config_path || !e->exhaust) {
		r = errtext_set(err, ENOMEM, "out of memory");
		goto fail;
	}
	if (!e->config && (r = config_load(e->config_path, &e->config, err)) < 0)
		goto fail;
	if ((r = config_need_pools(e->config, err)) < 0 || (r = host_open(&e->host, err)) < 0 ||
	    (r = links_find(e, e->config, links, err)) < 0 ||
	    (r = store_open(e->config->state_dir, e->config->machine, &e->store, err)) < 0 ||
	    (r = store_load_holds(e->store, &e->holds, &e->next_epoch, err)) < 0 ||
	    (r = e->judge(e->judge_arg, e->config, err)) < 0)
		goto fail;
	store_collisions_keep(e->store, e->config->watch.history);
	FAULT_POINT("engine.opened");
	dpo.dir = e->config->bpffs;
	dpo.max_flows = e->config->max_flows;
	dpo.event_rate = event_rate(e->config);
	if ((r = dp_open(&dpo, &e->dp, err)) < 0 || (r = dp_read_plan(e->dp, &e->plan, err)) < 0)
		goto fail;
	say_warnings(e, e->config);
	r = holds_set(e, e->config, err);
	if (r < 0)
		goto fail;
	lo = (struct lessor_opts){
		.store = e->store, .dp = e->dp, .tell = e->tell, .note = e->note, .arg = e->note_arg
	};
	r = lessor_open(&lo, e->config, &e->holds, e->plan, &e->lessor, err);
	if (r < 0)
		goto fail;
	/* The guard must stand before a route lets sockets use the shared addresses. */
	if ((r = uplinks_set(e, e->config, links, err)) < 0 || (r = hooks_of_sockets(e, err)) < 0)
		goto fail;
	inner_look_after(e);
	FAULT_POINT("engine.attached");
	r = host_ready(e, e->config, err);
	if (r < 0)
		goto fail;
	FAULT_POINT("engine.ready");
	*ret = e;
	return 0;
fail:
	engine_close(e);
	return r;
}

void engine_close(struct engine *e)
{
	if (!e)
		return;
	lessor_close(e->lessor);
	exhaust_free(e->exhaust);
	plan_free(e->plan);
	dp_close(e->dp);
	hold_table_done(&e->holds);
	store_close(e->store);
	host_close(e->host);
	config_free(e->config);
	free(e->config_path);
	free(e);
}

int engine_reload(struct engine *e, struct errtext *err)
{
	struct host_link links[CONFIG_UPLINKS_MAX];
	struct config *c = NULL, *old = e->config;
	struct errtext undo = { 0 };
	int ret;

	ret = config_load(e->config_path, &c, err);
	if (ret < 0)
		return ret;
	ret = config_need_pools(c, err);
	if (!ret)
		ret = config_reloadable(old, c, err);
	if (!ret)
		ret = e->judge(e->judge_arg, c, err);
	if (ret < 0)
		goto refuse;
	ret = links_find(e, c, links, err);
	if (ret < 0) {
		/* Which also chose whose events we hear: back to the old ones. */
		host_links(e->host, old->uplinks, old->n_uplinks, links, &undo);
		goto refuse;
	}
	/* Leases that are being stored were decided by the old configuration. */
	ret = lessor_commit(e->lessor, err);
	if (!ret)
		ret = holds_set(e, c, err);
	if (ret < 0)
		goto refuse;
	e->config = c;
	config_free(old);
	ret = lessor_reconfigure(e->lessor, c, &e->holds, e->plan, err);
	if (ret < 0)
		return -EIO;
	ret = uplinks_set(e, c, links, err);
	if (ret < 0)
		return -EIO;
	inner_look_after(e);
	ret = host_ready(e, c, err);
	if (ret < 0)
		return -EIO;
	dp_set_event_rate(e->dp, event_rate(c));
	store_collisions_keep(e->store, c->watch.history);
	say_warnings(e, c);
	note(e, LOG_NOTICE, "reload", "configuration %s is in force", e->config_path);
	return 0;
refuse:
	config_free(c);
	return ret;
}

/*
 * Nothing is held here any more, and the records say so. What is held after another start is something new, with an epoch that
 * was never used.
 */
static int holds_end(struct engine *e, struct errtext *err)
{
	const struct config none = { 0 };
	struct hold_changes changes;
	struct store_batch batch = { .holds = &changes, .now_ms = clock_utc_ms() };
	int ret = store_load_holds(e->store, &e->holds, &e->next_epoch, err);

	if (ret < 0)
		return ret;
	ret = hold_reconcile_local(&none, &e->holds, e->next_epoch, clock_boot_ns(), &changes, err);
	if (ret < 0)
		return ret;
	ret = store_commit(e->store, &batch, err);
	hold_changes_done(&changes);
	return ret;
}

int engine_teardown(const char *config_path, engine_note_fn *note_fn, void *note_arg,
		    struct errtext *err)
{
	struct engine e = { .note = note_fn, .note_arg = note_arg };
	int ret;

	/* Routes first: without them no socket sends from a shared address when the guard goes. */
	if ((ret = config_load(config_path, &e.config, err)) < 0 ||
	    (ret = host_open(&e.host, err)) < 0 ||
	    (ret = store_open(e.config->state_dir, e.config->machine, &e.store, err)) < 0 ||
	    (ret = host_undo(&e, NULL, err)) < 0)
		goto out;
	ret = dp_teardown(e.config->bpffs, e.config->uplinks, e.config->n_uplinks, err);
	if (!ret)
		ret = lessor_teardown(e.store, err);
	if (!ret)
		ret = holds_end(&e, err);
out:
	hold_table_done(&e.holds);
	store_close(e.store);
	host_close(e.host);
	config_free(e.config);
	return ret;
}
