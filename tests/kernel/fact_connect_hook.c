/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What runs the connect hooks of a control group, and whose: all ways to connect a TCP socket do, those of MPTCP, TCP Fast Open and io_uring
 * among them. The group is that of the socket, not that of the process. sock_release runs when a program's socket is closed, not for the sockets that
 * MPTCP makes for itself.
 */
#include <linux/io_uring.h>
#include <netinet/tcp.h>
#include <sys/syscall.h>

#include "fact_cgroup.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef TCP_FASTOPEN_CONNECT
#define TCP_FASTOPEN_CONNECT 30
#endif

static struct fact_cells hook, released;
static uint16_t server;

static int dialer(int proto)
{
	return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, proto);
}

/* Has the hook run since the last time? */
static int runs(void)
{
	int n = (int)hook.c[HOOK_RUNS];

	hook.c[HOOK_RUNS] = 0;
	return n;
}

/* One IORING_OP_CONNECT, waited for. Returns its result, or -ENOSYS where there is no io_uring. */
static int ring_connect(int fd)
{
	struct sockaddr_in to = fact_addr("127.0.0.1", server);
	struct io_uring_params p = { 0 };
	struct io_uring_sqe *sqes;
	char *sq, *cq;
	unsigned at;
	int ring = (int)syscall(__NR_io_uring_setup, 4, &p), res;

	if (ring < 0)
		return -ENOSYS;
	sq = mmap(NULL, p.sq_off.array + p.sq_entries * sizeof(unsigned), PROT_READ | PROT_WRITE,
		  MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
	cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe),
		  PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_CQ_RING);
	sqes = mmap(NULL, p.sq_entries * sizeof(*sqes), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
	MUST(sq == MAP_FAILED || cq == MAP_FAILED || (void *)sqes == MAP_FAILED ? -1 : 0);
	sqes[0] = (struct io_uring_sqe){
		.opcode = IORING_OP_CONNECT, .fd = fd, .addr = (uintptr_t)&to, .off = sizeof(to)
	};
	*(unsigned *)(void *)(sq + p.sq_off.array) = 0;
	__atomic_store_n((unsigned *)(void *)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
	MUST((int)syscall(__NR_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0));
	at = *(unsigned *)(void *)(cq + p.cq_off.head) &
	     *(unsigned *)(void *)(cq + p.cq_off.ring_mask);
	res = ((struct io_uring_cqe *)(void *)(cq + p.cq_off.cqes))[at].res;
	close(ring);
	return res;
}

static void try_mptcp(void)
{
	int fd = dialer(IPPROTO_MPTCP), n;

	if (fd < 0) {
		fact_skip("mptcp", "this kernel has none: %s", strerror(errno));
		return;
	}
	released.c[0] = 0;
	MUST(fact_connect(fd, "127.0.0.1", server));
	n = runs();
	fact_check(n == 1, "mptcp", "the hook ran %d times", n);
	close(fd);
	/* For the program's socket; the one inside of it is the kernel's own. */
	n = (int)released.c[0];
	fact_check(n == 1, "mptcp_released_once", "sock_release ran %d times", n);
}

int main(void)
{
	int fd, n, outside, inside, one = 1, r;
	struct sockaddr_in to;

	fact_init();
	fact_cgroup_init();
	server = fact_port(fact_listen("127.0.0.1", 0), false);
	to = fact_addr("127.0.0.1", server);
	hook = fact_cells_new();
	released = fact_cells_new();
	fact_hook_new(&hook);
	fact_sock_hook_new(&released, BPF_CGROUP_INET_SOCK_RELEASE, 0, -1);
	outside = MUST(dialer(0));
	fact_cgroup_enter();

	fd = MUST(dialer(0));
	MUST(fact_connect(fd, "127.0.0.1", server));
	n = runs();
	fact_check(n == 1, "connect", "the hook ran %d times", n);
	close(fd);
	fact_check(released.c[0] == 1, "released", "sock_release ran %d times", (int)released.c[0]);

	fd = MUST(dialer(0));
	MUST((int)sendto(fd, "x", 1, MSG_FASTOPEN, (struct sockaddr *)&to, sizeof(to)));
	n = runs();
	fact_check(n == 1, "sendto_fastopen", "the hook ran %d times", n);
	close(fd);
	fd = MUST(dialer(0));
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &one, sizeof(one)));
	MUST(fact_connect(fd, "127.0.0.1", server));
	n = runs();
	fact_check(n == 1, "fastopen_connect", "the hook ran %d times", n);
	close(fd);

	fd = MUST(dialer(0));
	r = ring_connect(fd);
	if (r == -ENOSYS) {
		fact_skip("io_uring", "there is none here");
	} else {
		n = runs();
		fact_check(r == 0 && n == 1, "io_uring", "returned %d, the hook ran %d times", r,
			   n);
		hook.c[HOOK_DENY] = EADDRNOTAVAIL;
		r = ring_connect(MUST(dialer(0)));
		fact_check(r == -EADDRNOTAVAIL, "io_uring_refused", "returned %d", r);
		hook.c[HOOK_DENY] = 0;
		runs();
	}
	close(fd);
	try_mptcp();

	/* The group that the socket was made in. */
	MUST(fact_connect(outside, "127.0.0.1", server));
	n = runs();
	fact_check(n == 0, "socket_from_outside", "the hook ran %d times", n);
	inside = MUST(dialer(0));
	fact_cgroup_leave();
	MUST(fact_connect(inside, "127.0.0.1", server));
	n = runs();
	fact_check(n == 1, "socket_from_inside", "the hook ran %d times", n);
	return fact_end();
}
