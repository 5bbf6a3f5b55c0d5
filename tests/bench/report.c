/* SPDX-License-Identifier: BSD-2-Clause */
#include "report.h"

#include <assert.h>
#include <jansson.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "die.h"

#define SERIES_MAX 512

struct report {
	const struct edge_spec *edges;
	size_t n_edges;
	double *bytes_per_flow;
	struct series *series[SERIES_MAX];
	size_t n;
};

static const char *const what_names[] = { "out", "in", "new" };

struct report *report_new(const struct edge_spec *edges, size_t n_edges)
{
	struct report *r = calloc(1, sizeof(*r));

	if (!r || !(r->bytes_per_flow = calloc(n_edges, sizeof(*r->bytes_per_flow))))
		die("out of memory");
	r->edges = edges;
	r->n_edges = n_edges;
	return r;
}

void report_free(struct report *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->n; i++)
		free(r->series[i]);
	free(r->bytes_per_flow);
	free(r);
}

static struct series *find(const struct report *r, const struct edge_spec *edge,
			   enum series_what what, uint32_t flows)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->series[i]->edge == edge && r->series[i]->what == what &&
		    r->series[i]->flows == flows)
			return r->series[i];
	return NULL;
}

struct series *report_series(struct report *r, size_t edge, enum series_what what, uint32_t flows)
{
	struct series *s = find(r, &r->edges[edge], what, flows);

	if (s)
		return s;
	assert(r->n < SERIES_MAX);
	s = calloc(1, sizeof(*s));
	if (!s)
		die("out of memory");
	s->edge = &r->edges[edge];
	s->what = what;
	s->flows = flows;
	r->series[r->n++] = s;
	return s;
}

void series_add(struct series *s, double ns)
{
	assert(s->n < REPORT_SAMPLES_MAX);
	s->ns[s->n++] = ns;
}

void series_fail(struct series *s, const char *why)
{
	if (!s->failed[0])
		snprintf(s->failed, sizeof(s->failed), "%s", why);
}

void report_memory(struct report *r, size_t edge, double bytes_per_flow)
{
	r->bytes_per_flow[edge] = bytes_per_flow;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* What a series comes to. */
struct digest {
	double median, min, max;
};

/* False for a series that is not there, failed, or is empty. */
static bool digest(const struct series *s, struct digest *ret)
{
	double v[REPORT_SAMPLES_MAX];

	if (!s || s->failed[0] || !s->n)
		return false;
	memcpy(v, s->ns, s->n * sizeof(*v));
	qsort(v, s->n, sizeof(*v), by_value);
	ret->median = s->n % 2 ? v[s->n / 2] : (v[s->n / 2 - 1] + v[s->n / 2]) / 2;
	ret->min = v[0];
	ret->max = v[s->n - 1];
	return true;
}

/* How many times the cost of the edge of that kind in the same place; 0: not known. */
static double ratio(const struct report *r, const struct series *s, enum edge_kind kind)
{
	struct digest own, other;

	if (!digest(s, &own))
		return 0;
	for (size_t i = 0; i < r->n_edges; i++)
		if (r->edges[i].kind == kind && r->edges[i].proto == s->edge->proto &&
		    digest(find(r, &r->edges[i], s->what, s->flows), &other))
			return own.median / other.median;
	return 0;
}

/* What the table shows of each kind of series. */
static const struct column {
	const char *head;
	bool rate, to_forwarding;
} columns[] = {
	[SERIES_OUT] = { "client to uplink", .rate = true, .to_forwarding = true },
	[SERIES_IN] = { "uplink to client", .to_forwarding = true },
	[SERIES_NEW] = { "to begin a flow", .rate = true },
};

static int column_width(const struct column *c)
{
	return 21 + (c->rate ? 6 : 0) + (c->to_forwarding ? 6 : 0);
}

static void print_ratio(double v)
{
	if (v > 0)
		printf(" %5.2f", v);
	else
		printf(" %5s", "-");
}

static void print_series(const struct report *r, const struct column *c, const struct series *s)
{
	struct digest d;

	if (!digest(s, &d)) {
		printf("  %7s%*s", s ? "FAILED" : "-", column_width(c) - 9, "");
		return;
	}
	printf("  %7.0f", d.median);
	if (c->rate)
		printf(" %5.0f", 1e6 / d.median);
	if (c->to_forwarding)
		print_ratio(ratio(r, s, EDGE_FORWARD));
	print_ratio(ratio(r, s, EDGE_NFTABLES));
	printf(" %4.0f%%", (d.max - d.min) / 2 / d.median * 100);
}

static void print_block(const struct report *r, uint8_t proto, uint32_t flows)
{
	const struct edge_spec *e;
	char title[32];

	snprintf(title, sizeof(title), "%s, %u flows", proto == IPPROTO_TCP ? "TCP" : "UDP", flows);
	printf("\n%-27s", title);
	for (int i = 0; i < SERIES_WHATS; i++)
		printf("  %-*s", column_width(&columns[i]) - 2, columns[i].head);
	printf("   bytes\n%-27s", "");
	for (int i = 0; i < SERIES_WHATS; i++)
		printf("  %7s%s%s %5s %5s", "ns", columns[i].rate ? "  kpps" : "",
		       columns[i].to_forwarding ? "  /fwd" : "", "/nft", "+-");
	printf("  a flow\n");
	for (size_t i = 0; i < r->n_edges; i++) {
		e = &r->edges[i];
		if (e->proto != proto)
			continue;
		printf("%-27s", e->label);
		for (int what = 0; what < SERIES_WHATS; what++)
			print_series(r, &columns[what], find(r, e, what, flows));
		if (r->bytes_per_flow[i] > 0)
			printf("  %6.0f", r->bytes_per_flow[i]);
		printf("\n");
	}
}

/* Is this the first series of its protocol and number of flows? */
static bool begins_block(const struct report *r, size_t at)
{
	const struct series *s = r->series[at];

	for (size_t i = 0; i < at; i++)
		if (r->series[i]->flows == s->flows && r->series[i]->edge->proto == s->edge->proto)
			return false;
	return true;
}

void report_print(const struct report *r)
{
	for (size_t i = 0; i < r->n; i++)
		if (begins_block(r, i))
			print_block(r, r->series[i]->edge->proto, r->series[i]->flows);
	printf("\nns, kpps: median cost of one packet on one CPU, and thousands of packets a "
	       "second that this "
	       "makes.\n/fwd, /nft: times the cost of plain forwarding, of nftables SNAT. +-: half "
	       "the range of "
	       "the samples.\n");
}

static void set_real(json_t *o, const char *key, double v)
{
	if (v > 0)
		json_object_set_new(o, key, json_real(v));
}

static json_t *series_json(const struct report *r, const struct series *s)
{
	json_t *o = json_object(), *samples = json_array();
	struct digest d;

	json_object_set_new(o, "name", json_string(s->edge->label));
	json_object_set_new(o, "proto", json_string(s->edge->proto == IPPROTO_TCP ? "tcp" : "udp"));
	json_object_set_new(o, "what", json_string(what_names[s->what]));
	json_object_set_new(o, "flows", json_integer(s->flows));
	json_object_set_new(o, "ok", json_boolean(!s->failed[0]));
	if (s->failed[0])
		json_object_set_new(o, "failed", json_string(s->failed));
	if (digest(s, &d)) {
		set_real(o, "ns_per_packet", d.median);
		set_real(o, "packets_per_s", 1e9 / d.median);
		set_real(o, "min_ns", d.min);
		set_real(o, "max_ns", d.max);
	}
	set_real(o, "ratio_forwarding", ratio(r, s, EDGE_FORWARD));
	set_real(o, "ratio_nftables", ratio(r, s, EDGE_NFTABLES));
	set_real(o, "bytes_per_flow", r->bytes_per_flow[s->edge - r->edges]);
	for (size_t i = 0; i < s->n; i++)
		json_array_append_new(samples, json_real(s->ns[i]));
	json_object_set_new(o, "samples_ns", samples);
	return o;
}

void report_write_json(const struct report *r, const char *path)
{
	json_t *all = json_array();

	for (size_t i = 0; i < r->n; i++)
		json_array_append_new(all, series_json(r, r->series[i]));
	if (json_dump_file(all, path, JSON_INDENT(1) | JSON_REAL_PRECISION(6)))
		die("%s: can't be written", path);
	json_decref(all);
}

size_t report_failures(const struct report *r)
{
	const struct series *s;
	size_t n = 0;

	for (size_t i = 0; i < r->n; i++) {
		s = r->series[i];
		if (!s->failed[0] && s->n)
			continue;
		fprintf(stderr, "FAILED %s, %s, %u flows: %s\n", s->edge->label,
			what_names[s->what], s->flows, s->failed[0] ? s->failed : "not measured");
		n++;
	}
	return n;
}
