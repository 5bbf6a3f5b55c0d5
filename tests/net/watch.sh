#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A machine whose NAT is conntrack's, and "sluiced --watch-only" on it. Clients and sockets open connections to the same places through the same ports, so that conntrack rewrites some of the
# sockets'. The server tells each socket which port it was seen to come from: that is the truth, and each rewrite is told, once, with the right ports and the right process, by each source alone and
# by both together. Then with a buffer that is too small.
# WATCH_ATTEMPTS: connections of each of the loads (default 6000; the full measure is 500000).

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

ATTEMPTS=${WATCH_ATTEMPTS:-6000}
CHURN=$LAB_BUILD/tools/churn
TO=198.51.100.10-198.51.100.13:8000-8024
DIR=$LAB_STATE/edge1

conf() { # WATCH-KEYS
	mkdir -p "$DIR/state"
	cat >"$(conf_file)" <<-END
		machine = "edge1"
		state-dir = "$DIR/state"
		control = "$DIR/control.sock"
		watch { $1 history = 1000000 }
	END
}

watch_start() { # WATCH-KEYS
	rm -rf "$DIR/state"
	conf "$1"
	start_bg sluiced-edge1 edge1 "$SLUICED" --watch-only -d -f "$(conf_file)"
	wait_for 10 lab_sluiced_answers edge1 || lab_die "sluiced --watch-only did not come up"
}

watch_stat() { # JQ-PATH
	sluice_ctl edge1 -j status | jq ".watch.$1"
}

finished() { # NAME
	[[ $(bg_field "$1" report attempts) ]]
}

# What the sockets' server saw, and what was told: a line for each, sorted.
truth() {
	jq -r 'select(.wire != 0) | "\(.proto) \(.bound) \(.wire) \(.dst):\(.dport)"' "$LAB_STATE/moved" | sort
}

told() {
	sluice_ctl edge1 -j collisions --kind rewrite --limit 1000000 |
		jq -r '.collisions[] | "\(.proto) \(.bound_port) \(.wire_port) \(.dst)"' | sort
}

# How many are told for which this holds?
told_where() { # JQ-CONDITION
	sluice_ctl edge1 -j collisions --kind rewrite --limit 1000000 | jq --argjson pid "$SOCK_PID" "[.collisions[] | select($1)] | length"
}

# Is everything told that happened?
caught_up() {
	[[ $(told | wc -l) -ge $(truth | wc -l) ]]
}

load() { # NAME SEED COUNT
	start_bg nat client "$CHURN" load --to "$TO" --from 10.1.1.1-10.1.1.250 --ports "$(edge_slice edge1)" --count "$3" --open 200 --hold 30 --closes frsRh --seed "$2" --user 1000000000
	start_bg sock edge1 "$CHURN" load --to "$TO" --from "$SHARED" --ports "$(edge_slice edge1)" --count "$3" --open 200 --hold 30 --udp 20 --closes frsRh --seed $(($2 + 1)) \
		--user 2000000000 --moved "$LAB_STATE/moved"
	SOCK_PID=$(lab_bg_pid sock)
	for name in nat sock; do
		wait_for $((60 + $3 / 500)) finished "$name"
	done
}

lab_bg_pid() { # NAME
	local id

	id=$(<"$LAB_STATE/pids/$1")
	echo "${id% *}"
}

judge() { # NAME
	wait_for 10 caught_up || true
	truth >"$LAB_STATE/truth"
	told >"$LAB_STATE/told"
	check "watch/$1-provoked" "rewrites" "$(wc -l <"$LAB_STATE/truth")" -ge 20
	check "watch/$1-missed" "rewrites that were not told" "$(comm -23 "$LAB_STATE/truth" "$LAB_STATE/told" | wc -l)" -eq 0
	check "watch/$1-wrong" "rewrites told that were none, or twice" "$(comm -13 "$LAB_STATE/truth" "$LAB_STATE/told" | wc -l)" -eq 0
	# shellcheck disable=SC2016 # jq's variable
	check "watch/$1-who" "of them told with another process than the one" "$(told_where '.socket.uid != 0 or (.socket.pid != 0 and (.socket.comm != "churn" or .socket.pid != $pid))')" -eq 0
	# What the kernel sends again by itself, after the entry has gone, has no process, and its socket may be closed by the time.
	check "watch/$1-nobody" "of them told without a process" "$(told_where '.socket.pid == 0')" -le $(($(wc -l <"$LAB_STATE/truth") / 50 + 1))
}

lab_begin
lab_up egress
nat_nftables_start edge1
# What comes for a port that is not edge1's comes to edge1 as well: the server has to be able to answer a rewritten connection.
lab_ip gw <<-END
	rule add to $SHARED lookup 101 pref 50
END
start_bg serve origin "$CHURN" serve 8000-8024
wait_out serve 10 ready

seed=20
for sources in ctnetlink netfilter both; do
	case $sources in
	both) watch_start 'netns = { "" }' ;;
	*) watch_start "netns = { \"\" } sources = { \"$sources\" }" ;;
	esac
	load "$sources" $((seed += 2)) "$ATTEMPTS"
	judge "$sources"
	check "watch/$sources-losses" "losses" "$(watch_stat 'losses | add')" -eq 0
	if [[ $sources == both ]]; then
		n=$(wc -l <"$LAB_STATE/truth")
		check watch/both-ctnetlink "rewrites that ctnetlink saw" "$(watch_stat observed.ctnetlink)" -eq "$n"
		check watch/both-netfilter "rewrites that the program saw" "$(watch_stat observed.netfilter)" -eq "$n"
	fi
	sluiced_stop edge1
done
exit "$TEST_FAILED"
