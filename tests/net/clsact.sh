#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Attached by clsact, as on kernels before 6.6: the same translation, the same cure of the collision, the same guard; killed and
# started again without a lost packet; the uplink goes and comes.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/net/lib-uplink.sh
. "$(dirname "$0")/lib-uplink.sh"

# A classic BPF program that lets everything through.
PASS='1,6 0 0 4294967295'

start() {
	sluiced_start edge1 "$SLUICED" --no-tcx
}

resolved() {
	sluice_ctl edge1 -j pools | jq '.pools[0].resolved'
}

filters() {
	in_ns edge1 tc filter show dev wan "$1" | grep -c 'uplink_' || true
}

test_collision() {
	local port before

	start_bg flow client "$TALK" connect --bind 10.1.0.2:30000 --timeout 5 "$ORIGIN:7000"
	wait_out flow 10 '"connected":true'
	port=$(sluice_ctl edge1 -j flows --client 10.1.0.2 --port 30000 | jq '.flows[0].outer.sport')
	before=$(resolved)
	start_bg socket edge1 "$TALK" connect --bind "$SHARED:$port" --timeout 5 "$ORIGIN:7000"
	check_that clsact/collision "the socket does not connect from port $port" wait_out socket 10 '"connected":true'
	check clsact/collision-resolved "collisions resolved" "$(resolved)" -eq $((before + 1))
	check_text clsact/collision-socket "$(bg_ask socket 10 hello)" '"ok":true'
	check_text clsact/collision-flow "$(bg_ask flow 10 hello)" '"ok":true'
	stop_bg socket || true
	stop_bg flow || true
}

test_guard() {
	local before

	watch_wire outside --source "$SHARED" --ports "$(edge_slice edge1)"
	before=$(drops escape)
	in_ns edge1 timeout 10 "$TALK" connect --bind "$SHARED:50000" --timeout 1 "$ORIGIN:7000" </dev/null >/dev/null 2>&1 || true
	check clsact/guard-counted "packets dropped as escape" "$(drops escape)" -gt "$before"
	stop_bg outside || true
	check clsact/guard "packets outside the slice" "$(bg_field outside report outside)" -eq 0
}

test_kills() {
	local what

	start_bg udp client "$MANY" --udp --hold --traffic 10 30 "$ORIGIN:7001"
	wait_out udp 20 '"event":"verify"'
	watch_wire wire --source "$SHARED" --ports "$(edge_slice edge1)"
	for _ in 1 2 3 4 5; do
		sluiced_kill edge1
		start
	done
	check clsact/kill-ingress "programs at ingress" "$(filters ingress)" -eq 1
	check clsact/kill-egress "programs at egress" "$(filters egress)" -eq 1
	bg_send udp stop
	wait_out udp 20 '"event":"traffic"'
	for what in lost wrong broken; do
		check "clsact/kill-udp-$what" "UDP messages" "$(bg_field udp traffic $what)" -eq 0
	done
	check clsact/kill-udp-answered "UDP messages that were answered" "$(bg_field udp traffic answered)" -gt 300
	check_traffic clsact/kill-tcp
	stop_bg wire || true
	check clsact/kill-outside "packets outside the slice" "$(bg_field wire report outside)" -eq 0
	stop_bg udp || true
}

programs_back() {
	[[ $(filters ingress) -eq 1 && $(filters egress) -eq 1 ]]
}

# Somebody deletes the qdisc while the daemon runs: it finds out by itself.
test_deleted() {
	in_ns edge1 tc qdisc del dev wan clsact
	wait_for 15 programs_back || true
	check clsact/qdisc-deleted-ingress "programs at ingress" "$(filters ingress)" -eq 1
	check clsact/qdisc-deleted-egress "programs at egress" "$(filters egress)" -eq 1
	check_that clsact/qdisc-deleted-traffic "no new connections afterwards" in_ns client "$MANY" 5 "$ORIGIN:7000"
}

# Somebody else's qdisc, and somebody else's filter at our place.
test_others() {
	sluiced_stop edge1
	in_ns edge1 tc filter add dev wan egress handle 7 prio 7 protocol all bpf da bytecode "$PASS"
	run_there "$SLUICED" --teardown -f "$(conf_file)"
	check clsact/teardown "exit code: $SAID" "$RC" -eq 0
	check clsact/teardown-ours "programs left" $(($(filters ingress) + $(filters egress))) -eq 0
	check_text clsact/teardown-others "$(in_ns edge1 tc filter show dev wan egress)" 'pref 7 bpf'
	in_ns edge1 tc filter del dev wan egress prio 7
	in_ns edge1 tc filter add dev wan egress handle 1 prio 1 protocol all bpf da bytecode "$PASS"
	run_there "$SLUICED" -d --no-tcx -f "$(conf_file)"
	check clsact/occupied "exit code where another one's filter is" "$RC" -eq 2
	check_text clsact/occupied-text "$SAID" 'handle 1, priority 1 .*"bpf", which is not ours'
	check_text clsact/occupied-stays "$(in_ns edge1 tc filter show dev wan egress)" 'pref 1 bpf'
	in_ns edge1 tc qdisc del dev wan clsact
}

lab_begin
lab_up egress
edge_conf edge1 >/dev/null
start
echo_start
traffic_start 20
check clsact/how "how it is attached" "$(uplink_field .ingress)" = clsact
test_collision
test_guard
test_kills
test_uplink clsact
stop_bg traffic || true
test_deleted
test_others
exit "$TEST_FAILED"
