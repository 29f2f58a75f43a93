"""What the tests of the core say often: an attempt with fixed ports, segments seen, effects of one kind.
It refuses to hold expectations."""

from __future__ import annotations

import random
from typing import TypeVar

from punchd.core import plan
from punchd.core.attempt import Attempt
from punchd.core.initiating import Initiating
from punchd.core.pair import Pair
from punchd.core.ports import Ports
from punchd.core.responding import Responding
from punchd.core.techniques import TECHNIQUES
from punchd.core.terms import Terms
from punchd.words.effects import Effect, Report
from punchd.words.events import ACK, SYN, SYN_ACK, WINDOWS, Event, SegmentSeen, Settled, Signal
from punchd.words.notification import Fan, Notification, Offer, Spread, Syn
from punchd.words.plan import Candidate, Row

NONCE = bytes(range(16))
A, B, LOCAL = "203.0.113.2", "198.51.100.2", "10.0.1.2"
SYN_OF_A = Syn(seq=1000, window=64240, mss=1460, window_scale=7, sack_permitted=True, timestamp=None)
ISN_A, ISN_B = 1000, 5000

E = TypeVar("E")


def initiating(*techniques: str, blind: bool = False, early: bool = False, timeout_s: float = 10.0) -> Initiating:
    """An initiator's attempt at time 0, its first effects not yet asked for."""
    return Initiating(
        terms=Terms(True, NONCE, blind=blind), local=LOCAL, public=A, remote=B,
        rows=[Row(name, lanes=plan.own_random() if "birthday" in name else None) for name in techniques],
        ports=Ports(random.Random(1)), timeout_s=timeout_s, now=0.0, early=early, in_turn=True,
    )  # fmt: skip


def candidate(technique: str) -> Candidate:
    """One from port 22001 to port 23001."""
    return Candidate(Offer(technique, 22001, 23001), 22001, 23001)


def notified(*techniques: str, in_turn: bool = False, blind: bool = False) -> Notification:
    """A notification that offers these, on ports 22001/23001, 22002/23002, ..."""
    offers = tuple(_offer(name, 22001 + i, 23001 + i) for i, name in enumerate(techniques))
    return Notification(NONCE, A, B, TECHNIQUES[techniques[0]].transport, offers, in_turn, blind)


def _offer(name: str, own: int, peer: int) -> Offer:
    fan = Fan(Spread(own, 4), Spread(peer)) if "birthday" in name else None
    return Offer(name, own, peer, SYN_OF_A if name == "tcp-syni" else None, fan=fan)


def responding(
    *techniques: str, in_turn: bool = False, blind: bool = False, peer_blind: bool = False, timeout_s: float = 10.0
) -> Responding:
    """A responder's attempt at time 0."""
    return Responding(
        terms=Terms(False, NONCE, blind=blind), local="10.0.2.2",
        notification=notified(*techniques, in_turn=in_turn, blind=peer_blind),
        runnable=frozenset(techniques), ports=Ports(random.Random(2)), timeout_s=timeout_s, now=0.0,
    )  # fmt: skip


def begun(attempt: Attempt) -> list[Effect]:
    """The effects up to the moment all is settled."""
    return attempt.begin() + attempt.step(Settled(), 0.0)


def seen(
    pair: int, flags: int, *, outgoing: bool = False, seq: int = 0, ack: int = 0, window: int = 64240
) -> SegmentSeen:
    """A segment as the ring reports it."""
    return SegmentSeen(pair, outgoing, flags, seq, ack, window, 64, b"segment", 1460, 7, True, None)


def own_syn(pair: int = 0, seq: int = ISN_A) -> SegmentSeen:
    return seen(pair, SYN, outgoing=True, seq=seq)


def own_syn_ack(pair: int = 0, seq: int = ISN_A, ack: int = ISN_B + 1) -> SegmentSeen:
    return seen(pair, SYN_ACK, outgoing=True, seq=seq, ack=ack)


def peer_syn(pair: int = 0, seq: int = ISN_B) -> SegmentSeen:
    return seen(pair, SYN, seq=seq)


def peer_syn_ack(pair: int = 0, seq: int = ISN_B, ack: int = ISN_A + 1) -> SegmentSeen:
    return seen(pair, SYN_ACK, seq=seq, ack=ack)


def signalled(pair: Pair, signal: Signal) -> SegmentSeen:
    """The peer's signal on this pair, with the numbers that make it one."""
    assert pair.rcv_nxt is not None
    assert pair.snd_nxt is not None
    return seen(pair.index, ACK, seq=pair.rcv_nxt - 1, ack=pair.snd_nxt, window=WINDOWS[signal])


def those(kind: type[E], effects: list[Effect]) -> list[E]:
    """The effects of one kind."""
    return [effect for effect in effects if isinstance(effect, kind)]


def work(effects: list[Effect]) -> list[Effect]:
    """All but what is only told to the caller."""
    return [effect for effect in effects if not isinstance(effect, Report)]


def feed(attempt: Attempt, now: float, *events: Event) -> list[Effect]:
    """Several events at one time."""
    return [effect for event in events for effect in attempt.step(event, now)]
