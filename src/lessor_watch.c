/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whose end ends leases: processes, by pidfd, and the control groups of "sluice exec". A process is described once and watched as long as it lives or its leases do;
 * the descriptor keeps its pid from being mistaken for a later process's.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

#include "lessor_private.h"
#include "process.h"

#define IDLE_MAX       512 /* watched processes without a lease */
#define EVENTS_AT_ONCE 64

static struct watch_list *bucket(struct lessor *l, uint64_t key)
{
	return &l->watches[(key * 0x9e3779b97f4a7c15ULL >> 32) % WATCH_BUCKETS];
}

static struct watch *process_find(struct lessor *l, uint32_t pid)
{
	struct watch *w;

	LIST_FOREACH(w, bucket(l, pid), link)
	if (w->who.pid == pid)
		return w;
	return NULL;
}

static void watch_free(struct lessor *l, struct watch *w)
{
	LIST_REMOVE(w, link);
	if (!w->live)
		l->n_idle--;
	close(w->fd); /* also takes it out of the epoll set */
	free(w->ids);
	free(w);
}

static bool readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

/* Watch fd, which is taken also on failure. */
static int watch_new(struct lessor *l, const struct lease_holder *who, int fd, struct watch **ret,
		     struct errtext *err)
{
	struct watch *w = calloc(1, sizeof(*w));
	struct epoll_event ev = { .events = EPOLLIN | EPOLLONESHOT, .data.ptr = w };
	int e = w ? 0 : ENOMEM;

	if (w && epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		e = errno;
	if (e) {
		free(w);
		close(fd);
		return errtext_set(err, e, "watching a process: %s", strerror(e));
	}
	w->fd = fd;
	w->who = *who;
	LIST_INSERT_HEAD(bucket(l, who->pid), w, link);
	l->n_idle++;
	*ret = w;
	return 0;
}

/* Make room: forget one process that has no lease. */
static void idle_trim(struct lessor *l)
{
	for (size_t i = 0; i < WATCH_BUCKETS; i++) {
		struct watch *w;

		l->idle_at = (l->idle_at + 1) % WATCH_BUCKETS;
		LIST_FOREACH(w, &l->watches[l->idle_at], link)
		{
			if (!w->live) {
				watch_free(l, w);
				return;
			}
		}
	}
}

static int gone(pid_t pid, struct errtext *err)
{
	return errtext_set(err, ESRCH, "process %d has ended", (int)pid);
}

/* The watch of a process that lives. pidfd: taken; negative: opened here. */
static int process_watched(struct lessor *l, pid_t pid, int pidfd, struct watch **ret,
			   struct errtext *err)
{
	struct watch *w = process_find(l, (uint32_t)pid);
	struct lease_holder who;
	int r;

	/* Asked once a turn: what ends in the middle of one ends its leases all the same. */
	if (w && (w->alive_turn == l->turn || !readable(w->fd))) {
		w->alive_turn = l->turn;
		if (pidfd >= 0)
			close(pidfd);
		*ret = w;
		return 0;
	}
	if (pidfd < 0)
		pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		return errno == ESRCH ? gone(pid, err)
				      : errtext_set(err, errno, "process %d: %s", (int)pid,
						    strerror(errno));
	/* It lives after it was described: then the description is of no other one. */
	r = process_describe(pid, &who);
	if (r < 0 || readable(pidfd)) {
		close(pidfd);
		return r < 0 && r != -ESRCH
			       ? errtext_set(err, -r, "process %d: %s", (int)pid, strerror(-r))
			       : gone(pid, err);
	}
	if (l->n_idle >= IDLE_MAX)
		idle_trim(l);
	return watch_new(l, &who, pidfd, ret, err);
}

bool lessor_knows(struct lessor *l, pid_t pid)
{
	return process_find(l, (uint32_t)pid);
}

int lessor_holder(struct lessor *l, pid_t pid, uint32_t uid, int pidfd, struct lease_holder *ret,
		  struct errtext *err)
{
	struct watch *w;
	int r = process_watched(l, pid, pidfd, &w, err);

	if (r < 0)
		return r;
	*ret = w->who;
	ret->uid = uid;
	return 0;
}

int lessor_process(struct lessor *l, pid_t pid, struct lease_holder *ret, struct errtext *err)
{
	struct watch *w;
	int r = process_watched(l, pid, -1, &w, err);

	if (r < 0)
		return r;
	*ret = w->who;
	return 0;
}

/* ---- leases of a watch ---- */

/* Room for n more ids; those of leases that have ended go first. */
static int ids_reserve(struct lessor *l, struct watch *w, size_t n)
{
	size_t kept = 0, cap;
	uint64_t *more;

	if (w->n + n <= w->cap)
		return 0;
	for (size_t i = 0; i < w->n; i++) {
		const struct lease *lease = lease_find(l->table, w->ids[i]);

		if (lease && lease->user == w)
			w->ids[kept++] = w->ids[i];
	}
	w->n = kept;
	if (2 * (w->n + n) <= w->cap)
		return 0;
	cap = 2 * (w->n + n);
	more = reallocarray(w->ids, cap, sizeof(*more));
	if (!more)
		return -ENOMEM;
	w->ids = more;
	w->cap = cap;
	return 0;
}

int lessor_watch_reserve(struct lessor *l, const struct lease_request *req, size_t n,
			 struct watch **ret, struct errtext *err)
{
	struct watch *w;
	int r;

	*ret = NULL;
	if (req->bound != LEASE_BOUND_PROCESS)
		return 0;
	r = process_watched(l, (pid_t)req->holder.pid, -1, &w, err);
	if (r < 0)
		return r;
	if (w->who.started != req->holder.started)
		return gone((pid_t)req->holder.pid, err);
	if (ids_reserve(l, w, n) < 0)
		return errtext_set(err, ENOMEM, "out of memory");
	*ret = w;
	return 0;
}

void lessor_watch_add(struct lessor *l, struct watch *w, struct lease *lease)
{
	w->ids[w->n++] = lease->id;
	if (!w->live++)
		l->n_idle--;
	lease->user = w;
}

void lessor_watch_rm(struct lessor *l, struct lease *lease)
{
	struct watch *w = lease->user;

	if (lease->bound != LEASE_BOUND_PROCESS || !w)
		return;
	lease->user = NULL;
	if (--w->live)
		return;
	l->n_idle++;
	if (w->dead)
		watch_free(l, w);
}

/* ---- control groups ---- */

/* Let the processes of a lease's control group out through it; ended: nowhere, as long as there are some. */
static int exec_put(struct lessor *l, const struct lease *lease, uint64_t group, bool ended,
		    struct errtext *err)
{
	int i = lessor_slice_of(l, &lease->ports);
	struct sluice_exec row = {
		.lease = lease->id,
		.first = lease->ports.first,
		.last = lease->ports.last,
		.kind = (uint8_t)lease->kind,
	};

	if (i < 0 && !ended)
		return errtext_set(err, ESTALE, "the lease's slice is not held any more");
	memcpy(row.addr.b, lease->ports.addr.b, sizeof(row.addr.b));
	if (i >= 0) {
		row.slice = l->slices[i].row;
		row.pool = dp_slice(l->dp, row.slice)->pool;
	}
	row.protos = ended ? 0 : lease->protos;
	return dp_exec_put(l->dp, group, &row, err);
}

static void group_rm(struct lessor *l, uint64_t id)
{
	uint64_t group = cgroup_id(l->cgroups, id);
	struct errtext err;

	if (!group)
		return;
	/* The group first: a process that came in meanwhile must find the row. */
	if (cgroup_rm(l->cgroups, id, &err) < 0)
		lessor_say(l, LOG_WARNING, "lease", "control group of lease %llu: %s",
			   (unsigned long long)id, err.s);
	else
		dp_exec_rm(l->dp, group);
}

int lessor_exec(struct lessor *l, struct lease *lease, pid_t pid, char ret_path[PATH_MAX],
		struct errtext *err)
{
	uint64_t group;
	int r;

	if (!l->cgroups || l->no_exec)
		return errtext_set(err, EOPNOTSUPP, "exec is not to be had on this machine: %s",
				   l->no_cgroups.s);
	r = cgroup_make(l->cgroups, lease->id, &group, err);
	if (r < 0)
		return r;
	/* The way out before anybody is in. */
	r = exec_put(l, lease, group, false, err);
	if (!r)
		r = cgroup_move(l->cgroups, lease->id, pid, err);
	if (r < 0) {
		if (cgroup_populated(l->cgroups, lease->id) == 0)
			group_rm(l, lease->id);
		return r;
	}
	cgroup_path(l->cgroups, lease->id, ret_path);
	return 0;
}

void lessor_exec_end(struct lessor *l, const struct lease *lease)
{
	uint64_t group = l->cgroups ? cgroup_id(l->cgroups, lease->id) : 0;
	struct errtext err;

	if (!group)
		return;
	if (cgroup_populated(l->cgroups, lease->id) == 0)
		group_rm(l, lease->id);
	else if (exec_put(l, lease, group, true, &err) < 0)
		lessor_say(l, LOG_ERR, "lease", "control group of lease %llu: %s",
			   (unsigned long long)lease->id, err.s);
}

static int group_emptied(void *arg, uint64_t id)
{
	struct lessor *l = arg;
	struct lease *lease = lessor_find(l, id);
	struct errtext err;

	/* Its ports rest from now on. The group goes with the commit, or here when there is nothing to commit. */
	if (lease && lease->bound == LEASE_BOUND_CGROUP) {
		if (lessor_release(l, lease, LEASE_WHY_CGROUP, &err) < 0)
			lessor_say(l, LOG_ERR, "lease", "lease %llu: %s", (unsigned long long)id,
				   err.s);
	} else {
		group_rm(l, id);
	}
	return 0;
}

/* All groups that there are, for free(). */
static uint64_t *groups_list(struct lessor *l, size_t *ret_n)
{
	size_t n = cgroup_list(l->cgroups, NULL, 0);
	uint64_t *ids = calloc(n ?: 1, sizeof(*ids));

	*ret_n = ids ? cgroup_list(l->cgroups, ids, n) : 0;
	return ids;
}

/* Groups that an earlier daemon left: those with processes keep their way out, or are shut when their lease has ended. */
static int groups_adopt(struct lessor *l, struct errtext *err)
{
	size_t n;
	uint64_t *ids = groups_list(l, &n);
	int r = ids ? 0 : errtext_set(err, ENOMEM, "out of memory");

	for (size_t i = 0; i < n && !r; i++) {
		const struct lease *lease = lessor_find(l, ids[i]);
		const struct lease none = { .id = ids[i] };

		if (cgroup_populated(l->cgroups, ids[i]) == 0)
			group_emptied(l, ids[i]);
		else
			r = exec_put(l, lease ?: &none, cgroup_id(l->cgroups, ids[i]), !lease, err);
	}
	free(ids);
	return r;
}

/* Groups whose end was not announced, or could not be stored. */
static void groups_empty(struct lessor *l)
{
	size_t n;
	uint64_t *ids = groups_list(l, &n);

	for (size_t i = 0; i < n; i++)
		if (cgroup_populated(l->cgroups, ids[i]) == 0)
			group_emptied(l, ids[i]);
	free(ids);
}

/* ---- life ---- */

int lessor_watch_open(struct lessor *l, const struct config *c, struct errtext *err)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int r;

	for (size_t i = 0; i < WATCH_BUCKETS; i++)
		LIST_INIT(&l->watches[i]);
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll_fd < 0)
		return errtext_set(err, errno, "epoll_create1: %s", strerror(errno));
	ev.data.ptr = &l->look;
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, lessor_look_fd(l), &ev) < 0)
		return errtext_set(err, errno, "epoll_ctl: %s", strerror(errno));
	ev.data.ptr = NULL;
	r = cgroups_open(c->leases.cgroup, &l->cgroups, &l->no_cgroups);
	if (r < 0) {
		/* Everything else works without. */
		lessor_say(l, LOG_NOTICE, "lease", "no exec: %s", l->no_cgroups.s);
		return 0;
	}
	if (cgroups_fd(l->cgroups) >= 0 &&
	    epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, cgroups_fd(l->cgroups), &ev) < 0)
		return errtext_set(err, errno, "epoll_ctl: %s", strerror(errno));
	return 0;
}

void lessor_watch_close(struct lessor *l)
{
	for (size_t i = 0; l->epoll_fd >= 0 && i < WATCH_BUCKETS; i++)
		while (!LIST_EMPTY(&l->watches[i]))
			watch_free(l, LIST_FIRST(&l->watches[i]));
	cgroups_close(l->cgroups);
	if (l->epoll_fd >= 0)
		close(l->epoll_fd);
}

static int process_adopt(struct lessor *l, struct lease *lease, struct errtext *err)
{
	struct watch *w;
	int r = process_watched(l, (pid_t)lease->holder.pid, -1, &w, err);

	if (r < 0)
		return r;
	if (w->who.started != lease->holder.started)
		return gone((pid_t)lease->holder.pid, err);
	if (ids_reserve(l, w, 1) < 0)
		return errtext_set(err, ENOMEM, "out of memory");
	lessor_watch_add(l, w, lease);
	return 0;
}

int lessor_watch_adopt(struct lessor *l, struct errtext *err)
{
	uint64_t id = 0;
	struct lease *lease;
	enum lease_why why;
	int r = 0;

	while (!r && (lease = lease_next(l->table, id))) {
		id = lease->id;
		why = LEASE_WHY_NONE;
		if (lease->state != LEASE_ACTIVE)
			continue;
		if (lease->bound == LEASE_BOUND_PROCESS) {
			r = process_adopt(l, lease, err);
			if (r == -ESRCH)
				why = LEASE_WHY_PROCESS;
		} else if (lease->bound == LEASE_BOUND_CGROUP &&
			   (!l->cgroups || !cgroup_id(l->cgroups, id))) {
			why = LEASE_WHY_CGROUP;
		}
		if (why != LEASE_WHY_NONE)
			r = lessor_release(l, lease, why, err);
	}
	if (!r && l->cgroups)
		r = groups_adopt(l, err);
	return r;
}

int lessor_fd(const struct lessor *l)
{
	return l->epoll_fd;
}

/*
 * End what the process had. The watch goes when that is on the disk; if storing fails, the leases are there again, and lessor_watch_retry() ends them.
 */
static void process_ended(struct lessor *l, struct watch *w)
{
	struct errtext err;

	w->dead = true;
	for (size_t i = 0; i < w->n; i++) {
		struct lease *lease = lease_find(l->table, w->ids[i]);

		if (lease && lease->user == w && lease->state == LEASE_ACTIVE &&
		    lessor_release(l, lease, LEASE_WHY_PROCESS, &err) < 0)
			break; /* no memory: tried again */
	}
	if (!w->live)
		watch_free(l, w);
	else
		l->n_dead++;
}

void lessor_watch_retry(struct lessor *l)
{
	if (l->n_dead) {
		l->n_dead = 0;
		for (size_t i = 0; i < WATCH_BUCKETS; i++) {
			struct watch *w, *next;

			for (w = LIST_FIRST(&l->watches[i]); w; w = next) {
				next = LIST_NEXT(w, link);
				if (w->dead)
					process_ended(l, w);
			}
		}
	}
	if (l->cgroups)
		groups_empty(l);
}

void lessor_ended(struct lessor *l)
{
	struct epoll_event evs[EVENTS_AT_ONCE];
	int n = epoll_wait(l->epoll_fd, evs, EVENTS_AT_ONCE, 0);

	for (int i = 0; i < n; i++) {
		if (evs[i].data.ptr == &l->look)
			lessor_looking(l);
		else if (evs[i].data.ptr)
			process_ended(l, evs[i].data.ptr);
		else
			cgroups_emptied(l->cgroups, group_emptied, l);
	}
}

bool lessor_cgroups(const struct lessor *l, const char **ret_root, const char **ret_dir,
		    uint32_t *ret_level)
{
	if (!l->cgroups)
		return false;
	*ret_root = cgroups_root(l->cgroups);
	*ret_dir = cgroups_dir(l->cgroups);
	*ret_level = cgroups_level(l->cgroups);
	return true;
}

size_t lessor_execs(const struct lessor *l)
{
	return l->cgroups ? cgroup_list(l->cgroups, NULL, 0) : 0;
}

bool lessor_no_exec(struct lessor *l, const char *why)
{
	bool first = !l->no_exec;

	l->no_exec = true;
	errtext_set(&l->no_cgroups, EOPNOTSUPP, "%s", why);
	return first;
}
