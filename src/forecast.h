/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * When will it be full, if it goes on filling as it does? A rate that forgets: what happened in the last ten seconds or so counts. Pure.
 */
#ifndef FORECAST_H
#define FORECAST_H

#include <stdbool.h>
#include <stdint.h>

#define FORECAST_MEMORY_S 10
#define FORECAST_MAX_S    86400 /* what is further away than a day is not told */

struct forecast {
	uint64_t since_ns; /* the first count; 0: none yet */
	uint64_t at_ns;    /* the last one */
	uint32_t used;
	double per_s;  /* still to be divided by weight */
	double weight; /* how much of the rate is known: 0 to 1 */
};

/* So many are in use at now_ns (CLOCK_BOOTTIME, never backwards; a second count at one time is left out). Starts zeroed ({0}). */
void forecast_add(struct forecast *f, uint64_t now_ns, uint32_t used);

/*
 * Seconds until capacity are in use, in *ret_s: 0 when they are. False, and *ret_s untouched: it is not filling, or slower than FORECAST_MAX_S, or has been watched
 * for less than two seconds.
 */
bool forecast_full(const struct forecast *f, uint32_t capacity, double *ret_s);

#endif
