/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Grants and releases; opening, closing, what is due. Points for tests (fault.h): "lessor.claimed" (ports are kept from NAT, nothing is stored), "lessor.meanwhile" (the same while an
 * earlier turn is being stored).
 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "fault.h"
#include "lessor_private.h"

#define CLAIMS 8 /* attempts, each with NAT's newest ports left out */

#define LOOK_NS       (5 * NS_PER_S)  /* asking the kernel for sockets */
#define LOOK_DUE_NS   (NS_PER_S / 2)  /* the same while ports wait for it */
#define LOOK_NOW_NS   (NS_PER_S / 20) /* the same when a request finds no room */
#define JUDGE_AT_ONCE 2048
#define COMPARE_NS    (5 * NS_PER_S)
#define RETRY_NS      (5 * NS_PER_S)
#define TRIM_NS       (60 * NS_PER_S)
#define TRIM_ON_NS    (NS_PER_S / 5)

void lessor_say(const struct lessor *l, int priority, const char *event, const char *fmt, ...)
{
	char text[ERRTEXT_LEN];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	l->opts.note(l->opts.arg, priority, event, text);
}

/* The kernel's random numbers, by the dozen. */
static uint64_t random_word(struct lessor *l)
{
	if (!l->n_random &&
	    getrandom(l->random, sizeof(l->random), GRND_NONBLOCK) == sizeof(l->random))
		l->n_random = sizeof(l->random) / sizeof(l->random[0]);
	return l->n_random ? l->random[--l->n_random] : clock_boot_ns() * 0x9e3779b97f4a7c15ULL;
}

static uint64_t due_ns(uint64_t last_ns, uint64_t every_ns, uint64_t took_ns)
{
	uint64_t rest_ns = took_ns * LESSOR_SHARE;

	return last_ns + (rest_ns > every_ns ? rest_ns : every_ns);
}

/* A request finds no room: free at once what has rested long enough. True if there may be room now. */
static bool cooled_free(struct lessor *l)
{
	uint64_t now_ns = clock_boot_ns();

	if (lease_next_cooled(l->table) > now_ns ||
	    due_ns(l->looked_ns, LOOK_NOW_NS, l->look_took_ns) > now_ns)
		return false;
	/* Two looks have to agree that nobody uses a port. */
	for (int i = 0; i < 2; i++) {
		lessor_look(l);
		while (l->judging)
			lessor_judge(l, JUDGE_AT_ONCE);
	}
	return true;
}

/* Choose and claim; NAT may be faster. */
static int ranges_take(struct lessor *l, const struct lease_request *req, struct range *ranges,
		       struct errtext *err)
{
	uint32_t done;
	int r = 0;

	for (int i = 0; i < CLAIMS; i++) {
		r = lease_choose(l->table, req, random_word(l), lessor_busy, l, ranges, err);
		if (r == -ENOSPC && cooled_free(l))
			r = lease_choose(l->table, req, random_word(l), lessor_busy, l, ranges,
					 err);
		if (r < 0)
			return r;
		for (done = 0; done < req->leases && !r; done++)
			r = lessor_claim(l, &ranges[done], req->protos);
		if (!r)
			return 0;
		l->stats.raced++;
		for (uint32_t k = 0; k + 1 < done; k++)
			lessor_unclaim(l, &ranges[k], req->protos);
	}
	return errtext_set(err, EBUSY,
			   "NAT took each of %d choices of ports at the same moment: try again",
			   CLAIMS);
}

/* ---- the table's changes ---- */

int lessor_acquire(struct lessor *l, const struct lease_request *req, struct lease **ret,
		   struct errtext *err)
{
	struct range ranges[LEASE_AT_ONCE];
	uint64_t now_ns = clock_boot_ns(), want;
	struct watch *watch = NULL;
	uint32_t n = 0;
	int r;

	if (req->leases < 1 || req->leases > LEASE_AT_ONCE)
		return errtext_set(err, EINVAL, "leases %u: 1 to %d at once", req->leases,
				   LEASE_AT_ONCE);
	want = (uint64_t)req->ports * req->leases * lessor_protos_count(req->protos);
	if (l->leased_ports + want > SLUICE_MAX_LEASED) {
		l->stats.refused++;
		return errtext_set(err, EDQUOT,
				   "this machine can have %d ports under lease, and has %llu",
				   SLUICE_MAX_LEASED, (unsigned long long)l->leased_ports);
	}
	r = lessor_watch_reserve(l, req, req->leases, &watch, err);
	if (r < 0)
		return r;
	r = ranges_take(l, req, ranges, err);
	if (r < 0) {
		l->stats.refused++;
		return r;
	}
	FAULT_POINT("lessor.claimed");
	if (l->storing)
		FAULT_POINT("lessor.meanwhile");
	for (; n < req->leases; n++) {
		ret[n] = lease_grant(l->table, l->next_id, req, &ranges[n], now_ns, clock_utc_ms());
		if (!ret[n])
			break;
		l->next_id++;
		l->next_id_used = true;
		l->leased_ports += (uint64_t)req->ports * lessor_protos_count(req->protos);
		if (watch)
			lessor_watch_add(l, watch, ret[n]);
	}
	if (n == req->leases)
		return 0;
	/* Out of memory half way: what was granted ends in the same transaction, and cools down. */
	for (uint32_t k = n; k < req->leases; k++)
		lessor_unclaim(l, &ranges[k], req->protos);
	for (uint32_t k = 0; k < n; k++)
		lessor_release(l, ret[k], LEASE_WHY_RELEASED, err);
	return errtext_set(err, ENOMEM, "out of memory");
}

int lessor_renew(struct lessor *l, struct lease *lease, uint32_t ttl_s, struct errtext *err)
{
	int r = lease_renew(l->table, lease, ttl_s, clock_boot_ns());

	if (r == -EINVAL)
		return errtext_set(err, EINVAL,
				   "lease %llu has no time limit to renew: say which one it shall "
				   "have from now on (ttl)",
				   (unsigned long long)lease->id);
	return r < 0 ? errtext_set(err, -r, "out of memory") : 0;
}

int lessor_release(struct lessor *l, struct lease *lease, enum lease_why why, struct errtext *err)
{
	int r = lease_release(l->table, lease, why, clock_boot_ns(), clock_utc_ms());

	return r < 0 ? errtext_set(err, -r, "out of memory") : 0;
}

bool lessor_quiet_wanted(const struct lessor *l)
{
	return l->quiet_wanted;
}

/* ---- life ---- */

const struct lease_table *lessor_table(const struct lessor *l)
{
	return l->table;
}

struct lease *lessor_find(const struct lessor *l, uint64_t id)
{
	struct lease *lease = lease_find(l->table, id);

	return lease && lease->state == LEASE_ACTIVE ? lease : NULL;
}

struct lessor_stats lessor_stats(const struct lessor *l)
{
	struct lessor_stats st = l->stats;

	st.repaired += l->audit.repaired;
	return st;
}

static struct lease_limits limits_of(const struct config *c)
{
	return (struct lease_limits){
		.leases = SLUICE_MAX_LEASED,
		.uid_leases = c->access.leases_per_uid,
		.uid_ports = c->access.ports_per_uid,
		.cgroup_leases = c->access.leases_per_cgroup,
		.fair_percent = c->leases.fair_percent,
		.cool_down_s = c->leases.cool_down_s,
	};
}

/* Leases in slices that this machine has lost. */
static int foreign_end(struct lessor *l, struct errtext *err)
{
	struct lease *lease;
	int r;

	while ((lease = lease_foreign(l->table))) {
		r = lessor_release(l, lease, LEASE_WHY_SLICE, err);
		if (r < 0)
			return r;
	}
	return lessor_commit(l, err);
}

int lessor_reconfigure(struct lessor *l, const struct config *c, const struct hold_table *holds,
		       const struct plan *plan, struct errtext *err)
{
	struct lease_limits limits = limits_of(c);
	int r = lessor_slices_set(l, holds, plan, err);

	if (r < 0)
		return r;
	lease_limits_set(l->table, &limits);
	l->cool_down_s = c->leases.cool_down_s;
	l->records_days = c->leases.records_days;
	r = foreign_end(l, err);
	if (r < 0)
		return r;
	return lessor_sync(l, err);
}

struct loading {
	struct lessor *l;
	uint64_t now_ns;
	int64_t now_ms;
	struct errtext *err;
};

/* One lease of the store. How long an ended one has to rest yet is counted by the wall clock, since the other one does not survive a start. */
static int load_one(const struct lease *stored, void *arg)
{
	const struct loading *ld = arg;
	struct lease lease = *stored;
	char text[RANGE_STRLEN];
	int64_t left_ms;
	int r;

	if (lease.state == LEASE_COOLING) {
		left_ms = lease.ended_ms + (int64_t)ld->l->cool_down_s * 1000 - ld->now_ms;
		if (left_ms > (int64_t)ld->l->cool_down_s * 1000)
			left_ms = (int64_t)ld->l->cool_down_s * 1000;
		lease.user = LESSOR_KEPT;
		lease.cool_ns = ld->now_ns + (left_ms > 0 ? (uint64_t)left_ms * 1000000 : 0);
	} else {
		ld->l->leased_ports += (uint64_t)(lease.ports.last - lease.ports.first + 1) *
				       lessor_protos_count(lease.protos);
	}
	r = lease_adopt(ld->l->table, &lease);
	/* The same ports rested twice already: with a short cool-down, ended ones overlap in the records. */
	if (r == -EEXIST && lease.state == LEASE_COOLING)
		return 0;
	if (r < 0)
		return errtext_set(ld->err, -r, "lease %llu of %s in the store: %s",
				   (unsigned long long)lease.id, range_format(&lease.ports, text),
				   strerror(-r));
	return 0;
}

int lessor_open(const struct lessor_opts *opts, const struct config *c,
		const struct hold_table *holds, const struct plan *plan, struct lessor **ret,
		struct errtext *err)
{
	struct lease_limits limits = limits_of(c);
	struct lessor *l = calloc(1, sizeof(*l));
	struct loading ld = {
		.l = l,
		.now_ns = clock_boot_ns(),
		.now_ms = clock_utc_ms(),
		.err = err,
	};
	int r;

	if (!l)
		return errtext_set(err, ENOMEM, "out of memory");
	l->opts = *opts;
	l->store = opts->store;
	l->dp = opts->dp;
	l->epoll_fd = -1;
	l->look.worker.fd = -1;
	l->round = LESSOR_ROUND;
	l->turn = 1;
	l->cool_down_s = c->leases.cool_down_s;
	l->table = lease_table_new(&limits);
	if (!l->table) {
		r = errtext_set(err, ENOMEM, "out of memory");
		goto fail;
	}
	if ((r = sockdiag_open(&l->diag, err)) < 0 || (r = lessor_look_open(l, err)) < 0 ||
	    (r = lessor_watch_open(l, c, err)) < 0 ||
	    (r = lessor_slices_set(l, holds, plan, err)) < 0)
		goto fail;
	r = store_load_leases(l->store, ld.now_ms - (int64_t)l->cool_down_s * 1000, load_one, &ld,
			      &l->next_id, err);
	if (r < 0 || (r = lessor_watch_adopt(l, err)) < 0 ||
	    (r = lessor_reconfigure(l, c, holds, plan, err)) < 0)
		goto fail;
	lessor_look(l);
	*ret = l;
	return 0;
fail:
	lessor_close(l);
	return r;
}

static int teardown_adopt(const struct lease *lease, void *arg)
{
	return lease_adopt(arg, lease);
}

int lessor_teardown(struct store *s, struct errtext *err)
{
	const struct lease_limits limits = { .leases = SLUICE_MAX_LEASED };
	struct lease_table *t = lease_table_new(&limits);
	struct store_batch batch = { .now_ms = clock_utc_ms() };
	struct lease *lease = NULL;
	uint64_t next;
	int r;

	if (!t)
		return errtext_set(err, ENOMEM, "out of memory");
	/* The active ones alone. */
	r = store_load_leases(s, INT64_MAX, teardown_adopt, t, &next, err);
	while (!r && (lease = lease_next(t, lease ? lease->id : 0)))
		if (lease->state == LEASE_ACTIVE)
			r = lease_release(t, lease, LEASE_WHY_SLICE, 0, batch.now_ms);
	batch.leases = lease_journal(t, &batch.n_leases);
	if (!r)
		r = store_commit(s, &batch, err);
	lease_table_free(t);
	return r;
}

void lessor_close(struct lessor *l)
{
	struct errtext err;

	if (!l)
		return;
	/* What it came to is found by the next start. */
	if (l->storing)
		store_commit_end(l->store, &err);
	lessor_look_close(l);
	lessor_watch_close(l);
	sockdiag_close(l->diag);
	lease_table_free(l->table);
	free(l->storing_changes);
	free(l->storing_leases);
	free(l->slices);
	free(l->foreign);
	free(l);
}

/* Has a slice's deadline passed, or come back? Then what may be given out changes. */
static void deadlines_look(struct lessor *l, const struct hold_table *holds, uint64_t now_ns)
{
	struct errtext err;
	bool changed = false;

	for (size_t i = 0; l->deadlines && i < l->n_slices; i++) {
		bool live = hold_live(&holds->rows[i], now_ns);

		changed |= live != l->slices[i].live;
		l->slices[i].live = live;
	}
	if (changed && lessor_slices_tell(l, holds, &err) < 0)
		lessor_say(l, LOG_ERR, "lease", "deadlines of slices: %s", err.s);
}

static void expired_end(struct lessor *l, uint64_t now_ns)
{
	struct errtext err;
	struct lease *lease;

	while ((lease = lease_expired(l->table, now_ns)))
		if (lessor_release(l, lease, LEASE_WHY_EXPIRED, &err) < 0)
			break; /* for want of memory: the next turn */
}

static void sooner(uint64_t *next_ns, uint64_t at_ns)
{
	if (at_ns < *next_ns)
		*next_ns = at_ns;
}

static void records_trim(struct lessor *l, uint64_t now_ns)
{
	struct errtext err;
	int r = store_lease_trim(l->store, clock_utc_ms() - (int64_t)l->records_days * 86400 * 1000,
				 &err);

	if (r < 0)
		lessor_say(l, LOG_ERR, "store", "old records of leases can't be removed: %s",
			   err.s);
	/* A bounded number each time: go on at once while there are more. */
	l->trim_ns = now_ns + (r > 0 ? TRIM_ON_NS : TRIM_NS);
}

/* When the kernel is next asked for sockets: sooner while ports wait for it. */
static uint64_t look_due_ns(const struct lessor *l)
{
	uint64_t due = due_ns(l->looked_ns, LOOK_DUE_NS, l->look_took_ns);

	if (lease_next_cooled(l->table) > due)
		due = lease_next_cooled(l->table);
	sooner(&due, due_ns(l->looked_ns, LOOK_NS, l->look_took_ns));
	return due;
}

void lessor_tick(struct lessor *l, const struct hold_table *holds, uint64_t now_ns,
		 uint64_t *ret_next_ns)
{
	uint64_t next_ns = SLUICE_NEVER;
	bool compare, audit, looking;

	l->turn++;
	deadlines_look(l, holds, now_ns);
	looking = lessor_looking(l);
	if (!looking && !l->judging && look_due_ns(l) <= now_ns) {
		lessor_look_begin(l);
		looking = lessor_looking(l);
	}
	if (l->judging)
		lessor_judge(l, JUDGE_AT_ONCE);
	/* Not in the middle of changes that are not published yet. */
	compare = due_ns(l->compared_ns, COMPARE_NS, l->compare_took_ns) <= now_ns;
	audit = l->audit_ns <= now_ns;
	l->quiet_wanted = (compare || audit) && (l->storing || lessor_dirty(l));
	if (compare && !l->quiet_wanted)
		lessor_compare(l, now_ns);
	if (audit && !l->quiet_wanted)
		l->audit_ns = audit_turn(&l->audit, l->store, l->table, now_ns, l->opts.note,
					 l->opts.arg);
	if (l->trim_ns <= now_ns)
		records_trim(l, now_ns);
	if (l->retry_ns <= now_ns) {
		lessor_watch_retry(l);
		l->retry_ns = now_ns + RETRY_NS;
	}
	expired_end(l, now_ns);
	if (l->judging)
		next_ns = now_ns;
	sooner(&next_ns, lease_next_expiry(l->table));
	if (!looking)
		sooner(&next_ns, look_due_ns(l));
	sooner(&next_ns, due_ns(l->compared_ns, COMPARE_NS, l->compare_took_ns));
	sooner(&next_ns, l->audit_ns);
	sooner(&next_ns, l->trim_ns);
	sooner(&next_ns, l->retry_ns);
	*ret_next_ns = next_ns;
}
