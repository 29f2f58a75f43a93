"""One side's modelled NATs as an automaton: a table of states that grows as it is asked, for exhaustive searches.
It refuses to let time pass and to draw lots: a random NAT's ports are numbered, and who may know them is search.py's.

A state is what the boxes remember (`Nat.state`), by number. A box can't be copied cheaply, so the table keeps for each
state the shortest way to it, and repeats that in fresh boxes where a step is asked for the first time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Sequence
from dataclasses import replace
from enum import Enum, auto
from typing import NamedTuple

from punchd.lab.model_kinds import Kind
from punchd.lab.model_nat import Nat
from punchd.lab.model_net import (
    PORT_UNREACHABLE,
    ROUTERS,
    TIME_EXCEEDED,
    UNREACHABLE,
    Carried,
    Datagram,
    IcmpError,
    Refused,
    Segment,
    refusal,
)  # fmt: skip

START = 0
"""The number of the state in which no box has seen a packet."""

_NOW_S = 1000.0
_FIRST_DRAWN = 50_001
_TTL = 64
_WINDOW = 65535


class Way(Enum):
    """How a packet meets a side: from its host at hole range or at full range, from outside, or quoted by an error."""

    LOW = auto()
    FULL = auto()
    IN = auto()
    ERROR = auto()


class Word(NamedTuple):
    """A packet between the boxes of both sides, or between host and box; `flags` -1 is a datagram."""

    src: int
    dst: int
    flags: int
    seq: int = 0
    ack: int = 0
    length: int = 0


Answer = tuple[Way, Word]


class Outcome(NamedTuple):
    """What a step leads to: the state, what passed all boxes, and what a box answers a stray with.

    `life_s` is how long the boxes then remember the flow of a packet that goes out.
    """

    state: int
    passed: Word | None
    answer: Answer | None = None
    life_s: float = 0.0


class Automaton:
    """The boxes of one side, 0 or 1, from the host outwards."""

    __slots__ = ("_kinds", "_numbers", "_side", "_steps", "_ways")

    def __init__(self, kinds: Sequence[Kind], side: int) -> None:
        self._kinds, self._side = [replace(kind, foreign=0.0) for kind in kinds], side
        self._ways: list[tuple[tuple[Way, Word], ...]] = [()]
        self._numbers: dict[Hashable, int] = {_state(self._boxes()): START}
        self._steps: dict[tuple[int, Way, Word], Outcome] = {}

    def __len__(self) -> int:
        """How many states are known."""
        return len(self._ways)

    def step(self, state: int, way: Way, word: Word) -> Outcome:
        """What comes of this packet in this state."""
        found = self._steps.get((state, way, word))
        if found is None:
            boxes = self._boxes()
            for earlier in self._ways[state]:
                self._perform(boxes, *earlier)
            passed, answer, life_s = self._perform(boxes, way, word)
            new = self._numbers.setdefault(_state(boxes), len(self._ways))
            if new == len(self._ways):
                self._ways.append((*self._ways[state], (way, word)))
            found = self._steps[(state, way, word)] = Outcome(new, passed, answer, life_s)
        return found

    def _boxes(self) -> list[Nat]:
        return [Nat(kind, f"box {depth}", dice=_Counting()) for depth, kind in enumerate(self._kinds)]

    def _perform(self, boxes: Sequence[Nat], way: Way, word: Word) -> tuple[Word | None, Answer | None, float]:
        match way:
            case Way.FULL:
                passed, life_s = _outwards(boxes, _packet(word))
                return _word(passed), None, life_s
            case Way.LOW:
                died, life_s = _outwards(boxes, _packet(word))
                if died is not None:
                    _complain(boxes, IcmpError(TIME_EXCEEDED, 0, ROUTERS[0][self._side], died))
                return None, None, life_s
            case Way.ERROR:
                _complain(boxes, IcmpError(UNREACHABLE, PORT_UNREACHABLE, "peer", _packet(word)))
                return None, None, 0.0
            case Way.IN:
                return *_inwards(boxes, word), 0.0


class _Counting(random.Random):
    """Draws that tell which came first."""

    def __init__(self) -> None:
        super().__init__(0)
        self._next = _FIRST_DRAWN - 1

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        self._next += 1
        return self._next


def _outwards(boxes: Sequence[Nat], packet: Carried) -> tuple[Carried | None, float]:
    life_s = math.inf
    for box in boxes:
        translated = box.outbound(packet, _NOW_S, "peer")
        if translated is None:
            return None, 0.0
        life_s = min(life_s, box.life_s(packet, _NOW_S, "peer"))
        packet = translated
    return packet, life_s


def _inwards(boxes: Sequence[Nat], word: Word) -> tuple[Word | None, Answer | None]:
    packet = _packet(word)
    for depth in reversed(range(len(boxes))):
        translated = boxes[depth].inbound(packet, _NOW_S, "peer")
        match translated:
            case Segment() | Datagram():
                packet = translated
            case Refused(0.0):
                return None, _refused(boxes[depth + 1 :], packet, word)
            case _:
                return None, None
    return _word(packet), None


def _refused(outer: Sequence[Nat], packet: Carried, word: Word) -> Answer | None:
    if isinstance(packet, Datagram):
        return Way.ERROR, word
    reset = refusal(packet)
    left = _word(_outwards(outer, reset)[0]) if reset else None
    return (Way.IN, left) if left else None


def _complain(boxes: Sequence[Nat], error: IcmpError) -> None:
    for box in reversed(boxes):
        translated = box.inbound(error, _NOW_S, "peer")
        if not isinstance(translated, IcmpError):
            return
        error = translated


def _packet(word: Word) -> Carried:
    src, dst, flags, seq, ack, length = word
    if flags < 0:
        return Datagram(src, dst, b"", _TTL)
    return Segment(src, dst, flags, seq, ack, _WINDOW, _TTL, length)


def _word(packet: Carried | None) -> Word | None:
    if packet is None:
        return None
    if isinstance(packet, Datagram):
        return Word(packet.src, packet.dst, -1)
    return Word(packet.src, packet.dst, packet.flags, packet.seq, packet.ack, packet.length)


def _state(boxes: Sequence[Nat]) -> Hashable:
    return tuple(box.state() for box in boxes)
