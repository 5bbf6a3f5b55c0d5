/* SPDX-License-Identifier: BSD-2-Clause */
#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_internal.h"

/* s with everything but printable ASCII as \xNN, cut to what fits. */
static void printable(const char *s, char *buf, size_t size)
{
	static const char hex[] = "0123456789abcdef";
	size_t n = 0;

	for (; *s && n + 8 < size; s++) {
		unsigned char c = (unsigned char)*s;

		if (c >= ' ' && c < 0x7f) {
			buf[n++] = *s;
			continue;
		}
		buf[n++] = '\\';
		buf[n++] = 'x';
		buf[n++] = hex[c >> 4];
		buf[n++] = hex[c & 0xf];
	}
	if (*s) {
		memcpy(buf + n, "...", 3);
		n += 3;
	}
	buf[n] = '\0';
}

int conf_bad(const char *path, unsigned line, const char *key, const char *value,
	     struct errtext *err, const char *fmt, ...)
{
	char file[160], text[96];
	va_list ap;
	int n;

	if (!err)
		return -EINVAL;
	printable(path, file, sizeof(file));
	printable(value, text, sizeof(text));
	n = snprintf(err->s, sizeof(err->s), "%s:%u: %s \"%s\": ", file, line, key, text);
	if (n > 0 && (size_t)n < sizeof(err->s)) {
		va_start(ap, fmt);
		vsnprintf(err->s + n, sizeof(err->s) - (size_t)n, fmt, ap);
		va_end(ap);
	}
	return -EINVAL;
}

int conf_nomem(struct errtext *err)
{
	return errtext_set(err, ENOMEM, "out of memory while reading the configuration");
}

int conf_uint(const struct conf_at *at, uint32_t min, uint32_t max, uint32_t *ret,
	      struct errtext *err)
{
	const char *s = at->value->s + (at->value->s[0] == '-');
	size_t n = strspn(s, "0123456789");
	unsigned long v;

	if (!n || s[n] || (s[0] == '0' && n > 1))
		return CONF_BAD(at, err, "is no decimal number; allowed are %u to %u", min, max);
	errno = 0;
	v = strtoul(s, NULL, 10);
	if (s != at->value->s || errno || v < min || v > max)
		return CONF_BAD(at, err, "is out of range; allowed are %u to %u", min, max);
	*ret = (uint32_t)v;
	return 0;
}

int conf_choose(const struct conf_at *at, const struct conf_choice *choices, int *ret,
		struct errtext *err)
{
	const struct conf_choice *c;
	char allowed[128];
	size_t n = 0;
	int len;

	for (c = choices; c->name && strcmp(c->name, at->value->s); c++)
		;
	if (c->name && !c->later) {
		*ret = c->value;
		return 0;
	}

	allowed[0] = '\0';
	for (const struct conf_choice *o = choices; o->name; o++) {
		if (o->later)
			continue;
		len = snprintf(allowed + n, sizeof(allowed) - n, "%s\"%s\"", n ? ", " : "",
			       o->name);
		if (len < 0 || (size_t)len >= sizeof(allowed) - n)
			break;
		n += (size_t)len;
	}
	return CONF_BAD(at, err, "%s; allowed: %s",
			c->name ? "this version does not have it" : "is not known here", allowed);
}

int conf_bool(const struct conf_at *at, bool *ret, struct errtext *err)
{
	static const char *const words[] = { "false", "true", "no", "yes", "off", "on" };

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcasecmp(at->value->s, words[i]))
			continue;
		*ret = i & 1;
		return 0;
	}
	return CONF_BAD(at, err,
			"is neither true nor false; allowed are true, false, yes, no, on, off");
}

bool conf_name_ok(const char *s)
{
	size_t n;

	if (!isalnum((unsigned char)s[0]))
		return false;
	for (n = 0; s[n]; n++)
		if (!isalnum((unsigned char)s[n]) && !strchr("._-", s[n]))
			return false;
	return n <= CONFIG_NAME_MAX;
}

int conf_name(const struct conf_at *at, char ret[CONFIG_NAME_MAX + 1], struct errtext *err)
{
	if (!conf_name_ok(at->value->s))
		return CONF_BAD(at, err, "is no name; " CONF_NAME_RULE);
	strcpy(ret, at->value->s);
	return 0;
}

int conf_path(const struct conf_at *at, size_t max, char **ret, struct errtext *err)
{
	char *s;

	if (at->value->s[0] != '/')
		return CONF_BAD(at, err, "is not absolute; allowed are paths that begin with /");
	if (strlen(at->value->s) > max)
		return CONF_BAD(at, err, "is %zu bytes long; allowed are %zu", strlen(at->value->s),
				max);
	s = strdup(at->value->s);
	if (!s)
		return conf_nomem(err);
	free(*ret);
	*ret = s;
	return 0;
}

int conf_ifname(const struct conf_at *at, struct errtext *err)
{
	const char *s = at->value->s;
	bool ok = *s && strlen(s) < IFNAMSIZ && strcmp(s, ".") && strcmp(s, "..");

	for (; *s && ok; s++)
		ok = (unsigned char)*s > ' ' && *s != 0x7f && *s != '/' && *s != ':';
	if (!ok)
		return CONF_BAD(
			at, err,
			"cannot be the name of an interface; allowed are 1 to %d characters "
			"without "
			"blanks, / and :",
			IFNAMSIZ - 1);
	return 0;
}
