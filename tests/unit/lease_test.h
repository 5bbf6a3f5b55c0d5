/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of the lease table share: a table with two pools, and requests. */
#ifndef LEASE_TEST_H
#define LEASE_TEST_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lease.h"

#define S 1000000000ULL

static struct lease_table *t;
static uint64_t id;
static struct lease_limits limits;

static const char *const all_slices[][2] = {
	{ "a", "203.0.113.7:40960-41023" },
	{ "a", "203.0.113.8:40960-41023" },
	{ "b", "203.0.113.9:40960-41087" },
};

static inline struct range ranges(const char *text)
{
	struct range r;

	if (range_parse(text, &r))
		fail_msg("%s", text);
	return r;
}

/* Those whose bit is set; live, or not. */
static inline void slices_set(unsigned which, unsigned live)
{
	struct lease_slice s[3] = { 0 };
	size_t n = 0;

	for (unsigned i = 0; i < 3; i++) {
		if (!(which >> i & 1))
			continue;
		strcpy(s[n].pool, all_slices[i][0]);
		s[n].ports = ranges(all_slices[i][1]);
		s[n++].live = live >> i & 1;
	}
	assert_int_equal(lease_slices_set(t, s, n), 0);
}

static inline int setup(void **state)
{
	(void)state;
	limits = (struct lease_limits){ .leases = 1000, .cool_down_s = 60 };
	t = lease_table_new(&limits);
	assert_non_null(t);
	slices_set(7, 7);
	id = 1;
	return 0;
}

static inline int teardown(void **state)
{
	(void)state;
	lease_table_free(t);
	return 0;
}

static inline struct lease_request request(const char *pool, uint8_t protos, uint32_t ports)
{
	return (struct lease_request){
		.pool = pool,
		.protos = protos,
		.kind = SLUICE_LEASE_EXCLUSIVE,
		.ports = ports,
		.leases = 1,
		.parity = -1,
		.bound = LEASE_BOUND_PROCESS,
		.ttl_s = 30,
		.holder = { .uid = 1000,
			    .pid = 4711,
			    .started = 99,
			    .comm = "echo",
			    .cgroup = "/system.slice/echo.service" },
		.name = "echo",
		.labels = "team=net tier=1",
	};
}

static inline struct lease *grant(const struct lease_request *req, uint64_t now_ns)
{
	struct errtext err = { "" };
	struct range r;
	struct lease *l;

	if (lease_choose(t, req, id, NULL, NULL, &r, &err))
		fail_msg("%s", err.s);
	l = lease_grant(t, id, req, &r, now_ns, 1700000000000);
	assert_non_null(l);
	id++;
	return l;
}

static inline void release(struct lease *l, uint64_t now_ns)
{
	assert_int_equal(lease_release(t, l, LEASE_WHY_RELEASED, now_ns, 1700000005000), 0);
}

static inline struct lease_counts counts(const char *pool)
{
	struct lease_counts c;

	memset(&c, 0xa5, sizeof(c));
	lease_count(t, pool, &c);
	return c;
}

#endif
