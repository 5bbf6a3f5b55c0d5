// SPDX-License-Identifier: BSD-2-Clause
/* See sockdiag.h. What the kernel does is in its net/ipv4/inet_diag.c and udp_diag.c. */
#include "sockdiag.h"

#include <assert.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <libmnl/libmnl.h>

/* More than the kernel puts into one answer of a dump (32 KiB). */
#define BUFFER 65536

/* TCP states of the kernel (net/tcp_states.h). */
enum {
	STATE_CLOSE = 7,
	STATE_BOUND =
		13, /* BOUND_INACTIVE, a name of the dump only: such a socket's state is CLOSE */
	STATE_MAX,
};

/*
 * The kernel runs the whole program for each socket, and checks a program in a time that grows with the square of its length. Of more addresses
 * than this only the families are chosen there.
 */
#define FILTER_ADDRS 64

/* One address: a condition, and a jump to the end for when it is true. */
#define FILTER_STEP                                                           \
	(sizeof(struct inet_diag_bc_op) + sizeof(struct inet_diag_hostcond) + \
	 sizeof(struct in6_addr) + sizeof(struct inet_diag_bc_op))

struct sockdiag {
	struct mnl_socket *nl;
	unsigned portid;
	uint32_t seq;
	bool sees_bound;
	bool running; /* the end of the last dump has not been read */
	bool calling; /* fn is at work */
	char buf[BUFFER] __attribute__((aligned(8)));
};

/* What a dump is about. */
struct wish {
	enum sluice_l4 l4;
	uint32_t states;
	uint16_t lport;           /* 0: any */
	const struct addr *addrs; /* sorted */
	size_t n;
	int (*fn)(const struct sockdiag_sock *s, void *arg);
	void *arg;
};

/* Filters */

static bool wanted(const struct wish *w, const struct addr *local)
{
	return !w->n || bsearch(local, w->addrs, w->n, sizeof(*w->addrs), addr_order);
}

/* A local address, and a port (-1: any). Returns the length. */
static size_t filter_cond(char *at, int family, const void *addr, size_t addr_len, int port)
{
	struct inet_diag_bc_op op = { .code = INET_DIAG_BC_S_COND };
	struct inet_diag_hostcond cond = { .family = (uint8_t)family,
					   .prefix_len = (uint8_t)(8 * addr_len),
					   .port = port };
	size_t len = sizeof(op) + sizeof(cond) + addr_len;

	op.yes = (uint8_t)len;
	/* Over the jump that follows. Where none does, that is beyond the end, which means no. */
	op.no = (uint16_t)(len + sizeof(op));
	memcpy(at, &op, sizeof(op));
	memcpy(at + sizeof(op), &cond, sizeof(cond));
	if (addr_len)
		memcpy(at + sizeof(op) + sizeof(cond), addr, addr_len);
	return len;
}

/* "Is it one of these?" An IPv4 address is also that of IPv6 sockets that use it. */
static size_t filter_addrs(char *code, const struct addr *const *addrs, size_t n)
{
	size_t at = 0, jumps[FILTER_ADDRS];

	for (size_t i = 0; i < n; i++) {
		uint32_t v4 = addr_is_v4(addrs[i]) ? addr_v4(addrs[i]) : 0;

		if (addr_is_v4(addrs[i]))
			at += filter_cond(code + at, AF_INET, &v4, sizeof(v4), -1);
		else
			at += filter_cond(code + at, AF_INET6, addrs[i], sizeof(*addrs[i]), -1);
		jumps[i] = at;
		if (i < n - 1)
			at += sizeof(struct inet_diag_bc_op);
	}
	for (size_t i = 0; i + 1 < n; i++) {
		struct inet_diag_bc_op op = { .code = INET_DIAG_BC_JMP,
					      .yes = sizeof(op),
					      .no = (uint16_t)(at - jumps[i]) };

		memcpy(code + jumps[i], &op, sizeof(op));
	}
	return at;
}

/* Asking */

static struct nlmsghdr *request_begin(struct sockdiag *d, enum sluice_l4 l4, int family,
				      uint32_t states)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(d->buf);
	struct inet_diag_req_v2 *req;

	nlh->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	nlh->nlmsg_seq = ++d->seq;
	req = mnl_nlmsg_put_extra_header(nlh, sizeof(*req));
	req->sdiag_family = (uint8_t)family;
	req->sdiag_protocol = l4 == SLUICE_TCP ? IPPROTO_TCP : IPPROTO_UDP;
	req->idiag_states = states;
	return nlh;
}

static int request_send(struct sockdiag *d, const struct nlmsghdr *nlh)
{
	if (mnl_socket_sendto(d->nl, nlh, nlh->nlmsg_len) < 0)
		return -errno;
	d->running = true;
	return 0;
}

/* Answers */

static struct addr addr_of(int family, const uint32_t words[4])
{
	struct addr a = { 0 };

	if (family == AF_INET6)
		memcpy(a.b, words, sizeof(a.b));
	else if (words[0])
		return addr_from_v4(words[0]);
	/* ::ffff:0.0.0.0 is a wildcard too. */
	if (addr_is_v4(&a) && !addr_v4(&a))
		return (struct addr){ 0 };
	return a;
}

static bool sock_parse(const struct nlmsghdr *nlh, enum sluice_l4 l4, struct sockdiag_sock *ret)
{
	const struct inet_diag_msg *m = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *attr;
	struct sockdiag_sock s;

	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(*m))
		return false;
	s = (struct sockdiag_sock){
		.l4 = l4,
		.local = addr_of(m->idiag_family, m->id.idiag_src),
		.remote = addr_of(m->idiag_family, m->id.idiag_dst),
		.lport = ntohs(m->id.idiag_sport),
		.rport = ntohs(m->id.idiag_dport),
		.state = m->idiag_state,
		.uid = m->idiag_uid,
		.ifindex = m->id.idiag_if,
		.inode = m->idiag_inode,
		.cookie = (uint64_t)m->id.idiag_cookie[1] << 32 | m->id.idiag_cookie[0],
	};
	if (l4 == SLUICE_TCP && s.state == STATE_CLOSE)
		s.state = STATE_BOUND;
	mnl_attr_for_each(attr, nlh, sizeof(*m))
	{
		size_t len = mnl_attr_get_payload_len(attr);

		switch (mnl_attr_get_type(attr)) {
		case INET_DIAG_SKV6ONLY:
			s.v6only = len >= 1 && mnl_attr_get_u8(attr);
			break;
		case INET_DIAG_CGROUP_ID:
			s.cgroup = len >= sizeof(uint64_t) ? mnl_attr_get_u64(attr) : 0;
			break;
		}
	}
	*ret = s;
	return true;
}

/* What ends a dump, or 0 without *end when it goes on. */
static int end_parse(const struct nlmsghdr *nlh, bool *end)
{
	int32_t e = 0;

	if (nlh->nlmsg_type != NLMSG_ERROR && nlh->nlmsg_type != NLMSG_DONE)
		return 0;
	*end = true;
	if (mnl_nlmsg_get_payload_len(nlh) >= sizeof(e))
		memcpy(&e, mnl_nlmsg_get_payload(nlh), sizeof(e));
	return e < 0 ? e : 0;
}

/* Read up to the end of the dump, also when fn has had enough: the socket is wanted again. w NULL: nobody listens. *ret_stop is what fn stopped with. */
static int answers_read(struct sockdiag *d, const struct wish *w, int *ret_stop)
{
	int r = 0, e, stop = 0;

	while (d->running) {
		ssize_t got = mnl_socket_recvfrom(d->nl, d->buf, sizeof(d->buf));
		const struct nlmsghdr *nlh = (const struct nlmsghdr *)d->buf;
		struct sockdiag_sock s;
		bool end = false;
		int len;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		for (len = (int)got; mnl_nlmsg_ok(nlh, len) && !end;
		     nlh = mnl_nlmsg_next(nlh, &len)) {
			if (!mnl_nlmsg_seq_ok(nlh, d->seq) || !mnl_nlmsg_portid_ok(nlh, d->portid))
				continue;
			if (nlh->nlmsg_flags & NLM_F_DUMP_INTR && !r)
				r = -EINTR;
			e = end_parse(nlh, &end);
			if (e)
				r = e;
			if (end || r || stop || !w || nlh->nlmsg_type != SOCK_DIAG_BY_FAMILY)
				continue;
			if (!sock_parse(nlh, w->l4, &s)) {
				r = -EBADMSG;
				continue;
			}
			if (!wanted(w, &s.local))
				continue;
			d->calling = true;
			stop = w->fn(&s, w->arg);
			d->calling = false;
		}
		if (end)
			d->running = false;
	}
	if (ret_stop)
		*ret_stop = stop;
	return r;
}

static int dump_fail(struct errtext *err, enum sluice_l4 l4, int r)
{
	const char *name = l4 == SLUICE_TCP ? "tcp_diag" : "udp_diag";

	if (r == -EINTR)
		return errtext_set(err, EINTR, "the socket table changed while it was read");
	if (r == -ENOENT)
		return errtext_set(err, ENOENT,
				   "the kernel has no %s: load the module, or enable CONFIG_%s",
				   name, l4 == SLUICE_TCP ? "INET_TCP_DIAG" : "INET_UDP_DIAG");
	return errtext_set(err, -r, "reading the socket table (%s): %s", name, strerror(-r));
}

/* One family. 0 or what fn stopped with in *ret_stop. */
static int family_dump(struct sockdiag *d, int family, const struct wish *w, int *ret_stop)
{
	char code[FILTER_ADDRS * FILTER_STEP];
	const struct addr *some[FILTER_ADDRS];
	struct inet_diag_req_v2 *req;
	struct nlmsghdr *nlh;
	size_t n = 0;
	int r;

	for (size_t i = 0; i < w->n; i++) {
		/* An IPv4 socket has none of the others. */
		if (family == AF_INET && !addr_is_v4(&w->addrs[i]))
			continue;
		if (n < FILTER_ADDRS)
			some[n] = &w->addrs[i];
		n++;
	}
	if (w->n && !n)
		return 0;
	nlh = request_begin(d, w->l4, family, w->states);
	req = mnl_nlmsg_get_payload(nlh);
	req->id.idiag_sport = htons(w->lport);
	if (n && n <= FILTER_ADDRS)
		mnl_attr_put(nlh, INET_DIAG_REQ_BYTECODE, filter_addrs(code, some, n), code);
	r = request_send(d, nlh);
	return r ? r : answers_read(d, w, ret_stop);
}

int sockdiag_dump_states(struct sockdiag *d, enum sluice_l4 l4, uint32_t states, uint16_t lport,
			 const struct addr *addrs, size_t n,
			 int (*fn)(const struct sockdiag_sock *s, void *arg), void *arg,
			 struct errtext *err)
{
	struct wish w = {
		.l4 = l4, .states = states, .lport = lport, .n = n, .fn = fn, .arg = arg
	};
	struct addr *sorted = NULL;
	int r, stop = 0;

	assert((l4 == SLUICE_TCP || l4 == SLUICE_UDP) && !d->calling);
	if (n) {
		sorted = malloc(n * sizeof(*sorted));
		if (!sorted)
			return errtext_set(err, ENOMEM, "out of memory");
		memcpy(sorted, addrs, n * sizeof(*sorted));
		qsort(sorted, n, sizeof(*sorted), addr_order);
		w.addrs = sorted;
	}
	/* One that failed half way: the kernel does one at a time. */
	r = d->running ? answers_read(d, NULL, NULL) : 0;
	if (!d->running)
		r = family_dump(d, AF_INET, &w, &stop);
	if (!r && !stop)
		r = family_dump(d, AF_INET6, &w, &stop);
	free(sorted);
	if (stop)
		return stop;
	return r ? dump_fail(err, l4, r) : 0;
}

int sockdiag_dump(struct sockdiag *d, enum sluice_l4 l4, const struct addr *addrs, size_t n,
		  int (*fn)(const struct sockdiag_sock *s, void *arg), void *arg,
		  struct errtext *err)
{
	return sockdiag_dump_states(d, l4, ~0U, 0, addrs, n, fn, arg, err);
}

/* One socket */

static bool is_wildcard(const struct addr *a)
{
	static const struct addr none;

	return !addr_cmp(a, &none);
}

static void words_of(int family, const struct addr *a, uint32_t words[4])
{
	uint32_t v4 = addr_is_v4(a) ? addr_v4(a) : 0;

	if (family == AF_INET6)
		memcpy(words, a->b, sizeof(a->b));
	else
		words[0] = v4;
}

/* Where a socket stands, as the kernel wants it. The look-up of UDP takes the packet's source and destination, all others the socket's own. */
static void place_put(struct inet_diag_req_v2 *req, const struct addr *local, uint16_t lport,
		      const struct addr *remote, uint16_t rport, bool swapped)
{
	struct inet_diag_sockid *id = &req->id;

	words_of(req->sdiag_family, local, swapped ? id->idiag_dst : id->idiag_src);
	words_of(req->sdiag_family, remote, swapped ? id->idiag_src : id->idiag_dst);
	id->idiag_sport = htons(swapped ? rport : lport);
	id->idiag_dport = htons(swapped ? lport : rport);
}

static int family_of(const struct addr *local, const struct addr *remote)
{
	return (addr_is_v4(local) || is_wildcard(local)) &&
			       (addr_is_v4(remote) || is_wildcard(remote))
		       ? AF_INET
		       : AF_INET6;
}

/*
 * The one answer to the request in d->buf. The kernel has worked by the time it was sent, so nothing is waited for. 0 with *ret_nlh; the error in a message of that kind.
 */
static int answer_read(struct sockdiag *d, const struct nlmsghdr **ret_nlh)
{
	for (;;) {
		ssize_t got = recv(mnl_socket_get_fd(d->nl), d->buf, sizeof(d->buf), MSG_DONTWAIT);
		const struct nlmsghdr *nlh = (const struct nlmsghdr *)d->buf;
		bool end = false;
		int r;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return errno == EAGAIN ? -EIO : -errno;
		/* One of an earlier request that failed half way. */
		if (!mnl_nlmsg_ok(nlh, (int)got) || nlh->nlmsg_seq != d->seq ||
		    !mnl_nlmsg_portid_ok(nlh, d->portid))
			continue;
		r = end_parse(nlh, &end);
		if (!r)
			*ret_nlh = nlh;
		return r;
	}
}

static int one_ask(struct sockdiag *d, struct nlmsghdr *nlh, const struct nlmsghdr **ret_nlh)
{
	if (mnl_socket_sendto(d->nl, nlh, nlh->nlmsg_len) < 0)
		return -errno;
	return answer_read(d, ret_nlh);
}

/* A dump that failed half way would go on between the answers. */
static int one_begin(struct sockdiag *d)
{
	int r = d->running ? answers_read(d, NULL, NULL) : 0;

	return d->running ? r : 0;
}

int sockdiag_find(struct sockdiag *d, enum sluice_l4 l4, const struct addr *local, uint16_t lport,
		  const struct addr *remote, uint16_t rport, uint32_t ifindex,
		  struct sockdiag_sock *ret)
{
	const struct nlmsghdr *answer;
	struct inet_diag_req_v2 *req;
	struct nlmsghdr *nlh;
	int r;

	assert((l4 == SLUICE_TCP || l4 == SLUICE_UDP) && !d->calling);
	r = one_begin(d);
	if (r)
		return r;
	nlh = request_begin(d, l4, family_of(local, remote), ~0U);
	nlh->nlmsg_flags = NLM_F_REQUEST;
	req = mnl_nlmsg_get_payload(nlh);
	place_put(req, local, lport, remote, rport, l4 == SLUICE_UDP);
	req->id.idiag_if = ifindex;
	memset(req->id.idiag_cookie, 0xff, sizeof(req->id.idiag_cookie));
	r = one_ask(d, nlh, &answer);
	if (r)
		return r;
	if (answer->nlmsg_type != SOCK_DIAG_BY_FAMILY || !sock_parse(answer, l4, ret))
		return -EBADMSG;
	return 0;
}

static int family_destroy(struct sockdiag *d, int family, const struct sockdiag_sock *s)
{
	struct nlmsghdr *nlh = request_begin(d, s->l4, family, ~0U);
	struct inet_diag_req_v2 *req = mnl_nlmsg_get_payload(nlh);
	const struct nlmsghdr *answer;
	int r;

	nlh->nlmsg_type = SOCK_DESTROY;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	place_put(req, &s->local, s->lport, &s->remote, s->rport, false);
	req->id.idiag_if = s->ifindex;
	req->id.idiag_cookie[0] = (uint32_t)s->cookie;
	req->id.idiag_cookie[1] = (uint32_t)(s->cookie >> 32);
	r = one_ask(d, nlh, &answer);
	return r == -ESTALE ? -ENOENT : r;
}

int sockdiag_destroy(struct sockdiag *d, const struct sockdiag_sock *s)
{
	int family = family_of(&s->local, &s->remote), r = one_begin(d);

	if (!r)
		r = family_destroy(d, family, s);
	/* On the wildcard of IPv6 only. */
	if (r == -ENOENT && family == AF_INET && is_wildcard(&s->local) && is_wildcard(&s->remote))
		r = family_destroy(d, AF_INET6, s);
	return r;
}

/* Opening */

static int sees_cookie(const struct sockdiag_sock *s, void *arg)
{
	return s->cookie == *(uint64_t *)arg;
}

/* A kernel that does not know a state's bit ignores it, so bind a socket and look for it. */
static int bound_probe(struct sockdiag *d, int fd)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	uint64_t cookie;
	struct wish w = { .l4 = SLUICE_TCP, .fn = sees_cookie, .arg = &cookie };
	char code[FILTER_STEP];
	struct nlmsghdr *nlh;
	socklen_t len = sizeof(sin), cookie_len = sizeof(cookie);
	int r, stop = 0;

	if (bind(fd, (struct sockaddr *)&sin, sizeof(sin)) ||
	    getsockname(fd, (struct sockaddr *)&sin, &len) ||
	    getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &cookie_len))
		return -errno;
	nlh = request_begin(d, SLUICE_TCP, AF_INET, 1U << STATE_BOUND);
	mnl_attr_put(nlh, INET_DIAG_REQ_BYTECODE,
		     filter_cond(code, AF_UNSPEC, NULL, 0, ntohs(sin.sin_port)), code);
	r = request_send(d, nlh);
	if (!r)
		r = answers_read(d, &w, &stop);
	if (!r)
		d->sees_bound = stop;
	return r == -EINTR ? 0 : r;
}

int sockdiag_open(struct sockdiag **ret, struct errtext *err)
{
	struct sockdiag *d = calloc(1, sizeof(*d));
	int fd, r;

	if (!d)
		return errtext_set(err, ENOMEM, "out of memory");
	d->nl = mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC);
	if (!d->nl || mnl_socket_bind(d->nl, 0, MNL_SOCKET_AUTOPID)) {
		r = errtext_set(err, errno, "opening sock_diag: %s", strerror(errno));
		goto fail;
	}
	d->portid = mnl_socket_get_portid(d->nl);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	r = fd < 0 ? -errno : bound_probe(d, fd);
	if (fd >= 0)
		close(fd);
	if (r) {
		dump_fail(err, SLUICE_TCP, r);
		goto fail;
	}
	*ret = d;
	return 0;
fail:
	sockdiag_close(d);
	return r;
}

void sockdiag_close(struct sockdiag *d)
{
	if (!d)
		return;
	if (d->nl)
		mnl_socket_close(d->nl);
	free(d);
}

bool sockdiag_sees_bound(const struct sockdiag *d)
{
	return d->sees_bound;
}

const char *sockdiag_state_name(uint8_t state)
{
	static const char *const names[STATE_MAX] = {
		[1] = "established",     [2] = "syn-sent",   [3] = "syn-recv",
		[4] = "fin-wait-1",      [5] = "fin-wait-2", [6] = "time-wait",
		[7] = "unconnected",     [8] = "close-wait", [9] = "last-ack",
		[10] = "listening",      [11] = "closing",   [12] = "syn-recv",
		[STATE_BOUND] = "bound",
	};

	return state < STATE_MAX && names[state] ? names[state] : "unknown";
}
