"""Nicknames: each kind of the lab has a class, and nothing else has.
It refuses to judge the kinds; their pages are tested in tests/lab/test_kinds.py."""

from __future__ import annotations

import pytest

from punchd.core.nicknames import NICKNAMES, parse
from punchd.lab import pages


def test_every_kind_of_the_lab_has_a_class_of_its_name() -> None:
    """`punchctl explain` and the lab speak of the same NATs."""
    assert {*pages.KINDS, "unknown"} == set(NICKNAMES)


@pytest.mark.parametrize("text", ["sequential", "sequential:step=-2", "sequential:step=256,foreign=20"])
def test_the_labs_settings_are_understood(text: str) -> None:
    """The same text names a box and its class."""
    pages.check(text)
    step = {"sequential": 1, "sequential:step=-2": -2}.get(text, 256)
    assert step == parse(text).step


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("cisco", "no class 'cisco'"),
        ("linux:step=2", "no setting 'step'"),
        ("sequential:pace=2", "no setting 'pace'"),
        ("sequential:step=two", "a whole number"),
        ("sequential:step=0", "from 1 to 1024"),
        ("sequential:step=2000", "from 1 to 1024"),
    ],
)
def test_what_is_no_class_is_told(text: str, why: str) -> None:
    """A person typed it."""
    with pytest.raises(ValueError, match=why):
        parse(text)
