/* SPDX-License-Identifier: BSD-2-Clause */
/* The inventory against sockets that the test made and knows all about (own_sockets.h). */
#include "own_sockets.h"

#include <mntent.h>
#include <poll.h>

#include "inventory.h"
#include "procsock.h"

static struct inventory *inv;
static int last_pid;         /* a child that a failed test left */
static char last_group[300]; /* and its control group */

static int net_open(void **state)
{
	(void)state;
	own_net();
	return 0;
}

static int each_open(void **state)
{
	struct errtext err = { "" };

	(void)state;
	if (inventory_open(&inv, &err))
		die("inventory_open: %s", err.s);
	if (*inventory_note(inv))
		die("the iterator: %s", inventory_note(inv));
	return 0;
}

static int each_close(void **state)
{
	(void)state;
	inventory_close(inv);
	inv = NULL;
	if (last_pid > 0) {
		kill(last_pid, SIGKILL);
		waitpid(last_pid, NULL, 0);
	}
	last_pid = 0;
	if (*last_group)
		rmdir(last_group);
	last_group[0] = '\0';
	return 0;
}

/* Addresses */

static struct ct_tuple T(const char *src, uint16_t sport, const char *dst, uint16_t dport) {
	return (struct ct_tuple){ A(src), A(dst), sport, dport };
}

/* Sockets */

static int
connected(int family, int type, const char *ip, uint16_t port, const char *to, uint16_t dport)
{
	int fd = sock_bound(family, type, ip, port);

	sock_connect(fd, family, to, dport);
	return fd;
}

static uint64_t inode_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

/* Resets instead of TIME_WAIT. */
static void hard_close(int fd)
{
	struct linger l = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	close(fd);
}

/* Asking */

static int find(enum sluice_l4 l4, struct ct_tuple t, struct sockdiag_sock *ret)
{
	return inventory_find(inv, l4, &t, ret);
}

static bool finds(enum sluice_l4 l4, struct ct_tuple t, int fd)
{
	struct sockdiag_sock s;
	int r = find(l4, t, &s);

	if (r == -ENOENT)
		return false;
	assert_int_equal(r, 0);
	return s.cookie == cookie_of(fd) && s.inode == inode_of(fd) && s.l4 == l4 &&
	       s.lport == t.sport;
}

static bool finds_none(enum sluice_l4 l4, struct ct_tuple t)
{
	struct sockdiag_sock s;
	int r = find(l4, t, &s);

	assert_true(!r || r == -ENOENT);
	return r;
}

/* Asked of the kernel, and then of what is kept. */
static void must_find(enum sluice_l4 l4, struct ct_tuple t, int fd)
{
	struct inventory_stats before = inventory_stats(inv), after;

	assert_true(finds(l4, t, fd));
	assert_true(finds(l4, t, fd));
	after = inventory_stats(inv);
	assert_int_equal(after.lookups, before.lookups + 2);
	assert_true(after.hits > before.hits);
}

/* The tests */

static void test_tcp(void **state)
{
	struct pair p;
	int fd;

	(void)state;
	p = pair_new(AF_INET, V4, 41000, V4B, 8080);
	must_find(SLUICE_TCP, T(V4, 41000, V4B, 8080), p.c);
	must_find(SLUICE_TCP, T(V4B, 8080, V4, 41000), p.s);
	/* Each part counts. */
	assert_true(finds_none(SLUICE_TCP, T(V4, 41001, V4B, 8080)));
	assert_true(finds_none(SLUICE_TCP, T(V4, 41000, V4B, 8081)));
	assert_true(finds_none(SLUICE_TCP, T(V4B, 41000, V4B, 8080)));
	assert_true(finds_none(SLUICE_TCP, T(V4, 41000, V4, 8080)));
	assert_true(finds_none(SLUICE_UDP, T(V4, 41000, V4B, 8080)));
	hard_close(p.c);
	close(p.s);

	p = pair_new(AF_INET6, V6, 41000, V6B, 8080);
	must_find(SLUICE_TCP, T(V6, 41000, V6B, 8080), p.c);
	assert_true(finds_none(SLUICE_TCP, T(V6, 41000, V6, 8080)));
	hard_close(p.c);
	close(p.s);

	fd = connected(AF_INET, SOCK_STREAM, V4, 41001, DEAD, 80);
	assert_int_equal(tcp_state(fd), TCP_SYN_SENT);
	must_find(SLUICE_TCP, T(V4, 41001, DEAD, 80), fd);
	hard_close(fd);
}

/* They send nothing: a packet with their port was not theirs. */
static void test_tcp_not_connected(void **state)
{
	int l = sock_bound(AF_INET, SOCK_STREAM, V4, 41002), wild, bound;

	(void)state;
	assert_int_equal(listen(l, 8), 0);
	wild = sock_bound(AF_INET6, SOCK_STREAM, "*", 41003);
	assert_int_equal(listen(wild, 8), 0);
	bound = sock_bound(AF_INET, SOCK_STREAM, V4, 41004);
	assert_true(finds_none(SLUICE_TCP, T(V4, 41002, V4B, 80)));
	assert_true(finds_none(SLUICE_TCP, T(V4, 41003, V4B, 80)));
	assert_true(finds_none(SLUICE_TCP, T(V4, 41004, V4B, 80)));
	close(l);
	close(wild);
	close(bound);
}

/* The tuple is that of a connection that has no process any more. */
static void test_time_wait(void **state)
{
	struct pair p = pair_new(AF_INET, V4, 41005, V4B, 8080);
	struct ct_tuple t = T(V4, 41005, V4B, 8080);
	struct sockdiag_sock s = { 0 };
	struct inventory_sock o;

	(void)state;
	close(p.c);
	close(p.s);
	wait_for(!find(SLUICE_TCP, t, &s) && s.state == TCP_TIME_WAIT);
	assert_int_equal(s.inode, 0);
	assert_int_equal(inventory_stats(inv).kept, 0);
	inventory_owner(inv, &s, getpid(), &o);
	assert_int_equal(o.pid, 0);
	assert_string_equal(o.comm, "");
	/* And can be ended too. */
	assert_int_equal(inventory_destroy(inv, &s), 0);
	assert_true(finds_none(SLUICE_TCP, t));
	assert_int_equal(inventory_destroy(inv, &s), -ENOENT);
}

static void test_udp(void **state)
{
	int un, con, wild, wild6, six, only;

	(void)state;
	un = sock_bound(AF_INET, SOCK_DGRAM, V4, 43000);
	must_find(SLUICE_UDP, T(V4, 43000, DEAD, 53), un);
	must_find(SLUICE_UDP, T(V4, 43000, V4B, 54), un);
	assert_true(finds_none(SLUICE_UDP, T(V4B, 43000, DEAD, 53)));
	con = connected(AF_INET, SOCK_DGRAM, V4, 43001, V4B, 53);
	must_find(SLUICE_UDP, T(V4, 43001, V4B, 53), con);
	assert_true(finds_none(SLUICE_UDP, T(V4, 43001, V4B, 54)));
	assert_true(finds_none(SLUICE_UDP, T(V4, 43001, DEAD, 53)));
	/* One on the wildcard chooses its address by the route. */
	wild = sock_bound(AF_INET, SOCK_DGRAM, "*", 43002);
	must_find(SLUICE_UDP, T(V4, 43002, DEAD, 53), wild);
	must_find(SLUICE_UDP, T(V4B, 43002, DEAD, 53), wild);
	wild6 = sock_bound(AF_INET6, SOCK_DGRAM, "*", 43003);
	must_find(SLUICE_UDP, T(V4, 43003, DEAD, 53), wild6);
	must_find(SLUICE_UDP, T(V6, 43003, V6B, 53), wild6);
	six = connected(AF_INET6, SOCK_DGRAM, V6, 43004, V6B, 53);
	must_find(SLUICE_UDP, T(V6, 43004, V6B, 53), six);
	assert_true(finds_none(SLUICE_UDP, T(V6, 43004, V6B, 54)));
	only = sock_new(AF_INET6, SOCK_DGRAM);
	assert_int_equal(setsockopt(only, IPPROTO_IPV6, IPV6_V6ONLY, &(int){ 1 }, sizeof(int)), 0);
	sock_bind(only, AF_INET6, "*", 43005);
	must_find(SLUICE_UDP, T(V6, 43005, V6B, 53), only);
	assert_true(finds_none(SLUICE_UDP, T(V4, 43005, V4B, 53)));
	close(un);
	close(con);
	close(wild);
	close(wild6);
	close(six);
	close(only);
}

/* IPv6 sockets that talk IPv4 have IPv4's tuples. */
static void test_mapped(void **state)
{
	int udp = sock_bound(AF_INET6, SOCK_DGRAM, V4, 44000);
	int con = connected(AF_INET6, SOCK_DGRAM, V4, 44001, V4B, 53);
	struct pair p = pair_new(AF_INET6, V4, 44002, V4B, 8080);
	int opening = connected(AF_INET6, SOCK_STREAM, V4, 44003, DEAD, 80);

	(void)state;
	must_find(SLUICE_UDP, T(V4, 44000, V4B, 53), udp);
	must_find(SLUICE_UDP, T(V4, 44001, V4B, 53), con);
	must_find(SLUICE_TCP, T(V4, 44002, V4B, 8080), p.c);
	must_find(SLUICE_TCP, T(V4B, 8080, V4, 44002), p.s);
	must_find(SLUICE_TCP, T(V4, 44003, DEAD, 80), opening);
	hard_close(p.c);
	close(p.s);
	close(udp);
	close(con);
	hard_close(opening);
}

static int sharing(int family, const char *ip, uint16_t port)
{
	int fd = sock_new(family, SOCK_DGRAM), one = 1;

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)), 0);
	sock_bind(fd, family, ip, port);
	return fd;
}

static void test_reuseport(void **state)
{
	int fds[4], con;
	struct sockdiag_sock s;
	bool one = false;

	(void)state;
	for (int i = 0; i < 4; i++)
		fds[i] = sharing(AF_INET, V4, 45000);
	con = sharing(AF_INET, V4, 45000);
	sock_connect(con, AF_INET, V4B, 53);
	/* The connected one before the others. */
	must_find(SLUICE_UDP, T(V4, 45000, V4B, 53), con);
	assert_int_equal(find(SLUICE_UDP, T(V4, 45000, V4B, 54), &s), 0);
	for (int i = 0; i < 4; i++)
		one |= s.cookie == cookie_of(fds[i]);
	assert_true(one);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	close(con);
}

/* Seen after a refresh has met one. */
static void test_device(void **state)
{
	int tcp = sock_new(AF_INET, SOCK_STREAM), udp = sock_new(AF_INET, SOCK_DGRAM);
	struct addr addr = A(V4);
	struct errtext err = { "" };
	struct sockdiag_sock s;

	(void)state;
	assert_int_equal(setsockopt(tcp, SOL_SOCKET, SO_BINDTODEVICE, "dead0", 6), 0);
	assert_int_equal(setsockopt(udp, SOL_SOCKET, SO_BINDTODEVICE, "dead0", 6), 0);
	sock_bind(tcp, AF_INET, V4, 45001);
	sock_connect(tcp, AF_INET, DEAD, 80);
	sock_bind(udp, AF_INET, V4, 45001);
	assert_int_equal(inventory_refresh(inv, &addr, 1, &err), 0);
	must_find(SLUICE_TCP, T(V4, 45001, DEAD, 80), tcp);
	must_find(SLUICE_UDP, T(V4, 45001, DEAD, 53), udp);
	assert_int_equal(find(SLUICE_TCP, T(V4, 45001, DEAD, 80), &s), 0);
	assert_int_equal(s.ifindex, if_nametoindex("dead0"));
	assert_int_equal(inventory_destroy(inv, &s), 0);
	assert_int_equal(tcp_state(tcp), TCP_CLOSE);
	close(tcp);
	close(udp);
}

/*
 * A program at sk_lookup that refuses whatever is addressed to somebody, as ours does for ports of shared addresses which are not leased: the kernel asks it for
 * the look-up of sockets that are not connected.
 */
static void test_sk_lookup(void **state)
{
	/* r2 = ctx->local_ip4; r0 = SK_PASS; if (r2) r0 = SK_DROP; return r0; */
	struct bpf_insn insns[] = {
		{ .code = BPF_LDX | BPF_MEM | BPF_W,
		  .dst_reg = 2,
		  .src_reg = 1,
		  .off = offsetof(struct bpf_sk_lookup, local_ip4) },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = SK_PASS },
		{ .code = BPF_JMP | BPF_JEQ | BPF_K, .dst_reg = 2, .off = 1, .imm = 0 },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = SK_DROP },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = BPF_SK_LOOKUP);
	int prog = bpf_prog_load(BPF_PROG_TYPE_SK_LOOKUP, "refuse", "Dual BSD/GPL", insns,
				 sizeof(insns) / sizeof(insns[0]), &opts);
	int net = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), link;
	int wild = sock_bound(AF_INET, SOCK_DGRAM, "*", 45002);
	int bound = sock_bound(AF_INET, SOCK_DGRAM, V4, 45005);
	int six = sock_bound(AF_INET6, SOCK_DGRAM, V4, 45006);
	int con = connected(AF_INET, SOCK_DGRAM, V4, 45003, V4B, 53);
	struct pair p = pair_new(AF_INET, V4, 45004, V4B, 8080);

	(void)state;
	assert_true(prog >= 0);
	link = bpf_link_create(prog, net, BPF_SK_LOOKUP, NULL);
	assert_true(link >= 0);
	must_find(SLUICE_UDP, T(V4, 45002, V4B, 53), wild);
	must_find(SLUICE_UDP, T(V4, 45005, V4B, 53), bound);
	wait_for(finds(SLUICE_UDP, T(V4, 45006, V4B, 53), six));
	assert_true(finds_none(SLUICE_UDP, T(V4B, 45005, V4B, 53)));
	must_find(SLUICE_UDP, T(V4, 45003, V4B, 53), con);
	must_find(SLUICE_TCP, T(V4, 45004, V4B, 8080), p.c);
	close(link);
	close(prog);
	close(net);
	close(wild);
	close(bound);
	close(six);
	close(con);
	hard_close(p.c);
	close(p.s);
}

/* Ends */

static void test_closed(void **state)
{
	struct ct_tuple u = T(V4, 46000, V4B, 53), t = T(V4, 46001, DEAD, 80);
	int fd = connected(AF_INET, SOCK_DGRAM, V4, 46000, V4B, 53), other;
	struct pollfd p = { .fd = inventory_fd(inv), .events = POLLIN };

	(void)state;
	must_find(SLUICE_UDP, u, fd);
	assert_int_equal(inventory_stats(inv).kept, 1);
	close(fd);
	/* The kernel says so, and we need not ask. */
	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_int_equal(inventory_read(inv), 0);
	assert_int_equal(inventory_stats(inv).kept, 0);
	assert_true(finds_none(SLUICE_UDP, u));

	/* Without inventory_read(): a look-up sees to it. */
	fd = connected(AF_INET, SOCK_STREAM, V4, 46001, DEAD, 80);
	must_find(SLUICE_TCP, t, fd);
	hard_close(fd);
	wait_for(finds_none(SLUICE_TCP, t));
	other = connected(AF_INET, SOCK_STREAM, V4, 46001, DEAD, 80);
	must_find(SLUICE_TCP, t, other);
	hard_close(other);
}

/* A UDP socket may be connected anew without an end. It is not believed for long. */
static void test_moved(void **state)
{
	int fd = connected(AF_INET, SOCK_DGRAM, V4, 46002, V4B, 53);

	(void)state;
	must_find(SLUICE_UDP, T(V4, 46002, V4B, 53), fd);
	sock_connect(fd, AF_INET, V4B, 54);
	must_find(SLUICE_UDP, T(V4, 46002, V4B, 54), fd);
	wait_for(finds_none(SLUICE_UDP, T(V4, 46002, V4B, 53)));
	must_find(SLUICE_UDP, T(V4, 46002, V4B, 54), fd);
	close(fd);
}

/* One socket with many tuples, and more than are kept. */
static void test_many(void **state)
{
	int fd = sock_bound(AF_INET, SOCK_DGRAM, V4, 46003);
	struct pollfd p = { .fd = inventory_fd(inv), .events = POLLIN };

	(void)state;
	for (unsigned i = 1; i <= 10000; i++)
		assert_true(finds(SLUICE_UDP, T(V4, 46003, V4B, (uint16_t)i), fd));
	assert_in_range(inventory_stats(inv).kept, 1, 4096);
	/* Looked at from the end: they are there, the first are not. */
	must_find(SLUICE_UDP, T(V4, 46003, V4B, 10000), fd);
	close(fd);
	assert_int_equal(poll(&p, 1, 10000), 1);
	wait_for(!inventory_read(inv) && !inventory_stats(inv).kept);
	assert_true(finds_none(SLUICE_UDP, T(V4, 46003, V4B, 10000)));
}

/* Nobody listens any more when nothing is kept for long. */
static void test_silence(void **state)
{
	int fd = sock_bound(AF_INET, SOCK_DGRAM, V4, 46004), other;
	struct pollfd p = { .fd = inventory_fd(inv), .events = POLLIN };

	(void)state;
	close(sock_bound(AF_INET, SOCK_DGRAM, V4, 46005));
	must_find(SLUICE_UDP, T(V4, 46004, V4B, 53), fd);
	/* Each socket that ends wakes us, until it has been enough. */
	wait_for(({
		other = sock_bound(AF_INET, SOCK_DGRAM, V4, 46005);
		close(other);
		(void)poll(&p, 1, 20);
		assert_int_equal(inventory_read(inv), 0);
		!inventory_stats(inv).kept;
	}));
	/* What was on its way. */
	while (poll(&p, 1, 100) == 1)
		assert_int_equal(inventory_read(inv), 0);
	close(sock_bound(AF_INET, SOCK_DGRAM, V4, 46005));
	assert_int_equal(poll(&p, 1, 100), 0);
	must_find(SLUICE_UDP, T(V4, 46004, V4B, 53), fd);
	close(fd);
}

static void test_loss(void **state)
{
	int keep = sock_bound(AF_INET, SOCK_DGRAM, V4, 46006), size = 1;
	struct pollfd p = { .fd = inventory_fd(inv), .events = POLLIN };

	(void)state;
	assert_int_equal(setsockopt(inventory_fd(inv), SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)),
			 0);
	must_find(SLUICE_UDP, T(V4, 46006, V4B, 53), keep);
	for (int i = 0; i < 200; i++)
		close(sock_bound(AF_INET, SOCK_DGRAM, V4, 46007));
	wait_for(({
		(void)poll(&p, 1, 5);
		assert_int_equal(inventory_read(inv), 0);
		inventory_stats(inv).losses > 0;
	}));
	assert_int_equal(inventory_stats(inv).kept, 0);
	must_find(SLUICE_UDP, T(V4, 46006, V4B, 53), keep);
	close(keep);
}

/* Owners */

/* A child that runs fn and then waits to be killed; what fn returned comes through the pipe. */
static pid_t child_new(int (*fn)(void))
{
	int up[2], r;
	pid_t pid;

	assert_int_equal(pipe(up), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		r = fn();
		if (write(up[1], &r, sizeof(r)) != sizeof(r))
			_exit(1);
		for (;;)
			pause();
	}
	last_pid = pid;
	assert_int_equal(read(up[0], &r, sizeof(r)), sizeof(r));
	close(up[0]);
	close(up[1]);
	return pid;
}

static void child_kill(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	last_pid = 0;
}

static int take_47000(void)
{
	return connected(AF_INET, SOCK_DGRAM, V4, 47000, V4B, 53);
}

/* The same tuple, of another process by now. */
static void test_owner(void **state)
{
	struct ct_tuple t = T(V4, 47000, V4B, 53);
	struct inventory_sock o;
	struct sockdiag_sock s;
	int fd = take_47000();
	pid_t pid;

	(void)state;
	assert_int_equal(find(SLUICE_UDP, t, &s), 0);
	inventory_owner(inv, &s, 0, &o);
	assert_int_equal(o.pid, getpid());
	assert_int_equal(o.sock.cookie, s.cookie);
	assert_string_not_equal(o.comm, "");
	assert_int_equal(o.cgroup[0], '/');
	close(fd);
	inventory_owner(inv, &s, getpid(), &o);
	assert_int_equal(o.pid, 0);
	assert_string_equal(o.comm, "");
	/* The socket is known to have been in that group. */
	assert_int_equal(o.cgroup[0], '/');

	pid = child_new(take_47000);
	wait_for(!find(SLUICE_UDP, t, &s) && s.cookie != o.sock.cookie);
	inventory_owner(inv, &s, getpid(), &o);
	assert_int_equal(o.pid, pid);
	child_kill(pid);
	wait_for(finds_none(SLUICE_UDP, t));
	inventory_owner(inv, &s, pid, &o);
	assert_int_equal(o.pid, 0);
	assert_int_equal(inventory_stats(inv).owners, 4);
	assert_in_range(inventory_stats(inv).owner_passes, 1, 4);
}

/* Of those that have a socket, one of the control group that it was made in: the others, of smaller numbers perhaps, got it. */
static void test_owner_group(void **state)
{
	struct ct_tuple t = T(V4, 47010, V4B, 53);
	char root[256] = "", *group = last_group, procs[320], byte = 0;
	FILE *f = setmntent("/proc/self/mounts", "r");
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control };
	struct procsock *slow;
	struct procsock_owner o;
	struct inventory_sock left;
	struct errtext err;
	const struct mntent *m;
	struct sockdiag_sock s;
	struct cmsghdr *c;
	int talk[2], fd;
	pid_t pid;

	(void)state;
	msg.msg_controllen = sizeof(control);
	while (f && (m = getmntent(f)))
		if (!strcmp(m->mnt_type, "cgroup2"))
			snprintf(root, sizeof(root), "%s", m->mnt_dir);
	endmntent(f);
	snprintf(group, sizeof(last_group), "%s/slab-inventory-%d", root, (int)getpid());
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", group);
	if (mkdir(group, 0755))
		die("%s: %s", group, strerror(errno));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, talk), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		f = fopen(procs, "w");
		if (!f || fputs("0", f) < 0 || fclose(f))
			_exit(1);
		fd = connected(AF_INET, SOCK_DGRAM, V4, 47010, V4B, 53);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
		if (sendmsg(talk[1], &msg, 0) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	last_pid = pid;
	close(talk[1]);
	assert_int_equal(recvmsg(talk[0], &msg, 0), 1);
	close(talk[0]);
	c = CMSG_FIRSTHDR(&msg);
	assert_non_null(c);
	memcpy(&fd, CMSG_DATA(c), sizeof(int));

	assert_true(finds(SLUICE_UDP, t, fd));
	assert_int_equal(find(SLUICE_UDP, t, &s), 0);
	for (int bpf = 0; bpf < 2; bpf++) {
		assert_int_equal(procsock_open(bpf, &slow, &err), 0);
		procsock_find(slow, s.inode, s.cgroup, 0, &o);
		assert_int_equal(o.pid, pid);
		assert_string_equal(o.cgroup, group + strlen(root));
		procsock_close(slow);
	}
	child_kill(pid);
	inventory_owner(inv, &s, pid, &left);
	assert_int_equal(left.pid, getpid());
	assert_string_not_equal(left.cgroup, group + strlen(root));
	close(fd);
}

/* Aborting */

static void test_destroy(void **state)
{
	struct pair p = pair_new(AF_INET, V4, 47001, V4B, 8080);
	struct sockdiag_sock s, wrong;
	int udp, wild, six;
	char byte;

	(void)state;
	assert_int_equal(find(SLUICE_TCP, T(V4, 47001, V4B, 8080), &s), 0);
	/* Another one there is left alone. */
	wrong = s;
	wrong.cookie++;
	assert_int_equal(inventory_destroy(inv, &wrong), -ENOENT);
	assert_int_equal(tcp_state(p.c), TCP_ESTABLISHED);
	assert_int_equal(inventory_destroy(inv, &s), 0);
	assert_int_equal(read(p.c, &byte, 1), -1);
	assert_int_equal(errno, ECONNABORTED);
	assert_int_equal(send(p.c, "x", 1, MSG_NOSIGNAL), -1);
	assert_int_equal(errno, EPIPE);
	wait_for(read(p.s, &byte, 1) == -1 && errno == ECONNRESET);
	assert_true(finds_none(SLUICE_TCP, T(V4, 47001, V4B, 8080)));
	assert_int_equal(inventory_destroy(inv, &s), -ENOENT);
	close(p.c);
	close(p.s);

	udp = connected(AF_INET, SOCK_DGRAM, V4, 47002, V4B, 53);
	assert_int_equal(find(SLUICE_UDP, T(V4, 47002, V4B, 53), &s), 0);
	assert_int_equal(inventory_destroy(inv, &s), 0);
	assert_int_equal(read(udp, &byte, 1), -1);
	assert_int_equal(errno, ECONNABORTED);
	close(udp);

	wild = sock_bound(AF_INET, SOCK_DGRAM, "*", 47003);
	assert_int_equal(find(SLUICE_UDP, T(V4, 47003, V4B, 53), &s), 0);
	assert_int_equal(inventory_destroy(inv, &s), 0);
	assert_int_equal(read(wild, &byte, 1), -1);
	assert_int_equal(errno, ECONNABORTED);
	close(wild);

	six = connected(AF_INET6, SOCK_DGRAM, V6, 47004, V6B, 53);
	assert_int_equal(find(SLUICE_UDP, T(V6, 47004, V6B, 53), &s), 0);
	assert_int_equal(inventory_destroy(inv, &s), 0);
	assert_int_equal(read(six, &byte, 1), -1);
	assert_int_equal(errno, ECONNABORTED);
	close(six);

	/* On IPv6's wildcard only. */
	six = sock_new(AF_INET6, SOCK_DGRAM);
	assert_int_equal(setsockopt(six, IPPROTO_IPV6, IPV6_V6ONLY, &(int){ 1 }, sizeof(int)), 0);
	sock_bind(six, AF_INET6, "*", 47005);
	assert_int_equal(find(SLUICE_UDP, T(V6, 47005, V6B, 53), &s), 0);
	assert_int_equal(inventory_destroy(inv, &s), 0);
	assert_int_equal(read(six, &byte, 1), -1);
	assert_int_equal(errno, ECONNABORTED);
	close(six);

	/* IPv6 sockets that talk IPv4. */
	six = connected(AF_INET6, SOCK_STREAM, V4, 47006, DEAD, 80);
	assert_int_equal(find(SLUICE_TCP, T(V4, 47006, DEAD, 80), &s), 0);
	assert_int_equal(inventory_destroy(inv, &s), 0);
	assert_int_equal(read(six, &byte, 1), -1);
	assert_int_equal(errno, ECONNABORTED);
	close(six);
}

/* The table */

struct seen {
	uint64_t cookies[64];
	size_t n;
};

static void note(void *arg, const struct sockdiag_sock *s)
{
	struct seen *seen = arg;

	assert_in_range(seen->n, 0, 63);
	seen->cookies[seen->n++] = s->cookie;
}

static size_t fresh(const int *fds, size_t n)
{
	struct seen seen = { .n = 0 };

	inventory_fresh(inv, note, &seen);
	for (size_t i = 0; i < n; i++) {
		bool has = false;

		for (size_t j = 0; j < seen.n; j++)
			has |= seen.cookies[j] == cookie_of(fds[i]);
		assert_true(has);
	}
	return seen.n;
}

static bool used(enum sluice_l4 l4, const char *ip, uint16_t port, const char *to, uint16_t rport,
		 int fd)
{
	struct addr addr = A(ip), remote = A(to);
	struct sockdiag_sock s;

	if (!inventory_port_used(inv, l4, &addr, port, &remote, rport, &s))
		return false;
	assert_int_equal(s.cookie, cookie_of(fd));
	return true;
}

static void test_table(void **state)
{
	struct addr addrs[] = { A(V4), A(V6) };
	struct errtext err = { "" };
	int fds[6], l, other, one = 1;
	struct sockdiag_sock s;

	(void)state;
	assert_false(inventory_port_used(inv, SLUICE_UDP, &addrs[0], 48000, &addrs[1], 1, &s));
	assert_int_equal(fresh(NULL, 0), 0);
	fds[0] = sock_bound(AF_INET, SOCK_DGRAM, V4, 48000);
	fds[1] = connected(AF_INET, SOCK_DGRAM, V4, 48001, DEAD, 53);
	fds[2] = connected(AF_INET, SOCK_STREAM, V4, 48002, DEAD, 80);
	fds[3] = sock_bound(AF_INET6, SOCK_DGRAM, V6, 48003);
	fds[4] = sock_bound(AF_INET, SOCK_STREAM, V4, 48004);
	fds[5] = sock_bound(AF_INET6, SOCK_DGRAM, V4, 48005);
	l = sock_bound(AF_INET, SOCK_STREAM, V4, 48006);
	assert_int_equal(listen(l, 1), 0);
	other = sock_bound(AF_INET, SOCK_DGRAM, V4B, 48000);
	assert_int_equal(inventory_refresh(inv, addrs, 2, &err), 0);
	assert_int_equal(inventory_stats(inv).listed, 7);
	assert_int_equal(inventory_stats(inv).cut, 0);
	assert_int_equal(fresh(fds, 6), 7);
	assert_true(used(SLUICE_UDP, V4, 48000, DEAD, 99, fds[0]));
	assert_true(used(SLUICE_UDP, V4, 48001, DEAD, 53, fds[1]));
	assert_false(used(SLUICE_UDP, V4, 48001, DEAD, 54, fds[1]));
	assert_true(used(SLUICE_TCP, V4, 48002, DEAD, 80, fds[2]));
	assert_false(used(SLUICE_UDP, V4, 48002, DEAD, 80, fds[2]));
	assert_true(used(SLUICE_UDP, V6, 48003, V6B, 99, fds[3]));
	assert_true(used(SLUICE_TCP, V4, 48004, DEAD, 80, fds[4]));
	assert_true(used(SLUICE_UDP, V4, 48005, DEAD, 80, fds[5]));
	/* A listener starts nothing, and other addresses were not asked for. */
	assert_false(used(SLUICE_TCP, V4, 48006, DEAD, 80, l));
	assert_false(used(SLUICE_UDP, V4B, 48000, DEAD, 99, other));

	/* The connected one before the one that is bound only. */
	close(fds[0]);
	fds[0] = sharing(AF_INET, V4, 48000);
	close(other);
	other = sharing(AF_INET, V4, 48000);
	sock_connect(other, AF_INET, DEAD, 53);
	assert_int_equal(inventory_refresh(inv, addrs, 2, &err), 0);
	assert_int_equal(fresh((int[]){ fds[0], other }, 2), 2);
	assert_true(used(SLUICE_UDP, V4, 48000, DEAD, 53, other));
	assert_true(used(SLUICE_UDP, V4, 48000, DEAD, 54, fds[0]));

	/* Connected meanwhile, but the same socket. */
	sock_connect(fds[4], AF_INET, DEAD, 80);
	assert_int_equal(setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
	assert_int_equal(inventory_refresh(inv, addrs, 2, &err), 0);
	assert_int_equal(fresh(NULL, 0), 0);
	assert_true(used(SLUICE_TCP, V4, 48004, DEAD, 80, fds[4]));
	assert_false(used(SLUICE_TCP, V4, 48004, DEAD, 81, fds[4]));

	for (size_t i = 0; i < 6; i++)
		hard_close(fds[i]);
	close(l);
	close(other);
	wait_for(!inventory_refresh(inv, addrs, 2, &err) && !inventory_stats(inv).listed);
	assert_false(inventory_port_used(inv, SLUICE_UDP, &addrs[0], 48000, &addrs[1], 1, &s));
}

/* All addresses; the wildcard is none of them, and TIME_WAIT does not count. */
static void test_table_all(void **state)
{
	struct pair p = pair_new(AF_INET, V4, 48007, V4B, 8080);
	struct errtext err = { "" };
	struct ct_tuple t = T(V4, 48007, V4B, 8080);
	struct sockdiag_sock s;
	int one = sock_bound(AF_INET, SOCK_DGRAM, V4, 48008), two, wild;

	(void)state;
	two = sock_bound(AF_INET6, SOCK_DGRAM, V6B, 48009);
	wild = sock_bound(AF_INET6, SOCK_DGRAM, "*", 48010);
	assert_int_equal(inventory_refresh(inv, NULL, 0, &err), 0);
	assert_int_equal(inventory_stats(inv).listed, 4);
	assert_true(used(SLUICE_UDP, V6B, 48009, V6, 1, two));
	close(p.c);
	close(p.s);
	wait_for(!find(SLUICE_TCP, t, &s) && s.state == TCP_TIME_WAIT);
	assert_int_equal(inventory_refresh(inv, NULL, 0, &err), 0);
	assert_int_equal(inventory_stats(inv).listed, 2);
	close(one);
	close(two);
	close(wild);
	assert_int_equal(inventory_destroy(inv, &s), 0);
}

/* The inventory stays where it was opened. */
static void test_namespace(void **state)
{
	int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	int udp = sock_bound(AF_INET, SOCK_DGRAM, V4, 49000);
	struct ct_tuple t = T(V4, 49000, V4B, 53);
	struct inventory *other;
	struct errtext err = { "" };
	struct sockdiag_sock s;

	(void)state;
	assert_true(home >= 0);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	must_find(SLUICE_UDP, t, udp);
	assert_int_equal(inventory_open(&other, &err), 0);
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	assert_int_equal(inventory_find(other, SLUICE_UDP, &t, &s), -ENOENT);
	must_find(SLUICE_UDP, t, udp);
	inventory_close(other);
	close(home);
	close(udp);
}

#define CASE(f)                                    \
	{                                          \
#f, f, each_open, each_close, NULL \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_tcp),         CASE(test_tcp_not_connected),
		CASE(test_time_wait),   CASE(test_udp),
		CASE(test_mapped),      CASE(test_reuseport),
		CASE(test_device),      CASE(test_sk_lookup),
		CASE(test_closed),      CASE(test_moved),
		CASE(test_many),        CASE(test_silence),
		CASE(test_loss),        CASE(test_owner),
		CASE(test_owner_group), CASE(test_destroy),
		CASE(test_table),       CASE(test_table_all),
		CASE(test_namespace),
	};

	return cmocka_run_group_tests(tests, net_open, NULL);
}
