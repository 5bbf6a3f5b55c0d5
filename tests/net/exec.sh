#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Unchanged programs go out through a lease: curl, dig, a proxy (nginx), a Python script, ping, forking shells, programs that bind by themselves. Nothing of theirs
# leaves with the machine's own address, and what stays on the machine is left alone.

set -euo pipefail
# shellcheck source=netns-lab/lib.sh
. "$(dirname "$0")/../../netns-lab/lib.sh"
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/net/lib.sh
. "$(dirname "$0")/lib.sh"

OWN=192.0.2.11 # edge1's own address
SOCKET=$LAB_STATE/edge1/control.sock

# The command in front of a program.
run_exec() { # EXEC-OPTION... -- COMMAND...
	RC=0
	SAID=$(in_ns edge1 timeout 60 "$SLUICE" --socket "$SOCKET" exec --pool default "$@" 2>&1) || RC=$?
}

# What arrived at the gateway with the machine's own source, towards the origin's network, besides ICMP errors and TCP that opens nothing: the
# recorder counts everything from OWN, and the traffic of this test's own programs is all that there is.
own_begin() {
	watch_wire own --source "$OWN"
}

own_none() { # NAME
	check "$1" "packets with the machine's own address" "$(wire_packets own)" -eq 0
}

test_curl() {
	own_begin
	run_exec -- curl -sS --max-time 10 "http://$ORIGIN:8080/bytes/100000/7" -o "$LAB_STATE/files/got"
	check curl/code "exit code: $SAID" "$RC" -eq 0
	check curl/content "sum" "$(sha256sum <"$LAB_STATE/files/got")" = "$("$HTTP" bytes 100000 7 | sha256sum)"
	run_exec -- sh -c "sh -c 'curl -sS --max-time 10 http://$ORIGIN:8080/bytes/10/7 | wc -c'"
	check curl/nested "bytes" "$SAID" -eq 10
	own_none curl/own
}

test_codes() {
	run_exec -- sh -c 'exit 7'
	check codes/command "exit code" "$RC" -eq 7
	run_exec -- /nowhere/nothing
	check codes/missing "exit code" "$RC" -eq 127
	run_exec -- /etc/passwd
	check codes/not-executable "exit code" "$RC" -eq 126
	RC=0
	in_ns edge1 "$SLUICE" --socket "$SOCKET" exec --pool nowhere -- true 2>/dev/null || RC=$?
	check codes/own "exit code" "$RC" -eq 125
}

test_dig() {
	own_begin
	run_exec -- dig +short +time=3 +tries=1 "@$ORIGIN" host1.lab.test
	check_text dig/udp "$SAID" '^10\.9\.'
	run_exec -- dig +tcp +short +time=3 +tries=1 "@$ORIGIN" host1.lab.test
	check_text dig/tcp "$SAID" '^10\.9\.'
	own_none dig/own
}

# Sockets that never connect, and one that asks for a port of its own; and what comes back when the lease is used up.
test_python() {
	own_begin
	cat >"$LAB_STATE/files/udp.py" <<-'END'
		import socket, sys
		for i in range(20):
		    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		    s.settimeout(5)
		    if i % 2:
		        s.bind(("0.0.0.0", 0))
		    m = b"number %d" % i
		    s.sendto(m, (sys.argv[1], 7001))
		    assert s.recvfrom(100)[0] == m
		print("fine")
	END
	run_exec -- python3 "$LAB_STATE/files/udp.py" "$ORIGIN"
	check_text python/udp "$SAID" '^fine$'
	cat >"$LAB_STATE/files/full.py" <<-'END'
		import errno, socket, sys
		held, refused = [], None
		for i in range(20):
		    s = socket.socket()
		    s.settimeout(5)
		    try:
		        s.connect((sys.argv[1], 7000))
		        held.append(s)
		    except OSError as e:
		        refused = errno.errorcode[e.errno]
		        break
		for i, s in enumerate(held):
		    s.sendall(b"%d" % i)
		    assert s.recv(10) == b"%d" % i
		ports = {s.getsockname()[1] for s in held}
		assert len(ports) == len(held)
		other = socket.create_connection((sys.argv[2], 7000), 5)
		other.sendall(b"x")
		assert other.recv(1) == b"x"
		print(len(held), refused)
	END
	run_exec --count 4 -- python3 "$LAB_STATE/files/full.py" "$ORIGIN" 198.51.100.11
	check python/full "connections, and the error of the next" "$SAID" = "4 EADDRNOTAVAIL"
	cat >"$LAB_STATE/files/bind.py" <<-'END'
		import errno, socket, sys
		shared, origin = sys.argv[1], sys.argv[2]
		def attempt(port):
		    s = socket.socket()
		    s.settimeout(5)
		    try:
		        s.bind((shared, port))
		    except OSError as e:
		        return errno.errorcode[e.errno]
		    s.connect((origin, 7000))
		    s.sendall(b"y")
		    assert s.recv(1) == b"y"
		    return "ok"
		print(attempt(0), attempt(50000), attempt(42999))
	END
	run_exec -- python3 "$LAB_STATE/files/bind.py" "$SHARED" "$ORIGIN"
	check_text python/bind "$SAID" '^ok EADDRNOTAVAIL (EADDRNOTAVAIL|ok)$'
	# A port of the machine's own, chosen by the program: translated.
	cat >"$LAB_STATE/files/own.py" <<-'END'
		import socket, sys
		s = socket.socket()
		s.settimeout(5)
		s.bind(("0.0.0.0", 5555))
		s.connect((sys.argv[1], 7000))
		s.sendall(b"z")
		assert s.recv(1) == b"z"
		print("fine")
	END
	run_exec -- python3 "$LAB_STATE/files/own.py" "$ORIGIN"
	check_text python/own-port "$SAID" '^fine$'
	own_none python/own
}

test_ping() {
	own_begin
	run_exec -- ping -c 2 -i 0.2 -W 3 "$ORIGIN"
	check ping/code "exit code" "$RC" -eq 0
	own_none ping/own
}

# What does not leave by an uplink is none of ours: loopback, the clients' side, and no-nat.
test_left_alone() {
	start_bg local edge1 "$TALK" echo 127.0.0.1:7100 10.1.0.1:7100
	wait_out local 10 ready
	run_exec -- "$MANY" --timeout 3 3 127.0.0.1:7100
	check alone/loopback "exit code" "$RC" -eq 0
	run_exec -- "$MANY" --timeout 3 3 10.1.0.1:7100
	check alone/local "exit code" "$RC" -eq 0
	start_bg inner client "$TALK" echo 10.1.0.2:7100
	wait_out inner 10 ready
	run_exec -- "$MANY" --timeout 3 3 10.1.0.2:7100
	check alone/inner "exit code" "$RC" -eq 0
	check alone/inner-source "the client's peer" "$(bg_field inner peer peer)" = 10.1.0.1
	start_bg gateway gw "$TALK" echo 192.0.2.1:7100
	wait_out gateway 10 ready
	run_exec -- "$MANY" --timeout 3 3 192.0.2.1:7100
	check alone/no-nat "exit code" "$RC" -eq 0
	check alone/no-nat-source "the gateway's peer" "$(bg_field gateway peer peer)" = "$OWN"
}

# A proxy: listens inside, goes out through the lease; its workers are children of a daemon.
test_nginx() {
	local dir=$LAB_STATE/files/nginx

	mkdir -p "$dir"
	cat >"$dir/conf" <<-END
		daemon on;
		user root;
		pid $dir/pid;
		error_log $dir/error;
		worker_processes 2;
		events { }
		http {
			access_log off;
			client_body_temp_path $dir/body; proxy_temp_path $dir/proxy; fastcgi_temp_path $dir/f; uwsgi_temp_path $dir/u; scgi_temp_path $dir/s;
			server { listen 10.1.0.1:8081; location / { proxy_pass http://$ORIGIN:8080; } }
		}
	END
	own_begin
	run_exec --name proxy -- nginx -c "$dir/conf"
	check nginx/code "exit code: $SAID" "$RC" -eq 0
	check nginx/lease "leases while the daemon runs" \
		"$(sluice_ctl edge1 -j leases | jq '[.leases[] | select(.name == "proxy" and .state == "active")] | length')" -eq 1
	in_ns client curl -sS --max-time 10 "http://10.1.0.1:8081/bytes/50000/9" -o "$LAB_STATE/files/got" || true
	check nginx/content "sum" "$(sha256sum <"$LAB_STATE/files/got")" = "$("$HTTP" bytes 50000 9 | sha256sum)"
	# The daemon is killed and comes back: the proxy goes on, its lease too.
	sluiced_kill edge1
	in_ns client curl -sS --max-time 10 "http://10.1.0.1:8081/bytes/500/9" -o "$LAB_STATE/files/got" || true
	check nginx/without-daemon "sum" "$(sha256sum <"$LAB_STATE/files/got")" = "$("$HTTP" bytes 500 9 | sha256sum)"
	sluiced_start edge1
	in_ns client curl -sS --max-time 10 "http://10.1.0.1:8081/bytes/501/9" -o "$LAB_STATE/files/got" || true
	check nginx/after-restart "sum" "$(sha256sum <"$LAB_STATE/files/got")" = "$("$HTTP" bytes 501 9 | sha256sum)"
	kill "$(<"$dir/pid")"
	ended() { [[ $(sluice_ctl edge1 -j leases | jq '[.leases[] | select(.name == "proxy" and .state == "active")] | length') -eq 0 ]]; }
	check_that nginx/ends "the lease does not end with the last process" wait_for 10 ended
	own_none nginx/own
}

# The lease is taken away while a program runs: from then on it reaches nothing, rather than going out with the machine's own address.
test_revoked() {
	own_begin
	start_bg long edge1 "$SLUICE" --socket "$SOCKET" exec --pool default --name long -- \
		"$MANY" --hold --timeout 5 5 "$ORIGIN:7000"
	wait_out long 15 '"event":"verify"'
	sluice_ctl edge1 release "$(sluice_ctl edge1 -j leases | jq '.leases[] | select(.name == "long" and .state == "active") | .id')"
	stop_bg long || true
	own_none revoked/own
}

lab_begin
lab_up egress
edge_conf edge1 'no-nat = { "192.0.2.0/24" }' 'leases { cool-down = 1 }' >/dev/null
sluiced_start edge1
echo_start
start_bg echo11 origin "$TALK" echo 198.51.100.11:7000
wait_out echo11 10 ready
start_bg http origin "$HTTP" serve "$ORIGIN:8080"
start_bg dns origin dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --bind-interfaces \
	--listen-address="$ORIGIN" --address=/lab.test/10.9.0.1 --pid-file= --user=root --log-facility=-
wait_for 5 in_ns origin dig +short +time=1 +tries=1 "@$ORIGIN" host0.lab.test
# The machine's own address still reaches the origin, without exec; and is seen when it does.
own_begin
check_that plain "the machine does not reach the origin by itself" in_ns edge1 timeout 5 "$MANY" --timeout 3 1 "$ORIGIN:7000"
check plain/own "packets with the machine's own address" "$(wire_packets own)" -gt 0
test_codes
test_curl
test_dig
test_python
test_ping
test_left_alone
test_nginx
test_revoked
exit "$TEST_FAILED"
