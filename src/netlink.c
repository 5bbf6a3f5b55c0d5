/* SPDX-License-Identifier: BSD-2-Clause */
#include "netlink.h"

#include <netinet/in.h> /* before the kernel's headers, which then leave out what it has */

#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define V4_BITS 96 /* what an IPv4 prefix length gains in the 16-byte form */

struct netlink {
	struct nl_sock *sk;
};

struct netlink_monitor {
	struct nl_sock *sk;
	int len; /* bytes in buf */
	struct nlmsghdr *next;
	_Alignas(struct nlmsghdr) char buf[65536];
};

/* Where libnl itself fails; the kernel's errors come through untranslated (on_error()). */
static int nle_errno(int nle)
{
	switch (-nle) {
	case 0:
		return 0;
	case NLE_NOMEM:
		return -ENOMEM;
	case NLE_PERM:
	case NLE_NOACCESS:
		return -EPERM;
	case NLE_AF_NOSUPPORT:
	case NLE_PROTO_MISMATCH:
		return -EPROTONOSUPPORT;
	case NLE_AGAIN:
	case NLE_DUMP_INTR:
		return -EAGAIN;
	default:
		return -EIO;
	}
}

static int socket_open(int protocol, struct nl_sock **ret)
{
	struct nl_sock *sk = nl_socket_alloc();

	if (!sk)
		return -ENOMEM;
	int r = nl_connect(sk, protocol);

	if (r < 0) {
		nl_socket_free(sk);
		return nle_errno(r);
	}
	*ret = sk;
	return 0;
}

int netlink_open(struct netlink **ret)
{
	struct netlink *nl = calloc(1, sizeof(*nl));
	int on = 1;

	if (!nl)
		return -ENOMEM;
	int r = socket_open(NETLINK_ROUTE, &nl->sk);

	if (r < 0) {
		free(nl);
		return r;
	}
	/* So that the kernel filters dumps by table. Without it (before 4.20) all come, and are filtered here. */
	(void)setsockopt(nl_socket_get_fd(nl->sk), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on,
			 sizeof(on));
	*ret = nl;
	return 0;
}

void netlink_close(struct netlink *nl)
{
	if (!nl)
		return;
	nl_socket_free(nl->sk);
	free(nl);
}

/* One request and all of its answer. */
struct exchange {
	bool done;
	int err;
	int (*parse)(void *arg, struct nlmsghdr *nlh);
	void *arg;
};

static int on_valid(struct nl_msg *msg, void *arg)
{
	struct exchange *x = arg;

	/* The rest of a dump has to be read all the same, or it would answer the next request. */
	if (!x->err && x->parse)
		x->err = x->parse(x->arg, nlmsg_hdr(msg));
	return NL_OK;
}

static int on_end(struct nl_msg *msg, void *arg)
{
	struct exchange *x = arg;

	(void)msg;
	x->done = true;
	return NL_STOP;
}

static int on_error(struct sockaddr_nl *from, struct nlmsgerr *e, void *arg)
{
	struct exchange *x = arg;

	(void)from;
	x->done = true;
	if (!x->err)
		x->err = e->error;
	return NL_STOP;
}

static int exchange(struct nl_sock *sk, struct nl_msg *msg, int (*parse)(void *, struct nlmsghdr *),
		    void *arg)
{
	struct exchange x = { .parse = parse, .arg = arg };
	struct nl_cb *cb = nl_cb_alloc(NL_CB_DEFAULT);
	bool interrupted = false;

	if (!cb)
		return -ENOMEM;
	nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, on_valid, &x);
	nl_cb_set(cb, NL_CB_ACK, NL_CB_CUSTOM, on_end, &x);
	nl_cb_set(cb, NL_CB_FINISH, NL_CB_CUSTOM, on_end, &x);
	nl_cb_err(cb, NL_CB_CUSTOM, on_error, &x);

	int r = nl_send_auto(sk, msg);

	while (r >= 0 && !x.done) {
		r = nl_recvmsgs(sk, cb);
		if (r == -NLE_DUMP_INTR) {
			interrupted = true;
			r = 0;
		}
	}
	nl_cb_put(cb);
	if (x.err)
		return x.err;
	if (r < 0)
		return nle_errno(r);
	return interrupted ? -EAGAIN : 0;
}

/* A message that consists of a family's fixed header only. NULL without memory. */
static struct nl_msg *request_new(int type, int flags, const void *hdr, size_t len)
{
	struct nl_msg *msg = nlmsg_alloc_simple(type, flags);

	if (msg && nlmsg_append(msg, (void *)hdr, len, NLMSG_ALIGNTO) < 0) {
		nlmsg_free(msg);
		return NULL;
	}
	return msg;
}

static void copy_string(char *to, size_t size, struct nlattr *attr)
{
	to[0] = '\0';
	if (attr)
		nla_strlcpy(to, attr, size);
}

/* Returns 0, or -EBADMSG for something that is no link by itself. */
static int link_parse(struct nlmsghdr *nlh, struct netlink_link *ret)
{
	static const struct nla_policy policy[IFLA_MAX + 1] = {
		[IFLA_IFNAME] = { .type = NLA_STRING },
		[IFLA_MTU] = { .type = NLA_U32 },
		[IFLA_MASTER] = { .type = NLA_U32 },
		[IFLA_LINKINFO] = { .type = NLA_NESTED },
	};
	static const struct nla_policy info_policy[IFLA_INFO_MAX + 1] = {
		[IFLA_INFO_KIND] = { .type = NLA_STRING },
	};
	struct nlattr *tb[IFLA_MAX + 1], *info[IFLA_INFO_MAX + 1] = { 0 };
	const struct ifinfomsg *ifi = nlmsg_data(nlh);

	if (nlmsg_parse(nlh, sizeof(*ifi), tb, IFLA_MAX, policy) < 0 || !tb[IFLA_IFNAME])
		return -EBADMSG;
	/* A bridge tells of its ports coming and going in the same messages, with family AF_BRIDGE. */
	if (ifi->ifi_family != AF_UNSPEC)
		return -EBADMSG;
	if (tb[IFLA_LINKINFO])
		(void)nla_parse_nested(info, IFLA_INFO_MAX, tb[IFLA_LINKINFO], info_policy);
	*ret = (struct netlink_link){
		.ifindex = ifi->ifi_index,
		.up = ifi->ifi_flags & IFF_UP,
		.arp = !(ifi->ifi_flags & IFF_NOARP),
		.arptype = ifi->ifi_type,
		.mtu = tb[IFLA_MTU] ? nla_get_u32(tb[IFLA_MTU]) : 0,
		.master = tb[IFLA_MASTER] ? (int)nla_get_u32(tb[IFLA_MASTER]) : 0,
	};
	copy_string(ret->name, sizeof(ret->name), tb[IFLA_IFNAME]);
	copy_string(ret->kind, sizeof(ret->kind), info[IFLA_INFO_KIND]);
	return 0;
}

struct walk {
	netlink_link_fn *link;
	netlink_route_fn *route;
	netlink_chain_fn *chain;
	void *arg;
	int family;
	uint32_t table;
};

static int walk_link(void *arg, struct nlmsghdr *nlh)
{
	const struct walk *w = arg;
	struct netlink_link l;

	if (nlh->nlmsg_type != RTM_NEWLINK || link_parse(nlh, &l) < 0)
		return 0;
	return w->link(w->arg, &l);
}

int netlink_links(struct netlink *nl, netlink_link_fn *fn, void *arg)
{
	struct ifinfomsg ifi = { .ifi_family = AF_UNSPEC };
	struct walk w = { .link = fn, .arg = arg };
	struct nl_msg *msg = request_new(RTM_GETLINK, NLM_F_DUMP, &ifi, sizeof(ifi));

	if (!msg)
		return -ENOMEM;
	int r = exchange(nl->sk, msg, walk_link, &w);

	nlmsg_free(msg);
	return r;
}

static void route_oifs(struct netlink_route *r, struct nlattr *multipath)
{
	struct rtnexthop *nh = nla_data(multipath);
	int left = nla_len(multipath);

	while (RTNH_OK(nh, left) && r->n_oifs < NETLINK_OIFS_MAX) {
		r->oifs[r->n_oifs++] = nh->rtnh_ifindex;
		left -= RTNH_ALIGN(nh->rtnh_len);
		nh = RTNH_NEXT(nh);
	}
}

static int walk_route(void *arg, struct nlmsghdr *nlh)
{
	static const struct nla_policy policy[RTA_MAX + 1] = {
		[RTA_DST] = { .type = NLA_UNSPEC, .minlen = 4 },
		[RTA_OIF] = { .type = NLA_U32 },
		[RTA_PRIORITY] = { .type = NLA_U32 },
		[RTA_TABLE] = { .type = NLA_U32 },
		[RTA_MULTIPATH] = { .type = NLA_UNSPEC },
	};
	const struct walk *w = arg;
	const struct rtmsg *rtm = nlmsg_data(nlh);
	struct nlattr *tb[RTA_MAX + 1];
	struct netlink_route route = { 0 };
	size_t dst_len = rtm->rtm_family == AF_INET ? 4 : 16;

	if (nlh->nlmsg_type != RTM_NEWROUTE ||
	    nlmsg_parse(nlh, sizeof(*rtm), tb, RTA_MAX, policy) < 0)
		return 0;
	if (rtm->rtm_family != w->family || rtm->rtm_flags & RTM_F_CLONED ||
	    rtm->rtm_dst_len > dst_len * 8)
		return 0;
	route.table = tb[RTA_TABLE] ? nla_get_u32(tb[RTA_TABLE]) : rtm->rtm_table;
	if (w->table && route.table != w->table)
		return 0;
	if (tb[RTA_DST] && (size_t)nla_len(tb[RTA_DST]) < dst_len)
		return 0;
	if (rtm->rtm_family == AF_INET)
		route.dst = (struct prefix){ .addr = addr_from_v4(0), .len = V4_BITS };
	if (tb[RTA_DST])
		memcpy(route.dst.addr.b + 16 - dst_len, nla_data(tb[RTA_DST]), dst_len);
	route.dst.len += rtm->rtm_dst_len;
	route.type = rtm->rtm_type;
	route.protocol = rtm->rtm_protocol;
	route.priority = tb[RTA_PRIORITY] ? nla_get_u32(tb[RTA_PRIORITY]) : 0;
	if (tb[RTA_OIF])
		route.oifs[route.n_oifs++] = (int)nla_get_u32(tb[RTA_OIF]);
	else if (tb[RTA_MULTIPATH])
		route_oifs(&route, tb[RTA_MULTIPATH]);
	return w->route(w->arg, &route);
}

static int routes(struct netlink *nl, int family, uint32_t table, netlink_route_fn *fn, void *arg)
{
	struct rtmsg rtm = { .rtm_family = (unsigned char)family };
	struct walk w = { .route = fn, .arg = arg, .family = family, .table = table };
	struct nl_msg *msg = request_new(RTM_GETROUTE, NLM_F_DUMP, &rtm, sizeof(rtm));

	if (!msg)
		return -ENOMEM;
	if (table && nla_put_u32(msg, RTA_TABLE, table) < 0) {
		nlmsg_free(msg);
		return -ENOMEM;
	}
	int r = exchange(nl->sk, msg, walk_route, &w);

	nlmsg_free(msg);
	/* What a table that does not exist gives. */
	return table && r == -ENOENT ? 0 : r;
}

int netlink_routes(struct netlink *nl, uint32_t table, netlink_route_fn *fn, void *arg)
{
	return routes(nl, AF_INET, table, fn, arg);
}

int netlink_routes6(struct netlink *nl, uint32_t table, netlink_route_fn *fn, void *arg)
{
	int r = routes(nl, AF_INET6, table, fn, arg);

	return r == -EAFNOSUPPORT || r == -EOPNOTSUPP ? 0 : r;
}

static struct nl_addr *nl_addr_new(const struct addr *a)
{
	uint32_t be;

	if (!addr_is_v4(a))
		return nl_addr_build(AF_INET6, a->b, sizeof(a->b));
	be = addr_v4(a);
	return nl_addr_build(AF_INET, &be, sizeof(be));
}

static int local_route_new(const struct addr *a, struct rtnl_route **ret)
{
	struct rtnl_route *route = rtnl_route_alloc();
	struct rtnl_nexthop *nh = rtnl_route_nh_alloc();
	struct nl_addr *dst = nl_addr_new(a);
	bool fine = route && nh && dst;

	if (fine) {
		rtnl_route_set_family(route, (uint8_t)nl_addr_get_family(dst));
		rtnl_route_set_table(route, RT_TABLE_LOCAL);
		rtnl_route_set_type(route, RTN_LOCAL);
		rtnl_route_set_scope(route, RT_SCOPE_HOST);
		rtnl_route_set_protocol(route, NETLINK_PROTO_SLUICE);
		fine = rtnl_route_set_dst(route, dst) == 0;
		rtnl_route_nh_set_ifindex(nh, NETLINK_LO);
		rtnl_route_add_nexthop(route, nh);
		nh = NULL; /* the route owns it now */
	}
	nl_addr_put(dst);
	if (nh)
		rtnl_route_nh_free(nh);
	if (!fine) {
		rtnl_route_put(route);
		return -ENOMEM;
	}
	*ret = route;
	return 0;
}

static int local_route_request(struct netlink *nl, const struct addr *a, bool add)
{
	struct rtnl_route *route;
	struct nl_msg *msg;

	int r = local_route_new(a, &route);

	if (r < 0)
		return r;
	r = add ? rtnl_route_build_add_request(route, NLM_F_CREATE | NLM_F_EXCL, &msg)
		: rtnl_route_build_del_request(route, 0, &msg);
	rtnl_route_put(route);
	if (r < 0)
		return nle_errno(r);
	nlmsg_hdr(msg)->nlmsg_flags |= NLM_F_ACK;
	r = exchange(nl->sk, msg, NULL, NULL);
	nlmsg_free(msg);
	return r;
}

int netlink_local_add(struct netlink *nl, const struct addr *a)
{
	return local_route_request(nl, a, true);
}

int netlink_local_rm(struct netlink *nl, const struct addr *a)
{
	return local_route_request(nl, a, false);
}

struct way {
	struct addr src;
	int ifindex;
};

static int way_parse(void *arg, struct nlmsghdr *nlh)
{
	static const struct nla_policy policy[RTA_MAX + 1] = {
		[RTA_OIF] = { .type = NLA_U32 },
		[RTA_PREFSRC] = { .type = NLA_UNSPEC, .minlen = 4 },
	};
	struct way *way = arg;
	struct nlattr *tb[RTA_MAX + 1];
	uint32_t src;

	if (nlh->nlmsg_type != RTM_NEWROUTE ||
	    nlmsg_parse(nlh, sizeof(struct rtmsg), tb, RTA_MAX, policy) < 0)
		return 0;
	if (tb[RTA_OIF])
		way->ifindex = (int)nla_get_u32(tb[RTA_OIF]);
	if (tb[RTA_PREFSRC]) {
		memcpy(&src, nla_data(tb[RTA_PREFSRC]), sizeof(src));
		way->src = addr_from_v4(src);
	}
	return 0;
}

int netlink_route_get(struct netlink *nl, const struct addr *dst, struct addr *ret_src,
		      int *ret_ifindex)
{
	struct rtmsg rtm = { .rtm_family = AF_INET, .rtm_dst_len = 32 };
	struct way way = { .ifindex = 0 };
	struct nl_msg *msg;

	if (!addr_is_v4(dst))
		return -EAFNOSUPPORT;
	msg = request_new(RTM_GETROUTE, NLM_F_ACK, &rtm, sizeof(rtm));
	if (!msg || nla_put_u32(msg, RTA_DST, addr_v4(dst)) < 0) {
		nlmsg_free(msg);
		return -ENOMEM;
	}
	int r = exchange(nl->sk, msg, way_parse, &way);

	nlmsg_free(msg);
	if (r < 0)
		return r;
	if (!way.ifindex || !addr_is_v4(&way.src))
		return -EADDRNOTAVAIL;
	*ret_src = way.src;
	*ret_ifindex = way.ifindex;
	return 0;
}

static const char *chain_family(uint8_t family)
{
	switch (family) {
	case NFPROTO_IPV4:
		return "ip";
	case NFPROTO_IPV6:
		return "ip6";
	case NFPROTO_INET:
		return "inet";
	default:
		return NULL;
	}
}

static int walk_chain(void *arg, struct nlmsghdr *nlh)
{
	static const struct nla_policy policy[NFTA_CHAIN_MAX + 1] = {
		[NFTA_CHAIN_TABLE] = { .type = NLA_STRING },
		[NFTA_CHAIN_NAME] = { .type = NLA_STRING },
		[NFTA_CHAIN_TYPE] = { .type = NLA_STRING },
		[NFTA_CHAIN_HOOK] = { .type = NLA_NESTED },
	};
	static const struct nla_policy hook_policy[NFTA_HOOK_MAX + 1] = {
		[NFTA_HOOK_HOOKNUM] = { .type = NLA_U32 },
	};
	const struct walk *w = arg;
	const struct nfgenmsg *nfg = nlmsg_data(nlh);
	struct nlattr *tb[NFTA_CHAIN_MAX + 1], *hook[NFTA_HOOK_MAX + 1];

	if (nlmsg_parse(nlh, sizeof(*nfg), tb, NFTA_CHAIN_MAX, policy) < 0)
		return 0;
	if (!tb[NFTA_CHAIN_TABLE] || !tb[NFTA_CHAIN_NAME] || !tb[NFTA_CHAIN_TYPE] ||
	    !tb[NFTA_CHAIN_HOOK] || strcmp(nla_get_string(tb[NFTA_CHAIN_TYPE]), "nat") ||
	    nla_parse_nested(hook, NFTA_HOOK_MAX, tb[NFTA_CHAIN_HOOK], hook_policy) < 0 ||
	    !hook[NFTA_HOOK_HOOKNUM] || !chain_family(nfg->nfgen_family))
		return 0;
	struct netlink_chain c = {
		.family = chain_family(nfg->nfgen_family),
		.table = nla_get_string(tb[NFTA_CHAIN_TABLE]),
		.name = nla_get_string(tb[NFTA_CHAIN_NAME]),
		.hook = ntohl(nla_get_u32(hook[NFTA_HOOK_HOOKNUM])),
	};

	return w->chain(w->arg, &c);
}

int netlink_nat_chains(netlink_chain_fn *fn, void *arg)
{
	struct nfgenmsg nfg = { .nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0 };
	struct walk w = { .chain = fn, .arg = arg };
	struct nl_msg *msg = NULL;
	struct nl_sock *sk = NULL;
	int r = socket_open(NETLINK_NETFILTER, &sk);

	if (r < 0)
		return r;
	msg = request_new(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN, NLM_F_DUMP, &nfg,
			  sizeof(nfg));
	r = msg ? exchange(sk, msg, walk_chain, &w) : -ENOMEM;
	nlmsg_free(msg);
	nl_socket_free(sk);
	return r;
}

int netlink_monitor_open(struct netlink_monitor **ret)
{
	struct netlink_monitor *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	int r = socket_open(NETLINK_ROUTE, &m->sk);

	if (r < 0) {
		free(m);
		return r;
	}
	r = nl_socket_add_membership(m->sk, RTNLGRP_LINK);
	if (r < 0) {
		netlink_monitor_close(m);
		return nle_errno(r);
	}
	*ret = m;
	return 0;
}

void netlink_monitor_close(struct netlink_monitor *m)
{
	if (!m)
		return;
	nl_socket_free(m->sk);
	free(m);
}

int netlink_monitor_fd(const struct netlink_monitor *m)
{
	return nl_socket_get_fd(m->sk);
}

/* Fill the buffer. Returns 1, 0 when there is nothing to read, -ENOBUFS when something was lost, -errno. */
static int monitor_fill(struct netlink_monitor *m)
{
	struct sockaddr_nl from = { 0 };
	struct iovec iov = { m->buf, sizeof(m->buf) };
	struct msghdr mh = {
		.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1
	};
	ssize_t n = recvmsg(netlink_monitor_fd(m), &mh, MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (mh.msg_flags & MSG_TRUNC)
		return -ENOBUFS;
	/* Any process may send to a netlink socket; only the kernel is listened to. */
	m->len = from.nl_pid == 0 ? (int)n : 0;
	m->next = (struct nlmsghdr *)m->buf;
	return 1;
}

int netlink_monitor_read(struct netlink_monitor *m, enum netlink_event *ret_event,
			 struct netlink_link *ret_link)
{
	for (;;) {
		while (m->next && nlmsg_ok(m->next, m->len)) {
			struct nlmsghdr *nlh = m->next;

			m->next = nlmsg_next(nlh, &m->len);
			if (nlh->nlmsg_type != RTM_NEWLINK && nlh->nlmsg_type != RTM_DELLINK)
				continue;
			if (link_parse(nlh, ret_link) < 0)
				continue;
			*ret_event = nlh->nlmsg_type == RTM_NEWLINK ? NETLINK_LINK_NEW
								    : NETLINK_LINK_DEL;
			return 1;
		}
		m->next = NULL;
		int r = monitor_fill(m);

		if (r == -ENOBUFS) {
			*ret_event = NETLINK_LOST;
			return 1;
		}
		if (r <= 0)
			return r;
	}
}
