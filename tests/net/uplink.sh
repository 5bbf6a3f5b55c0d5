#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The uplink goes and comes: deleted and made anew, renamed away and back, with the daemon running and without. Each time the
# programs are attached and the settings made again; while the daemon runs, connections of clients and of sockets live
# on, and nothing leaves untranslated through an interface that was an uplink.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/net/lib-uplink.sh
. "$(dirname "$0")/lib-uplink.sh"

lab_begin
lab_up egress
edge_conf edge1 >/dev/null
sluiced_start edge1
echo_start
traffic_start 20
test_uplink uplink

# It has another name when the daemon is not there: a start is refused, and traffic goes on.
sluiced_stop edge1
uplink_rename wan wan9
check_refused uplink/start-renamed '"wan" does not exist; links here: .*wan9'
check_traffic uplink/start-renamed-traffic
# The configuration follows: the programs are taken over, not attached twice.
conf_edit 's/"wan"/"wan9"/'
check_that uplink/start-new-name "it does not start with the new name" sluiced_start edge1
check uplink/new-name-hooks "hooks on it" "$(in_ns edge1 bpftool net show 2>/dev/null | grep -c 'wan9.*uplink_')" -le 2
check_traffic uplink/new-name-traffic
sluiced_stop edge1
uplink_rename wan9 wan
conf_edit 's/"wan9"/"wan"/'
stop_bg traffic || true

# Gone when the daemon is not there. Nothing guards the new one until the daemon runs; then all is well again.
uplink_delete
check_refused uplink/start-without '"wan" does not exist'
uplink_make
check_that uplink/start-with "it does not start with the new uplink" sluiced_start edge1
traffic_start 20
check_traffic uplink/start-with-traffic
sluiced_stop edge1
run_there "$SLUICED" --teardown -f "$(conf_file)"
check uplink/teardown "exit code: $SAID" "$RC" -eq 0
check uplink/teardown-settings "settings of the uplink" "$(settings)" = "0 0 1 "
exit "$TEST_FAILED"
