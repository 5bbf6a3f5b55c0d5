// SPDX-License-Identifier: BSD-2-Clause
/* See worker.h. */
#include "worker.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void carry_out(struct worker *w)
{
	int r = w->fn(w->arg);

	pthread_mutex_lock(&w->lock);
	w->result = r;
	w->state = WORKER_ENDED;
	/* Its count is 0: nothing can go wrong. */
	eventfd_write(w->fd, 1);
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

static void *run(void *arg)
{
	struct worker *w = arg;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (w->state != WORKER_BEGUN && !w->closing)
			pthread_cond_wait(&w->changed, &w->lock);
		if (w->state != WORKER_BEGUN)
			break;
		pthread_mutex_unlock(&w->lock);
		carry_out(w);
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

int worker_open(struct worker *w, struct errtext *err)
{
	*w = (struct worker){ .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	if (w->fd < 0)
		return errtext_set(err, errno, "eventfd: %s", strerror(errno));
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->changed, NULL);
	return 0;
}

void worker_close(struct worker *w)
{
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

void worker_begin(struct worker *w, int (*fn)(void *arg), void *arg)
{
	assert(w->state == WORKER_IDLE);
	pthread_mutex_lock(&w->lock);
	w->fn = fn;
	w->arg = arg;
	w->state = WORKER_BEGUN;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	if (w->started)
		return;
	w->started = pthread_create(&w->thread, NULL, run, w) == 0;
	/* No thread to be had: it takes longer, and that is all. The next one tries again. */
	if (!w->started)
		carry_out(w);
}

bool worker_has_job(const struct worker *w)
{
	/* Only the owner's calls begin and end one. */
	return w->fd >= 0 && w->fn;
}

bool worker_done(struct worker *w)
{
	bool done;

	if (w->fd < 0)
		return true;
	pthread_mutex_lock(&w->lock);
	done = w->state != WORKER_BEGUN;
	pthread_mutex_unlock(&w->lock);
	return done;
}

void worker_wait(struct worker *w)
{
	if (w->fd < 0)
		return;
	pthread_mutex_lock(&w->lock);
	while (w->state == WORKER_BEGUN)
		pthread_cond_wait(&w->changed, &w->lock);
	pthread_mutex_unlock(&w->lock);
}

int worker_end(struct worker *w)
{
	eventfd_t count;

	assert(worker_has_job(w));
	worker_wait(w);
	eventfd_read(w->fd, &count);
	w->state = WORKER_IDLE;
	w->fn = NULL;
	return w->result;
}

int worker_fd(const struct worker *w)
{
	return w->fd;
}
