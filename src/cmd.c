/* SPDX-License-Identifier: BSD-2-Clause */
#include "cmd.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cmd_say(const char *fmt, ...)
{
	va_list ap;

	/* What was printed so far comes before the complaint. */
	fflush(stdout);
	fputs("sluice: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/* For what connecting returned. */
static int exit_unreachable(int r)
{
	switch (r) {
	case -EACCES:
		return CMD_DENIED;
	case -ETIMEDOUT:
		return CMD_TIMED_OUT;
	case -ENAMETOOLONG:
		return CMD_USAGE;
	case -ENOMEM:
		return CMD_FAILED;
	}
	return CMD_UNREACHABLE;
}

int cmd_connect(const struct cmd *cmd, struct client **ret)
{
	const char *path = cmd->socket ? cmd->socket : CLIENT_SOCKET_DEFAULT;
	struct errtext err = { 0 };
	int r = client_open(path, cmd->timeout_ms, ret, &err);

	if (r == 0)
		return CMD_OK;
	cmd_say("%s", err.s);
	return exit_unreachable(r);
}

static int exit_error(const char *name)
{
	static const struct {
		const char *name;
		enum cmd_exit code;
	} codes[] = {
		{ "io.sluice.NoPorts", CMD_NO_PORTS },
		/* The slice cannot be used now, so there are no ports in it. */
		{ "io.sluice.Fenced", CMD_NO_PORTS },
		{ "io.sluice.Denied", CMD_DENIED },
		{ "io.sluice.QuotaExceeded", CMD_DENIED },
		{ "org.varlink.service.PermissionDenied", CMD_DENIED },
		{ "io.sluice.Conflict", CMD_CONFLICT },
	};

	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		if (strcmp(name, codes[i].name) == 0)
			return codes[i].code;
	}
	return CMD_FAILED;
}

int cmd_end(const struct client *c, int r, const struct errtext *err)
{
	if (r == 0)
		r = cmd_flush();
	if (r == 0 || r == -EPIPE)
		return CMD_OK;
	if (err->s[0])
		cmd_say("%s", err->s);
	else if (r == -ENOMEM)
		cmd_say("out of memory");
	else
		cmd_say("cannot write the output: %s", strerror(-r));
	switch (r) {
	case -EREMOTEIO:
		return exit_error(client_error(c));
	case -ETIMEDOUT:
		return CMD_TIMED_OUT;
	case -ECONNRESET:
		return CMD_UNREACHABLE;
	}
	return CMD_FAILED;
}

int cmd_flush(void)
{
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	return errno ? -errno : -EIO;
}

json_t *cmd_get(json_t *row, const char *path)
{
	while (row && *path) {
		size_t n = strcspn(path, ".");
		char key[32];

		snprintf(key, sizeof(key), "%.*s", (int)n, path);
		row = json_object_get(row, key);
		path += n + (path[n] == '.');
	}
	return row;
}

const char *cmd_text(json_t *row, const char *path)
{
	const char *text = json_string_value(cmd_get(row, path));

	return text ? text : "-";
}

const char *cmd_number(json_t *row, const char *path, char buf[CMD_CELL])
{
	json_t *v = cmd_get(row, path);

	if (!json_is_integer(v))
		return "-";
	snprintf(buf, CMD_CELL, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
	return buf;
}

const char *cmd_endpoint(json_t *row, const char *address, const char *port, char buf[CMD_CELL])
{
	const char *text = json_string_value(cmd_get(row, address));
	json_int_t n = json_integer_value(cmd_get(row, port));
	bool v6;

	if (!text)
		return "*";
	v6 = strchr(text, ':');
	if (n)
		snprintf(buf, CMD_CELL, "%s%.45s%s:%" JSON_INTEGER_FORMAT, v6 ? "[" : "", text,
			 v6 ? "]" : "", n);
	else
		snprintf(buf, CMD_CELL, "%.45s", text);
	return buf;
}

const char *cmd_ports(json_t *row, char buf[CMD_CELL])
{
	json_int_t first = json_integer_value(cmd_get(row, "first"));
	json_int_t last = json_integer_value(cmd_get(row, "last"));
	size_t n;

	cmd_endpoint(row, "address", "first", buf);
	if (!json_is_string(cmd_get(row, "address")))
		return "-";
	n = strlen(buf);
	if (last > first)
		snprintf(buf + n, CMD_CELL - n, "-%" JSON_INTEGER_FORMAT, last);
	return buf;
}

bool cmd_lease_id(const char *text, long long *ret)
{
	long long id;
	char *end;

	errno = 0;
	id = strtoll(text, &end, 10);
	if (errno || *text < '0' || *text > '9' || *end || id < 1) {
		cmd_say("\"%s\" is not the number of a lease; `sluice leases` lists them", text);
		return false;
	}
	*ret = id;
	return true;
}
