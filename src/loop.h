/* SPDX-License-Identifier: BSD-2-Clause */
/* What the loops of daemon.c and watchonly.c have in common: signals as a descriptor, the epoll set, where notes go, and what the watcher is to know at a start. */
#ifndef LOOP_H
#define LOOP_H

#include <stdint.h>

#include "collisions.h"
#include "control.h"
#include "watch.h"

/*
 * From here on SIGTERM, SIGINT and SIGHUP come by the descriptor that is returned (readable: call loop_signal()), and SIGPIPE is ignored. Before any thread is made. -errno.
 */
int loop_signals(void);
/* The next signal's number; 0: there is none. */
int loop_signal(int fd);

/* Have epoll_fd tell source when fd is readable. 0 or -errno. */
int loop_add(int epoll_fd, int fd, uint32_t source);

/* Something that a person may want to know (see engine_note_fn): into the log, and to whoever monitors. control may be NULL. */
void loop_note(struct control *control, int priority, const char *event, const char *text);

/* Let the watcher know what the store has, from the newest on as far as it wants: that was told before this start. 0, or -errno with err filled. */
int loop_recall(const struct collisions *c, struct watcher *w, struct errtext *err);

#endif
