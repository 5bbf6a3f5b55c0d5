/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Takes a TCP tuple before anything is sent, in the ways that people have tried; and measures what that costs.
 *
 *   placeholder hold --repair | --tfo | --entry --from ENDPOINT ENDPOINT
 *       Holds the tuple of these two endpoints until the end of stdin:
 *         --repair  by a socket in repair mode (TCP_REPAIR), which counts as connected. It can never become a connection.
 *         --tfo     by a socket connected by Fast Open without a cookie (TCP_FASTOPEN_CONNECT, TCP_FASTOPEN_NO_COOKIE): it stands in the kernel's table as
 *                   SYN_SENT, and its SYN waits for data. A line on stdin is that data, and must come back: {"event":"echo","ok":true,"errno":"none"}.
 *         --entry   by a conntrack entry made over netlink, for a socket that will send later
 *       {"event":"held","held":true,"step":"none","errno":"none"}; or held false, and which step failed with which error.
 *
 *   placeholder rate [--repair | --tfo | --entry] [--seconds S] --from ADDR:PORT-PORT ENDPOINT
 *       How many a second? One after the other, going round the source ports. Without an option: sockets that are bound, connected, and reset at once. With --entry
 *       the same, each with an entry made before and deleted after it. With --repair and --tfo: placeholders alone, nothing is sent.
 *       {"seconds":1.00,"count":N,"per_s":N.N,"cpu_us":N.NN,"errors":0,"step":"none","errno":"none"}
 *
 *   placeholder trips [--seconds S] --from ENDPOINT ENDPOINT
 *       One connection to an echo server; how often a second does one byte go there and back? Prints the same line.
 *
 * cpu_us is processor time of one, the softirqs that ran in it included. Exit status 0 if all went well, else 1.
 */
#include "tool.h"

#include <getopt.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack_tcp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#define ENTRY_TIMEOUT_S 120
#define ECHO_MS         1500

enum way {
	WAY_CONNECT, /* an ordinary socket */
	WAY_REPAIR,
	WAY_TFO,
	WAY_ENTRY,
};

struct tuple {
	struct sockaddr_storage from, to;
};

static struct nfct_handle *nfct;

/* 0 or errno, and which step it was. */
static int failed(const char *step, const char **ret_step)
{
	*ret_step = step;
	return errno;
}

static struct nf_conntrack *entry_new(const struct tuple *t)
{
	const struct sockaddr_in *from = (const struct sockaddr_in *)&t->from;
	const struct sockaddr_in *to = (const struct sockaddr_in *)&t->to;
	struct nf_conntrack *ct = nfct_new();

	if (!ct)
		die("out of memory");
	nfct_set_attr_u8(ct, ATTR_L3PROTO, AF_INET);
	nfct_set_attr_u32(ct, ATTR_IPV4_SRC, from->sin_addr.s_addr);
	nfct_set_attr_u32(ct, ATTR_IPV4_DST, to->sin_addr.s_addr);
	nfct_set_attr_u8(ct, ATTR_L4PROTO, IPPROTO_TCP);
	nfct_set_attr_u16(ct, ATTR_PORT_SRC, from->sin_port);
	nfct_set_attr_u16(ct, ATTR_PORT_DST, to->sin_port);
	nfct_setobjopt(ct, NFCT_SOPT_SETUP_REPLY);
	return ct;
}

static int entry_make(const struct tuple *t, const char **ret_step)
{
	struct nf_conntrack *ct;
	int rc;

	if (!nfct) {
		nfct = nfct_open(CONNTRACK, 0);
		if (!nfct)
			return failed("nfct_open", ret_step);
	}
	ct = entry_new(t);
	nfct_set_attr_u8(ct, ATTR_TCP_STATE, TCP_CONNTRACK_SYN_SENT);
	nfct_set_attr_u32(ct, ATTR_TIMEOUT, ENTRY_TIMEOUT_S);
	rc = nfct_query(nfct, NFCT_Q_CREATE, ct) < 0 ? failed("entry", ret_step) : 0;
	nfct_destroy(ct);
	return rc;
}

/* It may have gone by itself. */
static void entry_delete(const struct tuple *t)
{
	struct nf_conntrack *ct = entry_new(t);

	nfct_query(nfct, NFCT_Q_DESTROY, ct);
	nfct_destroy(ct);
}

/* A socket that has the tuple; 0 or errno. */
static int socket_make(const struct tuple *t, enum way way, int *ret_fd, const char **ret_step)
{
	int fd = socket(t->to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1, rc = 0;

	if (fd < 0)
		return failed("socket", ret_step);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (way == WAY_REPAIR && setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)))
		rc = failed("TCP_REPAIR", ret_step);
	else if (way == WAY_TFO &&
		 setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, &on, sizeof(on)))
		rc = failed("TCP_FASTOPEN_NO_COOKIE", ret_step);
	else if (way == WAY_TFO &&
		 setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof(on)))
		rc = failed("TCP_FASTOPEN_CONNECT", ret_step);
	else if (bind(fd, (const struct sockaddr *)&t->from, sa_len(&t->from)))
		rc = failed("bind", ret_step);
	else if (connect(fd, (const struct sockaddr *)&t->to, sa_len(&t->to)))
		rc = failed("connect", ret_step);
	if (rc)
		close(fd);
	else
		*ret_fd = fd;
	return rc;
}

/* -------------------------------------------------------------------------------------------- hold */

static int echo_line(int fd, const char *line, size_t len)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char back[4096];
	size_t got = 0;

	if (len > sizeof(back))
		return EMSGSIZE;
	/* Of a socket that stands, this is the SYN: it would wait for the answer. */
	if (send(fd, line, len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)len)
		return errno;
	while (got < len) {
		int n = poll(&p, 1, ECHO_MS);
		ssize_t r;

		if (n <= 0)
			return n ? errno : ETIMEDOUT;
		r = recv(fd, back + got, len - got, 0);
		if (r <= 0)
			return r ? errno : EPIPE;
		got += (size_t)r;
	}
	return memcmp(line, back, len) ? EBADMSG : 0;
}

static int do_hold(const struct tuple *t, enum way way)
{
	const char *step = "none";
	char *line = NULL;
	size_t cap = 0;
	ssize_t len;
	int fd = -1;
	int rc = way == WAY_ENTRY ? entry_make(t, &step) : socket_make(t, way, &fd, &step);

	printf("{\"event\":\"held\",\"held\":%s,\"step\":\"%s\",\"errno\":\"%s\"}\n",
	       rc ? "false" : "true", step, errno_name(rc));
	fflush(stdout);
	if (rc)
		return 1;
	while (!tool_stopped && (len = getline(&line, &cap, stdin)) > 0) {
		if (way != WAY_TFO)
			continue;
		rc = echo_line(fd, line, (size_t)len);
		printf("{\"event\":\"echo\",\"ok\":%s,\"errno\":\"%s\"}\n", rc ? "false" : "true",
		       errno_name(rc));
		fflush(stdout);
	}
	free(line);
	return rc ? 1 : 0;
}

/* --------------------------------------------------------------------------------- rate and trips */

struct meter {
	uint64_t begun_ns, end_ns, count, errors;
	double cpu_us;
	int last_errno;
	const char *last_step;
};

/* Of this process so far. */
static double cpu_us(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void meter_begin(struct meter *m, double seconds)
{
	*m = (struct meter){ .last_step = "none", .cpu_us = cpu_us(), .begun_ns = now_ns() };
	m->end_ns = m->begun_ns + (uint64_t)(seconds * 1e9);
}

static bool meter_runs(const struct meter *m)
{
	return !tool_stopped && now_ns() < m->end_ns;
}

static void meter_count(struct meter *m, int error)
{
	m->count++;
	if (error) {
		m->errors++;
		m->last_errno = error;
	}
}

static int meter_report(const struct meter *m)
{
	double seconds = (double)(now_ns() - m->begun_ns) / 1e9;
	double cpu = cpu_us() - m->cpu_us;

	printf("{\"seconds\":%.2f,\"count\":%llu,\"per_s\":%.1f,\"cpu_us\":%.2f,\"errors\":%llu,"
	       "\"step\":\"%s\",\"errno\":\"%s\"}\n",
	       seconds, (unsigned long long)m->count, (double)(m->count - m->errors) / seconds,
	       m->count ? cpu / (double)m->count : 0, (unsigned long long)m->errors, m->last_step,
	       errno_name(m->last_errno));
	return m->errors || !m->count ? 1 : 0;
}

static int once(const struct tuple *t, enum way way, const char **ret_step)
{
	const struct linger reset = { .l_onoff = 1 };
	int fd = -1, rc;

	rc = way == WAY_ENTRY ? entry_make(t, ret_step) : 0;
	if (rc)
		return rc;
	rc = socket_make(t, way, &fd, ret_step);
	if (!rc) {
		if (way != WAY_REPAIR)
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		close(fd);
	}
	if (way == WAY_ENTRY)
		entry_delete(t);
	return rc;
}

static int do_rate(struct tuple *t, enum way way, double seconds, uint16_t first, uint16_t last)
{
	struct meter m;
	uint16_t port = first;

	meter_begin(&m, seconds);
	while (meter_runs(&m)) {
		sa_set_port(&t->from, port);
		port = port == last ? first : (uint16_t)(port + 1);
		meter_count(&m, once(t, way, &m.last_step));
	}
	return meter_report(&m);
}

static int do_trips(const struct tuple *t, double seconds)
{
	struct meter m;
	const char *step = "none";
	int fd, on = 1, rc = socket_make(t, WAY_CONNECT, &fd, &step);

	if (rc)
		die("%s: %s", step, strerror(rc));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	meter_begin(&m, seconds);
	while (meter_runs(&m)) {
		rc = echo_line(fd, "x", 1);
		meter_count(&m, rc);
		if (rc)
			break;
	}
	return meter_report(&m);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "repair", no_argument, NULL, WAY_REPAIR },
		{ "tfo", no_argument, NULL, WAY_TFO },
		{ "entry", no_argument, NULL, WAY_ENTRY },
		{ "seconds", required_argument, NULL, 's' },
		{ "from", required_argument, NULL, 'f' },
		{ 0 },
	};
	const char *verb = argc > 1 ? argv[1] : "", *from = NULL;
	struct tuple t = { 0 };
	enum way way = WAY_CONNECT;
	uint16_t first = 0, last = 0;
	double seconds = 1;
	int opt;

	optind = 2;
	while (argc > 1 && (opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 's')
			seconds = atof(optarg);
		else if (opt == 'f')
			from = optarg;
		else if (opt == '?')
			return 2;
		else
			way = (enum way)opt;
	}
	if (!from || optind + 1 != argc || seconds <= 0)
		die("usage: placeholder hold|rate|trips [--repair | --tfo | --entry] [--seconds S] "
		    "--from ENDPOINT ENDPOINT");
	t.to = parse_endpoint("endpoint", argv[optind]);
	tool_catch_signals();
	if (!strcmp(verb, "rate")) {
		const char *colon = strrchr(from, ':');
		char host[TOOL_ENDPOINT_MAX];

		if (!colon || (size_t)(colon - from) >= sizeof(host))
			die("--from: \"%s\" is not ADDRESS:FIRST-LAST", from);
		memcpy(host, from, (size_t)(colon - from));
		host[colon - from] = '\0';
		if (sa_parse_host(host, &t.from))
			die("--from: \"%s\" is not an address", host);
		parse_ports("--from", colon + 1, &first, &last);
	} else {
		t.from = parse_endpoint("--from", from);
	}
	if (t.from.ss_family != AF_INET || t.to.ss_family != AF_INET)
		die("placeholder: IPv4 only");
	if (!strcmp(verb, "rate"))
		return do_rate(&t, way, seconds, first, last);
	if (!strcmp(verb, "trips"))
		return do_trips(&t, seconds);
	if (!strcmp(verb, "hold") && way != WAY_CONNECT)
		return do_hold(&t, way);
	die("placeholder: hold needs --repair, --tfo or --entry; the other verbs are rate and "
	    "trips");
}
