/* SPDX-License-Identifier: BSD-2-Clause */
/* status, reload and monitor. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cmd.h"

/* ---- status ---- */

static void print_uptime(json_int_t s)
{
	if (s >= 86400)
		printf("%" JSON_INTEGER_FORMAT " d ", s / 86400);
	if (s >= 3600)
		printf("%" JSON_INTEGER_FORMAT " h ", s / 3600 % 24);
	if (s >= 60)
		printf("%" JSON_INTEGER_FORMAT " min", s / 60 % 60);
	else
		printf("%" JSON_INTEGER_FORMAT " s", s);
}

static void print_uplinks(json_t *uplinks)
{
	json_t *u;
	size_t i;

	json_array_foreach(uplinks, i, u)
	{
		char buf[CMD_CELL];

		printf("%-10s %s, index %s, %s, ingress %s, egress %s\n", i ? "" : "uplinks",
		       cmd_text(u, "name"), cmd_number(u, "ifindex", buf), cmd_text(u, "state"),
		       cmd_text(u, "ingress"), cmd_text(u, "egress"));
	}
	if (i == 0)
		printf("%-10s none\n", "uplinks");
}

/* A number of each, added up. */
static json_int_t sum(json_t *numbers)
{
	json_int_t n = json_integer_value(numbers);
	const char *key;
	json_t *v;

	json_object_foreach(numbers, key, v)
	{
		n += sum(v);
	}
	return n;
}

static void print_watch(json_t *w)
{
	json_int_t escaped = 0;
	const char *key;
	json_t *v;

	json_object_foreach(json_object_get(w, "told"), key, v)
	{
		escaped += json_integer_value(json_object_get(v, "escaped"));
	}
	printf("%-10s %zu namespaces, %" JSON_INTEGER_FORMAT " collisions, %" JSON_INTEGER_FORMAT
	       " escaped, %" JSON_INTEGER_FORMAT " healed; events lost %" JSON_INTEGER_FORMAT
	       " times\n",
	       "watch", json_array_size(json_object_get(w, "namespaces")),
	       sum(json_object_get(w, "told")), escaped, sum(json_object_get(w, "healed")),
	       sum(json_object_get(w, "losses")));
}

static void print_status(json_t *s)
{
	char a[CMD_CELL], b[CMD_CELL], c[CMD_CELL];
	json_t *warnings = json_object_get(s, "warnings"), *w;
	json_t *deadline = json_object_get(s, "deadline_s");
	size_t i;

	printf("%-10s %s\n", "machine", cmd_text(s, "machine"));
	printf("%-10s %s, backend %s\n", "version", cmd_text(s, "version"), cmd_text(s, "backend"));
	printf("%-10s ", "up");
	print_uptime(json_integer_value(json_object_get(s, "uptime_s")));
	printf(", since %s\n", cmd_text(s, "started"));
	print_uplinks(json_object_get(s, "uplinks"));
	printf("%-10s %s\n", "pools", cmd_number(s, "pools", a));
	printf("%-10s %s held\n", "slices", cmd_number(s, "slices_held", b));
	if (json_is_integer(deadline))
		printf("%-10s %" JSON_INTEGER_FORMAT " s\n", "deadline",
		       json_integer_value(deadline));
	else
		printf("%-10s none\n", "deadline");
	printf("%-10s %s TCP, %s UDP, %s ICMP; swept %s s ago\n", "flows",
	       cmd_number(s, "flows.tcp", a), cmd_number(s, "flows.udp", b),
	       cmd_number(s, "flows.icmp", c),
	       cmd_number(s, "last_sweep_s", (char[CMD_CELL]){ 0 }));
	if (json_is_object(json_object_get(s, "leases")))
		printf("%-10s %s active, %s cooling\n", "leases", cmd_number(s, "leases.active", a),
		       cmd_number(s, "leases.cooling", b));
	if (json_is_object(json_object_get(s, "watch")))
		print_watch(json_object_get(s, "watch"));
	printf("%-10s %s clients, %s refused, %s events lost\n", "control",
	       cmd_number(s, "control.clients", a), cmd_number(s, "control.refused", b),
	       cmd_number(s, "control.events_lost", c));
	printf("%-10s %s, schema %s\n", "store", cmd_text(s, "store.path"),
	       cmd_number(s, "store.schema", a));
	json_array_foreach(warnings, i, w)
	{
		printf("%-10s %s\n", i ? "" : "warnings", json_string_value(w));
	}
}

int cmd_status(const struct cmd *cmd)
{
	struct errtext err = { 0 };
	struct client *c;
	json_t *reply;
	int r, code;

	code = cmd_connect(cmd, &c);
	if (code != CMD_OK)
		return code;
	r = client_call(c, "io.sluice.GetStatus", NULL, &reply, &err);
	if (r == 0) {
		if (cmd->json) {
			json_dumpf(reply, stdout, JSON_INDENT(2));
			putchar('\n');
		} else {
			print_status(reply);
		}
		json_decref(reply);
	}
	code = cmd_end(c, r, &err);
	client_close(c);
	return code;
}

/* ---- reload ---- */

int cmd_reload(const struct cmd *cmd)
{
	struct errtext err = { 0 };
	json_t *reply = NULL;
	struct client *c;
	int r, code;

	code = cmd_connect(cmd, &c);
	if (code != CMD_OK)
		return code;
	r = client_call(c, "io.sluice.Reload", NULL, &reply, &err);
	json_decref(reply);
	if (r == 0 && cmd->json)
		puts("{}");
	code = cmd_end(c, r, &err);
	client_close(c);
	return code;
}

/* ---- monitor ---- */

/* One field of an event for people. Ends of flows are written as they are elsewhere. */
static void print_field(json_t *event, const char *key, json_t *v)
{
	char a[CMD_CELL], b[CMD_CELL];

	if (strcmp(key, "inner") == 0) {
		printf(" %s -> %s", cmd_endpoint(event, "inner.src", "inner.sport", a),
		       cmd_endpoint(event, "inner.dst", "inner.dport", b));
	} else if (strcmp(key, "holder") == 0 && json_is_object(v)) {
		printf(" by %s (pid %s, uid %s)", cmd_text(v, "comm"), cmd_number(v, "pid", a),
		       cmd_number(v, "uid", b));
	} else if (strcmp(key, "outer") == 0) {
		printf(" as %s", cmd_endpoint(event, "outer.src", "outer.sport", a));
	} else if (json_is_string(v)) {
		printf(" %s=%s", key, json_string_value(v));
	} else {
		printf(" %s=", key);
		json_dumpf(v, stdout, JSON_COMPACT | JSON_ENCODE_ANY);
	}
}

/* "lease granted 203.0.113.7:41000 udp exclusive, lease 17 of pool default, curl (pid 12, uid 1000), name". */
static void print_lease_event(json_t *event)
{
	char a[CMD_CELL], b[CMD_CELL], c[CMD_CELL];
	json_t *l = json_object_get(event, "lease");
	const char *name = json_string_value(json_object_get(l, "name"));

	printf(" %s %s %s, lease %s of pool %s, %s (pid %s, uid %s)", cmd_text(event, "text"),
	       cmd_text(l, "proto"), cmd_text(l, "kind"), cmd_number(l, "id", a),
	       cmd_text(l, "pool"), cmd_text(l, "holder.comm"), cmd_number(l, "holder.pid", b),
	       cmd_number(l, "holder.uid", c));
	if (name && *name)
		printf(", %s", name);
}

/* "collision rewrite tcp 203.0.113.7:41000 -> 198.51.100.9:443 as 203.0.113.7:60164 by crawler (pid 4711, uid 1000), escaped". */
static void print_collision_event(json_t *event)
{
	char a[CMD_CELL], b[CMD_CELL];

	printf(" %s %s %s -> %s as %s by %s (pid %s, uid %s)%s%s%s", cmd_text(event, "kind"),
	       cmd_text(event, "proto"), cmd_text(event, "bound"), cmd_text(event, "dst"),
	       cmd_text(event, "wire"), cmd_text(event, "socket.comm"),
	       cmd_number(event, "socket.pid", a), cmd_number(event, "socket.uid", b),
	       json_is_true(cmd_get(event, "in_slice")) ? "" : ", escaped",
	       json_is_true(cmd_get(event, "resolved")) ? ", resolved" : "",
	       json_is_true(cmd_get(event, "healed")) ? ", healed" : "");
	if (json_is_object(cmd_get(event, "owner")))
		printf(", %s %s", cmd_text(event, "owner.kind"),
		       cmd_endpoint(event, "owner.src", "owner.sport", a));
	if (*cmd_text(event, "netns"))
		printf(", netns=%s", cmd_text(event, "netns"));
}

static int print_event(json_t *event, void *data)
{
	const struct cmd *cmd = data;
	const char *key;
	json_t *v;

	if (cmd->json) {
		json_dumpf(event, stdout, JSON_COMPACT);
	} else {
		printf("%s %s", cmd_text(event, "time"), cmd_text(event, "event"));
		if (json_is_object(json_object_get(event, "lease"))) {
			print_lease_event(event);
		} else if (strcmp(cmd_text(event, "event"), "collision") == 0) {
			print_collision_event(event);
		} else {
			json_object_foreach(event, key, v)
			{
				if (strcmp(key, "time") != 0 && strcmp(key, "event") != 0)
					print_field(event, key, v);
			}
		}
	}
	putchar('\n');
	/* Each line at once: somebody waits for it. */
	return cmd_flush();
}

int cmd_monitor(const struct cmd *cmd)
{
	struct cmd copy = *cmd;
	struct errtext err = { 0 };
	struct client *c;
	int r, code;

	code = cmd_connect(cmd, &c);
	if (code != CMD_OK)
		return code;
	r = client_call_more(c, "io.sluice.Monitor", NULL, true, print_event, &copy, &err);
	code = cmd_end(c, r, &err);
	client_close(c);
	return code;
}
