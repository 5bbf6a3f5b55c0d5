/* SPDX-License-Identifier: BSD-2-Clause */
#include "privs.h"

#include <cap-ng.h>
#include <errno.h>
#include <sys/resource.h>

#define FILES_MAX 65536

int privs_drop(bool watch_only)
{
	const capng_type_t sets = CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_BOUNDING_SET;

	capng_clear(CAPNG_SELECT_BOTH);
	if (capng_updatev(CAPNG_ADD, sets, CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_CHOWN, -1) <
		    0 ||
	    (!watch_only && capng_update(CAPNG_ADD, sets, CAP_NET_RAW) < 0))
		return -EPERM;
	return capng_apply(CAPNG_SELECT_BOTH) < 0 ? -EPERM : 0;
}

void privs_files(void)
{
	struct rlimit lim = { FILES_MAX, FILES_MAX };

	if (setrlimit(RLIMIT_NOFILE, &lim) == 0 || getrlimit(RLIMIT_NOFILE, &lim) < 0)
		return;
	lim.rlim_cur = lim.rlim_max;
	setrlimit(RLIMIT_NOFILE, &lim);
}
