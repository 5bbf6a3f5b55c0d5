/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What state a flow is in and how long it may idle: pure functions of the two table entries, used by
 * the BPF programs, the daemon's listings and the tests alike, so that all of them agree.
 */
#ifndef SLUICE_FLOW_H
#define SLUICE_FLOW_H

#include "sluice_abi.h"

#define SLUICE_IPPROTO_ICMP 1
#define SLUICE_IPPROTO_TCP  6
#define SLUICE_IPPROTO_UDP  17

/* Seconds for which a dead entry is left alone: nobody may still be about to write it when it goes. */
#define SLUICE_GRACE_S 2

/* X(name, text) */
#define SLUICE_STATES(X)                                                                           \
	X(OPENING, "opening") /* TCP: not yet an ACK from both ends */                             \
	X(ESTABLISHED,                                                                             \
	  "established")      /* TCP: ACKs from both ends; one FIN leaves it here (half-closed) */ \
	X(CLOSING, "closing") /* TCP: FINs from both ends */                                       \
	X(TIME_WAIT, "time-wait") /* TCP: and a segment after them */                              \
	X(RESET, "reset")         /* TCP: a RST from either end */                                 \
	X(ACTIVE, "active")       /* UDP, ICMP */

enum sluice_flow_state {
#define SLUICE_X(name, text) SLUICE_STATE_##name,
	SLUICE_STATES(SLUICE_X)
#undef SLUICE_X
};

/* out, in: the SLUICE_TCP_ bits that the inner and the remote end have sent (after RFC 6146 3.5.2). */
static inline enum sluice_flow_state sluice_tcp_state(__u8 out, __u8 in)
{
	if ((out | in) & SLUICE_TCP_RST)
		return SLUICE_STATE_RESET;
	if (out & in & SLUICE_TCP_FIN)
		return (out | in) & SLUICE_TCP_LAST ? SLUICE_STATE_TIME_WAIT : SLUICE_STATE_CLOSING;
	if (out & in & SLUICE_TCP_ACK)
		return SLUICE_STATE_ESTABLISHED;
	return SLUICE_STATE_OPENING;
}

static inline __u32 sluice_tcp_timeout_s(const struct sluice_timers *t,
					 enum sluice_flow_state state)
{
	switch (state) {
	case SLUICE_STATE_ESTABLISHED:
		return t->tcp_established;
	case SLUICE_STATE_CLOSING:
		return t->tcp_closing;
	case SLUICE_STATE_TIME_WAIT:
		return t->tcp_time_wait;
	case SLUICE_STATE_RESET:
		return t->tcp_reset;
	default:
		return t->tcp_opening;
	}
}

/* Does the rev entry have what both directions sent? In a session of a mapping and in a socket's own mark. */
static inline int sluice_flow_both(const struct sluice_flow *rev)
{
	return rev->flags & (SLUICE_FLOW_EIM | SLUICE_FLOW_OWN);
}

/*
 * State of the flow whose rev entry is given; fwd is its fwd entry, or NULL where that is gone (only an
 * overload flow needs it).
 */
static inline enum sluice_flow_state sluice_flow_state(__u8 proto, const struct sluice_flow *rev,
						       const struct sluice_flow *fwd)
{
	if (proto != SLUICE_IPPROTO_TCP)
		return SLUICE_STATE_ACTIVE;
	if (sluice_flow_both(rev))
		return sluice_tcp_state(rev->tcp_out, rev->tcp);
	return sluice_tcp_state(fwd ? fwd->tcp : 0, rev->tcp);
}

/*
 * Boot-time second after which the flow is dead. In overload mode UDP counts only what the inner end sent (RFC 4787
 * REQ-6: inbound refresh is a MAY that is off), TCP counts both. Not for PERMIT entries, which live as their mapping does.
 */
static inline __u64 sluice_flow_ends_s(__u8 proto, const struct sluice_flow *rev,
				       const struct sluice_flow *fwd, const struct sluice_timers *t)
{
	__u32 seen_s = rev->seen_s;

	if (proto == SLUICE_IPPROTO_TCP) {
		if (!sluice_flow_both(rev) && fwd && fwd->seen_s != SLUICE_DEAD &&
		    fwd->seen_s > seen_s)
			seen_s = fwd->seen_s;
		return (__u64)seen_s + sluice_tcp_timeout_s(t, sluice_flow_state(proto, rev, fwd));
	}
	if (!sluice_flow_both(rev) && fwd && fwd->seen_s != SLUICE_DEAD)
		return (__u64)fwd->seen_s + fwd->timeout_s;
	return (__u64)seen_s + rev->timeout_s;
}

/* The same for a mapping (fwd entry with SLUICE_FLOW_EIM). TCP: its sessions keep it. */
static inline __u64 sluice_mapping_ends_s(__u8 proto, const struct sluice_flow *fwd)
{
	if (proto == SLUICE_IPPROTO_TCP && fwd->sessions)
		return SLUICE_NEVER;
	return (__u64)fwd->seen_s + fwd->timeout_s;
}

/* Is an end (from the functions above) still to come, with grace_s added? */
static inline int sluice_not_over(__u64 ends_s, __u32 grace_s, __u32 now_s)
{
	return ends_s == SLUICE_NEVER || ends_s + grace_s >= now_s;
}

#endif
