"""Whether the street of bench/core.py still does what is counted; nobody sees a bench fail for weeks."""

from __future__ import annotations

import random

import pytest

from bench.core import LEAN, Street
from punchd.words.outcomes import Punched


@pytest.mark.parametrize("technique", LEAN)
def test_both_sides_of_the_street_are_punched(technique: str) -> None:
    """A core that asks its kernel something new needs somebody to answer here as well."""
    outcomes = Street(technique, random.Random(1)).run()
    assert [Punched, Punched] == [type(outcome) for outcome in outcomes]
