/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Leases: what local users get out of the slices. Deciding is pure: no I/O; time and randomness are arguments, and what NAT uses is
 * asked through a function. The table has one mutator, the daemon's tick:
 *
 *	lease_choose()  which ports a request would get, or why none; changes nothing
 *	lease_grant(), lease_renew(), lease_release()   change the table, and note the change in the journal
 *	lease_journal()  ->  store_commit(), or in a thread  ->  lease_keep(), lease_keep_first(), or lease_undo() when storing failed
 *
 * A tick makes any number of changes and one transaction of them; nobody is told of a change before lease_keep().
 *
 * A lease's life: ACTIVE, then COOLING: nobody may use its ports until the cool-down is over *and* the kernel's socket tables show no user
 * (lease_cooled() names those whose time has come, lease_free() ends them). Port numbers are in host order. Times are CLOCK_BOOTTIME in ns.
 */
#ifndef LEASE_H
#define LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "addr.h"
#include "config.h"
#include "errtext.h"
#include "sluice_abi.h"

#define LEASE_NAME_MAX   63
#define LEASE_LABELS_MAX 255 /* "key=value" words, separated by blanks */
#define LEASE_CGROUP_MAX 127 /* of a longer path the end is kept */
#define LEASE_AT_ONCE    256 /* leases of one request */
#define LEASE_TTL_MAX    (30 * 86400)

#define LEASE_TCP (1U << SLUICE_TCP)
#define LEASE_UDP (1U << SLUICE_UDP)

enum lease_state {
	LEASE_ACTIVE,
	LEASE_COOLING,
};

/* What ends a lease, besides a release and its time. */
enum lease_bound {
	LEASE_BOUND_NOT,     /* nothing */
	LEASE_BOUND_PROCESS, /* the end of process holder.pid */
	LEASE_BOUND_CGROUP,  /* control group holder.cgroup is empty ("sluice exec") */
};

enum lease_why {
	LEASE_WHY_NONE,
	LEASE_WHY_RELEASED,
	LEASE_WHY_EXPIRED,
	LEASE_WHY_PROCESS, /* its process ended */
	LEASE_WHY_CGROUP,
	LEASE_WHY_SLICE,   /* this machine lost the slice */
	LEASE_WHY_REBOOT,  /* the machine was started anew */
	LEASE_WHY_REVOKED, /* by root */
};

struct lease_holder {
	uint32_t uid;
	uint32_t pid;
	uint64_t
		started; /* of the process: clock ticks since boot, /proc/PID/stat; tells it from a later one with the same pid */
	char comm[16];
	char cgroup[LEASE_CGROUP_MAX + 1]; /* path below the root of cgroup2 */
};

struct lease {
	uint64_t id; /* never 0, never given twice on one machine */
	char pool[CONFIG_NAME_MAX + 1];
	struct range ports; /* of one slice */
	uint8_t protos;     /* LEASE_TCP, LEASE_UDP */
	enum sluice_lease_kind kind;
	enum lease_state state;
	enum lease_bound bound;
	struct lease_holder holder;
	char name[LEASE_NAME_MAX + 1];
	char labels[LEASE_LABELS_MAX + 1];
	int64_t created_ms;  /* UTC */
	uint32_t ttl_s;      /* what a renewal adds from its moment on; 0: no time limit */
	uint64_t expires_ns; /* SLUICE_NEVER without a time limit */
	int64_t ended_ms;    /* COOLING: when it ended, UTC */
	enum lease_why why;
	uint64_t cool_ns; /* COOLING: not free before this */
	/* Of the daemon's memory only; not stored, and not the table's business. */
	void *user;
};

/* A slice that leases can be taken out of. */
struct lease_slice {
	char pool[CONFIG_NAME_MAX + 1];
	struct range ports;
	bool live; /* else: nothing new is given out of it */
};

/*
 * The fair share, for each protocol by itself: when, after the grant, less than fair_percent of a pool's ports would be free, a uid other than root may not come to have
 * more than an equal share: (ports of the pool) / (uids that have ports in it, the asker included), rounded up. Only live slices' ports count; free is what no
 * lease has; and a uid has the ports of its leases that cool down, too, so that nobody uses a pool up by taking and giving back. Of several pools that may serve, one where
 * the share is used up is passed over.
 */
struct lease_limits {
	uint32_t leases;     /* on the machine, cooling ones included; 0: none */
	uint32_t uid_leases; /* active ones of a uid other than root; 0: no limit */
	uint32_t uid_ports;  /* ports (one protocol each) likewise */
	uint32_t
		cgroup_leases; /* of one control group; applies to root's as well, not to the root group "/" */
	uint32_t
		fair_percent; /* when less than this share of a pool's ports is free, nobody but root gets more than an equal share; 0: off */
	uint32_t cool_down_s;
};

struct lease_request {
	const char *pool; /* NULL: any */
	const char *const
		*pools; /* with pool NULL: those to choose from (by tags); in this order */
	size_t n_pools;
	const struct addr *addr; /* NULL: any */
	int family;              /* 4 or 6: of the address; 0: any */
	uint16_t port;           /* 0: any; else the first port, exactly */
	uint8_t protos;
	enum sluice_lease_kind kind;
	uint32_t ports;  /* each lease's, contiguous; 1 and more */
	uint32_t leases; /* 1 to LEASE_AT_ONCE; all or none */
	uint32_t align;  /* the first port is a multiple of this; a power of two; 0, 1: any */
	int parity;      /* of the first port: 0 even, 1 odd, -1 any (RTP: RFC 3550 11) */
	enum lease_bound bound;
	uint32_t ttl_s; /* 0: no time limit */
	struct lease_holder holder;
	const char *name; /* "" or NULL: none */
	const char *labels;
};

struct lease_table;

/*
 * Which of the 64 ports from `first` on (a multiple of 64) of address a can't be leased now, because NAT or a socket without a lease has
 * them: bit i is port first + i. slice is the index in the table's slices. Asked only for ports that no lease has, so the answer may cost
 * something. It must not change the table.
 */
typedef uint64_t lease_busy_fn(void *arg, size_t slice, enum sluice_l4 l4, uint16_t first);

struct lease_table *lease_table_new(const struct lease_limits *limits); /* NULL without memory */
void lease_table_free(struct lease_table *t);
void lease_limits_set(struct lease_table *t, const struct lease_limits *limits);

/*
 * The slices from now on, n of them, sorted by address and port, not overlapping, beginning and ending at multiples of 64 ports (assert); copied. Leases outside
 * of them go on until somebody releases them (lease_foreign()), and keep their ports if their slice comes back. Cheap when no more than who is live has changed. 0 or -ENOMEM with nothing changed.
 */
int lease_slices_set(struct lease_table *t, const struct lease_slice *slices, size_t n);
const struct lease_slice *lease_slices(const struct lease_table *t, size_t *ret_n);

/*
 * Read in a lease from the store: l is copied. 0; -EEXIST when it overlaps another one in a protocol or has its id; -EINVAL when it is
 * no lease; -ENOMEM. No journal.
 */
int lease_adopt(struct lease_table *t, const struct lease *l);

/*
 * Which ports would a request get? Exact: -ENOSPC only when there is no fit in any slice that may serve. The search
 * begins at a random place (RFC 6056), for each lease at one of its own; random is used as a key, the same key gives the same answer. Several pools: in their
 * order, and of the leases of one request some may be in one pool, some in another. port with several leases: each on another address. busy may be NULL. ret has
 * room for req->leases ranges. It writes marks into the table while it runs, and takes them back: one thread.
 *
 * Errors, all with a text that says what, which value, and what would be allowed:
 *	-EINVAL   the request contradicts itself, or asks for what no slice could have even if it were empty
 *	-ENOENT   no pool of that name, or none of the slices is in the pools, of the address, or around the port asked for
 *	-EKEYEXPIRED  none of the slices that could serve is live: fenced
 *	-ENOSPC   no ports (pool used up, or address, or no contiguous block of that size)
 *	-EDQUOT   a limit of the uid, the control group, the machine, or the fair share; the limit is named
 *	-EADDRINUSE  the very port that was asked for is taken, or one of the block that it begins
 */
int lease_choose(const struct lease_table *t, const struct lease_request *req, uint64_t random,
		 lease_busy_fn *busy, void *busy_arg, struct range *ret, struct errtext *err);

/*
 * Make it so. id comes from the store's counter. Returns the new lease, owned by the table and valid until lease_free(), or NULL without
 * memory. The range must be one that lease_choose() gave, with no grant in between that took it (assert).
 */
struct lease *lease_grant(struct lease_table *t, uint64_t id, const struct lease_request *req,
			  const struct range *ports, uint64_t now_ns, int64_t now_ms);
/* A new deadline: now + ttl_s (0: the lease's own). 0; -EINVAL when there is no time limit, it is above LEASE_TTL_MAX, or the lease is not active; -ENOMEM. */
int lease_renew(struct lease_table *t, struct lease *l, uint32_t ttl_s, uint64_t now_ns);
/* ACTIVE to COOLING. 0; -EINVAL when it is cooling already; -ENOMEM (journal). */
int lease_release(struct lease_table *t, struct lease *l, enum lease_why why, uint64_t now_ns,
		  int64_t now_ms);
/*
 * The end: a cooling lease leaves the table. Not journalled: what is past its cool-down is history already. A lease that is in the journal must be kept
 * first (assert), so look for cooled ones after lease_keep(): without a cool-down a lease is cooled at once.
 */
void lease_free(struct lease_table *t, struct lease *l);

struct lease *lease_find(const struct lease_table *t, uint64_t id);
/* The lease, active or cooling, that has this port in this protocol; NULL: none. */
struct lease *lease_at(const struct lease_table *t, const struct addr *a, uint16_t port,
		       enum sluice_l4 l4);
/* Walk in the order of ids: the first one with an id above after. NULL at the end. The table may change between calls. */
struct lease *lease_next(const struct lease_table *t, uint64_t after);

/* The active lease that expires first, if that is at or before now_ns; else NULL. */
struct lease *lease_expired(const struct lease_table *t, uint64_t now_ns);
/* When the next one expires; SLUICE_NEVER. */
uint64_t lease_next_expiry(const struct lease_table *t);
/* The cooling lease with the earliest cool_ns, if that is at or before now_ns; else NULL. */
struct lease *lease_cooled(const struct lease_table *t, uint64_t now_ns);
uint64_t lease_next_cooled(const struct lease_table *t);
/* Somebody still uses it: try again at cool_ns. */
void lease_cool_on(struct lease_table *t, struct lease *l, uint64_t cool_ns);
/* An active lease that lies in none of the table's slices, or in one of another pool; NULL: none. */
struct lease *lease_foreign(const struct lease_table *t);

/* What has changed since the last lease_keep(). */
enum lease_verb {
	LEASE_GRANTED,
	LEASE_RENEWED,
	LEASE_RELEASED,
};

struct lease_change {
	enum lease_verb verb;
	struct lease *lease; /* as it is now: two changes of one lease show the same contents */
	/* For lease_undo(). */
	uint64_t was_expires_ns;
	uint32_t was_ttl_s;
};

/* In the order in which they were made. Valid until the next change. */
const struct lease_change *lease_journal(const struct lease_table *t, size_t *ret_n);
/* They are on the disk. */
void lease_keep(struct lease_table *t);
/* The first n of them are; the others remain in the journal. */
void lease_keep_first(struct lease_table *t, size_t n);
/* Take them all back, the last one first: what was granted is gone (pointers to it too), what was released is active again. */
void lease_undo(struct lease_table *t);

struct lease_counts {
	size_t active, cooling;
	size_t by_kind[2];             /* active, by enum sluice_lease_kind */
	uint64_t ports[SLUICE_L4_MAX]; /* active leases' */
	uint64_t cooling_ports[SLUICE_L4_MAX];
};
/* pool NULL: all. */
void lease_count(const struct lease_table *t, const char *pool, struct lease_counts *ret);

/* Words for records and listings, and back (-EINVAL). */
const char *lease_why_name(enum lease_why why);           /* "", "released", "expired", ... */
const char *lease_kind_name(enum sluice_lease_kind kind); /* "shared", "exclusive" */
const char *lease_protos_name(uint8_t protos);            /* "tcp", "udp", "tcp+udp" */
const char *lease_bound_name(enum lease_bound b);         /* "", "process", "cgroup" */
int lease_why_parse(const char *s, enum lease_why *ret);

#endif
