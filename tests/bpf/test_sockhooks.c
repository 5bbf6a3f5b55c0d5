/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The loader's hooks of sockets: attached, exchanged, taken over from an earlier daemon, moved to where they belong, and removed; and what the hooks of binding
 * note. The control groups are our own, below the root of cgroup2, so that nobody else's hooks are counted.
 */
#include "sockets.h"

#include <cap-ng.h>
#include <sys/prctl.h>

static const enum bpf_attach_type root_hooks[] = { BPF_CGROUP_INET4_POST_BIND,
						   BPF_CGROUP_INET6_POST_BIND };
static const enum bpf_attach_type exec_hooks[] = {
	BPF_CGROUP_INET4_CONNECT,   BPF_CGROUP_INET6_CONNECT,   BPF_CGROUP_UDP4_SENDMSG,
	BPF_CGROUP_UDP6_SENDMSG,    BPF_CGROUP_INET4_BIND,      BPF_CGROUP_INET6_BIND,
	BPF_CGROUP_INET4_POST_BIND, BPF_CGROUP_INET6_POST_BIND,
};

/* What the kernel has */

static uint32_t query(int fd, enum bpf_attach_type type, uint32_t ids[8])
{
	__u32 n = 8;

	if (bpf_prog_query(fd, type, 0, NULL, ids, &n))
		die("asking for the hooks of type %d: %s", type, strerror(errno));
	return n;
}

/* sk_lookup programs of a namespace; *ret_id is the last one's. */
static uint32_t lookups(int ns, uint32_t *ret_id)
{
	uint32_t ids[8], n = query(ns, BPF_SK_LOOKUP, ids);

	if (n)
		*ret_id = ids[n - 1];
	return n;
}

static uint32_t group_hooks(const char *group, enum bpf_attach_type type)
{
	uint32_t ids[8], n;
	int fd = open(group, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		die("%s: %s", group, strerror(errno));
	n = query(fd, type, ids);
	close(fd);
	return n;
}

static void assert_hooks(uint32_t netns, uint32_t root)
{
	uint32_t id;

	assert_int_equal(lookups(ns_machine, &id), netns);
	foreach (i, root_hooks)
		assert_int_equal(group_hooks(lab_group, root_hooks[i]), root);
}

static void must_teardown(void)
{
	struct errtext err = { "" };

	if (dp_teardown(lab_dir, NULL, 0, &err))
		die("dp_teardown: %s", err.s);
	assert_false(lab_has("."));
}

/* Attaching */

static void test_attach(void **state)
{
	uint32_t first = 0, second = 0;
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);
	struct dp *dp = open_scene();
	int fd;

	(void)state;
	assert_hooks(0, 0);
	attach(dp, lab_group);
	assert_hooks(1, 1);
	lookups(ns_machine, &first);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len), 0);
	close(fd);
	assert_int_equal(dp->conf->netns_cookie, cookie);
	refused(SOCK_DGRAM, ns_machine, SHARED_IP4, FIRST);

	/* Again: other programs, at the same places. */
	attach(dp, lab_group);
	assert_hooks(1, 1);
	lookups(ns_machine, &second);
	assert_int_not_equal(first, second);

	/* The daemon is gone, and the next one comes. */
	must_close(dp);
	assert_hooks(1, 1);
	dp = must_open();
	assert_hooks(1, 1);
	lookups(ns_machine, &first);
	assert_int_equal(first, second);
	attach(dp, lab_group);
	assert_hooks(1, 1);
	lookups(ns_machine, &second);
	assert_int_not_equal(first, second);
	must_close(dp);

	must_teardown();
	assert_hooks(0, 0);
	must_teardown();
}

/* An earlier daemon was killed when it had attached some. */
static void test_half(void **state)
{
	static const char *const pins[] = { "netns-steer", "cgroup-post_bind4",
					    "cgroup-post_bind6" };
	char path[DP_PATH_MAX];
	struct dp *dp = open_scene();

	(void)state;
	foreach (i, pins) {
		attach(dp, lab_group);
		assert_true(lab_has("links/%s", pins[i]));
		assert_int_equal(unlink(dp_path(path, "%s/links/%s", lab_dir, pins[i])), 0);
		wait_for(group_hooks(lab_group, root_hooks[0]) +
				 group_hooks(lab_group, root_hooks[1]) +
				 lookups(ns_machine, &(uint32_t){ 0 }) ==
			 2);
		attach(dp, lab_group);
		assert_hooks(1, 1);
	}
	must_close(dp);
}

/* Only what is asked for; and what is not asked for any more goes. */
static void test_without_groups(void **state)
{
	struct dp *dp = open_scene();

	(void)state;
	attach(dp, NULL);
	assert_hooks(1, 0);
	attach(dp, lab_group);
	assert_hooks(1, 1);
	attach(dp, NULL);
	assert_hooks(1, 0);
	assert_false(lab_has("links/cgroup-post_bind4"));
	refused(SOCK_DGRAM, ns_machine, SHARED_IP4, FIRST);
	must_close(dp);
}

/* The daemon is started anew in another namespace, on the same pins. */
static void test_other_netns(void **state)
{
	struct dp *dp = open_scene();
	int ns = ns_new();
	uint32_t id;

	(void)state;
	attach(dp, lab_group);
	must_close(dp);
	ns_enter(ns);
	dp = must_open();
	attach(dp, lab_group);
	assert_int_equal(lookups(ns, &id), 1);
	ns_enter(ns_machine);
	assert_hooks(0, 1);
	attach(dp, lab_group);
	assert_hooks(1, 1);
	assert_int_equal(lookups(ns, &id), 0);

	/* And one that has ended meanwhile. */
	ns_enter(ns);
	attach(dp, lab_group);
	ns_enter(ns_machine);
	close(ns);
	attach(dp, lab_group);
	assert_hooks(1, 1);
	must_close(dp);
}

/* The group is removed, and another one, of the same name or not, takes its place. */
static void test_other_group(void **state)
{
	struct dp *dp = open_scene();
	char other[300];

	(void)state;
	snprintf(other, sizeof(other), "%s/other", lab_group);
	must_run("mkdir %s", other);
	attach(dp, other);
	assert_int_equal(group_hooks(other, BPF_CGROUP_INET4_POST_BIND), 1);
	must_run("rmdir %s && mkdir %s", other, other);
	assert_int_equal(group_hooks(other, BPF_CGROUP_INET4_POST_BIND), 0);
	attach(dp, other);
	assert_int_equal(group_hooks(other, BPF_CGROUP_INET4_POST_BIND), 1);
	attach(dp, lab_group);
	assert_hooks(1, 1);
	assert_int_equal(group_hooks(other, BPF_CGROUP_INET4_POST_BIND), 0);
	must_run("rmdir %s", other);
	must_close(dp);
}

static void assert_exec_hooks(const char *group, uint32_t n)
{
	foreach (i, exec_hooks)
		assert_int_equal(group_hooks(group, exec_hooks[i]), n);
}

static void test_exec(void **state)
{
	struct dp *dp = open_scene();
	struct dp_socket_opts opts = { .cgroup = lab_group, .exec_level = 3 };
	struct errtext err = { "" };
	char exec[300];

	(void)state;
	snprintf(exec, sizeof(exec), "%s/exec", lab_group);
	must_run("mkdir %s", exec);
	opts.exec_cgroup = exec;
	for (int i = 0; i < 2; i++) {
		if (dp_socket_attach(dp, &opts, &err))
			die("dp_socket_attach: %s", err.s);
		assert_hooks(1, 1);
		assert_exec_hooks(exec, 1);
		assert_int_equal(dp->conf->exec_level, 3);
		must_close(dp);
		dp = must_open();
	}
	attach(dp, lab_group);
	assert_hooks(1, 1);
	assert_exec_hooks(exec, 0);
	/* Without the others. */
	opts.cgroup = NULL;
	assert_int_equal(dp_socket_attach(dp, &opts, &err), 0);
	assert_hooks(1, 0);
	assert_exec_hooks(exec, 1);
	must_close(dp);
	must_teardown();
	assert_exec_hooks(exec, 0);
	must_run("rmdir %s", exec);
}

/* A mistake leaves attached what was. */
static void test_refusals(void **state)
{
	struct dp_socket_opts opts = { .cgroup = "/slab-nowhere" };
	struct dp *dp = open_scene();
	struct errtext err = { "" };

	(void)state;
	attach(dp, lab_group);
	assert_int_equal(dp_socket_attach(dp, &opts, &err), -ENOENT);
	assert_non_null(strstr(err.s, "/slab-nowhere"));
	opts.cgroup = "/proc/self";
	assert_true(dp_socket_attach(dp, &opts, &err) < 0);
	assert_non_null(strstr(err.s, "/proc/self: not a directory of cgroup2"));
	opts.cgroup = lab_group;
	opts.exec_cgroup = "/slab-nowhere";
	assert_int_equal(dp_socket_attach(dp, &opts, &err), -ENOENT);
	assert_hooks(1, 1);
	refused(SOCK_DGRAM, ns_machine, SHARED_IP4, FIRST);
	must_close(dp);
}

/* Somebody else's program that allows no other is left alone, and named as what is in the way. */
static void test_occupied(void **state)
{
	const struct bpf_insn pass[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 1 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	LIBBPF_OPTS(bpf_prog_load_opts, load, .expected_attach_type = root_hooks[1]);
	struct dp_socket_opts opts = { .cgroup = lab_group };
	int group = open(lab_group, O_RDONLY | O_CLOEXEC), prog;
	struct dp *dp = open_scene();
	struct errtext err = { "" };

	(void)state;
	prog = bpf_prog_load(BPF_PROG_TYPE_CGROUP_SOCK, "foreigner", "GPL", pass, 2, &load);
	assert_true(prog >= 0);
	assert_int_equal(bpf_prog_attach(prog, group, root_hooks[1], 0), 0);
	assert_int_equal(dp_socket_attach(dp, &opts, &err), -EPERM);
	assert_non_null(strstr(err.s, "allows no other"));
	assert_non_null(strstr(err.s, lab_group));
	assert_int_equal(bpf_prog_detach2(prog, group, root_hooks[1]), 0);
	attach(dp, lab_group);
	assert_hooks(1, 1);
	close(prog);
	close(group);
	must_close(dp);
}

/* Capabilities */

/* Waits for a child that says by its exit code which of its steps failed; 0: none. */
static void must_succeed(pid_t pid)
{
	int status;

	assert_true(pid >= 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* As the daemon does it: at the real root, with what it keeps of its capabilities. */
static void with_capabilities(bool bpf)
{
	struct dp_socket_opts opts = { .exec_cgroup = lab_group, .exec_level = 1 };
	struct dp_opts dp_opts = lab_opts();
	struct errtext err = { "" };
	char root[256];
	struct dp *dp;
	int r;

	cgroup_root(root);
	opts.cgroup = root;
	if (dp_open(&dp_opts, &dp, &err))
		_exit(1);
	capng_clear(CAPNG_SELECT_BOTH);
	capng_updatev(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_NET_ADMIN, CAP_NET_RAW,
		      CAP_CHOWN, -1);
	if (bpf)
		capng_updatev(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_BPF, CAP_PERFMON,
			      -1);
	if (capng_apply(CAPNG_SELECT_BOTH))
		_exit(2);
	if (capng_get_caps_process() || capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_ADMIN))
		_exit(3);
	r = dp_socket_attach(dp, &opts, &err);
	if (!bpf)
		_exit(r != -EPERM ? 4 : !strstr(err.s, "CAP_BPF") ? 5 : 0);
	if (r) {
		print_error("%s\n", err.s);
		_exit(6);
	}
	/* Exchanged, and taken away. */
	if (dp_socket_attach(dp, &opts, &err))
		_exit(7);
	dp_close(dp);
	_exit(dp_teardown(lab_dir, NULL, 0, &err) ? 8 : 0);
}

static void test_capabilities(void **state)
{
	pid_t pid;

	(void)state;
	for (int bpf = 0; bpf < 2; bpf++) {
		must_close(open_scene());
		pid = fork();
		if (!pid)
			with_capabilities(bpf);
		must_succeed(pid);
	}
	assert_false(lab_has("."));
	assert_hooks(0, 0);
}

/* Owners */

static bool owner_of(struct dp *dp, int fd, struct sluice_owner *ret)
{
	return dp_owner(dp, cookie_of(fd), ret);
}

static uint64_t group_id(void)
{
	struct stat st;

	if (stat(lab_group, &st))
		die("%s: %s", lab_group, strerror(errno));
	return st.st_ino;
}

static void assert_mine(struct dp *dp, int fd)
{
	char comm[16] = "";
	struct sluice_owner o;

	assert_true(owner_of(dp, fd, &o));
	assert_int_equal(o.pid, getpid());
	assert_int_equal(o.uid, 0);
	assert_int_equal(o.cgroup, group_id());
	prctl(PR_GET_NAME, comm);
	assert_string_equal(o.comm, comm);
}

static void test_owners(void **state)
{
	static const char *const noted[] = { SHARED_IP4, SHARED_IP6, "::ffff:203.0.113.7" };
	static const char *const not_noted[] = { "0.0.0.0", "::", "127.0.0.1", "10.1.0.1",
						 "2001:db8:1::1" };
	struct dp *dp = open_scene();
	struct sluice_owner o;
	int fd, before;

	(void)state;
	before = stand(SOCK_DGRAM, SHARED_IP4, 9);
	attach(dp, lab_group);
	assert_false(owner_of(dp, before, &o));
	foreach (i, noted) {
		fd = stand(SOCK_STREAM, noted[i], FIRST);
		assert_mine(dp, fd);
		close(fd);
		fd = stand(SOCK_DGRAM, noted[i], FIRST);
		assert_mine(dp, fd);
		close(fd);
		/* Any port, inside the slices or outside. */
		fd = stand(SOCK_DGRAM, noted[i], 0);
		assert_mine(dp, fd);
		close(fd);
	}
	foreach (i, not_noted) {
		fd = stand(SOCK_DGRAM, not_noted[i], FIRST);
		assert_false(owner_of(dp, fd, &o));
		close(fd);
	}
	close(before);
	must_close(dp);
}

/* Another namespace has the same address; its sockets are none of our business. */
static void test_owners_elsewhere(void **state)
{
	union endpoint e = endpoint(SHARED_IP4, FIRST);
	struct dp *dp = open_scene();
	struct sluice_owner o;
	int ns = ns_new(), fd;

	(void)state;
	attach(dp, lab_group);
	ns_enter(ns);
	must_run("ip addr add " SHARED_IP4 "/32 dev lo");
	ns_enter(ns_machine);
	fd = socket_in(ns, AF_INET, SOCK_DGRAM);
	assert_int_equal(bind(fd, &e.sa, sizeof(e.v4)), 0);
	assert_false(owner_of(dp, fd, &o));
	close(fd);
	close(ns);
	must_close(dp);
}

/* A process of a user other than root. */
static void test_owner_process(void **state)
{
	union endpoint e = endpoint(SHARED_IP4, FIRST);
	socklen_t len = sizeof(uint64_t);
	struct dp *dp = open_scene();
	struct sluice_owner o = { 0 };
	int fd, pipes[2];
	uint64_t cookie;
	pid_t pid;

	(void)state;
	attach(dp, lab_group);
	assert_int_equal(pipe(pipes), 0);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_NAME, "slab-binder");
		fd = setuid(12345) ? -1 : socket(AF_INET, SOCK_DGRAM, 0);
		if (bind(fd, &e.sa, sizeof(e.v4)) ||
		    getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len))
			_exit(1);
		_exit(write(pipes[1], &cookie, sizeof(cookie)) != sizeof(cookie));
	}
	must_succeed(pid);
	assert_int_equal(read(pipes[0], &cookie, sizeof(cookie)), sizeof(cookie));
	assert_true(dp_owner(dp, cookie, &o));
	assert_int_equal(o.pid, pid);
	assert_int_equal(o.uid, 12345);
	assert_string_equal(o.comm, "slab-binder");
	assert_int_equal(o.cgroup, group_id());
	close(pipes[0]);
	close(pipes[1]);
	must_close(dp);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_teardown(fn, lab_clean)
	const struct CMUnitTest tests[] = {
		TEST(test_attach),           TEST(test_half),
		TEST(test_without_groups),   TEST(test_other_netns),
		TEST(test_other_group),      TEST(test_exec),
		TEST(test_refusals),         TEST(test_occupied),
		TEST(test_capabilities),     TEST(test_owners),
		TEST(test_owners_elsewhere), TEST(test_owner_process),
	};

	return cmocka_run_group_tests(tests, sockets_open, sockets_done);
}
