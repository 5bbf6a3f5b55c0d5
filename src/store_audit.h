/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The leases as they are in the file, for a running daemon that compares them with its table (audit.h), and their repair. As everywhere in the
 * store: not while another of its calls is under way.
 */
#ifndef STORE_AUDIT_H
#define STORE_AUDIT_H

#include "store.h"

/* A number that stays the same as long as nobody but this process commits to the file. 0 or -errno. */
int store_version(struct store *s, int64_t *ret, struct errtext *err);

/* A row of an active lease. */
struct store_row {
	uint64_t id;
	bool good;          /* else: it is no lease, or there is a record of its end as well */
	struct lease lease; /* of a good one */
};

/* The rows with ids above `after`, rising, at most max: into ret. Fewer: there are no more. 0 or -errno. */
int store_lease_page(struct store *s, uint64_t after, size_t max, struct store_row *ret,
		     size_t *ret_n, struct errtext *err);

/* What should be in the file. */
struct store_repair {
	uint64_t id;
	/*
	 * ACTIVE: the row is written as it says, and a record of its end goes. COOLING: the row goes, and there is a record of its end, unless the store
	 * has not given out the id. NULL: the row goes.
	 */
	const struct lease *lease;
};

/* All of them in one transaction, which is durable when this returns 0; the errors are those of store_commit(). */
int store_lease_repair(struct store *s, const struct store_repair *list, size_t n,
		       struct errtext *err);

#endif
