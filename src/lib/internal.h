/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the parts of libsluice share: handle.c (the handle, its errors, calls), lease.c (leases), socket.c (sockets on them), renew.c (the thread that renews),
 * wire.c (the connection).
 *
 * Locks: `calls` is held while a call is carried out, `lock` for moments: leases' list, references and times, the thread's state, error texts. Who has `lock` does not ask
 * for `calls`.
 */
#ifndef LIB_INTERNAL_H
#define LIB_INTERNAL_H

#include <jansson.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "errtext.h"
#include "sluice.h"
#include "wire.h"

#define API __attribute__((visibility("default")))

#define TIMEOUT_MS     10000 /* the default, and the longest that a background renewal takes */
#define LEASES_AT_ONCE 256
#define POOL_NAME_MAX  63

struct sluice_lease {
	TAILQ_ENTRY(sluice_lease) link;
	unsigned refs; /* the list's, and the renewing thread's for a while; under `lock` */
	/* Do not change. */
	uint64_t id;
	char pool[POOL_NAME_MAX + 1];
	char address[INET6_ADDRSTRLEN];
	struct in6_addr in6; /* of the address; v4 in its first 4 bytes */
	bool v6;
	uint16_t first, last;
	unsigned proto;
	bool exclusive;
	/* Read without a lock. */
	_Atomic int64_t expires_ms; /* CLOCK_BOOTTIME; INT64_MAX: no time limit */
	atomic_int status;
	/* Background renewal; under `lock`. */
	bool renew;
	unsigned ttl_s;       /* known when it was acquired here; 0: none, or not known */
	uint64_t due_ns;      /* CLOCK_MONOTONIC: when it is renewed next */
	uint64_t back_off_ns; /* after a failure; 0: the last one went well */
};
TAILQ_HEAD(sluice_leases, sluice_lease);

/* The text of a thread's last failure. */
struct error_slot {
	LIST_ENTRY(error_slot) link;
	pid_t tid;
	char text[ERRTEXT_LEN];
};
LIST_HEAD(error_slots, error_slot);

struct sluice {
	char *path;
	atomic_uint timeout_ms;
	pthread_mutex_t calls;
	struct wire wire; /* under `calls` */

	pthread_mutex_t lock;
	struct error_slots errors;
	unsigned n_errors;
	unsigned sweep_errors_at; /* look for ended threads' texts when there are this many */
	struct sluice_leases leases;
	pthread_cond_t renew_cond;
	pthread_t renew_thread;
	bool renew_joinable; /* renew_thread is to be joined */
	bool renew_running;  /* it has not decided to end */
	bool closing;
	int wake_fd; /* readable when closing; -1: there was no thread yet */
};

/* ---- handle.c ---- */

/* Keep err's text for sluice_error() if r is a failure; returns r. */
int handle_end(struct sluice *s, int r, const struct errtext *err);

enum call_flags {
	CALL_REPEAT = 0x01,     /* doing it twice does no harm */
	CALL_BACKGROUND = 0x02, /* of the renewing thread: given up when the handle is closed */
};

struct call {
	const char *method; /* without the interface */
	json_t *params;     /* taken; NULL: no memory */
	unsigned flags;
	int send_fd;       /* -1: none; stays the caller's */
	bool want_fd;      /* the answer brings a descriptor, else it is an error */
	bool repeated;     /* out: it was sent again, and may have been carried out twice */
	uint64_t error_id; /* out: the lease that the error is about; 0: not said */
};

/*
 * Carry out a call. Connects if need be, and again when the daemon was started anew. 0: *ret is the answer's parameters, a new reference. -errno with a text.
 */
int handle_call(struct sluice *s, struct call *call, json_t **ret, int *ret_fd,
		struct errtext *err);

/* ---- lease.c ---- */

/* CLOCK_BOOTTIME. */
int64_t lease_now_ms(void);
/* Begin and end of a use that another thread's release must not cut short. `lock` is held. */
void lease_ref(struct sluice_lease *l);
void lease_unref(struct sluice_lease *l);
/* One renewal; expires_ms and status are set. ttl_s 0: as it was. */
int lease_renew_call(struct sluice *s, struct sluice_lease *l, unsigned ttl_s, unsigned flags,
		     struct errtext *err);

/* ---- renew.c ---- */

/* Renew l in time from now on. `lock` is held. 0 or -errno. */
int renew_start(struct sluice *s, struct sluice_lease *l, struct errtext *err);
/* It was renewed, or got another ttl_s: reckon anew. `lock` is held. */
void renew_again(struct sluice *s, struct sluice_lease *l);
/* l has left the list. `lock` is held. */
void renew_stop(struct sluice *s, struct sluice_lease *l);
/* The handle is closed: end the thread. */
void renew_close(struct sluice *s);

#endif
