/* SPDX-License-Identifier: BSD-2-Clause */
/* What tests of flows say to the bed: send this out and see it translated, send the answer and see it restored. */
#ifndef FLOWS_H
#define FLOWS_H

#include "harness.h"

/* A flow as its client sees it, and where it came out. */
struct conn {
	uint8_t proto;
	uint32_t src, dst; /* of the client's packets */
	uint16_t sport, dport;
	uint32_t outer;
	uint16_t port;
};

static inline struct conn conn_of(uint8_t proto, uint32_t src, uint16_t sport, uint32_t dst,
				  uint16_t dport)
{
	struct conn c = { .proto = proto, .src = src, .dst = dst, .sport = sport, .dport = dport };

	return c;
}

static inline uint32_t l4_of(uint8_t proto)
{
	return proto == P_TCP ? SLUICE_TCP : proto == P_UDP ? SLUICE_UDP : SLUICE_ICMP;
}

/* The nth of many different flows to one destination. */
static inline struct conn nth(uint8_t proto, uint32_t n, uint32_t dst)
{
	return conn_of(proto, CLIENT + n / 7, (uint16_t)(20000 + n % 7), dst,
		       proto == P_ICMP ? 0 : 80);
}

/* A packet of the client: flags for TCP, an echo request for ICMP. */
static inline struct spec conn_out(const struct conn *c, uint8_t flags)
{
	struct spec s = { .proto = c->proto,
			  .src = c->src,
			  .dst = c->dst,
			  .sport = c->sport,
			  .dport = c->dport,
			  .flags = flags,
			  .type = 8,
			  .payload = 10 };

	return s;
}

/* A packet of the remote end, to where the flow came out. */
static inline struct spec conn_in(const struct conn *c, uint8_t flags)
{
	struct spec s = { .proto = c->proto,
			  .src = c->dst,
			  .dst = c->outer,
			  .sport = c->dport,
			  .dport = c->port,
			  .flags = flags,
			  .type = 0,
			  .payload = 11 };

	if (c->proto == P_ICMP)
		s.sport = c->port;
	return s;
}

/* The default pool, but every protocol mapped and filtered like this. */
static inline struct sluice_pool pool_with(enum sluice_mapping mapping,
					   enum sluice_filtering filtering)
{
	struct sluice_pool p = pool_default();
	int i;

	for (i = 0; i < SLUICE_L4_MAX; i++) {
		p.mapping[i] = (uint8_t)mapping;
		p.filtering[i] = (uint8_t)filtering;
	}
	return p;
}

/* The same for tests that set times back: short, but none ends by itself. */
static inline struct sluice_pool pool_all(enum sluice_mapping mapping)
{
	struct sluice_pool p = pool_default();
	int i;

	for (i = 0; i < SLUICE_L4_MAX; i++)
		p.mapping[i] = (uint8_t)mapping;
	/* Short, so that a flow can be made to have ended; long enough for none to end by itself. */
	p.timers = (struct sluice_timers){ 300, 60, 60, 60, 60, 60, 60, 60 };
	return p;
}

static inline void expect_unchanged(const char *what, const struct frame *in, const struct run *r)
{
	if (r->verdict != VERDICT_PASS) {
		frame_print(stderr, "in", in);
		die("%s: dropped as %s, should pass", what, reason_name(r->reason));
	}
	if (!frame_equal(in, &r->out)) {
		frame_print(stderr, "in", in);
		frame_print(stderr, "out", &r->out);
		die("%s: was changed, should not be", what);
	}
}

static inline void expect_reason(const char *what, const struct frame *in, const struct run *r,
				 int reason)
{
	if (r->verdict == VERDICT_DROP && r->reason == reason)
		return;
	frame_print(stderr, "in", in);
	if (r->verdict != VERDICT_DROP) {
		frame_print(stderr, "out", &r->out);
		die("%s: passed, should be dropped as %s", what, reason_name(reason));
	}
	die("%s: dropped as %s, should be as %s", what, reason_name(r->reason),
	    reason_name(reason));
}

/* The packet must pass, rewritten only at one end. *ret: the output as the reader sees it. */
static inline void expect_rewritten(const char *what, const struct frame *in, const struct run *r,
				    bool source, struct view *ret)
{
	const char *wrong;

	if (r->verdict != VERDICT_PASS) {
		frame_print(stderr, "in", in);
		die("%s: dropped as %s, should be translated", what, reason_name(r->reason));
	}
	wrong = frame_rewritten(in, &r->out, source, ret);
	if (!wrong)
		return;
	frame_print(stderr, "in", in);
	frame_print(stderr, "out", &r->out);
	die("%s: %s", what, wrong);
}

static inline uint16_t view_local_port(const struct view *v, bool source)
{
	return source || v->proto == P_ICMP
		       ? (v->type == 0 && v->proto == P_ICMP ? v->dport : v->sport)
		       : v->dport;
}

/* Runs one packet of a spec; the verdict is the caller's to judge. */
static inline void send_spec(struct bed *b, enum hook hook, uint32_t came_by, const struct spec *s,
			     struct frame *ret_in, struct run *ret)
{
	frame_build(ret_in, s);
	bed_run(b, hook, came_by, ret_in, ret);
}

/* The client sends: must come out translated to a shared address. Fills c->outer and c->port. */
static inline void conn_sends(struct bed *b, const char *what, struct conn *c, uint8_t flags)
{
	struct spec s = conn_out(c, flags);
	struct frame in;
	struct view v;
	struct run r;

	send_spec(b, EGRESS, FORWARDED, &s, &in, &r);
	expect_rewritten(what, &in, &r, true, &v);
	if (v.src != SHARED && v.src != SHARED2)
		die("%s: came out with source %08x", what, v.src);
	if (!v.l3_good || !v.l4_good)
		die("%s: wrong checksum", what);
	c->outer = v.src;
	c->port = v.sport;
}

/* Sends again, and the flow must come out where it did before. */
static inline void conn_sends_same(struct bed *b, const char *what, const struct conn *c,
				   uint8_t flags)
{
	struct conn again = *c;

	conn_sends(b, what, &again, flags);
	if (again.outer != c->outer || again.port != c->port)
		die("%s: moved from port %u to %u", what, c->port, again.port);
}

/* The remote end answers: must be restored to the client's address and port. */
static inline void conn_answers(struct bed *b, const char *what, const struct conn *c,
				uint8_t flags)
{
	struct spec s = conn_in(c, flags);
	struct frame in;
	struct view v;
	struct run r;

	send_spec(b, INGRESS, FORWARDED, &s, &in, &r);
	expect_rewritten(what, &in, &r, false, &v);
	if (v.dst != c->src || v.dport != c->sport)
		die("%s: restored to %08x:%u", what, v.dst, v.dport);
	if (!v.l3_good || !v.l4_good)
		die("%s: wrong checksum", what);
}

static inline void conn_sends_dropped(struct bed *b, const char *what, const struct conn *c,
				      uint8_t flags, int reason)
{
	struct spec s = conn_out(c, flags);
	struct frame in;
	struct run r;

	send_spec(b, EGRESS, FORWARDED, &s, &in, &r);
	expect_reason(what, &in, &r, reason);
}

static inline void conn_answers_dropped(struct bed *b, const char *what, const struct conn *c,
					uint8_t flags, int reason)
{
	struct spec s = conn_in(c, flags);
	struct frame in;
	struct run r;

	send_spec(b, INGRESS, FORWARDED, &s, &in, &r);
	expect_reason(what, &in, &r, reason);
}

/*
 * The answer to a flow that is dead but not swept yet. An endpoint-independent port is then known as used, though by nobody,
 * so that either reason is right.
 */
static inline void conn_answers_too_late(struct bed *b, const char *what, const struct conn *c,
					 uint8_t flags)
{
	struct spec s = conn_in(c, flags);
	struct frame in;
	struct run r;

	send_spec(b, INGRESS, FORWARDED, &s, &in, &r);
	if (r.reason != SLUICE_DROP_filtered)
		expect_reason(what, &in, &r, SLUICE_DROP_unsolicited);
}

/* SYN, SYN+ACK, ACK. */
static inline void conn_opens(struct bed *b, const char *what, struct conn *c)
{
	conn_sends(b, what, c, T_SYN);
	conn_answers(b, what, c, T_SYN | T_ACK);
	conn_sends_same(b, what, c, T_ACK);
}

#endif
