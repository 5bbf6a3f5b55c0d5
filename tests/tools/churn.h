/* SPDX-License-Identifier: BSD-2-Clause */
/* What "churn" sends, and "wire --users" looks for. */
#ifndef CHURN_H
#define CHURN_H

#include <stdint.h>

#define CHURN_ASKS    0x51c07a11U
#define CHURN_ANSWERS 0x51c07a12U

/* How a connection ends. Drawn for each. */
enum churn_close {
	CHURN_FIN,          /* the opener closes */
	CHURN_RESET,        /* the opener resets */
	CHURN_SERVER_FIN,   /* the server closes after its answer */
	CHURN_SERVER_RESET, /* the server resets after its answer */
	CHURN_HALF,         /* the opener shuts its side, the server then its own */
	CHURN_HASTY,        /* the opener resets without waiting for the answer */
	CHURN_CLOSES,
};

struct churn_message {
	uint32_t magic;
	uint32_t close;
	uint64_t user;    /* unique in a test; never 0 */
	uint32_t addr_be; /* in the answer: whom the server sees */
	uint16_t port_be;
	uint16_t pad;
	uint64_t pad2;
};

_Static_assert(sizeof(struct churn_message) == 32, "on the wire");

#endif
