/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From the configuration and the holds to the rows of the data plane's maps. Pure: no map is
 * touched here; dp_publish() carries a plan out. Flows name the rows that they live in, and outlive
 * the daemon, so the main duty of a plan is to keep numbers that are in use: it is built against
 * its predecessor, which at start is read back from the pinned maps.
 *
 * What keeps its number, and what may take a number that is given up:
 * - A pool keeps its row while its name exists. Another pool never takes that row in the same plan.
 * - An address keeps its base while it stays in its pool with its slice size. A flow is tied to
 *   (row, epoch), so a held slice may take over a row that another one held, or itself before, only
 *   with a higher epoch. Where that would be broken the address gets a new base. New bases avoid rows
 *   that are just given up, if there is room.
 * - A zone keeps its number while a pool that has it keeps its row, and has clients and interfaces.
 * - A slice keeps its blocks while it keeps its row. New ones avoid blocks that are just given up, if
 *   there is room.
 * dp_publish() sweeps away the flows of what was given up, so the next plan may use it for anything.
 */
#ifndef PLAN_H
#define PLAN_H

#include <net/if.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "errtext.h"
#include "hold.h"
#include "sluice_abi.h"

struct plan_addr {
	union sluice_addr addr;
	struct sluice_addr_row row;
};

/* One entry of map "clients" (key: the zone; value: row of the pool) or "no_nat" (value: 1). */
struct plan_prefix {
	struct sluice_lpm_key key;
	uint32_t value;
};

struct plan_zone {
	uint16_t zone; /* 1 and up; 0 is that of all other interfaces */
	char interface[IF_NAMESIZE];
};

struct plan {
	/*
	 * By row. The word held counts in the held array below: first << 32 | number. mapping and
	 * filtering are what is wished; mixed is 0, since only the data plane knows what still
	 * drains.
	 */
	struct sluice_pool pools[SLUICE_MAX_POOLS];
	struct plan_addr *addrs; /* sorted by address */
	size_t n_addrs;
	/*
	 * By row; plan_slice() knows the rows beyond n_rows as well. Every row of every address is
	 * filled; rows that are not held have state NONE, epoch 0 and no blocks.
	 */
	struct sluice_slice *slices;
	uint32_t n_rows;
	uint32_t *held; /* rows that are held, by pool, then by row */
	size_t n_held;
	struct plan_prefix *clients; /* both sorted by key */
	size_t n_clients;
	struct plan_prefix *no_nat;
	size_t n_no_nat;
	struct plan_zone *zones; /* interfaces that clients of a zone of their own come in by */
	size_t n_zones;
};

/*
 * Compute the rows for c and holds. prev: the plan in force, or NULL when there is none. On success
 * *ret is a new plan (plan_free()). Fails, with *ret untouched and err filled, with -ENOSPC when a
 * table is too small, -EINVAL when a hold does not fit the configuration (unknown pool or address,
 * not a slice of the pool's size, held twice), -ENOMEM.
 */
int plan_build(const struct config *c, const struct hold_table *holds, const struct plan *prev,
	       struct plan **ret, struct errtext *err);
void plan_free(struct plan *p);

/*
 * An empty plan with n_rows rows of zeros, for who fills it: slices, addresses (sorted), pools,
 * then plan_index(). NULL without memory.
 */
struct plan *plan_new(uint32_t n_rows);
/* Set held, n_held and the pools' held words from the slices' rows. 0 or -ENOMEM. */
int plan_index(struct plan *p);

/* A row of the slices' table, whether the plan has it or not. */
const struct sluice_slice *plan_slice(const struct plan *p, uint32_t row);
/* Row of the pool with that name, or -ENOENT. */
int plan_pool_row(const struct plan *p, const char *name);
/* Row of the slice that has these ports, held or not, or -ENOENT. */
int plan_slice_row(const struct plan *p, const struct range *r);

static inline uint32_t plan_held_first(const struct sluice_pool *p)
{
	return (uint32_t)(p->held >> 32);
}

static inline uint32_t plan_held_count(const struct sluice_pool *p)
{
	return (uint32_t)p->held;
}

/* Rows in map "blocks" that a slice of that many ports takes. */
static inline uint32_t plan_block_rows(uint32_t nports)
{
	return SLUICE_L4_MAX * (nports / SLUICE_BLOCK_PORTS);
}

int plan_prefix_cmp(const void *a, const void *b);

#endif
