/* SPDX-License-Identifier: BSD-2-Clause */
/* What the two halves of the store share: store.c opens, checks and creates the file, store_rows.c reads and writes it. */
#ifndef STORE_PRIVATE_H
#define STORE_PRIVATE_H

#include <sqlite3.h>

#include "store.h"

enum store_stmt {
	STMT_BEGIN,
	STMT_COMMIT,
	STMT_ROLLBACK,
	STMT_EPOCH,
	STMT_EPOCH_USE,
	STMT_HOLDS,
	STMT_HOLD_ADD,
	STMT_HOLD_RENEW,
	STMT_HOLD_RM,
	STMT_LOG_BEGIN,
	STMT_LOG_END,
	STMT_LOG_TRIM,
	STMT_HOST_ADD,
	STMT_HOST_RM,
	STMT_HOST_LIST,
	STMT_MAX,
};

struct store {
	sqlite3 *db;
	sqlite3_stmt *stmt[STMT_MAX];
	char *path;  /* of the database */
	int lock_fd; /* -1: not locked */
	uint32_t log_max;
	bool broken;
};

/*
 * Turn an SQLite code into -errno and a text. What a roll-back does not mend makes the store broken: after an I/O error the
 * memory's and the disk's idea of the file may differ.
 */
int store_fail(struct store *s, int rc, const char *what, struct errtext *err);

/* Prepare every statement. Returns an SQLite code. The second undoes it, also after a failure. */
int store_stmt_prepare(struct store *s);
void store_stmt_finalize(struct store *s);

#endif
