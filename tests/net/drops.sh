#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Forwarded packets that may not pass: such as claim the shared source, and protocols that are not translated. Each is
# dropped, counted under its reason, and not answered: nothing of it is on the wire. IPv6 passes untouched.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

# The client says that it is the shared address. The kernel drops such packets itself, as they come from an address of its own...
spoof() {
	in_ns client "$RAW" --count 10 "$SHARED" "$ORIGIN" 17 "$1 1b59 000c 0000 61626364"
}

test_spoof() {
	watch_wire spoof --source "$SHARED"
	spoof a028 >/dev/null
	in_ns client ping -c 1 -W 5 "$ORIGIN" >/dev/null
	check spoof/kernel "spoofed packets on the wire" "$(($(wire_packets spoof) - 1))" -eq 0
	# ... unless it is told to let them in.
	lab_sysctl edge1 net.ipv4.conf.lan.accept_local=1
	check_dropped spoof/in-slice spoof 10 spoof a028
	check_dropped spoof/outside spoof 10 spoof c350
	lab_sysctl edge1 net.ipv4.conf.lan.accept_local=0
}

test_untranslatable() {
	watch_wire inner --source 10.1.0.2
	check_dropped fragment/in unsolicited 1 in_ns origin ping -c 1 -W 1 -s 3000 "$SHARED"
	# 47: GRE; 132: SCTP.
	check_dropped proto/gre proto 5 in_ns client "$RAW" --count 5 10.1.0.2 "$ORIGIN" 47 '0000 0800 61626364'
	check_dropped proto/sctp proto 5 in_ns client "$RAW" --count 5 10.1.0.2 "$ORIGIN" 132 'a028 1b58 00000000 00000000'
	check_dropped proto/in proto 5 in_ns origin "$RAW" --count 5 "$ORIGIN" "$SHARED" 47 '0000 0800 61626364'
	# A timestamp request is no echo; a TCP header that says it is shorter than it can be.
	check_dropped icmp-type/out icmp_type 5 in_ns client "$RAW" --count 5 10.1.0.2 "$ORIGIN" 1 \
		'0d00 0000 0001 0001 00000000 00000000 00000000'
	check_dropped malformed/out malformed 5 in_ns client "$RAW" --count 5 10.1.0.2 "$ORIGIN" 6 \
		'a028 1b58 00000001 00000000 1002 ffff 0000 0000'
	# A segment that opens nothing: ACK only.
	check_dropped no-flow/out no_flow 5 in_ns client "$RAW" --count 5 10.1.0.2 "$ORIGIN" 6 \
		'a028 1b58 00000001 00000001 5010 ffff 0000 0000'
	check inner/wire "untranslated packets on the wire" "$(wire_packets inner)" -eq 0
}

test_ipv6() {
	local host before

	for host in client edge1 gw origin; do
		lab_sysctl "$host" net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.all.forwarding=1
	done
	in_ns client ip addr add 2001:db8:1::2/64 dev net nodad
	in_ns edge1 ip addr add 2001:db8:1::1/64 dev lan nodad
	in_ns edge1 ip addr add 2001:db8:2::11/64 dev wan nodad
	in_ns gw ip addr add 2001:db8:2::1/64 dev wan nodad
	in_ns gw ip addr add 2001:db8:3::1/64 dev origin nodad
	in_ns origin ip addr add 2001:db8:3::10/64 dev net nodad
	in_ns client ip route add default via 2001:db8:1::1
	in_ns edge1 ip route add default via 2001:db8:2::1
	in_ns gw ip route add 2001:db8:1::/64 via 2001:db8:2::11
	in_ns origin ip route add default via 2001:db8:3::1
	before=$(sluice_ctl edge1 -j drops | jq '[.drops[].packets] | add')
	start_bg echo6 origin "$TALK" echo '[2001:db8:3::10]:7000'
	wait_out echo6 10 ready
	start_bg echo6-udp origin "$TALK" echo --udp '[2001:db8:3::10]:7000'
	wait_out echo6-udp 10 ready
	check_that ipv6/ping "no echo through the edge" in_ns client ping -6 -c 3 -i 0.2 -W 5 2001:db8:3::10
	check_that ipv6/large "no echo in fragments through the edge" in_ns client ping -6 -c 2 -i 0.2 -W 5 -s 3000 2001:db8:3::10
	check_that ipv6/udp "UDP through the edge" in_ns client timeout 20 "$MANY" --udp 50 '[2001:db8:3::10]:7000'
	check_that ipv6/tcp "TCP through the edge" in_ns client timeout 20 "$MANY" 50 '[2001:db8:3::10]:7000'
	check_that ipv6/socket "TCP of the edge itself" talk_once edge1 '[2001:db8:3::10]:7000'
	check_text ipv6/untouched "$(bg_report echo6)" '"peer":"2001:db8:2::11"'
	check ipv6/source "connections that came from another address than the client's or the edge's" \
		"$(grep '"event":"peer"' "$(bg_out echo6)" | grep -cvE '"2001:db8:(1::2|2::11)"' || true)" -eq 0
	check ipv6/drops "packets dropped" $(($(sluice_ctl edge1 -j drops | jq '[.drops[].packets] | add') - before)) -eq 0
}

lab_begin
lab_up egress
edge_conf edge1 >/dev/null
# Whatever is for the shared address goes to edge1 here, foreign or not.
in_ns gw ip route replace "$SHARED" via 192.0.2.11
sluiced_start edge1
echo_start
test_spoof
test_untranslatable
test_ipv6
check_that new-flows "no new flows after all that" new_flows
exit "$TEST_FAILED"
