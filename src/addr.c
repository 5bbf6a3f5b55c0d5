/* SPDX-License-Identifier: BSD-2-Clause */
#include "addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define V4_BITS 96 /* what a v4-mapped address has in front */

static const uint8_t v4_mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

bool addr_is_v4(const struct addr *a)
{
	return memcmp(a->b, v4_mapped, sizeof(v4_mapped)) == 0;
}

int addr_cmp(const struct addr *a, const struct addr *b)
{
	return memcmp(a->b, b->b, sizeof(a->b));
}

int addr_order(const void *a, const void *b)
{
	return addr_cmp(a, b);
}

uint32_t addr_v4(const struct addr *a)
{
	uint32_t be;

	memcpy(&be, a->b + sizeof(v4_mapped), sizeof(be));
	return be;
}

struct addr addr_from_v4(uint32_t be)
{
	struct addr a;

	memcpy(a.b, v4_mapped, sizeof(v4_mapped));
	memcpy(a.b + sizeof(v4_mapped), &be, sizeof(be));
	return a;
}

/*
 * "::ffff:192.0.2.1" is refused: it would be a second spelling of an IPv4 address, and a reader
 * could take it for an IPv6 one.
 */
int addr_parse(const char *s, struct addr *ret)
{
	struct in_addr in4;
	struct addr a;

	if (inet_pton(AF_INET, s, &in4) == 1) {
		*ret = addr_from_v4(in4.s_addr);
		return 0;
	}
	if (inet_pton(AF_INET6, s, a.b) == 1 && !addr_is_v4(&a)) {
		*ret = a;
		return 0;
	}
	return -EINVAL;
}

const char *addr_format(const struct addr *a, char buf[ADDR_STRLEN])
{
	if (addr_is_v4(a))
		inet_ntop(AF_INET, a->b + sizeof(v4_mapped), buf, ADDR_STRLEN);
	else
		inet_ntop(AF_INET6, a->b, buf, ADDR_STRLEN);
	return buf;
}

/* A decimal number without sign, blanks or leading zeros, up to max; *end is where it stopped. */
static bool digits(const char *s, const char **end, unsigned max, unsigned *ret)
{
	unsigned n = 0;

	if (*s < '0' || *s > '9' || (*s == '0' && s[1] >= '0' && s[1] <= '9'))
		return false;
	for (; *s >= '0' && *s <= '9'; s++) {
		n = n * 10 + (unsigned)(*s - '0');
		if (n > max)
			return false;
	}
	*end = s;
	*ret = n;
	return true;
}

/* Parse the first len characters of s as an address. */
static int parse_part(const char *s, size_t len, struct addr *ret)
{
	char buf[ADDR_STRLEN];

	if (len >= sizeof(buf))
		return -EINVAL;
	memcpy(buf, s, len);
	buf[len] = '\0';
	return addr_parse(buf, ret);
}

/* The byte of a mask of len bits at index i. */
static uint8_t mask_byte(unsigned len, unsigned i)
{
	if (len >= (i + 1) * 8)
		return 0xff;
	if (len <= i * 8)
		return 0;
	return (uint8_t)(0xff00 >> (len - i * 8));
}

int prefix_parse(const char *s, struct prefix *ret)
{
	const char *slash = strchrnul(s, '/');
	bool host_bits = false;
	struct prefix p;
	const char *end;
	unsigned max, len;

	if (parse_part(s, (size_t)(slash - s), &p.addr))
		return -EINVAL;
	max = addr_is_v4(&p.addr) ? 32 : 128;
	len = max;
	if (*slash && (!digits(slash + 1, &end, max, &len) || *end))
		return -EINVAL;
	p.len = (uint8_t)(len + 128 - max);

	for (unsigned i = 0; i < sizeof(p.addr.b); i++) {
		uint8_t kept = p.addr.b[i] & mask_byte(p.len, i);

		host_bits |= kept != p.addr.b[i];
		p.addr.b[i] = kept;
	}
	*ret = p;
	return host_bits ? -ERANGE : 0;
}

const char *prefix_format(const struct prefix *p, char buf[PREFIX_STRLEN])
{
	unsigned len = addr_is_v4(&p->addr) ? p->len - V4_BITS : p->len;
	char addr[ADDR_STRLEN];

	snprintf(buf, PREFIX_STRLEN, "%s/%u", addr_format(&p->addr, addr), len & 0xff);
	return buf;
}

/*
 * An IPv6 prefix as short as ::/0 covers the v4-mapped range in bytes, but in meaning it covers no
 * IPv4 address.
 */
bool prefix_contains(const struct prefix *p, const struct addr *a)
{
	if (addr_is_v4(&p->addr) != addr_is_v4(a))
		return false;
	for (unsigned i = 0; i * 8 < p->len; i++)
		if ((p->addr.b[i] ^ a->b[i]) & mask_byte(p->len, i))
			return false;
	return true;
}

bool prefix_overlaps(const struct prefix *a, const struct prefix *b)
{
	return a->len <= b->len ? prefix_contains(a, &b->addr) : prefix_contains(b, &a->addr);
}

int range_parse(const char *s, struct range *ret)
{
	const char *addr = s, *addr_end, *ports, *end;
	bool bracket = *s == '[';
	unsigned first, last;
	struct range r;

	if (bracket) {
		addr = s + 1;
		addr_end = strchr(addr, ']');
		if (!addr_end || addr_end[1] != ':')
			return -EINVAL;
		ports = addr_end + 2;
	} else {
		addr_end = strchr(s, ':');
		if (!addr_end)
			return -EINVAL;
		ports = addr_end + 1;
	}
	if (parse_part(addr, (size_t)(addr_end - addr), &r.addr) || addr_is_v4(&r.addr) == bracket)
		return -EINVAL;
	if (!digits(ports, &end, UINT16_MAX, &first) || *end != '-')
		return -EINVAL;
	if (!digits(end + 1, &end, UINT16_MAX, &last) || *end || first > last)
		return -EINVAL;
	r.first = (uint16_t)first;
	r.last = (uint16_t)last;
	*ret = r;
	return 0;
}

const char *range_format(const struct range *r, char buf[RANGE_STRLEN])
{
	char addr[ADDR_STRLEN];

	snprintf(buf, RANGE_STRLEN, addr_is_v4(&r->addr) ? "%s:%u-%u" : "[%s]:%u-%u",
		 addr_format(&r->addr, addr), r->first, r->last);
	return buf;
}

bool range_overlaps(const struct range *a, const struct range *b)
{
	return addr_cmp(&a->addr, &b->addr) == 0 && a->first <= b->last && b->first <= a->last;
}

bool range_contains(const struct range *r, const struct addr *a, uint16_t port)
{
	return addr_cmp(&r->addr, a) == 0 && r->first <= port && port <= r->last;
}
