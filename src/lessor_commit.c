/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Commits: the journal's way to the disk, then into the maps, then to be told; or all of it back. Points for tests (fault.h): "lessor.persisted", "lessor.published" (in the maps,
 * nobody was told).
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "clock.h"
#include "fault.h"
#include "lessor_private.h"

size_t lessor_waiting(const struct lessor *l)
{
	size_t n;

	lease_journal(l->table, &n);
	return n - l->n_storing;
}

bool lessor_dirty(const struct lessor *l)
{
	return lessor_waiting(l) > 0;
}

/* Take out of the map what has ended, and the socket that received for it. */
static int published_end(struct lessor *l, const struct lease *lease, struct lessor_entries *e)
{
	for (enum sluice_l4 l4 = SLUICE_TCP; l4 <= SLUICE_UDP; l4++)
		if (lease->protos & 1U << l4)
			lessor_steer_rm(l, lease, l4);
	lessor_exec_end(l, lease);
	return lessor_entries_add(e, lease, false, NULL);
}

/* Which entries the journal means. A lease that came and went within it was never in the map. */
static int entries_collect(struct lessor *l, const struct lease_change *j, size_t n,
			   struct lessor_entries *e)
{
	uint32_t steer[SLUICE_L4_MAX];
	int r = 0;

	for (size_t i = 0; i < n && !r; i++) {
		struct lease *lease = j[i].lease;

		if (j[i].verb == LEASE_GRANTED && lease->state == LEASE_ACTIVE) {
			/* A socket may have been registered for it in the same turn. */
			lessor_steers(l, lease, steer);
			r = lessor_entries_add(e, lease, true, steer);
		}
		if (j[i].verb == LEASE_RELEASED) {
			r = published_end(l, lease, e);
		}
	}
	return r;
}

static void after_keep(struct lessor *l, enum lease_verb verb, struct lease *lease)
{
	if (verb == LEASE_GRANTED) {
		l->stats.granted++;
	} else if (verb == LEASE_RELEASED) {
		l->stats.ended++;
		l->leased_ports -= (uint64_t)(lease->ports.last - lease->ports.first + 1) *
				   lessor_protos_count(lease->protos);
		lessor_watch_rm(l, lease);
		lease->user = LESSOR_KEPT;
	}
	l->opts.tell(l->opts.arg, verb, lease);
}

/* Take everything back: what could not be stored, and what was changed since. */
static void undo(struct lessor *l, const struct errtext *why)
{
	size_t n;
	const struct lease_change *j = lease_journal(l->table, &n);

	for (size_t i = 0; i < n; i++) {
		struct lease *lease = j[i].lease;

		if (j[i].verb != LEASE_GRANTED)
			continue;
		lessor_unclaim(l, &lease->ports, lease->protos);
		lessor_watch_rm(l, lease);
		lessor_exec_end(l, lease);
		lessor_steer_undo(l, lease);
		l->leased_ports -= (uint64_t)(lease->ports.last - lease->ports.first + 1) *
				   lessor_protos_count(lease->protos);
	}
	lease_undo(l->table);
	l->next_id_used = true; /* the ids are used up nevertheless */
	l->undone = true;
	if (why != &l->undone_why)
		l->undone_why = *why;
}

/* Room for copies of n changes. */
static int storing_reserve(struct lessor *l, size_t n)
{
	size_t cap = l->storing_cap ?: 256;
	void *more;

	while (cap < n)
		cap *= 2;
	if (cap == l->storing_cap)
		return 0;
	more = reallocarray(l->storing_changes, cap, sizeof(*l->storing_changes));
	if (!more)
		return -ENOMEM;
	l->storing_changes = more;
	more = reallocarray(l->storing_leases, cap, sizeof(*l->storing_leases));
	if (!more)
		return -ENOMEM;
	l->storing_leases = more;
	l->storing_cap = cap;
	return 0;
}

int lessor_commit_begin(struct lessor *l, struct errtext *err)
{
	size_t n;
	const struct lease_change *j = lease_journal(l->table, &n);
	int r;

	assert(!l->storing);
	if (!n)
		return 0;
	r = storing_reserve(l, n);
	if (r < 0) {
		errtext_set(err, -r, "out of memory");
		undo(l, err);
		return r;
	}
	/* The leases may change while the thread reads of them. */
	for (size_t i = 0; i < n; i++) {
		l->storing_leases[i] = *j[i].lease;
		l->storing_changes[i] = j[i];
		l->storing_changes[i].lease = &l->storing_leases[i];
	}
	l->batch = (struct store_batch){
		.now_ms = clock_utc_ms(),
		.leases = l->storing_changes,
		.n_leases = n,
		.next_lease = l->next_id_used ? l->next_id : 0,
	};
	l->next_id_used = false;
	l->n_storing = n;
	l->storing = true;
	store_commit_begin(l->store, &l->batch);
	return 0;
}

bool lessor_committing(const struct lessor *l)
{
	return l->storing;
}

bool lessor_commit_done(const struct lessor *l)
{
	return l->storing && store_commit_done(l->store);
}

int lessor_commit_end(struct lessor *l, struct errtext *err)
{
	struct lessor_entries e = { 0 };
	size_t n = l->n_storing, all;
	const struct lease_change *j = lease_journal(l->table, &all);
	int r = store_commit_end(l->store, err);

	l->storing = false;
	l->n_storing = 0;
	if (r < 0) {
		undo(l, err);
		return store_must_reopen(l->store) ? -EIO : r;
	}
	FAULT_POINT("lessor.persisted");
	r = entries_collect(l, j, n, &e);
	if (r < 0)
		errtext_set(err, -r, "out of memory");
	if (!r && e.n_rm)
		r = dp_lease_rm(l->dp, e.rm, e.n_rm, err);
	if (!r && e.n_put)
		r = dp_lease_put(l->dp, e.put, e.n_put, err);
	lessor_entries_done(&e);
	if (r < 0)
		return -EIO; /* stored, and not in the maps */
	FAULT_POINT("lessor.published");
	for (size_t i = 0; i < n; i++)
		after_keep(l, j[i].verb, j[i].lease);
	lease_keep_first(l->table, n);
	return 0;
}

int lessor_commit(struct lessor *l, struct errtext *err)
{
	int r = 0;

	while (!r && (l->storing || lessor_dirty(l)))
		r = l->storing ? lessor_commit_end(l, err) : lessor_commit_begin(l, err);
	return r;
}

bool lessor_undone(struct lessor *l, struct errtext *err)
{
	if (!l->undone)
		return false;
	if (lessor_dirty(l))
		undo(l, &l->undone_why);
	l->undone = false;
	*err = l->undone_why;
	return true;
}
