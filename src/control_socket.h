/* SPDX-License-Identifier: BSD-2-Clause */
/* The listening Unix socket and its file: who may connect, and how an old file is replaced. */
#ifndef CONTROL_SOCKET_H
#define CONTROL_SOCKET_H

#include <stdbool.h>
#include <sys/types.h>

#include "errtext.h"

struct control_socket {
	int fd;
	char *path;
	bool open; /* for everybody */
	dev_t dev; /* of the file that we made, so that we never remove another one's */
	ino_t ino;
};

/*
 * Make the file and listen, non-blocking. Errors as control_open(). The file appears under its name
 * only when it has its final mode (0666 when open, else 0660 with a group, else 0600) and is listened on.
 */
int control_socket_open(const char *path, const char *group, bool open, struct control_socket *ret,
			struct errtext *err);
/* Would that go well, as far as can be told without making anything? path NULL: only the group is looked at. */
int control_socket_check(const char *path, const char *group, struct errtext *err);
/* Close and remove the file, if it is still ours. */
void control_socket_close(struct control_socket *s);
/* The gid of a group. 0 or -errno (-EINVAL: there is no such group). */
int control_socket_group(const char *name, gid_t *ret, struct errtext *err);
int control_socket_set_group(const struct control_socket *s, const char *group,
			     struct errtext *err);

#endif
