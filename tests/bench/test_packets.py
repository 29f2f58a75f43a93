"""Whether bench/packets.py credits a reader with no rate at which it lost something, or that was not offered."""

from __future__ import annotations

from bench.packets import Climb, Sighting, _climbed, _without_loss


def silent(text: str) -> None:
    """Progress that nobody reads."""


class Reader:
    """Loses a frame of what comes faster than it reads, from a generator that makes so many a second at most."""

    def __init__(self, reads: int, *, made: int = 1_000_000) -> None:
        self.reads, self.made, self.offered = reads, made, list[int]()

    def __call__(self, count: int, *, rate: int) -> Sighting:
        self.offered.append(rate)
        seen = count - (rate > self.reads)
        return Sighting(count, 0, seen, 0, 0, 0.0, min(rate, self.made), 0.0)


def test_the_climb_ends_with_the_first_loss() -> None:
    """Whoever lost some is not asked for more, and the rate before is what counts."""
    reader = Reader(200)
    climb = _climbed({"ours": reader}, (100, 200, 300, 400), 1.0, silent)["ours"]
    assert (200, "at 300 lost 1 of 300") == (climb.rate, climb.end)
    assert [100, 100, 200, 200, 300] == reader.offered


def test_a_rate_that_was_not_offered_counts_for_nobody() -> None:
    """On a busy machine the generator is slower than it is told to be, and no reader loses anything."""
    climb = _climbed({"ours": Reader(1000, made=150)}, (100, 200), 1.0, silent)["ours"]
    assert (100, "the generator made 150 of 200 a second") == (climb.rate, climb.end)


def test_ours_has_to_come_as_far_as_the_bare_loop() -> None:
    """What neither can read is no fault of ours."""
    assert _without_loss(Climb(200), Climb(200)).met
    assert not _without_loss(Climb(100), Climb(200)).met
    assert not _without_loss(Climb(100), Climb()).met
