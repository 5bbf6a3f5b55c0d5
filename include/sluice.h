/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libsluice: lease ports of shared addresses from sluiced, and get sockets on them.
 *
 *	struct sluice *s;
 *	struct sluice_lease *l;
 *	struct sluice_request req = { .proto = SLUICE_PROTO_UDP, .exclusive = true };
 *
 *	if (sluice_connect(NULL, &s) < 0 || sluice_acquire(s, &req, &l) < 0)
 *		errx(1, "%s", sluice_error(s));
 *	fd = sluice_open(s, l, NULL);		// bound; send from it, or listen
 *	...
 *	sluice_release(s, l);
 *	sluice_close(s);
 *
 * Every function returns 0 (or what it says) or -errno; sluice_error() then has a sentence for a person. Any number of threads may use one struct
 * sluice; calls are carried out one at a time on its connection, so threads that must not wait for each other open one each. Nothing is global. No signal is raised; no
 * descriptor survives execve(). After a fork() the child must not use the parent's handles.
 *
 * Leases are the daemon's and the machine's, not the connection's: when the daemon starts anew the library connects again by itself, with the next call, and leases
 * go on. A call that was under way when the connection broke and that could have taken effect (acquire) fails with -ECONNRESET; what it may have been given is bound to this
 * process, and ends with it.
 *
 * Errors that mean the same for every function: -ECONNREFUSED, -ENOENT (no daemon), -EACCES (not in the group, or not yours), -ETIMEDOUT, -ECONNRESET (the daemon
 * hung up), -ENOSPC (no ports), -EDQUOT (a limit of yours; or the pool's fair share), -EADDRINUSE (that very port is taken), -ESTALE (the lease has ended), -EINVAL, -EPROTO,
 * -ENOMEM.
 */
#ifndef SLUICE_H
#define SLUICE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sluice;
struct sluice_lease;

#define SLUICE_PROTO_TCP 0x01
#define SLUICE_PROTO_UDP 0x02

/* Connect. path NULL: $SLUICE_SOCKET, else /run/sluice/control.sock. *ret is also set on failure, for sluice_error() and sluice_close(), unless memory lacks (NULL). */
int sluice_connect(const char *path, struct sluice **ret);
/* Leases stay, unless they are bound to this process and it ends; background renewals stop. The leases' handles are freed. NULL is fine. */
void sluice_close(struct sluice *s);
/* How long a call may take, in ms; 0: for ever. Default 10000. */
void sluice_set_timeout(struct sluice *s, unsigned timeout_ms);
/* What went wrong in this thread's last call on s that failed: one sentence, valid until this thread's next call on s. Never NULL. */
const char *sluice_error(const struct sluice *s);

enum sluice_lifetime {
	SLUICE_UNTIL_EXIT,    /* until this process ends (default), or a release */
	SLUICE_UNTIL_RELEASE, /* it outlives the process; give it a ttl_s, or a name to find it by */
	SLUICE_UNTIL_PID,     /* until process `pid` ends: a supervisor's, of the same user */
};

struct sluice_request {
	const char *pool;    /* NULL: any */
	const char *tags;    /* "geo=DE class=warp": only pools that have them all; NULL: any */
	const char *address; /* "203.0.113.7"; NULL: any of the pool's */
	unsigned proto;      /* SLUICE_PROTO_TCP, SLUICE_PROTO_UDP or both; 0: TCP */
	bool exclusive; /* for listeners and unconnected UDP; else shared: TCP connections, each destination once a port */
	uint16_t port;  /* 0: any; else this one, or fail */
	unsigned ports; /* contiguous; 0: one */
	unsigned align; /* the first port is a multiple of it, a power of two; 0: any */
	char parity;    /* 'e': first port even, 'o': odd; 0: any */
	enum sluice_lifetime lifetime;
	int pid;
	unsigned ttl_s; /* seconds until it ends unless renewed; 0: no time limit */
	bool renew; /* the library renews it in the background, from a thread of its own, at a third of ttl_s */
	const char *name;   /* for people: `sluice leases` shows it */
	const char *labels; /* "key=value" words */
};

/* One lease. *ret is s's until sluice_release() or sluice_close(). */
int sluice_acquire(struct sluice *s, const struct sluice_request *req, struct sluice_lease **ret);
/* n of them, all or none. ret has room for n. 1 to 256. */
int sluice_acquire_many(struct sluice *s, const struct sluice_request *req, unsigned n,
			struct sluice_lease **ret);
/* A handle for a lease that exists (of another process of this user, or of this one before it called execve()). */
int sluice_find(struct sluice *s, uint64_t id, struct sluice_lease **ret);

uint64_t sluice_lease_id(const struct sluice_lease *l);
const char *sluice_lease_pool(const struct sluice_lease *l);
const char *sluice_lease_address(const struct sluice_lease *l); /* as text */
uint16_t sluice_lease_first(const struct sluice_lease *l);
uint16_t sluice_lease_last(const struct sluice_lease *l);
unsigned sluice_lease_proto(const struct sluice_lease *l);
bool sluice_lease_exclusive(const struct sluice_lease *l);
/* Seconds until it ends, by the last renewal; -1: no time limit. A background renewal that fails shows here, and in sluice_lease_status(). */
long sluice_lease_expires_s(const struct sluice_lease *l);
/* 0 while renewals succeed; else the -errno of the last one (-ESTALE: it has ended). */
int sluice_lease_status(const struct sluice_lease *l);
/* Address and port as a socket address, for bind(). Returns its length. */
socklen_t sluice_lease_sockaddr(const struct sluice_lease *l, uint16_t port,
				struct sockaddr_storage *ret);

/* ttl_s 0: as when it was acquired. */
int sluice_renew(struct sluice *s, struct sluice_lease *l, unsigned ttl_s);
/* Renew it now, and from now on in the background, as if it had been acquired with this ttl_s and with renew: for leases that sluice_find() gave. */
int sluice_keep(struct sluice *s, struct sluice_lease *l, unsigned ttl_s);
/* The handle is freed, whatever is returned. Close the lease's sockets first: its ports rest until none is left. */
int sluice_release(struct sluice *s, struct sluice_lease *l);
/* Free the handle only: the lease goes on. */
void sluice_forget(struct sluice *s, struct sluice_lease *l);
/* All of them in one message each way; the handles are freed. 0, or the first error. */
int sluice_release_many(struct sluice *s, struct sluice_lease **l, unsigned n);

struct sluice_socket_options {
	unsigned proto; /* 0: the lease's, where it has only one */
	uint16_t port;  /* 0: any that is not bound yet; shared TCP: chosen when it connects */
	bool listen;    /* TCP: listening already */
	bool nonblock;
	bool reuseport;
};

/*
 * A socket on the lease, bound by the daemon: the program needs no capability. Exclusive: bound to a port. Shared TCP: set up so that connect() takes a port of the
 * lease, each one for every destination once; -EADDRNOTAVAIL from connect() means that the lease is used up for that destination. options may be NULL. Returns the
 * descriptor (the caller's, close-on-exec).
 */
int sluice_open(struct sluice *s, struct sluice_lease *l,
		const struct sluice_socket_options *options);
/* The same, and connect() it (blocking; within the timeout). */
int sluice_open_connected(struct sluice *s, struct sluice_lease *l,
			  const struct sluice_socket_options *options, const struct sockaddr *to,
			  socklen_t to_len);
/*
 * From now on what arrives for the lease's ports goes to this socket, which may be bound elsewhere (127.0.0.1:8080, a wildcard): a listening TCP socket, or an unconnected
 * UDP socket. It takes the place of the one before, without a gap; the old one still has what it has received.
 */
int sluice_register(struct sluice *s, struct sluice_lease *l, int fd);

const char *sluice_version(void);

#ifdef __cplusplus
}
#endif

#endif
