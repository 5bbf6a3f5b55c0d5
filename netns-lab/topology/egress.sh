# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Two edge machines share one address towards the Internet.
#
#                          ┌──────────┐ 192.0.2.11                        slab-origin
#  slab-client        lan  │slab-edge1│ wan ──┐                          198.51.100.10
#  10.1.0.2/16  ───────────│ 10.1.0.1 │       │   ┌──────────────┐         .11 .12 .13
#  10.1.1.1-10.1.1.250     └──────────┘       ├───│   slab-gw    │─────────── net
#  net                     ┌──────────┐       │   │ 192.0.2.1    │ origin
#                          │slab-edge2│ wan ──┘   │ 198.51.100.1 │
#                          └──────────┘ 192.0.2.12└──────────────┘
#                                               wan: a bridge with the ports edge1 and edge2
#
# Both edges may send from 203.0.113.7. The gateway stands for the network in front of them: it brings
# each answer to the machine that holds the port.
#
#   203.0.113.7, TCP and UDP ports 40960-43007, and ICMP   to edge1
#   everything else of 203.0.113.7                         to edge2 (whose slice is 43008-45055)

TOPOLOGY_HOSTS=(client edge1 edge2 gw origin)

topology_up() {
	local host n

	for host in "${TOPOLOGY_HOSTS[@]}"; do
		ip netns add "slab-$host"
		# Addresses work at once, without the second of duplicate detection.
		lab_sysctl "$host" net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
	done
	# Forwarding from the start; and the gateway knows two ways to one address.
	lab_sysctl edge1 net.ipv4.ip_forward=1
	lab_sysctl edge2 net.ipv4.ip_forward=1
	lab_sysctl gw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
	# A burst of thousands of connections is traffic here, not an attack.
	lab_sysctl origin net.ipv4.tcp_syncookies=0 net.ipv4.tcp_max_syn_backlog=8192

	lab_ip gw <<-END
		link set lo up
		link add wan type bridge
		link add edge1 type veth peer name wan netns slab-edge1
		link add edge2 type veth peer name wan netns slab-edge2
		link add origin type veth peer name net netns slab-origin
		link set edge1 master wan up
		link set edge2 master wan up
		addr add 192.0.2.1/24 dev wan
		addr add 198.51.100.1/24 dev origin
		link set wan up
		link set origin up
		route add default via 192.0.2.11 table 101
		rule add to $SHARED ipproto tcp dport $(edge_slice edge1) lookup 101 pref 100
		rule add to $SHARED ipproto udp dport $(edge_slice edge1) lookup 101 pref 100
		rule add to $SHARED ipproto icmp lookup 101 pref 101
		route add $SHARED via 192.0.2.12
	END
	lab_ip edge1 <<-END
		link set lo up
		link add lan type veth peer name net netns slab-client
		addr add 10.1.0.1/16 dev lan
		addr add 192.0.2.11/24 dev wan
		link set lan up
		link set wan up
		route add default via 192.0.2.1
	END
	lab_ip edge2 <<-END
		link set lo up
		addr add 192.0.2.12/24 dev wan
		link set wan up
		route add default via 192.0.2.1
	END
	{
		echo "link set lo up"
		echo "addr add 10.1.0.2/16 dev net"
		for ((n = 1; n <= 250; n++)); do
			echo "addr add 10.1.1.$n/16 dev net"
		done
		echo "link set net up"
		echo "route add default via 10.1.0.1"
	} | lab_ip client
	lab_ip origin <<-END
		link set lo up
		addr add 198.51.100.10/24 dev net
		addr add 198.51.100.11/24 dev net
		addr add 198.51.100.12/24 dev net
		addr add 198.51.100.13/24 dev net
		link set net up
		route add default via 198.51.100.1
	END

	# Links need a moment to come up; what follows must not lose a packet to that.
	for host in edge1 edge2; do
		wait_for 10 in_ns "$host" ping -q -c 1 -W 0.1 198.51.100.10 ||
			lab_die "$host does not reach the origin"
	done
	wait_for 10 in_ns client ping -q -c 1 -W 0.1 10.1.0.1 || lab_die "client does not reach edge1"
}
