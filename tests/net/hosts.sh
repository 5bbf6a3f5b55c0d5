#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# What may not reach the host, nor leave it: packets for listeners on wildcard addresses, for ports that nobody uses, and for slices of
# other machines; packets of sockets with the shared source and a port outside of the slice. Each is dropped, counted under
# its reason, and not answered: nothing of it is on the wire. The machine's own address is its own affair.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

# From the origin, as a stranger would.
origin_connects() { # ADDRESS:PORT [--udp]
	in_ns origin timeout 10 "$TALK" connect "${@:2}" --timeout 1 "$1"
}

origin_udp() { # PORT: one datagram, in HEX
	in_ns origin "$RAW" "$ORIGIN" "$SHARED" 17 "9c40 $1 000c 0000 61626364"
}

test_listeners() {
	# Ports in edge1's slice, and one that is not in any: 41000 = a028, 41001 = a029, 50000 = c350.
	start_bg wild edge1 "$TALK" echo 0.0.0.0:41000 0.0.0.0:50000
	wait_out wild 10 ready
	start_bg wild-udp edge1 "$TALK" echo --udp 0.0.0.0:41000 0.0.0.0:50000
	wait_out wild-udp 10 ready
	check_dropped listener/tcp unsolicited 1 origin_connects "$SHARED:41000"
	check_dropped listener/tcp-outside foreign 1 origin_connects "$SHARED:50000"
	check_dropped listener/udp unsolicited 1 origin_udp a028
	check_dropped listener/udp-outside foreign 1 origin_udp c350
	check listener/nobody-came "connections that reached the listener" "$(grep -c '"peer"' "$(bg_out wild)" || true)" -eq 0
	check_that listener/own-address "the listener is not reachable by the edge's own address" talk_once origin 192.0.2.11:41000
	check_that listener/own-address-udp "nor by UDP" talk_once origin --udp 192.0.2.11:41000
	# A port that nobody uses is as silent: no reset, no ICMP.
	check_dropped closed/tcp unsolicited 1 origin_connects "$SHARED:41001"
	check_dropped closed/udp unsolicited 1 origin_udp a029
	check_dropped closed/ping unsolicited 1 in_ns origin ping -c 1 -W 1 "$SHARED"
	# Bound to the shared address itself, it is reachable: that program has asked for it.
	start_bg bound edge1 "$TALK" echo "$SHARED:41002"
	wait_out bound 10 ready
	check_that listener/bound "a listener on the shared address and a port of the slice is not reachable" \
		talk_once origin "$SHARED:41002"
	start_bg bound-outside edge1 "$TALK" echo "$SHARED:50001"
	wait_out bound-outside 10 ready
	check_dropped listener/bound-outside foreign 1 origin_connects "$SHARED:50001"
}

test_foreign() {
	# A flow of a client lives at edge1 while packets for edge2's slice come astray.
	check_dropped foreign/udp foreign 20 in_ns origin "$RAW" --count 20 "$ORIGIN" "$SHARED" 17 '9c40 a800 000c 0000 61626364'
	check_dropped foreign/tcp foreign 1 origin_connects "$SHARED:43008"
}

# Sockets of the edge itself that would leave with the shared source.
test_escape() {
	check_dropped escape/tcp escape 1 in_ns edge1 timeout 10 "$TALK" connect --bind "$SHARED:50010" --timeout 1 "$ORIGIN:7000"
	check_dropped escape/udp escape 5 in_ns edge1 "$RAW" --count 5 "$SHARED" "$ORIGIN" 17 'c350 1b59 000c 0000 61626364'
	check_dropped escape/gre proto 5 in_ns edge1 "$RAW" --count 5 "$SHARED" "$ORIGIN" 47 '0000 0800 61626364'
	# ICMP has no port: only queries with an id of the slice. Id c350 is outside.
	check_dropped escape/ping escape 5 in_ns edge1 "$RAW" --count 5 "$SHARED" "$ORIGIN" 1 '0800 3caf c350 0001'
	check_dropped escape/unreachable escape 5 in_ns edge1 "$RAW" --count 5 "$SHARED" "$ORIGIN" 1 \
		'0301 0000 00000000 45000020 00000000 40110000 c633640a cb007107 1b58a028'
	# Its own address is its own affair.
	check_that escape/own-address "a socket with the edge's own address does not connect" talk_once edge1 "$ORIGIN:7000"
}

lab_begin
lab_up egress
edge_conf edge1 >/dev/null
# Whatever is for the shared address goes to edge1 here, foreign or not.
in_ns gw ip route replace "$SHARED" via 192.0.2.11
sluiced_start edge1
echo_start
test_listeners
test_foreign
test_escape
check_that new-flows "no new flows after all that" new_flows
exit "$TEST_FAILED"
