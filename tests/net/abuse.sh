#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The control socket under abuse by a user who may connect, while traffic runs: messages that never end, many connections, noise, descriptors,
# a flood of calls whose answers nobody reads, and monitors that never read while tens of thousands of events
# happen. Others get their answers, the daemon's memory stays bounded, and traffic is not hurt.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

MONITOR='{"method":"io.sluice.Monitor","more":true}'
STATUS='{"method":"io.sluice.GetStatus"}'
FLOWS='{"method":"io.sluice.ListFlows","more":true}'
SOCK=$LAB_STATE/edge1/control.sock
# KiB. What waits for ten monitors who never read is 256 KiB each at most, if nothing is shared; without a bound, 50,000 events would take
# ten times as much.
RSS_MAX=8192

stat_of() { # COUNTER
	sluice_ctl edge1 -j status | jq ".control.$1"
}

stat_reaches() { # COUNTER AT-LEAST
	[[ $(stat_of "$1") -ge $2 ]]
}

stat_falls() { # COUNTER AT-MOST
	[[ $(stat_of "$1") -le $2 ]]
}

# As a member of the group that may connect, who is not root.
pester_start() { # NAME ARG...
	local name=$1

	shift
	start_bg "$name" edge1 setpriv --reuid nobody --regid nogroup --groups daemon "$PUBLIC/pester" "$SOCK" "$@"
}

# One case: others get answers, forwarding goes on, and the memory is bounded.
check_unhurt() { # NAME
	local rss

	run_ctl -t 5 status
	check "$1/answers" "exit code of sluice status for root: $SAID" "$RC" -eq 0
	run_ctl -t 5 flows
	check "$1/lists" "exit code of sluice flows for root" "$RC" -eq 0
	check_traffic "$1/traffic"
	rss=$(daemon_rss)
	check "$1/memory" "KiB more than before" $((rss - RSS)) -lt "$RSS_MAX"
}

test_half() {
	local before

	before=$(stat_of timeouts)
	pester_start half hold 5 '{"method":"io.slu'
	check_that half/held "half messages are not taken" wait_out half 10 '"connected":5,"refused":0,"open":5'
	check_unhurt half
	# They have ten seconds; then they are told, and hung up on.
	check_that half/timeout "half messages may stay" wait_for 20 stat_reaches timeouts $((before + 5))
	check_text half/closed "$(bg_ask half 10 '')" '"open":0,.*did not end in time'
	stop_bg half || true
}

test_many() {
	pester_start many-idle hold 100
	check_that many/limit "100 connections of one user" wait_out many-idle 10 '"connected":16,"refused":84,"open":16,"said":".*QuotaExceeded'
	check_unhurt many
	run_there setpriv --reuid nobody --regid nogroup --groups daemon "$PUBLIC/sluice" --socket "$SOCK" status
	check many/user "exit code for the user who has too many" "$RC" -eq 5
	check_text many/user-text "$SAID" '16 connections already, which is the limit'
	stop_bg many-idle || true
	check_that many/gone "connections stay" wait_for 10 stat_falls clients 1
}

test_noise() {
	local before

	before=$(stat_of bad_messages)
	pester_start noise noise 200 "$RANDOM"
	wait_out noise 60 '"event":"noise"' || true
	check_text noise/ended "$(bg_report noise)" '"ended":200,.*"left":0'
	check noise/counted "bad messages" "$(stat_of bad_messages)" -gt $((before + 100))
	check_unhurt noise
	stop_bg noise || true
}

test_flood() {
	local kind

	pester_start flood-status flood 2 "$STATUS"
	pester_start flood-flows flood 2 "$FLOWS"
	check_unhurt flood
	for kind in status flows; do
		wait_out "flood-$kind" 20 '"event":"flood"' || true
		check "flood/$kind" "calls that were taken" "$(bg_field "flood-$kind" flood sent)" -gt 10
		stop_bg "flood-$kind" || true
	done
}

daemon_fds() {
	local fds=("/proc/$(sluiced_pid edge1)/fd/"*)

	echo ${#fds[@]}
}

daemon_fds_fall() { # AT-MOST
	[[ $(daemon_fds) -le $1 ]]
}

# Descriptors that nobody asked for, most of them such that whoever closes them waits.
test_fds() {
	local before refused answered

	before=$(daemon_fds)
	refused=$(stat_of fds_refused)
	pester_start fds fds 60 "$STATUS"
	wait_out fds 60 '"event":"fds"' || true
	# All 40 on a quick machine. When closing them has been stuck for a second, nobody but root is served until they are closed.
	answered=$(bg_field fds fds answered)
	check fds/answered "calls with descriptors that got an answer" "${answered:-0}" -ge 1
	check fds/counted "messages with descriptors" "$(stat_of fds_refused)" -ge $((refused + ${answered:-0}))
	check_unhurt fds
	check_that fds/left "the daemon keeps descriptors" wait_for 10 daemon_fds_fall $((before + 1))
	stop_bg fds || true
}

# Drops that are events: packets with the shared source and a port outside the slice. 50000 = c350; UDP without checksum.
escapes() { # COUNT
	in_ns edge1 "$RAW" --count "$1" "$SHARED" "$ORIGIN" 17 'c350 1b59 000c 0000 61626364' || true
}

test_monitor() {
	local before lost i

	pester_start deaf deaf 10 "$MONITOR"
	check_that monitor/deaf "the monitors are not there" wait_for 10 stat_reaches monitors 10
	start_bg listener edge1 "$SLUICE" --socket "$SOCK" -j monitor
	wait_out listener 10 subscribed
	before=$(drops escape)
	lost=$(stat_of events_lost)
	for i in 1 2 3 4 5; do
		escapes 10000 >/dev/null
		check_that "monitor/answers-$i" "no answer under a storm of events" sluice_ctl edge1 -t 5 status
	done
	check monitor/drops "packets dropped as escape" "$(drops escape)" -eq $((before + 50000))
	check monitor/lost "events that the monitors missed" "$(stat_of events_lost)" -gt $((lost + 10000))
	check monitor/listener "events that a monitor who reads has got" \
		"$(grep -c '"escape"' "$(bg_out listener)" || true)" -gt 5000
	check_unhurt monitor
	stop_bg deaf || true
	stop_bg listener || true
	check_that monitor/gone "monitors stay" wait_for 10 stat_falls monitors 0
}

# All at once.
test_together() {
	local i

	pester_start deaf deaf 4 "$MONITOR"
	pester_start half hold 4 '{"method":'
	pester_start flood flood 3 "$FLOWS"
	pester_start noise noise 50 7
	pester_start fds fds 30 "$STATUS"
	for i in 1 2 3 4 5; do
		escapes 2000 >/dev/null
		check_that "together/answers-$i" "no answer" sluice_ctl edge1 -t 5 status
	done
	check_unhurt together
	for i in deaf half flood noise fds; do
		stop_bg "$i" || true
	done
}

PUBLIC=$(mktemp -d)
chmod 755 "$PUBLIC"
lab_begin
trap 'status=$?; rm -rf "$PUBLIC"; (exit "$status"); lab_exit' EXIT
# Where everybody can get at them.
cp "$PESTER" "$SLUICE" "$PUBLIC/"
lab_up egress
# As many events as there are.
edge_conf edge1 "" 'icmp-rate = 100000 access { group = "daemon" }' >/dev/null
sluiced_start edge1
echo_start
traffic_start 50
in_ns client "$MANY" --udp --timeout 10 2000 "$ORIGIN:7001" >/dev/null || true
sluice_ctl edge1 flows >/dev/null
RSS=$(daemon_rss)
watch_wire outside --source "$SHARED" --ports "$(edge_slice edge1)"
test_half
test_many
test_noise
test_flood
test_fds
test_monitor
test_together
stop_bg outside || true
check wire/outside "packets outside the slice" "$(bg_field outside report outside)" -eq 0
check_traffic traffic-at-the-end
exit "$TEST_FAILED"
