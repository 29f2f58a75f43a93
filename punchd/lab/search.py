"""Searches all orders of packets between two modelled NATs for one after which both hosts pass data to each other.
It refuses luck, loss and waiting: no packet is lost, no timer runs out, and no port is right that can't be known.

    found = search("linux-synfilter", "random", "tcp")
    print(ladder(found))

Theory: hosts are free to send anything, as punchd is (raw packets, and TCP_REPAIR for the socket), and know each
other's sequence numbers (the notification's secret). A host sends to the port of its peer's that it knows: the one
that the peer's NAT keeps or, drawing in sequence, draws next; then the one a packet came from. Where neither tells,
a port that nobody has. Only the sprayer may be lucky: of two sides the one whose own public port is the same
towards every port of its peer, while the peer's is drawn. A thousand probes of its meet 256 holes, all of which
point to its one port (birthday). If both public ports change, each guess would have to name the other's at once.

A discipline says when the initiator may send. Each allows what the one before it does.

    QUIET    at hole range before B acts, then only once it has heard B: what the techniques do
    LOUD     the same, but also at full range before B acts
    REFIRED  what it sent at full range before B acted it may send again at any time, blindly
    TOLD     at any time: B's second message says when

With `handshake` data flows only once each host has had a SYN or SYN-ACK of the other's: what sockets can do without
TCP_REPAIR.

The search is breadth first over pairs of automata states, so the order found is a shortest one. If it ends before
the depth does, no order of any length exists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import NamedTuple

from punchd.lab.automaton import START, Automaton, Way, Word
from punchd.lab.model_kinds import By, Kind, Ports, is_shared, layers
from punchd.words.events import ACK, RST, SYN, SYN_ACK

DEPTH = 6
PROBES, HOLES = 1024, 256
LIFE_S = 120.0
"""An order must leave both NATs with a session that lives so long: Linux passes data through a closed one, for 10 s."""

TCP_WORDS = (SYN, SYN_ACK, ACK, RST)
UDP_WORDS = (-1,)
NAMES = {SYN: "SYN", SYN_ACK: "SYN-ACK", ACK: "ACK", RST: "RST", -1: "datagram"}

_INSIDE = (20_001, 20_002)
_ISN = (1_000, 9_000)
_MISS, _OTHER_HOLE = 9, 10  # a port that no mapping has, and the port of a hole that no probe meets
_DATA_LEN = 100
_TURNS = 4


class Discipline(IntEnum):
    """When the initiator may send; see the head of this file."""

    QUIET = 0
    LOUD = 1
    REFIRED = 2
    TOLD = 3


@dataclass(frozen=True, slots=True)
class Step:
    """One packet of an order: who sends it, and what becomes of it. `copies` differ in a port, and one of them fits."""

    side: int
    flags: int
    low: bool
    arrives: bool
    copies: int = 1
    data: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A shortest order, `steps`, or None. `closed`: there is none of any length. `states` were seen, of both sides."""

    a: str
    b: str
    transport: str
    discipline: Discipline
    steps: tuple[Step, ...] | None
    closed: bool
    depth: int
    states: int

    @property
    def opening(self) -> tuple[Step, ...]:
        """The steps before data flows."""
        return tuple(step for step in self.steps or () if not step.data)

    @property
    def sprays(self) -> bool:
        """Whether a side had to spray."""
        return any(step.copies > 1 for step in self.steps or ())


def search(
    a: str, b: str, transport: str, *, disciplines: Sequence[Discipline] = tuple(Discipline), depth: int = DEPTH,
    handshake: bool = False,
) -> Found:  # fmt: skip
    """The order that asks for least: without spraying if possible, then by the strictest discipline, then the shortest.

    What is returned if there is none is the last and freest search.
    """
    tree = _Tree(a, b, transport, handshake=handshake and transport == "tcp")
    for spray in (False, True) if tree.sprayer is not None else (False,):
        for discipline in disciplines:
            found = tree.search(discipline, spray=spray, depth=depth)
            if found.steps is not None:
                return found
    return found


def short(found: Found) -> str:
    """The order in a line: `A ACK~, B data x1024`; `~` dies between the NATs, `!` at one of them."""
    if found.steps is None:
        return "no order" if found.closed else f"no order of up to {found.depth} packets before data"
    first = next(step for step in found.steps if step.data)
    said = ", ".join(f"{'AB'[step.side]} {NAMES[step.flags]}{_mark(step)}" for step in found.opening)
    return f"{said}{', ' if said else ''}{'AB'[first.side]} data{_mark(first)}"


def ladder(found: Found) -> str:
    """The order as a ladder, A left and B right: a short arrow dies between the NATs, a longer one at a NAT."""
    lines = [f"{found.a} x {found.b}, {found.transport}, {found.discipline.name.lower()}"]
    if found.steps is None:
        lines.append(f"{short(found)}; {found.states} states seen")
    for step in found.steps or ():
        said = "data" if step.data else NAMES[step.flags]
        said += f" x{step.copies}" if step.copies > 1 else ""
        arrow = f"{'-' * (4 if step.low else 15 if step.arrives else 12)}{'>' if step.arrives else 'x':<}"
        if step.side == 0:
            lines.append(f"{said:>20} |{arrow:<16}|")
        else:
            lines.append(f"{'':20} |{arrow[::-1].replace('>', '<'):>16}| {said}")
    return "\n".join(lines)


class _State(NamedTuple):
    """Both sides' automata and what both hosts know.

    `greeted`: who may take the other for connected. `fired`: what A sent at full range before B acted.
    """

    boxes: tuple[int, int]
    knows: tuple[int, int]
    heard: tuple[bool, bool]
    greeted: tuple[bool, bool]
    begun: bool
    fired: frozenset[int]


class _Tree:
    """The searches of one pair of kinds."""

    __slots__ = ("_handshake", "_kinds", "_names", "_sides", "_stream", "_transport", "sprayer")

    def __init__(self, a: str, b: str, transport: str, *, handshake: bool) -> None:
        self._handshake = handshake
        if is_shared(a, b):
            raise ValueError(f"{a} x {b}: the search knows only NATs that stand apart")
        self._names, self._transport, self._stream = (a, b), transport, transport == "tcp"
        self._kinds = layers(a), layers(b)
        self._sides = _automaton(self._kinds[0], 0), _automaton(self._kinds[1], 1)
        drawn = [_is_drawn(kinds, self._stream) for kinds in self._kinds]
        steady = [_is_steady(kinds, self._stream) for kinds in self._kinds]
        self.sprayer = next((side for side in (0, 1) if steady[side] and drawn[1 - side]), None)

    def search(self, discipline: Discipline, *, spray: bool, depth: int) -> Found:
        """Breadth first, at most so deep."""
        sprayer = self.sprayer if spray else None
        knows = tuple(self._known(1 - side, sprays=side == sprayer) for side in (0, 1))
        greeted = not self._handshake
        start = _State((START, START), (knows[0], knows[1]), (False, False), (greeted, greeted), False, frozenset())
        paths: dict[_State, tuple[Step, ...]] = {start: ()}
        level = [start]
        for _ in range(depth + 1):
            for state in level:
                data = self._data(state, discipline, sprayer)
                if data is not None:
                    steps = *paths[state], *data
                    return Found(*self._names, self._transport, discipline, steps, False, depth, len(paths))
            deeper = []
            for state in level:
                for new, step in self._successors(state, discipline, sprayer):
                    if new not in paths:
                        paths[new] = (*paths[state], step)
                        deeper.append(new)
            level = deeper
        return Found(*self._names, self._transport, discipline, None, not level, depth, len(paths))

    def _known(self, side: int, *, sprays: bool) -> int:
        """This side's port, as far as its peer can know it before a packet has come."""
        if _is_drawn(self._kinds[side], self._stream) and not sprays:
            return _MISS
        first = Word(_INSIDE[side], _INSIDE[1 - side], SYN if self._stream else -1)
        passed = self._sides[side].step(START, Way.FULL, first).passed
        assert passed is not None, "every kind lets a SYN and a datagram out"
        return passed.src

    def _successors(
        self, state: _State, discipline: Discipline, sprayer: int | None
    ) -> Iterator[tuple[_State, Step]]:  # fmt: skip
        for side in (0, 1):
            for flags in TCP_WORDS if self._stream else UDP_WORDS:
                for low in (True, False):
                    if side == 0 and not _may(state, discipline, flags, low=low):
                        continue
                    seq = _ISN[side] + (flags & SYN == 0)
                    ack = _ISN[1 - side] + 1 if flags & ACK else 0
                    word = Word(_INSIDE[side], state.knows[side], flags, *((seq, ack) if flags >= 0 else ()))
                    new, step, _ = self._send(state, side, word, sprayer, low=low)
                    if side == 1:
                        new = new._replace(begun=True)
                    elif not low and not state.begun and discipline is Discipline.REFIRED:
                        new = new._replace(fired=new.fired | {flags})
                    yield new, step

    def _send(
        self, state: _State, side: int, word: Word, sprayer: int | None, *, low: bool, data: bool = False
    ) -> tuple[_State, Step, float]:  # fmt: skip
        """One packet on its way; where it is one of many that differ in a port, those that miss come first."""
        many = sprayer is not None and not state.heard[side]
        own, far = state.boxes[side], state.boxes[1 - side]
        if many and not low and side == sprayer:
            own, far, _, _ = self._cross(side, own, far, word._replace(dst=_MISS))
        elif many and not low:
            far = self._sides[1 - side].step(far, Way.IN, word._replace(src=_OTHER_HOLE)).state
        if low:
            own, arrived, _, life_s = self._sides[side].step(own, Way.LOW, word)
        else:
            own, far, arrived, life_s = self._cross(side, own, far, word)
        knows, heard, greeted = list(state.knows), list(state.heard), list(state.greeted)
        if arrived is not None:
            knows[1 - side], heard[1 - side] = arrived.src, True
            greeted[1 - side] |= arrived.flags & SYN != 0
        state = state._replace(
            boxes=(own, far) if side == 0 else (far, own), knows=(knows[0], knows[1]), heard=(heard[0], heard[1]),
            greeted=(greeted[0], greeted[1]),
        )  # fmt: skip
        copies = 1 if not many else PROBES if side == sprayer else HOLES
        return state, Step(side, word.flags, low, arrived is not None, copies, data), life_s

    def _cross(self, side: int, own: int, far: int, word: Word) -> tuple[int, int, Word | None, float]:
        """At full range: both sides' states after it, what arrives, and how long the sender's boxes remember it."""
        sender, receiver = self._sides[side], self._sides[1 - side]
        own, passed, _, life_s = sender.step(own, Way.FULL, word)
        if passed is None:
            return own, far, None, life_s
        far, arrived, answer, _ = receiver.step(far, Way.IN, passed)
        if answer is not None:
            own = sender.step(own, *answer).state
        return own, far, arrived, life_s

    def _data(self, state: _State, discipline: Discipline, sprayer: int | None) -> tuple[Step, ...] | None:
        """The steps of an exchange of data, if it passes and leaves both NATs with a lasting session.

        B may begin it, and A where it may send.
        """
        if not all(state.greeted):
            return None
        for first in (1, 0):
            if first == 0 and not _may(state, discipline, ACK, low=False, new=True):
                continue
            now, steps, sent = state, [], [0, 0]
            for turn in range(_TURNS):
                side = first if turn % 2 == 0 else 1 - first
                word = Word(_INSIDE[side], now.knows[side], -1)
                if self._stream:
                    seq, ack = (_ISN[each] + 1 + sent[each] for each in (side, 1 - side))
                    word = Word(_INSIDE[side], now.knows[side], ACK, seq, ack, _DATA_LEN)
                now, step, life_s = self._send(now, side, word, sprayer, low=False, data=True)
                sent[side] += _DATA_LEN
                steps.append(step)
                if not step.arrives or (turn >= _TURNS - 2 and life_s < LIFE_S):
                    break
            else:
                return tuple(steps)
        return None


def _may(state: _State, discipline: Discipline, flags: int, *, low: bool, new: bool = False) -> bool:
    """Whether the initiator may send this now; `new`: it is nothing that it can have sent before."""
    if state.heard[0] or discipline is Discipline.TOLD:
        return True
    if not state.begun:
        return low or discipline >= Discipline.LOUD
    return discipline is Discipline.REFIRED and not low and not new and flags in state.fired


def _is_drawn(kinds: Sequence[Kind], stream: bool) -> bool:
    """Whether nobody can know the public port before a packet has come from it."""
    axes = [kind.tcp if stream else kind.udp for kind in kinds]
    return any(each.ports is Ports.RANDOM and each.mapping is not By.NOTHING for each in axes)


def _is_steady(kinds: Sequence[Kind], stream: bool) -> bool:
    """Whether the public port is known and the same towards every port of the peer."""
    axes = [kind.tcp if stream else kind.udp for kind in kinds]
    return all(each.ports is Ports.PRESERVED or each.mapping is By.NOTHING for each in axes)


@cache
def _automaton(kinds: tuple[Kind, ...], side: int) -> Automaton:
    """Shared by all pairs: its table has grown by what the others asked."""
    return Automaton(kinds, side)


def _mark(step: Step) -> str:
    return ("~" if step.low else "" if step.arrives else "!") + (f" x{step.copies}" if step.copies > 1 else "")
