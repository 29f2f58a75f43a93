"""What a technique's script is, and what it may wait for; core/pair.py runs it.
Does nothing and knows no pair: each of these tells an event that is waited for from others."""

from __future__ import annotations

from collections.abc import Callable, Generator

from punchd.words.events import ACK, RST, SYN, Connected, DeadlinePassed, PairEvent, SegmentSeen, Signal, SignalSeen

ScriptEvent = PairEvent | DeadlinePassed
Script = Generator[None, ScriptEvent, None]
Waiting = Generator[None, ScriptEvent, ScriptEvent]
Wanted = Callable[[ScriptEvent], bool]


def own(flags: int) -> Wanted:
    """A segment of ours with exactly these of SYN, ACK and RST left this host."""
    return lambda event: isinstance(event, SegmentSeen) and event.outgoing and event.flags & (SYN | ACK | RST) == flags


def peers(flags: int) -> Wanted:
    """A segment of the peer's with exactly these of SYN, ACK and RST arrived."""
    return lambda event: (
        isinstance(event, SegmentSeen) and not event.outgoing and event.flags & (SYN | ACK | RST) == flags
    )


def signal(*which: Signal) -> Wanted:
    """The peer's punchd signalled."""
    return lambda event: isinstance(event, SignalSeen) and event.signal in which


def heard(event: ScriptEvent) -> bool:
    """The initiator's punchd said anything at all."""
    return isinstance(event, SignalSeen)


def connected(event: ScriptEvent) -> bool:
    """The kernel calls the socket ESTABLISHED."""
    return isinstance(event, Connected)


def never(event: ScriptEvent) -> bool:
    """Nothing ends this wait but the attempt."""
    return False
