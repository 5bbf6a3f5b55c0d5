#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What watching conntrack costs, where conntrack does the NAT: tests/bench/watch.sh [--json FILE] [--seconds S] [--rounds N]
#
#   cost       the daemon's processor time for each new connection, as percent of one core at 10,000 a second; and of a connection itself, as a ratio to
#              that without anybody watching. For connections of the edge itself and for forwarded ones that are translated; with each source and with both;
#              and what one would run instead, "conntrack -E -e NEW" into /dev/null
#   delay      from a socket's first packet, rewritten, to when it is known whose it is and what it ran into
#
# Runs in the lab's namespaces. --json adds its results to FILE under "watch". Exit code 1 when a measure failed.
set -euo pipefail
export LC_ALL=C.UTF-8
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$(readlink -f "$0")")/../../netns-lab/lib.sh"

RATE=$LAB_BUILD/tools/rate
CHURN=$LAB_BUILD/tools/churn
ORIGIN=198.51.100.10
WAYS=(none ctnetlink netfilter both conntrack)
LOADS=(plain forwarded)
DIR=$LAB_STATE/edge1
seconds=1.5
rounds=3
json=

while [[ $# -gt 0 ]]; do
	case $1 in
	--json) json=$2 ;;
	--seconds) seconds=$2 ;;
	--rounds) rounds=$2 ;;
	*) lab_die "usage: watch.sh [--json FILE] [--seconds S] [--rounds N]" ;;
	esac
	shift 2
done

results={}
failed=0

fail() { # TEXT
	echo "watch: $1" >&2
	failed=1
}

# The median of numbers, one a line.
median() {
	sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

# Nanoseconds that a process has run so far, all its threads.
run_ns() { # PID
	cat /proc/"$1"/task/*/schedstat | awk '{ n += $1 } END { printf "%d\n", n }'
}

watcher_start() { # WATCH-KEYS
	rm -rf "$DIR"
	mkdir -p "$DIR/state"
	cat >"$DIR/sluice.conf" <<-END
		machine = "edge1"
		state-dir = "$DIR/state"
		control = "$DIR/control.sock"
		watch { netns = { "" } $1 history = 100000 }
	END
	start_bg watcher edge1 "$SLUICED" --watch-only -d -f "$DIR/sluice.conf"
	wait_for 10 sluice_ctl edge1 status || lab_die "sluiced --watch-only did not come up"
}

way_start() { # WAY
	case $1 in
	none) ;;
	both) watcher_start "" ;;
	conntrack)
		# What it prints is not wanted, but it has to be printed.
		start_bg watcher edge1 bash -c 'exec conntrack -E -e NEW >/dev/null'
		wait_for 10 listens || lab_die "conntrack -E does not run"
		;;
	*) watcher_start "sources = { \"$1\" }" ;;
	esac
}

# Has somebody joined a group of nfnetlink?
listens() {
	# shellcheck disable=SC2016 # awk's
	in_ns edge1 awk '$2 == 12 && $4 !~ /^0*$/' /proc/self/net/netlink | grep .
}

way_stop() {
	stop_bg watcher || true
}

load_run() { # LOAD
	case $1 in
	plain) in_ns edge1 "$RATE" --seconds "$seconds" "${places[@]}" ;;
	forwarded) in_ns client "$RATE" --seconds "$seconds" "${places[@]}" ;;
	esac
}

cost_measure() { # WAY LOAD
	local out before=0 after=0 pid=

	[[ $1 == none ]] || pid=$(bg_pid watcher)
	[[ -z $pid ]] || before=$(run_ns "$pid")
	out=$(load_run "$2") || fail "$2 connections failed: $out"
	[[ -z $pid ]] || after=$(run_ns "$pid")
	jq -r '.per_s' <<<"$out" >>"$LAB_STATE/rate.$1.$2"
	jq -r '.cpu_us' <<<"$out" >>"$LAB_STATE/cpu.$1.$2"
	jq -r --argjson ns $((after - before)) '$ns / 1000 / .connections' <<<"$out" >>"$LAB_STATE/us.$1.$2"
}

cost_report() {
	local way load per_s us cpu plain

	for load in "${LOADS[@]}"; do
		plain=$(median <"$LAB_STATE/cpu.none.$load")
		for way in "${WAYS[@]}"; do
			per_s=$(median <"$LAB_STATE/rate.$way.$load")
			us=$(median <"$LAB_STATE/us.$way.$load")
			cpu=$(median <"$LAB_STATE/cpu.$way.$load")
			printf 'cost       %-9s  %-9s  %7.0f connections/s  %6.2f us each, ratio %.3f  watcher %6.3f us each, %5.2f %% of a core at 10,000/s\n' \
				"$load" "$way" "$per_s" "$cpu" "$(jq -n "$cpu / $plain")" "$us" "$us"
			# A microsecond for each of 10,000 is a hundredth of a second.
			# shellcheck disable=SC2016 # jq's variables
			results=$(jq -c --arg l "$load" --arg w "$way" --argjson r "$per_s" --argjson p "$plain" --argjson c "$cpu" --argjson u "$us" \
				'.cost[$l][$w] = {per_s: $r, connection_us: $c, ratio: ($c / $p), watcher_us: $u, core_percent_at_10000: $u}' <<<"$results")
		done
	done
}

finished() { # NAME
	[[ $(bg_field "$1" report attempts) ]]
}

# Clients and sockets that want the same ports towards the same places.
bench_delay() {
	local slice out to=198.51.100.10-198.51.100.13:8000-8024
	local before pid each

	slice=$(edge_slice edge1)
	start_bg serve origin "$CHURN" serve 8000-8024
	wait_out serve 10 ready
	watcher_start ""
	pid=$(bg_pid watcher)
	before=$(run_ns "$pid")
	start_bg nat client "$CHURN" load --to "$to" --from 10.1.1.1-10.1.1.250 --ports "$slice" --count 10000 --rate 2000 --open 300 --hold 50 --closes frsRh --user 1000000000
	start_bg sock edge1 "$CHURN" load --to "$to" --from "$SHARED" --ports "$slice" --count 10000 --rate 2000 --open 300 --hold 50 --closes frsRh --user 2000000000 --moved "$LAB_STATE/moved"
	for name in nat sock; do
		wait_for 60 finished "$name" || fail "$name does not end"
	done
	each=$(($(run_ns "$pid") - before))
	all_told() {
		[[ $(sluice_ctl edge1 -j collisions --kind rewrite --limit 1000000 | jq '.collisions | length') -ge $(grep -vc '"wire":0' "$LAB_STATE/moved") ]]
	}
	wait_for 10 all_told || fail "not every rewrite was told"
	out=$(sluice_ctl edge1 -j collisions --kind rewrite --limit 1000000 |
		jq -c --argjson each "$each" '[.collisions[] | .delay_us | numbers] | sort | {rewrites: length, median_us: .[length / 2 | floor], p99_us: .[length * 99 / 100 | floor], max_us: .[-1]} | . + {watcher_us: ($each / 1000 / .rewrites)}')
	jq -r '"delay      \(.rewrites) rewrites by the program after srcnat: median \(.median_us) us, p99 \(.p99_us) us, max \(.max_us) us; \(.watcher_us | floor) us of processor time each"' <<<"$out"
	[[ $(jq .rewrites <<<"$out") -ge 20 ]] || fail "too few rewrites"
	# shellcheck disable=SC2016 # jq's variables
	results=$(jq -c --argjson d "$out" '.delay = $d' <<<"$results")
	way_stop
}

lab_begin
for tool in "$RATE" "$CHURN" "$SLUICED" "$SLUICE"; do
	[[ -x $tool ]] || lab_die "$tool is not built: run make bench"
done
lab_up egress
nat_nftables_start edge1
# A rewritten socket gets its answer, whatever port it has; and the clients have ports enough.
lab_ip gw <<-END
	rule add to $SHARED lookup 101 pref 50
END
in_ns edge1 nft -f - <<-END
	table ip slab_bench {
		chain post {
			type nat hook postrouting priority srcnat - 1
			oifname "wan" ip saddr 10.1.0.0/16 tcp dport 7000-7031 snat to $SHARED:1024-65535
		}
	}
END
lab_sysctl edge1 net.netfilter.nf_conntrack_tcp_timeout_close=1
places=()
for ((n = 7000; n < 7032; n++)); do
	places+=("$ORIGIN:$n")
done
start_bg echo origin "$TALK" echo "${places[@]}"
wait_out echo 10 ready
for ((n = 0; n < rounds; n++)); do
	for way in "${WAYS[@]}"; do
		way_start "$way"
		for load in "${LOADS[@]}"; do
			cost_measure "$way" "$load"
		done
		way_stop
	done
done
cost_report
bench_delay
if [[ -n $json ]]; then
	[[ -s $json ]] || echo '{}' >"$json"
	jq --argjson r "$results" '.watch = $r' "$json" >"$json.new"
	mv "$json.new" "$json"
fi
exit "$failed"
