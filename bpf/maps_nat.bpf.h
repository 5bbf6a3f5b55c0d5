/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The maps of nat.bpf.c alone. All are pinned; layouts and meanings are in sluice_abi.h. */
#ifndef MAPS_NAT_BPF_H
#define MAPS_NAT_BPF_H

#include "maps.bpf.h"

/* What user space fills. */
ROWS(held, __u32, 2 * SLUICE_MAX_SLICES, BPF_F_MMAPABLE);
ROWS(blocks, struct sluice_block, SLUICE_MAX_BLOCKS, BPF_F_MMAPABLE);
HASH(clients, BPF_MAP_TYPE_LPM_TRIE, struct sluice_lpm_key, __u32, SLUICE_MAX_PREFIXES,
     BPF_F_NO_PREALLOC);

/* What the programs fill. The flow tables get their size when they are created. */
HASH(fwd, BPF_MAP_TYPE_HASH, struct sluice_flow_key, struct sluice_flow, 1024, 0);
HASH(rev, BPF_MAP_TYPE_HASH, struct sluice_flow_key, struct sluice_flow, 1024, 0);
HASH(full, BPF_MAP_TYPE_LRU_HASH, struct sluice_full_key, struct sluice_full, 16384, 0);
/* Sockets without a lease, by cookie: when they were last reported, whole seconds. */
HASH(reported, BPF_MAP_TYPE_LRU_HASH, __u64, __u32, 16384, 0);
ROWS(port_flows, struct sluice_port_flows, SLUICE_MAX_BLOCKS / 3 * 2, BPF_F_MMAPABLE);
ROWS(released, __u32, SLUICE_MAX_SLICES, BPF_F_MMAPABLE);
ROWS(use_bits, __u64, SLUICE_MAX_BLOCKS, BPF_F_MMAPABLE);
ROWS(sweep_out, struct sluice_sweep, 1, BPF_F_MMAPABLE);
CPU_ROWS(drops, struct sluice_count, SLUICE_REASON_MAX);
CPU_ROWS(pool_stats, struct sluice_pool_stats, SLUICE_MAX_POOLS);
CPU_ROWS(event_stats, struct sluice_event_stats, SLUICE_EVENT_ROWS);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

#endif
