/* SPDX-License-Identifier: BSD-2-Clause */
/* Who is at the other end of a connection, and how many of them there may be. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control.h"
#include "control_priv.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* kernel 6.5 */
#endif

#define GROUPS_USUAL 64

/* Is gid one of the supplementary groups that the peer had at connect()? */
static bool peer_in_group(int fd, gid_t gid)
{
	gid_t usual[GROUPS_USUAL], *groups = usual, *many = NULL;
	socklen_t len = sizeof(usual);
	bool found = false;
	int r;

	r = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len);
	/* The kernel has said how much room it takes. */
	if (r < 0 && errno == ERANGE) {
		groups = many = malloc(len);
		if (!many)
			return false;
		r = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len);
	}
	for (size_t i = 0; r == 0 && !found && i < len / sizeof(*groups); i++)
		found = groups[i] == gid;
	free(many);
	return found;
}

bool control_peer_trusted(const struct control *s, int fd, uid_t uid, gid_t gid)
{
	if (uid == 0 || uid == geteuid())
		return true;
	return s->group && (gid == s->gid || peer_in_group(fd, s->gid));
}

static unsigned count_uid(const struct control *s, uid_t uid)
{
	const struct control_client *c;
	unsigned n = 0;

	TAILQ_FOREACH(c, &s->clients, link)
	{
		if (c->cred.uid == uid)
			n++;
	}
	return n;
}

bool control_peer_admit(const struct control *s, uid_t uid, bool trusted, char *why, size_t size)
{
	const struct control_limits *l = &s->limits;
	unsigned max = uid == 0 ? l->clients + l->clients_root : l->clients;

	if (s->n_clients >= max) {
		snprintf(why, size, "%u clients are connected already, which is the limit", max);
		return false;
	}
	if (!trusted && s->n_untrusted >= l->clients_others) {
		snprintf(why, size,
			 "%u clients are connected already that are neither root nor in %s, which "
			 "is the limit for them",
			 s->n_untrusted, s->group ? s->group : "a group that may do more");
		return false;
	}
	if (uid != 0 && count_uid(s, uid) >= l->clients_uid) {
		snprintf(why, size, "uid %u has %u connections already, which is the limit",
			 (unsigned)uid, l->clients_uid);
		return false;
	}
	return true;
}

void control_peer_refuse(struct control *s, int fd, const char *why)
{
	json_t *params = json_pack("{s:s}", "text", why);
	char *text;
	size_t len;

	s->stats.refused++;
	if (params && varlink_reply_encode(CONTROL_QUOTA, params, false, &text, &len) == 0) {
		(void)!send(fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		free(text);
	}
	json_decref(params);
	control_fd_hang_up(fd);
}

uid_t control_call_uid(const struct control_call *call)
{
	return call->client->cred.uid;
}

gid_t control_call_gid(const struct control_call *call)
{
	return call->client->cred.gid;
}

pid_t control_call_pid(const struct control_call *call)
{
	return call->client->cred.pid;
}

bool control_call_trusted(const struct control_call *call)
{
	return call->client->trusted;
}

int control_call_pidfd(const struct control_call *call)
{
	const struct control_client *c = call->client;
	socklen_t len = sizeof(int);
	int fd;

	if (getsockopt(c->fd, SOL_SOCKET, SO_PEERPIDFD, &fd, &len) == 0)
		return fd;
	if (errno != ENOPROTOOPT)
		return errno == EINVAL ? -ESRCH : -errno;
	/*
	 * Before kernel 6.5. The process that connected may have ended since, and its pid be another one's by now. Whoever acts on
	 * the answer must bear that; what the process may do is decided by its uid, which is that of connect() in any case.
	 */
	fd = (int)syscall(SYS_pidfd_open, c->cred.pid, 0);
	return fd < 0 ? -errno : fd;
}
