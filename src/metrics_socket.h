/* SPDX-License-Identifier: BSD-2-Clause */
/* Where metrics are asked for: a listening socket of TCP, or a Unix one with its file. */
#ifndef METRICS_SOCKET_H
#define METRICS_SOCKET_H

#include "config.h"
#include "control_socket.h"
#include "errtext.h"

struct metrics_socket {
	int fd;
	struct control_socket file; /* of a Unix socket; .fd is the same then, else -1 */
};

/*
 * Listen, non-blocking. A Unix socket's file is 0660 with the group, 0600 without one. beside: a listening socket of ours that is to be closed in favour of this one, whose address may
 * overlap with it; -1: none. 0; -EADDRINUSE, -EADDRNOTAVAIL, -EACCES (a port below 1024), and those of control_socket_open(); err is filled.
 */
int metrics_socket_open(const struct config_metrics *where, const char *group, int beside,
			struct metrics_socket *ret, struct errtext *err);
/* Is it still found under its name? Somebody may have removed the file of a Unix socket. */
bool metrics_socket_there(const struct metrics_socket *s);
void metrics_socket_close(struct metrics_socket *s);

/* Can other machines reach it? */
bool metrics_socket_public(const struct config_metrics *where);

#endif
