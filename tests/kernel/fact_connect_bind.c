/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A connect hook binds the socket with bpf_bind(): several on one port when SO_REUSEADDR is on, and stays on. post_bind does not run for it. A refusal has the errno that the
 * hook chooses, and leaves the socket as it was; so has one of post_bind.
 */
#include "fact_cgroup.h"

#define SHARED "203.0.113.7"

static struct fact_cells hook, post;

enum {
	POST_RUNS,
	POST_DENY,
};

static int dialer(void)
{
	return MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

/* connect() from port 41000 of the shared address by the hook. Returns what bpf_bind() said. */
static int dial(int fd, uint16_t to, bool reuse)
{
	hook.c[HOOK_PORT] = htons(41000);
	hook.c[HOOK_ADDR] = fact_addr(SHARED, 0).sin_addr.s_addr;
	hook.c[HOOK_REUSE] = reuse;
	hook.c[HOOK_BOUND] = 1;
	MUST(fact_connect(fd, "127.0.0.1", to));
	return (int)(int64_t)hook.c[HOOK_BOUND];
}

static void reuse_off(int fd)
{
	int zero = 0;

	MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &zero, sizeof(zero)));
}

int main(void)
{
	uint16_t to[3];
	int fds[3], r, fd;

	fact_init();
	fact_cgroup_init();
	fact_sh("ip route add local %s dev lo", SHARED);
	for (int i = 0; i < 3; i++)
		to[i] = fact_port(fact_listen("127.0.0.1", 0), false);
	hook = fact_cells_new();
	post = fact_cells_new();
	fact_hook_new(&hook);
	fact_sock_hook_new(&post, BPF_CGROUP_INET4_POST_BIND, POST_RUNS, POST_DENY);
	fact_cgroup_enter();

	fds[0] = dialer();
	r = dial(fds[0], to[0], true);
	fact_check(r == 0 && fact_port(fds[0], false) == 41000, "bound_by_the_hook",
		   "bpf_bind() said %d, port %u", r, fact_port(fds[0], false));
	fact_check(post.c[POST_RUNS] == 0, "no_post_bind", "it ran %d times",
		   (int)post.c[POST_RUNS]);
	fds[1] = dialer();
	r = dial(fds[1], to[1], true);
	fact_check(r == 0 && fact_port(fds[1], false) == 41000, "port_shared", "%d", r);
	fds[2] = dialer();
	r = dial(fds[2], to[2], false);
	fact_check(r == -EADDRINUSE, "port_not_shared_without_reuse", "%d", r);
	fact_check(fact_port(fds[2], false) != 41000, "unbound_after_failure",
		   "the socket has the port all the same");
	close(fds[2]);

	/*
	 * A socket that has had the option taken away is in the way of the others. The kernel may overlook it while all that bind to the port have the option, so one on
	 * another address is put there that has not.
	 */
	reuse_off(fds[0]);
	fd = dialer();
	MUST(fact_bind(fd, "127.0.0.1", 41000));
	fds[2] = dialer();
	r = dial(fds[2], to[2], true);
	fact_check(r == -EADDRINUSE, "reuse_off_blocks", "%d", r);
	close(fds[2]);
	r = 1;
	MUST(setsockopt(fds[0], SOL_SOCKET, SO_REUSEADDR, &r, sizeof(r)));
	fds[2] = dialer();
	r = dial(fds[2], to[2], true);
	fact_check(r == 0, "reuse_on_shares_again", "%d", r);

	/* Errors. */
	hook.c[HOOK_PORT] = hook.c[HOOK_REUSE] = 0;
	hook.c[HOOK_DENY] = EADDRNOTAVAIL;
	fd = dialer();
	r = fact_connect(fd, "127.0.0.1", to[0]) ? errno : 0;
	fact_check(r == EADDRNOTAVAIL, "connect_errno_chosen", "%s", strerror(r));
	fact_check(fact_port(fd, false) == 0, "connect_refused_unbound", "it has a port");
	hook.c[HOOK_DENY] = 0;
	fact_check(!fact_connect(fd, "127.0.0.1", to[0]), "connect_again", "%s", strerror(errno));

	fd = dialer();
	post.c[POST_DENY] = EADDRNOTAVAIL;
	r = fact_bind(fd, "127.0.0.1", 41007) ? errno : 0;
	fact_check(r == EADDRNOTAVAIL, "post_bind_errno_chosen", "%s", strerror(r));
	fact_check(fact_port(fd, false) == 0, "post_bind_refused_unbound", "it has a port");
	post.c[POST_DENY] = 0;
	fact_check(!fact_bind(fd, "127.0.0.1", 41007), "post_bind_again", "%s", strerror(errno));
	return fact_end();
}
