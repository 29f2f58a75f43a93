"""The modelled twin of street.py: the same flows in a line or two, through modelled NATs in virtual time.

It refuses to model hosts: what a test sends leaves as it is, and what arrives is put down.
"""

from __future__ import annotations

import itertools
import random
import socket
from dataclasses import dataclass, field

from packets import SILENCE_S

from punchd.lab.model import PRIVATE, PUBLIC
from punchd.lab.model_kinds import KINDS, Side, layers
from punchd.lab.model_nat import Nat
from punchd.lab.model_net import Carried, Clock, Datagram, IcmpError, Net, Path, Segment
from punchd.lab.model_net import Packet as Arrived
from punchd.lab.wire import Packet

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
SERVER = "192.0.2.10"

_ports = itertools.count(20000)


class _Probe:
    """A host that only looks."""

    def __init__(self) -> None:
        self.seen: list[Arrived] = []

    def receive(self, packet: Arrived, ttl: int) -> None:
        self.seen.append(packet)


class _Outermost(Nat):
    """Remembers under which port the last packet left."""

    left = 0

    def outbound(self, packet: Carried, now: float, remote: str = "") -> Carried | None:
        translated = super().outbound(packet, now, remote)
        self.left = translated.src if translated else 0
        return translated


class _Place:
    """Somewhere outside, and the net between: the NATs are the same for all places."""

    def __init__(self, clock: Clock, boxes: list[Nat], address: str) -> None:
        self.address, self.a, self.far = address, _Probe(), _Probe()
        self.net = Net(clock, Path(), random.Random(0), (boxes, [Nat(KINDS["open"], address)]))
        self.net.join(self.a, self.far)


@dataclass(slots=True)
class ModelStreet:
    """One host behind a kind of NAT, and two places in the world."""

    kind: str
    clock: Clock
    outermost: _Outermost
    places: tuple[_Place, _Place]
    hole_ttl: int
    inside: str
    public: str = PUBLIC[0]

    @classmethod
    def of(cls, side: Side, name: str = "") -> ModelStreet:
        kinds, clock = layers(side), Clock(1000.0)
        outermost = _Outermost(kinds[-1], PUBLIC[0], dice=random.Random(1))
        boxes = [*(Nat(kind, f"100.64.{n}.2") for n, kind in enumerate(kinds[:-1])), outermost]
        places = (_Place(clock, boxes, PUBLIC[1]), _Place(clock, boxes, SERVER))
        inside = PRIVATE[0] if kinds[0].translates else PUBLIC[0]
        return cls(name or kinds[0].name, clock, outermost, places, 1 + len(boxes), inside)

    def flow(self, protocol: int = TCP) -> ModelFlow:
        """From a port that no flow has had. A blocked peer is forgiven, as time would."""
        if self.kind == "blacklist":
            self.wait(31.0)
        return ModelFlow(self, protocol, next(_ports), next(_ports), self.places[0])

    def wait(self, seconds: float) -> None:
        """Let virtual time pass."""
        until = self.clock.now + seconds
        self.clock.at(until, lambda: None)
        self.clock.run(lambda: True, until)


@dataclass(slots=True)
class ModelFlow:
    """One inside port and one place outside. `mapped` is the public port, once a packet has left."""

    street: ModelStreet
    protocol: int
    port_a: int
    port_b: int
    place: _Place
    mapped: int = 0
    errors: list[IcmpError] = field(default_factory=list)
    answers: list[Packet] = field(default_factory=list)

    def out(self, flags: int = 0, *, seq: int = 1000, ack: int = 0, ttl: int = 64) -> Packet | None:
        """Send from a; what the far end receives of it."""
        self.street.outermost.left = 0
        self._send(0, self._packet(self.port_a, self.port_b, flags, seq, ack, ttl))
        self.mapped = self.street.outermost.left or self.mapped
        return self.answers.pop(0) if self.answers else None

    def back(self, flags: int = 0, *, seq: int = 9000, ack: int = 0) -> Packet | None:
        """Send from the far end to a's public address; what a receives of it."""
        passed = self._send(1, self._packet(self.port_b, self.mapped or self.port_a, flags, seq, ack, 64))
        return passed[0] if passed else None

    def error(self) -> Packet | None:
        """The ICMP error that a received for its last packet."""
        if not self.errors:
            return None
        error = self.errors.pop(0)
        return Packet(error.sender, self.street.inside, socket.IPPROTO_ICMP, icmp=(error.type, error.code))

    def answer(self) -> Packet | None:
        """What the far end received from a's side, whoever sent it."""
        return self.answers.pop(0) if self.answers else None

    def other_port(self) -> ModelFlow:
        """The same inside port, another port of the same place."""
        return ModelFlow(self.street, self.protocol, self.port_a, next(_ports), self.place, self.mapped)

    def other_address(self) -> ModelFlow:
        """The same inside port and another place, which a has not spoken to yet."""
        there = self.street.places[1]
        return ModelFlow(self.street, self.protocol, self.port_a, next(_ports), there, self.mapped)

    def _packet(self, src: int, dst: int, flags: int, seq: int, ack: int, ttl: int) -> Carried:
        if self.protocol == UDP:
            return Datagram(src, dst, b"test", ttl)
        return Segment(src, dst, flags, seq, ack, 65535, ttl)

    def _send(self, side: int, packet: Carried) -> list[Packet]:
        place = self.place
        self.errors.clear()
        self.answers.clear()
        place.net.leave(side, packet)
        self.street.wait(SILENCE_S)
        passed: list[Packet] = []
        for probe, kept, src, dst in (
            (place.a, passed, place.address, self.street.inside),
            (place.far, self.answers, self.street.public, place.address),
        ):
            for seen in probe.seen:
                if not isinstance(seen, IcmpError):
                    flags = seen.flags if isinstance(seen, Segment) else 0
                    kept.append(Packet(src, dst, self.protocol, seen.src, seen.dst, flags))
                elif probe is place.a:
                    self.errors.append(seen)
                else:
                    kept.append(Packet(seen.sender, dst, socket.IPPROTO_ICMP, icmp=(seen.type, seen.code)))
            probe.seen.clear()
        return passed
