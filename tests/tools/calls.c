/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How many calls a second does a control socket answer, and what does that cost the server?
 *
 *   calls PATH CLIENTS DEPTH SECONDS METHOD [PARAMETERS]
 *       CLIENTS connections, each with DEPTH calls under way, all the time. PATH "-": a server made by this tool, with the
 *       methods io.test.Nothing, which answers at once, and io.test.Held, whose answers wait until all calls of a
 *       dispatch were carried out. PARAMETERS: a JSON object.
 *
 *   {"event":"calls","calls":1000000,"errors":0,"seconds":5.0,"per_second":200000,"server_cpu":0.45,
 *    "server_ns":2250,"p50_us":310,"p99_us":500,"max_us":2000}
 *   server_cpu: cores that the server used; server_ns: of it, for each call; p50_us and so on: from a call to its answer.
 */
#include "tool.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control.h"

#define CLIENTS_MAX 256
#define DEPTH_MAX   256
#define BUF_SIZE    65536
#define LATENCIES   (1 << 20) /* as many of the last ones are looked at */

struct client {
	int fd;
	char *out;                   /* DEPTH calls and one more */
	size_t at;                   /* in the first one: what is to be sent next */
	size_t owed;                 /* bytes to be sent */
	uint64_t sent_ns[DEPTH_MAX]; /* in a ring */
	unsigned first, under_way;
	bool error;
};

static struct client clients[CLIENTS_MAX];
static uint32_t latencies_us[LATENCIES];
static uint64_t calls, errors;

/* ---- a server ---- */

static int method_nothing(struct control_call *call, void *data)
{
	(void)data;
	return control_reply(call, json_object());
}

static int method_held(struct control_call *call, void *data)
{
	(void)data;
	return control_reply_held(call, json_object(), -1);
}

static const struct control_method methods[] = {
	{ "Nothing", method_nothing, "" },
	{ "Held", method_held, "" },
};

static void serve(const int *fds, unsigned n)
{
	struct control_limits limits = CONTROL_LIMITS;
	struct control_options o = {
		.interface = "io.test",
		.description = "",
		.methods = methods,
		.n_methods = sizeof(methods) / sizeof(methods[0]),
		.limits = &limits,
	};
	struct errtext err = { 0 };
	struct control *s;

	limits.clients = limits.clients_uid = CLIENTS_MAX;
	if (control_open(&o, &s, &err) < 0)
		die("%s", err.s);
	for (unsigned i = 0; i < n; i++)
		if (control_adopt(s, fds[i]) < 0)
			die("client %u is refused", i);
	for (;;) {
		struct pollfd p = { .fd = control_fd(s), .events = POLLIN };

		poll(&p, 1, -1);
		if (control_dispatch(s) < 0)
			die("the server is broken");
		control_settle(s, true, NULL);
	}
}

/* Returns the server's pid. */
static pid_t start_server(unsigned n)
{
	int theirs[CLIENTS_MAX];
	pid_t pid;

	for (unsigned i = 0; i < n; i++) {
		int fds[2];

		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
			die("socketpair: %s", strerror(errno));
		clients[i].fd = fds[0];
		theirs[i] = fds[1];
	}
	pid = fork();
	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (unsigned i = 0; i < n; i++)
			close(clients[i].fd);
		serve(theirs, n);
	}
	for (unsigned i = 0; i < n; i++)
		close(theirs[i]);
	return pid;
}

static pid_t connect_all(const char *path, unsigned n)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct ucred cred = { 0 };
	socklen_t len = sizeof(cred);

	if (strlen(path) >= sizeof(sa.sun_path))
		die("%s: too long", path);
	strcpy(sa.sun_path, path);
	for (unsigned i = 0; i < n; i++) {
		clients[i].fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (connect(clients[i].fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
			die("connect %s: %s", path, strerror(errno));
	}
	/* Whoever listens. */
	getsockopt(clients[0].fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
	return cred.pid;
}

/* Processor time that a process has used. */
static uint64_t cpu_ns(pid_t pid)
{
	char path[64];
	unsigned long long ns = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
	f = fopen(path, "re");
	if (!f || fscanf(f, "%llu", &ns) != 1)
		die("%s: %s", path, strerror(errno));
	fclose(f);
	return ns;
}

/* ---- the clients ---- */

/* n more calls. */
static void send_calls(struct client *c, unsigned n, size_t len, uint64_t now)
{
	c->owed += n * len;
	for (unsigned i = 0; i < n; i++)
		c->sent_ns[(c->first + c->under_way++) % DEPTH_MAX] = now;
	while (c->owed > 0) {
		/* All calls are the same, so from one place in them follows what comes next. */
		ssize_t sent = send(c->fd, c->out + c->at, c->owed, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent < 0 && errno == EAGAIN)
			return;
		if (sent < 0)
			die("send: %s", strerror(errno));
		c->owed -= (size_t)sent;
		c->at = (c->at + (size_t)sent) % len;
	}
}

/* Count answers, each of which ends with a NUL. */
static unsigned receive(struct client *c, uint64_t now)
{
	char buf[BUF_SIZE];
	unsigned n = 0;
	ssize_t r = recv(c->fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (r == 0)
		die("the server has hung up");
	if (r < 0)
		return 0;
	for (const char *p = buf, *end = buf + r, *nul; p < end; p = nul + 1) {
		nul = memchr(p, '\0', (size_t)(end - p));
		c->error |= memmem(p, (size_t)((nul ? nul : end) - p), "\"error\"", 7) != NULL;
		if (!nul)
			break;
		errors += c->error;
		c->error = false;
		latencies_us[calls++ % LATENCIES] = (uint32_t)((now - c->sent_ns[c->first]) / 1000);
		c->first = (c->first + 1) % DEPTH_MAX;
		c->under_way--;
		n++;
	}
	return n;
}

static int by_size(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void run(unsigned n, unsigned depth, uint64_t end_ns, size_t len)
{
	struct epoll_event ev[CLIENTS_MAX];
	int ep = epoll_create1(EPOLL_CLOEXEC);

	for (unsigned i = 0; i < n; i++) {
		struct epoll_event e = { .events = EPOLLIN, .data.ptr = &clients[i] };

		epoll_ctl(ep, EPOLL_CTL_ADD, clients[i].fd, &e);
		send_calls(&clients[i], depth, len, now_ns());
	}
	while (!tool_stopped) {
		int got = epoll_wait(ep, ev, CLIENTS_MAX, 100);
		uint64_t now = now_ns();

		if (now >= end_ns)
			break;
		for (int i = 0; i < got; i++) {
			struct client *c = ev[i].data.ptr;

			send_calls(c, receive(c, now), len, now);
		}
		for (unsigned i = 0; i < n; i++)
			if (clients[i].owed)
				send_calls(&clients[i], 0, len, now);
	}
	close(ep);
}

int main(int argc, char **argv)
{
	unsigned n, depth, seconds;
	uint64_t start, end, cpu;
	size_t len, kept;
	char *call;
	pid_t pid;
	bool own;

	tool_catch_signals();
	tool_raise_files();
	if (argc < 6)
		die("usage: calls PATH|- CLIENTS DEPTH SECONDS METHOD [PARAMETERS]");
	n = (unsigned)parse_number("clients", argv[2], 1, CLIENTS_MAX);
	depth = (unsigned)parse_number("depth", argv[3], 1, DEPTH_MAX);
	seconds = (unsigned)parse_number("seconds", argv[4], 1, 3600);
	if (asprintf(&call, "{\"method\":\"%s\",\"parameters\":%s}", argv[5],
		     argc > 6 ? argv[6] : "{}") < 0)
		die("out of memory");
	len = strlen(call) + 1;
	if (len * depth > BUF_SIZE)
		die("that is too much at a time");
	for (unsigned i = 0; i < n; i++) {
		clients[i].out = malloc(len * (depth + 1));
		if (!clients[i].out)
			die("out of memory");
		for (unsigned k = 0; k <= depth; k++)
			memcpy(clients[i].out + k * len, call, len);
	}
	own = !strcmp(argv[1], "-");
	pid = own ? start_server(n) : connect_all(argv[1], n);
	start = now_ns();
	cpu = cpu_ns(pid);
	run(n, depth, start + seconds * 1000000000ULL, len);
	end = now_ns();
	cpu = cpu_ns(pid) - cpu;
	kept = calls < LATENCIES ? calls : LATENCIES;
	qsort(latencies_us, kept, sizeof(latencies_us[0]), by_size);
	if (!calls)
		die("no answer");
	printf("{\"event\":\"calls\",\"calls\":%llu,\"errors\":%llu,\"seconds\":%.3f,\"per_"
	       "second\":"
	       "%.0f,\"server_cpu\":%.3f,\"server_ns\":%.0f,\"p50_us\":%u,\"p99_us\":%u,\"max_us\":"
	       "%u}\n",
	       (unsigned long long)calls, (unsigned long long)errors, (double)(end - start) / 1e9,
	       (double)calls * 1e9 / (double)(end - start), (double)cpu / (double)(end - start),
	       (double)cpu / (double)calls, latencies_us[kept / 2], latencies_us[kept * 99 / 100],
	       latencies_us[kept - 1]);
	if (own) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return 0;
}
