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
 *
 * hold and deaf end with stdin.
 */
#include "tool.h"

#include <poll.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECTIONS_MAX 4096
#define ANSWER_MS       200

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
		die("usage: pester PATH hold|deaf|flood|noise NUMBER [TEXT|SEED]");
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
	die("pester: \"%s\" is not hold, deaf, flood or noise, or lacks its text", argv[2]);
}
