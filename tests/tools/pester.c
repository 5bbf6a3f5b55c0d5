/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Clients of the control socket that misbehave.
 *
 *   pester PATH hold COUNT [TEXT]
 *       Opens COUNT connections, sends TEXT on each (without the NUL byte that ends a message), and holds them. For every
 *       line on stdin it says how they are:
 *       {"event":"hold","connected":16,"refused":84,"open":16,"said":"...first answer..."}
 *       connected: taken and not hung up on at once; refused: got an answer or the end at once; open: not ended since.
 *   pester PATH deaf COUNT TEXT
 *       Opens COUNT connections, sends the message TEXT on each, and never reads. {"event":"deaf","connected":1}
 *   pester PATH flood SECONDS TEXT
 *       One connection that sends the message TEXT again and again and never reads, as fast as it is taken, for so
 *       long. {"event":"flood","sent":N,"closed":false}
 *   pester PATH noise COUNT SEED
 *       COUNT connections one after the other, each with some kilobytes of bytes that depend on SEED: random ones, random
 *       ones with NUL bytes, JSON cut short, JSON nested deep, text without an end. Waits for the end of each, or
 *       half a second. {"event":"noise","ended":N,"answered":N,"left":N}
 *   pester PATH fds COUNT TEXT
 *       COUNT connections one after the other, each with the message TEXT and descriptors that nobody wants: one, two, as many as can be
 *       sent, with half a message, behind garbage; most of them sockets for whose end close() would wait an hour.
 *       {"event":"fds","sent":N,"answered":N,"expected":N}
 *
 * hold and deaf end with stdin.
 */
#include "tool.h"

#include <poll.h>
#include <pthread.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECTIONS_MAX 4096
#define ANSWER_MS       200
#define FDS_MAX         253 /* with a message: the kernel's SCM_MAX_FD */

static const char *path;
static int fds[CONNECTIONS_MAX];

static int try_connect(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket: %s", strerror(errno));
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		die("connect %s: %s", path, strerror(errno));
	return fd;
}

static void put(int fd, const char *text, size_t len)
{
	/* The peer may have hung up: that shows when reading. */
	(void)!send(fd, text, len, MSG_NOSIGNAL);
}

/* Is there something to read, or the end? Of what is there, the beginning goes to buf. */
static bool ended(int fd, int wait_ms, char *buf, size_t size)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	ssize_t n;

	if (poll(&p, 1, wait_ms) <= 0)
		return false;
	n = recv(fd, buf, size - 1, MSG_DONTWAIT);
	buf[n > 0 ? n : 0] = '\0';
	return true;
}

/* A text as part of a JSON string. */
static void put_quoted(const char *text)
{
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putchar('\\');
		putchar(*text < ' ' ? ' ' : *text);
	}
}

static int hold(unsigned count, const char *text)
{
	unsigned connected = 0, refused = 0, open;
	char said[512] = "", buf[512], line[256];

	for (unsigned i = 0; i < count; i++) {
		fds[i] = try_connect();
		put(fds[i], text, strlen(text));
	}
	for (unsigned i = 0; i < count; i++) {
		/* All have been asked by now, so only the first one takes its time. */
		if (ended(fds[i], i ? 0 : ANSWER_MS, buf, sizeof(buf))) {
			if (!said[0])
				memcpy(said, buf, sizeof(said));
			close(fds[i]);
			fds[i] = -1;
			refused++;
		} else {
			connected++;
		}
	}
	do {
		open = 0;
		for (unsigned i = 0; i < count; i++) {
			if (fds[i] >= 0 && ended(fds[i], 0, buf, sizeof(buf))) {
				if (!said[0])
					memcpy(said, buf, sizeof(said));
				close(fds[i]);
				fds[i] = -1;
			}
			open += fds[i] >= 0;
		}
		printf("{\"event\":\"hold\",\"connected\":%u,\"refused\":%u,\"open\":%u,\"said\":"
		       "\"",
		       connected, refused, open);
		put_quoted(said);
		puts("\"}");
		fflush(stdout);
	} while (!tool_stopped && fgets(line, sizeof(line), stdin));
	return 0;
}

static int deaf(unsigned count, const char *text)
{
	char line[256];

	for (unsigned i = 0; i < count; i++) {
		fds[i] = try_connect();
		put(fds[i], text, strlen(text) + 1);
	}
	printf("{\"event\":\"deaf\",\"connected\":%u}\n", count);
	fflush(stdout);
	while (!tool_stopped && fgets(line, sizeof(line), stdin))
		;
	return 0;
}

static int flood(unsigned seconds, const char *text)
{
	uint64_t end_ns = now_ns() + seconds * 1000000000ULL, sent = 0;
	size_t len = strlen(text) + 1, off = 0;
	bool closed = false;
	int fd = try_connect();

	while (!closed && !tool_stopped && now_ns() < end_ns) {
		ssize_t n = send(fd, text + off, len - off, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0) {
			off = (off + (size_t)n) % len;
			sent += off == 0;
		} else if (errno == EAGAIN) {
			poll(&(struct pollfd){ .fd = fd, .events = POLLOUT }, 1, 50);
		} else {
			closed = true;
		}
	}
	printf("{\"event\":\"flood\",\"sent\":%llu,\"closed\":%s}\n", (unsigned long long)sent,
	       closed ? "true" : "false");
	return 0;
}

/* Send bytes with n descriptors, all of them fd. */
static void put_fds(int sock, const char *bytes, size_t len, int fd, unsigned n)
{
	union {
		char buf[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} u = { 0 };
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = len };
	struct msghdr mh = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = u.buf,
		.msg_controllen = CMSG_SPACE(n * sizeof(int)),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&mh);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	for (unsigned i = 0; i < n; i++)
		memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(int));
	/* The peer may have hung up: that shows when reading. */
	if (sendmsg(sock, &mh, MSG_NOSIGNAL) < 0 && errno != EPIPE)
		die("sendmsg: %s", strerror(errno));
}

/* A connection to ourselves with data that nobody reads, and SO_LINGER. */
static int lingering(int listener)
{
	static const struct linger linger = { .l_onoff = 1, .l_linger = 3600 };
	static const char data[65536];
	struct sockaddr_in sa;
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || getsockname(listener, (struct sockaddr *)&sa, &len) < 0 ||
	    connect(fd, (struct sockaddr *)&sa, len) < 0)
		die("a socket to be sent along: %s", strerror(errno));
	while (send(fd, data, sizeof(data), MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
		;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	return fd;
}

/* Where the message did not get through, ours is the last descriptor, and closing it takes an hour. */
static void *close_slowly(void *arg)
{
	close((int)(intptr_t)arg);
	return NULL;
}

static int send_fds(unsigned count, const char *text)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unsigned answered = 0, expected = 0, sent = 0;
	size_t len = strlen(text) + 1;
	pthread_t closer;
	char back[512];

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(listener, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
	    listen(listener, CONNECTIONS_MAX) < 0)
		die("listen: %s", strerror(errno));
	for (unsigned i = 0; i < count && !tool_stopped; i++) {
		static const unsigned how_many[] = { 1, 2, 64, FDS_MAX, 1, 1 };
		unsigned kind = i % 6;
		int fd = lingering(listener), conn = try_connect();

		if (kind == 5)
			put(conn, "garbage", 8);
		put_fds(conn, text, kind == 4 ? len / 2 : len, fd, how_many[kind]);
		sent += how_many[kind];
		if (pthread_create(&closer, NULL, close_slowly, (void *)(intptr_t)fd))
			die("a thread: %s", strerror(errno));
		pthread_detach(closer);
		if (kind < 4) {
			expected++;
			answered += ended(conn, 500, back, sizeof(back)) && back[0];
		}
		close(conn);
	}
	printf("{\"event\":\"fds\",\"sent\":%u,\"answered\":%u,\"expected\":%u}\n", sent, answered,
	       expected);
	fflush(stdout);
	return 0;
}

static uint32_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(*state >> 33);
}

static size_t noise_fill(unsigned kind, uint64_t *state, char *buf, size_t size)
{
	static const char call[] = "{\"method\":\"io.sluice.GetStatus\",\"parameters\":{";
	size_t n = 1 + next_random(state) % (size - 1);

	for (size_t i = 0; i < n; i++) {
		switch (kind) {
		case 0:
			buf[i] = (char)next_random(state);
			break;
		case 1:
			buf[i] = (char)(next_random(state) % 16 ? next_random(state) : 0);
			break;
		case 2:
			buf[i] = call[i % (sizeof(call) - 1)];
			break;
		case 3:
			buf[i] = '[';
			break;
		default:
			buf[i] = (char)('a' + next_random(state) % 26);
		}
	}
	if (kind == 2 || kind == 3)
		buf[n - 1] = '\0';
	return n;
}

static int noise(unsigned count, uint64_t seed)
{
	static char buf[100000];
	unsigned over = 0, answered = 0, left = 0;
	char back[512];

	for (unsigned i = 0; i < count && !tool_stopped; i++) {
		int fd = try_connect();
		size_t n = noise_fill(i % 5, &seed, buf, sizeof(buf));

		/* More than the daemon reads would wait for ever. */
		send(fd, buf, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		shutdown(fd, SHUT_WR);
		if (ended(fd, 500, back, sizeof(back))) {
			over++;
			answered += back[0] != '\0';
		} else {
			left++;
		}
		close(fd);
	}
	printf("{\"event\":\"noise\",\"ended\":%u,\"answered\":%u,\"left\":%u}\n", over, answered,
	       left);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned n;

	tool_catch_signals();
	tool_raise_files();
	if (argc < 4)
		die("usage: pester PATH hold|deaf|flood|noise|fds NUMBER [TEXT|SEED]");
	path = argv[1];
	n = (unsigned)parse_number("number", argv[3], 1, CONNECTIONS_MAX);
	if (!strcmp(argv[2], "hold"))
		return hold(n, argc > 4 ? argv[4] : "");
	if (!strcmp(argv[2], "deaf") && argc == 5)
		return deaf(n, argv[4]);
	if (!strcmp(argv[2], "flood") && argc == 5)
		return flood(n, argv[4]);
	if (!strcmp(argv[2], "noise") && argc == 5)
		return noise(n, parse_number("seed", argv[4], 0, UINT32_MAX));
	if (!strcmp(argv[2], "fds") && argc == 5)
		return send_fds(n, argv[4]);
	die("pester: \"%s\" is not hold, deaf, flood, noise or fds, or lacks its text", argv[2]);
}
