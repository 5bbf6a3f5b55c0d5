/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Listings, and the plain ones among them: pools, slices, flows, drops, sockets. Rows are printed as they come; a million flows take no
 * memory.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cmd_list.h"

struct printing {
	const struct cmd_listing *listing;
	struct table *table; /* NULL: JSON */
	size_t rows;
};

/* One document, a row a line: {"flows":[ ... ]}. */
static int print_json(struct printing *p, json_t *row)
{
	fputs(p->rows ? ",\n" : "\n", stdout);
	if (json_dumpf(row, stdout, JSON_COMPACT) < 0)
		return errno ? -errno : -EIO;
	return 0;
}

static int print_rows(json_t *params, void *data)
{
	struct printing *p = data;
	json_t *rows = json_object_get(params, p->listing->key);
	const char *cells[CMD_COLUMNS_MAX];
	char buf[CMD_COLUMNS_MAX][CMD_CELL];
	json_t *row;
	size_t i;
	int r;

	json_array_foreach(rows, i, row)
	{
		errno = 0;
		if (p->table)
			r = table_row(p->table, cells, p->listing->cells(row, cells, buf));
		else
			r = print_json(p, row);
		if (r < 0)
			return r;
		p->rows++;
	}
	/* A reader that has gone shows here at the latest: then stop asking. */
	return ferror(stdout) ? (errno ? -errno : -EIO) : 0;
}

static int add(json_t *params, const char *key, const char *text)
{
	return text ? json_object_set_new(params, key, json_string(text)) : 0;
}

json_t *cmd_filters(const struct cmd *cmd)
{
	json_t *params = json_object();

	if (!params || add(params, "pool", cmd->pool) < 0 || add(params, "proto", cmd->proto) < 0 ||
	    add(params, "client", cmd->client) < 0 || add(params, "state", cmd->state) < 0 ||
	    (cmd->port && json_object_set_new(params, "port", json_integer(cmd->port)) < 0) ||
	    (cmd->by_uid && json_object_set_new(params, "uid", json_integer(cmd->uid)) < 0)) {
		json_decref(params);
		return NULL;
	}
	return params;
}

int cmd_list(const struct cmd *cmd, const struct cmd_listing *l, const char *method, json_t *params)
{
	struct printing p = { .listing = l };
	struct errtext err = { 0 };
	struct client *c;
	int r, code;

	code = cmd_connect(cmd, &c);
	if (code != CMD_OK) {
		json_decref(params);
		return code;
	}
	r = params ? 0 : -ENOMEM;
	if (r == 0 && !cmd->json)
		r = table_open(stdout, l->columns, l->n, cmd->header, &p.table);
	if (r == 0) {
		if (cmd->json)
			printf("{\"%s\":[", l->key);
		r = client_call_more(c, method, params, false, print_rows, &p, &err);
	} else {
		json_decref(params);
	}
	/* Without an answer there is no table, not even its header. */
	if (r == 0 || p.rows > 0) {
		int r2 = table_close(p.table);

		r = r < 0 ? r : r2;
	} else {
		table_drop(p.table);
	}
	if (r == 0 && cmd->json)
		printf("%s]}\n", p.rows ? "\n" : "");
	code = cmd_end(c, r, &err);
	client_close(c);
	return code;
}

int cmd_print(const struct cmd *cmd, const struct cmd_listing *l, json_t *answer)
{
	struct printing p = { .listing = l };
	int r = 0, r2;

	if (cmd->json)
		printf("{\"%s\":[", l->key);
	else
		r = table_open(stdout, l->columns, l->n, cmd->header, &p.table);
	if (r == 0)
		r = print_rows(answer, &p);
	r2 = table_close(p.table);
	if (r == 0 && cmd->json)
		printf("%s]}\n", p.rows ? "\n" : "");
	return r < 0 ? r : r2;
}

/* ---- pools ---- */

static const struct table_column pool_columns[] = {
	{ "POOL", false },    { "ADDRESSES", false }, { "SIZE", true },     { "SLICES", true },
	{ "TCP", true },      { "UDP", true },        { "ICMP", true },     { "REFUSED", true },
	{ "RESOLVED", true }, { "OUT-BYTES", true },  { "IN-BYTES", true },
};

static bool pool_cells(json_t *row, const char **cells, char (*buf)[CMD_CELL])
{
	json_t *addresses = cmd_get(row, "addresses");
	size_t n = json_array_size(addresses);
	json_int_t refused = json_integer_value(cmd_get(row, "refused.tcp")) +
			     json_integer_value(cmd_get(row, "refused.udp")) +
			     json_integer_value(cmd_get(row, "refused.icmp"));

	cells[0] = cmd_text(row, "name");
	snprintf(buf[1], CMD_CELL, n > 1 ? "%.45s(+%zu)" : "%.45s",
		 n ? json_string_value(json_array_get(addresses, 0)) : "-", n - 1);
	cells[1] = buf[1];
	cells[2] = cmd_number(row, "slice_size", buf[2]);
	cells[3] = cmd_number(row, "slices", buf[3]);
	cells[4] = cmd_number(row, "flows.tcp", buf[4]);
	cells[5] = cmd_number(row, "flows.udp", buf[5]);
	cells[6] = cmd_number(row, "flows.icmp", buf[6]);
	snprintf(buf[7], CMD_CELL, "%" JSON_INTEGER_FORMAT, refused);
	cells[7] = buf[7];
	cells[8] = cmd_number(row, "resolved", buf[8]);
	cells[9] = cmd_number(row, "bytes.out", buf[9]);
	cells[10] = cmd_number(row, "bytes.in", buf[10]);
	return refused > 0;
}

int cmd_pools(const struct cmd *cmd)
{
	static const struct cmd_listing l = { "pools", pool_columns,
					      sizeof(pool_columns) / sizeof(pool_columns[0]),
					      pool_cells };

	return cmd_list(cmd, &l, "io.sluice.ListPools", cmd_filters(cmd));
}

/* ---- exhaustion ---- */

static const struct table_column exhaustion_columns[] = {
	{ "POOL", false },   { "PROTO", false },  { "WHAT", false },
	{ "PORTS", true },   { "LEASED", true },  { "USED", true },
	{ "FULL-IN", true }, { "REFUSED", true }, { "LAST-AGO", true },
};

/* Deserves attention: what is full, or was refused something in the last minute. */
static bool exhaustion_cells(json_t *row, const char **cells, char (*buf)[CMD_CELL])
{
	const char *what = cmd_text(row, "what");
	json_t *full = cmd_get(row, "full_s"), *ago = cmd_get(row, "refused_ago_s");
	char number[2][CMD_CELL];

	cells[0] = cmd_text(row, "pool");
	cells[1] = cmd_text(row, "proto");
	cells[2] = "all";
	if (!strcmp(what, "slice"))
		snprintf(buf[2], CMD_CELL, "%.40s %s-%s", cmd_text(row, "address"),
			 cmd_number(row, "first", number[0]), cmd_number(row, "last", number[1]));
	else if (json_is_null(cmd_get(row, "destination")))
		snprintf(buf[2], CMD_CELL, "to anywhere");
	else
		snprintf(buf[2], CMD_CELL, "to %.40s %s", cmd_text(row, "destination"),
			 cmd_number(row, "port", number[0]));
	if (strcmp(what, "pool") != 0)
		cells[2] = buf[2];
	cells[3] = cmd_number(row, "ports", buf[3]);
	cells[4] = cmd_number(row, "leased", buf[4]);
	cells[5] = cmd_number(row, "used", buf[5]);
	cells[6] = cmd_number(row, "full_s", buf[6]);
	cells[7] = cmd_number(row, "refused", buf[7]);
	cells[8] = cmd_number(row, "refused_ago_s", buf[8]);
	return (json_is_integer(full) && !json_integer_value(full)) ||
	       (json_is_integer(ago) && json_integer_value(ago) < 60);
}

int cmd_exhaustion(const struct cmd *cmd)
{
	static const struct cmd_listing l = { "exhaustion", exhaustion_columns,
					      sizeof(exhaustion_columns) /
						      sizeof(exhaustion_columns[0]),
					      exhaustion_cells };

	return cmd_list(cmd, &l, "io.sluice.ListExhaustion", cmd_filters(cmd));
}

/* ---- slices ---- */

static const struct table_column slice_columns[] = {
	{ "POOL", false },  { "ADDRESS", false }, { "FIRST", true },   { "LAST", true },
	{ "STATE", false }, { "EPOCH", true },    { "EXPIRES", true }, { "TCP", true },
	{ "UDP", true },    { "ICMP", true },
};

static bool slice_cells(json_t *row, const char **cells, char (*buf)[CMD_CELL])
{
	cells[0] = cmd_text(row, "pool");
	cells[1] = cmd_text(row, "address");
	cells[2] = cmd_number(row, "first", buf[2]);
	cells[3] = cmd_number(row, "last", buf[3]);
	cells[4] = cmd_text(row, "state");
	cells[5] = cmd_number(row, "epoch", buf[5]);
	cells[6] = cmd_number(row, "expires_s", buf[6]);
	cells[7] = cmd_number(row, "used.tcp", buf[7]);
	cells[8] = cmd_number(row, "used.udp", buf[8]);
	cells[9] = cmd_number(row, "used.icmp", buf[9]);
	return strcmp(cells[4], "held") != 0;
}

int cmd_slices(const struct cmd *cmd)
{
	static const struct cmd_listing l = { "slices", slice_columns,
					      sizeof(slice_columns) / sizeof(slice_columns[0]),
					      slice_cells };

	return cmd_list(cmd, &l, "io.sluice.ListSlices", cmd_filters(cmd));
}

/* ---- flows ---- */

static const struct table_column flow_columns[] = {
	{ "POOL", false },  { "PROTO", false }, { "INNER", false },  { "DESTINATION", false },
	{ "OUTER", false }, { "STATE", false }, { "EXPIRES", true },
};

static bool flow_cells(json_t *row, const char **cells, char (*buf)[CMD_CELL])
{
	cells[0] = cmd_text(row, "pool");
	cells[1] = cmd_text(row, "proto");
	cells[2] = cmd_endpoint(row, "inner.src", "inner.sport", buf[2]);
	cells[3] = cmd_endpoint(row, "inner.dst", "inner.dport", buf[3]);
	cells[4] = cmd_endpoint(row, "outer.src", "outer.sport", buf[4]);
	cells[5] = cmd_text(row, "state");
	cells[6] = cmd_number(row, "expires_s", buf[6]);
	return false;
}

int cmd_flows(const struct cmd *cmd)
{
	static const struct cmd_listing l = { "flows", flow_columns,
					      sizeof(flow_columns) / sizeof(flow_columns[0]),
					      flow_cells };

	return cmd_list(cmd, &l, "io.sluice.ListFlows", cmd_filters(cmd));
}

/* ---- drops ---- */

static const struct table_column drop_columns[] = {
	{ "REASON", false },
	{ "PACKETS", true },
	{ "BYTES", true },
	{ "HELP", false },
};

static bool drop_cells(json_t *row, const char **cells, char (*buf)[CMD_CELL])
{
	cells[0] = cmd_text(row, "reason");
	cells[1] = cmd_number(row, "packets", buf[1]);
	cells[2] = cmd_number(row, "bytes", buf[2]);
	cells[3] = cmd_text(row, "help");
	return false;
}

int cmd_drops(const struct cmd *cmd)
{
	static const struct cmd_listing l = { "drops", drop_columns,
					      sizeof(drop_columns) / sizeof(drop_columns[0]),
					      drop_cells };

	return cmd_list(cmd, &l, "io.sluice.ListDrops", cmd_filters(cmd));
}

/* ---- sockets ---- */

static const struct table_column socket_columns[] = {
	{ "PROTO", false }, { "LOCAL", false }, { "REMOTE", false }, { "STATE", false },
	{ "LEASE", true },  { "UID", true },    { "PID", true },     { "COMMAND", false },
};

static bool socket_cells(json_t *row, const char **cells, char (*buf)[CMD_CELL])
{
	cells[0] = cmd_text(row, "proto");
	cells[1] = cmd_endpoint(row, "local", "lport", buf[1]);
	cells[2] = cmd_endpoint(row, "remote", "rport", buf[2]);
	cells[3] = cmd_text(row, "state");
	cells[4] = cmd_number(row, "lease", buf[4]);
	cells[5] = cmd_number(row, "uid", buf[5]);
	cells[6] = cmd_number(row, "pid", buf[6]);
	cells[7] = cmd_text(row, "comm");
	return !json_is_integer(cmd_get(row, "lease"));
}

int cmd_sockets(const struct cmd *cmd)
{
	static const struct cmd_listing l = { "sockets", socket_columns,
					      sizeof(socket_columns) / sizeof(socket_columns[0]),
					      socket_cells };

	return cmd_list(cmd, &l, "io.sluice.ListSockets", cmd_filters(cmd));
}
