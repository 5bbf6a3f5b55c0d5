/* SPDX-License-Identifier: BSD-2-Clause */
/* The daemon with an engine: one loop that lets each source of events be dealt with by the module that owns it. */
#ifndef DAEMON_H
#define DAEMON_H

#include "engine.h"

/* Run until SIGTERM. opts: config_path and force_clsact; the rest is the daemon's own. Returns the exit code. */
int daemon_run(const struct engine_opts *opts);

#endif
