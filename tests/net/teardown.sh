#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# sluiced --teardown takes everything off the host and leaves it as it was before the first start: pins, hooks, routes, settings. It is
# refused while a daemon runs, may be repeated, and a start afterwards works, with higher epochs. What somebody has
# changed meanwhile stays.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

teardown() {
	run_there "$SLUICED" --teardown -f "$(conf_file)"
}

epoch() {
	sluice_ctl edge1 -j slices | jq -r '.slices[0].epoch'
}

# Settings that a careless host has, all of which the daemon must change, and then put back.
careless() {
	lab_sysctl edge1 net.ipv4.ip_forward=0 net.ipv4.conf.wan.arp_ignore=0 net.ipv4.conf.wan.arp_announce=1 \
		net.ipv4.conf.lan.rp_filter=1 net.ipv4.conf.lan.forwarding=1
}

check_round() { # NAME SLUICED-ARG...
	local name=$1 before old new

	shift
	careless
	before=$(host_state)
	check_that "$name/start" "it does not start" sluiced_start edge1 "$SLUICED" "$@"
	check_text "$name/changed" "$(in_ns edge1 sysctl net.ipv4.ip_forward net.ipv4.conf.wan.arp_ignore net.ipv4.conf.wan.arp_announce |
		tr '\n' ' ')" 'ip_forward = 1 .*arp_ignore = 1 .*arp_announce = 2 '
	old=$(epoch)
	traffic_start 10
	teardown
	check "$name/running" "exit code while a daemon runs" "$RC" -eq 2
	check_text "$name/running-text" "$SAID" "in use by process $(sluiced_pid edge1)"
	check_traffic "$name/running-traffic"
	sluiced_stop edge1
	check_traffic "$name/stopped-traffic"
	stop_bg traffic || true
	teardown
	check "$name" "exit code: $SAID" "$RC" -eq 0
	check_host "$name/host" "$before"
	check_not "$name/pins" "pins are left" test -e "$LAB_BPFFS/slab-edge1"
	teardown
	check "$name/again" "exit code: $SAID" "$RC" -eq 0
	check_host "$name/again-host" "$before"

	check_that "$name/restart" "it does not start afterwards" sluiced_start edge1 "$SLUICED" "$@"
	new=$(epoch)
	check "$name/epoch" "epoch of the slice after $old" "$new" -gt "$old"
	check_that "$name/new-flows" "no flows after teardown and start" new_flows
	sluiced_kill edge1
	teardown
	check "$name/killed" "exit code after SIGKILL: $SAID" "$RC" -eq 0
	check_host "$name/killed-host" "$before"
}

# Of settings that somebody has changed since, and of routes that somebody has made.
test_others() {
	local before

	careless
	sluiced_start edge1
	sluiced_stop edge1
	lab_sysctl edge1 net.ipv4.conf.wan.arp_ignore=2
	teardown
	check others/exit "exit code: $SAID" "$RC" -eq 0
	check_text others/told "$SAID" 'arp_ignore is 2: neither what it was'
	check others/setting "a setting that somebody else has changed" "$(in_ns edge1 sysctl -n net.ipv4.conf.wan.arp_ignore)" -eq 2
	in_ns edge1 ip route add local "$SHARED" dev lo
	careless
	before=$(host_state)
	sluiced_start edge1
	sluiced_stop edge1
	teardown
	check others/route-exit "exit code: $SAID" "$RC" -eq 0
	check_host others/route "$before"
	in_ns edge1 ip route del local "$SHARED" dev lo
}

# Without a store there is nothing to put back, but hooks and pins can go.
test_never_started() {
	local before

	rm -rf "$LAB_STATE/edge1/state"
	careless
	before=$(host_state)
	teardown
	check never/exit "exit code: $SAID" "$RC" -eq 0
	check_host never/host "$before"
}

# host { sysctl = "check" routes = "check" }: nothing is changed, so there is nothing to put back.
test_check_only() {
	local before

	careless
	conf_edit 's/^uplinks/host {\n sysctl = "check"\n routes = "check"\n}\n&/'
	before=$(in_ns edge1 sysctl net.ipv4 2>/dev/null | grep -E 'conf|ip_forward'; in_ns edge1 ip route show table all)
	check_that check-only/start "it does not start" sluiced_start edge1
	check check-only/unchanged "settings and routes" \
		"$(in_ns edge1 sysctl net.ipv4 2>/dev/null | grep -E 'conf|ip_forward'; in_ns edge1 ip route show table all)" = "$before"
	sluiced_stop edge1
	teardown
	check check-only/teardown "exit code: $SAID" "$RC" -eq 0
}

lab_begin
lab_up egress
edge_conf edge1 >/dev/null
echo_start
check_round tcx
check_round clsact --no-tcx
test_others
test_never_started
test_check_only
exit "$TEST_FAILED"
