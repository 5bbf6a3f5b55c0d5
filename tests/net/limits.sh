#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# What one client may have, on real connections: ports, flows, flows a second. What goes beyond is refused, counted, told to the client by ICMP, and
# told in the monitor; the flows that are there are not hurt, and what has ended makes room.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

# COUNT flows of the client are asked for, in a second run more: none of these is made.
check_limit() { # NAME REASON COUNT UDP-OR-NOTHING
	local name=$1 reason=$2 count=$3 udp=${4:+--udp} port=7000
	local before

	[[ -z $udp ]] || port=7010
	before=$(drops "$reason")
	# shellcheck disable=SC2086
	start_bg many client "$MANY" $udp --hold --timeout 10 "$count" "$ORIGIN:$port"
	wait_out many 30 '"event":"verify"'
	check "$name/within" "flows of $count" "$(bg_field many open established)" -eq "$count"
	check "$name/none-refused" "packets dropped as $reason" "$(drops "$reason")" -eq "$before"
	# shellcheck disable=SC2086
	start_bg more client "$MANY" $udp --timeout 2 3 "$ORIGIN:$port"
	wait_out more 20 '"event":"open"'
	check "$name/beyond" "flows beyond the limit" "$(bg_field more open established)" -eq 0
	check "$name/icmp" "reports of EHOSTUNREACH" "$(grep -c EHOSTUNREACH "$(bg_out more)" || true)" -ge 1
	check "$name/counted" "packets dropped as $reason" "$(drops "$reason")" -ge $((before + 3))
	wait_out monitor 10 "\"reason\": ?\"$reason\"" || true
	check "$name/event" "events in sluice monitor" \
		"$(grep -cE "\"reason\": ?\"$reason\"" "$(bg_out monitor)" || true)" -ge 1
	bg_send many verify
	wait_out many 20 '"event":"verify"'
	check "$name/unhurt" "flows that still work" "$(bg_field many verify ok)" -eq "$count"
	stop_bg many || true
	stop_bg more || true
}

# Flows of the pool that the daemon's sweep has found alive.
live() { # PROTO
	sluice_ctl edge1 -j pools | jq ".pools[0].flows.$1"
}

none_live() { # PROTO
	[[ $(live "$1") -eq 0 ]]
}

lab_begin
lab_up egress
# Short times, so that what has ended makes room while the test waits.
edge_conf edge1 'tcp-mapping = "endpoint-independent" short-timers = true tcp-opening = 2 tcp-closing = 2 tcp-time-wait = 2' \
	'' >/dev/null
conf_edit 's/short-timers = true/& tcp-reset = 2 udp-timeout = 3 ports-per-client = 20/'
sluiced_start edge1
start_bg echo origin "$TALK" echo "$ORIGIN:7000"
wait_out echo 10 ready
start_bg echo-udp origin "$TALK" echo --udp "$ORIGIN:7010"
wait_out echo-udp 10 ready
start_bg monitor edge1 "$SLUICE" --socket "$LAB_STATE/edge1/control.sock" -j monitor
wait_out monitor 10 subscribed

check_limit ports/tcp client_ports 20
check_limit ports/udp client_ports 20 udp
wait_for 20 none_live tcp || true
check_that ports/room "no new flow after the old ones have ended" in_ns client timeout 10 "$MANY" --timeout 4 5 "$ORIGIN:7000"

conf_edit 's/ports-per-client = 20/states-per-client = 10/'
check_that reload/states "the reload fails" sluice_ctl edge1 reload
wait_for 20 none_live tcp || true
wait_for 20 none_live udp || true
check_limit states client_states 10

wait_for 20 none_live tcp || true
conf_edit 's/states-per-client = 10/flows-per-second = 1 flows-burst = 12/'
check_that reload/rate "the reload fails" sluice_ctl edge1 reload
start_bg burst client "$MANY" --hold --timeout 1 60 "$ORIGIN:7000"
wait_out burst 60 '"event":"open"'
check rate/burst "flows of 60 at once, of a burst of 12" "$(bg_field burst open established)" -lt 40
check rate/some "flows of a burst of 12" "$(bg_field burst open established)" -ge 12
check rate/counted "packets dropped as client_rate" "$(drops client_rate)" -ge 1
stop_bg burst || true

conf_edit 's/flows-per-second = 1 flows-burst = 12//'
check_that reload/none "the reload fails" sluice_ctl edge1 reload
check_that none "flows are refused without limits" in_ns client timeout 10 "$MANY" --timeout 4 40 "$ORIGIN:7000"
lab_down
exit "$TEST_FAILED"
