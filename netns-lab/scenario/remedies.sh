# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# What people have tried against the collision of NAT and bound sockets, side by side and measured.
#
# lab run remedies [--json] [NAME...]
#
# "none" is always played, since the others are compared with it; without a name, all are. Each remedy is played in
# several orders of these steps, each order towards a destination of its own:
#
#   flow     a client's connection, which leaves edge1 through NAT. It binds the port that shall collide: nf_nat keeps a source
#            port that lies in the range. Sluice chooses by chance: there, unless it comes first, the client opens 2047
#            connections, which leave one port of the slice
#   bind     a program on edge1 binds the flow's outer port, or the one that the flow will want
#   connect  it connects to the same place
#   act      what the remedy does by hand: an entry for the socket, or a placeholder for the flow's tuple
#   stand    the program's own socket is connected by Fast Open, without a packet
#   send     it sends, which is when its SYN goes out
#
# A program that is refused at once (by connect, or because the entry for it could not be made) was told: it takes another
# port, and that second try is measured too. A rewrite that hits the slice by chance (one in 33) is played again.
#
# Nothing here knows what should come out: "works" and "breaks" are computed from what was measured, in remedies.jq,
# beside this file. How things are read (the origin's wire, echoes over both connections) is collision's.

# shellcheck source=collision.sh
. "$LAB_ROOT/netns-lab/scenario/collision.sh"

HANG_S=1 # an answer needs less than a millisecond, and what has none after the first SYN has none after the second
FLOW_S=3 # but a client may lose its first SYN to somebody else's connection

PLACEHOLDER=$LAB_BUILD/tools/placeholder
RATE_S=0.12
ROUNDS=5

REMEDIES=(none disjoint entry repair tfo zones notrack sluice)

declare -A TITLE=(
	[none]="plain SNAT to the slice"
	[disjoint]="SNAT to one half of the slice, sockets keep to the other"
	[entry]="a conntrack entry, made over netlink before the socket connects"
	[repair]="a placeholder socket in repair mode (TCP_REPAIR) for each flow"
	[tfo]="a placeholder socket by cookieless Fast Open for each flow"
	[zones]="a conntrack zone of their own for the sockets' packets"
	[notrack]="NOTRACK for the sockets' packets"
	[sluice]="sluice"
)

COMMON="flow_first bind_first socket_first"
declare -A ORDERS=(
	[none]=$COMMON [disjoint]=$COMMON [zones]=$COMMON [notrack]=$COMMON [sluice]=$COMMON
	[entry]="$COMMON reserved_first"
	[repair]="$COMMON reserved_first late"
	[tfo]="$COMMON reserved_first late standing_first"
)

# "act" comes only where the remedy has one.
declare -A STEPS=(
	[flow_first]="flow act bind connect"
	[bind_first]="bind flow act connect"
	[socket_first]="bind act connect flow"
	[reserved_first]="act flow bind connect"
	[late]="flow bind connect act"
	[standing_first]="stand flow send"
)

declare -A DEST=()
# Of the first remedy. Each one has places of its own, since its sockets leave tuples in TIME_WAIT behind: a hundred ports further.
declare -A PLACE=(
	[flow_first]=198.51.100.10:80 [bind_first]=198.51.100.11:80 [socket_first]=198.51.100.12:80
	[reserved_first]=198.51.100.10:81 [late]=198.51.100.11:81 [standing_first]=198.51.100.12:81
	[routed_on]=198.51.100.10:82 [routed_off]=198.51.100.11:82 [translated_off]=198.51.100.12:82
	[rate]=198.51.100.13:80 [fill]=198.51.100.13:81 [alone]=198.51.100.13:82
)

# --------------------------------------------------------------------------------------- the remedies

snat_to() { # FIRST-LAST: other ports for the NAT that runs
	in_ns edge1 nft -f - <<-END
		flush chain ip slab_nat post
		add rule ip slab_nat post oifname "wan" ip saddr 10.1.0.0/16 meta l4proto { tcp, udp } snat to $SHARED:$1
	END
}

# Answers carry nothing that says whose they are: only what the sockets send can be chosen.
sockets_raw() { # STATEMENT
	in_ns edge1 nft -f - <<-END
		table ip slab_remedy {
			chain out {
				type filter hook output priority raw
				oifname "wan" ip saddr $SHARED $1
			}
		}
	END
}

remedy_start() {
	if [[ $REMEDY == sluice ]]; then
		sluiced_start edge1
		sluiced_start edge2
		return
	fi
	nat_nftables_start edge1
	edge_silent edge2
	case $REMEDY in
	disjoint) snat_to "$NAT_HALF" ;;
	zones) sockets_raw "ct zone set 1" ;;
	notrack) sockets_raw "notrack" ;;
	esac
}

remedy_stop() {
	if [[ $REMEDY == sluice ]]; then
		sluiced_stop edge1
		sluiced_stop edge2
		# Its programs stay without it, as designed. Here they must not.
		rm -rf "${LAB_BPFFS:?}/slab-edge1" "${LAB_BPFFS:?}/slab-edge2"
		return
	fi
	in_ns edge1 nft delete table ip slab_remedy 2>/dev/null || true
	edge_silent_stop edge2
	nat_nftables_stop edge1
}

# Does this kernel do it at all? Prints why not.
remedy_refused() {
	local why

	case $REMEDY in
	zones | notrack)
		why=$(sockets_raw "$([[ $REMEDY == zones ]] && echo "ct zone set 1" || echo notrack)" 2>&1) || {
			echo "nft: ${why%%$'\n'*}"
			return
		}
		in_ns edge1 nft delete table ip slab_remedy
		;;
	entry | repair | tfo)
		in_ns edge1 ip route replace local "$SHARED" dev lo
		why=$(in_ns edge1 "$PLACEHOLDER" hold "--$REMEDY" --from "$SHARED:${SOCKET_HALF%-*}" "${DEST[alone]}" </dev/null) ||
			jq -r '"\(.step): \(.errno)"' <<<"$why"
		in_ns edge1 conntrack -F 2>/dev/null
		in_ns edge1 ip route del local "$SHARED" dev lo
		;;
	esac
}

# ---------------------------------------------------------------------------------------- measuring

# Source ports of all SYNs for a destination, as they came; a tuple may have two users here.
syns() { # DESTINATION
	sed -n "s/.*\"sport\":\([0-9]*\),\"dst\":\"${1%:*}\",\"dport\":${1#*:},\"syn\":true,.*/\\1/p" "$(bg_out wire)"
}

syns_beyond() { # DESTINATION COUNT
	(($(syns "$1" | wc -l) > $2))
}

# The port of the first SYN after COUNT others, or nothing.
syn_after() { # DESTINATION COUNT
	! wait_for 2 syns_beyond "$1" "$2" || syns "$1" | sed -n "$(($2 + 1))p"
}

# Sockets with the remedy and without it, in turns: what else the machine does hits both. Leaves the remedy stopped; RATES is JSON.
rate_in_turns() { # OPTION...
	local n with=() plain=()

	for ((n = 0; n < ROUNDS; n++)); do
		((n == 0)) || remedy_start
		with+=("$(rate_once "$@")")
		remedy_stop
		nat_nftables_start edge1
		plain+=("$(rate_once)")
		nat_nftables_stop edge1
	done
	RATES=$(jq -cn --argjson with "$(printf "%s\n" "${with[@]}" | jq -cs .)" --argjson plain "$(printf "%s\n" "${plain[@]}" | jq -cs .)" \
		'{with: $with, plain: $plain}')
}

# The middle one of numbers, one a line.
median() {
	sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

# Connections a second, of sockets or (with an option) reservations.
rate_once() { # OPTION...
	in_ns edge1 "$PLACEHOLDER" rate "$@" --seconds "$RATE_S" --from "$SHARED:$SOCKET_HALF" "${DEST[rate]}" || true
}

# The median run, with its processor time.
rate() { # OPTION...
	local n

	for ((n = 0; n < ROUNDS; n++)); do
		rate_once "$@"
	done | jq -cs "sort_by(.per_s) | .[length / 2 | floor]"
}

# Steps. They share: TO, PORT (the one that shall collide), and what they find.

step_flow() {
	local before

	before=$(syns "$TO" | wc -l)
	if [[ $REMEDY == sluice && $SOCKET_PORT ]]; then
		client_fills "$TO"
		FLOW=true
		return
	fi
	start_bg flow client "$TALK" connect --bind "10.1.0.2:$PORT" --timeout "$FLOW_S" "$TO"
	wait_out flow $((FLOW_S + 2)) '"event":"connect"'
	FLOW=$(bg_field flow connect connected)
	NAT_PORT=$(syn_after "$TO" "$before")
}

# Which port does the program bind? The one that the flow has; but a rule that keeps it off those is kept.
step_bind() {
	SOCKET_PORT=${NAT_PORT:-$PORT}
	[[ $REMEDY != disjoint || $STRAY ]] || SOCKET_PORT=$PORT
	[[ $REMEDY != entry || $HELD != true ]] || SOCKET_PORT=$PORT
	start_bg sock edge1 "$TALK" connect --wait --bind "$SHARED:$SOCKET_PORT" --timeout "$HANG_S" "$TO"
	wait_out sock 5 '"event":"bound"'
}

step_connect() {
	local before

	# Who reserves for a socket and is refused does not connect it.
	[[ $REMEDY != entry || $HELD == true ]] || return 0
	before=$(syns "$TO" | wc -l)
	bg_send sock connect
	socket_connected
	[[ $CONNECTED == false && $ERRNO != ETIMEDOUT ]] || WIRE_PORT=$(syn_after "$TO" "$before")
	[[ $CONNECTED == true || $ERRNO == ETIMEDOUT ]] || TOLD="connect: $ERRNO"
}

step_act() {
	local port=${SOCKET_PORT:-$PORT}

	case $REMEDY in
	entry) ;;
	repair | tfo) port=${NAT_PORT:-$PORT} ;;
	*) return 0 ;;
	esac
	# A placeholder is for a flow, and there is none yet.
	[[ $REMEDY == entry || -z $SOCKET_PORT || $FLOW ]] || return 0
	start_bg hold edge1 "$PLACEHOLDER" hold "--$REMEDY" --from "$SHARED:$port" "$TO"
	wait_out hold 5 '"event":"held"'
	HELD=$(bg_field hold held held)
	HELD_ERRNO=$(bg_field hold held errno)
	[[ $REMEDY != entry || $HELD == true ]] || TOLD="$(bg_field hold held step): $HELD_ERRNO"
}

step_stand() {
	SOCKET_PORT=$PORT
	start_bg sock edge1 "$PLACEHOLDER" hold --tfo --from "$SHARED:$PORT" "$TO"
	wait_out sock 5 '"event":"held"'
}

step_send() {
	local before

	before=$(syns "$TO" | wc -l)
	CONNECTED=$(bg_ask sock 5 "line $EPOCHREALTIME" | jq .ok)
	ERRNO=$(bg_field sock echo errno)
	WIRE_PORT=$(syn_after "$TO" "$before")
}

steps_clear() {
	FLOW="" NAT_PORT="" SOCKET_PORT="" WIRE_PORT="" CONNECTED=false ERRNO=none TOLD="" HELD=""
}

programs_stop() {
	local name

	for name in sock flow hold; do
		stop_bg "$name" || true
	done
}

both_work() {
	[[ $CONNECTED == true && $FLOW == true ]] && echoes sock && flow_works
}

# The program takes the next port, with the same care. Prints the result of this second try.
second_try() {
	local flow=$FLOW

	stop_bg sock || true
	[[ $REMEDY != entry ]] || stop_bg hold || true
	NAT_PORT="" SOCKET_PORT="" WIRE_PORT="" CONNECTED=false TOLD="" HELD="" FLOW="" PORT=$((PORT + 1))
	step_bind
	[[ $REMEDY != entry ]] || step_act
	step_connect
	FLOW=$flow
	jq -cn --argjson bound "$SOCKET_PORT" --argjson wire "${WIRE_PORT:-null}" --argjson connected "$CONNECTED" \
		--argjson works "$(true_if both_work)" \
		'{bound_port: $bound, wire_port: $wire, connected: $connected, both_work: $works}'
}

# Play one order; the result as JSON in ORDER.
play() { # ORDER PORT
	local step lucky=0 flow sock told again=null nat port=$2

	TO=${DEST[$1]}
	while :; do
		PORT=$port
		steps_clear
		for step in ${STEPS[$1]}; do
			"step_$step"
		done
		# Rewritten, and in the slice by chance: nobody can rely on that.
		[[ $REMEDY != sluice && $WIRE_PORT && $WIRE_PORT != "$SOCKET_PORT" && $(in_slice "$WIRE_PORT") == true ]] || break
		programs_stop
		((++lucky < 5)) || lab_die "five rewrites in a row hit the slice"
		port=$((port + 3))
	done
	flow=$(true_if flow_works)
	sock=$CONNECTED
	[[ $CONNECTED != true ]] || sock=$(true_if echoes sock)
	nat=${NAT_PORT:-null} told=$TOLD
	ORDER=$(jq -cn --argjson bound "$SOCKET_PORT" --argjson wire "${WIRE_PORT:-null}" --argjson nat "$nat" \
		--argjson in "$(if [[ $WIRE_PORT ]]; then in_slice "$WIRE_PORT"; else echo null; fi)" \
		--argjson connected "$CONNECTED" --arg errno "$ERRNO" --arg told "$told" --argjson flow_connected "$FLOW" \
		--argjson sock "$sock" --argjson flow "$flow" --argjson lucky "$lucky" --argjson held "${HELD:-null}" \
		'{bound_port: $bound, wire_port: $wire, in_slice: $in, nat_port: $nat, connected: $connected, errno: $errno,
		  told: (if $told == "" then null else $told end), held: $held, flow_connected: $flow_connected,
		  socket_works: $sock, flow_works: $flow, both_work: ($sock and $flow), lucky: $lucky}')
	[[ -z $told ]] || again=$(second_try)
	ORDER=$(jq -c --argjson again "$again" '. + {second_try: $again}' <<<"$ORDER")
	programs_stop
}

# A socket that nobody disturbs.
alone() { # PORT
	start_bg sock edge1 "$TALK" connect --bind "$SHARED:$1" --timeout "$HANG_S" "${DEST[alone]}"
	socket_connected
	stop_bg sock || true
	echo "$CONNECTED"
}

behind_firewall() { # PORT
	in_ns edge1 nft -f - <<-END
		table ip slab_firewall {
			chain in {
				type filter hook input priority filter
				ip daddr $SHARED ct state established,related accept
				ip daddr $SHARED drop
			}
		}
	END
	alone "$1"
	in_ns edge1 nft delete table ip slab_firewall
}

# How many connections to one destination do clients get at once? As many are asked for as the slice has ports.
client_flows() {
	start_bg flow client "$MANY" --hold --timeout 1 2048 "${DEST[fill]}"
	wait_out flow 20 '"event":"open"' || true
	bg_field flow open established
	stop_bg flow || true
}

# ----------------------------------------------------------------------------------------- early demux

early_demux() { # 0|1
	lab_sysctl edge1 "net.ipv4.tcp_early_demux=$1"
}

# The client has the shared address itself, and edge1 only routes: answers to one port go to the client.
routed_start() { # PORT
	lab_ip client <<-END
		addr add $SHARED/32 dev net
	END
	lab_sysctl edge1 net.ipv4.conf.lan.accept_local=1
	lab_ip edge1 <<-END
		route add $SHARED via 10.1.0.2 dev lan table 201
		rule add lookup local pref 10
		rule add iif wan to $SHARED ipproto tcp dport $1 lookup 201 pref 5
		rule del pref 0
	END
}

routed_stop() {
	lab_ip edge1 <<-END
		rule add lookup local pref 0
		rule del pref 5
		rule del pref 10
		route flush table 201
	END
	lab_sysctl edge1 net.ipv4.conf.lan.accept_local=0
	lab_ip client <<-END
		addr del $SHARED/32 dev net
	END
}

# Is a flow answered beside its placeholder?
flow_beside_placeholder() { # DESTINATION FLOW-SOURCE PORT
	local good=false

	start_bg hold edge1 "$PLACEHOLDER" hold "--$REMEDY" --from "$SHARED:$3" "$1"
	wait_out hold 5 '"held":true' || lab_die "no placeholder for $1"
	start_bg flow client "$TALK" connect --bind "$2:$3" --timeout "$HANG_S" "$1"
	wait_out flow $((HANG_S + 2)) '"event":"connect"'
	[[ $(bg_field flow connect connected) != true ]] || good=$(true_if echoes flow)
	programs_stop
	echo "$good"
}

early_demux_measured() { # PORT
	local on off n rate_off translated_off trips_on=() trips_off=()

	routed_start "$1"
	on=$(flow_beside_placeholder "${DEST[routed_on]}" "$SHARED" "$1")
	early_demux 0
	off=$(flow_beside_placeholder "${DEST[routed_off]}" "$SHARED" "$1")
	routed_stop
	translated_off=$(flow_beside_placeholder "${DEST[translated_off]}" 10.1.0.2 "$1")
	rate_off=$(rate)
	# One after the other: what changes on the machine meanwhile hits both.
	for ((n = 0; n < 5; n++)); do
		early_demux 0
		trips_off+=("$(trips $(($1 + 1 + n)))")
		early_demux 1
		trips_on+=("$(trips $(($1 + 11 + n)))")
	done
	jq -cn --argjson on "$on" --argjson off "$off" --argjson toff "$translated_off" --argjson rate "$rate_off" \
		--argjson trips_on "$(printf '%s\n' "${trips_on[@]}" | median)" \
		--argjson trips_off "$(printf '%s\n' "${trips_off[@]}" | median)" \
		'{routed_flow_works: {on: $on, off: $off}, translated_flow_works: {off: $toff},
		  connections_per_second_off: $rate.per_s, connection_cpu_us_off: $rate.cpu_us,
		  trip_cpu_us: {on: $trips_on, off: $trips_off}}'
}

# Processor time of one round trip on a local connection, microseconds: it hardly changes when the machine is busy.
trips() { # PORT
	in_ns edge1 "$PLACEHOLDER" trips --seconds 0.1 --from "$SHARED:$1" "${DEST[rate]}" | jq .cpu_us
}

# ------------------------------------------------------------------------------------------- the play

server_start() { # N
	local name

	for name in "${!PLACE[@]}"; do
		DEST[$name]=${PLACE[$name]%:*}:$((${PLACE[$name]##*:} + $1 * 100))
	done
	start_bg web origin "$TALK" echo "${DEST[@]}"
	wait_out web 5 ready
}

# Measures the remedy in REMEDY, the Nth; its JSON in RESULT.
remedy_play() { # N
	local port order refused reserve=null stray=null demux=null orders='{}' alone=null firewall=null flows=null

	RATES=null
	server_start "$1"
	refused=$(remedy_refused)
	if [[ -z $refused ]]; then
		remedy_start
		start_bg wire origin "$WIRE" --dev net --in --source "$SHARED" --flows
		wait_out wire 5 ready
		# Of the sockets' half, so that where halves are kept apart the client asks for a socket's port.
		port=$((${SOCKET_HALF%-*} + 10 + $1 * 12))
		for order in ${ORDERS[$REMEDY]}; do
			play "$order" "$port"
			orders=$(jq -c --arg o "$order" --argjson r "$ORDER" '.[$o] = $r' <<<"$orders")
			port=$((port + 100))
		done
		if [[ $REMEDY == disjoint ]]; then
			STRAY=1
			play flow_first "$port"
			stray=$ORDER
			STRAY=
		fi
		alone=$(alone $((port + 60)))
		firewall=$(behind_firewall $((port + 61)))
		stop_bg wire || lab_die "the recorder on the origin's wire: $(bg_report wire)"
		flows=$(client_flows)
		case $REMEDY in
		repair | tfo)
			demux=$(early_demux_measured $((port + 70)))
			reserve=$(rate "--$REMEDY")
			rate_in_turns
			;;
		entry) rate_in_turns --entry ;;
		*) rate_in_turns ;;
		esac
	fi
	stop_bg web
	RESULT=$(jq -cn --arg name "$REMEDY" --arg title "${TITLE[$REMEDY]}" --arg refused "$refused" --argjson orders "$orders" \
		--argjson stray "$stray" --argjson alone "$alone" --argjson firewall "$firewall" --argjson flows "$flows" \
		--argjson rates "$RATES" --argjson reserve "$reserve" --argjson demux "$demux" --argjson none "${NONE:-null}" \
		-L "$LAB_ROOT/netns-lab/scenario" 'include "remedies";
		{name: $name, title: $title, available: ($refused == ""), reason: (if $refused == "" then null else $refused end),
		 orders: $orders, stray: $stray, alone: $alone, behind_firewall: $firewall, client_flows: $flows,
		 connection_errors: ($rates | [.with[]?.errors] | add), connection_errno: ($rates | [.with[]?.errno] | map(select(. != "none")) | first),
		 reservations_per_second: $reserve.per_s, early_demux: $demux}
		| if $demux then .early_demux.translated_flow_works.on = .orders.flow_first.flow_works else . end
		| ($none // .) as $none
		| . + rates($rates)
		| if .available
		  then .works = (.orders | works($none.orders)) | .breaks = breaks($none)
		  else .works = false | .breaks = "not on this kernel: \(.reason)" end')
}

tell_remedy() {
	[[ -z $JSON ]] || return 0
	jq -r '
		def mark: if .both_work then "yes" elif .second_try.both_work then "told" else "NO" end;
		def port: if . == null then "-" else tostring end;
		"\(.name): \(.title)",
		(if .available | not then "    does not work here: \(.reason)" else
		 (.orders + (if .stray then {stray} else {} end) | to_entries[]
		  | "    \(.key | gsub("_"; " ") | . + " " * (16 - length))both work: \(.value | mark)\t bound \(.value.bound_port), on the wire \(.value.wire_port | port), flow \(.value.nat_port | port)"),
		 "    \(.connections_per_second) connections a second (\(.ratio) of plain SNAT, in turns), \(.connection_cpu_us) µs each; \(.client_flows) client flows to one place" +
		  (if .reservations_per_second then ", \(.reservations_per_second) placeholders a second" else "" end),
		 (.early_demux // empty | "    early demux: \(tojson)"),
		 "    works: \(.works)",
		 (.breaks | select(. != "") | split("; ")[] | "    - \(.)") end), ""' <<<"$RESULT"
}

# One line each. An order: "yes" both parties work, "told" the program had to take another port, "no".
tell_table() { # JSON
	[[ -z $JSON ]] || return 0
	jq -r '
		def mark: if . == null then "-" elif .both_work then "yes" elif .second_try.both_work then "told" else "no" end;
		def answer: if . == null then "-" elif . == true then "yes" elif . == false then "no" else tostring end;
		["remedy", "flow first", "bind first", "socket first", "other orders", "firewall", "flows", "conn/s", "ratio", "works"],
		(.remedies[] | if .available then
		 [.name, (.orders.flow_first | mark), (.orders.bind_first | mark), (.orders.socket_first | mark),
		  (.orders | del(.flow_first, .bind_first, .socket_first) | map(mark) | if . == [] then "-" else join("/") end),
		  (.behind_firewall | answer), .client_flows, (.connections_per_second | round), .ratio, (.works | answer)]
		 else [.name, "not on this kernel: \(.reason)"] end)
		| @tsv' <<<"$1" >"$(lab_dir)/table"
	awk -F "\t" '
		NR == FNR { for (i = 1; i <= NF; i++) if (length($i) > w[i] && NF > 2) w[i] = length($i); next }
		{ for (i = 1; i <= NF; i++) printf "%-*s%s", w[i], $i, i < NF ? "  " : "\n" }' "$(lab_dir)/table" "$(lab_dir)/table"
}

scenario_run() {
	local name slice first all n=0 results=()

	for name; do
		[[ " ${REMEDIES[*]} " == *" $name "* ]] || lab_die "remedies: \"$name\" is none of ${REMEDIES[*]}"
	done
	[[ -x $PLACEHOLDER ]] || lab_die "$PLACEHOLDER is not built: run make first"
	slice=$(edge_slice edge1)
	first=${slice%-*}
	NAT_HALF=$first-$((first + 1023))
	SOCKET_HALF=$((first + 1024))-${slice#*-}
	STRAY=
	NONE=
	[[ $# -gt 0 ]] || set -- "${REMEDIES[@]}"
	lab_up egress
	# Ports that a client chooses by itself must not be in the way of those that it is told to bind.
	lab_sysctl client net.ipv4.ip_local_port_range="10000 30000"
	for name in none "${@/#none/}"; do
		[[ $name ]] || continue
		REMEDY=$name
		remedy_play $((n++))
		[[ $name != none ]] || NONE=$RESULT
		results+=("$RESULT")
		tell_remedy
	done
	all=$(printf '%s\n' "${results[@]}" | jq -cs --arg kernel "$(uname -r)" '{kernel: $kernel, remedies: .}')
	tell_table "$all"
	give_json "$all"
	jq -e '[.remedies[] | select(.name == "sluice") | .works == true] | all' >/dev/null <<<"$all"
}
