#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Four programs and NAT on one slice at once, TCP and UDP, each verifying echoes of its own data, while leases come and go and the daemon is killed now and then. Nothing goes
# to the wrong one, nothing escapes, and NAT is not refused a port while one is free. MIXED_SECONDS: how long (default 20).

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

SECONDS_MIXED=${MIXED_SECONDS:-20}
SOCKET=$LAB_STATE/edge1/control.sock

exec_bg() { # NAME COUNT MANY-ARG...
	local name=$1 count=$2

	shift 2
	start_bg "$name" edge1 "$SLUICE" --socket "$SOCKET" exec --pool default --count "$count" --name "$name" -- "$MANY" --hold --traffic 50 "$@"
	wait_out "$name" 30 '"event":"verify"'
}

verified() { # NAME
	stop_bg "$1" || true
	check "mixed/$1" "$(bg_report "$1") lost, wrong, broken, silent" \
		"$(bg_field "$1" traffic lost)$(bg_field "$1" traffic wrong)$(bg_field "$1" traffic broken)$(bg_field "$1" traffic silent)" = 0000
	check "mixed/$1-answered" "messages answered" "$(bg_field "$1" traffic answered)" -gt 100
}

lab_begin
lab_up egress
edge_conf edge1 'unleased = "report"' 'leases { cool-down = 1 }' >/dev/null
sluiced_start edge1
echo_start
# A tuple of a closed connection rests for two minutes: so that NAT does not run out of ports, its short connections go to many places.
start_bg echo2 origin "$TALK" echo 198.51.100.11:7000 $(seq -f '198.51.100.12:%.0f' 7100 7139)
wait_out echo2 10 ready
start_bg wire gw "$WIRE" --dev edge1 --in --source "$SHARED" --ports "$(edge_slice edge1)"
wait_out wire 10 ready

exec_bg tcp-a 256 200 "$ORIGIN:7000"
exec_bg tcp-b 64 60 198.51.100.11:7000
exec_bg udp-c 128 --udp 100 "$ORIGIN:7001"
port=$(sluice_ctl edge1 -j acquire --pool default --proto udp --exclusive --name server | jq '.leases[0].first')
start_bg server edge1 "$TALK" echo --udp "$SHARED:$port"
wait_out server 10 ready
start_bg udp-d origin "$MANY" --udp --hold --traffic 50 50 "$SHARED:$port"
wait_out udp-d 30 '"event":"verify"'
start_bg nat-tcp client "$MANY" --hold --traffic 50 --from 10.1.1.1-10.1.1.100 400 "$ORIGIN:7000"
wait_out nat-tcp 30 '"event":"verify"'
start_bg nat-udp client "$MANY" --udp --hold --traffic 50 200 "$ORIGIN:7001"
wait_out nat-udp 30 '"event":"verify"'

end=$(($(boot_ms) + SECONDS_MIXED * 1000))
rounds=0
refused=0
while [[ $(boot_ms) -lt $end ]]; do
	rounds=$((rounds + 1))
	id=$(sluice_ctl edge1 -j acquire --pool default --proto tcp+udp --count 2 --leases $((rounds % 4 + 1)) | jq -r '[.leases[].id] | join(" ")') || refused=$((refused + 1))
	in_ns client timeout 20 "$MANY" --timeout 10 10 "198.51.100.12:$((7100 + rounds % 40))" >/dev/null 2>&1 || refused=$((refused + 1))
	# shellcheck disable=SC2086 # several
	sluice_ctl edge1 release $id >/dev/null || refused=$((refused + 1))
	if ((rounds % 10 == 0)); then
		sluiced_kill edge1
		sluiced_start edge1
	fi
done
check mixed/rounds "rounds of acquire, NAT and release" "$rounds" -ge 3
check mixed/refused "refused allocations" "$refused" -eq 0
check mixed/no-port "packets dropped as no_port" "$(drops no_port)" -eq 0
for name in tcp-a tcp-b udp-c udp-d nat-tcp nat-udp; do
	verified "$name"
done
stop_bg wire || true
check mixed/escape "packets outside the slice" "$(bg_field wire report outside)" -eq 0
check mixed/seen "packets that the recorder missed" "$(bg_field wire report lost)" -eq 0
exit "$TEST_FAILED"
