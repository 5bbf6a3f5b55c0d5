/* SPDX-License-Identifier: BSD-2-Clause */
/* What the kernel says about a process: who it is, and when it ends. */
#ifndef PROCESS_H
#define PROCESS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lease.h"

/*
 * Fill a holder from /proc/PID: uid (the real one; callers that have SO_PEERCRED overwrite it), start time, comm, path in cgroup2. 0; -ESRCH
 * when there is no such process; -errno. comm and path are made printable ASCII, since programs choose them.
 */
int process_describe(pid_t pid, struct lease_holder *ret);

/*
 * A pidfd (pollable: readable when the process has ended) of the very process that a holder describes. Returns the descriptor; -ESRCH when it has
 * ended, or the pid is another process's by now (other start time); -errno.
 */
int process_watch(const struct lease_holder *h);

#endif
