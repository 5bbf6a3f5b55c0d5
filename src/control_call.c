/* SPDX-License-Identifier: BSD-2-Clause */
/* Calls on the control socket: finding the method, its parameters, its answer or listing. */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "control.h"
#include "control_priv.h"

static const char service_description[] =
	"# Every Varlink service has this interface: what it is, and what it can be asked.\n"
	"interface org.varlink.service\n"
	"\n"
	"# Who made the service, and the interfaces that it implements.\n"
	"method GetInfo() -> (\n"
	"  vendor: string,\n"
	"  product: string,\n"
	"  version: string,\n"
	"  url: string,\n"
	"  interfaces: []string\n"
	")\n"
	"\n"
	"# The text that describes an interface.\n"
	"method GetInterfaceDescription(interface: string) -> (description: string)\n"
	"\n"
	"# There is no such interface.\n"
	"error InterfaceNotFound (interface: string)\n"
	"\n"
	"# The interface has no such method.\n"
	"error MethodNotFound (method: string)\n"
	"\n"
	"# The interface describes the method, the service does not have it.\n"
	"error MethodNotImplemented (method: string)\n"
	"\n"
	"# A parameter is unknown, missing, of the wrong type or out of range.\n"
	"error InvalidParameter (parameter: string)\n"
	"\n"
	"# The client may not do that.\n"
	"error PermissionDenied ()\n"
	"\n"
	"# There is more than one reply; call with 'more'.\n"
	"error ExpectedMore ()\n";

/* ---- answers ---- */

/* A text may quote, and cut, what a stranger wrote. */
json_t *control_text(const char *text)
{
	char ascii[ERRTEXT_LEN + 64];
	json_t *v = json_string(text);

	if (v)
		return v;
	snprintf(ascii, sizeof(ascii), "%s", text);
	for (char *p = ascii; *p; p++) {
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	}
	return json_string(ascii);
}

/* What is sent when an answer cannot be made. */
void control_client_fail(struct control_client *c, const char *text)
{
	char *msg;
	int n;

	n = asprintf(&msg, "{\"error\":\"%s\",\"parameters\":{\"text\":\"%s\"}}", CONTROL_FAILED,
		     text);
	control_client_send(c, n < 0 ? NULL : msg, n < 0 ? 0 : (size_t)n + 1);
}

/* Encode an answer, or send one that says why that is not possible. */
static bool encode(struct control_client *c, const char *error, json_t *params, char **ret,
		   size_t *ret_len)
{
	if (!params || varlink_reply_encode(error, params, false, ret, ret_len) < 0) {
		control_client_fail(c, "out of memory");
		return false;
	}
	if (*ret_len > c->server->limits.reply_max) {
		free(*ret);
		control_client_fail(c, "the answer is too long to be sent");
		return false;
	}
	return true;
}

void control_client_reply(struct control_client *c, const char *error, json_t *params)
{
	char *text;
	size_t len;

	if (encode(c, error, params, &text, &len))
		control_client_send(c, text, len);
}

void control_client_error(struct control_client *c, const char *error, const char *text)
{
	json_t *params = json_pack("{s:o}", "text", control_text(text));

	control_client_reply(c, error, params);
	json_decref(params);
}

static int answer(struct control_call *call, const char *error, json_t *params)
{
	assert(!call->answered);
	call->answered = true;
	if (!call->msg.oneway)
		control_client_reply(call->client, error, params);
	json_decref(params);
	return 0;
}

int control_reply(struct control_call *call, json_t *params)
{
	return answer(call, NULL, params);
}

int control_reply_held(struct control_call *call, json_t *params, int fd)
{
	char *text;
	size_t len;

	assert(!call->answered);
	call->answered = true;
	if (!call->msg.oneway && encode(call->client, NULL, params, &text, &len))
		control_client_hold(call->client, text, len, fd);
	else if (fd >= 0)
		close(fd);
	json_decref(params);
	return 0;
}

int control_error(struct control_call *call, const char *error, json_t *params)
{
	return answer(call, error, params);
}

int control_fail(struct control_call *call, const char *error, const char *fmt, ...)
{
	char text[ERRTEXT_LEN + 64];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return answer(call, error, json_pack("{s:o}", "text", control_text(text)));
}

int control_invalid(struct control_call *call, const char *name)
{
	return answer(call, VARLINK_INVALID_PARAMETER, json_pack("{s:s}", "parameter", name));
}

/* ---- what a method asks about its call ---- */

bool control_call_more(const struct control_call *call)
{
	return call->msg.more;
}

json_t *control_call_params(const struct control_call *call)
{
	return call->msg.parameters;
}

int control_call_fd(const struct control_call *call)
{
	return call->fd;
}

static json_t *param(const struct control_call *call, const char *name)
{
	json_t *v = json_object_get(call->msg.parameters, name);

	return json_is_null(v) ? NULL : v;
}

static int invalid(struct control_call *call, const char *name)
{
	control_invalid(call, name);
	return -EINVAL;
}

int control_param_str(struct control_call *call, const char *name, const char **ret)
{
	json_t *v = param(call, name);

	if (!v)
		return 0;
	if (!json_is_string(v))
		return invalid(call, name);
	*ret = json_string_value(v);
	return 0;
}

int control_param_int(struct control_call *call, const char *name, int64_t min, int64_t max,
		      int64_t *ret)
{
	json_t *v = param(call, name);

	if (!v)
		return 0;
	if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max)
		return invalid(call, name);
	*ret = json_integer_value(v);
	return 0;
}

int control_param_bool(struct control_call *call, const char *name, bool *ret)
{
	json_t *v = param(call, name);

	if (!v)
		return 0;
	if (!json_is_boolean(v))
		return invalid(call, name);
	*ret = json_is_true(v);
	return 0;
}

json_t *control_time(int64_t utc_ms)
{
	time_t at = (time_t)(utc_ms / 1000);
	char date[32], text[48];
	struct tm tm;

	gmtime_r(&at, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text, sizeof(text), "%s.%03dZ", date, (int)(utc_ms % 1000));
	return json_string(text);
}

int control_stream(struct control_call *call, const struct control_rows *rows, void *state)
{
	struct control_client *c = call->client;

	if (!state)
		return answer(call, NULL, NULL);
	assert(!call->answered);
	call->answered = true;
	if (call->msg.oneway || c->gone) {
		rows->free(state);
		return 0;
	}
	c->listing = (struct control_listing){
		.rows = rows,
		.state = state,
		.single = !call->msg.more,
	};
	return 0;
}

int control_monitor(struct control_call *call, void *data)
{
	(void)data;
	if (!call->msg.more)
		return control_error(call, VARLINK_EXPECTED_MORE, json_object());
	assert(!call->answered);
	call->answered = true;
	if (call->msg.oneway)
		return 0;
	control_client_monitor(call->client,
			       json_pack("{s:o, s:s}", "time", control_time(clock_utc_ms()),
					 "event", "subscribed"));
	return 0;
}

/* ---- finding the method ---- */

/* Is name one of the words of list? */
static bool word_in(const char *list, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = list; p && *p;) {
		size_t n = strcspn(p, " ");

		if (n == len && memcmp(p, name, n) == 0)
			return true;
		p += n + strspn(p + n, " ");
	}
	return false;
}

/* A misspelt filter must not list everything: what is not understood is refused. */
static bool params_known(struct control_call *call, const char *list)
{
	const char *key;
	json_t *value;

	json_object_foreach(call->msg.parameters, key, value)
	{
		if (!word_in(list, key)) {
			control_invalid(call, key);
			return false;
		}
	}
	return true;
}

static int get_info(struct control_call *call)
{
	const struct control *s = call->client->server;

	return control_reply(call, json_pack("{s:s, s:s, s:s, s:s, s:[s, s]}", "vendor", "Sluice",
					     "product", "sluiced", "version", SLUICE_VERSION, "url",
					     "", "interfaces", VARLINK_SERVICE, s->interface));
}

static int get_description(struct control_call *call)
{
	const struct control *s = call->client->server;
	const char *interface = NULL, *text;

	if (control_param_str(call, "interface", &interface) < 0)
		return 0;
	if (!interface)
		return control_invalid(call, "interface");
	if (strcmp(interface, VARLINK_SERVICE) == 0)
		text = service_description;
	else if (strcmp(interface, s->interface) == 0)
		text = s->description;
	else
		return control_error(call, VARLINK_INTERFACE_NOT_FOUND,
				     json_pack("{s:s}", "interface", interface));
	return control_reply(call, json_pack("{s:s}", "description", text));
}

static int method_not_found(struct control_call *call)
{
	return control_error(call, VARLINK_METHOD_NOT_FOUND,
			     json_pack("{s:s}", "method", call->msg.method));
}

static void run_service(struct control_call *call, const char *name)
{
	if (strcmp(name, "GetInfo") == 0) {
		if (params_known(call, ""))
			get_info(call);
	} else if (strcmp(name, "GetInterfaceDescription") == 0) {
		if (params_known(call, "interface"))
			get_description(call);
	} else {
		method_not_found(call);
	}
}

/* Only what is said to be for everybody is. */
static bool may_call(struct control_call *call, const struct control_method *m)
{
	const struct control *s = call->client->server;
	unsigned uid = (unsigned)control_call_uid(call);

	if ((m->flags & CONTROL_ROOT) && uid != 0)
		control_fail(call, CONTROL_DENIED, "only root may call %s; you are uid %u", m->name,
			     uid);
	else if (m->flags & (CONTROL_ROOT | CONTROL_ANY) || control_call_trusted(call))
		return true;
	else if (s->group)
		control_fail(
			call, CONTROL_DENIED,
			"only root and the members of group \"%s\" may call %s; you are uid %u, "
			"and were no member when you connected",
			s->group, m->name, uid);
	else
		control_fail(call, CONTROL_DENIED,
			     "only root may call %s, since there is no group that may "
			     "(access.group); you are uid %u",
			     m->name, uid);
	return false;
}

static void run_method(struct control_call *call, const struct control_method *m)
{
	int r;

	if (!m->fn) {
		control_error(call, VARLINK_NOT_IMPLEMENTED,
			      json_pack("{s:s}", "method", call->msg.method));
		return;
	}
	if (!may_call(call, m) || !params_known(call, m->params))
		return;
	if (!(m->flags & CONTROL_FD)) {
		control_fd_refuse(call->client, call->fd);
		call->fd = -1;
	}
	r = m->fn(call, call->client->server->data);
	if (r < 0 && !call->answered)
		control_fail(call, CONTROL_FAILED, "%s", strerror(-r));
	assert(call->answered);
	/* Whatever it was for: the method has its own reference by now. */
	if (call->fd >= 0)
		control_fd_discard(call->fd);
	call->fd = -1;
}

static void run_call(struct control_call *call)
{
	const struct control *s = call->client->server;
	const char *method = call->msg.method;
	size_t len = call->msg.interface_len;
	const char *name = method + len + 1;

	if (len == 0) {
		method_not_found(call);
		return;
	}
	if (call->msg.upgrade) {
		control_invalid(call, "upgrade");
		return;
	}
	if (strncmp(method, VARLINK_SERVICE ".", len + 1) == 0 && len == strlen(VARLINK_SERVICE)) {
		run_service(call, name);
		return;
	}
	if (len != strlen(s->interface) || memcmp(method, s->interface, len) != 0) {
		control_error(call, VARLINK_INTERFACE_NOT_FOUND,
			      json_pack("{s:s%}", "interface", method, len));
		return;
	}
	for (size_t i = 0; i < s->n_methods; i++) {
		if (strcmp(s->methods[i].name, name) == 0) {
			run_method(call, &s->methods[i]);
			return;
		}
	}
	method_not_found(call);
}

void control_call_run(struct control_client *c, const char *msg, size_t len, int fd)
{
	struct control_call call = { .client = c, .fd = fd };
	struct errtext err = { 0 };
	int r;

	r = varlink_call_decode(msg, len, &call.msg, &err);
	if (r == 0) {
		c->server->stats.calls++;
		run_call(&call);
		varlink_call_done(&call.msg);
	} else if (r == -EBADMSG) {
		c->server->stats.bad_messages++;
		control_client_error(c, CONTROL_BAD_MESSAGE, err.s);
		c->closing = true;
	} else {
		control_client_fail(c, "out of memory");
	}
	control_fd_refuse(c, call.fd);
}
