"""Claims about daemon/endpoint.py that need no socket: what becomes of findings, and of bytes that come over TCP."""

from __future__ import annotations

from typing import Any

import pytest

from punchd.daemon.endpoint import SAMPLE_LIFE_MS, _Side, describe
from punchd.wire.descriptor import decode_descriptor, encode_descriptor
from punchd.words.addresses import Endpoint
from punchd.words.nat import Face, NatClass, Sample
from punchd.words.probing import Answered, Finding, LineEnded

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


class _Line:
    """A connection that holds these bytes."""

    server = Endpoint("192.0.2.10", 3478)

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = [*chunks]

    def receive(self, limit: int) -> bytes:
        return self._chunks.pop(0)


def _heard(*chunks: bytes) -> list[Any]:
    """What the probe is told of them."""
    side: Any = _Side.__new__(_Side)
    heard: list[Any] = []
    line = _Line(*chunks)
    side.feed, side._heads = heard.append, {line: bytearray()}
    side._drop_line = lambda slot, server: side._heads.pop(line, None)
    for _ in chunks:
        side._on_readable(0, line)
    return heard


def _answer(number: int) -> bytes:
    head = bytes.fromhex("0101000c2112a442") + bytes([number] * 12)
    return head + bytes.fromhex("0020000800012112ea12d540")


@pytest.mark.parametrize("cut", range(0, 65, 8))
def test_answers_that_come_as_one_are_told_apart(cut: int) -> None:
    """The server was asked twice, and its kernel sent both answers in one segment, or cut them anywhere."""
    both = _answer(1) + _answer(2)
    heard = _heard(*filter(None, (both[:cut], both[cut:])))
    assert [bytes([1] * 12), bytes([2] * 12)] == [told.answer.transaction for told in heard]
    assert all(isinstance(told, Answered) for told in heard)


def test_server_that_hangs_up_ends_its_line() -> None:
    """Half an answer before that is none."""
    assert [LineEnded(0, _Line.server, "closed by the server")] == _heard(_answer(1)[:30], b"")
