#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The requirements of COMPLIANCE.md that are shown on the wire, with crafted packets; and the table itself: each row has a proof, and
# each check a row. (make conformance runs the other proofs as well, and shows that the checks can fail.)
set -u
here=$(dirname "$0")/../conformance
if table=$("$here/run" --quick); then
	echo "ok table"
else
	echo "not ok table: ${table//$'\n'/; }"
	failed=1
fi
# shellcheck disable=SC2046 # one word a check
"$here/wire.sh" $("$here/run" --checks) || failed=1
exit "${failed:-0}"
