/* SPDX-License-Identifier: BSD-2-Clause */
/* collisions: what happened, or what happens (--follow). */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cmd_list.h"

static const struct table_column columns[] = {
	{ "TIME", false },   { "KIND", false }, { "NETNS", false },   { "PROTO", false },
	{ "BOUND", false },  { "WIRE", false }, { "DST", false },     { "IN-SLICE", false },
	{ "SOURCE", false }, { "PID", true },   { "COMMAND", false }, { "OWNER", false },
};
#define N_COLUMNS (sizeof(columns) / sizeof(columns[0]))

static const char *or_dash(const char *text)
{
	return *text ? text : "-";
}

static const char *yes_no(json_t *v)
{
	return json_is_true(v) ? "yes" : json_is_false(v) ? "no" : "-";
}

/* "flow 10.1.0.2:5000". */
static const char *owner(json_t *row, char buf[CMD_CELL])
{
	char end[CMD_CELL];

	if (!json_is_object(cmd_get(row, "owner")))
		return "-";
	snprintf(buf, CMD_CELL, "%.10s %.52s", cmd_text(row, "owner.kind"),
		 cmd_endpoint(row, "owner.src", "owner.sport", end));
	return buf;
}

static bool cells_of(json_t *row, const char **cells, char (*buf)[CMD_CELL])
{
	cells[0] = cmd_text(row, "time");
	cells[1] = cmd_text(row, "kind");
	cells[2] = or_dash(cmd_text(row, "netns"));
	cells[3] = cmd_text(row, "proto");
	cells[4] = cmd_text(row, "bound");
	cells[5] = cmd_text(row, "wire");
	cells[6] = cmd_text(row, "dst");
	cells[7] = yes_no(cmd_get(row, "in_slice"));
	cells[8] = or_dash(cmd_text(row, "source"));
	cells[9] = json_integer_value(cmd_get(row, "socket.pid"))
			   ? cmd_number(row, "socket.pid", buf[9])
			   : "-";
	cells[10] = or_dash(cmd_text(row, "socket.comm"));
	cells[11] = owner(row, buf[11]);
	/* It left with a port that may be another machine's, and nobody translates back. */
	return json_is_false(cmd_get(row, "in_slice")) && !json_is_true(cmd_get(row, "resolved"));
}

/* ---- as they come ---- */

struct following {
	const struct cmd *cmd;
	long shown;
	bool begun;
};

static bool is(json_t *event, const char *key, const char *wanted)
{
	return !wanted || strcmp(cmd_text(event, key), wanted) == 0;
}

static bool wanted(const struct cmd *cmd, json_t *event)
{
	return is(event, "kind", cmd->kind) && is(event, "proto", cmd->proto) &&
	       is(event, "netns", cmd->netns) &&
	       (!cmd->in_slice ||
		(cmd->in_slice > 0) == json_is_true(json_object_get(event, "in_slice")));
}

/* Nobody knows how wide the next ones will be: as wide as IPv4 needs, and no narrower than their headings. */
static void print_line(const char *const *cells)
{
	static const int widths[N_COLUMNS] = { 24, 7, 8, 5, 21, 21, 21, 8, 9, 7, 15, 0 };

	for (size_t i = 0; i < N_COLUMNS; i++)
		printf("%s%*s", i ? " " : "", columns[i].right ? widths[i] : -widths[i], cells[i]);
	putchar('\n');
}

static void print_begin(struct following *f)
{
	const char *names[N_COLUMNS];

	for (size_t i = 0; i < N_COLUMNS; i++)
		names[i] = columns[i].name;
	if (!f->begun && f->cmd->header && !f->cmd->json)
		print_line(names);
	f->begun = true;
}

static int follow_event(json_t *event, void *data)
{
	struct following *f = data;
	const char *cells[N_COLUMNS], *name = cmd_text(event, "event");
	char buf[N_COLUMNS][CMD_CELL], n[CMD_CELL];
	bool lost = strcmp(name, "lost") == 0;
	int r;

	print_begin(f);
	if (lost && !f->cmd->json)
		cmd_say("too slow: %s events were lost, collisions among them maybe",
			cmd_number(event, "count", n));
	if (lost ? f->cmd->json : strcmp(name, "collision") == 0 && wanted(f->cmd, event)) {
		if (f->cmd->json) {
			json_dumpf(event, stdout, JSON_COMPACT);
			putchar('\n');
		} else {
			cells_of(event, cells, buf);
			print_line(cells);
		}
		f->shown += !lost;
	}
	/* Each line at once: somebody waits for it. */
	r = cmd_flush();
	return r ? r : f->shown && f->shown == f->cmd->limit ? -ECANCELED : 0;
}

static int follow(const struct cmd *cmd)
{
	struct following f = { .cmd = cmd };
	struct errtext err = { 0 };
	struct client *c;
	int r, code;

	code = cmd_connect(cmd, &c);
	if (code != CMD_OK)
		return code;
	r = client_call_more(c, "io.sluice.Monitor", NULL, true, follow_event, &f, &err);
	code = cmd_end(c, r == -ECANCELED ? 0 : r, &err);
	client_close(c);
	return code;
}

/* ---- the history ---- */

static bool set(json_t *params, const char *key, json_t *v)
{
	return json_object_set_new(params, key, v) == 0;
}

static bool set_text(json_t *params, const char *key, const char *text)
{
	return !text || set(params, key, json_string(text));
}

static json_t *filters(const struct cmd *cmd, const char *since)
{
	json_t *params = json_object();

	if (params && set_text(params, "kind", cmd->kind) &&
	    set_text(params, "proto", cmd->proto) && set_text(params, "netns", cmd->netns) &&
	    set_text(params, "since", since) &&
	    (!cmd->in_slice || set(params, "in_slice", json_boolean(cmd->in_slice > 0))) &&
	    (!cmd->limit || set(params, "limit", json_integer(cmd->limit))))
		return params;
	json_decref(params);
	return NULL;
}

int cmd_collisions(const struct cmd *cmd)
{
	static const struct cmd_listing l = { "collisions", columns, N_COLUMNS, cells_of };
	char since[CMD_TIME_LEN];

	if (cmd->follow && cmd->since) {
		cmd_say("--follow shows what comes; it goes with no --since");
		return CMD_USAGE;
	}
	if (cmd->follow)
		return follow(cmd);
	if (cmd->since && !cmd_parse_time(cmd->since, since)) {
		cmd_say("--since: \"%s\" is no time, such as 2026-11-24T10:00:00Z or "
			"2026-11-24T12:00:00+02:00",
			cmd->since);
		return CMD_USAGE;
	}
	return cmd_list(cmd, &l, "io.sluice.ListCollisions",
			filters(cmd, cmd->since ? since : NULL));
}
