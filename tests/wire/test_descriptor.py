"""Claims about wire/descriptor.py: what is written is read again, and whatever else comes is refused.

Invariant for hostile text: decode_descriptor returns a Descriptor or raises RequestError, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchd.wire.descriptor import TEXT_MAX, TEXT_START, decode_descriptor, encode_descriptor
from punchd.words.addresses import Endpoint
from punchd.words.errors import Code, RequestError
from punchd.words.nat import SAMPLES_MAX, STEP_MAX, Allocation, Dependence, Descriptor, Face, NatClass, Sample

MADE_MS = 1_795_365_636_908
SEQUENTIAL = NatClass(Dependence.ADDRESS, Dependence.ADDRESS_AND_PORT, Allocation.SEQUENTIAL, -2)
FACE = Face(22001, Endpoint("203.0.113.2", 40002), SEQUENTIAL, (
    Sample(MADE_MS - 90, 22001, 40006), Sample(MADE_MS - 40, 22002, 40004), Sample(MADE_MS, 22003, 40002),
))  # fmt: skip
WHOLE = Descriptor("10.0.1.2", MADE_MS, FACE, Face(22009, Endpoint("203.0.113.2", 22009), NatClass()), 3)

_ports = st.integers(1, 65535)
_addresses = st.ip_addresses(v=4).map(str)


@st.composite
def _faces(draw: st.DrawFn) -> Face:
    kind = draw(st.sampled_from(Allocation))
    step = draw(st.integers(-STEP_MAX, STEP_MAX).filter(bool)) if kind is Allocation.SEQUENTIAL else 0
    outlives = draw(st.sampled_from([None, False, True]))
    drops, forgives = (draw(st.sampled_from([None, False, True])) for _ in range(2))
    nat = NatClass(
        draw(st.sampled_from(Dependence)), draw(st.sampled_from(Dependence)), kind, step, outlives,
        drops_strays=drops, forgives=forgives,
    )  # fmt: skip
    ages = sorted(draw(st.lists(st.integers(0, 2**32 - 1), max_size=SAMPLES_MAX)), reverse=True)
    samples = tuple(Sample(MADE_MS - age, draw(_ports), draw(_ports)) for age in ages)
    return Face(draw(_ports), Endpoint(draw(_addresses), draw(_ports)), nat, samples)


@given(_addresses, _faces() | st.none(), _faces() | st.none(), st.integers(1, 64) | st.none())
def test_descriptor_is_read_as_it_was_written(host: str, tcp: Face | None, udp: Face | None, ttl: int | None) -> None:
    """Both transports' classes arrive apart, samples with their times."""
    if tcp is None and udp is None:
        return
    descriptor = Descriptor(host, MADE_MS, tcp, udp, ttl)
    text = encode_descriptor(descriptor)
    assert descriptor == decode_descriptor(text)
    assert len(text) <= TEXT_MAX
    assert text.startswith(TEXT_START)


def test_descriptor_of_before_is_read() -> None:
    """Made when nobody measured what ICMP errors end: not known, rather than refused."""
    text = "ZTEBAwoAAQIBogQhiywDVfHLAHECnEICAwL__gMAAABaVfGcRgAAAChV8pxEAAAAAFXznEJV-csAcQJV-QAAAAAAANqQyPM"
    assert WHOLE == decode_descriptor(text)
    assert text == encode_descriptor(WHOLE)


def test_home_routers_descriptor_is_short() -> None:
    """It travels in chat lines and QR codes."""
    kept = NatClass(Dependence.INDEPENDENT, Dependence.ADDRESS_AND_PORT, Allocation.PRESERVING)
    face = Face(22001, Endpoint("203.0.113.2", 22001), kept)
    assert len(encode_descriptor(Descriptor("10.0.1.2", MADE_MS, face, face))) < 70


def test_cut_anywhere_it_is_refused() -> None:
    """A side channel that truncates must not make a smaller truth."""
    text = encode_descriptor(WHOLE)
    for length in range(len(text)):
        refused(text[:length])


def test_altered_anywhere_it_is_refused() -> None:
    """By the checksum at the latest."""
    text = encode_descriptor(WHOLE)
    for at in range(len(text)):
        refused(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])


@given(st.text(max_size=600))
def test_any_text_is_a_descriptor_or_refused(text: str) -> None:
    """Hostile input: nothing but RequestError may come out."""
    try:
        decode_descriptor(text)
    except RequestError:
        pass


@given(st.binary(max_size=200))
def test_any_sealed_bytes_are_a_descriptor_or_refused(rest: bytes) -> None:
    """The checksum is no secret: behind it, every field is checked."""
    try:
        descriptor = decode_descriptor(sealed(b"e1\x01" + rest))
    except RequestError:
        return
    assert decode_descriptor(encode_descriptor(descriptor)) == descriptor


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (2, 2, "version 2"),
        (3, 0, "flags"),
        (3, 4, "flags"),
        (3, 3 | 4 | 8, "flags"),
        (3, 3 | 16 | 32, "flags"),
        (3, 1 | 16, "flags"),
        (3, 2 | 8, "flags"),
        (3, 3 | 64, "flags"),
        (14, 65, "TTL"),
        (23, 4, "does not exist"),
        (24, 9, "does not exist"),
        (24, 3 | 3 << 4, "strays does not exist"),
        (24, 3 | 3 << 6, "strays does not exist"),
        (25, 4, "does not exist"),
        (25, 3, "do not advance"),
        (26, 0x7F, "do not advance"),
        (28, 17, "samples"),
        (28, 255, "samples"),
        (28, 0, "can't be read"),
    ],
)
def test_values_that_no_descriptor_has_are_refused(at: int, value: int, why: str) -> None:
    """A lie costs a refusal that says what is wrong: absurd steps, thousands of candidates, unknown classes."""
    data = bytearray(unsealed(encode_descriptor(WHOLE)))
    data[at] = value
    error = refused(sealed(bytes(data)))
    assert why in error.message


def test_port_0_and_disordered_times_are_refused() -> None:
    """Nobody can send to port 0, and a sequence is read in time."""
    data = unsealed(encode_descriptor(WHOLE))
    assert "port 0" in refused(sealed(data[:15] + b"\0\0" + data[17:])).message
    first, second = data[29:37], data[37:45]
    assert "order of time" in refused(sealed(data[:29] + second + first + data[45:])).message
    assert "left over" in refused(sealed(data + b"\0")).message


def refused(text: str) -> RequestError:
    with pytest.raises(RequestError) as raised:
        decode_descriptor(text)
    assert Code.BAD_VALUE is raised.value.code
    return raised.value


def sealed(body: bytes) -> str:
    checksum = hashlib.blake2s(body, digest_size=4, person=b"punchd-e").digest()
    return base64.urlsafe_b64encode(body + checksum).rstrip(b"=").decode()


def unsealed(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))[:-4]
