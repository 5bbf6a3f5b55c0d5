/* SPDX-License-Identifier: BSD-2-Clause */
#include "icmp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define IP_MIN         20
#define FRAG_OFFSET    0x1fff
#define ICMP_HDR       8
#define QUOTE_MIN_DATA 8 /* RFC 792: "the first 64 bits of the original datagram's data" */
#define IP6_HDR        40
#define IP6_EXT_UNIT   8

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

/* RFC 1071, over bytes: no alignment needed. */
static uint16_t checksum(const uint8_t *p, size_t len)
{
	uint32_t sum = 0;

	for (; len > 1; p += 2, len -= 2)
		sum += get16(p);
	if (len)
		sum += (uint32_t)p[0] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* Neither "this network", loopback, multicast, reserved nor broadcast. A subnet's can't be told. */
static bool source_is_host(uint32_t a)
{
	return a >> 24 != 0 && a >> 24 != 127 && a < 0xe0000000;
}

static bool destination_is_host(uint32_t a)
{
	return a >> 24 != 0 && a >> 24 != 127 && a >> 28 != 0xe && a != INADDR_BROADCAST;
}

/*
 * Options that contradict themselves are as bad as a bad header. A source route means that the
 * destination in the header is not where the packet was meant to end, and would ask for the reverse
 * route in the answer: no answer.
 */
static bool options_fine(const uint8_t *opt, size_t len)
{
	for (size_t i = 0; i < len;) {
		if (opt[i] == IPOPT_EOL)
			return true;
		if (opt[i] == IPOPT_NOP) {
			i++;
			continue;
		}
		if (opt[i] == IPOPT_LSRR || opt[i] == IPOPT_SSRR)
			return false;
		if (i + 1 >= len || opt[i + 1] < 2 || opt[i + 1] > len - i)
			return false;
		i += opt[i + 1];
	}
	return true;
}

/* Errors, and types that nobody has defined yet, are not answered: only what is known to be query or reply. */
static bool icmp_type_answerable(uint8_t type)
{
	switch (type) {
	case ICMP_ECHOREPLY:
	case ICMP_ECHO:
	case ICMP_TIMESTAMP:
	case ICMP_TIMESTAMPREPLY:
	case ICMP_INFO_REQUEST:
	case ICMP_INFO_REPLY:
	case ICMP_ADDRESS:
	case ICMP_ADDRESSREPLY:
		return true;
	default:
		return false;
	}
}

int icmp_unreachable_build(const uint8_t *snap, size_t snap_len, uint8_t buf[ICMP_MSG_MAX],
			   size_t *ret_len, uint32_t *ret_dst_be)
{
	if (snap_len < IP_MIN || snap[0] >> 4 != 4)
		return -EINVAL;

	size_t ihl = (size_t)(snap[0] & 0xf) * 4;
	size_t total = get16(snap + 2);
	uint32_t src = get32(snap + 12);

	if (ihl < IP_MIN || ihl > snap_len || total < ihl || checksum(snap, ihl))
		return -EINVAL;
	if (!options_fine(snap + IP_MIN, ihl - IP_MIN))
		return -EINVAL;
	if (get16(snap + 6) & FRAG_OFFSET)
		return -EINVAL;
	if (!source_is_host(src) || !destination_is_host(get32(snap + 16)))
		return -EINVAL;

	size_t have = snap_len < total ? snap_len : total;
	size_t least = total < ihl + QUOTE_MIN_DATA ? total : ihl + QUOTE_MIN_DATA;

	if (have < least)
		return -EINVAL;
	if (snap[9] == IPPROTO_ICMP && (have < ihl + ICMP_HDR || !icmp_type_answerable(snap[ihl])))
		return -EINVAL;

	size_t quote = have < ICMP_QUOTE_MAX ? have : ICMP_QUOTE_MAX;

	memset(buf, 0, ICMP_HDR);
	buf[0] = ICMP_DEST_UNREACH;
	buf[1] = ICMP_PKT_FILTERED;
	memcpy(buf + ICMP_HDR, snap, quote);

	uint16_t sum = checksum(buf, ICMP_HDR + quote);

	buf[2] = sum >> 8;
	buf[3] = sum & 0xff;
	*ret_len = ICMP_HDR + quote;
	*ret_dst_be = htonl(src);
	return 0;
}

int icmp_open(void)
{
	struct sock_filter none = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog filter = { 1, &none };
	int tos = IPTOS_PREC_INTERNETCONTROL; /* RFC 1812 4.3.2.5 */
	int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_ICMP);

	if (fd < 0)
		return -errno;
	/* Without the filter every ICMP packet of the machine would be queued here, to be read by nobody. */
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) < 0 ||
	    setsockopt(fd, IPPROTO_IP, IP_TOS, &tos, sizeof(tos)) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

int icmp_send(int fd, const uint8_t *msg, size_t len, uint32_t dst_be)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = dst_be };
	ssize_t n = sendto(fd, msg, len, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&to,
			   sizeof(to));

	return n < 0 ? -errno : 0;
}

/*
 * The upper header of an IPv6 packet, behind extension headers. A routing header means that the destination is not where the packet was meant to end, and others are not
 * ours to walk: no answer. Returns 0 or -EINVAL.
 */
static int upper_find(const uint8_t *p, size_t have, uint8_t *ret_proto, size_t *ret_off)
{
	uint8_t next = p[6];
	size_t off = IP6_HDR;

	while (next == IPPROTO_HOPOPTS || next == IPPROTO_DSTOPTS || next == IPPROTO_FRAGMENT) {
		bool fragment = next == IPPROTO_FRAGMENT;

		if (off + IP6_EXT_UNIT > have || (fragment && get16(p + off + 2) & ~7))
			return -EINVAL;
		next = p[off];
		off += fragment ? IP6_EXT_UNIT : (p[off + 1] + 1u) * IP6_EXT_UNIT;
	}
	if (next == IPPROTO_ROUTING || next == IPPROTO_AH || next == IPPROTO_NONE)
		return -EINVAL;
	*ret_proto = next;
	*ret_off = off;
	return 0;
}

/* No unspecified, loopback, multicast, v4-mapped or link-local address: the last would need its link named. */
static bool host6(const uint8_t *a)
{
	static const uint8_t zero[16];

	return a[0] != 0xff && memcmp(a, zero, 10) && !(a[0] == 0xfe && (a[1] & 0xc0) == 0x80);
}

int icmp6_unreachable_build(const uint8_t *snap, size_t snap_len, uint8_t buf[ICMP_MSG_MAX],
			    size_t *ret_len, uint8_t ret_dst[16])
{
	size_t total, have, quote, off;
	uint8_t proto;

	if (snap_len < IP6_HDR || snap[0] >> 4 != 6 || !host6(snap + 8) || !host6(snap + 24))
		return -EINVAL;
	total = IP6_HDR + get16(snap + 4);
	have = snap_len < total ? snap_len : total;
	if (upper_find(snap, have, &proto, &off) < 0)
		return -EINVAL;
	if (off > total || have < (total < off + QUOTE_MIN_DATA ? total : off + QUOTE_MIN_DATA))
		return -EINVAL;
	/* Of ICMPv6, the two that are translated. Errors have types below 128. */
	if (proto == IPPROTO_ICMPV6 &&
	    (have < off + ICMP_HDR ||
	     (snap[off] != ICMPV6_ECHO_REQUEST && snap[off] != ICMPV6_ECHO_REPLY)))
		return -EINVAL;
	quote = have < ICMP_QUOTE_MAX ? have : ICMP_QUOTE_MAX;
	memset(buf, 0, ICMP_HDR);
	buf[0] = ICMPV6_DEST_UNREACH;
	buf[1] = ICMPV6_ADM_PROHIBITED;
	memcpy(buf + ICMP_HDR, snap, quote);
	*ret_len = ICMP_HDR + quote;
	memcpy(ret_dst, snap + 8, 16);
	return 0;
}

int icmp6_open(void)
{
	struct sock_filter none = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog filter = { 1, &none };
	int tclass = IPTOS_PREC_INTERNETCONTROL;
	int fd = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_ICMPV6);

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) < 0 ||
	    setsockopt(fd, IPPROTO_IPV6, IPV6_TCLASS, &tclass, sizeof(tclass)) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

int icmp6_send(int fd, const uint8_t *msg, size_t len, const uint8_t dst[16])
{
	struct sockaddr_in6 to = { .sin6_family = AF_INET6 };
	ssize_t n;

	memcpy(&to.sin6_addr, dst, sizeof(to.sin6_addr));
	n = sendto(fd, msg, len, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&to, sizeof(to));
	return n < 0 ? -errno : 0;
}
