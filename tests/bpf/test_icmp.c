/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ICMP errors about translated packets. What must come out is known without any arithmetic on differences: the error that quotes the packet as the other side had it, built
 * anew with its checksums. So each test keeps both forms of a packet, the client's and the outer one, and an error that quotes one must come out as
 * the one that quotes the other, byte for byte.
 */
#include "flows.h"

#define FLOWS     4096
#define INSIDE    IP(10, 1, 0, 1)   /* a router among the clients */
#define ELSEWHERE IP(172, 16, 9, 9) /* a router on the way to them that is no client */
#define MACHINE   IP(192, 0, 2, 11) /* this machine's own address; its prefix is no-nat */
#define ROUTER    IP(198, 18, 0, 1) /* a router outside */
#define MTU_WORD  0x00000500        /* the word behind the checksum: an MTU of 1280 */

static const uint8_t protos[] = { P_TCP, P_UDP, P_ICMP };

/* An IP packet. */
struct ip {
	uint8_t b[FRAME_MAX];
	uint32_t len;
};

/* An ICMP error to build. */
struct err {
	uint32_t src, dst;
	uint8_t type, code;
	const struct ip *quote;
	uint32_t l4_len;  /* bytes of the quoted transport header and what follows; 0: all */
	uint8_t ip_words; /* of options of its own; IPv6: extension header of 8 bytes each */
	uint16_t vlan;
	uint16_t tail;    /* the quote is filled up to 128 bytes, and so many follow (RFC 4884) */
	uint16_t trailer; /* bytes of the link behind the packet */
};

static union sluice_addr any_addr(bool v6, uint32_t ip)
{
	union sluice_addr a6 = { .w = { htonl(0x20010db8), 0, 0, htonl(ip) } };

	return v6 ? a6 : addr_of(ip);
}

static uint32_t ip_hlen(const struct ip *p)
{
	uint32_t off = 40;
	uint8_t next;

	if (p->b[0] >> 4 == 4)
		return (p->b[0] & 15) * 4u;
	for (next = p->b[6]; next == 0 || next == P_DSTOPTS || next == P_FRAGMENT;
	     next = p->b[off], off += 8)
		;
	return off > 40 ? 40 + 8 * ((off - 40) / 8) : 40;
}

static bool ip_v6(const struct ip *p)
{
	return p->b[0] >> 4 == 6;
}

/* What a transport checksum covers besides the header and data. */
static uint64_t ip_pseudo(const uint8_t *ip, uint8_t proto, uint32_t len)
{
	bool v6 = ip[0] >> 4 == 6;

	return words_sum(ip + (v6 ? 8 : 12), v6 ? 32 : 8, (uint64_t)proto + len);
}

static void addr_write(uint8_t *p, bool v6, uint32_t ip)
{
	union sluice_addr a = any_addr(v6, ip);

	memcpy(p, v6 ? a.b : a.b + 12, v6 ? 16 : 4);
}

/* The packet of a spec, as IP packet of either family, checksums right but for csum_error. ext: IPv6 extension header before the transport header. */
static void ip_build(struct ip *p, bool v6, struct spec s, uint8_t ext)
{
	uint32_t l4, off;
	struct frame f;
	uint16_t csum;

	if (v6 && s.proto == P_ICMP) {
		s.proto = P_ICMP6;
		s.type = s.type == 8 ? 128 : 129;
	}
	if (!v6) {
		frame_build(&f, &s);
	} else {
		frame_build6(&f, &s, ext);
		l4 = ETH_LEN + 40 + (ext ? 8 : 0);
		off = l4 + (s.proto == P_TCP ? 16 : s.proto == P_UDP ? 6 : 2);
		put16(f.b + off, 0);
		csum = (uint16_t)~words_fold(words_sum(
			f.b + l4, f.len - l4, ip_pseudo(f.b + ETH_LEN, s.proto, f.len - l4)));
		if (s.proto == P_UDP && !csum)
			csum = 0xffff;
		put16(f.b + off, words_fold((uint64_t)csum + s.csum_error));
	}
	p->len = f.len - ETH_LEN;
	memcpy(p->b, f.b + ETH_LEN, p->len);
}

static void frame_of(struct frame *f, const struct ip *p)
{
	memset(f, 0, sizeof(*f));
	memcpy(f->b, "\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02", 12);
	put16(f->b + 12, ip_v6(p) ? E_IP6 : E_IP4);
	memcpy(f->b + ETH_LEN, p->b, p->len);
	f->len = ETH_LEN + p->len;
}

static void ip_of_frame(struct ip *p, const struct frame *f)
{
	p->len = f->len - ETH_LEN;
	memcpy(p->b, f->b + ETH_LEN, p->len);
}

/* Ports, or the id, of a packet. */
static uint8_t *port_at(struct ip *p, bool source)
{
	uint32_t l4 = ip_hlen(p);
	uint8_t proto = ip_v6(p) ? p->b[6] : p->b[9];

	if (proto == P_TCP || proto == P_UDP)
		return p->b + l4 + (source ? 0 : 2);
	return p->b + l4 + 4;
}

/* As routers leave it: some hops older. The transport header has no say in that. */
static void ip_hops(struct ip *p, uint8_t ttl)
{
	struct frame f;

	if (ip_v6(p)) {
		p->b[7] = ttl;
		return;
	}
	p->b[8] = ttl;
	frame_of(&f, p);
	frame_ip_csum(&f, ETH_LEN);
	ip_of_frame(p, &f);
}

static void err_build(struct frame *f, const struct err *e)
{
	bool v6 = ip_v6(e->quote);
	uint32_t l3 = ETH_LEN + (e->vlan ? 4 : 0), n, len, i;
	uint32_t hlen = v6 ? 40 + 8u * e->ip_words : 20 + 4u * e->ip_words;
	uint8_t *p = f->b + l3, *icmp = p + hlen, proto = v6 ? P_ICMP6 : P_ICMP;
	uint64_t sum;

	memset(f, 0, sizeof(*f));
	memcpy(f->b, "\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02", 12);
	if (e->vlan) {
		put16(f->b + 12, E_VLAN);
		put16(f->b + 14, e->vlan);
	}
	put16(f->b + l3 - 2, v6 ? E_IP6 : E_IP4);
	n = e->l4_len ? ip_hlen(e->quote) + e->l4_len : e->quote->len;
	if (n > e->quote->len)
		n = e->quote->len;
	icmp[0] = e->type;
	icmp[1] = e->code;
	put32(icmp + 4, MTU_WORD);
	memcpy(icmp + 8, e->quote->b, n);
	if (e->tail) {
		if (n < 128)
			n = 128;
		for (i = 0; i < e->tail; i++)
			icmp[8 + n++] = (uint8_t)(0x20 + i);
	}
	len = 8 + n;
	f->len = l3 + hlen + len;
	if (v6) {
		p[0] = 0x60;
		p[1] = 0x20;
		put16(p + 4, (uint16_t)(hlen - 40 + len));
		p[6] = e->ip_words ? P_DSTOPTS : proto;
		p[7] = 55;
		addr_write(p + 8, true, e->src);
		addr_write(p + 24, true, e->dst);
		for (i = 0; i < e->ip_words; i++)
			p[40 + 8 * i] = i + 1u == e->ip_words ? proto : P_DSTOPTS;
		sum = ip_pseudo(p, proto, len);
	} else {
		p[0] = (uint8_t)(0x40 | hlen / 4);
		p[1] = 0xc0;
		put16(p + 2, (uint16_t)(hlen + len));
		put16(p + 4, 0x7777);
		p[8] = 55;
		p[9] = proto;
		addr_write(p + 12, false, e->src);
		addr_write(p + 16, false, e->dst);
		memset(p + 20, 1, hlen - 20);
		frame_ip_csum(f, l3);
		sum = 0;
	}
	put16(icmp + 2, (uint16_t)~words_fold(words_sum(icmp, len, sum)));
	for (i = 0; i < e->trailer; i++)
		f->b[f->len++] = 0xee;
}

/*
 * The same but for how a sum's zero is written: 0 and 0xffff are one number there (RFC 1071), and of UDP alone 0 has a meaning of its own.
 */
static const char *err_same(const struct frame *want, const struct frame *got)
{
	uint32_t i;

	if (want->len != got->len)
		return "the length differs";
	for (i = 0; i < want->len; i += 2) {
		uint16_t a = get16(want->b + i), b = get16(got->b + i);

		if (i + 1 == want->len) {
			a &= 0xff00;
			b &= 0xff00;
		}
		if (a != b && !((!a && b == 0xffff) || (!b && a == 0xffff)))
			return "other bytes than those of the error that quotes the original";
	}
	return NULL;
}

static void expect_err(const char *what, const struct frame *in, const struct run *r,
		       const struct frame *want)
{
	const char *wrong;

	if (r->verdict != VERDICT_PASS) {
		frame_print(stderr, "in", in);
		die("%s: dropped as %s, should be translated", what, reason_name(r->reason));
	}
	wrong = err_same(want, &r->out);
	if (!wrong)
		return;
	frame_print(stderr, "in", in);
	frame_print(stderr, "out", &r->out);
	frame_print(stderr, "want", want);
	die("%s: %s", what, wrong);
}

/* The scene, for one family. Returns the slice's row. */
static uint32_t scene(struct bed *b, bool v6, struct sluice_pool pool)
{
	struct sluice_lpm_key key = { .prefixlen = SLUICE_LPM_POOL_BITS + 96 + 16,
				      .addr = any_addr(v6, IP(10, 1, 0, 0)) };
	uint32_t zero = 0, one = 1;

	if (!v6)
		return bed_scene(b, FLOWS, pool);
	bed_open(b, FLOWS);
	bed_pool(b, 0, pool);
	bed_addr_any(b, 0, any_addr(true, SHARED), 11);
	map_put(b->nat->maps.clients, &key, &zero);
	key.prefixlen += 8;
	key.addr = any_addr(v6, IP(192, 0, 2, 0));
	map_put(b->nat->maps.no_nat, &key, &one);
	return bed_slice_any(b, any_addr(true, SHARED), FIRST, SLUICE_NEVER);
}

/* A packet in both its forms. */
struct pair {
	struct ip inner, outer;
};

/* A client's packet goes out. */
static void pair_out(struct bed *b, const char *what, bool v6, struct spec s, uint8_t ext,
		     struct pair *ret)
{
	struct frame in;
	struct run r;

	s.src = s.src ?: CLIENT;
	s.dst = s.dst ?: REMOTE;
	s.type = 8;
	if (s.proto == P_TCP && !s.flags)
		s.flags = T_SYN;
	ip_build(&ret->inner, v6, s, ext);
	frame_of(&in, &ret->inner);
	bed_run(b, EGRESS, FORWARDED, &in, &r);
	if (r.verdict != VERDICT_PASS)
		die("%s: the client's packet was dropped as %s", what, reason_name(r.reason));
	ip_of_frame(&ret->outer, &r.out);
	if (!memcmp(ret->inner.b, ret->outer.b, ret->inner.len))
		die("%s: the client's packet was not translated", what);
}

/* The remote end answers to what has gone out. */
static void pair_in(struct bed *b, const char *what, bool v6, const struct pair *out, struct spec s,
		    uint8_t ext, struct pair *ret)
{
	struct ip o = out->outer;
	struct frame in;
	struct run r;

	s.src = s.src ?: REMOTE;
	s.dst = SHARED;
	s.sport = get16(port_at(&o, s.proto == P_ICMP));
	s.dport = get16(port_at(&o, true));
	if (s.proto == P_TCP)
		s.flags = T_SYN | T_ACK;
	if (s.proto != P_ICMP)
		s.sport = get16(port_at(&o, false));
	s.type = 0;
	ip_build(&ret->outer, v6, s, ext);
	frame_of(&in, &ret->outer);
	bed_run(b, INGRESS, FORWARDED, &in, &r);
	if (r.verdict != VERDICT_PASS)
		die("%s: the answer was dropped as %s", what, reason_name(r.reason));
	ip_of_frame(&ret->inner, &r.out);
	if (!memcmp(ret->inner.b, ret->outer.b, ret->inner.len))
		die("%s: the answer was not translated", what);
}

/* All that the tables hold, to see that nothing in them changes. */
struct tables {
	uint8_t bytes[2][256][sizeof(struct sluice_flow_key) + sizeof(struct sluice_flow)];
	uint32_t n[2];
	int table;
};

static void tables_add(const struct sluice_flow_key *key, struct sluice_flow *flow, void *arg)
{
	struct tables *t = arg;
	uint8_t *at;

	if (t->n[t->table] >= 256)
		die("more flows than this test keeps");
	at = t->bytes[t->table][t->n[t->table]++];
	memcpy(at, key, sizeof(*key));
	memcpy(at + sizeof(*key), flow, sizeof(*flow));
}

static void tables_read(struct bed *b, struct tables *t)
{
	memset(t, 0, sizeof(*t));
	flows_each(b->nat->maps.fwd, tables_add, t);
	t->table = 1;
	flows_each(b->nat->maps.rev, tables_add, t);
}

static void expect_tables(struct bed *b, const char *what, const struct tables *was)
{
	static struct tables now;

	tables_read(b, &now);
	if (memcmp(was->n, now.n, sizeof(now.n)) ||
	    memcmp(was->bytes, now.bytes, sizeof(now.bytes)))
		die("%s: an error changed a flow", what);
}

struct shape {
	const char *name;
	struct spec s; /* of the quoted packet */
	uint32_t l4_len;
	uint8_t ip_words; /* of the error */
	uint8_t ext;      /* IPv6: of the quoted packet */
	uint16_t vlan, tail, trailer;
};

static const struct shape shapes[] = {
	{ "all of it", { .payload = 40 } },
	{ "an odd length", { .payload = 33 } },
	{ "8 bytes", { .payload = 40 }, .l4_len = 8 },
	{ "9 bytes", { .payload = 40 }, .l4_len = 9 },
	{ "16 bytes", { .payload = 40 }, .l4_len = 16 },
	{ "17 bytes, half of TCP's checksum", { .payload = 40 }, .l4_len = 17 },
	{ "18 bytes, TCP's checksum just in", { .payload = 40 }, .l4_len = 18 },
	{ "19 bytes", { .payload = 40 }, .l4_len = 19 },
	{ "20 bytes", { .payload = 40 }, .l4_len = 20 },
	{ "options", { .payload = 40, .ip_words = 1 }, .ext = P_DSTOPTS },
	{ "most options", { .payload = 40, .ip_words = 10 }, .ext = P_DSTOPTS },
	{ "most options, 8 bytes",
	  { .payload = 40, .ip_words = 10 },
	  .l4_len = 8,
	  .ext = P_DSTOPTS },
	{ "long", { .payload = 1300 } },
	{ "longer than is read, odd", { .payload = 555 } },
	{ "a wrong checksum", { .payload = 40, .csum_error = 0x1234 } },
	{ "a checksum that is wrong by little", { .payload = 40, .csum_error = 1 } },
	{ "a wrong checksum, cut", { .payload = 40, .csum_error = 0xabcd }, .l4_len = 20 },
	{ "no checksum (UDP)", { .payload = 40, .no_csum = true } },
	{ "TCP options", { .payload = 5, .tcp_words = 10 } },
	{ "extensions behind it", { .payload = 4 }, .tail = 20 },
	{ "extensions behind a long one", { .payload = 300 }, .tail = 21 },
	{ "behind options of the error's own", { .payload = 40 }, .ip_words = 1 },
	{ "behind more options", { .payload = 40 }, .ip_words = 4, .l4_len = 8 },
	{ "in a VLAN", { .payload = 40 }, .vlan = 5 },
	{ "with what the link adds", { .payload = 1 }, .l4_len = 8, .trailer = 7 },
};

static const struct {
	uint8_t v4, v4_code, v6, v6_code;
} types[] = {
	{ 3, 0, 1, 0 },  { 3, 1, 1, 3 },  { 3, 3, 1, 4 },  { 3, 4, 2, 0 }, { 3, 13, 1, 1 },
	{ 11, 0, 3, 0 }, { 11, 1, 3, 1 }, { 12, 0, 4, 1 }, { 4, 0, 4, 2 },
};

/* What is said of a case, should it fail. */
static const char *case_name(const char *what, bool v6, uint8_t proto, int mapping)
{
	static char buf[160];

	snprintf(buf, sizeof(buf), "%s, IPv%d, protocol %u, %s", what, v6 ? 6 : 4, proto,
		 mapping == SLUICE_EIM ? "EIM" : "overload");
	return buf;
}

static bool shape_is_for(const struct shape *sh, bool v6, uint8_t proto)
{
	/* UDP without a checksum is another matter in IPv6. */
	if (sh->s.no_csum && (proto != P_UDP || v6))
		return false;
	if (sh->s.tcp_words && proto != P_TCP)
		return false;
	return true;
}

static struct err err_of(const struct shape *sh, bool v6, size_t type)
{
	struct err e = { .type = v6 ? types[type].v6 : types[type].v4,
			 .code = v6 ? types[type].v6_code : types[type].v4_code,
			 .l4_len = sh->l4_len,
			 .ip_words = sh->ip_words,
			 .vlan = sh->vlan,
			 .tail = sh->tail,
			 .trailer = sh->trailer };

	return e;
}

/* Half a checksum cannot be changed rightly: the half that is not there would have its say. It stays as it was quoted. */
static void half_sum(const struct shape *sh, uint8_t proto, const struct ip *quoted,
		     struct ip *want)
{
	if (proto == P_TCP && sh->l4_len == 17)
		want->b[ip_hlen(want) + 16] = quoted->b[ip_hlen(quoted) + 16];
}

/* From a router outside, about what a client has sent. */
static void arrive_all(struct bed *b, bool v6, uint8_t proto, int mapping)
{
	static struct tables was;
	struct frame in, want;
	struct pair p;
	struct run r;
	size_t i;

	for (i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		const struct shape *sh = &shapes[i];
		struct spec s = sh->s;
		size_t type = i % (sizeof(types) / sizeof(types[0]));
		struct err e = err_of(sh, v6, type);
		const char *name = case_name(sh->name, v6, proto, mapping);

		if (!shape_is_for(sh, v6, proto))
			continue;
		s.proto = proto;
		s.sport = (uint16_t)(30000 + i);
		s.dport = proto == P_ICMP ? 0 : 443;
		pair_out(b, name, v6, s, v6 ? sh->ext : 0, &p);
		ip_hops(&p.outer, 1);
		ip_hops(&p.inner, 1);
		tables_read(b, &was);
		e.src = i % 2 ? ROUTER : REMOTE;
		e.dst = SHARED;
		e.quote = &p.outer;
		err_build(&in, &e);
		half_sum(sh, proto, &p.outer, &p.inner);
		e.dst = CLIENT;
		e.quote = &p.inner;
		err_build(&want, &e);
		bed_run(b, INGRESS, FORWARDED, &in, &r);
		expect_err(name, &in, &r, &want);
		expect_tables(b, name, &was);
	}
}

/* From inside, about what has come in. */
static void leave_all(struct bed *b, bool v6, uint8_t proto, int mapping)
{
	static const struct {
		uint32_t src, came_by, want;
	} from[] = {
		{ CLIENT, FORWARDED, SHARED },    { INSIDE, FORWARDED, SHARED },
		{ ELSEWHERE, FORWARDED, SHARED }, { MACHINE, MADE_HERE, MACHINE },
		{ INSIDE, MADE_HERE, SHARED },
	};
	static struct tables was;
	struct frame in, want;
	struct pair out, p;
	struct run r;
	size_t i;

	for (i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		const struct shape *sh = &shapes[i];
		struct spec s = { .proto = proto };
		size_t type = i % (sizeof(types) / sizeof(types[0]));
		size_t k = i % (sizeof(from) / sizeof(from[0]));
		struct err e = err_of(sh, v6, type);
		const char *name = case_name(sh->name, v6, proto, mapping);

		if (!shape_is_for(sh, v6, proto))
			continue;
		s.sport = (uint16_t)(31000 + i);
		s.dport = proto == P_ICMP ? 0 : 443;
		pair_out(b, name, v6, s, 0, &out);
		s = sh->s;
		s.proto = proto;
		pair_in(b, name, v6, &out, s, v6 ? sh->ext : 0, &p);
		ip_hops(&p.outer, 1);
		ip_hops(&p.inner, 1);
		tables_read(b, &was);
		e.dst = REMOTE;
		e.src = from[k].src;
		e.quote = &p.inner;
		err_build(&in, &e);
		half_sum(sh, proto, &p.inner, &p.outer);
		e.src = from[k].want;
		e.quote = &p.outer;
		err_build(&want, &e);
		bed_run(b, EGRESS, from[k].came_by, &in, &r);
		expect_err(name, &in, &r, &want);
		expect_tables(b, name, &was);
	}
}

/* Every shape, of every protocol, family and mapping, in one direction. */
static void in_all_worlds(void (*fn)(struct bed *, bool, uint8_t, int))
{
	struct bed b;
	size_t k;
	int mapping, v6;

	for (v6 = 0; v6 < 2; v6++) {
		for (mapping = SLUICE_OVERLOAD; mapping <= SLUICE_EIM; mapping++) {
			scene(&b, v6,
			      pool_with(mapping, mapping == SLUICE_EIM ? SLUICE_FILTER_ADDRESS
								       : SLUICE_FILTER_PORT));
			for (k = 0; k < sizeof(protos); k++)
				fn(&b, v6, protos[k], mapping);
			bed_close(&b);
		}
	}
}

static void test_arriving(void **state)
{
	(void)state;
	in_all_worlds(arrive_all);
}

static void test_leaving(void **state)
{
	(void)state;
	in_all_worlds(leave_all);
}

/* One flow with a packet out and one in, and errors about both: from ROUTER outside, from CLIENT inside. */
struct talk {
	struct pair out, in;
	struct err arriving, leaving;
};

static void talk_begin(struct bed *b, bool v6, uint8_t proto, uint16_t sport, struct talk *t)
{
	struct spec s = {
		.proto = proto, .sport = sport, .dport = proto == P_ICMP ? 0 : 443, .payload = 40
	};

	memset(t, 0, sizeof(*t));
	pair_out(b, "out", v6, s, 0, &t->out);
	pair_in(b, "in", v6, &t->out, s, 0, &t->in);
	t->arriving = (struct err){
		.src = ROUTER, .dst = SHARED, .type = v6 ? 1 : 3, .code = 1, .quote = &t->out.outer
	};
	t->leaving = (struct err){
		.src = CLIENT, .dst = REMOTE, .type = v6 ? 1 : 3, .code = 1, .quote = &t->in.inner
	};
}

static void expect_drop(struct bed *b, const char *what, enum hook hook, uint32_t came_by,
			const struct frame *in, int reason)
{
	struct run r;

	bed_run(b, hook, came_by, in, &r);
	expect_reason(what, in, &r, reason);
}

static void err_dropped(struct bed *b, const char *what, enum hook hook, uint32_t came_by,
			const struct err *e, int reason)
{
	struct frame in;

	err_build(&in, e);
	expect_drop(b, what, hook, came_by, &in, reason);
}

static void err_unchanged(struct bed *b, const char *what, enum hook hook, uint32_t came_by,
			  const struct err *e)
{
	struct frame in;
	struct run r;

	err_build(&in, e);
	bed_run(b, hook, came_by, &in, &r);
	expect_unchanged(what, &in, &r);
}

static void err_passes(struct bed *b, const char *what, enum hook hook, uint32_t came_by,
		       const struct err *e)
{
	struct frame in;
	struct run r;

	err_build(&in, e);
	bed_run(b, hook, came_by, &in, &r);
	if (r.verdict != VERDICT_PASS || frame_equal(&in, &r.out))
		die("%s: %s", what,
		    r.verdict == VERDICT_PASS ? "not translated" : reason_name(r.reason));
}

/* Any wrong bit, wherever the message ends: the ICMP checksum, or IPv4's of the quoted header, tells (RFC 5508 REQ-3). */
static void test_wrong_sums(void **state)
{
	static const uint32_t lens[] = { 8, 9, 50, 199, 200, 201, 455, 456, 457, 1251 };
	struct frame good, bad;
	struct talk t;
	struct bed b;
	uint32_t i, at, icmp, dir;
	int v6;

	(void)state;
	for (v6 = 0; v6 < 2; v6++) {
		scene(&b, v6, pool_default());
		talk_begin(&b, v6, P_UDP, 4000, &t);
		for (i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
			struct spec s = {
				.proto = P_UDP, .sport = 4000, .dport = 443, .payload = 1300
			};
			uint32_t step = lens[i] > 200 ? 31 : 1;

			pair_out(&b, "out", v6, s, 0, &t.out);
			pair_in(&b, "in", v6, &t.out, s, 0, &t.in);
			for (dir = 0; dir < 2; dir++) {
				struct err e = dir ? t.leaving : t.arriving;
				enum hook hook = dir ? EGRESS : INGRESS;

				e.l4_len = lens[i];
				err_build(&good, &e);
				err_passes(&b, "all right", hook, FORWARDED, &e);
				icmp = ETH_LEN + (v6 ? 40 : 20);
				for (at = icmp + 4; at < good.len; at += step) {
					/* These decide which flow it is about, or none. */
					if (at >= icmp + 8 && at < icmp + (v6 ? 56 : 36))
						continue;
					bad = good;
					bad.b[at] ^= (uint8_t)(1 << at % 8);
					expect_drop(&b, "a wrong bit", hook, FORWARDED, &bad,
						    SLUICE_DROP_icmp_sum);
				}
				bad = good;
				bad.b[bad.len - 1] ^= 0x80;
				expect_drop(&b, "the last byte", hook, FORWARDED, &bad,
					    SLUICE_DROP_icmp_sum);
				bad = good;
				bad.b[icmp + 2] ^= 1;
				expect_drop(&b, "the sum itself", hook, FORWARDED, &bad,
					    SLUICE_DROP_icmp_sum);
				if (v6) { /* covered by the pseudo header; the source is not looked at but for that */
					bad = good;
					bad.b[ETH_LEN + 9] ^= 4;
					expect_drop(&b, "another source", hook, FORWARDED, &bad,
						    SLUICE_DROP_icmp_sum);
				}
			}
		}
		bed_close(&b);
	}
	/* The quoted header's sum alone: the message is right, and tells of a packet that can't be. */
	scene(&b, false, pool_default());
	talk_begin(&b, false, P_TCP, 4000, &t);
	put16(t.out.outer.b + 10, (uint16_t)(get16(t.out.outer.b + 10) ^ 0x0100));
	put16(t.in.inner.b + 10, (uint16_t)(get16(t.in.inner.b + 10) ^ 0x0100));
	err_dropped(&b, "the quoted header's sum", INGRESS, FORWARDED, &t.arriving,
		    SLUICE_DROP_icmp_sum);
	err_dropped(&b, "the quoted header's sum", EGRESS, FORWARDED, &t.leaving,
		    SLUICE_DROP_icmp_sum);
	err_dropped(&b, "the quoted header's sum", EGRESS, MADE_HERE, &t.leaving,
		    SLUICE_DROP_icmp_sum);
	bed_close(&b);
}

/* What has no flow, or says what can't be, goes no further, and no flow hears of it. */
static void test_not_ours(void **state)
{
	static struct tables was;
	struct talk t, u;
	struct ip quote;
	struct err e;
	struct bed b;
	uint32_t l4;
	size_t k;
	int v6, mapping;

	(void)state;
	for (k = 0; k < 2 * 2 * sizeof(protos); k++) {
		uint8_t proto = protos[k % 3], gre = 47;
		int unasked;

		v6 = k / 3 & 1;
		mapping = k / 6 ? SLUICE_EIM : SLUICE_OVERLOAD;
		unasked = mapping == SLUICE_EIM ? SLUICE_DROP_filtered : SLUICE_DROP_unsolicited;
		if (k % 3 == 0)
			scene(&b, v6, pool_with(mapping, SLUICE_FILTER_ADDRESS));
		talk_begin(&b, v6, proto, 4000, &t);
		l4 = v6 ? 40 : 20;
		tables_read(&b, &was);

		/* Another remote end than the flow's. */
		e = t.arriving;
		quote = t.out.outer;
		addr_write(quote.b + (v6 ? 24 : 16), v6, REMOTE2);
		ip_hops(&quote, 9);
		e.quote = &quote;
		err_dropped(&b, "another remote end", INGRESS, FORWARDED, &e, unasked);
		e = t.leaving;
		e.dst = REMOTE2;
		quote = t.in.inner;
		addr_write(quote.b + (v6 ? 8 : 12), v6, REMOTE2);
		ip_hops(&quote, 9);
		e.quote = &quote;
		err_dropped(&b, "another remote end", EGRESS, FORWARDED, &e,
			    SLUICE_DROP_icmp_error);
		e.src = MACHINE;
		err_dropped(&b, "another remote end", EGRESS, MADE_HERE, &e,
			    SLUICE_DROP_icmp_error);
		e.src = ELSEWHERE;
		err_dropped(&b, "another remote end", EGRESS, FORWARDED, &e,
			    SLUICE_DROP_icmp_error);

		/* Another port. */
		e = t.arriving;
		quote = t.out.outer;
		put16(port_at(&quote, true), (uint16_t)(get16(port_at(&quote, true)) ^ 1));
		e.quote = &quote;
		err_dropped(&b, "another outer port", INGRESS, FORWARDED, &e,
			    SLUICE_DROP_unsolicited);
		e = t.leaving;
		quote = t.in.inner;
		put16(port_at(&quote, false), 4001);
		e.quote = &quote;
		err_dropped(&b, "another inner port", EGRESS, FORWARDED, &e,
			    SLUICE_DROP_icmp_error);

		/* To or about somebody else. */
		e = t.arriving;
		quote = t.out.outer;
		addr_write(quote.b + (v6 ? 8 : 12), v6, OTHER);
		ip_hops(&quote, 9);
		e.quote = &quote;
		err_dropped(&b, "about another's packet", INGRESS, FORWARDED, &e,
			    SLUICE_DROP_malformed);
		e = t.leaving;
		e.dst = REMOTE2;
		err_dropped(&b, "to another than the sender", EGRESS, FORWARDED, &e,
			    SLUICE_DROP_icmp_error);
		e = t.leaving;
		e.src = SHARED;
		err_dropped(&b, "a forwarded one from the shared address", EGRESS, FORWARDED, &e,
			    SLUICE_DROP_spoof);

		/* The wrong way around: the quote is of a packet in the other direction. */
		e = t.arriving;
		e.quote = &t.in.outer;
		err_dropped(&b, "about what came in", INGRESS, FORWARDED, &e,
			    SLUICE_DROP_malformed);
		e = t.leaving;
		e.quote = &t.out.inner;
		err_dropped(&b, "about what went out", EGRESS, FORWARDED, &e,
			    SLUICE_DROP_icmp_error);

		/* Too little of a quote, by each byte. */
		e = t.arriving;
		for (e.l4_len = 7; e.l4_len; e.l4_len--)
			err_dropped(&b, "cut", INGRESS, FORWARDED, &e, SLUICE_DROP_malformed);
		e = t.leaving;
		for (e.l4_len = 7; e.l4_len; e.l4_len--)
			err_dropped(&b, "cut", EGRESS, FORWARDED, &e, SLUICE_DROP_malformed);
		for (quote.len = l4; quote.len; quote.len--) {
			memcpy(quote.b, t.out.outer.b, quote.len);
			e = t.arriving;
			e.quote = &quote;
			err_dropped(&b, "cut in the header", INGRESS, FORWARDED, &e,
				    SLUICE_DROP_malformed);
			memcpy(quote.b, t.in.inner.b, quote.len);
			e = t.leaving;
			e.quote = &quote;
			err_dropped(&b, "cut in the header", EGRESS, FORWARDED, &e,
				    SLUICE_DROP_malformed);
		}

		/* Another protocol, or family. */
		e = t.arriving;
		quote = t.out.outer;
		quote.b[v6 ? 6 : 9] = gre;
		ip_hops(&quote, 9);
		e.quote = &quote;
		err_dropped(&b, "about GRE", INGRESS, FORWARDED, &e, SLUICE_DROP_proto);
		quote.b[v6 ? 6 : 9] = v6 ? P_ICMP : P_ICMP6;
		ip_hops(&quote, 9);
		err_dropped(&b, "about the other family's ICMP", INGRESS, FORWARDED, &e,
			    SLUICE_DROP_proto);
		if (!v6) {
			/* A fragment that is not the first has data where ports would be. */
			quote = t.out.outer;
			put16(quote.b + 6, 1);
			ip_hops(&quote, 9);
			err_dropped(&b, "about a later fragment", INGRESS, FORWARDED, &e,
				    SLUICE_DROP_malformed);
			put16(quote.b + 6, IP_MF);
			ip_hops(&quote, 9);
			err_passes(&b, "about a first fragment", INGRESS, FORWARDED, &e);
		}
		if (proto == P_ICMP) {
			quote = t.out.outer;
			quote.b[l4] = v6 ? 129 : 0;
			e.quote = &quote;
			err_dropped(&b, "about a reply that nobody sends", INGRESS, FORWARDED, &e,
				    SLUICE_DROP_icmp_type);
			quote.b[l4] = v6 ? 135 : 13;
			err_dropped(&b, "about another query", INGRESS, FORWARDED, &e,
				    SLUICE_DROP_icmp_type);
			quote.b[l4] = v6 ? 1 : 3;
			err_dropped(&b, "about an error", INGRESS, FORWARDED, &e,
				    SLUICE_DROP_icmp_type);
		}
		expect_tables(&b, "errors about nothing", &was);

		/* And after all that the flow's own errors still go through, both ways. */
		err_passes(&b, "in", INGRESS, FORWARDED, &t.arriving);
		err_passes(&b, "out", EGRESS, FORWARDED, &t.leaving);
		expect_tables(&b, "errors", &was);
		talk_begin(&b, v6, proto, 4000, &u);
		if (memcmp(u.out.outer.b, t.out.outer.b, t.out.outer.len))
			die("the flow is not what it was");
		if (k % 3 == 2)
			bed_close(&b);
	}
}

/* What translation has nothing to do with is let alone. */
static void test_left_alone(void **state)
{
	struct spec s = { .proto = P_UDP, .src = OTHER, .dst = REMOTE, .sport = 5, .dport = 6 };
	struct ip quote;
	struct err e;
	struct bed b;
	int v6;

	(void)state;
	for (v6 = 0; v6 < 2; v6++) {
		scene(&b, v6, pool_default());
		/* Of and about others. */
		s.src = REMOTE;
		s.dst = OTHER;
		ip_build(&quote, v6, s, 0);
		e = (struct err){
			.src = OTHER, .dst = REMOTE, .type = v6 ? 1 : 3, .code = 4, .quote = &quote
		};
		err_unchanged(&b, "of others", EGRESS, FORWARDED, &e);
		err_unchanged(&b, "of others", INGRESS, FORWARDED, &e);
		/* The machine's own, about what came for itself; and to a client of what it has sent. */
		s.dst = MACHINE;
		ip_build(&quote, v6, s, 0);
		e.src = MACHINE;
		err_unchanged(&b, "of the machine", EGRESS, MADE_HERE, &e);
		s.src = CLIENT;
		s.dst = REMOTE;
		ip_build(&quote, v6, s, 0);
		e.dst = CLIENT;
		err_unchanged(&b, "to a client", EGRESS, MADE_HERE, &e);
		/* A client and one without NAT. */
		s.src = NO_NAT;
		s.dst = CLIENT;
		ip_build(&quote, v6, s, 0);
		e.src = CLIENT;
		e.dst = NO_NAT;
		err_unchanged(&b, "no NAT", EGRESS, FORWARDED, &e);
		e.src = ELSEWHERE;
		err_unchanged(&b, "no NAT", EGRESS, FORWARDED, &e);
		e.src = MACHINE;
		err_unchanged(&b, "no NAT", EGRESS, MADE_HERE, &e);
		/* With a shared source, about what came to the shared address itself. */
		s.src = REMOTE;
		s.dst = SHARED;
		s.dport = FIRST;
		ip_build(&quote, v6, s, 0);
		e.src = SHARED;
		e.dst = REMOTE;
		err_dropped(&b, "about a socket", EGRESS, MADE_HERE, &e, SLUICE_DROP_escape);
		bed_close(&b);
	}
}

/* With the slice's deadline behind it, nothing comes in or leaves. */
static void test_fenced(void **state)
{
	struct talk t;
	struct bed b;
	uint32_t row;
	int v6;

	(void)state;
	for (v6 = 0; v6 < 2; v6++) {
		row = scene(&b, v6, pool_default());
		talk_begin(&b, v6, P_UDP, 4000, &t);
		slice_deadline(&b, row, now_ns() - 1);
		err_dropped(&b, "in", INGRESS, FORWARDED, &t.arriving, SLUICE_DROP_fenced);
		err_dropped(&b, "out", EGRESS, FORWARDED, &t.leaving, SLUICE_DROP_fenced);
		t.leaving.src = MACHINE;
		err_dropped(&b, "made here", EGRESS, MADE_HERE, &t.leaving, SLUICE_DROP_fenced);
		slice_deadline(&b, row, SLUICE_NEVER);
		err_passes(&b, "in", INGRESS, FORWARDED, &t.arriving);
		slice_epoch(&b, row, 2);
		err_dropped(&b, "another epoch", EGRESS, MADE_HERE, &t.leaving,
			    SLUICE_DROP_icmp_error);
		bed_close(&b);
	}
}

/*
 * Sockets of this machine that are translated: one under "sluice exec", with the machine's own address, and one whose port was taken. Their flows are put into
 * the tables by hand.
 */
static void test_sockets(void **state)
{
	static const struct {
		uint32_t ip;
		uint16_t port;
	} inner[] = { { MACHINE, 5000 }, { SHARED, FIRST + 7 } };
	struct frame in, want;
	struct ip a, z;
	struct run r;
	struct bed b;
	uint32_t row;
	size_t i;
	int v6;

	(void)state;
	for (v6 = 0; v6 < 2; v6++) {
		row = scene(&b, v6, pool_with(SLUICE_OVERLOAD, SLUICE_FILTER_PORT));
		for (i = 0; i < 2; i++) {
			struct sluice_flow_key fk = { .src = any_addr(v6, inner[i].ip),
						      .sport = htons(inner[i].port),
						      .dst = any_addr(v6, REMOTE),
						      .dport = htons(443),
						      .proto = P_UDP,
						      .zone = SLUICE_ZONE_LOCAL };
			struct sluice_flow_key rk = { .src = any_addr(v6, REMOTE),
						      .sport = htons(443),
						      .dst = any_addr(v6, SHARED),
						      .dport = htons(FIRST + 9),
						      .proto = P_UDP };
			struct sluice_flow f = { .port = htons(FIRST + 9),
						 .rport = htons(443),
						 .slice = row,
						 .epoch = 1,
						 .seen_s = now_s(),
						 .timeout_s = 300,
						 .flags = SLUICE_FLOW_LOCAL };
			struct spec s = { .proto = P_UDP, .dport = 443, .payload = 30 };
			struct err e = {
				.type = v6 ? 1 : 3, .code = 3, .dst = SHARED, .src = ROUTER
			};

			map_put(b.nat->maps.fwd, &fk, &f);
			f.addr = fk.src;
			f.port = fk.sport;
			f.zone = SLUICE_ZONE_LOCAL;
			map_put(b.nat->maps.rev, &rk, &f);

			/* About what the socket has sent. */
			s.src = SHARED;
			s.sport = FIRST + 9;
			s.dst = REMOTE;
			ip_build(&a, v6, s, 0);
			s.src = inner[i].ip;
			s.sport = inner[i].port;
			ip_build(&z, v6, s, 0);
			e.quote = &a;
			err_build(&in, &e);
			e.dst = inner[i].ip;
			e.quote = &z;
			err_build(&want, &e);
			bed_run(&b, INGRESS, FORWARDED, &in, &r);
			expect_err("to a socket", &in, &r, &want);

			/* By the kernel for the socket: about what has come for it. */
			s.src = REMOTE;
			s.sport = 443;
			s.dst = SHARED;
			s.dport = FIRST + 9;
			ip_build(&a, v6, s, 0);
			s.dst = inner[i].ip;
			s.dport = inner[i].port;
			ip_build(&z, v6, s, 0);
			e.src = inner[i].ip;
			e.dst = REMOTE;
			e.quote = &z;
			err_build(&in, &e);
			e.src = SHARED;
			e.quote = &a;
			err_build(&want, &e);
			bed_run(&b, EGRESS, MADE_HERE, &in, &r);
			expect_err("for a socket", &in, &r, &want);
			/* Nobody else speaks for it. */
			bed_run(&b, EGRESS, FORWARDED, &in, &r);
			if (r.verdict == VERDICT_PASS && !frame_equal(&in, &r.out))
				die("a forwarded error was taken for a socket's");
		}
		bed_close(&b);
	}
}

/* Every kind of mapping and filtering lets through errors about what was sent, and no others. */
static void test_filtering(void **state)
{
	static const uint8_t filters[] = { SLUICE_FILTER_ADDRESS, SLUICE_FILTER_NONE,
					   SLUICE_FILTER_PORT };
	struct sluice_pool p;
	struct talk t;
	struct bed b;
	size_t i, k;
	int v6;

	(void)state;
	for (v6 = 0; v6 < 2; v6++) {
		scene(&b, v6, pool_with(SLUICE_EIM, SLUICE_FILTER_ADDRESS));
		for (i = 0; i < sizeof(filters) * sizeof(protos); i++) {
			map_get_row(b.nat->maps.pools, 0, &p);
			for (k = 0; k < SLUICE_L4_MAX; k++)
				p.filtering[k] = filters[i / sizeof(protos)];
			map_put_row(b.nat->maps.pools, 0, &p);
			talk_begin(&b, v6, protos[i % sizeof(protos)], (uint16_t)(4000 + i), &t);
			err_passes(&b, "in", INGRESS, FORWARDED, &t.arriving);
			err_passes(&b, "out", EGRESS, FORWARDED, &t.leaving);
			t.leaving.src = MACHINE;
			err_passes(&b, "made here", EGRESS, MADE_HERE, &t.leaving);
		}
		bed_close(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_arriving),   cmocka_unit_test(test_leaving),
		cmocka_unit_test(test_wrong_sums), cmocka_unit_test(test_not_ours),
		cmocka_unit_test(test_left_alone), cmocka_unit_test(test_fenced),
		cmocka_unit_test(test_sockets),    cmocka_unit_test(test_filtering),
	};

	return cmocka_run_group_tests_name("icmp", tests, NULL, NULL);
}
