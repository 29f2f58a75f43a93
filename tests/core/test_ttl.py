"""Claims about core/ttl.py: which TTL clears the own NATs, by who speaks up on the way, and how long it waits.
It opens no socket; tests/lab/test_hops.py lets real routers answer.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchd.core.ttl import LEAST, PATIENCE_S, REPEAT_S, TTLS, Sounding, clearing, reaching, rung
from punchd.words.events import DeadlinePassed
from punchd.words.hops import Hop, HopHeard, Launch

HOME, CARRIER, ROUTER, FAR, SERVER = "10.0.1.1", "100.64.1.1", "203.0.113.1", "198.18.12.2", "192.0.2.10"
PUBLIC = "203.0.113.2"


def hops(*senders: str | None) -> list[Hop]:
    """Who spoke up at TTL 1, 2, ...; None: nobody."""
    return [Hop(ttl, sender, sender == SERVER, 1.0) for ttl, sender in enumerate(senders, 1) if sender is not None]


@pytest.mark.parametrize(
    ("senders", "ttl", "least"),
    [
        ((HOME, ROUTER, FAR), 2, 2),
        ((HOME, CARRIER, ROUTER), 3, 3),
        ((HOME, CARRIER, "100.65.1.1", ROUTER), 4, 4),
        (("192.168.1.1", "10.9.9.9", "172.16.3.1", ROUTER), 4, 4),
        ((ROUTER, FAR), 2, 2),
        ((HOME, None, ROUTER), 3, 2),
        ((None, CARRIER, None, ROUTER), 4, 3),
        ((None, None, ROUTER), 3, 2),
        ((HOME, PUBLIC, ROUTER), 3, 3),
        ((PUBLIC, ROUTER), 2, 2),
        ((HOME, None, SERVER), 3, 2),
        ((SERVER,), 2, 2),
        ((HOME, ROUTER, "10.255.0.1", FAR), 2, 2),
        ((HOME, CARRIER), None, 3),
        ((None, None), None, 2),
        ((), None, 2),
    ],
)
def test_ttl_is_that_of_the_first_hop_outside(senders: tuple[str | None, ...], ttl: int | None, least: int) -> None:
    """One less and the primer opens nothing; silence on the way is passed by, and never taken for an answer."""
    way = clearing(hops(*senders), {PUBLIC})
    assert (ttl, least) == (way.ttl, way.least)


def test_distance_is_where_the_server_answered_first() -> None:
    """What has arrived once arrives with any larger TTL."""
    assert 3 == clearing(hops(HOME, ROUTER, SERVER, SERVER), ()).distance
    assert clearing(hops(HOME, ROUTER), ()).distance is None


def test_server_of_a_private_address_proves_nothing() -> None:
    """It stands in front of the NAT."""
    assert clearing([Hop(1, "10.0.1.9", True, 1.0)], ()).ttl is None
    assert LEAST == clearing([Hop(1, "10.0.1.9", True, 1.0)], ()).least


def sounding(heard: list[Hop]) -> Sounding:
    machine = Sounding(now=100.0)
    assert [Launch(ttl) for ttl in TTLS] == machine.begin()
    for hop in heard:
        assert [] == machine.step(HopHeard(hop.ttl, hop.sender, hop.arrived), 100.01)
    return machine


def test_it_is_settled_as_soon_as_the_hop_behind_the_first_outside_has_spoken() -> None:
    """Netcheck is used by people. That hop counts when STUN shows the one before it to be our own NAT."""
    assert not sounding(hops(HOME, PUBLIC)).settled
    machine = sounding(hops(HOME, PUBLIC, ROUTER))
    assert machine.settled
    assert machine.deadline is None
    assert 3 == clearing(machine.hops.values(), {PUBLIC}).ttl


def test_silent_hops_are_asked_once_more_and_then_left_alone() -> None:
    """Routers answer so many a second, and some never."""
    machine = sounding(hops(HOME, None, ROUTER))
    assert 100.0 + REPEAT_S == machine.deadline
    missing = [Launch(ttl) for ttl in TTLS if ttl not in (1, 3)]
    assert missing == machine.step(DeadlinePassed(), 100.0 + REPEAT_S)
    assert [] == machine.step(DeadlinePassed(), 100.0 + REPEAT_S)
    assert not machine.settled
    assert 100.0 + PATIENCE_S == machine.deadline
    assert [] == machine.step(DeadlinePassed(), 100.0 + PATIENCE_S)
    assert machine.settled
    assert 3 == clearing(machine.hops.values(), ()).ttl


def test_server_that_answers_late_is_still_heard() -> None:
    """The hops are near, the server is far."""
    machine = sounding(hops(HOME, ROUTER, FAR))
    assert machine.settled
    assert [] == machine.step(HopHeard(5, SERVER, True), 100.2)
    assert 5 == clearing(machine.hops.values(), ()).distance


def test_callers_patience_is_the_limit() -> None:
    """`timeout_ms` of the request."""
    machine = Sounding(now=100.0, timeout_s=0.1)
    assert 100.1 == machine.deadline
    assert [] == machine.step(DeadlinePassed(), 100.1)
    assert machine.settled


def test_first_word_about_a_ttl_counts_and_its_time_is_known_unless_repeated() -> None:
    """A second sender is a path that has changed, or a liar."""
    machine = sounding(hops(HOME))
    machine.step(HopHeard(1, FAR, False), 100.02)
    machine.step(DeadlinePassed(), 100.0 + REPEAT_S)
    machine.step(HopHeard(2, ROUTER, False), 100.5)
    assert [Hop(1, HOME, False, 10.0), Hop(2, ROUTER, False, None)] == list(machine.hops.values())


PEER = "198.51.100.2"


@pytest.mark.parametrize(
    ("senders", "own", "short", "arrived"),
    [
        ((HOME, ROUTER, FAR, None), 0, 3, None),
        ((HOME, ROUTER, FAR, PEER, PEER), 0, 3, 4),
        ((HOME, None, None, PEER), 0, 3, 4),
        ((HOME, ROUTER, FAR, PEER, "192.168.1.2"), 0, 3, 4),
        ((HOME, ROUTER, FAR, "198.51.100.130", PEER), 1, 3, 5),
        ((HOME, ROUTER, FAR, "198.51.100.130"), 1, 3, None),
        ((PEER,), 1, 0, 1),
        ((None, None), 0, None, None),
        ((), 1, None, None),
    ],
)
def test_short_is_the_last_ttl_before_what_belongs_to_the_peer(
    senders: tuple[str | None, ...], own: int, short: int | None, arrived: int | None
) -> None:
    """A primer that reaches the peer's NAT may be answered with a RST, or with a block."""
    reach = reaching(hops(*senders), PEER, own=own)
    assert (short, arrived) == (reach.short, reach.arrived)


def test_way_to_a_peer_is_settled_by_its_own_address_or_by_patience() -> None:
    """The first router outside says nothing of the peer's end."""
    machine = Sounding(now=100.0, through=True)
    machine.begin()
    for hop in hops(HOME, ROUTER, FAR):
        machine.step(HopHeard(hop.ttl, hop.sender, arrived=False), 100.01)
    assert not machine.settled
    machine.step(HopHeard(4, PEER, arrived=True), 100.02)
    assert machine.settled


@given(st.lists(st.sampled_from([None, HOME, CARRIER, ROUTER, FAR, PUBLIC, SERVER]), max_size=8))
def test_ttl_never_lies_below_what_is_known_to_be_inside(senders: list[str | None]) -> None:
    """Whatever routers say, and however many are silent."""
    way = clearing(hops(*senders), {PUBLIC})
    assert way.least >= LEAST
    assert way.ttl is None or LEAST <= way.least <= way.ttl <= max(LEAST, len(senders))


def test_a_guess_is_another_one_each_time_and_comes_round() -> None:
    """What fails in silence may have died in front of the outermost NAT; never as far as a peer of five hops."""
    tried = [rung(LEAST, number, found=False) for number in range(4)]
    assert tried == [LEAST, LEAST + 2, LEAST + 1, LEAST]


def test_what_was_found_is_trusted_once_more() -> None:
    """A carrier's routers may have deceived it (the head of core/ttl.py), but first failures have other reasons."""
    assert [3, 3, 5, 4, 3] == [rung(3, number, found=True) for number in range(5)]
