/* SPDX-License-Identifier: BSD-2-Clause */
/* Every kind of mistake: refused, with the right line, the value, and what would be allowed. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_NAME "t.conf"

/* Two lines; what a test adds comes before them (line 1) or inside the pool (line 5). */
#define UPLINK "machine = \"edge1\"\nuplinks = { \"wan\" }\n"
#define POOL(more)              \
	UPLINK "pool \"a\" {\n" \
	       "addresses = { \"203.0.113.7\" }\n" more "\n}\n"
#define TOP(more)     more "\n" POOL("")
#define UPLINKS(more) "machine = \"edge1\"\n" more "\npool a { addresses = 203.0.113.7 }\n"
/* A second pool, whose keys begin in line 9. */
#define SECOND(first, more) POOL(first) "pool \"b\" {\naddresses = { 203.0.113.8 }\n" more "\n}\n"

#define TEXT_100                                                                                   \
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" \
	"aaaaa"                                                                                    \
	"aaaaaaaa"
struct bad {
	const char *name;
	const char *text;
	unsigned line;
	const char *says; /* key and value, as the message begins after the line */
	const char *why;  /* somewhere in the rest */
};

static const struct bad syntax[] = {
	{ "unknown key", TOP("max-flow = 5000"), 1, "key \"max-flow\"", "allowed are machine," },
	{ "unknown key in pool", POOL("\nadresses = {}"), 6, "key \"adresses\"",
	  "not known in section pool; allowed are addresses, slice-size," },
	{ "unknown key in watch", TOP("watch {\nhead = true }"), 2, "key \"head\"",
	  "netns, sources, heal, buffer, history" },
	{ "unknown key in fleet", TOP("fleet { x = 1 }"), 1, "key \"x\"", "backend, ttl" },
	{ "unknown key in host", TOP("host {\n\nx = 1 }"), 3, "key \"x\"", "sysctl, routes" },
	{ "unknown key in proxy", TOP("proxy p { ports = 1 }"), 1, "key \"ports\"", "interfaces" },
	{ "unknown key in metrics", TOP("metrics { port = 1 }"), 1, "key \"port\"", "listen" },
	{ "unknown key in access", TOP("access { user = 1 }"), 1, "key \"user\"",
	  "leases-per-uid" },
	{ "unknown key in leases", TOP("leases {\ngroup = a }"), 2, "key \"group\"",
	  "cool-down, records, fair-share, cgroup" },
	{ "unknown section", TOP("\nnat {\n}"), 2, "key \"nat\"", "pool, metrics" },
	{ "unknown section with a name", TOP("nat \"x\" { }"), 1, "key \"nat\"", "pool, metrics" },
	{ "path to a key", TOP("fleet|ttl = 7"), 1, "syntax \"fleet|ttl\"", "name of a key" },
	{ "quoted key", TOP("\"max-flows\" = 5000"), 1, "syntax \"max-flows\"", "without quotes" },
	{ "include", TOP("include(\"other.conf\")"), 1, "syntax \"(\"", "no include()" },
	{ "key twice", TOP("machine = a"), 2, "key \"machine\"", "first in line 1" },
	{ "list twice", POOL("tags = { a=b }\nclients = { }\nclients = { }"), 5, "syntax \"=\"",
	  "a comma or }" },
	{ "empty list twice", POOL("clients = { }\n\nclients = { }"), 7, "key \"clients\"",
	  "first in line 5" },
	{ "section twice", TOP("fleet { }\nfleet { }"), 2, "section \"fleet\"", "first in line 1" },
	{ "pool twice", POOL("}\npool \"a\" {"), 6, "section \"a\"", "each name once" },
	{ "pool without a name", UPLINK "pool {\n}", 3, "section \"pool\"", "has no name" },
	{ "section with a name", TOP("fleet \"x\" { }"), 1, "section \"fleet\"", "only {" },
	{ "section as a key", TOP("fleet = \"local\""), 1, "section \"fleet\"", "only {" },
	{ "key as a section", TOP("max-flows { }"), 1, "key \"max-flows\"", "only =" },
	{ "appended scalar", TOP("max-flows += 4096"), 1, "key \"max-flows\"", "only =" },
	{ "list for a scalar", TOP("max-flows = {\n4096 }"), 1, "syntax \"{\"", "one value" },
	{ "nested section", POOL("x { }"), 5, "syntax \"{\"", "= or +=" },
	{ "section does not end", UPLINK "pool \"a\" {\naddresses = { 203.0.113.7 }\n\n", 3,
	  "syntax \"pool\"", "must end with }" },
	{ "list does not end", UPLINK "\npool \"a\" { clients = {\n\"10.0.0.0/8\"\n", 4,
	  "syntax \"{\"", "must end with }" },
	{ "list does not end after comma", UPLINK "pool \"a\" { clients = { a,\n", 3,
	  "syntax \"{\"", "must end with }" },
	{ "brace too many", TOP("\n}"), 2, "syntax \"}\"", "name of a key" },
	{ "no comma", POOL("clients = {\n10.0.0.0/8\n10.1.0.0/16 }"), 7, "syntax \"10.1.0.0/16\"",
	  "a comma or }" },
	{ "two commas", POOL("clients = {\n10.0.0.0/8,\n, }"), 7, "syntax \",\"", "a value or }" },
	{ "no value", TOP("state-dir = \n= 5"), 2, "syntax \"=\"", "a value or {" },
	{ "no value at the end", UPLINK "state-dir =\n\n", 5, "syntax \"end of file\"", "a value" },
	{ "only a word", "\nmachine", 2, "syntax \"end of file\"", "= after a key" },
	{ "quote does not end", POOL("clients = { \"10.0.0.0/8 }"), 5, "syntax \"\"10.0.0.0/8 }\"",
	  "closing quote" },
	{ "single quote does not end", TOP("machine = 'x"), 1, "syntax \"'x\"", "closing quote" },
	{ "quote does not end with the file", "machine = \"x", 1, "syntax \"\"x\"",
	  "closing quote" },
	{ "comment does not end", TOP("\n/* x\n * y\n"), 2, "syntax \"/*\"", "must end with */" },
	{ "star", TOP("machine*= x"), 1, "syntax \"*\"", "no meaning" },
	{ "plus", TOP("machine + x"), 1, "syntax \"+\"", "no meaning" },
	{ "control character", TOP("\n\001"), 2, "syntax \"\\x01\"", "no meaning" },
	{ "carriage return", TOP("\n\rmachine = x"), 2, "syntax \"\\x0d\"", "no meaning" },
	{ "escape character", TOP("state-dir = \"/\033[1m\""), 1, "syntax \"\"/\\x1b\"",
	  "control character" },
	{ "environment", TOP("\nstate-dir = \"${HOME}\""), 2, "syntax \"${\"", "environment" },
	{ "environment without quotes", TOP("state-dir = ${HOME}"), 1, "syntax \"${\"",
	  "environment" },
	{ "escape", TOP("state-dir = \"/\\x00\""), 1, "syntax \"\\x\"", "allowed are \\\"" },
	{ "octal escape", TOP("state-dir = \"/\\777\""), 1, "syntax \"\\7\"", "allowed are" },
	{ "continued line", TOP("state-dir = \"/\\\nx\""), 1, "syntax \"\\\\x0a\"", "allowed are" },
};

static const struct bad values[] = {
	{ "machine", "\nmachine = \"edge 1\"\n", 2, "machine \"edge 1\"", "allowed are 1 to 31" },
	{ "empty machine", "machine = \"\"", 1, "machine \"\"", "allowed are 1 to 31" },
	{ "machine with a dot first", "machine = .x", 1, "machine \".x\"", "first a letter" },
	{ "long machine", "machine = aaaaaaaaaabbbbbbbbbbccccccccccdd", 1,
	  "machine \"aaaaaaaaaabbbbbbbbbbccccccccccdd\"", "1 to 31" },
	{ "machine not ASCII", "machine = \"\303\251\"", 1, "machine \"\\xc3\\xa9\"", "1 to 31" },
	{ "state-dir", TOP("state-dir = \"lib/sluice\""), 1, "state-dir \"lib/sluice\"",
	  "begin with /" },
	{ "empty state-dir", TOP("state-dir = ''"), 1, "state-dir \"\"", "begin with /" },
	{ "control", TOP("\ncontrol = \"sluice.sock\""), 2, "control \"sluice.sock\"",
	  "begin with /" },
	{ "long control", TOP("control = \"/aaaaaaaa" TEXT_100 "\""), 1,
	  "control \"/aaaaaaaaaaaaaaaaaaaaaaaaaaaa", "is 110 bytes long; allowed are 107" },
	{ "control is a directory", TOP("control = \"/run/\""), 1, "control \"/run/\"", "socket" },
	{ "bpffs", TOP("bpffs = \"./bpf\""), 1, "bpffs \"./bpf\"", "begin with /" },

	{ "no uplinks", "machine = x\npool a { addresses = { 203.0.113.7 } }", 1, "uplinks \"\"",
	  "no uplink" },
	{ "empty uplinks", UPLINKS("\nuplinks = { }"), 3, "uplinks \"\"", "1 to 8" },
	{ "uplink with a slash", UPLINKS("uplinks = { a,\n\"b/c\" }"), 3, "uplinks \"b/c\"",
	  "without blanks" },
	{ "uplink with a blank", UPLINKS("uplinks = { \"b c\" }"), 2, "uplinks \"b c\"",
	  "without blanks" },
	{ "uplink with a colon", UPLINKS("uplinks = { b:0 }"), 2, "uplinks \"b:0\"", "and :" },
	{ "uplink is dots", UPLINKS("uplinks = { '..' }"), 2, "uplinks \"..\"", "without blanks" },
	{ "empty uplink", UPLINKS("uplinks = \"\""), 2, "uplinks \"\"", "1 to 15" },
	{ "long uplink", UPLINKS("uplinks = { aaaaaaaaaabbbbbb }"), 2,
	  "uplinks \"aaaaaaaaaabbbbbb\"", "1 to 15" },
	{ "uplink twice", UPLINKS("uplinks = { a,\nb,\na }"), 4, "uplinks \"a\"",
	  "first in line 2" },
	{ "nine uplinks", UPLINKS("uplinks = { a,b,c,d,e,f,g,h,\ni }"), 3, "uplinks \"i\"",
	  "allowed are 8" },

	{ "max-flows low", TOP("max-flows = 1023"), 1, "max-flows \"1023\"", "1024 to 16777216" },
	{ "max-flows high", TOP("max-flows = 16777217"), 1, "max-flows \"16777217\"",
	  "out of range" },
	{ "max-flows negative", TOP("max-flows = -4096"), 1, "max-flows \"-4096\"",
	  "out of range" },
	{ "max-flows wraps 32 bits", TOP("max-flows = 4294971392"), 1, "max-flows \"4294971392\"",
	  "out of range" },
	{ "max-flows wraps 64 bits", TOP("max-flows = 18446744073709555712"), 1,
	  "max-flows \"18446744073709555712\"", "out of range" },
	{ "max-flows hexadecimal", TOP("max-flows = 0x1000"), 1, "max-flows \"0x1000\"",
	  "decimal" },
	{ "max-flows octal", TOP("max-flows = 010000"), 1, "max-flows \"010000\"", "decimal" },
	{ "max-flows with a unit", TOP("max-flows = 64k"), 1, "max-flows \"64k\"", "decimal" },
	{ "max-flows empty", TOP("max-flows = ''"), 1, "max-flows \"\"", "decimal" },
	{ "max-flows a sign", TOP("max-flows = -"), 1, "max-flows \"-\"", "decimal" },
	{ "icmp-rate", TOP("icmp-rate = 100001"), 1, "icmp-rate \"100001\"", "0 to 100000" },
	{ "icmp-rate negative", TOP("icmp-rate = -1"), 1, "icmp-rate \"-1\"", "0 to 100000" },

	{ "host sysctl", TOP("host {\nsysctl = \"on\" }"), 2, "sysctl \"on\"",
	  "\"set\", \"check\"" },
	{ "host routes", TOP("host { sysctl = set\nroutes = SET }"), 2, "routes \"SET\"",
	  "allowed: \"set\"" },
	{ "backend", TOP("fleet { backend = raft }"), 1, "backend \"raft\"", "allowed: \"local\"" },
	{ "etcd", TOP("fleet {\nbackend = \"etcd\" }"), 2, "backend \"etcd\"",
	  "this version does not have it" },
	{ "ttl of 1", TOP("fleet { ttl = 1 }"), 1, "ttl \"1\"", "2 to 86400" },
	{ "ttl high", TOP("fleet { ttl = 86401 }"), 1, "ttl \"86401\"", "2 to 86400" },
	{ "ttl negative", TOP("fleet { ttl = -1 }"), 1, "ttl \"-1\"", "2 to 86400" },
	{ "heal no boolean", TOP("watch { heal = 1 }"), 1, "heal \"1\"", "true, false" },
	{ "netns", TOP("watch { netns = { \"\",\n\"a/b\" } }"), 2, "netns \"a/b\"", "a name" },
	{ "netns twice", TOP("watch { netns = { a, b,\na } }"), 2, "netns \"a\"",
	  "first in line 1" },
	{ "netns twice, a path", TOP("watch { netns = { blue, \"\",\n/run/netns/blue } }"), 2,
	  "netns \"/run/netns/blue\"", "first in line 1" },
	{ "our own netns twice", TOP("watch { netns = { \"\",\n\"\" } }"), 2, "netns \"\"",
	  "allowed is once" },
	{ "netns dots", TOP("watch { netns = '..' }"), 1, "netns \"..\"", "a name" },
	{ "netns root", TOP("watch { netns = '/' }"), 1, "netns \"/\"", "absolute path" },
	{ "watch buffer", TOP("watch {\nbuffer = 65535 }"), 2, "buffer \"65535\"",
	  "65536 to 1073741824" },
	{ "watch buffer high", TOP("watch { buffer = 1073741825 }"), 1, "buffer \"1073741825\"",
	  "65536 to 1073741824" },
	{ "watch sources", TOP("watch { sources = { netfilter,\n dump } }"), 2, "sources \"dump\"",
	  "\"ctnetlink\", \"netfilter\"" },
	{ "watch sources twice", TOP("watch { sources = { netfilter,\n netfilter } }"), 2,
	  "sources \"netfilter\"", "allowed is once" },
	{ "watch sources empty", TOP("watch { netns = a\nsources = { } }"), 2, "sources \"\"",
	  "is empty" },
	{ "watch history", TOP("watch { history = 0 }"), 1, "history \"0\"", "1 to 1000000" },
	{ "metrics", TOP("metrics { listen = 9469 }"), 1, "listen \"9469\"", "ADDRESS:PORT" },
	{ "metrics port", TOP("metrics { listen = 127.0.0.1:0 }"), 1, "listen \"127.0.0.1:0\"",
	  "ADDRESS:PORT" },
	{ "metrics range", TOP("metrics { listen = 127.0.0.1:1-2 }"), 1, "listen \"127.0.0.1:1-2\"",
	  "ADDRESS:PORT" },
	{ "metrics directory", TOP("metrics { listen = unix:/run/ }"), 1, "listen \"unix:/run/\"",
	  "unix:PATH" },
	{ "metrics at the control socket",
	  TOP("\nmetrics { listen = unix:/run/sluice/control.sock }"), 2,
	  "listen \"unix:/run/sluice/control.sock\"", "is the control socket" },
	{ "metrics socket", TOP("metrics { listen = unix:x }"), 1, "listen \"unix:x\"",
	  "unix:PATH" },
	{ "proxy name", TOP("proxy \"a b\" { }"), 1, "proxy \"a b\"", "is no name" },
	{ "proxy without pool", TOP("\nproxy p { interfaces = { lan } }"), 2, "proxy \"p\"",
	  "has no pool" },
	{ "proxy pool", TOP("proxy p { pool = z\ninterfaces = { lan } }"), 1, "pool \"z\"",
	  "is no pool in this file" },
	{ "proxy without interfaces", TOP("proxy p { pool = a }"), 1, "interfaces \"\"", "empty" },
	{ "proxy interface", TOP("proxy p { pool = a\ninterfaces = { lan,\n'a b' } }"), 3,
	  "interfaces \"a b\"", "without blanks" },
	{ "proxy twice", TOP("proxy p { pool = a interfaces = l }\nproxy p { }"), 2,
	  "section \"p\"", "each name once" },
	{ "group", TOP("access { group = \"a b\" }"), 1, "group \"a b\"", "without blanks" },
	{ "empty group", TOP("access { group = \"\" }"), 1, "group \"\"", "1 to 31" },
	{ "leases", TOP("access { group = a\nleases-per-uid = x }"), 2, "leases-per-uid \"x\"",
	  "decimal" },
	{ "ports", TOP("access {\nports-per-uid = 4194305 }"), 2, "ports-per-uid \"4194305\"",
	  "0 to 4194304" },
	{ "leases of a cgroup", TOP("access { leases-per-cgroup = -1 }"), 1,
	  "leases-per-cgroup \"-1\"", "0 to 65536" },
	{ "cool-down", TOP("leases {\n\ncool-down = 3601 }"), 3, "cool-down \"3601\"",
	  "0 to 3600" },
	{ "records", TOP("leases { records = 0 }"), 1, "records \"0\"", "1 to 3650" },
	{ "share", TOP("leases { fair-share = 101 }"), 1, "fair-share \"101\"", "0 to 100" },
	{ "cgroup above", TOP("leases { cgroup = '..' }"), 1, "cgroup \"..\"", "but not . and .." },
	{ "cgroup itself", TOP("leases { cgroup = '.' }"), 1, "cgroup \".\"", "but not . and .." },
	{ "cgroup further down", TOP("leases { cgroup = 'a/b' }"), 1, "cgroup \"a/b\"",
	  "of the characters" },
	{ "no cgroup", TOP("leases { cgroup = '' }"), 1, "cgroup \"\"", "1 to 64" },
	{ "cgroup with a blank", TOP("leases { cgroup = 'a b' }"), 1, "cgroup \"a b\"",
	  "of the characters" },
	{ "leases twice", TOP("leases { }\nleases { }"), 2, "section \"leases\"",
	  "first in line 1" },
};

static const struct bad pools[] = {
	{ "pool name", UPLINK "\npool \"a b\"\n{ }", 4, "pool \"a b\"", "1 to 31" },
	{ "no addresses", UPLINK "pool a { }", 3, "pool \"a\"", "has no addresses" },
	{ "empty addresses", UPLINK "pool a {\naddresses = { } }", 4, "pool \"a\"",
	  "has no addresses" },
	{ "slice-size no power of two", POOL("slice-size = 3000"), 5, "slice-size \"3000\"",
	  "powers of two from 64 to 32768" },
	{ "slice-size low", POOL("slice-size = 32"), 5, "slice-size \"32\"", "powers of two" },
	{ "slice-size high", POOL("slice-size = 65536"), 5, "slice-size \"65536\"",
	  "powers of two" },
	{ "slice-size zero", POOL("slice-size = 0"), 5, "slice-size \"0\"", "powers of two" },
	{ "slice-size negative", POOL("slice-size = -2048"), 5, "slice-size \"-2048\"",
	  "powers of two" },
	{ "tcp-mapping", POOL("\n\ntcp-mapping = cone"), 7, "tcp-mapping \"cone\"",
	  "\"overload\", \"endpoint-independent\"" },
	{ "udp-mapping", POOL("udp-mapping = \"\""), 5, "udp-mapping \"\"", "\"overload\"" },
	{ "filtering", POOL("filtering = none"), 5, "filtering \"none\"",
	  "\"address-port-dependent\"" },
	{ "unleased", POOL("unleased = drop"), 5, "unleased \"drop\"",
	  "\"allow\", \"report\", \"deny\"" },
	{ "ports-per-client", POOL("ports-per-client = 65536"), 5, "ports-per-client \"65536\"",
	  "0 to 65535" },
	{ "states-per-client", POOL("states-per-client = many"), 5, "states-per-client \"many\"",
	  "0 to 16777216" },
	{ "flows-per-second", POOL("flows-per-second = 1000001"), 5, "flows-per-second \"1000001\"",
	  "0 to 1000000" },
	{ "flows-burst", POOL("flows-per-second = 1\nflows-burst = 0"), 6, "flows-burst \"0\"",
	  "1 to 1000000" },
	{ "burst beyond a minute's worth", POOL("flows-per-second = 2\nflows-burst = 121"), 6,
	  "flows-burst \"121\"", "allowed are 1 to 120" },
	{ "burst without a rate", POOL("flows-burst = 5"), 5, "flows-burst \"5\"",
	  "beside flows-per-second" },
	{ "tcp-filtering", POOL("tcp-filtering = yes"), 5, "tcp-filtering \"yes\"",
	  "\"address-dependent\"" },
	{ "udp-filtering", POOL("udp-filtering = yes"), 5, "udp-filtering \"yes\"",
	  "\"address-dependent\"" },
	{ "pairing", POOL("pairing = true"), 5, "pairing \"true\"", "\"paired\", \"arbitrary\"" },
	{ "hairpin", POOL("hairpin = maybe"), 5, "hairpin \"maybe\"", "true nor false" },
	{ "mss-clamp word", POOL("mss-clamp = path"), 5, "mss-clamp \"path\"", "\"auto\"" },
	{ "mss-clamp low", POOL("mss-clamp = 63"), 5, "mss-clamp \"63\"", "64 to 65495" },
	{ "mss-clamp high", POOL("mss-clamp = 65496"), 5, "mss-clamp \"65496\"", "64 to 65495" },
	{ "ipv4-id", POOL("ipv4-id = random"), 5, "ipv4-id \"random\"",
	  "\"slice\", \"set-df\", \"keep\"" },
	{ "tcp-established", POOL("tcp-established = 7439"), 5, "tcp-established \"7439\"",
	  "RFC 5382 REQ-5 demands; allowed are 7440 to 65535 seconds, or less with short-timers" },
	{ "tcp-opening", POOL("tcp-opening = 239"), 5, "tcp-opening \"239\"", "240 to 65535" },
	{ "tcp-closing", POOL("tcp-closing = 239"), 5, "tcp-closing \"239\"", "240 to 65535" },
	{ "tcp-time-wait", POOL("tcp-time-wait = 119"), 5, "tcp-time-wait \"119\"",
	  "120 to 65535" },
	{ "tcp-reset", POOL("tcp-reset = 239"), 5, "tcp-reset \"239\"", "240 to 65535" },
	{ "udp-timeout", POOL("udp-timeout = 119"), 5, "udp-timeout \"119\"", "RFC 4787 REQ-5" },
	{ "udp-short-timeout", POOL("udp-short-timeout = 0"), 5, "udp-short-timeout \"0\"",
	  "1 to 65535" },
	{ "icmp-timeout", POOL("icmp-timeout = 59 short-timers = no"), 5, "icmp-timeout \"59\"",
	  "RFC 5508 REQ-2" },
	{ "timer too long", POOL("udp-timeout = 65536"), 5, "udp-timeout \"65536\"", "1 to 65535" },
	{ "short timer of zero", POOL("short-timers = yes\nudp-timeout = 0"), 6,
	  "udp-timeout \"0\"", "1 to 65535" },
	{ "short-timers", POOL("short-timers = 5"), 5, "short-timers \"5\"", "true nor false" },
	{ "inbound-refresh", POOL("inbound-refresh = 1"), 5, "inbound-refresh \"1\"",
	  "true nor false" },
	{ "no interfaces", POOL("\ninterfaces = { }"), 6, "interfaces \"\"", "is empty" },
	{ "interface", POOL("interfaces = { lan0,\n'a b' }"), 6, "interfaces \"a b\"", "without" },
	{ "interface twice", POOL("interfaces = { lan0,\nlan0 }"), 6, "interfaces \"lan0\"",
	  "first in line 5" },
	{ "interface that is an uplink", POOL("interfaces = wan"), 5, "interfaces \"wan\"",
	  "is an uplink" },
	{ "interface that two pools share, and another",
	  SECOND("interfaces = { l1, l2 }", "interfaces = { l3,\nl2 }"), 10, "interfaces \"l2\"",
	  "is one of pool \"a\" as well" },
	{ "client in two pools with the same interfaces",
	  SECOND("clients = 10.0.0.0/8 interfaces = { l1, l2 }",
		 "interfaces = { l2, l1 }\nclients = 10.1.0.0/16"),
	  10, "clients \"10.1.0.0/16\"", "or pools with other interfaces" },
	{ "client with interfaces that is a shared address",
	  SECOND("", "interfaces = { l2, l1 }\nclients = 203.0.113.0/24"), 10,
	  "clients \"203.0.113.0/24\"", "clients that are no shared addresses" },
	{ "ports-per-client negative", POOL("ports-per-client = -1"), 5, "ports-per-client \"-1\"",
	  "out of range" },
	{ "tag", POOL("tags = { \"geo=DE\",\n\"class\" }"), 6, "tags \"class\"", "key=value" },
	{ "tag without key", POOL("tags = { '=DE' }"), 5, "tags \"=DE\"", "key=value" },
	{ "tag without value", POOL("tags = { 'geo=' }"), 5, "tags \"geo=\"", "key=value" },
	{ "tag with a blank in its key", POOL("tags = { 'a b=c' }"), 5, "tags \"a b=c\"",
	  "key=value" },

	{ "address", POOL("addresses += {\nx.example }"), 6, "addresses \"x.example\"",
	  "neither an address nor a prefix" },
	{ "address with host bits", POOL("addresses += {\n203.0.113.9/30 }"), 6,
	  "addresses \"203.0.113.9/30\"", "allowed is 203.0.113.8/30" },
	{ "multicast", POOL("addresses += 224.0.0.1"), 5, "addresses \"224.0.0.1\"", "multicast" },
	{ "loopback", POOL("addresses += 127.1.0.0/16"), 5, "addresses \"127.1.0.0/16\"",
	  "loopback" },
	{ "zero", POOL("addresses += 0.0.0.0"), 5, "addresses \"0.0.0.0\"", "zero" },
	{ "everything", POOL("addresses += 0.0.0.0/0"), 5, "addresses \"0.0.0.0/0\"", "zero" },
	{ "broadcast", POOL("addresses += 255.255.255.255"), 5, "addresses \"255.255.255.255\"",
	  "broadcast" },
	{ "IPv6 multicast", POOL("addresses += ff02::1"), 5, "addresses \"ff02::1\"", "multicast" },
	{ "IPv6 zero", POOL("addresses += '::/0'"), 5, "addresses \"::/0\"", "zero" },
	{ "IPv6 link-local", POOL("addresses += {\nfe80::7 }"), 6, "addresses \"fe80::7\"",
	  "link-local" },
	{ "IPv6 reserved", POOL("addresses += ::192.0.2.1"), 5, "addresses \"::192.0.2.1\"",
	  "reserved" },
	{ "IPv6 twice", POOL("addresses += { 2001:db8::/124,\n2001:db8::7 }"), 6,
	  "addresses \"2001:db8::7\"", "of pool \"a\" in line 5" },
	{ "too many IPv6 addresses", POOL("addresses += 2001:db8::/118"), 5,
	  "addresses \"2001:db8::/118\"", "1025 shared addresses" },
	{ "far too many IPv6 addresses", POOL("addresses += 2001:db8::/32"), 5,
	  "addresses \"2001:db8::/32\"", "4294967296 shared addresses" },
	{ "mapped", POOL("addresses += ::ffff:192.0.2.1"), 5, "addresses \"::ffff:192.0.2.1\"",
	  "neither" },
	{ "too many addresses", POOL("addresses += {\n198.18.0.0/22 }"), 6,
	  "addresses \"198.18.0.0/22\"",
	  "1025 shared addresses in all; allowed in one file are 1024" },
	{ "far too many addresses", POOL("addresses += 128.0.0.0/2"), 5,
	  "addresses \"128.0.0.0/2\"", "1073741825 shared addresses" },
	{ "too many addresses in two pools",
	  UPLINK "pool a {\naddresses = 198.18.0.0/23 slices = { } }\n"
		 "pool b {\naddresses = { 198.18.2.0/24,\n198.18.4.0/23 } slices = { } }",
	  7, "addresses \"198.18.4.0/23\"", "1280 shared addresses" },
	{ "address twice", POOL("addresses += {\n203.0.113.8,\n203.0.113.7 }"), 7,
	  "addresses \"203.0.113.7\"", "of pool \"a\" in line 4" },
	{ "address twice by prefix", POOL("addresses += {\n203.0.113.0/29 }"), 6,
	  "addresses \"203.0.113.0/29\"", "\"203.0.113.7\" of pool \"a\" in line 4" },
	{ "address in two pools", SECOND("", "addresses += { 192.0.2.1,\n203.0.113.7 }"), 10,
	  "addresses \"203.0.113.7\"",
	  "of pool \"a\" in line 4; allowed is each shared address once" },

	{ "client", POOL("clients = { 10.0.0.0/8,\n\n10 }"), 7, "clients \"10\"", "neither" },
	{ "client with host bits", POOL("clients = {\n10.1.2.0/16 }"), 6, "clients \"10.1.2.0/16\"",
	  "allowed is 10.1.0.0/16" },
	{ "IPv6 client of an IPv4 pool", POOL("clients = { 10.0.0.0/8,\n2001:db8:1::/48 }"), 6,
	  "clients \"2001:db8:1::/48\"", "is IPv6, and the pool has no IPv6 address" },
	{ "IPv4 client of an IPv6 pool",
	  UPLINK "pool a {\naddresses = 2001:db8::7\nclients = 10.0.0.0/8 }", 5,
	  "clients \"10.0.0.0/8\"", "no IPv4 address" },
	{ "client twice", POOL("clients = { 10.0.0.0/8,\n10.0.0.0/8 }"), 6,
	  "clients \"10.0.0.0/8\"", "in line 5; allowed is once" },
	{ "client in two pools", SECOND("clients = 10.0.0.0/8", "clients = { 10.0.0.0/8 }"), 9,
	  "clients \"10.0.0.0/8\"", "of pool \"a\" in line 5; allowed is one pool" },
	{ "client within one of another pool",
	  SECOND("clients = 10.0.0.0/8", "clients = { 11.0.0.0/8,\n10.1.0.0/16 }"), 10,
	  "clients \"10.1.0.0/16\"", "\"10.0.0.0/8\" of pool \"a\" in line 5" },
	{ "client around one of another pool",
	  SECOND("clients = { 10.1.0.0/16, 10.3.0.0/16 }", "clients = 10.0.0.0/8"), 9,
	  "clients \"10.0.0.0/8\"", "\"10.1.0.0/16\" of pool \"a\" in line 5" },
	{ "client in two pools, deep",
	  SECOND("clients = { 10.0.0.0/8, 10.1.0.0/16,\n10.1.1.0/24 }",
		 "\nclients = 10.1.1.128/25"),
	  11, "clients \"10.1.1.128/25\"", "\"10.1.1.0/24\" of pool \"a\" in line 6" },
	{ "client is a shared address", POOL("clients = 203.0.113.7"), 5, "clients \"203.0.113.7\"",
	  "addresses \"203.0.113.7\"" },
	{ "client contains a shared address", POOL("clients = { 10.0.0.0/8,\n203.0.113.0/24 }"), 6,
	  "clients \"203.0.113.0/24\"", "addresses \"203.0.113.7\" of pool \"a\" in line 4" },
	{ "client contains another pool's address", SECOND("clients = 203.0.113.8/31", ""), 8,
	  "addresses \"203.0.113.8\"", "clients \"203.0.113.8/31\" of pool \"a\" in line 5" },
	{ "client within shared addresses",
	  UPLINK "pool a {\naddresses = 198.51.100.0/28\nclients = 198.51.100.4/30 }", 5,
	  "clients \"198.51.100.4/30\"", "clients that are no shared addresses" },
	{ "no-nat", POOL("no-nat = x"), 5, "no-nat \"x\"", "neither" },
	{ "no-nat with host bits", POOL("no-nat = 192.0.2.1/24"), 5, "no-nat \"192.0.2.1/24\"",
	  "allowed is 192.0.2.0/24" },
	{ "no-nat IPv6 twice", POOL("no-nat = { '::/0', 2001:db8::/32,\n2001:db8::/32 }"), 6,
	  "no-nat \"2001:db8::/32\"", "in line 5" },
	{ "no-nat twice", POOL("no-nat = { 192.0.2.0/24, 192.0.0.0/8,\n192.0.2.0/24 }"), 6,
	  "no-nat \"192.0.2.0/24\"", "in line 5" },
};

static const struct bad slices[] = {
	{ "no range", POOL("slices = {\n203.0.113.7 }"), 6, "slices \"203.0.113.7\"", "such as" },
	{ "backwards", POOL("slices = 203.0.113.7:43007-40960"), 5,
	  "slices \"203.0.113.7:43007-40960\"", "no range" },
	{ "over 65535", POOL("slices = 203.0.113.7:65536-67583"), 5,
	  "slices \"203.0.113.7:65536-67583\"", "no range" },
	{ "IPv6 of no pool", POOL("slices = \"[2001:db8::7]:2048-4095\""), 5,
	  "slices \"[2001:db8::7]:2048-4095\"", "addresses that pool \"a\" lists" },
	{ "IPv6 without brackets",
	  POOL("addresses += 2001:db8::7\nslices = \"2001:db8::7:2048-4095\""), 6,
	  "slices \"2001:db8::7:2048-4095\"", "[2001:db8::7]:40960-43007" },
	{ "IPv6 misaligned", POOL("addresses += 2001:db8::7\nslices = \"[2001:db8::7]:2048-4096\""),
	  6, "slices \"[2001:db8::7]:2048-4096\"", "for example [2001:db8::7]:2048-6143" },
	{ "other address", POOL("slices = { \"203.0.113.7:40960-43007\",\n203.0.113.8:2048-4095 }"),
	  6, "slices \"203.0.113.8:2048-4095\"", "addresses that pool \"a\" lists" },
	{ "other pool's address", SECOND("", "slices = { 203.0.113.7:2048-4095 }"), 9,
	  "slices \"203.0.113.7:2048-4095\"", "addresses that pool \"b\" lists" },
	{ "below 1024", POOL("slices = 203.0.113.7:0-2047"), 5, "slices \"203.0.113.7:0-2047\"",
	  "ports below 1024; allowed are 2048 to 65535" },
	{ "below 1024, small slices", POOL("slice-size = 64\nslices = 203.0.113.7:960-1023"), 6,
	  "slices \"203.0.113.7:960-1023\"", "allowed are 1024 to 65535" },
	{ "first unaligned", POOL("slices = 203.0.113.7:40961-43007"), 5,
	  "slices \"203.0.113.7:40961-43007\"", "for example 203.0.113.7:40960-43007" },
	{ "last unaligned", POOL("slices = 203.0.113.7:40960-43008"), 5,
	  "slices \"203.0.113.7:40960-43008\"", "for example 203.0.113.7:40960-45055" },
	{ "right length, wrong place", POOL("slices = 203.0.113.7:41984-44031"), 5,
	  "slices \"203.0.113.7:41984-44031\"", "for example 203.0.113.7:40960-45055" },
	{ "in the first slice", POOL("slices = 203.0.113.7:1024-2047"), 5,
	  "slices \"203.0.113.7:1024-2047\"", "for example 203.0.113.7:2048-4095" },
	{ "twice", POOL("slices = { 203.0.113.7:40960-43007,\n203.0.113.7:40960-43007 }"), 6,
	  "slices \"203.0.113.7:40960-43007\"", "in line 5; allowed is each slice once" },
	{ "overlap", POOL("slices = { 203.0.113.7:40960-45055,\n203.0.113.7:43008-47103 }"), 6,
	  "slices \"203.0.113.7:43008-47103\"", "\"203.0.113.7:40960-45055\" in line 5" },
	{ "overlap, contained",
	  POOL("slices = { 203.0.113.7:49152-51199,\n203.0.113.7:40960-65535 }"), 6,
	  "slices \"203.0.113.7:40960-65535\"", "\"203.0.113.7:49152-51199\" in line 5" },
	/* 16 addresses with 1024 rows each are all there can be. */
	{ "rows",
	  UPLINK "pool a { addresses = {\n198.51.100.0/28,\n198.51.100.16 }\nslices = { }\n"
		 "slice-size = 64 }",
	  7, "slice-size \"64\"", "17408 slices; allowed in one file are 16384" },
	{ "rows, default size",
	  UPLINK "pool a { addresses = {\n198.18.0.0/23,\n198.51.100.16 } "
		 "slices = { } }",
	  5, "addresses \"198.51.100.16\"", "16416 slices" },
	{ "rows of two pools",
	  UPLINK "pool a { addresses = 198.51.100.0/28 slice-size = 64 slices = { } }\n"
		 "pool b { addresses = 192.0.2.1\nslice-size = 32768 }",
	  5, "slice-size \"32768\"", "16386 slices" },
	/* 1024 slices of 2048 ports are all that can be held; an address has 31. */
	{ "blocks", UPLINK "pool a { addresses = {\n198.51.100.0/27,\n198.51.100.32/31 } }", 5,
	  "addresses \"198.51.100.32/31\"",
	  "2158592 held ports in all; allowed in one file are 2097152" },
	{ "blocks of two pools",
	  UPLINK "pool a { addresses = 198.51.100.0/27 }\n"
		 "pool b { addresses = { 192.0.2.1, 192.0.2.2 }\n"
		 "slices = { 192.0.2.1:2048-65535,\n192.0.2.2:2048-65535 } }",
	  6, "slices \"192.0.2.2:2048-65535\"", "2158592 held ports" },
};

static void check(const struct bad *t, const char *text, size_t len)
{
	struct config *untouched = (struct config *)(uintptr_t)0x5a5a5a5a, *c = untouched;
	struct errtext err = { "" };
	char begin[256];

	snprintf(begin, sizeof(begin), FILE_NAME ":%u: %s", t->line, t->says);
	assert_int_equal(config_parse(FILE_NAME, text, len, &c, &err), -EINVAL);
	assert_ptr_equal(c, untouched);
	if (strncmp(err.s, begin, strlen(begin)) || !strstr(err.s + strlen(begin), t->why))
		fail_msg("%s: got <%s>, not <%s> and <%s>", t->name, err.s, begin, t->why);
	assert_null(strchr(err.s, '\n'));
	assert_non_null(strstr(err.s + strlen(begin), "; ")); /* what is wrong; what is allowed */
	/* Without a place for the text the answer is the same. */
	assert_int_equal(config_parse(FILE_NAME, text, len, &c, NULL), -EINVAL);
	assert_ptr_equal(c, untouched);
}

static void check_all(const struct bad *t, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		/* An allocation of just the right size shows a read beyond the end. */
		size_t len = strlen(t[i].text);
		char *text = malloc(len + !len);

		assert_non_null(text);
		memcpy(text, t[i].text, len);
		check(&t[i], text, len);
		free(text);
	}
}

#define ALL(table) check_all(table, sizeof(table) / sizeof(table[0]))

static void test_syntax(void **state)
{
	(void)state;
	ALL(syntax);
}

static void test_values(void **state)
{
	(void)state;
	ALL(values);
}

static void test_pools(void **state)
{
	(void)state;
	ALL(pools);
}

static void test_slices(void **state)
{
	(void)state;
	ALL(slices);
}

static void test_nul(void **state)
{
	static const char text[] = "machine = x\n# comment\0\nuplinks = { a }\n";
	const struct bad t = { "NUL", NULL, 2, "syntax \"\\0\"", "NUL byte" };

	(void)state;
	check(&t, text, sizeof(text) - 1);
}

/* Texts that are made here, as they are too long to write down. */
static char *repeat(const char *head, const char *fmt, unsigned n, const char *tail)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	assert_non_null(f);
	fputs(head, f);
	for (unsigned i = 0; i < n; i++) {
		fprintf(f, fmt, i / 256, i % 256);
	}
	fputs(tail, f);
	fclose(f);
	return text;
}

static void test_limits(void **state)
{
	static const struct {
		struct bad bad;
		const char *head, *fmt;
		unsigned n;
		const char *tail;
	} cases[] = {
		{ { "prefixes", NULL, 4 + 4097, "clients \"10.16.0.0/24\"",
		    "allowed in one file are 4096" },
		  UPLINK "pool a { addresses = 203.0.113.7\nclients = {\n",
		  "10.%u.%u.0/24,\n",
		  4097,
		  "} }\n" },
		{ { "no-nat", NULL, 4 + 4097, "no-nat \"10.16.0.0/24\"", "4096 for no-nat" },
		  UPLINK "pool a { addresses = 203.0.113.7\nno-nat = {\n",
		  "10.%u.%u.0/24,\n",
		  4097,
		  "} }\n" },
		{ { "pools", NULL, 2 + 65, "pool \"p0.64\"", "allowed are 64" },
		  UPLINK,
		  "pool p%u.%u { }\n",
		  66,
		  "" },
		{ { "sections", NULL, 2 + 129, "syntax \"pool\"", "allowed are 128" },
		  UPLINK,
		  "pool p%u.%u { }\n",
		  129,
		  "" },
		{ { "long text", NULL, 1, "syntax \"x0x0x0x1x0x2", "allowed are 4096 bytes" },
		  "machine = ",
		  "x%ux%u",
		  1024,
		  "\n" },
		{ { "long file", NULL, 1, "file \"", "allowed are 1048576" },
		  "",
		  "# %u.%u\n",
		  150000,
		  "" },
		{ { "many unknown keys", NULL, 1, "key \"k0-0\"", "allowed are machine" },
		  "",
		  "k%u-%u = x\n",
		  70000,
		  "" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *text = repeat(cases[i].head, cases[i].fmt, cases[i].n, cases[i].tail);

		check(&cases[i].bad, text, strlen(text));
		free(text);
	}
}

/* A long path leaves room for the message. */
static void test_long_path(void **state)
{
	struct config *c = NULL;
	struct errtext err;
	char path[600];

	(void)state;
	memset(path, 'p', sizeof(path));
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(config_parse(path, "max-flow = 5", 12, &c, &err), -EINVAL);
	assert_non_null(strstr(err.s, "...:1: key \"max-flow\": is not known"));
}

/* Without "machine" the host name serves, if it can. Changes this process's own; so it comes last. */
static void test_host_name(void **state)
{
	static const struct {
		struct bad bad;
		const char *host;
	} cases[] = {
		{ { "blank", NULL, 1, "machine \"a b\"", "host name cannot serve" },
		  "a b.example" },
		{ { "empty", NULL, 1, "machine \"\"", "1 to 31" }, ".example" },
	};
	struct config *c = NULL;
	const char *text = "uplinks = wan\npool a { addresses = 203.0.113.7 }\n";

	(void)state;
	if (unshare(CLONE_NEWUTS) && unshare(CLONE_NEWUSER | CLONE_NEWUTS))
		skip();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(sethostname(cases[i].host, strlen(cases[i].host)), 0);
		check(&cases[i].bad, text, strlen(text));
	}
	assert_int_equal(sethostname("edge-7.example.net", 18), 0);
	assert_int_equal(config_parse(FILE_NAME, text, strlen(text), &c, NULL), 0);
	assert_string_equal(c->machine, "edge-7");
	config_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_syntax),    cmocka_unit_test(test_values),
		cmocka_unit_test(test_pools),     cmocka_unit_test(test_slices),
		cmocka_unit_test(test_nul),       cmocka_unit_test(test_limits),
		cmocka_unit_test(test_long_path), cmocka_unit_test(test_host_name),
	};

	return cmocka_run_group_tests_name("config: mistakes", tests, NULL, NULL);
}
