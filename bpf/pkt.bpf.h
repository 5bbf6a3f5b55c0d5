/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Parsing: one struct pkt, filled once, from packet pointers that TC and XDP both have. Nothing is decided here; what is
 * wrong with a packet is noted in bad, and acted on only where the packet turns out to be ours to judge.
 */
#ifndef PKT_BPF_H
#define PKT_BPF_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>

#include "sluice_abi.h"

#define NOT_BAD 0xff

/* RFC 791, of the fragment field. */
#define IP_DONT   0x4000 /* don't fragment */
#define IP_MF     0x2000
#define IP_OFFSET 0x1fff

/* RFC 792. <linux/icmp.h> has it too, but with it the C library's socket headers. */
struct icmp_hdr {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be16 id;
	__be16 sequence;
};

enum icmp_type {
	ICMP_ECHO_REPLY = 0,
	ICMP_UNREACHABLE = 3,
	ICMP_SOURCE_QUENCH = 4,
	ICMP_ECHO = 8,
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETER_PROBLEM = 12,
};

/* RFC 4443, RFC 4861. */
enum icmp6_type {
	ICMP6_UNREACHABLE = 1,
	ICMP6_PARAMETER_PROBLEM = 4,
	ICMP6_ECHO = 128,
	ICMP6_ECHO_REPLY = 129,
	ICMP6_ND_FIRST = 133, /* router solicitation */
	ICMP6_ND_LAST = 137,  /* redirect */
};
#define ND_HOP_LIMIT \
	255 /* RFC 4861: what has passed a router is not of this link, and nobody listens to it */

enum pkt_kind {
	PKT_DATA,       /* TCP, UDP */
	PKT_ECHO,       /* ICMP echo request */
	PKT_ECHO_REPLY, /* ICMP echo reply */
	PKT_ICMP_ERROR,
	PKT_ND, /* neighbour discovery: the machine's own business */
};

/* Which piece of a datagram? Only the first has ports. */
enum pkt_frag {
	FRAG_NONE,
	FRAG_FIRST,
	FRAG_LATER,
};

/* CLOCK_BOOTTIME, read once for each packet that is ours to judge. */
struct now {
	__u64 ns;
	__u32 s;
};

struct pkt {
	union sluice_addr src;
	union sluice_addr dst;
	__be16 sport; /* ICMP echo request: the query id; reply: 0 */
	__be16 dport; /* ICMP echo reply: the query id; request: 0 */
	__be16 moved; /* guard: the port that the socket's flow was moved to */
	__u16 l3_off;
	__u16 l4_off;
	__u32 len;
	struct now now;
	__u8 proto; /* IPPROTO_; of an ICMP error that arrived: that of the packet it quotes (icmp.bpf.h) */
	__u8 l4; /* enum sluice_l4 */
	__u8 kind;
	__u8 tcp; /* flags byte */
	__u8 bad; /* enum sluice_reason, or NOT_BAD */
	bool v6;
	__u8 frag; /* enum pkt_frag */
	bool frag_more;
	bool df; /* IPv4: no fragment, and never to be one: its identification means nothing (RFC 6864) */
	__u16 frag_at;  /* bytes of the datagram before this piece */
	__u16 frag_len; /* and in it */
	__u16 frag_hdr; /* IPv6: where the fragment header is */
	__be32 frag_id; /* IPv4: of every packet, in the first two bytes, which are the lower address */
	__u32 tcp_seq; /* host order */
	__u32 tcp_ack;
	__u16 tcp_wnd; /* as it stands there, not scaled */
};

enum parse_result {
	PARSE_OK,
	PARSE_SHORT,  /* more of the packet must be made linear */
	PARSE_NOT_IP, /* nothing of ours, or too short to have addresses */
};

/* IEEE 802.1Q, behind the addresses and the type of the outer header. */
struct vlan_tag {
	__be16 tci;
	__be16 type;
};
#define VLAN_TAGS_MAX 2

/* IPv6 extension headers that are walked, hop-by-hop and destination options: so many, and so many bytes together. */
#define EXT_MAX     4
#define EXT_LEN_MAX 128
#define EXT_UNIT    8

/* RFC 8200 4.5. The others are alike in the first two bytes. */
struct frag_hdr {
	__u8 next;
	__u8 reserved; /* others: the length in units of eight bytes, beyond the first */
	__be16 off;    /* in units of eight bytes in the upper 13 bits; the lowest: more follow */
	__be32 id;
};

/* The longest headers: IPv6's. */
#define PULL_LEN                                                                       \
	(ETH_HLEN + VLAN_TAGS_MAX * sizeof(struct vlan_tag) + sizeof(struct ipv6hdr) + \
	 EXT_LEN_MAX + 20)

static __always_inline void addr_set_v4(union sluice_addr *a, __be32 v4)
{
	a->d[0] = 0;
	a->w[2] = bpf_htonl(0xffff);
	a->w[3] = v4;
}

static __always_inline bool addr_is_v4(const union sluice_addr *a)
{
	return !a->d[0] && a->w[2] == bpf_htonl(0xffff);
}

static __always_inline bool addr_eq(const union sluice_addr *a, const union sluice_addr *b)
{
	return a->d[0] == b->d[0] && a->d[1] == b->d[1];
}

static __always_inline bool tcp_opens(const struct pkt *p)
{
	return (p->tcp & (SLUICE_TCP_SYN | SLUICE_TCP_ACK)) == SLUICE_TCP_SYN;
}

static __always_inline int l4_index(__u8 proto)
{
	switch (proto) {
	case IPPROTO_TCP:
		return SLUICE_TCP;
	case IPPROTO_UDP:
		return SLUICE_UDP;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return SLUICE_ICMP;
	}
	return -1;
}

static __always_inline int parse_icmp6(void *l4, void *end, __u32 l4_len, __u8 hop_limit,
				       struct pkt *p)
{
	struct icmp_hdr *icmp = l4;

	if (l4_len < sizeof(*icmp)) {
		p->bad = SLUICE_DROP_malformed;
		return PARSE_OK;
	}
	if ((void *)(icmp + 1) > end)
		return PARSE_SHORT;
	if (icmp->type >= ICMP6_UNREACHABLE && icmp->type <= ICMP6_PARAMETER_PROBLEM) {
		p->kind = PKT_ICMP_ERROR;
		return PARSE_OK;
	}
	if (icmp->type == ICMP6_ECHO || icmp->type == ICMP6_ECHO_REPLY) {
		if (icmp->code)
			p->bad = SLUICE_DROP_malformed;
		p->kind = icmp->type == ICMP6_ECHO ? PKT_ECHO : PKT_ECHO_REPLY;
		if (p->kind == PKT_ECHO)
			p->sport = icmp->id;
		else
			p->dport = icmp->id;
		return PARSE_OK;
	}
	if (icmp->type >= ICMP6_ND_FIRST && icmp->type <= ICMP6_ND_LAST &&
	    hop_limit == ND_HOP_LIMIT)
		p->kind = PKT_ND;
	else
		p->bad = SLUICE_DROP_icmp_type;
	return PARSE_OK;
}

static __always_inline int parse_l4(void *l4, void *end, __u32 l4_len, struct pkt *p)
{
	switch (p->proto) {
	case IPPROTO_TCP: {
		struct tcphdr *tcp = l4;
		__u8 flags;

		if (l4_len < sizeof(*tcp))
			goto malformed;
		if ((void *)(tcp + 1) > end)
			return PARSE_SHORT;
		flags = ((__u8 *)tcp)[13];
		p->sport = tcp->source;
		p->dport = tcp->dest;
		p->tcp_seq = bpf_ntohl(tcp->seq);
		p->tcp_ack = bpf_ntohl(tcp->ack_seq);
		p->tcp_wnd = bpf_ntohs(tcp->window);
		p->tcp =
			flags & (SLUICE_TCP_FIN | SLUICE_TCP_SYN | SLUICE_TCP_RST | SLUICE_TCP_ACK);
		if (tcp->doff * 4 < sizeof(*tcp) || tcp->doff * 4 > l4_len)
			goto malformed;
		/* No sequence of RFC 9293 has them together, nor none of them at all. Port 0 is nobody's. */
		if (!p->tcp || !tcp->source || !tcp->dest ||
		    ((flags & SLUICE_TCP_SYN) && (flags & (SLUICE_TCP_FIN | SLUICE_TCP_RST))))
			goto malformed;
		return PARSE_OK;
	}
	case IPPROTO_UDP: {
		struct udphdr *udp = l4;

		if (l4_len < sizeof(*udp))
			goto malformed;
		if ((void *)(udp + 1) > end)
			return PARSE_SHORT;
		p->sport = udp->source;
		p->dport = udp->dest;
		if (bpf_ntohs(udp->len) < sizeof(*udp) ||
		    (bpf_ntohs(udp->len) > l4_len && p->frag != FRAG_FIRST) || !udp->source ||
		    !udp->dest)
			goto malformed;
		return PARSE_OK;
	}
	case IPPROTO_ICMP: {
		struct icmp_hdr *icmp = l4;

		if (p->v6) {
			p->bad = SLUICE_DROP_proto;
			return PARSE_OK;
		}
		if (l4_len < sizeof(*icmp))
			goto malformed;
		if ((void *)(icmp + 1) > end)
			return PARSE_SHORT;
		switch (icmp->type) {
		case ICMP_ECHO:
			p->kind = PKT_ECHO;
			p->sport = icmp->id;
			if (icmp->code)
				goto malformed;
			return PARSE_OK;
		case ICMP_ECHO_REPLY:
			p->kind = PKT_ECHO_REPLY;
			p->dport = icmp->id;
			if (icmp->code)
				goto malformed;
			return PARSE_OK;
		case ICMP_UNREACHABLE:
		case ICMP_TIME_EXCEEDED:
		case ICMP_PARAMETER_PROBLEM:
		case ICMP_SOURCE_QUENCH:
			p->kind = PKT_ICMP_ERROR;
			return PARSE_OK;
		}
		p->bad = SLUICE_DROP_icmp_type;
		return PARSE_OK;
	}
	}
	p->bad = SLUICE_DROP_proto;
	return PARSE_OK;
malformed:
	p->bad = SLUICE_DROP_malformed;
	return PARSE_OK;
}

/*
 * A piece of a datagram: which one, and what no sender makes. A first piece must hold the transport header (parse_l4 sees to that), and no other may
 * overlap it (RFC 1858, RFC 3128): UDP's and ICMP's end where the second can begin. Pieces that overlap further behind are for the end to judge, which
 * puts them together (RFC 5722). hdr: bytes that count beside the payload.
 */
static __always_inline void frag_note(struct pkt *p, bool more, __u32 at, __u32 len, __u32 hdr)
{
	p->frag_more = more;
	p->frag_at = at;
	p->frag_len = len;
	p->frag = at ? FRAG_LATER : FRAG_FIRST;
	if (!len || (more && (len & 7)) || at + len + hdr > 0xffff ||
	    (at && at < sizeof(struct tcphdr) && p->proto == IPPROTO_TCP))
		p->bad = SLUICE_DROP_malformed;
	else if (at)
		p->bad = SLUICE_DROP_fragment;
}

/* Such messages fit into one piece, and what they are about is looked for in it. */
static __always_inline int frag_kind(struct pkt *p, int ret)
{
	if (p->frag == FRAG_FIRST && p->bad == NOT_BAD &&
	    (p->kind == PKT_ICMP_ERROR || p->kind == PKT_ND))
		p->bad = SLUICE_DROP_fragment;
	return ret;
}

static __always_inline int parse_v4(void *data, void *end, bool gso, struct pkt *p)
{
	struct iphdr *ip = data + p->l3_off;
	__u32 room = p->len - p->l3_off, ihl, tot;

	if (p->len < p->l3_off + sizeof(*ip))
		return PARSE_NOT_IP;
	if ((void *)(ip + 1) > end)
		return PARSE_SHORT;
	addr_set_v4(&p->src, ip->saddr);
	addr_set_v4(&p->dst, ip->daddr);
	p->proto = ip->protocol;
	ihl = ip->ihl * 4;
	tot = bpf_ntohs(ip->tot_len);
	if (gso && !tot)
		tot = room; /* BIG TCP: the length does not fit */
	if (ip->version != 4 || ihl < sizeof(*ip) || tot < ihl || tot > room) {
		p->bad = SLUICE_DROP_malformed;
		return PARSE_OK;
	}
	p->l4_off = p->l3_off + ihl;
	p->frag_id = bpf_htonl((__u32)bpf_ntohs(ip->id) << 16);
	if (ip->frag_off & bpf_htons(IP_MF | IP_OFFSET))
		frag_note(p, ip->frag_off & bpf_htons(IP_MF),
			  (bpf_ntohs(ip->frag_off) & IP_OFFSET) * 8, tot - ihl, ihl);
	else
		p->df = ip->frag_off & bpf_htons(IP_DONT);
	if (p->bad != NOT_BAD)
		return PARSE_OK;
	return frag_kind(p, parse_l4((void *)ip + ihl, end, tot - ihl, p));
}

static __always_inline int parse_v6(void *data, void *end, bool gso, struct pkt *p)
{
	struct ipv6hdr *ip = data + p->l3_off;
	__u32 room = p->len - p->l3_off, off = p->l3_off + sizeof(*ip), payload;

	if (p->len < p->l3_off + sizeof(*ip))
		return PARSE_NOT_IP;
	if ((void *)(ip + 1) > end)
		return PARSE_SHORT;
	p->v6 = true;
	__builtin_memcpy(&p->src, &ip->saddr, sizeof(p->src));
	__builtin_memcpy(&p->dst, &ip->daddr, sizeof(p->dst));
	p->proto = ip->nexthdr;
	payload = bpf_ntohs(ip->payload_len);
	if (gso && !payload)
		payload = room - sizeof(*ip);
	/* A v4-mapped address has no place on a wire (RFC 4291 2.5.5.2), and would be taken for IPv4 here. */
	if (ip->version != 6 || payload > room - sizeof(*ip) || addr_is_v4(&p->src) ||
	    addr_is_v4(&p->dst)) {
		p->bad = SLUICE_DROP_malformed;
		return PARSE_OK;
	}
	for (int i = 0; i < EXT_MAX; i++) {
		struct frag_hdr *frag = data + off;
		__u32 n;

		if (p->proto != IPPROTO_HOPOPTS && p->proto != IPPROTO_DSTOPTS &&
		    p->proto != IPPROTO_FRAGMENT)
			break;
		/* All of them are whole multiples of eight bytes. */
		if (payload < EXT_UNIT) {
			p->bad = SLUICE_DROP_malformed;
			return PARSE_OK;
		}
		if ((void *)(frag + 1) > end)
			return PARSE_SHORT;
		n = p->proto == IPPROTO_FRAGMENT ? EXT_UNIT : (frag->reserved + 1) * EXT_UNIT;
		if (n > payload) {
			p->bad = SLUICE_DROP_malformed;
			return PARSE_OK;
		}
		off += n;
		payload -= n;
		/* With neither offset nor more to come it is no fragment at all (RFC 6946). */
		if (p->proto == IPPROTO_FRAGMENT && (frag->off & bpf_htons(0xfff9))) {
			if (p->frag) {
				p->bad = SLUICE_DROP_malformed;
				return PARSE_OK;
			}
			p->proto = frag->next;
			p->frag_id = frag->id;
			p->frag_hdr = off - EXT_UNIT;
			frag_note(p, frag->off & bpf_htons(1), bpf_ntohs(frag->off) & 0xfff8,
				  payload, off - EXT_UNIT - p->l3_off - sizeof(*ip));
			p->l4_off = off;
			if (p->bad != NOT_BAD)
				return PARSE_OK;
		} else {
			p->proto = frag->next;
		}
		if (off > p->l3_off + sizeof(*ip) + EXT_LEN_MAX) {
			p->bad = SLUICE_DROP_proto;
			return PARSE_OK;
		}
	}
	p->l4_off = off;
	if (p->proto == IPPROTO_FRAGMENT) {
		p->bad = SLUICE_DROP_malformed;
		return PARSE_OK;
	}
	if (p->proto == IPPROTO_ICMPV6)
		return frag_kind(p, parse_icmp6(data + off, end, payload, ip->hop_limit, p));
	return parse_l4(data + off, end, payload, p);
}

/* len: bytes of the whole packet from data on, whether linear or not. */
static __always_inline int parse(void *data, void *end, __u32 len, __u16 l3_off, __be16 ethertype,
				 bool gso, struct pkt *p)
{
	int l4, ret;

	__builtin_memset(p, 0, sizeof(*p));
	p->bad = NOT_BAD;
	p->len = len;
	/* Tags that no device has taken out of the frame: what they hide must not pass the guard either. */
	for (int i = 0; i < VLAN_TAGS_MAX; i++) {
		struct vlan_tag *tag = data + l3_off;

		if (ethertype != bpf_htons(ETH_P_8021Q) && ethertype != bpf_htons(ETH_P_8021AD))
			break;
		if (len < l3_off + sizeof(*tag))
			return PARSE_NOT_IP;
		if ((void *)(tag + 1) > end)
			return PARSE_SHORT;
		ethertype = tag->type;
		l3_off += sizeof(*tag);
	}
	p->l3_off = l3_off;
	if (ethertype == bpf_htons(ETH_P_IP))
		ret = parse_v4(data, end, gso, p);
	else if (ethertype == bpf_htons(ETH_P_IPV6))
		ret = parse_v6(data, end, gso, p);
	else
		return PARSE_NOT_IP;
	l4 = l4_index(p->proto);
	if (l4 >= 0)
		p->l4 = l4;
	return ret;
}

#endif
