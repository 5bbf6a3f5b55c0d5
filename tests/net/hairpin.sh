#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Hairpinning: one client reaches another by its outer end, and a leased listener of the edge itself, and is seen there with its own outer end. TCP, UDP, and the ICMP errors
# about them. Everything that is set up for that goes with the daemon's last word.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

A=10.1.0.2
B=10.1.1.5
NOBODY=198.51.100.99

# Port of the mapping of B's port 5000: a packet to nobody makes it.
mapping_udp() {
	in_ns client "$RAW" "$B" "$NOBODY" 17 '1388 1b59 000c 0000 61626364' >/dev/null
	outer_port udp
}

mapping_tcp() {
	in_ns client "$RAW" "$B" "$NOBODY" 6 '1388 1b58 00000001 00000000 5002 ffff 0000 0000' >/dev/null
	outer_port tcp
}

outer_port() { # PROTO
	sluice_ctl edge1 -j flows --client "$B" --port 5000 --proto "$1" | jq '[.flows[].outer.sport] | unique | .[0]'
}

# SAID: what a connected socket of A says after one line.
talk_from_a() { # NAME ARG...
	local name=$1

	shift
	SAID=
	start_bg "$name" client "$TALK" connect --timeout 10 "$@"
	wait_out "$name" 10 '"connected":true' || return 0
	SAID=$(bg_ask "$name" 10 hello) || true
}

peer_of() { # NAME
	bg_field "$1" peer peer
}

in_slice() { # PORT
	[[ $1 -ge 40960 && $1 -le 43007 ]]
}

test_clients() {
	local port

	start_bg b-udp client "$TALK" echo --udp "$B:5000"
	wait_out b-udp 10 ready
	start_bg b-tcp client "$TALK" echo "$B:5000"
	wait_out b-tcp 10 ready
	port=$(mapping_udp)
	talk_from_a a-udp --udp --bind "$A:4000" "$SHARED:$port"
	check_text udp/answer "$SAID" '"ok":true'
	port=$(mapping_tcp)
	talk_from_a a-tcp --bind "$A:4000" "$SHARED:$port"
	check_text tcp/answer "$SAID" '"ok":true'
	check tcp/peer "address that B sees" "$(peer_of b-tcp)" = "$SHARED"
	check_that tcp/peer-port "not a port of the slice: $(bg_report b-tcp)" in_slice "$(bg_field b-tcp peer port)"
	check_text tcp/again "$(bg_ask a-tcp 10 'once more')" '"ok":true'
	stop_bg a-udp || true
	stop_bg a-tcp || true

	# Nobody listens any more: the error of B's machine gets back to A.
	stop_bg b-udp || true
	stop_bg b-tcp || true
	port=$(mapping_udp)
	talk_from_a a-udp --udp --bind "$A:4001" "$SHARED:$port"
	check_text udp/refused "$SAID" '"errno":"ECONNREFUSED"'
	stop_bg a-udp || true
	port=$(mapping_tcp)
	run_in_client --bind "$A:4001" --timeout 5 "$SHARED:$port"
	check_text tcp/refused "$SAID" '"errno":"ECONNREFUSED"'
}

run_in_client() {
	SAID=$(in_ns client timeout 20 "$TALK" connect "$@" </dev/null 2>&1) || true
}

# A leased listener, and unconnected UDP, of the edge.
test_sockets() {
	local port

	port=$(sluice_ctl edge1 -j acquire --pool default --proto tcp+udp --exclusive | jq '.leases[0].first')
	start_bg s-tcp edge1 "$TALK" echo "$SHARED:$port"
	wait_out s-tcp 10 ready
	start_bg s-udp edge1 "$TALK" echo --udp "$SHARED:$port"
	wait_out s-udp 10 ready
	talk_from_a a-tcp --bind "$A:4002" "$SHARED:$port"
	check_text socket-tcp "$SAID" '"ok":true'
	check socket-tcp/peer "address that the listener sees" "$(peer_of s-tcp)" = "$SHARED"
	check_that socket-tcp/peer-port "not a port of the slice" in_slice "$(bg_field s-tcp peer port)"
	talk_from_a a-udp --udp --bind "$A:4002" "$SHARED:$port"
	check_text socket-udp "$SAID" '"ok":true'
	check_text socket-tcp/again "$(bg_ask a-tcp 10 'once more')" '"ok":true'
	stop_bg a-tcp || true
	stop_bg a-udp || true
	# From outside it is as it was.
	check_that socket/outside "the listener is not reached from outside" talk_once origin "$SHARED:$port"
}

test_refused() {
	local before

	before=$(drops hairpin)
	run_in_client --bind "$A:4003" --timeout 1 "$SHARED:41999"
	check_text nobody/silent "$SAID" '"connected":false.*"errno":"(ETIMEDOUT|none)"'
	check nobody/counted "packets dropped as hairpin" "$(drops hairpin)" -gt "$before"
}

hooks_left() {
	find "$LAB_BPFFS/slab-edge1" -name '*-inner' -o -name lo-loop 2>/dev/null | wc -l
}

lab_begin
lab_up egress
edge_conf edge1 'tcp-mapping = "endpoint-independent"
		    filtering = "endpoint-independent"' >/dev/null
sluiced_start edge1
echo_start
check setting/on "net.ipv4.conf.lo.accept_local" "$(in_ns edge1 sysctl -n net.ipv4.conf.lo.accept_local)" -eq 1
test_clients
test_sockets
test_refused
check_that new-flows "no new flows after all that" new_flows
# A reload without it takes everything away, and so does the end.
conf_edit 's/^[[:space:]]*filtering = .*/hairpin = false/'
run_ctl reload
check off/reload "exit code: $SAID" "$RC" -eq 0
check off/hooks "hooks that are left" "$(hooks_left)" -eq 0
check off/setting "net.ipv4.conf.lo.accept_local" "$(in_ns edge1 sysctl -n net.ipv4.conf.lo.accept_local)" -eq 0
conf_edit 's/hairpin = false/hairpin = true/'
run_ctl reload
check on/hooks "hooks" "$(hooks_left)" -ge 2
sluiced_stop edge1
run_there "$SLUICED" --teardown -f "$(conf_file)"
check teardown/exit "exit code: $SAID" "$RC" -eq 0
check teardown/hooks "hooks that are left" "$(hooks_left)" -eq 0
check teardown/setting "net.ipv4.conf.lo.accept_local" "$(in_ns edge1 sysctl -n net.ipv4.conf.lo.accept_local)" -eq 0
exit "$TEST_FAILED"
