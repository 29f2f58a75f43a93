"""Which network this host is in: the prefix of an address and its gateway's MAC, by what /proc/net says.
Asks nobody on the network and needs no privilege; routes outside of the main table are not seen.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import msgspec

_ROUTES, _NEIGHBOURS = Path("/proc/net/route"), Path("/proc/net/arp")
_UP = 1  # linux/route.h, RTF_UP
_UNRESOLVED = "00:00:00:00:00:00"


class Network(msgspec.Struct, frozen=True, gc=False):
    """Home networks share their prefixes, so it takes the gateway's MAC to tell one from another."""

    prefix: str
    gateway_mac: str


class _Route(msgspec.Struct, frozen=True, gc=False):
    interface: str
    destination: int
    mask: int
    gateway: str
    metric: int


def network_of(local: str) -> Network | None:
    """The network in which this host bears the address `local`; None where there is no gateway with a known MAC."""
    try:
        routes, neighbours = _ROUTES.read_bytes().decode(), _NEIGHBOURS.read_bytes().decode()
    except OSError:
        return None  # a container without them
    return find(local, routes, neighbours)


def is_on_link(local: str, address: str) -> bool:
    """Whether `address` is reached without a gateway, through the interface whose network `local` is in."""
    try:
        routes = _ROUTES.read_bytes().decode()
    except OSError:
        return False
    return shares_link(local, address, routes)


def shares_link(local: str, address: str, routes: str) -> bool:
    """The same, from the text of the file."""
    known, (near, far) = _routes(routes), (_number(local), _number(address))
    ways = [max((one for one in known if at & one.mask == one.destination), key=_rank, default=None)
            for at in (near, far)]  # fmt: skip
    own, way = ways
    return own is not None and way is not None and way.gateway == "0.0.0.0" and way.interface == own.interface


def _rank(route: _Route) -> tuple[int, int]:
    return route.mask, -route.metric


def find(local: str, routes: str, neighbours: str) -> Network | None:
    """The same, from the text of the two files (proc_pid_net(5))."""
    known = _routes(routes)
    address = _number(local)
    own = [route for route in known if route.gateway == "0.0.0.0" and address & route.mask == route.destination]
    if not own:
        return None
    link = max(own, key=lambda route: route.mask)
    ways = [route for route in known if route.interface == link.interface and route.mask == 0]
    if not ways:
        return None
    gateway = min(ways, key=lambda route: route.metric).gateway
    mac = _mac(gateway, link.interface, neighbours)
    prefix = f"{socket.inet_ntoa(struct.pack('!I', link.destination))}/{link.mask.bit_count()}"
    return None if mac is None else Network(prefix, mac)


def _routes(text: str) -> list[_Route]:
    found = []
    for line in text.splitlines()[1:]:
        interface, destination, gateway, flags, _, _, metric, mask = line.split()[:8]
        if int(flags, 16) & _UP:
            via = socket.inet_ntoa(struct.pack("=I", int(gateway, 16)))
            found.append(_Route(interface, _turned(destination), _turned(mask), via, int(metric)))
    return found


def _mac(address: str, interface: str, neighbours: str) -> str | None:
    for line in neighbours.splitlines()[1:]:
        fields = line.split()
        if (fields[0], fields[-1]) == (address, interface) and fields[3] != _UNRESOLVED:
            return fields[3]
    return None


def _number(address: str) -> int:
    (number,) = struct.unpack("!I", socket.inet_aton(address))
    return int(number)


def _turned(text: str) -> int:
    """The file prints numbers of network order as this machine reads them."""
    (number,) = struct.unpack("!I", struct.pack("=I", int(text, 16)))
    return int(number)
