/* SPDX-License-Identifier: BSD-2-Clause */
/* The command `sluice`. */
#include <stdio.h>

#include "options.h"

#define EXEC_FAILED 125 /* of exec, whose other codes are the program's */

int main(int argc, char **argv)
{
	struct options o;

	switch (options_parse(argc, argv, &o)) {
	case OPTIONS_RUN:
		return o.command->fn(&o.cmd);
	case OPTIONS_VERSION:
		printf("sluice %s\n", SLUICE_VERSION);
		return cmd_flush() < 0 ? CMD_FAILED : CMD_OK;
	case OPTIONS_HELP:
		options_help(stdout, o.command);
		return cmd_flush() < 0 ? CMD_FAILED : CMD_OK;
	case OPTIONS_NOTHING:
		options_help(stderr, NULL);
		return CMD_USAGE;
	case OPTIONS_WRONG:
		break;
	}
	fputs("`sluice --help` tells the commands and options.\n", stderr);
	return o.command && o.command->runs ? EXEC_FAILED : CMD_USAGE;
}
