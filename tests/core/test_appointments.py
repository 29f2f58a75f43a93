"""Fans that meet at a port to which a NAT that counts is brought: who asks where it is, who names it, and when.
It refuses to know how far that is; tests/core/test_tally.py does."""

from __future__ import annotations

import random

import pytest
from acts import NONCE, A, B, begun, those, work
from test_fan import HOLE, initiating

from punchd.core.fan import PACE_S, SPARE
from punchd.core.lanes import MEETS_MAX
from punchd.core.ports import Ports
from punchd.core.responding import MEET_AGAIN_S, Responding
from punchd.core.terms import Terms
from punchd.words.effects import Adopt, CallBack, Locate, OpenFan, Spray
from punchd.words.events import CallHeard, DeadlinePassed, Located, Signal, SignalSeen, Withheld
from punchd.words.notification import Fan, Notification, Offer, Opening, Ready, SecondMessage, Spread
from punchd.words.plan import Lanes


def _meeting(*openings: Opening) -> Responding:
    offers = tuple(
        Offer("udp-birthday", 40000, 0, opening=opening, fan=Fan(Spread(40000 + place), Spread(0, 20), meets=50000))
        for place, opening in enumerate(openings or (Opening.PRIMED,))
    )
    return Responding(
        terms=Terms(False, NONCE), local="10.0.2.2", runnable=frozenset({"udp-birthday"}),
        ports=Ports(random.Random(2)),
        notification=Notification(NONCE, A, B, "udp", offers), timeout_s=10.0, now=0.0,
    )  # fmt: skip


def test_a_nat_that_counts_is_brought_to_the_appointed_port() -> None:
    """By as many lanes as it takes at most, all towards the one hole; the same ones again if a packet is lost."""
    attempt = _meeting()
    assert [Locate(0, 50000)] == those(Locate, attempt.begin())
    (spray,) = those(Spray, attempt.step(Located(0, True, 90, 100), 0.0))
    assert 101 + SPARE == len(spray.lanes) == len({own for own, _ in spray.lanes})
    assert {40000} == {aim for _, aim in spray.lanes}
    later = [attempt.step(DeadlinePassed(), attempt.deadline or 0.0) for _ in range(2)]
    assert spray == those(Spray, [effect for effects in later for effect in effects])[0]


@pytest.mark.parametrize("located", [Located(0, True, -20, -1), Located(0, True, MEETS_MAX, MEETS_MAX + 10)])
def test_nothing_is_sent_towards_a_port_that_is_gone_or_far(located: Located) -> None:
    """It would move the counter past the others' appointments, for nothing."""
    attempt = _meeting()
    attempt.begin()
    assert [] == those(Spray, attempt.step(located, 0.0))


def test_a_burst_that_the_budget_refuses_is_measured_anew_when_it_may_leave() -> None:
    """The counter has gone on meanwhile: past the port, or as many as then come too much."""
    attempt = _meeting()
    attempt.begin()
    attempt.step(Located(0, True, 90, 100), 0.0)
    assert [] == attempt.step(Withheld(0, 0.4), 0.0)
    assert [Locate(0, 50000)] == attempt.step(DeadlinePassed(), 0.4)
    (spray,) = those(Spray, attempt.step(Located(0, True, 50, 60), 0.4))
    assert 61 + SPARE == len(spray.lanes)
    attempt.step(Withheld(0, 0.4), 0.4)
    attempt.step(DeadlinePassed(), 0.8)
    assert [] == attempt.step(Located(0, True, -5, -1), 0.8)


def test_rows_that_meet_begin_together_and_the_second_meeting_late() -> None:
    """Other attempts' mappings would come in between; and a second meeting carries the counter past theirs."""
    attempt = _meeting(Opening.PRIMED, Opening.PRIMED, Opening.CALLED)
    assert [Locate(0, 50000)] == those(Locate, attempt.begin())
    effects = work(attempt.step(Located(0, True, 90, 100), 0.0))
    assert [Spray, OpenFan, Locate] == [type(effect) for effect in effects]
    attempt.step(Located(1, True, 90, 100), 0.0)
    while not (located := those(Locate, attempt.step(DeadlinePassed(), attempt.deadline or 0.0))):
        assert attempt.now < 2 * MEET_AGAIN_S
    assert [Locate(2, 0)] == located
    assert MEET_AGAIN_S == attempt.now


def test_a_responder_that_calls_names_the_port_to_which_it_has_brought_its_nat() -> None:
    """It knows by then where that is, whatever became of the one that was appointed."""
    attempt = _meeting(Opening.CALLED)
    assert [Locate(0, 0)] == those(Locate, attempt.begin())
    (spray,) = those(Spray, attempt.step(Located(0, True, 24, 60, 50500), 0.0))
    assert (61 + SPARE, HOLE) == (len(spray.lanes), spray.ttl)
    (call,) = those(CallBack, attempt.step(DeadlinePassed(), PACE_S))
    assert (Ready(0, 50500),) == call.message.ready
    lane = spray.lanes[30]
    attempt.step(SignalSeen(0, Signal.PRIME, *lane), 1.0)
    (adopted,) = those(Adopt, attempt.step(SignalSeen(0, Signal.ANSWER, *lane), 1.1))
    assert 50500 == adopted.public


def test_two_that_name_a_port_do_not_name_the_same() -> None:
    """The second one asks where the counter is when the first one's mappings have been made."""
    attempt = _meeting(Opening.REFIRED, Opening.REFIRED)
    assert [Locate(0, 0)] == those(Locate, attempt.begin())
    assert those(Spray, attempt.step(Located(0, True, 24, 60, 50500), 0.0))
    effects = attempt.step(DeadlinePassed(), attempt.deadline or 0.0)
    assert [Locate(1, 0)] == those(Locate, effects)
    assert attempt.now < PACE_S


def test_a_port_that_was_named_in_vain_is_followed_by_another() -> None:
    """Once the first one has had its time: it asks anew where the counter is, and calls once more."""
    attempt = _meeting(Opening.REFIRED, Opening.CALLED)
    assert [Locate(0, 0)] == those(Locate, attempt.begin())
    attempt.step(Located(0, True, 24, 60, 50500), 0.0)
    while not (located := those(Locate, attempt.step(DeadlinePassed(), attempt.deadline or 0.0))):
        assert attempt.now < 2 * MEET_AGAIN_S
    assert [Locate(1, 0)] == located
    assert MEET_AGAIN_S == attempt.now
    attempt.step(Located(1, True, 24, 60, 50700), attempt.now)
    (call,) = those(CallBack, attempt.step(DeadlinePassed(), attempt.now + PACE_S))
    assert (Ready(1, 50700),) == call.message.ready


def test_where_the_counter_is_unknown_the_plans_number_stands() -> None:
    """A daemon that was started anew has seen no port of its NAT."""
    attempt = _meeting()
    attempt.begin()
    (spray,) = those(Spray, attempt.step(Located(0, False), 0.0))
    assert 20 == len(spray.lanes)


def test_an_initiator_that_is_called_brings_its_nat_where_the_peers_holes_aim() -> None:
    """Where both count, the second try is the first one with the roles changed."""
    lanes = Lanes(Spread(0, 30), Spread(45000), Spread(0, 20), Spread(50000))
    attempt = initiating("udp-birthday", Opening.CALLED, lanes)
    begun(attempt)
    call = CallHeard(SecondMessage(NONCE, (Ready(0),)))
    assert [Locate(0, 45000)] == those(Locate, attempt.step(call, 1.0))
    (spray,) = those(Spray, attempt.step(Located(0, True, 40, 50), 1.0))
    assert (51 + SPARE, None) == (len(spray.lanes), spray.ttl)
    assert {50000} == {aim for _, aim in spray.lanes}


def test_an_initiator_that_is_called_aims_at_the_port_that_the_responder_names() -> None:
    """And knows what its NAT has made of the port that is answered: the next fans reckon from there."""
    lanes = Lanes(Spread(0, 30), Spread(45000), Spread(0, 20), Spread(50000))
    attempt = initiating("udp-birthday", Opening.CALLED, lanes)
    begun(attempt)
    attempt.step(CallHeard(SecondMessage(NONCE, (Ready(0, 50500),))), 1.0)
    (spray,) = those(Spray, attempt.step(Located(0, True, 40, 50), 1.0))
    assert {50500} == {aim for _, aim in spray.lanes}
    assert [] == attempt.step(CallHeard(SecondMessage(NONCE, (Ready(0, 50600),))), 1.1)
    (adopted,) = those(Adopt, attempt.step(SignalSeen(0, Signal.FIRE, *spray.lanes[44]), 1.2))
    assert 45000 == adopted.public
