"""The responder's side of an attempt: fires pair after pair, chooses the first proven one, and says so.
Tries no pair that the notification does not offer; the rule is in core/attempt.py."""

from __future__ import annotations

from msgspec.structs import replace

from punchd.core.attempt import FIRING, LINGER_S, LINGERING, UDP_WORDS, Attempt
from punchd.core.draw import meet
from punchd.core.pair import Pair
from punchd.core.ports import Ports
from punchd.core.script import ScriptEvent
from punchd.core.techniques import TECHNIQUES
from punchd.core.terms import Terms
from punchd.words.addresses import is_private
from punchd.words.effects import CallBack, Effect, HandOver
from punchd.words.events import ANSWER, COMMIT, SYN_ACK, EffectFailed, Located, SegmentSeen, SignalSeen
from punchd.words.notification import Notification, Offer, Opening, Ready, SecondMessage
from punchd.words.plan import Candidate

STAGGER_S = 0.1  # between the starts of two techniques of `auto`
LATE_S = 0.3  # what the last of them gets before those begin that wait for the initiator, who is then called, ...
MEET_AGAIN_S = 1.5  # what fans that meet get before another brings our NAT elsewhere, past others' appointments
NAMES_S = 0.001  # what one gets to name a port and open as many: the next one's is to lie beyond
CROSS_S = 0.7  # ... and these, before we fire where the initiator may have no hole: a NAT of its may punish that
TURN_S = 1.0  # what each technique of an explicit list gets before the next starts


class Responding(Attempt):
    """One attempt from `respond` to hand-over, and a while beyond."""

    __slots__ = (
        "_next_at",
        "_offers",
        "_pause_s",
        "_places",
        "_ports",
        "_serial",
        "notification",
        "runnable",
    )

    def __init__(
        self,
        *,
        terms: Terms,
        local: str,
        notification: Notification,
        runnable: frozenset[str],
        ports: Ports,
        timeout_s: float,
        now: float,
    ) -> None:
        super().__init__(
            terms=terms,
            local=local,
            remote=notification.initiator,
            timeout_s=min(timeout_s, notification.patience_ms / 1000),
            now=now,
            state=FIRING,
        )
        self.notification, self.runnable, self._ports = notification, runnable, ports
        # datagrams need no eyes: their signals are their own
        self._serial = (notification.blind or terms.blind) and notification.transport == "tcp"
        self._offers = [
            (place, offer)
            for place, offer in enumerate(notification.offers)
            if offer.technique in runnable and notification.address(offer) and not (self._serial and _needs_eyes(offer))
        ]
        self.shared_nat = notification.initiator == notification.responder
        self.targets = (self.remote, *filter(None, notification.others))
        self._places: dict[int, int] = {}
        """Pair to its offer's place in the notification."""
        self.in_turn = notification.in_turn
        self._pause_s = TURN_S if self.in_turn or self._serial else STAGGER_S
        self._next_at = now

    @property
    def has_offers(self) -> bool:
        """Whether anything that the notification offers can be tried here."""
        return bool(self._offers)

    def begin(self) -> list[Effect]:
        """The effects that fire the first pair."""
        self._fire_next()
        self._consider()
        return self._take()

    def _own_deadline(self) -> float:
        own = super()._own_deadline()
        return min(own, self._next_at) if self._offers and not self._holds_back else own

    def _on_time(self) -> None:
        if self._offers and self._next_at <= self.now < self.expires and not self._holds_back:
            self._fire_next()
        super()._on_time()

    @property
    def _holds_back(self) -> bool:
        """The next offer would have the initiator fire at us from ports that nobody can foresee. Most of that are
        strays at our NAT, which may block their sender: not before our own rounds have all failed."""
        fan = self._offers[0][1].fan
        blind = fan is not None and fan.targets.count > 1 and not fan.targets.first
        called = self._offers[0][1].opening in (Opening.REFIRED, Opening.CALLED)
        return blind and called and any(pair.sprays and pair.fail_code is None for pair in self.pairs)

    def _fire_next(self) -> None:
        if self._serial:
            self._close_others(None)  # a blind side can't be told which of two it is to take
        pause_s = 0.0
        while self._offers and not pause_s:
            place, offer = self._offers.pop(0)
            pair = self._start(meet(offer, self._ports, self.notification.address(offer) if offer.at else ""))
            self._places[pair.index] = place
            # a fan says by itself when its holes are open
            pair.calls |= self._staggers and offer.opening is not Opening.PRIMED and offer.fan is None
            self._report("trying", pair)
            pause_s = self._pause(offer) if self._offers else self._pause_s
        self._next_at = self.now + pause_s

    def _pause(self, last: Offer) -> float:
        """How long the offer that was just begun stays the last: those that wait for the initiator share one turn."""
        coming = self._offers[0][1]
        if is_within(self.notification, last) and not self._serial:
            return 0.0  # it passes no NAT, so it takes no turn either
        if self._staggers and _meets(last) and _meets(coming) and coming.opening is Opening.CALLED:
            return MEET_AGAIN_S
        if self._staggers and _meets(last) and coming.opening is Opening.REFIRED:
            return NAMES_S
        if self._staggers and _is_stray(coming):
            return STAGGER_S if _is_stray(last) else CROSS_S
        if coming.opening is Opening.PRIMED:
            return self._pause_s
        return LATE_S if self._staggers and last.opening is Opening.PRIMED else 0.0

    @property
    def _staggers(self) -> bool:
        """The offers are `auto`'s: what waits for the initiator comes last there, and it may have to be called."""
        return self._pause_s == STAGGER_S

    def _call(self, *moved: Ready) -> None:
        """The second message, if a pair wants one."""
        calling = [pair for pair in self.pairs if pair.calls]
        if not (calling or moved):
            return
        ready = (*moved, *(Ready(self._places[pair.index], pair.meets) for pair in calling))
        for pair in calling:
            pair.calls = False
        self._effects.append(CallBack(SecondMessage(self.terms.nonce, ready)))

    def _move(self, pair: Pair) -> None:
        """The port that the initiator drew for us is taken: fire from another, and tell it in a second message."""
        port, _ = self._ports.draw()
        pair.close()
        moved = replace(pair.offer, responder_port=port)
        place = self._places[pair.index]
        pair = self._start(Candidate(moved, port, moved.initiator_port, remote=pair.remote), index=pair.index)
        pair.moved, self._places[pair.index] = True, place
        self._call(Ready(place, port))

    def _on_pair(self, pair: Pair, event: ScriptEvent) -> None:
        taken = pair.fail_code == "port-taken" and isinstance(event, EffectFailed)
        if taken and not pair.moved and pair.offer.syn is None and pair.offer.fan is None:
            self._move(pair)
            return
        if self._offers and isinstance(event, Located) and self._staggers:
            coming = self._offers[0][1]
            if _meets(coming) and coming.opening is Opening.PRIMED:
                self._fire_next()  # at once, lest other attempts' mappings come in between
        if self.state is LINGERING and pair.committed:
            asks_again = isinstance(event, SignalSeen | SegmentSeen) and _is_answer(event)
            if asks_again:
                self._repeat(pair, COMMIT)

    def _consider(self) -> None:
        if self.state is LINGERING:
            return
        self._call()
        for pair in self.pairs:
            if pair.proven and not pair.closed and pair.fail_code is None:
                self._choose(pair)
                return
        if self.pairs and self.pairs[-1].fail_code is not None and self._offers:
            if not (self._staggers and _is_stray(self._offers[0][1])):
                self._fire_next()
        elif not self._offers and all(pair.fail_code is not None or pair.closed for pair in self.pairs):
            self._report_losers(None)
            self._end(self._failure())

    def _choose(self, pair: Pair) -> None:
        self._report_losers(pair)
        self._silence_others(pair)
        self._offers.clear()
        pair.committed = True
        for _ in range(1 if pair.stream else UDP_WORDS):
            pair.tell(COMMIT)
        self._effects.append(HandOver(pair.index, pair.offer.technique, outcome=self._punched(pair)))
        self.told = True
        pair.given = True
        self.state = LINGERING
        self._linger_until = self.now + LINGER_S


def is_within(notification: Notification, offer: Offer) -> bool:
    """It is for the initiator's private address: both are said to be behind the same NAT."""
    return bool(offer.at) and is_private(notification.address(offer))


def _meets(offer: Offer) -> bool:
    """Our NAT is to be brought to a port: further fans would carry it past that one if they came in between."""
    return offer.fan is not None and offer.fan.meets > 0


def _is_stray(offer: Offer) -> bool:
    """Our first packet goes where the initiator may have opened no hole."""
    knocks = TECHNIQUES[offer.technique].knocks and offer.opening is Opening.PRIMED
    return knocks or offer.opening is Opening.CROSSED


def _needs_eyes(offer: Offer) -> bool:
    """It ends with signals on the path, which a blind side neither sees nor sends."""
    return offer.opening is not Opening.PRIMED and TECHNIQUES[offer.technique].transport == "tcp"


def _is_answer(event: SignalSeen | SegmentSeen) -> bool:
    match event:
        case SignalSeen():
            return event.signal is ANSWER
        case SegmentSeen():
            return not event.outgoing and event.flags & SYN_ACK == SYN_ACK
