// SPDX-License-Identifier: BSD-2-Clause
/*
 * Commits in a thread: SQLite's work and the wait for the disk go on while the daemon decides about the next calls. See store_commit_begin().
 */
#include "store_private.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* This thread is carrying out what was begun: the store is its own. */
static _Thread_local bool carrying_out;

static void carry_out(struct store *s)
{
	struct store_worker *w = &s->worker;
	int r;

	carrying_out = true;
	r = store_commit(s, w->batch, &w->err);
	carrying_out = false;
	pthread_mutex_lock(&w->lock);
	w->result = r;
	w->state = WORKER_ENDED;
	/* Its count is 0: nothing can go wrong. */
	eventfd_write(w->fd, 1);
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

static void *worker(void *arg)
{
	struct store *s = arg;
	struct store_worker *w = &s->worker;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (w->state != WORKER_BEGUN && !w->closing)
			pthread_cond_wait(&w->changed, &w->lock);
		if (w->state != WORKER_BEGUN)
			break;
		pthread_mutex_unlock(&w->lock);
		carry_out(s);
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

int store_worker_open(struct store *s, struct errtext *err)
{
	struct store_worker *w = &s->worker;

	w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->fd < 0)
		return errtext_set(err, errno, "store: eventfd: %s", strerror(errno));
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->changed, NULL);
	return 0;
}

void store_worker_close(struct store *s)
{
	struct store_worker *w = &s->worker;

	if (w->fd < 0)
		return;
	if (w->started) {
		pthread_mutex_lock(&w->lock);
		w->closing = true;
		pthread_cond_broadcast(&w->changed);
		pthread_mutex_unlock(&w->lock);
		pthread_join(w->thread, NULL);
	}
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	close(w->fd);
	w->fd = -1;
}

void store_wait(struct store *s)
{
	struct store_worker *w = &s->worker;

	if (w->fd < 0 || carrying_out)
		return;
	pthread_mutex_lock(&w->lock);
	while (w->state == WORKER_BEGUN)
		pthread_cond_wait(&w->changed, &w->lock);
	pthread_mutex_unlock(&w->lock);
}

void store_commit_begin(struct store *s, const struct store_batch *b)
{
	struct store_worker *w = &s->worker;

	assert(w->state == WORKER_IDLE);
	w->batch = b;
	w->err = (struct errtext){ 0 };
	pthread_mutex_lock(&w->lock);
	w->state = WORKER_BEGUN;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	if (w->started)
		return;
	w->started = pthread_create(&w->thread, NULL, worker, s) == 0;
	/* No thread to be had: it takes longer, and that is all. The next one tries again. */
	if (!w->started)
		carry_out(s);
}

bool store_commit_done(struct store *s)
{
	struct store_worker *w = &s->worker;
	bool done;

	if (w->fd < 0)
		return true;
	pthread_mutex_lock(&w->lock);
	done = w->state != WORKER_BEGUN;
	pthread_mutex_unlock(&w->lock);
	return done;
}

int store_commit_end(struct store *s, struct errtext *err)
{
	struct store_worker *w = &s->worker;
	eventfd_t count;

	assert(w->state != WORKER_IDLE);
	store_wait(s);
	eventfd_read(w->fd, &count);
	w->state = WORKER_IDLE;
	if (w->result < 0)
		*err = w->err;
	return w->result;
}

int store_commit_fd(const struct store *s)
{
	return s->worker.fd;
}
