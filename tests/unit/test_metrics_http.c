/* SPDX-License-Identifier: BSD-2-Clause */
/* Metrics over HTTP: the server and its clients in one thread, so that waiting for an answer means to turn the server's loop by hand. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "clock.h"
#include "metrics.h"

#define HANG_MS 20000 /* a test that waits so long has failed */
#define LARGE   (8 * 1024 * 1024)

static struct metrics_limits limits;
static struct metrics *m;
static unsigned gathered;
static size_t large; /* bytes that one sample is made longer by */
static char notes[4096];
static char dir[64];

static void on_gather(void *arg, uint64_t now_ns, struct metrics_text *t)
{
	struct metric_family *f = metrics_text_family(t, "x", METRIC_GAUGE, "X");
	char *filling = calloc(1, large + 1);

	(void)arg;
	assert_true(now_ns > 0);
	memset(filling, 'f', large);
	metric_count(f, METRIC_LABELS({ "l", filling }), ++gathered);
	free(filling);
}

static void on_note(void *arg, int priority, const char *event, const char *text)
{
	size_t n = strlen(notes);

	(void)arg;
	assert_string_equal(event, "metrics");
	snprintf(notes + n, sizeof(notes) - n, "<%d>%s\n", priority, text);
}

static int setup(void **state)
{
	const struct metrics_opts o = { .gather = on_gather, .note = on_note, .limits = &limits };
	struct errtext err;

	(void)state;
	limits = (struct metrics_limits)METRICS_LIMITS;
	limits.rest = 1;
	gathered = 0;
	large = 0;
	notes[0] = '\0';
	snprintf(dir, sizeof(dir), "/tmp/sluice-test-metrics.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	return metrics_open(&o, &m, &err);
}

static int teardown(void **state)
{
	(void)state;
	metrics_close(m);
	return rmdir(dir);
}

/* The server with other limits. */
static void reopen(void)
{
	const struct metrics_opts o = { .gather = on_gather, .note = on_note, .limits = &limits };
	struct errtext err;

	metrics_close(m);
	assert_int_equal(metrics_open(&o, &m, &err), 0);
}

static struct config *parse(const char *listen, const char *group)
{
	static const char base[] = "machine = m uplinks = wan pool a { addresses = 203.0.113.7 }\n";
	struct config *c = NULL;
	struct errtext err;
	char text[512];

	snprintf(text, sizeof(text), "%s%s%s%s%s%s%s\n", base, listen ? "metrics { listen = '" : "",
		 listen ? listen : "", listen ? "' } " : "", group ? "access { group = " : "",
		 group ? group : "", group ? " }" : "");
	if (config_parse("t.conf", text, strlen(text), &c, &err) < 0)
		fail_msg("%s", err.s);
	return c;
}

static void start(const char *listen, const char *group)
{
	struct config *c = parse(listen, group);

	metrics_start(m, c);
	config_free(c);
}

static int prepare(const char *listen, struct errtext *err)
{
	struct config *c = parse(listen, NULL);
	int r = metrics_prepare(m, c, err);

	config_free(c);
	return r;
}

/* A port that nobody has now; where it is, for the configuration. */
static uint16_t free_port(const char *address, char listen[64])
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t len = sizeof(sa);

	assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	close(fd);
	snprintf(listen, 64, "%s:%u", address, ntohs(sa.sin_port));
	return ntohs(sa.sin_port);
}

/* One turn of the loop, waiting for at most ms. */
static void turn(int ms)
{
	struct pollfd p = { .fd = metrics_fd(m), .events = POLLIN };
	uint64_t now_ns = clock_boot_ns(), next_ns;

	metrics_tick(m, now_ns, &next_ns);
	if (next_ns < now_ns + (uint64_t)ms * NS_PER_MS)
		ms = next_ns > now_ns ? (int)((next_ns - now_ns) / NS_PER_MS) + 1 : 0;
	if (poll(&p, 1, ms) > 0)
		metrics_ready(m, clock_boot_ns());
}

/* A connection to 127.0.0.1 (or what is given); -1 when it is refused. */
static int dial_at(const char *address, uint16_t port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	inet_pton(AF_INET, address, &sa.sin_addr);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		assert_int_equal(errno, ECONNREFUSED);
		close(fd);
		return -1;
	}
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static int dial(uint16_t port)
{
	return dial_at("127.0.0.1", port);
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static char answer[LARGE + 4096];

/* Turn the loop until the server closes. How much it said. */
static size_t hear(int fd)
{
	uint64_t end_ms = clock_mono_ms() + HANG_MS;
	size_t n = 0;
	ssize_t got;

	for (;;) {
		got = recv(fd, answer + n, sizeof(answer) - 1 - n, 0);
		if (got == 0 || (got < 0 && errno != EAGAIN))
			break;
		if (got < 0)
			turn(10);
		else
			n += (size_t)got;
		if (clock_mono_ms() > end_ms)
			fail_msg("the server does not close");
	}
	answer[n] = '\0';
	close(fd);
	return n;
}

static const char *ask(int fd, const char *request)
{
	assert_true(fd >= 0);
	say(fd, request);
	hear(fd);
	return answer;
}

#define GET          "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
#define HAS(text)    assert_non_null(strstr(answer, text))
#define BEGINS(text) assert_memory_equal(answer, text, strlen(text))

static void test_answers(void **state)
{
	char listen[64];
	uint16_t port = free_port("127.0.0.1", listen);

	(void)state;
	start(listen, NULL);
	ask(dial(port), GET);
	BEGINS("HTTP/1.1 200 OK\r\n");
	HAS("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n");
	HAS("\r\n\r\n# HELP x X\n# TYPE x gauge\nx{l=\"\"} 1\n");

	ask(dial(port), "HEAD /metrics?a=b HTTP/1.1\r\nHost: x\r\n\r\n");
	BEGINS("HTTP/1.1 200 OK\r\n");
	HAS("\r\nContent-Length: 36\r\n");
	assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\n");

	ask(dial(port), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
	BEGINS("HTTP/1.1 404 ");
	ask(dial(port), "GET /metrics/ HTTP/1.0\r\n\r\n");
	BEGINS("HTTP/1.");
	HAS(" 404 ");
	ask(dial(port), "DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
	BEGINS("HTTP/1.1 405 ");
	HAS("\r\nAllow: GET, HEAD\r\n");
	ask(dial(port), "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
	BEGINS("HTTP/1.1 405 ");

	/* One request a connection. */
	ask(dial(port), GET GET GET);
	BEGINS("HTTP/1.1 200 OK\r\n");
	assert_null(strstr(answer + 1, "HTTP/1.1"));
	/* Of all of these, one was not fresh. */
	assert_int_equal(gathered, 1);
}

static void test_fresh(void **state)
{
	char listen[64];
	uint16_t port = free_port("127.0.0.1", listen);

	(void)state;
	limits.fresh_ms = 0;
	reopen();
	start(listen, NULL);
	ask(dial(port), GET);
	HAS("x{l=\"\"} 1\n");
	ask(dial(port), GET);
	HAS("x{l=\"\"} 2\n");
}

/* What makes no sense is not understood, and that is all. */
static void test_nonsense(void **state)
{
	static const char *const requests[] = {
		"\r\n\r\n\r\n",
		"GET\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
		"GET /metrics\r\n\r\n",
		"GET /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
		"GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
		"zz\r\n"
	};
	char listen[64], line[1024];
	uint16_t port = free_port("127.0.0.1", listen);
	int fd;

	(void)state;
	limits.connection_ms = 50;
	reopen();
	start(listen, NULL);
	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
		ask(dial(port), requests[i]);
	/* More header lines than a connection has memory for. */
	fd = dial(port);
	say(fd, "GET /metrics HTTP/1.1\r\n");
	memset(line, 'h', sizeof(line));
	memcpy(line + sizeof(line) - 5, ": a\r\n", 5);
	for (int i = 0; i < 64; i++) {
		if (send(fd, line, sizeof(line), MSG_NOSIGNAL) < 0)
			break;
		turn(0);
	}
	hear(fd);
	assert_null(strstr(answer, "200 OK"));
	ask(dial(port), GET);
	HAS(" 200 OK\r\n");
}

/* Somebody who says nothing, half of it, or a byte now and then, and one who does not listen: each is cut off. */
static void test_slow(void **state)
{
	static const char *const words[] = { "", "GET /met", GET };
	char listen[64];
	uint16_t port = free_port("127.0.0.1", listen);
	uint64_t end_ms = clock_mono_ms() + HANG_MS;
	size_t n;
	int fd;

	(void)state;
	limits.connection_ms = 50;
	reopen();
	start(listen, NULL);
	for (int i = 0; i < 2; i++) {
		fd = dial(port);
		say(fd, words[i]);
		assert_int_equal(hear(fd), 0);
	}
	fd = dial(port);
	say(fd, "GET /metrics HTTP/1.1\r\nHost: ");
	while (send(fd, "x", 1, MSG_NOSIGNAL) == 1) {
		turn(5);
		assert_true(clock_mono_ms() < end_ms);
	}
	close(fd);
	assert_int_equal(gathered, 0);

	/* More than fits into all buffers: what is not read in time is not sent. */
	large = LARGE;
	fd = dial(port);
	say(fd, GET);
	while (gathered == 0)
		turn(5);
	for (uint64_t until_ms = clock_mono_ms() + 4 * limits.connection_ms;
	     clock_mono_ms() < until_ms;)
		turn(5);
	n = hear(fd);
	assert_in_range(n, 1, LARGE);
	/* The same to somebody who reads. */
	fd = dial(port);
	say(fd, GET);
	limits.connection_ms = HANG_MS;
	reopen();
	start(listen, NULL);
	close(fd);
	fd = dial(port);
	say(fd, GET);
	assert_true(hear(fd) > LARGE);
}

/* All places are taken: who comes then waits until one is free. */
static void test_many(void **state)
{
	char listen[64];
	uint16_t port = free_port("127.0.0.1", listen);
	int idle[3], late;

	(void)state;
	limits.connections = 3;
	limits.connections_per_ip = 3;
	limits.connection_ms = 200;
	reopen();
	start(listen, NULL);
	for (int i = 0; i < 3; i++)
		idle[i] = dial(port);
	for (int i = 0; i < 20; i++)
		turn(1);
	late = dial(port);
	ask(late, GET);
	BEGINS("HTTP/1.1 200 OK\r\n");
	for (int i = 0; i < 3; i++)
		assert_int_equal(hear(idle[i]), 0);
}

/* One address has a part of the places only. */
static void test_per_ip(void **state)
{
	char listen[64];
	uint16_t port = free_port("127.0.0.1", listen);
	int held[2];

	(void)state;
	limits.connections = 8;
	limits.connections_per_ip = 2;
	reopen();
	start(listen, NULL);
	for (int i = 0; i < 2; i++)
		held[i] = dial(port);
	for (int i = 0; i < 20; i++)
		turn(1);
	assert_int_equal(hear(dial(port)), 0);
	for (int i = 0; i < 2; i++) {
		ask(held[i], GET);
		BEGINS("HTTP/1.1 200 OK\r\n");
	}
}

static int dial_unix(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static void test_unix(void **state)
{
	char path[96], listen[112];
	struct errtext err;
	struct group *g;
	struct config *c;
	struct stat st;

	(void)state;
	snprintf(path, sizeof(path), "%s/metrics.sock", dir);
	snprintf(listen, sizeof(listen), "unix:%s", path);
	g = getgrgid(getegid());
	assert_non_null(g);
	start(listen, g->gr_name);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
	ask(dial_unix(path), GET);
	BEGINS("HTTP/1.1 200 OK\r\n");

	/* Another group: the file's rights follow. */
	c = parse(listen, NULL);
	assert_int_equal(metrics_prepare(m, c, &err), 0);
	metrics_commit(m);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	/* The file was removed: it is made again. */
	unlink(path);
	assert_int_equal(metrics_prepare(m, c, &err), 0);
	metrics_commit(m);
	ask(dial_unix(path), GET);
	BEGINS("HTTP/1.1 200 OK\r\n");
	config_free(c);
	assert_null(strstr(notes, "<3>"));
	assert_null(strstr(notes, "<4>"));

	start(NULL, NULL);
	assert_int_equal(stat(path, &st), -1);
}

static void test_reload(void **state)
{
	char one[64], two[64], everywhere[64];
	uint16_t port1 = free_port("127.0.0.1", one), port2 = free_port("127.0.0.1", two);
	int taken = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port2) };
	struct errtext err;

	(void)state;
	inet_pton(AF_INET, "127.0.0.1", &sa.sin_addr);
	start(one, NULL);
	/* Prepared and not wanted: as before. */
	assert_int_equal(prepare(two, &err), 0);
	metrics_cancel(m);
	assert_int_equal(dial(port2), -1);
	ask(dial(port1), GET);
	BEGINS("HTTP/1.1 200 ");
	/* Taken by somebody else: refused, and as before. */
	assert_int_equal(bind(taken, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(taken, 1), 0);
	assert_int_equal(prepare(two, &err), -EADDRINUSE);
	assert_non_null(strstr(err.s, "t.conf:2: listen \"127.0.0.1:"));
	assert_int_equal(prepare("192.0.2.1:9469", &err), -EADDRNOTAVAIL);
	ask(dial(port1), GET);
	BEGINS("HTTP/1.1 200 ");
	close(taken);
	/* To another place. */
	assert_int_equal(prepare(two, &err), 0);
	metrics_commit(m);
	assert_int_equal(dial(port1), -1);
	ask(dial(port2), GET);
	BEGINS("HTTP/1.1 200 ");
	/* To one that overlaps with it. */
	snprintf(everywhere, sizeof(everywhere), "0.0.0.0:%u", port2);
	assert_null(strstr(notes, "no authentication"));
	assert_int_equal(prepare(everywhere, &err), 0);
	metrics_commit(m);
	assert_non_null(strstr(notes, "no authentication"));
	ask(dial_at("127.0.0.2", port2), GET);
	BEGINS("HTTP/1.1 200 ");
	/* Nowhere. */
	assert_int_equal(prepare(NULL, &err), 0);
	metrics_commit(m);
	assert_int_equal(dial(port2), -1);
}

static void test_ipv6(void **state)
{
	struct sockaddr_in6 sa = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	char listen[64];
	uint16_t port = free_port("[::1]", listen);
	int fd = socket(AF_INET6, SOCK_STREAM, 0);

	(void)state;
	sa.sin6_port = htons(port);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		print_message("no IPv6 on this machine\n");
		skip();
	}
	close(fd);
	start(listen, NULL);
	fd = socket(AF_INET6, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	ask(fd, GET);
	BEGINS("HTTP/1.1 200 ");
	assert_null(strstr(notes, "no authentication"));
	snprintf(listen, sizeof(listen), "[::]:%u", port);
	start(listen, NULL);
	ask(dial(port), GET);
	BEGINS("HTTP/1.1 200 ");
	assert_non_null(strstr(notes, "no authentication"));
}

/* A start goes on without, says so once, and has it when it can be had. */
static void test_retry(void **state)
{
	char where[64];
	uint16_t port = free_port("127.0.0.1", where);
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port) };
	int taken = socket(AF_INET, SOCK_STREAM, 0);
	struct errtext err;

	(void)state;
	inet_pton(AF_INET, "127.0.0.1", &sa.sin_addr);
	assert_int_equal(bind(taken, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(taken, 1), 0);
	limits.retry_ms = 20;
	reopen();
	start(where, NULL);
	assert_non_null(strstr(notes, "<3>t.conf:2: listen \""));
	for (uint64_t end_ms = clock_mono_ms() + 100; clock_mono_ms() < end_ms;)
		turn(10);
	assert_null(strstr(strchr(notes, '\n') + 1, "<3>"));
	/* A reload that changes nothing about it is not refused. */
	assert_int_equal(prepare(where, &err), 0);
	metrics_commit(m);
	close(taken);
	for (uint64_t end_ms = clock_mono_ms() + HANG_MS; !strstr(notes, "metrics at ");) {
		turn(10);
		assert_true(clock_mono_ms() < end_ms);
	}
	ask(dial(port), GET);
	BEGINS("HTTP/1.1 200 ");
	/* The daemon starts anew within itself: its clients notice nothing. */
	notes[0] = '\0';
	taken = dial(port);
	start(where, NULL);
	assert_string_equal(notes, "");
	ask(taken, GET);
	BEGINS("HTTP/1.1 200 ");
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_answers), CASE(test_fresh),  CASE(test_nonsense), CASE(test_slow),
		CASE(test_many),    CASE(test_per_ip), CASE(test_unix),     CASE(test_reload),
		CASE(test_ipv6),    CASE(test_retry),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
