/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The data plane as the daemon sees it: opening the pinned maps and programs, publishing plans,
 * hooking interfaces, sweeping, and reading back what is there. All of libbpf is behind this
 * header.
 *
 * Everything lives under one directory of a bpffs and outlives the daemon:
 *	DIR/maps/NAME		every map; appears complete or not at all
 *	DIR/links/IFNAME-HOOK	TCX links (ingress, egress); "." and "%" of the name are written %2e and %25
 *	DIR/links/IFNAME-inner	likewise, of hairpinning; at lo: DIR/links/lo-loop
 *	DIR/links/PLACE-PROGRAM	links of the sockets' hooks; PLACE is netns (sk_lookup), cgroup (the root of cgroup2) or exec (the groups of "sluice exec")
 *	DIR/tc/IFNAME/		the interface is hooked by clsact; has a directory "qdisc" when the qdisc is ours as well
 * One struct dp at a time: it locks DIR. It is for one thread.
 *
 * Crash points (fault.h): dp.create, dp.pinned, dp.renamed, dp.attach.half, dp.publish.ended,
 * dp.publish.filled, dp.publish.live, dp.publish.switched.
 */
#ifndef DP_H
#define DP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "addr.h"
#include "errtext.h"
#include "plan.h"
#include "sluice_abi.h"
#include "sluice_flow.h"

struct dp;

struct dp_opts {
	const char *dir;     /* config.bpffs */
	uint32_t max_flows;  /* entries of each flow table, for when they are created */
	uint32_t event_rate; /* events a second, CPU and kind at most */
	bool force_clsact;   /* do without TCX even where the kernel has it */
};

/*
 * Open the data plane: take over what is pinned, or else create it. The programs are loaded anew
 * either way, but what is attached goes on as it was until dp_attach(). Returns 0 and *ret
 * (dp_close()); -EBUSY when another process has it open; -EPROTONOSUPPORT when the pins have
 * another ABI number or layout; -EPERM without the capabilities; -ENOENT when dir is not on a
 * bpffs; others as the kernel gives them. err is always filled.
 */
int dp_open(const struct dp_opts *opts, struct dp **ret, struct errtext *err);
/* Pins, links and traffic stay as they are. */
void dp_close(struct dp *dp);

/* Entries of each flow table. May differ from what was asked for when the tables were there already. */
uint32_t dp_max_flows(const struct dp *dp);
/* Another event rate from now on, as in dp_opts. */
void dp_set_event_rate(struct dp *dp, uint32_t event_rate);
/* Did dp_open() create the maps (true) or find them? */
bool dp_created(const struct dp *dp);

/*
 * Read back the plan that the maps hold, as predecessor for plan_build(). Finishes what a daemon
 * that was killed inside dp_publish() left undone. *ret is for plan_free(); its prefixes are filled
 * as well.
 */
int dp_read_plan(struct dp *dp, struct plan **ret, struct errtext *err);

/*
 * Make next true, writing only what differs. next was built against what is in the maps now
 * (dp_read_plan(), or the last plan that was published). At no moment can a packet use a row that
 * is half written, or a slice that is given up, and a slice that goes on is not interrupted. When
 * this returns, no flow of what was given up is left. Waits for RCU grace periods, which take
 * milliseconds, if more than deadlines changed.
 *
 * A change of a pool's mapping begins to drain: blocks of ports which flows of the old mapping use
 * stay closed to new flows until a dp_sweep() finds them unused. dp_pool() shows in mixed[] what
 * still drains.
 *
 * On failure the maps may be half way; they are safe, and dp_read_plan() and another dp_publish()
 * go on from there.
 */
int dp_publish(struct dp *dp, const struct plan *next, struct errtext *err);

/* Set the deadline of some held rows (numbers as of plan_slice_row()): one atomic store each. CLOCK_BOOTTIME. */
void dp_renew(struct dp *dp, const uint32_t *rows, size_t n_rows, uint64_t not_after_ns);

/* A row of the pools' map as it is now; used is 0 for a free one. Valid until dp_close(). */
const struct sluice_pool *dp_pool(const struct dp *dp, uint32_t row);
/* The same of the slices. */
const struct sluice_slice *dp_slice(const struct dp *dp, uint32_t row);

/* Take dead flows out, note which ports are in use, and open drained blocks. ret may be NULL. */
int dp_sweep(struct dp *dp, struct sluice_sweep *ret, struct errtext *err);
/* Ports of a held row that flows used in the last dp_sweep(), by enum sluice_l4. All 0 for other rows. */
void dp_slice_used(const struct dp *dp, uint32_t row, uint32_t ret[SLUICE_L4_MAX]);
/* Ports of it that are leased or cooling, so kept from NAT. ICMP has none. */
void dp_slice_leased(const struct dp *dp, uint32_t row, uint32_t ret[SLUICE_L4_MAX]);

/* Hooks (dp_attach.c) */

/*
 * Put the programs on an uplink of this network namespace, in place of those that an earlier daemon
 * put there (an atomic exchange). *ret_how is "tcx" or "clsact". May be repeated. Returns 0 or
 * -errno with err filled: -ENODEV when the interface is gone, -EBUSY when somebody else's filter
 * sits at clsact's handle 1, priority 1.
 */
int dp_attach(struct dp *dp, unsigned ifindex, const char *ifname, const char **ret_how,
	      struct errtext *err);
/* Take the programs off an interface, which may be gone. 0 also when they were not there. */
int dp_detach(struct dp *dp, const char *ifname, struct errtext *err);
/* Interfaces that are hooked: calls fn with each name. Stops at the first that returns non-zero, and returns that. */
int dp_attached(const struct dp *dp, int (*fn)(const char *ifname, void *arg), void *arg);

#define DP_LO 1 /* ifindex of lo */

struct dp_inner {
	unsigned ifindex;
	char name[IFNAMSIZ];
};

/*
 * Hairpinning: put its programs on these interfaces and on lo, and take them off all others; n 0: off everywhere. May be repeated. Interfaces that are gone are left
 * out. -EOPNOTSUPP: not with this kernel; nothing is attached then.
 */
int dp_inner_set(struct dp *dp, const struct dp_inner *v, size_t n, struct errtext *err);

/*
 * Zones (dp_zones.c): which interface belongs to which of the plan's, as the names are now. Interfaces that do not exist are left out: call it again when they may have come.
 */
int dp_zones_set(struct dp *dp, const struct plan *plan, struct errtext *err);

/*
 * Take everything away: hooks of the uplinks and of whatever else was hooked, a clsact qdisc if we
 * made it and nobody else uses it, all pins. All flows end. 0 also when nothing was there; -EBUSY
 * while a daemon runs.
 */
int dp_teardown(const char *dir, char *const *uplinks, size_t n_uplinks, struct errtext *err);

/* Leases (dp_lease.c) */

/*
 * Ports of one block (64 from offset on, a multiple of 64, in the slice of a held row) that NAT has now: EIM mappings and overload flows. Read
 * without a lock.
 */
uint64_t dp_lease_busy(const struct dp *dp, uint32_t row, enum sluice_l4 l4, uint32_t offset);
/*
 * Keep NAT off n ports from offset on, and see that it is not there: struct sluice_block says how. 0; -EBUSY when NAT has one of them or another claim
 * has, then nothing is claimed. A claim is for ever, until dp_lease_unclaim() or the slice goes.
 */
int dp_lease_claim(struct dp *dp, uint32_t row, enum sluice_l4 l4, uint32_t offset, uint32_t n);
void dp_lease_unclaim(struct dp *dp, uint32_t row, enum sluice_l4 l4, uint32_t offset, uint32_t n);
/* The ports of a block that are claimed. */
uint64_t dp_lease_claimed(const struct dp *dp, uint32_t row, enum sluice_l4 l4, uint32_t offset);

struct dp_lease {
	struct sluice_port_key key;
	struct sluice_lease lease;
};
/* Enter, or replace, entries of map "leases". -ENOSPC when it is full; then those before it are entered. */
int dp_lease_put(struct dp *dp, const struct dp_lease *list, size_t n, struct errtext *err);
/* Take entries out. 0 also when they are not there. */
int dp_lease_rm(struct dp *dp, const struct sluice_port_key *list, size_t n, struct errtext *err);
/* All of them, sorted by key, for free(). */
int dp_lease_read(struct dp *dp, struct dp_lease **ret, size_t *ret_n, struct errtext *err);

/*
 * Let a socket receive for leases whose steer is slot + 1: one atomic exchange for the socket that was there. It leaves the slot when it is closed everywhere; our
 * descriptor may be closed. 0; -EOPNOTSUPP and others when the kernel does not take it.
 */
int dp_steer_set(struct dp *dp, uint32_t slot, int fd, struct errtext *err);
void dp_steer_clear(struct dp *dp, uint32_t slot);
/* The cookie of the socket in a slot; 0: none. */
uint64_t dp_steer_cookie(const struct dp *dp, uint32_t slot);

/* Who bound the socket with this cookie? false: not known. */
bool dp_owner(const struct dp *dp, uint64_t cookie, struct sluice_owner *ret);

/* Hooks of sockets (dp_socket.c) */

struct dp_socket_opts {
	const char *cgroup; /* directory of the cgroup2 root; NULL: without cgroup hooks */
	const char
		*exec_cgroup; /* directory above the control groups of "sluice exec"; NULL: none */
	uint32_t exec_level;  /* depth of the groups below it */
};
/*
 * Attach sk_lookup to this network namespace and the cgroup hooks, or exchange the programs that an earlier daemon attached: atomically, one by one. What opts
 * does not name, but an earlier daemon attached, is detached. May be repeated. All is loaded before anything is touched; an error leaves attached what was. Call
 * dp_socket_uplinks() before: without it, sk_lookup refuses unleased sockets what arrives there. Takes CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and directories that
 * can be read. 0; -ENOENT: no such directory; -EPERM; others as the kernel gives them.
 */
int dp_socket_attach(struct dp *dp, const struct dp_socket_opts *opts, struct errtext *err);
/* Is all that dp_socket_attach() attached still there? Cheap, unlike attaching, which loads the programs. False before the first call. */
bool dp_socket_attached(const struct dp *dp);
/* The interfaces that are uplinks: what arrives there has been through the guard. n <= SLUICE_MAX_UPLINKS. */
int dp_socket_uplinks(struct dp *dp, const unsigned *ifindexes, size_t n, struct errtext *err);

/* Rows of map "execs" (dp_exec.c). id: of the control group. */
int dp_exec_put(struct dp *dp, uint64_t id, const struct sluice_exec *row, struct errtext *err);
void dp_exec_rm(struct dp *dp, uint64_t id);
/* Map "onlink" from now on, sorted by key. -ENOSPC, with nothing changed, when there are too many. */
int dp_exec_onlink(struct dp *dp, const struct plan_prefix *list, size_t n, struct errtext *err);

/* Reading (dp_flows.c) */

struct dp_flow {
	uint32_t pool; /* rows */
	uint32_t slice;
	uint8_t proto; /* IPPROTO_ */
	bool local;    /* the inner end is a socket of this machine */
	bool eim;      /* session of an endpoint-independent mapping */
	struct addr inner;
	struct addr outer;
	struct addr remote; /* all zero when the pool's filtering does not tell remote ends apart */
	uint16_t
		inner_port; /* host order, all three; ICMP: the query id, and 0 for the remote port */
	uint16_t outer_port;
	uint16_t
		remote_port; /* the first remote port where the filtering does not tell them apart */
	enum sluice_flow_state state;
	uint32_t expires_s; /* from now on, if nothing is sent */
};

struct dp_flow_cursor;

/* A walk over the flows. NULL without memory. dp_flow_cursor_free() before dp_close(). */
struct dp_flow_cursor *dp_flow_cursor_new(void);
void dp_flow_cursor_free(struct dp_flow_cursor *c);
/*
 * The next flows, at most n. Returns how many, 0 at the end, or -errno. The walk is over a living
 * table: a flow that begins or ends meanwhile may be missed, and, rarely, one be seen twice.
 */
int dp_flows_next(struct dp *dp, struct dp_flow_cursor *c, struct dp_flow *ret, size_t n);
const char *dp_flow_state_name(enum sluice_flow_state state);
/* "tcp", "udp", "icmp". */
static inline const char *dp_l4_name(enum sluice_l4 l4)
{
	static const char *const names[SLUICE_L4_MAX] = { "tcp", "udp", "icmp" };

	return names[l4];
}
/* The same of an IP protocol, and "other" for what is never translated. */
const char *dp_proto_name(uint8_t proto);

/* A destination that flows of a pool found no port for. */
struct dp_hot {
	uint32_t pool; /* row */
	uint8_t l4;
	struct addr dst; /* all zero: whichever it was, for mappings are endpoint-independent */
	uint16_t port;   /* host order; 0 likewise, and for ICMP */
	uint64_t refused;
	uint32_t tried_s; /* CLOCK_BOOTTIME */
};

/* The destinations that were refused most, at most n, the hottest first. How many, or -errno. */
int dp_hottest(const struct dp *dp, struct dp_hot *ret, size_t n);

/* Counters, summed over the CPUs. 0 or -errno. */
int dp_drops(const struct dp *dp, struct sluice_count ret[SLUICE_REASON_MAX]);
int dp_pool_stats(const struct dp *dp, uint32_t pool, struct sluice_pool_stats *ret);
/* window_s and in_window are 0. Rows: enum sluice_event_kind, then SLUICE_EVENT_MAX + reason. */
int dp_event_stats(const struct dp *dp, struct sluice_event_stats ret[SLUICE_EVENT_ROWS]);
/* reason < SLUICE_REASON_MAX. */
const char *dp_reason_name(uint32_t reason);
const char *dp_reason_help(uint32_t reason);

/* Readable (level-triggered) when there are events. Belongs to dp. */
int dp_events_fd(const struct dp *dp);
/* Hand over at most max events that wait; never blocks. Returns how many, or -errno. e is valid during the call. */
int dp_events_poll(struct dp *dp, void (*fn)(const struct sluice_event *e, void *arg), void *arg,
		   size_t max);

#endif
