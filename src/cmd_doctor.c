/* SPDX-License-Identifier: BSD-2-Clause */
/* doctor: the checks of doctor.h, and whether the daemon answers. Works without it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "config.h"
#include "doctor.h"

/* The configuration, if there is one; what is wrong with it is a finding. */
static struct config *load(const struct cmd *cmd, struct findings *fs)
{
	const char *path = cmd->file ? cmd->file : CONFIG_PATH_DEFAULT;
	struct errtext err = { 0 };
	struct config *c = NULL;

	if (!cmd->file && access(path, F_OK) < 0 && errno == ENOENT)
		return NULL;
	if (config_load(path, &c, &err) < 0)
		findings_add(fs, "config", FINDING_ERROR,
			     "correct it; sluiced -n -f FILE checks it", "%s", err.s);
	else
		findings_add(fs, "config", FINDING_OK, NULL, "%s is valid", path);
	return c;
}

/* unit: of systemd, which starts a daemon with such a configuration. */
static void check_daemon(const struct cmd *cmd, const char *path, const char *unit,
			 struct findings *fs)
{
	struct errtext err = { 0 };
	char advice[80];
	struct client *c;
	json_t *reply;
	int r;

	r = client_open(path, cmd->timeout_ms, &c, &err);
	if (r == -ENOENT || r == -ECONNREFUSED) {
		snprintf(advice, sizeof(advice), "start it: systemctl start %s", unit);
		findings_add(fs, "daemon", FINDING_WARN, advice,
			     "sluiced is not running: nobody answers at %s", path);
		return;
	}
	if (r == -EACCES) {
		findings_add(fs, "daemon", FINDING_INFO, "run doctor as root", "%s", err.s);
		return;
	}
	if (r < 0) {
		findings_add(fs, "daemon", FINDING_ERROR, NULL, "%s", err.s);
		return;
	}
	r = client_call(c, "io.sluice.GetStatus", NULL, &reply, &err);
	if (r < 0) {
		snprintf(advice, sizeof(advice), "see what it does: systemctl status %s", unit);
		findings_add(fs, "daemon", FINDING_ERROR, r == -ETIMEDOUT ? advice : NULL, "%s",
			     err.s);
	} else {
		findings_add(fs, "daemon", FINDING_OK, NULL, "sluiced %s runs as machine \"%s\"",
			     cmd_text(reply, "version"), cmd_text(reply, "machine"));
		json_decref(reply);
	}
	client_close(c);
}

int cmd_doctor(const struct cmd *cmd)
{
	struct findings fs = { 0 };
	struct config *c;
	const char *path;
	int code;

	c = load(cmd, &fs);
	path = cmd->socket ? cmd->socket : c && c->control ? c->control : CLIENT_SOCKET_DEFAULT;
	doctor_run(c, &fs);
	check_daemon(cmd, path, c && !c->n_pools ? "sluiced-watch" : "sluiced", &fs);
	code = doctor_print(stdout, &fs, cmd->json);
	findings_done(&fs);
	config_free(c);
	return code;
}
