// SPDX-License-Identifier: BSD-2-Clause
#include "lease.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "lease_private.h"

struct lease_table *lease_table_new_with(const struct lease_limits *limits,
					 void *(*realloc_fn)(void *old, size_t size))
{
	struct lease_table *t = realloc_fn(NULL, sizeof(*t));

	if (!t)
		return NULL;
	memset(t, 0, sizeof(*t));
	t->realloc = realloc_fn;
	t->limits = *limits;
	if (lease_store_new(t)) {
		free(t);
		return NULL;
	}
	return t;
}

struct lease_table *lease_table_new(const struct lease_limits *limits)
{
	return lease_table_new_with(limits, realloc);
}

void lease_table_free(struct lease_table *t)
{
	if (!t)
		return;
	lease_counts_free(t);
	lease_slices_free(&t->slices);
	lease_ports_free(t);
	lease_store_free(t);
	free(t->journal);
	free(t);
}

void lease_limits_set(struct lease_table *t, const struct lease_limits *limits)
{
	t->limits = *limits;
}

/* The journal. */

static int journal_reserve(struct lease_table *t)
{
	size_t cap = t->journal_cap ? t->journal_cap * 2 : 64;
	struct lease_change *more;

	if (t->n_journal < t->journal_cap)
		return 0;
	more = t->realloc(t->journal, cap * sizeof(*more));
	if (!more)
		return -ENOMEM;
	t->journal = more;
	t->journal_cap = cap;
	return 0;
}

/* Call it before the change. */
static void journal_add(struct lease_table *t, enum lease_verb verb, struct lease_entry *e)
{
	assert(t->n_journal < t->journal_cap);
	t->journal[t->n_journal++] = (struct lease_change){
		.verb = verb,
		.lease = &e->lease,
		.was_expires_ns = e->lease.expires_ns,
		.was_ttl_s = e->lease.ttl_s,
	};
	e->journalled++;
}

const struct lease_change *lease_journal(const struct lease_table *t, size_t *ret_n)
{
	*ret_n = t->n_journal;
	return t->journal;
}

void lease_keep_first(struct lease_table *t, size_t n)
{
	assert(n <= t->n_journal);
	for (size_t i = 0; i < n; i++)
		lease_entry_of(t->journal[i].lease)->journalled--;
	t->n_journal -= n;
	if (n && t->n_journal)
		memmove(t->journal, t->journal + n, t->n_journal * sizeof(*t->journal));
}

void lease_keep(struct lease_table *t)
{
	lease_keep_first(t, t->n_journal);
}

/* Entering and leaving. */

/* Reserves all that l needs, then enters it. */
static struct lease_entry *table_add(struct lease_table *t, const struct lease *l)
{
	struct lease_entry draft = { .lease = *l }, *e;
	long s;

	if (lease_store_reserve(t) || lease_ports_reserve(t, &l->ports) ||
	    lease_tally_reserve(t, &draft))
		return NULL;
	e = lease_store_add(t, l);
	e->pool = draft.pool;
	e->uid = draft.uid;
	e->cgroup = draft.cgroup;
	e->share = draft.share;
	s = lease_slice_find(t, &l->ports.addr, l->ports.first);
	if (s >= 0 && l->ports.last <= t->slices.list[s].ports.last &&
	    t->slices.home[s].pool == e->pool)
		e->home = (uint32_t)(s + 1);
	lease_ports_set(t, e);
	lease_tally_add(t, e);
	lease_store_due(t, e);
	if (!e->home && l->state == LEASE_ACTIVE)
		lease_store_foreign(t, e);
	return e;
}

static void table_rm(struct lease_table *t, struct lease_entry *e)
{
	if (!e->home && e->lease.state == LEASE_ACTIVE)
		lease_store_unforeign(t, e);
	lease_store_undue(t, e);
	lease_ports_clear(t, e);
	lease_tally_sub(t, e);
	lease_tally_drop(t, e);
	lease_store_rm(t, e);
}

static bool text_ends(const char *s, size_t size)
{
	return strnlen(s, size) < size;
}

static bool lease_valid(const struct lease *l)
{
	bool cooling = l->state == LEASE_COOLING;

	return l->id && text_ends(l->pool, sizeof(l->pool)) && l->pool[0] && l->ports.first &&
	       l->ports.first <= l->ports.last && l->protos && l->protos < LEASE_PROTOS &&
	       l->kind <= SLUICE_LEASE_EXCLUSIVE && l->state <= LEASE_COOLING &&
	       l->bound <= LEASE_BOUND_CGROUP && l->why <= LEASE_WHY_REVOKED &&
	       cooling == (l->why != LEASE_WHY_NONE) && l->ttl_s <= LEASE_TTL_MAX &&
	       text_ends(l->holder.comm, sizeof(l->holder.comm)) &&
	       text_ends(l->holder.cgroup, sizeof(l->holder.cgroup)) &&
	       text_ends(l->name, sizeof(l->name)) && text_ends(l->labels, sizeof(l->labels));
}

int lease_adopt(struct lease_table *t, const struct lease *l)
{
	if (!lease_valid(l))
		return -EINVAL;
	if (lease_find(t, l->id) || lease_ports_taken(t, &l->ports, l->protos))
		return -EEXIST;
	return table_add(t, l) ? 0 : -ENOMEM;
}

static void text_copy(char *to, size_t size, const char *from)
{
	size_t len = from ? strlen(from) : 0;

	assert(len < size);
	if (len)
		memcpy(to, from, len);
}

struct lease *lease_grant(struct lease_table *t, uint64_t id, const struct lease_request *req,
			  const struct range *ports, uint64_t now_ns, int64_t now_ms)
{
	long s = lease_slice_find(t, &ports->addr, ports->first);
	struct lease l = {
		.id = id,
		.ports = *ports,
		.protos = req->protos,
		.kind = req->kind,
		.state = LEASE_ACTIVE,
		.bound = req->bound,
		.holder = req->holder,
		.created_ms = now_ms,
		.ttl_s = req->ttl_s,
		.expires_ns = req->ttl_s ? now_ns + req->ttl_s * NS_PER_S : SLUICE_NEVER,
	};
	struct lease_entry *e;

	assert(id && !lease_find(t, id));
	assert(s >= 0 && ports->last <= t->slices.list[s].ports.last);
	assert(lease_range_ports(ports) == req->ports);
	memcpy(l.pool, t->slices.list[s].pool, sizeof(l.pool));
	text_copy(l.name, sizeof(l.name), req->name);
	text_copy(l.labels, sizeof(l.labels), req->labels);
	if (journal_reserve(t))
		return NULL;
	/* That the ports are free is asserted where they are set. */
	e = table_add(t, &l);
	if (!e)
		return NULL;
	journal_add(t, LEASE_GRANTED, e);
	return &e->lease;
}

int lease_renew(struct lease_table *t, struct lease *l, uint32_t ttl_s, uint64_t now_ns)
{
	struct lease_entry *e = lease_entry_of(l);

	if (!ttl_s)
		ttl_s = l->ttl_s;
	if (l->state != LEASE_ACTIVE || !ttl_s || ttl_s > LEASE_TTL_MAX)
		return -EINVAL;
	if (journal_reserve(t))
		return -ENOMEM;
	journal_add(t, LEASE_RENEWED, e);
	l->ttl_s = ttl_s;
	l->expires_ns = now_ns + ttl_s * NS_PER_S;
	lease_store_due(t, e);
	return 0;
}

/* Leave one state's heap, counts and lists, and enter the other's. */
static void turn(struct lease_table *t, struct lease_entry *e, enum lease_state state)
{
	if (!e->home && e->lease.state == LEASE_ACTIVE)
		lease_store_unforeign(t, e);
	lease_store_undue(t, e);
	lease_tally_sub(t, e);
	e->lease.state = state;
	lease_tally_add(t, e);
	lease_store_due(t, e);
	if (!e->home && e->lease.state == LEASE_ACTIVE)
		lease_store_foreign(t, e);
}

int lease_release(struct lease_table *t, struct lease *l, enum lease_why why, uint64_t now_ns,
		  int64_t now_ms)
{
	struct lease_entry *e = lease_entry_of(l);

	assert(why != LEASE_WHY_NONE);
	if (l->state != LEASE_ACTIVE)
		return -EINVAL;
	if (journal_reserve(t))
		return -ENOMEM;
	journal_add(t, LEASE_RELEASED, e);
	l->ended_ms = now_ms;
	l->why = why;
	l->cool_ns = now_ns + t->limits.cool_down_s * NS_PER_S;
	turn(t, e, LEASE_COOLING);
	return 0;
}

void lease_free(struct lease_table *t, struct lease *l)
{
	struct lease_entry *e = lease_entry_of(l);

	assert(l->state == LEASE_COOLING && !e->journalled);
	table_rm(t, e);
}

void lease_cool_on(struct lease_table *t, struct lease *l, uint64_t cool_ns)
{
	assert(l->state == LEASE_COOLING);
	l->cool_ns = cool_ns;
	lease_store_due(t, lease_entry_of(l));
}

static void change_undo(struct lease_table *t, const struct lease_change *c)
{
	struct lease_entry *e = lease_entry_of(c->lease);
	struct lease *l = c->lease;

	e->journalled--;
	switch (c->verb) {
	case LEASE_GRANTED:
		table_rm(t, e);
		break;
	case LEASE_RENEWED:
		l->expires_ns = c->was_expires_ns;
		l->ttl_s = c->was_ttl_s;
		lease_store_due(t, e);
		break;
	case LEASE_RELEASED:
		turn(t, e, LEASE_ACTIVE);
		l->ended_ms = 0;
		l->why = LEASE_WHY_NONE;
		l->cool_ns = 0;
		break;
	}
}

void lease_undo(struct lease_table *t)
{
	while (t->n_journal)
		change_undo(t, &t->journal[--t->n_journal]);
}

/* Words. */

static const char *const why_names[] = {
	[LEASE_WHY_NONE] = "",           [LEASE_WHY_RELEASED] = "released",
	[LEASE_WHY_EXPIRED] = "expired", [LEASE_WHY_PROCESS] = "process",
	[LEASE_WHY_CGROUP] = "cgroup",   [LEASE_WHY_SLICE] = "slice",
	[LEASE_WHY_REBOOT] = "reboot",   [LEASE_WHY_REVOKED] = "revoked",
};

const char *lease_why_name(enum lease_why why)
{
	assert(why < sizeof(why_names) / sizeof(why_names[0]));
	return why_names[why];
}

int lease_why_parse(const char *s, enum lease_why *ret)
{
	for (size_t i = 0; i < sizeof(why_names) / sizeof(why_names[0]); i++) {
		if (!strcmp(s, why_names[i])) {
			*ret = (enum lease_why)i;
			return 0;
		}
	}
	return -EINVAL;
}

const char *lease_kind_name(enum sluice_lease_kind kind)
{
	return kind == SLUICE_LEASE_EXCLUSIVE ? "exclusive" : "shared";
}

const char *lease_protos_name(uint8_t protos)
{
	static const char *const names[LEASE_PROTOS] = { "", "tcp", "udp", "tcp+udp" };

	static_assert(LEASE_TCP == 1 && LEASE_UDP == 2, "indexes of the names");
	assert(protos < LEASE_PROTOS);
	return names[protos];
}

const char *lease_bound_name(enum lease_bound b)
{
	static const char *const names[] = { "", "process", "cgroup" };

	assert(b < sizeof(names) / sizeof(names[0]));
	return names[b];
}
