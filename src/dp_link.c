// SPDX-License-Identifier: BSD-2-Clause
/* What is pinned in DIR (see dp.h): its names, and the links among it. */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "dp_internal.h"

int dp_link_open(const char *path, struct dp_link *ret)
{
	struct bpf_link_info info = { 0 };
	__u32 len = sizeof(info);
	int fd, r;

	fd = bpf_obj_get(path);
	if (fd < 0)
		return -errno;
	if (bpf_obj_get_info_by_fd(fd, &info, &len)) {
		r = -errno;
		close(fd);
		return r;
	}
	*ret = (struct dp_link){ .type = info.type };
	if (info.type == BPF_LINK_TYPE_CGROUP) {
		ret->at = info.cgroup.cgroup_id;
		ret->attach_type = info.cgroup.attach_type;
	} else if (info.type == BPF_LINK_TYPE_NETNS || info.type == DP_LINK_TCX) {
		/* All kinds of links that begin with a number of 32 bits, here an ifindex, have the type of hook after it. */
		ret->at = info.netns.netns_ino;
		ret->attach_type = info.netns.attach_type;
	}
	return fd;
}

int dp_link_remove(const char *path, struct errtext *err)
{
	int fd = bpf_obj_get(path);
	int r = 0;

	if (fd < 0 && errno == ENOENT)
		return 0;
	/* At once, not when the last reference is gone: removing a pin alone detaches a little later. */
	if (fd < 0 || (bpf_link_detach(fd) && errno != ENOLINK && errno != EOPNOTSUPP))
		r = errtext_set(err, errno, "%s: detaching: %s", path, dp_why(-errno));
	if (!r && unlink(path) && errno != ENOENT)
		r = errtext_set(err, errno, "%s: removing: %s", path, dp_why(-errno));
	if (fd >= 0)
		close(fd);
	return r;
}

int dp_foreach_name(const char *dir, const char *sub, int (*fn)(const char *name, void *arg),
		    void *arg)
{
	char path[DP_PATH_MAX];
	struct dirent *e;
	int r = 0;
	DIR *d;

	d = opendir(dp_path(path, "%s/%s", dir, sub));
	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while (!r && (e = readdir(d)))
		if (*e->d_name != '.')
			r = fn(e->d_name, arg);
	closedir(d);
	return r;
}

struct walk {
	const char *dir;
	dp_link_fn *fn;
	void *arg;
};

static int walk_one(const char *name, void *arg)
{
	const struct walk *w = arg;
	char path[DP_PATH_MAX];
	struct dp_link link;
	int fd;

	fd = dp_link_open(dp_path(path, "%s/links/%s", w->dir, name), &link);
	/* What is no link is not ours. */
	if (fd < 0)
		return 0;
	close(fd);
	return w->fn(path, name, &link, w->arg);
}

int dp_foreach_link(const char *dir, dp_link_fn *fn, void *arg)
{
	struct walk w = { dir, fn, arg };

	return dp_foreach_name(dir, "links", walk_one, &w);
}
