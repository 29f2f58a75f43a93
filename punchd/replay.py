"""Plays a journal again: does the core still do what it did, and what was that? `python -m punchd.replay FILE`
Sends nothing and opens nothing but the file: effects are compared and printed, never performed.

    initiating from 203.0.113.2 to 198.51.100.2: tcp-simopen, tcp-midstream (punchd 0.1.0)
        0.0 ms  + pair 0: tcp-simopen, port 26581 to 198.51.100.2:26729
        0.0 ms  + pair 0: connect, ttl 2
        0.1 ms  > pair 0: SYN seq 3602007789, ttl 2
      150.2 ms  < pair 0: SYN seq 2391589129, ttl 59
    12 steps: the core does the same today
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from punchd.core.attempt import Attempt
from punchd.core.initiating import Initiating
from punchd.core.ports import Ports
from punchd.core.responding import Responding
from punchd.core.terms import Terms
from punchd.wire.journal import Head, JournalError, Step, Written, as_written, decode
from punchd.words.events import (
    BY_WINDOW,
    Called,
    CallHeard,
    Cancelled,
    Connected,
    DeadlinePassed,
    EffectFailed,
    Event,
    Flags,
    IcmpSeen,
    KernelHeard,
    Located,
    PacketRefused,
    Readable,
    SegmentSeen,
    Settled,
    Signal,
    SignalSeen,
    SocketFailed,
    StraySeen,
    Withheld,
)


@dataclass(frozen=True, slots=True)
class Replay:
    """A journal, and where the core of today leaves it: empty when it does not."""

    head: Head
    steps: tuple[Step, ...]
    differences: tuple[str, ...]


def main(path: str) -> int:
    """Print the run as a ladder, and whether it is the same today. 0: it is; 1: it is not; 2: no journal."""
    try:
        with Path(path).open("rb") as file:
            run = replay(file)
    except (OSError, JournalError) as error:
        print(f"{path}: {error}", file=sys.stderr)  # noqa: T201 - output of a command
        return 2
    for line in ladder(run):
        print(line)  # noqa: T201 - output of a command
    return 1 if run.differences else 0


def replay(lines: Iterable[bytes]) -> Replay:
    """Feed a fresh attempt the recorded events at the recorded times. JournalError when it can't be read."""
    head, steps = decode(lines)
    recorded = tuple(steps)
    attempt = rebuild(head, recorded)
    return Replay(head, recorded, tuple(_differences(attempt, recorded)))


def rebuild(head: Head, steps: tuple[Step, ...]) -> Attempt:
    """The attempt as it was before its beginning; it will draw the ports that it opened then."""
    if head.role == "responding":
        if head.notification is None:
            raise JournalError("line 1: a responder without a notification")
        return Responding(
            terms=Terms(False, head.nonce, head.hole_ttl, head.blind), local=head.local,
            notification=head.notification, runnable=frozenset(head.runnable), ports=_Drawn(steps, initiating=False),
            timeout_s=head.timeout_s, now=head.now,
        )  # fmt: skip
    return Initiating(
        terms=Terms(True, head.nonce, head.hole_ttl, head.blind), local=head.local, public=head.public,
        remote=head.remote, rows=head.rows, ports=_Drawn(steps, initiating=True), timeout_s=head.timeout_s,
        now=head.now, early=head.early, in_turn=head.in_turn,
    )  # fmt: skip


def ladder(run: Replay) -> Iterator[str]:
    """Lines for people, with the log's signs: < seen, > sent, = state, + opened, x closed, - time, ! fault."""
    yield _title(run.head)
    state = ""
    for step in run.steps:
        ms = f"{(step.at - run.head.now) * 1000:9.1f} ms"
        if step.event is not None:
            yield f"{ms}  {_tell_event(step.event)}"
        if step.state != state:
            state = step.state
            yield f"{ms}  = {state.lower()}"
        for name, fields in step.effects:
            if name != "SetTtl":
                yield f"{ms}  {_tell_effect(name, fields)}"
    yield from (f"! {difference}" for difference in run.differences)
    verdict = "the core does something else today" if run.differences else "the core does the same today"
    yield f"{len(run.steps)} steps: {verdict}"


def _differences(attempt: Attempt, steps: tuple[Step, ...]) -> Iterator[str]:
    for number, step in enumerate(steps):
        effects = attempt.begin() if step.event is None else attempt.step(step.event, step.at)
        written = as_written(effects)
        where = f"step {number}, {type(step.event).__name__ if step.event else 'the beginning'}"
        if written != step.effects:
            yield f"{where}: it did {_names(step.effects)}, now it does {_names(written)}"
        elif attempt.state.name != step.state:
            yield f"{where}: it went to {step.state.lower()}, now to {attempt.state.name.lower()}"


def _names(effects: tuple[Written, ...]) -> str:
    return "; ".join(_tell_effect(name, fields) for name, fields in effects) or "nothing"


class _Drawn(Ports):
    """Draws what the journal says was drawn."""

    __slots__ = ("_left", "_seeds")

    def __init__(self, steps: tuple[Step, ...], *, initiating: bool) -> None:
        effects = [
            effect
            for step in steps
            if not isinstance(step.event, CallHeard)  # it names the port
            for effect in step.effects
        ]
        self._seeds = [fields["seed"] for name, fields in effects if name == "OpenFan"]
        opened = [fields for name, fields in effects if name == "OpenPair" or (name == "OpenFan" and initiating)]
        if not initiating:  # a responder draws only what it opens for the second time
            seen: set[int] = set()
            opened = [fields for fields in opened if _again(seen, fields["pair"])]
        self._left = [(fields["local_port"], fields["remote_port"]) for fields in opened]

    def draw(self, *, own_listens: bool = False, peer_listens: bool = False) -> tuple[int, int]:
        if not self._left:
            raise JournalError("it ends before its attempt had begun, or the core draws more ports today")
        return self._left.pop(0)

    def seed(self, count: int) -> int:
        if not self._seeds:
            raise JournalError("it ends before its attempt had begun, or the core draws more fans today")
        return int(self._seeds.pop(0))


def _again(seen: set[int], pair: int) -> bool:
    known = pair in seen
    seen.add(pair)
    return known


def _title(head: Head) -> str:
    if head.notification is not None:
        offers = ", ".join(offer.technique for offer in head.notification.offers)
        return f"responding to {head.notification.initiator}: {offers} (punchd {head.punchd})"
    techniques = ", ".join(dict.fromkeys(row.technique for row in head.rows))
    return f"initiating from {head.public} to {head.remote}: {techniques} (punchd {head.punchd})"


def _tell_event(event: Event) -> str:
    match event:
        case SegmentSeen():
            sign = ">" if event.outgoing else "<"
            return f"{sign} pair {event.pair}: {_segment(event)}"
        case StraySeen():
            return f"< pair {event.pair}: {_FLAGS.get(Flags(event.flags), 'a segment')} from port {event.port}"
        case SignalSeen():
            return f"< pair {event.pair}: {event.signal.name}"
        case Connected():
            return f"= pair {event.pair}: connected"
        case KernelHeard():
            return f"= pair {event.pair}: the socket has heard"
        case Readable():
            return f"< pair {event.pair}: stream data"
        case SocketFailed():
            return f"! pair {event.pair}: the socket failed with errno {event.errno}"
        case IcmpSeen():
            return f"< pair {event.pair}: ICMP {event.type}/{event.code} from {event.sender}"
        case PacketRefused():
            return f"! pair {event.pair}: {event.effect} was not sent, errno {event.errno}"
        case EffectFailed():
            return f"! pair {event.pair}: {event.code}, {event.cause}"
        case Withheld():
            return f"! pair {event.pair}: the budget refuses for {event.for_s * 1000:.1f} ms"
        case Located():
            far = f"{event.least} to {event.most} mappings away" if event.known else "somewhere"
            return f"= pair {event.pair}: that port is {far}"
        case CallHeard():
            return f"< second message: {len(event.message.ready)} ready"
        case Called():
            return f"< pair {event.pair}: called"
        case Cancelled():
            return f"! {event.code}"
        case Settled():
            return "= all is performed"
        case DeadlinePassed():
            return "- the deadline has passed"
        case _:
            assert_never(event)


def _segment(event: SegmentSeen) -> str:
    said = _FLAGS.get(Flags(event.flags), f"flags {event.flags:#x}")
    if event.flags == Flags.ACK and event.window in BY_WINDOW:
        said = BY_WINDOW[event.window].name
    ack = f" ack {event.ack}" if event.flags & Flags.ACK else ""
    return f"{said} seq {event.seq}{ack}, ttl {event.ttl}"


_FLAGS = {Flags.SYN: "SYN", Flags.SYN | Flags.ACK: "SYN-ACK", Flags.ACK: "ACK", Flags.RST: "RST"}

# Effect -> sign and words, with the effect's own fields.
_EFFECTS = {
    "OpenPair": "+ pair {pair}: {technique}, port {local_port} to {remote_address}:{remote_port}",
    "OpenFan": "+ pair {pair}: {technique} to {remote_address}",
    "Spray": "> pair {pair}: {signal} on {lanes} lanes, ttl {ttl}",
    "Locate": "= pair {pair}: how far is our NAT from port {port}?",
    "Adopt": "= pair {pair}: port {local_port} to port {remote_port}, the others forgotten",
    "Connect": "+ pair {pair}: connect, ttl {ttl}",
    "Abort": "x pair {pair}: abort",
    "Listen": "+ pair {pair}: listen, ttl {ttl}",
    "Materialise": "+ pair {pair}: established by repair, seq {snd_nxt} ack {rcv_nxt}",
    "OpenDatagram": "+ pair {pair}: datagrams",
    "SetTtl": "= pair {pair}: ttl {ttl}",
    "AskKernel": "= pair {pair}: has the socket heard?",
    "Resend": "> pair {pair}: the captured segment again, ttl {ttl}",
    "Inject": "> pair {pair}: the peer's SYN, into our own stack",
    "Tell": "> pair {pair}: {signal}, ttl {ttl}",
    "Clear": "> pair {pair}: RST, ttl {ttl}",
    "ClosePair": "x pair {pair}: close",
    "Notify": "> the notification, to the application",
    "CallBack": "> the second message, to the application",
    "Report": "= {progress[stage]} {progress[technique]}",
    "HandOver": "= pair {pair}: handed over, {technique}",
    "Finish": "= the final word",
}


def _tell_effect(name: str, fields: dict[str, Any]) -> str:
    known = dict(fields)
    if known.get("ttl", 0) is None:
        known["ttl"] = "full"
    if name in ("Tell", "Spray"):
        known["signal"] = Signal(fields["signal"]).name
    if name == "Spray":
        known["lanes"] = len(fields["lanes"])
    if name == "Finish" and "code" in fields["outcome"]:
        return f"! {fields['outcome']['code']}: {fields['outcome']['message']}"
    if name == "Report" and fields["progress"]["code"]:
        return f"! {fields['progress']['technique']} failed: {fields['progress']['code']}"
    try:
        return _EFFECTS[name].format_map(known)
    except (KeyError, TypeError):
        return f"= {name} {fields}"  # an effect of another version


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m punchd.replay FILE")
    sys.exit(main(sys.argv[1]))
