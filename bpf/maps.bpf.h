/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Every map of the data plane. All are pinned; layouts and meanings are in sluice_abi.h. */
#ifndef MAPS_BPF_H
#define MAPS_BPF_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "sluice_abi.h"

#define ROWS(_name, _type, _n, _flags)            \
	struct {                                  \
		__uint(type, BPF_MAP_TYPE_ARRAY); \
		__uint(max_entries, _n);          \
		__uint(map_flags, _flags);        \
		__type(key, __u32);               \
		__type(value, _type);             \
	} _name SEC(".maps")

#define CPU_ROWS(_name, _type, _n)                       \
	struct {                                         \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); \
		__uint(max_entries, _n);                 \
		__type(key, __u32);                      \
		__type(value, _type);                    \
	} _name SEC(".maps")

#define HASH(_name, _type, _key, _value, _n, _flags) \
	struct {                                     \
		__uint(type, _type);                 \
		__uint(max_entries, _n);             \
		__uint(map_flags, _flags);           \
		__type(key, _key);                   \
		__type(value, _value);               \
	} _name SEC(".maps")

/* What user space fills. */
ROWS(conf, struct sluice_conf, 1, BPF_F_MMAPABLE);
HASH(addrs, BPF_MAP_TYPE_HASH, union sluice_addr, struct sluice_addr_row, SLUICE_MAX_ADDRS, 0);
ROWS(slices, struct sluice_slice, SLUICE_MAX_SLICES, BPF_F_MMAPABLE);
ROWS(pools, struct sluice_pool, SLUICE_MAX_POOLS, BPF_F_MMAPABLE);
ROWS(held, __u32, 2 * SLUICE_MAX_SLICES, BPF_F_MMAPABLE);
ROWS(blocks, struct sluice_block, SLUICE_MAX_BLOCKS, BPF_F_MMAPABLE);
HASH(clients, BPF_MAP_TYPE_LPM_TRIE, struct sluice_lpm_key, __u32, SLUICE_MAX_PREFIXES,
     BPF_F_NO_PREALLOC);
HASH(no_nat, BPF_MAP_TYPE_LPM_TRIE, struct sluice_lpm_key, __u32, SLUICE_MAX_PREFIXES,
     BPF_F_NO_PREALLOC);

/* What the programs fill. The flow tables get their size when they are created. */
HASH(fwd, BPF_MAP_TYPE_HASH, struct sluice_flow_key, struct sluice_flow, 1024, 0);
HASH(rev, BPF_MAP_TYPE_HASH, struct sluice_flow_key, struct sluice_flow, 1024, 0);
HASH(full, BPF_MAP_TYPE_LRU_HASH, struct sluice_full_key, struct sluice_full, 16384, 0);
ROWS(released, __u32, SLUICE_MAX_SLICES, 0);
ROWS(use_bits, __u64, SLUICE_MAX_BLOCKS, BPF_F_MMAPABLE);
ROWS(sweep_out, struct sluice_sweep, 1, BPF_F_MMAPABLE);
CPU_ROWS(drops, struct sluice_count, SLUICE_REASON_MAX);
CPU_ROWS(pool_stats, struct sluice_pool_stats, SLUICE_MAX_POOLS);
CPU_ROWS(event_stats, struct sluice_event_stats, SLUICE_EVENT_ROWS);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

/* Keys the hashes that choose where a search for a port begins (RFC 6056); new at every load. */
const volatile __u64 secret[2];

#endif
