"""Claims about core/mortality.py: what it finds of NATs whose mappings outlive ICMP errors, and when it says nothing.
It opens no socket: a NAT, a server and loss in virtual time. tests/lab/test_mortality.py has real ones."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from punchd.core.mortality import PROVOKES_MAX, ROUND_TRIPS, SENDS_MAX, Mortality, State, told
from punchd.words.addresses import Endpoint
from punchd.words.events import DeadlinePassed
from punchd.words.hops import Hop
from punchd.words.mortality import AskFor, Died, Heard, MortalityEffect, MortalityEvent, Provoke, Sounded
from punchd.words.nat import Face, NatClass
from punchd.words.probing import Answer, Finding

X, Y = Endpoint("203.0.113.2", 40000), Endpoint("203.0.113.2", 40001)
HOME, ROUTER, SERVER = (
    Hop(1, "10.0.1.1", False, 1.0),
    Hop(2, "203.0.113.1", False, 1.0),
    Hop(3, "192.0.2.10", True, 1.0),
)


@dataclass
class World:
    """A NAT and a server.

    plays    it knows RESPONSE-PORT; else "ignores", "refuses" or "silent"
    renews   each new mapping gets another port
    answers  what the server still answers, in requests
    slow_s   how long it stalls when it gets the calls of a test; answers leave in order
    """

    outlives: bool = True
    rtt_s: float = 0.02
    loss: float = 0.0
    seed: int = 1
    plays: str = "yes"
    errors: bool = True
    renews: bool = False
    answers: int = 1000
    slow_s: float = 0.0
    hops: tuple[Hop, ...] | None = (HOME, ROUTER, SERVER)
    sounded_s: float = 0.03
    timeout_s: float = 6.0
    alive: bool = False
    port: int = X.port
    sent: list[tuple[float, MortalityEffect]] = field(default_factory=list)

    def run(self) -> bool | None:
        """Until it has settled; how long that took is in `self.now`."""
        self.now = self.ready = 0.0
        self.dice, numbers = random.Random(self.seed), count()
        self.heap: list[tuple[float, int, Callable[[], MortalityEvent | None]]] = []
        self.turns = count()
        self.finding = Mortality(
            now=0.0, timeout_s=self.timeout_s, transactions=lambda: next(numbers).to_bytes(12, "big")
        )
        if self.hops is not None:
            self.later(self.sounded_s, lambda hops=self.hops: Sounded(hops))
        self.feed(DeadlinePassed())
        while (deadline := self.finding.deadline) is not None:
            if self.heap and self.heap[0][0] <= deadline:
                self.now, _, what = heapq.heappop(self.heap)
                event = what()
                if event is not None:
                    self.feed(event)
            else:
                self.now = deadline
                self.feed(DeadlinePassed())
        return self.finding.outlives

    def feed(self, event: MortalityEvent) -> None:
        for effect in self.finding.step(event, self.now):
            self.sent.append((self.now, effect))
            self.launch(effect)

    def later(self, after_s: float, what: Callable[[], Any]) -> None:
        heapq.heappush(self.heap, (self.now + after_s, next(self.turns), what))

    def way_s(self) -> float:
        """Until an answer is back."""
        stall_s = self.slow_s if self.finding.state is State.TESTING else 0.0
        self.ready = max(self.ready, self.now + self.rtt_s + stall_s)
        return self.ready - self.now

    def lost(self) -> bool:
        return self.dice.random() < self.loss

    def launch(self, effect: MortalityEffect) -> None:
        """The NAT is at the host: what leaves has passed it."""
        if not isinstance(effect, AskFor) or effect.port is None:
            if not self.alive and self.renews:
                self.port += 1
            self.alive = True
        if self.lost():
            return
        if isinstance(effect, Provoke):
            if self.errors and not self.lost():
                self.later(self.rtt_s / 2, self.die)
            return
        self.answers -= 1
        if self.answers < 0 or self.lost():
            return
        answer = Answer(effect.transaction, Endpoint(X.address, self.port), error=None)
        if effect.port is None:
            self.later(self.way_s(), lambda: self.let_in(answer, self.port))
        elif self.plays == "yes":
            self.later(self.way_s(), lambda: self.let_in(answer, effect.port))
        elif self.plays == "ignores":
            self.later(self.rtt_s, lambda: Heard(answer, second=True))
        elif self.plays == "refuses":
            self.later(self.rtt_s, lambda: Heard(Answer(effect.transaction, error=420), second=True))

    def die(self) -> MortalityEvent:
        self.alive = self.outlives
        return Died()

    def let_in(self, answer: Answer, port: int | None) -> MortalityEvent | None:
        return Heard(answer, second=False) if self.alive and port == self.port else None


BOTH = pytest.mark.parametrize("outlives", [True, False])


@BOTH
@pytest.mark.parametrize("rtt_s", [0.0001, 0.02, 0.2, 0.8])
@pytest.mark.parametrize("renews", [False, True])
def test_what_the_nat_does_is_found(outlives: bool, rtt_s: float, renews: bool) -> None:
    """Near and far, and where a mapping that is made anew gets another port."""
    world = World(outlives, rtt_s=rtt_s, renews=renews, timeout_s=20)
    assert outlives is world.run()
    assert world.now < 1.5 + 9 * rtt_s


@BOTH
def test_loss_leaves_it_open_rather_than_wrong(outlives: bool) -> None:
    """2 % each way: nearly always found, never wrong; at 30 %, a dead one is never said to live."""
    found = [World(outlives, rtt_s=0.2, loss=0.02, seed=seed).run() for seed in range(300)]
    assert (not outlives) not in found
    assert found.count(outlives) > 295
    assert True not in [World(False, rtt_s=0.2, loss=0.3, seed=seed).run() for seed in range(300)]


@BOTH
@pytest.mark.parametrize("plays", ["ignores", "refuses", "silent"])
def test_server_that_does_not_play_says_nothing(outlives: bool, plays: str) -> None:
    """Most public servers: the punch then goes on as if nobody had asked."""
    world = World(outlives, plays=plays)
    assert world.run() is None
    assert not any(isinstance(effect, Provoke) for _, effect in world.sent)


def test_server_that_is_silent_costs_little() -> None:
    """UDP may be blocked: whoever asks over TCP should not wait for this."""
    world = World(answers=0)
    assert world.run() is None
    assert len(world.sent) == SENDS_MAX
    assert world.now < 1.3


@BOTH
def test_no_error_proves_nothing(outlives: bool) -> None:
    """Routers limit their errors, firewalls drop them."""
    world = World(outlives, errors=False)
    assert world.run() is None
    assert PROVOKES_MAX == sum(isinstance(effect, Provoke) for _, effect in world.sent)


@pytest.mark.parametrize("hops", [(), (HOME,), (HOME, Hop(2, SERVER.sender, True, 1.0)), None])
def test_without_a_hop_outside_nothing_is_sent_to_die(hops: tuple[Hop, ...] | None) -> None:
    """An error of a router inside crosses no NAT, and what reaches the server is none."""
    world = World(hops=hops)
    assert world.run() is None
    assert not any(isinstance(effect, Provoke) for _, effect in world.sent)


def test_error_comes_from_outside_of_all_nats_and_one_ttl_is_used() -> None:
    """The carrier's NAT counts, too; a second TTL would revive what the first one's error has ended."""
    carrier = (HOME, Hop(2, "100.64.1.1", False, 1.0), Hop(3, "203.0.113.1", False, 1.0))
    world = World(outlives=False, hops=carrier)
    assert world.run() is False
    assert {3} == {effect.ttl for _, effect in world.sent if isinstance(effect, Provoke)}


@pytest.mark.parametrize("sounded_s", [0.0, 0.01, 1.2])
def test_sounding_may_end_before_and_after(sounded_s: float) -> None:
    """It waits for the way, and knows it if it came first."""
    assert World(outlives=False, sounded_s=sounded_s).run() is False


def test_server_that_falls_silent_is_no_dead_mapping() -> None:
    """It is asked anew in the end: only a call that is heard then proves anything."""
    for outlives, answers in ((True, 2), (False, 2), (False, 6), (False, 7)):
        assert World(outlives, answers=answers).run() is None


@pytest.mark.parametrize("slow_s", [0.4, 0.5, 0.9, 9.0])
def test_late_answer_leaves_it_open(slow_s: float) -> None:
    """A host or path that stalls for so long can't tell; the calls come in order, so the late ones come first."""
    world = World(outlives=True, rtt_s=0.1, slow_s=slow_s)
    assert ROUND_TRIPS * world.rtt_s < slow_s
    assert world.run() is None


def test_calls_before_and_after_are_told_apart() -> None:
    """A late answer to the one must not pass for the other's."""
    world = World(outlives=False)
    assert world.run() is False
    called = [effect for _, effect in world.sent if isinstance(effect, AskFor) and effect.port is not None]
    assert len({effect.transaction for effect in called}) == 3


def test_what_others_send_is_nothing() -> None:
    """Other transactions, doubles, answers when all is over."""
    finding = Mortality(now=0.0, timeout_s=6.0, transactions=lambda: b"t" * 12)
    finding.step(DeadlinePassed(), 0.0)
    assert [] == finding.step(Heard(Answer(b"o" * 12, X), second=False), 0.1)
    assert [] == finding.step(Died(), 0.1)
    assert State.ASKING is finding.state
    finding.step(Heard(Answer(b"t" * 12, error=400), second=False), 0.2)
    assert finding.settled
    assert (None, None) == (finding.outlives, finding.deadline)
    assert [] == finding.step(Heard(Answer(b"t" * 12, X), second=False), 0.3)


def test_time_that_is_up_leaves_it_open() -> None:
    """The caller's own limit holds here as elsewhere."""
    world = World(rtt_s=0.2, timeout_s=0.5)
    assert world.run() is None
    assert world.now == pytest.approx(0.5)


@pytest.mark.parametrize("outlives", [True, False, None])
def test_finding_is_told_with_it(outlives: bool | None) -> None:
    """Where there is a face; no server is no NAT."""
    found = told(Finding("tcp", Face(1, X, NatClass()), (), ()), outlives)
    assert found.face is not None
    assert NatClass(outlives_icmp=outlives) == found.face.nat
    blind = Finding("tcp", None, (), ())
    assert blind is told(blind, outlives)
