# SPDX-License-Identifier: BSD-2-Clause
# The verdicts of the scenario "remedies": computed from what it measured, and from nothing else.

# ---- works: true if both parties can work in every order, and nobody had to be refused for it; false if as many of the
# three common orders fail as without a remedy; "partly" for what lies between.

def fails: .both_work != true and .second_try.both_work != true;

def common: [.flow_first, .bind_first, .socket_first];

def works($none):
  if [.[] | .both_work] | all then true
  elif ([common[] | select(fails)] | length) >= ([$none | common[] | select(fails)] | length) then false
  else "partly" end;

# ---- connections a second, from runs with the remedy and without it in turns; the ratio is of neighbours.

def median: sort | .[length / 2 | floor];

def rates($r):
  if $r == null then {connections_per_second: null, connection_cpu_us: null, plain_per_second: null, ratio: null, slower: null}
  else ([$r.with, $r.plain] | transpose | map(.[0].per_s / .[1].per_s)) as $ratios
  | {connections_per_second: ($r.with | map(.per_s) | median), connection_cpu_us: ($r.with | map(.cpu_us) | median),
     plain_per_second: ($r.plain | map(.per_s) | median), ratio: ($ratios | median * 100 | round / 100),
     slower: ($ratios | all(. < 0.95))} end;

# ---- breaks: what is not as one would have it, each with the orders in which it was seen.

def leaves:
  if .wire_port == null then "no packet of it leaves"
  elif .wire_port == .bound_port then "its packets leave on the tuple of the flow"
  elif .in_slice then "its packets leave from another port of the slice"
  else "its packets leave from a port outside the slice" end;

def order_breaks: [
  (select(.told) | "the program is refused (\(.told)) and has to take another port"
    + (if .second_try.both_work then "" else ", which does not help" end)),
  (select((.connected | not) and (.told | not)) | "the socket hangs (\(.errno)): \(leaves)"),
  (select(.connected and (.socket_works | not)) | "the connection of the socket breaks"),
  (select(.flow_connected | not) | "the client does not connect"),
  (select(.flow_connected and (.flow_works | not)) | "the flow stops")];

def more($this; $other): $this / $other * 100 - 100 | round;

def breaks($none): [
  ([.orders | to_entries[] | (.key | gsub("_"; " ")) as $order | .value | order_breaks[] | {$order, text: .}]
    | group_by(.text)[] | "\(map(.order) | join(", ")): \(.[0].text)"),
  (.stray // empty | order_breaks[] | "a program that does not keep to its ports: \(.)"),
  (select(.alone | not) | "sockets do not connect at all"),
  (select(.alone and (.behind_firewall | not)) | "behind a stateful firewall sockets do not connect"),
  (select(.client_flows < $none.client_flows * 0.75)
    | "clients get \(.client_flows) connections to one place, instead of \($none.client_flows)"),
  (select(.connection_errors > 0)
    | "\(.connection_errors) sockets could not connect (\(.connection_errno)) when many did, one after the other"),
  # Each time, since one time changes with what else the machine does.
  (select(.slower) | "sockets open \(.ratio * 100 | round) % of the connections a second"),
  (.early_demux // empty
    | (select((.routed_flow_works.on | not) and .routed_flow_works.off)
        | "a flow that is routed and not translated gets no answer unless tcp_early_demux is off"),
      (select((.translated_flow_works.on | not) and .translated_flow_works.off)
        | "a translated flow gets no answer unless tcp_early_demux is off"),
      (select(.routed_flow_works.off | not) | "a flow that is routed and not translated gets no answer"),
      (select(.trip_cpu_us.off > .trip_cpu_us.on * 1.05)
        | "tcp_early_demux off costs local sockets \(more(.trip_cpu_us.off; .trip_cpu_us.on)) % more processor time a round trip"))
  ] | join("; ");
