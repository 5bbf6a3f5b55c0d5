/* SPDX-License-Identifier: BSD-2-Clause */
/* See forecast.h. */
#include "forecast.h"

#include "clock.h"

#define KNOWN_NS (2 * NS_PER_S)

void forecast_add(struct forecast *f, uint64_t now_ns, uint32_t used)
{
	double dt_s, share;

	if (!f->since_ns) {
		*f = (struct forecast){ .since_ns = now_ns, .at_ns = now_ns, .used = used };
		return;
	}
	if (now_ns <= f->at_ns)
		return;
	dt_s = (double)(now_ns - f->at_ns) / NS_PER_S;
	share = dt_s / (FORECAST_MEMORY_S + dt_s);
	f->per_s += share * (((double)used - f->used) / dt_s - f->per_s);
	f->weight += share * (1 - f->weight);
	f->at_ns = now_ns;
	f->used = used;
}

bool forecast_full(const struct forecast *f, uint32_t capacity, double *ret_s)
{
	double left_s;

	if (!f->since_ns)
		return false;
	if (f->used >= capacity) {
		*ret_s = 0;
		return true;
	}
	if (f->at_ns - f->since_ns < KNOWN_NS || f->per_s <= 0)
		return false;
	left_s = (capacity - f->used) / (f->per_s / f->weight);
	if (left_s > FORECAST_MAX_S)
		return false;
	*ret_s = left_s;
	return true;
}
