// SPDX-License-Identifier: BSD-2-Clause
/* See ctnl.h: opening, and events. */
#include "ctnl_private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libmnl/libmnl.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack.h>

/* The least that a datagram takes from a receive buffer: its struct sk_buff, and the head with struct skb_shared_info. */
#define DATAGRAM_MIN 512

/*
 * What the event socket lets in, run by the kernel for each event, of which it is the only cost there: the status says that the source is translated, and the
 * protocol is TCP or UDP. An attribute is searched from offset A on, for type X. Loads turn what is big-endian into host order, so a status, which is, can be
 * tested as it is.
 */
#define FIRST_ATTR (NLMSG_HDRLEN + sizeof(struct nfgenmsg))
#define FIND(type)                         \
	BPF_STMT(BPF_LDX | BPF_IMM, type), \
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, SKF_AD_OFF + SKF_AD_NLATTR)
#define FIND_INSIDE(type)                  \
	BPF_STMT(BPF_LDX | BPF_IMM, type), \
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, SKF_AD_OFF + SKF_AD_NLATTR_NEST)

static int filter_attach(int fd)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_IMM, FIRST_ATTR),
		FIND(CTA_STATUS),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 17, 0),
		BPF_STMT(BPF_MISC | BPF_TAX, 0),
		BPF_STMT(BPF_LD | BPF_W | BPF_IND, NLA_HDRLEN),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, IPS_SRC_NAT, 0, 14),
		BPF_STMT(BPF_LD | BPF_IMM, FIRST_ATTR),
		FIND(CTA_TUPLE_ORIG),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 10, 0),
		FIND_INSIDE(CTA_TUPLE_PROTO),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 7, 0),
		FIND_INSIDE(CTA_PROTO_NUM),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 4, 0),
		BPF_STMT(BPF_MISC | BPF_TAX, 0),
		BPF_STMT(BPF_LD | BPF_B | BPF_IND, NLA_HDRLEN),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_UDP, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	struct sock_fprog prog = { .len = sizeof(code) / sizeof(*code), .filter = code };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) ? -errno : 0;
}

/* Opening */

static int buffer_set(int fd, uint32_t bytes, uint32_t *ret)
{
	int wanted = (int)(bytes < INT32_MAX / 2 ? bytes : INT32_MAX / 2), granted;
	socklen_t len = sizeof(granted);

	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &wanted, sizeof(wanted)) &&
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &wanted, sizeof(wanted)))
		return -errno;
	if (getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &granted, &len))
		return -errno;
	*ret = (uint32_t)granted;
	return 0;
}

static int socket_new(struct mnl_socket **ret)
{
	struct mnl_socket *nl = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int r;

	if (!nl)
		return -errno;
	if (mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID)) {
		r = -errno;
		mnl_socket_close(nl);
		return r;
	}
	*ret = nl;
	return 0;
}

/* Filter and buffer first: nothing comes before them. */
static int events_open(struct ctnl *c, const struct ctnl_opts *o)
{
	int fd = mnl_socket_get_fd(c->events), group = NFNLGRP_CONNTRACK_NEW, r;

	r = filter_attach(fd);
	if (!r)
		r = buffer_set(fd, o->buffer, &c->stats.buffer);
	if (r || o->deaf)
		return r;
	if (mnl_socket_setsockopt(c->events, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)))
		return -errno;
	group = NFNLGRP_CONNTRACK_DESTROY;
	if (o->gone &&
	    mnl_socket_setsockopt(c->events, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)))
		return -errno;
	return 0;
}

void ctnl_batch_init(struct ctnl_batch *b)
{
	for (unsigned i = 0; i < CTNL_BATCH; i++) {
		b->iov[i] = (struct iovec){ .iov_base = b->buf[i], .iov_len = sizeof(b->buf[i]) };
		b->msg[i].msg_hdr = (struct msghdr){ .msg_name = &b->from[i],
						     .msg_iov = &b->iov[i],
						     .msg_iovlen = 1 };
	}
}

/* The sysctl of the caller's namespace. A kernel without it, or a /proc that is kept from us, says nothing. */
static bool events_off(void)
{
	int fd = open("/proc/sys/net/netfilter/nf_conntrack_events", O_RDONLY | O_CLOEXEC);
	char digit = 0;
	bool off = fd >= 0 && read(fd, &digit, 1) == 1 && digit == '0';

	if (fd >= 0)
		close(fd);
	return off;
}

static int open_fail(struct errtext *err, int r)
{
	switch (-r) {
	case ENOENT:
	case EPROTONOSUPPORT:
		return errtext_set(
			err, ENOENT,
			"the kernel has no ctnetlink: load nf_conntrack_netlink, or enable "
			"CONFIG_NF_CT_NETLINK");
	case EPERM:
		return errtext_set(err, EPERM, "ctnetlink needs CAP_NET_ADMIN");
	}
	return errtext_set(err, -r, "opening ctnetlink: %s", strerror(-r));
}

int ctnl_open(const struct ctnl_opts *o, struct ctnl **ret, struct errtext *err)
{
	struct ctnl *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return errtext_set(err, ENOMEM, "out of memory");
	c->batch = calloc(1, sizeof(*c->batch));
	if (!c->batch) {
		ctnl_close(c);
		return errtext_set(err, ENOMEM, "out of memory");
	}
	ctnl_batch_init(c->batch);
	r = socket_new(&c->ask);
	if (!r)
		r = ctnl_probe(c);
	if (!r)
		r = socket_new(&c->dump);
	if (!r)
		r = socket_new(&c->events);
	if (!r)
		r = events_open(c, o);
	if (r) {
		ctnl_close(c);
		return open_fail(err, r);
	}
	c->stats.off = events_off();
	*ret = c;
	return 0;
}

void ctnl_close(struct ctnl *c)
{
	struct mnl_socket *all[3];

	if (!c)
		return;
	all[0] = c->events;
	all[1] = c->dump;
	all[2] = c->ask;
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (all[i])
			mnl_socket_close(all[i]);
	free(c->batch);
	free(c);
}

int ctnl_fd(const struct ctnl *c)
{
	return mnl_socket_get_fd(c->events);
}

struct ctnl_stats ctnl_stats(const struct ctnl *c)
{
	return c->stats;
}

/* Events */

/* The datagram whose turn it is: only the kernel's are of use, and only whole ones. */
static void datagram_take(struct ctnl *c)
{
	const struct mmsghdr *m = &c->batch->msg[c->i];

	c->rest = (struct ctnl_rest){ .at = (const struct nlmsghdr *)c->batch->buf[c->i],
				      .len = (int)m->msg_len };
	if (c->batch->from[c->i].nl_pid || m->msg_hdr.msg_flags & MSG_TRUNC ||
	    !mnl_nlmsg_ok(c->rest.at, c->rest.len)) {
		c->stats.bad++;
		c->rest.len = 0;
	}
}

/*
 * Receive some datagrams. Returns how many, 0 when there are none now, or -errno.
 *
 * When the receive buffer is full the kernel says ENOBUFS once, and from then on drops all events, without another word, until the queue has been read empty
 * (NETLINK_S_CONGESTED). A dump that begins earlier can miss an entry for good, so the loss is told only afterwards: when there is nothing to read, or as many
 * datagrams have been read as there can have been.
 */
static int events_receive(struct ctnl *c, unsigned max)
{
	int n;

	if (max > CTNL_BATCH)
		max = CTNL_BATCH;
	for (;;) {
		for (unsigned i = 0; i < max; i++)
			c->batch->msg[i].msg_hdr.msg_namelen = sizeof(c->batch->from[i]);
		n = recvmmsg(mnl_socket_get_fd(c->events), c->batch->msg, max, MSG_DONTWAIT, NULL);
		if (n >= 0)
			break;
		if (errno == ENOBUFS) {
			c->stats.losses++;
			c->lost = true;
			c->left = c->stats.buffer / DATAGRAM_MIN + 1;
		} else if (errno == EAGAIN) {
			c->left = 0;
			return 0;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	c->left -= (uint32_t)n < c->left ? (uint32_t)n : c->left;
	c->empty = (unsigned)n < max;
	c->n = (unsigned)n;
	c->i = 0;
	if (n)
		datagram_take(c);
	return n;
}

/* The next message of the batch. */
static const struct nlmsghdr *batch_next(struct ctnl *c)
{
	const struct nlmsghdr *nlh;

	while (c->i < c->n) {
		if (mnl_nlmsg_ok(c->rest.at, c->rest.len)) {
			nlh = c->rest.at;
			c->rest.at = mnl_nlmsg_next(nlh, &c->rest.len);
			return nlh;
		}
		if (++c->i < c->n)
			datagram_take(c);
	}
	return NULL;
}

static void event_take(struct ctnl *c, const struct nlmsghdr *nlh, ctnl_fn *fn, void *arg)
{
	enum ct_verb verb;
	struct ct_entry e;
	int r = ctnl_parse(nlh, &verb, &e);

	if (r == -EBADMSG) {
		c->stats.bad++;
	} else if (!r && e.status & IPS_SRC_NAT) {
		c->stats.events++;
		fn(arg, verb, &e);
	}
}

int ctnl_read(struct ctnl *c, unsigned max, ctnl_fn *fn, void *arg)
{
	const struct nlmsghdr *nlh;
	unsigned n = 0, receives = 0;
	int r;

	c->empty = false;
	while (n < max) {
		nlh = batch_next(c);
		if (nlh) {
			event_take(c, nlh, fn, arg);
			n++;
			continue;
		}
		/* What came since, poll tells: a system call less for each wake-up. */
		if (c->lost ? !c->left : c->empty)
			break;
		/* Datagrams without a message are work, too. */
		if (receives++ == max)
			break;
		r = events_receive(c, max - n);
		if (r < 0)
			return r;
		if (!r)
			break;
	}
	if (c->lost && !c->left && c->i >= c->n) {
		c->lost = false;
		return -ENOBUFS;
	}
	return (int)n;
}
