/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * ICMP errors about translated packets, both ways (RFC 5508 section 4, RFC 4443). An error quotes the start of the packet that it is about, as it was where the error was
 * made: from outside come quotes with the outer source, from inside those with the inner destination. The quote is changed into what the one who gets the error has
 * sent, header checksums included, and so is the error's own address on our side. Type, code and the word behind them (the MTU) stay, nothing is refreshed or ended,
 * and what has no flow is dropped in silence.
 *
 * Errors are rare: here the packet is read into memory, changed there, and written back.
 */
#ifndef ICMP_BPF_H
#define ICMP_BPF_H

#include "out.bpf.h"
#include "zone.bpf.h"

/*
 * So much of a quote is read. IPv6's header, as many extension headers as are walked, and TCP's header fit in. Two of it are as much as bpf_csum_diff() takes, which wants
 * multiples of four.
 */
#define QUOTE_MAX    256
#define QUOTE_L4_MAX (QUOTE_MAX - 20)
#define QUOTE_L4_LEAST \
	8 /* bytes of the quoted transport header: ports, or the id of an echo (RFC 792) */

/* The checksum is taken in pieces. The longest message is as long as an IP packet. */
#define PIECE      256
#define PIECES_MAX (65536 / PIECE)

/* Too large for the stack. TC programs run with bottom halves off: nothing else uses the row meanwhile. */
struct quote {
	__u8 was[QUOTE_MAX]; /* zero behind its end */
	__u8 now[QUOTE_MAX];
	__u8 piece[PIECE + 4];
	__u32 pool; /* of the flow that was found */
	struct sluice_flow_key key;
	struct sluice_flow_key rev_key;
	union sluice_addr src, dst; /* of the quoted packet; zero: could not be read */
	union sluice_addr to;       /* what the address on our side becomes */
	union sluice_addr by;       /* who sent the error */
	__be16 sport, dport;        /* of an echo request: id, 0; of a reply: 0, id */
	__be16 to_port;
	__u16 len;      /* bytes in was */
	__u16 l4;       /* where its transport header begins */
	__u32 icmp_len; /* of the whole message */
	__u8 proto;
	__u8 l4_kind; /* enum sluice_l4 */
	__u8 kind;    /* enum pkt_kind of the quoted packet */
	__u8 pad;
};

CPU_ROWS(quotes, struct quote, 1);

static __always_inline struct quote *quote_row(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&quotes, &zero);
}

/* How long the ICMP message is, by the IP header: what lies behind it is the link's. 0: cannot be read. */
static __always_inline __u32 error_len(struct __sk_buff *skb, const struct pkt *p)
{
	__u32 hlen = p->l4_off - p->l3_off, total;
	__be16 len = 0;

	if (bpf_skb_load_bytes(skb,
			       p->l3_off + (p->v6 ? offsetof(struct ipv6hdr, payload_len)
						  : offsetof(struct iphdr, tot_len)),
			       &len, sizeof(len)))
		return 0;
	total = bpf_ntohs(len) + (p->v6 ? sizeof(struct ipv6hdr) : 0);
	return total > hlen ? total - hlen : 0;
}

/* The headers of the quoted packet up to the transport header. Returns STEP_OK or a reason. */
static __always_inline int quote_v4(struct quote *q)
{
	struct iphdr *ip = (void *)q->was;
	__u32 ihl = ip->ihl * 4;

	if (ip->version != 4 || ihl < sizeof(*ip))
		return SLUICE_DROP_malformed;
	/* Nobody reports on fragments other than the first (RFC 1122 3.2.2), and they have no ports. */
	if (ip->frag_off & bpf_htons(0x1fff))
		return SLUICE_DROP_malformed;
	addr_set_v4(&q->src, ip->saddr);
	addr_set_v4(&q->dst, ip->daddr);
	q->proto = ip->protocol;
	q->l4 = ihl;
	return STEP_OK;
}

static __always_inline int quote_v6(struct quote *q)
{
	struct ipv6hdr *ip = (void *)q->was;
	__u32 off = sizeof(*ip);
	__u8 next = ip->nexthdr;

	if (ip->version != 6)
		return SLUICE_DROP_malformed;
	for (int i = 0; i < EXT_MAX + 1; i++) {
		__u8 *ext;

		if (off > sizeof(*ip) + EXT_LEN_MAX)
			return SLUICE_DROP_proto;
		/* The mask says again what the compiler may have said in other words. */
		ext = q->was + (off & (QUOTE_MAX - EXT_UNIT));
		if (next == IPPROTO_HOPOPTS || next == IPPROTO_DSTOPTS) {
			off += (ext[1] + 1) * EXT_UNIT;
		} else if (next == IPPROTO_FRAGMENT) {
			if (ext[2] || ext[3] & 0xf8)
				return SLUICE_DROP_malformed;
			off += EXT_UNIT;
		} else {
			break;
		}
		next = ext[0];
	}
	if (off > sizeof(*ip) + EXT_LEN_MAX + EXT_UNIT)
		return SLUICE_DROP_proto;
	__builtin_memcpy(&q->src, &ip->saddr, sizeof(q->src));
	__builtin_memcpy(&q->dst, &ip->daddr, sizeof(q->dst));
	q->proto = next;
	q->l4 = off;
	return STEP_OK;
}

/* Read the quote of an ICMP error into this CPU's row. Returns STEP_OK or a reason. */
GLOBAL int quote_read(struct __sk_buff *skb, const struct pkt *p)
{
	struct quote *q = quote_row();
	__u32 n, off, less;
	__be16 *l4;
	int step;

	if (!p || !q)
		return SLUICE_DROP_rewrite;
	__builtin_memset(&q->src, 0, sizeof(q->src));
	__builtin_memset(&q->dst, 0, sizeof(q->dst));
	q->icmp_len = error_len(skb, p);
	if (q->icmp_len < sizeof(struct icmp_hdr) +
				  (p->v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) +
				  QUOTE_L4_LEAST)
		return SLUICE_DROP_malformed;
	n = q->icmp_len - sizeof(struct icmp_hdr);
	if (n > QUOTE_MAX)
		n = QUOTE_MAX;
	__builtin_memset(q->was, 0, sizeof(q->was));
	less = LESS_ONE(n);
	if (less >= QUOTE_MAX ||
	    bpf_skb_load_bytes(skb, p->l4_off + sizeof(struct icmp_hdr), q->was, less + 1))
		return SLUICE_DROP_malformed;
	q->len = n;
	step = p->v6 ? quote_v6(q) : quote_v4(q);
	if (step != STEP_OK)
		return step;
	off = q->l4;
	if (off > QUOTE_L4_MAX || off + QUOTE_L4_LEAST > n)
		return SLUICE_DROP_malformed;
	l4 = (void *)(q->was + off);
	q->kind = PKT_DATA;
	q->sport = l4[0];
	q->dport = l4[1];
	switch (q->proto) {
	case IPPROTO_TCP:
		q->l4_kind = SLUICE_TCP;
		return STEP_OK;
	case IPPROTO_UDP:
		q->l4_kind = SLUICE_UDP;
		return STEP_OK;
	}
	if (q->proto != (p->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		return SLUICE_DROP_proto;
	q->l4_kind = SLUICE_ICMP;
	q->sport = 0;
	q->dport = 0;
	switch (*(__u8 *)l4) {
	case ICMP_ECHO:
	case ICMP6_ECHO:
		if (p->v6 != (*(__u8 *)l4 == ICMP6_ECHO))
			return SLUICE_DROP_icmp_type;
		q->kind = PKT_ECHO;
		q->sport = l4[2];
		return STEP_OK;
	case ICMP_ECHO_REPLY:
	case ICMP6_ECHO_REPLY:
		if (p->v6 != (*(__u8 *)l4 == ICMP6_ECHO_REPLY))
			return SLUICE_DROP_icmp_type;
		q->kind = PKT_ECHO_REPLY;
		q->dport = l4[2];
		return STEP_OK;
	}
	return SLUICE_DROP_icmp_type;
}

struct sum_ctx {
	struct __sk_buff *skb;
	struct quote *q;
	__u32 off, left;
	__u32 sum;
	bool fits;
};

static long sum_piece(__u32 i, struct sum_ctx *c)
{
	struct quote *q = c->q;
	__u32 n = c->left, end, less;
	long sum;

	if (n > PIECE)
		n = PIECE;
	if (!n)
		return 1;
	*(__u32 *)(q->piece + (n & ~3U)) = 0; /* an odd end counts as if zeros followed */
	less = LESS_ONE(n);
	if (less >= PIECE || bpf_skb_load_bytes(c->skb, c->off, q->piece, less + 1)) {
		c->fits = false;
		return 1;
	}
	end = (n + 3) & ~3U;
	sum = bpf_csum_diff(NULL, 0, (__be32 *)q->piece, end, c->sum);
	c->fits = sum >= 0;
	c->sum = sum;
	c->off += n;
	c->left -= n;
	return !c->fits;
}

static __always_inline __u16 sum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* The checksum, changed by the difference of what it covers (RFC 1624). */
static __always_inline __sum16 sum_change(__sum16 sum, __u32 diff)
{
	return ~sum_fold((__u64)(__u16)~sum + diff);
}

/*
 * Are the ICMP checksum and that of the quoted IPv4 header right (RFC 5508 REQ-3)? The quoted transport header's is nobody's to judge: of a quote that was cut it can't be right.
 */
GLOBAL bool error_sums_right(struct __sk_buff *skb, const struct pkt *p)
{
	struct quote *q = quote_row();
	struct sum_ctx c = { .skb = skb, .q = q, .fits = true };
	__be32 pseudo[2] = { 0, bpf_htonl(IPPROTO_ICMPV6) };
	__u32 ihl;
	long sum;

	if (!p || !q)
		return false;
	c.off = p->l4_off;
	c.left = q->icmp_len;
	if (p->v6) {
		pseudo[0] = bpf_htonl(q->icmp_len);
		sum = bpf_csum_diff(NULL, 0, pseudo, sizeof(pseudo), 0);
		sum = bpf_csum_diff(NULL, 0, (__be32 *)&p->src, sizeof(p->src), sum);
		c.sum = bpf_csum_diff(NULL, 0, (__be32 *)&p->dst, sizeof(p->dst), sum);
	}
	bpf_loop(PIECES_MAX, sum_piece, &c, 0);
	if (!c.fits || c.left || sum_fold(c.sum) != 0xffff)
		return false;
	if (p->v6)
		return true;
	ihl = (q->was[0] & 15) * 4;
	sum = bpf_csum_diff(NULL, 0, (__be32 *)q->was, ihl, 0);
	return sum >= 0 && sum_fold(sum) == 0xffff;
}

/* What a quoted transport header's checksum covers, as far as it changes. */
struct covered {
	__be32 addr[4]; /* no union: it would end in bytes that nobody sets */
	__be16 port;
	__u16 pad;
};
_Static_assert(sizeof(struct covered) == 20, "no padding");

/*
 * The quoted packet's source (in: the error comes from outside) or destination becomes q->to and q->to_port in q->now. Its checksums follow by the difference, so
 * that a wrong one stays as wrong.
 */
static __always_inline int quote_change(struct quote *q, bool v6, bool in)
{
	struct covered from = {}, to = {};
	__u32 off = q->l4, port = in ? 0 : 2, sum = 0;
	__sum16 *csum;
	__be16 *at;
	long diff;

	if (off > QUOTE_L4_MAX)
		return -1;
	__builtin_memcpy(from.addr, in ? &q->src : &q->dst, sizeof(from.addr));
	__builtin_memcpy(to.addr, &q->to, sizeof(to.addr));
	__builtin_memcpy(q->now, q->was, sizeof(q->now));
	if (v6) {
		struct ipv6hdr *ip = (void *)q->now;

		__builtin_memcpy(in ? &ip->saddr : &ip->daddr, &q->to, sizeof(q->to));
	} else {
		struct iphdr *ip = (void *)q->now;

		diff = bpf_csum_diff(from.addr, sizeof(from.addr), to.addr, sizeof(to.addr), 0);
		ip->check = sum_change(ip->check, diff);
		if (in)
			ip->saddr = q->to.w[3];
		else
			ip->daddr = q->to.w[3];
	}
	switch (q->proto) {
	case IPPROTO_TCP:
		sum = offsetof(struct tcphdr, check);
		break;
	case IPPROTO_UDP:
		sum = offsetof(struct udphdr, check);
		break;
	default:
		port = offsetof(struct icmp_hdr, id);
		sum = offsetof(struct icmp_hdr, checksum);
		/* IPv4's ICMP checksum does not cover the addresses. */
		if (!v6)
			__builtin_memcpy(from.addr, to.addr, sizeof(from.addr));
	}
	at = (void *)(q->now + off + port);
	from.port = *at;
	to.port = q->to_port;
	*at = q->to_port;
	/* Cut off, or "none". */
	csum = (void *)(q->now + off + sum);
	if (off + sum + sizeof(*csum) > q->len || (q->proto == IPPROTO_UDP && !*csum))
		return 0;
	diff = bpf_csum_diff((__be32 *)&from, sizeof(from), (__be32 *)&to, sizeof(to), 0);
	*csum = sum_change(*csum, diff);
	if (q->proto == IPPROTO_UDP && !*csum)
		*csum = 0xffff;
	return 0;
}

/* Change the quote and, if wanted, the error's own address on our side. 0, or -1: it may be half changed. */
GLOBAL int error_rewrite(struct __sk_buff *skb, const struct pkt *p, bool in, bool own_too)
{
	struct quote *q = quote_row();
	const union sluice_addr *was;
	__u32 addr_off, n;
	long diff;

	if (!p || !q || quote_change(q, p->v6, in))
		return -1;
	n = LESS_ONE(q->len);
	if (n >= QUOTE_MAX)
		return -1;
	was = in ? &p->dst : &p->src;
	diff = bpf_csum_diff((__be32 *)q->was, QUOTE_MAX, (__be32 *)q->now, QUOTE_MAX, 0);
	if (own_too && p->v6 && diff >= 0)
		diff = bpf_csum_diff((__be32 *)was, sizeof(*was), q->to.w, sizeof(q->to), diff);
	/* No header of a lower layer may count on the sum of all this, and it need not: what changes is made good within. */
	if (diff < 0 ||
	    bpf_skb_store_bytes(skb, p->l4_off + sizeof(struct icmp_hdr), q->now, n + 1, 0) ||
	    bpf_l4_csum_replace(skb, p->l4_off + offsetof(struct icmp_hdr, checksum), 0, diff, 0))
		return -1;
	if (!own_too)
		return 0;
	if (p->v6) {
		addr_off = p->l3_off +
			   (in ? offsetof(struct ipv6hdr, daddr) : offsetof(struct ipv6hdr, saddr));
		return bpf_skb_store_bytes(skb, addr_off, &q->to, sizeof(q->to), 0) ? -1 : 0;
	}
	addr_off = p->l3_off + (in ? offsetof(struct iphdr, daddr) : offsetof(struct iphdr, saddr));
	if (bpf_l3_csum_replace(skb, p->l3_off + offsetof(struct iphdr, check), was->w[3],
				q->to.w[3], sizeof(__be32)) ||
	    bpf_skb_store_bytes(skb, addr_off, &q->to.w[3], sizeof(__be32), 0))
		return -1;
	return 0;
}

/* From outside */

/*
 * An error that arrived: p becomes the quoted packet's answer, so that keys come out as for what arrives. The error's own source may be any router. Returns STEP_OK or a
 * reason.
 */
GLOBAL int error_arrived(struct __sk_buff *skb, struct pkt *p)
{
	struct quote *q = quote_row();
	int step;

	if (!p || !q)
		return SLUICE_DROP_rewrite;
	step = quote_read(skb, p);
	if (step != STEP_OK)
		return step;
	if (!addr_eq(&q->src, &p->dst))
		return SLUICE_DROP_malformed;
	if (q->kind == PKT_ECHO_REPLY) /* only requests leave from here */
		return SLUICE_DROP_icmp_type;
	q->by = p->src;
	p->src = q->dst;
	p->sport = q->dport;
	p->dport = q->sport;
	p->proto = q->proto;
	p->l4 = q->l4_kind;
	return STEP_OK;
}

/* The flow of the quoted packet is r: hand the error to its inner end. Returns STEP_OK or a reason. */
GLOBAL int error_in(struct __sk_buff *skb, struct pkt *p, const struct sluice_flow *r)
{
	struct quote *q = quote_row();

	if (!p || !q || !r)
		return SLUICE_DROP_rewrite;
	q->to = r->addr;
	q->to_port = r->port;
	/* The checksum covers the error's own source. */
	p->src = q->by;
	if (!error_sums_right(skb, p))
		return SLUICE_DROP_icmp_sum;
	return error_rewrite(skb, p, true, true) ? SLUICE_DROP_rewrite : STEP_OK;
}

/* From inside, or made here */

/*
 * The flow whose incoming packet was quoted: its inner end is the quoted destination, and its remote end, which the filtering has let in, the source. True: q->to, q->to_port
 * and q->pool are its outer end's, and *ret_slice where that is.
 */
GLOBAL bool quoted_flow(__u16 zone, bool eim, __u32 now_s)
{
	struct quote *q = quote_row();
	struct sluice_slice *sl;
	struct sluice_pool *pool;
	struct sluice_flow *f, *r;

	if (!q)
		return false;
	__builtin_memset(&q->key, 0, sizeof(q->key));
	q->key.src = q->dst;
	q->key.sport = q->dport;
	if (!eim) {
		q->key.dst = q->src;
		q->key.dport = q->sport;
	}
	q->key.proto = q->proto;
	q->key.zone = zone;
	f = bpf_map_lookup_elem(&fwd, &q->key);
	if (!f || (f->flags & SLUICE_FLOW_OWN) || !(f->flags & SLUICE_FLOW_EIM) != !eim)
		return false;
	sl = slice_of(f);
	pool = sl ? pool_of(sl->pool) : NULL;
	if (!pool)
		return false;
	__builtin_memset(&q->rev_key, 0, sizeof(q->rev_key));
	q->rev_key.src = q->src;
	q->rev_key.sport = q->sport;
	q->rev_key.dst = sl->addr;
	q->rev_key.dport = f->port;
	q->rev_key.proto = q->proto;
	if (eim && eim_session_masked(q->l4_kind))
		rev_key_mask(&q->rev_key, pool->filtering[q->l4_kind & 3]);
	r = bpf_map_lookup_elem(&rev, &q->rev_key);
	if (!r || (r->flags & (SLUICE_FLOW_PERMIT | SLUICE_FLOW_OWN)) ||
	    !addr_eq(&r->addr, &q->dst) || r->port != q->dport || r->zone != zone ||
	    !rev_alive(&q->rev_key, r, now_s, 0))
		return false;
	q->to = sl->addr;
	q->to_port = q->rev_key.dport;
	q->pool = sl->pool;
	return true;
}

/*
 * An error that goes out: if it is about what came in through a flow of ours, nothing of the inner network may be in it. Returns STEP_OK, STEP_NONE when it is not, or a
 * reason.
 */
GLOBAL int error_out(struct __sk_buff *skb, const struct pkt *p)
{
	struct quote *q = quote_row();
	bool here = !skb->ingress_ifindex, own_too;
	__u16 zone = zone_of(skb);
	struct sluice_addr_row *ar;
	struct sluice_slice *sl;
	int step;

	if (!p || !q)
		return SLUICE_DROP_rewrite;
	q->pool = 0;
	step = quote_read(skb, p);
	if (step != STEP_OK)
		return step;
	/* An error goes to who has sent what it is about. Echo requests do not come in. */
	if (!addr_eq(&q->src, &p->dst) || q->kind == PKT_ECHO)
		return STEP_NONE;
	if (!quoted_flow(zone, true, p->now.s) && !quoted_flow(zone, false, p->now.s) &&
	    (!here || (!quoted_flow(SLUICE_ZONE_LOCAL, true, p->now.s) &&
		       !quoted_flow(SLUICE_ZONE_LOCAL, false, p->now.s))))
		return STEP_NONE;
	ar = bpf_map_lookup_elem(&addrs, &q->to);
	sl = ar ? slice_row(ar->base + (bpf_ntohs(q->to_port) >> (ar->shift & 15))) : NULL;
	if (!sl)
		return STEP_NONE;
	if (slice_fenced(sl, p->now.ns))
		return SLUICE_DROP_fenced;
	if (!error_sums_right(skb, p))
		return SLUICE_DROP_icmp_sum;
	/* This machine's own address may stand there, as any router's on the path; no inner one (RFC 5508 REQ-5). */
	own_too = !here || addr_eq(&p->src, &q->dst) || lpm_find(&clients, 0, &p->src);
	return error_rewrite(skb, p, false, own_too) ? SLUICE_DROP_rewrite : STEP_OK;
}

/* About a packet for a client, though through no flow: would tell where it is. */
static __always_inline bool error_tells(const struct quote *q, const struct pkt *p)
{
	__u32 *row = lpm_find(&clients, 0, &q->dst);

	return row && !lpm_find(&no_nat, *row, &p->dst);
}

/* Forwarded: of a client, or of a router on the way to it. Returns the verdict. */
GLOBAL int error_forwarded(struct __sk_buff *skb, const struct pkt *p)
{
	struct quote *q = quote_row();
	__u32 *row;
	int step;

	if (!p || !q)
		return VERDICT_DROP;
	q->by = p->src; /* a key must not lie in what is another function's */
	if (bpf_map_lookup_elem(&addrs, &q->by))
		return verdict_drop(skb, p, 0, SLUICE_DROP_spoof);
	step = error_out(skb, p);
	if (step == STEP_OK)
		return verdict_out(skb, q->pool);
	row = lpm_find(&clients, zone_of(skb), &p->src);
	if (step == SLUICE_DROP_fenced || step == SLUICE_DROP_icmp_sum ||
	    step == SLUICE_DROP_rewrite)
		return verdict_drop(skb, p, q->pool, step);
	if (row ? !!lpm_find(&no_nat, *row, &p->dst) : !error_tells(q, p))
		return VERDICT_PASS;
	return verdict_drop(skb, p, row ? *row : 0,
			    step == STEP_NONE ? SLUICE_DROP_icmp_error : step);
}

#define VERDICT_OPEN (-2) /* not decided here */

/* Made by this machine's kernel. Returns the verdict, or VERDICT_OPEN when it is about a packet of the machine's own. */
GLOBAL int error_made_here(struct __sk_buff *skb, const struct pkt *p)
{
	struct quote *q = quote_row();
	int step;

	if (!p || !q)
		return VERDICT_DROP;
	step = error_out(skb, p);
	switch (step) {
	case STEP_OK:
		return verdict_out(skb, q->pool);
	case SLUICE_DROP_fenced:
	case SLUICE_DROP_icmp_sum:
	case SLUICE_DROP_rewrite:
		return verdict_drop(skb, p, q->pool, step);
	}
	/* The machine answers for itself, or a client is told. */
	if (addr_eq(&p->src, &q->dst) || lpm_find(&clients, 0, &p->dst) || !error_tells(q, p))
		return VERDICT_OPEN;
	return verdict_drop(skb, p, 0, SLUICE_DROP_icmp_error);
}

#endif
