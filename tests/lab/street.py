"""One host behind a kind of NAT and the outside world, with a probe at each place: flows in a line or two.

It refuses to know what a kind does. Side a bears the kind; side b, which is open, and the server are the world.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from packets import MUTE, Probe

from punchd.lab.namespace import Namespace
from punchd.lab.topology import Lab
from punchd.lab.wire import Packet

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP

_ports = itertools.count(20000)


@dataclass(slots=True)
class Street:
    """A lab with a probe at each end, and one fresh flow per test. `outer` sees what leaves the last NAT."""

    kind: str
    lab: Lab
    a: Probe
    b: Probe
    server: Probe
    outer: Probe

    def flow(self, protocol: int = TCP) -> Flow:
        """From a port that no flow has had."""
        if self.kind == "blacklist":
            self.lab.nat_a.nft("flush set ip lab blocked")
        return Flow(self, protocol, next(_ports), next(_ports), self.lab.b, self.b)

    @property
    def inside(self) -> str:
        return self.lab.a.address

    @property
    def public(self) -> str:
        return self.lab.public_a

    @property
    def hole_ttl(self) -> int:
        """The least that clears all NATs; such a packet dies at r1."""
        return 1 + len(self.lab.nats_a)


@dataclass(slots=True)
class Flow:
    """One inside port and one place outside. `mapped` is the public port, once a packet has left."""

    street: Street
    protocol: int
    port_a: int
    port_b: int
    place: Namespace
    probe: Probe
    mapped: int = 0

    def out(self, flags: int = 0, *, seq: int = 1000, ack: int = 0, ttl: int = 64) -> Packet | None:
        """Send from a; what the far end receives of it."""
        here, there = self.street.lab.a.address, self.place.address
        self.street.a.send(Packet(here, there, self.protocol, self.port_a, self.port_b, flags, seq, ack, ttl))
        seen = self.probe.receive(lambda seen: seen.dport == self.port_b and seen.icmp is None)
        left = seen or self.street.outer.receive(lambda left: left.dport == self.port_b, wait_s=0.001)
        self.mapped = left.sport if left else self.mapped
        return seen

    def back(self, flags: int = 0, *, seq: int = 9000, ack: int = 0) -> Packet | None:
        """Send from the far end to a's public address; what a receives of it."""
        there, here = self.place.address, self.street.lab.public_a
        port = self.mapped or self.port_a
        self.probe.send(Packet(there, here, self.protocol, self.port_b, port, flags, seq, ack))
        return self.street.a.receive(lambda seen: seen.sport == self.port_b and seen.src == there and seen.icmp is None)

    def answer(self) -> Packet | None:
        """What the far end receives from a's side, whoever sent it."""
        return self.probe.receive(lambda seen: self.port_b in (seen.dport, seen.sport))

    def error(self) -> Packet | None:
        """The ICMP error that a received for its last packet."""
        return self.street.a.receive(lambda seen: seen.icmp is not None and seen.sport == self.port_a)

    def other_port(self) -> Flow:
        """The same inside port, another port of the same place."""
        return Flow(self.street, self.protocol, self.port_a, next(_ports), self.place, self.probe, self.mapped)

    def other_address(self) -> Flow:
        """The same inside port and the server, which a has not spoken to yet."""
        street = self.street
        return Flow(street, self.protocol, self.port_a, next(_ports), street.lab.server, street.server, self.mapped)


@contextlib.contextmanager
def street_of(kind: str) -> Iterator[Street]:
    """For the length of a `with` block."""
    with Lab(kind, "open", echo=None) as lab, contextlib.ExitStack() as stack:
        for host in (lab.a, lab.b, lab.server):
            host.nft(MUTE)
        probes = [Probe(lab.a), Probe(lab.b), Probe(lab.server), Probe(lab.r1, "nat")]
        for probe in probes:
            stack.callback(probe.close)
        yield Street(kind, lab, *probes)
