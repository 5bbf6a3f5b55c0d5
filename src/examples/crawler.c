/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Opens many connections at once to a few destinations, through one shared lease: each of its ports serves every destination once, so a lease of 256 ports carries 256
 * connections to each of them. Every connection sends a line of its own, and checks that just this line comes back.
 *
 *	crawler [--pool POOL] [--ports N] [--connections N] [--file FILE] [ADDRESS:PORT...]
 *
 * FILE has an ADDRESS:PORT a line. By default there are 10000 connections, and as many ports as they need. All stay open until the last one has been checked.
 *
 *	cc -D_GNU_SOURCE crawler.c $(pkg-config --cflags --libs sluice)
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <sluice.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define AT_ONCE   512 /* connections in the making */
#define WAIT_MS   10000
#define LINE_SIZE 64

struct connection {
	int fd;
	unsigned number;
	size_t received;
	char answer[LINE_SIZE];
};

static struct sockaddr_storage *destinations;
static unsigned n_destinations;

static void add_destination(char *text)
{
	struct sockaddr_storage to = { 0 };
	char *colon = strrchr(text, ':');
	int port = colon ? atoi(colon + 1) : 0;

	if (port < 1 || port > 65535)
		errx(1, "\"%s\" is not ADDRESS:PORT", text);
	*colon = '\0';
	if (*text == '[') { /* [2001:db8::1]:80 */
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&to;

		text[strcspn(text, "]")] = '\0';
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)port);
		if (inet_pton(AF_INET6, text + 1, &in6->sin6_addr) != 1)
			errx(1, "\"%s\" is not an address", text + 1);
	} else {
		struct sockaddr_in *in = (struct sockaddr_in *)&to;

		in->sin_family = AF_INET;
		in->sin_port = htons((uint16_t)port);
		if (inet_pton(AF_INET, text, &in->sin_addr) != 1)
			errx(1, "\"%s\" is not an address", text);
	}
	destinations = reallocarray(destinations, n_destinations + 1, sizeof(*destinations));
	if (!destinations)
		err(1, NULL);
	destinations[n_destinations++] = to;
}

static void read_destinations(const char *path)
{
	char line[128];
	FILE *f = fopen(path, "re");

	if (!f)
		err(1, "%s", path);
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, " \t\r\n")] = '\0';
		if (*line)
			add_destination(line);
	}
	fclose(f);
}

static void raise_files(unsigned n)
{
	struct rlimit rl;

	getrlimit(RLIMIT_NOFILE, &rl);
	if (rl.rlim_max < n)
		rl.rlim_max = n; /* root may */
	rl.rlim_cur = rl.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &rl) < 0)
		errx(1, "%u open files are not allowed here", n);
}

/* What connection `number` sends, LINE_SIZE bytes. */
static void make_line(unsigned number, char *line)
{
	memset(line, '.', LINE_SIZE);
	snprintf(line, LINE_SIZE, "connection %u of process %d", number, (int)getpid());
}

/* Begin to connect. The lease's port is chosen here, by the kernel. */
static int begin(struct sluice *s, struct sluice_lease *l, struct connection *c, int epoll_fd)
{
	static const struct sluice_socket_options options = { .nonblock = true };
	struct epoll_event ev = { .events = EPOLLOUT, .data.ptr = c };
	const struct sockaddr_storage *to = &destinations[c->number % n_destinations];
	socklen_t len = to->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
						  : sizeof(struct sockaddr_in);

	c->fd = sluice_open(s, l, &options);
	if (c->fd < 0)
		errx(1, "%s", sluice_error(s));
	if (connect(c->fd, (const struct sockaddr *)to, len) < 0 && errno != EINPROGRESS)
		return -errno;
	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) < 0 ? -errno : 0;
}

/* Something has happened: 1 when its line is back, 0 when there is more to come, or -errno. */
static int go_on(struct connection *c, uint32_t events, int epoll_fd)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
	char line[LINE_SIZE];
	ssize_t n;

	make_line(c->number, line);
	if (events & EPOLLOUT) { /* connected, or failed, which send() tells */
		if (send(c->fd, line, sizeof(line), MSG_NOSIGNAL) < 0)
			return -errno;
		return epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &ev) < 0 ? -errno : 0;
	}
	n = recv(c->fd, c->answer + c->received, sizeof(c->answer) - c->received, 0);
	if (n <= 0)
		return n < 0 ? -errno : -ECONNRESET;
	c->received += (size_t)n;
	if (c->received < sizeof(line))
		return 0;
	epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
	return memcmp(line, c->answer, sizeof(line)) == 0 ? 1 : -EBADMSG;
}

struct tally {
	unsigned open, done, verified, wrong, failed;
	int last_error;
};

static void count(struct tally *t, int r)
{
	t->done++;
	t->verified += r == 1;
	t->wrong += r == -EBADMSG;
	t->failed += r < 0 && r != -EBADMSG;
	if (r < 0)
		t->last_error = -r;
}

static struct tally crawl(struct sluice *s, struct sluice_lease *l, struct connection *c,
			  unsigned n)
{
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event events[64];
	struct tally t = { 0 };

	if (epoll_fd < 0)
		err(1, "epoll");
	while (t.done < n) {
		int got, r;

		while (t.open < n && t.open - t.done < AT_ONCE) {
			c[t.open].number = t.open;
			r = begin(s, l, &c[t.open++], epoll_fd);
			if (r < 0)
				count(&t, r);
		}
		got = t.done < t.open ? epoll_wait(epoll_fd, events, 64, WAIT_MS) : 0;
		for (int i = 0; i < got; i++) {
			r = go_on(events[i].data.ptr, events[i].events, epoll_fd);
			if (r == 0)
				continue;
			/* One that has failed is of no more use, and would be reported again and again. */
			if (r < 0)
				epoll_ctl(epoll_fd, EPOLL_CTL_DEL,
					  ((struct connection *)events[i].data.ptr)->fd, NULL);
			count(&t, r);
		}
		if (got == 0 && t.done < t.open) { /* nothing for WAIT_MS */
			t.failed += n - t.done;
			t.last_error = ETIMEDOUT;
			break;
		}
	}
	close(epoll_fd);
	return t;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "pool", required_argument, NULL, 'p' },
		{ "ports", required_argument, NULL, 'n' },
		{ "connections", required_argument, NULL, 'c' },
		{ "file", required_argument, NULL, 'f' },
		{ 0 },
	};
	struct sluice_request req = { .proto = SLUICE_PROTO_TCP, .name = "crawler" };
	struct timespec begin_time, end_time;
	unsigned n = 10000;
	struct connection *connections;
	struct sluice_lease *l;
	struct sluice *s;
	struct tally t;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'p')
			req.pool = optarg;
		else if (opt == 'n')
			req.ports = (unsigned)strtoul(optarg, NULL, 10);
		else if (opt == 'c')
			n = (unsigned)strtoul(optarg, NULL, 10);
		else if (opt == 'f')
			read_destinations(optarg);
		else
			return 1;
	}
	while (optind < argc)
		add_destination(argv[optind++]);
	if (!n_destinations || !n)
		errx(1, "where to? Give at least one ADDRESS:PORT");
	if (!req.ports)
		req.ports = (n + n_destinations - 1) / n_destinations;
	raise_files(n + 64);
	connections = calloc(n, sizeof(*connections));
	if (!connections)
		err(1, NULL);
	if (sluice_connect(NULL, &s) < 0 || sluice_acquire(s, &req, &l) < 0)
		errx(1, "%s", sluice_error(s));
	clock_gettime(CLOCK_MONOTONIC, &begin_time);
	t = crawl(s, l, connections, n);
	clock_gettime(CLOCK_MONOTONIC, &end_time);
	printf("%u connections to %u destinations from %s:%u-%u: %u verified, %u wrong, %u "
	       "failed%s%s, "
	       "%.2f s\n",
	       n, n_destinations, sluice_lease_address(l), sluice_lease_first(l),
	       sluice_lease_last(l), t.verified, t.wrong, t.failed, t.last_error ? ": " : "",
	       t.last_error ? strerror(t.last_error) : "",
	       (double)(end_time.tv_sec - begin_time.tv_sec) +
		       (double)(end_time.tv_nsec - begin_time.tv_nsec) / 1e9);
	for (unsigned i = 0; i < t.open; i++)
		close(connections[i].fd);
	sluice_release(s, l);
	sluice_close(s);
	free(connections);
	free(destinations);
	return t.verified == n ? 0 : 1;
}
