// SPDX-License-Identifier: BSD-2-Clause
/* See inventory.h. What was found is kept in a ring: the oldest makes room. Two hash tables lead there, by tuple and by cookie, since notices tell cookies. */
#include "inventory.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "clock.h"
#include "procsock.h"
#include "sockends.h"
#include "socktable.h"

#define KEPT    4096 /* a power of two */
#define BUCKETS 8192 /* a power of two */
#define NONE    UINT16_MAX

/* A socket may be connected anew, or its tuple be shadowed by another one: nothing tells that. */
#define KEEP_NS NS_PER_S
/* So long notices may lie unread while what is kept is answered. */
#define STALE_NS NS_PER_MS

#define READ_MAX   1024 /* notices in one call */
#define DEVICES    4    /* that sockets are bound to */
#define DUMP_TRIES 3

struct kept {
	bool used;
	struct ct_tuple tuple;
	struct sockdiag_sock sock;
	uint64_t until_ns;
	uint16_t next_by_tuple, next_by_cookie;
};

/* A refresh under way, which may be in another thread: all that it touches, but the table that it fills. */
struct listing {
	struct sockdiag *diag;
	struct addr *addrs;
	size_t n_addrs;
	struct socktable *table;
	uint32_t devices[DEVICES];
	int full_r; /* what adding to the table said */
	struct errtext err;
};

struct inventory {
	struct sockdiag *diag;
	struct sockends *ends;
	struct procsock *procs;
	struct errtext note;
	uint64_t key[2];
	struct inventory_stats stats;

	struct kept ring[KEPT];
	uint16_t ring_at; /* the next place, which is the oldest's */
	uint16_t by_tuple[BUCKETS], by_cookie[BUCKETS];
	uint64_t last_until_ns; /* when nothing that is kept is believed any more */
	uint64_t read_ns;       /* when notices were read to the end */
	uint64_t dump_ns;       /* not before this is the next look-up by dump */

	struct socktable tables[2];
	unsigned now; /* which of them is the last refresh's; the other is the next one's to fill */
	bool no_before; /* the other one was given up for a refresh that failed */
	uint32_t devices[DEVICES];
	struct listing listing;
};

/* What is kept */

static uint16_t *tuple_bucket(struct inventory *v, enum sluice_l4 l4, const struct ct_tuple *t)
{
	return &v->by_tuple[socktable_hash(v->key, l4, &t->src, t->sport, &t->dst, t->dport) %
			    BUCKETS];
}

/* Cookies count up. */
static uint16_t *cookie_bucket(struct inventory *v, uint64_t cookie)
{
	return &v->by_cookie[cookie % BUCKETS];
}

static bool tuple_same(const struct ct_tuple *a, const struct ct_tuple *b)
{
	return a->sport == b->sport && a->dport == b->dport && !addr_cmp(&a->src, &b->src) &&
	       !addr_cmp(&a->dst, &b->dst);
}

static void kept_drop(struct inventory *v, uint16_t i)
{
	struct kept *k = &v->ring[i];
	uint16_t *at = tuple_bucket(v, k->sock.l4, &k->tuple);

	while (*at != i)
		at = &v->ring[*at].next_by_tuple;
	*at = k->next_by_tuple;
	at = cookie_bucket(v, k->sock.cookie);
	while (*at != i)
		at = &v->ring[*at].next_by_cookie;
	*at = k->next_by_cookie;
	k->used = false;
	v->stats.kept--;
}

static void kept_empty(struct inventory *v)
{
	for (uint16_t i = 0; i < KEPT; i++)
		v->ring[i].used = false;
	memset(v->by_tuple, 0xff, sizeof(v->by_tuple));
	memset(v->by_cookie, 0xff, sizeof(v->by_cookie));
	v->stats.kept = 0;
}

static uint16_t kept_find(struct inventory *v, enum sluice_l4 l4, const struct ct_tuple *t)
{
	uint16_t i = *tuple_bucket(v, l4, t);

	while (i != NONE && (v->ring[i].sock.l4 != l4 || !tuple_same(&v->ring[i].tuple, t)))
		i = v->ring[i].next_by_tuple;
	return i;
}

static void kept_add(struct inventory *v, const struct ct_tuple *t, const struct sockdiag_sock *s,
		     uint64_t now_ns)
{
	uint16_t i = v->ring_at, *tuple = tuple_bucket(v, s->l4, t), *cookie;
	struct kept *k = &v->ring[i];

	if (k->used)
		kept_drop(v, i);
	v->ring_at = (uint16_t)((i + 1) % KEPT);
	cookie = cookie_bucket(v, s->cookie);
	*k = (struct kept){ .used = true,
			    .tuple = *t,
			    .sock = *s,
			    .until_ns = now_ns + KEEP_NS,
			    .next_by_tuple = *tuple,
			    .next_by_cookie = *cookie };
	*tuple = *cookie = i;
	v->last_until_ns = k->until_ns;
	v->stats.kept++;
}

/* Notices */

static void ended(void *arg, uint64_t cookie)
{
	struct inventory *v = arg;
	uint16_t i = *cookie_bucket(v, cookie), next;

	for (; i != NONE; i = next) {
		next = v->ring[i].next_by_cookie;
		if (v->ring[i].sock.cookie == cookie)
			kept_drop(v, i);
	}
}

/* 0; -EAGAIN: there may be more. */
static int notices_read(struct inventory *v, uint64_t now_ns)
{
	int r = sockends_read(v->ends, READ_MAX, ended, v);

	if (r == -ENOBUFS) {
		v->stats.losses++;
		kept_empty(v);
		r = READ_MAX;
	}
	if (r < 0)
		return r;
	if (r == READ_MAX)
		return -EAGAIN;
	v->read_ns = now_ns;
	return 0;
}

int inventory_fd(const struct inventory *v)
{
	return sockends_fd(v->ends);
}

int inventory_read(struct inventory *v)
{
	uint64_t now_ns = clock_boot_ns();
	int r;

	/* Nothing is believed any more: the kernel may save itself the work. */
	if (now_ns >= v->last_until_ns) {
		kept_empty(v);
		r = sockends_listen(v->ends, false);
		if (r)
			return r;
	}
	r = notices_read(v, now_ns);
	return r == -EAGAIN ? 0 : r;
}

/* Looking up */

/* Does this socket send with that tuple? The kernel's answer may be a listener, or what an sk_lookup program chose. */
static bool sends(const struct sockdiag_sock *s, const struct ct_tuple *t)
{
	static const struct addr wildcard;

	if (s->lport != t->sport)
		return false;
	if (s->rport)
		return s->rport == t->dport && !addr_cmp(&s->remote, &t->dst) &&
		       !addr_cmp(&s->local, &t->src);
	return s->l4 == SLUICE_UDP &&
	       (!addr_cmp(&s->local, &t->src) || !addr_cmp(&s->local, &wildcard));
}

static int ask(struct inventory *v, enum sluice_l4 l4, const struct ct_tuple *t,
	       const struct addr *local, uint32_t ifindex, struct sockdiag_sock *ret)
{
	struct sockdiag_sock s;
	int r = sockdiag_find(v->diag, l4, local, t->sport, &t->dst, t->dport, ifindex, &s);

	if (r)
		return r;
	if (!sends(&s, t))
		return -ENOENT;
	*ret = s;
	return 0;
}

struct candidate {
	const struct ct_tuple *tuple;
	struct sockdiag_sock *ret;
	bool found;
};

static int candidate_take(const struct sockdiag_sock *s, void *arg)
{
	struct candidate *c = arg;

	if (!sends(s, c->tuple))
		return 0;
	/* The connected one is the better answer. */
	*c->ret = *s;
	c->found = true;
	return s->rport != 0;
}

/*
 * The kernel's look-up asks an sk_lookup program about UDP sockets that are bound to an address, and ours refuses ports that are not leased. So the table is gone through, but
 * for no more than a tenth of the time.
 */
static int dump_look_up(struct inventory *v, const struct ct_tuple *t, struct sockdiag_sock *ret)
{
	struct candidate c = { .tuple = t, .ret = ret };
	uint64_t begin_ns = clock_boot_ns(), end_ns;
	int r;

	if (begin_ns < v->dump_ns)
		return -ENOENT;
	r = sockdiag_dump_states(v->diag, SLUICE_UDP, ~0U, t->sport, &t->src, 1, candidate_take, &c,
				 NULL);
	end_ns = clock_boot_ns();
	v->dump_ns = end_ns + 9 * (end_ns - begin_ns);
	if (c.found)
		return 0;
	return r < 0 ? r : -ENOENT;
}

/* One request as a rule. */
static int look_up(struct inventory *v, enum sluice_l4 l4, const struct ct_tuple *t,
		   struct sockdiag_sock *ret)
{
	static const struct addr wildcard;
	int r = ask(v, l4, t, &t->src, 0, ret);

	for (size_t i = 0; r == -ENOENT && i < DEVICES && v->devices[i]; i++)
		r = ask(v, l4, t, &t->src, v->devices[i], ret);
	/* An sk_lookup program may say no for a shared address; about the wildcard it is never asked otherwise. */
	if (r == -ENOENT && l4 == SLUICE_UDP)
		r = ask(v, l4, t, &wildcard, 0, ret);
	if (r == -ENOENT && l4 == SLUICE_UDP)
		r = dump_look_up(v, t, ret);
	return r;
}

int inventory_find(struct inventory *v, enum sluice_l4 l4, const struct ct_tuple *orig,
		   struct sockdiag_sock *ret)
{
	uint64_t now_ns = clock_boot_ns();
	struct sockdiag_sock s;
	bool listening;
	uint16_t i;
	int r;

	if (l4 != SLUICE_TCP && l4 != SLUICE_UDP)
		return -ENOENT;
	v->stats.lookups++;
	if (v->stats.kept && now_ns - v->read_ns > STALE_NS && notices_read(v, now_ns))
		kept_empty(v);
	i = kept_find(v, l4, orig);
	if (i != NONE && now_ns < v->ring[i].until_ns) {
		v->stats.hits++;
		*ret = v->ring[i].sock;
		return 0;
	}
	if (i != NONE)
		kept_drop(v, i);
	/* First the ear and then the question: an end in between is noticed. */
	listening = !sockends_listen(v->ends, true);
	r = look_up(v, l4, orig, &s);
	if (r)
		return r;
	/* Of those without an inode no end is noticed. */
	if (listening && s.inode)
		kept_add(v, orig, &s, now_ns);
	*ret = s;
	return 0;
}

void inventory_owner(struct inventory *v, const struct sockdiag_sock *s, int32_t hint_pid,
		     struct inventory_sock *ret)
{
	struct procsock_owner o;

	procsock_find(v->procs, s->inode, s->cgroup, hint_pid, &o);
	*ret = (struct inventory_sock){ .sock = *s, .pid = o.pid };
	_Static_assert(sizeof(o.comm) == sizeof(ret->comm), "one kind of text");
	_Static_assert(sizeof(o.cgroup) == sizeof(ret->cgroup), "one kind of text");
	memcpy(ret->comm, o.comm, sizeof(ret->comm));
	memcpy(ret->cgroup, o.cgroup, sizeof(ret->cgroup));
}

int inventory_destroy(struct inventory *v, const struct sockdiag_sock *s)
{
	ended(v, s->cookie);
	return sockdiag_destroy(v->diag, s);
}

/* The table */

static void device_note(struct listing *l, uint32_t ifindex)
{
	for (size_t i = 0; i < DEVICES && ifindex; i++) {
		if (l->devices[i] && l->devices[i] != ifindex)
			continue;
		l->devices[i] = ifindex;
		break;
	}
}

static int table_fill(const struct sockdiag_sock *s, void *arg)
{
	static const struct addr wildcard;
	struct listing *l = arg;

	if (!s->lport || !addr_cmp(&s->local, &wildcard))
		return 0;
	device_note(l, s->ifindex);
	l->full_r = socktable_add(l->table, s);
	return l->full_r;
}

static int both_dump(struct listing *l)
{
	uint32_t states = ~(1U << TCP_TIME_WAIT);
	int r = sockdiag_dump_states(l->diag, SLUICE_TCP, states, 0, l->addrs, l->n_addrs,
				     table_fill, l, &l->err);

	if (!r)
		r = sockdiag_dump_states(l->diag, SLUICE_UDP, states, 0, l->addrs, l->n_addrs,
					 table_fill, l, &l->err);
	return r;
}

int inventory_refresh_begin(struct inventory *v, const struct addr *addrs, size_t n,
			    struct errtext *err)
{
	struct listing *l = &v->listing;
	struct addr *copy = n ? reallocarray(l->addrs, n, sizeof(*copy)) : NULL;

	if (n && !copy)
		return errtext_set(err, ENOMEM, "out of memory");
	if (n) {
		memcpy(copy, addrs, n * sizeof(*copy));
		l->addrs = copy;
	}
	l->n_addrs = n;
	l->table = &v->tables[!v->now];
	v->no_before = true;
	return 0;
}

int inventory_refresh_run(struct inventory *v)
{
	struct listing *l = &v->listing;
	int r = -EINTR;

	memset(l->devices, 0, sizeof(l->devices));
	l->full_r = 0;
	for (int tries = 0; r == -EINTR && tries < DUMP_TRIES; tries++) {
		socktable_empty(l->table);
		r = both_dump(l);
	}
	if (!r)
		l->full_r = socktable_seal(l->table);
	if (l->full_r)
		r = errtext_set(&l->err, -l->full_r, "out of memory for the list of sockets");
	return r;
}

int inventory_refresh_end(struct inventory *v, int run, struct errtext *err)
{
	const struct listing *l = &v->listing;

	if (run) {
		*err = l->err;
		return run;
	}
	v->now = !v->now;
	v->no_before = false;
	memcpy(v->devices, l->devices, sizeof(v->devices));
	v->stats.listed = l->table->n;
	v->stats.cut = l->table->cut;
	return 0;
}

int inventory_refresh(struct inventory *v, const struct addr *addrs, size_t n, struct errtext *err)
{
	int r = inventory_refresh_begin(v, addrs, n, err);

	return r ? r : inventory_refresh_end(v, inventory_refresh_run(v), err);
}

bool inventory_port_used(const struct inventory *v, enum sluice_l4 l4, const struct addr *addr,
			 uint16_t port, const struct addr *remote, uint16_t rport,
			 struct sockdiag_sock *ret)
{
	const struct socktable *t = &v->tables[v->now];
	const struct sockdiag_sock *s;
	size_t at = 0;

	s = socktable_next(t, l4, addr, port, remote, rport, &at);
	at = 0;
	while (!s && (s = socktable_next(t, l4, addr, port, NULL, 0, &at)))
		if (s->state == TCP_LISTEN)
			s = NULL;
	if (s)
		*ret = *s;
	return s;
}

void inventory_fresh(const struct inventory *v,
		     void (*fn)(void *arg, const struct sockdiag_sock *s), void *arg)
{
	const struct socktable *t = &v->tables[v->now], *old = &v->tables[!v->now];

	for (size_t i = 0; i < t->n && !v->no_before; i++)
		if (!socktable_has_cookie(old, t->list[i].cookie))
			fn(arg, &t->list[i]);
}

/* Opening */

int inventory_open(struct inventory **ret, struct errtext *err)
{
	struct inventory *v = calloc(1, sizeof(*v));
	int r;

	if (!v)
		return errtext_set(err, ENOMEM, "out of memory");
	kept_empty(v);
	if (getrandom(v->key, sizeof(v->key), 0) != (ssize_t)sizeof(v->key)) {
		r = errtext_set(err, EIO, "no random numbers to be had");
		goto fail;
	}
	for (size_t i = 0; i < 2; i++)
		socktable_init(&v->tables[i], v->key, SOCKTABLE_MAX);
	r = sockdiag_open(&v->diag, err);
	if (!r)
		r = sockdiag_open(&v->listing.diag, err);
	if (!r)
		r = sockends_open(&v->ends, err);
	if (!r) {
		r = procsock_open(true, &v->procs, &v->note);
		if (r)
			*err = v->note;
	}
	if (r)
		goto fail;
	*ret = v;
	return 0;
fail:
	inventory_close(v);
	return r;
}

void inventory_close(struct inventory *v)
{
	if (!v)
		return;
	procsock_close(v->procs);
	sockends_close(v->ends);
	sockdiag_close(v->diag);
	sockdiag_close(v->listing.diag);
	free(v->listing.addrs);
	for (size_t i = 0; i < 2; i++)
		socktable_done(&v->tables[i]);
	free(v);
}

const char *inventory_note(const struct inventory *v)
{
	return v->note.s;
}

struct inventory_stats inventory_stats(const struct inventory *v)
{
	struct inventory_stats s = v->stats;
	struct procsock_stats p = procsock_stats(v->procs);

	s.owners = p.lookups;
	s.owner_passes = p.passes;
	return s;
}
