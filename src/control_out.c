/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What goes out on the control socket: each client's queue, and the events that are shared by those
 * who monitor.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>

#include "control.h"
#include "control_priv.h"

#define SEND_IOV 16

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

static void out_pop(struct control_client *c)
{
	struct control_out *o = STAILQ_FIRST(&c->out);

	STAILQ_REMOVE_HEAD(&c->out, link);
	c->out_bytes -= o->msg->len;
	c->out_off = 0;
	msg_unref(o->msg);
	free(o);
}

/* Nothing can be sent any more. What it has sent is still carried out. */
void control_client_gone(struct control_client *c)
{
	c->gone = true;
	while (!STAILQ_EMPTY(&c->out))
		out_pop(c);
	c->lost = 0;
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

/* Takes one reference of m (NULL: no memory). */
static void out_add(struct control_client *c, struct control_msg *m, bool front, uint64_t lost)
{
	struct control_out *o;

	if (c->gone) {
		if (m)
			msg_unref(m);
		return;
	}
	o = m ? malloc(sizeof(*o)) : NULL;
	if (!o) {
		if (m)
			msg_unref(m);
		control_client_give_up(c);
		return;
	}
	*o = (struct control_out){ .msg = m, .lost = lost };
	if (front)
		STAILQ_INSERT_HEAD(&c->out, o, link);
	else
		STAILQ_INSERT_TAIL(&c->out, o, link);
	c->out_bytes += m->len;
}

void control_client_send(struct control_client *c, char *text, size_t len)
{
	out_add(c, text ? msg_new(text, len) : NULL, false, 0);
}

static struct control_msg *event_msg(json_t *event)
{
	char *text;
	size_t len;

	if (!event || varlink_reply_encode(NULL, event, true, &text, &len) < 0)
		return NULL;
	return msg_new(text, len);
}

static json_t *time_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return control_time(&ts);
}

/* The notice of what was dropped belongs where the gap is: in front of all that is left. */
static void out_notice(struct control_client *c)
{
	json_t *event;
	uint64_t lost = c->lost;

	event = json_pack("{s:o, s:s, s:I}", "time", time_now(), "event", "lost", "count",
			  (json_int_t)lost);
	c->lost = 0;
	out_add(c, event_msg(event), true, lost);
	json_decref(event);
}

/* One sendmsg() of what waits. */
static void send_some(struct control_client *c)
{
	struct iovec iov[SEND_IOV];
	struct msghdr mh = { .msg_iov = iov };
	struct control_out *o;
	ssize_t n;

	STAILQ_FOREACH(o, &c->out, link)
	{
		size_t off = mh.msg_iovlen == 0 ? c->out_off : 0;

		iov[mh.msg_iovlen].iov_base = o->msg->text + off;
		iov[mh.msg_iovlen++].iov_len = o->msg->len - off;
		/* A notice is due right behind a message that is half sent. */
		if (mh.msg_iovlen == SEND_IOV || c->lost)
			break;
	}
	n = sendmsg(c->fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ENOBUFS && errno != ENOMEM)
			control_client_gone(c);
		return;
	}
	while (n > 0) {
		size_t left = STAILQ_FIRST(&c->out)->msg->len - c->out_off;

		if ((size_t)n < left) {
			c->out_off += (size_t)n;
			break;
		}
		n -= (ssize_t)left;
		out_pop(c);
	}
}

void control_client_flush(struct control_client *c)
{
	/* Twice, so that a notice is not left behind the last message that it had to wait for. */
	for (int i = 0; i < 2; i++) {
		if (c->lost && c->out_off == 0)
			out_notice(c);
		if (c->gone || STAILQ_EMPTY(&c->out))
			return;
		send_some(c);
		if (!c->lost)
			return;
	}
}

/* ---- events ---- */

bool control_monitored(const struct control *s)
{
	return s->n_monitors > 0;
}

/* Make room for len more bytes by dropping the oldest events; never one that is half sent. */
static bool monitor_room(struct control_client *c, size_t len)
{
	struct control_out *o;

	while (c->out_bytes + len > c->server->limits.queue_max) {
		o = STAILQ_FIRST(&c->out);
		if (o && c->out_off > 0)
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
		c->out_bytes -= o->msg->len;
		msg_unref(o->msg);
		free(o);
	}
	return true;
}

static void monitor_add(struct control_client *c, struct control_msg *m)
{
	if (!monitor_room(c, m->len)) {
		c->lost++;
		c->server->stats.events_lost++;
		return;
	}
	m->refs++;
	out_add(c, m, false, 0);
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
		json_object_set_new(event, "time", time_now());
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
		out_add(c, event_msg(first), false, 0);
	}
	json_decref(first);
}
