/* SPDX-License-Identifier: BSD-2-Clause */
#include "varlink.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BUF_MIN   4096
#define SHORT_MAX 1024

void varlink_reader_init(struct varlink_reader *r, size_t max)
{
	*r = (struct varlink_reader){ .max = max };
}

void varlink_reader_done(struct varlink_reader *r)
{
	free(r->buf);
	r->buf = NULL;
	r->cap = r->begin = r->end = r->scanned = 0;
}

static int reader_grow(struct varlink_reader *r)
{
	size_t cap = r->cap ? r->cap * 2 : BUF_MIN;
	char *buf;

	if (cap > r->max + 1)
		cap = r->max + 1;
	buf = realloc(r->buf, cap);
	if (!buf)
		return -ENOMEM;
	r->buf = buf;
	r->cap = cap;
	return 0;
}

int varlink_reader_space(struct varlink_reader *r, char **ret_buf, size_t *ret_len)
{
	int err;

	if (r->end == r->cap && r->begin > 0) {
		memmove(r->buf, r->buf + r->begin, r->end - r->begin);
		r->end -= r->begin;
		r->begin = 0;
	}
	if (r->end == r->cap) {
		if (r->cap == r->max + 1)
			return -ENOBUFS;
		err = reader_grow(r);
		if (err < 0)
			return err;
	}
	*ret_buf = r->buf + r->end;
	*ret_len = r->cap - r->end;
	return 0;
}

void varlink_reader_fill(struct varlink_reader *r, size_t len)
{
	assert(len <= r->cap - r->end);
	r->end += len;
}

/* Is there a NUL? Its distance from begin in *ret. */
static bool reader_scan(struct varlink_reader *r, size_t *ret)
{
	size_t have = r->end - r->begin;
	const char *from, *nul;

	if (r->scanned == have)
		return false;
	from = r->buf + r->begin + r->scanned;
	nul = memchr(from, '\0', have - r->scanned);
	if (!nul) {
		r->scanned = have;
		return false;
	}
	/* What lies before the NUL need not be looked at again. */
	r->scanned += (size_t)(nul - from);
	*ret = r->scanned;
	return true;
}

int varlink_reader_next(struct varlink_reader *r, const char **ret_msg, size_t *ret_len)
{
	size_t len;

	if (!reader_scan(r, &len)) {
		if (r->end - r->begin > r->max)
			return -EMSGSIZE;
		if (r->end == r->begin)
			varlink_reader_done(r);
		return 0;
	}
	*ret_msg = r->buf + r->begin;
	*ret_len = len;
	r->begin += len + 1;
	r->scanned = 0;
	return 1;
}

bool varlink_reader_ready(struct varlink_reader *r)
{
	size_t len;

	return reader_scan(r, &len) || r->end - r->begin > r->max;
}

bool varlink_reader_half(struct varlink_reader *r)
{
	return r->end > r->begin && !varlink_reader_ready(r);
}

/*
 * jansson recurses, in reading and in freeing, and would go 2048 levels deep. No message of ours
 * needs more than a few. Brackets within strings do not count; whether the text is JSON at all is
 * not decided here.
 */
static bool depth_ok(const char *msg, size_t len)
{
	bool in_string = false;
	size_t depth = 0;

	for (size_t i = 0; i < len; i++) {
		char c = msg[i];

		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
		} else if (c == '"') {
			in_string = true;
		} else if (c == '{' || c == '[') {
			if (++depth > VARLINK_DEPTH_MAX)
				return false;
		} else if ((c == '}' || c == ']') && depth > 0) {
			depth--;
		}
	}
	return true;
}

static int load(const char *msg, size_t len, json_t **ret, struct errtext *err)
{
	json_error_t e;
	json_t *root;

	if (!depth_ok(msg, len))
		return errtext_set(err, EBADMSG, "nested deeper than %d levels", VARLINK_DEPTH_MAX);
	root = json_loadb(msg, len, JSON_REJECT_DUPLICATES, &e);
	if (!root) {
		if (json_error_code(&e) == json_error_out_of_memory)
			return errtext_set(err, ENOMEM, "out of memory");
		return errtext_set(err, EBADMSG, "not JSON: %s at byte %d", e.text, e.position);
	}
	if (!json_is_object(root)) {
		json_decref(root);
		return errtext_set(err, EBADMSG, "a message must be a JSON object");
	}
	*ret = root;
	return 0;
}

/* A keyword that may be absent, null or of the type that is wanted. */
static int get_bool(json_t *root, const char *key, bool *ret, struct errtext *err)
{
	json_t *v = json_object_get(root, key);

	if (v && !json_is_null(v) && !json_is_boolean(v))
		return errtext_set(err, EBADMSG, "\"%s\" must be true or false", key);
	*ret = json_is_true(v);
	return 0;
}

static int get_string(json_t *root, const char *key, const char **ret, struct errtext *err)
{
	json_t *v = json_object_get(root, key);

	if (v && !json_is_null(v) && !json_is_string(v))
		return errtext_set(err, EBADMSG, "\"%s\" must be a string", key);
	*ret = json_string_value(v);
	return 0;
}

/* The parameters, or an empty object put in their place, so that nobody downstream has to ask. */
static int get_parameters(json_t *root, json_t **ret, struct errtext *err)
{
	json_t *v = json_object_get(root, "parameters");

	if (!v || json_is_null(v)) {
		v = json_object();
		if (json_object_set_new(root, "parameters", v) < 0)
			return errtext_set(err, ENOMEM, "out of memory");
	}
	if (!json_is_object(v))
		return errtext_set(err, EBADMSG, "\"parameters\" must be an object");
	*ret = v;
	return 0;
}

int varlink_call_decode(const char *msg, size_t len, struct varlink_call *ret, struct errtext *err)
{
	struct varlink_call c = { 0 };
	const char *dot;
	int r;

	r = load(msg, len, &c.root, err);
	if (r < 0)
		return r;
	r = get_string(c.root, "method", &c.method, err);
	if (r == 0 && (!c.method || !*c.method))
		r = errtext_set(err, EBADMSG, "a call needs \"method\"");
	if (r == 0)
		r = get_parameters(c.root, &c.parameters, err);
	if (r == 0)
		r = get_bool(c.root, "oneway", &c.oneway, err);
	if (r == 0)
		r = get_bool(c.root, "more", &c.more, err);
	if (r == 0)
		r = get_bool(c.root, "upgrade", &c.upgrade, err);
	if (r < 0) {
		json_decref(c.root);
		return r;
	}
	dot = strrchr(c.method, '.');
	c.interface_len = dot ? (size_t)(dot - c.method) : 0;
	*ret = c;
	return 0;
}

void varlink_call_done(struct varlink_call *c)
{
	json_decref(c->root);
	*c = (struct varlink_call){ 0 };
}

int varlink_reply_decode(const char *msg, size_t len, struct varlink_reply *ret,
			 struct errtext *err)
{
	struct varlink_reply c = { 0 };
	int r;

	r = load(msg, len, &c.root, err);
	if (r < 0)
		return r;
	r = get_string(c.root, "error", &c.error, err);
	if (r == 0)
		r = get_parameters(c.root, &c.parameters, err);
	if (r == 0)
		r = get_bool(c.root, "continues", &c.continues, err);
	if (r < 0) {
		json_decref(c.root);
		return r;
	}
	*ret = c;
	return 0;
}

void varlink_reply_done(struct varlink_reply *r)
{
	json_decref(r->root);
	*r = (struct varlink_reply){ 0 };
}

static int dump(json_t *root, char **ret, size_t *ret_len)
{
	char *text = json_dumps(root, JSON_COMPACT);

	/* The objects came from jansson, which has checked their text: what remains is memory. */
	if (!text)
		return -ENOMEM;
	*ret = text;
	*ret_len = strlen(text) + 1;
	return 0;
}

static int encode(const char *key, const char *name, json_t *parameters, const char *flag1,
		  const char *flag2, char **ret, size_t *ret_len)
{
	json_t *root = json_object();
	int r = -ENOMEM;

	if (!root)
		return -ENOMEM;
	if (name) {
		json_t *s = json_string(name);

		if (!s) {
			r = -EINVAL;
			goto out;
		}
		if (json_object_set_new(root, key, s) < 0)
			goto out;
	}
	if (parameters && json_object_set(root, "parameters", parameters) < 0)
		goto out;
	if (flag1 && json_object_set_new(root, flag1, json_true()) < 0)
		goto out;
	if (flag2 && json_object_set_new(root, flag2, json_true()) < 0)
		goto out;
	r = dump(root, ret, ret_len);
out:
	json_decref(root);
	return r;
}

int varlink_call_encode(const char *method, json_t *parameters, bool more, bool oneway, char **ret,
			size_t *ret_len)
{
	return encode("method", method, parameters, more ? "more" : NULL, oneway ? "oneway" : NULL,
		      ret, ret_len);
}

/* Most replies are short, and have no error: a frame of fixed text around their parameters. */
static bool encode_short(json_t *parameters, bool continues, char **ret, size_t *ret_len)
{
	static const char head[] = "{\"parameters\":", tail[] = "}",
			  more[] = ",\"continues\":true}";
	const char *end = continues ? more : tail;
	const size_t head_len = sizeof(head) - 1, end_len = strlen(end) + 1;
	char buf[SHORT_MAX], *text;
	size_t len = json_dumpb(parameters, buf, sizeof(buf), JSON_COMPACT);

	if (len == 0 || len > sizeof(buf))
		return false;
	text = malloc(head_len + len + end_len);
	if (!text)
		return false;
	memcpy(text, head, head_len);
	memcpy(text + head_len, buf, len);
	memcpy(text + head_len + len, end, end_len);
	*ret = text;
	*ret_len = head_len + len + end_len;
	return true;
}

int varlink_reply_encode(const char *error, json_t *parameters, bool continues, char **ret,
			 size_t *ret_len)
{
	if (!error && parameters && encode_short(parameters, continues, ret, ret_len))
		return 0;
	return encode("error", error, parameters, continues ? "continues" : NULL, NULL, ret,
		      ret_len);
}
