// SPDX-License-Identifier: BSD-2-Clause
#include "fault.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct fault {
	char want[128]; /* the text that count counts for */
	uint64_t count;
};

/* Is this the passing of name that the variable asks for? */
static bool fault_due(const char *variable, const char *name, struct fault *f)
{
	const char *want = getenv(variable);
	const char *colon;
	uint64_t n = 1;
	char *end;

	if (!want)
		return false;
	colon = strchrnul(want, ':');
	if (*colon) {
		errno = 0;
		n = strtoull(colon + 1, &end, 10);
		if (errno || *end || colon[1] < '0' || colon[1] > '9' || !n) {
			fprintf(stderr, "%s=%s: not NAME or NAME:N with N from 1\n", variable,
				want);
			abort();
		}
	}
	if (strlen(name) != (size_t)(colon - want) || strncmp(name, want, strlen(name)))
		return false;
	if (strcmp(f->want, want)) {
		snprintf(f->want, sizeof(f->want), "%s", want);
		f->count = 0;
	}
	return ++f->count == n;
}

void fault_pass(const char *name)
{
	static struct fault crash, stall;

	if (fault_due("SLUICE_STALL_AT", name, &stall))
		sleep(FAULT_STALL_S);
	if (fault_due("SLUICE_CRASH_AT", name, &crash))
		raise(SIGKILL);
}

bool fault_hit(const char *name)
{
	static struct fault failure;

	return fault_due("SLUICE_FAIL_AT", name, &failure);
}
