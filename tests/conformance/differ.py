#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The same packets through sluice and through nftables' NAT: differ.py SECONDS [SEED]

A random sequence of steps (datagrams, handshakes and closes of TCP, echoes, ICMP errors, fragments, and packets that are broken in
many ways) is played in two worlds: by the client of edge1, where sluice translates, and by that of edge2, where nftables does. What the
client and the origin see after each step is compared, up to the names of outer addresses and ports, the order of packets, and the
identification of IPv4.

A difference must be one that KNOWN lists, with the reason; where the worlds have different ideas of the flow after it, that flow is left
alone. Anything else is a failure, and so is, in a run of a minute or more, an entry of KNOWN that nothing needed: it would hide what is
no more. The seed is printed; with it the same steps come again.
"""
import random
import sys
import time
import zlib

from wire import (
    ICMP, IP, TCP, UDP, Failed, Lab, Raw, Tap, parsed, payload_of, sums_right, transport)

OUTER = {"sluice": "203.0.113.7", "nftables": "203.0.113.27"}
CLIENTS = ["10.1.10.%d" % n for n in range(1, 5)]
ORIGINS = ["198.51.100.%d" % n for n in (201, 202, 203)]
ROUTER, INNER_ROUTER = "198.51.100.77", "10.1.10.77"
F, S, R, P, A = 1, 2, 4, 8, 16


def short(data):
    """Bytes so that they can be compared and read: the beginning, the length, and a sum over all."""
    return "%r+%d:%08x" % (data[:13], len(data), zlib.crc32(data))


class World:
    def __init__(self, name):
        self.name, self.outer = name, OUTER[name]
        self.lab = Lab()
        if name == "nftables":
            self.lab.client = Tap("client", "net3", "edge2", "lan")
            self.lab.taps = [self.lab.client, self.lab.origin]
        self.ports = {}  # (protocol, outer port, remote, its port) -> (client, port)
        self.ends = {}   # flow number -> outer port

    def rename(self, proto, number, remote, rport):
        """An outer port by the name of who has it."""
        return "%s:%d" % self.ports.get((proto, number, remote, 0 if proto == 1 else rport), ("nobody", 0))

    def ends_of(self, data):
        proto, at = transport(data)
        body = data[at:]
        if proto in (6, 17) and len(body) >= 4:
            return proto, int.from_bytes(body[0:2], "big"), int.from_bytes(body[2:4], "big")
        if proto == 1 and len(body) >= 8 and body[0] in (0, 8):
            number = int.from_bytes(body[4:6], "big")
            return (1, number, 0) if body[0] == 8 else (1, 0, number)
        return proto, None, None

    def learn(self, flow, data):
        """A packet of a flow came out: that is its outer end."""
        proto, sport, _ = self.ends_of(data)
        if parsed(data).src == self.outer and sport is not None:
            self.ports[proto, sport, flow.dst, 0 if proto == 1 else flow.dport] = (flow.src, flow.sport)
            self.ends[flow.number] = sport

    def form(self, data, quoted=False):
        """A packet as something that can be compared."""
        p = parsed(data)
        proto, sport, dport = self.ends_of(data)
        src, dst = p.src, p.dst
        if src == self.outer:
            src, sport = "OUTER", None if sport is None else self.rename(proto, sport, dst, dport)
        if dst == self.outer:
            dst, dport = "OUTER", None if dport is None else self.rename(proto, dport, src, sport)
        head = (proto, src, sport, dst, dport)
        if quoted:
            # Its checksums and what follows the ports are as somebody else sent them.
            return head
        _, at = transport(data)
        tail = (p.ttl, p.tos, bool(p.flags.DF), sums_right(p) if not (p.flags.MF or p.frag) else None)
        if proto == 1 and data[at] not in (0, 8):
            return head + tail + (data[at], data[at + 1], self.form(data[at + 8:], True))
        if proto == 6:
            return head + tail + (int(p[TCP].flags), p[TCP].seq, p[TCP].ack, short(payload_of(p))) if TCP in p else head + tail
        return head + tail + (short(payload_of(p) if proto in (1, 17) else data[at:]),)

    def whole(self, packets):
        """Packets with fragments put together where all are there."""
        out, groups = [], {}
        for p in packets:
            if p.flags.MF or p.frag:
                groups.setdefault((p.src, p.dst, p.proto, p.id), {})[p.frag] = p
            else:
                out.append(bytes(p))
        for parts in groups.values():
            data, last = b"", max(parts.values(), key=lambda p: p.frag)
            while len(data) // 8 in parts and len(bytes(parts[len(data) // 8].payload)):
                data += bytes(parts[len(data) // 8].payload)
                if len(data) % 8:
                    break
            if last.flags.MF or last.frag * 8 + len(bytes(last.payload)) != len(data):
                out.append(None)
                continue
            q = IP(bytes(last)[:20])
            q.flags, q.frag, q.ttl = 0, 0, min(p.ttl for p in parts.values())
            del q.len, q.chksum
            out.append(bytes(q / Raw(data)))
        return out

    def play(self, flow, out, back):
        """Send, and say what was seen: a sorted list of (where, form)."""
        c, o = self.lab.exchange(out, back)
        seen = []
        for where, packets in (("client", c), ("origin", o)):
            for data in self.whole([p for p in packets if IP in p]):
                if data is None:
                    seen.append((where, "a part of a datagram"))
                    continue
                if where == "origin" and flow:
                    self.learn(flow, data)
                seen.append((where, self.form(data)))
        return sorted(seen, key=repr)


class Flow:
    count = 0
    port = 10000

    def __init__(self, rng, proto):
        Flow.count += 1
        Flow.port += 1
        self.number, self.proto, self.sport = Flow.count, proto, Flow.port
        self.src, self.dst = rng.choice(CLIENTS), rng.choice(ORIGINS)
        self.dport = rng.choice((7000, 7001, 80, 443)) if proto != "icmp" else 0
        self.c, self.o = rng.randrange(1 << 20, 1 << 30), rng.randrange(1 << 20, 1 << 30)
        self.state = "new"
        self.fins = set()
        self.dead = False
        self.steps = 0


class Step:
    """What is sent in both worlds. Functions, as the outer port is each world's own."""

    def __init__(self, label, flow, out=(), back=()):
        self.label, self.flow, self.out, self.back = label, flow, out, back


class Script:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.flows = []
        self.serial = 0

    def body(self, size=None):
        self.serial += 1
        head = b"step-%08d" % self.serial
        return head + b"." * ((size or self.rng.choice((0, 1, 7, 40, 500))))

    # Packets of a flow.

    def udp_out(self, f, size=None, **ip):
        return IP(src=f.src, dst=f.dst, **ip) / UDP(sport=f.sport, dport=f.dport) / Raw(self.body(size))

    def udp_back(self, f, size=None, src=None, sport=None, **ip):
        body = self.body(size)
        return lambda w: (IP(src=src or f.dst, dst=w.outer, **ip) / UDP(sport=sport or f.dport, dport=w.ends.get(f.number, 40000)) / Raw(body))

    def seg_out(self, f, flags, body=b"", seq=None, **ip):
        return IP(src=f.src, dst=f.dst, flags="DF", **ip) / TCP(
            sport=f.sport, dport=f.dport, flags=flags, seq=f.c if seq is None else seq, ack=f.o if flags & A else 0, window=60000) / Raw(body)

    def seg_back(self, f, flags, body=b"", seq=None, src=None, sport=None):
        seq, ack = f.o if seq is None else seq, f.c if flags & A else 0
        return lambda w: IP(src=src or f.dst, dst=w.outer, flags="DF") / TCP(
            sport=sport or f.dport, dport=w.ends.get(f.number, 40000), flags=flags, seq=seq, ack=ack, window=60000) / Raw(body)

    def echo_out(self, f, kind=8, **ip):
        return IP(src=f.src, dst=f.dst, **ip) / ICMP(type=kind, id=f.sport, seq=self.rng.randrange(1, 9)) / Raw(self.body())

    def echo_back(self, f, src=None, kind=0):
        body, seq = self.body(), self.rng.randrange(1, 9)
        return lambda w: IP(src=src or f.dst, dst=w.outer) / ICMP(type=kind, id=w.ends.get(f.number, 40000), seq=seq) / Raw(body)

    def about(self, f, w):
        """A packet of the flow, as a router outside sees it."""
        end = w.ends.get(f.number, 40000)
        ip = IP(src=w.outer, dst=f.dst, ttl=3, id=5)
        if f.proto == "udp":
            return ip / UDP(sport=end, dport=f.dport) / Raw(b"12345678")
        if f.proto == "tcp":
            return ip / TCP(sport=end, dport=f.dport, seq=f.c, ack=f.o, flags=A)
        return ip / ICMP(type=8, id=end, seq=1) / Raw(b"12345678")

    def about_inside(self, f):
        """A packet to the flow's client, as the client sees it."""
        ip = IP(src=f.dst, dst=f.src, ttl=3, id=5)
        if f.proto == "udp":
            return ip / UDP(sport=f.dport, dport=f.sport) / Raw(b"12345678")
        return ip / TCP(sport=f.dport, dport=f.sport, seq=f.o, ack=f.c, flags=A)

    # Steps.

    def next(self):
        live = [f for f in self.flows if not f.dead]
        if len(live) < 6 or self.rng.random() < 0.12:
            return self.begin()
        f = self.rng.choice(live)
        f.steps += 1
        # Connections end by themselves; the others make room for new ones.
        f.dead = f.steps > 30 and f.proto != "tcp"
        kind = self.rng.random()
        if kind < 0.12:
            return self.error(f)
        if kind < 0.22:
            return self.broken(f)
        if kind < 0.27:
            return self.odd(f)
        return {"udp": self.udp, "tcp": self.tcp, "icmp": self.icmp}[f.proto](f)

    def begin(self):
        f = Flow(self.rng, self.rng.choice(("udp", "udp", "tcp", "tcp", "tcp", "icmp")))
        self.flows.append(f)
        if f.proto == "udp":
            return Step("udp-new", f, out=[self.udp_out(f, tos=self.rng.choice((0, 0xb8, 3)))])
        if f.proto == "icmp":
            return Step("echo-new", f, out=[self.echo_out(f)])
        p = self.seg_out(f, S)
        f.c += 1
        f.state = "syn"
        return Step("tcp-syn", f, out=[p])

    def udp(self, f):
        r = self.rng.random()
        if r < 0.35:
            return Step("udp-out", f, out=[self.udp_out(f, flags=self.rng.choice((0, "DF")), ttl=self.rng.choice((64, 3, 255)))])
        if r < 0.65:
            return Step("udp-in", f, back=[self.udp_back(f, tos=self.rng.choice((0, 2)))])
        if r < 0.75:
            return Step("udp-in-stranger", f, back=[self.udp_back(f, src=ROUTER), self.udp_back(f, sport=9)])
        if r < 0.8:
            return Step("udp-ttl-1", f, out=[self.udp_out(f, ttl=1)])
        return self.fragments(f)

    def fragments(self, f):
        """A datagram in pieces: in order or not, once or twice, all or not."""
        size = self.rng.choice((1500, 2500, 3000))
        inward = self.rng.random() < 0.5
        cut = self.rng.choice((512, 1024, 1400))
        make = self.udp_back(f, size) if inward else None
        packet = None if inward else self.udp_out(f, size)
        ident, how = self.rng.randrange(1, 65535), self.rng.choice(("order", "order", "reverse", "shuffle", "twice", "no-first", "no-last"))
        shuffle = self.rng.random()

        def parts(w):
            p = IP(bytes(make(w) if inward else packet))
            data = bytes(p.payload)
            pieces = [IP(src=p.src, dst=p.dst, proto=p.proto, id=ident, frag=at // 8, flags="MF" if at + cut < len(data) else 0) /
                      Raw(data[at:at + cut]) for at in range(0, len(data), cut)]
            if how == "reverse":
                pieces.reverse()
            elif how == "shuffle":
                random.Random(shuffle).shuffle(pieces)
            elif how == "twice":
                pieces.insert(1, pieces[0])
            elif how == "no-first":
                pieces = pieces[1:]
            elif how == "no-last":
                pieces = pieces[:-1]
            return pieces

        return Step("frag-%s-%s" % (how, "in" if inward else "out"), f, **{"back" if inward else "out": parts})

    def icmp(self, f):
        r = self.rng.random()
        if r < 0.4:
            return Step("echo-out", f, out=[self.echo_out(f)])
        if r < 0.8:
            return Step("echo-in", f, back=[self.echo_back(f)])
        if r < 0.9:
            return Step("echo-in-stranger", f, back=[self.echo_back(f, src=ROUTER)])
        return Step("echo-request-in", f, back=[self.echo_back(f, kind=8)])

    def tcp(self, f):
        r = self.rng.random()
        if f.state == "syn":
            if r < 0.15:
                f.c -= 1
                p = self.seg_out(f, S)
                f.c += 1
                return Step("tcp-syn-again", f, out=[p])
            if r < 0.25:
                f.state, f.dead = "over", True
                return Step("tcp-refused", f, back=[self.seg_back(f, R | A, seq=0)])
            p = self.seg_back(f, S | A)
            f.o += 1
            f.state = "synack"
            return Step("tcp-synack", f, back=[p])
        if f.state == "synack":
            f.state = "open"
            return Step("tcp-ack", f, out=[self.seg_out(f, A)])
        if f.state == "over":
            f.dead = True
            f.c += 100000
            f.o += 100000
            p = self.seg_out(f, S)
            return Step("tcp-anew", f, out=[p])
        if r < 0.25 and "c" not in f.fins:
            body = self.body()
            p = self.seg_out(f, A | P, body)
            f.c += len(body)
            return Step("tcp-data-out", f, out=[p])
        if r < 0.5 and "o" not in f.fins:
            body = self.body()
            p = self.seg_back(f, A | P, body)
            f.o += len(body)
            return Step("tcp-data-in", f, back=[p])
        if r < 0.6:
            return Step("tcp-ack-out", f, out=[self.seg_out(f, A)])
        if r < 0.7:
            return Step("tcp-ack-in", f, back=[self.seg_back(f, A)])
        if r < 0.78 and "c" not in f.fins:
            p = self.seg_out(f, F | A)
            f.c += 1
            f.fins.add("c")
            return Step("tcp-fin-out", f, out=[p])
        if r < 0.86 and "o" not in f.fins:
            p = self.seg_back(f, F | A)
            f.o += 1
            f.fins.add("o")
            return Step("tcp-fin-in", f, back=[p])
        if r < 0.9 and len(f.fins) == 2:
            f.state = "over"
            return Step("tcp-last-ack", f, out=[self.seg_out(f, A)], back=[self.seg_back(f, A)])
        if r < 0.93:
            f.state = "over"
            return Step("tcp-rst-out", f, out=[self.seg_out(f, R | A)])
        if r < 0.96:
            f.state = "over"
            return Step("tcp-rst-in", f, back=[self.seg_back(f, R | A)])
        return Step("tcp-stranger", f, back=[self.seg_back(f, A, src=ROUTER), self.seg_back(f, S, sport=9)])

    def error(self, f):
        kind, code = self.rng.choice(((3, 0), (3, 1), (3, 3), (3, 13), (11, 0), (12, 0), (3, 4)))
        size, break_it = self.rng.choice((8, 8, 20, 28)), self.rng.choice((None, None, None, "sum", "quote-sum", "quote-l4", "options", "nothing"))
        if f.proto != "icmp" and self.rng.random() < 0.35:
            q = bytes(self.about_inside(f))[:20 + size]
            src = self.rng.choice((f.src, f.src, INNER_ROUTER))
            return Step("error-out", f, out=[IP(src=src, dst=f.dst) / ICMP(type=kind, code=code) / Raw(q)])

        def make(w):
            p = self.about(f, w)
            if break_it == "options":
                p = IP(src=p.src, dst=p.dst, proto=p.proto, ttl=3, id=5, options=b"\x94\x04\x00\x00") / p.payload
            if break_it == "nothing":
                p.dst = "198.51.100.199"
            q = bytearray(bytes(p))
            q = q[:(q[0] & 15) * 4 + size]
            if break_it == "quote-sum":
                q[10] ^= 0x5a
            if break_it == "quote-l4":
                q[-1] ^= 0x5a
            e = IP(src=ROUTER, dst=w.outer) / ICMP(type=kind, code=code, unused=1400 if code == 4 else 0) / Raw(bytes(q))
            if break_it == "sum":
                e = IP(bytes(e))
                e[ICMP].chksum ^= 0x1111
            return [e]

        return Step("error-in" + ("-" + break_it if break_it else ""), f, back=make)

    def broken(self, f):
        """Packets that are not right."""
        how = self.rng.choice(("sum", "sum", "flags", "short", "length", "proto"))
        if f.proto == "icmp" or how == "proto":
            return Step("proto", None, out=[IP(src=f.src, dst=f.dst, proto=self.rng.choice((47, 132, 33, 99))) / Raw(self.body(40))])
        if how == "flags" and f.proto == "tcp" and f.state == "open":
            flags = self.rng.choice((0, F | S, F | P | 0x20, S | R))
            return Step("tcp-flags", f, out=[self.seg_out(f, flags)])
        p = self.udp_out(f) if f.proto == "udp" else self.seg_out(f, A, self.body())
        data = bytearray(bytes(p))
        if how == "short":
            q = IP(src=f.src, dst=f.dst, proto=p.proto) / Raw(bytes(data[20:20 + self.rng.choice((1, 4, 7))]))
            return Step("short", f, out=[q])
        if how == "length" and f.proto == "udp":
            data[24:26] = (2000).to_bytes(2, "big")
            return Step("udp-length", f, out=[bytes(data)])
        data[36 if f.proto == "tcp" else 26] ^= 0x5a
        return Step("sum", f, out=[bytes(data)])

    def odd(self, f):
        """Right, and unusual."""
        if f.proto != "tcp":
            p = self.udp_out(f) if f.proto == "udp" else self.echo_out(f)
            if f.proto == "udp":
                p[UDP].chksum = 0
            return Step("no-sum" if f.proto == "udp" else "echo-out", f, out=[p])
        if f.state == "open" and not f.fins:
            if self.rng.random() < 0.5:
                return Step("tcp-window", f, out=[self.seg_out(f, A | P, self.body(), seq=(f.c + (1 << 29)) & 0xffffffff)])
            return Step("tcp-rst-window", f, back=[self.seg_back(f, R, seq=(f.o + (1 << 29)) & 0xffffffff)])
        g = Flow(self.rng, "tcp")
        return Step("tcp-no-flow", g, out=[self.seg_out(g, A | P, self.body())])


def corrupt(seen):
    """Was the checksum still wrong of everything that came?"""
    return all(form[8] is False for _, form in seen)


class Known:
    """A difference that is meant: for steps with these labels sluice passes something on (that may() accepts), and nftables does not, or the other way."""

    def __init__(self, labels, ours, theirs, why, may=None, ends=True):
        self.labels, self.ours, self.theirs, self.why, self.may, self.ends = labels.split(), ours, theirs, why, may, ends

    def explains(self, step, ours, theirs):
        return (step.label in self.labels and (bool(ours), bool(theirs)) == (self.ours, self.theirs) and
                (not self.may or self.may(ours)))


KNOWN = [
    Known("sum", True, False, "conntrack takes a packet with a wrong checksum for invalid; sluice passes it on, as wrong as it was",
          may=corrupt, ends=False),
    Known("tcp-window", True, False, "conntrack drops what is outside of the windows; sluice forwards it: the ends judge that", ends=False),
    Known("tcp-rst-window", True, False, "likewise for a RST, which does not end the flow", ends=False),
    Known("tcp-flags", True, False, "combinations of flags that conntrack calls invalid are forwarded: the ends judge them"),
    Known("error-in-quote-sum", False, True, "RFC 5508 REQ-3a: an error that quotes an IP header with a wrong checksum is dropped", ends=False),
    Known("frag-no-last-in frag-no-last-out", True, False, "conntrack holds a datagram until it is whole; sluice passes what it can place"),
]


def main(args):
    seconds = float(args[0]) if args else 10
    seed = int(args[1]) if len(args) > 1 else random.SystemRandom().randrange(1 << 32)
    print("# seed %d" % seed, flush=True)
    worlds = [World("sluice"), World("nftables")]
    script = Script(seed)
    used, labels, steps, failures = {}, {}, 0, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end and failures < 10:
        step = script.next()
        steps += 1
        labels[step.label] = labels.get(step.label, 0) + 1
        seen = []
        for w in worlds:
            out = step.out(w) if callable(step.out) else step.out
            back = step.back(w) if callable(step.back) else [p(w) if callable(p) else p for p in step.back]
            try:
                seen.append(w.play(step.flow, out, back))
            except Failed as e:
                print("not ok %s: step %d, in the world of %s: %s" % (step.label, steps, w.name, e))
                return 1
        if seen[0] == seen[1]:
            continue
        n = next((n for n, k in enumerate(KNOWN) if k.explains(step, *seen)), None)
        if step.flow and (n is None or KNOWN[n].ends):
            step.flow.dead = True
        if n is None:
            failures += 1
            print("not ok %s: step %d of seed %d: no known difference%s" % (step.label, steps, seed, "".join(
                "\n#   %-8s %s" % (w.name, "; ".join("%s sees %s" % s for s in what) or "nothing") for w, what in zip(worlds, seen))), flush=True)
        else:
            used[n] = used.get(n, 0) + 1
    for n, count in sorted(used.items()):
        print("# %5d times %s: %s" % (count, "/".join(KNOWN[n].labels), KNOWN[n].why))
    print("# steps: %s" % ", ".join("%s %d" % item for item in sorted(labels.items())))
    for n, k in enumerate(KNOWN):
        if seconds >= 60 and n not in used:
            failures += 1
            print("not ok known/%s: no step needed this difference: %s" % (k.labels[0], k.why))
    if failures:
        return 1
    print("ok differ: %d steps of %d kinds, seed %d, %d known differences of %d kinds, no other" % (
        steps, len(labels), seed, sum(used.values()), len(used)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
