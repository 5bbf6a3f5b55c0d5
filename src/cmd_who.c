/* SPDX-License-Identifier: BSD-2-Clause */
/* who: who had a port, now or then. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "addr.h"
#include "cmd_list.h"

static const struct table_column record_columns[] = {
	{ "WHAT", false },  { "PORTS", false },   { "PROTO", false }, { "ID", true },
	{ "BEGAN", false }, { "ENDED", false },   { "WHY", false },   { "UID", true },
	{ "PID", true },    { "COMMAND", false }, { "NAME", false },
};

static const char *or_dash(const char *text)
{
	return *text ? text : "-";
}

static bool record_cells(json_t *row, const char **cells, char (*buf)[CMD_CELL])
{
	cells[0] = cmd_text(row, "what");
	cells[1] = cmd_ports(row, buf[1]);
	cells[2] = cmd_text(row, "proto");
	cells[3] = cmd_number(row, "id", buf[3]);
	cells[4] = cmd_text(row, "began");
	cells[5] = cmd_text(row, "ended");
	cells[6] = or_dash(cmd_text(row, "why"));
	cells[7] = cmd_number(row, "holder.uid", buf[7]);
	cells[8] = cmd_number(row, "holder.pid", buf[8]);
	cells[9] = cmd_text(row, "holder.comm");
	cells[10] = or_dash(cmd_text(row, "name"));
	return false;
}

bool cmd_parse_endpoint(const char *text, char address[ADDR_STRLEN], int *ret_port)
{
	const char *colon = strrchr(text, ':'), *begin = text;
	char buf[ADDR_STRLEN], *end;
	struct addr a;
	size_t len;
	long port;

	if (!colon || colon[1] < '0' || colon[1] > '9')
		return false;
	errno = 0;
	port = strtol(colon + 1, &end, 10);
	if (errno || *end || port < 1 || port > 65535)
		return false;
	len = (size_t)(colon - begin);
	if (*begin == '[' && len > 2 && colon[-1] == ']') {
		begin++;
		len -= 2;
	} else if (memchr(begin, ':', len)) {
		return false; /* IPv6 without brackets: where does it end? */
	}
	if (len >= sizeof(buf))
		return false;
	memcpy(buf, begin, len);
	buf[len] = '\0';
	if (addr_parse(buf, &a) < 0)
		return false;
	addr_format(&a, address);
	*ret_port = (int)port;
	return true;
}

/* "Z", "+02:00", "-0130": seconds east of Greenwich. */
static bool parse_zone(const char *text, long *ret_s)
{
	int h, m, n = 0;

	if (strcmp(text, "Z") == 0 || strcmp(text, "z") == 0) {
		*ret_s = 0;
		return true;
	}
	if ((*text != '+' && *text != '-') ||
	    (sscanf(text + 1, "%2d:%2d%n", &h, &m, &n) != 2 || n != 5) || text[6] || h < 0 ||
	    h > 23 || m < 0 || m > 59)
		return false;
	*ret_s = (h * 60 + m) * 60L * (*text == '-' ? -1 : 1);
	return true;
}

bool cmd_parse_time(const char *text, char utc[CMD_TIME_LEN])
{
	int ms = 0, scale = 100;
	struct tm tm = { 0 }, given;
	const char *p;
	long zone_s;
	time_t t;

	p = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	if (!p)
		p = strptime(text, "%Y-%m-%d %H:%M:%S", &tm);
	if (!p || strspn(text, "0123456789") != 4)
		return false;
	if (*p == '.') {
		if (p[1] < '0' || p[1] > '9')
			return false;
		for (p++; *p >= '0' && *p <= '9'; p++, scale /= 10)
			ms += (*p - '0') * scale;
	}
	if (*p == ' ')
		p++;
	if (!parse_zone(p, &zone_s))
		return false;
	given = tm;
	t = timegm(&tm);
	/* The 31st of April is put right in silence. */
	if (tm.tm_mday != given.tm_mday || tm.tm_mon != given.tm_mon)
		return false;
	t -= zone_s;
	if (!gmtime_r(&t, &tm) || tm.tm_year + 1900 < 1970 || tm.tm_year + 1900 > 9999)
		return false;
	snprintf(utc, CMD_TIME_LEN, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
		 (tm.tm_year + 1900) % 10000, (tm.tm_mon + 1) % 100, tm.tm_mday % 100,
		 tm.tm_hour % 100, tm.tm_min % 100, tm.tm_sec % 100, ms % 1000);
	return true;
}

int cmd_who(const struct cmd *cmd)
{
	static const struct cmd_listing l = { "records", record_columns,
					      sizeof(record_columns) / sizeof(record_columns[0]),
					      record_cells };
	char address[ADDR_STRLEN], at[CMD_TIME_LEN];
	json_t *params;
	int port;

	if (!cmd_parse_endpoint(cmd->operands[0], address, &port)) {
		cmd_say("\"%s\" is not ADDRESS:PORT, such as 203.0.113.7:41000 or "
			"[2001:db8::7]:41000",
			cmd->operands[0]);
		return CMD_USAGE;
	}
	if (cmd->at && !cmd_parse_time(cmd->at, at)) {
		cmd_say("--at: \"%s\" is no time, such as 2026-11-24T10:00:00Z or "
			"2026-11-24T12:00:00+02:00",
			cmd->at);
		return CMD_USAGE;
	}
	params = json_pack("{s:s, s:i}", "address", address, "port", port);
	if ((cmd->proto && json_object_set_new(params, "proto", json_string(cmd->proto)) < 0) ||
	    (cmd->at && json_object_set_new(params, "at", json_string(at)) < 0)) {
		json_decref(params);
		params = NULL;
	}
	return cmd_list(cmd, &l, "io.sluice.Who", params);
}
