/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The scene of the exec hooks' tests: the real programs at a real control group, real sockets and processes. The rows of the maps are written by
 * the test itself.
 *
 *	this process --- near, 198.51.100.1/24, 2001:db8:1::1/64 ====== far, .10 .11 .12, ::10 ::11 ::12 (another network namespace)
 *	             --- inner, 10.9.0.1/24, 2001:db8:9::1/64
 *	shared: 203.0.113.7, 203.0.113.8, 2001:db8:7::7
 *
 * Sockets belong to the namespace that they were made in, so one process has both ends.
 */
#ifndef EXEC_RIG_H
#define EXEC_RIG_H

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cmocka.h>

#include "cgroup.h"
#include "exec.skel.h"
#include "sluice_abi.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

#define SHARED      "203.0.113.7"
#define SHARED2     "203.0.113.8"
#define SHARED6     "2001:db8:7::7"
#define NEAR        "198.51.100.1"
#define NEAR6       "2001:db8:1::1"
#define FIRST       41000
#define PORT        80
#define POOL        3
#define LEASE       7
#define PATIENCE_MS 10000

#define die(...)                                                   \
	do {                                                       \
		print_error(__VA_ARGS__);                          \
		print_error("\n");                                 \
		fail();                                            \
		abort(); /* not reached: fail() leaves the test */ \
	} while (0)

static const char *const far[] = { "198.51.100.10", "198.51.100.11", "198.51.100.12" };
static const char *const far6[] = { "2001:db8:1::10", "2001:db8:1::11", "2001:db8:1::12" };
#define N_FAR 3

static struct {
	struct exec_bpf *bpf;
	struct bpf_link *links[16];
	size_t n_links;
	struct cgroups *cgs;
	char base[64];
	char home[2 * PATH_MAX + 16]; /* cgroup.procs of the group that we came from */
	int near_ns, far_ns;
	uint64_t group;
	int first_fd;           /* tests' own are from here on */
	int servers[2 * N_FAR]; /* listeners, far[] and far6[] */
	int udp[2 * N_FAR];
} rig = { .near_ns = -1 };

static inline void run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static inline void run(const char *fmt, ...)
{
	char cmd[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	if (system(cmd))
		die("this command failed: %s", cmd);
}

/* A procfs or cgroup file. */
static inline void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		die("%s: %s", path, strerror(errno));
	close(fd);
}

#define wait_for(condition)                                                       \
	do {                                                                      \
		struct timespec nap_ = { .tv_nsec = 2000000 };                    \
		int left_;                                                        \
                                                                                  \
		for (left_ = PATIENCE_MS / 2; left_ > 0 && !(condition); left_--) \
			nanosleep(&nap_, NULL);                                   \
		if (!left_)                                                       \
			die("after ten seconds still not: %s", #condition);       \
	} while (0)

/* Addresses */

struct end {
	union {
		struct sockaddr sa;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	};
	socklen_t len;
};

static inline struct end end_of(const char *ip, unsigned port)
{
	struct end e = { .len = sizeof(e.v4) };

	if (inet_pton(AF_INET, ip, &e.v4.sin_addr) == 1) {
		e.v4.sin_family = AF_INET;
		e.v4.sin_port = htons((uint16_t)port);
		return e;
	}
	e = (struct end){ .len = sizeof(e.v6) };
	if (inet_pton(AF_INET6, ip, &e.v6.sin6_addr) != 1)
		die("%s is no address", ip);
	e.v6.sin6_family = AF_INET6;
	e.v6.sin6_port = htons((uint16_t)port);
	return e;
}

static inline union sluice_addr abi_addr(const char *ip)
{
	union sluice_addr a = { .b = { [10] = 0xff, [11] = 0xff } };

	if (inet_pton(AF_INET, ip, &a.w[3]) != 1 && inet_pton(AF_INET6, ip, a.b) != 1)
		die("%s is no address", ip);
	return a;
}

static inline struct end end_get(int fd, bool peer)
{
	struct end e = { .len = sizeof(e.v6) };

	if ((peer ? getpeername : getsockname)(fd, &e.sa, &e.len))
		die("%s: %s", peer ? "getpeername" : "getsockname", strerror(errno));
	return e;
}

static inline unsigned port_of(int fd)
{
	struct end e = end_get(fd, false);

	return ntohs(e.v4.sin_port);
}

static inline const char *ip_of(int fd)
{
	static _Thread_local char buf[INET6_ADDRSTRLEN];
	struct end e = end_get(fd, false);

	if (e.sa.sa_family == AF_INET)
		return inet_ntop(AF_INET, &e.v4.sin_addr, buf, sizeof(buf));
	return inet_ntop(AF_INET6, &e.v6.sin6_addr, buf, sizeof(buf));
}

/* Sockets; errors as -errno */

static inline int sock_new(int family, int type, int proto)
{
	int low = socket(family, type | SOCK_CLOEXEC, proto);
	int fd = low >= 0 && rig.first_fd ? fcntl(low, F_DUPFD_CLOEXEC, rig.first_fd) : low;

	if (fd < 0)
		die("socket: %s", strerror(errno));
	if (fd != low)
		close(low);
	return fd;
}

static inline int sock_bind(int fd, const char *ip, unsigned port)
{
	struct end e = end_of(ip, port);

	return bind(fd, &e.sa, e.len) ? -errno : 0;
}

static inline int sock_connect(int fd, const char *ip, unsigned port)
{
	struct end e = end_of(ip, port);

	return connect(fd, &e.sa, e.len) ? -errno : 0;
}

static inline int sock_flag(int fd, int option)
{
	socklen_t len = sizeof(int);
	int v = -1;

	getsockopt(fd, SOL_SOCKET, option, &v, &len);
	return v;
}

static inline void sock_flag_set(int fd, int option, int v)
{
	assert_int_equal(setsockopt(fd, SOL_SOCKET, option, &v, sizeof(v)), 0);
}

/* Dial from a new socket. The descriptor, or -errno. */
static inline int dial(int family, int type, const char *ip, unsigned port)
{
	int fd = sock_new(family, type, 0), r = sock_connect(fd, ip, port);

	if (!r)
		return fd;
	close(fd);
	return r;
}

static inline int dial_tcp(const char *ip)
{
	return dial(AF_INET, SOCK_STREAM, ip, PORT);
}

/* End a connection at once, with a RST and no TIME_WAIT, once the far end has it. */
static inline void sock_abort(int fd)
{
	struct linger l = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	close(fd);
}

static inline int server_accept(int server)
{
	struct pollfd p = { .fd = server, .events = POLLIN };

	if (poll(&p, 1, PATIENCE_MS) != 1)
		die("no connection arrived");
	return accept4(server, NULL, NULL, SOCK_CLOEXEC);
}

/* Forget what has been accepted by the kernel meanwhile. */
static inline void servers_drain(void)
{
	for (int i = 0; i < 2 * N_FAR; i++) {
		char buf[64];
		int fd;

		while ((fd = accept4(rig.servers[i], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >=
		       0)
			sock_abort(fd);
		while (recv(rig.udp[i], buf, sizeof(buf), MSG_DONTWAIT) >= 0)
			;
	}
}

static inline void is_from(int fd, const char *ip, unsigned ports, int line)
{
	if (fd < 0)
		die("line %d: no socket: %s", line, strerror(-fd));
	if (strcmp(ip_of(fd), ip))
		die("line %d: the socket's address is %s, not %s", line, ip_of(fd), ip);
	if (ports && (port_of(fd) < FIRST || port_of(fd) >= FIRST + ports))
		die("line %d: port %u is not of the lease, %u to %u", line, port_of(fd), FIRST,
		    FIRST + ports - 1);
}

#define assert_leased(fd, ip, ports) is_from(fd, ip, ports, __LINE__)
#define assert_own(fd)               is_from(fd, NEAR, 0, __LINE__)

/* Maps */

static inline void map_set(const struct bpf_map *map, const void *key, const void *value)
{
	if (bpf_map_update_elem(bpf_map__fd(map), key, value, BPF_ANY))
		die("map %s: %s", bpf_map__name(map), strerror(errno));
}

static inline void lpm_set(const struct bpf_map *map, uint32_t pool, const char *ip, unsigned len,
			   uint32_t value)
{
	struct sluice_lpm_key key = { .prefixlen = SLUICE_LPM_POOL_BITS + len, .pool = pool };

	key.addr = abi_addr(ip);
	map_set(map, &key, &value);
}

static inline struct sluice_exec exec_row(const char *ip, unsigned ports)
{
	struct sluice_exec e = { .lease = LEASE,
				 .addr = abi_addr(ip),
				 .pool = POOL,
				 .first = FIRST,
				 .last = (uint16_t)(FIRST + ports - 1),
				 .protos = 1 << SLUICE_TCP | 1 << SLUICE_UDP,
				 .kind = SLUICE_LEASE_SHARED };
	return e;
}

static inline void lease_set(const struct sluice_exec *e)
{
	map_set(rig.bpf->maps.execs, &rig.group, e);
}

/* A shared lease of so many ports on SHARED, for both protocols. */
static inline void lease(unsigned ports)
{
	struct sluice_exec e = exec_row(SHARED, ports);

	lease_set(&e);
}

/* Control groups */

static inline void leave(void)
{
	put(rig.home, "0");
}

static inline void enter(void)
{
	struct errtext err;

	if (cgroup_move(rig.cgs, LEASE, getpid(), &err))
		die("%s", err.s);
}

static inline void home_find(void)
{
	char line[PATH_MAX];
	FILE *f = fopen("/proc/self/cgroup", "r");

	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (!strncmp(line, "0::", 3))
			snprintf(rig.home, sizeof(rig.home), "%s%s/cgroup.procs",
				 cgroups_root(rig.cgs), line + 3);
	}
	if (f)
		fclose(f);
	assert_true(rig.home[0]);
}

static inline void attach(const struct bpf_program *prog)
{
	int fd = open(cgroups_dir(rig.cgs), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct bpf_link *l = bpf_program__attach_cgroup(prog, fd);

	if (!l)
		die("attaching %s: %s", bpf_program__name(prog), strerror(errno));
	rig.links[rig.n_links++] = l;
	close(fd);
}

static inline void attach_all(void)
{
	struct bpf_program *prog;

	bpf_object__for_each_program(prog, rig.bpf->obj) attach(prog);
}

static inline void detach_all(void)
{
	while (rig.n_links)
		bpf_link__destroy(rig.links[--rig.n_links]);
}

/* Setting the scene */

static inline void hooks_load(void)
{
	struct sluice_conf conf = { .abi = SLUICE_ABI, .execs = 1 };
	socklen_t len = sizeof(conf.netns_cookie);
	struct sluice_addr_row row = { .pool = POOL };
	int fd = sock_new(AF_INET, SOCK_DGRAM, 0);
	uint32_t zero = 0, one = 1, near = if_nametoindex("near");
	union sluice_addr a;

	rig.bpf = exec_bpf__open_and_load();
	if (!rig.bpf)
		die("loading the hooks: %s", strerror(errno));
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &conf.netns_cookie, &len), 0);
	close(fd);
	conf.exec_level = cgroups_level(rig.cgs);
	map_set(rig.bpf->maps.conf, &zero, &conf);
	map_set(rig.bpf->maps.uplinks, &near, &one);
	for (int i = 0; i < 3; i++) {
		const char *const shared[] = { SHARED, SHARED2, SHARED6 };

		a = abi_addr(shared[i]);
		map_set(rig.bpf->maps.addrs, &a, &row);
	}
	lpm_set(rig.bpf->maps.onlink, 0, "10.9.0.0", 120, 0);
	lpm_set(rig.bpf->maps.onlink, 0, NEAR, 128, 0);
	lpm_set(rig.bpf->maps.onlink, 0, SHARED, 128, 0);
	lpm_set(rig.bpf->maps.onlink, 0, "2001:db8:9::", 64, 0);
}

static inline void servers_open(void)
{
	for (int i = 0; i < 2 * N_FAR; i++) {
		const char *ip = i < N_FAR ? far[i] : far6[i - N_FAR];
		int family = i < N_FAR ? AF_INET : AF_INET6, r;

		rig.servers[i] = sock_new(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
		sock_flag_set(rig.servers[i], SO_REUSEADDR, 1);
		rig.udp[i] = sock_new(family, SOCK_DGRAM, 0);
		wait_for(!(r = sock_bind(rig.servers[i], ip, PORT)));
		assert_int_equal(sock_bind(rig.udp[i], ip, PORT), 0);
		assert_int_equal(listen(rig.servers[i], 4096), 0);
	}
}

/* Groups of runs that were killed. */
static inline void leftovers_remove(const char *root)
{
	DIR *d = opendir(root);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		struct errtext err;
		struct cgroups *cgs;
		char dir[PATH_MAX];
		int pid = 0;

		if (sscanf(e->d_name, "slab-exec-%d", &pid) != 1 || !kill(pid, 0) ||
		    cgroups_open(e->d_name, &cgs, &err))
			continue;
		snprintf(dir, sizeof(dir), "%s", cgroups_dir(cgs));
		cgroup_rm(cgs, LEASE, &err);
		cgroups_close(cgs);
		rmdir(dir);
	}
	if (d)
		closedir(d);
}

static inline int rig_open(void **state)
{
	struct errtext err = { "" };

	(void)state;
	if (geteuid())
		die("this test loads BPF programs: run it as root");
	libbpf_set_print(NULL);
	if (unshare(CLONE_NEWNET))
		die("a network namespace: %s", strerror(errno));
	rig.far_ns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (unshare(CLONE_NEWNET))
		die("a network namespace: %s", strerror(errno));
	rig.near_ns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	run("ip link set lo up && ip link add near type veth peer name far netns /proc/%d/fd/%d",
	    getpid(), rig.far_ns);
	run("ip addr add " NEAR "/24 dev near && ip -6 addr add " NEAR6 "/64 dev near nodad && "
	    "ip link set near up && ip link add inner type veth peer name inner2 && ip link set "
	    "inner2 up && ip addr add 10.9.0.1/24 dev "
	    "inner && "
	    "ip -6 addr add 2001:db8:9::1/64 dev inner nodad && ip link set inner up");
	run("ip route add local " SHARED " dev lo && ip route add local " SHARED2 " dev lo && "
	    "ip -6 addr add " SHARED6 "/128 dev lo nodad");
	put("/proc/sys/net/ipv4/tcp_tw_reuse", "0");
	if (setns(rig.far_ns, CLONE_NEWNET))
		die("setns: %s", strerror(errno));
	run("ip link set lo up && ip link set far up && ip addr add 198.51.100.2/24 dev far && "
	    "ip -6 addr add 2001:db8:1::2/64 dev far nodad");
	for (int i = 0; i < N_FAR; i++)
		run("ip addr add %s/32 dev far && ip -6 addr add %s/128 dev far nodad", far[i],
		    far6[i]);
	run("ip route add 203.0.113.0/24 via " NEAR
	    " && ip -6 route add 2001:db8:7::/64 via " NEAR6);
	servers_open();
	if (setns(rig.near_ns, CLONE_NEWNET))
		die("setns: %s", strerror(errno));

	snprintf(rig.base, sizeof(rig.base), "slab-exec-%d", (int)getpid());
	if (cgroups_open(rig.base, &rig.cgs, &err))
		die("%s", err.s);
	leftovers_remove(cgroups_root(rig.cgs));
	home_find();
	if (cgroup_make(rig.cgs, LEASE, &rig.group, &err))
		die("%s", err.s);
	hooks_load();
	attach_all();
	rig.first_fd = fcntl(0, F_DUPFD_CLOEXEC, 100);
	close(rig.first_fd);
	return 0;
}

static inline int rig_close(void **state)
{
	struct errtext err = { "" };

	(void)state;
	detach_all();
	exec_bpf__destroy(rig.bpf);
	if (!rig.cgs)
		return 0;
	if (rig.home[0])
		leave();
	if (cgroup_rm(rig.cgs, LEASE, &err) || rmdir(cgroups_dir(rig.cgs)))
		print_error("cleaning up: %s %s\n", cgroups_dir(rig.cgs), err.s);
	cgroups_close(rig.cgs);
	return 0;
}

/* Before and after each test. */
static inline int test_begin(void **state)
{
	(void)state;
	lease(4);
	enter();
	return 0;
}

static inline int test_end(void **state)
{
	(void)state;
	leave();
	/* What a test that failed has left open would be in the next one's way. */
	for (int fd = rig.first_fd; fd < rig.first_fd + 256; fd++)
		sock_abort(fd);
	servers_drain();
	if (setns(rig.near_ns, CLONE_NEWNET))
		die("setns: %s", strerror(errno));
	return 0;
}

#endif
