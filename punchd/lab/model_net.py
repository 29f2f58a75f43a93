"""The modelled net: virtual time, packets, and the way from one NAT to the other over three routers.
It refuses to know what a NAT or a host does with a packet, and never looks at a real clock.

    host a - NAT a - r1 - r2 - r3 - NAT b - host b

As in the kernel lab half of the delay lies on r1-r2 and half on r2-r3, so a packet of TTL 2 clears its own NAT
and dies at r1 at once, one of TTL 3 half-way. A hop costs a TTL but no time. A side may have several NATs in a row,
each of which costs a TTL more. A packet keeps the TTL it left its host with; boxes count.

Where the outermost boxes are the legs of one (model_shared.py) there are no routers between them, and no delay.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from punchd.words.events import ACK, RST, SYN, Flags

FIN, PSH = int(Flags.FIN), int(Flags.PSH)
EVENTS_MAX = 20_000  # a lively attempt has a few hundred
SEQ_MASK = 0xFFFFFFFF
TIME_EXCEEDED = 11
UNREACHABLE = 3
PORT_UNREACHABLE = 3
ROUTERS = (("203.0.113.1", "198.51.100.1"), ("198.18.12.2", "198.18.23.2"), ("198.18.23.3", "198.18.12.1"))
"""Who complains of a packet that dies at r1, r2, r3, as seen from side a and from side b."""


class Segment:
    """A TCP segment on its way; ports as its sender sees them. `ttl` is the one it left its host with."""

    __slots__ = ("ack", "dst", "flags", "length", "seq", "src", "ttl", "window")

    def __init__(
        self, src: int, dst: int, flags: int, seq: int, ack: int, window: int, ttl: int, length: int = 0
    ) -> None:
        self.src, self.dst, self.flags, self.seq, self.ack = src, dst, flags, seq, ack
        self.window, self.ttl, self.length = window, ttl, length

    @property
    def end(self) -> int:
        """The sequence number behind it (RFC 9293: SYN and FIN count)."""
        return (self.seq + self.length + (self.flags & SYN != 0) + (self.flags & FIN != 0)) & SEQ_MASK

    def __repr__(self) -> str:
        names = "".join(flag.name[0] for flag in Flags if self.flags & flag and flag.name)
        return f"{self.src}>{self.dst} {names} seq={self.seq} ack={self.ack} win={self.window} ttl={self.ttl}"


class Datagram:
    """A UDP datagram on its way."""

    __slots__ = ("data", "dst", "src", "ttl")

    def __init__(self, src: int, dst: int, data: bytes, ttl: int) -> None:
        self.src, self.dst, self.data, self.ttl = src, dst, data, ttl


class IcmpError:
    """A router's or NAT's complaint; `quoted` as its sender sent it."""

    __slots__ = ("code", "quoted", "sender", "type")

    def __init__(self, type: int, code: int, sender: str, quoted: Segment | Datagram) -> None:
        self.type, self.code, self.sender, self.quoted = type, code, sender, quoted


Packet = Segment | Datagram | IcmpError
Carried = Segment | Datagram


@dataclass(frozen=True, slots=True)
class Refused:
    """A NAT's word on a packet that is to be answered: at once, TCP with RST; or after a time, with an error."""

    after_s: float


class Clock:
    """Virtual time: what was asked for is called in order of time, and of asking where times are equal."""

    __slots__ = ("_asked", "_queue", "now")

    def __init__(self, now: float) -> None:
        self.now = now
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._asked = 0

    def at(self, time: float, call: Callable[..., None], *args: Any) -> None:
        """Call when the time has come; a time in the past counts as now."""
        self._asked += 1
        heapq.heappush(self._queue, (time, self._asked, call, args))

    def run(self, goes_on: Callable[[], bool], until: float) -> None:
        """Let time pass while `goes_on`, at most until the given time."""
        queue = self._queue
        for _ in range(EVENTS_MAX):
            if not (queue and queue[0][0] <= until and goes_on()):
                return
            time, _, call, args = heapq.heappop(queue)
            if time > self.now:
                self.now = time
            call(*args)
        raise RuntimeError(f"{EVENTS_MAX} events and no end: two peers answer each other without pause")


@dataclass(frozen=True, slots=True)
class Path:
    """What happens to packets between the two NATs, each way. Shares are 0 to 1."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether every packet arrives once, after the same time."""
        return not (self.jitter_s or self.loss or self.reorder or self.duplicate)


class Box(Protocol):
    """What the net asks of a NAT. What comes back of a packet is how it goes on; None: it does not."""

    gateway: str
    public: str
    is_end: bool  # what comes from inside is for itself, whatever its TTL
    passes_errors: bool  # of hosts inside, about what came in

    def outbound(self, packet: Carried, now: float, remote: str) -> Carried | Refused | None: ...
    def inbound(self, packet: Packet, now: float, remote: str) -> Packet | Refused | None: ...
    def still_waits(self, packet: Segment, now: float, remote: str) -> bool: ...


class Stack(Protocol):
    """What the net asks of a host."""

    def receive(self, packet: Packet, ttl: int) -> Refused | None: ...


class Net:
    """Carries packets between side 0 and side 1. `sent` counts those that left a NAT.

    Each side has its boxes from the host outwards; `public` are their outermost addresses.
    `shared`: the last of both are legs of one box.
    """

    __slots__ = ("_boxes", "_clock", "_dice", "_hops", "_path", "_stacks", "public", "sent")

    def __init__(
        self, clock: Clock, path: Path, dice: random.Random, boxes: tuple[Sequence[Box], Sequence[Box]], *,
        shared: bool = False,
    ) -> None:  # fmt: skip
        self._clock, self._path, self._dice, self._boxes = clock, Path() if shared else path, dice, boxes
        self._hops = -1 if shared else len(ROUTERS)  # what lies between the boxes of both; a box of both counts once
        self.public = (boxes[0][-1].public, boxes[1][-1].public)
        self._stacks: list[Stack] = []
        self.sent = 0

    def join(self, *stacks: Stack) -> None:
        """The hosts, in the order of the sides."""
        self._stacks += stacks

    def leave(self, side: int, packet: Carried) -> None:
        """A packet of this side's host is on its way."""
        self._outwards(side, packet, 0)

    def _outwards(self, side: int, packet: Carried, first: int) -> None:
        """Through this side's boxes, from the first of these on."""
        boxes = self._boxes[side]
        for depth in range(first, len(boxes)):
            if packet.ttl < depth + 2 and not boxes[depth].is_end:
                self._complain(side, depth, packet, boxes[depth].gateway, 0.0)
                return
            translated = boxes[depth].outbound(packet, self._clock.now, self.public[1 - side])
            if isinstance(translated, Refused):
                self._clock.at(self._clock.now, self._turn_back, side, depth, packet)
                return
            if translated is None:
                return
            packet = translated
        self.sent += 1
        died_at = packet.ttl - 1 - len(boxes)
        if died_at < self._hops:
            self._complain(side, len(boxes), packet, ROUTERS[died_at][side], self._path.delay_s * died_at)
        else:
            self._carry(1 - side, packet)

    def _complain(
        self,
        side: int,
        depth: int,
        packet: Carried,
        sender: str,
        after_s: float,
        type: int = TIME_EXCEEDED,
        code: int = 0,
    ) -> None:
        """An ICMP error for this side's host, which has so many boxes to pass on its way."""
        error = IcmpError(type, code, sender, packet)
        self._clock.at(self._clock.now + after_s, self._error_arrives, side, depth, error)

    def _carry(self, to: int, packet: Carried) -> None:
        path, dice = self._path, self._dice
        arrival = self._clock.now + path.delay_s
        if not path.plain:
            if dice.random() < path.loss:
                return
            late_s = path.jitter_s * dice.random()
            if dice.random() < path.reorder:
                late_s += path.delay_s / 2 + path.jitter_s + 0.001
            if dice.random() < path.duplicate:
                self._clock.at(arrival + late_s + path.jitter_s * dice.random(), self._arrive, to, packet)
            arrival += late_s
        self._clock.at(arrival, self._arrive, to, packet)

    def _arrive(self, to: int, carried: Carried) -> None:
        now, side, packet = self._clock.now, 1 - to, carried
        near, far = self._boxes[side], self._boxes[to]
        ttl = carried.ttl - len(near) - self._hops
        for depth in reversed(range(len(far))):
            box = far[depth]
            translated = box.inbound(packet, now, self.public[side])
            if isinstance(translated, Refused):
                if translated.after_s:
                    self._clock.at(now + translated.after_s, self._refuse_late, to, box, packet, carried)
                else:
                    self._refuse(to, depth, packet, carried)
                return
            if translated is None:
                return
            assert not isinstance(translated, IcmpError)
            packet = translated
            if ttl < 2:
                self._complain(side, len(near), carried, box.public, self._path.delay_s)
                return
            ttl -= 1
        refused = self._stacks[to].receive(packet, ttl)
        if refused is not None and all(box.passes_errors for box in far):
            self._unreachable(to, far[-1], carried)

    def _refuse(self, at: int, depth: int, packet: Carried, carried: Carried) -> None:
        """The box rejects: TCP with RST, the rest with port unreachable. What answered is not looked at again."""
        if isinstance(packet, Segment):
            reset = refusal(packet)
            if reset is not None:
                reset.ttl = 65 + depth
                self._outwards(at, reset, depth + 1)
        else:
            self._unreachable(at, self._boxes[at][depth], carried)

    def _turn_back(self, side: int, depth: int, packet: Carried) -> None:
        """The box itself is the place that the packet is for, and has nobody there."""
        boxes = self._boxes[side]
        if isinstance(packet, Datagram):
            self._complain(side, depth, packet, boxes[depth].public, 0.0, UNREACHABLE, PORT_UNREACHABLE)
            return
        answer: Packet | Refused | None = refusal(packet)
        for box in reversed(boxes[:depth]):
            if answer is None or isinstance(answer, Refused):
                return
            answer = box.inbound(answer, self._clock.now, self.public[1 - side])
        if isinstance(answer, Segment):
            self._stacks[side].receive(answer, 64 - depth)

    def _refuse_late(self, at: int, box: Box, packet: Segment, carried: Segment) -> None:
        if box.still_waits(packet, self._clock.now, self.public[1 - at]):
            self._unreachable(at, box, carried)

    def _unreachable(self, at: int, box: Box, carried: Carried) -> None:
        side = 1 - at
        depth = len(self._boxes[side])
        self._complain(side, depth, carried, box.public, self._path.delay_s, UNREACHABLE, PORT_UNREACHABLE)

    def _error_arrives(self, side: int, depth: int, error: IcmpError) -> None:
        for box in reversed(self._boxes[side][:depth]):
            translated = box.inbound(error, self._clock.now, self.public[1 - side])
            if not isinstance(translated, IcmpError):
                return
            error = translated
        self._stacks[side].receive(error, 0)


def refusal(segment: Segment) -> Segment | None:
    """The RST that a stray deserves (RFC 9293, section 3.10.7.1); none for a RST."""
    if segment.flags & RST:
        return None
    if segment.flags & ACK:
        return Segment(segment.dst, segment.src, RST, segment.ack, 0, 0, 65)
    return Segment(segment.dst, segment.src, RST | ACK, 0, segment.end, 0, 65)
