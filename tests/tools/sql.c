// SPDX-License-Identifier: BSD-2-Clause
/*
 * SQL on the daemon's store behind its back: sql FILE STATEMENTS. Prints the rows, columns separated by "|". Exit code 1 when something failed.
 */
#include <sqlite3.h>
#include <stdio.h>

static int print_row(void *arg, int n, char **values, char **names)
{
	(void)arg;
	(void)names;
	for (int i = 0; i < n; i++)
		printf("%s%s", i ? "|" : "", values[i] ? values[i] : "");
	putchar('\n');
	return 0;
}

int main(int argc, char **argv)
{
	sqlite3 *db = NULL;
	char *why = NULL;
	int rc;

	if (argc != 3) {
		fprintf(stderr, "usage: sql FILE STATEMENTS\n");
		return 1;
	}
	rc = sqlite3_open_v2(argv[1], &db, SQLITE_OPEN_READWRITE, NULL);
	if (rc == SQLITE_OK)
		sqlite3_busy_timeout(db, 5000);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, argv[2], print_row, NULL, &why);
	if (rc != SQLITE_OK)
		fprintf(stderr, "sql: %s: %s\n", argv[1], why ? why : sqlite3_errstr(rc));
	sqlite3_free(why);
	sqlite3_close(db);
	return rc != SQLITE_OK;
}
