/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Metrics as text, as Prometheus reads it (exposition format 0.0.4): families with HELP and TYPE, sorted by name, each with its samples in the order in which they came. Pure; no
 * locale but "C" is expected.
 *
 * Running out of memory is noticed once, at the end: until then every function takes a NULL family, and does nothing.
 */
#ifndef METRICS_TEXT_H
#define METRICS_TEXT_H

#include <stddef.h>
#include <stdint.h>

#define METRICS_TEXT_TYPE "text/plain; version=0.0.4; charset=utf-8"

enum metric_type {
	METRIC_GAUGE,
	METRIC_COUNTER, /* its name ends in _total */
	METRIC_HISTOGRAM,
};

/* A list of these ends with a name of NULL. Values are UTF-8, and are escaped here. */
struct metric_label {
	const char *name, *value;
};

/* METRIC_LABELS({ "pool", p->name }, { "proto", "tcp" }) */
#define METRIC_LABELS(...) ((const struct metric_label[]){ __VA_ARGS__, { NULL, NULL } })

struct metrics_text;
struct metric_family;

struct metrics_text *metrics_text_new(void); /* NULL without memory */
void metrics_text_free(struct metrics_text *t);

/* A family. name is a metric's name that is not there yet (assert), and outlives t, as help does. */
struct metric_family *metrics_text_family(struct metrics_text *t, const char *name,
					  enum metric_type type, const char *help);

/* One sample. labels NULL: none. Counts are written exactly. */
void metric_count(struct metric_family *f, const struct metric_label *labels, uint64_t n);
void metric_value(struct metric_family *f, const struct metric_label *labels, double v);
/*
 * A histogram's samples. bounds: n upper bounds, rising. counts: n + 1 counts, not cumulative; the last one is of what lies above all bounds.
 */
void metric_histogram(struct metric_family *f, const struct metric_label *labels,
		      const double *bounds, const uint64_t *counts, size_t n, double sum);

/*
 * All of it, for free(); *ret_len is without the terminating NUL. Families without samples are left out. 0 or -ENOMEM.
 */
int metrics_text_finish(struct metrics_text *t, char **ret, size_t *ret_len);

#endif
