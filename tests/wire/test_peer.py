"""The notification's bytes: what goes in comes out, and nothing else comes out of anything.
It refuses to trust the encoder: hostile ones are built by hand, with a valid seal.

Invariant of the fuzz below: whatever text arrives, decode_notification either raises PeerError, or returns words that
encode to exactly this text again. There is no second spelling, no other exception and no half-parsed word.
"""

from __future__ import annotations

import base64
import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from punchd.wire.peer import TEXT_MAX, decode_notification, decode_second, encode_notification, encode_second
from punchd.words.errors import Code, PeerError
from punchd.words.notification import (
    OFFERS_MAX,
    OTHERS_MAX,
    SOURCES_MAX,
    SPREAD_MAX,
    Fan,
    Notification,
    Offer,
    Opening,
    Ready,
    SecondMessage,
    Spread,
    Syn,
)

TCP = ["tcp-direct", "tcp-simopen", "tcp-nutss", "tcp-syni", "tcp-midstream"]
SECRET, OTHER = b"0123456789abcdef", b"fedcba9876543210"
NUMBERS = {"tcp-direct": 1, "tcp-simopen": 2, "tcp-nutss": 3, "tcp-syni": 4, "tcp-midstream": 5, "udp": 16}
HEAD_LEN, SEAL_LEN = 33, 16

PORTS = st.integers(1024, 65535)
U16, U32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
ADDRESSES = st.ip_addresses(v=4).map(str)
SYNS = st.builds(
    Syn, seq=U32, window=U16, mss=st.none() | U16, window_scale=st.none() | st.integers(0, 14),
    sack_permitted=st.booleans(), timestamp=st.none() | U32,
)  # fmt: skip


def an_offer(name: str) -> st.SearchStrategy[Offer]:
    return st.builds(
        Offer, st.just(name), PORTS, PORTS, SYNS if name == "tcp-syni" else st.none(), st.sampled_from(Opening),
        FANS if name.endswith("birthday") else st.none(),
    )  # fmt: skip


def spreads(most: int) -> st.SearchStrategy[Spread]:
    return st.builds(
        lambda count, step, room: Spread(0 if room is None else 1024 + abs(step) * count + room, count, step),
        st.integers(1, most), st.sampled_from([1, 2, 7, -1, -3]), st.none() | st.integers(0, 48000),
    )  # fmt: skip


FANS = st.builds(Fan, spreads(SPREAD_MAX), spreads(SOURCES_MAX), st.booleans(), st.just(0) | st.integers(1024, 65535))


@st.composite
def notifications(draw: st.DrawFn) -> Notification:
    transport = draw(st.sampled_from(["tcp", "udp"]))
    names = TCP if transport == "tcp" else ["udp", "udp-birthday"]
    others = tuple(draw(st.lists(ADDRESSES, max_size=OTHERS_MAX)))
    offers = tuple(
        replace(one, at=draw(st.integers(0, len(others))))
        for one in draw(st.lists(st.sampled_from(names).flatmap(an_offer), min_size=1, max_size=OFFERS_MAX))
    )
    return Notification(
        draw(st.binary(min_size=16, max_size=16)), draw(ADDRESSES), draw(ADDRESSES), transport, offers,
        draw(st.booleans()), draw(st.booleans()), draw(U32), others,
    )  # fmt: skip


def fan(first: int = 40000, count: int = 16, step: int = 2) -> bytes:
    return struct.pack("!HHh", first, count, step)


SYN = Syn(0xDEADBEEF, 64240, 1460, 7, True, None)
ONE = Notification(
    bytes(range(16)), "203.0.113.2", "198.51.100.2", "tcp",
    (Offer("tcp-simopen", 22001, 23001), Offer("tcp-syni", 22002, 23002, SYN)), True, False, 10_000,
)  # fmt: skip


def code_of(text: str, secret: bytes | None = None) -> Code:
    with pytest.raises(PeerError) as caught:
        decode_notification(text, secret)
    assert caught.value.message
    assert caught.value.advice
    return caught.value.code


def as_bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def as_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def sealed(body: bytes) -> str:
    """A text whose checksum is right, whatever its body."""
    return as_text(body + hashlib.blake2s(body, digest_size=SEAL_LEN, person=b"punchd-1").digest())


def body(*, version: int = 1, flags: int = 0, count: int = 1, rest: bytes = b"", magic: bytes = b"p1") -> bytes:
    return (
        struct.pack("!2sBB16s4s4sIB", magic, version, flags, bytes(16), b"\1\2\3\4", b"\5\6\7\x08", 1000, count) + rest
    )


def offer(number: int = 2, own: int = 22001, peer: int = 23001, how: int = 0) -> bytes:
    return struct.pack("!BBHH", number, how, own, peer)


def syn(*, scale: int = 7, options: int = 4, mss: int = 1460, timestamp: int = 0) -> bytes:
    return struct.pack("!IHHBBI", 1, 64240, mss, scale, options, timestamp)


# -- round trips -------------------------------------------------------------------------------------------------


@given(notifications(), st.none() | st.binary(min_size=16, max_size=64))
def test_what_goes_in_comes_out(notification: Notification, secret: bytes | None) -> None:
    """With and without a secret, the largest one too."""
    text = encode_notification(notification, secret)
    assert len(text) <= TEXT_MAX
    assert notification == decode_notification(text, secret)


def test_the_bytes_are_as_documented() -> None:
    """Vector: another implementation must come to the same text."""
    head = b"p1" + bytes([1, 1]) + bytes(range(16)) + bytes([203, 0, 113, 2]) + bytes([198, 51, 100, 2])
    head += (10_000).to_bytes(4, "big") + b"\x02"
    offers = offer(2, 22001, 23001) + offer(4, 22002, 23002)
    offers += struct.pack("!IHHBBI", 0xDEADBEEF, 64240, 1460, 7, 5, 0)
    assert sealed(head + offers) == encode_notification(ONE)


def test_further_addresses_follow_the_offers() -> None:
    """Vector: an offer names the second of three by bits 4 and 5."""
    word = Notification(bytes(16), "1.2.3.4", "5.6.7.8", "udp", (Offer("udp", 22001, 23001, at=2),), patience_ms=1000,
                        others=("10.0.1.2", "192.0.2.8", "192.0.2.9"))  # fmt: skip
    rest = b"\x03" + bytes([10, 0, 1, 2, 192, 0, 2, 8, 192, 0, 2, 9])
    assert sealed(body(flags=24, rest=offer(16, how=0x20) + rest)) == encode_notification(word)


@pytest.mark.parametrize(
    ("flags", "how", "rest"),
    [(24, 0, b""), (24, 0, b"\0"), (24, 0, b"\4" + bytes(16)), (24, 0, b"\1\x0a\0\1"), (24, 0, b"\1" + bytes(5)),
     (8, 0x10, b""), (24, 0x20, b"\1\x0a\0\1\2")],
    ids=["none", "a count of 0", "four", "cut", "a byte too many", "an offer for none", "an offer for a second one"],
)  # fmt: skip
def test_further_addresses_are_whole_or_refused(flags: int, how: int, rest: bytes) -> None:
    """Each is a target that somebody else names."""
    assert Code.NOTIFICATION_BROKEN is code_of(sealed(body(flags=flags, rest=offer(16, how=how) + rest)))


@pytest.mark.parametrize(("number", "name"), [(16, "udp"), (5, "tcp-midstream")])
def test_a_timed_offer_says_so_in_its_last_bit(number: int, name: str) -> None:
    """Vector; and it comes back as it went."""
    flags = 8 if name == "udp" else 0
    word = Notification(bytes(16), "1.2.3.4", "5.6.7.8", name.partition("-")[0],
                        (Offer(name, 22001, 23001, timed=True),), patience_ms=1000)  # fmt: skip
    text = sealed(body(flags=flags, rest=offer(number, how=0x80)))
    assert (text, word) == (encode_notification(word), decode_notification(text))


def test_a_timed_offer_is_primed_and_the_only_one_or_refused() -> None:
    """Else the responder, who says COMMIT on it unanswered, would have chosen where the initiator may have another."""
    for how in (0x81, 0x82, 0x83):
        assert Code.NOTIFICATION_BROKEN is code_of(sealed(body(flags=8, rest=offer(16, how=how))))
    assert Code.NOTIFICATION_BROKEN is code_of(sealed(body(rest=offer(6, how=0x84) + fan() + fan())))
    for first, second in ((0x80, 0), (0, 0x80), (0x80, 0x80)):
        rest = offer(16, how=first) + offer(16, 22002, 23002, how=second)
        assert Code.NOTIFICATION_BROKEN is code_of(sealed(body(flags=8, count=2, rest=rest)))


def test_the_text_is_short() -> None:
    """It travels in QR codes, chat lines and whatever applications have."""
    assert len(encode_notification(ONE)) <= 100


# -- altered on its way ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [None, SECRET])
def test_cut_at_each_byte_it_is_refused(secret: bytes | None) -> None:
    """Whole or not at all."""
    text = encode_notification(ONE, secret)
    for end in range(len(text)):
        assert code_of(text[:end], secret) in (Code.NOTIFICATION_BROKEN, Code.NOTIFICATION_FORGED)


@pytest.mark.parametrize("secret", [None, SECRET])
def test_with_any_byte_altered_it_is_refused(secret: bytes | None) -> None:
    """The checksum is against accident; with a secret the same holds against intent."""
    data = as_bytes(encode_notification(ONE, secret))
    for at in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            altered = as_text(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])
            assert code_of(altered, secret) in _REFUSALS


def test_with_any_character_altered_or_added_it_is_refused() -> None:
    """A line break in the middle, a lost character, an = at the end."""
    text = encode_notification(ONE)
    for at in range(len(text)):
        for other in "A-_=+/ \n\u00e9":
            if other != text[at]:
                assert code_of(text[:at] + other + text[at + 1 :]) in _REFUSALS
        assert code_of(text[:at] + text[at + 1 :]) in _REFUSALS
    for tail in ("=", "==", "A", "\n", " "):
        assert Code.NOTIFICATION_BROKEN == code_of(text + tail)


def test_base64_has_one_spelling() -> None:
    """Unused bits of the last character must be zero, or a replay would get a second name."""
    text = next(text for n in range(1, 4) if len(as_bytes(text := encode_notification(_of(n)))) % 3)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    sibling = text[:-1] + alphabet[alphabet.index(text[-1]) | 1]
    assert text != sibling
    assert as_bytes(text) == as_bytes(sibling)
    assert Code.NOTIFICATION_BROKEN == code_of(sibling)


def test_a_giant_is_refused_before_it_is_read() -> None:
    """Bounded work for hostile input."""
    assert Code.NOTIFICATION_BROKEN == code_of("A" * (TEXT_MAX + 4))
    assert Code.NOTIFICATION_BROKEN == code_of("")


# -- another version, another secret -----------------------------------------------------------------------------


def test_another_version_is_named() -> None:
    """Whatever else it holds: both sides must know which of them is to be renewed."""
    for data in (body(version=2), b"p1\x07", b"p1\x02" + bytes(40)):
        assert Code.NOTIFICATION_VERSION == code_of(as_text(data))
    with pytest.raises(PeerError) as caught:
        decode_notification(as_text(b"p1\x07"))
    assert {"theirs": 7, "ours": 1} == caught.value.cause


def test_secrets_must_match() -> None:
    """None against some, some against none, one against another."""
    assert Code.NOTIFICATION_FORGED == code_of(encode_notification(ONE, SECRET))
    assert Code.NOTIFICATION_FORGED == code_of(encode_notification(ONE), SECRET)
    assert Code.NOTIFICATION_FORGED == code_of(encode_notification(ONE, SECRET), OTHER)


def test_the_keyed_flag_alone_is_no_seal() -> None:
    """A forger who sets the flag has no secret still."""
    forged = sealed(body(flags=4, rest=offer()))
    assert Code.NOTIFICATION_FORGED == code_of(forged)
    assert Code.NOTIFICATION_FORGED == code_of(forged, SECRET)


# -- hostile, and correctly sealed -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        body(magic=b"p2", rest=offer()),
        body(flags=0x10, rest=offer()),
        body(count=0),
        body(count=OFFERS_MAX + 1, rest=offer() * (OFFERS_MAX + 1)),
        body(count=2, rest=offer()),
        body(rest=offer()[:-1]),
        body(rest=offer() + b"\0"),
        body(rest=offer(number=0)),
        body(rest=offer(number=16)),
        body(flags=8, rest=offer(number=2)),
        body(rest=offer(number=4)),
        body(rest=offer(number=4) + syn()[:-1]),
        body(rest=offer(number=4) + syn(scale=15)),
        body(rest=offer(number=4) + syn(options=8)),
        body(rest=offer(number=4) + syn(options=0)),
        body(rest=offer(number=4) + syn(timestamp=1)),
        body(rest=offer(how=16)),
        body(rest=offer(how=4) + fan() + fan()),
        body(rest=offer(number=6)),
        body(rest=offer(number=6, how=4) + fan()),
        body(rest=offer(number=6, how=4) + fan() + fan(count=0)),
        body(rest=offer(number=6, how=4) + fan() + fan(count=1025)),
        body(rest=offer(number=6, how=4) + fan() + fan(count=257)),
        body(rest=offer(number=6, how=4) + fan() + fan(step=0)),
    ],
    ids=["magic", "flags", "no-offers", "too-many", "offer-missing", "offer-cut", "left-over", "no-technique",
         "udp-in-tcp", "tcp-in-udp", "no-syn", "syn-cut", "scale", "options", "unnamed-mss", "unnamed-timestamp",
         "how", "fan-unasked", "no-fan", "half-fan", "empty-fan", "huge-fan", "many-sources", "standing-fan"],
)  # fmt: skip
def test_a_right_seal_excuses_nothing(data: bytes) -> None:
    """Without a secret anybody can seal."""
    assert Code.NOTIFICATION_BROKEN == code_of(sealed(data))


@pytest.mark.parametrize(("own", "peer"), [(1023, 23001), (22001, 22), (0, 23001)])
def test_low_ports_are_refused(own: int, peer: int) -> None:
    """A notification must never open a local service to a stranger."""
    assert Code.PORT_REFUSED == code_of(sealed(body(rest=offer(own=own, peer=peer))))


@pytest.mark.parametrize("spread", [(1023, 1, 1), (1100, 100, -1), (65000, 1000, 1)])
def test_fans_reach_no_port_that_may_not_be_punched(spread: tuple[int, int, int]) -> None:
    """Neither in whole nor with their last rib."""
    assert Code.PORT_REFUSED == code_of(sealed(body(rest=offer(number=6, how=4) + fan(*spread) + fan())))


def test_a_port_to_meet_at_is_read_strictly() -> None:
    """Below 1024 no mapping lies, and half a port is none."""
    fans = offer(number=6, how=4 | 64) + fan() + fan()
    (read,) = decode_notification(sealed(body(rest=fans + b"\xc3\x50"))).offers
    assert read.fan is not None
    assert 50000 == read.fan.meets
    assert Code.PORT_REFUSED == code_of(sealed(body(rest=fans + b"\x03\xff")))
    assert Code.NOTIFICATION_BROKEN == code_of(sealed(body(rest=fans + b"\xc3")))


# -- the second message ------------------------------------------------------------------------------------------


@given(
    st.binary(min_size=16, max_size=16),
    st.lists(st.builds(Ready, st.integers(0, 255), st.just(0) | PORTS), max_size=OFFERS_MAX),
    st.none() | st.binary(min_size=16, max_size=64),
)
def test_a_second_message_comes_out_as_it_went_in(nonce: bytes, ready: list[Ready], secret: bytes | None) -> None:
    """With and without a secret."""
    message = SecondMessage(nonce, tuple(ready))
    assert message == decode_second(encode_second(message, secret), secret)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"c1\1\0" + bytes(16) + b"\1\0\0", Code.NOTIFICATION_BROKEN),
        (b"c1\1\0" + bytes(16) + b"\0\0", Code.NOTIFICATION_BROKEN),
        (b"c1\1\x08" + bytes(16) + b"\0", Code.NOTIFICATION_BROKEN),
        (b"p1\1\0" + bytes(16) + b"\0", Code.NOTIFICATION_BROKEN),
        (b"c1\2\0" + bytes(16) + b"\0", Code.NOTIFICATION_VERSION),
        (b"c1\1\4" + bytes(16) + b"\0", Code.NOTIFICATION_FORGED),
        (b"c1\1\0" + bytes(16) + b"\1\0\0\x16", Code.PORT_REFUSED),
    ],
    ids=["cut", "left-over", "flags", "magic", "version", "keyed", "low-port"],
)
def test_a_second_message_that_lies_is_refused(data: bytes, code: Code) -> None:
    """It is as hostile as the first."""
    with pytest.raises(PeerError) as caught:
        decode_second(sealed(data))
    assert code == caught.value.code


@given(st.binary(max_size=120) | st.binary(max_size=60).map(lambda rest: body(rest=rest)[: HEAD_LEN + len(rest)]))
def test_sealed_bytes_of_any_kind_are_refused_or_canonical(data: bytes) -> None:
    """See the invariant at the head of this file."""
    _refused_or_canonical(sealed(data))


@given(st.text(max_size=200) | st.text("ABCDwxyz019-_", max_size=200))
def test_text_of_any_kind_is_refused(text: str) -> None:
    """Nobody hits a 16-byte seal by chance."""
    assert code_of(text) in _REFUSALS


@given(
    notifications(),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    st.integers(0, 200),
    st.binary(max_size=6),
)
def test_resealed_mutations_are_refused_or_canonical(
    notification: Notification, flips: list[tuple[int, int]], cut: int, tail: bytes
) -> None:
    """Near misses find what noise does not."""
    data = bytearray(as_bytes(encode_notification(notification))[:-SEAL_LEN])
    for at, value in flips:
        data[at % len(data)] = value
    _refused_or_canonical(sealed(bytes(data[: len(data) - cut % 3]) + tail[: cut % 7]))


_REFUSALS = (Code.NOTIFICATION_BROKEN, Code.NOTIFICATION_VERSION, Code.NOTIFICATION_FORGED, Code.PORT_REFUSED)


def _refused_or_canonical(text: str) -> None:
    try:
        notification = decode_notification(text)
    except PeerError as error:
        refusal = error.code
    else:
        assert text == encode_notification(notification)
        return
    assert refusal in _REFUSALS


def _of(offers: int) -> Notification:
    return Notification(bytes(16), "203.0.113.2", "198.51.100.2", "tcp", ONE.offers[:1] * offers)
