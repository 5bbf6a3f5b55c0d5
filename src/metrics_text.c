/* SPDX-License-Identifier: BSD-2-Clause */
#include "metrics_text.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAMILIES_MAX 32
#define VALUE_LEN    40

struct buf {
	char *s;
	size_t len, cap;
	bool failed;
};

struct metric_family {
	const char *name, *help;
	enum metric_type type;
	struct buf samples;
};

struct metrics_text {
	struct metric_family *families[FAMILIES_MAX];
	size_t n;
	bool failed;
};

static void put(struct buf *b, const char *s, size_t len)
{
	size_t cap = b->cap ? b->cap : 512;
	char *more;

	while (cap - b->len <= len)
		cap *= 2;
	if (cap != b->cap) {
		more = realloc(b->s, cap);
		if (!more) {
			b->failed = true;
			return;
		}
		b->s = more;
		b->cap = cap;
	}
	memcpy(b->s + b->len, s, len);
	b->len += len;
	b->s[b->len] = '\0';
}

static void puts_to(struct buf *b, const char *s)
{
	put(b, s, strlen(s));
}

/* quotes: as a label's value, else as HELP. */
static void put_escaped(struct buf *b, const char *s, bool quotes)
{
	for (size_t n; *s; s += n) {
		n = strcspn(s, quotes ? "\\\n\"" : "\\\n");
		put(b, s, n);
		if (!s[n])
			break;
		puts_to(b, s[n] == '\n' ? "\\n" : s[n] == '"' ? "\\\"" : "\\\\");
		n++;
	}
}

/* Does s consist of letters, digits, _ and more, and not begin with a digit? */
static bool name_ok(const char *s, const char *more)
{
	if (!*s || isdigit((unsigned char)*s))
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && *s != '_' && !strchr(more, *s))
			return false;
	return true;
}

struct metrics_text *metrics_text_new(void)
{
	return calloc(1, sizeof(struct metrics_text));
}

void metrics_text_free(struct metrics_text *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->n; i++) {
		free(t->families[i]->samples.s);
		free(t->families[i]);
	}
	free(t);
}

struct metric_family *metrics_text_family(struct metrics_text *t, const char *name,
					  enum metric_type type, const char *help)
{
	struct metric_family *f;

	assert(name_ok(name, ":") && t->n < FAMILIES_MAX);
	for (size_t i = 0; i < t->n; i++)
		assert(strcmp(t->families[i]->name, name) != 0);
	f = calloc(1, sizeof(*f));
	if (!f) {
		t->failed = true;
		return NULL;
	}
	f->name = name;
	f->help = help;
	f->type = type;
	t->families[t->n++] = f;
	return f;
}

/* The shortest text that gives the number back. */
static const char *number(double v, char buf[VALUE_LEN])
{
	if (isnan(v))
		return "NaN";
	if (isinf(v))
		return v > 0 ? "+Inf" : "-Inf";
	for (int digits = 6; digits <= 17; digits++) {
		snprintf(buf, VALUE_LEN, "%.*g", digits, v);
		if (strtod(buf, NULL) == v)
			break;
	}
	return buf;
}

/* le: one more label, of a histogram's bucket; NULL: none. */
static void sample(struct metric_family *f, const char *suffix, const struct metric_label *labels,
		   const char *le, const char *value)
{
	const struct metric_label last[] = { { "le", le }, { NULL, NULL } };
	struct buf *b = &f->samples;
	bool any = false;

	puts_to(b, f->name);
	puts_to(b, suffix);
	for (int pass = 0; pass < 2; pass++) {
		const struct metric_label *l = pass ? (le ? last : NULL) : labels;

		for (; l && l->name; l++) {
			assert(name_ok(l->name, ""));
			puts_to(b, any ? "," : "{");
			puts_to(b, l->name);
			puts_to(b, "=\"");
			put_escaped(b, l->value, true);
			puts_to(b, "\"");
			any = true;
		}
	}
	puts_to(b, any ? "} " : " ");
	puts_to(b, value);
	puts_to(b, "\n");
}

static void sample_count(struct metric_family *f, const char *suffix,
			 const struct metric_label *labels, const char *le, uint64_t n)
{
	char text[VALUE_LEN];

	snprintf(text, sizeof(text), "%" PRIu64, n);
	sample(f, suffix, labels, le, text);
}

void metric_count(struct metric_family *f, const struct metric_label *labels, uint64_t n)
{
	if (f)
		sample_count(f, "", labels, NULL, n);
}

void metric_value(struct metric_family *f, const struct metric_label *labels, double v)
{
	char text[VALUE_LEN];

	if (f)
		sample(f, "", labels, NULL, number(v, text));
}

void metric_histogram(struct metric_family *f, const struct metric_label *labels,
		      const double *bounds, const uint64_t *counts, size_t n, double sum)
{
	char text[VALUE_LEN];
	uint64_t total = 0;

	if (!f)
		return;
	assert(f->type == METRIC_HISTOGRAM);
	for (size_t i = 0; i <= n; i++) {
		total += counts[i];
		sample_count(f, "_bucket", labels, i < n ? number(bounds[i], text) : "+Inf", total);
	}
	sample(f, "_sum", labels, NULL, number(sum, text));
	sample_count(f, "_count", labels, NULL, total);
}

static int by_name(const void *a, const void *b)
{
	const struct metric_family *const *f = a, *const *g = b;

	return strcmp((*f)->name, (*g)->name);
}

int metrics_text_finish(struct metrics_text *t, char **ret, size_t *ret_len)
{
	static const char *const types[] = {
		[METRIC_GAUGE] = "gauge",
		[METRIC_COUNTER] = "counter",
		[METRIC_HISTOGRAM] = "histogram",
	};
	struct buf all = { .failed = t->failed };

	qsort(t->families, t->n, sizeof(struct metric_family *), by_name);
	put(&all, "", 0);
	for (size_t i = 0; i < t->n && !all.failed; i++) {
		const struct metric_family *f = t->families[i];

		if (f->samples.failed)
			all.failed = true;
		if (!f->samples.len)
			continue;
		puts_to(&all, "# HELP ");
		puts_to(&all, f->name);
		puts_to(&all, " ");
		put_escaped(&all, f->help, false);
		puts_to(&all, "\n# TYPE ");
		puts_to(&all, f->name);
		puts_to(&all, " ");
		puts_to(&all, types[f->type]);
		puts_to(&all, "\n");
		put(&all, f->samples.s, f->samples.len);
	}
	if (all.failed) {
		free(all.s);
		return -ENOMEM;
	}
	*ret = all.s;
	*ret_len = all.len;
	return 0;
}
