#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A shared IPv6 address, beside IPv4 in one pool, and in a pool of its own: sockets send from it and are reached at it by lease only, "sluice exec" gives it to
# programs that know nothing of it, and from outside nothing else answers. What it takes on the host is set, and put back.
#
# The lab's IPv6: client 2001:db8:1::2, edge1 2001:db8:1::1 and 2001:db8:2::11, the gateway 2001:db8:2::1 and 2001:db8:3::1, the origin 2001:db8:3::10. The
# gateway has routes for 2001:db8:5::7 and 2001:db8:5::8, the shared addresses, to edge1.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

SHARED6=2001:db8:5::7
SECOND6=2001:db8:5::8 # of pool "six"
OWN6=2001:db8:2::11
ORIGIN6=2001:db8:3::10
SOCKET=$LAB_STATE/edge1/control.sock
UDP_ECHO=$LAB_BUILD/examples/udp-echo
CRAWLER=$LAB_BUILD/examples/crawler
USER=(setpriv --reuid 4321 --regid 4321 --clear-groups)

ipv6_up() {
	local host

	for host in client edge1 gw origin; do
		lab_sysctl "$host" net.ipv6.conf.all.disable_ipv6=0
	done
	lab_sysctl gw net.ipv6.conf.all.forwarding=1
	# Not edge1: sockets need no forwarding.
	lab_ip client <<-END
		addr add 2001:db8:1::2/64 dev net nodad
		route add default via 2001:db8:1::1
	END
	lab_ip edge1 <<-END
		addr add 2001:db8:1::1/64 dev lan nodad
		addr add $OWN6/64 dev wan nodad
		route add default via 2001:db8:2::1
	END
	lab_ip gw <<-END
		addr add 2001:db8:2::1/64 dev wan nodad
		addr add 2001:db8:3::1/64 dev origin nodad
		route add $SHARED6 via $OWN6
		route add $SECOND6 via $OWN6
		route add 2001:db8:1::/64 via $OWN6
	END
	lab_ip origin <<-END
		addr add $ORIGIN6/64 dev net nodad
		route add default via 2001:db8:3::1
	END
	wait_for 10 in_ns edge1 ping -6 -q -c 1 -W 0.2 "$ORIGIN6" || lab_die "edge1 does not reach the origin by IPv6"
}

# Both families in one pool, which refuses whoever has no lease; and a pool of IPv6 alone.
edge_conf6() {
	edge_conf edge1 "unleased = \"deny\" addresses += \"$SHARED6\" slices += \"[$SHARED6]:$(edge_slice edge1)\"" "
	pool six { addresses = \"$SECOND6\" slices = \"[$SECOND6]:$(edge_slice edge1)\" no-nat = ::/0 }" >/dev/null
}

# What the gateway gets from edge1, by what it should not be.
wire6_start() {
	in_ns gw nft -f - <<-END
		table ip6 slab_wire {
			counter shared { }
			counter outside { }
			counter own { }
			chain pre {
				type filter hook prerouting priority raw
				iifname "wan" ip6 saddr { $SHARED6, $SECOND6 } counter name shared
				iifname "wan" ip6 saddr { $SHARED6, $SECOND6 } meta l4proto { tcp, udp } th sport != $(edge_slice edge1) counter name outside
				iifname "wan" ip6 saddr { $SHARED6, $SECOND6 } icmpv6 type echo-request icmpv6 id != $(edge_slice edge1) counter name outside
				iifname "wan" ip6 saddr { $SHARED6, $SECOND6 } icmpv6 type != echo-request counter name outside
				iifname "wan" ip6 saddr { $SHARED6, $SECOND6 } meta l4proto != { tcp, udp, icmpv6 } counter name outside
				iifname "wan" ip6 saddr $OWN6 ip6 daddr 2001:db8:3::/64 counter name own
			}
		}
	END
}

wire6() { # COUNTER
	in_ns gw nft -j list counter ip6 slab_wire "$1" | jq '[.. | .counter? // empty | .packets] | add'
}

# The text of a finding of the doctor, "severity: text" a line.
finding() { # ID
	in_ns edge1 "$SLUICE" --socket "$SOCKET" -j doctor -f "$(conf_file)" 2>&1 | jq -r ".findings[] | select(.id == \"$1\") | .severity + \": \" + .text"
}

host6() {
	in_ns edge1 sysctl -n net.ipv6.ip_nonlocal_bind
	in_ns edge1 ip -6 route show table all
}

lease() { # ARG...: sets ID and PORT
	run_ctl -j acquire "$@"
	[[ $RC -eq 0 ]] || test_fail lease "sluice acquire $*: $SAID"
	ID=$(jq -r '.leases[0].id' <<<"$SAID")
	PORT=$(jq -r '.leases[0].first' <<<"$SAID")
}

end_leases() {
	local id

	for id in $(sluice_ctl edge1 -j leases | jq '.leases[] | select(.state == "active") | .id'); do
		sluice_ctl edge1 release "$id" >/dev/null
	done
}

run_exec() { # EXEC-OPTION... -- COMMAND...
	RC=0
	SAID=$(in_ns edge1 timeout 60 "$SLUICE" --socket "$SOCKET" exec --pool default "$@" 2>/dev/null </dev/null) || RC=$?
}

# Before any daemon: what is in the way is said.
test_refused() {
	check_text refused/bind "$(finding sysctl.ip_nonlocal_bind)" '^warn: net.ipv6.ip_nonlocal_bind is 0'
	check_text refused/route "$(finding route.local)" '^warn: 3 of 3 shared addresses have no local route'
	lab_sysctl edge1 net.ipv6.conf.lo.disable_ipv6=1
	check_text refused/lo "$(finding ipv6)" '^error: IPv6 is disabled on lo'
	check_refused refused/start "local route for $SHARED6 on lo can't be added: IPv6 is disabled there"
	lab_sysctl edge1 net.ipv6.conf.lo.disable_ipv6=0
	lab_sysctl edge1 net.ipv6.conf.wan.disable_ipv6=1
	check_text refused/uplink "$(finding ipv6)" '^error: IPv6 is disabled on uplink wan'
	lab_sysctl edge1 net.ipv6.conf.wan.disable_ipv6=0
	lab_ip edge1 <<-END
		addr add $OWN6/64 dev wan nodad
		route replace default via 2001:db8:2::1
	END
	run_there "$SLUICED" --teardown -f "$(conf_file)"
}

test_host() {
	local routes

	routes=$(in_ns edge1 ip -6 route show table local)
	check_text host/route "$routes" "^local $SHARED6 dev lo proto 86 "
	check_text host/route-second "$routes" "^local $SECOND6 dev lo proto 86 "
	check host/nonlocal "net.ipv6.ip_nonlocal_bind" "$(in_ns edge1 sysctl -n net.ipv6.ip_nonlocal_bind)" -eq 1
	check host/forwarding "net.ipv6.conf.all.forwarding" "$(in_ns edge1 sysctl -n net.ipv6.conf.all.forwarding)" -eq 0
	check_text host/doctor-route "$(finding route.local)" '^ok: 3 of 3 shared'
	check_text host/doctor-bind "$(finding sysctl.ip_nonlocal_bind)" '^ok: .* is 1'
	check host/doctor-ipv6 "what is wrong with IPv6" "$(finding ipv6)" = ""
	# Neither a pool's name nor a text says so: what the data plane has.
	check host/slices "slices" "$(sluice_ctl edge1 -j slices | jq '[.slices[] | select(.address == "2001:db8:5::7")] | length')" -eq 1
}

# The gateway asks on the link for the address, and nobody answers: it is reached by the route only.
test_neighbour() {
	in_ns gw ip -6 route replace "$SHARED6" dev wan
	in_ns gw ip -6 neigh flush dev wan
	lab_sysctl gw net.ipv6.neigh.wan.mcast_solicit=1 net.ipv6.neigh.wan.retrans_time_ms=200
	check_not neighbour/ping "somebody answers" in_ns gw ping -6 -q -c 1 -W 2 "$SHARED6"
	check_text neighbour/entry "$(in_ns gw ip -6 neigh show "$SHARED6" dev wan)" FAILED
	lab_sysctl gw net.ipv6.neigh.wan.mcast_solicit=3
	in_ns gw ip -6 route replace "$SHARED6" via "$OWN6"
	wait_for 10 in_ns gw ping -6 -q -c 1 -W 0.2 "$OWN6" || true
}

# Sends from there and gets no answer: nothing leaves, and it is counted.
check_held() { # NAME REASON TALK-ARG...
	local name=$1 reason=$2 before seen

	shift 2
	before=$(drops "$reason")
	seen=$(wire6 shared)
	in_ns edge1 "${USER[@]}" timeout 5 "$TALK" connect --timeout 2 "$@" "[$ORIGIN6]:7000" <<<hello >/dev/null 2>&1 || true
	check "$name/counted" "packets dropped as $reason" $(($(drops "$reason") - before)) -ge 1
	check "$name/wire" "packets on the wire" $(($(wire6 shared) - seen)) -eq 0
}

test_guard() {
	check_held guard/outside escape --bind "[$SHARED6]:50000"
	check_held guard/below escape --bind "[$SHARED6]:40959"
	check_held guard/udp escape --udp --bind "[$SHARED6]:43008"
	check_held guard/unleased unleased --bind "[$SHARED6]:41000"
	# Of the other address in the pool, and of another user, it is another's port.
	lease --address "$SHARED" --proto tcp --exclusive
	check_held guard/other-address unleased --bind "[$SHARED6]:$PORT"
	lease --address "$SHARED6" --proto tcp --exclusive
	check_held guard/other-user unleased --bind "[$SHARED6]:$PORT"
	check guard/ping "pings without a port of ours" "$(in_ns edge1 ping -6 -q -c 1 -W 1 -e 9 -I "$SHARED6" "$ORIGIN6" >/dev/null 2>&1; wire6 outside)" -eq 0
	end_leases
}

test_socket() {
	lease --address "$SHARED6" --proto tcp
	check_text socket/lease "$SAID" "\"$SHARED6\""
	check_that socket/tcp "no answer" talk_once edge1 --bind "[$SHARED6]:$PORT" "[$ORIGIN6]:7000"
	check_text socket/tcp-source "$(cat "$(bg_out echo6)")" "\"peer\":\"$SHARED6\",\"port\":$PORT,"
	lease --address "$SHARED6" --proto udp --exclusive
	check_that socket/udp "no answer" talk_once edge1 --udp --bind "[$SHARED6]:$PORT" "[$ORIGIN6]:7000"
	check_text socket/listed "$(sluice_ctl edge1 leases)" "\[$SHARED6\]:$PORT "
	run_ctl who "[$SHARED6]:$PORT"
	check socket/who "exit code" "$RC" -eq 0
	# From the daemon, by the library, for a user without rights of any kind; shared: each port to every destination.
	RC=0
	SAID=$(in_ns edge1 env "SLUICE_SOCKET=$SOCKET" timeout 60 "$CRAWLER" --pool six --ports 16 --connections 64 \
		"[$ORIGIN6]:7000" "[$ORIGIN6]:7002" "[$ORIGIN6]:7003" "[$ORIGIN6]:7004" 2>&1) || RC=$?
	check_text socket/crawler "$SAID" "^64 connections to 4 destinations from $SECOND6:.*: 64 verified, 0 wrong, 0 failed"
	end_leases
}

# With leased listeners of both kinds, and programs that listen on everything.
test_reached() {
	local tcp udp port

	lease --address "$SHARED6" --proto tcp --exclusive
	tcp=$PORT
	lease --address "$SHARED6" --proto udp --exclusive
	udp=$PORT
	start_bg service edge1 "$TALK" echo "[$SHARED6]:$tcp"
	wait_out service 10 ready
	start_bg registered edge1 env "SLUICE_SOCKET=$SOCKET" "$UDP_ECHO" --lease "$ID"
	wait_out registered 10 "^lease $ID: $SHARED6:$udp"
	for port in 41000 2222; do
		start_bg "any-$port" edge1 "$TALK" echo "[::]:$port"
		start_bg "any-udp-$port" edge1 "$TALK" echo --udp "[::]:$port"
		wait_out "any-$port" 10 ready
		wait_out "any-udp-$port" 10 ready
	done
	check_that reached/tcp "the leased listener" in_ns origin timeout 10 "$MANY" --timeout 5 5 "[$SHARED6]:$tcp"
	check_that reached/udp "the registered socket" in_ns origin timeout 10 "$MANY" --udp --timeout 5 5 "[$SHARED6]:$udp"
	check_that reached/own "the wildcard listener at the machine's own address" in_ns origin timeout 10 "$MANY" --timeout 5 1 "[$OWN6]:41000"
	check_text reached/listed "$(sluice_ctl edge1 sockets)" "^tcp +\[$SHARED6\]:$tcp .* talk$"
	check_not reached/wildcard "a wildcard listener in the slice" in_ns origin timeout 5 "$MANY" --timeout 2 1 "[$SHARED6]:41000"
	check_not reached/wildcard-udp "a wildcard socket in the slice" in_ns origin timeout 5 "$MANY" --udp --timeout 2 1 "[$SHARED6]:41000"
	check_not reached/wildcard-outside "a wildcard listener outside" in_ns origin timeout 5 "$MANY" --timeout 2 1 "[$SHARED6]:2222"
	check_not reached/inner "a wildcard listener, from the inner side" in_ns client timeout 5 "$MANY" --timeout 2 1 "[$SHARED6]:41000"
	check_not reached/ping "an echo" in_ns origin ping -6 -q -c 1 -W 1 "$SHARED6"
	if command -v nmap >/dev/null; then
		check nmap/syn "ports that are not filtered" "$(scan syn -sS -p 1-65535)" = "$tcp/open/tcp "
		check nmap/ack "ports that answer an ACK" "$(scan ack -sA -p 40960-43007,2222)" = ""
		check nmap/udp "UDP ports that answer" "$(scan udp -sU -p "$((udp - 100))-$((udp + 100)),41000,2222,53,123")" = "$udp/open/udp "
	else
		echo "skip nmap: not installed"
	fi
	for port in service registered any-41000 any-udp-41000 any-2222 any-udp-2222; do
		stop_bg "$port" || true
	done
	end_leases
}

scan() { # NAME NMAP-OPTION...
	local name=$1 report=$LAB_STATE/nmap.$1

	shift
	in_ns origin timeout 280 nmap -6 -n -Pn --max-retries 0 --min-rate 8000 -oG "$report" "$@" "$SHARED6" >/dev/null 2>&1
	grep -oE '[0-9]+/(open|closed|unfiltered)/(tcp|udp)' "$report" | sort -u | tr '\n' ' '
}

# What a program sees: its connection, or the error, and how long it took.
exec_talk() { # ADDRESS TALK-ARG...
	local address=$1

	shift
	run_exec --address "$address" -- "$TALK" connect --timeout 5 "$@"
}

test_exec() {
	local own

	own=$(wire6 own)
	run_exec --address "$SHARED6" -- curl -6 -sS --max-time 10 -o "$(lab_dir)/got" "http://[$ORIGIN6]:8080/bytes/100000/7"
	check exec/curl "exit code" "$RC" -eq 0
	check exec/content "sum" "$(sha256sum <"$(lab_dir)/got")" = "$("$HTTP" bytes 100000 7 | sha256sum)"
	exec_talk "$SHARED6" "[$ORIGIN6]:7005"
	check exec/tcp "exit code" "$RC" -eq 0
	check_text exec/tcp-source "$(cat "$(bg_out echo6)")" "\"peer\":\"$SHARED6\",\"port\":4[0-9]*,\"local_port\":7005"
	run_exec --address "$SHARED6" --count 8 -- "$MANY" --udp --timeout 5 8 "[$ORIGIN6]:7000"
	check exec/udp "exit code" "$RC" -eq 0
	run_exec --address "$SHARED6" --count 8 -- "$MANY" --timeout 5 8 "[$ORIGIN6]:7000"
	check exec/many "exit code" "$RC" -eq 0
	# Its own machine, the gateway on the link: as ever.
	start_bg local6 edge1 "$TALK" echo '[::1]:7100'
	wait_out local6 10 ready
	exec_talk "$SHARED6" '[::1]:7100'
	check exec/loopback "exit code" "$RC" -eq 0
	exec_talk "$SHARED6" 127.0.0.1:7100
	check_text exec/loopback4 "$SAID" '"errno":"ECONNREFUSED"'
	stop_bg local6 || true
	# What hooks cannot serve is translated at the uplink, with an identifier out of the lease.
	run_exec --address "$SHARED6" -- ping -6 -q -c 1 -W 1 "$ORIGIN6"
	check exec/ping "exit code" "$RC" -eq 0
	check exec/own "packets with the machine's own address" $(($(wire6 own) - own)) -eq 0
}

# A lease is of one address, and so of one family. The other one does not exist for the program, which it learns at once.
test_families() {
	local own

	defaults
	own=$(wire6 own)
	watch_wire own4 --source 192.0.2.11
	exec_talk "$SHARED6" "$ORIGIN:7000"
	check_text families/v4-with-v6 "$SAID" '"connected":false.*"errno":"ENETUNREACH"'
	exec_talk "$SHARED" "[$ORIGIN6]:7000"
	check_text families/v6-with-v4 "$SAID" '"connected":false.*"errno":"ENETUNREACH"'
	exec_talk "$SHARED" --udp "[$ORIGIN6]:7000"
	check_text families/v6-with-v4-udp "$SAID" '"connected":false.*"errno":"ENETUNREACH"'
	run_exec --address "$SHARED" -- curl -6 -s --max-time 10 "http://[$ORIGIN6]:8080/bytes/1/7"
	check families/curl-6 "exit code of curl: can't connect" "$RC" -eq 7
	run_exec --address "$SHARED6" -- curl -4 -s --max-time 10 "http://$ORIGIN:8080/bytes/1/7"
	check families/curl-4 "exit code of curl: can't connect" "$RC" -eq 7
	# A name with addresses of both families: the program tries until one answers.
	happy "$SHARED6"
	check families/happy-6 "whom curl reached" "$SAID" = "$ORIGIN6"
	happy "$SHARED"
	check families/happy-4 "whom curl reached" "$SAID" = "$ORIGIN"
	check families/own6 "IPv6 packets with the machine's own address" $(($(wire6 own) - own)) -eq 0
	check families/own4 "IPv4 packets with the machine's own address" "$(wire_packets own4)" -eq 0
}

# Which address a lease has when the request names none: IPv4 where there is some.
defaults() {
	local addresses=

	for _ in 1 2 3 4 5 6 7 8; do
		run_ctl -j acquire --pool default
		addresses+="$(jq -r '.leases[0].address' <<<"$SAID") "
	done
	check families/default "addresses of leases in a pool of both families" "$(tr ' ' '\n' <<<"$addresses" | grep -v '^$' | sort -u)" = "$SHARED"
	lease --pool six
	check families/only-ipv6 "address of a lease in a pool of IPv6 alone" "$(jq -r '.leases[0].address' <<<"$SAID")" = "$SECOND6"
	end_leases
}

happy() { # LEASE-ADDRESS
	run_exec --address "$1" -- curl -s --max-time 10 -o /dev/null -w '%{remote_ip}' \
		--resolve "www.lab.test:8080:$ORIGIN,[$ORIGIN6]" http://www.lab.test:8080/bytes/10/7
}

# Clients: IPv4 is translated to the pool's IPv4 address, never to the other; IPv6 that is nobody's client passes as it is where the host forwards it.
test_clients() {
	watch_wire translated --source "$SHARED" --ports "$(edge_slice edge1)"
	check_that clients/ipv4 "no new flows" new_flows
	stop_bg translated || true
	check clients/ipv4-source "packets from the pool's IPv4 address" "$(bg_field translated report packets)" -gt 20
	lab_sysctl edge1 net.ipv6.conf.all.forwarding=1
	check_that clients/ipv6 "IPv6 through the edge" in_ns client timeout 10 "$MANY" --timeout 5 5 "[$ORIGIN6]:7006"
	check_text clients/ipv6-source "$(cat "$(bg_out echo6)")" '"peer":"2001:db8:1::2",.*"local_port":7006'
	lab_sysctl edge1 net.ipv6.conf.all.forwarding=0
}

# What somebody takes away is seen, and put back; what the configuration does not want any more goes.
test_reload() {
	lab_sysctl edge1 net.ipv6.conf.lo.disable_ipv6=1
	lab_sysctl edge1 net.ipv6.conf.lo.disable_ipv6=0
	check_text reload/lost "$(finding route.local)" '^warn: 2 of 3 shared addresses have no local route'
	run_ctl reload
	check reload/code "exit code" "$RC" -eq 0
	check_text reload/back "$(finding route.local)" '^ok: 3 of 3 shared'
	conf_edit '/^	pool six/d; s/addresses += [^ ]*//; s/slices += [^ ]*//'
	run_ctl reload
	check reload/without "exit code: $SAID" "$RC" -eq 0
	check reload/gone "routes and setting" "$(host6)" = "$before"
	check reload/ipv4 "local route of the IPv4 address" "$(in_ns edge1 ip -4 route show table local proto 86 | wc -l)" -eq 1
}

lab_begin
lab_up egress
ipv6_up
edge_conf6
wire6_start
test_refused
before=$(host6)
sluiced_start edge1
echo_start
start_bg echo6 origin "$TALK" echo "[$ORIGIN6]:"{7000,7002,7003,7004,7005,7006}
start_bg echo6-udp origin "$TALK" echo --udp "[$ORIGIN6]:7000"
start_bg web origin "$HTTP" serve "[$ORIGIN6]:8080" "$ORIGIN:8080"
wait_out echo6 10 ready
wait_out echo6-udp 10 ready
wait_out web 10 ready
test_host
test_neighbour
test_guard
test_socket
test_reached
test_exec
test_families
test_clients
check outside "packets from a shared address that are not of the slice" "$(wire6 outside)" -eq 0
check inside "packets from a shared address" "$(wire6 shared)" -gt 100
test_reload
edge_conf6
run_ctl reload
check reload/again "exit code: $SAID" "$RC" -eq 0
sluiced_stop edge1
run_there "$SLUICED" --teardown -f "$(conf_file)"
check teardown/code "exit code" "$RC" -eq 0
check teardown/host "routes and setting" "$(host6)" = "$before"
exit "$TEST_FAILED"
