/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A thread that does one job at a time, for what takes long and needs nothing of its owner's meanwhile: a commit, a list of the kernel's sockets. The owner begins a job, goes on, and fetches
 * the result when the descriptor is readable. What the job works on is the thread's from worker_begin() until worker_end(), so that nothing needs a lock.
 */
#ifndef WORKER_H
#define WORKER_H

#include <pthread.h>
#include <stdbool.h>

#include "errtext.h"

struct worker {
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	pthread_t thread;
	bool started;
	bool closing;
	enum { WORKER_IDLE, WORKER_BEGUN, WORKER_ENDED } state;
	int (*fn)(void *arg);
	void *arg;
	int result;
	int fd; /* an eventfd: readable when ended; -1: not open */
};

/* The thread itself begins with the first job, and has the signal mask of then. */
int worker_open(struct worker *w, struct errtext *err);
/* Ends the thread, when the job that it is at has ended. Nothing to do for one whose fd is -1. */
void worker_close(struct worker *w);
/* Only after the last job's worker_end(). Where no thread is to be had, fn runs here and now. */
void worker_begin(struct worker *w, int (*fn)(void *arg), void *arg);
/* A job was begun, and its result has not been fetched. */
bool worker_has_job(const struct worker *w);
/* The job has come to its end (or there is none), so that worker_end() would not wait. */
bool worker_done(struct worker *w);
/* Until there is no job that has not come to its end. May be called without worker_open(), with fd -1. */
void worker_wait(struct worker *w);
/* Wait for the end; what fn returned. */
int worker_end(struct worker *w);
/* Readable from the job's end until worker_end(). */
int worker_fd(const struct worker *w);

#endif
