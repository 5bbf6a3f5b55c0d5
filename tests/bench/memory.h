/* SPDX-License-Identifier: BSD-2-Clause */
/* What a flow costs in memory. */
#ifndef BENCH_MEMORY_H
#define BENCH_MEMORY_H

#include <stdint.h>

/*
 * The kernel's object caches (/proc/slabinfo): how many objects each has handed out. Take one before some flows are
 * made and one after: a cache that grew by at least half an object a flow is taken to hold them.
 */
struct slabs;

struct slabs *slabs_read(void); /* NULL where the kernel does not show them */
void slabs_free(struct slabs *s);
/* Bytes that so many new flows took. 0 when none of the caches grew. */
uint64_t slabs_grown(const struct slabs *before, const struct slabs *after, uint32_t flows);

/* The share of conntrack's hash array that each flow has when the table is full. */
double conntrack_array_bytes_per_flow(void);

/*
 * Bytes for each flow of sluice's two flow tables, which are allocated whole when they are made: all that the kernel accounts to
 * them, over how many entries they have. maps: the directory of the pins. Ends the program when they are not there.
 */
double tables_bytes_per_flow(const char *maps);

#endif
