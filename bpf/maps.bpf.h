/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The maps that several objects use. nat.bpf.c's makes them, the others take them over by name. All are pinned; layouts and meanings are in
 * sluice_abi.h.
 */
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
HASH(no_nat, BPF_MAP_TYPE_LPM_TRIE, struct sluice_lpm_key, __u32, SLUICE_MAX_PREFIXES,
     BPF_F_NO_PREALLOC);
HASH(onlink, BPF_MAP_TYPE_LPM_TRIE, struct sluice_lpm_key, __u32, SLUICE_MAX_PREFIXES,
     BPF_F_NO_PREALLOC);
HASH(uplinks, BPF_MAP_TYPE_HASH, __u32, __u32, SLUICE_MAX_UPLINKS, 0);
HASH(leases, BPF_MAP_TYPE_HASH, struct sluice_port_key, struct sluice_lease, SLUICE_MAX_LEASED,
     BPF_F_NO_PREALLOC);
HASH(execs, BPF_MAP_TYPE_HASH, __u64, struct sluice_exec, SLUICE_MAX_EXECS, BPF_F_NO_PREALLOC);
HASH(steered, BPF_MAP_TYPE_SOCKMAP, __u32, __u64, SLUICE_MAX_STEERED, 0);

/* What the programs fill. */
HASH(owners, BPF_MAP_TYPE_LRU_HASH, __u64, struct sluice_owner, SLUICE_MAX_OWNERS, 0);

/* Keys the hashes that choose where a search for a port begins (RFC 6056); new at every load. */
const volatile __u64 secret[2];

/*
 * What a port is leased for, or NULL. The kernel replaces a row by putting the new one at the head of its chain and unlinking the old one: a look-up
 * that has passed the head and not yet come to the old row sees neither. The daemon writes a lease's rows anew when a socket is registered for it, and a
 * datagram that comes just then must not be lost, so what is not there is looked for again, from the head on.
 */
static __always_inline struct sluice_lease *lease_row(const struct sluice_port_key *k)
{
	struct sluice_lease *l = bpf_map_lookup_elem(&leases, k);

	return l ?: bpf_map_lookup_elem(&leases, k);
}

#endif
