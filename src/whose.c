// SPDX-License-Identifier: BSD-2-Clause
/*
 * See whose.h. A pass is a file: opened, and read until it ends. It is read one record at a time, since the kernel goes through files until it has as much as was asked for:
 * whoever stops reading stops the pass.
 */
#include "whose.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "dp_internal.h"
#include "whose.skel.h"

/* A read() ends with EAGAIN after a million files in which nothing was found. That often it may. */
#define PATIENCE 2

struct whose {
	struct whose_bpf *skel;
	int link_fd; /* of all processes */
	unsigned users;
};

/* One for the whole process, whose namespace's sockets do not matter: to load it takes libbpf a quarter of a second, for the types of the whole kernel. */
static struct whose *shared;

static int link_new(struct whose *w, int32_t pid)
{
	union bpf_iter_link_info info = { .task.pid = (uint32_t)pid };
	LIBBPF_OPTS(bpf_link_create_opts, opts, .iter_info = &info, .iter_info_len = sizeof(info));
	int fd = bpf_link_create(bpf_program__fd(w->skel->progs.whose), 0, BPF_TRACE_ITER,
				 pid ? &opts : NULL);

	return fd < 0 ? -errno : fd;
}

static void done(struct whose *w)
{
	if (w->link_fd >= 0)
		close(w->link_fd);
	whose_bpf__destroy(w->skel);
	free(w);
}

int whose_open(struct whose **ret, struct errtext *err)
{
	struct whose *w = shared;
	int r;

	if (!w)
		w = calloc(1, sizeof(*w));
	if (!w)
		return errtext_set(err, ENOMEM, "out of memory");
	if (w->users)
		goto out;
	w->link_fd = -1;
	dp_quiet();
	w->skel = whose_bpf__open();
	r = w->skel ? whose_bpf__load(w->skel) : -errno;
	if (r) {
		r = dp_load_failed(r, err);
		goto fail;
	}
	w->link_fd = link_new(w, 0);
	if (w->link_fd < 0) {
		r = errtext_set(err, -w->link_fd, "iterating over open files by BPF: %s",
				dp_why(w->link_fd));
		goto fail;
	}
	shared = w;
out:
	w->users++;
	*ret = w;
	return 0;
fail:
	done(w);
	return r;
}

void whose_close(struct whose *w)
{
	if (!w || --w->users)
		return;
	shared = NULL;
	done(w);
}

/* 1: a record; 0: the end. */
static int record_read(int fd, struct sluice_whose *ret)
{
	for (int tries = 0; tries < PATIENCE;) {
		ssize_t got = read(fd, ret, sizeof(*ret));

		if (got == (ssize_t)sizeof(*ret))
			return 1;
		if (got >= 0)
			return got ? -EIO : 0;
		if (errno == EAGAIN)
			tries++;
		else if (errno != EINTR)
			return -errno;
	}
	return -EAGAIN;
}

static int pass(int link_fd, uint64_t cgroup, struct sluice_whose *ret)
{
	int fd = bpf_iter_create(link_fd), r;
	struct sluice_whose rec;
	bool found = false;

	if (fd < 0)
		return -errno;
	while ((r = record_read(fd, &rec)) > 0) {
		bool best = !cgroup || rec.cgroup == cgroup;

		if (!found || best)
			*ret = rec;
		found = true;
		if (best)
			break;
	}
	close(fd);
	if (found)
		return 0;
	return r ? r : -ENOENT;
}

int whose_find(struct whose *w, int32_t pid, uint64_t inode, uint64_t cgroup,
	       struct sluice_whose *ret)
{
	int fd, r;

	w->skel->bss->wanted_inode = inode;
	if (!pid)
		return pass(w->link_fd, cgroup, ret);
	fd = link_new(w, pid);
	if (fd < 0)
		return fd == -ESRCH ? -ENOENT : fd;
	r = pass(fd, 0, ret);
	close(fd);
	return r;
}
