/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The text of a configuration, before libconfuse sees it. The grammar is small:
 *
 *   file      = { statement }
 *   statement = KEY ( "=" | "+=" ) ( value | "{" [ value { "," value } [ "," ] ] "}" )
 *             | SECTION [ value ] "{" { KEY ... } "}"
 *   value     = word | "..." | '...'
 *
 * Comments go from # or // to the end of the line, or between the marks of C; within a word a slash
 * is only a slash. What passes here is well-formed for libconfuse too, which then has to say only
 * which keys there are.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_internal.h"

enum token {
	T_END,
	T_WORD,
	T_QUOTED,
	T_OPEN,
	T_CLOSE,
	T_SET,
	T_APPEND,
	T_COMMA,
};

struct lexer {
	const char *path;
	const char *s;   /* where we are */
	const char *end; /* points at the terminating NUL */
	unsigned line;
	char *out; /* where the next token goes for libconfuse */
	unsigned out_line;
	enum token token;
	struct conf_scan_key at; /* the token's text and line */
	struct errtext *err;
};

/* Refuse len characters of the text. */
static int refuse(const struct lexer *l, unsigned line, const char *s, size_t len, const char *why)
{
	char value[128];

	if (len >= sizeof(value))
		len = sizeof(value) - 1;
	memcpy(value, s, len);
	value[len] = '\0';
	return conf_bad(l->path, line, "syntax", value, l->err, "%s", why);
}

static bool word_char(char c)
{
	return (unsigned char)c > ' ' && c != 0x7f && !strchr("#\"'={}()+,*", c);
}

/* Go on to a place behind the lexer. */
static void advance(struct lexer *l, const char *to)
{
	for (; l->s < to; l->s++)
		l->line += *l->s == '\n';
}

/* Blanks and comments. */
static int skip(struct lexer *l)
{
	for (;;) {
		const char *s = l->s;

		if (*s == '\n') {
			l->line++;
			l->s++;
		} else if (*s == ' ' || *s == '\t' || (*s == '\r' && s[1] == '\n')) {
			l->s++;
		} else if (*s == '#' || (*s == '/' && s[1] == '/')) {
			advance(l, strchrnul(s, '\n'));
		} else if (*s == '/' && s[1] == '*') {
			const char *close = strstr(s + 2, "*/");

			if (!close)
				return refuse(l, l->line, s, 2,
					      "this comment does not end; it must end with */");
			advance(l, close + 2);
		} else {
			return 0;
		}
	}
}

static int quoted(struct lexer *l)
{
	const char *s = l->s;
	char quote = *s;

	for (s++; *s != quote; s++) {
		if (*s == '\n' || s == l->end)
			return refuse(
				l, l->line, l->s, (size_t)(s - l->s),
				"this text has no closing quote; one is needed on the same line");
		if ((unsigned char)*s < ' ' || *s == 0x7f)
			return refuse(l, l->line, l->s, (size_t)(s + 1 - l->s),
				      "control character in a text; there must be none");
		if (quote == '"' && *s == '$' && s[1] == '{')
			return refuse(l, l->line, s, 2,
				      "the environment is not expanded; write the value itself, or "
				      "use '...'");
		if (*s != '\\')
			continue;
		if (quote == '"' && s[1] != '"' && s[1] != '\\')
			return refuse(l, l->line, s, s[1] ? 2 : 1,
				      "unknown escape; allowed are \\\" and \\\\");
		if (s[1] == quote || s[1] == '\\')
			s++;
	}
	l->s = s + 1;
	return 0;
}

/* Hand the token on to libconfuse, on its line, without the comments and long blanks around it. */
static void emit(struct lexer *l)
{
	for (; l->out_line < l->at.line; l->out_line++)
		*l->out++ = '\n';
	memcpy(l->out, l->at.name, l->at.len);
	l->out += l->at.len;
	*l->out++ = ' ';
}

/* Read one token. */
static int next(struct lexer *l)
{
	static const struct {
		const char *text;
		enum token token;
	} marks[] = {
		{ "{", T_OPEN },  { "}", T_CLOSE },   { "=", T_SET },
		{ ",", T_COMMA }, { "+=", T_APPEND },
	};
	const char *begin;
	int err;

	err = skip(l);
	if (err)
		return err;
	begin = l->s;
	l->at = (struct conf_scan_key){ .name = begin, .line = l->line };
	if (l->s == l->end) {
		l->token = T_END;
		return 0;
	}

	if (*begin == '"' || *begin == '\'') {
		l->token = T_QUOTED;
		err = quoted(l);
		if (err)
			return err;
	} else if (*begin == '$' && begin[1] == '{') {
		return refuse(l, l->line, begin, 2,
			      "the environment is not expanded; write the value itself");
	} else if (word_char(*begin)) {
		l->token = T_WORD;
		while (word_char(*l->s))
			l->s++;
	} else {
		size_t i = 0, n = sizeof(marks) / sizeof(marks[0]);

		while (i < n && strncmp(begin, marks[i].text, strlen(marks[i].text)))
			i++;
		if (i == n)
			return refuse(
				l, l->line, begin, 1,
				"a character with no meaning here; text with it needs quotes, and "
				"there are no functions and no include()");
		l->token = marks[i].token;
		l->s += strlen(marks[i].text);
	}
	l->at.len = (size_t)(l->s - begin);
	if (l->at.len > CONF_TEXT_MAX)
		return refuse(l, l->line, begin, l->at.len,
			      "this text is too long; allowed are 4096 bytes");
	emit(l);
	return 0;
}

static int unexpected(const struct lexer *l, const char *allowed)
{
	if (l->token == T_END)
		return conf_bad(l->path, l->line, "syntax", "end of file", l->err,
				"is not expected here; what must follow is %s", allowed);
	if (l->token == T_QUOTED || l->token == T_WORD) {
		char value[128] = "";
		size_t len = l->at.len, from = 0;

		if (l->token == T_QUOTED) {
			from = 1;
			len -= 2;
		}
		if (len >= sizeof(value))
			len = sizeof(value) - 1;
		memcpy(value, l->at.name + from, len);
		return conf_bad(l->path, l->at.line, "syntax", value, l->err,
				"is not expected here; allowed is %s", allowed);
	}
	return conf_bad(l->path, l->at.line, "syntax",
			(const char[]){ l->at.name[0], l->token == T_APPEND ? '=' : 0, 0 }, l->err,
			"is not expected here; allowed is %s", allowed);
}

static bool is_value(const struct lexer *l)
{
	return l->token == T_WORD || l->token == T_QUOTED;
}

/*
 * The name of a key or section: no more than the names in the grammar need, so that none can mean a
 * path in libconfuse.
 */
static bool is_name(const struct lexer *l)
{
	if (l->token != T_WORD)
		return false;
	for (size_t i = 0; i < l->at.len; i++)
		if (!isalnum((unsigned char)l->at.name[i]) && !strchr("_-", l->at.name[i]))
			return false;
	return true;
}

/* What follows "KEY =": one value or a list. Leaves the lexer on its last token. */
static int values(struct lexer *l)
{
	unsigned line;
	int err;

	err = next(l);
	if (err || is_value(l))
		return err;
	if (l->token != T_OPEN)
		return unexpected(l, "a value or {");

	line = l->at.line;
	err = next(l);
	if (err)
		return err;
	while (l->token != T_CLOSE) {
		if (l->token == T_END)
			return conf_bad(l->path, line, "syntax", "{", l->err,
					"this list does not end; it must end with }");
		if (!is_value(l))
			return unexpected(l, "a value or }");
		err = next(l);
		if (err)
			return err;
		if (l->token == T_CLOSE)
			break;
		if (l->token == T_END)
			continue;
		if (l->token != T_COMMA)
			return unexpected(l, "a comma or }");
		err = next(l);
		if (err)
			return err;
	}
	return 0;
}

/* Note that a section has a key, and refuse a second "KEY =". */
static int add_key(const struct lexer *l, struct conf_scan_section *sec,
		   const struct conf_scan_key *key)
{
	for (size_t i = 0; i < sec->n_keys; i++) {
		const struct conf_scan_key *k = &sec->keys[i];

		if (k->len != key->len || memcmp(k->name, key->name, k->len))
			continue;
		if (l->token == T_APPEND)
			return 0;
		return conf_bad(l->path, key->line, "key",
				strndupa(key->name, key->len < 128 ? key->len : 128), l->err,
				"is given twice, first in line %u; allowed is once, lists can grow "
				"with +=",
				k->line);
	}
	if (sec->n_keys < CONF_KEYS_MAX)
		sec->keys[sec->n_keys++] = *key;
	return 0;
}

/* The keys of a section up to its "}", or the whole file. */
static int statements(struct lexer *l, struct conf_scan *scan, struct conf_scan_section *sec)
{
	bool top = sec == &scan->sections[0];
	struct conf_scan_key name;
	int err;

	for (;;) {
		err = next(l);
		if (err)
			return err;
		if (l->token == (top ? T_END : T_CLOSE))
			return 0;
		if (l->token == T_END)
			return refuse(l, sec->self.line, sec->self.name, sec->self.len,
				      "this section does not end; it must end with }");
		if (!is_name(l))
			return unexpected(l, top ? "the name of a key or section, without quotes"
						 : "the name of a key, without quotes, or }");
		name = l->at;

		err = next(l);
		if (err)
			return err;
		if (l->token == T_SET || l->token == T_APPEND) {
			err = add_key(l, sec, &name);
			if (!err)
				err = values(l);
			if (err)
				return err;
			continue;
		}
		if (!top)
			return unexpected(l, "= or += after the name of a key");
		if (is_value(l)) { /* the section's title */
			err = next(l);
			if (err)
				return err;
		}
		if (l->token != T_OPEN)
			return unexpected(l, "= after a key, { after a section");
		if (scan->n_sections == CONF_SECTIONS_MAX)
			return refuse(l, name.line, name.name, name.len,
				      "too many sections; allowed are 128");
		scan->sections[scan->n_sections].self = name;
		err = statements(l, scan, &scan->sections[scan->n_sections++]);
		if (err)
			return err;
	}
}

int conf_scan_new(const char *path, const char *text, size_t len, struct conf_scan **ret,
		  struct errtext *err)
{
	struct lexer l = { .path = path, .line = 1, .err = err };
	struct conf_scan *scan;
	const char *nul;
	char size[32];
	int r;

	if (len > CONF_FILE_MAX) {
		snprintf(size, sizeof(size), "%zu bytes", len);
		return conf_bad(path, 1, "file", size, err, "is too long; allowed are %u bytes",
				CONF_FILE_MAX);
	}
	nul = len ? memchr(text, 0, len) : NULL;
	if (nul) {
		for (const char *s = text; s < nul; s++)
			l.line += *s == '\n';
		return refuse(&l, l.line, "\\0", 2, "a NUL byte; a configuration is text");
	}

	scan = calloc(1, sizeof(*scan));
	if (!scan)
		return conf_nomem(err);
	scan->source = malloc(len + 1);
	scan->text = malloc(2 * len + 1); /* each token gains a blank */
	if (!scan->source || !scan->text) {
		conf_scan_free(scan);
		return conf_nomem(err);
	}
	if (len)
		memcpy(scan->source, text, len);
	scan->source[len] = '\0';
	l.s = scan->source;
	l.end = scan->source + len;
	l.out = scan->text;
	l.out_line = 1;

	scan->sections[0].self.line = 1;
	scan->n_sections = 1;
	r = statements(&l, scan, &scan->sections[0]);
	*l.out = '\0';
	if (r) {
		conf_scan_free(scan);
		return r;
	}
	*ret = scan;
	return 0;
}

void conf_scan_free(struct conf_scan *s)
{
	if (!s)
		return;
	free(s->source);
	free(s->text);
	free(s);
}
