#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The watcher, case by case, where conntrack is the NAT: what it must not tell, what it tells before it happens, whom it names, how it helps, and what it makes of a restart,
# lost events, several namespaces, and a reload. net/watch does the same by thousands.
#
# That nothing is told is never waited for. Something that has to be told comes afterwards, and then nothing else may be there.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

HAND=$LAB_BUILD/tools/hand
CHURN=$LAB_BUILD/tools/churn
DIR=$LAB_STATE/edge1
LINES=$LAB_STATE/told
TCP=$ORIGIN:7000
UDP=$ORIGIN:7001
PORT=41000 # each case takes the next one

# ---- the watcher ----

conf() { # WATCH-KEYS [TOP-LINES]
	mkdir -p "$DIR/state"
	cat >"$(conf_file)" <<-END
		machine = "edge1"
		state-dir = "$DIR/state"
		control = "$DIR/control.sock"
		${2:-}
		watch { $1 }
	END
}

monitors() {
	[[ $(sluice_ctl edge1 -j status | jq .control.monitors) -ge 1 ]]
}

# Have all that is told from now on in a file.
follow() {
	end follow
	start_bg follow edge1 "$SLUICE" --socket "$DIR/control.sock" -j collisions --follow
	wait_for 10 monitors || lab_die "the watcher cannot be followed"
}

watch_again() {
	start_bg sluiced-edge1 edge1 "$SLUICED" --watch-only -d -f "$(conf_file)"
	wait_for 10 lab_sluiced_answers edge1 || lab_die "sluiced --watch-only did not come up"
	follow
}

watch_start() { # WATCH-KEYS [TOP-LINES]
	sluiced_stop edge1
	rm -rf "$DIR/state"
	conf "$@"
	watch_again
}

# All that was told, an object a line, newest first.
list() {
	sluice_ctl edge1 -j collisions --limit 1000000 | jq -c '.collisions[]'
}

# Those of a kind with this bound port.
listed() { # KIND PORT
	list | jq -c "select(.kind == \"$1\" and .bound_port == $2)"
}

is_told() { # KIND PORT [COUNT]
	[[ $(grep -F "\"kind\":\"$1\"" "$(bg_out follow)" | grep -cF "\"bound_port\":$2,") -ge ${3:-1} ]]
}

is_listed() { # KIND PORT
	listed "$@" | grep .
}

told_within() { # S KIND PORT [COUNT]
	wait_for "$1" is_told "${@:2}"
}

watch_stat() { # JQ-PATH
	sluice_ctl edge1 -j status | jq ".watch.$1"
}

stat_reaches() { # JQ-PATH COUNT
	[[ $(watch_stat "$1") -ge $2 ]]
}

# ---- who wants a tuple ----

next_port() {
	PORT=$((PORT + 1))
}

# A client's connection, which the edge sends from $PORT.
flow() { # NAME [DESTINATION]
	start_bg "$1" client "$TALK" connect --bind "10.1.0.2:$PORT" "${2:-$TCP}"
	wait_out "$1" 10 '"connected":true'
}

flow_udp() { # NAME [DESTINATION]
	start_bg "$1" client "$TALK" connect --udp --bind "10.1.0.2:$PORT" "${2:-$UDP}"
	[[ $(bg_ask "$1" 10 bound) == *'"bound"'* ]] || true
	wait_out "$1" 10 '"event":"connect"'
	bg_send "$1" hello
	wait_out "$1" 10 '"ok":true'
}

# Run a program on the edge with the shared address and $PORT.
sock() { # NAME COMMAND... with "--bind" put before the last argument
	start_bg "$1" edge1 "${@:2:$#-2}" --bind "$SHARED:$PORT" "${@: -1}"
}

echoes() { # NAME
	[[ $(bg_ask "$1" 10 "over $1") == *'"ok":true'* ]]
}

end() { # NAME...
	local name

	for name; do
		stop_bg "$name" || true
	done
}

# Does conntrack have an entry from this address and $PORT?
entry() { # ADDRESS
	in_ns edge1 conntrack -L -p tcp --orig-src "$1" --orig-port-src "$PORT" 2>/dev/null | grep .
}

# One more rewrite, which has to be told: whatever was to come before it has come then. Sets $MARK, its port.
mark() {
	next_port
	MARK=$PORT
	flow mark
	sock mark-sock "$TALK" connect "$TCP"
	told_within 10 rewrite "$MARK" || test_fail "mark" "a rewrite of port $MARK was not told"
	end mark mark-sock
}

# As with mark(), for what is told before it happens.
mark_risk() {
	next_port
	MARK=$PORT
	flow mark
	sock mark-sock "$TALK" connect --wait "$TCP"
	told_within 10 risk "$MARK" || test_fail "mark-risk" "a risk at port $MARK was not told"
	end mark mark-sock
}

# ---- the cases ----

test_quiet() {
	local n marked

	in_ns edge1 nft -f - <<-END
		table ip slab_more {
			ct helper ftp { type "ftp" protocol tcp; }
			chain raw {
				type filter hook prerouting priority raw
				tcp dport 7003 ct zone set 5
				ip saddr $ORIGIN tcp sport 7003 ct zone set 5
			}
			chain raw_out {
				type filter hook output priority raw
				tcp dport 7003 ct zone set 5
			}
			chain helper {
				type filter hook output priority filter
				tcp dport 7004 ct helper set "ftp"
			}
			chain helper_forward {
				type filter hook forward priority filter
				tcp dport 7004 ct helper set "ftp"
			}
			chain pre {
				type nat hook prerouting priority dstnat
				ip daddr 192.0.2.11 tcp dport 8080 dnat to 10.1.0.2:7777
			}
			chain out {
				type nat hook output priority -100
				ip daddr 198.51.100.99 tcp dport 80 dnat to $TCP
			}
			chain post {
				type nat hook postrouting priority srcnat - 1
				oifname "wan" ip saddr 10.1.0.0/16 tcp dport 7002 masquerade
				oifname "lan" ip saddr 10.1.0.0/16 ct status dnat masquerade
			}
		}
	END
	start_bg inside client "$TALK" echo 10.1.0.2:7777
	wait_out inside 10 ready
	watch_start 'netns = { "" }'

	# Destination NAT, from outside and of a socket of the edge, and there and back at once.
	check_that quiet/dnat-works "no connection" talk_once origin 192.0.2.11:8080
	check_that quiet/local-dnat-works "no connection" talk_once edge1 198.51.100.99:80
	check_that quiet/hairpin-works "no connection" talk_once client --bind 10.1.1.5:0 192.0.2.11:8080
	# Sockets of the edge that nothing stands in the way of, with and without a port of their own.
	check_that quiet/plain-works "no connection" talk_once edge1 "$TCP"
	next_port
	check_that quiet/bound-works "no connection" talk_once edge1 --bind "$SHARED:$PORT" "$TCP"
	# An address that nobody shares; two clients with one port, of which one has to give way.
	next_port
	flow masq1 "$ORIGIN:7002"
	start_bg masq2 client "$TALK" connect --bind "10.1.1.6:$PORT" "$ORIGIN:7002"
	wait_out masq2 10 '"connected":true'
	# The same towards the shared address, by the hundred.
	next_port
	flow snat1 198.51.100.12:7000
	start_bg snat2 client "$TALK" connect --bind "10.1.1.6:$PORT" 198.51.100.12:7000
	wait_out snat2 10 '"connected":true'
	check_that quiet/snat-works "connections broke" in_ns client "$MANY" 300 198.51.100.12:7000
	# A zone that somebody made, and a helper's connection: rewritten, both, and both on purpose.
	for n in 7003 7004; do
		next_port
		flow "flow$n" "$ORIGIN:$n"
		sock "sock$n" "$TALK" connect --timeout 1 "$ORIGIN:$n"
		wait_out "sock$n" 10 '"event":"connect"' || true
		check "quiet/rewritten-$n" "entries of the socket that have another port" \
			"$(in_ns edge1 conntrack -L -p tcp --orig-src "$SHARED" --orig-dst "$ORIGIN" --orig-port-src "$PORT" --orig-port-dst "$n" 2>/dev/null | grep -vc "dport=$PORT ")" -eq 1
	done
	mark
	marked=$MARK
	mark_risk
	check quiet/nothing "told besides the two that had to be: $(list | jq -c '[.kind, .bound, .dst]' | tr '\n' ' ')" \
		"$(list | jq -c "select(.bound_port != $marked and .bound_port != $MARK)" | wc -l)" -eq 0
	check quiet/once "times that it was told" "$(listed rewrite "$marked" | wc -l)" -eq 1
	end masq1 masq2 snat1 snat2 flow7003 flow7004 sock7003 sock7004 inside
	# Each of the hundreds has a port of the slice for a while that a later case may want.
	in_ns edge1 conntrack -D -p tcp --orig-dst 198.51.100.12 >/dev/null 2>&1 || true
	in_ns edge1 nft delete table ip slab_more
}

test_row() {
	local row

	next_port
	flow f
	sock s "$TALK" connect "$TCP"
	wait_out s 10 '"event":"connect"'
	told_within 5 rewrite "$PORT" || true
	row=$(listed rewrite "$PORT")
	check row/one "rows" "$(wc -l <<<"$row")" -eq 1
	check row/wire "the port on the wire, as conntrack has it" "$(jq .wire_port <<<"$row")" -eq \
		"$(in_ns edge1 conntrack -L -p tcp --orig-src "$SHARED" --orig-port-src "$PORT" 2>/dev/null | grep -o 'dport=[0-9]*' | tail -n 1 | cut -d= -f2)"
	check row/who "whose socket" "$(jq -r '"\(.socket.pid) \(.socket.comm) \(.socket.uid) \(.src) \(.dst) \(.proto)"' <<<"$row")" = \
		"$(bg_pid s) talk 0 $SHARED $TCP tcp"
	check row/owner "the other user" "$(jq -r '.owner | "\(.kind) \(.src):\(.sport) \(.dst):\(.dport)"' <<<"$row")" = "flow 10.1.0.2:$PORT $TCP"
	check row/inode "sockets with that inode" "$(in_ns edge1 ss -tnHe | grep -c "ino:$(jq .socket.inode <<<"$row") ")" -eq 1
	check row/delay "microseconds that it took to tell" "$(jq .delay_us <<<"$row")" -lt 1000000
	check row/not-healed "healed" "$(jq .healed <<<"$row")" = false
	check_that row/works "the connection was touched" echoes s
	end f s
}

test_pids() {
	local how

	for how in fork pass; do
		next_port
		flow f
		sock s "$HAND" "$how" "$TCP"
		wait_out s 10 bound
		bg_send s go
		wait_out s 10 '"event":"connect"'
		told_within 5 rewrite "$PORT" || true
		check "pid/$how" "who has it" "$(listed rewrite "$PORT" | jq .socket.pid)" -eq "$(bg_field s connect pid)"
		check "pid/$how-other" "the process that bound it" "$(bg_field s bound pid)" -ne "$(bg_field s connect pid)"
		end f s
	done

	# UDP, connected and not.
	next_port
	flow_udp f
	sock s "$TALK" connect --udp "$UDP"
	wait_out s 10 '"event":"connect"'
	check_that udp/connected-works "no answer" echoes s
	told_within 5 rewrite "$PORT" || true
	check udp/connected "told" "$(listed rewrite "$PORT" | jq -r '"\(.proto) \(.socket.pid)"')" = "udp $(bg_pid s)"
	end f s
	next_port
	flow_udp f
	sock s "$HAND" send "$UDP"
	wait_out s 10 bound
	check_that udp/unconnected-works "no answer" echoes s
	told_within 5 rewrite "$PORT" || true
	check udp/unconnected "told" "$(listed rewrite "$PORT" | jq -r '"\(.proto) \(.socket.pid)"')" = "udp $(bg_pid s)"
	end f s
}

test_ipv6() {
	local shared=2001:db8:7::7 to="[2001:db8:51::10]:7000"

	ip -n slab-client addr add 2001:db8:1::2/64 dev net
	ip -n slab-client route add default via 2001:db8:1::1
	ip -n slab-edge1 addr add 2001:db8:1::1/64 dev lan
	ip -n slab-edge1 addr add 2001:db8:2::11/64 dev wan
	ip -n slab-edge1 route add default via 2001:db8:2::1
	ip -n slab-edge1 addr add "$shared/128" dev lo
	ip -n slab-gw addr add 2001:db8:2::1/64 dev wan
	ip -n slab-gw addr add 2001:db8:51::1/64 dev origin
	ip -n slab-gw route add "$shared" via 2001:db8:2::11
	ip -n slab-origin addr add 2001:db8:51::10/64 dev net
	ip -n slab-origin route add default via 2001:db8:51::1
	lab_sysctl edge1 net.ipv6.conf.all.forwarding=1
	lab_sysctl gw net.ipv6.conf.all.forwarding=1
	in_ns edge1 nft -f - <<-END
		table ip6 slab_nat {
			chain post {
				type nat hook postrouting priority srcnat
				oifname "wan" ip6 saddr 2001:db8:1::/64 meta l4proto tcp snat to [$shared]:$(edge_slice edge1)
			}
		}
	END
	start_bg echo6 origin "$TALK" echo "$to"
	wait_out echo6 10 ready
	next_port
	start_bg f client "$TALK" connect --bind "[2001:db8:1::2]:$PORT" "$to"
	wait_out f 10 '"connected":true'
	start_bg s edge1 "$TALK" connect --bind "[$shared]:$PORT" "$to"
	wait_out s 10 '"event":"connect"'
	told_within 5 rewrite "$PORT" || true
	check ipv6/told "told" "$(listed rewrite "$PORT" | jq -r '"\(.src) \(.dst) \(.socket.pid) \(.owner.src)"')" = "$shared $to $(bg_pid s) 2001:db8:1::2"
	end f s echo6
}

test_risk() {
	local row begun

	# Bound only, and the flow is there.
	next_port
	flow f
	sock s "$TALK" connect --wait "$TCP"
	told_within 5 risk "$PORT" || true
	row=$(listed risk "$PORT")
	check risk/bound "told" "$(jq -r '"\(.socket.pid) \(.dst) \(.owner.kind) \(.owner.src):\(.owner.sport) \(.source)"' <<<"$row")" = \
		"$(bg_pid s) $TCP flow 10.1.0.2:$PORT inventory"
	# Then it happens.
	bg_send s go
	wait_out s 10 '"event":"connect"'
	told_within 5 rewrite "$PORT" || true
	check risk/then-rewrite "rewrites told" "$(listed rewrite "$PORT" | wc -l)" -eq 1
	end f s

	# Connected, the flow comes later. (The socket has sent nothing, so conntrack does not know of it.)
	next_port
	sock s "$TALK" connect --udp "$UDP"
	wait_out s 10 '"event":"connect"'
	flow_udp f
	told_within 5 risk "$PORT" || true
	check risk/connected "told" "$(listed risk "$PORT" | jq -r '"\(.socket.pid) \(.dst) \(.owner.src)"')" = "$(bg_pid s) $UDP 10.1.0.2"

	# Connected to another place than the flow goes to: no risk. Nor is a listener, or one that is connected with an entry of its own.
	next_port
	flow_udp elsewhere "198.51.100.11:7001"
	sock s2 "$TALK" connect --udp "$UDP"
	wait_out s2 10 '"event":"connect"'
	begun=$PORT
	next_port
	sock s3 "$TALK" connect "$TCP"
	wait_out s3 10 '"connected":true'
	flow f3
	next_port
	flow f4
	start_bg s4 edge1 "$TALK" echo "$SHARED:$PORT"
	wait_out s4 10 ready
	mark_risk
	check risk/elsewhere "told for nothing" "$(list | jq -c "select(.kind == \"risk\" and .bound_port >= $begun and .bound_port != $MARK)" | wc -l)" -eq 0
	check risk/once "told again" "$(list | jq -s '[.[] | select(.kind == "risk")] | group_by(.bound_port) | map(select(length > 1)) | length')" -eq 0
	end s f s2 elsewhere s3 f3 s4 f4
}

test_heal() {
	local healed pid

	watch_start 'netns = { "" } heal = true'
	next_port
	flow f
	sock s "$TALK" connect "$TCP"
	wait_out s 10 '"event":"connect"'
	told_within 5 rewrite "$PORT" || true
	check heal/told "healed" "$(listed rewrite "$PORT" | jq .healed)" = true
	# It may have been aborted while it connected, or when it had.
	if [[ $(bg_field s connect connected) == true ]]; then
		check_text heal/aborted "$(bg_ask s 5 hello)" '"errno":"E(CONNABORTED|PIPE)"'
	else
		check heal/aborted "error" "$(bg_field s connect errno)" = ECONNABORTED
	fi
	check heal/entry "entries of the socket" "$(in_ns edge1 conntrack -L -p tcp --orig-src "$SHARED" --orig-port-src "$PORT" 2>/dev/null | wc -l)" -eq 0
	check heal/counted "healed" "$(watch_stat healed)" -eq 1
	check heal/failed "that could not be" "$(watch_stat heal_failed)" -eq 0
	check_that heal/flow "the flow was hurt" echoes f
	end s
	# The flow goes on: another port does.
	next_port
	sock s "$TALK" connect "$TCP"
	check_that heal/other-port "no connection" wait_out s 10 '"connected":true'
	end s
	PORT=$((PORT - 1))
	# The flow has gone: the same one does.
	end f
	in_ns edge1 conntrack -D -p tcp --orig-src 10.1.0.2 --orig-port-src "$PORT" >/dev/null 2>&1 || true
	sock s "$TALK" connect "$TCP"
	check_that heal/same-port "no connection" wait_out s 10 '"connected":true'
	check_that heal/same-port-works "no answer" echoes s
	check heal/same-port-told "rewrites told" "$(listed rewrite "$PORT" | wc -l)" -eq 1
	end s
	PORT=$((PORT + 1))

	# The flow goes before the watcher gets to see what it did: the port is kept for the next try, whatever other clients want.
	next_port
	flow f
	pid=$(sluiced_pid edge1)
	kill -STOP "$pid"
	sock s "$TALK" connect "$TCP"
	wait_out s 10 '"event":"connect"'
	end f
	in_ns edge1 conntrack -D -p tcp --orig-src 10.1.0.2 --orig-port-src "$PORT" >/dev/null 2>&1 || true
	kill -CONT "$pid"
	told_within 5 rewrite "$PORT" || true
	check heal/late-owner "the other user" "$(listed rewrite "$PORT" | jq -r .owner)" = null
	end s
	start_bg f client "$TALK" connect --bind "10.1.1.7:$PORT" "$TCP"
	wait_out f 10 '"connected":true'
	sock s "$TALK" connect "$TCP"
	check_that heal/reserved "no connection" wait_out s 10 '"connected":true'
	check_that heal/reserved-works "no answer" echoes s
	check_that heal/reserved-flow "the flow was hurt" echoes f
	check heal/reserved-wire "the port on the wire" \
		"$(in_ns edge1 conntrack -L -p tcp --orig-src "$SHARED" --orig-port-src "$PORT" 2>/dev/null | grep -o 'dport=[0-9]*' | tail -n 1)" = "dport=$PORT"
	mark
	check heal/reserved-told "rewrites told" "$(listed rewrite "$((PORT - 1))" | wc -l)" -eq 1
	end f s
	in_ns edge1 conntrack -D -p tcp --orig-src 10.1.1.7 >/dev/null 2>&1 || true # it has a port that a later case may want

	# A datagram socket hears of it, too.
	next_port
	flow_udp f
	sock s "$HAND" send "$UDP"
	wait_out s 10 bound
	bg_send s hello
	wait_out s 10 '"event":"echo"'
	told_within 5 rewrite "$PORT" || true
	check heal/udp "healed" "$(listed rewrite "$PORT" | jq .healed)" = true
	end f s

	# A reload turns it off, and says how much history is kept.
	healed=$(watch_stat healed)
	conf 'netns = { "" } heal = false history = 3'
	kill -HUP "$(sluiced_pid edge1)"
	check_that reload/said "no word of it" wait_for 10 grep -q 'reloaded' "$(bg_err sluiced-edge1)"
	next_port
	flow f
	sock s "$TALK" connect "$TCP"
	wait_out s 10 '"connected":true'
	told_within 5 rewrite "$PORT" || true
	check reload/not-healed "healed" "$(listed rewrite "$PORT" | jq .healed)" = false
	check_that reload/works "the connection was touched" echoes s
	check reload/counted "healed since" $(($(watch_stat healed) - healed)) -eq 0
	end f s
	mark
	check reload/history "kept" "$(list | wc -l)" -le 3
}


test_restart() {
	local first before public=$LAB_STATE/public

	watch_start 'netns = { "" }'
	next_port
	first=$PORT
	flow f
	sock s "$TALK" connect "$TCP"
	wait_out s 10 '"connected":true'
	told_within 5 rewrite "$PORT" || true
	before=$(list)
	sluiced_kill edge1
	watch_again
	check restart/history "what was told before" "$(list)" = "$before"
	mark
	check_that restart/follow "not told to who follows" is_told rewrite "$MARK"
	check restart/follow-lines "lines that are no JSON object" "$(jq -c 'select(type != "object")' "$(bg_out follow)" | wc -l)" -eq 0
	check restart/once "times told" "$(listed rewrite "$first" | wc -l)" -eq 1
	check restart/dumps "resynchronisations, without a loss" "$(watch_stat resyncs)" -eq 0
	end f s

	# What happened while nobody watched, and still is so, is found.
	sluiced_kill edge1
	next_port
	flow f
	sock s "$TALK" connect "$TCP"
	wait_out s 10 '"connected":true'
	watch_again
	check_that restart/found "not told" wait_for 10 is_listed rewrite "$PORT"
	check restart/found-by "found by" "$(listed rewrite "$PORT" | jq -r '"\(.source) \(.socket.pid)"')" = "dump $(bg_pid s)"
	end f s

	# Whoever has no rights sees his own.
	mkdir -p "$public"
	chmod 755 "$LAB_STATE" "$DIR" "$public"
	cp "$SLUICE" "$TALK" "$public"
	next_port
	flow f
	sock s setpriv --reuid nobody --regid nogroup --clear-groups "$public/talk" connect "$TCP"
	wait_out s 10 '"connected":true'
	told_within 5 rewrite "$PORT" || true
	run_there setpriv --reuid nobody --regid nogroup --clear-groups "$public/sluice" --socket "$DIR/control.sock" -j collisions
	check access/own "ports that a stranger sees" "$(jq -c '[.collisions[].bound_port]' <<<"$SAID")" = "[$PORT]"
	check access/owner "the other user, for a stranger" "$(jq -c '.collisions[0].owner' <<<"$SAID")" = null
	end f s
}

finished() { # NAME
	[[ $(bg_field "$1" report attempts) ]]
}

# The watcher is stopped while connections come, so that its small buffer overflows. What still is there afterwards is found.
test_losses() {
	local pid ports=() port

	watch_start 'netns = { "" } sources = { "ctnetlink" } buffer = 65536'
	pid=$(sluiced_pid edge1)
	kill -STOP "$pid"
	# Some before the overflow, some after: the kernel drops them all from then on.
	for n in 1 2; do
		start_bg nat client "$CHURN" load --to "$ORIGIN:8000-8003" --from 10.1.1.1-10.1.1.250 --ports 42000-42999 --count 1000 --open 100 --hold 1 --closes r
		wait_for 30 finished nat || true
		end nat
		for k in 1 2 3; do
			next_port
			ports+=("$PORT")
			flow "f$n$k"
			sock "s$n$k" "$TALK" connect "$TCP"
			wait_out "s$n$k" 10 '"connected":true'
		done
	done
	# One whose socket is gone (TIME_WAIT) when it is found.
	next_port
	flow f0
	sock s0 "$TALK" connect "$TCP"
	wait_out s0 10 '"connected":true'
	end s0
	kill -CONT "$pid"
	check_that losses/counted "no loss" wait_for 10 stat_reaches losses.ctnetlink 1
	for port in "${ports[@]}"; do
		check_that "losses/found-$port" "not told" told_within 10 rewrite "$port"
	done
	check losses/resync "resynchronisations" "$(watch_stat resyncs)" -ge 1
	mark
	check losses/once "told twice" "$(list | jq -s '[.[] | select(.kind == "rewrite")] | group_by([.bound_port, .dst]) | map(select(length > 1)) | length')" -eq 0
	check losses/time-wait "told, with nobody there any more" "$(listed rewrite "$((MARK - 1))" | wc -l)" -eq 0
	check_text losses/log "$(<"$(bg_err sluiced-edge1)")" "events came faster than they could be read"
	end f0
	for n in 1 2; do
		for k in 1 2 3; do
			end "f$n$k" "s$n$k"
		done
	done
}

test_namespaces() {
	sluiced_stop edge1
	conf 'netns = { "", "slab-nowhere" }'
	run_there "$SLUICED" --watch-only -d -f "$(conf_file)"
	check netns/refused "exit code" "$RC" -eq 2
	check_text netns/refused-text "$SAID" 'network namespace "slab-nowhere": .*No such file'

	# A second one, with a client of its own.
	ip netns add slab-edge2-in 2>/dev/null || true
	ip link add name lan netns slab-edge2 type veth peer name net netns slab-edge2-in
	ip -n slab-edge2 addr add 10.2.0.1/16 dev lan
	ip -n slab-edge2 link set lan up
	ip -n slab-edge2-in addr add 10.2.0.2/16 dev net
	ip -n slab-edge2-in link set net up
	ip -n slab-edge2-in route add default via 10.2.0.1
	in_ns edge2 nft -f - <<-END
		table ip slab_nat {
			chain post {
				type nat hook postrouting priority srcnat
				oifname "wan" ip saddr 10.2.0.0/16 masquerade
			}
		}
	END
	watch_start 'netns = { "", "slab-edge2" }'
	check netns/status "namespaces" "$(watch_stat namespaces | jq -c .)" = '["","slab-edge2"]'
	next_port
	start_bg f2 edge2-in "$TALK" connect --bind "10.2.0.2:$PORT" "$TCP"
	wait_out f2 10 '"connected":true'
	start_bg s2 edge2 "$TALK" connect --bind "192.0.2.12:$PORT" "$TCP"
	wait_out s2 10 '"connected":true'
	flow f
	sock s "$TALK" connect "$TCP"
	wait_out s 10 '"connected":true'
	told_within 5 rewrite "$PORT" 2 || true
	check netns/both "told" "$(listed rewrite "$PORT" | jq -r '"\(.netns)=\(.src),\(.socket.pid)"' | sort | paste -sd' ')" = \
		"=$SHARED,$(bg_pid s) slab-edge2=192.0.2.12,$(bg_pid s2)"
	end f s f2 s2

	# One that goes away is let go of: its devices go with it.
	ip netns add slab-edge2-in2
	ip link add name gone netns slab-edge1 type veth peer name gone netns slab-edge2-in2
	watch_start 'netns = { "", "slab-edge2-in2" }'
	ip netns del slab-edge2-in2
	left() {
		! ip -n slab-edge1 link show gone
	}
	check_that netns/gone "a namespace that was deleted is still held" wait_for 15 left
	check_text netns/gone-text "$(<"$(bg_err sluiced-edge1)")" '"slab-edge2-in2" is gone'
	check netns/gone-status "namespaces" "$(watch_stat namespaces | jq -c .)" = '[""]'
	mark
	sluiced_stop edge1
	ip netns del slab-edge2-in
}

# The daemon with slices watches as well, what conntrack does beside it.
test_daemon() {
	local n

	sluiced_stop edge1
	rm -rf "$DIR"
	edge_conf edge1 'unleased = "allow"' >/dev/null
	# Not the clients of conntrack.
	conf_edit 's/clients    = .*/clients = { "10.9.0.0\/16" }/'
	sluiced_start edge1
	follow
	check daemon/status "namespaces" "$(watch_stat namespaces | jq -c .)" = '[""]'
	# Sluice does not let such packets out; conntrack has made its entries before that.
	next_port
	start_bg f client "$TALK" connect --timeout 60 --bind "10.1.0.2:$PORT" "$TCP"
	check_that daemon/flow "no entry" wait_for 5 entry 10.1.0.2
	sock s "$TALK" connect --timeout 60 "$TCP"
	told_within 5 rewrite "$PORT" || true
	check daemon/told "told" "$(listed rewrite "$PORT" | jq -r '"\(.socket.pid) \(.in_slice == (.wire_port >= 40960 and .wire_port <= 43007))"')" = "$(bg_pid s) true"
	end f s
	sluiced_stop edge1

	# Where nobody can watch: no events, and others have every place behind srcnat. It starts all the same, unless it was told to watch.
	lab_sysctl edge1 net.netfilter.nf_conntrack_events=0
	{
		echo "add table ip slab_full"
		for ((n = 101; n <= 116; n++)); do
			echo "add chain ip slab_full at$n { type filter hook postrouting priority $n; }"
		done
	} | in_ns edge1 nft -f -
	sluiced_start edge1
	check daemon/unwatched "watch" "$(sluice_ctl edge1 -j status | jq -c .watch)" = null
	check_text daemon/unwatched-text "$(<"$(bg_err sluiced-edge1)")" "conntrack is not watched: .*(nf_conntrack_events is 0|every priority)"
	sluiced_stop edge1
	echo 'watch { }' >>"$(conf_file)"
	check_refused daemon/told-to "cannot be watched: .*(nf_conntrack_events is 0|every priority)"
	in_ns edge1 nft delete table ip slab_full
	lab_sysctl edge1 net.netfilter.nf_conntrack_events=2
}

lab_begin
lab_up egress
nat_nftables_start edge1
# No port that a case binds is given away.
lab_sysctl client net.ipv4.ip_local_port_range="50000 60999"
lab_sysctl edge1 net.ipv4.ip_local_port_range="50000 60999"
# What comes for a port that is not edge1's comes to edge1 as well: a rewritten connection gets its answer.
lab_ip gw <<-END
	rule add to $SHARED lookup 101 pref 50
END
echo_start
start_bg echo-more origin "$TALK" echo "$ORIGIN:7002" "$ORIGIN:7003" "$ORIGIN:7004" 198.51.100.12:7000
wait_out echo-more 10 ready
start_bg serve origin "$CHURN" serve 8000-8003
wait_out serve 10 ready
start_bg echo-udp2 origin "$TALK" echo --udp 198.51.100.11:7001
wait_out echo-udp2 10 ready

TESTS=(quiet row pids ipv6 risk heal restart losses namespaces daemon)
for t in "${@:-${TESTS[@]}}"; do
	begun_ms=$(boot_ms)
	[[ -e $LAB_STATE/pids/sluiced-edge1 || $t == quiet ]] || watch_start 'netns = { "" }'
	"test_$t"
	echo "# $t: $(($(boot_ms) - begun_ms)) ms"
done
exit "$TEST_FAILED"
