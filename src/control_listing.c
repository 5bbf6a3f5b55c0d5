/* SPDX-License-Identifier: BSD-2-Clause */
/* Listings on the control socket: rows packed into replies, as fast as the client takes them. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"
#include "control_priv.h"

static int listing_add(struct control_listing *l, const char *text, size_t len)
{
	if (l->len + len > l->cap) {
		size_t cap = l->len + len + CONTROL_BATCH_BYTES / 2;
		char *bigger = realloc(l->text, cap);

		if (!bigger)
			return -ENOMEM;
		l->text = bigger;
		l->cap = cap;
	}
	memcpy(l->text + l->len, text, len);
	l->len += len;
	return 0;
}

/* The frame around the rows is fixed text: the key is one of our own names. */
static int listing_begin(struct control_listing *l)
{
	char head[96];
	int n = snprintf(head, sizeof(head), "{\"parameters\":{\"%s\":[", l->rows->key);

	assert(n > 0 && (size_t)n < sizeof(head));
	return listing_add(l, head, (size_t)n);
}

/* Send what has come together. */
static int listing_send(struct control_client *c, bool continues)
{
	struct control_listing *l = &c->listing;
	const char *tail = continues ? "]},\"continues\":true}" : "]}}";
	char *text;
	size_t len;
	int r;

	r = l->len == 0 ? listing_begin(l) : 0;
	if (r == 0)
		r = listing_add(l, tail, strlen(tail) + 1);
	if (r < 0)
		return r;
	text = l->text;
	len = l->len;
	l->text = NULL;
	l->len = l->cap = 0;
	control_client_send(c, text, len);
	return 0;
}

static int listing_add_row(struct control_client *c, json_t *row)
{
	struct control_listing *l = &c->listing;
	char *text = json_dumps(row, JSON_COMPACT | JSON_ENCODE_ANY);
	size_t len;
	int r = 0;

	if (!text)
		return -ENOMEM;
	len = strlen(text);
	if (l->len > 0 && l->len + len > c->server->limits.reply_max - 64 && !l->single)
		r = listing_send(c, true);
	if (r == 0)
		r = l->len == 0 ? listing_begin(l) : listing_add(l, ",", 1);
	if (r == 0)
		r = listing_add(l, text, len);
	free(text);
	if (r == 0 && l->len > c->server->limits.reply_max - 64)
		r = -EMSGSIZE;
	return r;
}

void control_listing_end(struct control_client *c)
{
	struct control_listing *l = &c->listing;

	if (!l->rows)
		return;
	l->rows->free(l->state);
	free(l->text);
	*l = (struct control_listing){ 0 };
}

static void listing_fail(struct control_client *c, int r)
{
	control_listing_end(c);
	if (r == -ENOMEM)
		control_client_fail(c, "out of memory");
	else if (r == -EMSGSIZE)
		control_client_fail(c, "a row is too long to be sent");
	else
		control_client_error(c, CONTROL_FAILED, strerror(-r));
}

static void listing_expected_more(struct control_client *c)
{
	json_t *params = json_object();

	control_listing_end(c);
	control_client_reply(c, VARLINK_EXPECTED_MORE, params);
	json_decref(params);
}

void control_listing_run(struct control_client *c, unsigned *budget)
{
	struct control_listing *l = &c->listing;
	size_t low = c->server->limits.queue_low;

	while (l->rows && *budget > 0 && c->out_bytes <= low) {
		json_t *row = NULL;
		int r = l->rows->next(l->state, &row);

		if (r == -EAGAIN) {
			/* It has worked as hard as for all the rows of a turn. */
			*budget = 0;
			return;
		}
		(*budget)--;
		if (r == 1) {
			r = listing_add_row(c, row);
			json_decref(row);
			if (r == 0 && l->single && l->len > CONTROL_SINGLE_MAX) {
				listing_expected_more(c);
				return;
			}
			if (r == 0 && !l->single && l->len >= CONTROL_BATCH_BYTES)
				r = listing_send(c, true);
		} else if (r == 0) {
			r = listing_send(c, false);
			if (r == 0)
				control_listing_end(c);
		}
		if (r < 0)
			listing_fail(c, r);
	}
}
