// SPDX-License-Identifier: BSD-2-Clause
/* See ctnl.h: dumps, single look-ups and deletion. The kernel answers a request before sendto() returns, so nothing here waits. */
#include "ctnl_private.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <string.h>

#include <libmnl/libmnl.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack.h>

/* What an NLMSG_ERROR or NLMSG_DONE says: 0 or -errno. */
static int end_get(const struct nlmsghdr *nlh)
{
	int32_t e = 0;

	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(e))
		return -EBADMSG;
	memcpy(&e, mnl_nlmsg_get_payload(nlh), sizeof(e));
	return e > 0 ? -EBADMSG : e;
}

/* One datagram of the kernel's. -EAGAIN: there is none; -EMSGSIZE: it did not fit. */
static ssize_t socket_receive(struct mnl_socket *nl, void *buf, size_t len)
{
	struct sockaddr_nl from = { 0 };
	socklen_t from_len;
	ssize_t got;

	do {
		from_len = sizeof(from);
		got = recvfrom(mnl_socket_get_fd(nl), buf, len, MSG_DONTWAIT | MSG_TRUNC,
			       (struct sockaddr *)&from, &from_len);
	} while ((got < 0 && errno == EINTR) || (got >= 0 && from.nl_pid));
	if (got < 0)
		return -errno;
	return (size_t)got > len ? -EMSGSIZE : got;
}

/* Single requests */

/*
 * Ask, and read the one answer: an entry, or an acknowledgement with 0 or -errno. ret NULL: only that is expected. What was left of an earlier request that failed is passed
 * over.
 */
static int ask(struct ctnl *c, struct ctnl_ask *a, struct ct_entry *ret)
{
	char req[CTNL_ASK_MAX] __attribute__((aligned(8)));
	char buf[CTNL_EVENT_MAX] __attribute__((aligned(8)));
	const struct nlmsghdr *nlh = (const struct nlmsghdr *)buf;
	enum ct_verb verb;
	ssize_t got;
	int r;

	a->seq = ++c->seq;
	r = ctnl_build(req, a);
	if (r)
		return r;
	if (mnl_socket_sendto(c->ask, req, ((const struct nlmsghdr *)req)->nlmsg_len) < 0)
		return -errno;
	for (;;) {
		got = socket_receive(c->ask, buf, sizeof(buf));
		if (got == -EAGAIN)
			return -EIO;
		if (got < 0)
			return (int)got;
		if (!mnl_nlmsg_ok(nlh, (int)got) || nlh->nlmsg_seq != a->seq)
			continue;
		if (nlh->nlmsg_type == NLMSG_ERROR)
			return end_get(nlh);
		if (ret)
			return ctnl_parse(nlh, &verb, ret) ? -EBADMSG : 0;
	}
}

int ctnl_probe(struct ctnl *c)
{
	struct ctnl_ask a = { .type = IPCTNL_MSG_CT_GET_STATS, .flags = NLM_F_ACK };
	int r = ask(c, &a, NULL);

	/* nfnetlink, of a subsystem that it neither has nor finds a module for. */
	return r == -EINVAL ? -ENOENT : r;
}

int ctnl_find(struct ctnl *c, enum sluice_l4 l4, uint16_t zone, const struct ct_tuple *reply,
	      struct ct_entry *ret)
{
	struct ctnl_ask a = { .type = IPCTNL_MSG_CT_GET, .l4 = l4, .zone = zone, .tuple = reply };

	return ask(c, &a, ret);
}

int ctnl_delete(struct ctnl *c, const struct ct_entry *e)
{
	struct ctnl_ask a = {
		.type = IPCTNL_MSG_CT_DELETE,
		.flags = NLM_F_ACK,
		.l4 = e->l4,
		.zone = e->zone,
		.id = e->id,
		.tuple = &e->orig,
	};
	int r = ask(c, &a, NULL);

	/* A zone that holds for answers only. */
	if (r == -ENOENT && e->zone) {
		a.tuple = &e->reply;
		r = ask(c, &a, NULL);
	}
	return r;
}

int ctnl_reserve(struct ctnl *c, enum sluice_l4 l4, const struct ct_tuple *orig, uint32_t timeout_s)
{
	const struct ct_tuple reply = {
		.src = orig->dst, .dst = orig->src, .sport = orig->dport, .dport = orig->sport
	};
	struct ctnl_ask a = {
		.type = IPCTNL_MSG_CT_NEW,
		.flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
		.l4 = l4,
		.timeout_s = timeout_s,
		.tuple = orig,
		.reply = &reply,
	};

	assert(timeout_s);
	return ask(c, &a, NULL);
}

/* Dumps */

int ctnl_dump_begin(struct ctnl *c, struct errtext *err)
{
	char buf[CTNL_ASK_MAX];
	int r;

	if (c->dumping)
		return errtext_set(err, EBUSY,
				   "a dump of the connection tracking table is running");
	c->dump_seq = ++c->seq;
	r = ctnl_build_dump(buf, c->dump_seq);
	if (!r && mnl_socket_sendto(c->dump, buf, ((struct nlmsghdr *)buf)->nlmsg_len) < 0)
		r = -errno;
	if (r)
		return errtext_set(err, -r, "dumping the connection tracking table: %s",
				   strerror(-r));
	c->dumping = true;
	c->interrupted = false;
	c->dump_rest = (struct ctnl_rest){ 0 };
	return 0;
}

int ctnl_dump_fd(const struct ctnl *c)
{
	return mnl_socket_get_fd(c->dump);
}

/* One message. Returns 1 when the dump goes on, 0 at its end, or -errno, which is its end too. */
static int dump_take(struct ctnl *c, const struct nlmsghdr *nlh, ctnl_fn *fn, void *arg)
{
	enum ct_verb verb;
	struct ct_entry e;
	int r;

	if (nlh->nlmsg_seq != c->dump_seq)
		return 1;
	if (nlh->nlmsg_flags & NLM_F_DUMP_INTR)
		c->interrupted = true;
	if (nlh->nlmsg_type == NLMSG_ERROR || nlh->nlmsg_type == NLMSG_DONE) {
		r = end_get(nlh);
		return !r && c->interrupted ? -EINTR : r;
	}
	r = ctnl_parse(nlh, &verb, &e);
	/* A kernel that does not know the filter sends all. */
	if (!r && e.status & IPS_SRC_NAT)
		fn(arg, CT_FOUND, &e);
	else if (r == -EBADMSG)
		c->stats.bad++;
	return 1;
}

int ctnl_dump_read(struct ctnl *c, unsigned max, ctnl_fn *fn, void *arg)
{
	struct ctnl_rest *rest = &c->dump_rest;
	const struct nlmsghdr *nlh;
	ssize_t got;
	int r = 1;

	assert(c->dumping);
	for (unsigned n = 0; n < max && r == 1; n++) {
		if (!mnl_nlmsg_ok(rest->at, rest->len)) {
			got = socket_receive(c->dump, c->dump_buf, sizeof(c->dump_buf));
			if (got == -EAGAIN)
				return 1;
			if (got < 0) {
				r = (int)got;
				break;
			}
			*rest = (struct ctnl_rest){ .at = (const struct nlmsghdr *)c->dump_buf,
						    .len = (int)got };
			continue;
		}
		nlh = rest->at;
		rest->at = mnl_nlmsg_next(nlh, &rest->len);
		r = dump_take(c, nlh, fn, arg);
	}
	if (r != 1)
		c->dumping = false;
	return r;
}
