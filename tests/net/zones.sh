#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Two customers with the same addresses, told apart by the interface that they come in by: same inner ends, same destination, at the same time. What comes back goes to the
# right one, also when its interface has been made anew.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

SHARED2=203.0.113.8
SAME=10.1.0.2

# edge2 plays the second customer's client.
other_customer() {
	lab_ip edge1 <<-END
		link add lanb type veth peer name netb netns slab-edge2
		addr add 10.1.0.1/16 dev lanb
		link set lanb up
	END
	lab_ip edge2 <<-END
		addr add $SAME/16 dev netb
		link set netb up
		route replace default via 10.1.0.1 dev netb
	END
}

other_works() {
	in_ns edge2 ping -I "$SAME" -q -c 1 -W 0.2 "$ORIGIN"
}

hello() { # NAME
	bg_ask "$1" 10 hello
}

# Both talk from the same port to the same end.
check_both() { # NAME PORT
	local name=$1 port=$2 proto host opt

	for proto in tcp udp; do
		opt=()
		[[ $proto == tcp ]] || opt=(--udp)
		for host in client edge2; do
			start_bg "$host" "$host" "$TALK" connect "${opt[@]}" --bind "$SAME:$port" --timeout 10 "$ORIGIN:$([[ $proto == udp ]] && echo 7001 || echo 7000)"
			wait_out "$host" 10 '"connected":true' || true
		done
		for host in client edge2 client edge2; do
			check_text "$name/$proto/$host" "$(hello "$host")" '"ok":true'
		done
		if [[ $proto == tcp ]]; then
			check "$name/peers" "connections that the origin has from either address" \
				"$(in_ns origin ss -tnH state established "( sport = :7000 )" | grep -cE "($SHARED|$SHARED2):" || true)" -eq 2
		fi
		stop_bg client || true
		stop_bg edge2 || true
	done
	for host in client edge2; do
		check_text "$name/ping/$host" "$(in_ns "$host" ping -I "$SAME" -c 2 -i 0.2 -W 5 "$ORIGIN" 2>&1)" 'ttl=62'
	done
}

lab_begin
lab_up egress
in_ns gw ip route add "$SHARED2" via 192.0.2.11
other_customer
edge_conf edge1 'interfaces = { "lan" }' >/dev/null
cat >>"$(conf_file)" <<-END
	pool "other" {
	    addresses  = { "$SHARED2" }
	    slice-size = 2048
	    slices     = { "$SHARED2:$(edge_slice edge1)" }
	    clients    = { "10.1.0.0/16" }
	    interfaces = { "lanb" }
	}
END
sluiced_start edge1
echo_start
check_both both 4000
check both/flows "flows of the two pools with the same inner end" \
	"$(sluice_ctl edge1 -j flows --client "$SAME" --port 4000 --proto tcp | jq '[.flows[].pool] | unique | length')" -eq 2
# And many at once.
check_that both/many "flows of the first" in_ns client timeout 20 "$MANY" --timeout 5 50 "$ORIGIN:7000"
check_that both/many-other "flows of the other" in_ns edge2 timeout 20 "$MANY" --timeout 5 50 "$ORIGIN:7000"

# The other's interface goes and comes: it is known by its name.
in_ns edge1 ip link del lanb
other_customer
check_that again/known "the new interface is not known" wait_for 15 other_works
check_both again 4001
# Nothing of theirs has left as it was.
watch_wire inner --source "$SAME"
check_both watched 4002
check watched/wire "untranslated packets on the wire" "$(wire_packets inner)" -eq 0
exit "$TEST_FAILED"
