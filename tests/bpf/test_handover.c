/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A service restarts, again and again, and the daemon with it, under fire: no datagram is lost. If one is, it is told when that was sent and which counters moved.
 */
#include "losses.h"

#include <linux/sock_diag.h>
#include <pthread.h>
#include <stdatomic.h>

#define SERVICES  40
#define TURNS     100
#define WINDOW    64 /* datagrams that may be on the way; more would be the receive buffer's loss */
#define FIRE_TOLD 8  /* of those that are missing, how many are told singly */

enum fire_step {
	FIRE_QUIET,
	FIRE_EXCHANGE, /* of the slot's socket */
	FIRE_CLOSE,    /* of the data plane */
	FIRE_OPEN,
	FIRE_ATTACH,
	FIRE_REGISTER,
};

static const char *const fire_steps[] = {
	[FIRE_QUIET] = "while nothing was done",
	[FIRE_EXCHANGE] = "while the sockets were exchanged",
	[FIRE_CLOSE] = "while the data plane was closed",
	[FIRE_OPEN] = "while the data plane was opened",
	[FIRE_ATTACH] = "while the programs were exchanged",
	[FIRE_REGISTER] = "while the lease's row was written",
};

struct fire_shot {
	atomic_uchar seen; /* how often it came */
	uint8_t turn, step;
};

static struct {
	atomic_int fds[SERVICES]; /* 0: not there yet */
	atomic_uint sent, received, twice;
	atomic_uchar turn, step;
	atomic_bool stop; /* send no more */
	atomic_bool over; /* nor receive */
	atomic_bool failed;
	unsigned seen[SERVICES]; /* by service */
} fire;

static struct fire_shot *fire_shots; /* by number */
#define FIRE_MAX 2000000

static void *fire_send(void *arg)
{
	union endpoint e = endpoint(SHARED_IP4, FIRST + 5);
	int fd = *(int *)arg;

	while (!fire.stop && fire.sent < FIRE_MAX) {
		uint32_t n = fire.sent;

		if (n - fire.received > WINDOW) {
			sched_yield();
			continue;
		}
		fire_shots[n].turn = fire.turn;
		fire_shots[n].step = fire.step;
		if (sendto(fd, &n, sizeof(n), 0, &e.sa, sizeof(e.v4)) != sizeof(n)) {
			fire.failed = true;
			break;
		}
		fire.sent++;
	}
	return NULL;
}

/* Until it is told: that all that was sent is here says nothing while the sender may be on its way with one more. */
static void *fire_receive(void *arg)
{
	uint32_t n;

	while (!fire.over) {
		for (int i = 0; i < SERVICES && fire.fds[i]; i++) {
			while (recv(fire.fds[i], &n, sizeof(n), MSG_DONTWAIT) == sizeof(n)) {
				if (fire_shots[n].seen++)
					fire.twice++;
				fire.seen[i]++;
				fire.received++;
			}
		}
	}
	return arg;
}

/* False: not within PATIENCE_S. */
static bool fire_until(uint32_t received)
{
	uint64_t end = now_ns() + PATIENCE_S * 1000000000ULL;

	while ((int32_t)(fire.received - received) < 0) {
		if (fire.failed || now_ns() > end)
			return false;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	return true;
}

/* Which are missing, when they were sent, and what the counters say of them. */
static void fire_tell(const struct dp *dp, const struct losses *before)
{
	unsigned missing = 0;

	for (uint32_t n = 0; n < fire.sent; n++) {
		const struct fire_shot *s = &fire_shots[n];

		if (s->seen || missing++ >= FIRE_TOLD)
			continue;
		print_error("number %u of %u did not come; sent in turn %u, %s\n", n, fire.sent,
			    s->turn, fire_steps[s->step]);
	}
	print_error("%u of %u did not come\n", missing, fire.sent);
	for (int i = 0; i < SERVICES && fire.fds[i]; i++) {
		uint32_t mem[SK_MEMINFO_VARS] = { 0 }, n;
		socklen_t len = sizeof(mem);

		/* Not lost, but not fetched: the test's own fault. */
		while (recv(fire.fds[i], &n, sizeof(n), MSG_DONTWAIT) == sizeof(n))
			print_error("number %u waits in the socket of service %d\n", n, i);
		if (!getsockopt(fire.fds[i], SOL_SOCKET, SO_MEMINFO, mem, &len) &&
		    mem[SK_MEMINFO_DROPS])
			print_error("the socket of service %d dropped %u\n", i,
				    mem[SK_MEMINFO_DROPS]);
	}
	losses_tell(dp, before);
}

/* The daemon dies and another one takes over. */
static struct dp *fire_reopen(struct dp *dp)
{
	fire.step = FIRE_CLOSE;
	must_close(dp);
	fire.step = FIRE_OPEN;
	dp = must_open();
	fire.step = FIRE_ATTACH;
	attach(dp, NULL);
	return dp;
}

static pthread_t fire_sender, fire_receiver;
static struct losses fire_before;
static int fire_tx;

/* The first service stands already. */
static bool fire_begin(const struct dp *dp, int fd)
{
	memset(&fire, 0, sizeof(fire));
	fire.fds[0] = fd;
	fire_shots = calloc(FIRE_MAX, sizeof(*fire_shots));
	assert_non_null(fire_shots);
	fire_tx = socket_in(ns_inside, AF_INET, SOCK_DGRAM);
	losses_read(dp, &fire_before);
	assert_int_equal(pthread_create(&fire_sender, NULL, fire_send, &fire_tx), 0);
	assert_int_equal(pthread_create(&fire_receiver, NULL, fire_receive, NULL), 0);
	return fire_until(100);
}

/* all: none has been missed so far. Services: those that must have got something. */
static void fire_end(const struct dp *dp, bool all, int services)
{
	fire.stop = true;
	pthread_join(fire_sender, NULL);
	/* No more are sent from here on. */
	all &= fire_until(fire.sent);
	fire.over = true;
	pthread_join(fire_receiver, NULL);
	if (!all)
		fire_tell(dp, &fire_before);
	assert_false(fire.failed);
	assert_true(all);
	assert_int_equal(fire.received, fire.sent);
	assert_int_equal(fire.twice, 0);
	for (int i = 0; i < services; i++) {
		if (!fire.seen[i])
			die("service %d of %d got none of %u", i, services, fire.sent);
		close(fire.fds[i]);
	}
	free(fire_shots);
	close(fire_tx);
}

/* Old and new socket take turns in the slot, and the daemon in between: each datagram gets to one of them, once. */
static void test_restart(void **state)
{
	struct dp *dp = open_scene();
	bool all;
	int fd;

	(void)state;
	attach(dp, NULL);
	lease_port(dp, SHARED_IP4, FIRST + 5, SLUICE_UDP, SLUICE_LEASE_EXCLUSIVE, 1);
	fd = stand(SOCK_DGRAM, "127.0.0.1", 7100);
	steer_set(dp, 0, fd);
	all = fire_begin(dp, fd);
	for (int i = 1; i < SERVICES && all; i++) {
		fd = stand(SOCK_DGRAM, "127.0.0.1", (uint16_t)(7100 + i));
		fire.fds[i] = fd;
		fire.turn = (uint8_t)i;
		fire.step = FIRE_EXCHANGE;
		steer_set(dp, 0, fd);
		if (i % 8 == 0)
			dp = fire_reopen(dp);
		fire.step = FIRE_QUIET;
		all = fire_until(fire.received + 100);
	}
	fire_end(dp, all, SERVICES);
	must_close(dp);
}

/*
 * The old service stands at the leased port itself, the new one elsewhere and is registered, which writes the lease's row anew; and back again. Leases come all
 * the time whose rows get in front of it in the map's chains.
 */
static void test_registers(void **state)
{
	struct dp *dp = open_scene();
	bool all;
	int fd;

	(void)state;
	attach(dp, NULL);
	lease_port(dp, SHARED_IP4, FIRST + 5, SLUICE_UDP, SLUICE_LEASE_EXCLUSIVE, 0);
	fd = stand(SOCK_DGRAM, "127.0.0.1", 7100);
	steer_set(dp, 0, fd);
	all = fire_begin(dp, stand(SOCK_DGRAM, SHARED_IP4, FIRST + 5));
	fire.fds[1] = fd;
	for (int i = 1; i < TURNS && all; i++) {
		fire.turn = (uint8_t)i;
		fire.step = FIRE_REGISTER;
		for (uint16_t p = 0; p < 100; p++)
			lease_port(dp, SHARED_IP4, (uint16_t)(1024 + 100 * i + p), SLUICE_UDP,
				   SLUICE_LEASE_SHARED, 0);
		lease_port(dp, SHARED_IP4, FIRST + 5, SLUICE_UDP, SLUICE_LEASE_EXCLUSIVE, i % 2);
		fire.step = FIRE_QUIET;
		all = fire_until(fire.received + 20);
	}
	fire_end(dp, all, 2);
	must_close(dp);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_restart, lab_clean),
		cmocka_unit_test_teardown(test_registers, lab_clean),
	};

	return cmocka_run_group_tests(tests, sockets_open, sockets_done);
}
