#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The daemon kills itself at each point of a grant and of a release (src/lessor.c), and the disk is full or broken at the moment of a grant. Whatever
# happens: what was answered holds, what was not stored is not there, nothing is given twice, and no port is lost: in the end one lease
# gets the whole slice.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"

FAULTY=$LAB_BUILD/fault/sluiced

faulty_start() { # VARIABLE=VALUE...
	start_bg sluiced-edge1 edge1 env "$@" "$FAULTY" -d -f "$LAB_STATE/edge1/sluice.conf"
	wait_for 10 lab_sluiced_answers edge1 && bg_alive sluiced-edge1
}

gone() {
	! bg_alive sluiced-edge1
}

active() { # NAME
	sluice_ctl edge1 -j leases | jq "[.leases[] | select(.state == \"active\" and .name == \"$1\")] | length"
}

# Every port can be had: nobody holds one, and NAT is kept off none.
whole_slice() {
	sluice_ctl edge1 acquire --pool default --proto tcp+udp --count 2048 --name whole
}

# One case after each: everything is released, and then the whole slice is to be had.
nothing_lost() { # NAME
	local id

	for id in $(sluice_ctl edge1 -j leases | jq '.leases[] | select(.state == "active") | .id'); do
		sluice_ctl edge1 release "$id" >/dev/null
	done
	if wait_for 20 whole_slice; then
		test_ok "$1/nothing-lost"
	else
		test_fail "$1/nothing-lost" "$(sluice_ctl edge1 leases)"
	fi
	sluice_ctl edge1 release "$(sluice_ctl edge1 -j leases | jq '.leases[] | select(.name == "whole" and .state == "active") | .id')" >/dev/null || true
	none() { [[ $(sluice_ctl edge1 -j leases | jq '.leases | length') -eq 0 ]]; }
	wait_for 20 none || true
	sluiced_stop edge1 || true
}

grant() { # POINT EXPECTED: leases after the next start
	local name=lease/grant/$1

	faulty_start "SLUICE_CRASH_AT=$1" || { test_fail "$name" "the daemon does not start"; return; }
	if sluice_ctl edge1 acquire --pool default --proto tcp+udp --count 3 --name granted >/dev/null 2>&1; then
		test_fail "$name/unanswered" "the call was answered before the point"
	fi
	check_gone "$name"
	sluiced_start edge1
	check "$name" "leases" "$(active granted)" -eq "$2"
	nothing_lost "$name"
}

check_gone() { # NAME
	if wait_for 10 gone; then
		stop_bg sluiced-edge1 || true
	else
		test_fail "$1/passed" "the point was not passed"
		sluiced_kill edge1
	fi
}

# The second time: the first one is the grant.
end() { # POINT EXPECTED
	local name=lease/release/$1 id

	faulty_start "SLUICE_CRASH_AT=$1:2" || { test_fail "$name" "the daemon does not start"; return; }
	id=$(sluice_ctl edge1 -j acquire --pool default --proto tcp+udp --count 3 --name given | jq '.leases[0].id')
	sluice_ctl edge1 release "$id" >/dev/null 2>&1 || true
	check_gone "$name"
	sluiced_start edge1
	check "$name" "leases" "$(active given)" -eq "$2"
	nothing_lost "$name"
}

# The Nth commit fails: as on a full disk (the daemon goes on), or a broken one (it starts anew by itself).
fails() { # POINT
	local name=lease/$1 rc=0 n

	for ((n = 1; n < 12; n++)); do
		faulty_start "SLUICE_FAIL_AT=$1:$n" && break
		stop_bg sluiced-edge1 || true
	done
	# Which commit it is depends on what the start writes: ask until one fails.
	for ((; n < 12; n++)); do
		sluice_ctl edge1 acquire --pool default --proto udp --name some >/dev/null 2>&1 || { rc=$?; break; }
	done
	check "$name/refused" "exit code of a grant that could not be stored" "$rc" -ne 0
	wait_for 10 lab_sluiced_answers edge1 || true
	check "$name/goes-on" "daemon that answers" "$(bg_alive sluiced-edge1 && echo yes)" = yes
	check_that_again "$name/again"
	nothing_lost "$name"
}

check_that_again() {
	if wait_for 10 sluice_ctl edge1 acquire --pool default --proto udp --name again; then
		test_ok "$1"
	else
		test_fail "$1" "nothing can be leased any more"
	fi
}

# A grant is being stored, and takes its time; another one is decided meanwhile.
meanwhile() { # NAME VARIABLE=VALUE...: what happens then
	local name=$1

	shift
	faulty_start SLUICE_STALL_AT=store.leases "$@" || { test_fail "$name" "the daemon does not start"; return; }
	start_bg first edge1 "$SLUICE" --socket "$LAB_STATE/edge1/control.sock" acquire --pool default --proto tcp+udp --count 3 --name first
	seen() { [[ $(active first) -eq 1 ]]; }
	wait_for 2 seen || test_fail "$name/open" "the daemon does not go on while it stores"
	start_bg second edge1 "$SLUICE" --socket "$LAB_STATE/edge1/control.sock" acquire --pool default --proto tcp+udp --count 3 --name second
}

refused() { # BG
	wait_for 10 ended "$1" || { test_fail "$name/$1" "no answer"; return; }
	check "$name/$1" "bytes of a grant that is none" "$(wc -c <"$LAB_STATE/$1.out")" -eq 0
	stop_bg "$1" || true
}

ended() {
	! bg_alive "$1"
}

# Neither was answered; of the first one the daemon did not get to the disk either.
meanwhile_crash() {
	local name=lease/grant/lessor.meanwhile

	meanwhile "$name" SLUICE_CRASH_AT=lessor.meanwhile
	check_gone "$name"
	refused first
	refused second
	sluiced_start edge1
	check "$name" "leases" "$(active first) $(active second)" = "0 0"
	nothing_lost "$name"
}

# The commit that was under way fails: both are refused, both are gone, and the daemon goes on.
meanwhile_fails() {
	local name=lease/meanwhile/store.leases

	meanwhile "$name" SLUICE_FAIL_AT=store.leases
	both() { [[ $(active second) -eq 1 ]]; }
	wait_for 2 both || test_fail "$name/decided" "the second grant waits for the first one's commit"
	refused first
	refused second
	check "$name" "leases" "$(active first) $(active second)" = "0 0"
	check "$name/goes-on" "daemon that answers" "$(bg_alive sluiced-edge1 && echo yes)" = yes
	check_that_again "$name/again"
	nothing_lost "$name"
}

# All is well: both are answered, the second by a commit of its own.
meanwhile_goes_well() {
	local name=lease/meanwhile/stored

	meanwhile "$name"
	granted() { [[ -s $LAB_STATE/first.out && -s $LAB_STATE/second.out ]]; }
	wait_for 10 granted || test_fail "$name" "$(cat "$LAB_STATE/first.err" "$LAB_STATE/second.err")"
	stop_bg first || true
	stop_bg second || true
	sluiced_kill edge1
	sluiced_start edge1
	check "$name" "leases" "$(active first) $(active second)" = "1 1"
	nothing_lost "$name"
}

lab_begin
lab_up egress
edge_conf edge1 '' 'leases { cool-down = 0 }' >/dev/null
grant lessor.claimed 0
grant lessor.persisted 1
grant lessor.published 1
end lessor.persisted 0
end lessor.published 0
meanwhile_crash
meanwhile_fails
meanwhile_goes_well
fails store.full
fails store.io
exit "$TEST_FAILED"
