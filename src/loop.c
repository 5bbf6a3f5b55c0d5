/* SPDX-License-Identifier: BSD-2-Clause */
#include "loop.h"

#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "log.h"
#include "store_collision.h"

int loop_signals(void)
{
	sigset_t mask;
	int fd;

	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGHUP);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

int loop_signal(int fd)
{
	struct signalfd_siginfo info;

	return read(fd, &info, sizeof(info)) == sizeof(info) ? (int)info.ssi_signo : 0;
}

int loop_add(int epoll_fd, int fd, uint32_t source)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u32 = source };

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

void loop_note(struct control *control, int priority, const char *event, const char *text)
{
	log_msg(priority, "%s", text);
	if (control && control_monitored(control))
		control_publish(control, json_pack("{s:s, s:s}", "event", event, "text", text));
}

static int told_before(const struct collision *c, void *arg)
{
	return watch_told(arg, c) ? 0 : -ECANCELED;
}

int loop_recall(const struct collisions *c, struct watcher *w, struct errtext *err)
{
	struct store_collision_filter all = { 0 };
	int r = store_collisions_list(c->store, &all, told_before, w, err);

	return r == -ECANCELED ? 0 : r;
}
