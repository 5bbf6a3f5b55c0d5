/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a check found, for people and scripts: a stable id, how bad it is, what was seen and what to
 * do. A list only grows. Running out of memory is kept in the list, so that checks need no error
 * paths of their own.
 */
#ifndef FINDING_H
#define FINDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum severity {
	FINDING_OK,    /* as it should be */
	FINDING_INFO,  /* worth knowing, nothing to do */
	FINDING_WARN,  /* works now, or will once the daemon runs, but can bite */
	FINDING_ERROR, /* traffic fails or escapes until somebody acts */
	FINDING_SEVERITIES,
};

#define FINDING_TEXT_LEN 512 /* as ERRTEXT_LEN: error texts become findings */

struct finding {
	char id[32]; /* "sysctl.ip_forward": never renamed, several findings may share one */
	enum severity severity;
	char text[FINDING_TEXT_LEN];
	char advice[FINDING_TEXT_LEN]; /* "" where there is nothing to do */
};

struct findings {
	struct finding *v;
	size_t n;
	size_t cap;
	int err; /* 0, or -ENOMEM when something found was lost */
};

/* A list starts zeroed ({0}) and ends with findings_done(), which leaves it zeroed. */
void findings_done(struct findings *fs);

/* Append; advice may be NULL. Longer texts are cut. */
void findings_add(struct findings *fs, const char *id, enum severity severity, const char *advice,
		  const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* The worst severity in the list; FINDING_OK when it is empty, FINDING_ERROR when fs->err is set. */
enum severity findings_worst(const struct findings *fs);

/* "ok", "info", "warn", "error". */
const char *severity_name(enum severity s);

/*
 * Print the list: a line each, the advice indented below it; or with json one document {"worst":
 * "warn", "findings": [{"id", "severity", "text", "advice"}]}. Returns 0 or -errno.
 */
int findings_print(FILE *f, const struct findings *fs, bool json);

#endif
