/* SPDX-License-Identifier: BSD-2-Clause */
/* Running a command within a test: its exit code, and what it printed on stdout and stderr. */
#ifndef CMD_TEST_H
#define CMD_TEST_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "cmd.h"

static char *output; /* of the last command; free() it at the end */

static inline int run(int (*fn)(const struct cmd *cmd), const struct cmd *cmd)
{
	int fd = memfd_create("output", MFD_CLOEXEC), old[2] = { dup(1), dup(2) }, code;
	off_t size;

	assert_true(fd >= 0 && old[0] >= 0 && old[1] >= 0);
	fflush(stdout);
	dup2(fd, 1);
	dup2(fd, 2);
	code = fn(cmd);
	fflush(stdout);
	dup2(old[0], 1);
	dup2(old[1], 2);
	close(old[0]);
	close(old[1]);
	size = lseek(fd, 0, SEEK_END);
	free(output);
	output = calloc(1, (size_t)size + 1);
	assert_int_equal(pread(fd, output, (size_t)size, 0), size);
	close(fd);
	return code;
}

static inline void expect_output(const char *part)
{
	if (!strstr(output, part))
		fail_msg("the output does not have \"%s\":\n%s", part, output);
}

/* How often the output says that. */
static inline unsigned output_has(const char *part)
{
	unsigned n = 0;

	for (const char *at = output; (at = strstr(at, part)); at += strlen(part))
		n++;
	return n;
}

#endif
