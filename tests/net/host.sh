#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Preparing a host (host.c), and answering clients (icmp.c), with real packets between namespaces.
#
#   client                      edge1                        link               gw
#  +----------+   +----------------------------+         +--------+   +-----------------+
#  |      lan +---+ lan                    wan +---------+ bridge +---+ wan             |
#  | 10.1.0.2 |   | 10.1.0.1      192.0.2.1/25 |         |        |   | 192.0.2.126/25  |
#  +----------+   |                            |         |        |   |                 |
#                 |                      wan.2 +---------|--------|---+ wan2            |
#                 |             192.0.2.129/30 |         |        |   | 192.0.2.130/30  |
#                 +----------------------------+         |        |   |                 |
#                             edge2                      |        |   | lo              |
#                 +----------------------------+         |        |   | 198.51.100.10   |
#                 |                        wan +---------+        |   +-----------------+
#                 |               192.0.2.2/25 |         +--------+
#                 +----------------------------+
#
# The shared address 203.0.113.7 is on both edges. edge1's default route leads out of wan.2, so on wan strict
# reverse path filtering would drop what comes from afar. The gateway has a route for the shared address to one
# of the edges, as in life; where a test says so, it asks for it on the link.
# shellcheck disable=SC2317  # functions that are called by name
set -u
cd "$(dirname "$0")/../.." || exit 1
export LC_ALL=C.UTF-8

prefix=${SLAB_PREFIX:-slab-host}
hosttool=${HOSTTOOL:-build/tools/hosttool}
shared=203.0.113.7
failed=0

ok() { echo "ok $1"; }
not_ok() {
	echo "not ok $1: $2"
	failed=1
}
# verdict NAME WHY COMMAND...: ok when the command succeeds
verdict() {
	local name=$1 why=$2
	shift 2
	if "$@"; then ok "$name"; else not_ok "$name" "$why"; fi
}
# same NAME WANTED FOUND
same() {
	if [ "$2" = "$3" ]; then
		ok "$1"
	else
		diff <(printf '%s\n' "$2") <(printf '%s\n' "$3") | sed 's/^/# /'
		not_ok "$1" "differs from what was expected (< wanted, > found)"
	fi
}
# has NAME TEXT PATTERN: a line of the text matches
has() {
	if printf '%s\n' "$2" | grep -qE -- "$3"; then
		ok "$1"
	else
		printf '%s\n' "$2" | sed 's/^/# /'
		not_ok "$1" "no line like: $3"
	fi
}
# poll COMMAND...: until it succeeds, ten seconds at most
poll() {
	local i
	for ((i = 0; i < 200; i++)); do
		"$@" && return
		sleep 0.05
	done
	return 1
}

if [ "$(id -u)" != 0 ]; then
	echo "skip host: needs root, for network namespaces"
	exit 0
fi
if [ ! -x "$hosttool" ]; then
	not_ok host "$hosttool is not built"
	exit 1
fi

hosttool=$(realpath "$hosttool")
work=$(mktemp -d)
chmod 755 "$work"
pids=()
remove_namespaces() {
	local ns
	ip netns list | while read -r ns _; do
		case $ns in "$prefix"-*) ip netns del "$ns" ;; esac
	done
}
cleanup() {
	local pid
	for pid in "${pids[@]}"; do kill -KILL "$pid" 2>/dev/null; done
	remove_namespaces
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
remove_namespaces

on() { # HOST COMMAND...
	local ns=$prefix-$1
	shift
	ip netns exec "$ns" "$@"
}
edge1() { on edge1 "$@"; }
gw() { on gw "$@"; }
client() { on client "$@"; }

# --- the topology ---------------------------------------------------------------------------------

for h in client edge1 edge2 link gw; do
	ip netns add "$prefix-$h" || exit 1
	on "$h" ip link set lo up
done
cable() { # HOST INTERFACE HOST INTERFACE
	ip link add "$2" netns "$prefix-$1" type veth peer name "$4" netns "$prefix-$3"
	on "$1" ip link set "$2" up
	on "$3" ip link set "$4" up
}
on link ip link add br0 type bridge
on link ip link set br0 up
for h in edge1 edge2 gw; do
	cable "$h" wan link "$h"
	on link ip link set "$h" master br0
done
cable edge1 wan.2 gw wan2
cable client lan edge1 lan
edge1 ip addr add 192.0.2.1/25 dev wan
on edge2 ip addr add 192.0.2.2/25 dev wan
gw ip addr add 192.0.2.126/25 dev wan
edge1 ip addr add 192.0.2.129/30 dev wan.2
gw ip addr add 192.0.2.130/30 dev wan2
gw ip addr add 198.51.100.10/32 dev lo
edge1 ip addr add 10.1.0.1/16 dev lan
client ip addr add 10.1.0.2/16 dev lan
client ip route add default via 10.1.0.1
edge1 ip route add default via 192.0.2.130
on edge2 ip route add default via 192.0.2.126
gw ip route add 10.1.0.0/16 via 192.0.2.1
gw ip route add $shared via 192.0.2.1
gw sysctl -qw net.ipv4.ip_forward=1
# So that "nobody answers" is known soon.
gw sysctl -qw net.ipv4.neigh.wan.mcast_solicit=2 net.ipv4.neigh.wan.retrans_time_ms=200

# What is not to be lost when ip_forward is set and taken back.
edge1 sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.accept_redirects=0 net.ipv4.conf.lan.forwarding=1 \
	net.ipv4.conf.default.forwarding=1
for h in edge1 edge2; do
	on "$h" sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0 \
		net.ipv4.conf.wan.rp_filter=1
done
edge1 sysctl -qw net.ipv4.conf.wan/2.rp_filter=1

# conf_file NAME SYSCTL ROUTES [ADDRESSES]
conf_file() {
	cat >"$work/$1" <<-END
		machine = "edge1"
		uplinks = { "wan", "wan.2" }
		host { sysctl = "$2" routes = "$3" }
		pool "default" {
			addresses = { ${4:-"\"$shared\", \"203.0.113.64/30\""} }
			slice-size = 2048
			slices = { "$shared:40960-43007" }
			clients = { "10.1.0.0/16" }
		}
	END
}
conf_file set set set
conf_file routes check set
conf_file check check check
sed -e 's/, "wan.2"//' "$work/set" >"$work/set2"

# All that preparing could touch, and more.
state() {
	edge1 sh -c 'cd /proc/sys/net/ipv4 && grep -rs . conf ip_forward ip_local_port_range ip_local_reserved_ports | sort
		ip -4 route show table all | sort; ip -4 rule; ip -4 addr | grep -v valid_lft'
}

# --- uplinks --------------------------------------------------------------------------------------

tool() { edge1 "$hosttool" "$@" 2>&1; }

out=$(tool links wan wan.2)
has links_found "$(echo "$out" | tr '\n' ';')" '^wan [0-9]+ up 1500;wan\.2 [0-9]+ up 1500;$'
has links_missing "$(tool links wan wan9)" '^uplink "wan9" does not exist; links here: lo, .*wan.*\(ENODEV\)'
has links_not_ethernet "$(tool links wan lo)" '^uplink "lo" is of link type 772: .*\(EOPNOTSUPP\)'
same source_towards_client "10.1.0.1 $(edge1 cat /sys/class/net/lan/ifindex)" "$(tool src 10.1.0.2)"
same source_to_nowhere ENETUNREACH "$(on link "$hosttool" src 10.1.0.2)"

# --- looking changes nothing ----------------------------------------------------------------------

before=$(state)
out=$(tool check "$work/check")
rc=$?
same check_exit_code 2 $rc
has check_ip_forward "$out" '^error +sysctl.ip_forward '
has check_arp_ignore "$out" '^error +sysctl.arp_ignore +net.ipv4.conf.wan/2.arp_ignore counts as 0'
has check_arp_announce "$out" '^error +sysctl.arp_announce +net.ipv4.conf.wan.arp_announce counts as 0'
has check_rp_filter "$out" '^error +sysctl.rp_filter +net.ipv4.conf.wan.rp_filter counts as 1'
has check_rp_filter_default_route "$out" '^ok +sysctl.rp_filter +net.ipv4.conf.wan/2.rp_filter counts as 1'
has check_routes "$out" '^error +route.local +5 of 5 shared addresses have no local route, the first is 203.0.113.7'
has check_clients "$out" '^ok +route.clients '
has check_port_range "$out" '^info +sysctl.port_range '
out=$(tool check "$work/set")
rc=$?
same check_exit_code_when_allowed 0 $rc
has check_allowed_is_a_warning "$out" '^warn +sysctl.ip_forward '
tool prepare "$work/check" "$work/record" || not_ok prepare_check_only "failed"
verdict check_only_records_nothing "record exists" test ! -e "$work/record"
same check_only_changes_nothing "$before" "$(state)"
# Without rights all can be seen, nothing changed, and the text says what failed.
mkdir -m 777 "$work/nobody"
cp "$hosttool" "$work/nobody/hosttool"
nobody() { edge1 setpriv --reuid 65534 --regid 65534 --clear-groups "$work/nobody/hosttool" "$@" 2>&1; }
has check_as_nobody "$(nobody check "$work/set")" '^warn +route.local +5 of 5'
out=$(nobody prepare "$work/set" "$work/nobody/record")
has prepare_as_nobody "$out" "^net.ipv4.conf.wan.arp_ignore can't be set to 1: Permission denied"
same prepare_as_nobody_changes_nothing "$before" "$(state)"

# --- ARP: what the local route does without the sysctls, and what they do -------------------------

mac() { on "$1" cat "/sys/class/net/$2/address"; }
neighbour() { # the gateway's entry for an address: a MAC, FAILED, or nothing yet
	local entry
	entry=$(gw ip neigh show "$1" dev wan)
	case $entry in
	*lladdr*)
		entry=${entry#*lladdr }
		echo "${entry%% *}"
		;;
	*FAILED*) echo FAILED ;;
	esac
}
known() { [ -n "$(neighbour "$1")" ]; }
asked() { # who answers the gateway's question for an address on the link: a MAC or FAILED
	gw ip neigh del "$1" dev wan 2>/dev/null
	gw ping -c 1 -W 1 -I wan "$1" >/dev/null 2>&1 &
	poll known "$1"
	neighbour "$1"
	wait $!
}
# The gateway hears who asks for it when a packet from this source leaves edge1.
asks_as() {
	gw ip neigh flush dev wan
	gw ip neigh del $shared dev wan 2>/dev/null
	edge1 ip neigh flush dev wan
	edge1 ping -c 1 -W 2 -I "$1" 192.0.2.126 >/dev/null 2>&1
}

edge1_mac=$(mac edge1 wan)
gw ip route replace $shared dev wan
same arp_silent_without_route FAILED "$(asked $shared)"
tool prepare "$work/routes" "$work/record" || not_ok prepare_routes "failed"
same routes_only_record "$(printf 'route %s - lo\n' $shared 203.0.113.6{4..7})" "$(cat "$work/record")"
same arp_answers_with_arp_ignore_0 "$edge1_mac" "$(asked $shared)"
asks_as $shared
same arp_request_moves_neighbour_with_announce_0 "$edge1_mac" "$(neighbour $shared)"

tool prepare "$work/set" "$work/record" || not_ok prepare_set "failed"
same arp_silent_when_prepared FAILED "$(asked $shared)"
same arp_answers_for_own_address "$edge1_mac" "$(asked 192.0.2.1)"
asks_as $shared
same arp_request_names_own_address "$edge1_mac" "$(neighbour 192.0.2.1)"
# The gateway answers the shared address, so it asks for it itself; had it been announced, it would know it.
poll known $shared
same arp_request_leaves_neighbour_alone FAILED "$(neighbour $shared)"

# Both edges have the address now, and the gateway's route decides who gets its packets.
sed 's/, "wan.2"//' "$work/set" >"$work/set-edge2"
on edge2 "$hosttool" prepare "$work/set-edge2" "$work/record2" || not_ok prepare_edge2 "failed"
gw ip neigh flush dev wan
echoes() { # number of echo requests received
	on "$1" nstat -asz IcmpMsgInType8 2>/dev/null | awk '/InType8/ { print $2 }'
}
for to in 1:edge1 2:edge2; do
	gw ip route replace $shared via "192.0.2.${to%:*}"
	n1=$(echoes edge1) n2=$(echoes edge2)
	gw ping -c 2 -i 0.2 -W 2 $shared >/dev/null 2>&1 || not_ok "shared_by_${to#*:}" "no answer"
	got="edge1 $(($(echoes edge1) - ${n1:-0})) edge2 $(($(echoes edge2) - ${n2:-0}))"
	case $to in
	*edge1) same shared_by_edge1 "edge1 2 edge2 0" "$got" ;;
	*edge2) same shared_by_edge2 "edge1 0 edge2 2" "$got" ;;
	esac
done
gw ip route replace $shared via 192.0.2.1

# --- prepared: everything in place, nothing left to do --------------------------------------------

out=$(tool check "$work/check")
rc=$?
same prepared_check_exit_code 0 $rc
has prepared_routes "$out" '^ok +route.local +5 of 5'
same prepared_nothing_to_plan "" "$(tool plan "$work/set")"
has prepared_route_is_marked "$(edge1 ip route show table local)" '^local 203.0.113.7 dev lo proto 86 scope host'

answers() { on "$1" ping -c 1 -W 2 "${@:2}" >/dev/null 2>&1; }
verdict forwards_and_takes_replies "the client gets no answer" answers client 198.51.100.10
# Comes in by wan while the way back is by wan.2.
verdict loose_rp_filter "what comes in by the other uplink is dropped" answers gw -I 198.51.100.10 10.1.0.2

# --- restore --------------------------------------------------------------------------------------

out=$(tool restore "$work/record")
rc=$?
same restore_exit_code 0 $rc
same restore_restores "$before" "$(state)"
verdict restore_forgets "the record is not empty" test ! -s "$work/record"
out=$(tool restore "$work/record")
same restore_of_nothing "0 ok, 0 to know, 0 warnings, 0 errors" "$out"
if answers gw -I 198.51.100.10 10.1.0.2; then
	not_ok strict_rp_filter "the packet arrives, so the test before showed nothing"
else
	ok strict_rp_filter
fi
if answers client 198.51.100.10; then
	not_ok no_forwarding "the packet arrives, so the test before showed nothing"
else
	ok no_forwarding
fi

# --- killed at any point --------------------------------------------------------------------------

# The whole state takes a while to read; these are the parts that may change, and the tests above compare all of it.
parts() {
	edge1 sh -c 'cd /proc/sys/net/ipv4 && grep -s . ip_forward conf/*/forwarding conf/*/accept_redirects \
		conf/*/arp_ignore conf/*/arp_announce conf/*/rp_filter; ip route show table local'
}
was=$(parts)
n=$(tool plan "$work/set" | wc -l)
verdict plan_size "only $n changes are planned: the loops below would test nothing" test "$n" -ge 12
tool prepare "$work/set" "$work/record"
full=$(parts)
tool restore "$work/record" >/dev/null
killed_prepare="" killed_twice="" killed_restore="" changed_first=""
for ((k = 0; k <= n; k++)); do
	# after k changes: all were recorded, and can be undone
	tool prepare "$work/set" "$work/record" "$k" >/dev/null 2>&1
	[ "$(wc -l <"$work/record")" = "$n" ] || changed_first+=" $k"
	tool restore "$work/record" >/dev/null
	[ "$(parts)" = "$was" ] || killed_prepare+=" $k"
	# again, then the next run completes it, is killed in the middle of undoing, and undone
	tool prepare "$work/set" "$work/record" "$k" >/dev/null 2>&1
	tool prepare "$work/set" "$work/record"
	[ "$(parts)" = "$full" ] || killed_twice+=" $k"
	tool restore "$work/record" "$k" >/dev/null 2>&1
	tool restore "$work/record" >/dev/null
	[ "$(parts)" = "$was" ] || killed_restore+=" $k"
done
same killed_record_is_complete "" "$changed_first"
same killed_prepare_is_restored "" "$killed_prepare"
same killed_prepare_is_completed "" "$killed_twice"
same killed_restore_is_repeated "" "$killed_restore"

# --- what somebody changed since ------------------------------------------------------------------

tool prepare "$work/set" "$work/record"
edge1 sysctl -qw net.ipv4.conf.wan.arp_ignore=2
edge1 ip route del local 203.0.113.64 dev lo table local
edge1 ip route del local 203.0.113.65 dev lo table local
edge1 ip route add local 203.0.113.65 dev lo proto static
out=$(tool restore "$work/record")
has changed_sysctl_reported "$out" '^warn +restore.sysctl +net.ipv4.conf.wan.arp_ignore is 2: neither'
has changed_route_reported "$out" "^warn +restore.route +the local route for 203.0.113.65 is somebody else's"
same changed_sysctl_stays 2 "$(edge1 sysctl -n net.ipv4.conf.wan.arp_ignore)"
has changed_route_stays "$(edge1 ip route show table local)" '^local 203.0.113.65 dev lo proto static'
edge1 sysctl -qw net.ipv4.conf.wan.arp_ignore=0
edge1 ip route del local 203.0.113.65 dev lo
same changed_rest_is_restored "$was" "$(parts)"

# What is there already is neither added nor taken away. 203.0.113.67 is a broadcast address here, and so no host.
edge1 ip route add local $shared dev lo
edge1 ip addr add 203.0.113.64/32 dev lo
edge1 ip addr add 203.0.113.66/30 dev wan.2
there=$(edge1 ip route show table local)
same existing_not_planned "route 203.0.113.65 - lo" "$(tool plan "$work/set" | grep route)"
out=$(tool check "$work/set")
has existing_ok "$out" '^ok +route.local +2 of 5'
has existing_on_uplink "$out" '^warn +route.local +shared address 203.0.113.66 is configured on uplink wan.2'
has existing_broadcast "$out" '^error +route.local +203.0.113.67 is something else than a host here, on wan.2'
tool prepare "$work/set" "$work/record"
has existing_others_added "$(edge1 ip route show table local)" '^local 203.0.113.65 dev lo proto 86'
tool restore "$work/record" >/dev/null
same existing_stays "$there" "$(edge1 ip route show table local)"
edge1 ip route del local $shared dev lo
edge1 ip addr del 203.0.113.64/32 dev lo
edge1 ip addr del 203.0.113.66/30 dev wan.2
same existing_clean "$was" "$(parts)"

# "all" decides over the interface, and is not ours to change.
edge1 sysctl -qw net.ipv4.conf.all.arp_ignore=4
has all_decides "$(tool check "$work/set")" '^error +sysctl.arp_ignore .* counts as 4, which comes from net.ipv4.conf.all'
same all_is_not_changed "" "$(tool plan "$work/set" | grep arp_ignore)"
edge1 sysctl -qw net.ipv4.conf.all.arp_ignore=0

# An uplink that is gone takes its settings along.
on edge2 "$hosttool" prepare "$work/set-edge2" "$work/record2"
on edge2 ip link del wan
out=$(on edge2 "$hosttool" restore "$work/record2")
rc=$?
same restore_without_uplink 0 $rc

# lo down: told of, and no obstacle.
on link ip link set lo down
cat >"$work/lo" <<-END
	machine = "link"
	uplinks = { "br0" }
	pool "default" { addresses = { "$shared" } }
END
has lo_down_is_told "$(on link "$hosttool" check "$work/lo")" '^warn +route.local +lo is down'
on link "$hosttool" prepare "$work/lo" "$work/record3" || not_ok lo_down_prepares "failed"
has lo_down_is_prepared "$(on link "$hosttool" check "$work/lo")" '^ok +route.local +1 of 1'

# As many addresses as there may be.
conf_file many set set '"203.0.112.0/22"'
sed -i 's/slice-size = .*/slice-size = 8192/; s/slices = .*/slices = { "203.0.112.0:40960-49151" }/' "$work/many"
tool prepare "$work/many" "$work/record"
same many_routes 1024 "$(edge1 ip route show table local proto 86 | wc -l)"
has many_checked "$(tool check "$work/many")" '^ok +route.local +1024 of 1024'
tool restore "$work/record" >/dev/null
same many_restored "$was" "$(parts)"

# --- IPv6 -----------------------------------------------------------------------------------------

shared6=2001:db8:5::7
edge1 sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0
conf_file six set set "\"$shared\", \"$shared6\", \"2001:db8:5::10/127\""
# Local addresses of interfaces come and go by themselves: only what we could add.
parts6() {
	parts
	edge1 sh -c 'grep -s . /proc/sys/net/ipv6/ip_nonlocal_bind; ip -6 route show table local dev lo; ip -6 route show table main'
}
was6=$(parts6)
out=$(tool plan "$work/six")
same v6_plan "sysctl net.ipv6.ip_nonlocal_bind 0 1
route $shared - lo
route 2001:db8:5::7 - lo
route 2001:db8:5::10 - lo
route 2001:db8:5::11 - lo" "$(echo "$out" | grep -E 'ipv6|route')"
has v6_bind_is_told "$(tool check "$work/six")" '^warn +sysctl.ip_nonlocal_bind +net.ipv6.ip_nonlocal_bind is 0'
has v6_routes_are_told "$(tool check "$work/six")" '^warn +route.local +4 of 4 shared'
has v6_no_way_out "$(tool check "$work/six")" '^warn +uplink.way_out +no IPv6 default route'
edge1 ip addr add 2001:db8:2::11/64 dev wan nodad
edge1 ip route add default via 2001:db8:2::1
same v6_way_out "" "$(tool check "$work/six" | grep 'uplink.way_out')"
was6=$(parts6)

tool prepare "$work/six" "$work/record" || not_ok v6_prepare "failed"
full6=$(parts6)
same v6_bind_set 1 "$(edge1 sysctl -n net.ipv6.ip_nonlocal_bind)"
has v6_route_is_marked "$(edge1 ip -6 route show table local)" "^local $shared6 dev lo proto 86 "
has v6_routes_ok "$(tool check "$work/six")" '^ok +route.local +4 of 4 shared'
has v6_bind_ok "$(tool check "$work/six")" '^ok +sysctl.ip_nonlocal_bind +.* is 1'
same v6_nothing_to_plan "" "$(tool plan "$work/six")"
tool restore "$work/record" >/dev/null
same v6_restored "$was6" "$(parts6)"

killed_prepare="" killed_twice="" killed_restore=""
n=$(tool plan "$work/six" | wc -l)
for ((k = 0; k <= n; k++)); do
	tool prepare "$work/six" "$work/record" "$k" >/dev/null 2>&1
	tool restore "$work/record" >/dev/null
	[ "$(parts6)" = "$was6" ] || killed_prepare+=" $k"
	tool prepare "$work/six" "$work/record" "$k" >/dev/null 2>&1
	tool prepare "$work/six" "$work/record"
	[ "$(parts6)" = "$full6" ] || killed_twice+=" $k"
	tool restore "$work/record" "$k" >/dev/null 2>&1
	tool restore "$work/record" >/dev/null
	[ "$(parts6)" = "$was6" ] || killed_restore+=" $k"
done
same v6_killed_prepare_is_restored "" "$killed_prepare"
same v6_killed_prepare_is_completed "" "$killed_twice"
same v6_killed_restore_is_repeated "" "$killed_restore"

# An address of lo can be bound as it is. What has become somebody else's stays.
edge1 ip addr add 2001:db8:5::10/128 dev lo
edge1 ip addr add 2001:db8:5::11/128 dev lo
sed -i "s/\"$shared6\", //" "$work/six"
same v6_configured_needs_nothing "route $shared - lo" "$(tool plan "$work/six" | grep -E 'ipv6|route')"
has v6_configured_is_fine "$(tool check "$work/six")" '^ok +sysctl.ip_nonlocal_bind +every IPv6 shared address is one of an interface'
edge1 ip addr del 2001:db8:5::11/128 dev lo
tool prepare "$work/six" "$work/record"
same v6_one_is_missing 1 "$(edge1 sysctl -n net.ipv6.ip_nonlocal_bind)"
edge1 ip route del local 2001:db8:5::11 dev lo
edge1 ip route add local 2001:db8:5::11 dev lo proto static
edge1 sysctl -qw net.ipv6.ip_nonlocal_bind=0
out=$(tool restore "$work/record")
has v6_others_route_is_told "$out" '^warn +restore.route +the local route for 2001:db8:5::11 is somebody else'
has v6_others_route_stays "$(edge1 ip -6 route show table local)" '^local 2001:db8:5::11 dev lo proto static'
same v6_configured_stays 1 "$(edge1 ip -6 route show table local | grep -c '^local 2001:db8:5::10 dev lo proto kernel')"
edge1 ip route del local 2001:db8:5::11 dev lo
edge1 ip addr add 2001:db8:5::11/64 dev wan nodad
has v6_on_uplink "$(tool check "$work/six")" '^warn +route.local +shared address 2001:db8:5::11 is configured on uplink wan, which answers neighbour solicitations'
edge1 ip addr del 2001:db8:5::11/64 dev wan
edge1 ip addr del 2001:db8:5::10/128 dev lo
same v6_clean "$was6" "$(parts6)"

# Where IPv6 is off it is said, and nothing else suffers.
edge1 sysctl -qw net.ipv6.conf.wan/2.disable_ipv6=1
has v6_off_on_one "$(tool check "$work/six")" '^info +ipv6 +IPv6 is disabled on uplink wan.2'
edge1 sysctl -qw net.ipv6.conf.wan.disable_ipv6=1
has v6_off_on_all "$(tool check "$work/six")" '^error +ipv6 +IPv6 is disabled on uplink wan:'
edge1 sysctl -qw net.ipv6.conf.lo.disable_ipv6=1
has v6_off_on_lo "$(tool check "$work/six")" '^error +ipv6 +IPv6 is disabled on lo'
has v6_off_prepare "$(tool prepare "$work/six" "$work/record")" \
	'^local route for 2001:db8:5::10 on lo can.t be added: IPv6 is disabled there .*\(EACCES\)'
tool restore "$work/record" >/dev/null
edge1 sysctl -qw net.ipv6.conf.lo.disable_ipv6=0 net.ipv6.conf.wan.disable_ipv6=0 net.ipv6.conf.wan/2.disable_ipv6=0
same v6_off_restored "$was" "$(parts)"
conf_file six set set "\"$shared6\""
on link ip link set lo down
sed -i 's/uplinks = .*/uplinks = { "br0" }/; s/clients = .*//; s/slices = .*/slices = { }/' "$work/six"
has v6_lo_down "$(on link "$hosttool" prepare "$work/six" "$work/record4" 2>&1)" 'on lo can.t be added: it is down \(ENETDOWN\)'
on link "$hosttool" restore "$work/record4" >/dev/null

# --- link events ----------------------------------------------------------------------------------

edge1 ip link add up0 type veth peer name up1
edge1 ip link add br1 type bridge
edge1 ip link set up0 up
ip netns exec "$prefix-edge1" "$hosttool" monitor up0 wan >"$work/events" 2>&1 &
monitor=$!
pids+=("$monitor")
poll grep -q watching "$work/events" || not_ok monitor_starts "$(cat "$work/events")"
seen() { # NAME PATTERN: the last event is like this
	# shellcheck disable=SC2317
	last() { tail -n 1 "$work/events" | grep -qE "$1"; }
	if poll last "$2"; then
		ok "$1"
	else
		not_ok "$1" "last event: $(tail -n 1 "$work/events")"
	fi
}
edge1 ip link set up0 down
seen event_down '^changed up0 [0-9]+ down 1500$'
edge1 ip link set up0 mtu 1400
seen event_mtu '^changed up0 [0-9]+ down 1400$'
edge1 ip link set lan mtu 1400
edge1 ip link set lan mtu 1500
edge1 ip link set up0 master br1
edge1 ip link set up0 nomaster
edge1 ip link set up0 mtu 1300
seen event_after_bridge '^changed up0 [0-9]+ down 1300$'
same event_bridge_port_is_not_gone 0 "$(grep -c gone "$work/events")"
same event_of_others_is_not_told 0 "$(grep -c lan "$work/events")"
edge1 ip link set up0 name up9
seen event_renamed_away '^gone up0$'
edge1 ip link set up9 name up0
seen event_renamed_back '^changed up0 [0-9]+ down 1300$'
edge1 ip link set up0 netns "$prefix-link"
seen event_moved_away '^gone up0$'
on link ip link set up0 netns "$prefix-edge1"
seen event_moved_back '^changed up0 [0-9]+ down 1300$'
edge1 ip link del up0
seen event_deleted '^gone up0$'
edge1 ip link add up0 type veth peer name up1
seen event_again '^changed up0 [0-9]+ down 1500$'

# More events than the socket holds: the loss is told, not swallowed, and the truth read anew.
kill -STOP "$monitor"
for ((i = 0; i < 4000; i++)); do echo "link set up0 mtu $((1280 + i % 2))"; done >"$work/batch"
echo "link set up0 mtu 1277" >>"$work/batch"
edge1 ip -batch "$work/batch"
kill -CONT "$monitor"
poll grep -q '^resync' "$work/events" || not_ok event_loss "no loss was told"
resynced() { sed -n '/^resync/,$p' "$work/events" | grep -qE '^up0 [0-9]+ down 1277$'; }
verdict event_loss "the state after the loss was not read" poll resynced
edge1 ip link set up0 mtu 1290
seen event_after_loss '^changed up0 [0-9]+ down 1290$'
kill "$monitor"
wait "$monitor" 2>/dev/null

# --- the ICMP answer ------------------------------------------------------------------------------

# Packets for 198.51.100.99 end at the edge, and a monitor of its inner interface refuses them.
edge1 ip route add blackhole 198.51.100.99
edge1 sysctl -qw net.ipv4.ip_forward=1
ip netns exec "$prefix-edge1" "$hosttool" refuse lan 198.51.100.99 1000 >"$work/refuse" 2>&1 &
refuse=$!
pids+=("$refuse")
poll grep -q watching "$work/refuse" || not_ok refuse_starts "$(cat "$work/refuse")"
out=$(client ping -c 1 -W 5 198.51.100.99 2>&1)
has refused_ping "$out" '^From 10\.1\.0\.1 icmp_seq=1 Packet filtered'
out=$(client timeout 10 bash -c 'exec 3<>/dev/tcp/198.51.100.99/80' 2>&1)
has refused_tcp "$out" 'No route to host'
# As large as they come, and with IP options.
out=$(client ping -c 1 -W 5 -s 1400 198.51.100.99 2>&1)
has refused_large "$out" 'Packet filtered'
out=$(client ping -c 1 -W 5 -T tsonly 198.51.100.99 2>&1)
has refused_with_options "$out" 'Packet filtered'
# First fragments are answered, others are not: one answer for each ping.
n=$(grep -oE '^sent [0-9]+' "$work/refuse" | tail -n 1 | cut -d' ' -f2)
out=$(client ping -c 2 -i 0.2 -W 5 -s 5000 198.51.100.99 2>&1)
has refused_fragments "$out" 'Packet filtered'
failures() { [ "$(tail -n 1 "$work/refuse" | cut -d' ' -f6)" = 6 ]; }
verdict refused_later_fragments "$(tail -n 1 "$work/refuse")" poll failures
same refused_first_fragments $((n + 2)) "$(tail -n 1 "$work/refuse" | cut -d' ' -f2)"
kill "$refuse"
wait "$refuse" 2>/dev/null

ip netns exec "$prefix-edge1" "$hosttool" refuse lan 198.51.100.99 3 >"$work/refuse" 2>&1 &
refuse=$!
pids+=("$refuse")
poll grep -q watching "$work/refuse" || not_ok refuse_starts "$(cat "$work/refuse")"
client ping -f -c 200 -W 1 198.51.100.99 >/dev/null 2>&1
all_counted() { tail -n 1 "$work/refuse" | awk '{ exit !($2 + $4 == 200 && $2 >= 3 && $2 < 100 && $6 == 0) }'; }
verdict refused_rate_limit "$(tail -n 1 "$work/refuse")" poll all_counted
kill "$refuse"
wait "$refuse" 2>/dev/null

# --- doctor ---------------------------------------------------------------------------------------

out=$(tool doctor "$work/set")
has doctor_no_nat "$out" '^ok +nat.rules '
has doctor_kernel "$out" '^(ok|warn|error) +kernel.release '
has doctor_host_part "$out" '^ok +uplink +uplink wan.2 is Ethernet'
if edge1 nft add table ip natty 2>/dev/null; then
	edge1 nft add chain ip natty post '{ type nat hook postrouting priority srcnat; }'
	edge1 nft add chain ip natty plain
	edge1 nft add table inet filter
	edge1 nft add chain inet filter in '{ type filter hook input priority 0; }'
	has doctor_nat_chain "$(tool doctor "$work/set")" '^warn +nat.rules +netfilter has NAT chains here \(ip natty post\)'
else
	echo "skip doctor_nat_chain: no nf_tables here"
fi
has doctor_json "$(tool doctor "$work/set" -j)" '"id": "nat.rules"'

exit $failed
