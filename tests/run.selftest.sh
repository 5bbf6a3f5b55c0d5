#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Tests of tests/run itself: it must not take a crash, a hang or silence for success.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(mktemp -d) || exit 1
trap 'rm -rf "$root"' EXIT
bad=0

# A tree with the runner and programs that we write. Unit programs need no root, so these are of that kind.
mkdir -p "$root/tests/unit" "$root/tests/net" "$root/build/unit"
cp "$here/run" "$root/tests/run"

# fake NAME [noexec]: the program's text is on standard input.
fake() {
	touch "$root/tests/unit/test_$1.c"
	{ echo "#!/bin/bash" && cat; } >"$root/build/unit/$1"
	chmod +x "$root/build/unit/$1"
}

# Show another runner's output, so that its lines are not taken for ours.
indent() {
	while IFS= read -r line; do echo "    $line"; done <<<"$1"
}

# expect CASE TOTALS CODE ARGS...: run the runner, compare its last line and its exit code.
expect() {
	local name=$1 totals=$2 want=$3 out code last
	shift 3

	out=$(TEST_TIMEOUT=${limit:-60} "$root/tests/run" "$@" 2>&1)
	code=$?
	last=$(tail -n 1 <<<"$out")
	if [ "$last" = "$totals" ] && [ "$code" -eq "$want" ]; then
		echo "ok $name"
	else
		echo "not ok $name: said \"$last\" with exit code $code, expected \"$totals\" with $want"
		indent "$out"
		bad=1
	fi
}

expect nothing_ran "0 passed, 0 failed, 0 skipped" 1 unit

fake passing <<<'echo "ok one"; echo "ok two"; echo "skip three: not here"'
expect passing "2 passed, 0 failed, 1 skipped" 0 unit/passing
fake tap <<<'echo "1..3"; echo "ok 1 - a"; echo "ok 2 # SKIP b"; echo "not ok 3 # SKIP c"'
expect tap "1 passed, 0 failed, 2 skipped" 0 unit/tap
fake failing <<<'echo "ok one"; echo "not ok two: wrong"; exit 1'
expect failing "1 passed, 1 failed, 0 skipped" 1 unit/failing
fake failing_quietly <<<'echo "ok one"; echo "not ok two: wrong"; exit 0'
expect failing_quietly "1 passed, 1 failed, 0 skipped" 1 unit/failing_quietly
fake exiting <<<'echo "ok one"; exit 3'
expect exiting "1 passed, 1 failed, 0 skipped" 1 unit/exiting
fake crashing <<<'echo "ok one"; kill -SEGV $$'
expect crashing "1 passed, 1 failed, 0 skipped" 1 unit/crashing
fake failing_and_crashing <<<'echo "not ok one: wrong"; kill -ABRT $$'
expect failing_and_crashing "0 passed, 2 failed, 0 skipped" 1 unit/failing_and_crashing
fake silent <<<'echo "all is well"'
expect silent "0 passed, 1 failed, 0 skipped" 1 unit/silent
fake cut_short <<<'echo "1..3"; echo "ok 1 - a"; echo "ok 2 - b"'
expect cut_short "2 passed, 1 failed, 0 skipped" 1 unit/cut_short
touch "$root/tests/unit/test_unbuilt.c"
expect unbuilt "0 passed, 1 failed, 0 skipped" 1 unit/unbuilt

# A hang ends with all that the program started, even what ignores the polite signal.
fake hanging <<EOF2
echo "ok one"
(trap '' TERM; echo \$BASHPID >"$root/child"; sleep 1000 & wait) &
sleep 1000
EOF2
limit=1 expect hanging "1 passed, 1 failed, 0 skipped" 1 unit/hanging
child=$(cat "$root/child")
# Gone, or dead and not yet reaped by whoever inherited it.
for ((i = 0; i < 1000; i++)); do
	state=$(sed 's/.*) //;s/ .*//' "/proc/$child/stat" 2>/dev/null)
	case ${state:-gone} in gone | Z | X) break ;; esac
	sleep 0.01
done
if [ -n "$child" ] && [ "$i" -lt 1000 ]; then
	echo "ok hanging_child_ended"
else
	echo "not ok hanging_child_ended: a process of the hanging program is still there"
	bad=1
fi

# Failures are shown, with the reason; what passed is one line.
out=$("$root/tests/run" unit/failing unit/passing 2>&1)
if grep -q 'not ok two: wrong' <<<"$out" && ! grep -q 'ok one$' <<<"$(grep passing <<<"$out")"; then
	echo "ok shows_failures"
else
	echo "not ok shows_failures: the report is wrong"
	indent "$out"
	bad=1
fi

# Several programs, two at a time, reported in order and added up.
rm "$root/tests/unit/test_hanging.c"
expect sum "9 passed, 9 failed, 3 skipped" 1 unit
if "$root/tests/run" unit/nosuch >/dev/null 2>&1 || "$root/tests/run" nosuch >/dev/null 2>&1; then
	echo "not ok unknown_names_refused: it went on"
	bad=1
else
	echo "ok unknown_names_refused"
fi

# Interrupted, it ends what it runs.
fake endless <<EOF2
trap 'echo cleaned >"$root/cleaned"; exit 1' TERM
echo up >"$root/up"
while :; do sleep 0.1; done
EOF2
"$root/tests/run" unit/endless >/dev/null 2>&1 &
pid=$!
for ((i = 0; i < 1000; i++)); do
	[ -e "$root/up" ] && break
	sleep 0.01
done
kill -TERM "$pid"
wait "$pid"
if [ $? -eq 130 ] && [ -e "$root/cleaned" ]; then
	echo "ok interrupt_cleans_up"
else
	echo "not ok interrupt_cleans_up: the program was not ended by a signal that it can act on"
	bad=1
fi
exit $bad
