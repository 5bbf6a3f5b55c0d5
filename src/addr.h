/* SPDX-License-Identifier: BSD-2-Clause */
/* Addresses, prefixes and port ranges: one 16-byte address type for both families, IPv4 as v4-mapped. */
#ifndef ADDR_H
#define ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct addr {
	uint8_t b[16]; /* network byte order; IPv4 is ::ffff:a.b.c.d */
};

struct prefix {
	struct addr addr; /* bits beyond len are zero */
	uint8_t len;      /* 0 to 128, in the 16-byte form: an IPv4 /24 is 120 */
};

/* Ports first to last (host order, both included) on one address. */
struct range {
	struct addr addr;
	uint16_t first;
	uint16_t last;
};

#define ADDR_STRLEN   46                 /* "a.b.c.d" or IPv6 text, with the NUL */
#define PREFIX_STRLEN (ADDR_STRLEN + 4)  /* "/128" */
#define RANGE_STRLEN  (ADDR_STRLEN + 16) /* "[v6]:40960-43007" */

bool addr_is_v4(const struct addr *a);
int addr_cmp(const struct addr *a, const struct addr *b);
/* addr_cmp() for qsort() and bsearch(). */
int addr_order(const void *a, const void *b);
/* The IPv4 address in network byte order. Only for addr_is_v4(). */
uint32_t addr_v4(const struct addr *a);
struct addr addr_from_v4(uint32_t be);

/* Parse the text of one address. Returns 0, or -EINVAL with *ret untouched. No names, no zone ids. */
int addr_parse(const char *s, struct addr *ret);
/* Writes "192.0.2.1" or RFC 5952 text; returns buf. */
const char *addr_format(const struct addr *a, char buf[ADDR_STRLEN]);

/*
 * "A/LEN" or a bare address (a host prefix). Returns 0; -EINVAL for text that is no prefix; -ERANGE when host
 * bits are set (what is meant is then in doubt, and *ret holds the prefix with them cleared, for the error text).
 */
int prefix_parse(const char *s, struct prefix *ret);
const char *prefix_format(const struct prefix *p, char buf[PREFIX_STRLEN]);
bool prefix_contains(const struct prefix *p, const struct addr *a);
bool prefix_overlaps(const struct prefix *a, const struct prefix *b);

/* "203.0.113.7:40960-43007", "[2001:db8::7]:40960-43007". Returns 0 or -EINVAL; first <= last is checked. */
int range_parse(const char *s, struct range *ret);
const char *range_format(const struct range *r, char buf[RANGE_STRLEN]);
bool range_overlaps(const struct range *a, const struct range *b);
bool range_contains(const struct range *r, const struct addr *a, uint16_t port);

#endif
