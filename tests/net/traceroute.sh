#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# traceroute from a client, by UDP, TCP and ICMP, IPv4 and IPv6: each hop answers with an ICMP error about a translated packet, or it would be missing in the list. The first
# one is the edge itself, the second the gateway, the third the origin. The lab's IPv6 is that of ipv6.sh.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

SHARED6=2001:db8:5::7
OWN6=2001:db8:2::11
ORIGIN6=2001:db8:3::10

ipv6_up() {
	local host

	for host in client edge1 gw origin; do
		lab_sysctl "$host" net.ipv6.conf.all.disable_ipv6=0
	done
	lab_sysctl gw net.ipv6.conf.all.forwarding=1
	lab_sysctl edge1 net.ipv6.conf.all.forwarding=1
	lab_ip client <<-END
		addr add 2001:db8:1::2/64 dev net nodad
		route add default via 2001:db8:1::1
	END
	lab_ip edge1 <<-END
		addr add 2001:db8:1::1/64 dev lan nodad
		addr add $OWN6/64 dev wan nodad
		route add default via 2001:db8:2::1
	END
	lab_ip gw <<-END
		addr add 2001:db8:2::1/64 dev wan nodad
		addr add 2001:db8:3::1/64 dev origin nodad
		route add $SHARED6 via $OWN6
	END
	lab_ip origin <<-END
		addr add $ORIGIN6/64 dev net nodad
		route add default via 2001:db8:3::1
	END
	wait_for 10 in_ns edge1 ping -6 -q -c 1 -W 0.2 "$ORIGIN6" || lab_die "edge1 does not reach the origin by IPv6"
}

# The hops, in a line. Kernels send few ICMP errors a second to one host, so probes go one by one.
hops() { # TRACEROUTE-ARG...
	in_ns client timeout 30 traceroute -n -q 1 -N 1 -w 3 -m 5 "$@" 2>&1 |
		awk '$1 ~ /^[0-9]+$/ { printf "%s ", $2 }'
}

trace() { # NAME WANT TRACEROUTE-ARG...
	local name=$1 want=$2

	shift 2
	check "$name" "hops" "$(hops "$@")" = "$want "
}

test_family() { # NAME HOPS ADDRESS
	trace "$1/udp" "$2" "$3"
	trace "$1/udp-port" "$2" -U -p 53 "$3" # nobody listens there
	trace "$1/udp-long" "$2" "$3" 1400
	trace "$1/tcp" "$2" -T -p 7000 "$3"        # somebody listens
	trace "$1/tcp-closed" "$2" -T -p 7009 "$3" # nobody
	trace "$1/icmp" "$2" -I "$3"
}

command -v traceroute >/dev/null || lab_die "missing: traceroute (scripts/setup installs what is needed)"
lab_begin
lab_up egress
ipv6_up
lab_sysctl edge1 net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
lab_sysctl gw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
lab_sysctl origin net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
edge_conf edge1 "addresses += \"$SHARED6\" slices += \"[$SHARED6]:$(edge_slice edge1)\" clients += \"2001:db8:1::/64\"" >/dev/null
sluiced_start edge1
start_bg echo origin "$TALK" echo "$ORIGIN:7000" "[$ORIGIN6]:7000"
wait_out echo 10 ready
test_family ipv4 "10.1.0.1 192.0.2.1 $ORIGIN" "$ORIGIN"
test_family ipv6 "2001:db8:1::1 2001:db8:2::1 $ORIGIN6" "$ORIGIN6"
check drops "errors dropped" "$(($(drops icmp_error) + $(drops icmp_sum)))" -eq 0
exit "$TEST_FAILED"
