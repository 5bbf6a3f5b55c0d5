#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A store that can't be used: the daemon refuses to start (exit code 2, a clear text), leaves the file byte for byte as it was, and
# the traffic of the running data plane goes on meanwhile. A disk that fills up while the daemon runs.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

# The state directory is on a file system of its own, outside of what lab_down removes: a mount would be in its way.
MOUNT=$(mktemp -d)
DB=$MOUNT/state/sluice.db
ONE='slices = { "203.0.113.7:40960-43007" }'
TWO='slices = { "203.0.113.7:40960-43007", "203.0.113.7:45056-47103" }'

cleanup() {
	local status=$?

	# The daemon must be gone first.
	[[ -n $LAB_KEEP ]] || lab_down
	umount "$MOUNT" 2>/dev/null || umount -l "$MOUNT" 2>/dev/null || true
	rmdir "$MOUNT" 2>/dev/null || true
	exit "$status"
}

# The store itself, and its log if there is something in it. SQLite may leave an empty log and an index beside a file that it has
# only looked at.
store_state() {
	find "$MOUNT/state" \( -name sluice.db -o -name sluice.db-wal -size +0 \) -printf '%f %l ' -exec sha256sum {} \; | sort
}

# Whatever it is that is wrong with the store now: refused, and left alone. CONF: another configuration.
check_store() { # NAME REGEX [CONF]
	local before

	before=$(store_state)
	check_refused "store/$1" "$2" "${3:-$(conf_file)}"
	check "store/$1-untouched" "the state directory" "$(store_state)" = "$before"
	check_host "store/$1-host" "$HOST"
	check_traffic "store/$1-traffic"
}

undamage() {
	rm -f "$DB" "$DB-wal" "$DB-shm"
	cp "$MOUNT/good.db" "$DB"
}

poke() { # OFFSET BYTES-AS-PRINTF
	# shellcheck disable=SC2059 # the bytes are a format
	printf "$2" | dd of="$DB" bs=1 seek="$1" conv=notrunc status=none
}

fill_disk() {
	cat /dev/zero >>"$MOUNT/ballast" 2>/dev/null || true
}

held() {
	sluice_ctl edge1 -j slices | jq '.slices | length'
}

epoch() {
	sluice_ctl edge1 -j slices | jq -r '.slices[0].epoch'
}

lab_begin
trap cleanup EXIT
lab_up egress
mount -t tmpfs -o size=1m,mode=700 slab-store "$MOUNT"
edge_conf edge1 >/dev/null
conf_edit "s|^state-dir .*|state-dir = \"$MOUNT/state\"|; s/slices .*/$ONE/"
sluiced_start edge1
echo_start
traffic_start 20
EPOCH=$(epoch)
sluiced_stop edge1
HOST=$(host_state)
cp "$DB" "$MOUNT/good.db"

# ---- the file ----

# The tables made first: what only a check of all pages finds. (The first page and some later ones hold the schema, which every opening reads.)
for ((at = 4096; at < 4096 * 5; at += 4096)); do
	poke "$at" '\377\377\377\377\377\377\377\377'
done
check_store damaged 'sluice.db is damaged .*; it is left as it is: move it away to begin anew'
undamage
truncate -s 10000 "$DB"
check_store cut 'sluice.db: .* it is damaged and is left as it is: move it away to begin anew'
: >"$DB"
check_store empty 'sluice.db is damaged: it is empty; move it away to begin anew'
echo "this is no database, but somebody's shopping list: milk, eggs, bread, a new power supply" >"$DB"
check_store no-database 'sluice.db: .*file is not a database; it is left as it is'
undamage
# Offset 68: the application's id; 60: the schema's version (SQLite's file format, 1.3).
poke 68 '\001\002\003\004'
check_store another-program "sluice.db is another program's database .*; it is left as it is"
undamage
poke 60 '\000\000\000\143'
check_store newer 'written by a newer version: it has schema 99, this version knows schemas up to'
undamage
rm "$DB"
echo something >"$DB-wal"
check_store only-log 'is missing, but its log .*-wal is there'
undamage
chmod 400 "$DB"
check_store mode "sluice.db can't be read and written: Permission denied"
rm "$DB"
ln -s "$MOUNT/good.db" "$DB"
check_store link 'sluice.db is not a regular file'
undamage

# ---- another machine ----

sed 's/^machine .*/machine = "edge9"/' "$(conf_file)" >"$LAB_STATE/edge1/edge9.conf"
check_store another-machine 'belongs to machine "edge1", but this is "edge9"' "$LAB_STATE/edge1/edge9.conf"
# The same while its log holds what is not yet in the file.
sluiced_start edge1
conf_edit "s/slices .*/$TWO/"
sluice_ctl edge1 reload
sluiced_kill edge1
conf_edit "s/slices .*/$ONE/"
check_that store/log-left "SIGKILL left no log, so the next case shows nothing" test -s "$DB-wal"
check_store another-machine-log 'belongs to machine "edge1", but this is "edge9"' "$LAB_STATE/edge1/edge9.conf"
sluiced_start edge1
sluiced_stop edge1
cp "$DB" "$MOUNT/good.db"

# ---- the file system ----

mount -o remount,ro "$MOUNT"
check_store read-only "[Rr]ead-only"
mount -o remount,rw "$MOUNT"
rm -f "$DB-wal" "$DB-shm"
fill_disk
sed "s/slices .*/$TWO/" "$(conf_file)" >"$LAB_STATE/edge1/two.conf"
check_store full 'full|No space left|is used up' "$LAB_STATE/edge1/two.conf"
rm -f "$DB" "$DB-wal" "$DB-shm"
fill_disk
check_store full-new 'full|No space left|is used up'
check_not store/full-nothing-made "a store was made on a full disk" test -e "$DB"
rm "$MOUNT/ballast"
undamage

# After all that, the daemon starts from the good file, and holds what it held.
check_that store/start "it does not start from the good file" sluiced_start edge1
check store/epoch "epoch of the slice" "$(epoch)" -eq "$EPOCH"

# ---- a disk that is full while the daemon runs ----

fill_disk
conf_edit "s/slices .*/$TWO/"
run_ctl reload
check store/full-reload "exit code of a reload on a full disk" "$RC" -eq 2
check_text store/full-reload-text "$SAID" 'full|No space left|is used up'
check store/full-holds "slices held" "$(held)" -eq 1
check_that store/full-answers "the daemon does not answer" sluice_ctl edge1 status
check_that store/full-new-flows "no new flows on a full disk" new_flows
rm "$MOUNT/ballast"
run_ctl reload
check store/room-again "exit code when there is room again: $SAID" "$RC" -eq 0
check store/room-holds "slices held" "$(held)" -eq 2
check_traffic store/traffic-at-the-end
exit "$TEST_FAILED"
