// SPDX-License-Identifier: BSD-2-Clause
/* See sockends.h; net/core/sock_diag.c, sock_diag_broadcast_destroy(). Notices have a fixed head and nothing else that we want, so libmnl is not needed. */
#include "sockends.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* So many at a time; what lies behind the head is not wanted. */
#define BATCH 32
#define HEAD  128
#define ROOM  (1 << 20)

struct sockends {
	int fd;
	bool on;
};

int sockends_open(struct sockends **ret, struct errtext *err)
{
	struct sockaddr_nl any = { .nl_family = AF_NETLINK };
	struct sockends *e = calloc(1, sizeof(*e));
	int r, room = ROOM;

	if (!e)
		return errtext_set(err, ENOMEM, "out of memory");
	e->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG);
	if (e->fd < 0 || bind(e->fd, (struct sockaddr *)&any, sizeof(any))) {
		r = errtext_set(err, errno, "opening sock_diag: %s", strerror(errno));
		sockends_close(e);
		return r;
	}
	/* Without the right to more than net.core.rmem_max, less has to do: a loss is no harm. */
	if (setsockopt(e->fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)))
		setsockopt(e->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	*ret = e;
	return 0;
}

void sockends_close(struct sockends *e)
{
	if (!e)
		return;
	if (e->fd >= 0)
		close(e->fd);
	free(e);
}

int sockends_fd(const struct sockends *e)
{
	return e->fd;
}

int sockends_listen(struct sockends *e, bool on)
{
	static const int groups[] = { SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET_UDP_DESTROY,
				      SKNLGRP_INET6_TCP_DESTROY, SKNLGRP_INET6_UDP_DESTROY };
	int option = on ? NETLINK_ADD_MEMBERSHIP : NETLINK_DROP_MEMBERSHIP;

	if (e->on == on)
		return 0;
	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
		if (setsockopt(e->fd, SOL_NETLINK, option, &groups[i], sizeof(groups[i])))
			return -errno;
	e->on = on;
	return 0;
}

static bool cookie_parse(const char *buf, unsigned len, uint64_t *ret)
{
	const struct nlmsghdr *nlh = (const struct nlmsghdr *)buf;
	const struct inet_diag_msg *m = NLMSG_DATA(nlh);

	if (len < NLMSG_HDRLEN + sizeof(*m) || nlh->nlmsg_type != SOCK_DIAG_BY_FAMILY)
		return false;
	*ret = (uint64_t)m->id.idiag_cookie[1] << 32 | m->id.idiag_cookie[0];
	return true;
}

int sockends_read(struct sockends *e, unsigned max, void (*fn)(void *arg, uint64_t cookie),
		  void *arg)
{
	char bufs[BATCH][HEAD] __attribute__((aligned(8)));
	unsigned done = 0;

	while (done < max) {
		unsigned want = max - done < BATCH ? max - done : BATCH;
		struct sockaddr_nl from[BATCH];
		struct mmsghdr msgs[BATCH];
		struct iovec iov[BATCH];
		uint64_t cookie;
		int got;

		for (unsigned i = 0; i < want; i++) {
			iov[i] = (struct iovec){ bufs[i], HEAD };
			msgs[i].msg_hdr = (struct msghdr){ .msg_name = &from[i],
							   .msg_namelen = sizeof(from[i]),
							   .msg_iov = &iov[i],
							   .msg_iovlen = 1 };
		}
		got = recvmmsg(e->fd, msgs, want, MSG_DONTWAIT, NULL);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EAGAIN)
			break;
		if (got < 0)
			return -errno;
		/* Root could send us something as well. */
		for (int i = 0; i < got; i++)
			if (!from[i].nl_pid && cookie_parse(bufs[i], msgs[i].msg_len, &cookie))
				fn(arg, cookie);
		done += (unsigned)got;
		if ((unsigned)got < want)
			break;
	}
	return (int)done;
}
