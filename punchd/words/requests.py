"""What a caller can ask for: one frozen class per call, every default in one place.
It refuses to parse or to judge: wire/api builds these, the daemon decides about them."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Network

import msgspec

from .nat import Descriptor

TIMEOUT_MS = 10_000
TIMEOUT_MAX_MS = 600_000
ENDPOINT_TIMEOUT_MS = 6_000
SERVERS_MAX = 8
SIDE_DELAY_MAX_MS = 60_000
ID_MAX_LEN = 64
SECRET_MIN_LEN = 16
SECRET_MAX_LEN = 256


class Transport(StrEnum):
    TCP = "tcp"
    UDP = "udp"


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a host is seen from outside; a port only where its mapping is known beforehand."""

    address: str
    """An IPv4 address in its usual spelling."""
    port: int | None = None
    descriptor: Descriptor | None = None
    """Says more, for each transport; then `address` is that of the first it has, and there is no port."""

    def __str__(self) -> str:
        return self.address if self.port is None else f"{self.address}:{self.port}"


class Initiate(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Start an attempt; punchd answers with a notification for the peer."""

    id: str
    peer: tuple[Place, ...]
    """At least one, in the caller's order."""
    self_: tuple[Place, ...] = ()
    """Own public places; empty: as configured."""
    transport: Transport = Transport.TCP
    techniques: tuple[str, ...] = ()
    """Names in order; empty: auto."""
    timeout_ms: int = TIMEOUT_MS
    early: bool = False
    secret: bytes | None = None
    side_delay_ms: float | None = None
    """One-way delay of the side channel, when the caller knows it."""


class Respond(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Act on a peer's notification."""

    id: str
    notification: str
    from_: tuple[IPv4Network, ...] = ()
    """Nothing is sent beyond these; empty: no such limit."""
    timeout_ms: int = TIMEOUT_MS
    early: bool = False
    secret: bytes | None = None


class Notify(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Hand an open attempt the peer's optional second message."""

    id: str
    attempt: str
    notification: str


class FindEndpoint(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Find how this host looks from outside; the call is named `endpoint`."""

    id: str
    servers: tuple[Place, ...] = ()
    """STUN servers; empty: as configured."""
    transports: tuple[Transport, ...] = (Transport.TCP, Transport.UDP)
    timeout_ms: int = ENDPOINT_TIMEOUT_MS
    keep: bool = False
    """Keep the mapping alive until the request is cancelled."""
    peer: str | None = None
    """A peer's descriptor: find the largest TTL that stays short of its NATs, too."""


class Cancel(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """End an open attempt or a kept endpoint."""

    id: str
    attempt: str


class Status(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Tell what runs."""

    id: str


class Ping(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Tell what can work here and what is missing."""

    id: str


Request = Initiate | Respond | Notify | FindEndpoint | Cancel | Status | Ping
