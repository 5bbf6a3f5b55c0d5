/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Many connections at once to an echo server ("talk echo"), each one checked with data of its own.
 *
 *   many [--udp] [--from ADDR[-ADDR]] [--ports A-B] [--size BYTES] [--timeout S] [--burst N] [--hold]
 *        [--traffic MS] [--reset] COUNT ENDPOINT
 *
 * Opens COUNT connections, at most --burst (default 512) in the making at a time, and keeps all of them
 * open. Sources go round the addresses of --from, then through --ports. When every one is open or has
 * failed, all of them exchange a message of --size bytes (default 64) whose content only this
 * connection and this sequence number give:
 *   {"event":"open","wanted":2000,"established":2000,"failed":0,"errors":{}}
 *   {"event":"verify","ok":2000,"lost":0,"wrong":0,"broken":0,"silent":0,"errors":{}}
 * A UDP "connection" is a connected socket; it counts as established when its first echo is back.
 *
 * With --hold it then takes commands from stdin: "verify" (again, all of them), "start" (every
 * connection exchanges a message each --traffic milliseconds, default 100, until "stop"), "stop"
 * (waits for what is under way, then reports), "status" (a report without stopping), "quit".
 *   {"event":"traffic","seconds":5.0,"connections":2000,"sent":N,"answered":N,"lost":0,"wrong":0,
 *    "broken":0,"silent":0,"longest_ms":12.5,"errors":{}}
 * --traffic MS without "start" begins at once after the first check. SIGTERM or the end of stdin stops the
 * traffic, reports it, and ends the program.
 *
 *   lost    UDP messages that were not answered in time. TCP has no such thing.
 *   wrong   answers with another connection's or another message's content
 *   broken  connections that ended, by errors' names in "errors" (EPIPE: closed by the other side)
 *   silent  TCP connections whose last message was not answered in time, though nothing broke
 *
 * Exit status 0 if all were established and nothing was ever lost, wrong, broken or silent, else 1.
 */
#include "tool.h"

#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

#define MSG_MIN     32
#define MSG_MAX     4096
#define ERRNO_MAX   256
#define TICK_MS     5
#define UDP_LOST_NS 2000000000ULL

enum state {
	UNUSED,
	CONNECTING,
	OPEN,
	FAILED, /* never was established */
	BROKEN,
};

struct conn {
	int fd;
	enum state state;
	bool waiting;    /* the message seq is under way */
	bool want_write; /* EPOLLOUT is asked for */
	uint32_t index;
	uint32_t put, got; /* bytes of the message written, bytes of the answer seen */
	uint64_t seq;      /* of the last message begun; the first is 1 */
	uint64_t sent_ns;
	uint64_t due_ns; /* traffic: when the next message begins */
};

/* What happened since the last report. */
struct tally {
	uint64_t sent, answered, lost, wrong, broken, silent, late;
	uint64_t longest_ns;
	uint64_t errors[ERRNO_MAX];
};

static struct {
	bool udp, hold, reset, traffic, traffic_now;
	uint32_t count, burst, size;
	uint64_t timeout_ns, interval_ns;
	struct sockaddr_storage to, from;
	bool has_from;
	uint32_t from_n;
	uint16_t port_first, port_last;
} opt = {
	.burst = 512,
	.size = 64,
	.timeout_ns = 10000000000ULL,
	.interval_ns = 100000000ULL,
};

static struct conn *conns;
static struct tally tally;
static uint64_t run_id;
static uint64_t traffic_start_ns;
static int epfd;
static bool all_good = true;

/* --------------------------------------------------------------------------------------- content */

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

/* The message seq of connection index: who it is in clear, then bytes that depend on all of it. */
static void fill_message(uint8_t *msg, uint32_t index, uint64_t seq)
{
	uint64_t key = mix(run_id ^ mix(((uint64_t)index << 32) ^ seq));
	uint64_t head[3] = { run_id, index, seq };

	memcpy(msg, head, sizeof(head));
	for (uint32_t i = sizeof(head); i < opt.size; i++) {
		if (i % 8 == 0)
			key = mix(key);
		msg[i] = (uint8_t)(key >> (i % 8 * 8));
	}
}

/* ----------------------------------------------------------------------------------- connections */

static void conn_watch(struct conn *c, bool write)
{
	struct epoll_event ev = { .events = EPOLLIN | (write ? EPOLLOUT : 0), .data.ptr = c };

	if (c->want_write == write)
		return;
	c->want_write = write;
	if (epoll_ctl(epfd, EPOLL_CTL_MOD, c->fd, &ev))
		die("epoll_ctl: %s", strerror(errno));
}

static void count_errno(int err)
{
	tally.errors[err > 0 && err < ERRNO_MAX ? err : 0]++;
}

static void conn_end(struct conn *c, int err)
{
	count_errno(err);
	if (c->state == OPEN) {
		c->state = BROKEN;
		tally.broken++;
	} else {
		c->state = FAILED;
	}
	c->waiting = false;
	close(c->fd);
	c->fd = -1;
}

static void conn_write(struct conn *c)
{
	uint8_t msg[MSG_MAX];

	fill_message(msg, c->index, c->seq);
	while (c->put < opt.size) {
		ssize_t n = send(c->fd, msg + c->put, opt.size - c->put, MSG_NOSIGNAL);

		if (n >= 0) {
			c->put += (uint32_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN) {
			conn_watch(c, true);
			return;
		}
		if (opt.udp && c->state == OPEN) {
			/* An ICMP error for an earlier datagram, or no buffer: this message is lost. */
			count_errno(errno);
			c->put = opt.size;
			break;
		}
		conn_end(c, errno);
		return;
	}
	conn_watch(c, false);
}

static void conn_begin(struct conn *c, uint64_t now)
{
	c->seq++;
	c->put = c->got = 0;
	c->waiting = true;
	c->sent_ns = now;
	tally.sent++;
	conn_write(c);
}

static void conn_answered(struct conn *c)
{
	uint64_t took_ns = now_ns() - c->sent_ns;

	c->waiting = false;
	tally.answered++;
	if (took_ns > tally.longest_ns)
		tally.longest_ns = took_ns;
}

static void conn_read_datagram(struct conn *c, const uint8_t *buf, size_t len)
{
	uint8_t want[MSG_MAX];
	uint64_t head[3];

	fill_message(want, c->index, c->seq);
	if (c->waiting && len == opt.size && !memcmp(buf, want, len)) {
		if (c->state == CONNECTING)
			c->state = OPEN;
		conn_answered(c);
		return;
	}
	if (len == opt.size) {
		memcpy(head, buf, sizeof(head));
		if (head[0] == run_id && head[1] == c->index && head[2] <= c->seq) {
			fill_message(want, c->index, head[2]);
			if (!memcmp(buf, want, len)) {
				tally.late++; /* our own, already counted as lost, or twice */
				return;
			}
		}
	}
	tally.wrong++;
}

static void conn_read_stream(struct conn *c, const uint8_t *buf, size_t len)
{
	uint8_t want[MSG_MAX];

	if (!c->waiting || len > opt.size - c->got) {
		tally.wrong++;
		return;
	}
	fill_message(want, c->index, c->seq);
	if (memcmp(buf, want + c->got, len))
		tally.wrong++;
	c->got += (uint32_t)len;
	if (c->got == opt.size)
		conn_answered(c);
}

static void conn_read(struct conn *c)
{
	static uint8_t buf[65536];

	for (;;) {
		ssize_t n = recv(c->fd, buf, sizeof(buf), 0);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			if (errno == EAGAIN)
				return;
			if (opt.udp && c->state == OPEN) {
				count_errno(errno);
				continue;
			}
			conn_end(c, errno);
			return;
		}
		if (opt.udp) {
			conn_read_datagram(c, buf, (size_t)n);
			continue;
		}
		if (n == 0) {
			conn_end(c, EPIPE);
			return;
		}
		conn_read_stream(c, buf, (size_t)n);
		if ((size_t)n < sizeof(buf))
			return;
	}
}

static void conn_connected(struct conn *c)
{
	int err = 0;
	socklen_t len = sizeof(err);

	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len);
	if (err) {
		conn_end(c, err);
		return;
	}
	c->state = OPEN;
	conn_watch(c, false);
}

static void conn_open(struct conn *c, uint32_t index)
{
	struct epoll_event ev = { .events = EPOLLIN | (opt.udp ? 0 : EPOLLOUT), .data.ptr = c };
	struct linger abort_close = { .l_onoff = 1 };
	int on = 1;

	c->index = index;
	c->state = CONNECTING;
	c->want_write = !opt.udp;
	c->fd = socket(opt.to.ss_family,
		       (opt.udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		die("socket: %s", strerror(errno));
	if (opt.reset)
		setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &abort_close, sizeof(abort_close));
	if (!opt.udp)
		setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (opt.has_from) {
		struct sockaddr_storage sa = opt.from;
		uint32_t ports = (uint32_t)opt.port_last - opt.port_first + 1;

		sa_set_low(&sa, sa_low(&opt.from) + index % opt.from_n);
		sa_set_port(&sa,
			    (uint16_t)(opt.port_first ? opt.port_first + index / opt.from_n % ports
						      : 0));
		/* Not for UDP: the kernel would give two sockets one port. */
		if (!opt.udp)
			setsockopt(c->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (!opt.port_first && !opt.udp)
			setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
		if (bind(c->fd, (struct sockaddr *)&sa, sa_len(&sa))) {
			conn_end(c, errno);
			return;
		}
	}
	if (epoll_ctl(epfd, EPOLL_CTL_ADD, c->fd, &ev))
		die("epoll_ctl: %s", strerror(errno));
	if (connect(c->fd, (struct sockaddr *)&opt.to, sa_len(&opt.to)) && errno != EINPROGRESS) {
		conn_end(c, errno);
		return;
	}
	if (opt.udp)
		conn_begin(c, now_ns());
}

/* Wait up to wait_ms for packets and handle them. */
static void pump(int wait_ms)
{
	struct epoll_event evs[512];
	int n = epoll_wait(epfd, evs, 512, wait_ms);

	for (int i = 0; i < n; i++) {
		struct conn *c = evs[i].data.ptr;

		if (c->state == CONNECTING && !opt.udp) {
			conn_connected(c);
			continue;
		}
		if (evs[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
			conn_read(c);
		if (c->fd >= 0 && c->waiting && evs[i].events & EPOLLOUT)
			conn_write(c);
	}
}

/* --------------------------------------------------------------------------------------- reports */

static void print_errors(void)
{
	const char *sep = "";

	printf("\"errors\":{");
	for (int e = 0; e < ERRNO_MAX; e++) {
		if (!tally.errors[e])
			continue;
		printf("%s\"%s\":%llu", sep, errno_name(e), (unsigned long long)tally.errors[e]);
		sep = ",";
	}
	printf("}}\n");
	fflush(stdout);
}

static uint32_t count_state(enum state state)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < opt.count; i++)
		n += conns[i].state == state;
	return n;
}

static void tally_clear(void)
{
	if (tally.lost || tally.wrong || tally.broken || tally.silent)
		all_good = false;
	memset(&tally, 0, sizeof(tally));
}

/* Give up on messages that wait for longer than limit_ns. */
static void expire(uint64_t limit_ns)
{
	uint64_t now = now_ns();

	for (uint32_t i = 0; i < opt.count; i++) {
		struct conn *c = &conns[i];

		if (c->state != OPEN || !c->waiting || now - c->sent_ns < limit_ns)
			continue;
		if (opt.udp) {
			tally.lost++;
			c->waiting = false;
		} else if (limit_ns == 0) {
			tally.silent++;
		}
	}
}

static bool anything_waits(void)
{
	for (uint32_t i = 0; i < opt.count; i++)
		if (conns[i].state == OPEN && conns[i].waiting)
			return true;
	return false;
}

/* Let what is under way come home, for as long as --timeout allows; count what does not. */
static void settle(void)
{
	uint64_t deadline_ns = now_ns() + opt.timeout_ns;

	while (anything_waits() && now_ns() < deadline_ns)
		pump(TICK_MS);
	expire(0);
}

static void open_all(void)
{
	uint64_t deadline_ns = now_ns() + opt.timeout_ns;
	uint32_t started = 0, done = 0;

	while (done < opt.count && !tool_stopped) {
		uint32_t in_flight = 0;

		done = 0;
		for (uint32_t i = 0; i < started; i++) {
			in_flight += conns[i].state == CONNECTING;
			done += conns[i].state != CONNECTING;
		}
		while (started < opt.count && in_flight < opt.burst) {
			conn_open(&conns[started], started);
			in_flight += conns[started++].state == CONNECTING;
		}
		if (now_ns() > deadline_ns)
			break;
		if (in_flight)
			pump(TICK_MS);
	}
	for (uint32_t i = 0; i < started; i++)
		if (conns[i].state == CONNECTING)
			conn_end(&conns[i], ETIMEDOUT);
	printf("{\"event\":\"open\",\"wanted\":%u,\"established\":%u,\"failed\":%u,", opt.count,
	       count_state(OPEN), opt.count - count_state(OPEN));
	print_errors();
	if (count_state(OPEN) != opt.count)
		all_good = false;
	tally_clear();
}

static void verify_all(void)
{
	uint64_t deadline_ns = now_ns() + opt.timeout_ns;
	uint32_t next = 0, in_flight = 0;

	/* In bursts, so that the check does not lose datagrams in its own buffers. */
	while (next < opt.count && now_ns() < deadline_ns) {
		in_flight = 0;
		for (uint32_t i = 0; i < next; i++)
			in_flight += conns[i].state == OPEN && conns[i].waiting;
		while (next < opt.count && in_flight < opt.burst) {
			if (conns[next].state == OPEN && !conns[next].waiting) {
				conn_begin(&conns[next], now_ns());
				in_flight++;
			}
			next++;
		}
		pump(TICK_MS);
	}
	settle();
	printf("{\"event\":\"verify\",\"ok\":%llu,\"lost\":%llu,\"wrong\":%llu,\"broken\":%llu,"
	       "\"silent\":%llu,",
	       (unsigned long long)tally.answered, (unsigned long long)tally.lost,
	       (unsigned long long)tally.wrong, (unsigned long long)tally.broken,
	       (unsigned long long)tally.silent);
	print_errors();
	tally_clear();
}

/* --------------------------------------------------------------------------------------- traffic */

static void traffic_start(void)
{
	traffic_start_ns = now_ns();
	for (uint32_t i = 0; i < opt.count; i++)
		conns[i].due_ns = traffic_start_ns + opt.interval_ns * i / opt.count;
	opt.traffic = true;
}

static void traffic_tick(void)
{
	uint64_t now = now_ns();

	if (opt.udp)
		expire(UDP_LOST_NS);
	for (uint32_t i = 0; i < opt.count; i++) {
		struct conn *c = &conns[i];

		if (c->state != OPEN || c->waiting || now < c->due_ns)
			continue;
		c->due_ns = now + opt.interval_ns;
		conn_begin(c, now);
	}
}

static void traffic_report(void)
{
	printf("{\"event\":\"traffic\",\"seconds\":%.3f,\"connections\":%u,\"sent\":%llu,"
	       "\"answered\":%llu,\"lost\":%llu,\"late\":%llu,\"wrong\":%llu,\"broken\":%llu,"
	       "\"silent\":%llu,\"longest_ms\":%.1f,",
	       (double)(now_ns() - traffic_start_ns) / 1e9, count_state(OPEN),
	       (unsigned long long)tally.sent, (unsigned long long)tally.answered,
	       (unsigned long long)tally.lost, (unsigned long long)tally.late,
	       (unsigned long long)tally.wrong, (unsigned long long)tally.broken,
	       (unsigned long long)tally.silent, (double)tally.longest_ns / 1e6);
	print_errors();
}

static void traffic_stop(void)
{
	if (!opt.traffic)
		return;
	opt.traffic = false;
	settle();
	traffic_report();
	tally_clear();
}

/* -------------------------------------------------------------------------------------- commands */

static bool run_command(const char *line)
{
	if (!strcmp(line, "verify"))
		verify_all();
	else if (!strcmp(line, "start"))
		traffic_start();
	else if (!strcmp(line, "stop"))
		traffic_stop();
	else if (!strcmp(line, "status"))
		traffic_report();
	else if (!strcmp(line, "quit"))
		return false;
	else
		fprintf(stderr, "many: unknown command \"%s\"\n", line);
	return true;
}

/* Run the complete lines that are there. false: it is time to end. */
static bool read_commands(void)
{
	static char buf[256];
	static size_t len;
	struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
	char *nl;
	ssize_t n;

	if (poll(&p, 1, 0) <= 0)
		return true;
	n = read(STDIN_FILENO, buf + len, sizeof(buf) - 1 - len);
	if (n <= 0)
		return n < 0 && (errno == EINTR || errno == EAGAIN);
	len += (size_t)n;
	buf[len] = '\0';
	while ((nl = strchr(buf, '\n'))) {
		*nl = '\0';
		if (!run_command(buf))
			return false;
		len -= (size_t)(nl + 1 - buf);
		memmove(buf, nl + 1, len + 1);
	}
	if (len == sizeof(buf) - 1)
		die("command too long");
	return true;
}

static void parse_from(char *text)
{
	struct sockaddr_storage last;
	char *dash = strchr(text, '-');

	if (dash)
		*dash = '\0';
	if (sa_parse_host(text, &opt.from))
		die("--from: \"%s\" is not an address", text);
	opt.has_from = true;
	opt.from_n = 1;
	if (!dash)
		return;
	if (sa_parse_host(dash + 1, &last) || last.ss_family != opt.from.ss_family ||
	    sa_low(&last) < sa_low(&opt.from))
		die("--from: \"%s\" is not an address after \"%s\"", dash + 1, text);
	opt.from_n = sa_low(&last) - sa_low(&opt.from) + 1;
}

static void parse_options(int argc, char **argv)
{
	int i;

	for (i = 1; i < argc && argv[i][0] == '-'; i++) {
		const char *name = argv[i];
		bool has_value = i + 1 < argc;

		if (!strcmp(name, "--udp"))
			opt.udp = true;
		else if (!strcmp(name, "--hold"))
			opt.hold = true;
		else if (!strcmp(name, "--reset"))
			opt.reset = true;
		else if (!strcmp(name, "--from") && has_value)
			parse_from(argv[++i]);
		else if (!strcmp(name, "--ports") && has_value)
			parse_ports(name, argv[++i], &opt.port_first, &opt.port_last);
		else if (!strcmp(name, "--size") && has_value)
			opt.size = (uint32_t)parse_number(name, argv[++i], MSG_MIN, MSG_MAX);
		else if (!strcmp(name, "--timeout") && has_value)
			opt.timeout_ns = parse_number(name, argv[++i], 1, 3600) * 1000000000;
		else if (!strcmp(name, "--burst") && has_value)
			opt.burst = (uint32_t)parse_number(name, argv[++i], 1, 1 << 20);
		else if (!strcmp(name, "--traffic") && has_value) {
			opt.interval_ns = parse_number(name, argv[++i], 1, 60000) * 1000000;
			opt.traffic_now = true;
		} else
			die("many: unknown option \"%s\", or one without its value", name);
	}
	if (i + 2 != argc)
		die("usage: many [OPTION...] COUNT ENDPOINT");
	opt.count = (uint32_t)parse_number("COUNT", argv[i], 1, 1 << 20);
	opt.to = parse_endpoint("ENDPOINT", argv[i + 1]);
	if (opt.port_first && !opt.has_from)
		die("many: --ports needs --from");
	if (opt.has_from && opt.from.ss_family != opt.to.ss_family)
		die("many: --from and ENDPOINT are of two families");
}

int main(int argc, char **argv)
{
	parse_options(argc, argv);
	tool_catch_signals();
	tool_raise_files();
	if (getrandom(&run_id, sizeof(run_id), 0) != sizeof(run_id))
		die("getrandom: %s", strerror(errno));
	epfd = epoll_create1(EPOLL_CLOEXEC);
	conns = calloc(opt.count, sizeof(*conns));
	if (epfd < 0 || !conns)
		die("out of memory");
	open_all();
	verify_all();
	if (opt.traffic_now)
		traffic_start();
	while ((opt.hold || opt.traffic) && !tool_stopped && read_commands()) {
		if (opt.traffic)
			traffic_tick();
		pump(TICK_MS);
	}
	traffic_stop();
	tally_clear(); /* what broke while nothing was asked counts as well */
	for (uint32_t i = 0; i < opt.count; i++)
		if (conns[i].state == OPEN || conns[i].state == CONNECTING)
			close(conns[i].fd);
	free(conns);
	return all_good ? 0 : 1;
}
