// SPDX-License-Identifier: BSD-2-Clause
/* See open.h. */
#include "open.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sysctl.h"

/* Of the kernel's headers that glibc's do not go with, or that are newer than those of Debian 12. */
#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif
#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif
#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif
#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

bool open_by_number;

union sockaddr_any {
	struct sockaddr sa;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static int flag_set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) ? -errno : 0;
}

static int option_get(int fd, int level, int option, int *ret)
{
	socklen_t len = sizeof(*ret);

	return getsockopt(fd, level, option, ret, &len) ? -errno : 0;
}

static const char *lease_ports(const struct lease *l, char buf[RANGE_STRLEN])
{
	return range_format(&l->ports, buf);
}

/* Addresses */

static socklen_t sockaddr_from(const struct addr *a, uint16_t port, union sockaddr_any *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (addr_is_v4(a)) {
		ret->v4.sin_family = AF_INET;
		ret->v4.sin_port = htons(port);
		ret->v4.sin_addr.s_addr = addr_v4(a);
		return sizeof(ret->v4);
	}
	ret->v6.sin6_family = AF_INET6;
	ret->v6.sin6_port = htons(port);
	memcpy(&ret->v6.sin6_addr, a->b, sizeof(a->b));
	return sizeof(ret->v6);
}

static int sockaddr_read(int fd, union sockaddr_any *ret)
{
	socklen_t len = sizeof(*ret);

	memset(ret, 0, sizeof(*ret));
	return getsockname(fd, &ret->sa, &len) ? -errno : 0;
}

static uint16_t sockaddr_port(const union sockaddr_any *a)
{
	return ntohs(a->sa.sa_family == AF_INET ? a->v4.sin_port : a->v6.sin6_port);
}

/* Is the socket bound to this and nothing else? port 0: not to a port. */
static int name_verify(int fd, const struct addr *a, uint16_t port, struct errtext *err)
{
	union sockaddr_any is, want;
	char text[ADDR_STRLEN];
	int r;

	sockaddr_from(a, port, &want);
	r = sockaddr_read(fd, &is);
	if (r)
		return errtext_set(err, -r, "getsockname: %s", strerror(-r));
	if (sockaddr_port(&is) == port && is.sa.sa_family == want.sa.sa_family &&
	    (is.sa.sa_family == AF_INET
		     ? is.v4.sin_addr.s_addr == want.v4.sin_addr.s_addr
		     : !memcmp(&is.v6.sin6_addr, &want.v6.sin6_addr, sizeof(is.v6.sin6_addr))))
		return 0;
	return errtext_set(
		err, EADDRNOTAVAIL,
		"the socket was bound to %s, port %u, and stands on another port (%u) or "
		"address: a program that is attached to bind() may have moved it",
		addr_format(a, text), port, sockaddr_port(&is));
}

/* What may be asked for */

static int request_check(const struct lease *l, const struct open_request *req, struct errtext *err)
{
	char text[RANGE_STRLEN];

	if (req->l4 != SLUICE_TCP && req->l4 != SLUICE_UDP)
		return errtext_set(err, EINVAL, "only TCP and UDP have sockets with ports");
	if (!(l->protos & 1U << req->l4))
		return errtext_set(err, EINVAL, "the lease is for %s, not for %s",
				   lease_protos_name(l->protos),
				   lease_protos_name((uint8_t)(1U << req->l4)));
	if (req->port && (req->port < l->ports.first || req->port > l->ports.last))
		return errtext_set(err, EINVAL, "port %u is not one of the lease's: %s", req->port,
				   lease_ports(l, text));
	if (req->listen && req->l4 != SLUICE_TCP)
		return errtext_set(err, EINVAL, "a UDP socket does not listen: only TCP's do");
	if (req->listen && l->kind == SLUICE_LEASE_SHARED)
		return errtext_set(
			err, EINVAL,
			"the lease is shared, which is for connections that are opened from "
			"here: to listen takes an exclusive one");
	if (req->reuseport && !req->port && req->l4 == SLUICE_TCP && l->kind == SLUICE_LEASE_SHARED)
		return errtext_set(err, EINVAL,
				   "reuseport without a port: sockets of a shared lease share the "
				   "ports as it is");
	return 0;
}

/* Shared TCP: the port is chosen by connect() */

/* How many ports of the lease does net.ipv4.ip_local_reserved_ports ("7,9-11") name? Those are never chosen. */
static unsigned ports_reserved(const struct lease *l, const char *list)
{
	unsigned n = 0;

	while (*list) {
		char *end;
		unsigned long first = strtoul(list, &end, 10), last = first;

		if (end == list)
			break;
		if (*end == '-')
			last = strtoul(end + 1, &end, 10);
		if (first < l->ports.first)
			first = l->ports.first;
		if (last > l->ports.last)
			last = l->ports.last;
		if (first <= last)
			n += (unsigned)(last - first) + 1;
		list = *end == ',' ? end + 1 : end;
	}
	return n;
}

/* A range outside of the sysctl's is ignored in silence, one that is partly outside is clipped. */
static int sysctls_check(const struct lease *l, struct errtext *err)
{
	char text[64], reserved[4096];
	unsigned lo, hi;
	int r;

	r = sysctl_read("net.ipv4.ip_local_port_range", text, sizeof(text));
	if (r)
		return errtext_set(err, -r, "net.ipv4.ip_local_port_range: %s", strerror(-r));
	if (sscanf(text, "%u %u", &lo, &hi) != 2)
		return errtext_set(err, EINVAL, "net.ipv4.ip_local_port_range is \"%s\": no range",
				   text);
	if (l->ports.first < lo || l->ports.last > hi)
		return errtext_set(
			err, EADDRNOTAVAIL,
			"net.ipv4.ip_local_port_range is %u-%u, and the kernel chooses no port "
			"outside of it; the "
			"lease has %u-%u: sysctl -w net.ipv4.ip_local_port_range=\"%u %u\"",
			lo, hi, l->ports.first, l->ports.last,
			l->ports.first < lo ? l->ports.first : lo,
			l->ports.last > hi ? l->ports.last : hi);
	/* Where it is longer than that, it is only looked at so far. */
	if (!sysctl_read("net.ipv4.ip_local_reserved_ports", reserved, sizeof(reserved)) &&
	    ports_reserved(l, reserved) > (unsigned)(l->ports.last - l->ports.first))
		return errtext_set(err, EADDRNOTAVAIL,
				   "net.ipv4.ip_local_reserved_ports names all ports of the lease, "
				   "%u-%u, and the "
				   "kernel chooses none of those: take them out of it",
				   l->ports.first, l->ports.last);
	return 0;
}

/* -ENOPROTOOPT, without a text: the kernel has none (before Linux 6.3). */
static int range_set(int fd, const struct lease *l, struct errtext *err)
{
	uint32_t range = (uint32_t)l->ports.last << 16 | l->ports.first, is = 0;
	socklen_t len = sizeof(is);
	int r, no_port = 0;

	if (open_by_number)
		return -ENOPROTOOPT;
	r = sysctls_check(l, err);
	if (r)
		return r;
	if (setsockopt(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, &range, sizeof(range))) {
		if (errno == ENOPROTOOPT)
			return -ENOPROTOOPT;
		return errtext_set(err, errno, "IP_LOCAL_PORT_RANGE: %s", strerror(errno));
	}
	r = flag_set(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
	if (!r)
		r = option_get(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &no_port);
	if (r)
		return errtext_set(err, -r, "IP_BIND_ADDRESS_NO_PORT: %s", strerror(-r));
	if (getsockopt(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, &is, &len) || is != range || !no_port)
		return errtext_set(err, EOPNOTSUPP,
				   "the kernel did not keep the port range %u-%u: it says 0x%x",
				   l->ports.first, l->ports.last, is);
	return 0;
}

/* Binding */

static int bind_fail(const struct addr *a, uint16_t port, int r, struct errtext *err)
{
	char text[ADDR_STRLEN];

	addr_format(a, text);
	if (r == -EADDRNOTAVAIL)
		return errtext_set(
			err, EADDRNOTAVAIL,
			"%s is no address of this machine: it lacks the route 'local %s dev lo'",
			text, text);
	return errtext_set(err, -r, "binding to %s, port %u: %s", text, port, strerror(-r));
}

static int bind_to(int fd, const struct addr *a, uint16_t port, bool listening)
{
	union sockaddr_any sa;
	socklen_t len = sockaddr_from(a, port, &sa);

	if (bind(fd, &sa.sa, len))
		return -errno;
	return listening && listen(fd, SOMAXCONN) ? -errno : 0;
}

/*
 * A socket that is not bound yet, of the holder's uid: from here on it may be connected and bound by the rules for that uid, and hooks see whose it
 * is. Returns the descriptor.
 */
static int socket_new(const struct lease *l, const struct open_request *req, bool reuseaddr,
		      struct errtext *err)
{
	int type = req->l4 == SLUICE_TCP ? SOCK_STREAM : SOCK_DGRAM, r = 0;
	bool v6 = !addr_is_v4(&l->ports.addr);
	int fd = socket(v6 ? AF_INET6 : AF_INET,
			type | SOCK_CLOEXEC | (req->nonblock ? SOCK_NONBLOCK : 0), 0);

	if (fd < 0)
		return errtext_set(err, errno, "making a socket: %s", strerror(errno));
	if (fchown(fd, l->holder.uid, (gid_t)-1)) {
		r = errtext_set(err, errno, "giving the socket to uid %u: %s", l->holder.uid,
				strerror(errno));
		goto fail;
	}
	/* For IPv6 a local route does not make an address one that can be bound. */
	if (v6)
		r = flag_set(fd, IPPROTO_IPV6, IPV6_FREEBIND, 1);
	if (v6 && !r)
		r = flag_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	if (!r && reuseaddr)
		r = flag_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (!r && req->reuseport)
		r = flag_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (!r)
		return fd;
	errtext_set(err, -r, "setting the socket up: %s", strerror(-r));
fail:
	close(fd);
	return r;
}

/*
 * The first port that lets itself be bound. A socket that bind() refused can be tried on the next port; one that listen() refused is bound already.
 * Returns the descriptor; -EADDRINUSE without a text when there is none.
 */
static int bind_first(const struct lease *l, const struct open_request *req, bool reuseaddr,
		      uint16_t *ret_port, struct errtext *err)
{
	unsigned first = req->port ? req->port : l->ports.first;
	unsigned last = req->port ? req->port : l->ports.last;
	int fd = -1, r;

	for (unsigned port = first; port <= last; port++) {
		if (fd < 0)
			fd = socket_new(l, req, reuseaddr, err);
		if (fd < 0)
			return fd;
		r = bind_to(fd, &l->ports.addr, (uint16_t)port, req->listen);
		if (!r) {
			*ret_port = (uint16_t)port;
			return fd;
		}
		if (r != -EADDRINUSE) {
			close(fd);
			return bind_fail(&l->ports.addr, (uint16_t)port, r, err);
		}
		if (req->listen) {
			close(fd);
			fd = -1;
		}
	}
	if (fd >= 0)
		close(fd);
	return -EADDRINUSE;
}

static int open_port(const struct lease *l, const struct open_request *req, uint16_t *ret_port,
		     struct errtext *err)
{
	bool shared = req->l4 == SLUICE_TCP && l->kind == SLUICE_LEASE_SHARED;
	char text[RANGE_STRLEN];
	int fd;

	/*
	 * SO_REUSEADDR lets TCP sockets that do not listen share a port, which is the point of a shared lease. An exclusive port is first sought
	 * without it. One that is to listen may also stand where earlier connections are in TIME_WAIT; the kernel keeps listeners apart. UDP never
	 * gets it: there it would let two sockets have one port.
	 */
	fd = bind_first(l, req, shared, ret_port, err);
	if (fd == -EADDRINUSE && req->listen)
		fd = bind_first(l, req, true, ret_port, err);
	if (fd == -EADDRINUSE && req->port)
		return errtext_set(err, EADDRINUSE, "port %u is in use by another socket",
				   req->port);
	if (fd == -EADDRINUSE)
		return errtext_set(err, EADDRINUSE,
				   "every port of the lease (%s) is in use by a socket already",
				   lease_ports(l, text));
	/*
	 * So that what its connections leave in TIME_WAIT does not stop the next listener. A socket that is only bound does not get it: the second attempt
	 * would not see it then.
	 */
	if (fd >= 0 && req->listen)
		flag_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	return fd;
}

static int open_range(const struct lease *l, const struct open_request *req, uint16_t *ret_port,
		      struct errtext *err)
{
	/* With SO_REUSEADDR they get along with sockets that ask for a port by its number. */
	int fd = socket_new(l, req, true, err), r;

	if (fd < 0)
		return fd;
	r = range_set(fd, l, err);
	if (!r) {
		r = bind_to(fd, &l->ports.addr, 0, false);
		if (r)
			bind_fail(&l->ports.addr, 0, r, err);
	}
	if (r) {
		close(fd);
		return r;
	}
	*ret_port = 0;
	return fd;
}

/*
 * What there is without IP_LOCAL_PORT_RANGE: the socket is bound to a port, and each time to the next one, so that as many of them as the lease has ports
 * can go to one destination.
 */
static int open_next(const struct lease *l, const struct open_request *req, uint16_t *ret_port,
		     struct errtext *err)
{
	static unsigned turn;
	unsigned n = (unsigned)(l->ports.last - l->ports.first) + 1;
	struct open_request one = *req;
	char text[RANGE_STRLEN];
	int fd = -EADDRINUSE;

	/* A port that somebody else has alone is passed over. */
	for (unsigned i = 0; i < n && fd == -EADDRINUSE; i++) {
		one.port = (uint16_t)(l->ports.first + turn++ % n);
		fd = open_port(l, &one, ret_port, err);
	}
	if (fd == -EADDRINUSE)
		errtext_set(err, EADDRINUSE,
			    "every port of the lease (%s) is in use by a socket already",
			    lease_ports(l, text));
	return fd;
}

int open_socket(const struct lease *l, const struct open_request *req, int *ret_fd,
		uint16_t *ret_port, struct errtext *err)
{
	uint16_t port;
	int fd, r;

	r = request_check(l, req, err);
	if (r)
		return r;
	if (req->l4 == SLUICE_TCP && l->kind == SLUICE_LEASE_SHARED && !req->port) {
		fd = open_range(l, req, &port, err);
		if (fd == -ENOPROTOOPT)
			fd = open_next(l, req, &port, err);
	} else {
		fd = open_port(l, req, &port, err);
	}
	if (fd < 0)
		return fd;
	r = name_verify(fd, &l->ports.addr, port, err);
	if (r) {
		close(fd);
		return r;
	}
	*ret_fd = fd;
	*ret_port = port;
	return 0;
}

bool open_bound(const struct lease *l)
{
	struct open_request req = { .l4 = SLUICE_TCP };
	struct errtext err;
	bool bound = false;
	int fd, r;

	for (unsigned port = l->ports.first; port <= l->ports.last && !bound; port++) {
		fd = socket_new(l, &req, false, &err);
		if (fd < 0)
			return true;
		r = bind_to(fd, &l->ports.addr, (uint16_t)port, false);
		close(fd);
		bound = r == -EADDRINUSE;
	}
	return bound;
}

/* Sockets of others */

static const char *family_name(int family, char buf[32])
{
	switch (family) {
	case AF_UNIX:
		return "a Unix socket";
	case AF_NETLINK:
		return "a netlink socket";
	case AF_PACKET:
		return "a packet socket";
	case AF_VSOCK:
		return "a vsock socket";
	}
	snprintf(buf, 32, "a socket of family %d", family);
	return buf;
}

/* Which of the two is it? */
static int l4_check(int family, int type, int proto, enum sluice_l4 *ret, struct errtext *err)
{
	char buf[32];
	const char *what = buf;

	if (family != AF_INET && family != AF_INET6)
		what = family_name(family, buf);
	else if (type == SOCK_RAW)
		what = "a raw socket";
	else if (proto == IPPROTO_MPTCP)
		what = "an MPTCP socket";
	else if (type == SOCK_STREAM && proto == IPPROTO_TCP)
		*ret = SLUICE_TCP, what = NULL;
	else if (type == SOCK_DGRAM && proto == IPPROTO_UDP)
		*ret = SLUICE_UDP, what = NULL;
	else
		snprintf(buf, sizeof(buf), "a socket of protocol %d", proto);
	if (!what)
		return 0;
	return errtext_set(err, EINVAL,
			   "it is %s: only a TCP socket that listens or an unconnected UDP socket "
			   "can receive for "
			   "a lease",
			   what);
}

/* Can packets to the lease's address be given to it? An IPv6 socket takes IPv4 as well, unless it was told not to. */
static int family_check(const struct lease *l, int fd, int family, struct errtext *err)
{
	int v6only = 0, r = 0;

	if (!addr_is_v4(&l->ports.addr))
		return family == AF_INET6
			       ? 0
			       : errtext_set(err, EINVAL,
					     "it is an IPv4 socket, and the lease is of IPv6");
	if (family == AF_INET6)
		r = option_get(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only);
	if (r)
		return errtext_set(err, -r, "IPV6_V6ONLY: %s", strerror(-r));
	if (v6only)
		return errtext_set(
			err, EINVAL,
			"it is an IPv6 socket with IPV6_V6ONLY, and the lease is of IPv4");
	return 0;
}

static int netns_of(int fd, uint64_t *ret)
{
	socklen_t len = sizeof(*ret);

	return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, ret, &len) ? -errno : 0;
}

static int netns_check(int fd, struct errtext *err)
{
	int own = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;
	uint64_t here = 0, there = 0;

	if (own < 0)
		return errtext_set(err, errno, "making a socket: %s", strerror(errno));
	r = netns_of(own, &here);
	if (!r)
		r = netns_of(fd, &there);
	close(own);
	if (r)
		return errtext_set(err, -r, "SO_NETNS_COOKIE: %s", strerror(-r));
	if (here != there)
		return errtext_set(err, EINVAL, "it is in another network namespace than sluiced");
	return 0;
}

static int udp_check(int fd, struct errtext *err)
{
	union sockaddr_any sa;
	socklen_t len = sizeof(sa);
	int r;

	if (!getpeername(fd, &sa.sa, &len))
		return errtext_set(err, EINVAL,
				   "it is a connected UDP socket, which hears one peer only: it "
				   "must not be connected");
	if (errno != ENOTCONN)
		return errtext_set(err, errno, "getpeername: %s", strerror(errno));
	r = sockaddr_read(fd, &sa);
	if (r)
		return errtext_set(err, -r, "getsockname: %s", strerror(-r));
	if (!sockaddr_port(&sa))
		return errtext_set(
			err, EINVAL,
			"it is a UDP socket that is not bound: bind it first, to whatever port");
	return 0;
}

int open_check(const struct lease *l, int fd, enum sluice_l4 *ret_l4, struct errtext *err)
{
	int family, type, proto, listening, r;
	enum sluice_l4 l4 = SLUICE_TCP;

	r = option_get(fd, SOL_SOCKET, SO_DOMAIN, &family);
	if (r == -ENOTSOCK)
		return errtext_set(err, EINVAL, "it is no socket");
	if (!r)
		r = option_get(fd, SOL_SOCKET, SO_TYPE, &type);
	if (!r)
		r = option_get(fd, SOL_SOCKET, SO_PROTOCOL, &proto);
	if (!r)
		r = option_get(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening);
	if (r)
		return errtext_set(err, -r, "looking at the socket: %s", strerror(-r));
	r = l4_check(family, type, proto, &l4, err);
	if (!r && !(l->protos & 1U << l4))
		r = errtext_set(err, EINVAL, "it is a %s socket, and the lease is for %s",
				lease_protos_name((uint8_t)(1U << l4)),
				lease_protos_name(l->protos));
	if (!r)
		r = family_check(l, fd, family, err);
	if (!r)
		r = netns_check(fd, err);
	if (!r && l4 == SLUICE_TCP && !listening)
		r = errtext_set(err, EINVAL,
				"it is a TCP socket that does not listen: call listen() first");
	if (!r && l4 == SLUICE_UDP)
		r = udp_check(fd, err);
	if (!r)
		*ret_l4 = l4;
	return r;
}
