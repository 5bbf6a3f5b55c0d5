#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Leases measured, against what a program does without them: tests/bench/leases.sh [--json FILE] [--seconds S]
#
#   pairs      acquire and release through the library, 64 threads with a connection each, flat out and paced, every grant on the disk before it is answered;
#              against bind() and close() of a free port, which nobody else knows of
#   connect    TCP connections a second of an unchanged program under "sluice exec", against the same program without; UDP likewise
#   shared     one lease of 2048 ports carries 2048 x 50 connections at once, to 50 destinations
#
# Runs in the lab's namespaces. --json adds its results to FILE under "leases". Exit code 1 when a measure failed.
set -euo pipefail
export LC_ALL=C.UTF-8
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$(readlink -f "$0")")/../../netns-lab/lib.sh"

RATE=$LAB_BUILD/tools/rate
LEASEBENCH=$LAB_BUILD/tools/leasebench
ORIGIN=198.51.100.10
ROUNDS=5
DESTINATIONS=50
seconds=5
json=

while [[ $# -gt 0 ]]; do
	case $1 in
	--json) json=$2 ;;
	--seconds) seconds=$2 ;;
	*) lab_die "usage: leases.sh [--json FILE] [--seconds S]" ;;
	esac
	shift 2
done

results={}
failed=0

result() { # JQ-ARGUMENT...: an object to add
	results=$(jq -c "$@" <<<"$results")
}

# The median of numbers, one a line.
median() {
	sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

socket() {
	echo "$LAB_STATE/edge1/control.sock"
}

exec_rate() { # RATE-ARG...
	in_ns edge1 "$SLUICE" --socket "$(socket)" exec --pool default --count 128 -- "$RATE" --seconds 1 "$@" | jq .per_s
}

plain_rate() { # RATE-ARG...
	in_ns edge1 "$RATE" --seconds 1 "$@" | jq .per_s
}

# Connections a second with and without, in turns, so that whatever else goes on hits both.
bench_connect() { # NAME RATE-ARG...
	local name=$1 n plain exec

	shift
	for ((n = 0; n < ROUNDS; n++)); do
		plain_rate "$@" >>"$LAB_STATE/$name.plain"
		exec_rate "$@" >>"$LAB_STATE/$name.exec"
	done
	plain=$(median <"$LAB_STATE/$name.plain")
	exec=$(median <"$LAB_STATE/$name.exec")
	printf '%-10s %12.0f /s plain %12.0f /s exec     ratio %.3f\n' "connect $name" "$plain" "$exec" \
		"$(jq -n "$exec / $plain")"
	# shellcheck disable=SC2016 # jq's variables
	result --arg n "$name" --argjson p "$plain" --argjson e "$exec" \
		'.connect[$n] = {plain_per_s: $p, exec_per_s: $e, ratio: ($e / $p)}'
}

bench_pairs() { # BATCH [RATE]: pairs a second at most; without, as many as can be
	local out plain

	out=$(in_ns edge1 "$LEASEBENCH" --socket "$(socket)" --threads 64 --seconds "$seconds" --batch "$1" ${2:+--rate "$2"} --pool bench --proto udp) ||
		failed=1
	plain=$(in_ns edge1 "$RATE" --seconds 1 --bind "$SHARED:1" | jq .per_s)
	jq -r --argjson p "$plain" --argjson r "${2:-0}" '"pairs      batch \(.batch)\(if $r == 0 then "" else ", paced" end): \(.pairs_per_s|floor) /s, acquire p50 \(.acquire_p50_us) us, p99 \(.acquire_p99_us) us; bind+close \($p|floor) /s, ratio \(.pairs_per_s / $p * 1000 | floor / 1000); errors \(.errors) \(.first_error)"' <<<"$out"
	# shellcheck disable=SC2016 # jq's variables
	result --argjson o "$out" --argjson p "$plain" --argjson r "${2:-0}" \
		'.pairs += [$o + {paced_per_s: $r, bind_close_per_s: $p, ratio: ($o.pairs_per_s / $p)}]'
}

# One process for each destination, at both ends: a process may have fewer descriptors than that. All connections are held until the last
# process has verified an echo on each of its own.
bench_shared() {
	local n ok=0 begun most=0 now

	lab_sysctl edge1 net.ipv4.ip_local_port_range="1024 65535"
	for ((n = 0; n < DESTINATIONS; n++)); do
		ip -n slab-origin addr add "198.51.100.$((100 + n))/24" dev net
		start_bg "many-$n" origin "$TALK" echo "198.51.100.$((100 + n)):7000"
		wait_out "many-$n" 10 ready
	done
	mkfifo "$LAB_STATE/hold"
	exec 7<>"$LAB_STATE/hold"
	begun=$EPOCHSECONDS
	# shellcheck disable=SC2016 # the inner shell's
	start_bg shared edge1 "$SLUICE" --socket "$(socket)" exec --pool shared --count 2048 -- bash -c '
		for ((n = 0; n < $1; n++)); do
			"$2" --hold --timeout 60 2048 "198.51.100.$((100 + n)):7000" <"$3/hold" >"$3/files/verify.$n" 2>&1 &
		done
		wait' bash "$DESTINATIONS" "$MANY" "$LAB_STATE"
	verified() {
		now=$(in_ns edge1 ss -tnH state established src 203.0.113.8 | wc -l)
		((now <= most)) || most=$now
		ok=$(cat "$LAB_STATE"/files/verify.* | grep -o '"event":"verify","ok":[0-9]*' | awk -F: '{ n += $NF } END { print n + 0 }')
		[[ $(cat "$LAB_STATE"/files/verify.* | grep -c '"event":"verify"') -eq $DESTINATIONS ]]
	}
	wait_for 240 verified || failed=1
	verified || failed=1
	printf 'shared     2048 ports, %d destinations: %d connections verified, %d established at once, in %d s\n' \
		"$DESTINATIONS" "$ok" "$most" $((EPOCHSECONDS - begun))
	[[ $ok -eq $((2048 * DESTINATIONS)) ]] || failed=1
	# shellcheck disable=SC2016 # jq's variables
	result --argjson ok "$ok" --argjson most "$most" --argjson s $((EPOCHSECONDS - begun)) \
		'.shared = {ports: 2048, destinations: 50, verified: $ok, established_at_once: $most, seconds: $s}'
	exec 7>&-
	stop_bg shared || true
}

lab_begin
for tool in "$RATE" "$LEASEBENCH"; do
	[[ -x $tool ]] || lab_die "$tool is not built: run make bench"
done
lab_up egress
# A pool of its own for the pairs: 8 addresses, half a million ports, so that a second of cool-down is no bottleneck.
edge_conf edge1 'unleased = "allow"' 'leases { cool-down = 1 }' >/dev/null
cat >>"$LAB_STATE/edge1/sluice.conf" <<-END
	pool "bench" { addresses = { "203.0.113.64/29" } }
	pool "shared" { addresses = { "203.0.113.8" } slices = { "203.0.113.8:40960-43007" } }
END
ip -n slab-gw route add 203.0.113.8 via 192.0.2.11
sluiced_start edge1
start_bg echo origin "$TALK" echo "$ORIGIN:7000"
start_bg echo-udp origin "$TALK" echo --udp "$ORIGIN:7001"
wait_out echo 10 ready
wait_out echo-udp 10 ready
for batch in 1 8 64; do
	bench_pairs "$batch"
done
# Percentiles of a daemon that is busy, but not flooded: in a closed loop they are the number of clients divided by the rate.
bench_pairs 1 5000
bench_pairs 4 15000
bench_connect tcp "$ORIGIN:7000"
bench_connect udp --udp "$ORIGIN:7001"
bench_shared
if [[ -n $json ]]; then
	[[ -s $json ]] || echo '{}' >"$json"
	jq --argjson r "$results" '.leases = $r' "$json" >"$json.new"
	mv "$json.new" "$json"
fi
exit "$failed"
