/* SPDX-License-Identifier: BSD-2-Clause */
/* The text that goes with a -errno when a person caused it: what, which value, what would be right. */
#ifndef ERRTEXT_H
#define ERRTEXT_H

#define ERRTEXT_LEN 512

struct errtext {
	char s[ERRTEXT_LEN]; /* one line without a newline; "" where nothing was said */
};

/* Fill e (may be NULL) and return -err, so that a caller can write: return errtext_set(e, EINVAL, "..."). */
int errtext_set(struct errtext *e, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Put text in front of what is there: "pool \"a\": " + "...". */
void errtext_prefix(struct errtext *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
