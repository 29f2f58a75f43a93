"""Claims about api.py. The fuzz invariant: whatever bytes a line has, nothing is raised; it is a request with
an id that a reply can carry, or a refusal on which the caller must act and which can be sent."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from punchd.wire import replies
from punchd.wire.api import LINE_MAX_LEN, Refusal, decode_request
from punchd.wire.descriptor import encode_descriptor
from punchd.words.addresses import Endpoint
from punchd.words.errors import Code, Party
from punchd.words.nat import Descriptor, Face, NatClass
from punchd.words.requests import Cancel, Initiate, Notify, Ping, Place, Request, Respond, Status, Transport

PING = {"id": "1", "call": "ping"}
INITIATE = {"id": "1", "call": "initiate", "peer": "198.51.100.2"}
RESPOND = {"id": "k7", "call": "respond", "notification": "cDEB"}


def asked(**keys: Any) -> Request:
    request = decode_request(json.dumps(keys).encode())
    assert not isinstance(request, Refusal), request.error
    return request


def refused(line: bytes | dict[str, Any]) -> Refusal:
    request = decode_request(line if isinstance(line, bytes) else json.dumps(line).encode())
    assert isinstance(request, Refusal), request
    json.loads(replies.error(request.id, request.error))
    return request


def test_the_transcripts_initiate_is_understood() -> None:
    """The first line of PROTOCOL.md is the one that people copy."""
    line = (
        b'{"id":"1","call":"initiate","peer":"198.51.100.2:41000","self":"203.0.113.2",'
        b'"techniques":"auto","timeout_ms":10000}\n'
    )
    wanted = Initiate(id="1", peer=(Place("198.51.100.2", 41000),), self_=(Place("203.0.113.2"),), timeout_ms=10000)
    assert wanted == decode_request(line)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (PING, Ping(id="1")),
        ({"id": "1", "call": "status"}, Status(id="1")),
        ({"id": "2", "call": "cancel", "attempt": "1"}, Cancel(id="2", attempt="1")),
        (
            {"id": "2", "call": "notify", "attempt": "1", "notification": "x"},
            Notify(id="2", attempt="1", notification="x"),
        ),
        (INITIATE, Initiate(id="1", peer=(Place("198.51.100.2"),))),
        (RESPOND, Respond(id="k7", notification="cDEB")),
        (
            RESPOND | {"from": ["198.51.100.2", "203.0.113.0/24"], "early": True, "secret": "s" * 16},
            Respond(
                id="k7",
                notification="cDEB",
                from_=(IPv4Network("198.51.100.2/32"), IPv4Network("203.0.113.0/24")),
                early=True,
                secret=b"s" * 16,
            ),
        ),
        (
            INITIATE
            | {
                "peer": ["198.51.100.2:1", "198.51.100.3"],
                "self": ["203.0.113.2:65535"],
                "transport": "udp",
                "techniques": ["udp", "udp-birthday"],
                "timeout_ms": 600000,
                "early": True,
                "secret": "é" * 8,
                "side_delay_ms": 12.5,
            },
            Initiate(
                id="1",
                peer=(Place("198.51.100.2", 1), Place("198.51.100.3")),
                self_=(Place("203.0.113.2", 65535),),
                transport=Transport.UDP,
                techniques=("udp", "udp-birthday"),
                timeout_ms=600000,
                early=True,
                secret="é".encode() * 8,
                side_delay_ms=12.5,
            ),
        ),
    ],
)
def test_each_call_and_key_is_understood(line: dict[str, Any], wanted: Request) -> None:
    """Every key of PROTOCOL.md at least once."""
    assert wanted == asked(**line)


@pytest.mark.parametrize(
    ("line", "id_", "code", "said"),
    [
        (b"", None, "bad-json", "not JSON"),
        (b"hello", None, "bad-json", "not JSON"),
        (b'{"id":"1","call":"ping"', None, "bad-json", "not JSON"),
        (b'{"id":"1","call":"ping"} x', None, "bad-json", "not JSON"),
        (b'["id"]', None, "bad-json", "not a JSON object"),
        (b"5", None, "bad-json", "not a JSON object"),
        (b'{"id":"1","call":"ping\xff"}', None, "bad-json", "byte 22 of the line is not UTF-8"),
        (b'{"id":"1","call":"initiate","peer":NaN}', None, "bad-json", "NaN"),
        (b'{"id":"1","call":"initiate","peer":-Infinity}', None, "bad-json", "-Infinity"),
        (b"[" * 60000, None, "bad-json", "nested too deeply"),
        (b'{"id":"1","call":"initiate","peer":' + b"[" * 60000, None, "bad-json", "nested too deeply"),
        (b'{"id":"1","call":"initiate","peer":' + b"9" * 5000 + b"}", None, "bad-json", "not JSON"),
        (b'{"id":"1","call":"ping","call":"ping"}', "1", "bad-json", '"call" occurs twice'),
        (b'{"id":"1","id":"2","call":"ping"}', None, "bad-json", '"id" occurs twice'),
        (b'{"id":"1","call":"cancel","attempt":"a","\\u0061ttempt":"b"}', "1", "bad-json", "occurs twice"),
        (b'{"call":"ping"}', None, "missing-key", "'id'"),
        (b'{"id":"1"}', "1", "missing-key", "'call'"),
        ({"id": "1", "call": "initiate"}, "1", "missing-key", "'peer'"),
        ({"id": "1", "call": "respond"}, "1", "missing-key", "'notification'"),
        ({"id": "1", "call": "notify", "notification": "x"}, "1", "missing-key", "'attempt'"),
        ({"id": "1", "call": "endpoints"}, "1", "unknown-call", '"endpoints"'),
        ({"id": "1", "call": 5}, "1", "unknown-call", "5"),
        (INITIATE | {"timeout": 5, "pear": 6}, "1", "unknown-key", '"timeout", "pear"'),
        (INITIATE | {"allow_private": True}, "1", "unknown-key", '"allow_private"'),
        (PING | {"peer": "198.51.100.2"}, "1", "unknown-key", "ping has no key"),
        (PING | {"id": 5}, None, "bad-value", "'id' must be a string of 1 to 64 bytes; it is 5"),
        (PING | {"id": None}, None, "bad-value", "it is null"),
        (PING | {"id": ""}, None, "bad-value", "'id'"),
        (PING | {"id": "x" * 65}, None, "bad-value", "'id'"),
        (PING | {"id": "é" * 33}, None, "bad-value", "'id'"),
        (b'{"id":"\\ud800","call":"ping"}', None, "bad-value", "'id'"),
        (INITIATE | {"timeout_ms": "5"}, "1", "bad-value", "'timeout_ms' must be a whole number of ms"),
        (INITIATE | {"timeout_ms": 0}, "1", "bad-value", "from 1 to 600000; it is 0"),
        (INITIATE | {"timeout_ms": 600001}, "1", "bad-value", "'timeout_ms'"),
        (INITIATE | {"timeout_ms": 1.5}, "1", "bad-value", "'timeout_ms'"),
        (INITIATE | {"timeout_ms": True}, "1", "bad-value", "it is true"),
        (INITIATE | {"timeout_ms": 10**30}, "1", "bad-value", "'timeout_ms'"),
        (INITIATE | {"early": 1}, "1", "bad-value", "'early' must be true or false; it is 1"),
        (INITIATE | {"transport": "sctp"}, "1", "bad-value", '"tcp" or "udp"; it is "sctp"'),
        (INITIATE | {"techniques": "best"}, "1", "bad-value", '"auto" or a list'),
        (INITIATE | {"techniques": []}, "1", "bad-value", "'techniques'"),
        (INITIATE | {"techniques": ["udp", "udp"]}, "1", "bad-value", "once"),
        (INITIATE | {"techniques": ["../x"]}, "1", "bad-value", "'techniques'"),
        (INITIATE | {"side_delay_ms": -1}, "1", "bad-value", "'side_delay_ms'"),
        (b'{"id":"1","call":"initiate","peer":"1.2.3.4","side_delay_ms":1e999}', "1", "bad-value", "'side_d"),
        (INITIATE | {"secret": "short"}, "1", "bad-value", "it has 5"),
        (INITIATE | {"secret": "x" * 257}, "1", "bad-value", "it has 257"),
        (INITIATE | {"peer": []}, "1", "bad-value", "'peer'"),
        (INITIATE | {"peer": ["198.51.100.2"] * 65}, "1", "bad-value", "'peer'"),
        (INITIATE | {"peer": "host.example"}, "1", "bad-value", "an IPv4 address"),
        (INITIATE | {"peer": "198.51.100.2:"}, "1", "bad-value", "an IPv4 address"),
        (INITIATE | {"peer": "198.51.100.2:0"}, "1", "bad-value", "'peer'"),
        (INITIATE | {"peer": "198.51.100.2:65536"}, "1", "bad-value", "from 1 to 65535"),
        (INITIATE | {"peer": "198.51.100.256"}, "1", "bad-value", "an IPv4 address"),
        (INITIATE | {"peer": "198.51.100.02"}, "1", "bad-value", "an IPv4 address"),
        (INITIATE | {"peer": "198.51.100.2\n"}, "1", "bad-value", "an IPv4 address"),
        (INITIATE | {"peer": "\u0661.2.3.4"}, "1", "bad-value", "an IPv4 address"),
        (INITIATE | {"peer": "[2001:db8::1]:5"}, "1", "bad-value", "an IPv4 address"),
        (INITIATE | {"self": 5}, "1", "bad-value", "'self'"),
        (RESPOND | {"notification": 5}, "k7", "bad-value", "'notification'"),
        (RESPOND | {"notification": ""}, "k7", "bad-value", "'notification'"),
        (RESPOND | {"from": "198.51.100.2"}, "k7", "bad-value", "'from' must be a list"),
        (RESPOND | {"from": ["198.51.100.2/24"]}, "k7", "bad-value", "host bits"),
        (RESPOND | {"from": ["everywhere"]}, "k7", "bad-value", "'from'"),
    ],
)
def test_a_wrong_line_is_refused_by_name(line: Any, id_: str | None, code: str, said: str) -> None:
    """The caller learns the key, what was expected, what came, and under which id."""
    refusal = refused(line)
    assert (id_, code) == (refusal.id, refusal.error.code)
    assert said in refusal.error.message
    assert refusal.error.advice
    assert len(refusal.error.message) < 1000


def test_a_line_beyond_the_limit_is_refused_unread() -> None:
    """The border does not parse what the socket would not have let through."""
    line = json.dumps(PING).encode().ljust(LINE_MAX_LEN)
    assert Ping(id="1") == decode_request(line)
    assert Code.LINE_TOO_LONG == refused(line + b" ").error.code


def test_values_that_look_like_keys_are_no_repetition() -> None:
    """The fast look for repeated keys may err on the slow side only."""
    assert Cancel(id="attempt", attempt="call") == asked(id="attempt", call="cancel", attempt="call")
    assert Ping(id='"id"\\') == asked(id='"id"\\', call="ping")


def test_each_cut_of_a_good_line_is_bad_json() -> None:
    """A line that lost its end must never be taken for a smaller one."""
    line = json.dumps(INITIATE | {"timeout_ms": 1000}).encode()
    for end in range(len(line)):
        assert (None, Code.BAD_JSON) == (refused(line[:end]).id, refused(line[:end]).error.code)


def test_each_single_bit_flip_is_answered() -> None:
    """Accidents on the way must end in a request or a refusal, never in an exception."""
    line = json.dumps(RESPOND | {"from": ["198.51.100.2"]}).encode()
    for position in range(len(line) * 8):
        flipped = bytearray(line)
        flipped[position // 8] ^= 1 << position % 8
        settle(bytes(flipped))


def settle(line: bytes) -> None:
    """The invariant of this file."""
    request = decode_request(line)
    if isinstance(request, Refusal):
        assert Party.CALLER is request.error.code.party
        spelt = json.loads(replies.error(request.id, request.error))
        assert request.id == spelt["id"]
        assert len(spelt["message"]) < 1000
    else:
        assert isinstance(request, Request)
        assert 1 <= len(request.id.encode()) <= 64


CALLS = st.sampled_from(["initiate", "respond", "notify", "cancel", "status", "ping", "endpoint", ""])
KEYS = st.sampled_from(
    sorted({"id", "call", "peer", "self", "transport", "techniques", "timeout_ms", "early", "secret", "x"})
) | st.sampled_from(["side_delay_ms", "notification", "from", "attempt"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["auto", "udp", "198.51.100.2", "198.51.100.2:41000", "203.0.113.0/24", "s" * 20]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, VALUES), CALLS, st.text(max_size=70))
def test_objects_of_any_shape_are_settled(keys: dict[str, Any], call: str, id_: str) -> None:
    """Keys we know with values we do not expect."""
    settle(json.dumps({"id": id_, "call": call} | keys).encode())


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode(errors="surrogatepass")))
def test_bytes_of_any_kind_are_settled(line: bytes) -> None:
    """Not even JSON."""
    settle(line)


DESCRIPTOR = encode_descriptor(
    Descriptor("10.0.2.2", 1_700_000_000_000, udp=Face(22000, Endpoint("198.51.100.2", 40000), NatClass()))
)


def test_a_descriptor_is_a_place() -> None:
    """What `endpoint` gave out is passed on as it is, alone or among addresses."""
    request = asked(**INITIATE | {"peer": [DESCRIPTOR, "198.51.100.3"], "self": DESCRIPTOR})
    assert isinstance(request, Initiate)
    assert [None, "198.51.100.3"] == [None if place.descriptor else str(place) for place in request.peer]
    assert ("198.51.100.2", 22000) == (
        request.self_[0].address, request.self_[0].descriptor and request.self_[0].descriptor.udp
        and request.self_[0].descriptor.udp.local_port,
    )  # fmt: skip


@pytest.mark.parametrize("key", ["peer", "self"])
@pytest.mark.parametrize("text", ["ZTE", DESCRIPTOR[:-4], DESCRIPTOR + "A" * 600, DESCRIPTOR[:-1] + "!"])
def test_a_broken_descriptor_is_refused_by_its_key(key: str, text: str) -> None:
    """Hostile input ends here."""
    refusal = refused(INITIATE | {key: text})
    assert (Code.BAD_VALUE, {"key": key}) == (refusal.error.code, refusal.error.cause)


def test_a_descriptor_is_no_server() -> None:
    """STUN servers are addresses."""
    assert Code.BAD_VALUE is refused({"id": "1", "call": "endpoint", "servers": [DESCRIPTOR]}).error.code
