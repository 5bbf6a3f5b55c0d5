#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The lab's scenarios, as a newcomer runs them, judged by what they measured and not by their own verdict alone.

set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/lib.sh
. tests/lib.sh

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

field() { # SCENARIO PATH
	jq -r "$2" "$out/$1"
}

netns-lab/lab run egress --json >"$out/egress" 2>"$out/egress.err" || {
	test_fail egress/run "exit status $?"
	cat "$out/egress.err"
}
while IFS=$'\t' read -r ok name text; do
	check "egress/${name// /-}" "$text" "$ok" = true
done < <(field egress '.rows[] | select(.ok != null) | [.ok, .name, .text] | @tsv')
check egress/rows "rows that were judged" "$(field egress '[.rows[] | select(.ok != null)] | length')" -ge 12
check egress/tcp "TCP connections at once" \
	"$(field egress '.rows[] | select(.name | startswith("TCP connections")) | .measured.established')" -eq 2000
check egress/seen "packets on the wire" \
	"$(field egress '.rows[] | select(.name == "wire, from edge1") | .measured.packets')" -gt 10000

netns-lab/lab run collision --json >"$out/collision" 2>"$out/collision.err" || {
	test_fail collision/run "exit status $?"
	cat "$out/collision.err"
}
check collision/conntrack-connected "the socket connects under conntrack" "$(field collision .conntrack.connected)" = false
check collision/conntrack-in-slice "its wire port is in the slice" "$(field collision .conntrack.in_slice)" = false
check collision/conntrack-rewritten "its wire port" "$(field collision .conntrack.wire_port)" -ne \
	"$(field collision .conntrack.bound_port)"
check collision/sluice-connected "the socket connects under sluice" "$(field collision .sluice.connected)" = true
check collision/sluice-in-slice "its wire port is in the slice" "$(field collision .sluice.in_slice)" = true
check collision/sluice-moved "its wire port" "$(field collision .sluice.wire_port)" -ne \
	"$(field collision .sluice.bound_port)"
check collision/conntrack-reported "the rewrite is reported" "$(field collision .conntrack.reported)" = true
check collision/sluice-reported "it is reported" "$(field collision .sluice.reported)" = true
exit "$TEST_FAILED"
