#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Requirements of NATs, each shown on the wire: checks.py [ID...]

One function a requirement, registered under the first id of its row in COMPLIANCE.md. It sends crafted packets from both sides of
edge1 (lib.sh has the network and the pools) and judges by what comes out. Each begins with something that must pass translated, so
that none can succeed on a machine that does no NAT. Prints "ok ID" or "not ok ID: why" for each, and exits with 1 if one failed.
With --list: the ids.
"""
import os
import random
import socket
import struct
import subprocess
import sys
import traceback

import wire
from wire import (
    ICMP, IP, TCP, UDP, Failed, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment,
    IPOption, Lab, Raw, ip_sum_right, need, nothing, only, parsed, payload_of, sums_right)

CHECKS = {}
FIRST, LAST = 40960, 43007
O1, O2, O3, NO_NAT = "198.51.100.201", "198.51.100.202", "198.51.100.203", "198.51.100.204"
ROUTER = "198.51.100.77"  # a router on the path: nobody answers for it
OVER, EIM, EIF, STRICT = "203.0.113.7", ("203.0.113.8", "203.0.113.20"), "203.0.113.10", "203.0.113.17"
PORTS, RATE, STATES, TINY, SETDF, ZONE = ("203.0.113.%d" % n for n in (11, 12, 13, 14, 15, 16))
C6, C6B, O6, O6B, OUT6 = ("2001:db8:1::101", "2001:db8:1::102", "2001:db8:3::201", "2001:db8:3::202", "2001:db8:5::7")
S, A, F, R, P = 0x02, 0x10, 0x01, 0x04, 0x08

lab = None
next_port = random.randrange(10000, 20000)


def check(name):
    def register(fn):
        assert name not in CHECKS
        CHECKS[name] = fn
        return fn

    return register


def port():
    """An inner port that no other check uses."""
    global next_port
    next_port += 1
    return next_port


def in_slice(number, first=FIRST, last=LAST):
    return first <= number <= last


class Udp:
    """A UDP flow of a client: opened by its first datagram, which must come out translated."""

    def __init__(self, src, dst, sport=None, dport=7000, outer=None, **ip):
        self.src, self.dst, self.sport, self.dport = src, dst, sport or port(), dport
        p = self.send(**ip)
        self.outer, self.oport = p.src, p[UDP].sport
        need(p.src != src, "the source is not translated: %s" % p.summary())
        need(outer is None or p.src in outer, "the source became %s, not %s" % (p.src, outer))

    def packet(self, payload=None, **ip):
        return IP(src=self.src, dst=self.dst, **ip) / UDP(sport=self.sport, dport=self.dport) / Raw(payload or lab.tag())

    def send(self, payload=None, **ip):
        sent = self.packet(payload, **ip)
        got = only(lab.out(sent), "datagram of %s" % self.src)
        need(payload_of(got) == payload_of(sent), "the payload changed")
        need(sums_right(got), "a checksum is wrong after translation: %s" % got.summary())
        return got

    def answer(self, payload=None, src=None, sport=None, **ip):
        """A datagram from outside to the flow's outer end."""
        return (IP(src=src or self.dst, dst=self.outer, **ip) / UDP(sport=sport or self.dport, dport=self.oport) /
                Raw(payload or lab.tag()))

    def receives(self, what="answer", **how):
        got = only(lab.back(self.answer(**how)), what)
        need((got.dst, got[UDP].dport) == (self.src, self.sport), "%s: it went to %s:%d" % (what, got.dst, got[UDP].dport))
        need(sums_right(got), "%s: a checksum is wrong" % what)
        return got

    def lives(self):
        got = self.send()
        need((got.src, got[UDP].sport) == (self.outer, self.oport), "the mapping changed to %s:%d" % (got.src, got[UDP].sport))
        self.receives()


class Tcp:
    """A TCP connection whose both ends are played here."""

    def __init__(self, src, dst, sport=None, dport=7000, open_it=True, isn=None):
        self.src, self.dst, self.sport, self.dport = src, dst, sport or port(), dport
        self.c = isn if isn is not None else random.randrange(1 << 31)
        self.o = random.randrange(1 << 31)
        p = self.client(S, quiet=True)
        self.outer, self.oport = p.src, p[TCP].sport
        need(p.src != src, "the source is not translated: %s" % p.summary())
        if open_it:
            self.origin(S | A)
            self.client(A)

    def from_client(self, flags, payload=b"", seq=None):
        p = IP(src=self.src, dst=self.dst, flags="DF") / TCP(sport=self.sport, dport=self.dport, flags=flags,
                                                             seq=(self.c if seq is None else seq) % 2**32,
                                                             ack=self.o if flags & A else 0, window=65535)
        return p / Raw(payload) if payload else p

    def from_origin(self, flags, payload=b"", seq=None, src=None, sport=None, ack=None):
        p = IP(src=src or self.dst, dst=self.outer, flags="DF") / TCP(
            sport=sport or self.dport, dport=self.oport, flags=flags, seq=(self.o if seq is None else seq) % 2**32,
            ack=(self.c if ack is None else ack) if flags & A else 0, window=65535)
        return p / Raw(payload) if payload else p

    def client(self, flags, payload=b"", quiet=False):
        sent = self.from_client(flags, payload)
        got = only(lab.out(sent), "segment of the client (flags %#x)" % flags)
        need(sums_right(got), "a checksum is wrong after translation")
        need((got[TCP].seq, got[TCP].ack, int(got[TCP].flags)) == (sent[TCP].seq, sent[TCP].ack, flags), "the segment changed")
        if not quiet:
            need((got.src, got[TCP].sport) == (self.outer, self.oport), "the flow's outer end changed")
        self.c += len(payload) + (1 if flags & (S | F) else 0)
        return got

    def origin(self, flags, payload=b"", **how):
        got = only(lab.back(self.from_origin(flags, payload, **how)), "segment of the origin (flags %#x)" % flags)
        need((got.dst, got[TCP].dport) == (self.src, self.sport), "it went to %s:%d" % (got.dst, got[TCP].dport))
        need(sums_right(got), "a checksum is wrong after translation")
        self.o += len(payload) + (1 if flags & (S | F) else 0)
        return got

    def talks(self):
        self.client(A | P, lab.tag())
        self.origin(A | P, lab.tag())


def echo(src, dst, ident, seq=1):
    return IP(src=src, dst=dst) / ICMP(type=8, id=ident, seq=seq) / Raw(lab.tag())


def quote(p, size=8):
    """What an ICMP error quotes of a packet: its header and so many bytes."""
    data = bytes(p)
    return data[:(data[0] & 15) * 4 + size]


def error(about, kind=3, code=3, src=ROUTER, size=8, dst=None, unused=0):
    """An ICMP error about a packet, to its source."""
    q = quote(about, size)
    return IP(src=src, dst=dst or about.src) / ICMP(type=kind, code=code, unused=unused) / Raw(q)


def error_quote(p):
    """The packet that an ICMP error quotes, as bytes."""
    return bytes(p[ICMP])[8:]


def check_error_in(flow_src, flow_sport, sent, got, l4=None):
    """An error that came to a client speaks of what the client sent."""
    need(got.dst == flow_src, "the error went to %s" % got.dst)
    need((got[ICMP].type, got[ICMP].code) == (sent[ICMP].type, sent[ICMP].code), "type or code changed")
    q = error_quote(got)
    need(socket.inet_ntoa(q[12:16]) == flow_src, "the quoted source is %s" % socket.inet_ntoa(q[12:16]))
    ihl = (q[0] & 15) * 4
    at = ihl + (4 if l4 == "icmp" else 0)
    need(struct.unpack("!H", q[at:at + 2])[0] == flow_sport, "the quoted port or id is %d, not %d" % (
        struct.unpack("!H", q[at:at + 2])[0], flow_sport))
    need(ip_sum_right(q), "the quoted IP header's checksum is wrong")
    need(sums_right(got), "the error's own checksum is wrong")


# ---------------------------------------------------------------------------------------------- RFC 4787


@check("4787-1")
def mapping_is_endpoint_independent():
    one = Udp("10.1.20.1", O1, outer=EIM)
    for dst, dport in ((O1, 7001), (O2, 7000), (O3, 9)):
        other = Udp("10.1.20.1", dst, sport=one.sport, dport=dport)
        need((other.outer, other.oport) == (one.outer, one.oport), "%s:%d sees %s:%d and %s:%d sees %s:%d" % (
            O1, 7000, one.outer, one.oport, dst, dport, other.outer, other.oport))
        other.receives()
    one.lives()


@check("4787-2")
def a_client_keeps_one_address():
    for client in ("10.1.20.%d" % n for n in range(1, 6)):
        outer = {Udp(client, dst, dport=7000 + n).outer for n in range(4) for dst in (O1, O2)}
        outer |= {Tcp(client, dst).outer for dst in (O1, O3)}
        outer |= {only(lab.out(echo(client, O1, port())), "echo").src}
        need(len(outer) == 1 and outer <= set(EIM), "%s has the addresses %s" % (client, sorted(outer)))


@check("4787-3")
def ports_are_not_shared():
    ends = {}
    for n in range(1, 9):
        for _ in range(8):
            f = Udp("10.1.20.%d" % n, O1, outer=EIM)
            need((f.outer, f.oport) not in ends, "%s:%d serves %s and %s" % (f.outer, f.oport, ends.get((f.outer, f.oport)), f.src))
            need(in_slice(f.oport), "port %d is outside of the slice" % f.oport)
            ends[f.outer, f.oport] = f.src


@check("4787-3a")
def low_ports_move_into_the_slice():
    for sport in (22, 500, 1023, 1024, 65535):
        f = Udp("10.1.10.1", O1, sport=sport)
        need(in_slice(f.oport), "port %d became %d, which is outside of the slice" % (sport, f.oport))


@check("4787-7")
def equal_addresses_are_told_apart():
    one = Udp("10.1.20.1", O1, outer=EIM)
    tap = wire.Tap("client", "net2", "edge1", "lan2")
    tag = lab.tag()
    tap.send(IP(src="10.1.20.1", dst=O1) / UDP(sport=one.sport, dport=7000) / Raw(tag))
    data = lab.wait(lab.origin, lambda d: tag in d)
    need(data, "nothing comes out for the client behind the second interface")
    other = parsed(data)
    need(other.src == ZONE, "the client behind the second interface leaves as %s" % other.src)
    tag = lab.tag()
    lab.origin.send(IP(src=O1, dst=ZONE) / UDP(sport=7000, dport=other[UDP].sport) / Raw(tag))
    data = lab.wait(tap, lambda d: tag in d)
    need(data, "the answer does not come back by the second interface")
    back = parsed(data)
    need((back.dst, back[UDP].dport) == ("10.1.20.1", one.sport), "the answer goes to %s:%d" % (back.dst, back[UDP].dport))
    one.lives()


@check("4787-8")
def filtering_is_as_configured():
    for src, outer, same_host, others in (("10.1.20.1", EIM, True, False), ("10.1.30.1", [EIF], True, True),
                                          ("10.1.70.1", [STRICT], False, False), ("10.1.10.1", [OVER], False, False)):
        f = Udp(src, O1, outer=outer)
        f.receives()
        for host, sport, may in ((O1, 7001, same_host), (O2, 7000, others), (O2, 7009, others)):
            came = lab.back(f.answer(src=host, sport=sport))
            if may:
                only(came, "from %s:%d to a mapping of %s" % (host, sport, src))
            else:
                nothing(came, "from %s:%d to a mapping of %s" % (host, sport, src))
        f.lives()


def hairpin_udp(a, b):
    """Two clients of one NAT talk by their outer ends. Returns both mappings and what each saw last."""
    fa, fb = Udp(a, O1), Udp(b, O1)
    # Filtering by address: each has to have sent to the other's address before that one may send.
    tags = [lab.tag() for _ in range(3)]

    def across(src, sport, to, tag):
        c, o = lab.exchange(out=[IP(src=src, dst=to.outer) / UDP(sport=sport, dport=to.oport) / Raw(tag)])
        nothing([p for p in o if tag in bytes(p)], "a packet between clients left to the Internet")
        return [p for p in c if tag in bytes(p) and UDP in p and ICMP not in p]

    across(a, fa.sport, fb, tags[0])
    for src, me, to, tag in ((b, fb, fa, tags[1]), (a, fa, fb, tags[2])):
        got = only(across(src, me.sport, to, tag), "from %s to %s:%d, the outer end of %s" % (src, to.outer, to.oport, to.src))
        need((got.dst, got[UDP].dport) == (to.src, to.sport), "it went to %s:%d" % (got.dst, got[UDP].dport))
        need((got.src, got[UDP].sport) == (me.outer, me.oport), "it came from %s:%d, not from the sender's outer end %s:%d" % (
            got.src, got[UDP].sport, me.outer, me.oport))
        need(sums_right(got), "a checksum is wrong")
    return fa, fb, got


@check("4787-9")
def clients_reach_each_other():
    hairpin_udp("10.1.20.1", "10.1.20.2")
    hairpin_udp("10.1.30.1", "10.1.20.3")


@check("4787-10")
def payloads_are_left_alone():
    for dport, text in ((21, b"PORT 10,1,20,1,19,137\r\n"), (5060, b"INVITE sip:a@10.1.20.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.20.1:5060\r\n"),
                        (69, b"\x00\x01boot\x00octet\x00"), (554, b"SETUP rtsp://x/ RTSP/1.0\r\nTransport: RTP/AVP;client_port=5000-5001\r\n")):
        f = Udp("10.1.20.1", O1, dport=dport, outer=EIM)
        f.send(text)
        got = f.receives(payload=text)
        need(payload_of(got) == text, "the answer's payload changed")
        t = Tcp("10.1.20.1", O1, dport=dport)
        need(payload_of(t.client(A | P, text)) == text, "the payload of TCP to port %d changed" % dport)
        # What a control connection spoke of opens nothing.
        nothing(lab.back(IP(src=O2, dst=t.outer) / TCP(sport=20, dport=5001, flags=S)), "a connection that only a payload spoke of")


@check("4787-12")
def icmp_does_not_end_a_flow():
    u, t = Udp("10.1.20.1", O1, outer=EIM), Tcp("10.1.10.1", O1)
    ident = port()
    e = only(lab.out(echo("10.1.20.1", O1, ident)), "echo")
    for kind, code in ((3, 0), (3, 1), (3, 2), (3, 3), (3, 4), (3, 13), (11, 0), (12, 0), (4, 0)):
        sent = [IP(src=u.outer, dst=u.dst) / UDP(sport=u.oport, dport=u.dport, chksum=1),
                IP(src=t.outer, dst=t.dst) / TCP(sport=t.oport, dport=t.dport, seq=t.c),
                IP(src=e.src, dst=O1) / ICMP(type=8, id=e[ICMP].id, seq=1)]
        came = lab.exchange(back=[error(p, kind, code, unused=1400 if (kind, code) == (3, 4) else 0) for p in sent])[0]
        need(len(came) == (3 if kind != 4 else len(came)), "of three errors %d/%d %d came in" % (kind, code, len(came)))
        u.lives()
        t.talks()
        again = only(lab.out(echo("10.1.20.1", O1, ident)), "echo after an error")
        need(again[ICMP].id == e[ICMP].id, "the echo's mapping changed")


def ip_in(host, *args):
    subprocess.run(["ip", "-n", "slab-" + host, *args], check=True)


@check("4787-13")
def too_big_is_told():
    f = Udp("10.1.20.1", O1, outer=EIM)
    ip_in("edge1", "link", "set", "wan", "mtu", "1280")
    try:
        c, o = lab.exchange(out=[f.packet(b"x" * 1400, flags="DF")])
        nothing(o, "a datagram of 1428 bytes with DF over a link of 1280")
        e = only(c, "answer to a datagram that is too big")
        need(ICMP in e and (e[ICMP].type, e[ICMP].code) == (3, 4), "the answer is %s" % e.summary())
        need(e[ICMP].nexthopmtu == 1280, "it says %s bytes" % e[ICMP].nexthopmtu)
        check_error_in(f.src, f.sport, e, e)
    finally:
        ip_in("edge1", "link", "set", "wan", "mtu", "1500")
    # And the other way: the inner link is the narrow one, and who is told is the origin.
    ip_in("edge1", "link", "set", "lan", "mtu", "1280")
    try:
        c, o = lab.exchange(back=[f.answer(b"y" * 1400, flags="DF")])
        nothing(c, "a datagram of 1428 bytes with DF over an inner link of 1280")
        e = only(o, "answer to the origin's datagram that is too big")
        need(ICMP in e and (e[ICMP].type, e[ICMP].code, e[ICMP].nexthopmtu) == (3, 4, 1280), "the answer is %s" % e.summary())
        q = error_quote(e)
        need((socket.inet_ntoa(q[16:20]), struct.unpack("!H", q[22:24])[0]) == (f.outer, f.oport),
             "it quotes a datagram to %s:%d: the origin sent to %s:%d" % (
                 socket.inet_ntoa(q[16:20]), struct.unpack("!H", q[22:24])[0], f.outer, f.oport))
        need(ip_sum_right(q) and sums_right(e), "a checksum is wrong")
    finally:
        ip_in("edge1", "link", "set", "lan", "mtu", "1500")
    f.lives()


def pieces(p, size):
    """Fragments of an IPv4 packet, with an identification of their own."""
    data, ident = bytes(p[IP].payload), random.randrange(1, 65535)
    out = []
    for at in range(0, len(data), size):
        f = IP(src=p.src, dst=p.dst, proto=p.proto, id=ident, frag=at // 8, flags="MF" if at + size < len(data) else 0)
        out.append(f / Raw(data[at:at + size]))
    return out


def built(p):
    """A packet whose sums are computed, as bytes that can be cut."""
    return IP(bytes(p))


def joined(packets, what):
    """The datagram that fragments make. All have one source and one identification."""
    need(packets, "%s: nothing came" % what)
    need(len({(p.src, p.dst, p.id) for p in packets}) == 1, "%s: the fragments do not belong together: %s" % (
        what, sorted({(p.src, p.dst, p.id) for p in packets})))
    need(all(ip_sum_right(bytes(p)) for p in packets), "%s: an IP header's checksum is wrong" % what)
    data = {p.frag * 8: bytes(p.payload) for p in packets}
    whole, at = b"", 0
    while at in data:
        whole += data[at]
        at = len(whole)
        if not data.get(at):
            break
    last = max(packets, key=lambda p: p.frag)
    need(not last.flags.MF and last.frag * 8 + len(bytes(last.payload)) == len(whole), "%s: a fragment is missing (%d of %s came)" % (
        what, len(packets), len(data)))
    q = IP(bytes(packets[0])[:20])
    q.flags, q.frag = 0, 0
    del q.len, q.chksum
    q = IP(bytes(q / Raw(whole)))
    need(sums_right(q), "%s: the checksum of the whole is wrong" % what)
    return q


@check("4787-14")
def fragments_in_any_order():
    f = Udp("10.1.20.1", O1, outer=EIM)
    orders = [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]]
    for order in orders:
        body = lab.tag() * 360
        parts = pieces(built(f.packet(body)), 1024)
        q = joined(lab.exchange(out=[parts[n] for n in order])[1], "out, order %s" % order)
        need((q.src, q[UDP].sport) == (f.outer, f.oport) and payload_of(q) == body, "out, order %s: another datagram" % order)
        parts = pieces(built(f.answer(body)), 1024)
        q = joined(lab.exchange(back=[parts[n] for n in order])[0], "in, order %s" % order)
        need((q.dst, q[UDP].dport) == (f.src, f.sport) and payload_of(q) == body, "in, order %s: another datagram" % order)
    # Pieces without the one that has the ports come out nowhere.
    nothing(lab.exchange(out=pieces(built(f.packet(b"z" * 2000)), 1024)[1:])[1], "a fragment without its first one")
    # An echo, too.
    e = built(echo("10.1.20.1", O1, port()) / Raw(b"e" * 2000))
    q = joined(lab.exchange(out=list(reversed(pieces(e, 1024))))[1], "echo in fragments")
    need(q.src in EIM and in_slice(q[ICMP].id), "the echo's source or id is not translated")
    f.lives()


# ---------------------------------------------------------------------------------------------- RFC 5382


@check("5382-1")
def tcp_mappings():
    # Where the pool says so: one outer end for all.
    sport = port()
    ends = {(t.outer, t.oport) for t in (Tcp("10.1.20.1", dst, sport=sport) for dst in (O1, O2, O3))}
    need(len(ends) == 1, "endpoint-independent, and the outer ends are %s" % sorted(ends))
    # Else ports are overloaded: more flows than ports, each with a tuple of its own.
    seen = set()
    for dst in (O1, O2, O3):
        for _ in range(30):
            t = Tcp("10.1.50.1", dst, dport=7100, open_it=False)
            need(in_slice(t.oport, 40960, 41023), "port %d is outside of the slice" % t.oport)
            need((t.oport, dst) not in seen, "two flows have the outer tuple %d to %s" % (t.oport, dst))
            seen.add((t.oport, dst))


@check("5382-2")
def every_valid_sequence():
    t = Tcp("10.1.10.1", O1)
    t.talks()
    # Half-close: the other half goes on.
    t.client(F | A)
    t.origin(A)
    for _ in range(3):
        t.origin(A | P, lab.tag())
        t.client(A)
    t.origin(F | A)
    t.client(A)
    # The other end closes first; then both at once.
    t = Tcp("10.1.10.1", O1)
    t.origin(F | A)
    t.client(A | P, lab.tag())
    t.client(F | A)
    t.origin(A)
    t = Tcp("10.1.10.1", O1)
    t.client(F | A)
    t.origin(F | A)
    t.client(A)
    t.origin(A)
    # Simultaneous open: SYNs cross.
    for src in ("10.1.10.1", "10.1.20.1"):
        t = Tcp(src, O2, open_it=False)
        t.origin(S)
        t.c -= 1
        t.client(S | A)
        t.o -= 1
        t.origin(S | A)
        t.client(A)
        t.talks()
    # The SYN is sent again, and an old segment's answer is a challenge, not an end.
    t = Tcp("10.1.10.1", O3, open_it=False)
    t.c -= 1
    t.client(S)
    t.origin(S | A)
    t.client(A)
    t.talks()


@check("5382-3")
def tcp_filtering():
    t = Tcp("10.1.10.1", O1)
    for src, sport in ((O1, 7001), (O2, 7000)):
        nothing(lab.back(t.from_origin(S | A, src=src, sport=sport)), "a segment from %s:%d" % (src, sport))
    t.talks()
    t = Tcp("10.1.20.1", O1)
    only(lab.back(t.from_origin(S, sport=7001)), "SYN from another port of a remote host (address-dependent filtering)")
    nothing(lab.back(t.from_origin(S, src=O2)), "SYN from another host (address-dependent filtering)")
    t.talks()


@check("5382-4")
def unsolicited_syn_is_not_answered():
    t = Tcp("10.1.10.1", O1)
    for dst, dport in ((OVER, 40960), (OVER, 42000), (t.outer, t.oport), (OVER, 80), (EIM[0], 41000)):
        c, o = lab.exchange(back=[IP(src=O2, dst=dst) / TCP(sport=4000 + n, dport=dport, flags=S, seq=7) for n in range(3)])
        nothing(c, "an unsolicited SYN to port %d at the client" % dport)
        nothing(o, "an answer to an unsolicited SYN to port %d" % dport)
    # The client's own SYN to that place passes, though that one came first.
    m = Tcp("10.1.20.1", O1)
    nothing(lab.back(m.from_origin(S, src=O3, sport=9000)), "SYN from a host that the client has not spoken to")
    other = Tcp("10.1.20.1", O3, sport=m.sport, dport=9000)
    need(other.oport == m.oport, "the mapping changed")
    other.talks()
    t.talks()


@check("5382-8")
def tcp_and_errors_between_clients():
    a, b = Tcp("10.1.20.1", O1, open_it=False), Tcp("10.1.20.2", O1, open_it=False)

    def across(me, to, flags, seq, ack=0):
        p = IP(src=me.src, dst=to.outer, flags="DF") / TCP(sport=me.sport, dport=to.oport, flags=flags, seq=seq, ack=ack)
        got = [q for q in lab.exchange(out=[p])[0] if TCP in q and q[TCP].seq == seq]
        for q in got:
            need((q.src, q[TCP].sport) == (me.outer, me.oport), "it came from %s:%d, not the outer end" % (q.src, q[TCP].sport))
            need((q.dst, q[TCP].dport) == (to.src, to.sport) and sums_right(q), "it went to %s:%d" % (q.dst, q[TCP].dport))
        return got

    across(a, b, S, 1000)  # opens a's filter, and b's may still drop it
    only(across(b, a, S, 2000), "SYN between clients")
    only(across(a, b, S | A, 1000, 2001), "SYN-ACK between clients")
    only(across(b, a, A, 2001, 1001), "ACK between clients")
    # RFC 5508 REQ-7: an error of one client about a packet of the other.
    fa, fb, got = hairpin_udp("10.1.20.3", "10.1.20.4")
    e = IP(src=got.dst, dst=got.src) / ICMP(type=3, code=3) / Raw(quote(got))
    came = [p for p in lab.exchange(out=[e])[0] if ICMP in p]
    e = only(came, "error between clients")
    check_error_in(fa.src, fa.sport, e, e)
    need(e.src == fb.outer, "the error comes from %s" % e.src)


# ---------------------------------------------------------------------------------------------- RFC 5508


@check("5508-1")
def queries_pass():
    ident = port()
    outs = [only(lab.out(echo("10.1.20.1", dst, ident)), "echo to %s" % dst) for dst in (O1, O2)]
    need(all(p.src in EIM and in_slice(p[ICMP].id) for p in outs), "source or id is not of the slice: %s" % outs[0].summary())
    need(outs[0][ICMP].id == outs[1][ICMP].id, "the id depends on the remote host")
    for p, dst in zip(outs, (O1, O2)):
        reply = IP(src=dst, dst=p.src) / ICMP(type=0, id=p[ICMP].id, seq=1) / p[Raw]
        got = only(lab.back(reply), "reply from %s" % dst)
        need((got.dst, got[ICMP].id) == ("10.1.20.1", ident) and sums_right(got), "the reply went to %s, id %d" % (got.dst, got[ICMP].id))
    nothing(lab.back(IP(src=O3, dst=outs[0].src) / ICMP(type=0, id=outs[0][ICMP].id, seq=1)), "a reply of a host that was not asked")
    nothing(lab.back(IP(src=O1, dst=outs[0].src) / ICMP(type=8, id=outs[0][ICMP].id, seq=1)), "a request from outside")


def flow_packets(u, t, e):
    """As a router outside sees them: a datagram, a segment, an echo. For errors."""
    return (IP(src=u.outer, dst=u.dst, ttl=5) / UDP(sport=u.oport, dport=u.dport) / Raw(b"datagram"),
            IP(src=t.outer, dst=t.dst, ttl=5) / TCP(sport=t.oport, dport=t.dport, seq=t.c, ack=t.o, flags=A) / Raw(b"segment"),
            IP(src=e.src, dst=O1, ttl=5) / ICMP(type=8, id=e[ICMP].id, seq=1) / Raw(b"echo"))


def one_flow_each():
    u, t, ident = Udp("10.1.20.1", O1, outer=EIM), Tcp("10.1.10.1", O1), port()
    e = only(lab.out(echo("10.1.20.1", O1, ident)), "echo")
    return u, t, e, (("10.1.20.1", u.sport, "udp"), (t.src, t.sport, "tcp"), ("10.1.20.1", ident, "icmp"))


@check("5508-3")
def sums_of_errors():
    u, t, e, inner = one_flow_each()
    for p, (src, sport, l4) in zip(flow_packets(u, t, e), inner):
        good = error(p, 11, 0)
        check_error_in(src, sport, good, only(lab.back(good), "error about %s" % l4), l4)
        bad = IP(bytes(good))
        bad[ICMP].chksum ^= 0x0101
        nothing(lab.back(bad), "error about %s whose ICMP checksum is wrong" % l4)
        q = bytearray(quote(p))
        q[10] ^= 0x55
        nothing(lab.back(IP(src=ROUTER, dst=p.src) / ICMP(type=11, code=0) / Raw(bytes(q))), "error about %s that quotes a header "
                "with a wrong checksum" % l4)
        # IP options in the quote, and a transport checksum that is wrong: neither is a reason to drop.
        opts = IP(bytes(IP(src=p.src, dst=p.dst, proto=p.proto, options=[IPOption(b"\x94\x04\x00\x00")]) / p.payload))
        need(opts.ihl > 5, "no options")
        check_error_in(src, sport, good, only(lab.back(error(opts, 11, 0)), "error about %s with IP options" % l4), l4)
        wrong = IP(bytes(p))
        if l4 == "udp":
            wrong[UDP].chksum ^= 0x1234
        elif l4 == "tcp":
            wrong[TCP].chksum ^= 0x1234
        else:
            wrong[ICMP].chksum ^= 0x1234
        check_error_in(src, sport, good, only(lab.back(error(wrong, 11, 0, size=28)), "error about %s that quotes a wrong sum" % l4), l4)
        # RFC 4884: the quote is padded to 128 bytes and followed by an extension.
        ext = bytes(quote(p, 28)).ljust(128, b"\0") + bytes.fromhex("20 00 00 00 00 08 01 01 00 01 01 01".replace(" ", ""))
        long = IP(src=ROUTER, dst=p.src) / ICMP(type=11, code=0) / Raw(ext)
        check_error_in(src, sport, good, only(lab.back(long), "error about %s with an extension" % l4), l4)


@check("5508-4")
def errors_from_outside():
    u, t, e, inner = one_flow_each()
    for p, (src, sport, l4) in zip(flow_packets(u, t, e), inner):
        for kind, code in ((3, 1), (3, 4), (3, 13), (11, 0), (11, 1), (12, 0)):
            for size in (8, 20):
                sent = error(p, kind, code, size=size, unused=1400 if code == 4 else 0)
                got = only(lab.back(sent), "error %d/%d about %s" % (kind, code, l4))
                check_error_in(src, sport, sent, got, l4)
                need(got.src == ROUTER, "the error comes from %s" % got.src)
                need(bytes(got[ICMP])[4:8] == bytes(sent[ICMP])[4:8], "the error's second word (the MTU) changed")
    # No such mapping.
    free = IP(src=OVER, dst=O2) / UDP(sport=42999, dport=9) / Raw(b"none")
    c, o = lab.exchange(back=[error(free, 3, 3)])
    nothing(c, "error about a flow that is not there")
    nothing(o, "an answer to an error")
    # A quote that is too short to tell.
    nothing(lab.back(error(flow_packets(u, t, e)[0], 3, 3, size=2)), "error with two bytes of a transport header")


@check("5508-5")
def errors_from_inside():
    u = Udp("10.1.20.1", O1, outer=EIM)
    got = u.receives()
    for src, code in (("10.1.20.1", 3), ("10.1.20.77", 1), ("10.1.99.9", 1)):
        sent = IP(src=src, dst=O1) / ICMP(type=3, code=code) / Raw(quote(got))
        e = only(lab.out(sent), "error of %s" % src)
        need(e.src == u.outer, "an error of %s leaves as %s, not %s" % (src, e.src, u.outer))
        need((e[ICMP].type, e[ICMP].code) == (3, code), "type or code changed")
        q = error_quote(e)
        need((socket.inet_ntoa(q[16:20]), struct.unpack("!H", q[22:24])[0]) == (u.outer, u.oport), "the quote speaks of %s:%d" % (
            socket.inet_ntoa(q[16:20]), struct.unpack("!H", q[22:24])[0]))
        need(ip_sum_right(q) and sums_right(e), "a checksum is wrong")
    free = IP(src=O1, dst="10.1.20.1") / UDP(sport=7000, dport=port()) / Raw(b"nothing")
    nothing(lab.out(IP(src="10.1.20.1", dst=O1) / ICMP(type=3, code=3) / Raw(quote(free))), "error about a flow that is not there")
    u.lives()


# ---------------------------------------------------------------------------------------------- RFC 6888


def refused(packet, what):
    """A packet that may begin no flow: it is dropped, and its sender is told so. (The daemon answers: it may take a moment.)"""
    c, o = lab.exchange(out=[packet])
    nothing(o, what)
    return told(packet, what)


def told(packet, what):
    src = socket.inet_aton(packet.src)
    data = lab.wait(lab.client, lambda d: d[0] >> 4 == 4 and d[9] == 1 and d[20] == 3 and d[16:20] == src and
                    quote(packet)[20:24] in d)
    need(data, "%s: the client is not told" % what)
    e = parsed(data)
    need(e[ICMP].code == 13, "%s: the client is told 3/%d" % (what, e[ICMP].code))
    need(sums_right(e) and error_quote(e)[12:20] == bytes(packet)[12:20], "%s: what it is told is not about its packet" % what)


@check("5508-8")
def a_full_pool_refuses():
    flows = []
    for _ in range(64):
        try:
            flows.append(Udp("10.1.50.%d" % (1 + len(flows) % 8), O1, dport=7300, outer=[TINY]))
        except Failed:
            break
    need(len(flows) == 64, "only %d of 64 ports served a flow to one place" % len(flows))
    need(len({f.oport for f in flows}) == 64, "flows share a port towards one place")
    refused(IP(src="10.1.50.1", dst=O1) / UDP(sport=port(), dport=7300) / Raw(lab.tag()), "flow 65 of 64")
    for f in flows:
        f.lives()
    Udp("10.1.50.1", O2, dport=7300)  # there are ports towards another place


@check("6888-3")
def addresses_that_are_apart():
    seen = {Udp("10.1.20.%d" % n, O1, outer=EIM).outer for n in range(100, 140)}
    need(seen == set(EIM), "40 clients left from %s" % sorted(seen))


@check("6888-4")
def ports_and_rates_of_a_client():
    mine = [Udp("10.1.40.1", O1, outer=[PORTS]) for _ in range(4)]
    refused(IP(src="10.1.40.1", dst=O1) / UDP(sport=port(), dport=7000) / Raw(lab.tag()), "port 5 of 4")
    Udp("10.1.40.1", O2, sport=mine[0].sport, outer=[PORTS])  # a mapping that is there takes no other port
    Udp("10.1.40.2", O1, outer=[PORTS])
    Tcp("10.1.40.1", O1)  # another protocol has a limit of its own
    for f in mine:
        f.lives()
    [Udp("10.1.41.1", O1, outer=[RATE]) for _ in range(3)]
    burst = [IP(src="10.1.41.1", dst=O1) / UDP(sport=port(), dport=7000) / Raw(lab.tag()) for _ in range(20)]
    came = lab.exchange(out=burst)[1]
    need(len(came) < 4, "of 20 flows beyond 3 at once and 1 a second %d passed" % len(came))
    told(burst[-1], "flows that begin too fast")
    Udp("10.1.41.2", O1, outer=[RATE])


@check("6888-5")
def states_of_a_client():
    mine = [Udp("10.1.42.1", O1, outer=[STATES]) for _ in range(3)] + [Tcp("10.1.42.1", O1) for _ in range(2)]
    refused(IP(src="10.1.42.1", dst=O1) / UDP(sport=port(), dport=7000) / Raw(lab.tag()), "flow 6 of 5")
    Udp("10.1.42.2", O1, outer=[STATES])
    mine[0].lives()


@check("6888-6")
def destinations_that_are_left_alone():
    Udp("10.1.10.1", O1, outer=[OVER])
    for p in (IP(src="10.1.10.1", dst=NO_NAT) / UDP(sport=port(), dport=7000) / Raw(lab.tag()), echo("10.1.10.1", NO_NAT, port())):
        sent = IP(bytes(p))
        got = only(lab.out(p), "packet to a place without NAT")
        need(bytes(got)[12:] == bytes(sent)[12:], "it was changed: %s" % got.summary())


@check("6888-12")
def destinations_are_not_logged():
    state = os.environ.get("LAB_STATE", "/run/sluice-lab")
    logs = {os.path.join(state, "sluiced-edge1." + end): 0 for end in ("out", "err")}
    # What it said of flows that it refused, in other checks, is for the administrator.
    logs = {name: os.path.getsize(name) for name in logs if os.path.isfile(name)}
    f = Udp("10.1.20.1", O1, outer=EIM)
    Tcp("10.1.10.1", O1).talks()
    f.lives()
    files = [os.path.join(top, name) for top, _, names in os.walk(os.path.join(state, "edge1", "state")) for name in names]
    need(files and logs, "no state and no log is there to be read")
    for name in files + list(logs):
        with open(name, "rb") as fd:
            fd.seek(logs.get(name, 0))
            data = fd.read()
        for where in (O1.encode(), socket.inet_aton(O1)):
            need(where not in data, "%s knows of %s" % (name, O1))


def looks_random(numbers):
    """Neither sorted nor in steps: of n numbers in a row, few are next to the one before."""
    steps = [b - a for a, b in zip(numbers, numbers[1:])]
    need(len(set(steps)) > len(steps) * 3 // 4, "ports go in steps: %s" % numbers[:10])
    need(sum(abs(s) <= 8 for s in steps) < len(steps) // 4, "ports are beside each other: %s" % numbers[:10])
    need(len(steps) // 5 < sum(s > 0 for s in steps) < len(steps) * 4 // 5, "ports go one way: %s" % numbers[:10])


@check("6888-13")
def ports_are_used_fully_and_cannot_be_guessed():
    looks_random([Udp("10.1.20.1", O1, outer=EIM).oport for _ in range(40)])
    looks_random([Tcp("10.1.10.1", O1, open_it=False).oport for _ in range(40)])


# ---------------------------------------------------------------------------------------------- the others


@check("6191")
def time_wait_is_reused():
    t = Tcp("10.1.10.1", O1)
    t.client(F | A)
    t.origin(F | A)
    t.client(A)
    again = Tcp("10.1.10.1", O1, sport=t.sport, isn=(t.c + 100000) % 2**32)
    again.talks()


@check("6864")
def identifications_are_unique():
    flows = [Udp("10.1.10.%d" % n, O1, dport=7400, outer=[OVER]) for n in (1, 2, 3)]
    ids = [f.send(id=77).id for _ in range(20) for f in flows]
    need(len(set(ids)) == len(ids), "an identification came twice among %d datagrams to one place" % len(ids))
    need(len({i >> 11 for i in ids}) == 1, "the identifications are not of this slice's part: %s" % ids[:6])
    # An atomic datagram needs none.
    flows[0].send(id=0, flags="DF")
    # Fragments of two clients with one identification.
    bodies = [lab.tag() * 300 for _ in range(2)]
    wholes = [pieces(built(f.packet(b)), 1024) for f, b in zip(flows, bodies)]
    for w in wholes:
        for p in w:
            p.id = 4321
    o = lab.exchange(out=[p for pair in zip(*wholes) for p in pair])[1]
    ids = {p.id for p in o}
    need(len(ids) == 2, "two clients' datagrams in fragments, both numbered 4321, leave with the numbers %s" % sorted(ids))
    need(sorted(payload_of(joined([p for p in o if p.id == i], "datagram %d" % i)) for i in ids) == sorted(bodies), "mixed up")
    # The other way that a pool may choose.
    got = Udp("10.1.60.1", O1, outer=[SETDF]).send(id=77)
    need(got.flags.DF, "set-df does not set DF")


@check("7597")
def only_the_set_leaves():
    Udp("10.1.10.1", O1, outer=[OVER])

    def send_from(sport):
        tag = lab.tag()

        def send():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND
                s.bind((OVER, sport))
                s.sendto(tag, (O1, 7000))

        for tap in lab.taps:
            tap.drain()
        lab.origin.seen = []
        wire.in_namespace("edge1", send)
        lab.markers()
        lab.origin.drain()
        return [parsed(d) for d in lab.origin.seen if tag in d]

    only(send_from(42500), "a datagram of a socket from a port of the slice")
    for sport in (1024, 30000, 40959, 43008, 65535):
        nothing(send_from(sport), "a datagram of a socket from port %d" % sport)
    for ident in (0, 1, 40959, 43008, 65535):
        p = only(lab.out(echo("10.1.20.1", O1, ident)), "echo with id %d" % ident)
        need(in_slice(p[ICMP].id), "id %d leaves as %d" % (ident, p[ICMP].id))


@check("8200")
def ipv6_is_translated():
    def out(p):
        return only(lab.out(p), "IPv6 packet")

    def udp(sport, **more):
        return IPv6(src=C6, dst=O6, **more) / UDP(sport=sport, dport=7000) / Raw(lab.tag())

    sport = port()
    got = out(udp(sport, tc=0xb9, fl=0x12345))
    need(got.src == OUT6 and in_slice(got[UDP].sport) and sums_right(got), "UDP is not translated: %s" % got.summary())
    need((got.tc, got.fl) == (0xb9, 0x12345), "traffic class or flow label changed")
    oport = got[UDP].sport
    need(out(IPv6(src=C6, dst=O6B) / UDP(sport=sport, dport=9) / Raw(lab.tag()))[UDP].sport == oport, "the mapping depends on the remote")
    back = only(lab.back(IPv6(src=O6, dst=OUT6) / UDP(sport=7000, dport=oport) / Raw(lab.tag())), "answer by IPv6")
    need((back.dst, back[UDP].dport) == (C6, sport) and sums_right(back), "the answer went to %s:%d" % (back.dst, back[UDP].dport))
    # Extension headers, TCP, echo.
    got = out(IPv6(src=C6, dst=O6) / IPv6ExtHdrDestOpt() / UDP(sport=sport, dport=7000) / Raw(lab.tag()))
    need((got.src, got[UDP].sport) == (OUT6, oport) and sums_right(got), "a datagram with destination options is not translated")
    tport = port()
    got = out(IPv6(src=C6, dst=O6) / TCP(sport=tport, dport=7000, flags=S, seq=5))
    need(got.src == OUT6 and in_slice(got[TCP].sport) and sums_right(got), "TCP is not translated")
    back = only(lab.back(IPv6(src=O6, dst=OUT6) / TCP(sport=7000, dport=got[TCP].sport, flags=S | A, seq=9, ack=6)), "SYN-ACK by IPv6")
    need((back.dst, back[TCP].dport) == (C6, tport) and sums_right(back), "the SYN-ACK went elsewhere")
    got = out(IPv6(src=C6, dst=O6) / ICMPv6EchoRequest(id=7, seq=1, data=lab.tag()))
    need(got.src == OUT6 and in_slice(got[ICMPv6EchoRequest].id) and sums_right(got), "echo is not translated")
    back = only(lab.back(IPv6(src=O6, dst=OUT6) / ICMPv6EchoReply(id=got[ICMPv6EchoRequest].id, seq=1)), "reply by IPv6")
    need((back.dst, back[ICMPv6EchoReply].id) == (C6, 7) and sums_right(back), "the reply went elsewhere")
    # 1280 bytes pass as they are; a datagram in fragments; Packet Too Big comes through, and speaks of what the client sent.
    big = IPv6(src=C6, dst=O6) / UDP(sport=sport, dport=7000) / Raw(b"k" * 1232)
    got = out(big)
    need(len(bytes(got)) == 1280 and got[UDP].sport == oport, "a packet of 1280 bytes does not pass")
    ptb = IPv6(src="2001:db8:3::77", dst=OUT6) / ICMPv6PacketTooBig(mtu=1280) / Raw(bytes(got)[:400])
    e = only(lab.back(ptb), "Packet Too Big")
    need(e.dst == C6 and e[ICMPv6PacketTooBig].mtu == 1280 and sums_right(e), "Packet Too Big went to %s" % e.dst)
    q = bytes(e[ICMPv6PacketTooBig])[8:]
    need(q[8:24] == socket.inet_pton(socket.AF_INET6, C6) and struct.unpack("!H", q[40:42])[0] == sport, "it quotes the outer end")


@check("8200-frag")
def ipv6_fragments():
    sport = port()
    first = only(lab.out(IPv6(src=C6, dst=O6) / UDP(sport=sport, dport=7000) / Raw(lab.tag())), "IPv6 datagram")
    need(first.src == OUT6, "not translated")
    body = lab.tag() * 250
    whole = bytes(IPv6(bytes(IPv6(src=C6, dst=O6) / UDP(sport=sport, dport=7000) / Raw(body))).payload)
    for order in ((0, 1), (1, 0)):
        parts = [IPv6(src=C6, dst=O6) / IPv6ExtHdrFragment(nh=17, id=991 + order[0], offset=0, m=1) / Raw(whole[:1024]),
                 IPv6(src=C6, dst=O6) / IPv6ExtHdrFragment(nh=17, id=991 + order[0], offset=128, m=0) / Raw(whole[1024:])]
        o = lab.exchange(out=[parts[n] for n in order])[1]
        need(len(o) == 2, "order %s: of two fragments %d came" % (order, len(o)))
        need(all(p.src == OUT6 for p in o) and len({p[IPv6ExtHdrFragment].id for p in o}) == 1, "the fragments do not belong together")
        data = b"".join(bytes(p[IPv6ExtHdrFragment].payload) for p in sorted(o, key=lambda p: p[IPv6ExtHdrFragment].offset))
        q = IPv6(bytes(IPv6(src=OUT6, dst=O6, nh=17, plen=len(data)) / Raw(data)))
        need(q[UDP].sport == first[UDP].sport and sums_right(q) and payload_of(q) == body, "another datagram")


@check("sums")
def corrupt_stays_corrupt():
    u, t = Udp("10.1.20.1", O1, outer=EIM), Tcp("10.1.10.1", O1)
    for good in (u.packet(), t.from_client(A | P, lab.tag()), echo("10.1.20.1", O1, port())):
        bad = IP(bytes(good))
        layer = bad.payload
        layer.chksum ^= 0x4321
        for p in lab.out(bad):
            need(not sums_right(p), "a wrong checksum became right: %s" % p.summary())
    for good in (u.answer(), t.from_origin(A | P, lab.tag())):
        bad = IP(bytes(good))
        bad.payload.chksum ^= 0x4321
        for p in lab.back(bad):
            need(not sums_right(p), "a wrong checksum became right: %s" % p.summary())
    bad = u.packet()
    bad[UDP].chksum = 0
    need(only(lab.out(bad), "UDP without checksum")[UDP].chksum == 0, "a datagram without checksum got one")
    u.lives()


@check("tos")
def dscp_and_ecn_are_left_alone():
    for tos in range(0, 256, 5):
        u = Udp("10.1.20.1", O1, sport=9000, outer=EIM, tos=tos)
        need(u.send(tos=tos).tos == tos and u.receives(tos=tos).tos == tos, "tos %#x changed" % tos)


def run(name):
    try:
        CHECKS[name]()
    except Failed as e:
        return str(e)
    except Exception as e:  # a check that does not understand what it sees has failed
        traceback.print_exc()
        return "the check itself failed: %r" % e
    return None


def main(args):
    global lab
    if args == ["--list"]:
        print("\n".join(CHECKS))
        return 0
    lab = Lab()
    failed = False
    for name in args or CHECKS:
        if name not in CHECKS:
            why = "there is no such check"
        else:
            why = run(name)
        failed = failed or why is not None
        print("ok %s" % name if why is None else "not ok %s: %s" % (name, why), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
