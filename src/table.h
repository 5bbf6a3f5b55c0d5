/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tables for people, by libsmartcols. Rows are printed in batches, so that a listing of any length
 * takes bounded memory; columns keep the width that an earlier batch needed.
 */
#ifndef TABLE_H
#define TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct table;

struct table_column {
	const char *name;
	bool right; /* numbers stand at the right */
};

/* columns must outlive the table. 0 or -ENOMEM. */
int table_open(FILE *f, const struct table_column *columns, size_t n, bool header,
	       struct table **ret);
/*
 * Add a row of n texts (copied; NULL is "-"). alert: coloured on a terminal, unless NO_COLOR is
 * set. 0; -ENOMEM; -EPIPE or what else writing said, when a batch was due.
 */
int table_row(struct table *t, const char *const *cells, bool alert);
/* Print what is left (the header at least) and free. NULL is fine. Errors as table_row(). */
int table_close(struct table *t);
/* Free and print nothing more. */
void table_drop(struct table *t);

#endif
