/* SPDX-License-Identifier: BSD-2-Clause */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static enum { TO_STDERR, TO_JOURNAL, TO_SYSLOG } target = TO_STDERR;
static int max_priority = LOG_INFO;

void log_open(const char *ident, bool foreground, bool verbose)
{
	max_priority = verbose ? LOG_DEBUG : LOG_INFO;
	if (getenv("JOURNAL_STREAM")) {
		target = TO_JOURNAL;
	} else if (foreground) {
		target = TO_STDERR;
	} else {
		target = TO_SYSLOG;
		openlog(ident, LOG_PID, LOG_DAEMON);
	}
}

void log_msg(int priority, const char *fmt, ...)
{
	static const char *const names[] = { "emerg",   "alert",  "crit", "error",
					     "warning", "notice", "info", "debug" };
	char line[1024];
	va_list ap;

	if (priority > max_priority)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	switch (target) {
	case TO_SYSLOG:
		syslog(priority, "%s", line);
		break;
	case TO_JOURNAL:
		fprintf(stderr, "<%d>%s\n", priority, line);
		break;
	case TO_STDERR:
		fprintf(stderr, "%s: %s\n", names[priority & 7], line);
		break;
	}
}
