# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# NAT and a local socket want one address and port: with conntrack, then with sluice.
#
# lab run collision [--json] [conntrack|sluice]
#
# Each half is played in three orders, each towards a destination of its own:
#   flow_first     the client's connection, then a socket on edge1 binds its outer port and connects
#   bind_first     the socket binds, then the client's connection takes that port, then the socket connects
#   socket_first   the socket binds and connects, then the client's connection looks for a port
#
# Against conntrack one client connection is enough: nf_nat keeps a source port that lies in the range, so
# the client binds the port that shall collide. Sluice chooses by chance, so there, for the second and
# third order, the client opens 2047 connections: as many as leave one port of the slice for the socket.
#
# All ports are read on the origin's wire. With --json: see interfaces, "The lab"; "orders" has the rest.

HANG_S=3 # so long may a connection take here, where an answer needs less than a millisecond
FILL=2047

declare -A DEST=([flow_first]=198.51.100.10:80 [bind_first]=198.51.100.11:80 [socket_first]=198.51.100.12:80)

# ---------------------------------------------------------------------------------------- measuring

in_slice() {
	local slice

	slice=$(edge_slice edge1)
	if (($1 >= ${slice%-*} && $1 <= ${slice#*-})); then echo true; else echo false; fi
}

# Source ports of the SYNs that reached the origin for a destination, in the order they came first.
wire_ports() { # DESTINATION
	sed -n "s/.*\"sport\":\([0-9]*\),\"dst\":\"${1%:*}\",\"dport\":${1#*:},\"syn\":true,\"seen\":1}\$/\\1/p" "$(bg_out wire)"
}

wire_has() { # DESTINATION COUNT
	(($(wire_ports "$1" | wc -l) >= $2))
}

# Which port came after the first COUNT ones?
wire_port_after() { # DESTINATION COUNT
	wait_for 5 wire_has "$1" $(($2 + 1)) || lab_die "nothing new for $1 on the origin's wire"
	wire_ports "$1" | sed -n "$(($2 + 1))p"
}

# One line there and back on an open connection.
echoes() { # NAME
	[[ $(bg_ask "$1" 5 "line $EPOCHREALTIME over $1") == *'"ok":true'* ]]
}

true_if() {
	if "$@"; then echo true; else echo false; fi
}

# How many flows of sockets sluice has moved aside on edge1.
resolved_count() {
	sluice_ctl edge1 -j pools | jq '[.. | objects | .resolved? // empty | numbers] | add // 0'
}

# ----------------------------------------------------------------------------------------- programs

client_connects() { # DESTINATION SOURCE-PORT
	start_bg flow client "$TALK" connect --bind "10.1.0.2:$2" --timeout "$HANG_S" "$1"
	wait_out flow $((HANG_S + 2)) '"event":"connect"'
	[[ $(bg_field flow connect connected) == true ]] || lab_die "the client's connection to $1 failed"
}

client_fills() { # DESTINATION
	start_bg flow client "$MANY" --hold "$FILL" "$1"
	wait_out flow 20 '"event":"verify"'
}

flow_works() {
	if [[ $(bg_field flow open wanted) ]]; then
		[[ $(bg_ask flow 15 verify) == *"\"ok\":$FILL,"* ]]
	else
		echoes flow
	fi
}

socket_connected() {
	wait_out sock $((HANG_S + 2)) '"event":"connect"'
	CONNECTED=$(bg_field sock connect connected)
	BOUND=$(bg_field sock connect bound_port)
	ERRNO=$(bg_field sock connect errno)
}

# The measured order as JSON in ORDER. NAT_PORT is empty where the client filled the slice.
order_result() {
	local flow=false both=false

	flow=$(true_if flow_works)
	[[ $CONNECTED != true || $flow != true ]] || both=$(true_if echoes sock)
	ORDER=$(jq -cn --argjson bound "$BOUND" --argjson wire "$WIRE_PORT" --argjson nat "${NAT_PORT:-null}" \
		--argjson flows "$NAT_FLOWS" --argjson in "$(in_slice "$WIRE_PORT")" \
		--argjson connected "$CONNECTED" --arg errno "$ERRNO" --argjson flow "$flow" --argjson both "$both" \
		'{bound_port: $bound, wire_port: $wire, in_slice: $in, connected: $connected, errno: $errno,
		  nat_port: $nat, nat_flows: $flows, flow_works: $flow, both_work: $both}')
	stop_bg sock || true
	stop_bg flow || true
}

# ------------------------------------------------------------------------------------------- orders

flow_first() { # CLIENT-PORT
	local to=${DEST[flow_first]} before

	before=$(wire_ports "$to" | wc -l)
	client_connects "$to" "$1"
	NAT_PORT=$(wire_port_after "$to" "$before")
	NAT_FLOWS=1
	start_bg sock edge1 "$TALK" connect --bind "$SHARED:$NAT_PORT" --timeout "$HANG_S" "$to"
	socket_connected
	WIRE_PORT=$(wire_port_after "$to" $((before + 1)))
	order_result
}

bind_first() { # HALF PORT
	local to=${DEST[bind_first]} before

	before=$(wire_ports "$to" | wc -l)
	start_bg sock edge1 "$TALK" connect --wait --bind "$SHARED:$2" --timeout "$HANG_S" "$to"
	wait_out sock 5 '"event":"bound"'
	client_side "$1" "$to" "$2" "$before"
	bg_send sock connect
	socket_connected
	WIRE_PORT=$(wire_port_after "$to" $((before + NAT_FLOWS)))
	order_result
}

socket_first() { # HALF PORT
	local to=${DEST[socket_first]} before

	before=$(wire_ports "$to" | wc -l)
	start_bg sock edge1 "$TALK" connect --bind "$SHARED:$2" --timeout "$HANG_S" "$to"
	socket_connected
	WIRE_PORT=$(wire_port_after "$to" "$before")
	client_side "$1" "$to" "$2" $((before + 1))
	order_result
}

client_side() { # HALF DESTINATION PORT BEFORE
	if [[ $1 == conntrack ]]; then
		client_connects "$2" "$3"
		NAT_PORT=$(wire_port_after "$2" "$4")
		NAT_FLOWS=1
	else
		client_fills "$2"
		NAT_PORT=
		NAT_FLOWS=$(bg_field flow open established)
		wait_for 5 wire_has "$2" $(($4 + NAT_FLOWS)) || lab_die "the wire shows less than $NAT_FLOWS flows"
	fi
}

# -------------------------------------------------------------------------------------------- halves

half_begin() {
	lab_up egress
	start_bg web origin "$TALK" echo "${DEST[@]}"
	wait_out web 5 ready
	start_bg wire origin "$WIRE" --dev net --in --source "$SHARED" --flows
	wait_out wire 5 ready
}

half_end() {
	stop_bg wire || lab_die "the recorder on the origin's wire: $(bg_report wire)"
	lab_down
}

tell() { # JQ-TEMPLATE: a line of the story, from ORDER
	[[ -n $JSON ]] || say "$(jq -r "\"$1\"" <<<"$ORDER")"
}

introduction() {
	local slice

	slice=$(edge_slice edge1)
	say "  client 10.1.0.2 --- edge1 ---+"
	say "                               +--- gateway --- origin 198.51.100.10"
	say "                      edge2 ---+"
	say
	say "Both edges may send from $SHARED. The gateway brings answers for the ports $slice to"
	say "edge1, and everything else of the address to edge2. On edge1 two users draw on these ports: the NAT for"
	say "its clients, and programs of its own. What happens when both want the same one?"
	say
}

# Has the watcher told the rewrite of this order?
watcher_told() { # ORDER
	local n

	n=$(sluice_ctl edge1 -j collisions --kind rewrite | jq --argjson o "$1" \
		'[.collisions[] | select(.bound_port == $o.bound_port and .wire_port == $o.wire_port)] | length')
	((n == 1))
}

conntrack_half() {
	local first bind last answers attempt reported victim

	say "== edge1 translates with nftables and conntrack: SNAT of 10.1.0.0/16 to $SHARED:$(edge_slice edge1)"
	half_begin
	nat_nftables_start edge1
	sluiced_watch edge1
	edge_silent edge2

	# One rewrite in 33 lands inside the slice by chance, and then works: provoke another one.
	for attempt in 0 1 2 3 4; do
		say
		say "   The client connects to ${DEST[flow_first]}. Then a program on edge1 binds the port it left with,"
		say "   and connects to the same place."
		flow_first $((41000 + attempt))
		first=$ORDER
		tell '      the client on the wire    '"$SHARED"':\(.nat_port)'
		tell '      the program bound         '"$SHARED"':\(.bound_port)'
		tell '      the program on the wire   '"$SHARED"':\(.wire_port)   rewritten by conntrack, and the program is not told'
		[[ $ORDER == *'"in_slice":true'* ]] || break
		say "      That port lies in edge1's slice by chance. Once more, with another one."
	done
	answers=$(edge_silent_count edge2)
	tell '      connected                 \(.connected)   (\(.errno) after '"$HANG_S"' s)'
	reported=$(true_if wait_for 5 watcher_told "$first")
	victim=$(sluice_ctl edge1 -j collisions --kind rewrite | jq -r '.collisions[0].socket | "\(.comm), pid \(.pid)"')
	say "      told by the watcher       $reported   (sluiced --watch-only runs beside; the victim is $victim)"
	say "      The port is not one of edge1's, so the gateway brings the answers to the machine that has the"
	say "      rest of the address: edge2 got $answers packets for a connection that it knows nothing of."

	for attempt in 0 1 2 3 4; do
		say
		say "   The same, but the program binds first, the client takes that port, the program connects."
		bind_first conntrack $((41500 + attempt))
		bind=$ORDER
		tell '      bound \(.bound_port), client on the wire \(.nat_port), program on the wire \(.wire_port), connected \(.connected)'
		[[ $ORDER == *'"in_slice":true'* ]] || break
		say "      In the slice by chance. Once more."
	done

	say
	say "   The program binds and connects first, then the client: conntrack knows the program's connection by"
	say "   then, and gives the client another port. This order does no harm."
	socket_first conntrack 42000
	last=$ORDER
	tell '      program on the wire \(.wire_port), client on the wire \(.nat_port), both work: \(.both_work)'
	sluiced_stop edge1
	half_end

	CONNTRACK=$(jq -cn --argjson first "$first" --argjson bind "$bind" --argjson last "$last" --argjson answers "$answers" \
		--argjson reported "$reported" '$first + {reported: $reported, answers_at_edge2: $answers,
		           orders: {flow_first: $first, bind_first: $bind, socket_first: $last}}')
	jq -e '([.orders.flow_first, .orders.bind_first]
	        | all(.connected == false and .in_slice == false and .wire_port != .bound_port and .flow_works)) and .reported
	       and .orders.socket_first.both_work and .answers_at_edge2 > 0' \
		>/dev/null <<<"$CONNTRACK"
}

sluice_half() {
	local first bind last before after

	say "== edge1 translates with sluice, which holds $SHARED:$(edge_slice edge1); edge2 runs it too"
	half_begin
	sluiced_start edge1
	sluiced_start edge2

	before=$(resolved_count)
	say
	say "   The client connects to ${DEST[flow_first]}. Then a program on edge1 binds the port it left with,"
	say "   and connects to the same place."
	flow_first 41000
	first=$ORDER
	after=$(resolved_count)
	tell '      the client on the wire    '"$SHARED"':\(.nat_port)'
	tell '      the program bound         '"$SHARED"':\(.bound_port)'
	tell '      the program on the wire   '"$SHARED"':\(.wire_port)   another port of the same slice'
	tell '      connected                 \(.connected), and both connections carry data: \(.both_work)'
	say "      collisions resolved, as sluice counts them: $((after - before))"

	say
	say "   The program binds first, then the client opens $FILL connections to ${DEST[bind_first]}: all ports of"
	say "   the slice but one. Then the program connects."
	bind_first sluice 41500
	bind=$ORDER
	tell '      client connections \(.nat_flows), program bound \(.bound_port), on the wire \(.wire_port), all work: \(.both_work)'

	say
	say "   The program binds and connects first, then the client opens $FILL connections to ${DEST[socket_first]}."
	socket_first sluice 42000
	last=$ORDER
	tell '      program on the wire \(.wire_port), client connections \(.nat_flows), all work: \(.both_work)'
	sluiced_stop edge1
	sluiced_stop edge2
	half_end

	SLUICE_HALF=$(jq -cn --argjson first "$first" --argjson bind "$bind" --argjson last "$last" --argjson n $((after - before)) \
		'$first + {reported: ($n > 0), resolved: $n, orders: {flow_first: $first, bind_first: $bind, socket_first: $last}}')
	jq -e --argjson fill "$FILL" '.reported and .wire_port != .nat_port
	       and ([.orders[] | .connected and .in_slice and .both_work] | all)
	       and .orders.bind_first.nat_flows == $fill and .orders.socket_first.nat_flows == $fill
	       and .orders.socket_first.wire_port == .orders.socket_first.bound_port' >/dev/null <<<"$SLUICE_HALF"
}

scenario_run() {
	local bad=0

	CONNTRACK=null
	SLUICE_HALF=null
	case "${1:-both}" in
	both | conntrack | sluice) ;;
	*) lab_die "collision: \"$1\" is neither \"conntrack\" nor \"sluice\"" ;;
	esac
	introduction
	if [[ ${1:-both} != sluice ]]; then
		conntrack_half || bad=1
		say
	fi
	if [[ ${1:-both} != conntrack ]]; then
		sluice_half || bad=1
		say
	fi
	give_json "$(jq -cn --argjson c "$CONNTRACK" --argjson s "$SLUICE_HALF" \
		'{conntrack: $c, sluice: $s} | with_entries(select(.value))')"
	if ((bad)); then
		say "Not what was expected."
	else
		say "As expected."
	fi
	return "$bad"
}
