/* SPDX-License-Identifier: BSD-2-Clause */
#include "finding.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void findings_done(struct findings *fs)
{
	free(fs->v);
	*fs = (struct findings){ 0 };
}

static struct finding *findings_grow(struct findings *fs)
{
	if (fs->n == fs->cap) {
		size_t cap = fs->cap ? fs->cap * 2 : 16;
		struct finding *v = reallocarray(fs->v, cap, sizeof(*v));

		if (!v) {
			fs->err = -ENOMEM;
			return NULL;
		}
		fs->v = v;
		fs->cap = cap;
	}
	return &fs->v[fs->n++];
}

/* Names of links and chains are bytes that others chose: none of them reaches a terminal or breaks the JSON. */
static void ascii_only(char *s)
{
	for (; *s; s++)
		if (*s < ' ' || *s > '~')
			*s = '?';
}

void findings_add(struct findings *fs, const char *id, enum severity severity, const char *advice,
		  const char *fmt, ...)
{
	struct finding *f = findings_grow(fs);
	va_list ap;

	if (!f)
		return;
	memset(f, 0, sizeof(*f));
	snprintf(f->id, sizeof(f->id), "%s", id);
	f->severity = severity;
	snprintf(f->advice, sizeof(f->advice), "%s", advice ? advice : "");
	va_start(ap, fmt);
	vsnprintf(f->text, sizeof(f->text), fmt, ap);
	va_end(ap);
	ascii_only(f->advice);
	ascii_only(f->text);
}

enum severity findings_worst(const struct findings *fs)
{
	enum severity worst = fs->err ? FINDING_ERROR : FINDING_OK;

	for (size_t i = 0; i < fs->n; i++)
		if (fs->v[i].severity > worst)
			worst = fs->v[i].severity;
	return worst;
}

const char *severity_name(enum severity s)
{
	static const char *const names[FINDING_SEVERITIES] = {
		[FINDING_OK] = "ok",
		[FINDING_INFO] = "info",
		[FINDING_WARN] = "warn",
		[FINDING_ERROR] = "error",
	};

	return names[s];
}

static int findings_print_json(FILE *f, const struct findings *fs)
{
	json_t *list = json_array();
	json_t *doc = json_pack("{s:s, s:o}", "worst", severity_name(findings_worst(fs)),
				"findings", list);
	int r = doc ? 0 : -ENOMEM;

	for (size_t i = 0; !r && i < fs->n; i++) {
		const struct finding *x = &fs->v[i];

		if (json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "id", x->id,
							  "severity", severity_name(x->severity),
							  "text", x->text, "advice", x->advice)))
			r = -ENOMEM;
	}
	if (!r && (json_dumpf(doc, f, JSON_INDENT(1)) || fputc('\n', f) == EOF))
		r = -EIO;
	json_decref(doc);
	return r;
}

int findings_print(FILE *f, const struct findings *fs, bool json)
{
	if (json)
		return findings_print_json(f, fs);
	for (size_t i = 0; i < fs->n; i++) {
		const struct finding *x = &fs->v[i];

		fprintf(f, "%-5s  %-22s  %s\n", severity_name(x->severity), x->id, x->text);
		if (*x->advice)
			fprintf(f, "%-5s  %-22s  -> %s\n", "", "", x->advice);
	}
	return ferror(f) ? -EIO : 0;
}
