/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Netfilter's source NAT rules of a network namespace, as far as they matter to sluice: which sources they translate, to which addresses and ports. Read by libnftables as JSON
 * (libnftables-json(5)); what is read, and what is judged of it, are pure functions.
 *
 * The reading is generous: a match that is not understood does not narrow a rule. So a rule may be said to catch more than it does, never less.
 */
#ifndef NATRULES_H
#define NATRULES_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "errtext.h"
#include "finding.h"

#define NATRULES_MAX     512 /* more are counted, not kept */
#define NATRULE_LIST_MAX 16  /* sources, interfaces of one rule */

enum natrule_kind {
	NATRULE_SNAT,
	NATRULE_MASQUERADE,
	NATRULE_UNREADABLE, /* an iptables extension that nft does not show */
};

struct natrule {
	enum natrule_kind kind;
	char where[160]; /* "ip nat postrouting handle 6" */
	bool v4, v6;
	bool known; /* the addresses it translates to: first to last */
	struct addr first, last;
	bool ports; /* it translates to ports from to to; else it keeps them where it can, and draws from 1024-65535 */
	uint16_t from, to;
	struct prefix src[NATRULE_LIST_MAX]; /* only these sources; none: all */
	size_t n_src;
	char oif[NATRULE_LIST_MAX][IFNAMSIZ]; /* only out of these ("eth*" too); none: all */
	size_t n_oif;
};

struct natrules {
	struct natrule v[NATRULES_MAX];
	size_t n;
	size_t left_out;
};

/* Parse what `nft -j list ruleset` prints. 0, or -EINVAL, -ENOMEM with err filled. *ret is filled in any case of 0. */
int natrules_parse(const char *json, size_t len, struct natrules *ret, struct errtext *err);

/* Of the calling thread's namespace. -EPERM without CAP_NET_ADMIN; -EOPNOTSUPP: no nf_tables in the kernel. */
int natrules_read(struct natrules *ret, struct errtext *err);

/*
 * What the rules can do to the pools' slices and clients and to sockets that the kernel gives ports of its ephemeral range (net.ipv4.ip_local_port_range; 0 to 0: not known). c may be NULL. Ids:
 * nat.slices, nat.clients, nat.sockets, nat.ephemeral, nat.unreadable.
 */
void natrules_judge(const struct natrules *r, const struct config *c, uint16_t ephemeral_first,
		    uint16_t ephemeral_last, struct findings *out);

#endif
