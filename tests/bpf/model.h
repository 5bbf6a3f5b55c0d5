/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the data plane may do to a packet, said again and apart from it: a model of one pool whose slices and flows do not end.
 * Each protocol is mapped as overload, or endpoint-independent with address-dependent filtering. The model is shown each
 * packet and what came of it, says what is wrong with that, and learns from what is right.
 */
#ifndef MODEL_H
#define MODEL_H

#include "harness.h"

#define MODEL_SLOTS (1u << 18)

struct model_key {
	uint32_t kind; /* enum model_kind */
	uint32_t proto;
	uint32_t a, aport;
	uint32_t b, bport;
};

enum model_kind {
	NOTHING,
	OUT_CLIENT, /* a: inner end, b: remote end (overload) -> outer end */
	OUT_LOCAL,
	IN_FLOW,  /* a: outer end, b: remote end (overload) -> inner end */
	SESSION,  /* endpoint-independent: a: outer end, b: remote address, and port for TCP */
	PERMIT,   /* endpoint-independent TCP: a: outer end, b: remote address that may open */
	OWN,      /* a: a socket's own end, b: remote end (overload) */
	OWN_ECHO, /* a: a socket's own echo id, b: remote address */
};

struct model_slot {
	struct model_key key;
	uint32_t ip;
	uint32_t port;
};

struct model_slice {
	uint32_t ip;
	uint32_t first, last;
};

struct model {
	struct model_slice slices[4];
	uint32_t nslices;
	uint32_t client_net, client_mask;
	uint32_t no_nat_net, no_nat_mask;
	bool eim[256]; /* by protocol */
	bool leases;   /* model_leased() ports are under lease */
	uint32_t mappings[256];
	uint32_t used;
	struct model_slot slots[MODEL_SLOTS];
};

static inline struct model_slot *model_find(struct model *m, const struct model_key *k)
{
	const uint8_t *p = (const uint8_t *)k;
	uint64_t h = 1469598103934665603ULL;
	uint32_t i;

	for (i = 0; i < sizeof(*k); i++)
		h = (h ^ p[i]) * 1099511628211ULL;
	for (i = (uint32_t)(h ^ h >> 32) % MODEL_SLOTS;; i = (i + 1) % MODEL_SLOTS) {
		if (m->slots[i].key.kind == NOTHING)
			return &m->slots[i];
		if (!memcmp(&m->slots[i].key, k, sizeof(*k)))
			return &m->slots[i];
	}
}

static inline bool model_has(struct model *m, struct model_key k)
{
	return model_find(m, &k)->key.kind != NOTHING;
}

static inline void model_put(struct model *m, struct model_key k, uint32_t ip, uint32_t port)
{
	struct model_slot *s = model_find(m, &k);

	if (s->key.kind == NOTHING && ++m->used > MODEL_SLOTS / 2)
		die("the model is too small for this many packets");
	s->key = k;
	s->ip = ip;
	s->port = port;
}

static inline bool model_shared(const struct model *m, uint32_t ip)
{
	uint32_t i;

	for (i = 0; i < m->nslices; i++)
		if (m->slices[i].ip == ip)
			return true;
	return false;
}

static inline const struct model_slice *model_slice(const struct model *m, uint32_t ip,
						    uint32_t port)
{
	uint32_t i;

	for (i = 0; i < m->nslices; i++)
		if (m->slices[i].ip == ip && port >= m->slices[i].first &&
		    port <= m->slices[i].last)
			return &m->slices[i];
	return NULL;
}

/* One port in eight. */
static inline bool model_leased(const struct model *m, uint8_t proto, uint32_t port)
{
	return m->leases && (proto == P_TCP || proto == P_UDP) && port % 8 == 5;
}

static inline uint32_t model_ports(const struct model *m, uint8_t proto)
{
	uint32_t i, port, n = 0;

	for (i = 0; i < m->nslices; i++)
		for (port = m->slices[i].first; port <= m->slices[i].last; port++)
			n += !model_leased(m, proto, port);
	return n;
}

static inline bool model_client(const struct model *m, uint32_t ip)
{
	return (ip & m->client_mask) == m->client_net;
}

static inline bool model_no_nat(const struct model *m, uint32_t ip)
{
	return (ip & m->no_nat_mask) == m->no_nat_net;
}

/* Addresses that stand in the packet, whether or not the rest makes sense. */
static inline bool model_addrs(const struct frame *f, uint32_t *ret_src, uint32_t *ret_dst)
{
	uint16_t ether;
	uint32_t l3;

	if (f->len < ETH_LEN)
		return false;
	l3 = frame_l3(f, &ether);
	if (ether != E_IP4 || f->len < l3 + 20)
		return false;
	*ret_src = get32(f->b + l3 + 12);
	*ret_dst = get32(f->b + l3 + 16);
	return true;
}

/*
 * A packet, or a first piece, of TCP, UDP or an echo, with a header that means something. Of pieces that have others behind them the length is a multiple of eight.
 */
static inline bool model_sound(const struct view *v)
{
	if (!v->ip4 || v->frag_later || v->cut || !v->ports)
		return false;
	if (v->frag && (v->end - v->l4) % 8)
		return false;
	switch (v->proto) {
	case P_TCP:
		return v->sport && v->dport && (v->flags & (T_FIN | T_SYN | T_RST | T_ACK)) &&
		       !((v->flags & T_SYN) && (v->flags & (T_FIN | T_RST)));
	case P_UDP:
		return v->sport && v->dport;
	}
	return v->code == 0;
}

static inline struct model_key model_out_key(const struct model *m, const struct view *v,
					     bool local)
{
	struct model_key k = { .kind = local ? OUT_LOCAL : OUT_CLIENT,
			       .proto = v->proto,
			       .a = v->src,
			       .aport = v->sport };

	if (!m->eim[v->proto]) {
		k.b = v->dst;
		k.bport = v->dport;
	}
	return k;
}

/* The flow at an outer end, as a packet from the remote end would find it. */
static inline struct model_key model_in_key(const struct model *m, uint8_t proto, uint32_t ip,
					    uint32_t port, uint32_t remote, uint32_t rport)
{
	struct model_key k = { .kind = IN_FLOW, .proto = proto, .a = ip, .aport = port };

	if (!m->eim[proto]) {
		k.b = remote;
		k.bport = rport;
	}
	return k;
}

static inline struct model_key model_session_key(uint8_t proto, uint32_t ip, uint32_t port,
						 uint32_t remote, uint32_t rport)
{
	struct model_key k = {
		.kind = SESSION, .proto = proto, .a = ip, .aport = port, .b = remote
	};

	if (proto == P_TCP)
		k.bport = rport;
	return k;
}

static inline struct model_key model_permit_key(uint32_t ip, uint32_t port, uint32_t remote)
{
	struct model_key k = {
		.kind = PERMIT, .proto = P_TCP, .a = ip, .aport = port, .b = remote
	};

	return k;
}

/* The tuple, or in an endpoint-independent pool the port, of a socket that sends from it unchanged. */
static inline struct model_key model_own_key(const struct model *m, uint8_t proto, uint32_t ip,
					     uint32_t port, uint32_t remote, uint32_t rport)
{
	struct model_key k = model_in_key(m, proto, ip, port, remote, rport);

	k.kind = OWN;
	return k;
}

static inline struct model_key model_own_echo_key(uint32_t ip, uint32_t port, uint32_t remote)
{
	struct model_key k = {
		.kind = OWN_ECHO, .proto = P_ICMP, .a = ip, .aport = port, .b = remote
	};

	return k;
}

static inline bool model_opens(const struct view *v)
{
	return v->proto != P_TCP || (v->flags & (T_SYN | T_ACK)) == T_SYN;
}

/* Pieces wait, and there are only so many places. */
static inline bool model_piece_dropped(const struct view *v, const struct run *r)
{
	return v->frag && r->verdict == VERDICT_DROP &&
	       (r->reason == HELD || r->reason == SLUICE_DROP_frag_full);
}

/* A later piece: nothing says that it passes, but if it does, only its address has changed. */
static inline const char *model_later(const struct model *m, const struct frame *in,
				      const struct view *v, bool source, const struct run *r)
{
	struct frame want = *in;
	struct view out;

	if (r->verdict == VERDICT_DROP)
		return NULL;
	frame_view(&r->out, &out);
	memcpy(want.b + v->l3 + 10, r->out.b + v->l3 + 10, 2);
	memcpy(want.b + v->l3 + (source ? 12 : 16), r->out.b + v->l3 + (source ? 12 : 16), 4);
	if (!frame_equal(&want, &r->out))
		return "bytes of a later piece changed";
	if (v->l3_resid != out.l3_resid)
		return "the IP checksum of a later piece is wrong";
	if (source ? !model_shared(m, out.src) : !model_client(m, out.dst) && out.dst != v->dst)
		return "a later piece went astray";
	return NULL;
}

/* A packet that goes on must be what it was. */
static inline const char *model_unchanged(const struct frame *in, const struct run *r)
{
	if (r->verdict != VERDICT_PASS)
		return "dropped, should pass";
	return frame_equal(in, &r->out) ? NULL : "changed, should not be";
}

/* A sound packet of a client, or of a socket whose tuple is taken: translated, where and how. */
static inline const char *model_translated(struct model *m, const struct frame *in,
					   const struct view *v, bool local, const struct run *r)
{
	struct model_key key = model_out_key(m, v, local), back;
	struct model_slot *known = model_find(m, &key);
	bool mapped = known->key.kind != NOTHING, live = mapped;
	const struct model_slice *slice;
	const char *wrong;
	struct view out;

	/* A TCP mapping serves the connections that were opened through it. */
	if (mapped && v->proto == P_TCP && m->eim[P_TCP])
		live = model_has(
			m, model_session_key(P_TCP, known->ip, known->port, v->dst, v->dport));
	if (r->verdict == VERDICT_DROP) {
		if (live)
			return "a packet of a live flow was dropped";
		if (!model_opens(v))
			return r->reason == SLUICE_DROP_no_flow ? NULL
								: "dropped for a wrong reason";
		if (!mapped && m->eim[v->proto] && r->reason == SLUICE_DROP_no_port &&
		    m->mappings[v->proto] >= model_ports(m, v->proto))
			return NULL;
		/* A socket keeps its address, and has that address's slice alone. */
		if (!mapped && local && r->reason == SLUICE_DROP_no_port)
			return NULL;
		return "a packet that begins a flow was dropped";
	}
	wrong = frame_rewritten(in, &r->out, true, &out);
	if (wrong)
		return wrong;
	slice = model_slice(m, out.src, out.sport);
	if (model_leased(m, v->proto, out.sport))
		return "translated to a leased port";
	if (!slice)
		return "left with a source outside the slices";
	if (local && slice != model_slice(m, v->src, v->sport))
		return "a socket's packet left from another slice";
	if (!live && !model_opens(v))
		return "a flow began in the middle";
	if (mapped) {
		if (known->ip != out.src || known->port != out.sport)
			return "a live flow moved to another port";
	} else {
		back = model_in_key(m, v->proto, out.src, out.sport, v->dst, v->dport);
		if (model_has(m, back))
			return "two flows on one outer tuple";
		if (model_has(m, model_own_key(m, v->proto, out.src, out.sport, v->dst, v->dport)))
			return "a flow on a socket's tuple";
		model_put(m, key, out.src, out.sport);
		model_put(m, back, v->src, v->sport);
		m->mappings[v->proto]++;
	}
	if (m->eim[v->proto])
		model_put(m, model_session_key(v->proto, out.src, out.sport, v->dst, v->dport), 0,
			  0);
	if (m->eim[v->proto] && v->proto == P_TCP)
		model_put(m, model_permit_key(out.src, out.sport, v->dst), 0, 0);
	return NULL;
}

/* A socket's packet whose tuple is nobody else's. */
static inline const char *model_own(struct model *m, const struct frame *in, const struct view *v,
				    const struct run *r)
{
	struct model_key k = model_own_key(m, v->proto, v->src, v->sport, v->dst, v->dport);
	const char *wrong = model_unchanged(in, r);

	/* Leased ports are kept from NAT already, and a reset begins nothing. */
	if (wrong || model_leased(m, v->proto, v->sport) ||
	    (v->proto == P_TCP && (v->flags & T_RST)))
		return wrong;
	if (!model_has(m, k)) {
		model_put(m, k, 0, 0);
		m->mappings[v->proto]++;
	}
	if (v->proto == P_ICMP)
		model_put(m, model_own_echo_key(v->src, v->sport, v->dst), 0, 0);
	return NULL;
}

#include "model_error.h"

/* NULL, or what is wrong with r as the outcome of in at the uplink's egress. */
static inline const char *model_egress(struct model *m, uint32_t came_by, const struct frame *in,
				       const struct run *r)
{
	uint32_t src, dst;
	struct view v;

	if (r->verdict == VERDICT_PASS && r->out.len != in->len)
		return "the length changed";
	if (!model_addrs(in, &src, &dst))
		return model_unchanged(in, r);
	frame_view(in, &v);
	if (model_error(&v) && !(came_by != MADE_HERE && model_shared(m, src)))
		return model_error_out(m, came_by == MADE_HERE, in, &v, r);
	if (model_piece_dropped(&v, r))
		return NULL;
	if (v.frag_later && (came_by == MADE_HERE ? model_shared(m, src)
						  : model_client(m, src) && !model_no_nat(m, dst)))
		return model_later(m, in, &v, true, r);
	if (model_shared(m, src)) {
		if (r->verdict == VERDICT_PASS && came_by != MADE_HERE)
			return "a forwarded packet left with a shared source";
		if (came_by != MADE_HERE)
			return r->reason == SLUICE_DROP_spoof ? NULL : "dropped for a wrong reason";
		if (!model_sound(&v) || (v.proto == P_ICMP && v.type != 8))
			return r->verdict == VERDICT_DROP
				       ? NULL
				       : "an unsound packet left with a shared source";
		if (!model_slice(m, v.src, v.sport))
			return r->reason == SLUICE_DROP_escape ? NULL : "an escape";
		if (model_has(m, model_out_key(m, &v, true)) ||
		    model_has(m, model_in_key(m, v.proto, v.src, v.sport, v.dst, v.dport)))
			return model_translated(m, in, &v, true, r);
		return model_own(m, in, &v, r);
	}
	if (came_by == MADE_HERE || !model_client(m, src) || model_no_nat(m, dst))
		return model_unchanged(in, r);
	if (!model_sound(&v) || (v.proto == P_ICMP && v.type != 8))
		return r->verdict == VERDICT_DROP ? NULL : "an unsound packet of a client passed";
	return model_translated(m, in, &v, false, r);
}

/* The same at its ingress. No socket of this machine has a shared address. */
static inline const char *model_ingress(struct model *m, const struct frame *in,
					const struct run *r)
{
	struct model_key key;
	struct model_slot *flow;
	const char *wrong;
	uint32_t src, dst;
	struct view v, out;

	if (r->verdict == VERDICT_PASS && r->out.len != in->len)
		return "the length changed";
	if (!model_addrs(in, &src, &dst) || !model_shared(m, dst))
		return model_unchanged(in, r);
	frame_view(in, &v);
	if (model_error(&v))
		return model_error_in(m, in, &v, r);
	if (model_piece_dropped(&v, r))
		return NULL;
	if (v.frag_later)
		return model_later(m, in, &v, false, r);
	if (!model_sound(&v) || (v.proto == P_ICMP && v.type != 0))
		return r->verdict == VERDICT_DROP ? NULL : "an unsound packet came in";
	if (!model_slice(m, v.dst, v.dport))
		return r->reason == SLUICE_DROP_foreign ? NULL : "not dropped as foreign";
	key = model_in_key(m, v.proto, v.dst, v.dport, v.src, v.sport);
	flow = model_find(m, &key);
	if (flow->key.kind == NOTHING &&
	    model_has(m, model_own_key(m, v.proto, v.dst, v.dport, v.src, v.sport))) {
		if (v.proto == P_ICMP && model_has(m, model_own_echo_key(v.dst, v.dport, v.src)))
			return model_unchanged(in, r);
		/* Its socket is not there. */
		return r->reason == (m->eim[v.proto] ? SLUICE_DROP_filtered
						     : SLUICE_DROP_unsolicited)
			       ? NULL
			       : "not dropped though no socket is there";
	}
	if (flow->key.kind == NOTHING)
		return r->reason == SLUICE_DROP_unsolicited ? NULL : "not dropped as unsolicited";
	if (m->eim[v.proto]) {
		struct model_key session =
			model_session_key(v.proto, v.dst, v.dport, v.src, v.sport);

		if (!model_has(m, session)) {
			if (v.proto != P_TCP || !model_opens(&v) ||
			    !model_has(m, model_permit_key(v.dst, v.dport, v.src)))
				return r->reason == SLUICE_DROP_filtered
					       ? NULL
					       : "not dropped as filtered";
			/* The remote end opens a connection to the mapping. */
			model_put(m, session, 0, 0);
		}
	}
	if (r->verdict != VERDICT_PASS)
		return "an answer was dropped";
	wrong = frame_rewritten(in, &r->out, false, &out);
	if (wrong)
		return wrong;
	return out.dst == flow->ip && out.dport == flow->port ? NULL : "an answer went astray";
}

#endif
