/* SPDX-License-Identifier: BSD-2-Clause */
/* The life of leases, the journal, and slices that come and go: case by case. */
#include "lease_test.h"

static void test_life(void **state)
{
	struct lease_request req = request("b", LEASE_TCP | LEASE_UDP, 2);
	struct lease *l = grant(&req, 1000 * S);
	struct addr other;

	(void)state;
	assert_int_equal(l->id, 1);
	assert_string_equal(l->pool, "b");
	assert_int_equal(l->protos, LEASE_TCP | LEASE_UDP);
	assert_int_equal(l->kind, SLUICE_LEASE_EXCLUSIVE);
	assert_int_equal(l->state, LEASE_ACTIVE);
	assert_int_equal(l->bound, LEASE_BOUND_PROCESS);
	assert_int_equal(l->holder.uid, 1000);
	assert_int_equal(l->holder.pid, 4711);
	assert_int_equal(l->holder.started, 99);
	assert_string_equal(l->holder.comm, "echo");
	assert_string_equal(l->holder.cgroup, "/system.slice/echo.service");
	assert_string_equal(l->name, "echo");
	assert_string_equal(l->labels, "team=net tier=1");
	assert_int_equal(l->created_ms, 1700000000000);
	assert_int_equal(l->ttl_s, 30);
	assert_int_equal(l->expires_ns, 1030 * S);
	assert_null(l->user);
	assert_ptr_equal(lease_find(t, 1), l);
	assert_null(lease_find(t, 2));
	assert_null(lease_find(t, 0));
	assert_ptr_equal(lease_at(t, &l->ports.addr, l->ports.first, SLUICE_TCP), l);
	assert_ptr_equal(lease_at(t, &l->ports.addr, l->ports.last, SLUICE_UDP), l);
	assert_null(lease_at(t, &l->ports.addr, l->ports.last, SLUICE_ICMP));
	assert_null(lease_at(t, &l->ports.addr, l->ports.last + 1, SLUICE_TCP));
	assert_int_equal(addr_parse("203.0.113.7", &other), 0);
	assert_null(lease_at(t, &other, l->ports.first, SLUICE_TCP));
	lease_keep(t);

	/* It expires by its deadline, no earlier. */
	assert_int_equal(lease_next_expiry(t), 1030 * S);
	assert_null(lease_expired(t, 1030 * S - 1));
	assert_ptr_equal(lease_expired(t, 1030 * S), l);
	assert_int_equal(lease_renew(t, l, 0, 1010 * S), 0);
	assert_int_equal(l->expires_ns, 1040 * S);
	assert_null(lease_expired(t, 1039 * S));
	assert_int_equal(lease_renew(t, l, 5, 1010 * S), 0);
	assert_int_equal(lease_next_expiry(t), 1015 * S);
	assert_int_equal(l->ttl_s, 5);
	assert_int_equal(lease_renew(t, l, LEASE_TTL_MAX + 1, 1010 * S), -EINVAL);
	assert_int_equal(lease_next_expiry(t), 1015 * S);

	/* It cools down, and its ports are nobody else's. */
	assert_int_equal(lease_release(t, l, LEASE_WHY_EXPIRED, 1015 * S, 1700000015000), 0);
	assert_int_equal(l->state, LEASE_COOLING);
	assert_int_equal(l->why, LEASE_WHY_EXPIRED);
	assert_int_equal(l->ended_ms, 1700000015000);
	assert_int_equal(l->cool_ns, 1075 * S);
	assert_int_equal(lease_next_expiry(t), SLUICE_NEVER);
	assert_null(lease_expired(t, SLUICE_NEVER));
	assert_ptr_equal(lease_at(t, &l->ports.addr, l->ports.first, SLUICE_TCP), l);
	assert_int_equal(lease_release(t, l, LEASE_WHY_REVOKED, 1016 * S, 0), -EINVAL);
	assert_int_equal(lease_renew(t, l, 30, 1016 * S), -EINVAL);
	assert_int_equal(l->why, LEASE_WHY_EXPIRED);
	lease_keep(t);
	assert_int_equal(lease_next_cooled(t), 1075 * S);
	assert_null(lease_cooled(t, 1075 * S - 1));
	assert_ptr_equal(lease_cooled(t, 1075 * S), l);
	lease_cool_on(t, l, 1080 * S);
	assert_null(lease_cooled(t, 1079 * S));
	assert_int_equal(lease_next_cooled(t), 1080 * S);
	other = l->ports.addr;
	lease_free(t, l);
	assert_null(lease_find(t, 1));
	assert_int_equal(lease_next_cooled(t), SLUICE_NEVER);
	for (unsigned p = 40960; p < 41088; p++)
		assert_null(lease_at(t, &other, (uint16_t)p, SLUICE_TCP));
}

static void test_no_time_limit(void **state)
{
	struct lease_request req = request("a", LEASE_TCP, 1);
	struct lease *l;

	(void)state;
	req.ttl_s = 0;
	req.name = req.labels = NULL;
	l = grant(&req, 1000 * S);
	assert_int_equal(l->expires_ns, SLUICE_NEVER);
	assert_string_equal(l->name, "");
	assert_string_equal(l->labels, "");
	assert_null(lease_expired(t, SLUICE_NEVER));
	assert_int_equal(lease_next_expiry(t), SLUICE_NEVER);
	assert_int_equal(lease_renew(t, l, 0, 1000 * S), -EINVAL);
	/* From now on it has one. */
	assert_int_equal(lease_renew(t, l, 7, 1000 * S), 0);
	assert_ptr_equal(lease_expired(t, 1007 * S), l);
	lease_undo(t);
	assert_int_equal(lease_next_expiry(t), SLUICE_NEVER);
}

/* The heaps give the earliest, whatever the order of coming and going. */
static void test_due_order(void **state)
{
	static const uint32_t ttls[] = { 50, 10, 40, 30, 20, 60, 10, 25 };
	enum { N = sizeof(ttls) / sizeof(ttls[0]) };
	struct lease *l[N];
	uint64_t last = 0;

	(void)state;
	for (int i = 0; i < N; i++) {
		struct lease_request req = request("a", LEASE_TCP, 1);

		req.ttl_s = ttls[i];
		l[i] = grant(&req, 0);
	}
	assert_int_equal(lease_renew(t, l[1], 55, 0), 0);
	release(l[3], 5 * S);
	lease_keep(t);
	for (int i = 0; i < N - 1; i++) {
		struct lease *e = lease_expired(t, 60 * S);

		assert_non_null(e);
		assert_true(e->expires_ns >= last);
		last = e->expires_ns;
		release(e, last);
	}
	assert_null(lease_expired(t, 1000 * S));
	lease_keep(t);
	assert_int_equal(lease_next_cooled(t), 65 * S);
	lease_cool_on(t, lease_cooled(t, 65 * S), 1000 * S);
	last = 0;
	for (int i = 0; i < N; i++) {
		struct lease *e = lease_cooled(t, 2000 * S);

		assert_non_null(e);
		assert_true(e->cool_ns >= last);
		last = e->cool_ns;
		lease_free(t, e);
	}
	assert_int_equal(last, 1000 * S);
	assert_null(lease_next(t, 0));
}

/* Everything that the table says, as text. */
static char *dump(void)
{
	char *text = NULL;
	size_t size, n;
	FILE *f = open_memstream(&text, &size);
	const struct lease_slice *s = lease_slices(t, &n);
	uint64_t last = 0;

	assert_non_null(f);
	for (struct lease *l; (l = lease_next(t, last)); last = l->id) {
		const uint8_t *b = (const uint8_t *)l;

		/* Bit by bit. */
		for (size_t i = 0; i < sizeof(*l); i++)
			fprintf(f, "%02x", b[i]);
		fprintf(f, " %p\n", (void *)l);
	}
	for (size_t i = 0; i < n; i++)
		for (unsigned l4 = 0; l4 < 2; l4++)
			for (unsigned p = s[i].ports.first; p <= s[i].ports.last; p++) {
				struct lease *l = lease_at(t, &s[i].ports.addr, (uint16_t)p,
							   (enum sluice_l4)l4);

				fprintf(f, "%llu ", l ? (unsigned long long)l->id : 0);
			}
	for (int i = 0; i < 3; i++) {
		struct lease_counts c = counts(i ? all_slices[i][0] : NULL);

		fprintf(f, "\n%zu %zu %zu %zu %llu %llu %llu %llu", c.active, c.cooling,
			c.by_kind[0], c.by_kind[1], (unsigned long long)c.ports[0],
			(unsigned long long)c.ports[1], (unsigned long long)c.cooling_ports[0],
			(unsigned long long)c.cooling_ports[1]);
	}
	fprintf(f, "\n%llu %llu %p %p %p", (unsigned long long)lease_next_expiry(t),
		(unsigned long long)lease_next_cooled(t), (void *)lease_expired(t, SLUICE_NEVER),
		(void *)lease_cooled(t, SLUICE_NEVER), (void *)lease_foreign(t));
	/* What would be chosen. */
	for (uint64_t key = 0; key < 50; key++) {
		struct lease_request req = request(NULL, (uint8_t)(1 + key % 3), 1 + key % 5);
		struct range r[LEASE_AT_ONCE] = { 0 };
		struct errtext err = { "" };

		req.leases = 1 + key % 7;
		fprintf(f, "\n%d %s", lease_choose(t, &req, key, NULL, NULL, r, &err), err.s);
		for (uint32_t i = 0; i < req.leases; i++)
			fprintf(f, " %u-%u", r[i].first, r[i].last);
	}
	fclose(f);
	return text;
}

static void test_journal(void **state)
{
	struct lease_request req = request("a", LEASE_TCP, 3);
	const struct lease_change *j;
	struct lease *a, *b;
	size_t n;

	(void)state;
	lease_journal(t, &n);
	assert_int_equal(n, 0);
	a = grant(&req, 1000 * S);
	b = grant(&req, 1000 * S);
	assert_int_equal(lease_renew(t, a, 40, 1001 * S), 0);
	release(b, 1002 * S);
	j = lease_journal(t, &n);
	assert_int_equal(n, 4);
	assert_true(j[0].verb == LEASE_GRANTED && j[0].lease == a);
	assert_true(j[1].verb == LEASE_GRANTED && j[1].lease == b);
	assert_true(j[2].verb == LEASE_RENEWED && j[2].lease == a);
	assert_int_equal(j[2].was_expires_ns, 1030 * S);
	assert_int_equal(j[2].was_ttl_s, 30);
	assert_true(j[3].verb == LEASE_RELEASED && j[3].lease == b);
	/* What fails or comes from the store is not in it. */
	assert_int_equal(lease_release(t, b, LEASE_WHY_RELEASED, 0, 0), -EINVAL);
	assert_int_equal(lease_renew(t, b, 1, 0), -EINVAL);
	lease_journal(t, &n);
	assert_int_equal(n, 4);
	lease_keep(t);
	lease_journal(t, &n);
	assert_int_equal(n, 0);
	lease_free(t, b);
	lease_journal(t, &n);
	assert_int_equal(n, 0);
}

/* Some are on the disk, and what came after them is not: it can be taken back by itself. */
static void test_keep_first(void **state)
{
	struct lease_request req = request("a", LEASE_TCP, 3);
	const struct lease_change *j;
	struct lease *a, *b;
	uint64_t later;
	size_t n;

	(void)state;
	a = grant(&req, 1000 * S);
	b = grant(&req, 1000 * S);
	release(a, 1001 * S);
	lease_keep_first(t, 0);
	lease_keep_first(t, 2);
	j = lease_journal(t, &n);
	assert_int_equal(n, 1);
	assert_true(j[0].verb == LEASE_RELEASED && j[0].lease == a);
	later = grant(&req, 1002 * S)->id;
	lease_undo(t);
	lease_journal(t, &n);
	assert_int_equal(n, 0);
	assert_null(lease_find(t, later));
	assert_int_equal(a->state, LEASE_ACTIVE);
	assert_int_equal(b->state, LEASE_ACTIVE);
	release(a, 1003 * S);
	release(b, 1003 * S);
	lease_keep_first(t, 1);
	lease_free(t, a);
	lease_keep_first(t, 1);
	lease_free(t, b);
}

static void test_undo(void **state)
{
	struct lease_request req = request("a", LEASE_TCP, 3), both = request("b", 3, 10);
	struct lease *old[6], *l;
	char *before, *after;

	(void)state;
	limits.uid_leases = 9;
	limits.cgroup_leases = 9;
	limits.fair_percent = 90;
	lease_limits_set(t, &limits);
	for (int i = 0; i < 6; i++)
		old[i] = grant(i % 2 ? &req : &both, 1000 * S);
	release(old[5], 1001 * S);
	lease_keep(t);
	before = dump();

	/* Nothing, one of each, all of them with one lease, and the same lease several times. */
	for (int round = 0; round < 4; round++) {
		if (round == 1) {
			grant(&req, 1002 * S);
			assert_int_equal(lease_renew(t, old[0], 0, 1002 * S), 0);
			release(old[1], 1002 * S);
		} else if (round == 2) {
			l = grant(&both, 1003 * S);
			assert_int_equal(lease_renew(t, l, 7, 1004 * S), 0);
			release(l, 1005 * S);
			assert_null(lease_expired(t, 1011 * S));
		} else if (round == 3) {
			for (unsigned i = 0; i < 200; i++)
				assert_int_equal(lease_renew(t, old[i % 3], 1 + i, (1002 + i) * S),
						 0);
			for (int i = 0; i < 5; i++)
				release(old[i], 1300 * S);
			for (int i = 0; i < 5; i++)
				grant(i % 2 ? &req : &both, 1300 * S);
			assert_null(lease_expired(t, 1329 * S));
		}
		lease_undo(t);
		after = dump();
		assert_string_equal(before, after);
		free(after);
	}
	/* And it goes on from there. */
	assert_null(lease_find(t, id - 1));
	id = 7;
	assert_int_equal(grant(&req, 1400 * S)->id, 7);
	assert_ptr_equal(lease_expired(t, 1030 * S), old[0]);
	free(before);
}

static void test_walk(void **state)
{
	struct lease_request req = request(NULL, LEASE_UDP, 1);
	struct lease *l[100];
	uint64_t seen = 0;
	unsigned n = 0;

	(void)state;
	assert_null(lease_next(t, 0));
	id = 10;
	for (int i = 0; i < 100; i++) {
		l[i] = grant(&req, 0);
		id += 9; /* 10, 20, ... */
	}
	assert_ptr_equal(lease_next(t, 0), l[0]);
	assert_ptr_equal(lease_next(t, 9), l[0]);
	assert_ptr_equal(lease_next(t, 10), l[1]);
	assert_null(lease_next(t, 1000));
	assert_null(lease_next(t, UINT64_MAX));
	/* While somebody walks, those behind and ahead of him go, and new ones come. */
	for (struct lease *e; (e = lease_next(t, seen)); n++) {
		size_t i = (e->id - 10) / 10;

		assert_true(e->id > seen);
		seen = e->id;
		if (i < 99) {
			release(e, 0);
			lease_keep(t);
			lease_free(t, e);
			if (i % 2 == 0) {
				release(l[i + 1], 0);
				lease_keep(t);
				lease_free(t, l[i + 1]);
			}
		}
		if (i == 50) {
			id = 2000;
			grant(&req, 0);
		}
	}
	assert_int_equal(n, 50 + 1);
	assert_int_equal(seen, 2000);
}

static struct lease stored(uint64_t lease_id, const char *pool, const char *ports, uint8_t protos)
{
	struct lease l = { .id = lease_id, .ports = ranges(ports), .protos = protos };

	l.expires_ns = SLUICE_NEVER;
	strcpy(l.pool, pool);
	strcpy(l.holder.cgroup, "/old");
	return l;
}

static void test_adopt(void **state)
{
	struct lease a = stored(70, "a", "203.0.113.7:40970-40979", LEASE_TCP), b, *l;
	struct lease_request req = request("a", LEASE_TCP, 64);
	struct range r;
	size_t n;

	(void)state;
	assert_int_equal(lease_adopt(t, &a), 0);
	l = lease_find(t, 70);
	assert_true(l && l != &a);
	assert_int_equal(lease_adopt(t, &a), -EEXIST);
	b = stored(69, "a", "203.0.113.7:40979-40979", 3);
	assert_int_equal(lease_adopt(t, &b), -EEXIST);
	b.protos = LEASE_UDP;
	assert_int_equal(lease_adopt(t, &b), 0);
	assert_int_equal(lease_next(t, 0)->id, 69);
	b = stored(70, "a", "203.0.113.7:40990-40990", 3);
	assert_int_equal(lease_adopt(t, &b), -EEXIST);
	/* Out of order, foreign, and cooling ones. */
	b = stored(3, "z", "192.0.2.1:1000-2000", 3);
	assert_int_equal(lease_adopt(t, &b), 0);
	b = stored(2, "a", "203.0.113.8:41000-41000", LEASE_TCP);
	b.state = LEASE_COOLING, b.why = LEASE_WHY_SLICE;
	assert_int_equal(lease_adopt(t, &b), 0);
	assert_int_equal(lease_next(t, 0)->id, 2);
	assert_int_equal(lease_next(t, 2)->id, 3);
	assert_int_equal(lease_next(t, 3)->id, 69);
	assert_int_equal(lease_next(t, 69)->id, 70);
	assert_int_equal(lease_cooled(t, 0)->id, 2);
	assert_int_equal(lease_foreign(t)->id, 3);
	assert_int_equal(counts("z").ports[SLUICE_UDP], 1001);
	lease_journal(t, &n);
	assert_int_equal(n, 0);
	assert_int_equal(lease_choose(t, &req, 1, NULL, NULL, &r, NULL), -ENOSPC);
}

static void test_adopt_refused(void **state)
{
	static const struct {
		size_t at, size;
		uint64_t value;
	} bad[] = {
#define BAD(field, v) { offsetof(struct lease, field), sizeof(((struct lease *)0)->field), (v) }
		BAD(id, 0),     BAD(pool[0], 0), BAD(ports.first, 0), BAD(ports.first, 41000),
		BAD(protos, 0), BAD(protos, 4),  BAD(protos, 5),      BAD(kind, 2),
		BAD(state, 1), /* without a reason */
		BAD(state, 2),  BAD(bound, 3),   BAD(why, 1),         BAD(ttl_s, LEASE_TTL_MAX + 1),
#undef BAD
	};
	struct lease good = stored(70, "a", "203.0.113.7:40970-40979", LEASE_TCP);
	struct lease l;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		l = good;
		memcpy((char *)&l + bad[i].at, &bad[i].value, bad[i].size);
		if (lease_adopt(t, &l) != -EINVAL)
			fail_msg("case %zu was taken", i);
	}
	l = good;
	memset(l.name, 'x', sizeof(l.name));
	assert_int_equal(lease_adopt(t, &l), -EINVAL);
	l = good;
	memset(l.labels, 'x', sizeof(l.labels));
	assert_int_equal(lease_adopt(t, &l), -EINVAL);
	l = good;
	memset(l.pool, 'x', sizeof(l.pool));
	assert_int_equal(lease_adopt(t, &l), -EINVAL);
	l = good;
	memset(l.holder.comm, 'x', sizeof(l.holder.comm));
	assert_int_equal(lease_adopt(t, &l), -EINVAL);
	l = good;
	memset(l.holder.cgroup, 'x', sizeof(l.holder.cgroup));
	assert_int_equal(lease_adopt(t, &l), -EINVAL);
	assert_null(lease_next(t, 0));
	assert_int_equal(lease_adopt(t, &good), 0);
}

/* Slices that go and come back with the leases in them. */
static void test_slices(void **state)
{
	struct lease_request req = request("a", LEASE_TCP, 64), rest = request("b", LEASE_UDP, 1);
	struct lease_slice other[2] = { 0 };
	struct lease *l = grant(&req, 0), *m = grant(&rest, 0);
	struct range was = l->ports, r;
	const struct lease_slice *list;
	bool first = was.addr.b[15] == 7;
	size_t n;

	(void)state;
	assert_null(lease_foreign(t));
	list = lease_slices(t, &n);
	assert_int_equal(n, 3);
	assert_string_equal(list[2].pool, "b");
	/* Its slice goes. */
	slices_set(first ? 6 : 5, 7);
	lease_slices(t, &n);
	assert_int_equal(n, 2);
	assert_ptr_equal(lease_foreign(t), l);
	assert_ptr_equal(lease_at(t, &was.addr, was.first, SLUICE_TCP), l);
	assert_int_equal(counts("a").active, 1);
	/* Back, not live: no foreign one, nothing to be had. */
	slices_set(7, first ? 6 : 5);
	assert_null(lease_foreign(t));
	req.addr = &was.addr;
	req.ports = 1;
	assert_int_equal(lease_choose(t, &req, 1, NULL, NULL, &r, NULL), -EKEYEXPIRED);
	/* Live, but the lease has all of it. */
	slices_set(7, 7);
	assert_int_equal(lease_choose(t, &req, 1, NULL, NULL, &r, NULL), -ENOSPC);
	/* The same ports in another pool, or cut differently: half of a lease in a slice is foreign, and still has its ports. */
	strcpy(other[0].pool, "c");
	other[0].ports = was;
	other[0].live = true;
	assert_int_equal(lease_slices_set(t, other, 1), 0);
	assert_true(lease_foreign(t) == l || lease_foreign(t) == m);
	req.pool = "c";
	assert_int_equal(lease_choose(t, &req, 1, NULL, NULL, &r, NULL), -ENOSPC);
	release(l, 0);
	assert_ptr_equal(lease_foreign(t), m);
	lease_undo(t); /* That takes m and l back as well: nothing was kept. */
	assert_null(lease_foreign(t));
	assert_null(lease_next(t, 0));
	assert_int_equal(lease_choose(t, &req, 1, NULL, NULL, &r, NULL), 0);

	strcpy(other[0].pool, "d");
	strcpy(other[1].pool, "d");
	other[1].live = true;
	other[0].ports = other[1].ports = ranges("192.0.2.1:1024-1151");
	assert_int_equal(lease_slices_set(t, other, 1), 0);
	req = request("d", LEASE_TCP, 100);
	l = grant(&req, 0);
	lease_keep(t);
	other[0].ports.last = 1087;
	other[1].ports.first = 1088;
	assert_int_equal(lease_slices_set(t, other, 2), 0);
	assert_ptr_equal(lease_foreign(t), l);
	req.ports = 1;
	req.leases = 28;
	{
		struct range got[LEASE_AT_ONCE];

		assert_int_equal(lease_choose(t, &req, 1, NULL, NULL, got, NULL), 0);
		req.leases = 29;
		assert_int_equal(lease_choose(t, &req, 1, NULL, NULL, got, NULL), -ENOSPC);
	}
	release(l, 0);
	assert_null(lease_foreign(t));
	lease_undo(t);
	assert_ptr_equal(lease_foreign(t), l);
	release(l, 0);
	lease_keep(t);
	lease_free(t, l);
	assert_int_equal(lease_slices_set(t, NULL, 0), 0);
	list = lease_slices(t, &n);
	assert_int_equal(n, 0);
}

static void test_words(void **state)
{
	enum lease_why why = LEASE_WHY_PROCESS;

	(void)state;
	for (int i = LEASE_WHY_NONE; i <= LEASE_WHY_REVOKED; i++) {
		assert_int_equal(lease_why_parse(lease_why_name((enum lease_why)i), &why), 0);
		assert_int_equal(why, i);
	}
	assert_string_equal(lease_why_name(LEASE_WHY_NONE), "");
	assert_string_equal(lease_why_name(LEASE_WHY_EXPIRED), "expired");
	assert_int_equal(lease_why_parse("Expired", &why), -EINVAL);
	assert_int_equal(why, LEASE_WHY_REVOKED);
	assert_string_equal(lease_kind_name(SLUICE_LEASE_SHARED), "shared");
	assert_string_equal(lease_kind_name(SLUICE_LEASE_EXCLUSIVE), "exclusive");
	assert_string_equal(lease_protos_name(LEASE_TCP), "tcp");
	assert_string_equal(lease_protos_name(LEASE_UDP), "udp");
	assert_string_equal(lease_protos_name(LEASE_TCP | LEASE_UDP), "tcp+udp");
	assert_string_equal(lease_bound_name(LEASE_BOUND_NOT), "");
	assert_string_equal(lease_bound_name(LEASE_BOUND_PROCESS), "process");
	assert_string_equal(lease_bound_name(LEASE_BOUND_CGROUP), "cgroup");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_life, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_time_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_due_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_journal, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keep_first, setup, teardown),
		cmocka_unit_test_setup_teardown(test_undo, setup, teardown),
		cmocka_unit_test_setup_teardown(test_walk, setup, teardown),
		cmocka_unit_test_setup_teardown(test_adopt, setup, teardown),
		cmocka_unit_test_setup_teardown(test_adopt_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_slices, setup, teardown),
		cmocka_unit_test(test_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
