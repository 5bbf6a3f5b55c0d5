/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Real sockets for tests of the sockets' hooks: the machine is the test's own network namespace, with one neighbour inside and one behind the uplink.
 * The programs at the uplink are not attached, only its number is entered: what passes there is sk_lookup's doing alone.
 *
 *	inside, 10.1.0.2 ==== in0 [machine: 203.0.113.7, 2001:db8:113::7] up0 ==== outside, 198.51.100.10
 */
#ifndef SOCKETS_H
#define SOCKETS_H

#include "dp_test.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

#define SHARED_IP4 "203.0.113.7"
#define SHARED_IP6 "2001:db8:113::7"
#define PATIENCE_S 10

/* var: an index of a fixed list. */
#define foreach(var, list) for (size_t var = 0; var < sizeof(list) / sizeof((list)[0]); var++)

static int ns_machine = -1, ns_inside = -1, ns_outside = -1;
static char lab_group[256]; /* a control group of our own */

/* Namespaces */

static inline int ns_here(void)
{
	int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		die("this network namespace: %s", strerror(errno));
	return fd;
}

static inline void ns_enter(int ns)
{
	if (setns(ns, CLONE_NEWNET))
		die("setns: %s", strerror(errno));
}

/* Another one beside the machine's. */
static inline int ns_new(void)
{
	int ns;

	if (unshare(CLONE_NEWNET))
		die("a network namespace: %s", strerror(errno));
	ns = ns_here();
	must_run("ip link set lo up");
	ns_enter(ns_machine);
	return ns;
}

/* A neighbour in 10.x.y.0/24 and an IPv6 network; its way to the shared addresses leads through the machine. */
static inline int neighbour(const char *dev, const char *ip4, const char *gate4, const char *ip6,
			    const char *gate6)
{
	int ns = ns_new();

	must_run("ip link add %s type veth peer name peer netns /proc/%d/fd/%d", dev, (int)getpid(),
		 ns);
	must_run("ip addr add %s/24 dev %s && ip addr add %s/64 dev %s nodad && ip link set %s up",
		 gate4, dev, gate6, dev, dev);
	ns_enter(ns);
	must_run("ip addr add %s/24 dev peer && ip addr add %s/64 dev peer nodad", ip4, ip6);
	must_run(
		"ip link set peer up && ip route add default via %s && ip route add default via %s",
		gate4, gate6);
	ns_enter(ns_machine);
	return ns;
}

/* The directory of the cgroup2 file system. */
static inline void cgroup_root(char path[256])
{
	char line[1024], type[64];
	FILE *f = fopen("/proc/self/mounts", "r");

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%*s %255s %63s", path, type) == 2 && !strcmp(type, "cgroup2")) {
			fclose(f);
			return;
		}
	}
	die("no cgroup2 file system is mounted");
}

static inline void group_enter(const char *group)
{
	must_run("echo %d > %s/cgroup.procs", (int)getpid(), group);
}

/* With what a test that failed has made below it. */
static inline bool group_remove(const char *group)
{
	run_command("find %s -depth -mindepth 1 -type d -exec rmdir {} \\;", group);
	return !rmdir(group) || errno == ENOENT;
}

/* Groups of runs that are no more. */
static inline void groups_sweep(const char *root)
{
	struct dirent *e;
	char path[512];
	DIR *d;

	d = opendir(root);
	while (d && (e = readdir(d))) {
		if (strncmp(e->d_name, MARK, strlen(MARK)) ||
		    !kill(atoi(e->d_name + strlen(MARK)), 0) || errno != ESRCH)
			continue;
		snprintf(path, sizeof(path), "%.200s/%.200s", root, e->d_name);
		group_remove(path);
	}
	if (d)
		closedir(d);
}

static inline int sockets_open(void **state)
{
	char root[256];

	lab_open(state);
	ns_machine = ns_here();
	must_run("ip route add local " SHARED_IP4 " dev lo && ip addr add " SHARED_IP6
		 "/128 dev lo nodad");
	/* A refused datagram is known by its ICMP error. */
	must_run("sysctl -qw net.ipv4.icmp_ratemask=0 net.ipv6.icmp.ratelimit=0");
	ns_outside = neighbour("up0", "198.51.100.10", "198.51.100.1", "2001:db8:51::10",
			       "2001:db8:51::1");
	ns_inside = neighbour("in0", "10.1.0.2", "10.1.0.1", "2001:db8:1::2", "2001:db8:1::1");
	cgroup_root(root);
	groups_sweep(root);
	snprintf(lab_group, sizeof(lab_group), "%.200s/" MARK "%d", root, (int)getpid());
	must_run("mkdir -p %s", lab_group);
	group_enter(lab_group);
	return 0;
}

static inline int sockets_done(void **state)
{
	char root[256];

	lab_clean(state);
	cgroup_root(root);
	group_enter(root);
	wait_for(group_remove(lab_group));
	return 0;
}

/* Opened, with the scene's one pool and the uplink; IPv6 is entered by hand, since the configuration has none. */
static inline struct dp *open_scene(void)
{
	unsigned uplink = if_nametoindex("up0");
	struct sluice_addr_row row;
	struct dp *dp = must_open();
	struct errtext err = { "" };
	union sluice_addr a;
	struct scene s;

	scene_default(&s);
	publish(dp, &s);
	a = addr_of(SHARED);
	map_get(dp->nat->maps.addrs, &a, &row);
	inet_pton(AF_INET6, SHARED_IP6, &a);
	map_put(dp->nat->maps.addrs, &a, &row);
	if (dp_socket_uplinks(dp, &uplink, 1, &err))
		die("dp_socket_uplinks: %s", err.s);
	return dp;
}

static inline void attach(struct dp *dp, const char *cgroup)
{
	struct dp_socket_opts opts = { .cgroup = cgroup };
	struct errtext err = { "" };

	if (dp_socket_attach(dp, &opts, &err))
		die("dp_socket_attach: %s", err.s);
}

/* Sockets */

union endpoint {
	struct sockaddr sa;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static inline union endpoint endpoint(const char *ip, uint16_t port)
{
	union endpoint e = { 0 };

	if (inet_pton(AF_INET, ip, &e.v4.sin_addr) == 1) {
		e.v4.sin_family = AF_INET;
		e.v4.sin_port = htons(port);
	} else if (inet_pton(AF_INET6, ip, &e.v6.sin6_addr) == 1) {
		e.v6.sin6_family = AF_INET6;
		e.v6.sin6_port = htons(port);
	} else {
		die("%s is no address", ip);
	}
	return e;
}

static inline socklen_t endpoint_len(const union endpoint *e)
{
	return e->sa.sa_family == AF_INET ? sizeof(e->v4) : sizeof(e->v6);
}

/* Whatever it waits for, it gives up after PATIENCE_S. */
static inline int socket_in(int ns, int family, int type)
{
	const struct timeval patience = { .tv_sec = PATIENCE_S };
	int fd;

	ns_enter(ns);
	fd = socket(family, type | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)))
		die("socket: %s", strerror(errno));
	ns_enter(ns_machine);
	return fd;
}

/* A socket of the machine; TCP listens. */
static inline int stand(int type, const char *ip, uint16_t port)
{
	union endpoint e = endpoint(ip, port);
	int fd = socket_in(ns_machine, e.sa.sa_family, type), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, &e.sa, endpoint_len(&e)) || (type == SOCK_STREAM && listen(fd, 64)))
		die("bind to %s port %d: %s", ip, port, strerror(errno));
	return fd;
}

/* A connection, or a datagram, from ns to ip and port gets to the socket fd and to no other, and is answered. */
static inline void reaches(int type, int ns, const char *ip, uint16_t port, int fd)
{
	union endpoint e = endpoint(ip, port), from;
	socklen_t len = sizeof(from);
	int c = socket_in(ns, e.sa.sa_family, type), a = fd;
	uint64_t id = cookie_of(c), got = 0;

	if (connect(c, &e.sa, endpoint_len(&e)))
		die("connect to %s port %d: %s", ip, port, strerror(errno));
	if (send(c, &id, sizeof(id), 0) != sizeof(id))
		die("send to %s port %d: %s", ip, port, strerror(errno));
	if (type == SOCK_STREAM)
		a = accept4(fd, &from.sa, &len, SOCK_CLOEXEC);
	if (a < 0 || recvfrom(a, &got, sizeof(got), 0, &from.sa, &len) != sizeof(got))
		die("%s port %d did not reach the socket: %s", ip, port, strerror(errno));
	assert_int_equal(got, id);
	if (type == SOCK_STREAM) {
		len = sizeof(from);
		assert_int_equal(getsockname(a, &from.sa, &len), 0);
		/* To the connection's own end it looks as if it stood at the shared address. */
		if (from.sa.sa_family == e.sa.sa_family)
			assert_memory_equal(&from, &e, endpoint_len(&e));
		assert_int_equal(send(a, &id, sizeof(id), 0), sizeof(id));
		assert_int_equal(recv(c, &got, sizeof(got), MSG_WAITALL), sizeof(got));
		close(a);
	}
	close(c);
}

static inline void refused(int type, int ns, const char *ip, uint16_t port)
{
	union endpoint e = endpoint(ip, port);
	int c = socket_in(ns, e.sa.sa_family, type);
	int r = connect(c, &e.sa, endpoint_len(&e));
	char byte;

	if (type == SOCK_DGRAM) {
		assert_int_equal(r, 0);
		assert_int_equal(send(c, "x", 1, 0), 1);
		r = (int)recv(c, &byte, 1, 0);
	}
	if (r != -1 || errno != ECONNREFUSED)
		die("%s port %d is not refused: %s", ip, port, r < 0 ? strerror(errno) : "reached");
	close(c);
}

/* Nobody has come to a socket that could have been reached. */
static inline void assert_untouched(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	assert_int_equal(poll(&p, 1, 0), 0);
}

/* Leases */

static inline void lease_port(struct dp *dp, const char *ip, uint16_t port, enum sluice_l4 l4,
			      enum sluice_lease_kind kind, uint32_t steer)
{
	union endpoint e = endpoint(ip, port);
	struct dp_lease l = {
		.key = { .port = htons(port), .l4 = (uint8_t)l4 },
		.lease = { .id = 1, .steer = steer, .kind = (uint8_t)kind },
	};
	struct errtext err = { "" };

	if (e.sa.sa_family == AF_INET)
		l.key.addr = addr_of(ntohl(e.v4.sin_addr.s_addr));
	else
		memcpy(&l.key.addr, &e.v6.sin6_addr, sizeof(l.key.addr));
	if (dp_lease_put(dp, &l, 1, &err))
		die("dp_lease_put: %s", err.s);
}

static inline void steer_set(struct dp *dp, uint32_t slot, int fd)
{
	struct errtext err = { "" };

	if (dp_steer_set(dp, slot, fd, &err))
		die("dp_steer_set: %s", err.s);
}

#endif
