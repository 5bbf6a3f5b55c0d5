// SPDX-License-Identifier: BSD-2-Clause
#include "collide.h"

#include <errno.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* The place of addr in a, or -1. */
static ptrdiff_t place(const struct addr *v, size_t n, const struct addr *addr)
{
	size_t low = 0, high = n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int c = addr_cmp(addr, &v[mid]);

		if (!c)
			return (ptrdiff_t)mid;
		if (c < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return -1;
}

bool collide_watched(const struct collide_addrs *a, const struct addr *addr)
{
	return !a->v || place(a->v, a->n, addr) >= 0;
}

/*
 * Only the source side counts: what the packet's source was (orig.src), and what the wire has in its place, which is where the answer goes
 * (reply.dst). The other side tells about destination NAT, with which a rewritten source port may well coincide.
 */
enum collide_verdict collide_judge(const struct ct_entry *e, const struct collide_addrs *watched)
{
	bool same_addr = !addr_cmp(&e->orig.src, &e->reply.dst);

	if (e->l4 != SLUICE_TCP && e->l4 != SLUICE_UDP)
		return COLLIDE_NONE;
	if (same_addr && e->orig.sport == e->reply.dport)
		return COLLIDE_NONE;
	if (!collide_watched(watched, &e->reply.dst))
		return COLLIDE_NONE;
	/* In whatever zone, and with whatever helper: the wire has one port of that number. */
	if (!same_addr)
		return COLLIDE_NAT;
	/* Helpers choose ports for what they expect; a zone that is not the default one somebody made on purpose. */
	if (e->zone || e->helper || e->status & IPS_EXPECTED)
		return COLLIDE_NONE;
	return COLLIDE_REWRITE;
}

/* ---- translated flows by outer port ---- */

#define PORTS   65536
#define L4_N    2 /* TCP, UDP */
#define A_BYTES (sizeof(uint32_t) * PORTS * L4_N)

/* A counter for every port, in memory that the kernel gives out a page at a time, when it is first written to. */
struct collide_ports {
	uint32_t *counts; /* NULL: no address is watched */
	size_t n;
	struct addr addrs[];
};

int collide_ports_new(const struct collide_addrs *watched, struct collide_ports **ret)
{
	struct collide_ports *p;
	void *counts = NULL;

	if (watched->n > SIZE_MAX / 2 / A_BYTES)
		return -ENOMEM;
	p = malloc(sizeof(*p) + watched->n * sizeof(p->addrs[0]));
	if (p && watched->n)
		counts = mmap(NULL, watched->n * A_BYTES, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!p || counts == MAP_FAILED) {
		free(p);
		return -ENOMEM;
	}
	p->counts = counts;
	p->n = watched->n;
	if (p->n)
		memcpy(p->addrs, watched->v, p->n * sizeof(p->addrs[0]));
	*ret = p;
	return 0;
}

void collide_ports_free(struct collide_ports *p)
{
	if (p && p->counts)
		munmap(p->counts, p->n * A_BYTES);
	free(p);
}

void collide_ports_clear(struct collide_ports *p)
{
	/* The pages go back, and come again as zeroes: private and anonymous as they are, that is what this does. */
	if (p->counts && madvise(p->counts, p->n * A_BYTES, MADV_DONTNEED))
		memset(p->counts, 0, p->n * A_BYTES);
}

/* NULL: nobody counts there. */
static uint32_t *count_of(const struct collide_ports *p, enum sluice_l4 l4, const struct addr *a,
			  uint16_t port)
{
	ptrdiff_t at = l4 == SLUICE_TCP || l4 == SLUICE_UDP ? place(p->addrs, p->n, a) : -1;

	return at < 0 ? NULL : &p->counts[((size_t)at * L4_N + (l4 == SLUICE_UDP)) * PORTS + port];
}

void collide_ports_add(struct collide_ports *p, enum sluice_l4 l4, const struct addr *a,
		       uint16_t port, int delta)
{
	uint32_t *count = count_of(p, l4, a, port);

	if (!count)
		return;
	if (delta > 0 && *count < UINT32_MAX)
		++*count;
	else if (delta < 0 && *count > 0)
		--*count;
}

uint32_t collide_ports_get(const struct collide_ports *p, enum sluice_l4 l4, const struct addr *a,
			   uint16_t port)
{
	const uint32_t *count = count_of(p, l4, a, port);

	return count ? *count : 0;
}

/* ---- what was told ---- */

#define NIL     UINT32_MAX
#define BUCKETS (2 * COLLIDE_RECENT_MAX)

struct told {
	struct ct_entry entry;
	uint32_t netns;
	uint32_t sources;
	uint64_t first_ns;
	uint32_t next;         /* of the bucket */
	uint32_t newer, older; /* by first_ns, as the calls came */
};

struct collide_recent {
	uint64_t key;
	uint32_t n; /* of told, in use */
	uint32_t newest, oldest;
	uint32_t buckets[BUCKETS];
	struct told told[COLLIDE_RECENT_MAX];
};

int collide_recent_new(uint64_t key, struct collide_recent **ret)
{
	/* Not touched before it is needed. */
	struct collide_recent *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->key = key;
	r->newest = r->oldest = NIL;
	memset(r->buckets, 0xff, sizeof(r->buckets));
	*ret = r;
	return 0;
}

void collide_recent_free(struct collide_recent *r)
{
	free(r);
}

static uint32_t *bucket_of(struct collide_recent *r, uint32_t netns, const struct ct_entry *e)
{
	return &r->buckets[ct_hash(e, r->key ^ (netns * 0x9e3779b97f4a7c15ULL)) % BUCKETS];
}

static void age_unlink(struct collide_recent *r, uint32_t i)
{
	struct told *t = &r->told[i];

	*(t->newer == NIL ? &r->newest : &r->told[t->newer].older) = t->older;
	*(t->older == NIL ? &r->oldest : &r->told[t->older].newer) = t->newer;
}

static void age_link(struct collide_recent *r, uint32_t i)
{
	struct told *t = &r->told[i];

	t->newer = NIL;
	t->older = r->newest;
	*(t->older == NIL ? &r->oldest : &r->told[t->older].newer) = i;
	r->newest = i;
}

/* A place for a new one, the oldest one's if need be. Linked nowhere. */
static uint32_t take(struct collide_recent *r)
{
	uint32_t i = r->oldest, *link;

	if (r->n < COLLIDE_RECENT_MAX)
		return r->n++;
	link = bucket_of(r, r->told[i].netns, &r->told[i].entry);
	while (*link != i)
		link = &r->told[*link].next;
	*link = r->told[i].next;
	age_unlink(r, i);
	return i;
}

/* The same tuples; but is it the same entry? */
static bool is_another(const struct told *t, const struct ct_entry *e, uint32_t source,
		       uint64_t now_ns, uint64_t forget_ns)
{
	if (t->entry.id && e->id)
		return t->entry.id != e->id;
	return t->sources & source && now_ns > t->first_ns && now_ns - t->first_ns > forget_ns;
}

uint32_t collide_recent_see(struct collide_recent *r, uint32_t netns, const struct ct_entry *e,
			    uint32_t source, uint64_t now_ns, uint64_t forget_ns)
{
	uint32_t *bucket = bucket_of(r, netns, e), i, before;
	struct told *t;

	for (i = *bucket; i != NIL; i = r->told[i].next)
		if (r->told[i].netns == netns && ct_same(&r->told[i].entry, e))
			break;
	if (i == NIL) {
		i = take(r);
		t = &r->told[i];
		t->next = *bucket; /* after take(), which may have changed it */
		*bucket = i;
	} else {
		t = &r->told[i];
		if (!is_another(t, e, source, now_ns, forget_ns)) {
			before = t->sources;
			t->sources |= source;
			if (!t->entry.id)
				t->entry.id = e->id;
			return before;
		}
		age_unlink(r, i);
	}
	t->entry = *e;
	t->netns = netns;
	t->sources = source;
	t->first_ns = now_ns;
	age_link(r, i);
	return 0;
}
