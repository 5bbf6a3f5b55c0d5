# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# The uplink of edge1 goes and comes while the daemon runs, on top of tests/net/lib.sh: for uplink.sh and clsact.sh.

uplink_field() { # FIELD
	sluice_ctl edge1 -j status | jq -r ".uplinks[0] | $1"
}

uplink_is() { # STATE HOW
	[[ $(uplink_field '.state + " " + .ingress + " " + .egress') == "$1 $2 $2" ]]
}

settings() {
	in_ns edge1 sysctl -n net.ipv4.conf.wan.arp_ignore net.ipv4.conf.wan.arp_announce net.ipv4.conf.wan.forwarding | tr '\n' ' '
}

settings_made() {
	[[ $(settings) == "1 2 1 " ]]
}

uplink_delete() {
	in_ns edge1 ip link del wan
}

uplink_make() {
	lab_ip gw <<-END
		link add edge1 type veth peer name wan netns slab-edge1
		link set edge1 master wan up
	END
	lab_ip edge1 <<-END
		addr add 192.0.2.11/24 dev wan
		link set wan up
		route replace default via 192.0.2.1
	END
}

# Older kernels rename only what is down.
uplink_rename() { # FROM TO
	lab_ip edge1 <<-END
		link set $1 down
		link set $1 name $2
		link set $2 up
		route replace default via 192.0.2.1
	END
}

socket_talks() {
	[[ $(bg_ask sock 30 "line $EPOCHREALTIME") == *'"ok":true'* ]]
}

# Everything works: what was there before, and what begins now; and all of it is translated.
check_works() { # NAME
	check_traffic "$1-flows"
	check_that "$1-socket" "the connection of a socket is hurt: $(bg_report sock)" socket_talks
	watch_wire translated --source "$SHARED" --ports "$(edge_slice edge1)"
	watch_wire untranslated --source 10.1.0.2
	check_that "$1-new-flows" "new flows do not work" new_flows
	stop_bg translated || true
	check "$1-outside" "packets outside the slice" "$(bg_field translated report outside)" -eq 0
	check "$1-seen" "translated packets" "$(bg_field translated report packets)" -gt 50
	check "$1-untranslated" "untranslated packets" "$(wire_packets untranslated)" -eq 0
}

# Deleted and made anew, renamed away and back, and all of that often.
test_uplink() { # NAME
	local name=$1 how before

	start_bg sock edge1 "$TALK" connect --bind "$SHARED:41000" --timeout 30 "$ORIGIN:7000"
	wait_out sock 10 '"connected":true'
	how=$(uplink_field .ingress)
	check_that "$name/settings" "settings of the uplink" settings_made

	before=$(uplink_field .ifindex)
	uplink_delete
	check_that "$name/deleted" "status does not show that it is gone" wait_for 10 uplink_is missing none
	run_ctl reload
	check "$name/deleted-reload" "exit code of a reload without the uplink" "$RC" -eq 2
	check_text "$name/deleted-reload-text" "$SAID" '"wan" does not exist'
	uplink_make
	check_that "$name/made" "status does not show that it is back" wait_for 10 uplink_is up "$how"
	check "$name/made-ifindex" "ifindex" "$(uplink_field .ifindex)" -ne "$before"
	check_that "$name/made-settings" "settings of the new uplink" wait_for 10 settings_made
	check_works "$name/made"

	uplink_rename wan wan9
	check_that "$name/renamed" "status does not show that it is gone" wait_for 10 uplink_is missing none
	# The programs are where they were.
	check_works "$name/renamed"
	uplink_rename wan9 wan
	check_that "$name/back" "status does not show that it is back" wait_for 10 uplink_is up "$how"
	check_that "$name/back-settings" "settings of the uplink" settings_made
	check_works "$name/back"

	# Many changes at once: what counts is where it ends.
	uplink_delete
	for _ in 1 2 3 4 5; do
		uplink_make
		uplink_delete
	done
	uplink_make
	check_that "$name/often" "status does not show that it is back" wait_for 10 uplink_is up "$how"
	check_that "$name/often-settings" "settings of the uplink" wait_for 10 settings_made
	check_works "$name/often"
	stop_bg sock || true
}
