# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
#
# The lab's functions, for netns-lab/lab, its scenarios, and the tests (tests/net, tests/crash). A test:
#
#	#!/bin/bash
#	set -euo pipefail
#	. "$(dirname "$0")/../../netns-lab/lib.sh"
#	lab_begin                       # lock, clean up what a killed run left, clean up at exit
#	lab_up egress                   # or lab_up_egress
#	sluiced_start edge1
#	start_bg echo origin "$TALK" echo 198.51.100.10:7
#	wait_out echo 5 ready
#	in_ns client "$MANY" 100 198.51.100.10:7
#
# Hosts are named without "slab-". Every function returns 0 on success; lab_die ends the script.
#
# The lab
#   lab_begin                   root and tools are checked, the lock is taken (one lab at a time), remains
#                               are removed, and an EXIT trap is set that takes everything down
#   lab_keep                    leave everything up at exit after all
#   lab_up TOPOLOGY             build it; lab_up_egress is short for "lab_up egress"
#   lab_down                    end every process, remove namespaces, pins and files
#   lab_dir                     print the directory for files of this run; lab_down removes it
#   lab_die TEXT...             message to stderr, exit 1
#   lab_sysctl HOST KEY=VALUE...
#   lab_ip HOST                 commands of ip(8) from stdin, one a line
#
# Running things
#   in_ns HOST CMD...           run in that host's network namespace; /sys and /sys/fs/bpf stay visible
#   start_bg NAME HOST CMD...   the same in the background. Its stdin is held open (and closes when the
#                               script dies, which ends the test tools); stdout and stderr go to files
#   bg_pid NAME, bg_alive NAME, bg_out NAME, bg_err NAME      pid; is it running; paths of the files
#   wait_out NAME S REGEX       wait until its stdout has a line that matches (grep -E)
#   bg_send NAME LINE           a line to its stdin
#   bg_ask NAME S LINE          send the line, wait for one more line of stdout, print that
#   bg_report NAME              print the last line of its stdout
#   bg_field NAME EVENT FIELD   a field of its last line with that "event" (the test tools' flat JSON lines)
#   stop_bg NAME [SIGNAL]       end it (TERM) and wait; returns its exit status. KILL after 10 s
#   wait_for S CMD...           run CMD until it succeeds, for at most S seconds; its output is hidden
#
# NAT on an edge
#   edge_conf EDGE [POOL-LINES [TOP-LINES]]   write the configuration, print its path
#   edge_slice EDGE             print FIRST-LAST of its slice
#   sluiced_start EDGE [BINARY [ARG...]]      with the written configuration (edge_conf is called if
#                               there is none); returns when "sluice status" answers
#   sluiced_stop EDGE           SIGTERM, and wait for the end; pins stay, as designed
#   sluiced_kill EDGE           SIGKILL, and wait until it is gone
#   sluiced_pid EDGE
#   sluice_ctl EDGE ARG...      the command, with that daemon's socket
#   nat_nftables_start EDGE, nat_nftables_stop EDGE    conntrack's way: SNAT to the edge's slice
#   edge_silent EDGE            the shared address is local, and nothing answers for it; counted
#   edge_silent_count EDGE      packets that came for it so far
#   offload HOST DEV on|off     transmit checksum and segmentation offload
#
# Environment: LAB_BUILD (default: build/ of this tree), LAB_STATE (default: /run/sluice-lab),
# LAB_WAIT (seconds to wait for another lab to end, default 0). File descriptor 9 is the lock.

PATH=$PATH:/usr/sbin:/sbin

LAB_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
LAB_BUILD=${LAB_BUILD:-$LAB_ROOT/build}
LAB_STATE=${LAB_STATE:-/run/sluice-lab}
LAB_WAIT=${LAB_WAIT:-0}
LAB_BPFFS=/sys/fs/bpf

SLUICED=$LAB_BUILD/sluiced
SLUICE=$LAB_BUILD/sluice
TALK=$LAB_BUILD/tools/talk
MANY=$LAB_BUILD/tools/many
HTTP=$LAB_BUILD/tools/http
WIRE=$LAB_BUILD/tools/wire

# shellcheck disable=SC2034 # for those who source this file
SHARED=203.0.113.7

declare -A LAB_FD=()
LAB_LOCK=
LAB_KEEP=

# ---------------------------------------------------------------------------------------- the lab

lab_die() {
	echo "lab: $*" >&2
	exit 1
}

lab_dir() {
	echo "$LAB_STATE/files"
}

lab_keep() {
	LAB_KEEP=1
}

# Names of the hosts of every topology: all that lab_down may remove.
lab_hosts() {
	local file

	for file in "$LAB_ROOT"/netns-lab/topology/*.sh; do
		(
			# shellcheck source=topology/egress.sh
			. "$file"
			printf '%s\n' "${TOPOLOGY_HOSTS[@]}"
		)
	done | sort -u
}

lab_require() {
	local tool missing=

	[[ $EUID -eq 0 ]] || lab_die "must be run as root: it makes network namespaces"
	for tool in ip nsenter flock nft conntrack ethtool jq curl ping dig dnsmasq sha256sum awk; do
		command -v "$tool" >/dev/null || missing+=" $tool"
	done
	[[ -z $missing ]] || lab_die "missing:$missing (scripts/setup installs what is needed)"
	for tool in "$TALK" "$MANY" "$HTTP" "$WIRE"; do
		[[ -x $tool ]] || lab_die "$tool is not built: run make first"
	done
}

# The lock is file descriptor 9, which no program that the lab starts keeps: else what a killed run leaves
# behind would hold it.
lab_lock() {
	local file=$LAB_STATE.lock holder

	[[ -z $LAB_LOCK ]] || return 0
	exec 9<>"$file"
	if ! flock -w "$LAB_WAIT" 9; then
		holder=$(<"$file")
		# A holder that is dead has at most left a short command behind.
		if [[ -e /proc/$holder ]] || ! flock -w 30 9; then
			lab_die "another lab is running (pid $holder); one at a time"
		fi
	fi
	echo $$ >"$file"
	LAB_LOCK=1
}

lab_mount_bpffs() {
	[[ $(stat -f -c %t "$LAB_BPFFS" 2>/dev/null) == cafe4a11 ]] ||
		mount -t bpf bpf "$LAB_BPFFS" ||
		lab_die "cannot mount a bpf file system at $LAB_BPFFS"
}

lab_begin() {
	lab_require
	lab_lock
	trap lab_exit EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
	lab_down
	lab_mount_bpffs
}

lab_exit() {
	local status=$?

	trap '' HUP INT TERM
	[[ -n $LAB_KEEP ]] || lab_down
	exit "$status"
}

lab_up() {
	local file=$LAB_ROOT/netns-lab/topology/$1.sh

	[[ $1 =~ ^[a-z0-9-]+$ && -r $file ]] || lab_die "no topology \"$1\": see \"lab list\""
	# shellcheck source=topology/egress.sh
	. "$file"
	mkdir -p "$LAB_STATE/pids" "$LAB_STATE/files"
	topology_up
	echo "$1" >"$LAB_STATE/topology"
}

lab_up_egress() {
	lab_up egress
}

lab_down() {
	local name host fd

	if [[ -d $LAB_STATE/pids ]]; then
		for name in "$LAB_STATE"/pids/*; do
			[[ -e $name ]] && lab_end_pid "$(<"$name")"
		done
	fi
	for fd in "${LAB_FD[@]}"; do
		exec {fd}>&-
	done
	LAB_FD=()
	for host in $(lab_hosts); do
		[[ ! -d $LAB_BPFFS/slab-$host ]] || rm -rf "${LAB_BPFFS:?}/slab-$host"
		[[ -e /run/netns/slab-$host ]] || continue
		# Whatever still runs in there was started there: a command of a killed run, a shell.
		for name in $(ip netns pids "slab-$host" 2>/dev/null); do
			lab_end_pid "$name $(lab_start_time "$name")"
		done
		ip netns del "slab-$host"
	done
	rm -rf "$LAB_STATE"
}

lab_sysctl() {
	local host=$1

	shift
	in_ns "$host" sysctl -q -w "$@"
}

lab_ip() {
	ip -n "slab-$1" -batch -
}

# ---------------------------------------------------------------------------------- running things

# A process is known by its pid and start time (field 22 of its stat), so a pid that was given to
# another process since is never taken for ours. Prints nothing if there is no such process, or only a zombie.
lab_start_time() {
	local stat
	local -a field

	{ stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 0
	read -r -a field <<<"${stat##*) }"
	[[ ${field[0]} == [ZX] ]] || echo "${field[19]}"
}

lab_pid_runs() { # "PID START-TIME"
	local pid=${1% *} start=${1#* }

	[[ -n $start && $(lab_start_time "$pid") == "$start" ]]
}

lab_pid_gone() {
	! lab_pid_runs "$1"
}

lab_end_pid() { # "PID START-TIME": TERM, and KILL if that does not help
	lab_pid_runs "$1" || return 0
	kill -TERM "${1% *}" 2>/dev/null || true
	kill -CONT "${1% *}" 2>/dev/null || true
	if ! wait_for 5 lab_pid_gone "$1"; then
		kill -KILL "${1% *}" 2>/dev/null || true
		wait_for 5 lab_pid_gone "$1" || echo "lab: process ${1% *} does not end" >&2
	fi
}

in_ns() {
	local host=$1

	shift
	nsenter --net="/run/netns/slab-$host" -- "$@" 9>&-
}

wait_for() {
	local end=$((${EPOCHREALTIME/[^0-9]/} + $1 * 1000000))

	shift
	until "$@" >/dev/null 2>&1; do
		((${EPOCHREALTIME/[^0-9]/} < end)) || return 1
		sleep 0.02
	done
}

start_bg() {
	local name=$1 host=$2 base=$LAB_STATE/$1 fd other pid

	shift 2
	! bg_alive "$name" || lab_die "start_bg: \"$name\" is running already"
	bg_forget "$name"
	mkfifo "$base.in"
	exec {fd}<>"$base.in"
	(
		for other in "${LAB_FD[@]}" "$fd" 9; do
			exec {other}>&-
		done
		exec nsenter --net="/run/netns/slab-$host" -- "$@"
	) <"$base.in" >"$base.out" 2>"$base.err" &
	pid=$!
	LAB_FD[$name]=$fd
	echo "$pid $(lab_start_time "$pid")" >"$LAB_STATE/pids/$name"
}

bg_forget() {
	local fd=${LAB_FD[$1]:-}

	[[ -z $fd ]] || exec {fd}>&-
	unset "LAB_FD[$1]"
	rm -f "$LAB_STATE/$1.in" "$LAB_STATE/pids/$1"
}

bg_pid() {
	local id

	id=$(<"$LAB_STATE/pids/$1") && echo "${id% *}"
}

bg_alive() {
	[[ -e $LAB_STATE/pids/$1 ]] && lab_pid_runs "$(<"$LAB_STATE/pids/$1")"
}

bg_out() {
	echo "$LAB_STATE/$1.out"
}

bg_err() {
	echo "$LAB_STATE/$1.err"
}

lab_has_line() { # NAME REGEX; gives up early on a process that ended without the line
	grep -qE -- "$2" "$LAB_STATE/$1.out"
}

lab_has_line_or_ended() {
	lab_has_line "$@" || ! bg_alive "$1"
}

wait_out() {
	wait_for "$2" lab_has_line_or_ended "$1" "$3" && lab_has_line "$1" "$3" && return 0
	{
		echo "lab: \"$1\" did not say \"$3\" in $2 s"
		tail -n 5 "$LAB_STATE/$1.out" "$LAB_STATE/$1.err"
	} >&2
	return 1
}

bg_send() {
	printf '%s\n' "$2" >&"${LAB_FD[$1]}"
}

lab_has_lines() { # NAME COUNT
	(($(wc -l <"$LAB_STATE/$1.out") >= $2)) || ! bg_alive "$1"
}

bg_ask() {
	local want

	want=$(($(wc -l <"$LAB_STATE/$1.out") + 1))
	bg_send "$1" "$3"
	wait_for "$2" lab_has_lines "$1" "$want" || true
	sed -n "${want}p" "$LAB_STATE/$1.out" | grep . || {
		echo "lab: \"$1\" did not answer \"$3\" in $2 s" >&2
		return 1
	}
}

bg_report() {
	tail -n 1 "$LAB_STATE/$1.out"
}

bg_field() {
	local line

	line=$(grep -F "\"event\":\"$2\"" "$LAB_STATE/$1.out" | tail -n 1)
	[[ ! $line =~ \"$3\":\"?([^,\"}]*) ]] || echo "${BASH_REMATCH[1]}"
}

stop_bg() {
	local name=$1 id status=0

	[[ -e $LAB_STATE/pids/$name ]] || return 0
	id=$(<"$LAB_STATE/pids/$name")
	! lab_pid_runs "$id" || kill "-${2:-TERM}" "${id% *}" 2>/dev/null || true
	if ! wait_for 10 lab_pid_gone "$id"; then
		echo "lab: \"$name\" does not end, killed" >&2
		kill -KILL "${id% *}" 2>/dev/null || true
	fi
	wait "${id% *}" 2>/dev/null || status=$?
	bg_forget "$name"
	return "$status"
}

# ------------------------------------------------------------------------------------ NAT on an edge

edge_slice() {
	case $1 in
	edge1) echo 40960-43007 ;;
	edge2) echo 43008-45055 ;;
	*) lab_die "edge_slice: no edge \"$1\"" ;;
	esac
}

edge_conf() {
	local edge=$1 dir=$LAB_STATE/$1 clients

	# Only edge1 has clients in this network; edge2's are elsewhere.
	case $edge in
	edge1) clients=10.1.0.0/16 ;;
	*) clients=10.2.0.0/16 ;;
	esac
	mkdir -p "$dir/state"
	cat >"$dir/sluice.conf" <<-END
		machine   = "$edge"
		state-dir = "$dir/state"
		control   = "$dir/control.sock"
		bpffs     = "$LAB_BPFFS/slab-$edge"
		uplinks   = { "wan" }
		${3:-}
		pool "default" {
		    addresses  = { "$SHARED" }
		    slice-size = 2048
		    slices     = { "$SHARED:$(edge_slice "$edge")" }
		    clients    = { "$clients" }
		    ${2:-}
		}
	END
	echo "$dir/sluice.conf"
}

sluice_ctl() {
	local edge=$1

	shift
	in_ns "$edge" "$SLUICE" --socket "$LAB_STATE/$edge/control.sock" "$@"
}

lab_sluiced_answers() {
	! bg_alive "sluiced-$1" || sluice_ctl "$1" status
}

sluiced_start() {
	local edge=$1 binary=${2:-$SLUICED} conf=$LAB_STATE/$1/sluice.conf

	shift $(($# < 2 ? 1 : 2))
	[[ -x $binary ]] || lab_die "$binary is not built: run make first"
	[[ -x $SLUICE ]] || lab_die "$SLUICE is not built: run make first"
	[[ -e $conf ]] || edge_conf "$edge" >/dev/null
	start_bg "sluiced-$edge" "$edge" "$binary" -d -f "$conf" "$@"
	if ! wait_for 30 lab_sluiced_answers "$edge" || ! bg_alive "sluiced-$edge"; then
		cat "$(bg_err "sluiced-$edge")" >&2
		echo "lab: sluiced on $edge did not come up" >&2
		return 1
	fi
}

# Only watch conntrack there: nothing is held, nothing programmed.
sluiced_watch() { # EDGE
	local edge=$1 dir=$LAB_STATE/$1

	mkdir -p "$dir/watch-state"
	cat >"$dir/watch.conf" <<-END
		machine   = "$edge"
		state-dir = "$dir/watch-state"
		control   = "$dir/control.sock"
		watch { netns = { "" } }
	END
	start_bg "sluiced-$edge" "$edge" "$SLUICED" --watch-only -d -f "$dir/watch.conf"
	if ! wait_for 30 lab_sluiced_answers "$edge" || ! bg_alive "sluiced-$edge"; then
		cat "$(bg_err "sluiced-$edge")" >&2
		lab_die "sluiced --watch-only on $edge did not come up"
	fi
}

sluiced_stop() {
	stop_bg "sluiced-$1"
}

sluiced_kill() {
	stop_bg "sluiced-$1" KILL || true
}

sluiced_pid() {
	bg_pid "sluiced-$1"
}

nat_nftables_start() {
	local edge=$1

	in_ns "$edge" ip route replace local "$SHARED" dev lo
	in_ns "$edge" nft -f - <<-END
		table ip slab_nat {
			chain post {
				type nat hook postrouting priority srcnat
				oifname "wan" ip saddr 10.1.0.0/16 meta l4proto { tcp, udp } snat to $SHARED:$(edge_slice "$edge")
				oifname "wan" ip saddr 10.1.0.0/16 meta l4proto icmp snat to $SHARED
			}
		}
	END
}

# Conntrack lets go of an address's entries only slowly; what was measured must not see the next part.
nat_nftables_stop() {
	in_ns "$1" nft delete table ip slab_nat
	in_ns "$1" conntrack -F 2>/dev/null
	in_ns "$1" ip route del local "$SHARED" dev lo
}

edge_silent() {
	in_ns "$1" ip route replace local "$SHARED" dev lo
	in_ns "$1" nft -f - <<-END
		table ip slab_silent {
			chain in {
				type filter hook input priority filter
				ip daddr $SHARED counter drop
			}
		}
	END
}

edge_silent_count() {
	in_ns "$1" nft -j list table ip slab_silent |
		jq '[.. | .counter? // empty | .packets] | add // 0'
}

edge_silent_stop() {
	in_ns "$1" nft delete table ip slab_silent
	in_ns "$1" ip route del local "$SHARED" dev lo
}

offload() {
	in_ns "$1" ethtool -K "$2" tx "$3" tso "$3" gso "$3" >/dev/null
}
