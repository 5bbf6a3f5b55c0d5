/* SPDX-License-Identifier: BSD-2-Clause */
/* Counts, limits, and the fair share: case by case. */
#include "lease_test.h"

static void test_counts(void **state)
{
	struct lease_request tcp = request("a", LEASE_TCP, 3), both = request("b", 3, 5);
	struct lease *l;

	(void)state;
	tcp.kind = SLUICE_LEASE_SHARED;
	grant(&tcp, 0);
	grant(&tcp, 0);
	l = grant(&both, 0);
	assert_int_equal(counts(NULL).active, 3);
	assert_int_equal(counts(NULL).by_kind[SLUICE_LEASE_SHARED], 2);
	assert_int_equal(counts(NULL).by_kind[SLUICE_LEASE_EXCLUSIVE], 1);
	assert_int_equal(counts(NULL).ports[SLUICE_TCP], 11);
	assert_int_equal(counts(NULL).ports[SLUICE_UDP], 5);
	assert_int_equal(counts(NULL).ports[SLUICE_ICMP], 0);
	assert_int_equal(counts("a").ports[SLUICE_TCP], 6);
	assert_int_equal(counts("b").active, 1);
	assert_int_equal(counts("x").active, 0);
	assert_int_equal(counts("x").cooling_ports[0], 0);
	release(l, 0);
	assert_int_equal(counts("b").active, 0);
	assert_int_equal(counts("b").cooling, 1);
	assert_int_equal(counts("b").by_kind[SLUICE_LEASE_EXCLUSIVE], 0);
	assert_int_equal(counts("b").ports[SLUICE_UDP], 0);
	assert_int_equal(counts("b").cooling_ports[SLUICE_UDP], 5);
	lease_keep(t);
	lease_free(t, l);
	assert_int_equal(counts(NULL).cooling, 0);
	assert_int_equal(counts(NULL).cooling_ports[SLUICE_TCP], 0);
}

/* A limit is met: refused with these words, and one less would have been all right. */
static void limited(const struct lease_request *req, const char *a, const char *b)
{
	struct range r[LEASE_AT_ONCE];
	struct errtext err = { "" };
	int got = lease_choose(t, req, 1, NULL, NULL, r, &err);

	if (got != -EDQUOT || !strstr(err.s, a) || !strstr(err.s, b))
		fail_msg("%d, expected \"%s\" and \"%s\": %s", got, a, b, err.s);
	if (req->leases > 1) {
		struct lease_request less = *req;

		less.leases--;
		assert_int_equal(lease_choose(t, &less, 1, NULL, NULL, r, &err), 0);
	}
}

static void allowed(const struct lease_request *req)
{
	struct range r[LEASE_AT_ONCE];
	struct errtext err = { "" };

	if (lease_choose(t, req, 1, NULL, NULL, r, &err))
		fail_msg("%s", err.s);
}

static void test_limits(void **state)
{
	struct lease_request req = request("a", LEASE_TCP, 2), other = req, root = req;
	struct lease *l;

	(void)state;
	other.holder.uid = 1001;
	strcpy(other.holder.cgroup, "/elsewhere");
	root.holder.uid = 0;

	limits.leases = 5;
	lease_limits_set(t, &limits);
	l = grant(&req, 0);
	grant(&other, 0);
	req.leases = 4;
	limited(&req, "this machine has 2 leases", "limit is 5");
	/* Those that cool down have their place yet; root is not exempt. */
	release(l, 0);
	root.leases = 4;
	limited(&root, "this machine has 2 leases, cooling ones included", "4 more");
	limits.leases = 0;
	lease_limits_set(t, &limits);
	req.leases = 1;
	limited(&req, "this machine", "limit is 0");

	limits.leases = 1000;
	limits.uid_leases = 3;
	lease_limits_set(t, &limits);
	req.leases = 4;
	limited(&req, "uid 1000 has 0 leases", "limit is 3 (leases-per-uid)");
	other.leases = 3;
	limited(&other, "uid 1001 has 1 leases", "3 more");
	root.leases = 10;
	allowed(&root);

	limits.uid_leases = 0;
	limits.uid_ports = 13;
	lease_limits_set(t, &limits);
	req.leases = 7;
	limited(&req, "uid 1000 has 0 ports", "limit is 13 (ports-per-uid)");
	req.protos = LEASE_TCP | LEASE_UDP;
	req.leases = 4;
	limited(&req, "uid 1000 has 0 ports", "16 more");
	other.leases = 6;
	limited(&other, "uid 1001 has 2 ports", "12 more");
	allowed(&root);

	limits.uid_ports = 0;
	limits.cgroup_leases = 2;
	lease_limits_set(t, &limits);
	req.leases = 3;
	limited(&req, "control group /system.slice/echo.service has 0", "2 (leases-per-cgroup)");
	other.leases = 2;
	limited(&other, "control group /elsewhere has 1 leases", "2 more");
	/* Another uid of that group, root too. */
	strcpy(root.holder.cgroup, "/elsewhere");
	root.leases = 2;
	limited(&root, "control group /elsewhere has 1 leases", "2 more");
	strcpy(root.holder.cgroup, "/");
	root.leases = 20;
	allowed(&root);
	strcpy(root.holder.cgroup, "");
	allowed(&root);
}

/* Pool b: 128 ports, and less than a quarter, 32, of them shall be free only among users that have no more than their share. */
static void test_fair_share(void **state)
{
	struct lease_request a = request("b", LEASE_TCP, 1), b = a, c = a, root = a;
	struct lease *l;

	(void)state;
	limits.fair_percent = 25;
	lease_limits_set(t, &limits);
	b.holder.uid = 1001;
	c.holder.uid = 1002;
	root.holder.uid = 0;

	/* Alone, somebody may have everything. */
	a.leases = 128;
	allowed(&a);
	/* With two, 64 is each one's share: he who has more may not go below 32 free ports. */
	b.ports = 6, b.port = 40960;
	grant(&b, 0);
	b.port = 0;
	a.leases = 91;
	limited(&a, "less than 25 % of the 128 tcp ports of pool \"b\"",
		"each of its 2 users may have 64");
	/* A pool that is named several times gives no more. */
	a.pool = NULL, a.pools = (const char *const[]){ "b", "b", "b", "b" }, a.n_pools = 4;
	limited(&a, "pool \"b\"", "may have 64");
	a.pool = "b", a.pools = NULL;
	a.leases = 90;
	allowed(&a);
	a.ports = 90, a.leases = 1, a.port = 40966;
	l = grant(&a, 0);
	a.ports = 1, a.port = 0;
	limited(&a, "uid 1000 has 90, cooling ones included", "1 more");
	/* He who has less gets the rest of his share. */
	b.ports = 1;
	b.leases = 32;
	allowed(&b);
	/* Three: 43, rounded up. */
	c.leases = 32;
	allowed(&c);
	c.ports = 32, c.leases = 1;
	root.leases = 32;
	allowed(&root);
	/* The other protocol has its own counts; both together ask for both. */
	a.protos = LEASE_UDP;
	a.leases = 128;
	allowed(&a);
	a.protos = LEASE_TCP | LEASE_UDP;
	a.leases = 1;
	limited(&a, "128 tcp ports", "uid 1000 has 90");
	/* Cooling is still having; freed is not. */
	a.protos = LEASE_TCP;
	release(l, 0);
	limited(&a, "uid 1000 has 90", "of its 2 users");
	lease_keep(t);
	lease_free(t, l);
	a.leases = 90;
	allowed(&a);
	/* Another pool that may serve has room: that one. */
	a.leases = 1, a.ports = 90, a.port = 40966;
	grant(&a, 0);
	a.ports = 1, a.port = 0;
	a.pool = NULL;
	a.leases = 128;
	allowed(&a);
	a.leases = 129;
	limited(&a, "of its 2 users", "129 more");
	/* Off. */
	a.pool = "b", a.leases = 32;
	limits.fair_percent = 0;
	lease_limits_set(t, &limits);
	allowed(&a);
	/* Really used up: that is what is said, not whose fault it is. */
	limits.fair_percent = 25;
	lease_limits_set(t, &limits);
	grant(&c, 0);
	a.leases = 1;
	assert_int_equal(lease_choose(t, &a, 1, NULL, NULL, &(struct range){ 0 }, NULL), -ENOSPC);
	/* Fenced slices are no part of the pool. */
	limits.fair_percent = 100;
	lease_limits_set(t, &limits);
	slices_set(7, 6);
	b = request("a", LEASE_TCP, 1);
	b.holder.uid = 1001;
	grant(&b, 0);
	a = b;
	a.holder.uid = 1002;
	a.leases = 33;
	limited(&a, "100 % of the 64 tcp ports of pool \"a\"", "may have 32");
	/* Rounded up: 64 by three is 22. */
	a.leases = 1;
	grant(&a, 0);
	a.holder.uid = 1003;
	a.leases = 23;
	limited(&a, "3 users", "may have 22");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_counts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fair_share, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
