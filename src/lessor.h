/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The lessor gives leases out: the lease table (lease.h, pure) carried into the store, the maps and the kernel. It owns the table, and is the only caller
 * of its mutators. Everything goes one way, once per turn of the daemon's loop:
 *
 *	lessor_acquire(), _renew(), _release(), what ended by itself      claim ports, change the table
 *	lessor_commit_begin()   one transaction for all of it, in the store's thread
 *	lessor_commit_end()     then the maps; then it is told. Or all of it is taken back.
 *
 * Between the last two the next turn goes on: it changes the table, and its changes are of the next commit. At most one is under way. When it fails, what was
 * changed meanwhile goes back as well, and first: it was decided on what is not so.
 *
 * Nobody may be answered before the commit of his turn has ended with 0. Claims on ports (dp_lease_claim()) come before the transaction: they only keep NAT off.
 *
 * Ended leases cool down: their ports are free when the cool-down is over and the kernel shows no socket on them.
 */
#ifndef LESSOR_H
#define LESSOR_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "config.h"
#include "dp.h"
#include "errtext.h"
#include "hold.h"
#include "lease.h"
#include "plan.h"
#include "sockdiag.h"
#include "store.h"

struct lessor;

/* A change that is on the disk now. */
typedef void lessor_tell_fn(void *arg, enum lease_verb verb, const struct lease *l);
/* Something that a person may want to know: see engine_note_fn. */
typedef void lessor_note_fn(void *arg, int priority, const char *event, const char *text);

struct lessor_opts {
	struct store *store; /* both must outlive the lessor */
	struct dp *dp;
	lessor_tell_fn *tell;
	lessor_note_fn *note;
	void *arg; /* of both */
};

/*
 * Load the leases, see that maps and processes agree with them, end those whose holders are gone. The holds and the plan must be in force.
 * 0 and *ret, or -errno with err filled.
 */
int lessor_open(const struct lessor_opts *opts, const struct config *c,
		const struct hold_table *holds, const struct plan *plan, struct lessor **ret,
		struct errtext *err);
void lessor_close(struct lessor *l); /* Leases, maps and sockets stay. NULL is fine. */

/* Nothing is held on this machine any more: the leases of the store end. 0 or -errno with err filled. */
int lessor_teardown(struct store *s, struct errtext *err);

/* Other holds, another plan or configuration are in force. Leases in slices that are gone end. */
int lessor_reconfigure(struct lessor *l, const struct config *c, const struct hold_table *holds,
		       const struct plan *plan, struct errtext *err);

/* The directories of control groups, for dp_socket_attach(). False: this machine has none. */
bool lessor_cgroups(const struct lessor *l, const char **ret_root, const char **ret_dir,
		    uint32_t *ret_level);

/* The kernel does not take the hooks of "exec": lessor_exec() refuses from now on, and says why. True the first time. */
bool lessor_no_exec(struct lessor *l, const char *why);

/* For looking at: find, walk, count. */
const struct lease_table *lessor_table(const struct lessor *l);
/* The active lease of that id; NULL: none. */
struct lease *lessor_find(const struct lessor *l, uint64_t id);

/*
 * Describe a process as a holder. pidfd: of it, taken; or negative: it is opened here. Cheap when the process is known: then no pidfd is needed. -ESRCH
 * when it has ended.
 */
bool lessor_knows(struct lessor *l, pid_t pid);
int lessor_holder(struct lessor *l, pid_t pid, uint32_t uid, int pidfd, struct lease_holder *ret,
		  struct errtext *err);

/* The same of another process than the caller's; its own uid. */
int lessor_process(struct lessor *l, pid_t pid, struct lease_holder *ret, struct errtext *err);

/* Errors of lease_choose(), and -ESRCH when the process that it is to be bound to has ended, -EBUSY when NAT was faster several times. ret has room for req->leases. */
int lessor_acquire(struct lessor *l, const struct lease_request *req, struct lease **ret,
		   struct errtext *err);
int lessor_renew(struct lessor *l, struct lease *lease, uint32_t ttl_s, struct errtext *err);
int lessor_release(struct lessor *l, struct lease *lease, enum lease_why why, struct errtext *err);

/* How many changes no commit has in hand; are there any? */
size_t lessor_waiting(const struct lessor *l);
bool lessor_dirty(const struct lessor *l);
/*
 * Begin to store all changes, while no commit is under way: store_commit_fd() is readable when it has ended. lessor_commit_done(): has it? lessor_commit_end() waits for it.
 * 0: they are on the disk and in the maps. -EIO: memory and store or maps may differ, start anew. Other -errno: nothing has changed, all was taken
 * back, what was changed since the beginning too. err is filled.
 */
int lessor_commit_begin(struct lessor *l, struct errtext *err);
bool lessor_committing(const struct lessor *l);
bool lessor_commit_done(const struct lessor *l);
int lessor_commit_end(struct lessor *l, struct errtext *err);
/* All of it, to the end. Returns as lessor_commit_end(). */
int lessor_commit(struct lessor *l, struct errtext *err);
/* Were changes taken back since this was last asked? Then err says why, what was changed since is taken back too, and whoever waits for an answer must be told so. */
bool lessor_undone(struct lessor *l, struct errtext *err);
/* Something is due that needs a table without changes under way: commit all, to the end, before the next lessor_tick(). */
bool lessor_quiet_wanted(const struct lessor *l);

/* A program's socket receives for the lease from now on: see open_check() and dp_steer_set(). fd stays the caller's. */
int lessor_steer(struct lessor *l, struct lease *lease, int fd, enum sluice_l4 *ret_l4,
		 struct errtext *err);
bool lessor_steered(const struct lessor *l, const struct lease *lease);

/*
 * Put a process into the lease's control group, whose processes go out through it. Made if it is not there. *ret_path: the group's, below the root of cgroup2.
 */
int lessor_exec(struct lessor *l, struct lease *lease, pid_t pid, char ret_path[PATH_MAX],
		struct errtext *err);

/* How many control groups go out through leases. */
size_t lessor_execs(const struct lessor *l);

/* Readable when a process, a control group, or a look at the kernel's sockets has ended; then call lessor_ended(). */
int lessor_fd(const struct lessor *l);
void lessor_ended(struct lessor *l);

/*
 * What is due at now_ns: expiry, cool-down, comparing. holds: the same ones, perhaps with other deadlines. *ret_next_ns: when to call again. */
void lessor_tick(struct lessor *l, const struct hold_table *holds, uint64_t now_ns,
		 uint64_t *ret_next_ns);

/* The sockets on the addresses that this machine has slices of: see sockdiag_dump(). */
int lessor_sockets(struct lessor *l, enum sluice_l4 l4,
		   int (*fn)(const struct sockdiag_sock *s, void *arg), void *arg,
		   struct errtext *err);

struct lessor_stats {
	uint64_t granted, ended; /* since the start */
	uint64_t refused;        /* for want of ports, or over a limit */
	uint64_t raced;          /* claims that NAT was faster than */
	uint64_t in_use;         /* times that a port was found in use after its cool-down */
	uint64_t
		repaired; /* differences between table and maps, or table and store, that were put right */
};
struct lessor_stats lessor_stats(const struct lessor *l);

#endif
