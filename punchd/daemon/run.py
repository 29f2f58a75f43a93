"""One attempt at work, as the driver keeps it, and to whom it reports.
Performs nothing; daemon/driver.py does."""

from __future__ import annotations

import errno
from collections import deque
from typing import Protocol

from punchd.core.attempt import Attempt
from punchd.daemon.clockwork import Alarm
from punchd.daemon.held import Held
from punchd.edge.records import Seen, SeenIcmp
from punchd.words.effects import Effect, Inject, OpenPair, Resend, Spray, Tell
from punchd.words.errors import Code
from punchd.words.events import EffectFailed, Event, IcmpSeen, PacketRefused, SegmentSeen, StraySeen
from punchd.words.notification import Notification, SecondMessage
from punchd.words.outcomes import Failed, Progress, Punched


class Caller(Protocol):
    """Who is told how an attempt goes; `name` is for the log, `uid` for the budget.

    `alone`: nothing else is to be done in this turn of the loop, so what is said need not wait for its end.
    """

    alone: bool

    @property
    def name(self) -> str: ...
    @property
    def uid(self) -> int: ...

    def notification(self, notification: Notification) -> None: ...
    def call_back(self, message: SecondMessage) -> None: ...
    def progress(self, progress: Progress) -> None: ...
    def early(self, fd: int, technique: str, local: str, remote: str) -> None: ...
    def punched(self, outcome: Punched, fd: int | None) -> None: ...
    def failed(self, outcome: Failed) -> None: ...
    def ended(self) -> None: ...


class Journal(Protocol):
    """Where a run's steps are written, if anybody asked."""

    def step(self, event: Event | None, now: float, state: str, effects: list[Effect]) -> None: ...
    def close(self) -> None: ...


class Run:
    """One attempt at work: its machine, its pairs' descriptors, its alarm, and what it has sent since it last paid.

    arriving, dying  packets sent all the way, and at hole range
    muted            the target's budget is overdrawn
    """

    __slots__ = (
        "alarm", "arriving", "attempt", "broken", "busy", "caller", "dying", "held", "inbox", "journal", "muted",
    )  # fmt: skip

    def __init__(self, attempt: Attempt, caller: Caller, journal: Journal | None) -> None:
        self.attempt, self.caller, self.journal = attempt, caller, journal
        self.held: dict[int, Held] = {}
        self.inbox: deque[Event] = deque()
        self.busy = self.broken = False
        self.alarm: Alarm | None = None
        self.arriving = self.dying = 0
        self.muted = False

    def count(self, ttl: int | None) -> None:
        """One packet more."""
        if ttl is None:
            self.arriving += 1
        else:
            self.dying += 1


def event_of(pair: int, record: Seen | SeenIcmp) -> Event:
    """What a record of the ring tells the pair."""
    if isinstance(record, SeenIcmp):
        return IcmpSeen(pair, record.type, record.code, record.sender)
    if record.other_port:
        return StraySeen(pair, record.other_port, record.flags, record.ttl)
    return SegmentSeen(pair, *record[4:])


def effect_failed(pair: int, effect: Effect, error: OSError) -> EffectFailed:
    """What the kernel's refusal of an effect comes to."""
    if isinstance(effect, OpenPair | Spray) and error.errno == errno.EACCES:
        code = Code.PORT_REFUSED
    elif error.errno in _TAKEN:
        code = Code.PORT_TAKEN
    elif error.errno in _DESCRIPTORS:
        code = Code.OUT_OF_DESCRIPTORS
    else:
        code = Code.HOST_REFUSED
    name = type(effect).__name__
    return EffectFailed(pair, name, code, f"{name}: {error.strerror or error}")


def packet_refused(effect: Effect, error: OSError) -> PacketRefused | None:
    """None: the refusal is not of the kind that a packet may meet on any hop."""
    if isinstance(effect, Resend | Inject | Tell | Spray) and error.errno in _LOST:
        return PacketRefused(effect.pair, type(effect).__name__, error.errno)
    return None


# The host's own firewall dropped it, a queue is full, the route is gone: lost, as a packet may be on any hop.
_LOST = {errno.EPERM, errno.ENOBUFS, errno.EAGAIN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}
_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}
_TAKEN = {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EEXIST}
