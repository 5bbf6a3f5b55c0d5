/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sockets that change hands: one process binds, another one connects.
 *
 *   hand fork --bind ENDPOINT ENDPOINT
 *       Binds a TCP socket. On a line from stdin a child is forked, which has the socket too, as its parent does, and connects it.
 *   hand pass --bind ENDPOINT ENDPOINT
 *       As above, but the other process was there before the socket, gets it over a UNIX socket, and is the only one to have it then.
 *   hand send --bind ENDPOINT ENDPOINT
 *       Binds a UDP socket and never connects it. Sends each line, and waits up to a second for it to come back.
 *
 * {"event":"bound","pid":N}, then {"event":"connect","pid":N,"connected":true,"errno":"none"} of the process that connected; of "send", for each line
 * {"event":"echo","pid":N,"ok":true,"errno":"none"}. Ends with stdin. Exit status 0 unless something could not even be tried.
 */
#include "tool.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

static void report_connect(int fd, const struct sockaddr_storage *to)
{
	int e = connect(fd, (const struct sockaddr *)to, sa_len(to)) ? errno : 0;

	printf("{\"event\":\"connect\",\"pid\":%d,\"connected\":%s,\"errno\":\"%s\"}\n", getpid(),
	       e ? "false" : "true", errno_name(e));
	fflush(stdout);
}

/* Until the other end is gone. */
static void wait_end(int fd)
{
	char c;

	while (read(fd, &c, 1) > 0)
		;
}

static void fd_send(int over, int fd)
{
	union {
		struct cmsghdr head;
		char buf[CMSG_SPACE(sizeof(int))];
	} u = { .head = { .cmsg_len = CMSG_LEN(sizeof(int)),
			  .cmsg_level = SOL_SOCKET,
			  .cmsg_type = SCM_RIGHTS } };
	struct iovec iov = { .iov_base = "x", .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof(u)
	};

	memcpy(CMSG_DATA(&u.head), &fd, sizeof(fd));
	if (sendmsg(over, &msg, 0) != 1)
		die("sendmsg: %s", strerror(errno));
}

static int fd_receive(int over)
{
	union {
		struct cmsghdr head;
		char buf[CMSG_SPACE(sizeof(int))];
	} u;
	char byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof(u)
	};
	int fd;

	/* The end of the parent. */
	if (recvmsg(over, &msg, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&msg))
		exit(0);
	memcpy(&fd, CMSG_DATA(&u.head), sizeof(fd));
	return fd;
}

static bool wait_line(void)
{
	char line[64];

	return fgets(line, sizeof(line), stdin);
}

static int bound_socket(int type, const struct sockaddr_storage *at)
{
	int fd = socket(at->ss_family, type | SOCK_CLOEXEC, 0), on = 1;

	if (fd < 0)
		die("socket: %s", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (const struct sockaddr *)at, sa_len(at)))
		die("bind: %s", strerror(errno));
	printf("{\"event\":\"bound\",\"pid\":%d}\n", getpid());
	fflush(stdout);
	return fd;
}

static int do_hand(bool pass, const struct sockaddr_storage *at, const struct sockaddr_storage *to)
{
	int over[2], fd = -1;
	pid_t child = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, over))
		die("socketpair: %s", strerror(errno));
	if (!pass)
		fd = bound_socket(SOCK_STREAM, at);
	if (!pass && !wait_line())
		return 0;
	child = fork();
	if (child < 0)
		die("fork: %s", strerror(errno));
	if (!child) {
		close(over[0]);
		if (pass)
			fd = fd_receive(over[1]);
		report_connect(fd, to);
		wait_end(over[1]);
		return 0;
	}
	close(over[1]);
	if (pass) {
		fd = bound_socket(SOCK_STREAM, at);
		if (wait_line()) {
			fd_send(over[0], fd);
			close(fd);
		}
	}
	while (wait_line())
		;
	close(over[0]);
	waitpid(child, NULL, 0);
	return 0;
}

static int do_send(const struct sockaddr_storage *at, const struct sockaddr_storage *to)
{
	int fd = bound_socket(SOCK_DGRAM, at);
	char line[256], back[256];

	while (fgets(line, sizeof(line), stdin)) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		size_t len = strlen(line);
		ssize_t got;
		int e = 0;

		if (sendto(fd, line, len, 0, (const struct sockaddr *)to, sa_len(to)) < 0)
			e = errno;
		else if (!poll(&p, 1, 1000))
			e = ETIMEDOUT;
		else if ((got = recv(fd, back, sizeof(back), 0)) < 0)
			e = errno;
		else if ((size_t)got != len || memcmp(line, back, len))
			e = EBADMSG;
		printf("{\"event\":\"echo\",\"pid\":%d,\"ok\":%s,\"errno\":\"%s\"}\n", getpid(),
		       e ? "false" : "true", errno_name(e));
		fflush(stdout);
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_storage at, to;

	tool_catch_signals();
	if (argc != 5 || strcmp(argv[2], "--bind"))
		die("usage: hand fork|pass|send --bind ENDPOINT ENDPOINT");
	at = parse_endpoint("--bind", argv[3]);
	to = parse_endpoint("endpoint", argv[4]);
	if (!strcmp(argv[1], "send"))
		return do_send(&at, &to);
	if (!strcmp(argv[1], "fork") || !strcmp(argv[1], "pass"))
		return do_hand(argv[1][0] == 'p', &at, &to);
	die("usage: hand fork|pass|send --bind ENDPOINT ENDPOINT");
}
