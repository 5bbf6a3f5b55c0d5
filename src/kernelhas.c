/* SPDX-License-Identifier: BSD-2-Clause */
/* See kernelhas.h. */
#include "kernelhas.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nfwatch.h"
#include "sockdiag.h"

/* Newer than the headers of Debian 12. */
#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

static const struct {
	const char *id, *here, *instead;
} features[KERNEL_FEATURES] = {
	[KERNEL_NETFILTER] = { "kernel.netfilter", "netfilter programs (6.4 and later)",
			       "no netfilter programs before kernel 6.4: the watcher hears of "
			       "rewritten ports from ctnetlink alone, which may lose some under "
			       "load" },
	[KERNEL_PORT_RANGE] = { "kernel.port_range", "IP_LOCAL_PORT_RANGE (6.3 and later)",
				"no IP_LOCAL_PORT_RANGE before kernel 6.3: a socket of a shared "
				"lease is bound to one port of it, so that it has to be asked for "
				"anew for each connection to one destination" },
	[KERNEL_BOUND] = { "kernel.bound",
			   "sock_diag lists sockets that are only bound (6.8 and later)",
			   "sock_diag lists no sockets that are only bound before kernel 6.8: "
			   "before a port leaves its cool-down, it is tried by binding to it" },
	[KERNEL_PEERPIDFD] = { "kernel.peerpidfd", "SO_PEERPIDFD (6.5 and later)",
			       "no SO_PEERPIDFD before kernel 6.5: a caller's process is opened "
			       "by its number, and looked at twice" },
};

/* An option that the kernel does not know is ENOPROTOOPT. */
static int option_known(int r)
{
	return !r || errno != ENOPROTOOPT;
}

static int port_range_known(void)
{
	uint32_t range = 50000U << 16 | 50000U;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

	if (fd < 0)
		return -errno;
	r = option_known(setsockopt(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, &range, sizeof(range)));
	close(fd);
	return r;
}

static int peerpidfd_known(void)
{
	socklen_t len = sizeof(int);
	int pair[2], pidfd = -1, r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return -errno;
	r = option_known(getsockopt(pair[0], SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len));
	if (pidfd >= 0)
		close(pidfd);
	close(pair[0]);
	close(pair[1]);
	return r;
}

static int bound_known(void)
{
	struct sockdiag *d;
	struct errtext err;
	int r = sockdiag_open(&d, &err);

	if (r < 0)
		return r;
	r = sockdiag_sees_bound(d);
	sockdiag_close(d);
	return r;
}

void kernel_has_read(struct kernel_has *ret)
{
	struct errtext err;
	int r = nfwatch_probe(&err);

	ret->has[KERNEL_NETFILTER] = r == -EOPNOTSUPP ? 0 : r < 0 ? r : 1;
	ret->has[KERNEL_PORT_RANGE] = port_range_known();
	ret->has[KERNEL_BOUND] = bound_known();
	ret->has[KERNEL_PEERPIDFD] = peerpidfd_known();
}

void kernel_has_judge(const struct kernel_has *k, struct findings *out)
{
	for (int i = 0; i < KERNEL_FEATURES; i++) {
		if (k->has[i] > 0)
			findings_add(out, features[i].id, FINDING_OK, NULL, "%s", features[i].here);
		else if (k->has[i] == 0)
			findings_add(out, features[i].id, FINDING_INFO, NULL, "%s",
				     features[i].instead);
		else
			findings_add(out, features[i].id, FINDING_INFO,
				     k->has[i] == -EPERM ? "run as root" : NULL,
				     "it can't be found out whether the kernel has this: %s: %s",
				     features[i].here, strerror(-k->has[i]));
	}
}
