"""One attempt: all its candidate pairs, and the rule by which both sides end with the same connection.
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

States, initiator: Priming -> Exchanging -> Done. Responder: Firing -> Lingering -> Done.
"""

from __future__ import annotations

from enum import Enum, auto

from punchd.core import verdict
from punchd.core.pair import Pair, ScriptEvent, Terms
from punchd.core.plan import offer as make_offer
from punchd.core.ports import Ports
from punchd.core.techniques import TECHNIQUES
from punchd.words.addresses import Endpoint
from punchd.words.effects import Effect, Finish, HandOver, Notify, OpenPair, Report
from punchd.words.events import (
    SYN_ACK,
    Cancelled,
    DeadlinePassed,
    EffectFailed,
    Event,
    SegmentSeen,
    Settled,
    Signal,
    SignalSeen,
)  # fmt: skip
from punchd.words.notification import Notification, Offer
from punchd.words.outcomes import Failed, Progress, Punched

STAGGER_S = 0.1  # between the starts of two techniques of `auto`
TURN_S = 1.0  # what each technique of an explicit list gets before the next starts
LINGER_S = 2.0  # how long a responder repeats COMMIT for an initiator that still asks
UDP_COMMITS = 3  # a handed-over UDP socket can't be used to repeat, so COMMIT goes out thrice
REDRAWS = 3  # fresh ports drawn when one of ours is taken


class State(Enum):
    """Where an attempt stands.

    PRIMING     legal: effects' results, own segments; leads to EXCHANGING; no word of the peer can matter yet
    EXCHANGING  the notification is out; any pair may be answered; leads to DONE
    FIRING      the responder's pairs start one after the other; leads to LINGERING or DONE
    LINGERING   the caller has its connection; only the peer's repeated ANSWER is listened to; leads to DONE
    DONE        nothing matters any more; all pairs are closed
    """

    PRIMING = auto()
    EXCHANGING = auto()
    FIRING = auto()
    LINGERING = auto()
    DONE = auto()


class Attempt:
    """What initiator and responder share: the pairs, the clock, the end."""

    __slots__ = (
        "_effects",
        "expires",
        "local",
        "now",
        "pairs",
        "remote",
        "started",
        "state",
        "terms",
        "timeout_s",
        "told",
    )

    def __init__(self, *, terms: Terms, local: str, remote: str, timeout_s: float, now: float, state: State) -> None:
        self.terms, self.local, self.remote = terms, local, remote
        self.started = self.now = now
        self.timeout_s = timeout_s
        self.expires = now + timeout_s
        self.pairs: list[Pair] = []
        self.state = state
        self.told = False
        """Whether the caller has had its final word."""
        self._effects: list[Effect] = []

    @property
    def deadline(self) -> float | None:
        """When `step` wants a DeadlinePassed; None once done."""
        if self.state is State.DONE:
            return None
        times = [pair.deadline for pair in self.pairs if pair.deadline is not None]
        own = self._own_deadline()
        return min([*times, own]) if times else own

    def begin(self) -> list[Effect]:
        """The first effects; a Settled event is due when they are performed."""
        return self._take()

    def step(self, event: Event, now: float) -> list[Effect]:
        """Take one event, return what is to be done about it, in order."""
        self.now = now
        if self.state is State.DONE:
            return []
        match event:
            case Cancelled():
                self._end(Failed(event.code, "the attempt was ended before it succeeded", ""))
            case DeadlinePassed():
                for pair in self.pairs:
                    if pair.deadline is not None and pair.deadline <= now:
                        pair.feed(event, now)
                self._on_time()
            case Settled():
                self._on_settled()
            case _:
                pair = self.pairs[event.pair]
                self._on_pair(pair, pair.feed(event, now))
        if not self.done:
            self._consider()
        return self._take()

    @property
    def done(self) -> bool:
        """Whether nothing matters any more."""
        return self.state is State.DONE

    def _take(self) -> list[Effect]:
        effects = self._effects[:]
        self._effects.clear()
        return effects

    def _start(self, offer: Offer, *, index: int | None = None) -> Pair:
        """Open a pair for the offer and run its script to the first wait."""
        pair = Pair(len(self.pairs) if index is None else index, offer, self.terms, self._effects)
        if index is None:
            self.pairs.append(pair)
        else:
            self.pairs[index] = pair
        self._run(pair)
        return pair

    def _run(self, pair: Pair) -> None:
        technique, offer = TECHNIQUES[pair.offer.technique], pair.offer
        own, peer = offer.initiator_port, offer.responder_port
        script = technique.initiator
        if not self.terms.initiating:
            own, peer, script = peer, own, technique.responder
        pair.do(OpenPair, technique.name, own, self.remote, peer, ours=self.terms.initiating)
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
        own, peer = pair.offer.initiator_port, pair.offer.responder_port
        if not self.terms.initiating:
            own, peer = peer, own
        elapsed_ms = round((self.now - self.started) * 1000, 2)
        return Punched(
            pair.offer.technique,
            Endpoint(self.local, own),
            Endpoint(self.remote, peer),
            pair.rtt_ms(),
            elapsed_ms,
        )

    def _end(self, failed: Failed | None = None) -> None:
        """Close everything; the caller hears `failed` unless it has had its final word."""
        self._close_others(None)
        if failed is not None and not self.told:
            self.told = True
            self._effects.append(Finish(failed))
        self.state = State.DONE

    def _own_deadline(self) -> float:
        return self.expires

    def _on_time(self) -> None:
        if self.now >= self.expires:
            self._report_losers(None)
            self._end(verdict.failure(self.pairs))

    def _on_settled(self) -> None: ...

    def _on_pair(self, pair: Pair, event: ScriptEvent) -> None: ...

    def _consider(self) -> None:
        raise NotImplementedError  # each role has its own rule


class Initiating(Attempt):
    """The initiator's side: primes every pair, speaks once, answers, and takes what the responder chose."""

    __slots__ = (
        "_early_given",
        "_heard",
        "_ports",
        "_redraws",
        "_settled",
        "early",
        "in_turn",
        "patience_ms",
        "public",
        "techniques",
    )

    def __init__(
        self, *, terms: Terms, local: str, public: str, remote: str, techniques: list[str], ports: Ports,
        timeout_s: float, now: float, early: bool = False, in_turn: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(terms=terms, local=local, remote=remote, timeout_s=timeout_s, now=now, state=State.PRIMING)
        self._ports, self._redraws = ports, REDRAWS
        self._early_given: Pair | None = None
        self.public, self.techniques, self.early = public, techniques, early
        self.in_turn, self.patience_ms = in_turn, int(timeout_s * 1000)
        self._settled = False
        self._heard: set[int] = set()
        for name in techniques:
            self._start(make_offer(name, ports))

    def _on_settled(self) -> None:
        self._settled = True

    def _on_pair(self, pair: Pair, event: ScriptEvent) -> None:
        if pair.answered and pair.index not in self._heard:
            self._heard.add(pair.index)
            self._report("heard", pair)
        if (
            isinstance(event, EffectFailed)
            and self.state is State.PRIMING
            and pair.fail_code == "port-taken"
            and self._redraws
        ):
            self._redraws -= 1
            pair.close()
            self._start(make_offer(pair.offer.technique, self._ports), index=pair.index)

    def _consider(self) -> None:
        if self.state is State.PRIMING:
            self._consider_notifying()
            return
        answered = [pair for pair in self.pairs if pair.answered]
        if self.early and not self._early_given and len(answered) == 1 and answered[0].early:
            self._early_given = answered[0]
            self._close_others(answered[0])
            self._effects.append(HandOver(answered[0].index, answered[0].offer.technique, early=True))
        heard = [pair for pair in self.pairs if pair.answered or pair.connected or pair.evidence.own_syn_ack]
        for pair in answered:
            alone = pair.handshake and len(heard) == 1
            if pair.connected and not pair.closed and pair.fail_code is None and (pair.committed or alone):
                self._take_over(pair)
                return
        if all(pair.fail_code is not None for pair in self.pairs):
            self._report_losers(None)
            self._end(verdict.failure(self.pairs))

    def _consider_notifying(self) -> None:
        if not self._settled or not all(pair.primed or pair.fail_code is not None for pair in self.pairs):
            return
        primed = [pair for pair in self.pairs if pair.primed and pair.fail_code is None]
        if not primed:
            self._report_losers(None)
            self._end(verdict.failure(self.pairs))
            return
        self.state = State.EXCHANGING
        offers = tuple(Offer(p.offer.technique, p.offer.initiator_port, p.offer.responder_port, p.syn) for p in primed)
        self._effects.append(
            Notify(
                Notification(
                    self.terms.nonce,
                    self.public,
                    self.remote,
                    TECHNIQUES[offers[0].technique].transport,
                    offers,
                    self.in_turn,
                    self.terms.blind,
                    self.patience_ms,
                )
            )
        )

    def _take_over(self, pair: Pair) -> None:
        self._report_losers(pair)
        self._close_others(pair)
        outcome = self._punched(pair)
        self.told = True
        if self._early_given is pair:
            self._effects.append(Finish(outcome))
        else:
            self._effects.append(HandOver(pair.index, pair.offer.technique, outcome=outcome))
        pair.release()
        self.state = State.DONE


class Responding(Attempt):
    """The responder's side: fires pair after pair, chooses the first proven one, and says so."""

    __slots__ = ("_linger_until", "_next_at", "_offers", "_pause_s", "_serial", "notification", "runnable")

    def __init__(
        self,
        *,
        terms: Terms,
        local: str,
        notification: Notification,
        runnable: frozenset[str],
        timeout_s: float,
        now: float,
    ) -> None:
        super().__init__(
            terms=terms,
            local=local,
            remote=notification.initiator,
            timeout_s=min(timeout_s, notification.patience_ms / 1000),
            now=now,
            state=State.FIRING,
        )
        self.notification, self.runnable = notification, runnable
        self._offers = [o for o in notification.offers if o.technique in runnable]
        self._serial = notification.blind or terms.blind
        self._pause_s = TURN_S if notification.in_turn or self._serial else STAGGER_S
        self._next_at = now
        self._linger_until = now

    def begin(self) -> list[Effect]:
        """The effects that fire the first pair."""
        self._fire_next()
        self._consider()
        return self._take()

    def _own_deadline(self) -> float:
        if self.state is State.LINGERING:
            return self._linger_until
        return min(self.expires, self._next_at) if self._offers else self.expires

    def _on_time(self) -> None:
        if self.state is State.LINGERING:
            if self.now >= self._linger_until:
                self._end()
            return
        if self._offers and self._next_at <= self.now < self.expires:
            self._fire_next()
        super()._on_time()

    def _fire_next(self) -> None:
        if self._serial:
            self._close_others(None)  # a blind side can't be told which of two it is to take
        pair = self._start(self._offers.pop(0))
        self._next_at = self.now + self._pause_s
        self._report("trying", pair)

    def _on_pair(self, pair: Pair, event: ScriptEvent) -> None:
        if self.state is State.LINGERING and pair.committed:
            asks_again = isinstance(event, SignalSeen | SegmentSeen) and _is_answer(event)
            if asks_again:
                self._linger_until = self.now + LINGER_S
                pair.tell(Signal.COMMIT)

    def _consider(self) -> None:
        if self.state is State.LINGERING:
            return
        for pair in self.pairs:
            if pair.proven and not pair.closed and pair.fail_code is None:
                self._choose(pair)
                return
        if self.pairs and self.pairs[-1].fail_code is not None and self._offers:
            self._fire_next()
        elif not self._offers and all(pair.fail_code is not None or pair.closed for pair in self.pairs):
            self._report_losers(None)
            self._end(verdict.failure(self.pairs))

    def _choose(self, pair: Pair) -> None:
        self._report_losers(pair)
        self._close_others(pair)
        self._offers.clear()
        pair.committed = True
        for _ in range(UDP_COMMITS if pair.offer.technique == "udp" else 1):
            pair.tell(Signal.COMMIT)
        self._effects.append(HandOver(pair.index, pair.offer.technique, outcome=self._punched(pair)))
        self.told = True
        pair.given = True
        self.state = State.LINGERING
        self._linger_until = self.now + LINGER_S


def _is_answer(event: SignalSeen | SegmentSeen) -> bool:
    match event:
        case SignalSeen():
            return event.signal is Signal.ANSWER
        case SegmentSeen():
            return not event.outgoing and event.flags & SYN_ACK == SYN_ACK
