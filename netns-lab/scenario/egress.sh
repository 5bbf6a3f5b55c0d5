# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Real programs reach the origin through one slice of edge1, and the wire shows only ports of it.
#
# lab run egress [--json] [nftables]
#
# With "nftables", conntrack and SNAT take sluice's place: to compare, and to test the lab itself. ICMP query
# ids are then outside the slice (nftables cannot confine them), so that run reports a failure.
#
# What is recorded: on the gateway's side of each edge's link, every packet that comes from the edge with
# the shared address as source; on the client's link, every packet that arrives. Edge1's offloads are on while the
# large files go (checksums are left to the "hardware" then), and off for all the rest, so that every checksum
# of those packets is on the wire and gets verified.

ORIGIN=198.51.100.10
FILE_BYTES=104857600
UPLOAD_BYTES=16777216
FILE_SEED=7
CONNECTIONS=2000
UDP_SOCKETS=1000 # endpoint-independent: a port each, and the queries take one each too
QUERIES=400
PINGS=40
PING_CLIENTS=5

ROWS=()   # JSON, one each
FAILED=()

# A row of the table: what, what was measured, and whether it is what it has to be (null: only told).
row() { # NAME TEXT GOOD(true|false|null) JSON-VALUE
	local mark

	case $3 in
	true) mark=ok ;;
	null) mark= ;;
	*)
		mark=FAIL
		FAILED+=("$1")
		;;
	esac
	say "$(printf '%-34s %-58s %s' "$1" "$2" "$mark")"
	ROWS+=("$(jq -cn --arg name "$1" --arg text "$2" --argjson ok "$3" --argjson value "$4" \
		'{name: $name, text: $text, ok: $ok, measured: $value}')")
}

true_if() {
	if "$@"; then echo true; else echo false; fi
}

# --------------------------------------------------------------------------------------- programs

origin_start() {
	local n hosts

	hosts=$(lab_dir)/hosts
	for ((n = 0; n < QUERIES; n++)); do
		echo "10.53.$((n / 200)).$((n % 200 + 1)) host$n.lab.test"
	done >"$hosts"
	start_bg echo origin "$TALK" echo "$ORIGIN:7" 198.51.100.11:7
	start_bg echo-udp origin "$TALK" echo --udp "$ORIGIN:7"
	start_bg web origin "$HTTP" serve "$ORIGIN:80"
	start_bg dns origin dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts \
		--addn-hosts="$hosts" --listen-address="$ORIGIN" --bind-interfaces --pid-file= --user=root --log-facility=-
	wait_out echo 5 ready
	wait_out echo-udp 5 ready
	wait_out web 5 ready
	wait_for 5 in_ns origin dig +short +time=1 +tries=1 "@$ORIGIN" host0.lab.test ||
		lab_die "the origin's name server does not answer: $(cat "$(bg_err dns)")"
}

wire_start() { # NAME HOST ARG...
	start_bg "$1" "$2" "$WIRE" "${@:3}"
	wait_out "$1" 5 ready
}

download() {
	local want got start=$EPOCHREALTIME seconds

	want=$("$HTTP" bytes "$FILE_BYTES" "$FILE_SEED" | sha256sum)
	start=$EPOCHREALTIME
	got=$(in_ns client curl -sS --max-time 30 "http://$ORIGIN/bytes/$FILE_BYTES/$FILE_SEED" | sha256sum) || got=failed
	seconds=$(awk "BEGIN { printf \"%.2f\", $EPOCHREALTIME - $start }")
	row "curl, 100 MiB down" "sha256 ${got:0:12}, expected ${want:0:12}, $seconds s" \
		"$(true_if [ "$got" = "$want" ])" \
		"$(jq -cn --arg got "${got%% *}" --arg want "${want%% *}" --argjson s "$seconds" --argjson bytes "$FILE_BYTES" \
			'{bytes: $bytes, sha256: $got, expected: $want, seconds: $s}')"
}

upload() {
	local answer

	answer=$("$HTTP" bytes "$UPLOAD_BYTES" "$FILE_SEED" | in_ns client curl -sS --max-time 30 -T - \
		-H "Transfer-Encoding:" -H "Content-Length: $UPLOAD_BYTES" "http://$ORIGIN/bytes/$UPLOAD_BYTES/$FILE_SEED") ||
		answer='{"failed":true}'
	row "curl, 16 MiB up" "$answer" \
		"$(jq --argjson n "$UPLOAD_BYTES" '.bytes == $n and .match' <<<"$answer")" "$answer"
}

# Opens them and leaves them open, for what follows to run beside them.
connections_open() { # NAME COUNT DESTINATION ARG...
	start_bg "$1" client "$MANY" --hold --timeout 15 "${@:4}" "$2" "$3"
	wait_out "$1" 40 '"event":"verify"' || true
}

connections_row() { # TITLE NAME COUNT
	local open first last

	open=$(bg_field "$2" open established)
	first=$(bg_field "$2" verify ok)
	last=$(bg_ask "$2" 30 verify) || last='{"ok":0}'
	stop_bg "$2" || true
	row "$1" "${open:-0} at once, ${first:-0} echoes, later $(jq .ok <<<"$last")" \
		"$(true_if [ "${open:-0} ${first:-0} $(jq .ok <<<"$last")" = "$3 $3 $3" ])" \
		"$(jq -cn --argjson want "$3" --argjson open "${open:-0}" --argjson first "${first:-0}" --argjson last "$last" \
			'{wanted: $want, established: $open, echoed: $first, verified_later: $last}')"
}

queries() {
	local n dir good

	dir=$(lab_dir)
	for ((n = 0; n < QUERIES; n++)); do
		echo "host$n.lab.test A"
	done >"$dir/queries"
	in_ns client timeout 30 dig -f "$dir/queries" +noall +answer +time=3 +tries=1 "@$ORIGIN" >"$dir/answers" || true
	# "host7.lab.test. 0 IN A 10.53.0.8": each name must have its own address.
	good=$(awk 'NR == FNR { want[$2 "."] = $1; next } $4 == "A" && want[$1] == $5 { good++ } END { print good + 0 }' \
		"$dir/hosts" "$dir/answers")
	row "dig, UDP" "$good of $QUERIES names resolved" "$(true_if [ "$good" = "$QUERIES" ])" \
		"$(jq -cn --argjson want "$QUERIES" --argjson good "$good" '{queries: $want, answered: $good}')"
}

# Several at a time, each with a query id of its own.
pings() {
	local n dir got want=$((PINGS * PING_CLIENTS))

	dir=$(lab_dir)
	for ((n = 1; n <= PING_CLIENTS; n++)); do
		start_bg "ping$n" client ping -q -n -c "$PINGS" -i 0.01 -W 3 -I "10.1.1.$n" "$ORIGIN"
	done
	got=0
	for ((n = 1; n <= PING_CLIENTS; n++)); do
		wait_out "ping$n" 15 'packets transmitted' || true
		got=$((got + $(sed -n 's/.* \([0-9]*\) received.*/\1/p' "$(bg_out "ping$n")" | grep . || echo 0)))
		stop_bg "ping$n" || true
	done
	row "ping, $PING_CLIENTS at once" "$got of $want replies" "$(true_if [ "$got" = "$want" ])" \
		"$(jq -cn --argjson want "$want" --argjson got "$got" '{requests: $want, replies: $got}')"
}

# ---------------------------------------------------------------------------------------- the wire

wire_row() { # TITLE NAME MIN-PACKETS TEMPLATE
	local report

	stop_bg "$2" || true
	report=$(bg_report "$2")
	row "$1" "$(jq -r "\"$4\"" <<<"$report")" \
		"$(jq --argjson min "$3" '.packets >= $min and .lost == 0 and .outside == 0 and .fragments == 0 and .malformed == 0
			and .checksums.ip_bad == 0 and .checksums.l4_bad == 0 and .checksums.none == 0' <<<"$report")" \
		"$report"
}

wires_start() {
	local slice

	slice=$(edge_slice edge1)
	wire_start wire-edge1 gw --dev edge1 --in --source "$SHARED" --ports "$slice"
	wire_start wire-edge2 gw --dev edge2 --in --source "$SHARED" --ports "$(edge_slice edge2)"
	wire_start wire-client client --dev net --in
}

wires_report() { # SUFFIX
	local slice

	slice=$(edge_slice edge1)
	wire_row "wire, from edge1$1" wire-edge1 1 '\(.packets) packets from '"$SHARED"', outside '"$slice"': \(.outside)'
	row "  ports seen$1" "$(bg_report wire-edge1 | jq -r '"TCP \(.tcp.ports) (\(.tcp.first)-\(.tcp.last)), UDP \(.udp.ports), ICMP \(.icmp.ports)"')" \
		null "$(bg_report wire-edge1 | jq '{tcp, udp, icmp}')"
	row "  checksums$1" "$(bg_report wire-edge1 | jq -r '.checksums | "right \(.l4_ok), wrong \(.l4_bad), left to the device \(.not_ready)"')" \
		null "$(bg_report wire-edge1 | jq .checksums)"
	wire_row "wire, from edge2$1" wire-edge2 0 '\(.packets) packets from '"$SHARED"', outside its slice: \(.outside)'
	wire_row "wire, to the client$1" wire-client 1 '\(.packets) packets, wrong checksums \(.checksums.l4_bad), right \(.checksums.l4_ok)'
}

# ---------------------------------------------------------------------------------------- scenario

scenario_run() {
	local with=${1:-sluice}

	lab_up egress
	case $with in
	sluice)
		sluiced_start edge1
		sluiced_start edge2
		;;
	nftables)
		nat_nftables_start edge1
		edge_silent edge2
		;;
	*) lab_die "egress: \"$with\" is not \"nftables\"" ;;
	esac
	origin_start
	say "Client 10.1.0.2 and 10.1.1.1-250, edge1 with $with and $SHARED:$(edge_slice edge1), origin $ORIGIN"
	say

	wires_start
	download
	upload
	wires_report ", large"

	offload edge1 wan off
	offload edge1 lan off
	wires_start
	connections_open many "$CONNECTIONS" "$ORIGIN:7"
	queries
	pings
	connections_open many-udp "$UDP_SOCKETS" "$ORIGIN:7" --udp --from 10.1.1.1-10.1.1.250
	upload
	connections_row "TCP connections, one destination" many "$CONNECTIONS"
	connections_row "UDP sockets of 250 clients" many-udp "$UDP_SOCKETS"
	wires_report ""

	if [[ $with == sluice ]]; then
		counts
		sluiced_stop edge1 || row "sluiced on edge1" "ended badly" false null
		sluiced_stop edge2 || row "sluiced on edge2" "ended badly" false null
	fi
	give_json "$(jq -cn --arg with "$with" --argjson good "$(true_if [ ${#FAILED[@]} -eq 0 ])" --slurpfile rows <(printf '%s\n' "${ROWS[@]}") \
		'{with: $with, ok: $good, rows: $rows}')"
	say
	if [[ ${#FAILED[@]} -gt 0 ]]; then
		say "FAILED: $(printf '%s; ' "${FAILED[@]}")"
		return 1
	fi
	say "All as expected."
}

# What sluice says of the same traffic: nothing escaped, nothing was refused.
counts() {
	local drops bad

	drops=$(sluice_ctl edge1 -j drops)
	# Every reason must be listed: a listing without them would prove nothing.
	bad=$(jq -r '[.. | objects | select(.reason? | IN("escape", "spoof", "no_port", "no_slice", "table_full", "malformed", "rewrite"))
		| .packets] | if length == 7 then add else "not listed" end' <<<"$drops")
	row "sluice drops on edge1" "escapes, refusals, failures: $bad" "$(true_if [ "$bad" = 0 ])" "$drops"
}
