/* SPDX-License-Identifier: BSD-2-Clause */
/* What is decided from values that a host may have (hostplan, doctor), and how findings are told. */
#include "doctor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <net/if_arp.h>
#include <stdlib.h>
#include <string.h>

#include "hostplan.h"
#include "sysctl.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))

static struct addr addr_of(const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse(text, &a), 0);
	return a;
}

static struct range range_of(const char *text)
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

static void host_init(struct host *h)
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

/* The changes as text, "kind key was now;" each. */
static const char *changes_text(const struct host *h, char *buf, size_t size)
{
	struct host_change *v;
	size_t n, at = 0;

	assert_int_equal(hostplan_changes(&h->f, &h->c, &v, &n), 0);
	buf[0] = '\0';
	for (size_t i = 0; i < n; i++)
		at += snprintf(buf + at, size - at, "%s %s %s %s;", v[i].kind, v[i].key, v[i].was,
			       v[i].now);
	free(v);
	assert_in_range(at, 0, size - 1);
	return buf;
}

#define assert_changes(h, text)                                                     \
	do {                                                                        \
		char buf_[4096];                                                    \
		assert_string_equal(changes_text((h), buf_, sizeof(buf_)), (text)); \
	} while (0)

/* How many findings have this id and severity, and say this. */
static size_t count(const struct findings *fs, const char *id, enum severity s, const char *part)
{
	size_t n = 0;

	for (size_t i = 0; i < fs->n; i++)
		n += !strcmp(fs->v[i].id, id) && fs->v[i].severity == s &&
		     strstr(fs->v[i].text, part);
	return n;
}

static size_t judged(const struct host *h, const char *id, enum severity s, const char *part)
{
	struct findings fs = { 0 };

	hostplan_judge(&h->f, &h->c, &fs);
	assert_int_equal(fs.err, 0);

	size_t n = count(&fs, id, s, part);

	findings_done(&fs);
	return n;
}

static void test_way_out(void **state)
{
	struct host h;

	(void)state;
	host_init(&h);
	assert_int_equal(judged(&h, "uplink.way_out", FINDING_WARN, ""), 0);
	h.f.uplinks[0].default_route = false;
	assert_int_equal(judged(&h, "uplink.way_out", FINDING_WARN, "no default route"), 1);
}

static enum severity worst(const struct host *h)
{
	struct findings fs = { 0 };

	hostplan_judge(&h->f, &h->c, &fs);

	enum severity s = findings_worst(&fs);

	findings_done(&fs);
	return s;
}

static void test_all_well(void **state)
{
	struct host h;

	(void)state;
	host_init(&h);
	assert_changes(&h, "");
	/* Only that the slices lie in ip_local_port_range is left to know. */
	assert_int_equal(worst(&h), FINDING_INFO);
	assert_int_equal(judged(&h, "uplink", FINDING_OK, "uplink"), 2);
	assert_int_equal(judged(&h, "sysctl.arp_ignore", FINDING_OK, "wan/2.arp_ignore"), 1);
	assert_int_equal(judged(&h, "route.local", FINDING_OK, "3 of 3"), 1);
	assert_int_equal(judged(&h, "route.clients", FINDING_OK, ""), 1);
	assert_int_equal(judged(&h, "sysctl.ip_forward", FINDING_OK, "is 1"), 1);
}

/* What counts is the larger one of "all" and the interface; what each setting's values mean. */
static void test_interface_values(void **state)
{
	enum { GOOD, FIX, BAD, UNREADABLE };
	static const struct {
		const char *name;
		int all, iface, state;
		bool default_route;
	} cases[] = {
		{ "arp_ignore", 0, 0, FIX },
		{ "arp_ignore", 0, 1, GOOD },
		{ "arp_ignore", 1, 0, GOOD },
		{ "arp_ignore", 2, 0, GOOD },
		{ "arp_ignore", 0, 3, GOOD },
		{ "arp_ignore", 0, 4, FIX },
		{ "arp_ignore", 4, 0, BAD },
		{ "arp_ignore", 7, 1, BAD },
		{ "arp_ignore", 0, 8, GOOD },
		{ "arp_ignore", 9, 0, BAD },
		{ "arp_ignore", -EACCES, 1, UNREADABLE },
		{ "arp_announce", 0, 0, FIX },
		{ "arp_announce", 0, 1, FIX },
		{ "arp_announce", 1, 0, FIX },
		{ "arp_announce", 0, 2, GOOD },
		{ "arp_announce", 2, 0, GOOD },
		{ "arp_announce", 0, 3, FIX },
		{ "arp_announce", 3, 2, BAD },
		{ "arp_announce", 0, -ENOENT, UNREADABLE },
		{ "rp_filter", 0, 0, GOOD },
		{ "rp_filter", 0, 1, FIX },
		{ "rp_filter", 1, 0, FIX },
		{ "rp_filter", 0, 2, GOOD },
		{ "rp_filter", 2, 1, GOOD },
		{ "rp_filter", 1, 2, GOOD },
		{ "rp_filter", 0, 1, GOOD, .default_route = true },
		{ "rp_filter", 1, 1, GOOD, .default_route = true },
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		struct host h;
		struct host_conf v = { cases[i].all, cases[i].iface };
		char id[40], change[128];

		host_init(&h);
		struct host_uplink *u = &h.f.uplinks[1];

		u->default_route = cases[i].default_route;
		*(!strcmp(cases[i].name, "arp_ignore")     ? &u->arp_ignore
		  : !strcmp(cases[i].name, "arp_announce") ? &u->arp_announce
							   : &u->rp_filter) = v;
		snprintf(id, sizeof(id), "sysctl.%s", cases[i].name);
		snprintf(change, sizeof(change), "sysctl net.ipv4.conf.wan/2.%s %d %d;",
			 cases[i].name, cases[i].iface,
			 !strcmp(cases[i].name, "arp_ignore") ? 1 : 2);
		assert_changes(&h, cases[i].state == FIX ? change : "");
		assert_int_equal(judged(&h, id, FINDING_OK, "wan/2"), cases[i].state == GOOD);
		assert_int_equal(judged(&h, id, FINDING_WARN, "wan/2"),
				 cases[i].state == FIX || cases[i].state == UNREADABLE);
		assert_int_equal(judged(&h, id, FINDING_ERROR, "wan/2"), cases[i].state == BAD);

		/* Not allowed to: no change, and worse for it. */
		h.c.set_sysctls = false;
		assert_changes(&h, "");
		assert_int_equal(judged(&h, id, FINDING_ERROR, "wan/2"),
				 cases[i].state == FIX || cases[i].state == BAD);
	}
}

static void test_forwarding(void **state)
{
	struct host h;

	(void)state;
	host_init(&h);
	/* Setting ip_forward also sets what would not come back with it: that is kept first. */
	h.f.ip_forward = 0;
	strcpy(h.forwarding[0], "lan.7");
	strcpy(h.forwarding[1], "default");
	h.f.n_forwarding = 2;
	assert_changes(&h, "sysctl net.ipv4.conf.lan/7.forwarding 1 1;"
			   "sysctl net.ipv4.conf.default.forwarding 1 1;"
			   "sysctl net.ipv4.conf.all.accept_redirects 0 0;"
			   "sysctl net.ipv4.ip_forward 0 1;");
	assert_int_equal(judged(&h, "sysctl.ip_forward", FINDING_WARN, "is 0"), 1);
	h.c.set_sysctls = false;
	assert_changes(&h, "");
	assert_int_equal(judged(&h, "sysctl.ip_forward", FINDING_ERROR, "is 0"), 1);

	/* Without clients nothing is forwarded. */
	h.c.set_sysctls = true;
	h.f.has_clients = false;
	assert_changes(&h, "");
	assert_int_equal(judged(&h, "sysctl.ip_forward", FINDING_OK, "no pool has clients"), 1);

	/* On in general, off for one uplink. */
	host_init(&h);
	h.f.uplinks[1].forwarding = 0;
	assert_changes(&h, "sysctl net.ipv4.conf.wan/2.forwarding 0 1;");
	assert_int_equal(judged(&h, "sysctl.ip_forward", FINDING_WARN, "wan/2.forwarding is 0"), 1);
	h.f.uplinks[1].ifindex = 0;
	assert_changes(&h, "");

	host_init(&h);
	h.f.ip_forward = -EACCES;
	assert_changes(&h, "");
	assert_int_equal(judged(&h, "sysctl.ip_forward", FINDING_WARN, "can't be read"), 1);
}

static void test_routes(void **state)
{
	struct host h;

	(void)state;
	host_init(&h);
	h.addrs[0].route = HOST_ROUTE_NONE;
	h.addrs[2].route = HOST_ROUTE_NONE;
	assert_changes(&h, "route 203.0.113.7  lo;route 203.0.113.9  lo;");
	assert_int_equal(judged(&h, "route.local", FINDING_WARN,
				"2 of 3 shared addresses have no local route, the first is "
				"203.0.113.7"),
			 1);
	h.c.set_routes = false;
	assert_changes(&h, "");
	assert_int_equal(judged(&h, "route.local", FINDING_ERROR, "2 of 3"), 1);

	/* ARP falls silent before an address is there to be asked for. */
	host_init(&h);
	h.addrs[1].route = HOST_ROUTE_NONE;
	h.f.uplinks[0].arp_ignore = (struct host_conf){ 0, 0 };
	h.f.uplinks[0].arp_announce = (struct host_conf){ 0, 0 };
	assert_changes(&h, "sysctl net.ipv4.conf.wan.arp_ignore 0 1;"
			   "sysctl net.ipv4.conf.wan.arp_announce 0 2;"
			   "route 203.0.113.8  lo;");

	/* Somebody else's are left alone, and told of where they do harm. */
	host_init(&h);
	h.addrs[0].route = HOST_ROUTE_OTHERS;
	h.addrs[1].route = HOST_ROUTE_OTHERS;
	strcpy(h.addrs[1].dev, "wan");
	h.addrs[2].route = HOST_ROUTE_WRONG;
	strcpy(h.addrs[2].dev, "lan");
	assert_changes(&h, "");
	assert_int_equal(judged(&h, "route.local", FINDING_OK, "1 of 3"), 1);
	assert_int_equal(judged(&h, "route.local", FINDING_WARN, "203.0.113.8 is configured"), 1);
	assert_int_equal(judged(&h, "route.local", FINDING_ERROR, "203.0.113.9 is something"), 1);

	host_init(&h);
	h.f.lo_up = false;
	assert_int_equal(judged(&h, "route.local", FINDING_WARN, "lo is down"), 1);

	host_init(&h);
	h.clients[0].routed = false;
	assert_int_equal(judged(&h, "route.clients", FINDING_WARN, "10.1.0.0/16"), 1);
}

static void add_ipv6(struct host *h)
{
	h->addresses[2] = addr_of("2001:db8:5::7");
	h->addrs[2] = (struct host_addr){ .addr = h->addresses[2],
					  .route = HOST_ROUTE_OURS,
					  .dev = "lo" };
	h->f.n_addrs6 = 1;
	h->f.nonlocal_bind6 = 1;
	h->f.uplinks[0].default_route6 = true;
}

static void test_ipv6(void **state)
{
	static const char nonlocal[] = "sysctl.ip_nonlocal_bind";
	struct host h;

	(void)state;
	/* Of no interest without such addresses. */
	host_init(&h);
	h.f.nonlocal_bind6 = 0;
	h.f.lo_disable_ipv6 = 1;
	h.f.uplinks[0].disable_ipv6 = 1;
	assert_changes(&h, "");
	assert_int_equal(worst(&h), FINDING_INFO);

	host_init(&h);
	add_ipv6(&h);
	assert_changes(&h, "");
	assert_int_equal(worst(&h), FINDING_INFO);
	assert_int_equal(judged(&h, nonlocal, FINDING_OK, "is 1"), 1);
	assert_int_equal(judged(&h, "route.local", FINDING_OK, "3 of 3"), 1);

	/* The route, and what lets sockets bind. */
	h.f.nonlocal_bind6 = 0;
	h.addrs[2].route = HOST_ROUTE_NONE;
	h.addrs[2].dev[0] = '\0';
	assert_changes(&h, "sysctl net.ipv6.ip_nonlocal_bind 0 1;route 2001:db8:5::7  lo;");
	assert_int_equal(judged(&h, nonlocal, FINDING_WARN, "IPV6_FREEBIND can bind 2001:db8:5::7"),
			 1);
	h.c.set_sysctls = false;
	assert_changes(&h, "route 2001:db8:5::7  lo;");
	assert_int_equal(judged(&h, nonlocal, FINDING_ERROR, "is 0"), 1);

	/* What is an address of the host can be bound without. */
	host_init(&h);
	add_ipv6(&h);
	h.f.nonlocal_bind6 = 0;
	h.addrs[2].route = HOST_ROUTE_OTHERS;
	h.addrs[2].configured = true;
	assert_changes(&h, "");
	assert_int_equal(judged(&h, nonlocal, FINDING_OK, "not needed"), 1);
	strcpy(h.addrs[2].dev, "wan");
	assert_int_equal(judged(&h, "route.local", FINDING_WARN, "answers neighbour solicitations"),
			 1);

	/* No IPv6: on the host, on lo, on one uplink, on all of them. */
	host_init(&h);
	add_ipv6(&h);
	h.f.nonlocal_bind6 = -ENOENT;
	assert_changes(&h, "");
	assert_int_equal(judged(&h, "ipv6", FINDING_ERROR, "1 shared addresses are IPv6"), 1);
	assert_int_equal(judged(&h, nonlocal, FINDING_WARN, ""), 0);
	h.f.nonlocal_bind6 = -EACCES;
	assert_int_equal(judged(&h, nonlocal, FINDING_WARN, "can't be read"), 1);
	h.f.nonlocal_bind6 = 1;
	h.f.lo_disable_ipv6 = 1;
	assert_int_equal(judged(&h, "ipv6", FINDING_ERROR, "disabled on lo"), 1);
	h.f.lo_disable_ipv6 = 0;
	h.f.uplinks[1].disable_ipv6 = 1;
	assert_int_equal(judged(&h, "ipv6", FINDING_INFO, "disabled on uplink wan.2"), 1);
	assert_int_equal(judged(&h, "ipv6", FINDING_ERROR, ""), 0);
	h.f.uplinks[0].disable_ipv6 = 1;
	h.f.uplinks[0].default_route6 = false;
	assert_int_equal(judged(&h, "ipv6", FINDING_ERROR, "disabled on uplink wan"), 2);
	assert_int_equal(judged(&h, "uplink.way_out", FINDING_WARN, ""), 0);
	/* Nothing is known of one that is not there. */
	h.f.uplinks[1].ifindex = 0;
	assert_int_equal(judged(&h, "ipv6", FINDING_ERROR, "disabled on uplink wan"), 1);
	h.f.uplinks[0].disable_ipv6 = 0;
	assert_int_equal(judged(&h, "uplink.way_out", FINDING_WARN, "no IPv6 default route"), 1);
}

static void test_uplinks(void **state)
{
	struct host h;

	(void)state;
	host_init(&h);
	h.f.uplinks[1].ifindex = 0;
	h.f.uplinks[1].arp_ignore = (struct host_conf){ -ENOENT, -ENOENT };
	assert_changes(&h, "");
	assert_int_equal(judged(&h, "uplink", FINDING_ERROR,
				"\"wan.2\" does not exist; links here: lo, wan, wan.2, lan"),
			 1);
	/* Nothing more is said about one that is not there. */
	assert_int_equal(judged(&h, "sysctl.arp_ignore", FINDING_WARN, ""), 0);

	host_init(&h);
	h.f.uplinks[0].arptype = ARPHRD_LOOPBACK;
	assert_int_equal(judged(&h, "uplink", FINDING_ERROR, "wan is not Ethernet"), 1);

	host_init(&h);
	h.f.uplinks[0].enslaved = true;
	h.f.uplinks[0].up = false;
	assert_int_equal(judged(&h, "uplink", FINDING_WARN, "part of another"), 1);
	assert_int_equal(judged(&h, "uplink.state", FINDING_WARN, "wan is down"), 1);

	/* Others that answer ARP are worth knowing of, not more. */
	host_init(&h);
	h.inner[0].arp_ignore = (struct host_conf){ 0, 0 };
	assert_changes(&h, "");
	assert_int_equal(judged(&h, "sysctl.arp_ignore", FINDING_INFO, "lan"), 1);
}

/* Many names are cut, not written beyond their place. */
static void test_many_inner(void **state)
{
	static struct host_inner many[300];
	struct host h;

	(void)state;
	host_init(&h);
	for (size_t i = 0; i < N(many); i++)
		snprintf(many[i].name, sizeof(many[i].name), "veth%05zuabcdef", i);
	h.f.inner = many;
	h.f.n_inner = N(many);
	assert_int_equal(judged(&h, "sysctl.arp_ignore", FINDING_INFO, "300 interfaces"), 1);
	assert_int_equal(judged(&h, "sysctl.arp_ignore", FINDING_INFO, " ..."), 1);
}

static void test_port_range(void **state)
{
	struct host h;

	(void)state;
	host_init(&h);
	assert_int_equal(judged(&h, "sysctl.port_range", FINDING_INFO, "2 of 2 slices lie in"), 1);
	assert_int_equal(judged(&h, "sysctl.port_range", FINDING_WARN, ""), 0);
	/* One port short at either end. */
	h.f.port_lo = 40961;
	assert_int_equal(judged(&h, "sysctl.port_range", FINDING_INFO, "1 of 2"), 1);
	assert_int_equal(judged(&h, "sysctl.port_range", FINDING_WARN,
				"1 of 2 slices are not wholly in ip_local_port_range 40961-60999 "
				"(the first: 203.0.113.7:40960-43007)"),
			 1);
	h.f.port_lo = 40960;
	h.f.port_hi = 45054;
	assert_int_equal(judged(&h, "sysctl.port_range", FINDING_WARN, "203.0.113.7:43008-45055"),
			 1);
	h.f.port_hi = 45055;
	assert_int_equal(judged(&h, "sysctl.port_range", FINDING_WARN, ""), 0);
	h.f.port_lo = -EACCES;
	assert_int_equal(judged(&h, "sysctl.port_range", FINDING_WARN, "can't be read"), 1);

	/* Never changed, whatever it says. */
	h.f.port_lo = 1;
	h.f.port_hi = 2;
	assert_changes(&h, "");

	host_init(&h);
	strcpy(h.f.reserved, "80,41000-41009,43007-43008");
	assert_int_equal(judged(&h, "sysctl.reserved_ports", FINDING_INFO, "12 ports"), 1);
	strcpy(h.f.reserved, "80");
	assert_int_equal(judged(&h, "sysctl.reserved_ports", FINDING_INFO, ""), 0);
}

static void test_ports_in(void **state)
{
	static const struct {
		const char *list;
		int n; /* of 100-199; -1: refused */
	} cases[] = {
		{ "", 0 },
		{ "100", 1 },
		{ "99,200", 0 },
		{ "100,199", 2 },
		{ "50-99", 0 },
		{ "50-100", 1 },
		{ "199-300", 1 },
		{ "0-65535", 100 },
		{ "110-119,120,150-159", 21 },
		{ "x", -1 },
		{ "1-", -1 },
		{ "-1", -1 },
		{ "5-4", -1 },
		{ "65536", -1 },
		{ "1;2", -1 },
		{ "1,,2", -1 },
		{ "99999999999999999999999", -1 },
		{ " 1", -1 },
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		unsigned int n = 777;
		int r = hostplan_ports_in(cases[i].list, 100, 199, &n);

		assert_int_equal(r, cases[i].n < 0 ? -EINVAL : 0);
		assert_int_equal(n, cases[i].n < 0 ? 777 : cases[i].n);
	}
}

static bool wanted(const struct host *h, const char *kind, const char *key)
{
	struct host_change c;

	assert_int_equal(host_change_set(&c, kind, key, "0", "1"), 0);
	return hostplan_wanted(&c, &h->c);
}

static void test_wanted(void **state)
{
	struct host h;

	(void)state;
	host_init(&h);
	assert_true(wanted(&h, "route", "203.0.113.9"));
	assert_false(wanted(&h, "route", "203.0.113.10"));
	assert_false(wanted(&h, "route", "nonsense"));
	assert_true(wanted(&h, "sysctl", "net.ipv4.conf.wan/2.arp_ignore"));
	assert_false(wanted(&h, "sysctl", "net.ipv4.conf.wan3.arp_ignore"));
	assert_true(wanted(&h, "sysctl", "net.ipv4.ip_forward"));
	assert_true(wanted(&h, "sysctl", "net.ipv4.conf.lan.forwarding"));
	assert_true(wanted(&h, "sysctl", "net.ipv4.conf.all.accept_redirects"));
	h.pool.n_clients = 0;
	assert_false(wanted(&h, "sysctl", "net.ipv4.ip_forward"));
	assert_false(wanted(&h, "sysctl", "net.ipv4.conf.lan.forwarding"));
	assert_true(wanted(&h, "sysctl", "net.ipv4.conf.wan.rp_filter"));
	assert_true(wanted(&h, "route", "203.0.113.9"));
	assert_false(wanted(&h, "sysctl", "net.ipv6.ip_nonlocal_bind"));
	assert_false(wanted(&h, "route", "2001:db8:5::7"));
	add_ipv6(&h);
	assert_true(wanted(&h, "sysctl", "net.ipv6.ip_nonlocal_bind"));
	assert_true(wanted(&h, "route", "2001:db8:5::7"));
	assert_false(wanted(&h, "route", "203.0.113.9"));
}

static void test_change_set(void **state)
{
	struct host_change c = { .kind = "x" };
	char longest[SYSCTL_KEY_LEN + 1];

	(void)state;
	memset(longest, 'k', SYSCTL_KEY_LEN);
	longest[SYSCTL_KEY_LEN] = '\0';
	assert_int_equal(host_change_set(&c, "qdisc", "k", "", ""), -EINVAL);
	assert_int_equal(host_change_set(&c, "route", longest, "", ""), -EINVAL);
	assert_int_equal(host_change_set(&c, "route", "k", longest, ""), -EINVAL);
	assert_int_equal(host_change_set(&c, "route", "k", "", longest), -EINVAL);
	assert_string_equal(c.kind, "x");
	longest[SYSCTL_KEY_LEN - 1] = '\0';
	assert_int_equal(host_change_set(&c, "sysctl", longest, "0", "1"), 0);
	assert_string_equal(c.key, longest);
}

static void test_sysctl_keys(void **state)
{
	static const char *const none[] = {
		"",
		".",
		"net",
		"net.",
		".net",
		"net..ipv4",
		"net.ipv4.conf.//.rp_filter",
		"net.ipv4.conf./.rp_filter",
		"////etc.passwd",
		"//.//.etc.passwd",
		"net.ipv4.conf.sluice-no-such-link.rp_filter",
	};
	char key[SYSCTL_KEY_LEN], text[SYSCTL_VAL_LEN];
	int v = -77;

	(void)state;
	assert_string_equal(sysctl_conf_key("eth0.100", "rp_filter", key),
			    "net.ipv4.conf.eth0/100.rp_filter");
	assert_string_equal(sysctl_conf_key("all", "arp_ignore", key),
			    "net.ipv4.conf.all.arp_ignore");
	assert_string_equal(sysctl_conf6_key("eth0.100", "disable_ipv6", key),
			    "net.ipv6.conf.eth0/100.disable_ipv6");
	for (size_t i = 0; i < N(none); i++) {
		assert_in_range(-sysctl_read(none[i], text, sizeof(text)), 1, 4095);
		assert_int_not_equal(sysctl_read_int(none[i], &v), 0);
		assert_int_equal(v, -77);
	}
	/* A key that leads out of /proc/sys is none, even where something is there. */
	assert_int_equal(sysctl_read("//.sys.kernel.ostype", text, sizeof(text)), -EINVAL);
	assert_int_equal(sysctl_write("//.sys.kernel.ostype", "x"), -EINVAL);

	assert_int_equal(sysctl_read("kernel.ostype", text, sizeof(text)), 0);
	assert_string_equal(text, "Linux");
	assert_int_equal(sysctl_read_int("kernel.ostype", &v), -ERANGE);
	assert_int_equal(sysctl_read_int("kernel.pid_max", &v), 0);
	assert_in_range(v, 301, 1 << 22);
	assert_int_equal(sysctl_read("net.ipv4.ip_local_port_range", text, sizeof(text)), 0);
	assert_non_null(strchr(text, ' '));
	assert_null(strchr(text, '\t'));
}

static struct doctor_facts machine(void)
{
	return (struct doctor_facts){
		.release = "6.18.44",
		.btf = true,
		.bpffs = "/sys/fs/bpf",
		.bpffs_is = true,
		.jit = 1,
		.unprivileged_bpf_disabled = 2,
		.net_admin = true,
		.bpf = true,
		.perfmon = true,
		.net_raw = true,
		.conntrack = -ENOENT,
	};
}

static size_t diagnosed(const struct doctor_facts *f, const char *id, enum severity s,
			const char *part)
{
	struct findings fs = { 0 };

	doctor_judge(f, &fs);

	size_t n = count(&fs, id, s, part);

	findings_done(&fs);
	return n;
}

static void test_kernel(void **state)
{
	static const struct {
		const char *release;
		enum severity s;
		enum severity tcx; /* FINDING_SEVERITIES: nothing said */
	} cases[] = {
		{ "6.18.44-fc-v782", FINDING_OK, FINDING_OK },
		{ "10.0", FINDING_OK, FINDING_OK },
		{ "6.6.1", FINDING_OK, FINDING_OK },
		{ "6.5.0-9-generic", FINDING_OK, FINDING_INFO },
		{ "6.1.0-28-cloud-amd64", FINDING_OK, FINDING_INFO },
		{ "5.17.3", FINDING_WARN, FINDING_INFO },
		{ "5.16.20", FINDING_ERROR, FINDING_SEVERITIES },
		{ "4.19.0", FINDING_ERROR, FINDING_SEVERITIES },
		{ "", FINDING_WARN, FINDING_SEVERITIES },
		{ "rolling", FINDING_WARN, FINDING_SEVERITIES },
	};
	struct doctor_facts f;

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		f = machine();
		strcpy(f.release, cases[i].release);
		assert_int_equal(diagnosed(&f, "kernel.release", cases[i].s, cases[i].release), 1);
		for (int s = 0; s < FINDING_SEVERITIES; s++)
			assert_int_equal(diagnosed(&f, "kernel.tcx", s, ""),
					 s == (int)cases[i].tcx);
	}
}

static void test_machine(void **state)
{
	struct doctor_facts f = machine();
	struct findings fs = { 0 };

	(void)state;
	doctor_judge(&f, &fs);
	assert_int_equal(findings_worst(&fs), FINDING_OK);
	findings_done(&fs);

	f.btf = false;
	f.bpffs_is = false;
	f.jit = 0;
	f.unprivileged_bpf_disabled = 0;
	assert_int_equal(diagnosed(&f, "kernel.btf", FINDING_ERROR, "vmlinux"), 1);
	assert_int_equal(diagnosed(&f, "bpffs", FINDING_ERROR, "/sys/fs/bpf is not"), 1);
	assert_int_equal(diagnosed(&f, "kernel.jit", FINDING_WARN, "interpreted"), 1);
	assert_int_equal(diagnosed(&f, "kernel.unprivileged_bpf", FINDING_INFO, "every user"), 1);

	/* What can't be known here is not guessed. */
	f.jit = -ENOENT;
	f.unprivileged_bpf_disabled = -EACCES;
	for (int s = 0; s < FINDING_SEVERITIES; s++) {
		assert_int_equal(diagnosed(&f, "kernel.jit", s, ""), 0);
		assert_int_equal(diagnosed(&f, "kernel.unprivileged_bpf", s, ""), 0);
	}

	f = machine();
	f.net_raw = false;
	f.bpf = false;
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_ERROR, "CAP_BPF CAP_NET_RAW"), 1);
	f.perfmon = false;
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_ERROR, "CAP_BPF CAP_PERFMON"), 1);
	f.perfmon = true;
	f.euid = 1000;
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_INFO, "CAP_BPF CAP_NET_RAW"), 1);
}

static void test_nat(void **state)
{
	struct doctor_facts f = machine();

	(void)state;
	assert_int_equal(diagnosed(&f, "nat.rules", FINDING_OK, ""), 1);
	assert_int_equal(diagnosed(&f, "nat.conntrack", FINDING_OK, ""), 1);
	f.conntrack = 0;
	assert_int_equal(diagnosed(&f, "nat.conntrack", FINDING_OK, ""), 1);
	f.conntrack = 5;
	assert_int_equal(diagnosed(&f, "nat.conntrack", FINDING_INFO, "5 entries"), 1);

	f.nat_chains = 2;
	strcpy(f.nat_names, "ip nat postrouting, inet x y");
	assert_int_equal(diagnosed(&f, "nat.rules", FINDING_WARN, "inet x y"), 1);
	assert_int_equal(diagnosed(&f, "nat.rules", FINDING_OK, ""), 0);
	f.nat_chains = 0;
	f.nat_legacy = 1;
	assert_int_equal(diagnosed(&f, "nat.rules", FINDING_WARN, "old iptables"), 1);
	assert_int_equal(diagnosed(&f, "nat.rules", FINDING_OK, ""), 0);
	/* Half seen is not all well. */
	f.nat_legacy = 0;
	f.nat_chains = -EPERM;
	assert_int_equal(diagnosed(&f, "nat.rules", FINDING_INFO, "can't be read"), 1);
	assert_int_equal(diagnosed(&f, "nat.rules", FINDING_OK, ""), 0);
	f.nat_legacy = 1;
	assert_int_equal(diagnosed(&f, "nat.rules", FINDING_WARN, "old iptables"), 1);
}

static char *printed(const struct findings *fs, bool json, int *ret_exit)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	*ret_exit = doctor_print(f, fs, json);
	fclose(f);
	return text;
}

static void test_print(void **state)
{
	struct findings fs = { 0 };
	int code;
	char *text;

	(void)state;
	findings_add(&fs, "a", FINDING_OK, NULL, "fine");
	findings_add(&fs, "b", FINDING_WARN, "do \"this\"", "link %s", "w\033[31m\xff\n");
	text = printed(&fs, false, &code);
	assert_int_equal(code, 0);
	assert_non_null(strstr(text, "link w?[31m??\n"));
	assert_non_null(strstr(text, "-> do \"this\"\n"));
	assert_non_null(strstr(text, "\n1 ok, 0 to know, 1 warnings, 0 errors\n"));
	free(text);

	findings_add(&fs, "c", FINDING_ERROR, "act", "bad");
	text = printed(&fs, true, &code);
	assert_int_equal(code, 2);

	json_t *doc = json_loads(text, 0, NULL), *list = json_object_get(doc, "findings");

	assert_string_equal(json_string_value(json_object_get(doc, "worst")), "error");
	assert_int_equal(json_array_size(list), 3);
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 1), "advice")),
			    "do \"this\"");
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "severity")),
			    "ok");
	json_decref(doc);
	free(text);
	findings_done(&fs);

	/* Something was lost: that is not all well. */
	fs.err = -ENOMEM;
	text = printed(&fs, false, &code);
	assert_int_equal(code, 2);
	free(text);

	/* Nowhere to write to. */
	FILE *full = fopen("/dev/full", "w");

	fs = (struct findings){ 0 };
	assert_non_null(full);
	findings_add(&fs, "a", FINDING_OK, NULL, "fine");
	assert_int_equal(doctor_print(full, &fs, false), 2);
	fclose(full);
	findings_done(&fs);
}

/* On this very machine, as whoever runs the tests: something is found of everything, and nothing breaks. */
static void test_run_here(void **state)
{
	static const char *const always[] = { "kernel.release", "kernel.btf", "bpffs",
					      "capabilities",   "nat.rules",  "config" };
	struct findings fs = { 0 };
	struct host h;

	(void)state;
	doctor_run(NULL, &fs);
	for (size_t i = 0; i < N(always); i++) {
		size_t n = 0;

		for (int s = 0; s < FINDING_SEVERITIES; s++)
			n += count(&fs, always[i], s, "");
		assert_in_range(n, 1, 4);
	}
	findings_done(&fs);

	host_init(&h);
	h.c.uplinks[0] = (char *)"no-such-link";
	h.c.bpffs = (char *)"/proc/sluice/x/y";
	doctor_run(&h.c, &fs);
	assert_int_equal(count(&fs, "uplink", FINDING_ERROR, "\"no-such-link\" does not exist"), 1);
	assert_int_equal(count(&fs, "uplink", FINDING_ERROR, "links here: lo"), 2);
	assert_int_equal(count(&fs, "bpffs", FINDING_ERROR, "/proc is not"), 1);
	assert_int_equal(findings_worst(&fs), FINDING_ERROR);
	findings_done(&fs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_way_out),
		cmocka_unit_test(test_all_well),
		cmocka_unit_test(test_interface_values),
		cmocka_unit_test(test_forwarding),
		cmocka_unit_test(test_routes),
		cmocka_unit_test(test_ipv6),
		cmocka_unit_test(test_uplinks),
		cmocka_unit_test(test_many_inner),
		cmocka_unit_test(test_port_range),
		cmocka_unit_test(test_ports_in),
		cmocka_unit_test(test_wanted),
		cmocka_unit_test(test_change_set),
		cmocka_unit_test(test_sysctl_keys),
		cmocka_unit_test(test_kernel),
		cmocka_unit_test(test_machine),
		cmocka_unit_test(test_nat),
		cmocka_unit_test(test_print),
		cmocka_unit_test(test_run_here),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
