# SPDX-License-Identifier: BSD-2-Clause
"""Crafted packets into the lab's namespaces, and what comes out: for checks.py and differ.py.

The process has packet sockets on links of several namespaces: the client's and the origin's. It plays hosts that no kernel knows
(10.1.10.1, 198.51.100.201, ...; lib.sh enters their neighbours), so nothing answers but what is under test.

Nothing here waits for a fixed time. An exchange ends with a marker in each direction: a datagram of a flow of its own that is known
to pass. Packets do not overtake each other on these links (the process keeps to one CPU), so what has not come before the marker
does not come.
"""
import ctypes
import fcntl
import logging
import os
import select
import socket
import struct
import time

logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.all import (  # noqa: E402
    ICMP, IP, TCP, UDP, Ether, IPOption, IPv6, Raw, conf)
from scapy.layers.inet6 import (  # noqa: E402
    ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment)

conf.verb = 0
CLONE_NEWNET = 0x40000000
PACKET_OUTGOING = 4
SIOCGIFHWADDR = 0x8927
libc = ctypes.CDLL(None, use_errno=True)

MARKER_CLIENT = "10.1.10.250"
MARKER_ORIGIN = "198.51.100.250"
MARK = b"marker-"


def in_namespace(host, fn):
    """Run fn() in the network namespace of a host of the lab."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open("/run/netns/slab-" + host, os.O_RDONLY)
    try:
        if libc.setns(there, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            return fn()
        finally:
            if libc.setns(home, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(home)
        os.close(there)


def mac_of(host, dev):
    def ask():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            return fcntl.ioctl(s, SIOCGIFHWADDR, struct.pack("256s", dev.encode()))[18:24]

    return ":".join("%02x" % b for b in in_namespace(host, ask))


class Tap:
    """A packet socket on one link, and the Ethernet addresses to send with."""

    def __init__(self, host, dev, peer_host, peer_dev):
        self.host = host
        self.mac, self.peer = mac_of(host, dev), mac_of(peer_host, peer_dev)

        def make():
            s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
            s.bind((dev, 3))
            return s

        self.sock = in_namespace(host, make)
        self.sock.setblocking(False)
        self.seen = []

    def send(self, packet):
        """Send an IP packet (scapy's, or bytes)."""
        data = bytes(packet)
        kind = 0x86dd if data[0] >> 4 == 6 else 0x0800
        self.sock.send(bytes(Ether(src=self.mac, dst=self.peer, type=kind)) + data)

    def drain(self):
        """Take in what has come: the IP packets only, as bytes without Ethernet's padding."""
        while True:
            try:
                data, addr = self.sock.recvfrom(65536)
            except BlockingIOError:
                return
            if addr[2] == PACKET_OUTGOING:
                continue
            if data[12:14] == b"\x08\x00":
                self.seen.append(data[14:14 + struct.unpack("!H", data[16:18])[0]])
            elif data[12:14] == b"\x86\xdd" and not self.neighbours(data):
                self.seen.append(data[14:54 + struct.unpack("!H", data[18:20])[0]])

    @staticmethod
    def neighbours(data):
        """Neighbour and multicast listener discovery: the links' own talk."""
        nxt, at = data[20], 54
        if nxt == 0:
            nxt, at = data[54], 54 + 8 * (data[55] + 1)
        return nxt == 58 and len(data) > at and data[at] in (130, 131, 132, 133, 134, 135, 136, 143)


def parsed(data):
    """Bytes as scapy's packet; it never fails."""
    try:
        return (IPv6 if data[0] >> 4 == 6 else IP)(data)
    except Exception:  # scapy's dissectors may raise anything on what we send broken
        return Raw(data)


class Failed(Exception):
    """What the requirement asks for was not seen."""


def need(condition, text):
    if not condition:
        raise Failed(text)


class Lab:
    def __init__(self):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        self.client = Tap("client", "net", "edge1", "lan")
        self.origin = Tap("origin", "net", "gw", "origin")
        self.taps = [self.client, self.origin]
        self.count = int.from_bytes(os.urandom(4), "big")
        self.outer = None

    def tag(self):
        """Eight bytes that no other packet has."""
        self.count += 1
        return b"T" + struct.pack("!Q", (self.count * 0x9e3779b97f4a7c15) & (2 ** 64 - 1))[:7]

    def wait(self, tap, wanted, seconds=2.0):
        """The first packet at a tap that wanted() says yes to, as bytes, or None after so many seconds."""
        end = time.monotonic() + seconds
        at = 0
        while True:
            tap.drain()
            for data in tap.seen[at:]:
                if wanted(data):
                    return data
            at = len(tap.seen)
            left = end - time.monotonic()
            if left <= 0:
                return None
            select.select([tap.sock], [], [], left)

    def mark(self, here, there, packet, text):
        """Send a marker and see it arrive. Returns it."""
        tag = MARK + self.tag()
        here.send(packet / Raw(tag))
        data = self.wait(there, lambda d: tag in d)
        need(data, text)
        there.seen = [d for d in there.seen if MARK not in d]
        return parsed(data)

    def markers(self):
        """A marker out and one back: everything that was sent before has come, or does not come."""
        m = self.mark(self.client, self.origin, IP(src=MARKER_CLIENT, dst=MARKER_ORIGIN) / UDP(sport=5000, dport=5000),
                      "control: a plain datagram does not come out")
        self.outer = (m[IP].src, m[UDP].sport)
        self.mark(self.origin, self.client, IP(src=MARKER_ORIGIN, dst=m[IP].src) / UDP(sport=5000, dport=m[UDP].sport),
                  "control: the answer to a plain datagram does not come in")

    def exchange(self, out=(), back=()):
        """Send packets from the client, then packets from the origin. Returns what was seen at the client and at the origin, parsed."""
        for tap in self.taps:
            tap.drain()
            tap.seen = []
        for p in out:
            self.client.send(p)
        for p in back:
            self.origin.send(p)
        self.markers()
        for tap in self.taps:
            tap.drain()
        return ([parsed(d) for d in self.client.seen if MARK not in d], [parsed(d) for d in self.origin.seen if MARK not in d])

    def out(self, packet):
        """Send from the client; what comes out at the origin."""
        return self.exchange(out=[packet])[1]

    def back(self, packet):
        """Send from the origin; what comes in at the client."""
        return self.exchange(back=[packet])[0]


def only(packets, what):
    """The only packet of a list."""
    need(len(packets) == 1, "%s: %d packets came, not 1%s" % (
        what, len(packets), "".join("; " + p.summary() for p in packets[:3])))
    return packets[0]


def nothing(packets, what):
    need(not packets, "%s: %s came" % (what, "; ".join(p.summary() for p in packets[:3])))


def ones_sum(data):
    """The Internet checksum's sum over bytes: 0xffff when a checksum that is among them is right."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total


def ip_sum_right(data):
    """Is the checksum of an IPv4 header in bytes right?"""
    return ones_sum(data[:(data[0] & 15) * 4]) == 0xffff


def transport(data):
    """Protocol and offset of the transport header of a packet in bytes."""
    if data[0] >> 4 == 4:
        return data[9], (data[0] & 15) * 4
    proto, at = data[6], 40
    while proto in (0, 60):
        proto, at = data[at], at + 8 * (data[at + 1] + 1)
    return proto, at


def sums_right(p):
    """Are the checksums of a whole datagram right? A zero one of UDP in IPv4 is. What an ICMP error quotes is not looked at."""
    data = bytes(p)
    proto, at = transport(data)
    body = data[at:]
    if data[0] >> 4 == 4:
        if not ip_sum_right(data):
            return False
        pseudo = data[12:20] + struct.pack("!HH", proto, len(body))
        if proto == 17 and body[6:8] == b"\0\0":
            return True
        if proto == 1:
            pseudo = b""
    else:
        pseudo = data[8:40] + struct.pack("!II", len(body), proto)
        if proto == 17 and body[6:8] == b"\0\0":
            return False
    return ones_sum(pseudo + body) == 0xffff


def payload_of(p):
    """What follows the transport header, whatever scapy takes it for."""
    proto, at = transport(bytes(p))
    data = bytes(p)[at:]
    return data[(data[12] >> 4) * 4 if proto == 6 else 8:]


__all__ = ["in_namespace", "transport", "ICMP", "IP", "TCP", "UDP", "IPv6", "Raw", "ICMPv6DestUnreach", "ICMPv6EchoReply", "ICMPv6EchoRequest",
           "ICMPv6PacketTooBig", "IPv6ExtHdrDestOpt", "IPv6ExtHdrFragment", "Tap", "Failed", "Lab", "need", "only", "nothing",
           "sums_right", "ip_sum_right", "payload_of", "parsed", "IPOption"]
