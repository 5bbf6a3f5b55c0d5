#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Datagrams of 3000 bytes, in pieces: of clients and of sockets, both ways, in every order, with conntrack on the edge (which puts them together and cuts them
# again before they are translated) and without. And two machines behind one address that send to one sink: no datagram is made of pieces of two.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

PIECES=$LAB_BUILD/tools/pieces

# Identifications of the tool's own, none of them twice within the tracker's time.
ID=1

# One case: so many datagrams, each answered in full.
check_pieces() { # NAME HOST SEND-ARG...
	local name=$1 host=$2

	shift 2
	ID=$((ID + 100))
	if in_ns "$host" timeout 20 "$PIECES" send --id "$ID" "$@" >"$LAB_STATE/pieces" 2>&1; then
		test_ok "$name"
	else
		test_fail "$name" "$(cat "$LAB_STATE/pieces")"
	fi
}

test_clients() { # SUFFIX
	local order

	check_that "ping/out$1" "no echo in pieces" in_ns client ping -c 3 -i 0.1 -W 5 -s 3000 "$ORIGIN"
	check_pieces "udp/out$1" client --count 50 --window 4 10.1.0.2:5000 "$ORIGIN:7100"
	for order in 0123 0132 0213 1023 2031 3210 3120 1230; do
		check_pieces "udp/out-$order$1" client --count 5 --window 2 --order "$order" 10.1.0.2:5001 "$ORIGIN:7100"
	done
	# Answers whose first piece comes last, or in between.
	check_pieces "udp/in-3210$1" client --count 20 --window 4 10.1.0.2:5002 "$ORIGIN:7101"
	check_pieces "udp/in-1023$1" client --count 20 --window 4 10.1.0.2:5003 "$ORIGIN:7102"
}

test_sockets() {
	check_pieces socket/out edge1 --count 20 --window 4 "$SHARED:41000" "$ORIGIN:7100"
	check_pieces socket/in-3210 edge1 --count 20 --window 4 "$SHARED:41001" "$ORIGIN:7101"
	check_pieces socket/in-1023 edge1 --count 20 --window 4 "$SHARED:41002" "$ORIGIN:7102"
}

# Datagrams of the origin that were thrown away for their checksum: what a wrong piece does.
sum_errors() {
	# shellcheck disable=SC2016 # awk's variables
	in_ns origin awk '/^Udp:/ { for (i = 2; i <= NF; i++) if (!head) name[i] = $i; else if (name[i] == "InCsumErrors") print $i; head = 1 }' \
		/proc/self/net/snmp
}

# Both machines' datagrams have the same few identifications as they are made, and the sink sees one address.
test_one_sink() {
	local before

	# Otherwise the origin gives a datagram up when 64 pieces of the same source have come in between.
	lab_sysctl origin net.ipv4.ipfrag_max_dist=0
	before=$(sum_errors)
	start_bg sink origin "$PIECES" echo --short "$ORIGIN:7103"
	wait_out sink 10 ready
	start_bg one client timeout 20 "$PIECES" send --count 1500 --window 32 --mark 1 --id 10000 --ids 64 --order 0123 10.1.0.2:5004 "$ORIGIN:7103"
	start_bg two edge2 timeout 20 "$PIECES" send --count 1500 --window 32 --mark 2 --id 10000 --ids 64 --order 0123 "$SHARED:43100" "$ORIGIN:7103"
	wait_out one 20 "done" || true
	wait_out two 20 "done" || true
	stop_bg sink || true
	check sink/mixed "datagrams made of pieces of two" "$(bg_field sink report mixed)" -eq 0
	check sink/sums "datagrams with a wrong checksum" $(($(sum_errors) - before)) -eq 0
	check sink/edge1 "answers to edge1's client" "$(bg_field one "done" answered)" -eq 1500
	check sink/edge2 "answers to edge2" "$(bg_field two "done" answered)" -eq 1500
}

lab_begin
lab_up egress
edge_conf edge1 >/dev/null
edge_conf edge2 >/dev/null
# Later pieces have no ports to be routed by: but for whole answers of the sink, all go to edge1.
in_ns gw ip rule add to "$SHARED" ipproto udp dport "$(edge_slice edge2)" lookup main pref 80
in_ns gw ip rule add to "$SHARED" lookup 101 pref 90
sluiced_start edge1
sluiced_start edge2
start_bg echo origin "$PIECES" echo "$ORIGIN:7100"
start_bg echo-3210 origin "$PIECES" echo --order 3210 "$ORIGIN:7101"
start_bg echo-1023 origin "$PIECES" echo --order 1023 "$ORIGIN:7102"
wait_out echo 10 ready
wait_out echo-3210 10 ready
wait_out echo-1023 10 ready
test_clients ""
test_sockets
test_one_sink
in_ns edge1 nft -f - <<-END
	table ip track {
	    chain pre { type filter hook prerouting priority 0; ct state new counter; }
	}
END
test_clients +conntrack
check frag-late "pieces that waited in vain" "$(drops frag_late)" -eq 0
in_ns edge1 nft delete table ip track
check_pieces udp/out-twice client --count 5 --order 00112233 10.1.0.2:5001 "$ORIGIN:7100"
exit "$TEST_FAILED"
