#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A client's TCP, UDP and ping by IPv6, through a shared IPv6 address: with the network cards' offloads on (whole segments of 64 KB, checksums still to be filled in) and
# off. The origin sees the shared address with a port of the slice, and nothing else; it gets what was sent, and so does the client.
#
# The lab's IPv6: client 2001:db8:1::2, edge1 2001:db8:1::1 and 2001:db8:2::11, the gateway 2001:db8:2::1 and 2001:db8:3::1, the origin 2001:db8:3::10. The
# gateway has a route for the shared address alone, none for the client's network.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

SHARED6=2001:db8:5::7
ORIGIN6=2001:db8:3::10
BYTES=5000000

ipv6_up() {
	local host

	for host in client edge1 gw origin; do
		lab_sysctl "$host" net.ipv6.conf.all.disable_ipv6=0
	done
	lab_sysctl gw net.ipv6.conf.all.forwarding=1
	lab_ip client <<-END
		addr add 2001:db8:1::2/64 dev net nodad
		route add default via 2001:db8:1::1
	END
	lab_ip edge1 <<-END
		addr add 2001:db8:1::1/64 dev lan nodad
		addr add 2001:db8:2::11/64 dev wan nodad
		route add default via 2001:db8:2::1
	END
	lab_ip gw <<-END
		addr add 2001:db8:2::1/64 dev wan nodad
		addr add 2001:db8:3::1/64 dev origin nodad
		route add $SHARED6 via 2001:db8:2::11
	END
	lab_ip origin <<-END
		addr add $ORIGIN6/64 dev net nodad
		route add default via 2001:db8:3::1
	END
	wait_for 10 in_ns edge1 ping -6 -q -c 1 -W 0.2 "$ORIGIN6" || lab_die "edge1 does not reach the origin by IPv6"
}

# What the origin gets, by what it should not be.
wire6_start() {
	in_ns origin nft -f - <<-END
		table ip6 slab_wire {
			counter shared { }
			counter outside { }
			counter inner { }
			chain pre {
				type filter hook prerouting priority raw
				ip6 saddr $SHARED6 counter name shared
				ip6 saddr $SHARED6 meta l4proto { tcp, udp } th sport != $(edge_slice edge1) counter name outside
				ip6 saddr 2001:db8:1::/64 counter name inner
			}
		}
	END
}

wire6() { # COUNTER
	in_ns origin nft -j list counter ip6 slab_wire "$1" | jq '[.. | .counter? // empty | .packets] | add'
}

flows6() { # PROTO
	sluice_ctl edge1 -j flows --proto "$1" | jq '[.flows[] | select(.inner.src == "2001:db8:1::2")] | length'
}

traffic6() { # NAME
	check_that "$1/ping" "no echo" in_ns client ping -6 -c 3 -i 0.2 -W 5 "$ORIGIN6"
	check_that "$1/tcp" "connections" in_ns client timeout 20 "$MANY" 50 "[$ORIGIN6]:7000"
	check_that "$1/udp" "datagrams" in_ns client timeout 20 "$MANY" --udp 50 "[$ORIGIN6]:7001"
	in_ns client curl -gsS --max-time 20 "http://[$ORIGIN6]:8080/bytes/$BYTES/7" -o "$LAB_STATE/files/got" || true
	check "$1/bulk" "sum of what the client got" "$(sha256sum <"$LAB_STATE/files/got")" = "$("$HTTP" bytes "$BYTES" 7 | sha256sum)"
}

lab_begin
lab_require curl ethtool
lab_up egress
ipv6_up
mkdir -p "$LAB_STATE/files"
edge_conf edge1 "addresses += \"$SHARED6\" slices += \"[$SHARED6]:$(edge_slice edge1)\" clients += \"2001:db8:1::/64\"" >/dev/null
before=$(in_ns edge1 sysctl -n net.ipv6.conf.all.forwarding)
sluiced_start edge1
check forwarding/set "net.ipv6.conf.all.forwarding" "$(in_ns edge1 sysctl -n net.ipv6.conf.all.forwarding)" -eq 1
start_bg echo6 origin "$TALK" echo "[$ORIGIN6]:7000"
wait_out echo6 10 ready
start_bg echo6-udp origin "$TALK" echo --udp "[$ORIGIN6]:7001"
wait_out echo6-udp 10 ready
start_bg http6 origin "$HTTP" serve "[$ORIGIN6]:8080"
wait_out http6 10 ready
wire6_start
traffic6 offloads
for pair in client:net edge1:lan edge1:wan origin:net; do
	offload "${pair%%:*}" "${pair##*:}" off
done
traffic6 plain
check source/shared "packets with the shared source" "$(wire6 shared)" -gt 300
check source/outside "packets with a port outside the slice" "$(wire6 outside)" -eq 0
check source/inner "packets with the client's own address" "$(wire6 inner)" -eq 0
check flows/tcp "TCP flows listed" "$(flows6 tcp)" -gt 50
check flows/udp "UDP flows listed" "$(flows6 udp)" -gt 50
check flows/icmp "echo flows listed" "$(flows6 icmp)" -gt 0
# Nothing else of the edge is there for the world.
check_not silence/tcp "a port of the shared address answers" in_ns origin timeout 3 bash -c "exec 3<>/dev/tcp/$SHARED6/41000"
sluiced_stop edge1
check_that teardown "--teardown failed" in_ns edge1 "$SLUICED" --teardown -f "$LAB_STATE/edge1/sluice.conf"
check forwarding/back "net.ipv6.conf.all.forwarding" "$(in_ns edge1 sysctl -n net.ipv6.conf.all.forwarding)" -eq "$before"
