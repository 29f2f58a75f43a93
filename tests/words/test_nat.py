"""Claims about words/nat.py: its words are RFC 4787's, every one has a number on the wire and a line in PROTOCOL.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from punchd.wire.descriptor import decode_descriptor, encode_descriptor
from punchd.words.addresses import Endpoint
from punchd.words.nat import Allocation, Dependence, Descriptor, Face, NatClass

PAGE = (Path(__file__).parents[2] / "PROTOCOL.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("word", [*Dependence, *Allocation])
def test_each_word_is_explained_where_callers_read(word: str) -> None:
    """Reports are read by people who have no source at hand."""
    assert f"`{word}`" in PAGE


@pytest.mark.parametrize("dependence", Dependence)
@pytest.mark.parametrize("allocation", Allocation)
def test_each_word_travels(dependence: Dependence, allocation: Allocation) -> None:
    """A word without a number would fail at the first NAT that deserves it."""
    nat = NatClass(dependence, dependence, allocation, 1 if allocation is Allocation.SEQUENTIAL else 0)
    descriptor = Descriptor("10.0.1.2", 1, udp=Face(22000, Endpoint("203.0.113.2", 22000), nat))
    assert descriptor == decode_descriptor(encode_descriptor(descriptor))
