/* SPDX-License-Identifier: BSD-2-Clause */
/* A token bucket. It is told the time, so that tests own the clock. Exact: no drift, no rounding of the rate. */
#ifndef RATE_H
#define RATE_H

#include <stdbool.h>
#include <stdint.h>

struct rate {
	uint32_t per_s;
	uint32_t burst;
	uint64_t credit; /* tokens, in billionths */
	uint64_t last_ns;
	uint64_t refused; /* how often rate_take() said no */
};

/* per_s tokens a second, at most burst at once, full at the start. per_s 0: never one; burst 0 counts as 1. */
void rate_init(struct rate *r, uint32_t per_s, uint32_t burst, uint64_t now_ns);
/* Another rate from now on; what is saved up stays as far as the new burst allows, and refused goes on. */
void rate_set(struct rate *r, uint32_t per_s, uint32_t burst);
/* Take one token, if there is one. A clock that goes backwards earns nothing and costs nothing. */
bool rate_take(struct rate *r, uint64_t now_ns);

#endif
