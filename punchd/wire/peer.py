"""The notification: from words to a short line of text and back.
Hostile input: it is parsed strictly, whole or not at all, and trusted only as far as its seal goes.

    notification = base64url without padding of
        magic "p1" | version u8 | flags u8 | nonce 16 | initiator 4 | responder 4 | patience_ms u32 | count u8
        count times: technique u8 | how u8 | initiator port u16 | responder port u16 | [SYN] | [fan]
        [others: count u8, 1 to 3 | so many further addresses of the initiator's, 4 each; if flagged]
        seal: keyed 16 bytes BLAKE2s (RFC 7693) with the applications' secret, or unkeyed, against accident only
    how = opening in bits 0 and 1 | fan follows, bit 2 | its first packets are SYNs, bit 3
        | which of the initiator's addresses, bits 4 and 5 | a port follows the fan, bit 6
        | timed, bit 7: primed, no fan, and the only offer
    SYN (tcp-syni only) = seq u32 | window u16 | mss u16 | window scale u8 | options u8 | timestamp u32
    fan = twice, for targets (up to 1024) and sources (up to 256): first port u16 | count u16 | step i16
          [the responder's public port, where all of the initiator's aim, u16]

The second message, from the responder to the initiator:

    second message = base64url without padding of
        magic "c1" | version u8 | flags u8 | nonce 16 | count u8 | count times: offer u8 | port u16 | seal

All numbers are big-endian. A later version may differ after the first three bytes only.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import struct

from punchd.words.errors import Code, PeerError
from punchd.words.notification import (
    NONCE_LEN,
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

VERSION = 1
TEXT_MAX = 1024

_MAGIC, _SECOND_MAGIC = b"p1", b"c1"
_HEAD = struct.Struct(f"!2sBB{NONCE_LEN}s4s4sIB")
_OFFER = struct.Struct("!BBHH")
_SPREAD = struct.Struct("!HHh")
_PORT = struct.Struct("!H")
_SECOND_HEAD = struct.Struct(f"!2sBB{NONCE_LEN}sB")
_READY = struct.Struct("!BH")
_SYN = struct.Struct("!IHHBBI")
_SEAL_LEN = 16
_IN_TURN, _BLIND, _KEYED, _UDP, _OTHERS = 1, 2, 4, 8, 16
_OPENING, _FAN, _HANDSHAKE, _AT_BITS, _AT_SHIFT, _MEETS, _TIMED = 3, 4, 8, 48, 4, 64, 128
_NO_SCALE = 255
_SACK, _TIMESTAMP, _MSS = 1, 2, 4
_SYN_OPTIONS = _SACK | _TIMESTAMP | _MSS

# Numbers on the wire; a number is never given to another technique.
_NUMBERS = {"tcp-direct": 1, "tcp-simopen": 2, "tcp-nutss": 3, "tcp-syni": 4, "tcp-midstream": 5, "tcp-birthday": 6,
            "udp": 16, "udp-birthday": 17}  # fmt: skip
_NAMES = {number: name for name, number in _NUMBERS.items()}
_FANNED = {"tcp-birthday", "udp-birthday"}
_LOWEST_PORT = 1024


def encode_notification(notification: Notification, secret: bytes | None = None) -> str:
    """The text that the applications carry."""
    flags = (
        (_IN_TURN if notification.in_turn else 0)
        | (_BLIND if notification.blind else 0)
        | (_KEYED if secret is not None else 0)
        | (_UDP if notification.transport == "udp" else 0)
        | (_OTHERS if notification.others else 0)
    )
    head = _HEAD.pack(
        _MAGIC,
        VERSION,
        flags,
        notification.nonce,
        _packed(notification.initiator),
        _packed(notification.responder),
        notification.patience_ms,
        len(notification.offers),
    )
    body = head + b"".join(_encode_offer(offer) for offer in notification.offers)
    if notification.others:
        body += bytes([len(notification.others)]) + b"".join(_packed(address) for address in notification.others)
    return _sealed(body, secret)


def decode_notification(text: str, secret: bytes | None = None) -> Notification:
    """The words again. PeerError: notification-broken, notification-version or notification-forged."""
    return _decode_body(_opened(text, secret, _MAGIC, _HEAD.size))


def encode_second(message: SecondMessage, secret: bytes | None = None) -> str:
    """The text of the second message."""
    flags = _KEYED if secret is not None else 0
    head = _SECOND_HEAD.pack(_SECOND_MAGIC, VERSION, flags, message.nonce, len(message.ready))
    return _sealed(head + b"".join(_READY.pack(one.offer, one.port) for one in message.ready), secret)


def decode_second(text: str, secret: bytes | None = None) -> SecondMessage:
    """The words again. PeerError as for a notification, and port-refused."""
    body = _opened(text, secret, _SECOND_MAGIC, _SECOND_HEAD.size)
    _, _, flags, nonce, count = _SECOND_HEAD.unpack_from(body)
    if flags & ~_KEYED:
        raise _broken("it has unknown flags")
    if count > OFFERS_MAX or len(body) != _SECOND_HEAD.size + count * _READY.size:
        raise _broken("its length is wrong")
    ready = tuple(Ready(*fields) for fields in _READY.iter_unpack(body[_SECOND_HEAD.size :]))
    if any(0 < one.port < _LOWEST_PORT for one in ready):
        raise PeerError(Code.PORT_REFUSED, f"the second message names a port below {_LOWEST_PORT}")
    return SecondMessage(nonce, ready)


def _sealed(body: bytes, secret: bytes | None) -> str:
    return _text(body + _seal(body, secret))


def _opened(text: str, secret: bytes | None, magic: bytes, head_len: int) -> bytes:
    """The body, its seal checked."""
    data = _decode_text(text)
    if len(data) >= 3 and data[:2] == magic and data[2] != VERSION:
        raise PeerError(
            Code.NOTIFICATION_VERSION,
            f"the peer's punchd speaks version {data[2]} of the notification, this one version {VERSION}",
            cause={"theirs": data[2], "ours": VERSION},
        )
    if len(data) < head_len + _SEAL_LEN or data[:2] != magic:
        raise _broken("it is too short or does not begin as it should")
    body, seal = data[:-_SEAL_LEN], data[-_SEAL_LEN:]
    _check_seal(body, seal, secret, keyed=bool(body[3] & _KEYED))
    return body


def _decode_text(text: str) -> bytes:
    if len(text) > TEXT_MAX or not text.isascii():
        raise _broken(f"it is no base64url text of at most {TEXT_MAX} characters")
    try:
        data = binascii.a2b_base64(text.translate(_FROM_URL) + "==")
    except binascii.Error as error:
        raise _broken(f"it is not base64url: {error}") from error
    if _text(data) != text:  # what is no base64url was passed over, and padding may be too much
        raise _broken("it is not base64url, or not spelled canonically")
    return data


def _text(data: bytes) -> str:
    """RFC 4648, section 5, without padding."""
    return binascii.b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URL).decode("ascii")


_TO_URL, _FROM_URL = bytes.maketrans(b"+/", b"-_"), str.maketrans("-_", "+/")


def _check_seal(body: bytes, seal: bytes, secret: bytes | None, *, keyed: bool) -> None:
    if keyed and secret is None:
        raise PeerError(Code.NOTIFICATION_FORGED, "the notification is sealed with a secret, and none was given here")
    if secret is not None and not keyed:
        raise PeerError(
            Code.NOTIFICATION_FORGED, "a secret was given here, but the notification is not sealed with one"
        )
    if not hmac.compare_digest(seal, _seal(body, secret)):
        if keyed:
            raise PeerError(
                Code.NOTIFICATION_FORGED, "the notification was not sealed with this secret, or was altered"
            )
        raise _broken("its checksum is wrong: it was altered on its way")


def _decode_body(body: bytes) -> Notification:
    _, _, flags, nonce, initiator, responder, patience_ms, count = _HEAD.unpack_from(body)
    if flags & ~(_IN_TURN | _BLIND | _KEYED | _UDP | _OTHERS):
        raise _broken("it has unknown flags")
    if not 1 <= count <= OFFERS_MAX:
        raise _broken(f"it makes {count} offers; 1 to {OFFERS_MAX} are allowed")
    transport = "udp" if flags & _UDP else "tcp"
    offers = []
    offset = _HEAD.size
    for _ in range(count):
        offer, offset = _decode_offer(body, offset)
        if not offer.technique.startswith(transport):
            raise _broken(f"{offer.technique} is offered for {transport}")
        offers.append(offer)
    if count > 1 and any(offer.timed for offer in offers):
        raise _broken("a timed offer is not the only one")
    others: tuple[str, ...] = ()
    if flags & _OTHERS:
        others, offset = _decode_others(body, offset)
    if offset != len(body):
        raise _broken("bytes are left over at its end")
    if any(offer.at > len(others) for offer in offers):
        raise _broken("an offer is for an address that it does not name")
    return Notification(
        nonce,
        _spelled(initiator),
        _spelled(responder),
        transport,
        tuple(offers),
        bool(flags & _IN_TURN),
        bool(flags & _BLIND),
        patience_ms,
        others,
    )


def _encode_offer(offer: Offer) -> bytes:
    how = offer.opening | offer.at << _AT_SHIFT | (_TIMED if offer.timed else 0)
    if offer.fan is not None:
        how |= _FAN | (_HANDSHAKE if offer.fan.handshake else 0) | (_MEETS if offer.fan.meets else 0)
    data = _OFFER.pack(_NUMBERS[offer.technique], how, offer.initiator_port, offer.responder_port)
    if offer.syn is not None:
        data += _encode_syn(offer.syn)
    if offer.fan is not None:
        for spread in (offer.fan.targets, offer.fan.sources):
            data += _SPREAD.pack(spread.first, spread.count, spread.step)
        if offer.fan.meets:
            data += _PORT.pack(offer.fan.meets)
    return data


def _encode_syn(syn: Syn) -> bytes:
    options = (
        (_SACK if syn.sack_permitted else 0)
        | (_TIMESTAMP if syn.timestamp is not None else 0)
        | (_MSS if syn.mss is not None else 0)
    )
    scale = _NO_SCALE if syn.window_scale is None else syn.window_scale
    return _SYN.pack(syn.seq, syn.window, syn.mss or 0, scale, options, syn.timestamp or 0)


def _decode_offer(body: bytes, offset: int) -> tuple[Offer, int]:
    if len(body) < offset + _OFFER.size:
        raise _broken("it ends in the middle of an offer")
    number, how, own, peer = _OFFER.unpack_from(body, offset)
    offset += _OFFER.size
    name = _NAMES.get(number)
    if name is None:
        raise _broken(f"it offers technique number {number}, which does not exist")
    primed = how & _OPENING == Opening.PRIMED and not how & _FAN
    if (how & _MEETS and not how & _FAN) or (how & _TIMED and not primed):
        raise _broken(f"its offer of {name} opens in a way that does not exist")
    syn, fan = None, None
    if name == "tcp-syni":
        syn, offset = _decode_syn(body, offset)
    if bool(how & _FAN) != (name in _FANNED):
        raise _broken(f"its offer of {name} has a fan and must not, or has none and must")
    if how & _FAN:
        targets, offset = _decode_spread(body, offset)
        sources, offset = _decode_spread(body, offset)
        if sources.count > SOURCES_MAX:
            raise _broken(f"its fan wants {sources.count} ports of ours; {SOURCES_MAX} are allowed")
        meets = 0
        if how & _MEETS:
            meets, offset = _decode_port(body, offset)
        fan = Fan(targets, sources, bool(how & _HANDSHAKE), meets)
    elif own < _LOWEST_PORT or peer < _LOWEST_PORT:
        raise PeerError(Code.PORT_REFUSED, f"the notification names a port below {_LOWEST_PORT}")
    at, timed = (how & _AT_BITS) >> _AT_SHIFT, bool(how & _TIMED)
    return Offer(name, own, peer, syn, Opening(how & _OPENING), fan, at, timed), offset


def _decode_others(body: bytes, offset: int) -> tuple[tuple[str, ...], int]:
    count = body[offset] if offset < len(body) else 0
    end = offset + 1 + count * 4
    if not 1 <= count <= OTHERS_MAX or len(body) < end:
        raise _broken("it has not the further addresses that it announces")
    return tuple(_spelled(body[at : at + 4]) for at in range(offset + 1, end, 4)), end


def _decode_spread(body: bytes, offset: int) -> tuple[Spread, int]:
    if len(body) < offset + _SPREAD.size:
        raise _broken("it ends in the middle of a fan")
    first, count, step = _SPREAD.unpack_from(body, offset)
    if not 1 <= count <= SPREAD_MAX or not step:
        raise _broken(f"its fan has {count} ports, {step} apart")
    if first and not all(_LOWEST_PORT <= port < 65536 for port in (first, first + (count - 1) * step)):
        raise PeerError(Code.PORT_REFUSED, "the notification's fan reaches beyond the ports that may be punched")
    return Spread(first, count, step), offset + _SPREAD.size


def _decode_port(body: bytes, offset: int) -> tuple[int, int]:
    if len(body) < offset + _PORT.size:
        raise _broken("it ends in the middle of a fan")
    (port,) = _PORT.unpack_from(body, offset)
    if port < _LOWEST_PORT:
        raise PeerError(Code.PORT_REFUSED, f"the notification's fan meets at a port below {_LOWEST_PORT}")
    return port, offset + _PORT.size


def _decode_syn(body: bytes, offset: int) -> tuple[Syn, int]:
    if len(body) < offset + _SYN.size:
        raise _broken("it ends in the middle of a SYN")
    seq, window, mss, scale, options, timestamp = _SYN.unpack_from(body, offset)
    if options & ~_SYN_OPTIONS or (scale > 14 and scale != _NO_SCALE):
        raise _broken("its SYN has options that no SYN has")
    if (mss and not options & _MSS) or (timestamp and not options & _TIMESTAMP):
        raise _broken("its SYN gives a number for an option that it has not")
    syn = Syn(
        seq,
        window,
        mss if options & _MSS else None,
        None if scale == _NO_SCALE else scale,
        bool(options & _SACK),
        timestamp if options & _TIMESTAMP else None,
    )
    return syn, offset + _SYN.size


def _packed(address: str) -> bytes:
    """By hand: an IPv4Address costs ten times as much, and a word's address is well formed."""
    return bytes(map(int, address.split(".")))


def _spelled(packed: bytes) -> str:
    a, b, c, d = packed
    return f"{a}.{b}.{c}.{d}"


def _seal(body: bytes, secret: bytes | None) -> bytes:
    # BLAKE2s takes keys up to 32 bytes; longer secrets are condensed first
    key = b"" if secret is None else hashlib.blake2s(secret).digest()
    return hashlib.blake2s(body, digest_size=_SEAL_LEN, key=key, person=b"punchd-1").digest()


def _broken(why: str) -> PeerError:
    return PeerError(Code.NOTIFICATION_BROKEN, f"the notification can't be read: {why}")
