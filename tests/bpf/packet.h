/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames for the data plane's tests: a builder, and a reader that judges what came out. The reader is written from the
 * RFCs, with plain loops, and shares no line with the BPF code. Addresses and ports are in host order here.
 */
#ifndef PACKET_H
#define PACKET_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define FRAME_MAX  2048
#define ETH_LEN    14
#define P_ICMP     1
#define P_TCP      6
#define P_UDP      17
#define P_FRAGMENT 44
#define P_ICMP6    58
#define P_DSTOPTS  60
#define E_IP4      0x0800
#define E_ARP      0x0806
#define E_VLAN     0x8100
#define E_IP6      0x86dd

#define T_FIN 0x01
#define T_SYN 0x02
#define T_RST 0x04
#define T_PSH 0x08
#define T_ACK 0x10

#define IP_MF 0x2000
#define IP_DF 0x4000

#define IP(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (d))

struct frame {
	uint8_t b[FRAME_MAX];
	uint32_t len;
};

/* What to build. Zeroes mean the ordinary thing. */
struct spec {
	uint8_t proto;
	uint32_t src, dst;
	uint16_t sport, dport; /* ICMP: sport is the id */
	uint8_t flags;         /* TCP flags */
	uint8_t type, code;    /* ICMP */
	uint8_t ip_words;      /* of IP options, 0 to 10 */
	uint8_t tcp_words;     /* of TCP options, 0 to 10 */
	uint32_t seq,
		ack; /* TCP; 0: the same for both, so that each end has got all that the other has sent */
	uint16_t window; /* TCP */
	uint8_t scale; /* TCP: 1 + the shift of a window scale option, behind a NOP; with tcp_words */
	uint16_t frag;           /* the IP header's flags and offset; 0: DF */
	uint16_t payload;        /* bytes after the transport header */
	uint16_t vlan;           /* a tag, put in line */
	uint16_t csum_error;     /* added to the right transport checksum */
	bool no_csum;            /* UDP: checksum 0 */
	const struct frame *err; /* ICMP error: whose start to quote */
};

/* What the reader finds. */
struct view {
	uint16_t ether;
	bool ip4;        /* a whole IPv4 header of a sane length is there */
	bool frag;       /* any fragment, also the first */
	bool frag_later; /* not the first: no transport header */
	uint8_t proto;
	uint32_t src, dst;
	uint32_t l3, l4; /* offsets */
	uint32_t end;    /* end of the IP packet, no further than the frame */
	bool cut; /* the frame is shorter than the IP header says, or the transport header is cut */
	bool ports; /* sport and dport are known (echo: sport is the id of a request, dport of a reply) */
	uint16_t sport, dport;
	uint8_t flags;
	uint8_t type, code;
	bool l3_good;      /* IP header checksum */
	bool l4_sum;       /* there is a transport checksum to judge */
	bool l4_zero;      /* UDP without checksum */
	bool l4_good;      /* it is right; not set for l4_zero */
	uint32_t l3_resid; /* sums folded to 0..0xfffe: equal before and after means the */
	uint32_t l4_resid; /* same error, if any */
	uint32_t csum_off; /* of the transport checksum */
};

static inline uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static inline void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void put32(uint8_t *p, uint32_t v)
{
	put16(p, (uint16_t)(v >> 16));
	put16(p + 2, (uint16_t)v);
}

/* The plain sum of 16-bit words, an odd byte padded with zero (RFC 1071), on top of sum. */
static inline uint64_t words_sum(const uint8_t *p, uint32_t n, uint64_t sum)
{
	uint32_t i;

	for (i = 0; i + 1 < n; i += 2)
		sum += get16(p + i);
	if (n & 1)
		sum += (uint64_t)p[n - 1] << 8;
	return sum;
}

static inline uint16_t words_fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static inline uint64_t pseudo_sum(uint32_t src, uint32_t dst, uint8_t proto, uint32_t len)
{
	return (uint64_t)(src >> 16) + (src & 0xffff) + (dst >> 16) + (dst & 0xffff) + proto + len;
}

/* Writes the IPv4 header's checksum again, after a test has changed the header. */
static inline void frame_ip_csum(struct frame *f, uint32_t l3)
{
	uint32_t hlen = (uint32_t)(f->b[l3] & 15) * 4;

	put16(f->b + l3 + 10, 0);
	put16(f->b + l3 + 10, (uint16_t)~words_fold(words_sum(f->b + l3, hlen, 0)));
}

static inline uint32_t build_l4(uint8_t *p, const struct spec *s)
{
	uint32_t hlen, len, i, off;
	uint64_t sum = 0;
	uint16_t csum;

	switch (s->proto) {
	case P_TCP:
		hlen = 20 + 4u * s->tcp_words;
		memset(p, 0, hlen);
		put16(p, s->sport);
		put16(p + 2, s->dport);
		put32(p + 4, s->seq ? s->seq : 0x01020304);
		put32(p + 8, !(s->flags & T_ACK) ? 0 : s->ack ? s->ack : 0x01020304);
		p[12] = (uint8_t)(hlen / 4 << 4);
		p[13] = s->flags;
		put16(p + 14, s->window ? s->window : 64240);
		memset(p + 20, 1, hlen - 20); /* NOP */
		if (s->scale) {
			p[hlen - 3] = 3;
			p[hlen - 2] = 3;
			p[hlen - 1] = (uint8_t)(s->scale - 1);
		}
		off = 16;
		break;
	case P_UDP:
		hlen = 8;
		put16(p, s->sport);
		put16(p + 2, s->dport);
		put16(p + 4, (uint16_t)(8 + s->payload));
		off = 6;
		break;
	case P_ICMP:
	case P_ICMP6:
		hlen = 8;
		memset(p, 0, hlen);
		p[0] = s->type;
		p[1] = s->code;
		if (!s->err) {
			put16(p + 4, s->sport);
			put16(p + 6, 1);
		}
		off = 2;
		break;
	default:
		hlen = 0;
		off = 0;
	}
	len = hlen;
	if (s->err) {
		uint32_t quote = s->err->len - ETH_LEN;

		memcpy(p + len, s->err->b + ETH_LEN, quote);
		len += quote;
	}
	for (i = 0; i < s->payload; i++)
		p[len + i] = (uint8_t)(i * 7 + 3);
	len += s->payload;
	if (!off)
		return len;
	put16(p + off, 0);
	if (s->proto != P_ICMP)
		sum = pseudo_sum(s->src, s->dst, s->proto, len);
	csum = (uint16_t)~words_fold(words_sum(p, len, sum));
	if (s->proto == P_UDP && !csum)
		csum = 0xffff;
	if (s->csum_error)
		csum = words_fold((uint64_t)csum + s->csum_error);
	put16(p + off, s->no_csum ? 0 : csum);
	return len;
}

static inline void frame_build(struct frame *f, const struct spec *s)
{
	uint32_t l3 = ETH_LEN + (s->vlan ? 4 : 0), hlen = 20 + 4u * s->ip_words;
	uint8_t *p = f->b;

	memset(f, 0, sizeof(*f));
	memcpy(p, "\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02", 12);
	if (s->vlan) {
		put16(p + 12, E_VLAN);
		put16(p + 14, s->vlan);
	}
	put16(p + l3 - 2, E_IP4);
	p += l3;
	f->len = l3 + hlen + build_l4(p + hlen, s);
	p[0] = (uint8_t)(0x40 | hlen / 4);
	p[1] = 0x10;
	put16(p + 2, (uint16_t)(f->len - l3));
	put16(p + 4, 0x4321);
	put16(p + 6, s->frag ? s->frag : IP_DF);
	p[8] = 61;
	p[9] = s->proto;
	put32(p + 12, s->src);
	put32(p + 16, s->dst);
	memset(p + 20, 1, hlen - 20); /* NOP */
	frame_ip_csum(f, l3);
}

/*
 * IPv6, with an extension header before the transport header if ext is not 0. Addresses are made of src and dst. Transport checksums are wrong: nothing that is
 * tested with these frames looks at them.
 */
static inline void frame_build6(struct frame *f, const struct spec *s, uint8_t ext)
{
	uint8_t *p = f->b + ETH_LEN;
	uint32_t l4 = 40 + (ext ? 8 : 0);

	memset(f, 0, sizeof(*f));
	memcpy(f->b, "\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x86\xdd", ETH_LEN);
	f->len = ETH_LEN + l4 + build_l4(p + l4, s);
	p[0] = 0x60;
	put16(p + 4, (uint16_t)(f->len - ETH_LEN - 40));
	p[6] = ext ? ext : s->proto;
	p[7] = 61;
	put16(p + 8, 0x2001);
	put16(p + 10, 0xdb8);
	put32(p + 20, s->src);
	put16(p + 24, 0x2001);
	put16(p + 26, 0xdb8);
	put32(p + 36, s->dst);
	if (ext)
		p[40] = s->proto;
}

/* Where the layer behind the Ethernet header and up to two VLAN tags begins, and what it is. */
static inline uint32_t frame_l3(const struct frame *f, uint16_t *ret_ether)
{
	uint32_t l3 = ETH_LEN;

	*ret_ether = get16(f->b + 12);
	while (l3 < ETH_LEN + 8 && (*ret_ether == E_VLAN || *ret_ether == 0x88a8) &&
	       f->len >= l3 + 4) {
		*ret_ether = get16(f->b + l3 + 2);
		l3 += 4;
	}
	return l3;
}

/* Reads a frame. Says what is there; whether that is right is for the caller to say. */
static inline void frame_view(const struct frame *f, struct view *v)
{
	const uint8_t *p;
	uint32_t hlen, total, room, n, min, l4_len;

	memset(v, 0, sizeof(*v));
	if (f->len < ETH_LEN)
		return;
	v->l3 = frame_l3(f, &v->ether);
	p = f->b + v->l3;
	room = f->len - v->l3;
	if (v->ether != E_IP4 || room < 20 || p[0] >> 4 != 4)
		return;
	hlen = (uint32_t)(p[0] & 15) * 4;
	total = get16(p + 2);
	if (hlen < 20 || hlen > room)
		return;
	v->ip4 = true;
	v->proto = p[9];
	v->src = get32(p + 12);
	v->dst = get32(p + 16);
	v->frag = get16(p + 6) & 0x3fff;
	v->frag_later = get16(p + 6) & 0x1fff;
	v->l3_resid = words_fold(words_sum(p, hlen, 0)) % 0xffff;
	v->l3_good = v->l3_resid == 0;
	v->l4 = v->l3 + hlen;
	v->cut = total < hlen || total > room;
	v->end = total < hlen ? v->l4 : total > room ? f->len : v->l3 + total;
	n = v->end - v->l4;
	p = f->b + v->l4;
	min = v->proto == P_TCP ? 20 : v->proto == P_UDP ? 8 : v->proto == P_ICMP ? 8 : 0;
	if (v->frag_later || !min)
		return;
	if (n < min) {
		v->cut = true;
		return;
	}
	v->csum_off = v->l4 + (v->proto == P_TCP ? 16 : v->proto == P_UDP ? 6 : 2);
	if (v->proto == P_ICMP) {
		v->type = p[0];
		v->code = p[1];
		v->ports = v->type == 0 || v->type == 8;
		if (v->type == 8)
			v->sport = get16(p + 4);
		if (v->type == 0)
			v->dport = get16(p + 4);
	} else {
		v->ports = true;
		v->sport = get16(p);
		v->dport = get16(p + 2);
	}
	if (v->proto == P_TCP) {
		uint32_t doff = (uint32_t)(p[12] >> 4) * 4;

		v->flags = p[13];
		v->cut |= doff < 20 || doff > n;
	}
	l4_len = total - hlen;
	if (v->proto == P_UDP) {
		/* A first piece has only some of it. */
		if (get16(p + 4) < 8 || (get16(p + 4) > n && !v->frag))
			v->cut = true;
		else if (!v->frag)
			n = l4_len = get16(p + 4);
	}
	v->l4_zero = v->proto == P_UDP && !get16(f->b + v->csum_off);
	v->l4_resid =
		words_fold(words_sum(
			p, n,
			v->proto == P_ICMP ? 0 : pseudo_sum(v->src, v->dst, v->proto, l4_len))) %
		0xffff;
	v->l4_sum = !v->frag && !v->l4_zero;
	v->l4_good = v->l4_sum && !v->cut && v->l4_resid == 0;
}

static inline bool frame_equal(const struct frame *a, const struct frame *b)
{
	return a->len == b->len && !memcmp(a->b, b->b, a->len);
}

/*
 * NULL if out is in with nothing changed but its source (or destination) address and port and the checksums that cover
 * them, and those carry the error, or its absence, that they came with; else what is wrong. *ret gets out's reading.
 */
static inline const char *frame_rewritten(const struct frame *in, const struct frame *out,
					  bool source, struct view *ret)
{
	struct frame want = *in;
	struct view a;
	uint32_t port;

	frame_view(in, &a);
	frame_view(out, ret);
	if (in->len != out->len)
		return "the length changed";
	if (!a.ip4 || !ret->ip4)
		return "not an IPv4 packet";
	if (!a.ports)
		return "a packet without ports was changed";
	memcpy(want.b + a.l3 + (source ? 12 : 16), out->b + a.l3 + (source ? 12 : 16), 4);
	memcpy(want.b + a.l3 + 10, out->b + a.l3 + 10, 2);
	port = a.l4 + (a.proto == P_ICMP ? 4 : source ? 0 : 2);
	memcpy(want.b + port, out->b + port, 2);
	memcpy(want.b + a.csum_off, out->b + a.csum_off, 2);
	if (!frame_equal(&want, out))
		return "bytes changed that translation has no business with";
	if (a.l3_resid != ret->l3_resid)
		return a.l3_resid ? "the IP checksum's error changed" : "the IP checksum is wrong";
	if (a.l4_zero != ret->l4_zero)
		return a.l4_zero ? "a UDP checksum appeared" : "the UDP checksum became 0";
	if (!a.l4_zero && a.l4_resid != ret->l4_resid)
		return a.l4_resid ? "the transport checksum's error changed"
				  : "the transport checksum is wrong";
	return NULL;
}

static inline void frame_print(FILE *o, const char *what, const struct frame *f)
{
	uint32_t i;

	fprintf(o, "%s, %u bytes:", what, f->len);
	for (i = 0; i < f->len; i++)
		fprintf(o, "%s%02x", i % 4 ? "" : " ", f->b[i]);
	fprintf(o, "\n");
}

#endif
