/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ICMP errors in the model: whose flow they are about, and what may become of them. Included by model.h, whose tables it asks.
 */
#ifndef MODEL_ERROR_H
#define MODEL_ERROR_H

struct model_quote {
	bool header;        /* its IP header can be read */
	bool sound;         /* and its ports, or the id of an echo */
	bool good;          /* and the checksums are right that have to be */
	uint32_t at, l4, n; /* in the frame; n: bytes of it */
	uint8_t proto;
	bool request, reply;
	uint32_t src, dst;
	uint16_t sport, dport;
};

static inline bool model_error(const struct view *v)
{
	return v->ip4 && !v->frag && !v->cut && v->proto == P_ICMP &&
	       (v->type == 3 || v->type == 4 || v->type == 11 || v->type == 12);
}

static inline void model_quote_read(const struct frame *f, const struct view *v,
				    struct model_quote *q)
{
	const uint8_t *ip = f->b + v->l4 + 8, *l4;
	uint32_t hlen;

	memset(q, 0, sizeof(*q));
	q->at = v->l4 + 8;
	q->n = v->end - q->at;
	if (v->end < q->at + 28 || ip[0] >> 4 != 4)
		return;
	hlen = (ip[0] & 15) * 4u;
	if (hlen < 20 || get16(ip + 6) & 0x1fff)
		return;
	q->header = true;
	q->proto = ip[9];
	q->src = get32(ip + 12);
	q->dst = get32(ip + 16);
	q->l4 = q->at + hlen;
	l4 = f->b + q->l4;
	if (q->n < hlen + 8)
		return;
	if (q->proto == P_TCP || q->proto == P_UDP) {
		q->sport = get16(l4);
		q->dport = get16(l4 + 2);
	} else if (q->proto == P_ICMP && l4[0] == 8) {
		q->request = true;
		q->sport = get16(l4 + 4);
	} else if (q->proto == P_ICMP && l4[0] == 0) {
		q->reply = true;
		q->dport = get16(l4 + 4);
	} else {
		return;
	}
	q->sound = true;
	q->good = v->l4_good && words_fold(words_sum(ip, hlen, 0)) % 0xffff == 0;
}

/* A checksum that is folded, without regard to how zero is written. */
static inline uint16_t model_sum(uint64_t sum)
{
	return (uint16_t)(words_fold(sum) % 0xffff);
}

/*
 * NULL if out is the error in, with the quoted packet's source (or destination) now ip and port, and the error's other end (dst, or src) now end; all
 * checksums that cover any of it as right or as wrong as they were.
 */
static inline const char *model_error_is(const struct frame *in, const struct frame *out,
					 const struct view *v, const struct model_quote *q,
					 bool source, uint32_t ip, uint16_t port, uint32_t end)
{
	uint32_t addr = source ? 12 : 16, l3 = v->l3 + (source ? 16 : 12);
	uint32_t at = q->l4 + (q->proto == P_ICMP ? 4 : source ? 0 : 2);
	uint32_t sum = q->l4 + (q->proto == P_TCP ? 16 : q->proto == P_UDP ? 6 : 2);
	struct frame want = *in;
	uint64_t was, now;
	struct view o;

	put32(want.b + q->at + addr, ip);
	put16(want.b + at, port);
	put32(want.b + l3, end);
	memcpy(want.b + v->l3 + 10, out->b + v->l3 + 10, 2);
	memcpy(want.b + v->l4 + 2, out->b + v->l4 + 2, 2);
	memcpy(want.b + q->at + 10, out->b + q->at + 10, 2);
	if (sum + 2 <= q->at + q->n)
		memcpy(want.b + sum, out->b + sum, 2);
	if (!frame_equal(&want, out))
		return "an error came out with other bytes than it should have";
	frame_view(out, &o);
	if (o.l3_resid != v->l3_resid)
		return "an error's IP checksum is wrong";
	if (!o.l4_good)
		return "an error's checksum is wrong";
	if (words_fold(words_sum(out->b + q->at, q->l4 - q->at, 0)) != 0xffff)
		return "the quoted IP checksum is wrong";
	if (sum + 2 > q->at + q->n)
		return NULL;
	if (q->proto == P_UDP && !get16(in->b + sum))
		return get16(out->b + sum) ? "a quoted UDP checksum appeared" : NULL;
	if (q->proto == P_UDP && !get16(out->b + sum))
		return "a quoted UDP checksum became 0";
	/* What it covers of what has changed, with itself: the same sum as before. */
	was = get16(in->b + sum) + get16(in->b + at);
	now = get16(out->b + sum) + get16(out->b + at);
	if (q->proto != P_ICMP) {
		was = words_sum(in->b + q->at + addr, 4, was);
		now = words_sum(out->b + q->at + addr, 4, now);
	}
	return model_sum(was) == model_sum(now) ? NULL : "the quoted transport checksum is wrong";
}

/* An error towards a shared address. */
static inline const char *model_error_in(struct model *m, const struct frame *in,
					 const struct view *v, const struct run *r)
{
	struct model_quote q;
	struct model_slot *flow;
	struct model_key key;
	bool known;

	model_quote_read(in, v, &q);
	key = model_in_key(m, q.proto, v->dst, q.sport, q.dst, q.dport);
	flow = model_find(m, &key);
	known = q.sound && !q.reply && q.src == v->dst && model_slice(m, v->dst, q.sport) &&
		flow->key.kind != NOTHING;
	if (known && m->eim[q.proto])
		known = model_has(m, model_session_key(q.proto, v->dst, q.sport, q.dst, q.dport));
	if (!known)
		return r->verdict == VERDICT_DROP ? NULL : "an error about no flow came in";
	if (!q.good)
		return r->reason == SLUICE_DROP_icmp_sum ? NULL : "not dropped as icmp_sum";
	if (r->verdict != VERDICT_PASS)
		return "an error about a flow was dropped";
	return model_error_is(in, &r->out, v, &q, true, flow->ip, (uint16_t)flow->port, flow->ip);
}

static inline struct model_slot *model_error_flow(struct model *m, const struct model_quote *q,
						  enum model_kind kind)
{
	struct model_key key = { .kind = kind, .proto = q->proto, .a = q->dst, .aport = q->dport };
	struct model_slot *flow;

	if (!m->eim[q->proto]) {
		key.b = q->src;
		key.bport = q->sport;
	}
	flow = model_find(m, &key);
	if (flow->key.kind == NOTHING)
		return NULL;
	if (m->eim[q->proto] &&
	    !model_has(m, model_session_key(q->proto, flow->ip, flow->port, q->src, q->sport)))
		return NULL;
	return flow;
}

/* An error that leaves, and not with a shared source from elsewhere. */
static inline const char *model_error_out(struct model *m, bool here, const struct frame *in,
					  const struct view *v, const struct run *r)
{
	struct model_slot *flow = NULL;
	struct model_quote q;
	bool own;

	model_quote_read(in, v, &q);
	if (q.sound && q.src == v->dst && !q.request) {
		flow = model_error_flow(m, &q, OUT_CLIENT);
		if (!flow && here)
			flow = model_error_flow(m, &q, OUT_LOCAL);
	}
	if (flow) {
		if (!q.good)
			return r->reason == SLUICE_DROP_icmp_sum ? NULL : "not dropped as icmp_sum";
		if (r->verdict != VERDICT_PASS)
			return "an error about a flow was dropped";
		own = !here || v->src == q.dst || model_client(m, v->src);
		return model_error_is(in, &r->out, v, &q, false, flow->ip, (uint16_t)flow->port,
				      own ? flow->ip : v->src);
	}
	if (here && model_shared(m, v->src))
		return r->verdict == VERDICT_DROP ? NULL : "an error left with a shared source";
	if (!here && model_client(m, v->src) && !model_no_nat(m, v->dst))
		return r->verdict == VERDICT_DROP ? NULL : "a client's error about no flow left";
	if (!model_client(m, v->src) || here) {
		if (q.header && model_client(m, q.dst) && !model_no_nat(m, v->dst) &&
		    !(here && (v->src == q.dst || model_client(m, v->dst))))
			return r->verdict == VERDICT_DROP ? NULL
							  : "an error left that tells of a client";
	}
	return model_unchanged(in, r);
}

#endif
