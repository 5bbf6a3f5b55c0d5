#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The lab's scenario "remedies", judged by what it measured: the shape of its document, and the few outcomes that must hold on any kernel.

set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/lib.sh
. tests/lib.sh

# A run of all takes three minutes: REMEDIES="none disjoint entry repair tfo zones notrack sluice".
read -ra names <<<"${REMEDIES:-none disjoint entry sluice}"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

field() { # DOCUMENT PATH
	jq -r "$2" "$out/$1"
}

remedy() { # NAME PATH
	field remedies ".remedies[] | select(.name == \"$1\") | $2"
}

check remedies/listed "lines of lab list for it" "$(netns-lab/lab list | grep -c '^scenario *remedies  ')" -eq 1
netns-lab/lab run remedies --json "${names[@]}" >"$out/remedies" 2>"$out/remedies.err" || {
	test_fail remedies/run "exit status $?"
	cat "$out/remedies.err"
}
check remedies/names "the remedies" "$(field remedies '[.remedies[].name] | join(" ")')" = \
	"${names[*]}"
check remedies/shape "remedies that lack something, or give a reason and results" "$(field remedies '
	[.remedies[] | select((
	 if .available then .reason == null and ([.connections_per_second, .ratio, .client_flows] | all(type == "number" and . > 0))
		and ([.orders | .flow_first, .bind_first, .socket_first | .both_work, .connected, .flow_works] | all(type == "boolean"))
		and (.alone | type == "boolean") and (.behind_firewall | type == "boolean")
	 else (.reason | type == "string") and .works == false and .orders == {} end
	 and ([.works] | inside([true, false, "partly"])) and (.breaks | type == "string") and (.title | length > 0)) | not) | .name] | join(" ")')" = ""
check remedies/none-connects "the socket connects without a remedy, flow first" "$(remedy none .orders.flow_first.connected)" = false
check remedies/none-port "its wire port" "$(remedy none .orders.flow_first.wire_port)" -ne "$(remedy none .orders.flow_first.bound_port)"
check remedies/none-in-slice "its wire port is in the slice" "$(remedy none .orders.flow_first.in_slice)" = false
check remedies/none-flow "the flow goes on" "$(remedy none .orders.flow_first.flow_works)" = true
check remedies/none-works "it works" "$(remedy none .works)" = false
for name in disjoint sluice; do
	check "remedies/$name-works" "it works" "$(remedy $name .works)" = true
	check "remedies/$name-wires" "wire ports of its sockets outside the slice" "$(remedy $name '[.orders[] | select(.in_slice != true)] | length')" -eq 0
	check "remedies/$name-told" "programs that had to take another port" "$(remedy $name '[.orders[] | select(.told)] | length')" -eq 0
	check "remedies/$name-firewall" "sockets connect behind a stateful firewall" "$(remedy $name .behind_firewall)" = true
done
check remedies/disjoint-half "connections of clients to one place, of 1024 ports" "$(remedy disjoint .client_flows)" -le 1024
check remedies/sluice-flows "connections of clients to one place, of 2048 ports" "$(remedy sluice .client_flows)" -eq 2048

# A remedy that this kernel, or this user, cannot have is told as that: here without the capability for TCP_REPAIR.
mkdir -p "$out/build/tools"
ln -s "$PWD"/build/* "$out/build/" 2>/dev/null
ln -s "$PWD"/build/tools/* "$out/build/tools/"
rm "$out/build/tools/placeholder"
cat >"$out/build/tools/placeholder" <<-END
	#!/bin/sh
	exec setpriv --bounding-set -net_admin --inh-caps -net_admin "$PWD/build/tools/placeholder" "\$@"
END
chmod +x "$out/build/tools/placeholder"
LAB_BUILD=$out/build netns-lab/lab run remedies --json repair >"$out/refused" 2>"$out/refused.err" || {
	test_fail remedies/refused-run "exit status $?"
	cat "$out/refused.err"
}
check remedies/refused "what is said of repair mode without CAP_NET_ADMIN" \
	"$(field refused '.remedies[1] | "\(.name) \(.available) \(.works) \(.reason)"')" = "repair false false TCP_REPAIR: EPERM"

exit "$TEST_FAILED"
