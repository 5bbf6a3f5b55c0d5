/* SPDX-License-Identifier: BSD-2-Clause */
#include "rate.h"

#define TOKEN 1000000000ULL /* nanoseconds of earning at one token a second */

void rate_init(struct rate *r, uint32_t per_s, uint32_t burst, uint64_t now_ns)
{
	*r = (struct rate){ .last_ns = now_ns };
	r->credit = (burst ? burst : 1) * TOKEN;
	rate_set(r, per_s, burst);
}

void rate_set(struct rate *r, uint32_t per_s, uint32_t burst)
{
	r->per_s = per_s;
	r->burst = burst ? burst : 1;
	if (r->credit > r->burst * TOKEN)
		r->credit = r->burst * TOKEN;
}

bool rate_take(struct rate *r, uint64_t now_ns)
{
	uint64_t full = r->burst * TOKEN;

	if (r->per_s && now_ns > r->last_ns) {
		uint64_t dt = now_ns - r->last_ns;

		/* Compared before it is multiplied: a long pause must not overflow. */
		if (dt >= (full - r->credit) / r->per_s + 1)
			r->credit = full;
		else
			r->credit += dt * r->per_s;
	}
	if (now_ns > r->last_ns)
		r->last_ns = now_ns;
	if (!r->per_s || r->credit < TOKEN) {
		r->refused++;
		return false;
	}
	r->credit -= TOKEN;
	return true;
}
