/* SPDX-License-Identifier: BSD-2-Clause */
/* Ports: in which slice they lie, claims on them, their entries in map "leases". */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "lessor_private.h"

/* ---- slices ---- */

int lessor_slice_of(const struct lessor *l, const struct range *r)
{
	size_t lo = 0, hi = l->n_slices;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		const struct range *s = &l->slices[mid].ports;
		int c = addr_cmp(&s->addr, &r->addr);

		if (c < 0 || (c == 0 && s->last < r->first))
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo < l->n_slices && !addr_cmp(&l->slices[lo].ports.addr, &r->addr) &&
	    l->slices[lo].ports.first <= r->first && r->last <= l->slices[lo].ports.last)
		return (int)lo;
	return -1;
}

static uint32_t slice_blocks(const struct lessor_slice *s)
{
	return ((uint32_t)s->ports.last - s->ports.first + 1) / SLUICE_BLOCK_PORTS;
}

static uint64_t *foreign_word(const struct lessor *l, const struct lessor_slice *s,
			      enum sluice_l4 l4, uint32_t offset)
{
	return &l->foreign[s->foreign + l4 * slice_blocks(s) + offset / SLUICE_BLOCK_PORTS];
}

/* A live slice is one whose deadline has not passed: asked only where slices have deadlines. */
int lessor_slices_tell(struct lessor *l, const struct hold_table *holds, struct errtext *err)
{
	struct lease_slice *list = calloc(holds->n ?: 1, sizeof(*list));
	uint64_t now_ns = clock_boot_ns();
	int r;

	if (!list)
		return errtext_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < holds->n; i++) {
		list[i].ports = holds->rows[i].ports;
		list[i].live = hold_live(&holds->rows[i], now_ns);
		snprintf(list[i].pool, sizeof(list[i].pool), "%s", holds->rows[i].pool);
	}
	r = lease_slices_set(l->table, list, holds->n);
	free(list);
	return r < 0 ? errtext_set(err, -r, "out of memory") : 0;
}

int lessor_slices_set(struct lessor *l, const struct hold_table *holds, const struct plan *plan,
		      struct errtext *err)
{
	struct lessor_slice *list = calloc(holds->n ?: 1, sizeof(*list));
	uint64_t *foreign = NULL;
	size_t words = 0;
	int row, r;

	if (!list)
		return errtext_set(err, ENOMEM, "out of memory");
	l->deadlines = false;
	for (size_t i = 0; i < holds->n; i++) {
		row = plan_slice_row(plan, &holds->rows[i].ports);
		assert(row >= 0); /* the plan was built from these holds */
		list[i] = (struct lessor_slice){
			.ports = holds->rows[i].ports,
			.row = (uint32_t)row,
			.live = hold_live(&holds->rows[i], clock_boot_ns()),
			.foreign = words,
		};
		words += (size_t)slice_blocks(&list[i]) * 2;
		if (holds->rows[i].not_after_ns != SLUICE_NEVER)
			l->deadlines = true;
	}
	foreign = calloc(words ?: 1, sizeof(*foreign));
	r = foreign ? lessor_slices_tell(l, holds, err) : errtext_set(err, ENOMEM, "out of memory");
	if (r < 0) {
		free(list);
		free(foreign);
		return r;
	}
	free(l->slices);
	free(l->foreign);
	l->slices = list;
	l->n_slices = holds->n;
	l->foreign = foreign;
	l->n_foreign = words;
	return 0;
}

/* ---- claims ---- */

void lessor_unclaim(struct lessor *l, const struct range *r, uint8_t protos)
{
	int i = lessor_slice_of(l, r);

	if (i < 0)
		return; /* the slice went, and its claims with it */
	for (enum sluice_l4 l4 = SLUICE_TCP; l4 <= SLUICE_UDP; l4++)
		if (protos & 1U << l4)
			dp_lease_unclaim(l->dp, l->slices[i].row, l4,
					 (uint32_t)r->first - l->slices[i].ports.first,
					 (uint32_t)r->last - r->first + 1);
}

int lessor_claim(struct lessor *l, const struct range *r, uint8_t protos)
{
	int ret, i = lessor_slice_of(l, r);

	if (i < 0)
		return -ENOENT;
	for (enum sluice_l4 l4 = SLUICE_TCP; l4 <= SLUICE_UDP; l4++) {
		if (!(protos & 1U << l4))
			continue;
		ret = dp_lease_claim(l->dp, l->slices[i].row, l4,
				     (uint32_t)r->first - l->slices[i].ports.first,
				     (uint32_t)r->last - r->first + 1);
		if (ret < 0) {
			lessor_unclaim(l, r, protos & ((1U << l4) - 1));
			return ret;
		}
	}
	return 0;
}

/* What NAT has, and what sockets have that asked nobody. */
uint64_t lessor_busy(void *arg, size_t slice, enum sluice_l4 l4, uint16_t first)
{
	const struct lessor *l = arg;
	const struct lessor_slice *s = &l->slices[slice];
	uint32_t offset = (uint32_t)first - s->ports.first;

	return dp_lease_busy(l->dp, s->row, l4, offset) | *foreign_word(l, s, l4, offset);
}

/* ---- entries ---- */

void lessor_entries_done(struct lessor_entries *e)
{
	free(e->put);
	free(e->rm);
}

static int entries_reserve(struct lessor_entries *e, size_t n)
{
	size_t need = (e->n_put > e->n_rm ? e->n_put : e->n_rm) + n;
	size_t cap = e->cap ?: 256;
	void *more;

	while (cap < need)
		cap *= 2;
	if (cap == e->cap)
		return 0;
	more = reallocarray(e->put, cap, sizeof(*e->put));
	if (!more)
		return -ENOMEM;
	e->put = more;
	more = reallocarray(e->rm, cap, sizeof(*e->rm));
	if (!more)
		return -ENOMEM;
	e->rm = more;
	e->cap = cap;
	return 0;
}

static struct sluice_port_key port_key(const struct lease *lease, uint32_t port, enum sluice_l4 l4)
{
	struct sluice_port_key k = {
		.port = __builtin_bswap16((uint16_t)port),
		.l4 = (uint8_t)l4,
	};

	memcpy(k.addr.b, lease->ports.addr.b, sizeof(k.addr.b));
	return k;
}

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "port_key() swaps");

int lessor_entries_add(struct lessor_entries *e, const struct lease *lease, bool put,
		       const uint32_t steer[SLUICE_L4_MAX])
{
	int r = entries_reserve(e, 2 * ((size_t)lease->ports.last - lease->ports.first + 1));

	if (r < 0)
		return r;
	for (enum sluice_l4 l4 = SLUICE_TCP; l4 <= SLUICE_UDP; l4++) {
		if (!(lease->protos & 1U << l4))
			continue;
		for (uint32_t port = lease->ports.first; port <= lease->ports.last; port++) {
			struct sluice_port_key k = port_key(lease, port, l4);

			if (put)
				e->put[e->n_put++] = (struct dp_lease){
					.key = k,
					.lease = { .id = lease->id,
						   .uid = lease->holder.uid,
						   .steer = steer ? steer[l4] : 0,
						   .kind = (uint8_t)lease->kind },
				};
			else
				e->rm[e->n_rm++] = k;
		}
	}
	return 0;
}

int lessor_entries_put(struct lessor *l, const struct lease *lease,
		       const uint32_t steer[SLUICE_L4_MAX], struct errtext *err)
{
	struct lessor_entries e = { 0 };
	int r = lessor_entries_add(&e, lease, true, steer);

	if (r < 0)
		errtext_set(err, -r, "out of memory");
	else
		r = dp_lease_put(l->dp, e.put, e.n_put, err);
	lessor_entries_done(&e);
	return r;
}
