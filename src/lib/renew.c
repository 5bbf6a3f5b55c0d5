/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Renewing in the background: one thread for each handle that has a lease which wants it. It renews a lease when a third of its time has passed; after a failure it comes back
 * soon, then less and less often; a lease that has ended it leaves alone. Without leases it ends.
 */
#include "internal.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define NS_PER_MS    1000000ULL
#define NS_PER_S     1000000000ULL
#define STACK_SIZE   (256 * 1024)
#define BACK_OFF_MIN (100 * NS_PER_MS)
#define BACK_OFF_MAX (30 * NS_PER_S)

static uint64_t third_ns(const struct sluice_lease *l)
{
	return l->ttl_s * NS_PER_S / 3;
}

/*
 * When to try again after a failure. Many programs fail at once when the daemon goes; a part that differs from lease to lease keeps them from coming back at once.
 */
static void back_off(struct sluice_lease *l, uint64_t now_ns)
{
	uint64_t max_ns = third_ns(l) < BACK_OFF_MAX ? third_ns(l) : BACK_OFF_MAX;
	uint64_t ns = l->back_off_ns ? l->back_off_ns * 2 : BACK_OFF_MIN;

	l->back_off_ns = ns < max_ns ? ns : max_ns;
	ns = (l->id * 0x9e3779b97f4a7c15ULL ^ now_ns) % (l->back_off_ns / 4);
	l->due_ns = now_ns + l->back_off_ns - ns;
}

/* The lease that is due first; NULL: none wants to be renewed. */
static struct sluice_lease *first_due(struct sluice *s)
{
	struct sluice_lease *l, *first = NULL;

	TAILQ_FOREACH(l, &s->leases, link)
	{
		if (l->renew && (!first || l->due_ns < first->due_ns))
			first = l;
	}
	return first;
}

/* `lock` is held, and let go meanwhile. */
static void renew_one(struct sluice *s, struct sluice_lease *l)
{
	struct errtext err = { 0 };
	uint64_t now_ns;
	int r;

	/* It may have gone from the list when this is done. */
	lease_ref(l);
	pthread_mutex_unlock(&s->lock);
	now_ns = wire_now_ns();
	r = lease_renew_call(s, l, 0, CALL_BACKGROUND, &err);
	pthread_mutex_lock(&s->lock);
	if (r == 0) {
		l->back_off_ns = 0;
		l->due_ns = now_ns + third_ns(l);
	} else if (r == -ESTALE) {
		l->renew = false;
	} else {
		back_off(l, wire_now_ns());
	}
	lease_unref(l);
}

static void *renew_main(void *data)
{
	struct sluice *s = data;
	struct sluice_lease *l;

	pthread_mutex_lock(&s->lock);
	while (!s->closing && (l = first_due(s))) {
		uint64_t due_ns = l->due_ns;
		struct timespec ts = { .tv_sec = (time_t)(due_ns / NS_PER_S),
				       .tv_nsec = (long)(due_ns % NS_PER_S) };

		if (due_ns <= wire_now_ns())
			renew_one(s, l);
		else
			pthread_cond_timedwait(&s->renew_cond, &s->lock, &ts);
	}
	s->renew_running = false;
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* A thread that no signal of the program's is delivered to. */
static int thread_start(struct sluice *s)
{
	sigset_t all, old;
	pthread_attr_t attr;
	int r;

	if (s->wake_fd < 0)
		s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->wake_fd < 0)
		return -errno;
	r = pthread_attr_init(&attr);
	if (r != 0)
		return -r;
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&s->renew_thread, &attr, renew_main, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (r != 0)
		return -r;
	pthread_setname_np(s->renew_thread, "sluice-renew");
	return 0;
}

int renew_start(struct sluice *s, struct sluice_lease *l, struct errtext *err)
{
	int r;

	renew_again(s, l);
	if (s->renew_running)
		return 0;
	/* One that has just ended, for want of leases, does not ask for `lock` any more. */
	if (s->renew_joinable)
		pthread_join(s->renew_thread, NULL);
	r = thread_start(s);
	s->renew_joinable = s->renew_running = r == 0;
	if (r < 0)
		return errtext_set(err, -r, "cannot start a thread that renews: %s", strerror(-r));
	return 0;
}

void renew_again(struct sluice *s, struct sluice_lease *l)
{
	l->back_off_ns = 0;
	l->due_ns = wire_now_ns() + third_ns(l);
	pthread_cond_signal(&s->renew_cond);
}

void renew_stop(struct sluice *s, struct sluice_lease *l)
{
	if (!l->renew)
		return;
	l->renew = false;
	pthread_cond_signal(&s->renew_cond);
}

void renew_close(struct sluice *s)
{
	pthread_mutex_lock(&s->lock);
	s->closing = true;
	if (s->wake_fd >= 0)
		eventfd_write(s->wake_fd, 1);
	pthread_cond_signal(&s->renew_cond);
	pthread_mutex_unlock(&s->lock);
	if (s->renew_joinable)
		pthread_join(s->renew_thread, NULL);
	if (s->wake_fd >= 0)
		close(s->wake_fd);
}
