#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Reloading under traffic: slices and pools come and go and only their own flows notice, a change of mapping drains, a bad file
# changes nothing, and what needs a restart is refused.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

FIRST=40960-43007
SECOND=45056-47103

# All ports of the address may be edge1's here.
route_all_to_edge1() {
	in_ns gw ip route replace "$SHARED" via 192.0.2.11
}

slices_set() { # RANGE...
	local range list=

	for range; do
		list+="${list:+, }\"$SHARED:$range\""
	done
	conf_edit "s/slices .*/slices = { $list }/"
}

slices_held() {
	sluice_ctl edge1 -j slices | jq -r '[.slices[] | "\(.first)-\(.last)"] | join(" ")'
}

epoch_of() { # RANGE
	sluice_ctl edge1 -j slices | jq -r ".slices[] | select(.first == ${1%-*}) | .epoch"
}

pool_field() { # POOL FIELD
	sluice_ctl edge1 -j pools | jq -r ".pools[] | select(.name == \"$1\") | .$2"
}

check_reload() { # NAME
	run_ctl reload
	check "$1" "exit code of sluice reload: $SAID" "$RC" -eq 0
}

flows_in() { # RANGE
	sluice_ctl edge1 -j flows |
		jq "[.flows[] | select(.outer.sport >= ${1%-*} and .outer.sport <= ${1#*-})] | length"
}

# A connection of the client 10.1.1.N whose outer port lies in RANGE: which one it gets is the client's hash.
talk_in() { # NAME RANGE
	local n

	for n in {1..40}; do
		start_bg "$1" client "$TALK" connect --bind "10.1.1.$n:0" --timeout 5 "$ORIGIN:7000"
		wait_out "$1" 10 '"event":"connect"'
		[[ $(flows_of "10.1.1.$n" "$2") -eq 0 ]] || return 0
		stop_bg "$1" || true
	done
	lab_die "none of 40 clients got a port of $2"
}

flows_of() { # CLIENT RANGE
	sluice_ctl edge1 -j flows --client "$1" --proto tcp |
		jq "[.flows[] | select(.outer.sport >= ${2%-*} and .outer.sport <= ${2#*-} and .state == \"established\")] | length"
}

talks() { # NAME: one line there and back
	[[ $(bg_ask "$1" 10 "line $EPOCHREALTIME") == *'"ok":true'* ]]
}

test_slices() {
	local before

	before=$(epoch_of "$FIRST")
	slices_set "$FIRST" "$SECOND"
	check_reload slices/add
	check slices/add-held "slices" "$(slices_held)" = "$FIRST $SECOND"
	check slices/add-epoch "epoch of the slice that stays" "$(epoch_of "$FIRST")" -eq "$before"
	check slices/add-new-epoch "epoch of the new one" "$(epoch_of "$SECOND")" -gt "$before"
	check_traffic slices/add-traffic
	talk_in first "$FIRST"
	talk_in second "$SECOND"
	check_that slices/both "no connections through both slices" talks second

	# Its flows end with it; those of the other go on.
	slices_set "$FIRST"
	check_reload slices/remove
	check slices/remove-held "slices" "$(slices_held)" = "$FIRST"
	check slices/remove-flows "flows that are left of it" "$(flows_in "$SECOND")" -eq 0
	before=$(drops no_flow)
	watch_wire gone --source "$SHARED" --ports "$FIRST"
	bg_send second "a line that must not arrive"
	wait_for 10 drops_reach no_flow $((before + 1)) || true
	check slices/remove-counted "packets dropped as no_flow" "$(drops no_flow)" -gt "$before"
	check_that slices/remove-others "a flow of the slice that stays was hurt" talks first
	check_traffic slices/remove-traffic
	stop_bg gone || true
	check slices/remove-wire "packets from a slice that is given up" "$(bg_field gone report outside)" -eq 0
	stop_bg first || true
	stop_bg second KILL || true
	check_that slices/new-flows "no new flows" new_flows
}

test_pool() {
	in_ns client ip addr add 10.3.0.2/16 dev net
	in_ns edge1 ip addr add 10.3.0.1/16 dev lan
	watch_wire before --source 10.3.0.2
	in_ns client timeout 4 "$TALK" connect --bind 10.3.0.2:0 --timeout 2 "$ORIGIN:7000" </dev/null >/dev/null 2>&1 || true
	check pool/before "packets of clients of no pool on the wire (they are none of our business)" "$(wire_packets before)" -gt 0

	cat >>"$(conf_file)" <<-END
		pool "extra" {
		    addresses  = { "203.0.113.8" }
		    slice-size = 1024
		    slices     = { "203.0.113.8:20480-21503" }
		    clients    = { "10.3.0.0/16" }
		    udp-mapping = "overload"
		}
	END
	in_ns gw ip route replace 203.0.113.8 via 192.0.2.11
	check_reload pool/add
	check pool/listed "pools" "$(sluice_ctl edge1 -j pools | jq -r '[.pools[].name] | join(" ")')" = "default extra"
	check_text pool/route "$(in_ns edge1 ip route show table local)" '^local 203.0.113.8 dev lo proto 86'
	watch_wire extra --source 203.0.113.8 --ports 20480-21503
	check_that pool/tcp "the new pool's client does not connect" \
		in_ns client timeout 10 "$MANY" --from 10.3.0.2 50 "$ORIGIN:7000"
	check_that pool/udp "the new pool's client gets no UDP" \
		in_ns client timeout 10 "$MANY" --udp --from 10.3.0.2 50 "$ORIGIN:7001"
	check_that pool/ping "the new pool's client gets no echo" in_ns client ping -c 2 -i 0.2 -W 5 -I 10.3.0.2 "$ORIGIN"
	stop_bg extra || true
	check pool/wire-outside "packets outside its slice" "$(bg_field extra report outside)" -eq 0
	check pool/wire "packets on the wire" "$(bg_field extra report packets)" -gt 100
	check pool/counted "TCP flows created in the new pool" "$(pool_field extra created.tcp)" -eq 50
	check_traffic pool/traffic

	conf_edit '/^pool "extra"/,/^}/d'
	check_reload pool/remove
	check pool/remove-listed "pools" "$(sluice_ctl edge1 -j pools | jq -r '[.pools[].name] | join(" ")')" = "default"
	check_not pool/remove-route "its route stays" grep -q 203.0.113.8 <<<"$(in_ns edge1 ip route show table local)"
	check_traffic pool/remove-traffic
}

# From one mapping to the other and back, under traffic, TCP and UDP.
test_mapping() {
	local to

	start_bg udp client "$MANY" --udp --hold --traffic 20 20 "$ORIGIN:7001"
	wait_out udp 20 '"event":"verify"'
	for to in endpoint-independent overload; do
		conf_edit "/-mapping/d; s/clients .*/&\n    tcp-mapping = \"$to\"\n    udp-mapping = \"$to\"/"
		check_reload "mapping/$to"
		check "mapping/$to-tcp" "the policy" "$(pool_field default tcp_mapping)" = "$to"
		check "mapping/$to-udp" "the policy" "$(pool_field default udp_mapping)" = "$to"
		check_traffic "mapping/$to-old"
		check_that "mapping/$to-new" "new flows do not work" new_flows
	done
	conf_edit "/-mapping/d"
	check_reload mapping/default
	check_traffic mapping/default-old
	check_that mapping/default-new "new flows do not work" new_flows
	bg_send udp stop
	wait_out udp 20 '"event":"traffic"'
	check mapping/udp-lost "UDP messages that were lost" "$(bg_field udp traffic lost)" -eq 0
	check mapping/udp-wrong "UDP messages that went wrong" "$(bg_field udp traffic wrong)" -eq 0
	check mapping/udp-answered "UDP messages that were answered" "$(bg_field udp traffic answered)" -gt 100
	stop_bg udp || true
}

test_unleased() {
	local before

	start_bg sock edge1 "$TALK" connect --bind "$SHARED:41000" "$ORIGIN:7000"
	wait_out sock 10 '"connected":true'
	conf_edit 's/clients .*/&\n    unleased = "deny"/'
	check_reload unleased/deny
	watch_wire denied --source "$SHARED" --flows
	before=$(drops unleased)
	in_ns edge1 timeout 10 "$TALK" connect --bind "$SHARED:41001" --timeout 2 "$ORIGIN:7000" </dev/null >/dev/null 2>&1 || true
	bg_send sock "a line that must not leave"
	wait_for 10 drops_reach unleased $((before + 2)) || true
	check unleased/counted "packets dropped as unleased" "$(drops unleased)" -ge $((before + 2))
	check_traffic unleased/traffic
	stop_bg denied || true
	check unleased/wire "flows of sockets on the wire" \
		"$(grep -cE '"sport":4100[01],' "$(bg_out denied)" || true)" -eq 0
	check_text unleased/monitor-name "$(sluice_ctl edge1 -j pools)" '"unleased": ?"deny"'
	conf_edit '/unleased/d'
	check_reload unleased/report
	check_that unleased/back "the socket does not go on" wait_out sock 30 '"ok":true'
	stop_bg sock || true
}

uplinks_are() { # NAME:STATE:HOW...
	[[ $(sluice_ctl edge1 -j status | jq -r '[.uplinks[] | .name + ":" + .state + ":" + .ingress] | join(" ")') == "$*" ]]
}

test_uplinks() {
	local how before escaped

	how=$(sluice_ctl edge1 -j status | jq -r '.uplinks[0].ingress')
	lab_ip gw <<-END
		link add edge1b type veth peer name wan.2 netns slab-edge1
		link set edge1b master wan up
	END
	in_ns edge1 ip link set wan.2 up
	before=$(host_state)
	conf_edit 's/"wan"/"wan", "wan.2"/'
	check_reload uplinks/add
	check_that uplinks/added "the second uplink is not attached" uplinks_are "wan:up:$how" "wan.2:up:$how"
	check uplinks/setting "arp_ignore of the second uplink" "$(in_ns edge1 cat /proc/sys/net/ipv4/conf/wan.2/arp_ignore)" -eq 1
	check_traffic uplinks/traffic
	# It guards, too: what goes out there with the shared source and a port of nobody.
	in_ns edge1 ip route add 198.51.100.13/32 dev wan.2
	in_ns edge1 ip neigh replace 198.51.100.13 lladdr 02:00:00:00:00:13 dev wan.2
	start_bg second gw "$WIRE" --dev edge1b --in --source "$SHARED"
	wait_out second 10 ready
	escaped=$(drops escape)
	in_ns edge1 "$RAW" --count 5 "$SHARED" 198.51.100.13 17 'c350 1b59 000c 0000 61626364' >/dev/null || true
	check uplinks/guard "packets dropped as escape" $(($(drops escape) - escaped)) -eq 5
	check uplinks/guard-wire "packets on the wire" "$(wire_packets second)" -eq 0
	in_ns edge1 ip neigh del 198.51.100.13 dev wan.2
	in_ns edge1 ip route del 198.51.100.13/32 dev wan.2
	conf_edit 's/"wan", "wan.2"/"wan"/'
	check_reload uplinks/remove
	check_that uplinks/removed "the second uplink is still attached" uplinks_are "wan:up:$how"
	check_host uplinks/as-before "$before"
	in_ns edge1 ip link del wan.2
	check_traffic uplinks/remove-traffic
}

# A deadline comes and goes, without harm to what is there.
test_ttl() {
	conf_edit 's/^uplinks/fleet { ttl = 4 }\n&/'
	check_reload ttl/set
	check ttl/deadline "seconds until the deadline" "$(sluice_ctl edge1 -j slices | jq '.slices[0].expires_s')" -le 4
	check_traffic ttl/traffic
	conf_edit '/^fleet/d'
	check_reload ttl/unset
	check ttl/none "the deadline" "$(sluice_ctl edge1 -j slices | jq -r '.slices[0].expires_s')" = null
	check_traffic ttl/none-traffic
}

test_refused() {
	local before key

	before=$(host_state)
	cp "$(conf_file)" "$LAB_STATE/edge1/good.conf"
	slices_set 40960-43006
	run_ctl reload
	check bad/exit "exit code of sluice reload" "$RC" -eq 2
	check_text bad/text "$SAID" "sluice.conf:[0-9]+: .*40960-43006"
	check bad/held "slices" "$(slices_held)" = "$FIRST"
	check_that bad/new-flows "no new flows" new_flows
	kill -HUP "$(sluiced_pid edge1)"
	check_that bad/hup "SIGHUP with a bad file is not in the log" \
		wait_for 10 grep -qE 'sluice.conf:[0-9]+: .*40960-43006' "$(bg_err sluiced-edge1)"
	check_that bad/hup-answers "the daemon does not answer" sluice_ctl edge1 status
	cp "$LAB_STATE/edge1/good.conf" "$(conf_file)"
	check_reload bad/mended

	for key in machine state-dir control bpffs; do
		conf_edit "s|^$key .*|$key = \"/run/elsewhere\"|"
		[[ $key != machine ]] || conf_edit 's/^machine .*/machine = "edge9"/'
		run_ctl reload
		check "restart/$key" "exit code of sluice reload" "$RC" -eq 2
		check_text "restart/$key-text" "$SAID" "$key .*cannot change while the daemon runs"
		cp "$LAB_STATE/edge1/good.conf" "$(conf_file)"
	done
	conf_edit 's/"wan"/"wan", "wan9"/'
	run_ctl reload
	check uplink/exit "exit code of sluice reload" "$RC" -eq 2
	check_text uplink/text "$SAID" '"wan9" does not exist'
	rm "$(conf_file)"
	run_ctl reload
	check no-file/exit "exit code of sluice reload" "$RC" -eq 2
	check_text no-file/text "$SAID" 'sluice.conf: No such file'
	cp "$LAB_STATE/edge1/good.conf" "$(conf_file)"
	check_host refused/changes-nothing "$before"
	check_traffic refused/traffic
}

lab_begin
lab_up egress
route_all_to_edge1
edge_conf edge1 >/dev/null
sluiced_start edge1
echo_start
traffic_start 20
test_slices
test_pool
test_mapping
test_unleased
test_uplinks
test_ttl
test_refused
exit "$TEST_FAILED"
