/* SPDX-License-Identifier: BSD-2-Clause */
/* ctnetlink, as little of it as a fact needs, and written out by hand: no library is under test. */
#ifndef FACT_CT_H
#define FACT_CT_H

#include "fact.h"

#include <linux/filter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif

#define FACT_SHARED "203.0.113.7"
#define FACT_CLIENT "10.9.0.2"
#define FACT_ORIGIN "192.0.2.2"

/*
 * A namespace in which what 10.9.0.0/24 sends over the loopback is translated to the shared address. False, after saying so, when there is no nft command.
 */
static inline bool fact_ct_init(const char *name)
{
	if (geteuid() == 0 && system("nft --version >/dev/null 2>&1")) {
		fact_skip(name, "there is no nft command");
		return false;
	}
	fact_init();
	fact_sh("ip addr add " FACT_SHARED " dev lo && ip addr add " FACT_CLIENT " dev lo && "
		"ip addr add " FACT_ORIGIN " dev lo");
	fact_sh("nft 'table ip nat { chain post { type nat hook postrouting priority srcnat; "
		"ip saddr 10.9.0.0/24 snat to " FACT_SHARED "; }; }'");
	return true;
}

/* A datagram from this address and port to the origin: a connection. Somebody should listen there, or an answer comes. */
static inline void fact_ct_flow(const char *ip, uint16_t port)
{
	int fd = fact_socket(SOCK_DGRAM, ip, port);

	MUST(fact_connect(fd, FACT_ORIGIN, 9));
	MUST((int)send(fd, "x", 1, 0));
	close(fd);
}

/* Bound, to be told from the kernel: a broadcast passes over its sender, whose number is 0. */
static inline int fact_ct_open(void)
{
	struct sockaddr_nl self = { .nl_family = AF_NETLINK };
	int fd = MUST(
		socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER));

	MUST(bind(fd, (struct sockaddr *)&self, sizeof(self)));
	return fd;
}

static inline void fact_ct_join(int fd, int group)
{
	MUST(setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)));
}

/* One message with attributes. */
struct fact_ct_msg {
	struct nlmsghdr h;
	struct nfgenmsg g;
	uint8_t attrs[32768];
};

/* An attribute; NULL: it has none. */
static inline const void *fact_ct_attr(const void *at, size_t len, uint16_t type)
{
	const uint8_t *p = at;
	struct nlattr a;

	while (len >= sizeof(a)) {
		memcpy(&a, p, sizeof(a));
		if (a.nla_len < sizeof(a) || a.nla_len > len)
			break;
		if ((a.nla_type & NLA_TYPE_MASK) == type)
			return p;
		if ((size_t)NLA_ALIGN(a.nla_len) >= len)
			break;
		p += NLA_ALIGN(a.nla_len);
		len -= NLA_ALIGN(a.nla_len);
	}
	return NULL;
}

static inline const void *fact_ct_inside(const void *nest, uint16_t type)
{
	struct nlattr a;

	if (!nest)
		return NULL;
	memcpy(&a, nest, sizeof(a));
	return fact_ct_attr((const uint8_t *)nest + sizeof(a), a.nla_len - sizeof(a), type);
}

/* What a message says. A port that it does not tell is 0; a status, -1. */
struct fact_ct {
	uint16_t type, sport, wire;
	int64_t status;
};

static inline struct fact_ct fact_ct_read(const struct fact_ct_msg *m, size_t len)
{
	size_t n = len - offsetof(struct fact_ct_msg, attrs);
	const uint8_t *orig =
		fact_ct_inside(fact_ct_attr(m->attrs, n, CTA_TUPLE_ORIG), CTA_TUPLE_PROTO);
	const uint8_t *reply =
		fact_ct_inside(fact_ct_attr(m->attrs, n, CTA_TUPLE_REPLY), CTA_TUPLE_PROTO);
	const uint8_t *sport = fact_ct_inside(orig, CTA_PROTO_SRC_PORT);
	const uint8_t *wire = fact_ct_inside(reply, CTA_PROTO_DST_PORT);
	const uint8_t *status = fact_ct_attr(m->attrs, n, CTA_STATUS);
	struct fact_ct c = { .type = m->h.nlmsg_type & 0xff, .status = -1 };

	if (sport)
		c.sport = (uint16_t)(sport[4] << 8 | sport[5]);
	if (wire)
		c.wire = (uint16_t)(wire[4] << 8 | wire[5]);
	if (status)
		c.status = (int64_t)status[4] << 24 | status[5] << 16 | status[6] << 8 | status[7];
	return c;
}

/* The next event; false when there is none, with errno. Events are there when the call that caused them returns. */
static inline bool fact_ct_next(int fd, struct fact_ct *ret)
{
	static struct fact_ct_msg m;
	ssize_t got = recv(fd, &m, sizeof(m), 0);

	if (got < (ssize_t)offsetof(struct fact_ct_msg, attrs))
		return false;
	*ret = fact_ct_read(&m, (size_t)got);
	return true;
}

#endif
