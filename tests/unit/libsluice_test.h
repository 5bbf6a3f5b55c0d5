/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of libsluice share: a daemon in another process, and handles. Descriptors are counted around each test. */
#ifndef LIBSLUICE_TEST_H
#define LIBSLUICE_TEST_H

#include "fakelease.h"

#include <dirent.h>
#include <libgen.h>
#include <sys/resource.h>
#include <time.h>

#include "lib/internal.h"
#include "sluice.h"

#define HANG_MS 20000 /* what takes so long has failed */

static pid_t server;

static inline struct sluice *open_handle(void)
{
	struct sluice *s = NULL;

	if (sluice_connect(fake_path, &s) < 0)
		fail_msg("sluice_connect: %s", sluice_error(s));
	sluice_set_timeout(s, HANG_MS);
	return s;
}

static inline struct sluice_lease *acquire_one(struct sluice *s, const struct sluice_request *req)
{
	struct sluice_lease *l = NULL;

	if (sluice_acquire(s, req, &l) < 0)
		fail_msg("sluice_acquire: %s", sluice_error(s));
	return l;
}

static inline void expect_error(struct sluice *s, int r, int err, const char *part)
{
	if (r != -err || !strstr(sluice_error(s), part))
		fail_msg("%d (wanted %d): %s (wanted: %s)", r, -err, sluice_error(s), part);
}

static inline unsigned count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static inline bool wait_until(bool (*fn)(void *), void *data)
{
	struct timespec step = { .tv_nsec = 2000000 };

	for (int ms = 0; ms < HANG_MS; ms += 2) {
		if (fn(data))
			return true;
		nanosleep(&step, NULL);
	}
	return false;
}

static inline int setup(void **state)
{
	(void)state;
	if (fake_setup() < 0)
		return -1;
	server = fake_start();
	return 0;
}

static inline int teardown(void **state)
{
	(void)state;
	fake_stop(server);
	return fake_teardown();
}

#endif
