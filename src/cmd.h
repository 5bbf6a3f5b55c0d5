/* SPDX-License-Identifier: BSD-2-Clause */
/* The commands of `sluice`: what they were asked, how they end, what they share. */
#ifndef CMD_H
#define CMD_H

#include <jansson.h>
#include <stdbool.h>

#include "addr.h"
#include "client.h"
#include "table.h"

/* Exit codes. Scripts rely on them. */
enum cmd_exit {
	CMD_OK = 0,
	CMD_USAGE = 1,
	CMD_FAILED = 2,
	CMD_UNREACHABLE = 3,
	CMD_NO_PORTS = 4,
	CMD_DENIED = 5,
	CMD_CONFLICT = 6,
	CMD_TIMED_OUT = 7,
};

#define CMD_TAGS_MAX 16

/* What acquire, renew and exec ask for; NULL and 0: not said. Checked already, as far as a command can. */
struct cmd_request {
	const char *tags[CMD_TAGS_MAX];
	size_t n_tags;
	const char *address;
	bool exclusive;
	int count; /* contiguous ports of a lease */
	int leases;
	int align;
	const char *parity;
	long ttl_s;
	const char *until; /* "exit", "release" or "pid" */
	int pid;
	const char *name;
	const char *labels; /* "a=b c=d" */
	long long id;
};

struct cmd {
	const char *socket; /* NULL: the default */
	unsigned timeout_ms;
	bool json;
	bool header;
	const char *file; /* doctor; NULL: the default */
	/* Filters; NULL or 0: none. Checked already. */
	const char *pool;
	const char *proto;
	const char *client;
	int port;
	const char *state;
	bool by_uid;
	unsigned uid; /* by_uid: only this one's */
	const char *at;
	const char *kind;  /* of collisions */
	const char *netns; /* "": the daemon's own */
	int in_slice;      /* 1: only those, -1: only others */
	const char *since;
	long limit;
	bool follow;
	struct cmd_request request;
	char **operands; /* n_operands words, and NULL; as many as the command takes */
	int n_operands;
};

/* Each carries out one command and returns an exit code, having said on stderr what went wrong. */
int cmd_status(const struct cmd *cmd);
int cmd_pools(const struct cmd *cmd);
int cmd_slices(const struct cmd *cmd);
int cmd_flows(const struct cmd *cmd);
int cmd_drops(const struct cmd *cmd);
int cmd_exhaustion(const struct cmd *cmd);
int cmd_collisions(const struct cmd *cmd);
int cmd_sockets(const struct cmd *cmd);
int cmd_leases(const struct cmd *cmd);
int cmd_acquire(const struct cmd *cmd);
int cmd_renew(const struct cmd *cmd);
int cmd_release(const struct cmd *cmd);
int cmd_who(const struct cmd *cmd);
/* Does not return when all went well. Its own exit codes: 125, 126, 127. */
int cmd_exec(const struct cmd *cmd);
int cmd_monitor(const struct cmd *cmd);
int cmd_reload(const struct cmd *cmd);
int cmd_doctor(const struct cmd *cmd);

/* "sluice: ...", on stderr. */
void cmd_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Connect. CMD_OK, or an exit code after having said why. */
int cmd_connect(const struct cmd *cmd, struct client **ret);

/*
 * The exit code for what a call returned, 0 or -errno. Says err, unless the reader of our output
 * has gone (-EPIPE): that is no failure, and nothing to talk about.
 */
int cmd_end(const struct client *c, int r, const struct errtext *err);

/* Has all output been written? 0 or -errno (-EPIPE). */
int cmd_flush(void);

/*
 * What a row's cells are made of. Fields that are missing or of another type are "-", so that a
 * newer daemon's answer can be shown. path: names separated by dots. Texts of numbers go to buf.
 */
#define CMD_CELL 64
json_t *cmd_get(json_t *row, const char *path);
const char *cmd_text(json_t *row, const char *path);
const char *cmd_number(json_t *row, const char *path, char buf[CMD_CELL]);
/*
 * "192.0.2.1:80", "[2001:db8::1]:80"; the port is left out when it is 0 or not there; no address is
 * "*".
 */
const char *cmd_endpoint(json_t *row, const char *address, const char *port, char buf[CMD_CELL]);
/* "203.0.113.7:41000-41003" of a row with address, first and last. */
const char *cmd_ports(json_t *row, char buf[CMD_CELL]);

/* What users write. False: it is none; only cmd_lease_id() has said so. */
bool cmd_lease_id(const char *text, long long *ret);
/* "203.0.113.7:41000", "[2001:db8::7]:41000". */
bool cmd_parse_endpoint(const char *text, char address[ADDR_STRLEN], int *ret_port);
/* RFC 3339, also with a blank for the T, to UTC with milliseconds. */
#define CMD_TIME_LEN 32
bool cmd_parse_time(const char *text, char utc[CMD_TIME_LEN]);

/* The request as parameters of Acquire and Exec; NULL without memory. */
json_t *cmd_request_params(const struct cmd *cmd);

#endif
