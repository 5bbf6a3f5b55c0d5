// SPDX-License-Identifier: BSD-2-Clause
/*
 * The hooks at an uplink: TCX links (kernel 6.6 on), else filters of a clsact qdisc. What there is
 * of either is found by its pin or marker in DIR (see dp.h); the kernel is asked before anything is
 * replaced or removed.
 */
#include <assert.h>
#include <errno.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "dp_internal.h"
#include "fault.h"
#include "links.h"
#include "nat.skel.h"

/* Not known to libbpf 1.1 and Debian 12's headers. */
#define TCX_INGRESS ((enum bpf_attach_type)46)
#define TCX_EGRESS  ((enum bpf_attach_type)47)

#define FILTER_HANDLE   1
#define FILTER_PRIORITY 1

struct hook {
	const char *name;
	const char *program;
	enum bpf_attach_type tcx;
	enum bpf_tc_attach_point point;
};

/* Ingress first: a packet that was translated on its way out must find the way back. */
static const struct hook hooks[] = {
	{ "ingress", "uplink_ingress", TCX_INGRESS, BPF_TC_INGRESS },
	{ "egress", "uplink_egress", TCX_EGRESS, BPF_TC_EGRESS },
};
#define N_HOOKS (sizeof(hooks) / sizeof(hooks[0]))

/* Hairpinning: at the interfaces that clients come in by, and at lo. */
static const struct hook inner_hook = { "inner", "inner_ingress", TCX_INGRESS, 0 };
static const struct hook lo_hook = { "loop", "lo_egress", TCX_EGRESS, 0 };

/* An interface's name as part of a pin's: a bpffs has no use for dots. Up to three times as long. */
#define PIN_NAME_MAX (3 * IFNAMSIZ)

static const char *pin_name(const char *ifname, char buf[PIN_NAME_MAX])
{
	size_t n = 0;

	for (; *ifname && n + 4 < PIN_NAME_MAX; ifname++) {
		if (*ifname == '.' || *ifname == '%')
			n += (size_t)sprintf(buf + n, "%%%02x", (unsigned char)*ifname);
		else
			buf[n++] = *ifname;
	}
	buf[n] = '\0';
	return buf;
}

/* len: of the part of name that is the interface's. */
static const char *unpin_name(const char *name, size_t len, char buf[PIN_NAME_MAX])
{
	size_t n = 0;
	unsigned c;

	for (size_t i = 0; i < len && n + 1 < PIN_NAME_MAX; i++) {
		if (name[i] == '%' && i + 2 < len && sscanf(name + i + 1, "%2x", &c) == 1) {
			buf[n++] = (char)c;
			i += 2;
		} else {
			buf[n++] = name[i];
		}
	}
	buf[n] = '\0';
	return buf;
}

static void link_path(char path[DP_PATH_MAX], const char *dir, const char *ifname,
		      const struct hook *h)
{
	char name[PIN_NAME_MAX];

	dp_path(path, "%s/links/%s-%s", dir, pin_name(ifname, name), h->name);
}

/* TCX */

/* Is it ours at this side of the interface? */
static bool link_is(const struct dp_link *l, const struct hook *h, unsigned ifindex)
{
	return l->type == DP_LINK_TCX && l->attach_type == h->tcx && l->at == ifindex;
}

/* Where a link is wanted. */
struct adopt {
	const struct hook *hook;
	unsigned ifindex;
	const char *path;
};

/* An interface that was renamed: its link is pinned under the old name. Put it under the new one. */
static int link_adopt(const char *path, const char *name, const struct dp_link *link, void *arg)
{
	const struct adopt *a = arg;

	(void)name;
	if (!link_is(link, a->hook, a->ifindex) || !strcmp(path, a->path))
		return 0;
	rename(path, a->path);
	return 1;
}

static bool tcx_known(unsigned ifindex)
{
	__u32 n = 0;

	/* An older kernel says EINVAL to the kind of hook. */
	return bpf_prog_query((int)ifindex, TCX_INGRESS, 0, NULL, NULL, &n) != -EINVAL;
}

static int tcx_attach(const struct dp *dp, const struct hook *h, int prog_fd, unsigned ifindex,
		      const char *ifname, struct errtext *err)
{
	struct adopt adopt = { .hook = h, .ifindex = ifindex };
	char path[DP_PATH_MAX];
	struct dp_link link;
	int fd, r;

	link_path(path, dp->dir, ifname, h);
	adopt.path = path;
	if (access(path, F_OK))
		dp_foreach_link(dp->dir, link_adopt, &adopt);
	fd = dp_link_open(path, &link);
	if (fd < 0 && fd != -ENOENT)
		return errtext_set(err, -fd, "%s: %s", path, dp_why(fd));
	if (fd >= 0) {
		r = link_is(&link, h, ifindex) ? bpf_link_update(fd, prog_fd, NULL) : -ENOLINK;
		close(fd);
		if (!r)
			return 0;
		/* The interface that the link was made for is gone. */
		if (r != -ENOLINK)
			return errtext_set(err, -r, "%s: exchanging the program: %s", path,
					   dp_why(r));
		r = dp_link_remove(path, err);
		if (r)
			return r;
	}
	fd = bpf_link_create(prog_fd, (int)ifindex, h->tcx, NULL);
	if (fd < 0)
		return errtext_set(err, -fd, "%s %s: attaching: %s", ifname, h->name, dp_why(fd));
	r = bpf_obj_pin(fd, path);
	if (r)
		errtext_set(err, -r, "%s: pinning: %s", path, dp_why(r));
	close(fd);
	return r;
}

static int tcx_detach(const char *dir, const char *ifname, struct errtext *err)
{
	char path[DP_PATH_MAX];
	int r = 0;

	for (size_t i = 0; !r && i < N_HOOKS; i++) {
		link_path(path, dir, ifname, &hooks[i]);
		r = dp_link_remove(path, err);
	}
	return r;
}

/* clsact */

static void marker_path(char path[DP_PATH_MAX], const char *dir, const char *ifname)
{
	char name[PIN_NAME_MAX];

	dp_path(path, "%s/tc/%s", dir, pin_name(ifname, name));
}

/* What the kernel says of the filters at one side of an interface's clsact. */
struct filters {
	unsigned n;
	bool at_our_place;
	/* Of that one: "uplink_ingress:[42]", or its kind when it is no BPF filter. */
	char name[64];
};

static const struct rtattr *attr_find(const struct rtattr *a, size_t len, unsigned type)
{
	for (; RTA_OK(a, len); a = RTA_NEXT(a, len))
		if ((a->rta_type & NLA_TYPE_MASK) == type)
			return a;
	return NULL;
}

static void filters_note(struct filters *f, const struct nlmsghdr *h)
{
	const struct tcmsg *t = NLMSG_DATA(h);
	const struct rtattr *attrs = TCA_RTA(t), *kind, *options, *name = NULL;
	size_t len;

	f->n++;
	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*t)) || t->tcm_handle != FILTER_HANDLE ||
	    TC_H_MAJ(t->tcm_info) >> 16 != FILTER_PRIORITY)
		return;
	len = TCA_PAYLOAD(h);
	kind = attr_find(attrs, len, TCA_KIND);
	options = attr_find(attrs, len, TCA_OPTIONS);
	if (kind && !strcmp(RTA_DATA(kind), "bpf") && options)
		name = attr_find(RTA_DATA(options), RTA_PAYLOAD(options), TCA_BPF_NAME);
	f->at_our_place = true;
	snprintf(f->name, sizeof(f->name), "%s",
		 name   ? (const char *)RTA_DATA(name)
		 : kind ? (const char *)RTA_DATA(kind)
			: "");
}

/* The messages of one answer. 0 or -errno; *done is set at the end of the last. */
static int filters_take(struct filters *f, const char *buf, ssize_t len, bool *done)
{
	for (const struct nlmsghdr *h = (const void *)buf; NLMSG_OK(h, len);
	     h = NLMSG_NEXT(h, len)) {
		if (h->nlmsg_type == NLMSG_ERROR)
			return ((const struct nlmsgerr *)NLMSG_DATA(h))->error;
		if (h->nlmsg_type == NLMSG_DONE)
			*done = true;
		else if (h->nlmsg_type == RTM_NEWTFILTER)
			filters_note(f, h);
	}
	return 0;
}

/*
 * Filters of whatever kind at one side of an interface's clsact; none when there is no clsact. 0 or -errno. This goes by
 * names as netlink tells them: to look at a program by its id takes CAP_SYS_ADMIN, which the daemon does not keep.
 */
static int filters_read(unsigned ifindex, enum bpf_tc_attach_point point, struct filters *ret)
{
	struct {
		struct nlmsghdr h;
		struct tcmsg t;
	} req = {
		.h = { .nlmsg_len = sizeof(req),
		       .nlmsg_type = RTM_GETTFILTER,
		       .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.t = { .tcm_ifindex = (int)ifindex,
		       .tcm_parent =
			       TC_H_MAKE(TC_H_CLSACT, point == BPF_TC_INGRESS ? TC_H_MIN_INGRESS
									      : TC_H_MIN_EGRESS) },
	};
	char buf[16384] __attribute__((aligned(8)));
	struct filters f = { 0 };
	bool done = false;
	int fd, r = 0;

	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0 || send(fd, &req, sizeof(req), 0) < 0)
		r = -errno;
	while (!r && !done) {
		ssize_t len = recv(fd, buf, sizeof(buf), 0);

		if (len < 0 && errno == EINTR)
			continue;
		r = len < 0 ? -errno : filters_take(&f, buf, len, &done);
	}
	if (fd >= 0)
		close(fd);
	if (!r)
		*ret = f;
	return r;
}

/* Is the filter at our place ours? 1: yes; 0: there is none; -EBUSY: it is another one's, called f->name. */
static int filter_ours(const struct hook *h, unsigned ifindex, struct filters *ret)
{
	size_t len = strlen(h->program);
	int r = filters_read(ifindex, h->point, ret);

	if (r || !ret->at_our_place)
		return r;
	/* A program's name has 15 bytes at most. */
	if (len > BPF_OBJ_NAME_LEN - 1)
		len = BPF_OBJ_NAME_LEN - 1;
	return strncmp(ret->name, h->program, len) || ret->name[len] != ':' ? -EBUSY : 1;
}

static int clsact_hook(const struct hook *h, int prog_fd, unsigned ifindex, const char *ifname,
		       struct errtext *err)
{
	LIBBPF_OPTS(bpf_tc_hook, at, .ifindex = (int)ifindex, .attach_point = h->point);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = FILTER_HANDLE, .priority = FILTER_PRIORITY,
		    .prog_fd = prog_fd, .flags = BPF_TC_F_REPLACE);
	struct filters f;
	int r;

	r = filter_ours(h, ifindex, &f);
	if (r == -EBUSY)
		return errtext_set(
			err, EBUSY,
			"%s %s: the clsact filter with handle %d, priority %d is the "
			"program \"%s\", which is not ours: move that to another priority",
			ifname, h->name, FILTER_HANDLE, FILTER_PRIORITY, f.name);
	if (r >= 0)
		r = bpf_tc_attach(&at, &opts);
	if (r)
		return errtext_set(err, -r, "%s %s: attaching to clsact: %s", ifname, h->name,
				   dp_why(r));
	return 0;
}

static int clsact_attach(const struct dp *dp, const int prog_fds[N_HOOKS], unsigned ifindex,
			 const char *ifname, struct errtext *err)
{
	LIBBPF_OPTS(bpf_tc_hook, qdisc, .ifindex = (int)ifindex,
		    .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	char marker[DP_PATH_MAX], path[DP_PATH_MAX];
	int made, r;

	marker_path(marker, dp->dir, ifname);
	r = dp_mkdir(dp_path(path, "%s/tc", dp->dir));
	if (!r)
		r = dp_mkdir(marker);
	if (r)
		return errtext_set(err, -r, "%s: making the directory: %s", marker, dp_why(r));
	made = bpf_tc_hook_create(&qdisc);
	if (made && made != -EEXIST)
		return errtext_set(err, -made, "%s: adding the clsact qdisc: %s", ifname,
				   dp_why(made));
	/* Noted afterwards: if we are killed in between, a qdisc is left over, and none is lost that is not ours. */
	if (!made) {
		r = dp_mkdir(dp_path(path, "%s/qdisc", marker));
		if (r)
			return errtext_set(err, -r, "%s: making the directory: %s", path,
					   dp_why(r));
	}
	for (size_t i = 0; i < N_HOOKS; i++) {
		r = clsact_hook(&hooks[i], prog_fds[i], ifindex, ifname, err);
		if (r)
			return r;
		if (!i)
			FAULT_POINT("dp.attach.half");
	}
	return 0;
}

/* The qdisc is ours: remove it unless somebody else makes use of it by now. */
static int clsact_remove(unsigned ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, qdisc, .ifindex = (int)ifindex,
		    .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	struct filters in, out;
	int r = filters_read(ifindex, BPF_TC_INGRESS, &in);

	if (!r)
		r = filters_read(ifindex, BPF_TC_EGRESS, &out);
	if (r || in.n || out.n)
		return r;
	r = bpf_tc_hook_destroy(&qdisc);
	return r == -ENOENT || r == -EINVAL ? 0 : r;
}

static int filter_remove(const struct hook *h, unsigned ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, at, .ifindex = (int)ifindex, .attach_point = h->point);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = FILTER_HANDLE, .priority = FILTER_PRIORITY);
	struct filters f;
	int r;

	r = filter_ours(h, ifindex, &f);
	if (r == 1)
		r = bpf_tc_detach(&at, &opts);
	return r == -EBUSY || r == -ENOENT ? 0 : r;
}

static int clsact_detach(const char *dir, const char *ifname, struct errtext *err)
{
	char marker[DP_PATH_MAX], path[DP_PATH_MAX];
	unsigned ifindex = if_nametoindex(ifname);
	int r = 0;

	marker_path(marker, dir, ifname);
	for (size_t i = 0; ifindex && !r && i < N_HOOKS; i++)
		r = filter_remove(&hooks[i], ifindex);
	if (ifindex && !r && !access(dp_path(path, "%s/qdisc", marker), F_OK))
		r = clsact_remove(ifindex);
	if (r)
		return errtext_set(err, -r, "%s: detaching from clsact: %s", ifname, dp_why(r));
	r = dp_dir_remove(marker);
	return r ? errtext_set(err, -r, "%s: removing: %s", marker, dp_why(r)) : 0;
}

static bool clsact_marked(const char *dir, const char *ifname)
{
	char marker[DP_PATH_MAX];

	marker_path(marker, dir, ifname);
	return !access(marker, F_OK);
}

/* Both */

/* What can't be asked for is no interface, as attaching to it will say. */
static bool is_l3(const char *ifname)
{
	struct ifreq req = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;

	if (fd < 0)
		return false;
	snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", ifname);
	r = ioctl(fd, SIOCGIFHWADDR, &req);
	close(fd);
	return !r && link_is_l3(req.ifr_hwaddr.sa_family);
}

/* Tell the programs, before they are there, whether what they get has a link-layer header. 0 or -errno. */
static int layer_tell(struct dp *dp, unsigned ifindex, const char *ifname)
{
	int fd = bpf_map__fd(dp->nat->maps.l3_links);
	uint32_t key = ifindex, one = 1;

	if (!is_l3(ifname)) {
		if (dp->conf->l3_links)
			bpf_map_delete_elem(fd, &key);
		return 0;
	}
	/* Never written anew: a packet might find it missing meanwhile. */
	if (bpf_map_update_elem(fd, &key, &one, BPF_NOEXIST) && errno != EEXIST)
		return -errno;
	__atomic_store_n(&dp->conf->l3_links, 1, __ATOMIC_RELEASE);
	return 0;
}

int dp_attach(struct dp *dp, unsigned ifindex, const char *ifname, const char **ret_how,
	      struct errtext *err)
{
	const int prog_fds[N_HOOKS] = {
		bpf_program__fd(dp->nat->progs.uplink_ingress),
		bpf_program__fd(dp->nat->progs.uplink_egress),
	};
	char path[DP_PATH_MAX];
	int r;

	r = layer_tell(dp, ifindex, ifname);
	if (r)
		return errtext_set(err, -r, "%s: writing map \"l3_links\": %s", ifname, dp_why(r));
	r = dp_mkdir(dp_path(path, "%s/links", dp->dir));
	if (r)
		return errtext_set(err, -r, "%s: making the directory: %s", path, dp_why(r));
	if (!dp->force_clsact && tcx_known(ifindex)) {
		/* Never both kinds at once: each packet would be translated twice. */
		r = clsact_marked(dp->dir, ifname) ? clsact_detach(dp->dir, ifname, err) : 0;
		for (size_t i = 0; !r && i < N_HOOKS; i++) {
			r = tcx_attach(dp, &hooks[i], prog_fds[i], ifindex, ifname, err);
			if (!i && !r)
				FAULT_POINT("dp.attach.half");
		}
		if (!r)
			*ret_how = "tcx";
		return r;
	}
	r = tcx_detach(dp->dir, ifname, err);
	if (!r)
		r = clsact_attach(dp, prog_fds, ifindex, ifname, err);
	if (!r)
		*ret_how = "clsact";
	return r;
}

int dp_unhook(const char *dir, const char *ifname, struct errtext *err)
{
	int r = tcx_detach(dir, ifname, err);

	return r ? r : clsact_detach(dir, ifname, err);
}

int dp_detach(struct dp *dp, const char *ifname, struct errtext *err)
{
	return dp_unhook(dp->dir, ifname, err);
}

/* Those of an interface. */
struct names {
	const char *suffix;
	int (*fn)(const char *ifname, void *arg);
	void *arg;
};

static int name_one(const char *name, void *arg)
{
	const struct names *n = arg;
	size_t len = strlen(name), tail = strlen(n->suffix);
	char ifname[PIN_NAME_MAX];

	if (len <= tail || strcmp(name + len - tail, n->suffix))
		return 0;
	return n->fn(unpin_name(name, len - tail, ifname), n->arg);
}

/* Calls fn for the entries of DIR/sub, with what of the name is the interface's. */
static int each_name(const char *dir, const char *sub, const char *suffix,
		     int (*fn)(const char *ifname, void *arg), void *arg)
{
	struct names n = { suffix, fn, arg };

	return dp_foreach_name(dir, sub, name_one, &n);
}

int dp_attached(const struct dp *dp, int (*fn)(const char *ifname, void *arg), void *arg)
{
	/* Egress comes last, so what has it has both. */
	int r = each_name(dp->dir, "links", "-egress", fn, arg);

	return r ? r : each_name(dp->dir, "tc", "", fn, arg);
}

/* Hairpinning */

struct inner_stale {
	const struct dp *dp;
	const struct dp_inner *v;
	size_t n;
	struct errtext *err;
};

/* Take the program off an interface that is none of those, or gone. */
static int inner_stale(const char *ifname, void *arg)
{
	const struct inner_stale *s = arg;
	char path[DP_PATH_MAX];

	for (size_t i = 0; i < s->n; i++)
		if (!strcmp(s->v[i].name, ifname))
			return 0;
	link_path(path, s->dp->dir, ifname, &inner_hook);
	return dp_link_remove(path, s->err);
}

static int lo_remove(const char *dir, struct errtext *err)
{
	char path[DP_PATH_MAX];

	link_path(path, dir, "lo", &lo_hook);
	return dp_link_remove(path, err);
}

static int inner_attach(struct dp *dp, const struct hook *h, unsigned ifindex, const char *ifname,
			struct errtext *err)
{
	const struct bpf_program *prog = bpf_object__find_program_by_name(dp->nat->obj, h->program);
	int r = layer_tell(dp, ifindex, ifname);

	if (r)
		return errtext_set(err, -r, "%s: writing map \"l3_links\": %s", ifname, dp_why(r));
	return tcx_attach(dp, h, bpf_program__fd(prog), ifindex, ifname, err);
}

int dp_inner_set(struct dp *dp, const struct dp_inner *v, size_t n, struct errtext *err)
{
	bool can = !dp->force_clsact && tcx_known(DP_LO);
	struct inner_stale stale = { dp, v, can ? n : 0, err };
	char path[DP_PATH_MAX];
	int r;

	if (!can || !n)
		__atomic_store_n(&dp->conf->hairpin, 0, __ATOMIC_RELAXED);
	r = each_name(dp->dir, "links", "-inner", inner_stale, &stale);
	if (!r && !stale.n)
		r = lo_remove(dp->dir, err);
	if (r)
		return r;
	if (n && !can)
		return errtext_set(
			err, EOPNOTSUPP,
			"clients can't reach each other by their shared addresses: this "
			"kernel has no TCX hooks (Linux 6.6), or they are not to be used");
	r = dp_mkdir(dp_path(path, "%s/links", dp->dir));
	if (r)
		return errtext_set(err, -r, "%s: making the directory: %s", path, dp_why(r));
	/* The way back first. */
	if (n)
		r = inner_attach(dp, &lo_hook, DP_LO, "lo", err);
	for (size_t i = 0; !r && i < n; i++) {
		r = inner_attach(dp, &inner_hook, v[i].ifindex, v[i].name, err);
		/* Gone since it was listed. */
		if (r == -ENODEV)
			r = 0;
	}
	if (!r && n)
		__atomic_store_n(&dp->conf->hairpin, 1, __ATOMIC_RELEASE);
	return r;
}

struct unhook {
	const char *dir;
	struct errtext *err;
};

static int unhook_one(const char *ifname, void *arg)
{
	struct unhook *u = arg;

	return dp_unhook(u->dir, ifname, u->err);
}

static int unhook_inner(const char *ifname, void *arg)
{
	const struct unhook *u = arg;
	char path[DP_PATH_MAX];

	link_path(path, u->dir, ifname, &inner_hook);
	return dp_link_remove(path, u->err);
}

static int unhook_all(const char *dir, char *const *uplinks, size_t n_uplinks, struct errtext *err)
{
	struct unhook u = { .dir = dir, .err = err };
	int r = 0;

	/* Also where our marker is lost. */
	for (size_t i = 0; !r && i < n_uplinks; i++)
		r = dp_unhook(dir, uplinks[i], err);
	if (!r)
		r = each_name(dir, "links", "-inner", unhook_inner, &u);
	if (!r)
		r = lo_remove(dir, err);
	for (size_t i = 0; !r && i < N_HOOKS; i++) {
		char suffix[16];

		snprintf(suffix, sizeof(suffix), "-%s", hooks[i].name);
		r = each_name(dir, "links", suffix, unhook_one, &u);
	}
	return r ? r : each_name(dir, "tc", "", unhook_one, &u);
}

int dp_teardown(const char *dir, char *const *uplinks, size_t n_uplinks, struct errtext *err)
{
	static const char *const subs[] = { "links", "tc", "maps-new", "maps" };
	char path[DP_PATH_MAX];
	int lock_fd, r;

	dp_quiet();
	lock_fd = dp_lock(dir, err);
	if (lock_fd < 0 && lock_fd != -ENOENT)
		return lock_fd;
	if (err)
		err->s[0] = '\0';
	r = unhook_all(dir, uplinks, n_uplinks, err);
	if (!r)
		r = dp_socket_unhook(dir, err);
	if (r && err && !err->s[0])
		errtext_set(err, -r, "%s: %s", dir, dp_why(r));
	for (size_t i = 0; !r && i < sizeof(subs) / sizeof(subs[0]); i++) {
		r = dp_dir_remove(dp_path(path, "%s/%s", dir, subs[i]));
		if (r)
			errtext_set(err, -r, "%s: removing: %s", path, dp_why(r));
	}
	/* What somebody else has put there keeps the directory. */
	if (!r && rmdir(dir) && errno != ENOENT && errno != ENOTEMPTY)
		r = errtext_set(err, errno, "%s: removing: %s", dir, dp_why(-errno));
	if (lock_fd >= 0)
		close(lock_fd);
	return r;
}
