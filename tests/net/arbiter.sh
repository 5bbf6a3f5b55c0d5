#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Sockets and NAT clients fight for one slice: connections without end from both sides, to random ones of 400 places, closed in every way there is, for TCP and UDP. The recorder before the
# gateway knows nothing of sluice: it sees who uses a tuple by what the packets say. No tuple ever has two users, no connection is lost, nothing leaves with a port outside the slice.
# ARBITER_ATTEMPTS: how many, in all (default 30000; the full measure is 1000000).

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

ATTEMPTS=${ARBITER_ATTEMPTS:-30000}
CHURN=$LAB_BUILD/tools/churn
TO=198.51.100.10-198.51.100.13:8000-8099

# The load that ran under this name has ended well: every attempt answered, or closed in haste by its own will.
all_well() { # NAME ATTEMPTS
	check "arbiter/$1-attempts" "attempts of $1" "$(bg_field "$1" report attempts)" -ge "$2"
	check "arbiter/$1-lost" "wrong and hung attempts of $1, and those that failed ($(bg_report "$1"))" \
		"$(($(bg_field "$1" report attempts) - $(bg_field "$1" report ok) - $(bg_field "$1" report hasty)))" -eq 0
}

finished() { # NAME
	[[ $(bg_field "$1" report attempts) ]]
}

lab_begin
lab_up egress
# A closed flow rests: tables for all of a long run's.
edge_conf edge1 'unleased = "allow"' 'max-flows = 2097152' >/dev/null
sluiced_start edge1
start_bg serve origin "$CHURN" serve 8000-8099
wait_out serve 10 ready
start_bg wire gw nice -n -15 "$WIRE" --dev edge1 --users "$SHARED"
wait_out wire 10 ready
start_bg escape gw nice -n -15 "$WIRE" --dev edge1 --in --source "$SHARED" --ports "$(edge_slice edge1)"
wait_out escape 10 ready

# The recorder knows two users when it sees them: two SYNs, and a datagram of one between two of another.
two_users() {
	local syn="9c40 1f40 %s 00000000 5002 ffff 0000 0000" ask="9c40 1f40 0028 0000 117ac051 00000000 %s00000000000000 00000000 0000 0000 0000000000000000" seq user

	start_bg false origin "$WIRE" --dev lo --out --users "$SHARED"
	wait_out false 10 ready
	# shellcheck disable=SC2059 # the format is the packet
	{
		for seq in 00000001 00000001 00000002; do
			in_ns origin "$RAW" "$SHARED" 198.51.100.10 6 "$(printf "$syn" $seq)"
		done
		for user in 0a 0b 0b 0a; do
			in_ns origin "$RAW" "$SHARED" 198.51.100.10 17 "$(printf "$ask" $user)"
		done
	} >/dev/null
	stop_bg false || true
	check arbiter/recorder-tcp "SYNs on an open connection that the recorder saw" "$(bg_field false report reopened)" -eq 1
	check arbiter/recorder-udp "datagrams of a second user that the recorder saw" "$(bg_field false report shared)" -eq 1
}
two_users

start_bg nat client "$CHURN" load --to "$TO" --from 10.1.1.1-10.1.1.250 --count $((ATTEMPTS / 2)) --open 300 --hold 20 --seed 11 --user 1000000000
start_bg sock edge1 "$CHURN" load --to "$TO" --from "$SHARED" --ports "$(edge_slice edge1)" --count $((ATTEMPTS / 2)) --open 300 --hold 20 --udp 2 --seed 12 --user 2000000000 \
	--moved "$LAB_STATE/moved"
# A mapping of UDP has its port to itself for minutes.
start_bg natudp client "$CHURN" load --to "$TO" --from 10.1.1.1-10.1.1.250 --count $((ATTEMPTS < 100000 ? 200 : 800)) --rate 4 --open 100 --udp 100 --seed 13 --user 3000000000
for name in nat sock; do
	wait_for $((60 + ATTEMPTS / 500)) finished "$name"
done
stop_bg natudp || true
all_well nat $((ATTEMPTS / 2))
all_well sock $((ATTEMPTS / 2))
all_well natudp 5
stop_bg wire || true
check arbiter/two-users "tuples with two users" "$(bg_field wire report shared)" -eq 0
check arbiter/reopened "connections opened on one that was open" "$(bg_field wire report reopened)" -eq 0
check arbiter/missed "packets that the recorder missed" "$(bg_field wire report lost)" -eq 0
check arbiter/wire-saw "connections on the wire" "$(bg_field wire report connections)" -ge $((ATTEMPTS * 9 / 10))
stop_bg escape || true
check arbiter/escape "packets outside of the slice" "$(bg_field escape report outside)" -eq 0
check arbiter/moved "sockets whose flow was moved" "$(bg_field sock report moved)" -gt 0
# All of them within the slice.
first=$(edge_slice edge1)
check arbiter/moved-in-slice "moved flows outside of the slice" \
	"$(jq -s --argjson a "${first%-*}" --argjson b "${first#*-}" '[.[] | select(.wire < $a or .wire > $b)] | length' "$LAB_STATE/moved")" -eq 0
exit "$TEST_FAILED"
