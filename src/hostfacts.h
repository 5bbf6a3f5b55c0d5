/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading the facts that hostplan.h decides from. */
#ifndef HOSTFACTS_H
#define HOSTFACTS_H

#include "config.h"
#include "errtext.h"
#include "hostplan.h"
#include "netlink.h"

/*
 * Links and routes come from nl, sysctls from the namespace of the calling thread. A sysctl that
 * can't be read, or an uplink that does not exist, is a fact like others. Returns 0
 * (host_facts_done() them) or -errno with a text.
 */
int hostfacts_read(struct netlink *nl, const struct config *c, struct host_facts *ret,
		   struct errtext *err);

#endif
