#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Starting the daemon, as an operator does it: -n changes nothing and names what is wrong, a second daemon is refused and hurts
# nothing, the control socket is replaced only when nobody listens, exit codes are as documented, the daemon keeps
# five capabilities, and who may do what on the control socket is as configured.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

# ---- sluiced -n ----

# A configuration with one thing wrong: exit code 2, its line, and its value.
check_bad() { # NAME SED LINE-REGEX VALUE
	local conf=$LAB_STATE/edge1/bad.conf line

	sed "$2" "$(conf_file)" >"$conf"
	line=$(grep -nE -m 1 -- "$3" "$conf" | cut -d: -f1)
	run_there "$SLUICED" -n -f "$conf"
	check "n/$1" "exit code" "$RC" -eq 2
	if [[ $SAID == "$conf:$line: "*"$4"* ]]; then
		test_ok "n/$1-text"
	else
		test_fail "n/$1-text" "\"$SAID\" does not begin with $conf:$line: and name $4"
	fi
}

# What a file is good for only the host knows.
check_host_says_no() { # NAME SED REGEX
	sed "$2" "$(conf_file)" >"$LAB_STATE/edge1/bad.conf"
	run_there "$SLUICED" -n -f "$LAB_STATE/edge1/bad.conf"
	check "n/$1" "exit code" "$RC" -eq 2
	check_text "n/$1-text" "$SAID" "$3"
}

test_n() {
	local before

	before=$(host_state)
	run_there "$SLUICED" -n -f "$(conf_file)"
	check n/good "exit code of a good file: $SAID" "$RC" -eq 0
	check_bad slice-size 's/slice-size = .*/slice-size = 2000/' 'slice-size' '"2000"'
	check_bad slice-address 's/slices .*/slices = { "203.0.113.8:40960-43007" }/' 'slices' '203.0.113.8'
	check_bad slice-range 's/slices .*/slices = { "203.0.113.7:41000-43007" }/' 'slices' '41000-43007'
	check_bad address 's/"203.0.113.7" }/"203.0.113.300" }/' 'addresses' '"203.0.113.300"'
	check_bad prefix 's|10.1.0.0/16|10.1.0.1/16|' 'clients' '"10.1.0.1/16"'
	check_bad unknown-key 's/slice-size/slice-siez/' 'slice-siez' 'slice-siez'
	check_bad word 's/clients .*/&\n tcp-mapping = "sometimes"/' 'tcp-mapping' '"sometimes"'
	check_bad number 's/^uplinks/max-flows = 12\n&/' 'max-flows' '"12"'
	check_bad ttl 's/^uplinks/fleet {\n ttl = 1\n}\n&/' 'ttl' '"1"'
	check_bad quote 's/^machine .*/machine = "edge1/' 'machine' 'edge1'
	check_host_says_no uplink 's/"wan"/"wan", "wan9"/' 'bad.conf:[0-9]+: uplink "wan9" does not exist; links here: '
	check_host_says_no loopback 's/"wan"/"lo"/' '"lo" is of link type'
	check_host_says_no group 's/^uplinks/access { group = "no-such-group" }\n&/' '"no-such-group" does not exist'
	run_there "$SLUICED" -n -f "$LAB_STATE/nowhere.conf"
	check n/no-file "exit code" "$RC" -eq 2
	check_text n/no-file-text "$SAID" 'nowhere.conf: No such file'
	check_host n/changes-nothing "$before"
	check n/no-store "files in the state directory" "$(find "$LAB_STATE/edge1/state" -type f | wc -l)" -eq 0
}

# ---- usage ----

test_usage() {
	local args

	for args in --nonsense "-n --teardown" "-n word" "-f"; do
		# shellcheck disable=SC2086 # several words
		run_there "$SLUICED" $args
		check "usage/sluiced ${args// /_}" "exit code: $SAID" "$RC" -eq 1
	done
	for args in "" nonsense "flows --port 0" "flows --proto sctp" "flows --client 10.1.0.1/16" "status --pool x" "status more" \
		"-t x status" "--socket"; do
		# shellcheck disable=SC2086
		run_ctl $args
		check "usage/sluice ${args// /_}" "exit code: $SAID" "$RC" -eq 1
	done
	run_ctl status
	check exit/no-socket "exit code without a daemon" "$RC" -eq 3
	check_text exit/no-socket-text "$SAID" 'cannot reach sluiced at .*control.sock: No such file'
}

# ---- a second daemon ----

test_second() {
	local before conf=$LAB_STATE/edge1/second.conf

	before=$(host_state)
	check_refused second/same 'state directory .* in use by process '"$(sluiced_pid edge1)"
	sed "s|^state-dir .*|state-dir = \"$LAB_STATE/edge1/second\"|" "$(conf_file)" >"$conf"
	check_refused second/same-socket "control.sock is in use: another sluiced" "$conf"
	# All is its own but the socket. It must notice before it has touched the uplink.
	sed "s|^bpffs .*|bpffs = \"$LAB_BPFFS/slab-edge1/second\"|" "$conf" >"$conf.2"
	check_refused second/same-socket-only "control.sock is in use: another sluiced" "$conf.2"
	sed -i "s|^control .*|control = \"$LAB_STATE/edge1/second.sock\"|" "$conf"
	check_refused second/same-bpffs "slab-edge1: another sluiced is using it" "$conf"
	check_host second/changes-nothing "$before"
	check_that second/first-answers "the first daemon does not answer" sluice_ctl edge1 status
	check_traffic second/traffic
}

# ---- the control socket's file ----

test_socket_file() {
	local before rc sock=$LAB_STATE/edge1/control.sock

	sluiced_kill edge1
	check_that socket/stale-left "SIGKILL left no socket, so the next case shows nothing" test -S "$sock"
	run_ctl status
	check exit/stale "exit code on a socket that nobody listens on" "$RC" -eq 3
	sluiced_start edge1 || true
	check_that socket/stale-replaced "no answer after a start over a stale socket" sluice_ctl edge1 status
	start_bg monitor edge1 "$SLUICE" --socket "$sock" monitor
	wait_out monitor 10 subscribed
	sluiced_stop edge1
	wait_for 10 lab_pid_gone "$(<"$LAB_STATE/pids/monitor")" || true
	rc=0
	stop_bg monitor || rc=$?
	check exit/gone "exit code of sluice monitor when the daemon stops" "$rc" -eq 3
	check_not socket/removed "the socket is left behind after SIGTERM" test -e "$sock"

	echo precious >"$sock"
	before=$(host_state)
	check_refused socket/in-the-way "control.sock is in the way"
	check socket/file-unhurt "what was in the way" "$(cat "$sock")" = precious
	check_host socket/changes-nothing "$before"
	rm "$sock"
	sluiced_start edge1
	check_traffic socket/traffic
}

# ---- capabilities ----

test_capabilities() {
	local set status

	# CHOWN, NET_ADMIN, NET_RAW, PERFMON, BPF
	printf -v set '%016x' $((1 << 0 | 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39))
	status=$(<"/proc/$(sluiced_pid edge1)/status")
	check_text caps/effective "$status" "^CapEff:.$set\$"
	check_text caps/permitted "$status" "^CapPrm:.$set\$"
	check_text caps/bounding "$status" "^CapBnd:.$set\$"
	check_text caps/inheritable "$status" "^CapInh:.0+\$"
	check_text caps/ambient "$status" "^CapAmb:.0+\$"
}

# ---- who may use the socket ----

as_other() { # COMMAND...: as nobody, in no group but its own
	run_there setpriv --reuid nobody --regid nogroup --clear-groups "$@"
}

as_member() { # COMMAND...: as nobody, in group daemon
	run_there setpriv --reuid nobody --regid nogroup --groups daemon "$@"
}

test_access() {
	local sluice sock=$LAB_STATE/edge1/control.sock

	# Where everybody can get at it.
	cp "$SLUICE" "$PUBLIC/sluice"
	sluice="$PUBLIC/sluice --socket $sock"
	check access/mode "mode" "$(stat -c %a "$sock")" = 666
	# shellcheck disable=SC2086
	{
		as_member $sluice status
		check access/all-read "exit code: $SAID" "$RC" -eq 0
		as_member $sluice flows
		check access/root-only "exit code for others" "$RC" -eq 5
		check_text access/root-only-text "$SAID" 'access.group'
	}

	conf_edit 's/^uplinks/access { group = "daemon" }\n&/'
	run_ctl reload
	check access/reload "exit code: $SAID" "$RC" -eq 0
	check access/group-mode "mode and group" "$(stat -c '%a %G' "$sock")" = "666 daemon"
	# shellcheck disable=SC2086
	{
		as_member $sluice status
		check access/member-reads "exit code: $SAID" "$RC" -eq 0
		as_member $sluice flows
		check access/member-lists "exit code: $SAID" "$RC" -eq 0
		as_member $sluice reload
		check access/member-denied "exit code" "$RC" -eq 5
		check_text access/member-denied-text "$SAID" 'only root may call Reload'
		as_other $sluice flows
		check access/others "exit code" "$RC" -eq 5
		check_text access/others-text "$SAID" 'daemon'
	}
	# A group that does not exist: refused as a whole, and who may connect stays.
	conf_edit 's/^access.*/access { group = "no-such-group" }/'
	run_ctl reload
	check access/no-group "exit code" "$RC" -eq 2
	check_text access/no-group-text "$SAID" '"no-such-group" does not exist'
	check access/no-group-mode "mode and group" "$(stat -c '%a %G' "$sock")" = "666 daemon"
	conf_edit '/^access/d'
	run_ctl reload
	check access/back "mode" "$(stat -c '%a %G' "$sock")" = "666 root"
}

test_stopped() {
	kill -STOP "$(sluiced_pid edge1)"
	run_ctl -t 1 status
	check exit/stopped "exit code while the daemon is stopped" "$RC" -eq 7
	kill -CONT "$(sluiced_pid edge1)"
	wait_for 10 sluice_ctl edge1 status || true
	check_that exit/goes-on "no answer after SIGCONT" sluice_ctl edge1 status
}

PUBLIC=$(mktemp -d)
chmod 755 "$PUBLIC"
lab_begin
trap 'status=$?; rm -rf "$PUBLIC"; (exit "$status"); lab_exit' EXIT
lab_up egress
edge_conf edge1 >/dev/null
test_n
test_usage
sluiced_start edge1
echo_start
traffic_start 20
test_second
test_socket_file
test_capabilities
test_access
test_stopped
check_traffic traffic-at-the-end
exit "$TEST_FAILED"
