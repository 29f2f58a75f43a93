"""Ports are drawn so that no 4-tuple comes twice, from a random start.
It refuses to bind any."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from punchd.core.lanes import ROUNDS, Rounds
from punchd.core.ports import Ports
from punchd.words.addresses import CONNECT_PORTS, LISTEN_PORTS, PortRange
from punchd.words.notification import Spread


def test_no_tuple_comes_twice() -> None:
    """A NAT remembers a tracked SYN for 120 s: its tuple is spoilt for the next attempt."""
    ports = Ports(random.Random(1), PortRange(22000, 22019), PortRange(21000, 21006))
    drawn = [ports.draw() for _ in range(400)]
    assert 400 == len(set(drawn))
    drawn = [ports.draw(own_listens=True) for _ in range(140)]
    assert 140 == len(set(drawn))


def test_the_walk_begins_anew_when_every_tuple_was_drawn() -> None:
    """Tens of thousands fit; a daemon that lives longer goes round."""
    ports = Ports(random.Random(1), PortRange(22000, 22009), PortRange(21000, 21001))
    drawn = [ports.draw() for _ in range(101)]
    assert drawn[0] == drawn[100]


def test_listeners_have_a_range_of_their_own() -> None:
    """A REPAIR bind beside a listener succeeds, so the two kinds must never share a port."""
    ports = Ports(random.Random(1))
    for _ in range(50):
        own, peer = ports.draw(own_listens=True)
        assert own in LISTEN_PORTS
        assert peer in CONNECT_PORTS
        assert ports.draw()[0] in CONNECT_PORTS


@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_a_restarted_daemon_starts_elsewhere(one: int, other: int) -> None:
    """Else it would meet the tuples of its former life; the same dice give the same walk."""
    first, again = Ports(random.Random(one)), Ports(random.Random(one))
    assert first.draw() == again.draw()
    if one != other:
        draws = [Ports(random.Random(seed)).draw() for seed in (one, other, one + other + 1)]
        assert len(set(draws)) > 1


def test_fans_that_are_open_together_share_no_port() -> None:
    """A hole that is missing moves all later ones of a NAT that counts, and the guess is behind the last."""
    ports = Ports(random.Random(3))
    fans = [Rounds(Spread(0, 256), Spread(40000), ports.seed(ROUNDS * 256)) for _ in range(10)]
    own = [port for fan in fans for turn in range(ROUNDS) for burst in fan.bursts(turn) for port, _ in burst]
    assert 10 * ROUNDS * 256 == len(set(own))


def test_who_draws_again_leaves_a_fans_neighbours() -> None:
    """A fan over UDP holds up to 768 ports in a row. The draws of an endpoint all lay among them: `no-answer`."""
    ports = Ports(random.Random(1))
    held = range(24000, 24000 + ROUNDS * 256)
    drawn = [ports.draw()[0] for _ in range(len(CONNECT_PORTS))]
    assert len(CONNECT_PORTS) == len(set(drawn))
    assert not any(one in held and other in held for one, other in pairwise(drawn))
