#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Path MTU discovery through NAT, IPv4 and IPv6: behind the gateway, or between the edge and its clients, is a link of 1280 bytes that the ends know nothing of. The router
# before it says so with an ICMP error about a translated packet: the gateway to the shared address, or this machine's kernel about what it has got back its inner
# destination. Both must reach whoever sent too much, and none may tell the inner address.
#
# The lab's IPv6 is that of ipv6.sh.

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
SMALL=1280

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

# What errors about too much tell the gateway, by what they quote: behind 8 bytes of ICMP, IPv4's destination is at 16, IPv6's at 24.
wire_start() {
	in_ns gw nft -f - <<-END
		table inet slab_wire {
			counter told4 { }
			counter told6 { }
			counter inner { }
			chain pre {
				type filter hook prerouting priority raw
				iifname "wan" icmp type destination-unreachable icmp code 4 @th,192,32 0xcb007107 counter name told4
				iifname "wan" icmp type destination-unreachable @th,192,16 0x0a01 counter name inner
				iifname "wan" icmpv6 type packet-too-big @th,256,128 0x20010db8000500000000000000000007 counter name told6
				iifname "wan" icmpv6 type packet-too-big @th,256,64 0x20010db800010000 counter name inner
				iifname "wan" ip saddr 10.1.0.0/16 counter name inner
				iifname "wan" ip6 saddr 2001:db8:1::/64 counter name inner
			}
		}
	END
}

wire() { # COUNTER
	in_ns gw nft -j list counter inet slab_wire "$1" | jq '[.. | .counter? // empty | .packets] | add'
}

# The path's MTU as a host has learned it, or nothing.
learned() { # HOST ADDRESS
	in_ns "$1" ip route get "$2" | grep -oE 'mtu [0-9]+' | cut -d' ' -f2
}

forget() {
	local host

	for host in client origin; do
		in_ns "$host" ip route flush cache
		in_ns "$host" ip -6 route flush cache
	done
}

# Far more than a packet, there and back.
# shellcheck disable=SC2317 # called by check_that
tcp_transfer() { # ENDPOINT
	in_ns client timeout 20 "$MANY" --timeout 8 --size 4096 4 "$1"
}

# shellcheck disable=SC2317
udp_transfer() { # SIZE ENDPOINT
	in_ns client timeout 20 "$MANY" --udp --timeout 3 --size "$1" 2 "$2"
}

# One family. HOST: who has to learn, and of the way to whom. LEAST: headers of a datagram.
adapts() { # NAME HOST ADDRESS ENDPOINT HEADERS
	local name=$1 host=$2 address=$3 endpoint=$4 headers=$5

	forget
	check "$name/fresh" "an MTU that is known before" "$(learned "$host" "$address")" = ""
	check_that "$name/tcp" "the TCP transfer does not adapt" tcp_transfer "$endpoint"
	check "$name/tcp-mtu" "the MTU that $host has learned" "$(learned "$host" "$address")" = "$SMALL"
	forget
	# The datagram is lost, as it must be; then its sender knows how long the next may be, and that one arrives.
	udp_transfer 1400 "$endpoint" >/dev/null 2>&1 || true
	check "$name/udp-mtu" "the MTU that $host has learned" "$(learned "$host" "$address")" = "$SMALL"
	check_that "$name/udp" "datagrams of that size are not answered" udp_transfer $((SMALL - headers)) "$endpoint"
}

lab_begin
lab_up egress
ipv6_up
wire_start
edge_conf edge1 "addresses += \"$SHARED6\" slices += \"[$SHARED6]:$(edge_slice edge1)\" clients += \"2001:db8:1::/64\"" >/dev/null
sluiced_start edge1
start_bg echo origin "$TALK" echo "$ORIGIN:7000" "[$ORIGIN6]:7000"
wait_out echo 10 ready
start_bg echo-udp origin "$TALK" echo --udp "$ORIGIN:7000" "[$ORIGIN6]:7000"
wait_out echo-udp 10 ready

lab_ip gw <<-END
	route replace 198.51.100.0/24 dev origin src 198.51.100.1 mtu lock $SMALL
	route replace 2001:db8:3::/64 dev origin mtu lock $SMALL
	route del 2001:db8:3::/64 dev origin proto kernel
END
adapts out/ipv4 client "$ORIGIN" "$ORIGIN:7000" 28
adapts out/ipv6 client "$ORIGIN6" "[$ORIGIN6]:7000" 48
lab_ip gw <<-END
	route replace 198.51.100.0/24 dev origin src 198.51.100.1
	route replace 2001:db8:3::/64 dev origin
END

lab_ip edge1 <<-END
	route replace 10.1.0.0/16 dev lan src 10.1.0.1 mtu lock $SMALL
	route replace 2001:db8:1::/64 dev lan mtu lock $SMALL
	route del 2001:db8:1::/64 dev lan proto kernel
END
adapts in/ipv4 origin "$SHARED" "$ORIGIN:7000" 28
adapts in/ipv6 origin "$SHARED6" "[$ORIGIN6]:7000" 48
check in/told4 "errors that quote the shared address, IPv4" "$(wire told4)" -ge 2
check in/told6 "errors that quote the shared address, IPv6" "$(wire told6)" -ge 2
check inner "packets that tell an inner address" "$(wire inner)" -eq 0
check drops "errors dropped" "$(($(drops icmp_error) + $(drops icmp_sum)))" -eq 0
exit "$TEST_FAILED"
