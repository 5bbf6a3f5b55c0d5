/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line of `sluice`: which command it is, and what it is told. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdio.h>

#include "cmd.h"

struct options_command {
	const char *name;
	int (*fn)(const struct cmd *cmd);
	const char *help;
	unsigned accepts;     /* which options */
	const char *protos;   /* what --proto may be: "tcp|udp" */
	const char *operands; /* how the help names them; NULL: there are none */
	int min, max;         /* how many; max 0: none, -1: any number */
	bool takes;           /* asks for leases: its options say what, not which rows to show */
	bool runs; /* its first operand begins another program's command line; fails with 125 */
};

enum options_what {
	OPTIONS_RUN,
	OPTIONS_HELP,
	OPTIONS_VERSION,
	OPTIONS_NOTHING, /* no command */
	OPTIONS_WRONG,   /* has been said */
};

struct options {
	struct cmd cmd;
	const struct options_command *command; /* NULL: none was named */
	char labels[256];                      /* cmd.request.labels */
	unsigned given;                        /* options, as in accepts */
	const char *last;                      /* the last one of them, as the help writes it */
	bool help, version;
};

/* Read a command line. Its words must outlive *ret, which must not be moved. */
enum options_what options_parse(int argc, char **argv, struct options *ret);

/* All commands, or (c not NULL) one. */
void options_help(FILE *f, const struct options_command *c);

#endif
