/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests' small tools share: endpoints, the clock, option values, and a stop flag for signals.
 * A header of static functions, so that every tool stays one file to compile.
 *
 * The tools talk to shell scripts: one JSON document per line on stdout, flushed at once; commands as
 * lines on stdin, whose end means "stop". Messages for people go to stderr.
 */
#ifndef TOOL_H
#define TOOL_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#define TOOL_UNUSED __attribute__((unused))

#define TOOL_ENDPOINT_MAX (INET6_ADDRSTRLEN + 8)

static volatile sig_atomic_t tool_stopped;

TOOL_UNUSED __attribute__((noreturn, format(printf, 1, 2))) static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(2);
}

TOOL_UNUSED static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void tool_on_signal(int sig)
{
	(void)sig;
	tool_stopped = 1;
}

/* SIGTERM and SIGINT set tool_stopped and interrupt system calls; a closed pipe is an error, no signal. */
TOOL_UNUSED static void tool_catch_signals(void)
{
	struct sigaction sa = { .sa_handler = tool_on_signal };

	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* As many file descriptors as the hard limit gives. */
TOOL_UNUSED static void tool_raise_files(void)
{
	struct rlimit rl;

	if (!getrlimit(RLIMIT_NOFILE, &rl)) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
}

/* A whole decimal number from min to max, or the end of the program. */
TOOL_UNUSED static uint64_t parse_number(const char *what, const char *text, uint64_t min,
					 uint64_t max)
{
	char *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno || *text < '0' || *text > '9' || *end || v < min || v > max)
		die("%s: \"%s\" is not a number from %llu to %llu", what, text,
		    (unsigned long long)min, (unsigned long long)max);
	return v;
}

TOOL_UNUSED static socklen_t sa_len(const struct sockaddr_storage *sa)
{
	return sa->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

/* Host byte order. */
TOOL_UNUSED static uint16_t sa_port(const struct sockaddr_storage *sa)
{
	return ntohs(sa->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)sa)->sin6_port
					       : ((const struct sockaddr_in *)sa)->sin_port);
}

TOOL_UNUSED static void sa_set_port(struct sockaddr_storage *sa, uint16_t port)
{
	if (sa->ss_family == AF_INET6)
		((struct sockaddr_in6 *)sa)->sin6_port = htons(port);
	else
		((struct sockaddr_in *)sa)->sin_port = htons(port);
}

/* The last 32 bits of the address, host byte order, as something to count with. */
TOOL_UNUSED static uint32_t sa_low(const struct sockaddr_storage *sa)
{
	uint32_t be;

	if (sa->ss_family == AF_INET6)
		memcpy(&be, &((const struct sockaddr_in6 *)sa)->sin6_addr.s6_addr[12], 4);
	else
		be = ((const struct sockaddr_in *)sa)->sin_addr.s_addr;
	return ntohl(be);
}

TOOL_UNUSED static void sa_set_low(struct sockaddr_storage *sa, uint32_t low)
{
	uint32_t be = htonl(low);

	if (sa->ss_family == AF_INET6)
		memcpy(&((struct sockaddr_in6 *)sa)->sin6_addr.s6_addr[12], &be, 4);
	else
		((struct sockaddr_in *)sa)->sin_addr.s_addr = be;
}

TOOL_UNUSED static const char *sa_host(const struct sockaddr_storage *sa,
				       char buf[TOOL_ENDPOINT_MAX])
{
	const void *a = sa->ss_family == AF_INET6
				? (const void *)&((const struct sockaddr_in6 *)sa)->sin6_addr
				: (const void *)&((const struct sockaddr_in *)sa)->sin_addr;

	return inet_ntop(sa->ss_family, a, buf, TOOL_ENDPOINT_MAX);
}

/* An IPv4 or IPv6 address without a port. */
TOOL_UNUSED static int sa_parse_host(const char *text, struct sockaddr_storage *ret)
{
	struct sockaddr_storage sa = { 0 };

	if (inet_pton(AF_INET, text, &((struct sockaddr_in *)&sa)->sin_addr) == 1)
		sa.ss_family = AF_INET;
	else if (inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)&sa)->sin6_addr) == 1)
		sa.ss_family = AF_INET6;
	else
		return -EINVAL;
	*ret = sa;
	return 0;
}

/* "1.2.3.4:80" or "[2001:db8::1]:80"; the end of the program for anything else. */
TOOL_UNUSED static struct sockaddr_storage parse_endpoint(const char *what, const char *text)
{
	struct sockaddr_storage sa;
	char host[TOOL_ENDPOINT_MAX];
	const char *colon = strrchr(text, ':');
	size_t len;

	if (!colon || (size_t)(colon - text) >= sizeof(host))
		die("%s: \"%s\" is not ADDRESS:PORT", what, text);
	len = (size_t)(colon - text);
	if (text[0] == '[' && len > 2 && text[len - 1] == ']') {
		text++;
		len -= 2;
	}
	memcpy(host, text, len);
	host[len] = '\0';
	if (sa_parse_host(host, &sa))
		die("%s: \"%s\" is not an address", what, host);
	sa_set_port(&sa, (uint16_t)parse_number(what, colon + 1, 0, 65535));
	return sa;
}

/* "A-B", two ports in order. */
TOOL_UNUSED static void parse_ports(const char *what, const char *text, uint16_t *ret_first,
				    uint16_t *ret_last)
{
	char first[8];
	const char *dash = strchr(text, '-');

	if (!dash || (size_t)(dash - text) >= sizeof(first))
		die("%s: \"%s\" is not FIRST-LAST", what, text);
	memcpy(first, text, (size_t)(dash - text));
	first[dash - text] = '\0';
	*ret_first = (uint16_t)parse_number(what, first, 0, 65535);
	*ret_last = (uint16_t)parse_number(what, dash + 1, *ret_first, 65535);
}

/* "ECONNREFUSED" and so on, "none" for 0. */
TOOL_UNUSED static const char *errno_name(int err)
{
	const char *name = err ? strerrorname_np(err) : "none";

	return name ? name : "unknown";
}

#endif
