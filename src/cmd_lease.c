/* SPDX-License-Identifier: BSD-2-Clause */
/* leases, acquire, renew, release. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cmd_list.h"

/* ---- what a lease looks like ---- */

static const struct table_column lease_columns[] = {
	{ "ID", true },    { "POOL", false },    { "PROTO", false },  { "PORTS", false },
	{ "KIND", false }, { "STATE", false },   { "EXPIRES", true }, { "UID", true },
	{ "PID", true },   { "COMMAND", false }, { "NAME", false },
};

static bool lease_cells(json_t *row, const char **cells, char (*buf)[CMD_CELL])
{
	const char *name = cmd_text(row, "name");

	cells[0] = cmd_number(row, "id", buf[0]);
	cells[1] = cmd_text(row, "pool");
	cells[2] = cmd_text(row, "proto");
	cells[3] = cmd_ports(row, buf[3]);
	cells[4] = cmd_text(row, "kind");
	cells[5] = cmd_text(row, "state");
	cells[6] = cmd_number(row, "expires_s", buf[6]);
	cells[7] = cmd_number(row, "holder.uid", buf[7]);
	cells[8] = cmd_number(row, "holder.pid", buf[8]);
	cells[9] = cmd_text(row, "holder.comm");
	cells[10] = *name ? name : "-";
	return false;
}

const struct cmd_listing cmd_leases_listing = {
	"leases",
	lease_columns,
	sizeof(lease_columns) / sizeof(lease_columns[0]),
	lease_cells,
};

int cmd_leases(const struct cmd *cmd)
{
	return cmd_list(cmd, &cmd_leases_listing, "io.sluice.ListLeases", cmd_filters(cmd));
}

/* ---- asking for them ---- */

static bool set(json_t *params, const char *key, json_t *v)
{
	return json_object_set_new(params, key, v) == 0;
}

static bool set_text(json_t *params, const char *key, const char *text)
{
	return !text || set(params, key, json_string(text));
}

static bool set_number(json_t *params, const char *key, long long n)
{
	return n <= 0 || set(params, key, json_integer(n));
}

static bool set_tags(json_t *params, const struct cmd_request *req)
{
	json_t *tags;

	if (req->n_tags == 0)
		return true;
	tags = json_array();
	for (size_t i = 0; i < req->n_tags; i++) {
		if (json_array_append_new(tags, json_string(req->tags[i])) < 0) {
			json_decref(tags);
			return false;
		}
	}
	return set(params, "tags", tags);
}

json_t *cmd_request_params(const struct cmd *cmd)
{
	const struct cmd_request *req = &cmd->request;
	json_t *p = json_object();

	if (!p || !set_text(p, "pool", cmd->pool) || !set_tags(p, req) ||
	    !set_text(p, "address", req->address) || !set_text(p, "proto", cmd->proto) ||
	    (req->exclusive && !set(p, "exclusive", json_true())) ||
	    !set_number(p, "port", cmd->port) || !set_number(p, "ports", req->count) ||
	    !set_number(p, "leases", req->leases) || !set_number(p, "align", req->align) ||
	    !set_text(p, "parity", req->parity) || !set_number(p, "ttl", req->ttl_s) ||
	    !set_text(p, "until", req->until) || !set_number(p, "pid", req->pid) ||
	    !set_text(p, "name", req->name) || !set_text(p, "labels", req->labels) ||
	    !set_number(p, "id", req->id)) {
		json_decref(p);
		return NULL;
	}
	return p;
}

/* One call; print() gets the answer. Takes params. */
static int ask(const struct cmd *cmd, const char *method, json_t *params,
	       int (*print)(const struct cmd *cmd, json_t *answer))
{
	struct errtext err = { 0 };
	struct client *c;
	json_t *answer;
	int r, code;

	code = cmd_connect(cmd, &c);
	if (code != CMD_OK) {
		json_decref(params);
		return code;
	}
	r = params ? client_call(c, method, params, &answer, &err) : -ENOMEM;
	if (r == 0) {
		r = print(cmd, answer);
		json_decref(answer);
	}
	code = cmd_end(c, r, &err);
	client_close(c);
	return code;
}

static int print_leases(const struct cmd *cmd, json_t *answer)
{
	return cmd_print(cmd, &cmd_leases_listing, answer);
}

int cmd_acquire(const struct cmd *cmd)
{
	struct cmd copy = *cmd;

	/* Bound to this process it would end at once. */
	if (!copy.request.until)
		copy.request.until = "release";
	return ask(&copy, "io.sluice.Acquire", cmd_request_params(&copy), print_leases);
}

/* One lease is shown like several. */
static int print_lease(const struct cmd *cmd, json_t *answer)
{
	json_t *rows = json_pack("{s:[O]}", "leases", json_object_get(answer, "lease"));
	int r = rows ? print_leases(cmd, rows) : -ENOMEM;

	json_decref(rows);
	return r;
}

int cmd_renew(const struct cmd *cmd)
{
	long long id;

	if (!cmd_lease_id(cmd->operands[0], &id))
		return CMD_USAGE;
	return ask(cmd, "io.sluice.Renew",
		   cmd->request.ttl_s > 0 ? json_pack("{s:I, s:I}", "id", (json_int_t)id, "ttl",
						      (json_int_t)cmd->request.ttl_s)
					  : json_pack("{s:I}", "id", (json_int_t)id),
		   print_lease);
}

static int print_nothing(const struct cmd *cmd, json_t *answer)
{
	(void)answer;
	if (cmd->json)
		puts("{}");
	return 0;
}

int cmd_release(const struct cmd *cmd)
{
	json_t *ids = json_array();

	for (int i = 0; i < cmd->n_operands; i++) {
		long long id;

		if (!cmd_lease_id(cmd->operands[i], &id)) {
			json_decref(ids);
			return CMD_USAGE;
		}
		if (json_array_append_new(ids, json_integer(id)) < 0) {
			json_decref(ids);
			ids = NULL;
			break;
		}
	}
	return ask(cmd, "io.sluice.Release", ids ? json_pack("{s:o}", "ids", ids) : NULL,
		   print_nothing);
}
