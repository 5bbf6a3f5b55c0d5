#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The shared address from outside, every port of it, with programs that listen on the wildcard inside and outside the slice: nothing answers
# but what was leased as a listener. Scanned by nmap where it is installed, else by our own tool; counted on the wire either way.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

INSIDE=41000  # in edge1's slice
OUTSIDE=2222

lease_port() { # PROTO
	sluice_ctl edge1 -j acquire --pool default --proto "$1" --exclusive --name service | jq '.leases[0].first'
}

lab_begin
lab_up egress
# Every port of the address comes to edge1: the scan is for it alone.
ip -n slab-gw rule add to "$SHARED" lookup 101 pref 90
edge_conf edge1 'unleased = "report"' >/dev/null
sluiced_start edge1

for port in $INSIDE $OUTSIDE; do
	start_bg "tcp-$port" edge1 "$TALK" echo "0.0.0.0:$port"
	start_bg "udp-$port" edge1 "$TALK" echo --udp "0.0.0.0:$port"
	wait_out "tcp-$port" 10 ready
	wait_out "udp-$port" 10 ready
done
tcp=$(lease_port tcp)
udp=$(lease_port udp)
start_bg service-tcp edge1 "$TALK" echo "$SHARED:$tcp"
start_bg service-udp edge1 "$TALK" echo --udp "$SHARED:$udp"
wait_out service-tcp 10 ready
wait_out service-udp 10 ready

check_that reach/tcp "the leased listener is not reached" in_ns origin timeout 10 "$MANY" --timeout 5 1 "$SHARED:$tcp"
check_that reach/udp "the leased UDP port is not reached" in_ns origin timeout 10 "$MANY" --udp --timeout 5 1 "$SHARED:$udp"
check_not reach/inside "a wildcard listener in the slice is reached" in_ns origin timeout 5 "$MANY" --timeout 2 1 "$SHARED:$INSIDE"
check_not reach/outside "a wildcard listener outside is reached" in_ns origin timeout 5 "$MANY" --timeout 2 1 "$SHARED:$OUTSIDE"
# From the inner side as well.
check_not reach/inner "a wildcard listener is reached from a client" in_ns client timeout 5 "$MANY" --timeout 2 1 "$SHARED:$INSIDE"
check_not reach/inner-outside "a wildcard listener outside is reached from a client" in_ns client timeout 5 "$MANY" --timeout 2 1 "$SHARED:$OUTSIDE"
check_that reach/inner-leased "the leased listener is not reached from a client" in_ns client timeout 10 "$MANY" --timeout 5 1 "$SHARED:$tcp"

scan() { # NAME NMAP-OPTION...
	local name=$1 report=$LAB_STATE/nmap.$1

	shift
	in_ns origin timeout 280 nmap -n -Pn --max-retries 0 --min-rate 8000 -oG "$report" "$@" "$SHARED" >/dev/null
	grep -oE '[0-9]+/(open|closed|unfiltered)/(tcp|udp)' "$report" | sort -u | tr '\n' ' '
}

check nmap/syn "ports that are not filtered" "$(scan syn -sS -p 1-65535)" = "$tcp/open/tcp "
check nmap/ack "ports that answer an ACK" "$(scan ack -sA -p 1-65535)" = ""
check nmap/fin "ports that answer a FIN" "$(scan fin -sF -p 40960-43007,$OUTSIDE)" = ""
check nmap/udp "UDP ports that answer" "$(scan udp -sU -p "$((udp - 200))-$((udp + 200)),$INSIDE,$OUTSIDE,53,123,161,33434")" = "$udp/open/udp "
exit "$TEST_FAILED"
