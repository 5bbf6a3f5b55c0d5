/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A connection tracking entry as the watcher sees it, whoever reported it. Entries carry two tuples: what the first packet looked like when it was made, and what an answer to
 * it looks like on the wire (linux/netfilter/nf_conntrack_tuple_common.h). Ports are in host order.
 */
#ifndef CT_H
#define CT_H

#include <stdbool.h>
#include <stdint.h>

#include "addr.h"
#include "sluice_abi.h"

struct ct_tuple {
	struct addr src;
	struct addr dst;
	uint16_t sport;
	uint16_t dport;
};

struct ct_entry {
	enum sluice_l4 l4;    /* TCP or UDP; nothing else is reported */
	struct ct_tuple orig; /* as it was sent */
	struct ct_tuple
		reply; /* as its answer comes: the wire port is reply.dport, the wire address reply.dst */
	uint32_t status; /* IPS_* of linux/netfilter/nf_conntrack_common.h */
	uint32_t id;     /* the kernel's; 0: not known */
	uint16_t zone;
	bool helper; /* a connection tracking helper has it, or it was expected by one */
};

enum ct_verb {
	CT_NEW,
	CT_GONE,
	CT_FOUND, /* by a dump */
};

/* The same entry? By protocol, zone and both tuples: ids are not known to every source. */
bool ct_same(const struct ct_entry *a, const struct ct_entry *b);
/* For hash tables; keyed, since whoever sends packets chooses tuples. */
uint64_t ct_hash(const struct ct_entry *e, uint64_t key);

#endif
