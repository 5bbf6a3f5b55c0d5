/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A socket that is bound to a device is not found by bpf_skc_lookup_tcp() where no device is named, and the kernel lets another socket, bound to none, connect on
 * the very same tuple. But bind() without SO_REUSEADDR knows both.
 */
#include <netinet/tcp.h>

#include "fact_sk_lookup.h"

int main(void)
{
	struct fact_lookup skc;
	int fd, other, got, zero = 0;

	fact_init();
	skc = fact_lookup_new(BPF_FUNC_skc_lookup_tcp);
	/* A tuple that leads nowhere, so that nothing answers either socket. */
	fact_sh("ip link add void type veth peer name floor");
	fact_sh("ip link set void up && ip link set floor up && ip addr add 192.0.2.1/24 dev void");
	fact_sh("ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:01 dev void");

	fd = fact_socket(SOCK_STREAM, "192.0.2.1", 41000);
	MUST(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "void", 4));
	MUST(fcntl(fd, F_SETFL, O_NONBLOCK));
	got = fact_connect(fd, "192.0.2.9", 80) ? errno : 0;
	MUST(got == EINPROGRESS ? 0 : -1);
	got = fact_lookup(&skc, "192.0.2.1", 41000, "192.0.2.9", 80);
	fact_check(got == -1, "bound_to_device_unseen", "state %d", got);

	other = fact_socket(SOCK_STREAM, "192.0.2.1", 41000);
	MUST(fcntl(other, F_SETFL, O_NONBLOCK));
	got = fact_connect(other, "192.0.2.9", 80) ? errno : 0;
	fact_check(got == EINPROGRESS, "tuple_given_twice", "%s", strerror(got));
	close(other);

	other = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	MUST(setsockopt(other, SOL_SOCKET, SO_REUSEADDR, &zero, sizeof(zero)));
	got = fact_bind(other, "192.0.2.1", 41000) ? errno : 0;
	fact_check(got == EADDRINUSE, "bind_knows", "%s", strerror(got));
	return fact_end();
}
