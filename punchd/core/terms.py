"""What all pairs of an attempt share, and what both peers derive from its nonce. Holds nothing that changes."""

from __future__ import annotations

import hashlib
from struct import Struct

import msgspec


class Terms(msgspec.Struct, frozen=True, gc=False):
    """What all pairs of an attempt share.

    hole_ttl  hops after which a primer dies
    blind     this host can't see segments, send captured ones again and keep time-exceeded from its sockets
    """

    initiating: bool
    nonce: bytes
    hole_ttl: int = 2
    blind: bool = False


def secret_numbers(nonce: bytes, label: str) -> tuple[int, int]:
    """Two 32-bit numbers that both peers derive from the nonce and nobody else can (BLAKE2s, RFC 7693)."""
    digest = hashlib.blake2s(label.encode(), key=nonce, digest_size=8, person=b"numbers").digest()
    a, b = _TWO_NUMBERS.unpack(digest)
    return a, b


def secret_tag(nonce: bytes, label: str) -> bytes:
    """Eight bytes that both peers derive from the nonce and nobody else can."""
    return hashlib.blake2s(label.encode(), key=nonce, digest_size=8).digest()


_TWO_NUMBERS = Struct(">II")
