"""The timed offer by real daemons through the kernel's NATs: with a delay that is told, A comes before B.
It refuses to measure: `./dev bench latency` does."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest
from duo import duo
from running import BENT

pytestmark = [pytest.mark.lab, pytest.mark.slow]


@pytest.mark.parametrize("technique", ["tcp-midstream", "udp"])
def test_who_tells_the_delay_has_its_socket_before_the_peer_has(technique: str) -> None:
    """s + r/2 instead of s + 3r/2; B's is there at s + r either way. Data passes on both."""
    transport: Literal["tcp", "udp"] = "udp" if technique == "udp" else "tcp"
    with duo("linux", "linux", delay_ms=100.0, command_a=[*BENT, "knowing"]) as both:
        (a, b), (late, before) = (
            asyncio.run(both.run([technique], transport=transport, side_delay_s=0.3, told=told))
            for told in (True, False)
        )
    assert [True] * 4 == [side["ok"] for side in (a, b, late, before)]
    assert a["ready_ns"] < b["ready_ns"]
    assert before["ready_ns"] < late["ready_ns"]
