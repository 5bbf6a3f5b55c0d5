/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The socket inventory of one network namespace: which socket has a tuple, whose it is, and what stands on a port. Asked of the kernel by targeted look-ups; what was learned is kept, and
 * is thrown away by the kernel's own notices of sockets that are destroyed (SKNLGRP_INET_*_DESTROY) and by age, so that a busy machine does not pay a dump for each connection.
 */
#ifndef INVENTORY_H
#define INVENTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ct.h"
#include "errtext.h"
#include "sockdiag.h"

struct inventory;

/* A socket and who has it. */
struct inventory_sock {
	struct sockdiag_sock sock;
	int32_t pid; /* the first process found that has it open; 0: not found (closed since, or of another pid namespace, or we may not look) */
	char comm[16];    /* printable ASCII; "" */
	char cgroup[256]; /* path in cgroup2; "": not known */
};

/* Opens netlink sockets in the caller's network namespace; they stay there. Processes of all namespaces are seen, or as many as we may (inventory_note()). */
int inventory_open(struct inventory **ret, struct errtext *err);
void inventory_close(struct inventory *v);
/* Why owners are looked for in /proc and not by BPF, and which capability it would take; "": they are looked for by BPF. */
const char *inventory_note(const struct inventory *v);

/* Notices of destroyed sockets: readable, then call _read (a bounded number at a time; losses empty the cache). The kernel is asked for them only while something is kept. 0 or -errno. */
int inventory_fd(const struct inventory *v);
int inventory_read(struct inventory *v);

/*
 * The socket that sends with this original tuple: connected to its destination, else (UDP) unconnected on its source. -ENOENT: there is none here, the packet was forwarded
 * or the socket is gone. A TCP socket in TIME_WAIT, and one that was closed but has data to send, have inode 0. Processes are not looked for. -errno: asking failed.
 *
 * What is kept is believed for a second at most, and less when the kernel said that the socket ended (which it does a moment after the end). A TCP socket that is
 * bound to a device is found when a refresh has seen one that is bound to the same device. A UDP socket that an sk_lookup program hides is looked for in the table of all UDP
 * sockets, but not more often than a tenth of the time can be spent on.
 */
int inventory_find(struct inventory *v, enum sluice_l4 l4, const struct ct_tuple *orig,
		   struct sockdiag_sock *ret);

/* Fill in who has a socket (procsock.h says in which order it is looked for). hint_pid: looked at first; 0: none. Never fails: what is not found is 0 and "". */
void inventory_owner(struct inventory *v, const struct sockdiag_sock *s, int32_t hint_pid,
		     struct inventory_sock *ret);

/*
 * Ports of these addresses (sorted) on which a socket stands that binds or connects: refreshed by a dump when refresh is called (n 0: of all addresses; the wildcard is none), then asked without a system call. TIME_WAIT does not count. _port_used: the socket
 * there which is connected to that remote end, else one bound only (a listener is not: it starts no connections); false: none. For warnings before a collision.
 * A refresh that fails leaves what was there.
 */
int inventory_refresh(struct inventory *v, const struct addr *addrs, size_t n, struct errtext *err);
/*
 * The same in three steps, since a dump walks the kernel's whole hash table and takes milliseconds: _run, and it alone, may be in another thread, while everything else is asked; but
 * neither inventory_fresh() nor inventory_close() before _end, which takes what _run returned.
 */
int inventory_refresh_begin(struct inventory *v, const struct addr *addrs, size_t n,
			    struct errtext *err);
int inventory_refresh_run(struct inventory *v);
int inventory_refresh_end(struct inventory *v, int run, struct errtext *err);
bool inventory_port_used(const struct inventory *v, enum sluice_l4 l4, const struct addr *addr,
			 uint16_t port, const struct addr *remote, uint16_t rport,
			 struct sockdiag_sock *ret);
/* Call fn for each socket of the last refresh that the one before did not have. None when a refresh failed since. */
void inventory_fresh(const struct inventory *v,
		     void (*fn)(void *arg, const struct sockdiag_sock *s), void *arg);

/* Abort a socket (SOCK_DESTROY): its program gets ECONNABORTED. -ENOENT: gone; -EOPNOTSUPP: the kernel cannot (CONFIG_INET_DIAG_DESTROY). */
int inventory_destroy(struct inventory *v, const struct sockdiag_sock *s);

struct inventory_stats {
	uint64_t lookups, hits; /* asked, and answered from what was kept */
	uint64_t losses;        /* notices lost */
	size_t kept;
	size_t listed; /* by the last refresh */
	uint64_t cut;  /* left out by the last refresh: it would have been more than 1,048,576 */
	uint64_t owners,
		owner_passes; /* owners asked for; those for whom all processes had to be gone through */
};
struct inventory_stats inventory_stats(const struct inventory *v);

#endif
