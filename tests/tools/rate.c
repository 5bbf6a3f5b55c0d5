/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How many connections a second? One after the other, each opened and at once reset, so that no TIME_WAIT is left.
 *
 *   rate [--seconds S] [--udp | --bind] ENDPOINT...
 *
 * Goes round the endpoints. --udp: connected UDP sockets, opened and closed. --bind: a UDP socket is bound to a free port of the ENDPOINT's address
 * and closed, nothing is sent: what a program does that takes a port by itself. Prints one line:
 *   {"seconds":5.00,"connections":N,"per_s":N.N,"cpu_us":N.NN,"errors":0,"errno":"none"}
 * cpu_us: processor time of one connection, the softirqs that ran in it included; it hardly changes when other programs are busy.
 * Exit status 0 if there was no error, else 1.
 */
#include "tool.h"

#include <getopt.h>
#include <sys/resource.h>
#include <unistd.h>

#define ENDPOINTS_MAX 64

enum what {
	WHAT_TCP,
	WHAT_UDP,
	WHAT_BIND,
};

static int once(const struct sockaddr_storage *to, enum what what)
{
	const struct linger reset = { .l_onoff = 1 };
	struct sockaddr_storage local = *to;
	int fd = socket(to->ss_family, (what == WHAT_TCP ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC,
			0);
	int e = 0;

	if (fd < 0)
		return errno;
	if (what == WHAT_BIND) {
		if (local.ss_family == AF_INET6)
			((struct sockaddr_in6 *)&local)->sin6_port = 0;
		else
			((struct sockaddr_in *)&local)->sin_port = 0;
		e = bind(fd, (const struct sockaddr *)&local, sa_len(&local)) < 0 ? errno : 0;
	} else if (connect(fd, (const struct sockaddr *)to, sa_len(to)) < 0) {
		e = errno;
	}
	if (what == WHAT_TCP)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
	return e;
}

/* Of this process so far. */
static double cpu_us(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seconds", required_argument, NULL, 's' },
		{ "udp", no_argument, NULL, 'u' },
		{ "bind", no_argument, NULL, 'b' },
		{ 0 },
	};
	struct sockaddr_storage to[ENDPOINTS_MAX];
	uint64_t begun_ns, end_ns, now, n = 0, errors = 0;
	enum what what = WHAT_TCP;
	double seconds = 5, cpu;
	int opt, last = 0, n_to;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 's':
			seconds = atof(optarg);
			break;
		case 'u':
			what = WHAT_UDP;
			break;
		case 'b':
			what = WHAT_BIND;
			break;
		default:
			return 1;
		}
	}
	n_to = argc - optind;
	if (n_to < 1 || n_to > ENDPOINTS_MAX || seconds <= 0)
		die("rate [--seconds S] [--udp | --bind] ENDPOINT...");
	for (int i = 0; i < n_to; i++)
		to[i] = parse_endpoint("endpoint", argv[optind + i]);
	cpu = cpu_us();
	begun_ns = now_ns();
	end_ns = begun_ns + (uint64_t)(seconds * 1e9);
	while ((now = now_ns()) < end_ns) {
		int e = once(&to[n % (unsigned)n_to], what);

		n++;
		if (e) {
			errors++;
			last = e;
		}
	}
	cpu = cpu_us() - cpu;
	seconds = (double)(now - begun_ns) / 1e9;
	printf("{\"seconds\":%.2f,\"connections\":%llu,\"per_s\":%.1f,\"cpu_us\":%.2f,"
	       "\"errors\":%llu,\"errno\":\"%s\"}\n",
	       seconds, (unsigned long long)n, (double)(n - errors) / seconds, cpu / (double)n,
	       (unsigned long long)errors, errno_name(last));
	return errors ? 1 : 0;
}
