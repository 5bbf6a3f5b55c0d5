/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * src/io.sluice.varlink against Varlink's grammar (https://varlink.org/Interface-Definition), its
 * own names, and the daemon's table of methods.
 */
#include <ctype.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "control.h"
#include "methods.h"

#define NAMES_MAX 128

static const char *at; /* what is left to read */
static unsigned line;

struct names {
	char v[NAMES_MAX][64];
	size_t n;
};
static struct names types, used, methods, errors;
static char params[NAMES_MAX][256]; /* of methods[i], as control_method.params has them */

static void skip_space(void)
{
	for (;; at++) {
		if (*at == '\n')
			line++;
		if (*at == '#')
			at += strcspn(at, "\n") - 1;
		else if (!isspace((unsigned char)*at))
			break;
	}
}

static bool take(const char *token)
{
	skip_space();
	if (strncmp(at, token, strlen(token)) != 0)
		return false;
	at += strlen(token);
	return true;
}

static void expect(const char *token)
{
	if (!take(token))
		fail_msg("line %u: no \"%s\" before \"%.20s\"", line, token, at);
}

/*
 * A word of the interface: a letter first, then letters and digits, in fields also single '_'
 * within.
 */
static void take_name(bool type, char ret[64])
{
	size_t n = 0;

	skip_space();
	if (type ? !isupper((unsigned char)*at) : !islower((unsigned char)*at))
		fail_msg("line %u: \"%.20s\" begins no %s", line, at, type ? "type" : "field");
	while (isalnum((unsigned char)at[n]) ||
	       (!type && at[n] == '_' && isalnum((unsigned char)at[n + 1])))
		n++;
	assert_true(n < 64);
	memcpy(ret, at, n);
	ret[n] = '\0';
	at += n;
}

static bool has(const struct names *names, const char *name)
{
	for (size_t i = 0; i < names->n; i++) {
		if (strcmp(names->v[i], name) == 0)
			return true;
	}
	return false;
}

static void add(struct names *names, const char *name)
{
	assert_true(names->n < NAMES_MAX);
	strcpy(names->v[names->n++], name);
}

/* Types, methods and errors share one name space. */
static void add_unique(struct names *names, const char *name)
{
	if (has(&types, name) || has(&methods, name) || has(&errors, name))
		fail_msg("line %u: %s is there twice", line, name);
	add(names, name);
}

static void take_struct(char *words, size_t size);

static void take_type(void)
{
	static const char *const plain[] = { "bool", "int", "float", "string", "object" };
	char name[64];

	take("?");
	while (take("[]") || take("[string]"))
		;
	skip_space();
	if (*at == '(') {
		take_struct(NULL, 0);
		return;
	}
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
		if (take(plain[i]))
			return;
	}
	take_name(true, name);
	add(&used, name);
}

/* "(a: type, b: type)". words: room for "a b". */
static void take_struct(char *words, size_t size)
{
	struct names fields = { .n = 0 };
	char name[64];

	if (words)
		words[0] = '\0';
	expect("(");
	if (take(")"))
		return;
	do {
		take_name(false, name);
		if (has(&fields, name))
			fail_msg("line %u: field %s is there twice", line, name);
		add(&fields, name);
		if (words) {
			assert_true(strlen(words) + strlen(name) + 2 < size);
			if (words[0])
				strcat(words, " ");
			strcat(words, name);
		}
		expect(":");
		take_type();
	} while (take(","));
	expect(")");
}

static int parse(void **state)
{
	char name[64];

	(void)state;
	at = control_io_sluice;
	line = 1;
	expect("interface io.sluice\n");
	for (skip_space(); *at; skip_space()) {
		if (take("type ")) {
			take_name(true, name);
			add_unique(&types, name);
			take_struct(NULL, 0);
		} else if (take("method ")) {
			take_name(true, name);
			add_unique(&methods, name);
			take_struct(params[methods.n - 1], sizeof(params[0]));
			expect("->");
			take_struct(NULL, 0);
		} else if (take("error ")) {
			take_name(true, name);
			add_unique(&errors, name);
			take_struct(NULL, 0);
		} else {
			fail_msg("line %u: \"%.20s\"", line, at);
		}
	}
	return 0;
}

static void test_grammar(void **state)
{
	(void)state;
	assert_true(types.n > 5);
	assert_true(methods.n > 5);
	for (size_t i = 0; i < used.n; i++) {
		if (!has(&types, used.v[i]))
			fail_msg("type %s is used and not described", used.v[i]);
	}
	for (size_t i = 0; i < types.n; i++) {
		if (!has(&used, types.v[i]))
			fail_msg("type %s is described and not used", types.v[i]);
	}
}

/* What is described is there, and what is there is described, with the same parameters. */
static void test_methods(void **state)
{
	(void)state;
	assert_int_equal(methods_table_len, methods.n);
	for (size_t i = 0; i < methods_table_len; i++) {
		const struct control_method *m = &methods_table[i];
		size_t k = 0;

		while (k < methods.n && strcmp(methods.v[k], m->name) != 0)
			k++;
		if (k == methods.n)
			fail_msg("method %s is not described", m->name);
		assert_non_null(m->fn);
		if (strcmp(params[k], m->params ? m->params : "") != 0)
			fail_msg("method %s takes \"%s\", described is \"%s\"", m->name,
				 m->params ? m->params : "", params[k]);
	}
}

/* A client has to read it in one message. */
static void test_size(void **state)
{
	(void)state;
	assert_true(strlen(control_io_sluice) < 48 * 1024);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grammar),
		cmocka_unit_test(test_methods),
		cmocka_unit_test(test_size),
	};

	return cmocka_run_group_tests(tests, parse, NULL);
}
