"""The lanes of a fan: which ports, and that no round repeats another's.
It refuses to say what is sent on them."""

from __future__ import annotations

from punchd.core.lanes import BURST, LANES_MAX, PUBLIC_PORTS, ROUNDS, Rounds
from punchd.words.addresses import CONNECT_PORTS
from punchd.words.notification import SOURCES_MAX, SPREAD_MAX, Spread

SEEDS = (0, 1, 12_345, (1 << 63) - 1)


def lanes(rounds: Rounds, number: int) -> list[tuple[int, int]]:
    return [lane for burst in rounds.bursts(number) for lane in burst]


def test_drawn_targets_are_all_over_the_range_and_never_twice() -> None:
    """A target that was tried and not met is lost: another has the better chance."""
    for seed in SEEDS:
        rounds = Rounds(Spread(22000), Spread(0, SPREAD_MAX), seed)
        targets = [target for number in range(ROUNDS) for _, target in lanes(rounds, number)]
        assert ROUNDS * SPREAD_MAX == len(set(targets))
        assert all(target in PUBLIC_PORTS for target in targets)
        quarters = {(target - PUBLIC_PORTS.low) * 4 // len(PUBLIC_PORTS) for target in targets}
        assert {0, 1, 2, 3} == quarters


def test_drawn_ports_of_ours_are_fresh_in_each_round() -> None:
    """A random NAT gives a fresh port of ours a fresh port of its own."""
    for seed in SEEDS:
        rounds = Rounds(Spread(0, SOURCES_MAX), Spread(40000), seed)
        own = [port for number in range(ROUNDS) for port, _ in lanes(rounds, number)]
        assert ROUNDS * SOURCES_MAX == len(set(own))
        assert all(port in CONNECT_PORTS for port in own)


def test_named_ports_are_the_same_in_each_round() -> None:
    """A guess is no better for being varied: the plan made it from all it knew."""
    rounds = Rounds(Spread(22000, 2), Spread(40000, 3, -2), 7)
    expected = [(own, aim) for own in (22000, 22001) for aim in (40000, 39998, 39996)]
    assert [expected] * 2 == [lanes(rounds, number) for number in (0, 1)]


def test_the_last_round_is_followed_by_the_first() -> None:
    """What an initiator may hold, in ports and sockets, is bounded however long it waits."""
    rounds = Rounds(Spread(22000), Spread(0, 100), 7)
    assert lanes(rounds, 0) == lanes(rounds, ROUNDS)


def test_two_wide_spreads_make_no_more_than_one_round() -> None:
    """A peer may name 1024 targets and 256 sources; that is not a quarter of a million packets."""
    rounds = Rounds(Spread(0, SOURCES_MAX), Spread(0, SPREAD_MAX), 7)
    assert LANES_MAX == len(lanes(rounds, 0))
    assert {BURST} == {len(burst) for burst in rounds.bursts(0)}


def test_many_ports_towards_one_leave_at_once() -> None:
    """Where a NAT counts, another fan's ports in between would move all that follow."""
    (burst,) = Rounds(Spread(0, SOURCES_MAX), Spread(40000), 7).bursts(0)
    assert SOURCES_MAX == len(burst)


def test_a_lane_knows_when_it_was_sent_on_last() -> None:
    """The round trip counts from there, not from the fan's first packet."""
    rounds = Rounds(Spread(22000), Spread(40000, 2), 7)
    rounds.note(((22000, 40000),), 1.0)
    rounds.note(((22000, 40001),), 2.0)
    assert (1.0, 2.0, None) == tuple(rounds.sent_at((22000, port)) for port in (40000, 40001, 40002))


def test_a_lane_belongs_to_the_round_that_used_it_first() -> None:
    """A named port comes in every round: what is only repeated is no other try."""
    rounds = Rounds(Spread(22000), Spread(40000, 2), 7)
    for at, lane in enumerate([(22000, 40000), (22000, 40001), (22000, 40000)]):
        rounds.note((lane,), float(at), number=at)
    assert 0 == rounds.number
    for number in (0, 1):
        rounds.chosen = 22000, 40000 + number
        assert number == rounds.number
