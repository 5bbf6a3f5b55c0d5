/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages of ctnetlink made by hand, byte by byte as the kernel lays them out, and wrong where a test wants it so. No library is asked. */
#ifndef CTNL_MSG_H
#define CTNL_MSG_H

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define MSG_ROOM 1024

struct msg {
	union {
		struct nlmsghdr h;
		uint8_t b[MSG_ROOM];
	};
};

/* What a message is about; 0 and false leave things out. */
struct msg_spec {
	uint16_t type;  /* IPCTNL_MSG_CT_* */
	uint16_t flags; /* NLM_F_* */
	uint32_t seq;
	uint8_t family, proto;
	const char *src, *dst, *reply_src, *reply_dst;
	uint16_t sport, dport, reply_sport, reply_dport;
	uint32_t status, id;
	uint16_t zone, orig_zone, reply_zone;
	const char *helper;
	bool no_orig, no_reply, no_ip, no_proto, no_ports, no_status;
};

static inline void *msg_put(struct msg *m, uint16_t type, const void *data, size_t len)
{
	struct nlattr a = { .nla_len = (uint16_t)(NLA_HDRLEN + len), .nla_type = type };
	uint8_t *at = m->b + NLMSG_ALIGN(m->h.nlmsg_len);

	if ((size_t)(at - m->b) + NLA_HDRLEN + NLA_ALIGN(len) > MSG_ROOM)
		abort();
	memcpy(at, &a, sizeof(a));
	if (len)
		memcpy(at + NLA_HDRLEN, data, len);
	m->h.nlmsg_len = (uint32_t)(at - m->b) + NLA_HDRLEN + (uint32_t)NLA_ALIGN(len);
	return at;
}

static inline void *msg_nest(struct msg *m, uint16_t type)
{
	return msg_put(m, type | NLA_F_NESTED, NULL, 0);
}

static inline void msg_unnest(struct msg *m, void *nest)
{
	uint16_t len = (uint16_t)(m->b + m->h.nlmsg_len - (uint8_t *)nest);

	memcpy(nest, &len, sizeof(len));
}

static inline void msg_be16(struct msg *m, uint16_t type, uint16_t v)
{
	v = htons(v);
	msg_put(m, type, &v, sizeof(v));
}

static inline void msg_be32(struct msg *m, uint16_t type, uint32_t v)
{
	v = htonl(v);
	msg_put(m, type, &v, sizeof(v));
}

static inline void msg_addr(struct msg *m, const struct msg_spec *s, uint16_t type,
			    const char *text)
{
	uint8_t a[16] = { 0 };

	if (!text)
		return;
	if (inet_pton(s->family == AF_INET6 ? AF_INET6 : AF_INET, text, a) != 1)
		abort();
	if (s->family == AF_INET6)
		type = type == CTA_IP_V4_SRC ? CTA_IP_V6_SRC : CTA_IP_V6_DST;
	msg_put(m, type, a, s->family == AF_INET6 ? 16 : 4);
}

static inline void msg_tuple(struct msg *m, const struct msg_spec *s, bool reply)
{
	void *tuple = msg_nest(m, reply ? CTA_TUPLE_REPLY : CTA_TUPLE_ORIG), *nest;
	uint16_t zone = reply ? s->reply_zone : s->orig_zone;

	if (!s->no_ip) {
		nest = msg_nest(m, CTA_TUPLE_IP);
		msg_addr(m, s, CTA_IP_V4_SRC, reply ? s->reply_src : s->src);
		msg_addr(m, s, CTA_IP_V4_DST, reply ? s->reply_dst : s->dst);
		msg_unnest(m, nest);
	}
	if (!s->no_proto) {
		nest = msg_nest(m, CTA_TUPLE_PROTO);
		msg_put(m, CTA_PROTO_NUM, &s->proto, 1);
		if (!s->no_ports) {
			msg_be16(m, CTA_PROTO_SRC_PORT, reply ? s->reply_sport : s->sport);
			msg_be16(m, CTA_PROTO_DST_PORT, reply ? s->reply_dport : s->dport);
		}
		msg_unnest(m, nest);
	}
	if (zone)
		msg_be16(m, CTA_TUPLE_ZONE, zone);
	msg_unnest(m, tuple);
}

static inline struct msg msg_make(const struct msg_spec *s)
{
	struct msg m = { .h = {
				 .nlmsg_len = NLMSG_HDRLEN + sizeof(struct nfgenmsg),
				 .nlmsg_type = (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | s->type),
				 .nlmsg_flags = s->flags,
				 .nlmsg_seq = s->seq,
			 } };
	void *nest;

	m.b[NLMSG_HDRLEN] = s->family;
	if (!s->no_orig)
		msg_tuple(&m, s, false);
	if (!s->no_reply)
		msg_tuple(&m, s, true);
	if (s->zone)
		msg_be16(&m, CTA_ZONE, s->zone);
	if (s->id)
		msg_be32(&m, CTA_ID, s->id);
	if (!s->no_status)
		msg_be32(&m, CTA_STATUS, s->status);
	msg_be32(&m, CTA_TIMEOUT, 120);
	if (s->helper) {
		nest = msg_nest(&m, CTA_HELP);
		msg_put(&m, CTA_HELP_NAME, s->helper, strlen(s->helper) + 1);
		msg_unnest(&m, nest);
	}
	return m;
}

#endif
