/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the data plane's loader share. Nobody else includes this. */
#ifndef DP_INTERNAL_H
#define DP_INTERNAL_H

#include <limits.h>

#include "dp.h"

struct nat_bpf;
struct bpf_map;
struct bpf_program;
struct ring_buffer;

struct dp {
	char *dir;
	int lock_fd; /* DIR itself, locked */
	struct nat_bpf *nat;
	bool force_clsact;
	bool created;
	uint32_t max_flows;
	int n_cpus; /* rows of a per-CPU value */

	/* The mapped maps. */
	struct sluice_conf *conf;
	struct sluice_slice *slices;
	struct sluice_pool *pools;
	struct sluice_block *blocks;
	struct sluice_port_flows *port_flows;
	uint64_t *held;     /* see dp_held_row() */
	uint64_t *released; /* rows of four bytes, eight apart */
	uint64_t *use_bits;
	struct sluice_sweep *sweep_out;

	uint64_t *use;        /* use_bits after the last sweep */
	uint64_t *use_before; /* and after the one before */
	unsigned n_sweeps;    /* since blocks were last closed */
	size_t socket_links;  /* that dp_socket_attach() left attached; 0: it was not called yet */

	int grace_inner_fd; /* see dp_grace() */
	int grace_outer_fd;

	struct ring_buffer *ring;
	struct {
		void (*fn)(const struct sluice_event *e, void *arg);
		void *arg;
		size_t n, max;
	} poll;
};

/* Where the held lists are: map "held" has two halves, and they are written into the one that is not in use. */
#define DP_HELD_HALF SLUICE_MAX_SLICES

/* Row of map "held": four bytes, eight apart. */
static inline uint32_t *dp_held_row(const struct dp *dp, uint32_t row)
{
	return (uint32_t *)&dp->held[row];
}

/*
 * Wait until every program that runs now has ended: an update of a map of maps waits for a grace
 * period, so that user space knows when nobody uses the old inner map any more
 * (maybe_wait_bpf_programs() in the kernel).
 */
int dp_grace(struct dp *dp, struct errtext *err);

/* Ports of this slice became free: what searches remember of it is out of date (map "full"). */
void dp_released_bump(struct dp *dp, uint32_t row);

int dp_events_open(struct dp *dp, struct errtext *err);

static inline bool dp_slice_held(const struct sluice_slice *s)
{
	return s->state == SLUICE_SLICE_HELD;
}

/* Closed while its flows are not swept away yet: it keeps its epoch. */
static inline bool dp_slice_remnant(const struct sluice_slice *s)
{
	return !dp_slice_held(s) && s->epoch;
}

static inline uint32_t dp_slice_ports(const struct sluice_slice *s)
{
	return (uint32_t)s->last - s->first + 1;
}

bool dp_any_remnant(const struct dp *dp);
/* Sweep, if slices ended or pools drain, and forget what was seen before. */
int dp_clean(struct dp *dp, bool ended, struct errtext *err);

/* Give mode changes that were published to the blocks that are unused by now. */
void dp_drain(struct dp *dp);

/* A directory's entries, unlinked one by one, then itself. 0 also when it is not there. */
int dp_dir_remove(const char *path);
int dp_mkdir(const char *path); /* 0 also when it is there */

/* Open dir and lock it. Returns the file descriptor; -ENOENT; -EBUSY. */
int dp_lock(const char *dir, struct errtext *err);

/* Let libbpf write nowhere; what it says last is kept for error texts. */
void dp_quiet(void);
/* dp_open() and dp_socket_attach(): the error text of a load that ended with r < 0. Returns r. */
int dp_load_failed(int r, struct errtext *err);
/* "the kernel refuses" in terms of what is missing, for the foreign error r < 0. */
const char *dp_why(int r);

/* A hash or prefix map: each key followed by its value, sorted by key. */
struct dp_entries {
	int fd;
	const char *name;
	size_t key_size, value_size, stride;
	size_t n;
	char *list;
};

int dp_entries_read(const struct bpf_map *map, struct dp_entries *ret, struct errtext *err);
void dp_entries_done(struct dp_entries *e);
/*
 * Enter what is wanted (each key followed by its value, stride apart, sorted by key) and is not
 * there or has another value; take out what is there and not wanted. *changed is set if there was
 * anything to do.
 */
int dp_entries_put(const struct dp_entries *e, const void *want, size_t n, size_t stride,
		   bool *changed, struct errtext *err);
int dp_entries_remove(const struct dp_entries *e, const void *want, size_t n, size_t stride,
		      bool *changed, struct errtext *err);

#define DP_PATH_MAX PATH_MAX

/* Join into buf of DP_PATH_MAX. Returns buf; a path too long comes out cut, and then does not exist. */
char *dp_path(char *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- dp_link.c ---- */

#define DP_LINK_TCX \
	11 /* BPF_LINK_TYPE_TCX, which libbpf 1.1 and the headers of Debian 12 do not know */

/* A pinned link, as the kernel tells it. */
struct dp_link {
	uint32_t type;        /* enum bpf_link_type */
	uint32_t attach_type; /* enum bpf_attach_type */
	uint64_t
		at; /* the interface, the control group or the network namespace that it is attached to; 0: that is gone */
};

/* Returns the file descriptor, or -errno. */
int dp_link_open(const char *path, struct dp_link *ret);
/* Detach a pinned link, at once, and remove its pin. 0 also when it is not there. */
int dp_link_remove(const char *path, struct errtext *err);
/*
 * Call fn for each entry of DIR/sub, or for each link of DIR/links, until it returns something else than 0. fn may remove the entry that it is called for. 0 also when the directory is
 * not there; what fn returned; -errno.
 */
int dp_foreach_name(const char *dir, const char *sub, int (*fn)(const char *name, void *arg),
		    void *arg);
typedef int dp_link_fn(const char *path, const char *name, const struct dp_link *link, void *arg);
int dp_foreach_link(const char *dir, dp_link_fn *fn, void *arg);

/* dp_attach.c: everything of an interface. */
int dp_unhook(const char *dir, const char *ifname, struct errtext *err);

struct bpf_object;

/*
 * dp_socket.c: let another object that is not loaded yet use the maps of nat's that have the same names. A map that nat does not have is the
 * object's own: made anew, not pinned, and gone with its programs.
 */
int dp_object_share_maps(struct bpf_object *obj, const struct dp *dp, struct errtext *err);
/* Detach sk_lookup and the hooks of control groups. 0 also when there are none. */
int dp_socket_unhook(const char *dir, struct errtext *err);

#endif
