"""Claims about daemon/endpoint.py that need no socket: what becomes of findings."""

from __future__ import annotations

import pytest

from punchd.daemon.endpoint import SAMPLE_LIFE_MS, describe
from punchd.wire.descriptor import decode_descriptor, encode_descriptor
from punchd.words.addresses import Endpoint
from punchd.words.nat import Face, NatClass, Sample
from punchd.words.probing import Finding

MADE_MS = 1_795_365_636_908


@pytest.mark.parametrize("off_ms", [-(10**12), -1, SAMPLE_LIFE_MS, 10**11])
def test_samples_of_another_time_are_left_out(off_ms: int) -> None:
    """An endpoint kept for weeks, or a clock that was set: what can't predict must not break the descriptor either."""
    samples = (Sample(MADE_MS - off_ms, 22000, 40000), Sample(MADE_MS, 22001, 40001))
    face = Face(22000, Endpoint("203.0.113.2", 40000), NatClass(), samples)
    descriptor = describe([Finding("udp", face, (), ())], "10.0.1.2", MADE_MS)
    assert descriptor is not None
    assert descriptor.udp is not None
    assert samples[1:] == descriptor.udp.samples
    assert descriptor == decode_descriptor(encode_descriptor(descriptor))


def test_nothing_found_is_no_descriptor() -> None:
    """The caller gets `no-answer` then."""
    assert describe([Finding("udp", None, (), ())], "10.0.1.2", MADE_MS) is None
