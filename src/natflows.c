/* SPDX-License-Identifier: BSD-2-Clause */
#include "natflows.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "ctnl.h"

#define PART      1024
#define DUMPS_MAX 4
#define WAIT_MS   5000

static bool shared(const struct config *c, const struct addr *a)
{
	for (size_t i = 0; i < c->n_pools; i++)
		for (size_t k = 0; k < c->pools[i].n_addresses; k++)
			if (!addr_cmp(&c->pools[i].addresses[k], a))
				return true;
	return false;
}

static bool ours(const struct config *c, const struct addr *a, uint16_t port)
{
	for (size_t i = 0; i < c->n_pools; i++)
		for (size_t k = 0; k < c->pools[i].n_slices; k++)
			if (range_contains(&c->pools[i].slices[k], a, port))
				return true;
	return false;
}

void natflows_count(struct natflows *n, const struct config *c, const struct ct_entry *e)
{
	if (!shared(c, &e->reply.dst))
		return;
	if (addr_cmp(&e->orig.src, &e->reply.dst)) {
		n->flows++;
		n->in_slices += ours(c, &e->reply.dst, e->reply.dport);
	} else if (e->orig.sport != e->reply.dport) {
		n->rewritten++;
		n->sample = *e;
	}
}

void natflows_judge(const struct natflows *n, struct findings *out)
{
	char src[ADDR_STRLEN], dst[ADDR_STRLEN];

	if (n->rewritten)
		findings_add(
			out, "nat.rewritten", FINDING_ERROR,
			"see who they are: sluice collisions; and take out the rules named above",
			"conntrack has rewritten the source port of %zu connections from shared "
			"addresses, such as "
			"%s:%u to %s:%u, which leaves from port %u",
			n->rewritten, addr_format(&n->sample.orig.src, src), n->sample.orig.sport,
			addr_format(&n->sample.orig.dst, dst), n->sample.orig.dport,
			n->sample.reply.dport);
	if (n->flows)
		findings_add(out, "nat.flows", n->in_slices ? FINDING_WARN : FINDING_INFO,
			     n->in_slices
				     ? "they end with the rules that made them, or by conntrack -D"
				     : NULL,
			     "conntrack translates %zu flows to shared addresses now, %zu of them "
			     "with ports of this "
			     "machine's slices",
			     n->flows, n->in_slices);
}

struct counting {
	const struct config *c;
	struct natflows n;
};

static void on_entry(void *arg, enum ct_verb verb, const struct ct_entry *e)
{
	struct counting *k = arg;

	if (verb == CT_FOUND)
		natflows_count(&k->n, k->c, e);
}

static int table_read(struct ctnl *ct, struct counting *k, struct errtext *err)
{
	int r = -EINTR;

	for (int i = 0; i < DUMPS_MAX && r == -EINTR; i++) {
		memset(&k->n, 0, sizeof(k->n));
		r = ctnl_dump_begin(ct, err);
		if (r < 0)
			return r;
		do {
			struct pollfd p = { .fd = ctnl_dump_fd(ct), .events = POLLIN };

			if (poll(&p, 1, WAIT_MS) <= 0)
				return errtext_set(err, ETIMEDOUT, "conntrack's table: no answer");
			r = ctnl_dump_read(ct, PART, on_entry, k);
		} while (r > 0);
	}
	return r < 0 ? errtext_set(err, -r, "conntrack's table: %s", strerror(-r)) : 0;
}

void natflows_run(const struct config *c, struct findings *out)
{
	struct ctnl_opts o = { .buffer = 65536 };
	struct counting k = { .c = c };
	struct errtext err = { 0 };
	struct ctnl *ct;
	int r = ctnl_open(&o, &ct, &err);

	/* Without connection tracking there is nothing to look at; without the right to, doctor says so elsewhere. */
	if (r < 0)
		return;
	r = table_read(ct, &k, &err);
	ctnl_close(ct);
	if (r < 0)
		findings_add(out, "nat.flows", FINDING_INFO, "run as root", "%s", err.s);
	else
		natflows_judge(&k.n, out);
}
