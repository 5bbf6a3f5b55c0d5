/* SPDX-License-Identifier: BSD-2-Clause */
#include "table.h"

#include <errno.h>
#include <libsmartcols/libsmartcols.h>
#include <stdlib.h>
#include <unistd.h>

#define BATCH 512

struct table {
	FILE *f;
	const struct table_column *columns;
	size_t n;
	bool header; /* still to be printed */
	bool colour;
	size_t *width; /* of each column, the widest so far */
	struct libscols_table *tb;
	size_t rows; /* in tb */
};

/* A new, empty batch. */
static int batch_begin(struct table *t)
{
	struct libscols_table *tb = scols_new_table();

	if (!tb)
		return -ENOMEM;
	scols_table_set_stream(tb, t->f);
	scols_table_enable_noheadings(tb, !t->header);
	scols_table_enable_colors(tb, t->colour);
	for (size_t i = 0; i < t->n; i++) {
		double min = t->width[i] > 1 ? (double)t->width[i] : 1;

		if (!scols_table_new_column(tb, t->columns[i].name, min,
					    t->columns[i].right ? SCOLS_FL_RIGHT : 0)) {
			scols_unref_table(tb);
			return -ENOMEM;
		}
	}
	t->tb = tb;
	t->rows = 0;
	return 0;
}

static int batch_print(struct table *t)
{
	int r;

	errno = 0;
	if (t->rows > 0) {
		r = scols_print_table(t->tb);
	} else {
		/* Without rows the library prints nothing, but a header tells what was asked. */
		r = 0;
		for (size_t i = 0; i < t->n && t->header; i++)
			fprintf(t->f, "%s%s", t->columns[i].name, i + 1 < t->n ? " " : "\n");
	}
	if (ferror(t->f) || r < 0)
		r = errno ? -errno : -EIO;
	t->header = false;
	scols_unref_table(t->tb);
	t->tb = NULL;
	return r;
}

int table_open(FILE *f, const struct table_column *columns, size_t n, bool header,
	       struct table **ret)
{
	const char *no_colour = getenv("NO_COLOR");
	struct table *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return -ENOMEM;
	*t = (struct table){
		.f = f,
		.columns = columns,
		.n = n,
		.header = header,
		.colour = isatty(fileno(f)) && !(no_colour && *no_colour),
		.width = calloc(n, sizeof(size_t)),
	};
	r = t->width ? batch_begin(t) : -ENOMEM;
	if (r < 0) {
		table_drop(t);
		return r;
	}
	*ret = t;
	return 0;
}

int table_row(struct table *t, const char *const *cells, bool alert)
{
	struct libscols_line *line;
	int r;

	if (!t->tb) {
		r = batch_begin(t);
		if (r < 0)
			return r;
	}
	line = scols_table_new_line(t->tb, NULL);
	if (!line)
		return -ENOMEM;
	if (alert && scols_line_set_color(line, "red"))
		return -ENOMEM;
	for (size_t i = 0; i < t->n; i++) {
		const char *text = cells[i] ? cells[i] : "-";
		size_t len = 0;

		if (scols_line_set_data(line, i, text))
			return -ENOMEM;
		/* Characters, not bytes: those of UTF-8 that begin one. */
		for (const char *p = text; *p; p++)
			len += ((unsigned char)*p & 0xc0) != 0x80;
		if (len > t->width[i])
			t->width[i] = len;
	}
	t->rows++;
	return t->rows == BATCH ? batch_print(t) : 0;
}

int table_close(struct table *t)
{
	int r = 0;

	if (!t)
		return 0;
	if (t->tb && (t->rows > 0 || t->header))
		r = batch_print(t);
	table_drop(t);
	return r;
}

void table_drop(struct table *t)
{
	if (!t)
		return;
	if (t->tb)
		scols_unref_table(t->tb);
	free(t->width);
	free(t);
}
