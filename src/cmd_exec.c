/* SPDX-License-Identifier: BSD-2-Clause */
/* exec: a program whose sockets use a lease. The daemon puts this process into a control group of its own; then the program takes its place. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"

/* As env(1) and shells end. */
enum {
	EXEC_FAILED = 125, /* ours, not the program's */
	EXEC_NOT_POSSIBLE = 126,
	EXEC_NOT_FOUND = 127,
};

int cmd_exec(const struct cmd *cmd)
{
	struct errtext err = { 0 };
	struct client *c;
	json_t *params, *answer = NULL;
	int r;

	if (cmd_connect(cmd, &c) != CMD_OK)
		return EXEC_FAILED;
	params = cmd_request_params(cmd);
	r = params ? client_call(c, "io.sluice.Exec", params, &answer, &err) : -ENOMEM;
	json_decref(answer);
	if (r < 0) {
		cmd_end(c, r, &err);
		client_close(c);
		return EXEC_FAILED;
	}
	client_close(c);
	execvp(cmd->operands[0], cmd->operands);
	r = errno;
	cmd_say("%s: %s", cmd->operands[0], strerror(r));
	return r == ENOENT ? EXEC_NOT_FOUND : EXEC_NOT_POSSIBLE;
}
