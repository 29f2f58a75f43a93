"""Addresses and endpoints as the API, the core and the edges spell them.
Resolves no names and asks no kernel."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Self

import msgspec


@lru_cache(maxsize=4096)
def parse_address(text: str) -> str:
    """The canonical spelling of an IPv4 address; ValueError says what is wrong.

    IPv6 has its place in the types but is refused until the techniques carry it.
    """
    address = ipaddress.ip_address(text)
    if address.version != 4:
        raise ValueError(f"{text!r} is IPv6, which punchd does not punch yet")
    return str(address)


class Endpoint(msgspec.Struct, frozen=True, gc=False, order=True):
    """A transport address (RFC 8445): an IP address and a port; port 0 means "not known"."""

    address: str
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """`198.51.100.2` or `198.51.100.2:4711`; ValueError names what does not fit."""
        host, colon, port = text.rpartition(":")
        if not colon:
            return cls(parse_address(text))
        if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"{text!r}: the port must be 1 to 65535")
        return cls(parse_address(host), int(port))

    def __str__(self) -> str:
        return f"{self.address}:{self.port}" if self.port else self.address


class PortRange(msgspec.Struct, frozen=True, gc=False):
    """Ports `low` to `high`, both included."""

    low: int
    high: int

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and self.low <= port <= self.high

    def __len__(self) -> int:
        return self.high - self.low + 1

    def __str__(self) -> str:
        return f"{self.low}-{self.high}"


# Above the ports that SIP helpers in routers touch (5060, 10000 to 20000), below Linux's ephemeral ports,
# where other hosts of the same NAT would take our port away (net.ipv4.ip_local_port_range: 32768).
PUNCH_PORTS = PortRange(21000, 31999)
LISTEN_PORTS = PortRange(21000, 21999)
CONNECT_PORTS = PortRange(22000, 31999)

_NEVER = {
    "127.0.0.0/8": "a loopback address",
    "0.0.0.0/8": "an address of this network (RFC 1122)",
    "224.0.0.0/4": "a multicast address",
    "240.0.0.0/4": "a reserved or broadcast address",
    "169.254.0.0/16": "a link-local address",
}
_PRIVATE = {
    "10.0.0.0/8": "a private address (RFC 1918)",
    "172.16.0.0/12": "a private address (RFC 1918)",
    "192.168.0.0/16": "a private address (RFC 1918)",
    "100.64.0.0/10": "a shared address (RFC 6598)",
}


@lru_cache(maxsize=4096)
def why_no_target(address: str, *, allow_private: bool) -> str | None:
    """Why nothing may be sent to `address`, as the end of a sentence ("is ..."); None if it may."""
    table = _NEVER if allow_private else _NEVER | _PRIVATE
    parsed = ipaddress.ip_address(address)
    for prefix, reason in table.items():
        if parsed in ipaddress.ip_network(prefix):
            return reason
    return None


def is_private(address: str) -> bool:
    """One of those that every network may use for itself: nobody is meant by it but whoever has it on the spot."""
    refused = why_no_target(address, allow_private=False) is not None
    return refused and why_no_target(address, allow_private=True) is None
