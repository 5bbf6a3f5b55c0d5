/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The connections of the control socket. One dispatch goes: receive (a recvmsg() for a client that
 * has nothing else to do), turns (the clients with something to do, in a queue, each with a
 * budget), timer. A client is freed only at the end of a turn, or when the answers that it waited
 * for are settled.
 */
#include "control.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "clock.h"
#include "control_priv.h"

#define EVENTS_A_DISPATCH  128
#define ACCEPTS_A_DISPATCH 8
#define DEAF_MS            1000
#define ARMED_NOW          1

/* clang-format off */
__asm__(".pushsection .rodata\n"
	".globl control_io_sluice\n"
	".type control_io_sluice, %object\n"
	"control_io_sluice:\n"
	".incbin \"src/io.sluice.varlink\"\n"
	".byte 0\n"
	".size control_io_sluice, . - control_io_sluice\n"
	".popsection\n");
/* clang-format on */

/* ---- timer ---- */

static void arm(struct control *s, uint64_t at_ms)
{
	struct itimerspec its = { 0 };

	if (at_ms == s->armed_ms)
		return;
	/* A time that has passed fires at once; only an all zero one would disarm. */
	if (at_ms == ARMED_NOW) {
		its.it_value.tv_nsec = 1;
	} else if (at_ms) {
		its.it_value.tv_sec = (time_t)(at_ms / 1000);
		its.it_value.tv_nsec = (long)(at_ms % 1000) * 1000000;
	}
	if (timerfd_settime(s->timer_fd, TFD_TIMER_ABSTIME, &its, NULL) == 0)
		s->armed_ms = at_ms;
	else
		s->armed_ms = UINT64_MAX;
}

/* Have the client served in one of the next dispatches. */
void control_client_enqueue(struct control_client *c)
{
	if (c->queued)
		return;
	TAILQ_INSERT_TAIL(&c->server->turns, c, turn);
	c->queued = true;
	if (!c->server->dispatching)
		arm(c->server, ARMED_NOW);
}

static uint64_t next_deadline(const struct control *s)
{
	uint64_t at = s->deaf_until_ms;
	const struct control_client *c;

	if (!TAILQ_EMPTY(&s->turns))
		return ARMED_NOW;
	TAILQ_FOREACH(c, &s->clients, link)
	{
		uint64_t end = c->half_since_ms + s->limits.half_message_ms;

		if (c->half_since_ms && (at == 0 || end < at))
			at = end;
	}
	return at;
}

/* ---- clients ---- */

static void client_free(struct control_client *c)
{
	struct control *s = c->server;

	control_client_gone(c);
	control_fd_drop(c);
	varlink_reader_done(&c->in);
	if (c->queued)
		TAILQ_REMOVE(&s->turns, c, turn);
	TAILQ_REMOVE(&s->clients, c, link);
	s->n_clients--;
	s->n_untrusted -= !c->trusted;
	/* It may stay open for a while. */
	epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
	control_fd_hang_up(c->fd);
	free(c);
}

/* The client waits for an answer, or has been given its last one: what it sends can wait. */
static bool client_busy(const struct control_client *c)
{
	return c->closing || c->monitor || c->listing.rows || control_client_full(c);
}

/* Read once, if that is of use. Did something come? */
static bool client_receive(struct control_client *c)
{
	size_t room;
	char *buf;
	ssize_t n;

	if (c->eof || client_busy(c) || varlink_reader_ready(&c->in))
		return false;
	if (c->cred.uid != 0 && control_fd_stuck()) {
		control_client_error(
			c, CONTROL_QUOTA,
			"there are descriptors that clients have sent and that cannot be "
			"closed; until they are, only root is served");
		c->closing = true;
		return false;
	}
	if (varlink_reader_space(&c->in, &buf, &room) < 0) {
		control_client_give_up(c);
		return false;
	}
	n = control_fd_receive(c, buf, room);
	c->in_more = n == (ssize_t)room;
	if (n > 0)
		varlink_reader_fill(&c->in, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		c->eof = true;
	return n > 0;
}

/* Take the next message. False: there is none. */
static bool client_call(struct control_client *c)
{
	const char *msg;
	size_t len;
	int r = varlink_reader_next(&c->in, &msg, &len);

	if (r == 0)
		return false;
	c->half_since_ms = 0;
	if (r > 0) {
		control_call_run(c, msg, len, control_fd_take(c, len + 1));
		return true;
	}
	c->server->stats.bad_messages++;
	control_client_error(c, CONTROL_BAD_MESSAGE, "the message is too long");
	c->closing = true;
	return true;
}

/* The time for half a message runs only while we wait for the rest of it. */
static void client_watch_half(struct control_client *c)
{
	struct control *s = c->server;
	uint64_t now;

	if (c->eof || client_busy(c) || !varlink_reader_half(&c->in)) {
		c->half_since_ms = 0;
		return;
	}
	now = clock_mono_ms();
	if (!c->half_since_ms) {
		c->half_since_ms = now;
	} else if (now - c->half_since_ms >= s->limits.half_message_ms) {
		s->stats.timeouts++;
		c->half_since_ms = 0;
		control_client_error(c, CONTROL_BAD_MESSAGE, "the message did not end in time");
		c->closing = true;
		control_client_flush(c);
	}
}

static void client_wait(struct control_client *c)
{
	struct epoll_event ev = { .data.ptr = c };

	if (!c->eof && !client_busy(c) && !varlink_reader_ready(&c->in))
		ev.events |= EPOLLIN;
	/*
	 * A socket that we could write to, and do not want to yet, would wake us again and again.
	 * An edge means that the peer has read something.
	 */
	if (c->fds_wait)
		ev.events = EPOLLOUT | EPOLLET;
	else if (control_client_sending(c))
		ev.events |= EPOLLOUT;
	if (ev.events == c->events)
		return;
	if (epoll_ctl(c->server->epoll_fd, EPOLL_CTL_MOD, c->fd, &ev) == 0)
		c->events = ev.events;
	else
		control_client_give_up(c);
}

/* Nothing more will come of it. */
static bool client_finished(struct control_client *c)
{
	bool idle = !c->listing.rows && !c->monitor && STAILQ_EMPTY(&c->out);

	if (c->closing)
		return STAILQ_EMPTY(&c->out);
	return c->eof && idle && !varlink_reader_ready(&c->in);
}

void control_client_go_on(struct control_client *c, bool again)
{
	control_client_flush(c);
	client_watch_half(c);
	client_wait(c);
	if (c->closing)
		control_fd_drop(c);
	if (client_finished(c))
		client_free(c);
	else if (again || (!client_busy(c) && varlink_reader_ready(&c->in)) ||
		 (c->listing.rows && !control_client_full(c)))
		control_client_enqueue(c);
}

/* One client's share of the server's time. */
static void client_turn(struct control_client *c)
{
	const struct control_limits *limits = &c->server->limits;
	unsigned calls = limits->calls_a_turn;
	unsigned rows = limits->rows_a_turn;
	bool again = false;

	control_client_flush(c);
	while (!c->closing && !control_client_full(c)) {
		if (c->listing.rows) {
			again = rows == 0;
			if (again)
				break;
			control_listing_run(c, &rows);
		} else if (c->monitor) {
			break;
		} else if (calls == 0) {
			again = varlink_reader_ready(&c->in);
			break;
		} else if (client_call(c)) {
			calls--;
		} else if (!c->in_more || !client_receive(c)) {
			break;
		}
	}
	control_client_go_on(c, again);
}

int control_adopt(struct control *s, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN };
	struct control_client *c;
	struct ucred cred;
	socklen_t len = sizeof(cred);
	char why[256];
	bool trusted;
	int r;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	trusted = control_peer_trusted(s, fd, cred.uid, cred.gid);
	if (!control_peer_admit(s, cred.uid, trusted, why, sizeof(why))) {
		control_peer_refuse(s, fd, why);
		return -EMFILE;
	}
	c = calloc(1, sizeof(*c));
	if (!c) {
		close(fd);
		return -ENOMEM;
	}
	c->server = s;
	c->fd = fd;
	c->cred = cred;
	c->trusted = trusted;
	c->events = ev.events;
	STAILQ_INIT(&c->out);
	varlink_reader_init(&c->in, s->limits.message_max);
	ev.data.ptr = c;
	if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
		r = -errno;
		free(c);
		close(fd);
		return r;
	}
	TAILQ_INSERT_TAIL(&s->clients, c, link);
	s->n_clients++;
	s->n_untrusted += !trusted;
	s->stats.accepted++;
	return 0;
}

/* ---- the server ---- */

static int listen_wait(struct control *s, bool on)
{
	struct epoll_event ev = { .events = on ? EPOLLIN : 0, .data.ptr = &s->socket };

	return epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, s->socket.fd, &ev) < 0 ? -errno : 0;
}

static int accept_some(struct control *s)
{
	for (unsigned i = 0; i < ACCEPTS_A_DISPATCH; i++) {
		int fd = accept4(s->socket.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			control_adopt(s, fd);
			continue;
		}
		if (errno == EAGAIN)
			return 0;
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		/* Out of descriptors or memory: the connection stays where it is. Don't spin. */
		s->deaf_until_ms = clock_mono_ms() + DEAF_MS;
		return listen_wait(s, false);
	}
	return 0;
}

static int timer_fired(struct control *s)
{
	struct control_client *c;
	uint64_t now = clock_mono_ms();

	/* The timer stays readable until it is set anew. */
	if (s->armed_ms != ARMED_NOW)
		s->armed_ms = UINT64_MAX;
	TAILQ_FOREACH(c, &s->clients, link)
	{
		if (c->half_since_ms && now - c->half_since_ms >= s->limits.half_message_ms)
			control_client_enqueue(c);
	}
	if (s->deaf_until_ms && now >= s->deaf_until_ms) {
		s->deaf_until_ms = 0;
		return listen_wait(s, true);
	}
	return 0;
}

static void client_event(struct control_client *c, uint32_t events)
{
	/* Both directions are shut: a reply could not arrive. */
	if ((events & (EPOLLHUP | EPOLLERR)) && !c->gone)
		control_client_gone(c);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		client_receive(c);
	control_client_enqueue(c);
}

static int dispatch(struct control *s)
{
	struct epoll_event ev[EVENTS_A_DISPATCH];
	struct control_client *c;
	uint64_t end_ms;
	int n, r;

	n = epoll_wait(s->epoll_fd, ev, EVENTS_A_DISPATCH, 0);
	if (n < 0 && errno != EINTR)
		return -errno;
	for (int i = 0; i < n; i++) {
		r = 0;
		if (ev[i].data.ptr == &s->socket)
			r = accept_some(s);
		else if (ev[i].data.ptr == &s->timer_fd)
			r = timer_fired(s);
		else
			client_event(ev[i].data.ptr, ev[i].events);
		if (r < 0)
			return r;
	}
	end_ms = clock_mono_ms() + s->limits.dispatch_ms;
	for (unsigned i = 0; i < s->limits.turns_a_dispatch; i++) {
		c = TAILQ_FIRST(&s->turns);
		if (!c)
			break;
		TAILQ_REMOVE(&s->turns, c, turn);
		c->queued = false;
		client_turn(c);
		if (clock_mono_ms() >= end_ms)
			break;
	}
	arm(s, next_deadline(s));
	return 0;
}

int control_dispatch(struct control *s)
{
	int r;

	s->dispatching = true;
	r = dispatch(s);
	s->dispatching = false;
	return r;
}

int control_fd(const struct control *s)
{
	return s->epoll_fd;
}

/*
 * Take the group; the name is ours from here on. Who is no longer in it must not go on to listen.
 */
static void group_take(struct control *s, char *name, gid_t gid)
{
	struct control_client *c;

	free(s->group);
	s->group = name;
	s->gid = gid;
	TAILQ_FOREACH(c, &s->clients, link)
	{
		bool was = c->trusted;

		c->trusted = control_peer_trusted(s, c->fd, c->cred.uid, c->cred.gid);
		s->n_untrusted += was && !c->trusted;
		s->n_untrusted -= !was && c->trusted;
		if (was && !c->trusted && (c->monitor || c->listing.rows)) {
			control_client_give_up(c);
			control_client_enqueue(c);
		}
	}
}

int control_set_group(struct control *s, const char *group, struct errtext *err)
{
	char *name = NULL;
	gid_t gid = 0;
	int r = 0;

	if (group) {
		r = control_socket_group(group, &gid, err);
		if (r < 0)
			return r;
		name = strdup(group);
		if (!name)
			return errtext_set(err, ENOMEM, "out of memory");
	}
	if (s->socket.fd >= 0)
		r = control_socket_set_group(&s->socket, group, err);
	if (r < 0)
		free(name);
	else
		group_take(s, name, gid);
	return r;
}

int control_check(const char *path, const char *group, struct errtext *err)
{
	return control_socket_check(path, group, err);
}

static int add_fd(struct control *s, int fd, void *tag)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = tag };

	return epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

int control_open(const struct control_options *o, struct control **ret, struct errtext *err)
{
	struct control *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return errtext_set(err, ENOMEM, "out of memory");
	*s = (struct control){
		.socket.fd = -1,
		.limits = o->limits ? *o->limits : (struct control_limits)CONTROL_LIMITS,
		.interface = o->interface,
		.description = o->description,
		.methods = o->methods,
		.n_methods = o->n_methods,
		.data = o->data,
		.seal = 1,
	};
	TAILQ_INIT(&s->clients);
	TAILQ_INIT(&s->turns);
	TAILQ_INIT(&s->holds);
	s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	s->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	r = s->epoll_fd < 0 || s->timer_fd < 0 ? -errno : add_fd(s, s->timer_fd, &s->timer_fd);
	if (r < 0)
		errtext_set(err, -r, "cannot prepare the control socket: %s", strerror(-r));
	if (r == 0)
		r = control_set_group(s, o->group, err);
	if (r == 0 && o->path)
		r = control_socket_open(o->path, o->group, o->open, &s->socket, err);
	if (r == 0 && o->path) {
		r = add_fd(s, s->socket.fd, &s->socket);
		if (r < 0)
			errtext_set(err, -r, "cannot wait for the control socket: %s",
				    strerror(-r));
	}
	if (r < 0) {
		control_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

void control_close(struct control *s)
{
	struct control_client *c;

	if (!s)
		return;
	while ((c = TAILQ_FIRST(&s->clients))) {
		control_client_flush(c);
		client_free(c);
	}
	control_socket_close(&s->socket);
	if (s->timer_fd >= 0)
		close(s->timer_fd);
	if (s->epoll_fd >= 0)
		close(s->epoll_fd);
	free(s->group);
	free(s);
}

json_t *control_stats(const struct control *s)
{
	return json_pack(
		"{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "clients",
		(json_int_t)s->n_clients, "monitors", (json_int_t)s->n_monitors, "accepted",
		(json_int_t)s->stats.accepted, "refused", (json_int_t)s->stats.refused, "calls",
		(json_int_t)s->stats.calls, "bad_messages", (json_int_t)s->stats.bad_messages,
		"timeouts", (json_int_t)s->stats.timeouts, "events_lost",
		(json_int_t)s->stats.events_lost, "fds_refused", (json_int_t)s->stats.fds_refused);
}
