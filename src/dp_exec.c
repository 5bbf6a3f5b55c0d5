/* SPDX-License-Identifier: BSD-2-Clause */
/* What the hooks of "sluice exec" go by: which control group has which lease, and which destinations leave by an uplink. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "dp_internal.h"
#include "nat.skel.h"

static_assert(offsetof(struct plan_prefix, value) == sizeof(struct sluice_lpm_key),
	      "key, then value");

/*
 * Tell the programs how many rows there are. Counted anew each time: a daemon may have been killed between the row and the number. Too large is harmless,
 * too small would let a program out of its lease, so it goes up before a row comes, and down after one has gone. It does not get back to 0: translated connections
 * outlive their processes, and the programs look for these where there are rows.
 */
static void count_set(struct dp *dp, uint32_t coming)
{
	int fd = bpf_map__fd(dp->nat->maps.execs);
	uint32_t n = coming;
	uint64_t id;

	for (const void *prev = NULL; n <= SLUICE_MAX_EXECS; prev = &id, n++)
		if (bpf_map_get_next_key(fd, prev, &id))
			break;
	if (n || dp->conf->execs)
		__atomic_store_n(&dp->conf->execs, n ? n : 1, __ATOMIC_RELEASE);
}

int dp_exec_put(struct dp *dp, uint64_t id, const struct sluice_exec *row, struct errtext *err)
{
	int r = 0;

	count_set(dp, 1);
	if (bpf_map_update_elem(bpf_map__fd(dp->nat->maps.execs), &id, row, BPF_ANY)) {
		/* What a hash map says that is full. */
		r = errno == E2BIG
			    ? errtext_set(
				      err, ENOSPC,
				      "%d programs run under \"sluice exec\" already, no more fit",
				      SLUICE_MAX_EXECS)
			    : errtext_set(err, errno, "writing map \"execs\": %s", dp_why(-errno));
	}
	count_set(dp, 0);
	return r;
}

void dp_exec_rm(struct dp *dp, uint64_t id)
{
	(void)bpf_map_delete_elem(bpf_map__fd(dp->nat->maps.execs), &id);
	count_set(dp, 0);
}

int dp_exec_onlink(struct dp *dp, const struct plan_prefix *list, size_t n, struct errtext *err)
{
	struct dp_entries e;
	bool changed = false;
	int r;

	if (n > SLUICE_MAX_PREFIXES)
		return errtext_set(err, ENOSPC,
				   "map \"onlink\": %zu prefixes do not leave by an uplink, %d fit",
				   n, SLUICE_MAX_PREFIXES);
	r = dp_entries_read(dp->nat->maps.onlink, &e, err);
	if (r)
		return r;
	/* First in, then out, so that nothing is missing in between; unless both together do not fit. */
	if (e.n + n > SLUICE_MAX_PREFIXES)
		r = dp_entries_remove(&e, list, n, sizeof(*list), &changed, err);
	if (!r)
		r = dp_entries_put(&e, list, n, sizeof(*list), &changed, err);
	if (!r)
		r = dp_entries_remove(&e, list, n, sizeof(*list), &changed, err);
	dp_entries_done(&e);
	return r;
}
