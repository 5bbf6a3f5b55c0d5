/* SPDX-License-Identifier: BSD-2-Clause */
#include "metrics_socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKLOG 16

bool metrics_socket_there(const struct metrics_socket *s)
{
	struct stat st;

	return s->file.fd < 0 || (lstat(s->file.path, &st) == 0 && st.st_dev == s->file.dev &&
				  st.st_ino == s->file.ino);
}

bool metrics_socket_public(const struct config_metrics *where)
{
	static const struct addr loopback6 = { { [15] = 1 } };

	if (where->path)
		return false;
	if (addr_is_v4(&where->addr))
		return where->addr.b[12] != 127;
	return addr_cmp(&where->addr, &loopback6) != 0;
}

static socklen_t address(const struct config_metrics *where, struct sockaddr_storage *ret)
{
	struct sockaddr_in *in = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;

	memset(ret, 0, sizeof(*ret));
	if (addr_is_v4(&where->addr)) {
		in->sin_family = AF_INET;
		in->sin_port = htons(where->port);
		in->sin_addr.s_addr = addr_v4(&where->addr);
		return sizeof(*in);
	}
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(where->port);
	memcpy(&in6->sin6_addr, &where->addr, sizeof(in6->sin6_addr));
	return sizeof(*in6);
}

/* SO_REUSEPORT lets two sockets of one user have one port, if both want it: only for the moment in which one follows the other. */
static void share_port(int fd, int on)
{
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
}

static int listen_tcp(const struct config_metrics *where, int beside, int *ret_fd,
		      struct errtext *err)
{
	struct sockaddr_storage ss;
	socklen_t len = address(where, &ss);
	int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1,
	    off = 0, e = 0;

	if (fd < 0)
		return errtext_set(err, errno, "listen \"%s\": cannot make a socket: %s",
				   where->listen, strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	/* "[::]" is every address, of both families. */
	if (ss.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	e = bind(fd, (const struct sockaddr *)&ss, len) < 0 ? errno : 0;
	if (e == EADDRINUSE && beside >= 0) {
		share_port(beside, 1);
		share_port(fd, 1);
		e = bind(fd, (const struct sockaddr *)&ss, len) < 0 ? errno : 0;
	}
	if (!e && listen(fd, BACKLOG) < 0)
		e = errno;
	share_port(beside, 0);
	share_port(fd, 0);
	if (e) {
		close(fd);
		return errtext_set(err, e,
				   "listen \"%s\": %s; allowed are an address of this machine with "
				   "a port, from 1024 on, that nobody uses, and unix:PATH",
				   where->listen, strerror(e));
	}
	*ret_fd = fd;
	return 0;
}

int metrics_socket_open(const struct config_metrics *where, const char *group, int beside,
			struct metrics_socket *ret, struct errtext *err)
{
	struct metrics_socket s = { .fd = -1, .file.fd = -1 };
	int r;

	if (where->path) {
		r = control_socket_open(where->path, group, false, &s.file, err);
		if (r < 0)
			errtext_prefix(err, "listen \"%s\": ", where->listen);
		s.fd = s.file.fd;
	} else {
		r = listen_tcp(where, beside, &s.fd, err);
	}
	if (r < 0)
		return r;
	*ret = s;
	return 0;
}

void metrics_socket_close(struct metrics_socket *s)
{
	if (s->file.fd >= 0)
		control_socket_close(&s->file);
	else if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}
