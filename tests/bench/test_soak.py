"""Whether bench/soak.py finds growth where there is some."""

from __future__ import annotations

import pytest

from bench.soak import _gains


def test_what_each_attempt_leaves_is_found() -> None:
    """A kibibyte of each of 100 attempts a round, for 40 rounds, the allocator's unrest apart."""
    kib = [50_000 + 100 * turn + (7 if turn % 2 else -7) for turn in range(40)]
    gained, each = _gains("made up", kib, 100, long=True)
    assert gained.met is False
    assert pytest.approx(3000 / 1024, rel=0.02) == gained.value
    assert pytest.approx(1000, rel=0.02) == each.value


def test_a_daemon_that_stays_as_it_was_is_flat() -> None:
    """Unrest alone is no growth."""
    gained, _ = _gains("made up", [50_000 + 100 * (turn % 3) for turn in range(40)], 100, long=True)
    assert gained.met
    assert _gains("made up", [50_000] * 4, 100, long=False)[0].met is None
