/* SPDX-License-Identifier: BSD-2-Clause */
/* What is decided from values that a host may have: what should be changed, and what a person should know. */
#include "hostplan.h"

#include <errno.h>

#include "host_test.h"
#include "sysctl.h"

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
	assert_int_equal(
		judged(&h, "uplink", FINDING_ERROR, "wan is of link type 772, which can't"), 1);

	/* No link-layer header, no ARP. */
	host_init(&h);
	h.f.uplinks[0].arptype = ARPHRD_NONE;
	h.f.uplinks[0].arp_ignore = (struct host_conf){ 0, 0 };
	h.f.uplinks[0].arp_announce = (struct host_conf){ 0, 0 };
	assert_changes(&h, "");
	assert_int_equal(judged(&h, "uplink", FINDING_OK, "wan has no link-layer header"), 1);
	assert_int_equal(judged(&h, "sysctl.arp_ignore", FINDING_WARN, ""), 0);
	assert_int_equal(judged(&h, "sysctl.arp_announce", FINDING_WARN, ""), 0);

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

static void test_forwarding6(void **state)
{
	char names[2][IFNAMSIZ] = { "lan", "default" };
	struct host h;

	(void)state;
	host_init(&h);
	h.f.forwarding6_all = 0;
	/* Without clients of IPv6, nothing. */
	assert_changes(&h, "");
	assert_false(wanted(&h, "sysctl", "net.ipv6.conf.all.forwarding"));
	assert_int_equal(judged(&h, "sysctl.ipv6_forwarding", FINDING_OK, ""), 0);

	h.f.has_clients6 = true;
	h.f.uplinks[0].accept_ra = 1;
	h.f.uplinks[1].accept_ra = 2;
	h.f.forwarding6 = names;
	h.f.n_forwarding6 = 2;
	assert_changes(&h, "sysctl net.ipv6.conf.wan.accept_ra 1 2;"
			   "sysctl net.ipv6.conf.lan.forwarding 1 1;"
			   "sysctl net.ipv6.conf.default.forwarding 1 1;"
			   "sysctl net.ipv6.conf.all.forwarding 0 1;");
	h.f.n_addrs6 = 1;
	assert_int_equal(judged(&h, "sysctl.ipv6_forwarding", FINDING_WARN, "is 0"), 1);
	h.c.set_sysctls = false;
	assert_changes(&h, "");
	assert_int_equal(judged(&h, "sysctl.ipv6_forwarding", FINDING_ERROR, "is 0"), 1);

	h.c.set_sysctls = true;
	h.f.forwarding6_all = 1;
	assert_changes(&h, "");
	assert_int_equal(judged(&h, "sysctl.ipv6_forwarding", FINDING_OK, "is 1"), 1);
	assert_int_equal(judged(&h, "sysctl.ipv6_forwarding", FINDING_INFO, "wan.accept_ra is 1"),
			 1);
	h.f.forwarding6_all = -EACCES;
	assert_changes(&h, "");
	assert_int_equal(judged(&h, "sysctl.ipv6_forwarding", FINDING_WARN, "can't be read"), 1);

	/* Which ones are still wanted goes by the family of the clients. */
	assert_true(wanted(&h, "sysctl", "net.ipv4.ip_forward"));
	assert_int_equal(prefix_parse("2001:db8:1::/64", &h.prefixes[0]), 0);
	assert_false(wanted(&h, "sysctl", "net.ipv4.ip_forward"));
	assert_true(wanted(&h, "sysctl", "net.ipv6.conf.all.forwarding"));
	assert_true(wanted(&h, "sysctl", "net.ipv6.conf.lan.forwarding"));
	assert_true(wanted(&h, "sysctl", "net.ipv6.conf.wan.accept_ra"));
	assert_false(wanted(&h, "sysctl", "net.ipv6.conf.lan.accept_ra"));
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_way_out),
		cmocka_unit_test(test_all_well),
		cmocka_unit_test(test_interface_values),
		cmocka_unit_test(test_forwarding),
		cmocka_unit_test(test_forwarding6),
		cmocka_unit_test(test_routes),
		cmocka_unit_test(test_ipv6),
		cmocka_unit_test(test_uplinks),
		cmocka_unit_test(test_many_inner),
		cmocka_unit_test(test_port_range),
		cmocka_unit_test(test_ports_in),
		cmocka_unit_test(test_wanted),
		cmocka_unit_test(test_change_set),
		cmocka_unit_test(test_sysctl_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
