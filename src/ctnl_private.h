/* SPDX-License-Identifier: BSD-2-Clause */
/* What the parts of ctnl share: ctnl.c (events), ctnl_ask.c (dumps, single look-ups, deletion), ctnl_parse.c (messages). */
#ifndef CTNL_PRIVATE_H
#define CTNL_PRIVATE_H

#include <linux/netlink.h>
#include <sys/socket.h>

#include "ctnl.h"

/* Datagrams of one recvmmsg(2). An event is one datagram of some 200 bytes; with everything that may be in it, below a KiB. */
#define CTNL_BATCH     32
#define CTNL_EVENT_MAX 4096
/* More than the kernel puts into one answer of a dump (32 KiB). */
#define CTNL_DUMP_MAX 65536

/* Messages that have been received and not yet been looked at. */
struct ctnl_rest {
	const struct nlmsghdr *at;
	int len; /* bytes; libmnl's type */
};

struct ctnl_batch {
	struct mmsghdr msg[CTNL_BATCH];
	struct iovec iov[CTNL_BATCH];
	struct sockaddr_nl from[CTNL_BATCH];
	char buf[CTNL_BATCH][CTNL_EVENT_MAX] __attribute__((aligned(8)));
};
void ctnl_batch_init(struct ctnl_batch *b);

struct ctnl {
	struct mnl_socket *events, *dump, *ask;
	uint32_t seq;
	struct ctnl_stats stats;

	/* Events. */
	bool lost;     /* and not yet told */
	uint32_t left; /* datagrams that may still be of the queue that was full */
	bool empty;    /* the last call left nothing */
	unsigned n, i; /* datagrams in the batch, and the one that is looked at */
	struct ctnl_rest rest;
	struct ctnl_batch *batch;

	/* The dump. */
	bool dumping;
	bool interrupted;
	uint32_t dump_seq;
	struct ctnl_rest dump_rest;
	char dump_buf[CTNL_DUMP_MAX] __attribute__((aligned(8)));
};

/*
 * Read one message, nlh->nlmsg_len bytes that are there and hold a struct nlmsghdr at least. -ENOMSG: it is of another protocol or kind, nothing to look at;
 * -EBADMSG: it makes no sense. Whether the entry's source is translated is the caller's to look at. *ret_verb is CT_NEW or CT_GONE.
 */
int ctnl_parse(const struct nlmsghdr *nlh, enum ct_verb *ret_verb, struct ct_entry *ret);

/* A request. */
struct ctnl_ask {
	uint16_t type;  /* IPCTNL_MSG_CT_* */
	uint16_t flags; /* NLM_F_*, besides NLM_F_REQUEST */
	uint32_t seq;
	enum sluice_l4 l4;
	uint16_t zone;
	uint32_t id;        /* 0: any */
	uint32_t timeout_s; /* 0: not told */
	/*
	 * For looking up either tuple of an entry will do: the kernel has both in one table and does not ask which is which. (The library does not write a reply tuple alone.)
	 * NULL: nothing is looked up.
	 */
	const struct ct_tuple *tuple;
	const struct ct_tuple *reply; /* of an entry that is to be made; else NULL */
};

/* Put it into buf, of CTNL_ASK_MAX bytes. -ENOMEM. */
#define CTNL_ASK_MAX 1024
int ctnl_build(char *buf, const struct ctnl_ask *a);
/* A request for everything that is translated, to be filtered by the kernel where it can (5.15 on). */
int ctnl_build_dump(char *buf, uint32_t seq);

/* Ask for something that every ctnetlink knows. -ENOENT: there is none. */
int ctnl_probe(struct ctnl *c);

#endif
