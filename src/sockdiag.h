/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel's socket tables, read by sock_diag over libmnl (sock_diag(7), linux/inet_diag.h): which sockets stand on which local ports. TCP in every
 * state, TIME_WAIT and bound-only (BOUND_INACTIVE, kernel 6.8 on; sockdiag_sees_bound() tells) included; UDP bound and connected; IPv4 and IPv6. libmnl
 * appears here and nowhere else for sockets.
 */
#ifndef SOCKDIAG_H
#define SOCKDIAG_H

#include <stdbool.h>
#include <stdint.h>

#include "addr.h"
#include "errtext.h"
#include "sluice_abi.h"

struct sockdiag;

struct sockdiag_sock {
	enum sluice_l4 l4;
	struct addr local; /* all zero: the wildcard */
	struct addr remote;
	uint16_t lport; /* host order */
	uint16_t rport;
	uint8_t state; /* TCP_ESTABLISHED ... of the kernel; TIME_WAIT is 6; bound only is 13 */
	bool v6only;
	uint32_t uid;
	uint32_t ifindex; /* bound to this device; 0: none */
	uint64_t inode;   /* 0: TIME_WAIT, or orphaned: no process has it */
	uint64_t cookie;
	uint64_t cgroup; /* id; 0: not told */
};

/* Opens a netlink socket in the caller's network namespace; it stays there. */
int sockdiag_open(struct sockdiag **ret, struct errtext *err);
void sockdiag_close(struct sockdiag *d);
bool sockdiag_sees_bound(const struct sockdiag *d);

/*
 * Call fn for every socket of a protocol whose local address is one of the addresses given (n > 0), or for all (n 0); the kernel does the choosing where it
 * can (INET_DIAG_REQ_BYTECODE) and the rest is done here. A socket on the wildcard is not one of an address. fn returns 0 to go on; anything else
 * stops, and is returned; it must not ask again itself. A dump is no snapshot: a socket that changes its state meanwhile may be missed, so look
 * twice before you rely on an absence. TIME_WAIT has neither uid nor inode. 0; -errno: -EINTR when the table changed so much that the dump is not whole (NLM_F_DUMP_INTR): ask again.
 */
int sockdiag_dump(struct sockdiag *d, enum sluice_l4 l4, const struct addr *addrs, size_t n,
		  int (*fn)(const struct sockdiag_sock *s, void *arg), void *arg,
		  struct errtext *err);

/* As sockdiag_dump(); only sockets in one of these states are told (bits 1U << state), and on this local port (0: any). */
int sockdiag_dump_states(struct sockdiag *d, enum sluice_l4 l4, uint32_t states, uint16_t lport,
			 const struct addr *addrs, size_t n,
			 int (*fn)(const struct sockdiag_sock *s, void *arg), void *arg,
			 struct errtext *err);

/*
 * One socket, by its place: the one that the kernel would give a packet to which comes for local:lport from remote:rport. One request, no dump. TCP: the connection, TIME_WAIT and
 * those half open too, else the listener. UDP: the connected one, else one on the address, else one on the wildcard; of a SO_REUSEPORT group any. An sk_lookup program has
 * its say for those that are not connected. local all zero: only sockets on the wildcard address. A socket that is bound to a device (or VRF) is found only with that device as
 * ifindex, and then others are too. IPv6 sockets that use IPv4 are found by their IPv4 addresses.
 * 0; -ENOENT; -errno.
 */
int sockdiag_find(struct sockdiag *d, enum sluice_l4 l4, const struct addr *local, uint16_t lport,
		  const struct addr *remote, uint16_t rport, uint32_t ifindex,
		  struct sockdiag_sock *ret);

/*
 * Abort a socket (SOCK_DESTROY): its program gets ECONNABORTED, a TCP peer a RST. Needs CAP_NET_ADMIN. -ENOENT: there is none there, or another one (cookie);
 * -EOPNOTSUPP: the kernel was built without CONFIG_INET_DIAG_DESTROY; -EPERM; -errno.
 */
int sockdiag_destroy(struct sockdiag *d, const struct sockdiag_sock *s);

/* "established", "time-wait", "bound" ...: as ss(8) writes them. */
const char *sockdiag_state_name(uint8_t state);

#endif
