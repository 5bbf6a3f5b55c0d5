/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The loader's hooks, with real packets: a veth pair in a namespace of our own, at whose near end
 * the programs go. A socket sends from a shared address with a port that no slice has, so that each
 * packet is dropped where the programs are, and arrives at the far end where they are not. What the
 * kernel has is asked of tc(8) and the kernel, not of the loader.
 *
 *	socket, 203.0.113.7:9 --> near (hooks) ====== far
 */
#include "dp_test.h"

#include <ifaddrs.h>
#include <linux/if_link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#define NEAR "slab0"
#define FAR  "slab1"

static int sender = -1;

/* The link */

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		die("%s: %s", path, strerror(errno));
	close(fd);
}

static void link_up(const char *name)
{
	must_run("ip link set %s arp off up && ip route add 198.51.100.0/24 dev %s", name, name);
}

static void link_make(const char *name)
{
	must_run("ip link add %s type veth peer name " FAR " && ip link set " FAR " arp off up",
		 name);
	link_up(name);
}

static int hooks_open(void **state)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons(9),
				 .sin_addr.s_addr = htonl(SHARED) };

	lab_open(state);
	/* No packets but ours. */
	write_file("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
	write_file("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
	must_run("ip addr add 203.0.113.7/32 dev lo");
	sender = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sender < 0 || bind(sender, (void *)&a, sizeof(a)))
		die("a socket at the shared address: %s", strerror(errno));
	return 0;
}

static int link_setup(void **state)
{
	(void)state;
	link_make(NEAR);
	return 0;
}

static int link_teardown(void **state)
{
	lab_clean(state);
	return run_command("ip link del " FAR);
}

static bool send_one(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons(9),
				 .sin_addr.s_addr = htonl(REMOTE) };

	/* What a hook drops is reported to the sender as ENOBUFS, or not at all. */
	return sendto(sender, "x", 1, 0, (void *)&a, sizeof(a)) == 1 || errno == ENOBUFS;
}

static uint64_t far_received(void)
{
	struct ifaddrs *list, *i;
	uint64_t n = 0;

	if (getifaddrs(&list))
		die("getifaddrs: %s", strerror(errno));
	for (i = list; i; i = i->ifa_next)
		if (i->ifa_addr && i->ifa_addr->sa_family == AF_PACKET && !strcmp(i->ifa_name, FAR))
			n = ((const struct rtnl_link_stats *)i->ifa_data)->rx_packets;
	freeifaddrs(list);
	return n;
}

static bool arrives(void)
{
	uint64_t before = far_received();

	assert_true(send_one());
	return far_received() == before + 1;
}

/* The hooks */

static bool have_tcx(void)
{
	__u32 n = 0;

	return bpf_prog_query((int)if_nametoindex("lo"), (enum bpf_attach_type)46, 0, NULL, NULL,
			      &n) != -EINVAL;
}

/* Programs at both TCX hooks of an interface; -1 if they are not as many at each. */
static int tcx_count(const char *name)
{
	__u32 in[8], out[8], n_in = 8, n_out = 8;
	int ifindex = (int)if_nametoindex(name);

	if (!have_tcx())
		return 0;
	assert_int_equal(bpf_prog_query(ifindex, (enum bpf_attach_type)46, 0, NULL, in, &n_in), 0);
	assert_int_equal(bpf_prog_query(ifindex, (enum bpf_attach_type)47, 0, NULL, out, &n_out),
			 0);
	return n_in == n_out ? (int)n_in : -1;
}

/* Filters at a side of clsact, as tc shows them. */
static int tc_count(const char *name, const char *side, const char *pattern)
{
	char cmd[256];
	int n = 0;
	FILE *f;

	snprintf(cmd, sizeof(cmd), "tc filter show dev %s %s | grep -c '%s'", name, side, pattern);
	f = popen(cmd, "r");
	if (!f || fscanf(f, "%d", &n) != 1)
		die("%s", cmd);
	pclose(f);
	return n;
}

static bool has_clsact(const char *name)
{
	return !run_command("tc qdisc show dev %s | grep -q clsact", name);
}

static void must_attach(struct dp *dp, const char *name, const char *how)
{
	struct errtext err = { "" };
	const char *got;

	if (dp_attach(dp, if_nametoindex(name), name, &got, &err))
		die("dp_attach: %s", err.s);
	assert_string_equal(got, how);
}

static struct dp *must_open_kind(bool clsact)
{
	struct dp_opts opts = lab_opts();
	struct errtext err = { "" };

	opts.force_clsact = clsact;
	if (dp_open(&opts, &lab_dp, &err))
		die("dp_open: %s", err.s);
	return lab_dp;
}

/* Opened, with the one shared address that makes the sender's packets escapes. */
static struct dp *must_open_scene(bool clsact)
{
	struct dp *dp = must_open_kind(clsact);
	struct scene s;

	scene_default(&s);
	publish(dp, &s);
	return dp;
}

static uint64_t escapes(const struct dp *dp)
{
	struct sluice_count drops[SLUICE_REASON_MAX];

	assert_int_equal(dp_drops(dp, drops), 0);
	return drops[SLUICE_DROP_escape].packets;
}

static void must_teardown(char *uplink)
{
	struct errtext err = { "" };

	if (dp_teardown(lab_dir, &uplink, 1, &err))
		die("dp_teardown: %s", err.s);
	assert_false(lab_has("."));
}

/* Tests. Each kind of hook has to do the same. */

static void hook(bool clsact)
{
	struct dp *dp;

	assert_true(arrives());
	dp = must_open_scene(clsact);
	assert_true(arrives());
	must_attach(dp, NEAR, clsact ? "clsact" : "tcx");
	assert_false(arrives());
	assert_int_equal(escapes(dp), 1);
	assert_int_equal(tcx_count(NEAR), clsact ? 0 : 1);
	assert_int_equal(has_clsact(NEAR), clsact);

	/* Without a daemon. */
	must_close(dp);
	assert_false(arrives());

	must_teardown(NEAR);
	assert_true(arrives());
	assert_int_equal(tcx_count(NEAR), 0);
	assert_false(has_clsact(NEAR));
	must_teardown(NEAR);
}

static void test_tcx(void **state)
{
	(void)state;
	if (!have_tcx())
		skip();
	hook(false);
}

static void test_clsact(void **state)
{
	(void)state;
	hook(true);
}

static atomic_bool stop;
static atomic_ullong sent;

static void *send_on(void *arg)
{
	while (!stop && send_one())
		sent++;
	return arg;
}

/* Not one packet gets past while one daemon follows the other. */
static void exchange(bool clsact)
{
	uint64_t before = far_received();
	pthread_t thread;
	struct dp *dp;

	dp = must_open_scene(clsact);
	must_attach(dp, NEAR, clsact ? "clsact" : "tcx");
	must_close(dp);
	stop = false;
	sent = 0;
	assert_int_equal(pthread_create(&thread, NULL, send_on, NULL), 0);
	for (int i = 0; i < 10; i++) {
		unsigned long long at = sent;

		dp = must_open_kind(clsact);
		must_attach(dp, NEAR, clsact ? "clsact" : "tcx");
		must_close(dp);
		wait_for(sent > at + 100);
		assert_int_equal(tcx_count(NEAR), clsact ? 0 : 1);
	}
	stop = true;
	pthread_join(thread, NULL);
	assert_int_equal(far_received(), before);
	dp = must_open_kind(clsact);
	assert_int_equal(escapes(dp), sent);
	must_close(dp);
	if (clsact) {
		assert_int_equal(tc_count(NEAR, "egress", "uplink_egress"), 1);
		assert_int_equal(tc_count(NEAR, "ingress", "uplink_ingress"), 1);
	}
}

static void test_tcx_exchange(void **state)
{
	(void)state;
	if (!have_tcx())
		skip();
	exchange(false);
}

static void test_clsact_exchange(void **state)
{
	(void)state;
	exchange(true);
}

/* An interface is deleted and comes again, under the same name. */
static void recreate(bool clsact)
{
	struct dp *dp;

	dp = must_open_scene(clsact);
	must_attach(dp, NEAR, clsact ? "clsact" : "tcx");
	must_run("ip link del " NEAR);
	link_make(NEAR);
	assert_true(arrives());
	must_attach(dp, NEAR, clsact ? "clsact" : "tcx");
	assert_false(arrives());
	assert_int_equal(tcx_count(NEAR), clsact ? 0 : 1);
	must_close(dp);
	/* And goes for good, with the daemon down. */
	must_run("ip link del " NEAR);
	must_teardown(NEAR);
	link_make(NEAR);
}

static void test_tcx_recreated(void **state)
{
	(void)state;
	if (!have_tcx())
		skip();
	recreate(false);
}

static void test_clsact_recreated(void **state)
{
	(void)state;
	recreate(true);
}

/* The same interface under another name: hooked once, not twice. */
static void test_tcx_renamed(void **state)
{
	struct errtext err = { "" };
	struct dp *dp;

	(void)state;
	if (!have_tcx())
		skip();
	dp = must_open_scene(false);
	must_attach(dp, NEAR, "tcx");
	must_run("ip link set " NEAR " down && ip link set " NEAR " name slab9.42");
	link_up("slab9.42");
	must_attach(dp, "slab9.42", "tcx");
	assert_int_equal(tcx_count("slab9.42"), 1);
	assert_false(arrives());
	/* The old name's are not ours to remove any more. */
	assert_int_equal(dp_detach(dp, NEAR, &err), 0);
	assert_int_equal(tcx_count("slab9.42"), 1);
	assert_int_equal(dp_detach(dp, "slab9.42", &err), 0);
	assert_int_equal(tcx_count("slab9.42"), 0);
	must_close(dp);
}

static int remember_name(const char *ifname, void *arg)
{
	strcat(arg, ifname);
	strcat(arg, ",");
	return 0;
}

static void detach(bool clsact, const char *name)
{
	struct errtext err = { "" };
	char names[64] = "";
	struct dp *dp;

	if (strcmp(name, NEAR)) {
		must_run("ip link set " NEAR " down && ip link set " NEAR " name %s", name);
		link_up(name);
	}
	dp = must_open_scene(clsact);
	assert_int_equal(dp_attached(dp, remember_name, names), 0);
	assert_string_equal(names, "");
	must_attach(dp, name, clsact ? "clsact" : "tcx");
	assert_false(arrives());
	assert_int_equal(dp_attached(dp, remember_name, names), 0);
	assert_int_equal(strlen(names), strlen(name) + 1);
	assert_memory_equal(names, name, strlen(name));
	assert_int_equal(dp_detach(dp, name, &err), 0);
	assert_true(arrives());
	assert_false(has_clsact(name));
	names[0] = '\0';
	assert_int_equal(dp_attached(dp, remember_name, names), 0);
	assert_string_equal(names, "");
	assert_int_equal(dp_detach(dp, name, &err), 0);
	assert_int_equal(dp_detach(dp, "slab-gone", &err), 0);
	must_attach(dp, name, clsact ? "clsact" : "tcx");
	assert_false(arrives());
	must_close(dp);
}

static void test_tcx_detach(void **state)
{
	(void)state;
	if (!have_tcx())
		skip();
	detach(false, NEAR);
}

static void test_clsact_detach(void **state)
{
	(void)state;
	detach(true, NEAR);
}

/* Names that a bpffs would not take as they are. */
static void test_tcx_odd_name(void **state)
{
	(void)state;
	if (!have_tcx())
		skip();
	detach(false, "sl-egress.7");
}

static void test_clsact_odd_name(void **state)
{
	(void)state;
	detach(true, "sl.5-qdisc");
}

/* From one kind to the other: never both. */
static void test_switch(void **state)
{
	struct dp *dp;

	(void)state;
	if (!have_tcx())
		skip();
	dp = must_open_scene(false);
	must_attach(dp, NEAR, "tcx");
	must_close(dp);
	dp = must_open_kind(true);
	must_attach(dp, NEAR, "clsact");
	assert_int_equal(tcx_count(NEAR), 0);
	assert_false(arrives());
	must_close(dp);
	dp = must_open_kind(false);
	must_attach(dp, NEAR, "tcx");
	assert_int_equal(tcx_count(NEAR), 1);
	assert_false(has_clsact(NEAR));
	assert_false(arrives());
	must_close(dp);
}

/* Somebody else's program at one side of clsact. */
static void foreign_filter(enum bpf_tc_attach_point point, uint32_t priority)
{
	const struct bpf_insn pass[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = -1 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	LIBBPF_OPTS(bpf_tc_hook, at, .ifindex = (int)if_nametoindex(NEAR), .attach_point = point);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 1, .priority = priority);

	opts.prog_fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "foreigner", "GPL", pass, 2, NULL);
	assert_true(opts.prog_fd >= 0);
	assert_int_equal(bpf_tc_attach(&at, &opts), 0);
	close(opts.prog_fd);
}

/* A clsact that was there before us, with somebody's filter. */
static void test_clsact_shared(void **state)
{
	struct dp *dp;

	(void)state;
	must_run("tc qdisc add dev " NEAR " clsact");
	foreign_filter(BPF_TC_EGRESS, 7);
	dp = must_open_scene(true);
	must_attach(dp, NEAR, "clsact");
	assert_false(arrives());
	must_close(dp);
	must_teardown(NEAR);
	assert_true(arrives());
	assert_true(has_clsact(NEAR));
	assert_int_equal(tc_count(NEAR, "egress", "foreigner"), 1);
	assert_int_equal(tc_count(NEAR, "egress", "uplink"), 0);
	assert_int_equal(tc_count(NEAR, "ingress", "uplink"), 0);

	/* Ours, but somebody has come since. */
	must_run("tc qdisc del dev " NEAR " clsact");
	dp = must_open_scene(true);
	must_attach(dp, NEAR, "clsact");
	foreign_filter(BPF_TC_INGRESS, 7);
	must_close(dp);
	must_teardown(NEAR);
	assert_true(has_clsact(NEAR));
	assert_int_equal(tc_count(NEAR, "ingress", "foreigner"), 1);
	assert_int_equal(tc_count(NEAR, "ingress", "uplink"), 0);
}

/* Somebody else's program where ours would go is left alone. */
static void test_clsact_occupied(void **state)
{
	struct errtext err = { "" };
	const char *how;
	struct dp *dp;

	(void)state;
	must_run("tc qdisc add dev " NEAR " clsact");
	foreign_filter(BPF_TC_EGRESS, 1);
	dp = must_open_scene(true);
	assert_int_equal(dp_attach(dp, if_nametoindex(NEAR), NEAR, &how, &err), -EBUSY);
	assert_non_null(strstr(err.s, "foreigner"));
	assert_int_equal(tc_count(NEAR, "egress", "foreigner"), 1);
	must_close(dp);
	must_teardown(NEAR);
	assert_int_equal(tc_count(NEAR, "egress", "foreigner"), 1);
	assert_int_equal(tc_count(NEAR, "ingress", "uplink"), 0);
	assert_true(has_clsact(NEAR));
}

/* Killed between the two hooks. */
static void test_half(void **state)
{
	char path[DP_PATH_MAX];
	struct dp *dp;

	(void)state;
	if (!have_tcx())
		skip();
	dp = must_open_scene(false);
	must_attach(dp, NEAR, "tcx");
	must_close(dp);
	assert_int_equal(unlink(dp_path(path, "%s/links/" NEAR "-egress", lab_dir)), 0);
	wait_for(tcx_count(NEAR) == -1);
	dp = must_open();
	must_attach(dp, NEAR, "tcx");
	assert_int_equal(tcx_count(NEAR), 1);
	assert_false(arrives());
	must_close(dp);
}

static void test_refusals(void **state)
{
	char near[] = NEAR, gone[] = "slab-gone", *uplinks[] = { gone, near };
	struct errtext err = { "" };
	const char *how = "untouched";
	struct dp *dp;

	(void)state;
	dp = must_open_scene(false);
	assert_int_equal(dp_attach(dp, 987654, "slab-gone", &how, &err), -ENODEV);
	assert_non_null(strstr(err.s, "slab-gone"));
	assert_string_equal(how, "untouched");
	must_attach(dp, NEAR, have_tcx() ? "tcx" : "clsact");
	assert_int_equal(dp_teardown(lab_dir, uplinks, 2, &err), -EBUSY);
	assert_false(arrives());
	must_close(dp);
	assert_int_equal(dp_teardown(lab_dir, uplinks, 2, &err), 0);
	assert_true(arrives());
	assert_false(lab_has("."));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, link_setup, link_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_tcx),
		TEST(test_clsact),
		TEST(test_tcx_exchange),
		TEST(test_clsact_exchange),
		TEST(test_tcx_recreated),
		TEST(test_clsact_recreated),
		TEST(test_tcx_renamed),
		TEST(test_tcx_detach),
		TEST(test_clsact_detach),
		TEST(test_tcx_odd_name),
		TEST(test_clsact_odd_name),
		TEST(test_switch),
		TEST(test_clsact_shared),
		TEST(test_clsact_occupied),
		TEST(test_half),
		TEST(test_refusals),
	};

	return cmocka_run_group_tests(tests, hooks_open, lab_clean);
}
