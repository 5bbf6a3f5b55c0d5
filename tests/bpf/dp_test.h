/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the data plane's loader: a network namespace of our own for the process, a bpffs
 * directory of our own, and configurations and holds put together by hand. The rows are the
 * loader's work here; packets and maps are looked at through the bed of harness.h, which is lent
 * the loader's programs.
 */
#ifndef DP_TEST_H
#define DP_TEST_H

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "dp.h"
#include "dp_internal.h"
#include "flows.h"

#define BPFFS "/sys/fs/bpf"
#define MARK  "slab-dp-"
#define FLOWS 4096

static char lab_dir[64];
static struct dp *lab_dp; /* what is open, to be closed after a test that failed */

/* Commands */

static inline int run_command(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static inline int run_command(const char *fmt, ...)
{
	char cmd[1024];
	va_list ap;
	int status;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	status = system(cmd);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define must_run(...)                                             \
	do {                                                      \
		if (run_command(__VA_ARGS__))                     \
			die("this command failed: " __VA_ARGS__); \
	} while (0)

/* Waits for a condition for up to ten seconds. */
#define wait_for(condition)                                                 \
	do {                                                                \
		struct timespec nap_ = { .tv_nsec = 5000000 };              \
		int left_;                                                  \
                                                                            \
		for (left_ = 2000; left_ > 0 && !(condition); left_--)      \
			nanosleep(&nap_, NULL);                             \
		if (!left_)                                                 \
			die("after ten seconds still not: %s", #condition); \
	} while (0)

/* The lab */

/* Directories of runs that are no more. */
static inline void lab_sweep(void)
{
	struct errtext err;
	struct dirent *e;
	char path[512];
	DIR *d;

	d = opendir(BPFFS);
	while (d && (e = readdir(d))) {
		if (strncmp(e->d_name, MARK, strlen(MARK)))
			continue;
		if (kill(atoi(e->d_name + strlen(MARK)), 0) && errno == ESRCH) {
			snprintf(path, sizeof(path), BPFFS "/%s", e->d_name);
			dp_teardown(path, NULL, 0, &err);
		}
	}
	if (d)
		closedir(d);
}

static inline int lab_open(void **state)
{
	struct statfs fs;

	(void)state;
	need_root();
	if (unshare(CLONE_NEWNET))
		die("a network namespace of our own: %s", strerror(errno));
	must_run("ip link set lo up");
	if (statfs(BPFFS, &fs) || (unsigned long)fs.f_type != BPF_FS_MAGIC) {
		if (mount("bpf", BPFFS, "bpf", 0, NULL))
			die("mounting a bpffs: %s", strerror(errno));
	}
	lab_sweep();
	snprintf(lab_dir, sizeof(lab_dir), BPFFS "/" MARK "%d", (int)getpid());
	return 0;
}

static inline int lab_clean(void **state)
{
	struct errtext err = { "" };

	(void)state;
	dp_close(lab_dp);
	lab_dp = NULL;
	if (dp_teardown(lab_dir, NULL, 0, &err))
		print_error("cleaning up: %s\n", err.s);
	return 0;
}

static inline bool lab_has(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static inline bool lab_has(const char *fmt, ...)
{
	char name[256], path[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(name, sizeof(name), fmt, ap);
	va_end(ap);
	snprintf(path, sizeof(path), "%s/%s", lab_dir, name);
	return !access(path, F_OK);
}

/* Opening */

static inline struct dp_opts lab_opts(void)
{
	return (struct dp_opts){ .dir = lab_dir, .max_flows = FLOWS, .event_rate = 1000000 };
}

static inline struct dp *must_open(void)
{
	struct dp_opts opts = lab_opts();
	struct errtext err = { "" };
	struct dp *dp;

	if (dp_open(&opts, &dp, &err))
		die("dp_open: %s", err.s);
	lab_dp = dp;
	return dp;
}

static inline void must_close(struct dp *dp)
{
	assert_ptr_equal(dp, lab_dp);
	lab_dp = NULL;
	dp_close(dp);
}

static inline void open_refused(const struct dp_opts *opts, int r, const char *text)
{
	struct errtext err = { "" };
	struct dp *dp = NULL;
	int got = dp_open(opts, &dp, &err);

	if (got != r || dp)
		die("dp_open: %d (\"%s\"), not %d", got, err.s, r);
	if (!strstr(err.s, text))
		die("\"%s\" is not in \"%s\"", text, err.s);
}

static inline struct bed bed_of(const struct dp *dp)
{
	struct bed b = { .nat = dp->nat, .cpus = libbpf_num_possible_cpus() };

	if (b.cpus < 1 || b.cpus > LAB_CPUS)
		die("%d possible CPUs, these tests know up to %d", b.cpus, LAB_CPUS);
	return b;
}

/* Configurations */

#define SCENE_POOLS 4
#define SCENE_HOLDS 64

struct scene {
	struct config config;
	struct config_pool pools[SCENE_POOLS];
	struct addr addrs[SCENE_POOLS][4];
	struct prefix clients[SCENE_POOLS][2], no_nat[SCENE_POOLS][2];
	struct hold_table holds;
	struct hold rows[SCENE_HOLDS];
};

static inline struct addr scene_addr(uint32_t ip)
{
	return addr_from_v4(htonl(ip));
}

static inline struct config_pool *scene_pool(struct scene *s, const char *name, uint32_t size)
{
	size_t i = s->config.n_pools++;
	struct config_pool *p = &s->pools[i];

	s->config.pools = s->pools;
	s->holds.rows = s->rows;
	snprintf(p->name, sizeof(p->name), "%s", name);
	p->slice_size = size;
	p->mapping[SLUICE_TCP] = SLUICE_OVERLOAD;
	p->mapping[SLUICE_UDP] = SLUICE_EIM;
	p->mapping[SLUICE_ICMP] = SLUICE_EIM;
	for (int l4 = 0; l4 < SLUICE_L4_MAX; l4++)
		p->filtering[l4] = SLUICE_FILTER_ADDRESS;
	p->timers = config_timers_default;
	p->unleased = SLUICE_UNLEASED_ALLOW;
	p->addresses = s->addrs[i];
	p->clients = s->clients[i];
	p->no_nat = s->no_nat[i];
	return p;
}

static inline struct prefix scene_prefix(const char *text)
{
	struct prefix p;

	if (prefix_parse(text, &p))
		die("%s is no prefix", text);
	return p;
}

/* Keep them sorted: by address, then port. */
static inline struct hold *scene_hold(struct scene *s, const char *pool, uint32_t ip,
				      uint32_t first, uint32_t nports, uint32_t epoch)
{
	struct hold *h = &s->rows[s->holds.n++];

	memset(h, 0, sizeof(*h));
	snprintf(h->pool, sizeof(h->pool), "%s", pool);
	h->ports.addr = scene_addr(ip);
	h->ports.first = (uint16_t)first;
	h->ports.last = (uint16_t)(first + nports - 1);
	h->epoch = epoch;
	h->not_after_ns = SLUICE_NEVER;
	return h;
}

/* One pool, one slice of 2048, clients 10.1.0.0/16. */
static inline void scene_default(struct scene *s)
{
	struct config_pool *p;

	memset(s, 0, sizeof(*s));
	p = scene_pool(s, "default", 2048);
	s->addrs[0][p->n_addresses++] = scene_addr(SHARED);
	s->clients[0][p->n_clients++] = scene_prefix("10.1.0.0/16");
	s->no_nat[0][p->n_no_nat++] = scene_prefix("192.0.2.0/24");
	scene_hold(s, "default", SHARED, FIRST, 2048, 1);
}

static inline struct plan *must_read(struct dp *dp)
{
	struct errtext err = { "" };
	struct plan *p;

	if (dp_read_plan(dp, &p, &err))
		die("dp_read_plan: %s", err.s);
	return p;
}

/* Builds against what is in the maps, and publishes. The plan is the caller's. */
static inline struct plan *must_publish(struct dp *dp, const struct scene *s)
{
	struct plan *prev = must_read(dp), *p;
	struct errtext err = { "" };

	if (plan_build(&s->config, &s->holds, prev, &p, &err))
		die("plan_build: %s", err.s);
	if (dp_publish(dp, p, &err))
		die("dp_publish: %s", err.s);
	plan_free(prev);
	return p;
}

static inline void publish(struct dp *dp, const struct scene *s)
{
	plan_free(must_publish(dp, s));
}

static inline struct sluice_sweep must_sweep(struct dp *dp)
{
	struct errtext err = { "" };
	struct sluice_sweep s;

	if (dp_sweep(dp, &s, &err))
		die("dp_sweep: %s", err.s);
	return s;
}

static inline uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len), 0);
	return cookie;
}

#endif
