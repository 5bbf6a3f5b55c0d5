/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the parts of the lease table share:
 *
 *	lease.c         a lease's life: grant, renew, release, free, adopt; the journal
 *	lease_store.c   where leases are kept: slots, ids, the order of ids, the two heaps
 *	lease_hash.c    a hash table, of blocks of ports and of counts
 *	lease_port.c    ports: who has each, which are free in each slice
 *	lease_count.c   counts by pool, uid and control group, and the limits on them
 *	lease_choose.c  whether a request makes sense, where to search, why nothing was found
 *	lease_search.c  the search for free ports
 *	lease_slice.c   the slices and their pools
 *
 * Every change has two steps: *_reserve() gets all memory that it may need, and fails with nothing changed; what follows can't fail. So undoing
 * can't fail either. Whatever is looked at for each lease or port by the hundred thousand is in arrays of its own, because a struct lease
 * is ten cache lines long.
 */
#ifndef LEASE_PRIVATE_H
#define LEASE_PRIVATE_H

#include "lease.h"

#define LEASE_L4         2 /* TCP and UDP: nobody leases ICMP ids */
#define LEASE_PROTOS     4 /* indexes by a set of protocols, LEASE_TCP | LEASE_UDP */
#define LEASE_WORD_PORTS 64

/* What is in a hash table begins with this; chains are linked through it. */
struct lease_node {
	struct lease_node *next; /* in its bucket */
	uint64_t hash;
};

struct lease_hash {
	struct lease_node **bucket;
	size_t n;      /* nodes */
	unsigned bits; /* log2 of the buckets; 0: none yet */
};

/* A lease as the table keeps it. Slots are numbers from 1 on. */
struct lease_entry {
	struct lease lease; /* first: what the outside sees */
	uint32_t slot;
	uint32_t home; /* 1 + index of the slice that its ports are of, in its pool; 0: foreign */
	uint32_t foreign_prev, foreign_next; /* slots: the active ones without a home */
	uint32_t journalled;                 /* changes in the journal that name it */
	struct lease_pool *pool;
	struct lease_tally *uid, *cgroup, *share;
};

/* Where leases count. */
enum lease_tally_kind {
	LEASE_TALLY_UID,
	LEASE_TALLY_CGROUP,
	LEASE_TALLY_SHARE, /* a uid in a pool */
};

struct lease_tally {
	struct lease_node node;
	enum lease_tally_kind kind;
	uint32_t uid;
	const struct lease_pool *pool;
	uint32_t refs;            /* leases that count here; the last one takes it along */
	uint32_t leases;          /* active ones */
	uint64_t active;          /* their ports, one protocol each */
	uint64_t ports[LEASE_L4]; /* SHARE: active and cooling */
	char name[];              /* CGROUP */
};

/* There is one for every pool that has slices or leases. */
struct lease_pool {
	char name[CONFIG_NAME_MAX + 1];
	uint32_t refs; /* leases */
	struct lease_counts counts;
	uint32_t uids[LEASE_L4]; /* that have ports in it */
	/* Its slices: indexes, ascending. */
	uint32_t *member;
	uint32_t n_members;
	uint64_t *open
		[LEASE_PROTOS]; /* bit by member: it is live and has a port that is free in all of these */
	uint64_t total;         /* ports of the live ones */
	uint64_t free[LEASE_L4]; /* of them, not leased */
};

struct lease_home {
	struct addr addr;
	uint16_t first;
	bool live;
	uint32_t ports;
	struct lease_pool *pool;
	uint32_t member; /* its place in pool->member */
	uint64_t *used[LEASE_L4];
	uint32_t free[LEASE_PROTOS]; /* ports that are free in all of these protocols */
};

/* A pool that a search may take ports from. */
struct lease_candidate {
	struct lease_pool *pool;
	uint32_t from, to; /* its members that have the address asked for */
	uint32_t max;      /* leases that the fair share allows */
	uint32_t taken;
};

/* Slices, and what is kept by slice; replaced as a whole. */
struct lease_slices {
	struct lease_slice *list; /* as given */
	struct lease_home *home;
	size_t n;
	uint32_t *members; /* of all pools */
	struct lease_candidate
		*candidates; /* room for as many as there are pools; lease_choose() works in it */
	uint64_t *words;     /* of all homes, then of all pools' bitmaps */
};

/* 64 ports of an address, of which at least one was leased since its slice came. */
struct lease_block {
	struct lease_node node;
	struct addr addr;
	uint16_t word; /* port / 64 */
	uint32_t home; /* 1 + index of the slice; 0: in none */
	uint64_t bits[LEASE_L4];
	uint32_t slot[LEASE_L4][LEASE_WORD_PORTS]; /* who has the port; 0: nobody */
};

struct lease_id {
	uint64_t id;   /* 0: empty (in the hash) */
	uint32_t slot; /* 0: it has gone (in the order) */
};

/* Ascending by id, with holes; what was adopted out of order is sorted when somebody looks. */
struct lease_order {
	struct lease_id *item;
	size_t first, n, cap; /* items are [first, n); neither end is a hole */
	size_t holes;
	bool unsorted;
};

/* The smallest key at the top; equal keys by id. */
struct lease_heap {
	struct lease_due {
		uint64_t key;
		uint64_t id;
		uint32_t slot;
	} * item;
	size_t n;
};

#define LEASE_CHUNK 128 /* entries that are allocated at once */

struct lease_table {
	struct lease_limits limits;
	void *(*realloc)(void *old, size_t size);
	struct lease_counts counts;

	/* lease_store.c */
	struct lease_entry *
		*chunk; /* slot s is chunk[(s - 1) / LEASE_CHUNK][(s - 1) % LEASE_CHUNK] */
	size_t n_chunks, chunks_cap;
	uint32_t free_slot; /* linked by foreign_next */
	size_t n;           /* leases */
	size_t cap;         /* there is room for so many */
	struct lease_id *ids;
	unsigned ids_bits;         /* log2 of its size; 0: none yet */
	struct lease_order *order; /* sorted on demand, also for those who only look */
	struct lease_heap expiry, cooling;
	uint32_t *heap_at; /* by slot: 1 + place in the heap that it is in */
	uint32_t foreign;  /* first slot */

	/* lease_port.c */
	struct lease_hash blocks;

	/* lease_count.c */
	struct lease_pool **pools;
	size_t n_pools;
	struct lease_hash tallies;

	/* lease_slice.c */
	struct lease_slices slices;

	/* lease.c */
	struct lease_change *journal;
	size_t n_journal, journal_cap;
};

/* For tests: all memory comes from here; to be freed with free(). */
struct lease_table *lease_table_new_with(const struct lease_limits *limits,
					 void *(*realloc_fn)(void *old, size_t size));

static inline struct lease_entry *lease_entry_of(struct lease *l)
{
	return (struct lease_entry *)l;
}

static inline struct lease_entry *lease_slot(const struct lease_table *t, uint32_t slot)
{
	return &t->chunk[(slot - 1) / LEASE_CHUNK][(slot - 1) % LEASE_CHUNK];
}

static inline uint64_t lease_mix(uint64_t x)
{
	/* The finalizer of MurmurHash3, as in splitmix64. */
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

static inline uint32_t lease_range_ports(const struct range *r)
{
	return (uint32_t)r->last - r->first + 1;
}

static inline unsigned lease_protos_count(uint8_t protos)
{
	return (unsigned)__builtin_popcount(protos);
}

static inline bool lease_home_has(const struct lease_home *h, uint32_t port)
{
	return port >= h->first && port < h->first + h->ports;
}

/* The bits of word w that the range covers. */
static inline uint64_t lease_word_mask(const struct range *r, unsigned w)
{
	unsigned from = r->first / LEASE_WORD_PORTS == w ? r->first % LEASE_WORD_PORTS : 0;
	unsigned to = r->last / LEASE_WORD_PORTS == w ? r->last % LEASE_WORD_PORTS : 63;

	return ~0ULL << from & ~0ULL >> (63 - to);
}

/* lease_hash.c */

static inline size_t lease_hash_buckets(const struct lease_hash *h)
{
	return h->bucket ? 1UL << h->bits : 0;
}

/* The first of the chain that nodes with this hash are in, among others; NULL. */
static inline struct lease_node *lease_hash_chain(const struct lease_hash *h, uint64_t hash)
{
	return h->bucket ? h->bucket[hash >> (64 - h->bits)] : NULL;
}

/* A new node of size bytes, zero but for its hash, entered; NULL without memory. */
void *lease_hash_add(struct lease_hash *h, uint64_t hash, size_t size,
		     void *(*realloc_fn)(void *old, size_t size));
/* Take a node out, and free it. */
void lease_hash_rm(struct lease_hash *h, struct lease_node *n);
/* All nodes. */
void lease_hash_free(struct lease_hash *h);

/* lease_store.c */

int lease_store_new(struct lease_table *t);
void lease_store_free(struct lease_table *t);
/* Room for one more: 0 or -ENOMEM. */
int lease_store_reserve(struct lease_table *t);
/* A slot for a copy of l, entered under its id; in no heap. */
struct lease_entry *lease_store_add(struct lease_table *t, const struct lease *l);
void lease_store_rm(struct lease_table *t, struct lease_entry *e);
/* Put into, or move within, the heap that its state and times say; take out. */
void lease_store_due(struct lease_table *t, struct lease_entry *e);
void lease_store_undue(struct lease_table *t, struct lease_entry *e);
/* Note an active lease without a home, or forget it. */
void lease_store_foreign(struct lease_table *t, struct lease_entry *e);
void lease_store_unforeign(struct lease_table *t, struct lease_entry *e);

/* lease_port.c */

void lease_ports_free(struct lease_table *t);
/* Blocks for all of these ports: 0 or -ENOMEM. */
int lease_ports_reserve(struct lease_table *t, const struct range *r);
/* Does a lease have one of them? */
bool lease_ports_taken(const struct lease_table *t, const struct range *r, uint8_t protos);
void lease_ports_set(struct lease_table *t, const struct lease_entry *e);
void lease_ports_clear(struct lease_table *t, const struct lease_entry *e);
/* All blocks find their places in new slices, whose words are zero; those that nobody needs go. */
void lease_ports_rehome(struct lease_table *t);

/* lease_count.c */

void lease_counts_free(struct lease_table *t);
struct lease_pool *lease_pool_find(const struct lease_table *t, const char *name);
/* The pool, made if it is not there; NULL without memory. */
struct lease_pool *lease_pool_get(struct lease_table *t, const char *name);
/* Free those that have neither slices nor leases. */
void lease_pools_trim(struct lease_table *t);
/* Sets e->pool (made if need be), uid, cgroup, share, and counts one reference in each. 0 or -ENOMEM. e need be no more than its lease. */
int lease_tally_reserve(struct lease_table *t, struct lease_entry *e);
void lease_tally_drop(struct lease_table *t, struct lease_entry *e);
/* Add the lease to the counts as what it is now, or take it out. */
void lease_tally_add(struct lease_table *t, const struct lease_entry *e);
void lease_tally_sub(struct lease_table *t, const struct lease_entry *e);
/* Limits of the machine, the uid and the control group. 0 or -EDQUOT. */
int lease_limits_check(const struct lease_table *t, const struct lease_request *req,
		       struct errtext *err);
/* How many leases like this the fair share lets the holder have more in this pool, at most max. */
uint32_t lease_fair_max(const struct lease_table *t, const struct lease_pool *p,
			const struct lease_request *req, uint32_t max);
int lease_fair_error(const struct lease_table *t, const struct lease_pool *p,
		     const struct lease_request *req, struct errtext *err);

/* lease_search.c */

#define LEASE_SLICE_WORDS (65536 / LEASE_WORD_PORTS)
#define LEASE_NOWHERE     UINT32_MAX

/* Of one slice: ports that are taken, by a lease or else, in one of the protocols; as far as that is known. */
struct lease_window {
	uint64_t words[LEASE_SLICE_WORDS];
	uint64_t known[LEASE_SLICE_WORDS / 64];
};

struct lease_search {
	const struct lease_table *t;
	const struct lease_request *req;
	lease_busy_fn *busy;
	void *busy_arg;
	uint32_t align;   /* a power of two, with parity "even" in it */
	uint64_t pattern; /* first ports, of a word, as far as align and parity say within 64 */

	/* The pools to take from, in this order. */
	struct lease_candidate *candidate;
	size_t n_candidates;
	struct range *got; /* what was found, n of them */
	uint32_t n;

	const struct lease_home *home; /* the slice that is looked at */
	struct lease_window *window;
};

/* Find places for all leases. false: there are not as many. The same key gives the same places. */
bool lease_search_run(struct lease_search *s, uint64_t random);
/* The ports of word w of s->home that a lease may begin with. */
uint64_t lease_search_starts(const struct lease_search *s, uint32_t w);

/* lease_slice.c */

/* The index of the slice with this port; -1: none. */
long lease_slice_find(const struct lease_table *t, const struct addr *a, uint16_t port);
/* Word w of a slice has other bits than before: bring its counts, and its pool's, up to date. */
void lease_slice_changed(struct lease_home *h, const uint64_t was[LEASE_L4],
			 const uint64_t now[LEASE_L4]);
/* Count a slice's free ports in its pool, from its own counts; the pool must not count it yet. */
void lease_slice_count(struct lease_home *h);
void lease_slices_free(struct lease_slices *s);

#endif
