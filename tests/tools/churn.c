/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections without end: opened in any order, to any of a few places, closed in every way there is.
 *
 *   churn serve PORT-PORT
 *       Serves TCP and UDP on these ports of every address. Answers each message with its number, and with the address and port that it came from.
 *       {"event":"ready"}
 *
 *   churn load --to ADDR-ADDR:PORT-PORT [--from ADDR[-ADDR]] [--ports A-B] [--count N] [--rate N] [--open N] [--hold MS] [--udp PERCENT] [--timeout S]
 *              [--closes LETTERS] [--user N] [--seed N] [--moved FILE]
 *       Makes --count attempts (default 10000), at most --rate a second (default 0: as fast as can be) and --open at a time (default 1000), to places drawn from --to, each bound
 *       to a source drawn from --from and, with --ports, to a port drawn from them (address and port may be taken: then another one is drawn). Each sends its number (from --user up, default 1),
 *       waits for the answer, stays for up to --hold ms (default 50), and closes in one of the ways of --closes (default "frsRhH": FIN, reset, server's FIN, server's Reset, half, Hasty reset).
 *       {"event":"report","attempts":N,"ok":N,"hasty":N,"wrong":N,"hung":N,"moved":N,"no_port":N,"errors":{"ECONNRESET":N},"seconds":S}
 *         ok       answered with its own number
 *         hasty    closed before an answer
 *         wrong    another's answer
 *         hung     no answer within --timeout (default 10 s)
 *         moved    those of ok that the server saw come from another port than they were bound to (only with --ports)
 *         no_port  no port of --ports was free for the socket in 64 tries: no attempt, and not counted as one
 *       --moved writes a line for each of them: {"proto":"tcp","bound":N,"wire":N,"dst":"A","dport":N,"user":N}, and for each that hung, with "wire":0.
 *       SIGTERM: no more attempts; what is open is finished. Exit status 0 if nothing was wrong or hung.
 */
#include "churn.h"
#include "tool.h"

#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS     256
#define ERRNO_MAX  256
#define BIND_TRIES 64
#define LISTEN     4096
#define RESEND_NS  1000000000ULL
#define LOOK_NS    20000000ULL /* how often an open connection is looked at */

struct spread { /* addresses (host order) and ports */
	uint32_t addr, n_addr;
	uint16_t port, port_last;
};

static int epfd;

static void watch(int fd, uint32_t events, void *what, int op)
{
	struct epoll_event ev = { .events = events, .data.ptr = what };

	if (epoll_ctl(epfd, op, fd, &ev) < 0)
		die("epoll_ctl: %s", strerror(errno));
}

static int open_socket(int type)
{
	int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;

	if (fd < 0)
		die("socket: %s", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	return fd;
}

static void reset(int fd)
{
	struct linger l = { 1, 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	close(fd);
}

/* ---------------------------------------------------------------------------------------- serve */

struct served {
	int fd;
	enum { LISTENER, DATAGRAMS, CONNECTION } kind;
	size_t got;
	bool answered;
	struct churn_message m;
};

static struct served *served_new(int fd, int kind)
{
	struct served *s = calloc(1, sizeof(*s));

	if (!s)
		die("out of memory");
	s->fd = fd;
	s->kind = kind;
	watch(fd, EPOLLIN, s, EPOLL_CTL_ADD);
	return s;
}

static void answer_fill(struct churn_message *m, const struct sockaddr_in *from)
{
	m->magic = CHURN_ANSWERS;
	m->addr_be = from->sin_addr.s_addr;
	m->port_be = from->sin_port;
}

static void serve_datagrams(struct served *s)
{
	for (int i = 0; i < 64; i++) {
		struct sockaddr_in from;
		struct iovec iov = { &s->m, sizeof(s->m) };
		char control[CMSG_SPACE(sizeof(struct in_pktinfo))];
		struct msghdr h = { .msg_name = &from,
				    .msg_namelen = sizeof(from),
				    .msg_iov = &iov,
				    .msg_iovlen = 1,
				    .msg_control = control,
				    .msg_controllen = sizeof(control) };
		struct cmsghdr *c;

		if (recvmsg(s->fd, &h, 0) != sizeof(s->m))
			return;
		if (s->m.magic != CHURN_ASKS)
			continue;
		answer_fill(&s->m, &from);
		/* Back from the address that was asked: the control message serves as it is, but for the interface. */
		c = CMSG_FIRSTHDR(&h);
		if (c) {
			struct in_pktinfo info;

			memcpy(&info, CMSG_DATA(c), sizeof(info));
			info.ipi_ifindex = 0;
			info.ipi_spec_dst = info.ipi_addr;
			memcpy(CMSG_DATA(c), &info, sizeof(info));
		}
		sendmsg(s->fd, &h, 0);
	}
}

static void serve_end(struct served *s, bool abruptly)
{
	if (abruptly)
		reset(s->fd);
	else
		close(s->fd);
	free(s);
}

static void serve_connection(struct served *s)
{
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	char end;

	if (s->answered) {
		if (recv(s->fd, &end, 1, 0) <= 0)
			serve_end(s, false);
		return;
	}
	for (;;) {
		ssize_t n = recv(s->fd, (char *)&s->m + s->got, sizeof(s->m) - s->got, 0);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			serve_end(s, false);
			return;
		}
		s->got += (size_t)n;
		if (s->got == sizeof(s->m))
			break;
	}
	if (s->m.magic != CHURN_ASKS || getpeername(s->fd, (struct sockaddr *)&from, &len) < 0) {
		serve_end(s, true);
		return;
	}
	answer_fill(&s->m, &from);
	if (send(s->fd, &s->m, sizeof(s->m), MSG_NOSIGNAL) != sizeof(s->m)) {
		serve_end(s, true);
		return;
	}
	s->answered = true;
	if (s->m.close == CHURN_SERVER_FIN)
		shutdown(s->fd, SHUT_WR);
	/* A reset right after the answer would overtake it: the opener asks for it by closing its side. */
	if (s->m.close == CHURN_SERVER_RESET) {
		struct linger l = { 1, 0 };

		setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	}
}

static void serve_accept(const struct served *s)
{
	for (int i = 0; i < 64; i++) {
		int fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0)
			return;
		served_new(fd, CONNECTION);
	}
}

static int serve(const char *ports)
{
	struct sockaddr_in any = { .sin_family = AF_INET };
	struct epoll_event ev[EVENTS];
	uint16_t first, last;
	int on = 1;

	parse_ports("serve", ports, &first, &last);
	for (uint32_t p = first; p <= last; p++) {
		int tcp = open_socket(SOCK_STREAM), udp = open_socket(SOCK_DGRAM);

		any.sin_port = htons((uint16_t)p);
		setsockopt(udp, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on));
		if (bind(tcp, (struct sockaddr *)&any, sizeof(any)) < 0 ||
		    listen(tcp, LISTEN) < 0 || bind(udp, (struct sockaddr *)&any, sizeof(any)) < 0)
			die("port %u: %s", p, strerror(errno));
		served_new(tcp, LISTENER);
		served_new(udp, DATAGRAMS);
	}
	puts("{\"event\":\"ready\"}");
	fflush(stdout);
	while (!tool_stopped) {
		int n = epoll_wait(epfd, ev, EVENTS, 1000);

		for (int i = 0; i < n; i++) {
			struct served *s = ev[i].data.ptr;

			if (s->kind == LISTENER)
				serve_accept(s);
			else if (s->kind == DATAGRAMS)
				serve_datagrams(s);
			else
				serve_connection(s);
		}
	}
	return 0;
}

/* ----------------------------------------------------------------------------------------- load */

enum stage { IDLE, ASKING, STAYING, CLOSING };

struct conn {
	int fd;
	enum stage stage;
	bool udp, sent;
	uint16_t bound; /* host order; 0: the kernel's choice */
	uint64_t user;
	enum churn_close close;
	struct sockaddr_in to;
	size_t got;
	struct churn_message m;
	uint64_t began_ns, asked_ns, due_ns; /* due: the end of the stay */
	struct conn *next;                   /* on a list of a wheel's place */
};

/* What is due, by milliseconds. */
#define WHEEL 16384

static struct {
	struct spread to, from;
	bool has_from, has_ports;
	uint16_t first, last;
	uint64_t count, rate, open, hold_ms, udp_percent, timeout_s, user, seed;
	const char *closes;
	FILE *moved;
} opt = { .count = 10000,
	  .open = 1000,
	  .hold_ms = 50,
	  .timeout_s = 10,
	  .user = 1,
	  .seed = 1,
	  .closes = "frsRhH" };

static struct {
	uint64_t attempts, ok, hasty, wrong, hung, moved, no_port;
	uint64_t errors[ERRNO_MAX];
} rep;

static struct conn *wheel[WHEEL], *idle;
static uint64_t wheel_ms, n_open, begin_ns;

static uint64_t draw(uint64_t n)
{
	/* xorshift64*, Vigna 2016. */
	opt.seed ^= opt.seed >> 12;
	opt.seed ^= opt.seed << 25;
	opt.seed ^= opt.seed >> 27;
	return opt.seed * 0x2545f4914f6cdd1dULL % n;
}

static uint64_t now_ms(void)
{
	return (now_ns() - begin_ns) / 1000000;
}

/* Waits of up to WHEEL ms; a longer one is looked at in between. */
static void wheel_put(struct conn *c, uint64_t due_ns)
{
	uint64_t at = (due_ns - begin_ns) / 1000000 + 1;

	if (at <= wheel_ms)
		at = wheel_ms + 1;
	if (at >= wheel_ms + WHEEL)
		at = wheel_ms + WHEEL - 1;
	c->next = wheel[at % WHEEL];
	wheel[at % WHEEL] = c;
}

static void moved_note(const struct conn *c, uint16_t wire)
{
	char dst[INET_ADDRSTRLEN];

	if (opt.moved)
		fprintf(opt.moved,
			"{\"proto\":\"%s\",\"bound\":%u,\"wire\":%u,\"dst\":\"%s\",\"dport\":%u,"
			"\"user\":%llu}\n",
			c->udp ? "udp" : "tcp", c->bound, wire,
			inet_ntop(AF_INET, &c->to.sin_addr, dst, sizeof(dst)),
			ntohs(c->to.sin_port), (unsigned long long)c->user);
}

/* The socket is closed; the place becomes free when the wheel comes by. */
static void conn_done(struct conn *c, bool abruptly)
{
	if (abruptly)
		reset(c->fd);
	else
		close(c->fd);
	c->fd = -1;
	c->stage = IDLE;
	n_open--;
}

static void conn_error(struct conn *c, int err)
{
	rep.errors[err > 0 && err < ERRNO_MAX ? err : 0]++;
	conn_done(c, false);
}

static void conn_ask(struct conn *c)
{
	struct churn_message m = { .magic = CHURN_ASKS, .close = c->close, .user = c->user };
	ssize_t n = send(c->fd, &m, sizeof(m), MSG_NOSIGNAL);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n < 0) {
		conn_error(c, errno);
		return;
	}
	c->sent = true;
	c->asked_ns = now_ns();
	if (c->close == CHURN_HASTY && !c->udp) {
		rep.hasty++;
		conn_done(c, true);
		return;
	}
	watch(c->fd, EPOLLIN, c, EPOLL_CTL_MOD);
}

static void conn_answered(struct conn *c)
{
	uint16_t wire = ntohs(c->m.port_be);

	if (c->m.magic != CHURN_ANSWERS || c->m.user != c->user) {
		rep.wrong++;
		conn_done(c, true);
		return;
	}
	rep.ok++;
	if (c->bound && wire != c->bound) {
		rep.moved++;
		moved_note(c, wire);
	}
	c->stage = STAYING;
	c->due_ns = now_ns() + draw(opt.hold_ms + 1) * 1000000;
}

static void conn_read(struct conn *c)
{
	while (c->stage == ASKING) {
		ssize_t n = recv(c->fd, (char *)&c->m + c->got, sizeof(c->m) - c->got, 0);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			conn_error(c, n ? errno : EPIPE);
			return;
		}
		c->got += (size_t)n;
		if (c->got == sizeof(c->m))
			conn_answered(c);
	}
	if (c->stage == CLOSING) {
		char end;

		if (recv(c->fd, &end, 1, 0) <= 0 && errno != EAGAIN)
			conn_done(c, false);
	} else if (c->stage == STAYING) {
		/* The server's end comes when it pleases: it is dealt with when the stay is over. */
		watch(c->fd, 0, c, EPOLL_CTL_MOD);
	}
}

static void conn_close(struct conn *c)
{
	if (c->udp) {
		conn_done(c, false);
		return;
	}
	switch (c->close) {
	case CHURN_RESET:
	case CHURN_HASTY:
		conn_done(c, true);
		break;
	case CHURN_HALF:
	case CHURN_SERVER_RESET:
	case CHURN_SERVER_FIN:
		shutdown(c->fd, SHUT_WR);
		c->stage = CLOSING;
		watch(c->fd, EPOLLIN, c, EPOLL_CTL_MOD);
		break;
	default:
		conn_done(c, false);
		break;
	}
}

static void conn_due(struct conn *c, uint64_t now)
{
	switch (c->stage) {
	case IDLE:
		c->next = idle;
		idle = c;
		return;
	case ASKING:
	case CLOSING:
		if (now - c->began_ns > opt.timeout_s * 1000000000) {
			/* A close that is not finished has been answered all the same. */
			if (c->stage == ASKING) {
				rep.hung++;
				moved_note(c, 0);
			}
			conn_done(c, true);
			break;
		}
		if (c->stage == ASKING && c->udp && now - c->asked_ns > RESEND_NS)
			conn_ask(c);
		wheel_put(c, now + LOOK_NS);
		return;
	case STAYING:
		if (now >= c->due_ns)
			conn_close(c);
		break;
	}
	wheel_put(c, c->stage == STAYING ? c->due_ns : now + LOOK_NS);
}

static void wheel_turn(void)
{
	uint64_t to = now_ms(), now = now_ns();

	while (wheel_ms < to) {
		struct conn *c, *next;

		wheel_ms++;
		c = wheel[wheel_ms % WHEEL];
		wheel[wheel_ms % WHEEL] = NULL;
		for (; c; c = next) {
			next = c->next;
			conn_due(c, now);
		}
	}
}

/* To a port of --ports that is free for this destination. 0, or an error that ends the attempt. */
static int conn_open(struct conn *c)
{
	struct sockaddr_in from = { .sin_family = AF_INET };
	int one = 1;

	for (int i = 0; i < BIND_TRIES; i++) {
		c->fd = open_socket(c->udp ? SOCK_DGRAM : SOCK_STREAM);
		if (!c->udp)
			setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		c->bound = 0;
		if (opt.has_from)
			from.sin_addr.s_addr =
				htonl(opt.from.addr + (uint32_t)draw(opt.from.n_addr));
		if (opt.has_ports)
			c->bound = (uint16_t)(opt.first + draw((uint64_t)opt.last - opt.first + 1));
		from.sin_port = htons(c->bound);
		/* Sockets of UDP must not share a port: the kernel would give one the other's datagrams. */
		if (c->udp) {
			int off = 0;

			setsockopt(c->fd, SOL_SOCKET, SO_REUSEADDR, &off, sizeof(off));
		}
		if ((!opt.has_from && !opt.has_ports) ||
		    bind(c->fd, (struct sockaddr *)&from, sizeof(from)) == 0) {
			if (connect(c->fd, (struct sockaddr *)&c->to, sizeof(c->to)) == 0 ||
			    errno == EINPROGRESS)
				return 0;
		}
		if (errno != EADDRINUSE && errno != EADDRNOTAVAIL) {
			int err = errno;

			close(c->fd);
			return -err;
		}
		close(c->fd);
	}
	return -EADDRNOTAVAIL;
}

static void conn_begin(struct conn *c)
{
	static const char letters[] = "frsRhH";
	uint64_t now = now_ns();
	int r;

	memset(c, 0, sizeof(*c));
	c->udp = draw(100) < opt.udp_percent;
	c->close =
		(enum churn_close)(strchr(letters, opt.closes[draw(strlen(opt.closes))]) - letters);
	c->user = opt.user + rep.attempts;
	c->to.sin_family = AF_INET;
	c->to.sin_addr.s_addr = htonl(opt.to.addr + (uint32_t)draw(opt.to.n_addr));
	c->to.sin_port =
		htons((uint16_t)(opt.to.port + draw((uint64_t)opt.to.port_last - opt.to.port + 1)));
	c->began_ns = now;
	r = conn_open(c);
	if (r == -EADDRNOTAVAIL) {
		rep.no_port++;
		c->next = idle;
		idle = c;
		return;
	}
	rep.attempts++;
	if (r < 0) {
		rep.errors[-r < ERRNO_MAX ? -r : 0]++;
		c->next = idle;
		idle = c;
		return;
	}
	c->stage = ASKING;
	n_open++;
	watch(c->fd, EPOLLOUT | EPOLLIN, c, EPOLL_CTL_ADD);
	wheel_put(c, now + LOOK_NS);
}

static void parse_addrs(const char *what, const char *text, struct spread *ret)
{
	char buf[64], *dash;
	struct sockaddr_storage a, b;

	snprintf(buf, sizeof(buf), "%s", text);
	dash = strchr(buf, '-');
	if (dash)
		*dash++ = '\0';
	if (sa_parse_host(buf, &a) || (dash && sa_parse_host(dash, &b)))
		die("%s: \"%s\" is not ADDR or ADDR-ADDR", what, text);
	ret->addr = sa_low(&a);
	ret->n_addr = dash ? sa_low(&b) - sa_low(&a) + 1 : 1;
	if (!ret->n_addr || ret->n_addr > 65536)
		die("%s: \"%s\" is no range of addresses", what, text);
}

static void report(void)
{
	bool any = false;

	printf("{\"event\":\"report\",\"attempts\":%llu,\"ok\":%llu,\"hasty\":%llu,\"wrong\":%llu,"
	       "\"hung\":%llu,"
	       "\"moved\":%llu,\"no_port\":%llu,\"errors\":{",
	       (unsigned long long)rep.attempts, (unsigned long long)rep.ok,
	       (unsigned long long)rep.hasty, (unsigned long long)rep.wrong,
	       (unsigned long long)rep.hung, (unsigned long long)rep.moved,
	       (unsigned long long)rep.no_port);
	for (int i = 0; i < ERRNO_MAX; i++)
		if (rep.errors[i]) {
			printf("%s\"%s\":%llu", any ? "," : "", errno_name(i),
			       (unsigned long long)rep.errors[i]);
			any = true;
		}
	printf("},\"seconds\":%.3f}\n", (double)(now_ns() - begin_ns) / 1e9);
	fflush(stdout);
}

static int load(void)
{
	struct epoll_event ev[EVENTS];
	struct conn *all = calloc(opt.open, sizeof(*all));

	if (!all)
		die("out of memory");
	for (uint64_t i = 0; i < opt.open; i++) {
		all[i].next = idle;
		idle = &all[i];
	}
	begin_ns = now_ns();
	while ((rep.attempts < opt.count && !tool_stopped) || n_open) {
		uint64_t allowed = opt.rate ? now_ms() * opt.rate / 1000 : UINT64_MAX;
		int n;

		for (int i = 0; i < 64 && idle && !tool_stopped && rep.attempts < opt.count &&
				rep.attempts < allowed;
		     i++) {
			struct conn *c = idle;

			idle = c->next;
			conn_begin(c);
		}
		n = epoll_wait(epfd, ev, EVENTS, opt.rate || !idle || tool_stopped ? 1 : 0);
		for (int i = 0; i < n; i++) {
			struct conn *c = ev[i].data.ptr;

			if (c->stage == ASKING && !c->sent) {
				int err = 0;
				socklen_t len = sizeof(err);

				getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len);
				if (err)
					conn_error(c, err);
				else if (ev[i].events & EPOLLOUT)
					conn_ask(c);
			} else if (c->stage != IDLE) {
				conn_read(c);
			}
		}
		wheel_turn();
	}
	report();
	if (opt.moved)
		fclose(opt.moved);
	free(all);
	return rep.wrong || rep.hung;
}

int main(int argc, char **argv)
{
	bool serving = argc == 3 && !strcmp(argv[1], "serve");
	char *colon;

	tool_catch_signals();
	tool_raise_files();
	epfd = epoll_create1(EPOLL_CLOEXEC);
	if (epfd < 0)
		die("epoll_create1: %s", strerror(errno));
	if (serving)
		return serve(argv[2]);
	if (argc < 4 || strcmp(argv[1], "load"))
		die("usage: churn serve PORT-PORT, or churn load --to ADDR-ADDR:PORT-PORT "
		    "[OPTION...]");
	for (int i = 2; i + 1 < argc; i += 2) {
		const char *name = argv[i];
		char *value = argv[i + 1];

		if (!strcmp(name, "--to")) {
			colon = strchr(value, ':');
			if (!colon)
				die("--to: \"%s\" is not ADDR-ADDR:PORT-PORT", value);
			*colon = '\0';
			parse_addrs(name, value, &opt.to);
			parse_ports(name, colon + 1, &opt.to.port, &opt.to.port_last);
		} else if (!strcmp(name, "--from")) {
			parse_addrs(name, value, &opt.from);
			opt.has_from = true;
		} else if (!strcmp(name, "--ports")) {
			parse_ports(name, value, &opt.first, &opt.last);
			opt.has_ports = true;
		} else if (!strcmp(name, "--count")) {
			opt.count = parse_number(name, value, 1, UINT32_MAX);
		} else if (!strcmp(name, "--rate")) {
			opt.rate = parse_number(name, value, 0, 1000000);
		} else if (!strcmp(name, "--open")) {
			opt.open = parse_number(name, value, 1, 60000);
		} else if (!strcmp(name, "--hold")) {
			opt.hold_ms = parse_number(name, value, 0, WHEEL / 2);
		} else if (!strcmp(name, "--udp")) {
			opt.udp_percent = parse_number(name, value, 0, 100);
		} else if (!strcmp(name, "--timeout")) {
			opt.timeout_s = parse_number(name, value, 1, 600);
		} else if (!strcmp(name, "--closes")) {
			if (!*value || strspn(value, "frsRhH") != strlen(value))
				die("--closes: \"%s\" is not made of f, r, s, R, h, H", value);
			opt.closes = value;
		} else if (!strcmp(name, "--user")) {
			opt.user = parse_number(name, value, 1, UINT64_MAX / 2);
		} else if (!strcmp(name, "--seed")) {
			opt.seed = parse_number(name, value, 1, UINT64_MAX / 2);
		} else if (!strcmp(name, "--moved")) {
			opt.moved = fopen(value, "we");
			if (!opt.moved)
				die("%s: %s", value, strerror(errno));
		} else {
			die("churn: unknown option \"%s\"", name);
		}
	}
	if (!opt.to.n_addr)
		die("churn load: --to is missing");
	return load();
}
