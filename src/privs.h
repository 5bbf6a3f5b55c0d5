/* SPDX-License-Identifier: BSD-2-Clause */
/* What the daemon may do and have, for the time when it listens to others. */
#ifndef PRIVS_H
#define PRIVS_H

#include <stdbool.h>

/*
 * Keep what is needed from here on and drop the rest for ever: CAP_BPF and CAP_PERFMON to load programs and run the sweep, CAP_NET_ADMIN to attach them, for routes and settings, to
 * abort a socket and to delete conntrack's entries, CAP_NET_RAW to answer clients, CAP_CHOWN for the control socket's group and for sockets that are made for others. watch_only: no
 * CAP_NET_RAW. Namespaces are entered before (watch_open()). 0 or -EPERM.
 */
int privs_drop(bool watch_only);

/*
 * A descriptor for each client, for each process that holds a lease, and for what clients send along: the usual 1024 are few. At the limit the kernel would drop descriptors that
 * clients send inside our recvmsg(), and closing them there can block.
 */
void privs_files(void);

#endif
