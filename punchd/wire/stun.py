"""Binding requests and responses (RFC 8489, RFC 5780) between words and bytes, by aioice's codec.
Hostile input: what is no well-formed Binding response with our cookie is nothing at all.
"""

from __future__ import annotations

import struct

from aioice import stun

from punchd.words.addresses import Endpoint
from punchd.words.probing import Answer, Change

HEADER_LEN = 20
MESSAGE_MAX_LEN = 1500

_CHANGE_ADDRESS, _CHANGE_PORT = 0x04, 0x02  # RFC 5780, section 7.2
_RESPONSE_PORT = 0x0027  # RFC 5780, section 7.5
_STRAYS = 0xF0E1  # comprehension-optional, and our own server's alone
_REFUSED = {1: False, 2: True}
_COOKIE = struct.pack("!I", stun.COOKIE)


def encode_request(transaction: bytes, change: Change | None = None, *, port: int | None = None) -> bytes:
    """A Binding request; `port`: where at the asker's address it is to be answered."""
    attributes: dict[str, int] = {}
    if change is not None:
        flags = (_CHANGE_ADDRESS if change.address else 0) | (_CHANGE_PORT if change.port else 0)
        attributes["CHANGE-REQUEST"] = flags
    message = bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST, transaction, attributes))
    if port is None:
        return message
    body = message[HEADER_LEN:] + struct.pack("!HHHxx", _RESPONSE_PORT, 4, port)  # aioice doesn't know it
    return message[:2] + struct.pack("!H", len(body)) + message[4:HEADER_LEN] + body


INDICATION = struct.pack("!HHI12x", 0x0011, 0, stun.COOKIE)
"""A Binding indication: whoever gets it answers nothing (RFC 8489, section 6.3.2)."""


def message_len(head: bytes) -> int | None:
    """How long the message is that begins so, on a stream; None while too little has come.

    ValueError: no STUN message begins like this.
    """
    if len(head) < HEADER_LEN:
        return None
    length = HEADER_LEN + int.from_bytes(head[2:4], "big")
    if head[0] & 0xC0 or length % 4 or head[4:8] != _COOKIE or length > MESSAGE_MAX_LEN:
        raise ValueError("not a STUN message")
    return length


def decode_answer(data: bytes) -> Answer | None:
    """A Binding response, or None."""
    try:
        if message_len(data) != len(data):
            return None
        message = stun.parse_message(data)
    except (ValueError, struct.error):  # short attributes reach struct unchecked
        return None
    if message.message_method is not stun.Method.BINDING:
        return None
    attributes = message.attributes
    match message.message_class:
        case stun.Class.RESPONSE:
            # RFC 3489's MAPPED-ADDRESS only where there is no other: some NATs rewrite addresses in payloads
            mapped = attributes.get("XOR-MAPPED-ADDRESS") or attributes.get("MAPPED-ADDRESS")
            other = attributes.get("OTHER-ADDRESS") or attributes.get("CHANGED-ADDRESS")
            return Answer(message.transaction_id, _endpoint(mapped), _endpoint(other), refused=_refused(data))
        case stun.Class.ERROR:
            code = attributes.get("ERROR-CODE")
            return Answer(message.transaction_id, error=code[0] if code else 0, refused=_refused(data))
        case _:
            return None


def _refused(message: bytes) -> bool | None:
    """What became of the server's strays, where it says."""
    at = HEADER_LEN
    while at + 8 <= len(message):
        kind, size, value = struct.unpack_from("!HHI", message, at)
        if kind == _STRAYS and size == 4:
            return _REFUSED.get(value)
        at += 4 + (size + 3 & ~3)
    return None


def _endpoint(pair: tuple[str, int] | None) -> Endpoint | None:
    """IPv6 and port 0 are no endpoints of ours."""
    if pair is None or ":" in pair[0] or not pair[1]:
        return None
    return Endpoint(*pair)
