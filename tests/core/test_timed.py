"""The timed offer: the initiator is proven at s + r/2, and what is lost then costs no more than a lost COMMIT does.
It refuses schedules at random: tests/core/test_agreement.py has them."""

from __future__ import annotations

import random

import pytest
from acts import LOCAL, NONCE, A, B, begun, signalled, those, work

from punchd.core.attempt import LINGER_S, UDP_WORDS, Attempt, State
from punchd.core.initiating import Initiating
from punchd.core.pair import FIRST_REFIRE_S, TIMED_S
from punchd.core.ports import Ports
from punchd.core.responding import Responding
from punchd.core.terms import Terms
from punchd.lab.model import Result, World
from punchd.words.effects import AskKernel, ClosePair, Effect, HandOver, Materialise, Notify, Tell
from punchd.words.events import DeadlinePassed, KernelHeard, Readable, Signal, SignalSeen
from punchd.words.notification import Notification, Offer
from punchd.words.outcomes import Punched
from punchd.words.plan import Row

TECHNIQUES = ["tcp-midstream", "udp"]
HOLE = 2


def initiating(technique: str, *, after_s: float = 0.5, early: bool = False) -> Initiating:
    return Initiating(
        terms=Terms(True, NONCE), local=LOCAL, public=A, remote=B, rows=[Row(technique, after_s=after_s, timed=True)],
        ports=Ports(random.Random(1)), timeout_s=10.0, now=0.0, early=early,
    )  # fmt: skip


def responding(technique: str) -> Responding:
    offers = (Offer(technique, 22001, 23001, timed=True),)
    return Responding(
        terms=Terms(False, NONCE), local="10.0.2.2",
        notification=Notification(NONCE, A, B, technique.partition("-")[0], offers),
        runnable=frozenset({technique}), ports=Ports(random.Random(2)), timeout_s=10.0, now=0.0,
    )  # fmt: skip


def told(effects: list[Effect]) -> list[tuple[Signal, int | None]]:
    return [(tell.signal, tell.ttl) for tell in those(Tell, effects)]


def hears(attempt: Attempt, signal: Signal, now: float) -> list[Effect]:
    """The peer's signal, and whatever the kernel is asked about it."""
    pair = attempt.pairs[0]
    effects = attempt.step(signalled(pair, signal) if pair.stream else SignalSeen(0, signal, 0, 0), now)
    return effects + (attempt.step(KernelHeard(0), now) if those(AskKernel, effects) else [])


def punch(technique: str, *, timed: bool = True, **more: object) -> Result:
    transport = "udp" if technique == "udp" else "tcp"
    setting = {"classes": "nicknames", "delay_ms": 50.0, "side_delay_ms": 500.0} | more
    return World("linux", "linux", techniques=[technique], transport=transport, timed=timed, **setting).run()  # type: ignore[arg-type]  # any keyword of World: mypy cannot tell which


# -- what it brings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize(
    ("side_ms", "path_ms"), [(500.0, 50.0), (50.0, 50.0), (37.0, 10.0), (150.0, 150.0), (1000.0, 171.0)]
)
def test_the_initiator_is_proven_half_a_round_trip_after_the_notification(
    technique: str, side_ms: float, path_ms: float
) -> None:
    """The limit of physics, and one step of the train; the responder at s + r, as ever."""
    run = punch(technique, side_delay_ms=side_ms, delay_ms=path_ms)
    limit_s = (side_ms + path_ms) / 1000
    assert run.ok
    assert limit_s <= run.a.at <= limit_s + 0.004 + 1e-9  # 2 % of what it has fired for: at most EARLY_S
    assert (side_ms + 2 * path_ms) / 1000 == pytest.approx(run.b.at)
    assert (side_ms + 3 * path_ms) / 1000 == pytest.approx(
        punch(technique, side_delay_ms=side_ms, delay_ms=path_ms, timed=False).a.at
    )


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("told_ms", [0.0, 100.0, 450.0, 700.0, 9000.0])
def test_a_delay_that_was_told_wrong_costs_nothing(technique: str, told_ms: float) -> None:
    """The hole is there from the start: the responder's FIRE is heard as if nothing had been told."""
    row = Row(technique, timed=True, after_s=told_ms / 1000)
    run = World(
        "linux", "linux", rows=[row], transport="udp" if technique == "udp" else "tcp", side_delay_ms=500.0
    ).run()
    assert run.ok
    assert 0.600 == pytest.approx(run.b.at)
    assert 0.550 <= run.a.at <= 0.650 + 1e-9


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_peer_that_never_answers_gets_fewer_and_fewer_packets(technique: str) -> None:
    """Every 3 ms at first, later as 2 % of the time waited: some 260 in ten seconds."""
    attempt = initiating(technique, after_s=0.0)
    sent, now = len(told(begun(attempt))), 0.0
    assert TIMED_S == attempt.deadline
    while not attempt.done:
        assert attempt.deadline is not None
        now = attempt.deadline
        sent += len(told(attempt.step(DeadlinePassed(), now)))
    assert 10.0 == now
    assert 200 < sent < 300


# -- the initiator -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_the_hole_is_primed_before_the_notification_and_fired_through_later(technique: str) -> None:
    """So it is there whenever the responder fires, whatever the side channel takes."""
    attempt = initiating(technique)
    effects = begun(attempt)
    assert [(Signal.PRIME, HOLE)] == told(effects)
    assert those(Notify, effects)[0].notification.offers[0].timed
    assert 0.5 == attempt.deadline
    assert [(Signal.PRIME, None)] == told(attempt.step(DeadlinePassed(), 0.5))


def test_a_stream_socket_is_there_before_the_first_signal() -> None:
    """COMMIT comes a moment after FIRE: a socket made on that would not have heard it."""
    assert those(Materialise, begun(initiating("tcp-midstream")))


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("heard", [[Signal.FIRE, Signal.COMMIT], [Signal.COMMIT]])
def test_commit_is_the_proof_whether_fire_came_or_not(technique: str, heard: list[Signal]) -> None:
    """It was heard, and hears."""
    attempt = initiating(technique)
    begun(attempt)
    effects = [effect for signal in heard for effect in hears(attempt, signal, 0.6)]
    (given,) = those(HandOver, effects)
    assert isinstance(given.outcome, Punched)
    assert given.outcome.rtt_ms is None  # which of its packets was heard, nobody knows
    assert (Signal.ANSWER, None) in told(effects)


def test_fire_alone_is_no_proof() -> None:
    """Nobody has said that the initiator is heard."""
    attempt = initiating("udp")
    begun(attempt)
    effects = hears(attempt, Signal.FIRE, 0.6)
    assert [(Signal.ANSWER, None)] == told(effects)
    assert not those(HandOver, effects)


def test_a_stream_is_answered_for_as_long_as_the_responder_asks() -> None:
    """It hands over only on the ANSWER, and this may be lost."""
    attempt = initiating("tcp-midstream")
    begun(attempt)
    hears(attempt, Signal.COMMIT, 0.6)
    assert State.LINGERING is attempt.state
    assert [(Signal.ANSWER, None)] == told(hears(attempt, Signal.FIRE, 1.6))
    assert not told(hears(attempt, Signal.COMMIT, 1.7))  # else both would go on for ever
    assert 1.6 + LINGER_S == attempt.deadline
    assert [ClosePair(0)] == work(attempt.step(DeadlinePassed(), 1.6 + LINGER_S))  # and nothing is cleared
    assert attempt.done


def test_a_datagram_socket_is_gone_so_the_answer_leaves_thrice() -> None:
    """As COMMIT does at the other side."""
    attempt = initiating("udp")
    begun(attempt)
    effects = hears(attempt, Signal.COMMIT, 0.6)
    assert [(Signal.ANSWER, None)] * UDP_WORDS == told(effects)
    assert attempt.done


def test_who_is_not_timed_has_nothing_to_repeat() -> None:
    """A FIRE that was under way finds a socket that is the application's, while the losers keep their mappings."""
    attempt = Initiating(
        terms=Terms(True, NONCE), local=LOCAL, public=A, remote=B, rows=[Row("udp"), Row("udp")],
        ports=Ports(random.Random(1)), timeout_s=10.0, now=0.0,
    )  # fmt: skip
    begun(attempt)
    hears(attempt, Signal.FIRE, 0.6)
    assert those(HandOver, hears(attempt, Signal.COMMIT, 0.7))
    assert State.LINGERING is attempt.state
    assert not hears(attempt, Signal.FIRE, 0.71)


def test_an_early_socket_is_followed_by_its_proof() -> None:
    """At the first valid segment the one, at COMMIT the other."""
    attempt = initiating("tcp-midstream", early=True)
    begun(attempt)
    (given,) = those(HandOver, hears(attempt, Signal.FIRE, 0.6))
    assert given.early
    assert not those(HandOver, hears(attempt, Signal.COMMIT, 0.603))
    assert attempt.told


# -- the responder -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_the_responder_commits_to_the_first_prime_and_hands_over_on_the_answer(technique: str) -> None:
    """There is nothing to choose; but its own socket is proven by the ANSWER alone."""
    attempt = responding(technique)
    assert [(Signal.FIRE, None)] == told(attempt.begin())
    effects = hears(attempt, Signal.PRIME, 0.002)
    assert [(Signal.COMMIT, None)] == told(effects)
    assert not those(HandOver, effects)
    assert not told(hears(attempt, Signal.PRIME, 0.005))
    effects = hears(attempt, Signal.ANSWER, 0.1)
    (given,) = those(HandOver, effects)
    assert isinstance(given.outcome, Punched)
    assert 100.0 == given.outcome.rtt_ms


def test_what_only_the_ring_has_heard_is_not_committed_to() -> None:
    """A rule of this host's may drop it: the initiator would hold a socket that nobody hears."""
    attempt = responding("tcp-midstream")
    attempt.begin()
    effects = attempt.step(signalled(attempt.pairs[0], Signal.PRIME), 0.002)
    assert (1, []) == (len(those(AskKernel, effects)), told(effects))


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_while_the_answer_is_missing_the_responder_asks_for_it(technique: str) -> None:
    """It may have been lost; an initiator that lingers says it again."""
    attempt = responding(technique)
    attempt.begin()
    hears(attempt, Signal.PRIME, 0.002)
    assert [(Signal.FIRE, None)] == told(attempt.step(DeadlinePassed(), 0.002 + FIRST_REFIRE_S))


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_data_stands_for_a_lost_answer(technique: str) -> None:
    """Only an application can have sent it, so the initiator has heard COMMIT."""
    attempt = responding(technique)
    attempt.begin()
    assert attempt.heeds_data
    assert not those(HandOver, attempt.step(Readable(0), 0.001))  # not before the initiator was heard by its secret
    attempt = responding(technique)
    attempt.begin()
    hears(attempt, Signal.PRIME, 0.002)
    effects = attempt.step(Readable(0), 0.2)
    effects += attempt.step(KernelHeard(0), 0.2) if those(AskKernel, effects) else []
    assert those(HandOver, effects)
