#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The daemon kills itself at each named point (src/fault.h) of its start, of a reload that adds and removes slices, and of a restart
# over what is there. Whatever the point: the next start works, holds what the configuration says, never gives an epoch out twice,
# and connections of slices that stay are not hurt.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"

FAULTY=$LAB_BUILD/fault/sluiced
START="store.create store.begin store.commit store.committed engine.opened dp.create dp.pinned dp.renamed engine.decided
engine.persisted dp.publish.filled dp.publish.live dp.publish.switched engine.published dp.attach.half engine.attached
engine.host.recorded engine.ready sluiced.started"
RELOAD="engine.decided store.begin store.commit store.committed engine.persisted dp.publish.ended dp.publish.filled
dp.publish.live dp.publish.switched engine.published engine.ready"

conf() { # SLICES: of edge1
	edge_conf edge1 >/dev/null
	sed -i "s|slices     = .*|slices = { $1 }|" "$LAB_STATE/edge1/sluice.conf"
}

# The daemon dies at the point; true if it did.
dies_at() { # POINT
	start_bg faulty edge1 env "SLUICE_CRASH_AT=$1" "$FAULTY" -d -f "$LAB_STATE/edge1/sluice.conf"
	if wait_for 10 lab_pid_gone_named faulty; then
		stop_bg faulty || true
		return 0
	fi
	stop_bg faulty KILL || true
	return 1
}

lab_pid_gone_named() {
	! bg_alive "$1"
}

slices() {
	sluice_ctl edge1 -j slices | jq -r '[.slices[] | "\(.first)-\(.last)"] | join(" ")'
}

epochs() {
	sluice_ctl edge1 -j slices | jq -r '[.slices[].epoch] | join(" ")'
}

lab_begin
lab_up egress
start_bg echo origin "$TALK" echo 198.51.100.10:7000
wait_out echo 10 ready

# A first start, from nothing, cut short at each point.
for point in $START; do
	conf '"203.0.113.7:40960-43007"'
	name=points/start/$point
	if ! dies_at "$point"; then
		test_fail "$name" "the start does not pass the point"
	elif ! sluiced_start edge1; then
		test_fail "$name" "the next start fails"
	elif [ "$(slices)" != 40960-43007 ]; then
		test_fail "$name" "holds $(slices)"
	elif ! in_ns client timeout 10 "$MANY" 5 198.51.100.10:7000 >/dev/null; then
		test_fail "$name" "no traffic afterwards"
	else
		test_ok "$name"
	fi
	sluiced_stop edge1 || true
	in_ns edge1 "$SLUICED" --teardown -f "$LAB_STATE/edge1/sluice.conf" 2>/dev/null ||
		test_fail "$name" "teardown fails"
	rm -rf "$LAB_STATE/edge1"
done

# A restart with other slices: one stays, one goes, one comes. Connections of the one that stays go on.
conf '"203.0.113.7:40960-43007"'
sluiced_start edge1
start_bg tcp client "$MANY" --hold --traffic 20 50 198.51.100.10:7000
wait_out tcp 20 '"event":"verify"'
stays=$(epochs)
highest=$stays
sluiced_stop edge1
round=0
for point in $RELOAD; do
	name=points/change/$point
	round=$((round + 1))
	# 45056 and 47104 take turns.
	first=$((45056 + 2048 * (round % 2)))
	conf "\"203.0.113.7:40960-43007\", \"203.0.113.7:$first-$((first + 2047))\""
	# dp.publish.ended is passed only when a slice ends: from the second round on.
	if ! dies_at "$point"; then
		test_fail "$name" "the start does not pass the point"
	elif ! sluiced_start edge1; then
		test_fail "$name" "the next start fails"
	elif [ "$(slices)" != "40960-43007 $first-$((first + 2047))" ]; then
		test_fail "$name" "holds $(slices)"
	else
		read -r old new <<<"$(epochs)"
		if [ "$old" != "$stays" ]; then
			test_fail "$name" "the slice that stays has epoch $old, had $stays"
		elif [ "$new" -le "$highest" ]; then
			test_fail "$name" "the new slice has epoch $new, not above $highest"
		else
			highest=$new
			test_ok "$name"
		fi
	fi
	sluiced_stop edge1 || true
done
bg_send tcp stop
wait_out tcp 20 '"event":"traffic"'
for what in broken wrong silent; do
	check "points/tcp-$what" "$what connections" "$(bg_field tcp traffic $what)" -eq 0
done
exit "$TEST_FAILED"
