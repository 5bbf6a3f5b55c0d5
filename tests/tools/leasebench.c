/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How many leases a second? Threads, each with a connection of its own, acquire and release through libsluice.
 *
 *   leasebench [--socket PATH] [--threads N] [--seconds S] [--batch N] [--pairs N] [--pool POOL] [--proto tcp|udp] [--exclusive]
 *              [--rate N]
 *
 * --threads 64, --seconds 5, --batch 1 by default. A batch is as many leases in one Acquire, and in one Release. With --pairs
 * each thread ends after so many leases, if not earlier. With --rate all threads together make so many pairs a second, if they can: calls that
 * would come before their time wait for it, so that times are those of a daemon which is not flooded. Prints one line:
 *   {"threads":64,"batch":1,"seconds":5.00,"pairs":N,"pairs_per_s":N.N,"calls":N,
 *    "acquire_p50_us":N,"acquire_p99_us":N,"acquire_max_us":N,"release_p50_us":N,"release_p99_us":N,"release_max_us":N,
 *    "errors":0,"first_error":""}
 * A pair is one lease, acquired and released. Times are those of whole calls, as the program sees them; errors are not among them. Percentiles are exact to 1 %.
 *
 * Exit status 0 if there was no error, else 1.
 */
#include "tool.h"

#include <getopt.h>
#include <pthread.h>

#include "sluice.h"

#define BATCH_MAX 256

/*
 * Times in buckets that are 1/128 of their size wide: 128 of 1 us each, then 128 for each doubling.
 */
#define SUB     128
#define BUCKETS (SUB * 24)

struct times {
	uint64_t n, max_us;
	uint32_t buckets[BUCKETS];
};

struct worker {
	pthread_t thread;
	struct sluice *s;
	uint64_t pairs, calls, errors;
	char first_error[256];
	uint64_t turn_ns; /* see pace() */
	unsigned seed;
	struct times acquire, release;
};

static struct {
	const char *socket;
	unsigned threads, batch;
	uint64_t pairs; /* of each thread */
	uint64_t rate;  /* pairs a second of all threads; 0: as many as can be */
	double seconds;
	struct sluice_request req;
	uint64_t end_ns;
	pthread_barrier_t ready;
} opts = { .threads = 64, .batch = 1, .pairs = UINT64_MAX, .seconds = 5 };

static unsigned bucket_of(uint64_t us)
{
	unsigned shift = 0, b;

	while (us >> shift >= 2 * SUB)
		shift++;
	b = us < SUB ? (unsigned)us : SUB * (shift + 1) + (unsigned)(us >> shift) - SUB;
	return b < BUCKETS ? b : BUCKETS - 1;
}

/* The upper end of a bucket. */
static uint64_t bucket_us(unsigned b)
{
	unsigned shift = b / SUB;

	if (shift == 0)
		return b;
	return ((uint64_t)(b % SUB + SUB + 1) << (shift - 1)) - 1;
}

static void times_add(struct times *t, uint64_t ns)
{
	uint64_t us = (ns + 999) / 1000;

	t->n++;
	t->buckets[bucket_of(us)]++;
	if (us > t->max_us)
		t->max_us = us;
}

static void times_sum(struct times *sum, const struct times *t)
{
	sum->n += t->n;
	if (t->max_us > sum->max_us)
		sum->max_us = t->max_us;
	for (unsigned b = 0; b < BUCKETS; b++)
		sum->buckets[b] += t->buckets[b];
}

static uint64_t times_percentile(const struct times *t, unsigned percent)
{
	uint64_t seen = 0, want = (t->n * percent + 99) / 100;

	for (unsigned b = 0; b < BUCKETS; b++) {
		seen += t->buckets[b];
		if (t->n && seen >= want)
			return bucket_us(b) < t->max_us ? bucket_us(b) : t->max_us;
	}
	return 0;
}

static void note_error(struct worker *w)
{
	if (w->errors++ == 0)
		snprintf(w->first_error, sizeof(w->first_error), "%s", sluice_error(w->s));
}

/* Not before this thread's next turn. Turns are drawn with the wanted mean: threads in step would come all at once. */
static void pace(struct worker *w)
{
	uint64_t mean_ns, now = now_ns();
	struct timespec ts;

	if (!opts.rate)
		return;
	mean_ns = opts.threads * opts.batch * 1000000000ULL / opts.rate;
	if (!w->turn_ns)
		w->turn_ns = now;
	w->turn_ns += (uint64_t)rand_r(&w->seed) * 2 * mean_ns / RAND_MAX;
	if (w->turn_ns <= now)
		return;
	ts.tv_sec = (time_t)(w->turn_ns / 1000000000);
	ts.tv_nsec = (long)(w->turn_ns % 1000000000);
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
}

static void *work(void *data)
{
	struct worker *w = data;
	struct sluice_lease *l[BATCH_MAX];
	uint64_t begin_ns, acquired_ns;

	pthread_barrier_wait(&opts.ready); /* all are connected */
	pthread_barrier_wait(&opts.ready); /* the time has been set */
	while (!tool_stopped && w->pairs < opts.pairs && now_ns() < opts.end_ns) {
		pace(w);
		begin_ns = now_ns();
		w->calls++;
		if (sluice_acquire_many(w->s, &opts.req, opts.batch, l) < 0) {
			note_error(w);
			continue;
		}
		acquired_ns = now_ns();
		times_add(&w->acquire, acquired_ns - begin_ns);
		w->calls++;
		if (sluice_release_many(w->s, l, opts.batch) < 0) {
			note_error(w);
			continue;
		}
		times_add(&w->release, now_ns() - acquired_ns);
		w->pairs += opts.batch;
	}
	return NULL;
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {
		{ "socket", required_argument, NULL, 's' },
		{ "threads", required_argument, NULL, 't' },
		{ "seconds", required_argument, NULL, 'n' },
		{ "batch", required_argument, NULL, 'b' },
		{ "pairs", required_argument, NULL, 'm' },
		{ "pool", required_argument, NULL, 'p' },
		{ "proto", required_argument, NULL, 'o' },
		{ "exclusive", no_argument, NULL, 'x' },
		{ "rate", required_argument, NULL, 'r' },
		{ 0 },
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 's':
			opts.socket = optarg;
			break;
		case 't':
			opts.threads = (unsigned)parse_number("--threads", optarg, 1, 1024);
			break;
		case 'n':
			opts.seconds = (double)parse_number("--seconds", optarg, 1, 3600);
			break;
		case 'b':
			opts.batch = (unsigned)parse_number("--batch", optarg, 1, BATCH_MAX);
			break;
		case 'r':
			opts.rate = parse_number("--rate", optarg, 1, 10000000);
			break;
		case 'm':
			opts.pairs = parse_number("--pairs", optarg, 1, UINT64_MAX);
			break;
		case 'p':
			opts.req.pool = optarg;
			break;
		case 'o':
			if (strcmp(optarg, "tcp") != 0 && strcmp(optarg, "udp") != 0)
				die("--proto: \"%s\" is not tcp or udp", optarg);
			opts.req.proto = *optarg == 't' ? SLUICE_PROTO_TCP : SLUICE_PROTO_UDP;
			break;
		case 'x':
			opts.req.exclusive = true;
			break;
		default:
			exit(2);
		}
	}
	if (optind < argc)
		die("leasebench does not take \"%s\"", argv[optind]);
}

/* A sentence of ours as JSON text. */
static void print_text(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putchar('\\');
		putchar((unsigned char)*text < ' ' ? ' ' : *text);
	}
	putchar('"');
}

static void report(const struct worker *workers, double seconds)
{
	struct worker *sum = calloc(1, sizeof(*sum));

	if (!sum)
		die("out of memory");
	for (unsigned i = 0; i < opts.threads; i++) {
		const struct worker *w = &workers[i];

		sum->pairs += w->pairs;
		sum->calls += w->calls;
		times_sum(&sum->acquire, &w->acquire);
		times_sum(&sum->release, &w->release);
		if (w->errors && !sum->errors)
			memcpy(sum->first_error, w->first_error, sizeof(sum->first_error));
		sum->errors += w->errors;
	}
	printf("{\"threads\":%u,\"batch\":%u,\"seconds\":%.2f,\"pairs\":%llu,\"pairs_per_s\":%.1f,"
	       "\"calls\":%llu,",
	       opts.threads, opts.batch, seconds, (unsigned long long)sum->pairs,
	       (double)sum->pairs / seconds, (unsigned long long)sum->calls);
	printf("\"acquire_p50_us\":%llu,\"acquire_p99_us\":%llu,\"acquire_max_us\":%llu,",
	       (unsigned long long)times_percentile(&sum->acquire, 50),
	       (unsigned long long)times_percentile(&sum->acquire, 99),
	       (unsigned long long)sum->acquire.max_us);
	printf("\"release_p50_us\":%llu,\"release_p99_us\":%llu,\"release_max_us\":%llu,",
	       (unsigned long long)times_percentile(&sum->release, 50),
	       (unsigned long long)times_percentile(&sum->release, 99),
	       (unsigned long long)sum->release.max_us);
	printf("\"errors\":%llu,\"first_error\":", (unsigned long long)sum->errors);
	print_text(sum->first_error);
	puts("}");
	fflush(stdout);
	free(sum);
}

int main(int argc, char **argv)
{
	struct worker *workers;
	uint64_t errors = 0, begin_ns;
	double seconds;

	parse(argc, argv);
	tool_catch_signals();
	tool_raise_files();
	workers = calloc(opts.threads, sizeof(*workers));
	if (!workers)
		die("out of memory");
	pthread_barrier_init(&opts.ready, NULL, opts.threads + 1);
	for (unsigned i = 0; i < opts.threads; i++) {
		struct worker *w = &workers[i];

		w->seed = i + 1;
		if (sluice_connect(opts.socket, &w->s) < 0)
			die("%s", sluice_error(w->s));
		if (pthread_create(&w->thread, NULL, work, w) != 0)
			die("cannot start thread %u", i);
	}
	pthread_barrier_wait(&opts.ready);
	begin_ns = now_ns();
	opts.end_ns = begin_ns + (uint64_t)(opts.seconds * 1e9);
	pthread_barrier_wait(&opts.ready);
	for (unsigned i = 0; i < opts.threads; i++) {
		pthread_join(workers[i].thread, NULL);
		errors += workers[i].errors;
	}
	seconds = (double)(now_ns() - begin_ns) / 1e9;
	report(workers, seconds);
	for (unsigned i = 0; i < opts.threads; i++)
		sluice_close(workers[i].s);
	free(workers);
	return errors ? 1 : 0;
}
