/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How long transactions take. They are noted by whichever thread has the store, and read by the daemon's own at any time: hence atomics, and no lock that would wait for a disk.
 */
#include "store_private.h"

const uint32_t store_commit_bounds_us[STORE_COMMIT_BOUNDS] = {
	250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000,
};

void store_stats_note(struct store *s, uint64_t took_ns)
{
	size_t i = 0;

	while (i < STORE_COMMIT_BOUNDS && took_ns > store_commit_bounds_us[i] * UINT64_C(1000))
		i++;
	__atomic_fetch_add(&s->stats.commits[i], 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&s->stats.commit_ns, took_ns, __ATOMIC_RELAXED);
}

struct store_stats store_stats(const struct store *s)
{
	struct store_stats st;

	for (size_t i = 0; i <= STORE_COMMIT_BOUNDS; i++)
		st.commits[i] = __atomic_load_n(&s->stats.commits[i], __ATOMIC_RELAXED);
	st.commit_ns = __atomic_load_n(&s->stats.commit_ns, __ATOMIC_RELAXED);
	return st;
}
