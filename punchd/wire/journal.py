"""A journal's lines: one head with all that an attempt is made of, then one line a step; JSON, one object a line.
Reads no file and runs no attempt; it knows only words.

    {"punchd":"0.1.0","role":"initiating","now":812.5,"nonce":"...","rows":[{"technique":"tcp-simopen", ...}], ...}
    {"at":812.5,"event":null,"state":"PRIMING","effects":[["OpenPair",{"pair":0, ...}], ...]}
    {"at":812.7,"event":["SegmentSeen",{"pair":0,"outgoing":false, ...}],"state":"EXCHANGING","effects":[]}

Times are seconds of the daemon's monotonic clock; bytes are base64. The first step, without an event, is the
attempt's begin(). Effects are kept as they were written: a replay compares them and performs none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from punchd.words import events
from punchd.words.effects import Effect
from punchd.words.events import Event
from punchd.words.notification import Notification
from punchd.words.plan import Row

EVENTS: Final[dict[str, type[Any]]] = {
    word.__name__: word
    for word in (
        events.SegmentSeen, events.StraySeen, events.SignalSeen, events.Connected, events.KernelHeard, events.Readable,
        events.SocketFailed, events.IcmpSeen, events.PacketRefused, events.EffectFailed, events.Withheld,
        events.Located, events.CallHeard, events.Called, events.Cancelled,
        events.Settled, events.DeadlinePassed,
    )
}  # fmt: skip

Written = tuple[str, dict[str, Any]]


class Head(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What an attempt was made of. Initiators have no notification; responders have the last six lines only.

    The ports an initiator drew are those of its OpenPair effects.
    """

    punchd: str
    role: str
    now: float
    timeout_s: float
    nonce: bytes
    hole_ttl: int
    blind: bool
    local: str
    remote: str = ""
    public: str = ""
    rows: tuple[Row, ...] = ()
    early: bool = False
    in_turn: bool = False
    notification: Notification | None = None
    runnable: tuple[str, ...] = ()


class Step(msgspec.Struct, frozen=True, gc=False):
    """One step as it was written. No event: the beginning."""

    at: float
    event: Event | None
    state: str
    effects: tuple[Written, ...]


class JournalError(ValueError):
    """The lines are no journal; the message says where."""


def encode_head(head: Head) -> bytes:
    """The first line."""
    return _encoder.encode(head) + b"\n"


def encode_step(event: Event | None, at: float, state: str, effects: Sequence[Effect]) -> bytes:
    """One more line."""
    said = None if event is None else (type(event).__name__, event)
    line = {"at": at, "event": said, "state": state, "effects": [(type(effect).__name__, effect) for effect in effects]}
    return _encoder.encode(line) + b"\n"


def as_written(effects: Iterable[Effect]) -> tuple[Written, ...]:
    """Effects as a step read from a journal holds them."""
    return tuple((type(effect).__name__, _builtins.decode(_encoder.encode(effect))) for effect in effects)


def decode(lines: Iterable[bytes]) -> tuple[Head, Iterator[Step]]:
    """Head and steps. JournalError names the line; a last one without its end (kill -9) is left out."""
    numbered = enumerate(lines, 1)
    try:
        head = _heads.decode(next(numbered)[1])
    except StopIteration:
        raise JournalError("it is empty") from None
    except msgspec.MsgspecError as error:
        raise JournalError(f"line 1 is no journal's head: {error}") from error
    return head, _steps(numbered)


def _steps(numbered: Iterator[tuple[int, bytes]]) -> Iterator[Step]:
    for number, line in numbered:
        if not line.endswith(b"\n"):
            return
        try:
            step = _read(line)
        except (msgspec.MsgspecError, KeyError) as error:
            raise JournalError(f"line {number} is no step: {error}") from error
        yield step


def _read(line: bytes) -> Step:
    raw = _raw_steps.decode(line)
    event = None if raw.event is None else msgspec.json.decode(raw.event[1], type=EVENTS[raw.event[0]])
    return Step(raw.at, event, raw.state, tuple(raw.effects))


class _RawStep(msgspec.Struct):
    at: float
    event: tuple[str, msgspec.Raw] | None
    state: str
    effects: list[tuple[str, dict[str, Any]]]


_encoder = msgspec.json.Encoder()
_heads = msgspec.json.Decoder(Head)
_raw_steps = msgspec.json.Decoder(_RawStep)
_builtins = msgspec.json.Decoder(dict[str, Any])
