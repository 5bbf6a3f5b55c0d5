/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A cable between two tun interfaces, which have no link-layer header: what a tunnel or a VPN looks like to the host.
 *
 *   tun NETNS NAME NETNS NAME
 *
 * NETNS is a path such as /run/netns/edge1. Makes an interface of that name in each and carries packets between them, both ways. Says {"event":"ready"} when they are
 * there (down and without addresses), and runs until SIGTERM or the end of stdin; then the interfaces go, too, and it reports how many packets it has carried.
 */
#include "tool.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int tun_open(const char *netns, const char *name)
{
	struct ifreq req = { .ifr_flags = IFF_TUN | IFF_NO_PI };
	int ns = open(netns, O_RDONLY | O_CLOEXEC), fd;

	if (ns < 0 || setns(ns, CLONE_NEWNET))
		die("%s: %s", netns, strerror(errno));
	close(ns);
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		die("/dev/net/tun: %s", strerror(errno));
	if (strlen(name) >= sizeof(req.ifr_name))
		die("\"%s\" is too long for the name of an interface", name);
	strcpy(req.ifr_name, name);
	if (ioctl(fd, TUNSETIFF, &req))
		die("%s: %s", name, strerror(errno));
	return fd;
}

/* All that there is. Returns the number of packets. */
static uint64_t carry(int from, int to)
{
	static uint8_t packet[65536];
	uint64_t n = 0;
	ssize_t len;

	while ((len = read(from, packet, sizeof(packet))) > 0) {
		/* A full or downed interface loses packets, as a cable does. */
		if (write(to, packet, (size_t)len) == len)
			n++;
	}
	return n;
}

int main(int argc, char **argv)
{
	uint64_t there = 0, back = 0;
	struct pollfd p[3];
	char line[64];

	if (argc != 5)
		die("usage: tun NETNS NAME NETNS NAME");
	tool_catch_signals();
	p[0] = (struct pollfd){ .fd = tun_open(argv[1], argv[2]), .events = POLLIN };
	p[1] = (struct pollfd){ .fd = tun_open(argv[3], argv[4]), .events = POLLIN };
	p[2] = (struct pollfd){ .fd = STDIN_FILENO, .events = POLLIN };
	printf("{\"event\":\"ready\"}\n");
	fflush(stdout);
	while (!tool_stopped) {
		if (poll(p, 3, -1) < 0)
			continue;
		there += carry(p[0].fd, p[1].fd);
		back += carry(p[1].fd, p[0].fd);
		if ((p[2].revents & (POLLIN | POLLHUP)) &&
		    read(STDIN_FILENO, line, sizeof(line)) <= 0)
			break;
	}
	printf("{\"event\":\"report\",\"there\":%llu,\"back\":%llu}\n", (unsigned long long)there,
	       (unsigned long long)back);
	return 0;
}
