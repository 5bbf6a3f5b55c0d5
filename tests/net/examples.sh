#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Programs that use libsluice, run by a user without any capability: 10,000 connections to 50 destinations through one shared lease; a lease that is
# used up; a UDP service on an exclusive lease that is handed to its successor without losing a datagram, while the daemon is killed and comes
# back; and many threads that acquire and release.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

GROUP=games # any group that every Debian has
SOCKET=$LAB_STATE/edge1/control.sock
USER_ENV=(env "SLUICE_SOCKET=$SOCKET" prlimit --nofile=20000 setpriv --reuid 4321 --regid "$GROUP" --clear-groups --bounding-set=-all)
CRAWLER=$LAB_BUILD/examples/crawler
UDP_ECHO=$LAB_BUILD/examples/udp-echo
LEASEBENCH=$LAB_BUILD/tools/leasebench

leases() { # JQ: how many are so
	sluice_ctl edge1 -j leases | jq "[.leases[] | select($1)] | length"
}

leases_are() { # COUNT JQ
	[[ $(leases "$2") -eq $1 ]]
}

outside() {
	bg_field wire report outside
}

test_crawler() {
	local n

	for ((n = 0; n < 50; n++)); do
		echo "198.51.100.$((10 + n % 4)):$((7100 + n))"
	done >"$(lab_dir)/destinations"
	chmod 755 "$(lab_dir)"
	# shellcheck disable=SC2046 # one word a destination
	start_bg targets origin "$TALK" echo $(cat "$(lab_dir)/destinations")
	wait_out targets 10 ready
	RC=0
	SAID=$(in_ns edge1 timeout 120 "${USER_ENV[@]}" "$CRAWLER" --file "$(lab_dir)/destinations" 2>&1) || RC=$?
	check_text crawler/10000 "$SAID" "^10000 connections to 50 destinations from $SHARED:.*: 10000 verified, 0 wrong, 0 failed, "
	check crawler/code "exit code" "$RC" -eq 0
	# Ten ports carry ten connections to each, and not one more, whatever the machine's own address could do.
	RC=0
	SAID=$(in_ns edge1 timeout 120 "${USER_ENV[@]}" "$CRAWLER" --file "$(lab_dir)/destinations" --ports 10 --connections 600 2>&1) || RC=$?
	check_text crawler/used-up "$SAID" ': 500 verified, 0 wrong, 100 failed: Cannot assign requested address'
	check crawler/used-up-code "exit code" "$RC" -eq 1
	check crawler/ended "active leases" "$(leases '.state == "active"')" -eq 0
	stop_bg targets || true
}

test_udp_echo() {
	local id port

	start_bg old edge1 "${USER_ENV[@]}" "$UDP_ECHO" --pool default
	wait_out old 10 "^lease "
	[[ $(bg_report old) =~ ^lease\ ([0-9]+):\ $SHARED:([0-9]+)$ ]] || lab_die "udp-echo said $(bg_report old)"
	id=${BASH_REMATCH[1]} port=${BASH_REMATCH[2]}
	start_bg senders origin "$MANY" --udp --hold --traffic 5 --timeout 10 50 "$SHARED:$port"
	wait_out senders 20 '"event":"verify"'
	bg_send senders start
	# To the new process, and back to a newer one; the daemon dies in between.
	start_bg new edge1 "${USER_ENV[@]}" "$UDP_ECHO" --lease "$id"
	wait_out new 10 "^lease $id: $SHARED:$port"
	RC=0
	stop_bg old || RC=$?
	check udp-echo/old-code "exit code of the old process" "$RC" -eq 0
	wait_traffic udp-echo/goes-on
	sluiced_kill edge1
	wait_traffic udp-echo/without-daemon
	sluiced_start edge1
	start_bg newer edge1 "${USER_ENV[@]}" "$UDP_ECHO" --lease "$id"
	wait_out newer 10 "^lease $id: $SHARED:$port"
	stop_bg new || true
	wait_traffic udp-echo/after-restart
	bg_ask senders 20 stop >/dev/null
	check udp-echo/none-lost "datagrams without an answer" "$(bg_field senders traffic lost)" -eq 0
	check udp-echo/none-wrong "wrong answers" "$(bg_field senders traffic wrong)" -eq 0
	check udp-echo/one-lease "active leases" "$(leases '.state == "active"')" -eq 1
	stop_bg newer INT || true
	check udp-echo/given-back "active leases" "$(leases '.state == "active"')" -eq 0
	stop_bg senders || true
}

answered() {
	local line

	line=$(bg_ask senders 10 status) || return 1
	[[ $line =~ \"answered\":([0-9]+) ]] && echo "${BASH_REMATCH[1]}"
}

answered_beyond() { # COUNT
	[[ $(answered) -gt $1 ]]
}

# One case: datagrams go on being answered, 500 more of them.
wait_traffic() { # NAME
	check_that "$1" "nothing is answered any more" wait_for 20 answered_beyond $(($(answered) + 500))
}

test_threads() {
	local report

	report=$(in_ns edge1 "${USER_ENV[@]}" "$LEASEBENCH" --pool default --threads 8 --seconds 30 --pairs 100 --batch 2) || true
	check threads/errors "errors in $report" "$(jq .errors <<<"$report")" -eq 0
	check threads/pairs "leases acquired and released" "$(jq .pairs <<<"$report")" -eq 800
	check threads/left "active leases" "$(leases '.state == "active"')" -eq 0
}

lab_begin
lab_up egress
edge_conf edge1 'unleased = "deny"' "leases { cool-down = 1 }
	access { group = \"$GROUP\" leases-per-uid = 64 }" >/dev/null
# Programs of other users must reach the socket.
chmod 755 "$LAB_STATE" "$LAB_STATE/edge1"
sluiced_start edge1
start_bg wire gw "$WIRE" --dev edge1 --in --source "$SHARED" --ports "$(edge_slice edge1)"
wait_out wire 10 ready
test_crawler
wait_for 30 leases_are 0 true || true
test_udp_echo
wait_for 30 leases_are 0 true || true
test_threads
stop_bg wire || true
check wire/outside "packets with a port outside of the slice" "$(outside)" -eq 0
exit "$TEST_FAILED"
