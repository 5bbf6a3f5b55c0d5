#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The differential test: tests/conformance/differ.sh [SECONDS [SEED]]. What differ.py does, in two worlds: edge1 with sluice and edge2 with nftables.
#
#	10.1.10.0/24 at the client's "net"     edge1, sluice      203.0.113.7:40960-43007
#	10.1.10.0/24 at the client's "net3"    edge2, nftables    203.0.113.27:40960-43007
#
# The rules that correspond: SNAT to the same ports; what conntrack does not understand, and protocols that are not translated, are dropped; nothing
# answers for the shared address; a flow does not begin in its middle.
set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/conformance/lib.sh
. "$(dirname "$0")/lib.sh"

edge2_up() {
	lab_ip edge2 <<-END
		link add lan type veth peer name net3 netns slab-client
		addr add 10.1.0.1/16 dev lan
		link set lan up
	END
	ip -n slab-client link set net3 up
	conf_neighbours lan "$(conf_link_mac client net3)" "${CONF_CLIENTS[@]}" | lab_ip edge2
	lab_ip gw <<<"route add 203.0.113.27 via 192.0.2.12"
	lab_sysctl edge2 net.ipv4.icmp_ratelimit=0 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0
	in_ns edge2 ip route replace local 203.0.113.27 dev lo
	in_ns edge2 nft -f - <<-END
		table ip slab_nat {
			chain post {
				type nat hook postrouting priority srcnat
				oifname "wan" ip saddr 10.1.0.0/16 meta l4proto { tcp, udp } snat to 203.0.113.27:$SLICE
				oifname "wan" ip saddr 10.1.0.0/16 meta l4proto icmp snat to 203.0.113.27
			}
			chain forward {
				type filter hook forward priority filter
				ct state invalid drop
				meta l4proto != { tcp, udp, icmp } drop
			}
			chain in {
				type filter hook input priority filter
				ip daddr 203.0.113.27 drop
			}
		}
	END
	lab_sysctl edge2 net.netfilter.nf_conntrack_tcp_loose=0
}

lab_begin
conf_lab_up
edge2_up
# Of the pools only the one that is compared.
sed -i '/^pool "over"/!{/^pool/d}' "$(conf_write)"
sluiced_start edge1
/usr/bin/python3 -B "$(dirname "$0")/differ.py" "$@"
