/* SPDX-License-Identifier: BSD-2-Clause */
/* The control server: who may connect and call, how many, and the socket file. */
#include "control_test.h"

#include <grp.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

/* ---- rights and limits ---- */

/* Adopt a connection that somebody else made, as of group gid and, as a supplementary one, extra; as root only. */
static int adopt_of(struct control *s, uid_t uid, gid_t gid, gid_t extra, int *ret_fd)
{
	int fds[2];

	assert_int_equal(setgroups(1, &extra), 0);
	assert_int_equal(setegid(gid), 0);
	assert_int_equal(seteuid(uid), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(setegid(0), 0);
	assert_int_equal(setgroups(0, NULL), 0);
	*ret_fd = fds[0];
	return control_adopt(s, fds[1]);
}

#define GID_TEST   1 /* a group that there is; its name differs */
#define GID_NOBODY 65534

static int adopt_as(struct control *s, uid_t uid, int *ret_fd)
{
	return adopt_of(s, uid, GID_NOBODY, GID_NOBODY, ret_fd);
}

static void set_test_group(struct control *s, gid_t gid, char name[64])
{
	struct errtext err = { 0 };
	struct group *g = getgrgid(gid);

	assert_non_null(g);
	snprintf(name, 64, "%s", g->gr_name);
	if (control_set_group(s, name, &err) < 0)
		fail_msg("%s", err.s);
}

static void test_denied(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p;
	int fd;

	(void)state;
	if (geteuid() == 0) {
		p = peer_new(s);
		peer_send(&p, "{\"method\":\"io.test.Root\"}");
		expect_reply(&p, NULL, 0);
		assert_int_equal(seen.calls, 1);
		peer_send(&p, "{\"method\":\"io.test.Who\"}");
		expect_reply(&p, "uid", 0);
		peer_close(&p);
		assert_int_equal(adopt_as(s, 65534, &fd), 0);
		p = peer_of(s, fd);
	} else {
		p = peer_new(s);
	}
	seen.calls = 0;
	peer_send(&p, "{\"method\":\"io.test.Root\"}");
	expect_error(&p, "io.sluice.Denied", "text", "only root may call Root");
	peer_send(&p, "{\"method\":\"io.test.Root\",\"oneway\":true}");
	peer_send(&p, "{\"method\":\"io.test.Who\"}");
	expect_reply(&p, "uid", geteuid() == 0 ? 65534 : geteuid());
	peer_send(&p, "{\"method\":\"io.test.Who\"}");
	expect_reply(&p, "pid", getpid());
	assert_int_equal(seen.calls, 0);
	peer_close(&p);
	control_close(s);
}

/* What a client may call is decided by the group, whichever of its groups that is. */
static void test_trusted(void **state)
{
	static const struct {
		uid_t uid;
		gid_t gid, extra;
		bool trusted;
	} who[] = {
		{ 0, 0, 0, true },     { 1000, GID_TEST, 7, true }, { 1000, 7, GID_TEST, true },
		{ 1000, 7, 7, false }, { 1000, 0, 0, false },
	};
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	char name[64];
	struct varlink_reply r;
	int fd;

	(void)state;
	if (geteuid() != 0) {
		control_close(s);
		skip();
	}
	for (int with = 0; with < 2; with++) {
		if (with)
			set_test_group(s, GID_TEST, name);
		for (size_t i = 0; i < sizeof(who) / sizeof(who[0]); i++) {
			bool trusted = with ? who[i].trusted : who[i].uid == 0;
			struct peer p;

			assert_int_equal(adopt_of(s, who[i].uid, who[i].gid, who[i].extra, &fd), 0);
			p = peer_of(s, fd);
			peer_send(&p, "{\"method\":\"io.test.Pidfd\"}");
			r = peer_next(&p);
			assert_int_equal(json_is_true(json_object_get(r.parameters, "trusted")),
					 trusted);
			varlink_reply_done(&r);
			peer_send(&p, "{\"method\":\"org.varlink.service.GetInfo\"}");
			expect_reply(&p, NULL, 0);
			for (int m = 0; m < 2; m++) {
				peer_send(&p, m ? "{\"method\":\"io.test.List\"}"
						: "{\"method\":\"io.test.Monitor\",\"more\":"
						  "true}");
				if (trusted && m == 0)
					break;
				expect_error(&p, "io.sluice.Denied", "text",
					     with ? name : "only root may call");
			}
			settle(s);
			assert_int_equal(stat_of(s, "monitors"), trusted);
			peer_close(&p);
			settle(s);
		}
	}
	assert_int_equal(seen.calls, 0);
	control_close(s);
}

/* With another group, others are trusted: those who monitor and may not any more are hung up on. */
static void test_group_changes(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer in, out, root;
	struct varlink_reply r;
	struct errtext err;
	char name[64];
	int fd;

	(void)state;
	if (geteuid() != 0) {
		control_close(s);
		skip();
	}
	set_test_group(s, GID_TEST, name);
	for (int i = 0; i < 3; i++) {
		struct peer *p = i == 0 ? &out : i == 1 ? &in : &root;

		assert_int_equal(adopt_of(s, i == 2 ? 0 : 1000, i == 0 ? GID_TEST : 7, 2, &fd), 0);
		*p = peer_of(s, fd);
		peer_send(p, "{\"method\":\"io.test.Monitor\",\"more\":true}");
		r = peer_next(p);
		assert_int_equal(r.error != NULL, i == 1);
		varlink_reply_done(&r);
	}
	assert_int_equal(control_set_group(s, "no such group", &err), -EINVAL);
	assert_int_equal(stat_of(s, "monitors"), 2);
	set_test_group(s, 2,
		       name); /* "in" and root have it; so has "out", as a supplementary one */
	settle(s);
	assert_int_equal(stat_of(s, "monitors"), 2);
	set_test_group(s, 7, name);
	expect_closed(&out);
	assert_int_equal(stat_of(s, "monitors"), 1);
	peer_send(&in, "{\"method\":\"io.test.List\"}");
	r = peer_next(&in);
	assert_null(r.error);
	varlink_reply_done(&r);
	assert_int_equal(control_set_group(s, NULL, &err), 0);
	peer_send(&in, "{\"method\":\"io.test.List\"}");
	expect_error(&in, "io.sluice.Denied", "text", "no group");
	control_publish(s, json_pack("{s:s}", "event", "x"));
	r = peer_next(&root);
	assert_non_null(r.root);
	varlink_reply_done(&r);
	peer_close(&out);
	peer_close(&in);
	peer_close(&root);
	control_close(s);
}

/* The process that connected, though it may have ended. */
static void test_pidfd(void **state)
{
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	static const char call[] = "{\"method\":\"io.test.Pidfd\"}";
	struct peer p = peer_new(s);
	int hand[2], fd;
	unsigned before;
	pid_t child;
	struct varlink_reply r;

	(void)state;
	before = open_fds();
	peer_send(&p, call);
	expect_reply(&p, "pid", getpid());
	expect_fds(before);
	peer_close(&p);
	/* A child makes both ends, and ends. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, hand), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		int fds[2];

		if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0 || send_fd(hand[1], fds[0]) < 0 ||
		    send_fd(hand[1], fds[1]) < 0)
			_exit(1);
		_exit(0);
	}
	assert_int_equal(waitpid(child, NULL, 0), child);
	fd = recv_fd(hand[0]);
	assert_int_equal(control_adopt(s, recv_fd(hand[0])), 0);
	p = peer_of(s, fd);
	peer_send(&p, call);
	/* Of a process that has been reaped newer kernels give a pidfd still, older ones none. */
	r = peer_next(&p);
	if (r.error)
		assert_string_equal(json_string_value(json_object_get(r.parameters, "text")),
				    strerror(ESRCH));
	else
		assert_int_equal(json_integer_value(json_object_get(r.parameters, "pid")), -1);
	varlink_reply_done(&r);
	peer_close(&p);
	close(hand[0]);
	close(hand[1]);
	control_close(s);
}

/* A uid gets its share, strangers theirs, all together theirs; and root still comes in. */
static void test_many_clients(void **state)
{
	static const char call[] = "{\"method\":\"io.test.Echo\"}";
	static const unsigned admitted[] = { 16, 16, 0, 16, 16, 0 };
	static const char *const whys[] = {
		"uid 1000", "neither root nor in", "neither root nor in",
		"uid 1003", "64 clients",          "64 clients"
	};
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);
	struct peer p[300];
	unsigned n = 0, in = 0;
	char name[64];
	int fd;

	(void)state;
	if (geteuid() != 0) {
		control_close(s);
		skip();
	}
	set_test_group(s, GID_TEST, name);
	for (unsigned i = 0; i < 6; i++) {
		/* The first three are not in the group. */
		gid_t gid = i < 3 ? GID_NOBODY : GID_TEST;
		unsigned mine = 0;

		for (unsigned k = 0; k < 20; k++) {
			int r = adopt_of(s, 1000 + i, gid, 7, &fd);

			p[n] = peer_of(s, fd);
			if (r == 0) {
				mine++;
			} else {
				assert_int_equal(r, -EMFILE);
				expect_error(&p[n], "io.sluice.QuotaExceeded", "text", whys[i]);
				expect_closed(&p[n]);
			}
			n++;
		}
		assert_int_equal(mine, admitted[i]);
		in += mine;
	}
	assert_int_equal(in, 64);
	for (unsigned i = 0; i < 10; i++) {
		int r = adopt_as(s, 0, &fd);

		p[n++] = peer_of(s, fd);
		assert_int_equal(r, i < 8 ? 0 : -EMFILE);
		in += r == 0;
	}
	assert_int_equal(stat_of(s, "clients"), 72);
	assert_int_equal(stat_of(s, "refused"), n - in);
	/* All of them are served. */
	for (unsigned i = 0; i < n; i++)
		send(p[i].fd, call, sizeof(call), MSG_NOSIGNAL);
	settle(s);
	assert_int_equal(seen.calls, 72);
	for (unsigned i = 0; i < n; i++)
		peer_close(&p[i]);
	settle(s);
	assert_int_equal(stat_of(s, "clients"), 0);
	/* Room again, and for root no share of its own. */
	assert_int_equal(adopt_as(s, 1005, &fd), 0);
	p[0] = peer_of(s, fd);
	for (n = 1; n < 72; n++) {
		assert_int_equal(adopt_as(s, 0, &fd), 0);
		p[n] = peer_of(s, fd);
	}
	while (n > 0)
		peer_close(&p[--n]);
	control_close(s);
}

/* ---- the socket file ---- */

/* A directory of its own; the socket is in one that does not exist yet. */
struct place {
	char dir[64];
	char run[80];
	char path[96];
};

static struct place place_make(void)
{
	struct place w;

	strcpy(w.dir, "/tmp/sluice-test-XXXXXX");
	assert_non_null(mkdtemp(w.dir));
	snprintf(w.run, sizeof(w.run), "%s/run", w.dir);
	snprintf(w.path, sizeof(w.path), "%s/run/control.sock", w.dir);
	return w;
}

static void place_remove(const struct place *w)
{
	assert_int_equal(rmdir(w->run), 0); /* the server left nothing */
	assert_int_equal(rmdir(w->dir), 0);
}

static struct seen file_seen;

static int try_open(const char *path, const char *group, struct control **ret, struct errtext *err)
{
	struct control_options o = {
		.path = path,
		.group = group,
		.interface = "io.test",
		.description = "",
		.data = &file_seen,
		.methods = test_methods,
		.n_methods = sizeof(test_methods) / sizeof(test_methods[0]),
	};

	err->s[0] = '\0';
	return control_open(&o, ret, err);
}

static int dial(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	strcpy(sa.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

static struct stat stat_path(const char *path)
{
	struct stat st;

	assert_int_equal(lstat(path, &st), 0);
	return st;
}

static void test_socket_file(void **state)
{
	struct place w = place_make();
	struct control *s, *other = NULL;
	struct errtext err;
	struct peer p;
	mode_t mask = umask(0);

	(void)state;
	umask(077); /* whatever the daemon's is */
	assert_int_equal(try_open(w.path, NULL, &s, &err), 0);
	umask(mask);
	assert_int_equal(stat_path(w.run).st_mode, S_IFDIR | 0755);
	assert_int_equal(stat_path(w.path).st_mode, S_IFSOCK | 0600);
	p = peer_of(s, dial(w.path));
	peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":2}}");
	expect_reply(&p, "n", 2);

	/* In use: refused, and the one that is there stays. */
	assert_int_equal(try_open(w.path, NULL, &other, &err), -EADDRINUSE);
	assert_non_null(strstr(err.s, w.path));
	assert_null(other);
	settle(s);
	peer_send(&p, "{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":3}}");
	expect_reply(&p, "n", 3);
	peer_close(&p);
	control_close(s);
	place_remove(&w);
}

/*
 * What a killed daemon leaves, between any two of its steps, does not keep the next one from
 * starting.
 */
static void test_socket_stale(void **state)
{
	static const char *const left[] = { "", ".new" };
	struct place w = place_make();
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct control *s;
	struct errtext err;

	(void)state;
	assert_int_equal(mkdir(w.run, 0755), 0);
	for (int i = 0; i < 2; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		snprintf(sa.sun_path, sizeof(sa.sun_path), "%s%s", w.path, left[i]);
		assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
		close(fd);
	}
	assert_int_equal(try_open(w.path, NULL, &s, &err), 0);
	close(dial(w.path));
	/* Another daemon's file is not ours to remove. */
	assert_int_equal(unlink(w.path), 0);
	{
		int fd = open(w.path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

		assert_true(fd >= 0);
		close(fd);
	}
	assert_int_equal(control_set_group(s, NULL, &err), -ESTALE);
	control_close(s);
	assert_int_equal(stat_path(w.path).st_mode, S_IFREG | 0600);
	/* Nor is a file that is no socket. */
	assert_int_equal(try_open(w.path, NULL, &s, &err), -EEXIST);
	assert_non_null(strstr(err.s, "not a socket"));
	assert_int_equal(stat_path(w.path).st_mode, S_IFREG | 0600);
	assert_int_equal(unlink(w.path), 0);
	place_remove(&w);
}

static void test_socket_refused(void **state)
{
	struct place w = place_make();
	struct control *s = NULL;
	struct errtext err;
	char path[200];

	(void)state;
	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(try_open(path, NULL, &s, &err), -ENAMETOOLONG);
	assert_non_null(strstr(err.s, "longer than"));
	snprintf(path, sizeof(path), "%s/a/b/c.sock", w.dir);
	assert_int_equal(try_open(path, NULL, &s, &err), -ENOENT);
	assert_non_null(strstr(err.s, "/a/b"));
	assert_int_equal(try_open(w.path, "no such group", &s, &err), -EINVAL);
	assert_non_null(strstr(err.s, "\"no such group\" does not exist"));
	assert_null(s);
	assert_int_equal(rmdir(w.dir), 0); /* nothing was made */
}

static void test_socket_group(void **state)
{
	struct place w = place_make();
	struct control *s;
	struct errtext err;
	struct group *g;
	char name[64];
	gid_t gid;

	(void)state;
	/* A group that this user may give files to. */
	gid = geteuid() == 0 ? 1 : getegid();
	g = getgrgid(gid);
	if (!g) {
		rmdir(w.dir);
		skip();
	}
	snprintf(name, sizeof(name), "%s", g->gr_name);
	assert_int_equal(try_open(w.path, name, &s, &err), 0);
	assert_int_equal(stat_path(w.path).st_mode, S_IFSOCK | 0660);
	assert_int_equal(stat_path(w.path).st_gid, gid);
	assert_int_equal(control_set_group(s, NULL, &err), 0);
	assert_int_equal(stat_path(w.path).st_mode, S_IFSOCK | 0600);
	assert_int_equal(stat_path(w.path).st_gid, getegid());
	assert_int_equal(control_set_group(s, name, &err), 0);
	assert_int_equal(stat_path(w.path).st_mode, S_IFSOCK | 0660);
	assert_int_equal(control_set_group(s, "no such group", &err), -EINVAL);
	assert_int_equal(stat_path(w.path).st_mode, S_IFSOCK | 0660);
	assert_int_equal(stat_path(w.path).st_gid, gid);
	control_close(s);
	place_remove(&w);
}

/* For everybody, whether there is a group or not, and after the group has changed. */
static void test_socket_open(void **state)
{
	struct place w = place_make();
	struct control *s;
	struct errtext err = { 0 };
	struct control_options o = {
		.path = w.path,
		.open = true,
		.interface = "io.test",
		.description = "",
		.data = &file_seen,
		.methods = test_methods,
		.n_methods = sizeof(test_methods) / sizeof(test_methods[0]),
	};
	struct group *g = getgrgid(geteuid() == 0 ? GID_TEST : getegid());
	char name[64];

	(void)state;
	if (!g) {
		rmdir(w.dir);
		skip();
	}
	snprintf(name, sizeof(name), "%s", g->gr_name);
	assert_int_equal(control_open(&o, &s, &err), 0);
	assert_int_equal(stat_path(w.path).st_mode, S_IFSOCK | 0666);
	assert_int_equal(control_set_group(s, name, &err), 0);
	assert_int_equal(stat_path(w.path).st_mode, S_IFSOCK | 0666);
	assert_int_equal(stat_path(w.path).st_gid, g->gr_gid);
	if (geteuid() == 0) {
		struct peer p;

		assert_int_equal(chmod(w.dir, 0755), 0);
		assert_int_equal(seteuid(65534), 0);
		p = peer_of(s, dial(w.path));
		assert_int_equal(seteuid(0), 0);
		peer_send(&p, "{\"method\":\"io.test.Who\"}");
		expect_reply(&p, "uid", 65534);
		peer_send(&p, "{\"method\":\"io.test.List\"}");
		expect_error(&p, "io.sluice.Denied", "text", name);
		peer_close(&p);
	}
	assert_int_equal(control_set_group(s, NULL, &err), 0);
	assert_int_equal(stat_path(w.path).st_mode, S_IFSOCK | 0666);
	control_close(s);
	place_remove(&w);
}

/* Out of descriptors, a connection waits; the server does not spin, and takes it when it can. */
static void test_out_of_fds(void **state)
{
	struct place w = place_make();
	struct rlimit old, tight;
	struct control *s;
	struct errtext err;
	struct peer p;

	(void)state;
	assert_int_equal(try_open(w.path, NULL, &s, &err), 0);
	p = peer_of(s, dial(w.path));
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	tight = old;
	tight.rlim_cur = 3;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
	for (int i = 0; i < 10; i++)
		assert_int_equal(control_dispatch(s), 0);
	assert_false(server_ready(s, 0));
	assert_int_equal(stat_of(s, "clients"), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	peer_send(&p, "{\"method\":\"io.test.Who\"}");
	expect_reply(&p, "pid", getpid());
	peer_close(&p);
	control_close(s);
	place_remove(&w);
}

/* ---- faults ---- */

static unsigned until_failure; /* allocations that succeed before one fails */

static void *failing_malloc(size_t size)
{
	if (until_failure > 0 && --until_failure == 0)
		return NULL;
	return malloc(size);
}

/*
 * The k-th allocation of JSON fails, for every k: the call may end in an error or the connection be
 * closed, but the server lives, listings are freed, and the next client is served.
 */
static void test_no_memory(void **state)
{
	static const char *const calls[] = {
		"{\"method\":\"org.varlink.service.GetInfo\"}",
		"{\"method\":\"io.test.Echo\",\"parameters\":{\"n\":2,\"text\":\"abc\"}}",
		"{\"method\":\"io.test.Nothing\"}",
		"{\"method\":\"io.test.Fail\"}",
		"{\"method\":\"io.test.List\",\"parameters\":{\"count\":5}}",
		"{\"method\":\"io.test.List\",\"more\":true,\"parameters\":{\"count\":5}}",
		"{\"method\":\"io.test.Monitor\",\"more\":true}",
		"garbage",
	};
	struct seen seen = { 0 };
	struct control *s = server_open(&seen, NULL, NULL);

	(void)state;
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		bool failed = true;

		for (unsigned k = 1; failed; k++) {
			struct peer p = peer_new(s);

			assert_true(k < 10000);
			until_failure = k;
			json_set_alloc_funcs(failing_malloc, free);
			peer_send(&p, calls[i]);
			settle(s);
			control_publish(s, json_pack("{s:s}", "event", "x"));
			settle(s);
			failed = until_failure == 0;
			until_failure = 0;
			json_set_alloc_funcs(malloc, free);
			peer_close(&p);
			settle(s);
			assert_int_equal(seen.open, 0);
			assert_int_equal(stat_of(s, "clients"), 0);
			assert_int_equal(stat_of(s, "monitors"), 0);
		}
	}
	{
		struct peer p = peer_new(s);

		peer_send(&p, calls[1]);
		expect_reply(&p, "n", 2);
		peer_close(&p);
	}
	control_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_denied),         cmocka_unit_test(test_many_clients),
		cmocka_unit_test(test_trusted),        cmocka_unit_test(test_group_changes),
		cmocka_unit_test(test_pidfd),          cmocka_unit_test(test_socket_open),
		cmocka_unit_test(test_socket_file),    cmocka_unit_test(test_socket_stale),
		cmocka_unit_test(test_socket_refused), cmocka_unit_test(test_socket_group),
		cmocka_unit_test(test_out_of_fds),     cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
