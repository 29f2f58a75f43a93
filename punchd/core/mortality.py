"""Finds whether a mapping of the own NAT outlives an ICMP error (RFC 4787, REQ-12) that quotes a packet of it.
Touches no port that is to be punched from, and says nothing rather than a guess.

Theory of operation
-------------------
Two sockets of their own, x and y, at one server that knows RESPONSE-PORT (RFC 5780, section 7.5): what y asks is
answered to y's address, but to the port that x is seen at. So the server calls x while x says nothing (RFC 5780,
section 4.6, times mappings so); x's own packets would make a new mapping of a dead one.

    ASKING       x asks the server, which makes the mapping and tells its port
    CONTROLLING  y has x called, which must be heard; a server that answers y instead does not play
    PROVOKING    one datagram of x dies just outside of all own NATs, with the TTL that core/ttl.py has found. Its time
                 exceeded is seen by x: it has crossed the NATs. One TTL only: a second datagram on its way out while
                 the first one's error comes in would revive what that has ended
    SETTLING     a NAT may take a moment
    TESTING      y has x called again, SENDS_MAX times: what is heard proves that the mapping has outlived the error
    REVIVING     else x asks anew
    CONFIRMING   and is called anew: heard, it proves that server, path and socket are as they were. The mapping was
                 mortal. A late answer to TESTING proves that the way was too slow to tell
    SETTLED

Whatever is silent elsewhere, or over at `expires`, leaves it open. At a loss of 2 % one way, one of 400,000 mappings
that live is called dead. The calls to a dead mapping are strays to its NAT, by a server that was named: one
that also blocks who sends strays will block it for a while.

Over TCP nothing is measured: the kernel repeats a segment that died, and so revives the mapping. What holds for UDP is
taken for a hint: NATs that read ICMP errors at all read both transports' in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from math import inf
from typing import assert_never

from msgspec.structs import replace

from punchd.core.ttl import clearing
from punchd.words.addresses import Endpoint
from punchd.words.events import DeadlinePassed
from punchd.words.hops import Hop
from punchd.words.mortality import AskFor, Died, Heard, MortalityEffect, MortalityEvent, Provoke, Sounded
from punchd.words.probing import Finding

ASK_GAP_S = 0.3
SENDS_MAX = 4
PROVOKES_MAX = 3
NEAR_S = 0.1  # no answer is taken for late before; a busy host needs as much
SETTLE_S = 0.05
CALL_GAP_S = 0.05
ROUND_TRIPS = 2.0  # what an answer may take, in the first one's round trips


class State(Enum):
    """Where the finding stands; see above for what leads where."""

    ASKING = auto()
    CONTROLLING = auto()
    PROVOKING = auto()
    SETTLING = auto()
    TESTING = auto()
    REVIVING = auto()
    CONFIRMING = auto()
    SETTLED = auto()


_SENDS = {State.PROVOKING: PROVOKES_MAX, State.SETTLING: 0}


class Mortality:
    """One host's finding, towards one server."""

    __slots__ = (
        "_began", "_due", "_expires", "_hops", "_new", "_public", "_rtt_s", "_sends", "_tested", "_transaction", "_ttl",
        "outlives", "state",
    )  # fmt: skip

    def __init__(self, *, now: float, timeout_s: float, transactions: Callable[[], bytes]) -> None:
        """`transactions` gives a new random id each time."""
        self.outlives: bool | None = None
        self._new, self._expires = transactions, now + timeout_s
        self._began, self._rtt_s = now, 0.0
        self._hops: tuple[Hop, ...] | None = None
        self._ttl: int | None = None
        self._public: Endpoint | None = None
        self._tested = b""
        self._enter(State.ASKING, now)

    @property
    def settled(self) -> bool:
        """Whether `outlives` is final."""
        return self.state is State.SETTLED

    @property
    def deadline(self) -> float | None:
        """When `step` wants a DeadlinePassed; None once settled."""
        return None if self.settled else min(self._due, self._expires)

    def step(self, event: MortalityEvent, now: float) -> list[MortalityEffect]:
        """Take one event, return what is to be sent. The first is a DeadlinePassed."""
        if self.settled:
            return []
        match event:
            case Heard():
                self._on_heard(event, now)
            case Died():
                if self.state is State.PROVOKING and self._sends:
                    self._enter(State.SETTLING, now)
                    self._due = now + SETTLE_S
            case Sounded():
                self._hops = event.hops
                if self.state is State.PROVOKING:
                    self._aim(now)
            case DeadlinePassed():
                pass  # the time is looked at below, whatever the event
            case _:
                assert_never(event)
        if now >= self._expires:
            self._conclude(None)
        return self._due_now(now)

    def _on_heard(self, event: Heard, now: float) -> None:
        answer = event.answer
        mine = answer.transaction == self._transaction
        if not event.second and answer.transaction == self._tested and self.state in (State.REVIVING, State.CONFIRMING):
            self._conclude(None)
        elif not mine:
            return
        elif event.second or answer.mapped is None:
            self._conclude(None)
        elif self.state in (State.ASKING, State.REVIVING):
            if self.state is State.ASKING:
                self._rtt_s = now - self._began
            self._public = answer.mapped
            self._enter(State.CONTROLLING if self.state is State.ASKING else State.CONFIRMING, now)
        elif self.state is State.CONTROLLING:
            self._enter(State.PROVOKING, now)
            self._aim(now)
        elif self.state is State.TESTING:
            self._conclude(True)
        elif self.state is State.CONFIRMING:
            self._conclude(False)

    def _aim(self, now: float) -> None:
        """The TTL is found once the sounding is over: just outside, and short of the server, which sends no error."""
        assert self._public is not None
        self._due = inf
        if self._hops is None:
            return
        way = clearing(self._hops, {self._public.address})
        if way.ttl is None or (way.distance is not None and way.ttl >= way.distance):
            self._conclude(None)
            return
        self._ttl, self._due = way.ttl, now

    def _due_now(self, now: float) -> list[MortalityEffect]:
        effects: list[MortalityEffect] = []
        while not self.settled and self._due <= now:
            if self._sends < _SENDS.get(self.state, SENDS_MAX):
                self._sends += 1
                effects.append(self._effect())
                self._due = now + self._patience_s()
            elif self.state is State.SETTLING:
                self._enter(State.TESTING, now)
                self._tested = self._transaction
            elif self.state is State.TESTING:
                self._enter(State.REVIVING, now)
            else:
                self._conclude(None)
        return effects

    def _effect(self) -> MortalityEffect:
        if self.state is State.PROVOKING:
            assert self._ttl is not None
            return Provoke(self._ttl)
        if self.state in (State.ASKING, State.REVIVING):
            return AskFor(self._transaction)
        assert self._public is not None
        return AskFor(self._transaction, self._public.port)

    def _patience_s(self) -> float:
        """Until the next packet of this state, or the end of it."""
        if self.state is State.ASKING:
            return ASK_GAP_S
        if self.state is State.TESTING and self._sends < SENDS_MAX:
            return CALL_GAP_S
        return max(NEAR_S, ROUND_TRIPS * self._rtt_s)

    def _enter(self, state: State, now: float) -> None:
        self.state, self._sends, self._due = state, 0, now
        self._transaction = self._new()

    def _conclude(self, outlives: bool | None) -> None:
        self.outlives, self.state = outlives, State.SETTLED


def told(finding: Finding, outlives: bool | None) -> Finding:
    """The finding with what was found of its NAT's mappings: for TCP a hint."""
    if finding.face is None:
        return finding
    nat = replace(finding.face.nat, outlives_icmp=outlives)
    return replace(finding, face=replace(finding.face, nat=nat))
