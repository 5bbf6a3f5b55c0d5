# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# What the tests of an operator's life share, on top of netns-lab/lib.sh and tests/lib.sh. The daemon is edge1's.

RAW=$LAB_BUILD/tools/raw
PESTER=$LAB_BUILD/tools/pester
ORIGIN=198.51.100.10

conf_file() {
	echo "$LAB_STATE/edge1/sluice.conf"
}

# Packets dropped so far for a reason.
drops() { # REASON
	sluice_ctl edge1 -j drops | jq ".drops[] | select(.reason == \"$1\") | .packets"
}

drops_reach() { # REASON COUNT
	[[ $(drops "$1") -ge $2 ]]
}

# True if the text has a line that matches (grep -E).
has_line() { # TEXT REGEX
	grep -qE -- "$2" <<<"$1"
}

# One case: a text must match (grep -E).
check_text() { # NAME TEXT REGEX
	if has_line "$2" "$3"; then
		test_ok "$1"
	else
		test_fail "$1" "\"$2\" does not say \"$3\""
	fi
}

# One case: a command must succeed.
check_that() { # NAME WHY COMMAND...
	local name=$1 why=$2

	shift 2
	if "$@" >/dev/null 2>&1; then
		test_ok "$name"
	else
		test_fail "$name" "$why"
	fi
}

check_not() { # NAME WHY COMMAND...
	local name=$1 why=$2

	shift 2
	if "$@" >/dev/null 2>&1; then
		test_fail "$name" "$why"
	else
		test_ok "$name"
	fi
}

# Run a command on edge1 that must end by itself. Sets RC, and SAID to all that it printed.
run_there() { # COMMAND...
	RC=0
	SAID=$(in_ns edge1 timeout 60 "$@" 2>&1) || RC=$?
}

# The same for "sluice".
run_ctl() { # ARG...
	RC=0
	SAID=$(sluice_ctl edge1 "$@" 2>&1) || RC=$?
}

# Start a daemon in the foreground that must be refused: exit code 2, and a text.
check_refused() { # NAME REGEX [CONF]
	run_there "$SLUICED" -d -f "${3:-$(conf_file)}"
	check "$1" "exit code of sluiced" "$RC" -eq 2
	check_text "$1-text" "$SAID" "$2"
}

# Replace in the configuration: sed's language.
conf_edit() { # SED...
	sed -i "$@" "$(conf_file)"
}

# What the daemon makes of a host, as a text to compare. Pins by inode: the same ones, not only the same names.
# Without the hooks of inner interfaces: the daemon finds those by itself, within seconds.
host_state() {
	in_ns edge1 sysctl net.ipv4.ip_forward net.ipv4.conf
	in_ns edge1 ip -4 route show table all
	[[ ! -d $LAB_BPFFS/slab-edge1 ]] || find "$LAB_BPFFS/slab-edge1" ! -name '*-inner' -printf '%p %i\n' | sort
	in_ns edge1 bpftool net show 2>/dev/null
	in_ns edge1 tc qdisc show
}

# One case: the host is as it was.
check_host() { # NAME STATE-BEFORE
	local now changed

	now=$(host_state)
	changed=$(diff <(echo "$2") <(echo "$now") | grep "^[<>]" | head -n 5 | tr "\n" " ") || true
	check "$1" "changes of the host" "$changed" = ""
}

# Traffic that must not be hurt: COUNT connections of clients, each echoing every 20 ms.
traffic_start() { # COUNT
	start_bg traffic client "$MANY" --hold --traffic 20 "$1" "$ORIGIN:7000"
	wait_out traffic 20 '"event":"verify"'
}

# Messages that were answered until now; fails when a connection was hurt.
traffic_answered() {
	local line

	line=$(bg_ask traffic 20 status) || return 1
	[[ $line == *'"broken":0,"silent":0'* && $line == *'"wrong":0'* ]] || return 1
	[[ $line =~ \"answered\":([0-9]+) ]] && echo "${BASH_REMATCH[1]}"
}

traffic_beyond() { # ANSWERED
	[[ $(traffic_answered) -gt $1 ]]
}

# One case: nothing was hurt, and messages go on being answered from now on.
check_traffic() { # NAME
	local now

	if ! now=$(traffic_answered); then
		test_fail "$1" "connections were hurt: $(bg_report traffic)"
	elif ! wait_for 10 traffic_beyond "$now"; then
		test_fail "$1" "nothing is answered any more: $(bg_report traffic)"
	else
		test_ok "$1"
	fi
}

echo_start() {
	start_bg echo origin "$TALK" echo "$ORIGIN:7000"
	wait_out echo 10 ready
	start_bg echo-udp origin "$TALK" echo --udp "$ORIGIN:7001"
	wait_out echo-udp 10 ready
}

# Do new flows work?
new_flows() {
	in_ns client timeout 10 "$MANY" --timeout 4 5 "$ORIGIN:7000" &&
		in_ns client timeout 10 "$MANY" --udp --timeout 4 5 "$ORIGIN:7001"
}

# Watch what leaves edge1, on the gateway: with the arguments, for example --source "$SHARED".
watch_wire() { # NAME WIRE-ARG...
	local name=$1

	shift
	start_bg "$name" gw "$WIRE" --dev edge1 --in "$@"
	wait_out "$name" 10 ready
}

# Packets that were seen. The recorder's own verdict is not the point here.
wire_packets() { # NAME
	stop_bg "$1" || true
	bg_field "$1" report packets
}

# Kilobytes of memory that the daemon has.
daemon_rss() {
	awk '/^VmRSS:/ { print $2 }' "/proc/$(sluiced_pid edge1)/status"
}

# Send, and count what leaves edge1 towards the gateway until the drops are counted: nothing may. (ARP and IPv6 are no matter.)
check_dropped() { # NAME REASON COUNT COMMAND...
	local name=$1 reason=$2 count=$3 before

	shift 3
	before=$(drops "$reason")
	watch_wire silence
	"$@" >/dev/null 2>&1 </dev/null || true
	wait_for 10 drops_reach "$reason" $((before + count)) || true
	check "$name/counted" "packets dropped as $reason" $(($(drops "$reason") - before)) -ge "$count"
	wire_packets silence >/dev/null
	check "$name/silence" "IPv4 packets from the edge" $(($(bg_field silence report packets) - $(bg_field silence report not_ip))) -eq 0
}

# No TCP connection anywhere that could still send something.
settled() {
	[[ -z $(for host in edge1 origin; do in_ns "$host" ss -tnH state connected exclude time-wait; done) ]]
}

# One line there and back.
talk_once() { # HOST ARG...
	local host=$1 answer

	shift
	start_bg once "$host" "$TALK" connect "$@"
	wait_out once 10 '"connected":true' || return 1
	answer=$(bg_ask once 10 hello) || return 1
	stop_bg once || true
	wait_for 10 settled || return 1
	[[ $answer == *'"ok":true'* ]]
}
