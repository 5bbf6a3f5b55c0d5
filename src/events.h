/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the data plane reports while it runs: passes it on to `sluice monitor`, puts it into the log at a bounded
 * rate, and answers clients whose new flow was refused with ICMP. Collisions that it resolved are kept as well (collisions.h).
 */
#ifndef EVENTS_H
#define EVENTS_H

#include "collisions.h"
#include "control.h"
#include "engine.h"
#include "rate.h"

struct events {
	struct control *control;
	struct collisions *collisions; /* takes those that the data plane resolved */
	struct rate icmp_rate;
	struct rate log_rate;
	uint64_t log_left_out; /* since the last line that was written */
	int icmp_fd;           /* -1: cannot answer */
	int icmp6_fd;          /* the same for IPv6 */
};

/* Returns 0, or -errno when no raw socket is to be had (CAP_NET_RAW); then clients get no answer. */
int events_init(struct events *ev, uint32_t icmp_rate, uint64_t now_ns);
void events_done(struct events *ev);

/* Deal with what waits, a bounded number. Returns 0 or -errno when the ring cannot be read. */
int events_poll(struct events *ev, struct engine *e);

#endif
