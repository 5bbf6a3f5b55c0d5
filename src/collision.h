/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A collision as it is told and kept: two users of one outer tuple on this machine. Found by the watcher where conntrack translates, or resolved by our own data plane.
 */
#ifndef COLLISION_H
#define COLLISION_H

#include <stdbool.h>
#include <stdint.h>

#include "ct.h"

#define COLLISION_NETNS_MAX 64

enum collision_source {                           /* bits */
			COLLISION_CTNETLINK = 1,  /* conntrack's event */
			COLLISION_NETFILTER = 2,  /* the program after srcnat */
			COLLISION_DUMP = 4,       /* found later, by a dump */
			COLLISION_DATAPLANE = 8,  /* the guard moved the socket's flow */
			COLLISION_INVENTORY = 16, /* the socket table: not yet happened */
};
/* "ctnetlink", "netfilter" ...: of the lowest bit. */
const char *collision_source_name(uint32_t source);

enum collision_kind {
	COLLISION_REWRITE, /* the socket's packets leave with another port than it has */
	COLLISION_RISK, /* a socket and a translated flow stand on one outer tuple; nothing was rewritten yet */
};
const char *collision_kind_name(enum collision_kind k);

/* The other user of the tuple. */
struct collision_owner {
	char kind[12];        /* "flow" (translated), "socket", "" not known */
	struct addr src, dst; /* of a flow: its inner end, and where it goes */
	uint16_t sport, dport;
};

struct collision {
	uint64_t id;     /* counts up for ever; 0: not stored yet */
	int64_t time_ms; /* UTC */
	enum collision_kind kind;
	uint32_t source;                 /* who saw it first */
	char netns[COLLISION_NETNS_MAX]; /* as configured; "": the daemon's own */
	enum sluice_l4 l4;
	struct addr src; /* the address that socket and flow share */
	struct addr dst;
	uint16_t bound; /* the port that the socket has */
	uint16_t wire;  /* the port on the wire; of a risk: the same */
	uint16_t dport;
	bool in_slice; /* the wire port lies in a slice that this machine holds */
	bool resolved; /* by the data plane, which translates back as well: the connection works */
	bool healed;   /* the entry was deleted and the socket aborted */
	uint32_t
		delay_us; /* from the packet to here, where the source knows; UINT32_MAX: not known */
	/* The victim. */
	int32_t pid; /* 0: not known */
	uint32_t uid;
	uint64_t inode;
	uint64_t cookie;
	char comm[16];
	char cgroup[256];
	struct collision_owner owner;
};

#endif
