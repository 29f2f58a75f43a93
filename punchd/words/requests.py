"""What a caller can ask for: one frozen class per call, every default in one place.
It refuses to parse or to judge: wire/api builds these, the daemon decides about them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network

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


@dataclass(frozen=True, slots=True)
class Place:
    """Where a host is seen from outside; a port only where its mapping is known beforehand."""

    address: str
    """An IPv4 address in its usual spelling."""
    port: int | None = None

    def __str__(self) -> str:
        return self.address if self.port is None else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Initiate:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Respond:
    """Act on a peer's notification."""

    id: str
    notification: str
    from_: tuple[IPv4Network, ...] = ()
    """Nothing is sent beyond these; empty: no such limit."""
    timeout_ms: int = TIMEOUT_MS
    early: bool = False
    secret: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """Hand an open attempt the peer's optional second message."""

    id: str
    attempt: str
    notification: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindEndpoint:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """End an open attempt or a kept endpoint."""

    id: str
    attempt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Tell what runs."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """Tell what can work here and what is missing."""

    id: str


Request = Initiate | Respond | Notify | FindEndpoint | Cancel | Status | Ping
