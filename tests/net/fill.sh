#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A slice is filled to its last port towards one destination, with real connections, in each mapping. Nothing may fail before the
# last port; the next flow is refused, counted, and told to the client by ICMP; no old flow is hurt.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"

PORTS=2048

drops() { # REASON
	sluice_ctl edge1 -j drops | jq ".drops[] | select(.reason == \"$1\") | .packets"
}

# One case: a command must succeed.
check_that() { # NAME WHY COMMAND...
	local name=$1 why=$2

	shift 2
	if "$@" >/dev/null 2>&1; then
		test_ok "$name"
	else
		test_fail "$name" "$why"
	fi
}

used() { # PROTO
	sluice_ctl edge1 -j slices | jq ".slices[0].used.$1"
}

all_used() { # PROTO
	[[ $(used "$1") -eq $PORTS ]]
}

# A field of a row of "sluice exhaustion".
exhaustion() { # WHAT PROTO FIELD
	sluice_ctl edge1 -j exhaustion |
		jq -r "[.exhaustion[] | select(.what == \"$1\" and .proto == \"$2\")][0].$3"
}

told() { # KIND PROTO
	grep -E '"event": ?"exhaustion"' "$(bg_out monitor)" | grep -q "\"$1: pool .*$2"
}

# Pool, slice and destination are full, and it was told.
check_exhaustion() { # NAME PROTO
	local destination="198.51.100.10 7000 $PORTS"

	[[ $1 = *eim ]] && destination="null null $PORTS"
	wait_for 10 told refusing "$2" || true
	check_that "fill/$1/told" "no event that the pool refuses" told refusing "$2"
	check_that "fill/$1/told-before" "no event that the pool came near" told near "$2"
	check "fill/$1/pool-full" "ports, and seconds until full" \
		"$(exhaustion pool "$2" used) $(exhaustion pool "$2" full_s)" = "$PORTS 0"
	check "fill/$1/slice-full" "ports, and seconds until full" \
		"$(exhaustion slice "$2" used) $(exhaustion slice "$2" full_s)" = "$PORTS 0"
	check "fill/$1/destination" "the hottest destination, and its flows" \
		"$(exhaustion destination "$2" destination) $(exhaustion destination "$2" port) $(exhaustion destination "$2" used)" = "$destination"
	check "fill/$1/destination-refused" "flows that it was refused" "$(exhaustion destination "$2" refused)" -ge 3
	check "fill/$1/pool-refused" "flows that the pool refused" "$(exhaustion pool "$2" refused)" -ge 3
}

fill() { # NAME PROTO POOL-LINES
	local name=$1 proto=$2 udp=() refused before

	[[ $proto = udp ]] && udp=(--udp)
	lab_up egress
	edge_conf edge1 "$3" >/dev/null
	sluiced_start edge1
	start_bg echo origin "$TALK" echo "${udp[@]}" 198.51.100.10:7000
	wait_out echo 10 ready
	start_bg wire gw "$WIRE" --dev edge1 --in --source "$SHARED" --ports "$(edge_slice edge1)"
	wait_out wire 10 ready
	start_bg monitor edge1 "$SLUICE" --socket "$LAB_STATE/edge1/control.sock" -j monitor
	wait_out monitor 10 subscribed

	start_bg many client "$MANY" "${udp[@]}" --hold --timeout 20 "$PORTS" 198.51.100.10:7000
	wait_out many 60 '"event":"verify"'
	check "fill/$name/established" "flows of $PORTS" "$(bg_field many open established)" -eq "$PORTS"
	check "fill/$name/none-refused" "refused before the last port" "$(drops no_port)" -eq 0
	wait_for 10 all_used "$proto" || true
	check "fill/$name/used" "ports in use" "$(used "$proto")" -eq "$PORTS"

	before=$(date +%s%N)
	start_bg more client "$MANY" "${udp[@]}" --timeout 5 3 198.51.100.10:7000
	wait_out more 20 '"event":"open"'
	check "fill/$name/refused" "established beyond the last port" "$(bg_field more open established)" -eq 0
	refused=$(grep -c EHOSTUNREACH "$(bg_out more)" || true)
	check "fill/$name/icmp" "reports of EHOSTUNREACH" "$refused" -ge 1
	# TCP learns from the ICMP message, not from a time-out.
	[[ $proto = udp ]] ||
		check "fill/$name/at-once" "nanoseconds until the client knew" $(($(date +%s%N) - before)) -lt 4000000000
	check "fill/$name/counted" "packets dropped as no_port" "$(drops no_port)" -ge 3
	wait_out monitor 10 '"reason": ?"no_port"' || true
	check "fill/$name/event" "no_port events in sluice monitor" \
		"$(grep -cE '"reason": ?"no_port"' "$(bg_out monitor)" || true)" -ge 1
	check_exhaustion "$name" "$proto"

	bg_send many verify
	wait_out many 30 '"event":"verify"'
	check "fill/$name/unhurt" "old flows that still work" "$(bg_field many verify ok)" -eq "$PORTS"
	stop_bg wire || true
	check "fill/$name/outside" "packets outside the slice" "$(bg_field wire report outside)" -eq 0
	lab_down
}

lab_begin
fill tcp-overload tcp 'tcp-mapping = "overload"'
fill tcp-eim tcp 'tcp-mapping = "endpoint-independent"'
fill udp-overload udp 'udp-mapping = "overload"'
fill udp-eim udp 'udp-mapping = "endpoint-independent"'
exit "$TEST_FAILED"
