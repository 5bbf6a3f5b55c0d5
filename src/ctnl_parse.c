// SPDX-License-Identifier: BSD-2-Clause
/*
 * Messages of ctnetlink: see net/netfilter/nf_conntrack_netlink.c of the kernel. libnetfilter_conntrack writes the requests. Answers and events are taken apart here, over libmnl, since that
 * library's parser takes a message that it does not like for a broken kernel and ends the process (abi_breakage()), and allocates some hundred bytes for each.
 */
#include "ctnl_private.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include <libmnl/libmnl.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack.h>

/* Reading */

/* Attributes by type. Of two the last one counts; those beyond max are none of ours. */
static void attrs_index(const void *at, size_t len, const struct nlattr **tb, unsigned max)
{
	const struct nlattr *a;

	memset(tb, 0, (max + 1) * sizeof(*tb));
	for (a = at; mnl_attr_ok(a, (int)((const char *)at + len - (const char *)a));
	     a = mnl_attr_next(a)) {
		if (mnl_attr_get_type(a) <= max)
			tb[mnl_attr_get_type(a)] = a;
	}
}

static void nest_index(const struct nlattr *nest, const struct nlattr **tb, unsigned max)
{
	attrs_index(mnl_attr_get_payload(nest), mnl_attr_get_payload_len(nest), tb, max);
}

/* The value of an attribute that is there and has this very size. */
static bool attr_get(const struct nlattr *a, void *ret, size_t size)
{
	if (!a || mnl_attr_get_payload_len(a) != size)
		return false;
	memcpy(ret, mnl_attr_get_payload(a), size);
	return true;
}

static bool attr_be16(const struct nlattr *a, uint16_t *ret)
{
	uint16_t be;

	if (!attr_get(a, &be, sizeof(be)))
		return false;
	*ret = ntohs(be);
	return true;
}

static bool attr_be32(const struct nlattr *a, uint32_t *ret)
{
	uint32_t be;

	if (!attr_get(a, &be, sizeof(be)))
		return false;
	*ret = ntohl(be);
	return true;
}

static bool attr_addr(const struct nlattr *const *ip, int family, unsigned v4, unsigned v6,
		      struct addr *ret)
{
	uint32_t be;

	if (family == AF_INET6)
		return attr_get(ip[v6], ret->b, sizeof(ret->b));
	if (!attr_get(ip[v4], &be, sizeof(be)))
		return false;
	*ret = addr_from_v4(be);
	return true;
}

/* One direction, and the zone if it is this direction's own. */
static int tuple_get(const struct nlattr *nest, int family, struct ct_tuple *ret,
		     enum sluice_l4 *ret_l4, uint16_t *ret_zone)
{
	const struct nlattr *tb[CTA_TUPLE_MAX + 1], *ip[CTA_IP_MAX + 1], *proto[CTA_PROTO_MAX + 1];
	uint8_t num;

	if (!nest)
		return -EBADMSG;
	nest_index(nest, tb, CTA_TUPLE_MAX);
	if (!tb[CTA_TUPLE_IP] || !tb[CTA_TUPLE_PROTO])
		return -EBADMSG;
	nest_index(tb[CTA_TUPLE_IP], ip, CTA_IP_MAX);
	nest_index(tb[CTA_TUPLE_PROTO], proto, CTA_PROTO_MAX);
	if (!attr_get(proto[CTA_PROTO_NUM], &num, sizeof(num)))
		return -EBADMSG;
	if (num != IPPROTO_TCP && num != IPPROTO_UDP)
		return -ENOMSG;
	*ret_l4 = num == IPPROTO_TCP ? SLUICE_TCP : SLUICE_UDP;
	if (!attr_addr(ip, family, CTA_IP_V4_SRC, CTA_IP_V6_SRC, &ret->src) ||
	    !attr_addr(ip, family, CTA_IP_V4_DST, CTA_IP_V6_DST, &ret->dst) ||
	    !attr_be16(proto[CTA_PROTO_SRC_PORT], &ret->sport) ||
	    !attr_be16(proto[CTA_PROTO_DST_PORT], &ret->dport))
		return -EBADMSG;
	if (tb[CTA_TUPLE_ZONE] && !attr_be16(tb[CTA_TUPLE_ZONE], ret_zone))
		return -EBADMSG;
	return 0;
}

static int entry_get(const struct nlattr *const *tb, int family, struct ct_entry *ret)
{
	uint16_t orig_zone = 0, reply_zone = 0;
	struct ct_entry e = { 0 };
	enum sluice_l4 reply_l4;
	int r;

	r = tuple_get(tb[CTA_TUPLE_ORIG], family, &e.orig, &e.l4, &orig_zone);
	if (!r)
		r = tuple_get(tb[CTA_TUPLE_REPLY], family, &e.reply, &reply_l4, &reply_zone);
	if (r)
		return r;
	/* A zone may hold for one direction only; then it is told with that direction's tuple. */
	e.zone = orig_zone ? orig_zone : reply_zone;
	if (e.l4 != reply_l4 || (tb[CTA_ZONE] && !attr_be16(tb[CTA_ZONE], &e.zone)) ||
	    (tb[CTA_STATUS] && !attr_be32(tb[CTA_STATUS], &e.status)) ||
	    (tb[CTA_ID] && !attr_be32(tb[CTA_ID], &e.id)))
		return -EBADMSG;
	/* What is destroyed is told without its helper, but the bit is there if a rule gave it the helper. */
	e.helper = tb[CTA_HELP] || e.status & (IPS_EXPECTED | IPS_HELPER);
	*ret = e;
	return 0;
}

int ctnl_parse(const struct nlmsghdr *nlh, enum ct_verb *ret_verb, struct ct_entry *ret)
{
	const struct nlattr *tb[CTA_MAX + 1];
	const struct nfgenmsg *nfg;
	enum ct_verb verb;
	int r;

	if (nlh->nlmsg_type == (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW))
		verb = CT_NEW;
	else if (nlh->nlmsg_type == (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE))
		verb = CT_GONE;
	else
		return -ENOMSG;
	if (nlh->nlmsg_len < MNL_NLMSG_HDRLEN + sizeof(*nfg))
		return -EBADMSG;
	nfg = mnl_nlmsg_get_payload(nlh);
	if (nfg->nfgen_family != AF_INET && nfg->nfgen_family != AF_INET6)
		return -ENOMSG;
	attrs_index(nfg + 1, nlh->nlmsg_len - MNL_NLMSG_HDRLEN - sizeof(*nfg), tb, CTA_MAX);
	r = entry_get(tb, nfg->nfgen_family, ret);
	if (!r)
		*ret_verb = verb;
	return r;
}

/* Writing */

static void ct_cleanup(struct nf_conntrack **ct)
{
	if (*ct)
		nfct_destroy(*ct);
}

/* Where the library keeps one direction of an entry. */
struct side {
	enum nf_conntrack_attr_grp v4, v6, ports;
};

static const struct side orig_side = { ATTR_GRP_ORIG_IPV4, ATTR_GRP_ORIG_IPV6, ATTR_GRP_ORIG_PORT };
static const struct side reply_side = { ATTR_GRP_REPL_IPV4, ATTR_GRP_REPL_IPV6,
					ATTR_GRP_REPL_PORT };

static void tuple_set(struct nf_conntrack *ct, const struct side *side, const struct ct_tuple *t)
{
	struct nfct_attr_grp_port ports = { .sport = htons(t->sport), .dport = htons(t->dport) };
	struct nfct_attr_grp_ipv4 v4;
	struct nfct_attr_grp_ipv6 v6;

	if (addr_is_v4(&t->src)) {
		v4 = (struct nfct_attr_grp_ipv4){ .src = addr_v4(&t->src),
						  .dst = addr_v4(&t->dst) };
		nfct_set_attr_grp(ct, side->v4, &v4);
	} else {
		memcpy(v6.src, t->src.b, sizeof(v6.src));
		memcpy(v6.dst, t->dst.b, sizeof(v6.dst));
		nfct_set_attr_grp(ct, side->v6, &v6);
	}
	nfct_set_attr_grp(ct, side->ports, &ports);
}

static struct nlmsghdr *request_begin(char *buf, uint16_t type, uint16_t flags, uint32_t seq,
				      uint8_t family)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct nfgenmsg *nfg;

	nlh->nlmsg_type = (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | type);
	nlh->nlmsg_flags = NLM_F_REQUEST | flags;
	nlh->nlmsg_seq = seq;
	nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));
	nfg->nfgen_family = family;
	nfg->version = NFNETLINK_V0;
	return nlh;
}

int ctnl_build(char *buf, const struct ctnl_ask *a)
{
	const struct ct_tuple *t = a->tuple;
	uint8_t family = t ? addr_is_v4(&t->src) ? AF_INET : AF_INET6 : AF_UNSPEC;
	uint8_t proto = a->l4 == SLUICE_TCP ? IPPROTO_TCP : IPPROTO_UDP;
	struct nlmsghdr *nlh = request_begin(buf, a->type, a->flags, a->seq, family);
	__attribute__((cleanup(ct_cleanup))) struct nf_conntrack *ct = NULL;

	if (!t)
		return 0;
	assert(a->l4 == SLUICE_TCP || a->l4 == SLUICE_UDP);
	assert(addr_is_v4(&t->src) == addr_is_v4(&t->dst));
	ct = nfct_new();
	if (!ct)
		return -ENOMEM;
	nfct_set_attr_u8(ct, ATTR_ORIG_L3PROTO, family);
	nfct_set_attr_u8(ct, ATTR_ORIG_L4PROTO, proto);
	tuple_set(ct, &orig_side, t);
	if (a->reply) {
		nfct_set_attr_u8(ct, ATTR_REPL_L3PROTO, family);
		nfct_set_attr_u8(ct, ATTR_REPL_L4PROTO, proto);
		tuple_set(ct, &reply_side, a->reply);
	}
	if (a->zone)
		nfct_set_attr_u16(ct, ATTR_ZONE, a->zone);
	if (a->timeout_s)
		nfct_set_attr_u32(ct, ATTR_TIMEOUT, a->timeout_s);
	if (nfct_nlmsg_build(nlh, ct))
		return -EINVAL;
	/* The library has no way to write it. */
	if (a->id)
		mnl_attr_put_u32(nlh, CTA_ID, htonl(a->id));
	return 0;
}

int ctnl_build_dump(char *buf, uint32_t seq)
{
	struct nlmsghdr *nlh = request_begin(buf, IPCTNL_MSG_CT_GET, NLM_F_DUMP, seq, AF_UNSPEC);
	/* Named for marks, used for both. */
	struct nfct_filter_dump_mark status = { .val = IPS_SRC_NAT, .mask = IPS_SRC_NAT };
	struct nfct_filter_dump *filter = nfct_filter_dump_create();
	int r;

	if (!filter)
		return -ENOMEM;
	nfct_filter_dump_set_attr(filter, NFCT_FILTER_DUMP_STATUS, &status);
	r = nfct_nlmsg_build_filter(nlh, filter);
	nfct_filter_dump_destroy(filter);
	return r ? -EINVAL : 0;
}
