/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One connection at a time, and the server that answers it.
 *
 *   talk echo [--udp] ENDPOINT...
 *       Sends everything back. One line when it is ready, and one per TCP connection with the peer as
 *       this end sees it: {"event":"peer","peer":"203.0.113.7","port":41000,"local_port":80}.
 *       Runs until SIGTERM or the end of stdin.
 *
 *   talk connect [--udp] [--bind ENDPOINT] [--timeout S] [--wait] ENDPOINT
 *       Binds (with SO_REUSEADDR) and connects. Reports {"event":"bound",...}, then
 *       {"event":"connect","connected":true,"bound_port":N,"errno":"none","seconds":0.001}.
 *       With --wait it connects only when a line arrives on stdin. Afterwards every line on stdin is
 *       sent and must come back: {"event":"echo","ok":true,"bytes":5,"errno":"none"}.
 *       Ends with stdin. Exit status 0 if it was connected and every echo came back, else 1.
 */
#include "tool.h"

#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------------------ echo */

struct peer {
	int fd;
	bool listener;
	bool udp;
	uint8_t *pending; /* what the peer would not take yet; reading pauses until it is gone */
	size_t pending_len, pending_off;
};

static uint8_t echo_buf[65536];

static int echo_listen(int epfd, const char *text, bool udp)
{
	struct sockaddr_storage sa = parse_endpoint("endpoint", text);
	struct peer *p = calloc(1, sizeof(*p));
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = p };
	int on = 1, big = 4 << 20;

	if (!p)
		die("out of memory");
	p->listener = true;
	p->udp = udp;
	p->fd = socket(sa.ss_family,
		       (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (p->fd < 0)
		die("socket: %s", strerror(errno));
	setsockopt(p->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (udp)
		setsockopt(p->fd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof(big));
	if (bind(p->fd, (struct sockaddr *)&sa, sa_len(&sa)))
		die("bind %s: %s", text, strerror(errno));
	if (!udp && listen(p->fd, 4096))
		die("listen %s: %s", text, strerror(errno));
	return epoll_ctl(epfd, EPOLL_CTL_ADD, p->fd, &ev);
}

static void echo_accept(int epfd, struct peer *l)
{
	for (;;) {
		struct sockaddr_storage sa = { 0 }, local = { 0 };
		socklen_t len = sizeof(sa), local_len = sizeof(local);
		char host[TOOL_ENDPOINT_MAX];
		struct epoll_event ev = { .events = EPOLLIN };
		struct peer *p;
		int fd = accept4(l->fd, (struct sockaddr *)&sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0)
			return;
		p = calloc(1, sizeof(*p));
		if (!p)
			die("out of memory");
		p->fd = fd;
		ev.data.ptr = p;
		getsockname(fd, (struct sockaddr *)&local, &local_len);
		printf("{\"event\":\"peer\",\"peer\":\"%s\",\"port\":%u,\"local_port\":%u}\n",
		       sa_host(&sa, host), sa_port(&sa), sa_port(&local));
		if (epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev))
			die("epoll_ctl: %s", strerror(errno));
	}
}

static void echo_close(struct peer *p)
{
	close(p->fd);
	free(p->pending);
	free(p);
}

static void echo_watch(int epfd, struct peer *p, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = p };

	if (epoll_ctl(epfd, EPOLL_CTL_MOD, p->fd, &ev))
		die("epoll_ctl: %s", strerror(errno));
}

/* Write as much as the peer takes. Returns how much, or -errno. */
static ssize_t echo_write(int fd, const uint8_t *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = write(fd, buf + done, len - done);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			if (errno == EAGAIN)
				break;
			return -errno;
		}
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static void echo_stream(int epfd, struct peer *p)
{
	ssize_t n, put;

	if (p->pending) {
		put = echo_write(p->fd, p->pending + p->pending_off,
				 p->pending_len - p->pending_off);
		if (put < 0) {
			echo_close(p);
			return;
		}
		p->pending_off += (size_t)put;
		if (p->pending_off < p->pending_len)
			return;
		free(p->pending);
		p->pending = NULL;
		echo_watch(epfd, p, EPOLLIN);
		return;
	}
	n = read(p->fd, echo_buf, sizeof(echo_buf));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		echo_close(p);
		return;
	}
	put = echo_write(p->fd, echo_buf, (size_t)n);
	if (put < 0) {
		echo_close(p);
		return;
	}
	if (put < n) {
		p->pending_len = (size_t)(n - put);
		p->pending_off = 0;
		p->pending = malloc(p->pending_len);
		if (!p->pending)
			die("out of memory");
		memcpy(p->pending, echo_buf + put, p->pending_len);
		echo_watch(epfd, p, EPOLLOUT);
	}
}

static void echo_datagrams(const struct peer *p)
{
	struct sockaddr_storage sa;

	for (;;) {
		socklen_t len = sizeof(sa);
		ssize_t n = recvfrom(p->fd, echo_buf, sizeof(echo_buf), 0, (struct sockaddr *)&sa,
				     &len);

		if (n < 0 && errno == EAGAIN)
			return;
		/* An error here is an ICMP answer to something sent before: the peer's loss, not ours. */
		if (n >= 0)
			sendto(p->fd, echo_buf, (size_t)n, 0, (struct sockaddr *)&sa, len);
	}
}

static int do_echo(int argc, char **argv)
{
	struct epoll_event evs[256], in = { .events = EPOLLIN, .data.ptr = NULL };
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	bool udp = false;
	int i = 0;

	if (argc > 0 && !strcmp(argv[0], "--udp")) {
		udp = true;
		i++;
	}
	if (i == argc)
		die("usage: talk echo [--udp] ENDPOINT...");
	if (epfd < 0)
		die("epoll: %s", strerror(errno));
	for (; i < argc; i++)
		if (echo_listen(epfd, argv[i], udp))
			die("epoll_ctl: %s", strerror(errno));
	/* Not everything can be polled (a file, /dev/null): then only SIGTERM ends it. */
	epoll_ctl(epfd, EPOLL_CTL_ADD, STDIN_FILENO, &in);
	puts("{\"event\":\"ready\"}");
	while (!tool_stopped) {
		int n;

		fflush(stdout);
		n = epoll_wait(epfd, evs, 256, -1);
		for (i = 0; i < n; i++) {
			struct peer *p = evs[i].data.ptr;

			if (!p) {
				ssize_t got = read(STDIN_FILENO, echo_buf, sizeof(echo_buf));

				if (got <= 0)
					return 0;
			} else if (p->listener && p->udp) {
				echo_datagrams(p);
			} else if (p->listener) {
				echo_accept(epfd, p);
			} else {
				echo_stream(epfd, p);
			}
		}
	}
	return 0;
}

/* --------------------------------------------------------------------------------------- connect */

struct talk {
	int fd;
	bool udp;
	uint64_t timeout_ns;
};

/* Wait for events on fd until the deadline. 0, -ETIMEDOUT or -EINTR (a signal to stop). */
static int wait_fd(int fd, short events, uint64_t deadline_ns)
{
	for (;;) {
		struct pollfd p = { .fd = fd, .events = events };
		uint64_t now = now_ns();
		int n;

		if (tool_stopped)
			return -EINTR;
		if (now >= deadline_ns)
			return -ETIMEDOUT;
		n = poll(&p, 1, (int)((deadline_ns - now) / 1000000 + 1));
		if (n > 0)
			return 0;
	}
}

static int talk_connect(const struct talk *t, const struct sockaddr_storage *to)
{
	int err = 0, rc;
	socklen_t len = sizeof(err);

	if (!connect(t->fd, (const struct sockaddr *)to, sa_len(to)))
		return 0;
	if (errno != EINPROGRESS)
		return -errno;
	rc = wait_fd(t->fd, POLLOUT, now_ns() + t->timeout_ns);
	if (rc)
		return rc;
	getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &err, &len);
	return -err;
}

static int talk_echo(const struct talk *t, const char *line, size_t line_len)
{
	uint64_t deadline_ns = now_ns() + t->timeout_ns;
	char back[4096];
	size_t sent = 0, got = 0;
	ssize_t n;
	int rc;

	if (line_len > sizeof(back))
		return -EMSGSIZE;
	while (sent < line_len) {
		n = send(t->fd, line + sent, line_len - sent, 0);
		if (n >= 0) {
			sent += (size_t)n;
			continue;
		}
		if (errno != EAGAIN)
			return -errno;
		rc = wait_fd(t->fd, POLLOUT, deadline_ns);
		if (rc)
			return rc;
	}
	while (got < line_len) {
		n = recv(t->fd, back + got, line_len - got, 0);
		if (n == 0)
			return -EPIPE;
		if (n > 0) {
			got += (size_t)n;
			continue;
		}
		if (errno != EAGAIN)
			return -errno;
		rc = wait_fd(t->fd, POLLIN, deadline_ns);
		if (rc)
			return rc;
	}
	return memcmp(line, back, line_len) ? -EBADMSG : 0;
}

static int do_connect(int argc, char **argv)
{
	struct talk t = { .timeout_ns = 5000000000ULL };
	struct sockaddr_storage bind_to = { 0 }, to, local;
	socklen_t len = sizeof(local);
	bool bound = false, wait = false, good = true;
	char host[TOOL_ENDPOINT_MAX], *line = NULL;
	size_t line_cap = 0;
	ssize_t line_len;
	uint64_t start_ns;
	int i, rc, on = 1;

	for (i = 0; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "--udp")) {
			t.udp = true;
		} else if (!strcmp(argv[i], "--wait")) {
			wait = true;
		} else if (!strcmp(argv[i], "--bind") && i + 1 < argc) {
			bind_to = parse_endpoint("--bind", argv[++i]);
			bound = true;
		} else if (!strcmp(argv[i], "--timeout") && i + 1 < argc) {
			t.timeout_ns = parse_number("--timeout", argv[++i], 1, 3600) * 1000000000;
		} else {
			die("talk connect: unknown option \"%s\"", argv[i]);
		}
	}
	if (i + 1 != argc)
		die("usage: talk connect [--udp] [--bind ENDPOINT] [--timeout S] [--wait] "
		    "ENDPOINT");
	to = parse_endpoint("endpoint", argv[i]);
	t.fd = socket(to.ss_family,
		      (t.udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (t.fd < 0)
		die("socket: %s", strerror(errno));
	if (bound) {
		setsockopt(t.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (bind(t.fd, (struct sockaddr *)&bind_to, sa_len(&bind_to)))
			die("bind: %s", strerror(errno));
		getsockname(t.fd, (struct sockaddr *)&local, &len);
		printf("{\"event\":\"bound\",\"bound\":\"%s\",\"bound_port\":%u}\n",
		       sa_host(&local, host), sa_port(&local));
		fflush(stdout);
	}
	if (wait && getline(&line, &line_cap, stdin) < 0)
		return 1;
	start_ns = now_ns();
	rc = talk_connect(&t, &to);
	len = sizeof(local);
	getsockname(t.fd, (struct sockaddr *)&local, &len);
	printf("{\"event\":\"connect\",\"connected\":%s,\"bound\":\"%s\",\"bound_port\":%u,"
	       "\"errno\":\"%s\",\"seconds\":%.3f}\n",
	       rc ? "false" : "true", sa_host(&local, host), sa_port(&local), errno_name(-rc),
	       (double)(now_ns() - start_ns) / 1e9);
	fflush(stdout);
	if (rc)
		return 1;
	while (!tool_stopped && (line_len = getline(&line, &line_cap, stdin)) > 0) {
		rc = talk_echo(&t, line, (size_t)line_len);
		good = good && !rc;
		printf("{\"event\":\"echo\",\"ok\":%s,\"bytes\":%zd,\"errno\":\"%s\"}\n",
		       rc ? "false" : "true", line_len, errno_name(-rc));
		fflush(stdout);
	}
	free(line);
	close(t.fd);
	return good ? 0 : 1;
}

int main(int argc, char **argv)
{
	tool_catch_signals();
	tool_raise_files();
	if (argc > 1 && !strcmp(argv[1], "echo"))
		return do_echo(argc - 2, argv + 2);
	if (argc > 1 && !strcmp(argv[1], "connect"))
		return do_connect(argc - 2, argv + 2);
	die("usage: talk echo|connect ...");
}
