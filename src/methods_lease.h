/* SPDX-License-Identifier: BSD-2-Clause */
/* The methods about leases and sockets: the lessor and the store, as JSON. */
#ifndef METHODS_LEASE_H
#define METHODS_LEASE_H

#include "control.h"
#include "lease.h"
#include "lessor.h"

int methods_acquire(struct control_call *call, void *data);
int methods_renew(struct control_call *call, void *data);
int methods_release(struct control_call *call, void *data);
int methods_open(struct control_call *call, void *data);
int methods_register(struct control_call *call, void *data);
int methods_exec(struct control_call *call, void *data);
int methods_list_leases(struct control_call *call, void *data);
int methods_list_sockets(struct control_call *call, void *data);
int methods_who(struct control_call *call, void *data);

/* A lease or a holder as the interface has it. A new reference, NULL without memory. */
json_t *methods_lease_json(const struct lessor *l, const struct lease *lease);
json_t *methods_holder_json(const struct lease_holder *h);
/* The event of a change, for monitor. */
json_t *methods_lease_event(const struct lessor *l, enum lease_verb verb,
			    const struct lease *lease);

#endif
