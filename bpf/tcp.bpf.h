/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Which RST from outside to believe: one whose sequence number lies in the window that the inner end last announced (RFC 5961 3.2, RFC 7857 2.2). A stranger who
 * knows the ports would otherwise shorten the time of an idle connection. For overload flows: what a direction's packets say is kept in their own entry, fwd. The
 * sessions of endpoint-independent mappings have no room for it: there a RST counts until its sender goes on talking.
 */
#ifndef TCP_BPF_H
#define TCP_BPF_H

#include "flow.bpf.h"

#define TCP_OPTS_MAX  40
#define TCP_OPT_END   0
#define TCP_OPT_NOP   1
#define TCP_OPT_SCALE 3
#define TCP_SCALE_LEN 3
#define TCP_SCALE_MAX 14 /* RFC 7323 2.3 */

struct tcp_walk {
	__u32 at, len;
	__u32 scale;
};

/* One option. 1: enough. */
static long tcp_option(__u32 i, struct tcp_walk *t)
{
	struct work *w = work_row();
	__u32 at = t->at;

	/* Everything is read only if it lies before len, and in the row. */
	if (!w || at + TCP_SCALE_LEN > t->len || at > TCP_OPTS_MAX - TCP_SCALE_LEN)
		return 1;
	switch (w->opts[at]) {
	case TCP_OPT_END:
		return 1;
	case TCP_OPT_NOP:
		t->at = at + 1;
		return 0;
	case TCP_OPT_SCALE:
		if (w->opts[at + 1] == TCP_SCALE_LEN)
			t->scale =
				SLUICE_SCALE_ASKED |
				(w->opts[at + 2] > TCP_SCALE_MAX ? TCP_SCALE_MAX : w->opts[at + 2]);
		return 1;
	}
	t->at = at + w->opts[at + 1];
	return w->opts[at + 1] < 2;
}

/* The shift of a SYN's window scale option, with SLUICE_SCALE_ASKED; 0: it has none. */
GLOBAL __u32 tcp_syn_scale(struct __sk_buff *skb, __u32 l4_off)
{
	struct work *w = work_row();
	struct tcp_walk t = {};
	__u32 len;
	__u8 doff = 0;

	if (!w || bpf_skb_load_bytes(skb, l4_off + 12, &doff, 1))
		return 0;
	len = (doff >> 4) * 4;
	if (len <= sizeof(struct tcphdr) || len > sizeof(struct tcphdr) + TCP_OPTS_MAX)
		return 0;
	len -= sizeof(struct tcphdr);
	/* The load wants to know that its size is not zero. */
	len--;
	asm volatile("" : "+r"(len));
	if (len >= TCP_OPTS_MAX)
		return 0;
	len++;
	if (bpf_skb_load_bytes(skb, l4_off + sizeof(struct tcphdr), w->opts, len))
		return 0;
	t.len = len;
	bpf_loop(TCP_OPTS_MAX, tcp_option, &t, 0);
	return t.scale;
}

/*
 * The inner end of an overload flow sends: note what it waits for. That the remote end may not have agreed to scale windows makes ours too large then, not too
 * small.
 */
static __always_inline void tcp_expect(struct __sk_buff *skb, const struct pkt *p,
				       struct sluice_flow *f)
{
	__u8 scale = f->tcp_in.scale;
	__u32 wnd = p->tcp_wnd;

	if (p->tcp & SLUICE_TCP_SYN)
		scale = tcp_syn_scale(skb, p->l4_off);
	else
		wnd <<= scale & SLUICE_SCALE_SHIFT;
	if ((p->tcp & (SLUICE_TCP_ACK | SLUICE_TCP_RST)) == SLUICE_TCP_ACK &&
	    !((scale & SLUICE_SCALE_KNOWN) && (__s32)(p->tcp_ack - f->tcp_in.ack) < 0)) {
		scale |= SLUICE_SCALE_KNOWN;
		if (f->tcp_in.ack != p->tcp_ack)
			f->tcp_in.ack = p->tcp_ack;
		if (f->tcp_in.wnd != wnd)
			f->tcp_in.wnd = wnd;
	}
	if (f->tcp_in.scale != scale)
		f->tcp_in.scale = scale;
}

/* Is a RST from outside out of the inner end's window? f: the flow's fwd entry. */
static __always_inline bool tcp_stray_reset(const struct pkt *p, const struct sluice_flow *f)
{
	if (!(p->tcp & SLUICE_TCP_RST) || !(f->tcp_in.scale & SLUICE_SCALE_KNOWN))
		return false;
	return p->tcp_seq - f->tcp_in.ack > f->tcp_in.wnd;
}

#endif
