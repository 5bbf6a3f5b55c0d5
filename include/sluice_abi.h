/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The data plane's ABI: the layout of every pinned map and of the events, shared by the BPF programs and
 * by user space. Nothing else may be shared between them.
 *
 * Rules: fixed-width types, explicit padding that is always zero, static asserts on size. A change of
 * any layout or meaning raises SLUICE_ABI; a daemon refuses pins with another number (see dp.c).
 * Addresses and ports in keys are in network byte order, everything else is in host order. IPv4
 * addresses are stored v4-mapped (::ffff:a.b.c.d, RFC 4291 2.5.5.2). All times are CLOCK_BOOTTIME.
 */
#ifndef SLUICE_ABI_H
#define SLUICE_ABI_H

#include <linux/types.h>

#define SLUICE_ABI 4

/* Sizes of the fixed tables. The flow tables are sized when they are created ("max-flows"). */
#define SLUICE_MAX_ADDRS 1024
#define SLUICE_MAX_SLICES \
	16384 /* rows: every address has 65536 / slice-size of them, held or not */
#define SLUICE_MAX_POOLS    64
#define SLUICE_MAX_BLOCKS   98304 /* 1024 held slices of 2048 ports, three protocols */
#define SLUICE_MAX_PREFIXES 4096
#define SLUICE_BLOCK_PORTS  64     /* one 64-bit word of use bits */
#define SLUICE_MAX_LEASED   262144 /* ports under lease, by protocol */
#define SLUICE_MAX_STEERED  4096  /* sockets that receive for a lease though they stand elsewhere */
#define SLUICE_MAX_OWNERS   65536 /* sockets whose process is remembered; the oldest are forgotten */
#define SLUICE_MAX_EXECS    4096  /* control groups that go out through a lease */
#define SLUICE_MAX_UPLINKS  8
#define SLUICE_MAX_ZONES    1024  /* interfaces whose clients' addresses are their own */
#define SLUICE_MAX_FRAGS    1024  /* datagrams in pieces, at a time */
#define SLUICE_MAX_HELD     512   /* pieces that came before the one with the ports */
#define SLUICE_MAX_HOT      4096  /* destinations that found no port; the oldest are forgotten */
#define SLUICE_FRAG_LEN     9216  /* bytes of a piece that waits */
#define SLUICE_FRAG_S       15    /* and seconds */
#define SLUICE_IDS          4096  /* counters of identifications */
#define SLUICE_MIN_CLIENTS  65536 /* rows of map "client_state": these, or a quarter of max-flows */

#define SLUICE_NEVER (~0ULL) /* a deadline that does not come */
#define SLUICE_DEAD  (~0U)   /* in flow.seen_s: claimed for removal, treat as absent */

/* What goes through the slices, as an index of per-protocol tables. */
enum sluice_l4 {
	SLUICE_TCP,
	SLUICE_UDP,
	SLUICE_ICMP,
	SLUICE_L4_MAX,
};

union sluice_addr {
	__u8 b[16];
	__be32 w[4];
	__u64 d[2];
};

/*
 * Key of both flow tables.
 * fwd: src, sport = the inner end; dst, dport = the remote end, zero for an endpoint-independent mapping.
 * rev: src, sport = the remote end, masked as the pool's filtering says; dst, dport = the outer end.
 * For ICMP and ICMPv6 echo the query id stands for the local port, and the remote port is zero.
 */
struct sluice_flow_key {
	union sluice_addr src;
	union sluice_addr dst;
	__be16 sport;
	__be16 dport;
	__u8 proto; /* IPPROTO_ */
	__u8 pad;
	__u16 zone; /* whose inner addresses these are: SLUICE_ZONE_; always 0 in rev */
};

enum sluice_zone {
	SLUICE_ZONE_CLIENTS = 0,
	SLUICE_ZONE_LOCAL = 0xffff, /* a socket of this machine whose tuple was taken */
};

/*
 * Value of both flow tables. In overload mode a flow is one fwd and one rev entry, and a direction's packets write only
 * their own. In endpoint-independent mode fwd holds the mapping, and rev one session for each remote end that the filtering
 * tells apart; both directions write the session. What state a flow is in, and when it ends, is derived
 * (sluice_flow.h), so no packet waits for another one's lock.
 *
 * A socket that keeps its tuple has a mark there (SLUICE_FLOW_OWN), which translates nothing: in overload mode one entry of rev; in endpoint-independent mode the
 * port's bit and a mapping of fwd from the port to itself, for TCP and ICMP with sessions.
 */
struct sluice_flow {
	union {
		union sluice_addr addr; /* rev: inner address */
		__u32 sessions;         /* fwd, mapping: rev entries that belong to it */
		__be32 last_v4
			[4]; /* fwd, own: [3]: the last remote end that was sent to; with rport */
		struct {
			__u32 ack;  /* the next byte that the inner end waits for */
			__u32 wnd;  /* how many it takes from there, scaled */
			__u8 scale; /* of its window; SLUICE_SCALE_ */
			__u8 pad[7];
		} tcp_in; /* fwd, TCP, overload: what a RST from outside must lie in (RFC 5961) */
	};
	__be16 port;  /* fwd: outer port; rev: inner port */
	__be16 rport; /* rev: remote port of the first packet, for listings where the key masks it */
	__u32 slice;  /* row of the slice that the outer port is in; its address is the outer one */
	__u32 epoch;  /* that row's epoch when the flow began; another one now means: dead */
	__u32 seen_s;    /* last packet that refreshes this entry, whole seconds, or SLUICE_DEAD */
	__u16 timeout_s; /* UDP, ICMP, and mappings: idle time, the longest of what it was used for */
	__u16 zone;      /* rev: zone of the inner end */
	__u8 tcp;        /* SLUICE_TCP_ bits sent; fwd: by the inner end; rev: by the remote end */
	__u8 tcp_out;    /* rev of a mapping: bits sent by the inner end */
	__u8 flags;      /* SLUICE_FLOW_ */
	__u8 pad;
};

/* struct sluice_flow, tcp_in.scale: shift in the low bits. */
enum sluice_scale {
	SLUICE_SCALE_SHIFT = 0x0f,
	SLUICE_SCALE_ASKED = 0x40, /* the inner end's SYN had the option */
	SLUICE_SCALE_KNOWN = 0x80, /* ack and wnd are there */
};

enum sluice_tcp_bits {
	SLUICE_TCP_FIN = 0x01,
	SLUICE_TCP_SYN = 0x02,
	SLUICE_TCP_RST = 0x04,
	SLUICE_TCP_ACK = 0x10,
	SLUICE_TCP_LAST = 0x80, /* sent something without FIN after both directions' FIN */
};

enum sluice_flow_flags {
	SLUICE_FLOW_EIM = 0x01,   /* fwd: a mapping; rev: belongs to one */
	SLUICE_FLOW_LOCAL = 0x02, /* the inner end is a socket of this machine */
	SLUICE_FLOW_PERMIT =
		0x04, /* rev: no session, only lets a remote in (endpoint-independent TCP) */
	SLUICE_FLOW_OWN =
		0x08, /* a socket's own, not translated: only says whose the tuple is. rev: one (overload); fwd: the port (EIM) */
	SLUICE_FLOW_BLIND =
		0x10, /* own: the kernel's look-up does not show who sends, so that its time alone ends it */
	SLUICE_FLOW_COUNTED = 0x20, /* in its client's row; rev: flow or session; fwd: mapping */
};

enum sluice_mapping {
	SLUICE_OVERLOAD, /* address-and-port-dependent, one port for many destinations */
	SLUICE_EIM,      /* endpoint-independent */
};

enum sluice_filtering {
	SLUICE_FILTER_ADDRESS, /* address-dependent */
	SLUICE_FILTER_NONE,    /* endpoint-independent */
	SLUICE_FILTER_PORT,    /* address-and-port-dependent */
};

/* Which identification a packet without DF gets that leaves from a shared address (RFC 6864, RFC 7857 10). */
enum sluice_id_mode {
	SLUICE_ID_KEEP,   /* its own */
	SLUICE_ID_SLICE,  /* one of the slice's, so that no two machines use the same */
	SLUICE_ID_SET_DF, /* its own, and DF, if it is no fragment */
};

enum sluice_pairing {
	SLUICE_PAIRING_ARBITRARY,
	SLUICE_PAIRING_PAIRED, /* a client has one address as long as it has flows */
};

/* struct sluice_pool, mss: this, or what TCP's maximum segment size is clamped to. */
enum sluice_mss {
	SLUICE_MSS_KEEP = 0,
	SLUICE_MSS_AUTO = 1, /* what the uplink's MTU holds */
};

/* Value of map "uplinks": what stands before the IP header. */
enum sluice_uplink {
	SLUICE_UPLINK_ETHER = 1,
	SLUICE_UPLINK_L3 = 2, /* nothing */
};

enum sluice_unleased {
	SLUICE_UNLEASED_ALLOW,
	SLUICE_UNLEASED_REPORT,
	SLUICE_UNLEASED_DENY,
};

/* Idle times, whole seconds (RFC 4787 REQ-5, RFC 5382 REQ-5, RFC 5508 REQ-2, RFC 7857 2). */
struct sluice_timers {
	__u32 tcp_established;
	__u32 tcp_opening;
	__u32 tcp_closing;
	__u32 tcp_time_wait;
	__u32 tcp_reset;
	__u32 udp;
	__u32 udp_short; /* destination ports 53 and 123 */
	__u32 icmp;
};

/* Row of map "conf" (one row, mmapable): what the whole data plane must know. */
struct sluice_conf {
	__u32 abi;
	__u32 max_flows;
	__u32 swept_s;    /* when the daemon last swept: stale means it is not there */
	__u32 event_rate; /* events a second, CPU and kind at most */
	/*
	 * By enum sluice_l4: look for a client's flow under the mapping's key first, not under the 5-tuple. Only a hint, for speed: what
	 * is not found is looked for as its pool says. 0 while any pool drains: then the 5-tuple must win.
	 */
	__u8 eim_first[4];
	__u32 exec_level; /* depth of the control groups in map "execs"; the root's is 0 */
	__u64 netns_cookie; /* the daemon's network namespace: programs that see others leave them alone */
	__u32 execs;        /* rows in map "execs": 0 saves the look-up */
	__u32 hairpin;   /* pools with hairpin on: 0 saves the look-up */
	__u32 zones;     /* rows in map "zones": 0 saves the look-up */
	__u32 l3_links;  /* rows in map "l3_links", or have been: 0 saves the look-up */
	__u32 pressed_s; /* when a flow table was full: as in struct sluice_slice */
	__u32 pad1;
	__u64 pad;
};

/* Map "addrs": shared address -> where its rows begin. */
struct sluice_addr_row {
	__u32 base; /* row of port 0's slice; row = base + (port >> shift) */
	__u16 pool; /* row of the pool */
	__u8 shift; /* log2 of the slice size */
	__u8 pad;
};

enum sluice_slice_state {
	SLUICE_SLICE_NONE, /* not this machine's */
	SLUICE_SLICE_HELD,
};

/*
 * Row of map "slices" (mmapable; user space stores state last when it fills a row, first when it empties
 * one, and not_after_ns as one word).
 */
struct sluice_slice {
	union sluice_addr addr;
	__u64 not_after_ns; /* no packet passes from this moment on */
	__u32 epoch;
	__u32 block_base; /* row of its first block; see sluice_block_row() */
	__u16 first;
	__u16 last;
	__u16 pool;
	__u16 fresh_s; /* the shortest of the pool's timers: a flow seen within it needs no closer look */
	__u8 state;
	__u8 pad0[3];
	__u32 pressed_s; /* when a mapping of UDP found no port here: ports that rest are given back then */
	__u8 pad[16]; /* room for the next hop of another machine's slice */
};

/* Row of map "pools" (mmapable). */
struct sluice_pool {
	char name[32];
	__u64 held;        /* first row in map "held" << 32 | number of rows: stored as one word */
	__u8 mapping[4];   /* enum sluice_mapping, by enum sluice_l4 */
	__u8 filtering[4]; /* enum sluice_filtering */
	__u8 mixed[4];     /* flows of the other mapping may still be there: a change drains */
	__u8 unleased;
	__u8 used; /* row in use */
	__u16 mss; /* enum sluice_mss, or a size */
	struct sluice_timers timers;
	__u16 client_ports[4]; /* most a client may have, by enum sluice_l4; 0: no limit */
	__u32 client_states;   /* most flows and sessions of a client; 0: no limit */
	__u32 client_rate;     /* most that it may begin a second; 0: no limit */
	__u32 client_burst;
	__u8 id_mode;         /* enum sluice_id_mode */
	__u8 pairing;         /* enum sluice_pairing */
	__u8 hairpin;         /* clients reach each other by their outer ends */
	__u8 inbound_refresh; /* UDP: what comes in keeps a flow as well */
	__u16 reuse_s; /* UDP: how long the port of a mapping that has ended is kept from others (RFC 6888 REQ-8) */
	__u16 pad2[3];
};

/*
 * Row of map "blocks" (mmapable): 64 ports of one slice and protocol.
 *
 * Who may have a port is settled so: NAT first notes its claim (EIM: the port's bit in bits, by compare-and-swap; overload: one more in
 * port_flows), then reads leased, and gives the claim back if the port's bit is set there. The daemon first sets the bit in leased, then reads bits
 * and port_flows, and takes it back if NAT is there. All four steps are atomic operations with full ordering, so at least one of the two sees the other.
 */
struct sluice_block {
	__u64 bits; /* EIM: ports that a mapping has */
	__u64 leased; /* ports that are under lease or cool down: the daemon's; NAT passes them over */
	__u32 mode; /* enum sluice_block_mode */
	__u32 pad;
};

/* Row of map "port_flows" (mmapable): how many rev entries of overload flows are on each port of a block. TCP and UDP only. */
struct sluice_port_flows {
	__u32 flows[SLUICE_BLOCK_PORTS];
};

enum sluice_block_mode {
	SLUICE_BLOCK_FREE, /* nobody may take ports from it */
	SLUICE_BLOCK_OVERLOAD,
	SLUICE_BLOCK_EIM,
};

/* Row of the block that holds a port. nports: ports in the slice; offset: port - first. */
static inline __u32 sluice_block_row(__u32 block_base, __u32 nports, __u32 l4, __u32 offset)
{
	return block_base + l4 * (nports / SLUICE_BLOCK_PORTS) + offset / SLUICE_BLOCK_PORTS;
}

/*
 * Row of map "port_flows" for a block of TCP or UDP. Every slice has three rows of blocks for one of ports each protocol, so its block_base is a
 * multiple of three.
 */
static inline __u32 sluice_port_flows_row(__u32 block_base, __u32 nports, __u32 l4, __u32 offset)
{
	return block_base / 3 * 2 + l4 * (nports / SLUICE_BLOCK_PORTS) +
	       offset / SLUICE_BLOCK_PORTS;
}

/* Key of map "leases": one port of one protocol. */
struct sluice_port_key {
	union sluice_addr addr;
	__be16 port;
	__u8 l4; /* SLUICE_TCP, SLUICE_UDP */
	__u8 pad[5];
};

enum sluice_lease_kind {
	SLUICE_LEASE_SHARED,    /* connected sockets: the port serves each destination once */
	SLUICE_LEASE_EXCLUSIVE, /* the port for all destinations: listeners, unconnected UDP, QUIC */
};

/* Value of map "leases". A port that cools down has none. */
struct sluice_lease {
	__u64 id;
	__u32 uid; /* whose sockets may send from the port, besides root's */
	__u32 steer; /* 1 + slot in map "steered" of the socket that receives for it; 0: whatever is bound to the port */
	__u8 kind; /* enum sluice_lease_kind */
	__u8 pad[7];
};

/* Value of map "owners", by socket cookie: who bound a socket to a shared address. */
struct sluice_owner {
	__u64 cgroup;
	__u32 pid; /* thread group */
	__u32 uid;
	char comm[16];
};

/*
 * Value of map "execs", by the id of a control group of "sluice exec": its processes go out through this lease and no other way. An address of
 * the family that the lease is not of: no connection.
 */
struct sluice_exec {
	__u64 lease;
	union sluice_addr addr;
	__u32 pool; /* rows */
	__u32 slice;
	__u16 first; /* ports of the lease, host order */
	__u16 last;
	__u8 protos; /* 1 << SLUICE_TCP, 1 << SLUICE_UDP: what the lease is for */
	__u8 kind;   /* enum sluice_lease_kind */
	__u8 pad[2];
};

/*
 * Keys of the longest-prefix maps "clients" (pool: the zone), "no_nat", and "onlink" (pool 0: destinations by the routing table; value 0: they do not leave by an
 * uplink, 1: they do). prefixlen counts from pool on.
 */
struct sluice_lpm_key {
	__u32 prefixlen;
	__u32 pool;
	union sluice_addr addr;
};
#define SLUICE_LPM_POOL_BITS 32

/* Map "full": this destination found no port in this slice, in this second, at this release count. */
struct sluice_full_key {
	union sluice_addr dst;
	__be16 dport;
	__u8 l4;
	__u8 pad;
	__u32 slice;
};

struct sluice_full {
	__u32 released;
	__u32 at_s;
};

/* Value of map "hot", by the key of map "full" with the pool's row for the slice's: a destination that flows of the pool found no port for. */
struct sluice_hot {
	__u64 refused; /* flows */
	__u32 tried_s; /* the last one */
	__u32 pad;
};

/*
 * Key of map "client_state": a client whose pool limits or pairs its clients. Without the pool: what it has counts wherever it came to be.
 */
struct sluice_client_key {
	union sluice_addr addr;
	__u16 zone;
	__u16 pad[3];
};

/* What it has. Entries that were counted here have SLUICE_FLOW_COUNTED. */
struct sluice_client {
	__u64 word; /* entries that refer to it, its shared address, and whose row this is: see client.bpf.h */
	__u32 ports[4]; /* by enum sluice_l4: mappings, and overload flows */
	__u32 states;   /* sessions of mappings, and overload flows */
	__u32 pad;
	__u64 bucket; /* milliseconds << 32 | thousandths of a flow that it could begin then */
};

/* A row stays for so long at least after its client has begun a flow: its bucket is full then. */
#define SLUICE_BURST_MAX_S 60

/* A datagram in pieces, which a row of map "frags" and those of map "frag_hold" belong to: as it comes, before translation. */
enum sluice_frag_way {
	SLUICE_FRAG_OUT,
	SLUICE_FRAG_IN,
	SLUICE_FRAG_LOCAL, /* out, from a socket of this machine */
};

struct sluice_frag_key {
	union sluice_addr src;
	union sluice_addr dst;
	__be32 id;  /* IPv4: in the first two bytes */
	__u8 proto; /* IPv6: 0 */
	__u8 way;   /* enum sluice_frag_way */
	__u16 zone; /* whose src that is */
};

enum sluice_frag_state {
	SLUICE_FRAG_WAITING, /* pieces are held, the first has not come */
	SLUICE_FRAG_BEGUN,   /* it has come and is under way */
	SLUICE_FRAG_READY,   /* what it was given stands here */
	SLUICE_FRAG_REFUSED, /* it was dropped: so are the others */
};

/* What its first piece was given, for the others, which have no ports. */
struct sluice_frag {
	union sluice_addr addr; /* outer source, or inner destination */
	__u64 units
		[4]; /* which pieces have passed: by the 256 bytes of the datagram that they begin in */
	__be32 id;   /* instead of the key's */
	__u32 slice; /* of the outer end: row and epoch */
	__u32 epoch;
	__u32 seen_s; /* when the row was made */
	__be16 sport; /* of the first piece, as it came */
	__be16 dport;
	__u32 state;    /* enum sluice_frag_state */
	__u32 bytes;    /* that have passed */
	__u32 total;    /* of the datagram; 0: not known yet */
	__u32 held;     /* numbers given to pieces that waited */
	__u32 replayed; /* how many of these were there when the first piece came */
};

struct sluice_frag_hold_key {
	struct sluice_frag_key of;
	__u32 n;
	__u32 pad;
};

struct sluice_frag_held {
	__u32 seen_s;
	__u32 len;
	__u32 live; /* 1, until somebody takes it */
	__u32 pad;
	__u8 bytes[SLUICE_FRAG_LEN]; /* of the frame */
};

/* Row of map "idents", by a hash of the remote address and the protocol. */
struct sluice_ident {
	__u32 next;
	__u32 wrapped_s; /* when the identifications began anew */
};

/* Why packets are dropped: X(name, help). The order is ABI; new ones go to the end. */
#define SLUICE_REASONS(X)                                                                     \
	X(escape, "shared source address with a port outside this machine's live slices")     \
	X(spoof, "forwarded packet that claims a shared address as its source")               \
	X(fenced, "the slice's deadline has passed: the hold must be renewed")                \
	X(no_port, "every port of the pool that could serve the new flow is in use")          \
	X(no_slice, "the client's pool holds no live slice on this machine")                  \
	X(table_full, "the flow table is full: raise max-flows")                              \
	X(unsolicited, "arrived for a port of ours that no flow and no socket uses")          \
	X(foreign, "arrived for a slice of a shared address that another machine holds")      \
	X(filtered, "arrived for a mapping that has not sent to this remote end")             \
	X(unleased,                                                                           \
	  "a local socket uses a port that is not leased to it, and the pool denies that")    \
	X(fragment, "fragment of a datagram whose first piece was dropped")                   \
	X(malformed, "header that contradicts itself or is cut short")                        \
	X(proto, "transport protocol that is not translated")                                 \
	X(icmp_type, "ICMP message that is neither an echo nor an error")                     \
	X(icmp_error, "ICMP error about a packet of no flow that is here")                    \
	X(rewrite, "the kernel refused to change the packet")                                 \
	X(no_flow, "TCP segment that belongs to no flow and opens none")                      \
	X(icmp_sum, "ICMP error with a wrong checksum, or that quotes an IP header with one") \
	X(frag_full, "no room for one more datagram in pieces, or one more piece")            \
	X(frag_late, "piece that waited in vain for the one with the ports")                  \
	X(client_ports, "the client has as many ports as its pool gives one client")          \
	X(client_states, "the client has as many flows as its pool gives one client")         \
	X(client_rate, "the client begins flows faster than its pool allows")                 \
	X(hairpin, "packet of a client to an outer end that no client has")

enum sluice_reason {
#define SLUICE_X(name, help) SLUICE_DROP_##name,
	SLUICE_REASONS(SLUICE_X)
#undef SLUICE_X
		SLUICE_REASON_MAX,
};

/* Per-CPU rows of map "drops", by enum sluice_reason. */
struct sluice_count {
	__u64 packets;
	__u64 bytes;
};

/* Per-CPU rows of map "pool_stats", by pool row. Never reset while the pins live. */
struct sluice_pool_stats {
	struct sluice_count out; /* translated or guarded, towards the uplink */
	struct sluice_count in;
	__u64 created[4]; /* flows, by enum sluice_l4 */
	__u64 ended[4];
	__u64 refused[4];
	__u64 resolved; /* socket flows moved to another port because NAT had theirs */
	__u64 unleased; /* socket flows without a lease that were reported or denied */
	__u64 limited;  /* flows that a client's limits refused */
	__u64 id_wraps; /* times that the identifications of a slice began anew within a datagram's lifetime */
};

/* Row of map "sweep" (one row, mmapable): what the last pass of the sweep program found. */
struct sluice_sweep {
	__u32 now_s;
	__u32 pad;
	__u64 seen;
	__u64 reclaimed;
	__u64 flows[4]; /* live ones, by enum sluice_l4 */
};

enum sluice_event_kind {
	SLUICE_EVENT_DROP,     /* reason says why */
	SLUICE_EVENT_RESOLVED, /* a socket's flow was moved: key is its fwd key, outer its new port */
	SLUICE_EVENT_UNLEASED, /* a socket sends from a port that is not leased to it */
	SLUICE_EVENT_MAX,
};

#define SLUICE_EVENT_SNAP 96 /* bytes of the packet, from its IP header on */

/* Records of the ring buffer "events". Rate-limited per kind; what was left out is counted in "event_stats". */
struct sluice_event {
	__u64 time_ns;
	__u32 kind;
	__u32 reason;
	__u32 ifindex; /* where the packet came in; 0: made here */
	__u16 pool;
	__u16 snap_len; /* bytes in snap that are the packet's */
	struct sluice_flow_key key;
	__be16 outer_port;
	__be16 owner_sport; /* resolved: the inner end of the flow that has the tuple; zero: not known */
	__u16 pad[2];
	union sluice_addr owner_src;
	__u64 cookie;              /* of the socket that sent it; 0: not known */
	struct sluice_owner owner; /* pid 0: not known; uid is the socket's */
	__u8 snap[SLUICE_EVENT_SNAP];
};

/* Per-CPU rows of map "event_stats", by enum sluice_event_kind (drops: by reason, after the kinds). */
struct sluice_event_stats {
	__u64 sent;
	__u64 limited; /* over the rate */
	__u64 lost;    /* the ring was full */
	__u32 window_s;
	__u32 in_window;
};
#define SLUICE_EVENT_ROWS (SLUICE_EVENT_MAX + SLUICE_REASON_MAX)

_Static_assert(sizeof(struct sluice_flow_key) == 40, "ABI");
_Static_assert(sizeof(struct sluice_flow) == 40,
	       "ABI: key and value and the kernel's 48 bytes are two cache lines");
_Static_assert(sizeof(struct sluice_conf) == 64, "ABI");
_Static_assert(sizeof(struct sluice_addr_row) == 8, "ABI");
_Static_assert(sizeof(struct sluice_slice) == 64, "ABI");
_Static_assert(sizeof(struct sluice_pool) == 120, "ABI");
_Static_assert(sizeof(struct sluice_block) == 24, "ABI");
_Static_assert(sizeof(struct sluice_port_key) == 24, "ABI");
_Static_assert(sizeof(struct sluice_lease) == 24, "ABI");
_Static_assert(sizeof(struct sluice_owner) == 32, "ABI");
_Static_assert(sizeof(struct sluice_exec) == 40, "ABI");
_Static_assert(sizeof(struct sluice_lpm_key) == 24, "ABI");
_Static_assert(sizeof(struct sluice_full_key) == 24, "ABI");
_Static_assert(sizeof(struct sluice_hot) == 16, "ABI");
_Static_assert(sizeof(struct sluice_client_key) == 24, "ABI");
_Static_assert(sizeof(struct sluice_client) == 40, "ABI");
_Static_assert(sizeof(struct sluice_frag_key) == 40, "ABI");
_Static_assert(sizeof(struct sluice_frag) == 88, "ABI");
_Static_assert(sizeof(struct sluice_frag_hold_key) == 48, "ABI");
_Static_assert(sizeof(struct sluice_event) == 224, "ABI");

#endif
