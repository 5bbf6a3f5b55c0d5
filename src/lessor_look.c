/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel's sockets: which ports are in use, by leases that cool down or by somebody who asked nobody; and which leases are free, then. Listing sockets walks the kernel's whole
 * hash table, which takes milliseconds also where there are few, so a thread does it. It gives back ports; what they mean is decided here, by the table as it is then: a port is
 * judged only when its rest was over as the look began.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "clock.h"
#include "lessor_private.h"
#include "open.h"

#define UNUSED_ONCE \
	((void *)UINTPTR_MAX)  /* mark of a cooling lease that the last look found unused */
#define LOOKS    3             /* a dump that the table changed under is made again */
#define AGAIN_NS 1000000000ULL /* a port that is still in use is looked at again after this */

int lessor_look_open(struct lessor *l, struct errtext *err)
{
	int r = sockdiag_open(&l->look.diag, err);

	return r < 0 ? r : worker_open(&l->look.worker, err);
}

void lessor_look_close(struct lessor *l)
{
	worker_close(&l->look.worker);
	sockdiag_close(l->look.diag);
	free(l->look.addrs);
	free(l->look.ports);
}

/* The addresses of the slices, for free(). */
static struct addr *slice_addrs(const struct lessor *l, size_t *ret_n)
{
	struct addr *addrs = calloc(l->n_slices ?: 1, sizeof(*addrs));
	size_t n = 0;

	/* The slices are sorted by address. */
	for (size_t i = 0; addrs && i < l->n_slices; i++)
		if (!n || addr_cmp(&addrs[n - 1], &l->slices[i].ports.addr))
			addrs[n++] = l->slices[i].ports.addr;
	*ret_n = n;
	return addrs;
}

int lessor_sockets(struct lessor *l, enum sluice_l4 l4,
		   int (*fn)(const struct sockdiag_sock *s, void *arg), void *arg,
		   struct errtext *err)
{
	size_t n;
	struct addr *addrs = slice_addrs(l, &n);
	int r = 0;

	if (!addrs)
		return errtext_set(err, ENOMEM, "out of memory");
	if (n)
		r = sockdiag_dump(l->diag, l4, addrs, n, fn, arg, err);
	free(addrs);
	return r;
}

/* ---- in the thread ---- */

static int port_order(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct look_port));
}

static int port_add(const struct sockdiag_sock *s, void *arg)
{
	struct look *k = arg;
	struct look_port p = { .addr = s->local, .port = s->lport, .l4 = (uint16_t)s->l4 };

	/* Of a lease that serves many destinations they come in rows. */
	if (k->n && !port_order(&k->ports[k->n - 1], &p))
		return 0;
	if (k->n == k->cap) {
		size_t cap = 2 * k->cap ?: 1024;
		void *more = reallocarray(k->ports, cap, sizeof(*k->ports));

		if (!more)
			return errtext_set(&k->err, ENOMEM, "out of memory");
		k->ports = more;
		k->cap = cap;
	}
	k->ports[k->n++] = p;
	return 0;
}

/* Each once: the table is asked for each of them, in the daemon's loop. */
static void ports_unite(struct look *k)
{
	size_t kept = 0;

	if (!k->n)
		return;
	qsort(k->ports, k->n, sizeof(*k->ports), port_order);
	for (size_t i = 1; i < k->n; i++)
		if (port_order(&k->ports[kept], &k->ports[i]))
			k->ports[++kept] = k->ports[i];
	k->n = kept + 1;
}

static int look_run(void *arg)
{
	struct look *k = arg;
	int r = 0;

	k->n = 0;
	for (enum sluice_l4 l4 = SLUICE_TCP; k->n_addrs && l4 <= SLUICE_UDP && !r; l4++) {
		size_t before = k->n;

		for (int i = 0; i < LOOKS; i++) {
			k->n = before;
			r = sockdiag_dump(k->diag, l4, k->addrs, k->n_addrs, port_add, k, &k->err);
			if (r != -EINTR)
				break;
		}
	}
	ports_unite(k);
	return r;
}

/* ---- in the loop ---- */

/* Is a cooling lease's end on the disk? What the last look found is noted in `user` afterwards. */
static bool is_kept(const struct lessor *l, const struct lease *lease)
{
	return lease->user == LESSOR_KEPT || lease->user == UNUSED_ONCE ||
	       ((uintptr_t)lease->user >= LESSOR_ROUND && (uintptr_t)lease->user <= l->round);
}

/* A port with a socket: in use by the lease that has it, or by somebody who asked nobody. */
static void port_note(struct lessor *l, const struct look_port *p)
{
	const struct range r = { p->addr, p->port, p->port };
	int i = lessor_slice_of(l, &r);
	struct lease *lease;

	if (i < 0)
		return;
	lease = lease_at(l->table, &p->addr, p->port, (enum sluice_l4)p->l4);
	if (lease && lease->state == LEASE_COOLING && is_kept(l, lease))
		lease->user = (void *)l->round; /* NOLINT(performance-no-int-to-ptr): a mark */
	else if (!lease)
		lessor_foreign_add(l, (size_t)i, (enum sluice_l4)p->l4, p->port);
}

static int look_prepare(struct lessor *l, struct errtext *err)
{
	struct look *k = &l->look;

	k->began_ns = clock_boot_ns();
	free(k->addrs);
	k->addrs = slice_addrs(l, &k->n_addrs);
	return k->addrs ? 0 : errtext_set(err, ENOMEM, "out of memory");
}

static void look_settle(struct lessor *l, int r)
{
	struct look *k = &l->look;

	l->looked_ns = k->began_ns;
	l->look_took_ns = clock_boot_ns() - k->began_ns;
	l->judging = !r;
	if (!r) {
		memset(l->foreign, 0, l->n_foreign * sizeof(*l->foreign));
		l->round++;
		for (size_t i = 0; i < k->n; i++)
			port_note(l, &k->ports[i]);
	}
	if (r < 0 && r != -EINTR && !l->look_failing)
		lessor_say(l, LOG_ERR, "lease",
			   "the kernel does not tell its sockets, so no port gets free: %s",
			   k->err.s);
	l->look_failing = r < 0 && r != -EINTR;
}

void lessor_look(struct lessor *l)
{
	struct look *k = &l->look;
	int r;

	/* What is under way began too early to say anything about now. */
	if (worker_has_job(&k->worker))
		worker_end(&k->worker);
	r = look_prepare(l, &k->err);
	look_settle(l, r < 0 ? r : look_run(k));
}

void lessor_look_begin(struct lessor *l)
{
	struct look *k = &l->look;
	int r = look_prepare(l, &k->err);

	if (r < 0)
		look_settle(l, r);
	else
		worker_begin(&k->worker, look_run, k);
}

bool lessor_looking(struct lessor *l)
{
	struct look *k = &l->look;

	if (worker_has_job(&k->worker) && worker_done(&k->worker))
		look_settle(l, worker_end(&k->worker));
	return worker_has_job(&k->worker);
}

int lessor_look_fd(const struct lessor *l)
{
	return worker_fd(&l->look.worker);
}

/* What is to be done with a lease whose rest is over, after a look. */
static void judge_one(struct lessor *l, struct lease *lease)
{
	if (!is_kept(l, lease)) {
		lease_cool_on(l->table, lease, l->looked_ns + AGAIN_NS);
	} else if (lease->user == (void *)l->round) { /* NOLINT(performance-no-int-to-ptr) */
		l->stats.in_use++;
		lease_cool_on(l->table, lease, l->looked_ns + AGAIN_NS);
	} else if (lease->user != UNUSED_ONCE) {
		/* A dump is a walk over a living table, and can miss a socket: two of them have to agree. */
		lease->user = UNUSED_ONCE;
		lease_cool_on(l->table, lease, l->looked_ns + 1);
	} else if (!sockdiag_sees_bound(l->diag) && lease->protos & 1U << SLUICE_TCP &&
		   open_bound(lease)) {
		/* Only bound, which this kernel's dumps do not show. */
		l->stats.in_use++;
		lease_cool_on(l->table, lease, l->looked_ns + AGAIN_NS);
	} else {
		lessor_unclaim(l, &lease->ports, lease->protos);
		lease_free(l->table, lease);
	}
}

void lessor_judge(struct lessor *l, size_t max)
{
	struct lease *lease;

	for (size_t i = 0; i < max; i++) {
		lease = lease_cooled(l->table, l->looked_ns);
		if (!lease) {
			l->judging = false;
			return;
		}
		judge_one(l, lease);
	}
}
