# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# For the tests that are scripts, on top of netns-lab/lib.sh. At the end: exit "$TEST_FAILED".

TEST_FAILED=0

test_ok() { # NAME
	echo "ok $1"
}

test_fail() { # NAME WHY
	echo "not ok $1: $2"
	TEST_FAILED=1
}

# One case: ACTUAL OPERATOR EXPECTED as test(1) compares them ("-eq", "-gt", "=").
check() { # NAME WHAT ACTUAL OPERATOR EXPECTED
	if test "$3" "$4" "$5"; then
		test_ok "$1"
	else
		test_fail "$1" "$2: $3, should be $4 $5"
	fi
}

# CLOCK_BOOTTIME in milliseconds, to 10 ms: what deadlines and timers count in.
boot_ms() {
	awk '{ printf "%d\n", $1 * 1000 }' /proc/uptime
}

boot_past() { # MS
	[[ $(boot_ms) -gt $1 ]]
}
