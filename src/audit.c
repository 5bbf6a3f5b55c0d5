// SPDX-License-Identifier: BSD-2-Clause
#include "audit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "clock.h"

#define SHARE 20 /* a comparison of many pages takes at most a twentieth of the time */

static const char *const how_names[] = {
	[AUDIT_MISSING] = "is active, and the store lacked it",
	[AUDIT_WRONG] = "was another one in the store",
	[AUDIT_ENDED] = "has ended, and went on in the store",
	[AUDIT_UNKNOWN] = "was in the store, and nobody has it",
};

/* What a turn works with. */
struct turn {
	struct audit *a;
	const struct lease_table *table;
	struct store_row rows[AUDIT_PAGE];
	size_t n_rows;
	struct store_repair repairs[AUDIT_DIFFERENCES];
	struct audit_difference *repaired[AUDIT_DIFFERENCES];
	size_t n_repairs;
	audit_note_fn *note;
	void *arg;
};

static __attribute__((format(printf, 4, 5))) void say(const struct turn *t, int priority,
						      const char *event, const char *fmt, ...)
{
	char text[ERRTEXT_LEN];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	t->note(t->arg, priority, event, text);
}

/* All that is stored of an active lease. */
static bool same(const struct lease *a, const struct lease *b)
{
	return !strcmp(a->pool, b->pool) && !addr_cmp(&a->ports.addr, &b->ports.addr) &&
	       a->ports.first == b->ports.first && a->ports.last == b->ports.last &&
	       a->protos == b->protos && a->kind == b->kind && a->bound == b->bound &&
	       a->holder.uid == b->holder.uid && a->holder.pid == b->holder.pid &&
	       a->holder.started == b->holder.started && !strcmp(a->holder.comm, b->holder.comm) &&
	       !strcmp(a->holder.cgroup, b->holder.cgroup) && !strcmp(a->name, b->name) &&
	       !strcmp(a->labels, b->labels) && a->created_ms == b->created_ms &&
	       a->ttl_s == b->ttl_s && a->expires_ns == b->expires_ns;
}

static enum audit_how compare(const struct store_row *row, const struct lease *lease)
{
	if (lease && lease->state == LEASE_ACTIVE)
		return !row                                    ? AUDIT_MISSING
		       : row->good && same(&row->lease, lease) ? AUDIT_SAME
							       : AUDIT_WRONG;
	if (!row)
		return AUDIT_SAME;
	return lease ? AUDIT_ENDED : AUDIT_UNKNOWN;
}

/* The difference's place, where its sights are counted; NULL: first those that are there. */
static struct audit_difference *difference_find(struct audit *a, uint64_t id, enum audit_how how)
{
	for (size_t i = 0; i < a->n; i++)
		if (a->differences[i].id == id && a->differences[i].how == how)
			return &a->differences[i];
	if (a->n == AUDIT_DIFFERENCES)
		return NULL;
	a->differences[a->n] = (struct audit_difference){ .id = id, .how = how };
	return &a->differences[a->n++];
}

/* One lease, as the store has it, as the table has it: either may be NULL. */
static void judge(struct turn *t, struct store_row *row, const struct lease *lease)
{
	enum audit_how how = compare(row, lease);
	struct audit_difference *d;
	struct store_repair *p;

	if (how == AUDIT_SAME)
		return;
	t->a->found = true;
	d = difference_find(t->a, lease ? lease->id : row->id, how);
	if (!d)
		return;
	d->now = true;
	if (++d->seen < AUDIT_AFTER)
		return;
	/* The record of a lease that nobody knows: root has put it there, and it ends now. */
	if (how == AUDIT_UNKNOWN && row->good) {
		row->lease.state = LEASE_COOLING;
		row->lease.why = LEASE_WHY_REVOKED;
		row->lease.ended_ms = clock_utc_ms();
		lease = &row->lease;
	}
	p = &t->repairs[t->n_repairs];
	*p = (struct store_repair){ .id = d->id, .lease = lease };
	t->repaired[t->n_repairs++] = d;
}

/* From a->at on, as far as the rows go; both are in the order of ids. True at the end of both. */
static bool page_compare(struct turn *t)
{
	const struct lease *lease = lease_next(t->table, t->a->at);
	bool last = t->n_rows < AUDIT_PAGE; /* no more rows */
	size_t i = 0;

	for (int steps = 0; steps < 2 * AUDIT_PAGE; steps++) {
		const struct lease *l = NULL;
		struct store_row *row = NULL;

		if (i == t->n_rows && (!last || !lease))
			return last;
		if (i < t->n_rows && (!lease || t->rows[i].id <= lease->id))
			row = &t->rows[i++];
		if (lease && (!row || lease->id == row->id)) {
			l = lease;
			lease = lease_next(t->table, l->id);
		}
		judge(t, row, l);
		t->a->at = l ? l->id : row->id;
	}
	return last && i == t->n_rows && !lease;
}

static int page_repair(struct turn *t, struct store *s, struct errtext *err)
{
	char ports[RANGE_STRLEN + 16];
	int r;

	if (!t->n_repairs)
		return 0;
	r = store_lease_repair(s, t->repairs, t->n_repairs, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < t->n_repairs; i++) {
		const struct lease *l = t->repairs[i].lease;
		char range[RANGE_STRLEN];

		ports[0] = '\0';
		if (l)
			snprintf(ports, sizeof(ports), " (%s, %s)", range_format(&l->ports, range),
				 lease_protos_name(l->protos));
		t->repaired[i]->seen = 0;
		t->a->repaired++;
		say(t, LOG_WARNING, "repaired", "lease %" PRIu64 "%s %s: put right",
		    t->repairs[i].id, ports, how_names[t->repaired[i]->how]);
	}
	return 0;
}

/* Those that were not seen again are gone. */
static void walk_end(struct audit *a)
{
	size_t kept = 0;

	for (size_t i = 0; i < a->n; i++) {
		if (a->differences[i].now && a->differences[i].seen)
			a->differences[kept++] = a->differences[i];
	}
	a->n = kept;
	a->walking = false;
	a->clean = !a->found;
}

/* A look begins: is there anything to compare? */
static int walk_begin(struct audit *a, struct store *s, uint64_t now_ns, struct errtext *err)
{
	int64_t version;
	int r = store_version(s, &version, err);

	a->began_ns = now_ns;
	if (r < 0)
		return r;
	if (a->clean && version == a->version && now_ns - a->whole_ns < AUDIT_WHOLE_NS)
		return 0;
	for (size_t i = 0; i < a->n; i++)
		a->differences[i].now = false;
	a->version = version;
	a->whole_ns = now_ns;
	a->walking = true;
	a->found = false;
	a->at = 0;
	return 0;
}

static int turn_take(struct turn *t, struct store *s, uint64_t now_ns, struct errtext *err)
{
	struct audit *a = t->a;
	bool end;
	int r = a->walking ? 0 : walk_begin(a, s, now_ns, err);

	if (r < 0 || !a->walking)
		return r;
	r = store_lease_page(s, a->at, AUDIT_PAGE, t->rows, &t->n_rows, err);
	if (r < 0)
		return r;
	end = page_compare(t);
	r = page_repair(t, s, err);
	if (!r && end)
		walk_end(a);
	return r;
}

uint64_t audit_turn(struct audit *a, struct store *s, const struct lease_table *t, uint64_t now_ns,
		    audit_note_fn *note, void *arg)
{
	struct turn *turn = malloc(sizeof(*turn));
	uint64_t began_ns = clock_boot_ns();
	struct errtext err = { 0 };
	int r = -ENOMEM;

	if (turn) {
		turn->a = a;
		turn->table = t;
		turn->n_rows = turn->n_repairs = 0;
		turn->note = note;
		turn->arg = arg;
		r = turn_take(turn, s, now_ns, &err);
		free(turn);
	} else {
		a->began_ns = now_ns;
		errtext_set(&err, ENOMEM, "out of memory");
	}
	if (r < 0) {
		/* All of it again, at the next look. */
		a->walking = false;
		a->clean = false;
		if (!a->failing)
			note(arg, LOG_ERR, "store", err.s);
	}
	if (r < 0 || !a->walking)
		a->failing = r < 0;
	if (a->walking)
		return now_ns + (clock_boot_ns() - began_ns) * SHARE;
	return a->began_ns + AUDIT_LOOK_NS;
}
