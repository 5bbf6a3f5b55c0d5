/* SPDX-License-Identifier: BSD-2-Clause */
#include "metrics.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

#include "clock.h"
#include "metrics_socket.h"

/* Where to listen, as a configuration said it. */
struct place {
	struct config_metrics where; /* .listen NULL: nowhere */
	char *group;                 /* of a Unix socket's file; NULL: none */
};

struct connection {
	int fd;          /* -1: this row is free */
	uint64_t cut_ns; /* SLUICE_NEVER: has been cut off */
};

/* One listening socket and whoever is connected. */
struct server {
	struct metrics *metrics;
	struct place place;
	struct metrics_socket socket;
	struct MHD_Daemon *mhd;
	int mhd_fd;
	struct connection *connections;
};

struct metrics {
	struct metrics_opts opts;
	struct metrics_limits limits;
	int epoll_fd;
	struct server *server; /* NULL: it listens nowhere */
	bool awake;            /* the server's events wake the loop */
	bool busy;             /* the server has something to do without any event */
	bool ended;            /* a connection ended in this turn */
	uint64_t rests_ns;     /* until then */
	/* What metrics_start() could not do: NULL .listen: nothing. */
	struct place wanted;
	uint64_t retry_ns;
	/* Between metrics_prepare() and what follows it. */
	bool prepared;
	struct server *next; /* NULL: nowhere from now on, or where it is already (same) */
	bool same;
	struct place next_place;
	/* The last text; and what it answers otherwise. */
	struct MHD_Response *text, *not_found, *not_allowed, *no_memory;
	uint64_t gathered_ns;
};

__attribute__((format(printf, 3, 4))) static void note(const struct metrics *m, int priority,
						       const char *fmt, ...)
{
	char text[ERRTEXT_LEN];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	m->opts.note(m->opts.arg, priority, "metrics", text);
}

/* ---- places ---- */

static void place_done(struct place *p)
{
	free(p->where.listen);
	free(p->group);
	*p = (struct place){ 0 };
}

static int place_init(struct place *p, const struct config_metrics *where, const char *group)
{
	*p = (struct place){ .where = *where };
	if (!where->listen)
		return 0;
	p->where.listen = strdup(where->listen);
	p->group = group ? strdup(group) : NULL;
	if (!p->where.listen || (group && !p->group)) {
		place_done(p);
		return -ENOMEM;
	}
	if (where->path)
		p->where.path = p->where.listen + (where->path - where->listen);
	return 0;
}

/* ---- what is answered ---- */

/* Takes body, which is for free(), unless it is fixed. */
static struct MHD_Response *response_new(char *body, size_t len, bool fixed, const char *type)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(
		len, body, fixed ? MHD_RESPMEM_PERSISTENT : MHD_RESPMEM_MUST_FREE);

	if (!r) {
		if (!fixed)
			free(body);
		return NULL;
	}
	if (MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type) != MHD_YES ||
	    MHD_add_response_header(r, MHD_HTTP_HEADER_CONNECTION, "close") != MHD_YES) {
		MHD_destroy_response(r);
		return NULL;
	}
	return r;
}

static struct MHD_Response *response_plain(const char *body)
{
	return response_new((char *)body, strlen(body), true, "text/plain; charset=utf-8");
}

/* The text, made anew if the last one is too old. NULL without memory. */
static struct MHD_Response *text_now(struct metrics *m)
{
	uint64_t now_ns = clock_boot_ns();
	struct metrics_text *t;
	char *body;
	size_t len;
	int r;

	if (m->text && now_ns - m->gathered_ns < m->limits.fresh_ms * NS_PER_MS)
		return m->text;
	t = metrics_text_new();
	if (!t)
		return NULL;
	m->opts.gather(m->opts.arg, now_ns, t);
	r = metrics_text_finish(t, &body, &len);
	metrics_text_free(t);
	if (r < 0)
		return NULL;
	/* Those that are being sent have references of their own. */
	if (m->text)
		MHD_destroy_response(m->text);
	m->text = response_new(body, len, false, METRICS_TEXT_TYPE);
	m->gathered_ns = now_ns;
	return m->text;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url,
				  const char *method, const char *version, const char *body,
				  size_t *body_len, void **state)
{
	struct metrics *m = ((struct server *)arg)->metrics;
	struct MHD_Response *text;

	(void)version, (void)body, (void)body_len, (void)state;
	if (strcmp(url, "/metrics") != 0)
		return MHD_queue_response(c, MHD_HTTP_NOT_FOUND, m->not_found);
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return MHD_queue_response(c, MHD_HTTP_METHOD_NOT_ALLOWED, m->not_allowed);
	text = text_now(m);
	if (!text)
		return MHD_queue_response(c, MHD_HTTP_SERVICE_UNAVAILABLE, m->no_memory);
	return MHD_queue_response(c, MHD_HTTP_OK, text);
}

/* ---- connections ---- */

static void on_connection(void *arg, struct MHD_Connection *c, void **state,
			  enum MHD_ConnectionNotificationCode code)
{
	struct server *s = arg;
	const struct metrics_limits *l = &s->metrics->limits;
	struct connection *row = *state;

	if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
		if (row)
			row->fd = -1;
		s->metrics->ended = true;
		return;
	}
	for (unsigned i = 0; i < l->connections; i++) {
		row = &s->connections[i];
		if (row->fd >= 0)
			continue;
		row->fd = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
		row->cut_ns = clock_boot_ns() + l->connection_ms * NS_PER_MS;
		*state = row;
		return;
	}
	/* libmicrohttpd keeps to the limit that the rows were counted by. */
	assert(!"more connections than allowed");
}

/* Those whose time is over end; libmicrohttpd hears of it as if the client had gone. When is the next one's? */
static uint64_t cut_off(struct server *s, uint64_t now_ns)
{
	uint64_t next_ns = SLUICE_NEVER;

	for (unsigned i = 0; i < s->metrics->limits.connections; i++) {
		struct connection *c = &s->connections[i];

		if (c->fd < 0)
			continue;
		if (c->cut_ns <= now_ns) {
			shutdown(c->fd, SHUT_RDWR);
			c->cut_ns = SLUICE_NEVER;
		}
		if (c->cut_ns < next_ns)
			next_ns = c->cut_ns;
	}
	return next_ns;
}

/* ---- servers ---- */

static void server_close(struct server *s)
{
	if (!s)
		return;
	if (s->mhd)
		MHD_stop_daemon(s->mhd);
	metrics_socket_close(&s->socket);
	place_done(&s->place);
	free(s->connections);
	free(s);
}

static int server_listen(struct server *s, struct errtext *err)
{
	const struct metrics_limits *l = &s->metrics->limits;
	const union MHD_DaemonInfo *info;
	int fd = fcntl(s->socket.fd, F_DUPFD_CLOEXEC, 0); /* libmicrohttpd closes its own */

	if (fd < 0)
		return errtext_set(err, errno, "metrics: %s", strerror(errno));
	s->mhd = MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, on_request, s,
				  MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
				  l->connections, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
				  l->connections_per_ip, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
				  (size_t)l->memory, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
				  MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
	if (!s->mhd) {
		close(fd);
		return errtext_set(err, ENOMEM, "metrics: the HTTP server does not start");
	}
	info = MHD_get_daemon_info(s->mhd, MHD_DAEMON_INFO_EPOLL_FD);
	s->mhd_fd = info ? info->epoll_fd : -1;
	if (s->mhd_fd < 0)
		return errtext_set(err, EOPNOTSUPP, "metrics: libmicrohttpd is without epoll");
	return 0;
}

static int server_open(struct metrics *m, const struct place *p, struct server **ret,
		       struct errtext *err)
{
	int beside = m->server && !m->server->place.where.path ? m->server->socket.fd : -1;
	struct server *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return errtext_set(err, ENOMEM, "out of memory");
	s->metrics = m;
	s->socket = (struct metrics_socket){ .fd = -1, .file.fd = -1 };
	s->connections = calloc(m->limits.connections, sizeof(*s->connections));
	if (!s->connections || place_init(&s->place, &p->where, p->group) < 0) {
		server_close(s);
		return errtext_set(err, ENOMEM, "out of memory");
	}
	for (unsigned i = 0; i < m->limits.connections; i++)
		s->connections[i].fd = -1;
	r = metrics_socket_open(&p->where, p->group, beside, &s->socket, err);
	if (!r)
		r = server_listen(s, err);
	if (r < 0)
		server_close(s);
	else
		*ret = s;
	return r;
}

/* The loop's descriptor tells of the server's events, or does not. */
static void wake(struct metrics *m, bool awake)
{
	struct epoll_event ev = { .events = awake ? EPOLLIN : 0 };

	if (m->awake == awake)
		return;
	epoll_ctl(m->epoll_fd, EPOLL_CTL_MOD, m->server->mhd_fd, &ev);
	m->awake = awake;
}

/* From now on it listens by s (taken); NULL: not at all. */
static void server_use(struct metrics *m, struct server *s)
{
	struct epoll_event ev = { .events = EPOLLIN };
	char listen[128];

	if (m->server) {
		epoll_ctl(m->epoll_fd, EPOLL_CTL_DEL, m->server->mhd_fd, NULL);
		snprintf(listen, sizeof(listen), "%s", m->server->place.where.listen);
		server_close(m->server);
		if (!s)
			note(m, LOG_NOTICE, "no metrics at %s any more", listen);
	}
	m->server = s;
	m->awake = true;
	m->busy = false;
	m->rests_ns = 0;
	if (!s)
		return;
	/* Without memory for it nobody is served, and the daemon has greater sorrows. */
	if (epoll_ctl(m->epoll_fd, EPOLL_CTL_ADD, s->mhd_fd, &ev) < 0)
		note(m, LOG_ERR, "metrics: epoll_ctl: %s", strerror(errno));
	note(m, LOG_NOTICE, "metrics at %s", s->place.where.listen);
	if (metrics_socket_public(&s->place.where))
		note(m, LOG_WARNING,
		     "metrics at %s can be read by whoever reaches this address: there is no "
		     "authentication",
		     s->place.where.listen);
}

/* ---- start, reload, end ---- */

int metrics_open(const struct metrics_opts *o, struct metrics **ret, struct errtext *err)
{
	struct metrics *m = calloc(1, sizeof(*m));

	if (!m)
		return errtext_set(err, ENOMEM, "out of memory");
	m->opts = *o;
	m->limits = o->limits ? *o->limits : (struct metrics_limits)METRICS_LIMITS;
	m->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	m->not_found = response_plain("Not here: /metrics\n");
	m->not_allowed = response_plain("Only GET and HEAD\n");
	m->no_memory = response_plain("Out of memory\n");
	if (m->epoll_fd < 0 || !m->not_found || !m->not_allowed || !m->no_memory ||
	    MHD_add_response_header(m->not_allowed, MHD_HTTP_HEADER_ALLOW, "GET, HEAD") !=
		    MHD_YES) {
		metrics_close(m);
		return errtext_set(err, ENOMEM, "metrics: out of memory or descriptors");
	}
	*ret = m;
	return 0;
}

static void response_free(struct MHD_Response *r)
{
	if (r)
		MHD_destroy_response(r);
}

void metrics_close(struct metrics *m)
{
	if (!m)
		return;
	metrics_cancel(m);
	server_close(m->server);
	place_done(&m->wanted);
	response_free(m->text);
	response_free(m->not_found);
	response_free(m->not_allowed);
	response_free(m->no_memory);
	if (m->epoll_fd >= 0)
		close(m->epoll_fd);
	free(m);
}

/* Does the configuration say what is so, or is being tried, already? */
static bool is_same(const struct metrics *m, const struct place *p)
{
	const struct place *now = m->server ? &m->server->place : &m->wanted;

	if (m->server && !metrics_socket_there(&m->server->socket))
		return false;
	if (!now->where.listen || !p->where.listen)
		return now->where.listen == p->where.listen;
	return !strcmp(now->where.listen, p->where.listen);
}

int metrics_prepare(struct metrics *m, const struct config *c, struct errtext *err)
{
	int r = 0;

	metrics_cancel(m);
	if (place_init(&m->next_place, &c->metrics, c->access.group) < 0)
		return errtext_set(err, ENOMEM, "out of memory");
	m->same = is_same(m, &m->next_place);
	if (!m->same && m->next_place.where.listen)
		r = server_open(m, &m->next_place, &m->next, err);
	if (r < 0) {
		errtext_prefix(err, "%s:%u: ", c->path, c->metrics.line);
		place_done(&m->next_place);
		return r;
	}
	m->prepared = true;
	return 0;
}

void metrics_cancel(struct metrics *m)
{
	server_close(m->next);
	place_done(&m->next_place);
	m->next = NULL;
	m->prepared = false;
}

/* The same place, perhaps with another group. */
static void keep(struct metrics *m)
{
	struct server *s = m->server;
	struct place *now = s ? &s->place : &m->wanted;
	struct errtext err;

	if (s && s->place.where.path &&
	    control_socket_set_group(&s->socket.file, m->next_place.group, &err) < 0)
		note(m, LOG_ERR, "metrics: %s", err.s);
	place_done(now);
	*now = m->next_place;
	m->next_place = (struct place){ 0 };
}

void metrics_commit(struct metrics *m)
{
	assert(m->prepared);
	if (m->same) {
		keep(m);
	} else {
		place_done(&m->wanted);
		server_use(m, m->next);
		m->next = NULL;
	}
	metrics_cancel(m);
}

void metrics_start(struct metrics *m, const struct config *c)
{
	struct errtext err;

	if (metrics_prepare(m, c, &err) == 0) {
		metrics_commit(m);
		return;
	}
	note(m, LOG_ERR, "%s; trying again", err.s);
	server_use(m, NULL);
	/* Without memory even for that, there are no metrics until the next reload. */
	place_done(&m->wanted);
	place_init(&m->wanted, &c->metrics, c->access.group);
	m->retry_ns = clock_boot_ns() + m->limits.retry_ms * NS_PER_MS;
}

/* ---- the loop ---- */

int metrics_fd(const struct metrics *m)
{
	return m->epoll_fd;
}

static void serve(struct metrics *m)
{
	uint64_t began_ns = clock_boot_ns(), ended_ns;
	MHD_UNSIGNED_LONG_LONG ms;

	m->ended = false;
	MHD_run(m->server->mhd);
	/*
	 * It has no timeouts, so that the only one to be heard of is 0: there is more to do. And after a connection has ended, it has to run once more to accept others, if there were too
	 * many before.
	 */
	m->busy = m->ended || MHD_get_timeout(m->server->mhd, &ms) == MHD_YES;
	ended_ns = clock_boot_ns();
	m->rests_ns = ended_ns + (ended_ns - began_ns) * m->limits.rest;
	wake(m, false);
}

void metrics_ready(struct metrics *m, uint64_t now_ns)
{
	if (m->server && m->rests_ns <= now_ns)
		serve(m);
}

static void try_again(struct metrics *m, uint64_t now_ns)
{
	struct server *s;
	struct errtext err;

	m->retry_ns = now_ns + m->limits.retry_ms * NS_PER_MS;
	if (server_open(m, &m->wanted, &s, &err) < 0)
		return; /* has been said */
	place_done(&m->wanted);
	server_use(m, s);
}

void metrics_tick(struct metrics *m, uint64_t now_ns, uint64_t *ret_next_ns)
{
	uint64_t next_ns = SLUICE_NEVER;

	if (!m->server && m->wanted.where.listen) {
		if (m->retry_ns <= now_ns)
			try_again(m, now_ns);
		if (!m->server)
			next_ns = m->retry_ns;
	}
	if (m->server) {
		next_ns = cut_off(m->server, now_ns);
		if (m->rests_ns <= now_ns) {
			if (m->busy)
				serve(m);
			else
				wake(m, true);
		}
		if (m->rests_ns > now_ns && m->rests_ns < next_ns)
			next_ns = m->rests_ns;
	}
	*ret_next_ns = next_ns;
}
