/* SPDX-License-Identifier: BSD-2-Clause */
/* Who uses the shared addresses in conntrack's table now: for doctor. */
#ifndef NATFLOWS_H
#define NATFLOWS_H

#include <stddef.h>

#include "config.h"
#include "ct.h"
#include "finding.h"

struct natflows {
	size_t flows;           /* translated to a shared address */
	size_t in_slices;       /* those of them that use a port of a slice of this machine */
	size_t rewritten;       /* entries from a shared address whose port was changed */
	struct ct_entry sample; /* a rewritten one */
};

/* Count an entry. Pure. */
void natflows_count(struct natflows *n, const struct config *c, const struct ct_entry *e);
/* Ids: nat.flows, nat.rewritten. */
void natflows_judge(const struct natflows *n, struct findings *out);
/* Read the table of the calling thread's namespace and judge it; what cannot be read is a finding too. */
void natflows_run(const struct config *c, struct findings *out);

#endif
