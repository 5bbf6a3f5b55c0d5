/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A UDP echo service on a port of a shared address.
 *
 *	udp-echo [--pool POOL]		take a port, and say which: "lease 17: 203.0.113.7:41000"
 *	udp-echo --lease 17		take over from the one that has lease 17, without losing a datagram
 *
 * To restart it: start the new one with --lease; from then on everything arrives there. Then end the old one with SIGTERM: it answers what it has
 * received, and leaves the lease alone, which ends when nobody has renewed it for a minute. SIGINT ends the service and gives the lease back.
 *
 *	cc -D_GNU_SOURCE udp-echo.c $(pkg-config --cflags --libs sluice)
 */
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <sluice.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TTL_S 60

static volatile sig_atomic_t stopped;

static void stop(int sig)
{
	stopped = sig;
}

/* Answer what has come. */
static void answer_all(int fd)
{
	struct sockaddr_storage from;
	socklen_t len = sizeof(from);
	char buf[65536];
	ssize_t n;

	while ((n = recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len)) >= 0) {
		sendto(fd, buf, (size_t)n, 0, (struct sockaddr *)&from, len);
		len = sizeof(from);
	}
}

/* A lease that outlives this process, so that the next one can have it; the library renews it in the background. */
static struct sluice_lease *get_lease(struct sluice *s, const char *pool, const char *id)
{
	struct sluice_request req = {
		.pool = pool,
		.proto = SLUICE_PROTO_UDP,
		.exclusive = true, /* everybody may send to it */
		.lifetime = SLUICE_UNTIL_RELEASE,
		.ttl_s = TTL_S,
		.renew = true,
		.name = "udp-echo",
	};
	struct sluice_lease *l;

	if (!id) {
		if (sluice_acquire(s, &req, &l) < 0)
			errx(1, "%s", sluice_error(s));
	} else if (sluice_find(s, strtoull(id, NULL, 10), &l) < 0 || sluice_keep(s, l, TTL_S) < 0) {
		errx(1, "%s", sluice_error(s));
	}
	return l;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "pool", required_argument, NULL, 'p' },
		{ "lease", required_argument, NULL, 'l' },
		{ 0 },
	};
	/* Beside the old process's socket, until that is closed. */
	struct sluice_socket_options socket_options = { .nonblock = true, .reuseport = true };
	struct sigaction sa = { .sa_handler = stop };
	const char *pool = NULL, *id = NULL;
	struct sluice_lease *l;
	struct sluice *s;
	sigset_t blocked, before;
	int fd, opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == '?')
			return 1;
		*(opt == 'p' ? &pool : &id) = optarg;
	}
	if (sluice_connect(NULL, &s) < 0)
		errx(1, "%s", sluice_error(s));
	l = get_lease(s, pool, id);
	fd = sluice_open(s, l, &socket_options);
	/* From here on it is this socket that receives. */
	if (fd < 0 || sluice_register(s, l, fd) < 0)
		errx(1, "%s", sluice_error(s));

	/* Signals come while we wait, and at no other time: none is missed. */
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGINT);
	sigprocmask(SIG_BLOCK, &blocked, &before);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	printf("lease %llu: %s:%u\n", (unsigned long long)sluice_lease_id(l),
	       sluice_lease_address(l), sluice_lease_first(l));
	fflush(stdout);
	while (!stopped) {
		struct pollfd p = { .fd = fd, .events = POLLIN };

		ppoll(&p, 1, NULL, &before);
		answer_all(fd);
		if (sluice_lease_status(l) == -ESTALE)
			errx(1, "lease %llu has ended", (unsigned long long)sluice_lease_id(l));
	}
	answer_all(fd);
	close(fd);
	if (stopped == SIGINT)
		sluice_release(s, l);
	sluice_close(s);
	return 0;
}
