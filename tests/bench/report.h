/* SPDX-License-Identifier: BSD-2-Clause */
/* What was measured: collecting samples, medians and ratios, a table for people and a JSON file. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rig.h"

#define REPORT_SAMPLES_MAX 64

enum series_what {
	SERIES_OUT, /* established flows, client to uplink */
	SERIES_IN,  /* and back */
	SERIES_NEW, /* packets that begin a flow each */
	SERIES_WHATS,
};

/* One measure: an edge, a number of flows, and what was done. */
struct series {
	const struct edge_spec *edge;
	enum series_what what;
	uint32_t flows; /* in the tables; SERIES_NEW: at the end */
	double ns[REPORT_SAMPLES_MAX];
	size_t n;
	char failed[256]; /* why, or empty */
};

struct report;

struct report *report_new(const struct edge_spec *edges, size_t n_edges);
void report_free(struct report *r);

/* The series of that name, made if it is new. Valid until report_free(). */
struct series *report_series(struct report *r, size_t edge, enum series_what what, uint32_t flows);
void series_add(struct series *s, double ns);
/* Only the first reason is kept. */
void series_fail(struct series *s, const char *why);

/* Bytes that one flow takes in this edge's tables; 0: not known. */
void report_memory(struct report *r, size_t edge, double bytes_per_flow);

void report_print(const struct report *r);
/* Ends the program when the file can't be written. */
void report_write_json(const struct report *r, const char *path);
/* Measures that failed; each is named on stderr. */
size_t report_failures(const struct report *r);

#endif
