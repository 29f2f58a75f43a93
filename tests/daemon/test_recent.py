"""The last minute's attempts: what fails is counted, what was opened is added up, and all of it is forgotten.
It refuses to wait: times are arguments."""

from __future__ import annotations

from punchd.core.tally import Tally
from punchd.daemon import recent
from punchd.daemon.recent import MINUTE_S, Recent
from punchd.words.addresses import Endpoint
from punchd.words.probing import Observation

BOB = (1000, "198.51.100.2", "tcp")


def test_failures_in_a_row_are_counted_for_a_minute() -> None:
    """So a retry knows that it is one."""
    memory = Recent()
    assert 0 == memory.tried(BOB, 0.0)
    memory.ended(BOB, ok=False, now=0.0)
    memory.ended(BOB, ok=False, now=50.0)
    assert (2, 0) == (memory.tried(BOB, 50.0 + MINUTE_S - 1), memory.tried(BOB, 50.0 + MINUTE_S))


def test_a_success_ends_the_row() -> None:
    """What worked is tried first again."""
    memory = Recent()
    memory.ended(BOB, ok=False, now=0.0)
    memory.ended(BOB, ok=True, now=1.0)
    assert 0 == memory.tried(BOB, 1.0)


def test_what_worked_after_failures_is_kept_as_long_as_it_works() -> None:
    """The TTL that a retry found is not forgotten while it serves."""
    memory = Recent()
    memory.ended(BOB, ok=False, now=0.0)
    memory.stays(BOB, 50.0)
    assert (1, 0) == (memory.tried(BOB, 100.0), memory.tried(BOB, 110.0))
    memory.stays(BOB, 120.0)
    assert 0 == memory.tried(BOB, 121.0)


def test_users_peers_and_transports_are_apart() -> None:
    """One user's failures say nothing to another, who could learn from it whom that one calls."""
    memory = Recent()
    memory.ended(BOB, ok=False, now=0.0)
    assert [0, 0, 0] == [memory.tried(other, 1.0) for other in
                         ((1001, *BOB[1:]), (1000, "198.51.100.3", "tcp"), (1000, "198.51.100.2", "udp"))]  # fmt: skip


def test_mappings_since_a_time_are_added_up() -> None:
    """The samples are from then."""
    memory = Recent()
    for at, count in ((0.0, 5), (10.0, 7), (20.0, 9)):
        memory.opened("203.0.113.2", count, at)
    assert (16, 0, 0) == (memory.taken("203.0.113.2", 10.0), memory.taken("203.0.113.2", 21.0), memory.taken("x", 0.0))
    memory.opened("203.0.113.2", 1, 75.0)
    assert 10 == memory.taken("203.0.113.2", 0.0)


def test_a_probes_mapping_is_told_from_others_by_when_it_left_not_by_when_it_was_answered() -> None:
    """The clock's milliseconds put a burst on the wrong side of a sample."""
    memory, local, server = Recent(), Endpoint("10.0.1.2", 22000), Endpoint("192.0.2.10", 3478)
    memory.counts("udp", local.address, 1)
    assert memory.ahead("udp", local.address, 40100, 1.0) is None
    memory.maps("udp", local.address, 50, 1.0)
    memory.asks("udp", local, server, 1.0)
    memory.maps("udp", local.address, 50, 1.0)
    memory.sounds(local.address, 1.0)
    memory.saw(Observation("udp", server, local, Endpoint("203.0.113.2", 40000), 0, None), 1.001)
    tally = memory.tally("udp", local.address)
    assert (50, 1) == tally.since_seen(1)
    assert (0, 102) == memory.tally("tcp", local.address).since(Tally().at(0.0))
    least, most, port = memory.ahead("udp", local.address, 40100, 1.0) or (0, 0, 0)
    assert least <= 40100 - 40051 <= most
    assert 40100 == port
    least, _, port = memory.ahead("udp", local.address, 0, 1.0) or (0, 0, 0)
    assert least > 0
    assert port > 40051


def test_the_memory_has_an_end() -> None:
    """Callers name addresses as they like."""
    memory = Recent()
    for number in range(recent.PEERS_MAX + 10):
        memory.ended((1000, str(number), "tcp"), ok=False, now=0.0)
        memory.opened(str(number), 1, 0.0)
    assert (0, 1) == (memory.tried((1000, "0", "tcp"), 1.0), memory.tried((1000, "10", "tcp"), 1.0))
    assert (0, 1) == (memory.taken("0", 0.0), memory.taken("10", 0.0))
