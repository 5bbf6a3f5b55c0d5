/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The configuration: read with libconfuse, validated as a whole, immutable afterwards. A bad file is refused whole; every
 * error names file, line, the offending value and what is allowed. Reading does no more than reading: whether an
 * uplink exists is asked by host_check() so that this file stays testable without a network.
 */
#ifndef CONFIG_H
#define CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "addr.h"
#include "errtext.h"
#include "sluice_abi.h"

#define CONFIG_NAME_MAX       31 /* pool and machine names: [A-Za-z0-9._-], first a letter or digit */
#define CONFIG_UPLINKS_MAX    8
#define CONFIG_NETNS_MAX      64   /* that are watched */
#define CONFIG_PORT_MIN       1024 /* no slice below */
#define CONFIG_SLICE_MIN      64   /* one block */
#define CONFIG_SLICE_MAX      32768
#define CONFIG_INTERFACES_MAX 64 /* of one pool */
#define CONFIG_STATES_MAX     16777216
#define CONFIG_RATE_MAX       1000000 /* flows a second, and at once */
#define CONFIG_TIMER_MAX_S    65535   /* what a flow has room for */
#define CONFIG_UDP_REUSE_S    120     /* RFC 6888 REQ-8 */
#define CONFIG_MSS_MIN        64
#define CONFIG_MSS_MAX        65495 /* 65535 without the shortest headers */

#define CONFIG_PATH_DEFAULT "/etc/sluice/sluice.conf"

enum config_backend {
	CONFIG_BACKEND_LOCAL,
};

/* Where metrics are asked for. */
struct config_metrics {
	char *listen; /* as in the file; NULL: nowhere */
	unsigned line;
	const char *path; /* of a Unix socket, within listen; NULL: it is addr and port */
	struct addr addr;
	uint16_t port;
};

struct config_pool {
	char name[CONFIG_NAME_MAX + 1];
	unsigned line;          /* where its section begins */
	struct addr *addresses; /* prefixes expanded, sorted, unique in the whole file */
	size_t n_addresses;
	uint32_t slice_size; /* ports, a power of two */
	/*
	 * What the local backend holds: always whole slices, one entry each (a configured range of several slices is cut
	 * up), sorted. With the key absent: every slice of every address from the first whole slice at or above 1024.
	 */
	struct range *slices;
	size_t n_slices;
	struct prefix *clients;
	size_t n_clients;
	struct prefix *no_nat;
	size_t n_no_nat;
	enum sluice_mapping mapping[SLUICE_L4_MAX]; /* ICMP is always endpoint-independent */
	enum sluice_filtering filtering
		[SLUICE_L4_MAX]; /* of endpoint-independent mappings; of ICMP always by address */
	enum sluice_unleased unleased;
	char **tags; /* "key=value" */
	size_t n_tags;

	/* Limits for each client. 0: none. */
	uint32_t ports_per_client; /* of each protocol */
	uint32_t states_per_client;
	uint32_t flows_per_second; /* new ones */
	uint32_t flows_burst;      /* new ones at once; 1 at least where there is a rate */

	bool paired;          /* a client keeps one shared address while it has flows */
	bool hairpin;         /* clients reach shared addresses of this machine */
	bool inbound_refresh; /* what comes in keeps a mapping of UDP alive as well */
	bool short_timers;
	struct sluice_timers timers; /* each 1 to CONFIG_TIMER_MAX_S */
	uint16_t
		udp_reuse_s; /* how long the port of a mapping that has ended is kept from other clients; 0 with short_timers */
	uint16_t mss_clamp; /* 0: off; SLUICE_MSS_AUTO; else the most that a SYN may say */
	enum sluice_id_mode ipv4_id;
	/*
	 * Where clients come in. None: anywhere, but by interfaces that other pools name. Two pools have the same ones, or none in
	 * common; only then may their clients be the same.
	 */
	char **interfaces;
	size_t n_interfaces;
};

struct config {
	char *path;                        /* the file it came from */
	char machine[CONFIG_NAME_MAX + 1]; /* default: the host name up to the first dot */
	char *state_dir;
	char *control;
	char *bpffs;
	char *uplinks[CONFIG_UPLINKS_MAX];         /* interface names, unique */
	unsigned uplink_lines[CONFIG_UPLINKS_MAX]; /* where they stand in the file */
	size_t n_uplinks;
	uint32_t max_flows; /* entries in each flow table; 1024 to 16777216, default 262144 */
	uint32_t
		icmp_rate; /* ICMP errors a second to clients that are refused; 0: none; default 100 */
	bool set_sysctls; /* host { sysctl = "set" } (default) or "check" */
	bool set_routes;  /* host { routes = "set" } (default) or "check" */
	struct {
		enum config_backend backend;
		uint32_t
			ttl_s; /* local: 0 (default): holds have no deadline; else 2 to 86400, renewed every third of it */
	} fleet;
	struct {
		char *group; /* group that may lease and look at everything, besides root; NULL: root only */
		uint32_t leases_per_uid;    /* "leases-per-uid", 64; 0: no limit. Not for root */
		uint32_t ports_per_uid;     /* "ports-per-uid", 0 */
		uint32_t leases_per_cgroup; /* "leases-per-cgroup", 0 */
	} access;
	struct { /* section leases { } */
		uint32_t
			cool_down_s; /* "cool-down", seconds that a port rests after its lease; 0 to 3600, default 60 */
		uint32_t
			records_days; /* "records", days that `sluice who` looks back; 1 to 3650, default 30 */
		uint32_t
			fair_percent; /* "fair-share": below this share of free ports, in percent, equal shares; 0 to 100, default 10 */
		char *cgroup; /* "cgroup", name of the control group that "exec" makes its own below; default "sluice" */
	} leases;
	struct {         /* section watch { }; what is said here of keys holds without it too */
		bool on; /* the section is there */
		char **netns; /* "netns": "" (our own), names below /run/netns, paths; unique; default { "" }. None: nothing is watched */
		unsigned *netns_lines; /* where they stand in the file; 0: nowhere */
		size_t n_netns;
		uint32_t
			sources; /* "sources", bits COLLISION_CTNETLINK and COLLISION_NETFILTER of enum collision_source; default both */
		bool heal;       /* "heal", false */
		uint32_t
			buffer; /* "buffer", bytes of each event socket's receive buffer; 65536 to 1073741824, default 8388608 */
		uint32_t
			history; /* "history", collisions that are kept; 1 to 1000000, default 10000 */
	} watch;
	struct config_metrics
		metrics; /* section metrics { }, "listen", 127.0.0.1:9469; without the section nowhere */
	struct config_pool *pools;
	size_t n_pools;
	char **warnings; /* things accepted that this version does not act on, as texts with file and line */
	size_t n_warnings;
};

/*
 * Read and validate path. On success *ret is a new configuration (config_free()). On failure returns -errno
 * (-EINVAL for what the file says, else what opening it gave), fills err and leaves *ret untouched.
 */
int config_load(const char *path, struct config **ret, struct errtext *err);
/* The same from memory; path is only for messages. text need not be NUL-terminated. */
int config_parse(const char *path, const char *text, size_t len, struct config **ret,
		 struct errtext *err);
void config_free(struct config *c);

/* The times of a pool whose section names none. */
extern const struct sluice_timers config_timers_default;
/* Do clients of both pools come in by the same interfaces? */
bool config_same_interfaces(const struct config_pool *a, const struct config_pool *b);

/* A file without pools is good for "sluiced --watch-only" alone. 0, or -EINVAL when there are none. */
int config_need_pools(const struct config *c, struct errtext *err);

/* err is somebody else's finding about one of the uplinks, and names it in quotes: say where in the file it stands. */
void config_blame_uplink(const struct config *c, struct errtext *err);

/*
 * May a running daemon go over from a to b without a restart? 0, or -EINVAL with the key that stands in the way
 * (machine, state-dir, control, bpffs, leases cgroup, watch netns, watch sources, watch buffer).
 */
int config_reloadable(const struct config *a, const struct config *b, struct errtext *err);

#endif
