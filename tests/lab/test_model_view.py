"""Claims about lab/model_view.py: what a modelled side's probe finds is what its kind's class says.
It refuses to compare with the kernel: tests/lab/test_endpoint.py asks there, in the same words."""

from __future__ import annotations

import pytest

from punchd.core import nicknames
from punchd.lab import pages
from punchd.lab.model_kinds import layers
from punchd.lab.model_nat import Nat
from punchd.lab.model_view import look
from punchd.words.nat import Dependence

START_S = 1000.0


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("kind", pages.KINDS)
def test_what_becomes_of_strays_is_found_by_packets(kind: str, transport: str) -> None:
    """The plan is tested in the model with what a probe measures: that must be the truth there, or not known."""
    kinds = layers(kind)
    boxes = [Nat(each, f"203.0.113.{number}") for number, each in enumerate(kinds, 2)]
    found = look(boxes, kinds, None, transport, now=START_S).nat
    page = nicknames.parse(kind)
    lax = page.filtering is Dependence.INDEPENDENT  # who is let in has sent no stray
    wanted = (None, None) if lax else (page.drops_strays, page.forgives)
    assert wanted == (found.drops_strays, found.forgives)
