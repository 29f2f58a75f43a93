"""Whether the C programs of bench/floor.py still punch: they speak with the benches' applications and with csrc/."""

from __future__ import annotations

import pytest

from bench.floor import TECHNIQUE, Floor


@pytest.mark.lab
@pytest.mark.slow
def test_the_floor_punches() -> None:
    """A field that the applications' lines gain, or a call of csrc/ that changes, must not wait for the next record."""
    with Floor() as floor:
        outcome = floor.punch(TECHNIQUE, 20, concurrency=4)
    assert (20, 0) == (outcome.ok, outcome.failed)
