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

HASH(zones, BPF_MAP_TYPE_HASH, __u32, __u16, SLUICE_MAX_ZONES, 0);
/* Interfaces with our programs whose packets have no link-layer header, by ifindex. */
HASH(l3_links, BPF_MAP_TYPE_HASH, __u32, __u32, SLUICE_MAX_ZONES, 0);
/* The interfaces of a zone: zone << 8 | number, from 0 on -> ifindex. */
HASH(zone_ways, BPF_MAP_TYPE_HASH, __u32, __u32, SLUICE_MAX_ZONES, 0);

/* What the programs fill. The flow tables get their size when they are created. */
HASH(fwd, BPF_MAP_TYPE_HASH, struct sluice_flow_key, struct sluice_flow, 1024, 0);
HASH(rev, BPF_MAP_TYPE_HASH, struct sluice_flow_key, struct sluice_flow, 1024, 0);
HASH(full, BPF_MAP_TYPE_LRU_HASH, struct sluice_full_key, struct sluice_full, 16384, 0);
/* Sockets without a lease, by cookie: when they were last reported, whole seconds. */
HASH(reported, BPF_MAP_TYPE_LRU_HASH, __u64, __u32, 16384, 0);
/* Its size is set as the flow tables' is. Memory is had beforehand: what asks for it packet by packet is outrun by a flood. */
HASH(client_state, BPF_MAP_TYPE_HASH, struct sluice_client_key, struct sluice_client, 1024, 0);
HASH(frags, BPF_MAP_TYPE_HASH, struct sluice_frag_key, struct sluice_frag, SLUICE_MAX_FRAGS, 0);
HASH(frag_hold, BPF_MAP_TYPE_HASH, struct sluice_frag_hold_key, struct sluice_frag_held,
     SLUICE_MAX_HELD, 0);
ROWS(idents, struct sluice_ident, SLUICE_IDS, 0);
HASH(hot, BPF_MAP_TYPE_LRU_HASH, struct sluice_full_key, struct sluice_hot, SLUICE_MAX_HOT, 0);
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
