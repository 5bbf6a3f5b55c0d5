/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sockets for programs without capabilities: made here, bound to a lease's ports, handed over. The owner is the holder's uid (fchown), so that the
 * guard knows whose it is.
 */
#ifndef OPEN_H
#define OPEN_H

#include "addr.h"
#include "errtext.h"
#include "lease.h"

struct open_request {
	enum sluice_l4 l4; /* one of the lease's */
	/*
	 * 0: an exclusive lease's first port that is not bound yet; for a shared TCP lease the socket is not bound to a port but set up with
	 * IP_LOCAL_PORT_RANGE and IP_BIND_ADDRESS_NO_PORT, so that connect() chooses one; where the kernel has no such range (before 6.3), it is bound to the lease's
	 * next port in turn, with SO_REUSEADDR, so that it shares the port with connections to other destinations. Else: this port of the lease.
	 */
	uint16_t port;
	bool listen; /* TCP: listen() as well */
	bool nonblock;
	bool reuseport; /* SO_REUSEPORT before bind: sockets of one uid that all have it share a port */
};

/*
 * Make a socket for lease l in this network namespace. Returns 0, the descriptor (the caller's, close-on-exec) and the port that getsockname() shows (0: chosen at
 * connect). What was set is read back: a port range that the kernel would ignore (net.ipv4.ip_local_port_range, see kernel-facts) is -EADDRNOTAVAIL with a text that
 * says what to set. -EADDRINUSE: every port is bound already, or that one. -EINVAL; -errno.
 *
 * With listen, a port on which earlier connections of the lease are in TIME_WAIT counts as free; without, it is bound until they are gone (a minute). An IPv6 socket
 * gets IPV6_FREEBIND and IPV6_V6ONLY. Wants CAP_CHOWN, unless the holder is the caller's own uid.
 */
int open_socket(const struct lease *l, const struct open_request *req, int *ret_fd,
		uint16_t *ret_port, struct errtext *err);

/*
 * Is a TCP port of the lease bound, by any socket? Found out by binding to each: for kernels (before 6.8) whose sock_diag lists no sockets that are only bound. A
 * port on which a connection is in TIME_WAIT or a socket listens for all addresses counts as bound. True also when no socket could be made.
 */
bool open_bound(const struct lease *l);

/* For tests: behave as on a kernel without IP_LOCAL_PORT_RANGE. */
extern bool open_by_number;

/*
 * May a socket that a program passed to us receive for lease l? It must be a TCP socket that listens or an unconnected, bound UDP socket, in our network
 * namespace (SO_NETNS_COOKIE), of a protocol that the lease has, and of a family that can take its
 * packets. 0 and its protocol, or -EINVAL with a text.
 */
int open_check(const struct lease *l, int fd, enum sluice_l4 *ret_l4, struct errtext *err);

#endif
