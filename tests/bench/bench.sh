#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Makes the edges that the benchmark compares, runs it, and takes them down: tests/bench/bench.sh [ARG...]
#
#                     ┌─────────────────┐
#  slab-bench-out     │ slab-bench-NAME │     slab-bench-out
#         lan-NAME ───┤ lan         wan ├─── wan-NAME
#                     └─────────────────┘
#   10.9.0.2, and      10.9.0.1   192.0.2.1    192.0.2.2, and
#   10.1.0.0/16                                198.18.0.0/15
#   behind it                                  behind it
#
# NAME says how the edge treats what it forwards, see bench.c. The far ends have no addresses: neighbours are static, and what
# arrives there is counted and dropped by XDP. ARG goes to the program; see README.md. Exit code 1 when a measure failed.
set -euo pipefail
export LC_ALL=C.UTF-8

LAB_STATE=/run/sluice-bench
. "$(dirname "$(readlink -f "$0")")/../../netns-lab/lib.sh"

EDGES=(plain ct nft over eim tplain tnft tover)
BENCH=$LAB_BUILD/bench/bench
GLOBAL_SYSCTLS=(net.netfilter.nf_conntrack_max net.netfilter.nf_conntrack_buckets)

bench_require() {
	local tool missing=

	[[ $EUID -eq 0 ]] || lab_die "must be run as root: it makes network namespaces"
	for tool in ip nsenter flock nft sysctl taskset; do
		command -v "$tool" >/dev/null || missing+=" $tool"
	done
	[[ -z $missing ]] || lab_die "missing:$missing (scripts/setup installs what is needed)"
	for tool in "$BENCH" "$SLUICED" "$SLUICE"; do
		[[ -x $tool ]] || lab_die "$tool is not built: run make bench"
	done
}

# Everything that this run, or one that was killed, has left.
bench_down() {
	local name

	if [[ -d $LAB_STATE/pids ]]; then
		for name in "$LAB_STATE"/pids/*; do
			[[ -e $name ]] && lab_end_pid "$(<"$name")"
		done
	fi
	for name in "${EDGES[@]}" out; do
		[[ ! -d $LAB_BPFFS/slab-bench-$name ]] || rm -rf "${LAB_BPFFS:?}/slab-bench-$name"
		[[ ! -e /run/netns/slab-bench-$name ]] || ip netns del "slab-bench-$name"
	done
	[[ ! -s $LAB_STATE/sysctl ]] || sysctl -q -p "$LAB_STATE/sysctl" || true
	rm -rf "$LAB_STATE"
}

bench_exit() {
	local status=$?

	trap '' HUP INT TERM
	bench_down
	exit "$status"
}

# Conntrack's limits are the machine's, not a namespace's. The table grows so that the three edges which share it
# are as little crowded as each would be alone with the kernel's own proportions.
conntrack_room() { # FLOWS
	local key

	mkdir -p "$LAB_STATE"
	sysctl "${GLOBAL_SYSCTLS[@]}" >"$LAB_STATE/sysctl.new"
	mv "$LAB_STATE/sysctl.new" "$LAB_STATE/sysctl"
	for key in "${GLOBAL_SYSCTLS[@]}"; do
		[[ $(sysctl -n "$key") -ge $(($1 * 3)) ]] || sysctl -q -w "$key=$(($1 * 3))" ||
			lab_die "$key can't be raised to $(($1 * 3))"
	done
}

# The interfaces get their MAC addresses before they are up; nothing has to be asked for.
edge_up() { # NAME
	local name=bench-$1

	ip netns add "slab-$name"
	lab_ip "$name" <<-END
		link set lo up
		link add lan type veth peer name lan-$1 netns slab-bench-out
		link add wan type veth peer name wan-$1 netns slab-bench-out
		addr add 10.9.0.1/24 dev lan
		addr add 192.0.2.1/24 dev wan
		link set lan up
		link set wan up
		neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev lan nud permanent
		neigh add 192.0.2.2 lladdr 02:00:00:00:00:03 dev wan nud permanent
		route add 10.1.0.0/16 via 10.9.0.2
		route add default via 192.0.2.2
	END
	lab_ip bench-out <<-END
		link set lan-$1 up
		link set wan-$1 up
	END
	lab_sysctl "$name" net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 \
		net.ipv4.conf.lan.rp_filter=0 net.ipv4.conf.wan.rp_filter=0
}

# Conntrack without NAT: a rule that asks for the state is what turns it on.
conntrack_on() { # NAME
	in_ns "bench-$1" nft -f - <<-END
		table ip bench {
			chain forward {
				type filter hook forward priority filter
				ct state invalid drop
			}
		}
	END
	conntrack_settings "$1"
}

nftables_on() { # NAME
	in_ns "bench-$1" nft -f - <<-END
		table ip bench {
			chain post {
				type nat hook postrouting priority srcnat
				oifname "wan" ip saddr 10.1.0.0/16 meta l4proto { tcp, udp } snat to $SHARED:40960-43007
			}
		}
	END
	conntrack_settings "$1"
}

# The hardware has verified checksums, and flows live through the whole run.
conntrack_settings() { # NAME
	lab_sysctl "bench-$1" net.netfilter.nf_conntrack_checksum=0 \
		net.netfilter.nf_conntrack_udp_timeout=3600 net.netfilter.nf_conntrack_udp_timeout_stream=3600 \
		net.netfilter.nf_conntrack_tcp_timeout_syn_sent=3600
}

sluice_on() { # NAME MAX-FLOWS POOL-LINES
	local dir=$LAB_STATE/bench-$1

	mkdir -p "$dir/state"
	cat >"$dir/sluice.conf" <<-END
		machine   = "bench"
		state-dir = "$dir/state"
		control   = "$dir/control.sock"
		bpffs     = "$LAB_BPFFS/slab-bench-$1"
		max-flows = $2
		uplinks   = { "wan" }
		pool "bench" {
		    clients = { "10.1.0.0/16" }
		    $3
		}
	END
	sluiced_start "bench-$1"
	# The measuring has the last CPU.
	taskset -p -c 0 "$(sluiced_pid "bench-$1")" >/dev/null
}

bench_up() { # FLOWS
	local name max_flows=1024 one

	mkdir -p "$LAB_STATE/pids"
	lab_mount_bpffs
	conntrack_room "$1"
	while ((max_flows < $1)); do
		max_flows=$((max_flows * 2))
	done
	ip netns add slab-bench-out
	for name in "${EDGES[@]}"; do
		edge_up "$name"
	done
	conntrack_on ct
	nftables_on nft
	nftables_on tnft
	one="addresses = { \"$SHARED\" } slices = { \"$SHARED:40960-43007\" }"
	sluice_on over "$max_flows" "$one udp-mapping = \"overload\""
	sluice_on tover "$max_flows" "$one tcp-mapping = \"overload\""
	# A mapping has a port to itself, so this takes more ports than one slice has.
	sluice_on eim "$max_flows" "addresses = { \"203.0.113.16/28\" } udp-mapping = \"endpoint-independent\""
}

# The largest number of --flows, as the program reads it, or its default.
largest() {
	local arg was="" list=1000,40000,200000,500000

	for arg in "$@"; do
		[[ $was != --flows ]] || list=$arg
		[[ $arg != --flows=* ]] || list=${arg#*=}
		was=$arg
	done
	echo "${list##*,}"
}

main() {
	local flows

	flows=$(largest "$@")
	[[ $flows =~ ^[0-9]{1,9}$ ]] || lab_die "--flows takes numbers with commas between them"
	bench_require
	lab_lock
	trap bench_exit EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
	bench_down
	bench_up "$flows"
	# In the background, so that a signal to the script is heard at once; it ends with the daemons, also when this script was killed.
	"$BENCH" "$@" 9>&- &
	echo "$! $(lab_start_time "$!")" >"$LAB_STATE/pids/bench"
	wait "$!"
}

main "$@"
