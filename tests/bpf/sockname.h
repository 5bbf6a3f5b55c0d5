/* SPDX-License-Identifier: BSD-2-Clause */
/* Addresses of sockets, written as text. */
#ifndef SOCKNAME_H
#define SOCKNAME_H

#include "dp_test.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "addr.h"

/* "*": the wildcard. */
static inline struct addr A(const char *text) {
	struct addr a = { 0 };

	if (strcmp(text, "*") && addr_parse(text, &a))
		die("%s is no address", text);
	return a;
}

/* An address and port for a socket of this family; IPv4 for an IPv6 socket comes v4-mapped. */
static inline socklen_t
sockaddr_of(int family, const char *ip, uint16_t port, struct sockaddr_storage *ret)
{
	struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)ret;
	struct sockaddr_in *sin = (struct sockaddr_in *)ret;
	struct addr a = A(ip);

	memset(ret, 0, sizeof(*ret));
	if (family == AF_INET) {
		sin->sin_family = AF_INET;
		sin->sin_port = htons(port);
		if (strcmp(ip, "*"))
			sin->sin_addr.s_addr = addr_v4(&a);
		return sizeof(*sin);
	}
	sin6->sin6_family = AF_INET6;
	sin6->sin6_port = htons(port);
	memcpy(&sin6->sin6_addr, a.b, sizeof(a.b));
	return sizeof(*sin6);
}

#endif
