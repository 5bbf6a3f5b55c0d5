/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of findings share: a host where all is well, and how findings are looked for. */
#ifndef HOST_TEST_H
#define HOST_TEST_H

#include <net/if_arp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "finding.h"
#include "hostplan.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))

static inline struct addr addr_of(const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse(text, &a), 0);
	return a;
}

static inline struct range range_of(const char *text)
{
	struct range r;

	assert_int_equal(range_parse(text, &r), 0);
	return r;
}

/* A host where all is well, and its configuration: two uplinks, one pool of three addresses, one client prefix. */
struct host {
	struct host_addr addrs[3];
	struct host_client clients[1];
	struct host_inner inner[1];
	char forwarding[4][IFNAMSIZ];
	struct host_facts f;

	struct range slices[2];
	struct addr addresses[3];
	struct prefix prefixes[1];
	struct config_pool pool;
	struct config c;
};

static inline void host_init(struct host *h)
{
	memset(h, 0, sizeof(*h));
	h->slices[0] = range_of("203.0.113.7:40960-43007");
	h->slices[1] = range_of("203.0.113.7:43008-45055");
	for (int i = 0; i < 3; i++) {
		char text[ADDR_STRLEN];

		snprintf(text, sizeof(text), "203.0.113.%d", 7 + i);
		h->addresses[i] = addr_of(text);
		h->addrs[i] = (struct host_addr){ .addr = h->addresses[i],
						  .route = HOST_ROUTE_OURS,
						  .dev = "lo" };
	}
	assert_int_equal(prefix_parse("10.1.0.0/16", &h->prefixes[0]), 0);
	h->clients[0] = (struct host_client){ h->prefixes[0], true };
	h->inner[0] = (struct host_inner){ "lan", { 0, 1 } };
	h->pool = (struct config_pool){
		.name = "default",
		.addresses = h->addresses,
		.n_addresses = 3,
		.slice_size = 2048,
		.slices = h->slices,
		.n_slices = 2,
		.clients = h->prefixes,
		.n_clients = 1,
	};
	h->c = (struct config){
		.uplinks = { (char *)"wan", (char *)"wan.2" },
		.n_uplinks = 2,
		.set_sysctls = true,
		.set_routes = true,
		.pools = &h->pool,
		.n_pools = 1,
	};
	h->f = (struct host_facts){
		.links = "lo, wan, wan.2, lan",
		.lo_up = true,
		.has_clients = true,
		.ip_forward = 1,
		.accept_redirects = 0,
		.forwarding = h->forwarding,
		.n_uplinks = 2,
		.inner = h->inner,
		.n_inner = 1,
		.addrs = h->addrs,
		.n_addrs = 3,
		.clients = h->clients,
		.n_clients = 1,
		.port_lo = 32768,
		.port_hi = 60999,
	};
	for (int i = 0; i < 2; i++) {
		h->f.uplinks[i] = (struct host_uplink){
			.ifindex = 2 + i,
			.up = true,
			.arptype = ARPHRD_ETHER,
			.mtu = 1500,
			.default_route = i == 0,
			.forwarding = 1,
			.rp_filter = { 0, 0 },
			.arp_ignore = { 0, 1 },
			.arp_announce = { 0, 2 },
		};
		strcpy(h->f.uplinks[i].name, h->c.uplinks[i]);
	}
}

/* How many findings have this id and severity, and say this. */
static inline size_t count(const struct findings *fs, const char *id, enum severity s,
			   const char *part)
{
	size_t n = 0;

	for (size_t i = 0; i < fs->n; i++)
		n += !strcmp(fs->v[i].id, id) && fs->v[i].severity == s &&
		     strstr(fs->v[i].text, part);
	return n;
}

#endif
