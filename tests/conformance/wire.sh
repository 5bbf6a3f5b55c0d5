#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Plays requirements on the wire: tests/conformance/wire.sh [--without-nat] [ID...]
#
# Builds the lab, starts sluiced on edge1, and lets checks.py send its packets. One line a requirement: "ok ID" or "not ok ID: why".
# With --without-nat edge1 forwards and does no NAT: every check has to fail then, which shows that it can. The exit code is 1 when
# a check failed.
set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/conformance/lib.sh
. "$(dirname "$0")/lib.sh"

nat=1
if [[ ${1-} == --without-nat ]]; then
	nat=
	shift
fi
lab_begin
conf_lab_up
if [[ $nat ]]; then
	conf_write >/dev/null
	sluiced_start edge1
fi
LAB_STATE=$LAB_STATE /usr/bin/python3 -B "$(dirname "$0")/checks.py" "$@"
