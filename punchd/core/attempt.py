"""One attempt: what both sides of it share, and the rule by which they end with the same connection.
Holds no descriptor, no clock and no dice; asks for effects and never performs them.

Theory of operation
-------------------
Several pairs may come to work at the same moment, and each side must hand over exactly one, the same one.

  1. The responder alone chooses, and only among pairs on which the initiator's ANSWER arrived.
     It takes the first, closes the others silently, sends COMMIT on it and hands it over.
  2. The initiator hands over pair c when COMMIT came on c (or stream data, which only an application can have
     sent, so c was handed over there). It need not wait for that if c is the only pair it ever answered and the
     peer's kernel has acknowledged the answer: it then closes all others unanswered, so the responder can have
     chosen none but c. "Answered" counts what the kernel answered by itself, too: its SYN-ACK that the ring saw.

Both rules need S to be known in time, so no answer leaves the initiator but by punchd's own hand: what its kernel
says by itself leaves at hole range, or proves nothing (tcp_nutss.py). A blind initiator can't have that; its
responder therefore tries one pair at a time, and so does a blind responder, which can't say COMMIT.

Why they agree, whatever is lost, doubled or overtaken: let S be the pairs the initiator has answered. The responder
chooses within S (1). By (2) the initiator takes c either because the responder chose it, or because S = {c} for
ever. So no two different connections are handed over. The price of a lost COMMIT is time, not agreement: the
initiator repeats its ANSWER, and the responder, after its hand-over, lingers to repeat the COMMIT.

A blind initiator can't know what its kernel answered, so for it the responder works on one pair at a time: it closes
a pair before it fires the next. That holds as far as primers die on their way, and as the responder has heard all
that its kernel knew when it closed: drivers read what waits before they say that a deadline has passed.

A timed offer (words/notification.py) is the only one of its notification, so there is nothing to choose, and COMMIT
need not wait for the ANSWER: it says no more than that the initiator is heard. The initiator hands over on it, since it
was heard, and hears; the responder on the ANSWER as ever, for the same reason. So both have the one pair, but now the
initiator comes first, and may leave the other waiting if the ANSWER is lost. The end is mirrored, too: the responder
repeats its FIRE, and the initiator, after its hand-over, lingers to repeat the ANSWER; or data comes, which only the
initiator's application can have sent. A handed-over UDP socket can't be used to repeat, so there the ANSWER goes out
thrice, as COMMIT does otherwise. What the loss of the last word can cost is what it could before, at the other side.

States of the initiator (initiating.py): Priming -> Exchanging -> Lingering -> Done.
States of the responder (responding.py): Firing -> Lingering -> Done.
"""

from __future__ import annotations

from enum import Enum, auto
from itertools import pairwise
from typing import TypeGuard

from punchd.core import candidates, verdict
from punchd.core.pair import Pair
from punchd.core.script import ScriptEvent
from punchd.core.techniques import TECHNIQUES
from punchd.core.terms import Terms, secret_tag
from punchd.words.addresses import Endpoint, is_private
from punchd.words.effects import Effect, Finish, OpenFan, OpenPair, Report
from punchd.words.events import CallHeard, Cancelled, DeadlinePassed, Event, PairEvent, Settled, Signal
from punchd.words.notification import SecondMessage
from punchd.words.outcomes import Failed, Progress, Punched
from punchd.words.plan import Candidate

LINGER_S = 2.0  # how long whoever has handed over repeats the last word for a peer that still asks
UDP_WORDS = 3  # a handed-over UDP socket can't be used to repeat, so the last word goes out thrice


class State(Enum):
    """Where an attempt stands.

    PRIMING     legal: effects' results, own segments; leads to EXCHANGING; no word of the peer can matter yet
    EXCHANGING  the notification is out; any pair may be answered; leads to DONE
    FIRING      the responder's pairs start one after the other; leads to LINGERING or DONE
    LINGERING   the caller has its connection; the losers' mappings stay for what of the peer's is under way to them,
                lest it be a stray that a NAT punishes; a responder listens to repeated ANSWERs, a timed initiator to
                repeated FIREs; leads to DONE
    DONE        nothing matters any more; all pairs are closed
    """

    PRIMING = auto()
    EXCHANGING = auto()
    FIRING = auto()
    LINGERING = auto()
    DONE = auto()


PRIMING, EXCHANGING, FIRING, LINGERING, DONE = State  # each step asks, and to ask the class takes Python 3.11 85 ns


class Attempt:
    """What initiator and responder share: the pairs, the clock, the end."""

    __slots__ = (
        "_effects",
        "_linger_until",
        "expires",
        "in_turn",
        "local",
        "now",
        "pairs",
        "remote",
        "shared_nat",
        "started",
        "state",
        "targets",
        "terms",
        "timeout_s",
        "told",
    )

    def __init__(self, *, terms: Terms, local: str, remote: str, timeout_s: float, now: float, state: State) -> None:
        self.terms, self.local, self.remote = terms, local, remote
        self.targets: tuple[str, ...] = (remote,)
        """All addresses that it may send to; the first is the peer's name elsewhere."""
        self.shared_nat = False
        """Whether both sides bear one public address, as far as the initiator knows."""
        self.started = self.now = now
        self.timeout_s = timeout_s
        self.expires = now + timeout_s
        self.pairs: list[Pair] = []
        self.state = state
        self.in_turn = False
        """Whether the offers are a caller's list, each of which gets its full turn."""
        self.told = False
        """Whether the caller has had its final word."""
        self._effects: list[Effect] = []
        self._linger_until = now

    @property
    def deadline(self) -> float | None:
        """When `step` wants a DeadlinePassed; None once done."""
        if self.state is DONE:
            return None
        earliest = self._own_deadline()
        for pair in self.pairs:
            if pair.deadline is not None and pair.deadline < earliest:
                earliest = pair.deadline
        return earliest

    def begin(self) -> list[Effect]:
        """The first effects; an initiator is due a Settled event when they are performed."""
        return self._take()

    def step(self, event: Event, now: float) -> list[Effect]:
        """Take one event, return what is to be done about it, in order."""
        self.now = now
        if self.state is DONE:
            return []
        if _is_of_pair(event):
            pair = self.pairs[event.pair]
            self._on_pair(pair, pair.feed(event, now))
        else:
            self._on_own(event)
        if self.state is not DONE:
            self._consider()
        return self._take()

    def _on_own(self, event: Event) -> None:
        match event:
            case DeadlinePassed():
                for pair in self.pairs:
                    if pair.deadline is not None and pair.deadline <= self.now:
                        pair.feed(event, self.now)
                self._on_time()
            case Settled():
                self._on_settled()
            case CallHeard():
                self._on_call(event.message)
            case Cancelled():
                self._end(Failed(event.code, "the attempt was ended before it succeeded", ""))

    @property
    def done(self) -> bool:
        """Whether nothing matters any more."""
        return self.state is DONE

    @property
    def heeds_data(self) -> bool:
        """Whether stream data is news, since only an application can have sent it: the peer has handed over."""
        return self.terms.initiating or any(pair.offer.timed for pair in self.pairs)

    def _take(self) -> list[Effect]:
        effects = self._effects.copy()
        self._effects.clear()
        return effects

    def _start(self, candidate: Candidate, *, index: int | None = None) -> Pair:
        """Open a pair for the candidate and run its script to the first wait."""
        pair = Pair(len(self.pairs) if index is None else index, candidate, self.terms, self._effects)
        if index is None:
            self.pairs.append(pair)
        else:
            self.pairs[index] = pair
        self._run(pair)
        return pair

    def _run(self, pair: Pair) -> None:
        technique = TECHNIQUES[pair.offer.technique]
        script = technique.initiator if self.terms.initiating else technique.responder
        remote, ours = pair.remote or self.remote, self.terms.initiating
        if pair.offer.fan is None:
            opened = OpenPair(pair.index, technique.name, pair.own_port, remote, pair.aim_port, ours)
            self._effects.append(opened)
        else:
            tag = b"" if pair.stream else secret_tag(self.terms.nonce, "udp")
            seed = pair.lanes.seed
            pair.do(OpenFan, technique.name, pair.own_port, remote, pair.aim_port, ours=ours, tag=tag, seed=seed)
        pair.start(script(pair), self.now)

    def _report_losers(self, winner: Pair | None) -> None:
        for pair in self.pairs:
            if pair is winner:
                break
            code = verdict.pair_code(pair)
            self._report("failed", pair, code, verdict.pair_message(code))

    def _report(self, stage: str, pair: Pair, code: str | None = None, message: str | None = None) -> None:
        self._effects.append(Report(Progress(stage, pair.offer.technique, code, message)))

    def _close_others(self, chosen: Pair | None) -> None:
        for pair in self.pairs:
            if pair is not chosen and not pair.closed:
                pair.close()

    def _punched(self, pair: Pair) -> Punched:
        elapsed_ms = round((self.now - self.started) * 1000, 2)
        return Punched(
            pair.offer.technique,
            Endpoint(self.local, pair.own_port),
            Endpoint(pair.remote or self.remote, pair.aim_port),
            pair.rtt_ms(),
            elapsed_ms,
            self._tries(pair),
        )

    def _tries(self, pair: Pair) -> int:
        """What opens alike goes out together, and is one try; each round of a fan is, and each offer of a list."""
        if not pair.index:
            return 1 + pair.lanes.number
        before = self.pairs[: pair.index + 1]
        turns = sum(self.in_turn or one.offer.opening is not last.offer.opening for last, one in pairwise(before))
        return 1 + turns + pair.lanes.number

    def _failure(self) -> Failed:
        """The verdict; what the pairs saw means something else where both sides are behind one NAT."""
        failed, within = verdict.failure(self.pairs), any(is_private(pair.remote) for pair in self.pairs if pair.remote)
        return candidates.told(failed, self.remote, tried=within) if self.shared_nat else failed

    def _silence_others(self, chosen: Pair) -> bool:
        """The losers say no more, but keep what they hold. Whether there are any."""
        losers = [pair for pair in self.pairs if pair is not chosen and not pair.closed]
        for pair in losers:
            pair.silence()
        return bool(losers)

    def _end(self, failed: Failed | None = None) -> None:
        """Close everything; the caller hears `failed` unless it has had its final word."""
        self._close_others(None)
        if failed is not None and not self.told:
            self.told = True
            self._effects.append(Finish(failed))
        self.state = DONE

    def _repeat(self, pair: Pair, word: Signal) -> None:
        """The last word again, for a peer that has not heard it."""
        self._linger_until = self.now + LINGER_S
        pair.tell(word)

    def _own_deadline(self) -> float:
        return self._linger_until if self.state is LINGERING else self.expires

    def _on_time(self) -> None:
        if self.state is LINGERING:
            if self.now >= self._linger_until:
                self._end()
        elif self.now >= self.expires:
            self._report_losers(None)
            self._end(self._failure())

    def _on_settled(self) -> None: ...

    def _on_call(self, message: SecondMessage) -> None: ...

    def _on_pair(self, pair: Pair, event: ScriptEvent) -> None: ...

    def _consider(self) -> None:
        raise NotImplementedError  # each role has its own rule


def _is_of_pair(event: Event) -> TypeGuard[PairEvent]:
    """By its very class: `isinstance` takes 0.1 µs for each struct that it is not."""
    return type(event) not in _OF_ALL


_OF_ALL = {Cancelled, DeadlinePassed, Settled, CallHeard}
