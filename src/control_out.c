/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What goes out on the control socket: each client's queue, with answers that wait for control_settle() and descriptors, and the events
 * that are shared by those who monitor.
 */
#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "clock.h"
#include "control.h"
#include "control_priv.h"

#define SEND_IOV      64
#define SENDS_A_FLUSH 32
/*
 * The kernel wakes us when the peer has read, but for a byte that it takes off its account only then. No message is as small as this,
 * with what the kernel counts around it.
 */
#define OUTQ_NOTHING 64

static void msg_unref(struct control_msg *m)
{
	if (--m->refs > 0)
		return;
	free(m->text);
	free(m);
}

/* Takes text. NULL without memory. */
static struct control_msg *msg_new(char *text, size_t len)
{
	struct control_msg *m = malloc(sizeof(*m));

	if (!m) {
		free(text);
		return NULL;
	}
	*m = (struct control_msg){ .refs = 1, .len = len, .text = text };
	return m;
}

static struct control_msg *error_msg(const char *error, const char *text)
{
	json_t *params = json_pack("{s:o}", "text", control_text(text));
	struct control_msg *m = NULL;
	size_t len;
	char *s;

	if (params && varlink_reply_encode(error, params, false, &s, &len) == 0)
		m = msg_new(s, len);
	json_decref(params);
	return m;
}

/* ---- the queue ---- */

static void out_close_fd(struct control_client *c, struct control_out *o)
{
	if (o->fd < 0)
		return;
	close(o->fd);
	o->fd = -1;
	c->out_fds--;
}

static void out_let_go(struct control_client *c, struct control_out *o)
{
	if (!o->held)
		return;
	o->held = 0;
	if (--c->n_held == 0)
		TAILQ_REMOVE(&c->server->holds, c, hold);
}

/* o is not in the queue any more. */
static void out_free(struct control_client *c, struct control_out *o)
{
	out_let_go(c, o);
	out_close_fd(c, o);
	c->out_bytes -= o->msg->len;
	msg_unref(o->msg);
	free(o);
}

static void out_pop(struct control_client *c)
{
	struct control_out *o = STAILQ_FIRST(&c->out);

	STAILQ_REMOVE_HEAD(&c->out, link);
	c->out_off = 0;
	out_free(c, o);
}

/* Another message takes the place of one of which nothing was sent. Takes a reference; NULL: no memory. */
static void out_replace(struct control_client *c, struct control_out *o, struct control_msg *m)
{
	out_close_fd(c, o);
	if (!m) {
		control_client_give_up(c);
		return;
	}
	c->out_bytes += m->len;
	c->out_bytes -= o->msg->len;
	msg_unref(o->msg);
	o->msg = m;
}

/* Nothing can be sent any more. What it has sent is still carried out. */
void control_client_gone(struct control_client *c)
{
	c->gone = true;
	while (!STAILQ_EMPTY(&c->out))
		out_pop(c);
	c->lost = 0;
	c->fds_wait = false;
	control_listing_end(c);
	if (c->monitor) {
		c->monitor = false;
		c->server->n_monitors--;
	}
}

/* Without memory for an answer there is nothing left to say to this client. */
void control_client_give_up(struct control_client *c)
{
	control_client_gone(c);
	c->closing = true;
}

/* Queue m. Takes one reference of m (NULL: no memory). NULL: nothing was queued. */
static struct control_out *out_add(struct control_client *c, struct control_msg *m)
{
	struct control_out *o = m && !c->gone ? malloc(sizeof(*o)) : NULL;

	if (!o) {
		if (m)
			msg_unref(m);
		if (!c->gone)
			control_client_give_up(c);
		return NULL;
	}
	*o = (struct control_out){ .msg = m, .fd = -1 };
	STAILQ_INSERT_TAIL(&c->out, o, link);
	c->out_bytes += m->len;
	return o;
}

void control_client_send(struct control_client *c, char *text, size_t len)
{
	out_add(c, text ? msg_new(text, len) : NULL);
}

void control_client_hold(struct control_client *c, char *text, size_t len, int fd)
{
	struct control_out *o = out_add(c, text ? msg_new(text, len) : NULL);

	if (!o) {
		if (fd >= 0)
			close(fd);
		return;
	}
	o->held = c->server->seal;
	if (c->n_held++ == 0)
		TAILQ_INSERT_TAIL(&c->server->holds, c, hold);
	o->fd = fd;
	c->out_fds += fd >= 0;
}

bool control_client_full(const struct control_client *c)
{
	const struct control_limits *l = &c->server->limits;

	return c->out_bytes > l->queue_low || c->out_fds >= l->fds || c->fds_wait;
}

bool control_client_sending(const struct control_client *c)
{
	return !STAILQ_EMPTY(&c->out) && !STAILQ_FIRST(&c->out)->held;
}

/* ---- sending ---- */

/*
 * May a descriptor leave? What a client does not read stays under way, and the kernel allows a user, here root, no more of those than
 * RLIMIT_NOFILE. A client that does not read must not use them up.
 */
static bool fd_may_leave(struct control_client *c)
{
	int unread;

	c->fds_wait = false;
	if (c->fds_away < c->server->limits.fds)
		return true;
	if (ioctl(c->fd, SIOCOUTQ, &unread) == 0 && unread > OUTQ_NOTHING) {
		c->fds_wait = true;
		return false;
	}
	c->fds_away = 0;
	return true;
}

/*
 * What can leave with one sendmsg(). An answer with a descriptor leaves alone, for a reader must be able to tell whose it is: that of the
 * message that the read's last byte is in.
 */
static size_t gather(const struct control_client *c, struct iovec iov[SEND_IOV])
{
	const struct control_out *o;
	size_t n = 0;

	STAILQ_FOREACH(o, &c->out, link)
	{
		size_t off = n == 0 ? c->out_off : 0;

		if (o->held || (n > 0 && o->fd >= 0))
			break;
		iov[n].iov_base = o->msg->text + off;
		iov[n++].iov_len = o->msg->len - off;
		/* A notice is due right behind a message that is half sent. */
		if (n == SEND_IOV || c->lost || o->fd >= 0)
			break;
	}
	return n;
}

static void attach(struct msghdr *mh, void *buf, size_t size, int fd)
{
	struct cmsghdr *h;

	memset(buf, 0, size);
	mh->msg_control = buf;
	mh->msg_controllen = size;
	h = CMSG_FIRSTHDR(mh);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(h), &fd, sizeof(fd));
}

/* n bytes have left. */
static void sent(struct control_client *c, size_t n)
{
	struct control_out *o = STAILQ_FIRST(&c->out);

	/* The descriptor has gone along with the first byte, however many there were. */
	if (o->fd >= 0) {
		out_close_fd(c, o);
		c->fds_away++;
	}
	while (n > 0) {
		size_t left = STAILQ_FIRST(&c->out)->msg->len - c->out_off;

		if (n < left) {
			c->out_off += n;
			break;
		}
		n -= left;
		out_pop(c);
	}
}

/* One sendmsg() of what may leave. Was all of it taken? */
static bool send_some(struct control_client *c)
{
	struct iovec iov[SEND_IOV];
	struct msghdr mh = { .msg_iov = iov };
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} u;
	struct control_out *o = STAILQ_FIRST(&c->out);
	size_t want = 0;
	ssize_t n;

	if (o->fd >= 0) {
		if (!fd_may_leave(c))
			return false;
		attach(&mh, u.buf, sizeof(u.buf), o->fd);
	}
	mh.msg_iovlen = gather(c, iov);
	for (size_t i = 0; i < mh.msg_iovlen; i++)
		want += iov[i].iov_len;
	if (mh.msg_iovlen == 1 && o->fd < 0) /* as most are, and cheaper */
		n = send(c->fd, iov[0].iov_base, want, MSG_NOSIGNAL | MSG_DONTWAIT);
	else
		n = sendmsg(c->fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n >= 0) {
		sent(c, (size_t)n);
		return (size_t)n == want;
	}
	if (o->fd >= 0 && errno == ETOOMANYREFS)
		out_replace(c, o,
			    error_msg(CONTROL_QUOTA,
				      "too many descriptors are under way to clients "
				      "that do not read their answers; try later"));
	else if (errno != EAGAIN && errno != EINTR && errno != ENOBUFS && errno != ENOMEM)
		control_client_gone(c);
	return false;
}

static struct control_msg *event_msg(json_t *event)
{
	char *text;
	size_t len;

	if (!event || varlink_reply_encode(NULL, event, true, &text, &len) < 0)
		return NULL;
	return msg_new(text, len);
}

/* The notice of what was dropped belongs where the gap is: in front of all events that are left. */
static void out_notice(struct control_client *c)
{
	struct control_out *before = NULL, *o, *notice;
	json_t *event;

	STAILQ_FOREACH(o, &c->out, link)
	{
		if (o->event)
			break;
		before = o;
	}
	/* Of two notices in a row one is enough. */
	if (o && o->lost) {
		c->lost += o->lost;
		STAILQ_REMOVE(&c->out, o, control_out, link);
		out_free(c, o);
	}
	event = json_pack("{s:o, s:s, s:I}", "time", control_time(clock_utc_ms()), "event", "lost",
			  "count", (json_int_t)c->lost);
	notice = out_add(c, event_msg(event));
	json_decref(event);
	if (!notice)
		return;
	notice->event = true;
	notice->lost = c->lost;
	c->lost = 0;
	/* It is at the end by now. */
	STAILQ_REMOVE(&c->out, notice, control_out, link);
	if (before)
		STAILQ_INSERT_AFTER(&c->out, before, notice, link);
	else
		STAILQ_INSERT_HEAD(&c->out, notice, link);
}

void control_client_flush(struct control_client *c)
{
	c->fds_wait = false;
	for (unsigned i = 0; i < SENDS_A_FLUSH; i++) {
		if (c->lost && c->out_off == 0)
			out_notice(c);
		if (!control_client_sending(c) || !send_some(c))
			return;
	}
}

/* ---- answers that wait ---- */

bool control_holding(const struct control *s)
{
	return !TAILQ_EMPTY(&s->holds);
}

uint64_t control_seal(struct control *s)
{
	return s->seal++;
}

/* Those that were held under a seal up to `last` leave. failure: what takes their place; NULL: no memory. True: there were some. */
static bool settle(struct control_client *c, uint64_t last, bool ok, struct control_msg *failure)
{
	struct control_out *o;
	bool any = false;

	if (!ok && !failure) {
		control_client_give_up(c);
		return true;
	}
	STAILQ_FOREACH(o, &c->out, link)
	{
		if (!o->held)
			continue;
		if (o->held > last)
			break;
		any = true;
		out_let_go(c, o);
		if (!ok) {
			failure->refs++;
			out_replace(c, o, failure);
		}
	}
	return any;
}

void control_settle(struct control *s, bool ok, const char *text)
{
	struct control_msg *failure = ok ? NULL : error_msg(CONTROL_FAILED, text);
	struct control_client *c;

	assert(!s->dispatching);
	while ((c = TAILQ_FIRST(&s->holds))) {
		settle(c, UINT64_MAX, ok, failure);
		assert(c->n_held == 0);
		control_client_go_on(c, false);
	}
	if (failure)
		msg_unref(failure);
}

void control_settle_sealed(struct control *s, uint64_t seal)
{
	struct control_client *c, *next;

	assert(!s->dispatching);
	for (c = TAILQ_FIRST(&s->holds); c; c = next) {
		next = TAILQ_NEXT(c, hold);
		if (settle(c, seal, true, NULL))
			control_client_go_on(c, false);
	}
}

/* ---- events ---- */

bool control_monitored(const struct control *s)
{
	return s->n_monitors > 0;
}

/* Make room for len more bytes by dropping the oldest events; never one that is half sent, never an answer. */
static bool monitor_room(struct control_client *c, size_t len)
{
	struct control_out *o;

	while (c->out_bytes + len > c->server->limits.queue_max) {
		o = STAILQ_FIRST(&c->out);
		if (o && c->out_off > 0)
			o = STAILQ_NEXT(o, link);
		while (o && !o->event)
			o = STAILQ_NEXT(o, link);
		if (!o)
			return false;
		if (o->lost) {
			c->lost += o->lost;
		} else {
			c->lost++;
			c->server->stats.events_lost++;
		}
		STAILQ_REMOVE(&c->out, o, control_out, link);
		out_free(c, o);
	}
	return true;
}

static void monitor_add(struct control_client *c, struct control_msg *m)
{
	struct control_out *o;

	if (!monitor_room(c, m->len)) {
		c->lost++;
		c->server->stats.events_lost++;
		return;
	}
	m->refs++;
	o = out_add(c, m);
	if (o)
		o->event = true;
}

void control_publish(struct control *s, json_t *event)
{
	struct control_client *c;
	struct control_msg *m;

	if (!event)
		return;
	if (!control_monitored(s)) {
		json_decref(event);
		return;
	}
	if (!json_object_get(event, "time"))
		json_object_set_new(event, "time", control_time(clock_utc_ms()));
	m = event_msg(event);
	json_decref(event);
	TAILQ_FOREACH(c, &s->clients, link)
	{
		if (!c->monitor)
			continue;
		if (m) {
			monitor_add(c, m);
		} else {
			c->lost++;
			s->stats.events_lost++;
		}
		control_client_enqueue(c);
	}
	if (m)
		msg_unref(m);
}

void control_client_monitor(struct control_client *c, json_t *first)
{
	if (!c->gone) {
		c->monitor = true;
		c->server->n_monitors++;
		out_add(c, event_msg(first));
	}
	json_decref(first);
}
