/* SPDX-License-Identifier: BSD-2-Clause */
/* ListExhaustion: pools, slices and destinations by how full they are. */
#ifndef METHODS_EXHAUST_H
#define METHODS_EXHAUST_H

#include "methods.h"

int methods_list_exhaustion(struct control_call *call, void *data);

#define METHODS_LIST_EXHAUSTION                                                           \
	{                                                                                 \
		.name = "ListExhaustion", .fn = methods_list_exhaustion, .params = "pool" \
	}

#endif
