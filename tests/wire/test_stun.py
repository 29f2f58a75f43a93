"""Claims about wire/stun.py: Binding messages are read and written as RFC 8489 says, and nothing else is read at all.

Invariant for hostile bytes: decode_answer returns an Answer or None, message_len a length, None or ValueError.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchd.wire.stun import INDICATION, MESSAGE_MAX_LEN, decode_answer, encode_request, message_len
from punchd.words.addresses import Endpoint
from punchd.words.probing import Answer, Change

TRANSACTION = bytes(range(12))
PUBLIC, OTHER = Endpoint("203.0.113.2", 40000), Endpoint("192.0.2.11", 3479)
# RFC 5769, section 2.2: a response with XOR-MAPPED-ADDRESS 192.0.2.1:32853, integrity and fingerprint
VECTOR = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)


def _own_server() -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / "endpoint_server.py"
    spec = importlib.util.spec_from_file_location("endpoint_server", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OWN = _own_server()
WHOLE: bytes = OWN.answer(TRANSACTION, (PUBLIC.address, PUBLIC.port), ("192.0.2.10", 3478), (OTHER.address, OTHER.port))


def test_the_rfcs_own_response_is_read() -> None:
    """RFC 5769's vector."""
    answer = decode_answer(VECTOR)
    assert answer is not None
    assert (Endpoint("192.0.2.1", 32853), None) == (answer.mapped, answer.other)


def test_our_servers_response_is_read() -> None:
    """Two codecs that share no code agree."""
    assert Answer(TRANSACTION, PUBLIC, OTHER) == decode_answer(WHOLE)


@pytest.mark.parametrize(
    ("change", "flags"), [(None, 0), (Change(address=False, port=True), 2), (Change(address=True, port=True), 6)]
)
def test_our_server_reads_our_request(change: Change | None, flags: int) -> None:
    """CHANGE-REQUEST's flags are RFC 5780's."""
    assert (TRANSACTION, flags, 0) == OWN.parse(encode_request(TRANSACTION, change))
    assert (TRANSACTION, flags, 40000) == OWN.parse(encode_request(TRANSACTION, change, port=40000))


def test_nobody_answers_what_is_to_die() -> None:
    """A datagram that arrives all the same is no request."""
    assert OWN.parse(INDICATION) is None
    assert decode_answer(INDICATION) is None


def test_cut_anywhere_it_is_nothing() -> None:
    """On UDP a truncated answer is no answer."""
    for length in range(len(WHOLE)):
        assert decode_answer(WHOLE[:length]) is None


def test_altered_in_its_head_it_is_nothing() -> None:
    """Another cookie, kind or length."""
    for at in (0, 1, 2, 3, 4, 5, 6, 7):
        altered = bytearray(WHOLE)
        altered[at] ^= 0x10
        answer = decode_answer(bytes(altered))
        assert answer is None or answer.mapped is None


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_altered_anywhere_it_is_an_answer_or_nothing(at: int, value: int) -> None:
    """No exception may reach the loop."""
    altered = bytearray(WHOLE)
    altered[at] = value
    decode_answer(bytes(altered))


@given(st.binary(max_size=80))
def test_any_attributes_are_an_answer_or_nothing(rest: bytes) -> None:
    """The codec lets struct.error out; we do not."""
    rest += bytes(-len(rest) % 4)
    for kind in (b"\x01\x01", b"\x01\x11"):
        decode_answer(kind + len(rest).to_bytes(2, "big") + WHOLE[4:20] + rest)


@pytest.mark.parametrize("family", ["ipv6", "port 0"])
def test_endpoints_that_are_none_of_ours_are_none(family: str) -> None:
    """IPv6 and port 0 are not punched."""
    value = b"\0\2" + bytes(18) if family == "ipv6" else b"\0\1" + b"\x21\x12" + bytes(4)
    body = b"\0\x20" + len(value).to_bytes(2, "big") + value
    answer = decode_answer(b"\x01\x01" + len(body).to_bytes(2, "big") + WHOLE[4:20] + body)
    assert answer is not None
    assert answer.mapped is None


@pytest.mark.parametrize(("strays", "refused"), [(0, None), (OWN.NOTHING, False), (OWN.REFUSED, True), (3, None)])
def test_what_our_server_says_of_its_strays_is_read(strays: int, refused: bool | None) -> None:
    """In answers and in errors; a value that nobody knows says nothing."""
    ends = (PUBLIC.address, PUBLIC.port), ("192.0.2.10", 3478), (OTHER.address, OTHER.port)
    assert Answer(TRANSACTION, PUBLIC, OTHER, refused=refused) == decode_answer(
        OWN.answer(TRANSACTION, *ends, strays=strays)
    )
    assert Answer(TRANSACTION, error=447, refused=refused) == decode_answer(OWN.failure(TRANSACTION, strays))


def test_our_server_remembers_so_many_askers_for_so_long() -> None:
    """It sends strays to whoever asks; the oldest are forgotten, and of the others nothing is said."""
    server = OWN.EndpointServer(["192.0.2.10", "192.0.2.11"], [3478, 3479])
    for number in range(OWN.STRAYS_MAX + 1):
        server.remember(("203.0.113.2", 1024 + number))
    assert OWN.STRAYS_MAX == len(server.strays)
    assert [0, OWN.NOTHING] == [server.came_back(("203.0.113.2", port)) for port in (1024, 1025)]
    server.strays["203.0.113.2", 1025] = -OWN.STRAYS_S, OWN.REFUSED
    assert 0 == server.came_back(("203.0.113.2", 1025))


def test_error_response_has_its_code() -> None:
    """coturn says 420 to what it does not know."""
    body = b"\0\x09\0\4\0\0\4\x14"
    answer = decode_answer(b"\x01\x11\0\x08" + WHOLE[4:20] + body)
    assert Answer(TRANSACTION, error=420) == answer


def test_length_on_a_stream_is_known_after_the_head_and_bounded() -> None:
    """A server that announces megabytes is hung up on."""
    assert message_len(WHOLE[:19]) is None
    assert len(WHOLE) == message_len(WHOLE[:20])
    with pytest.raises(ValueError, match="not a STUN message"):
        message_len(WHOLE[:2] + (MESSAGE_MAX_LEN // 4 * 4).to_bytes(2, "big") + WHOLE[4:20])
    with pytest.raises(ValueError, match="not a STUN message"):
        message_len(b"HTTP/1.1 400 Bad Request\r\n")
