/* SPDX-License-Identifier: BSD-2-Clause */
#include "control_socket.h"

#include <errno.h>
#include <grp.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 64
#define SUFFIX  ".new"

int control_socket_group(const char *name, gid_t *ret, struct errtext *err)
{
	struct group *g;

	errno = 0;
	g = getgrnam(name);
	if (!g && errno)
		return errtext_set(err, errno, "group \"%s\": %s", name, strerror(errno));
	if (!g)
		return errtext_set(err, EINVAL,
				   "group \"%s\" does not exist: make it with groupadd --system, "
				   "or leave access.group out",
				   name);
	*ret = g->gr_gid;
	return 0;
}

/* Set owner group and mode so that at no moment more may connect than before or after. */
static int set_access(const char *path, const char *group, bool open, struct errtext *err)
{
	gid_t gid = getegid();
	int r;

	if (group) {
		r = control_socket_group(group, &gid, err);
		if (r < 0)
			return r;
	}
	if (chmod(path, 0600) < 0 || lchown(path, (uid_t)-1, gid) < 0 ||
	    ((open || group) && chmod(path, open ? 0666 : 0660) < 0))
		return errtext_set(err, errno, "cannot set group and mode of %s: %s", path,
				   strerror(errno));
	return 0;
}

static int make_parent(const char *path, struct errtext *err)
{
	char *copy = strdup(path);
	const char *dir;
	int r = 0;

	if (!copy)
		return errtext_set(err, ENOMEM, "out of memory");
	dir = dirname(copy);
	/* The daemon's umask must not keep the group out of a directory made for it. */
	if (mkdir(dir, 0755) == 0)
		r = chmod(dir, 0755) < 0 ? -errno : 0;
	else if (errno != EEXIST)
		r = -errno;
	if (r < 0)
		errtext_set(err, -r, "cannot make the directory %s: %s", dir, strerror(-r));
	free(copy);
	return r;
}

/* May a new file take this name? Nobody must lose a socket that is in use, or a file. */
static int check_old(const char *path, const struct sockaddr_un *sa, struct errtext *err)
{
	struct stat st;
	int fd, e;

	if (lstat(path, &st) < 0) {
		if (errno == ENOENT)
			return 0;
		return errtext_set(err, errno, "%s: %s", path, strerror(errno));
	}
	if (!S_ISSOCK(st.st_mode))
		return errtext_set(err, EEXIST, "%s is in the way, and is not a socket", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return errtext_set(err, errno, "cannot make a socket: %s", strerror(errno));
	e = connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0 ? errno : 0;
	close(fd);
	/* EAGAIN: its backlog is full, so there is somebody. */
	if (e == 0 || e == EAGAIN)
		return errtext_set(err, EADDRINUSE,
				   "%s is in use: another sluiced is running; stop it first", path);
	if (e != ECONNREFUSED && e != ENOENT)
		return errtext_set(err, e, "%s: %s", path, strerror(e));
	return 0;
}

static int set_address(const char *path, struct sockaddr_un *ret, struct errtext *err)
{
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) + sizeof(SUFFIX) > sizeof(ret->sun_path))
		return errtext_set(err, ENAMETOOLONG,
				   "the control socket's path is longer than %zu bytes: %s",
				   sizeof(ret->sun_path) - sizeof(SUFFIX), path);
	strcpy(ret->sun_path, path);
	return 0;
}

static int listen_at(const struct sockaddr_un *sa, const char *group, bool open, int *ret_fd,
		     struct errtext *err)
{
	mode_t mask;
	int fd, r;

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return errtext_set(err, errno, "cannot make a socket: %s", strerror(errno));
	mask = umask(0177);
	r = bind(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0 ? -errno : 0;
	umask(mask);
	if (r < 0) {
		errtext_set(err, -r, "cannot make the socket %s: %s", sa->sun_path, strerror(-r));
		goto fail;
	}
	r = set_access(sa->sun_path, group, open, err);
	if (r == 0 && listen(fd, BACKLOG) < 0)
		r = errtext_set(err, errno, "cannot listen on %s: %s", sa->sun_path,
				strerror(errno));
	if (r < 0) {
		unlink(sa->sun_path);
		goto fail;
	}
	*ret_fd = fd;
	return 0;
fail:
	close(fd);
	return r;
}

int control_socket_check(const char *path, const char *group, struct errtext *err)
{
	struct sockaddr_un sa;
	gid_t gid;
	int r = 0;

	if (path)
		r = set_address(path, &sa, err);
	if (path && r == 0)
		r = check_old(path, &sa, err);
	if (group && r == 0)
		r = control_socket_group(group, &gid, err);
	return r;
}

int control_socket_open(const char *path, const char *group, bool open, struct control_socket *ret,
			struct errtext *err)
{
	struct control_socket s = { .fd = -1, .open = open };
	struct sockaddr_un sa, tmp;
	struct stat st;
	int r;

	r = set_address(path, &sa, err);
	if (r < 0)
		return r;
	r = make_parent(path, err);
	if (r < 0)
		return r;
	r = check_old(path, &sa, err);
	if (r < 0)
		return r;
	tmp = sa;
	strcat(tmp.sun_path, SUFFIX);
	/* Left over when a daemon was killed between bind() and rename(). */
	if (lstat(tmp.sun_path, &st) == 0 && S_ISSOCK(st.st_mode))
		unlink(tmp.sun_path);
	r = listen_at(&tmp, group, open, &s.fd, err);
	if (r < 0)
		return r;
	s.path = strdup(path);
	if (!s.path) {
		r = errtext_set(err, ENOMEM, "out of memory");
		goto fail;
	}
	if (lstat(tmp.sun_path, &st) < 0 || rename(tmp.sun_path, path) < 0) {
		r = errtext_set(err, errno, "cannot put the socket at %s: %s", path,
				strerror(errno));
		goto fail;
	}
	s.dev = st.st_dev;
	s.ino = st.st_ino;
	*ret = s;
	return 0;
fail:
	unlink(tmp.sun_path);
	free(s.path);
	close(s.fd);
	return r;
}

static bool still_ours(const struct control_socket *s)
{
	struct stat st;

	return lstat(s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino;
}

void control_socket_close(struct control_socket *s)
{
	if (s->fd < 0)
		return;
	if (still_ours(s))
		unlink(s->path);
	close(s->fd);
	free(s->path);
	*s = (struct control_socket){ .fd = -1 };
}

int control_socket_set_group(const struct control_socket *s, const char *group, struct errtext *err)
{
	if (!still_ours(s))
		return errtext_set(err, ESTALE,
				   "the control socket %s has been removed or replaced; "
				   "restart sluiced to make it again",
				   s->path);
	return set_access(s->path, group, s->open, err);
}
