/* SPDX-License-Identifier: BSD-2-Clause */
/* What the lessor's parts share: lessor.c (grants, life), lessor_commit.c (to the disk and into the maps), lessor_watch.c (who has ended), lessor_sync.c (maps and kernel compared). */
#ifndef LESSOR_PRIVATE_H
#define LESSOR_PRIVATE_H

#include <net/if.h>
#include <sys/queue.h>

#include "audit.h"
#include "cgroup.h"
#include "lessor.h"
#include "sockdiag.h"
#include "worker.h"

#define WATCH_BUCKETS   1024
#define DIFFERENCES_MAX 1024
#define LESSOR_ROUND \
	16 /* `user` of a cooling lease that a look found in use is the look's number, from here on */
#define LESSOR_KEPT  ((void *)1) /* `user` of a cooling lease whose end is on the disk */
#define LESSOR_SHARE 20 /* looking and comparing take at most a twentieth of the time each */

/* A process whose end ends leases. */
struct watch {
	LIST_ENTRY(watch) link;
	struct lease_holder who;
	int fd;        /* pidfd */
	uint64_t *ids; /* leases bound to it, ended ones among them */
	size_t n, cap;
	uint64_t alive_turn; /* the turn that it was last seen alive in */
	bool dead;           /* the process has ended; what it had is being ended */
	size_t live;         /* those of them that go on; their `user` is this watch */
};
LIST_HEAD(watch_list, watch);

/* One slice as the lessor sees it: the same index as in the lease table. */
struct lessor_slice {
	struct range ports;
	uint32_t row;
	bool live;
	size_t foreign; /* where its words begin in lessor.foreign: TCP's blocks, then UDP's */
};

/* A slot of map "steered". */
struct steer {
	uint64_t lease; /* 0: free */
	enum sluice_l4 l4;
};

/* Between table and maps, seen by lessor_compare(). */
struct difference {
	uint64_t key;
	unsigned seen; /* times in a row */
	bool now;
};

/* A port with a socket on it. Compared as bytes: there is no padding. */
struct look_port {
	struct addr addr;
	uint16_t port;
	uint16_t l4;
};
_Static_assert(sizeof(struct look_port) == 20, "no padding");

/* A look at the kernel's sockets, and the thread that takes it. */
struct look {
	struct worker worker;
	struct sockdiag *diag;
	uint64_t began_ns;
	struct addr *addrs; /* of which the sockets are wanted */
	size_t n_addrs;
	struct look_port *ports; /* what it found */
	size_t n, cap;
	struct errtext err;
};

struct lessor {
	struct lessor_opts opts;
	struct store *store;
	struct dp *dp;
	struct lease_table *table;
	struct sockdiag *diag; /* of the loop */
	struct lessor_slice *slices;
	size_t n_slices;
	uint64_t *foreign; /* ports that sockets without a lease have */
	size_t n_foreign;
	bool deadlines;      /* some slice has one */
	uint64_t random[32]; /* n_random of them are unused */
	size_t n_random;
	uint64_t next_id;
	bool next_id_used; /* given out since the last commit */
	uint64_t leased_ports;

	/* The commit that is under way: the first n_storing changes of the journal, and copies of them, and of their leases as they were when it began. */
	bool storing;
	size_t n_storing, storing_cap;
	struct lease_change *storing_changes;
	struct lease *storing_leases;
	struct store_batch batch;
	bool undone; /* changes were taken back, and nobody has asked yet */
	struct errtext undone_why;
	bool quiet_wanted; /* comparing is due, and has to wait for the table to be stored */

	uint32_t cool_down_s;
	uint32_t records_days;

	/* Of lessor_watch.c */
	uint64_t turn; /* counts the daemon's turns, from 1 on */
	int epoll_fd;
	struct watch_list watches[WATCH_BUCKETS];
	size_t n_idle;           /* watches without a lease */
	size_t n_dead;           /* watches of ended processes that still have leases */
	size_t idle_at;          /* bucket where such a one was last looked for */
	struct cgroups *cgroups; /* NULL: this machine has none, see no_cgroups */
	struct errtext no_cgroups;
	bool no_exec; /* the kernel does not take its hooks */

	/* Of lessor_look.c */
	struct look look;
	uint64_t looked_ns; /* when the kernel was last asked for sockets, and how long that took */
	uint64_t look_took_ns;
	bool judging;      /* the last look has not been gone through to its end */
	uintptr_t round;   /* of looking: marks the cooling leases whose ports are in use */
	bool look_failing; /* said so in the log */

	/* Of lessor_sync.c */
	uint64_t compared_ns;
	uint64_t compare_took_ns;
	uint64_t retry_ns; /* when ends that failed are next tried again */
	uint64_t trim_ns;  /* when old records are next looked for */
	struct difference differences[DIFFERENCES_MAX];
	size_t n_differences;
	uint64_t audit_ns; /* when the store is next compared */
	struct audit audit;
	struct steer steers[SLUICE_MAX_STEERED]; /* by slot */
	uint32_t n_steers;                       /* slots from here on are free */
	struct lessor_stats stats;
};

static inline unsigned lessor_protos_count(uint8_t protos)
{
	return !!(protos & LEASE_TCP) + !!(protos & LEASE_UDP);
}

void lessor_say(const struct lessor *l, int priority, const char *event, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* ---- lessor_ports.c ---- */

/* The holds and the plan in force. The slices' deadlines alone have changed: _tell. */
int lessor_slices_set(struct lessor *l, const struct hold_table *holds, const struct plan *plan,
		      struct errtext *err);
int lessor_slices_tell(struct lessor *l, const struct hold_table *holds, struct errtext *err);
/* What NAT has, and what sockets have that asked nobody: a lease_busy_fn. */
uint64_t lessor_busy(void *arg, size_t slice, enum sluice_l4 l4, uint16_t first);
/* Index of the slice that a range lies in; -1: none. */
int lessor_slice_of(const struct lessor *l, const struct range *r);
/* Claim a lease's ports in every protocol, all or none; take that back. */
int lessor_claim(struct lessor *l, const struct range *r, uint8_t protos);
void lessor_unclaim(struct lessor *l, const struct range *r, uint8_t protos);
/* Entries to write, one a port and protocol, for many leases at a time. */
struct lessor_entries {
	struct dp_lease *put;
	struct sluice_port_key *rm;
	size_t n_put, n_rm, cap;
};

/* A lease's ports are to be entered (steer by protocol, NULL: none), or taken out. 0 or -ENOMEM. */
int lessor_entries_add(struct lessor_entries *e, const struct lease *lease, bool put,
		       const uint32_t steer[SLUICE_L4_MAX]);
void lessor_entries_done(struct lessor_entries *e);
/* Entries of map "leases" for all of a lease's ports; steer by protocol. */
int lessor_entries_put(struct lessor *l, const struct lease *lease,
		       const uint32_t steer[SLUICE_L4_MAX], struct errtext *err);

/* ---- lessor_watch.c ---- */

int lessor_watch_open(struct lessor *l, const struct config *c, struct errtext *err);
void lessor_watch_close(struct lessor *l);
/*
 * The watch of the process that a request wants its leases bound to, with room for n of them; NULL: no process. Then lessor_watch_add() for each that was granted.
 */
int lessor_watch_reserve(struct lessor *l, const struct lease_request *req, size_t n,
			 struct watch **ret, struct errtext *err);
void lessor_watch_add(struct lessor *l, struct watch *w, struct lease *lease);
void lessor_watch_rm(struct lessor *l, struct lease *lease);
/* After a start: watch the holders of the store's leases, and release those whose holders are gone. */
int lessor_watch_adopt(struct lessor *l, struct errtext *err);
/* End what should have ended, and could not be stored. */
void lessor_watch_retry(struct lessor *l);
/* The lease has ended: its control group, if it has one, has no way out any more. */
void lessor_exec_end(struct lessor *l, const struct lease *lease);

/* ---- lessor_sync.c ---- */

/* The lease has no socket in "steered" any more. */
void lessor_steer_rm(struct lessor *l, const struct lease *lease, enum sluice_l4 l4);
/* The steer of its entries, by protocol. */
void lessor_steers(const struct lessor *l, const struct lease *lease,
		   uint32_t ret_steer[SLUICE_L4_MAX]);
/* The lease could not be stored: what a socket that was registered for it has left in the maps goes. */
void lessor_steer_undo(struct lessor *l, const struct lease *lease);

/* Make the maps agree with the table, at a start or after a reload. */
int lessor_sync(struct lessor *l, struct errtext *err);
void lessor_compare(struct lessor *l, uint64_t now_ns);
/* A socket that asked nobody stands on a port of a slice. */
void lessor_foreign_add(struct lessor *l, size_t slice, enum sluice_l4 l4, uint16_t port);

/* ---- lessor_look.c ---- */

int lessor_look_open(struct lessor *l, struct errtext *err);
void lessor_look_close(struct lessor *l);
/* Look at the kernel's sockets: which ports are in use, by leases that cool down or without any. _look() here and now; _look_begin() in a thread: not while one is under way. */
void lessor_look(struct lessor *l);
void lessor_look_begin(struct lessor *l);
/* Is a look under way? One that has ended is settled here. */
bool lessor_looking(struct lessor *l);
/* Readable when a look has ended and lessor_looking() has not been called since. */
int lessor_look_fd(const struct lessor *l);
/* Judge by the last look the leases whose rest was over by then: at most max of them, for a turn must not take long. Goes on while l->judging. */
void lessor_judge(struct lessor *l, size_t max);

#endif
