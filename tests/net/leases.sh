#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Leases as an operator and a program see them: who may take what, how it ends, that nobody else gets it, and that the records say who had
# it. With restarts and kills of the daemon in between.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

GROUP=games      # any group that every Debian has
MEMBER=(setpriv --reuid 4321 --regid "$GROUP" --clear-groups)
STRANGER=(setpriv --reuid 4322 --regid 4322 --clear-groups)

SOCKET=$LAB_STATE/edge1/control.sock

# The command as a user of the group, and as somebody who is not in it.
member() {
	RC=0
	SAID=$(in_ns edge1 "${MEMBER[@]}" "$SLUICE" --socket "$SOCKET" "$@" 2>&1) || RC=$?
}

stranger() {
	RC=0
	SAID=$(in_ns edge1 "${STRANGER[@]}" "$SLUICE" --socket "$SOCKET" "$@" 2>&1) || RC=$?
}

field() { # JQ
	jq -r "$1" <<<"$SAID"
}

leases() { # JQ: a number of leases
	sluice_ctl edge1 -j leases | jq "[.leases[] | select($1)] | length"
}

leases_are() { # COUNT JQ
	[[ $(leases "$2") -eq $1 ]]
}

start() { # POOL-LINES TOP-LINES
	edge_conf edge1 "$1" "$2
		access { group = \"$GROUP\" leases-per-uid = 8 }" >/dev/null
	# Programs of other users must reach the socket and the command.
	chmod 755 "$LAB_STATE" "$LAB_STATE/edge1"
	sluiced_start edge1
}

test_acquire() {
	local id first

	member -j acquire --pool default --proto udp --exclusive --name one
	check acquire/code "exit code" "$RC" -eq 0
	id=$(field '.leases[0].id')
	first=$(field '.leases[0].first')
	check acquire/in-slice "first port" "$first" -ge 40960
	check acquire/in-slice-end "first port" "$first" -le 43007
	check acquire/kind "kind" "$(field '.leases[0].kind')" = exclusive
	check acquire/holder "uid of the holder" "$(field '.leases[0].holder.uid')" -eq 4321
	member -j acquire --pool default --proto tcp+udp --count 6 --align 4 --parity even --ttl 600
	check acquire/block "ports of the block" "$(($(field '.leases[0].last') - $(field '.leases[0].first') + 1))" -eq 6
	check acquire/aligned "first port modulo 4" "$(($(field '.leases[0].first') % 4))" -eq 0
	check acquire/ttl "seconds left" "$(field '.leases[0].expires_s')" -gt 590
	member renew "$(field '.leases[0].id')" --ttl 1000
	check renew/code "exit code" "$RC" -eq 0
	check renew/listed "leases with more than 900 s left" "$(leases '.expires_s != null and .expires_s > 900')" -eq 1
	member release "$id"
	check release/code "exit code" "$RC" -eq 0
	check release/cools "leases that rest" "$(leases ".id == $id and .state == \"cooling\"")" -eq 1
	member release "$id"
	check release/twice "exit code" "$RC" -eq 2
	check_text release/twice-text "$SAID" "$id"
}

test_rights() {
	local id

	stranger acquire --pool default
	check rights/stranger "exit code" "$RC" -eq 5
	check_text rights/stranger-text "$SAID" "$GROUP"
	member -j acquire --pool default --name mine
	id=$(field '.leases[0].id')
	stranger -j leases
	check rights/stranger-sees "leases that a stranger sees" "$(field '.leases | length')" -eq 0
	stranger monitor
	check rights/stranger-monitor "exit code" "$RC" -eq 5
	stranger release "$id"
	check rights/stranger-release "exit code" "$RC" -eq 5
	RC=0
	in_ns edge1 setpriv --reuid 4323 --regid "$GROUP" --clear-groups "$SLUICE" --socket "$SOCKET" release "$id" \
		>/dev/null 2>&1 || RC=$?
	check rights/other-member "exit code" "$RC" -eq 5
	run_ctl release "$id"
	check rights/root "exit code" "$RC" -eq 0
	member reload
	check rights/reload "exit code" "$RC" -eq 5
}

test_limits() {
	local n

	for ((n = 0; n < 20; n++)); do
		member acquire --pool default
		[[ $RC -eq 0 ]] || break
	done
	check limits/uid "exit code over the limit" "$RC" -eq 5
	check limits/count "leases of the user" "$(leases '.state == "active" and .holder.uid == 4321')" -eq 8
	check_text limits/text "$SAID" "8"
	for n in $(sluice_ctl edge1 -j leases | jq '.leases[] | select(.state == "active") | .id'); do
		sluice_ctl edge1 release "$n" >/dev/null
	done
	run_ctl acquire --pool nowhere
	check limits/no-pool "exit code" "$RC" -eq 2
	run_ctl acquire --pool default --port 80
	check limits/port "exit code" "$RC" -ne 0
	run_ctl acquire --pool default --count 4096
	check limits/too-many "exit code" "$RC" -ne 0
	check_text limits/too-many-text "$SAID" "2048"
}

# A whole slice, and then not one more; NAT finds none left either.
test_full() {
	wait_for 20 leases_are 0 true || true
	check full/rested "leases left" "$(leases true)" -eq 0
	run_ctl -j acquire --pool default --proto tcp --count 2048
	check full/whole-slice "exit code" "$RC" -eq 0
	id=$(field '.leases[0].id')
	run_ctl acquire --pool default --proto tcp
	check full/no-more "exit code" "$RC" -eq 4
	check_not full/nat "a client got through" in_ns client timeout 3 "$MANY" --timeout 2 1 "$ORIGIN:7000"
	check full/nat-counted "packets dropped as no_port" "$(drops no_port)" -ge 1
	run_ctl -j acquire --pool default --proto udp
	check full/other-proto "exit code" "$RC" -eq 0
	run_ctl release "$id"
	wait_for 10 new_flows || true
	check_that full/nat-again "NAT does not get the ports back" new_flows
}

# A lease bound to a process ends with it; one that is not goes on.
test_process() {
	start_bg holder edge1 sleep 1000
	run_ctl -j acquire --pool default --until "$(bg_pid holder)" --name bound
	check process/code "exit code" "$RC" -eq 0
	run_ctl -j acquire --pool default --name free
	sluiced_kill edge1
	sluiced_start edge1
	check process/after-kill "leases after kill -9 of the daemon" "$(leases '.state == "active" and (.name == "bound" or .name == "free")')" -eq 2
	stop_bg holder KILL || true
	wait_for 10 leases_are 0 '.state == "active" and .name == "bound"' || true
	check process/ends "leases of the killed process" "$(leases '.state == "active" and .name == "bound"')" -eq 0
	check process/goes-on "leases that are bound to nothing" "$(leases '.state == "active" and .name == "free"')" -eq 1
	start_bg holder2 edge1 sleep 1000
	run_ctl -j acquire --pool default --until "$(bg_pid holder2)" --name gone
	sluiced_stop edge1
	stop_bg holder2 KILL || true
	sluiced_start edge1
	check process/while-down "leases of a process that ended while no daemon ran" "$(leases '.state == "active" and .name == "gone"')" -eq 0
}

test_expiry() {
	run_ctl -j acquire --pool default --ttl 1 --name short
	check expiry/there "leases" "$(leases '.name == "short" and .state == "active"')" -eq 1
	wait_for 10 leases_are 0 '.name == "short" and .state == "active"' || true
	check expiry/ended "leases" "$(leases '.name == "short" and .state == "active"')" -eq 0
}

# Whose was it? From the records, after the lease has ended.
test_who() {
	local port id before

	before=$(date -u +%Y-%m-%dT%H:%M:%S.%3NZ)
	member -j acquire --pool default --proto udp --name whose
	port=$(field '.leases[0].first')
	id=$(field '.leases[0].id')
	run_ctl -j who "$SHARED:$port" --proto udp
	check who/now "lease that has the port" "$(field ".records[] | select(.what == \"lease\" and .ended == null) | .id")" -eq "$id"
	check who/slice "records of the slice" "$(field '[.records[] | select(.what == "slice")] | length')" -ge 1
	member release "$id"
	run_ctl -j who "$SHARED:$port" --proto udp
	check who/ended "why it ended" "$(field ".records[] | select(.id == $id) | .why")" = released
	check who/uid "whose it was" "$(field ".records[] | select(.id == $id) | .holder.uid")" -eq 4321
	run_ctl -j who "$SHARED:$port" --proto udp --at "$before"
	check who/before "leases at a time before it" "$(field "[.records[] | select(.id == $id)] | length")" -eq 0
	run_ctl who "$SHARED:$port" --at yesterday
	check who/bad-time "exit code" "$RC" -ne 0
}

# A socket that stays on its port keeps it from everybody after the release, however long.
test_kept() {
	local port id

	run_ctl -j acquire --pool default --proto udp --exclusive
	port=$(field '.leases[0].first')
	id=$(field '.leases[0].id')
	start_bg keeper edge1 "$TALK" echo --udp "$SHARED:$port"
	wait_out keeper 10 ready
	sluice_ctl edge1 release "$id"
	in_use() { [[ $(sluice_ctl edge1 -j status | jq .leases.in_use) -ge 2 ]]; }
	wait_for 20 in_use || true
	check kept/cooling "leases that rest though their time is over" "$(leases ".id == $id and .state == \"cooling\"")" -eq 1
	run_ctl acquire --pool default --proto udp --port "$port"
	check kept/refused "exit code" "$RC" -eq 6
	sluiced_kill edge1
	sluiced_start edge1
	run_ctl acquire --pool default --proto udp --port "$port"
	check kept/after-restart "exit code" "$RC" -eq 6
	stop_bg keeper || true
	given() { sluice_ctl edge1 acquire --pool default --proto udp --port "$port"; }
	check_that kept/freed "the port does not come back" wait_for 20 given
}

# A program that asked nobody: "report" names it and lets it, "deny" does not let it; a leased port is fine in both.
test_unleased() {
	local port

	start_bg watch edge1 "$SLUICE" --socket "$SOCKET" -j monitor
	wait_out watch 10 subscribed
	check_that unleased/report "a socket without a lease does not get through" \
		in_ns edge1 timeout 10 "$MANY" --timeout 5 --from "$SHARED" --ports 42000-42010 1 "$ORIGIN:7000"
	wait_out watch 10 '"unleased"' || true
	check unleased/names "command in the report" \
		"$(grep '"unleased"' "$(bg_out watch)" | head -n 1 | jq -r .holder.comm)" = many
	check unleased/pid "pid in the report" "$(grep '"unleased"' "$(bg_out watch)" | head -n 1 | jq .holder.pid)" -gt 1
	stop_bg watch || true
	conf_edit 's/unleased = "report"/unleased = "deny"/'
	sluice_ctl edge1 reload
	check_not unleased/deny "a socket without a lease gets through" \
		in_ns edge1 timeout 10 "$MANY" --timeout 2 --from "$SHARED" --ports 42000-42010 1 "$ORIGIN:7000"
	check unleased/counted "packets dropped as unleased" "$(drops unleased)" -ge 1
	run_ctl -j acquire --pool default --proto tcp
	port=$(field '.leases[0].first')
	check_that unleased/leased "a leased port is denied" \
		in_ns edge1 timeout 10 "$MANY" --timeout 5 --from "$SHARED" --ports "$port-$port" 1 "$ORIGIN:7000"
	# Somebody else's.
	member -j acquire --pool default --proto tcp
	port=$(field '.leases[0].first')
	cp "$MANY" "$LAB_STATE/many"
	check_not unleased/other-uid "another user's port is given" in_ns edge1 setpriv --reuid 4323 --regid 4323 --clear-groups \
		timeout 10 "$LAB_STATE/many" --timeout 2 --from "$SHARED" --ports "$port-$port" 1 "$ORIGIN:7000"
	check_that unleased/own-uid "the holder's own port is denied" in_ns edge1 "${MEMBER[@]}" \
		timeout 10 "$LAB_STATE/many" --timeout 5 --from "$SHARED" --ports "$port-$port" 1 "$ORIGIN:7000"
}

# Somebody meddles with the data plane's maps: that is put right, when it was seen three times, and told.
test_repair() {
	local map=$LAB_BPFFS/slab-edge1/maps/leases key port before

	run_ctl -j acquire --pool default --proto udp --name meddled
	port=$(field '.leases[0].first')
	start_bg watch edge1 "$SLUICE" --socket "$SOCKET" -j monitor
	wait_out watch 10 subscribed
	key=$(printf '0x%02x 0x%02x' $((port / 256)) $((port % 256)))
	key=$(bpftool -j map dump pinned "$map" | jq -r '.[].key | join(" ")' | grep "$key 0x01")
	# shellcheck disable=SC2086 # bytes
	bpftool map delete pinned "$map" key $key
	before=$(boot_ms)
	wait_out watch 40 '"event": ?"repaired"' || true
	check repair/told "events" "$(grep -c "udp port $port of" "$(bg_out watch)" || true)" -eq 1
	check repair/third "milliseconds until the third look" "$(($(boot_ms) - before))" -gt 5000
	check repair/entry "entries of the port" "$(bpftool -j map dump pinned "$map" | jq -r '.[].key | join(" ")' | grep -c "$key")" -eq 1
	check repair/counted "repairs" "$(sluice_ctl edge1 -j status | jq .leases.repaired)" -eq 1
	stop_bg watch || true
}

# The same of the store: the daemon has the lease, whatever somebody does to the file.
test_repair_store() {
	local db=$LAB_STATE/edge1/state/sluice.db id before was

	sql() {
		"$LAB_BUILD/tools/sql" "$db" "$1"
	}
	was=$(sluice_ctl edge1 -j status | jq .leases.repaired)
	run_ctl -j acquire --pool default --proto udp --name stored
	id=$(field '.leases[0].id')
	start_bg watch edge1 "$SLUICE" --socket "$SOCKET" -j monitor
	wait_out watch 10 subscribed
	before=$(boot_ms)
	sql "DELETE FROM lease WHERE id = $id"
	wait_out watch 40 '"event": ?"repaired"' || true
	check repair-store/told "events" "$(grep -c "lease $id .* the store lacked it" "$(bg_out watch)" || true)" -eq 1
	check repair-store/third "milliseconds until the third look" "$(($(boot_ms) - before))" -gt 5000
	check repair-store/row "rows of the lease" "$(sql "SELECT count(*) FROM lease WHERE id = $id AND name = 'stored'")" -eq 1
	check repair-store/counted "repairs" "$(($(sluice_ctl edge1 -j status | jq .leases.repaired) - was))" -eq 1
	stop_bg watch || true
	sluiced_kill edge1
	sluiced_start edge1
	check repair-store/after-kill "leases after kill -9 of the daemon" "$(leases ".id == $id and .state == \"active\"")" -eq 1
}

lab_begin
lab_up egress
echo_start
start 'unleased = "report"' 'leases { cool-down = 1 }'
start_bg monitor edge1 "$SLUICE" --socket "$SOCKET" -j monitor
wait_out monitor 10 subscribed
test_acquire
test_rights
test_limits
test_full
wait_out monitor 5 '"event": ?"lease"' || true
check monitor/events "lease events" "$(grep -cE '"event": ?"lease"' "$(bg_out monitor)" || true)" -ge 10
stop_bg monitor || true
test_process
test_expiry
test_who
test_kept
test_repair
test_repair_store
test_unleased
exit "$TEST_FAILED"
