/* SPDX-License-Identifier: BSD-2-Clause */
/* Listings, for the commands that print rows: a table, or one JSON document with a row a line. */
#ifndef CMD_LIST_H
#define CMD_LIST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "cmd.h"

#define CMD_COLUMNS_MAX 12

struct cmd_listing {
	const char *key; /* of the array in the answers, and in our JSON */
	const struct table_column *columns;
	size_t n; /* CMD_COLUMNS_MAX at most */
	/*
	 * Fill the cells of a row; buf is room for their texts. Returns whether it deserves
	 * attention.
	 */
	bool (*cells)(json_t *row, const char **cells, char (*buf)[CMD_CELL]);
};

/* The filters of cmd as parameters of a method; NULL without memory. */
json_t *cmd_filters(const struct cmd *cmd);

/*
 * Call a method (with `more`: rows are printed as they come) and print what it lists. Takes params; NULL is "no memory". An exit code.
 */
int cmd_list(const struct cmd *cmd, const struct cmd_listing *l, const char *method,
	     json_t *params);
/* Print the rows of one answer. 0 or -errno. */
int cmd_print(const struct cmd *cmd, const struct cmd_listing *l, json_t *answer);

/* Leases, in the answers of several methods. */
extern const struct cmd_listing cmd_leases_listing;

#endif
