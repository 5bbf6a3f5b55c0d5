// SPDX-License-Identifier: BSD-2-Clause
/*
 * Commits in a thread: SQLite's work and the wait for the disk go on while the daemon decides about the next calls. See store_commit_begin().
 */
#include "store_private.h"

/* This thread is carrying out what was begun: the store is its own. */
static _Thread_local bool carrying_out;

static int commit_run(void *arg)
{
	struct store *s = arg;
	int r;

	carrying_out = true;
	r = store_commit(s, s->committing, &s->commit_err);
	carrying_out = false;
	return r;
}

void store_wait(struct store *s)
{
	if (!carrying_out)
		worker_wait(&s->worker);
}

void store_commit_begin(struct store *s, const struct store_batch *b)
{
	s->committing = b;
	s->commit_err = (struct errtext){ 0 };
	worker_begin(&s->worker, commit_run, s);
}

bool store_commit_done(struct store *s)
{
	return worker_done(&s->worker);
}

int store_commit_end(struct store *s, struct errtext *err)
{
	int r = worker_end(&s->worker);

	if (r < 0)
		*err = s->commit_err;
	return r;
}

int store_commit_fd(const struct store *s)
{
	return worker_fd(&s->worker);
}
