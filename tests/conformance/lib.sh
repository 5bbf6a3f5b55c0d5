# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# The lab as the conformance checks and the differential test want it, on top of netns-lab/lib.sh: hosts that no kernel knows on both
# sides of edge1, and pools that show each behaviour.
#
#   clients          shared address (ports 40960-43007)   what is special
#   10.1.10.0/24     203.0.113.7                          overload for TCP and UDP
#   10.1.20.0/24     203.0.113.8, .20                     endpoint-independent mapping, address-dependent filtering
#   10.1.30.0/24     203.0.113.10                         endpoint-independent mapping and filtering
#   10.1.40.0/24     203.0.113.11                         4 ports for each client
#   10.1.41.0/24     203.0.113.12                         1 flow a second, 3 at once
#   10.1.42.0/24     203.0.113.13                         5 flows for each client
#   10.1.50.0/24     203.0.113.14 (64 ports)              small enough to be filled
#   10.1.60.0/24     203.0.113.15                         ipv4-id = set-df
#   10.1.20.0/24     203.0.113.16                         the same clients once more, behind another interface (lan2)
#   10.1.70.0/24     203.0.113.17                         address-and-port-dependent filtering, inbound refresh
#   2001:db8:1::/64  2001:db8:5::7                        IPv6, endpoint-independent mapping

CONF_CLIENTS=(10.1.{10,20,30,40,41,42,50,60,70}.{1,2,3,4,5,6,7,8,250})
CONF_ORIGINS=(198.51.100.{201,202,203,204,250})
SLICE=40960-43007

# Neighbours that are always the same link's: "host dev mac address..." as commands of ip(8).
conf_neighbours() { # DEV MAC ADDRESS...
	local dev=$1 mac=$2 a

	shift 2
	for a; do
		echo "neigh replace $a lladdr $mac dev $dev nud permanent"
	done
}

conf_mac() { # HOST DEV
	in_ns "$1" cat "/sys/class/net/$2/address"
}

conf_link_mac() { # HOST DEV
	ip -n "slab-$1" -j link show "$2" | jq -r '.[0].address'
}

# Everything but the NAT.
conf_lab_up() {
	local host client origin a

	lab_up egress
	for host in client edge1 gw origin; do
		lab_sysctl "$host" net.ipv6.conf.all.disable_ipv6=0
	done
	lab_sysctl edge1 net.ipv6.conf.all.forwarding=1
	lab_sysctl gw net.ipv6.conf.all.forwarding=1
	# What a kernel says by itself about packets of hosts it does not know is no matter here.
	lab_sysctl client net.ipv4.ip_forward=0
	lab_sysctl origin net.ipv4.ip_forward=0
	# A router answers each of our many errors: limits on ICMP are for other days.
	for host in edge1 gw; do
		lab_sysctl "$host" net.ipv4.icmp_ratelimit=0 net.ipv4.icmp_msgs_per_sec=100000 net.ipv6.icmp.ratelimit=0
		lab_sysctl "$host" net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0
	done
	lab_ip edge1 <<-END
		link add lan2 type veth peer name net2 netns slab-client
		addr add 10.9.0.1/24 dev lan2
		addr add 2001:db8:1::1/64 dev lan nodad
		addr add 2001:db8:2::11/64 dev wan nodad
		link set lan2 up
		route add default via 2001:db8:2::1
	END
	lab_sysctl edge1 net.ipv4.conf.lan2.rp_filter=0 net.ipv4.conf.all.rp_filter=0
	lab_ip client <<-END
		link set net2 up
	END
	lab_ip gw <<-END
		addr add 2001:db8:2::1/64 dev wan nodad
		addr add 2001:db8:3::1/64 dev origin nodad
		route replace 203.0.113.0/24 via 192.0.2.11
		route del 203.0.113.7 via 192.0.2.12
		rule del pref 100
		rule del pref 100
		rule del pref 101
		route add 2001:db8:5::/64 via 2001:db8:2::11
		route add 10.1.0.0/16 via 192.0.2.11
		route add 2001:db8:1::/64 via 2001:db8:2::11
	END
	client=$(conf_link_mac client net)
	origin=$(conf_link_mac origin net)
	{
		conf_neighbours lan "$client" "${CONF_CLIENTS[@]}" 2001:db8:1::{101,102,103}
		conf_neighbours lan2 "$(conf_link_mac client net2)" 10.1.20.{1,2,3,4,5,6,7,8}
	} | lab_ip edge1
	conf_neighbours origin "$origin" "${CONF_ORIGINS[@]}" 2001:db8:3::{201,202} | lab_ip gw
	# As long a prefix as lan's, so that the routing table alone would never choose it.
	in_ns edge1 ip route add 10.1.0.0/16 dev lan2 metric 200
}

conf_pool() { # NAME ADDRESSES CLIENTS LAST-PORT LINES
	local a slices=

	for a in $2; do
		slices+="\"$a:40960-$4\", "
	done
	echo "pool \"$1\" { addresses = { ${slices//:40960-$4/} } slices = { $slices } slice-size = $(($4 - 40959)) clients = { \"$3\" } $5 }"
}

# The configuration with all pools. Prints its path.
conf_write() {
	local dir=$LAB_STATE/edge1 eim="tcp-mapping = endpoint-independent udp-mapping = endpoint-independent"

	mkdir -p "$dir/state"
	{
		cat <<-END
			machine   = "edge1"
			state-dir = "$dir/state"
			control   = "$dir/control.sock"
			bpffs     = "$LAB_BPFFS/slab-edge1"
			uplinks   = { "wan" }
			icmp-rate = 10000
		END
		conf_pool over 203.0.113.7 10.1.10.0/24 43007 'udp-mapping = overload no-nat = { "198.51.100.204/32" }'
		conf_pool eim "203.0.113.8 203.0.113.20" 10.1.20.0/24 43007 "$eim"
		conf_pool eif 203.0.113.10 10.1.30.0/24 43007 "$eim filtering = endpoint-independent"
		conf_pool ports 203.0.113.11 10.1.40.0/24 43007 "ports-per-client = 4"
		conf_pool rate 203.0.113.12 10.1.41.0/24 43007 "flows-per-second = 1 flows-burst = 3"
		conf_pool states 203.0.113.13 10.1.42.0/24 43007 "states-per-client = 5"
		conf_pool tiny 203.0.113.14 10.1.50.0/24 41023 "udp-mapping = overload"
		conf_pool setdf 203.0.113.15 10.1.60.0/24 43007 "ipv4-id = set-df"
		conf_pool zone 203.0.113.16 10.1.20.0/24 43007 "$eim interfaces = { \"lan2\" }"
		conf_pool strict 203.0.113.17 10.1.70.0/24 43007 "$eim filtering = address-port-dependent inbound-refresh = true"
		echo "pool \"six\" { addresses = { \"2001:db8:5::7\" } slices = { \"[2001:db8:5::7]:$SLICE\" } clients = { \"2001:db8:1::/64\" } $eim }"
	} >"$dir/sluice.conf"
	echo "$dir/sluice.conf"
}
