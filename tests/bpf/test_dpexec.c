/* SPDX-License-Identifier: BSD-2-Clause */
/* The loader's rows for "sluice exec": maps "execs" and "onlink", and how many rows the programs are told of. */
#include "dp_test.h"

static struct dp *dp;

static int setup(void **state)
{
	(void)state;
	dp = must_open();
	return 0;
}

static int map_fd(const struct bpf_map *map)
{
	return bpf_map__fd(map);
}

static struct sluice_exec row_of(uint64_t lease)
{
	struct sluice_exec e = { .lease = lease, .pool = 1, .first = FIRST, .last = FIRST + 7 };

	return e;
}

static void must_put(uint64_t id, uint64_t lease)
{
	struct sluice_exec e = row_of(lease);
	struct errtext err = { "" };

	if (dp_exec_put(dp, id, &e, &err))
		die("dp_exec_put: %s", err.s);
}

static uint64_t lease_of(uint64_t id)
{
	struct sluice_exec e;

	return bpf_map_lookup_elem(map_fd(dp->nat->maps.execs), &id, &e) ? 0 : e.lease;
}

static void test_rows(void **state)
{
	(void)state;
	assert_int_equal(dp->conf->execs, 0);
	must_put(100, 7);
	assert_int_equal(dp->conf->execs, 1);
	must_put(101, 8);
	assert_int_equal(dp->conf->execs, 2);
	/* Another lease for the same group. */
	must_put(100, 9);
	assert_int_equal(dp->conf->execs, 2);
	assert_int_equal(lease_of(100), 9);
	assert_int_equal(lease_of(101), 8);
	/* A daemon that was killed in between left a wrong number. */
	dp->conf->execs = 17;
	dp_exec_rm(dp, 100);
	assert_int_equal(dp->conf->execs, 1);
	assert_int_equal(lease_of(100), 0);
	dp_exec_rm(dp, 100);
	assert_int_equal(dp->conf->execs, 1);
	/* They outlive the daemon. */
	must_close(dp);
	dp = must_open();
	assert_int_equal(lease_of(101), 8);
	assert_int_equal(dp->conf->execs, 1);
	dp_exec_rm(dp, 101);
	/* Connections that have outlived their processes are looked for still. */
	assert_int_equal(dp->conf->execs, 1);
	assert_int_equal(lease_of(101), 0);
}

static void test_full(void **state)
{
	struct sluice_exec e = row_of(1);
	struct errtext err = { "" };
	uint64_t id;

	(void)state;
	for (id = 1; id <= SLUICE_MAX_EXECS; id++)
		assert_int_equal(bpf_map_update_elem(map_fd(dp->nat->maps.execs), &id, &e, BPF_ANY),
				 0);
	assert_int_equal(dp_exec_put(dp, id, &e, &err), -ENOSPC);
	assert_non_null(strstr(err.s, "4096"));
	assert_int_equal(dp->conf->execs, SLUICE_MAX_EXECS);
	must_put(5, 6);
	assert_int_equal(lease_of(5), 6);
	dp_exec_rm(dp, 1);
	must_put(id, 3);
	assert_int_equal(dp->conf->execs, SLUICE_MAX_EXECS);
}

/* Prefixes of 32 bits from 10.0.0.0 on. */
static struct plan_prefix *prefixes(size_t n, uint32_t from, uint32_t value)
{
	struct plan_prefix *list = calloc(n, sizeof(*list));

	assert_non_null(list);
	for (size_t i = 0; i < n; i++) {
		struct addr a = addr_from_v4(htonl(0x0a000000 + from + (uint32_t)i));

		list[i].key.prefixlen = SLUICE_LPM_POOL_BITS + 128;
		memcpy(list[i].key.addr.b, a.b, sizeof(a.b));
		list[i].value = value;
	}
	return list;
}

static void must_set(uint32_t from, size_t n, uint32_t value)
{
	struct plan_prefix *list = prefixes(n, from, value);
	struct errtext err = { "" };

	if (dp_exec_onlink(dp, list, n, &err))
		die("dp_exec_onlink: %s", err.s);
	free(list);
}

/* -1: no entry. */
static int64_t value_at(uint32_t at)
{
	struct plan_prefix *key = prefixes(1, at, 0);
	uint32_t value;
	int r = bpf_map_lookup_elem(map_fd(dp->nat->maps.onlink), &key->key, &value);

	free(key);
	return r ? -1 : (int64_t)value;
}

static void test_onlink(void **state)
{
	struct plan_prefix *list = prefixes(SLUICE_MAX_PREFIXES + 1, 0, 0);
	struct errtext err = { "" };

	(void)state;
	must_set(0, 0, 0);
	assert_int_equal(value_at(0), -1);
	must_set(0, 10, 0);
	assert_int_equal(value_at(0), 0);
	assert_int_equal(value_at(9), 0);
	assert_int_equal(value_at(10), -1);
	must_set(5, 10, 1);
	assert_int_equal(value_at(4), -1);
	assert_int_equal(value_at(5), 1);
	assert_int_equal(value_at(14), 1);
	/* Too many: as before. */
	assert_int_equal(dp_exec_onlink(dp, list, SLUICE_MAX_PREFIXES + 1, &err), -ENOSPC);
	assert_int_equal(value_at(0), -1);
	assert_int_equal(value_at(14), 1);
	/* As many as fit, and as many others: both together would not. */
	must_set(0, SLUICE_MAX_PREFIXES, 0);
	assert_int_equal(value_at(SLUICE_MAX_PREFIXES - 1), 0);
	must_set(SLUICE_MAX_PREFIXES, SLUICE_MAX_PREFIXES, 0);
	assert_int_equal(value_at(0), -1);
	assert_int_equal(value_at(2 * SLUICE_MAX_PREFIXES - 1), 0);
	must_set(0, 0, 0);
	assert_int_equal(value_at(2 * SLUICE_MAX_PREFIXES - 1), -1);
	free(list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_rows, setup, lab_clean),
		cmocka_unit_test_setup_teardown(test_full, setup, lab_clean),
		cmocka_unit_test_setup_teardown(test_onlink, setup, lab_clean),
	};

	return cmocka_run_group_tests_name("dpexec", tests, lab_open, NULL);
}
