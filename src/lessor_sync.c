/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Table and maps compared. At a start, and after a reload, the maps are made to agree with the table at once. Afterwards they are compared now and then, and a
 * difference is repaired when it has been seen three times in a row, and told.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "clock.h"
#include "lessor_private.h"
#include "open.h"

#define REPAIR_AFTER 3

/* ---- steering ---- */

static int steer_find(const struct lessor *l, uint64_t id, enum sluice_l4 l4)
{
	for (uint32_t i = 0; i < l->n_steers; i++)
		if (l->steers[i].lease == id && l->steers[i].l4 == l4)
			return (int)i;
	return -1;
}

static int steer_free(struct lessor *l)
{
	for (uint32_t i = 0; i < l->n_steers; i++)
		if (!l->steers[i].lease)
			return (int)i;
	return l->n_steers < SLUICE_MAX_STEERED ? (int)l->n_steers++ : -1;
}

static uint32_t steer_of(const struct lessor *l, const struct lease *lease, enum sluice_l4 l4)
{
	return (uint32_t)(steer_find(l, lease->id, l4) + 1);
}

void lessor_steer_rm(struct lessor *l, const struct lease *lease, enum sluice_l4 l4)
{
	int slot = steer_find(l, lease->id, l4);

	if (slot < 0)
		return;
	dp_steer_clear(l->dp, (uint32_t)slot);
	l->steers[slot].lease = 0;
	while (l->n_steers && !l->steers[l->n_steers - 1].lease)
		l->n_steers--;
}

void lessor_steers(const struct lessor *l, const struct lease *lease,
		   uint32_t ret_steer[SLUICE_L4_MAX])
{
	for (int i = 0; i < SLUICE_L4_MAX; i++)
		ret_steer[i] = steer_of(l, lease, (enum sluice_l4)i);
}

void lessor_steer_undo(struct lessor *l, const struct lease *lease)
{
	struct lessor_entries e = { 0 };
	struct errtext err;
	bool any = false;

	for (enum sluice_l4 l4 = SLUICE_TCP; l4 <= SLUICE_UDP; l4++) {
		any |= steer_of(l, lease, l4) != 0;
		lessor_steer_rm(l, lease, l4);
	}
	/* If this fails too, lessor_compare() finds it. */
	if (any && !lessor_entries_add(&e, lease, false, NULL))
		dp_lease_rm(l->dp, e.rm, e.n_rm, &err);
	lessor_entries_done(&e);
}

int lessor_steer(struct lessor *l, struct lease *lease, int fd, enum sluice_l4 *ret_l4,
		 struct errtext *err)
{
	uint32_t steer[SLUICE_L4_MAX];
	enum sluice_l4 l4;
	int slot, r = open_check(lease, fd, &l4, err);
	bool made;

	if (r < 0)
		return r;
	slot = steer_find(l, lease->id, l4);
	made = slot < 0;
	if (made)
		slot = steer_free(l);
	if (slot < 0)
		return errtext_set(err, EDQUOT, "this machine can have %d registered sockets",
				   SLUICE_MAX_STEERED);
	r = dp_steer_set(l->dp, (uint32_t)slot, fd, err);
	l->steers[slot] = (struct steer){ r < 0 && made ? 0 : lease->id, l4 };
	if (r < 0)
		return r;
	lessor_steers(l, lease, steer);
	if (made)
		r = lessor_entries_put(l, lease, steer, err);
	if (r < 0) {
		lessor_steer_rm(l, lease, l4);
		return r;
	}
	*ret_l4 = l4;
	return 0;
}

bool lessor_steered(const struct lessor *l, const struct lease *lease)
{
	for (enum sluice_l4 l4 = SLUICE_TCP; l4 <= SLUICE_UDP; l4++) {
		int slot = steer_find(l, lease->id, l4);

		if (slot >= 0 && dp_steer_cookie(l->dp, (uint32_t)slot))
			return true;
	}
	return false;
}

/* ---- differences ---- */

enum differs {
	CLAIM_EXTRA,   /* NAT is kept off a port that nobody has */
	CLAIM_MISSING, /* a leased port that NAT may take */
	ENTRY_EXTRA,   /* the map knows a lease that is none */
	ENTRY_MISSING,
	ENTRY_WRONG,
};

static const char *const differs_names[] = {
	[CLAIM_EXTRA] = "is kept from NAT, and nobody has it",
	[CLAIM_MISSING] = "is leased, and NAT was not kept off it",
	[ENTRY_EXTRA] = "was leased for the data plane, and for nobody else",
	[ENTRY_MISSING] = "is leased, and the data plane did not know",
	[ENTRY_WRONG] = "is another lease's for the data plane",
};

/* One port of one protocol. */
struct differing {
	enum differs how;
	size_t slice; /* of claims */
	uint32_t offset;
	struct sluice_port_key key; /* of entries */
	const struct lease *lease;  /* ENTRY_MISSING, ENTRY_WRONG */
	enum sluice_l4 l4;
};

typedef int differing_fn(struct lessor *l, const struct differing *d, struct errtext *err);

static struct dp_lease entry_of(const struct lessor *l, const struct lease *lease,
				const struct sluice_port_key *key)
{
	return (struct dp_lease){
		.key = *key,
		.lease = { .id = lease->id,
			   .uid = lease->holder.uid,
			   .steer = steer_of(l, lease, key->l4),
			   .kind = (uint8_t)lease->kind },
	};
}

static int repair(struct lessor *l, const struct differing *d, struct errtext *err)
{
	struct dp_lease entry;
	int r;

	switch (d->how) {
	case CLAIM_EXTRA:
		dp_lease_unclaim(l->dp, l->slices[d->slice].row, d->l4, d->offset, 1);
		return 0;
	case CLAIM_MISSING:
		r = dp_lease_claim(l->dp, l->slices[d->slice].row, d->l4, d->offset, 1);
		/* NAT has it. Until its flows end the two share the port, one connection each. */
		return r == -EBUSY ? 0 : r;
	case ENTRY_EXTRA:
		return dp_lease_rm(l->dp, &d->key, 1, err);
	case ENTRY_MISSING:
	case ENTRY_WRONG:
		entry = entry_of(l, d->lease, &d->key);
		return dp_lease_put(l->dp, &entry, 1, err);
	}
	return 0;
}

static uint64_t difference_key(const struct differing *d)
{
	const uint8_t *b = (const uint8_t *)&d->key;
	uint64_t h = 14695981039346656037ULL; /* FNV-1a */
	uint64_t more[] = { d->how, d->l4, d->slice, d->offset };

	for (size_t i = 0; i < sizeof(d->key); i++)
		h = (h ^ b[i]) * 1099511628211ULL;
	for (size_t i = 0; i < sizeof(more); i++)
		h = (h ^ ((const uint8_t *)more)[i]) * 1099511628211ULL;
	return h;
}

static void difference_name(const struct lessor *l, const struct differing *d, char *buf,
			    size_t size)
{
	char text[ADDR_STRLEN];
	struct addr a;
	uint32_t port;

	if (d->how <= CLAIM_MISSING) {
		a = l->slices[d->slice].ports.addr;
		port = l->slices[d->slice].ports.first + d->offset;
	} else {
		memcpy(a.b, d->key.addr.b, sizeof(a.b));
		port = __builtin_bswap16(d->key.port);
	}
	snprintf(buf, size, "%s port %u of %s", d->l4 == SLUICE_TCP ? "tcp" : "udp", port,
		 addr_format(&a, text));
}

/* Count a difference, and repair it when it was there three times in a row. */
static int difference_note(struct lessor *l, const struct differing *d, struct errtext *err)
{
	uint64_t key = difference_key(d);
	struct difference *known = NULL;
	char name[96];
	int r;

	for (size_t i = 0; i < l->n_differences && !known; i++)
		if (l->differences[i].key == key)
			known = &l->differences[i];
	if (!known) {
		if (l->n_differences == DIFFERENCES_MAX)
			return 0; /* first those */
		known = &l->differences[l->n_differences++];
		*known = (struct difference){ .key = key };
	}
	known->now = true;
	if (++known->seen < REPAIR_AFTER)
		return 0;
	r = repair(l, d, err);
	if (r < 0)
		return r;
	known->seen = 0;
	l->stats.repaired++;
	difference_name(l, d, name, sizeof(name));
	lessor_say(l, LOG_WARNING, "repaired", "%s %s: put right", name, differs_names[d->how]);
	return 0;
}

static int repair_at_once(struct lessor *l, const struct differing *d, struct errtext *err)
{
	return repair(l, d, err);
}

/* ---- claims ---- */

static size_t words_of(const struct lessor_slice *s)
{
	return ((size_t)s->ports.last - s->ports.first + 1) / SLUICE_BLOCK_PORTS;
}

static void words_set(uint64_t *words, uint32_t offset, uint32_t n)
{
	for (uint32_t i = offset; i < offset + n; i++)
		words[i / SLUICE_BLOCK_PORTS] |= 1ULL << i % SLUICE_BLOCK_PORTS;
}

void lessor_foreign_add(struct lessor *l, size_t slice, enum sluice_l4 l4, uint16_t port)
{
	const struct lessor_slice *s = &l->slices[slice];

	words_set(l->foreign + s->foreign + l4 * words_of(s), (uint32_t)port - s->ports.first, 1);
}

/* Which ports the table has, laid out as lessor.foreign is. For free(). */
static uint64_t *claims_wanted(const struct lessor *l)
{
	uint64_t *want = calloc(l->n_foreign ?: 1, sizeof(*want));
	const struct lease *lease = NULL;

	while (want && (lease = lease_next(l->table, lease ? lease->id : 0))) {
		int i = lessor_slice_of(l, &lease->ports);

		for (enum sluice_l4 l4 = SLUICE_TCP; i >= 0 && l4 <= SLUICE_UDP; l4++)
			if (lease->protos & 1U << l4)
				words_set(want + l->slices[i].foreign +
						  l4 * words_of(&l->slices[i]),
					  (uint32_t)lease->ports.first - l->slices[i].ports.first,
					  (uint32_t)lease->ports.last - lease->ports.first + 1);
	}
	return want;
}

static int word_compare(struct lessor *l, struct differing *d, uint32_t offset, uint64_t want,
			uint64_t have, differing_fn *fn, struct errtext *err)
{
	for (uint64_t bits = want ^ have; bits; bits &= bits - 1) {
		uint32_t bit = (uint32_t)__builtin_ctzll(bits);
		int r;

		d->how = want >> bit & 1 ? CLAIM_MISSING : CLAIM_EXTRA;
		d->offset = offset + bit;
		r = fn(l, d, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int claims_compare(struct lessor *l, differing_fn *fn, struct errtext *err)
{
	uint64_t *want = claims_wanted(l);
	int r = want ? 0 : errtext_set(err, ENOMEM, "out of memory");

	for (size_t i = 0; i < l->n_slices && !r; i++) {
		const struct lessor_slice *s = &l->slices[i];

		for (enum sluice_l4 l4 = SLUICE_TCP; l4 <= SLUICE_UDP && !r; l4++) {
			struct differing d = { .slice = i, .l4 = l4 };
			const uint64_t *words = want + s->foreign + l4 * words_of(s);

			for (uint32_t w = 0; w < words_of(s) && !r; w++) {
				uint32_t offset = w * SLUICE_BLOCK_PORTS;

				r = word_compare(l, &d, offset, words[w],
						 dp_lease_claimed(l->dp, s->row, l4, offset), fn,
						 err);
			}
		}
	}
	free(want);
	return r;
}

/* ---- entries ---- */

static int entry_cmp(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct sluice_port_key));
}

/* The lease that an entry should be of; NULL: it should not be there. */
static const struct lease *entry_lease(const struct lessor *l, const struct sluice_port_key *k)
{
	const struct lease *lease;
	struct addr a;

	memcpy(a.b, k->addr.b, sizeof(a.b));
	if (k->l4 > SLUICE_UDP)
		return NULL;
	lease = lease_at(l->table, &a, __builtin_bswap16(k->port), (enum sluice_l4)k->l4);
	return lease && lease->state == LEASE_ACTIVE ? lease : NULL;
}

/* Entries that the map lacks. have is sorted. */
static int entries_missing(struct lessor *l, const struct dp_lease *have, size_t n,
			   differing_fn *fn, struct errtext *err)
{
	const struct lease *lease = NULL;
	int r = 0;

	while (!r && (lease = lease_next(l->table, lease ? lease->id : 0))) {
		if (lease->state != LEASE_ACTIVE)
			continue;
		for (enum sluice_l4 l4 = SLUICE_TCP; l4 <= SLUICE_UDP && !r; l4++) {
			struct differing d = { .how = ENTRY_MISSING, .l4 = l4, .lease = lease };

			d.key.l4 = (uint8_t)l4;
			memcpy(d.key.addr.b, lease->ports.addr.b, sizeof(d.key.addr.b));
			for (uint32_t port = lease->ports.first;
			     lease->protos & 1U << l4 && port <= lease->ports.last && !r; port++) {
				d.key.port = __builtin_bswap16((uint16_t)port);
				if (!bsearch(&d.key, have, n, sizeof(*have), entry_cmp))
					r = fn(l, &d, err);
			}
		}
	}
	return r;
}

static int entries_compare(struct lessor *l, differing_fn *fn, struct errtext *err)
{
	struct dp_lease *have = NULL;
	size_t n = 0, good = 0;
	int r = dp_lease_read(l->dp, &have, &n, err);

	for (size_t i = 0; i < n && !r; i++) {
		struct differing d = { .key = have[i].key, .l4 = (enum sluice_l4)have[i].key.l4 };
		struct dp_lease want;

		d.lease = entry_lease(l, &have[i].key);
		if (d.lease)
			want = entry_of(l, d.lease, &have[i].key);
		if (d.lease && !memcmp(&want.lease, &have[i].lease, sizeof(want.lease))) {
			good++;
			continue;
		}
		d.how = d.lease ? ENTRY_WRONG : ENTRY_EXTRA;
		r = fn(l, &d, err);
	}
	/* As many as there are ports under lease: then none is missing. */
	if (!r && good < l->leased_ports)
		r = entries_missing(l, have, n, fn, err);
	free(have);
	return r;
}

/* Slots of "steered" that an earlier daemon filled. */
static int steers_adopt(struct lessor *l, struct errtext *err)
{
	struct dp_lease *have = NULL;
	size_t n = 0;
	int r = dp_lease_read(l->dp, &have, &n, err);

	memset(l->steers, 0, sizeof(l->steers));
	l->n_steers = 0;
	for (size_t i = 0; i < n && !r; i++) {
		const struct lease *lease = entry_lease(l, &have[i].key);
		uint32_t steer = have[i].lease.steer;

		if (!lease || lease->id != have[i].lease.id || !steer || steer > SLUICE_MAX_STEERED)
			continue;
		l->steers[steer - 1] = (struct steer){ lease->id, (enum sluice_l4)have[i].key.l4 };
		if (steer > l->n_steers)
			l->n_steers = steer;
	}
	free(have);
	return r;
}

int lessor_sync(struct lessor *l, struct errtext *err)
{
	int r = l->n_steers ? 0 : steers_adopt(l, err);

	if (!r)
		r = claims_compare(l, repair_at_once, err);
	if (!r)
		r = entries_compare(l, repair_at_once, err);
	l->n_differences = 0;
	return r;
}

void lessor_compare(struct lessor *l, uint64_t now_ns)
{
	struct errtext err;
	size_t kept = 0;

	for (size_t i = 0; i < l->n_differences; i++)
		l->differences[i].now = false;
	if (claims_compare(l, difference_note, &err) < 0 ||
	    entries_compare(l, difference_note, &err) < 0)
		lessor_say(l, LOG_ERR, "lease", "comparing leases with the data plane: %s", err.s);
	for (size_t i = 0; i < l->n_differences; i++)
		if (l->differences[i].now && l->differences[i].seen)
			l->differences[kept++] = l->differences[i];
	l->n_differences = kept;
	l->compared_ns = now_ns;
	l->compare_took_ns = clock_boot_ns() - now_ns;
}
