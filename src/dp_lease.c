// SPDX-License-Identifier: BSD-2-Clause
/* Ports that are kept from NAT, what a leased port means, and the sockets that receive for leases. See dp.h. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "dp_internal.h"
#include "nat.skel.h"

/* Claims */

void dp_released_bump(struct dp *dp, uint32_t row)
{
	assert(row < SLUICE_MAX_SLICES);
	__atomic_fetch_add((uint32_t *)&dp->released[row], 1, __ATOMIC_SEQ_CST);
}

static const struct sluice_slice *slice_with(const struct dp *dp, uint32_t row, enum sluice_l4 l4,
					     uint32_t offset, uint32_t n)
{
	const struct sluice_slice *s = dp_slice(dp, row);

	assert(l4 == SLUICE_TCP || l4 == SLUICE_UDP);
	assert(n && n <= dp_slice_ports(s) && offset <= dp_slice_ports(s) - n);
	return s;
}

static struct sluice_block *block_at(const struct dp *dp, const struct sluice_slice *s,
				     enum sluice_l4 l4, uint32_t offset)
{
	return &dp->blocks[sluice_block_row(s->block_base, dp_slice_ports(s), l4, offset)];
}

/* What NAT has of a block. */
static uint64_t block_busy(const struct dp *dp, const struct sluice_slice *s, enum sluice_l4 l4,
			   uint32_t offset)
{
	const struct sluice_port_flows *pf = &dp->port_flows[sluice_port_flows_row(
		s->block_base, dp_slice_ports(s), l4, offset)];
	uint64_t busy = __atomic_load_n(&block_at(dp, s, l4, offset)->bits, __ATOMIC_SEQ_CST);

	for (int i = 0; i < SLUICE_BLOCK_PORTS; i++)
		if (__atomic_load_n(&pf->flows[i], __ATOMIC_SEQ_CST))
			busy |= 1ULL << i;
	return busy;
}

/* The ports of a range that lie in the block of its first one; moves the range on past them. */
static uint64_t mask_next(uint32_t *offset, uint32_t *n)
{
	uint32_t at = *offset % SLUICE_BLOCK_PORTS, len = SLUICE_BLOCK_PORTS - at;

	if (len > *n)
		len = *n;
	*offset += len;
	*n -= len;
	return (len < 64 ? (1ULL << len) - 1 : ~0ULL) << at;
}

uint64_t dp_lease_busy(const struct dp *dp, uint32_t row, enum sluice_l4 l4, uint32_t offset)
{
	assert(offset % SLUICE_BLOCK_PORTS == 0);
	return block_busy(dp, slice_with(dp, row, l4, offset, SLUICE_BLOCK_PORTS), l4, offset);
}

uint64_t dp_lease_claimed(const struct dp *dp, uint32_t row, enum sluice_l4 l4, uint32_t offset)
{
	const struct sluice_slice *s = slice_with(dp, row, l4, offset, SLUICE_BLOCK_PORTS);

	assert(offset % SLUICE_BLOCK_PORTS == 0);
	return __atomic_load_n(&block_at(dp, s, l4, offset)->leased, __ATOMIC_SEQ_CST);
}

/* First the bits, then a look at NAT: see struct sluice_block. */
static bool block_claim(struct dp *dp, const struct sluice_slice *s, enum sluice_l4 l4,
			uint32_t offset, uint64_t mask)
{
	struct sluice_block *b = block_at(dp, s, l4, offset);
	uint64_t was = __atomic_fetch_or(&b->leased, mask, __ATOMIC_SEQ_CST);

	if (!(was & mask) && !(block_busy(dp, s, l4, offset) & mask))
		return true;
	__atomic_fetch_and(&b->leased, ~(mask & ~was), __ATOMIC_SEQ_CST);
	return false;
}

int dp_lease_claim(struct dp *dp, uint32_t row, enum sluice_l4 l4, uint32_t offset, uint32_t n)
{
	const struct sluice_slice *s = slice_with(dp, row, l4, offset, n);
	uint32_t at = offset, left = n;

	while (left) {
		uint32_t block = at / SLUICE_BLOCK_PORTS * SLUICE_BLOCK_PORTS, done = n - left;

		if (block_claim(dp, s, l4, block, mask_next(&at, &left)))
			continue;
		if (done)
			dp_lease_unclaim(dp, row, l4, offset, done);
		else
			/* A search may have passed over the ports meanwhile. */
			dp_released_bump(dp, row);
		return -EBUSY;
	}
	return 0;
}

void dp_lease_unclaim(struct dp *dp, uint32_t row, enum sluice_l4 l4, uint32_t offset, uint32_t n)
{
	const struct sluice_slice *s = slice_with(dp, row, l4, offset, n);

	while (n) {
		struct sluice_block *b = block_at(dp, s, l4, offset);

		__atomic_fetch_and(&b->leased, ~mask_next(&offset, &n), __ATOMIC_SEQ_CST);
	}
	dp_released_bump(dp, row);
}

/* Map "leases" */

/* Entries that one call to the kernel moves. */
#define BATCH 1024

/* Room for a batch: the kernel wants keys and values apart. */
struct batch {
	struct sluice_port_key keys[BATCH];
	struct sluice_lease values[BATCH];
};

static int leases_fail(struct errtext *err, const char *doing, int r)
{
	return errtext_set(err, -r, "%s map \"leases\": %s", doing, dp_why(r));
}

int dp_lease_put(struct dp *dp, const struct dp_lease *list, size_t n, struct errtext *err)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts, .elem_flags = BPF_ANY);
	int fd = bpf_map__fd(dp->nat->maps.leases);
	struct batch batch;

	for (size_t done = 0; done < n;) {
		uint32_t count = n - done < BATCH ? (uint32_t)(n - done) : BATCH;

		for (uint32_t i = 0; i < count; i++) {
			batch.keys[i] = list[done + i].key;
			batch.values[i] = list[done + i].lease;
		}
		done += count;
		if (!bpf_map_update_batch(fd, batch.keys, batch.values, &count, &opts))
			continue;
		if (errno == E2BIG)
			return errtext_set(err, ENOSPC,
					   "map \"leases\" is full: it has room for %u ports",
					   bpf_map__max_entries(dp->nat->maps.leases));
		return leases_fail(err, "writing", -errno);
	}
	return 0;
}

int dp_lease_rm(struct dp *dp, const struct sluice_port_key *list, size_t n, struct errtext *err)
{
	int fd = bpf_map__fd(dp->nat->maps.leases);

	for (size_t done = 0; done < n;) {
		uint32_t count = n - done < BATCH ? (uint32_t)(n - done) : BATCH;

		if (!bpf_map_delete_batch(fd, &list[done], &count, NULL)) {
			done += count;
			continue;
		}
		/* The one at count is not there; those before it are gone now. */
		if (errno != ENOENT)
			return leases_fail(err, "writing", -errno);
		done += count + 1;
	}
	return 0;
}

static int lease_order(const void *a, const void *b)
{
	return memcmp(&((const struct dp_lease *)a)->key, &((const struct dp_lease *)b)->key,
		      sizeof(struct sluice_port_key));
}

int dp_lease_read(struct dp *dp, struct dp_lease **ret, size_t *ret_n, struct errtext *err)
{
	int fd = bpf_map__fd(dp->nat->maps.leases), r = 0;
	struct dp_lease *list = NULL, *grown;
	struct batch batch;
	size_t n = 0, size = 0;
	uint32_t token = 0, count;

	for (bool begun = false; !r; begun = true) {
		count = BATCH;
		r = bpf_map_lookup_batch(fd, begun ? &token : NULL, &token, batch.keys,
					 batch.values, &count, NULL);
		if (r && r != -ENOENT) {
			leases_fail(err, "reading", r);
			goto fail;
		}
		if (n + count > size) {
			size = 2 * size + BATCH;
			grown = reallocarray(list, size, sizeof(*list));
			if (!grown) {
				r = errtext_set(err, ENOMEM, "out of memory");
				goto fail;
			}
			list = grown;
		}
		for (uint32_t i = 0; i < count; i++)
			list[n++] = (struct dp_lease){ batch.keys[i], batch.values[i] };
	}
	if (n)
		qsort(list, n, sizeof(*list), lease_order);
	*ret = list;
	*ret_n = n;
	return 0;
fail:
	free(list);
	return r;
}

/* Steering */

int dp_steer_set(struct dp *dp, uint32_t slot, int fd, struct errtext *err)
{
	uint64_t value = (uint64_t)fd;

	assert(slot < SLUICE_MAX_STEERED && fd >= 0);
	if (bpf_map_update_elem(bpf_map__fd(dp->nat->maps.steered), &slot, &value, BPF_ANY))
		return errtext_set(err, errno, "entering the socket into map \"steered\": %s",
				   dp_why(-errno));
	return 0;
}

void dp_steer_clear(struct dp *dp, uint32_t slot)
{
	assert(slot < SLUICE_MAX_STEERED);
	/* It fails when there is none, which is what is wanted. */
	bpf_map_delete_elem(bpf_map__fd(dp->nat->maps.steered), &slot);
}

uint64_t dp_steer_cookie(const struct dp *dp, uint32_t slot)
{
	uint64_t cookie;

	assert(slot < SLUICE_MAX_STEERED);
	/* Looked up from user space, a socket is its cookie. */
	if (bpf_map_lookup_elem(bpf_map__fd(dp->nat->maps.steered), &slot, &cookie))
		return 0;
	return cookie;
}

bool dp_owner(const struct dp *dp, uint64_t cookie, struct sluice_owner *ret)
{
	struct sluice_owner owner;

	if (bpf_map_lookup_elem(bpf_map__fd(dp->nat->maps.owners), &cookie, &owner))
		return false;
	*ret = owner;
	return true;
}
