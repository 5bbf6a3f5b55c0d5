/* SPDX-License-Identifier: BSD-2-Clause */
/* The lease table when memory runs out at any moment: what fails leaves everything as it was, and works the next time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define MODEL_CHECK(x) assert_true(x)
#include "lease_steps.h"

static struct model model;

/* Memory that runs out: the call number fail_at gets none, the others do. */
static unsigned long calls, fail_at;

static void *failing_realloc(void *old, size_t size)
{
	return ++calls == fail_at ? NULL : realloc(old, size);
}

static uint32_t memory_failures;

/* After a failure the table is as it was; the second attempt, with memory, must do. */
static bool again(bool failed)
{
	if (!failed)
		return false;
	assert_true(fail_at && calls >= fail_at);
	memory_failures++;
	model_compare(&model);
	return true;
}

static void memory_grant(uint32_t i)
{
	static const uint32_t sizes[] = { 1, 1, 1, 2, 5, 1, 70 };
	struct lease_request req = {
		.protos = (uint8_t)(1 + i % 3),
		.ports = i < 40 ? sizes[i % 7] : 1,
		.leases = 1,
		.parity = -1,
		.ttl_s = i % 2 * 30,
		.holder = { .uid = i / 20 },
		.name = "n",
	};
	struct errtext err;
	struct range r;
	struct lease *l;

	snprintf(req.holder.cgroup, sizeof(req.holder.cgroup), "/c%u", i / 20);
	assert_int_equal(lease_choose(model.t, &req, i, NULL, NULL, &r, &err), 0);
	do
		l = lease_grant(model.t, model.next_id, &req, &r, model.now_ns, model.now_ms);
	while (again(!l));
	assert_non_null(l);
	model_lease_init(&model, &model.lease[model.n++], model.next_id++, &req, &r);
	model.changes++;
}

static void memory_release(struct lease *mine)
{
	struct lease *l = lease_find(model.t, mine->id);
	int r;

	do
		r = lease_release(model.t, l, LEASE_WHY_RELEASED, model.now_ns, model.now_ms);
	while (again(r == -ENOMEM));
	assert_int_equal(r, 0);
	mine->state = LEASE_COOLING;
	mine->why = LEASE_WHY_RELEASED;
	mine->ended_ms = model.now_ms;
	mine->cool_ns = model.now_ns + model.limits.cool_down_s * MODEL_S;
	model.changes++;
}

static void memory_renew(struct lease *mine)
{
	struct lease *l = lease_find(model.t, mine->id);
	int r;

	do
		r = lease_renew(model.t, l, 50, model.now_ns);
	while (again(r == -ENOMEM));
	assert_int_equal(r, 0);
	mine->ttl_s = 50;
	mine->expires_ns = model.now_ns + 50 * MODEL_S;
	model.changes++;
}

static void memory_slices(uint64_t seed)
{
	struct lease_slice was[MODEL_ADDRS * MODEL_CELLS], want[MODEL_ADDRS * MODEL_CELLS];
	size_t n_was = model.n_slices, n = 0;
	int r;

	memcpy(was, model.slice, sizeof(was));
	for (int a = 0; a < MODEL_ADDRS; a++) {
		for (uint32_t cell = 0; cell < MODEL_CELLS; cell += 2) {
			struct lease_slice *s = &want[n];

			memset(s, 0, sizeof(*s));
			strcpy(s->pool, model_pools[(seed + (uint32_t)a + cell) % 3]);
			s->ports.addr = model.addr[a];
			s->ports.first = (uint16_t)(MODEL_BASE + cell * 64);
			s->ports.last = (uint16_t)(s->ports.first + 127);
			s->live = true;
			n += seed % 2 || cell != 2;
		}
	}
	do {
		r = lease_slices_set(model.t, want, n);
		memcpy(model.slice, r ? was : want, sizeof(was));
		model.n_slices = r ? n_was : n;
	} while (again(r == -ENOMEM));
	assert_int_equal(r, 0);
}

static void memory_adopt(uint64_t id, const char *pool, uint16_t port)
{
	struct lease l = { .id = id,
			   .ports = { .addr = model.addr[1], .first = port, .last = port + 3 },
			   .protos = LEASE_TCP,
			   .holder = { .uid = 77, .cgroup = "/adopted" },
			   .expires_ns = SLUICE_NEVER };
	int r;

	strcpy(l.pool, pool);
	do
		r = lease_adopt(model.t, &l);
	while (again(r == -ENOMEM));
	assert_int_equal(r, 0);
	model.lease[model.n++] = l;
}

/* All that takes memory, more of it than the first arrays have room for; with and without undoing it. */
static void memory_scenario(void)
{
	struct lease_table *t;

	model_new(&model, model_random);
	lease_table_free(model.t);
	calls = 0;
	t = lease_table_new_with(&model.limits, failing_realloc);
	if (!t) {
		assert_int_equal(calls, fail_at);
		memory_failures++;
		t = lease_table_new_with(&model.limits, failing_realloc);
	}
	assert_non_null(t);
	model.t = t;
	memory_slices(1);
	memory_adopt(1000000, "delta", MODEL_BASE + 20);
	memory_adopt(1000001, "alpha", MODEL_BASE + 128);
	model_keep(&model);
	for (uint32_t i = 0; i < 140; i++)
		memory_grant(i);
	for (uint32_t i = 2; i < 60; i++)
		memory_renew(&model.lease[i]);
	for (uint32_t i = 30; i < 90; i++)
		memory_release(&model.lease[i]);
	model_undo(&model);
	for (uint32_t i = 0; i < 290; i++)
		memory_grant(i);
	model_keep(&model);
	for (uint32_t i = 2; i < 90; i++)
		memory_release(&model.lease[i]);
	memory_slices(2);
	model_undo(&model);
	memory_slices(4);
	model_compare(&model);
	lease_table_free(model.t);
}

static void test_memory(void **state)
{
	(void)state;
	memory_failures = 0;
	fail_at = 0;
	memory_scenario();
	for (unsigned long total = calls, k = 1; k <= total; k++) {
		fail_at = k;
		memory_scenario();
	}
	print_message("%lu allocations, %u of their failures were noticed\n", calls,
		      memory_failures);
	/* Only growing a hash table may fail in silence. */
	assert_true(memory_failures > 100 && memory_failures + 10 >= calls - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
