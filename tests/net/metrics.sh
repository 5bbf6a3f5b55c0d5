#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The metrics endpoint of a daemon at work: what curl reads is what a scraper can read, its numbers follow what happens, and a reload moves it, or is refused. Also of
# "sluiced --watch-only".

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

AT=127.0.0.1:9469
SOCKET=$LAB_STATE/edge1/metrics.sock

scrape() { # CURL-ARG...
	in_ns edge1 curl -sS --max-time 10 "${@:-http://$AT/metrics}"
}

code() { # CURL-ARG...
	in_ns edge1 curl -s -o /dev/null -w '%{http_code}' --max-time 10 "$@" || true
}

value() { # SAMPLE
	scrape | awk -v s="$1" 'index($0, s " ") == 1 { print $NF }'
}

# Texts are made once a second: wait for the next one.
is() { # SAMPLE OPERATOR VALUE
	test "$(value "$1")" "$2" "$3"
}

check_value() { # NAME SAMPLE OPERATOR VALUE
	wait_for 10 is "${@:2}" || true
	check "$1" "$2" "$(value "$2")" "$3" "$4"
}

# Problems of a text (stdin) as a scraper has them, one a line: each family with HELP, TYPE and samples, in order, once; names, labels and values well-formed; histograms that add up.
lint() {
	awk '
	function bad(why) { print NR ": " why ": " $0 }
	/^# HELP / { if ($3 <= family) bad("order"); family = $3; type = ""; next }
	/^# TYPE / {
		if ($3 != family) bad("TYPE of another family")
		type = $4
		if ((type == "counter") != (family ~ /_total$/)) bad("type of a name")
		next
	}
	!/^[a-z_]+(\{[a-z_]+="[^"\\]*"(,[a-z_]+="[^"\\]*")*\})? ([0-9.e+-]+|[+]Inf)$/ { bad("syntax"); next }
	{
		name = $1
		sub(/\{.*/, "", name)
		base = name
		if (type == "histogram") sub(/_(bucket|sum|count)$/, "", base)
		if (base != family || type == "") bad("outside of its family")
		if ($1 in seen) bad("twice")
		seen[$1] = 1
		if ($1 ~ /[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+/) bad("an address in a label")
		if (name ~ /_bucket$/) { if ($2 < last) bad("buckets fall"); last = $2; }
		if (name ~ /_count$/ && $2 != last) bad("count is not the last bucket")
	}
	END { if (NR < 20) print "only " NR " lines" }
	' | sed 's/^/	/'
}

# All families that there are to be, but those that a machine without conntrack lacks.
families() {
	scrape | sed -n 's/^# TYPE \([a-z_]*\) .*/\1/p' | grep -v watch_losses | tr '\n' ' '
}

reload_with() { # LISTEN
	conf_edit "s|^\(.*metrics {\).*|\1 listen = \"$1\" }|"
	run_ctl reload
}

test_text() {
	local text

	text=$(scrape)
	check text/lint "problems of the text" "$(lint <<<"$text")" = ""
	check text/families "families" "$(families)" = "sluice_build_info sluice_bytes_total sluice_collisions_total sluice_drops_total \
sluice_flows sluice_flows_created_total sluice_flows_expired_total sluice_leases sluice_packets_total sluice_pool_full_seconds sluice_pool_refused_total sluice_slice_deadline_seconds sluice_slice_ports \
sluice_slice_ports_used sluice_slices sluice_store_commit_seconds "
	check text/other "status of another path" "$(code "http://$AT/")" -eq 404
	check text/method "status of a POST" "$(code -d x "http://$AT/metrics")" -eq 405
	check text/head "status of a HEAD" "$(code -I "http://$AT/metrics")" -eq 200
	check_value text/slices 'sluice_slices{pool="default",state="held"}' -eq 1
	check_value text/ports 'sluice_slice_ports{pool="default"}' -eq 2048
}

test_flows() {
	local created n

	created='sluice_flows_created_total{pool="default",proto="tcp"}'
	n=$(value "$created")
	in_ns client timeout 20 "$MANY" 20 "$ORIGIN:7000" >/dev/null
	check_value flows/created "$created" -ge $((n + 20))
	check_value flows/out 'sluice_packets_total{pool="default",direction="out"}' -ge 60
	check_value flows/in-bytes 'sluice_bytes_total{pool="default",direction="in"}' -ge 1200
	in_ns client timeout 20 "$MANY" --udp 5 "$ORIGIN:7001" >/dev/null
	check_value flows/udp 'sluice_flows{pool="default",proto="udp"}' -ge 5
	# What the sweep found, and what it is called.
	check_value flows/ports 'sluice_slice_ports_used{pool="default",proto="udp",mode="endpoint-independent"}' -ge 5
}

test_leases() {
	local commits n

	commits=sluice_store_commit_seconds_count
	n=$(value "$commits")
	run_ctl acquire --pool default --proto udp --exclusive --ttl 600
	check leases/acquire "exit code" "$RC" -eq 0
	check_value leases/exclusive 'sluice_leases{pool="default",kind="exclusive"}' -eq 1
	check_value leases/port 'sluice_slice_ports_used{pool="default",proto="udp",mode="lease"}' -eq 1
	check_value leases/commits "$commits" -ge $((n + 1))
	run_ctl release "$(sluice_ctl edge1 -j leases | jq '.leases[0].id')"
	check_value leases/cooling 'sluice_slice_ports_used{pool="default",proto="udp",mode="cooling"}' -eq 1
	check_value leases/gone 'sluice_leases{pool="default",kind="exclusive"}' -eq 0
}

test_drops() {
	local n

	n=$(value 'sluice_drops_total{reason="proto"}')
	in_ns client "$RAW" --count 5 10.1.0.2 "$ORIGIN" 47 '0000 0800 61626364' >/dev/null
	check_value drops/proto 'sluice_drops_total{reason="proto"}' -ge $((n + 5))
}

# Clients that only sit there keep nobody from anything, for long.
test_idle() {
	local pids=() n

	for n in {1..20}; do
		in_ns edge1 bash -c "exec 3<>/dev/tcp/${AT%:*}/${AT#*:}; read -r -t 30 -u 3" &
		pids+=($!)
	done
	check_that idle/daemon "the daemon does not answer" sluice_ctl edge1 status
	check_that idle/scrape "no metrics beside idle clients" wait_for 20 scrape
	wait "${pids[@]}" || true # they are cut off
	check idle/after "status" "$(code "http://$AT/metrics")" -eq 200
}

test_reload() {
	reload_with "unix:$SOCKET"
	check reload/code "exit code" "$RC" -eq 0
	check reload/left "status where it was" "$(code "http://$AT/metrics")" -eq 0
	check reload/unix "status" "$(code --unix-socket "$SOCKET" http://x/metrics)" -eq 200
	check reload/mode "mode of the file" "$(stat -c %a:%G "$SOCKET")" = 660:games
	check reload/lint "problems of the text" "$(scrape --unix-socket "$SOCKET" http://x/metrics | lint)" = ""
	# A place that there is not: refused whole, and it goes on.
	reload_with 192.0.2.99:9469
	check reload/refused "exit code" "$RC" -eq 2
	check_text reload/refused-text "$SAID" 'sluice.conf:[0-9]+: listen "192.0.2.99:9469": Cannot assign'
	check reload/goes-on "status" "$(code --unix-socket "$SOCKET" http://x/metrics)" -eq 200
	reload_with "$AT"
	check reload/back "status" "$(code "http://$AT/metrics")" -eq 200
	check reload/file "file of the socket" "$([[ -e $SOCKET ]] && echo there)" = ""
	check_that reload/quiet "a warning about the loopback address" grep -qv "no authentication" "$(bg_err sluiced-edge1)"
	reload_with 0.0.0.0:9469
	check reload/everywhere "status from outside" "$(in_ns client curl -s -o /dev/null -w '%{http_code}' --max-time 10 http://10.1.0.1:9469/metrics)" -eq 200
	check_that reload/warned "no warning about an address that others reach" grep -q "no authentication" "$(bg_err sluiced-edge1)"
}

# What takes the daemon's place at its port does not keep it from starting.
test_taken() {
	sluiced_stop edge1
	start_bg taken edge1 "$TALK" echo "$AT"
	wait_out taken 10 ready
	conf_edit "s|0.0.0.0:9469|$AT|"
	sluiced_start edge1
	check_that taken/said "nothing in the log" grep -q "sluice.conf:[0-9]*: listen \"$AT\": Address already in use" "$(bg_err sluiced-edge1)"
	stop_bg taken || true
	check_that taken/later "no metrics when the port is free again" wait_for 20 scrape
}

test_watch_only() {
	sluiced_stop edge1
	cat >"$(conf_file)" <<-END
		machine = "edge1"
		state-dir = "$LAB_STATE/edge1/state"
		control = "$LAB_STATE/edge1/control.sock"
		watch { netns = { "" } }
		metrics { }
	END
	start_bg sluiced-edge1 edge1 "$SLUICED" --watch-only -d -f "$(conf_file)"
	wait_for 10 lab_sluiced_answers edge1 || lab_die "sluiced --watch-only did not come up"
	check watch-only/lint "problems of the text" "$(scrape | lint)" = ""
	check watch-only/families "families" "$(families)" = "sluice_build_info sluice_collisions_total sluice_store_commit_seconds "
	check_value watch-only/losses 'sluice_watch_losses_total{source="ctnetlink"}' -eq 0
	check_value watch-only/collisions 'sluice_collisions_total{source="ctnetlink",in_slice="false"}' -eq 0
}

lab_begin
lab_up egress
edge_conf edge1 "" "metrics { }
	access { group = \"games\" }" >/dev/null
sluiced_start edge1
echo_start
test_text
test_flows
test_leases
test_drops
test_idle
test_reload
test_taken
test_watch_only
exit "$TEST_FAILED"
