// SPDX-License-Identifier: BSD-2-Clause
/*
 * libbpf 1.1 knows neither the program type nor the link: the numbers are the kernel's, and the link is made by the bare system call.
 */
#include "nfwatch.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <cap-ng.h>
#include <linux/netfilter.h>

#include "dp_internal.h"
#include "watch.skel.h"

/* linux/bpf.h, Linux 6.4 on. */
#define PROG_TYPE_NETFILTER ((enum bpf_prog_type)32)
#define ATTACH_NETFILTER    ((enum bpf_attach_type)45)

/*
 * After srcnat, which is 100. A BPF program wants a priority for itself alone: where another hook has 101, a second watcher for one, the next ones do as well. Well before
 * INT_MAX, at which the entry is confirmed.
 */
#define PRIORITY   101
#define PRIORITIES 16

static const uint8_t families[] = { NFPROTO_IPV4, NFPROTO_IPV6 };
#define N_FAMILIES (sizeof(families) / sizeof(families[0]))

struct place {
	ino_t netns;
	int links[N_FAMILIES];
};

struct nfwatch {
	struct watch_bpf *bpf;
	struct ring_buffer *ring;
	struct place *places;
	size_t n_places;
	int cpus;
	/* During nfwatch_read(). */
	struct {
		void (*fn)(void *arg, const struct sluice_rewrite *r);
		void *arg;
		unsigned n, max;
	} turn;
};

/* Ends the walk when enough was handed over: what libbpf gets back comes out of ring_buffer__consume(). */
#define ENOUGH (-ECANCELED)

static int rewrite_arrives(void *ctx, void *data, size_t size)
{
	struct nfwatch *w = ctx;

	if (size >= sizeof(struct sluice_rewrite)) {
		w->turn.fn(w->turn.arg, data);
		w->turn.n++;
	}
	return w->turn.n >= w->turn.max ? ENOUGH : 0;
}

/* Opening */

/* Does the kernel have such programs at all? A program that does nothing tells, apart from what ours needs besides. */
int nfwatch_probe(struct errtext *err)
{
	const struct bpf_insn accept[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = NF_ACCEPT },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = ATTACH_NETFILTER);
	int fd;

	fd = bpf_prog_load(PROG_TYPE_NETFILTER, "probe", "Dual BSD/GPL", accept,
			   sizeof(accept) / sizeof(accept[0]), &opts);
	if (fd >= 0) {
		close(fd);
		return 0;
	}
	if (errno == EPERM || errno == EACCES)
		return errtext_set(err, EPERM, "loading a netfilter program: %s", dp_why(-EPERM));
	if (errno == EINVAL)
		return errtext_set(err, EOPNOTSUPP,
				   "this kernel has no netfilter programs: Linux 6.4 with "
				   "CONFIG_NETFILTER_BPF_LINK is the first");
	return errtext_set(err, errno, "loading a netfilter program: %s", strerror(errno));
}

/* Can the layout of the kernel's connection tracking entries be known? It is in the kernel's type information, or in its module's. */
static bool layout_known(void)
{
	struct btf *btf = btf__load_vmlinux_btf();
	bool known = btf && btf__find_by_name_kind(btf, "nf_conn", BTF_KIND_STRUCT) > 0;

	btf__free(btf);
	return known || !access("/sys/kernel/btf/nf_conntrack", F_OK);
}

static bool capable(void)
{
	return capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_ADMIN) ||
	       (capng_have_capability(CAPNG_EFFECTIVE, CAP_BPF) &&
		capng_have_capability(CAPNG_EFFECTIVE, CAP_PERFMON));
}

static int load(struct nfwatch *w, struct errtext *err)
{
	int r;

	w->bpf = watch_bpf__open();
	if (!w->bpf)
		return errtext_set(err, errno, "opening the watcher's program: %s",
				   strerror(errno));
	bpf_program__set_type(w->bpf->progs.watch, PROG_TYPE_NETFILTER);
	bpf_program__set_expected_attach_type(w->bpf->progs.watch, ATTACH_NETFILTER);
	r = watch_bpf__load(w->bpf);
	if (!r)
		return 0;
	/* Without CAP_PERFMON the verifier says that it does not know some function. */
	if (!capable())
		return errtext_set(err, EPERM, "loading the watcher's program: %s", dp_why(-EPERM));
	if (r == -EPERM || r == -ENOMEM)
		return dp_load_failed(r, err);
	if (!layout_known())
		return errtext_set(err, EOPNOTSUPP,
				   "the kernel does not tell how its connection tracking entries "
				   "are laid out: nf_conntrack is not loaded, or "
				   "CONFIG_DEBUG_INFO_BTF (for modules: _BTF_MODULES) is not set");
	dp_load_failed(r, err);
	return -EOPNOTSUPP;
}

int nfwatch_open(struct nfwatch **ret, struct errtext *err)
{
	struct nfwatch *w;
	int r;

	dp_quiet();
	r = nfwatch_probe(err);
	if (r)
		return r;
	w = calloc(1, sizeof(*w));
	if (!w)
		return errtext_set(err, ENOMEM, "the watcher's program: %s", strerror(ENOMEM));
	r = load(w, err);
	if (!r) {
		w->cpus = libbpf_num_possible_cpus();
		w->ring = ring_buffer__new(bpf_map__fd(w->bpf->maps.rewrites), rewrite_arrives, w,
					   NULL);
		if (w->cpus < 1 || !w->ring)
			r = errtext_set(err, w->ring ? ENOSYS : errno,
					"opening the watcher's ring: %s",
					strerror(w->ring ? ENOSYS : errno));
	}
	if (r) {
		nfwatch_close(w);
		return r;
	}
	*ret = w;
	return 0;
}

static void place_leave(const struct place *p)
{
	for (size_t i = 0; i < N_FAMILIES; i++)
		if (p->links[i] >= 0)
			close(p->links[i]);
}

void nfwatch_detach(struct nfwatch *w, ino_t netns)
{
	for (size_t i = 0; i < w->n_places; i++) {
		if (w->places[i].netns != netns)
			continue;
		place_leave(&w->places[i]);
		w->places[i] = w->places[--w->n_places];
		return;
	}
}

void nfwatch_close(struct nfwatch *w)
{
	if (!w)
		return;
	for (size_t i = 0; i < w->n_places; i++)
		place_leave(&w->places[i]);
	free(w->places);
	ring_buffer__free(w->ring);
	watch_bpf__destroy(w->bpf);
	free(w);
}

/* Attaching */

/* The part of union bpf_attr that BPF_LINK_CREATE reads for a netfilter program. */
struct link_attr {
	__u32 prog_fd;
	__u32 target_fd;
	__u32 attach_type;
	__u32 flags;
	__u32 pf;
	__u32 hooknum;
	__s32 priority;
	__u32 netfilter_flags;
};

/* Returns the link's file descriptor or -errno. */
static int link_create(int prog_fd, uint8_t family)
{
	struct link_attr attr = {
		.prog_fd = (__u32)prog_fd,
		.attach_type = ATTACH_NETFILTER,
		.pf = family,
		.hooknum = NF_INET_POST_ROUTING,
	};
	long fd = -1;

	for (int i = 0; i < PRIORITIES; i++) {
		attr.priority = PRIORITY + i;
		fd = syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));
		if (fd >= 0 || errno != EBUSY)
			break;
	}
	return fd < 0 ? -errno : (int)fd;
}

int nfwatch_attach(struct nfwatch *w, struct errtext *err)
{
	struct place place = { .links = { -1, -1 } }, *more;
	struct stat st;

	if (stat("/proc/thread-self/ns/net", &st))
		return errtext_set(err, errno, "the network namespace: %s", strerror(errno));
	/* The links keep a namespace, so a number means the same one for as long. */
	for (size_t i = 0; i < w->n_places; i++)
		if (w->places[i].netns == st.st_ino)
			return 0;
	more = reallocarray(w->places, w->n_places + 1, sizeof(*more));
	if (!more)
		return errtext_set(err, ENOMEM, "the watcher's program: %s", strerror(ENOMEM));
	w->places = more;
	place.netns = st.st_ino;
	for (size_t i = 0; i < N_FAMILIES; i++) {
		int r = link_create(bpf_program__fd(w->bpf->progs.watch), families[i]);

		if (r < 0) {
			place_leave(&place);
			return errtext_set(err, -r, "attaching the watcher's program for %s: %s",
					   families[i] == NFPROTO_IPV4 ? "IPv4" : "IPv6",
					   r == -EBUSY ? "other hooks have every priority after "
							 "srcnat that it could have"
						       : dp_why(r));
		}
		place.links[i] = r;
	}
	w->places[w->n_places++] = place;
	return 0;
}

/* Reading */

int nfwatch_fd(const struct nfwatch *w)
{
	return ring_buffer__epoll_fd(w->ring);
}

int nfwatch_read(struct nfwatch *w, unsigned max,
		 void (*fn)(void *arg, const struct sluice_rewrite *r), void *arg)
{
	int r;

	if (!max)
		return 0;
	w->turn.fn = fn;
	w->turn.arg = arg;
	w->turn.n = 0;
	w->turn.max = max;
	r = ring_buffer__consume(w->ring);
	return r < 0 && r != ENOUGH ? r : (int)w->turn.n;
}

struct sluice_watch_stats nfwatch_stats(const struct nfwatch *w)
{
	struct sluice_watch_stats sum = { 0 }, *rows;
	__u32 row = 0;

	rows = calloc((size_t)w->cpus, sizeof(*rows));
	if (rows && !bpf_map_lookup_elem(bpf_map__fd(w->bpf->maps.watch_stats), &row, rows)) {
		for (int i = 0; i < w->cpus; i++) {
			sum.seen += rows[i].seen;
			sum.sent += rows[i].sent;
			sum.lost += rows[i].lost;
		}
	}
	free(rows);
	return sum;
}
