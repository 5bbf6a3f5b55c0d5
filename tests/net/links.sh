#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# What lies below IP. Interfaces without a link-layer header (tun, as of VPNs and tunnels), as the uplink and as a client's; VLANs, as the uplink and as a client's, and an
# uplink that carries tagged frames. Each time flows of clients and of sockets work, the guard stands, and TCP sends no segment that is too long for the way.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

TUN=$LAB_BUILD/tools/tun
TUN_MTU=1400

tun_start() { # NAME HOST IF HOST IF
	start_bg "$1" gw "$TUN" "/run/netns/slab-$2" "$3" "/run/netns/slab-$4" "$5"
	wait_out "$1" 10 ready
}

# Packets from SHARED on their way from the gateway to the origin: all from the slice, many, and none with another source.
watch_origin() {
	start_bg translated gw "$WIRE" --dev origin --out --source "$SHARED" --ports "$(edge_slice edge1)"
	wait_out translated 10 ready
	start_bg "untranslated" gw "$WIRE" --dev origin --out --source "$1"
	wait_out untranslated 10 ready
}

# The segment size that the origin may send on its connections: what came in the SYN, less 12 bytes of options.
origin_mss() {
	in_ns origin ss -tniH state established "( sport = :7000 )" | sed -n 's/.* mss:\([0-9]*\) .*/\1/p' | sort -n | tail -n 1
}

client_mss() { # BINDING
	in_ns client ss -tniH state established "( dport = :7000 and src $1 )" | sed -n 's/.* mss:\([0-9]*\) .*/\1/p' | sort -n | tail -n 1
}

# From one client: TCP, UDP and ICMP; from a socket with the shared address; and what the guard must not let out.
check_works() { # NAME CLIENT-ADDRESS
	local name=$1 from=$2 before

	watch_origin "$from"
	check_that "$name/ping" "no echo through the edge" in_ns client ping -I "$from" -c 3 -i 0.2 -W 5 "$ORIGIN"
	check_that "$name/tcp" "TCP through the edge" talk_once client --bind "$from:0" --timeout 10 "$ORIGIN:7000"
	check_that "$name/udp" "UDP through the edge" talk_once client --udp --bind "$from:0" --timeout 10 "$ORIGIN:7001"
	check_that "$name/socket" "a socket with the shared address" talk_once edge1 --bind "$SHARED:41000" --timeout 10 "$ORIGIN:7000"
	before=$(drops escape)
	in_ns edge1 "$RAW" --count 3 "$SHARED" "$ORIGIN" 17 'c350 1b59 000c 0000 61626364' >/dev/null
	check "$name/guard" "packets dropped as escape" $(($(drops escape) - before)) -eq 3
	stop_bg translated || true
	check "$name/outside" "packets outside the slice" "$(bg_field translated report outside)" -eq 0
	check "$name/checksums" "wrong checksums" "$(bg_field translated report l4_bad)" -eq 0
	check "$name/seen" "translated packets" "$(bg_field translated report packets)" -gt 10
	stop_bg untranslated || true
	check "$name/untranslated" "untranslated packets" "$(bg_field untranslated report packets)" -eq 0
}

# A connection that is there says what either side may send; then a download shows that nothing is too long for the way.
check_mss() { # NAME CLIENT-ADDRESS MTU
	local name=$1 from=$2 most=$(($3 - 40))

	start_bg conn client "$TALK" connect --bind "$from:0" --timeout 10 "$ORIGIN:7000"
	wait_out conn 10 '"connected":true'
	check "$name/mss-down" "segment size of the origin" "$(origin_mss)" -eq $((most - 12))
	check "$name/mss-up" "segment size of the client" "$(client_mss "$from")" -eq $((most - 12))
	stop_bg conn || true
}

# The uplink is a tun interface; the gateway's end of it is called tunnel.
uplink_tun() {
	in_ns edge1 ip link del wan 2>/dev/null || true
	tun_start uplink edge1 wan gw tunnel
	lab_ip edge1 <<-END
		link set wan mtu $TUN_MTU up
		addr add 192.0.2.33/32 dev wan
		route add default dev wan
	END
	lab_ip gw <<-END
		link set tunnel mtu $TUN_MTU up
		route add 192.0.2.33/32 dev tunnel
		route replace default dev tunnel table 101
	END
}

test_tun_uplink() { # NAME HOOKS [OPTION...]
	local name=$1 how=$2

	shift 2
	uplink_tun
	edge_conf edge1 'mss-clamp = "auto"' >/dev/null
	sluiced_start edge1 "$SLUICED" "$@"
	check_text "$name/doctor" "$(in_ns edge1 "$SLUICE" doctor -f "$(conf_file)" 2>&1)" 'uplink wan has no link-layer header'
	check_text "$name/status" "$(sluice_ctl edge1 -j status | jq -r '.uplinks[0] | .state + " " + .ingress')" "^up $how\$"
	check "$name/arp" "settings of ARP" "$(in_ns edge1 sysctl -n net.ipv4.conf.wan.arp_ignore net.ipv4.conf.wan.arp_announce | tr '\n' ' ')" = "0 0 "
	check_works "$name" 10.1.0.2
	check_mss "$name" 10.1.0.2 "$TUN_MTU"
}

# Deleted and made anew as Ethernet, and back, with the daemon running: each time the right programs are there.
test_kind_changes() {
	stop_bg uplink || true
	check_that change/gone "status does not show that it is gone" wait_for 10 uplink_state missing
	lab_ip gw <<-END
		link add edge1 type veth peer name wan netns slab-edge1
		link set edge1 master wan up
		route replace default via 192.0.2.11 table 101
	END
	lab_ip edge1 <<-END
		addr add 192.0.2.11/24 dev wan
		link set wan up
		route replace default via 192.0.2.1
	END
	check_that change/ethernet "status does not show that it is back" wait_for 10 uplink_state up
	check_works change/ethernet 10.1.0.2
	uplink_tun
	check_that change/tun "status does not show that it is back" wait_for 10 uplink_state up
	check_works change/tun 10.1.0.2
}

uplink_state() {
	[[ $(sluice_ctl edge1 -j status | jq -r '.uplinks[0].state') == "$1" ]]
}

# A client behind a tun interface.
test_tun_inner() {
	tun_start inner edge1 lant client nett
	lab_ip edge1 <<-END
		link set lant mtu $TUN_MTU up
		route add 10.1.64.0/24 dev lant
	END
	lab_ip client <<-END
		link set nett up
		addr add 10.1.64.2/32 dev nett
		rule add from 10.1.64.2 lookup 64
		route add default dev nett table 64
	END
	check_works tun-inner 10.1.64.2
	# The client knows nothing of the narrow link.
	check_mss tun-inner 10.1.64.2 "$TUN_MTU"
}

vlan_known() {
	in_ns edge1 ip link add link lan name lan.9 type vlan id 9 2>/dev/null && in_ns edge1 ip link del lan.9
}

# The uplink and the client's interface are VLANs.
test_vlan() {
	lab_ip edge1 <<-END
		link add link wan name wan.7 type vlan id 7
		link set wan.7 up
		addr add 192.0.2.65/26 dev wan.7
		route replace default via 192.0.2.66 dev wan.7
		link add link lan name lan.9 type vlan id 9
		link set lan.9 up
		addr add 10.1.65.1/24 dev lan.9
	END
	lab_ip gw <<-END
		link add link edge1 name edge1.7 type vlan id 7
		link set edge1.7 up
		addr add 192.0.2.66/26 dev edge1.7
		route replace default via 192.0.2.65 dev edge1.7 table 101
	END
	lab_ip client <<-END
		link add link net name net.9 type vlan id 9
		link set net.9 up
		addr add 10.1.65.2/24 dev net.9
		rule add from 10.1.65.2 lookup 65
		route add default via 10.1.65.1 dev net.9 table 65
	END
	edge_conf edge1 >/dev/null
	conf_edit 's/"wan"/"wan.7"/'
	sluiced_start edge1
	check_works vlan/inner 10.1.65.2
	check_works vlan/uplink 10.1.0.2
	sluiced_stop edge1
	# The trunk itself is the uplink: what it sends with tags is judged, too.
	conf_edit 's/"wan.7"/"wan"/'
	sluiced_start edge1
	check_works vlan/trunk 10.1.0.2
}

lab_begin
lab_up egress
echo_start
if vlan_known; then
	test_vlan
	sluiced_stop edge1
else
	echo "skip vlan: no VLAN devices here"
fi
test_tun_uplink tun '(tcx|clsact)'
test_kind_changes
test_tun_inner
sluiced_stop edge1
stop_bg uplink || true
stop_bg inner || true
test_tun_uplink clsact clsact --no-tcx
exit "$TEST_FAILED"
