// SPDX-License-Identifier: BSD-2-Clause
/*
 * The hooks of sockets: sk_lookup of the network namespace, and those of control groups. Every hook is a link that is pinned in DIR/links (see dp.h) under its
 * place and its program's name. The kernel is asked where a link is before its program is exchanged: the namespace or the group may be another one
 * by now.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "dp_internal.h"
#include "exec.skel.h"
#include "nat.skel.h"
#include "socket.skel.h"

/* Kernel 5.14 on; the headers of some C libraries lack it. */
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

/* Where programs go. */
struct place {
	const char *name; /* first part of the pins' names */
	const char *path; /* NULL: the programs are not wanted there */
	int fd;
	uint64_t id; /* as struct bpf_link_info tells it */
	__u32 link_type;
};

enum {
	NETNS,
	CGROUP,
	EXEC,
	N_PLACES,
};

struct hooks {
	struct place places[N_PLACES];
	struct socket_bpf *socket;
	struct exec_bpf *exec;
};

static struct place *place_of(struct hooks *h, const struct bpf_object *obj,
			      const struct bpf_program *prog)
{
	if (h->exec && obj == h->exec->obj)
		return &h->places[EXEC];
	return &h->places[bpf_program__type(prog) == BPF_PROG_TYPE_SK_LOOKUP ? NETNS : CGROUP];
}

/* Calls fn with each program that is wanted, until it returns something else than 0. */
static int foreach_hook(struct hooks *h,
			int (*fn)(const struct place *at, struct bpf_program *prog, void *arg),
			void *arg)
{
	struct bpf_object *objs[] = { h->socket->obj, h->exec ? h->exec->obj : NULL };
	struct bpf_program *prog;
	int r;

	for (size_t i = 0; i < sizeof(objs) / sizeof(objs[0]) && objs[i]; i++) {
		bpf_object__for_each_program(prog, objs[i])
		{
			const struct place *at = place_of(h, objs[i], prog);

			r = at->path ? fn(at, prog, arg) : 0;
			if (r)
				return r;
		}
	}
	return 0;
}

/* Loading */

int dp_object_share_maps(struct bpf_object *obj, const struct dp *dp, struct errtext *err)
{
	struct bpf_map *map;
	int r;

	bpf_object__for_each_map(map, obj)
	{
		const struct bpf_map *shared;

		if (bpf_map__is_internal(map))
			continue;
		shared = bpf_object__find_map_by_name(dp->nat->obj, bpf_map__name(map));
		if (!shared)
			continue;
		r = bpf_map__reuse_fd(map, bpf_map__fd(shared));
		if (r)
			return errtext_set(err, -r, "map \"%s\": taking over: %s",
					   bpf_map__name(map), dp_why(r));
	}
	return 0;
}

static int object_load(struct bpf_object *obj, const struct dp *dp, struct errtext *err)
{
	int r = dp_object_share_maps(obj, dp, err);

	if (r)
		return r;
	r = bpf_object__load(obj);
	return r ? dp_load_failed(r, err) : 0;
}

static int objects_load(struct hooks *h, const struct dp *dp, struct errtext *err)
{
	struct bpf_program *prog;
	int r;

	h->socket = socket_bpf__open();
	if (h->socket && h->places[EXEC].path) {
		h->exec = exec_bpf__open();
		if (h->exec)
			memcpy((void *)h->exec->rodata->secret, (void *)dp->nat->rodata->secret,
			       sizeof(h->exec->rodata->secret));
	}
	if (!h->socket || (h->places[EXEC].path && !h->exec))
		return errtext_set(err, errno, "opening the BPF programs: %s", strerror(errno));
	bpf_object__for_each_program(prog, h->socket->obj)
		bpf_program__set_autoload(prog, place_of(h, h->socket->obj, prog)->path);
	r = object_load(h->socket->obj, dp, err);
	if (!r && h->exec)
		r = object_load(h->exec->obj, dp, err);
	return r;
}

/* Places */

/* A control group's id as the kernel's links tell it: what a file handle of its directory holds. */
static int cgroup_id(int fd, uint64_t *ret)
{
	union {
		struct file_handle h;
		char room[sizeof(struct file_handle) + sizeof(*ret)];
	} u = { .h.handle_bytes = sizeof(*ret) };
	int mount_id;

	if (name_to_handle_at(fd, "", &u.h, &mount_id, AT_EMPTY_PATH))
		return errno == EOVERFLOW ? -ENOTSUP : -errno;
	if (u.h.handle_bytes != sizeof(*ret))
		return -ENOTSUP;
	memcpy(ret, u.h.f_handle, sizeof(*ret));
	return 0;
}

static int place_open(struct place *p, struct errtext *err)
{
	struct stat st;
	int r = 0;

	if (!p->path)
		return 0;
	p->fd = open(p->path, O_RDONLY | O_CLOEXEC);
	if (p->fd < 0)
		return errtext_set(err, errno, "%s: %s", p->path, strerror(errno));
	if (p->link_type == BPF_LINK_TYPE_CGROUP) {
		r = cgroup_id(p->fd, &p->id);
		return r ? errtext_set(err, -r, "%s: not a directory of cgroup2: %s", p->path,
				       strerror(-r))
			 : 0;
	}
	if (fstat(p->fd, &st))
		return errtext_set(err, errno, "%s: %s", p->path, strerror(errno));
	p->id = st.st_ino;
	return 0;
}

/* Links */

struct attach {
	const struct dp *dp;
	struct errtext *err;
};

/* Exchange the program of a pinned link, or attach it and pin the link. */
static int attach_one(const struct place *at, struct bpf_program *prog, void *arg)
{
	const struct attach *a = arg;
	int prog_fd = bpf_program__fd(prog);
	char path[DP_PATH_MAX];
	struct dp_link link;
	int fd, r;

	dp_path(path, "%s/links/%s-%s", a->dp->dir, at->name, bpf_program__name(prog));
	fd = dp_link_open(path, &link);
	if (fd < 0 && fd != -ENOENT)
		return errtext_set(a->err, -fd, "%s: %s", path, dp_why(fd));
	if (fd >= 0) {
		r = link.type == at->link_type && link.at == at->id
			    ? bpf_link_update(fd, prog_fd, NULL)
			    : -ENOLINK;
		close(fd);
		if (!r)
			return 0;
		if (r != -ENOLINK)
			return errtext_set(a->err, -r, "%s: exchanging the program: %s", path,
					   dp_why(r));
		/* The namespace or the group is gone, or is not the one that we are to serve. */
		r = dp_link_remove(path, a->err);
		if (r)
			return r;
	}
	fd = bpf_link_create(prog_fd, at->fd, bpf_program__expected_attach_type(prog), NULL);
	if (fd < 0)
		return errtext_set(
			a->err, -fd, "%s: attaching \"%s\": %s%s", at->path,
			bpf_program__name(prog), dp_why(fd),
			fd == -EPERM && at->link_type == BPF_LINK_TYPE_CGROUP
				? " (or a program is attached there that allows no other)"
				: "");
	r = bpf_obj_pin(fd, path);
	if (r)
		errtext_set(a->err, -r, "%s: pinning: %s", path, dp_why(r));
	close(fd);
	return r;
}

static int is_pin(const struct place *at, struct bpf_program *prog, void *arg)
{
	const char *name = arg;
	size_t len = strlen(at->name);

	return !strncmp(name, at->name, len) && name[len] == '-' &&
	       !strcmp(name + len + 1, bpf_program__name(prog));
}

/* Is it of a kind that this file attaches? */
static bool link_ours(const struct dp_link *l)
{
	return l->type == BPF_LINK_TYPE_NETNS || l->type == BPF_LINK_TYPE_CGROUP;
}

struct prune {
	struct hooks *wanted; /* NULL: none */
	struct errtext *err;
};

static int prune_one(const char *path, const char *name, const struct dp_link *link, void *arg)
{
	const struct prune *p = arg;

	if (!link_ours(link) || (p->wanted && foreach_hook(p->wanted, is_pin, (void *)name)))
		return 0;
	return dp_link_remove(path, p->err);
}

/* Remove the pinned links of our kinds that are not wanted: all of them when h is NULL. */
static int links_prune(const char *dir, struct hooks *h, struct errtext *err)
{
	struct prune p = { h, err };
	int r;

	if (err)
		err->s[0] = '\0';
	r = dp_foreach_link(dir, prune_one, &p);
	return r && err && !err->s[0] ? errtext_set(err, -r, "%s/links: %s", dir, dp_why(r)) : r;
}

static int count_live(const char *path, const char *name, const struct dp_link *link, void *arg)
{
	size_t *n = arg;

	(void)path;
	(void)name;
	*n += link_ours(link) && link->at;
	return 0;
}

/* Pinned links of our kinds that are attached somewhere; those that can be read. */
static size_t links_live(const char *dir)
{
	size_t n = 0;

	dp_foreach_link(dir, count_live, &n);
	return n;
}

bool dp_socket_attached(const struct dp *dp)
{
	return dp->socket_links && links_live(dp->dir) == dp->socket_links;
}

int dp_socket_unhook(const char *dir, struct errtext *err)
{
	return links_prune(dir, NULL, err);
}

/* What the programs must know to leave other network namespaces alone. */
static int netns_cookie(uint64_t *ret, struct errtext *err)
{
	socklen_t len = sizeof(*ret);
	int fd, r = 0;

	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, ret, &len))
		r = errtext_set(err, errno, "the network namespace's cookie: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
	return r;
}

static int hooks_attach(struct hooks *h, struct dp *dp, uint32_t exec_level, struct errtext *err)
{
	struct attach a = { .dp = dp, .err = err };
	char path[DP_PATH_MAX];
	uint64_t cookie;
	int r = 0;

	for (size_t i = 0; !r && i < N_PLACES; i++)
		r = place_open(&h->places[i], err);
	if (!r)
		r = objects_load(h, dp, err);
	if (!r)
		r = netns_cookie(&cookie, err);
	if (r)
		return r;
	__atomic_store_n(&dp->conf->exec_level, exec_level, __ATOMIC_RELAXED);
	__atomic_store_n(&dp->conf->netns_cookie, cookie, __ATOMIC_RELEASE);
	r = dp_mkdir(dp_path(path, "%s/links", dp->dir));
	if (r)
		return errtext_set(err, -r, "%s: making the directory: %s", path, dp_why(r));
	r = foreach_hook(h, attach_one, &a);
	if (!r)
		r = links_prune(dp->dir, h, err);
	if (!r)
		dp->socket_links = links_live(dp->dir);
	return r;
}

int dp_socket_attach(struct dp *dp, const struct dp_socket_opts *opts, struct errtext *err)
{
	struct hooks h = {
		.places = {
			[NETNS] = { "netns", "/proc/thread-self/ns/net", -1, 0, BPF_LINK_TYPE_NETNS },
			[CGROUP] = { "cgroup", opts->cgroup, -1, 0, BPF_LINK_TYPE_CGROUP },
			[EXEC] = { "exec", opts->exec_cgroup, -1, 0, BPF_LINK_TYPE_CGROUP },
		},
	};
	int r;

	dp_quiet();
	r = hooks_attach(&h, dp, opts->exec_level, err);
	for (size_t i = 0; i < N_PLACES; i++)
		if (h.places[i].fd >= 0)
			close(h.places[i].fd);
	/* The links keep the programs. */
	socket_bpf__destroy(h.socket);
	exec_bpf__destroy(h.exec);
	return r;
}

/* Uplinks */

struct uplink {
	uint32_t ifindex;
	uint32_t one;
};

static int uplink_order(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(uint32_t));
}

int dp_socket_uplinks(struct dp *dp, const unsigned *ifindexes, size_t n, struct errtext *err)
{
	struct uplink want[SLUICE_MAX_UPLINKS];
	struct dp_entries have;
	bool changed = false;
	int r;

	if (n > SLUICE_MAX_UPLINKS)
		return errtext_set(err, ENOSPC, "%zu uplinks: at most %d are possible", n,
				   SLUICE_MAX_UPLINKS);
	for (size_t i = 0; i < n; i++)
		want[i] = (struct uplink){ .ifindex = ifindexes[i], .one = 1 };
	if (n)
		qsort(want, n, sizeof(want[0]), uplink_order);
	r = dp_entries_read(dp->nat->maps.uplinks, &have, err);
	if (r)
		return r;
	/* First take out: both lists together may not fit. Those that stay are not touched. */
	r = dp_entries_remove(&have, want, n, sizeof(want[0]), &changed, err);
	if (!r)
		r = dp_entries_put(&have, want, n, sizeof(want[0]), &changed, err);
	dp_entries_done(&have);
	return r;
}
