"""How one daemon is set up: options with their defaults, and nothing else.
Reads no file and no environment; __main__ does."""

from __future__ import annotations

import msgspec

from punchd.core.budget import Limit, Limits
from punchd.words.addresses import PUNCH_PORTS, Endpoint, PortRange

DEFAULT_SOCKET = "/tmp/punchd.socket"
_DEFAULTS = Limits()
HOLE_TTL = 2  # past one NAT: what most hosts have
HOLE_TTL_MAX = 16


class Config(msgspec.Struct, frozen=True, gc=False):
    """One daemon's settings.

    hole_ttl          hops after which a primer dies: past our own NATs, short of the peer's; None: as `endpoint` found
                      them in this network, else HOLE_TTL
    public            this host's public address, where neither the caller nor the route tells it
    allow_private     whether private addresses may be targets (RFC 1918, RFC 6598)
    attempts_per_uid  open attempts that one user may have
    stun              STUN servers for `endpoint` requests that name none
    keepalive_s       how often a kept endpoint's mapping is refreshed
    endpoints_per_uid open `endpoint` requests that one user may have
    target_budget     packets that may reach one address (core/budget.py)
    caller_budget     packets that may leave for one user
    host_budget       packets that may leave in all
    network_memory_s  how long the TTL that was found in a network is believed; 0: never
    journal           folder for one journal per attempt; None writes none
    """

    socket: str = DEFAULT_SOCKET
    group: str | None = None
    hole_ttl: int | None = None
    ports: PortRange = PUNCH_PORTS
    public: str | None = None
    allow_private: bool = False
    attempts_per_uid: int = 20_000
    stun: tuple[Endpoint, ...] = ()
    keepalive_s: float = 15.0
    endpoints_per_uid: int = 32
    target_budget: Limit = _DEFAULTS.target
    caller_budget: Limit = _DEFAULTS.caller
    host_budget: Limit = _DEFAULTS.host
    network_memory_s: float = 3600.0
    journal: str | None = None
