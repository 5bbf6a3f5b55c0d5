// SPDX-License-Identifier: BSD-2-Clause
/* Opening, pinning and sweeping. See dp.h. */
#include "dp.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cap-ng.h>

#include "dp_internal.h"
#include "fault.h"
#include "nat.skel.h"

/* What libbpf said last. It talks through one function for the whole process. */
static char libbpf_tail[4096];

static int libbpf_print(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	size_t have, len;
	char *text;
	int n;

	if (level == LIBBPF_DEBUG)
		return 0;
	n = vasprintf(&text, fmt, ap);
	if (n < 0)
		return 0;
	/* The end is what counts: the verifier's log can be megabytes long. */
	len = (size_t)n < sizeof(libbpf_tail) ? (size_t)n : sizeof(libbpf_tail) - 1;
	have = strlen(libbpf_tail);
	if (have + len >= sizeof(libbpf_tail)) {
		size_t keep = sizeof(libbpf_tail) - 1 - len;

		memmove(libbpf_tail, libbpf_tail + have - keep, keep);
		have = keep;
	}
	memcpy(libbpf_tail + have, text + n - len, len);
	libbpf_tail[have + len] = '\0';
	free(text);
	return 0;
}

static bool line_tells(const char *line)
{
	static const char *const idle[] = { "processed ",  "verification time",
					    "stack depth", "libbpf: failed to load object",
					    "-- END",      "libbpf: -- END" };

	if (!*line || strstr(line, "-- END PROG LOAD LOG --"))
		return false;
	for (size_t i = 0; i < sizeof(idle) / sizeof(idle[0]); i++)
		if (!strncmp(line, idle[i], strlen(idle[i])))
			return false;
	return true;
}

/* The last three lines of libbpf_tail that say something, into one line. Cuts libbpf_tail up. */
static void libbpf_last(char *buf, size_t size)
{
	const char *last[3] = { "", "", "" };
	char *save = NULL;

	for (char *line = strtok_r(libbpf_tail, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		if (!line_tells(line))
			continue;
		last[0] = last[1];
		last[1] = last[2];
		last[2] = line;
	}
	snprintf(buf, size, "%s%s%s%s%s", last[0], *last[0] ? " | " : "", last[1],
		 *last[1] ? " | " : "", last[2]);
	libbpf_tail[0] = '\0';
}

void dp_quiet(void)
{
	libbpf_tail[0] = '\0';
	libbpf_set_print(libbpf_print);
}

const char *dp_why(int r)
{
	if (r != -EPERM && r != -EACCES)
		return strerror(-r);
	/* CAP_SYS_ADMIN stands for CAP_BPF. */
	if (!capng_have_capability(CAPNG_EFFECTIVE, CAP_BPF) &&
	    !capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_ADMIN))
		return "not permitted: the capability CAP_BPF is missing";
	/* The verifier wants it for programs with pointer arithmetic like ours. */
	if (!capng_have_capability(CAPNG_EFFECTIVE, CAP_PERFMON) &&
	    !capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_ADMIN))
		return "not permitted: the capability CAP_PERFMON is missing";
	if (!capng_have_capability(CAPNG_EFFECTIVE, CAP_NET_ADMIN))
		return "not permitted: the capability CAP_NET_ADMIN is missing";
	return strerror(-r);
}

int dp_load_failed(int r, struct errtext *err)
{
	char said[ERRTEXT_LEN / 2 + 128];

	libbpf_last(said, sizeof(said));
	return errtext_set(err, -r, "loading the BPF programs: %s: %s", dp_why(r), said);
}

char *dp_path(char *buf, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(buf, DP_PATH_MAX, fmt, ap);
	va_end(ap);
	return buf;
}

/* Directories */

int dp_mkdir(const char *path)
{
	return mkdir(path, 0700) && errno != EEXIST ? -errno : 0;
}

int dp_dir_remove(const char *path)
{
	struct dirent *e;
	int r = 0;
	DIR *d;

	d = opendir(path);
	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while (!r && (e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (unlinkat(dirfd(d), e->d_name, 0) && errno != ENOENT) {
			r = errno == EISDIR || errno == EPERM
				    ? unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR) ? -errno : 0
				    : -errno;
		}
	}
	closedir(d);
	if (!r && rmdir(path) && errno != ENOENT)
		r = -errno;
	return r;
}

/* Make dir and what is missing above it. All of that has to be on a bpffs. */
static int dir_prepare(const char *dir, struct errtext *err)
{
	char path[DP_PATH_MAX];
	size_t len = strlen(dir);
	struct statfs fs;
	char *slash;
	int r;

	if (*dir != '/' || len >= sizeof(path))
		return errtext_set(err, EINVAL, "bpffs \"%s\": must be an absolute path", dir);
	/* The nearest directory that exists. */
	memcpy(path, dir, len + 1);
	while (statfs(path, &fs)) {
		if (errno != ENOENT)
			return errtext_set(err, errno, "%s: %s", path, strerror(errno));
		slash = strrchr(path, '/');
		if (slash == path)
			slash[1] = '\0';
		else
			*slash = '\0';
	}
	if ((unsigned long)fs.f_type != BPF_FS_MAGIC)
		return errtext_set(err, ENOENT,
				   "bpffs \"%s\": %s is not on a BPF file system: mount one, as in "
				   "'mount -t bpf bpf /sys/fs/bpf'",
				   dir, path);
	while (strlen(path) < len) {
		/* Put the next component back. */
		size_t n = strlen(path);

		memcpy(path, dir, len + 1);
		slash = strchr(path + n + (path[n] == '/'), '/');
		if (slash)
			*slash = '\0';
		r = dp_mkdir(path);
		if (r)
			return errtext_set(err, -r, "%s: making the directory: %s", path,
					   dp_why(r));
	}
	return 0;
}

int dp_lock(const char *dir, struct errtext *err)
{
	int fd, r;

	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errtext_set(err, errno, "%s: %s", dir, strerror(errno));
	if (!flock(fd, LOCK_EX | LOCK_NB))
		return fd;
	r = -errno;
	close(fd);
	if (r == -EWOULDBLOCK)
		return errtext_set(err, EBUSY, "%s: another sluiced is using it: stop that first",
				   dir);
	return errtext_set(err, -r, "%s: locking: %s", dir, strerror(-r));
}

/* Pins */

/* Every map but those that hold the programs' own variables, which are made anew at each load. */
#define foreach_pinned(map, nat) \
	bpf_object__for_each_map(map, (nat)->obj) if (!bpf_map__is_internal(map))

static int pin_info(const char *path, struct bpf_map_info *ret)
{
	__u32 len = sizeof(*ret);
	int fd, r;

	fd = bpf_obj_get(path);
	if (fd < 0)
		return -errno;
	memset(ret, 0, sizeof(*ret));
	if (bpf_obj_get_info_by_fd(fd, ret, &len)) {
		r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

#define TEARDOWN_HINT "'sluiced --teardown' removes it, which ends all flows"

static int pins_check_abi(const struct dp *dp, struct errtext *err)
{
	char path[DP_PATH_MAX];
	struct bpf_map_info info;
	uint32_t zero = 0, abi;
	void *row;
	int fd, r;

	fd = pin_info(dp_path(path, "%s/maps/conf", dp->dir), &info);
	if (fd == -ENOENT)
		return errtext_set(err, EPROTONOSUPPORT,
				   "%s is missing: what is pinned there is no data plane of "
				   "ours; " TEARDOWN_HINT,
				   path);
	if (fd < 0)
		return errtext_set(err, -fd, "%s: %s", path, dp_why(fd));
	row = info.type == BPF_MAP_TYPE_ARRAY && info.value_size >= sizeof(abi)
		      ? calloc(1, info.value_size)
		      : NULL;
	if (!row || bpf_map_lookup_elem(fd, &zero, row)) {
		r = errtext_set(err, EPROTONOSUPPORT,
				"%s: not readable as configuration; " TEARDOWN_HINT, path);
		goto out;
	}
	memcpy(&abi, row, sizeof(abi));
	r = 0;
	if (abi != SLUICE_ABI)
		r = errtext_set(
			err, EPROTONOSUPPORT,
			"%s: the data plane there has ABI %u, this sluiced has %u; " TEARDOWN_HINT,
			dp->dir, abi, SLUICE_ABI);
out:
	free(row);
	close(fd);
	return r;
}

/* Let the skeleton's map be the pinned one, if it is of the same making. */
static int pin_reuse(struct dp *dp, struct bpf_map *map, struct errtext *err)
{
	bool flows = map == dp->nat->maps.fwd || map == dp->nat->maps.rev;
	bool sized = flows || map == dp->nat->maps.client_state;
	char path[DP_PATH_MAX];
	struct bpf_map_info info;
	int fd, r;

	fd = pin_info(dp_path(path, "%s/maps/%s", dp->dir, bpf_map__name(map)), &info);
	if (fd == -ENOENT)
		return errtext_set(err, EPROTONOSUPPORT,
				   "%s is missing, though the ABI is the same; " TEARDOWN_HINT,
				   path);
	if (fd < 0)
		return errtext_set(err, -fd, "%s: %s", path, dp_why(fd));
	if (info.type != bpf_map__type(map) || info.key_size != bpf_map__key_size(map) ||
	    info.value_size != bpf_map__value_size(map) ||
	    info.map_flags != bpf_map__map_flags(map) ||
	    (!sized && info.max_entries != bpf_map__max_entries(map))) {
		r = errtext_set(err, EPROTONOSUPPORT,
				"%s: has type %u, key %u, value %u, flags 0x%x, %u entries; wanted "
				"%u, %u, %u, 0x%x, %u; " TEARDOWN_HINT,
				path, info.type, info.key_size, info.value_size, info.map_flags,
				info.max_entries, bpf_map__type(map), bpf_map__key_size(map),
				bpf_map__value_size(map), bpf_map__map_flags(map),
				bpf_map__max_entries(map));
	} else {
		r = bpf_map__reuse_fd(map, fd);
		if (r)
			errtext_set(err, -r, "%s: taking over: %s", path, dp_why(r));
		if (flows)
			dp->max_flows = info.max_entries;
	}
	close(fd);
	return r;
}

static int pins_reuse(struct dp *dp, struct errtext *err)
{
	struct bpf_map *map;
	int r;

	r = pins_check_abi(dp, err);
	if (r)
		return r;
	foreach_pinned(map, dp->nat)
	{
		r = pin_reuse(dp, map, err);
		if (r)
			return r;
	}
	return 0;
}

/* Pin under another name first, so that the name "maps" stands for all of them or for none. */
static int pins_create(struct dp *dp, struct errtext *err)
{
	char staging[DP_PATH_MAX], path[DP_PATH_MAX];
	struct bpf_map *map;
	int r;

	FAULT_POINT("dp.create");
	dp_path(staging, "%s/maps-new", dp->dir);
	r = dp_mkdir(staging);
	if (r)
		return errtext_set(err, -r, "%s: making the directory: %s", staging, dp_why(r));
	foreach_pinned(map, dp->nat)
	{
		dp_path(path, "%s/maps-new/%s", dp->dir, bpf_map__name(map));
		if (bpf_obj_pin(bpf_map__fd(map), path))
			return errtext_set(err, errno, "%s: pinning: %s", path, dp_why(-errno));
	}
	FAULT_POINT("dp.pinned");
	if (rename(staging, dp_path(path, "%s/maps", dp->dir)))
		return errtext_set(err, errno, "%s: renaming to %s: %s", staging, path,
				   strerror(errno));
	FAULT_POINT("dp.renamed");
	return 0;
}

/* Opening */

static size_t map_bytes(const struct bpf_map *map)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t bytes = ((size_t)bpf_map__value_size(map) + 7) / 8 * 8 * bpf_map__max_entries(map);

	return (bytes + page - 1) / page * page;
}

static int map_mmap(const struct bpf_map *map, void *ret_p, struct errtext *err)
{
	void *p =
		mmap(NULL, map_bytes(map), PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);

	if (p == MAP_FAILED)
		return errtext_set(err, errno, "mapping \"%s\": %s", bpf_map__name(map),
				   dp_why(-errno));
	*(void **)ret_p = p;
	return 0;
}

static int maps_mmap(struct dp *dp, struct errtext *err)
{
	const struct {
		struct bpf_map *map;
		void *at;
	} list[] = {
		{ dp->nat->maps.conf, &dp->conf },
		{ dp->nat->maps.slices, &dp->slices },
		{ dp->nat->maps.pools, &dp->pools },
		{ dp->nat->maps.blocks, &dp->blocks },
		{ dp->nat->maps.port_flows, &dp->port_flows },
		{ dp->nat->maps.held, &dp->held },
		{ dp->nat->maps.released, &dp->released },
		{ dp->nat->maps.use_bits, &dp->use_bits },
		{ dp->nat->maps.sweep_out, &dp->sweep_out },
	};
	int r = 0;

	/* An array's rows are eight bytes apart or a multiple, and these structs are that long. */
	static_assert(sizeof(struct sluice_conf) % 8 == 0 && sizeof(struct sluice_slice) % 8 == 0 &&
			      sizeof(struct sluice_pool) % 8 == 0 &&
			      sizeof(struct sluice_block) % 8 == 0 &&
			      sizeof(struct sluice_port_flows) % 8 == 0 &&
			      sizeof(struct sluice_sweep) % 8 == 0,
		      "rows of mapped arrays");
	for (size_t i = 0; !r && i < sizeof(list) / sizeof(list[0]); i++)
		r = map_mmap(list[i].map, list[i].at, err);
	return r;
}

static int load(struct dp *dp, const struct dp_opts *opts, struct errtext *err)
{
	uint32_t clients =
		opts->max_flows / 4 > SLUICE_MIN_CLIENTS ? opts->max_flows / 4 : SLUICE_MIN_CLIENTS;
	int r;

	dp_quiet();
	dp->nat = nat_bpf__open();
	if (!dp->nat)
		return errtext_set(err, errno, "opening the BPF programs: %s", strerror(errno));
	if (getrandom(dp->nat->rodata->secret, sizeof(dp->nat->rodata->secret), 0) !=
	    (ssize_t)sizeof(dp->nat->rodata->secret))
		return errtext_set(err, EIO, "no random numbers: %s", strerror(errno));
	if (dp->created) {
		dp->max_flows = opts->max_flows;
		bpf_map__set_max_entries(dp->nat->maps.fwd, opts->max_flows);
		bpf_map__set_max_entries(dp->nat->maps.rev, opts->max_flows);
		bpf_map__set_max_entries(dp->nat->maps.client_state, clients);
	} else {
		r = pins_reuse(dp, err);
		if (r)
			return r;
	}
	r = nat_bpf__load(dp->nat);
	return r ? dp_load_failed(r, err) : 0;
}

static int grace_open(struct dp *dp, struct errtext *err)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts);

	dp->grace_inner_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "sluice_inner", 4, 4, 1, NULL);
	if (dp->grace_inner_fd >= 0) {
		opts.inner_map_fd = (__u32)dp->grace_inner_fd;
		dp->grace_outer_fd =
			bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, "sluice_grace", 4, 4, 1, &opts);
	}
	if (dp->grace_outer_fd < 0)
		return errtext_set(err, errno, "creating a map of maps: %s", dp_why(-errno));
	return 0;
}

int dp_grace(struct dp *dp, struct errtext *err)
{
	uint32_t zero = 0;

	if (bpf_map_update_elem(dp->grace_outer_fd, &zero, &dp->grace_inner_fd, BPF_ANY))
		return errtext_set(err, errno, "waiting for the BPF programs: %s", dp_why(-errno));
	return 0;
}

static int open_into(struct dp *dp, const struct dp_opts *opts, struct errtext *err)
{
	char path[DP_PATH_MAX];
	int r;

	r = dir_prepare(opts->dir, err);
	if (r)
		return r;
	dp->lock_fd = dp_lock(opts->dir, err);
	if (dp->lock_fd < 0)
		return dp->lock_fd;
	/* What a daemon left that was killed before its maps were complete. */
	r = dp_dir_remove(dp_path(path, "%s/maps-new", dp->dir));
	if (r)
		return errtext_set(err, -r, "%s: removing: %s", path, dp_why(r));
	dp->created = access(dp_path(path, "%s/maps", dp->dir), F_OK) && errno == ENOENT;
	r = load(dp, opts, err);
	if (!r)
		r = maps_mmap(dp, err);
	if (!r)
		r = grace_open(dp, err);
	if (!r)
		r = dp_events_open(dp, err);
	if (r)
		return r;
	dp_set_event_rate(dp, opts->event_rate);
	if (!dp->created)
		return 0;
	dp->conf->abi = SLUICE_ABI;
	dp->conf->max_flows = dp->max_flows;
	return pins_create(dp, err);
}

int dp_open(const struct dp_opts *opts, struct dp **ret, struct errtext *err)
{
	struct dp *dp = calloc(1, sizeof(*dp));
	int r;

	if (!dp)
		return errtext_set(err, ENOMEM, "out of memory");
	dp->lock_fd = dp->grace_inner_fd = dp->grace_outer_fd = -1;
	dp->force_clsact = opts->force_clsact;
	dp->n_cpus = libbpf_num_possible_cpus();
	dp->dir = strdup(opts->dir);
	dp->use = calloc(SLUICE_MAX_BLOCKS, sizeof(*dp->use));
	dp->use_before = calloc(SLUICE_MAX_BLOCKS, sizeof(*dp->use_before));
	if (dp->n_cpus < 0)
		r = errtext_set(err, -dp->n_cpus, "counting the CPUs: %s", strerror(-dp->n_cpus));
	else if (!dp->dir || !dp->use || !dp->use_before)
		r = errtext_set(err, ENOMEM, "out of memory");
	else
		r = open_into(dp, opts, err);
	if (r) {
		dp_close(dp);
		return r;
	}
	*ret = dp;
	return 0;
}

static void map_munmap(const struct bpf_map *map, void *p)
{
	if (p)
		munmap(p, map_bytes(map));
}

void dp_close(struct dp *dp)
{
	if (!dp)
		return;
	ring_buffer__free(dp->ring);
	if (dp->nat) {
		map_munmap(dp->nat->maps.conf, dp->conf);
		map_munmap(dp->nat->maps.slices, dp->slices);
		map_munmap(dp->nat->maps.pools, dp->pools);
		map_munmap(dp->nat->maps.blocks, dp->blocks);
		map_munmap(dp->nat->maps.port_flows, dp->port_flows);
		map_munmap(dp->nat->maps.held, dp->held);
		map_munmap(dp->nat->maps.released, dp->released);
		map_munmap(dp->nat->maps.use_bits, dp->use_bits);
		map_munmap(dp->nat->maps.sweep_out, dp->sweep_out);
		nat_bpf__destroy(dp->nat);
	}
	if (dp->grace_outer_fd >= 0)
		close(dp->grace_outer_fd);
	if (dp->grace_inner_fd >= 0)
		close(dp->grace_inner_fd);
	if (dp->lock_fd >= 0)
		close(dp->lock_fd);
	free(dp->use);
	free(dp->use_before);
	free(dp->dir);
	free(dp);
}

void dp_set_event_rate(struct dp *dp, uint32_t event_rate)
{
	__atomic_store_n(&dp->conf->event_rate, event_rate, __ATOMIC_RELAXED);
}

uint32_t dp_max_flows(const struct dp *dp)
{
	return dp->max_flows;
}

bool dp_created(const struct dp *dp)
{
	return dp->created;
}
