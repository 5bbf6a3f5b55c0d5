/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Crash points and injected failures, for tests. In a normal build they compile to nothing. With SLUICE_FAULT defined
 * (build/fault/sluiced) three environment variables work, each NAME or NAME:N, N counting from 1 (the default):
 *
 *	SLUICE_CRASH_AT		the process kills itself (SIGKILL) at the Nth passing of the point NAME
 *	SLUICE_STALL_AT		the thread that passes the point NAME the Nth time stops there for FAULT_STALL_S
 *	SLUICE_FAIL_AT		the Nth call of fault_fails(NAME) returns true, all others false
 *
 * A text that is neither makes the process abort, so that a test with a slip in it does not pass. Names say the module and
 * the stage, as in "store.commit"; the module's header or source lists them.
 */
#ifndef FAULT_H
#define FAULT_H

#include <stdbool.h>

#define FAULT_STALL_S 3

#ifdef SLUICE_FAULT
#define FAULT_POINT(name) fault_pass(name)
#define fault_fails(name) fault_hit(name)
#else
#define FAULT_POINT(name) ((void)0)
#define fault_fails(name) false
#endif

/* Not for use by name: the macros are. */
void fault_pass(const char *name);
bool fault_hit(const char *name);

#endif
