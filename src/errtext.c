/* SPDX-License-Identifier: BSD-2-Clause */
#include "errtext.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int errtext_set(struct errtext *e, int err, const char *fmt, ...)
{
	va_list ap;

	if (e) {
		va_start(ap, fmt);
		vsnprintf(e->s, sizeof(e->s), fmt, ap);
		va_end(ap);
	}
	return -err;
}

void errtext_prefix(struct errtext *e, const char *fmt, ...)
{
	char tail[ERRTEXT_LEN];
	va_list ap;
	int n;

	if (!e)
		return;
	memcpy(tail, e->s, sizeof(tail));
	va_start(ap, fmt);
	n = vsnprintf(e->s, sizeof(e->s), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(e->s))
		snprintf(e->s + n, sizeof(e->s) - (size_t)n, "%s", tail);
}
