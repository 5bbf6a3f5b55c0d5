/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Descriptors that come in on the control socket.
 *
 * Whoever closes a file last waits for what its maker wants: for a TCP socket with SO_LINGER as long as that says, for a
 * file of a file server (FUSE) until that server answers, for a Unix socket with such files in its queue as well. A stranger could stop the
 * daemon so. It does not help to leave the descriptors outside: the kernel lets go of them within our
 * recvmsg(), and waits there. So all of them are taken in, and closed by a few threads that do nothing else.
 * When these are stuck, nobody but root is listened to any more, so that it does not get worse.
 */
#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "control.h"
#include "control_priv.h"

#define FDS_MAX      253 /* with one message: the kernel's SCM_MAX_FD */
#define CLOSERS_MAX  8
#define WAITING_MAX  512
#define STUCK_MS     1000
#define READS_AT_END 1024

/* The only thing in the daemon that threads share. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t more;
	unsigned threads, idle;
	int *fds; /* that no thread has taken yet */
	size_t n, cap;
	uint64_t progress_ms; /* when there was nothing to do, or something was done */
} closing = { .lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER };

static void *close_all(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&closing.lock);
	for (;;) {
		int fd;

		while (closing.n == 0) {
			closing.idle++;
			pthread_cond_wait(&closing.more, &closing.lock);
			closing.idle--;
		}
		fd = closing.fds[--closing.n];
		pthread_mutex_unlock(&closing.lock);
		close(fd);
		pthread_mutex_lock(&closing.lock);
		closing.progress_ms = clock_mono_ms();
	}
	return NULL;
}

static void start_closer(void)
{
	pthread_t thread;
	sigset_t all, old;

	/* Signals are the daemon's business. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (pthread_create(&thread, NULL, close_all, NULL) == 0) {
		pthread_detach(thread);
		closing.threads++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* Room for one more. Without memory a descriptor stays open: that is better than to wait for it. */
static bool make_room(void)
{
	size_t cap = closing.cap ? closing.cap * 2 : 64;
	int *fds;

	if (closing.n < closing.cap)
		return true;
	fds = realloc(closing.fds, cap * sizeof(*fds));
	if (!fds)
		return false;
	closing.fds = fds;
	closing.cap = cap;
	return true;
}

void control_fd_discard(int fd)
{
	static const struct linger off = { .l_onoff = 0 };

	/* It may be a socket; then this is how it should be closed. */
	(void)!setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
	pthread_mutex_lock(&closing.lock);
	if (make_room()) {
		if (closing.n == 0)
			closing.progress_ms = clock_mono_ms();
		closing.fds[closing.n++] = fd;
	}
	if (closing.n > closing.idle && closing.threads < CLOSERS_MAX)
		start_closer();
	pthread_cond_signal(&closing.more);
	pthread_mutex_unlock(&closing.lock);
}

bool control_fd_stuck(void)
{
	bool stuck;

	pthread_mutex_lock(&closing.lock);
	stuck = closing.n > WAITING_MAX ||
		(closing.n > 0 && clock_mono_ms() - closing.progress_ms > STUCK_MS);
	pthread_mutex_unlock(&closing.lock);
	return stuck;
}

/* One recvmsg(). Descriptors: their number, and whether there were more than could be taken. */
static ssize_t receive(int sock, char *buf, size_t len, int fds[FDS_MAX], size_t *ret_n,
		       bool *ret_cut)
{
	union {
		char buf[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} u;
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct msghdr mh = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = u.buf,
		.msg_controllen = sizeof(u.buf),
	};
	struct cmsghdr *h;
	ssize_t r;

	*ret_n = 0;
	*ret_cut = false;
	r = recvmsg(sock, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (r <= 0)
		return r;
	*ret_cut = mh.msg_flags & MSG_CTRUNC;
	h = mh.msg_controllen > 0 ? CMSG_FIRSTHDR(&mh) : NULL;
	if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS) {
		*ret_n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(h), *ret_n * sizeof(int));
	}
	return r;
}

void control_fd_hang_up(int sock)
{
	int fds[FDS_MAX], unread = 0;
	char buf[4096];
	size_t n;
	bool cut;

	/* No more comes after this. What was not read may be descriptors, which would end with it. */
	shutdown(sock, SHUT_RDWR);
	for (int i = 0; i < READS_AT_END && receive(sock, buf, sizeof(buf), fds, &n, &cut) > 0; i++)
		while (n > 0)
			control_fd_discard(fds[--n]);
	if (ioctl(sock, SIOCINQ, &unread) < 0 || unread > 0)
		control_fd_discard(sock);
	else
		close(sock);
}

/* ---- which is whose ---- */

void control_fd_refuse(struct control_client *c, int fd)
{
	if (fd < 0)
		return;
	control_fd_discard(fd);
	c->server->stats.fds_refused++;
}

void control_fd_drop(struct control_client *c)
{
	for (unsigned i = 0; i < c->n_fds; i++)
		control_fd_refuse(c, c->fds[i].fd);
	c->n_fds = 0;
}

/* Note what came with a read that ended at bytes from the first one that is not handed out. */
static void note(struct control_client *c, const int *fds, size_t n, bool cut, size_t at)
{
	int fd = -1;

	if (n == 1 && !cut) {
		fd = fds[0];
	} else {
		for (size_t i = 0; i < n; i++)
			control_fd_discard(fds[i]);
		c->server->stats.fds_refused++;
	}
	assert(c->n_fds < 2);
	c->fds[c->n_fds++] = (struct control_in){ .fd = fd, .at = at };
}

ssize_t control_fd_receive(struct control_client *c, char *buf, size_t len)
{
	int fds[FDS_MAX];
	size_t n;
	bool cut;
	ssize_t r;

	/* No message is whole, or we would not read: both belong to the one that is half there. */
	if (c->n_fds == 2) {
		size_t at = c->fds[1].at;

		control_fd_drop(c);
		c->fds[c->n_fds++] = (struct control_in){ .fd = -1, .at = at };
	}
	r = receive(c->fd, buf, len, fds, &n, &cut);
	if (n > 0 || cut)
		note(c, fds, n, cut, c->in.end - c->in.begin + (size_t)r);
	return r;
}

int control_fd_take(struct control_client *c, size_t len)
{
	unsigned n = 0;
	int fd;

	while (n < c->n_fds && c->fds[n].at <= len)
		n++;
	fd = n == 1 ? c->fds[0].fd : -1;
	for (unsigned i = 0; i < c->n_fds; i++) {
		if (i >= n) {
			c->fds[i - n] = c->fds[i];
			c->fds[i - n].at -= len;
		} else if (n > 1) {
			control_fd_refuse(c, c->fds[i].fd);
		}
	}
	c->n_fds -= n;
	return fd;
}
