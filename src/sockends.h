/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel's notices of TCP and UDP sockets that are freed (sock_diag's groups SKNLGRP_INET_TCP_DESTROY and so on), of one network namespace. A TCP socket that goes into
 * TIME_WAIT is freed, and the TIME_WAIT is not noticed. They come a moment later than the end.
 */
#ifndef SOCKENDS_H
#define SOCKENDS_H

#include <stdbool.h>
#include <stdint.h>

#include "errtext.h"

struct sockends;

/* Opens a netlink socket in the caller's network namespace; it stays there. */
int sockends_open(struct sockends **ret, struct errtext *err);
void sockends_close(struct sockends *e);
int sockends_fd(const struct sockends *e);
/* Each notice is work for the kernel, so at first they are off. What came before they were switched off may still be read. 0 or -errno. */
int sockends_listen(struct sockends *e, bool on);
/*
 * Call fn with the cookie of each that is there, at most max; never waits. Returns how many were read; -ENOBUFS: some were lost, go on reading; -errno.
 */
int sockends_read(struct sockends *e, unsigned max, void (*fn)(void *arg, uint64_t cookie),
		  void *arg);

#endif
