/* SPDX-License-Identifier: BSD-2-Clause */
/* The loader's part of leases: claims against NAT, the map of leased ports, and the sockets that receive for leases. */
#include "dp_test.h"

#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>

#define NPORTS  2048
#define ENTRIES 100000

/* The row of the scene's only slice. */
static uint32_t scene_row(const struct dp *dp)
{
	for (uint32_t row = 0; row < SLUICE_MAX_SLICES; row++)
		if (dp_slice(dp, row)->state == SLUICE_SLICE_HELD)
			return row;
	die("there is no slice");
}

static struct dp *open_scene(uint32_t *ret_row)
{
	struct dp *dp = must_open();
	struct scene s;

	scene_default(&s);
	publish(dp, &s);
	*ret_row = scene_row(dp);
	return dp;
}

/* Rows as NAT has them. */
static struct sluice_block *nat_block(struct dp *dp, uint32_t row, uint32_t l4, uint32_t off)
{
	return &dp->blocks[sluice_block_row(dp_slice(dp, row)->block_base, NPORTS, l4, off)];
}

static uint32_t *nat_flows(struct dp *dp, uint32_t row, uint32_t l4, uint32_t off)
{
	return &dp->port_flows[sluice_port_flows_row(dp_slice(dp, row)->block_base, NPORTS, l4,
						     off)]
			.flows[off % SLUICE_BLOCK_PORTS];
}

static uint32_t released(struct dp *dp, uint32_t row)
{
	uint32_t n;

	map_get_row(dp->nat->maps.released, row, &n);
	return n;
}

static uint32_t n_claimed(struct dp *dp, uint32_t row, enum sluice_l4 l4)
{
	uint32_t n = 0;

	for (uint32_t off = 0; off < NPORTS; off += SLUICE_BLOCK_PORTS)
		n += (uint32_t)__builtin_popcountll(dp_lease_claimed(dp, row, l4, off));
	return n;
}

/* Claims */

static void test_claim(void **state)
{
	uint32_t row, was;
	struct dp *dp = open_scene(&row);

	(void)state;
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, 5, 1), 0);
	assert_int_equal(dp_lease_claimed(dp, row, SLUICE_TCP, 0), 1ULL << 5);
	/* In the map that the programs read, and in no other row. */
	assert_int_equal(nat_block(dp, row, SLUICE_TCP, 5)->leased, 1ULL << 5);
	assert_int_equal(n_claimed(dp, row, SLUICE_TCP), 1);
	assert_int_equal(n_claimed(dp, row, SLUICE_UDP), 0);
	/* The same port of the other protocol. */
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_UDP, 5, 1), 0);

	/* Over the edges of blocks, whole blocks, and the last ports. */
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, 60, 200), 0);
	assert_int_equal(dp_lease_claimed(dp, row, SLUICE_TCP, 0), 1ULL << 5 | 0xfULL << 60);
	assert_int_equal(dp_lease_claimed(dp, row, SLUICE_TCP, 64), ~0ULL);
	assert_int_equal(dp_lease_claimed(dp, row, SLUICE_TCP, 192), ~0ULL);
	assert_int_equal(dp_lease_claimed(dp, row, SLUICE_TCP, 256), 0xfULL);
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, NPORTS - 64, 64), 0);
	assert_int_equal(dp_lease_claimed(dp, row, SLUICE_TCP, NPORTS - 64), ~0ULL);
	assert_int_equal(n_claimed(dp, row, SLUICE_TCP), 1 + 200 + 64);

	/* Overlaps take nothing, wherever they begin and end. */
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, 5, 1), -EBUSY);
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, 6, 55), -EBUSY);
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, 259, 1500), -EBUSY);
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, 1000, NPORTS - 1000), -EBUSY);
	assert_int_equal(n_claimed(dp, row, SLUICE_TCP), 1 + 200 + 64);
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, 6, 54), 0);
	assert_int_equal(n_claimed(dp, row, SLUICE_TCP), 1 + 54 + 200 + 64);

	/* Only what is given up is free. */
	was = released(dp, row);
	dp_lease_unclaim(dp, row, SLUICE_TCP, 60, 200);
	assert_int_equal(n_claimed(dp, row, SLUICE_TCP), 1 + 54 + 64);
	assert_int_equal(dp_lease_claimed(dp, row, SLUICE_TCP, 0), (1ULL << 60) - (1ULL << 5));
	assert_int_not_equal(released(dp, row), was);
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, 60, 1), 0);
	dp_lease_unclaim(dp, row, SLUICE_TCP, 0, NPORTS);
	assert_int_equal(n_claimed(dp, row, SLUICE_TCP), 0);
	assert_int_equal(n_claimed(dp, row, SLUICE_UDP), 1);
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, 0, NPORTS), 0);
	must_close(dp);
}

/* Ports that NAT has: mappings by their bits, overload flows by their counts. */
static void test_claim_busy(void **state)
{
	uint32_t row, was;
	struct dp *dp = open_scene(&row);

	(void)state;
	nat_block(dp, row, SLUICE_UDP, 130)->bits = 1ULL << 2;
	*nat_flows(dp, row, SLUICE_TCP, 200) = 3;
	*nat_flows(dp, row, SLUICE_TCP, NPORTS - 1) = 1;
	assert_int_equal(dp_lease_busy(dp, row, SLUICE_UDP, 128), 1ULL << 2);
	assert_int_equal(dp_lease_busy(dp, row, SLUICE_UDP, 192), 0);
	assert_int_equal(dp_lease_busy(dp, row, SLUICE_TCP, 128), 0);
	assert_int_equal(dp_lease_busy(dp, row, SLUICE_TCP, 192), 1ULL << 8);
	assert_int_equal(dp_lease_busy(dp, row, SLUICE_TCP, NPORTS - 64), 1ULL << 63);

	was = released(dp, row);
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_UDP, 130, 1), -EBUSY);
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_UDP, 0, NPORTS), -EBUSY);
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, 200, 1), -EBUSY);
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, 30, 171), -EBUSY);
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, NPORTS - 1, 1), -EBUSY);
	assert_int_equal(n_claimed(dp, row, SLUICE_TCP), 0);
	assert_int_equal(n_claimed(dp, row, SLUICE_UDP), 0);
	/* While they were claimed, a search may have noted that the slice is full. */
	assert_int_not_equal(released(dp, row), was);

	/* Its neighbours are free, and so are the ports of the other protocol. */
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, 30, 170), 0);
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, 201, 1000), 0);
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_UDP, 200, 1), 0);

	/* What NAT gives back is free. */
	nat_block(dp, row, SLUICE_UDP, 130)->bits = 0;
	*nat_flows(dp, row, SLUICE_TCP, 200) = 0;
	assert_int_equal(dp_lease_busy(dp, row, SLUICE_TCP, 192), 0);
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_UDP, 130, 1), 0);
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, 200, 1), 0);
	must_close(dp);
}

/* Another thread plays NAT: a claim that stood while it held the port is what must not be. */
struct rival {
	struct sluice_block *block;
	volatile int stop;
	unsigned long both, won;
};

static void *rival_run(void *arg)
{
	struct rival *r = arg;

	while (!r->stop) {
		__atomic_fetch_or(&r->block->bits, 1, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&r->block->leased, __ATOMIC_SEQ_CST) & 1) {
			__atomic_fetch_and(&r->block->bits, ~1ULL, __ATOMIC_SEQ_CST);
			continue;
		}
		r->won++;
		/* Ours. The daemon's bit may come and go, but it may not be confirmed: that is noted in pad. */
		if (__atomic_load_n(&r->block->pad, __ATOMIC_SEQ_CST))
			r->both++;
		__atomic_fetch_and(&r->block->bits, ~1ULL, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

static void test_claim_race(void **state)
{
	unsigned long won = 0, both = 0;
	struct rival r = { 0 };
	struct dp *dp;
	pthread_t thread;
	uint32_t row;

	(void)state;
	dp = open_scene(&row);
	r.block = nat_block(dp, row, SLUICE_UDP, 0);
	assert_int_equal(pthread_create(&thread, NULL, rival_run, &r), 0);
	for (uint64_t end = now_ns() + 300000000; now_ns() < end || !won || !r.won;) {
		if (dp_lease_claim(dp, row, SLUICE_UDP, 0, 1))
			continue;
		won++;
		__atomic_store_n(&r.block->pad, 1, __ATOMIC_SEQ_CST);
		for (int i = 0; i < 10; i++)
			/* It may try, but finds our bit and steps back: it is not there for good. */
			both += dp_lease_claimed(dp, row, SLUICE_UDP, 0) != 1;
		__atomic_store_n(&r.block->pad, 0, __ATOMIC_SEQ_CST);
		dp_lease_unclaim(dp, row, SLUICE_UDP, 0, 1);
	}
	r.stop = 1;
	pthread_join(thread, NULL);
	print_message("the daemon won %lu times, NAT %lu times\n", won, r.won);
	assert_int_equal(both + r.both, 0);
	must_close(dp);
}

/* Map "leases" */

static struct dp_lease entry_nth(uint32_t i)
{
	struct dp_lease l = { 0 };

	l.key.addr = addr_of(SHARED + i / 50000);
	l.key.port = htons((uint16_t)(i % 50000 + 1000));
	l.key.l4 = i & 1 ? SLUICE_UDP : SLUICE_TCP;
	l.lease.id = i + 1;
	l.lease.uid = i * 7;
	l.lease.kind = i % 3 ? SLUICE_LEASE_SHARED : SLUICE_LEASE_EXCLUSIVE;
	return l;
}

static struct dp_lease *entries_new(uint32_t n)
{
	struct dp_lease *list = calloc(n, sizeof(*list));

	assert_non_null(list);
	for (uint32_t i = 0; i < n; i++)
		list[i] = entry_nth(i);
	return list;
}

static struct dp_lease *must_read_leases(struct dp *dp, size_t want)
{
	struct errtext err = { "" };
	struct dp_lease *list;
	size_t n;

	if (dp_lease_read(dp, &list, &n, &err))
		die("dp_lease_read: %s", err.s);
	assert_int_equal(n, want);
	for (size_t i = 1; i < n; i++)
		assert_true(memcmp(&list[i - 1].key, &list[i].key, sizeof(list[i].key)) < 0);
	return list;
}

static void test_entries(void **state)
{
	struct dp_lease *list = entries_new(ENTRIES), *got, one;
	struct sluice_port_key *keys = calloc(ENTRIES, sizeof(*keys));
	struct errtext err = { "" };
	struct sluice_lease value;
	uint8_t *seen = calloc(ENTRIES, 1);
	struct dp *dp = must_open();

	(void)state;
	assert_true(keys && seen);
	free(must_read_leases(dp, 0));
	assert_int_equal(dp_lease_put(dp, list, 0, &err), 0);
	assert_int_equal(dp_lease_put(dp, list, ENTRIES, &err), 0);
	got = must_read_leases(dp, ENTRIES);
	for (size_t i = 0; i < ENTRIES; i++) {
		assert_in_range(got[i].lease.id, 1, ENTRIES);
		one = entry_nth((uint32_t)got[i].lease.id - 1);
		assert_memory_equal(&one, &got[i], sizeof(one));
		assert_false(seen[got[i].lease.id - 1]++);
	}
	free(got);

	/* Replacing leaves the others. */
	list[4711].lease.steer = 8;
	list[4711].lease.uid = 1000;
	assert_int_equal(dp_lease_put(dp, &list[4711], 1, &err), 0);
	map_get(dp->nat->maps.leases, &list[4711].key, &value);
	assert_memory_equal(&value, &list[4711].lease, sizeof(value));
	map_get(dp->nat->maps.leases, &list[4710].key, &value);
	assert_memory_equal(&value, &list[4710].lease, sizeof(value));
	free(must_read_leases(dp, ENTRIES));

	/* Every third goes; then all, among which those are missing: at the start, at the end, in between. */
	for (size_t i = 0; i < ENTRIES; i++)
		keys[i] = list[i].key;
	for (size_t i = 0; i < ENTRIES; i += 3)
		keys[i / 3] = list[i].key;
	assert_int_equal(dp_lease_rm(dp, keys, (ENTRIES + 2) / 3, &err), 0);
	got = must_read_leases(dp, ENTRIES - (ENTRIES + 2) / 3);
	for (size_t i = 0; i < ENTRIES - (ENTRIES + 2) / 3; i++)
		assert_int_not_equal((got[i].lease.id - 1) % 3, 0);
	free(got);
	for (size_t i = 0; i < ENTRIES; i++)
		keys[i] = list[i].key;
	assert_int_equal(dp_lease_rm(dp, keys, ENTRIES, &err), 0);
	free(must_read_leases(dp, 0));
	assert_int_equal(dp_lease_rm(dp, keys, 3, &err), 0);
	must_close(dp);
	free(list);
	free(keys);
	free(seen);
}

static void test_entries_full(void **state)
{
	enum {
		ALL = SLUICE_MAX_LEASED + 10,
	};
	struct dp_lease *list = entries_new(ALL), one;
	struct errtext err = { "" };
	struct sluice_lease value;
	struct dp *dp = must_open();

	(void)state;
	assert_int_equal(dp_lease_put(dp, list, ALL, &err), -ENOSPC);
	assert_non_null(strstr(err.s, "262144"));
	/* Those before it are entered, the one that did not fit is not. */
	free(must_read_leases(dp, SLUICE_MAX_LEASED));
	map_get(dp->nat->maps.leases, &list[SLUICE_MAX_LEASED - 1].key, &value);
	assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(dp->nat->maps.leases),
					     &list[SLUICE_MAX_LEASED].key, &value),
			 -ENOENT);
	/* What is there can be replaced, and what goes makes room. */
	one = list[3];
	one.lease.uid = 77;
	assert_int_equal(dp_lease_put(dp, &one, 1, &err), 0);
	map_get(dp->nat->maps.leases, &one.key, &value);
	assert_int_equal(value.uid, 77);
	assert_int_equal(dp_lease_put(dp, &list[ALL - 1], 1, &err), -ENOSPC);
	assert_int_equal(dp_lease_rm(dp, &one.key, 1, &err), 0);
	assert_int_equal(dp_lease_put(dp, &list[ALL - 1], 1, &err), 0);
	must_close(dp);
	free(list);
}

/* Steering */

static int bound(int type, int family)
{
	struct sockaddr_in6 sa6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in sa4 = { .sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(family, type | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	if (family == AF_INET)
		assert_int_equal(bind(fd, (struct sockaddr *)&sa4, sizeof(sa4)), 0);
	else
		assert_int_equal(bind(fd, (struct sockaddr *)&sa6, sizeof(sa6)), 0);
	if (type == SOCK_STREAM)
		assert_int_equal(listen(fd, 8), 0);
	return fd;
}

static void test_steer(void **state)
{
	int udp, udp6, tcp, raw_tcp;
	struct errtext err = { "" };
	struct dp *dp = must_open();

	(void)state;
	udp = bound(SOCK_DGRAM, AF_INET);
	udp6 = bound(SOCK_DGRAM, AF_INET6);
	tcp = bound(SOCK_STREAM, AF_INET);
	assert_int_equal(dp_steer_cookie(dp, 0), 0);
	dp_steer_clear(dp, 0);
	if (dp_steer_set(dp, 0, udp, &err))
		die("%s", err.s);
	assert_int_equal(dp_steer_set(dp, SLUICE_MAX_STEERED - 1, tcp, &err), 0);
	assert_int_equal(dp_steer_cookie(dp, 0), cookie_of(udp));
	assert_int_equal(dp_steer_cookie(dp, SLUICE_MAX_STEERED - 1), cookie_of(tcp));
	assert_int_equal(dp_steer_cookie(dp, 1), 0);

	/* Another socket takes the slot over; one may have several. */
	assert_int_equal(dp_steer_set(dp, 0, udp6, &err), 0);
	assert_int_equal(dp_steer_cookie(dp, 0), cookie_of(udp6));
	assert_int_equal(dp_steer_set(dp, 1, udp6, &err), 0);
	dp_steer_clear(dp, 0);
	assert_int_equal(dp_steer_cookie(dp, 0), 0);
	assert_int_equal(dp_steer_cookie(dp, 1), cookie_of(udp6));

	/* Its last descriptor is closed: it is gone from the slot. While there is another one it is not. */
	assert_int_equal(dp_steer_set(dp, 2, udp, &err), 0);
	assert_int_equal(dup2(udp, udp6), udp6);
	wait_for(!dp_steer_cookie(dp, 1));
	assert_int_equal(close(udp), 0);
	assert_int_equal(dp_steer_cookie(dp, 2), cookie_of(udp6));
	close(udp6);
	wait_for(!dp_steer_cookie(dp, 2));
	close(tcp);
	wait_for(!dp_steer_cookie(dp, SLUICE_MAX_STEERED - 1));

	/* What the kernel does not take leaves the slot alone. */
	udp = bound(SOCK_DGRAM, AF_INET);
	assert_int_equal(dp_steer_set(dp, 0, udp, &err), 0);
	raw_tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(raw_tcp >= 0);
	assert_int_equal(dp_steer_set(dp, 0, raw_tcp, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.s, "steered"));
	assert_int_equal(dp_steer_set(dp, 0, dp->lock_fd, &err), -ENOTSOCK);
	assert_int_equal(dp_steer_cookie(dp, 0), cookie_of(udp));
	close(raw_tcp);
	close(udp);
	must_close(dp);
}

/* A descriptor that was handed over keeps the socket in its slot after ours is closed. */
static void test_steer_other_process(void **state)
{
	struct errtext err = { "" };
	struct dp *dp = must_open();
	int udp, hold[2];
	pid_t pid;
	char c;

	(void)state;
	udp = bound(SOCK_DGRAM, AF_INET);
	assert_int_equal(pipe(hold), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		close(hold[1]);
		_exit(read(hold[0], &c, 1) == 0 ? 0 : 1);
	}
	close(hold[0]);
	assert_int_equal(dp_steer_set(dp, 9, udp, &err), 0);
	close(udp);
	assert_int_not_equal(dp_steer_cookie(dp, 9), 0);
	close(hold[1]);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	wait_for(!dp_steer_cookie(dp, 9));
	must_close(dp);
}

static void test_owner(void **state)
{
	struct sluice_owner put = { .cgroup = 5, .pid = 77, .uid = 1000, .comm = "curl" }, got;
	uint64_t cookie = 4711;
	struct dp *dp = must_open();

	(void)state;
	assert_false(dp_owner(dp, cookie, &got));
	map_put(dp->nat->maps.owners, &cookie, &put);
	assert_true(dp_owner(dp, cookie, &got));
	assert_memory_equal(&put, &got, sizeof(got));
	assert_false(dp_owner(dp, cookie + 1, &got));
	must_close(dp);
}

/* All of it outlives the daemon; a claim ends with its slice. */
static void test_survival(void **state)
{
	struct dp_lease one = entry_nth(1), *got;
	struct errtext err = { "" };
	struct scene s;
	struct dp *dp;
	uint32_t row;
	int udp;

	(void)state;
	dp = open_scene(&row);
	udp = bound(SOCK_DGRAM, AF_INET);
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, 100, 100), 0);
	assert_int_equal(dp_lease_put(dp, &one, 1, &err), 0);
	assert_int_equal(dp_steer_set(dp, 3, udp, &err), 0);
	must_close(dp);

	dp = must_open();
	scene_default(&s);
	publish(dp, &s);
	assert_int_equal(n_claimed(dp, row, SLUICE_TCP), 100);
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, 199, 1), -EBUSY);
	assert_int_equal(dp_lease_claim(dp, row, SLUICE_TCP, 200, 1), 0);
	got = must_read_leases(dp, 1);
	assert_memory_equal(got, &one, sizeof(one));
	free(got);
	assert_int_equal(dp_steer_cookie(dp, 3), cookie_of(udp));

	/* A slice under another epoch is another slice. */
	s.rows[0].epoch = 2;
	publish(dp, &s);
	assert_int_equal(n_claimed(dp, scene_row(dp), SLUICE_TCP), 0);
	must_close(dp);
	close(udp);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_claim, lab_clean),
		cmocka_unit_test_teardown(test_claim_busy, lab_clean),
		cmocka_unit_test_teardown(test_claim_race, lab_clean),
		cmocka_unit_test_teardown(test_entries, lab_clean),
		cmocka_unit_test_teardown(test_entries_full, lab_clean),
		cmocka_unit_test_teardown(test_steer, lab_clean),
		cmocka_unit_test_teardown(test_steer_other_process, lab_clean),
		cmocka_unit_test_teardown(test_owner, lab_clean),
		cmocka_unit_test_teardown(test_survival, lab_clean),
	};

	return cmocka_run_group_tests(tests, lab_open, NULL);
}
