"""The initiator's side of an attempt: opens every pair, speaks once, answers, and takes what the responder chose.
Never chooses between two pairs that it answered; the rule is in core/attempt.py."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from punchd.core import verdict
from punchd.core.attempt import DONE, EXCHANGING, LINGER_S, LINGERING, PRIMING, UDP_WORDS, Attempt
from punchd.core.draw import draw
from punchd.core.pair import Pair
from punchd.core.ports import Ports
from punchd.core.script import ScriptEvent, signal
from punchd.core.techniques import TECHNIQUES
from punchd.core.terms import Terms
from punchd.words.effects import Finish, HandOver, Notify
from punchd.words.events import ANSWER, FIRE, Called, EffectFailed
from punchd.words.notification import Notification, Offer, SecondMessage
from punchd.words.plan import Candidate, Row

REDRAWS = 3  # fresh ports drawn when one of ours is taken
LOSERS_S = 1.0  # how long losers keep their mappings: what the responder fired before it chose has arrived by then


class Initiating(Attempt):
    """One attempt from `initiate` to hand-over."""

    __slots__ = (
        "_early_given",
        "_heard",
        "_moved",
        "_offered",
        "_ports",
        "_redraws",
        "_settled",
        "early",
        "patience_ms",
        "public",
        "rows",
    )

    def __init__(
        self, *, terms: Terms, local: str, public: str, remote: str, rows: Sequence[Row], ports: Ports,
        timeout_s: float, now: float, early: bool = False, in_turn: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(terms=terms, local=local, remote=remote, timeout_s=timeout_s, now=now, state=PRIMING)
        self._ports, self._redraws = ports, REDRAWS
        self._early_given: Pair | None = None
        self.public, self.rows, self.early = public, tuple(rows), early
        self.shared_nat = public == remote
        self.targets = tuple(dict.fromkeys((remote, *(row.remote for row in self.rows if row.remote))))
        self.in_turn, self.patience_ms = in_turn, int(timeout_s * 1000)
        self._settled = False
        self._heard: set[int] = set()
        self._moved: set[int] = set()
        self._offered: list[int] = []
        """The pairs in the order of the notification's offers."""
        for row in self.rows:
            self._start(draw(row, ports))

    def _on_settled(self) -> None:
        self._settled = True

    def _on_time(self) -> None:
        if self.state is PRIMING and self.now >= self.expires:
            self._report_losers(None)
            self._end(verdict.late(self.pairs))
        else:
            super()._on_time()

    def _on_pair(self, pair: Pair, event: ScriptEvent) -> None:
        if pair.answered and pair.index not in self._heard:
            self._heard.add(pair.index)
            self._report("heard", pair)
        if (
            pair.fail_code == "port-taken"
            and self.state is PRIMING
            and isinstance(event, EffectFailed)
            and self._redraws
        ):
            self._redraws -= 1
            pair.close()
            self._start(draw(self.rows[pair.index], self._ports), index=pair.index)
        if pair.given and not pair.closed and signal(FIRE)(event):
            self._repeat(pair, ANSWER)

    def _consider(self) -> None:
        if self.state is LINGERING:
            return
        if self.state is PRIMING:
            self._consider_notifying()
            return
        answered = [pair for pair in self.pairs if pair.answered]
        if self.early and not self._early_given and len(answered) == 1 and answered[0].early:
            self._early_given = answered[0]
            self._silence_others(answered[0])
            self._effects.append(HandOver(answered[0].index, answered[0].offer.technique, early=True))
        for pair in answered:
            if pair.connected and not pair.closed and pair.fail_code is None and (pair.committed or self._alone(pair)):
                self._take_over(pair)
                return
        if all(pair.fail_code is not None for pair in self.pairs):
            self._report_losers(None)
            self._end(self._failure())

    def _alone(self, chosen: Pair) -> bool:
        """The peer's kernel has acknowledged our answer, and no other pair can have been chosen."""
        if not chosen.handshake:
            return False
        heard = [pair for pair in self.pairs if pair.answered or pair.connected or pair.evidence.own_syn_ack]
        return len(heard) == 1

    def _consider_notifying(self) -> None:
        if not self._settled:
            return
        primed = [pair for pair in self.pairs if pair.fail_code is None]
        if not all(pair.primed for pair in primed):
            return
        if not primed:
            self._report_losers(None)
            self._end(self._failure())
            return
        self.state = EXCHANGING
        offers: list[Offer] = []
        others: list[str] = []
        for pair in primed:
            offer, public = pair.offer, self.rows[pair.index].public
            if public and public not in others:
                others.append(public)
            if pair.syn or public:
                offer = replace(offer, syn=pair.syn, at=others.index(public) + 1 if public else 0)
            self._offered.append(pair.index)
            offers.append(offer)
        notification = Notification(
            self.terms.nonce, self.public, self.remote, TECHNIQUES[offers[0].technique].transport, tuple(offers),
            self.in_turn, self.terms.blind, self.patience_ms, tuple(others),
        )  # fmt: skip
        self._effects.append(Notify(notification))

    def _on_call(self, message: SecondMessage) -> None:
        """The responder is ready; a pair whose port it had to change is opened anew, towards that one."""
        for ready in message.ready:
            if ready.offer >= len(self._offered):
                continue
            pair = self.pairs[self._offered[ready.offer]]
            if pair.answered or pair.closed or pair.fail_code is not None:
                continue
            if pair.offer.fan is not None and any(other.answered for other in self.pairs):
                continue  # one is under way: many more packets would help nobody
            if ready.port not in (0, pair.offer.responder_port) and pair.offer.fan is None:
                if pair.syn is not None or pair.aim_port != pair.offer.responder_port:
                    continue  # a captured SYN, or a mapping, is of the old port alone
                if pair.index in self._moved:
                    continue  # nobody has to move twice: it would be we who scan the ports of whoever it names
                self._moved.add(pair.index)
                pair.close()
                moved = replace(pair.offer, responder_port=ready.port)
                again = Candidate(moved, pair.own_port, ready.port, pair.after_s, remote=pair.remote)
                pair = self._start(again, index=pair.index)
            pair.feed(Called(pair.index, ready.port if pair.meets else 0), self.now)

    def _take_over(self, pair: Pair) -> None:
        self._report_losers(pair)
        losers = self._silence_others(pair)
        outcome, repeats = self._punched(pair), pair.offer.timed and pair.stream
        if pair.offer.timed and not pair.stream:
            for _ in range(UDP_WORDS - 1):
                pair.tell(ANSWER)
        self.told = True
        if self._early_given is pair:
            self._effects.append(Finish(outcome))
        else:
            self._effects.append(HandOver(pair.index, pair.offer.technique, outcome=outcome))
        pair.given = True
        if not repeats:
            pair.close()
        self.state = LINGERING if losers or repeats else DONE
        self._linger_until = self.now + (LINGER_S if repeats else LOSERS_S)
