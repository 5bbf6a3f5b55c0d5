#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The daemon is killed with SIGKILL 100 times at random moments, under traffic. No connection may break, no byte go to the
# wrong one, no hold and no flow be lost; counters go on; not one packet may leave outside the slice.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"

KILLS=${KILLS:-100}
TCP=300
UDP=100

pool_field() {
	sluice_ctl edge1 -j pools | jq -r ".pools[0].$1"
}

lab_begin
lab_up egress
sluiced_start edge1
start_bg echo origin "$TALK" echo 198.51.100.10:7000
wait_out echo 10 ready
start_bg udp-echo origin "$TALK" echo --udp 198.51.100.10:7001
wait_out udp-echo 10 ready
start_bg wire gw "$WIRE" --dev edge1 --in --source "$SHARED" --ports "$(edge_slice edge1)"
wait_out wire 10 ready
start_bg tcp client "$MANY" --hold --traffic 20 "$TCP" 198.51.100.10:7000
wait_out tcp 20 '"event":"verify"'
start_bg udp client "$MANY" --udp --hold --traffic 20 "$UDP" 198.51.100.10:7001
wait_out udp 20 '"event":"verify"'

epoch=$(sluice_ctl edge1 -j slices | jq -r '.slices[0].epoch')
created=$(pool_field created.tcp)
packets=$(pool_field packets.out)
back=0
for ((i = 0; i < KILLS; i++)); do
	# Some moments fall into the start, some into the daemon's ordinary life.
	sleep "0.0$((RANDOM % 10))"
	sluiced_kill edge1
	if ((RANDOM % 2)); then
		sluiced_start edge1
		now=$(pool_field packets.out)
		((now >= packets)) || back=$((back + 1))
		packets=$now
	else
		start_bg sluiced-edge1 edge1 "$SLUICED" -d -f "$LAB_STATE/edge1/sluice.conf"
	fi
done
wait_for 10 sluice_ctl edge1 status
bg_send tcp stop
wait_out tcp 20 '"event":"traffic"'
bg_send udp stop
wait_out udp 20 '"event":"traffic"'

for what in broken wrong silent; do
	check "kill/tcp-$what" "$what connections" "$(bg_field tcp traffic $what)" -eq 0
done
for what in broken wrong lost; do
	check "kill/udp-$what" "$what messages" "$(bg_field udp traffic $what)" -eq 0
done
check kill/tcp-answered "messages answered" "$(bg_field tcp traffic answered)" -gt $((TCP * 50))
check kill/epoch "epoch of the slice" "$(sluice_ctl edge1 -j slices | jq -r '.slices[0].epoch')" -eq "$epoch"
check kill/counters "times that a counter went back" "$back" -eq 0
check kill/created "TCP flows created" "$(pool_field created.tcp)" -eq "$created"
check kill/flows-tcp "TCP flows" "$(sluice_ctl edge1 -j flows --proto tcp | jq '[.flows[] | select(.state == "established")] | length')" -eq "$TCP"
check kill/flows-udp "UDP mappings' sessions" "$(sluice_ctl edge1 -j flows --proto udp | jq '.flows | length')" -eq "$UDP"
stop_bg wire || true
check kill/outside "packets outside the slice" "$(bg_field wire report outside)" -eq 0
check kill/seen "packets on the wire" "$(bg_field wire report packets)" -gt $((TCP * 50))
exit "$TEST_FAILED"
