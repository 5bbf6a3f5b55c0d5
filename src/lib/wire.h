/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libsluice's connection to the daemon: one call at a time, with a deadline, and descriptors that go along. It knows nothing of threads: the handle sees
 * to it that one at a time uses it.
 */
#ifndef LIB_WIRE_H
#define LIB_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "errtext.h"
#include "varlink.h"

#define WIRE_REPLY_MAX (1024 * 1024) /* bytes of an answer that we read */
#define WIRE_NEVER     UINT64_MAX

struct wire {
	int fd; /* -1: not connected */
	struct varlink_reader in;
	uint64_t used_ns; /* when the last answer came */
};

/* How long to wait, and for what else. */
struct wire_patience {
	uint64_t deadline_ns; /* CLOCK_MONOTONIC; WIRE_NEVER */
	int wake_fd; /* when it gets readable, whatever goes on ends with -ECANCELED; -1: none */
};

/* CLOCK_MONOTONIC. */
uint64_t wire_now_ns(void);

void wire_init(struct wire *w);
/* 0; -ETIMEDOUT, -EACCES, -ENOENT, -ECONNREFUSED, -ENAMETOOLONG, ... with a text. */
int wire_connect(struct wire *w, const char *path, const struct wire_patience *p,
		 struct errtext *err);
/* Not connected any more; can be connected again. */
void wire_close(struct wire *w);
/* Has the daemon hung up, or sent what nobody asked for? Then the connection is of no more use. */
bool wire_stale(const struct wire *w);

/*
 * Send a message of len bytes (with fd, -1: none), and read the answer. *ret_fd: the descriptor that came with it, the caller's; -1: none. Failures: -ECONNRESET: the daemon
 * hung up; *ret_unread then tells whether it is certain that it has not read the message to its end, so has not carried it out. -ETIMEDOUT, -EPROTO, -ECANCELED, -ENOMEM or
 * what the system said; the connection is of no more use.
 */
int wire_call(struct wire *w, const char *path, const char *text, size_t len, int fd,
	      const struct wire_patience *p, struct varlink_reply *ret, int *ret_fd,
	      bool *ret_unread, struct errtext *err);

#endif
