/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small HTTP server for transfers whose content both ends can compute, so that no large file is needed.
 *
 *   http bytes COUNT SEED         writes the COUNT bytes that SEED stands for to stdout
 *   http serve ENDPOINT...        GET /bytes/COUNT/SEED answers with the same bytes;
 *                                 PUT /bytes/COUNT/SEED compares the body with them and answers
 *                                 {"bytes":N,"match":true}
 *
 * HTTP/1.1 with Connection: close, one thread a connection. Runs until SIGTERM or the end of stdin.
 */
#include "tool.h"

#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#define COUNT_MAX     (1ULL << 40)
#define LISTENERS_MAX 16
#define CHUNK         65536

static uint64_t word_at(uint64_t seed, uint64_t i)
{
	uint64_t x = seed * 0xd1342543de82ef95ULL + i * 0x9e3779b97f4a7c15ULL;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

/* Bytes off to off + len of the content; off must be a multiple of 8. */
static void fill(uint8_t *buf, size_t len, uint64_t seed, uint64_t off)
{
	for (size_t i = 0; i < len; i++) {
		uint64_t w = word_at(seed, (off + i) / 8);

		if (i + 8 <= len) {
			memcpy(buf + i, &w, 8);
			i += 7;
		} else {
			buf[i] = (uint8_t)(w >> (i % 8 * 8));
		}
	}
}

static int write_all(int fd, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR && !tool_stopped)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int write_bytes(int fd, uint64_t count, uint64_t seed)
{
	uint8_t buf[CHUNK];
	int rc;

	for (uint64_t off = 0; off < count; off += CHUNK) {
		size_t len = count - off < CHUNK ? (size_t)(count - off) : CHUNK;

		fill(buf, len, seed, off);
		rc = write_all(fd, buf, len);
		if (rc)
			return rc;
	}
	return 0;
}

struct request {
	char method[8];
	uint64_t count, seed;
	uint64_t length;
	bool expect;
	size_t body_off, have; /* in buf: where the body begins, how much was read */
	char buf[16384];
};

/* Read up to the empty line and parse. 0, or the HTTP status to refuse it with; -1: just close. */
static int read_request(int fd, struct request *r)
{
	unsigned long long count, seed, length;
	char *end = NULL, *line;

	while (!end) {
		ssize_t n = read(fd, r->buf + r->have, sizeof(r->buf) - 1 - r->have);

		if (n < 0 && errno == EINTR && !tool_stopped)
			continue;
		if (n <= 0)
			return -1;
		r->have += (size_t)n;
		r->buf[r->have] = '\0';
		end = strstr(r->buf, "\r\n\r\n");
		if (!end && r->have == sizeof(r->buf) - 1)
			return 431;
	}
	*end = '\0';
	r->body_off = (size_t)(end + 4 - r->buf);
	if (sscanf(r->buf, "%7s /bytes/%llu/%llu HTTP/1.", r->method, &count, &seed) != 3 ||
	    count > COUNT_MAX)
		return 404;
	r->count = count;
	r->seed = seed;
	line = strcasestr(r->buf, "\r\nContent-Length:");
	if (line && sscanf(line + 17, "%llu", &length) == 1)
		r->length = length;
	r->expect = strcasestr(r->buf, "\r\nExpect: 100-continue") != NULL;
	return 0;
}

static void serve_put(int fd, struct request *r)
{
	uint8_t want[CHUNK], got[CHUNK];
	uint64_t off = 0;
	size_t have = r->have - r->body_off;
	bool match = r->length == r->count;
	char answer[256], body[64];

	if (r->expect && write_all(fd, "HTTP/1.1 100 Continue\r\n\r\n", 25))
		return;
	memcpy(got, r->buf + r->body_off, have);
	while (off < r->length) {
		size_t want_len = r->length - off < CHUNK ? (size_t)(r->length - off) : CHUNK;

		while (have < want_len) {
			ssize_t n = read(fd, got + have, want_len - have);

			if (n < 0 && errno == EINTR && !tool_stopped)
				continue;
			if (n <= 0)
				return;
			have += (size_t)n;
		}
		fill(want, want_len, r->seed, off);
		match = match && !memcmp(want, got, want_len);
		off += want_len;
		have = 0;
	}
	snprintf(body, sizeof(body), "{\"bytes\":%llu,\"match\":%s}\n", (unsigned long long)off,
		 match ? "true" : "false");
	snprintf(answer, sizeof(answer),
		 "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
		 "Connection: close\r\n\r\n%s",
		 strlen(body), body);
	write_all(fd, answer, strlen(answer));
}

static void serve_get(int fd, const struct request *r)
{
	char head[256];

	snprintf(head, sizeof(head),
		 "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
		 "Content-Length: %llu\r\nConnection: close\r\n\r\n",
		 (unsigned long long)r->count);
	if (!write_all(fd, head, strlen(head)))
		write_bytes(fd, r->count, r->seed);
}

static void *serve(void *arg)
{
	int fd = (int)(intptr_t)arg;
	struct request *r = calloc(1, sizeof(*r));
	char head[128];
	int status;

	if (!r) {
		close(fd);
		return NULL;
	}
	status = read_request(fd, r);
	if (!status && !strcmp(r->method, "GET")) {
		serve_get(fd, r);
	} else if (!status && !strcmp(r->method, "PUT")) {
		serve_put(fd, r);
	} else if (status >= 0) {
		snprintf(head, sizeof(head),
			 "HTTP/1.1 %d Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
			 status ? status : 405);
		write_all(fd, head, strlen(head));
	}
	free(r);
	/* The peer has everything that was written only when it closes too. */
	shutdown(fd, SHUT_WR);
	while (read(fd, head, sizeof(head)) > 0)
		;
	close(fd);
	return NULL;
}

static int do_serve(int argc, char **argv)
{
	struct pollfd p[LISTENERS_MAX + 1];
	pthread_attr_t attr;
	int on = 1;

	if (argc < 1 || argc > LISTENERS_MAX)
		die("usage: http serve ENDPOINT...");
	for (int i = 0; i < argc; i++) {
		struct sockaddr_storage sa = parse_endpoint("ENDPOINT", argv[i]);
		int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sa_len(&sa)) || listen(fd, 1024))
			die("%s: %s", argv[i], strerror(errno));
		p[i] = (struct pollfd){ .fd = fd, .events = POLLIN };
	}
	p[argc] = (struct pollfd){ .fd = STDIN_FILENO, .events = POLLIN };
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	puts("{\"event\":\"ready\"}");
	fflush(stdout);
	while (!tool_stopped) {
		char scratch[256];

		if (poll(p, (nfds_t)argc + 1, -1) <= 0)
			continue;
		if (p[argc].revents && read(STDIN_FILENO, scratch, sizeof(scratch)) <= 0)
			break;
		for (int i = 0; i < argc; i++) {
			pthread_t thread;
			int fd;

			if (!p[i].revents)
				continue;
			fd = accept(p[i].fd, NULL, NULL);
			if (fd >= 0 && pthread_create(&thread, &attr, serve, (void *)(intptr_t)fd))
				close(fd);
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	tool_catch_signals();
	tool_raise_files();
	if (argc == 4 && !strcmp(argv[1], "bytes"))
		return write_bytes(STDOUT_FILENO, parse_number("COUNT", argv[2], 0, COUNT_MAX),
				   parse_number("SEED", argv[3], 0, UINT64_MAX))
			       ? 1
			       : 0;
	if (argc > 2 && !strcmp(argv[1], "serve"))
		return do_serve(argc - 2, argv + 2);
	die("usage: http bytes COUNT SEED | http serve ENDPOINT...");
}
