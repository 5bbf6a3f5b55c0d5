/* SPDX-License-Identifier: BSD-2-Clause */
/* The watcher's namespaces: entering them, and opening each one's sources. */
#include "watch_private.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#define NETNS_DIR  "/run/netns"
#define NETNS_SELF "/proc/thread-self/ns/net"

static void netns_path(const char *name, char path[PATH_MAX])
{
	if (!*name)
		snprintf(path, PATH_MAX, "%s", NETNS_SELF);
	else if (*name == '/')
		snprintf(path, PATH_MAX, "%s", name);
	else
		snprintf(path, PATH_MAX, "%s/%s", NETNS_DIR, name);
}

static int netns_fd(const char *name, struct errtext *err)
{
	char path[PATH_MAX];
	int fd;

	netns_path(name, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errtext_set(err, errno, "watch: network namespace \"%s\": %s: %m", name,
				   path);
	return fd;
}

static int local_add(void *arg, const struct netlink_route *r)
{
	struct watch_ns *ns = arg;

	if (r->type == RTN_LOCAL && r->dst.len == 128 && ns->n_locals < WATCH_ADDRS_MAX)
		ns->locals[ns->n_locals++] = r->dst.addr;
	return 0;
}

int watch_ns_locate(struct watcher *w, struct watch_ns *ns)
{
	struct addr *old = ns->locals;
	size_t n_old = ns->n_locals, n = 0;
	int r = -EAGAIN;

	ns->locals = calloc(WATCH_ADDRS_MAX, sizeof(*ns->locals));
	if (!ns->locals) {
		ns->locals = old;
		return -ENOMEM;
	}
	for (int i = 0; i < NETLINK_TRIES && r == -EAGAIN; i++) {
		ns->n_locals = 0;
		r = netlink_routes(ns->netlink, RT_TABLE_LOCAL, local_add, ns);
		if (!r)
			r = netlink_routes6(ns->netlink, RT_TABLE_LOCAL, local_add, ns);
	}
	if (r < 0) {
		free(ns->locals);
		ns->locals = old;
		ns->n_locals = n_old;
		return r;
	}
	qsort(ns->locals, ns->n_locals, sizeof(*ns->locals), addr_order);
	for (size_t i = 0; i < ns->n_locals; i++)
		if (!n || addr_cmp(&ns->locals[n - 1], &ns->locals[i]))
			ns->locals[n++] = ns->locals[i];
	ns->n_locals = n;
	r = 0;
	if (!ns->ports || n != n_old || (n && memcmp(ns->locals, old, n * sizeof(*old))))
		r = watch_ns_ports(w, ns);
	free(old);
	return r;
}

int watch_ns_ports(struct watcher *w, struct watch_ns *ns)
{
	struct collide_addrs a = watch_ports_of(w, ns);
	struct collide_ports *ports;
	int r = collide_ports_new(&a, &ports);

	if (r < 0)
		return r;
	collide_ports_free(ns->ports);
	collide_ports_free(ns->next);
	ns->ports = ports;
	ns->next = NULL;
	ns->whole = false;
	ns->again = true;
	return 0;
}

/*
 * In the namespace. ctnetlink first, since that loads nf_conntrack, which the program wants to know the entries of; and in any case, since it is also what tells whose
 * the tuple is, and deletes entries.
 */
static void ctnl_start(struct watcher *w, struct watch_ns *ns, struct errtext *err)
{
	struct ctnl_opts co = { .buffer = w->opts.buffer,
				.gone = true,
				.deaf = !(w->opts.sources & COLLISION_CTNETLINK) };
	int r = ctnl_open(&co, &ns->ctnl, err);

	if (r < 0) {
		watch_say(w, LOG_WARNING,
			  "namespace \"%s\": conntrack's entries and events are not seen: %s",
			  ns->name, err->s);
		return;
	}
	ns->events = !co.deaf;
	if (!ns->events || !ctnl_stats(ns->ctnl).off)
		return;
	ns->events = false;
	errtext_set(err, EOPNOTSUPP, "net.netfilter.nf_conntrack_events is 0 there");
	watch_say(w, LOG_WARNING, "namespace \"%s\": conntrack tells of no events: %s; set it to 1",
		  ns->name, err->s);
}

/* In the namespace. */
static void program_start(struct watcher *w, struct watch_ns *ns, struct errtext *err)
{
	int r;

	if (!w->nf_tried) {
		w->nf_tried = true;
		r = nfwatch_open(&w->nf, err);
		if (r < 0)
			watch_say(w, LOG_NOTICE, "no watching by a netfilter program: %s", err->s);
	}
	if (!w->nf)
		return;
	r = nfwatch_attach(w->nf, err);
	ns->netfilter = !r;
	if (r < 0)
		watch_say(w, LOG_WARNING,
			  "namespace \"%s\": not watched by a netfilter program: %s", ns->name,
			  err->s);
}

/* In the namespace. */
static int sources_open(struct watcher *w, struct watch_ns *ns, struct errtext *err)
{
	struct errtext why = { 0 };
	int r = inventory_open(&ns->inventory, err);

	if (r < 0)
		return r;
	if (!w->noted && *inventory_note(ns->inventory))
		watch_say(w, LOG_NOTICE, "%s", inventory_note(ns->inventory));
	w->noted = true;
	if (w->opts.any_local) {
		r = netlink_open(&ns->netlink);
		if (r < 0)
			return errtext_set(err, -r, "watch: rtnetlink: %s", strerror(-r));
	}
	ctnl_start(w, ns, &why);
	if (w->opts.sources & COLLISION_NETFILTER)
		program_start(w, ns, &why);
	if (!ns->netfilter && !ns->events)
		return errtext_set(err, EOPNOTSUPP, "watch: namespace \"%s\" cannot be watched: %s",
				   ns->name, why.s);
	return 0;
}

static int add_fd(const struct watcher *w, int fd, enum watch_source source, size_t ns)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = WATCH_FD(source, ns) };

	return fd < 0 || epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0 ? 0 : -errno;
}

static int ns_open(struct watcher *w, struct watch_ns *ns, const char *name, struct errtext *err)
{
	int own, fd = netns_fd(name, err), r;
	struct stat st;
	bool entered;

	if (fd < 0)
		return fd;
	ns->nats = calloc(WATCH_NATS_MAX, sizeof(*ns->nats));
	if (!ns->nats) {
		close(fd);
		return errtext_set(err, ENOMEM, "out of memory");
	}
	snprintf(ns->name, sizeof(ns->name), "%s", name);
	if (fstat(fd, &st) < 0) {
		r = errtext_set(err, errno, "watch: namespace \"%s\": %m", name);
		close(fd);
		return r;
	}
	ns->inode = st.st_ino;
	own = netns_fd("", err);
	if (own < 0) {
		close(fd);
		return own;
	}
	entered = *name && setns(fd, CLONE_NEWNET) == 0;
	if (*name && !entered)
		r = errtext_set(err, errno, "watch: entering network namespace \"%s\": %m%s", name,
				errno == EPERM ? " (CAP_SYS_ADMIN is needed)" : "");
	else
		r = sources_open(w, ns, err);
	if (entered && setns(own, CLONE_NEWNET) < 0) {
		/* What we are about to do would happen in the wrong place. */
		perror("sluiced: setns back");
		abort();
	}
	close(own);
	close(fd);
	if (r < 0)
		return r;
	if ((ns->events && (r = add_fd(w, ctnl_fd(ns->ctnl), WATCH_EVENTS, w->n_ns)) < 0) ||
	    (r = add_fd(w, inventory_fd(ns->inventory), WATCH_SOCKETS, w->n_ns)) < 0)
		return errtext_set(err, -r, "watch: epoll_ctl: %s", strerror(-r));
	r = w->opts.any_local ? watch_ns_locate(w, ns) : watch_ns_ports(w, ns);
	if (r < 0)
		return errtext_set(err, -r, "watch: addresses of namespace \"%s\": %s", name,
				   strerror(-r));
	return 0;
}

int watch_ns_open(struct watcher *w, struct errtext *err)
{
	int r;

	w->ns = calloc(w->opts.n_netns, sizeof(*w->ns));
	if (!w->ns)
		return errtext_set(err, ENOMEM, "out of memory");
	for (; w->n_ns < w->opts.n_netns; w->n_ns++) {
		r = ns_open(w, &w->ns[w->n_ns], w->opts.netns[w->n_ns], err);
		if (r < 0) {
			w->n_ns++;
			return r;
		}
		for (size_t i = 0; i < w->n_ns; i++)
			if (w->ns[i].inode == w->ns[w->n_ns].inode) {
				r = errtext_set(
					err, EEXIST,
					"watch: \"%s\" and \"%s\" are the same network namespace",
					w->ns[i].name, w->ns[w->n_ns].name);
				w->n_ns++;
				return r;
			}
	}
	r = add_fd(w, worker_fd(&w->lister), WATCH_LISTED, 0);
	if (!r && w->nf)
		r = add_fd(w, nfwatch_fd(w->nf), WATCH_REWRITES, 0);
	return r < 0 ? errtext_set(err, -r, "watch: epoll_ctl: %s", strerror(-r)) : 0;
}

static void ns_close(struct watcher *w, struct watch_ns *ns)
{
	watch_listing_drop(w);
	if (w->nf && ns->netfilter)
		nfwatch_detach(w->nf, ns->inode);
	/* Closing takes them out of the epoll set. */
	ctnl_close(ns->ctnl);
	inventory_close(ns->inventory);
	netlink_close(ns->netlink);
	collide_ports_free(ns->ports);
	collide_ports_free(ns->next);
	free(ns->locals);
	free(ns->nats);
	ns->ctnl = NULL;
	ns->inventory = NULL;
	ns->netlink = NULL;
	ns->ports = ns->next = NULL;
	ns->locals = NULL;
	ns->nats = NULL;
	ns->events = ns->netfilter = ns->dumping = false;
	ns->rests_ns = 0;
	ns->n_risks = 0;
}

void watch_ns_check(struct watcher *w, struct watch_ns *ns)
{
	char path[PATH_MAX];
	struct stat st;

	if (!*ns->name || ns->gone)
		return;
	netns_path(ns->name, path);
	if (!stat(path, &st) ? st.st_ino == ns->inode : errno != ENOENT && errno != ENOTDIR)
		return;
	ns->gone = true;
	ns_close(w, ns);
	watch_say(w, LOG_NOTICE,
		  "namespace \"%s\" is gone, and not watched any more; another one of that name is "
		  "watched after a restart",
		  ns->name);
}

void watch_ns_close(struct watcher *w)
{
	for (size_t i = 0; i < w->n_ns; i++)
		ns_close(w, &w->ns[i]);
	free(w->ns);
	nfwatch_close(w->nf);
}
