/* SPDX-License-Identifier: BSD-2-Clause */
/* The methods of io.sluice: what the engine knows, as JSON. They read; only Reload acts, through its callback. */
#ifndef METHODS_H
#define METHODS_H

#include "control.h"
#include "engine.h"

struct methods {
	const struct engine *engine;
	struct control *control; /* for its own counters */
	/* Reload the configuration: 0, or -errno with err filled. */
	int (*reload)(void *arg, struct errtext *err);
	void *reload_arg;
};

/* For control_options; data is a struct methods that outlives the server. */
extern const struct control_method methods_table[];
extern const size_t methods_table_len;

#endif
