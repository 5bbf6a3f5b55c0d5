/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The answer to a client whose new flow is refused: ICMP destination unreachable, "communication
 * administratively prohibited" (RFC 792, RFC 1812 5.2.7.1; RFC 4443 3.1). Building is pure; sending uses
 * a raw socket of the calling thread's namespace.
 */
#ifndef ICMP_H
#define ICMP_H

#include <stddef.h>
#include <stdint.h>

#define ICMP_QUOTE_MAX 96 /* bytes of the refused packet that are quoted at most */
#define ICMP_MSG_MAX   (8 + ICMP_QUOTE_MAX)

/*
 * Build the message for a refused IPv4 packet. snap holds the packet's first snap_len bytes, from
 * its IP header on; what lies behind the packet's total length is not looked at. The quote is as
 * long as snap, packet and ICMP_QUOTE_MAX allow (RFC 1812 4.3.2.3). On success buf holds *ret_len
 * bytes, the ICMP header first, checksum done, and *ret_dst_be is where it must go, the packet's
 * source (network byte order). Returns 0, or -EINVAL for what must not be answered (RFC 1122 3.2.2,
 * RFC 1812 4.3.2.7) or can't be quoted: not IPv4, a header that contradicts itself or has a wrong
 * checksum, less than the header and 8 bytes of a packet that has them, a fragment other than the
 * first, an ICMP message that is no query or reply, a source that names no single host, a
 * destination that is no single host, a source route.
 */
int icmp_unreachable_build(const uint8_t *snap, size_t snap_len, uint8_t buf[ICMP_MSG_MAX],
			   size_t *ret_len, uint32_t *ret_dst_be);

/* A raw ICMP socket that only sends. Needs CAP_NET_RAW. Returns a file descriptor to close, or -errno. */
int icmp_open(void);
/*
 * Send one message; the kernel chooses the source address towards dst and puts the IP header in
 * front. Never blocks: -EAGAIN when the socket's buffer is full. Returns 0 or -errno.
 */
int icmp_send(int fd, const uint8_t *msg, size_t len, uint32_t dst_be);

/*
 * The same for a refused IPv6 packet, in ICMPv6. The checksum is left to the kernel, which alone knows
 * the source address. The quote is as long as snap, packet and ICMP_QUOTE_MAX allow, and not, as RFC 4443
 * 2.4 (c) has it, as long as a packet of 1280 bytes would: an event brings no more of it. ret_dst: the
 * packet's source, network byte order. Returns 0, or -EINVAL for what must not be answered (RFC 4443 2.4
 * (e)) or can't be quoted: not IPv6, cut before 8 bytes behind its headers of a packet that has them, a
 * fragment other than the first, an ICMPv6 message that is neither query nor reply, a source that names
 * no single host beyond this link, a destination that is no single host, headers that are not walked.
 */
int icmp6_unreachable_build(const uint8_t *snap, size_t snap_len, uint8_t buf[ICMP_MSG_MAX],
			    size_t *ret_len, uint8_t ret_dst[16]);

/* The two above for ICMPv6; icmp6_open() returns -EAFNOSUPPORT where there is no IPv6. */
int icmp6_open(void);
int icmp6_send(int fd, const uint8_t *msg, size_t len, const uint8_t dst[16]);

#endif
