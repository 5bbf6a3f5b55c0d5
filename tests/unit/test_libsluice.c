/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libsluice against a daemon in another process: every function, and what becomes of a call when the daemon is away, starts anew, hangs, or hangs up at the
 * wrong moment; what the shared library exports.
 */
#include "libsluice_test.h"

/* ---- asking ---- */

static void test_acquire(void **state)
{
	struct sluice_request req = {
		.pool = "default",
		.tags = " geo=DE  class=warp ",
		.address = "203.0.113.7",
		.proto = SLUICE_PROTO_UDP | SLUICE_PROTO_TCP,
		.exclusive = true,
		.port = 41000,
		.ports = 4,
		.align = 4,
		.parity = 'e',
		.lifetime = SLUICE_UNTIL_PID,
		.pid = 17,
		.ttl_s = 600,
		.name = "r\xc3\xa9solveur",
		.labels = "a=b c=d",
	};
	struct sluice *s = open_handle();
	struct sluice_lease *l = acquire_one(s, &req);
	struct sockaddr_storage sa;

	(void)state;
	assert_string_equal(
		fake->params,
		"{\"address\":\"203.0.113.7\",\"align\":4,\"brief\":true,\"exclusive\":true,"
		"\"labels\":\"a=b "
		"c=d\",\"leases\":1,\"name\":\"r\xc3\xa9solveur\",\"parity\":\"even\",\"pid\":17,"
		"\"pool\":\"default\",\"port\":41000,\"ports\":4,\"proto\":\"tcp+udp\",\"tags\":["
		"\"geo=DE\",\"class=warp\"],\"ttl\":600,\"until\":\"pid\"}");
	assert_int_equal(sluice_lease_id(l), 1);
	assert_string_equal(sluice_lease_pool(l), "default");
	assert_string_equal(sluice_lease_address(l), "203.0.113.7");
	assert_int_equal(sluice_lease_first(l), FAKE_FIRST + 1);
	assert_int_equal(sluice_lease_last(l), FAKE_FIRST + 4);
	assert_int_equal(sluice_lease_proto(l), SLUICE_PROTO_UDP);
	assert_true(sluice_lease_exclusive(l));
	assert_in_range(sluice_lease_expires_s(l), 600 - HANG_MS / 1000, 600);
	assert_int_equal(sluice_lease_status(l), 0);
	assert_int_equal(sluice_lease_sockaddr(l, 40961, &sa), sizeof(struct sockaddr_in));
	assert_int_equal(((struct sockaddr_in *)&sa)->sin_addr.s_addr, inet_addr("203.0.113.7"));
	assert_int_equal(ntohs(((struct sockaddr_in *)&sa)->sin_port), 40961);
	assert_int_equal(sluice_release(s, l), 0);
	assert_false(fake->leases[1].active);

	/* Nothing said: the defaults are the daemon's. */
	req = (struct sluice_request){ 0 };
	l = acquire_one(s, &req);
	assert_string_equal(fake->params,
			    "{\"brief\":true,\"leases\":1,\"proto\":\"tcp\",\"until\":\"exit\"}");
	assert_int_equal(sluice_lease_proto(l), SLUICE_PROTO_UDP | SLUICE_PROTO_TCP);
	assert_false(sluice_lease_exclusive(l));
	assert_int_equal(sluice_lease_expires_s(l), -1);
	assert_int_equal(sluice_lease_sockaddr(l, 1, &sa), sizeof(struct sockaddr_in6));
	assert_int_equal(sa.ss_family, AF_INET6);
	/* Closed with a lease: it is not released. */
	sluice_close(s);
	assert_true(fake->leases[2].active);
	sluice_close(NULL);
	assert_string_equal(sluice_version(), SLUICE_VERSION);
}

static void test_refused_here(void **state)
{
	static const struct {
		struct sluice_request req;
		const char *says;
	} bad[] = {
		{ { .proto = 4 }, "neither TCP nor UDP" },
		{ { .parity = 'x' }, "parity" },
		{ { .lifetime = (enum sluice_lifetime)7 }, "lifetime 7" },
		{ { .lifetime = SLUICE_UNTIL_PID }, "pid 0" },
		{ { .renew = true }, "ttl_s is 0" },
		{ { .name = "\xff" }, "UTF-8" },
	};
	struct sluice *s = open_handle();
	struct sluice_lease *l = (void *)0x1234, *many[257];
	int calls = fake->calls;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		expect_error(s, sluice_acquire(s, &bad[i].req, &l), EINVAL, bad[i].says);
	expect_error(s, sluice_acquire_many(s, &bad[0].req, 0, many), EINVAL, "0 leases at once");
	expect_error(s, sluice_acquire_many(s, &bad[0].req, 257, many), EINVAL, "1 to 256");
	expect_error(s, sluice_find(s, 0, &l), ESTALE, "never was");
	assert_ptr_equal(l, (void *)0x1234);
	assert_int_equal(fake->calls, calls);
	sluice_close(s);
}

static void test_many(void **state)
{
	struct sluice_request req = { .ports = 2 };
	struct sluice_lease *l[256], *again;
	struct sluice *s = open_handle();
	int calls = fake->calls;

	(void)state;
	assert_int_equal(sluice_acquire_many(s, &req, 256, l), 0);
	for (int i = 0; i < 256; i++)
		assert_int_equal(sluice_lease_id(l[i]), fake->next - 255 + (unsigned)i);
	assert_int_equal(sluice_release_many(s, l, 256), 0);
	/* One message each way. */
	assert_int_equal(fake->calls - calls, 2);
	assert_int_equal(sluice_release_many(s, l, 0), 0);

	/* One that has ended does not keep the others. */
	assert_int_equal(sluice_acquire_many(s, &req, 3, l), 0);
	assert_int_equal(sluice_find(s, sluice_lease_id(l[1]), &again), 0);
	assert_int_equal(sluice_lease_last(again), sluice_lease_last(l[1]));
	assert_int_equal(sluice_release(s, again), 0);
	expect_error(s, sluice_find(s, fake->next - 1, &again), ESTALE, "has ended");
	expect_error(s, sluice_find(s, 4000, &again), ESTALE, "lease 4000 has ended");
	expect_error(s, sluice_release_many(s, l, 3), ESTALE, "has ended");
	for (unsigned i = 0; i < 3; i++)
		assert_false(fake->leases[fake->next - i].active);

	assert_int_equal(sluice_acquire(s, &req, l), 0);
	sluice_forget(s, l[0]);
	assert_true(fake->leases[fake->next].active);
	sluice_close(s);
}

static void test_errors(void **state)
{
	static const struct {
		const char *error, *params;
		int err;
		const char *says;
	} errors[] = {
		{ "io.sluice.NoPorts", "{\"text\":\"used up\"}", ENOSPC, "used up" },
		{ "io.sluice.Fenced", "{\"text\":\"fenced\"}", ENOSPC, "fenced" },
		{ "io.sluice.QuotaExceeded", "{\"text\":\"64 leases\"}", EDQUOT, "64 leases" },
		{ "io.sluice.Conflict", "{\"text\":\"taken\"}", EADDRINUSE, "taken" },
		{ "io.sluice.Denied", "{\"text\":\"not yours\"}", EACCES, "not yours" },
		{ "io.sluice.Failed", "{\"text\":\"disk\"}", EIO, "disk" },
		{ "io.sluice.NoSuchLease", "{\"id\":7}", ESTALE, "lease 7 has ended" },
		{ "io.sluice.NoSuchPool", "{\"pool\":\"x\"}", EINVAL, "no pool \"x\"" },
		{ "io.sluice.NoSuchPool", "{\"pool\":7}", EINVAL, "io.sluice.NoSuchPool" },
		{ VARLINK_INVALID_PARAMETER, "{\"parameter\":\"%n%s\"}", EINVAL, "\"%n%s\"" },
		{ VARLINK_PERMISSION_DENIED, "{}", EACCES, VARLINK_PERMISSION_DENIED },
		{ VARLINK_METHOD_NOT_FOUND, "{\"method\":\"io.x\"}", EOPNOTSUPP, "io.x" },
		{ VARLINK_INTERFACE_NOT_FOUND, "{\"interface\":\"io.y\"}", EPROTO, "io.y" },
		{ "org.example.Odd", "{}", EPROTO, "org.example.Odd" },
	};
	struct sluice_request req = { 0 };
	struct sluice *s = open_handle();
	struct sluice_lease *l = acquire_one(s, &req), *none = NULL;
	int connections = fake->connections;

	(void)state;
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		fake_say(errors[i].error, errors[i].params, 3);
		expect_error(s, sluice_acquire(s, &req, &none), errors[i].err, errors[i].says);
		expect_error(s, sluice_renew(s, l, 0), errors[i].err, errors[i].says);
		assert_int_equal(sluice_lease_status(l), -errors[i].err);
		expect_error(s, sluice_open(s, l, NULL), errors[i].err, errors[i].says);
	}
	/* An error is an answer: the connection goes on. */
	assert_int_equal(fake->connections, connections);
	assert_int_equal(sluice_renew(s, l, 0), 0);
	assert_int_equal(sluice_lease_status(l), 0);
	assert_int_equal(sluice_renew(s, l, 100), 0);
	assert_in_range(sluice_lease_expires_s(l), 100 - HANG_MS / 1000, 100);
	fake_say("io.sluice.Denied", "{\"text\":\"not yours\"}", 1);
	expect_error(s, sluice_release(s, l), EACCES, "not yours");
	sluice_close(s);
}

/* ---- sockets ---- */

static int listener(int backlog, struct sockaddr_in *ret)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(*ret);

	*ret = (struct sockaddr_in){ .sin_family = AF_INET };
	ret->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)ret, len), 0);
	assert_int_equal(listen(fd, backlog), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)ret, &len), 0);
	return fd;
}

static void test_open(void **state)
{
	struct sluice_socket_options o = { .proto = SLUICE_PROTO_TCP,
					   .port = 41000,
					   .listen = true,
					   .nonblock = true,
					   .reuseport = true };
	struct sluice_request req = { 0 };
	struct sluice *s = open_handle();
	struct sluice_lease *l = acquire_one(s, &req);
	int fd = sluice_open(s, l, &o);
	char want[256];
	unsigned fds;

	(void)state;
	assert_true(fd >= 0);
	snprintf(want, sizeof(want),
		 "{\"id\":%llu,\"listen\":true,\"nonblock\":true,\"port\":41000,\"proto\":\"tcp\","
		 "\"reuseport\":true}",
		 (unsigned long long)sluice_lease_id(l));
	assert_string_equal(fake->params, want);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(listen(fd, 1), 0);
	close(fd);
	o.proto = SLUICE_PROTO_TCP | SLUICE_PROTO_UDP;
	expect_error(s, sluice_open(s, l, &o), EINVAL, "one protocol");

	/* Descriptors with what should have none, none with what should have one, too many: none is left behind. */
	fds = count_fds();
	for (int n = 0; n < 20; n++) {
		fake->fds = n;
		if (n != 1) {
			fake_be(FAKE_FDS, 1);
			expect_error(s, sluice_open(s, l, NULL), EPROTO,
				     n ? "more than" : "no socket");
		}
		if (n != 0) {
			fake_be(FAKE_FDS, 1);
			expect_error(s, sluice_renew(s, l, 0), EPROTO,
				     n > 1 ? "more than" : "nobody asked");
		}
		/* A broken connection is a new one by now; count with it. */
		assert_int_equal(sluice_renew(s, l, 0), 0);
		assert_int_equal(count_fds(), fds);
	}
	/* An error that brings one. */
	fake->fds = 1;
	fake_be(FAKE_FDS, 1);
	assert_int_equal(sluice_release(s, l), -EPROTO);
	assert_int_equal(count_fds(), fds);
	sluice_close(s);
}

static void test_no_room(void **state)
{
	struct sluice_request req = { 0 };
	struct sluice *s = open_handle();
	struct sluice_lease *l = acquire_one(s, &req);
	struct rlimit old, none;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = old;
	none.rlim_cur = 3;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	expect_error(s, sluice_open(s, l, NULL), EMFILE, "Too many open files");
	expect_error(s, sluice_renew(s, l, 0), EMFILE, "Too many open files");
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(sluice_release(s, l), 0);
	sluice_close(s);
}

static void test_connected(void **state)
{
	struct sluice_socket_options o = { .nonblock = true };
	struct sluice_request req = { 0 };
	struct sluice *s = open_handle();
	struct sluice_lease *l = acquire_one(s, &req);
	struct sockaddr_in to;
	int server_fd = listener(0, &to), fd, full[2];
	unsigned fds = count_fds();

	(void)state;
	fd = sluice_open_connected(s, l, NULL, (struct sockaddr *)&to, sizeof(to));
	assert_true(fd >= 0);
	assert_false(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_int_equal(send(fd, "x", 1, 0), 1);
	close(fd);
	close(accept(server_fd, NULL, NULL));
	fd = sluice_open_connected(s, l, &o, (struct sockaddr *)&to, sizeof(to));
	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	close(fd);
	close(accept(server_fd, NULL, NULL));
	/* Nobody takes connections: its queue is filled, further SYNs are dropped. */
	sluice_set_timeout(s, 300);
	for (int i = 0; i < 2; i++)
		full[i] = sluice_open_connected(s, l, NULL, (struct sockaddr *)&to, sizeof(to));
	assert_true(full[0] >= 0);
	fd = full[1] < 0 ? full[1]
			 : sluice_open_connected(s, l, NULL, (struct sockaddr *)&to, sizeof(to));
	expect_error(s, fd, ETIMEDOUT, "cannot connect");
	close(full[0]);
	if (full[1] >= 0)
		close(full[1]);
	close(server_fd);
	sluice_set_timeout(s, HANG_MS);
	fd = sluice_open_connected(s, l, NULL, (struct sockaddr *)&to, sizeof(to));
	expect_error(s, fd, ECONNREFUSED, "cannot connect: Connection refused");
	assert_int_equal(count_fds(), fds - 1);
	sluice_close(s);
}

static void test_register(void **state)
{
	struct sluice_request req = { 0 };
	struct sluice *s = open_handle();
	struct sluice_lease *l = acquire_one(s, &req);
	struct sockaddr_in at;
	int fd = listener(1, &at);

	(void)state;
	assert_int_equal(sluice_register(s, l, fd), 0);
	assert_int_equal(fake->registered_port, ntohs(at.sin_port));
	/* Sent again with the descriptor. */
	fake->registered_port = 0;
	fake_be(FAKE_DROP, 1);
	assert_int_equal(sluice_register(s, l, fd), 0);
	assert_int_equal(fake->registered_port, ntohs(at.sin_port));
	close(fd);
	expect_error(s, sluice_register(s, l, fd), EBADF, "no descriptor");
	expect_error(s, sluice_register(s, l, -1), EBADF, "no descriptor");
	sluice_close(s);
}

/* ---- a daemon that is away, or leaves ---- */

static void test_restart(void **state)
{
	struct sluice_request req = { 0 };
	struct sluice *s = open_handle();
	struct sluice_lease *l = acquire_one(s, &req);
	struct sluice *away;

	(void)state;
	fake_stop(server);
	expect_error(s, sluice_renew(s, l, 0), ECONNREFUSED, "cannot reach sluiced at ");
	server = fake_start();
	assert_int_equal(sluice_renew(s, l, 0), 0);
	/* Stopped and started between two calls. */
	fake_stop(server);
	server = fake_start();
	assert_int_equal(sluice_acquire(s, &req, &l), 0);

	fake_stop(server);
	unlink(fake_path);
	expect_error(s, sluice_renew(s, l, 0), ENOENT, "No such file");
	assert_int_equal(sluice_connect(fake_path, &away), -ENOENT);
	assert_non_null(strstr(sluice_error(away), fake_path));
	server = fake_start();
	/* A handle that could not connect does it later. */
	assert_int_equal(sluice_find(away, sluice_lease_id(l), &l), 0);
	sluice_close(away);
	sluice_close(s);

	setenv("SLUICE_SOCKET", fake_path, 1);
	assert_int_equal(sluice_connect(NULL, &s), 0);
	sluice_close(s);
	unsetenv("SLUICE_SOCKET");
	{
		char path[200];

		memset(path, 'x', sizeof(path));
		path[199] = '\0';
		assert_int_equal(sluice_connect(path, &s), -ENAMETOOLONG);
		sluice_close(s);
	}
	assert_string_equal(sluice_error(NULL), "out of memory");
}

static void test_hang_up(void **state)
{
	struct sluice_request req = { 0 };
	struct sluice *s = open_handle();
	struct sluice_lease *l = acquire_one(s, &req), *none = NULL;
	int acquires = fake->acquires, renews = fake->renews;

	(void)state;
	/* Carried out, it may be: it must not be twice. */
	fake_be(FAKE_DROP, 1);
	expect_error(s, sluice_acquire(s, &req, &none), ECONNRESET, "has hung up");
	assert_int_equal(fake->acquires, acquires + 1);
	/* Not read, for certain: sent again. */
	fake_be(FAKE_UNREAD, 1);
	assert_int_equal(sluice_acquire(s, &req, &none), 0);
	assert_int_equal(fake->acquires, acquires + 2);
	/* But not for ever. */
	fake_be(FAKE_UNREAD, -1);
	expect_error(s, sluice_acquire(s, &req, &none), ECONNRESET, "has hung up");
	fake_be(FAKE_FAIR, 0);
	/* What may be done twice is. */
	fake_be(FAKE_DROP, 1);
	assert_int_equal(sluice_renew(s, l, 0), 0);
	assert_int_equal(fake->renews, renews + 2);
	fake_be(FAKE_DROP, 2);
	expect_error(s, sluice_renew(s, l, 0), ECONNRESET, "has hung up");
	fake_be(FAKE_DROP, 1);
	assert_int_equal(sluice_release(s, l), 0);
	sluice_close(s);
}

static void test_timeout(void **state)
{
	struct sluice_request req = { 0 };
	struct sluice *s = open_handle();
	struct sluice_lease *l = acquire_one(s, &req), *none = NULL;

	(void)state;
	sluice_set_timeout(s, 30);
	fake_be(FAKE_HANG, 1);
	expect_error(s, sluice_acquire(s, &req, &none), ETIMEDOUT, "does not answer");
	/* Stopped: what it answers later is not taken for the answer to something else. */
	kill(server, SIGSTOP);
	expect_error(s, sluice_acquire(s, &req, &none), ETIMEDOUT, "does not answer");
	kill(server, SIGCONT);
	sluice_set_timeout(s, 0);
	assert_int_equal(sluice_renew(s, l, 77), 0);
	assert_in_range(sluice_lease_expires_s(l), 77 - HANG_MS / 1000, 77);
	/* Its backlog is full. */
	fake_stop(server);
	unlink(fake_path);
	{
		struct sockaddr_un sa = { .sun_family = AF_UNIX };
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		int held = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		strcpy(sa.sun_path, fake_path);
		assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
		assert_int_equal(listen(fd, 0), 0);
		assert_int_equal(connect(held, (struct sockaddr *)&sa, sizeof(sa)), 0);
		sluice_set_timeout(s, 30);
		expect_error(s, sluice_renew(s, l, 0), ETIMEDOUT, "does not take the connection");
		close(held);
		close(fd);
	}
	server = fake_start();
	sluice_close(s);
}

/* ---- renewing in the background ---- */

/* The renewing thread, if there is one. */
static pid_t renewing_thread(void)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	pid_t tid = 0;

	assert_non_null(d);
	while ((e = readdir(d))) {
		char name[300], comm[32] = "";
		FILE *f;

		snprintf(name, sizeof(name), "/proc/self/task/%s/comm", e->d_name);
		f = fopen(name, "re");
		if (!f)
			continue;
		if (fgets(comm, sizeof(comm), f) && strcmp(comm, "sluice-renew\n") == 0) {
			assert_int_equal(tid, 0); /* one for each handle */
			tid = atoi(e->d_name);
		}
		fclose(f);
	}
	closedir(d);
	return tid;
}

static bool thread_is_gone(void *data)
{
	(void)data;
	return renewing_thread() == 0;
}

static uint64_t blocked_signals(pid_t tid)
{
	unsigned long long blocked = 0;
	char name[64], line[128];
	FILE *f;

	snprintf(name, sizeof(name), "/proc/self/task/%d/status", tid);
	f = fopen(name, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		sscanf(line, "SigBlk: %llx", &blocked);
	fclose(f);
	return blocked;
}

static bool renewed(void *data)
{
	return fake->renews >= *(int *)data;
}

static bool has_status(void *data)
{
	const struct sluice_lease *l = data;

	return sluice_lease_status(l) != 0;
}

static bool is_fine(void *data)
{
	const struct sluice_lease *l = data;

	return sluice_lease_status(l) == 0;
}

static bool is_stale(void *data)
{
	const struct sluice_lease *l = data;

	return sluice_lease_status(l) == -ESTALE;
}

static void test_renewal(void **state)
{
	struct sluice_request req = { .ttl_s = 1, .renew = true }, other = { .ttl_s = 1 };
	struct sluice *s = open_handle();
	struct sluice_lease *l[3];
	struct timespec begin, end;
	int want, stale;

	(void)state;
	acquire_one(s, &other);
	assert_int_equal(renewing_thread(), 0); /* nobody asked for it */
	for (int i = 0; i < 3; i++)
		l[i] = acquire_one(s, &req);
	/* All but those that the kernel cannot block, and those two that the C library keeps for itself. */
	assert_int_equal(~blocked_signals(renewing_thread()) & 0x7fffffff & ~0x40100ULL, 0);
	want = fake->renews + 9;
	assert_true(wait_until(renewed, &want));

	/* Trouble shows, and passes: an error, a daemon that is away. */
	fake_say("io.sluice.Failed", "{\"text\":\"disk full\"}", -1);
	assert_true(wait_until(has_status, l[0]));
	assert_int_equal(sluice_lease_status(l[0]), -EIO);
	fake_be(FAKE_FAIR, 0);
	assert_true(wait_until(is_fine, l[0]));
	fake_stop(server);
	assert_true(wait_until(has_status, l[1]));
	assert_int_equal(sluice_lease_status(l[1]), -ECONNREFUSED);
	server = fake_start();
	for (int i = 0; i < 3; i++)
		assert_true(wait_until(is_fine, l[i]));

	/* One that has ended is left alone; the others are still renewed. */
	fake->leases[sluice_lease_id(l[0])].active = 0;
	assert_true(wait_until(is_stale, l[0]));
	stale = fake->stale_renews;
	want = fake->renews + 4;
	assert_true(wait_until(renewed, &want));
	assert_int_equal(fake->stale_renews, stale);
	assert_int_equal(sluice_release(s, l[0]), -ESTALE);
	assert_int_equal(sluice_lease_status(l[1]), 0);

	/* Without leases the thread ends; with the next one it is there again. */
	assert_int_equal(sluice_release(s, l[1]), 0);
	assert_int_equal(sluice_release(s, l[2]), 0);
	assert_true(wait_until(thread_is_gone, NULL));
	l[0] = acquire_one(s, &req);
	want = fake->renews + 2;
	assert_true(wait_until(renewed, &want));

	/* One that was found is renewed as well, once that is asked for. */
	sluice_forget(s, l[0]);
	assert_int_equal(sluice_find(s, fake->next, &l[0]), 0);
	expect_error(s, sluice_keep(s, l[0], 0), EINVAL, "ttl_s is 0");
	assert_true(wait_until(thread_is_gone, NULL));
	assert_int_equal(sluice_keep(s, l[0], 1), 0);
	want = fake->renews + 2;
	assert_true(wait_until(renewed, &want));

	/* Closing does not wait for a renewal that hangs, which would take 10 s. */
	fake_be(FAKE_HANG, -1);
	want = fake->renews + 1;
	assert_true(wait_until(renewed, &want));
	clock_gettime(CLOCK_MONOTONIC, &begin);
	sluice_close(s);
	clock_gettime(CLOCK_MONOTONIC, &end);
	assert_true(end.tv_sec - begin.tv_sec < 8);
	assert_int_equal(renewing_thread(), 0);
	fake_be(FAKE_FAIR, 0);
}

/* ---- what the shared library exports ---- */

/* Does the header declare it? */
static bool is_declared(const char *header, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = header; (p = strstr(p, name)); p += n) {
		if (p[n] == '(' && (p[-1] == ' ' || p[-1] == '*'))
			return true;
	}
	return false;
}

static void test_exports(void **state)
{
	char exe[512] = "", command[600], name[128], type[8], *header, *paren;
	unsigned exported = 0, declared = 0;
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	FILE *f;
	long len;

	(void)state;
	assert_true(n > 0);
	f = fopen("include/sluice.h", "re");
	assert_non_null(f);
	header = calloc(1, 32768);
	len = (long)fread(header, 1, 32767, f);
	assert_in_range(len, 1000, 32766);
	fclose(f);
	snprintf(command, sizeof(command), "nm -D --defined-only %s/libsluice.so.0",
		 dirname(dirname(exe)));
	f = popen(command, "re");
	assert_non_null(f);
	while (fscanf(f, "%*s %7s %127s", type, name) == 2) {
		if (*type == 'A') /* the version's own name */
			continue;
		name[strcspn(name, "@")] = '\0';
		if (!is_declared(header, name))
			fail_msg("%s is exported, and is not in the header", name);
		exported++;
	}
	assert_int_equal(pclose(f), 0);
	/* The other way: whatever the header declares, outside of its comments, is there. */
	for (char *p = strstr(header, "struct sluice;"); p && (p = strstr(p, "sluice_")); p++) {
		paren = p + strcspn(p, " (;,*)\n");
		if (*paren == '(' && (p[-1] == ' ' || p[-1] == '*') && paren[1] != ')')
			declared++;
	}
	assert_in_range(exported, 20, declared);
	free(header);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_acquire),   cmocka_unit_test(test_refused_here),
		cmocka_unit_test(test_many),      cmocka_unit_test(test_errors),
		cmocka_unit_test(test_open),      cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_connected), cmocka_unit_test(test_register),
		cmocka_unit_test(test_restart),   cmocka_unit_test(test_hang_up),
		cmocka_unit_test(test_timeout),   cmocka_unit_test(test_renewal),
		cmocka_unit_test(test_exports),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
