#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Holds with a time to live, and a daemon that is stopped (SIGSTOP): after the deadline not one packet may leave with a shared
# source, neither of flows nor of sockets; when the daemon goes on, so does the traffic.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"

TTL=3

fenced() {
	sluice_ctl edge1 -j drops | jq '.drops[] | select(.reason == "fenced") | .packets'
}

lab_begin
lab_up egress
edge_conf edge1 "" "fleet { backend = \"local\" ttl = $TTL }" >/dev/null
sluiced_start edge1
start_bg echo origin "$TALK" echo 198.51.100.10:7000
wait_out echo 10 ready
start_bg tcp client "$MANY" --hold --traffic 20 100 198.51.100.10:7000
wait_out tcp 20 '"event":"verify"'
start_bg sock edge1 "$TALK" connect --bind "$SHARED:41000" 198.51.100.10:7000
wait_out sock 10 '"connected":true'

# While the daemon runs, the deadline moves on: longer than one time to live.
start=$(boot_ms)
wait_for 20 boot_past $((start + TTL * 1000 + 1500))
check deadline/renewed "packets fenced while the daemon runs" "$(fenced)" -eq 0

kill -STOP "$(sluiced_pid edge1)"
stopped=$(boot_ms)
# The deadline was set before the stop, so it has passed by now:
wait_for 20 boot_past $((stopped + TTL * 1000))
start_bg wire gw "$WIRE" --dev edge1 --in --source "$SHARED"
wait_out wire 10 ready
# New flows, old flows and sockets all try.
in_ns client timeout 2 "$MANY" --timeout 1 20 198.51.100.10:7000 >/dev/null 2>&1 || true
in_ns edge1 timeout 2 "$TALK" connect --timeout 1 --bind "$SHARED:41001" 198.51.100.10:7000 >/dev/null 2>&1 || true
stop_bg wire || true
check deadline/silent "packets after the deadline" "$(bg_field wire report packets)" -eq 0

kill -CONT "$(sluiced_pid edge1)"
more() {
	in_ns client timeout 2 "$MANY" --timeout 1 20 198.51.100.10:7000
}
wait_for 10 more || true
check deadline/fenced "packets fenced while it was stopped" "$(fenced)" -gt 20
if more >/dev/null; then
	test_ok deadline/back
else
	test_fail deadline/back "no traffic after the daemon went on"
fi
exit "$TEST_FAILED"
