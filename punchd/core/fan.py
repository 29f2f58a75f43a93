"""The conversation of core/pair.py over many 4-tuples at once: what tcp-birthday and udp-birthday have in common.
Knows no NAT: whose ports are drawn, named or guessed is the plan's matter (words/plan.py, Lanes).

      A                  NAT A           NAT B            B
      |---PRIME--------->|--x             |              |   on each lane of A's; they die on the way
      |                  |         x <----|<----FIRE-----|   on each lane of B's, in up to three rounds ...
      |<-----------------|----------------|<----FIRE-----|   ... until one meets a hole: the lane is found
      |---ANSWER---------|--------------->|------------->|   A adopts the first lane that is hit, and answers no other
      |                  |                |              |   B makes its socket, which has heard nothing yet ...
      |---ANSWER---------|--------------->|------------->|   ... so it is said twice, and B fires once more
      |<-----------------|----------------|<---COMMIT----|

Birthday and prediction are one machinery: which ports lie on the lanes is all that differs. One pair of sequence
numbers, or one tag, serves all lanes, so no TCP socket is needed before the lane is found. As one lane at most is
answered, a fan is one pair to the rule of core/attempt.py.

Where the initiator fires (Opening), it sprays in rounds, and the responder fires back on the lanes where it is heard.
If the responder's NAT counts, it is brought to a port that the second message names.

With `handshake` the first packets are SYNs, for NATs that let nothing else begin a connection. Whoever is hit by one
sends a SYN-ACK with the numbers of its own SYN, which is what both NATs' tracking wants to see; the responder's FIRE
follows as a bare ACK, and the rest is as above:

      |---SYN----------->|--x             |              |
      |<-----------------|----------------|<----SYN------|
      |---SYN-ACK--------|--------------->|------------->|
      |<-----------------|----------------|<----FIRE-----|

Where the initiator fires, the SYN-ACK hits it; it comes again on each lane that was met, until the ANSWER. No FIRE
comes before that: it would make the responder's NAT call the connection ESTABLISHED, and were the SYN-ACK lost, neither
another one nor the initiator's SYN would pass from then on (nf_conntrack_proto_tcp.c, tcp_conntracks).

A burst leaves every PACE_S, and none where the budget refuses; between rounds there is a pause that grows.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from itertools import count

from punchd.core.lanes import MEETS_MAX, ROUNDS, Burst, Lane
from punchd.core.pair import SEQ_MASK, Pair
from punchd.core.script import Script, ScriptEvent, Waiting, Wanted, never, signal
from punchd.words.effects import Adopt, Locate, Materialise, Spray
from punchd.words.events import (
    ACK,
    RST,
    SYN,
    SYN_ACK,
    Called,
    DeadlinePassed,
    Located,
    SegmentSeen,
    Signal,
    SignalSeen,
    Withheld,
)
from punchd.words.notification import Opening

PACE_S = 0.016  # between two bursts: a round of 1024 takes a quarter of a second
ASSURE_S = 0.02  # after the ANSWER that makes a socket at the responder, before the one that this hears
PAUSE_S = 0.3  # after the first round: most round trips
PAUSE_GROWTH = 1.6
PAUSE_CEILING_S = 2.0
SPARE = 8  # lanes whose local port somebody else on this host may have

Round = tuple[int, int | None, float]  # its number, its packets' TTL, the pause behind it


def initiator(pair: Pair, every_s: float) -> Script:
    """`every_s`: how long a hole may wait before it is primed again."""
    opening, hits = pair.offer.opening, _hits(pair)
    _number(pair)
    if opening in (Opening.REFIRED, Opening.CALLED):
        pair.say_primed()  # nothing that the responder could meet: it will be met
    event = None
    if opening is not Opening.PRIMED:
        event = yield from pair.bides(hits)
        if isinstance(event, Called) and event.port:
            pair.meets = event.port
            pair.lanes.aim(event.port)
        if (event is None or not hits(event)) and (yield from _has_passed(pair)):
            event = yield from pair.until(hits)
    if event is None or not hits(event):
        rounds = _holes(pair, every_s) if opening is Opening.PRIMED else _rounds()
        event = yield from _contact(pair, Signal.PRIME, rounds, hits, pair.say_primed)
    _adopt(pair, event)
    if isinstance(event, SegmentSeen) and not _acknowledges(event):
        yield from _until_fired(pair)
    _establish(pair)
    pair.tell(Signal.ANSWER)
    pair.say_answered(early=pair.stream)
    if pair.stream:
        yield from pair.answers(soon_s=ASSURE_S)
    else:
        yield from pair.repeat(signal(Signal.FIRE), again=lambda: pair.tell(Signal.ANSWER))
    yield from pair.until(never)


def responder(pair: Pair, every_s: float) -> Script:
    """The other side; it may be hit on several lanes before it is answered on one."""
    _number(pair)
    assert pair.offer.fan is not None
    if (yield from _has_passed(pair)):
        yield from pair.until(never)

    def ready() -> None:
        pair.calls |= pair.offer.opening is not Opening.PRIMED and not pair.primed
        pair.primed = True

    pair.sprays = not pair.waits
    rounds = _holes(pair, every_s) if pair.waits else _rounds(ROUNDS)
    met: list[Lane] = []  # by a SYN each

    def answered(event: ScriptEvent) -> bool:
        return _fires_back(pair, event, met)

    event = yield from _contact(pair, Signal.FIRE, rounds, lambda event: answered(event) or bool(met), ready)
    if met:
        pair.sprays = False
        event = yield from pair.until(answered, again=lambda: _send(pair, Signal.FIRE, tuple(met), flags=SYN_ACK))
    _adopt(pair, event)
    _establish(pair)
    if pair.stream:
        pair.tell(Signal.FIRE)  # answered at once, if the second ANSWER is lost
        yield from pair.heard_by_kernel()
        pair.connected = True
    pair.say_proven()
    yield from pair.until(never)


def _has_passed(pair: Pair) -> Generator[None, ScriptEvent, bool]:
    """Whether the port where the peer's holes aim is gone, or far; else we open as many as it takes to get there.

    A responder that calls names a port of its own.
    """
    port = _sought(pair)
    if port is None:
        return False
    pair.do(Locate, port)
    event = yield from pair.until(lambda event: isinstance(event, Located))
    if not isinstance(event, Located) or not event.known:
        return False
    if not port:
        pair.meets = event.port
    if event.most < 0 or event.least >= MEETS_MAX:
        return True
    pair.lanes.widen(min(event.most + 1 + SPARE, MEETS_MAX))
    return False


def _sought(pair: Pair) -> int | None:
    """The port of ours at which all of the peer's aim, where our NAT is to be brought there; 0: we shall name it."""
    fan = pair.offer.fan
    assert fan is not None
    if not fan.meets or fan.targets.count > 1:
        return None
    if pair.terms.initiating:
        return None if pair.offer.opening is Opening.PRIMED else fan.targets.first
    return 0 if pair.waits else fan.meets


def _holes(pair: Pair, every_s: float) -> Iterator[Round]:
    """The same lanes again before they age."""
    return ((0, pair.hole, every_s) for _ in count())


def _rounds(limit: int | None = None) -> Iterator[Round]:
    """All the way, with fresh ports as long as there are any."""
    pause_s = PAUSE_S
    for number in count():
        if number == limit:
            return
        yield number, None, pause_s
        pause_s = min(pause_s * PAUSE_GROWTH, PAUSE_CEILING_S)


def _contact(pair: Pair, word: Signal, rounds: Iterator[Round], wanted: Wanted, ready: Callable[[], None]) -> Waiting:
    """Round after round, until the event that is wanted; after the last one, wait for it."""
    for number, ttl, pause_s in rounds:
        for burst in pair.lanes.bursts(number):
            pair.lanes.note(burst, pair.now, number=number)
            event = yield from _spray(pair, word, burst, ttl, wanted, number)
            if not isinstance(event, DeadlinePassed):
                return event
        ready()
        event = yield from pair.until(wanted, within_s=pause_s)
        if not isinstance(event, DeadlinePassed):
            return event
    pair.sprays = False
    return (yield from pair.until(wanted))


def _spray(pair: Pair, word: Signal, burst: Burst, ttl: int | None, wanted: Wanted, number: int) -> Waiting:
    """One burst, as soon as the budget has it, and the pause behind it.

    Where our NAT is to be brought to a port, it is no longer where it was when the budget has it.
    """
    first = SYN if _handshakes(pair) else ACK
    while True:
        _send(pair, word, burst, flags=first, ttl=ttl)
        event = yield from pair.until(lambda event: isinstance(event, Withheld) or wanted(event), within_s=PACE_S)
        if not isinstance(event, Withheld):
            return event
        event = yield from pair.until(wanted, within_s=event.for_s)
        if not isinstance(event, DeadlinePassed):
            return event
        if number == 0 and _sought(pair) is not None:
            if (yield from _has_passed(pair)):
                return (yield from pair.until(wanted))
            (burst,) = pair.lanes.bursts(number)
            pair.lanes.note(burst, pair.now)


def _fires_back(pair: Pair, event: ScriptEvent, met: list[Lane]) -> bool:
    """Whether it is the ANSWER; a lane on which the initiator is heard otherwise gets a FIRE of its own.

    To a SYN it is a SYN-ACK, and the lane joins those that were `met`.
    """
    if signal(Signal.ANSWER)(event):
        return True
    first = _is_first(pair, event)
    if not (first or signal(Signal.PRIME)(event)):
        return False
    lane, flags = _lane(event), SYN_ACK if first and not _acknowledges(event) else ACK
    if flags == SYN_ACK and lane not in met:
        met.append(lane)
    pair.lanes.note((lane,), pair.now)
    _send(pair, Signal.FIRE, (lane,), flags=flags)
    return False


def _hits(pair: Pair) -> Wanted:
    """The responder's FIRE, or the segment of the handshake that stands for it."""
    fire = signal(Signal.FIRE)
    return lambda event: fire(event) or _is_first(pair, event)


def _is_first(pair: Pair, event: ScriptEvent) -> bool:
    """A SYN or SYN-ACK of the peer's punchd, with the right numbers."""
    if not isinstance(event, SegmentSeen) or event.outgoing or not event.flags & SYN or event.flags & RST:
        return False
    return (event.seq + 1) & SEQ_MASK == pair.rcv_nxt and (not event.flags & ACK or event.ack == pair.snd_nxt)


def _acknowledges(event: ScriptEvent) -> bool:
    return isinstance(event, SegmentSeen) and bool(event.flags & ACK)


def _until_fired(pair: Pair) -> Script:
    """The handshake's second segment, until its third one comes."""

    def again() -> None:
        assert pair.lanes.chosen is not None
        _send(pair, Signal.PRIME, (pair.lanes.chosen,), flags=SYN_ACK)

    again()
    yield from pair.until(signal(Signal.FIRE), again)


def _lane(event: ScriptEvent) -> Lane:
    assert isinstance(event, SegmentSeen | SignalSeen)
    return event.local_port, event.remote_port


def _adopt(pair: Pair, event: ScriptEvent) -> None:
    """The lane of this event is the pair's 4-tuple."""
    lane = pair.lanes.chosen = pair.own_port, pair.aim_port = _lane(event)
    pair.fired_at, pair.reach_at = pair.lanes.sent_at(lane), pair.now
    if pair.terms.initiating:
        pair.fired_at = pair.reach_at = None  # its round trip begins with the ANSWER
    pair.do(Adopt, *lane, ttl=pair.hole, seq=pair.snd_nxt or 0, public=_public(pair))


def _public(pair: Pair) -> int:
    """What our NAT that counts has made of the lane that was found: the one port at which the peer's aim, or 0."""
    theirs = 0 if pair.offer.fan is None or pair.offer.fan.targets.count > 1 else pair.offer.fan.targets.first
    own, peers = (theirs, pair.meets) if pair.terms.initiating else (pair.meets, theirs)
    return own if pair.meets and pair.aim_port == peers else 0


def _establish(pair: Pair) -> None:
    if pair.snd_nxt is not None and pair.rcv_nxt is not None:
        pair.do(Materialise, snd_nxt=pair.snd_nxt, rcv_nxt=pair.rcv_nxt)
    else:
        pair.connected = True


def _send(pair: Pair, word: Signal, burst: Burst, *, flags: int, ttl: int | None = None) -> None:
    seq = ((pair.snd_nxt or 0) - 1) & SEQ_MASK
    ack = pair.rcv_nxt or 0 if flags & ACK else 0
    pair.do(Spray, word, burst, ttl=ttl, seq=seq, ack=ack, flags=flags)


def _handshakes(pair: Pair) -> bool:
    return pair.stream and pair.offer.fan is not None and pair.offer.fan.handshake


def _number(pair: Pair) -> None:
    """One pair of numbers for all lanes, from the nonce: nobody else can guess them."""
    fan = pair.offer.fan
    assert fan is not None
    if pair.stream:
        ports = f"{fan.targets.first}+{fan.targets.count} {fan.sources.first}+{fan.sources.count} {fan.handshake}"
        pair.number(ports)
